"""Penalties: what is added to a loss, times a weight, to keep parameters or features small or spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays, blocks, launch, leaves
from fastloss._engine.arrays import Array
from fastloss._engine.elementwise import BoundElementwise, Elementwise, flat, sign
from fastloss._engine.jit import inline
from fastloss._engine.kernels import kernel
from fastloss._engine.loss import BoundLoss, Loss, Result
from fastloss._engine.vector import cast, lanes, view

__all__ = ["feature_incay_penalty", "l1_penalty", "l2_penalty"]


# ---- formulas: (penalty, slope, curvature) --------------------------------------------------
@inline
def l2_penalty_formula(z: Any, _y: Any, _a: Any, _b: Any) -> Any:
    """z**2."""
    return z * z, z + z, flat(z) + cast(2.0, z)


@inline
def l1_penalty_formula(z: Any, _y: Any, _a: Any, _b: Any) -> Any:
    """|z|."""
    return abs(z), sign(z), flat(z)


_L2, _L1 = Elementwise(l2_penalty_formula), Elementwise(l1_penalty_formula)


# ---- kernel ---------------------------------------------------------------------------------
@kernel
def incay_rows(
    w: int, workers: int, first: int, last: int, columns: int, work: int, stride: int, eps: Any,
    x: int, xg_at: int, penalties: Array, wanted: int, out: int, og_at: int, streamed: int,
) -> None:
    """penalties[i] = 1/(|x_i|**2 + eps) of row i; where `wanted` its gradient -2 x_i/(|x_i|**2 + eps)**2."""
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    xg, og = blocks.geometry(xg_at), blocks.geometry(og_at)
    zero, mine = cast(0.0, eps), work + w * stride
    x_block, o_block = blocks.buffer(mine, blocks.X_BLOCK, eps), blocks.buffer(mine, blocks.O_BLOCK, eps)
    for i in blocks.share(w, workers, first, last):
        row, to = blocks.row_address(x, xg, i), blocks.row_address(out, og, i)
        total = np.float64(eps)
        for j in range(0, columns, blocks.BLOCK):
            part = blocks.block(row, xg, j, min(blocks.BLOCK, columns - j), zero, x_block)
            total += leaves.dot_sum(part, 0, part, 0, zero, blocks.AHEAD, blocks.AHEAD)[0]
        penalties[i] = 1.0 / total
        if wanted:
            rate = cast(-2.0 / total / total, eps)
            for j in range(0, columns, blocks.BLOCK):
                n = min(blocks.BLOCK, columns - j)
                part = blocks.block(row, xg, j, n, zero, x_block)
                o = view(o_block, part.size, zero)
                leaves.scale(part, rate, o)
                blocks.put(o, n, to, og, j, streamed)
    blocks.settle(streamed)


# ---- bound to its arguments -----------------------------------------------------------------
class _Incay:
    """Checked features, along the last axis."""

    def __init__(self, features: ArrayLike, eps: float) -> None:
        self.x = arrays.real(features, "features")
        if not self.x.ndim:
            raise ValueError("features is 0-d and has no axis of features; pass an array of at least 1-d")
        self.eps = arrays.positive(eps, "eps")
        self.dtype = arrays.result_type(self.x)
        self.compute = arrays.upcast(self.dtype)

    def value(self) -> Any:
        return self._run(None, None)

    def value_and_grad(self, out: Array | None) -> tuple[Any, Array]:
        grad = arrays.output(out, self.x.shape, self.dtype)
        return self._run(out, grad), grad

    def _run(self, out: Array | None, grad: Array | None) -> Any:
        x = self.x if out is None or grad is None else arrays.apart(self.x, grad)
        axes = (x.ndim - 1,)
        xl = arrays.rows_of(x, axes, self.compute)
        penalties = np.empty(xl.rows)
        if xl.rows:
            target = x if grad is None else grad
            lies = arrays.rows_of(target, axes, self.compute)
            workers = launch.workers(x.size, xl.rows)
            scratch = blocks.Scratch(workers, 3 * blocks.BLOCK * self.compute.itemsize)
            streamed = 0 if out is None or grad is None else blocks.streamed(grad, x)
            launch.run(
                incay_rows, workers, self.compute.char, xl.rows, xl.columns,
                (xl.columns, scratch.address, scratch.stride, self.compute.type(self.eps),
                 arrays.address(x), xl.geometry, penalties, int(grad is not None),
                 arrays.address(target), lies.geometry, streamed),
            )
        return self.compute.type(penalties.sum())


# ---- doors ----------------------------------------------------------------------------------
@Loss
def l2_penalty(w: ArrayLike) -> BoundLoss[Result]:
    r"""Sum of squares of all elements, without the half of some conventions.

    .. math:: \sum_i w_i^2

    Parameters
    ----------
    w : array_like, any shape
        Parameters. Any layout; never copied whole.

    Returns
    -------
    scalar
        Float32 for float16, bfloat16 (of ml_dtypes) and float32, otherwise float64; summed in float64.

    Raises
    ------
    TypeError
        `w` is not real.
    ValueError
        `out` has another shape or dtype, or is read-only.

    Notes
    -----
    Read once. NaN gives NaN; no elements give 0. Methods: `value_and_grad` and `grad`, 2 w; objective =
    loss + lambda * penalty is two calls. Scratch: 98 kB a thread (float64 197 kB), 8 bytes for every 32768
    elements.

    References
    ----------
    A. E. Hoerl, R. W. Kennard, "Ridge regression", 1970.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.l2_penalty([3.0, -4.0]))
    25.0
    >>> fl.l2_penalty.grad([3.0, -4.0])
    array([ 6., -8.])
    """
    return BoundElementwise(_L2, ("w", "w"), w, None)


@Loss
def l1_penalty(w: ArrayLike) -> BoundLoss[Result]:
    r"""Sum of magnitudes of all elements, whose minimiser is sparse.

    .. math:: \sum_i |w_i|

    Parameters
    ----------
    w : array_like, any shape
        Parameters.

    Returns
    -------
    scalar
        As `l2_penalty`.

    Raises
    ------
    TypeError, ValueError
        As `l2_penalty`.

    Notes
    -----
    The gradient is the sign of w, 0 at 0. Scratch, edge cases and methods: see `l2_penalty`.

    References
    ----------
    R. Tibshirani, "Regression shrinkage and selection via the lasso", 1996.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.l1_penalty([3.0, -4.0]))
    7.0
    """
    return BoundElementwise(_L1, ("w", "w"), w, None)


@Loss
def feature_incay_penalty(features: ArrayLike, *, eps: float = 1e-6) -> BoundLoss[Result]:
    r"""Sum of reciprocal squared norms of features: what makes a softmax's features long.

    .. math:: \sum_i \frac{1}{\|f_i\|^2 + \epsilon}

    Parameters
    ----------
    features : array_like, shape (..., D)
        f, a row of D features each. Any layout; never copied whole.
    eps : float, default 1e-6
        epsilon; > 0.

    Returns
    -------
    scalar
        As `l2_penalty`.

    Raises
    ------
    TypeError, ValueError
        As `l2_penalty`; `features` is 0-d; `eps` is not finite and > 0.

    Notes
    -----
    Squared norms are summed in float64. Methods: `value_and_grad` and `grad`, -2 f / (|f|^2 + eps)^2, which
    reads each row a second time, from cache where it fits. Scratch: 12 kB a thread (float64 24 kB), 8 bytes
    a row.

    References
    ----------
    Y. Yuan, K. Yang, C. Zhang, "Feature incay for representation regularization", 2017, equation 7.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.feature_incay_penalty([[3.0, 4.0], [0.0, 0.5]]).round(4))
    4.04
    """
    return _Incay(features, eps)
