"""Arrays as the kernels see them, and every check of an argument with its message.

An array argument becomes a `Layout`: rows times columns, and a geometry of eight-byte integers that
tells a kernel where row i lies. Nothing is copied whole, whatever the layout; the one exception is a
tuple of axes that no single stride walks (`columns_together`), and an input that partly overlaps the
output.
"""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]
Axis: TypeAlias = "int | tuple[int, ...] | None"

# A geometry: type code, 1 if byte-swapped, bytes from column to column, 1 if a row lies contiguous,
# aligned and in the compute type; then the number of row dimensions, their sizes, their strides.
CODE, SWAP, STRIDE, DIRECT, PLAIN, RANK = 0, 1, 2, 3, 4, 5
CODES = {
    name: code
    for code, name in enumerate(
        ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "f2", "bfloat16")
    )
}
_CHARS = frozenset("fdbhilqBHILQ?e")  # of NumPy's own among them, in either byte order
# The address of an array that `is_plain` and not empty: a third of the time of array.ctypes.data.
byte_of: Any = ctypes.c_char.from_buffer
address_of = ctypes.addressof
F16, F32, F64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)


# NumPy's flags of a buffer that ctypes takes: contiguous, aligned, writeable, and no "warn on write" instead.
PLAIN_FLAGS = 0x0001 | 0x0100 | 0x0400
LOOKED_AT = PLAIN_FLAGS | 1 << 31


# What a kernel gets where an optional array is absent.
NONE = {dtype: np.empty(0, dtype) for dtype in (F32, F64)}


class Layout(NamedTuple):
    """An array as rows and columns."""

    rows: int
    columns: int
    step: int  # bytes from column to column
    run: int  # rows at one distance from each other
    apart: int  # that distance in bytes
    geometry: int  # its address, in
    memory: NDArray[np.int64]

    @property
    def beside(self) -> bool:
        """Whether rows lie nearer to each other than their own elements do."""
        return 0 < abs(self.apart) < abs(self.step)

    @property
    def flat(self) -> bool:
        """Whether rows lie one after the other, with nothing between them."""
        return 0 < self.columns * self.step == self.apart

    @property
    def direct(self) -> bool:
        """Whether rows are walked as they lie."""
        return bool(self.memory[DIRECT])


# ---- resolving ------------------------------------------------------------------------------
def real(value: ArrayLike, name: str) -> Array:
    """`value` as an ndarray of a type that fastloss computes with, or TypeError."""
    if type(value) is np.ndarray:
        array = value
    else:
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask would be ignored; "
                f"pass {name}.filled(...) with the value that masked entries should have"
            )
        array = as_array(value, name)
    dtype = array.dtype  # other packages' types, of kind V, have characters of NumPy's
    if (dtype.char not in _CHARS or dtype.kind == "V") and not is_bfloat16(dtype):
        raise TypeError(f"{name} has dtype {array.dtype}; {_mend(array.dtype)}")
    return array


def as_array(value: Any, name: str) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"{name} cannot be made an array: {error}") from None


