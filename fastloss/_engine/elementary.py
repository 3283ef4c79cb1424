"""exp and log1p as straight-line code that LLVM vectorises: `math.exp` is a scalar library call.

exp(x) = 2**n * p(r), n = round(x / ln 2), r = x - n ln 2 in two parts. Adding 1.5 * 2**23 (or 2**52)
rounds to an integer and leaves it, with the exponent bias, in the low bits of the sum. p is the
minimax polynomial of relative error over |r| <= ln(2)/2 (Remez; 1.9e-9 and 3.1e-18), so rounding is
what is left of the error. Scaling multiplies by 2**n, where adding n to the exponent bits would lose
NaN. Results that would be subnormal are flushed to zero by a select that lets NaN through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import types
from numba.extending import overload

from fastloss._engine.jit import inline
from fastloss._engine.vector import bits, exact_fma, fma, from_bits, itemsize


def by_type(stub: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give `stub` in compiled code the meaning that the decorated function returns for a type."""

    def bind(choose: Callable[..., Any]) -> Callable[..., Any]:
        return cast("Callable[..., Any]", overload(stub, inline="always", strict=False)(choose))

    return bind


@inline
def two_sum(a: float, b: float) -> tuple[float, float]:
    """a + b, and what rounding has taken from it (D. E. Knuth)."""
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)


_F = np.float32
_LOG2E_32, _LN2_HI_32, _LN2_LO_32 = _F(1.4426950408889634), _F(0.693145751953125), _F(1.4286068e-06)
_ROUND_32, _SHIFT_32 = _F(12582912.0 + 127.0), np.int32(23)
_LOWEST_32, _HIGHEST_32 = _F(-87.33654), _F(88.37626)
_P_32 = tuple(
    _F(c)
    for c in (1.0, 1.0, 0.4999999, 0.1666642, 0.041668225, 0.008374824, 0.0013836835)
)
_LOG2E_64, _LN2_HI_64, _LN2_LO_64 = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
_ROUND_64, _SHIFT_64 = 6755399441055744.0 + 1023.0, np.int64(52)
_LOWEST_64, _HIGHEST_64 = -708.3964185322641, 709.4361393031039
_P_64 = (
    1.0,
    1.0,
    0.5000000000000018,
    0.1666666666666617,
    0.04166666666649263,
    0.008333333333559451,
    0.0013888888951261204,
    0.00019841269432434438,
    2.48014864812835e-05,
    2.7557622652024487e-06,
    2.7632308224452543e-07,
    2.4994293345730463e-08,
)


@inline
def _exp_32(x: Any) -> Any:
    z = fma(x, _LOG2E_32, _ROUND_32)
    n = z - _ROUND_32
    power = from_bits(np.int32(bits(z) << _SHIFT_32))  # Numba widens int32 << int32
    r = fma(n, -_LN2_LO_32, fma(n, -_LN2_HI_32, x))
    p = fma(_P_32[6], r, _P_32[5])
    p = fma(p, r, _P_32[4])
    p = fma(p, r, _P_32[3])
    p = fma(p, r, _P_32[2])
    p = fma(p, r, _P_32[1])
    p = fma(p, r, _P_32[0])
    return _F(0.0) if x < _LOWEST_32 else p * power


@inline
def _exp_64(x: Any) -> Any:
    z = fma(x, _LOG2E_64, _ROUND_64)
    n = z - _ROUND_64
    power = from_bits(bits(z) << _SHIFT_64)
    r = fma(n, -_LN2_LO_64, fma(n, -_LN2_HI_64, x))
    p = fma(_P_64[11], r, _P_64[10])
    p = fma(p, r, _P_64[9])
    p = fma(p, r, _P_64[8])
    p = fma(p, r, _P_64[7])
    p = fma(p, r, _P_64[6])
    p = fma(p, r, _P_64[5])
    p = fma(p, r, _P_64[4])
    p = fma(p, r, _P_64[3])
    p = fma(p, r, _P_64[2])
    p = fma(p, r, _P_64[1])
    p = fma(p, r, _P_64[0])
    return 0.0 if x < _LOWEST_64 else p * power


def exp_nonpositive(x: Any) -> Any:
    """exp(x) for x <= 0 or NaN; 0 where it would be subnormal."""


@by_type(exp_nonpositive)
def _exp_nonpositive(x: Any) -> Any:
    if x == types.float32:
        return lambda x: _exp_32(x)
    return lambda x: _exp_64(x)


def exp(x: Any) -> Any:
    """exp(x) for any x: +inf from 127.5 ln 2 (1023.5 ln 2) on, 0 where it would be subnormal."""


@by_type(exp)
def _exp(x: Any) -> Any:
    if x == types.float32:
        return lambda x: _F(np.inf) if x > _HIGHEST_32 else _exp_32(x)
    return lambda x: np.inf if x > _HIGHEST_64 else _exp_64(x)


