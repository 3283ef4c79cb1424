"""Cross-entropy as `torch.nn.functional.cross_entropy` defines it, over random configurations.

By the excess-error rule, with PyTorch in the place of the textbook formula: no further from the truth
than PyTorch is. FASTLOSS_TORCH_CASES says how many configurations there are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from closeness import assert_close
from test_agreement import widened, widened_options

import fastloss as fl
from fastloss import reference

torch = pytest.importorskip("torch")

Array = np.ndarray
COUNT = int(os.environ.get("FASTLOSS_TORCH_CASES", "200"))


@dataclass(frozen=True)
class Configuration:
    x: Array
    y: Array
    axis: int
    options: dict[str, Any]  # what PyTorch has too
    temperature: float


def configuration(rng: np.random.Generator) -> Configuration:
    """Anything that both can do."""
    dtype = rng.choice([np.float32, np.float64])
    ndim = int(rng.integers(1, 5))
    shape = [int(n) for n in rng.integers(1, 7, ndim)]
    axis = int(rng.integers(ndim))
    shape[axis] = classes = int(rng.choice([1, 2, 3, 10, 33, 100, 1500]))
    rows = shape[:axis] + shape[axis + 1 :]
    y = np.array(rng.integers(0, classes, rows))
    ignore_index = int(rng.choice([-100, -1, 0, classes - 1]))
    y[rng.random(rows) < rng.choice([0, 0.3])] = ignore_index
    options: dict[str, Any] = {"reduction": str(rng.choice(["mean", "sum", "none"]))}
    if (y == ignore_index).any() or rng.random() < 0.3:
        options["ignore_index"] = ignore_index
    if rng.random() < 0.5:
        weight = rng.uniform(0.2, 3, classes)
        weight[rng.random(classes) < rng.choice([0, 0.3])] = 0
        options["weight"] = weight.astype(dtype)
    if rng.random() < 0.5:
        options["label_smoothing"] = float(rng.choice([0.05, 0.3, 1.0]))
    x = rng.normal(0, rng.choice([0.3, 3]), shape).astype(dtype)
    axis -= ndim * int(rng.integers(2))
    return Configuration(x, y, axis, options, float(rng.choice([1, 0.5, 3])))


def by_torch(c: Configuration, dtype: type) -> tuple[Array, Array]:
    """Value and gradient, computed in `dtype`; PyTorch has the classes on axis 1 (1-d: 0)."""
    options = {
        k: torch.from_numpy(v.astype(dtype)) if isinstance(v, np.ndarray) else v
        for k, v in c.options.items()
    }
    x = torch.from_numpy(c.x.astype(dtype)).requires_grad_()
    logits = x.movedim(c.axis, min(1, c.x.ndim - 1)) / c.temperature
    value = torch.nn.functional.cross_entropy(logits, torch.from_numpy(c.y), **options)
    value.sum().backward()
    return value.detach().numpy(), x.grad.numpy()


def by_reference(c: Configuration) -> tuple[Array, Array]:
    dtype = c.x.dtype.type
    chosen = widened_options({**c.options, "axis": c.axis, "temperature": c.temperature}, dtype)
    (x,) = widened((c.x,), dtype)
    with np.errstate(all="ignore"):
        return reference.cross_entropy(x, c.y, **chosen), reference.cross_entropy_grad(x, c.y, **chosen)


def judge(c: Configuration, what: str) -> None:
    """fastloss is as near to the truth as PyTorch; and the truth is what PyTorch computes, which is
    judged by its doubles to single precision.
    """
    value, grad = fl.cross_entropy.value_and_grad(
        c.x, c.y, axis=c.axis, temperature=c.temperature, **c.options
    )
    true_value, true_grad = by_reference(c)
    torch_value, torch_grad = by_torch(c, c.x.dtype.type)
    assert_close(value, true_value, torch_value, what=what)
    assert_close(grad, true_grad, torch_grad, c.axis, what)
    torch_value, torch_grad = (a.astype(np.float32) for a in by_torch(c, np.float64))
    assert_close(torch_value, true_value, true_value, what=f"PyTorch {what}")
    if not of_no_weight(c):  # where PyTorch has NaN, and fastloss 0 by definition
        assert_close(torch_grad, true_grad, true_grad, c.axis, f"PyTorch {what}")


def of_no_weight(c: Configuration) -> bool:
    counted = c.y[c.y != c.options.get("ignore_index", -100)]
    return not c.options.get("weight", np.ones(c.x.shape[c.axis]))[counted].any()


@pytest.mark.parametrize("case", range(COUNT))
def test_value_and_gradient_agree(case: int, rng: np.random.Generator) -> None:
    c = configuration(rng)
    options = {k: ... if k == "weight" else v for k, v in c.options.items()}
    judge(c, f"{case}: {c.x.dtype}{c.x.shape} axis {c.axis} T {c.temperature} {options}")


SPECIAL = [
    [-np.inf, 1.0, 2.0],
    [-np.inf, -np.inf, 2.0],
    [-np.inf, -np.inf, -np.inf],
    [np.nan, 1.0, 2.0],
    [np.inf, 1.0, 2.0],
    [np.inf, np.inf, -np.inf],
    [1e30, -1e30, 0.0],
]


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [[1, 1, 1], [1, 0.5, 2], [0, 1, 2], [1, 2, 0]], ids=str)
def test_special_rows_agree(
    weight: list[float], smoothing: float, reduction: str, dtype: type
) -> None:
    x = np.array(SPECIAL, dtype)
    options = {
        "label_smoothing": smoothing, "reduction": reduction, "weight": np.array(weight, dtype)
    }
    for y in range(3):
        judge(Configuration(x, np.full(len(x), y), -1, options, 1.0), f"target {y}")
