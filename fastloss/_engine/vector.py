"""Scalar code that LLVM vectorises, and the few LLVM instructions Numba does not expose.

How a leaf is written: a loop in steps of `LANES`, whose inner loops of constant length run over
`lanes()` arrays on the stack. LLVM keeps those in vector registers, so an inner loop is a handful
of vector instructions, needs no alias check (it works in place) and no fast-math flag: element j
of a block always belongs to lane j mod LANES, and `fold` adds the lanes by a fixed tree.

    for j in range(0, x.size, LANES):
        block = x[j : j + LANES]
        v = lanes(m)
        for k in range(LANES):
            v[k] = exp_nonpositive(block[k] - m)
            total[k] += v[k]
        store(v, e[j : j + LANES])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.np import arrayobj

from fastloss._engine.jit import inline, instruction

LANES = 32


def _llvm(context: Any, array_type: Any) -> tuple[Any, int]:
    """The LLVM type of an array's elements and their size in bytes."""
    return context.get_data_type(array_type.dtype), array_type.dtype.bitwidth // 8


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, to: Any) -> Any:
    data = arrayobj.make_array(array_type)(context, builder, array).data
    return builder.bitcast(data, to.as_pointer())


def loaded(context: Any, builder: Any, array_type: Any, array: Any, count: int = LANES) -> Any:
    """The first `count` elements of an array, as a vector."""
    element, size = _llvm(context, array_type)
    vector = ir.VectorType(element, count)
    return builder.load(_pointer(context, builder, array_type, array, vector), align=size)


def stored(context: Any, builder: Any, array_type: Any, array: Any, value: Any) -> None:
    """Write a vector to an array."""
    _, size = _llvm(context, array_type)
    builder.store(value, _pointer(context, builder, array_type, array, value.type), align=size)


