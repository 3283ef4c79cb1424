"""Binary losses: element by element, of scores and labels -1 and 1, or of logits and targets in [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays
from fastloss._engine.elementary import exp_nonpositive, log1p_unit, log_pair, two_sum
from fastloss._engine.elementary import power as power_of
from fastloss._engine.elementwise import BoundElementwise, Elementwise, flat
from fastloss._engine.jit import inline
from fastloss._engine.loss import BoundElementLoss, ElementLoss, Result
from fastloss._engine.vector import cast, fma

__all__ = [
    "binary_cross_entropy_with_logits",
    "hinge_loss",
    "logistic_loss",
    "perceptron_loss",
    "sigmoid_focal_loss",
    "squared_hinge_loss",
]


# ---- formulas: (loss, slope, curvature) -----------------------------------------------------
@inline
def hinge_formula(z: Any, y: Any, a: Any, _b: Any) -> Any:
    """max(r, 0), r = a - y z."""
    r = a - y * z
    return (r if r > 0 else flat(r)), (-y if r > 0 else flat(r)), flat(r)


@inline
def squared_hinge_formula(z: Any, y: Any, a: Any, _b: Any) -> Any:
    """max(r, 0)**2, r = a - y z."""
    r = a - y * z
    v, two = (r if r > 0 else flat(r)), cast(2.0, z)
    return v * v, -(two * y * v), (two * y * y if r > 0 else flat(r))


@inline
def perceptron_formula(z: Any, y: Any, _a: Any, _b: Any) -> Any:
    """max(-y z, 0)."""
    r = -(y * z)
    return (r if r > 0 else flat(r)), (-y if r > 0 else flat(r)), flat(r)


@inline
def logistic_formula(z: Any, y: Any, _a: Any, _b: Any) -> Any:
    """log(1 + exp(-s)), s = y z."""
    s, one, zero = y * z, cast(1.0, z), cast(0.0, z)
    e = exp_nonpositive(-abs(s))
    r = one / (one + e)
    return (-s if s < 0 else zero) + log1p_unit(e), -(y * (e * r if s > 0 else r)), y * y * (e * r * r)


@inline
def binary_cross_entropy_formula(z: Any, y: Any, a: Any, _b: Any) -> Any:
    """(1 - y) softplus(z) + a y softplus(-z); an infinite term of weight 0 is not formed."""
    one, zero = cast(1.0, z), cast(0.0, z)
    e = exp_nonpositive(-abs(z))
    r = one / (one + e)
    negative, positive = one - y, a * y
    weight = negative if z > 0 else positive
    far = weight * (abs(z) if weight != 0 else zero)
    both = negative + positive
    p, q = (r if z > 0 else e * r), (e * r if z > 0 else r)
    return fma(both, log1p_unit(e), far), negative * p - positive * q, both * (e * r * r)


@inline
def sigmoid_focal_formula(z: Any, y: Any, a: Any, b: Any) -> Any:
    """w u**a c with c = (1 - y) softplus(z) + y softplus(-z), u = p (1 - y) + (1 - p) y and, if b >= 0,
    w = b y + (1 - b) (1 - y).
    """
    one, zero = cast(1.0, z), cast(0.0, z)
    e = exp_nonpositive(-abs(z))
    r = one / (one + e)
    log_s = log1p_unit(e)
    negative = one - y
    above, below = (z if z > 0 else zero) + log_s, (-z if z < 0 else zero) + log_s
    p, q = (r if z > 0 else e * r), (e * r if z > 0 else r)
    left = negative * above if negative != 0 else flat(z)
    c = left + (y * below if y != 0 else flat(z))
    u = p * negative + q * y
    # Of hard targets the logarithm of u is known without u, which may be 0 by underflow.
    hi, lo = log_pair(np.float64(u))
    far, near = np.float64(max(z if y == one else -z, zero)), np.float64(log_s)
    known, lost = two_sum(far, near)
    hard = y * negative == zero
    plain = a == zero
    power = one if plain else cast(
        power_of(np.float64(a), -known if hard else hi, -lost if hard else lo), z
    )
    w = b * y + (one - b) * negative if b >= 0 else one
    spread = e * r * r  # p (1 - p)
    turn = negative - y
    slope = negative * p - y * q
    # u' / u and its derivative
    rate = turn * (q if y == 0 else (p if y == one else spread / u))
    bend = rate * ((q - p) - rate)
    first = slope + (zero if plain else a * c * rate)
    second = spread if plain else spread + a * (rate * (slope + first) + c * bend)
    return w * power * c, w * power * first, w * power * second


_HINGE, _SQUARED_HINGE, _PERCEPTRON = (
    Elementwise(formula)
    for formula in (hinge_formula, squared_hinge_formula, perceptron_formula)
)
_LOGISTIC, _CROSS_ENTROPY, _FOCAL = (
    Elementwise(formula)
    for formula in (logistic_formula, binary_cross_entropy_formula, sigmoid_focal_formula)
)


def _of_labels(
    loss: Elementwise, scores: ArrayLike, labels: ArrayLike, sample_weight: ArrayLike | None,
    reduction: str, a: float = 0.0,
) -> BoundElementLoss[Result]:
    return BoundElementwise(
        loss, ("scores", "labels"), scores, labels, a=a, sample_weight=sample_weight, reduction=reduction
    )


# ---- doors ----------------------------------------------------------------------------------
@ElementLoss
def hinge_loss(
    scores: ArrayLike, labels: ArrayLike, *, margin: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Hinge loss of scores and labels -1 and 1: 0 where a score is right by the margin.

    .. math:: \ell_i = \max(m - y_i z_i, 0)

    The mean is the sum of s_i l_i over that of s_i. Each array is read once.

    Parameters
    ----------
    scores : array_like, any shape
        z. Any layout; never copied whole.
    labels : array_like, the shape of `scores`
        y, -1 or 1; other numbers enter the formula as they are. Never broadcast.
    margin : float, default 1.0
        m; any finite number.
    sample_weight : array_like, the shape of `scores`, optional
        s, a weight for each element.
    reduction : {"mean", "sum", "none"}, default "mean"
        What becomes of the losses of the elements.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `scores`
        Float32 for float16, bfloat16 (of ml_dtypes) and float32 scores, otherwise float64. Losses are
        summed in float64. Derivatives have the dtype of the scores (integers: float64).

    Raises
    ------
    TypeError
        An argument is not real; `labels` is bool (use -1 and 1).
    ValueError
        `labels`, `sample_weight` or `out` has another shape; an option is out of range.

    Notes
    -----
    The gradient is -y where y z < m, and 0 elsewhere, at y z = m too. NaN gives NaN. With no elements, or a
    total weight of 0, the mean is NaN and the gradient exactly 0. Scratch: 98 kB a thread (float64 197 kB),
    8 bytes for every 32768 elements.

    Methods: `value_and_grad`, `grad` and `value_grad_hess`, with the same options; they take `out=`, which
    may be an argument itself.

    References
    ----------
    C. Cortes, V. Vapnik, "Support-vector networks", 1995.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.hinge_loss([2.0, 0.5, -1.0], [1, 1, 1], reduction="none")
    array([0. , 0.5, 2. ])
    >>> fl.hinge_loss.grad([2.0, 0.5, -1.0], [1, 1, 1], reduction="sum")
    array([ 0., -1., -1.])
    """
    return _of_labels(_HINGE, scores, labels, sample_weight, reduction, arrays.finite(margin, "margin"))


