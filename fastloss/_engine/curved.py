"""A loss of rows of logits with a Hessian: what `loss.CurvedLoss` asks of one, from one run of a kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import arrays
from fastloss._engine.arrays import Array

# What a kernel writes beside the losses: the gradient; the Hessian times a tangent; the gradient and the
# Hessian's diagonal, in either order; or for each row its loss's derivative by 1/T.
NOTHING, GRAD, HVP, GRAD_HESS, HESS_GRAD, RATE = 0, 1, 2, 3, 4, 5


class Curved(ABC):
    """A loss bound to its arguments."""

    x: Array
    dtype: np.dtype[Any]
    row_dtype: np.dtype[Any]
    reduction: str
    temperature: float
    rates: Array  # by `_run` of RATE

    @abstractmethod
    def _run(
        self,
        wanted: int,
        out: Array | None = None,
        result: Array | None = None,
        *,
        tangent: Array | None = None,
        hess: Array | None = None,
        given: Array | None = None,
    ) -> Array | float:
        """The losses of the rows, or their sum. `result` is written, which `out` is if that is given, and
        `hess`, which `given` is.
        """

    @abstractmethod
    def reduce(self, losses: Array | float) -> Any:
        """What `_run` returns to the value asked for."""

    @abstractmethod
    def divisor(self) -> float:
        """What the derivatives are divided by; 0 where they are to be exactly 0."""

    def _order(self, _grad: Array, hess: Array) -> int:
        """GRAD_HESS or HESS_GRAD, since what lies on an argument is written last."""
        return GRAD_HESS if arrays.overlap(hess, self.x) else HESS_GRAD

    def value(self) -> Any:
        return self.reduce(self._run(NOTHING))

    def value_and_temperature_grad(self) -> tuple[Any, Any]:
        return self._value_and_rate(-1.0 / self.temperature / self.temperature)

    def value_and_scale_grad(self) -> tuple[Any, Any]:
        return self._value_and_rate(1.0)

    def _value_and_rate(self, factor: float) -> tuple[Any, Any]:
        """The value, and `factor` times its derivative by 1/T."""
        value = self.reduce(self._run(RATE))
        if self.rates.size and self.divisor() == 0.0:
            self.rates[:] = 0.0
            if self.reduction == "mean":
                return value, self.row_dtype.type(0.0)
        return value, self.reduce(factor * self.rates)

    def value_and_grad(self, out: Array | None) -> tuple[Any, Array]:
        grad = arrays.output(out, self.x.shape, self.dtype)
        return self.reduce(self._run(GRAD, out, grad)), grad

    def hvp(self, tangent: ArrayLike, out: Array | None) -> Array:
        t = arrays.real(tangent, "tangent")
        t = arrays.same_shape(t, self.x.shape, "tangent", "logits")
        product = arrays.output(out, self.x.shape, self.dtype)
        self._run(HVP, out, product, tangent=t)
        return product

    def value_grad_hess(
        self, out: tuple[Array | None, Array | None] | None
    ) -> tuple[Any, Array, Array]:
        mine = arrays.pair_of(out)
        grad = arrays.output(mine[0], self.x.shape, self.dtype, "out[0]")
        hess = arrays.output(mine[1], self.x.shape, self.dtype, "out[1]")
        if arrays.overlap(grad, hess):
            raise ValueError("out[0] and out[1] overlap; the two results need two arrays")
        losses = self._run(self._order(grad, hess), mine[0], grad, hess=hess, given=mine[1])
        return self.reduce(losses), grad, hess
