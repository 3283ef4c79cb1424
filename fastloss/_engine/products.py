"""Products with the Jacobian of softmax on rows of up to SHORT numbers, LANES rows at a time.

With p = softmax(x/T), c the tangent at the row's maximum and mid = <p, t> - c: FORWARD is
(a p + g) ((t - c) - mid)/T, REVERSE is g (t - p sum(t))/T, and MEAN is <p, t>. Rows whose results are small
beside their terms are made again: of float32 in float64, and what has not the digits then, and of float64,
by `twofold`.

A row has the same bits wherever it lies, since no other code makes softmax's and log_softmax's products of
rows so short (those of cross_entropy are `few`'s).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastloss._engine import across, blocks, elementary, launch, rows, transpose, twofold
from fastloss._engine.across import slot
from fastloss._engine.arrays import Array, Layout
from fastloss._engine.blocks import BLOCK
from fastloss._engine.elementary import two_sum
from fastloss._engine.jit import inline, leaf
from fastloss._engine.leaves import LOG_PROBS, LOGITS, PROBS
from fastloss._engine.vector import (
    LANES,
    added,
    cast,
    chosen,
    exact_fma,
    fma,
    fold,
    itemsize,
    lanes,
    lower,
    multiplied,
    outlined,
    prefetch,
    raised_to_size,
    risen,
    store,
    view,
    wide,
)

# Columns up to which this is so.
SHORT = 128
Place = tuple[int, int]  # an address, and bytes from column to column
# What is made, beside rows.FORWARD and rows.REVERSE.
MEAN = 5

# Arrays of the batch: means, of float64; and the rows that are to be made again, of int64.
MEANS, AGAIN = across.OWN + 7, across.OWN + 8

# Terms that are added to each other before the sum of others takes them in, with what rounding loses.
TOGETHER = 4

# ---- leaves: LANES rows, in the type of their sums, which is that of the rows or wider ------
COLUMN = LANES * 8  # bytes from column to column of a tile of LANES rows of float64


@leaf
def peaks_across(
    at: int, step: int, t_at: int, t_step: int, n: int, m: Array, like: Any, c: Array, peak: Array
) -> None:
    """m = the maximum of each row, NaN passed over; c = t, of the type of `like`, at the first of it, `peak`
    its column, which is the first where all are -inf.
    """
    wide()
    top, own, column = lanes(m[0]), lanes(like), lanes(m[0])
    lower(top)
    store(view(t_at, LANES, like), own)
    for j in range(n):
        q, t = view(at + j * step, LANES, m[0]), view(t_at + j * t_step, LANES, like)
        risen(q, t, cast(j, m[0]), top, own, column)
    store(top, m)
    store(own, c)
    store(column, peak)


@leaf
def masses_across(
    at: int, step: int, n: int, holds: int, m: Array, rate: Any, low: Any, e: int, after: Place
) -> None:
    """e = the probabilities but for their sums, in the type of `rate`; rate + low is 1/T. Meanwhile, here and
    in other loops, as many numbers of x's type are asked for from `after` on.

    A rounded exponent z would be off by so much of z: of a cotangent that is 0 but where p is small, all
    results would be. So what rounding takes from it goes into e, unless float64 holds it whole.
    """
    wide()
    for j in range(n):
        q, d = view(at + j * step, LANES, m[0]), lanes(rate)
        store(q, d)
        prefetch(view(after[0] + j * after[1], LANES, m[0]), 0)
        if holds == LOGITS and itemsize(rate) > itemsize(m[0]):
            for k in range(LANES):
                d[k] = elementary.exp_nonpositive((d[k] - cast(m[k], rate)) * rate)
        elif holds == LOGITS:
            for k in range(LANES):
                away, lost = two_sum(q[k], -m[k])
                z = away * rate
                off = exact_fma(away, rate, -z) + (away * low + lost * rate)
                each = elementary.exp_nonpositive(z)
                d[k] = fma(each, off, each) if each > cast(0.0, rate) else each
        elif holds == LOG_PROBS:
            for k in range(LANES):
                d[k] = elementary.exp(d[k])
        store(d, view(e + j * LANES * itemsize(rate), LANES, rate))


@inline
def take_in(some: Array, s: Array, low: Array) -> None:
    """s += `some`, LANES numbers; what they lose goes to `low`."""
    for k in range(LANES):
        s[k], lost = two_sum(s[k], some[k])
        low[k] += lost


@inline
def settled(s: Array, low: Array) -> None:
    """s += low, where that is a number."""
    for k in range(LANES):
        s[k] = s[k] + low[k] if abs(s[k]) < np.inf else s[k]


@leaf
def dots_across(
    e: int, e_step: int, t_at: int, t_step: int, n: int, c: Array, like: Any, s: Array, dot: Array,
    squares: Array, sizes: Array, after: Place,
) -> None:
    """The sums of e, of e (t - c), and of the squares and the sizes of those; t is of the type of `like`."""
    wide()
    like_s = s[0]
    total, total_low, mid, mid_low = lanes(like_s), lanes(like_s), lanes(like_s), lanes(like_s)
    square, size, from_ = lanes(like_s), lanes(like_s), lanes(like_s)
    store(c, from_)
    for j in range(0, n, TOGETHER):
        some, terms = lanes(like_s), lanes(like_s)
        for i in range(j, min(j + TOGETHER, n)):
            p, each = view(e + i * e_step, LANES, like_s), lanes(like_s)
            store(view(t_at + i * t_step, LANES, like), each)
            prefetch(view(after[0] + i * after[1], LANES, like), 0)
            for k in range(LANES):
                term = p[k] * (each[k] - from_[k])
                square[k] += term * term
                size[k] += abs(term)
                some[k] += p[k]
                terms[k] += term
        take_in(some, total, total_low)
        take_in(terms, mid, mid_low)
    settled(total, total_low)
    settled(mid, mid_low)
    store(total, s)
    store(mid, dot)
    store(square, squares)
    store(size, sizes)


@leaf
def totals_across(
    e: int, e_step: int, t_at: int, t_step: int, n: int, peak: Array, like: Any, most: Array, rest: Array,
    others: Array, after: Place,
) -> None:
    """The sums of e and of t without the maximum's, and `most`, its e."""
    wide()
    like_e, zero, top = rest[0], lanes(rest[0]), lanes(rest[0])
    total, total_low, sum_t, low = lanes(like_e), lanes(like_e), lanes(like_e), lanes(like_e)
    for j in range(0, n, TOGETHER):
        some, terms = lanes(like_e), lanes(like_e)
        for i in range(j, min(j + TOGETHER, n)):
            p, each, t = lanes(like_e), view(e + i * e_step, LANES, like_e), lanes(like_e)
            store(each, p)
            store(view(t_at + i * t_step, LANES, like), t)
            prefetch(view(after[0] + i * after[1], LANES, like), 0)
            chosen(each, peak, cast(i, peak[0]), top)
            chosen(zero, peak, cast(i, peak[0]), p)
            chosen(zero, peak, cast(i, peak[0]), t)
            added(some, p, some)
            added(terms, t, terms)
        take_in(some, total, total_low)
        take_in(terms, sum_t, low)
    settled(total, total_low)
    settled(sum_t, low)
    store(top, most)
    store(total, rest)
    store(sum_t, others)


