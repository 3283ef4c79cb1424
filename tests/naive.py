"""The max-shifted textbook formulas in the type of their input: what an excess error is measured
against. In a wider type they also judge rows too long for the reference's explicit matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from fastloss import reference

Array = Any


# What formulas of the reference call.
def in_type(formula: Any) -> Any:
    """A formula of the reference, element by element, in the type of its input."""
    names = dict(vars(reference))
    for name, own in vars(reference).items():
        if isinstance(own, FunctionType) and own.__module__ == reference.__name__:
            names[name] = FunctionType(own.__code__, names, name, own.__defaults__)
            names[name].__kwdefaults__ = own.__kwdefaults__
    names["_wide"] = np.asarray
    return names[formula.__name__]


# ---- what is subtracted from what: the size of the terms of products with a Jacobian ----------
def softmax_terms(x: Array, v: Array, axis: Any = -1, *, temperature: float = 1.0) -> Array:
    p, v = softmax(x, axis, temperature=temperature), np.abs(v)
    return p * (v + (p * v).sum(axis=axis, keepdims=True)) / temperature


def log_softmax_terms(x: Array, v: Array, axis: Any = -1, *, temperature: float = 1.0) -> Array:
    p, v = softmax(x, axis, temperature=temperature), np.abs(v)
    return (v + p * v.sum(axis=axis, keepdims=True) + (p * v).sum(axis=axis, keepdims=True)) / temperature


def logsumexp_terms(x: Array, v: Array, axis: Any = -1, *, keepdims: bool = False) -> Array:
    return (softmax(x, axis) * np.abs(v)).sum(axis=axis, keepdims=keepdims)


def cross_entropy_terms(x: Array, y: Array, tangent: Array, **options: Any) -> Array:
    x, q, row, shape, axis = _parts(x, y, options)
    v = np.moveaxis(tangent, axis, -1).reshape(x.shape)
    t = options.get("temperature", 1.0)
    size = softmax_terms(x, v, temperature=t) / t * q.sum(axis=-1, keepdims=True)
    return _back(size * _share(row, options.get("reduction", "mean")), shape, axis)


def _total(each: Array, options: dict[str, Any]) -> Array:
    return reference._scaled(each, options.get("sample_weight"), options.get("reduction", "mean"))


def binary_cross_entropy_terms(z: Array, t: Array, *, pos_weight: float = 1.0, **options: Any) -> Array:
    p, q = reference.sigmoid(z), reference.sigmoid(-z)
    return _total((1 - t) * p + pos_weight * t * q, options)


def focal_terms(
    z: Array, t: Array, *, gamma: float = 2.0, alpha: float | None = None, **options: Any
) -> tuple[Array, Array]:
    """Of the gradient, and of the diagonal of the Hessian."""
    p, q = reference.sigmoid(z), reference.sigmoid(-z)
    weight, u, cross, _ = reference._focal_parts(z.astype(np.float64), t.astype(np.float64), alpha)
    slope, rate = (1 - t) * p + t * q, p * q / u
    first = u**gamma * (slope + gamma * rate * cross)
    second = u**gamma * (p * q + 2 * gamma * rate * slope + gamma * (gamma + 1) * rate * cross * (rate + 1))
    return _total(weight * first, options), _total(weight * second, options)


def probability_terms(x: Array, y: Array, **options: Any) -> Array:
    """Of the gradient of cross-entropy, sum(q) p - q, which cancels where probability targets are met."""
    x, q, row, shape, axis = _parts(x, y, options)
    t = options.get("temperature", 1.0)
    size = (np.abs(q).sum(axis=-1, keepdims=True) * softmax(x, temperature=t) + np.abs(q)) / t
    return _back(size * _share(row, options.get("reduction", "mean")), shape, axis)


def temperature_terms(x: Array, y: Array, **options: Any) -> Array:
    """Gaps to the largest logit: those of the targets, and those that are expected."""
    x, q, row, shape, _ = _parts(x, y, options)
    t = options.get("temperature", 1.0)
    gaps, q = x.max(axis=-1, keepdims=True) - x, np.abs(q)
    size = ((q * gaps).sum(axis=-1) + q.sum(axis=-1) * (softmax(x, temperature=t) * gaps).sum(axis=-1)) / t**2
    reduction = options.get("reduction", "mean")
    if reduction == "none":
        return _of_rows(size, shape)
    return size.sum() * _share(row, reduction)


def _of_classes(
    z: Array, y: Array, options: dict[str, Any]
) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    """What `reference._classes` makes of them; what reduces losses of rows, and slopes."""
    chosen = {"axis": -1, "weight": None, "sample_weight": None, "ignore_index": -100, **options}
    reduction = chosen.pop("reduction", "mean")
    rows = reference._classes(z.astype(np.float64), y, **chosen)
    rest = (*rows[-2:], reduction, z, chosen["axis"])
    return (
        rows[:3], lambda size: reference._class_losses(size, *rest),
        lambda size: reference._class_slopes(size, *rest),
    )


def multiclass_hinge_terms(
    z: Array, y: Array, *, margin: float = 1.0, squared: bool = False, **options: Any
) -> tuple[Array, Array]:
    """Of the value and of the gradient."""
    (z, z_y, at), losses, slopes = _of_classes(z, y, options)
    size = np.where(at, 0, np.abs(z - z_y) + abs(margin))
    gaps = np.maximum(reference._gaps(z, z_y, at, margin), 0)
    size = np.where(gaps + 1e-6 * size > 0, size, 0)
    push = 2 * size if squared else (size > 0).astype(size.dtype)
    value = losses((2 * size * gaps if squared else size).sum(axis=1))
    return value, slopes(np.abs(reference._pushed(push, at)))


def max_hinge_terms(z: Array, y: Array, *, margin: float = 1.0, **options: Any) -> Array:
    (z, z_y, at), losses, _ = _of_classes(z, y, options)
    top = np.where(at, -np.inf, z).max(axis=1, keepdims=True)
    size = np.abs(top - z_y) + abs(margin)
    return losses(np.where(top - z_y + margin + 1e-6 * size > 0, size, 0)[:, 0])


def lse_hinge_terms(z: Array, y: Array, *, margin: float = 0.0, **options: Any) -> Array:
    (z, z_y, at), losses, _ = _of_classes(z, y, options)
    if z.shape[1] == 1:
        return losses(np.zeros(len(z)))
    others = np.where(at, -np.inf, z)
    top = others.max(axis=1, keepdims=True)
    size = np.abs(top - z_y)[:, 0] + abs(margin) + reference._log_sum_exp(others - top, 1)[:, 0]
    gap = reference._lse_gap(z, z_y, at, margin)
    return losses(np.where(gap + 1e-6 * size > 0, size, 0))


def scaled_terms(
    z: Array, y: Array, *, scale: float, margin: float, arc: bool = False, **options: Any
) -> tuple[Array, Array, Array]:
    """Of value, gradient and derivative by the scale: cosines rounded once are logits off by the scale."""
    (z, z_y, at), losses, slopes = _of_classes(z, y, options)
    target, turn = z_y - margin, np.ones_like(z_y)
    if arc:
        target, slope = reference._arc(z_y, margin)
        sine = np.maximum(np.sqrt(np.maximum((1 - z_y) * (1 + z_y), 0)), 1e-6)
        turn = np.maximum(np.abs(slope), np.where(slope == 1, 1, 1 + np.abs(z_y) * np.sin(margin) / sine))
    nll, p, _ = reference._others(scale * np.where(at, target, z), at)
    gaps = np.abs(z - z_y) + abs(margin) + arc
    off = scale * gaps
    mean = (p * off).sum(axis=1, keepdims=True)
    push = scale * p * (1 + off + mean)
    by_scale = (p * gaps * (1 + off + mean)).sum(axis=1)
    pushed = np.abs(reference._pushed(push, at)) * np.where(at, turn, 1)
    return losses((nll + mean)[:, 0]), slopes(pushed), losses(by_scale)


def cosine_terms(f: Array, w: Array, *, scale: float = 1.0) -> Array:
    return reference.cosine_logits(np.abs(f), np.abs(w), scale=scale)


def cosine_vjp_terms(f: Array, w: Array, u: Array, *, scale: float = 1.0) -> tuple[Array, Array]:
    (f, per_length), (w, per_weight) = map(reference._directions, (f, w))
    f, w, u = np.abs(f), np.abs(w), np.abs(u.astype(np.float64))
    d_f, d_w = u @ w, u.reshape(-1, len(w)).T @ f.reshape(-1, f.shape[-1])
    d_f, d_w = (d + a * (a * d).sum(axis=-1, keepdims=True) for d, a in ((d_f, f), (d_w, w)))
    return scale * d_f * per_length, scale * d_w * per_weight
def divergence_terms(which: str, row: int) -> Any:
    """Of gradients in logits of row 0 or 1: p (v + sum(p v)) / T, v being the sizes of the logarithms that
    they are made of; of KL in those of q, (p + q) / T.
    """

    def terms(*args: Any, axis: int = -1, temperature: float = 1.0, **options: Any) -> Array:
        x, y = args[row].astype(np.float64), args[1 - row].astype(np.float64)
        (p, log_p), (q, log_q) = (reference._logs(z, axis, temperature) for z in (x, y))
        share = reference._share_of_rows(
            p, options.get("base"), options.get("reduction", "none"), args[2], axis
        )
        if (which, row) == ("kl", 1):
            return (p + q) / temperature * np.abs(share)
        other = log_q if which == "kl" else np.logaddexp(log_p, log_q) - np.log(2)
        v = (np.abs(log_p) + np.abs(other)) / (1 if which == "kl" else 2)
        return softmax_terms(x, v, axis, temperature=temperature) * np.abs(share)

    return terms


def kl_terms(
    x: Array, y: Array, axis: int = -1, *, temperature: float = 1.0, base: Any = None, reduction: str = "none"
) -> Array:
    """Of the divergence of logits: p (|log p| + |log q|)."""
    (p, log_p), (_, log_q) = (reference._logs(z.astype(np.float64), axis, temperature) for z in (x, y))
    rows = (p * (np.abs(log_p) + np.abs(log_q))).sum(axis=axis)
    return np.abs(reference._over_rows(rows, base, reduction))


def kl_terms_of_probabilities(p: Array, q: Array, axis: int = -1, **options: Any) -> Array:
    """Of the divergence of probabilities: |p log(p/q)|."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    rows = np.where(p > 0, np.abs(p * np.log(np.where(p > 0, p, 1) / q)), 0).sum(axis=axis)
    return np.abs(reference._over_rows(rows, options.get("base"), options.get("reduction", "none")))


