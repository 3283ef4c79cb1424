"""What fastloss does on this machine: what it found here, and compiling ahead."""

from __future__ import annotations

import inspect
import json
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
import numpy as np
from numpy.typing import DTypeLike

import fastloss
from fastloss._engine import arrays, cache, crew, launch, threads
from fastloss._engine.across import SHORT
from fastloss._engine.kernels import Kinds
from fastloss._engine.loss import CurvedLoss, Operation
from fastloss._engine.vector import LANES
from fastloss.cli import console

__all__ = ["show_config", "warmup"]


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print what fastloss found on this machine, and what it makes of it.

    Versions, CPU and vector width; the number of threads and where it comes from; Numba's threading
    layer, whether it is safe here, and whose threads run the work; the cache's path, owner and state;
    whether this process is a fork. No part of the environment is shown but what fastloss reads.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        Print, or return a dictionary.

    Returns
    -------
    dict or None
        With "dicts", what would be printed.

    Raises
    ------
    ValueError
        `mode` is another word.

    Notes
    -----
    Starts no thread and compiles nothing.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.show_config("dicts")["fastloss"] == fl.__version__
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    found = _config()
    if mode == "dicts":
        return found
    size = f"{found['cache_bytes'] / 1e6:.1f} MB"
    console.pairs(
        [
            *((name, found[name]) for name in ("fastloss", "python", "numpy", "numba", "llvmlite")),
            ("system", found["system"]),
            ("cpu", f"{found['cpu']}, {found['vector_bits']}-bit vectors"),
            ("threads", f"{found['threads']} of {found['threads_available']} ({found['threads_from']})"),
            ("threading layer", _layer_line(found)),
            ("parallel work", found["parallel"]),
            ("cache", f"{found['cache']} ({size})" if found["cache"] else found["cache_state"]),
            *([("cache owner", found["cache_owner"])] if found["cache_owner"] else []),
        ]
    )
    return None


def _layer_line(found: dict[str, Any]) -> str:
    started = "started" if found["threading_layer_started"] else "not started"
    safe = "safe here" if found["threading_layer_safe"] else "never launched by fastloss here"
    return f"{found['threading_layer']}, {started}, {safe}"


