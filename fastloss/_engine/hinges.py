"""Hinges of rows of up to `products.SHORT` scores, LANES rows at a time; all terms are added in float64.

No other code makes those of rows so short, so a row has the same bits wherever it lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss._engine import across, blocks, products
from fastloss._engine.arrays import Array, Layout
from fastloss._engine.jit import inline, leaf
from fastloss._engine.kernels import kernel
from fastloss._engine.vector import (
    LANES,
    added,
    cast,
    chosen,
    itemsize,
    lanes,
    lower,
    lowered,
    multiplied,
    numbers_of,
    part,
    prefetch,
    raised,
    risen,
    store,
    subtracted,
    view,
    wide,
)

# What a loss is: the sum of all classes' hinges, of their squares, or the largest.
SUM, SQUARES, LARGEST = 0, 1, 2


# ---- leaves ---------------------------------------------------------------------------------
@leaf
def rows_across(y: Array, each: Array, i: int, some: int, targets: Array, rates: Array) -> None:
    """Targets, and rates if there are any, of `some` rows from row i on; -1 for what LANES rows lack."""
    wide()
    if some == LANES:
        store(part(y, i), targets)
    else:
        for k in range(LANES):
            targets[k] = y[i + k] if k < some else -1
    if each.size:
        for k in range(some):
            rates[k] = cast(each[i + k], rates[0])


@leaf
def losses_across(sums: Array, column: Array, i: int, some: int, losses: Array) -> None:
    """The losses of `some` rows from row i on. They and `sums` become 0 where the column is -1: there is no
    target to write to.
    """
    wide()
    chosen(lanes(1.0), column, cast(-1.0, column[0]), sums)
    if some == LANES:
        store(sums, part(losses, i))
        return
    for k in range(some):
        losses[i + k] = sums[k]


@leaf
def begin_across(
    at: int, step: int, n: int, y: Array, after: products.Place, own: Array, column: Array
) -> None:
    """column = y as numbers, `own` = the target's score of each row, 0 where y is -1. Meanwhile as much is
    asked for from `after` on.
    """
    wide()
    mine, spot = lanes(own[0]), lanes(own[0])
    numbers_of(y, spot)
    for j in range(n):
        prefetch(view(after[0] + j * after[1], LANES, own[0]), 0)
        chosen(view(at + j * step, LANES, own[0]), spot, cast(j, own[0]), mine)
    store(mine, own)
    store(spot, column)


@inline
def hinges_of(at: int, own: Array, margin: Any, v: Array) -> None:
    """v = max(z - own + margin, 0) of LANES scores of a class; NaN stays."""
    zero = lanes(margin)
    subtracted(view(at, LANES, margin), own, v)
    lowered(v, -margin, v)
    raised(zero, v, v)


@leaf
def sums_across(
    at: int, step: int, n: int, own: Array, column: Array, margin: Any, squared: bool, losses: Array
) -> None:
    """losses = the sums of max(z - own + margin, 0), or of its squares, without the target's."""
    wide()
    total, zero, v = lanes(1.0), lanes(margin), lanes(margin)
    for j in range(n):
        hinges_of(at + j * step, own, margin, v)
        if squared:
            multiplied(v, v, v)
        chosen(zero, column, cast(j, margin), v)
        added(total, v, total)
    store(total, losses)


@leaf
def slopes_across(
    at: int, step: int, n: int, own: Array, column: Array, margin: Any, squared: bool, rates: Array, o: int,
    o_step: int, pull: Array,
) -> None:
    """o = rates times the derivatives of `sums_across`, 0 for the target; pull = what they sum to."""
    wide()
    total, none, v, slope = lanes(1.0), lanes(margin), lanes(margin), lanes(margin)
    for j in range(n):
        hinges_of(at + j * step, own, margin, v)
        if squared:
            added(v, v, slope)
            multiplied(slope, rates, slope)
        else:
            store(rates, slope)
            chosen(none, v, none[0], slope)
        chosen(none, column, cast(j, margin), slope)
        added(total, slope, total)
        store(slope, view(o + j * o_step, LANES, margin))
    store(total, pull)


