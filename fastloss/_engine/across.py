"""The walk of `rows`, across rows: LANES rows at a time, lane k being row k.

It is for rows that lie side by side (softmax along axis 0, or along the channels of an image), whose
elements would otherwise be fetched one cache line each, and for rows too short to fill vectors, which are
transposed in L1 first. Many rows of a block at most, of which only a number each is wanted, are walked one
after the other, and only what becomes of their sums is made across. Every sum is made in the order that
`rows.walk` and `leaves` make it in (element j of a block belongs to partial sum j mod LANES, and those fold
by halves), so a row has the same bits whoever walks it, and which walk a call takes is a matter of speed
alone.

A batch is `size` rows, a multiple of LANES: of short ones some that L1 holds, or LANES, or of many that lie
side by side some that L2 holds; else as many as make a column long enough to be fetched and written at full
speed. Its tile of one block of columns lies
where the array is, or in scratch, column j at `step` bytes times j.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss._engine import blocks, launch, rows, threads, transpose
from fastloss._engine.again import remember
from fastloss._engine.arrays import DIRECT, F64, STRIDE, Array, Layout
from fastloss._engine.blocks import (
    BLOCK,
    SEGMENT,
    Scratch,
    apart,
    column_geometry,
    copy_few,
    lies_beside,
    load,
    neighbour,
    padded,
    put,
    ragged,
    release,
    segments,
)
from fastloss._engine.elementary import exp_nonpositive, log1p, two_sum
from fastloss._engine.jit import inline, leaf
from fastloss._engine.kernels import Arguments, Kernel, kernel
from fastloss._engine.leaves import LOGITS, block_max, exp_sum_peak
from fastloss._engine.vector import (
    FEW,
    LANES,
    added,
    bits,
    cast,
    fence,
    fold,
    fold_rows,
    itemsize,
    lanes,
    lower,
    many_registers,
    maximum,
    multiplied,
    nan_where,
    outlined,
    part,
    peaks_of,
    prefetch,
    raise_rows,
    raised,
    scaled,
    store,
    stream,
    subtracted,
    sum_below,
    view,
    wide,
)

# Columns up to which rows are short, batches of them walked whole: of many float32 rows that lie side by
# side, or one after the other (of float64 half as many; a batch is then up to three times what L1 holds); and
# of others, and where M and R alone are wanted of rows that are read where they lie.
SHORT, SHORTER = 384, 128
# Bytes that a batch of short rows is to have (it has 32 to 384 rows), and where they have more tiles than
# their own and that of the exponentials; and where so many elements and more lie side by side, which L2 does
# not hold: columns come in long pieces then, of 512 rows or as many as fill that, and of 128 at least.
BATCH, BATCH_OF_MORE, BATCH_BESIDE, FAR = 7680, 4096, 98304, 1 << 19
# Bytes of a column of longer rows: while they are walked, which wants them in cache, and while their results
# are made; and how many columns of those are one task, or wait in scratch.
WIDTH, FINISHED_WIDTH = 512, 2048
FINISHED, WAITING = 4 * BLOCK, 128
# An L2 cache keeps all lines that lie so many bytes apart in one set, of some 16: of more columns than
# COLLIDING that lie so a batch is copied first, since lines would be gone before they are read again. Those
# of a column are asked for so many columns before.
COLLIDING, PLACES, SOON = 48, 1 << 16, 3
WAITS = 128  # bytes of what waits of a column: see `blocks.wait`
# Columns between a loop and its prefetch, of what has been read before (L2 does not hold columns that lie far
# apart), and of what comes from memory; and rows, of columns that are read where they lie.
AHEAD, FAR_AHEAD, NEAR = 16, 32, 192

# What is kept of each row from its walk on, in float64: m, r, the factor of its results, and a column whose
# result is another, given here (NONE: there is none; IGNORED: all results are 0).
KEPT_M, KEPT_R, KEPT_BY, KEPT_SPOT, KEPT_EXACT, KEPT = 0, 1, 2, 3, 4, 5
IGNORED, NONE = -1, -2

# ---- scratch of a worker --------------------------------------------------------------------
# Arrays of `size` numbers of eight bytes at most. Of the compute type: the largest of a block, the running
# maximum m, what a block is measured from (m, or 0 while that is -inf), the maximum where a block has
# raised it (else NaN, which equals nothing), ties with it, results' factor.
TOP, M, ORIGIN, PEAK, TIES, FACTOR = 0, 1, 2, 3, 4, 5
# Of float64: `rows.R` and what rounding took from it, and the sum before this block.
R, LOW, BASE = 6, 7, 8
# For the kernels' own use, and the total.
OWN, SLOTS = 9, 24


@inline
def slot(work: int, which: int, size: int, k: int, like: Any) -> Any:
    """LANES numbers of an array of the batch, from row k on."""
    return view(work + which * size * 8 + k * itemsize(like), LANES, like)


@inline
def whole(work: int, which: int, size: int, like: Any) -> Any:
    """An array of the batch."""
    return view(work + which * size * 8, size, like)


@inline
def sums_of(work: int, size: int) -> int:
    """LANES by LANES partial sums."""
    return work + SLOTS * size * 8


@inline
def geometry_of(work: int, size: int) -> int:
    """A geometry of rows' elements in one column."""
    return sums_of(work, size) + LANES * LANES * 8


@inline
def flat_of(work: int, size: int) -> int:
    """Rows of a batch, one after the other, or blocks for what makes a single row again."""
    return geometry_of(work, size) + 64


