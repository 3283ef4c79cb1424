"""Small calls, made again without a new plan: of what one takes, most is spent before its kernel runs."""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

from fastloss._engine import launch
from fastloss._engine.arrays import LOOKED_AT, PLAIN_FLAGS, address_of, byte_of
from fastloss._engine.kernels import Arguments, Kernel, numbers_of

Key = tuple[Any, ...]

_MOST = 16  # calls that a thread remembers
_pack_two = struct.Struct("2q").pack_into


class Again:
    """A small call, to be made again with arrays like the first ones that lie elsewhere; by one thread."""

    __slots__ = ("_alive", "_at", "_block", "_busy", "_place", "_run", "_tasks", "shape")

    def __init__(
        self, kernel: Kernel, kind: str, tasks: int, args: tuple[Any, ...], fixed: Arguments, place: int,
        shape: tuple[int, ...], alive: Any,
    ) -> None:
        """Of `args`, the one at `place` and the next are addresses of arrays that change: of x, and of what
        is written. The results have a `shape`.
        """
        entry = kernel.ready[kind]
        self._run, self._tasks, self._alive, self.shape = entry.run, tasks, (fixed, args, alive), shape
        self._place = 8 * (len(fixed.numbers) + len(numbers_of(args[:place])))
        self._block = (ctypes.c_char * entry.block.size)()
        entry.block.pack_into(self._block, 0, *fixed.numbers, *numbers_of(args))
        self._at, self._busy = address_of(self._block), False

    def __call__(self, x: Any, own: Any) -> bool:
        """Whether x is an array that it takes; `own` is one, apart from x or x itself."""
        if self._busy or x.flags.num & LOOKED_AT != PLAIN_FLAGS:
            return False  # busy: a signal came, and its handler has come here too
        try:
            self._busy = True
            _pack_two(self._block, self._place, address_of(byte_of(x)), address_of(byte_of(own)))
            self._run(self._at, 0, 1, 1, 0, self._tasks)
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
    """Put a small call down under a key, once its kernel is ready."""
    if not launch.is_listing():
        if len(_own.made) == _MOST:
            _own.made.clear()
        _own.made[key] = Again(kernel, kind, *rest)
