"""Drivers for formulas of two numbers summed over rows: from a formula to a kernel over any arrays.

`Terms` binds a formula into a kernel of one block, whatever the shape. The kernels of arrays, `reduce_terms`
and `map_terms`, are one each for all formulas: they call theirs by its address. Terms are made of up to
BLOCK numbers at once, those of several short rows together; then each row's are added in float64, element
j of the row in lane j mod LANES; of longer rows they are added as they are made. So a row's bits depend on
its own numbers and its length alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays, blocks, launch, strips
from fastloss._engine.arrays import Array, Axis
from fastloss._engine.blocks import SEGMENT
from fastloss._engine.elementwise import (
    BLOCK,
    STRIP,
    ahead_of,
    leaves_of,
    losses,
    made,
    piece,
    place,
    scatter,
    summed,
)
from fastloss._engine.jit import bound, inline, leaf
from fastloss._engine.kernels import Kernel, call, kernel
from fastloss._engine.leaves import add_lanes, fold_sum, scale
from fastloss._engine.vector import (
    LANES,
    added,
    bits,
    fold,
    itemsize,
    lanes,
    note,
    ordinary,
    part,
    view,
    wide,
)

Formula = Callable[[Any, Any], Any]

# Parts of a worker's scratch, a block each.
P_BLOCK, Q_BLOCK, O_BLOCK, BLOCKS = 0, 1, 2, 3
# Where the arguments of a formula's kernel lie in their block, eight bytes each.
AT_P, AT_Q, AT_N, AT_LIKE, AT_O, AT_AHEAD, AT_Q_AHEAD, AT_WANTED, PLACES = range(9)
# What is made of numbers: their terms; the sum of those, of numbers that may all be ordinary; the sum.
TERMS, GUESS, SUM = 0, 1, 2


@inline
def formula(p: Any, q: Any) -> Any:
    """Stands for the formula that `Terms` binds in its place."""
    return p


@inline
def plain(p: Any, q: Any) -> Any:
    """Stands for the formula of ordinary numbers, likewise."""
    return p


def of_pair(p: Any, q: Any, _a: Any, _b: Any) -> Any:
    """A formula as those of element-wise losses are."""
    return (formula(p, q),)


# ---- leaves ---------------------------------------------------------------------------------
@leaf
def row_sum(o: Array, first: int, n: int) -> float:
    """The sum of n elements from `first` on, in float64; o goes on for LANES more, whatever they hold."""
    wide()
    total = lanes(1.0)
    over = n % LANES
    for j in range(first, first + n - over, LANES):
        added(total, part(o, j), total)
    if over:
        q = part(o, first + n - over)
        for k in range(LANES):
            total[k] += np.float64(q[k]) if k < over else 0.0
    return float(fold(total))


def summed_if_ordinary(p: Array, q: Array) -> Any:
    """(the sum of the terms of whole strips, whether all numbers are ordinary); if not, the sum of anything.

    By a formula that asks nothing of its numbers: a comparison and a select for each of them take longer
    than two instructions that note what to ask of all in the end.
    """
    wide()
    total, low, seen = lanes(1.0), lanes(1.0), lanes(bits(p[0]))
    for j in range(0, p.size, STRIP):
        left, right, v = part(p, j), part(q, j), lanes(p[0])
        left_2, right_2, v_2 = part(p, j + LANES), part(q, j + LANES), lanes(p[0])
        note(seen, left)
        note(seen, right)
        note(seen, left_2)
        note(seen, right_2)
        for k in range(LANES):
            v[k] = plain(left[k], right[k])
            v_2[k] = plain(left_2[k], right_2[k])
        add_lanes(v, total, low)
        add_lanes(v_2, total, low)
    return fold_sum(total, low, p[0]), ordinary(seen, p)


# ---- kernels --------------------------------------------------------------------------------
def of_terms(
    w: int, workers: int, first: int, last: int, p: int, q: int, n: int, like: Any, o: int, ahead: int,
    q_ahead: int, wanted: int,
) -> None:
    """What a formula makes of the n numbers, in whole vectors, that lie at p and q; of whole strips their sum
    alone, in float64, if that is `wanted`, and what to want next: SUM where numbers were not ordinary.
    """
    if wanted == TERMS:
        made(p, q, n, like, like, o, ahead, q_ahead)
        return
    ps, qs, sums = view(p, n, like), view(q, n, like), view(o, 2, 1.0)
    if wanted == GUESS:
        sums[0], guessed = summed_if_ordinary(ps, qs)
        if guessed:
            sums[1] = GUESS
            return
    sums[0], sums[1] = summed(ps, qs, like, like), SUM


@inline
def make(
    formula: int, x: int, xg: Array, xc: int, y: int, yg: Array, yc: int, f: int, n: int, mine: int, to: int,
    wanted: int, like: Any,
) -> None:
    """The terms of elements f to f + n - 1 of two arrays, padded, to memory at `to`; or what is `wanted`."""
    block = BLOCK * itemsize(like)
    at = mine + BLOCKS * block + LANES * itemsize(like)
    integers = view(at, PLACES, np.int64(0))
    p = piece(x, xg, xc, f, n, mine + P_BLOCK * block, like)
    integers[AT_P], integers[AT_N], integers[AT_O] = p.ctypes.data, p.size, to
    integers[AT_AHEAD], integers[AT_WANTED] = ahead_of(x, xg, xc, f, p), wanted
    integers[AT_Q], integers[AT_Q_AHEAD] = integers[AT_P], integers[AT_AHEAD]
    if y:
        q = piece(y, yg, yc, f, n, mine + Q_BLOCK * block, like)
        integers[AT_Q], integers[AT_Q_AHEAD] = q.ctypes.data, ahead_of(y, yg, yc, f, q)
    call(formula, at, 0, 1, 1, 0, 1)


@kernel
def reduce_terms(
    w: int, workers: int, first: int, last: int, rows: int, columns: int, group: int, work: int, stride: int,
    formula: int, zero: Any, sums: Array, x: int, xg_at: int, xc: int, y: int, yg_at: int, yc: int,
) -> None:
    """sums[i, k] = the sum of the terms of segment k of row i. A task is a segment, or where rows are no
    longer than a block `group` rows. y is 0 where there is one array.
    """
    xg, yg = blocks.geometry(xg_at), blocks.geometry(yg_at)
    mine = work + w * stride
    to = mine + O_BLOCK * BLOCK * itemsize(zero)
    terms = view(to, BLOCK + LANES, zero)
    for task in blocks.share(w, workers, first, last):
        if columns <= BLOCK:
            i0, i1 = task * group, min((task + 1) * group, rows)
            make(formula, x, xg, xc, y, yg, yc, i0 * columns, (i1 - i0) * columns, mine, to, TERMS, zero)
            for i in range(i0, i1):
                sums[i, 0] = row_sum(terms, (i - i0) * columns, columns)
        else:
            i, k = blocks.segment_of(task, workers, rows, sums.shape[1])
            total, alone = 0.0, GUESS
            for j in range(k * SEGMENT, min((k + 1) * SEGMENT, columns), BLOCK):
                n = min(BLOCK, columns - j)
                wanted = alone if n % STRIP == 0 else TERMS
                make(formula, x, xg, xc, y, yg, yc, i * columns + j, n, mine, to, wanted, zero)
                if wanted == TERMS:
                    total += row_sum(terms, 0, n)
                else:
                    total += view(to, 2, 1.0)[0]
                    alone = int(view(to, 2, 1.0)[1])
            sums[i, k] = total


@kernel
def map_terms(
    w: int, workers: int, first: int, last: int, size: int, work: int, stride: int, formula: int, unit: Any,
    x: int, xg_at: int, xc: int, out: int, og_at: int, oc: int, apart: int, streamed: int,
) -> None:
    """out = the terms of x times `unit`; not made where they belong where x is there, or they are
    streamed: `apart`.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    xg, og = blocks.geometry(xg_at), blocks.geometry(og_at)
    mine = work + w * stride
    scratch = mine + O_BLOCK * BLOCK * itemsize(unit)
    for task in blocks.share(w, workers, first, last):
        for f in range(task * SEGMENT, min((task + 1) * SEGMENT, size), BLOCK):
            n = min(BLOCK, size - f)
            o = place(out, og, oc, f, n, apart, scratch, unit)
            make(formula, x, xg, xc, 0, xg, xc, f, n, mine, o.ctypes.data, TERMS, unit)
            scale(o, unit, o)
            if o.ctypes.data == scratch:
                scatter(o, n, out, og, oc, f, streamed)
    blocks.settle(streamed)


