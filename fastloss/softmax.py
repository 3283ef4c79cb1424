"""The softmax family: softmax, log_softmax, logsumexp and the element-wise gates."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import across, arrays, blocks, leaves, pointwise, products, rows, twofold
from fastloss._engine.again import recall
from fastloss._engine.arrays import DIRECT, Array, Axis
from fastloss._engine.elementary import exp_nonpositive, log1p, log1p_unit, log_mass
from fastloss._engine.jit import inline, leaf
from fastloss._engine.kernels import kernel
from fastloss._engine.loss import BoundMap, BoundRowMap, Map, Result, RowMap
from fastloss._engine.vector import LANES, cast, fold, itemsize, lanes, part, view, wide

__all__ = ["log_sigmoid", "log_softmax", "logsumexp", "sigmoid", "softmax", "softplus"]


# ---- kernels --------------------------------------------------------------------------------
@kernel
def map_rows(
    w: int, workers: int, first: int, last: int, columns: int,
    work: int, stride: int, room: int, maxima: Array, parts: Array, rate: float,
    owing_at: Array, owing: Array, phase: int,
    x: int, out: int, t: int, holds: int, xg_at: int, tg_at: int, companion: int, per_row: Array,
    mode: int, a: float, g: float, temperature: float, og_at: int, streamed: int,
) -> None:
    """A row of results from each row of logits, as `rows.finish` makes it from a, g and b, which
    by SCALE is per_row[i] where there is one, else 1.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    inv = cast(rate, maxima[0, 0])  # 1/T, in the compute type
    xg, tg, og = blocks.geometry(xg_at), blocks.geometry(tg_at), blocks.geometry(og_at)
    count = blocks.segments(columns)
    mine = work + w * stride
    owed_at, owed = owing_at[w], owing[w]
    owed_at[rows.TO] = turn = 0
    for task in blocks.share(w, workers, first, last):
        i, k0, k1 = rows.task_of(task, workers, phase, count, parts)
        slot = 2 * w + turn if phase == rows.WHOLE else i
        row, other = blocks.row_address(x, xg, i), blocks.row_address(t, tg, i)
        keep = rows.keep_at(mine, room, inv)
        if mode >= rows.FORWARD and columns <= blocks.BLOCK:
            rows.multiply_block(
                row, xg, columns, holds, inv, temperature, other, tg, mine, mode, a, g,
                blocks.row_address(out, og, i), og, streamed,
            )
            continue
        if phase != rows.FINISH:
            rows.walk_segments(
                row, xg, columns, k0, k1, holds, inv, other, tg, companion, view(0, 0, inv), -1, inv,
                keep, mine, maxima, slot, parts, owed_at, owed, og, streamed,
            )
        if phase != rows.WALK:
            m, r, u, v, c, peak = rows.merged(
                parts, slot * count, count, holds, companion, inv
            )
            hi, lo, bi, spot, exact, doubt = 0.0, 0.0, 1.0 if mode == rows.SCALE else 0.0, -1, 0.0, 0.0
            if mode >= rows.FORWARD:
                hi, lo, bi, spot, exact, doubt = rows.product_of(
                    mode, holds, m, r, u, v, c, peak, g, np.float64(inv)
                )
            if per_row.size:
                bi *= per_row[i]
            to = blocks.row_address(out, og, i)
            within = mode == rows.LOG and xg[DIRECT] and og[DIRECT] and phase == rows.WHOLE
            if (mode == rows.SCALE and room) or within:
                factor = log1p(r) if within else np.float64(cast(bi, inv))
                rows.owe(owed_at, owed, to, row if within else keep, slot, -1, m, r, factor, 0.0, mode)
                turn = 1 - turn
                continue
            rows.finish(
                row, xg, k0 * blocks.SEGMENT, min(k1 * blocks.SEGMENT, columns), columns,
                holds, inv, temperature, other, tg, view(0, 0, inv), keep, mine, maxima[slot], m, r,
                mode, cast(hi, inv), cast(lo, inv), a, cast(bi, inv), g,
                spot, cast(exact, inv), cast(doubt, inv), (0.0, 0.0), to, og, streamed,
            )
    rows.pay_all(columns, owed_at, owed, maxima, og, streamed, mine, inv)
    blocks.settle(streamed)


