"""`python bench/memory.py`: peak extra memory of each operation, each in a fresh process, beside its time.

Extra is what the process holds at most during its second call, less what it held before the first:
inputs, outputs that the caller brings, and loaded libraries are not in it; results, temporaries and
memory that a library keeps for the next call are. Linux counts it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from choice import Choice, add_options, choice_of
from table import lines, milliseconds

from fastloss._bench.operations import OPERATIONS
from fastloss._bench.rivals import LIBRARIES, candidate, computes
from fastloss._bench.sizes import Problem, Workload, dtype_of

_CALLS = 5
_WARM = 1 << 20  # elements: what every thread gets some of


def _status(field: str) -> int:
    """Bytes, by the kernel's account of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {field}")


def _measure(library: str, operation: str, workload: Workload, dtype: str) -> dict[str, float] | None:
    """In this process, which should be a fresh one."""
    kind = dtype_of(dtype)
    assert kind is not None
    rows = min(workload.rows, max(1, _WARM // workload.classes))
    warm = Problem(replace(workload, rows=rows), kind)
    problem = Problem(workload, kind)
    if not computes(library, operation, problem):
        return None
    _ = problem.vector, problem.probs
    candidate(library, operation, warm).call()  # compiles, and loads what is loaded once
    ready = candidate(library, operation, problem)
    held = _status("VmRSS")
    seconds = []
    for k in range(_CALLS):
        if ready.before is not None:
            ready.before()
        if k == 1:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        start = time.perf_counter()
        result = ready.call()
        seconds.append(time.perf_counter() - start)
        del result
        if k == 1:
            extra = _status("VmHWM") - held
    return {"extra": max(0, extra), "seconds": median(seconds[1:])}


def measured(library: str, operation: str, workload: Workload, dtype: str) -> dict[str, float] | None:
    """Bytes and seconds of a call, in a fresh process; None where it does not run."""
    work = json.dumps([library, operation, [*workload.__dict__.values()], dtype])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--one", work], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{library} {operation}: {done.stderr.strip().rpartition(chr(10))[2]}", file=sys.stderr)
        return None
    found: dict[str, float] | None = json.loads(done.stdout.splitlines()[-1])
    return found


def table(choice: Choice) -> str:
    """Megabytes beside milliseconds, a row an operation and a column a library."""
    libraries = [name for name in choice.libraries if name != "torch.compile"]  # it loads a compiler
    body = []
    for workload in choice.workloads:
        for dtype in filter(dtype_of, choice.dtypes):
            for operation in choice.operations:
                found = [measured(name, operation, workload, dtype) for name in libraries]
                cells = [OPERATIONS[operation].label, f"{workload} {dtype}"]
                body.append([*cells, *map(_cell, found)])
    header = ["operation", "workload", *(LIBRARIES[name].label for name in libraries)]
    return lines(header, body, names=2)


def _cell(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{megabytes(found['extra'])} MB, {milliseconds(found['seconds'])} ms"


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f}" if size >= 1e7 else f"{size / 1e6:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench/memory.py", description=__doc__)
    add_options(parser.add_argument)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        library, operation, workload, dtype = options.one
        result: Any = _measure(library, operation, Workload(*workload), dtype)
        print(json.dumps(result))
        return
    options.workload = options.workload or ("llama3_vocab",)
    options.dtype = options.dtype or ("float32",)
    print(table(choice_of(options)))


if __name__ == "__main__":
    main()
