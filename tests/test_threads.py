"""The bits do not depend on who computes them; threads and forks neither abort nor hang."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cases import logits

import fastloss as fl
from fastloss._engine import blocks, launch, threads

SHAPES = [(300, 700), (1, 400_000), (3, 150_000), (2, 1_200_000)]


def results(x: np.ndarray, y: np.ndarray, t: np.ndarray) -> list[Any]:
    return [
        fl.softmax(x), fl.softmax(x, out=np.empty_like(x)), fl.log_softmax(x), fl.logsumexp(x),
        fl.softmax.jvp(x, t), fl.log_softmax.vjp(x, t), fl.logsumexp.jvp(x, t), fl.softplus(x),
        fl.sigmoid.vjp(x, t), fl.cross_entropy(x, y, label_smoothing=0.1),
        *fl.cross_entropy.value_grad_hess(x, y), fl.cross_entropy.hvp(x, y, t),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_do_not_depend_on_the_threads(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch, dtype: type, rng: np.random.Generator
) -> None:
    x, t = logits(rng, shape, dtype), rng.normal(size=shape).astype(dtype)
    y = rng.integers(0, shape[1], shape[0])
    expected = results(x, y, t)
    for n in (1, 2, 3, 7):
        monkeypatch.setattr(threads, "count", lambda n=n: n)
        for ours, plain in zip(results(x, y, t), expected, strict=True):
            assert np.array_equal(ours, plain), n
    monkeypatch.setattr(launch, "layer_is_safe", lambda: False)  # the package's own threads
    for ours, plain in zip(results(x, y, t), expected, strict=True):
        assert np.array_equal(ours, plain)
    monkeypatch.setattr(launch, "WORTHWHILE", 1 << 60)  # in place
    monkeypatch.setattr(blocks, "STREAMED", 0)
    for ours, plain in zip(results(x, y, t), expected, strict=True):
        assert np.array_equal(ours, plain)


@pytest.mark.parametrize("rest", range(0, 64, 7))
def test_streamed_stores_reach_every_element(
    rest: int, monkeypatch: pytest.MonkeyPatch, dtype: type, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(blocks, "STREAMED", 0)
    memory = np.full(5 * 2112 + 128, 7, dtype)
    memory = memory[(-memory.ctypes.data % 64) // memory.itemsize :]  # from a cache line on
    x = logits(rng, (5, 2112 - rest), dtype)
    out = memory[rest : rest + x.size].reshape(x.shape)
    fl.softmax(x, out=out)
    assert np.array_equal(out, fl.softmax(x))
    assert (memory[:rest] == 7).all()
    assert (memory[rest + x.size :] == 7).all()


def test_threads_that_call_at_once_are_right(rng: np.random.Generator) -> None:
    x = logits(rng, (200, 900), np.float32)
    y = rng.integers(0, 900, 200)
    p, loss = fl.softmax(x), fl.cross_entropy(x, y)

    def call(k: int) -> bool:
        return np.array_equal(fl.softmax(x), p) if k % 2 else fl.cross_entropy(x, y) == loss

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(400)))


FORKS = """
import os, sys, signal
import numpy as np
import fastloss as fl
signal.alarm(60)
x = np.random.default_rng(0).normal(size=(300, 700)).astype(np.float32)
y = np.arange(300)
before = (fl.softmax(x), fl.cross_entropy(x, y)) if {after} else None

def child(depth):
    pid = os.fork()
    if pid == 0:
        ours = fl.softmax(x), fl.cross_entropy(x, y)
        good = before is None or (np.array_equal(ours[0], before[0]) and ours[1] == before[1])
        if depth:
            good = good and child(depth - 1)
        os._exit(0 if good else 1)
    return os.waitpid(pid, 0)[1] == 0

assert child(1)
now = fl.softmax(x), fl.cross_entropy(x, y)
assert before is None or np.array_equal(now[0], before[0])
print("ok")
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
@pytest.mark.parametrize("layer", ["default", "workqueue"])
@pytest.mark.parametrize("after", [True, False])
def test_forked_children_and_grandchildren_are_right(layer: str, after: bool) -> None:
    code = f"import os; os.environ['NUMBA_THREADING_LAYER'] = {layer!r}\n" + FORKS.format(after=after)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "ok", done.stderr


def test_workqueue_is_never_launched() -> None:
    code = """
import os; os.environ['NUMBA_THREADING_LAYER'] = 'workqueue'
import numpy as np, numba, fastloss as fl
from concurrent.futures import ThreadPoolExecutor
x = np.random.default_rng(0).normal(size=(300, 700)).astype(np.float32)
p = fl.softmax(x)
with ThreadPoolExecutor(8) as pool:
    assert all(pool.map(lambda _: np.array_equal(fl.softmax(x), p), range(100)))
try:
    print(numba.threading_layer())
except ValueError:
    print("none")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "none", done.stderr


def test_a_worker_that_fails_does_not_lose_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread to be had: the caller does all the work itself."""

    def none(*_: Any, **__: Any) -> Callable[..., Any]:
        raise RuntimeError("can't start new thread")

    x = np.random.default_rng(0).normal(size=(300, 700))
    expected = fl.softmax(x)
    monkeypatch.setattr(launch, "layer_is_safe", lambda: False)
    monkeypatch.setattr(launch, "ThreadPoolExecutor", none)
    monkeypatch.setattr(launch._state, "pool", None)
    assert np.array_equal(fl.softmax(x), expected)
