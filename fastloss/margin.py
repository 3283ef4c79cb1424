"""Losses of rows of scores by their margins: hinges of many classes, and softmax with a margin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays, blocks, elementwise, hinges, launch, leaves, strips
from fastloss._engine.arrays import STRIDE, Array, Layout
from fastloss._engine.elementwise import Elementwise, flat
from fastloss._engine.jit import inline
from fastloss._engine.kernels import call, kernel
from fastloss._engine.likelihood import FOCAL, HINGE, CrossEntropy
from fastloss._engine.loss import (
    BoundLoss,
    BoundPullback,
    BoundScaledLoss,
    Loss,
    PairPullback,
    Result,
    ScaledLoss,
)
from fastloss._engine.targets import Targets
from fastloss._engine.vector import cast, itemsize, lanes, maximum, view

__all__ = [
    "additive_margin_softmax_loss",
    "arcface_loss",
    "cosine_logits",
    "focal_loss",
    "lse_hinge_loss",
    "max_hinge_loss",
    "multiclass_hinge_loss",
]


# ---- formulas -------------------------------------------------------------------------------
@inline
def multiclass_hinge_formula(z: Any, _y: Any, a: Any, b: Any) -> Any:
    """max(r, 0), r = z - a + b, a being the target's score; with its slope and curvature."""
    r = (z - a) + b
    return (r if r > 0 else flat(r)), (cast(1.0, z) if r > 0 else flat(r)), flat(r)


@inline
def squared_multiclass_hinge_formula(z: Any, _y: Any, a: Any, b: Any) -> Any:
    """max(r, 0)**2."""
    r = (z - a) + b
    v = r if r > 0 else flat(r)
    return v * v, v + v, (cast(2.0, z) if r > 0 else flat(r))


def arc(c: Array, margin: float) -> tuple[Array, Array]:
    """(cos(theta + m), its derivative) for c = cos(theta); where theta + m > pi, (c - m sin(pi - m), 1)."""
    c = np.clip(c, -1.0, 1.0)
    sine = np.sqrt((1.0 - c) * (1.0 + c))
    cos_m, sin_m = math.cos(margin), math.sin(margin)
    held = c * cos_m - sine * sin_m
    slope = (sine * cos_m + c * sin_m) / np.maximum(sine, 1e-6)
    beyond = c <= -cos_m
    return np.where(beyond, c - margin * sin_m, held), np.where(beyond, 1.0, slope)


_HINGE, _SQUARED = Elementwise(multiclass_hinge_formula), Elementwise(squared_multiclass_hinge_formula)


# ---- kernels --------------------------------------------------------------------------------
# Parts of a worker's scratch: blocks, then the arguments of a formula.
Z_BLOCK, O_BLOCK, G_BLOCK, BLOCKS = 0, 1, 2, 3


