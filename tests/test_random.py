"""Any type, layout, axis, output and aliasing: the bits of the plain call, and nothing else touched.

Runs in a process of its own, where Numba checks the bounds of every array, on one worker.
"""

from __future__ import annotations

import os
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fault import finish, start, times
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import fastloss as fl

CHECKED = os.environ.get("NUMBA_BOUNDSCHECK") == "1"
TYPES = [*["f4", "f8"] * 6, ">f4", ">f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", "?"]
TYPES += [*["f2", "bfloat16"] * 2, ">f2"]
MAPS = ["softmax", "log_softmax", "softmax.jvp", "log_softmax.vjp", "softplus", "sigmoid.vjp"]
# Losses of rows, with class indices; and of rows, or of pairs of them, without an output.
LOSSES = [
    "cross_entropy", "cross_entropy.grad", "focal_loss.grad", "lse_hinge_loss.grad",
    "multiclass_hinge_loss.grad", "max_hinge_loss.grad", "arcface_loss.grad",
]
SUMS = ["entropy", "entropy_from_logits"]
PAIRS = ["kl_divergence", "js_divergence_from_logits", "cross_entropy of probabilities"]


def laid_out(draw: Any, x: np.ndarray) -> np.ndarray:
    """An array equal to x, somewhere in a larger one, its axes in any order and direction."""
    if x.ndim == 0:
        return x
    order = draw(st.permutations(range(x.ndim)))
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in order]
    sizes = [max(1, x.shape[a]) * abs(s) for a, s in zip(order, steps, strict=True)]
    offset = draw(st.integers(0, 3))
    memory = np.zeros(int(np.prod(sizes)) * x.itemsize + offset, np.uint8)[offset:]
    view = memory.view(x.dtype).reshape(sizes)
    view = view[tuple(slice(None, None, s) for s in steps)]
    view = view[tuple(slice(0, x.shape[a]) for a in order)].transpose(np.argsort(order))
    view[...] = x
    return view


@st.composite
def problems(draw: Any) -> tuple[Any, ...]:
    """(name, x, beside, axis, out), arguments of an operation on an array."""
    name = draw(st.sampled_from([*MAPS, *MAPS, "logsumexp", *LOSSES, *SUMS, *PAIRS]))
    shape = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = draw(st.sampled_from([0, 1, 2, 5, 31, 32, 33, 70, 1030]))
    if name in [*LOSSES, *SUMS, *PAIRS]:
        shape[axis] = max(1, shape[axis])
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    kind = np.dtype(draw(st.sampled_from(TYPES)))
    x = rng.normal(0, 20, shape)
    real = kind.kind == "f" or kind == ml_dtypes.bfloat16
    if real and draw(st.booleans()):
        x[rng.random(shape) < 0.1] = rng.choice([-np.inf, np.inf, np.nan, 1e30 if kind.itemsize > 2 else 6e4])
    x = laid_out(draw, (np.abs(x) if kind.kind in "ub" else x).astype(kind))
    result = kind.newbyteorder("=") if real else np.dtype(np.float64)
    beside = None
    if name.endswith(("jvp", "vjp")) or name in PAIRS:
        kinds = ["f4", "f8", "f2", "bfloat16"] + ["i2"] * ("cross" not in name)
        other = draw(st.sampled_from(kinds))
        beside = laid_out(draw, rng.normal(size=shape).astype(other))
    elif name in LOSSES:
        rows = [n for a, n in enumerate(shape) if a != axis % len(shape)]
        targets = np.asarray(rng.integers(0, min(shape[axis], 127), rows))
        beside = laid_out(draw, targets.astype(draw(st.sampled_from(["i1", "u2", ">i4", "i8"]))))
    out = None
    where = draw(st.sampled_from(["nowhere", "elsewhere", "in place", "partly over it"]))
    over = name in MAPS and x.dtype == result
    if where == "in place" and over:
        out = x
    elif where == "partly over it" and over:
        memory = laid_out(draw, np.concatenate([x, np.zeros_like(x[:1])]))
        x, out = memory[:-1], memory[1:]
    elif where != "nowhere" and name not in ("cross_entropy", *SUMS, *PAIRS):
        to = [n for a, n in enumerate(shape) if a != axis % len(shape)] if name == "logsumexp" else shape
        rows = np.float32 if result.itemsize == 2 and name == "logsumexp" else result
        out = laid_out(draw, np.zeros(to, rows))
    return name, x, beside, axis, out


def call(name: str, x: Any, beside: Any, axis: int, out: Any) -> Any:
    operation, _, method = name.removesuffix(" of probabilities").partition(".")
    f = getattr(fl, operation)
    f = getattr(f, method) if method else f
    options = {} if out is None else {"out": out}
    if operation not in ("softplus", "sigmoid"):
        options["axis"] = axis
    return f(x, **options) if beside is None else f(x, beside, **options)


@pytest.mark.skipif(not CHECKED, reason="runs where bounds are checked, see below")
@seed(int(os.environ.get("FASTLOSS_TEST_SEED", "20261121")))
@settings(
    max_examples=int(os.environ.get("FASTLOSS_CASES", "100")), deadline=None, database=None,
    suppress_health_check=list(HealthCheck), print_blob=True,
)
@given(problems())
def test_same_bits(problem: tuple[Any, ...]) -> None:
    name, x, beside, axis, out = problem
    plain = np.array(x, x.dtype.newbyteorder("="), order="C")
    plainly = None if beside is None else np.array(beside, order="C")
    expected = call(name, plain, plainly, axis, None)
    given_x, given_beside = x.copy(), None if beside is None else beside.copy()
    ours = call(name, x, beside, axis, out)
    assert np.array_equal(ours, expected, equal_nan=True)
    assert np.asarray(ours).dtype == np.asarray(expected).dtype
    if out is None or not np.may_share_memory(x, out):
        assert np.array_equal(x, given_x, equal_nan=x.dtype.kind in "fV")
    if out is not None:
        assert ours is out
    if beside is not None:
        assert np.array_equal(beside, given_beside)


CODE = f"""
import os, sys, pytest
os.nice(10)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {__file__!r} + "::test_same_bits"]))
"""
process: list[Any] = []


def begin() -> None:
    """Start it, if it has not been: it compiles for a minute of one core."""
    if not process and not CHECKED:
        settings = {"NUMBA_BOUNDSCHECK": 1, "FASTLOSS_NUM_THREADS": 1, "FASTLOSS_CASES": times(150, 5_000)}
        process.append(start(CODE, **settings))


def end() -> None:
    for one in process:
        one.kill()
        one.communicate()


def test_random_calls_stay_within_bounds() -> None:
    begin()
    assert "1 passed" in finish(process.pop())
