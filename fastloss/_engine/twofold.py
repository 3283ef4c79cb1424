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

import numpy as np

from fastloss._engine import elementary
from fastloss._engine.arrays import Array
from fastloss._engine.elementary import two_sum
from fastloss._engine.jit import inline, leaf
from fastloss._engine.leaves import LOG_PROBS, LOGITS, PROBS
from fastloss._engine.vector import LANES, cast, exact_fma, fold, fold_max, lanes, outlined, part, wide

Pair = tuple[float, float]

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


# ---- float32, in float64 --------------------------------------------------------------------
@inline
def wide_mass(x: float, holds: int, m: float, rate: float) -> float:
    """p but for the sum over the row; `rate` is 1/T."""
    if holds == PROBS:
        return x
    return float(elementary.exp(x if holds == LOG_PROBS else (x - m) * rate))


@leaf
def wide_mean(x: Array, m: float, t: Array) -> float:
    """`mean` of float32, which may lie padded with -inf and 0."""
    wide()
    s, dot = lanes(0.0), lanes(0.0)
    for j in range(0, x.size, LANES):
        q, beside = part(x, j), part(t, j)
        for k in range(LANES):
            e = wide_mass(np.float64(q[k]), LOGITS, m, 1.0)
            s[k] += e
            dot[k] += e * np.float64(beside[k])
    return float(fold(dot) / fold(s))


@leaf
def wide_products(
    x: Array, holds: int, m: float, rate: float, t: Array, n: int, origin: float, forward: bool, a: float,
    g: float, spot: int, extra: float, o: Array,
) -> float:
    """`products` of n float32, which may lie padded: x with what has no mass, t where not `forward` with 0.
    The largest of them. If `forward` t is measured from `origin`.
    """
    wide()
    from_ = origin if forward else 0.0
    s, dot, total, top = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
    for j in range(0, x.size, LANES):
        q, beside = part(x, j), part(t, j)
        for k in range(LANES):
            e, tk = wide_mass(np.float64(q[k]), holds, m, rate), np.float64(beside[k]) - from_
            tk += extra if j + k == spot else 0.0
            s[k] += e
            dot[k] += e * tk
            total[k] += tk
    sum_, all_ = fold(s), fold(total)
    middle = fold(dot) / sum_
    for j in range(0, x.size, LANES):
        q, beside, results = part(x, j), part(t, j), part(o, j)
        for k in range(LANES):
            p = wide_mass(np.float64(q[k]), holds, m, rate) / sum_
            tk = np.float64(beside[k]) - from_
            tk += extra if j + k == spot else 0.0
            result = ((a * p + g) * (tk - middle) if forward else g * (tk - p * all_)) * rate
            fine, old = abs(result) < np.inf, results[k]
            results[k] = cast(result, old) if fine else old
            top[k] = max(top[k], abs(result) if fine and j + k < n else 0.0)
    return float(fold_max(top))