@kernel
def hinge_sums(
    w: int, workers: int, first: int, last: int, columns: int, work: int, stride: int, formula: int,
    margin: Any, x: int, xg_at: int, targets: Array, rates: Array, losses: Array,
    wanted: int, out: int, og_at: int, streamed: int,
) -> None:
    """losses[i] = the sum of a formula of a score and the target's, over all classes but the target; where
    `wanted`, rates[i] times its gradient. `formula` is the address of an `elementwise.of_block`.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    xg, og = blocks.geometry(xg_at), blocks.geometry(og_at)
    zero, mine = cast(0.0, margin), work + w * stride
    block = elementwise.BLOCK * itemsize(margin)
    at = mine + BLOCKS * block
    integers, numbers = view(at, 12, np.int64(0)), view(at, 12, 0.0)
    numbers[elementwise.AT_B] = margin
    integers[elementwise.AT_O], integers[elementwise.AT_G] = mine + O_BLOCK * block, mine + G_BLOCK * block
    for i in blocks.share(w, workers, first, last):
        y = targets[i]
        row, to = blocks.row_address(x, xg, i), blocks.row_address(out, og, i)
        losses[i] = total = pull = 0.0
        if y < 0:
            if wanted:
                blocks.fill(zero, 0, columns, mine, to, og, streamed)
            continue
        numbers[elementwise.AT_A] = blocks.element(row, xg, y, mine, zero)
        numbers[elementwise.AT_RATE] = rates[i] if wanted else 0.0
        short = columns <= elementwise.BLOCK  # what is written is whole, then
        for j in range(0, columns, elementwise.BLOCK):
            n = min(elementwise.BLOCK, columns - j)
            z = blocks.block(row, xg, j, n, zero, mine + Z_BLOCK * block)
            o, g = view(mine + O_BLOCK * block, z.size, zero), view(mine + G_BLOCK * block, z.size, zero)
            integers[elementwise.AT_Z] = integers[elementwise.AT_Y] = z.ctypes.data
            integers[elementwise.AT_N] = z.size
            integers[elementwise.AT_AHEAD] = integers[elementwise.AT_Y_AHEAD] = blocks.ahead_of(row, xg, j, z)
            # Where the target is the losses are needed one by one.
            alone = n % elementwise.STRIP == 0 and not j <= y < j + n
            if alone:
                integers[elementwise.AT_WANTED] = elementwise.SUM_GRAD if wanted else elementwise.SUM
            else:
                integers[elementwise.AT_WANTED] = elementwise.GRAD if wanted else elementwise.VALUE
            call(formula, at, 0, 1, 1, 0, 1)
            if alone:
                total += view(mine + O_BLOCK * block, 1, 1.0)[0]
            else:
                if n < o.size:
                    blocks.pad(o, n, zero)
                if j <= y < j + n:
                    o[y - j] = zero
                total += leaves.sum_of(o, 0, 0)
            if wanted:
                if n < o.size:
                    blocks.pad(g, n, zero)
                if j <= y < j + n:
                    g[y - j] = zero
                pull += leaves.sum_of(g, 0, 0)
                if short:
                    g[y] = cast(-pull, zero)
                    if total != total:
                        g[:] = cast(np.nan, zero)
                blocks.put(g, n, to, og, j, streamed)
        losses[i] = total
        if wanted and not short:
            blocks.put_over(cast(-pull, zero), to, og, y, mine, streamed)
            if total != total:
                blocks.fill(cast(np.nan, zero), 0, columns, mine, to, og, streamed)
    blocks.settle(streamed)


@kernel
def hinge_maxima(
    w: int, workers: int, first: int, last: int, columns: int, work: int, stride: int,
    margin: Any, x: int, xg_at: int, targets: Array, rates: Array, losses: Array,
    wanted: int, out: int, og_at: int, streamed: int,
) -> None:
    """losses[i] = max(the largest score but the target's, less that, plus the margin, 0); where `wanted`,
    rates[i] times its gradient.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    xg, og = blocks.geometry(xg_at), blocks.geometry(og_at)
    zero, low, mine = cast(0.0, margin), cast(-np.inf, margin), work + w * stride
    for i in blocks.share(w, workers, first, last):
        y = targets[i]
        row, to = blocks.row_address(x, xg, i), blocks.row_address(out, og, i)
        losses[i] = 0.0
        top, peak = low, -1
        if y >= 0:
            own = blocks.element(row, xg, y, mine, zero)
            for j in range(0, columns, blocks.BLOCK):
                n = min(blocks.BLOCK, columns - j)
                scratch = mine
                z = blocks.ragged(row, xg, j, n, low, scratch)
                if j <= y < j + n:
                    blocks.load_padded(row + j * xg[STRIDE], xg, n, low, scratch)
                    z = view(scratch, blocks.padded(n), low)
                    z[y - j] = low
                here = leaves.block_max(z, scratch)
                if not here <= top:  # larger, or NaN
                    top = maximum(top, here)
                    peak = j + leaves.index_of(z, top)
            above = np.float64(cast((top - own) + margin, zero))
            losses[i] = 0.0 if above <= 0.0 else above
        loss = losses[i]
        others = cast(np.nan, zero) if loss != loss else zero
        if wanted and columns <= blocks.BLOCK:
            o = view(mine, blocks.padded(columns), zero)
            o[:] = others
            if loss > 0.0:
                o[peak], o[y] = cast(rates[i], zero), cast(-rates[i], zero)
            blocks.put(o, columns, to, og, 0, streamed)
        elif wanted:
            blocks.fill(others, 0, columns, mine, to, og, streamed)
            if loss > 0.0:
                blocks.put_over(cast(rates[i], zero), to, og, peak, mine, streamed)
                blocks.put_over(cast(-rates[i], zero), to, og, y, mine, streamed)
    blocks.settle(streamed)


# ---- bound to its arguments -----------------------------------------------------------------
class _Hinge(Targets):
    """Checked scores, targets and weights; by `hinge_sums` of a formula, or by `hinge_maxima`."""

    def __init__(
        self, formula: Elementwise | None, scores: ArrayLike, targets: ArrayLike, margin: float, *rest: Any
    ) -> None:
        self.margin = arrays.finite(margin, "margin")
        super().__init__(scores, "scores", targets, *rest)
        self.formula = formula

    def value(self) -> Any:
        return self.reduce(self._run(None, None))

    def value_and_grad(self, out: Array | None) -> tuple[Any, Array]:
        grad = arrays.output(out, self.x.shape, self.dtype)
        return self.reduce(self._run(out, grad)), grad

    def _run(self, out: Array | None, grad: Array | None) -> Array:
        """The losses of the rows; `grad` is written."""
        n, axes = self.checked.size, (self.axis,)
        losses = np.empty(n)
        if not n:
            return losses
        x = self.x if out is None or grad is None else arrays.apart(self.x, grad)
        target = x if grad is None else grad
        xl, lies = arrays.rows_of(x, axes, self.compute), arrays.rows_of(target, axes, self.compute)
        wanted, targets, rates = int(grad is not None), self.targets, np.zeros(0 if grad is None else n)
        divisor = self.divisor() if wanted else 1.0
        if wanted and divisor != 0.0:
            rates = self.row_weights() / divisor
        streamed = 0 if out is None or grad is None else blocks.streamed(grad, x)
        kind = hinges.LARGEST if self.formula is None else (
            hinges.SQUARES if self.formula is _SQUARED else hinges.SUM
        )
        short = hinges.run(
            kind, self.margin, arrays.address(x), xl, targets, rates, losses, wanted, arrays.address(target),
            lies, streamed, self.compute,
        )
        if not short or launch.is_listing():  # longer ones may come
            self._run_long(x, xl, target, lies, rates, losses, wanted, streamed)
        if grad is not None and divisor == 0.0:  # whatever the slopes
            grad[...] = 0
        if self.weight is not None:
            losses *= np.where(targets < 0, 1.0, self.weight[targets])
        return losses

    def _run_long(
        self, x: Array, xl: Layout, target: Array, lies: Layout, rates: Array, losses: Array, wanted: int,
        streamed: int,
    ) -> None:
        """The losses of longer rows, and where `wanted` their gradients, in `target`."""
        n, zero, targets = losses.size, self.compute.type, self.targets
        workers = launch.workers(x.size, n)
        block = elementwise.BLOCK * self.compute.itemsize
        scratch = blocks.Scratch(workers, BLOCKS * block + 12 * 8)
        places = (
            zero(self.margin), arrays.address(x), xl.geometry, targets, rates, losses, wanted,
            arrays.address(target), lies.geometry,
        )
        fixed = xl.columns, scratch.address, scratch.stride
        kernel = hinge_maxima
        formula: tuple[int, ...] = ()
        if self.formula is not None:
            kernel, formula = hinge_sums, (self.formula.address(zero(0)),)
        at, sides = len(fixed) + len(formula), []
        if xl.columns <= blocks.SEGMENT:  # these kernels go over whole rows
            sides = strips.sides_of(
                [(at + 1, at + 2, x, xl)], [(at + 7, at + 8, target if wanted else None, lies)], self.compute
            )
        strips.run(
            kernel, workers, self.compute, n, xl.columns, (*fixed, *formula, *places, streamed), sides
        )


class _Cosines:
    """Checked features and class weights, and what becomes of them."""

    def __init__(
        self, features: ArrayLike, class_weights: ArrayLike, scale: float, out: Array | None = None
    ) -> None:
        self.f = arrays.real(features, "features")
        self.w = arrays.real(class_weights, "class_weights")
        self.scale = arrays.positive(scale, "scale")
        for array, name in ((self.f, "features"), (self.w, "class_weights")):
            if not array.ndim:
                raise ValueError(f"{name} is 0-d and has no axis of features; pass an array of at least 1-d")
        if self.w.ndim != 2 or self.w.shape[1] != self.f.shape[-1]:
            raise ValueError(
                f"class_weights has shape {self.w.shape}, expected (V, {self.f.shape[-1]}), a row for each "
                f"class, as long as those of features of shape {self.f.shape}"
            )
        self.dtype = arrays.result_type(self.f)
        self.compute = arrays.upcast(self.dtype)
        self.shape = (*self.f.shape[:-1], self.w.shape[0])
        self.out = out

    def value(self) -> Any:
        result = arrays.output(self.out, self.shape, self.dtype)
        f, w = self._directions(self.f)[0], self._directions(self.w)[0]
        f *= self.compute.type(self.scale)
        each = result.reshape(-1, self.shape[-1])
        if each.dtype == self.compute and each.flags.c_contiguous:
            np.matmul(f, w.T, out=each)
        else:
            for some in _pieces(len(f), len(w)):
                each[some] = f[some] @ w.T
        if not np.shares_memory(each, result):
            result[...] = each.reshape(self.shape)
        return result

    def vjp(
        self, cotangent: ArrayLike, out: tuple[Array | None, Array | None] | None
    ) -> tuple[Array, Array]:
        u = arrays.same_shape(arrays.real(cotangent, "cotangent"), self.shape, "cotangent", "cosine_logits")
        mine = arrays.pair_of(out)
        weights_dtype = arrays.result_type(self.w)
        results = (
            arrays.output(mine[0], self.f.shape, self.dtype, "out[0]"),
            arrays.output(mine[1], self.w.shape, weights_dtype, "out[1]"),
        )
        if arrays.overlap(*results):
            raise ValueError("out[0] and out[1] overlap; the two results need two arrays")
        (f, per_f), (w, per_w) = self._directions(self.f), self._directions(self.w)
        u = u.reshape(-1, self.shape[-1])
        along_f, along_w = np.empty_like(f), np.zeros_like(w)
        for some in _pieces(len(f), len(w)):
            piece = np.ascontiguousarray(u[some], self.compute)
            np.matmul(piece, w, out=along_f[some])
            along_w += piece.T @ f[some]
        for result, own, per, along in ((results[0], f, per_f, along_f), (results[1], w, per_w, along_w)):
            along -= own * _dots(own, along).astype(self.compute)
            along *= (self.scale * per).astype(self.compute)
            result[...] = along.reshape(result.shape)
        return results

    def _directions(self, vectors: Array) -> tuple[Array, Array]:
        """Rows over their norms, and the reciprocals of these; 0 for both where a row is 0."""
        rows = vectors.astype(self.compute, order="C").reshape(-1, vectors.shape[-1])
        top = np.abs(rows).max(axis=-1, keepdims=True, initial=0.0)
        top[top == 0.0] = 1.0
        rows /= top  # squares then neither over- nor underflow
        norms = np.sqrt(_dots(rows, rows))
        norms[norms == 0.0] = np.inf
        rows /= norms.astype(self.compute)
        return rows, 1.0 / (norms * top)


# Cosines, and their cotangents, that are in the type of the arithmetic at once where theirs is another.
PIECE = 1 << 24


def _pieces(n: int, size: int) -> Iterator[slice]:
    """Rows of a `size`, so many that they make a piece."""
    step = max(1, PIECE // max(1, size))
    return (slice(k, min(k + step, n)) for k in range(0, n, step))


def _dots(a: Array, b: Array) -> Array:
    """The products of rows, in float64."""
    dots = np.empty((len(a), 1))
    for some in _pieces(len(a), a.shape[1]):
        np.sum(np.multiply(a[some], b[some], dtype=np.float64), axis=1, keepdims=True, out=dots[some])
    return dots


# ---- doors ----------------------------------------------------------------------------------
@Loss
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
) -> BoundLoss[Result]:
    r"""Hinge loss of many classes: what each class scores above the target's score less the margin.

    .. math:: \ell_i = \sum_{j \ne y_i} \max(z_{ij} - z_{i y_i} + m, 0)

    With `squared` each term is squared. It is V times `multi_margin_loss` of PyTorch. The mean is the sum of
    s_i w_y l_i over that of s_i w_y, both over the rows that are not ignored. The scores are read once.

    Parameters
    ----------
    scores : array_like, shape (..., V)
        z; V classes along `axis`. Any layout; never copied whole.
    targets : array_like of int, the shape of `scores` without `axis`
        y, class indices 0 to V - 1, or `ignore_index`.
    margin : float, default 1.0
        m; any finite number.
    squared : bool, default False
        Whether the terms are squared.
    axis : int, default -1
        The class axis.
    weight : array_like, shape (V,), optional
        w, a weight for each class.
    sample_weight : array_like, the shape of `targets`, optional
        s, a weight for each row, in its loss and in the mean's denominator.
    ignore_index : int, default -100
        Rows with this target have loss 0 and gradient exactly 0, whatever their scores.
    reduction : {"mean", "sum", "none"}, default "mean"
        What becomes of the losses of the rows.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `targets`
        Float32 for float16, bfloat16 (of ml_dtypes) and float32 scores, otherwise float64. Rows are summed
        in float64. The gradient has the dtype of the scores (integers: float64).

    Raises
    ------
    TypeError
        `scores`, `weight` or `sample_weight` is not real; `targets` is float or bool.
    ValueError
        `targets`, `weight`, `sample_weight` or `out` has another shape; an option is out of range; there are
        no classes.
    IndexError
        A target is out of range; the first such row and its value are named.
    numpy.exceptions.AxisError
        `axis` is out of range.

    Notes
    -----
    The gradient of a class is s w where its term is above 0, and 0 elsewhere, at the kink too; the target
    has what is left to make their sum 0. NaN in a row makes its loss and gradient NaN, and so do -inf scores
    of the target and another class. One class: 0. With every row ignored, or no weight in all, the mean is
    NaN and the gradient exactly 0. Rows are not split among threads. Scratch: up to 0.5 MB a thread, 32
    bytes a row; where rows of 129 to 32768 scores lie side by side up to 4.2 MB a thread for each array.

    Methods: `value_and_grad` and `grad`, with the same options; they take `out=`, which may be `scores`
    itself.

    References
    ----------
    J. Weston, C. Watkins, "Support vector machines for multi-class pattern recognition", 1999.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.multiclass_hinge_loss([[2.0, 1.5, -1.0]], [0]))
    0.5
    >>> fl.multiclass_hinge_loss.grad([[2.0, 1.5, -1.0]], [0])
    array([[-1.,  1.,  0.]])
    """
    return _Hinge(
        _SQUARED if squared else _HINGE, scores, targets, margin,
        axis, weight, sample_weight, ignore_index, reduction,
    )


@Loss
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
) -> BoundLoss[Result]:
    r"""Hinge loss of the best other class.

    .. math:: \ell_i = \max(\max_{j \ne y_i} z_{ij} - z_{i y_i} + m, 0)

    Parameters
    ----------
    scores : array_like, shape (..., V)
        z; V classes along `axis`.
    targets : array_like of int, the shape of `scores` without `axis`
        y.
    margin : float, default 1.0
        m; any finite number.
    axis : int, default -1
    weight : array_like, shape (V,), optional
    sample_weight : array_like, the shape of `targets`, optional
    ignore_index : int, default -100
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `multiclass_hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `targets`
        As `multiclass_hinge_loss`.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As `multiclass_hinge_loss`.

    Notes
    -----
    The gradient is s w at the best other class, the first of those that tie, and -s w at the target; it is
    0 where the loss is, at the kink too. Edge cases, methods: see `multiclass_hinge_loss`.
    Scratch: as there.

    References
    ----------
    K. Crammer, Y. Singer, "On the algorithmic implementation of multiclass kernel-based vector machines",
    2001.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.max_hinge_loss([[2.0, 1.5, 1.75]], [0]))
    0.75
    >>> fl.max_hinge_loss.grad([[2.0, 1.5, 1.75]], [0])
    array([[-1.,  0.,  1.]])
    """
    return _Hinge(None, scores, targets, margin, axis, weight, sample_weight, ignore_index, reduction)


