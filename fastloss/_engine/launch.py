"""Which twin of a kernel runs, on how many workers, and that no launch can abort or hang.

- The parallel twin, where the threading layer is safe (omp, tbb), this process is not a fork of one
  that launched, and the launch lock comes without waiting: two threads never launch at once.
- The serial twin on the package's own threads, a worker each, where Numba's layer is workqueue
  (another thread's kernel inside it aborts the process) or the process is a fork (GNU OpenMP kills
  or hangs a child that launches).
- The serial twin in place otherwise: small work, or another thread is launching.

All run the same body over the same workers, so the choice never shows in the bits. Nothing is
launched, compiled or started at import.
"""

from __future__ import annotations

import importlib
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

from fastloss._engine import cache
from fastloss._engine.jit import Kernel

# Elements below which one worker finishes before a second one is awake.
WORTHWHILE = 1 << 15


class _State:
    """What a fork has to renew."""

    def __init__(self) -> None:
        self.launching = threading.Lock()
        self.compiling = threading.Lock()
        self.pool: ThreadPoolExecutor | None = None
        self.launched = False
        self.forked = False


_state = _State()


def workers(elements: int, tasks: int) -> int:
    """How many workers share `tasks` pieces of work that read or write `elements` in all."""
    if elements < WORTHWHILE or tasks < 2:
        return 1
    return min(threads(), tasks, elements // (WORTHWHILE // 2))


def run(kernel: Kernel, count: int, scalar: Any, *args: Any) -> None:
    """Run workers 0 to `count` - 1 of a kernel, whose compute type is that of `scalar`."""
    state = _state
    kind = type(scalar)
    if count > 1:
        if state.forked or not layer_is_safe():
            _run_on_pool(_twin(kernel, False, kind, count, args), count, args)
            return
        twin = _twin(kernel, True, kind, count, args)
        if state.launching.acquire(blocking=False):
            try:
                state.launched = True
                twin(0, count, count, *args)
            finally:
                state.launching.release()
            return
    _twin(kernel, False, kind, count, args)(0, count, count, *args)


def _twin(
    kernel: Kernel, parallel: bool, kind: type, count: int, args: tuple[Any, ...]
) -> Callable[..., None]:
    ready = kernel.ready.get((parallel, kind))
    if ready is None:
        with _state.compiling:
            ready = kernel.parallel if parallel else kernel.serial
            if (parallel, kind) not in kernel.ready:
                index = numba.types.intp
                cache.compile_for(ready, (index, index, index, numba.typeof(args)))
                kernel.ready[parallel, kind] = ready
    return ready


def _run_on_pool(twin: Callable[..., None], count: int, args: tuple[Any, ...]) -> None:
    """Workers 1 and up on the package's threads, worker 0 here."""
    waiting = []
    try:
        if _state.pool is None:
            _state.pool = ThreadPoolExecutor(threads(), thread_name_prefix="fastloss")
        for w in range(1, count):
            waiting.append(_state.pool.submit(twin, w, w + 1, count, *args))
    except RuntimeError:  # the interpreter is shutting down, or no thread can be had
        pass
    twin(0, 1, count, *args)
    for future in waiting:
        future.result()
    for w in range(1 + len(waiting), count):
        twin(w, w + 1, count, *args)


# ---- threads --------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def threads() -> int:
    """Threads to use: the smaller of the CPU affinity and the container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(available, _quota()))


def _quota() -> int:
    """CPUs that the container's control group grants, rounded up."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period)) if quota != "max" else 1 << 30
    except (OSError, ValueError):
        pass
    try:
        group = Path("/sys/fs/cgroup/cpu")
        limit = int((group / "cpu.cfs_quota_us").read_text())
        period_us = int((group / "cpu.cfs_period_us").read_text())
        return math.ceil(limit / period_us) if limit > 0 else 1 << 30
    except (OSError, ValueError, ZeroDivisionError):
        return 1 << 30


def layer_is_safe() -> bool:
    """Whether Numba's threading layer is, or will be, one that two threads may enter at once."""
    try:
        return numba.threading_layer() in ("omp", "tbb")
    except ValueError:
        return _layer_will_be_safe()


@lru_cache(maxsize=1)
def _layer_will_be_safe() -> bool:
    """Whether Numba, which has chosen no layer yet, would choose OpenMP (or TBB before it)."""
    wanted = str(numba.config.THREADING_LAYER).lower()
    if wanted not in ("default", "threadsafe", "omp"):
        return False
    if wanted == "default" and numba.config.THREADING_LAYER_PRIORITY[0] == "workqueue":
        return False
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return False
    return True


# ---- fork -----------------------------------------------------------------------------------
# A child forked while another thread compiles would inherit a lock that nobody will release.
# Locks are taken in the order in which `_twin` takes them.
def _before_fork() -> None:
    _state.compiling.acquire()
    global_compiler_lock.acquire()
    _state.launching.acquire()


def _after_fork_in_parent() -> None:
    _state.launching.release()
    global_compiler_lock.release()
    _state.compiling.release()


def _after_fork_in_child() -> None:
    forked = _state.forked or _state.launched
    _state.__init__()  # type: ignore[misc]
    _state.forked = forked
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
