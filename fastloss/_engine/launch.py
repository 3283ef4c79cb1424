"""On whose threads a kernel runs, as how many workers, and that no launch can abort or hang.

- On Numba's, where its layer is safe (omp, tbb), this process is not a fork, and the launch lock comes
  without waiting: two threads never launch at once.
- On the package's own, a worker each, where Numba's layer is workqueue (another thread's kernel inside it
  aborts the process), where the process is a fork or may be one (GNU OpenMP kills or hangs a child that
  launches), or where threads are short (OpenMP ends the process).
- In place otherwise: small work, or another thread is launching.

All run the same code over the same workers, so the choice never shows in the bits. Long work is cut into
launches of bounded size, between which Python answers signals. Nothing is launched, compiled or started
at import.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

from fastloss._engine import cache, process, threads
from fastloss._engine.kernels import (
    DRIVER,
    ENTRY,
    NONE,
    Arguments,
    Entry,
    Kernel,
    Kinds,
    in_parallel,
    numbers_of,
)

# Work below which one worker finishes before a second one is awake (16 us on 2 cores of an EPYC), in
# elements; and what a task costs beside its own.
WORTHWHILE = 1 << 15
TASK = 512
# Elements below which the caller is done before a sleeping thread of ours is up: its waking costs 50 us.
POOLED = 1 << 19
# Elements that a worker goes through in one launch, or one task if that is more: some milliseconds of
# contiguous rows, a tenth of a second of the slowest layout.
LAUNCH = 1 << 23

Launches = list[tuple[int, int]]  # first and last + 1 of their tasks
Job = tuple[Kernel, str]  # a kernel and the character of a compute type


class _Own(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        # What it would have run, where it is asked for that alone.
        self.found: dict[Job, Kinds] | None = None


class _State:
    """What a fork has to renew."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.launching = threading.RLock()
        self.hiring = threading.Lock()
        self.pool: SimpleQueue[_Share] | None = None  # threads wait at it
        self.forked = False
        self.enough: bool | None = None  # threads for Numba's layer to start
        self.own = _Own()


_state = _State()


