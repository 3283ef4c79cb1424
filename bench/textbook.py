"""The NumPy code one writes from the textbook: whole-array temporaries, one thread, max-shifted.

Each takes (logits, targets, out); only `softmax_out` writes `out`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def softmax(x: Array, _y: Array, _out: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    p: Array = e / e.sum(axis=-1, keepdims=True)
    return p


def softmax_out(x: Array, _y: Array, out: Array) -> Array:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)
    return out


def logsumexp(x: Array, _y: Array, _out: Array) -> Array:
    m = x.max(axis=-1, keepdims=True)
    lse: Array = m[:, 0] + np.log(np.exp(x - m).sum(axis=-1))
    return lse


def cross_entropy(x: Array, y: Array, out: Array) -> Any:
    return np.mean(logsumexp(x, y, out) - x[np.arange(len(x)), y])


def value_and_grad(x: Array, y: Array, out: Array) -> tuple[Any, Array]:
    rows, grad = np.arange(len(x)), softmax(x, y, out)
    loss = -np.log(grad[rows, y]).mean()
    grad[rows, y] -= 1
    grad /= len(x)
    return loss, grad
