"""Margins of classes, focal loss and cosines: long rows, edges, kinks, bits, laws, peers, errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import naive
import numpy as np
import pytest
from cases import CASES, MARGINS, cosines, directions, directions_and_vector, filled, layouts, logits
from closeness import assert_close
from test_agreement import judge, widened

import fastloss as fl
from fastloss import reference

Array = np.ndarray
Rng = np.random.Generator
HINGES = ("multiclass_hinge_loss", "max_hinge_loss", "lse_hinge_loss")
SOFT = ("additive_margin_softmax_loss", "focal_loss")  # of a softmax of the scores as they are
LOSSES = [n for n in CASES if n.partition(".")[0] in MARGINS]
WIDTHS = (5, 2500, 70_000)
EACH: dict[str, Any] = {"reduction": "none"}
INF = np.inf
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def sampled(name: str, rng: Rng, shape: tuple[int, ...], dtype: type) -> tuple[Any, Any]:
    args: tuple[Any, Any] = MARGINS[name][0](rng, shape, dtype, {})
    return args


def scores(name: str, rng: Rng, shape: tuple[int, ...], dtype: type) -> Array:
    return sampled(name, rng, shape, dtype)[0]


# ---- agreement --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", LOSSES)
def test_long_rows(name: str, dtype: type, rng: Rng) -> None:
    case = CASES[name]
    options = (case.options[0], case.options[1], case.options[-1])
    for shape, given in zip(((3, 1500), (2, 5000), (2, 70_000)), options, strict=True):
        chosen = filled(given, rng, shape, dtype)
        args = case.sample(rng, shape, dtype, chosen)
        judge(case, args, chosen, dtype, case.call(*args, **chosen))
    if case.rowwise:
        expected = case.call(*args, **chosen)
        assert case.call(*args, **chosen, out=args[0]) is args[0]
        assert np.array_equal(args[0], expected)


@pytest.mark.parametrize("name", MARGINS)
def test_every_reduction_with_every_weight(name: str, dtype: type, rng: Rng) -> None:
    for reduction in ("mean", "sum", "none"):
        for weights in ({}, {"weight": ...}, {"sample_weight": ...}, {"weight": ..., "sample_weight": ...}):
            for axis in (0, 1, 2, -1, -2):
                shape = (3, 4, 5)
                options = filled({**weights, "axis": axis, "reduction": reduction}, rng, shape, dtype)
                args = MARGINS[name][0](rng, shape, dtype, options)
                for each in (name, f"{name}.grad"):
                    judge(CASES[each], args, options, dtype, CASES[each].call(*args, **options))


@pytest.mark.parametrize("shapes", [((5, 3), 7), ((7,), 2), ((2, 3, 9), 4), ((3, 1), 2), ((300, 40), 70)])
def test_cosines_of_any_number_of_classes(shapes: Any, dtype: type, rng: Rng) -> None:
    lead, classes = shapes
    f, w = rng.normal(0, 30, lead).astype(dtype), rng.normal(0, 0.1, (classes, lead[-1])).astype(dtype)
    w[0] = 0
    u = rng.normal(0, 2, (*lead[:-1], classes)).astype(dtype)
    for scale in (1.0, 30.0, 0.25):
        ours = fl.cosine_logits(f, w, scale=scale)
        assert (ours.dtype, ours.shape) == (dtype, u.shape)
        truth = reference.cosine_logits(*widened((f, w), dtype), scale=scale)
        textbook = naive.in_type(reference.cosine_logits)(f, w, scale=scale)
        assert_close(ours, truth, textbook, -1, "cosines", naive.cosine_terms(f, w, scale=scale))
        assert (abs(ours) <= scale * (1 + 4 * np.finfo(dtype).eps)).all()
        assert not ours[..., 0].any()
        both = fl.cosine_logits.vjp(f, w, u, scale=scale)
        truths = reference.cosine_logits_vjp(*widened((f, w, u), dtype), scale=scale)
        textbooks = naive.in_type(reference.cosine_logits_vjp)(f, w, u, scale=scale)
        sizes = naive.cosine_vjp_terms(f, w, u, scale=scale)
        for got, true, book, size in zip(both, truths, textbooks, sizes, strict=True):
            assert got.dtype == dtype
            assert_close(got, true, book, -1, "vjp", size)
        assert not both[1][0].any()
        out = np.full_like(f, 7), np.full_like(w, 7)
        written = fl.cosine_logits.vjp(f, w, u, scale=scale, out=out)
        assert written[0] is out[0]
        assert written[1] is out[1]
        assert all(map(np.array_equal, written, both))
        result = np.full_like(u, 7)
        assert fl.cosine_logits(f, w, scale=scale, out=result) is result
        assert np.array_equal(result, ours)


def test_cosines_in_place(dtype: type, rng: Rng) -> None:
    f, w, u = directions_and_vector(rng, (6, 40), dtype, {})
    expected, both = fl.cosine_logits(f, w), fl.cosine_logits.vjp(f, w, u)
    for at in ((0, 1), (2, 1), (0, None), (None, 1)):
        own = f.copy(), w.copy(), u.copy()
        got = fl.cosine_logits.vjp(*own, out=tuple(None if k is None else own[k] for k in at))
        assert all(map(np.array_equal, got, both)), at
        assert all(k is None or got[i] is own[k] for i, k in enumerate(at))
    assert fl.cosine_logits(f, w, out=f) is f
    assert np.array_equal(f, expected)


def test_cosines_of_lengths_whose_squares_are_not_numbers(dtype: type) -> None:
    least, most = 4 * float(np.finfo(dtype).tiny), float(np.finfo(dtype).max) / 4
    for size in (least, most):
        f, w = np.array([[3, 4], [-4, 3]]) * size, np.array([[1, 0], [0, -1]]) * size
        ours = fl.cosine_logits(f.astype(dtype) / dtype(8), w.astype(dtype) / dtype(8))
        np.testing.assert_allclose(ours, [[0.6, -0.8], [-0.8, -0.6]], rtol=1e-5)


# ---- bits -------------------------------------------------------------------------------------
def results(name: str, x: Array, y: Array, **options: Any) -> list[Any]:
    op = getattr(fl, name)
    value, grad = op.value_and_grad(x, y, **options)
    assert np.array_equal(value, op(x, y, **options), equal_nan=True)
    assert np.array_equal(grad, op.grad(x, y, **options), equal_nan=True)
    assert np.array_equal(grad, op.grad(x, y, out=np.empty_like(grad), **options), equal_nan=True)
    if hasattr(op, "scale_grad"):
        again, slope = op.scale_grad(x, y, **options)
        assert np.array_equal(again, value, equal_nan=True)
        return [value, grad, slope]
    return [value, grad]


@pytest.mark.parametrize("name", MARGINS)
def test_bits_depend_on_neither_threads_nor_layout_nor_other_rows(name: str, dtype: type, rng: Rng) -> None:
    for shape in ((400, 10), (300, 700), (3, 70_000)):
        x, y = sampled(name, rng, shape, dtype)
        w = rng.uniform(0.2, 3, shape[1]).astype(dtype)
        for options in (EACH, {"weight": w}):
            with fl.num_threads(1):
                expected = results(name, x, y, **options)
            assert all(map(np.array_equal, results(name, x, y, **options), expected))
            for layout, same in layouts(x).items():
                assert all(map(np.array_equal, results(name, same, y, **options), expected)), layout
        losses, grad, *slopes = results(name, x, y, **EACH)
        for i in (0, 1, len(x) - 1):
            some = results(name, x[i : i + 1], y[i : i + 1], **EACH)
            assert np.array_equal(some[0][0], losses[i])
            assert np.array_equal(some[1][0], grad[i])
            assert all(np.array_equal(a[0], b[i]) for a, b in zip(some[2:], slopes, strict=True))
            one = results(name, x[i], y[i], **EACH)
            assert np.array_equal(one[1], grad[i])
        for kind in ("i4", "u4", ">i8"):
            if (y >= 0).all() or kind != "u4":
                assert np.array_equal(getattr(fl, name)(x, y.astype(kind), **EACH), losses)


def test_bits_of_cosines(dtype: type, rng: Rng) -> None:
    f, w = rng.normal(size=(200, 130)).astype(dtype), rng.normal(size=(70, 130)).astype(dtype)
    u = rng.normal(size=(200, 70)).astype(dtype)
    expected, (df, dw) = fl.cosine_logits(f, w), fl.cosine_logits.vjp(f, w, u)
    with fl.num_threads(1):
        assert np.array_equal(fl.cosine_logits(f, w), expected)
        assert all(map(np.array_equal, fl.cosine_logits.vjp(f, w, u), (df, dw)))
    for layout, same in layouts(f).items():
        assert np.array_equal(fl.cosine_logits(same, w), expected), layout
        assert all(map(np.array_equal, fl.cosine_logits.vjp(same, w, u), (df, dw))), layout
    close = {"rtol": 0, "atol": 8 * np.finfo(dtype).eps}  # BLAS chooses its ways by the shape
    for i in (0, 7, 199):
        np.testing.assert_allclose(fl.cosine_logits(f[i : i + 1], w)[0], expected[i], **close)
        np.testing.assert_allclose(fl.cosine_logits(f[i], w), expected[i], **close)
        np.testing.assert_allclose(fl.cosine_logits.vjp(f[i : i + 1], w, u[i : i + 1])[0][0], df[i], **close)


# ---- types ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("name", MARGINS)
def test_halves(name: str, kind: str, rng: Rng) -> None:
    half, op = HALVES[kind], getattr(fl, name)
    x, y = sampled(name, rng, (4, 50), np.float32)
    x = x.astype(half)
    wide = x.astype(np.float32)
    value, grad = op.value_and_grad(x, y)
    assert type(value) is np.float32
    assert value == op(wide, y)
    assert op(x, y, **EACH).dtype == np.float32
    assert grad.dtype == half
    with np.errstate(over="ignore"):
        assert np.array_equal(grad, op.grad(wide, y).astype(half))
    assert op.grad(x, y, out=x) is x
    if hasattr(op, "scale_grad"):
        assert all(type(v) is np.float32 for v in op.scale_grad(wide.astype(half), y))


@pytest.mark.parametrize("kind", HALVES)
def test_cosines_of_halves(kind: str, rng: Rng) -> None:
    half = HALVES[kind]
    f, w, u = (rng.normal(size=s).astype(half) for s in ((4, 6), (5, 6), (4, 5)))
    wide = tuple(a.astype(np.float32) for a in (f, w, u))
    assert np.array_equal(fl.cosine_logits(f, w), fl.cosine_logits(*wide[:2]).astype(half))
    for got, one in zip(fl.cosine_logits.vjp(f, w, u), fl.cosine_logits.vjp(*wide), strict=True):
        assert got.dtype == half
        assert np.array_equal(got, one.astype(half))


def test_integers_become_float64() -> None:
    x = np.array([[3, 1, 2], [0, 5, 4]])
    for name in MARGINS:
        value, grad = getattr(fl, name).value_and_grad(x, [0, 2])
        assert type(value) is np.float64
        assert grad.dtype == np.float64
        assert value == getattr(fl, name)(x.astype(float).tolist(), [0, 2])
    assert fl.cosine_logits(x, x).dtype == np.float64


# ---- edges ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MARGINS)
def test_nan_fills_its_row_and_no_other(name: str, dtype: type, rng: Rng) -> None:
    op = getattr(fl, name)
    for columns in WIDTHS:
        x = scores(name, rng, (3, columns), dtype)
        y = np.array([0, columns // 2, 1])
        clean = op.value_and_grad(x, y, **EACH)
        for at in (0, columns // 2, columns - 1):  # the middle one is the target
            x_nan = x.copy()
            x_nan[1, at] = np.nan
            losses, grad = op.value_and_grad(x_nan, y, **EACH)
            assert np.isnan(losses).tolist() == [False, True, False]
            assert np.isnan(grad[1]).all(), (columns, at)
            assert np.array_equal(losses[::2], clean[0][::2])
            assert np.array_equal(grad[::2], clean[1][::2])
            assert np.isnan(op(x_nan, y))


@pytest.mark.parametrize("name", MARGINS)
def test_minus_inf(name: str, dtype: type, rng: Rng) -> None:
    op = getattr(fl, name)
    for columns in WIDTHS:
        x, y = scores(name, rng, (3, columns), dtype), np.array([0, columns // 2, 1])
        elsewhere = np.arange(columns) != columns // 2
        for gone in (
            np.arange(columns) == columns - 1, elsewhere & (np.arange(columns) < columns // 3 + 1),
            elsewhere & (np.arange(columns) != columns - 1), elsewhere,
        ):
            absent = x.copy()
            absent[1, gone] = -INF
            losses, grad = op.value_and_grad(absent, y, **EACH)
            assert np.isfinite(losses).all()
            assert np.isfinite(grad).all()
            assert not grad[1, gone].any()
            for each in (name, f"{name}.grad") if columns < 5000 else ():
                judge(CASES[each], (absent, y), {}, dtype, CASES[each].call(absent, y))
            if gone is elsewhere:
                assert losses[1] == 0
                assert not grad[1].any()
        absent = x.copy()
        absent[1] = -INF
        nothing = name != "arcface_loss"  # whose clip leaves the target
        assert np.isnan(op(absent, y, **EACH)).tolist() == [False, nothing, False]
        assert np.isfinite(op.grad(absent, y)[::2]).all()
        at_target = x.copy()
        at_target[1, columns // 2] = -INF
        losses, grad = op.value_and_grad(at_target, y, **EACH)
        if name == "arcface_loss":  # the clip makes it -1
            at_target[1, columns // 2] = -1
            assert np.array_equal(losses, op(at_target, y, **EACH))
            continue
        assert losses[1] == INF
        assert np.isfinite(losses[::2]).all()
        if columns < 5000:
            judge(CASES[f"{name}.grad"], (at_target, y), EACH, dtype, grad)
        assert np.isfinite(grad).all()
        assert grad[1, columns // 2] < 0


@pytest.mark.parametrize("name", MARGINS)
def test_plus_inf(name: str, dtype: type, rng: Rng) -> None:
    """Elsewhere a hinge has no bound, and softmax no meaning; at the target a hinge is met."""
    op = getattr(fl, name)
    for columns in WIDTHS:
        x, y = scores(name, rng, (3, columns), dtype), np.array([0, columns // 2, 1])
        above = x.copy()
        above[1, columns - 1] = INF
        losses, grad = op.value_and_grad(above, y, **EACH)
        assert np.isfinite(losses[::2]).all()
        assert np.isfinite(grad[::2]).all()
        assert losses[1] == INF if name in HINGES else np.isnan(losses[1])
        if name == "max_hinge_loss":
            assert (grad[1, -1], grad[1, columns // 2], abs(grad[1]).sum()) == (1, -1, 2)
        if name not in HINGES:
            assert np.isnan(grad[1]).all()
        at_target = x.copy()
        at_target[1, columns // 2] = INF
        losses, grad = op.value_and_grad(at_target, y, **EACH)
        if name in HINGES:
            assert losses[1] == 0
            assert not grad[1].any()
        elif name in SOFT:
            assert np.isnan(losses[1])
        assert np.isfinite(losses[::2]).all()


@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("name", MARGINS)
def test_ignored_rows_are_zero_whatever_their_scores(
    name: str, ignore_index: int, dtype: type, rng: Rng
) -> None:
    for columns in WIDTHS:
        x = scores(name, rng, (6, columns), dtype)
        y = np.array([ignore_index, 0, ignore_index, 1, ignore_index, columns - 1])
        dirty = x.copy()
        dirty[0], dirty[2], dirty[4] = np.nan, INF, -INF
        for reduction in ("none", "sum", "mean"):
            options = {"reduction": reduction, "ignore_index": ignore_index}
            clean, got = results(name, x, y, **options), results(name, dirty, y, **options)
            assert all(map(np.array_equal, got, clean))
            assert not got[1][::2].any()
            if reduction == "none":
                assert not got[0][::2].any()


@pytest.mark.parametrize("name", MARGINS)
def test_no_weight_in_all(name: str, dtype: type, rng: Rng) -> None:
    op, x = getattr(fl, name), scores(name, rng, (3, 7), dtype)
    for y, options in (
        ([-100] * 3, {}), ([0, 6, 1], {"weight": np.zeros(7)}), ([0, 6, 1], {"sample_weight": np.zeros(3)}),
        ([0, -100, 1], {"sample_weight": [0, 5, 0]}), ([0, 6, 1], {"weight": [0, 0, 1, 1, 1, 1, 0]}),
    ):
        assert np.isnan(op(x, y, **options))
        assert op(x, y, reduction="sum", **options) == 0
        assert not op(x, y, **EACH, **options).any()
        for reduction in ("mean", "sum", "none"):
            assert not op.grad(x, y, reduction=reduction, **options).any()


@pytest.mark.parametrize("name", MARGINS)
def test_nothing_and_one(name: str, dtype: type) -> None:
    op = getattr(fl, name)
    for shape, axis in (((0, 5), -1), ((0, 2, 5), -1), ((5, 0), 0)):
        x, y = np.empty(shape, dtype), np.empty(np.delete(shape, axis), int)
        assert np.isnan(op(x, y, axis=axis))
        assert op(x, y, axis=axis, reduction="sum") == 0
        assert op(x, y, axis=axis, reduction="none").shape == y.shape
        assert op.grad(x, y, axis=axis).shape == shape
    for call in (op, op.grad, op.value_and_grad):
        with pytest.raises(ValueError, match="no classes"):
            call(np.empty((3, 0), dtype), [0, 0, 0])
    for value in (0.5, -1.0, 1.0):
        x = np.full((3, 1), value, dtype)
        for options in ({}, {"weight": [2.0]}, {"reduction": "none"}, {"reduction": "sum"}):
            got, grad = op.value_and_grad(x, [0, 0, -100], **options)
            assert not np.any(got)
            assert not grad.any()
    x = np.array([0.25, 0.5, -0.75], dtype)
    assert type(op(x, 1)) is dtype
    assert op(x, 1) == op(x[None], [1]) == op(x, np.int8(1), reduction="none")


@pytest.mark.parametrize("shift", [1e8, -1e8])
@pytest.mark.parametrize("name", [*HINGES, "focal_loss"])
def test_a_shift_changes_no_bit(name: str, shift: float, dtype: type, rng: Rng) -> None:
    for columns in (5, 2500):
        x = (128 * rng.integers(-3, 3, (3, columns))).astype(dtype)
        y = rng.integers(0, columns, 3)
        moved = results(name, x + dtype(shift), y)
        assert all(map(np.array_equal, moved, results(name, x, y)))


@pytest.mark.parametrize("name", [*HINGES, "focal_loss"])
def test_huge_scores(name: str, dtype: type, rng: Rng) -> None:
    for columns in (5, 2500):
        x = rng.choice([-1e30, 0, 1e30], (3, columns)).astype(dtype)
        y = rng.integers(0, columns, 3)
        for each in (name, f"{name}.grad"):
            judge(CASES[each], (x, y), EACH, dtype, CASES[each].call(x, y, **EACH))


# ---- kinks and ties ---------------------------------------------------------------------------
def test_which_side_of_a_kink(dtype: type) -> None:
    """On it the gradient is 0; the losses are continuous there."""
    just = np.finfo(dtype).eps
    z = np.array([0, -1, -3], dtype)
    for op in (fl.multiclass_hinge_loss, fl.max_hinge_loss):
        assert op.value_and_grad(z, 0)[0] == 0
        assert not op.grad(z, 0).any()
        above = z + np.array([0, just, 0], dtype)
        assert op.grad(above, 0).tolist() == [-1, 1, 0]
        assert not op.grad(z - np.array([0, just, 0], dtype), 0).any()
    above = z + np.array([0, 0.25, 0], dtype)
    assert fl.multiclass_hinge_loss.grad(above, 0, squared=True).tolist() == [-0.5, 0.5, 0]
    assert not fl.multiclass_hinge_loss.grad(z, 0, squared=True).any()
    assert fl.lse_hinge_loss(np.array([0.5, 0.5], dtype), 0) == 0
    assert not fl.lse_hinge_loss.grad(np.array([0.5, 0.5], dtype), 0).any()
    assert fl.lse_hinge_loss.grad(np.array([0.5, 0.75], dtype), 0).tolist() == [-1, 1]
    assert not fl.lse_hinge_loss.grad(np.array([1, 0], dtype), 0, margin=1).any()


def test_ties_go_to_the_lowest_index(dtype: type, rng: Rng) -> None:
    assert fl.max_hinge_loss.grad(np.array([0, 2, 2, 1], dtype), 0).tolist() == [-1, 1, 0, 0]
    assert fl.max_hinge_loss.grad(np.array([2, 2, 2, 1], dtype), 0).tolist() == [-1, 1, 0, 0]
    assert fl.max_hinge_loss.grad(np.array([2, 2, 2, 1], dtype), 1).tolist() == [1, -1, 0, 0]
    assert fl.max_hinge_loss.grad(np.zeros(3, dtype), 0, margin=0).tolist() == [0, 0, 0]
    for columns in WIDTHS:
        x = rng.uniform(-1, 1, (9, columns)).astype(dtype)
        tied = rng.random(x.shape) < 3 / columns
        tied[:, -1] = tied[:, columns // 3] = True
        x[tied] = 1
        y = rng.integers(0, columns, 9)
        y[:3] = columns // 3
        grad = fl.max_hinge_loss.grad(x, y, reduction="sum")
        others = x.copy()
        others[np.arange(9), y] = -INF
        expected = np.zeros_like(x)
        expected[np.arange(9), others.argmax(axis=1)] = 1
        expected[np.arange(9), y] = -1
        assert np.array_equal(grad, expected)
    x = np.full((2, 2500), -0.0, dtype)
    x[:, 7] = 0.0  # equal to its neighbours
    assert fl.max_hinge_loss.grad(x, [5, 0], reduction="sum").argmax(axis=1).tolist() == [0, 1]


def test_arcface_at_its_ends(dtype: type) -> None:
    """Beyond -1 and 1 all is as at them; there the sine is floored."""
    rest = np.array([0.1, -0.4, 0.3], dtype)
    for end, beyond in ((1, 1.25), (-1, -1.5), (1, 3), (-1, -INF)):
        x, outside = (np.append(rest, dtype(c)) for c in (end, beyond))
        for scale in (1.0, 64.0):
            value, grad = fl.arcface_loss.value_and_grad(x, 3, scale=scale)
            got = fl.arcface_loss.value_and_grad(outside, 3, scale=scale)
            assert got[0] == value
            assert np.array_equal(got[1], grad)
    grad = fl.arcface_loss.grad(np.append(rest, dtype(1)), 3, scale=1.0)
    np.testing.assert_allclose(grad[3], -grad[:3].sum() * np.sin(0.5) / 1e-6, rtol=1e-5)
    below = np.append(rest, dtype(-0.95))  # cos(pi - 0.5) is -0.88
    grad = fl.arcface_loss.grad(below, 3, scale=2.0)
    np.testing.assert_allclose(grad[3], -grad[:3].sum(), rtol=1e-5)
    z = 2 * np.append(rest, dtype(-0.95 - 0.5 * np.sin(0.5)))
    np.testing.assert_allclose(fl.arcface_loss(below, 3, scale=2.0), fl.cross_entropy(z, 3), rtol=1e-5)
    # the cosines of the others are what they are
    outside = np.array([0.5, 1.75, -2], dtype)
    phi = np.cos(np.arccos(0.5) + 0.5)
    truth = fl.cross_entropy(np.array([phi, 1.75, -2]), 0)
    np.testing.assert_allclose(fl.arcface_loss(outside, 0, scale=1.0), truth, rtol=1e-5)


# ---- derivatives ------------------------------------------------------------------------------
def close(a: Any, b: Any, rtol: float = 1e-7) -> None:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-8 * max(1.0, np.abs(b).max(initial=0)))


@pytest.mark.parametrize("name", MARGINS)
def test_gradients_are_limits_of_differences(name: str, rng: Rng) -> None:
    op, (sample, choices) = getattr(fl, name), MARGINS[name]
    for options in choices:
        if options.get("axis", -1) == 1:
            continue
        chosen = filled(options, rng, (3, 4), np.float64)
        x, y = sample(rng, (3, 4), np.float64, chosen)
        x = rng.uniform(-0.8, 0.8, (3, 4)) if sample is cosines else rng.normal(0, 1.5, (3, 4))

        def f(z: Any, y: Any = y, chosen: Any = chosen) -> Any:
            return np.sum(op(z, y, **chosen))

        close(op.grad(x, y, **chosen), reference.numerical_gradient(f, x, step=1e-5), 1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_scale_grad_is_the_limit_of_differences(reduction: str, rng: Rng) -> None:
    x, y = rng.uniform(-1, 1, (5, 6)), np.array([0, 3, -100, 5, 1])
    op = fl.additive_margin_softmax_loss
    for weights in ({}, {"weight": rng.uniform(0.2, 2, 6), "sample_weight": rng.uniform(0.2, 2, 5)}):
        for scale, margin in ((1.0, 0.35), (5.0, 0.0), (30.0, 0.2)):
            options = {"margin": margin, "reduction": reduction, **weights}
            value, slope = op.scale_grad(x, y, scale=scale, **options)
            assert np.array_equal(value, op(x, y, scale=scale, **options))
            assert np.shape(slope) == np.shape(value)
            h = 1e-4 * scale
            sides = [op(x, y, scale=scale + k * h, **options) for k in (1, -1, 2, -2)]
            close(slope, (8 * (sides[0] - sides[1]) - (sides[2] - sides[3])) / (12 * h))
            if reduction == "none":
                assert slope[2] == 0


def test_cosines_are_linearised(rng: Rng) -> None:
    f, w, u = rng.normal(size=(2, 3, 5)), rng.normal(size=(4, 5)), rng.normal(size=(2, 3, 4))
    for scale in (1.0, 16.0):
        df, dw = fl.cosine_logits.vjp(f, w, u, scale=scale)
        assert fl.check_gradient(lambda a: np.vdot(u, fl.cosine_logits(a, w, scale=scale)), df, f) < 1e-5  # noqa: B023
        assert fl.check_gradient(lambda a: np.vdot(u, fl.cosine_logits(f, a, scale=scale)), dw, w) < 1e-5  # noqa: B023
        np.testing.assert_allclose((df * f).sum(axis=-1), 0, atol=1e-12)  # a length changes nothing
    f[1, 2], w[3] = 0, 0
    df, dw = fl.cosine_logits.vjp(f, w, u)
    assert not df[1, 2].any()
    assert not dw[3].any()


@pytest.mark.parametrize("name", ["additive_margin_softmax_loss", "arcface_loss"])
def test_a_chain_from_features_to_gradients(name: str, rng: Rng) -> None:
    """Features, cosines, loss, and back to the gradients of features and of class weights."""
    op = getattr(fl, name)
    features, class_weights, y = rng.normal(size=(6, 5)), rng.normal(size=(4, 5)), rng.integers(0, 4, 6)
    options = {"scale": 8.0, "margin": 0.2, "weight": rng.uniform(0.5, 2, 4)}

    def loss(f: Array, w: Array) -> Any:
        return op(fl.cosine_logits(f, w), y, **options)

    value, d_cosines = op.value_and_grad(fl.cosine_logits(features, class_weights), y, **options)
    d_features, d_weights = fl.cosine_logits.vjp(features, class_weights, d_cosines)
    assert value == loss(features, class_weights)
    assert fl.check_gradient(lambda f: loss(f, class_weights), d_features, features) < 1e-5
    assert fl.check_gradient(lambda w: loss(features, w), d_weights, class_weights) < 1e-5
    down = loss(features - 0.1 * d_features, class_weights - 0.1 * d_weights)
    assert down < value


# ---- laws -------------------------------------------------------------------------------------
@pytest.mark.parametrize("score", [1.0, -np.inf, np.nan])
def test_one_class_has_no_hinge(score: float, dtype: type) -> None:
    z = np.array([[score]], dtype)
    for op in (fl.multiclass_hinge_loss, fl.max_hinge_loss):
        value, grad = op.value_and_grad(z, [0])
        assert (float(value), grad.tolist()) == (0, [[0]])


def test_lse_hinge_nears_max_hinge_as_scores_grow(dtype: type, rng: Rng) -> None:
    z, y = logits(rng, (50, 12), dtype), rng.integers(0, 12, 50)
    hard = fl.max_hinge_loss(z, y, margin=0, **EACH).astype(float)
    errors = []
    for scale in (1.0, 4.0, 16.0, 256.0):
        soft = fl.lse_hinge_loss(dtype(scale) * z, y, **EACH).astype(float) / scale
        slack = 1e-5 * (1 + hard)
        assert (soft >= hard - slack).all()  # LSE >= max
        assert (soft <= hard + np.log(11) / scale + slack).all()
        errors.append(np.abs(soft - hard).max())
    assert errors[0] > errors[1] > errors[2] > errors[3]


def test_softplus_of_the_gap_is_cross_entropy(dtype: type, rng: Rng) -> None:
    """The hinge's max(g, 0) is what log(1 + exp g) rounds off."""
    z, y = logits(rng, (40, 9), dtype), rng.integers(0, 9, 40)
    others = z.copy()
    others[np.arange(40), y] = -INF
    gap = fl.logsumexp(others) - z[np.arange(40), y]
    cross = fl.cross_entropy(z, y, **EACH)
    size = 1 + np.abs(z).max(axis=1)
    assert (np.abs(fl.softplus(gap) - cross) <= 8 * np.finfo(dtype).eps * size).all()
    hinge = fl.lse_hinge_loss(z, y, **EACH)
    assert (np.abs(hinge - np.maximum(gap, 0)) <= 8 * np.finfo(dtype).eps * size).all()
    assert (hinge <= cross + 8 * np.finfo(dtype).eps * size).all()
    assert (cross <= hinge + np.log(2) + 8 * np.finfo(dtype).eps * size).all()


