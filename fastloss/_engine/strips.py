"""Long rows that lie side by side (softmax along axis 0), for kernels that walk along one row at a time.

Of rows that share cache lines as many as fill two are brought to scratch memory, a segment of columns at a
time, and lie there one after the other; the kernel walks them there, and what it has written goes back the
same way. So every line is fetched once, not once a row, and a row has the bits that it has anywhere.

A kernel does not know: it is called with its own block of arguments, but for the addresses and geometries
of its arrays. It looks at no column but those of the segment that its task names.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastloss._engine import blocks, launch
from fastloss._engine.arrays import CODE, CODES, DIRECT, PLAIN, RANK, STRIDE, SWAP, Array, Layout
from fastloss._engine.blocks import SEGMENT, column_geometry, lies_beside, load, neighbour, put
from fastloss._engine.half import (
    FEW,
    narrow_few_bfloat16,
    narrow_few_float16,
    widen_few_bfloat16,
    widen_few_float16,
)
from fastloss._engine.jit import leaf
from fastloss._engine.kernels import NONE, Arguments, Kernel, call, kernel
from fastloss._engine.transpose import gather_wide, scatter_wide
from fastloss._engine.vector import LANES, itemsize, outlined, prefetch, view, wide

F2, BF16, F4, F8 = CODES["f2"], CODES["bfloat16"], CODES["f4"], CODES["f8"]
# Columns from which on it is worth while; and how many workers there may be for each strip, before one row
# for each of them takes less time.
LEAST, IDLE = 129, 4
# Cache lines of each column that are fetched together: with one a page of memory is looked up for each, and
# half as fast again takes it; with four strips leave the last cache.
LINES = 2
AHEAD = 32  # columns between what is taken and what is asked for: processors find no strides so long
# A worker's scratch: geometries, a square of 16 numbers by as many; then the kernel's arguments, and strips.
ROWS_AT, COLUMN_AT, SQUARE_AT, BLOCK_AT = 0, 64, 128, 128 + 16 * 64
WORDS = 64  # of arguments at most


# Which of a kernel's arguments are an array's address and geometry; the array, if there is one; its layout.
Place: TypeAlias = "tuple[int, int, Array | None, Layout]"


class Side(NamedTuple):
    """An array that a kernel walks, and which of its arguments are its address and geometry."""

    at: int
    geometry: int
    layout: Layout
    written: bool


@leaf
def move_halves(line: int, step: int, n: int, square: int, code: int, back: int, like: Any) -> None:
    """FEW halves of each of n columns, `step` bytes from one to the next, to a square; or `back`."""
    outlined()
    wide()
    for c in range(n):
        column, halves = view(square + c * 64, FEW, like), view(line + c * step, FEW, np.int16(0))
        if code == F2:
            if back:
                narrow_few_float16(column, halves)
            else:
                widen_few_float16(halves, column)
        elif back:
            narrow_few_bfloat16(column, halves)
        else:
            widen_few_bfloat16(halves, column)


@leaf
def move(
    base: int, g: Array, count: int, j0: int, n: int, strip: int, pitch: int, back: int, scratch: int,
    like: Any,
) -> None:
    """Columns j0 to j0 + n - 1 of `count` rows from `base` on to rows of the compute type; or `back`."""
    outlined()
    wide()
    b = itemsize(like)
    size, square = 64 // b, scratch + SQUARE_AT
    own = column_geometry(g, scratch + COLUMN_AT, like)
    there, short = lies_beside(g, like), neighbour(g) == 2
    halves = b == 4 and short and g[CODE] in (F2, BF16) and g[SWAP] == 0
    halves = halves and base % 2 == 0 and g[STRIDE] % 2 == 0
    for j in range(0, n, size):
        at = base + (j0 + j) * g[STRIDE]
        if not back:
            for c in range(AHEAD, AHEAD + size):
                if short:
                    prefetch(view(at + c * g[STRIDE], LANES, np.int16(0)), 0)
                else:
                    for q in range(0, count * b, 128):
                        prefetch(view(at + c * g[STRIDE] + q, LANES, like), 0)
        for q in range(0, count, size):
            some, line, row = min(size, count - q), at + q * neighbour(g), strip + q * pitch + j * b
            if there and j + size <= n and some == size:
                if back:
                    gather_wide(row, pitch, line, g[STRIDE], like)
                else:
                    scatter_wide(row, pitch, line, g[STRIDE], like)
                continue
            if back:
                gather_wide(row, pitch, square, 64, like)
            few = min(size, n - j)
            if halves and some == FEW:
                move_halves(line, g[STRIDE], few, square, g[CODE], back, like)
                few = 0
            for c in range(few):
                column, lies = view(square + c * 64, some, like), line + c * g[STRIDE]
                if back:
                    put(column, some, lies, own, 0, 0)
                else:
                    load(lies, own, some, column)
            if not back:
                scatter_wide(row, pitch, square, 64, like)


@kernel
def in_strips(
    w: int, workers: int, first: int, last: int, entry: int, block: int, words: int, n: int, columns: int,
    run: int, pitch: int, zero: Any, work: int, stride: int, sides: Array, writes: int,
) -> None:
    """What the kernel at `entry`, with arguments that lie at `block`, does segment by segment of n rows, of
    which `run` lie at one distance. sides[k] = where among the arguments an array's address and geometry
    lie, these, and whether it is written. A task is a segment of a group of rows; in scratch memory rows are
    `pitch` bytes apart.
    """
    b = itemsize(zero)
    size, mine = LINES * 64 // b, work + w * stride
    per_run = (run + size - 1) // size
    groups = n // run * per_run
    given, own = view(block, words, np.int64(0)), view(mine + BLOCK_AT, words, np.int64(0))
    own[:] = given
    lies = view(mine + ROWS_AT, RANK + 3, np.int64(0))
    lies[CODE], lies[SWAP], lies[STRIDE] = F4 if b == 4 else F8, 0, b
    lies[DIRECT], lies[PLAIN], lies[RANK] = 1, 1, 1
    lies[RANK + 1], lies[RANK + 2] = n, pitch
    strips = mine + BLOCK_AT + WORDS * 8
    for task in blocks.share(w, workers, first, last):
        group, k = task % groups, task // groups
        in_run = group % per_run * size
        i, count = group // per_run * run + in_run, min(size, run - in_run)
        j0 = k * SEGMENT
        m = min(SEGMENT, columns - j0)
        for s in range(sides.shape[0]):
            g, strip = blocks.geometry(sides[s, 3]), strips + s * size * pitch
            if not sides[s, 4]:
                move(blocks.row_address(sides[s, 2], g, i), g, count, j0, m, strip, pitch, 0, mine, zero)
            own[sides[s, 0]] = strip - i * pitch - j0 * b
            own[sides[s, 1]] = mine + ROWS_AT
        call(entry, mine + BLOCK_AT, w, w + 1, 0, k * n + i, k * n + i + count)
        for s in range(sides.shape[0]):
            if sides[s, 4] and writes:
                g, strip = blocks.geometry(sides[s, 3]), strips + s * size * pitch
                move(blocks.row_address(sides[s, 2], g, i), g, count, j0, m, strip, pitch, 1, mine, zero)


def suits(x: Layout, dtype: np.dtype[Any]) -> bool:
    """Whether rows lie side by side, as many as make a strip."""
    return x.beside and x.run >= 64 // dtype.itemsize


def sides_of(
    seen: Sequence[Place], made: Sequence[Place], dtype: np.dtype[Any], least: int = LEAST
) -> list[Side]:
    """What is read and written, if the rows of the first are so long, and lie so, that strips are worth
    while. Whoever asks may need the kernel, and lists it.
    """
    if launch.is_listing():
        places = np.empty((0, 5), np.int64)
        launch.address_of(in_strips, dtype.char, (0, 0, 0, 0, 0, 0, 0, dtype.type(0), 0, 0, places, 0))
    lies = seen[0][-1]
    if lies.columns < least or not suits(lies, dtype):
        return []
    sides = [Side(at, g, each, written=False) for at, g, array, each in seen if array is not None]
    sides += [Side(at, g, each, written=True) for at, g, array, each in made if array is not None]
    return sides if min(each.layout.run for each in sides) >= 64 // dtype.itemsize else []


def run(
    kernel: Kernel, count: int, dtype: np.dtype[Any], tasks: int, size: int, args: tuple[Any, ...],
    sides: list[Side], *, writes: bool = True, fixed: Arguments = NONE,
) -> None:
    """`launch.run`; where there are sides, which count the arguments in `args`, in strips, a task being a
    segment of a row. `writes`: whether those that are written are. Of a kernel that does so the last argument
    is whether it writes past the cache, where its strips are to stay.
    """
    pieces = 0
    if sides:
        lies, together = sides[0].layout, LINES * 64 // dtype.itemsize
        inner = min(each.layout.run for each in sides)
        pieces = lies.rows // inner * -(-inner // together) * -(-lies.columns // SEGMENT)
    if IDLE * pieces < count:
        launch.run(kernel, count, dtype.char, tasks, size, args, fixed)
        return
    if any(each.written for each in sides):
        args = *args[:-1], 0
    before, words = [], len(fixed.numbers)
    for value in args:
        before.append(words)
        words += 1 + value.ndim if isinstance(value, np.ndarray) else 1
    places = np.array([
        [before[each.at], before[each.geometry], args[each.at], each.layout.geometry, each.written]
        for each in sides
    ])
    entry, block = launch.block_of(kernel, dtype.char, args, fixed)
    assert words <= WORDS, kernel.__name__
    workers, longest = min(count, pieces), min(lies.columns, SEGMENT)
    # Vectors end beyond a row, and lines of two rows are not to fall on each other.
    pitch = (-(-longest // LANES) + 2) * LANES * dtype.itemsize
    scratch = blocks.Scratch(workers, BLOCK_AT + WORDS * 8 + len(sides) * together * pitch)
    launch.run(
        in_strips, workers, dtype.char, pieces, longest * together,
        (entry, ctypes.addressof(block), words, lies.rows, lies.columns, inner, pitch, dtype.type(0),
         scratch.address, scratch.stride, places, int(writes)),
    )