@ElementLoss
def squared_hinge_loss(
    scores: ArrayLike, labels: ArrayLike, *, margin: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Squared hinge loss of scores and labels -1 and 1.

    .. math:: \ell_i = \max(m - y_i z_i, 0)^2

    Parameters
    ----------
    scores : array_like, any shape
        z.
    labels : array_like, the shape of `scores`
        y.
    margin : float, default 1.0
        m; any finite number.
    sample_weight : array_like, the shape of the first argument, optional
        As in `hinge_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `scores`
        As `hinge_loss`.

    Raises
    ------
    TypeError, ValueError
        As `hinge_loss`.

    Notes
    -----
    The second derivative is 2 y^2 where y z < m, else 0. Scratch, edge cases and methods: see `hinge_loss`.

    References
    ----------
    R.-E. Fan et al., "LIBLINEAR: a library for large linear classification", 2008, section 2.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.squared_hinge_loss([2.0, 0.5, -1.0], [1, 1, 1], reduction="none")
    array([0.  , 0.25, 4.  ])
    """
    margin = arrays.finite(margin, "margin")
    return _of_labels(_SQUARED_HINGE, scores, labels, sample_weight, reduction, margin)


@ElementLoss
def perceptron_loss(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Perceptron loss of scores and labels -1 and 1: the hinge loss without a margin.

    .. math:: \ell_i = \max(-y_i z_i, 0)

    Parameters
    ----------
    scores : array_like, any shape
        z.
    labels : array_like, the shape of `scores`
        y.
    sample_weight : array_like, the shape of the first argument, optional
        As in `hinge_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `scores`
        As `hinge_loss`.

    Raises
    ------
    TypeError, ValueError
        As `hinge_loss`.

    Notes
    -----
    The gradient is -y where y z < 0, and 0 elsewhere, at 0 too. Scratch, edge cases and methods: see
    `hinge_loss`.

    References
    ----------
    F. Rosenblatt, "The perceptron", 1958; the loss as in C. Bishop, "Pattern recognition and machine
    learning", 2006, equation 4.54.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.perceptron_loss([2.0, 0.5, -1.0], [1, -1, 1], reduction="none")
    array([0. , 0.5, 1. ])
    """
    return _of_labels(_PERCEPTRON, scores, labels, sample_weight, reduction)


@ElementLoss
def logistic_loss(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Logistic loss of scores and labels -1 and 1: the cross-entropy of two classes, in nats.

    .. math:: \ell_i = \log(1 + e^{-y_i z_i})

    Parameters
    ----------
    scores : array_like, any shape
        z.
    labels : array_like, the shape of `scores`
        y.
    sample_weight : array_like, the shape of the first argument, optional
        As in `hinge_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `scores`
        As `hinge_loss`.

    Raises
    ------
    TypeError, ValueError
        As `hinge_loss`.

    Notes
    -----
    Nothing overflows. Scratch, edge cases and methods: see `hinge_loss`.

    References
    ----------
    T. Hastie, R. Tibshirani, J. Friedman, "The Elements of Statistical Learning", 2009, section 10.5.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.logistic_loss([0.0, 1000.0, -1000.0], [1, 1, 1], reduction="none").round(4)
    array([6.931e-01, 0.000e+00, 1.000e+03])
    """
    return _of_labels(_LOGISTIC, scores, labels, sample_weight, reduction)


@ElementLoss
def binary_cross_entropy_with_logits(
    logits: ArrayLike, targets: ArrayLike, *, pos_weight: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Cross-entropy between logits of one class and targets in [0, 1], in nats.

    .. math:: \ell_i = (1 - t_i) \log(1 + e^{z_i}) + w\, t_i \log(1 + e^{-z_i})

    Parameters
    ----------
    logits : array_like, any shape
        z. Any layout; never copied whole.
    targets : array_like, the shape of `logits`
        t, probabilities of the class; other numbers enter the formula as they are.
    pos_weight : float, default 1.0
        w, of the positive class; > 0.
    sample_weight : array_like, the shape of the first argument, optional
        As in `hinge_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `logits`
        As `hinge_loss`.

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        `targets`, `sample_weight` or `out` has another shape; an option is out of range.

    Notes
    -----
    As `torch.nn.functional.binary_cross_entropy_with_logits`, but that an infinite logit of the right sign
    has loss 0, not NaN. With targets 0 and 1 it is `logistic_loss` of the labels -1 and 1. Scratch, edge
    cases and methods: see `hinge_loss`.

    References
    ----------
    I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", 2016, section 6.2.2.2.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.binary_cross_entropy_with_logits([0.0, 3.0, 3.0], [0.5, 1, 0], reduction="none").round(4)
    array([0.6931, 0.0486, 3.0486])
    """
    return BoundElementwise(
        _CROSS_ENTROPY, ("logits", "targets"), logits, targets,
        a=arrays.positive(pos_weight, "pos_weight"), sample_weight=sample_weight, reduction=reduction,
    )


@ElementLoss
def sigmoid_focal_loss(
    logits: ArrayLike, targets: ArrayLike, *, gamma: float = 2.0, alpha: float | None = None,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> BoundElementLoss[Result]:
    r"""Focal loss of logits of one class: cross-entropy that neglects what is easy.

    .. math::

        \ell_i = \alpha_i u_i^\gamma \left((1 - t_i) \log(1 + e^{z_i}) + t_i \log(1 + e^{-z_i})\right),
        \quad u_i = p_i (1 - t_i) + (1 - p_i) t_i, \quad p_i = \sigma(z_i)

    with alpha_i = alpha t_i + (1 - alpha) (1 - t_i), or 1 without `alpha`.

    Parameters
    ----------
    logits : array_like, any shape
        z. Any layout; never copied whole.
    targets : array_like, the shape of `logits`
        t, probabilities of the class.
    gamma : float, default 2.0
        How much easy elements are neglected; >= 0, and 0 is `binary_cross_entropy_with_logits`.
    alpha : float, optional
        The weight of the positive class, in [0, 1]; 1 - alpha is that of the negative one.
    sample_weight : array_like, the shape of the first argument, optional
        As in `hinge_loss`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `logits`
        As `hinge_loss`.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy_with_logits`.

    Notes
    -----
    As `torchvision.ops.sigmoid_focal_loss`, whose default `alpha` is 0.25 and `reduction` "none". Scratch,
    edge cases and methods: see `hinge_loss`.

    References
    ----------
    T.-Y. Lin et al., "Focal loss for dense object detection", 2017, equation 5.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.sigmoid_focal_loss([0.0, 3.0, 3.0], [1, 1, 0], reduction="none").round(4)
    array([1.7330e-01, 1.0000e-04, 2.7663e+00])
    """
    weight = -1.0 if alpha is None else arrays.fraction(alpha, "alpha")
    return BoundElementwise(
        _FOCAL, ("logits", "targets"), logits, targets, a=arrays.nonnegative(gamma, "gamma"), b=weight,
        sample_weight=sample_weight, reduction=reduction,
    )