@Loss
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
) -> BoundLoss[Result]:
    r"""Hinge loss of the smooth maximum of the other classes.

    .. math:: \ell_i = \max\Big(\log \sum_{j \ne y_i} e^{z_{ij}} - z_{i y_i} + m, 0\Big)

    Between `max_hinge_loss`, which it becomes as scores grow, and `cross_entropy`, which is softplus of
    what stands before the outer maximum.

    Parameters
    ----------
    scores : array_like, shape (..., V)
        z; V classes along `axis`.
    targets : array_like of int, the shape of `scores` without `axis`
        y.
    margin : float, default 0.0
        m; any finite number.
    axis : int, default -1
    weight : array_like, shape (V,), optional
    sample_weight : array_like, the shape of `targets`, optional
    ignore_index : int, default -100
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `multiclass_hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `targets`
        As `multiclass_hinge_loss`.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As `multiclass_hinge_loss`.

    Notes
    -----
    Where the loss is above 0 the gradient is s w times the softmax of the other classes, and -s w at the
    target; elsewhere 0. A -inf score has no share in it; a target's makes the loss +inf. Edge cases,
    methods: see `multiclass_hinge_loss`. Read once, and for the gradient of rows longer than 2 MB twice.
    Scratch: as `cross_entropy`.

    References
    ----------
    Y. Sun et al., "Circle loss: a unified perspective of pair similarity optimization", 2020, section 3.1.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.lse_hinge_loss([[1.0, 2.0, 2.0]], [0]).round(4))
    1.6931
    >>> fl.lse_hinge_loss.grad([[1.0, 2.0, 2.0]], [0])
    array([[-1. ,  0.5,  0.5]])
    """
    return CrossEntropy(
        scores, targets, axis, weight, sample_weight, ignore_index, reduction, name="scores",
        link=HINGE, option=arrays.finite(margin, "margin"),
    )


