"""Cross-entropy of logits, and the negative log-likelihood of log-probabilities."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import across, arrays, blocks, leaves, rows, twofold
from fastloss._engine.again import recall
from fastloss._engine.arrays import STRIDE, Array
from fastloss._engine.elementary import exp_nonpositive, log1p, two_sum
from fastloss._engine.jit import inline, leaf
from fastloss._engine.kernels import kernel
from fastloss._engine.loss import BoundCurvedLoss, BoundLoss, CurvedLoss, Loss, Result
from fastloss._engine.vector import (
    LANES,
    added,
    cast,
    chosen,
    fence,
    fold,
    itemsize,
    lanes,
    part,
    store,
    view,
    wide,
)

__all__ = ["cross_entropy", "nll_loss"]


# ---- formula --------------------------------------------------------------------------------
@inline
def row_loss(
    m: float, r: float, short: float, mass: float, x_t: float, inv: float, w_t: float,
    smoothing: float, columns: int,
) -> float:
    """(1 - eps) w_t nll + eps/V sum_j w_j nll_j with nll_j = (m - x_j)/T + log(1 + r).

    `short` is sum_j w_j (m - x_j) and `mass` sum_j w_j. Grouped so that a shift of the logits
    cancels before anything is rounded; a term that smoothing leaves out is not formed, since its
    zero times an infinite logit would be NaN.
    """
    log_s = log1p(r)
    loss = 0.0
    if smoothing < 1.0:
        loss += (1.0 - smoothing) * w_t * ((m - x_t) * inv + log_s)
    if smoothing > 0.0:
        loss += smoothing / columns * (short * inv + log_s * mass)
    return loss


@inline
def target_slope(
    m: Any, r: float, mass: float, x_t: Any, inv: Any, w_t: float, smoothing: float, columns: int
) -> Any:
    """(sum(q) p_t - q_t, the size of its terms), q the smoothed and weighted target; p_t and 1 - p_t
    both keep their digits. m, x_t and inv are of the compute type.
    """
    s = rows.mass(leaves.LOGITS, np.float64(m), r)
    if smoothing == 0.0:
        # r is that of an element at the maximum, and holds the target's where it is another
        e = np.float64(exp_nonpositive((x_t - m) * inv))
        rest = (r if x_t == m else r + (1.0 - e)) / s
        return -(w_t * rest), abs(w_t * rest)
    p, rest = rows.odds(leaves.LOGITS, np.float64(m), r)
    if x_t != m:
        p *= exp_nonpositive((np.float64(x_t) - np.float64(m)) * np.float64(inv))
        rest = 1.0 - p
    pull = (1.0 - smoothing) * w_t * rest
    even = smoothing / columns
    return even * (mass * p - w_t) - pull, even * (abs(mass) * p + abs(w_t)) + abs(pull)


@inline
def pull_of(w_t: float, smoothing: float, mass: float, columns: int) -> float:
    """sum(q), w_t and mass being over the denominator: what multiplies the probabilities."""
    if smoothing == 0.0:
        return w_t  # 0 times an infinite mass would be NaN
    return (1.0 - smoothing) * w_t + smoothing / columns * mass


@inline
def target_extra(w_t: float, smoothing: float, columns: int) -> Any:
    """(1 - eps) V/eps w_t, to twice the digits."""
    odds = twofold.over(two_sum(1.0, -smoothing), (smoothing, 0.0))
    return twofold.times(odds, twofold.two_product(np.float64(columns), w_t))


# ---- kernel ---------------------------------------------------------------------------------
# What the kernel writes beside the losses.
NOTHING, GRAD, HVP, GRAD_HESS, HESS_GRAD = 0, 1, 2, 3, 4
# A smoothing that no float32 tells from 0, and of which float64 holds the quotients.
LEAST = 1e-250


@kernel
def cross_entropy_rows(
    w: int, workers: int, first: int, last: int, columns: int,
    work: int, stride: int, room: int, maxima: Array, parts: Array, rate: float,
    owing_at: Array, owing: Array, phase: int,
    x: int, own: int, n: int, xg_at: int, weight: Array, mass: float,
    sample_weight: Array, smoothing: float, temperature: float,
    wanted: int, denominator: float, t: int, tg_at: int, companion: int,
    out: int, og_at: int, curved: int, cg_at: int, streamed: int,
) -> None:
    """Losses, and by `wanted` the gradient, the Hessian times a tangent, or its diagonal.

    At `own` lie the n targets, then numbers that this keeps, then the losses, all of eight bytes.

    With p = softmax(x/T), q the smoothed and weighted target, A = sum(q) and k the row's sample
    weight, both over the denominator of the reduction: gradient k (A p - q)/T, Hessian
    k A (diag(p) - p p')/T^2. `t` is the tangent, or with smoothing the class weights. Derivatives are
    exactly 0 if the denominator is 0.
    """
    inv = cast(rate, maxima[0, 0])  # 1/T, in the compute type
    xg, tg = blocks.geometry(xg_at), blocks.geometry(tg_at)
    og, cg = blocks.geometry(og_at), blocks.geometry(cg_at)
    count = blocks.segments(columns)
    zero = cast(0.0, inv)
    mine = work + w * stride
    owed_at, owed = owing_at[w], owing[w]
    owed_at[rows.TO] = turn = 0
    for task in blocks.share(w, workers, first, last):
        i, k0, k1 = rows.task_of(task, phase, count)
        slot = 2 * w + turn if phase == rows.WHOLE else i
        keep = rows.keep_at(mine, room, turn, inv)
        y = view(own + 8 * i, 1, np.int64(0))[0]
        x_t, loss = view(own + 8 * (n + i), 1, inv), view(own + 8 * (2 * n + i), 1, 0.0)
        row, other = blocks.row_address(x, xg, i), blocks.row_address(t, tg, i)
        j0, j1 = k0 * blocks.SEGMENT, min(k1 * blocks.SEGMENT, columns)
        if phase != rows.FINISH and y >= 0:
            if k0 == 0:  # before any worker writes a gradient over it
                x_t[0] = blocks.element(row, xg, y, mine, inv)
            rows.walk_segments(
                row, xg, columns, k0, k1, leaves.LOGITS, inv, other, tg, companion,
                keep, mine, maxima, slot, parts, owed_at, owed, og, streamed,
            )
        if phase == rows.WALK:
            continue
        share = np.float64(sample_weight[i]) if sample_weight.size else 1.0
        m, r, u, c = 0.0, 0.0, 0.0, 0.0
        w_t = 0.0
        if y >= 0:
            w_t = np.float64(weight[y]) if weight.size else 1.0
            m, r, u, _, c, _ = rows.merged(
                parts, slot * count, count, leaves.LOGITS, companion, inv
            )
            if k0 == 0:
                loss[0] = row_loss(
                    m, r, u, mass, x_t[0], np.float64(inv), w_t, smoothing, columns
                )
        elif k0 == 0:
            loss[0] = 0.0
        if wanted == NOTHING:
            continue
        to, to_curved = blocks.row_address(out, og, i), blocks.row_address(curved, cg, i)
        if y < 0 or denominator == 0.0:
            blocks.fill(zero, j0, j1, mine, to, og)
            if wanted >= GRAD_HESS:
                blocks.fill(zero, j0, j1, mine, to_curved, cg)
            continue
        # Divided before they are multiplied: the quotients are of ordinary size.
        w_t /= denominator
        total = pull_of(w_t, smoothing, mass / denominator, columns)
        pull = cast(share * np.float64(inv) * total, inv)
        if wanted == HVP:
            rows.finish(
                row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                other, tg, keep, mine, maxima[slot], m, r,
                rows.FORWARD, cast(c, inv), cast(rows.middle(leaves.LOGITS, m, r, u), inv),
                share * np.float64(inv) * total, zero, 0.0, -1, zero, zero, (0.0, 0.0), to, og, streamed,
            )
            continue
        slope, doubt = target_slope(
            cast(m, inv), r, mass / denominator, x_t[0], inv, w_t, smoothing, columns
        )
        exact = share * np.float64(inv) * slope
        if wanted == GRAD and companion != rows.WEIGHTS and room:
            rows.owe(owed_at, owed, to, keep, slot, y, m, r, np.float64(pull), exact)
            turn = 1 - turn
            continue
        # Of two outputs, one that lies on the logits comes last.
        for step in range(2):
            if (step == 0) == (wanted == HESS_GRAD):
                if wanted >= GRAD_HESS:
                    rows.finish(
                        row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                        other, tg, keep, mine, maxima[slot], m, r,
                        rows.CURVE, zero, zero, 0.0, pull, 0.0,
                        -1, zero, zero, (0.0, 0.0), to_curved, cg, streamed,
                    )
            else:
                smooth = companion == rows.WEIGHTS
                size = abs(share) * np.float64(inv) * doubt
                # q is spread/V times: the class weights, and at the target this more, which has to be finite.
                spread = max(smoothing, LEAST) if itemsize(inv) == 4 else smoothing
                extra = target_extra(np.float64(weight[y]), spread, columns) if smooth else (0.0, 0.0)
                rows.finish(
                    row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                    other, tg, keep, mine, maxima[slot], m, r,
                    rows.REVERSE if smooth else rows.SCALE, zero, zero, 0.0,
                    cast(share * total, inv) if smooth else pull,
                    -share * (spread / columns / denominator),
                    y, cast(exact, inv), cast(size, inv), extra,
                    to, og, streamed,
                )
    rows.pay_all(columns, owed_at, owed, maxima, og, streamed, mine, inv)
    if streamed:
        fence()


# What it keeps of each row of a batch; by compute type what comes from arrays of it, else float64.
INDEX, AT_TARGET, WEIGHT, SHARE, LOSS, PULL, EXACT = (across.OWN + k for k in range(7))


@leaf
def pick_across(at: int, step: int, columns: int, y: Array, x_t: Array) -> None:
    """x_t[k] = element y[k] of row k."""
    wide()
    found = lanes(y[0])
    for j in range(columns):
        chosen(view(at + j * step, LANES, y[0]), y, cast(j, y[0]), found)
    store(found, x_t)


@leaf
def losses_across(
    m: Array, r: Array, y: Array, x_t: Array, w_t: Array, loss: Array, mass: float, inv: Any, columns: int
) -> None:
    """The losses of LANES rows, 0 where y is negative."""
    wide()
    for k in range(LANES):
        each = row_loss(
            np.float64(m[k]), r[k], 0.0, mass, np.float64(x_t[k]), np.float64(inv), w_t[k], 0.0, columns
        )
        loss[k] = 0.0 if y[k] < 0 else each


@leaf
def slopes_across(
    m: Array, r: Array, x_t: Array, w_t: Array, share: Array, pull: Array, exact: Array,
    mass: float, denominator: float, inv: Any, columns: int,
) -> None:
    wide()
    for k in range(LANES):
        w = w_t[k] / denominator
        rate = share[k] * np.float64(inv)
        pull[k] = np.float64(cast(rate * pull_of(w, 0.0, mass / denominator, columns), inv))
        exact[k] = rate * target_slope(
            m[k], r[k], mass / denominator, x_t[k], inv, w, 0.0, columns
        )[0]


@leaf
def gradients_across(
    e: int, step: int, n: int, factor: Array, y: Array, exact: Array, o: int, o_step: int
) -> None:
    """o = factor e, but `exact` in column y, and 0 where y is negative."""
    wide()
    wanted, c, d = lanes(factor[0]), lanes(factor[0]), lanes(factor[0])
    store(y, wanted)
    store(factor, c)
    for k in range(LANES):
        d[k] = cast(exact[k], factor[0])
    for j in range(n):
        q, v = view(e + j * step, LANES, factor[0]), lanes(factor[0])
        column = cast(j, factor[0])
        for k in range(LANES):
            g = d[k] if wanted[k] == column else c[k] * q[k]
            v[k] = cast(0.0, factor[0]) if wanted[k] < 0 else g
        store(v, view(o + j * o_step, LANES, factor[0]))


@leaf
def sum_across(loss: Array) -> Any:
    """The sum of a batch's losses: row i belongs to partial sum i mod LANES, and those fold by halves."""
    wide()
    total = lanes(loss[0])
    for k in range(0, loss.size, LANES):
        added(total, part(loss, k), total)
    return fold(total)


def summed(losses: Array, columns: int) -> float:
    """What `cross_entropy_across` makes of the losses of one run of rows, batch by batch, from the losses."""
    if losses.size == 1:
        return float(losses[0])
    size = across.batch_size(columns)
    batches = np.zeros((-(-losses.size // size), size // LANES, LANES))
    batches.reshape(-1)[: losses.size] = losses
    totals = batches.sum(axis=1)
    while totals.shape[1] > 1:
        totals = totals[:, : totals.shape[1] // 2] + totals[:, totals.shape[1] // 2 :]
    return float(totals.sum())


@kernel
def cross_entropy_across(
    w: int, workers: int, first: int, last: int, columns: int, inner: int, size: int,
    work: int, stride: int, rate: float, maxima: Array, parts: Array,
    x: int, xg_at: int, targets: int, yg_at: int, weight: Array, mass: float, sample_weight: Array,
    losses: Array, sums: int,
    wanted: int, denominator: float, out: int, og_at: int, streamed: int,
) -> None:
    """What `cross_entropy_rows` makes without smoothing, the losses and the gradient, for LANES rows at a
    time. With `sums`, of the losses that of each batch.

    Targets are read once, and what is no class is an ignored row: they may be the caller's own.
    """
    inv = cast(rate, maxima[0, 0, 0])  # 1/T, in the compute type
    xg, yg, og = blocks.geometry(xg_at), blocks.geometry(yg_at), blocks.geometry(og_at)
    mine = work + w * stride
    scratch, b = across.flat_of(mine, size), itemsize(inv)
    short = columns <= across.SHORT
    y, x_t = across.whole(mine, INDEX, size, inv), across.whole(mine, AT_TARGET, size, inv)
    w_t, share = across.whole(mine, WEIGHT, size, 0.0), across.whole(mine, SHARE, size, 0.0)
    loss, exact = across.whole(mine, LOSS, size, 0.0), across.whole(mine, EXACT, size, 0.0)
    none = cast(-1.0, inv)
    for k in range(size):
        w_t[k] = share[k] = 1.0
    for task in blocks.share(w, workers, first, last):
        i, count, rest = across.batch(task, inner, size)
        row = blocks.row_address(x, xg, i)
        to = blocks.row_address(out, og, i)
        blocks.load(targets + i * yg[STRIDE], yg, count, y)
        for k in range(size):
            y[k] = y[k] if k < count and 0 <= y[k] < columns else none
        if not short:  # before any gradient is written over it
            for k in range(count):
                there = row + k * across.neighbour(xg)
                x_t[k] = blocks.element(there, xg, max(int(y[k]), 0), scratch, inv)
        at, step = across.walk(
            row, xg, columns, count, size, rest, mine, inv, maxima[w], parts[w]
        )
        for k in range(count if weight.size else 0):
            w_t[k] = weight[max(int(y[k]), 0)]
        for k in range(count if sample_weight.size else 0):
            share[k] = sample_weight[i + k]
        for k in range(0, size, LANES):
            m, r = across.slot(mine, across.M, size, k, inv), across.slot(mine, across.R, size, k, 0.0)
            if short:
                pick_across(at + k * b, step, columns, part(y, k), part(x_t, k))
            losses_across(
                m, r, part(y, k), part(x_t, k), part(w_t, k), part(loss, k), mass, inv, columns
            )
            if wanted:
                slopes_across(
                    m, r, part(x_t, k), part(w_t, k), part(share, k),
                    across.slot(mine, PULL, size, k, 0.0), part(exact, k), mass, denominator, inv, columns,
                )
        if sums:
            losses[task] = sum_across(loss)
        else:
            for k in range(count):
                losses[i + k] = loss[k]
        if not wanted:
            continue
        if denominator == 0.0:
            for k in range(size):
                y[k] = none
        if short:
            tile, e = across.tile_of(mine, columns, size, inv)
            for k in range(0, size, LANES):
                m, r = across.slot(mine, across.M, size, k, inv), across.slot(mine, across.R, size, k, 0.0)
                factor = across.slot(mine, across.FACTOR, size, k, inv)
                across.probability_factors(m, r, across.slot(mine, PULL, size, k, 0.0), factor, inv)
                gradients_across(
                    e + k * b, size * b, columns, factor, part(y, k), part(exact, k), tile + k * b, size * b
                )
            across.deliver(tile, columns, 0, columns, count, size, mine, to, og, streamed, inv)
            continue
        across.finish_long(
            row, xg, columns, count, size, rest, mine, at, inv, maxima[w], rows.SCALE,
            across.whole(mine, PULL, size, 0.0), to, og, streamed,
        )
        one = view(scratch, 1, inv)
        for k in range(count):
            there = to + k * across.neighbour(og)
            if y[k] < 0:
                blocks.fill(cast(0.0, inv), 0, columns, scratch, there, og)
            else:
                one[0] = cast(exact[k], inv)
                blocks.put(one, 1, there, og, int(y[k]), 0)
    if streamed:
        fence()


# ---- the loss bound to its arguments --------------------------------------------------------
LENT = 1 << 16  # targets from which a copy of them would be felt


class _Targets:
    """Checked rows of logits or log-probabilities, their class-index targets and their weights."""

    def __init__(
        self,
        logits: ArrayLike,
        name: str,
        targets: ArrayLike,
        axis: int,
        weight: ArrayLike | None,
        sample_weight: ArrayLike | None,
        ignore_index: int,
        reduction: str,
    ) -> None:
        self.x = arrays.real(logits, name)
        self.axis = arrays.axis_of(axis, self.x.ndim, name)
        self.dtype = arrays.result_type(self.x)
        self.row_dtype = arrays.upcast(self.dtype)
        self.shape = arrays.without(self.x.shape, (self.axis,))
        self.classes = self.x.shape[self.axis]
        self.reduction = arrays.reduction_of(reduction)
        self.weight = arrays.class_weights(weight, self.classes, self.row_dtype)
        self.sample_weight = arrays.sample_weights(sample_weight, self.shape, self.row_dtype)
        self.ignore_index = arrays.index_of(ignore_index, "ignore_index")
        self.given = arrays.class_indices(targets, self.x.shape, self.axis, name)
        # Whether the given targets, which are many, do without a private copy: none is ignored, and what
        # the kernel reads it looks at itself, should another thread write to them.
        self.lent = (
            self.given.size >= LENT
            and self.classes <= across.SHORT
            and self.weight is self.sample_weight is None
            and not 0 <= self.ignore_index < self.classes
            and arrays.all_classes(self.given, self.classes)
        )
        self._own: Array | None = None
        self._counted = 0
        if not self.lent:
            self._take_targets()
        if self.sample_weight is not None:
            self.sample_weight[self.targets < 0] = 0.0
        if self.reduction == "mean":
            self.weight, self.sample_weight = (
                None if w is None else arrays.lifted(w) for w in (self.weight, self.sample_weight)
            )

    @property
    def targets(self) -> Array:
        """A private copy, -1 where a row is ignored."""
        return self._take_targets() if self._own is None else self._own

    def _take_targets(self) -> Array:
        """Check and copy them."""
        self._own, self._counted = arrays.class_targets(self.given, self.classes, self.ignore_index)
        return self._own

    def lendable(self, written: Array | None, dtype: np.dtype[Any]) -> Any:
        """(address, layout) of the targets that `cross_entropy_across` reads while it writes an array."""
        y, lies = self.given, None
        if self.lent and (written is None or not arrays.overlap(y, written)):
            lies = arrays.layout(y, tuple(range(y.ndim)), dtype)
        if lies is None:
            y = self.targets
            lies = arrays.rows_of(y, (0,), dtype)
        return arrays.address(y), lies

    @property
    def counted(self) -> int:
        """Rows that are not ignored."""
        return self.given.size if self.lent else self._counted

    def row_weights(self) -> Array:
        """Each row's weight in the mean, sample weight times class weight; 0 where ignored."""
        share = (self.targets >= 0).astype(np.float64)
        if self.weight is not None:
            share *= np.where(self.targets < 0, 0.0, self.weight[self.targets])
        if self.sample_weight is not None:
            share *= self.sample_weight
        return share

    def reduce(self, losses: Array | float) -> Any:
        """Losses of the rows, class weights within, or their sum, to the value asked for."""
        if not isinstance(losses, float):
            if self.sample_weight is not None:
                losses *= self.sample_weight
            if self.reduction == "none":
                result = losses.astype(self.row_dtype).reshape(self.shape)
                return result if result.ndim else result[()]
            losses = summed(losses, self.classes)
        if self.reduction == "mean":
            # No row that counts, or none of any weight: 0/0, whatever the logits.
            denominator = self.denominator
            losses = losses / denominator if denominator != 0.0 else np.nan
        return self.row_dtype.type(losses)

    @cached_property
    def denominator(self) -> float:
        """What the mean divides by."""
        if self.weight is None and self.sample_weight is None:
            return float(self.counted)
        return float(self.row_weights().sum())


class _CrossEntropy(_Targets):
    """Cross-entropy and its derivatives, by `cross_entropy_rows`."""

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
        super().__init__(
            logits, "logits", targets, axis, weight, sample_weight, ignore_index, reduction
        )
        self.compute = rows.compute_type(self.dtype, self.temperature)

    def value(self) -> Any:
        return self.reduce(self._run(NOTHING))

    def value_and_grad(self, out: Array | None) -> tuple[Any, Array]:
        grad = arrays.output(out, self.x.shape, self.dtype)
        return self.reduce(self._run(GRAD, out, grad)), grad

    def hvp(self, tangent: ArrayLike, out: Array | None) -> Array:
        t = arrays.real(tangent, "tangent")
        t = arrays.same_shape(t, self.x.shape, "tangent", "logits")
        product = arrays.output(out, self.x.shape, self.dtype)
        self._run(HVP, out, product, tangent=t)
        return product

    def value_grad_hess(
        self, out: tuple[Array | None, Array | None] | None
    ) -> tuple[Any, Array, Array]:
        mine = arrays.pair_of(out)
        grad = arrays.output(mine[0], self.x.shape, self.dtype, "out[0]")
        hess = arrays.output(mine[1], self.x.shape, self.dtype, "out[1]")
        if arrays.overlap(grad, hess):
            raise ValueError("out[0] and out[1] overlap; the two results need two arrays")
        # The one that lies on the logits is written last.
        order = GRAD_HESS if arrays.overlap(hess, self.x) else HESS_GRAD
        losses = self._run(order, mine[0], grad, hess=hess, given=mine[1])
        return self.reduce(losses), grad, hess

    def _run(
        self,
        wanted: int,
        out: Array | None = None,
        result: Array | None = None,
        *,
        tangent: Array | None = None,
        hess: Array | None = None,
        given: Array | None = None,
    ) -> Array | float:
        """The losses of the rows, or their sum; `result` and `hess` are written."""
        dtype, axes = self.compute, (self.axis,)
        if not self.given.size:
            return np.empty(0)
        x, t, key = self.x, tangent, None
        if not wanted and self.smoothing == 0.0 and self.weight is self.sample_weight is None:
            key = "cross_entropy", x.shape, x.dtype, self.axis, self.temperature
            again = recall(key)
            if again and again(x, own := self._own_rows()):
                return self._losses_of(own)
        for user, written in ((out, result), (given, hess)):
            if user is not None and written is not None:
                x = arrays.apart(x, written)
                t = t if t is None else arrays.apart(t, written)
        smooth = self.smoothing > 0.0
        weight, mass, companion = self.weight, float(self.classes), rows.ALONE
        if smooth and weight is None:
            weight = np.ones(self.classes, dtype)
        elif weight is not None:
            weight = weight.astype(dtype, copy=False)
            mass = float(weight.sum(dtype=np.float64))
        places = [(arrays.address(x), arrays.rows_of(x, axes, dtype))]
        for other in (t, result, hess):  # what is absent is not looked at: x does for it
            places.append(
                places[0]
                if other is None
                else (arrays.address(other), arrays.rows_of(other, axes, dtype))
            )
        if wanted == HVP:
            companion = rows.TANGENTS
        elif smooth and weight is not None:
            companion = rows.WEIGHTS
            places[1] = arrays.address(weight), arrays.rows_of(weight, (0,), dtype)
        (x_at, xl), (t_at, tl), (to, lies), (to_hess, hess_lies) = places
        inv, none = rows.reciprocal(self.temperature, dtype), arrays.NONE[dtype]
        each = none if self.sample_weight is None else self.sample_weight.astype(dtype, copy=False)
        streamed = 0 if out is None or result is None else blocks.streamed(result, x)
        divisor = self._divisor() if wanted else 1.0
        if not smooth and wanted in (NOTHING, GRAD):
            plan = across.plan_of(xl, lies if wanted else None, inv, dtype)
            if plan is not None:
                y_at, yl = self.lendable(result, dtype)
                sums = self.lent and plan.one_run and self.reduction != "none"
                losses = np.empty(plan.batches if sums else xl.rows)
                plan.run(
                    cross_entropy_across,
                    x_at, xl.geometry, y_at, yl.geometry, none if weight is None else weight, mass, each,
                    losses, int(sums), wanted, divisor, to, lies.geometry, streamed,
                )
                return float(losses.sum()) if sums else losses
        own = self._own_rows()
        args = (
            x_at, arrays.address(own), xl.rows, xl.geometry, none if weight is None else weight, mass, each,
            self.smoothing, self.temperature, wanted, divisor, t_at, tl.geometry, companion,
            to, lies.geometry, to_hess, hess_lies.geometry, streamed,
        )
        plan_of_rows = rows.plan_of(xl.rows, xl.columns, inv, dtype, exponentials=wanted != NOTHING)
        plan_of_rows.run(cross_entropy_rows, *args)
        if key and arrays.is_plain(x) and x.dtype == dtype:
            plan_of_rows.remember(key, cross_entropy_rows, args, (xl.rows,), xl)
        return self._losses_of(own)

    def _own_rows(self) -> Array:
        """Of each row the target, as an integer, a number for the kernel, and the loss that it will write."""
        own = np.empty((3, self.given.size))
        own[0].view(np.int64)[:] = self.targets
        return own

    @staticmethod
    def _losses_of(own: Array) -> Array:
        losses: Array = own[2]
        return losses

    def _divisor(self) -> float:
        """What the derivatives are divided by; 0 where they are to be exactly 0."""
        if self.reduction == "mean":
            return self.denominator
        if self.weight is None and self.sample_weight is None:
            return 1.0 if self.counted else 0.0
        share = self.row_weights()
        if self.smoothing > 0.0 and self.weight is not None and self.weight.any():
            share = (self.targets >= 0) * (
                1.0 if self.sample_weight is None else self.sample_weight
            )
        return 1.0 if share.any() else 0.0


class _NegativeLogLikelihood(_Targets):
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
    r"""Cross-entropy between rows of logits and class indices, in nats.

    .. math::

        \ell_i = (1 - \varepsilon)\, w_{y_i} n_{i y_i}
            + \frac{\varepsilon}{V} \sum_j w_j n_{ij}, \quad
        n_{ij} = \log \sum_k e^{x_{ik}/T} - x_{ij}/T

    The mean is the sum of s_i l_i over that of s_i w_{y_i}, both over the rows that are not ignored.
    Computed online, fused: the value costs one read of the logits, the gradient one write more, and one read
    more where rows are longer than 2 MB, or lie side by side in memory and have more than 128 classes.

    Parameters
    ----------
    logits : array_like, shape (..., V)
        Unnormalised log-probabilities; V classes along `axis`. Any layout; never copied whole.
    targets : array_like of int, the shape of `logits` without `axis`
        Class indices, 0 to V - 1, or `ignore_index`.
    axis : int, default -1
        The class axis.
    weight : array_like, shape (V,), optional
        w, a weight for each class.
    sample_weight : array_like, the shape of `targets`, optional
        s, a weight for each row, in its loss and in the mean's denominator.
    ignore_index : int, default -100
        Rows with this target have loss 0 and gradient exactly 0, whatever their logits.
    reduction : {"mean", "sum", "none"}, default "mean"
        What becomes of the losses of the rows.
    label_smoothing : float, default 0.0
        eps, the share of the target spread over all classes; in [0, 1].
    temperature : float, default 1.0
        T, which divides the logits; the gradient is with respect to the logits passed in.

    Returns
    -------
    scalar, or for "none" ndarray of the shape of `targets`
        In nats; float32 for float16, bfloat16 (of ml_dtypes) and float32 logits, otherwise float64. Rows
        are summed in float64. Derivatives have the dtype of the logits (integers: float64).

    Raises
    ------
    TypeError
        `logits`, `weight` or `sample_weight` is not real; `targets` is float or bool.
    ValueError
        `targets`, `weight`, `sample_weight` or `out` has another shape; an option is out of range;
        there are no classes.
    IndexError
        A target is out of range; the first such row and its value are named.
    numpy.exceptions.AxisError
        `axis` is out of range.

    Notes
    -----
    A -inf logit has probability 0; with a -inf target, or smoothing and any -inf, the loss is +inf
    and the gradient finite. A row of nothing but -inf, or with NaN or +inf in it, is NaN. With every
    row ignored, or no weight in all, the mean is NaN and the gradient exactly 0. No rows: the mean
    is NaN, the sum 0.

    The definitions are those of `torch.nn.functional.cross_entropy`, but for: gradients of ignored
    rows, and of all rows where the total weight is 0, are exactly 0; the mean is NaN wherever its
    denominator is 0; other float arguments are converted to the type of `logits` (float32 for half
    types); `sample_weight` and `temperature` are additions.

    Scratch: up to 4 MB a thread, 40 bytes a row, with smoothing V numbers, and a 512th of a row of more than
    32768 columns.

    Methods: `value_and_grad`, `grad`, `hvp(logits, targets, tangent)` and `value_grad_hess`, all
    with the same options; the first derivatives take `out=`, which may be `logits` itself.

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
    """
    return _CrossEntropy(
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