def test_sums_and_largest_of_hinges(dtype: type, rng: Rng) -> None:
    z, y = logits(rng, (40, 9), dtype), rng.integers(0, 9, 40)
    eps = 8 * np.finfo(dtype).eps
    for margin in (0.5, 2.0):
        top = fl.max_hinge_loss(z, y, margin=margin, **EACH)
        total = fl.multiclass_hinge_loss(z, y, margin=margin, **EACH)
        assert (top <= total * (1 + eps)).all()
        assert (total <= 8 * top * (1 + eps)).all()
        met = top == 0
        assert np.array_equal(met, total == 0)
    scaled = fl.multiclass_hinge_loss(4 * z, y, margin=2, **EACH)
    assert np.array_equal(scaled, 4 * fl.multiclass_hinge_loss(z, y, margin=0.5, **EACH))


@pytest.mark.parametrize("margin", [0.25, 1.0, 3.0])
def test_two_classes_are_the_binary_hinge(margin: float, dtype: type, rng: Rng) -> None:
    z, label = logits(rng, (200,), dtype), rng.choice([-1, 1], 200)
    two, y = np.stack([np.zeros_like(z), z], axis=-1), (label > 0).astype(int)
    for reduction in ("mean", "sum", "none"):
        options = {"margin": margin, "reduction": reduction}
        expected = fl.hinge_loss.value_and_grad(z, label.astype(dtype), **options)
        squares = fl.squared_hinge_loss.value_and_grad(z, label.astype(dtype), **options)
        for (value, grad), (loss, slope) in (
            (fl.multiclass_hinge_loss.value_and_grad(two, y, **options), expected),
            (fl.max_hinge_loss.value_and_grad(two, y, **options), expected),
            (fl.lse_hinge_loss.value_and_grad(two, y, **options), expected),
            (fl.multiclass_hinge_loss.value_and_grad(two, y, squared=True, **options), squares),
        ):
            np.testing.assert_allclose(value, loss, rtol=8 * np.finfo(dtype).eps)
            np.testing.assert_allclose(grad[:, 1], slope, rtol=8 * np.finfo(dtype).eps)
            np.testing.assert_allclose(grad[:, 0], -slope, rtol=8 * np.finfo(dtype).eps)


