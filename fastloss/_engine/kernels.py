"""Kernels: the work of one worker, compiled once a compute type and entered with one address.

The arguments of a call lie in a block of memory, eight bytes each: numbers as they are, an array as its
address and its shape. So everything that Python or `prange` enters has one signature, and one parallel
driver, compiled once, does for all kernels: it calls them by their addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.core import cgutils
from numba.np import arrayobj

from fastloss._engine.arrays import address_of, byte_of
from fastloss._engine.jit import bound, entry, instruction, leaf, parallel

Kinds = tuple[Any, ...]  # Numba's types of a kernel's arguments
# Of an entry: address of the arguments, first worker, last + 1, how many there are, first task, last + 1.
ENTRY = (types.intp,) * 6
# Of the parallel driver: the address of an entry, and what that is called with.
DRIVER = (types.intp,) * 7


class Entry(NamedTuple):
    """A kernel that is compiled for a compute type."""

    run: Callable[[int, int, int, int, int, int], None]
    address: int
    kinds: Kinds  # of its arguments: whoever calls sees to it that they are
    block: struct.Struct


class Kernel:
    """The work of one worker; `launch.run` calls it.

    The body is a loop nest `body(w, workers, first, last, ...)`: of the tasks `first` to `last` - 1,
    worker `w` does its share, which depends on `w` and `workers`, never on who calls it. Options are numbers
    of one type each, so one compute type means one compilation.
    """

    def __init__(self, body: Callable[..., None]) -> None:
        self.__name__ = body.__name__
        self._work = leaf(body)
        self._entries: dict[str, Any] = {}
        # Character of the compute type -> the entry, once `launch` has compiled it for that type.
        self.ready: dict[str, Entry] = {}

    def entry(self, kind: str, kinds: Kinds) -> Any:
        """Numba's dispatcher of the entry for a compute type, of arguments of these types."""
        if kind not in self._entries:
            name = f"{self.__name__}_{kind}"
            made = entry(bound(_entry, name, _work=self._work, _arguments=_loader(kinds)))
            self._entries.setdefault(kind, made)  # another thread may have been first
        return self._entries[kind]

    def enter(self, kind: str, kinds: Kinds) -> None:
        """Make it ready, once its entry is compiled."""
        dispatcher = self._entries[kind]
        code = dispatcher.overloads[ENTRY]
        address = code.library.get_pointer_to_function(code.fndesc.llvm_func_name)
        self.ready[kind] = Entry(dispatcher, address, kinds, struct.Struct("".join(map(_letters, kinds))))


KERNELS: list[Kernel] = []  # all that are declared


def kernel(body: Callable[..., None]) -> Kernel:
    """Declare a kernel; see `Kernel` for what its body promises."""
    KERNELS.append(Kernel(body))
    return KERNELS[-1]


# ---- a block of arguments -------------------------------------------------------------------
class Arguments:
    """Some of a kernel's arguments: as they are, which keeps them alive, and as a block holds them."""

    __slots__ = ("numbers", "values")

    def __init__(self, values: tuple[Any, ...] = ()) -> None:
        self.values = values
        self.numbers = numbers_of(values)


def numbers_of(values: tuple[Any, ...]) -> list[Any]:
    """Arguments as a block holds them."""
    numbers: list[Any] = []
    add = numbers.append
    for value in values:
        if type(value) is not np.ndarray:
            add(value)
        elif value.size:
            add(address_of(byte_of(value)))  # these arrays are ours: writeable, and in one piece
            numbers += value.shape
        else:
            add(0)
            numbers += value.shape
    return numbers


NONE = Arguments()


def _letters(kind: Any) -> str:
    """What `struct` calls the places that an argument takes."""
    if isinstance(kind, types.Array):
        assert kind.layout == "C"
        return "q" * int(1 + kind.ndim)
    return "d" if isinstance(kind, types.Float) else "q"


def _loader(kinds: Kinds) -> Any:
    """The instruction that takes arguments of these types from a block."""
    loaded = types.Tuple(kinds)

    @instruction
    def arguments(tyctx: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            places = 0

            def next_of(kind: Any) -> Any:
                nonlocal places
                place = builder.add(args[0], context.get_constant(types.intp, 8 * places))
                places += 1
                return builder.load(
                    builder.inttoptr(place, context.get_value_type(kind).as_pointer()), align=8
                )

            def argument(kind: Any) -> Any:
                if not isinstance(kind, types.Array):
                    stored = types.float64 if isinstance(kind, types.Float) else types.int64
                    return context.cast(builder, next_of(stored), stored, kind)
                array = arrayobj.make_array(kind)(context, builder)
                data = builder.inttoptr(next_of(types.intp), array.data.type)
                shape = [next_of(types.intp) for _ in range(kind.ndim)]
                itemsize = context.get_constant(types.intp, kind.dtype.bitwidth // 8)
                strides = [itemsize]
                for length in shape[:0:-1]:
                    strides.insert(0, builder.mul(strides[0], length))
                arrayobj.populate_array(
                    array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None
                )
                return array._getvalue()

            return context.make_tuple(builder, sig.return_type, [argument(kind) for kind in kinds])

        return loaded(types.intp), codegen

    return arguments


# ---- compiled code --------------------------------------------------------------------------
def _work(w: int, workers: int, first: int, last: int, *args: Any) -> None:
    """Stands for the body that `Kernel` binds in its place."""


def _arguments(at: int) -> Any:
    """Stands for the instruction that `Kernel` binds in its place."""


def _entry(at: int, w0: int, w1: int, workers: int, first: int, last: int) -> None:
    for w in range(w0, w1):
        _work(w, workers, first, last, *_arguments(at))


@instruction
def call(
    tyctx: Any, address: Any, at: Any, w0: Any, w1: Any, workers: Any, first: Any, last: Any
) -> Any:
    """Call an entry by its address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        convention = context.call_conv
        function = convention.get_function_type(types.none, ENTRY)
        callee = builder.inttoptr(args[0], function.as_pointer())
        status, _ = convention.call_function(builder, callee, types.none, ENTRY, args[1:])
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(*DRIVER), codegen


@parallel
def in_parallel(
    address: int, at: int, w0: int, w1: int, workers: int, first: int, last: int
) -> None:
    """An entry, each worker in a thread of Numba's."""
    for w in prange(w0, w1):
        call(address, at, w, w + 1, workers, first, last)