@ScaledLoss
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
) -> BoundScaledLoss[Result]:
    r"""Cross-entropy of scaled cosines, the target's less a margin (AM-softmax, CosFace).

    .. math::

        \ell_i = -\log \frac{e^{s (z_{i y_i} - m)}}
            {e^{s (z_{i y_i} - m)} + \sum_{j \ne y_i} e^{s z_{ij}}}

    The margin touches the target's column as the row is read: there is no array of margins.

    Parameters
    ----------
    cosines : array_like, shape (..., V)
        z, as `cosine_logits` makes them with scale 1; V classes along `axis`. Any numbers are taken.
    targets : array_like of int, the shape of `cosines` without `axis`
        y.
    scale : float, default 30.0
        s; > 0. Its derivative is that of `scale_grad`.
    margin : float, default 0.35
        m; any finite number.
    axis : int, default -1
    weight : array_like, shape (V,), optional
    sample_weight : array_like, the shape of `targets`, optional
    ignore_index : int, default -100
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `multiclass_hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `targets`
        In nats; types as in `multiclass_hinge_loss`.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As `multiclass_hinge_loss`.

    Notes
    -----
    Infinities and NaN, and where the mean has nothing to divide by, are those of `cross_entropy`. Methods:
    `value_and_grad` and `grad`, with respect to the cosines, which take `out=`, and `scale_grad`, the value
    and its derivative with respect to the scale. Scratch: as `cross_entropy`, and 40 bytes a row.

    References
    ----------
    F. Wang, W. Liu, H. Liu, J. Cheng, "Additive margin softmax for face verification", 2018, equation 6.

    Examples
    --------
    >>> import fastloss as fl
    >>> cosines = [[0.9, 0.3, -0.2]]
    >>> float(fl.additive_margin_softmax_loss(cosines, [0], scale=10.0).round(4))
    0.0794
    >>> float(fl.additive_margin_softmax_loss(cosines, [0], scale=10.0, margin=0.0).round(4))
    0.0025
    """
    margin = arrays.finite(margin, "margin")
    return CrossEntropy(
        cosines, targets, axis, weight, sample_weight, ignore_index, reduction, name="cosines",
        scale=arrays.positive(scale, "scale"),
        turn=lambda z: (z - margin, np.ones_like(z)),
    )


