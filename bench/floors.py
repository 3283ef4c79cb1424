"""The machine's floors: what one read, or one copy, of the logits takes when nothing is computed.

No operation that reads its logits from memory is faster than the read floor, and none that writes
an array of their shape too is faster than the copy floor. Both share the package's thread count but
not its engine, so that they measure the machine alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray
from sizes import Problem

from fastloss._engine import threads
from fastloss._engine.vector import fence, stream, wide

_LINE = 16  # float32 numbers in a 64-byte cache line


@numba.njit(fastmath={"reassoc", "nsz"})
def _sum(x: Any) -> Any:
    """A sum in any order: LLVM keeps as many vectors of partial sums as hide the adds."""
    wide()
    total = np.float32(0)
    for j in range(x.size):
        total += x[j]
    return total


@numba.njit(parallel=True)
def _read(x: Any, parts: Any) -> None:
    n, workers = x.size, parts.size
    for w in prange(workers):
        parts[w] = _sum(x[n * w // workers : n * (w + 1) // workers])


@numba.njit(parallel=True)
def _copy(x: Any, out: Any, workers: int) -> None:
    lines = x.size // _LINE
    for w in prange(workers):
        first, last = lines * w // workers, lines * (w + 1) // workers
        stream(x[first * _LINE :], out.ctypes.data + first * 64, last - first)
        fence()
    for j in range(lines * _LINE, x.size):
        out[j] = x[j]


def read_floor(problem: Problem) -> Callable[[], NDArray[Any]]:
    """Every number summed, each thread its own stretch."""
    x, parts = problem.logits.reshape(-1), np.empty(threads.count(), np.float32)

    def read() -> NDArray[Any]:
        _read(x, parts)
        return parts

    return read


def copy_floor(problem: Problem) -> Callable[[], NDArray[Any]]:
    """Logits copied to `out` by non-temporal stores, which don't read the lines they overwrite."""
    x, out, workers = problem.logits.reshape(-1), problem.out.reshape(-1), threads.count()

    def copy() -> NDArray[Any]:
        _copy(x, out, workers)
        return problem.out

    return copy


FLOORS = {"read floor": read_floor, "copy floor": copy_floor}