# ---- values and derivatives -------------------------------------------------------------------


def softmax(x: Array, axis: Any = -1, *, temperature: float = 1.0) -> Array:
    z = x / x.dtype.type(temperature)
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, axis: Any = -1, *, temperature: float = 1.0) -> Array:
    z = x / x.dtype.type(temperature)
    d = z - z.max(axis=axis, keepdims=True)
    return d - np.log(np.exp(d).sum(axis=axis, keepdims=True))


def logsumexp(x: Array, axis: Any = -1, *, keepdims: bool = False) -> Array:
    m = x.max(axis=axis, keepdims=True)
    s = m + np.log(np.exp(x - m).sum(axis=axis, keepdims=True))
    return s if keepdims else np.squeeze(s, axis=axis)


def softmax_jvp_from_output(p: Array, v: Array, axis: Any = -1, *, temperature: float = 1.0) -> Array:
    return p * (v - (p * v).sum(axis=axis, keepdims=True)) / p.dtype.type(temperature)


def log_softmax_jvp_from_output(
    y: Array, v: Array, axis: Any = -1, *, temperature: float = 1.0
) -> Array:
    p = np.exp(y)
    return (v - (p * v).sum(axis=axis, keepdims=True)) / y.dtype.type(temperature)


def log_softmax_vjp_from_output(
    y: Array, u: Array, axis: Any = -1, *, temperature: float = 1.0
) -> Array:
    p = np.exp(y)
    return (u - p * u.sum(axis=axis, keepdims=True)) / y.dtype.type(temperature)


