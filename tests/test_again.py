"""A call that its thread has made before is made again without a new plan: nothing shows it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import fastloss as fl
from fastloss._engine import across, again, launch, rows, threads


def in_a_new_thread(call: Any) -> Any:
    """Where nothing has been called before."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def unaligned(x: np.ndarray) -> np.ndarray:
    y = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def read_only(x: np.ndarray) -> np.ndarray:
    y = x.copy()
    y.flags.writeable = False
    return y


CALLS = {
    "softmax": lambda x, axis: fl.softmax(x, axis=axis),
    "softmax, T = 2": lambda x, axis: fl.softmax(x, axis=axis, temperature=2.0),
    "log_softmax": lambda x, axis: fl.log_softmax(x, axis=axis),
    "logsumexp": lambda x, axis: fl.logsumexp(x, axis=axis),
    "logsumexp, keepdims": lambda x, axis: fl.logsumexp(x, axis=axis, keepdims=True),
}


@pytest.mark.parametrize("rows", [5, 40])  # along them, and across
@pytest.mark.parametrize("axis", [0, 1, -2, None, (0, 1)])
@pytest.mark.parametrize("name", CALLS)
def test_it_is_like_the_first(
    name: str, axis: Any, rows: int, dtype: type, rng: np.random.Generator
) -> None:
    def call(x: Any) -> Any:
        return CALLS[name](x, axis)

    other = np.float64 if dtype == np.float32 else np.float32
    kept = []
    for _ in range(3):
        x = rng.normal(0, 3, (rows, 6)).astype(dtype)
        call(x)
        assert again._own.made
        for same in (
            x, x[:4], x.T, x[:, ::-1], np.asfortranarray(x), x.astype(x.dtype.newbyteorder()), unaligned(x),
            np.broadcast_to(x[0], x.shape), np.broadcast_arrays(x, x)[0], read_only(x), x.astype(other),
            x.astype(np.float16), x.astype(int), x.tolist(),
        ):
            got, first = call(same), in_a_new_thread(lambda same=same: call(same))
            assert type(got) is type(first)
            assert got.dtype == first.dtype
            assert got.shape == first.shape
            assert np.array_equal(got, first)
        kept.append((call(x), in_a_new_thread(lambda x=x: call(x))))
    for got, first in kept:  # each has memory of its own
        assert np.array_equal(got, first)


def test_what_is_remembered_is_bounded(dtype: type) -> None:
    for n in range(1, 200):
        assert fl.softmax(np.zeros((2, n), dtype)).shape == (2, n)
    assert len(again._own.made) <= 16


def test_outputs(dtype: type, rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, (5, 6)).astype(dtype)
    expected = fl.softmax(x)
    memory = np.zeros(100, dtype)
    for _ in range(2):
        for out in (
            np.empty_like(x), x.copy(), np.empty_like(x.T).T, np.empty((5, 12), dtype)[:, ::2],
            unaligned(x), memory[7:37].reshape(5, 6),
        ):
            given = out if np.array_equal(out, x) else x
            assert fl.softmax(given, out=out) is out
            assert np.array_equal(out, expected)
        memory[:30] = x.reshape(-1)
        late = memory[3:33].reshape(5, 6)  # overlaps in part
        assert np.array_equal(fl.softmax(memory[:30].reshape(5, 6), out=late), expected)
        with pytest.raises(ValueError, match="out has shape"):
            fl.softmax(x, out=np.empty((6, 5), dtype))
        with pytest.raises(ValueError, match="out is read-only"):
            fl.softmax(x, out=read_only(x))
        with pytest.raises(ValueError, match="out has dtype"):
            fl.softmax(x, out=np.empty((5, 6), np.float16))
        with pytest.raises(TypeError, match="out must be"):
            fl.softmax(x, out=x.tolist())


@pytest.mark.skipif(threads.available() < 2, reason="one thread")
@pytest.mark.parametrize("shape", [(1, 70_000), (40, 2000), (3000, 10)])
def test_calls_of_several_workers(
    shape: tuple[int, int], dtype: type, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row in parts, which takes two launches, and rows; not if threads are more or fewer than before."""
    y = rng.integers(shape[1], size=shape[0])
    calls = [fl.softmax, fl.log_softmax, fl.logsumexp, lambda x: fl.cross_entropy(x, y)]
    for call in calls[: 3 if shape[1] == 10 else 4]:
        x, other = rng.normal(0, 3, (2, *shape)).astype(dtype)
        expected = in_a_new_thread(lambda call=call, other=other: call(other))
        with fl.num_threads(2):
            call(x)
            with monkeypatch.context() as unplanned:
                unplanned.setattr(rows, "plan_of", None)
                unplanned.setattr(across, "plan_of", None)
                assert np.array_equal(call(other), expected)
                with fl.num_threads(1), pytest.raises(TypeError, match="NoneType"):
                    call(other)
            with fl.num_threads(1):
                assert np.array_equal(call(other), expected)


def test_a_handler_that_calls_the_same(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the launches of a remembered call a signal may be answered, by that call of other numbers."""
    x, other = rng.normal(0, 3, (2, 1, 70_000)).astype(np.float32)
    expected = in_a_new_thread(lambda: (fl.logsumexp(x), fl.logsumexp(other)))
    fl.logsumexp(x)
    start, met = launch.start, []

    def interrupted(*args: Any) -> None:
        start(*args)
        if len(met) == 0:
            met.append(None)
            met[0] = fl.logsumexp(other)

    monkeypatch.setattr(launch, "start", interrupted)
    assert (fl.logsumexp(x), met[0]) == expected
