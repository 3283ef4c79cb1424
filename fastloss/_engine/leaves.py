"""Leaves: one vectorised loop each, over a block in L1 of a multiple of LANES elements.

The compute type is that of the arrays. Sums are by lanes, folded by `vector.fold`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss._engine.arrays import Array
from fastloss._engine.blocks import AHEAD
from fastloss._engine.elementary import exp, exp_nonpositive
from fastloss._engine.jit import leaf
from fastloss._engine.vector import (
    LANES,
    cast,
    fma,
    fold,
    itemsize,
    lanes,
    lowered,
    maximum,
    part,
    prefetch,
    raise_lanes,
    scaled,
    store,
    stream,
    wide,
)

# What a row holds.
LOGITS, PROBS, LOG_PROBS = 0, 1, 2


@leaf
def block_max(x: Array) -> Any:
    """The largest element, NaN if any is; a zero is +0."""
    wide()
    m = lanes(x[0])
    for k in range(LANES):
        m[k] = cast(-np.inf, m[k])
    odd = 0
    for j in range(0, x.size, LANES):
        odd = raise_lanes(m, part(x, j), odd)
    top = m[0]
    for k in range(1, LANES):
        top = m[k] if m[k] > top else top
    return cast(np.nan, top) if odd != 0 else top + cast(0.0, top)


@leaf
def exp_sum(x: Array, m: Any, inv: Any, e: Array) -> Any:
    """e = exp((x - m) inv); the sum of e."""
    wide()
    total = lanes(m)
    unit = inv == cast(1.0, inv)  # a loop of its own, shorter by the product
    for j in range(0, x.size, LANES):
        prefetch(x, j + AHEAD)
        q = part(x, j)
        v = lanes(m)
        for k in range(LANES):
            d = q[k] - m
            v[k] = exp_nonpositive(d if unit else d * inv)
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
    """The sums of w (m - x) and of w, in float64: the first is no larger than it has to be."""
    wide()
    short, total = lanes(1.0), lanes(1.0)
    for j in range(0, x.size, LANES):
        left, right = part(x, j), part(w, j)
        for k in range(LANES):
            share = cast(right[k], 1.0)
            short[k] = fma(share, cast(m, 1.0) - cast(left[k], 1.0), short[k])
            total[k] += share
    return fold(short), fold(total)


@leaf
def scale(e: Array, c: Any, o: Array, streamed: int) -> None:
    """o = c e; past the cache where `streamed`, to an o that starts on a cache line."""
    wide()
    to, size = o.ctypes.data, itemsize(c)
    for j in range(0, e.size, LANES):
        v = lanes(c)
        scaled(part(e, j), c, v)
        if streamed:
            stream(v, to + j * size, LANES * size // 64)
        else:
            store(v, part(o, j))


@leaf
def affine(
    e: Array, c: Any, t: Array, hi: Any, lo: Any, a: Any, b: Any, g: Any, inv: Any, o: Array
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
        store(v, part(o, j))


@leaf
def terms(e: Array, c: Any, t: Array, hi: Any, a: Any, b: Any, g: Any, but: int) -> Any:
    """How large the terms are of what `affine` makes, the column `but` left out.

    The largest |p b| + |w (t - hi)| with w = a p + g, the largest |w|, and the sum of p |t - hi|.
    """
    wide()
    own = weight = cast(0.0, c)
    moved = lanes(c)
    for j in range(0, e.size, LANES):
        left, right = part(e, j), part(t, j)
        for k in range(LANES):
            p = left[k] * c
            away = abs(right[k] - hi)
            w = abs(fma(p, a, g))
            own = maximum(own, cast(0.0, c) if j + k == but else fma(abs(p), abs(b), w * away))
            weight = maximum(weight, w)
            moved[k] = fma(p, away, moved[k])
    return own, weight, fold(moved)


@leaf
def largest(x: Array) -> Any:
    """The largest magnitude, NaN if any is."""
    wide()
    m = abs(x[0])
    for j in range(x.size):
        m = maximum(m, abs(x[j]))
    return m


@leaf
def shift(x: Array, m: Any, inv: Any, log_s: Any, o: Array) -> None:
    """o = (x - m) inv - log s."""
    wide()
    for j in range(0, x.size, LANES):
        v = lanes(m)
        lowered(part(x, j), m, v)
        scaled(v, inv, v)
        lowered(v, log_s, part(o, j))


@leaf
def curve(e: Array, c: Any, b: Any, rest: Any, inv: Any, o: Array) -> None:
    """o = b p (1 - p) inv with p = c e; 1 - p is `rest` for the one p that may be above a half."""
    wide()
    one = cast(1.0, c)
    for j in range(0, e.size, LANES):
        q = part(e, j)
        v = lanes(c)
        for k in range(LANES):
            p = q[k] * c
            v[k] = b * (p * (rest if p + p > one else one - p)) * inv
        store(v, part(o, j))
