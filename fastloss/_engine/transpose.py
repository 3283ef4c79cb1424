"""Rows to columns and back, in registers: what a gather and a scatter take eight times as long for.

A block of W rows by W columns is transposed in log2(W) stages, each of which swaps elements between
registers whose numbers differ in one bit (J. O. Eklundh, "A fast computer method for matrix
transposing", 1972). A register holds a cache line, of 16 or 8 numbers; W is that, or 4 for the shortest
rows, and then a register holds pieces of several rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from fastloss._engine.jit import instruction, leaf
from fastloss._engine.vector import (
    LANES,
    itemsize,
    loaded,
    part,
    prefetch,
    stored,
    stored_past,
    view,
    wide,
)

NARROW = 4


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Registers whose pieces of W elements are transposed, W the number of registers."""
    out, lanes, h = list(rows), rows[0].type.count, 1
    while h < len(out):
        for i in (i for i in range(len(out)) if not i & h):
            a, b = out[i], out[i + h]
            out[i] = _shuffle(builder, a, b, [lanes + k - h if k & h else k for k in range(lanes)])
            out[i + h] = _shuffle(builder, a, b, [lanes + k if k & h else k + h for k in range(lanes)])
        h *= 2
    return out


def _joined(builder: Any, pieces: list[Any]) -> Any:
    while len(pieces) > 1:
        n = 2 * pieces[0].type.count
        pieces = [
            _shuffle(builder, a, b, list(range(n)))
            for a, b in zip(pieces[::2], pieces[1::2], strict=True)
        ]
    return pieces[0]


def _places(context: Any, builder: Any, args: Any, like: Any, width: int) -> Any:
    """(pointer to W elements of row i, pointer to column j, rows of a register, bytes of an element)."""
    rows, row_step, columns, column_step, _ = args
    element, size = context.get_data_type(like), like.bitwidth // 8
    count = 64 // size

    def at(base: Any, step: Any, i: int, length: int) -> Any:
        place = builder.add(base, builder.mul(step, ir.Constant(step.type, i)))
        return builder.inttoptr(place, ir.VectorType(element, length).as_pointer())

    return (
        lambda i: at(rows, row_step, i, width),
        lambda j: at(columns, column_step, j, count),
        count,
        size,
    )


def _directions(narrow: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two instructions for blocks of W columns and as many rows as a register has elements."""

    def width_of(like: Any) -> int:
        return NARROW if narrow else 512 // like.bitwidth

    @instruction
    def gather(tyctx: Any, rows: Any, row_step: Any, columns: Any, column_step: Any, like: Any) -> Any:
        """Columns from rows. Addresses, and bytes from one to the next."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            width = width_of(like)
            row, column, count, size = _places(context, builder, args, like, width)
            registers = [
                _joined(
                    builder, [builder.load(row(i + c), align=size) for c in range(0, count, width)]
                )
                for i in range(width)
            ]
            for j, register in enumerate(_transposed(builder, registers)):
                builder.store(register, column(j), align=size)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4, like), codegen

    @instruction
    def scatter(tyctx: Any, rows: Any, row_step: Any, columns: Any, column_step: Any, like: Any) -> Any:
        """Rows from columns, the first first: where rows are nearer than W, the next one wins."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            width = width_of(like)
            row, column, count, size = _places(context, builder, args, like, width)
            registers = [builder.load(column(j), align=size) for j in range(width)]
            turned = _transposed(builder, registers)
            for i in range(count):
                from_, first = turned[i % width], i // width * width
                piece = _shuffle(builder, from_, from_, list(range(first, first + width)))
                builder.store(piece, row(i), align=size)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4, like), codegen

    return gather, scatter


gather_narrow, scatter_narrow = _directions(narrow=True)
gather_wide, scatter_wide = _directions(narrow=False)


def _lines(builder: Any, turned: list[Any], length: int) -> list[Any]:
    """Rows of so many numbers one after the other, from registers that hold a row each, or every W-th one."""
    width, count = len(turned), turned[0].type.count
    places = [(i % width, i // width * width + j) for i in range(count) for j in range(length)]
    lines = []
    for k in range(0, len(places), count):
        line = ir.Constant(turned[0].type, ir.Undefined)
        for from_ in sorted({register for register, _ in places[k : k + count]}):
            lanes = [
                count + lane if register == from_ else e
                for e, (register, lane) in enumerate(places[k : k + count])
            ]
            line = _shuffle(builder, line, turned[from_], lanes)
        lines.append(line)
    return lines


@instruction
def scatter_past(tyctx: Any, columns: Any, column_step: Any, length: Any, address: Any, like: Any) -> Any:
    """As many rows as a cache line has numbers, of 3 numbers to as many, from columns to where the rows lie
    one after the other from a cache line's address on, past the cache; see `vector.stream`.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at, step, n, to, _ = args
        size = like.bitwidth // 8
        line = ir.VectorType(context.get_data_type(like), 64 // size)

        def pointer(base: Any, offset: Any) -> Any:
            return builder.inttoptr(builder.add(base, offset), line.as_pointer())

        done = builder.append_basic_block()
        lengths = builder.switch(n, done)
        for length in range(3, line.count + 1):
            case = builder.append_basic_block()
            lengths.add_case(ir.Constant(n.type, length), case)
            with builder.goto_block(case):
                registers = [ir.Constant(line, ir.Undefined)] * (NARROW if length <= NARROW else line.count)
                for j in range(length):
                    offset = builder.mul(step, ir.Constant(step.type, j))
                    registers[j] = builder.load(pointer(at, offset), align=size)
                for k, results in enumerate(_lines(builder, _transposed(builder, registers), length)):
                    stored_past(builder, results, pointer(to, ir.Constant(to.type, 64 * k)))
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, like), codegen


