"""How far the exp primitive is from exp, in units of the last place; `ci/exp` and `test_exp` use it.

It is judged as the kernels run it: by the leaf `exp_sum`, which forms exp((x - 0) 1).

Judges share no code with it. For float32, NumPy's exp in float64: its error, an ulp or so, is 2^-29 of
a float32's, so that what is printed is right to eight digits. For float64, mpmath with 120 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mpmath
import numba
import numpy as np

from fastloss._engine.leaves import exp_sum
from fastloss._engine.vector import LANES

LIMIT = 1.5  # ulp, where the result is normal
CHUNK = 1 << 16  # numbers that stay in a core's L2, judge included
F32, F64 = np.float32, np.float64


@numba.njit(nogil=True)
def _evaluate(x: np.ndarray, zero: np.floating, one: np.floating, e: np.ndarray) -> None:
    exp_sum(x, 0, zero, one, e, 0, 0)


def exp_of(x: np.ndarray) -> np.ndarray:
    """What the primitive makes of x."""
    full = np.zeros(-(-x.size // LANES) * LANES, x.dtype)
    full[: x.size] = x
    e = np.empty_like(full)
    _evaluate(full, x.dtype.type(0), x.dtype.type(1), e)
    return e[: x.size]


@dataclass
class Worst:
    """The largest error so far, and where; and the numbers whose result breaks another rule."""

    ulps: float = 0.0
    at: float = 0.0
    checked: int = 0
    flushed: float = 0.0  # the largest result where exp(x) is below the smallest normal number
    wrong: tuple[float, ...] = ()

    def __or__(self, other: Worst) -> Worst:
        larger = self if self.ulps >= other.ulps else other
        return Worst(
            larger.ulps, larger.at, self.checked + other.checked, max(self.flushed, other.flushed),
            (self.wrong + other.wrong)[:8],
        )

    @property
    def holds(self) -> bool:
        return self.ulps <= LIMIT and not self.wrong


def of_float32(x: np.ndarray) -> Worst:
    """Judge the primitive on numbers x <= 0 and NaN."""
    y = exp_of(x)
    with np.errstate(all="ignore"):
        truth = np.exp(x.astype(F64))
        normal = truth >= 2.0**-126
        # 2^(e - 23) for a truth in [2^e, 2^(e+1)), by its exponent bits
        ulp = ((truth.view(np.int64) & (0x7FF << 52)) - (23 << 52)).view(F64)
        error = np.abs(y - truth) / ulp
    right = np.where(normal, y <= 1.0, (y >= 0.0) & (y <= 2.0**-126))
    right &= (x != -np.inf) | (y == 0.0)
    right &= (x != 0.0) | (y == 1.0)
    right = np.where(np.isnan(x), np.isnan(y), right)
    error = np.where(normal, error, 0.0)
    k = int(error.argmax())
    tiny = y[~normal & ~np.isnan(x)]
    return Worst(
        float(error[k]), float(x[k]), x.size, float(tiny.max(initial=0.0)),
        tuple(float(each) for each in x[~right][:8]),
    )


def of_float64(x: np.ndarray) -> Worst:
    """Judge the primitive on numbers x <= 0."""
    worst = Worst()
    smallest = mpmath.ldexp(1, -1022)
    with mpmath.workprec(120):
        for number, result in zip(x.tolist(), exp_of(x).tolist(), strict=True):
            truth = mpmath.exp(number)
            if truth < smallest:
                wrong = () if 0.0 <= result <= 2.0**-1022 else (number,)
                worst |= Worst(checked=1, flushed=result, wrong=wrong)
                continue
            error = abs(result - truth) / mpmath.ldexp(1, mpmath.frexp(truth)[1] - 53)
            worst |= Worst(float(error), number, 1, wrong=() if result <= 1.0 else (number,))
    return worst


def float32s(first: int, last: int) -> np.ndarray:
    """The numbers whose bits are `first` to `last` - 1."""
    return np.arange(first, last, dtype=np.uint64).astype(np.uint32).view(F32)


def around(centres: Iterable[float], steps: int) -> np.ndarray:
    """The float64 numbers x <= 0 that are at most `steps` from each centre."""
    bits = np.fromiter(centres, F64).view(np.int64)[:, None] + np.arange(-steps, steps + 1)
    x = bits.reshape(-1).view(F64)
    return x[x <= 0.0]


def reduction_breakpoints() -> np.ndarray:
    """-k ln(2)/2, k = 1 to 2044: where |r| is largest (odd k), and smallest."""
    return -np.arange(1, 2045) * (np.log(2.0) / 2)
