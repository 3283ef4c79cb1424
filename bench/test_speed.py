"""`python -m pytest bench [--quick]`: every operation raced against its rivals and the floors.

A race checks closeness first. Its medians and ratios go to the benchmark's `extra_info` and to the
summary; no time is ever asserted.
"""

from __future__ import annotations

from choice import Choice
from pytest_benchmark.fixture import BenchmarkFixture

from fastloss._bench.race import Race, run
from fastloss._bench.rivals import candidate
from fastloss._bench.sizes import Problem


def test_speed(
    operation: str, problem: Problem, choice: Choice, races: list[Race], benchmark: BenchmarkFixture
) -> None:
    result = run(operation, problem, choice.rounds, choice.libraries)
    races.append(result)
    benchmark.group = result.title()
    benchmark.extra_info.update(result.as_dict())
    ours = candidate("fastloss", operation, problem)
    benchmark.pedantic(ours.call, setup=ours.before, rounds=choice.rounds, warmup_rounds=1)