def test_losses_without_margin_are_cross_entropy(dtype: type, rng: Rng) -> None:
    x, y = rng.uniform(-0.95, 0.95, (30, 12)).astype(dtype), rng.integers(0, 12, 30)
    w = rng.uniform(0.2, 2, 12).astype(dtype)
    close_to = {"rtol": 64 * np.finfo(dtype).eps, "atol": 64 * np.finfo(dtype).eps}
    for options in ({}, {"weight": w}, {"reduction": "sum"}, EACH):
        expected, grad = fl.cross_entropy.value_and_grad(x, y, **options)
        plain = fl.additive_margin_softmax_loss.value_and_grad(x, y, scale=1, margin=0, **options)
        np.testing.assert_allclose(plain[0], expected, **close_to)
        np.testing.assert_allclose(plain[1], grad, **close_to)
        for scale in (1.0, 16.0):
            expected, grad = fl.cross_entropy.value_and_grad(dtype(scale) * x, y, **options)
            for op in (fl.arcface_loss, fl.additive_margin_softmax_loss):
                value, slope = op.value_and_grad(x, y, scale=scale, margin=0, **options)
                np.testing.assert_allclose(value, expected, rtol=64 * scale * np.finfo(dtype).eps)
                size = 64 * scale**2 * np.finfo(dtype).eps
                np.testing.assert_allclose(slope, scale * grad, rtol=size, atol=size)
    shifted = x.copy()
    shifted[np.arange(30), y] -= dtype(0.25)
    value = fl.additive_margin_softmax_loss(x, y, scale=8, margin=0.25)
    np.testing.assert_allclose(value, fl.cross_entropy(dtype(8) * shifted, y), rtol=1e-5)


