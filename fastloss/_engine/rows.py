"""The online walk of a row, shared by every softmax-like family.

A row is cut by its length alone: into segments of SEGMENT columns, each into blocks of BLOCK that
fit L1. Within a segment the walk keeps a `State`; segments merge in order, in float64. So a row's bits do
not depend on the other rows, on the threads, or on who walks which segment: a row is one task, or,
where rows are few and long, each of its segments is (phase WALK, then FINISH).

`finish` writes a row of results from exponentials that the walk kept in L2 scratch, or, where the
row is longer than that (or was walked by several workers), from exponentials made again from the
logits and the maximum each block saw: the same numbers, bit for bit.

An array argument is an address and a geometry (`arrays.Layout`). What is contiguous, native and of
the compute type is read where it lies; all else is loaded block by block into scratch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastloss._engine import arrays, launch
from fastloss._engine.arrays import (
    CODE,
    CODES,
    DIRECT,
    RANK,
    STRIDE,
    SWAP,
    Array,
)
from fastloss._engine.jit import Kernel, inline, leaf
from fastloss._engine.vector import (
    LANES,
    bits,
    byteswap,
    cast,
    exp,
    exp_nonpositive,
    fma,
    fold,
    from_bits,
    itemsize,
    lanes,
    maximum,
    outlined,
    part,
    peek,
    poke,
    prefetch,
    store,
    stream,
    view,
    wide,
)

BLOCK = 1024  # elements of a block: two of them and their exponentials stay in L1
SEGMENT = 32 * BLOCK  # columns that one (m, s) walks
AHEAD = 2 * BLOCK  # elements between the exponentials and the prefetch: hides DRAM behind them

# What a task is: a row; or a segment of a row, first walked, then finished.
WHOLE, WALK, FINISH = 0, 1, 2
# What a row holds.
LOGITS, PROBS, LOG_PROBS = 0, 1, 2
# What walks beside it: nothing; tangents t, for u = sum(e (t - c)) and v = sum(t); class weights w,
# for u = sum(w (m - x)) and v = sum(w).
ALONE, TANGENTS, WEIGHTS = 0, 1, 2
# What `finish` writes, with p = softmax and d = (t - hi) - lo: b p; p (a d + b) + g d; log p;
# b p (1 - p).
SCALE, AFFINE, LOG, CURVE = 0, 1, 2, 3
# What the walk keeps of a segment, and a row. M: the running maximum m. R: the sum of exponentials
# below it but one element at the maximum, so that 1 - p and log(1 + r) keep their digits where one
# probability is nearly 1. U, V: the sums over the companion. C: the tangent at the maximum, where u
# has its origin, so that <p, t> = c + u/s and t - <p, t> keep theirs. PEAK: the maximum's column
# (M, R hold for logits alone; C, PEAK with tangents alone.)
M, R, U, V, C, PEAK, STATE = 0, 1, 2, 3, 4, 5, 6

# Parts of a worker's scratch.
X_BLOCK, T_BLOCK, O_BLOCK, E = 0, 1, 2, 3

_F4, _F8, _I1, _I2, _I4, _I8, _U1, _U2, _U4, _U8, _B1 = (
    CODES[name] for name in ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
)
_i1, _i2, _i4, _i8 = np.int8(0), np.int16(0), np.int32(0), np.int64(0)
_u1, _u2, _u4, _u8 = np.uint8(0), np.uint16(0), np.uint32(0), np.uint64(0)


# ---- geometry and blocks --------------------------------------------------------------------
@leaf
def row_address(base: int, g: Array, i: int) -> Any:
    """The address of the first element of row i."""
    outlined()
    rank = g[RANK]
    for d in range(rank - 1, 0, -1):
        n = g[RANK + 1 + d]
        base += (i % n) * g[RANK + 1 + rank + d]
        i //= n
    return base + i * g[RANK + 1 + rank]


@leaf
def load(address: int, g: Array, n: int, to: Array) -> None:
    """to[:n] = n elements of a row, whatever their type, stride, alignment and byte order."""
    outlined()
    step, code, swap = g[STRIDE], g[CODE], g[SWAP] != 0
    if g[DIRECT]:
        lying = view(address, n, to[0])
        for j in range(n):
            to[j] = lying[j]
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


@leaf
def load_padded(address: int, g: Array, n: int, fill: Any, scratch: int) -> None:
    wide()
    to = view(scratch, padded(n), fill)
    load(address, g, n, to)
    pad(to, n, fill)


@leaf
def pad(x: Array, first: int, fill: Any) -> None:
    """x[first:] = fill."""
    wide()
    for k in range(first, x.size):
        x[k] = fill


@inline
def padded(n: int) -> int:
    return (n + LANES - 1) // LANES * LANES


@leaf
def element(row: int, g: Array, j: int, scratch: int, like: Any) -> Any:
    """Element j of a row."""
    outlined()
    to = view(scratch, 1, like)
    load(row + j * g[STRIDE], g, 1, to)
    return to[0]


@leaf
def put(results: Array, n: int, row: int, g: Array, j: int, streamed: int) -> None:
    """Write n results to a row of an output, from its column j on."""
    wide()
    address, step, swap = row + j * g[STRIDE], g[STRIDE], g[SWAP] != 0
    if not g[DIRECT]:
        for k in range(n):
            i = bits(results[k])
            poke(address + k * step, byteswap(i) if swap else i)
        return
    lying = view(address, n, results[0])
    first = 0
    last = 0
    if streamed:
        # The lines that lie wholly within the block go past the cache, its ragged ends through it.
        first = min(n, (-address & 63) // step)
        last = first + (n - first) * step // 64 * (64 // step)
        stream(view(results.ctypes.data + first * step, n - first, results[0]),
               address + first * step, (last - first) * step // 64)
    for k in range(first):
        lying[k] = results[k]
    for k in range(last, n):
        lying[k] = results[k]


# ---- leaves: one vectorised loop each -------------------------------------------------------
@leaf
def block_max(x: Array) -> Any:
    """The largest element, NaN if any is."""
    wide()
    m = x[0]
    for j in range(x.size):
        m = maximum(m, x[j])
    return m


@leaf
def exp_sum(x: Array, m: Any, inv: Any, e: Array) -> Any:
    """e = exp((x - m) inv); the sum of e."""
    wide()
    total = lanes(m)
    for j in range(0, x.size, LANES):
        prefetch(x, j + AHEAD)
        q = part(x, j)
        v = lanes(m)
        for k in range(LANES):
            v[k] = exp_nonpositive((q[k] - m) * inv)
            total[k] += v[k]
        store(v, part(e, j))
    return fold(total)


@leaf
def exp_sum_peak(x: Array, m: Any, inv: Any, e: Array) -> Any:
    """e = exp((x - m) inv) with m the largest of x; the sum of e but for one element at m."""
    wide()
    total, ties = lanes(m), lanes(m)
    one, zero = cast(1.0, m), cast(0.0, m)
    for j in range(0, x.size, LANES):
        prefetch(x, j + AHEAD)
        q = part(x, j)
        v = lanes(m)
        for k in range(LANES):
            v[k] = exp_nonpositive((q[k] - m) * inv)
            total[k] += zero if q[k] == m else v[k]
            ties[k] += one if q[k] == m else zero
        store(v, part(e, j))
    return fold(total) + (fold(ties) - one)


@leaf
def index_of(x: Array, value: Any) -> int:
    """The first index of a value, 0 where there is none."""
    wide()
    n = np.int32(x.size)
    first = n
    for j in range(n):
        first = min(first, np.int32(j) if x[j] == value else n)
    return int(first if first < n else 0)


@leaf
def copy(x: Array, e: Array) -> Any:
    """e = x; the sum of e."""
    wide()
    total = lanes(x[0])
    for j in range(0, x.size, LANES):
        q = part(x, j)
        v = lanes(x[0])
        for k in range(LANES):
            v[k] = q[k]
            total[k] += q[k]
        store(v, part(e, j))
    return fold(total)


@leaf
def exp_each(x: Array, e: Array) -> Any:
    """e = exp(x); the sum of e."""
    wide()
    total = lanes(x[0])
    for j in range(0, x.size, LANES):
        q = part(x, j)
        v = lanes(x[0])
        for k in range(LANES):
            v[k] = exp(q[k])
            total[k] += v[k]
        store(v, part(e, j))
    return fold(total)


@leaf
def dot_sum(e: Array, t: Array, c: Any) -> Any:
    """The sums of e (t - c) and of t."""
    wide()
    dot, total = lanes(e[0]), lanes(e[0])
    for j in range(0, e.size, LANES):
        left, right = part(e, j), part(t, j)
        for k in range(LANES):
            dot[k] = fma(left[k], right[k] - c, dot[k])
            total[k] += right[k]
    return fold(dot), fold(total)


@leaf
def weigh(x: Array, m: Any, w: Array) -> Any:
    """The sums of w (m - x) and of w."""
    wide()
    short, total = lanes(m), lanes(m)
    for j in range(0, x.size, LANES):
        left, right = part(x, j), part(w, j)
        for k in range(LANES):
            short[k] = fma(right[k], m - left[k], short[k])
            total[k] += right[k]
    return fold(short), fold(total)


@leaf
def scale(e: Array, c: Any, o: Array) -> None:
    """o = c e."""
    wide()
    for j in range(0, e.size, LANES):
        q = part(e, j)
        v = lanes(c)
        for k in range(LANES):
            v[k] = q[k] * c
        store(v, part(o, j))


@leaf
def affine(
    e: Array, c: Any, t: Array, hi: Any, lo: Any, a: Any, b: Any, g: Any, o: Array
) -> None:
    """o = p (a d + b) + g d with p = c e and d = (t - hi) - lo."""
    wide()
    for j in range(0, e.size, LANES):
        left, right = part(e, j), part(t, j)
        v = lanes(c)
        for k in range(LANES):
            d = (right[k] - hi) - lo
            v[k] = fma(left[k] * c, fma(a, d, b), g * d)
        store(v, part(o, j))


@leaf
def shift(x: Array, m: Any, inv: Any, log_s: Any, o: Array) -> None:
    """o = (x - m) inv - log s."""
    wide()
    for j in range(0, x.size, LANES):
        q = part(x, j)
        v = lanes(m)
        for k in range(LANES):
            v[k] = (q[k] - m) * inv - log_s
        store(v, part(o, j))


@leaf
def curve(e: Array, c: Any, b: Any, rest: Any, o: Array) -> None:
    """o = b p (1 - p) with p = c e; 1 - p is `rest` for the one p that may be above a half."""
    wide()
    one = cast(1.0, c)
    for j in range(0, e.size, LANES):
        q = part(e, j)
        v = lanes(c)
        for k in range(LANES):
            p = q[k] * c
            v[k] = b * (p * (rest if p + p > one else one - p))
        store(v, part(o, j))


@inline
def exponentials(x: Array, holds: int, m: Any, inv: Any, e: Array) -> Any:
    """e from a block of a row under its running maximum; the sum of e."""
    if holds == LOGITS and m != -np.inf:
        return exp_sum(x, m, inv, e)
    if holds == LOG_PROBS:
        return exp_each(x, e)
    if holds == PROBS:
        return copy(x, e)
    pad(e, 0, cast(0.0, inv))  # nothing but -inf so far: (-inf) - (-inf) must not be formed
    return cast(0.0, inv)


# ---- the walk -------------------------------------------------------------------------------
@leaf
def segments(columns: int) -> int:
    return (columns + SEGMENT - 1) // SEGMENT


@inline
def buffer(work: int, which: int, like: Any) -> Any:
    """A worker's scratch: X_BLOCK, T_BLOCK and O_BLOCK for what is loaded and stored; then E."""
    return work + which * BLOCK * itemsize(like)


