"""Sums whose terms cancel, in short rows: right to the last digits all the same."""

from __future__ import annotations

from typing import Any

import mpmath
import naive
import numba
import numpy as np
import pytest
from closeness import assert_close
from test_agreement import widened

import fastloss as fl
from fastloss import reference
from fastloss._engine import twofold

SMALL = [1e-1, 1e-2]  # the longdouble oracle has no more than 64 bits itself


@numba.njit
def exponential(hi: float, lo: float) -> tuple[float, float]:
    return twofold.exp((hi, lo))


def test_exponential_has_more_digits_than_a_double(rng: np.random.Generator) -> None:
    with mpmath.workprec(200):
        for size in (1e-3, 0.3, 1.0, 30.0, 600.0):
            for hi in -size * rng.random(100):
                lo = hi * 1e-17
                pair, truth = exponential(hi, lo), mpmath.exp(mpmath.mpf(hi) + mpmath.mpf(lo))
                assert abs(sum(map(mpmath.mpf, pair)) / truth - 1) < mpmath.mpf(2) ** -60
    assert exponential(0.0, 0.0) == (1.0, 0.0)
    assert exponential(-1e4, 0.0) == (0.0, 0.0)


@pytest.mark.parametrize("off", SMALL)
@pytest.mark.parametrize("classes", [2, 3, 100])
def test_gradient_near_the_optimum_of_smoothing(
    classes: int, off: float, dtype: type, rng: np.random.Generator
) -> None:
    """Where p is nearly q, A p - q is small in every class."""
    weight = rng.uniform(0.5, 2, classes).astype(dtype)
    y = rng.integers(0, classes, 20)
    for smoothing in (0.3, 1.0):
        q = smoothing / classes * weight + (1 - smoothing) * weight * (np.arange(classes) == y[:, None])
        x = (2 * np.log(q) + rng.normal(0, off, q.shape)).astype(dtype)
        options = {"label_smoothing": smoothing, "reduction": "sum", "temperature": 2.0}
        grad = fl.cross_entropy.grad(x, y, weight=weight, **options)
        truth = reference.cross_entropy_grad(
            widened((x,), dtype)[0], y, weight=widened((weight,), dtype)[0], **options
        )
        assert_close(grad, truth, truth, -1, f"{classes} {off} {smoothing}")


@pytest.mark.parametrize("off", SMALL)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_products_with_a_jacobian(
    name: str, off: float, dtype: type, rng: np.random.Generator
) -> None:
    """A tangent that is nearly constant, a cotangent that is nearly the softmax."""
    x = rng.normal(0, 1, (20, 6)).astype(dtype)
    for method, v in (("jvp", 1.0 + off * rng.normal(size=x.shape)),
                      ("vjp", fl.softmax(x) * (1.0 + off * rng.normal(size=x.shape)))):
        v = v.astype(dtype)
        truth = getattr(reference, f"{name}_{method}")(*widened((x, v), dtype))
        assert_close(getattr(getattr(fl, name), method)(x, v), truth, truth, -1, method)


@pytest.mark.parametrize("row", [(-39.14, -1e-17), (-18.4207, -1e-8), (-20.7233, -1e-9), (-2.0, -0.145)])
def test_logsumexp_of_two_whatever_their_order(row: tuple[float, float], dtype: type) -> None:
    """The smaller term is not rounded against the larger one."""
    x = np.array([row, row[::-1]], dtype)
    with mpmath.workprec(300):
        truth = float(mpmath.log(sum(mpmath.exp(mpmath.mpf(float(each))) for each in x[0])))
    ours = fl.logsumexp(x)
    assert ours[0] == ours[1]
    # exp of a float64 is known to 2**-60, which is of no account for a float32
    slack = 2.0**-60 * float(np.abs(x).max()) if dtype == np.float64 else 0.0
    assert abs(float(ours[0]) - truth) < 4 * np.finfo(dtype).eps * abs(truth) + slack


