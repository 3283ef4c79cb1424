"""Real data: a two-layer network by hand-written backpropagation; linear classifiers, one calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastloss as fl

sklearn_datasets = pytest.importorskip("sklearn.datasets")


def forward(params: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.maximum(x @ params["w1"] + params["b1"], 0)
    return hidden, hidden @ params["w2"] + params["b2"]


def backward(
    params: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray
) -> tuple[Any, dict[str, np.ndarray]]:
    """The loss, and its gradient with respect to every parameter, layer by layer."""
    hidden, logits = forward(params, x)
    loss, d_logits = fl.cross_entropy.value_and_grad(logits, y, out=logits)
    d_hidden = (d_logits @ params["w2"].T) * (hidden > 0)
    return loss, {
        "w2": hidden.T @ d_logits,
        "b2": d_logits.sum(axis=0),
        "w1": x.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
    }


def initial(rng: np.random.Generator, dtype: type, hidden: int) -> dict[str, np.ndarray]:
    return {
        "w1": rng.normal(0, np.sqrt(2 / 64), (64, hidden)).astype(dtype),
        "b1": np.zeros(hidden, dtype),
        "w2": rng.normal(0, np.sqrt(2 / hidden), (hidden, 10)).astype(dtype),
        "b2": np.zeros(10, dtype),
    }


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = sklearn_datasets.load_digits()
    return data.data / 16.0, data.target


def test_each_layers_gradient_is_right(rng: np.random.Generator) -> None:
    x, y = digits()
    params = initial(rng, np.float64, 6)
    some = rng.permutation(len(x))[:30]
    _, grads = backward(params, x[some], y[some])
    for name in params:

        def loss(value: np.ndarray, name: str = name) -> Any:
            return fl.cross_entropy(forward({**params, name: value}, x[some])[1], y[some])

        # ReLU has kinks; a step that small crosses none of them here
        assert fl.check_gradient(loss, grads[name], params[name]) < 1e-4, name


def test_the_network_learns_to_read(rng: np.random.Generator) -> None:
    x, y = digits()
    order = rng.permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    train, test = slice(0, 1400), slice(1400, None)
    params = initial(rng, np.float32, 64)
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    for _ in range(30):
        for batch in np.array_split(rng.permutation(1400), 40):
            _, grads = backward(params, x[train][batch], y[train][batch])
            for name in params:
                velocity[name] = 0.9 * velocity[name] - 0.1 * grads[name]
                params[name] += velocity[name]
    accuracy = np.mean(forward(params, x[test])[1].argmax(axis=1) == y[test])
    assert accuracy >= 0.95, accuracy


# ---- objective = loss + lambda * penalty ------------------------------------------------------
LAMBDA = 1e-3


def objective(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray]:
    """Cross-entropy of a linear classifier plus lambda |w|^2, and the gradient."""
    loss, d_logits = fl.cross_entropy.value_and_grad(x @ w, y)
    penalty, d_penalty = fl.l2_penalty.value_and_grad(w)
    return loss + LAMBDA * penalty, x.T @ d_logits + LAMBDA * d_penalty


def test_a_linear_classifier_by_plain_gradient_descent(rng: np.random.Generator) -> None:
    x, y = digits()
    x = np.hstack([x, np.ones((len(x), 1))])
    order = rng.permutation(len(x))
    train, test = order[:1400], order[1400:]
    some, w = train[:40], rng.normal(0, 1, (x.shape[1], 10))
    grad = objective(w, x[some], y[some])[1]
    # relative, and least for the weights of pixels that are always dark: 2 lambda w there, some 1e-6
    assert fl.check_gradient(lambda v: objective(v, x[some], y[some])[0], grad, w) < 1e-3
    w *= 0.01
    for _ in range(400):
        w -= 1.0 * objective(w, x[train], y[train])[1]
    accuracy = np.mean((x[test] @ w).argmax(axis=1) == y[test])
    assert accuracy >= 0.95, accuracy


# ---- a linear support vector machine, and calibration -----------------------------------------
def svm_objective(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray]:
    """The hinges of all wrong classes plus lambda |w|^2, and the gradient: Weston and Watkins, 1999."""
    loss, d_scores = fl.multiclass_hinge_loss.value_and_grad(x @ w, y)
    penalty, d_penalty = fl.l2_penalty.value_and_grad(w)
    return loss + LAMBDA * penalty, x.T @ d_scores + LAMBDA * d_penalty


def with_ones(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Digits in a random order, and a feature that is always 1."""
    x, y = digits()
    order = rng.permutation(len(x))
    return np.hstack([x, np.ones((len(x), 1))])[order], y[order]


def test_a_linear_support_vector_machine(rng: np.random.Generator) -> None:
    x, y = with_ones(rng)
    w = rng.normal(0, 1, (x.shape[1], 10))
    grad = svm_objective(w, x[:40], y[:40])[1]
    # no step of the differences crosses a kink here; least are the weights of pixels that are always dark
    assert fl.check_gradient(lambda v: svm_objective(v, x[:40], y[:40])[0], grad, w) < 1e-3
    start, right = 0.01 * w, 0
    for fold in range(5):  # each digit is read once, by a machine that has not seen it: parts differ by 4 %
        test = np.arange(len(x)) % 5 == fold
        w, learnt = start.copy(), (x[~test], y[~test])
        first = svm_objective(w, *learnt)[0]
        with fl.num_threads(1):  # NumPy's spin after each product, and a second one of ours would wait
            for step in range(400):
                w -= 0.3 / (1 + step / 100) * svm_objective(w, *learnt)[1]
        assert svm_objective(w, *learnt)[0] < 0.1 * first
        right += np.count_nonzero((x[test] @ w).argmax(axis=1) == y[test])
    assert right >= 0.95 * len(x), right / len(x)


def test_calibration_by_temperature(rng: np.random.Generator) -> None:
    """A classifier that has learnt few digits by heart is too sure of itself; one number mends that.

    C. Guo et al., "On calibration of modern neural networks", 2017.
    """
    x, y = with_ones(rng)
    train, held_out, test = slice(0, 150), slice(150, 900), slice(900, None)
    w = np.zeros((x.shape[1], 10))
    for _ in range(600):
        w -= 3.0 * x[train].T @ fl.cross_entropy.grad(x[train] @ w, y[train])
    logits = 4 * (x @ w)  # and surer still
    before = fl.cross_entropy(logits[held_out], y[held_out])
    assert fl.cross_entropy(logits[train], y[train]) < 0.01 < 0.2 < before
    log_t, path = 0.0, []
    for _ in range(60):
        value, slope = fl.cross_entropy.temperature_grad(
            logits[held_out], y[held_out], temperature=float(np.exp(log_t))
        )
        path.append(float(value))
        log_t -= 0.5 * float(slope) * float(np.exp(log_t))  # T stays positive
    t = float(np.exp(log_t))
    assert path[0] == before
    assert path[-1] < 0.8 * path[0]
    assert abs(path[-1] - path[-2]) < 1e-4
    assert t > 1.5
    assert abs(fl.cross_entropy.temperature_grad(logits[held_out], y[held_out], temperature=t)[1]) < 0.01
    # and so it is on digits that neither has seen, of which it reads the same
    after = fl.cross_entropy(logits[test], y[test], temperature=t)
    assert after < 0.8 * fl.cross_entropy(logits[test], y[test])
    assert np.array_equal((logits[test] / t).argmax(axis=1), logits[test].argmax(axis=1))
