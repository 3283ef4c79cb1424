"""What is raced: the operations, the floors each is held against, and what is right."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastloss import reference
from fastloss._bench.sizes import Array, Problem

Call: TypeAlias = Callable[[], Any]


def quietly(module: str) -> Any:
    """The module; what it warns about while it is imported is no concern of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


class Candidate(NamedTuple):
    """A call to be timed, and what is put right outside the clock before each."""

    call: Call
    before: Callable[[], None] | None = None


class Operation(NamedTuple):
    """An operation as printed, its floor of memory, and its results on the sampled rows."""

    label: str
    floor: str
    truth: Callable[[Problem], Any]


def _softmax(problem: Problem) -> Array:
    return reference.softmax(problem.sample(problem.logits))


def _log_softmax(problem: Problem) -> Array:
    return reference.log_softmax(problem.sample(problem.logits))


def _logsumexp(problem: Problem) -> Any:
    return reference.logsumexp(problem.sample(problem.logits))


def _loss(problem: Problem) -> float:
    return problem.mean_loss


def _value_and_grad(problem: Problem) -> tuple[float, Array]:
    slope = _softmax(problem)
    slope[np.arange(len(slope)), problem.targets[problem.sampled]] -= 1
    return problem.mean_loss, slope / problem.workload.rows


def _product(p: Array, v: Array) -> Array:
    """p (v - <p, v>), the Jacobian of softmax and its transpose times v."""
    product: Array = p * (v - (p * v).sum(axis=-1, keepdims=True))
    return product


def _from_logits(problem: Problem) -> Array:
    return _product(_softmax(problem), problem.sample(problem.vector))


def _from_output(problem: Problem) -> Array:
    return _product(problem.sample(problem.probs), problem.sample(problem.vector))


_TWO = "read two, write one"
OPERATIONS = {
    "softmax": Operation("softmax(x)", "copy", _softmax),
    "softmax_out": Operation("softmax(out=)", "copy", _softmax),
    "log_softmax_out": Operation("log_softmax(out=)", "copy", _log_softmax),
    "logsumexp": Operation("logsumexp", "read", _logsumexp),
    "cross_entropy": Operation("cross_entropy", "read", _loss),
    "value_and_grad": Operation("cross_entropy.value_and_grad(out=)", "copy", _value_and_grad),
    "value_and_grad_in_place": Operation(
        "cross_entropy.value_and_grad in place", "copy", _value_and_grad
    ),
    "jvp": Operation("softmax.jvp(out=)", _TWO, _from_logits),
    "vjp": Operation("softmax.vjp(out=)", _TWO, _from_logits),
    "vjp_from_output": Operation("softmax.vjp_from_output(out=)", _TWO, _from_output),
}


def _array(value: Any, dtype: np.dtype[Any]) -> Array:
    try:
        return np.asarray(value)
    except TypeError:  # PyTorch's bfloat16, of which NumPy takes the bits alone
        found: Array = value.view(quietly("torch").int16).numpy().view(dtype)
        return found


def assert_close(operation: str, problem: Problem, result: Any) -> None:
    """A sample of rows, and scalars, against float64: who computes something else is not timed.

    It tells formulas apart, not roundings, which the tests judge: summed in float32, a row of four
    million is off by 3e-4 in PyTorch.
    """
    truth = OPERATIONS[operation].truth(problem)
    if isinstance(truth, tuple):
        assert len(result) == len(truth)
    else:
        result, truth = (result,), (truth,)
    half = problem.dtype.itemsize == 2
    for got, right in zip(result, truth, strict=True):
        array = _array(got, problem.dtype)
        if array.shape == problem.logits.shape:
            assert array.dtype == problem.dtype, f"a result of {array.dtype}"
            array = problem.sample(array)
        elif array.ndim:
            array = array[problem.sampled]
        scale = float(np.abs(right).max())
        np.testing.assert_allclose(
            array.astype(np.float64), right,
            rtol=1e-2 if half else 1e-3,
            atol=1e-2 * scale + 1e-7 if half else 1e-6 * scale,  # float16 has steps of 6e-8
        )