@Loss
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
) -> BoundLoss[Result]:
    r"""Cross-entropy of scaled cosines, the target's angle more by a margin (ArcFace).

    .. math::

        \ell_i = -\log \frac{e^{s \cos(\theta + m)}}
            {e^{s \cos(\theta + m)} + \sum_{j \ne y_i} e^{s z_{ij}}}, \quad
        \cos \theta = \mathrm{clip}(z_{i y_i}, -1, 1)

    Where theta + m is above pi, cos(theta) - m sin(pi - m) stands for cos(theta + m), which would rise again.

    Parameters
    ----------
    cosines : array_like, shape (..., V)
        z, as `cosine_logits` makes them with scale 1; V classes along `axis`.
    targets : array_like of int, the shape of `cosines` without `axis`
        y.
    scale : float, default 64.0
        s; > 0.
    margin : float, default 0.5
        m, in radians; 0 to pi.
    axis : int, default -1
    weight : array_like, shape (V,), optional
    sample_weight : array_like, the shape of `targets`, optional
    ignore_index : int, default -100
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `multiclass_hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `targets`
        In nats; types as in `multiclass_hinge_loss`.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As `multiclass_hinge_loss`.

    Notes
    -----
    In the gradient sin(theta) is 1e-6 at least; beyond -1 and 1 it is that at the clipped cosine. Infinities,
    NaN and what the mean divides by: as `cross_entropy`. Methods: `value_and_grad` and `grad`, with respect
    to the cosines, which take `out=`. Scratch: as `cross_entropy`, and 60 bytes a row.

    References
    ----------
    J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: additive angular margin loss for deep face recognition",
    2019, equation 3.

    Examples
    --------
    >>> import fastloss as fl
    >>> cosines = [[0.9, 0.3, -0.2]]
    >>> float(fl.arcface_loss(cosines, [0], scale=10.0).round(4))
    0.0589
    """
    margin = arrays.number_of(margin, "margin")
    if not 0.0 <= margin <= math.pi:
        raise ValueError(f"margin must be an angle in [0, pi], got {margin!r}")
    return CrossEntropy(
        cosines, targets, axis, weight, sample_weight, ignore_index, reduction, name="cosines",
        scale=arrays.positive(scale, "scale"),
        turn=lambda z: arc(z, margin),
    )