@kernel
def reduce_rows(
    w: int, workers: int, first: int, last: int, columns: int,
    work: int, stride: int, room: int, maxima: Array, parts: Array, rate: float,
    owing_at: Array, owing: Array, phase: int,
    x: int, out: int, t: int, xg_at: int, tg_at: int, companion: int,
) -> None:
    """log(sum(exp(row))) of each row, or <softmax(row), t> with tangents beside it."""
    inv = cast(rate, maxima[0, 0])  # 1/T, in the compute type
    xg, tg = blocks.geometry(xg_at), blocks.geometry(tg_at)
    count = blocks.segments(columns)
    owing_at[w, rows.TO] = 0
    for task in blocks.share(w, workers, first, last):
        i, k0, k1 = rows.task_of(task, workers, phase, count, parts)
        slot = 2 * w if phase == rows.WHOLE else i
        if phase != rows.FINISH:
            rows.walk_segments(
                blocks.row_address(x, xg, i), xg, columns, k0, k1, leaves.LOGITS, inv,
                blocks.row_address(t, tg, i), tg, companion, view(0, 0, inv), -1, inv,
                rows.keep_at(work + w * stride, room, inv), work + w * stride, maxima, slot, parts,
                owing_at[w], owing[w], xg, 0,
            )
        if phase != rows.WALK and k0 == 0:
            m, r, u, _, c, _ = rows.merged(
                parts, slot * count, count, leaves.LOGITS, companion, inv
            )
            if companion == rows.TANGENTS:
                result = c + rows.middle(leaves.LOGITS, m, r, u)
            elif abs(m) == np.inf:  # r says nothing there; m is no NaN, nor is any of the row
                result = m
            else:
                result = m + log_mass(r, inv)
            result = rows.checked_sum(
                blocks.row_address(x, xg, i), xg, columns, inv, blocks.row_address(t, tg, i), tg,
                companion, work + w * stride, m, r, c, result,
            )
            view(out + i * itemsize(inv), 1, inv)[0] = cast(result, inv)


SUM = -1  # of `map_across`: the logarithm of each row's sum of exponentials, to `out` as an array


@leaf
def sums_across(m: Array, r: Array, sums: Array) -> Any:
    """The logarithms of LANES rows' sums of exponentials; how many are small beside their terms."""
    wide()
    cancelled = lanes(0.0)
    for k in range(LANES):
        top = np.float64(m[k])
        # r says nothing where m is infinite; m is no NaN there, nor is any of the row
        each = top if abs(top) == np.inf else top + log_mass(r[k], m[k])
        cancelled[k] = 1.0 if twofold.CANCELLED * abs(each) < abs(top) < np.inf else 0.0
        sums[k] = each
    return fold(cancelled)


@leaf
def sums_again(at: int, step: int, columns: int, m: Array, sums: Array) -> Any:
    """What `rows.sum_where_terms_cancel` does first, for LANES rows; how many it has to look at itself."""
    wide()
    rest, passed, left = lanes(0.0), lanes(0.0), lanes(0.0)
    for j in range(columns):
        q = view(at + j * step, LANES, m[0])
        for k in range(LANES):
            top = q[k] == m[k] and passed[k] == 0.0
            e = exp_nonpositive(np.float64(q[k]) - np.float64(m[k]))
            rest[k] += 0.0 if top else e
            passed[k] = 1.0 if top else passed[k]
    for k in range(LANES):
        top = np.float64(m[k])
        if twofold.CANCELLED * abs(sums[k]) < abs(top) < np.inf:
            sums[k] = top + log1p(rest[k])
            left[k] = 1.0 if abs(sums[k]) <= twofold.LOST * abs(top) else 0.0
    return fold(left)