@pytest.mark.parametrize("off", SMALL)
def test_logsumexp_near_zero(off: float, dtype: type, rng: np.random.Generator) -> None:
    x = fl.log_softmax(rng.normal(0, 1, (50, 6)).astype(dtype)) + dtype(off)
    wide = widened((x,), dtype)[0]
    assert_close(fl.logsumexp(x), reference.logsumexp(wide), reference.logsumexp(wide))
    t = rng.normal(0, 1, x.shape)
    t = (t - (fl.softmax(x) * t).sum(axis=-1, keepdims=True) + off).astype(dtype)
    truth = reference.logsumexp_jvp(wide, widened((t,), dtype)[0])
    assert_close(fl.logsumexp.jvp(x, t), truth, truth)


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_products_of_many_rows(classes: int, dtype: type, rng: np.random.Generator) -> None:
    """Whether a row's terms cancel is judged by their root mean square: no row of many is misjudged."""
    x = rng.normal(0, 4, (100_000 // classes, classes)).astype(dtype)
    t = rng.normal(0, 1, x.shape).astype(dtype)
    p = fl.softmax(x)
    wide_x, wide_t, wide_p = widened((x, t, p), dtype)
    judge: Any = reference if classes < 100 else naive  # the reference forms a row's Jacobian
    with np.errstate(divide="ignore"):
        given = np.log(wide_p)  # logits that have this output
    for ours, truth, textbook, axis in (
        (fl.softmax.jvp(x, t), judge.softmax_jvp(wide_x, wide_t), naive.softmax_jvp(x, t), -1),
        (
            fl.softmax.vjp_from_output(p, t), judge.softmax_jvp(given, wide_t),
            naive.softmax_jvp_from_output(p, t), -1,
        ),
        (
            fl.log_softmax.vjp(x, t), judge.log_softmax_vjp(wide_x, wide_t),
            naive.log_softmax_vjp(x, t), -1,
        ),
        (fl.logsumexp.jvp(x, t), judge.logsumexp_jvp(wide_x, wide_t), naive.logsumexp_jvp(x, t), None),
    ):
        assert_close(ours, truth, textbook, axis, str(classes))


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
@pytest.mark.parametrize(
    ("x", "t"),
    [
        ([0.0, -27.6], [1e6, 1e6 + 1]),
        ([0.0, -20.0], [100.0, 100.1]),
        ([0.0, 1.0], [1.0, -0.36787945]),
        ([0.0, -1.0, -2.0], [1e4, 1e4 + 1, 1e4 - 1]),
    ],
)
def test_products_with_tangents_far_from_zero(
    x: list[float], t: list[float], scale: float, dtype: type
) -> None:
    """What is small beside the tangents may still be large beside their differences."""
    logits, tangent = np.array([x], dtype), (np.array([t]) * scale).astype(dtype)
    wide = [[mpmath.mpf(float(v)) for v in row[0]] for row in (logits, tangent)]
    with mpmath.workprec(300):
        e = [mpmath.exp(v) for v in wide[0]]
        p = [v / mpmath.fsum(e) for v in e]
        mean = mpmath.fsum(a * b for a, b in zip(p, wide[1], strict=True))
        truth = np.array([[float(a * (b - mean)) for a, b in zip(p, wide[1], strict=True)]])
        centre = float(mean)
    eps = np.finfo(dtype).eps
    for ours in (fl.softmax.jvp(logits, tangent), fl.softmax.vjp(logits, tangent)):
        assert np.abs(ours - truth).max() <= 6 * eps * np.abs(truth).max()
    (ours,) = fl.logsumexp.jvp(logits, tangent)
    # exp of a float64 is known to 2**-60, which is of no account for a float32
    slack = 2.0**-60 * np.abs(tangent).max() if dtype == np.float64 else 0.0
    assert abs(float(ours) - centre) <= 4 * eps * abs(centre) + slack


@pytest.mark.parametrize("columns", [2, 5, 64, 300])
def test_products_of_numbers_that_float32_barely_holds(columns: int, rng: np.random.Generator) -> None:
    """Their differences and squares overflow or vanish in it, not where such rows are made again."""
    x, t = rng.normal(0, 1, (2, 100, columns)).astype(np.float32)
    sizes = np.where(np.arange(100) % 3 == 0, 1, np.where(np.arange(100) % 3 == 1, 3e38, 1e-30))
    t = (np.clip(t, -1, 1) * sizes[:, None]).astype(np.float32)
    t[:, 0] = np.copysign(sizes, -t[:, 1])  # beside what is next to it
    wide = widened((x, t), np.float32)
    p = fl.softmax(x)
    given = np.log(widened((p,), np.float32)[0])  # logits that have this output
    with np.errstate(over="ignore"):
        for ours, truth in (
            (fl.softmax.jvp(x, t), reference.softmax_jvp(*wide)),
            (fl.softmax.vjp_from_output(p, t), reference.softmax_jvp(given, wide[1])),
            (fl.log_softmax.jvp(x, t), reference.log_softmax_jvp(*wide)),
            (fl.log_softmax.vjp(x, t), reference.log_softmax_vjp(*wide)),
        ):
            assert_close(ours, truth, truth.astype(np.float32), -1, str(columns))


@pytest.mark.parametrize("temperature", [1.0, 1.1, 3.0])
@pytest.mark.parametrize("columns", [2, 10, 128])
def test_products_that_are_shares_of_small_probabilities(
    columns: int, temperature: float, dtype: type, rng: np.random.Generator
) -> None:
    """Of a cotangent that is 0 but at an unlikely class, what rounding takes from exponents would show."""
    x = rng.normal(0, 1, (100, columns)).astype(dtype)
    peak = rng.integers(0, columns, len(x))
    x[np.arange(len(x)), peak] += (rng.uniform(5, 40, len(x)) * temperature).astype(dtype)
    t = np.zeros_like(x)
    t[np.arange(len(x)), (peak + 1) % columns] = 1
    truth = reference.softmax_vjp(*widened((x, t), dtype), temperature=temperature)
    scaled = x / dtype(temperature)
    textbook = naive.softmax_jvp(scaled, t) / dtype(temperature)
    assert_close(fl.softmax.vjp(x, t, temperature=temperature), truth, textbook, -1, str(columns))


def test_products_of_vanishing_numbers() -> None:
    """Float32 has neither exp(-89) nor the digits of 3e-44, which 3e38 and 1/T make ordinary numbers."""
    for x, t, temperature in (([0, -89.2], [0, 3e38], 1), ([0, -88 * 2.0**-50], [0, 1e-3], 2.0**-50)):
        each, tangent = np.array([x], np.float32), np.array([t], np.float32)
        ours = fl.softmax.jvp(each, tangent, temperature=temperature)
        truth = reference.softmax_jvp(*widened((each, tangent), np.float32), temperature=temperature)
        assert np.allclose(ours, truth, rtol=4e-7, atol=0)
    tangent = np.array([[0, 3e-44]], np.float32)
    ours = fl.log_softmax.jvp(np.zeros((1, 2), np.float32), tangent, temperature=1e-12)
    assert np.allclose(ours, tangent[0, 1].astype(float) * 1e12 * np.array([-0.5, 0.5]), rtol=4e-7, atol=0)


@pytest.mark.parametrize("columns", [1, 3, 128, 129])
def test_cotangent_of_an_output_without_mass(columns: int, dtype: type) -> None:
    t = np.arange(1, columns + 1, dtype=dtype)[None]
    assert np.array_equal(fl.log_softmax.vjp_from_output(np.full((1, columns), -np.inf, dtype), t), t)