def _make_array(
    context: Any, builder: Any, array_type: Any, pointer: Any, size: Any
) -> Any:
    """A contiguous array over memory that somebody else keeps alive."""
    array = arrayobj.make_array(array_type)(context, builder)
    itemsize = context.get_constant(types.intp, array_type.dtype.bitwidth // 8)
    arrayobj.populate_array(
        array, data=pointer, shape=[size], strides=[itemsize], itemsize=itemsize, meminfo=None
    )
    return array._getvalue()


@instruction
def wide(tyctx: Any) -> Any:
    """First line of a vectorised leaf: 512-bit vectors where the CPU has them, and not inlined.

    A leaf copied into its callers would lose the attribute, and be optimised anew in each.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # AttributeSet knows LLVM's bare words; a string attribute goes in as it is printed.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


@instruction
def outlined(tyctx: Any) -> Any:
    """First line of a function to be called, not copied into its callers: it is large, or rare."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


@instruction
def fma(tyctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a*b + c, fused where the CPU fuses: the same in a vector body and in its scalar tail."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        t = args[0].type
        return builder.call(
            builder.module.declare_intrinsic("llvm.fmuladd", [t], ir.FunctionType(t, [t, t, t])),
            args,
        )

    return a(a, a, a), codegen


@instruction
def exact_fma(tyctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a*b + c, rounded once on any CPU."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), codegen


@instruction
def maximum(tyctx: Any, a: Any, b: Any) -> Any:
    """The larger; NaN where either is. Vectorises, reductions too, without any flag."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        t = args[0].type
        return builder.call(
            builder.module.declare_intrinsic("llvm.maximum", [t], ir.FunctionType(t, [t, t])),
            args,
        )

    return a(a, a), codegen


@instruction
def bits(tyctx: Any, x: Any) -> Any:
    """The bits of a float as a signed integer of its width."""
    integer = types.int32 if x == types.float32 else types.int64

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(integer.bitwidth))

    return integer(x), codegen


@instruction
def from_bits(tyctx: Any, i: Any) -> Any:
    """The float whose bits an integer holds."""
    real = types.float32 if i.bitwidth == 32 else types.float64

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_data_type(real))

    return real(i), codegen


@instruction
def cast(tyctx: Any, value: Any, like: Any) -> Any:
    """`value` in the type of `like`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.cast(builder, args[0], value, like)

    return like(value, like), codegen


@instruction
def itemsize(tyctx: Any, like: Any) -> Any:
    """Bytes of a number of the type of `like`, a constant."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, like.bitwidth // 8)

    return types.intp(like), codegen


@instruction
def many_registers(tyctx: Any) -> Any:
    """Whether the CPU compiled for has the 32 vector registers of AVX-512, a constant: with half as many a
    loop that does two things at once is slower than two loops.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        features = context.codegen().magic_tuple()[2].split(",")
        return context.get_constant(types.boolean, "+avx512f" in features)

    return types.boolean(), codegen


# ---- registers ------------------------------------------------------------------------------
@instruction
def lanes(tyctx: Any, like: Any) -> Any:
    """LANES zeros of the type of `like`, which LLVM keeps in registers."""
    array_type = types.Array(like, 1, "C")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = context.get_data_type(like)
        block = ir.ArrayType(element, LANES)
        pointer = cgutils.alloca_once(builder, block)
        pointer.align = 64
        builder.store(ir.Constant(block, None), pointer)
        return _make_array(
            context,
            builder,
            array_type,
            builder.bitcast(pointer, element.as_pointer()),
            context.get_constant(types.intp, LANES),
        )

    return array_type(like), codegen


@instruction
def part(tyctx: Any, x: Any, j: Any) -> Any:
    """Elements j to j + LANES - 1 of x, as an array; unlike a slice, never cut short."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element, _ = _llvm(context, x)
        start = builder.gep(_pointer(context, builder, x, args[0], element), [args[1]])
        return _make_array(
            context, builder, sig.return_type, start, context.get_constant(types.intp, LANES)
        )

    return types.Array(x.dtype, 1, "C")(x, types.intp), codegen


@inline
def lower(m: Any) -> None:
    """m[k] = -inf, for LANES numbers."""
    for k in range(LANES):
        m[k] = cast(-math.inf, m[k])


def _by_halves(join: Callable[[Any, Any, Any], Any], doc: str) -> Any:
    def folded(tyctx: Any, v: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            index = ir.IntType(32)
            left = loaded(context, builder, v, args[0])
            width = LANES
            while width > 1:
                width //= 2
                halves = [
                    builder.shuffle_vector(
                        left, left, ir.Constant(ir.VectorType(index, width), list(range(at, at + width)))
                    )
                    for at in (0, width)
                ]
                left = join(builder, *halves)
            return builder.extract_element(left, index(0))

        return v.dtype(v), codegen

    folded.__doc__ = doc
    return instruction(folded)


def _larger_of(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


fold = _by_halves(
    lambda builder, x, y: builder.fadd(x, y),
    "The sum of LANES numbers, by halves: lane k with lane k + 16, then k + 8, …",
)
fold_max = _by_halves(_larger_of, "The largest of LANES numbers, none of them NaN.")


def _halved(builder: Any, rows: list[Any]) -> Any:
    """The sum of LANES vectors at most, row k and row k + LANES/2 first, and so on."""
    width = LANES
    while width > 1:
        width //= 2
        pairs = [builder.fadd(a, b) for a, b in zip(rows[:width], rows[width:], strict=False)]
        rows = pairs + rows[len(pairs) : width]
    return rows[0]


def _for_least(builder: Any, count: Any, sizes: tuple[int, ...], emit: Callable[[int], None]) -> None:
    """What `emit` makes of the least of `sizes` that is not below `count`."""
    first, *rest = sizes
    if not rest:
        emit(first)
        return
    with builder.if_else(builder.icmp_signed("<=", count, count.type(first))) as (least, more):
        with least:
            emit(first)
        with more:
            _for_least(builder, count, tuple(rest), emit)


def _row(builder: Any, at: Any, vector: Any, size: int) -> Any:
    return builder.load(builder.inttoptr(at, vector.as_pointer()), align=size)


@instruction
def fold_rows(tyctx: Any, at: Any, n: Any, like: Any, to: Any) -> Any:
    """to[k] = the sum of n <= LANES rows of LANES numbers that lie one after the other, by halves as `fold`
    adds them. Behind them zeros fill up fours, or beyond 16 all that LANES rows have room for.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        size = like.bitwidth // 8
        vector = ir.VectorType(context.get_data_type(like), LANES)

        def emit(count: int) -> None:
            steps = [ir.Constant(args[0].type, j * LANES * size) for j in range(count)]
            rows = [_row(builder, builder.add(args[0], step), vector, size) for step in steps]
            stored(context, builder, to, args[3], _halved(builder, rows))

        _for_least(builder, args[1], (4, 8, 12, 16, LANES), emit)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, like, to), codegen


FEW = 16  # columns up to which `sum_below` holds a row's exponentials in registers


@instruction
def sum_below(
    tyctx: Any, x: Any, x_step: Any, e: Any, e_step: Any, columns: Any, peak: Any, r: Any
) -> Any:
    """r[k] += the sum of row k of e without those where x is at the peak, and then these, for LANES rows of
    FEW columns at most. Behind them columns fill up fours, of zeros, in e.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        size = _llvm(context, peak)[1]
        top, before = loaded(context, builder, peak, args[5]), loaded(context, builder, r, args[6])

        def emit(count: int) -> None:
            below, ties = [], before
            for j in range(count):
                column = ir.Constant(args[4].type, j)
                there, here = (builder.mul(step, column) for step in (args[1], args[3]))
                if j > count - 4:  # of fewer columns it is the first once more, since x may end
                    there = builder.select(builder.icmp_signed("<", column, args[4]), there, column.type(0))
                number = _row(builder, builder.add(args[0], there), top.type, size)
                each = _row(builder, builder.add(args[2], here), top.type, size)
                tied = builder.fcmp_ordered("==", number, top)
                below.append(builder.select(tied, ir.Constant(top.type, None), each))
                ties = builder.select(tied, builder.fadd(ties, each), ties)
            stored(context, builder, r, args[6], builder.fadd(_halved(builder, below), ties))

        _for_least(builder, args[4], tuple(range(4, FEW + 1, 4)), emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, peak, r), codegen


@inline
def top_of(m: Any, odd: int) -> Any:
    """The largest of LANES numbers that `raise_lanes` has raised; NaN where that is `odd`; a zero is +0."""
    top = fold_max(m)
    return cast(math.nan, top) if odd != 0 else top + cast(0.0, top)


def _counted(builder: Any, found: Any) -> Any:
    """How many of LANES flags are set."""
    flags = builder.bitcast(found, ir.IntType(LANES))
    count = builder.module.declare_intrinsic(
        "llvm.ctpop", [flags.type], ir.FunctionType(flags.type, [flags.type])
    )
    return builder.zext(builder.call(count, [flags]), ir.IntType(64))


@instruction
def added_but(tyctx: Any, total: Any, v: Any, x: Any, c: Any) -> Any:
    """total[k] += v[k] for LANES numbers, but where x[k] is c; how many are."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        old, more, key = (
            loaded(context, builder, t, a) for t, a in ((total, args[0]), (v, args[1]), (x, args[2]))
        )
        found = builder.fcmp_ordered("==", key, _splat(builder, args[3], key.type))
        stored(context, builder, total, args[0], builder.select(found, old, builder.fadd(old, more)))
        return _counted(builder, found)

    return types.int64(total, v, x, c), codegen


@instruction
def classes_of(tyctx: Any, given: Any, own: Any, classes: Any, ignored: Any) -> Any:
    """own = LANES class indices, a byte each, -1 for `ignored`. How many of them are none, times 2**32, and
    how many are ignored.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        words, octets = (ir.VectorType(ir.IntType(bits), LANES) for bits in (64, 8))
        y = loaded(context, builder, given, args[0])
        y = y if y.type == words else builder.sext(y, words)
        away = builder.icmp_signed("==", y, _splat(builder, args[3], words))
        # As an unsigned integer what is below 0 is above all that is not.
        none = builder.icmp_unsigned(">=", y, _splat(builder, args[2], words))
        narrow = builder.select(away, ir.Constant(octets, [-1] * LANES), builder.trunc(y, octets))
        stored(context, builder, own, args[1], narrow)
        outside = _counted(builder, builder.and_(none, builder.not_(away)))
        return builder.or_(builder.shl(outside, outside.type(32)), _counted(builder, away))

    return types.int64(given, own, types.int64, types.int64), codegen


@instruction
def raise_lanes(tyctx: Any, m: Any, x: Any, odd: Any) -> Any:
    """m[k] = max(m[k], x[k]) for LANES numbers, a NaN in x passed over; `odd`, or not 0 if there is one.

    `maximum`, which keeps NaN, takes five instructions where this takes one, and the two halves of x
    are searched for NaN by one comparison.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element, size = _llvm(context, x)
        vector, half, index = ir.VectorType(element, LANES), LANES // 2, ir.IntType(32)
        top = _pointer(context, builder, m, args[0], vector)
        new = builder.load(_pointer(context, builder, x, args[1], vector), align=size)
        old = builder.load(top, align=size)
        builder.store(_larger_of(builder, new, old), top, align=size)
        halves = [
            builder.shuffle_vector(
                new, new, ir.Constant(ir.VectorType(index, half), list(range(at, at + half)))
            )
            for at in (0, half)
        ]
        found = builder.bitcast(builder.fcmp_unordered("uno", *halves), ir.IntType(half))
        return builder.or_(args[2], builder.zext(found, ir.IntType(64)))

    return types.int64(m, x, types.int64), codegen


@instruction
def raise_rows(tyctx: Any, m: Any, seen: Any, x: Any) -> Any:
    """m[k] = max(m[k], x[k]) for LANES numbers, a NaN in x passed over; `seen`, LANES integers, 0 at first,
    remembers for each whether there was one: its bits but the sign are above those of infinity. `maximum`,
    which keeps NaN, takes eight times as long.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        new, old = loaded(context, builder, x, args[2]), loaded(context, builder, m, args[0])
        stored(context, builder, m, args[0], _larger_of(builder, new, old))
        vector, _, _ = _places(context, x)
        size = builder.shl(builder.bitcast(new, vector), ir.Constant(vector, [1] * LANES))
        before = loaded(context, builder, seen, args[1])
        most = builder.select(builder.icmp_unsigned(">", size, before), size, before)
        stored(context, builder, seen, args[1], most)
        return context.get_dummy_value()

    return types.void(m, seen, x), codegen


@instruction
def nan_where(tyctx: Any, m: Any, seen: Any) -> Any:
    """m[k] = NaN where `raise_rows` saw one; a zero is +0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, _, infinite = _places(context, m)
        numbers = loaded(context, builder, m, args[0])
        numbers = builder.fadd(numbers, ir.Constant(numbers.type, [0.0] * LANES))
        found = builder.icmp_unsigned(
            ">", loaded(context, builder, seen, args[1]), ir.Constant(vector, [2 * infinite] * LANES)
        )
        none = ir.Constant(numbers.type, [math.nan] * LANES)
        stored(context, builder, m, args[0], builder.select(found, none, numbers))
        return context.get_dummy_value()

    return types.void(m, seen), codegen


@instruction
def peaks_of(tyctx: Any, m: Any, origin: Any, peak: Any, ties: Any) -> Any:
    """What LANES rows are measured from whose largest numbers are m; a zero of them becomes +0. It is m, or 0
    for -inf, and at the peak is what equals m, or nothing for -inf. The first there is the 1 of s = 1 + r:
    the ties begin at -1, at 0 for -inf, and at NaN for +inf, of which r is NaN. How many of m are infinite.

    Of a loop that selects LLVM makes stores under masks, and what loads from them waits.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = loaded(context, builder, m, args[0])

        def all_of(number: float) -> Any:
            return ir.Constant(top.type, [number] * LANES)

        top = builder.fadd(top, all_of(0.0))
        low = builder.fcmp_ordered("==", top, all_of(-math.inf))
        high = builder.fcmp_ordered("==", top, all_of(math.inf))
        first = builder.select(high, all_of(math.nan), all_of(-1.0))
        stored(context, builder, m, args[0], top)
        stored(context, builder, origin, args[1], builder.select(low, all_of(0.0), top))
        stored(context, builder, peak, args[2], builder.select(low, all_of(math.nan), top))
        stored(context, builder, ties, args[3], builder.select(low, all_of(0.0), first))
        return _counted(builder, builder.or_(low, high))

    return types.int64(m, origin, peak, ties), codegen


def _places(context: Any, x: Any) -> tuple[Any, int, int]:
    """The type of LANES integers like x's numbers; the bits of twice the smallest normal one, and of inf."""
    size = _llvm(context, x)[1]
    one = 1 << (23 if size == 4 else 52)
    return ir.VectorType(ir.IntType(8 * size), LANES), 2 * one, (0xFF if size == 4 else 0x7FF) * one


@instruction
def note(tyctx: Any, seen: Any, x: Any) -> Any:
    """Remember in `seen`, LANES integers, 0 at first, what LANES numbers are, for `ordinary` to tell.

    Less the bits of the smallest of them, those of ordinary numbers are, as unsigned integers, below all
    others; the larger ones are kept. It takes two instructions.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, least, _ = _places(context, x)
        numbers = builder.bitcast(loaded(context, builder, x, args[1]), vector)
        new = builder.sub(numbers, ir.Constant(vector, [least] * LANES))
        old = loaded(context, builder, seen, args[0])
        larger = builder.select(builder.icmp_unsigned(">", new, old), new, old)
        stored(context, builder, seen, args[0], larger)
        return context.get_dummy_value()

    return types.void(seen, x), codegen


@instruction
def ordinary(tyctx: Any, seen: Any, x: Any) -> Any:
    """Whether all numbers, of the type of x's, that `note` saw are finite, positive and at least twice the
    smallest normal one: their halves are normal, too.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, least, infinite = _places(context, x)
        numbers = loaded(context, builder, seen, args[0])
        beyond = builder.icmp_unsigned(">=", numbers, ir.Constant(vector, [infinite - least] * LANES))
        flags = builder.bitcast(beyond, ir.IntType(LANES))
        return builder.icmp_unsigned("==", flags, flags.type(0))

    return types.boolean(seen, x), codegen


@instruction
def store(tyctx: Any, v: Any, to: Any) -> Any:
    """to[:LANES] = v, as one vector store, in the type of `to`: it holds that of v, or is narrower."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        numbers = loaded(context, builder, v, args[0])
        if to.dtype.bitwidth < v.dtype.bitwidth:
            numbers = builder.fptrunc(numbers, ir.VectorType(_llvm(context, to)[0], LANES))
        stored(context, builder, to, args[1], _widened(context, builder, to, numbers))
        return context.get_dummy_value()

    return types.void(v, to), codegen


@instruction
def numbers_of(tyctx: Any, x: Any, to: Any) -> Any:
    """to[:LANES] = LANES integers of x, as numbers: LLVM leaves a loop of 64-bit ones scalar."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(_llvm(context, to)[0], LANES)
        stored(context, builder, to, args[1], builder.sitofp(loaded(context, builder, x, args[0]), vector))
        return context.get_dummy_value()

    return types.void(x, to), codegen


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, first, zeros)


