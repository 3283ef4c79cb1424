"""Long rows that lie side by side are walked in strips: the bits of rows that lie one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastloss as fl
from fastloss._engine import strips

Rng = np.random.Generator
ROWS, LONG = 35, 33_000  # more columns than a segment
ONES = np.ones(ROWS)


def targets(x: np.ndarray) -> np.ndarray:
    """In every segment; a row that is ignored."""
    y = np.linspace(0, max(x.shape) - 1, ROWS).astype(int)
    y[8] = -100
    return y


def weight(x: np.ndarray) -> np.ndarray:
    return np.linspace(0, 2, max(x.shape))


CALLS: dict[str, Callable[..., Any]] = {
    "softmax.jvp": lambda x, t, **o: fl.softmax.jvp(x, t, temperature=0.7, **o),
    "log_softmax.vjp": fl.log_softmax.vjp,
    "vjp_from_output": lambda x, t, **o: fl.softmax.vjp_from_output(np.exp2(-np.abs(x)), t, **o),
    "logsumexp.jvp": fl.logsumexp.jvp,
    "smoothing": lambda x, _, **o: fl.cross_entropy.value_and_grad(x, targets(x), label_smoothing=0.1, **o),
    "index hvp": lambda x, t, **o: fl.cross_entropy.hvp(x, targets(x), t, **o),
    "index hess": lambda x, _, **o: fl.cross_entropy.value_grad_hess(x, targets(x), weight=weight(x), **o),
    "scale_grad": lambda x, _, **o: fl.additive_margin_softmax_loss.scale_grad(x, targets(x), **o),
    "cross_entropy": lambda x, t, **o: fl.cross_entropy.value_and_grad(x, np.abs(t), **o),
    "hvp": lambda x, t, **o: fl.cross_entropy.hvp(x, np.abs(t), t[::-1, ::-1], **o),
    "hess": lambda x, t, **o: fl.cross_entropy.value_grad_hess(x, np.abs(t), label_smoothing=0.1, **o),
    "temperature_grad": lambda x, t, **o: fl.cross_entropy.temperature_grad(x, np.abs(t), **o),
    "entropy": lambda x, _, **o: fl.entropy_from_logits(x, **o),
    "entropy.vjp": lambda x, _, **o: fl.entropy_from_logits.vjp(x, ONES, **o),
    "hinge": lambda x, _, **o: fl.multiclass_hinge_loss.value_and_grad(x, targets(x), **o),
    "max hinge": lambda x, _, **o: fl.max_hinge_loss(x, targets(x), **o),
    "entropy of probabilities": lambda x, _, **o: fl.entropy(np.abs(x), **o),
    "kl": lambda x, t, **o: fl.kl_divergence(np.abs(x), np.abs(t), **o),
    "js": fl.js_divergence_from_logits,
    "kl.vjp": lambda x, t, **o: fl.kl_divergence_from_logits.vjp(x, t, ONES, **o),
}


SUMS = ("entropy of probabilities", "kl")  # whose shorter rows share blocks
HINGES = ("hinge", "max hinge")  # whose rows are walked whole


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arrays that were walked in strips."""
    sides: list[Any] = []
    run = strips.run

    def noted(*args: Any, **options: Any) -> None:
        sides.extend(args[6])
        run(*args, **options)

    monkeypatch.setattr(strips, "run", noted)
    return sides


def problem(rng: Rng, dtype: Any, columns: int = LONG) -> tuple[np.ndarray, np.ndarray]:
    """Rows, some with infinities, NaN or ties."""
    x, t = rng.normal(0, 4, (ROWS, columns)), rng.normal(0, 1, (ROWS, columns))
    x[3], x[4, 5], x[5, 7], x[6], x[7, ::2] = -np.inf, np.nan, np.inf, 1, -np.inf
    return x.astype(dtype), t.astype(dtype)


def assert_same(name: str, got: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        for each, other in zip(got, expected, strict=True):
            assert_same(name, each, other)
    else:
        got = got.T if np.shape(got) != np.shape(expected) else got
        assert np.array_equal(got, expected, equal_nan=True), name


@pytest.mark.parametrize("columns", [129, 1500, LONG])
@pytest.mark.parametrize("name", CALLS)
def test_bits_are_those_of_rows_one_after_the_other(
    name: str, columns: int, dtype: type, rng: Rng, used: list[Any]
) -> None:
    x, t = problem(rng, dtype, columns)
    across, beside = np.ascontiguousarray(x.T), np.ascontiguousarray(t.T)
    call = CALLS[name]
    expected = call(x, t)
    assert not used
    assert_same(name, call(across, beside, axis=0), expected)
    assert used or (name in SUMS and columns < LONG) or (name in HINGES and columns == LONG)
    if name == "hvp":
        return
    swapped = beside.astype(beside.dtype.newbyteorder())
    assert_same(name, call(across, swapped, axis=0), expected)
    if name in ("softmax.jvp", "log_softmax.vjp"):
        out = np.full((columns + 2, 40), 7, dtype)
        assert_same(name, call(across, beside, axis=0, out=out[1:-1, 2:37]), expected)
        assert (out[0] == 7).all()
        assert (out[-1] == 7).all()
        assert (out[:, :2] == 7).all()
        assert (out[:, 37:] == 7).all()
        assert_same(name, call(across, beside, axis=0, out=across), expected)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_halves(kind: Any, rng: Rng, used: list[Any]) -> None:
    x, t = problem(rng, kind)
    assert_same("halves", fl.softmax.vjp(x.T, t.T, axis=0), fl.softmax.vjp(x, t).T)  # Fortran's order
    there = fl.softmax.vjp(np.ascontiguousarray(x.T), t.T, axis=0)
    assert_same("halves", there, fl.softmax.vjp(x, t))
    assert used


def test_runs_of_rows(rng: Rng, used: list[Any]) -> None:
    """Channels of images: rows lie side by side in runs, and in runs too short for strips."""
    for shape, walked in (((2, LONG, 3, 6), True), ((2, LONG, 3), False)):
        used.clear()
        x, t = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
        got = fl.softmax.jvp(x, t, axis=1)
        assert bool(used) is walked, shape
        expected = fl.softmax.jvp(*(np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, t)))
        assert np.array_equal(np.moveaxis(got, 1, -1), expected), shape


