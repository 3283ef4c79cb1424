"""Calls made again without a new plan: of what a small one takes, most is spent before its kernel runs."""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

from fastloss._engine import launch, threads
from fastloss._engine.arrays import LOOKED_AT, PLAIN_FLAGS, address_of, byte_of
from fastloss._engine.kernels import Arguments, Kernel, numbers_of

Key = tuple[Any, ...]

_MOST = 16  # calls that a thread remembers
_pack_two = struct.Struct("2q").pack_into


class Again:
    """A call, to be made again with arrays like the first ones that lie elsewhere; by one thread."""

    __slots__ = (
        "_alive", "_blocks", "_busy", "_count", "_entry", "_place", "_run", "_tasks", "_threads", "shape",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, kind: str, count: int, tasks: tuple[int, int], calls: list[tuple[Any, ...]],
        fixed: Arguments, place: int, shape: tuple[int, ...], alive: Any,
    ) -> None:
        """`tasks`, (how many, elements of one), on `count` workers for each of `calls`: arguments of which
        those at `place` and the next are addresses of arrays that change, of x, and of what is written. The
        results have a `shape`.
        """
        self._entry, self._count, self._tasks = kernel.ready[kind], count, tasks
        self._run = self._entry.run
        # Of how many threads it is the plan; 0: of any number.
        self._threads = threads.count() if launch.is_worthwhile(*tasks) else 0
        self._alive, self.shape = (fixed, calls, alive), shape
        self._place = 8 * (len(fixed.numbers) + len(numbers_of(calls[0][:place])))
        self._blocks = []
        for args in calls:
            block = (ctypes.c_char * self._entry.block.size)()
            self._entry.block.pack_into(block, 0, *fixed.numbers, *numbers_of(args))
            self._blocks.append((block, address_of(block)))
        self._busy = False

    def __call__(self, x: Any, own: Any) -> bool:
        """Whether x is an array that it takes; `own` is one, apart from x or x itself."""
        if self._busy or x.flags.num & LOOKED_AT != PLAIN_FLAGS:
            return False  # busy: a signal came, and its handler has come here too
        if self._threads and self._threads != threads.count():
            return False
        try:
            self._busy = True
            for block, at in self._blocks:
                _pack_two(block, self._place, address_of(byte_of(x)), address_of(byte_of(own)))
                if self._count == 1:  # in one launch: what is remembered is not larger
                    self._run(at, 0, 1, 1, 0, self._tasks[0])
                else:
                    launch.start(self._entry, at, self._count, *self._tasks)
        finally:
            self._busy = False
        return True


class _Own(threading.local):
    """What each thread remembers."""

    def __init__(self) -> None:
        self.made: dict[Key, Again] = {}


_own = _Own()


def recall(key: Key) -> Again | None:
    """What this thread remembers by a key."""
    return None if launch.is_listing() else _own.made.get(key)


def remember(key: Key, kernel: Kernel, kind: str, *rest: Any) -> None:
    """Put a call down under a key, once its kernel is ready."""
    if not launch.is_listing():
        if len(_own.made) == _MOST and key not in _own.made:
            _own.made.clear()
        _own.made[key] = Again(kernel, kind, *rest)