def _widened(context: Any, builder: Any, to: Any, numbers: Any) -> Any:
    """A vector of LANES numbers in the type of an array's elements, which holds them."""
    vector = ir.VectorType(_llvm(context, to)[0], LANES)
    return numbers if numbers.type == vector else builder.fpext(numbers, vector)


def _with_one(operation: Callable[[Any, Any, Any], Any], meaning: str) -> Any:
    def each(tyctx: Any, x: Any, c: Any, to: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            numbers = _widened(context, builder, to, loaded(context, builder, x, args[0]))
            result = operation(builder, numbers, _splat(builder, args[1], numbers.type))
            stored(context, builder, to, args[2], result)
            return context.get_dummy_value()

        return types.void(x, to.dtype, to), codegen

    each.__doc__ = f"to[:LANES] = {meaning}, in the type of `to`, which holds that of x."
    return instruction(each)


def _lane_by_lane(operation: Callable[[Any, Any, Any], Any], meaning: str) -> Any:
    def each(tyctx: Any, x: Any, y: Any, to: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            numbers = [
                _widened(context, builder, to, loaded(context, builder, t, v))
                for t, v in zip((x, y), args[:2], strict=True)
            ]
            stored(context, builder, to, args[2], operation(builder, *numbers))
            return context.get_dummy_value()

        return types.void(x, y, to), codegen

    each.__doc__ = f"to[:LANES] = {meaning}, in the type of `to`, which holds those of x and y."
    return instruction(each)


def _of_vectors(builder: Any, name: str, *args: Any) -> Any:
    """An intrinsic of LLVM on vectors of LANES numbers."""
    vector = args[0].type
    function = ir.FunctionType(vector, [vector] * len(args))
    name = f"llvm.{name}.v{LANES}{vector.element.intrinsic_name}"
    return builder.call(builder.module.declare_intrinsic(name, (), function), args)


# Written out, since LLVM unrolls so short a loop before it looks for vectors.
scaled = _with_one(lambda builder, x, c: builder.fmul(x, c), "x c")
lowered = _with_one(lambda builder, x, c: builder.fsub(x, c), "x - c")
added = _lane_by_lane(lambda builder, x, y: builder.fadd(x, y), "x + y")
subtracted = _lane_by_lane(lambda builder, x, y: builder.fsub(x, y), "x - y")
multiplied = _lane_by_lane(lambda builder, x, y: builder.fmul(x, y), "x y")
raised = _lane_by_lane(_larger_of, "x > y ? x : y")
raised_to_size = _lane_by_lane(
    lambda builder, x, y: _larger_of(builder, _of_vectors(builder, "fabs", x), y), "|x| > y ? |x| : y"
)


@instruction
def chosen(tyctx: Any, x: Any, y: Any, c: Any, to: Any) -> Any:
    """to[k] = x[k] where y[k] is c, for LANES numbers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        new, key, old = (
            loaded(context, builder, t, v) for t, v in ((x, args[0]), (y, args[1]), (to, args[3]))
        )
        found = builder.fcmp_ordered("==", key, _splat(builder, args[2], key.type))
        stored(context, builder, to, args[3], builder.select(found, new, old))
        return context.get_dummy_value()

    return types.void(x, y, c, to), codegen


@instruction
def risen(tyctx: Any, x: Any, y: Any, j: Any, m: Any, c: Any, at: Any) -> Any:
    """m[k] = x[k], c[k] = y[k] and at[k] = j where x[k] > m[k], for LANES numbers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        new, top = loaded(context, builder, x, args[0]), loaded(context, builder, m, args[3])
        more = builder.fcmp_ordered(">", new, top)
        beside = loaded(context, builder, y, args[1])
        column = _splat(builder, args[2], top.type)
        for t, to, each in ((m, args[3], new), (c, args[4], beside), (at, args[5], column)):
            stored(context, builder, t, to, builder.select(more, each, loaded(context, builder, t, to)))
        return context.get_dummy_value()

    return types.void(x, y, j, m, c, at), codegen


# ---- memory ---------------------------------------------------------------------------------
@instruction
def view(tyctx: Any, address: Any, size: Any, like: Any) -> Any:
    """`size` elements of the type of `like` at an aligned address, as a contiguous array."""
    array_type = types.Array(like, 1, "C")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], context.get_data_type(like).as_pointer())
        return _make_array(context, builder, array_type, pointer, args[1])

    return array_type(types.intp, types.intp, like), codegen


