"""Regression losses: element by element, of predictions and targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import ArrayLike

from fastloss._engine import arrays
from fastloss._engine.elementary import by_type, exp_nonpositive
from fastloss._engine.elementwise import BoundElementwise, Elementwise, flat, sign
from fastloss._engine.jit import inline
from fastloss._engine.loss import BoundElementLoss, ElementLoss, Result
from fastloss._engine.vector import cast, fma

__all__ = ["huber_loss", "l1_loss", "log_cosh_loss", "mse_loss", "pinball_loss", "smooth_l1_loss"]


# ---- formulas: (loss, slope, curvature) of d = z - y ----------------------------------------
@inline
def mse_formula(z: Any, y: Any, _a: Any, _b: Any) -> Any:
    """d**2."""
    d = z - y
    return d * d, d + d, flat(d) + cast(2.0, z)


@inline
def l1_formula(z: Any, y: Any, _a: Any, _b: Any) -> Any:
    """|d|."""
    d = z - y
    return abs(d), sign(d), flat(d)


@inline
def huber_formula(z: Any, y: Any, a: Any, _b: Any) -> Any:
    """d**2/2 up to |d| = a, then a (|d| - a/2)."""
    d, half = z - y, cast(0.5, z)
    near = abs(d) <= a
    return (
        half * d * d if near else a * (abs(d) - half * a),
        d if near else a * sign(d),
        cast(1.0, z) if near else flat(d),
    )


@inline
def smooth_l1_formula(z: Any, y: Any, a: Any, b: Any) -> Any:
    """d**2/2a below |d| = a, then |d| - a/2; b is 1/a."""
    d, half = z - y, cast(0.5, z)
    near = abs(d) < a
    return (
        half * d * (d * b) if near else abs(d) - half * a,
        d * b if near else sign(d),
        b if near else flat(d),
    )


# log(cosh x) and tanh x are x**2 and x times functions of x**2: here their minimax polynomials of relative
# error, of |x| <= 1 (Remez; 7e-9 and 7e-19) and of |x| <= 1/2 (1.3e-8 and 2.6e-18). Beyond 1 log(1 + u),
# u = exp(-2 |x|), is u times a function of u <= 0.1354: here that of absolute error (4e-10, 1.8e-19).
_COSH_32, _TANH_32, _LOG1P_32 = (
    tuple(np.float32(c) for c in each)
    for each in (
        (
            0.499999997, -0.0833329925, 0.0222165751, -0.00671043823, 0.0020773473, -0.000556225799,
            8.65709743e-5,
        ),
        (0.999999987, -0.333330694, 0.133247793, -0.0529860758, 0.0171350067),
        (0.99999987, -0.499986121, 0.332849101, -0.242527697, 0.145805405),
    )
)  # fmt: skip
_COSH_64 = (
    0.5, -0.0833333333333331429, 0.0222222222222058043, -0.00674603174547130371, 0.00218694884354610495,
    -0.00073860285110812206, 0.000256579786332555661, -0.0000909857217459540634, 0.0000327652266998865376,
    -0.0000119193735329179225, 4.33243829493808933e-6, -1.52930181115903962e-6, 4.93293068107624205e-7,
    -1.31098579726862924e-7, 2.43912689755453161e-8, -2.2928068590940423e-9,
)  # fmt: skip
_TANH_64 = (
    0.999999999999999997, -0.333333333333330824, 0.13333333333293051, -0.0539682539429907253,
    0.0218694877219682547, -0.00886322018077569807, 0.00359194692413880086, -0.00145445328859374522,
    0.000583187289097141397, -0.000217629552578764025, 0.0000566470995823429172,
)  # fmt: skip
_LOG1P_64 = (
    0.99999999999999975, -0.499999999999891911, 0.333333333317068868, -0.249999998777993012,
    0.199999946549964993, -0.166665192058857945, 0.142830361078856239, -0.124673904723498357,
    0.108456157570499538, -0.0859119001238016966, 0.0449065753231384168,
)  # fmt: skip
_LN2 = 0.6931471805599453


@inline
def _parts_32(q: Any, u: Any) -> Any:
    s, t, v = _COSH_32[6], _TANH_32[4], _LOG1P_32[4]
    for k in (5, 4, 3, 2, 1, 0):
        s = fma(s, q, _COSH_32[k])
    for k in (3, 2, 1, 0):
        t, v = fma(t, q, _TANH_32[k]), fma(v, u, _LOG1P_32[k])
    return s, t, v


@inline
def _parts_64(q: Any, u: Any) -> Any:
    s, t, v = _COSH_64[15], _TANH_64[10], _LOG1P_64[10]
    for k in (14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        s = fma(s, q, _COSH_64[k])
    for k in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        t, v = fma(t, q, _TANH_64[k]), fma(v, u, _LOG1P_64[k])
    return s, t, v


def parts(q: Any, u: Any) -> Any:
    """(log(cosh x)/x**2 of |x| <= 1, tanh(x)/x of |x| <= 1/2, log(1 + u)/u of |x| >= 1) of q = x**2 and
    u = exp(-2 |x|); elsewhere anything.
    """


@by_type(parts)
def _parts(q: Any, u: Any) -> Any:
    if q == u == types.float32:
        return lambda q, u: _parts_32(q, u)
    return lambda q, u: _parts_64(q, u)


@inline
def log_cosh_formula(z: Any, y: Any, _a: Any, _b: Any) -> Any:
    """|d| - log 2 + log(1 + exp(-2 |d|)), its slope (1 - e)/(1 + e) with e = exp(-2 |d|); near 0, where these
    cancel, by polynomials.
    """
    d, one = z - y, cast(1.0, z)
    size = abs(d)
    q, e = d * d, exp_nonpositive(-size)
    e *= e  # so that 4 e, where it is a normal number, is not 0
    cosh, tanh, log = parts(q, e)
    r = one / (one + e)
    slope = d * tanh if size <= cast(0.5, z) else sign(d) * ((one - e) * r)
    return (
        cosh * q if size <= one else fma(log, e, size - cast(_LN2, z)),
        slope,
        cast(4.0, z) * e * r * r,
    )


@inline
def pinball_formula(z: Any, y: Any, a: Any, b: Any) -> Any:
    """a u above the prediction, -b u below, u = y - z; b is 1 - a."""
    u = y - z
    return (
        (a if u >= 0 else -b) * u,
        -a if u > 0 else (b if u < 0 else u),
        flat(u),
    )


_MSE, _L1, _HUBER, _SMOOTH_L1, _PINBALL = (
    Elementwise(formula)
    for formula in (mse_formula, l1_formula, huber_formula, smooth_l1_formula, pinball_formula)
)
_LOG_COSH = Elementwise(log_cosh_formula)


def _bound(
    loss: Elementwise, predictions: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None,
    reduction: str, a: float = 0.0, b: float = 0.0,
) -> BoundElementLoss[Result]:
    return BoundElementwise(
        loss, ("predictions", "targets"), predictions, targets, a=a, b=b, sample_weight=sample_weight,
        reduction=reduction,
    )


# ---- doors ----------------------------------------------------------------------------------
@ElementLoss
def mse_loss(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Squared error between predictions and targets.

    .. math:: \ell_i = (z_i - y_i)^2

    The mean is the sum of s_i l_i over that of s_i. Each array is read once.

    Parameters
    ----------
    predictions : array_like, any shape
        z. Any layout; never copied whole.
    targets : array_like, the shape of `predictions`
        y; real numbers, converted to the type of `predictions`. Never broadcast.
    sample_weight : array_like, the shape of `predictions`, optional
        s, a weight for each element.
    reduction : {"mean", "sum", "none"}, default "mean"
        What becomes of the losses of the elements.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `predictions`
        Float32 for float16, bfloat16 (of ml_dtypes) and float32 predictions, otherwise float64. Losses are
        summed in float64. Derivatives have the dtype of the predictions (integers: float64).

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        `targets`, `sample_weight` or `out` has another shape; an option is out of range.

    Notes
    -----
    NaN gives NaN. With no elements, or a total weight of 0, the mean is NaN and the gradient exactly 0.
    Scratch: 98 kB a thread (float64 197 kB), 8 bytes for every 32768 elements.

    Methods: `value_and_grad`, `grad` and `value_grad_hess`, with the same options; they take `out=`, which
    may be an argument itself.

    References
    ----------
    T. Hastie, R. Tibshirani, J. Friedman, "The Elements of Statistical Learning", 2009, section 2.4.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.mse_loss([1.0, 2.0, 5.0], [1.0, 1.0, 1.0]).round(4))
    5.6667
    >>> fl.mse_loss.grad([1.0, 2.0, 5.0], [1.0, 1.0, 1.0], reduction="sum")
    array([0., 2., 8.])
    """
    return _bound(_MSE, predictions, targets, sample_weight, reduction)