@kernel
def map_across(
    w: int, workers: int, first: int, last: int, columns: int, inner: int, size: int,
    work: int, stride: int, rate: float, maxima: Array, parts: Array, kept: Array,
    x: int, out: int, xg_at: int, per_row: Array, mode: int, og_at: int, streamed: int,
) -> None:
    """What `map_rows` makes by SCALE, and by LOG, and `reduce_rows` without tangents, for LANES rows at a
    time; with `kept`, what `finish_across` makes results from.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    inv = cast(rate, maxima[0, 0, 0])  # 1/T, in the compute type
    xg, og = blocks.geometry(xg_at), blocks.geometry(og_at)
    mine = work + w * stride
    own, nearby, short = across.OWN, blocks.neighbour(xg), across.is_short(parts)
    each = across.whole(mine, own, size, 0.0)  # b of SCALE
    for k in range(size):
        each[k] = 1.0
    lines = across.begin_lines(mine + stride, columns if short else 0, streamed)
    for task in blocks.share(w, workers, first, last):
        i, count, rest = across.batch(task, inner, size)
        row = blocks.row_address(x, xg, i)
        at, step = across.walk(
            row, xg, columns, count, size, short, rest, mine, inv, maxima[0 if kept.size else w],
            i if kept.size else 0, parts[w], mode == SUM,
        )
        if mode == SUM:
            for k in range(0, size, LANES):
                m, r = across.slot(mine, across.M, size, k, inv), across.slot(mine, across.R, size, k, 0.0)
                cancelled = sums_across(m, r, part(each, k))
                if cancelled and step and itemsize(inv) == 4:
                    cancelled = sums_again(at + k * itemsize(inv), step, columns, m, part(each, k))
                for q in range(min(LANES, count - k) if cancelled and columns <= blocks.BLOCK else 0):
                    each[k + q] = rows.sum_where_terms_cancel(
                        row + (k + q) * nearby, xg, columns, inv, row, xg, rows.ALONE,
                        across.flat_of(mine, size), np.float64(m[q]), r[q], 0.0, each[k + q],
                    )
            sums = view(out + i * itemsize(inv), count, inv)
            for k in range(count):
                sums[k] = cast(each[k], inv)
            continue
        for k in range(count if per_row.size else 0):
            each[k] = per_row[i + k]
        to = blocks.row_address(out, og, i)
        if kept.size:
            across.keep(mine, size, i, count, each, kept, inv)
        elif short:
            tile = across.make_short(at, step, columns, size, mine, inv, mode, own)
            across.deliver(tile, columns, 0, columns, count, size, mine, to, og, streamed, lines, inv)
        else:
            across.finish_long(
                row, xg, columns, 0, columns, count, size, rest, mine, at, inv, maxima[w], 0, mode, each,
                to, og, streamed,
            )
    across.end_lines(lines, columns if short else 0, streamed)


@kernel
def multiply_across(
    w: int, workers: int, first: int, last: int, columns: int, inner: int, size: int,
    work: int, stride: int, rate: float, maxima: Array, parts: Array, kept: Array,  # noqa: ARG001 (of other plans)
    apart: int, x: int, xg_at: int, t: int, tg_at: int, holds: int, mode: int, a: float, g: float,
    temperature: float, means: Array, out: int, og_at: int, streamed: int,
) -> None:
    """FORWARD and REVERSE results, and means, of rows of up to `products.SHORT` numbers."""
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    inv = cast(rate, maxima[0, 0, 0])
    xg, tg, og = blocks.geometry(xg_at), blocks.geometry(tg_at), blocks.geometry(og_at)
    mine = work + w * stride
    tile, t_tile = across.tile_of(mine, columns, size, inv)
    means_of = across.whole(mine, products.MEANS, size, 0.0)
    lines = across.begin_lines(mine + stride, columns, streamed)
    for task in blocks.share(w, workers, first, last):
        i, count, rest = across.batch(task, inner, size)
        at, step = products.fetch(x, xg, i, columns, count, size, rest, apart, tile, mine, inv)
        t_at, t_step = products.fetch(t, tg, i, columns, count, size, rest, apart, t_tile, mine, inv)
        after = across.after(at, step, tile, blocks.row_address(x, xg, i), xg, columns, size, inv)
        t_after = across.after(t_at, t_step, t_tile, blocks.row_address(t, tg, i), tg, columns, size, inv)
        results = products.make(
            at, step, t_at, t_step, columns, count, size, mine, holds, mode, a, g, temperature, inv, after,
            t_after,
        )
        if mode == products.MEAN:
            for k in range(count):
                means[i + k] = cast(means_of[k], inv)
        else:
            products.deliver(results, i, columns, count, size, apart, mine, out, og, streamed, lines, inv)
    across.end_lines(lines, columns, streamed)


# ---- rows bound to a kernel -----------------------------------------------------------------
class _Rows:
    """Checked rows of logits (or of an output) along their axes."""

    def __init__(self, x: ArrayLike, axis: Axis, temperature: float, out: Array | None) -> None:
        self.x = arrays.real(x, "x")
        self.axis = axis
        self.axes = arrays.axes_of(axis, self.x.ndim, "x")
        self.temperature = arrays.positive(temperature, "temperature")
        self.out = out

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        return arrays.result_type(self.x)

    @cached_property
    def row_dtype(self) -> np.dtype[Any]:
        return arrays.upcast(self.dtype)

    @cached_property
    def compute(self) -> np.dtype[Any]:
        return rows.compute_type(self.dtype, self.temperature)

    @cached_property
    def inv(self) -> float:
        return rows.reciprocal(self.temperature, self.compute)

    def vector(self, vector: ArrayLike, name: str) -> Array:
        return arrays.same_shape(arrays.real(vector, name), self.x.shape, name, "x")

    def map(
        self,
        out: Array | None,
        mode: int,
        *,
        beside: Array | None = None,
        per_row: Array | None = None,
        holds: int = leaves.LOGITS,
        a: float = 0.0,
        g: float = 0.0,
        dtype: np.dtype[Any] | None = None,
    ) -> Any:
        """One result for each element of x, of its type (or another)."""
        key = None
        if beside is None and per_row is None and dtype is None and (out is None or type(out) is np.ndarray):
            x = self.x
            key = x.shape, x.dtype, self.axes, self.temperature, mode
            if again := recall(key):
                if out is None:
                    result = np.empty(x.shape, x.dtype)
                    if again(x, result):
                        return result if result.ndim else result[()]
                elif (
                    out.shape == x.shape and out.dtype == x.dtype and arrays.is_beside(out, x)
                    and again(x, out)
                ):
                    return out
        result = arrays.output(out, self.x.shape, dtype or self.dtype)
        if result.size:
            x, t, streamed, plan = self.x, beside, 0, None
            if out is not None:
                x = arrays.apart(x, result)
                t = t if t is None else arrays.apart(t, result)
                streamed = blocks.streamed(result, x)
            x, xl = arrays.operand(x, self.axes, self.compute)
            if out is None and result.strides == x.strides and result.dtype == x.dtype:
                target, to = result, xl
            else:
                target, to = arrays.destination(result, self.axes, self.compute)
            at = lies = arrays.address(x)
            tl, companion = xl, rows.ALONE
            each = arrays.NONE[self.compute] if per_row is None else per_row
            if t is not None:
                t, tl = arrays.operand(t, self.axes, self.compute)
                lies = arrays.address(t)
                companion = rows.COTANGENTS if mode == rows.REVERSE else rows.TANGENTS
                plan, apart = products.plan_of([xl, tl, to], self.inv, self.compute)
                if plan:
                    plan.run(
                        multiply_across, apart, at, xl.geometry, lies, tl.geometry, holds, mode, a, g,
                        self.temperature, each, arrays.address(target), to.geometry, streamed,
                    )
            elif plan := across.plan_of(xl, to, self.inv, self.compute):
                args = at, arrays.address(target), xl.geometry, each, mode, to.geometry, streamed
                plan.run(map_across, *args)
                plan.finish(at, xl.geometry, mode, arrays.address(target), to.geometry, streamed)
                if key and self._is_plain(x, result):
                    plan.remember(key, map_across, args, x.shape, (xl, to))
            if not plan:
                kept = mode != rows.LOG and holds != leaves.PROBS
                small = rows.plan_of(xl, self.inv, self.compute, exponentials=kept)
                sides = small.sides((0, 4, x, xl), (2, 5, t, tl), made=((1, 12, target, to),))
                given = (
                    at, arrays.address(target), lies, holds, xl.geometry, tl.geometry, companion, each,
                    mode, a, g, self.temperature, to.geometry, streamed,
                )
                small.run(map_rows, *given, sides=sides)
                if key and not sides and self._is_plain(x, result):
                    small.remember(key, map_rows, given, x.shape, (xl, to))
            if target is not result:
                arrays.write_back(result, self.axes, target)
        return arrays.given_or_scalar(result, out)

    def _is_plain(self, x: Array, result: Array) -> bool:
        """Whether x and results lie as they are computed, and another call's would not be streamed."""
        own = x is self.x and arrays.is_plain(x) and arrays.is_plain(result)
        return own and result.nbytes < blocks.STREAMED and x.dtype == result.dtype == self.compute

    def reduce(self, out: Array | None, keepdims: bool, beside: Array | None = None) -> Any:
        """One result for each row of x, by `reduce_rows`."""
        key = None
        if out is None and beside is None:
            x = self.x
            key = x.shape, x.dtype, self.axes, keepdims
            if again := recall(key):
                result = np.empty(again.shape, x.dtype)
                if again(x, result):
                    return result if result.ndim else result[()]
        shape = self.row_shape(keepdims)
        if out is not None:
            arrays.output(out, shape, self.row_dtype)
        x, xl = arrays.operand(self.x, self.axes, self.row_dtype)
        own = np.empty(xl.rows, self.row_dtype)
        if not xl.columns:
            own[...] = -np.inf if beside is None else 0.0
        elif xl.rows:
            at = lies = arrays.address(x)
            tl, companion, plan = xl, rows.ALONE, None
            if beside is not None:
                t, tl = arrays.operand(beside, self.axes, self.row_dtype)
                lies, companion = arrays.address(t), rows.TANGENTS
                plan, apart = products.plan_of([xl, tl], self.inv, self.row_dtype)
                if plan:
                    plan.run(
                        multiply_across, apart, at, xl.geometry, lies, tl.geometry, leaves.LOGITS,
                        products.MEAN, 0.0, 0.0, 1.0, own, at, xl.geometry, 0,
                    )
            elif plan := across.plan_of(xl, None, self.inv, self.row_dtype):
                made = at, arrays.address(own), xl.geometry, arrays.NONE[self.row_dtype], SUM, xl.geometry, 0
                plan.run(map_across, *made)
                if key and x is self.x and arrays.is_plain(x) and x.dtype == own.dtype:
                    plan.remember(key, map_across, made, shape, xl)
            if not plan:
                small = rows.plan_of(xl, self.inv, self.row_dtype, exponentials=False)
                args = at, arrays.address(own), lies, xl.geometry, tl.geometry, companion
                sides = small.sides((0, 3, x, xl), (2, 4, beside, tl))
                small.run(reduce_rows, *args, sides=sides)
                if key and x is self.x and arrays.is_plain(x) and x.dtype == own.dtype:
                    small.remember(key, reduce_rows, args, shape, xl)
        result = own.reshape(shape)
        if out is not None:
            out[...] = result
            return out
        return result if result.ndim else result[()]

    def row_shape(self, keepdims: bool) -> tuple[int, ...]:
        if keepdims:
            return tuple(1 if a in self.axes else n for a, n in enumerate(self.x.shape))
        return arrays.without(self.x.shape, self.axes)