@inline
def kept(e: int, keep: int, j: int, n: int, like: Any) -> Any:
    """Where the exponentials of the block at column j lie: in the row's scratch, or in a block's."""
    return view(e + (j * itemsize(like) if keep else 0), padded(n), like)


@leaf
def task_of(task: int, phase: int, count: int) -> Any:
    """(row, first segment, last segment + 1) of a task."""
    if phase == WHOLE:
        return task, 0, count
    return task // count, task % count, task % count + 1


@inline
def mass(holds: int, m: float, r: float) -> float:
    """The sum of exponentials below m; or of probabilities, where the row holds them."""
    if holds != LOGITS:
        return r
    return 0.0 if m == -np.inf else 1.0 + r


@leaf
def walk(
    row: int, g: Array, j0: int, j1: int, holds: int, inv: Any,
    other: int, og: Array, companion: int, keep: int, work: int, maxima: Array, state: Array,
) -> None:
    """The state of one segment, columns j0 to j1 - 1; maxima[b] = the m that block b saw."""
    outlined()
    fill = cast(0.0 if holds == PROBS else -np.inf, inv)
    zero = cast(0.0, inv)
    x_block, t_block, e = (
        buffer(work, X_BLOCK, inv), buffer(work, T_BLOCK, inv), buffer(work, E, inv)
    )
    m, c = cast(-np.inf, inv), zero
    r = u = v = 0.0
    peak = 0
    for j in range(j0, j1, BLOCK):
        n = min(BLOCK, j1 - j)
        x = block(row, g, j, n, fill, x_block)
        exps = kept(e, keep, j, n, inv)
        old = m
        m = maximum(m, block_max(x))
        maxima[j // BLOCK] = m
        s = mass(holds, old, r)  # up to here, below `old`
        if holds == LOGITS and m != old:  # larger, or NaN
            factor = math.exp(np.float64((old - m) * inv))
            s *= factor
            if companion == TANGENTS:
                u *= factor
            r = s + exp_sum_peak(x, m, inv, exps)
            if m == np.inf:
                r = np.nan
        else:
            r += exponentials(x, holds, m, inv, exps)
        # 1 + r = sum(exp((x[:j+n] - m) inv)), unless m is -inf
        if companion == TANGENTS:
            t = block(other, og, j, n, zero, t_block)
            if m != old:
                at = index_of(x, m)
                u += (np.float64(c) - np.float64(t[at])) * s
                c = t[at]
                peak = j + at
            du, dv = dot_sum(exps, t, c)
            u += du
            v += dv
        elif companion == WEIGHTS:
            # u = sum(w[:j] (m - x[:j])), measured from 0 while m is -inf
            if m != old:
                u += (np.float64(m) - (0.0 if old == -np.inf else np.float64(old))) * v
            top = zero if m == -np.inf else m
            pad(x, n, top)  # 0 (m - (-inf)) would be NaN there
            du, dv = weigh(x, top, block(other, og, j, n, zero, t_block))
            u += du
            v += dv
    state[M], state[R], state[U], state[V], state[C], state[PEAK] = m, r, u, v, c, peak


@leaf
def walk_segments(
    row: int, g: Array, columns: int, k0: int, k1: int, holds: int, inv: Any,
    other: int, og: Array, companion: int, keep: int, work: int, maxima: Array,
    parts: Array, first: int,
) -> None:
    """parts[first + k] = the state of segment k, for k0 <= k < k1."""
    outlined()
    for k in range(k0, k1):
        walk(
            row, g, k * SEGMENT, min((k + 1) * SEGMENT, columns), holds, inv,
            other, og, companion, keep, work, maxima, parts[first + k],
        )


@leaf
def merged(parts: Array, first: int, count: int, holds: int, companion: int, inv: Any) -> Any:
    """(m, r, u, v, c, peak) of a row from the states of its segments, in their order."""
    outlined()
    top = first
    m = parts[first, M]
    for k in range(first + 1, first + count):
        if parts[k, M] > m:
            top = k
        m = maximum(m, parts[k, M])
    c = parts[top, C]
    r = u = v = 0.0
    for k in range(first, first + count):
        mk, rk, uk, vk = parts[k, M], parts[k, R], parts[k, U], parts[k, V]
        sk = mass(holds, mk, rk)
        factor = 0.0 if mk == -np.inf else math.exp((mk - m) * np.float64(inv))
        if holds != LOGITS:
            factor = 1.0
        r += rk if k == top else sk * factor
        if companion == TANGENTS:
            u += (uk + (parts[k, C] - c) * sk) * factor
        elif companion == WEIGHTS:
            u += uk + (m - (0.0 if mk == -np.inf else mk)) * vk
        v += vk
    return m, r, u, v, c, int(parts[top, PEAK])


@inline
def unlikely(holds: int, m: float, r: float) -> float:
    """1 - p of the maximum, with all its digits."""
    if holds == LOGITS:
        return r / mass(holds, m, r)
    return -math.expm1(m) if holds == LOG_PROBS else 1.0 - m


@leaf
def finish(
    row: int, g: Array, j0: int, j1: int, holds: int, inv: Any,
    other: int, og: Array, keep: int, work: int, maxima: Array, m: float, r: float,
    mode: int, hi: Any, lo: Any, a: Any, b: Any, gt: Any, spot: int, exact: Any,
    out: int, outg: Array, streamed: int,
) -> None:
    """Write columns j0 to j1 - 1 of a row of results by `mode`, but `exact` at column `spot`."""
    outlined()
    fill = cast(0.0 if holds == PROBS else -np.inf, inv)
    zero = cast(0.0, inv)
    x_block, t_block, o_block, e = (
        buffer(work, X_BLOCK, inv), buffer(work, T_BLOCK, inv),
        buffer(work, O_BLOCK, inv), buffer(work, E, inv),
    )
    s = mass(holds, m, r)
    top, log_s, rest = cast(m, inv), cast(math.log1p(r), inv), cast(r / s, inv)
    seen = cast(np.inf, inv)
    p_of_e = zero
    for j in range(j0, j1, BLOCK):
        n = min(BLOCK, j1 - j)
        in_place = outg[DIRECT] and n % LANES == 0 and not streamed
        o = view(out + j * outg[STRIDE] if in_place else o_block, padded(n), inv)
        if mode == LOG:
            shift(block(row, g, j, n, fill, x_block), top, inv, log_s, o)
        else:
            exps = kept(e, keep, j, n, inv)
            mj = maxima[j // BLOCK] if holds == LOGITS else zero
            if not keep:
                exponentials(block(row, g, j, n, fill, x_block), holds, mj, inv, exps)
            # p = exps * exp((mj - m) inv) / s
            if mj != seen:
                seen = mj
                c = 1.0
                if holds == LOGITS:
                    c = math.exp((np.float64(mj) - m) * np.float64(inv)) / s
                p_of_e = cast(c * np.float64(b) if mode == SCALE else c, inv)
            if mode == SCALE:
                scale(exps, p_of_e, o)
            elif mode == AFFINE:
                affine(exps, p_of_e, block(other, og, j, n, zero, t_block), hi, lo, a, b, gt, o)
            else:
                curve(exps, p_of_e, b, rest, o)
        if j <= spot < j + n:
            o[spot - j] = exact
        if not in_place:
            put(o, n, out, outg, j, streamed)


@leaf
def fill(value: Any, j0: int, j1: int, work: int, out: int, g: Array) -> None:
    """Write one value to columns j0 to j1 - 1 of a row of an output."""
    outlined()
    results = view(buffer(work, O_BLOCK, value), BLOCK, value)
    pad(results, 0, value)
    for j in range(j0, j1, BLOCK):
        put(results, min(BLOCK, j1 - j), out, g, j, 0)


# ---- the plan of a call ---------------------------------------------------------------------
KEPT = 4 << 20  # bytes of a row's exponentials that a worker keeps at most
STREAMED = 32 << 20  # bytes of results from which they bypass the cache


class Scratch:
    """Memory for each worker, every part on a cache line of its own."""

    def __init__(self, workers: int, size: int) -> None:
        self.stride = -(-size // 64) * 64
        self._memory = np.empty(workers * self.stride + 64, np.uint8)
        self.address = -(-arrays.address(self._memory) // 64) * 64


class Plan:
    """Who does what in one call, and the scratch for it: per worker three blocks and at most KEPT
    bytes of exponentials, per segment STATE numbers, per block its maximum.
    """

    def __init__(self, n: int, columns: int, scalar: Any, exponentials: bool) -> None:
        self._scalar = scalar
        count = -(-columns // SEGMENT)
        few = count > 1 and n < 4 * launch.threads()
        self._workers = launch.workers(n * columns, n * count if few else n)
        split = few and self._workers > 1
        self._phases = (WALK, FINISH) if split else (WHOLE,)
        padded = -(-columns // LANES) * LANES
        keep = exponentials and not split and padded * scalar.itemsize <= KEPT
        size = (3 * BLOCK + (padded if keep else BLOCK)) * scalar.itemsize
        self._scratch = Scratch(self._workers, size)
        slots = n if split else self._workers
        maxima = np.empty((slots, -(-columns // BLOCK)), scalar.dtype)
        parts = np.empty((slots * count, STATE))
        self._args = (
            n, columns, self._scratch.address, self._scratch.stride, int(keep), maxima, parts, scalar
        )

    def run(self, kernel: Kernel, *args: Any) -> None:
        for phase in self._phases:
            launch.run(kernel, self._workers, self._scalar, phase, *self._args, *args)


def reciprocal(inverse: float, dtype: np.dtype[Any]) -> Any:
    """1/temperature in the compute type, kept finite and normal: 0 * inf and inf * 0 must not be."""
    limits = np.finfo(dtype)
    return dtype.type(min(max(inverse, float(limits.tiny)), float(limits.max)))


def streamed(out: Array | None, target: Array, x: Array) -> int:
    """1 where results bypass the cache: large ones, to memory that the caller has used before.

    On new memory an ordinary store is faster, since the page fault brings the line in anyway, and
    in place the line is there already.
    """
    return int(out is not None and target.nbytes >= STREAMED and target is not x)
