"""Cross-entropy of probability targets, and what a temperature changes: PyTorch, laws, edges, places, errors.

FASTLOSS_TORCH_CASES says how many random configurations are held against PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import naive
import numpy as np
import pytest
from cases import CASES, filled, layouts, logits, with_classes_of_probability
from closeness import assert_close
from test_agreement import judge, widened, widened_options

import fastloss as fl
from fastloss import reference

Array = np.ndarray
Rng = np.random.Generator
Options = dict[str, Any]
SOFT = [n for n in CASES if n.startswith("cross_entropy(probabilities)")]
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
COUNT = int(os.environ.get("FASTLOSS_TORCH_CASES", "200"))
EACH: Options = {"reduction": "none"}
INF = np.inf
ce = fl.cross_entropy


def sampled(rng: Rng, shape: tuple[int, ...], dtype: type, axis: int = -1) -> tuple[Array, Array]:
    x, q = with_classes_of_probability(rng, shape, dtype, {"axis": axis})
    return x, q


def all_of(x: Any, y: Any, t: Any, **options: Any) -> list[Any]:
    return [
        ce(x, y, **options), *ce.value_and_grad(x, y, **options), ce.grad(x, y, **options),
        *ce.value_grad_hess(x, y, **options), ce.hvp(x, y, t, **options),
        *ce.temperature_grad(x, y, **options),
    ]  # fmt: skip


# ---- PyTorch ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Configuration:
    x: Array
    q: Array
    axis: int
    options: Options  # what PyTorch has too
    temperature: float


def configuration(rng: Rng) -> Configuration:
    """Anything that both can do."""
    dtype = rng.choice([np.float32, np.float64])
    ndim = int(rng.integers(1, 5))
    shape = [int(n) for n in rng.integers(1, 6, ndim)]
    axis = int(rng.integers(ndim))
    shape[axis] = classes = int(rng.choice([1, 2, 3, 10, 33, 100]))
    if rng.random() < 0.05:
        shape = [1] * ndim
        shape[axis] = classes = 1500
    options: Options = {"reduction": str(rng.choice(["mean", "sum", "none"]))}
    if rng.random() < 0.5:
        weight = rng.uniform(0.2, 3, classes)
        weight[rng.random(classes) < rng.choice([0, 0.3])] = 0
        options["weight"] = weight.astype(dtype)
    if rng.random() < 0.5:
        options["label_smoothing"] = float(rng.choice([0.05, 0.3, 1.0]))
    _, q = sampled(rng, tuple(shape), dtype, axis)
    x = rng.normal(0, rng.choice([0.3, 3]), shape).astype(dtype)
    axis -= ndim * int(rng.integers(2))
    return Configuration(x, q, axis, options, float(rng.choice([1, 0.5, 3])))


def by_torch(c: Configuration, dtype: type) -> tuple[Array, Array, Array]:
    """Value, gradient, and the derivative of the sum by the temperature; classes on axis 1 (1-d: 0)."""
    torch = pytest.importorskip("torch")
    options = {
        k: torch.from_numpy(v.astype(dtype)) if isinstance(v, np.ndarray) else v
        for k, v in c.options.items()
    }
    x, q = torch.from_numpy(c.x.astype(dtype)).requires_grad_(), torch.from_numpy(c.q.astype(dtype))
    to = min(1, c.x.ndim - 1)
    temperature = torch.tensor(c.temperature, dtype=x.dtype, requires_grad=True)
    value = torch.nn.functional.cross_entropy(
        x.movedim(c.axis, to) / temperature, q.movedim(c.axis, to), **options
    )
    value.sum().backward()
    return value.detach().numpy(), x.grad.numpy(), temperature.grad.numpy()


@pytest.mark.parametrize("case", range(COUNT))
def test_value_and_gradient_agree_with_torch(case: int, rng: Rng) -> None:
    c = configuration(rng)
    dtype = c.x.dtype.type
    options = {**c.options, "axis": c.axis, "temperature": c.temperature}
    value, grad = ce.value_and_grad(c.x, c.q, **options)
    (x, q), wide = widened((c.x, c.q), dtype), widened_options(options, dtype)
    truth, slopes = reference.cross_entropy(x, q, **wide), reference.cross_entropy_grad(x, q, **wide)
    theirs, their_slopes, _ = by_torch(c, dtype)
    what = f"{case}: {c.x.dtype}{c.x.shape} axis {c.axis} T {c.temperature} {sorted(c.options)}"
    assert_close(value, truth, theirs, what=what)
    terms = naive.probability_terms(c.x, c.q, **options)
    assert_close(grad, slopes, their_slopes, c.axis, what, terms)
    theirs, their_slopes, by_temperature = (a.astype(np.float32) for a in by_torch(c, np.float64))
    assert_close(theirs, truth, truth, what=f"PyTorch {what}")
    assert_close(their_slopes, slopes, slopes, c.axis, f"PyTorch {what}", terms)
    again, slope = ce.temperature_grad(c.x, c.q, **options)
    assert np.array_equal(again, value)
    size = np.sum(naive.temperature_terms(c.x, c.q, **options))
    bound = 1e-5 if dtype == np.float32 else 1e-6  # PyTorch's is rounded to single precision
    assert abs(np.sum(slope) - by_temperature) <= bound * (abs(by_temperature) + size), what


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_infinite_logits_agree_with_torch(smoothing: float, reduction: str, dtype: type) -> None:
    torch = pytest.importorskip("torch")
    rows = [
        ([-INF, 1, 2], [0.0, 0.5, 0.5]), ([-INF, 1, 2], [0.5, 0.5, 0]), ([-INF, -INF, 2], [0, 0, 1]),
        ([-INF] * 3, [0.2, 0.3, 0.5]), ([np.nan, 1, 2], [0, 0, 1]), ([INF, 1, 2], [0, 1, 0]),
        ([1e30, -1e30, 0], [1, 0, 0]), ([1e30, -1e30, 0], [0, 0.5, 0]), ([1, 2, 3], [0, 0, 0]),
    ]  # fmt: skip
    options = {"reduction": reduction, "label_smoothing": smoothing}
    for row, target in rows:
        x, q = np.array([row], dtype), np.array([target], dtype)
        logit = torch.from_numpy(x).requires_grad_()
        theirs = torch.nn.functional.cross_entropy(logit, torch.from_numpy(q), **options)
        theirs.sum().backward()
        ours, grad = ce.value_and_grad(x, q, **options)
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, err_msg=str(row))
        np.testing.assert_allclose(grad, logit.grad.numpy(), rtol=1e-5, atol=1e-6, err_msg=str(row))


# ---- agreement ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SOFT)
def test_long_rows(name: str, dtype: type, rng: Rng) -> None:
    """Of several blocks and of several segments; judged by the formula, wider."""
    case = CASES[name]
    for shape in ((3, 5000), (2, 70_001)):
        for given in ({}, {"label_smoothing": 0.1, "weight": ..., "sample_weight": ...}):
            options = filled(given, rng, shape, dtype)
            args = case.sample(rng, shape, dtype, options)
            ours = case.call(*args, **options)
            truth = case.truth_of_long_rows(*widened(args, dtype), **widened_options(options, dtype))
            textbook, terms = case.naive(*args, **options), case.size_of_terms(args, options)
            along = -1 if case.rowwise else None
            assert_close(ours, truth, textbook, along, f"{name}{shape}{list(given)}", terms)


def test_rows_that_do_not_sum_to_one(dtype: type, rng: Rng) -> None:
    """The loss is linear in the target: a distribution it need not be."""
    x, q = logits(rng, (6, 9), dtype), rng.uniform(0, 1, (6, 9)).astype(dtype)
    for times in (0.0, 0.25, 1.0, 8.0):
        for options in ({}, EACH, {"weight": rng.uniform(0.2, 2, 9).astype(dtype)}):
            value, grad = ce.value_and_grad(x, q, **options)
            got = ce.value_and_grad(x, dtype(times) * q, **options)
            np.testing.assert_allclose(got[0], times * value, rtol=8 * np.finfo(dtype).eps)
            np.testing.assert_allclose(
                got[1], times * grad, rtol=1e-4, atol=32 * times * np.finfo(dtype).eps
            )
    each = ce(x, q, **EACH).astype(float)
    expected = -(q.astype(float) * fl.log_softmax(x.astype(float))).sum(axis=1)
    np.testing.assert_allclose(each, expected, rtol=32 * np.finfo(dtype).eps)
    assert ce(x, q) == pytest.approx(each.mean(), rel=8 * float(np.finfo(dtype).eps))
    grad = ce.grad(x, q, reduction="sum").astype(float)
    np.testing.assert_allclose(grad.sum(axis=1), 0, atol=64 * np.finfo(dtype).eps)


ONE_HOT: tuple[Options, ...] = (
    {"reduction": "none"}, {"reduction": "sum", "weight": ...}, {"sample_weight": ...},
    {"label_smoothing": 0.2}, {"temperature": 0.6, "axis": 0},
    {"label_smoothing": 0.2, "weight": ..., "reduction": "none", "temperature": 2.0},
)  # fmt: skip


@pytest.mark.parametrize("options", ONE_HOT, ids=str)
@pytest.mark.parametrize("columns", [1, 2, 10, 300, 5000])
def test_one_hot_rows_are_class_indices(columns: int, options: Options, dtype: type, rng: Rng) -> None:
    axis = options.get("axis", -1)
    shape = (columns, 12) if axis == 0 else (12, columns)
    chosen = filled(options, rng, shape, dtype)
    x, y = logits(rng, shape, dtype), rng.integers(0, columns, 12)
    q = np.moveaxis((np.arange(columns) == y[:, None]).astype(dtype), -1, axis)
    t = rng.normal(0, 2, shape).astype(dtype)
    eps = np.finfo(dtype).eps
    for ours, theirs in zip(all_of(x, q, t, **chosen), all_of(x, y, t, **chosen), strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        size = np.abs(theirs).max(initial=0)
        np.testing.assert_allclose(ours, theirs, rtol=64 * eps, atol=64 * eps * size + 1e-37)


def test_the_mean_is_that_of_the_rows(dtype: type, rng: Rng) -> None:
    """Not of class weights, as with indices: PyTorch's definition. Sample weights do divide it."""
    x, q = sampled(rng, (20, 7), dtype)
    w, s = rng.uniform(0.2, 3, 7).astype(dtype), rng.uniform(0.2, 3, 20).astype(dtype)
    close = {"rel": 32 * float(np.finfo(dtype).eps)}
    each = ce(x, q, weight=w, **EACH).astype(float)
    assert ce(x, q, weight=w) == pytest.approx(each.mean(), **close)
    assert ce(x, q, weight=w, sample_weight=s) == pytest.approx(each @ s / s.sum(dtype=float), **close)
    np.testing.assert_allclose(ce(x, q, weight=w, sample_weight=s, **EACH), s * each, rtol=1e-5)
    times = rng.integers(1, 4, 20)
    repeated = ce(np.repeat(x, times, axis=0), np.repeat(q, times, axis=0))
    assert ce(x, q, sample_weight=times) == pytest.approx(repeated, **close)