@instruction
def peek(tyctx: Any, address: Any, like: Any) -> Any:
    """The integer of the type of `like` at any address, aligned or not."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], context.get_data_type(like).as_pointer())
        return builder.load(pointer, align=1)

    return like(types.intp, like), codegen


@instruction
def poke(tyctx: Any, address: Any, value: Any) -> Any:
    """Write an integer to any address, aligned or not."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], context.get_data_type(value).as_pointer())
        builder.store(args[1], pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.intp, value), codegen


@instruction
def byteswap(tyctx: Any, i: Any) -> Any:
    """The integer with its bytes in the other order."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        t = args[0].type
        return builder.call(
            builder.module.declare_intrinsic("llvm.bswap", [t], ir.FunctionType(t, [t])), args
        )

    return i(i), codegen


def _lanes_where(builder: Any, compared: str, k: Any) -> Any:
    """Which of LANES lanes compare so with k."""
    index = ir.IntType(32)
    order = ir.Constant(ir.VectorType(index, LANES), list(range(LANES)))
    return builder.icmp_signed(compared, order, _splat(builder, builder.trunc(k, index), order.type))


def _masked(context: Any, builder: Any, array_type: Any, array: Any, n: Any) -> Any:
    """(type, address, alignment) of LANES numbers of an array as a vector, and which are the first n."""
    element, size = _llvm(context, array_type)
    vector = ir.VectorType(element, LANES)
    pointer = _pointer(context, builder, array_type, array, vector)
    return vector, pointer, ir.IntType(32)(size), _lanes_where(builder, "<", n)


def _on_masked(builder: Any, name: str, vector: Any, to: Any, args: Any) -> Any:
    function = ir.FunctionType(to, [each.type for each in args])
    name = f"llvm.masked.{name}.v{LANES}{vector.element.intrinsic_name}.p0"
    return builder.call(builder.module.declare_intrinsic(name, (), function), args)


@instruction
def first_of(tyctx: Any, x: Any, n: Any, fill: Any, to: Any) -> Any:
    """to[:LANES] = the first n < LANES numbers of x, then `fill`; nothing beyond them is read."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, pointer, align, first = _masked(context, builder, x, args[0], args[1])
        rest = _splat(builder, args[2], vector)
        stored(
            context, builder, to, args[3],
            _on_masked(builder, "load", vector, vector, [pointer, align, first, rest]),
        )
        return context.get_dummy_value()

    return types.void(x, types.intp, x.dtype, to), codegen