def tile_length(columns: int, size: int) -> int:
    """Numbers of a tile with the columns that fill its last block."""
    return (-(-columns // 16) * 16 if columns <= SHORT else BLOCK) * size


def flat_length(columns: int, size: int) -> int:
    return max(4 * BLOCK, (columns * size if columns <= SHORT else 0) + 16)


# In compiled code.
_tile_length, _flat_length = inline(tile_length), inline(flat_length)


@inline
def tile_bytes(columns: int, size: int, like: Any) -> int:
    return int(_tile_length(columns, size) * itemsize(like))


def batch_size(row: int, batch: int = BATCH) -> int:
    """Rows of so many bytes that make a batch; of many, whole fours of LANES, as groups of rows have."""
    many = max(1, min(12, batch // (LANES * row)))
    return LANES * (many if many < 4 else (many + 2) // 4 * 4)


def batch_size_beside(row: int) -> int:
    """Rows of so many bytes, which lie side by side, that make a batch: whole groups."""
    return 4 * LANES * max(1, min(4, BATCH_BESIDE // (4 * LANES * row)))


def group_size(row: int) -> int:
    """Rows of so many bytes whose losses are summed before those sums are, wherever they lie: batches of
    short rows hold whole groups.
    """
    many = batch_size(row) // LANES
    return LANES * min(4, many & -many)


# ---- leaves ---------------------------------------------------------------------------------
@inline
def largest(at: int, step: int, n: int, top: Array) -> None:
    """top[k] = the largest of row k in n columns, NaN if any is; a zero is +0."""
    m, seen = lanes(top[0]), lanes(bits(top[0]))
    lower(m)
    for j in range(n):
        raise_rows(m, seen, view(at + j * step, LANES, top[0]))
    nan_where(m, seen)
    store(m, top)


@leaf
def largest_across(at: int, step: int, n: int, top: Array) -> None:
    """`largest`, as a function of its own."""
    wide()
    largest(at, step, n, top)


@leaf
def raise_maxima(
    top: Array, m: Array, origin: Array, peak: Array, r: Array, low: Array, base: Array, inv: Any
) -> None:
    """What `rows.walk` does between a block's maximum and its exponentials."""
    wide()
    for k in range(LANES):
        old = m[k]
        grown = not top[k] <= old
        new = maximum(old, top[k]) + cast(0.0, inv) if grown else old  # a zero is +0
        factor = exp_nonpositive(np.float64((old - new) * inv))
        s = 0.0 if old == -np.inf else 1.0 + r[k]
        base[k] = s * factor if grown else r[k]
        low[k] = low[k] * factor if grown else low[k]
        m[k] = new
        origin[k] = cast(0.0, inv) if new == -np.inf else new
        peak[k] = new if grown else cast(np.nan, inv)


@leaf
def exp_across(
    at: int, step: int, n: int, ahead: int, origin: Array, peak: Array, inv: Any,
    sums: int, ties: Array, following: int, top: Array,
) -> None:
    """sums[j mod LANES] += exp((x_j - origin) inv), without those at the peak, which ties count. Meanwhile
    `top` becomes the largest of as many columns at `following`, if that is not 0.
    """
    wide()
    m, seen = lanes(inv), lanes(bits(inv))
    lower(m)
    unit, watched = inv == cast(1.0, inv), following != 0
    one, zero = cast(1.0, inv), cast(0.0, inv)
    row = LANES * itemsize(inv)
    count = lanes(inv)
    for j in range(n):
        q = view(at + j * step, LANES, inv)
        prefetch(view(at + j * step + ahead, LANES, inv), 0)
        if watched:
            prefetch(view(following + (j + FAR_AHEAD) * step, LANES, inv), 0)
            raise_rows(m, seen, view(following + j * step, LANES, inv))
        v, w = lanes(inv), lanes(inv)
        for k in range(LANES):
            d = q[k] - origin[k]
            v[k] = exp_nonpositive(d if unit else d * inv)
            tied = q[k] == peak[k]
            w[k] = zero if tied else v[k]
            count[k] += one if tied else zero
        to = view(sums + j % LANES * row, LANES, inv)
        if j >= LANES:
            added(to, w, to)
        else:
            store(w, to)
    store(count, ties)
    if watched:
        nan_where(m, seen)
        store(m, top)


@leaf
def fold_across(sums: int, n: int, like: Any) -> None:
    """The first of n <= LANES partial sums becomes the sum of all, by halves as `vector.fold` adds them."""
    wide()
    b = itemsize(like)
    for j in range(n, -(-n // 4) * 4 if n <= FEW else LANES):
        store(lanes(like), view(sums + j * LANES * b, LANES, like))
    fold_rows(sums, n, like, view(sums, LANES, like))


@leaf
def settle(
    total: Array, ties: Array, peak: Array, base: Array, m: Array, r: Array, low: Array
) -> None:
    """What `rows.walk` does after a block's exponentials."""
    wide()
    one, zero = cast(1.0, m[0]), cast(0.0, m[0])
    for k in range(LANES):
        extra = ties[k] - one if peak[k] == peak[k] else zero
        s, lost = two_sum(base[k], np.float64(total[k] + extra))
        r[k] = np.nan if m[k] == np.inf else s
        low[k] += lost


@leaf
def scale_across(e: int, step: int, n: int, factor: Array, o: int, o_step: int) -> None:
    """o = factor e."""
    wide()
    for j in range(n):
        q = view(e + j * step, LANES, factor[0])
        multiplied(q, factor, view(o + j * o_step, LANES, factor[0]))


@inline
def send(v: Array, at: int, o: int, line: int, k: int, streamed: int) -> None:
    """v to an output; where `streamed`, to a line of results that `send_line` writes."""
    b = itemsize(v[0])
    store(v, view(line + k * b if streamed else o + at + k * b, LANES, v[0]))


@leaf
def send_line(line: int, n: int, o: int, like: Any) -> None:
    """n results to o, the cache lines that lie wholly within them past the cache."""
    b = itemsize(like)
    first = (-o & 63) // b
    last = n - (n - first) % (64 // b)
    results, lying = view(line, n, like), view(o, n, like)
    copy_few(results, 0, first, lying)
    stream(view(line + first * b, n, like), o + first * b, (last - first) * b // 64)
    copy_few(results, last, n, lying)


@leaf
def exp_scale_across(
    at: int, step: int, n: int, ahead: int, origin: Array, inv: Any, factor: Array,
    o: int, o_step: int, line: int, streamed: int,
) -> None:
    """o = factor exp((x - origin) inv) for all rows of a batch; past the cache where `streamed`, by way of
    `line`.
    """
    wide()
    b, unit = itemsize(inv), inv == cast(1.0, inv)
    for j in range(n):
        for i in range(0, origin.size, LANES):
            q = view(at + j * step + i * b, LANES, inv)
            prefetch(view(at + j * step + i * b + ahead, LANES, inv), 0)
            v, from_, by = lanes(inv), part(origin, i), part(factor, i)
            for k in range(LANES):
                d = q[k] - from_[k]
                v[k] = exp_nonpositive(d if unit else d * inv) * by[k]
            send(v, j * o_step, o, line, i, streamed)
        if streamed:
            send_line(line, origin.size, o + j * o_step, inv)


@leaf
def shift_across(
    at: int, step: int, n: int, ahead: int, m: Array, inv: Any, log_s: Array,
    o: int, o_step: int, line: int, streamed: int,
) -> None:
    """o = (x - m) inv - log s for all rows of a batch, likewise."""
    wide()
    b = itemsize(inv)
    for j in range(n):
        for i in range(0, m.size, LANES):
            v = lanes(inv)
            prefetch(view(at + j * step + i * b + ahead, LANES, inv), 0)
            subtracted(view(at + j * step + i * b, LANES, inv), part(m, i), v)
            scaled(v, inv, v)
            subtracted(v, part(log_s, i), v)
            send(v, j * o_step, o, line, i, streamed)
        if streamed:
            send_line(line, m.size, o + j * o_step, inv)


# ---- tiles in and out -----------------------------------------------------------------------
@inline
def lies_across(g: Array, n: int, size: int, like: Any) -> bool:
    """Whether n rows of a batch of `size` can be used where they lie, column by column."""
    return lies_beside(g, like) and n == size


@inline
def lies_flat(g: Array, columns: int) -> bool:
    """Whether rows lie one after the other."""
    return bool(neighbour(g) == columns * g[STRIDE])


@leaf
def fetch(
    at: int, g: Array, columns: int, j0: int, n: int, count: int, size: int, rest: int, ahead: int,
    tile: int, work: int, like: Any,
) -> Any:
    """(address, bytes from column to column) of columns j0 to j0 + n - 1 of `count` rows from `at` on, in
    the compute type; `rest` rows follow them. Of a whole batch of short rows that lie one after the other as
    they are, what lies `ahead` numbers further on is asked for, if that is not 0. Columns that collide in a
    cache are copied, each read once.
    """
    outlined()
    b, there = itemsize(like), lies_across(g, count, size, like)
    collide = COLLIDING < n == columns <= SHORT and g[STRIDE] % PLACES == 0
    if there and not collide:
        return at + j0 * g[STRIDE], g[STRIDE]
    if n == columns <= SHORT and lies_flat(g, columns):
        flat = at
        if not g[DIRECT] or count != size or rest * columns * b < 64:
            flat, ahead = flat_of(work, size), 0
            load(at, g, count * columns, view(flat, count * columns, like))
        transpose.to_columns(flat, columns, size, tile, ahead, like)
    else:
        own = column_geometry(g, geometry_of(work, size), like)
        for j in range(n):
            for k in range(0, count if there else 0, LANES):
                prefetch(view(at + (j0 + j + SOON) * g[STRIDE] + k * b, LANES, like), 0)
            load(at + (j0 + j) * g[STRIDE], own, count, view(tile + j * size * b, count, like))
    return tile, size * b


@leaf
def deliver(
    tile: int, columns: int, j0: int, n: int, count: int, size: int, work: int, out: int, g: Array,
    streamed: int, lines: int, like: Any,
) -> None:
    """A tile of results, its columns `size` numbers apart, to columns j0 to j0 + n - 1 of `count` rows; past
    the cache where `streamed`, of columns by the `lines` that `begin_lines` has made.
    """
    outlined()
    if n == columns <= SHORT and lies_flat(g, columns):
        line = 64 // itemsize(like)
        if streamed and g[DIRECT] and out & 63 == 0 and count == size and 2 < n <= line:
            transpose.to_rows_past(tile, columns, size, out, like)
            return
        flat = flat_of(work, size)
        transpose.to_rows(tile, columns, size, flat, like)
        put(view(flat, count * columns, like), count * columns, out, g, 0, streamed)
        return
    own = column_geometry(g, geometry_of(work, size), like)
    past = streamed and lies_beside(g, like)
    for j in range(n):
        to, waiting = out + (j0 + j) * g[STRIDE], lines + j * WAITS if past else 0
        put(view(tile + j * size * itemsize(like), count, like), count, to, own, 0, waiting)


@leaf
def begin_lines(end: int, columns: int, streamed: int) -> int:
    """Where lines of so many columns of results may wait, at the end of a worker's scratch; none does yet."""
    outlined()
    lines = end - columns * WAITS
    for j in range(columns if streamed else 0):
        view(lines + j * WAITS, 1, np.int64(0))[0] = 0
    return lines


@leaf
def end_lines(lines: int, columns: int, streamed: int) -> None:
    """Everything is written, of rows too, and other threads see it."""
    outlined()
    for j in range(columns if streamed else 0):
        release(lines + j * WAITS)
    blocks.settle(streamed)


@inline
def fetch_targets(at: int, g: Array, i: int, count: int, y: Array) -> None:
    """The targets of `count` rows from row i on, and -1 for what a batch lacks; they are integers at `at`.

    In a function of its own the arguments' first load would wait for all stores before it, those past the
    cache too.
    """
    load(at + i * g[STRIDE], g, count, y)
    for k in range(count, y.size):
        y[k] = cast(-1.0, y[0])


# ---- the walk -------------------------------------------------------------------------------
@leaf
def step_across(
    at: int, step: int, n: int, known: bool, following: int, work: int, size: int, i: int, inv: Any
) -> None:
    """LANES rows of a batch, from row i on, take in a block of n columns. If its largest are `known`, they
    have been put down as those of the block that was `following` before; 0: none follows.
    """
    outlined()
    m, top = slot(work, M, size, i, inv), slot(work, TOP, size, i, inv)
    origin, peak = slot(work, ORIGIN, size, i, inv), slot(work, PEAK, size, i, inv)
    ties, sums = slot(work, TIES, size, i, inv), sums_of(work, size)
    r, low = slot(work, R, size, i, 0.0), slot(work, LOW, size, i, 0.0)
    base = slot(work, BASE, size, i, 0.0)
    if not known:
        largest_across(at, step, n, top)
    raise_maxima(top, m, origin, peak, r, low, base, inv)
    exp_across(
        at, step, n, AHEAD * step if following else 0, origin, peak, inv, sums, ties, following, top
    )
    fold_across(sums, min(n, LANES), inv)
    settle(view(sums, LANES, inv), ties, peak, base, m, r, low)


@leaf
def begin(work: int, size: int, like: Any) -> None:
    """Rows of a batch that have seen nothing."""
    m, r, low = whole(work, M, size, like), whole(work, R, size, 0.0), whole(work, LOW, size, 0.0)
    for i in range(size):
        m[i], r[i], low[i] = cast(-np.inf, like), 0.0, 0.0


@leaf
def end(work: int, size: int) -> None:
    """What rounding took from R goes back into it."""
    r, low = whole(work, R, size, 0.0), whole(work, LOW, size, 0.0)
    for i in range(size):
        r[i] = r[i] + low[i] if abs(r[i]) < np.inf else r[i]


@leaf
def walk_two(at: int, step: int, size: int, m: Array, r: Array, e: int, inv: Any) -> None:
    """`walk_short` of rows of two: one exponential, the other being 1."""
    wide()
    b, one, zero, none = itemsize(inv), cast(1.0, inv), cast(0.0, inv), cast(np.nan, inv)
    for i in range(0, size, LANES):
        left, right = view(at + i * b, LANES, inv), view(at + step + i * b, LANES, inv)
        low, high, v, w, rest = lanes(inv), lanes(inv), lanes(inv), lanes(inv), lanes(inv)
        for k in range(LANES):
            first = (left[k] > right[k]) | (left[k] != left[k])
            high[k] = (left[k] if first else right[k]) + zero  # a zero is +0
            low[k] = right[k] if left[k] == high[k] else left[k]
            each = exp_nonpositive((low[k] - high[k]) * inv)
            each = zero if high[k] == -np.inf else each
            most = zero if high[k] == -np.inf else one
            v[k] = most if left[k] == high[k] else each
            w[k] = most if right[k] == high[k] else each
            rest[k] = none if high[k] == np.inf else each
        store(high, part(m, i))
        store(rest, part(r, i))
        store(v, view(e + i * b, LANES, inv))
        store(w, view(e + (size + i) * b, LANES, inv))


@inline
def begin_short(at: int, step: int, columns: int, m: Array, origin: Array, peak: Array, ties: Array) -> None:
    """`peaks_of` LANES short rows. A NaN beside finite numbers is passed over: it makes r NaN, and with it
    all that comes of m and r.
    """
    top = lanes(m[0])
    lower(top)
    for j in range(columns):
        raised(view(at + j * step, LANES, m[0]), top, top)
    infinite = peaks_of(top, origin, peak, ties)
    store(top, m)
    if infinite != 0:
        largest(at, step, columns, m)


@leaf
def walk_few(
    at: int, step: int, columns: int, size: int, m: Array, r: Array, origin: Array, peak: Array, ties: Array,
    e: int, following: int, following_step: int, inv: Any,
) -> None:
    """`walk_short` of rows of FEW numbers at most. It goes over the batch three times: where a few rows are
    made from end to end, a processor does not see beyond what they wait for.
    """
    wide()
    b, unit = itemsize(inv), inv == cast(1.0, inv)
    for i in range(0, size, LANES):
        begin_short(at + i * b, step, columns, part(m, i), part(origin, i), part(peak, i), part(ties, i))
    for j in range(columns):
        for i in range(0, size, LANES):
            q, v, from_ = view(at + j * step + i * b, LANES, inv), lanes(inv), part(origin, i)
            prefetch(view(following + j * following_step + i * b, LANES, inv), 0)
            for k in range(LANES):
                d = q[k] - from_[k]
                v[k] = exp_nonpositive(d if unit else d * inv)
            store(v, view(e + (j * size + i) * b, LANES, inv))
    for i in range(columns * size, -(-columns // 4) * 4 * size, LANES):
        store(lanes(inv), view(e + i * b, LANES, inv))
    for i in range(0, size, LANES):
        sum_below(at + i * b, step, e + i * b, size * b, columns, part(peak, i), part(ties, i))
        store(part(ties, i), part(r, i))


@leaf
def walk_more(
    at: int, step: int, columns: int, size: int, m: Array, r: Array, sums: int, e: int, following: int,
    following_step: int, inv: Any,
) -> None:
    """`walk_short` of other rows: what `step_across` does, of rows that have seen nothing, in one loop."""
    wide()
    row, b = LANES * itemsize(inv), itemsize(inv)
    one, zero = cast(1.0, inv), cast(0.0, inv)
    for i in range(0, size, LANES):
        origin, peak, ties = lanes(inv), lanes(inv), lanes(inv)
        begin_short(at + i * b, step, columns, part(m, i), origin, peak, ties)
        for j in range(columns):
            q, v, w = view(at + j * step + i * b, LANES, inv), lanes(inv), lanes(inv)
            prefetch(view(following + j * following_step + i * b, LANES, inv), 0)
            for k in range(LANES):
                v[k] = exp_nonpositive((q[k] - origin[k]) * inv)
                tied = q[k] == peak[k]
                w[k] = zero if tied else v[k]
                ties[k] += one if tied else zero
            store(v, view(e + (j * size + i) * b, LANES, inv))
            to = view(sums + j % LANES * row, LANES, inv)
            if j >= LANES:
                added(to, w, to)
            else:
                store(w, to)
        fold_across(sums, min(columns, LANES), inv)
        added(view(sums, LANES, inv), ties, ties)
        store(ties, part(r, i))


@leaf
def walk_short(
    at: int, step: int, columns: int, size: int, work: int, e: int, following: int, following_step: int,
    inv: Any,
) -> None:
    """M and R of every row of a batch of short rows, and its exponentials. Meanwhile as many numbers are
    asked for from `following` on, in columns so many bytes apart, where rows are longer than two.
    """
    outlined()
    m, r = whole(work, M, size, inv), whole(work, R, size, 0.0)
    if columns == 2:
        walk_two(at, step, size, m, r, e, inv)
    elif columns <= FEW:
        walk_few(
            at, step, columns, size, m, r, whole(work, ORIGIN, size, inv), whole(work, PEAK, size, inv),
            whole(work, TIES, size, inv), e, following, following_step, inv,
        )
    else:
        walk_more(at, step, columns, size, m, r, sums_of(work, size), e, following, following_step, inv)


@leaf
def walk_blocks(
    row: int, apart: int, g: Array, n: int, count: int, m: Array, r: Array, e: int, inv: Any
) -> None:
    """M and R of rows of a block at most, one after the other: the largest of a row is found while the
    exponentials of the one before it are made, at `e`.
    """
    outlined()
    lowest, b = cast(-np.inf, inv), itemsize(inv)
    exps, ends = view(e, padded(n), inv), e + BLOCK * b
    tail, next_tail = ends, ends + LANES * b
    ahead = apart // b * (2 * BLOCK // n)  # whole rows, blocks.AHEAD numbers or less
    here, top = row, block_max(ragged(row, g, 0, n, lowest, tail), tail)
    for k in range(count):
        x, following = view(here, n, inv), here + apart if k + 1 < count else 0
        after = ragged(following, g, 0, n if following else 0, lowest, next_tail)
        watched = following if many_registers() and top != lowest else 0
        m[k], r[k], next_top = top, 0.0, top
        if top != lowest:
            s, next_top = exp_sum_peak(x, tail, top, inv, exps, ahead, watched, next_tail)
            r[k] = np.nan if top == np.inf else np.float64(s)
        top = next_top if watched else block_max(after, next_tail)
        here, tail, next_tail = following, next_tail, tail


@leaf
def walk_long(
    row: int, g: Array, columns: int, count: int, size: int, rest: int, work: int, tile: int, inv: Any,
    maxima: Array, first: int, parts: Array,
) -> None:
    """M and R of the rows of a batch; maxima[b, first + k] = the maximum that block b of row k saw."""
    outlined()
    many = segments(columns)
    m, r = whole(work, M, size, inv), whole(work, R, size, 0.0)
    for q in range(many):
        begin(work, size, inv)
        following = 0
        for j in range(q * SEGMENT, min((q + 1) * SEGMENT, columns), BLOCK):
            n = min(BLOCK, columns - j)
            at, step = fetch(row, g, columns, j, n, count, size, rest, 0, tile, work, inv)
            known = following != 0
            follows = at != tile and j + 2 * BLOCK <= min((q + 1) * SEGMENT, columns)  # a whole block
            following = at + BLOCK * step if follows else 0
            for i in range(0, size, LANES):
                here = at + i * itemsize(inv)
                step_across(
                    here, step, n, known, here + BLOCK * step if follows else 0, work, size, i, inv
                )
            maxima[j // BLOCK, first : first + count] = m[:count]
        end(work, size)
        for k in range(size):
            parts[k * many + q, rows.M], parts[k * many + q, rows.R] = m[k], r[k]
    for k in range(count):
        mk, r[k], _, _, _, _ = rows.merged(parts, k * many, many, LOGITS, rows.ALONE, inv)
        m[k] = cast(mk, inv)


# ---- results --------------------------------------------------------------------------------
@leaf
def block_factors(
    seen: Array, m: Array, r: Array, by: Array, origin: Array, factor: Array, inv: Any
) -> None:
    """factor = `by` / s for exponentials made under the maximum that a block had seen."""
    wide()
    for k in range(LANES):
        mj = seen[k]
        s = rows.mass(LOGITS, np.float64(m[k]), r[k])
        c = rows.power(np.float64(mj), np.float64(m[k]), np.float64(inv)) / s
        factor[k] = cast(c * by[k], inv)
        origin[k] = cast(0.0, inv) if mj == -np.inf else mj


@leaf
def finish_long(
    row: int, g: Array, columns: int, j0: int, j1: int, count: int, size: int, rest: int, work: int,
    tile: int, inv: Any, maxima: Array, first: int, mode: int, by: Array, out: int, og: Array, streamed: int,
) -> None:
    """Columns j0 to j1 - 1 of results for the rows of a batch: `by` times the softmax, or the log-softmax."""
    outlined()
    m, r = whole(work, M, size, inv), whole(work, R, size, 0.0)
    origin, factor = whole(work, ORIGIN, size, inv), whole(work, FACTOR, size, inv)
    line = work + TOP * size * 8
    b = itemsize(inv)
    there = lies_across(og, count, size, inv)
    past = int(streamed and there)
    if mode == rows.LOG:
        for k in range(0, size, LANES):
            logarithms(part(r, k), part(factor, k), inv)
    pace = BLOCK if there and lies_across(g, count, size, inv) else WAITING
    for j in range(j0, j1, pace):
        n = min(pace, j1 - j)
        at, step = fetch(row, g, columns, j, n, count, size, rest, 0, tile, work, inv)
        to, to_step = (out + j * og[STRIDE], og[STRIDE]) if there else (tile, size * b)
        ahead = AHEAD * step if at != tile and j + 2 * BLOCK <= columns else 0
        if mode == rows.LOG:
            shift_across(at, step, n, ahead, m, inv, factor, to, to_step, line, past)
        else:
            seen = maxima[j // BLOCK]
            for k in range(0, size if j % BLOCK == 0 or j == j0 else 0, LANES):
                block_factors(
                    part(seen, first + k), part(m, k), part(r, k), part(by, k), part(origin, k),
                    part(factor, k), inv,
                )
            exp_scale_across(at, step, n, ahead, origin, inv, factor, to, to_step, line, past)
        if not there:
            deliver(tile, columns, j, n, count, size, work, out, og, 0, 0, inv)
    if past:
        fence()


@leaf
def keep(work: int, size: int, i: int, count: int, by: Array, kept: Array, like: Any) -> None:
    """What `finish_across` has to know of `count` rows from row i on, that have just been walked."""
    m, r = whole(work, M, size, like), whole(work, R, size, 0.0)
    for k in range(count):
        kept[i + k, KEPT_M], kept[i + k, KEPT_R] = m[k], r[k]
        kept[i + k, KEPT_BY], kept[i + k, KEPT_SPOT], kept[i + k, KEPT_EXACT] = by[k], NONE, 0.0


@kernel
def finish_across(
    w: int, workers: int, first: int, last: int, columns: int, inner: int, size: int,
    work: int, stride: int, rate: float, maxima: Array, batches: int, kept: Array,
    x: int, xg_at: int, mode: int, out: int, og_at: int, streamed: int,
) -> None:
    """Results of rows that have been walked, `maxima` and `kept` being what is known of them; a task is
    FINISHED columns of a batch, all batches of those coming after each other.
    """
    inv = cast(rate, maxima[0, 0])
    xg, og = blocks.geometry(xg_at), blocks.geometry(og_at)
    mine = work + w * stride
    m, r, by = whole(mine, M, size, inv), whole(mine, R, size, 0.0), whole(mine, OWN, size, 0.0)
    tile, _ = tile_of(mine, columns, size, inv)
    scratch = flat_of(mine, size)
    one = view(scratch, 1, inv)
    for task in blocks.share(w, workers, first, last):
        i, count, rest = batch(task % batches, inner, size)
        j0 = task // batches * FINISHED
        j1 = min(j0 + FINISHED, columns)
        for k in range(size):
            there = i + min(k, count - 1)
            m[k], r[k], by[k] = cast(kept[there, KEPT_M], inv), kept[there, KEPT_R], kept[there, KEPT_BY]
        row, to = blocks.row_address(x, xg, i), blocks.row_address(out, og, i)
        finish_long(
            row, xg, columns, j0, j1, count, size, rest, mine, tile, inv, maxima, i, mode, by, to, og,
            streamed,
        )
        for k in range(count):
            spot, own = int(kept[i + k, KEPT_SPOT]), to + k * blocks.neighbour(og)
            if spot == IGNORED:
                blocks.fill(cast(0.0, inv), j0, j1, scratch, own, og, 0)
            elif j0 <= spot < j1:
                one[0] = cast(kept[i + k, KEPT_EXACT], inv)
                put(one, 1, own, og, spot, 0)


# ---- what a kernel calls --------------------------------------------------------------------
@inline
def batch(task: int, inner: int, size: int) -> Any:
    """(first row, rows, rows that follow in the run) of a batch; runs are `inner` rows long."""
    per_run = (inner + size - 1) // size
    at = task % per_run * size
    count = min(size, inner - at)
    return task // per_run * inner + at, count, inner - at - count


@inline
def tile_of(work: int, columns: int, size: int, like: Any) -> Any:
    """(the tile, the exponentials) in a worker's scratch."""
    at = flat_of(work, size) + _flat_length(columns, size) * itemsize(like)
    return at, at + tile_bytes(columns, size, like)


@inline
def is_short(parts: Array) -> bool:
    """Whether a plan is one of short rows, which have no states for segments."""
    return bool(parts.shape[1] == 0)


@inline
def after(at: int, step: int, tile: int, row: int, g: Array, columns: int, size: int, like: Any) -> Any:
    """(address, bytes from column to column) of what comes after a batch of short rows that `fetch` has
    brought, to be asked for; or the batch itself, which costs nothing to ask for.
    """
    b = itemsize(like)
    if at != tile:
        return at + NEAR * b, step
    if g[DIRECT] and lies_flat(g, columns):
        return row + size * columns * b, size * b
    return at, size * b


@leaf
def walk(
    row: int, g: Array, columns: int, count: int, size: int, short: bool, rest: int, work: int, inv: Any,
    maxima: Array, first: int, parts: Array, alone: bool,
) -> Any:
    """M and R of the rows of a batch; (address, step) of its tile where rows are short and these are not
    wanted `alone`, else the step may be 0; of longer ones that lie side by side, in `maxima`, what each block
    saw.
    """
    outlined()
    tile, e = tile_of(work, columns, size, inv)
    if (alone or not short) and SHORTER < columns <= BLOCK and g[DIRECT]:
        walk_blocks(
            row, neighbour(g), g, columns, count, whole(work, M, size, inv), whole(work, R, size, 0.0), tile,
            inv,
        )
        return tile, 0
    if not short:
        walk_long(row, g, columns, count, size, rest, work, tile, inv, maxima, first, parts)
        return tile, 0
    much = size * columns
    at, step = fetch(
        row, g, columns, 0, columns, count, size, rest, 2 * much if columns == 2 else 0, tile, work, inv
    )
    # Of two columns it is asked for where it is fetched.
    following, following_step = after(at, step, tile, row, g, columns, size, inv)
    walk_short(at, step, columns, size, work, e, following, following_step, inv)
    return at, step


@inline
def probability_factor(m: Any, r: float, by: float, inv: Any) -> Any:
    """`by` / s, what exponentials of a row are multiplied by."""
    return cast(1.0 / rows.mass(LOGITS, np.float64(m), r) * by, inv)


@leaf
def probability_factors(m: Array, r: Array, by: Array, factor: Array, inv: Any) -> None:
    """`probability_factor` of LANES rows."""
    wide()
    for k in range(LANES):
        factor[k] = probability_factor(m[k], r[k], by[k], inv)


@leaf
def logarithms(r: Array, factor: Array, inv: Any) -> None:
    """factor = log s."""
    wide()
    for k in range(LANES):
        factor[k] = cast(log1p(r[k]), inv)


@leaf
def make_short(
    at: int, step: int, columns: int, size: int, work: int, inv: Any, mode: int, by: int
) -> int:
    """A tile of results for short rows: by `rows.SCALE`, slot `by` times the softmax; by `rows.LOG` its
    logarithm.
    """
    outlined()
    tile, e = tile_of(work, columns, size, inv)
    b = itemsize(inv)
    for k in range(0, size, LANES):
        m, r = slot(work, M, size, k, inv), slot(work, R, size, k, 0.0)
        factor = slot(work, FACTOR, size, k, inv)
        if mode == rows.LOG:
            logarithms(r, factor, inv)
            shift_across(at + k * b, step, columns, 0, m, inv, factor, tile + k * b, size * b, 0, 0)
        else:
            probability_factors(m, r, slot(work, by, size, k, 0.0), factor, inv)
            scale_across(e + k * b, size * b, columns, factor, tile + k * b, size * b)
    return int(tile)


@leaf
def sums_across(loss: Array, i: int, count: int, group: int, sums: Array) -> None:
    """The sums of the groups of `count` losses of a batch, from row i on: of each, row k belongs to partial
    sum k mod LANES, and those fold by halves.
    """
    wide()
    for k in range(0, count, group):
        total = lanes(loss[0])
        for q in range(k, min(k + group, loss.size), LANES):
            added(total, part(loss, q), total)
        sums[(i + k) // group] = fold(total)


# ---- the plan of a call ---------------------------------------------------------------------
# Columns up to which LANES rows are short enough to wait for when Ctrl-C comes; of a wide batch there are
# twice as many numbers.
LONGEST = launch.LAUNCH // LANES


def _scratch(
    workers: int, columns: int, size: int, tiles: int, dtype: np.dtype[Any], more: int
) -> Scratch:
    """Memory for batches of `size` rows, with so many tiles, and `more` bytes."""
    numbers = flat_length(columns, size) + tiles * tile_length(columns, size)
    return Scratch(workers, (SLOTS * size + LANES * LANES) * 8 + 64 + numbers * dtype.itemsize + more)


class Plan:
    """Who does what in one call, and the scratch for it: per worker the tiles of a batch, and where rows
    are not short a number for each block and STATE for each segment of their rows. For `products` of short
    rows so many tiles more, and LANES rows of float64 for each of them and once more. With `results` of rows
    longer than a block, KEPT numbers a row, and one for each of its blocks. With `pieces`, batches of long
    pieces of columns.
    """

    def __init__(
        self, n: int, columns: int, inner: int, rate: float, dtype: np.dtype[Any], products: int = 0,
        results: bool = False, short: bool = True, pieces: bool = False,
    ) -> None:
        self._type = dtype.char
        # Rows whose losses kernels sum; no groups where a run ends within one. Rows that are not short are
        # long enough for groups of LANES.
        self.group = group_size(columns * dtype.itemsize) if short else LANES
        self.groups = -(-n // self.group) if n == inner or inner % self.group == 0 else 0
        size = batch_size(columns * dtype.itemsize, BATCH_OF_MORE if products else BATCH)
        if short and pieces:
            each = -(-n // (4 * LANES * threads.count())) * 4 * LANES  # so that there is a batch for everyone
            size = min(batch_size_beside(columns * dtype.itemsize), each)
        if not short:
            each = -(-inner // (LANES * threads.count()))  # likewise
            size = min(WIDTH // dtype.itemsize, max(1, 2 * LONGEST // columns) * LANES, each * LANES)
        size = min(size, -(-inner // LANES) * LANES)
        self.batches = n // inner * -(-inner // size)
        self._size = size * columns
        self._workers = launch.workers(n * columns, self.batches)
        blocks_, segments_ = (1, 1) if short else (-(-columns // BLOCK), -(-columns // SEGMENT))
        # Of products the exponentials, and rows that are made again.
        more = columns * (LANES * 8 * (products + (products > 0)) + WAITS * max(short, products))
        self._work = _scratch(self._workers, columns, size, 1 + short + products, dtype, more)
        many = self._workers, blocks_
        kept, maxima = np.empty((0, KEPT)), apart(blocks_ * self._workers, size, dtype).reshape(*many, size)
        self._later = results and (columns > BLOCK or launch.is_listing())
        if self._later:
            wide = min(FINISHED_WIDTH // dtype.itemsize, max(1, inner // LANES) * LANES)
            batches = n // inner * -(-inner // wide)
            self._finished = batches * -(-columns // FINISHED), wide * FINISHED
            self._finishers = launch.workers(n * columns, self._finished[0])
            self._room = _scratch(self._finishers, columns, wide, 1, dtype, 0)
            # Vectors of maxima may end beyond the last row.
            kept, maxima = np.empty((n, KEPT)), apart(blocks_, n + wide, dtype)[np.newaxis]
            self._finish = Arguments((
                columns, inner, wide, self._room.address, self._room.stride, rate, maxima[0], batches, kept
            ))
        states = 0 if short else size * segments_
        self._args = Arguments((
            columns, inner, size, self._work.address, self._work.stride, rate, maxima,
            apart(self._workers, states * rows.STATE, F64).reshape(self._workers, states, rows.STATE), kept,
        ))

    def run(self, kernel: Kernel, *args: Any) -> None:
        launch.run(kernel, self._workers, self._type, self.batches, self._size, args, self._args)

    def remember(
        self, key: tuple[Any, ...], kernel: Kernel, args: tuple[Any, ...], shape: tuple[int, ...], alive: Any
    ) -> None:
        """As `rows.Plan.remember`, a call that is not finished elsewhere."""
        if not self._later and self.batches * self._size <= launch.LAUNCH and self._work.stride <= rows.HELD:
            remember(
                key, kernel, self._type, self._workers, (self.batches, self._size), [args], self._args, 0,
                shape, (self, alive),
            )

    def finish(self, x: int, xg_at: int, mode: int, out: int, og_at: int, streamed: int) -> None:
        """Results of rows that `run` has walked, where it has not made them."""
        if self._later:
            launch.run(
                finish_across, self._finishers, self._type, *self._finished,
                (x, xg_at, mode, out, og_at, streamed), self._finish,
            )


def in_pieces(x: Layout) -> bool:
    """Whether columns come in long pieces."""
    return x.beside and x.rows * x.columns >= FAR


def plan_of(
    x: Layout, out: Layout | None, rate: float, dtype: np.dtype[Any], *, short: bool = False
) -> Plan | None:
    """A plan where rows are short (if `short`, there alone), or lie nearer to each other than their own
    elements do; or are many, of a block at most, or of a single column, and only a number each is wanted, not
    `out`.
    """
    inner = x.run if out is None else min(x.run, out.run)
    most = SHORTER
    many = not launch.is_small(x.rows * x.columns, x.rows)
    filled = inner % LANES == 0 or inner >= 8 * LANES  # a run's last batch costs what a whole one does
    alike = out is None or out.beside or (x.flat and out.flat)
    if many and filled and alike and (x.flat or x.beside):
        most = SHORT * 4 // dtype.itemsize
    are_short = 1 < x.columns <= most
    summed = many and out is None and x.direct and x.columns <= BLOCK
    longer = summed or (x.beside and x.columns <= LONGEST)
    if inner < LANES or not (are_short or (longer and not short)):
        return None
    return Plan(
        x.rows, x.columns, inner, rate, dtype, results=out is not None, short=are_short,
        pieces=in_pieces(x),
    )


def summed(losses: Array, row: int) -> float:
    """What kernels make of losses by groups, from the losses; of rows of so many bytes."""
    if losses.size == 1:
        return float(losses[0])
    group = group_size(row)
    many = losses.size // group * group
    totals = losses[:many].reshape(-1, group // LANES, LANES).sum(axis=1)
    if many < losses.size:
        rest = np.zeros(group)
        rest[: losses.size - many] = losses[many:]
        totals = np.concatenate([totals, rest.reshape(1, -1, LANES).sum(axis=1)])
    while totals.shape[1] > 1:
        totals = totals[:, : totals.shape[1] // 2] + totals[:, totals.shape[1] // 2 :]
    return float(totals.sum())
