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
    "check_gradient",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_hess",
    "cross_entropy_hvp",
    "log_sigmoid",
    "log_sigmoid_grad",
    "log_softmax",
    "log_softmax_jacobian",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "logsumexp_jvp",
    "logsumexp_vjp",
    "nll_loss",
    "nll_loss_grad",
    "numerical_gradient",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
    "softplus",
    "softplus_grad",
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
    y = np.asarray(targets).reshape(-1)
    classes = x.shape[1]
    w = np.ones(classes, x.dtype) if weight is None else _wide(weight)
    s = np.ones(len(y), x.dtype) if sample_weight is None else _wide(sample_weight).reshape(-1)
    counted = y != ignore_index
    one_hot = np.zeros(x.shape, x.dtype)
    one_hot[np.arange(len(y)), np.where(counted, y, 0)] = 1
    smoothing = x.dtype.type(label_smoothing)
    worth = ((1 - smoothing) * one_hot + smoothing / classes) * w
    row_weight = np.where(counted, s * (one_hot @ w), 0)
    return x, np.where(counted[:, None], worth * s[:, None], 0), row_weight


def _share(row_weight: Array, worth: Array, reduction: str) -> Any:
    """What the sum over rows is multiplied by; 0 stands for a total weight of 0."""
    if reduction == "mean":
        total = row_weight.sum()
        return 1 / total if total != 0 else 0.0
    return 1.0 if (worth != 0).any() else 0.0


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
    """-sum(Q * log P) over the classes, Q smoothed one-hot rows times the weights."""
    x, worth, row_weight = _rows(
        logits, targets, axis, weight, sample_weight, ignore_index, label_smoothing
    )
    log_p = log_softmax(x, temperature=temperature)
    used = np.asarray(targets).reshape(-1) != ignore_index
    # 0 * log 0 counts only where a class is part of the target: a one-hot's zeros are not.
    part = used[:, None] & (
        np.full(worth.shape, label_smoothing > 0)
        | (np.arange(x.shape[1]) == np.asarray(targets).reshape(-1, 1))
    )
    with np.errstate(invalid="ignore"):
        losses = -np.where(part, worth * np.where(part, log_p, 0), 0).sum(axis=1)
    if reduction == "none":
        return losses.reshape(np.shape(targets))[()]
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / row_weight.sum() if row_weight.sum() != 0 else np.nan


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
    share = _share(row_weight, worth, reduction)
    ignored = np.asarray(targets).reshape(-1, 1) == ignore_index
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
    share = _share(row_weight, worth, reduction)
    product = softmax_jvp(x, t, temperature=temperature) / temperature * share
    ignored = np.asarray(targets).reshape(-1, 1) == ignore_index
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
    share = _share(row_weight, worth, reduction)
    diagonal = np.einsum("nii->ni", softmax_jacobian(x, temperature=temperature))
    diagonal = diagonal * worth.sum(axis=1, keepdims=True) / temperature * share
    ignored = np.asarray(targets).reshape(-1, 1) == ignore_index
    return _unrows(np.where(ignored | (share == 0), 0, diagonal), logits, axis)


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
    if reduction == "none":
        return losses.reshape(np.shape(targets))[()]
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / row_weight.sum() if row_weight.sum() != 0 else np.nan


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
