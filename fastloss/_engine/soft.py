"""Cross-entropy of rows of logits and rows of class probabilities, by the walk of both."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays, blocks, few, leaves, products, rows
from fastloss._engine.arrays import Array
from fastloss._engine.curved import GRAD_HESS, HESS_GRAD, HVP, NOTHING, RATE, Curved
from fastloss._engine.elementary import log1p
from fastloss._engine.jit import leaf
from fastloss._engine.kernels import kernel
from fastloss._engine.vector import LANES, cast, lanes, view


@leaf
def masses(
    q: int, g: Array, columns: int, k0: int, k1: int, blend: Array, work: int, parts: Array, first: int,
    inv: Any,
) -> None:
    """State V of segments k0 to k1 - 1: the sums of their targets."""
    zero = cast(0.0, inv)
    for k in range(k0, k1):
        total = 0.0
        for j in range(k * blocks.SEGMENT, min((k + 1) * blocks.SEGMENT, columns), blocks.BLOCK):
            n = min(blocks.BLOCK, columns - j)
            t = rows.beside(q, g, j, n, zero, blocks.buffer(work, blocks.T_BLOCK, inv), blend)
            total += leaves.sum_of(t, 0, blocks.AHEAD)
        parts[first + k, rows.V] = total


@kernel
def soft_cross_entropy_rows(
    w: int, workers: int, first: int, last: int, columns: int,
    work: int, stride: int, room: int, maxima: Array, parts: Array, rate: float,
    owing_at: Array, owing: Array, phase: int,
    x: int, xg_at: int, q: int, qg_at: int, blend: Array, sample_weight: Array, temperature: float,
    losses: Array, rates: Array, wanted: int, denominator: float, t: int, tg_at: int,
    out: int, og_at: int, curved: int, cg_at: int, streamed: int,
) -> None:
    """losses[i] = sum_j q_j (log(sum(exp(x/T))) - x_j/T), and by `wanted` the gradient, the Hessian times a
    tangent, its diagonal, or in `rates` the losses' derivatives by 1/T.

    `blend` makes of the targets given those that are meant, smoothed and weighted. With p = softmax(x/T),
    A = sum(q) and k the row's sample weight over the denominator of the reduction: gradient
    k (A p - q)/T, Hessian k A (diag(p) - p p')/T^2. Derivatives are exactly 0 if the denominator is 0.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    inv = cast(rate, maxima[0, 0])  # 1/T, in the compute type
    xg, qg, tg = blocks.geometry(xg_at), blocks.geometry(qg_at), blocks.geometry(tg_at)
    og, cg = blocks.geometry(og_at), blocks.geometry(cg_at)
    count = blocks.segments(columns)
    zero, none = cast(0.0, inv), view(0, 0, inv)
    mine = work + w * stride
    owed_at, owed = owing_at[w], owing[w]
    owed_at[rows.TO] = 0
    companion = rows.BOTH if wanted == RATE else rows.WEIGHTS
    for task in blocks.share(w, workers, first, last):
        i, k0, k1 = rows.task_of(task, workers, phase, count, parts)
        slot = 2 * w if phase == rows.WHOLE else i
        keep = rows.keep_at(mine, room, inv)
        row, beside = blocks.row_address(x, xg, i), blocks.row_address(q, qg, i)
        other = blocks.row_address(t, tg, i)
        j0, j1 = k0 * blocks.SEGMENT, min(k1 * blocks.SEGMENT, columns)
        if phase != rows.FINISH:
            if wanted == HVP:
                rows.walk_segments(
                    row, xg, columns, k0, k1, leaves.LOGITS, inv, other, tg, rows.TANGENTS, none, -1, zero,
                    keep, mine, maxima, slot, parts, owed_at, owed, og, 0,
                )
                masses(beside, qg, columns, k0, k1, blend, mine, parts, slot * count, inv)
            else:
                rows.walk_segments(
                    row, xg, columns, k0, k1, leaves.LOGITS, inv, beside, qg, companion, blend, -1, zero,
                    keep, mine, maxima, slot, parts, owed_at, owed, og, 0,
                )
        if phase == rows.WALK:
            continue
        m, r, u, v, c, peak = rows.merged(
            parts, slot * count, count, leaves.LOGITS, rows.TANGENTS if wanted == HVP else companion, inv
        )
        if wanted != HVP and k0 == 0:
            losses[i] = u * np.float64(inv) + log1p(r) * v if m != -np.inf else np.nan
            if wanted == RATE:
                own = rows.own_merged(parts, slot * count, count, m, inv)
                rates[i] = u + v * (own / rows.mass(leaves.LOGITS, m, r))
        if wanted in (NOTHING, RATE):
            continue
        to, to_curved = blocks.row_address(out, og, i), blocks.row_address(curved, cg, i)
        if denominator == 0.0:
            blocks.fill(zero, j0, j1, mine, to, og, streamed)
            if wanted >= GRAD_HESS:
                blocks.fill(zero, j0, j1, mine, to_curved, cg, streamed)
            continue
        k = (np.float64(sample_weight[i]) if sample_weight.size else 1.0) / denominator
        pull = k * np.float64(inv) * v
        if wanted == HVP:
            rows.finish(
                row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                other, tg, none, keep, mine, maxima[slot], m, r,
                rows.FORWARD, cast(c, inv), cast(rows.middle(leaves.LOGITS, m, r, u), inv), pull, zero, 0.0,
                -1, zero, zero, (0.0, 0.0), to, og, streamed,
            )
            continue
        # Of two outputs, one that lies on the logits comes last.
        for step in range(2):
            if (step == 0) == (wanted == HESS_GRAD):
                if wanted >= GRAD_HESS:
                    rows.finish(
                        row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                        beside, qg, none, keep, mine, maxima[slot], m, r,
                        rows.CURVE, zero, zero, 0.0, cast(pull, inv), 0.0,
                        -1, zero, zero, (0.0, 0.0), to_curved, cg, streamed,
                    )
            else:
                # q_j - p_j sum(q) where p_j may be nearly 1
                p, rest = rows.odds(leaves.LOGITS, m, r)
                exact = -k * np.float64(inv) * (c * rest - p * (v - c))
                doubt = k * np.float64(inv) * (abs(c) * rest + p * (abs(v) + abs(c)))
                rows.finish(
                    row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                    beside, qg, blend, keep, mine, maxima[slot], m, r,
                    rows.REVERSE, zero, zero, 0.0, cast(k * v, inv), -k,
                    -1 if m == -np.inf else peak, cast(exact, inv), cast(abs(doubt), inv), (0.0, 0.0),
                    to, og, streamed,
                )
    blocks.settle(streamed)


# ---- the loss bound to its arguments --------------------------------------------------------
class SoftCrossEntropy(Curved):
    """Cross-entropy of logits and class probabilities, and its derivatives."""

    def __init__(
        self,
        logits: ArrayLike,
        targets: ArrayLike,
        axis: int,
        weight: ArrayLike | None,
        sample_weight: ArrayLike | None,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
        temperature: float,
    ) -> None:
        self.smoothing = arrays.fraction(label_smoothing, "label_smoothing")
        self.temperature = arrays.positive(temperature, "temperature")
        self.x = arrays.real(logits, "logits")
        self.axis = arrays.axis_of(axis, self.x.ndim, "logits")
        self.q = arrays.probabilities(targets, self.x.shape, self.axis, "logits")
        if arrays.index_of(ignore_index, "ignore_index") >= 0:
            raise ValueError(
                f"ignore_index is {ignore_index}, but targets are class probabilities, of which it names "
                "none; leave it out"
            )
        self.dtype = arrays.result_type(self.x)
        self.row_dtype = arrays.upcast(self.dtype)
        self.compute = rows.compute_type(self.dtype, self.temperature)
        self.shape = arrays.without(self.x.shape, (self.axis,))
        self.classes = self.x.shape[self.axis]
        self.reduction = arrays.reduction_of(reduction)
        self.weight = arrays.class_weights(weight, self.classes, self.row_dtype)
        self.sample_weight = arrays.sample_weights(sample_weight, self.shape, self.row_dtype)
        if self.reduction == "mean" and self.sample_weight is not None:
            self.sample_weight = arrays.lifted(self.sample_weight)
        self.rates = np.empty(0)

    def _order(self, grad: Array, hess: Array) -> int:
        last = arrays.overlap(hess, self.x) or arrays.overlap(hess, self.q)
        if last and (arrays.overlap(grad, self.x) or arrays.overlap(grad, self.q)):
            self.q = self.q.copy()
            last = arrays.overlap(hess, self.x)
        return GRAD_HESS if last else HESS_GRAD

    def _run(
        self,
        wanted: int,
        out: Array | None = None,
        result: Array | None = None,
        *,
        tangent: Array | None = None,
        hess: Array | None = None,
        given: Array | None = None,
    ) -> Array:
        """The losses of the rows; `result` and `hess` are written."""
        dtype, axes, none = self.compute, (self.axis,), arrays.NONE[self.compute]
        x, q, t = self.x, self.q, tangent
        if not x.size:
            return np.empty(0)
        for user, written in ((out, result), (given, hess)):
            if user is not None and written is not None:
                x, q = arrays.apart(x, written), arrays.apart(q, written)
                t = t if t is None else arrays.apart(t, written)
        streamed = 0 if out is None or result is None else blocks.streamed(result, x)
        if self.classes <= products.SHORT:
            losses, self.rates = few.run(
                dtype, self.temperature, self.smoothing, self.weight, self.sample_weight, x, self.axis, q,
                wanted, self.divisor(), streamed, t, result, hess,
            )
            return losses
        places = [(arrays.address(x), arrays.rows_of(x, axes, dtype))]
        for other in (q, t, result, hess):  # what is absent is not looked at: x does for it
            places.append(
                places[0]
                if other is None
                else (arrays.address(other), arrays.rows_of(other, axes, dtype))
            )
        (x_at, xl), (q_at, ql), (t_at, tl), (to, lies), (to_hess, hess_lies) = places
        inv = rows.reciprocal(self.temperature, dtype)
        each = none if self.sample_weight is None else self.sample_weight.astype(dtype, copy=False)
        losses = np.empty(xl.rows)
        self.rates = np.empty(xl.rows if wanted == RATE else 0)
        plan = rows.plan_of(xl, inv, dtype, exponentials=wanted not in (NOTHING, RATE))
        sides = plan.sides(
            (0, 1, x, xl), (2, 3, q, ql), (11, 12, t, tl),
            made=((13, 14, result, lies), (15, 16, hess, hess_lies)),
        )
        plan.run(
            soft_cross_entropy_rows,
            x_at, xl.geometry, q_at, ql.geometry, self._blend(), each, self.temperature, losses, self.rates,
            wanted, self.divisor(), t_at, tl.geometry, to, lies.geometry, to_hess, hess_lies.geometry,
            streamed, sides=sides,
        )
        return losses

    def _blend(self) -> Array:
        """What makes (1 - eps) q + eps/V of targets, times class weights: see `rows.beside`."""
        if self.smoothing == 0.0 and self.weight is None:
            return arrays.NONE[self.compute]
        blend = np.zeros(2 + -(-self.classes // LANES) * LANES, self.compute)
        blend[0], blend[1] = 1.0 - self.smoothing, self.smoothing / self.classes
        blend[2 : 2 + self.classes] = 1.0 if self.weight is None else self.weight
        return blend

    @property
    def denominator(self) -> float:
        """What the mean divides by."""
        if self.sample_weight is None:
            return float(self.x.size // self.classes)
        return float(self.sample_weight.sum(dtype=np.float64))

    def divisor(self) -> float:
        if self.weight is not None and not self.weight.any():
            return 0.0
        if self.reduction == "mean":
            return self.denominator
        return 1.0 if self.sample_weight is None else float(self.sample_weight.any())

    def reduce(self, losses: Array | float) -> Any:
        losses = np.asarray(losses)
        if self.sample_weight is not None:
            losses = losses * self.sample_weight
        if self.reduction == "none":
            result = losses.astype(self.row_dtype).reshape(self.shape)
            return result if result.ndim else result[()]
        total = float(losses.sum())
        if self.reduction == "mean":
            # No rows, or none of any weight: 0/0, whatever the logits.
            total = total / self.denominator if self.denominator != 0.0 else np.nan
        return self.row_dtype.type(total)
