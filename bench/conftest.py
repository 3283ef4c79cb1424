from __future__ import annotations

import pytest
from choice import Choice, add_options, choice_of
from table import markdown

from fastloss._bench.race import Race
from fastloss._bench.sizes import Problem, dtype_of

_CHOICE = pytest.StashKey[Choice]()
_RACES = pytest.StashKey[list[Race]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser.addoption)


def pytest_configure(config: pytest.Config) -> None:
    """Time here, though the test suite's settings disable benchmarks.

    pytest-benchmark reads its options after this; were it not to, the races would run all the same.
    """
    config.option.benchmark_enable = True
    config.stash[_CHOICE] = choice_of(config.option)
    config.stash[_RACES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    choice = metafunc.config.stash[_CHOICE]
    if "problem" in metafunc.fixturenames:
        pairs = [(w, d) for w in choice.workloads for d in map(dtype_of, choice.dtypes) if d]
        ids = [f"{workload.name}-{dtype}" for workload, dtype in pairs]
        metafunc.parametrize("problem", pairs, ids=ids, indirect=True, scope="module")
        metafunc.parametrize("operation", choice.operations)


@pytest.fixture(scope="module")
def problem(request: pytest.FixtureRequest) -> Problem:
    """A workload's arrays of one dtype, made once for all its operations."""
    return Problem(*request.param)


@pytest.fixture
def choice(request: pytest.FixtureRequest) -> Choice:
    return request.config.stash[_CHOICE]


@pytest.fixture
def races(request: pytest.FixtureRequest) -> list[Race]:
    """The races run so far, which the summary prints."""
    return request.config.stash[_RACES]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    races = config.stash[_RACES]
    if races:
        terminalreporter.section("races: median ms; in brackets, how many times fastloss's")
        terminalreporter.write_line(markdown(races))