@leaf
def forward_across(
    e: int, e_step: int, t_at: int, t_step: int, n: int, c: Array, s: Array, dot: Array, squares: Array,
    sizes: Array, holds: int, a: float, g: float, rates: Array, o: int, o_step: int, like: Any, doubts: Array,
    after: Place,
) -> Any:
    """FORWARD for LANES rows, rates[k] for 1/T; doubts[k] = 1 where row k is to be made again, which is
    whether any is.
    """
    wide()
    one, zero, own_a, own_g = s[0], lanes(s[0]), cast(a, s[0]), cast(g, s[0])
    scale, mid, top, weight = lanes(one), lanes(one), lanes(one), lanes(one)
    near, rest, most = lanes(one), lanes(one), lanes(one)
    for k in range(LANES):
        scale[k] = twofold.share_of(s[k], holds)
        mid[k] = dot[k] * scale[k]
        c[k] = zero[k] if scale[k] == zero[k] else c[k]
        # Measured from the number next to <p, t> differences are as right as <p, t> is.
        mean, left = two_sum(c[k], mid[k])
        near[k] = mean if abs(mean) < np.inf else c[k]
        rest[k] = left if abs(mean) < np.inf else mid[k]
    for j in range(n):
        p, t = view(e + j * e_step, LANES, one), view(t_at + j * t_step, LANES, like)
        prefetch(view(after[0] + j * after[1], LANES, like), 0)
        w, each, d = lanes(one), lanes(one), lanes(one)
        for k in range(LANES):
            w[k] = own_a * (p[k] * scale[k]) + own_g
            d[k] = (cast(t[k], one) - near[k]) - rest[k]
            each[k] = w[k] * d[k]
        raised_to_size(d, most, most)
        raised_to_size(each, top, top)
        raised_to_size(w, weight, weight)
        multiplied(each, rates, each)
        store(each, view(o + j * o_step, LANES, like))
    for k in range(LANES):
        size = top[k] + weight[k] * twofold.wrong(squares[k], sizes[k], scale[k], mid[k])
        doubts[k] = 1.0 if twofold.in_doubt(top[k], size, most[k], like) else 0.0
    return fold(doubts)