def softmax_jvp(x: Array, v: Array, axis: Any = -1, *, temperature: float = 1.0) -> Array:
    p = softmax(x, axis, temperature=temperature)
    return softmax_jvp_from_output(p, v, axis, temperature=temperature)


softmax_vjp_from_output, softmax_vjp = softmax_jvp_from_output, softmax_jvp


def log_softmax_jvp(x: Array, v: Array, axis: Any = -1, *, temperature: float = 1.0) -> Array:
    p = softmax(x, axis, temperature=temperature)
    return (v - (p * v).sum(axis=axis, keepdims=True)) / x.dtype.type(temperature)


def log_softmax_vjp(x: Array, u: Array, axis: Any = -1, *, temperature: float = 1.0) -> Array:
    p = softmax(x, axis, temperature=temperature)
    return (u - p * u.sum(axis=axis, keepdims=True)) / x.dtype.type(temperature)


def logsumexp_jvp(x: Array, v: Array, axis: Any = -1, *, keepdims: bool = False) -> Array:
    return (softmax(x, axis) * v).sum(axis=axis, keepdims=keepdims)


def logsumexp_vjp(x: Array, u: Array, axis: Any = -1, *, keepdims: bool = False) -> Array:
    return softmax(x, axis) * (u if keepdims else np.expand_dims(u, axis))


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def log_sigmoid(x: Array) -> Array:
    return -softplus(-x)


