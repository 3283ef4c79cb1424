from __future__ import annotations

import os
import zlib

import numpy as np
import pytest

SEED = int(os.environ.get("FASTLOSS_TEST_SEED", "20261121"))


def pytest_report_header() -> str:
    return f"fastloss: FASTLOSS_TEST_SEED={SEED}"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of its own for each test, from the seed in the header and the test's name."""
    seed = (SEED, zlib.crc32(request.node.nodeid.encode()))
    print(f"rng seed: {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(params=[np.float32, np.float64], ids=["f4", "f8"])
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param
