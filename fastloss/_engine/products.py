"""Products with the Jacobian of softmax on rows of up to SHORT numbers, LANES rows at a time.

With p = softmax(x/T), c the tangent at the row's maximum and mid = <p, t> - c: FORWARD is
(a p + g) ((t - c) - mid)/T, REVERSE is g (t - p sum(t))/T, and MEAN is <p, t>. All is float64 until the
results are rounded. Rows whose results are so small beside their terms that even this has not the digits
are made again by `twofold`.

A row has the same bits wherever it lies, since no other code makes softmax's and log_softmax's products of
rows so short (those of cross_entropy are `few`'s).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastloss._engine import across, blocks, elementary, launch, rows, transpose, twofold
from fastloss._engine.across import largest_across, slot
from fastloss._engine.arrays import Array, Layout
from fastloss._engine.blocks import BLOCK
from fastloss._engine.elementary import two_sum
from fastloss._engine.jit import inline, leaf
from fastloss._engine.leaves import LOG_PROBS, LOGITS
from fastloss._engine.vector import (
    LANES,
    chosen,
    fold,
    itemsize,
    lanes,
    multiplied,
    outlined,
    raised_to_size,
    store,
    view,
    wide,
)

# Columns up to which this is so: float64 tiles of more would not stay in L1.
SHORT = 128
# What is made, beside rows.FORWARD and rows.REVERSE.
MEAN = 5

# An array of the batch, of float64.
MEANS = across.OWN + 7

# ---- leaves ---------------------------------------------------------------------------------
COLUMN = LANES * 8  # bytes from column to column of a tile of LANES rows of float64


@leaf
def masses_across(at: int, step: int, n: int, holds: int, m: Array, rate: float, e: int) -> None:
    """e = the probabilities of LANES rows but for their sums; `rate` is 1/T."""
    wide()
    for j in range(n):
        q, d = view(at + j * step, LANES, m[0]), view(e + j * COLUMN, LANES, 0.0)
        store(q, d)
        if holds == LOGITS:
            for k in range(LANES):
                d[k] = elementary.exp_nonpositive((d[k] - np.float64(m[k])) * rate)
        elif holds == LOG_PROBS:
            for k in range(LANES):
                d[k] = elementary.exp(d[k])


@leaf
def peaks_across(
    at: int, step: int, t_at: int, t_step: int, n: int, m: Array, like: Any, c: Array, peak: Array
) -> None:
    """c = t, of the type of `like`, at the first maximum of each row, `peak` its column."""
    wide()
    for j in range(n - 1, -1, -1):  # the first has the last word
        q, t = view(at + j * step, LANES, m[0]), view(t_at + j * t_step, LANES, like)
        for k in range(LANES):
            c[k] = np.float64(t[k]) if q[k] == m[k] else c[k]
            peak[k] = np.float64(j) if q[k] == m[k] else peak[k]


@inline
def settled(s: Array, low: Array) -> None:
    """s += low, where that is a number."""
    for k in range(LANES):
        s[k] = s[k] + low[k] if abs(s[k]) < np.inf else s[k]


@leaf
def dots_across(
    e: int, t_at: int, t_step: int, n: int, c: Array, like: Any, s: Array, dot: Array, squares: Array,
    sizes: Array,
) -> None:
    """The sums of e, of e (t - c), and of the squares and the sizes of those."""
    wide()
    s_low, low = lanes(0.0), lanes(0.0)
    for j in range(n):
        p, t = view(e + j * COLUMN, LANES, 0.0), view(t_at + j * t_step, LANES, like)
        for k in range(LANES):
            term = p[k] * (np.float64(t[k]) - c[k])
            squares[k] += term * term
            sizes[k] += abs(term)
            s[k], lost = two_sum(s[k], p[k])
            s_low[k] += lost
            dot[k], lost = two_sum(dot[k], term)
            low[k] += lost
    settled(s, s_low)
    settled(dot, low)


@leaf
def totals_across(
    e: int, t_at: int, t_step: int, n: int, peak: Array, like: Any, most: Array, rest: Array, others: Array
) -> None:
    """The sums of e and of t without the maximum's, and `most`, its e."""
    wide()
    s_low, low, zero = lanes(0.0), lanes(0.0), lanes(0.0)
    for j in range(n):
        p, each, t = lanes(0.0), view(e + j * COLUMN, LANES, 0.0), lanes(0.0)
        store(each, p)
        store(view(t_at + j * t_step, LANES, like), t)
        chosen(each, peak, np.float64(j), most)
        chosen(zero, peak, np.float64(j), p)
        chosen(zero, peak, np.float64(j), t)
        for k in range(LANES):
            rest[k], lost = two_sum(rest[k], p[k])
            s_low[k] += lost
            others[k], lost = two_sum(others[k], t[k])
            low[k] += lost
    settled(rest, s_low)
    settled(others, low)


