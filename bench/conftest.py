from __future__ import annotations

import pytest
import sizes
from race import Race, rounds_of
from table import markdown

_RACES = pytest.StashKey[list[Race]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="two small workloads, three rounds")


def pytest_configure(config: pytest.Config) -> None:
    """Time here, though the test suite's settings disable benchmarks.

    pytest-benchmark reads its options after this; were it not to, the races would run all the same.
    """
    config.option.benchmark_enable = True
    config.stash[_RACES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "problem" in metafunc.fixturenames:
        workloads = sizes.chosen(metafunc.config.getoption("quick"))
        metafunc.parametrize("problem", workloads, ids=lambda w: w.name, indirect=True, scope="module")


@pytest.fixture(scope="module")
def problem(request: pytest.FixtureRequest) -> sizes.Problem:
    """A workload's arrays, made once for all its operations."""
    workload: sizes.Workload = request.param
    return workload.problem()


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return rounds_of(request.config.getoption("quick"))


@pytest.fixture
def races(request: pytest.FixtureRequest) -> list[Race]:
    """The races run so far, which the summary prints."""
    found: list[Race] = request.config.stash[_RACES]
    return found


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    races: list[Race] = config.stash[_RACES]
    if races:
        terminalreporter.section("races: median ms; in brackets, how many times fastloss's")
        terminalreporter.write_line(markdown(races))
