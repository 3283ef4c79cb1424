"""Half types, float16 and bfloat16: a storage format, bits of 16 that become float32 and back.

Widening is exact. Narrowing rounds to nearest even: what is too large becomes infinite, what is too small
subnormal, NaN a quiet NaN. bfloat16 is the upper half of a float32. float16 has instructions of its own
where the target of the compilation has F16C; elsewhere LLVM would call a function that is not there, so
there its bits are made by integer arithmetic. Both are scalar code that LLVM vectorises, without a branch,
and no number in them is a subnormal float32 that counts: they do not depend on whether those are flushed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from fastloss._engine.jit import instruction

Emit = Callable[[Any, Any, Any], Any]  # (context, builder, value) -> value

_I16, _I32, _F16, _F32 = ir.IntType(16), ir.IntType(32), ir.HalfType(), ir.FloatType()


def _c(number: int) -> Any:
    return ir.Constant(_I32, number)


def has_f16c(features: str) -> bool:
    """Whether a target's feature string, "+avx,-avx2,...", promises conversions of float16."""
    named = features.split(",")
    return "+f16c" in named and "+avx" in named  # LLVM takes F16C away with AVX


def _native(context: Any) -> bool:
    return has_f16c(context.codegen().magic_tuple()[2])


# ---- code generation ------------------------------------------------------------------------
def _float_of_float16(context: Any, builder: Any, h: Any) -> Any:
    if _native(context):
        return builder.fpext(builder.bitcast(h, _F16), _F32)
    return _float_of_float16_by_bits(context, builder, h)


def _float_of_float16_by_bits(context: Any, builder: Any, h: Any) -> Any:
    h = builder.zext(h, _I32)
    sign = builder.shl(builder.and_(h, _c(0x8000)), _c(16))
    size = builder.shl(builder.and_(h, _c(0x7FFF)), _c(13))  # exponent and fraction in their places
    normal = builder.add(size, _c(112 << 23))  # the exponent counts from 127 instead of 15
    special = builder.add(size, _c(224 << 23))  # infinity and NaN: 31 becomes 255
    # Exponent 0: 2**-14 (1 + f) - 2**-14, with f the fraction
    least = ir.Constant(_F32, 2.0**-14)
    small = builder.fsub(builder.bitcast(builder.add(size, _c(113 << 23)), _F32), least)
    whole = builder.select(builder.icmp_unsigned("<", size, _c(0x1F << 23)), normal, special)
    tiny = builder.icmp_unsigned("<", size, _c(1 << 23))
    whole = builder.select(tiny, builder.bitcast(small, _I32), whole)
    return builder.bitcast(builder.or_(whole, sign), _F32)


def _float16_of_float(context: Any, builder: Any, x: Any) -> Any:
    if _native(context):
        return builder.bitcast(builder.fptrunc(x, _F16), _I16)
    return _float16_of_float_by_bits(context, builder, x)


def _float16_of_float_by_bits(context: Any, builder: Any, x: Any) -> Any:
    u = builder.bitcast(x, _I32)
    sign = builder.and_(builder.lshr(u, _c(16)), _c(0x8000))
    size = builder.and_(u, _c(0x7FFF_FFFF))
    normal = builder.lshr(builder.sub(_to_even(builder, size, 13), _c(112 << 23)), _c(13))
    # Below 2**-14 the sum with 0.5 rounds to multiples of 2**-24, which its bits count.
    half = ir.Constant(_F32, 0.5)
    small = builder.bitcast(builder.fadd(builder.bitcast(size, _F32), half), _I32)
    small = builder.sub(small, _c(126 << 23))
    found = builder.select(builder.icmp_unsigned("<", size, _c(113 << 23)), small, normal)
    # From 65520 on, half way from the largest number to 2**16: infinity
    found = builder.select(builder.icmp_unsigned("<", size, _c(0x477F_F000)), found, _c(0x7C00))
    found = builder.select(builder.icmp_unsigned(">", size, _c(0x7F80_0000)), _c(0x7E00), found)
    return builder.trunc(builder.or_(found, sign), _I16)


def _float_of_bfloat16(context: Any, builder: Any, h: Any) -> Any:
    return builder.bitcast(builder.shl(builder.zext(h, _I32), _c(16)), _F32)


def _bfloat16_of_float(context: Any, builder: Any, x: Any) -> Any:
    u = builder.bitcast(x, _I32)
    number = builder.lshr(_to_even(builder, u, 16), _c(16))
    quiet = builder.or_(builder.lshr(u, _c(16)), _c(0x40))
    return builder.trunc(builder.select(builder.fcmp_unordered("uno", x, x), quiet, number), _I16)


def _to_even(builder: Any, u: Any, bits: int) -> Any:
    """u plus what makes dropping its last bits round to nearest even."""
    odd = builder.and_(builder.lshr(u, _c(bits)), _c(1))
    return builder.add(u, builder.add(odd, _c((1 << (bits - 1)) - 1)))


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


float_of_float16 = _widening(_float_of_float16)  # h -> the float32 of the float16 with the bits h
float16_of_float = _narrowing(_float16_of_float)  # x -> the bits of the float16 nearest to a float32
float_of_bfloat16 = _widening(_float_of_bfloat16)
bfloat16_of_float = _narrowing(_bfloat16_of_float)
# What the first two are where the target has no instructions for it.
float_of_float16_by_bits = _widening(_float_of_float16_by_bits)
float16_of_float_by_bits = _narrowing(_float16_of_float_by_bits)