@instruction
def within(tyctx: Any, x: Any, first: Any, last: Any, to: Any) -> Any:
    """to[k] = x[k] for the lanes first <= k < last, 0 for others; nothing else is read."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, pointer, align, low = _masked(context, builder, x, args[0], args[2])
        there = builder.and_(low, _lanes_where(builder, ">=", args[1]))
        none = ir.Constant(vector, None)
        found = _on_masked(builder, "load", vector, vector, [pointer, align, there, none])
        stored(context, builder, to, args[3], found)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, to), codegen


def _last_line(context: Any, builder: Any, array_type: Any, address: Any) -> tuple[Any, list[int]]:
    """(an aligned line at an address, the lanes of the last line of LANES numbers)."""
    element, size = _llvm(context, array_type)
    line = ir.VectorType(element, 64 // size)
    return builder.inttoptr(address, line.as_pointer()), list(range(LANES - line.count, LANES))


@instruction
def join_last(tyctx: Any, address: Any, k: Any, v: Any) -> Any:
    """Of the last cache line of LANES numbers the first k become those of a line at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer, last = _last_line(context, builder, v, args[0])
        line, numbers = builder.load(pointer, align=64), loaded(context, builder, v, args[2])
        order = [max(lane - last[0], 0) for lane in range(LANES)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), order)
        before = _lanes_where(builder, "<", builder.add(args[1], ir.Constant(args[1].type, last[0])))
        both = builder.select(before, builder.shuffle_vector(line, line, mask), numbers)
        stored(context, builder, v, args[2], both)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, v), codegen