@leaf
def forward_across(
    e: int, t_at: int, t_step: int, n: int, c: Array, s: Array, dot: Array, squares: Array, sizes: Array,
    holds: int, a: float, g: float, rates: Array, o: int, o_step: int, like: Any, doubts: Array,
) -> Any:
    """FORWARD for LANES rows, rates[k] for 1/T; doubts[k] = 1 where row k is to be made again, which is
    whether any is.
    """
    wide()
    scale, mid, top, weight = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
    near, rest = lanes(0.0), lanes(0.0)
    for k in range(LANES):
        scale[k] = twofold.share_of(s[k], holds)
        mid[k] = dot[k] * scale[k]
        c[k] = 0.0 if scale[k] == 0.0 else c[k]
        # Measured from the number next to <p, t> differences are as right as <p, t> is.
        mean, left = two_sum(c[k], mid[k])
        near[k] = mean if abs(mean) < np.inf else c[k]
        rest[k] = left if abs(mean) < np.inf else mid[k]
    for j in range(n):
        p, t = view(e + j * COLUMN, LANES, 0.0), view(t_at + j * t_step, LANES, like)
        w, each = lanes(0.0), lanes(0.0)
        for k in range(LANES):
            w[k] = a * (p[k] * scale[k]) + g
            each[k] = w[k] * ((np.float64(t[k]) - near[k]) - rest[k])
        raised_to_size(each, top, top)
        raised_to_size(w, weight, weight)
        multiplied(each, rates, each)
        store(each, view(o + j * o_step, LANES, like))
    for k in range(LANES):
        size = top[k] + weight[k] * twofold.wrong(squares[k], sizes[k], scale[k], mid[k])
        doubts[k] = 1.0 if twofold.in_doubt(top[k], size, like) else 0.0
    return fold(doubts)


@leaf
def reverse_across(
    e: int, t_at: int, t_step: int, n: int, c: Array, peak: Array, most: Array, rest: Array, others: Array,
    holds: int, g: float, rates: Array, o: int, o_step: int, like: Any, t_like: Any, doubts: Array,
) -> Any:
    """REVERSE for LANES rows, likewise. Of the maximum t (1 - p) - p (sum(t) - t), since 1 - p has its digits
    there alone. t is of the type of `t_like`.
    """
    wide()
    scale, total, top, own = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
    left, right = lanes(0.0), lanes(0.0)
    for k in range(LANES):
        scale[k] = twofold.share_of(rest[k] + most[k], holds)
        total[k] = others[k] + c[k]
        left[k] = g * (c[k] * (rest[k] * scale[k] if scale[k] != 0.0 else 1.0))
        right[k] = g * (others[k] * (most[k] * scale[k]))
    for j in range(n):
        p, t = view(e + j * COLUMN, LANES, 0.0), view(t_at + j * t_step, LANES, t_like)
        pull, push, size, each = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
        for k in range(LANES):
            pull[k] = g * (p[k] * scale[k] * total[k])
            push[k] = g * np.float64(t[k])
        chosen(left, peak, np.float64(j), push)
        chosen(right, peak, np.float64(j), pull)
        for k in range(LANES):
            each[k] = push[k] - pull[k]
            size[k] = abs(push[k]) + abs(pull[k])
        raised_to_size(each, top, top)
        raised_to_size(size, own, own)
        multiplied(each, rates, each)
        store(each, view(o + j * o_step, LANES, like))
    for k in range(LANES):
        doubts[k] = 1.0 if twofold.in_doubt(top[k], own[k], like) else 0.0
    return fold(doubts)


@leaf
def means_across(
    c: Array, s: Array, dot: Array, squares: Array, sizes: Array, means: Array, like: Any, doubts: Array
) -> Any:
    """MEAN of LANES rows of logits, likewise."""
    wide()
    for k in range(LANES):
        scale = 1.0 / s[k]
        mid = dot[k] * scale
        means[k] = c[k] + mid
        size = twofold.wrong(squares[k], sizes[k], scale, mid)
        share = 1.0 if itemsize(like) == 4 else twofold.CANCELLED / twofold.DOUBTFUL
        doubts[k] = 1.0 if twofold.in_doubt(share * abs(means[k]), size, like) else 0.0
    return fold(doubts)


# ---- what a kernel calls --------------------------------------------------------------------
@leaf
def fetch(
    base: int, g: Array, i: int, columns: int, count: int, size: int, rest: int, apart: int, tile: int,
    work: int, like: Any,
) -> Any:
    """`across.fetch` of rows from row i on; where they lie `apart`, in runs too short for it, row by row."""
    outlined()
    if not apart:
        return across.fetch(
            blocks.row_address(base, g, i), g, columns, 0, columns, count, size, rest, 2 * size * columns,
            tile, work, like,
        )
    flat, b = across.flat_of(work, size), itemsize(like)
    for k in range(count):
        to = view(flat + k * columns * b, columns, like)
        blocks.load(blocks.row_address(base, g, i + k), g, columns, to)
    transpose.to_columns(flat, columns, size, tile, 0, like)
    return tile, size * b