def _config() -> dict[str, Any]:
    features = llvmlite.binding.get_host_cpu_features()
    widths = (("avx512f", 512), ("avx2", 256), ("avx", 256))
    name, started = launch.layer()
    safe = launch.layer_is_safe() and not launch.is_fork()
    return {
        "fastloss": fastloss.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "vector_bits": next((w for feature, w in widths if features.get(feature)), 128),
        "threads": threads.count(),
        "threads_from": threads.source(),
        "threads_available": threads.available(),
        "threading_layer": name,
        "threading_layer_started": started,
        "threading_layer_safe": safe,
        "parallel": "numba's threads" if safe else "fastloss's own threads",
        "fork": launch.is_fork(),
        **{f"cache_{name}" if name != "path" else "cache": v for name, v in cache.describe().items()},
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({llvmlite.binding.get_host_cpu_name()})"
    except OSError:
        pass
    return str(llvmlite.binding.get_host_cpu_name())


def warmup(
    dtypes: DTypeLike | Iterable[DTypeLike] = ("float32", "float64"),
    ops: str | Iterable[str] | None = None,
) -> int:
    """Compile ahead: in an image build, or before a fork.

    What is compiled is kept in the cache, and the processes that share it load it. Afterwards no call of
    these operations on these types compiles anything.

    Parameters
    ----------
    dtypes : dtype or iterable of dtype, default ("float32", "float64")
        Types of the arrays. Half types are computed in float32, integers and bool in float64.
    ops : str or iterable of str, optional
        Names of operations, "softmax" for example; by default all.

    Returns
    -------
    int
        How many compilations that took: one a kernel and type, and one for all that several threads
        share. What was found in the cache is not among them.

    Raises
    ------
    TypeError
        A type is not one that fastloss computes in.
    ValueError
        A name is not that of an operation.

    Notes
    -----
    Compiles in as many processes as fastloss may use threads, since Numba compiles in one thread of a
    process at a time; they are new interpreters, which import fastloss and nothing of yours, and they are
    gone when this returns or is interrupted. Then this process loads what they kept. It compiles by
    itself, which takes longer, what they did not: everything where the cache is off or cannot be used,
    where one thread is all there is, where `sys.executable` is not a Python, or where the system
    grants no processes. Some 0.5 GB of memory a process. Shows a progress bar on a terminal, where rich is
    installed (the `cli` extra).

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.warmup("float64", "sigmoid") >= 0
    True
    """
    known = _operations()
    names = list(known) if ops is None else [ops] if isinstance(ops, str) else list(ops)
    for name in names:
        if name not in known:
            raise ValueError(f"ops names {name!r}; the operations are {', '.join(known)}")
    listed: Any = [dtypes] if isinstance(dtypes, str | type | np.dtype) else dtypes
    types = list(dict.fromkeys(_compute_type(d) for d in listed))
    jobs = _jobs([known[name] for name in names], types)
    missing = launch.missing(jobs)
    before = cache.compilations
    compiled = 0
    with console.progress("compiling", "kernels", len(missing)) as advance:
        count, home = min(threads.count(), len(missing)), cache.directory()
        if count > 1 and home is not None and crew.can_be_hired():
            request = json.dumps(
                {
                    "path": [place for place in sys.path if isinstance(place, str)],
                    "ops": names, "dtypes": [t.char for t in types],
                }
            )
            kinds = dict.fromkeys(kind for _, kind in missing)
            alike = [[_name(job) for job in missing if job[1] == kind] for kind in kinds]
            compiled = crew.share_out(_PROGRAM, request, str(home), alike, count, lambda: advance(1))
        launch.ahead(jobs)
    return compiled + cache.compilations - before


# What a process runs that `warmup` starts. It finds modules where this one does.
_PROGRAM = """
import json, sys
request = json.loads(sys.stdin.readline())
sys.path[:] = request.pop("path")
from fastloss import runtime
runtime._compile_what_is_asked(**request)
"""


def _compile_what_is_asked(ops: list[str], dtypes: list[str]) -> None:
    """Say where code is kept, then compile what standard input names, and answer whether it had to."""
    known = _operations()
    jobs = _jobs([known[name] for name in ops], [np.dtype(d) for d in dtypes])
    named = {_name(job): (*job, kinds) for job, kinds in jobs.items()}
    print(cache.directory(), flush=True)
    for line in sys.stdin:
        before = cache.compilations
        launch.prepare(*named[line.rstrip("\n")])
        print(cache.compilations - before, flush=True)


def _operations() -> dict[str, Operation[..., Any]]:
    return {n: op for n in fastloss.__all__ if isinstance(op := getattr(fastloss, n), Operation)}


def _jobs(
    operations: Iterable[Operation[..., Any]], types: Iterable[np.dtype[Any]]
) -> dict[launch.Job, Kinds]:
    """The kernels that operations run on types, each once."""
    with launch.Listing() as found:
        for operation in operations:
            for dtype in types:
                for call, arguments in _samples(operation, dtype):
                    call(**arguments)
    return found


def _name(job: launch.Job) -> str:
    kernel, kind = job
    return f"{kernel.__name__} {kind}"


def _compute_type(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        empty = np.empty(0, dtype)
    except TypeError:
        raise TypeError(f"dtypes names {dtype!r}, which is no data type") from None
    return arrays.upcast(arrays.result_type(arrays.real(empty, "dtypes")))


def _needed(call: Any) -> list[str]:
    """The names of the parameters that have no default."""
    parameters = inspect.signature(call).parameters.values()
    return [p.name for p in parameters if p.default is inspect.Parameter.empty]


def _samples(operation: Operation[..., Any], dtype: np.dtype[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The operation and each of its methods, with arguments for the parameters that need one."""
    methods = [m for m in vars(operation).values() if callable(m) and hasattr(m, "__signature__")]
    for rows, columns in ((2, 3), (LANES, 3), (2, 2)):  # LANES rows are walked across, and all of two
        x = np.zeros((rows, columns), dtype)
        of_classes = "axis" in inspect.signature(operation).parameters
        values: dict[str, Any] = {"targets": np.zeros(rows, np.int64)} if of_classes else {}
        for call in (operation, *(m for m in methods if m is not operation.__wrapped__)):
            parameters, needed = inspect.signature(call).parameters.values(), _needed(call)
            arguments = {name: values.get(name, x) for name in needed}
            if "cotangent" in needed:
                own = _needed(operation)
                arguments["cotangent"] = np.zeros_like(operation(*(values.get(name, x) for name in own)))
            yield call, arguments
            if isinstance(operation, CurvedLoss):  # it takes class probabilities, too
                yield call, {**arguments, "targets": x}
                yield call, dict.fromkeys(needed, np.zeros((rows, SHORT + 1), dtype))
            for p in parameters:
                if isinstance(p.default, bool) and "cotangent" not in needed:  # it may choose a formula
                    yield call, {**arguments, p.name: not p.default}
            if any(p.name == "temperature" for p in parameters):  # so far off that float64 computes it
                yield call, {**arguments, "temperature": 1e-20}
