"""Twice the digits, for the few sums whose terms cancel: a float64 for a float32; hi + lo for a float64.

A gradient `A p - q` or a product `t - <p, t>` of a short row may be small in every element, and then
what rounding leaves of its terms is large beside it. There `products` makes it again from the logits, on
rows of one block alone: of float32 in float64 vectors, where that has digits enough (`wide_products`);
else in straight scalar code, about twenty times slower than `leaves.affine`.

The arithmetic is that of T. J. Dekker, "A floating-point technique for extending the available
precision", Numerische Mathematik 18, 1971.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastloss._engine import elementary
from fastloss._engine.arrays import Array
from fastloss._engine.elementary import two_sum
from fastloss._engine.jit import inline, leaf
from fastloss._engine.leaves import LOG_PROBS, LOGITS, PROBS
from fastloss._engine.vector import (
    LANES,
    cast,
    exact_fma,
    fold,
    fold_max,
    itemsize,
    lanes,
    lowered,
    outlined,
    part,
    raised,
    raised_to_size,
    scaled,
    store,
    wide,
)

Pair = tuple[float, float]

# How much larger than every result of a row their terms may be: rounding the terms costs up to two units
# of the last place.
CANCELLED = 1.5
# The same of products, whose differences are measured from <p, t>: where terms are three to five times the
# results one row in a million exceeds the excess error allowed, by a tenth at most; below that one in twenty
# million, and of five to six times 25 in a million (of 150 million rows of 2 to 128 float32).
DOUBTFUL = 5.0
# A share of its terms down to which float64 gives a float32 sum all its digits.
LOST = 1e-6
_ZERO = (0.0, 0.0)
_LOG2E = 1.4426950408889634
# ln 2 in three parts; n times the first is exact, |n| < 2**11.
_LN2 = (0.6931471803691238, 1.9082149292705877e-10, 1.1612227229362532e-26)
_LOWEST = -745.2  # exp is 0 from here down
_SIXTH = (1.0 / 6.0, 9.25185853854297e-18)
# 1/k!, k = 4 to 15.
_TAIL = tuple(1.0 / math.factorial(k) for k in range(4, 16))


@inline
def two_product(a: float, b: float) -> Pair:
    p = a * b
    return p, exact_fma(a, b, -p)


@inline
def plus(a: Pair, b: Pair) -> Pair:
    s, e = two_sum(a[0], b[0])
    return two_sum(s, e + (a[1] + b[1]))


@inline
def times(a: Pair, b: Pair) -> Pair:
    p, e = two_product(a[0], b[0])
    return two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))


@inline
def over(a: Pair, b: Pair) -> Pair:
    q = a[0] / b[0]
    p, e = two_product(q, b[0])
    return two_sum(q, ((a[0] - p) - e + a[1] - q * b[1]) / b[0])


@leaf
def exp(x: Pair) -> Pair:
    """exp(x) for x <= 0; its relative error is below 2**-60."""
    outlined()
    if not x[0] > _LOWEST:
        return _ZERO
    n = np.floor(x[0] * _LOG2E + 0.5)
    r, e = two_product(n, -_LN2[1])
    r, low = two_sum(x[0] - n * _LN2[0], r)
    r, low = two_sum(r, low + e + x[1] - n * _LN2[2])
    square = times((r, low), (r, low))
    tail = _TAIL[11]
    for k in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        tail = tail * r + _TAIL[k]
    total = plus((1.0, 0.0), (r, low))
    total = plus(total, (0.5 * square[0], 0.5 * square[1]))
    total = plus(total, times(times(square, (r, low)), _SIXTH))
    total = plus(total, (tail * square[0] * square[0], 0.0))
    return math.ldexp(total[0], int(n)), math.ldexp(total[1], int(n))


@leaf
def mass_of(x: float, holds: int, m: float, temperature: float) -> Pair:
    """p but for the sum over the row: exp((x - m)/T) for a logit x <= m."""
    outlined()
    if holds == PROBS or x == -np.inf:
        return max(x, 0.0), 0.0
    if holds == LOG_PROBS:
        return exp((x, 0.0))
    return exp(over(two_sum(x, -m), (temperature, 0.0)))


@inline
def with_extra(t: Pair, here: bool, extra: Pair) -> Pair:
    return plus(t, extra) if here else t


@leaf
def log_sum(x: Array, m: float, n: int) -> float:
    """log(sum(exp(x)))."""
    outlined()
    s = _ZERO
    for j in range(n):
        s = plus(s, mass_of(np.float64(x[j]), LOGITS, m, 1.0))
    log_s = math.log(s[0])
    off = plus(times(s, exp((-log_s, 0.0))), (-1.0, 0.0))  # log s = log_s + log(1 + off)
    whole = plus((log_s, off[0]), (m, 0.0))
    return whole[0] + whole[1]


@leaf
def mean(x: Array, m: float, t: Array, n: int) -> float:
    """<softmax(x), t>."""
    outlined()
    s, dot = _ZERO, _ZERO
    for j in range(n):
        e = mass_of(np.float64(x[j]), LOGITS, m, 1.0)
        s = plus(s, e)
        dot = plus(dot, times(e, (np.float64(t[j]), 0.0)))
    return over(dot, s)[0]


@leaf
def products(
    x: Array, holds: int, m: float, temperature: float, t: Array, n: int, origin: float,
    forward: bool, a: float, g: float, spot: int, extra: Pair, o: Array,
) -> None:
    """o = (a p + g) (t - <p, t>)/T if `forward`, else g (t - p sum(t))/T, where t has `extra` added in
    column `spot`. If `forward` t is measured from `origin`. Where the result is not finite, o keeps what
    it holds.
    """
    outlined()
    from_ = origin if forward else 0.0
    s, dot, total = _ZERO, _ZERO, _ZERO
    for j in range(n):
        e = mass_of(np.float64(x[j]), holds, m, temperature)
        tj = with_extra(two_sum(np.float64(t[j]), -from_), j == spot, extra)
        s = plus(s, e)
        dot = plus(dot, times(e, tj))
        total = plus(total, tj)
    for j in range(n):
        e = mass_of(np.float64(x[j]), holds, m, temperature)
        tj = with_extra(two_sum(np.float64(t[j]), -from_), j == spot, extra)
        away = dot if forward else times(e, total)
        d = over(plus(times(tj, s), (-away[0], -away[1])), s)[0]
        result = d * (a * (e[0] / s[0]) + g) / temperature
        if abs(result) < np.inf:
            o[j] = result


# A smoothing that no float32 tells from 0, and of which float64 holds the quotients.
LEAST = 1e-250


@inline
def target_extra(w_t: float, smoothing: float, columns: int) -> Any:
    """(1 - eps) V/eps w_t: what the target weighs beyond w_t, in units of eps/V."""
    odds = over(two_sum(1.0, -smoothing), (smoothing, 0.0))
    return times(odds, two_product(np.float64(columns), w_t))


# ---- float32, in float64 --------------------------------------------------------------------
@inline
def wrong(squares: Any, sizes: Any, scale: Any, mid: Any) -> Any:
    """How wrong `mid`, the sum of p (t - c), may be beside the rounding of one term, from the sums of the
    squares and of the sizes of e (t - c), p = e `scale`: see `leaves.spread`.
    """
    least, half = cast(1e-300 if itemsize(squares) == 8 else 1e-30, squares), cast(0.5, squares)
    root = min(cast(1.6, squares) * np.sqrt(squares), sizes) if least < squares < np.inf else sizes
    return root * scale + half * abs(mid)  # the sum of p is rounded, too


@inline
def share_of(s: Any, holds: int) -> Any:
    """1/s; 0 where an output is nothing but 0, or -inf: its mean of t is 0."""
    zero, one = cast(0.0, s), cast(1.0, s)
    return one / s if holds == LOGITS or s != zero else zero


@inline
def rest_of_inverse(rate: float, temperature: float) -> float:
    """What `rate` lacks of 1/temperature, or nothing where it is far off."""
    lacking = -exact_fma(rate, temperature, -1.0)
    return rate * lacking if abs(lacking) < 1e-6 else 0.0


@inline
def in_doubt(top: Any, size: Any, beside: Any, like: Any) -> bool:
    """Whether results, none larger than `top`, made from terms of a `size` in the type of those, have not
    the digits of the type of `like`. Of float32 so are those made again in float64 that are not finite, may
    be subnormal before they are divided by T, or vanish beside what they are shares of.
    """
    if itemsize(top) > itemsize(like):
        return bool(top < LOST * size)
    far = cast(DOUBTFUL, top) * top
    if itemsize(top) == 4:
        tiny, share = cast(1e-30, top), cast(1e30, top) * top
        return not size <= far < np.inf or cast(0.0, top) < top < tiny or share < abs(beside)
    return bool(far < size)


@leaf
def wide_masses(x: Array, holds: int, m: float, rate: float, e: Array) -> None:
    """e = the probabilities of x but for their sum; `rate` is 1/T."""
    wide()
    for j in range(0, x.size, LANES):
        d, q = part(e, j), part(x, j)
        store(q, d)
        if holds == LOGITS:
            for k in range(LANES):
                d[k] = elementary.exp_nonpositive((d[k] - m) * rate)
        elif holds == LOG_PROBS:
            for k in range(LANES):
                d[k] = elementary.exp(d[k])


@leaf
def wide_differences(t: Array, c: float, d: Array) -> None:
    """d = t - c."""
    wide()
    for j in range(0, t.size, LANES):
        lowered(part(t, j), c, part(d, j))


@leaf
def wide_sums(e: Array, d: Array) -> Any:
    """The sums of e, d, e d, (e d)**2 and |e d|."""
    wide()
    s, total, dot, squares, sizes = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
    for j in range(0, e.size, LANES):
        left, right = part(e, j), part(d, j)
        for k in range(LANES):
            term = left[k] * right[k]
            s[k] += left[k]
            total[k] += right[k]
            dot[k] += term
            squares[k] += term * term
            sizes[k] += abs(term)
    return fold(s), fold(total), fold(dot), fold(squares), fold(sizes)


@leaf
def forward(
    e: Array, d: Array, scale: float, mid: float, a: float, g: float, rate: float, o: Array
) -> Any:
    """o = (a p + g) (d - mid) rate with p = e `scale`; the largest of |a p + g| |d - mid|, of |a p + g| |d|
    and of |a p + g|.
    """
    wide()
    top, own, weight = lanes(0.0), lanes(0.0), lanes(0.0)
    for j in range(0, e.size, LANES):
        left, right = part(e, j), part(d, j)
        w, each, size = lanes(0.0), lanes(0.0), lanes(0.0)
        for k in range(LANES):
            w[k] = a * (left[k] * scale) + g
            size[k] = w[k] * right[k]
            each[k] = w[k] * (right[k] - mid)
        raised_to_size(each, top, top)
        raised_to_size(size, own, own)
        raised_to_size(w, weight, weight)
        scaled(each, rate, each)
        store(each, part(o, j))
    return fold_max(top), fold_max(own), fold_max(weight)


@leaf
def reverse(e: Array, t: Array, scale: float, g: float, total: float, rate: float, o: Array) -> Any:
    """o = g (t - p total) rate with p = e `scale`; the largest of |g (t - p total)| and of its terms."""
    wide()
    top, own = lanes(0.0), lanes(0.0)
    for j in range(0, e.size, LANES):
        left, right = part(e, j), part(t, j)
        each, size = lanes(0.0), lanes(0.0)
        for k in range(LANES):
            pull = g * (left[k] * scale * total)
            each[k] = g * right[k] - pull
            size[k] = abs(g * right[k]) + abs(pull)
        raised_to_size(each, top, top)
        raised(size, own, own)
        scaled(each, rate, each)
        store(each, part(o, j))
    return fold_max(top), fold_max(own)


@leaf
def wide_products(
    x: Array, holds: int, m: float, peak: int, rate: float, t: Array, n: int, backward: bool, a: float,
    g: float, spot: int, extra: float, e: Array, d: Array, o: Array,
) -> bool:
    """`products` of n float32, which may lie padded with what has no mass. `peak` is the column of the
    maximum m, whose t is the origin; e and d are scratch. Whether they are in doubt.
    """
    outlined()
    wide_masses(x, holds, m, rate, e)
    c = np.float64(t[peak])
    wide_differences(t, 0.0 if backward else c, d)
    for j in range(n, d.size):
        d[j] = 0.0
    if spot >= 0:
        d[spot] += extra
    if not backward:
        s, _, dot, squares, sizes = wide_sums(e, d)
        scale = share_of(s, holds)
        mid = dot * scale
        if scale == 0.0:
            wide_differences(t, 0.0, d)
        top, own, weight = forward(e, d, scale, mid, a, g, rate, o)
        return in_doubt(top, own + weight * wrong(squares, sizes, scale, mid), 0.0, o[0])
    # Of the maximum t (1 - p) - p (sum(t) - t), since 1 - p has its digits there alone.
    most, c = e[peak], d[peak]
    e[peak], d[peak] = 0.0, 0.0
    rest, others, _, _, _ = wide_sums(e, d)
    scale = share_of(rest + most, holds)
    top, own = reverse(e, d, scale, g, others + c, rate, o)
    left = g * c * (rest * scale if scale != 0.0 else 1.0)
    right = g * others * (most * scale)
    o[peak] = cast((left - right) * rate, o[0])
    return in_doubt(max(top, abs(left - right)), max(own, abs(left) + abs(right)), 0.0, o[0])


@leaf
def wide_mean(x: Array, m: float, peak: int, t: Array, n: int, e: Array, d: Array) -> Any:
    """(`mean` of n float32, which may lie padded with -inf; whether it is in doubt)."""
    outlined()
    wide_masses(x, LOGITS, m, 1.0, e)
    c = np.float64(t[peak])
    wide_differences(t, c, d)
    for j in range(n, d.size):
        d[j] = 0.0
    s, _, dot, squares, sizes = wide_sums(e, d)
    mid = dot / s
    return c + mid, in_doubt(abs(c + mid), wrong(squares, sizes, 1.0 / s, mid), 0.0, t[0])