@instruction
def store_last(tyctx: Any, v: Any, address: Any) -> Any:
    """The last cache line of LANES numbers to an aligned address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer, last = _last_line(context, builder, v, args[1])
        numbers = loaded(context, builder, v, args[0])
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(last)), last)
        builder.store(builder.shuffle_vector(numbers, numbers, mask), pointer, align=64)
        return context.get_dummy_value()

    return types.void(v, types.intp), codegen


@instruction
def placed(tyctx: Any, value: Any, k: Any, to: Any) -> Any:
    """to[k] = value, if k is one of LANES lanes, in registers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        numbers = loaded(context, builder, to, args[2])
        each = _splat(builder, args[0], numbers.type)
        stored(
            context, builder, to, args[2], builder.select(_lanes_where(builder, "==", args[1]), each, numbers)
        )
        return context.get_dummy_value()

    return types.void(value, types.intp, to), codegen


@instruction
def put_first(tyctx: Any, v: Any, n: Any, to: Any) -> Any:
    """to[:n] = v[:n], n < LANES; nothing beyond them is written."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, pointer, align, first = _masked(context, builder, to, args[2], args[1])
        numbers = loaded(context, builder, v, args[0])
        _on_masked(builder, "store", vector, ir.VoidType(), [numbers, pointer, align, first])
        return context.get_dummy_value()

    return types.void(v, types.intp, to), codegen


@instruction
def prefetch(tyctx: Any, x: Any, j: Any) -> Any:
    """Ask for the cache lines of elements j to j + LANES - 1 of x or past its end: none faults."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element, size = _llvm(context, x)
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        )
        start = builder.gep(_pointer(context, builder, x, args[0], element), [args[1]])
        for k in range(0, LANES, 64 // size):
            line = builder.bitcast(builder.gep(start, [ir.Constant(ir.IntType(64), k)]), byte)
            builder.call(function, [line, flag(0), flag(3), flag(1)])  # read, keep in L1, data
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


def stored_past(builder: Any, lines: Any, pointer: Any) -> None:
    """A store of whole cache lines past the cache; see `stream`."""
    once = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
    builder.store(lines, pointer, align=64).set_metadata("nontemporal", once)


@instruction
def stream(tyctx: Any, source: Any, address: Any, count: Any) -> Any:
    """Copy `count` 64-byte lines from an array to an aligned address, past the cache.

    The worker must `fence` before it returns: other threads may not see these stores until then.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element, size = _llvm(context, source)
        vector = ir.VectorType(element, 64 // size)
        from_ = _pointer(context, builder, source, args[0], vector)
        to = builder.inttoptr(args[1], vector.as_pointer())
        with cgutils.for_range(builder, args[2]) as loop:
            line = builder.load(builder.gep(from_, [loop.index]), align=size)
            stored_past(builder, line, builder.gep(to, [loop.index]))
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp), codegen


@instruction
def fence(tyctx: Any) -> Any:
    """Make streamed stores visible to other threads."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