def _mend(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "float32 and float64 are supported, use .astype(np.float64)"
    if dtype.str == "|V2" and dtype.names is None:  # what np.load makes of bfloat16
        return "expected a real numeric array; if it holds bfloat16, use .view(ml_dtypes.bfloat16)"
    return "expected a real numeric array (float16, bfloat16, float32, float64, integers or bool)"


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether it is ml_dtypes.bfloat16, known by its name: NumPy has none of its own."""
    return dtype.name == "bfloat16" and dtype.itemsize == 2


def result_type(array: Array) -> np.dtype[Any]:
    """The type of results of the shape of `array`: its own, native; float64 for integers and bool."""
    char = array.dtype.char
    if char == "f":
        return F32
    if char == "e":
        return F16
    return array.dtype.newbyteorder("=") if char not in _CHARS else F64


def upcast(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What a type of results is computed in, and the type of results of one a row: float32 for halves."""
    return F64 if dtype == F64 else F32


def axes_of(axis: Axis, ndim: int, name: str) -> tuple[int, ...]:
    """The axes meant, ascending; 0-d arrays have one element and no axis but None."""
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    if ndim == 0:
        if axis is None:
            return ()
        raise ValueError(f"{name} is 0-d and has no axis {axis}; pass axis=None or a 1-d array")
    if axis is None:
        return tuple(range(ndim))
    found = []
    for one in axis if isinstance(axis, tuple) else (axis,):
        try:
            one = operator.index(one)
        except TypeError:
            raise TypeError(f"axis must be an int, a tuple of ints or None, got {axis!r}") from None
        if not -ndim <= one < ndim:
            raise np.exceptions.AxisError(one, ndim)
        found.append(one % ndim)
    if len(set(found)) != len(found):
        raise ValueError(f"axis {axis} names an axis twice")
    return tuple(sorted(found))


def axis_of(axis: int, ndim: int, name: str) -> int:
    """The one axis meant."""
    if ndim == 0:
        raise ValueError(f"{name} is 0-d and has no class axis; pass an array of at least 1-d")
    try:
        one = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis must be an int here, one class axis, got {axis!r}") from None
    return axes_of(one, ndim, name)[0]


@lru_cache(maxsize=1024)
def _layout(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: np.dtype[Any],
    aligned: bool,
    axes: tuple[int, ...],
    compute: np.dtype[Any],
) -> Layout | None:
    columns = _merged([(shape[a], strides[a]) for a in axes])
    if len(columns) > 1:
        return None
    count, step = columns[0] if columns else (1, dtype.itemsize)
    if count < 2:
        step = dtype.itemsize
    rows = _merged([(n, s) for a, (n, s) in enumerate(zip(shape, strides, strict=True)) if a not in axes])
    sizes, steps = [n for n, _ in rows] or [1], [s for _, s in rows] or [0]
    plain = dtype == compute and dtype.isnative and aligned
    code = CODES["bfloat16" if is_bfloat16(dtype) else dtype.str[1:]]
    geometry = np.array(
        [
            code, not dtype.isnative, step, plain and step == dtype.itemsize, plain,
            len(sizes), *sizes, *steps,
        ],
        dtype=np.int64,
    )
    n = math.prod(shape[a] for a in range(len(shape)) if a not in axes)
    length = math.prod(shape[a] for a in axes)
    return Layout(n, length, step, sizes[-1], steps[-1], address(geometry), geometry)


def _merged(dims: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same walk, in C order, in as few (size, stride) dimensions as it takes."""
    out: list[tuple[int, int]] = []
    for n, s in dims:
        if n == 1:
            continue
        if out and out[-1][1] == n * s:
            out[-1] = (out[-1][0] * n, s)
        else:
            out.append((n, s))
    return out


def layout(array: Array, axes: tuple[int, ...], compute: np.dtype[Any]) -> Layout | None:
    """`array` as rows and columns, the columns along `axes`; None where no one stride walks them."""
    return _layout(array.shape, array.strides, array.dtype, array.flags.aligned, axes, compute)


def columns_together(array: Array, axes: tuple[int, ...]) -> Array:
    """A C-contiguous copy with the dimensions of `axes` last, merged into one."""
    moved = np.moveaxis(array, axes, range(-len(axes), 0))
    rows = moved.shape[: array.ndim - len(axes)]
    return np.ascontiguousarray(moved).reshape(*rows, -1)


def rows_of(array: Array, axes: tuple[int, ...], compute: np.dtype[Any]) -> Layout:
    """The layout along axes that one stride walks, as it always does a single one."""
    found = layout(array, axes, compute)
    assert found is not None
    return found


def operand(
    array: Array, axes: tuple[int, ...], compute: np.dtype[Any]
) -> tuple[Array, Layout]:
    """`array`, or its copy with its columns together, and the layout of what is returned."""
    found = layout(array, axes, compute)
    if found is None:
        array = columns_together(array, axes)
        found = rows_of(array, (array.ndim - 1,), compute)
    return array, found


def destination(
    out: Array, axes: tuple[int, ...], compute: np.dtype[Any]
) -> tuple[Array, Layout]:
    """Where a kernel writes rows of `out`: in place, or where no one stride walks its columns in a
    new array, for `write_back` to copy from.
    """
    found = layout(out, axes, compute)
    if found is not None:
        return out, found
    columns = math.prod(out.shape[a] for a in axes)
    target = np.empty((*without(out.shape, axes), columns), out.dtype.newbyteorder("="))
    return target, rows_of(target, (target.ndim - 1,), compute)


def write_back(out: Array, axes: tuple[int, ...], target: Array) -> None:
    """Copy to `out` what a kernel wrote to its `destination`, another array."""
    moved = np.moveaxis(out, axes, range(-len(axes), 0))
    moved[...] = target.reshape(moved.shape)


def without(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """A shape less some of its axes."""
    return tuple(n for a, n in enumerate(shape) if a not in axes)


def is_plain(array: Array) -> bool:
    """Whether ctypes takes the memory of an array of NumPy's own types."""
    return array.flags.num & LOOKED_AT == PLAIN_FLAGS


def address(array: Array) -> int:
    if is_plain(array) and array.dtype.char in _CHARS and array.size:
        return address_of(byte_of(array))
    return array.ctypes.data


# ---- companions, outputs, aliasing ----------------------------------------------------------
def same_shape(array: Array, shape: tuple[int, ...], name: str, of: str) -> Array:
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}, expected {shape}, the shape of {of}; "
            f"it is never broadcast (use np.broadcast_to({name}, {shape}) if that is meant)"
        )
    return array


