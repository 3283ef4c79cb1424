"""Drivers for element-wise operations: from a formula of one number to kernels over any array.

A formula is an `@inline` function from x to (value, slope). `Pointwise` binds it into two kernels,
one of values and one of slopes times a vector; each throws away the half it does not need, and LLVM
drops its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from fastloss._engine import arrays, blocks, launch
from fastloss._engine.arrays import DIRECT, STRIDE, Array
from fastloss._engine.jit import bound, inline, leaf
from fastloss._engine.kernels import Kernel, kernel
from fastloss._engine.vector import LANES, lanes, store, view, wide

Formula = Callable[[Any], Any]


@inline
def formula(x: Any) -> Any:
    """Stands for the formula that `Pointwise` binds in its place."""
    return x, x


def values(x: Array, o: Array) -> None:
    """O = f(x)."""
    wide()
    for j in range(0, x.size, LANES):
        part = x[j : j + LANES]
        v = lanes(x[0])
        for k in range(LANES):
            v[k] = formula(part[k])[0]
        store(v, o[j : j + LANES])


def products(x: Array, t: Array, o: Array) -> None:
    """O = f'(x) t."""
    wide()
    for j in range(0, x.size, LANES):
        left, right = x[j : j + LANES], t[j : j + LANES]
        v = lanes(x[0])
        for k in range(LANES):
            v[k] = formula(left[k])[1] * right[k]
        store(v, o[j : j + LANES])


def map_values(
    w: int, workers: int, first: int, last: int, columns: int, work: int, stride: int, zero: Any,
    x: int, xg_at: int, out: int, og_at: int, streamed: int,
) -> None:
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    count = blocks.segments(columns)
    xg, og = blocks.geometry(xg_at), blocks.geometry(og_at)
    mine = work + w * stride
    x_block = blocks.buffer(mine, blocks.X_BLOCK, zero)
    o_block = blocks.buffer(mine, blocks.O_BLOCK, zero)
    for task in blocks.share(w, workers, first, last):
        i, k = task // count, task % count
        row, to = blocks.row_address(x, xg, i), blocks.row_address(out, og, i)
        for j in range(
            k * blocks.SEGMENT, min((k + 1) * blocks.SEGMENT, columns), blocks.BLOCK
        ):
            m = min(blocks.BLOCK, columns - j)
            part = blocks.block(row, xg, j, m, zero, x_block)
            in_place = og[DIRECT] and m % LANES == 0 and not streamed
            o = view(to + j * og[STRIDE] if in_place else o_block, part.size, zero)
            values(part, o)
            if not in_place:
                blocks.put(o, m, to, og, j, streamed)
    blocks.settle(streamed)


def map_products(
    w: int, workers: int, first: int, last: int, columns: int, work: int, stride: int, zero: Any,
    x: int, xg_at: int, t: int, tg_at: int, out: int, og_at: int, streamed: int,
) -> None:
    streamed = blocks.past_cache(lanes(np.int64(0)), streamed)
    count = blocks.segments(columns)
    xg, tg, og = blocks.geometry(xg_at), blocks.geometry(tg_at), blocks.geometry(og_at)
    mine = work + w * stride
    x_block = blocks.buffer(mine, blocks.X_BLOCK, zero)
    t_block = blocks.buffer(mine, blocks.T_BLOCK, zero)
    o_block = blocks.buffer(mine, blocks.O_BLOCK, zero)
    for task in blocks.share(w, workers, first, last):
        i, k = task // count, task % count
        row, other = blocks.row_address(x, xg, i), blocks.row_address(t, tg, i)
        to = blocks.row_address(out, og, i)
        for j in range(
            k * blocks.SEGMENT, min((k + 1) * blocks.SEGMENT, columns), blocks.BLOCK
        ):
            m = min(blocks.BLOCK, columns - j)
            part = blocks.block(row, xg, j, m, zero, x_block)
            beside = blocks.block(other, tg, j, m, zero, t_block)
            in_place = og[DIRECT] and m % LANES == 0 and not streamed
            o = view(to + j * og[STRIDE] if in_place else o_block, part.size, zero)
            products(part, beside, o)
            if not in_place:
                blocks.put(o, m, to, og, j, streamed)
    blocks.settle(streamed)


class Pointwise:
    """A formula's two kernels: values, and slopes times a vector."""

    def __init__(self, formula: Formula) -> None:
        name = formula.__name__
        self.values = self._kernel(map_values, name, values, formula)
        self.products = self._kernel(map_products, name, products, formula)

    @staticmethod
    def _kernel(
        driver: Callable[..., None], name: str, loop: Callable[..., None], formula: Formula
    ) -> Kernel:
        inner = leaf(bound(loop, f"{name}_{loop.__name__}", formula=formula))
        return kernel(bound(driver, f"{name}_{driver.__name__}", **{loop.__name__: inner}))


class BoundPointwise:
    """An element-wise operation and its checked argument."""

    def __init__(self, kernels: Pointwise, x: Any, out: Array | None) -> None:
        self.kernels, self.out = kernels, out
        self.x = arrays.real(x, "x")
        self.dtype = arrays.result_type(self.x)
        self.compute = arrays.upcast(self.dtype)

    def value(self) -> Any:
        return self._run(self.kernels.values, (), self.out)

    def jvp(self, tangent: Any, out: Array | None) -> Any:
        return self._product(tangent, "tangent", out)

    def vjp(self, cotangent: Any, out: Array | None) -> Any:
        return self._product(cotangent, "cotangent", out)

    def _product(self, vector: Any, name: str, out: Array | None) -> Any:
        t = arrays.same_shape(arrays.real(vector, name), self.x.shape, name, "x")
        return self._run(self.kernels.products, (t,), out)

    def _run(self, which: Kernel, others: tuple[Array, ...], out: Array | None) -> Any:
        result = arrays.output(out, self.x.shape, self.dtype)
        inputs = [arrays.apart(a, result) if out is not None else a for a in (self.x, *others)]
        operands = [*inputs, result]
        # One row where every array lies in one piece, else a row along the last axis.
        axes = tuple(range(self.x.ndim))
        layouts = [arrays.layout(a, axes, self.compute) for a in operands]
        if None in layouts:
            layouts = [arrays.layout(a, axes[-1:], self.compute) for a in operands]
        if result.size:
            found = cast("list[arrays.Layout]", layouts)
            n, columns = found[0].rows, found[0].columns
            zero = self.compute.type(0)
            tasks = n * -(-columns // blocks.SEGMENT)
            workers = launch.workers(result.size, tasks)
            scratch = blocks.Scratch(workers, 3 * blocks.BLOCK * zero.itemsize)
            args: list[Any] = []
            for array, lies in zip(operands, found, strict=True):
                args += [arrays.address(array), lies.geometry]
            streamed = int(out is not None and result.nbytes >= blocks.STREAMED)
            launch.run(
                which, workers, self.compute.char, tasks, min(columns, blocks.SEGMENT),
                (columns, scratch.address, scratch.stride, zero, *args, streamed),
            )
        return arrays.given_or_scalar(result, out)
