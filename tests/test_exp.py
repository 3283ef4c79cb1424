"""The exp primitive: a sample of what `ci/exp` checks everywhere."""

from __future__ import annotations

import exp_error as judge
import numpy as np
import pytest


def test_float32_at_every_exponents_edges() -> None:
    worst = judge.Worst()
    for exponent in range(256):
        for edge in (exponent << 23, (exponent + 1) << 23):
            bits = 0x8000_0000 + edge
            x = judge.float32s(max(bits - 300, 0x8000_0000), min(bits + 300, 1 << 32))
            worst |= judge.of_float32(x)
    assert worst.holds, worst
    assert worst.ulps > 0.4  # that something was judged


def test_float32_where_the_reduction_turns_and_at_random(rng: np.random.Generator) -> None:
    turns = judge.reduction_breakpoints().astype(np.float32)
    bits = turns[turns > -88].view(np.uint32)[:, None] + np.arange(-200, 201, dtype=np.int64)
    steps = bits.astype(np.uint32).view(np.float32).reshape(-1)
    for x in (steps, rng.uniform(-90, 0, 200_000).astype(np.float32)):
        worst = judge.of_float32(x)
        assert worst.holds, worst


def test_float32_from_the_last_normal_result_on() -> None:
    last = np.float32(-87.33654).view(np.uint32).item()
    worst = judge.of_float32(judge.float32s(last - 10_000, last + 100_000))
    assert worst.holds, worst
    assert worst.flushed == 0.0
    assert judge.exp_of(judge.float32s(last, last + 2)).tolist() == [
        pytest.approx(2.0**-126, rel=1e-5), 0.0
    ]  # fmt: skip


def test_float32_nan_zero_and_infinity() -> None:
    nans = [0xFF80_0001, 0xFFFF_FFFF, 0x7F80_0001, 0x7FC0_0000, 0x7FFF_FFFF]
    y = judge.exp_of(np.array([0, 1 << 31, 0xFF80_0000, *nans], np.uint32).view(np.float32))
    np.testing.assert_array_equal(y, [1, 1, 0, *[np.nan] * 5])


def test_float64(rng: np.random.Generator) -> None:
    for x in (
        rng.uniform(-708.4, 0.0, 20_000),
        judge.around(judge.reduction_breakpoints(), 2),
        judge.around([-708.3964185322641], 500),
        judge.around(-np.exp2(np.arange(-1074.0, 10)), 1),
    ):
        worst = judge.of_float64(x)
        assert worst.holds, worst
    y = judge.exp_of(np.array([0.0, -0.0, -np.inf, np.nan, -np.nan, -1e300]))
    np.testing.assert_array_equal(y, [1, 1, 0, np.nan, np.nan, 0])


def test_the_judge_finds_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    right = judge.exp_of
    monkeypatch.setattr(judge, "exp_of", lambda x: np.nextafter(np.nextafter(right(x), 2), 2))
    x = np.linspace(-80, -1, 100)
    assert not judge.of_float32(x.astype(np.float32)).holds
    assert not judge.of_float64(x).holds
    monkeypatch.setattr(judge, "exp_of", lambda x: np.nan_to_num(right(x)))
    assert not judge.of_float32(np.array([np.nan], np.float32)).holds