class _Softmax(_Rows):
    """p = softmax(x / T), with the symmetric Jacobian (diag(p) - p p') / T: J v = p (v - <p, v>) / T."""

    def value(self) -> Any:
        return self.map(self.out, rows.SCALE)

    def jvp(self, tangent: ArrayLike, out: Array | None) -> Any:
        return self._product(self.vector(tangent, "tangent"), leaves.LOGITS, out)

    def vjp(self, cotangent: ArrayLike, out: Array | None) -> Any:
        return self._product(self.vector(cotangent, "cotangent"), leaves.LOGITS, out)

    def jvp_from_output(self, tangent: ArrayLike, out: Array | None) -> Any:
        return self._product(self.vector(tangent, "tangent"), leaves.PROBS, out)

    def vjp_from_output(self, cotangent: ArrayLike, out: Array | None) -> Any:
        return self._product(self.vector(cotangent, "cotangent"), leaves.PROBS, out)

    def _product(self, v: Array, holds: int, out: Array | None) -> Any:
        return self.map(out, rows.FORWARD, beside=v, holds=holds, a=1.0)

    def jacobian(self) -> Array:
        p = self._probabilities()
        eye = np.eye(p.shape[-1], dtype=p.dtype)
        return self._over_temperature(p[..., :, None] * (eye - p[..., None, :]))

    def _over_temperature(self, dense: Array) -> Array:
        scaled: Array = (dense * self.inv).astype(self.dtype, copy=False)
        return scaled

    def _probabilities(self) -> Array:
        """Softmax with the class axis last; jacobian's."""
        requested: Any = self.axis
        axis = arrays.axis_of(requested, self.x.ndim, "x")
        p: Array = self.map(None, rows.SCALE, dtype=self.row_dtype)
        return np.moveaxis(p, axis, -1)


