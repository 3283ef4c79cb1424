"""How many threads to use: FASTLOSS_NUM_THREADS, `set_num_threads`, `num_threads`.

Numba's own number and mask are neither read nor changed.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from functools import lru_cache
from pathlib import Path
from types import TracebackType


class _Chosen(threading.local):
    """By the `num_threads` contexts that this thread is in, the innermost last."""

    def __init__(self) -> None:
        self.contexts: list[int] = []


_chosen = _Chosen()
_process: int | None = None  # by `set_num_threads`


def count() -> int:
    """Threads to use, in this thread."""
    if _chosen.contexts:
        return _chosen.contexts[-1]
    return _process or _default()[0]


def source() -> str:
    """Where that number comes from."""
    if _chosen.contexts:
        return "fastloss.num_threads"
    return "fastloss.set_num_threads" if _process else _default()[1]


def set_num_threads(n: int) -> None:
    """Set the number of threads that this process uses.

    Parameters
    ----------
    n : int
        From 1 to the number there is: the smaller of the CPU affinity and the container's quota.

    Raises
    ------
    TypeError
        `n` is not an integer.
    ValueError
        `n` is out of range.

    Notes
    -----
    Results have the same bits with any number of threads. Numba's own settings stay as they are.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.set_num_threads(1)
    """
    global _process
    _process = _checked(n, "n")


class num_threads:
    """Use another number of threads in this Python thread, as a context.

    Parameters
    ----------
    n : int
        From 1 to the number there is: the smaller of the CPU affinity and the container's quota.

    Raises
    ------
    TypeError
        `n` is not an integer.
    ValueError
        `n` is out of range.

    Notes
    -----
    Leaving the context, by an exception too, restores what was. Other threads are not concerned.

    Examples
    --------
    >>> import fastloss as fl
    >>> with fl.num_threads(1):
    ...     fl.softmax([0.0, 0.0])
    array([0.5, 0.5])
    """

    def __init__(self, n: int) -> None:
        self._n = _checked(n, "n")

    def __enter__(self) -> None:
        _chosen.contexts.append(self._n)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _chosen.contexts.pop()


def _checked(n: int, name: str) -> int:
    try:
        number = operator.index(n)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {n!r}") from None
    if not 1 <= number <= available():
        raise ValueError(f"{name} must be from 1 to {available()}, the threads there are, got {number}")
    return number


@lru_cache(maxsize=1)
def _default() -> tuple[int, str]:
    """The number without a choice made in Python, and where it comes from."""
    chosen = os.environ.get("FASTLOSS_NUM_THREADS")
    if not chosen:
        return available(), "CPU affinity" if _affinity() <= _quota() else "the container's quota"
    try:
        number = int(chosen)
    except ValueError:
        raise ValueError(f"FASTLOSS_NUM_THREADS must be an integer, got {chosen!r}") from None
    return _checked(number, "FASTLOSS_NUM_THREADS"), "FASTLOSS_NUM_THREADS"


@lru_cache(maxsize=1)
def available() -> int:
    """The smaller of the CPU affinity and the container's quota."""
    return max(1, min(_affinity(), _quota()))


def _affinity() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _quota() -> int:
    """CPUs that the container's control group grants, rounded up."""
    root, least = Path("/sys/fs/cgroup"), 1 << 30
    try:
        mine = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].splitlines()[0]
    except (OSError, IndexError):
        mine = ""
    for folder in (root, *(root.joinpath(*mine.split("/")[:k]) for k in range(1, mine.count("/") + 2))):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            least = min(least, math.ceil(int(quota) / int(period)))
        except (OSError, ValueError):  # no such file, or "max"
            pass
    if least < 1 << 30:
        return least
    try:
        group = Path("/sys/fs/cgroup/cpu")
        limit = int((group / "cpu.cfs_quota_us").read_text())
        period_us = int((group / "cpu.cfs_period_us").read_text())
        return math.ceil(limit / period_us) if limit > 0 else 1 << 30
    except (OSError, ValueError, ZeroDivisionError):
        return 1 << 30


def forget() -> None:
    """Look again at what there is: a fork may have been given other CPUs."""
    available.cache_clear()
    _default.cache_clear()