@leaf
def deliver(
    tile: int, i: int, columns: int, count: int, size: int, apart: int, work: int, out: int, g: Array,
    streamed: int, lines: int, like: Any,
) -> None:
    """`across.deliver`, likewise."""
    outlined()
    if not apart:
        to = blocks.row_address(out, g, i)
        across.deliver(tile, columns, 0, columns, count, size, work, to, g, streamed, lines, like)
        return
    flat, b = across.flat_of(work, size), itemsize(like)
    transpose.to_rows(tile, columns, size, flat, like)
    for k in range(count):
        row = view(flat + k * columns * b, columns, like)
        blocks.put(row, columns, blocks.row_address(out, g, i + k), g, 0, streamed)


@leaf
def make(
    at: int, step: int, t_at: int, t_step: int, columns: int, count: int, size: int, work: int, holds: int,
    mode: int, a: float, g: float, temperature: float, inv: Any,
) -> int:
    """The products of a batch as a tile, its columns `size` numbers apart; or its means, in their slot."""
    outlined()
    b = itemsize(inv)
    _, t_tile = across.tile_of(work, columns, size, inv)
    tile = t_tile + across.tile_bytes(columns, size, inv)
    e = tile + across.tile_bytes(columns, size, inv)
    rate = 1.0 / temperature if b == 4 else np.float64(inv)
    rates = lanes(0.0)
    for k in range(LANES):
        rates[k] = rate
    for i in range(0, size, LANES):
        sizes = lanes(0.0)
        m, means = slot(work, across.M, size, i, inv), slot(work, MEANS, size, i, 0.0)
        x, t, o = at + i * b, t_at + i * b, tile + i * b
        c, peak, doubts = lanes(0.0), lanes(0.0), lanes(0.0)
        s, dot, more = lanes(0.0), lanes(0.0), lanes(0.0)
        largest_across(x, step, columns, m)
        peaks_across(x, step, t, t_step, columns, m, inv, c, peak)
        masses_across(x, step, columns, holds, m, rate, e)
        if mode == rows.REVERSE:
            totals_across(e, t, t_step, columns, peak, inv, more, s, dot)
            some = reverse_across(
                e, t, t_step, columns, c, peak, more, s, dot, holds, g, rates, o, size * b, inv, inv, doubts
            )
        else:
            dots_across(e, t, t_step, columns, c, inv, s, dot, more, sizes)
            if mode == MEAN:
                some = means_across(c, s, dot, more, sizes, means, inv, doubts)
            else:
                some = forward_across(
                    e, t, t_step, columns, c, s, dot, more, sizes, holds, a, g, rates, o, size * b, inv,
                    doubts,
                )
        for k in range(min(LANES, count - i) if some else 0):
            if doubts[k]:
                means[k] = make_again(
                    x + k * b, step, t + k * b, t_step, columns, across.flat_of(work, size), holds, mode,
                    np.float64(m[k]), c[k], a, g, temperature, o + k * b, size * b, inv,
                )
    return int(tile)


@leaf
def make_again(
    at: int, step: int, t_at: int, t_step: int, columns: int, scratch: int, holds: int, mode: int,
    m: float, c: float, a: float, g: float, temperature: float, o: int, o_step: int, like: Any,
) -> float:
    """The products of one row, or its mean, to twice the digits."""
    outlined()
    b = BLOCK * itemsize(like)
    x, t = view(scratch, columns, like), view(scratch + b, columns, like)
    results = view(scratch + 2 * b, columns, like)
    for j in range(columns):
        x[j], t[j] = view(at + j * step, 1, like)[0], view(t_at + j * t_step, 1, like)[0]
        results[j] = view(o + j * o_step, 1, like)[0]
    if mode == MEAN:
        return twofold.mean(x, m, t, columns)
    twofold.products(
        x, holds, m, temperature, t, columns, c, mode == rows.FORWARD, a, g, -1, (0.0, 0.0), results
    )
    for j in range(columns):
        view(o + j * o_step, 1, like)[0] = results[j]
    return 0.0


# ---- the plan of a call ---------------------------------------------------------------------
def plan_of(
    layouts: list[Layout], rate: float, dtype: np.dtype[Any], tiles: int = 1
) -> tuple[across.Plan | None, int]:
    """(a plan for rows so short, 1 where they lie apart); `layouts` of the logits, of what is beside them, of
    the results. `tiles` is what a batch takes beside two.
    """
    x, inner = layouts[0], min(each.run for each in layouts)
    if not 0 < x.columns <= SHORT:
        return None, 0
    apart = inner < LANES and inner < x.rows
    if apart:
        inner = x.rows
    make = partial(across.Plan, x.rows, x.columns, inner, rate, dtype, tiles)
    if not launch.is_small(x.rows * x.columns, x.rows):
        return make(), int(apart)
    return rows.kept_plan((x.rows, x.columns, inner, rate, dtype.char, tiles, "products"), make), int(apart)