@leaf
def reverse_across(
    e: int, e_step: int, t_at: int, t_step: int, n: int, c: Array, peak: Array, most: Array, rest: Array,
    others: Array, holds: int, g: float, rates: Array, o: int, o_step: int, like: Any, t_like: Any,
    doubts: Array,
) -> Any:
    """REVERSE for LANES rows, likewise. Of the maximum t (1 - p) - p (sum(t) - t), since 1 - p has its digits
    there alone. t is of the type of `t_like`.
    """
    wide()
    one, own_g, nothing, all_of = rest[0], cast(g, rest[0]), cast(0.0, rest[0]), cast(1.0, rest[0])
    scale, total, top, own = lanes(one), lanes(one), lanes(one), lanes(one)
    left, right = lanes(one), lanes(one)
    for k in range(LANES):
        scale[k] = twofold.share_of(rest[k] + most[k], holds)
        total[k] = others[k] + c[k]
        left[k] = own_g * (c[k] * (rest[k] * scale[k] if scale[k] != nothing else all_of))
        right[k] = own_g * (others[k] * (most[k] * scale[k]))
    for j in range(n):
        p, t = view(e + j * e_step, LANES, one), view(t_at + j * t_step, LANES, t_like)
        pull, push, terms, each = lanes(one), lanes(one), lanes(one), lanes(one)
        for k in range(LANES):
            pull[k] = own_g * (p[k] * scale[k] * total[k])
            push[k] = own_g * cast(t[k], one)
        chosen(left, peak, cast(j, one), push)
        chosen(right, peak, cast(j, one), pull)
        for k in range(LANES):
            each[k] = push[k] - pull[k]
            terms[k] = abs(push[k]) + abs(pull[k])
        raised_to_size(each, top, top)
        raised_to_size(terms, own, own)
        multiplied(each, rates, each)
        store(each, view(o + j * o_step, LANES, like))
    for k in range(LANES):
        size = own[k] + nothing * total[k]  # NaN, which maxima pass over, where the sum is not finite
        doubts[k] = 1.0 if twofold.in_doubt(top[k], size, own_g * total[k], like) else 0.0
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
        doubts[k] = 1.0 if twofold.in_doubt(share * abs(means[k]), size, 0.0, like) else 0.0
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
            blocks.row_address(base, g, i), g, columns, 0, columns, count, size, rest, 0, tile, work, like,
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
def attempt(
    x: int, step: int, t: int, t_step: int, columns: int, holds: int, mode: int, a: float, g: float,
    rate: Any, low: Any, e: int, o: int, o_step: int, m: Array, means: Array, c: Array, doubts: Array,
    after: Place, t_after: Place,
) -> Any:
    """The products of LANES rows, or their means, in the type of `rate`, where rate + low is 1/T, from t at
    the maximum, c; and doubts as `forward_across` has them.
    """
    outlined()
    like, e_step, here = m[0], LANES * itemsize(rate), (x, step)
    peak, rates, s, dot, more = lanes(rate), lanes(rate), lanes(rate), lanes(rate), lanes(rate)
    peaks_across(x, step, t, t_step, columns, m, like, c, peak)
    as_it_is = holds == PROBS and itemsize(rate) == itemsize(like)
    if as_it_is:
        e, e_step = x, step
    else:
        masses_across(x, step, columns, holds, m, rate, low, e, after)
    for k in range(LANES):
        rates[k] = rate
    if mode == rows.REVERSE:
        totals_across(e, e_step, t, t_step, columns, peak, like, more, s, dot, t_after)
        return reverse_across(
            e, e_step, t, t_step, columns, c, peak, more, s, dot, holds, g, rates, o, o_step, like, like,
            doubts,
        )
    sizes = lanes(rate)
    dots_across(e, e_step, t, t_step, columns, c, like, s, dot, more, sizes, t_after)
    if mode == MEAN:
        return means_across(c, s, dot, more, sizes, means, like, doubts)
    return forward_across(
        e, e_step, t, t_step, columns, c, s, dot, more, sizes, holds, a, g, rates, o, o_step, like, doubts,
        after if as_it_is else here,
    )


