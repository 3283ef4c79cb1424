"""What the races rest on: floors that do their work, ratios of rounds, a comparison that tells."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from baseline import TRIES, worse, worse_every_time
from report import BEGIN, END, written_into

from fastloss._bench.floors import FLOORS, arithmetic_of
from fastloss._bench.operations import OPERATIONS, Candidate, assert_close
from fastloss._bench.race import Race, race, summarised
from fastloss._bench.rivals import LIBRARIES, candidate, computes
from fastloss._bench.sizes import DTYPES, Problem, Workload, dtype_of

KINDS = [pytest.param(np.float32, np.float64, 1e-7), pytest.param(np.float64, np.longdouble, 3e-16)]


def small(dtype: str = "float32", axis: int = -1) -> Problem:
    kind = dtype_of(dtype)
    if kind is None:
        pytest.skip(f"fastloss refuses {dtype}, or nothing provides it")
    return Problem(Workload("small", 37, 4099, axis), kind)


# ---- floors ---------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_floors_move_every_whole_line(dtype: str) -> None:
    problem = small(dtype)
    x, y, out = (a.reshape(-1).view(np.uint8) for a in (problem.logits, problem.vector, problem.out))
    words = out.size // 4 * 4
    FLOORS["copy"].setup(problem)()
    assert np.array_equal(out[: out.size // 64 * 64], x[: out.size // 64 * 64])
    FLOORS["read two, write one"].setup(problem)()
    both = x[:words].view(np.int32) + y[:words].view(np.int32)
    blocks = both.size // 1024 * 1024
    assert np.array_equal(out[:words].view(np.int32)[:blocks], both[:blocks])
    read: Any = FLOORS["read"].setup(problem)
    read()
    with np.errstate(over="ignore"):
        assert read.args[1].sum(dtype=np.int32) == x[:words].view(np.int32).sum(dtype=np.int32)


@pytest.mark.parametrize(("kind", "wide", "error"), KINDS)
def test_arithmetic_floor_sums_exps(kind: Any, wide: Any, error: float) -> None:
    exp, loop = arithmetic_of(kind)
    x = -np.abs(20 * np.random.default_rng(0).standard_normal(2000)).astype(kind)
    found, truth = np.array([exp(v) for v in x], kind), np.exp(x.astype(wide))
    assert np.abs(found / truth - 1).max() < error
    assert exp(kind(-np.inf)) == 0
    blocks = np.random.default_rng(1).standard_normal((2, 2, 1024)).astype(kind)
    parts = np.zeros(2, kind)
    loop(blocks, 2, parts)
    sums = np.exp(blocks.astype(wide) - blocks.max(axis=2, keepdims=True)).sum(axis=(1, 2))
    assert np.abs(parts / sums - 1).max() < 1e3 * error


# ---- candidates -----------------------------------------------------------------------------
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", ["numpy", "scipy"])
def test_rivals_compute_the_operation(library: str, dtype: str, axis: int) -> None:
    problem = small(dtype, axis)
    for operation in filter(lambda name: computes(library, name, problem), OPERATIONS):
        ready = candidate(library, operation, problem)
        for _ in range(2):  # in place too
            if ready.before is not None:
                ready.before()
            assert_close(operation, problem, ready.call())


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_computes_something_else_is_not_timed(operation: str, axis: int) -> None:
    problem = small(axis=axis)
    ready = candidate("fastloss", operation, problem)
    if ready.before is not None:
        ready.before()
    right = ready.call()
    assert_close(operation, problem, right)
    wrong = [(right[0] * 1.01, right[1]), (right[0], right[1] * np.float32(1.01))] if isinstance(
        right, tuple
    ) else [right * np.float32(1.01)]  # fmt: skip
    if isinstance(right, np.ndarray):
        wrong.append(right.astype(np.float64) * 1.01)
    for result in wrong:
        with pytest.raises(AssertionError):
            assert_close(operation, problem, result)


# ---- ratios ---------------------------------------------------------------------------------
def test_ratios_are_medians_of_rounds() -> None:
    times = {
        "read": [1.0, 2.0, 4.0], "fastloss": [2.0, 2.0, 16.0], "numpy": [20.0, None, 16.0],
        "scipy": [6.0, 8.0, 16.0],
    }  # fmt: skip
    seconds, ratios = summarised(times)
    assert seconds == {"read": 2.0, "fastloss": 2.0, "numpy": 18.0, "scipy": 8.0}
    assert ratios == {"fastloss / read": 2.0, "numpy / fastloss": 5.5, "scipy / fastloss": 3.0}


def test_every_candidate_runs_once_a_round_in_turn() -> None:
    calls: list[str] = []

    def slow(name: str) -> Candidate:
        def call() -> None:
            calls.append(name)
            sum(range(100_000))

        return Candidate(call, lambda: calls.append(f"before {name}") if name == "b" else None)

    times = race({"a": slow("a"), "b": slow("b")}, 3, "a")
    assert calls == ["a", "before b", "b"] * 4  # one to see how long they take
    assert all(len(each) == 3 and min(filter(None, each)) > 0 for each in times.values())


def _race(**ratios: float) -> Race:
    named = {{"floor": "fastloss / read", "numpy": "numpy / fastloss"}[k]: v for k, v in ratios.items()}
    return Race("logsumexp", Workload("small", 2, 3), "float32", 4, {"fastloss": 1.0}, named)


def test_only_what_is_worse_on_every_try_is_named() -> None:
    kept = {"small 2×3 float32": {"logsumexp": {"fastloss / read": 1.2, "numpy / fastloss": 6.0}}}
    assert worse(_race(floor=1.7, numpy=4.1), kept) == {}
    assert worse(_race(floor=0.1, numpy=60.0), kept) == {}
    assert worse(_race(floor=1.9), kept) == {"fastloss / read": "1.2 → 1.9"}
    assert worse(_race(numpy=3.9), kept) == {"numpy / fastloss": "6 → 3.9"}
    assert worse(_race(floor=9.0), {}) == {}

    bad, good = _race(floor=1.9, numpy=3.9), _race(floor=1.2, numpy=6.0)
    half = _race(floor=1.9, numpy=6.0)
    for tries, expected in (
        ([bad, bad, bad], [{"fastloss / read", "numpy / fastloss"}]),
        ([bad, half, bad], [{"fastloss / read"}]),
        ([bad, bad, good], []), ([bad, good], []), ([good], []),
    ):  # fmt: skip
        runs = iter(tries)
        found = worse_every_time([next(runs)], kept, lambda _, runs=runs: next(runs))
        assert [set(names) for _, names in found] == expected
        assert next(runs, None) is None
    assert TRIES == 3


def test_a_race_survives_json() -> None:
    one = _race(floor=1.5)
    assert Race.from_dict(json.loads(json.dumps(one.as_dict()))) == one


def test_the_readme_keeps_what_is_around_the_tables() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = written_into(text, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert written_into(once, "new") == once
    with pytest.raises(ValueError, match="between"):
        written_into("no markers", "new")


def test_every_library_has_operations_and_a_class_of_its_own() -> None:
    for name, library in LIBRARIES.items():
        assert any(hasattr(library.adapter, operation) for operation in OPERATIONS), name
    assert all(hasattr(LIBRARIES["fastloss"].adapter, operation) for operation in OPERATIONS)
