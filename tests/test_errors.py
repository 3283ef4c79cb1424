"""Bad input: which exception, what its message says, and that nothing has been written.

Every row of the table is (id, call, exception, what the message must match). A call gets fresh
arrays; afterwards each of them holds the bytes that it held before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import fastloss as fl

Array = np.ndarray
AxisError = np.exceptions.AxisError
ce, nll = fl.cross_entropy, fl.nll_loss


def numbers(*shape: int) -> Array:
    """None of them could be a result."""
    return (np.arange(np.prod(shape)) / 7 + 9).astype(np.float32).reshape(shape)


class Arrays:
    """Arguments that are right, and outputs."""

    def __init__(self) -> None:
        self.x, self.t, self.out, self.other = (numbers(3, 4) for _ in range(4))
        self.class_row, self.rows, self.wide = numbers(4), numbers(3), numbers(2, 3, 4)
        self.y = np.array([0, 3, -100])

    def bytes(self) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in vars(self).items()}


class Row(NamedTuple):
    id: str
    call: Callable[[Arrays], Any]
    error: type[Exception]
    match: str


class From(NamedTuple):
    """A value made from the arrays of the call."""

    make: Callable[[Arrays], Any]


def each(
    what: str, call: Callable[[Arrays, Any], Any], values: Mapping[str, Any],
    error: type[Exception], match: str,
) -> list[Row]:
    """A row for each value, whose label stands for %s in what the message must match."""
    def bound(value: Any) -> Callable[[Arrays], Any]:
        return lambda a: call(a, value.make(a) if isinstance(value, From) else value)

    return [
        Row(f"{what}: {label}", bound(value), error, match.replace("%s", re.escape(label)))
        for label, value in values.items()
    ]


def shown(*values: Any) -> dict[str, Any]:
    return {repr(value): value for value in values}


def ones(*shapes: tuple[int, ...]) -> dict[str, Array]:
    return {str(shape): np.ones(shape, np.float32) for shape in shapes}


def frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


# Every call that takes an `out` of the shape of x.
OUTPUTS: dict[str, Callable[[Arrays, Any], Any]] = {
    "softmax": lambda a, out: fl.softmax(a.x, out=out),
    "softmax.jvp": lambda a, out: fl.softmax.jvp(a.x, a.t, out=out),
    "softmax.vjp": lambda a, out: fl.softmax.vjp(a.x, a.t, out=out),
    "softmax.jvp_from_output": lambda a, out: fl.softmax.jvp_from_output(a.x, a.t, out=out),
    "log_softmax": lambda a, out: fl.log_softmax(a.x, out=out),
    "log_softmax.vjp": lambda a, out: fl.log_softmax.vjp(a.x, a.t, out=out),
    "log_softmax.vjp_from_output": lambda a, out: fl.log_softmax.vjp_from_output(a.x, a.t, out=out),
    "logsumexp.vjp": lambda a, out: fl.logsumexp.vjp(a.x, a.rows, out=out),
    "softplus": lambda a, out: fl.softplus(a.x, out=out),
    "sigmoid.jvp": lambda a, out: fl.sigmoid.jvp(a.x, a.t, out=out),
    "log_sigmoid.vjp": lambda a, out: fl.log_sigmoid.vjp(a.x, a.t, out=out),
    "cross_entropy.grad": lambda a, out: ce.grad(a.x, a.y, out=out),
    "cross_entropy.value_and_grad": lambda a, out: ce.value_and_grad(a.x, a.y, out=out),
    "cross_entropy.hvp": lambda a, out: ce.hvp(a.x, a.y, a.t, out=out),
    "cross_entropy.grad of probabilities": lambda a, out: ce.grad(a.x, a.t, out=out),
    "cross_entropy.hvp of probabilities": lambda a, out: ce.hvp(a.x, a.t, a.other, out=out),
    "nll_loss.grad": lambda a, out: nll.grad(a.x, a.y, out=out),
}

# Every array argument: a call with a value in its place, and what the message calls it.
PLACES: dict[str, tuple[Callable[[Arrays, Any], Any], str]] = {
    "softmax": (lambda a, v: fl.softmax(v, out=a.out), "x"),
    "softmax.jvp": (lambda a, v: fl.softmax.jvp(a.x, v, out=a.x), "tangent"),
    "softmax.vjp": (lambda a, v: fl.softmax.vjp(a.x, v, out=a.x), "cotangent"),
    "softmax.jvp_from_output": (lambda a, v: fl.softmax.jvp_from_output(a.x, v, out=a.x), "tangent"),
    "softmax.jacobian": (lambda _, v: fl.softmax.jacobian(v), "x"),
    "log_softmax": (lambda a, v: fl.log_softmax(v, out=a.out), "x"),
    "log_softmax.jvp": (lambda a, v: fl.log_softmax.jvp(v, a.t, out=a.t), "x"),
    "log_softmax.vjp": (lambda a, v: fl.log_softmax.vjp(a.x, v, out=a.out), "cotangent"),
    "logsumexp": (lambda a, v: fl.logsumexp(v, out=a.rows), "x"),
    "logsumexp.jvp": (lambda a, v: fl.logsumexp.jvp(a.x, v, out=a.rows), "tangent"),
    "logsumexp.vjp": (lambda a, v: fl.logsumexp.vjp(a.x, v, out=a.x), "cotangent"),
    "softplus": (lambda a, v: fl.softplus(v, out=a.out), "x"),
    "sigmoid.jvp": (lambda a, v: fl.sigmoid.jvp(a.x, v, out=a.x), "tangent"),
    "log_sigmoid.vjp": (lambda a, v: fl.log_sigmoid.vjp(a.x, v, out=a.out), "cotangent"),
    "cross_entropy": (lambda a, v: ce(v, a.y), "logits"),
    "cross_entropy.grad": (lambda a, v: ce.grad(v, a.y, out=a.out), "logits"),
    "cross_entropy.hvp": (lambda a, v: ce.hvp(a.x, a.y, v, out=a.x), "tangent"),
    "cross_entropy(weight)": (lambda a, v: ce.grad(a.x, a.y, weight=v, out=a.x), "weight"),
    "cross_entropy(sample_weight)": (
        lambda a, v: ce.grad(a.x, a.y, sample_weight=v, out=a.x), "sample_weight"
    ),
    "cross_entropy(targets)": (lambda a, v: ce.grad(a.x, v, out=a.x), "targets"),
    "nll_loss": (lambda a, v: nll(v, a.y), "log_probs"),
    "nll_loss(weight)": (lambda a, v: nll.grad(a.x, a.y, weight=v, out=a.x), "weight"),
    "nll_loss(targets)": (lambda a, v: nll.grad(a.x, v, out=a.x), "targets"),
}


def types() -> list[Row]:
    """No array may be of a type that is not real, nor masked."""
    right = numbers(3, 4)
    mends = {
        "expected": [
            right.astype(kind) for kind in (complex, object, str, bytes, "M8[s]", "m8[s]", "V4")
        ] + [np.zeros((3, 4), [("a", "f4")])],
        r".*view\(ml_dtypes\.bfloat16\)": [right.view("V2")[:, ::2]],
        r".*astype\(np\.float64\)": [right.astype(np.longdouble)],
    }
    masked = np.ma.masked_array(right.astype(int), right > 10)
    table = []
    for place, (call, name) in PLACES.items():
        for mend, bad in mends.items():
            values = {str(array.dtype): array for array in bad}
            may_be_floats = place == "cross_entropy(targets)" and "float64" in mend
            mend = r".*integer" if name == "targets" and not may_be_floats else mend
            table += each(place, call, values, TypeError, rf"^{name} has dtype %s; .*{mend}")
        values = {"masked": masked, "unmasked": np.ma.masked_array(right)}
        table += each(place, call, values, TypeError, rf"^{name} is a masked array.*{name}\.filled\(")
    return table


def outputs() -> list[Row]:
    """`out` has exactly the shape and dtype of the result, and can be written."""
    shapes = {
        "(2, 4)": From(lambda a: a.out[:2]),
        "(4, 3)": From(lambda a: a.out.reshape(4, 3)),
        "(1, 3, 4)": From(lambda a: a.out[None]),
        "(12,)": From(lambda a: a.out.reshape(-1)),
    }
    dtypes = {
        "float64": From(lambda a: a.out.astype("f8")),
        "float16": From(lambda a: a.out.astype("f2")),
        "int32": From(lambda a: a.out.view("i4")),
    }
    fixed = {
        "out": From(lambda a: frozen(a.out)),
        "x": From(lambda a: frozen(a.x)),
        "broadcast": From(lambda a: np.broadcast_to(a.class_row, (3, 4))),
    }
    others = {
        "list": From(lambda a: a.out.tolist()),
        "float": 0.0,
        "MaskedArray": From(lambda a: np.ma.masked_array(a.out)),
    }
    table = []
    for name, call in OUTPUTS.items():
        what = f"out of {name}"
        table += each(what, call, shapes, ValueError, r"^out has shape %s, expected \(3, 4\)")
        table += each(what, call, dtypes, ValueError, "^out has dtype %s, expected float32")
        table += each(what, call, fixed, ValueError, "^out is read-only; pass")
        table += each(what, call, others, TypeError, "^out must be a numpy.ndarray, not %s")
    lse, wrong = fl.logsumexp, r"^out has (shape|dtype) .*, expected "
    return [
        *table,
        Row("logsumexp", lambda a: lse(a.x, out=a.class_row), ValueError, rf"{wrong}\(3,\)"),
        Row("keepdims", lambda a: lse(a.x, keepdims=True, out=a.rows), ValueError, rf"{wrong}\(3, 1\)"),
        Row("logsumexp.jvp", lambda a: lse.jvp(a.x, a.t, out=a.out), ValueError, rf"{wrong}\(3,\)"),
        Row("int x", lambda a: fl.softmax(a.x.astype(int), out=a.out), ValueError, f"{wrong}float64"),
    ]


def pairs() -> list[Row]:
    """The outputs of value_grad_hess."""
    def call(a: Arrays, out: Any) -> Any:
        return ce.value_grad_hess(a.x, a.y, out=out)

    overlapping = {
        "the same": From(lambda a: (a.out, a.out)),
        "both x": From(lambda a: (a.x, a.x)),
        "in part": From(lambda a: (a.wide.reshape(6, 4)[:3], a.wide.reshape(6, 4)[2:5])),
    }
    no_pairs = {
        "array": From(lambda a: a.out),
        "stacked": From(lambda a: np.stack([a.out, a.other])),
        "one": From(lambda a: (a.out,)),
        "three": From(lambda a: (a.out, a.other, None)),
    }
    wrong = {
        "0] has shape (4,), expected (3, 4)": From(lambda a: (a.class_row, a.out)),
        "1] has shape (4,), expected (3, 4)": From(lambda a: (a.x, a.class_row)),
        "1] has dtype float64, expected float32": From(lambda a: (a.x, a.out.astype("f8"))),
        "1] is read-only": From(lambda a: (a.x, frozen(a.out))),
    }
    lists = {"0": From(lambda a: ([], a.x)), "1": From(lambda a: (a.x, []))}
    return [
        *each("out overlap", call, overlapping, ValueError, r"^out\[0\] and out\[1\] overlap; .*two"),
        *each("out no pair", call, no_pairs, TypeError, "^out must be a pair"),
        *each("out pair", call, wrong, ValueError, r"^out\[%s"),
        *each("out list", call, lists, TypeError, r"^out\[%s\] must be a numpy.ndarray"),
    ]


def axes() -> list[Row]:
    table = []
    for op in (fl.softmax, fl.log_softmax, fl.logsumexp):
        what = f"axis of {op.__name__}"

        def call(a: Arrays, axis: Any, op: Any = op) -> Any:
            return op(a.x, axis)

        def of_zero_d(_: Arrays, axis: Any, op: Any = op) -> Any:
            return op(1.0, axis)

        out_of_range, repeated = shown(2, -3, (0, 2), (-3,), 2**40), shown((0, 0), (1, -1), (0, 1, -2))
        no_ints = shown(1.0, "1", [0], (0.5,), np.array([0, 1]))
        table += each(what, call, out_of_range, AxisError, "axis .* out of bounds .* dimension 2")
        table += each(what, call, repeated, ValueError, "^axis %s names an axis twice")
        table += each(what, call, no_ints, TypeError, "^axis .*int")
        table += each(f"0-d {what}", of_zero_d, shown(-1, 0, (0,)), ValueError, "^x is 0-d .*axis=None")
    one_axis: dict[str, Callable[[Arrays, Any], Any]] = {
        "softmax.jacobian": lambda a, axis: fl.softmax.jacobian(a.x, axis),
        "jacobian of a vector": lambda a, axis: fl.log_softmax.jacobian(a.rows, axis),
        "cross_entropy": lambda a, axis: ce.grad(a.x, a.y, axis=axis, out=a.x),
        "cross_entropy.hvp": lambda a, axis: ce.hvp(a.x, a.y, a.t, axis=axis, out=a.t),
        "nll_loss": lambda a, axis: nll.grad(a.x, a.y, axis=axis, out=a.x),
    }
    for name, call in one_axis.items():
        no_ints = shown((0,), (), None, 1.0, "1", [0])
        table += each(f"axis of {name}", call, no_ints, TypeError, "axis.* int")
        table += each(f"axis of {name}", call, shown(2, -3), AxisError, "axis %s is out of bounds")
        if "vector" not in name:
            table += each(f"axis of {name}", call, shown((0, 1)), TypeError, "axis.* int")
    return [
        *table,
        Row("0-d logits", lambda _: ce(1.0, 0), ValueError, "^logits is 0-d.*no class axis.*1-d"),
        Row("ragged x", lambda _: fl.softmax([[1.0], [1.0, 2.0]]), ValueError, "^x cannot be made an array"),
        Row(
            "ragged targets", lambda _: ce(np.zeros((2, 1)), [[0], [0, 1]]), ValueError,
            "^targets cannot be made an array",
        ),
        Row("0-d log_probs", lambda _: nll(1.0, 0), ValueError, "^log_probs is 0-d.*1-d"),
        Row("0-d jacobian", lambda _: fl.softmax.jacobian(1.0), ValueError, "^x is 0-d.*1-d"),
    ]


def shapes() -> list[Row]:
    """Nothing is broadcast."""
    table = []
    wrong = ones((4,), (3, 1), (1, 4), (1, 1), (), (4, 3), (12,), (1, 3, 4), (2, 4))
    for place, (call, name) in PLACES.items():
        if name in ("tangent", "cotangent") and place != "logsumexp.vjp":
            match = rf"^{name} has shape %s, expected \(3, 4\).*broadcast"
            table += each(place, call, wrong, ValueError, match)
        if name == "weight":
            weights = ones((3,), (5,), (1, 4), (), (0,), (3, 4))
            match = r"^weight has shape %s, expected \(4,\), one for each class"
            table += each(place, call, weights, ValueError, match)
        if name == "sample_weight":
            weights = ones((), (1,), (4,), (3, 1), (1, 3), (3, 4))
            match = r"^sample_weight has shape %s, expected \(3,\).*np\.broadcast_to"
            table += each(place, call, weights, ValueError, match)
    column = {"(3,)": numbers(3), "(1, 3)": numbers(1, 3), "()": 1.0}
    row = {"(3, 1)": numbers(3, 1), "(1, 3)": numbers(1, 3), "()": 1.0}
    calls: dict[str, tuple[Callable[[Arrays, Any], Any], dict[str, Any], str]] = {
        "logsumexp.vjp": (lambda a, v: fl.logsumexp.vjp(a.x, v), row, r"\(3,\)"),
        "keepdims": (lambda a, v: fl.logsumexp.vjp(a.x, v, keepdims=True), column, r"\(3, 1\)"),
        "jvp of (n,)": (lambda a, v: fl.softmax.jvp(a.rows, v), row, r"\(3,\)"),
        "vjp of (n, 1)": (lambda a, v: fl.sigmoid.vjp(a.rows[:, None], v), column, r"\(3, 1\)"),
    }
    for name, (call, values, shape) in calls.items():
        match = rf"^(co)?tangent has shape %s, expected {shape}.*broadcast"
        table += each(name, call, values, ValueError, match)
    return table


def targets() -> list[Row]:
    floats = {
        "float32": From(lambda a: a.y.astype("f4")),
        "float64": [0.0, 1.0, 2.0],
        "float64 of one more axis": np.full((1, 3, 4), 0.25),
    }
    probabilities = {"float64 of the logits' shape": np.full((3, 4), 0.25)}
    bools = {"rows": np.ones(3, bool), "of the logits' shape": np.ones((3, 4), bool), "list": [True] * 3}
    columns = {"(3, 1)": numbers(3, 1).astype(int), "(1, 3)": [[0, 1, 2]]}
    others = {str(shape): np.zeros(shape, int) for shape in ((), (2,), (4,), (0,), (1,), (3, 3))}
    kinds = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">u8")
    largest = {str(np.iinfo(k).max): np.array([0, np.iinfo(k).max, 0], k) for k in kinds}
    wrong = {
        "[1] is 4": [0, 4, 9],
        "[2] is -1": [0, -100, -1],
        "[0] is -101": [-101, 0, 8],
    }
    table = []
    for loss in (ce, nll):
        what = f"targets of {loss.__name__}"

        def call(a: Arrays, y: Any, loss: Any = loss) -> Any:
            return loss.value_and_grad(a.x, y, out=a.x)

        def of_3d(a: Arrays, y: Any, loss: Any = loss) -> Any:
            return loss.value_and_grad(a.wide, y, out=a.wide)

        def of_1d(a: Arrays, y: Any, loss: Any = loss) -> Any:
            return loss.value_and_grad(a.class_row, y, out=a.class_row)

        def never_ignored(a: Arrays, y: Any, loss: Any = loss) -> Any:
            return loss.value_and_grad(a.x, y, ignore_index=0, out=a.x)

        one_hot = {"(3, 4)": np.eye(4, dtype=int)[:3]}
        in_three, scalar = {"[1, 1] is -2": [[0, 1, 2], [3, -2, 7]]}, {"targets is 4": 4}
        ignored = {"[2] is -100": [0, 0, -100]}
        shape = r"^targets has shape %s, expected \(3,\)"
        table += each(what, call, floats, TypeError, r"^targets has dtype float.*astype\(np\.int64\)")
        if loss is nll:
            match = r"^targets has dtype float64.*astype\(np\.int64\)"
            table += each(what, call, probabilities, TypeError, match)
        table += each(what, call, bools, TypeError, "^targets has dtype bool.*integer")
        table += each(what, call, one_hot, ValueError, shape + ".*one-hot.*argmax")
        table += each(what, call, columns, ValueError, shape + ".*broadcast.*reshape")
        table += each(what, call, others, ValueError, shape)
        table += each(what, of_3d, {"(3,)": [0, 1, 2]}, ValueError, r"shape %s, expected \(2, 3\)")
        table += each(what, of_1d, {"(1,)": [0]}, ValueError, r"shape %s, expected \(\)")
        table += each(what, call, wrong, IndexError, r"^targets%s, .*4 classes \(0 to 3, .*index=-100\)")
        table += each(what, call, largest, IndexError, r"^targets\[1\] is %s, out of range")
        table += each(what, of_3d, in_three, IndexError, r"^targets%s, out of range")
        table += each(what, of_1d, scalar, IndexError, r"^%s, out of range")
        table += each(what, never_ignored, ignored, IndexError, r"^targets%s, .*ignore_index=0\)")
    return table


def options() -> list[Row]:
    no_numbers = shown("1", "a", None, 1j, [0.5], np.array([0.5]), np.ones(3), {})
    tempered: dict[str, Callable[[Arrays, Any], Any]] = {
        "softmax": lambda a, t: fl.softmax(a.x, temperature=t, out=a.x),
        "softmax.vjp": lambda a, t: fl.softmax.vjp(a.x, a.t, temperature=t, out=a.x),
        "softmax.jacobian": lambda a, t: fl.softmax.jacobian(a.x, temperature=t),
        "log_softmax": lambda a, t: fl.log_softmax(a.x, temperature=t, out=a.x),
        "log_softmax.jvp_from_output": lambda a, t: fl.log_softmax.jvp_from_output(
            a.x, a.t, temperature=t, out=a.x
        ),
        "cross_entropy": lambda a, t: ce.grad(a.x, a.y, temperature=t, out=a.x),
    }
    table = []
    for name, call in tempered.items():
        what, outside = f"temperature of {name}", shown(0, 0.0, -1, np.inf, -np.inf, np.nan)
        table += each(what, call, outside, ValueError, "^temperature must be finite and > 0, got %s")
        table += each(what, call, no_numbers, TypeError, "^temperature must be a real number, got")

    def smoothed(a: Arrays, smoothing: Any) -> Any:
        return ce.grad(a.x, a.y, label_smoothing=smoothing, out=a.x)

    outside = shown(-0.1, -1e-300, 1.0000001, 2, np.inf, np.nan)
    match = r"^label_smoothing must be in \[0, 1\], got %s"
    table += each("label_smoothing", smoothed, outside, ValueError, match)
    match = "^label_smoothing must be a real number, got"
    table += each("label_smoothing", smoothed, no_numbers, TypeError, match)
    for loss in (ce, nll):
        def reduced(a: Arrays, reduction: Any, loss: Any = loss) -> Any:
            return loss.grad(a.x, a.y, reduction=reduction, out=a.x)

        def ignoring(a: Arrays, index: Any, loss: Any = loss) -> Any:
            return loss.grad(a.x, a.y, ignore_index=index, out=a.x)

        unknown = shown("avg", "MEAN", "", None, 0, True, ["mean"])
        match = "^reduction must be one of 'mean', 'sum' and 'none', got %s"
        table += each(f"reduction of {loss.__name__}", reduced, unknown, ValueError, match)
        no_index = shown(0.0, -100.0, "0", None, [0], np.array([0, 1]))
        match = "^ignore_index must be an integer, got"
        table += each(f"ignore_index of {loss.__name__}", ignoring, no_index, TypeError, match)
    return table


def signatures() -> list[Row]:
    """Unknown, missing and surplus arguments."""
    table = [
        Row("hvp without tangent", lambda a: ce.hvp(a.x, a.y), TypeError, "tangent"),
        Row("jvp without tangent", lambda a: fl.softmax.jvp(a.x), TypeError, "tangent"),
        Row("vjp without cotangent", lambda a: fl.logsumexp.vjp(a.x), TypeError, "cotangent"),
        Row("without targets", lambda a: ce(a.x), TypeError, "targets"),
        Row("without arguments", lambda _: ce.grad(), TypeError, "logits"),
        Row("without y", lambda a: fl.softmax.jvp_from_output(tangent=a.t), TypeError, "argument"),
        Row("tangent twice", lambda a: fl.softmax.jvp(a.x, a.t, tangent=a.t), TypeError, "tangent"),
        Row("x for y", lambda a: fl.softmax.jvp_from_output(x=a.x, tangent=a.t), TypeError, "'x'"),
        Row("y twice", lambda a: fl.softmax.jvp_from_output(a.x, a.t, y=a.x), TypeError, "argument"),
        Row("cross_entropy(out)", lambda a: ce(a.x, a.y, out=a.x), TypeError, "'out'"),
        Row("jacobian(out)", lambda a: fl.softmax.jacobian(a.x, out=a.x), TypeError, "'out'"),
        Row("positional axis", lambda a: ce(a.x, a.y, -1), TypeError, "positional"),
        Row("nll_loss(sample_weight)", lambda a: nll(a.x, a.y, sample_weight=1), TypeError, "sample_w"),
    ]
    unknown = {name: {name: None} for name in ("size_average", "return_grad", "dim", "dtype")}
    calls: dict[str, Callable[[Arrays, Any], Any]] = {
        "softmax": lambda a, extra: fl.softmax(a.x, **extra),
        "softmax.jvp": lambda a, extra: fl.softmax.jvp(a.x, a.t, **extra),
        "log_softmax.vjp_from_output": lambda a, extra: fl.log_softmax.vjp_from_output(a.x, a.t, **extra),
        "logsumexp": lambda a, extra: fl.logsumexp(a.x, **extra),
        "softplus.vjp": lambda a, extra: fl.softplus.vjp(a.x, a.t, **extra),
        "cross_entropy": lambda a, extra: ce(a.x, a.y, **extra),
        "cross_entropy.grad": lambda a, extra: ce.grad(a.x, a.y, **extra),
        "cross_entropy.hvp": lambda a, extra: ce.hvp(a.x, a.y, a.t, **extra),
        "cross_entropy.value_grad_hess": lambda a, extra: ce.value_grad_hess(a.x, a.y, **extra),
        "nll_loss.value_and_grad": lambda a, extra: nll.value_and_grad(a.x, a.y, **extra),
    }
    for name, call in calls.items():
        table += each(f"unknown keyword of {name}", call, unknown, TypeError, "'%s'")
    return table


TABLE = [
    *types(), *outputs(), *pairs(), *axes(), *shapes(), *targets(), *options(), *signatures(),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
def test_bad_input_is_named_and_nothing_is_written(row: Row) -> None:
    arrays = Arrays()
    before = arrays.bytes()
    with pytest.raises(row.error, match=row.match) as caught:
        row.call(arrays)
    assert type(caught.value) is row.error
    assert arrays.bytes() == before


@pytest.mark.parametrize("place", PLACES)
def test_every_place_takes_what_is_right(place: str) -> None:
    """The table's calls fail for what they are given, not for how they are made."""
    arrays = Arrays()
    call, name = PLACES[place]
    right = {"targets": arrays.y, "weight": arrays.class_row, "sample_weight": numbers(3)}
    call(arrays, numbers(3) if place == "logsumexp.vjp" else right.get(name, arrays.other))


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_output_takes_what_is_right(name: str) -> None:
    arrays = Arrays()
    before = arrays.out.copy()
    OUTPUTS[name](arrays, arrays.out)
    assert not np.array_equal(arrays.out, before)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_types_have_outputs_of_their_own(half: str) -> None:
    x, y = np.ones((3, 4), half), [0, 1, 2]
    wide = np.full((3, 4), 7, np.float32)
    for call in (fl.softmax, fl.log_softmax, fl.sigmoid, lambda x, out: ce.grad(x, y, out=out)):
        with pytest.raises(ValueError, match=f"^out has dtype float32, expected {half}"):
            call(x, out=wide)
        with pytest.raises(ValueError, match=f"^out has dtype {half}, expected float32"):
            call(wide, out=x)
    with pytest.raises(ValueError, match=f"^out has dtype {half}, expected float32"):
        fl.logsumexp(x, out=np.ones(3, half))
    assert (wide == 7).all()
    assert (x == 1).all()


def test_other_types_of_ml_dtypes_are_named() -> None:
    for kind in ("float8_e4m3fn", "float8_e4m3b11fnuz", "int4"):
        with pytest.raises(TypeError, match=rf"^x has dtype {kind}; expected a real"):
            fl.softmax(np.zeros(3, getattr(ml_dtypes, kind)))
    with pytest.raises(TypeError, match=r"^targets has dtype bfloat16; .*integer"):
        ce(np.zeros((3, 4)), np.zeros(3, ml_dtypes.bfloat16))


def test_bad_targets_are_found_before_any_row_is_written() -> None:
    x = np.random.default_rng(0).normal(size=(500, 3000)).astype(np.float32)
    before = x.copy()
    y = np.zeros(500, int)
    y[499] = 3000
    with pytest.raises(IndexError, match=r"^targets\[499\] is 3000, "):
        ce.grad(x, y, out=x)
    assert np.array_equal(x, before)
