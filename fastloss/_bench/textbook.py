"""The NumPy code one writes from the textbook: whole-array temporaries, one thread, max-shifted.

NumPy has no arithmetic of half types worth the name, so that these are computed in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss._bench.operations import Call, Candidate
from fastloss._bench.sizes import Array, Problem


class OnArrays:
    """What computes on NumPy's arrays, half types in float32."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.axis, self.out = problem, problem.axis, problem.out
        self.x, self.y = problem.logits, problem.targets
        self.half = problem.dtype.itemsize == 2

    def _wide(self, array: Array) -> Array:
        return array.astype(np.float32) if self.half else array

    def _narrow(self, array: Array) -> Array:
        return array.astype(self.problem.dtype) if self.half else array

    def _taken(self, x: Array) -> Array:
        return np.take_along_axis(x, np.expand_dims(self.y, self.axis), self.axis)


class NumPy(OnArrays):
    """A method an operation: it returns the call to be timed."""

    def _place(self) -> Array:
        """`out`, or float32 numbers that it gets in the end."""
        return np.empty(self.out.shape, np.float32) if self.half else self.out

    def _keep(self, place: Array) -> Array:
        if place is not self.out:
            self.out[...] = place
        return self.out

    def _softmax_into(self, place: Array) -> Array:
        x = self._wide(self.x)
        np.subtract(x, x.max(axis=self.axis, keepdims=True), out=place)
        np.exp(place, out=place)
        place /= place.sum(axis=self.axis, keepdims=True)
        return place

    def _lse(self, x: Array) -> Array:
        m = x.max(axis=self.axis, keepdims=True)
        lse: Array = m + np.log(np.exp(x - m).sum(axis=self.axis, keepdims=True))
        return lse

    def _times_vector(self, p: Array, place: Array) -> Array:
        v = self._wide(self.problem.vector)
        mean = (p * v).sum(axis=self.axis, keepdims=True)
        np.multiply(p, v - mean, out=place)
        return self._keep(place)

    # ---- operations -------------------------------------------------------------------------
    def softmax(self) -> Call:
        def call() -> Array:
            x = self._wide(self.x)
            e = np.exp(x - x.max(axis=self.axis, keepdims=True))
            return self._narrow(e / e.sum(axis=self.axis, keepdims=True))

        return call

    def softmax_out(self) -> Call:
        return lambda: self._keep(self._softmax_into(self._place()))

    def log_softmax_out(self) -> Call:
        def call() -> Array:
            x, place = self._wide(self.x), self._place()
            np.subtract(x, self._lse(x), out=place)
            return self._keep(place)

        return call

    def logsumexp(self) -> Call:
        return lambda: self._lse(self._wide(self.x)).reshape(-1)

    def cross_entropy(self) -> Call:
        def call() -> Any:
            x = self._wide(self.x)
            return np.mean(self._lse(x) - self._taken(x))

        return call

    def value_and_grad(self) -> Call:
        def call() -> tuple[Any, Array]:
            grad = self._softmax_into(self._place())
            taken = self._taken(grad)
            np.put_along_axis(grad, np.expand_dims(self.y, self.axis), taken - 1, self.axis)
            grad /= self.y.size
            return -np.log(taken).mean(), self._keep(grad)

        return call

    def value_and_grad_in_place(self) -> Candidate:
        self.x = self.out
        return Candidate(self.value_and_grad(), self.problem.restore)

    def jvp(self) -> Call:
        def call() -> Array:
            place = self._place()
            return self._times_vector(self._softmax_into(place), place)

        return call

    vjp = jvp

    def vjp_from_output(self) -> Call:
        probs = self.problem.probs
        return lambda: self._times_vector(self._wide(probs), self._place())
