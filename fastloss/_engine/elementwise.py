"""Drivers for element-wise losses: from a formula of two numbers to a kernel over any arrays.

A formula is an `@inline` function of z (what the gradient is taken of), y and two options a and b to
(loss, slope, curvature). `Elementwise` binds it into four leaves, each of which throws away what it does
not need, and these into a kernel of one block. The kernel of arrays, `reduce_blocks`, is one for all
formulas: it calls theirs by its address. Losses are summed by segments of the flat index, which depend on
the size alone: bits do not depend on layout or threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays, blocks, launch
from fastloss._engine.arrays import DIRECT, STRIDE, Array
from fastloss._engine.blocks import AHEAD, SEGMENT
from fastloss._engine.jit import bound, inline, leaf
from fastloss._engine.kernels import Kernel, call, kernel
from fastloss._engine.leaves import add_lanes, dot_sum, fold_sum, sum_of
from fastloss._engine.vector import (
    LANES,
    itemsize,
    lanes,
    multiplied,
    part,
    prefetch,
    scaled,
    store,
    view,
    wide,
)
from fastloss._engine.vector import cast as to_type

Formula = Callable[[Any, Any, Any, Any], Any]

# What is made: losses, their gradient too, the diagonal of their Hessian too; the sum of losses alone, or
# with their gradient.
VALUE, GRAD, HESS, SUM, SUM_GRAD = 0, 1, 2, 3, 4
# Numbers that a formula is called for at once: some of three arrays stay in L1.
BLOCK = 4096
# Numbers between these loops and their prefetch, beside AHEAD: they take less time than rows' loops.
FURTHER = 4096
# Numbers that are asked for at once.
NEXT = 256
# Numbers whose losses are summed before they leave registers.
STRIP = 2 * LANES
# Parts of a worker's scratch, a block each.
Z_BLOCK, Y_BLOCK, S_BLOCK, O_BLOCK, G_BLOCK, H_BLOCK = 0, 1, 2, 3, 4, 5
BLOCKS = 6


@inline
def formula(z: Any, y: Any, a: Any, b: Any) -> Any:
    """Stands for the formula that `Elementwise` binds in its place."""
    return z, y, a


@inline
def flat(d: Any) -> Any:
    """0, or NaN where d is: the curvature of a line."""
    return to_type(0.0, d) if d == d else d


@inline
def sign(d: Any) -> Any:
    """-1, 0 or 1; NaN where d is."""
    return to_type(1.0, d) if d > 0 else (to_type(-1.0, d) if d < 0 else d)


# ---- leaves ---------------------------------------------------------------------------------
def losses(z: Array, y: Array, a: Any, b: Any, o: Array) -> None:
    """o = the losses. In one plain loop, and nothing else: of the shortest formulas LLVM makes no vectors
    otherwise.
    """
    wide()
    for j in range(z.size):
        o[j] = formula(z[j], y[j], a, b)[0]


@leaf
def ask(z: Array, y: Array, ahead: int, y_ahead: int) -> None:
    """Fetch what lies so far ahead of z and y."""
    for j in range(0, z.size, LANES):
        prefetch(z, j + ahead)
        prefetch(y, j + y_ahead)


def made(z: int, y: int, n: int, a: Any, b: Any, o: int, ahead: int, y_ahead: int) -> None:
    """The losses of the n numbers at z and y, to o."""
    size = itemsize(a)
    for j in range(0, n, NEXT):
        m = min(NEXT, n - j)
        zs, ys = view(z + j * size, m, a), view(y + j * size, m, a)
        ask(zs, ys, ahead, y_ahead)
        losses(zs, ys, a, b, view(o + j * size, m, a))


def summed(z: Array, y: Array, a: Any, b: Any) -> Any:
    """The sum of the losses of whole strips, as `sum_of` makes it.

    Two times LANES at once: of fewer, LLVM makes no vectors for the shortest formulas. Nothing is asked for
    ahead: the processor finds two streams by itself, and longer formulas gain nothing.
    """
    wide()
    total, low = lanes(1.0), lanes(1.0)
    for j in range(0, z.size, STRIP):
        left, right, v = part(z, j), part(y, j), lanes(a)
        left_2, right_2, v_2 = part(z, j + LANES), part(y, j + LANES), lanes(a)
        for k in range(LANES):
            v[k] = formula(left[k], right[k], a, b)[0]
            v_2[k] = formula(left_2[k], right_2[k], a, b)[0]
        add_lanes(v, total, low)
        add_lanes(v_2, total, low)
    return fold_sum(total, low, a)


def slopes(
    z: Array, y: Array, a: Any, b: Any, rate: Any, o: Array, g: Array, ahead: int, y_ahead: int
) -> None:
    """The losses, and g = their slopes times `rate`."""
    wide()
    for j in range(0, z.size, LANES):
        prefetch(z, j + ahead)
        prefetch(y, j + y_ahead)
        left, right, v, d = part(z, j), part(y, j), lanes(a), lanes(a)
        for k in range(LANES):
            v[k], slope, _ = formula(left[k], right[k], a, b)
            d[k] = slope * rate
        store(v, part(o, j))
        store(d, part(g, j))


def slopes_summed(
    z: Array, y: Array, a: Any, b: Any, rate: Any, g: Array, ahead: int, y_ahead: int
) -> Any:
    """`summed`, and g = the slopes times `rate`."""
    wide()
    total, low = lanes(1.0), lanes(1.0)
    for j in range(0, z.size, LANES):
        prefetch(z, j + ahead)
        prefetch(y, j + y_ahead)
        left, right, v, d = part(z, j), part(y, j), lanes(a), lanes(a)
        for k in range(LANES):
            v[k], slope, _ = formula(left[k], right[k], a, b)
            d[k] = slope * rate
        add_lanes(v, total, low)
        store(d, part(g, j))
    return fold_sum(total, low, a)


def curves(
    z: Array, y: Array, a: Any, b: Any, rate: Any, o: Array, g: Array, h: Array, ahead: int, y_ahead: int
) -> None:
    """The losses, slopes and curvatures, the last two times `rate`."""
    wide()
    for j in range(0, z.size, LANES):
        prefetch(z, j + ahead)
        prefetch(y, j + y_ahead)
        left, right, v, d, c = part(z, j), part(y, j), lanes(a), lanes(a), lanes(a)
        for k in range(LANES):
            v[k], slope, curve = formula(left[k], right[k], a, b)
            d[k], c[k] = slope * rate, curve * rate
        store(v, part(o, j))
        store(d, part(g, j))
        store(c, part(h, j))


@leaf
def weighted(x: Array, s: Array) -> None:
    """x *= s."""
    wide()
    for j in range(0, x.size, LANES):
        multiplied(part(x, j), part(s, j), part(x, j))


@leaf
def lifted(s: Array, lift: Any) -> None:
    """s *= lift."""
    wide()
    for j in range(0, s.size, LANES):
        scaled(part(s, j), lift, part(s, j))


# ---- pieces of arrays -----------------------------------------------------------------------
@inline
def piece(base: int, g: Array, columns: int, f: int, n: int, scratch: int, zero: Any) -> Any:
    """Elements f to f + n - 1 of an array of rows of `columns`, in C order, padded with 0: where they lie, or
    in scratch memory.
    """
    i, j = f // columns, f % columns
    if j + n <= columns:
        return blocks.block(blocks.row_address(base, g, i), g, j, n, zero, scratch)
    gather(base, g, columns, f, n, scratch, zero)
    return view(scratch, blocks.padded(n), zero)


@leaf
def gather(base: int, g: Array, columns: int, f: int, n: int, scratch: int, zero: Any) -> None:
    """Elements of several rows, padded, to scratch memory."""
    to = view(scratch, blocks.padded(n), zero)
    k = 0
    while k < n:
        i, j = (f + k) // columns, (f + k) % columns
        m = min(n - k, columns - j)
        blocks.load(blocks.row_address(base, g, i) + j * g[STRIDE], g, m, to[k : k + m])
        k += m
    blocks.pad(to, n, zero)


@leaf
def scatter(results: Array, n: int, base: int, g: Array, columns: int, f: int, streamed: int) -> None:
    """Write elements f to f + n - 1 of an output."""
    k = 0
    while k < n:
        i, j = (f + k) // columns, (f + k) % columns
        m = min(n - k, columns - j)
        blocks.put(results[k:], m, blocks.row_address(base, g, i), g, j, streamed)
        k += m


@inline
def place(base: int, g: Array, columns: int, f: int, n: int, apart: int, scratch: int, like: Any) -> Any:
    """Where n results are made: where they belong, if they lie there in vectors and need not be `apart`."""
    to = base + f * g[STRIDE]
    there = g[DIRECT] and f % columns + n <= columns and n % LANES == 0 and not apart
    if there and f >= columns:
        to = blocks.row_address(base, g, f // columns) + f % columns * g[STRIDE]
    return view(to if there else scratch, blocks.padded(n), like)


@inline
def ahead_of(base: int, g: Array, columns: int, f: int, x: Array) -> int:
    """How far ahead of x to prefetch an array that lies in one row."""
    return blocks.ahead_of(base, g, f, x) + FURTHER if f < columns else AHEAD


# ---- kernels --------------------------------------------------------------------------------
def of_block(
    w: int, workers: int, first: int, last: int, z: int, y: int, n: int, a: Any, b: Any, rate: Any,
    o: int, g: int, h: int, ahead: int, y_ahead: int, wanted: int,
) -> None:
    """By `wanted` what a formula makes of the n numbers, in whole vectors, that lie at z and y. A sum, of
    whole strips, is left at o in float64.
    """
    zs, ys, os = view(z, n, a), view(y, n, a), view(o, n, a)
    if wanted == SUM:
        view(o, 1, 1.0)[0] = summed(zs, ys, a, b)
    elif wanted == SUM_GRAD:
        view(o, 1, 1.0)[0] = slopes_summed(zs, ys, a, b, rate, view(g, n, a), ahead, y_ahead)
    elif wanted == VALUE:
        made(z, y, n, a, b, o, ahead, y_ahead)
    elif wanted == GRAD:
        slopes(zs, ys, a, b, rate, os, view(g, n, a), ahead, y_ahead)
    else:
        curves(zs, ys, a, b, rate, os, view(g, n, a), view(h, n, a), ahead, y_ahead)


# Where its arguments lie in their block, eight bytes each.
AT_Z, AT_Y, AT_N, AT_A, AT_B, AT_RATE, AT_O, AT_G, AT_H, AT_AHEAD, AT_Y_AHEAD, AT_WANTED = range(12)


@kernel
def reduce_blocks(
    w: int, workers: int, first: int, last: int, size: int, work: int, stride: int, formula: int, a: Any,
    b: Any, rate: Any, lift: Any, weights: int, wanted: int, sums: Array,
    z: int, zg_at: int, zc: int, y: int, yg_at: int, yc: int, s: int, sg_at: int, sc: int,
    out: int, og_at: int, oc: int, grad: int, gg_at: int, gc: int, hess: int, hg_at: int, hc: int,
    streamed: int,
) -> None:
    """sums[k] = the sum of the losses of segment k; and by `wanted` the gradient and the Hessian's diagonal.
    With `out` the losses themselves, too. `formula` is the address of an `of_block`.
    """
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    zg, yg, sg = blocks.geometry(zg_at), blocks.geometry(yg_at), blocks.geometry(sg_at)
    og, gg, hg = blocks.geometry(og_at), blocks.geometry(gg_at), blocks.geometry(hg_at)
    zero, mine = to_type(0.0, a), work + w * stride
    block = BLOCK * itemsize(a)
    at = mine + BLOCKS * block
    integers, numbers = view(at, 12, np.int64(0)), view(at, 12, 0.0)
    numbers[AT_A], numbers[AT_B], numbers[AT_RATE] = a, b, rate
    integers[AT_O] = mine + O_BLOCK * block
    apart, alone = int(weights or streamed), wanted <= GRAD and not weights and not out
    for task in blocks.share(w, workers, first, last):
        total = 0.0
        for f in range(task * SEGMENT, min((task + 1) * SEGMENT, size), BLOCK):
            n = min(BLOCK, min((task + 1) * SEGMENT, size) - f)
            zb = piece(z, zg, zc, f, n, mine + Z_BLOCK * block, zero)
            yb = piece(y, yg, yc, f, n, mine + Y_BLOCK * block, zero)
            o, sb = view(mine + O_BLOCK * block, zb.size, zero), view(mine + S_BLOCK * block, zb.size, zero)
            if weights:  # before anything is written over them
                gather(s, sg, sc, f, n, mine + S_BLOCK * block, zero)
                lifted(sb, lift)
            gb = hb = o
            if wanted >= GRAD:
                gb = place(grad, gg, gc, f, n, apart, mine + G_BLOCK * block, zero)
            if wanted >= HESS:
                hb = place(hess, hg, hc, f, n, apart, mine + H_BLOCK * block, zero)
            integers[AT_Z], integers[AT_Y], integers[AT_N] = zb.ctypes.data, yb.ctypes.data, zb.size
            integers[AT_G], integers[AT_H] = gb.ctypes.data, hb.ctypes.data
            integers[AT_AHEAD], integers[AT_Y_AHEAD] = ahead_of(z, zg, zc, f, zb), ahead_of(y, yg, yc, f, yb)
            summed = alone and n % STRIP == 0
            integers[AT_WANTED] = wanted
            if summed:
                integers[AT_WANTED] = SUM if wanted == VALUE else SUM_GRAD
            call(formula, at, 0, 1, 1, 0, 1)
            if wanted >= HESS:
                if weights:
                    weighted(hb, sb)
                if hb.ctypes.data == mine + H_BLOCK * block:
                    scatter(hb, n, hess, hg, hc, f, streamed)
            if wanted >= GRAD:
                if weights:
                    weighted(gb, sb)
                if gb.ctypes.data == mine + G_BLOCK * block:
                    scatter(gb, n, grad, gg, gc, f, streamed)
            if summed:
                total += view(mine + O_BLOCK * block, 1, 1.0)[0]
                continue
            if n < o.size:
                blocks.pad(o, n, zero)
            total += dot_sum(o, 0, sb, 0, zero, 0, 0)[0] if weights else sum_of(o, 0, 0)
            if out:
                if weights:
                    weighted(o, sb)
                scatter(o, n, out, og, oc, f, 0)
        sums[task] = total
    blocks.settle(streamed)


def leaves_of(formula: Formula, name: str, *loops: Callable[..., Any]) -> dict[str, Any]:
    """Leaves that a formula is bound into, by their names; and `made`, of the losses."""
    found = {loop.__name__: leaf(bound(loop, f"{name}_{loop.__name__}", formula=formula)) for loop in loops}
    return found | {"made": leaf(bound(made, f"{name}_made", losses=found["losses"]))}


class Elementwise:
    """A formula's kernel, of one block."""

    def __init__(self, formula: Formula) -> None:
        name = formula.__name__
        meanings = leaves_of(formula, name, losses, summed, slopes, slopes_summed, curves)
        self._kernel: Kernel = kernel(bound(of_block, f"{name}_{of_block.__name__}", **meanings))

    def address(self, like: np.floating[Any]) -> int:
        """Where it is entered, compiled for the type of `like`."""
        return launch.address_of(
            self._kernel, like.dtype.char, (0, 0, 0, like, like, like, 0, 0, 0, 0, 0, 0)
        )


