"""Textbook formulas in plain NumPy: slow, clear, and sharing nothing with the kernels.

What CI holds the kernels against. Everything is computed in float64, or in longdouble for
longdouble input (which judges the float64 kernels), by other algebra than the kernels': explicit
Jacobians and Hessians, one-hot matrices, `log(sum(exp(x - max)))`. Where a textbook formula would
subtract a probability from 1, the 1 is written out as the sum of all of them, and the pair (i, i)
cancels on paper. Gradients are formulas of their own, named `NAME_grad`, `NAME_hvp`, `NAME_jvp` and
so on. Nothing is checked and memory is no object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[Any]
Axis: TypeAlias = "int | tuple[int, ...] | None"

__all__ = [
    "additive_margin_softmax_loss",
    "additive_margin_softmax_loss_grad",
    "additive_margin_softmax_loss_scale_grad",
    "arcface_loss",
    "arcface_loss_grad",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_grad",
    "binary_cross_entropy_with_logits_hess",
    "check_gradient",
    "cosine_logits",
    "cosine_logits_vjp",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_hess",
    "cross_entropy_hvp",
    "cross_entropy_temperature_grad",
    "distribution_cross_entropy",
    "entropy",
    "entropy_from_logits",
    "entropy_from_logits_vjp",
    "feature_incay_penalty",
    "feature_incay_penalty_grad",
    "focal_loss",
    "focal_loss_grad",
    "hinge_loss",
    "hinge_loss_grad",
    "hinge_loss_hess",
    "huber_loss",
    "huber_loss_grad",
    "huber_loss_hess",
    "information_content",
    "js_divergence",
    "js_divergence_from_logits",
    "js_divergence_from_logits_vjp",
    "kl_divergence",
    "kl_divergence_from_logits",
    "kl_divergence_from_logits_vjp",
    "l1_loss",
    "l1_loss_grad",
    "l1_loss_hess",
    "l1_penalty",
    "l1_penalty_grad",
    "l2_penalty",
    "l2_penalty_grad",
    "log_cosh_loss",
    "log_cosh_loss_grad",
    "log_cosh_loss_hess",
    "log_sigmoid",
    "log_sigmoid_grad",
    "log_softmax",
    "log_softmax_jacobian",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logistic_loss",
    "logistic_loss_grad",
    "logistic_loss_hess",
    "logsumexp",
    "logsumexp_jvp",
    "logsumexp_vjp",
    "lse_hinge_loss",
    "lse_hinge_loss_grad",
    "max_hinge_loss",
    "max_hinge_loss_grad",
    "mse_loss",
    "mse_loss_grad",
    "mse_loss_hess",
    "multiclass_hinge_loss",
    "multiclass_hinge_loss_grad",
    "nll_loss",
    "nll_loss_grad",
    "numerical_gradient",
    "perceptron_loss",
    "perceptron_loss_grad",
    "perceptron_loss_hess",
    "pinball_loss",
    "pinball_loss_grad",
    "pinball_loss_hess",
    "sigmoid",
    "sigmoid_focal_loss",
    "sigmoid_focal_loss_grad",
    "sigmoid_focal_loss_hess",
    "sigmoid_grad",
    "smooth_l1_loss",
    "smooth_l1_loss_grad",
    "smooth_l1_loss_hess",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
    "softplus",
    "softplus_grad",
    "squared_hinge_loss",
    "squared_hinge_loss_grad",
    "squared_hinge_loss_hess",
]


def _wide(x: ArrayLike) -> Array:
    x = np.asarray(x)
    return x if x.dtype == np.longdouble else x.astype(np.float64)


# ---- softmax family -------------------------------------------------------------------------
def softmax(x: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0) -> Array:
    """exp(z - max z) / sum(exp(z - max z)), z = x / T."""
    z = _wide(x) / temperature
    with np.errstate(invalid="ignore"):
        e = np.exp(z - z.max(axis=axis, keepdims=True))
        p: Array = e / e.sum(axis=axis, keepdims=True)
    return p


def logsumexp(x: ArrayLike, axis: Axis = -1, *, keepdims: bool = False) -> Any:
    """Max x + log(sum(exp(x - max x)))."""
    z = _wide(x)
    if z.size == 0:
        return np.full_like(z.sum(axis=axis, keepdims=keepdims), -np.inf)
    m = z.max(axis=axis, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.where(np.isinf(m), m, m + _log_sum_exp(z - m, axis))
    return s if keepdims else np.squeeze(s, axis=axis)[()]


def log_softmax(x: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0) -> Array:
    """Z - max z - log(sum(exp(z - max z))), z = x / T."""
    z = _wide(x) / temperature
    with np.errstate(invalid="ignore"):
        d: Array = z - z.max(axis=axis, keepdims=True)
        y: Array = d - _log_sum_exp(d, axis)
    return y


def _log_sum_exp(d: Array, axis: Axis) -> Array:
    """log(sum(exp(d))), max d = 0, as log(1 + the others): exp(0) = 1 would swallow small ones."""
    e = np.exp(d)
    at_top = d == 0
    ties = at_top.sum(axis=axis, keepdims=True)
    others: Array = np.where(at_top, 0, e).sum(axis=axis, keepdims=True)
    y: Array = np.where(ties == 0, np.nan, np.log1p(others + (ties - 1)))
    return y


def softmax_jacobian(x: ArrayLike, axis: int = -1, *, temperature: float = 1.0) -> Array:
    """(diag(p) - p p') / T, the class axis last; p_i (1 - p_i) is the sum of the row's others."""
    p = np.moveaxis(softmax(x, axis, temperature=temperature), axis, -1)
    dense: Array = -p[..., :, None] * p[..., None, :] / temperature
    i = np.arange(p.shape[-1])
    dense[..., i, i] = np.where(np.isnan(dense[..., i, i]), np.nan, 0)
    dense[..., i, i] -= dense.sum(axis=-1)
    return dense


def log_softmax_jacobian(x: ArrayLike, axis: int = -1, *, temperature: float = 1.0) -> Array:
    """(I - 1 p') / T, the class axis last."""
    p = np.moveaxis(softmax(x, axis, temperature=temperature), axis, -1)
    dense: Array = (np.eye(p.shape[-1]) - np.ones_like(p)[..., :, None] * p[..., None, :]) / temperature
    return dense


def _exchange(p: Array, q: Array) -> Array:
    """q - p sum(q) along the last axis: sum_j (q_i p_j - p_i q_j), in which j = i is 0."""
    pairs: Array = q[..., :, None] * p[..., None, :] - p[..., :, None] * q[..., None, :]
    sums: Array = pairs.sum(axis=-1)
    return sums


def softmax_jvp(x: ArrayLike, v: ArrayLike, axis: int = -1, *, temperature: float = 1.0) -> Array:
    """Row i: sum_j p_i p_j (v_i - v_j) / T."""
    p = np.moveaxis(softmax(x, axis, temperature=temperature), axis, -1)
    t = np.moveaxis(_wide(v), axis, -1)
    pairs = p[..., :, None] * p[..., None, :] * (t[..., :, None] - t[..., None, :])
    return np.moveaxis(pairs.sum(axis=-1) / temperature, -1, axis)


def softmax_vjp(x: ArrayLike, v: ArrayLike, axis: int = -1, *, temperature: float = 1.0) -> Array:
    """The Jacobian is symmetric."""
    return softmax_jvp(x, v, axis, temperature=temperature)


def log_softmax_jvp(
    x: ArrayLike, v: ArrayLike, axis: int = -1, *, temperature: float = 1.0
) -> Array:
    """Row i: sum_j p_j (v_i - v_j) / T."""
    p = np.moveaxis(softmax(x, axis, temperature=temperature), axis, -1)
    t = np.moveaxis(_wide(v), axis, -1)
    pairs = p[..., None, :] * (t[..., :, None] - t[..., None, :])
    return np.moveaxis(pairs.sum(axis=-1) / temperature, -1, axis)


def log_softmax_vjp(
    x: ArrayLike, v: ArrayLike, axis: int = -1, *, temperature: float = 1.0
) -> Array:
    """Row i: sum_j (v_i p_j - p_i v_j) / T."""
    p = np.moveaxis(softmax(x, axis, temperature=temperature), axis, -1)
    return np.moveaxis(_exchange(p, np.moveaxis(_wide(v), axis, -1)) / temperature, -1, axis)


def logsumexp_jvp(x: ArrayLike, v: ArrayLike, axis: Axis = -1, *, keepdims: bool = False) -> Any:
    return (softmax(x, axis) * _wide(v)).sum(axis=axis, keepdims=keepdims)


def logsumexp_vjp(x: ArrayLike, u: ArrayLike, axis: int = -1, *, keepdims: bool = False) -> Array:
    return softmax(x, axis) * (_wide(u) if keepdims else np.expand_dims(_wide(u), axis))


# ---- element-wise gates ---------------------------------------------------------------------
def softplus(x: ArrayLike) -> Array:
    """log(exp(0) + exp(x))."""
    z = _wide(x)
    y: Array = np.logaddexp(z.dtype.type(0), z)
    return y


def softplus_grad(x: ArrayLike) -> Array:
    return sigmoid(x)


def sigmoid(x: ArrayLike) -> Array:
    """exp(x) / (1 + exp(x)) for negative x, 1 / (1 + exp(-x)) otherwise."""
    z = _wide(x)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(z < 0, np.exp(z) / (1 + np.exp(z)), 1 / (1 + np.exp(-z)))


def sigmoid_grad(x: ArrayLike) -> Array:
    return sigmoid(x) * sigmoid(-_wide(x))


def log_sigmoid(x: ArrayLike) -> Array:
    return -softplus(-_wide(x))


def log_sigmoid_grad(x: ArrayLike) -> Array:
    return sigmoid(-_wide(x))


# ---- cross-entropy --------------------------------------------------------------------------
def _soft(logits: ArrayLike, targets: ArrayLike) -> bool:
    """Whether targets are rows of probabilities."""
    return np.asarray(targets).dtype.kind not in "iu" and np.shape(targets) == np.shape(logits)


def _not_counted(logits: ArrayLike, targets: ArrayLike, ignore_index: int) -> Array:
    """A column: the rows that are ignored, which rows of probabilities never are."""
    y = np.asarray(targets)
    if _soft(logits, targets):
        return np.zeros((1, 1), bool)
    ignored: Array = y.reshape(-1, 1) == ignore_index
    return ignored


def _rows(
    logits: ArrayLike,
    targets: ArrayLike,
    axis: int,
    weight: ArrayLike | None,
    sample_weight: ArrayLike | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array, Array]:
    """Logits as (N, V); the matrix of what each class is worth in each row; each row's weight."""
    x = np.moveaxis(_wide(logits), axis, -1)
    x = x.reshape(-1, x.shape[-1])
    rows, classes = x.shape
    w = np.ones(classes, x.dtype) if weight is None else _wide(weight)
    s = np.ones(rows, x.dtype) if sample_weight is None else _wide(sample_weight).reshape(-1)
    smoothing = x.dtype.type(label_smoothing)
    if _soft(logits, targets):
        q = np.moveaxis(_wide(targets), axis, -1).reshape(x.shape)
        return x, ((1 - smoothing) * q + smoothing / classes) * w * s[:, None], s
    y = np.asarray(targets).reshape(-1)
    counted = y != ignore_index
    one_hot = np.zeros(x.shape, x.dtype)
    one_hot[np.arange(rows), np.where(counted, y, 0)] = 1
    worth = ((1 - smoothing) * one_hot + smoothing / classes) * w
    row_weight = np.where(counted, s * (one_hot @ w), 0)
    return x, np.where(counted[:, None], worth * s[:, None], 0), row_weight


def _part(
    x: Array, logits: ArrayLike, targets: ArrayLike, ignore_index: int, label_smoothing: float
) -> Array:
    """Where 0 * log 0 counts: in what is part of the target, which a one-hot's zeros are not."""
    if _soft(logits, targets):
        return np.full(x.shape, True)
    at_target = np.arange(x.shape[1]) == np.asarray(targets).reshape(-1, 1)
    part: Array = at_target | (label_smoothing > 0)
    return part & ~_not_counted(logits, targets, ignore_index)


def _share(row_weight: Array, worth: Array, reduction: str) -> Any:
    """What the sum over rows is multiplied by; 0 stands for a total weight of 0."""
    if reduction == "mean":
        total = row_weight.sum()
        return 1 / total if total != 0 else 0.0
    return 1.0 if (worth != 0).any() else 0.0


def _reduced(losses: Array, row_weight: Array, reduction: str, logits: ArrayLike, axis: int) -> Any:
    """Losses of rows, weighted already, as the reduction has them."""
    if reduction == "none":
        return losses.reshape(np.moveaxis(np.asarray(logits), axis, -1).shape[:-1])[()]
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / row_weight.sum() if row_weight.sum() != 0 else np.nan


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
) -> Any:
    """-sum(Q * log P) over the classes, Q smoothed rows (one-hot, or as given) times the weights."""
    x, worth, row_weight = _rows(
        logits, targets, axis, weight, sample_weight, ignore_index, label_smoothing
    )
    log_p = log_softmax(x, temperature=temperature)
    part = _part(x, logits, targets, ignore_index, label_smoothing)
    with np.errstate(invalid="ignore"):
        losses = -np.where(part, worth * np.where(part, log_p, 0), 0).sum(axis=1)
    return _reduced(losses, row_weight, reduction, logits, axis)


def _unrows(rows: Array, logits: ArrayLike, axis: int) -> Array:
    shape = np.moveaxis(np.asarray(logits), axis, -1).shape
    return np.moveaxis(rows.reshape(shape), -1, axis)


def cross_entropy_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
) -> Array:
    """(sum(Q) P - Q) / T, scaled by the reduction."""
    x, worth, row_weight = _rows(
        logits, targets, axis, weight, sample_weight, ignore_index, label_smoothing
    )
    p = softmax(x, temperature=temperature)
    share = _share(row_weight, row_weight if _soft(logits, targets) else worth, reduction)
    ignored = _not_counted(logits, targets, ignore_index)
    grad = -_exchange(p, worth) / temperature * share
    return _unrows(np.where(ignored | (share == 0), 0, grad), logits, axis)


