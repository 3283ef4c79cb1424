"""Blocks of arrays in and out of L1, whatever the array's type and layout.

An array argument is an address and a geometry (`arrays.Layout`). What is contiguous, native and of
the compute type is read and written where it lies; all else goes block by block through a worker's
scratch, so that the leaves meet one kind of block, and the number of compilations does not grow with
types and layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss._engine.arrays import CODE, CODES, DIRECT, PLAIN, RANK, STRIDE, SWAP, Array, address
from fastloss._engine.half import (
    FEW,
    bfloat16_of_float,
    float16_of_float,
    float_of_bfloat16,
    float_of_float16,
    narrow_bfloat16,
    narrow_few_bfloat16,
    narrow_few_float16,
    narrow_float16,
    widen_bfloat16,
    widen_few_bfloat16,
    widen_few_float16,
    widen_float16,
)
from fastloss._engine.jit import bound, inline, leaf
from fastloss._engine.vector import (
    LANES,
    bits,
    byteswap,
    cast,
    fence,
    first_of,
    from_bits,
    itemsize,
    join_last,
    lanes,
    lower,
    lowered,
    numbers_of,
    outlined,
    part,
    peek,
    placed,
    poke,
    prefetch,
    put_first,
    raise_lanes,
    scaled,
    store,
    store_last,
    stream,
    top_of,
    view,
    wide,
    within,
)

BLOCK = 1024  # elements of a block: two of them and their exponentials stay in L1
SEGMENT = 32 * BLOCK  # columns that one task walks at least
AHEAD = 2 * BLOCK  # elements between a loop and its prefetch: hides DRAM behind the exponentials
STREAMED = 32 << 20  # bytes of results from which they bypass the cache

# Parts of a worker's scratch; W and D are blocks of float64.
X_BLOCK, T_BLOCK, O_BLOCK, W, D, E = 0, 1, 2, 3, 5, 7

_F4, _F8, _I1, _I2, _I4, _I8, _U1, _U2, _U4, _U8, _B1, _F2, _BF16 = (
    CODES[name]
    for name in (
        "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "f2", "bfloat16"
    )
)
_i1, _i2, _i4, _i8 = np.int8(0), np.int16(0), np.int32(0), np.int64(0)
_f4, _f8 = np.float32(0), np.float64(0)
_u1, _u2, _u4, _u8 = np.uint8(0), np.uint16(0), np.uint32(0), np.uint64(0)



@inline
def copy_few(x: Array, first: int, last: int, to: Array) -> None:
    """to[first:last] = x[first:last], fewer than LANES."""
    if first < last:
        v = lanes(x[0])
        first_of(part(x, first), last - first, cast(0.0, x[0]), v)
        put_first(v, last - first, part(to, first))


# ---- results past the cache -----------------------------------------------------------------
# A row seldom begins or ends with a cache line. A line that it shares with the next is not written piece by
# piece, since a store through the cache waits for memory, and those past it behind that (a fifth of the time
# of softmax of rows of 1000): its numbers wait, in the worker's memory, for the rest. AT: the line, 0 if none
# waits; LOW, HIGH: which of its bytes are there; they lie from LINE on.
AT, LOW, HIGH, LINE = 0, 1, 2, 64


@inline
def past_cache(memory: Array, streamed: int) -> Any:
    """What `put` is told where results go past the cache: where numbers wait, in zeros of a kernel's."""
    return np.int64(memory.ctypes.data) if streamed else 0  # an unsigned one beside 0 would be a float64