# ---- bound to its arguments -----------------------------------------------------------------
class BoundElementwise:
    """An element-wise loss and its checked arguments."""

    def __init__(
        self,
        loss: Elementwise,
        names: tuple[str, str],
        z: ArrayLike,
        y: ArrayLike | None,
        *,
        a: float = 0.0,
        b: float = 0.0,
        sample_weight: ArrayLike | None = None,
        reduction: str = "sum",
    ) -> None:
        self.loss, self.a, self.b = loss, a, b
        self.z = arrays.real(z, names[0])
        self.y = self.z
        if y is not None:
            self.y = arrays.real(y, names[1])
            if names[1] == "labels" and self.y.dtype.kind == "b":
                raise TypeError("labels has dtype bool; labels are -1 and 1, use np.where(labels, 1, -1)")
            arrays.same_shape(self.y, self.z.shape, names[1], names[0])
        self.reduction = arrays.reduction_of(reduction)
        self.weight: Array | None = None
        if sample_weight is not None:
            self.weight = arrays.same_shape(
                arrays.real(sample_weight, "sample_weight"), self.z.shape, "sample_weight", names[0]
            )
        self.dtype = arrays.result_type(self.z)
        self.compute = arrays.upcast(self.dtype)

    def value(self) -> Any:
        return self._run(VALUE)

    def value_and_grad(self, out: Array | None) -> tuple[Any, Array]:
        grad = arrays.output(out, self.z.shape, self.dtype)
        return self._run(GRAD, [(out, grad)]), arrays.given_or_scalar(grad, out)

    def value_grad_hess(
        self, out: tuple[Array | None, Array | None] | None
    ) -> tuple[Any, Array, Array]:
        mine = arrays.pair_of(out)
        grad = arrays.output(mine[0], self.z.shape, self.dtype, "out[0]")
        hess = arrays.output(mine[1], self.z.shape, self.dtype, "out[1]")
        if arrays.overlap(grad, hess):
            raise ValueError("out[0] and out[1] overlap; the two results need two arrays")
        value = self._run(HESS, [(mine[0], grad), (mine[1], hess)])
        return value, arrays.given_or_scalar(grad, mine[0]), arrays.given_or_scalar(hess, mine[1])

    def _run(self, wanted: int, outputs: list[tuple[Array | None, Array]] | None = None) -> Any:
        """The value; the outputs, each with what the caller gave for it, are written."""
        written = [array for _, array in outputs or ()]
        inputs = [self.z, self.y, self.z if self.weight is None else self.weight]
        for given, array in outputs or ():
            if given is not None:
                inputs = [arrays.apart(each, array) for each in inputs]
        size, row_dtype = self.z.size, self.compute
        each = np.empty(self.z.shape, row_dtype) if self.reduction == "none" else None
        divisor, lift = self._divisor()
        tasks = -(-size // SEGMENT)
        sums = np.zeros(tasks)
        if size:
            zero = self.compute.type
            workers = launch.workers(size, tasks)
            scratch = blocks.Scratch(workers, BLOCKS * BLOCK * self.compute.itemsize + 12 * 8)
            streamed = int(
                any(given is not None and array.nbytes >= blocks.STREAMED and array is not self.z
                    for given, array in outputs or ())
            )
            args: list[Any] = [
                size, scratch.address, scratch.stride, self.loss.address(zero(0)), zero(self.a), zero(self.b),
                zero(0.0 if divisor == 0.0 else 1.0 / divisor), zero(lift), int(self.weight is not None),
                wanted, sums,
            ]
            absent = inputs[0]
            args += self._place(inputs[0]) + self._place(inputs[1]) + self._place(inputs[2])
            args += self._place(absent if each is None else each)
            if each is None:
                args[-3] = 0
            for k in range(2):
                args += self._place(written[k] if k < len(written) else absent)
            launch.run(
                reduce_blocks, workers, self.compute.char, tasks, min(size, SEGMENT), (*args, streamed)
            )
        if divisor == 0.0:  # whatever the slopes
            for array in written:
                array[...] = 0
        if each is not None:
            return arrays.given_or_scalar(each, None)
        total = float(sums.sum())
        if self.reduction == "mean":
            total = total / divisor if divisor != 0.0 else np.nan
        return self.compute.type(total)

    def _place(self, array: Array) -> list[Any]:
        """The address, geometry and columns of an array: one row if one stride walks it."""
        axes = tuple(range(array.ndim))
        found = arrays.layout(array, axes, self.compute)
        if found is None:
            found = cast("arrays.Layout", arrays.layout(array, axes[-1:], self.compute))
        return [arrays.address(array), found.geometry, max(1, found.columns)]

    def _divisor(self) -> tuple[float, float]:
        """(what the sum of losses is divided by, 0 where derivatives are to be exactly 0; the power of two
        that weights are multiplied by first, so that the type's smallest numbers are weights like any other).
        """
        if self.weight is None:
            return float(self.z.size) if self.reduction == "mean" else 1.0, 1.0
        if self.reduction != "mean":
            return float(self.weight.any()), 1.0
        total, lift = float(np.sum(self.weight, dtype=np.float64)), 1.0
        if 0.0 < abs(total) < math.inf:
            power = math.frexp(total / self.z.size)[1]
            lift = 2.0 ** -max(-100, min(power, 100)) if abs(power) > 60 else 1.0
        return total * lift, lift
