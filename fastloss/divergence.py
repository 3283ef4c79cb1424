"""Information of rows: entropy and divergences, of probabilities or of logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine.arrays import Array, Axis
from fastloss._engine.elementary import log, log_positive, log_ratio
from fastloss._engine.jit import inline
from fastloss._engine.loss import BoundDivergence, BoundValue, Divergence, Entropy, Operation, Result
from fastloss._engine.pairs import JS, KL, BoundLogits, js_term
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
@inline
def information_formula(p: Any, _q: Any) -> Any:
    """-log p."""
    return cast(0.0, p) - log(p)


@inline
def entropy_formula(p: Any, _q: Any) -> Any:
    """-p log p."""
    return -(p * log_positive(p)) if p >= cast(0.0, p) else cast(np.nan, p)


@inline
def cross_formula(p: Any, q: Any) -> Any:
    """-p log q."""
    zero, inf = cast(0.0, p), cast(np.inf, p)
    t = -(p * log_positive(q))
    t = -inf if q == inf else t
    t = inf if (q == zero) & (p > zero) else t
    return t if (p >= zero) & (q >= zero) else cast(np.nan, p)


@inline
def kl_formula(p: Any, q: Any) -> Any:
    """p log(p/q); what `log_ratio` makes of p = 0 and p = inf is right here."""
    zero, inf = cast(0.0, p), cast(np.inf, p)
    t = p * log_ratio(p, q)
    t = -inf if q == inf else t
    t = inf if (q == zero) & (p > zero) else t
    return t if (p >= zero) & (q >= zero) else cast(np.nan, p)


@inline
def js_formula(p: Any, q: Any) -> Any:
    """(p log(p/m) + q log(q/m)) / 2, m = (p + q)/2."""
    return js_term(p, q)


_INFORMATION, _ENTROPY, _CROSS, _KL, _JS = (
    Terms(formula)
    for formula in (information_formula, entropy_formula, cross_formula, kl_formula, js_formula)
)


@Operation
def information_content(
    p: ArrayLike, *, base: float | None = None, out: Array | None = None
) -> BoundValue[Array]:
    return BoundTerms(_INFORMATION, p, base, out)


@Operation
def entropy(
    p: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundValue[Result]:
    return BoundRowSums(_ENTROPY, p, None, axis, base, reduction)


@Operation
def distribution_cross_entropy(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundValue[Result]:
    return BoundRowSums(_CROSS, p, q, axis, base, reduction)


@Operation
def kl_divergence(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundValue[Result]:
    return BoundRowSums(_KL, p, q, axis, base, reduction)


@Operation
def js_divergence(
    p: ArrayLike, q: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundValue[Result]:
    return BoundRowSums(_JS, p, q, axis, base, reduction)


@Entropy
def entropy_from_logits(
    x: ArrayLike, axis: Axis = -1, *, base: float | None = None, reduction: str = "none"
) -> BoundDivergence[Result]:
    return BoundLogits(KL, x, None, ("x",), axis, 1.0, base, reduction)


@Divergence
def kl_divergence_from_logits(
    p_logits: ArrayLike, q_logits: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0,
    base: float | None = None, reduction: str = "none",
) -> BoundDivergence[Result]:
    return BoundLogits(KL, p_logits, q_logits, ("p_logits", "q_logits"), axis, temperature, base, reduction)


@Divergence
def js_divergence_from_logits(
    p_logits: ArrayLike, q_logits: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0,
    base: float | None = None, reduction: str = "none",
) -> BoundDivergence[Result]:
    return BoundLogits(JS, p_logits, q_logits, ("p_logits", "q_logits"), axis, temperature, base, reduction)
