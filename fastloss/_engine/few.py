"""Cross-entropy of rows of up to `products.SHORT` classes and what targets stand for, LANES rows at a time.

With t the weights that a row's target gives the classes (class probabilities or one-hot rows, smoothed, times
the classes' weights), A = sum(t) and k the row's sample weight over the denominator of the reduction: losses
sum(t (log(sum(exp(x/T))) - x/T)), gradients k (A p - t)/T, Hessians k A (diag(p) - p p')/T^2. All is float64
until the results are rounded; see `products`, whose leaves make most of it. No other code makes these of rows
so short, but for what of one-hot rows without smoothing `likelihood` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss._engine import across, arrays, blocks, products, rows, twofold
from fastloss._engine.across import slot
from fastloss._engine.arrays import Array, Layout
from fastloss._engine.curved import GRAD, GRAD_HESS, HESS_GRAD, HVP, RATE
from fastloss._engine.elementary import log1p, two_sum
from fastloss._engine.jit import leaf
from fastloss._engine.kernels import kernel
from fastloss._engine.leaves import LOGITS
from fastloss._engine.products import COLUMN
from fastloss._engine.twofold import LEAST, Pair, target_extra
from fastloss._engine.vector import LANES, cast, itemsize, lanes, outlined, store, view, wide


# ---- leaves ---------------------------------------------------------------------------------
@leaf
def blend_across(
    q: int, step: int, n: int, weight: Array, smoothing: float, t: int, like: Any
) -> None:
    """t = w ((1 - smoothing) q + smoothing / n) of LANES rows."""
    wide()
    keep, even = 1.0 - smoothing, smoothing / n
    for j in range(n):
        each, to = view(q + j * step, LANES, like), view(t + j * COLUMN, LANES, 0.0)
        w = np.float64(weight[j]) if weight.size else 1.0
        for k in range(LANES):
            to[k] = w * (keep * np.float64(each[k]) + even)


@leaf
def mark_across(y: Array, n: int, weight: Array, smoothing: float, t: int) -> None:
    """`blend_across` of as many rows as y has, q being 1 in column y and 0 elsewhere."""
    wide()
    keep, even = 1.0 - smoothing, smoothing / n
    for j in range(n):
        to = view(t + j * COLUMN, LANES, 0.0)
        w = np.float64(weight[j]) if weight.size else 1.0
        for k in range(LANES):
            to[k] = w * even
    for k in range(y.size):
        if y[k] >= 0:
            w = np.float64(weight[y[k]]) if weight.size else 1.0
            view(t + int(y[k]) * COLUMN + 8 * k, 1, 0.0)[0] = w * (keep + even)


@leaf
def shortfalls_across(
    at: int, step: int, t: int, n: int, sparse: bool, m: Array, short: Array, like: Any
) -> None:
    """short = sum(t (m - x)); of `sparse` targets what has no weight is left out, though it be infinite."""
    wide()
    low = lanes(0.0)
    for j in range(n):
        q, each = view(at + j * step, LANES, like), view(t + j * COLUMN, LANES, 0.0)
        for k in range(LANES):
            term = each[k] * (np.float64(m[k]) - np.float64(q[k]))
            short[k], lost = two_sum(short[k], 0.0 if sparse and each[k] == 0.0 else term)
            low[k] += lost
    products.settled(short, low)


@leaf
def owns_across(at: int, step: int, e: int, n: int, m: Array, own: Array, like: Any) -> None:
    """own = sum(e (x - m)); what is -inf adds nothing."""
    wide()
    for j in range(n):
        q, each = view(at + j * step, LANES, like), view(e + j * COLUMN, LANES, 0.0)
        for k in range(LANES):
            away = 0.0 if q[k] == -np.inf else np.float64(q[k]) - np.float64(m[k])
            own[k] += each[k] * away


@leaf
def curves_across(
    e: int, n: int, peak: Array, most: Array, rest: Array, by: Array, rate: float, o: int, o_step: int,
    like: Any,
) -> None:
    """o = by p (1 - p) rate, where 1 - p of the maximum has its digits. The factor rate = 1/T comes last, so
    that p = 0 stays 0 where their product would overflow.
    """
    wide()
    scale = lanes(0.0)
    for k in range(LANES):
        scale[k] = 1.0 / (rest[k] + most[k])
    for j in range(n):
        each, to = view(e + j * COLUMN, LANES, 0.0), lanes(0.0)
        for k in range(LANES):
            p = each[k] * scale[k]
            others = rest[k] * scale[k] if peak[k] == np.float64(j) else 1.0 - p
            to[k] = by[k] * (p * others) * rate
        store(to, view(o + j * o_step, LANES, like))


@leaf
def none_across(zeros: Array, n: int, o: int, o_step: int, like: Any) -> None:
    """o = 0 in rows where `zeros` is not 0."""
    wide()
    for j in range(n):
        to = view(o + j * o_step, LANES, like)
        for k in range(LANES):
            to[k] = cast(0.0, like) if zeros[k] != 0.0 else to[k]


@leaf
def make_again(
    at: int, step: int, t_at: int, t_step: int, t_like: Any, columns: int, scratch: int, forward: bool,
    m: float, c: float, a: float, g: float, spot: int, extra: Pair, temperature: float,
    o: int, o_step: int, like: Any,
) -> None:
    """`twofold.products` of one row."""
    outlined()
    x, t = view(scratch, columns, like), view(scratch + 8 * columns, columns, t_like)
    results = view(scratch + 16 * columns, columns, like)
    for j in range(columns):
        x[j], t[j] = view(at + j * step, 1, like)[0], view(t_at + j * t_step, 1, t_like)[0]
        results[j] = view(o + j * o_step, 1, like)[0]
    twofold.products(x, LOGITS, m, temperature, t, columns, c, forward, a, g, spot, extra, results)
    for j in range(columns):
        view(o + j * o_step, 1, like)[0] = results[j]


# ---- kernel ---------------------------------------------------------------------------------
@kernel
def few_classes(
    w: int, workers: int, first: int, last: int, columns: int, inner: int, size: int,
    work: int, stride: int, rate: float, maxima: Array, parts: Array, kept: Array,
    apart: int, x: int, xg_at: int, q: int, qg_at: int, y: Array, weight: Array, smoothing: float,
    tangent: int, tg_at: int, share: Array, temperature: float, losses: Array, rates: Array, wanted: int,
    denominator: float, out: int, og_at: int, curved: int, cg_at: int, streamed: int,
) -> None:
    """Losses, and by `wanted` the gradient, the Hessian times a tangent, its diagonal, or the losses'
    derivatives by 1/T. Targets are the class indices y, negative where a row is ignored, or the rows at q.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    inv = cast(rate, maxima[0, 0, 0])
    xg, qg, tg = blocks.geometry(xg_at), blocks.geometry(qg_at), blocks.geometry(tg_at)
    og, cg = blocks.geometry(og_at), blocks.geometry(cg_at)
    mine, b = work + w * stride, itemsize(inv)
    tile, second = across.tile_of(mine, columns, size, inv)
    length = across.tile_bytes(columns, size, inv)
    o, h, t = second + length, second + 2 * length, second + 3 * length
    e = t + columns * COLUMN
    scratch = across.flat_of(mine, size)
    per_t = 1.0 / temperature if b == 4 else np.float64(inv)
    low = twofold.rest_of_inverse(per_t, temperature) if b == 8 else 0.0
    lines = across.begin_lines(mine + stride, columns, streamed)
    more_lines = across.begin_lines(lines, columns, streamed)  # the Hessian's
    for task in blocks.share(w, workers, first, last):
        i, count, rest_of_run = across.batch(task, inner, size)
        at, step = products.fetch(x, xg, i, columns, count, size, rest_of_run, apart, tile, mine, inv)
        after = across.after(at, step, tile, blocks.row_address(x, xg, i), xg, columns, size, inv)
        q_at, q_step = at, step
        if wanted == HVP:
            q_at, q_step = products.fetch(
                tangent, tg, i, columns, count, size, rest_of_run, apart, second, mine, inv
            )
        given, given_step = q_at, q_step
        if not y.size:
            where = h if wanted == HVP else second
            given, given_step = products.fetch(
                q, qg, i, columns, count, size, rest_of_run, apart, where, mine, inv
            )
        for s in range(0, size, LANES):
            m, xs = slot(mine, across.M, size, s, inv), at + s * b
            some = max(0, min(LANES, count - s))
            if y.size:
                mark_across(y[i + s : i + s + some], columns, weight, smoothing, t)
            else:
                blend_across(given + s * b, given_step, columns, weight, smoothing, t, inv)
            c, peak, doubts, by, zeros = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
            most, rest, others, short, own = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
            products.peaks_across(xs, step, t, COLUMN, columns, m, 0.0, c, peak)
            products.masses_across(xs, step, columns, LOGITS, m, per_t, low, e, (after[0] + s * b, after[1]))
            products.totals_across(e, COLUMN, t, COLUMN, columns, peak, 0.0, most, rest, others, (t, COLUMN))
            if wanted != HVP:
                shortfalls_across(xs, step, t, columns, y.size != 0 and smoothing == 0.0, m, short, inv)
                if wanted == RATE:
                    owns_across(xs, step, e, columns, m, own, inv)
                for k in range(some):
                    total = others[k] + c[k]
                    counts = not (y.size and y[i + s + k] < 0)
                    losses[i + s + k] = short[k] * per_t + log1p(rest[k]) * total if counts else 0.0
                    if wanted == RATE:
                        one = short[k] + total * (own[k] / (rest[k] + most[k]))
                        rates[i + s + k] = one if counts else 0.0
            if wanted in (0, RATE):
                continue
            for k in range(some):
                if denominator == 0.0 or (y.size and y[i + s + k] < 0):
                    zeros[k] = 1.0
                else:
                    by[k] = (share[i + s + k] if share.size else 1.0) / denominator
            results = o + s * b
            if wanted == HVP:
                dot, squares, sizes, total_e = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
                for k in range(LANES):
                    by[k] *= (others[k] + c[k]) * per_t
                    c[k] = 0.0
                products.peaks_across(xs, step, q_at + s * b, q_step, columns, m, inv, c, peak)
                products.dots_across(
                    e, COLUMN, q_at + s * b, q_step, columns, c, inv, total_e, dot, squares, sizes,
                    (q_at, q_step),
                )
                doubtful = products.forward_across(
                    e, COLUMN, q_at + s * b, q_step, columns, c, total_e, dot, squares, sizes, LOGITS, per_t,
                    0.0, by, results, size * b, inv, doubts, (xs, step),
                )
            else:
                for k in range(LANES):
                    short[k] = by[k] * per_t
                    own[k] = short[k] * (others[k] + c[k])
                if wanted != GRAD:
                    curves_across(e, columns, peak, most, rest, own, per_t, h + s * b, size * b, inv)
                    none_across(zeros, columns, h + s * b, size * b, inv)
                doubtful = products.reverse_across(
                    e, COLUMN, t, COLUMN, columns, c, peak, most, rest, others, LOGITS, -1.0, short,
                    results, size * b, inv, 0.0, doubts,
                )
            for k in range(some if doubtful else 0):
                if doubts[k] and wanted == HVP:
                    make_again(
                        xs + k * b, step, q_at + (s + k) * b, q_step, inv, columns, scratch, True,
                        np.float64(m[k]), c[k], by[k], 0.0, -1, (0.0, 0.0), temperature,
                        results + k * b, size * b, inv,
                    )
                elif doubts[k] and y.size and smoothing > 0.0:
                    # Of one-hot rows t is spread/V times w, and this more, exactly.
                    spread, w_t = max(smoothing, LEAST), 1.0
                    for j in range(columns):
                        w_j = np.float64(weight[j]) if weight.size else 1.0
                        view(t + j * COLUMN + 8 * k, 1, 0.0)[0] = w_j
                        w_t = w_j if j == y[i + s + k] else w_t
                    make_again(
                        xs + k * b, step, t + 8 * k, COLUMN, 0.0, columns, scratch, False,
                        np.float64(m[k]), c[k], 0.0, -by[k] * (spread / columns), int(y[i + s + k]),
                        target_extra(w_t, spread, columns), temperature, results + k * b, size * b, inv,
                    )
                elif doubts[k]:
                    make_again(
                        xs + k * b, step, t + 8 * k, COLUMN, 0.0, columns, scratch, False,
                        np.float64(m[k]), c[k], 0.0, -by[k], -1, (0.0, 0.0), temperature,
                        results + k * b, size * b, inv,
                    )
            none_across(zeros, columns, results, size * b, inv)
        if wanted in (0, RATE):
            continue
        products.deliver(o, i, columns, count, size, apart, mine, out, og, streamed, lines, inv)
        if wanted in (GRAD_HESS, HESS_GRAD):
            products.deliver(h, i, columns, count, size, apart, mine, curved, cg, streamed, more_lines, inv)
    across.end_lines(lines, columns, streamed)
    across.end_lines(more_lines, columns, streamed)