def cross_entropy_hvp(
    logits: ArrayLike,
    targets: ArrayLike,
    tangent: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
) -> Array:
    """H @ tangent with H = sum(Q) (diag(p) - p p') / T**2."""
    x, worth, row_weight = _rows(
        logits, targets, axis, weight, sample_weight, ignore_index, label_smoothing
    )
    t = np.moveaxis(_wide(tangent), axis, -1).reshape(x.shape)
    share = _share(row_weight, row_weight if _soft(logits, targets) else worth, reduction)
    product = softmax_jvp(x, t, temperature=temperature) / temperature * share
    ignored = _not_counted(logits, targets, ignore_index)
    product *= worth.sum(axis=1, keepdims=True)
    return _unrows(np.where(ignored | (share == 0), 0, product), logits, axis)


def cross_entropy_hess(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
) -> Array:
    """The diagonal of H."""
    x, worth, row_weight = _rows(
        logits, targets, axis, weight, sample_weight, ignore_index, label_smoothing
    )
    share = _share(row_weight, row_weight if _soft(logits, targets) else worth, reduction)
    diagonal = np.einsum("nii->ni", softmax_jacobian(x, temperature=temperature))
    diagonal = diagonal * worth.sum(axis=1, keepdims=True) / temperature * share
    ignored = _not_counted(logits, targets, ignore_index)
    return _unrows(np.where(ignored | (share == 0), 0, diagonal), logits, axis)


