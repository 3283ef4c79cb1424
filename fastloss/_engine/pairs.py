from __future__ import annotations
from typing import Any
import numpy as np
from numba import types
from fastloss._engine.elementary import by_type, log_ratio
from fastloss._engine.jit import inline
from fastloss._engine.vector import cast, fma

_F = np.float32
# log-likelihoods of p and q about their mean m: (1 + t) log(1 + t) + (1 - t) log(1 - t), t = (p - q)/(p + q),
# is t**2 times this series in t**2; cut off for |t| <= 0.3.
_NEAR_32 = tuple(_F(1.0 / (k * (2 * k - 1))) for k in range(1, 7))
_NEAR_64 = tuple(1.0 / (k * (2 * k - 1)) for k in range(1, 15))


@inline
def _near_32(q: Any) -> Any:
    s = _NEAR_32[5]
    for k in (4, 3, 2, 1, 0):
        s = fma(s, q, _NEAR_32[k])
    return s * q


@inline
def _near_64(q: Any) -> Any:
    s = _NEAR_64[13]
    for k in (12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        s = fma(s, q, _NEAR_64[k])
    return s * q


def _near(q: Any) -> Any:
    """t**2 = q times the series."""


@by_type(_near)
def _near_of_type(q: Any) -> Any:
    if q == types.float32:
        return lambda q: _near_32(q)
    return lambda q: _near_64(q)


@inline
def js_term(p: Any, q: Any) -> Any:
    """(p log(p/m) + q log(q/m)) / 2, m = (p + q)/2, with all its digits where p is near q: 0 at 0, 0; NaN
    where either is below 0.
    """
    zero, half = cast(0.0, p), cast(0.5, p)
    a, b = half * p, half * q
    m = a + b
    t = (a - b) / m
    near = half * m * _near(t * t)
    far = (a * log_ratio(p, m) if p > zero else zero) + (b * log_ratio(q, m) if q > zero else zero)
    y = near if abs(t) <= cast(0.3, p) else far
    return (zero if m == zero else y) if (p >= zero) & (q >= zero) else cast(np.nan, p)