def test_smoothing_is_a_mixture_with_the_uniform(dtype: type, rng: Rng) -> None:
    x, q = sampled(rng, (20, 8), dtype)
    for eps in (0.125, 0.5, 1.0):
        mixed = (1 - eps) * q + dtype(eps / 8)
        value, grad = ce.value_and_grad(x, q, label_smoothing=eps, **EACH)
        expected = ce.value_and_grad(x, mixed.astype(dtype), **EACH)
        np.testing.assert_allclose(value, expected[0], rtol=32 * np.finfo(dtype).eps)
        np.testing.assert_allclose(grad, expected[1], atol=32 * np.finfo(dtype).eps)


def test_entropy_is_what_is_left_at_the_target(dtype: type, rng: Rng) -> None:
    """With its own probabilities as targets the gradient vanishes, and the value is the entropy."""
    x = rng.normal(0, 2, (10, 30)).astype(dtype)
    p = fl.softmax(x)
    value, grad = ce.value_and_grad(x, p, **EACH)
    np.testing.assert_allclose(value, -(p * fl.log_softmax(x)).sum(axis=1), rtol=1e-5)
    assert np.abs(grad).max() <= 32 * np.finfo(dtype).eps
    assert (ce(x, fl.softmax(x + 1 - 2 * rng.random(x.shape)).astype(dtype)) >= 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis(axis: int, reduction: str, dtype: type, rng: Rng) -> None:
    for name in SOFT:
        for given in ({}, {"weight": ..., "sample_weight": ..., "label_smoothing": 0.1, "temperature": 0.7}):
            options = filled({**given, "axis": axis, "reduction": reduction}, rng, (4, 5, 6), dtype)
            args = CASES[name].sample(rng, (4, 5, 6), dtype, options)
            judge(CASES[name], args, options, dtype, CASES[name].call(*args, **options))
    x, q = sampled(rng, (7,), dtype)
    assert type(ce(x, q, reduction=reduction)) is dtype
    assert ce(x, q, reduction=reduction) == np.squeeze(ce(x[None], q[None], reduction=reduction))


# ---- derivatives --------------------------------------------------------------------------------
OPTIONS: tuple[Options, ...] = (
    {}, {"reduction": "sum", "label_smoothing": 0.3}, {"reduction": "none", "temperature": 0.5},
    {"weight": [0.5, 2.0, 1.0, 0.1, 3.0], "label_smoothing": 0.1, "temperature": 2.0},
    {"sample_weight": [1.0, 0.2, 3.0, 0.7], "weight": [0.5, 2.0, 1.0, 0.1, 3.0]},
)  # fmt: skip


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * max(1.0, np.abs(b).max(initial=0)))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_derivatives_are_limits_of_differences(options: Options, rng: Rng) -> None:
    x, q, t = rng.normal(size=(4, 5)), rng.uniform(0, 1, (4, 5)), rng.normal(size=(4, 5))
    q[0], q[1, 2:] = [0, 1, 0, 0, 0], 0
    value, grad = ce.value_and_grad(x, q, **options)
    assert np.array_equal(value, ce(x, q, **options))
    assert np.array_equal(grad, ce.grad(x, q, **options))
    close(grad, reference.numerical_gradient(lambda z: np.sum(ce(z, q, **options)), x))
    hvp = ce.hvp(x, q, t, **options)
    close(hvp, reference.numerical_gradient(lambda z: np.vdot(ce.grad(z, q, **options), t), x))
    again, first, hess = ce.value_grad_hess(x, q, **options)
    assert np.array_equal(again, value)
    assert np.array_equal(first, grad)
    for j in range(5):
        unit = np.zeros((4, 5))
        unit[:, j] = 1
        np.testing.assert_allclose(hess[:, j], ce.hvp(x, q, unit, **options)[:, j], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_temperature_grad_is_the_limit_of_differences(options: Options, kind: str, rng: Rng) -> None:
    x = rng.normal(0, 2, (4, 5))
    y = np.array([1, -100, 4, 0]) if kind == "indices" else rng.uniform(0, 1, (4, 5))
    given = {k: v for k, v in options.items() if k != "temperature"}
    for temperature in (options.get("temperature", 1.0), 0.3, 4.0):
        value, slope = ce.temperature_grad(x, y, temperature=temperature, **given)
        assert np.array_equal(value, ce(x, y, temperature=temperature, **given))
        assert np.shape(slope) == np.shape(value)
        assert type(slope) is type(value)
        h = 1e-3 * temperature
        at = [ce(x, y, temperature=temperature + k * h, **given) for k in (1, -1, 2, -2)]
        close(slope, (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * h))
        if kind == "indices" and options.get("reduction") == "none":
            assert slope[1] == 0
    moved = np.moveaxis(np.stack([x, x]), -1, 1)
    rows = np.stack([y, y]) if kind == "indices" else np.moveaxis(np.stack([y, y]), -1, 1)
    slopes = ce.temperature_grad(moved, rows, axis=1, **EACH)[1]
    np.testing.assert_allclose(slopes[0], ce.temperature_grad(x, y, **EACH)[1], rtol=1e-12)


def test_temperature_grad_is_the_gradient_along_the_logits(dtype: type, rng: Rng) -> None:
    """d/dT L(x/T) = -<x, dL/dx> / T."""
    for columns in (2, 10, 700, 5000):
        x, q = sampled(rng, (6, columns), dtype)
        for y in (q, rng.integers(0, columns, 6)):
            for t in (0.5, 1.0, 3.0):
                slope = ce.temperature_grad(x, y, temperature=t, **EACH)[1]
                grad = ce.grad(x, y, temperature=t, **EACH).astype(float)
                size = np.abs(x * grad).sum(axis=1) + np.abs(x).max(axis=1)
                error = np.abs(slope + (x * grad).sum(axis=1) / t)
                assert (error <= 64 * np.finfo(dtype).eps * size / t).all(), (columns, t)


def test_temperature_grad_at_edges(dtype: type, rng: Rng) -> None:
    x, y = rng.normal(0, 2, (4, 6)).astype(dtype), np.array([0, 5, -100, 2])
    masked = x.copy()
    masked[0, 3:], masked[2] = -INF, np.nan
    value, slope = ce.temperature_grad(masked, y, **EACH)
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()
    close(slope[0], ce.temperature_grad(x[0, :3], 0)[1])
    assert value[2] == slope[2] == 0
    masked[1, 2] = np.nan
    assert np.isnan(ce.temperature_grad(masked, y, **EACH)[1]).tolist() == [False, True, False, False]
    assert np.isnan(ce.temperature_grad(masked, y)).all()
    assert ce.temperature_grad(np.ones((3, 1), dtype), [0, 0, 0]) == (0, 0)
    for half in HALVES.values():
        assert all(type(v) is np.float32 for v in ce.temperature_grad(x.astype(half), y))


# ---- bits and places ----------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(300, 10), (100, 700), (3, 70_000)])
def test_bits(shape: tuple[int, int], dtype: type, rng: Rng) -> None:
    """Of threads, of layouts of either array, of other rows, and of how one asks."""
    x, q = sampled(rng, shape, dtype)
    t = rng.normal(size=shape).astype(dtype)
    for options in (EACH, {"label_smoothing": 0.1, "weight": rng.uniform(0.2, 2, shape[1])}):
        with fl.num_threads(1):
            expected = all_of(x, q, t, **options)
        got = all_of(x, q, t, **options)
        assert all(map(np.array_equal, got, expected))
        for k in (1, 4, 8):  # the values
            assert np.array_equal(got[k], got[0])
        assert np.array_equal(got[3], got[2])
        assert np.array_equal(got[5], got[2])
        for same in layouts(q).values():
            assert np.array_equal(ce(x, same, **options), expected[0])
            assert np.array_equal(ce.grad(x, same, **options), expected[2])
        for same in layouts(x).values():
            assert np.array_equal(ce.grad(same, q, **options), expected[2])
    rows = all_of(x, q, t, **EACH)
    for i in (0, 1, shape[0] - 1):
        one = all_of(x[i : i + 1], q[i : i + 1], t[i : i + 1], **EACH)
        assert all(np.array_equal(a[0], b[i]) for a, b in zip(one, rows, strict=True))


@pytest.mark.parametrize("columns", [10, 700, 70_000])
def test_outputs_may_lie_on_logits_or_targets(columns: int, dtype: type, rng: Rng) -> None:
    x, q = sampled(rng, (4, columns), dtype)
    t = rng.normal(size=x.shape).astype(dtype)
    for options in ({}, {"label_smoothing": 0.1, "weight": rng.uniform(0.2, 2, columns)}):
        value, grad, hess = ce.value_grad_hess(x, q, **options)
        hvp = ce.hvp(x, q, t, **options)
        for at in range(2):
            own = [x.copy(), q.copy()]
            got = ce.value_and_grad(*own, out=own[at], **options)
            assert got[0] == value
            assert got[1] is own[at]
            assert np.array_equal(got[1], grad)
        for at in range(3):
            three = [x.copy(), q.copy(), t.copy()]
            assert ce.hvp(*three, out=three[at], **options) is three[at]
            assert np.array_equal(three[at], hvp)
        for pair in ((0, 1), (1, 0), (0, None), (None, 1)):
            own = [x.copy(), q.copy()]
            out = tuple(None if k is None else own[k] for k in pair)
            got = ce.value_grad_hess(*own, out=out, **options)
            assert got[0] == value
            assert np.array_equal(got[1], grad)
            assert np.array_equal(got[2], hess)
        memory = np.concatenate([q.ravel(), np.zeros(9, dtype)])
        late = memory[5 : 5 + q.size].reshape(q.shape)  # overlaps the targets in part
        ce.grad(x, memory[: q.size].reshape(q.shape), out=late, **options)
        assert np.array_equal(late, grad)


@pytest.mark.parametrize("kind", HALVES)
def test_halves(kind: str, rng: Rng) -> None:
    half = HALVES[kind]
    for columns in (7, 1500):
        x, q = (a.astype(half) for a in sampled(rng, (4, columns), np.float32))
        t = rng.normal(size=x.shape).astype(half)
        wide = tuple(a.astype(np.float32) for a in (x, q, t))
        for options in ({}, {"label_smoothing": 0.1, **EACH}):
            for ours, theirs in zip(all_of(x, q, t, **options), all_of(*wide, **options), strict=True):
                ours, theirs = np.asarray(ours), np.asarray(theirs)
                assert ours.dtype == (half if ours.ndim == 2 else np.float32)
                assert np.array_equal(ours, theirs.astype(ours.dtype))
        # targets of another type are converted to that of the logits, or to float32 beside halves
        for other in (np.float64, np.float32, *HALVES.values()):
            assert ce(wide[0], wide[1].astype(other)) == ce(wide[0], wide[1].astype(other).astype(np.float32))
            assert ce(x, q.astype(other)) == ce(wide[0], q.astype(other).astype(np.float32))
        assert ce.grad(x, q, out=q) is q


# ---- edges --------------------------------------------------------------------------------------
def test_zero_times_minus_infinity_is_nan(dtype: type, rng: Rng) -> None:
    for columns in (3, 2500, 70_000):
        x, q = rng.normal(0, 2, (3, columns)).astype(dtype), np.full((3, columns), 1 / columns, dtype)
        x[1, -1], q[1, -1] = -INF, 0
        losses, grad = ce.value_and_grad(x, q, **EACH)
        assert np.isnan(losses).tolist() == [False, True, False]
        assert np.isfinite(grad).all()
        assert grad[1, -1] == 0
        assert np.isnan(ce(x, q))
        q[1, -1] = 0.5
        losses, grad = ce.value_and_grad(x, q, **EACH)
        assert losses[1] == INF
        assert grad[1, -1] == -0.5
        assert np.isfinite(grad).all()


def test_special_rows(dtype: type, rng: Rng) -> None:
    for columns in (3, 2500, 70_000):
        x, q = sampled(rng, (3, columns), dtype)
        clean = ce.value_and_grad(x, q, **EACH)
        for value in (np.nan, INF):
            for at in (0, columns // 2, columns - 1):
                dirty = x.copy()
                dirty[1, at] = value
                losses, grad = ce.value_and_grad(dirty, q, **EACH)
                assert np.isnan(losses).tolist() == [False, True, False]
                assert np.isnan(grad[1]).all()
                assert np.array_equal(grad[::2], clean[1][::2])
        dirty = x.copy()
        dirty[1] = -INF
        losses, grad = ce.value_and_grad(dirty, q, **EACH)
        assert np.isnan(losses).tolist() == [False, True, False]
        assert np.isnan(grad[1]).all()
        targets = q.copy()
        targets[1, columns // 2] = np.nan
        losses, grad = ce.value_and_grad(x, targets, **EACH)
        assert np.isnan(losses).tolist() == [False, True, False]
        assert np.isnan(grad[1]).all()
        assert np.array_equal(losses[::2], clean[0][::2])


def test_nothing_and_no_weight(dtype: type, rng: Rng) -> None:
    empty = np.empty((0, 5), dtype)
    assert np.isnan(ce(empty, empty))
    assert ce(empty, empty, reduction="sum") == 0
    assert ce(empty, empty, **EACH).shape == (0,)
    assert ce.grad(empty, empty).shape == (0, 5)
    for call in (ce, ce.grad, ce.value_and_grad, ce.temperature_grad):
        with pytest.raises(ValueError, match="no classes"):
            call(np.empty((3, 0), dtype), np.empty((3, 0), dtype))
    x, q = sampled(rng, (3, 4), dtype)
    assert np.isnan(ce(x, q, sample_weight=np.zeros(3)))
    for reduction in ("mean", "sum", "none"):
        for each in ce.value_grad_hess(x, q, sample_weight=np.zeros(3), reduction=reduction)[1:]:
            assert not each.any()
    assert ce(x, np.zeros_like(q)) == 0
    assert not ce.grad(x, np.zeros_like(q)).any()
    assert ce(x, q, weight=np.zeros(4)) == 0  # the mean divides by the number of rows
    one, target = np.full((3, 1), 0.5, dtype), np.array([[1.0], [0.3], [0]], dtype)
    for options in ({}, {"weight": [2.0]}, {"label_smoothing": 0.3}, {"temperature": 0.1}):
        value, grad, hess = ce.value_grad_hess(one, target, **options)
        assert value == 0
        assert not hess.any()
        np.testing.assert_allclose(grad, 0, atol=16 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shift", [1e8, -1e8])
def test_a_shift_changes_no_bit(shift: float, dtype: type, rng: Rng) -> None:
    for columns in (5, 2500):
        x = (128 * rng.integers(-3, 3, (3, columns))).astype(dtype)
        q = rng.random((3, columns)).astype(dtype)
        for options in ({}, {"temperature": 64.0, "label_smoothing": 0.1}):
            expected = all_of(x, q, x, **options)
            assert all(map(np.array_equal, all_of(x + dtype(shift), q, x, **options), expected))


# ---- bad input ----------------------------------------------------------------------------------
BAD: dict[str, tuple[Callable[[Array, Array, Array], Any], type[Exception], str]] = {
    **{
        f"ignore_index {index}": (
            lambda x, q, out, i=index: ce.grad(x, q, ignore_index=i, out=out), ValueError, "^ignore_index"
        )
        for index in (0, 2, 100)
    },
    "of rows": (lambda x, q, out: ce.grad(x, q[:, 0], out=out), TypeError, "^targets has dtype float32"),
    "of a row": (lambda x, q, out: ce.grad(x, q[:1], out=out), TypeError, "^targets has dtype float32"),
    "turned": (lambda x, q, out: ce.grad(x, q.T, out=out), TypeError, "^targets has dtype float32"),
    "of one more axis": (
        lambda x, q, out: ce.grad(x, q[None], out=out), TypeError, "^targets has dtype float32"
    ),
    "a scalar": (lambda x, _, out: ce.grad(x, 0.5, out=out), TypeError, "^targets has dtype float64"),
    "bool": (lambda x, q, out: ce.grad(x, q > 0, out=out), TypeError, "^targets has dtype bool"),
    "one-hot integers": (
        lambda x, q, out: ce.grad(x, q.astype(int), out=out), ValueError, r"^targets has shape \(3, 4\)"
    ),
    "complex": (lambda x, q, out: ce.grad(x, 1j * q, out=out), TypeError, "^targets has dtype complex"),
    "masked": (
        lambda x, q, out: ce.grad(x, np.ma.masked_array(q), out=out), TypeError, "^targets is a masked array"
    ),
    "longdouble": (
        lambda x, q, out: ce.grad(x, q.astype(np.longdouble), out=out), TypeError, "^targets has dtype"
    ),
    "weight": (
        lambda x, q, out: ce.grad(x, q, weight=[1, 2, 3], out=out), ValueError, r"^weight has shape \(3,\)"
    ),
    "sample_weight": (
        lambda x, q, out: ce.grad(x, q, sample_weight=q, out=out), ValueError,
        r"^sample_weight has shape \(3, 4\), expected \(3,\)",
    ),
    "reduction": (
        lambda x, q, out: ce.grad(x, q, reduction="max", out=out), ValueError, "^reduction must be"
    ),
    "smoothing": (
        lambda x, q, out: ce.grad(x, q, label_smoothing=1.5, out=out), ValueError, "^label_smoothing must be"
    ),
    "temperature": (
        lambda x, q, out: ce.grad(x, q, temperature=0, out=out), ValueError, "^temperature must be"
    ),
    "temperature of its gradient": (
        lambda x, q, _: ce.temperature_grad(x, q, temperature=np.nan), ValueError, "^temperature must be"
    ),
    "tangent": (
        lambda x, q, out: ce.hvp(x, q, q[0], out=out), ValueError, r"^tangent has shape \(4,\), expected"
    ),
    "out": (lambda x, q, out: ce.grad(x, q, out=out[:2]), ValueError, r"^out has shape \(2, 4\)"),
    "out of a dtype": (
        lambda x, q, out: ce.grad(x, q, out=out.view("i4")), ValueError, "^out has dtype int32"
    ),
    "nll_loss": (lambda x, q, out: fl.nll_loss.grad(x, q, out=out), TypeError, "^targets has dtype float32"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_is_written(case: str) -> None:
    call, error, match = BAD[case]
    x, q, out = (np.arange(k, k + 12, dtype=np.float32).reshape(3, 4) / 16 for k in range(3))
    kept = x.tobytes(), q.tobytes(), out.tobytes()
    with pytest.raises(error, match=match):
        call(x, q, out)
    assert (x.tobytes(), q.tobytes(), out.tobytes()) == kept
    assert np.isfinite(ce(x, q, ignore_index=-1))  # a negative one is never met
