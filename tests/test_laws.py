"""What holds for every input, and the worked numbers of the notes."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from cases import logits

import fastloss as fl


# ---- the notes --------------------------------------------------------------------------------
def test_softmax_of_one_two_three(dtype: type) -> None:
    assert fl.softmax(np.array([1, 2, 3], dtype)).round(4).tolist() == pytest.approx(
        [0.0900, 0.2447, 0.6652], abs=1e-6
    )


def test_three_rows_of_probabilities() -> None:
    p = np.array([[0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.4, 0.6, 0.0]])
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    expected = [0.3567, 0.3567, 0.5108]
    assert fl.nll_loss(log_p, [1, 1, 1], reduction="none").round(4).tolist() == expected
    assert fl.cross_entropy(log_p, [1, 1, 1], reduction="none").round(4).tolist() == expected
    assert fl.cross_entropy(log_p, [1, 1, 1]) == pytest.approx(np.mean(-np.log([0.7, 0.7, 0.6])))


def test_softmax_is_shift_invariant(dtype: type, rng: np.random.Generator) -> None:
    x = (rng.integers(-64, 64, (5, 40)) / 8).astype(dtype)
    for shift in (1.0, -1000.0, 2.0**20):  # exact in either type, so that equality is exact too
        assert np.array_equal(fl.softmax(x + dtype(shift)), fl.softmax(x))
        assert np.array_equal(fl.log_softmax(x + dtype(shift)), fl.log_softmax(x))
        assert fl.cross_entropy(x + dtype(shift), [0, 1, 2, 3, 4]) == fl.cross_entropy(
            x, [0, 1, 2, 3, 4]
        )


def test_softmax_is_soft_and_its_jacobian_vanishes_at_a_large_scale(rng: np.random.Generator) -> None:
    x = rng.permutation(6) / 2
    hard = np.eye(6)[x.argmax()]
    sizes = []
    for scale in (1.0, 10.0, 100.0, 1e4):
        sizes.append(np.abs(fl.softmax.jacobian(scale * x)).max())
        assert np.abs(fl.softmax(scale * x) - hard).max() <= np.abs(fl.softmax(x) - hard).max()
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3]
    assert sizes[3] < 1e-30
    assert np.array_equal(fl.softmax(x, temperature=0.25), fl.softmax(4 * x))


def test_two_class_softmax_is_the_sigmoid(dtype: type, rng: np.random.Generator) -> None:
    z = logits(rng, (200,), dtype)
    two = np.stack([np.zeros_like(z), z], axis=-1)
    eps = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(fl.softmax(two)[:, 1], fl.sigmoid(z), rtol=eps, atol=1e-37)
    np.testing.assert_allclose(fl.log_softmax(two)[:, 1], fl.log_sigmoid(z), rtol=eps, atol=eps)
    nll = fl.cross_entropy(two, np.ones(200, int), reduction="none")
    np.testing.assert_allclose(nll, fl.softplus(-z), rtol=eps, atol=1e-37)


def test_logsumexp_is_a_smooth_maximum(dtype: type, rng: np.random.Generator) -> None:
    x = logits(rng, (50, 300), dtype)
    lse, top = fl.logsumexp(x).astype(np.float64), x.max(axis=-1).astype(np.float64)
    slack = 4 * np.finfo(dtype).eps * np.abs(top).max()
    assert (lse >= top - slack).all()
    assert (lse <= top + np.log(300) + slack).all()
    np.testing.assert_allclose(fl.logsumexp.vjp(x, np.ones(50, dtype)), fl.softmax(x))


# ---- laws ---------------------------------------------------------------------------------------
def test_rows_sum_to_one(dtype: type, rng: np.random.Generator) -> None:
    for columns in (1, 7, 1000, 40_000):
        p = fl.softmax(logits(rng, (3, columns), dtype))
        assert (p >= 0).all()
        np.testing.assert_allclose(p.sum(axis=-1, dtype=np.float64), 1, rtol=4 * np.finfo(dtype).eps)


def test_permuting_classes_permutes_the_result(dtype: type, rng: np.random.Generator) -> None:
    x, order = logits(rng, (4, 33), dtype), rng.permutation(33)
    eps = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(fl.softmax(x[:, order]), fl.softmax(x)[:, order], rtol=eps, atol=1e-37)


def test_a_call_is_the_value_of_its_value_and_grad(dtype: type, rng: np.random.Generator) -> None:
    for shape in ((5, 9), (3, 5000), (2, 100_000)):
        x, y = logits(rng, shape, dtype), rng.integers(0, shape[1], shape[0])
        for options in ({}, {"label_smoothing": 0.1}, {"reduction": "none"}, {"temperature": 0.7}):
            value, _ = fl.cross_entropy.value_and_grad(x, y, **options)
            assert np.array_equal(value, fl.cross_entropy(x, y, **options))


def test_cross_entropy_is_nll_of_log_softmax(dtype: type, rng: np.random.Generator) -> None:
    x, y = logits(rng, (30, 70), dtype), rng.integers(0, 70, 30)
    for options in ({}, {"weight": rng.uniform(size=70)}, {"reduction": "sum"}):
        a, b = fl.cross_entropy(x, y, **options), fl.nll_loss(fl.log_softmax(x), y, **options)
        assert a == pytest.approx(b, rel=16 * float(np.finfo(dtype).eps))


def test_confident_rows_keep_their_digits(dtype: type) -> None:
    """Where one probability is nearly 1, what is left of it is exact to rounding, not lost."""
    mpmath.mp.dps = 60
    for gap in (2.0, 12.0, 25.0, 40.0, 80.0):
        x = np.array([[0.5, 0.5 - gap, 0.25 - gap, -2 - gap]], dtype)
        e = [mpmath.exp(mpmath.mpf(float(v))) for v in x[0]]
        total = mpmath.fsum(e)
        rest = mpmath.fsum(e[1:]) / total
        u = np.array([[3, 1, 2, -5]], dtype)
        dot = mpmath.fsum(a * mpmath.mpf(float(b)) for a, b in zip(e, u[0], strict=True)) / total
        truth = {
            "loss": mpmath.log1p(mpmath.fsum(e[1:]) / e[0]),
            "slope": -rest,
            "bend": rest * (1 - rest),
            "jvp": (3 - dot) * (1 - rest),
            "log jvp": 3 - dot,
        }
        loss, grad, hess = fl.cross_entropy.value_grad_hess(x, [0])
        ours = {
            "loss": loss,
            "slope": grad[0, 0],
            "bend": hess[0, 0],
            "jvp": fl.softmax.jvp(x, u)[0, 0],
            "log jvp": fl.log_softmax.jvp(x, u)[0, 0],
        }
        for name, value in ours.items():
            error = abs(float(value) / float(truth[name]) - 1)
            assert error < 6 * np.finfo(dtype).eps, (gap, name, value, truth[name])


@pytest.mark.parametrize("columns", [10, 1000, 5000, 70_000])
def test_a_row_does_not_depend_on_the_others(
    columns: int, dtype: type, rng: np.random.Generator
) -> None:
    x = logits(rng, (40, columns), dtype)
    y = rng.integers(0, columns, 40)
    p, lse = fl.softmax(x), fl.logsumexp(x)
    losses = fl.cross_entropy(x, y, reduction="none")
    grad = fl.cross_entropy.grad(x, y, reduction="none")
    for i in (0, 17, 39):
        assert np.array_equal(fl.softmax(x[i]), p[i])
        assert fl.logsumexp(x[i]) == lse[i]
        assert fl.cross_entropy(x[i], y[i]) == losses[i]
        assert np.array_equal(fl.cross_entropy.grad(x[i : i + 1], y[i : i + 1])[0], grad[i])


def test_weights_are_repetition(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(3, 5)), np.array([1, 0, 4])
    repeated = fl.cross_entropy(np.repeat(x, [1, 2, 3], axis=0), np.repeat(y, [1, 2, 3]))
    assert fl.cross_entropy(x, y, sample_weight=[1, 2, 3]) == pytest.approx(repeated, rel=1e-14)


def test_exp_and_log1p_are_within_two_units(dtype: type, rng: np.random.Generator) -> None:
    """By way of sigmoid and softplus, over their whole range; truth from mpmath."""
    mpmath.mp.dps = 40
    low = -87.0 if dtype == np.float32 else -708.0
    x = np.concatenate([rng.uniform(low, 0, 300), -np.geomspace(1e-8, -low, 100)]).astype(dtype)
    unit = np.finfo(dtype).eps
    for op, f in (
        (fl.sigmoid, lambda v: 1 / (1 + mpmath.exp(-v))),
        (fl.softplus, lambda v: mpmath.log1p(mpmath.exp(v))),
    ):
        truth = [f(mpmath.mpf(float(v))) for v in x]
        error = [abs(mpmath.mpf(float(a)) / b - 1) for a, b in zip(op(x), truth, strict=True)]
        assert max(error) < 2.5 * unit
