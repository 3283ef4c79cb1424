"""`python -m pytest bench [--quick]`: every operation raced against its rivals and the floors.

A race checks closeness first. Its medians and ratios go to the benchmark's `extra_info` and to the
summary; no time is ever asserted.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from race import Race, run
from rivals import RIVALS
from sizes import Problem


@pytest.mark.parametrize("operation", RIVALS)
def test_speed(
    operation: str, problem: Problem, rounds: int, races: list[Race], benchmark: BenchmarkFixture
) -> None:
    result = run(operation, problem, rounds)
    races.append(result)
    benchmark.group = str(result.workload)
    benchmark.extra_info["median_seconds"] = result.seconds
    benchmark.extra_info["ratios"] = result.ratios()
    ours = RIVALS[operation]["fastloss"](problem)
    benchmark.pedantic(ours, rounds=rounds, warmup_rounds=1)