# log(1 + u), 0 <= u <= 1, needs no branch, and keeps the relative error where u is small. Of float32 it is
# u + u**2 h(u), h the minimax polynomial of relative error (Remez; 3.3e-8): a division would take longer. Of
# float64 it is 2 atanh(z), z = u / (2 + u) <= 1/3, terms until the next is below a quarter of the rounding;
# as 2 z = u - z u, it is written as what it is below u, so that an error of z goes into it by less than half.
_LOG1P_32 = tuple(
    _F(c)
    for c in (
        -0.49999648, 0.33321324, -0.24857165, 0.19153659, -0.13753809, 0.07920461, -0.030065836, 0.005364835,
    )
)  # fmt: skip
_ATANH_64 = tuple(2.0 / (2 * k + 1) for k in range(16))


@inline
def _log1p_32(u: Any) -> Any:
    c = _LOG1P_32
    q = u * u
    low = fma(fma(c[3], u, c[2]), q, fma(c[1], u, c[0]))
    high = fma(fma(c[7], u, c[6]), q, fma(c[5], u, c[4]))
    return fma(q, fma(high, q * q, low), u)


@inline
def _log1p_64(u: Any) -> Any:
    z = u / (2.0 + u)
    q = z * z
    p = _ATANH_64[15]
    for k in (14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1):
        p = fma(p, q, _ATANH_64[k])
    return fma(-z, u - q * p, u)


def log1p_unit(u: Any) -> Any:
    """log(1 + u) for 0 <= u <= 1 or NaN."""


@by_type(log1p_unit)
def _log1p_unit(u: Any) -> Any:
    if u == types.float32:
        return lambda u: _log1p_32(u)
    return lambda u: _log1p_64(u)


# log(1 + r) = k ln 2 + log(1 + f) for 1 + r = 2**k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); then, with
# z = f / (2 + f), log(1 + f) = 2 atanh(z), its series after the first term being the minimax polynomial of
# the C library of Sun Microsystems ("fdlibm", s_log1p.c; 2**-58.45).
_LN2_64 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
_LOG_64 = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
    2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
    1.479819860510658591e-01,
)  # fmt: skip
_HALVES = np.int64(0x3FE6A09E667F3BCD)  # the bits of sqrt(1/2)
# AVX2 neither shifts 64-bit integers with their sign nor makes them float64: counted from 2048 on an exponent
# is positive, and beneath the bits of 2**52 it is a number above that.
_BIAS, _WHOLE, _FRACTION = np.int64(-(2**63)), np.int64(0x4330000000000000), np.int64((1 << 52) - 1)


@inline
def _split(u: Any) -> Any:
    """(k as a float64, f) with u = 2**k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)."""
    above = bits(u) - _HALVES
    k = np.int64(np.uint64(above + _BIAS) >> np.uint64(52))
    f = from_bits((above & _FRACTION) + _HALVES) - 1.0
    return from_bits(k | _WHOLE) - 4503599627372544.0, f


@inline
def _log_rest(f: Any) -> Any:
    """(f**2/2, what log(1 + f) is above f - f**2/2)."""
    z = f / (2.0 + f)
    q = z * z
    p = _LOG_64[6]
    for c in (5, 4, 3, 2, 1, 0):
        p = fma(p, q, _LOG_64[c])
    half = 0.5 * f * f
    return half, z * (half + q * p)


@inline
def log1p(r: Any) -> Any:
    """log(1 + r) of a float64 r >= 0 or NaN, within an ulp."""
    u = 1.0 + r
    n, f = _split(u)
    small = n == 0.0
    # What u = 1 + r has lost, as a share of u; nothing is lost where f is r itself.
    lost = (1.0 - (u - r) if u > 2.0 else r - (u - 1.0)) / u
    f = r if small else f
    half, rest = _log_rest(f)
    tail = rest + (0.0 if small else n * _LN2_64[1] + lost)
    return n * _LN2_64[0] - ((half - tail) - f)


# log(1 + f) = f + f**2 p(f) for sqrt(1/2) <= 1 + f < sqrt(2), p near the polynomial whose error relative to
# the logarithm is smallest (1.1e-10).
_LOG_SHORT = (
    -0.500000002841674, 0.33333331982712827, -0.24999938116054846, 0.20000096459354197, -0.1667032763187126,
    0.14285697960058064, -0.12412643905008577, 0.11021093308536539, -0.10870501020674478, 0.10727001733591815,
    -0.059941382480701626,
)  # fmt: skip


