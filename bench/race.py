"""Candidates timed in turn, after each has shown that it computes the right thing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from floors import FLOORS
from rivals import RIVALS, Thunk, candidates
from sizes import Problem, Workload

from fastloss import reference

_LONG_ENOUGH = 1e-3  # seconds: what the clock and a late wake-up don't blur


def rounds_of(quick: bool) -> int:
    """Rounds of a race: medians steady to some per cent, or just three times."""
    return 3 if quick else 9


def race(thunks: Mapping[str, Thunk], rounds: int) -> dict[str, float]:
    """Median seconds of a call of each candidate.

    Every candidate runs once a round, in turn: a machine drifts by a third from minute to minute,
    so only ratios of times taken side by side mean anything. Fast ones are called in batches.
    """
    batch = {name: max(1, int(_LONG_ENOUGH / _seconds(thunk, 1))) for name, thunk in thunks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in thunks}
    for _ in range(rounds):
        for name, thunk in thunks.items():
            seconds[name].append(_seconds(thunk, batch[name]))
    return {name: median(each) for name, each in seconds.items()}


def _seconds(thunk: Thunk, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        thunk()
    return (time.perf_counter() - start) / calls


@dataclass(frozen=True)
class Race:
    """Who ran, and the median seconds of each: floors, fastloss, rivals."""

    operation: str
    workload: Workload
    seconds: dict[str, float]

    def ratios(self) -> dict[str, float]:
        """fastloss over each floor, each rival over fastloss."""
        ours = self.seconds["fastloss"]
        return {
            f"fastloss / {name}" if name in FLOORS else f"{name} / fastloss": round(
                ours / each if name in FLOORS else each / ours, 3
            )
            for name, each in self.seconds.items()
            if name != "fastloss"
        }


def run(operation: str, problem: Problem, rounds: int) -> Race:
    """Check every candidate of one operation, then race them with the floors beside."""
    thunks = candidates(operation, problem)
    for library, thunk in thunks.items():
        assert_close(operation, problem, thunk(), library)
    floors = {name: setup(problem) for name, setup in FLOORS.items()}
    for floor in floors.values():
        floor()
    return Race(operation, problem.workload, race({**floors, **thunks}, rounds))


def run_all(workloads: Sequence[Workload], rounds: int) -> Iterator[Race]:
    """Every operation on each workload; one workload's arrays are alive at a time."""
    for workload in workloads:
        yield from _run_on(workload.problem(), rounds)


def _run_on(problem: Problem, rounds: int) -> Iterator[Race]:
    for operation in RIVALS:
        yield run(operation, problem, rounds)


# ---- closeness ------------------------------------------------------------------------------
def assert_close(operation: str, problem: Problem, result: Any, who: str) -> None:
    """A sample of rows, and scalars, against float64: who computes something else is not timed.

    It tells formulas apart, not roundings, which the tests judge: summed in float32, a row of four
    million is off by 3e-4 in PyTorch.
    """
    pairs: list[tuple[Any, Any]]
    n = problem.workload.rows
    sample = np.unique(np.linspace(0, n - 1, 8).astype(int))
    x, y = problem.logits[sample], problem.targets[sample]
    if operation in ("softmax", "softmax_out"):
        pairs = [(np.asarray(result)[sample], reference.softmax(x))]
    elif operation == "logsumexp":
        pairs = [(np.asarray(result)[sample], reference.logsumexp(x))]
    elif operation == "cross_entropy":
        pairs = [(result, problem.mean_loss)]
    else:
        value, grad = result
        slope = reference.softmax(x)
        slope[np.arange(len(y)), y] -= 1
        pairs = [(value, problem.mean_loss), (np.asarray(grad)[sample], slope / n)]
    for got, truth in pairs:
        np.testing.assert_allclose(
            np.asarray(got), truth, rtol=1e-3, atol=1e-6 * np.abs(truth).max(),
            err_msg=f"{operation} of {who} on {problem.workload}",
        )
