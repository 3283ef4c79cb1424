"""Walks of rows of logits, alone or two side by side, whose softmax is understood and never formed.

Entropy is log(s) - u/s, the Kullback-Leibler divergence u/(s T) and what lies between the normalisers, from
sums of one online walk. With m the running maximum of a, d = a - m and e = exp(d/T): s = 1 + r = sum(e), r
leaving out one element at the maximum, so that digits are kept where one probability is nearly 1; u is
sum(e d) of one row, and sum(e (d - (b - c))) of two, c being b at the maximum of a, so that this element has
no part in it either. The Jensen-Shannon divergence needs both s first, and goes over its rows a second time,
as all gradients do.

A row's bits depend on its own logits and its length alone: segments of SEGMENT columns, each in blocks of
BLOCK, are joined in order. A task is a row, or where rows are few and long, or long and side by side, a
segment of one (phases WALK, SUM and FINISH instead of WHOLE).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import ArrayLike

from fastloss._engine import arrays, blocks, launch, rows, strips, threads
from fastloss._engine.arrays import Array, Axis
from fastloss._engine.blocks import BLOCK, O_BLOCK, SEGMENT, T_BLOCK, X_BLOCK
from fastloss._engine.elementary import (
    by_type,
    exp_nonpositive,
    log1p,
    log1p_unit,
    log_ratio,
    ratio_normal,
    two_sum,
)
from fastloss._engine.elementwise import STRIP
from fastloss._engine.jit import bound, inline, leaf
from fastloss._engine.kernels import Kernel, kernel
from fastloss._engine.leaves import block_max, index_of
from fastloss._engine.rowsums import reduced, row_sum, summed_if_ordinary, unit_of, with_classes
from fastloss._engine.vector import (
    LANES,
    cast,
    fma,
    fold,
    lanes,
    maximum,
    outlined,
    part,
    prefetch,
    store,
    view,
    wide,
)

# Phases of a task.
WHOLE, WALK, SUM, FINISH = 0, 1, 2, 3
# What is made of two rows.
KL, JS = 0, 1
# What they are gone over for a second time: the value of JS; the means in its gradients; the value of KL
# where it is small beside what it is a difference of.
NOTHING, TERMS, MEANS, NEAR = 0, 1, 2, 3
# What is kept of a segment: m and r of each row, u, b at the maximum of a, a at that of b; and the sums of
# a second pass.
M, R, N, Q, U, BESIDE, ACROSS, FIRST, SECOND, THIRD, FOURTH, STATE = range(12)
# Parts of a worker's scratch, a block each: loaded X_BLOCK and T_BLOCK, results O_BLOCK and of the second row
OTHER_BLOCK, BLOCKS = 3, 4

# ---- a term of the Jensen-Shannon divergence ------------------------------------------------
# (1 + t) log(1 + t) + (1 - t) log(1 - t), t = (p - q)/(p + q), is t**2 times a function of t**2: here near
# the minimax polynomials of |t| <= 0.6 (4e-9 and 2e-18). Beyond, no digits are lost to speak of.
_NEAR_32 = tuple(
    np.float32(c)
    for c in (
        1.0, 0.166665978, 0.0666967261, 0.0352297235, 0.0258581929, 0.00172269458,
        0.0331406112,
    )
)  # fmt: skip
_NEAR_64 = (
    0.999999999999999999, 0.166666666666668612, 0.0666666666662101027, 0.0357142857565303597,
    0.0222222201757159997, 0.0151515748966212896, 0.010987870693803183, 0.0083482978038469556,
    0.00639662318125296999, 0.00619980379973478996, -0.000245939252331626082, 0.0197699938129275605,
    -0.0372833317152783087, 0.071075048368813181, -0.0696150146557948469, 0.0392480035878176801,
)


@inline
def _near_32(q: Any) -> Any:
    s = _NEAR_32[6]
    for k in (5, 4, 3, 2, 1, 0):
        s = fma(s, q, _NEAR_32[k])
    return s * q


@inline
def _near_64(q: Any) -> Any:
    s = _NEAR_64[15]
    for k in (14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        s = fma(s, q, _NEAR_64[k])
    return s * q


def near(q: Any) -> Any:
    """(1 + t) log(1 + t) + (1 - t) log(1 - t) of q = t**2 <= 0.36."""


@by_type(near)
def _near(q: Any) -> Any:
    if q == types.float32:
        return lambda q: _near_32(q)
    return lambda q: _near_64(q)


# (1 + t) log(1 + t) near its minimax polynomials of 0.6 <= t <= 1.
_FAR_32 = tuple(np.float32(c) for c in (
    -0.0006282032, 1.0052558, 0.481116967, -0.128263569,
    0.0336192601, -0.00480589596,
))  # fmt: skip
_FAR_64 = (
    -5.98099308523466894e-8, 1.0000012067024007, 0.499988578987318235,
    -0.166599252612993783, 0.0830549524770153538, -0.0491443900173587643,
    0.0312982710814839165, -0.0199581769544791579, 0.0119227498114256971,
    -0.00627078769630821329, 0.00273871298392996928, -0.000934505647908924363,
    0.000230688852445797931, -0.0000363614468807852522, 2.73440973142499974e-6,
)


@inline
def _far_32(t: Any) -> Any:
    s = _FAR_32[5]
    for k in (4, 3, 2, 1, 0):
        s = fma(s, t, _FAR_32[k])
    return s


@inline
def _far_64(t: Any) -> Any:
    s = _FAR_64[14]
    for k in (13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        s = fma(s, t, _FAR_64[k])
    return s


def far(t: Any) -> Any:
    """(1 + t) log(1 + t) of 0.6 <= t <= 1."""


@by_type(far)
def _far(t: Any) -> Any:
    if t == types.float32:
        return lambda t: _far_32(t)
    return lambda t: _far_64(t)


@inline
def js_ordinary(p: Any, q: Any) -> Any:
    """`js_term` of finite p, q > 0 whose halves are normal."""
    half = cast(0.5, p)
    a, b = half * p, half * q
    m = a + b
    t = abs(a - b) / m
    less = a if a < b else b
    beyond = half * m * far(t) + less * ratio_normal(less + less, m)
    return half * m * near(t * t) if t <= cast(0.6, p) else beyond


@inline
def js_term(p: Any, q: Any) -> Any:
    """(p log(p/m) + q log(q/m)) / 2, m = (p + q)/2, with all its digits where p is near q: 0 at 0, 0; NaN
    where either is below 0.
    """
    zero, half = cast(0.0, p), cast(0.5, p)
    a, b = half * p, half * q
    m = a + b
    t = abs(a - b) / m
    less = a if a < b else b
    beyond = half * m * far(t) + less * log_ratio(less + less, m)  # the smaller may be 0
    y = half * m * near(t * t) if t <= cast(0.6, p) else beyond
    return (zero if m == zero else y) if (p >= zero) & (q >= zero) else cast(np.nan, p)


# log(cosh(x)) is x**2 times a function of x**2: here near the minimax polynomials of |x| <= 1/4.
_COSH_32 = tuple(np.float32(c) for c in (0.5, -0.0833332046, 0.0222119059, -0.00647998566))
_COSH_64 = (
    0.5, -0.0833333333333333302, 0.0222222222222208816,
    -0.00674603174581157608, 0.0021869488354871119, -0.00073860212129504583,
    0.000256557687779370139, -0.0000906245285270466969, 0.0000296059333116966658,
)


@inline
def _log_cosh_32(x: Any) -> Any:
    q = x * x
    return fma(fma(fma(_COSH_32[3], q, _COSH_32[2]), q, _COSH_32[1]), q, _COSH_32[0]) * q


@inline
def _log_cosh_64(x: Any) -> Any:
    q = x * x
    s = _COSH_64[8]
    for k in (7, 6, 5, 4, 3, 2, 1, 0):
        s = fma(s, q, _COSH_64[k])
    return s * q


def log_cosh(x: Any) -> Any:
    """log(cosh(x)) of |x| <= 1/4."""


@by_type(log_cosh)
def _log_cosh(x: Any) -> Any:
    if x == types.float32:
        return lambda x: _log_cosh_32(x)
    return lambda x: _log_cosh_64(x)


@inline
def lean(p: Any, q: Any, ratio: Any) -> Any:
    """log(2 p/(p + q)) / 2 for ratio = log(p/q), which is right where that is small: log(2)/2, or 0, and the
    rest, which keeps its digits where q is small, and where it is near p; 0 where p is.
    """
    zero, half, quarter = cast(0.0, p), cast(0.5, p), cast(0.25, p)
    near = quarter * ratio - half * log_cosh(half * ratio)
    below = half * log_ratio(p, half * p + half * q)
    above = -(half * log1p_unit(q / p))
    rest = above if ratio > half else (near if ratio >= -half else below)
    return (cast(0.34657359027997264, p) if ratio > half else zero), (rest if p > zero else zero)


@inline
def beyond(p: Any, q: Any, ratio: Any, top: Any, rest: Any) -> Any:
    """What p leans by beyond top + rest."""
    a, b = lean(p, q, ratio)
    return (a - top) + (b - rest)


# ---- a term of the Kullback-Leibler divergence of distributions near each other --------------
_EXP_32 = tuple(np.float32((-1) ** k / math.factorial(k)) for k in range(2, 10))
_EXP_64 = tuple((-1) ** k / math.factorial(k) for k in range(2, 17))


@inline
def _excess_32(d: Any) -> Any:
    s = _EXP_32[7]
    for k in (6, 5, 4, 3, 2, 1, 0):
        s = fma(s, d, _EXP_32[k])
    return s * d * d


@inline
def _excess_64(d: Any) -> Any:
    s = _EXP_64[14]
    for k in (13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        s = fma(s, d, _EXP_64[k])
    return s * d * d


def excess(d: Any) -> Any:
    """exp(-d) - 1 + d of |d| <= 1/2."""


@by_type(excess)
def _excess(d: Any) -> Any:
    if d == types.float32:
        return lambda d: _excess_32(d)
    return lambda d: _excess_64(d)


# ---- leaves ---------------------------------------------------------------------------------
@leaf
def entropy_sums(x: Array, m: Any, peak: bool, ahead: int) -> Any:
    """The sum of e = exp(x - m), where `peak` but of the elements at m; how many those are; and the sum of
    e (x - m), no term of which is above 0.
    """
    wide()
    total, ties, moved = lanes(m), lanes(m), lanes(m)
    zero, one = cast(0.0, m), cast(1.0, m)
    for j in range(0, x.size, LANES):
        prefetch(x, j + ahead)
        q = part(x, j)
        for k in range(LANES):
            d = q[k] - m
            e = exp_nonpositive(d)
            if peak:
                total[k] += zero if d == zero else e
                ties[k] += one if d == zero else zero
            else:
                total[k] += e
            moved[k] += e * (d if e > zero else zero)
    return np.float64(fold(total)), np.float64(fold(ties)), np.float64(fold(moved))


@leaf
def entropy_slopes(x: Array, m: Any, mean: Any, rate: Any, o: Array) -> None:
    """o = e (x - m - mean) rate, exactly 0 where e is."""
    wide()
    zero = cast(0.0, m)
    for j in range(0, x.size, LANES):
        q, v = part(x, j), lanes(m)
        for k in range(LANES):
            d = q[k] - m
            e = exp_nonpositive(d)
            v[k] = zero if e == zero else e * (d - mean) * rate
        store(v, part(o, j))


@leaf
def kl_sums(
    a: Array, b: Array, m: Any, n: Any, beside: Any, inv: Any, ahead: int, b_ahead: int
) -> Any:
    """Of e = exp((a - m) inv) and f = exp((b - n) inv): sum and count as `entropy_sums`, of each; and the
    sum of e ((a - m) - (b - beside)), or inf where some a has a probability and its b has none.
    """
    wide()
    total, ties, others, matches, moved = lanes(m), lanes(m), lanes(m), lanes(m), lanes(1.0)
    zero, one, inf = cast(0.0, m), cast(1.0, m), cast(np.inf, m)
    for j in range(0, a.size, LANES):
        prefetch(a, j + ahead)
        prefetch(b, j + b_ahead)
        p, q = part(a, j), part(b, j)
        for k in range(LANES):
            d, c = p[k] - m, q[k] - n
            e, f = exp_nonpositive(d * inv), exp_nonpositive(c * inv)
            total[k] += zero if d == zero else e
            ties[k] += one if d == zero else zero
            others[k] += zero if c == zero else f
            matches[k] += one if c == zero else zero
            t = e * (d - (q[k] - beside)) if e > zero else zero
            moved[k] += np.float64(inf if (q[k] == -inf) & (p[k] > -inf) else t)
    return (
        np.float64(fold(total)), np.float64(fold(ties)), np.float64(fold(others)), np.float64(fold(matches)),
        fold(moved),
    )


@leaf
def kl_sums_below(
    a: Array, b: Array, m: Any, n: Any, beside: Any, inv: Any, ahead: int, b_ahead: int
) -> Any:
    """The sums of `kl_sums` of a block that reaches neither maximum, where logits are finite; of others the
    last is not. Without all that those need it takes half the time.
    """
    wide()
    total, others, moved = lanes(m), lanes(m), lanes(1.0)
    for j in range(0, a.size, LANES):
        prefetch(a, j + ahead)
        prefetch(b, j + b_ahead)
        p, q = part(a, j), part(b, j)
        for k in range(LANES):
            d, c = p[k] - m, q[k] - n
            e, f = exp_nonpositive(d * inv), exp_nonpositive(c * inv)
            total[k] += e
            others[k] += f
            moved[k] += np.float64(e * (d - (q[k] - beside)))
    return np.float64(fold(total)), np.float64(fold(others)), fold(moved)


@leaf
def kl_near(
    a: Array, b: Array, m: Any, n: Any, inv: Any, p_of_e: Any, q_of_f: Any, shift: Any
) -> float:
    """The sum of p log(p/q) - p + q, no term of which is below 0; log(p/q) is the difference of the logits
    less `shift`. As p and q sum to 1 it is that of p log(p/q), where terms cancel; and an error of `shift`,
    one for all terms, goes into it as its square alone.
    """
    wide()
    total = lanes(1.0)
    zero, half = cast(0.0, m), cast(0.5, m)
    for j in range(0, a.size, LANES):
        left, right = part(a, j), part(b, j)
        for k in range(LANES):
            d, c = left[k] - m, right[k] - n
            p, q = exp_nonpositive(d * inv) * p_of_e, exp_nonpositive(c * inv) * q_of_f
            ratio = (d - c) * inv - shift
            t = p * excess(ratio) if abs(ratio) <= half else p * ratio + (q - p)
            total[k] += np.float64(t if p > zero else q)
    return float(fold(total))


@leaf
def kl_slopes(
    a: Array, b: Array, m: Any, n: Any, beside: Any, inv: Any, p_of_e: Any, q_of_f: Any, mean: Any, rate: Any,
    q_rate: Any, both: Any, o: Array, r: Array,
) -> None:
    """o = p ((a - m) - (b - beside) - mean) rate, exactly 0 where p is; r = (q - p) q_rate, q - p being
    `both` where a and b are at their maxima.
    """
    wide()
    zero = cast(0.0, m)
    for j in range(0, a.size, LANES):
        left, right, v, w = part(a, j), part(b, j), lanes(m), lanes(m)
        for k in range(LANES):
            d, c = left[k] - m, right[k] - n
            p, q = exp_nonpositive(d * inv) * p_of_e, exp_nonpositive(c * inv) * q_of_f
            v[k] = zero if p == zero else p * ((d - (right[k] - beside)) - mean) * rate
            more = both if (d == zero) & (c == zero) else q - p
            w[k] = zero if more == zero else more * q_rate
        store(v, part(o, j))
        store(w, part(r, j))


@leaf
def probabilities(x: Array, m: Any, inv: Any, p_of_e: Any, o: Array) -> None:
    """o = p."""
    wide()
    for j in range(0, x.size, LANES):
        q, v = part(x, j), lanes(m)
        for k in range(LANES):
            v[k] = exp_nonpositive((q[k] - m) * inv) * p_of_e
        store(v, part(o, j))


@leaf
def js_terms(p: Array, q: Array, o: Array) -> None:
    """o = the terms of the Jensen-Shannon divergence. In a plain loop: it is too long for LANES at once."""
    wide()
    for j in range(p.size):
        o[j] = js_term(p[j], q[j])


js_sum: Any = leaf(bound(summed_if_ordinary, "js_sum", plain=js_ordinary))


@leaf
def js_means(
    a: Array, b: Array, m: Any, n: Any, inv: Any, p_of_e: Any, q_of_f: Any, shift: Any, top: Any,
    rest: Any, q_top: Any, q_rest: Any,
) -> Any:
    """The sums of p h and of q g, h and g being what p and q lean by `beyond` those at the maxima; and of p
    and q, as they have been rounded. log(p/q) is the difference of the logits less `shift`.
    """
    wide()
    mean, other, total, others = lanes(1.0), lanes(1.0), lanes(1.0), lanes(1.0)
    for j in range(0, a.size, LANES):
        left, right = part(a, j), part(b, j)
        for k in range(LANES):
            d, c = left[k] - m, right[k] - n
            p, q = exp_nonpositive(d * inv) * p_of_e, exp_nonpositive(c * inv) * q_of_f
            ratio = (d - c) * inv - shift
            mean[k] = fma(np.float64(p), np.float64(beyond(p, q, ratio, top, rest)), mean[k])
            other[k] = fma(np.float64(q), np.float64(beyond(q, p, -ratio, q_top, q_rest)), other[k])
            total[k] += np.float64(p)
            others[k] += np.float64(q)
    return fold(mean), fold(other), fold(total), fold(others)


@leaf
def js_slopes(
    a: Array, b: Array, m: Any, n: Any, inv: Any, p_of_e: Any, q_of_f: Any, shift: Any,
    top: Any, rest: Any, q_top: Any, q_rest: Any, mean: Any, q_mean: Any, rate: Any, o: Array, r: Array,
) -> None:
    """o = p (h - mean) rate and r = q (g - q_mean) rate, exactly 0 where p or q is; h and g as `js_means`."""
    wide()
    zero = cast(0.0, m)
    for j in range(0, a.size, LANES):
        left, right, v, w = part(a, j), part(b, j), lanes(m), lanes(m)
        for k in range(LANES):
            d, c = left[k] - m, right[k] - n
            p, q = exp_nonpositive(d * inv) * p_of_e, exp_nonpositive(c * inv) * q_of_f
            ratio = (d - c) * inv - shift
            v[k] = zero if p == zero else p * (beyond(p, q, ratio, top, rest) - mean) * rate
            w[k] = zero if q == zero else q * (beyond(q, p, -ratio, q_top, q_rest) - q_mean) * rate
        store(v, part(o, j))
        store(w, part(r, j))


# ---- states ---------------------------------------------------------------------------------
@inline
def mass(m: float, r: float) -> float:
    """The sum of exponentials below m."""
    return 0.0 if m == -np.inf else 1.0 + r


@inline
def away(m: float, top: float) -> float:
    """m - top; 0 where that is all there is, and nothing is below it."""
    return 0.0 if m == -np.inf else m - top


@inline
def rest_of(m: float, r: float, k: float, t: float, top: float, inv: float) -> float:
    """r below `top`, the larger of m and k, of r below m and t below k."""
    old: float = mass(m, r) * exp_nonpositive(away(m, top) * inv) + t
    new: float = r + mass(k, t) * exp_nonpositive(away(k, top) * inv)
    return old if k > m else new


@inline
def moved_to(u: float, m: float, r: float, n: float, top: float, other: float, inv: float) -> float:
    """u = sum(e (d - c)), d = a - m and c = b - n, as one with `top` and `other` for m and n."""
    far = away(m, top)
    moved: float = (u + mass(m, r) * (far - (n - other))) * exp_nonpositive(far * inv)
    return moved if m != -np.inf and u != np.inf else u


@inline
def origin(m: Any) -> Any:
    """What logits are measured from: (-inf) - (-inf) must not be formed."""
    return cast(0.0, m) if m == -np.inf else m


@inline
def join(to: Array, state: Array, inv: float) -> None:
    """Add a state to another."""
    m, r, n, q = state[M], state[R], state[N], state[Q]
    top, other = maximum(to[M], m), maximum(to[N], n)
    beside = state[BESIDE] if m > to[M] else to[BESIDE]
    left = moved_to(to[U], to[M], to[R], to[BESIDE], top, beside, inv)
    to[U] = left + moved_to(state[U], m, r, state[BESIDE], top, beside, inv)
    to[BESIDE] = beside
    to[ACROSS] = state[ACROSS] if n > to[N] else to[ACROSS]
    to[R] = rest_of(to[M], to[R], m, r, top, inv)
    to[Q] = rest_of(to[N], to[Q], n, q, other, inv)
    to[M], to[N] = top, other


@inline
def begin(state: Array) -> None:
    state[M] = state[N] = -np.inf
    state[R] = state[Q] = state[U] = state[BESIDE] = state[ACROSS] = 0.0


@leaf
def join_segments(states: Array, at: int, count: int, inv: float, to: Array) -> None:
    """The state of a row from those of its segments, in order."""
    outlined()
    begin(to)
    to[FIRST] = to[SECOND] = to[THIRD] = to[FOURTH] = 0.0
    for k in range(at, at + count):
        join(to, states[k], inv)
        for which in range(FIRST, STATE):
            to[which] += states[k, which]


# ---- walks ----------------------------------------------------------------------------------
@leaf
def walk_entropy(row: int, g: Array, j0: int, j1: int, zero: Any, work: int, state: Array) -> None:
    """The state of a segment; u = sum(e (x - m)), that of two rows of which one is 0 all over."""
    x_block = blocks.buffer(work, X_BLOCK, zero)
    m = cast(-np.inf, zero)
    r = u = low = 0.0  # r + low: blocks add up without rounding
    for j in range(j0, j1, BLOCK):
        x = blocks.block(row, g, j, min(BLOCK, j1 - j), cast(-np.inf, zero), x_block)
        old, top = m, block_max(x, 0)
        at_top = 0.0
        if not top <= m:  # larger, or NaN
            m = maximum(m, top)
            to, was = np.float64(m), np.float64(old)
            u = moved_to(u, was, r, 0.0, to, 0.0, 1.0)
            factor = exp_nonpositive(away(was, to))
            r = mass(was, r) * factor
            low *= factor
            at_top = 1.0
        rest, ties, more = entropy_sums(x, origin(m), at_top > 0.0, blocks.ahead_of(row, g, j, x))
        if m != -np.inf:
            r, lost = two_sum(r, rest + (ties - at_top))
            low += lost
            u += more
    begin(state)
    state[M], state[R], state[U] = m, r + low, u


@leaf
def walk_pair(
    row: int, g: Array, other: int, og: Array, j0: int, j1: int, inv: Any, work: int, state: Array
) -> None:
    """The state of a segment of two rows."""
    x_block, t_block = blocks.buffer(work, X_BLOCK, inv), blocks.buffer(work, T_BLOCK, inv)
    none, rate = cast(-np.inf, inv), np.float64(inv)
    m = n = none
    beside = across = cast(0.0, inv)
    r = q = u = r_low = q_low = u_low = 0.0  # r + r_low, …: blocks add up without rounding
    finite = True  # so far
    for j in range(j0, j1, BLOCK):
        size = min(BLOCK, j1 - j)
        a, b = blocks.block(row, g, j, size, none, x_block), blocks.block(other, og, j, size, none, t_block)
        top, peak = block_max(a, 0), block_max(b, 0)
        at_top = at_peak = 0.0
        if not (top <= m and peak <= n):  # larger, or NaN
            was, were = np.float64(m), np.float64(n)
            at_top, at_peak = 0.0 if top <= m else 1.0, 0.0 if peak <= n else 1.0
            m, n = maximum(m, top), maximum(n, peak)
            to, tip = np.float64(m), np.float64(n)
            if at_top:
                aside = np.float64(beside)
                beside = origin(b[index_of(a, m)])
                u = moved_to(u + u_low, was, r, aside, to, np.float64(beside), rate)
                u_low = 0.0
                factor = exp_nonpositive(away(was, to) * rate)
                r = mass(was, r) * factor
                r_low *= factor
            if at_peak:
                across = origin(a[index_of(b, n)])
                factor = exp_nonpositive(away(were, tip) * rate)
                q = mass(were, q) * factor
                q_low *= factor
        ahead, b_ahead = blocks.ahead_of(row, g, j, a), blocks.ahead_of(other, og, j, b)
        below = finite and top < m and peak < n
        if below:
            ties = matches = 0.0
            rest, others, more = kl_sums_below(a, b, m, n, beside, inv, ahead, b_ahead)
            below = finite = abs(more) < np.inf
        if not below:
            rest, ties, others, matches, more = kl_sums(
                a, b, origin(m), origin(n), beside, inv, ahead, b_ahead
            )
        if m != -np.inf:
            r, lost = two_sum(r, rest + (ties - at_top))
            r_low += lost
        if n != -np.inf:
            q, lost = two_sum(q, others + (matches - at_peak))
            q_low += lost
        u, lost = two_sum(u, more)
        u_low += lost if u < np.inf else 0.0
    begin(state)
    state[M], state[R], state[N], state[Q], state[U] = m, r + r_low, n, q + q_low, u + u_low
    state[BESIDE], state[ACROSS] = beside, across


# ---- kernels --------------------------------------------------------------------------------
@kernel
def entropy_rows(
    w: int, workers: int, first: int, last: int, columns: int, work: int, stride: int, phase: int, zero: Any,
    states: Array, joined: Array, x: int, xg_at: int, values: Array, rates: Array, wanted: int,
    out: int, og_at: int, streamed: int,
) -> None:
    """values[i] = the entropy of row i; where `wanted` its gradient times rates[i]."""
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    xg, og = blocks.geometry(xg_at), blocks.geometry(og_at)
    mine, count = work + w * stride, blocks.segments(columns)
    none = cast(-np.inf, zero)
    for task in blocks.share(w, workers, first, last):
        i, k0, k1 = rows.task_of(task, workers, phase, count, states)
        row, at, all_of = blocks.row_address(x, xg, i), (w if phase == WHOLE else i) * count, joined[w]
        if phase != FINISH:
            for k in range(k0, k1):
                walk_entropy(
                    row, xg, k * SEGMENT, min((k + 1) * SEGMENT, columns), zero, mine, states[at + k]
                )
        if phase == WALK:
            continue
        join_segments(states, at, count, 1.0, all_of)
        m, r, u = all_of[M], all_of[R], all_of[U]
        s = mass(m, r)
        entropy = log1p(r) - u / s if s > 0.0 else np.nan
        if k0 == 0:
            values[i] = entropy
        if not wanted:
            continue
        to, j0, j1 = blocks.row_address(out, og, i), k0 * SEGMENT, min(k1 * SEGMENT, columns)
        if entropy != entropy:
            blocks.fill(cast(np.nan, zero), j0, j1, mine, to, og, streamed)
            continue
        for j in range(j0, j1, BLOCK):
            n = min(BLOCK, j1 - j)
            part_of = blocks.block(row, xg, j, n, none, blocks.buffer(mine, X_BLOCK, zero))
            o = view(blocks.buffer(mine, O_BLOCK, zero), part_of.size, zero)
            entropy_slopes(part_of, cast(m, zero), cast(u / s, zero), cast(-rates[i] / s, zero), o)
            blocks.put(o, n, to, og, j, streamed)
    blocks.settle(streamed)


@leaf
def sum_pair(
    row: int, g: Array, other: int, og: Array, j0: int, j1: int, inv: Any, work: int, second: int,
    of_row: Array, state: Array,
) -> None:
    """The sums of a segment's second pass."""
    outlined()
    none, r, q = cast(-np.inf, inv), of_row[R], of_row[Q]
    m, n = cast(of_row[M], inv), cast(of_row[N], inv)
    p_of_e, q_of_f = cast(1.0 / (1.0 + r), inv), cast(1.0 / (1.0 + q), inv)
    shift = cast(log1p(r) - log1p(q), inv)
    top, rest, q_top, q_rest = tops(of_row, inv, p_of_e, q_of_f, shift)
    state[FIRST] = state[SECOND] = state[THIRD] = state[FOURTH] = 0.0
    guess = True  # that all probabilities are ordinary
    for j in range(j0, j1, BLOCK):
        size = min(BLOCK, j1 - j)
        a = blocks.block(row, g, j, size, none, blocks.buffer(work, X_BLOCK, inv))
        b = blocks.block(other, og, j, size, none, blocks.buffer(work, T_BLOCK, inv))
        if second == MEANS:
            mean, q_mean, total, others = js_means(
                a, b, m, n, inv, p_of_e, q_of_f, shift, top, rest, q_top, q_rest
            )
            state[FIRST] += mean
            state[SECOND] += q_mean
            state[THIRD] += total
            state[FOURTH] += others
        elif second == TERMS:
            p = view(blocks.buffer(work, O_BLOCK, inv), a.size, inv)
            p2 = view(blocks.buffer(work, OTHER_BLOCK, inv), a.size, inv)
            probabilities(a, m, inv, p_of_e, p)
            probabilities(b, n, inv, q_of_f, p2)
            more = 0.0
            known = guess and a.size % STRIP == 0
            if known:
                more, known = js_sum(p, p2)
                guess = known
            if not known:
                js_terms(p, p2, view(blocks.buffer(work, X_BLOCK, inv), a.size, inv))
                more = row_sum(view(blocks.buffer(work, X_BLOCK, inv), a.size, inv), 0, a.size)
            state[FIRST] += more
        else:
            state[FIRST] += kl_near(a, b, m, n, inv, p_of_e, q_of_f, shift)


