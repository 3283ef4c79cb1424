"""Losses of rows of logits and class indices, by the walk of `rows`, or of `across` where rows are short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import across, arrays, blocks, few, leaves, products, rows, two, twofold
from fastloss._engine.again import recall
from fastloss._engine.arrays import Array
from fastloss._engine.curved import GRAD, GRAD_HESS, HESS_GRAD, HVP, NOTHING, RATE, Curved
from fastloss._engine.elementary import exp_nonpositive, log_mass, log_pair, power
from fastloss._engine.jit import inline, leaf
from fastloss._engine.kernels import kernel
from fastloss._engine.targets import Targets
from fastloss._engine.vector import (
    LANES,
    cast,
    chosen,
    fma,
    itemsize,
    lanes,
    part,
    store,
    view,
    wide,
)

# What becomes of nll = -log p_t: nothing; nll (1 - p_t)**option; or, the target's own column being left out
# of p's denominator, max(nll + option, 0).
PLAIN, FOCAL, HINGE = 0, 1, 2


# ---- formula --------------------------------------------------------------------------------
@inline
def row_loss(
    m: float, log_s: float, short: float, mass: float, x_t: float, inv: float, w_t: float,
    smoothing: float, columns: int,
) -> float:
    """(1 - eps) w_t nll + eps/V sum_j w_j nll_j with nll_j = (m - x_j)/T + log s, s = 1 + r.

    `short` is sum_j w_j (m - x_j) and `mass` sum_j w_j. Grouped so that a shift of the logits
    cancels before anything is rounded; a term that smoothing leaves out is not formed, since its
    zero times an infinite logit would be NaN.
    """
    loss = 0.0
    if smoothing < 1.0:
        loss += (1.0 - smoothing) * w_t * ((m - x_t) * inv + log_s)
    if smoothing > 0.0:
        loss += smoothing / columns * (short * inv + log_s * mass)
    return loss


@inline
def rest_of(m: Any, r: float, x_t: Any, e_t: Any, inv: Any) -> Any:
    """(1 - p_t, p_t), both with their digits, where e_t = exp((x_t - m)/T)."""
    # r is that of an element at the maximum, and holds the target's where it is another
    s = rows.mass(leaves.LOGITS, np.float64(m), r)
    e = np.float64(e_t)
    rest = r if x_t == m else r + (1.0 - e)
    if itemsize(inv) == 8:
        return rest / s, e / s
    inverse = 1.0 / s  # which the probabilities are made by, too; a float32 does not show the difference
    return rest * inverse, e * inverse


@inline
def linked(m: Any, r: float, x_t: Any, inv: Any, w_t: float, link: int, option: float) -> Any:
    """(what becomes of w_t nll, its derivative by that) for nll = (m - x_t)/T + log(1 + r)."""
    log_s = log_mass(r, m)
    nll = row_loss(np.float64(m), log_s, 0.0, 0.0, np.float64(x_t), np.float64(inv), 1.0, 0.0, 1)
    if link == FOCAL:
        rest, p = rest_of(m, r, x_t, exp_nonpositive((x_t - m) * inv), inv)
        hi, lo = log_pair(rest)
        much = power(option, hi, lo)
        share = p * nll / rest if p > 0.0 and rest > 0.0 else p  # nll / rest is 1 where both vanish
        return w_t * nll * much, much * (1.0 + option * share)
    # HINGE; r says nothing where m is infinite
    above = np.float64(m) - np.float64(x_t) if m == np.inf else nll + option
    slope = 0.0 if above <= 0.0 else (1.0 if above > 0.0 else above)
    return w_t * (0.0 if above <= 0.0 else above), slope


@inline
def target_slope(
    m: Any, r: float, mass: float, x_t: Any, inv: Any, w_t: float, smoothing: float, columns: int
) -> Any:
    """(sum(q) p_t - q_t, the size of its terms), q the smoothed and weighted target; p_t and 1 - p_t
    both keep their digits. m, x_t and inv are of the compute type.
    """
    if smoothing == 0.0:
        rest = rest_of(m, r, x_t, exp_nonpositive((x_t - m) * inv), inv)[0]
        return -(w_t * rest), abs(w_t * rest)
    p, rest = rows.odds(leaves.LOGITS, np.float64(m), r)
    if x_t != m:
        p *= exp_nonpositive((np.float64(x_t) - np.float64(m)) * np.float64(inv))
        rest = 1.0 - p
    pull = (1.0 - smoothing) * w_t * rest
    even = smoothing / columns
    return even * (mass * p - w_t) - pull, even * (abs(mass) * p + abs(w_t)) + abs(pull)


@inline
def rate_of(
    own: float, m: float, r: float, short: float, mass: float, x_t: float, w_t: float, smoothing: float,
    columns: int,
) -> float:
    """The derivative of `row_loss` by 1/T, sum(q) <p, x> - <q, x>, where <p, x> = m + own/s."""
    rate = pull_of(w_t, smoothing, mass, columns) * (own / rows.mass(leaves.LOGITS, m, r))
    if smoothing < 1.0:
        rate += (1.0 - smoothing) * w_t * (m - x_t)
    if smoothing > 0.0:
        rate += smoothing / columns * short
    return rate


@inline
def pull_of(w_t: float, smoothing: float, mass: float, columns: int) -> float:
    """sum(q), w_t and mass being over the denominator: what multiplies the probabilities."""
    if smoothing == 0.0:
        return w_t  # 0 times an infinite mass would be NaN
    return (1.0 - smoothing) * w_t + smoothing / columns * mass


# ---- kernel ---------------------------------------------------------------------------------
@kernel
def cross_entropy_rows(
    w: int, workers: int, first: int, last: int, columns: int,
    work: int, stride: int, room: int, maxima: Array, parts: Array, rate: float,
    owing_at: Array, owing: Array, phase: int,
    x: int, own: int, n: int, xg_at: int, weight: Array, mass: float,
    sample_weight: Array, smoothing: float, temperature: float,
    held: Array, turned: Array, link: int, option: float,
    wanted: int, denominator: float, t: int, tg_at: int, companion: int,
    out: int, og_at: int, curved: int, cg_at: int, streamed: int,
) -> None:
    """Losses, and by `wanted` the gradient, the Hessian times a tangent, its diagonal, or the losses'
    derivatives by 1/T.

    At `own` lie the n targets, then numbers that this keeps, then the losses, then their derivatives, all
    of eight bytes. With `held` that is what stands at the targets, and `turned` its derivative by what does.

    With p = softmax(x/T), q the smoothed and weighted target, A = sum(q) and k the row's sample
    weight, both over the denominator of the reduction: gradient k (A p - q)/T, Hessian
    k A (diag(p) - p p')/T^2. `t` is the tangent, or with smoothing the class weights. Derivatives are
    exactly 0 if the denominator is 0.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    inv = cast(rate, maxima[0, 0])  # 1/T, in the compute type
    xg, tg = blocks.geometry(xg_at), blocks.geometry(tg_at)
    og, cg = blocks.geometry(og_at), blocks.geometry(cg_at)
    count = blocks.segments(columns)
    zero, none = cast(0.0, inv), view(0, 0, inv)
    mine = work + w * stride
    owed_at, owed = owing_at[w], owing[w]
    owed_at[rows.TO] = turn = 0
    for task in blocks.share(w, workers, first, last):
        i, k0, k1 = rows.task_of(task, workers, phase, count, parts)
        slot = 2 * w + turn if phase == rows.WHOLE else i
        keep = rows.keep_at(mine, room, inv)
        y = view(own + 8 * i, 1, np.int64(0))[0]
        x_t, loss = view(own + 8 * (n + i), 1, inv), view(own + 8 * (2 * n + i), 1, 0.0)
        row, other = blocks.row_address(x, xg, i), blocks.row_address(t, tg, i)
        j0, j1 = k0 * blocks.SEGMENT, min(k1 * blocks.SEGMENT, columns)
        if phase != rows.FINISH and y >= 0:
            if k0 <= y // blocks.SEGMENT < k1:  # before any worker writes a gradient over it
                x_t[0] = held[i] if held.size else blocks.element(row, xg, y, mine, inv)
            spot = y if held.size or link == HINGE else -1
            value = cast(-np.inf, inv) if link == HINGE else (held[i] if held.size else zero)
            rows.walk_segments(
                row, xg, columns, k0, k1, leaves.LOGITS, inv, other, tg, companion, none, spot, value,
                keep, mine, maxima, slot, parts, owed_at, owed, og, streamed,
            )
        if phase == rows.WALK:
            continue
        share = np.float64(sample_weight[i]) if sample_weight.size else 1.0
        m, r, u, c = 0.0, 0.0, 0.0, 0.0
        w_t, slope = 0.0, 1.0
        if y >= 0:
            w_t = np.float64(weight[y]) if weight.size else 1.0
            m, r, u, _, c, _ = rows.merged(
                parts, slot * count, count, leaves.LOGITS, companion, inv
            )
            log_s = log_mass(r, inv)
            value = row_loss(m, log_s, u, mass, x_t[0], np.float64(inv), w_t, smoothing, columns)
            if link != PLAIN:
                value, slope = linked(cast(m, inv), r, x_t[0], inv, w_t, link, option)
            if k0 == 0:
                loss[0] = value
                if wanted == RATE:
                    view(own + 8 * (3 * n + i), 1, 0.0)[0] = rate_of(
                        rows.own_merged(parts, slot * count, count, m, inv), m, r, u, mass, x_t[0], w_t,
                        smoothing, columns,
                    )
        elif k0 == 0:
            loss[0] = 0.0
            if wanted == RATE:
                view(own + 8 * (3 * n + i), 1, 0.0)[0] = 0.0
        if wanted in (NOTHING, RATE):
            continue
        to, to_curved = blocks.row_address(out, og, i), blocks.row_address(curved, cg, i)
        share *= slope
        if y < 0 or denominator == 0.0 or slope == 0.0:
            blocks.fill(zero, j0, j1, mine, to, og, streamed)
            if wanted >= GRAD_HESS:
                blocks.fill(zero, j0, j1, mine, to_curved, cg, streamed)
            continue
        # Divided before they are multiplied: the quotients are of ordinary size.
        w_t /= denominator
        total = pull_of(w_t, smoothing, mass / denominator, columns)
        pull = cast(share * np.float64(inv) * total, inv)
        if wanted == HVP:
            rows.finish(
                row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                other, tg, none, keep, mine, maxima[slot], m, r,
                rows.FORWARD, cast(c, inv), cast(rows.middle(leaves.LOGITS, m, r, u), inv),
                share * np.float64(inv) * total, zero, 0.0, -1, zero, zero, (0.0, 0.0), to, og, streamed,
            )
            continue
        at_target, doubt = target_slope(
            cast(m, inv), r, mass / denominator, x_t[0], inv, w_t, smoothing, columns
        )
        if link == HINGE:
            at_target = -w_t
        exact = share * np.float64(inv) * at_target
        if turned.size:
            exact *= turned[i]
        if wanted == GRAD and companion != rows.WEIGHTS and room:
            rows.owe(owed_at, owed, to, keep, slot, y, m, r, np.float64(pull), exact, rows.SCALE)
            turn = 1 - turn
            continue
        # Of two outputs, one that lies on the logits comes last.
        for step in range(2):
            if (step == 0) == (wanted == HESS_GRAD):
                if wanted >= GRAD_HESS:
                    rows.finish(
                        row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                        other, tg, none, keep, mine, maxima[slot], m, r,
                        rows.CURVE, zero, zero, 0.0, pull, 0.0,
                        -1, zero, zero, (0.0, 0.0), to_curved, cg, streamed,
                    )
            else:
                smooth = companion == rows.WEIGHTS
                size = abs(share) * np.float64(inv) * doubt
                # q is spread/V times: the class weights, and at the target this more, which has to be finite.
                spread = max(smoothing, twofold.LEAST) if itemsize(inv) == 4 else smoothing
                extra = twofold.target_extra(np.float64(weight[y]), spread, columns) if smooth else (0.0, 0.0)
                rows.finish(
                    row, xg, j0, j1, columns, leaves.LOGITS, inv, temperature,
                    other, tg, none, keep, mine, maxima[slot], m, r,
                    rows.REVERSE if smooth else rows.SCALE, zero, zero, 0.0,
                    cast(share * total, inv) if smooth else pull,
                    -share * (spread / columns / denominator),
                    y, cast(exact, inv), cast(size, inv), extra,
                    to, og, streamed,
                )
    rows.pay_all(columns, owed_at, owed, maxima, og, streamed, mine, inv)
    blocks.settle(streamed)


# What it keeps of each row of a batch; by compute type what comes from arrays of it, else float64.
INDEX, AT_TARGET, WEIGHT, SHARE, LOSS, PULL, EXACT, SLOPE, OVER = (across.OWN + k for k in range(9))


@leaf
def pick_across(at: int, step: int, columns: int, y: Array, x_t: Array) -> None:
    """x_t[k] = element y[k] of row k."""
    wide()
    for i in range(0, y.size, LANES):
        found = lanes(y[0])
        for j in range(columns):
            chosen(
                view(at + i * itemsize(y[0]) + j * step, LANES, y[0]), part(y, i), cast(j, y[0]), found
            )
        store(found, part(x_t, i))


@leaf
def losses_across(
    m: Array, r: Array, y: Array, x_t: Array, w_t: Array, loss: Array, mass: float, inv: Any, columns: int
) -> None:
    """The losses of the rows of a batch, 0 where y is negative."""
    wide()
    for i in range(0, y.size, LANES):
        top, rest, target, own, weight = part(m, i), part(r, i), part(y, i), part(x_t, i), part(w_t, i)
        v = lanes(r[0])
        for k in range(LANES):
            each = row_loss(
                np.float64(top[k]), log_mass(rest[k], inv), 0.0, mass, np.float64(own[k]), np.float64(inv),
                weight[k], 0.0, columns,
            )
            v[k] = 0.0 if target[k] < 0 else each
        store(v, part(loss, i))


@leaf
def replaced_across(
    at: int, step: int, columns: int, count: int, size: int, y: Array, x_t: Array, tile: int, link: int,
    like: Any,
) -> None:
    """A tile of its own, with x_t at the targets; or with nothing there, x_t being what was."""
    b = itemsize(like)
    for j in range(columns if at != tile else 0):
        for k in range(0, size, LANES):
            store(view(at + j * step + k * b, LANES, like), view(tile + (j * size + k) * b, LANES, like))
    for k in range(count):
        if y[k] >= 0:
            there = view(tile + (int(y[k]) * size + k) * b, 1, like)
            if link == HINGE:
                x_t[k], there[0] = there[0], cast(-np.inf, like)
            else:
                there[0] = x_t[k]


@leaf
def linked_across(
    m: Array, r: Array, y: Array, x_t: Array, w_t: Array, loss: Array, slope: Array, inv: Any, link: int,
    option: float,
) -> None:
    """`linked` of the rows of a batch, 0 where y is negative."""
    wide()
    for i in range(0, y.size, LANES):
        top, rest, target, own, weight = part(m, i), part(r, i), part(y, i), part(x_t, i), part(w_t, i)
        v, w = lanes(r[0]), lanes(r[0])
        for k in range(LANES):
            value, w[k] = linked(top[k], rest[k], own[k], inv, weight[k], link, option)
            v[k] = 0.0 if target[k] < 0 else value
        store(v, part(loss, i))
        store(w, part(slope, i))


@leaf
def own_across(
    at: int, step: int, columns: int, e: int, e_step: int, m: Array, sums: int, like: Any
) -> None:
    """`leaves.own_sum` of LANES rows, the first of `sums`."""
    wide()
    row = LANES * 8
    for j in range(columns):
        q, v = view(at + j * step, LANES, like), view(e + j * e_step, LANES, like)
        to, total = view(sums + j % LANES * row, LANES, 0.0), lanes(0.0)
        if j >= LANES:
            store(to, total)
        for k in range(LANES):
            away = 0.0 if q[k] == -np.inf else np.float64(q[k]) - np.float64(m[k])
            total[k] = fma(np.float64(v[k]), away, total[k])
        store(total, to)
    across.fold_across(sums, min(columns, LANES), 0.0)


@leaf
def slopes_across(
    m: Array, r: Array, x_t: Array, over: Array, share: Array, pull: Array, factor: Array, exact: Array,
    inv: Any, link: int,
) -> None:
    """Of the rows of a batch what `gradients_across` takes, and `pull`, what the probabilities are
    multiplied by; `over` is w_t over the denominator.
    """
    wide()
    for i in range(0, m.size, LANES):
        top, rest, own, weight, each = part(m, i), part(r, i), part(x_t, i), part(over, i), part(share, i)
        e, u, v, w = lanes(inv), lanes(r[0]), lanes(inv), lanes(r[0])
        for k in range(LANES):  # of its own, as registers hold twice as many float32
            e[k] = exp_nonpositive((own[k] - top[k]) * inv)
        for k in range(LANES):
            rate = each[k] * np.float64(inv)
            u[k] = np.float64(cast(rate * weight[k], inv))
            v[k] = across.probability_factor(top[k], rest[k], u[k], inv)
            less = 1.0 if link == HINGE else rest_of(top[k], rest[k], own[k], e[k], inv)[0]
            w[k] = -rate * (weight[k] * less)
        store(u, part(pull, i))
        store(v, part(factor, i))
        store(w, part(exact, i))


@leaf
def gradients_across(
    e: int, step: int, n: int, factor: Array, y: Array, exact: Array, o: int, o_step: int
) -> None:
    """o = factor e of the rows of a batch, but `exact` in column y, and 0 where y is negative."""
    wide()
    zero, b = cast(0.0, factor[0]), itemsize(factor[0])
    for i in range(0, y.size, LANES):
        wanted, c, d = lanes(factor[0]), lanes(factor[0]), lanes(factor[0])
        store(part(y, i), wanted)
        store(part(factor, i), c)
        store(part(exact, i), d)
        for j in range(n):
            q, v = view(e + i * b + j * step, LANES, factor[0]), lanes(factor[0])
            column = cast(j, factor[0])
            for k in range(LANES):
                g = d[k] if wanted[k] == column else c[k] * q[k]
                v[k] = zero if wanted[k] < 0 else g
            store(v, view(o + i * b + j * o_step, LANES, factor[0]))


@kernel
def cross_entropy_across(
    w: int, workers: int, first: int, last: int, columns: int, inner: int, size: int,
    work: int, stride: int, rate: float, maxima: Array, parts: Array, kept: Array,
    x: int, xg_at: int, targets: int, yg_at: int, weight: Array, mass: float, sample_weight: Array,
    held: Array, turned: Array, link: int, option: float, losses: Array, sums: int, rates: Array,
    wanted: int, denominator: float, out: int, og_at: int, streamed: int,
) -> None:
    """What `cross_entropy_rows` makes without smoothing, the losses and the gradient, for LANES rows at a
    time; of short rows with all else. With `sums`, of the losses that of each group of so many rows.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    inv = cast(rate, maxima[0, 0, 0])  # 1/T, in the compute type
    xg, yg, og = blocks.geometry(xg_at), blocks.geometry(yg_at), blocks.geometry(og_at)
    mine = work + w * stride
    scratch, b = across.flat_of(mine, size), itemsize(inv)
    short = across.is_short(parts)
    y, x_t = across.whole(mine, INDEX, size, inv), across.whole(mine, AT_TARGET, size, inv)
    w_t, share = across.whole(mine, WEIGHT, size, 0.0), across.whole(mine, SHARE, size, 0.0)
    loss, exact = across.whole(mine, LOSS, size, 0.0), across.whole(mine, EXACT, size, 0.0)
    m, r = across.whole(mine, across.M, size, inv), across.whole(mine, across.R, size, 0.0)
    over, pull = across.whole(mine, OVER, size, 0.0), across.whole(mine, PULL, size, 0.0)
    slope, factor = across.whole(mine, SLOPE, size, 0.0), across.whole(mine, across.FACTOR, size, inv)
    none, altered = cast(-1.0, inv), held.size != 0 or link == HINGE
    for k in range(size):
        w_t[k] = share[k] = 1.0
        over[k] = 1.0 / denominator if denominator != 0.0 else 0.0
    lines = across.begin_lines(mine + stride, columns if short else 0, streamed)
    for task in blocks.share(w, workers, first, last):
        i, count, rest = across.batch(task, inner, size)
        row = blocks.row_address(x, xg, i)
        to = blocks.row_address(out, og, i)
        across.fetch_targets(targets, yg, i, count, y)
        if altered:
            tile, e = across.tile_of(mine, columns, size, inv)
            at, step = across.fetch(
                row, xg, columns, 0, columns, count, size, rest, 2 * size * columns, tile, mine, inv
            )
            for k in range(count if held.size else 0):
                x_t[k] = held[i + k]
            replaced_across(at, step, columns, count, size, y, x_t, tile, link, inv)
            at, step = tile, size * b
            across.walk_short(at, step, columns, size, mine, e, tile, step, inv)
        else:
            at, step = across.walk(
                row, xg, columns, count, size, short, rest, mine, inv, maxima[0 if kept.size else w],
                i if kept.size else 0, parts[w], wanted == NOTHING and link == PLAIN,
            )
        for k in range(0 if step else count):  # before any gradient is written over it
            there = row + k * blocks.neighbour(xg)
            x_t[k] = blocks.element(there, xg, max(int(y[k]), 0), scratch, inv)
        for k in range(count if weight.size else 0):
            w_t[k] = weight[max(int(y[k]), 0)]
            over[k] = w_t[k] / denominator if denominator != 0.0 else 0.0
        for k in range(count if sample_weight.size else 0):
            share[k] = sample_weight[i + k]
        if step and not altered:
            pick_across(at, step, columns, y, x_t)
        losses_across(m, r, y, x_t, w_t, loss, mass, inv, columns)
        if link != PLAIN:
            linked_across(m, r, y, x_t, w_t, loss, slope, inv, link, option)
            for k in range(count if wanted == GRAD else 0):
                share[k] = slope[k] * (sample_weight[i + k] if sample_weight.size else 1.0)
                if slope[k] == 0.0:
                    y[k] = none
        if wanted == GRAD:
            slopes_across(m, r, x_t, over, share, pull, factor, exact, inv, link)
            for k in range(count if turned.size else 0):
                exact[k] *= turned[i + k]
        if wanted == RATE:
            tile, e = across.tile_of(mine, columns, size, inv)
            room = across.sums_of(mine, size)
            own = view(room, LANES, 0.0)
            for k in range(0, size, LANES):
                own_across(at + k * b, step, columns, e + k * b, size * b, part(m, k), room, inv)
                for q in range(k, min(k + LANES, count)):
                    top, target = np.float64(m[q]), np.float64(x_t[q])
                    rate_q = rate_of(own[q - k], top, r[q], 0.0, mass, target, w_t[q], 0.0, columns)
                    rates[i + q] = 0.0 if y[q] < 0 else rate_q
        if sums:
            across.sums_across(loss, i, count, sums, losses)
        else:
            for k in range(count):
                losses[i + k] = loss[k]
        if wanted != GRAD:
            continue
        if denominator == 0.0:
            for k in range(size):
                y[k] = none
        if short:
            tile, e = across.tile_of(mine, columns, size, inv)
            gradients_across(e, size * b, columns, factor, y, exact, tile, size * b)
            across.deliver(tile, columns, 0, columns, count, size, mine, to, og, streamed, lines, inv)
            continue
        if kept.size:
            across.keep(mine, size, i, count, pull, kept, inv)
            for k in range(count):
                kept[i + k, across.KEPT_SPOT], kept[i + k, across.KEPT_EXACT] = y[k], exact[k]
            continue
        across.finish_long(
            row, xg, columns, 0, columns, count, size, rest, mine, at, inv, maxima[w], 0, rows.SCALE, pull,
            to, og, streamed,
        )
        for k in range(count):
            there = to + k * blocks.neighbour(og)
            if y[k] < 0:
                blocks.fill(cast(0.0, inv), 0, columns, scratch, there, og, streamed)
            else:
                blocks.put_over(cast(exact[k], inv), there, og, int(y[k]), scratch, streamed)
    across.end_lines(lines, columns if short else 0, streamed)


# ---- the loss bound to its arguments --------------------------------------------------------
class CrossEntropy(Targets, Curved):
    """Cross-entropy and its derivatives, by the kernels above, of `two`, or of `few`."""

    def __init__(
        self,
        logits: ArrayLike,
        targets: ArrayLike,
        axis: int,
        weight: ArrayLike | None,
        sample_weight: ArrayLike | None,
        ignore_index: int,
        reduction: str,
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
        *,
        name: str = "logits",
        turn: Callable[[Array], tuple[Array, Array]] | None = None,
        link: int = PLAIN,
        option: float = 0.0,
        scale: float | None = None,
    ) -> None:
        """`turn` is what becomes of the scores at the targets: a function to (their new ones, its slope). A
        `scale`, which is 1/temperature and > 0, is given in its place.
        """
        self.smoothing = arrays.fraction(label_smoothing, "label_smoothing")
        self.scale = scale
        self.temperature = arrays.positive(temperature, "temperature") if scale is None else 1.0 / scale
        super().__init__(
            logits, name, targets, axis, weight, sample_weight, ignore_index, reduction,
        )
        self.compute = rows.compute_type(self.dtype, self.temperature)
        # The focal loss of gamma = 0 is the cross-entropy.
        self.turn, self.link, self.option = turn, PLAIN if link == FOCAL and option == 0.0 else link, option
        self.rates = np.empty(0)

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
        if not self.checked.size:
            return np.empty(0)
        x, t, key = self.x, tangent, None
        plain = self.turn is None and self.link == PLAIN
        if plain and not wanted and self.smoothing == 0.0 and self.weight is self.sample_weight is None:
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
        elif wanted == RATE:
            companion = rows.BOTH if smooth else rows.ITSELF
        elif smooth:
            companion = rows.WEIGHTS
        if companion in (rows.WEIGHTS, rows.BOTH) and weight is not None:
            places[1] = arrays.address(weight), arrays.rows_of(weight, (0,), dtype)
        (x_at, xl), (t_at, tl), (to, lies), (to_hess, hess_lies) = places
        none = arrays.NONE[dtype]
        inv = rows.normal(1.0 / self.temperature if self.scale is None else self.scale, dtype)
        each = none if self.sample_weight is None else self.sample_weight.astype(dtype, copy=False)
        streamed = 0 if out is None or result is None else blocks.streamed(result, x)
        divisor = self.divisor() if wanted else 1.0
        if plain and (smooth or wanted == HVP) and self.classes <= products.SHORT:
            losses, self.rates = few.run(
                dtype, self.temperature, self.smoothing, self.weight, self.sample_weight, x, self.axis,
                self.targets, wanted, divisor, streamed, t, result, hess,
            )
            return losses
        apart_of = self._turned(x)
        if not smooth and wanted in (NOTHING, GRAD, RATE):
            both = plain and self.classes == 2
            made = lies if wanted == GRAD else None
            plan: across.Plan | None = two.plan_of(xl, made, inv, dtype) if both else across.plan_of(
                xl, made, inv, dtype, short=not plain or wanted == RATE
            )
            if plan is not None:
                sums = plan.groups and self.reduction != "none" and self.sample_weight is None
                losses = np.empty(plan.groups if sums else xl.rows)
                self.rates = np.empty(xl.rows if wanted == RATE else 0)
                y = arrays.address(self.checked), arrays.rows_of(self.checked, (0,), dtype).geometry
                weights = none if weight is None else weight
                ends = (
                    losses, plan.group if sums else 0, self.rates, wanted, divisor, to, lies.geometry,
                    streamed,
                )
                if both:
                    plan.run(two.cross_entropy_two, x_at, xl.geometry, *y, weights, each, *ends)
                else:
                    plan.run(
                        cross_entropy_across,
                        x_at, xl.geometry, *y, weights, mass, each, *apart_of, self.link, self.option, *ends,
                    )
                if wanted == GRAD:
                    plan.finish(x_at, xl.geometry, rows.SCALE, to, lies.geometry, streamed)
                return float(losses.sum()) if sums else losses
        own = self._own_rows(wanted == RATE)
        args = (
            x_at, arrays.address(own), xl.rows, xl.geometry, none if weight is None else weight, mass, each,
            self.smoothing, self.temperature, *apart_of, self.link, self.option,
            wanted, divisor, t_at, tl.geometry, companion,
            to, lies.geometry, to_hess, hess_lies.geometry, streamed,
        )
        plan_of_rows = rows.plan_of(xl, inv, dtype, exponentials=wanted not in (NOTHING, RATE))
        sides = plan_of_rows.sides(
            (0, 3, x, xl), (15, 16, t, tl), made=((18, 19, result, lies), (20, 21, hess, hess_lies))
        )
        plan_of_rows.run(cross_entropy_rows, *args, sides=sides)
        if key and not sides and arrays.is_plain(x) and x.dtype == dtype:
            plan_of_rows.remember(key, cross_entropy_rows, args, (xl.rows,), xl)
        if wanted == RATE:
            self.rates = own[3]
        return self._losses_of(own)

    def _own_rows(self, rates: bool = False) -> Array:
        """Of each row the target, as an integer, a number for the kernel, the loss that it will write, and
        with `rates` its derivative by 1/T.
        """
        own = np.empty((4 if rates else 3, self.checked.size))
        own[0].view(np.int64)[:] = self.targets
        return own

    def _turned(self, x: Array) -> tuple[Array, Array]:
        """What stands at the targets, and its derivative by what does."""
        if self.turn is None:
            return arrays.NONE[self.compute], arrays.NONE[arrays.F64]
        index = np.maximum(self.targets, 0).reshape(self.shape)
        scores = np.take_along_axis(x, np.expand_dims(index, self.axis), self.axis).reshape(-1)
        held, slope = self.turn(scores.astype(np.float64))
        return held.astype(self.compute), slope

    @staticmethod
    def _losses_of(own: Array) -> Array:
        losses: Array = own[2]
        return losses

    def divisor(self) -> float:
        w, s = self.weight, self.sample_weight
        if self.reduction != "mean" and self.smoothing > 0.0 and w is not None and w.any():
            counts = self.checked >= 0  # whatever their own class weighs
            return float((counts if s is None else counts * s).any())
        return super().divisor()