def output(
    out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out"
) -> Array:
    """`out` if it can take the result, or a new array."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a numpy.ndarray, not {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}, expected {shape}")
    if out.dtype.newbyteorder("=") != dtype:
        raise ValueError(f"{name} has dtype {out.dtype}, expected {dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only; pass a writeable array")
    return out


def given_or_scalar(result: Array, out: Array | None) -> Any:
    """A result as it is returned: a new one that is 0-d as a NumPy scalar."""
    return result if out is not None or result.ndim else result[()]


def pair_of(
    out: tuple[Array | None, Array | None] | None, meaning: str = "(gradient, Hessian diagonal)"
) -> tuple[Array | None, Array | None]:
    """Where two results are to be written, or None for new arrays."""
    if out is not None and (not isinstance(out, tuple) or len(out) != 2):
        raise TypeError(f"out must be a pair of arrays, {meaning}, or None")
    return out or (None, None)


def apart(array: Array, out: Array) -> Array:
    """`array`, or a copy of it where `out` overlaps it in any way but being the very same array."""
    if not np.may_share_memory(array, out):
        return array
    if (
        array.shape == out.shape
        and array.strides == out.strides
        and array.dtype == out.dtype
        and address(array) == address(out)
    ):
        return array
    return array.copy() if overlap(array, out) else array


def is_beside(out: Array, x: Array) -> bool:
    """Whether ctypes takes the memory of both, as many bytes, and they lie apart or in the same place."""
    if out.flags.num & LOOKED_AT != PLAIN_FLAGS or x.flags.num & LOOKED_AT != PLAIN_FLAGS:
        return False
    size, to, at = out.nbytes, address_of(byte_of(out)), address_of(byte_of(x))
    return at == to or at >= to + size or to >= at + size


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share a byte; True where finding out would take too long."""
    effort: Any = 10_000
    try:
        return np.shares_memory(a, b, max_work=effort)
    except np.exceptions.TooHardError:
        return True


# ---- options --------------------------------------------------------------------------------
def positive(value: float, name: str) -> float:
    if type(value) is float and 0.0 < value < math.inf:
        return value
    number = number_of(value, name)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    return number


def finite(value: float, name: str) -> float:
    number = number_of(value, name)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def nonnegative(value: float, name: str) -> float:
    number = number_of(value, name)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {value!r}")
    return number


def fraction(value: float, name: str) -> float:
    number = number_of(value, name)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
    return number


def number_of(value: Any, name: str) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None