@inline
def log1p_short(r: Any) -> Any:
    """log(1 + r) of a float64 r >= 0 or NaN, to 2e-10 of itself, without a division."""
    n, f = _split(1.0 + r)
    f = r if n == 0.0 else f
    c, q = _LOG_SHORT, f * f
    even = fma(fma(fma(fma(fma(c[10], q, c[8]), q, c[6]), q, c[4]), q, c[2]), q, c[0])
    odd = fma(fma(fma(fma(c[9], q, c[7]), q, c[5]), q, c[3]), q, c[1])
    return fma(n, _LN2_64[0] + _LN2_64[1], fma(q, fma(odd, f, even), f)) + (r - r)  # NaN stays


@inline
def log_mass(r: Any, like: Any) -> Any:
    """log(1 + r) of a float64 r >= 0 or NaN that comes from numbers of the type of `like`, and has no more
    digits than they: `log1p`, or of float32 `log1p_short`.
    """
    return log1p_short(r) if itemsize(like) == 4 else log1p(r)


@inline
def log_pair(x: Any) -> Any:
    """log(x) of a float64 as hi + lo, to some 60 bits where it is large: -inf at 0, NaN below."""
    tiny = x < 2.2250738585072014e-308
    u = x * 18014398509481984.0 if tiny else x  # 2**54 brings subnormal numbers up
    n, f = _split(u)
    n -= 54.0 if tiny else 0.0
    half, rest = _log_rest(f)
    hi, lost = two_sum(n * _LN2_64[0], f)
    hi, lo = two_sum(hi, lost + (n * _LN2_64[1] - (half - rest)))
    fine = x > 0.0 and x < np.inf
    odd = x if x == np.inf else (-np.inf if x == 0.0 else np.nan)
    return (hi if fine else odd), (lo if fine else 0.0)


@inline
def power(a: float, hi: float, lo: float) -> Any:
    """x**a where log(x) = hi + lo, in float64."""
    p = a * hi
    rest = exact_fma(a, hi, -p) + a * lo
    e = exp(p)
    return e * (1.0 + rest) if abs(p) < np.inf else e


# The same of a float32: log(1 + f) = f + f**2 p(f), p near the minimax polynomial (3e-8). log 2 rounded to
# float32 is right to 3e-9 of itself, so it needs no second part.
_LOG_32 = tuple(
    _F(c)
    for c in (
        -0.499999976, 0.3333333, -0.250007812, 0.200012345, -0.166266456, 0.14204856, -0.131275557,
        0.127226728, -0.076736415,
    )
)  # fmt: skip
_LN2_32 = _F(0.6931471805599453)
_TINY_32, _UP_32, _HALVES_32 = _F(2.0**-126), _F(2.0**24), np.int32(0x3F3504F3)
_TINY_64, _UP_64 = 2.0**-1022, 2.0**54


@inline
def _log_normal_32(x: Any, less: Any) -> Any:
    """log(2**-less x) of a normal x > 0."""
    i = bits(x)
    k = np.int32(np.int32(i - _HALVES_32) >> _SHIFT_32)  # Numba widens each result
    f = from_bits(np.int32(i - np.int32(k << _SHIFT_32))) - _F(1.0)
    n = _F(k) - less
    c, q = _LOG_32, f * f
    even = fma(fma(fma(fma(c[8], q, c[6]), q, c[4]), q, c[2]), q, c[0])
    odd = fma(fma(fma(c[7], q, c[5]), q, c[3]), q, c[1])
    return fma(n, _LN2_32, fma(q, fma(odd, f, even), f))


@inline
def _log_positive_32(x: Any) -> Any:
    tiny = x < _TINY_32
    return _log_normal_32(x * _UP_32 if tiny else x, _F(24.0) if tiny else _F(0.0))


@inline
def _log_32(x: Any) -> Any:
    odd = x if x == _F(np.inf) else (_F(-np.inf) if x == _F(0.0) else _F(np.nan))
    return _log_positive_32(x) if (x > _F(0.0)) & (x < _F(np.inf)) else odd


@inline
def _log_normal_64(x: Any, less: Any) -> Any:
    n, f = _split(x)
    n -= less
    half, rest = _log_rest(f)
    return fma(n, _LN2_64[0], f - (half - fma(n, _LN2_64[1], rest)))


@inline
def _log_positive_64(x: Any) -> Any:
    tiny = x < _TINY_64
    return _log_normal_64(x * _UP_64 if tiny else x, 54.0 if tiny else 0.0)


@inline
def _log_64(x: Any) -> Any:
    hi, lo = log_pair(x)
    return hi + lo


def log_positive(x: Any) -> Any:
    """log(x) of x > 0, within an ulp; of +inf some number > 0, elsewhere anything."""


@by_type(log_positive)
def _log_positive(x: Any) -> Any:
    if x == types.float32:
        return lambda x: _log_positive_32(x)
    return lambda x: _log_positive_64(x)


def log_normal(x: Any) -> Any:
    """log(x) of a normal x > 0, within an ulp; elsewhere anything. It takes three quarters of the time."""


