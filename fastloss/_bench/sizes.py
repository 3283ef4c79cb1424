"""Named workloads: the shapes that logits have where softmax and cross-entropy are the cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import fastloss as fl
from fastloss import reference

Array: TypeAlias = NDArray[Any]

DTYPES = ("float32", "float64", "float16", "bfloat16")
_PIECE = 1 << 20  # numbers made or judged at a time


def dtype_of(name: str) -> np.dtype[Any] | None:
    """The dtype of that name; None where fastloss refuses it, or no package provides it."""
    if name == "bfloat16":
        try:
            dtype: np.dtype[Any] = np.dtype(import_module("ml_dtypes").bfloat16)
        except ImportError:
            return None
    else:
        dtype = np.dtype(name)
    try:
        fl.logsumexp(np.empty((0, 1), dtype))
    except TypeError:
        return None
    return dtype


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Empty memory at a multiple of 64 bytes, a cache line: what streamed stores ask for."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Workload:
    """N rows of V classes; with axis 0 they are the columns of a (V, N) array."""

    name: str
    rows: int
    classes: int
    axis: int = -1

    def __str__(self) -> str:
        return f"{self.name} {'×'.join(map(str, self.shape))}"

    @property
    def shape(self) -> tuple[int, int]:
        return (self.classes, self.rows) if self.axis == 0 else (self.rows, self.classes)

    @property
    def size(self) -> int:
        return self.rows * self.classes

    def quick(self) -> Workload:
        """Cut to few rows, yet to more bytes than malloc reuses or most caches hold: new memory and
        DRAM cost as they do in the whole.
        """
        return replace(self, rows=min(self.rows, max(1, 12_000_000 // self.classes)))


WORKLOADS = {
    each.name: each
    for each in (
        Workload("llama3_vocab", 512, 128256),
        Workload("gpt2_vocab", 2048, 50257),
        Workload("gemma_vocab", 256, 256000),
        Workload("imagenet", 65536, 1000),
        Workload("digits", 1_000_000, 10),
        Workload("binary", 5_000_000, 2),
        Workload("one_row", 1, 4_000_000),
        Workload("tall", 512, 128256, axis=0),
        Workload("pixels", 1 << 21, 21, axis=0),
        Workload("tiny", 1, 10),
    )
}


class Problem:
    """A workload's arrays of one dtype; what only some operations need is made at its first use.

    Logits have a spread that leaves a few classes most of the probability, as models' do.
    """

    def __init__(self, workload: Workload, dtype: np.dtype[Any], seed: int = 0) -> None:
        self.workload, self.dtype, self.axis = workload, dtype, workload.axis
        self._rng = np.random.default_rng(seed)
        self.logits = self._normal(4.0)
        self.targets = self._rng.integers(workload.classes, size=workload.rows)
        self.out = aligned(workload.shape, dtype)
        self.out[...] = 0  # so that no page is touched for the first time under the clock

    def _normal(self, deviation: float) -> Array:
        array = aligned(self.workload.shape, self.dtype)
        flat, kind = array.reshape(-1), np.float64 if self.dtype == np.float64 else np.float32
        for k in range(0, flat.size, _PIECE):
            part = flat[k : k + _PIECE]
            part[...] = deviation * self._rng.standard_normal(part.size, kind)
        return array

    @cached_property
    def vector(self) -> Array:
        """A tangent or cotangent of each logit."""
        return self._normal(1.0)

    @cached_property
    def probs(self) -> Array:
        """An output of softmax, for what starts from one."""
        p = aligned(self.workload.shape, self.dtype)
        return fl.softmax(self.logits, axis=self.axis, out=p)

    def restore(self) -> None:
        """Put the logits into `out`, where an operation in place finds and overwrites them."""
        np.copyto(self.out, self.logits)

    def sample(self, array: Array) -> Array:
        """Some rows, from the first to the last, in float64 and with their classes last."""
        rows = np.moveaxis(array, self.axis, -1)
        return rows[self.sampled].astype(np.float64)

    @cached_property
    def sampled(self) -> Array:
        last = self.workload.rows - 1
        return np.unique(np.linspace(0, last, 8).astype(np.int64))

    @cached_property
    def mean_loss(self) -> float:
        """The mean cross-entropy in float64: every row is read once, whatever is compared with it."""
        x, y = np.moveaxis(self.logits, self.axis, -1), self.targets
        step = max(1, _PIECE // x.shape[1])
        lse = [
            reference.logsumexp(x[i : i + step].astype(np.float64)).sum() for i in range(0, len(x), step)
        ]
        taken = np.take_along_axis(x, y[:, None], axis=1)
        return float((math.fsum(lse) - taken.sum(dtype=np.float64)) / len(x))
