"""Regression losses: element by element, of predictions and targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays
from fastloss._engine.elementary import exp_nonpositive, log1p_unit
from fastloss._engine.elementwise import BoundElementwise, Elementwise, flat, sign
from fastloss._engine.jit import inline
from fastloss._engine.loss import BoundElementLoss, ElementLoss, Result
from fastloss._engine.vector import cast, fma, itemsize

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


# sinh(h)/h = sum q**k / (2k + 1)! with q = h**2 <= 1/4; of float32 the first five.
_SINH = tuple(
    1.0 / n for n in (1, 6, 120, 5040, 362880, 39916800, 6227020800, 1307674368000)
)  # fmt: skip
_LN2 = 0.6931471805599453


@inline
def log_cosh_formula(z: Any, y: Any, _a: Any, _b: Any) -> Any:
    """|d| - log 2 + log(1 + exp(-2 |d|)); up to 1, where that cancels, log(1 + u) with
    u = cosh d - 1 = 2 sinh(d/2)**2.
    """
    d, one = z - y, cast(1.0, z)
    size = abs(d)
    near = size <= one
    h = cast(0.5, z) * (d if near else cast(0.0, z))
    q = h * h
    s = cast(0.0, z)
    if itemsize(z) == 8:
        for k in (7, 6, 5):
            s = fma(s, q, cast(_SINH[k], z))
    for k in (4, 3, 2, 1, 0):
        s = fma(s, q, cast(_SINH[k], z))
    s *= h
    u = cast(2.0, z) * s * s
    e = exp_nonpositive(-size)
    e *= e
    rest = u if near else e
    far = one / (one + rest)
    log = log1p_unit(rest)
    root = cast(2.0, z) * s * cast(np.sqrt(one + s * s), z)
    return (
        log if near else (size - cast(_LN2, z)) + log,
        root * far if near else sign(d) * ((one - e) * far),
        far * far if near else cast(4.0, z) * e * far * far,
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
