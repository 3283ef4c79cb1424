"""Information of rows: entropy and divergences, of probabilities or of logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine.arrays import Array, Axis
from fastloss._engine.elementary import log, log_normal, log_positive, log_ratio, ratio_normal
from fastloss._engine.jit import inline
from fastloss._engine.loss import BoundPullback, BoundValue, Operation, PairPullback, Pullback, Result
from fastloss._engine.pairs import JS, KL, BoundLogits, js_ordinary, js_term
from fastloss._engine.rowsums import BoundRowSums, BoundTerms, Terms
from fastloss._engine.vector import cast

__all__ = [
    "distribution_cross_entropy",
    "entropy",
    "entropy_from_logits",
    "information_content",
    "js_divergence",
    "js_divergence_from_logits",
    "kl_divergence",
    "kl_divergence_from_logits",
]


# ---- formulas: the term of one probability, or of a pair ------------------------------------
# Those of ordinary numbers (`vector.ordinary`) give what the others do, without what these need for zeros,
# subnormal and infinite numbers, and for those that are no probabilities.
@inline
def information_formula(p: Any, _q: Any) -> Any:
    """-log p."""
    return cast(0.0, p) - log(p)


@inline
def entropy_formula(p: Any, _q: Any) -> Any:
    """-p log p."""
    return -(p * log_positive(p)) if p >= cast(0.0, p) else cast(np.nan, p)


@inline
def entropy_ordinary(p: Any, _q: Any) -> Any:
    return -(p * log_normal(p))


@inline
def cross_formula(p: Any, q: Any) -> Any:
    """-p log q."""
    zero, inf = cast(0.0, p), cast(np.inf, p)
    t = -(p * log_positive(q))
    t = -inf if q == inf else t
    t = inf if (q == zero) & (p > zero) else t
    return t if (p >= zero) & (q >= zero) else cast(np.nan, p)


@inline
def cross_ordinary(p: Any, q: Any) -> Any:
    return -(p * log_normal(q))


@inline
def kl_formula(p: Any, q: Any) -> Any:
    """p log(p/q); what `log_ratio` makes of p = 0 and p = inf is right here."""
    zero, inf = cast(0.0, p), cast(np.inf, p)
    t = p * log_ratio(p, q)
    t = -inf if q == inf else t
    t = inf if (q == zero) & (p > zero) else t
    return t if (p >= zero) & (q >= zero) else cast(np.nan, p)


@inline
def kl_ordinary(p: Any, q: Any) -> Any:
    return p * ratio_normal(p, q)


_INFORMATION, _ENTROPY, _CROSS, _KL, _JS = (
    Terms(formula, ordinary)
    for formula, ordinary in (
        (information_formula, information_formula), (entropy_formula, entropy_ordinary),
        (cross_formula, cross_ordinary), (kl_formula, kl_ordinary), (js_term, js_ordinary),
    )
)  # fmt: skip


# ---- doors: of probabilities ----------------------------------------------------------------
@Operation
def information_content(
    p: ArrayLike, *, base: float | None = None, out: Array | None = None
) -> BoundValue[Array]:
    r"""Information of events of probability p, element by element: how surprising they are.

    .. math:: I(p) = -\log p

    Parameters
    ----------
    p : array_like, any shape
        Probabilities. Any layout; never copied whole.
    base : float, optional
        Of the logarithm: 2 gives bits, None nats; finite, > 0 and not 1.
    out : ndarray, optional
        Where to write the result, of its shape and dtype; may be `p` itself. Undefined if the call is
        interrupted (Ctrl-C).

    Returns
    -------
    ndarray, shape of `p`
        Of its dtype if that is float16, bfloat16 or float32, otherwise float64.

    Raises
    ------
    TypeError
        `p` is complex, object, masked, or of another type that is not real; `base` is not a number.
    ValueError
        `base` is out of range; `out` has another shape or dtype, or is read-only.

    Notes
    -----
    p = 0 gives +inf, p < 0 NaN, p > 1 what the formula does, NaN NaN. Scratch: 49 kB a thread (float64
    98 kB).

    References
    ----------
    C. E. Shannon, "A mathematical theory of communication", 1948.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.information_content([1.0, 0.5, 0.125, 0.0], base=2)
    array([ 0.,  1.,  3., inf])
    """
    return BoundTerms(_INFORMATION, p, base, out)


@Operation
def entropy(
    p: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundValue[Result]:
    r"""Entropy of rows of probabilities: their mean information.

    .. math:: H(p) = -\sum_j p_j \log p_j

    Between 0, where one outcome is certain, and log V, where all are alike. Each array is read once.

    Parameters
    ----------
    p : array_like, shape (..., V)
        Rows of probabilities; V is the length along `axis`. Not normalised here. Any layout; never copied
        whole, but where a tuple `axis` names axes that no single stride walks.
    axis : int, tuple of int or None, default -1
        What is summed over; None: the whole array.
    base : float, optional
        Of the logarithm: 2 gives bits, None nats; finite, > 0 and not 1.
    reduction : {"mean", "sum", "none"}, default "none"
        What becomes of the rows' results.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `p` without `axis`
        Float32 for float16, bfloat16 (of ml_dtypes) and float32, otherwise float64. Summed in float64,
        rounded once.

    Raises
    ------
    TypeError
        `p` is complex, object, masked, or of another type that is not real; `base` is not a number.
    ValueError
        V is 0; `base` or `reduction` is out of range; `p` is 0-d and `axis` not None.
    numpy.exceptions.AxisError
        `axis` is out of range.

    Notes
    -----
    0 log 0 is 0. p < 0 or NaN gives NaN, in that row alone. With no rows the mean is NaN, the sum 0. Terms
    are right to two units in the last place. Scratch: 49 kB a thread (float64 98 kB), 8 bytes a row, and 8
    for every 32768 numbers of longer ones; where rows of more than 4096 lie side by side up to 4.2 MB a
    thread for each array.

    References
    ----------
    C. E. Shannon, "A mathematical theory of communication", 1948, section 6.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.entropy([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], base=2)
    array([1.5, 0. ])
    """
    return BoundRowSums(_ENTROPY, p, None, axis, base, reduction)


@Operation
def distribution_cross_entropy(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundValue[Result]:
    r"""Cross-entropy of rows of probabilities: the mean information of p to who believes in q.

    .. math:: H(p, q) = -\sum_j p_j \log q_j = H(p) + D(p \| q)

    Parameters
    ----------
    p : array_like, shape (..., V)
        Rows of probabilities, what happens; V is the length along `axis`. Not normalised here.
    q : array_like, the shape of `p`
        Rows of probabilities, what is believed. Converted to the type of `p`; never broadcast.
    axis : int, tuple of int or None, default -1
        What is summed over.
    base : float, optional
        Of the logarithm.
    reduction : {"mean", "sum", "none"}, default "none"
        What becomes of the rows' results.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `p` without `axis`
        As `entropy`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `entropy`; `q` has another shape.

    Notes
    -----
    A term of p = 0 is 0, one of p > 0 and q = 0 is +inf; p < 0, q < 0 or NaN gives NaN, in that row alone.
    Scratch, empty arrays: see `entropy`. For class indices or logits see `cross_entropy`.

    References
    ----------
    I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", 2016, equation 3.51.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.distribution_cross_entropy([0.5, 0.25, 0.25], [0.25, 0.25, 0.5], base=2))
    1.75
    """
    return BoundRowSums(_CROSS, p, q, axis, base, reduction)


@Operation
def kl_divergence(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundValue[Result]:
    r"""Kullback-Leibler divergence of rows of probabilities: what believing in q costs where p is so.

    .. math:: D(p \| q) = \sum_j p_j \log \frac{p_j}{q_j}

    Of distributions never below 0, and 0 where they are the same.

    Parameters
    ----------
    p : array_like, shape (..., V)
        Rows of probabilities, what happens; V is the length along `axis`. Not normalised here.
    q : array_like, the shape of `p`
        Rows of probabilities, what is believed. Converted to the type of `p`; never broadcast.
    axis : int, tuple of int or None, default -1
        What is summed over.
    base : float, optional
        Of the logarithm.
    reduction : {"mean", "sum", "none"}, default "none"
        What becomes of the rows' results.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `p` without `axis`
        As `entropy`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `entropy`; `q` has another shape.

    Notes
    -----
    A term of p = 0 is 0, one of p > 0 and q = 0 is +inf; p < 0, q < 0 or NaN gives NaN, in that row alone.
    p/q is not formed, so that log(p/q) keeps its digits where p is near q. Scratch, empty arrays: see
    `entropy`.

    References
    ----------
    S. Kullback, R. A. Leibler, "On information and sufficiency", 1951.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.kl_divergence([0.5, 0.25, 0.25], [0.25, 0.25, 0.5], base=2))
    0.25
    """
    return BoundRowSums(_KL, p, q, axis, base, reduction)


@Operation
def js_divergence(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundValue[Result]:
    r"""Jensen-Shannon divergence of rows of probabilities: symmetric, and finite where one is 0.

    .. math:: J(p, q) = \tfrac12 D(p \| m) + \tfrac12 D(q \| m), \quad m = \tfrac12 (p + q)

    Between 0 and log 2; its square root is a metric.

    Parameters
    ----------
    p : array_like, shape (..., V)
        Rows of probabilities; V is the length along `axis`. Not normalised here.
    q : array_like, the shape of `p`
        Rows of probabilities. Converted to the type of `p`; never broadcast.
    axis : int, tuple of int or None, default -1
        What is summed over.
    base : float, optional
        Of the logarithm.
    reduction : {"mean", "sum", "none"}, default "none"
        What becomes of the rows' results.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `p` without `axis`
        As `entropy`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `entropy`; `q` has another shape.

    Notes
    -----
    0 log 0 is 0; p < 0, q < 0 or NaN gives NaN, in that row alone. No term is below 0, and none loses
    digits where p is near q. Scratch, empty arrays: see `entropy`.

    References
    ----------
    J. Lin, "Divergence measures based on the Shannon entropy", 1991.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.js_divergence([[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]], base=2)
    array([1., 0.])
    """
    return BoundRowSums(_JS, p, q, axis, base, reduction)


# ---- doors: of logits -----------------------------------------------------------------------
@Pullback
def entropy_from_logits(
    x: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundPullback[Result]:
    r"""Entropy of the softmax of rows of logits, which is not formed.

    .. math:: H = \log s - \frac{1}{s} \sum_j e_j (x_j - m), \quad e_j = \exp(x_j - m),\; s = \sum_k e_k,
        \; m = \max_k x_k

    Computed online, with one read of each row; digits are kept where one probability is nearly 1.

    Parameters
    ----------
    x : array_like, shape (..., V)
        Logits; V is the length along `axis`. Any layout; never copied whole, but where a tuple
        `axis` names axes that no single stride walks.
    axis : int, tuple of int or None, default -1
        Where the probabilities sum to 1; None: over the whole array.
    base : float, optional
        Of the logarithm: 2 gives bits, None nats; finite, > 0 and not 1.
    reduction : {"mean", "sum", "none"}, default "none"
        What becomes of the rows' results.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `x` without `axis`
        Float32 for float16, bfloat16 (of ml_dtypes) and float32, otherwise float64.

    Raises
    ------
    TypeError
        `x` is complex, object, masked, or of another type that is not real; `base` is not a number.
    ValueError
        V is 0; `base` or `reduction` is out of range; `x` is 0-d and `axis` not None.
    numpy.exceptions.AxisError
        `axis` is out of range.

    Notes
    -----
    A logit of -inf has probability 0 and adds nothing. A row of nothing else, or with NaN or +inf in it, is
    NaN, and no other row. With no rows the mean is NaN, the sum 0. Scratch: 16 kB a thread (float64 33 kB),
    16 bytes a row, and 88 for every 32768 numbers of a row, of all rows where they are few or side by side;
    where rows of more than 128 numbers lie side by side up to 4.2 MB a thread for each array.

    Method: `vjp(x, cotangent)`, -p (log p + H) times the cotangent, which has the shape of the result; of
    the shape and dtype of `x`, exactly 0 where p is. It reads each row twice, the second time from cache
    where it fits.

    References
    ----------
    M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018, of which the sum of e (x -
    m) is kept beside s.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.entropy_from_logits([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1e9, -1e9]], base=2)
    array([2., 1.])
    """
    return BoundLogits(KL, x, None, ("x",), axis, 1.0, base, reduction)


@PairPullback
def kl_divergence_from_logits(
    p_logits: ArrayLike, q_logits: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0,
    base: float | None = None, reduction: str = "none",
) -> BoundPullback[Result]:
    r"""Kullback-Leibler divergence of the softmax of rows of logits: the loss of distillation.

    .. math:: D(p \| q) = \sum_j p_j \log \frac{p_j}{q_j}, \quad p = \mathrm{softmax}(a/T),\;
        q = \mathrm{softmax}(b/T)

    Neither p nor q is formed. One read of each array; rows whose divergence is small are gone over a second
    time, from cache where they fit, with terms that do not cancel.

    Parameters
    ----------
    p_logits : array_like, shape (..., V)
        a; V is the length along `axis`.
    q_logits : array_like, the shape of `p_logits`
        b. Converted to the type of `p_logits`; never broadcast.
    axis : int, tuple of int or None, default -1
        Where the probabilities sum to 1; None: over the whole array.
    temperature : float, default 1.0
        T, of both. Logits in float32 and half types with T outside [2^-60, 2^60] are computed in float64.
    base : float, optional
        Of the logarithm.
    reduction : {"mean", "sum", "none"}, default "none"
        What becomes of the rows' results.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `p_logits` without `axis`
        As `entropy_from_logits`; never below 0, and 0 where the logits are the same.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `entropy_from_logits`; `q_logits` has another shape; `temperature` is not finite and > 0.

    Notes
    -----
    Where a is -inf the term is 0; where b is and a is not, the result is +inf, however small p is. A row of
    either that is nothing but -inf, or has NaN or +inf in it, gives NaN, and no other row does. Scratch: 16
    kB a thread (float64 33 kB); otherwise see `entropy_from_logits`.

    Method: `vjp(p_logits, q_logits, cotangent)`, the pair of p (log p - log q - D)/T and (q - p)/T, times
    the cotangent; `out` is a pair. Multiply by T^2 for distillation's customary scale. Where D is +inf the
    first is NaN, but 0 where p is.

    References
    ----------
    G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.kl_divergence_from_logits([0.0, 1.0], [0.0, 0.0]).round(4))
    0.1109
    >>> fl.kl_divergence_from_logits.vjp([0.0, 1.0], [0.0, 0.0], 1.0)[1].round(4)
    array([ 0.2311, -0.2311])
    """
    return BoundLogits(KL, p_logits, q_logits, ("p_logits", "q_logits"), axis, temperature, base, reduction)


@PairPullback
def js_divergence_from_logits(
    p_logits: ArrayLike, q_logits: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0,
    base: float | None = None, reduction: str = "none",
) -> BoundPullback[Result]:
    r"""Jensen-Shannon divergence of the softmax of rows of logits.

    .. math:: J = \tfrac12 D(p \| m) + \tfrac12 D(q \| m), \quad m = \tfrac12 (p + q),\;
        p = \mathrm{softmax}(a/T),\; q = \mathrm{softmax}(b/T)

    Neither is formed. Terms need both normalisers, so each row is read twice, the second time from cache
    where it fits.

    Parameters
    ----------
    p_logits : array_like, shape (..., V)
        a; V is the length along `axis`.
    q_logits : array_like, the shape of `p_logits`
        b. Converted to the type of `p_logits`; never broadcast.
    axis : int, tuple of int or None, default -1
        Where the probabilities sum to 1; None: over the whole array.
    temperature : float, default 1.0
        T, of both.
    base : float, optional
        Of the logarithm.
    reduction : {"mean", "sum", "none"}, default "none"
        What becomes of the rows' results.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `p_logits` without `axis`
        As `entropy_from_logits`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `kl_divergence_from_logits`.

    Notes
    -----
    A logit of -inf has probability 0. A row of either that is nothing but -inf, or has NaN or +inf in it,
    gives NaN, and no other row does. Scratch: 16 kB a thread (float64 33 kB); otherwise see
    `entropy_from_logits`.

    Method: `vjp(p_logits, q_logits, cotangent)`, the pair of p (h - sum(p h))/T with h = log(p/m)/2 and
    q (g - sum(q g))/T with g = log(q/m)/2, times the cotangent; `out` is a pair. It goes over the rows a
    third time.

    References
    ----------
    J. Lin, "Divergence measures based on the Shannon entropy", 1991.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.js_divergence_from_logits([0.0, 1000.0], [1000.0, 0.0], base=2).round(4))
    1.0
    """
    return BoundLogits(JS, p_logits, q_logits, ("p_logits", "q_logits"), axis, temperature, base, reduction)
