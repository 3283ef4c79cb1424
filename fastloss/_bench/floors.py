"""The machine's floors: what moving the numbers takes when nothing is computed, and computing them
when nothing is moved.

No operation that reads its logits from memory is faster than the read floor, none that writes an
array of their shape too is faster than the copy floor, and none that takes exp of each is faster than
the arithmetic floor. They have the package's thread count and its LLVM instructions, nothing else of
its engine, so that they measure the machine alone. Memory is moved as 32-bit integers whatever the
dtype; the arithmetic is that of the type computed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numba import prange

from fastloss._bench.sizes import Array, Problem, aligned
from fastloss._engine import threads
from fastloss._engine.vector import bits, fence, fma, from_bits, maximum, stream, wide

_LINE = 16  # integers of 32 bits in a cache line
_BLOCK = 1024  # numbers that stay in L1
WORTH_MEASURING = 1 << 20  # bytes; less is a launch and a cache

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**flags: Any) -> Callable[[F], F]:
    return cast("Callable[[F], F]", numba.njit(**flags))


# ---- memory ---------------------------------------------------------------------------------
@compiled()
def _sum(x: Any) -> Any:
    wide()
    total = np.int32(0)
    for j in range(x.size):
        total += x[j]
    return total


@compiled()
def _add(x: Any, y: Any, out: Any) -> None:
    wide()
    for j in range(out.size):
        out[j] = x[j] + y[j]


@compiled(parallel=True)
def _read(x: Any, parts: Any) -> None:
    n, workers = x.size, parts.size
    for w in prange(workers):
        parts[w] = _sum(x[n * w // workers : n * (w + 1) // workers])


@compiled(parallel=True)
def _copy(x: Any, out: Any, workers: int) -> None:
    lines = x.size // _LINE
    for w in prange(workers):
        first, last = lines * w // workers, lines * (w + 1) // workers
        stream(x[first * _LINE :], out.ctypes.data + first * 64, last - first)
        fence()


@compiled(parallel=True)
def _read_two(x: Any, y: Any, out: Any, scratch: Any) -> None:
    blocks, workers = x.size // _BLOCK, len(scratch)
    for w in prange(workers):
        for b in range(blocks * w // workers, blocks * (w + 1) // workers):
            j = b * _BLOCK
            _add(x[j : j + _BLOCK], y[j : j + _BLOCK], scratch[w])
            stream(scratch[w], out.ctypes.data + j * 4, _BLOCK // _LINE)
        fence()


# ---- arithmetic -----------------------------------------------------------------------------
def _polynomial(degree: int, kind: Any) -> tuple[Any, ...]:
    """exp on |r| <= ln(2)/2: Taylor's series, its higher terms replaced by what Chebyshev's
    polynomials leave of them, which is close to the best that a polynomial of this degree does.
    """
    half, last = Fraction(math.log(2) / 2), degree + 4
    terms = [Fraction(1, math.factorial(k)) for k in range(last + 1)]
    for k in range(last, degree, -1):
        chebyshev = np.polynomial.chebyshev.cheb2poly([0] * k + [1])
        scale = terms[k] * half**k / int(chebyshev[k])
        for j, c in enumerate(chebyshev):
            terms[j] -= scale * int(c) / half**j
    return tuple(kind(float(c)) for c in terms[: degree + 1])


@compiled()
def _max(x: Any) -> Any:
    wide()
    m = x[0]
    for j in range(x.size):
        m = maximum(m, x[j])
    return m


@lru_cache
def arithmetic_of(kind: Any) -> tuple[Any, Any]:
    """(exp of x <= 0, the loop), compiled for float32 or float64; degrees leave only rounding."""
    single = kind is np.float32
    log2e, high, low, lowest = (
        kind(c)
        for c in (
            (1.4426950408889634, 0.693145751953125, 1.4286068e-06, -87.33654) if single
            else (1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10, -708.3964185322641)
        )
    )  # fmt: skip
    magic = kind(12582912.0 + 127.0 if single else 6755399441055744.0 + 1023.0)  # rounds, adds the bias
    whole, shift = (np.int32, np.int32(23)) if single else (np.int64, np.int64(52))
    p, zero = _polynomial(6 if single else 11, kind), kind(0)
    last = len(p) - 1

    @compiled(forceinline=True)
    def exp(x: Any) -> Any:
        z = fma(x, log2e, magic)
        n = z - magic
        power = from_bits(whole(bits(z) << shift))
        r = fma(n, -low, fma(n, -high, x))
        y = p[last]
        for k in range(last - 1, -1, -1):
            y = fma(y, r, p[k])
        return zero if x < lowest else y * power

    @compiled(fastmath={"reassoc", "nsz"})
    def sum_exp(x: Any, m: Any) -> Any:
        wide()
        s = zero
        for j in range(x.size):
            s += exp(x[j] - m)
        return s

    @compiled(parallel=True)
    def loop(blocks: Any, repeats: int, parts: Any) -> None:
        for w in prange(parts.size):
            s = zero
            for k in range(repeats):
                block = blocks[w, k & 1]
                s += sum_exp(block, _max(block))
            parts[w] = s

    return exp, loop


# ---- bound to a problem ---------------------------------------------------------------------
def words(array: Array) -> Array:
    """An array's memory as 32-bit integers."""
    raw = array.reshape(-1).view(np.uint8)
    return raw[: raw.size // 4 * 4].view(np.int32)


def _read_floor(problem: Problem) -> Callable[[], None]:
    return partial(_read, words(problem.logits), np.empty(threads.count(), np.int32))


def _copy_floor(problem: Problem) -> Callable[[], None]:
    return partial(_copy, words(problem.logits), words(problem.out), threads.count())


def _read_two_floor(problem: Problem) -> Callable[[], None]:
    x, y, out = map(words, (problem.logits, problem.vector, problem.out))
    scratch = aligned((threads.count(), _BLOCK), np.dtype(np.int32))
    return partial(_read_two, x, y, out, scratch)


def _arithmetic_floor(problem: Problem) -> Callable[[], None]:
    """max(x), then sum(exp(x - max(x))), over blocks in L1 that hold as many numbers in all."""
    kind = np.float64 if problem.dtype == np.float64 else np.float32
    workers = threads.count()
    blocks = aligned((workers, 2, _BLOCK), np.dtype(kind))
    blocks[...] = 4 * np.random.default_rng(0).standard_normal(blocks.shape)
    repeats = problem.workload.size // (workers * _BLOCK)
    return partial(arithmetic_of(kind)[1], blocks, repeats, np.zeros(workers, kind))


class Floor(NamedTuple):
    """How to bind a floor to a problem, and how many arrays' worth of memory it moves."""

    setup: Callable[[Problem], Callable[[], None]]
    moves: int

    def rate(self, problem_size: int, itemsize: int, seconds: float) -> str:
        """What the machine did, in the unit of what it was asked to do."""
        if self.moves:
            return f"{self.moves * problem_size * itemsize / seconds / 1e9:.3g} GB/s"
        return f"{problem_size / seconds / 1e9:.3g} G/s"


FLOORS = {
    "read": Floor(_read_floor, 1),
    "copy": Floor(_copy_floor, 2),
    "read two, write one": Floor(_read_two_floor, 3),
    "arithmetic": Floor(_arithmetic_floor, 0),
}