def index_of(value: int, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


REDUCTIONS = ("mean", "sum", "none")


def reduction_of(value: str) -> str:
    if value not in REDUCTIONS:
        raise ValueError(f"reduction must be one of 'mean', 'sum' and 'none', got {value!r}")
    return value


# ---- targets and weights --------------------------------------------------------------------
def class_indices(targets: ArrayLike, shape: tuple[int, ...], axis: int, of: str) -> Array:
    """Class-index targets, an integer for each row; whether they are classes is not looked at."""
    given = as_array(targets, "targets")
    classes = shape[axis]
    expected = shape[:axis] + shape[axis + 1 :]
    if isinstance(targets, np.ma.MaskedArray):
        raise TypeError("targets is a masked array; pass targets.filled(ignore_index)")
    if given.dtype.kind not in "iu":
        if given.size == 0 and given.dtype == F64 and not isinstance(targets, np.ndarray):
            given = given.astype(np.int64)  # an empty list has no type of its own
        elif given.dtype.kind == "f":
            raise TypeError(
                f"targets has dtype {given.dtype}; class indices are integers, use targets.astype(np.int64) "
                f"(class probabilities, where they are taken, have the shape of {of}, {shape})"
            )
        else:
            raise TypeError(
                f"targets has dtype {given.dtype}; expected integer class indices of shape "
                f"{expected}"
            )
    if given.shape != expected:
        hint = ""
        if given.shape == shape:
            hint = "; for one-hot rows pass targets.argmax(axis)"
        elif given.size == math.prod(expected):
            hint = f"; targets are never broadcast, use targets.reshape({expected})"
        raise ValueError(
            f"targets has shape {given.shape}, expected {expected}, the shape of {of} "
            f"{shape} without axis {axis}{hint}"
        )
    if classes == 0:
        raise ValueError(f"{of} of shape {shape} have no classes along axis {axis}")
    return given


def are_probabilities(targets: ArrayLike, logits: ArrayLike) -> bool:
    """Whether targets are floats of the logits' shape, class probabilities; what else they may be is not
    looked at.
    """
    given = targets if isinstance(targets, np.ndarray) else as_array(targets, "targets")
    if given.dtype.kind != "f" and not is_bfloat16(given.dtype):
        return False
    return given.ndim > 0 and given.shape == as_array(logits, "logits").shape


def probabilities(targets: ArrayLike, shape: tuple[int, ...], axis: int, of: str) -> Array:
    """Class-probability targets, of the logits' shape."""
    given = same_shape(real(targets, "targets"), shape, "targets", of)
    if shape[axis] == 0:
        raise ValueError(f"{of} of shape {shape} have no classes along axis {axis}")
    return given


def all_classes(indices: Array, classes: int) -> bool:
    """Whether all are from 0 to `classes` - 1, in one pass."""
    if indices.size <= 64:  # NumPy takes longer to begin than Python for all of it
        few = indices.reshape(-1).tolist()
        return not few or (min(few) >= 0 and max(few) < classes)
    if indices.dtype.kind == "i":  # read as unsigned, what is below 0 is above all that is not
        indices = indices.view(indices.dtype.str.replace("i", "u"))
        classes = min(classes, 1 << 8 * indices.dtype.itemsize - 1)
    return int(indices.max()) < classes


def class_targets(given: Array, classes: int, ignore_index: int) -> tuple[NDArray[np.int64], int]:
    """A private int64 copy of class indices, range-checked, -1 where a row is ignored; and how many are not.

    The copy is taken first and checked after, so that what was checked is what is used, even while
    another thread writes to `given`.
    """
    own = np.array(given, dtype=given.dtype.newbyteorder("="), order="C").reshape(-1)
    inside = all_classes(own, classes)
    if not inside:
        wrong = (own != ignore_index) & ((own < 0) | (own >= classes))
        if wrong.any():
            first = int(wrong.argmax())
            where = tuple(int(i) for i in np.unravel_index(first, given.shape))
            raise IndexError(
                f"targets{list(where) if where else ''} is {own[first]}, out of range for "
                f"{classes} classes (0 to {classes - 1}, or ignore_index={ignore_index})"
            )
    checked, counted = own.astype(np.int64, copy=False), own.size
    if not inside or 0 <= ignore_index < classes:
        ignored = own == ignore_index
        checked[ignored] = -1
        counted -= int(np.count_nonzero(ignored))
    return checked, counted


def class_weights(weight: ArrayLike | None, classes: int, dtype: DTypeLike) -> Array | None:
    if weight is None:
        return None
    array = real(weight, "weight")
    if array.shape != (classes,):
        raise ValueError(
            f"weight has shape {array.shape}, expected ({classes},), one for each class"
        )
    return converted(array, dtype)


def sample_weights(
    weight: ArrayLike | None, shape: tuple[int, ...], dtype: DTypeLike
) -> Array | None:
    if weight is None:
        return None
    array = same_shape(real(weight, "sample_weight"), shape, "sample_weight", "the unreduced loss")
    return converted(array, dtype).reshape(-1)


def converted(array: Array, dtype: DTypeLike) -> Array:
    """A C-contiguous copy in a type; what is too large for it becomes infinite, as the rule is."""
    with np.errstate(all="ignore"):
        return np.array(array, dtype=dtype, order="C")


def lifted(weight: Array) -> Array:
    """Weights of a mean, which counts their ratios, times the power of two that brings the largest
    near 1, where that is exact: so the smallest numbers of the type are weights like any other.
    """
    top = np.abs(weight).max(initial=0.0)
    if not 0.0 < top < np.inf:
        return weight
    power = np.frexp(top)[1]
    scaled: Array = np.ldexp(weight, -power)
    return scaled if np.array_equal(np.ldexp(scaled, power), weight) else weight