@by_type(log_normal)
def _log_normal(x: Any) -> Any:
    if x == types.float32:
        return lambda x: _log_normal_32(x, _F(0.0))
    return lambda x: _log_normal_64(x, 0.0)


def log(x: Any) -> Any:
    """log(x) within an ulp: -inf at 0, NaN below."""


@by_type(log)
def _log(x: Any) -> Any:
    if x == types.float32:
        return lambda x: _log_32(x)
    return lambda x: _log_64(x)


# log(a/b) without a/b, which would round where they are near each other, and overflow where they are far
# apart. The difference of their bits, rounded to whole exponents, is k; a and b, b scaled to [1, 2) and a by
# 2**-k as much, are then within a factor of 3/2, so that their difference is exact. With z = (a - b)/(a + b),
# |z| <= 1/5, log(a/b) = k ln 2 + 2 atanh(z): 2 z + z**3 p(z**2), p near the minimax polynomial.
_RATIO_32 = tuple(_F(c) for c in (0.666667137, 0.399789101, 0.299591967))
_RATIO_64 = (
    0.666666666666666642,
    0.40000000000007941,
    0.285714285672759346,
    0.222222230483515881,
    0.181817376263029372,
    0.153888678056137166,
    0.132097082420594633,
    0.136090302628584987,
)
_MANTISSA_32, _ONE_32, _HALF_32 = np.int32(0x007FFFFF), np.int32(0x3F800000), np.int32(1 << 22)
_MANTISSA_64, _ONE_64, _HALF_64 = np.int64((1 << 52) - 1), np.int64(1023 << 52), np.int64(1 << 51)


@inline
def _ratio_normal_32(a: Any, b: Any, less: Any, more: Any) -> Any:
    """log(2**(more - less) a/b) of normal a, b > 0."""
    i, j = bits(a), bits(b)
    away = np.int32(i - j)
    k = np.int32(np.int32(away + _HALF_32) >> _SHIFT_32)
    one = np.int32(np.int32(j & _MANTISSA_32) | _ONE_32)
    v, u = from_bits(one), from_bits(np.int32(np.int32(one + away) - np.int32(k << _SHIFT_32)))
    n = _F(k) - less + more
    z = (u - v) / (u + v)
    q = z * z
    p = fma(fma(_RATIO_32[2], q, _RATIO_32[1]), q, _RATIO_32[0])
    return fma(n, _LN2_32, fma(z * q, p, z + z))


@inline
def _log_ratio_32(a: Any, b: Any) -> Any:
    low, lower, zero, up = a < _TINY_32, b < _TINY_32, _F(0.0), _F(24.0)
    return _ratio_normal_32(
        a * _UP_32 if low else a, b * _UP_32 if lower else b, up if low else zero, up if lower else zero
    )


@inline
def _ratio_normal_64(a: Any, b: Any, less: Any, more: Any) -> Any:
    i, j = bits(a), bits(b)
    away = i - j + _HALF_64
    k = np.int64(np.uint64(away + _BIAS) >> np.uint64(52))  # counted from 2048
    one = (j & _MANTISSA_64) | _ONE_64
    v, u = from_bits(one), from_bits(one + (away & _FRACTION) - _HALF_64)
    n = from_bits(k | _WHOLE) - 4503599627372544.0 - less + more
    d, w = u - v, u + v
    r = 1.0 / w
    z = d * r
    q = z * z
    p = _RATIO_64[7]
    for c in (6, 5, 4, 3, 2, 1, 0):
        p = fma(p, q, _RATIO_64[c])
    lost = fma(-z, w, d) * r  # what rounding has taken from z
    return fma(n, _LN2_HI_64, fma(n, _LN2_LO_64, z + z + fma(z * q, p, lost + lost)))


@inline
def _log_ratio_64(a: Any, b: Any) -> Any:
    low, lower = a < _TINY_64, b < _TINY_64
    return _ratio_normal_64(
        a * _UP_64 if low else a, b * _UP_64 if lower else b, 54.0 if low else 0.0, 54.0 if lower else 0.0
    )


def log_ratio(a: Any, b: Any) -> Any:
    """log(a/b) of finite a, b > 0 within two ulps, however near they are; elsewhere anything."""


@by_type(log_ratio)
def _log_ratio(a: Any, b: Any) -> Any:
    if a == types.float32:
        return lambda a, b: _log_ratio_32(a, b)
    return lambda a, b: _log_ratio_64(a, b)


def ratio_normal(a: Any, b: Any) -> Any:
    """`log_ratio` of normal a, b > 0; elsewhere anything."""


@by_type(ratio_normal)
def _ratio_normal(a: Any, b: Any) -> Any:
    if a == types.float32:
        return lambda a, b: _ratio_normal_32(a, b, _F(0.0), _F(0.0))
    return lambda a, b: _ratio_normal_64(a, b, 0.0, 0.0)
