"""The only place that names Numba's flags.

Heights of compiled code, none with a fast-math flag: every sum has a written order and every
fused multiply-add is asked for by name (`vector.fma`), so the bits do not depend on what LLVM makes
of a loop.

- `inline`: a scalar formula, always inlined into the loop that calls it.
- `instruction`: LLVM code that Numba does not expose (`vector`).
- `leaf`: one vectorised loop over a block in L1, compiled once a compute type and called.
- `kernel`: a loop nest over workers, compiled twice from one body: the parallel twin and the serial
  one. The twins' names differ, because Numba's cache key leaves the flags out and twins of one name
  would load each other's machine code.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba import extending

F = TypeVar("F", bound=Callable[..., Any])

# Division by zero follows IEEE 754: nothing may raise inside a kernel.
_COMMON = {"error_model": "numpy"}
# Only the written prange is made parallel; array expressions stay loops of one worker.
_PARALLEL = {
    "prange": True,
    "comprehension": False,
    "reduction": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
}


def inline(formula: F) -> F:
    """Compile a scalar formula that LLVM inlines into every caller, keeping its own semantics."""
    return cast(F, numba.njit(forceinline=True, **_COMMON)(formula))


def instruction(codegen: Callable[..., Any]) -> Callable[..., Any]:
    """Declare LLVM code that compiled functions may call: typing, then code generation."""
    return cast("Callable[..., Any]", extending.intrinsic(codegen))


def leaf(loop: F) -> F:
    """Compile one loop over a block."""
    # What is not said is inherited from the first caller's flags, so this is said.
    return cast(F, numba.njit(forceinline=False, **_COMMON)(loop))


class Kernel:
    """A loop nest over workers, as a parallel and a serial twin; `launch.run` compiles and calls them.

    The body takes `(first, last, workers, ...)` and its one `prange` runs over workers `first` to
    `last - 1`, each of which does its own share of the work; what a worker does depends on its index
    and on `workers`, never on which twin runs it. Options are numbers of one type each, so one
    compute type means one compilation of each twin.
    """

    def __init__(self, body: Callable[..., None]) -> None:
        self.__name__ = body.__name__
        self.parallel: Any = numba.njit(
            _renamed(body, "parallel"), nogil=True, parallel=_PARALLEL, **_COMMON
        )
        self.serial: Any = numba.njit(_renamed(body, "serial"), nogil=True, **_COMMON)
        # (parallel, compute type) -> the twin, once `launch` has compiled it for that type
        self.ready: dict[tuple[bool, type], Callable[..., None]] = {}


def kernel(body: Callable[..., None]) -> Kernel:
    """Declare a kernel; see `Kernel` for what its body promises."""
    return Kernel(body)


def _renamed(body: Callable[..., None], twin: str) -> Callable[..., None]:
    """A copy of `body` whose qualified name says which twin it is."""
    plain = cast(types.FunctionType, body)
    name = f"{plain.__name__}_{twin}"
    copy = types.FunctionType(plain.__code__, plain.__globals__, name, plain.__defaults__)
    copy.__qualname__ = name
    copy.__module__ = plain.__module__
    return cast("Callable[..., None]", copy)
