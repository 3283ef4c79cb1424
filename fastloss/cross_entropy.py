"""Cross-entropy of logits, and the negative log-likelihood of log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays
from fastloss._engine.arrays import Array
from fastloss._engine.likelihood import CrossEntropy
from fastloss._engine.loss import BoundCurvedLoss, BoundLoss, CurvedLoss, Loss, Result
from fastloss._engine.soft import SoftCrossEntropy
from fastloss._engine.targets import Targets

__all__ = ["cross_entropy", "nll_loss"]


# ---- bound to its arguments -----------------------------------------------------------------
class _NegativeLogLikelihood(Targets):
    """-w_t log p_t: a gather, and a scatter for its gradient."""

    def __init__(
        self,
        log_probs: ArrayLike,
        targets: ArrayLike,
        axis: int,
        weight: ArrayLike | None,
        ignore_index: int,
        reduction: str,
    ) -> None:
        super().__init__(
            log_probs, "log_probs", targets, axis, weight, None, ignore_index, reduction
        )
        self.counts = self.targets >= 0
        # One index a row, any valid one where the row is ignored.
        self.index = np.expand_dims(
            np.where(self.counts, self.targets, 0).reshape(self.shape), self.axis
        )

    def value(self) -> Any:
        taken = np.take_along_axis(self.x, self.index, self.axis).reshape(-1)
        losses = -taken.astype(np.float64)
        if self.weight is not None:
            losses *= self.weight[self.targets]
        losses[~self.counts] = 0.0
        return self.reduce(losses)

    def value_and_grad(self, out: Array | None) -> tuple[Any, Array]:
        grad = arrays.output(out, self.x.shape, self.dtype)
        value = self.value()
        share = self.row_weights()
        if self.reduction == "mean":
            share = share / self.denominator if self.denominator != 0.0 else share * 0.0
        slopes = np.where(self.counts, -share, 0.0).reshape(self.index.shape).astype(self.row_dtype)
        grad[...] = 0
        np.put_along_axis(grad, self.index, slopes, self.axis)
        return value, grad


# ---- doors ----------------------------------------------------------------------------------
@CurvedLoss
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
) -> BoundCurvedLoss[Result]:
    r"""Cross-entropy between rows of logits and class indices or class probabilities, in nats.

    .. math::

        \ell_i = (1 - \varepsilon)\, w_{y_i} n_{i y_i}
            + \frac{\varepsilon}{V} \sum_j w_j n_{ij}, \quad
        n_{ij} = \log \sum_k e^{x_{ik}/T} - x_{ij}/T

    and of probabilities q

    .. math:: \ell_i = \sum_j w_j \big((1 - \varepsilon) q_{ij} + \varepsilon / V\big) n_{ij}

    The mean is the sum of s_i l_i over that of s_i w_{y_i}, both over the rows that are not ignored; of
    probabilities it is over that of s_i.
    Computed online, fused: the value costs one read of the logits, the gradient one write more, and one read
    more where rows are longer than 2 MB, or lie side by side in memory and have more than 384 classes
    (float64 192; of few rows 128).

    Parameters
    ----------
    logits : array_like, shape (..., V)
        Unnormalised log-probabilities; V classes along `axis`. Any layout; never copied whole.
    targets : array_like of int, the shape of `logits` without `axis`; or of float, the shape of `logits`
        Class indices y, 0 to V - 1, or `ignore_index`; or q, whose rows need not sum to 1.
    axis : int, default -1
        The class axis.
    weight : array_like, shape (V,), optional
        w, a weight for each class.
    sample_weight : array_like, the shape of `logits` without `axis`, optional
        s, a weight for each row, in its loss and in the mean's denominator.
    ignore_index : int, default -100
        Rows with this target have loss 0 and gradient exactly 0, whatever their logits. Of probabilities it
        names none, and has to be negative.
    reduction : {"mean", "sum", "none"}, default "mean"
        What becomes of the losses of the rows.
    label_smoothing : float, default 0.0
        eps, the share of the target spread over all classes; in [0, 1].
    temperature : float, default 1.0
        T, which divides the logits; the gradient is with respect to the logits passed in.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `logits` without `axis`
        In nats; float32 for float16, bfloat16 (of ml_dtypes) and float32 logits, otherwise float64. Rows
        are summed in float64. Derivatives have the dtype of the logits (integers: float64).

    Raises
    ------
    TypeError
        `logits`, `weight` or `sample_weight` is not real; `targets` is bool, or float of another shape.
    ValueError
        `targets`, `weight`, `sample_weight` or `out` has another shape; an option is out of range;
        there are no classes; `ignore_index` is not negative and `targets` are probabilities.
    IndexError
        A target is out of range; the first such row and its value are named.
    numpy.exceptions.AxisError
        `axis` is out of range.

    Notes
    -----
    A -inf logit has probability 0; with a -inf target, or smoothing and any -inf, the loss is +inf
    and the gradient finite. A row of nothing but -inf, or with NaN or +inf in it, is NaN. With every
    row ignored, or no weight in all, the mean is NaN and the gradient exactly 0. No rows: the mean
    is NaN, the sum 0. Of probabilities, a -inf logit makes the loss +inf where its target is above 0, and NaN
    where that is 0; its gradient is finite.

    The definitions are those of `torch.nn.functional.cross_entropy`, but for: gradients of ignored
    rows, and of all rows where the total weight is 0, are exactly 0; the mean is NaN wherever its
    denominator is 0; other float arguments are converted to the type of `logits` (float32 for half
    types); `sample_weight` and `temperature` are additions.

    Scratch: up to 2.2 MB a thread, 40 bytes a row, with smoothing or weights V numbers, and a 512th of a row
    of more than 32768 columns; where rows of more than 128 lie side by side up to 4.2 MB a thread for each
    array, and of so long ones a 512th of it; for gradients of such rows of more than 1024 40 bytes a row
    more, and a 1024th of `logits`.

    Methods: `value_and_grad`, `grad`, `hvp(logits, targets, tangent)`, `value_grad_hess` and
    `temperature_grad`, the value and its derivative with respect to T, all with the same options; but for the
    last they take `out=`, which may be `logits` itself.

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, section 7
    (label smoothing). M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> p = np.array([[0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.4, 0.6, 0.0]])
    >>> with np.errstate(divide="ignore"):
    ...     logits = np.log(p)
    >>> fl.cross_entropy(logits, [1, 1, 1], reduction="none").round(4)
    array([0.3567, 0.3567, 0.5108])
    >>> loss, grad = fl.cross_entropy.value_and_grad(logits, [1, 1, 1], reduction="sum")
    >>> grad.round(4)
    array([[ 0.2, -0.3,  0.1],
           [ 0.2, -0.3,  0.1],
           [ 0.4, -0.4,  0. ]])
    >>> float(fl.cross_entropy(logits[:2], p[:2]).round(4))  # the entropy of p
    0.8018
    """
    kind = SoftCrossEntropy if arrays.are_probabilities(targets, logits) else CrossEntropy
    return kind(
        logits, targets, axis, weight, sample_weight, ignore_index, reduction,
        label_smoothing, temperature,
    )


@Loss
def nll_loss(
    log_probs: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> BoundLoss[Result]:
    r"""Negative log-likelihood of class indices under rows of log-probabilities, in nats.

    .. math:: \ell_i = -w_{y_i}\, \log p_{i y_i}

    `nll_loss(log_softmax(x), y)` is `cross_entropy(x, y)`, which does both in one read.

    Parameters
    ----------
    log_probs : array_like, shape (..., V)
        Log-probabilities; V classes along `axis`. They are not normalised here.
    targets : array_like of int, the shape of `log_probs` without `axis`
        Class indices, 0 to V - 1, or `ignore_index`.
    axis : int, default -1
        The class axis.
    weight : array_like, shape (V,), optional
        w, a weight for each class.
    ignore_index : int, default -100
        Rows with this target have loss 0 and gradient 0.
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean divides by the sum of w_{y_i} over the rows that are not ignored.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `targets`
        In nats; float32 for float16, bfloat16 and float32 log-probabilities, otherwise float64.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError
        As `cross_entropy`.

    Notes
    -----
    A log-probability of -inf gives +inf; NaN gives NaN in its row. With every row ignored, or no
    weight in all, the mean is NaN and the gradient exactly 0. Scratch: some numbers a row.

    Methods: `value_and_grad` and `grad`, the gradient being -w at the target and 0 elsewhere.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, equation 4.108.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> float(fl.nll_loss(np.log([[0.2, 0.7, 0.1]]), [1]).round(4))
    0.3567
    """
    return _NegativeLogLikelihood(log_probs, targets, axis, weight, ignore_index, reduction)