class _LogSoftmax(_Softmax):
    """log softmax(x / T), with Jacobian (I - 1 p') / T."""

    def value(self) -> Any:
        return self.map(self.out, rows.LOG)

    def jvp(self, tangent: ArrayLike, out: Array | None) -> Any:
        return self._jvp(tangent, leaves.LOGITS, out)

    def vjp(self, cotangent: ArrayLike, out: Array | None) -> Any:
        return self._vjp(cotangent, leaves.LOGITS, out)

    def jvp_from_output(self, tangent: ArrayLike, out: Array | None) -> Any:
        return self._jvp(tangent, leaves.LOG_PROBS, out)

    def vjp_from_output(self, cotangent: ArrayLike, out: Array | None) -> Any:
        return self._vjp(cotangent, leaves.LOG_PROBS, out)

    def _jvp(self, tangent: ArrayLike, holds: int, out: Array | None) -> Any:
        t = self.vector(tangent, "tangent")
        return self.map(out, rows.FORWARD, beside=t, holds=holds, g=1.0)

    def _vjp(self, cotangent: ArrayLike, holds: int, out: Array | None) -> Any:
        u = self.vector(cotangent, "cotangent")
        return self.map(out, rows.REVERSE, beside=u, holds=holds, g=1.0)

    def jacobian(self) -> Array:
        p = self._probabilities()
        eye = np.eye(p.shape[-1], dtype=p.dtype)
        return self._over_temperature(eye - p[..., None, :])