@inline
def kl_of(of_row: Array, rate: float) -> Any:
    """(the Kullback-Leibler divergence of one pass, the size of what is wrong by a few roundings in it)."""
    far, more = of_row[U] / (1.0 + of_row[R]) * rate, (of_row[N] - of_row[BESIDE]) * rate
    value = far + more + (log1p(of_row[Q]) - log1p(of_row[R])) if far < np.inf else far
    return value, 1.0 + abs(far) + abs(more)


@inline
def second_pass(which: int, wanted: int, of_row: Array, rate: float) -> int:
    """What the rows are gone over for a second time: nothing where one is no distribution."""
    if not (mass(of_row[M], of_row[R]) > 0.0 and mass(of_row[N], of_row[Q]) > 0.0):
        return NOTHING
    if which == JS:
        return MEANS if wanted else TERMS
    value, size = kl_of(of_row, rate)
    return NEAR if not wanted and abs(value) < 0.25 * size else NOTHING


@inline
def tops(of_row: Array, inv: Any, p_of_e: Any, q_of_f: Any, shift: Any) -> Any:
    """What p leans by at the maximum of a, and q at that of b. What others do is measured from there, so that
    a probability that is nearly 1 has no part in the means.
    """
    c, d = cast(of_row[BESIDE], inv) - cast(of_row[N], inv), cast(of_row[ACROSS], inv) - cast(of_row[M], inv)
    zero, one = cast(0.0, inv), cast(1.0, inv)
    f, e = exp_nonpositive(c * inv), exp_nonpositive(d * inv)
    top, rest = lean(one * p_of_e, f * q_of_f, (zero - c) * inv - shift)
    q_top, q_rest = lean(one * q_of_f, e * p_of_e, -((d - zero) * inv - shift))
    return top, rest, q_top, q_rest