@leaf
def make_wide(
    x: int, step: int, t: int, t_step: int, columns: int, count: int, holds: int, mode: int, a: float,
    g: float, temperature: float, inv: Any, e: int, o: int, o_step: int, m: Array, means: Array, scratch: int,
    after: Place, t_after: Place,
) -> None:
    """The products of `count` <= LANES rows, or their means, in float64."""
    outlined()
    b, c, doubts = itemsize(inv), lanes(0.0), lanes(0.0)
    rate = 1.0 / temperature if b == 4 else np.float64(inv)
    low = twofold.rest_of_inverse(rate, temperature) if b == 8 else 0.0
    some = attempt(
        x, step, t, t_step, columns, holds, mode, a, g, rate, low, e, o, o_step, m, means, c, doubts, after,
        t_after,
    )
    for k in range(count if some else 0):
        if doubts[k]:
            means[k] = make_again(
                x + k * b, step, t + k * b, t_step, columns, scratch, holds, mode, np.float64(m[k]), c[k], a,
                g, temperature, o + k * b, o_step, inv,
            )


@leaf
def copy_rows(which: Array, count: int, columns: int, at: int, step: int, to: int, like: Any) -> None:
    """A tile of LANES rows of the `count` <= LANES rows `which` of another; the last fills it up."""
    outlined()
    b = itemsize(like)
    for j in range(columns):
        there, here = at + j * step, view(to + j * LANES * b, LANES, like)
        for k in range(LANES):
            here[k] = view(there + which[min(k, count - 1)] * b, 1, like)[0]


@leaf
def make(
    at: int, step: int, t_at: int, t_step: int, columns: int, count: int, size: int, work: int, holds: int,
    mode: int, a: float, g: float, temperature: float, inv: Any, after: Place, t_after: Place,
) -> int:
    """The products of a batch as a tile, its columns `size` numbers apart; or its means, in their slot.
    Meanwhile what comes `after` is asked for.

    Means, and all of float64, are made in float64; other products in float32, and those of rows in doubt, of
    which there are few, once more in float64, side by side.
    """
    outlined()
    b, scratch = itemsize(inv), across.flat_of(work, size)
    _, t_tile = across.tile_of(work, columns, size, inv)
    tile = t_tile + across.tile_bytes(columns, size, inv)
    e = tile + across.tile_bytes(columns, size, inv)
    again, many = across.whole(work, AGAIN, size, np.int64(0)), 0
    low = cast(twofold.rest_of_inverse(np.float64(inv), temperature), inv)
    for i in range(0, size, LANES):
        m, means = slot(work, across.M, size, i, inv), slot(work, MEANS, size, i, 0.0)
        x, t, o, some = at + i * b, t_at + i * b, tile + i * b, max(0, min(LANES, count - i))
        then, t_then = (after[0] + i * b, after[1]), (t_after[0] + i * b, t_after[1])
        if b == 8 or mode == MEAN:
            make_wide(
                x, step, t, t_step, columns, some, holds, mode, a, g, temperature, inv, e, o, size * b, m,
                means, scratch, then, t_then,
            )
            continue
        c, doubts = lanes(inv), lanes(0.0)
        doubtful = attempt(
            x, step, t, t_step, columns, holds, mode, a, g, inv, low, e, o, size * b, m, means, c, doubts,
            then, t_then,
        )
        for k in range(some if doubtful else 0):
            again[many] = i + k
            many += 1 if doubts[k] else 0
    own_step = LANES * b
    own_x = e + columns * COLUMN
    own_t = own_x + columns * own_step
    m, means = slot(work, across.M, size, 0, inv), slot(work, MEANS, size, 0, 0.0)
    for i in range(0, many, LANES):
        which, some = again[i:], min(LANES, many - i)
        copy_rows(which, some, columns, at, step, own_x, inv)
        copy_rows(which, some, columns, t_at, t_step, own_t, inv)
        # Results take the place of the exponentials that they are made from.
        make_wide(
            own_x, own_step, own_t, own_step, columns, some, holds, mode, a, g, temperature, inv, e, e,
            COLUMN, m, means, scratch, (own_x, own_step), (own_t, own_step),
        )
        for j in range(columns):
            made, to = view(e + j * COLUMN, LANES, inv), view(tile + j * size * b, size, inv)
            for k in range(some):
                to[which[k]] = made[k]
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
    make = partial(
        across.Plan, x.rows, x.columns, inner, rate, dtype, tiles,
        pieces=all(across.in_pieces(each) for each in layouts),
    )
    if not launch.is_small(x.rows * x.columns, x.rows):
        return make(), int(apart)
    return rows.kept_plan((x.rows, x.columns, inner, rate, dtype.char, tiles, "products"), make), int(apart)