class Terms:
    """A formula's kernel, of one block; `ordinary` gives the same of ordinary numbers."""

    def __init__(self, formula: Formula, ordinary: Formula) -> None:
        name = formula.__name__
        pair = inline(bound(of_pair, f"{name}_{of_pair.__name__}", formula=formula))
        meanings = leaves_of(pair, name, losses, summed)
        guess = summed_if_ordinary
        meanings[guess.__name__] = leaf(bound(guess, f"{name}_{guess.__name__}", plain=ordinary))
        self._kernel: Kernel = kernel(bound(of_terms, f"{name}_{of_terms.__name__}", **meanings))

    def address(self, like: np.floating[Any]) -> int:
        """Where it is entered, compiled for the type of `like`."""
        return launch.address_of(self._kernel, like.dtype.char, (0, 0, 0, like, 0, 0, 0, 0))


# ---- bound to its arguments -----------------------------------------------------------------
def unit_of(base: float | None) -> float:
    """Nats in the unit of logarithms to a base."""
    if base is None:
        return 1.0
    number = arrays.number_of(base, "base")
    if not (math.isfinite(number) and number > 0.0 and number != 1.0):
        raise ValueError(f"base must be finite, > 0 and not 1, got {base!r}")
    return math.log(number)


def reduced(values: Array, shape: tuple[int, ...], reduction: str, unit: float, dtype: np.dtype[Any]) -> Any:
    """Float64 results of rows, in nats, as a call returns them."""
    if reduction == "none":
        return arrays.given_or_scalar((values / unit).astype(dtype).reshape(shape), None)
    total = float(values.sum()) / unit
    if reduction == "mean":
        total = total / values.size if values.size else math.nan
    return dtype.type(total)


