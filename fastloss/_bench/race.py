"""Candidates timed in turn, after each has shown that it computes the right thing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from fastloss._bench.floors import FLOORS, WORTH_MEASURING
from fastloss._bench.operations import OPERATIONS, Candidate, assert_close
from fastloss._bench.rivals import LIBRARIES, candidate, computes
from fastloss._bench.sizes import Problem, Workload, dtype_of

_LONG_ENOUGH = 1e-3  # seconds: what the clock and a late wake-up don't blur
_SLOW = 0.25  # seconds; ten times ours and longer than this is timed in every third round only

Times = dict[str, list[float | None]]  # candidate -> seconds of a call in each round, None: sat out


def rounds_of(quick: bool) -> int:
    """Rounds of a race: medians steady to some per cent, or just three times."""
    return 3 if quick else 9


def race(candidates: Mapping[str, Candidate], rounds: int, first: str) -> Times:
    """Seconds of a call of each candidate, round by round.

    Every candidate runs once a round, in turn: a machine drifts by a third from minute to minute,
    so only ratios of times taken side by side mean anything. Fast ones are called in batches.
    """
    once = {name: _seconds(each, 1) for name, each in candidates.items()}
    batch = {name: max(1, int(_LONG_ENOUGH / seconds)) for name, seconds in once.items()}
    every = {n: 3 if seconds > max(_SLOW, 10 * once[first]) else 1 for n, seconds in once.items()}
    times: Times = {name: [] for name in candidates}
    for k in range(rounds):
        for name, each in candidates.items():
            times[name].append(None if k % every[name] else _seconds(each, batch[name]))
    return times


def _seconds(candidate: Candidate, calls: int) -> float:
    if candidate.before is None:
        start = time.perf_counter()
        for _ in range(calls):
            candidate.call()
        return (time.perf_counter() - start) / calls
    total = 0.0
    for _ in range(calls):
        candidate.before()
        start = time.perf_counter()
        candidate.call()
        total += time.perf_counter() - start
    return total / calls


@dataclass(frozen=True)
class Race:
    """Median seconds of floors, fastloss and rivals, and the medians of the ratios of each round."""

    operation: str
    workload: Workload
    dtype: str
    itemsize: int
    seconds: dict[str, float]
    ratios: dict[str, float]  # fastloss / floor, rival / fastloss
    left_out: dict[str, str] = field(default_factory=dict)  # library -> why

    def title(self) -> str:
        return f"{self.workload} {self.dtype}"

    def floor(self) -> str | None:
        """The floor that binds: memory or arithmetic, whichever takes longer."""
        mine = [name for name in FLOORS if name in self.seconds]
        return max(mine, key=self.seconds.__getitem__, default=None)

    def rate(self, floor: str) -> str:
        return FLOORS[floor].rate(self.workload.size, self.itemsize, self.seconds[floor])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Race:
        return cls(**{**stored, "workload": Workload(**stored["workload"])})


def over_floor(floor: str) -> str:
    """The name of fastloss's ratio to a floor."""
    return f"fastloss / {floor}"


def over_us(library: str) -> str:
    """The name of a rival's ratio to fastloss."""
    return f"{library} / fastloss"


def summarised(times: Times) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds, and ratios: a ratio of each round, then the median of those."""
    ours = times["fastloss"]
    seconds, ratios = {}, {}
    for name, theirs in times.items():
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
        seconds[name] = median(b for _, b in pairs)
        if name in FLOORS:
            ratios[over_floor(name)] = round(median(a / b for a, b in pairs), 3)
        elif name != "fastloss":
            ratios[over_us(name)] = round(median(b / a for a, b in pairs), 3)
    return seconds, ratios


def run(
    operation: str, problem: Problem, rounds: int, libraries: Sequence[str] = tuple(LIBRARIES)
) -> Race:
    """Check every candidate of one operation, then race them with the floors beside.

    A rival that does not run here, or computes something else, is left out and named.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ready = _floors(operation, problem)
        ready["fastloss"] = _checked("fastloss", operation, problem)
        left_out = {}
        for library in libraries:
            if library != "fastloss" and computes(library, operation, problem):
                try:
                    ready[library] = _checked(library, operation, problem)
                except Exception as error:
                    left_out[library] = _reason(error)
        seconds, ratios = summarised(race(ready, rounds, "fastloss"))
    dtype = problem.dtype
    return Race(
        operation, problem.workload, dtype.name, dtype.itemsize, seconds, ratios, left_out
    )


def _floors(operation: str, problem: Problem) -> dict[str, Candidate]:
    if problem.logits.nbytes < WORTH_MEASURING:
        return {}
    return {
        name: Candidate(FLOORS[name].setup(problem))
        for name in (OPERATIONS[operation].floor, "arithmetic")
    }


def _checked(library: str, operation: str, problem: Problem) -> Candidate:
    ready = candidate(library, operation, problem)
    if ready.before is not None:
        ready.before()
    assert_close(operation, problem, ready.call())
    return ready


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def run_all(
    workloads: Sequence[Workload], dtypes: Sequence[str], operations: Sequence[str],
    libraries: Sequence[str], rounds: int,
) -> Iterator[Race]:
    """Every operation on each workload and dtype; the arrays of one are alive at a time."""
    for workload in workloads:
        for dtype in filter(None, map(dtype_of, dtypes)):
            yield from _run_on(Problem(workload, dtype), operations, libraries, rounds)


def _run_on(
    problem: Problem, operations: Sequence[str], libraries: Sequence[str], rounds: int
) -> Iterator[Race]:
    for operation in operations:
        yield run(operation, problem, rounds, libraries)