def test_a_larger_margin_costs_more(dtype: type, rng: Rng) -> None:
    x, y = rng.uniform(-0.8, 0.8, (30, 12)).astype(dtype), rng.integers(0, 12, 30)
    for name in (*HINGES, "additive_margin_softmax_loss", "arcface_loss"):
        losses = [getattr(fl, name)(x, y, margin=m, **EACH) for m in (0.125, 0.5, 0.75)]
        assert (losses[0] <= losses[1]).all(), name
        assert (losses[1] <= losses[2]).all(), name
        assert losses[0].sum() < losses[2].sum(), name


@pytest.mark.parametrize("columns", [1, 2, 10, 300, 5000, 70_000])
def test_focal_of_gamma_zero_is_cross_entropy_exactly(columns: int, dtype: type, rng: Rng) -> None:
    n = 40 if columns < 1000 else 3
    x, y = logits(rng, (n, columns), dtype), rng.integers(0, columns, n)
    y[1] = -100
    w, s = rng.uniform(0.2, 2, columns).astype(dtype), rng.uniform(0.2, 2, n).astype(dtype)
    for reduction in ("mean", "sum", "none"):
        for weights in ({}, {"weight": w}, {"sample_weight": s}, {"weight": w, "sample_weight": s}):
            options = {"reduction": reduction, **weights}
            value, grad = fl.cross_entropy.value_and_grad(x, y, **options)
            for zero in (0, 0.0):
                ours = fl.focal_loss.value_and_grad(x, y, gamma=zero, **options)
                assert np.array_equal(ours[0], value)
                assert np.array_equal(ours[1], grad)
    turned = np.ascontiguousarray(x.T)
    ours = fl.focal_loss.value_and_grad(turned, y, gamma=0, axis=0)
    expected = fl.cross_entropy.value_and_grad(turned, y, axis=0)
    assert all(map(np.array_equal, ours, expected))


