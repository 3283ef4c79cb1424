"""Derivatives against differences, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import with_targets

import fastloss as fl
from fastloss import reference

H = 1e-3  # 4-point differences: error O(h^4) 1e-12 of smooth functions, rounding 1e-16 / 1e-3

CE_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"reduction": "sum", "label_smoothing": 0.3},
    {"reduction": "none", "temperature": 0.5},
    {"weight": [0.5, 2.0, 1.0, 0.1, 3.0], "label_smoothing": 0.1, "temperature": 2.0},
    {"sample_weight": [1.0, 0.2, 3.0, 0.7], "weight": [0.5, 2.0, 1.0, 0.1, 3.0]},
)


def differences(f: Callable[[np.ndarray], Any], x: np.ndarray) -> np.ndarray:
    return reference.numerical_gradient(lambda z: np.sum(f(z)), x, step=H)


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10 * max(1.0, np.abs(b).max(initial=0)))


@pytest.mark.parametrize("options", CE_OPTIONS, ids=str)
def test_cross_entropy_gradient_is_the_limit_of_differences(
    options: dict[str, Any], rng: np.random.Generator
) -> None:
    x, y = rng.normal(size=(4, 5)), np.array([1, -100, 4, 0])
    weights = options.get("sample_weight")

    def f(z: np.ndarray) -> Any:
        return fl.cross_entropy(z, y, **options)

    value, grad = fl.cross_entropy.value_and_grad(x, y, **options)
    close(grad, differences(f, x))
    assert np.array_equal(value, f(x))
    assert np.array_equal(grad, fl.cross_entropy.grad(x, y, **options))
    assert (grad[1] == 0).all()
    assert weights is None or len(weights) == len(x)


@pytest.mark.parametrize("options", CE_OPTIONS, ids=str)
def test_second_derivatives_are_differences_of_the_gradient(
    options: dict[str, Any], rng: np.random.Generator
) -> None:
    x, y, t = rng.normal(size=(4, 5)), np.array([1, -100, 4, 0]), rng.normal(size=(4, 5))
    hvp = fl.cross_entropy.hvp(x, y, t, **options)
    close(hvp, differences(lambda z: fl.cross_entropy.grad(z, y, **options) * t, x))
    value, grad, hess = fl.cross_entropy.value_grad_hess(x, y, **options)
    one, first = fl.cross_entropy.value_and_grad(x, y, **options)
    assert np.array_equal(value, one)
    assert np.array_equal(grad, first)
    for j in range(5):
        unit = np.zeros((4, 5))
        unit[:, j] = 1
        np.testing.assert_allclose(
            hess[:, j], fl.cross_entropy.hvp(x, y, unit, **options)[:, j], rtol=1e-12, atol=1e-16
        )


@pytest.mark.parametrize("where", ["new", "in place", "hess in place"])
@pytest.mark.parametrize("shape", [(3, 40), (1, 200_000), (2, 700_000)])
def test_value_grad_hess_writes_where_it_is_told(
    where: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    x, y = with_targets(rng, shape, np.float64, {})
    grad, hess = fl.cross_entropy.value_grad_hess(x, y)[1:]
    own, other = x.copy(), np.empty_like(x)
    out = {"new": (None, None), "in place": (own, other), "hess in place": (other, own)}[where]
    _, g, h = fl.cross_entropy.value_grad_hess(own, y, out=out)
    assert np.array_equal(g, grad)
    assert np.array_equal(h, hess)
    assert where == "new" or (g is out[0] and h is out[1])


@pytest.mark.parametrize("op", [fl.softmax, fl.log_softmax], ids=["softmax", "log_softmax"])
def test_row_maps_are_linearised(op: Any, rng: np.random.Generator) -> None:
    x, t, u = rng.normal(size=(3, 2, 6)), rng.normal(size=(3, 2, 6)), rng.normal(size=(3, 2, 6))
    for axis in (0, 1, -1, (0, 2), None):
        for temperature in (1.0, 0.7):
            options = {"axis": axis, "temperature": temperature}
            jvp, vjp = op.jvp(x, t, **options), op.vjp(x, u, **options)
            close(vjp, differences(lambda z: op(z, **options) * u, x))  # noqa: B023
            close(np.vdot(u, jvp), np.vdot(vjp, t))
            y = op(x, **options)
            close(op.jvp_from_output(y, t, **options), jvp)
            close(op.vjp_from_output(y, u, **options), vjp)


def test_jacobian_holds_every_derivative(rng: np.random.Generator) -> None:
    x, t = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 5, 4))
    for op in (fl.softmax, fl.log_softmax):
        for axis in (0, 1, 2):
            dense = op.jacobian(x, axis, temperature=0.7)
            along = np.moveaxis(t, axis, -1)
            jvp = np.moveaxis(op.jvp(x, t, axis, temperature=0.7), axis, -1)
            vjp = np.moveaxis(op.vjp(x, t, axis, temperature=0.7), axis, -1)
            close(np.einsum("...ij,...j->...i", dense, along), jvp)
            close(np.einsum("...ij,...i->...j", dense, along), vjp)


@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_is_linearised(keepdims: bool, rng: np.random.Generator) -> None:
    x, t = rng.normal(size=(3, 2, 6)), rng.normal(size=(3, 2, 6))
    for axis in (0, 1, -1, (0, 2), None):
        options = {"axis": axis, "keepdims": keepdims}
        jvp = fl.logsumexp.jvp(x, t, **options)
        u = rng.normal(size=np.shape(jvp))
        vjp = fl.logsumexp.vjp(x, u, **options)
        close(vjp, differences(lambda z: fl.logsumexp(z, **options) * u, x))  # noqa: B023
        close(np.vdot(u, jvp), np.vdot(vjp, t))


@pytest.mark.parametrize("name", ["softplus", "sigmoid", "log_sigmoid"])
def test_gates_are_linearised(name: str, rng: np.random.Generator) -> None:
    op, x, t = getattr(fl, name), rng.normal(0, 3, (4, 5)), rng.normal(size=(4, 5))
    close(op.vjp(x, t), differences(lambda z: op(z) * t, x))
    assert np.array_equal(op.jvp(x, t), op.vjp(x, t))


def test_nll_gradient(rng: np.random.Generator) -> None:
    x, y = fl.log_softmax(rng.normal(size=(4, 5))), [1, -100, 4, 0]
    for options in ({}, {"reduction": "sum"}, {"weight": [0.5, 2.0, 1.0, 0.1, 3.0]}):
        value, grad = fl.nll_loss.value_and_grad(x, y, **options)
        close(grad, differences(lambda z: fl.nll_loss(z, y, **options), x))  # noqa: B023
        assert value == fl.nll_loss(x, y, **options)


# ---- the checks themselves --------------------------------------------------------------------
@pytest.mark.parametrize("method", ["central", "forward"])
def test_numerical_gradient_converges(method: str, dtype: type) -> None:
    x = np.array([[0.5, -2.0], [3.0, 1e-3]], dtype)
    n = fl.numerical_gradient(lambda z: float((z.astype(np.float64) ** 3).sum()), x, method=method)
    assert n.dtype == dtype
    assert n.shape == x.shape
    unit = float(np.finfo(dtype).eps) ** (2 / 3 if method == "central" else 1 / 2)
    np.testing.assert_allclose(n, 3 * x.astype(np.float64) ** 2, rtol=30 * unit, atol=100 * unit)


def test_numerical_gradient_restores_its_point() -> None:
    x = np.array([0.1, 0.2, 0.3])
    kept = x.copy()
    calls = []

    def f(z: np.ndarray) -> float:
        calls.append(z.copy())
        if len(calls) == 4:
            raise ZeroDivisionError
        return float(z.sum())

    with pytest.raises(ZeroDivisionError):
        fl.numerical_gradient(f, x)
    assert x.tobytes() == kept.tobytes()
    fl.numerical_gradient(lambda z: float(z.sum()), x, step=0.05)
    assert x.tobytes() == kept.tobytes()


def test_check_gradient_tells_right_from_wrong(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(3, 4)), [0, 3, 1]
    right = fl.cross_entropy.grad(x, y)

    def f(z: np.ndarray) -> Any:
        return fl.cross_entropy(z, y)

    assert fl.check_gradient(f, right, x) < 1e-6
    assert fl.check_gradient(f, lambda z: fl.cross_entropy.grad(z, y), x) < 1e-6
    wrong = right.copy()
    wrong[1, 2] *= 1.01
    assert 0.009 < fl.check_gradient(f, wrong, x) < 0.011
    assert fl.check_gradient(lambda _: 0.0, np.zeros((3, 4)), x) == 0.0
    assert np.isnan(fl.check_gradient(f, np.full((3, 4), np.nan), x))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fl.numerical_gradient(np.sum, [1.0]), TypeError, "x must be a float32"),
        (lambda: fl.numerical_gradient(np.sum, np.zeros(2, int)), TypeError, "int64"),
        (lambda: fl.numerical_gradient(np.sum, np.zeros(2, "f2")), TypeError, r"float16.*astype\(np.float64"),
        (lambda: fl.numerical_gradient(np.sum, np.zeros(2), step=0), ValueError, "step"),
        (lambda: fl.numerical_gradient(np.sum, np.zeros(2), step=np.nan), ValueError, "step"),
        (lambda: fl.numerical_gradient(np.sum, np.zeros(2), method="x"), ValueError, "method"),
        (lambda: fl.numerical_gradient(lambda z: z, np.zeros(2)), TypeError, "number"),
        (lambda: fl.check_gradient(np.sum, np.zeros(3), np.zeros(2)), ValueError, "grad has shape"),
    ],
)
def test_bad_points(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_read_only_point() -> None:
    x = np.zeros(2)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        fl.numerical_gradient(np.sum, x)