@Loss
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
) -> BoundLoss[Result]:
    r"""Cross-entropy, less of it the more probable the target is.

    .. math:: \ell_i = -(1 - p_{i y_i})^\gamma \log p_{i y_i}, \quad p_i = \mathrm{softmax}(x_i)

    Parameters
    ----------
    logits : array_like, shape (..., V)
        x, unnormalised log-probabilities; V classes along `axis`.
    targets : array_like of int, the shape of `logits` without `axis`
        y.
    gamma : float, default 2.0
        >= 0; with 0 it is `cross_entropy`, to the last bit.
    axis : int, default -1
    weight : array_like, shape (V,), optional
    sample_weight : array_like, the shape of `targets`, optional
    ignore_index : int, default -100
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `multiclass_hinge_loss`.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `targets`
        In nats; types as in `multiclass_hinge_loss`.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As `multiclass_hinge_loss`.

    Notes
    -----
    1 - p keeps its digits where p is nearly 1. Infinities, NaN and what the mean divides by: as
    `cross_entropy`. Methods: `value_and_grad` and `grad`, which take `out=`. Scratch: as `cross_entropy`.

    References
    ----------
    T.-Y. Lin et al., "Focal loss for dense object detection", 2017, equation 4, of many classes.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.focal_loss([[3.0, 0.0], [0.0, 3.0]], [0, 0], reduction="none").round(4)
    array([1.0000e-04, 2.7663e+00])
    """
    return CrossEntropy(
        logits, targets, axis, weight, sample_weight, ignore_index, reduction,
        link=FOCAL, option=arrays.nonnegative(gamma, "gamma"),
    )