def workers(elements: int, tasks: int) -> int:
    """How many workers share `tasks` pieces of work that read or write `elements` in all."""
    if is_small(elements, tasks):
        return 1
    return min(threads.count(), tasks, (elements + TASK * tasks) // (WORTHWHILE // 2))


def is_small(elements: int, tasks: int) -> bool:
    """Whether it is work for one worker, however many there are."""
    return tasks < 2 or elements + TASK * tasks < WORTHWHILE


def is_worthwhile(tasks: int, size: int) -> bool:
    """Whether tasks of `size` elements each are worth a second worker, could they be parted."""
    return tasks * (size + TASK) >= WORTHWHILE


def run(
    kernel: Kernel, count: int, kind: str, tasks: int, size: int, args: tuple[Any, ...],
    fixed: Arguments = NONE,
) -> None:
    """Run tasks 0 to `tasks` - 1, of `size` elements each, of a kernel on workers 0 to `count` - 1.

    `kind` is the character of the compute type, that of the arguments: `fixed`, then `args`.
    """
    if _state.own.found is not None:
        _state.own.found[kernel, kind] = _kinds(fixed.values + args)
        return
    entry = kernel.ready.get(kind) or prepare(kernel, kind, _kinds(fixed.values + args))
    block = (ctypes.c_char * entry.block.size)()
    entry.block.pack_into(block, 0, *fixed.numbers, *numbers_of(args))
    start(entry, ctypes.addressof(block), count, tasks, size)


def start(entry: Entry, at: int, count: int, tasks: int, size: int) -> None:
    """What `run` does once the arguments are in a block at an address."""
    if count == 1 and tasks * size <= LAUNCH:
        entry.run(at, 0, 1, 1, 0, tasks)
        return
    step = max(1, LAUNCH // max(1, size)) * count
    launches = [(first, min(first + step, tasks)) for first in range(0, tasks, step)]
    may_launch = count > 1 and _may_launch()
    if count > 1 and not may_launch and tasks * size >= POOLED:
        _run_on_pool(entry.run, at, count, launches)
        return
    for begin, end in launches:
        if not (may_launch and _launched(entry, at, count, begin, end)):
            entry.run(at, 0, count, count, begin, end)


def block_of(
    kernel: Kernel, kind: str, args: tuple[Any, ...], fixed: Arguments
) -> tuple[int, ctypes.Array[Any]]:
    """(the address of a kernel's entry, a block of arguments for it)."""
    entry = kernel.ready.get(kind) or prepare(kernel, kind, _kinds(fixed.values + args))
    block = (ctypes.c_char * entry.block.size)()
    entry.block.pack_into(block, 0, *fixed.numbers, *numbers_of(args))
    return entry.address, block


def address_of(kernel: Kernel, kind: str, args: tuple[Any, ...]) -> int:
    """The address of a kernel's entry, for another kernel that calls it with arguments like these."""
    found = _state.own.found
    if found is not None:
        found[kernel, kind] = _kinds(args)
        return 0
    entry = kernel.ready.get(kind) or prepare(kernel, kind, _kinds(args))
    return entry.address


def _launched(entry: Entry, at: int, count: int, begin: int, end: int) -> bool:
    """Whether Numba's threads could be had without waiting, and have done it."""
    drive = _driver()
    if not _state.launching.acquire(blocking=False):
        return False
    try:
        if not layer_is_safe():  # another thread has started another one since
            return False
        drive(entry.address, at, 0, count, count, begin, end)
        return True
    finally:
        _state.launching.release()


def _kinds(args: tuple[Any, ...]) -> Kinds:
    return tuple(numba.typeof(each) for each in args)


def prepare(kernel: Kernel, kind: str, kinds: Kinds) -> Entry:
    """A kernel's entry for a compute type, compiled or loaded if it is not here yet."""
    if kind not in kernel.ready:
        _check_jit()
        _undisturbed(lambda: _enter(kernel, kind, kinds))
    return kernel.ready[kind]


def _enter(kernel: Kernel, kind: str, kinds: Kinds) -> None:
    # The one lock around all this is Numba's: an order of two could be taken the wrong way round.
    with global_compiler_lock:
        if kind not in kernel.ready:
            cache.compile_for(kernel.entry(kind, kinds), ENTRY)
            kernel.enter(kind, kinds)


def _driver() -> Any:
    """What runs an entry on Numba's threads."""
    if not in_parallel.overloads:
        _undisturbed(_compile_driver)
    return in_parallel


def _compile_driver() -> None:
    with global_compiler_lock:
        if not in_parallel.overloads:
            cache.compile_for(in_parallel, DRIVER)


def _check_jit() -> None:
    if numba.config.DISABLE_JIT:
        raise RuntimeError(
            "fastloss computes in compiled code, and NUMBA_DISABLE_JIT is set; unset it "
            "(fastloss.reference has the same names in plain NumPy)"
        )


def _undisturbed(work: Callable[[], None]) -> None:
    """Run `work` where no signal is answered, that is not in the main thread, which waits and answers them:
    Numba, stopped half way, may never compile again.
    """
    if threading.current_thread() is not threading.main_thread() or global_compiler_lock.is_locked():
        return work()  # is_locked: by this thread
    done, errors = threading.Event(), []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=run, name="fastloss-compile").start()
    except (RuntimeError, MemoryError):  # no more threads can be had, or Python is on its way out
        return work()
    done.wait()
    if errors:
        raise errors[0]
    return None


def is_listing() -> bool:
    """Whether this thread lists what it would run."""
    return _state.own.found is not None


class Listing:
    """While it lasts, what this thread would run is put down instead: results hold anything."""

    def __enter__(self) -> dict[Job, Kinds]:
        _state.own.found = {}
        return _state.own.found

    def __exit__(self, *_: object) -> None:
        _state.own.found = None


def ahead(jobs: dict[Job, Kinds]) -> None:
    """Compile or load kernels, and the driver if it is one for this process."""
    for (kernel, kind), kinds in jobs.items():
        prepare(kernel, kind, kinds)
    if jobs and _may_launch():
        _driver()


def missing(jobs: dict[Job, Kinds]) -> dict[Job, Kinds]:
    """Those of which the cache has nothing."""
    _check_jit()
    return {
        job: kinds for job, kinds in jobs.items() if not cache.holds(job[0].entry(job[1], kinds), ENTRY)
    }


# ---- the package's own threads --------------------------------------------------------------
class _Share:
    """What one worker does in every launch, done once, by whichever thread comes first."""

    def __init__(
        self, run: Callable[..., None], at: int, w: int, count: int, launches: Launches
    ) -> None:
        self._run, self._worker, self._launches = run, (at, w, w + 1, count), launches
        self._stop = False
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._done = threading.Event()
        self._error: BaseException | None = None

    def _taken(self) -> bool:
        """Whether another thread has it; if none has, this one takes it."""
        me = threading.get_ident()
        with self._lock:
            if self._owner is None:
                self._owner = me
                return False
            return True

    def run(self) -> None:
        if not self._taken():
            try:
                for first, last in self._launches:
                    if self._stop:
                        break
                    self._run(*self._worker, first, last)
            except BaseException as error:
                self._error = error
            finally:
                self._done.set()

    def finish(self) -> None:
        """Return when it is done, by this thread or another."""
        self.run()
        self._done.wait()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """See to it that no other thread is at it, or ever will be."""
        self._stop = True
        if self._taken() and self._owner != threading.get_ident():
            self._done.wait()


def _pool() -> SimpleQueue[_Share] | None:
    """Where threads of ours wait for shares, if they do. Its `put` may be interrupted by a signal handler
    that comes here too, which `ThreadPoolExecutor.submit` may not.
    """
    state = _state
    if state.process != os.getpid():  # forked behind Python's back: the threads are not here
        return None
    if state.pool is None and state.hiring.acquire(blocking=False):
        try:
            pool: SimpleQueue[_Share] = SimpleQueue()
            for k in range(threads.available() - 1 if state.pool is None else 0):
                threading.Thread(target=_serve, args=(pool,), name=f"fastloss-{k}", daemon=True).start()
                state.pool = pool
        except (RuntimeError, MemoryError):  # no more threads can be had: the caller does the rest
            pass
        finally:
            state.hiring.release()
    return state.pool


def _serve(pool: SimpleQueue[_Share]) -> None:
    while True:
        pool.get().run()


def _run_on_pool(
    run: Callable[..., None], at: int, count: int, launches: Launches
) -> None:
    """All launches, without waiting for the other workers in between: waking a thread takes its time."""
    shares = [_Share(run, at, w, count, launches) for w in range(count)]
    try:
        pool = _pool()
        if pool is not None:
            for share in shares[1:]:
                pool.put(share)
        for share in shares:
            share.finish()
    except BaseException:
        # Ctrl-C. The arrays may be gone as soon as this is raised on: nobody writes to them any more.
        while shares:
            try:
                shares[-1].abandon()
                shares.pop()
            except BaseException:  # again
                continue
        raise


# ---- which layer ----------------------------------------------------------------------------
def layer() -> tuple[str, bool]:
    """The name of Numba's threading layer, and whether it has started; nothing is started by asking."""
    try:
        return numba.threading_layer(), True
    except ValueError:
        return _layer_to_be(), False


def _may_launch() -> bool:
    """Whether Numba's layer may be entered, by this thread, in this process."""
    state = _state
    if state.forked or state.process != os.getpid() or not layer_is_safe():
        return False
    if state.enough is None:
        state.enough = layer()[1] or _threads_can_be_had(int(numba.config.NUMBA_NUM_THREADS) - 1)
    return state.enough


def _threads_can_be_had(n: int) -> bool:
    """Whether n threads can be started at once; OpenMP would end the process where they cannot."""
    wait = threading.Event()
    try:
        for _ in range(n):
            threading.Thread(target=wait.wait, daemon=True).start()
    except (RuntimeError, MemoryError):
        return False
    finally:
        wait.set()
    return True


def layer_is_safe() -> bool:
    """Whether Numba's threading layer is, or will be, one that two threads may enter at once."""
    name, started = layer()
    return name == "omp" or (name == "tbb" and started)  # TBB may turn out not to be there


def _layer_to_be() -> str:
    """The layer that Numba would start, as far as it matters: "omp" stands for TBB before it too."""
    wanted = str(numba.config.THREADING_LAYER).lower()
    if wanted not in ("default", "threadsafe", "omp"):
        return wanted
    if wanted == "default" and numba.config.THREADING_LAYER_PRIORITY[0] == "workqueue":
        return "workqueue"
    return "omp" if _has_openmp() else "workqueue"


# How often GNU OpenMP's threads look for work before they sleep: some 0.25 ms, where 300,000 times, its own
# choice, are milliseconds. Those keep other threads from a core that has to be shared: on two cores a loss
# after a matrix product by NumPy, whose threads look for work for long, too, took 4 ms instead of 0.1 to 0.9,
# and so did the next product. With half as many a thread that Linux has put on its caller's core may stay
# there for 50 ms. Calls that follow each other at once take what they took.
SPINS = "10000"


@lru_cache(maxsize=1)
def _has_openmp() -> bool:
    """Whether Numba's OpenMP layer can be loaded. GNU's library reads its settings the first time it is."""
    settings = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    ours = "numba.np.ufunc.omppool" not in sys.modules and not settings & os.environ.keys()
    if ours:
        os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return False
    finally:
        if ours:
            os.environ.pop("GOMP_SPINCOUNT", None)
    return True


# ---- fork -----------------------------------------------------------------------------------
def is_fork() -> bool:
    """Whether this process is a fork, or may be one of a process in which Numba's layer had started."""
    return _state.forked or _state.process != os.getpid()


# A layer that started before the package was imported may have started in a process of which this is a fork:
# its threads would not be here, and nothing tells.
_state.forked = layer()[1] and os.getpid() != process.UNTHREADED


# A child forked while another thread compiles would inherit a lock that nobody will release, and half a
# compilation.
class _Held(threading.local):
    """Whether this thread took the lock before it forked: Ctrl-C may have kept it from that."""

    lock = False


_held = _Held()


def _before_fork() -> None:
    _held.lock = False
    global_compiler_lock.acquire()
    _held.lock = True


def _after_fork_in_parent() -> None:
    if _held.lock:
        _held.lock = False
        global_compiler_lock.release()


def _after_fork_in_child() -> None:
    _state.__init__()  # type: ignore[misc]
    _state.forked = True
    threads.forget()
    if _held.lock:
        _held.lock = False
        global_compiler_lock.release()
    else:  # whoever holds it is not in this process
        global_compiler_lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