@instruction
def parted(tyctx: Any, pairs: Any, first: Any, second: Any) -> Any:
    """The first and the second numbers of LANES rows of two, which lie one after the other."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        both = loaded(context, builder, pairs, args[0], 2 * LANES)
        for k, kind in enumerate((first, second)):
            numbers = _shuffle(builder, both, both, list(range(k, 2 * LANES, 2)))
            stored(context, builder, kind, args[1 + k], numbers)
        return context.get_dummy_value()

    return types.void(pairs, first, second), codegen


def _both(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Two registers of LANES numbers as pairs."""
    a, b = (
        loaded(context, builder, kind, numbers)
        for kind, numbers in zip(sig.args[:2], args[:2], strict=True)
    )
    return _shuffle(builder, a, b, [k // 2 + LANES * (k % 2) for k in range(2 * LANES)])


@instruction
def paired(tyctx: Any, first: Any, second: Any, pairs: Any) -> Any:
    """The way back."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        stored(context, builder, pairs, args[2], _both(context, builder, sig, args))
        return context.get_dummy_value()

    return types.void(first, second, pairs), codegen


@instruction
def paired_past(tyctx: Any, first: Any, second: Any, address: Any) -> Any:
    """`paired` to the address of a cache line, past the cache; see `vector.stream`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        both = _both(context, builder, sig, args)
        stored_past(builder, both, builder.inttoptr(args[2], both.type.as_pointer()))
        return context.get_dummy_value()

    return types.void(first, second, types.intp), codegen


@leaf
def to_columns(rows: int, length: int, count: int, columns: int, ahead: int, like: Any) -> None:
    """columns[j * count + i] = element j of row i, of `count` rows that lie one after the other. What lies
    `ahead` numbers further on, if that is not 0, is asked for in pieces: processors wait where all of it is
    asked for at once.

    `count` is a multiple of LANES. Up to a cache line after the last row is read, and as many columns as fill
    the last block are written.
    """
    wide()
    b = itemsize(like)
    if length == 2:
        pairs, halves = view(rows, 2 * count, like), view(columns, 2 * count, like)
        for i in range(0, count, LANES):
            if ahead:
                prefetch(pairs, ahead + 2 * i)
                prefetch(pairs, ahead + 2 * i + LANES)
            parted(part(pairs, 2 * i), part(halves, i), part(halves, count + i))
        return
    for i in range(0, count, 64 // b):
        if ahead:
            for k in range(i * length, (i + 64 // b) * length, LANES):
                prefetch(view(rows, 0, like), ahead + k)
        if length <= NARROW:
            gather_narrow(rows + i * length * b, length * b, columns + i * b, count * b, like)
        else:
            for j in range(0, length, 64 // b):
                gather_wide(
                    rows + (i * length + j) * b, length * b, columns + (j * count + i) * b, count * b,
                    like,
                )


@leaf
def to_rows(columns: int, length: int, count: int, rows: int, like: Any) -> None:
    """The way back. Up to a cache line after the last row is written.

    What the last block of a row writes beyond it is overwritten by the next row's first block, so that
    comes after it.
    """
    wide()
    b = itemsize(like)
    if length == 2:
        pairs, halves = view(rows, 2 * count, like), view(columns, 2 * count, like)
        for i in range(0, count, LANES):
            paired(part(halves, i), part(halves, count + i), part(pairs, 2 * i))
        return
    for i in range(0, count, 64 // b):
        if length <= NARROW:
            scatter_narrow(rows + i * length * b, length * b, columns + i * b, count * b, like)
        else:
            for j in range((length - 1) // (64 // b) * (64 // b), -1, -(64 // b)):
                scatter_wide(
                    rows + (i * length + j) * b, length * b, columns + (j * count + i) * b, count * b,
                    like,
                )


@leaf
def to_rows_past(columns: int, length: int, count: int, rows: int, like: Any) -> None:
    """`to_rows` of 3 numbers to a cache line, to where a cache line begins, past the cache: nothing else is
    written.
    """
    wide()
    b = itemsize(like)
    for i in range(0, count, 64 // b):
        scatter_past(columns + i * b, count * b, length, rows + i * length * b, like)
