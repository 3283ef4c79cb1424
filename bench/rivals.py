"""One table of who computes what: operation -> {library: setup}, setup(problem) -> thunk.

A thunk computes the operation once and returns what NumPy can convert. A library is imported when
one of its setups is called; `candidates` leaves out those that are not installed. PyTorch gets as
many threads as fastloss uses; JAX sizes its own pool by the CPUs it may run on.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import textbook
from sizes import Problem

import fastloss as fl
from fastloss._engine import threads

Thunk: TypeAlias = Callable[[], Any]
Setup: TypeAlias = Callable[[Problem], Thunk]


def _quietly(module: str) -> Any:
    """The module; what it warns about while it is imported is no concern of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


# ---- from a function of a library's own arrays to a setup -----------------------------------
def _on_numpy(call: Callable[..., Any]) -> Setup:
    """`call(logits, targets, out)` on the arrays as they are."""
    return lambda problem: partial(call, problem.logits, problem.targets, problem.out)


def _on_scipy(call: Callable[..., Any]) -> Setup:
    """`call(scipy.special, logits, targets)`."""

    def setup(problem: Problem) -> Thunk:
        return partial(call, _quietly("scipy.special"), problem.logits, problem.targets)

    return setup


def _on_torch(call: Callable[..., Any]) -> Setup:
    """`call(torch, logits, targets, out)` on tensors that share the arrays' memory."""

    def setup(problem: Problem) -> Thunk:
        torch = _quietly("torch")
        torch.set_num_threads(threads.count())
        arrays = (problem.logits, problem.targets, problem.out)
        return partial(call, torch, *map(torch.from_numpy, arrays))

    return setup


def _on_jax(function: Callable[..., Any]) -> Setup:
    """`function(jax)` gives a function of (logits, targets), which is compiled; the CPU's result."""

    def setup(problem: Problem) -> Thunk:
        jax = _quietly("jax")
        jax.config.update("jax_platforms", "cpu")
        compiled = jax.jit(function(jax))
        x, y = jax.device_put((problem.logits, problem.targets.astype(np.int32)))
        return lambda: jax.block_until_ready(compiled(x, y))

    return setup


# ---- what takes more than a line elsewhere --------------------------------------------------
def _scipy_cross_entropy(special: Any, x: Any, y: Any) -> Any:
    return -special.log_softmax(x, axis=-1)[np.arange(len(x)), y].mean()


def _torch_value_and_grad(torch: Any, x: Any, y: Any, _out: Any) -> Any:
    x.requires_grad_().grad = None
    loss = torch.nn.functional.cross_entropy(x, y)
    loss.backward()
    return loss.detach(), x.grad


def _jax_loss(jax: Any) -> Callable[[Any, Any], Any]:
    def loss(x: Any, y: Any) -> Any:
        taken = jax.numpy.take_along_axis(x, y[:, None], axis=-1)[:, 0]
        return (jax.nn.logsumexp(x, axis=-1) - taken).mean()

    return loss


RIVALS: dict[str, dict[str, Setup]] = {
    "softmax": {
        "fastloss": _on_numpy(lambda x, _y, _out: fl.softmax(x)),
        "numpy": _on_numpy(textbook.softmax),
        "scipy": _on_scipy(lambda special, x, _y: special.softmax(x, axis=-1)),
        "torch": _on_torch(lambda torch, x, _y, _out: torch.softmax(x, -1)),
        "jax": _on_jax(lambda jax: lambda x, _y: jax.nn.softmax(x)),
    },
    "softmax_out": {
        "fastloss": _on_numpy(lambda x, _y, out: fl.softmax(x, out=out)),
        "numpy": _on_numpy(textbook.softmax_out),
        "torch": _on_torch(lambda torch, x, _y, out: torch.softmax(x, -1, out=out)),
    },
    "logsumexp": {
        "fastloss": _on_numpy(lambda x, _y, _out: fl.logsumexp(x)),
        "numpy": _on_numpy(textbook.logsumexp),
        "scipy": _on_scipy(lambda special, x, _y: special.logsumexp(x, axis=-1)),
        "torch": _on_torch(lambda torch, x, _y, _out: torch.logsumexp(x, -1)),
        "jax": _on_jax(lambda jax: lambda x, _y: jax.nn.logsumexp(x, axis=-1)),
    },
    "cross_entropy": {
        "fastloss": _on_numpy(lambda x, y, _out: fl.cross_entropy(x, y)),
        "numpy": _on_numpy(textbook.cross_entropy),
        "scipy": _on_scipy(_scipy_cross_entropy),
        "torch": _on_torch(lambda torch, x, y, _out: torch.nn.functional.cross_entropy(x, y)),
        "jax": _on_jax(_jax_loss),
    },
    "value_and_grad": {
        "fastloss": _on_numpy(lambda x, y, _out: fl.cross_entropy.value_and_grad(x, y)),
        "numpy": _on_numpy(textbook.value_and_grad),
        "torch": _on_torch(_torch_value_and_grad),
        "jax": _on_jax(lambda jax: jax.value_and_grad(_jax_loss(jax))),
    },
}


def candidates(operation: str, problem: Problem) -> dict[str, Thunk]:
    """The thunks of the libraries that are installed, fastloss first."""
    return {
        library: setup(problem)
        for library, setup in RIVALS[operation].items()
        if find_spec(library) is not None
    }