def run(
    compute: np.dtype[Any], temperature: float, smoothing: float, weight: Array | None, share: Array | None,
    x: Array, axis: int, targets: Array, wanted: int, denominator: float, streamed: int,
    tangent: Array | None, result: Array | None, hess: Array | None,
) -> tuple[Array, Array]:
    """(losses, their derivatives by 1/T) of up to `products.SHORT` classes; `result`, `hess` are written.
    `targets` are probabilities like x, or as many class indices as there are rows, negative where one is
    ignored.
    """
    indices, none = targets.dtype == np.int64, arrays.NONE[compute]
    axes = (axis,)
    xl = arrays.rows_of(x, axes, compute)
    places: list[tuple[int, Layout]] = []
    for other in (None if indices else targets, tangent, result, hess):
        of = x if other is None else other  # what is absent is not looked at
        places.append((arrays.address(of), arrays.rows_of(of, axes, compute)))
    inv = rows.reciprocal(temperature, compute)
    plan, apart = products.plan_of([xl, *(lies for _, lies in places)], inv, compute, 2)
    assert plan is not None
    losses, rates = np.empty(xl.rows), np.empty(xl.rows if wanted == RATE else 0)
    each = arrays.NONE[arrays.F64] if share is None else share.astype(np.float64)
    (q, ql), (t, tl), (to, lies), (to_hess, hess_lies) = places
    plan.run(
        few_classes, apart, arrays.address(x), xl.geometry, q, ql.geometry,
        targets if indices else np.empty(0, np.int64), none if weight is None else weight.astype(compute),
        smoothing, t, tl.geometry, each, temperature, losses, rates, wanted,
        denominator, to, lies.geometry, to_hess, hess_lies.geometry, streamed,
    )
    return losses, rates