@ElementLoss
def l1_loss(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Absolute error between predictions and targets.

    .. math:: \ell_i = |z_i - y_i|

    Parameters
    ----------
    predictions : array_like, any shape
        z.
    targets : array_like, the shape of `predictions`
        y.
    sample_weight : array_like, the shape of the first argument, optional
        As in `mse_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `mse_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `predictions`
        As `mse_loss`.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`.

    Notes
    -----
    The gradient is 0 where z = y. Scratch, edge cases and methods: see `mse_loss`.

    References
    ----------
    T. Hastie, R. Tibshirani, J. Friedman, "The Elements of Statistical Learning", 2009, section 10.6.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.l1_loss([1.0, 2.0, 5.0], 3 * [2.0], reduction="none")
    array([1., 0., 3.])
    """
    return _bound(_L1, predictions, targets, sample_weight, reduction)


@ElementLoss
def huber_loss(
    predictions: ArrayLike, targets: ArrayLike, *, delta: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Huber's loss: squared error for small differences, absolute error for large ones.

    .. math::

        \ell_i = \begin{cases} d_i^2/2 & |d_i| \le \delta \\ \delta (|d_i| - \delta/2) & |d_i| > \delta
        \end{cases}, \quad d_i = z_i - y_i

    Parameters
    ----------
    predictions : array_like, any shape
        z.
    targets : array_like, the shape of `predictions`
        y.
    delta : float, default 1.0
        Where the two pieces meet; > 0.
    sample_weight : array_like, the shape of the first argument, optional
        As in `mse_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `mse_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `predictions`
        As `mse_loss`.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`; `delta` is not finite and > 0.

    Notes
    -----
    The second derivative is 1 where abs(d) <= delta, else 0. Scratch, edge cases and methods: see
    `mse_loss`.

    References
    ----------
    P. J. Huber, "Robust estimation of a location parameter", 1964.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.huber_loss([0.5, 1.0, 5.0], 3 * [0.0], reduction="none")
    array([0.125, 0.5  , 4.5  ])
    """
    return _bound(_HUBER, predictions, targets, sample_weight, reduction, arrays.positive(delta, "delta"))


@ElementLoss
def smooth_l1_loss(
    predictions: ArrayLike, targets: ArrayLike, *, beta: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Absolute error, rounded off near 0: Huber's loss divided by its delta.

    .. math::

        \ell_i = \begin{cases} d_i^2/(2\beta) & |d_i| < \beta \\ |d_i| - \beta/2 & |d_i| \ge \beta
        \end{cases}, \quad d_i = z_i - y_i

    Parameters
    ----------
    predictions : array_like, any shape
        z.
    targets : array_like, the shape of `predictions`
        y.
    beta : float, default 1.0
        Where the two pieces meet; > 0, or 0 for `l1_loss`.
    sample_weight : array_like, the shape of the first argument, optional
        As in `mse_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `mse_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `predictions`
        As `mse_loss`.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`; `beta` is not finite and >= 0.

    Notes
    -----
    The second derivative is 1/beta where abs(d) < beta, else 0. Scratch, edge cases and methods: see
    `mse_loss`.

    References
    ----------
    R. Girshick, "Fast R-CNN", 2015, equation 3.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.smooth_l1_loss([0.5, 1.0, 5.0], 3 * [0.0], beta=2.0, reduction="none")
    array([0.0625, 0.25  , 4.    ])
    """
    beta = arrays.nonnegative(beta, "beta")
    inverse = 1.0 / beta if beta else 0.0
    return _bound(_SMOOTH_L1, predictions, targets, sample_weight, reduction, beta, inverse)


@ElementLoss
def log_cosh_loss(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Logarithm of the hyperbolic cosine of the error: smooth, quadratic near 0, linear far away.

    .. math:: \ell_i = \log \cosh d_i = |d_i| - \log 2 + \log(1 + e^{-2|d_i|}), \quad d_i = z_i - y_i

    Parameters
    ----------
    predictions : array_like, any shape
        z.
    targets : array_like, the shape of `predictions`
        y.
    sample_weight : array_like, the shape of the first argument, optional
        As in `mse_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `mse_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `predictions`
        As `mse_loss`.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`.

    Notes
    -----
    Nothing overflows, and small differences keep their digits. The gradient is tanh(d), the second
    derivative 1 - tanh(d)^2. Scratch, edge cases and methods: see `mse_loss`.

    References
    ----------
    R. A. Saleh, A. K. M. E. Saleh, "Statistical properties of the log-cosh loss function used in machine
    learning", 2022, equation 1.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.log_cosh_loss([1e-8, 1.0, 1000.0], 3 * [0.0], reduction="none")
    array([5.00000000e-17, 4.33780830e-01, 9.99306853e+02])
    """
    return _bound(_LOG_COSH, predictions, targets, sample_weight, reduction)


@ElementLoss
def pinball_loss(
    predictions: ArrayLike, targets: ArrayLike, *, quantile: float = 0.5,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Pinball loss: its expectation is least at a quantile of the targets.

    .. math:: \ell_i = \max(q\,(y_i - z_i),\ (q - 1)(y_i - z_i))

    Parameters
    ----------
    predictions : array_like, any shape
        z.
    targets : array_like, the shape of `predictions`
        y.
    quantile : float, default 0.5
        q, in [0, 1].
    sample_weight : array_like, the shape of the first argument, optional
        As in `mse_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `mse_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `predictions`
        As `mse_loss`.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`; `quantile` is outside [0, 1].

    Notes
    -----
    The gradient is -q below the target, 1 - q above it, and 0 at it. Scratch, edge cases and methods: see
    `mse_loss`.

    References
    ----------
    R. Koenker, G. Bassett, "Regression quantiles", 1978.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.pinball_loss([1.0, 3.0], [2.0, 2.0], quantile=0.9, reduction="none").round(4)
    array([0.9, 0.1])
    """
    q = arrays.fraction(quantile, "quantile")
    return _bound(_PINBALL, predictions, targets, sample_weight, reduction, q, 1.0 - q)
