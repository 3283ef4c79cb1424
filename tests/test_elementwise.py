"""Element-wise losses and penalties: bits, places, edges, kinks, derivatives, laws, and peers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mpmath
import numba
import numpy as np
import pytest
from cases import CASES, ELEMENTS, REDUCED, filled, layouts

import fastloss as fl
from fastloss import reference
from fastloss._engine import elementary

Rng = np.random.Generator
PENALTIES = ("l1_penalty", "l2_penalty", "feature_incay_penalty")
SEGMENT = 1 << 15


def arguments(name: str, rng: Rng, shape: tuple[int, ...], dtype: type) -> tuple[Any, Any]:
    args: tuple[Any, Any] = ELEMENTS[name][0](rng, shape, dtype, {})
    return args


@pytest.mark.parametrize("name", ELEMENTS)
def test_bits_depend_on_neither_layout_nor_threads(name: str, dtype: type, rng: Rng) -> None:
    """Several segments, that begin and end within rows."""
    op, shape = getattr(fl, name), (9, 11_003)
    z, y = arguments(name, rng, shape, dtype)
    s = rng.uniform(0.2, 3, shape).astype(dtype)
    for weight in (None, s):
        value, grad, hess = op.value_grad_hess(z, y, sample_weight=weight)
        assert np.array_equal(value, op(z, y, sample_weight=weight))
        assert np.array_equal(grad, op.grad(z, y, sample_weight=weight))
        with fl.num_threads(1):
            assert np.array_equal(op(z, y, sample_weight=weight), value)
        for layout, same in layouts(z).items():
            got = op.value_grad_hess(same, y, sample_weight=weight)
            assert all(map(np.array_equal, got, (value, grad, hess))), layout
        flat = op.value_grad_hess(
            z.ravel(), y.ravel(), sample_weight=weight if weight is None else weight.ravel()
        )
        assert all(map(np.array_equal, flat, (value, grad.ravel(), hess.ravel())))
    folded = (z.reshape(9, 11_003, 1)[:, ::2], np.asfortranarray(y.reshape(9, 11_003, 1)[:, ::2]))
    plain = tuple(map(np.ascontiguousarray, folded))
    assert np.array_equal(op(*folded), op(*plain))
    assert np.array_equal(op(*folded, reduction="none"), op(*plain, reduction="none"))
    assert np.array_equal(op.grad(*folded), op.grad(*plain))


@pytest.mark.parametrize("name", ELEMENTS)
def test_outputs_may_be_any_argument(name: str, dtype: type, rng: Rng) -> None:
    op, shape = getattr(fl, name), (3, 700)
    given = (*arguments(name, rng, shape, dtype), rng.uniform(0.2, 3, shape).astype(dtype))
    value, grad, hess = op.value_grad_hess(*given[:2], sample_weight=given[2])
    for at in range(3):
        z, y, s = (a.copy() for a in given)
        out = (z, y, s)[at]
        assert op.grad(z, y, sample_weight=s, out=out) is out
        assert np.array_equal(out, grad), at
        for other in range(3):
            if other != at:
                z, y, s = (a.copy() for a in given)
                pair = (z, y, s)[at], (z, y, s)[other]
                got = op.value_grad_hess(z, y, sample_weight=s, out=pair)
                assert got[1] is pair[0]
                assert got[2] is pair[1]
                assert all(map(np.array_equal, got, (value, grad, hess))), (at, other)
    memory = np.concatenate([given[0].ravel(), np.zeros(9, dtype)])
    late = memory[5 : 5 + given[0].size].reshape(shape)  # overlaps in part
    op.grad(memory[: given[0].size].reshape(shape), given[1], sample_weight=given[2], out=late)
    assert np.array_equal(late, grad)


def test_results_past_the_cache_are_the_same(rng: Rng) -> None:
    z, y = arguments("huber_loss", rng, (3, 3_000_001), np.float32)
    grad, out = fl.huber_loss.grad(z, y, sample_weight=abs(y)), np.zeros_like(z)
    assert np.array_equal(fl.huber_loss.grad(z, y, sample_weight=abs(y), out=out), grad)
    assert np.array_equal(fl.huber_loss.grad(z, y, out=out), fl.huber_loss.grad(z, y))
    pair = out, np.zeros_like(out)
    got = fl.huber_loss.value_grad_hess(z, y, out=pair)
    assert all(map(np.array_equal, got, fl.huber_loss.value_grad_hess(z, y)))
    assert np.array_equal(fl.l2_penalty.grad(z, out=out), z + z)


# ---- edges --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ELEMENTS)
def test_nan_stays_where_it_is(name: str, dtype: type, rng: Rng) -> None:
    op = getattr(fl, name)
    for which in range(2):
        args = arguments(name, rng, (4, 50), dtype)
        clean = op.value_grad_hess(*args, reduction="none")
        args[which][1, 7] = np.nan
        for before, after in zip(clean, op.value_grad_hess(*args, reduction="none"), strict=True):
            assert np.isnan(after[1, 7])
            after[1, 7] = before[1, 7]
            assert np.array_equal(after, before)
        assert np.isnan(op(*args))


@pytest.mark.parametrize("name", ELEMENTS)
def test_nothing(name: str, dtype: type) -> None:
    op = getattr(fl, name)
    for shape in ((0,), (0, 3), (3, 0)):
        z = np.zeros(shape, dtype)
        with np.errstate(all="raise"):
            assert np.isnan(op(z, z))
            assert op(z, z, reduction="sum") == 0
            assert op(z, z, reduction="none").shape == shape
            assert op.grad(z, z).shape == shape
    zero = op(dtype(0.5), dtype(1.0))
    assert isinstance(zero, dtype)
    assert zero == op([dtype(0.5)], [dtype(1.0)])
    assert isinstance(op(dtype(0.5), dtype(1.0), reduction="none"), dtype)
    assert all(isinstance(each, dtype) for each in op.value_grad_hess(dtype(0.5), dtype(1.0)))
    out = np.zeros((), dtype)
    assert op.grad(dtype(0.5), dtype(1.0), out=out) is out
    assert out == op.grad(dtype(0.5), dtype(1.0))


@pytest.mark.parametrize("name", ELEMENTS)
def test_no_weight_in_all(name: str, dtype: type, rng: Rng) -> None:
    op = getattr(fl, name)
    z, y = arguments(name, rng, (3, 40), dtype)
    none = np.zeros_like(z)
    assert np.isnan(op(z, y, sample_weight=none))
    assert op(z, y, sample_weight=none, reduction="sum") == 0
    z[0, 0] = np.inf
    for reduction in ("mean", "sum", "none"):
        grad, hess = op.value_grad_hess(z, y, sample_weight=none, reduction=reduction)[1:]
        assert not grad.any()
        assert not hess.any()


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**110])
def test_only_ratios_of_weights_count_in_a_mean(scale: float, rng: Rng) -> None:
    z, y = arguments("mse_loss", rng, (5, 9), np.float32)
    s = np.ones_like(z)
    value, grad = fl.mse_loss.value_and_grad(z, y, sample_weight=s * np.float32(scale))
    expected, slope = fl.mse_loss.value_and_grad(z, y, sample_weight=s)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(grad, slope, rtol=1e-6)


def test_infinite_arguments(dtype: type) -> None:
    """What the mathematics says, where it says anything."""
    inf, z = np.inf, np.array([np.inf, -np.inf, 0.0], dtype)
    rows: dict[str, tuple[list[float], list[float], list[float]]] = {  # targets, losses, gradient
        "mse_loss": ([0, 0, inf], [inf, inf, inf], [inf, -inf, -inf]),
        "l1_loss": ([0, 0, inf], [inf, inf, inf], [1, -1, -1]),
        "huber_loss": ([0, 0, inf], [inf, inf, inf], [1, -1, -1]),
        "smooth_l1_loss": ([0, 0, inf], [inf, inf, inf], [1, -1, -1]),
        "log_cosh_loss": ([0, 0, inf], [inf, inf, inf], [1, -1, -1]),
        "pinball_loss": ([0, 0, inf], [inf, inf, inf], [0.5, -0.5, -0.5]),
        "hinge_loss": ([1, 1, -1], [0, inf, 1], [0, -1, 1]),
        "squared_hinge_loss": ([1, 1, -1], [0, inf, 1], [0, -inf, 2]),
        "perceptron_loss": ([1, 1, -1], [0, inf, 0], [0, -1, 0]),
        "logistic_loss": ([1, 1, -1], [0, inf, np.log(2)], [0, -1, 0.5]),
        "binary_cross_entropy_with_logits": ([1, 1, 0], [0, inf, np.log(2)], [0, -1, 0.5]),
    }
    for name, (y, losses, slopes) in rows.items():
        op = getattr(fl, name)
        got, grad = op.value_and_grad(z, np.array(y, dtype), reduction="none")
        np.testing.assert_allclose(got, losses, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(grad, slopes, rtol=1e-6, err_msg=name)


def test_subgradients_at_kinks() -> None:
    """Which side is documented; the gradient is one of the convex ones."""
    at = {
        "l1_loss": (2.0, 2.0, 0.0), "pinball_loss": (2.0, 2.0, 0.0), "hinge_loss": (1.0, 1.0, 0.0),
        "perceptron_loss": (0.0, 1.0, 0.0), "squared_hinge_loss": (1.0, 1.0, 0.0),
        "huber_loss": (1.0, 0.0, 1.0), "smooth_l1_loss": (1.0, 0.0, 1.0),
    }
    for name, (z, y, slope) in at.items():
        assert getattr(fl, name).grad([z], [y])[0] == slope, name
    assert fl.l1_penalty.grad([0.0, -0.0]).tolist() == [0, 0]


def test_small_differences_keep_their_digits(dtype: type) -> None:
    d = np.array([1e-3, 1e-8, 1e-15, 0.99, 1.01, 20], dtype)
    value, grad, hess = fl.log_cosh_loss.value_grad_hess(d, np.zeros_like(d), reduction="none")
    wide = d.astype(np.longdouble)
    close = {"rtol": 6 * np.finfo(dtype).eps}
    near = wide[:3] ** 2
    np.testing.assert_allclose(value[:3], near / 2 * (1 - near / 6 + 2 * near**2 / 45), **close)
    np.testing.assert_allclose(value[3:], np.log(np.cosh(wide))[3:], **close)
    np.testing.assert_allclose(grad, np.tanh(wide), **close)
    np.testing.assert_allclose(hess, 1 / np.cosh(wide) ** 2, **close)


def test_the_smallest_curvatures_are_not_lost(dtype: type) -> None:
    """As long as they are normal numbers: that of log_cosh, 4 exp(-2 |d|), beyond where exp(-2 |d|) is."""
    tiny = np.finfo(dtype).tiny
    d = (-np.log(np.array([1.01, 2, 3.5]) * (tiny / 4)) / 2).astype(dtype)
    hess = fl.log_cosh_loss.value_grad_hess(d, np.zeros_like(d), reduction="sum")[2]
    np.testing.assert_allclose(hess, 4 * np.exp(-2 * d.astype(np.longdouble)), rtol=1e-5)


@numba.njit(error_model="numpy")
def _log(x: Any) -> Any:
    y = np.empty_like(x)
    for k in range(x.size):
        y[k] = elementary.log(x[k])
    return y


def test_log(dtype: type, rng: Rng) -> None:
    """Within a unit of mpmath's, over all exponents and about 1."""
    limits = np.finfo(dtype)
    low, high = np.log10(float(limits.smallest_subnormal)), np.log10(float(limits.max))
    x = np.concatenate(
        [10.0 ** rng.uniform(low, high, 3000), rng.uniform(0.5, 2, 3000), 1 + rng.normal(0, 1e-4, 500)]
    ).astype(dtype)
    x = np.append(x[x > 0], [limits.tiny, limits.smallest_subnormal, limits.max, 1]).astype(dtype)
    with mpmath.workprec(120):
        for each, got in zip(x, _log(x), strict=True):
            truth = mpmath.log(mpmath.mpf(float(each)))
            unit = float(np.spacing(dtype(abs(float(truth)))))
            assert abs(mpmath.mpf(float(got)) - truth) <= unit, each
    special = _log(np.array([0, -0.0, -1, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(special, [-np.inf, -np.inf, np.nan, np.inf, np.nan])


# ---- derivatives ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in CASES if n in ELEMENTS or n in PENALTIES])
def test_derivatives_are_limits_of_differences(name: str, rng: Rng) -> None:
    case, op = CASES[name], getattr(fl, name)
    for options in case.options:
        chosen = filled(options, rng, (3, 4), np.float64)
        args = case.sample(rng, (3, 4), np.float64, chosen)
        z = rng.normal(0, 1.5, (3, 4))
        others = args[1:]
        if others and np.array_equal(others[0], args[0]):
            continue

        def f(v: Any, others: Any = others, chosen: Any = chosen, op: Any = op) -> Any:
            return np.sum(op(v, *others, **chosen))

        grad = op.grad(z, *others, **chosen)
        numeric = reference.numerical_gradient(f, z, step=1e-4)
        np.testing.assert_allclose(grad, numeric, rtol=1e-7, atol=1e-8 * max(1, abs(numeric).max()))
        if name in ELEMENTS:
            hess = op.value_grad_hess(z, *others, **chosen)[2]
            bent = reference.numerical_gradient(
                lambda v, o=others, c=chosen, op=op: op.grad(v, *o, **c).sum(), z, step=1e-4
            )
            np.testing.assert_allclose(hess, bent, rtol=1e-6, atol=1e-7 * max(1, abs(bent).max()))


# ---- laws ---------------------------------------------------------------------------------------
def test_one_loss_is_another(dtype: type, rng: Rng) -> None:
    z, y = arguments("mse_loss", rng, (7, 90), dtype)
    label = np.where(rng.random(z.shape) < 0.5, 1, -1).astype(dtype)
    close = {"rtol": 8 * np.finfo(dtype).eps}
    beta = 0.7
    none = {"reduction": "none"}
    pairs = {
        "smooth_l1 is huber over beta": (
            fl.smooth_l1_loss(z, y, beta=beta, **none) * beta, fl.huber_loss(z, y, delta=beta, **none)
        ),
        "smooth_l1 of 0 is l1": (fl.smooth_l1_loss(z, y, beta=0, **none), fl.l1_loss(z, y, **none)),
        "pinball of 1/2 is half of l1": (2 * fl.pinball_loss(z, y, **none), fl.l1_loss(z, y, **none)),
        "squared hinge": (fl.squared_hinge_loss(z, label, **none), fl.hinge_loss(z, label, **none) ** 2),
        "logistic is softplus": (fl.logistic_loss(z, label, **none), fl.softplus(-label * z)),
        "logistic is bce": (
            fl.logistic_loss(z, label, **none),
            fl.binary_cross_entropy_with_logits(z, (label + 1) / 2, **none),
        ),
        "logistic is cross_entropy of two": (
            fl.logistic_loss(z, label, **none),
            fl.cross_entropy(np.stack([-z / 2, z / 2], -1), (label > 0).astype(int), **none),
        ),
    }
    for law, (left, right) in pairs.items():
        np.testing.assert_allclose(left, right, **close, err_msg=law)
    target = rng.random(z.shape).astype(dtype)
    for each in (target, np.round(target)):
        focal = fl.sigmoid_focal_loss.value_grad_hess(z, each, gamma=0)
        plain = fl.binary_cross_entropy_with_logits.value_grad_hess(z, each)
        assert all(map(np.array_equal, focal, plain))


def test_weights_are_repetition(rng: Rng) -> None:
    for name in ELEMENTS:
        op = getattr(fl, name)
        z, y = arguments(name, rng, (20,), np.float64)
        times = rng.integers(1, 5, 20)
        for reduction in ("mean", "sum"):
            once = op(z, y, sample_weight=times, reduction=reduction)
            np.testing.assert_allclose(
                once, op(np.repeat(z, times), np.repeat(y, times), reduction=reduction), rtol=1e-13
            )


# ---- bad input ----------------------------------------------------------------------------------
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "bool labels": (lambda z, o: fl.hinge_loss.grad(z, z > 0, out=o), TypeError, "labels has dtype bool"),
    "targets broadcast": (
        lambda z, o: fl.mse_loss.grad(z, z[:, :1], out=o), ValueError, r"targets has shape \(3, 1\)"
    ),
    "weights of rows": (
        lambda z, o: fl.mse_loss.grad(z, z, sample_weight=z[:, 0], out=o), ValueError,
        "sample_weight has shape",
    ),
    "complex": (lambda z, o: fl.mse_loss.grad(z, z * 1j, out=o), TypeError, "targets has dtype complex"),
    "reduction": (lambda z, o: fl.mse_loss.grad(z, z, reduction="max", out=o), ValueError, "reduction must"),
    "delta": (lambda z, o: fl.huber_loss.grad(z, z, delta=0, out=o), ValueError, "delta must be finite"),
    "beta": (lambda z, o: fl.smooth_l1_loss.grad(z, z, beta=-1, out=o), ValueError, "beta must be finite"),
    "quantile": (lambda z, o: fl.pinball_loss.grad(z, z, quantile=1.5, out=o), ValueError, "quantile must"),
    "margin": (lambda z, o: fl.hinge_loss.grad(z, z, margin=np.inf, out=o), ValueError, "margin must be"),
    "pos_weight": (
        lambda z, o: fl.binary_cross_entropy_with_logits.grad(z, z, pos_weight=0, out=o), ValueError,
        "pos_weight must be",
    ),
    "gamma": (lambda z, o: fl.sigmoid_focal_loss.grad(z, z, gamma=-1, out=o), ValueError, "gamma must be"),
    "alpha": (lambda z, o: fl.sigmoid_focal_loss.grad(z, z, alpha=2, out=o), ValueError, "alpha must be"),
    "eps": (lambda z, o: fl.feature_incay_penalty.grad(z, eps=0, out=o), ValueError, "eps must be"),
    "0-d features": (
        lambda z, o: fl.feature_incay_penalty.grad(z[0, 0], out=o), ValueError, "features is 0-d"
    ),
    "shape of out": (lambda z, o: fl.l2_penalty.grad(z[:2], out=o), ValueError, "out has shape"),
    "type of out": (lambda z, o: fl.l2_penalty.grad(z.astype("f4"), out=o), ValueError, "out has dtype"),
    "one output": (lambda z, o: fl.mse_loss.value_grad_hess(z, z, out=o), TypeError, "out must be a pair"),
    "one output twice": (
        lambda z, o: fl.mse_loss.value_grad_hess(z, z, out=(o, o)), ValueError, "overlap"
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named_and_nothing_is_written(bad: str) -> None:
    call, error, message = BAD[bad]
    out = np.full((3, 4), 7.0)
    with pytest.raises(error, match=message):
        call(np.ones((3, 4)), out)
    assert (out == 7).all()


# ---- peers --------------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_pytorch_agrees(reduction: str, rng: Rng) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    z, y = arguments("mse_loss", rng, (5, 60), np.float64)
    t, w = rng.random(z.shape), 2.5
    peers = {
        "mse_loss": (y, {}, lambda a, b: f.mse_loss(a, b, reduction=reduction)),
        "l1_loss": (y, {}, lambda a, b: f.l1_loss(a, b, reduction=reduction)),
        "huber_loss": (y, {"delta": 0.6}, lambda a, b: f.huber_loss(a, b, reduction=reduction, delta=0.6)),
        "smooth_l1_loss": (
            y, {"beta": 0.6}, lambda a, b: f.smooth_l1_loss(a, b, reduction=reduction, beta=0.6)
        ),
        "logistic_loss": (np.sign(y), {}, lambda a, b: f.soft_margin_loss(a, b, reduction=reduction)),
        "binary_cross_entropy_with_logits": (
            t, {"pos_weight": w},
            lambda a, b: f.binary_cross_entropy_with_logits(
                a, b, pos_weight=torch.tensor(w), reduction=reduction
            ),
        ),
    }
    for name, (other, options, peer) in peers.items():
        a = torch.tensor(z, requires_grad=True)
        theirs = peer(a, torch.tensor(other))
        theirs.sum().backward()
        value, grad = getattr(fl, name).value_and_grad(z, other, reduction=reduction, **options)
        np.testing.assert_allclose(value, theirs.detach().numpy(), rtol=1e-12, atol=1e-15, err_msg=name)
        np.testing.assert_allclose(grad, a.grad.numpy(), rtol=1e-12, atol=1e-15, err_msg=name)


def test_scikit_learn_agrees(rng: Rng) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    z, label, s = rng.normal(0, 2, 50), np.where(rng.random(50) < 0.5, 1, -1), rng.random(50)
    assert np.isclose(fl.hinge_loss(z, label), metrics.hinge_loss(label, z))
    assert np.isclose(
        fl.hinge_loss(z, label, sample_weight=s), metrics.hinge_loss(label, z, sample_weight=s)
    )
    assert np.isclose(fl.logistic_loss(z, label), metrics.log_loss(label, fl.sigmoid(z)))
    y = rng.normal(0, 2, 50)
    assert np.isclose(fl.mse_loss(z, y), metrics.mean_squared_error(y, z))
    assert np.isclose(fl.l1_loss(z, y), metrics.mean_absolute_error(y, z))
    assert np.isclose(
        fl.pinball_loss(z, y, quantile=0.8), metrics.mean_pinball_loss(y, z, alpha=0.8)
    )


def test_adding_a_loss_as_the_readme_says(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code = readme.partition("## Adding a loss")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "pseudo.py").write_text(code, encoding="utf-8")
    use = """
import numpy as np, fastloss as fl, pickle
from pseudo import pseudo_huber_loss as loss
z, y = np.linspace(-3, 3, 50), np.zeros(50)
for delta in (0.5, 1.0, 3.0):
    value, grad, hess = loss.value_grad_hess(z, y, delta=delta)
    assert np.isclose(value, np.mean(delta**2 * (np.sqrt(1 + (z / delta) ** 2) - 1)))
    assert fl.check_gradient(lambda v: loss(v, y, delta=delta), grad, z) < 1e-6
    assert fl.check_gradient(lambda v: loss.grad(v, y, delta=delta).sum(), hess, z) < 1e-6
assert loss(z.astype(np.float32), y).dtype == loss(z.astype(np.float16), y).dtype == np.float32
assert pickle.loads(pickle.dumps(loss)) is loss
"""
    done = subprocess.run(
        [sys.executable, "-c", use], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["", str(Path(fl.__file__).parents[1])])},
    )
    assert done.returncode == 0, done.stderr


def test_every_reduction_is_swept() -> None:
    assert {o.get("reduction", "mean") for o in REDUCED} == {"mean", "sum", "none"}
    for name, (_, options) in ELEMENTS.items():
        for key in {k for o in options for k in o} - {"reduction", "sample_weight", "alpha"}:
            assert len({o.get(key) for o in options}) >= 3, (name, key)