def test_focal_loss_weighs_down_what_is_easy(dtype: type) -> None:
    """Lin et al., 2017: with gamma = 2, p = 0.9 counts for 100 times less."""
    x = np.array([[np.log(0.9), np.log(0.1)], [np.log(0.5), np.log(0.5)]], dtype)
    ratio = fl.focal_loss(x, [0, 0], **EACH) / fl.cross_entropy(x, [0, 0], **EACH)
    np.testing.assert_allclose(ratio, [0.01, 0.25], rtol=1e-5)
    sure = np.array([[0, -30.0, -31.0]], dtype)  # q is some 1e-13, its square times itself 1e-39
    e = np.exp(np.array([-30.0, -31.0])).sum()
    for gamma in (0.5, 1.0, 2.0):
        loss, grad = fl.focal_loss.value_and_grad(sure, [0], gamma=gamma)
        tiny = float(np.finfo(dtype).tiny)
        np.testing.assert_allclose(loss, e ** (1 + gamma), rtol=1e-5, atol=tiny)
        np.testing.assert_allclose(grad[0, 0], -(1 + gamma) * e ** (1 + gamma), rtol=1e-5, atol=tiny)


def test_binary_focal_loss_is_that_of_two_classes(dtype: type, rng: Rng) -> None:
    z, t = rng.normal(0, 2, 100).astype(dtype), rng.integers(0, 2, 100)
    two = np.stack([np.zeros_like(z), z], axis=-1)
    for gamma in (0.5, 2.0, 3.0):
        ours, grad = fl.focal_loss.value_and_grad(two, t, gamma=gamma, **EACH)
        loss, slope = fl.sigmoid_focal_loss.value_and_grad(z, t.astype(dtype), gamma=gamma, **EACH)
        np.testing.assert_allclose(ours, loss, rtol=32 * np.finfo(dtype).eps)
        np.testing.assert_allclose(grad[:, 1], slope, rtol=64 * np.finfo(dtype).eps, atol=1e-37)