def cross_entropy_temperature_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
) -> Any:
    """d value / d T: sum_jk Q_j P_k (x_j - x_k) / T**2, reduced as the value is; 0 where P_k is."""
    x, worth, row_weight = _rows(
        logits, targets, axis, weight, sample_weight, ignore_index, label_smoothing
    )
    p = softmax(x, temperature=temperature)
    part = _part(x, logits, targets, ignore_index, label_smoothing)
    slopes = np.zeros_like(row_weight)
    for i, (row, q, p_row, at) in enumerate(zip(x, worth, p, part, strict=True)):
        with np.errstate(invalid="ignore"):
            gaps = np.where(p_row != 0, p_row * (row[at, None] - row), 0)
            slopes[i] = (q[at] * gaps.sum(axis=1)).sum() / temperature**2
    if reduction == "none":
        return _reduced(slopes, row_weight, reduction, logits, axis)
    share = _share(row_weight, row_weight if _soft(logits, targets) else worth, reduction)
    return slopes.sum() * share if share else slopes.dtype.type(0)


def nll_loss(
    log_probs: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """-w_t log p_t, row by row."""
    x, _, row_weight = _rows(log_probs, targets, axis, weight, None, ignore_index, 0.0)
    y = np.asarray(targets).reshape(-1)
    w = np.ones(x.shape[1]) if weight is None else _wide(weight)
    losses = np.array(
        [0.0 if t == ignore_index else -w[t] * row[t] for row, t in zip(x, y, strict=True)],
        dtype=x.dtype,
    )
    return _reduced(losses, row_weight, reduction, log_probs, axis)


def nll_loss_grad(
    log_probs: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """-w_t at the target, scaled by the reduction."""
    _, worth, row_weight = _rows(log_probs, targets, axis, weight, None, ignore_index, 0.0)
    return _unrows(-worth * _share(row_weight, worth, reduction), log_probs, axis)


# ---- margins of classes ---------------------------------------------------------------------
def _classes(
    scores: ArrayLike,
    targets: ArrayLike,
    axis: int,
    weight: ArrayLike | None,
    sample_weight: ArrayLike | None,
    ignore_index: int,
) -> tuple[Array, Array, Array, Array, Array]:
    """Scores as (N, V); the target's, as a column; where the targets are; which rows count, and
    what each is worth. Rows that do not are those of zeros, with target 0.
    """
    z = np.moveaxis(_wide(scores), axis, -1)
    z = z.reshape(-1, z.shape[-1])
    y = np.asarray(targets).reshape(-1)
    counted = y != ignore_index
    y = np.where(counted, y, 0).astype(np.int64)
    z = np.where(counted[:, None], z, 0).astype(z.dtype)
    w = np.ones(z.shape[1], z.dtype) if weight is None else _wide(weight)
    s = np.ones(len(y), z.dtype) if sample_weight is None else _wide(sample_weight).reshape(-1)
    z_y = z[np.arange(len(y)), y][:, None]
    at_target = np.arange(z.shape[1]) == y[:, None]
    return z, z_y, at_target, counted, np.where(counted, s * w[y], 0).astype(z.dtype)


def _class_losses(
    losses: Array, counted: Array, worth: Array, reduction: str, scores: ArrayLike, axis: int
) -> Any:
    with np.errstate(invalid="ignore"):
        each = np.where(counted, worth * losses, 0).astype(losses.dtype)
    return _reduced(each, worth, reduction, scores, axis)


def _class_slopes(
    slopes: Array, counted: Array, worth: Array, reduction: str, scores: ArrayLike, axis: int
) -> Array:
    share = _share(worth, worth, reduction)
    with np.errstate(invalid="ignore"):
        each = np.where(counted[:, None] & (share != 0), (worth * share)[:, None] * slopes, 0)
    return _unrows(each.astype(slopes.dtype), scores, axis)


def _gaps(z: Array, z_y: Array, at_target: Array, margin: float) -> Array:
    """z_i - z_y + m, and -inf at the target, which is none of the others."""
    with np.errstate(invalid="ignore"):
        gaps: Array = np.where(at_target, -np.inf, (z - z_y) + z.dtype.type(margin))
    return gaps


def _pushed(push: Array, at_target: Array) -> Array:
    """What the others are pushed down by, the target is pushed up by in all."""
    slopes: Array = np.where(at_target, -push.sum(axis=1, keepdims=True), push)
    return slopes


def multiclass_hinge_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: float = 1.0,
    squared: bool = False,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """Sum of max(z_i - z_y + m, 0) over the others, or of its squares."""
    z, z_y, at, counted, worth = _classes(scores, targets, axis, weight, sample_weight, ignore_index)
    hinges = np.maximum(_gaps(z, z_y, at, margin), 0)
    losses = (hinges**2 if squared else hinges).sum(axis=1)
    return _class_losses(losses, counted, worth, reduction, scores, axis)


def multiclass_hinge_loss_grad(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: float = 1.0,
    squared: bool = False,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """[z_i - z_y + m > 0], or twice the hinge, and at the target minus the sum; NaN fills its row."""
    z, z_y, at, counted, worth = _classes(scores, targets, axis, weight, sample_weight, ignore_index)
    gaps = _gaps(z, z_y, at, margin)
    push = 2 * np.maximum(gaps, 0) if squared else np.heaviside(gaps, gaps.dtype.type(0))
    push = np.where(np.isnan(gaps).any(axis=1, keepdims=True), np.nan, push).astype(z.dtype)
    return _class_slopes(_pushed(push, at), counted, worth, reduction, scores, axis)


def max_hinge_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: float = 1.0,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """The largest of the max(z_i - z_y + m, 0)."""
    z, z_y, at, counted, worth = _classes(scores, targets, axis, weight, sample_weight, ignore_index)
    losses = np.maximum(_gaps(z, z_y, at, margin), 0).max(axis=1)
    return _class_losses(losses, counted, worth, reduction, scores, axis)


def max_hinge_loss_grad(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: float = 1.0,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """1 at the first of the largest others, -1 at the target, where the loss is not 0."""
    z, z_y, at, counted, worth = _classes(scores, targets, axis, weight, sample_weight, ignore_index)
    gaps = _gaps(z, z_y, at, margin)
    first = np.arange(z.shape[1]) == np.where(at, -np.inf, z).argmax(axis=1)[:, None]
    push = np.where(first & (gaps > 0), 1, 0)
    push = np.where(np.isnan(gaps).any(axis=1, keepdims=True), np.nan, push).astype(z.dtype)
    return _class_slopes(_pushed(push, at), counted, worth, reduction, scores, axis)


def _lse_gap(z: Array, z_y: Array, at_target: Array, margin: float) -> Array:
    """LSE of the others, - z_y + m, the margin joining where it cancels; V = 1: -inf."""
    if z.shape[1] == 1:
        return np.full(len(z), -np.inf, z.dtype)
    others = np.where(at_target, -np.inf, z)
    top = others.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        log_s = np.where(np.isinf(top), 0, _log_sum_exp(others - top, 1)).astype(z.dtype)
        gap: Array = ((top - z_y) + z.dtype.type(margin) + log_s)[:, 0]
    return gap


def lse_hinge_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: float = 0.0,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """Max(log(sum of exp z_i over the others) - z_y + m, 0)."""
    z, z_y, at, counted, worth = _classes(scores, targets, axis, weight, sample_weight, ignore_index)
    losses = np.maximum(_lse_gap(z, z_y, at, margin), 0)
    return _class_losses(losses, counted, worth, reduction, scores, axis)


def lse_hinge_loss_grad(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: float = 0.0,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """The softmax of the others, -1 at the target, where the loss is not 0."""
    z, z_y, at, counted, worth = _classes(scores, targets, axis, weight, sample_weight, ignore_index)
    gap = _lse_gap(z, z_y, at, margin)[:, None]
    slopes = np.zeros_like(z)
    if z.shape[1] > 1:
        slopes = np.where(at, -1, softmax(np.where(at, -np.inf, z)))
        slopes = np.where(gap > 0, slopes, 0)
    slopes = np.where(np.isnan(gap), np.nan, slopes).astype(z.dtype)
    return _class_slopes(slopes, counted, worth, reduction, scores, axis)


def _others(x: Array, at_target: Array) -> tuple[Array, Array, Array]:
    """-log p at the target, as a column; the probabilities of the others, 0 at the target; p there."""
    p = softmax(x)
    losses = -np.where(at_target, log_softmax(x), 0).sum(axis=1, keepdims=True)
    return losses, np.where(at_target, 0 * p, p), np.where(at_target, p, 0).sum(axis=1, keepdims=True)


def additive_margin_softmax_loss(
    cosines: ArrayLike,
    targets: ArrayLike,
    *,
    scale: float = 30.0,
    margin: float = 0.35,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """-log(exp(s (z_y - m)) / (exp(s (z_y - m)) + sum of exp(s z_i) over the others))."""
    z, _, at, counted, worth = _classes(cosines, targets, axis, weight, sample_weight, ignore_index)
    losses = _others(scale * (z - z.dtype.type(margin) * at), at)[0][:, 0]
    return _class_losses(losses, counted, worth, reduction, cosines, axis)


def additive_margin_softmax_loss_grad(
    cosines: ArrayLike,
    targets: ArrayLike,
    *,
    scale: float = 30.0,
    margin: float = 0.35,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """S p for the others, minus their sum at the target."""
    z, _, at, counted, worth = _classes(cosines, targets, axis, weight, sample_weight, ignore_index)
    p = _others(scale * (z - z.dtype.type(margin) * at), at)[1]
    return _class_slopes(scale * _pushed(p, at), counted, worth, reduction, cosines, axis)


def additive_margin_softmax_loss_scale_grad(
    cosines: ArrayLike,
    targets: ArrayLike,
    *,
    scale: float = 30.0,
    margin: float = 0.35,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """d value / d s: the sum of p_i (z_i - z_y + m) over the others, reduced as the value is."""
    z, z_y, at, counted, worth = _classes(cosines, targets, axis, weight, sample_weight, ignore_index)
    p = _others(scale * (z - z.dtype.type(margin) * at), at)[1]
    gaps = _gaps(z, z_y, at, margin)
    with np.errstate(invalid="ignore"):
        slopes = np.where(p == 0, 0, p * gaps).sum(axis=1)
    if reduction != "none" and not _share(worth, worth, reduction):
        return z.dtype.type(0)
    return _class_losses(slopes, counted, worth, reduction, cosines, axis)


def _arc(z_y: Array, margin: float) -> tuple[Array, Array]:
    """The target's logit, over the scale, and its derivative."""
    c = np.clip(z_y, -1, 1)
    theta, m = np.arccos(c), c.dtype.type(margin)
    sine = np.maximum(np.sqrt((1 - c) * (1 + c)), c.dtype.type(1e-6))
    near = c > -np.cos(m)  # cos(pi - m), and sin(pi - m) = sin(m)
    phi = np.where(np.isnan(c), c, np.where(near, np.cos(theta + m), c - m * np.sin(m)))
    return phi, np.where(near, np.sin(theta + m) / sine, np.ones_like(c))


def arcface_loss(
    cosines: ArrayLike,
    targets: ArrayLike,
    *,
    scale: float = 64.0,
    margin: float = 0.5,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """Cross-entropy of s z, but s cos(theta_y + m) at the target; where that turns up again,
    s (cos theta_y - m sin m).
    """
    z, z_y, at, counted, worth = _classes(cosines, targets, axis, weight, sample_weight, ignore_index)
    losses = _others(scale * np.where(at, _arc(z_y, margin)[0], z), at)[0][:, 0]
    return _class_losses(losses, counted, worth, reduction, cosines, axis)


def arcface_loss_grad(
    cosines: ArrayLike,
    targets: ArrayLike,
    *,
    scale: float = 64.0,
    margin: float = 0.5,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """S p for the others, minus their sum at the target times d cos(theta + m) / d cos(theta)."""
    z, z_y, at, counted, worth = _classes(cosines, targets, axis, weight, sample_weight, ignore_index)
    phi, turn = _arc(z_y, margin)
    slopes = scale * _pushed(_others(scale * np.where(at, phi, z), at)[1], at)
    slopes = np.where(at, slopes * turn, slopes)
    return _class_slopes(slopes, counted, worth, reduction, cosines, axis)


def focal_loss(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    gamma: float = 2.0,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """(1 - p)**gamma (-log p), 1 - p as the sum of the others."""
    z, _, at, counted, worth = _classes(logits, targets, axis, weight, sample_weight, ignore_index)
    nll, others, _ = _others(z, at)
    rest = others.sum(axis=1, keepdims=True)
    losses = (rest**gamma * nll)[:, 0]
    return _class_losses(losses, counted, worth, reduction, logits, axis)


def focal_loss_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    gamma: float = 2.0,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """By the product rule, q = 1 - p: q**gamma (q - gamma p log p) for all the others together,
    among which it is shared as their probabilities are; minus that at the target.
    """
    z, _, at, counted, worth = _classes(logits, targets, axis, weight, sample_weight, ignore_index)
    nll, others, p = _others(z, at)
    rest = others.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        total = rest**gamma * (rest + gamma * np.where(p == 0, 0, p * nll))
        shares = np.where(rest == 0, 0, others / np.where(rest == 0, 1, rest))
    slopes = np.where(at, -total, shares * total).astype(z.dtype)
    return _class_slopes(slopes, counted, worth, reduction, logits, axis)


def _directions(rows: ArrayLike) -> tuple[Array, Array]:
    """Rows over their lengths, and 1 / length; zeros where the row is."""
    f = _wide(rows)
    size = abs(f).max(axis=-1, keepdims=True, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.where(size == 0, 0, f / size)
        length = np.sqrt((d * d).sum(axis=-1, keepdims=True))
        inverse = np.where(size == 0, 0, 1 / length / size).astype(f.dtype)
        units = np.where(size == 0, 0, d / length).astype(f.dtype)
    return units, inverse


def cosine_logits(features: ArrayLike, class_weights: ArrayLike, *, scale: float = 1.0) -> Array:
    """S <f, w> / (|f| |w|), 0 for vectors of length 0."""
    cosines: Array = scale * (_directions(features)[0] @ _directions(class_weights)[0].T)
    return cosines


def cosine_logits_vjp(
    features: ArrayLike, class_weights: ArrayLike, cotangent: ArrayLike, *, scale: float = 1.0
) -> tuple[Array, Array]:
    """S (w - f <f, w>) / |f| of unit vectors f and w, times u and summed; and the other way round."""
    f, per_length = _directions(features)
    w, per_weight = _directions(class_weights)
    u = _wide(cotangent)
    d_f, d_w = u @ w, u.reshape(-1, len(w)).T @ f.reshape(-1, f.shape[-1])
    d_f = d_f - f * (f * d_f).sum(axis=-1, keepdims=True)
    d_w = d_w - w * (w * d_w).sum(axis=-1, keepdims=True)
    return scale * d_f * per_length, scale * d_w * per_weight


# ---- gradient checks ------------------------------------------------------------------------
def numerical_gradient(
    f: Callable[[Array], Any], x: Array, *, step: float = 1e-3, method: str = "4-point"
) -> Array:
    """(8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h, or the 2-point formulas."""
    stencil = {
        "4-point": {1: 8 / 12, -1: -8 / 12, 2: -1 / 12, -2: 1 / 12},
        "central": {1: 1 / 2, -1: -1 / 2},
        "forward": {1: 1.0, 0: -1.0},
    }[method]
    grad = np.zeros(x.shape, np.float64)
    for k in np.ndindex(x.shape):
        for at, share in stencil.items():
            moved = np.array(x, np.float64)
            moved[k] += at * step
            grad[k] += share * float(f(moved)) / step
    return grad


def check_gradient(
    f: Callable[[Array], Any], grad: Array | Callable[[Array], Array], x: Array
) -> float:
    """Max |a - n| / max(|a|, |n|, 1e-8 max |n|), n by 4-point differences."""
    a = grad(x) if callable(grad) else grad
    n = numerical_gradient(f, x)
    floor = 1e-8 * max(abs(n).max(initial=0.0), np.finfo(float).tiny)
    return float((abs(a - n) / np.maximum(np.maximum(abs(a), abs(n)), floor)).max(initial=0.0))


# ---- element-wise losses --------------------------------------------------------------------
def _shared(each: Array, sample_weight: ArrayLike | None, reduction: str) -> Any:
    """Losses of elements as the reduction has them."""
    s = np.ones_like(each) if sample_weight is None else _wide(sample_weight)
    if reduction == "none":
        return (s * each)[()]
    with np.errstate(invalid="ignore"):
        return (s * each).sum() / (s.sum() if reduction == "mean" else 1)


def _scaled(each: Array, sample_weight: ArrayLike | None, reduction: str) -> Array:
    """Derivatives of elements as those of what the reduction makes."""
    s = np.ones_like(each) if sample_weight is None else _wide(sample_weight)
    total = s.sum() if reduction == "mean" else s.any()
    scaled: Array = each * (s / total) if total else np.zeros_like(each)
    return scaled if reduction == "mean" or not total else each * s


def mse_loss(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Any:
    """(z - y)**2."""
    return _shared((_wide(predictions) - _wide(targets)) ** 2, sample_weight, reduction)


def mse_loss_grad(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """2 (z - y)."""
    return _scaled(2 * (_wide(predictions) - _wide(targets)), sample_weight, reduction)


def mse_loss_hess(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """2."""
    return _scaled(np.full_like(_wide(predictions) - _wide(targets), 2), sample_weight, reduction)


def l1_loss(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Any:
    """Max(z, y) - min(z, y)."""
    z, y = _wide(predictions), _wide(targets)
    return _shared(np.maximum(z, y) - np.minimum(z, y), sample_weight, reduction)


def l1_loss_grad(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """[z > y] - [z < y]."""
    z, y = _wide(predictions), _wide(targets)
    return _scaled((z > y).astype(z.dtype) - (z < y), sample_weight, reduction)


def l1_loss_hess(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """0."""
    return _scaled(np.zeros_like(_wide(predictions) - _wide(targets)), sample_weight, reduction)


def huber_loss(
    predictions: ArrayLike, targets: ArrayLike, *, delta: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Any:
    """C (d - c/2), c = d clipped to [-delta, delta]."""
    d = _wide(predictions) - _wide(targets)
    c = np.clip(d, -delta, delta)
    return _shared(c * (d - c / 2), sample_weight, reduction)


def huber_loss_grad(
    predictions: ArrayLike, targets: ArrayLike, *, delta: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """D clipped."""
    d = _wide(predictions) - _wide(targets)
    return _scaled(np.clip(d, -delta, delta), sample_weight, reduction)


def huber_loss_hess(
    predictions: ArrayLike, targets: ArrayLike, *, delta: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """1 where d is not clipped."""
    d = _wide(predictions) - _wide(targets)
    return _scaled((np.clip(d, -delta, delta) == d).astype(d.dtype), sample_weight, reduction)


def smooth_l1_loss(
    predictions: ArrayLike, targets: ArrayLike, *, beta: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Any:
    """Huber's loss with delta = beta, over beta."""
    if beta == 0:
        return l1_loss(predictions, targets, sample_weight=sample_weight, reduction=reduction)
    d = _wide(predictions) - _wide(targets)
    c = np.clip(d, -beta, beta)
    return _shared(c * (d - c / 2) / beta, sample_weight, reduction)


def smooth_l1_loss_grad(
    predictions: ArrayLike, targets: ArrayLike, *, beta: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """D clipped to [-beta, beta], over beta."""
    d = _wide(predictions) - _wide(targets)
    if beta == 0:
        return _scaled(np.sign(d), sample_weight, reduction)
    return _scaled(np.clip(d, -beta, beta) / beta, sample_weight, reduction)


def smooth_l1_loss_hess(
    predictions: ArrayLike, targets: ArrayLike, *, beta: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """1/beta where |d| < beta."""
    d = _wide(predictions) - _wide(targets)
    return _scaled(np.where(abs(d) < beta, 1 / (beta or 1), 0 * d), sample_weight, reduction)


def log_cosh_loss(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Any:
    """log((exp d + exp -d)/2), or where |d| < 1 log(1 + (exp(d/2) - exp(-d/2))**2 / 2)."""
    d = _wide(predictions) - _wide(targets)
    near = np.log1p(2 * np.sinh(np.clip(d, -1, 1) / 2) ** 2)
    far = np.logaddexp(d, -d) - np.log(d.dtype.type(2))
    return _shared(np.where(abs(d) < 1, near, far), sample_weight, reduction)


def log_cosh_loss_grad(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """tanh d."""
    return _scaled(np.tanh(_wide(predictions) - _wide(targets)), sample_weight, reduction)


def log_cosh_loss_hess(
    predictions: ArrayLike, targets: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """1 / (cosh d)**2, cosh d = (1 + e**2) / 2e, e = exp(-|d|)."""
    e = np.exp(-abs(_wide(predictions) - _wide(targets)))
    return _scaled((2 * e / (1 + e * e)) ** 2, sample_weight, reduction)


def pinball_loss(
    predictions: ArrayLike, targets: ArrayLike, *, quantile: float = 0.5,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Any:
    """Max(q u, (q - 1) u), u = y - z."""
    u = _wide(targets) - _wide(predictions)
    return _shared(np.maximum(quantile * u, (quantile - 1) * u), sample_weight, reduction)


def pinball_loss_grad(
    predictions: ArrayLike, targets: ArrayLike, *, quantile: float = 0.5,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """[u < 0] (1 - q) - [u > 0] q."""
    u = _wide(targets) - _wide(predictions)
    return _scaled((u < 0) * (1 - quantile) - (u > 0) * (quantile + 0 * u), sample_weight, reduction)


def pinball_loss_hess(
    predictions: ArrayLike, targets: ArrayLike, *, quantile: float = 0.5,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """0."""
    return _scaled(np.zeros_like(quantile * (_wide(targets) - _wide(predictions))), sample_weight, reduction)


def hinge_loss(
    scores: ArrayLike, labels: ArrayLike, *, margin: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Any:
    """Max(m - y z, 0)."""
    return _shared(np.maximum(margin - _wide(labels) * _wide(scores), 0), sample_weight, reduction)


def hinge_loss_grad(
    scores: ArrayLike, labels: ArrayLike, *, margin: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """-y [y z < m]."""
    y = _wide(labels)
    return _scaled(-y * (y * _wide(scores) < margin), sample_weight, reduction)


def hinge_loss_hess(
    scores: ArrayLike, labels: ArrayLike, *, margin: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """0."""
    return _scaled(np.zeros_like(margin - _wide(labels) * _wide(scores)), sample_weight, reduction)


def squared_hinge_loss(
    scores: ArrayLike, labels: ArrayLike, *, margin: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Any:
    """Max(m - y z, 0)**2."""
    return _shared(np.maximum(margin - _wide(labels) * _wide(scores), 0) ** 2, sample_weight, reduction)


def squared_hinge_loss_grad(
    scores: ArrayLike, labels: ArrayLike, *, margin: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """-2 y max(m - y z, 0)."""
    y = _wide(labels)
    return _scaled(-2 * y * np.maximum(margin - y * _wide(scores), 0), sample_weight, reduction)


def squared_hinge_loss_hess(
    scores: ArrayLike, labels: ArrayLike, *, margin: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """2 y**2 [y z < m]."""
    y = _wide(labels)
    return _scaled(2 * y * y * (y * _wide(scores) < margin), sample_weight, reduction)


def perceptron_loss(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Any:
    """Max(-y z, 0)."""
    return _shared(np.maximum(-_wide(labels) * _wide(scores), 0), sample_weight, reduction)


def perceptron_loss_grad(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """-y [y z < 0]."""
    y = _wide(labels)
    return _scaled(-y * (y * _wide(scores) < 0), sample_weight, reduction)


def perceptron_loss_hess(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """0."""
    return _scaled(np.zeros_like(_wide(labels) * _wide(scores)), sample_weight, reduction)


def logistic_loss(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Any:
    """log(exp 0 + exp(-y z))."""
    return _shared(np.logaddexp(0, -_wide(labels) * _wide(scores)), sample_weight, reduction)


def _logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), as a ratio of numbers that do not overflow."""
    with np.errstate(over="ignore"):
        y: Array = np.exp(np.minimum(x, 0)) / (np.exp(np.minimum(x, 0)) + np.exp(-np.maximum(x, 0)))
    return y


def logistic_loss_grad(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """-y / (1 + exp(y z))."""
    y = _wide(labels)
    return _scaled(-y * _logistic(-y * _wide(scores)), sample_weight, reduction)


def logistic_loss_hess(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:
    """(y / (exp(s/2) + exp(-s/2)))**2, s = y z."""
    y = _wide(labels)
    s = np.clip(y * _wide(scores), -1400, 1400)
    return _scaled((y / (np.exp(s / 2) + np.exp(-s / 2))) ** 2, sample_weight, reduction)


def binary_cross_entropy_with_logits(
    logits: ArrayLike, targets: ArrayLike, *, pos_weight: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Any:
    """-(w t log p + (1 - t) log(1 - p))."""
    z, t = _wide(logits), _wide(targets)
    each = pos_weight * t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
    return _shared(each, sample_weight, reduction)


def binary_cross_entropy_with_logits_grad(
    logits: ArrayLike, targets: ArrayLike, *, pos_weight: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """(1 - t) p - w t (1 - p)."""
    z, t = _wide(logits), _wide(targets)
    each = (1 - t) * _logistic(z) - pos_weight * t * _logistic(-z)
    return _scaled(each, sample_weight, reduction)


def binary_cross_entropy_with_logits_hess(
    logits: ArrayLike, targets: ArrayLike, *, pos_weight: float = 1.0,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """(1 - t + w t) p (1 - p)."""
    z, t = _wide(logits), _wide(targets)
    each = (1 - t + pos_weight * t) * _logistic(z) * _logistic(-z)
    return _scaled(each, sample_weight, reduction)


def _focal_parts(z: Array, t: Array, alpha: float | None) -> tuple[Array, Array, Array, Array]:
    """The weight, u and the cross-entropy of the focal loss, and d u / d z."""
    p, q = _logistic(z), _logistic(-z)
    weight = np.ones_like(z) if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    cross = t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
    return weight, p * (1 - t) + q * t, cross, (1 - 2 * t) * p * q


def sigmoid_focal_loss(
    logits: ArrayLike, targets: ArrayLike, *, gamma: float = 2.0, alpha: float | None = None,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Any:
    """Alpha_t (1 - p_t)**gamma times the cross-entropy."""
    weight, u, cross, _ = _focal_parts(_wide(logits), _wide(targets), alpha)
    return _shared(weight * u**gamma * cross, sample_weight, reduction)


def sigmoid_focal_loss_grad(
    logits: ArrayLike, targets: ArrayLike, *, gamma: float = 2.0, alpha: float | None = None,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """By the product rule; powers below gamma are of u > 0."""
    z, t = _wide(logits), _wide(targets)
    weight, u, cross, turn = _focal_parts(z, t, alpha)
    slope = (1 - t) * _logistic(z) - t * _logistic(-z)
    each = u**gamma * slope + gamma * u ** (gamma - 1) * turn * cross
    return _scaled(weight * each, sample_weight, reduction)


def sigmoid_focal_loss_hess(
    logits: ArrayLike, targets: ArrayLike, *, gamma: float = 2.0, alpha: float | None = None,
    sample_weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:
    """By the product rule, twice."""
    z, t = _wide(logits), _wide(targets)
    weight, u, cross, turn = _focal_parts(z, t, alpha)
    p, q = _logistic(z), _logistic(-z)
    slope, bend = (1 - t) * p - t * q, turn * (q - p)
    each = (
        u**gamma * p * q + 2 * gamma * u ** (gamma - 1) * turn * slope
        + (gamma * (gamma - 1) * u ** (gamma - 2) * turn**2 + gamma * u ** (gamma - 1) * bend) * cross
    )
    return _scaled(weight * each, sample_weight, reduction)


# ---- penalties ------------------------------------------------------------------------------
def l2_penalty(w: ArrayLike) -> Any:
    """<w, w>."""
    v = _wide(w).reshape(-1)
    return v @ v


def l2_penalty_grad(w: ArrayLike) -> Array:
    """2 w."""
    v: Array = 2 * _wide(w)
    return v


def l1_penalty(w: ArrayLike) -> Any:
    """<sign w, w>."""
    v = _wide(w).reshape(-1)
    return np.sign(v) @ v


def l1_penalty_grad(w: ArrayLike) -> Array:
    """[w > 0] - [w < 0]."""
    v = _wide(w)
    g: Array = (v > 0).astype(v.dtype) - (v < 0)
    return g


def feature_incay_penalty(features: ArrayLike, *, eps: float = 1e-6) -> Any:
    """Sum of 1 / (|f|**2 + eps)."""
    f = _wide(features)
    return (1 / ((f * f).sum(axis=-1) + eps)).sum()


def feature_incay_penalty_grad(features: ArrayLike, *, eps: float = 1e-6) -> Array:
    """-2 f / (|f|**2 + eps)**2."""
    f = _wide(features)
    g: Array = -2 * f / ((f * f).sum(axis=-1, keepdims=True) + eps) ** 2
    return g


# ---- divergences ----------------------------------------------------------------------------
def _unit(base: float | None) -> Any:
    return 1.0 if base is None else float(np.log(base))


def _over_rows(rows: Any, base: float | None, reduction: str) -> Any:
    """Numbers of rows, in nats, as the reduction has them."""
    rows = np.asarray(rows) / _unit(base)
    if reduction == "none":
        return rows[()]
    return rows.sum() / (rows.size if reduction == "mean" else 1)


def _share_of_rows(rows: Array, base: float | None, reduction: str, cotangent: ArrayLike, axis: int) -> Any:
    """What derivatives of rows are multiplied by, of gradients of a shape."""
    share = _wide(cotangent) / _unit(base)
    if reduction == "none":
        return np.expand_dims(share, axis)
    return share / (rows.size // rows.shape[axis] if reduction == "mean" else 1)


def _times_log(p: Array, q: Array) -> Array:
    """P log q, 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        each: Array = np.where((p == 0) & (q >= 0), 0, np.where(p >= 0, p * np.log(q), np.nan))
    return each


def information_content(p: ArrayLike, *, base: float | None = None) -> Any:
    """log(1/p)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.log(_wide(p)) / _unit(base)


def entropy(
    p: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> Any:
    """-sum(p log p)."""
    return _over_rows(-_times_log(_wide(p), _wide(p)).sum(axis=axis), base, reduction)


def distribution_cross_entropy(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> Any:
    """-sum(p log q)."""
    return _over_rows(-_times_log(_wide(p), _wide(q)).sum(axis=axis), base, reduction)


def kl_divergence(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> Any:
    """sum(p log(p/q))."""
    p, q = _wide(p), _wide(q)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where((p >= 0) & (q >= 0), np.where(p == 0, 0, p * np.log(p / q)), np.nan)
        return _over_rows(each.sum(axis=axis), base, reduction)


def js_divergence(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> Any:
    """H(m) - (H(p) + H(q))/2, m = (p + q)/2, term by term."""
    p, q = _wide(p), _wide(q)
    m = (p + q) / 2
    each = (_times_log(p, p) + _times_log(q, q)) / 2 - _times_log(m, m)
    return _over_rows(each.sum(axis=axis), base, reduction)


def _logs(x: ArrayLike, axis: Axis, temperature: float) -> tuple[Array, Array]:
    """Probabilities of logits and their logarithms."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return softmax(x, axis, temperature=temperature), log_softmax(x, axis, temperature=temperature)


def entropy_from_logits(
    x: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> Any:
    """-sum(p log p) of p = softmax(x)."""
    p, log_p = _logs(x, axis, 1.0)
    with np.errstate(invalid="ignore"):
        each = np.where(log_p == -np.inf, 0, p * log_p)
    return _over_rows(-each.sum(axis=axis), base, reduction)


def entropy_from_logits_vjp(
    x: ArrayLike, cotangent: ArrayLike, axis: int = -1, *, base: float | None = None,
    reduction: str = "none",
) -> Array:
    """Row i: -sum_j p_i p_j (log p_i - log p_j)."""
    p, log_p = _logs(x, axis, 1.0)
    slope = -softmax_jvp(x, np.where(log_p == -np.inf, 0, log_p), axis)
    scaled: Array = slope * _share_of_rows(p, base, reduction, cotangent, axis)
    return scaled


def kl_divergence_from_logits(
    p_logits: ArrayLike, q_logits: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0,
    base: float | None = None, reduction: str = "none",
) -> Any:
    """sum(p (log p - log q)) of p = softmax(a/T), q = softmax(b/T)."""
    p, log_p = _logs(p_logits, axis, temperature)
    q, log_q = _logs(q_logits, axis, temperature)
    with np.errstate(invalid="ignore"):
        each = np.where(log_p == -np.inf, 0 * q, p * (log_p - log_q))
        each = np.where((log_p > -np.inf) & (log_q == -np.inf), np.inf, each)
    return _over_rows(each.sum(axis=axis), base, reduction)


def kl_divergence_from_logits_vjp(
    p_logits: ArrayLike, q_logits: ArrayLike, cotangent: ArrayLike, axis: int = -1, *,
    temperature: float = 1.0, base: float | None = None, reduction: str = "none",
) -> tuple[Array, Array]:
    """sum_j p_i p_j (v_i - v_j)/T with v = log p - log q; and sum_j (q_i p_j - p_i q_j)/T."""
    p, log_p = _logs(p_logits, axis, temperature)
    q, log_q = _logs(q_logits, axis, temperature)
    with np.errstate(invalid="ignore"):
        v = np.where(log_p == -np.inf, 0 * q, log_p - log_q)
    share = _share_of_rows(p, base, reduction, cotangent, axis)
    left = softmax_jvp(p_logits, v, axis, temperature=temperature)
    right = np.moveaxis(_exchange(np.moveaxis(p, axis, -1), np.moveaxis(q, axis, -1)), -1, axis)
    return left * share, right / temperature * share


def js_divergence_from_logits(
    p_logits: ArrayLike, q_logits: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0,
    base: float | None = None, reduction: str = "none",
) -> Any:
    """(sum(p (log p - log m)) + sum(q (log q - log m)))/2, log m = log(exp(log p) + exp(log q)) - log 2."""
    p, log_p = _logs(p_logits, axis, temperature)
    q, log_q = _logs(q_logits, axis, temperature)
    with np.errstate(invalid="ignore"):
        log_m = np.logaddexp(log_p, log_q) - np.log(p.dtype.type(2))
        left = np.where(log_p == -np.inf, 0 * q, p * (log_p - log_m))
        right = np.where(log_q == -np.inf, 0 * p, q * (log_q - log_m))
    return _over_rows((left + right).sum(axis=axis) / 2, base, reduction)


def js_divergence_from_logits_vjp(
    p_logits: ArrayLike, q_logits: ArrayLike, cotangent: ArrayLike, axis: int = -1, *,
    temperature: float = 1.0, base: float | None = None, reduction: str = "none",
) -> tuple[Array, Array]:
    """sum_j p_i p_j (v_i - v_j)/T with v = (log p - log m)/2; and the same with q for p."""
    p, log_p = _logs(p_logits, axis, temperature)
    q, log_q = _logs(q_logits, axis, temperature)
    with np.errstate(invalid="ignore"):
        log_m = np.logaddexp(log_p, log_q) - np.log(p.dtype.type(2))
        v = np.where(log_p == -np.inf, 0 * q, (log_p - log_m) / 2)
        w = np.where(log_q == -np.inf, 0 * p, (log_q - log_m) / 2)
    share = _share_of_rows(p, base, reduction, cotangent, axis)
    left = softmax_jvp(p_logits, v, axis, temperature=temperature)
    return left * share, softmax_jvp(q_logits, w, axis, temperature=temperature) * share
