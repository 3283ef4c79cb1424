"""Every operation and method against the reference, by the excess-error rule."""

from __future__ import annotations

from typing import Any

import naive
import numpy as np
import pytest
from cases import CASES, Case, filled, layouts
from closeness import assert_close

import fastloss as fl


def widened(args: tuple[Any, ...], dtype: type) -> tuple[Any, ...]:
    """Float arguments in the type that judges `dtype`."""
    wide = np.float64 if dtype == np.float32 else np.longdouble
    return tuple(a.astype(wide) if a.dtype.kind == "f" else a for a in map(np.asarray, args))


def widened_options(options: dict[str, Any], dtype: type) -> dict[str, Any]:
    return {
        k: widened((v,), dtype)[0] if isinstance(v, np.ndarray) else v for k, v in options.items()
    }


def judge(case: Case, args: tuple[Any, ...], options: dict[str, Any], dtype: type, ours: Any) -> None:
    truth = case.truth(*widened(args, dtype), **widened_options(options, dtype))
    with np.errstate(all="ignore"):
        textbook = case.naive(*args, **options)
        terms = case.size_of_terms(args, options)
    axis = options.get("axis", -1) if case.rowwise else None
    assert np.asarray(ours).dtype == dtype
    assert_close(ours, truth, textbook, axis, f"{case.name}{options}{np.shape(args[0])}", terms)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_reference(name: str, dtype: type, rng: np.random.Generator) -> None:
    case = CASES[name]
    for options in case.options:
        for shape in case.shapes:
            chosen = filled(options, rng, shape, dtype)
            args = case.sample(rng, shape, dtype, chosen)
            judge(case, args, chosen, dtype, case.call(*args, **chosen))


@pytest.mark.parametrize("name", CASES)
def test_every_layout_gives_the_same_bits(name: str, dtype: type, rng: np.random.Generator) -> None:
    case = CASES[name]
    options = filled(case.options[-1], rng, (6, 70), dtype)
    args = case.sample(rng, (6, 70), dtype, options)
    plain = case.call(*args, **options)
    for at in range(len(args)):
        for layout, same in layouts(args[at]).items() if args[at].ndim == 2 else ():
            got = case.call(*args[:at], same, *args[at + 1 :], **options)
            assert np.array_equal(got, plain), (name, at, layout)
            assert got.dtype == dtype, (name, at, layout)
            assert got.dtype.isnative


@pytest.mark.parametrize("name", [n for n in CASES if CASES[n].rowwise and not n.endswith("hess")])
def test_out_of_every_layout_and_in_place(name: str, dtype: type, rng: np.random.Generator) -> None:
    case = CASES[name]
    options = filled(case.options[-1], rng, (6, 70), dtype)
    args = case.sample(rng, (6, 70), dtype, options)
    plain = case.call(*args, **options)
    for layout, out in layouts(np.full((6, 70), 7, dtype)).items():
        if out.flags.writeable:
            assert case.call(*args, **options, out=out) is out
            assert np.array_equal(out, plain), (name, layout)
    for at, arg in enumerate(args):
        if arg.shape == plain.shape and arg.dtype == plain.dtype:
            for layout, same in layouts(arg).items():
                if same.flags.writeable:
                    moved = (*args[:at], same, *args[at + 1 :])
                    assert case.call(*moved, **options, out=same) is same
                    assert np.array_equal(same, plain), (name, at, layout)


@pytest.mark.parametrize("shift", [1, 69, 70, -1, -70])
def test_partial_overlap_is_as_if_copied(shift: int, rng: np.random.Generator) -> None:
    memory = rng.normal(0, 3, 1000)
    x, out = memory[100:520].reshape(6, 70), memory[100 + shift : 520 + shift].reshape(6, 70)
    expected = fl.softmax(x.copy())
    fl.softmax(x, out=out)
    assert np.array_equal(out, expected)


LONG = ["softmax", "log_softmax", "logsumexp", "softmax.jvp", "log_softmax.vjp", "logsumexp.vjp"]
LONG += ["cross_entropy", "cross_entropy.grad", "cross_entropy.hvp", "cross_entropy.hess", "softplus"]


@pytest.mark.parametrize("name", LONG)
def test_long_rows(name: str, dtype: type, rng: np.random.Generator) -> None:
    """Rows of several segments, some past what a worker keeps; judged by the formula, wider."""
    case = CASES[name]
    for shape in ((2, 70_001), (1, 1_100_000)):
        options = {"label_smoothing": 0.1} if name.startswith("cross") else {}
        args = case.sample(rng, shape, dtype, options)
        ours = case.call(*args, **options)
        truth = case.truth_of_long_rows(*widened(args, dtype), **options)
        textbook = case.naive(*args, **options)
        terms = case.size_of_terms(args, options)
        along = -1 if case.rowwise else None
        assert_close(ours, truth, textbook, along, f"{name}{shape}", terms)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, (0, 1), (1, 2), (0, 2), (2, 0), None])
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_axes(op: str, axis: Any, dtype: type, rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, (3, 4, 5)).astype(dtype)
    axes = tuple(range(3)) if axis is None else axis
    wide = widened((x,), dtype)[0]
    truth, textbook = getattr(naive, op)(wide, axes), getattr(naive, op)(x, axes)
    along = None if op == "logsumexp" else axes
    for layout, same in layouts(x).items():
        for order in ("C", "F"):
            ours = getattr(fl, op)(same, axis)
            assert_close(ours, truth, textbook, along, f"{op} {axis} {layout}")
            out = np.empty(truth.shape, dtype, order)
            assert getattr(fl, op)(same, axis, out=out) is out
            assert np.array_equal(out, ours)