@kernel
def pair_rows(
    w: int, workers: int, first: int, last: int, columns: int, work: int, stride: int, phase: int, inv: Any,
    states: Array, joined: Array, which: int, x: int, xg_at: int, y: int, yg_at: int, values: Array,
    rates: Array, wanted: int, out: int, og_at: int, out2: int, og2_at: int, streamed: int,
) -> None:
    """values[i] = the divergence of rows i; where `wanted` both gradients times rates[i], instead of the
    value of JS.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    xg, yg, og, og2 = (
        blocks.geometry(xg_at), blocks.geometry(yg_at), blocks.geometry(og_at), blocks.geometry(og2_at)
    )
    mine, count = work + w * stride, blocks.segments(columns)
    none, rate = cast(-np.inf, inv), np.float64(inv)
    for task in blocks.share(w, workers, first, last):
        i, k0, k1 = rows.task_of(task, workers, phase, count, states)
        row, other = blocks.row_address(x, xg, i), blocks.row_address(y, yg, i)
        at, of_row = (w if phase == WHOLE else i) * count, joined[w]
        if phase in (WHOLE, WALK):
            for k in range(k0, k1):
                j0, j1 = k * SEGMENT, min((k + 1) * SEGMENT, columns)
                walk_pair(row, xg, other, yg, j0, j1, inv, mine, states[at + k])
        if phase == WALK:
            continue
        join_segments(states, at, count, rate, of_row)
        second = second_pass(which, wanted, of_row, rate)
        if second and phase != FINISH:
            for k in range(k0, k1):
                j0, j1 = k * SEGMENT, min((k + 1) * SEGMENT, columns)
                sum_pair(row, xg, other, yg, j0, j1, inv, mine, second, of_row, states[at + k])
        if phase == SUM:
            continue
        if second:
            join_segments(states, at, count, rate, of_row)
        r, q, u = of_row[R], of_row[Q], of_row[U]
        s, z = mass(of_row[M], r), mass(of_row[N], q)
        good = s > 0.0 and z > 0.0
        value = np.nan
        if good:
            value = of_row[FIRST] if second else max(kl_of(of_row, rate)[0], 0.0)
        if k0 == 0:
            values[i] = value
        if not wanted:
            continue
        to, to2 = blocks.row_address(out, og, i), blocks.row_address(out2, og2, i)
        j0, j1 = k0 * SEGMENT, min(k1 * SEGMENT, columns)
        if not good:
            blocks.fill(cast(np.nan, inv), j0, j1, mine, to, og, streamed)
            blocks.fill(cast(np.nan, inv), j0, j1, mine, to2, og2, streamed)
            continue
        m, n = cast(of_row[M], inv), cast(of_row[N], inv)
        p_of_e, q_of_f = cast(1.0 / s, inv), cast(1.0 / z, inv)
        shift = cast(log1p(r) - log1p(q), inv)
        top, rest, q_top, q_rest = tops(of_row, inv, p_of_e, q_of_f, shift)
        beside, mean = cast(of_row[BESIDE], inv), cast(u / s if u < np.inf else np.nan, inv)
        q_mean = mean
        if which == JS:
            mean = cast(of_row[FIRST] / of_row[THIRD], inv)
            q_mean = cast(of_row[SECOND] / of_row[FOURTH], inv)
        for j in range(j0, j1, BLOCK):
            size = min(BLOCK, j1 - j)
            a = blocks.block(row, xg, j, size, none, blocks.buffer(mine, X_BLOCK, inv))
            b = blocks.block(other, yg, j, size, none, blocks.buffer(mine, T_BLOCK, inv))
            o = view(blocks.buffer(mine, O_BLOCK, inv), a.size, inv)
            o2 = view(blocks.buffer(mine, OTHER_BLOCK, inv), a.size, inv)
            if which == KL:
                kl_slopes(
                    a, b, m, n, beside, inv, p_of_e, q_of_f, mean, cast(rates[i] * rate * rate, inv),
                    cast(rates[i] * rate, inv), cast(r / s - q / z, inv), o, o2,
                )
            else:
                js_slopes(
                    a, b, m, n, inv, p_of_e, q_of_f, shift,
                    top, rest, q_top, q_rest, mean, q_mean,
                    cast(rates[i] * rate, inv), o, o2,
                )
            blocks.put(o, size, to, og, j, streamed)
            blocks.put(o2, size, to2, og2, j, streamed)
    blocks.settle(streamed)


# ---- bound to its arguments -----------------------------------------------------------------
class BoundLogits:
    """Rows of logits, or two arrays of them, checked."""

    def __init__(
        self, which: int, x: ArrayLike, y: ArrayLike | None, names: tuple[str, ...], axis: Axis,
        temperature: float, base: float | None, reduction: str,
    ) -> None:
        self.which = which
        self.inputs = [arrays.real(x, names[0])]
        shape = self.inputs[0].shape
        if y is not None:
            self.inputs.append(arrays.same_shape(arrays.real(y, names[1]), shape, names[1], names[0]))
        self.axes = arrays.axes_of(axis, len(shape), names[0])
        self.temperature = arrays.positive(temperature, "temperature")
        self.unit, self.reduction = unit_of(base), arrays.reduction_of(reduction)
        with_classes(self.inputs[0], self.axes, names[0])
        self.rows = arrays.without(shape, self.axes)
        self.dtype = arrays.result_type(self.inputs[0])
        self.compute = rows.compute_type(self.dtype, self.temperature)

    def value(self) -> Any:
        values = self._run(self.inputs, [], None)
        with np.errstate(all="ignore"):  # infinities and NaN are answers here
            return reduced(values, self.rows, self.reduction, self.unit, arrays.upcast(self.dtype))

    def vjp(self, cotangent: Any, out: Any) -> Any:
        """One gradient, or a pair of them."""
        vector = arrays.real(cotangent, "cotangent")
        arrays.same_shape(
            vector, self.rows if self.reduction == "none" else (), "cotangent", "the result"
        )
        n = math.prod(self.rows)
        rates = np.empty(n)
        rates[...] = np.reshape(vector, -1).astype(np.float64)
        rates /= self.unit * (n if self.reduction == "mean" else 1)
        two = len(self.inputs) == 2
        given = arrays.pair_of(out, "(gradient of p_logits, of q_logits)") if two else (out,)
        results = [
            arrays.output(mine, self.inputs[0].shape, self.dtype, f"out[{k}]" if two else "out")
            for k, mine in enumerate(given)
        ]
        if two and arrays.overlap(*results):
            raise ValueError("out[0] and out[1] overlap; the two results need two arrays")
        inputs = self.inputs
        for mine, result in zip(given, results, strict=True):
            if mine is not None:
                inputs = [arrays.apart(each, result) for each in inputs]
        self._run(inputs, results, rates, any(mine is not None for mine in given))
        made = tuple(arrays.given_or_scalar(a, b) for a, b in zip(results, given, strict=True))
        return made if two else made[0]

    def _run(
        self, inputs: list[Array], results: list[Array], rates: Array | None, into_given: bool = False
    ) -> Array:
        """The values of rows, in nats; and the results, if there are any."""
        n, columns = math.prod(self.rows), math.prod(inputs[0].shape[a] for a in self.axes)
        values = np.zeros(n)
        if not n:
            return values
        placed = [arrays.operand(each, self.axes, self.compute) for each in inputs]
        targets = [arrays.destination(each, self.axes, self.compute) for each in results]
        wanted = int(bool(targets))
        count = -(-columns // SEGMENT)
        few = count > 1 and n < 4 * threads.count()
        workers = launch.workers(n * columns, n * count if few else n)
        # A task is short enough to wait for when Ctrl-C comes.
        beside = count > 1 and strips.suits(placed[0][1], self.compute)
        split = (few and workers > 1) or columns > launch.LAUNCH or beside
        phases: tuple[int, ...] = (WHOLE,)
        if split:
            twice = len(inputs) == 2 and (self.which == JS or not wanted)
            phases = (WALK, SUM, FINISH) if twice else (WALK, FINISH)
        scratch = blocks.Scratch(workers, BLOCKS * BLOCK * self.compute.itemsize)
        streamed = int(
            into_given and all(blocks.streamed(a, b) for a, b in zip(results, inputs, strict=True))
        )
        inv = self.compute.type(rows.reciprocal(self.temperature, self.compute))
        states = blocks.apart((n if split else workers) * count, STATE, arrays.F64)
        joined = blocks.apart(workers, STATE, arrays.F64)
        states[...] = joined[...] = 0.0
        args: list[Any] = []
        for array, lies in placed:
            args += [arrays.address(array), lies.geometry]
        args += [values, values if rates is None else rates, wanted]
        for array, lies in targets or placed:
            args += [arrays.address(array), lies.geometry]
        walks: Kernel = pair_rows if len(inputs) == 2 else entropy_rows
        which = (self.which,) if len(inputs) == 2 else ()
        first, then = 7 + len(which), 7 + len(which) + 2 * len(placed) + 3
        sides = strips.sides_of(
            [(first + 2 * k, first + 2 * k + 1, *each) for k, each in enumerate(placed)],
            [(then + 2 * k, then + 2 * k + 1, *each) for k, each in enumerate(targets)],
            self.compute,
        )
        for phase in phases:
            strips.run(
                walks, workers, self.compute, n * count if split else n, SEGMENT if split else columns,
                (columns, scratch.address, scratch.stride, phase, inv, states, joined, *which, *args,
                 streamed),
                sides if wanted or phase != FINISH else [], writes=phase in (WHOLE, FINISH),
            )
        for result, (target, _) in zip(results, targets, strict=True):
            if target is not result:
                arrays.write_back(result, self.axes, target)
        return values