@leaf
def largest_across(
    at: int, step: int, n: int, own: Array, column: Array, margin: Any, losses: Array, peak: Array
) -> None:
    """losses = max(the largest score but the target's - own + margin, 0); `peak` is the first such column."""
    wide()
    low, top, where = lanes(margin), lanes(margin), lanes(margin)
    odd, excess, zero = lanes(margin), lanes(1.0), cast(0.0, margin)
    lower(low)
    lower(top)
    for j in range(n):
        z, gone = lanes(margin), lanes(margin)
        store(view(at + j * step, LANES, margin), z)
        chosen(low, column, cast(j, margin), z)
        subtracted(z, z, gone)
        risen(z, z, cast(j, margin), top, top, where)
        for k in range(LANES):
            odd[k] += gone[k] if z[k] != z[k] else zero  # NaN, which `risen` passes over
    for k in range(LANES):
        above = np.float64(((top[k] + odd[k]) - own[k]) + margin)
        excess[k] = 0.0 if above <= 0.0 else above
    store(excess, losses)
    store(where, peak)


@leaf
def write_largest(
    n: int, y: Array, peak: Array, losses: Array, rates: Array, o: int, o_step: int, like: Any
) -> None:
    """o = the gradients of `largest_across` times `rates`."""
    b, nothing = itemsize(like), lanes(like)
    for j in range(n):
        store(nothing, view(o + j * o_step, LANES, like))
    for k in range(LANES):
        if losses[k] > 0.0:
            view(o + int(peak[k]) * o_step + k * b, 1, like)[0] = rates[k]
            view(o + y[k] * o_step + k * b, 1, like)[0] = -rates[k]


# ---- kernel ---------------------------------------------------------------------------------
@kernel
def hinges_across(
    w: int, workers: int, first: int, last: int, columns: int, inner: int, size: int,
    work: int, stride: int, rate: float, maxima: Array, parts: Array, kept: Array,
    apart: int, margin: float, kind: int, x: int, xg_at: int, y: Array, each: Array, losses: Array,
    wanted: int, out: int, og_at: int, streamed: int,
) -> None:
    """losses[i] by `kind` for rows and targets y, 0 where those are negative; where `wanted` their gradients
    times each[i].
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    like = maxima[0, 0, 0]
    xg, og, b = blocks.geometry(xg_at), blocks.geometry(og_at), itemsize(maxima[0, 0, 0])
    mine, bound = work + w * stride, cast(margin, like)
    tile, o = across.tile_of(mine, columns, size, like)
    if columns == 1:  # the largest of none is no number, their sum is 0
        kind = SUM
    lines = across.begin_lines(mine + stride, columns, streamed)
    targets, own, column = lanes(np.int64(0)), lanes(like), lanes(like)
    rates, peak, sums, pull = lanes(like), lanes(like), lanes(0.0), lanes(0.0)
    for task in blocks.share(w, workers, first, last):
        i, count, rest = across.batch(task, inner, size)
        at, step = products.fetch(x, xg, i, columns, count, size, rest, apart, tile, mine, like)
        after = across.after(at, step, tile, blocks.row_address(x, xg, i), xg, columns, size, like)
        for s in range(0, count, LANES):
            some, z, to = min(LANES, count - s), at + s * b, o + s * b
            rows_across(y, each, i + s, some, targets, rates)
            begin_across(z, step, columns, targets, (after[0] + s * b, after[1]), own, column)
            if kind == LARGEST:
                largest_across(z, step, columns, own, column, bound, sums, peak)
            else:
                sums_across(z, step, columns, own, column, bound, kind == SQUARES, sums)
            losses_across(sums, column, i + s, some, losses)
            if not wanted:
                continue
            if kind == LARGEST:
                write_largest(columns, targets, peak, sums, rates, to, size * b, like)
            else:
                slopes_across(
                    z, step, columns, own, column, bound, kind == SQUARES, rates, to, size * b, pull
                )
                for k in range(some):
                    if targets[k] >= 0:
                        view(to + targets[k] * size * b + k * b, 1, like)[0] = cast(-pull[k], like)
            for k in range(some):
                if targets[k] < 0 or sums[k] != sums[k]:
                    none = cast(0.0 if targets[k] < 0 else np.nan, like)
                    for j in range(columns):
                        view(to + j * size * b + k * b, 1, like)[0] = none
        if wanted:
            products.deliver(o, i, columns, count, size, apart, mine, out, og, streamed, lines, like)
    across.end_lines(lines, columns, streamed)


def run(
    kind: int, margin: float, x: int, xl: Layout, y: Array, rates: Array, losses: Array, wanted: int,
    out: int, lies: Layout, streamed: int, compute: np.dtype[Any],
) -> bool:
    """Write the losses of rows at x, and where `wanted` their gradients at `out`, if rows are so short."""
    plan, apart = products.plan_of([xl, lies], 1.0, compute, 0)
    if plan is None:
        return False
    plan.run(
        hinges_across, apart, margin, kind, x, xl.geometry, y, rates, losses, wanted, out, lies.geometry,
        streamed,
    )
    return True
