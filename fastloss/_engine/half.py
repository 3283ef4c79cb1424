"""Half types, float16 and bfloat16: a storage format, bits of 16 that become float32 and back.

Widening is exact. Narrowing rounds to nearest even: what is too large becomes infinite, what is too small
subnormal, NaN a quiet NaN. bfloat16 is the upper half of a float32. float16 has instructions of its own
where the target of the compilation has F16C; elsewhere LLVM would call a function that is not there, so
there its bits are made by integer arithmetic. It has no branch, and no number in it is a subnormal float32
that counts: it does not depend on whether those are flushed.

The code is written for a number, or a vector of numbers: whole vectors are converted as such, since LLVM
finds no loop over half types worth vectorising.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from fastloss._engine.jit import instruction
from fastloss._engine.vector import LANES, loaded, stored

Emit = Callable[[Any, Any, Any], Any]  # (context, builder, numbers) -> numbers

FEW = LANES // 2  # float32 numbers of a cache line

_I16, _I32, _F16, _F32 = ir.IntType(16), ir.IntType(32), ir.HalfType(), ir.FloatType()


def has_f16c(features: str) -> bool:
    """Whether a target's feature string, "+avx,-avx2,...", promises conversions of float16."""
    named = features.split(",")
    return "+f16c" in named and "+avx" in named  # LLVM takes F16C away with AVX


def _native(context: Any) -> bool:
    return has_f16c(context.codegen().magic_tuple()[2])


# ---- code generation ------------------------------------------------------------------------
def _like(numbers: Any, element: Any) -> Any:
    """The type of numbers of another element type, as many as there are."""
    t = numbers.type
    return ir.VectorType(element, t.count) if isinstance(t, ir.VectorType) else element


def _constant(numbers: Any, element: Any, value: float) -> Any:
    """A constant beside each of the numbers."""
    t = _like(numbers, element)
    return ir.Constant(t, [value] * t.count if isinstance(t, ir.VectorType) else value)


def _float_of_float16(context: Any, builder: Any, h: Any) -> Any:
    if _native(context):
        return builder.fpext(builder.bitcast(h, _like(h, _F16)), _like(h, _F32))
    return _float_of_float16_by_bits(context, builder, h)


def _float_of_float16_by_bits(context: Any, builder: Any, h: Any) -> Any:
    i32, f32 = _like(h, _I32), _like(h, _F32)

    def c(number: int) -> Any:
        return _constant(h, _I32, number)

    h = builder.zext(h, i32)
    sign = builder.shl(builder.and_(h, c(0x8000)), c(16))
    size = builder.shl(builder.and_(h, c(0x7FFF)), c(13))  # exponent and fraction in their places
    normal = builder.add(size, c(112 << 23))  # the exponent counts from 127 instead of 15
    special = builder.add(size, c(224 << 23))  # infinity and NaN: 31 becomes 255
    # Exponent 0: 2**-14 (1 + f) - 2**-14, with f the fraction
    least = _constant(h, _F32, 2.0**-14)
    small = builder.fsub(builder.bitcast(builder.add(size, c(113 << 23)), f32), least)
    found = builder.select(builder.icmp_unsigned("<", size, c(31 << 23)), normal, special)
    tiny = builder.icmp_unsigned("<", size, c(1 << 23))
    found = builder.select(tiny, builder.bitcast(small, i32), found)
    return builder.bitcast(builder.or_(found, sign), f32)


def _float16_of_float(context: Any, builder: Any, x: Any) -> Any:
    if _native(context):
        return builder.bitcast(builder.fptrunc(x, _like(x, _F16)), _like(x, _I16))
    return _float16_of_float_by_bits(context, builder, x)


def _float16_of_float_by_bits(context: Any, builder: Any, x: Any) -> Any:
    i32, f32 = _like(x, _I32), _like(x, _F32)

    def c(number: int) -> Any:
        return _constant(x, _I32, number)

    u = builder.bitcast(x, i32)
    sign = builder.and_(builder.lshr(u, c(16)), c(0x8000))
    size = builder.and_(u, c(0x7FFF_FFFF))
    normal = builder.lshr(builder.sub(_to_even(builder, size, 13), c(112 << 23)), c(13))
    # Below 2**-14 the sum with 0.5 rounds to multiples of 2**-24, which its bits count.
    small = builder.fadd(builder.bitcast(size, f32), _constant(x, _F32, 0.5))
    small = builder.sub(builder.bitcast(small, i32), c(126 << 23))
    found = builder.select(builder.icmp_unsigned("<", size, c(113 << 23)), small, normal)
    # From 65520 on, half way from the largest number to 2**16: infinity
    found = builder.select(builder.icmp_unsigned("<", size, c(0x477F_F000)), found, c(0x7C00))
    found = builder.select(builder.icmp_unsigned(">", size, c(0x7F80_0000)), c(0x7E00), found)
    return builder.trunc(builder.or_(found, sign), _like(x, _I16))