@PairPullback
def cosine_logits(
    features: ArrayLike, class_weights: ArrayLike, *, scale: float = 1.0, out: Array | None = None
) -> BoundPullback[Array]:
    r"""Scaled cosines between features and the weights of classes.

    .. math:: z_{ij} = s\, \frac{\langle f_i, w_j \rangle}{\|f_i\|\, \|w_j\|}

    Parameters
    ----------
    features : array_like, shape (..., D)
        f. Its dtype is that of the result.
    class_weights : array_like, shape (V, D)
        w, a row for each class.
    scale : float, default 1.0
        s; > 0.
    out : ndarray, shape (..., V), optional
        Where to write the result.

    Returns
    -------
    ndarray, shape (..., V)
        For integers float64.

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        Shapes do not fit; an argument is 0-d; `scale` is not finite and > 0.

    Notes
    -----
    The cosine with a zero vector is 0, and its gradient too. A vector with NaN or an infinity in it makes its
    cosines NaN. Norms are made in float64, the products by NumPy's `matmul`: the last bits of a row may
    depend on how many rows there are. Scratch: copies of `features` and `class_weights` in the type of the
    arithmetic, of `vjp` three of each, and 16 million cosines.

    Method: `vjp(features, class_weights, cotangent)`, the gradients with respect to both as a pair; `out` is
    a pair, too.

    References
    ----------
    F. Wang, X. Xiang, J. Cheng, A. L. Yuille, "NormFace: L2 hypersphere embedding for face verification",
    2017.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.cosine_logits([[3.0, 4.0]], [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    array([[0.6, 0.8, 0. ]])
    """
    return _Cosines(features, class_weights, scale, out)