class _LogSumExp(_Rows):
    """logsumexp(x), whose gradient is softmax(x)."""

    def __init__(self, x: ArrayLike, axis: Axis, keepdims: bool, out: Array | None) -> None:
        super().__init__(x, axis, 1.0, out)
        self.keepdims = bool(keepdims)

    def value(self) -> Any:
        return self.reduce(self.out, self.keepdims)

    def jvp(self, tangent: ArrayLike, out: Array | None) -> Any:
        return self.reduce(out, self.keepdims, self.vector(tangent, "tangent"))

    def vjp(self, cotangent: ArrayLike, out: Array | None) -> Any:
        u = arrays.same_shape(
            arrays.real(cotangent, "cotangent"), self.row_shape(self.keepdims), "cotangent",
            "the result",
        )
        per_row = arrays.converted(u, self.row_dtype).reshape(-1)
        return self.map(out, rows.SCALE, per_row=per_row)


# ---- formulas of the element-wise gates -----------------------------------------------------
@inline
def softplus_formula(x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)); slope sigmoid(x)."""
    e = exp_nonpositive(-abs(x))
    r = cast(1.0, x) / (cast(1.0, x) + e)
    return (x if x > 0 else cast(0.0, x)) + log1p_unit(e), r if x > 0 else e * r


@inline
def sigmoid_formula(x: Any) -> Any:
    """1 / (1 + exp(-x)); slope sigmoid(x) sigmoid(-x)."""
    e = exp_nonpositive(-abs(x))
    r = cast(1.0, x) / (cast(1.0, x) + e)
    return r if x > 0 else e * r, e * r * r


@inline
def log_sigmoid_formula(x: Any) -> Any:
    """-log(1 + exp(-x)) = min(x, 0) - log1p(exp(-|x|)); slope sigmoid(-x)."""
    e = exp_nonpositive(-abs(x))
    r = cast(1.0, x) / (cast(1.0, x) + e)
    return (x if x < 0 else cast(0.0, x)) - log1p_unit(e), e * r if x > 0 else r


_SOFTPLUS = pointwise.Pointwise(softplus_formula)
_SIGMOID = pointwise.Pointwise(sigmoid_formula)
_LOG_SIGMOID = pointwise.Pointwise(log_sigmoid_formula)


# ---- doors ----------------------------------------------------------------------------------
@RowMap
def softmax(
    x: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0, out: Array | None = None
) -> BoundRowMap[Array]:
    r"""Softmax of rows of logits: positive numbers that sum to 1.

    .. math:: p_j = \frac{\exp((x_j - m)/T)}{\sum_k \exp((x_k - m)/T)}, \quad m = \max_k x_k

    Computed online, with one read of each row; two where it is longer than 2 MB, or where rows of more than
    384 numbers (float64 192; of few rows 128) lie side by side in memory, as along axis 0.

    Parameters
    ----------
    x : array_like, shape (..., V)
        Logits; V is the length along `axis`. Any layout; never copied whole, but where a tuple
        `axis` names axes that no single stride walks.
    axis : int, tuple of int or None, default -1
        Where the probabilities sum to 1; None: over the whole array.
    temperature : float, default 1.0
        T; a large one flattens, a small one sharpens. Logits in float32 and
        half types with T outside [2^-60, 2^60] are computed in float64.
    out : ndarray, optional
        Where to write the result, of its shape and dtype; may be `x` itself. Undefined if the call is
        interrupted (Ctrl-C).

    Returns
    -------
    ndarray, shape of `x`
        Of its dtype if that is float16, bfloat16 or float32, otherwise float64.

    Raises
    ------
    TypeError
        `x` is complex, object, masked, or of another type that is not real; bfloat16 is that of ml_dtypes.
    ValueError
        `temperature` is not finite and > 0; `out` has another shape or dtype, or is read-only;
        `x` is 0-d and `axis` not None.
    numpy.exceptions.AxisError
        `axis` is out of range.

    Notes
    -----
    A logit of -inf has probability exactly 0; a row of nothing else, or with NaN or +inf in it, is
    NaN. Probabilities below the smallest normal number of the type computed in (float32 for half types,
    which are rounded once, on being stored) are 0. Scratch: up to 2.2 MB a thread, and a
    512th of a row of more than 32768 columns; for rows of more than 128 that lie side by side, of products
    and where they are few, up to 4.2 MB a thread for each array, and of so long ones a 512th of it; else for
    such rows of more than 1024 40 bytes a row, and a 1024th of `x`.

    Methods: `jvp(x, tangent)`, `vjp(x, cotangent)`, both `(p * (v - sum(p * v))) / T`;
    `jvp_from_output(y, tangent)`, `vjp_from_output(y, cotangent)`, where y has to be an output;
    `jacobian(x)`. Infinite tangents give infinities or NaN, in rows of different lengths not always the same.

    References
    ----------
    M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018, algorithm 3.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.softmax([1, 2, 3]).round(4)
    array([0.09  , 0.2447, 0.6652])
    >>> fl.softmax([1, 2, 3], temperature=0.5).round(4)
    array([0.0159, 0.1173, 0.8668])
    """
    return _Softmax(x, axis, temperature, out)


@RowMap
def log_softmax(
    x: ArrayLike, axis: Axis = -1, *, temperature: float = 1.0, out: Array | None = None
) -> BoundRowMap[Array]:
    r"""Logarithm of the softmax of rows of logits, without forming the softmax.

    .. math:: \ell_j = (x_j - m)/T - \log \sum_k \exp((x_k - m)/T), \quad m = \max_k x_k

    Parameters
    ----------
    x : array_like, shape (..., V)
        Logits; V is the length along `axis`.
    axis : int, tuple of int or None, default -1
        Where the probabilities sum to 1; None: over the whole array.
    temperature : float, default 1.0
        T.
    out : ndarray, optional
        Where to write the result, of its shape and dtype; may be `x` itself. Undefined if the call is
        interrupted (Ctrl-C).

    Returns
    -------
    ndarray, shape of `x`
        Log-probabilities, in nats; of the dtype of `x` if that is float16, bfloat16 or float32, otherwise
        float64.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax`.

    Notes
    -----
    A logit of -inf gives -inf; a row of nothing else, or with NaN or +inf in it, is NaN. Each row
    is read twice, the second time from cache where it fits. Scratch: 0.6 MB a thread, for
    products up to 2.2 MB; for rows that lie side by side what `softmax` takes.

    Methods: `jvp(x, tangent)`, `(t - sum(p * t)) / T`; `vjp(x, cotangent)`,
    `(u - p * sum(u)) / T`; `jvp_from_output(y, tangent)`, `vjp_from_output(y, cotangent)`;
    `jacobian(x)`.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", 2021, equation 4.2.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.log_softmax([0.0, 1000.0])
    array([-1000.,     0.])
    """
    return _LogSoftmax(x, axis, temperature, out)


@Map
def logsumexp(
    x: ArrayLike, axis: Axis = -1, *, keepdims: bool = False, out: Array | None = None
) -> BoundMap[Result]:
    r"""Logarithm of the sum of exponentials of rows: a smooth maximum.

    .. math:: \mathrm{LSE}(x) = m + \log \sum_k \exp(x_k - m), \quad m = \max_k x_k

    It lies between `max(x)` and `max(x) + log(V)`; its gradient is `softmax(x)`.

    Parameters
    ----------
    x : array_like, shape (..., V)
        Logits; V is the length along `axis`.
    axis : int, tuple of int or None, default -1
        What is summed over; None: the whole array.
    keepdims : bool, default False
        Keep the summed axes, with length 1.
    out : ndarray, optional
        Where to write the result, of its shape and dtype. Unwritten if the call is interrupted (Ctrl-C).

    Returns
    -------
    ndarray or scalar, shape of `x` without `axis`
        In nats; float32 for float16, bfloat16 and float32, otherwise float64.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax`.

    Notes
    -----
    A row of -inf gives -inf, so does an empty one; +inf gives +inf; NaN gives NaN. `vjp` gives the dtype
    of `x`. Scratch: 0.6 MB a thread, for `jvp` as for products of `softmax`.

    Methods: `jvp(x, tangent)`, `sum(p * t)`, of the result's shape; `vjp(x, cotangent)`, `p * u`,
    of the shape of `x`.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", 2021.

    Examples
    --------
    >>> import fastloss as fl
    >>> float(fl.logsumexp([1000.0, 1000.0]).round(4))
    1000.6931
    """
    return _LogSumExp(x, axis, keepdims, out)


@Map
def softplus(x: ArrayLike, *, out: Array | None = None) -> BoundMap[Array]:
    r"""log(1 + exp(x)), element by element: a smooth max(x, 0).

    .. math:: \zeta(x) = \max(x, 0) + \log(1 + e^{-|x|}), \quad \zeta'(x) = \sigma(x)

    Parameters
    ----------
    x : array_like, any shape
        Numbers.
    out : ndarray, optional
        Where to write the result, of its shape and dtype; may be `x` itself. Undefined if the call is
        interrupted (Ctrl-C).

    Returns
    -------
    ndarray, shape of `x`
        Of its dtype if that is float16, bfloat16 or float32, otherwise float64.

    Raises
    ------
    TypeError
        `x` is complex, object, masked, or of another type that is not real.
    ValueError
        `out` has another shape or dtype, or is read-only.

    Notes
    -----
    softplus(-inf) = 0, softplus(+inf) = +inf, softplus(NaN) = NaN. Scratch: 12 kB a thread (float64
    24 kB). Methods: `jvp(x, tangent)` and `vjp(x, cotangent)`, both `sigmoid(x) * v`.

    References
    ----------
    C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing",
    2000, equation 5.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.softplus([-1000.0, 0.0, 1000.0]).round(4)
    array([0.000e+00, 6.931e-01, 1.000e+03])
    """
    return pointwise.BoundPointwise(_SOFTPLUS, x, out)


@Map
def sigmoid(x: ArrayLike, *, out: Array | None = None) -> BoundMap[Array]:
    r"""1 / (1 + exp(-x)), element by element: the softmax of (x, 0).

    .. math:: \sigma(x) = \frac{1}{1 + e^{-x}}, \quad \sigma'(x) = \sigma(x)\,\sigma(-x)

    Parameters
    ----------
    x : array_like, any shape
        Logits.
    out : ndarray, optional
        Where to write the result, of its shape and dtype; may be `x` itself. Undefined if the call is
        interrupted (Ctrl-C).

    Returns
    -------
    ndarray, shape of `x`
        In [0, 1]; of the dtype of `x` if that is float16, bfloat16 or float32, otherwise float64.

    Raises
    ------
    TypeError, ValueError
        As `softplus`.

    Notes
    -----
    sigmoid(-inf) = 0, sigmoid(+inf) = 1, sigmoid(NaN) = NaN; results below the smallest normal
    number are 0. Scratch: 12 kB a thread (float64 24 kB). Methods: `jvp(x, tangent)` and
    `vjp(x, cotangent)`, both `sigmoid(x) * sigmoid(-x) * v`.

    References
    ----------
    I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", 2016, section 3.10.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.sigmoid([-2.0, 0.0, 2.0]).round(4)
    array([0.1192, 0.5   , 0.8808])
    """
    return pointwise.BoundPointwise(_SIGMOID, x, out)


@Map
def log_sigmoid(x: ArrayLike, *, out: Array | None = None) -> BoundMap[Array]:
    r"""log(sigmoid(x)), element by element, without forming the sigmoid.

    .. math:: \log \sigma(x) = \min(x, 0) - \log(1 + e^{-|x|}) = -\zeta(-x)

    Parameters
    ----------
    x : array_like, any shape
        Logits.
    out : ndarray, optional
        Where to write the result, of its shape and dtype; may be `x` itself. Undefined if the call is
        interrupted (Ctrl-C).

    Returns
    -------
    ndarray, shape of `x`
        In nats; of the dtype of `x` if that is float16, bfloat16 or float32, otherwise float64.

    Raises
    ------
    TypeError, ValueError
        As `softplus`.

    Notes
    -----
    log_sigmoid(-inf) = -inf, log_sigmoid(+inf) = 0, log_sigmoid(NaN) = NaN. Scratch: 12 kB a thread
    (float64 24 kB). Methods: `jvp(x, tangent)` and `vjp(x, cotangent)`, both `sigmoid(-x) * v`.

    References
    ----------
    I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", 2016, equation 3.31.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.log_sigmoid([-1000.0, 0.0]).round(4)
    array([-1.000e+03, -6.931e-01])
    """
    return pointwise.BoundPointwise(_LOG_SIGMOID, x, out)
