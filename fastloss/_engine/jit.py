"""The only place that names Numba's flags.

Heights of compiled code, none with a fast-math flag: every sum has a written order and every
fused multiply-add is asked for by name (`vector.fma`), so the bits do not depend on what LLVM makes
of a loop.

- `inline`: a scalar formula, always inlined into the loop that calls it.
- `instruction`: LLVM code that Numba does not expose (`vector`).
- `leaf`: one vectorised loop over a block in L1, compiled once a compute type and called.
- `entry`: what Python enters; `kernels` makes it of the loop nest of one worker.
- `parallel`: the one function with a `prange` in it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

import numba
from numba import extending, types
from numba.core import codegen, compiler

F = TypeVar("F", bound=Callable[..., Any])

# Division by zero follows IEEE 754: nothing may raise inside a kernel.
_COMMON: dict[str, Any] = {"error_model": "numpy"}
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


class _Part(codegen.JITCodeLibrary):  # type: ignore[misc]
    """LLVM code that other compiled code is linked with, and that nobody enters from outside.

    Numba would optimise it and make machine code of it here, and again in whatever calls it, and in
    that one's callers, seven deep. It is done once, where a kernel has all its parts together.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, _: str) -> int:
        """No address: it is code of its callers."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> _Part:
        """Where Numba sets the environment, what of Python's a function refers to."""
        return self

    def set_env(self, _name: str, _env: Any) -> None:
        """Numba's interface; a part refers to nothing that Python holds."""


class _PartCompiler(compiler.Compiler):  # type: ignore[misc]
    """Numba's compiler, into a `_Part`."""

    def __init__(
        self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any,
        locals: Any,  # noqa: A002
    ) -> None:
        library = _Part(targetctx.codegen(), "part")
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)


# For functions called from compiled code alone. What is not said is inherited from the flags of the
# first caller, so it is said: a leaf is neither inlined by force nor searched for parallel loops.
_INNER: dict[str, Any] = {
    **_COMMON, "parallel": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
    "pipeline_class": _PartCompiler,
}


def _of_types(part: Any) -> Any:
    """Compile for the types of arguments alone: Numba would anew for each that is a constant in a call."""
    if numba.config.DISABLE_JIT:  # it is plain Python, and never runs
        return part
    find = part.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return find(
            tuple(types.unliteral(a) for a in args), {k: types.unliteral(a) for k, a in kws.items()}
        )

    part.get_call_template = get_call_template
    return part


def inline(formula: F) -> F:
    """Compile a scalar formula that LLVM inlines into every caller, keeping its own semantics."""
    return cast(F, _of_types(numba.njit(forceinline=True, **_INNER)(formula)))


def instruction(codegen: Callable[..., Any]) -> Callable[..., Any]:
    """Declare LLVM code that compiled functions may call: typing, then code generation."""
    return cast("Callable[..., Any]", extending.intrinsic(codegen))


def leaf(loop: F) -> F:
    """Compile one loop over a block, or one over blocks."""
    return cast(F, _of_types(numba.njit(forceinline=False, **_INNER)(loop)))


def entry(function: F) -> Any:
    """Compile what runs in the thread that calls it, without the GIL."""
    return numba.njit(nogil=True, **_COMMON)(function)


def parallel(function: F) -> Any:
    """Compile what shares its `prange` out to Numba's threads."""
    return numba.njit(nogil=True, parallel=_PARALLEL, **_COMMON)(function)


def bound(body: Callable[..., None], name: str, **meanings: Any) -> Callable[..., None]:
    """A copy of `body` under its own name, in which some global names mean something else.

    Numba's cache finds a function by its qualified name and leaves flags and globals out, so that
    copies of one name would load each other's machine code.
    """
    plain = cast(FunctionType, body)
    copy = FunctionType(plain.__code__, {**plain.__globals__, **meanings}, name)
    copy.__qualname__ = name
    copy.__module__ = plain.__module__
    return cast("Callable[..., None]", copy)
