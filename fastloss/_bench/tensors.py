"""PyTorch and JAX, which have arrays of their own: shared with NumPy's where that can be."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastloss._bench.operations import Call, Candidate, quietly
from fastloss._bench.sizes import Array, Problem
from fastloss._engine import threads


class Torch:
    """PyTorch eager, on tensors that share the arrays' memory."""

    def __init__(self, problem: Problem) -> None:
        self.torch = quietly("torch")
        self.torch.set_num_threads(threads.count())
        self.problem, self.axis = problem, problem.axis
        self.x, self.out = self._tensor(problem.logits), self._tensor(problem.out)
        self.y = self._tensor(problem.targets)

    def _tensor(self, array: Array) -> Any:
        if array.dtype.name == "bfloat16":  # a type that `from_numpy` does not know
            return self.torch.from_numpy(array.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(array)

    def _loss(self, x: Any, y: Any) -> Any:
        return self.torch.nn.functional.cross_entropy(x.T if self.axis == 0 else x, y)

    def _backward(self, p: Any, u: Any, out: Any) -> Any:
        backward = self.torch.ops.aten._softmax_backward_data
        return backward.out(u, p, self.axis, p.dtype, grad_input=out)

    def softmax(self) -> Call:
        return partial(self.torch.softmax, self.x, self.axis)

    def softmax_out(self) -> Call:
        return partial(self.torch.softmax, self.x, self.axis, out=self.out)

    def log_softmax_out(self) -> Call:
        return partial(self.torch.log_softmax, self.x, self.axis, out=self.out)

    def logsumexp(self) -> Call:
        return partial(self.torch.logsumexp, self.x, self.axis)

    def cross_entropy(self) -> Call:
        return partial(self._loss, self.x, self.y)

    def value_and_grad(self) -> Call:
        return partial(self._differentiated, self._loss)

    def value_and_grad_in_place(self) -> Call:
        return self.value_and_grad()

    def _differentiated(self, loss_of: Callable[..., Any]) -> Any:
        self.x.requires_grad_().grad = None
        loss = loss_of(self.x, self.y)
        loss.backward()
        return loss.detach(), self.x.grad

    def jvp(self) -> Call:
        u, softmax = self._tensor(self.problem.vector), self.softmax_out()
        return lambda: self._backward(softmax(), u, self.out)

    vjp = jvp

    def vjp_from_output(self) -> Call:
        p, u = self._tensor(self.problem.probs), self._tensor(self.problem.vector)
        return partial(self._backward, p, u, self.out)


class TorchCompile(Torch):
    """The same formulas by `torch.compile`, for these shapes alone."""

    def _compiled(self, function: Callable[..., Any]) -> Any:
        self.torch.compiler.reset()  # else the ninth shape of a function is run without compiling
        return self.torch.compile(function, dynamic=False)

    def _into(self, function: Callable[..., Any], *tensors: Any) -> Call:
        return partial(self._compiled(lambda out, *t: out.copy_(function(*t))), self.out, *tensors)

    def _product(self, p: Any, u: Any) -> Any:
        return p * (u - (p * u).sum(self.axis, keepdim=True))

    def softmax(self) -> Call:
        return partial(self._compiled(lambda x: self.torch.softmax(x, self.axis)), self.x)

    def softmax_out(self) -> Call:
        return self._into(lambda x: self.torch.softmax(x, self.axis), self.x)

    def log_softmax_out(self) -> Call:
        return self._into(lambda x: self.torch.log_softmax(x, self.axis), self.x)

    def logsumexp(self) -> Call:
        return partial(self._compiled(lambda x: self.torch.logsumexp(x, self.axis)), self.x)

    def cross_entropy(self) -> Call:
        return partial(self._compiled(self._loss), self.x, self.y)

    def value_and_grad(self) -> Call:
        return partial(self._differentiated, self._compiled(self._loss))

    def jvp(self) -> Call:
        u = self._tensor(self.problem.vector)
        return self._into(lambda x, u: self._product(self.torch.softmax(x, self.axis), u), self.x, u)

    vjp = jvp

    def vjp_from_output(self) -> Call:
        p, u = self._tensor(self.problem.probs), self._tensor(self.problem.vector)
        return self._into(self._product, p, u)


class Jax:
    """`jax.jit`; where others write to an output, it is given the last one's memory ("donated")."""

    def __init__(self, problem: Problem) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        self.jax = quietly("jax")
        self.jax.config.update("jax_enable_x64", True)
        self.problem, self.axis = problem, problem.axis
        self.x, self.y = self.jax.device_put((problem.logits, problem.targets.astype(np.int32)))

    def _call(self, function: Callable[..., Any], *arrays: Any) -> Call:
        compiled = self.jax.jit(function)
        return lambda: self.jax.block_until_ready(compiled(*arrays))

    def _into(self, function: Callable[..., Any], *arrays: Any) -> Call:
        compiled = self.jax.jit(lambda out, *a: function(*a), donate_argnums=0, keep_unused=True)  # noqa: ARG005
        out = self.jax.numpy.zeros_like(self.x)

        def call() -> Any:
            nonlocal out
            result = self.jax.block_until_ready(compiled(out, *arrays))
            out = result[-1] if isinstance(result, tuple) else result
            return result

        return call

    def _softmax(self, x: Any) -> Any:
        return self.jax.nn.softmax(x, axis=self.axis)

    def _loss(self, x: Any, y: Any) -> Any:
        y = self.jax.numpy.expand_dims(y, self.axis)
        taken = self.jax.numpy.take_along_axis(x, y, axis=self.axis)
        return (self.jax.nn.logsumexp(x, axis=self.axis, keepdims=True) - taken).mean()

    def _product(self, p: Any, u: Any) -> Any:
        return p * (u - (p * u).sum(axis=self.axis, keepdims=True))

    def softmax(self) -> Call:
        return self._call(self._softmax, self.x)

    def softmax_out(self) -> Call:
        return self._into(self._softmax, self.x)

    def log_softmax_out(self) -> Call:
        return self._into(lambda x: self.jax.nn.log_softmax(x, axis=self.axis), self.x)

    def logsumexp(self) -> Call:
        return self._call(lambda x: self.jax.nn.logsumexp(x, axis=self.axis), self.x)

    def cross_entropy(self) -> Call:
        return self._call(self._loss, self.x, self.y)

    def value_and_grad(self) -> Call:
        return self._into(self.jax.value_and_grad(self._loss), self.x, self.y)

    def value_and_grad_in_place(self) -> Candidate:
        compiled = self.jax.jit(self.jax.value_and_grad(self._loss), donate_argnums=0)
        fresh = self.x

        def restore() -> None:
            nonlocal fresh
            fresh = self.jax.block_until_ready(self.jax.numpy.array(self.problem.logits, copy=True))

        return Candidate(lambda: self.jax.block_until_ready(compiled(fresh, self.y)), restore)

    def jvp(self) -> Call:
        def product(x: Any, u: Any) -> Any:
            return self.jax.jvp(self._softmax, (x,), (u,))[1]

        return self._into(product, self.x, self.jax.device_put(self.problem.vector))

    def vjp(self) -> Call:
        def product(x: Any, u: Any) -> Any:
            return self.jax.vjp(self._softmax, x)[1](u)[0]

        return self._into(product, self.x, self.jax.device_put(self.problem.vector))

    def vjp_from_output(self) -> Call:
        return self._into(
            self._product, *self.jax.device_put((self.problem.probs, self.problem.vector))
        )
