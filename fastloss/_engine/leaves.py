"""Leaves: one vectorised loop each, over a block in L1 of a multiple of LANES elements.

The compute type is that of the arrays. Sums are by lanes, folded by `vector.fold`. What lies `ahead`
elements on is fetched meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss._engine.arrays import Array
from fastloss._engine.elementary import exp, exp_nonpositive, two_sum
from fastloss._engine.jit import inline, leaf
from fastloss._engine.vector import (
    LANES,
    added,
    added_but,
    cast,
    fma,
    fold,
    fold_max,
    itemsize,
    lanes,
    lower,
    lowered,
    many_registers,
    part,
    prefetch,
    raise_lanes,
    raised,
    raised_to_size,
    scaled,
    store,
    stream,
    top_of,
    view,
    wide,
)

# What a row holds.
LOGITS, PROBS, LOG_PROBS = 0, 1, 2


@inline
def piece(x: Array, j: int, tail: int) -> Array:
    """Elements j to j + LANES - 1 of x; where x ends before that, what lies at `tail`."""
    b = itemsize(x[0])
    found: Array = view(x.ctypes.data + j * b if j + LANES <= x.size else tail, LANES, x[0])
    return found


@leaf
def block_max(x: Array, tail: int) -> Any:
    """The largest element, NaN if any is; a zero is +0. What of x fills no lanes lies padded at `tail`."""
    wide()
    m, odd = lanes(x[0]), 0
    lower(m)
    for j in range(0, x.size, LANES):
        odd = raise_lanes(m, piece(x, j, tail), odd)
    return top_of(m, odd)


@leaf
def exp_sum(x: Array, tail: int, m: Any, inv: Any, e: Array, ahead: int, following: int) -> Any:
    """e = exp((x - m) inv); the sum of e, and with `many_registers` what `block_max` says of as many numbers
    at `following`, if that is not 0 (they fill lanes, and so does x then): they are fetched while there is
    arithmetic to do. What of x fills no lanes lies padded at `tail`.
    """
    wide()
    total, top, odd = lanes(m), lanes(m), 0
    lower(top)
    # LLVM makes a loop for each of these, and leaves out what it need not do.
    unit, watched = inv == cast(1.0, inv), many_registers() and following != 0
    after = view(following, x.size, m)
    for j in range(0, x.size, LANES):
        prefetch(x, j + ahead)
        q = piece(x, j, tail)
        v = lanes(m)
        for k in range(LANES):
            d = q[k] - m
            v[k] = exp_nonpositive(d if unit else d * inv)
            total[k] += v[k]
        store(v, part(e, j))
        if watched:
            odd = raise_lanes(top, part(after, j), odd)
    return fold(total), top_of(top, odd)


@leaf
def exp_sum_peak(
    x: Array, tail: int, m: Any, inv: Any, e: Array, ahead: int, following: int, following_tail: int
) -> Any:
    """`exp_sum` with m the largest of x, but for one element at m. What follows may have a tail as x has."""
    wide()
    total, top, odd = lanes(m), lanes(m), 0
    lower(top)
    ties = 0
    unit, watched = inv == cast(1.0, inv), many_registers() and following != 0
    after = view(following, x.size, m)
    for j in range(0, x.size, LANES):
        prefetch(x, j + ahead)
        q = piece(x, j, tail)
        v = lanes(m)
        for k in range(LANES):
            d = q[k] - m
            v[k] = exp_nonpositive(d if unit else d * inv)
        ties += added_but(total, v, q, m)
        store(v, part(e, j))
        if watched:
            odd = raise_lanes(top, piece(after, j, following_tail), odd)
    return fold(total) + cast(ties - 1, m), top_of(top, odd)


@leaf
def exp_sum_paying(
    x: Array, m: Any, inv: Any, e: Array, ahead: int, following: int, peak: bool, owed: int, a: Any, b: Any,
    c: Any, to: int, streamed: int,
) -> Any:
    """`exp_sum`, or `exp_sum_peak` where `peak`, of what fills lanes, with something following; and meanwhile
    (y - a) b - c of as many numbers y at `owed`, which are read before e takes their place, to `to`, past the
    cache where `streamed`.

    One loop, since a burst of stores waits for memory while nothing is computed: softmax of 512 x 128,256
    takes 1.15 times the copy, and took 1.22 with a block written before each that was walked.
    """
    wide()
    total, top, odd = lanes(m), lanes(m), 0
    lower(top)
    ties, but = 0, m if peak else cast(np.nan, m)  # which no number equals: a branch would spoil the loop
    unit = inv == cast(1.0, inv)
    after, left, there = view(following, x.size, m), view(owed, x.size, m), view(to, x.size, m)
    for j in range(0, x.size, LANES):
        prefetch(x, j + ahead)
        v = lanes(m)
        lowered(part(left, j), a, v)
        scaled(v, b, v)
        lowered(v, c, v)
        emit(v, there, j, streamed)
        q = part(x, j)
        w = lanes(m)
        for k in range(LANES):
            d = q[k] - m
            w[k] = exp_nonpositive(d if unit else d * inv)
        ties += added_but(total, w, q, but)
        store(w, part(e, j))
        odd = raise_lanes(top, part(after, j), odd)
    s = fold(total)
    return s + cast(ties - 1, m) if peak else s, top_of(top, odd)


@leaf
def index_of(x: Array, value: Any) -> int:
    """The first index of a value, 0 where there is none."""
    wide()
    n = np.int32(x.size)
    first = n
    for j in range(n):
        first = min(first, np.int32(j) if x[j] == value else n)
    return int(first if first < n else 0)


@inline
def fold_pairs(v: Array, low: Array) -> Any:
    """The sum of LANES pairs v + low, rounded once."""
    s, rest = 0.0, fold(low)
    for k in range(LANES):
        s, lost = two_sum(s, v[k])
        rest += lost
    return s + rest if abs(s) < np.inf else s


@inline
def add_lanes(x: Array, total: Array, low: Array) -> None:
    """total += x, LANES numbers in float64; what float64 numbers lose goes to `low`."""
    if itemsize(x[0]) == 4:
        added(total, x, total)
    else:
        for k in range(LANES):
            total[k], lost = two_sum(total[k], np.float64(x[k]))
            low[k] += lost


@inline
def fold_sum(total: Array, low: Array, like: Any) -> Any:
    """The sum of what `add_lanes` added of numbers of a type."""
    return fold(total) if itemsize(like) == 4 else fold_pairs(total, low)


@leaf
def sum_of(x: Array, tail: int, ahead: int) -> Any:
    """The sum of x, in float64, and of float64 to its last digits. What of it fills no lanes lies padded at
    `tail`.
    """
    wide()
    total, low = lanes(1.0), lanes(1.0)
    for j in range(0, x.size, LANES):
        prefetch(x, j + ahead)
        add_lanes(piece(x, j, tail), total, low)
    return fold_sum(total, low, x[0])


@leaf
def exp_each(x: Array, tail: int, e: Array) -> Any:
    """e = exp(x); the sum of e, in float64. What of x fills no lanes lies padded at `tail`."""
    wide()
    total = lanes(1.0)
    for j in range(0, x.size, LANES):
        q = piece(x, j, tail)
        v = lanes(x[0])
        for k in range(LANES):
            v[k] = exp(q[k])
        added(total, v, total)
        store(v, part(e, j))
    return fold(total)


@leaf
def dot_sum(e: Array, e_tail: int, t: Array, t_tail: int, c: Any, ahead: int, t_ahead: int) -> Any:
    """The sums of e (t - c) and of e, in float64 and, of float64, the first to its last digits. What fills no
    lanes lies padded at the tails.
    """
    wide()
    dot, total, dot_low = lanes(1.0), lanes(1.0), lanes(1.0)
    for j in range(0, e.size, LANES):
        prefetch(e, j + ahead)
        prefetch(t, j + t_ahead)
        left, right = piece(e, j, e_tail), piece(t, j, t_tail)
        for k in range(LANES):
            away = np.float64(right[k]) - np.float64(c)
            if itemsize(c) == 8:
                s, lost = two_sum(dot[k], left[k] * away)
                dot[k] = s
                dot_low[k] += lost
            else:
                dot[k] = fma(np.float64(left[k]), away, dot[k])
            total[k] += np.float64(left[k])
    return fold_pairs(dot, dot_low) if itemsize(c) == 8 else fold(dot), fold(total)


@leaf
def weigh(x: Array, m: Any, w: Array, ahead: int, w_ahead: int) -> Any:
    """The sums of w (m - x), no larger than it has to be, and of w: by lanes, and those in float64."""
    wide()
    short, total = lanes(m), lanes(m)
    for j in range(0, x.size, LANES):
        prefetch(x, j + ahead)
        prefetch(w, j + w_ahead)
        left, right = part(x, j), part(w, j)
        for k in range(LANES):
            short[k] = fma(right[k], m - left[k], short[k])
            total[k] += right[k]
    near, far = lanes(1.0), lanes(1.0)
    store(short, near)
    store(total, far)
    return fold(near), fold(far)


@leaf
def own_sum(e: Array, x: Array, m: Any) -> float:
    """The sum of e (x - m), in float64; what is -inf adds nothing."""
    wide()
    total = lanes(1.0)
    for j in range(0, x.size, LANES):
        left, right = part(e, j), part(x, j)
        for k in range(LANES):
            away = 0.0 if right[k] == -np.inf else np.float64(right[k]) - np.float64(m)
            total[k] = fma(np.float64(left[k]), away, total[k])
    return float(fold(total))


@leaf
def blended(t: Array, blend: Array, j: int, o: Array) -> None:
    """o = w (a t + b) from column j on, `blend` being (a, b, w_0, w_1, ...) and as much as t is padded by."""
    wide()
    a, b = blend[0], blend[1]
    w = view(blend.ctypes.data + (2 + j) * itemsize(a), t.size, a)
    for k in range(0, t.size, LANES):
        left, right, v = part(t, k), part(w, k), lanes(a)
        for i in range(LANES):
            v[i] = right[i] * fma(a, left[i], b)
        store(v, part(o, k))


@inline
def emit(v: Array, o: Array, j: int, streamed: int) -> None:
    """o[j : j + LANES] = v; past the cache where `streamed`, to an o that starts on a cache line."""
    size = itemsize(v[0])
    if streamed:
        stream(v, o.ctypes.data + j * size, LANES * size // 64)
    else:
        store(v, part(o, j))


@leaf
def scale(e: Array, c: Any, o: Array) -> None:
    """o = c e."""
    wide()
    for j in range(0, e.size, LANES):
        scaled(part(e, j), c, part(o, j))


@leaf
def affine(
    e: Array, c: Any, t: Array, hi: Any, lo: Any, a: Any, b: Any, g: Any, inv: Any, o: Array,
    streamed: int,
) -> None:
    """o = (p (a d + b) + g d) inv with p = c e and d = (t - hi) - lo."""
    wide()
    for j in range(0, e.size, LANES):
        left, right = part(e, j), part(t, j)
        v = lanes(c)
        for k in range(LANES):
            d = (right[k] - hi) - lo
            p = left[k] * c
            v[k] = fma(p * d, a, fma(p, b, g * d)) * inv
        emit(v, o, j, streamed)


@inline
def leave_out(sizes: Array, first: int, last: int) -> None:
    """sizes[k] = 0 for k < first and k >= last, of LANES numbers."""
    low, high = np.int32(first), np.int32(last)
    for k in range(LANES):
        within = (np.int32(k) >= low) & (np.int32(k) < high)
        sizes[k] = sizes[k] if within else cast(0.0, sizes[0])


@inline
def raise_beside(sizes: Array, j: int, n: int, but: int, top: Array) -> None:
    """top[k] = the larger of it and |sizes[k]|, of columns j to n - 1 without `but`, for LANES numbers."""
    low, high = lanes(top[0]), lanes(top[0])
    store(sizes, low)
    store(sizes, high)
    leave_out(low, 0, min(but, n) - j if but >= j else 0)
    leave_out(high, but + 1 - j, n - j)
    raised_to_size(low, top, top)
    raised_to_size(high, top, top)


@leaf
def forward_watched(
    e: Array, e_tail: int, c: Any, t: Array, t_tail: int, n: int, hi: Any, lo: Any, a: Any, g: Any, inv: Any,
    o: Array, ahead: int,
) -> Any:
    """o = (a p + g) d inv with p = c e and d = (t - hi) - lo, of n numbers; the largest |(a p + g) d| and
    |a p + g|. What fills no lanes lies padded at the tails. None is NaN. More of t is asked for meanwhile.
    """
    wide()
    top, weight = lanes(c), lanes(c)
    for j in range(0, e.size, LANES):
        prefetch(t, j + ahead)
        left, right = piece(e, j, e_tail), piece(t, j, t_tail)
        v, w = lanes(c), lanes(c)
        for k in range(LANES):
            w[k] = fma(left[k] * c, a, g)
            v[k] = w[k] * ((right[k] - hi) - lo)
        each = lanes(c)
        scaled(v, inv, each)
        store(each, part(o, j))
        if j + LANES > n:
            leave_out(v, 0, n - j)
        raised_to_size(v, top, top)
        raised_to_size(w, weight, weight)
    return fold_max(top), fold_max(weight)


@leaf
def reverse_watched(
    e: Array, e_tail: int, c: Any, t: Array, t_tail: int, n: int, b: Any, g: Any, inv: Any, but: int, o: Array
) -> Any:
    """o = (g t + b p) inv with p = c e, likewise; the largest |g t + b p| and |g t| + |b p|, but in column
    `but`.
    """
    wide()
    top, own = lanes(c), lanes(c)
    for j in range(0, e.size, LANES):
        left, right = piece(e, j, e_tail), piece(t, j, t_tail)
        v, size = lanes(c), lanes(c)
        for k in range(LANES):
            p, pull = left[k] * c, g * right[k]
            v[k] = fma(p, b, pull)
            size[k] = fma(p, abs(b), abs(pull))
        each = lanes(c)
        scaled(v, inv, each)
        store(each, part(o, j))
        if j <= but < j + LANES or j + LANES > n:
            raise_beside(v, j, n, but, top)
            raise_beside(size, j, n, but, own)
        else:
            raised_to_size(v, top, top)
            raised(size, own, own)
    return fold_max(top), fold_max(own)


@leaf
def spread(e: Array, e_tail: int, c: Any, t: Array, t_tail: int, hi: Any) -> Any:
    """How wrong the sum of p (t - hi) may be, p = c e, beside the rounding of one term: no more than the sum
    of all magnitudes; and, since roundings are independent of each other, some root of the sum of squares.
    Terms, of float64 too, are rounded 0.6 units rms; one may be off by two units, and this allows for five
    times the rms. Squares that the type does not hold say nothing. The maximum's e, 1, is exact.
    """
    wide()
    moved, sizes, one, zero = lanes(c), lanes(c), cast(1.0, c), cast(0.0, c)
    for j in range(0, e.size, LANES):
        left, right = piece(e, j, e_tail), piece(t, j, t_tail)
        for k in range(LANES):
            term = zero if left[k] == one else left[k] * c * (right[k] - hi)
            moved[k] = fma(term, term, moved[k])
            sizes[k] += abs(term)
    squares, size, least = fold(moved), fold(sizes), cast(1e-36 if itemsize(c) == 4 else 1e-300, c)
    return min(cast(1.6, c) * np.sqrt(squares), size) if least < squares < np.inf else size


@leaf
def shift(x: Array, m: Any, inv: Any, log_s: Any, o: Array, streamed: int) -> None:
    """o = (x - m) inv - log s."""
    wide()
    for j in range(0, x.size, LANES):
        v = lanes(m)
        lowered(part(x, j), m, v)
        scaled(v, inv, v)
        lowered(v, log_s, v)
        emit(v, o, j, streamed)


@leaf
def curve(e: Array, c: Any, b: Any, rest: Any, inv: Any, o: Array, streamed: int) -> None:
    """o = b p (1 - p) inv with p = c e; 1 - p is `rest` for the one p that may be above a half."""
    wide()
    one = cast(1.0, c)
    for j in range(0, e.size, LANES):
        q = part(e, j)
        v = lanes(c)
        for k in range(LANES):
            p = q[k] * c
            v[k] = b * (p * (rest if p + p > one else one - p)) * inv
        emit(v, o, j, streamed)