def test_right(rng: Rng, dtype: type) -> None:
    """By the definition, in a wider type; and so are the results of rows that are walked across."""
    x, t = (rng.normal(0, 3, (LONG, 40)) for _ in range(2))
    e = np.exp(x.astype(dtype).astype(np.longdouble))
    p, given = e / e.sum(axis=0), t.astype(dtype).astype(np.longdouble)
    mean = (p * given).sum(axis=0)
    got = fl.softmax.jvp(x.astype(dtype), t.astype(dtype), axis=0)
    size = p * (np.abs(given) + (p * np.abs(given)).sum(axis=0))  # of the terms, which cancel
    wrong = (8 + x.max(axis=0) - x) * np.finfo(dtype).eps  # the difference is rounded before it is exp's
    assert (np.abs(got - p * (given - mean)) <= wrong * size).all()
    assert (np.abs(fl.softmax(x.astype(dtype), axis=0) - p) <= wrong * p).all()


def test_few_rows_which_are_written_while_the_next_are_read(dtype: type, rng: Rng, used: list[Any]) -> None:
    x = rng.normal(0, 4, (300, 20)).astype(dtype)
    y, there = rng.integers(0, 300, 20), np.ascontiguousarray(x.T)
    assert np.array_equal(fl.softmax(x, axis=0), fl.softmax(there).T)
    assert used
    used.clear()
    assert np.array_equal(fl.cross_entropy.grad(x, y, axis=0), fl.cross_entropy.grad(there, y).T)
    assert used


def test_other_arithmetic_strides_outputs_and_ignored_rows(dtype: type, rng: Rng, used: list[Any]) -> None:
    x, t = (rng.normal(0, 4, (300, ROWS)).astype(dtype) for _ in range(2))
    expected = fl.softmax.jvp(x.T.copy(), t.T.copy()).T
    up = fl.softmax.jvp(x[::-1].T.copy(), t[::-1].T.copy()).T
    assert np.array_equal(fl.softmax.jvp(x[::-1], t[::-1], axis=0), up)
    assert np.array_equal(fl.softmax.jvp(x[:, ::-1], t[:, ::-1], axis=0)[:, ::-1], expected)
    assert np.array_equal(fl.softmax.jvp(x, z := t.copy(), axis=0, out=z), expected)
    for one in (t[:, :1], t[:1]):
        wide = np.broadcast_to(one, t.shape)
        got = fl.softmax.jvp(x, wide, axis=0)
        assert np.array_equal(got, fl.softmax.jvp(x.T.copy(), wide.T.copy()).T)
    got = fl.softmax.jvp(x, t, axis=0, temperature=1e-25)  # in float64
    assert np.array_equal(got, fl.softmax.jvp(x.T.copy(), t.T.copy(), temperature=1e-25).T)
    ignored = np.full(ROWS, -100)
    assert (fl.cross_entropy.grad(x, ignored, axis=0, label_smoothing=0.1) == 0).all()
    value, grad, hess = fl.cross_entropy.value_grad_hess(z := x.copy(), targets(x), axis=0, out=(t, z))
    there = fl.cross_entropy.value_grad_hess(np.ascontiguousarray(x.T), targets(x))
    assert value == there[0]
    assert np.array_equal(grad, there[1].T)
    assert np.array_equal(hess, there[2].T)
    assert used


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float16, ml_dtypes.bfloat16, ">f2"])
@pytest.mark.parametrize("rows", [16, 31, 70])
def test_tangents_of_two_bytes_beside_logits_of_four(kind: Any, rows: int, rng: Rng) -> None:
    x = rng.normal(0, 3, (300, rows)).astype(np.float32)
    t = rng.integers(0, 9, (300, rows)).astype(kind)
    got = fl.softmax.jvp(x, t, axis=0)
    expected = fl.softmax.jvp(np.ascontiguousarray(x.T), np.ascontiguousarray(t.T).astype(np.float32))
    assert np.array_equal(got.T, expected)