@pytest.mark.parametrize("shape", [(2, 100_000), (300, 300), (9, 1_100_000)])
def test_outputs_between_the_rows_of_the_input(shape: tuple[int, int], rng: np.random.Generator) -> None:
    """Neither overlaps, but their bounds do; one output is the input itself."""
    n, columns = shape
    memory = rng.normal(size=(n, 2 * columns)).astype(np.float32)
    x, beside, y = memory[:, :columns], memory[:, columns:], np.arange(n)
    for smoothing in (0.0, 0.1):
        expected = fl.cross_entropy.value_grad_hess(x, y, label_smoothing=smoothing)
        for at in ((0, 1), (1, 0)):
            kept = x.copy()
            ours = fl.cross_entropy.value_grad_hess(
                x, y, label_smoothing=smoothing, out=tuple((x, beside)[k] for k in at)
            )
            assert all(map(np.array_equal, ours, expected)), (smoothing, at)
            x[...] = kept


def test_an_array_that_numpy_warns_of_writing_to(dtype: type) -> None:
    same, _ = np.broadcast_arrays(np.arange(5, dtype=dtype), np.zeros((1, 5)))
    assert np.array_equal(fl.softmax(same), fl.softmax(np.arange(5, dtype=dtype)[None]))


def test_four_dimensions_that_do_not_merge(dtype: type, rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, (3, 8, 4, 6)).astype(dtype)[:, ::2, :, ::3].transpose(2, 0, 3, 1)
    assert np.array_equal(fl.softmax(x, 1), np.moveaxis(fl.softmax(np.moveaxis(x, 1, -1).copy()), -1, 1))


@pytest.mark.parametrize(
    "kind", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">i2", ">u4", ">f4", ">f8"]
)
def test_other_types_are_loaded_as_their_values(kind: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 2 if kind == "?" else 90, (4, 40)).astype(kind)
    ours = fl.softmax(x)
    native = x.astype(np.float32 if kind == ">f4" else np.float64)
    assert ours.dtype == native.dtype
    assert np.array_equal(ours, fl.softmax(native))
    assert np.array_equal(fl.softmax(x[:, ::-3]), fl.softmax(native[:, ::-3]))
    top = np.array([np.iinfo(x.dtype).max if x.dtype.kind in "iu" else 1], kind)
    assert np.array_equal(fl.softplus(top), fl.softplus(top.astype(native.dtype)))


def test_companions_are_converted_to_the_first_argument(rng: np.random.Generator) -> None:
    x, t = rng.normal(size=(3, 9)).astype(np.float32), rng.normal(size=(3, 9))
    assert np.array_equal(fl.softmax.jvp(x, t), fl.softmax.jvp(x, t.astype(np.float32)))
    w = rng.uniform(size=9)
    assert fl.cross_entropy(x, [0, 1, 2], weight=w) == fl.cross_entropy(
        x, [0, 1, 2], weight=w.astype(np.float32)
    )


def test_lists_scalars_and_zero_d() -> None:
    assert fl.softmax([[0, 0]]).tolist() == [[0.5, 0.5]]
    assert fl.softmax(3.0, axis=None) == 1.0
    assert isinstance(fl.softmax(3.0, axis=None), np.float64)
    assert fl.logsumexp(np.float32(3), axis=None) == np.float32(3)
    assert isinstance(fl.softplus(np.float32(0)), np.float32)
    assert isinstance(fl.cross_entropy([0.0, 1.0], 1), np.float64)
    assert fl.cross_entropy([0.0, 1.0], 1) == fl.cross_entropy([[0.0, 1.0]], [1])
    assert isinstance(fl.cross_entropy(np.zeros((2, 3), "f4"), [0, 1], reduction="sum"), np.float32)


def test_jacobian(dtype: type, rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, (2, 3, 4)).astype(dtype)
    for op in ("softmax", "log_softmax"):
        for axis in (0, 1, -1):
            truth = getattr(fl.reference, f"{op}_jacobian")(x, axis, temperature=1.7)
            ours = getattr(fl, op).jacobian(x, axis, temperature=1.7)
            assert ours.dtype == dtype
            np.testing.assert_allclose(ours, truth, atol=8 * np.finfo(dtype).eps)
