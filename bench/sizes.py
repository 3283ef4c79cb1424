"""Named workloads: the shapes that logits have where softmax and cross-entropy are the cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss import reference


@dataclass(frozen=True, eq=False)
class Problem:
    """A workload's arrays: logits (N, V) and out (N, V) of float32, targets (N,)."""

    workload: Workload
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    out: NDArray[np.float32]

    @cached_property
    def mean_loss(self) -> float:
        """The mean cross-entropy in float64: every row is read once, whatever is compared with it."""
        x, y = self.logits, self.targets
        step = max(1, (1 << 20) // x.shape[1])
        lse = [reference.logsumexp(x[i : i + step]).sum() for i in range(0, len(x), step)]
        taken = np.take_along_axis(x, y[:, None], axis=1)
        return float((math.fsum(lse) - taken.sum(dtype=np.float64)) / len(x))


@dataclass(frozen=True)
class Workload:
    """N rows of V classes."""

    name: str
    rows: int
    classes: int

    def __str__(self) -> str:
        return f"{self.name} {self.rows}×{self.classes}"

    def problem(self, seed: int = 0) -> Problem:
        """Logits of a spread that leaves a few classes most of the probability, as models' do."""
        rng = np.random.default_rng(seed)
        logits, out = _aligned(self.rows, self.classes), _aligned(self.rows, self.classes)
        rng.standard_normal(logits.shape, dtype=np.float32, out=logits)
        logits *= 4
        out[...] = 0  # so that no page is touched for the first time under the clock
        return Problem(self, logits, rng.integers(self.classes, size=self.rows), out)


def _aligned(*shape: int) -> NDArray[Any]:
    """Empty float32 at a multiple of 64 bytes, a cache line: what streamed stores ask for."""
    count = math.prod(shape)
    raw = np.empty(count + 16, np.float32)
    start = -raw.ctypes.data % 64 // 4
    return raw[start : start + count].reshape(shape)


WORKLOADS = {
    each.name: each
    for each in (
        Workload("llama3_vocab", 512, 128256),
        Workload("gpt2_vocab", 2048, 50257),
        Workload("gemma_vocab", 256, 256000),
        Workload("imagenet", 65536, 1000),
        Workload("digits", 1_000_000, 10),
        Workload("one_row", 1, 4_000_000),
        Workload("tiny", 1, 10),
    )
}
DEFAULT = ("llama3_vocab", "gpt2_vocab")
# Few rows, yet more bytes than malloc reuses or most caches hold: new memory and DRAM cost as they do
# in the whole.
_QUICK_ROWS = {"llama3_vocab": 96, "gpt2_vocab": 240}


def chosen(quick: bool, names: Iterable[str] = DEFAULT) -> list[Workload]:
    """The workloads of these names; quick: the two default ones, cut to some rows."""
    if quick:
        return [replace(WORKLOADS[name], rows=rows) for name, rows in _QUICK_ROWS.items()]
    return [WORKLOADS[name] for name in names]