def with_classes(array: Array, axes: tuple[int, ...], name: str) -> None:
    if not math.prod(array.shape[a] for a in axes):
        raise ValueError(f"{name} of shape {array.shape} has no classes along axis {axes}")


class BoundRowSums:
    """Sums of terms of rows, of one array or of two of one shape."""

    def __init__(
        self, terms: Terms, p: ArrayLike, q: ArrayLike | None, axis: Axis, base: float | None, reduction: str
    ) -> None:
        self.terms = terms
        self.p = arrays.real(p, "p")
        self.q = None
        if q is not None:
            self.q = arrays.same_shape(arrays.real(q, "q"), self.p.shape, "q", "p")
        self.axes = arrays.axes_of(axis, self.p.ndim, "p")
        self.unit, self.reduction = unit_of(base), arrays.reduction_of(reduction)
        with_classes(self.p, self.axes, "p")
        self.dtype = arrays.upcast(arrays.result_type(self.p))

    def value(self) -> Any:
        shape = arrays.without(self.p.shape, self.axes)
        rows = math.prod(shape)
        columns = math.prod(self.p.shape[a] for a in self.axes)
        sums = np.zeros((rows, -(-columns // SEGMENT)))
        if rows:
            zero = self.dtype.type(0)
            group = _group(columns)
            tasks = sums.size if columns > BLOCK else -(-rows // group)
            workers = launch.workers(self.p.size, tasks)
            scratch = _scratch(workers, self.dtype)
            p, x = self._place(self.p)
            q, y = (None, x) if self.q is None else self._place(self.q)
            args = (
                rows, columns, group, scratch.address, scratch.stride, self.terms.address(zero), zero, sums,
                arrays.address(p), x.geometry, x.columns,
                0 if q is None else arrays.address(q), y.geometry, y.columns,
            )
            sides = strips.sides_of([(8, 9, p, x), (11, 12, q, y)], [], self.dtype, BLOCK + 1)
            strips.run(
                reduce_terms, workers, self.dtype, tasks, min(columns, SEGMENT) * group, args, sides
            )
        with np.errstate(all="ignore"):  # infinities and NaN are answers here
            return reduced(sums.sum(axis=1), shape, self.reduction, self.unit, self.dtype)

    def _place(self, array: Array) -> tuple[Array, arrays.Layout]:
        """An array, or its copy with its columns together; its layout: as one row where one walks it all."""
        every = tuple(range(array.ndim))
        found = None
        if self.axes == every[array.ndim - len(self.axes) :]:
            found = arrays.layout(array, every, self.dtype)
        return arrays.operand(array, self.axes, self.dtype) if found is None else (array, found)


class BoundTerms:
    """Terms of one array, element by element, in a unit."""

    def __init__(self, terms: Terms, p: ArrayLike, base: float | None, out: Array | None) -> None:
        self.terms, self.out, self.unit = terms, out, unit_of(base)
        self.p = arrays.real(p, "p")
        self.dtype = arrays.result_type(self.p)
        self.compute = arrays.upcast(self.dtype)

    def value(self) -> Any:
        result = arrays.output(self.out, self.p.shape, self.dtype)
        p = self.p if self.out is None else arrays.apart(self.p, result)
        if result.size:
            zero = self.compute.type(0)
            tasks = -(-result.size // SEGMENT)
            workers = launch.workers(result.size, tasks)
            scratch = _scratch(workers, self.compute)
            streamed = 0 if self.out is None else blocks.streamed(result, p)
            with np.errstate(all="ignore"):  # a base may be so near 1
                unit = self.compute.type(1.0 / self.unit)
            launch.run(
                map_terms, workers, self.compute.char, tasks, min(result.size, SEGMENT),
                (result.size, scratch.address, scratch.stride, self.terms.address(zero), unit,
                 *self._place(p), *self._place(result), int(streamed or p is result), streamed),
            )
        return arrays.given_or_scalar(result, self.out)

    def _place(self, array: Array) -> list[Any]:
        axes = tuple(range(array.ndim))
        found = arrays.layout(array, axes, self.compute)
        if found is None:
            found = cast("arrays.Layout", arrays.layout(array, axes[-1:], self.compute))
        return [arrays.address(array), found.geometry, max(1, found.columns)]


def _group(columns: int) -> int:
    """How many rows share a block: where it can be, so many that they fill whole vectors."""
    if columns > BLOCK:
        return 1
    even = LANES // math.gcd(columns, LANES)
    most = BLOCK // columns
    return most // even * even or most


def _scratch(workers: int, dtype: np.dtype[Any]) -> blocks.Scratch:
    return blocks.Scratch(workers, (BLOCKS * BLOCK + LANES) * dtype.itemsize + PLACES * 8)