def _float_of_bfloat16(context: Any, builder: Any, h: Any) -> Any:
    high = builder.shl(builder.zext(h, _like(h, _I32)), _constant(h, _I32, 16))
    return builder.bitcast(high, _like(h, _F32))


def _bfloat16_of_float(context: Any, builder: Any, x: Any) -> Any:
    u = builder.bitcast(x, _like(x, _I32))
    quiet = builder.or_(u, _constant(x, _I32, 0x40_0000))
    found = builder.select(builder.fcmp_unordered("uno", x, x), quiet, _to_even(builder, u, 16))
    if not isinstance(x.type, ir.VectorType) or sys.byteorder == "big":
        return builder.trunc(builder.lshr(found, _constant(x, _I32, 16)), _like(x, _I16))
    count = x.type.count  # every other half: one instruction of two vectors
    halves = builder.bitcast(found, ir.VectorType(_I16, 2 * count))
    odd = ir.Constant(ir.VectorType(_I32, count), list(range(1, 2 * count, 2)))
    return builder.shuffle_vector(halves, halves, odd)


def _to_even(builder: Any, u: Any, bits: int) -> Any:
    """u plus what makes dropping its last bits round to nearest even."""
    odd = builder.and_(builder.lshr(u, _constant(u, _I32, bits)), _constant(u, _I32, 1))
    return builder.add(u, builder.add(odd, _constant(u, _I32, (1 << (bits - 1)) - 1)))


# ---- in compiled code -----------------------------------------------------------------------
def _widening(emit: Emit) -> Any:
    def widen(tyctx: Any, h: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return emit(context, builder, args[0])

        return types.float32(types.int16), codegen

    return instruction(widen)


def _narrowing(emit: Emit) -> Any:
    def narrow(tyctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return emit(context, builder, args[0])

        return types.int16(types.float32), codegen

    return instruction(narrow)


def _converting(emit: Emit, count: int = LANES) -> Any:
    """An instruction (x, to) that writes `count` elements of x, converted, to an array."""

    def convert(tyctx: Any, x: Any, to: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            numbers = loaded(context, builder, x, args[0], count)
            if x.dtype == types.float64:
                numbers = builder.fptrunc(numbers, ir.VectorType(_F32, count))
            numbers = emit(context, builder, numbers)
            if to.dtype == types.float64:
                numbers = builder.fpext(numbers, ir.VectorType(ir.DoubleType(), count))
            stored(context, builder, to, args[1], numbers)
            return context.get_dummy_value()

        return types.void(x, to), codegen

    return instruction(convert)


# The float32 of a half type with given bits; the bits of the half nearest to a float32.
float_of_float16, float16_of_float = _widening(_float_of_float16), _narrowing(_float16_of_float)
float_of_bfloat16, bfloat16_of_float = _widening(_float_of_bfloat16), _narrowing(_bfloat16_of_float)
# LANES of them at once, from an array of int16 to one of the compute type and back.
widen_float16, narrow_float16 = _converting(_float_of_float16), _converting(_float16_of_float)
widen_bfloat16, narrow_bfloat16 = _converting(_float_of_bfloat16), _converting(_bfloat16_of_float)
# FEW of them.
widen_few_float16 = _converting(_float_of_float16, FEW)
narrow_few_float16 = _converting(_float16_of_float, FEW)
widen_few_bfloat16 = _converting(_float_of_bfloat16, FEW)
narrow_few_bfloat16 = _converting(_bfloat16_of_float, FEW)
# What those of float16 are where the target has no instruction for it, and a vector of them.
float_of_float16_by_bits = _widening(_float_of_float16_by_bits)
float16_of_float_by_bits = _narrowing(_float16_of_float_by_bits)
widen_float16_by_bits = _converting(_float_of_float16_by_bits)
narrow_float16_by_bits = _converting(_float16_of_float_by_bits)
