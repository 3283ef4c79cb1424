from __future__ import annotations

import os
import sys
import zlib
from typing import Any

import numpy as np
import pytest

import fastloss as fl
from fastloss._engine import launch

BESIDE = {"test_portable", "test_random"}  # files with processes of their own
SEED = int(os.environ.get("FASTLOSS_TEST_SEED", "20261121"))


def pytest_report_header() -> str:
    return f"fastloss: FASTLOSS_TEST_SEED={SEED}"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Where most tests will run, compile first, in as many processes as there are threads; and let those that
    compile for long go on beside the rest.
    """
    if len(session.items) > 1000 and not session.config.option.collectonly:
        fl.warmup()
        for name in BESIDE & sys.modules.keys():
            sys.modules[name].begin()


def pytest_sessionfinish() -> None:
    for name in BESIDE & sys.modules.keys():
        sys.modules[name].end()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of its own for each test, from the seed in the header and the test's name."""
    seed = (SEED, zlib.crc32(request.node.nodeid.encode()))
    print(f"rng seed: {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(params=[np.float32, np.float64], ids=["f4", "f8"])
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param


@pytest.fixture(autouse=True, scope="session")
def kinds_are_those_compiled() -> Any:
    """A block does not know its arguments' types: that every call has those compiled for is tested here."""
    run = launch.run

    def checked(kernel: Any, count: int, kind: str, tasks: int, size: int, args: Any, *rest: Any) -> None:
        fixed = rest[0].values if rest else ()
        if kind in kernel.ready:
            assert launch._kinds((*fixed, *args)) == kernel.ready[kind].kinds, kernel.__name__
        run(kernel, count, kind, tasks, size, args, *rest)

    launch.run = checked
    yield
    launch.run = run