def softplus_grad(x: Array) -> Array:
    return sigmoid(x)


def sigmoid_grad(x: Array) -> Array:
    return sigmoid(x) * (1 - sigmoid(x))


def log_sigmoid_grad(x: Array) -> Array:
    return sigmoid(-x)


def _parts(x: Array, y: Array, options: dict[str, Any]) -> tuple[Array, ...]:
    axis = options.get("axis", -1)
    x = np.moveaxis(x, axis, -1)
    shape = x.shape
    x, y = x.reshape(-1, shape[-1]), np.asarray(y)
    one = x.dtype.type(1)
    weight, sample_weight = options.get("weight"), options.get("sample_weight")
    w = np.full(shape[-1], one) if weight is None else np.asarray(weight, x.dtype)
    s = np.full(len(x), one) if sample_weight is None else np.asarray(sample_weight, x.dtype).reshape(-1)
    eps = x.dtype.type(options.get("label_smoothing", 0.0))
    if y.dtype.kind not in "iu":  # probabilities
        q = np.moveaxis(y, axis, -1).reshape(x.shape).astype(x.dtype)
        return x, ((1 - eps) * q + eps / x.dtype.type(shape[-1])) * w * s[:, None], s, shape, axis
    y = y.reshape(-1)
    counted = y != options.get("ignore_index", -100)
    q = np.zeros_like(x)
    q[np.arange(len(y)), np.where(counted, y, 0)] = 1
    row = np.where(counted, s * w[np.where(counted, y, 0)], 0)
    q = ((1 - eps) * q + eps / x.dtype.type(shape[-1])) * w
    q = np.where(counted[:, None], q * s[:, None], 0)
    return x, q, row, shape, axis