@leaf
def release(waiting: int) -> None:
    """Write what waits as it is."""
    outlined()
    state = view(waiting, 3, _i8)
    if state[AT]:
        low, high = state[LOW], state[HIGH]
        few, lying = view(waiting + LINE, 32, _i2), view(state[AT], 32, _i2)
        for k in range(low // 2, high // 2):
            lying[k] = few[k]
    state[AT] = 0


@leaf
def wait(x: Array, n: int, address: int, waiting: int) -> None:
    """Write the first n numbers of x, part of one cache line, once the rest of that is known."""
    outlined()
    state = view(waiting, 3, _i8)
    low = address & 63
    if state[AT] != address - low or state[HIGH] != low:
        release(waiting)
        state[AT], state[LOW] = address - low, low
    copy_few(x, 0, n, view(waiting + LINE + low, n, x[0]))
    state[HIGH] = low + n * itemsize(x[0])
    if state[HIGH] == 64 and state[LOW] == 0:
        stream(view(waiting + LINE, LANES, x[0]), state[AT], 1)
        state[AT] = 0


# What of a line is another row's is joined to it in registers: to be loaded back, numbers that were stored
# piece by piece would have to reach the cache first, behind all that has been sent past it.
@inline
def end_line(v: Array, taken: int, to: int, waiting: int) -> None:
    """Write the last line of LANES numbers, but for its first `taken`, to `to`, as far on a line; what waits
    with it.
    """
    state, size = view(waiting, 3, _i8), itemsize(v[0])
    before = LANES - 64 // size
    if state[AT] == to - taken * size and state[LOW] == 0 and state[HIGH] == taken * size:
        join_last(waiting + LINE, taken, v)
        stream(part(v, before), state[AT], 1)
        state[AT] = 0
    else:
        few = lanes(v[0])
        store(v, few)
        wait(part(few, before + taken), LANES - before - taken, to, waiting)


@inline
def begin_line(v: Array, n: int, to: int, waiting: int) -> None:
    """Of the last line of LANES numbers the first n wait for what belongs to a line at `to` beside them."""
    state = view(waiting, 3, _i8)
    if state[AT]:
        release(waiting)
    store_last(v, waiting + LINE)
    state[AT], state[LOW], state[HIGH] = to, 0, n * itemsize(v[0])


@inline
def made(v: Array, a: Any, b: Any, c: Any, spot: int, first: int, exact: Any) -> None:
    """v = (v - a) b - c of numbers from `first` on, but `exact` at `spot`."""
    lowered(v, a, v)
    scaled(v, b, v)
    lowered(v, c, v)
    if spot >= 0:
        placed(exact, spot - first, v)


@leaf
def make_past(y: Array, a: Any, b: Any, c: Any, spot: int, exact: Any, to: int, waiting: int) -> None:
    """(y - a) b - c of LANES numbers or more, but `exact` at `spot` or if that is -1 nowhere, to an address,
    past the cache.
    """
    wide()
    v, few = lanes(a), lanes(a)
    size, n, start = itemsize(a), y.size, y.ctypes.data
    per_line = 64 // size
    before = LANES - per_line  # lanes before the last line
    taken = (to & 63) // size
    first = -taken & (per_line - 1)
    if taken:
        low = before + taken
        within(view(start - low * size, LANES, a), low, LANES, v)
        made(v, a, b, c, spot, -low, exact)
        end_line(v, taken, to, waiting)
    last = first + (n - first) // LANES * LANES
    for j in range(first, last, LANES):
        store(part(y, j), v)
        made(v, a, b, c, spot, j, exact)
        stream(v, to + j * size, LANES // per_line)
    lines = (n - last) // per_line
    if lines:
        within(part(y, last), 0, lines * per_line, few)
        made(few, a, b, c, spot, last, exact)
        stream(few, to + last * size, lines)
        last += lines * per_line
    if last < n:
        within(view(start + (last - before) * size, LANES, a), before, before + n - last, v)
        made(v, a, b, c, spot, last - before, exact)
        begin_line(v, n - last, to + last * size, waiting)


@inline
def settle(waiting: int) -> None:
    """At a kernel's end: everything is written, and other threads see it."""
    if waiting:
        release(waiting)
        fence()


# ---- in compiled code -----------------------------------------------------------------------
@inline
def geometry(at: int) -> Array:
    """The geometry at an address, with as many numbers as its rank asks for."""
    numbers: Array = view(at, RANK + 1 + 2 * view(at, RANK + 1, _i8)[RANK], _i8)
    return numbers


@inline
def row_address(base: int, g: Array, i: int) -> Any:
    """The address of the first element of row i."""
    return base + i * g[RANK + 2] if g[RANK] == 1 else address_among(base, g, i)


@leaf
def address_among(base: int, g: Array, i: int) -> Any:
    """`row_address` of rows that no single stride walks."""
    outlined()
    rank = g[RANK]
    for d in range(rank - 1, 0, -1):
        n = g[RANK + 1 + d]
        base += (i % n) * g[RANK + 1 + rank + d]
        i //= n
    return base + i * g[RANK + 1 + rank]


@inline
def neighbour(g: Array) -> Any:
    """Bytes from a row to the next within a run."""
    return g[RANK + 2 * g[RANK]]


@inline
def lies_beside(g: Array, like: Any) -> bool:
    """Whether the elements of one column of a run lie together, aligned, native and of the compute type."""
    return bool(g[PLAIN] != 0 and neighbour(g) == itemsize(like))


@leaf
def column_geometry(g: Array, at: int, like: Any) -> Any:
    """The geometry of rows' elements in one column, written to `at`."""
    own = view(at, RANK, np.int64(0))
    step = neighbour(g)
    own[CODE], own[SWAP], own[STRIDE] = g[CODE], g[SWAP], step
    own[DIRECT] = g[PLAIN] if step == itemsize(like) else 0
    own[PLAIN] = g[PLAIN]
    return own


@inline
def convert(x: Array, to: Array) -> None:
    """Stands for the conversion of LANES elements that `bound` puts in its place."""


@inline
def convert_few(x: Array, to: Array) -> None:
    """`convert` of FEW."""


def widen(address: int, n: int, to: Array) -> None:
    """to[:n] = n >= FEW halves that lie aligned, native and contiguous. Those further on are asked for
    here, since the leaves do not see where they lie.
    """
    wide()
    lying = view(address, n, _i2)
    if n < LANES:
        convert_few(lying, to)
        convert_few(part(lying, n - FEW), part(to, n - FEW))
        return
    for j in range(0, n - LANES + 1, LANES):
        prefetch(lying, j + AHEAD)
        convert(part(lying, j), part(to, j))
    convert(part(lying, n - LANES), part(to, n - LANES))


def widen_and_top(address: int, n: int, to: Array) -> Any:
    """`widen` of n >= LANES halves, and the largest of them as `leaves.block_max` finds it."""
    wide()
    lying, m, odd = view(address, n, _i2), lanes(to[0]), 0
    lower(m)
    for j in range(0, n - LANES + 1, LANES):
        prefetch(lying, j + AHEAD)
        convert(part(lying, j), part(to, j))
        odd = raise_lanes(m, part(to, j), odd)
    convert(part(lying, n - LANES), part(to, n - LANES))
    return top_of(m, raise_lanes(m, part(to, n - LANES), odd))


def narrow(results: Array, c: Any, n: int, address: int, streamed: int) -> None:
    """Write n >= FEW results, of LANES and more c times what they are, as halves that lie aligned, native and
    contiguous; where `streamed`, the cache lines that lie wholly within them past the cache.
    """
    wide()
    lying, v = view(address, n, _i2), lanes(results[0])
    if n < LANES:
        convert_few(results, lying)
        convert_few(part(results, n - FEW), part(lying, n - FEW))
        return
    if not streamed:
        for j in range(0, n - LANES + 1, LANES):
            scaled(part(results, j), c, v)
            convert(v, part(lying, j))
        scaled(part(results, n - LANES), c, v)
        convert(v, part(lying, n - LANES))
        return
    taken = (address & 63) // 2
    first = -taken & (LANES - 1)
    last = first + (n - first) // LANES * LANES
    line = lanes(_i2)  # LANES halves are a line
    if taken:
        within(view(results.ctypes.data - taken * itemsize(c), LANES, c), taken, LANES, v)
        scaled(v, c, v)
        convert(v, line)
        end_line(line, taken, address, streamed)
    for j in range(first, last, LANES):
        scaled(part(results, j), c, v)
        convert(v, line)
        stream(line, address + 2 * j, 1)
    if last < n:
        within(part(results, last), 0, n - last, v)
        scaled(v, c, v)
        convert(v, line)
        begin_line(line, n - last, address + 2 * last, streamed)


take_float16: Any = leaf(bound(widen_and_top, "take_float16", convert=widen_float16))
take_bfloat16: Any = leaf(bound(widen_and_top, "take_bfloat16", convert=widen_bfloat16))
load_float16 = leaf(bound(widen, "load_float16", convert=widen_float16, convert_few=widen_few_float16))
load_bfloat16 = leaf(bound(widen, "load_bfloat16", convert=widen_bfloat16, convert_few=widen_few_bfloat16))
put_float16 = leaf(bound(narrow, "put_float16", convert=narrow_float16, convert_few=narrow_few_float16))
put_bfloat16 = leaf(bound(narrow, "put_bfloat16", convert=narrow_bfloat16, convert_few=narrow_few_bfloat16))


@inline
def in_vectors(address: int, step: int, swap: bool, n: int) -> bool:
    """Whether n halves lie so that vectors of them can be moved."""
    return step == 2 and not swap and address % 2 == 0 and n >= FEW


@inline
def vectors_of_halves(address: int, g: Array, n: int) -> bool:
    """Whether n elements are LANES halves or more that lie so."""
    there = n >= LANES and in_vectors(address, g[STRIDE], g[SWAP] != 0, n)
    return bool(there and g[CODE] in (_F2, _BF16))


@leaf
def load_halves(address: int, g: Array, n: int, fill: Any, scratch: int) -> Any:
    """`load_padded` of vectors of halves, and the largest of these."""
    outlined()
    to = view(scratch, padded(n), fill)
    top = take_float16(address, n, to) if g[CODE] == _F2 else take_bfloat16(address, n, to)
    pad(to, n, fill)
    return top


@leaf
def put_halves(results: Array, c: Any, n: int, address: int, g: Array, streamed: int) -> None:
    """`narrow`, to halves of either type."""
    outlined()
    if g[CODE] == _F2:
        put_float16(results, c, n, address, streamed)
    else:
        put_bfloat16(results, c, n, address, streamed)


@leaf
def load_integers(lying: Array, to: Array) -> None:
    """to = integers that lie aligned, native and contiguous."""
    wide()
    n = lying.size
    for j in range(0, n - LANES + 1, LANES):
        prefetch(lying, j + AHEAD)
        numbers_of(part(lying, j), part(to, j))
    for j in range(n // LANES * LANES, n):
        to[j] = lying[j]


@leaf
def load(address: int, g: Array, n: int, to: Array) -> None:
    """to[:n] = n elements of a row, whatever their type, stride, alignment and byte order."""
    outlined()
    step, code, swap = g[STRIDE], g[CODE], g[SWAP] != 0
    if g[DIRECT]:
        lying = view(address, n, to[0])
        for j in range(0, n - LANES + 1, LANES):
            store(part(lying, j), part(to, j))
        copy_few(lying, n // LANES * LANES, n, to)
    elif code == _I8 and step == 8 and not swap and address % 8 == 0:  # targets
        load_integers(view(address, n, _i8), to)
    elif code == _I4 and step == 4 and not swap and address % 4 == 0:
        load_integers(view(address, n, _i4), to)
    elif code == _I1 and step == 1:
        load_integers(view(address, n, _i1), to)
    elif code == _F2 and in_vectors(address, step, swap, n):
        load_float16(address, n, to)
    elif code == _BF16 and in_vectors(address, step, swap, n):
        load_bfloat16(address, n, to)
    elif code == _F2:
        for j in range(n):
            h = peek(address + j * step, _i2)
            to[j] = float_of_float16(byteswap(h) if swap else h)
    elif code == _BF16:
        for j in range(n):
            h = peek(address + j * step, _i2)
            to[j] = float_of_bfloat16(byteswap(h) if swap else h)
    elif code == _F4:
        for j in range(n):
            i4 = peek(address + j * step, _i4)
            to[j] = from_bits(byteswap(i4) if swap else i4)
    elif code == _F8:
        for j in range(n):
            i8 = peek(address + j * step, _i8)
            to[j] = from_bits(byteswap(i8) if swap else i8)
    elif code == _I1:
        for j in range(n):
            to[j] = peek(address + j * step, _i1)
    elif code == _I2:
        for j in range(n):
            i2 = peek(address + j * step, _i2)
            to[j] = byteswap(i2) if swap else i2
    elif code == _I4:
        for j in range(n):
            i4 = peek(address + j * step, _i4)
            to[j] = byteswap(i4) if swap else i4
    elif code == _I8:
        for j in range(n):
            i8 = peek(address + j * step, _i8)
            to[j] = byteswap(i8) if swap else i8
    elif code == _U1:
        for j in range(n):
            to[j] = peek(address + j * step, _u1)
    elif code == _U2:
        for j in range(n):
            u2 = peek(address + j * step, _u2)
            to[j] = byteswap(u2) if swap else u2
    elif code == _U4:
        for j in range(n):
            u4 = peek(address + j * step, _u4)
            to[j] = byteswap(u4) if swap else u4
    elif code == _U8:
        for j in range(n):
            u8 = peek(address + j * step, _u8)
            to[j] = byteswap(u8) if swap else u8
    else:
        for j in range(n):
            to[j] = peek(address + j * step, _u1) != _u1


@inline
def block(row: int, g: Array, j: int, n: int, fill: Any, scratch: int) -> Any:
    """Elements j to j + n - 1 of a row, padded with `fill` to a multiple of LANES: where they lie,
    or in scratch memory.
    """
    at = row + j * g[STRIDE]
    if not (g[DIRECT] and n % LANES == 0):
        load_padded(at, g, n, fill, scratch)
        at = scratch
    return view(at, padded(n), fill)


@inline
def ragged(row: int, g: Array, j: int, n: int, fill: Any, scratch: int) -> Any:
    """`block` without its padding where the elements lie: the last ones, that fill no lanes, are in scratch
    memory, padded.
    """
    at, over = row + j * g[STRIDE], n % LANES
    if not g[DIRECT]:
        return block(row, g, j, n, fill, scratch)
    if over:
        load_padded(at + (n - over) * itemsize(fill), g, over, fill, scratch)
    return view(at, n, fill)


@inline
def ahead_of(row: int, g: Array, j: int, x: Array) -> int:
    """How many elements after one of x, the block at column j, to prefetch: x may be in scratch memory."""
    elsewhere: int = row + j * g[STRIDE] - x.ctypes.data if g[DIRECT] else 0
    return AHEAD + elsewhere // int(itemsize(x[0]))


@leaf
def load_padded(address: int, g: Array, n: int, fill: Any, scratch: int) -> None:
    wide()
    to = view(scratch, padded(n), fill)
    if not g[DIRECT]:
        load(address, g, n, to)
        pad(to, n, fill)
        return
    lying = view(address, n, fill)
    whole = n // LANES * LANES
    for j in range(0, whole, LANES):
        store(part(lying, j), part(to, j))
    if whole < n:
        first_of(part(lying, whole), n - whole, fill, part(to, whole))


@leaf
def pad(x: Array, first: int, fill: Any) -> None:
    """x[first:] = fill."""
    wide()
    for k in range(first, x.size):
        x[k] = fill


@inline
def padded(n: int) -> int:
    return (n + LANES - 1) // LANES * LANES


@inline
def element(row: int, g: Array, j: int, scratch: int, like: Any) -> Any:
    """Element j of a row."""
    if g[DIRECT]:
        return view(row + j * itemsize(like), 1, like)[0]
    return element_elsewhere(row, g, j, scratch, like)


@leaf
def element_elsewhere(row: int, g: Array, j: int, scratch: int, like: Any) -> Any:
    """`element` of a row of any layout."""
    outlined()
    to = view(scratch, 1, like)
    load(row + j * g[STRIDE], g, 1, to)
    return to[0]


@inline
def put_one(result: Any, address: int, code: int, swap: bool) -> None:
    """Write a result to an address, in the type of an output."""
    if code in (_F2, _BF16):
        x = cast(result, _f4)
        i2 = float16_of_float(x) if code == _F2 else bfloat16_of_float(x)
        poke(address, byteswap(i2) if swap else i2)
    elif code == _F4:
        i4 = bits(cast(result, _f4))
        poke(address, byteswap(i4) if swap else i4)
    else:
        i8 = bits(cast(result, _f8))
        poke(address, byteswap(i8) if swap else i8)


@leaf
def put(results: Array, n: int, row: int, g: Array, j: int, streamed: int) -> None:
    """Write n results to a row of an output, from its column j on."""
    wide()
    address, step, code, swap = row + j * g[STRIDE], g[STRIDE], g[CODE], g[SWAP] != 0
    if not g[DIRECT]:
        if code in (_F2, _BF16) and in_vectors(address, step, swap, n):
            put_halves(results, cast(1.0, results[0]), n, address, g, streamed)
        else:
            for k in range(n):
                put_one(results[k], address + k * step, code, swap)
        return
    lying = view(address, n, results[0])
    if streamed and n >= LANES:
        none, one = cast(0.0, results[0]), cast(1.0, results[0])
        make_past(view(results.ctypes.data, n, one), none, one, none, -1, none, address, streamed)
        return
    if streamed:
        # The lines that lie wholly within the block go past the cache.
        first = min(n, (-address & 63) // step)
        last = first + (n - first) * step // 64 * (64 // step)
        if first:
            wait(results, first, address, streamed)
        stream(view(results.ctypes.data + first * step, n - first, results[0]),
               address + first * step, (last - first) * step // 64)
        if last < n:
            rest = view(results.ctypes.data + last * step, n - last, results[0])
            wait(rest, n - last, address + last * step, streamed)
        return
    # LLVM makes no vectors of a loop over arrays that might overlap.
    for k in range(0, n - LANES + 1, LANES):
        store(part(results, k), part(lying, k))
    copy_few(results, n // LANES * LANES, n, lying)


@leaf
def put_over(result: Any, row: int, g: Array, j: int, scratch: int, streamed: int) -> None:
    """Write one result to column j of a row over what has just been put there, which may still wait."""
    outlined()
    if streamed:
        release(streamed)
    one = view(scratch, 1, result)
    one[0] = result
    put(one, 1, row, g, j, 0)


@inline
def share(w: int, workers: int, first: int, last: int) -> Any:
    """The tasks of worker w, of those from `first` to `last` - 1; of 0 workers it is the only one."""
    tasks = last - first
    if workers == 0:
        return range(first, last)
    return range(first + tasks * w // workers, first + tasks * (w + 1) // workers)


@inline
def segment_of(task: int, workers: int, rows: int, count: int) -> Any:
    """(row, segment) of a task, of `count` segments a row: row by row, as they lie in memory. Strips (0
    workers) bring one segment of rows that lie side by side: there one segment of all is after the other.
    """
    if workers == 0:
        return task % rows, task // rows
    return task // count, task % count


@leaf
def segments(columns: int) -> int:
    return (columns + SEGMENT - 1) // SEGMENT


@inline
def buffer(work: int, which: int, like: Any) -> Any:
    """A worker's scratch: X_BLOCK, T_BLOCK and O_BLOCK for what is loaded and stored; then W, D and E."""
    return work + which * BLOCK * itemsize(like)


@leaf
def fill(value: Any, j0: int, j1: int, work: int, out: int, g: Array, streamed: int) -> None:
    """Write one value to columns j0 to j1 - 1 of a row of an output."""
    outlined()
    results = view(buffer(work, O_BLOCK, value), BLOCK, value)
    pad(results, 0, value)
    for j in range(j0, j1, BLOCK):
        put(results, min(BLOCK, j1 - j), out, g, j, streamed)


# ---- outside ---------------------------------------------------------------------------------
LINES = 128  # bytes of two cache lines, which processors fetch together


class Scratch:
    """Memory for each worker, on cache lines of its own."""

    def __init__(self, workers: int, size: int) -> None:
        self.stride = -(-size // LINES) * LINES
        self._memory = np.empty(workers * self.stride + LINES, np.uint8)
        self.address = -(-address(self._memory) // LINES) * LINES


def apart(count: int, numbers: int, dtype: np.dtype[Any]) -> Array:
    """`count` empty rows of so many numbers or some more, each on cache lines of its own: workers that write
    to one line wait for each other.
    """
    each = -(-numbers * dtype.itemsize // LINES) * LINES
    raw = np.empty(count * each + LINES, np.uint8)
    first = -address(raw) % LINES
    return raw[first : first + count * each].view(dtype).reshape(count, each // dtype.itemsize)


def streamed(out: Array, x: Array) -> int:
    """1 where results bypass the cache: large ones, to memory that the caller has used before.

    On new memory an ordinary store is faster, since the page fault brings the line in anyway, and
    in place the line is there already.
    """
    return int(out.nbytes >= STREAMED and out is not x)