@pytest.mark.parametrize("name", [n for n in MARGINS if n != "arcface_loss"])  # whose target is bent
def test_gradients_of_shift_invariant_losses_sum_to_zero(name: str, dtype: type, rng: Rng) -> None:
    x, y = sampled(name, rng, (20, 30), dtype)
    grad = getattr(fl, name).grad(x, y, reduction="sum").astype(float)
    np.testing.assert_allclose(
        grad.sum(axis=1), 0, atol=64 * np.finfo(dtype).eps * np.abs(grad).max(initial=1)
    )


@pytest.mark.parametrize("name", MARGINS)
def test_permuting_classes_permutes_the_gradient(name: str, rng: Rng) -> None:
    x, y = rng.uniform(-1, 1, (20, 30)), rng.integers(0, 30, 20)
    order = rng.permutation(30)
    op, w = getattr(fl, name), rng.uniform(0.2, 2, 30)
    value, grad = op.value_and_grad(x, y, weight=w)
    moved = op.value_and_grad(x[:, order], np.argsort(order)[y], weight=w[order])
    np.testing.assert_allclose(moved[0], value, rtol=1e-12)
    np.testing.assert_allclose(moved[1], grad[:, order], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", MARGINS)
def test_weights_are_repetition(name: str, rng: Rng) -> None:
    op, (x, _) = getattr(fl, name), sampled(name, rng, (6, 5), np.float64)
    y, times = rng.integers(0, 5, 6), np.array([1, 2, 3, 1, 2, 4])
    repeated = np.repeat(x, times, axis=0), np.repeat(y, times)
    for reduction in ("mean", "sum"):
        once = op(x, y, sample_weight=times, reduction=reduction)
        assert once == pytest.approx(op(*repeated, reduction=reduction), rel=1e-12)


def test_cosines_do_not_depend_on_lengths(dtype: type, rng: Rng) -> None:
    f, w = directions(rng, (20, 30), dtype, {})
    expected = fl.cosine_logits(f, w)
    assert np.array_equal(fl.cosine_logits(16 * f, w / 4), expected)
    np.testing.assert_allclose(fl.cosine_logits(f, w, scale=4.0), 4 * expected, rtol=4 * np.finfo(dtype).eps)
    same = fl.cosine_logits(w, w)
    np.testing.assert_allclose(np.diagonal(same), w.any(axis=1), rtol=4 * np.finfo(dtype).eps)


# ---- peers ------------------------------------------------------------------------------------
def test_multi_margin_loss_of_torch(dtype: type, rng: Rng) -> None:
    """Which divides by the number of classes."""
    torch = pytest.importorskip("torch")
    for shape in ((6, 4), (1, 1), (30, 100), (5, 1500)):
        z, y = logits(rng, shape, dtype), rng.integers(0, shape[1], shape[0])
        w = rng.uniform(0.2, 2, shape[1]).astype(dtype)
        for p in (1, 2):
            for margin in (0.5, 1.0, 2.0):
                for weight in (None, w):
                    x = torch.from_numpy(z).double().requires_grad_()
                    theirs = torch.nn.functional.multi_margin_loss(
                        x, torch.from_numpy(y), p=p, margin=margin, reduction="none",
                        weight=None if weight is None else torch.from_numpy(weight).double(),
                    )
                    theirs.sum().backward()
                    ours, grad = fl.multiclass_hinge_loss.value_and_grad(
                        z, y, margin=margin, squared=p == 2, weight=weight, **EACH
                    )
                    tolerance = {"rtol": 64 * np.finfo(dtype).eps, "atol": 64 * np.finfo(dtype).eps}
                    np.testing.assert_allclose(ours / shape[1], theirs.detach().numpy(), **tolerance)
                    np.testing.assert_allclose(grad / shape[1], x.grad.numpy(), **tolerance)
                mean = torch.nn.functional.multi_margin_loss(
                    torch.from_numpy(z).double(), torch.from_numpy(y), p=p, margin=margin
                )
                ours = fl.multiclass_hinge_loss(z, y, margin=margin, squared=p == 2)
                np.testing.assert_allclose(ours / shape[1], mean.item(), rtol=64 * np.finfo(dtype).eps)


def test_hinge_and_log_loss_of_scikit_learn(dtype: type, rng: Rng) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    z, y = logits(rng, (60, 7), dtype), rng.integers(0, 7, 60)
    s = rng.uniform(0.2, 2, 60)
    eps = 32 * float(np.finfo(dtype).eps)
    for weights in ({}, {"sample_weight": s}):
        theirs = metrics.hinge_loss(y, z.astype(float), labels=range(7), **weights)
        assert fl.max_hinge_loss(z, y, **weights) == pytest.approx(theirs, rel=eps)  # Crammer, Singer
        p = fl.softmax(rng.normal(0, 2, (60, 7)))
        theirs = metrics.log_loss(y, p, labels=range(7), **weights)
        assert fl.focal_loss(np.log(p), y, gamma=0, **weights) == pytest.approx(theirs, rel=1e-12)
        assert fl.cross_entropy(np.log(p), y, **weights) == pytest.approx(theirs, rel=1e-12)


def test_cosines_of_scikit_learn(rng: Rng) -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    f, w = directions(rng, (20, 30), np.float64, {})
    np.testing.assert_allclose(fl.cosine_logits(f, w), pairwise.cosine_similarity(f, w), atol=1e-14)


# ---- bad input --------------------------------------------------------------------------------
FIRST = {n: "scores" if n in HINGES else "logits" if n == "focal_loss" else "cosines" for n in MARGINS}
BAD: dict[str, tuple[Callable[[Any, Array, Array], Any], type[Exception], str]] = {
    "complex": (lambda op, x, _: op.grad(x * 1j, [0, 1, 2]), TypeError, "^FIRST has dtype complex"),
    "masked": (lambda op, x, _: op(np.ma.masked_array(x), [0, 1, 2]), TypeError, "^FIRST is a masked array"),
    "0-d": (lambda op, _, __: op(1.0, 0), ValueError, "^FIRST is 0-d"),
    "float targets": (
        lambda op, x, out: op.grad(x, np.zeros(3), out=out), TypeError, "^targets has dtype float64"
    ),
    "probabilities": (
        lambda op, x, out: op.grad(x, np.full((3, 4), 0.25), out=out), TypeError, "^targets has dtype float64"
    ),
    "bool targets": (
        lambda op, x, out: op.grad(x, [True] * 3, out=out), TypeError, "^targets has dtype bool"
    ),
    "one-hot": (
        lambda op, x, out: op.grad(x, np.eye(4, dtype=int)[:3], out=out), ValueError,
        r"^targets has shape \(3, 4\), expected \(3,\)",
    ),
    "column": (
        lambda op, x, out: op.grad(x, [[0], [1], [2]], out=out), ValueError, r"^targets has shape \(3, 1\)"
    ),
    "class": (
        lambda op, x, out: op.grad(x, [0, 1, 4], out=out), IndexError, r"^targets\[2\] is 4, .*4 classes"
    ),
    "negative": (lambda op, x, out: op.grad(x, [0, -1, 9], out=out), IndexError, r"^targets\[1\] is -1"),
    "weight": (
        lambda op, x, out: op.grad(x, [0, 1, 2], weight=[1, 2, 3], out=out), ValueError,
        r"^weight has shape \(3,\), expected \(4,\)",
    ),
    "sample_weight": (
        lambda op, x, out: op.grad(x, [0, 1, 2], sample_weight=np.ones((3, 1)), out=out), ValueError,
        r"^sample_weight has shape \(3, 1\), expected \(3,\)",
    ),
    "reduction": (
        lambda op, x, out: op.grad(x, [0, 1, 2], reduction="max", out=out), ValueError, "^reduction must be"
    ),
    "ignore_index": (
        lambda op, x, out: op.grad(x, [0, 1, 2], ignore_index=0.5, out=out), TypeError,
        "^ignore_index must be",
    ),
    "axis": (
        lambda op, x, out: op.grad(x, [0, 1, 2], axis=2, out=out), np.exceptions.AxisError, "out of bounds"
    ),
    "axes": (lambda op, x, out: op.grad(x, [0, 1, 2], axis=(0, 1), out=out), TypeError, "axis"),
    "out of a shape": (
        lambda op, x, out: op.grad(x, [0, 1, 2], out=out[:2]), ValueError, r"^out has shape \(2, 4\)"
    ),
    "out of a dtype": (
        lambda op, x, out: op.grad(x, [0, 1, 2], out=out.view("i4")), ValueError, "^out has dtype int32"
    ),
    "out read-only": (
        lambda op, x, _: op.grad(x, [0, 1, 2], out=np.broadcast_to(np.float32(7), (3, 4))), ValueError,
        "^out is read-only",
    ),
    "out of a call": (lambda op, x, out: op(x, [0, 1, 2], out=out), TypeError, "out"),
    "positional": (lambda op, x, _: op(x, [0, 1, 2], 1.0), TypeError, "positional"),
    "unknown": (lambda op, x, _: op(x, [0, 1, 2], temprature=1.0), TypeError, "temprature"),
}


def untouched(call: Callable[[Array, Array], Any], error: type[Exception], match: str) -> None:
    x = (np.arange(12, dtype=np.float32) / 16).reshape(3, 4)
    out = np.full_like(x, 7)
    kept = x.tobytes()
    with pytest.raises(error, match=match):
        call(x, out)
    assert x.tobytes() == kept
    assert (out == 7).all()


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", MARGINS)
def test_bad_input_is_named_and_nothing_is_written(name: str, case: str) -> None:
    call, error, match = BAD[case]
    op = getattr(fl, name)
    untouched(lambda x, out: call(op, x, out), error, match.replace("FIRST", FIRST[name]))


OWN: dict[str, dict[str, list[Any]]] = {
    "multiclass_hinge_loss": {"margin": [INF, -INF, np.nan]},
    "max_hinge_loss": {"margin": [INF, -INF, np.nan]},
    "lse_hinge_loss": {"margin": [INF, -INF, np.nan]},
    "additive_margin_softmax_loss": {"scale": [0, -1.0, INF, np.nan], "margin": [INF, np.nan]},
    "arcface_loss": {"scale": [0, -1.0, INF, np.nan], "margin": [INF, np.nan]},
    "focal_loss": {"gamma": [-0.5, INF, np.nan]},
}


@pytest.mark.parametrize("name", OWN)
def test_options_out_of_range(name: str) -> None:
    op = getattr(fl, name)
    for option, values in OWN[name].items():
        for value in values:
            untouched(
                lambda x, out, o=option, v=value: op.grad(x, [0, 1, 2], out=out, **{o: v}), ValueError,
                f"^{option} must be",
            )
        for value in ("1", [0.5], None):
            untouched(
                lambda x, out, o=option, v=value: op.grad(x, [0, 1, 2], out=out, **{o: v}), TypeError,
                f"^{option} must be",
            )


COSINES: dict[str, tuple[Callable[[Array, Array], Any], type[Exception], str]] = {
    "classes of another length": (
        lambda x, out: fl.cosine_logits(x, np.ones((4, 3)), out=out), ValueError, r"class_weights.*\(4, 3\)"
    ),
    "classes of one": (lambda x, out: fl.cosine_logits(x, np.ones(4), out=out), ValueError, "class_weights"),
    "0-d": (lambda _, __: fl.cosine_logits(1.0, np.ones((4, 3))), ValueError, "features"),
    "complex": (
        lambda x, out: fl.cosine_logits(x, 1j * x, out=out), TypeError, "^class_weights has dtype complex"
    ),
    "features": (lambda x, _: fl.cosine_logits(x * 1j, x), TypeError, "^features has dtype complex"),
    "cotangent": (
        lambda x, out: fl.cosine_logits.vjp(x, x, np.ones((3, 4)), out=(out, None)), ValueError, "^cotangent"
    ),
    "out": (lambda x, out: fl.cosine_logits(x, x, out=out), ValueError, "^out has shape"),
    "out of the vjp": (
        lambda x, out: fl.cosine_logits.vjp(x, np.ones((2, 4)), np.ones((3, 2)), out=(out, out)), ValueError,
        re.escape("out["),
    ),
    **{
        f"scale {scale}": (
            lambda x, out, s=scale: fl.cosine_logits(x, np.ones((4, 4)), scale=s, out=out), ValueError,
            "^scale must be",
        )
        for scale in (0, -1.0, INF, np.nan)
    },
    "scale": (
        lambda x, out: fl.cosine_logits(x, np.ones((4, 4)), scale="1", out=out), TypeError, "^scale must be"
    ),
}


@pytest.mark.parametrize("case", COSINES)
def test_bad_cosines(case: str) -> None:
    untouched(*COSINES[case])