def cross_entropy(x: Array, y: Array, **options: Any) -> Array:
    x, q, row, shape, _ = _parts(x, y, options)
    log_p = log_softmax(x, temperature=options.get("temperature", 1.0))
    losses = -np.where(q == 0, 0, q * log_p).sum(axis=-1)
    reduction = options.get("reduction", "mean")
    if reduction == "none":
        return _of_rows(losses, shape)
    with np.errstate(invalid="ignore"):
        return losses.sum() / row.sum() if reduction == "mean" else losses.sum()


def _share(row: Array, reduction: str) -> Array:
    with np.errstate(divide="ignore"):
        return 1 / row.sum() if reduction == "mean" else row.dtype.type(1)


def _of_rows(each: Array, shape: tuple[int, ...]) -> Array:
    return each.reshape(shape[:-1])


def _back(rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    return np.moveaxis(rows.reshape(shape), -1, axis)


def cross_entropy_grad(x: Array, y: Array, **options: Any) -> Array:
    x, q, row, shape, axis = _parts(x, y, options)
    t = x.dtype.type(options.get("temperature", 1.0))
    p = softmax(x, temperature=t)
    grad = (q.sum(axis=-1, keepdims=True) * p - q) / t
    return _back(grad * _share(row, options.get("reduction", "mean")), shape, axis)


def cross_entropy_hvp(x: Array, y: Array, tangent: Array, **options: Any) -> Array:
    x, q, row, shape, axis = _parts(x, y, options)
    v = np.moveaxis(tangent, axis, -1).reshape(x.shape)
    t = x.dtype.type(options.get("temperature", 1.0))
    product = softmax_jvp(x, v, temperature=t) / t * q.sum(axis=-1, keepdims=True)
    return _back(product * _share(row, options.get("reduction", "mean")), shape, axis)


def cross_entropy_temperature_grad(x: Array, y: Array, **options: Any) -> Array:
    """q (x - <p, x>) / T**2 of logits less the largest."""
    x, q, row, shape, _ = _parts(x, y, options)
    t = x.dtype.type(options.get("temperature", 1.0))
    p, d = softmax(x, temperature=t), x - x.max(axis=-1, keepdims=True)
    slopes = (q * (d - (p * d).sum(axis=-1, keepdims=True))).sum(axis=-1) / (t * t)
    reduction = options.get("reduction", "mean")
    return _of_rows(slopes, shape) if reduction == "none" else slopes.sum() * _share(row, reduction)


def cross_entropy_hess(x: Array, y: Array, **options: Any) -> Array:
    x, q, row, shape, axis = _parts(x, y, options)
    t = x.dtype.type(options.get("temperature", 1.0))
    p = softmax(x, temperature=t)
    diagonal = q.sum(axis=-1, keepdims=True) * (p - p * p) / (t * t)
    return _back(diagonal * _share(row, options.get("reduction", "mean")), shape, axis)


def cross_entropy_hess_of_long_rows(x: Array, y: Array, **options: Any) -> Array:
    """With 1 - p as the sum of the others where p may be nearly 1."""
    x, q, row, shape, axis = _parts(x, y, options)
    t = x.dtype.type(options.get("temperature", 1.0))
    p = softmax(x, temperature=t)
    others = np.where(p > 0.5, 0, p).sum(axis=-1, keepdims=True)
    diagonal = q.sum(axis=-1, keepdims=True) * p * np.where(p > 0.5, others, 1 - p) / (t * t)
    return _back(diagonal * _share(row, options.get("reduction", "mean")), shape, axis)


def nll_loss(x: Array, y: Array, **options: Any) -> Array:
    x, q, row, _, _ = _parts(x, y, options)
    losses = -(q * x).sum(axis=-1)
    reduction = options.get("reduction", "mean")
    if reduction == "none":
        return losses.reshape(np.shape(y))
    with np.errstate(invalid="ignore"):
        return losses.sum() / row.sum() if reduction == "mean" else losses.sum()


def nll_loss_grad(x: Array, y: Array, **options: Any) -> Array:
    x, q, row, shape, axis = _parts(x, y, options)
    return _back(-q * _share(row, options.get("reduction", "mean")), shape, axis)
