"""Cross-entropy of rows of two classes, which is the softplus of one difference.

With d = (x_o - x_t)/T, t being the target and o the other class, the loss is log(1 + exp(d)), which is
max(d, 0) + log(1 + exp(-|d|)); its derivative by x_o is sigmoid(d)/T, and that by x_t what cancels it. So
LANES rows are made from their logits to their gradients in two steps, where the many of
`likelihood.cross_entropy_across`, which would make them too, take two and a half times as long. No other code
makes these of two classes without smoothing, but where the Hessian is asked for, too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastloss._engine import across, blocks, launch, rows
from fastloss._engine.arrays import DIRECT, Array, Layout
from fastloss._engine.curved import GRAD, RATE
from fastloss._engine.elementary import exp_nonpositive, log1p_unit
from fastloss._engine.jit import inline, leaf
from fastloss._engine.kernels import kernel
from fastloss._engine.transpose import paired, paired_past, parted
from fastloss._engine.vector import LANES, cast, fma, itemsize, lanes, part, prefetch, store, view, wide

# What a batch keeps of each row.
TARGET, WEIGHT, BY, LOSS, SLOPE, HALF, EXP = (across.OWN + k for k in range(7))


@inline
def exponentials(at: int, step: int, ahead: int, i: int, inv: Any, half: Array, e: Array) -> None:
    """Of LANES rows from row i on half of what the second logit is above the first, which does not overflow,
    and exp(-|d|); NaN where a logit is +inf.
    """
    b, top, none = itemsize(inv), cast(np.inf, inv), cast(np.nan, inv)
    u, v, above, w = lanes(inv), lanes(inv), lanes(inv), lanes(inv)
    if step:
        store(view(at + i * b, LANES, inv), u)
        store(view(at + step + i * b, LANES, inv), v)
    else:
        pairs = view(at + 2 * i * b, 2 * LANES, inv)
        prefetch(pairs, ahead)
        prefetch(pairs, ahead + LANES)
        parted(pairs, u, v)
    for k in range(LANES):
        above[k] = fma(v[k], cast(0.5, inv), u[k] * cast(-0.5, inv))
        d = -abs(above[k]) * inv  # half of it, as 2/T need not be finite
        each = exp_nonpositive(d + d)
        w[k] = none if (u[k] == top) | (v[k] == top) else each
    store(above, half)
    store(w, e)


@inline
def softplus(
    half: Array, e: Array, y: Array, w_t: Array, by: Array, inv: Any, loss: Array, rate: Array, rated: bool,
    up: Array,
) -> None:
    """What `softplus_across` makes of LANES rows; `up` is the derivative by the logit of the other class."""
    zero, one = cast(0.0, inv), cast(1.0, inv)
    near, p, log_s, v = lanes(inv), lanes(inv), lanes(inv), lanes(0.0)
    for k in range(LANES):
        away = half[k] if y[k] == zero else -half[k]
        near[k] = away if away > zero else zero
        p[k] = (one if away > zero else e[k]) / (one + e[k])
        log_s[k] = log1p_unit(e[k])
        up[k] = p[k] * by[k]
    for k in range(LANES):
        d = np.float64(near[k]) * np.float64(inv)
        value = w_t[k] * (d + d + np.float64(log_s[k]))
        v[k] = 0.0 if y[k] < zero else value
    store(v, loss)
    if rated:
        for k in range(LANES):
            above = 2.0 * np.float64(half[k])
            pull = w_t[k] * (np.float64(p[k]) * (above if y[k] == zero else -above))
            pull = 0.0 if p[k] == zero else pull  # though the other were -inf
            v[k] = 0.0 if y[k] < zero else pull
        store(v, rate)


@leaf
def softplus_across(
    at: int, step: int, ahead: int, y: Array, w_t: Array, by: Array, loss: Array, rate: Array,
    half: Array, e: Array, inv: Any, o: int, o_step: int, past: int,
) -> None:
    """Of the rows of a batch the losses, w_t times the softplus; their derivatives by 1/T, if `rate` has
    room; and if there is an `o`, the gradients, `by` times -+ sigmoid. All are 0 where y is negative.

    The columns lie `step` bytes apart, those of the gradient `o_step`; 0: the numbers of a row lie together,
    and what lies `ahead` numbers further on is asked for; the gradients go past the cache if `past`.
    """
    wide()
    zero, one, b = cast(0.0, inv), cast(1.0, inv), itemsize(inv)
    # While a processor waits for exponentials, it makes the most of those before them.
    for i in range(-LANES, y.size, LANES):
        j = i + LANES
        if j < y.size:
            exponentials(at, step, ahead, j, inv, part(half, j), part(e, j))
        if i >= 0:
            target, up = part(y, i), lanes(inv)
            softplus(
                part(half, i), part(e, i), target, part(w_t, i), part(by, i), inv, part(loss, i),
                part(rate, i), rate.size != 0, up,
            )
            if o:
                g, h = lanes(inv), lanes(inv)
                for k in range(LANES):
                    each = zero if target[k] < zero else up[k]
                    g[k] = -each if target[k] == zero else each
                    h[k] = -each if target[k] == one else each
                if o_step:
                    store(g, view(o + i * b, LANES, inv))
                    store(h, view(o + o_step + i * b, LANES, inv))
                elif past:
                    paired_past(g, h, o + 2 * i * b)
                else:
                    paired(g, h, view(o + 2 * i * b, 2 * LANES, inv))


@kernel
def cross_entropy_two(
    w: int, workers: int, first: int, last: int, columns: int, inner: int, size: int,
    work: int, stride: int, rate: float, maxima: Array, parts: Array, kept: Array,
    x: int, xg_at: int, targets: int, yg_at: int, weight: Array, sample_weight: Array,
    losses: Array, sums: int, rates: Array, wanted: int, denominator: float, out: int, og_at: int,
    streamed: int,
) -> None:
    """The losses, and by `wanted` the gradient or the losses' derivatives by 1/T, of rows of two. With
    `sums`, of the losses that of each group of so many rows.

    Each row's gradient has its sample weight, and is over the denominator, or exactly 0 if that is.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    inv = cast(rate, maxima[0, 0, 0])  # 1/T, in the compute type
    xg, yg, og = blocks.geometry(xg_at), blocks.geometry(yg_at), blocks.geometry(og_at)
    mine, b = work + w * stride, itemsize(inv)
    flat, (tile, _) = across.flat_of(mine, size), across.tile_of(mine, columns, size, inv)
    y, loss = across.whole(mine, TARGET, size, inv), across.whole(mine, LOSS, size, 0.0)
    w_t, by = across.whole(mine, WEIGHT, size, 0.0), across.whole(mine, BY, size, inv)
    half, e = across.whole(mine, HALF, size, inv), across.whole(mine, EXP, size, inv)
    slope = view(mine + SLOPE * size * 8, size if wanted == RATE else 0, 0.0)
    for k in range(size):
        w_t[k], by[k] = 1.0, cast(np.float64(inv) * (1.0 / denominator), inv)
    lines = across.begin_lines(mine + stride, columns, streamed)
    together, beside = across.lies_flat(xg, columns), across.lies_flat(og, columns)
    for task in blocks.share(w, workers, first, last):
        i, count, rest = across.batch(task, inner, size)
        row, to = blocks.row_address(x, xg, i), blocks.row_address(out, og, i)
        across.fetch_targets(targets, yg, i, count, y)
        for k in range(count if weight.size or sample_weight.size else 0):
            w_t[k] = weight[max(int(y[k]), 0)] if weight.size else 1.0
            share = np.float64(sample_weight[i + k]) if sample_weight.size else 1.0
            by[k] = cast(share * np.float64(inv) * (w_t[k] / denominator), inv)
        at, step, o, o_step, past = row, 0, 0, 0, 0
        if not (together and xg[DIRECT] and count == size):
            at, step = across.fetch(row, xg, columns, 0, columns, count, size, rest, 0, tile, mine, inv)
        if wanted == GRAD:
            o, o_step = (flat, 0) if beside else (tile, size * b)
            if streamed and beside and og[DIRECT] and to & 63 == 0 and count == size and denominator != 0.0:
                o, past = to, 1
        softplus_across(
            at, step, 2 * size * columns, y, w_t, by, loss, slope, half, e, inv, o, o_step, past
        )
        if sums:
            across.sums_across(loss, i, count, sums, losses)
        else:
            for k in range(count):
                losses[i + k] = loss[k]
        for k in range(count if wanted == RATE else 0):
            rates[i + k] = slope[k]
        if wanted != GRAD or past:
            continue
        if denominator == 0.0:
            zeros = view(o, columns * size, inv)
            for k in range(columns * size):
                zeros[k] = cast(0.0, inv)
        if beside:
            blocks.put(view(flat, count * columns, inv), count * columns, to, og, 0, streamed)
        else:
            across.deliver(tile, columns, 0, columns, count, size, mine, to, og, streamed, lines, inv)
    across.end_lines(lines, columns, streamed)


def plan_of(x: Layout, out: Layout | None, rate: float, dtype: np.dtype[Any]) -> across.Plan:
    """Batches of rows, however few rows lie together; no other thread is using it."""
    inner = x.run if out is None else min(x.run, out.run)
    make = partial(across.Plan, x.rows, x.columns, inner, rate, dtype)
    if not launch.is_small(x.rows * x.columns, x.rows):
        return make(pieces=across.in_pieces(x))
    return rows.kept_plan(("two", x.rows, inner, rate, dtype.char), make)
