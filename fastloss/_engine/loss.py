"""The operation object: what a family's door becomes.

A door is a plain function with the public signature and docstring. Its body checks its arguments and
returns them bound, as an object that can compute (one of the `Bound...` protocols). The operation
made from it is called like the door, computes the value, and offers the derivatives as methods that
take the same arguments:

    @Loss
    def huber_loss(predictions, targets, *, delta=1.0, ...) -> BoundLoss: ...

    huber_loss(p, t)                  # the value
    huber_loss.value_and_grad(p, t)   # value and gradient

An operation passes for the function it documents: `help`, `inspect.signature`, `pickle` and
`typing` see the door.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

import numpy as np

from fastloss._engine.arrays import Array

# A NumPy scalar where nothing is left to index, an array otherwise.
Result: TypeAlias = Array | np.floating[Any]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


# ---- what a door returns: checked arguments that can compute --------------------------------
class BoundValue(Protocol[R_co]):
    def value(self) -> R_co: ...


class BoundMap(BoundValue[R_co], Protocol):
    def jvp(self, tangent: Any, out: Array | None) -> R_co: ...
    def vjp(self, cotangent: Any, out: Array | None) -> Array: ...


class BoundPullback(BoundValue[R_co], Protocol):
    def vjp(self, cotangent: Any, out: Any) -> Any: ...


class BoundRowMap(BoundMap[R_co], Protocol):
    def jvp_from_output(self, tangent: Any, out: Array | None) -> Array: ...
    def vjp_from_output(self, cotangent: Any, out: Array | None) -> Array: ...
    def jacobian(self) -> Array: ...


class BoundLoss(BoundValue[R_co], Protocol):
    def value_and_grad(self, out: Array | None) -> tuple[R_co, Array]: ...


class BoundElementLoss(BoundLoss[R_co], Protocol):
    def value_grad_hess(
        self, out: tuple[Array | None, Array | None] | None
    ) -> tuple[R_co, Array, Array]: ...


class BoundCurvedLoss(BoundElementLoss[R_co], Protocol):
    def hvp(self, tangent: Any, out: Array | None) -> Array: ...
    def value_and_temperature_grad(self) -> tuple[R_co, R_co]: ...


class BoundScaledLoss(BoundLoss[R_co], Protocol):
    def value_and_scale_grad(self) -> tuple[R_co, R_co]: ...


# ---- methods --------------------------------------------------------------------------------
class Method(Generic[R]):
    """A method of an operation: the operation's own arguments, `out=`, and perhaps a vector."""

    def __init__(
        self,
        operation: Operation[Any, Any],
        name: str,
        doc: str,
        compute: Callable[..., R],
        *,
        vector: tuple[int, str] | None = None,
        first: str | None = None,
        out: bool = True,
    ) -> None:
        self._operation, self._compute, self._vector, self._out = operation, compute, vector, out
        self.__name__ = name
        self.__qualname__ = f"{operation.__name__}.{name}"
        self.__module__ = operation.__module__
        self.__doc__ = doc.format(name=operation.__name__)
        own = inspect.signature(operation)
        parameters = [p for p in own.parameters.values() if p.name != "out"]
        self._renamed = None
        if first is not None:
            self._renamed = (first, parameters[0].name)
            parameters[0] = parameters[0].replace(name=first)
        if vector is not None:
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.insert(vector[0], inspect.Parameter(vector[1], kind, annotation="ArrayLike"))
        if out:
            parameters.append(
                inspect.Parameter(
                    "out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Array | None"
                )
            )
        self.__signature__ = inspect.Signature(parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        vector: tuple[Any, ...] = ()
        if self._renamed is not None:
            mine, doors = self._renamed
            if doors in kwargs:
                raise TypeError(f"{self.__qualname__}() takes {mine!r}, an output, not {doors!r}")
            if mine in kwargs:
                kwargs[doors] = kwargs.pop(mine)
        if self._vector is not None:
            at, name = self._vector
            if len(args) > at:
                vector, args = (args[at],), args[:at] + args[at + 1 :]
            elif name in kwargs:
                vector = (kwargs.pop(name),)
            else:
                raise TypeError(f"{self.__qualname__}() missing required argument: {name!r}")
        if self._out:
            vector += (kwargs.pop("out", None),)
        elif "out" in kwargs:
            raise TypeError(f"{self.__qualname__}() takes no argument 'out'")
        with np.errstate(all="ignore"):  # infinities and NaN are answers here
            return self._compute(self._operation._door(*args, **kwargs), *vector)

    def __get__(self, instance: object, owner: type | None = None) -> Method[R]:
        return self  # like a built-in function: makes `help` show the signature

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._operation, self.__name__)

    def __repr__(self) -> str:
        return f"<fastloss method {self.__qualname__}>"


# ---- operations -----------------------------------------------------------------------------
class Operation(Generic[P, R]):
    """A public operation: callable, with its door's name, signature and docstring."""

    def __init__(self, door: Callable[P, BoundValue[R]]) -> None:
        self._door: Callable[P, Any] = door
        self.__wrapped__ = door
        self.__name__ = door.__name__
        self.__qualname__ = door.__qualname__
        self.__module__ = door.__module__
        self.__doc__ = door.__doc__
        # "BoundLoss[Result]" -> "Result"
        returns = door.__annotations__["return"].partition("[")[2].removesuffix("]")
        self.__annotations__ = {**door.__annotations__, "return": returns}
        self.__signature__ = inspect.signature(door).replace(return_annotation=returns)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        value: R = self._door(*args, **kwargs).value()
        return value

    def __get__(self, instance: object, owner: type | None = None) -> Operation[P, R]:
        return self  # like a built-in function: makes `help` show the signature

    def __reduce__(self) -> str:
        return self.__name__

    def __repr__(self) -> str:
        return f"<fastloss operation {self.__name__}>"


class Map(Operation[P, R]):
    """An operation whose derivatives are Jacobian-vector products."""

    def __init__(self, door: Callable[P, BoundMap[R]]) -> None:
        super().__init__(door)
        self.jvp: Method[R] = Method(
            self,
            "jvp",
            """J @ tangent, J the Jacobian of {name}, which is never formed.

            Takes the arguments of `{name}`; `tangent` has the shape of the first, the result (and
            `out`) that of `{name}`.
            """,
            lambda bound, tangent, out: bound.jvp(tangent, out),
            vector=(1, "tangent"),
        )
        self.vjp: Method[Array] = Method(
            self,
            "vjp",
            """J.T @ cotangent, J the Jacobian of {name}, which is never formed.

            Takes the arguments of `{name}`; `cotangent` has the shape of its result, what is
            returned (and `out`) that of the first argument.
            """,
            lambda bound, cotangent, out: bound.vjp(cotangent, out),
            vector=(1, "cotangent"),
        )


class Pullback(Operation[P, R]):
    """An operation of one array whose derivative is a product with its Jacobian's transpose."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):  # infinities and NaN are answers here
            return super().__call__(*args, **kwargs)

    def __init__(self, door: Callable[P, BoundPullback[R]]) -> None:
        super().__init__(door)
        self.vjp: Method[Array] = Method(
            self,
            "vjp",
            """J.T @ cotangent, J the Jacobian of {name}, which is never formed.

            Takes the arguments of `{name}`; `cotangent` has the shape of its result, what is
            returned (and `out`, which may be the first argument itself) that of the first argument.
            """,
            lambda bound, cotangent, out: bound.vjp(cotangent, out),
            vector=(1, "cotangent"),
        )


class PairPullback(Operation[P, R]):
    """An operation of two arrays, with products with both transposed Jacobians."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):
            return super().__call__(*args, **kwargs)

    def __init__(self, door: Callable[P, BoundPullback[R]]) -> None:
        super().__init__(door)
        self.vjp: Method[tuple[Array, Array]] = Method(
            self,
            "vjp",
            """The gradients of <{name}, cotangent> with respect to the first and the second argument.

            Takes the arguments of `{name}`; `cotangent` has the shape of its result. `out` is a pair:
            where to write the gradients, which may be the arguments themselves; either may be None.
            """,
            lambda bound, cotangent, out: bound.vjp(cotangent, out),
            vector=(2, "cotangent"),
        )


class RowMap(Map[P, Array]):
    """A map of rows whose derivatives can also be had from its output."""

    def __init__(self, door: Callable[P, BoundRowMap[Array]]) -> None:
        super().__init__(door)
        self.jvp_from_output: Method[Array] = Method(
            self,
            "jvp_from_output",
            """J @ tangent from an output `y` of `{name}` already at hand.""",
            lambda bound, tangent, out: bound.jvp_from_output(tangent, out),
            vector=(1, "tangent"),
            first="y",
        )
        self.vjp_from_output: Method[Array] = Method(
            self,
            "vjp_from_output",
            """J.T @ cotangent from an output `y` of `{name}` already at hand.""",
            lambda bound, cotangent, out: bound.vjp_from_output(cotangent, out),
            vector=(1, "cotangent"),
            first="y",
        )
        self.jacobian: Method[Array] = Method(
            self,
            "jacobian",
            """The dense Jacobian of {name}: [..., i, j] = d y_i / d x_j, the class axis moved last.

            For small V and for teaching: a row of V classes gives V * V numbers.
            """,
            lambda bound: bound.jacobian(),
            out=False,
        )


class Loss(Operation[P, R]):
    """An operation that reduces to a loss and has a gradient with respect to its first argument."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):  # infinities and NaN are answers here
            return super().__call__(*args, **kwargs)

    def __init__(self, door: Callable[P, BoundLoss[R]]) -> None:
        super().__init__(door)
        self.value_and_grad: Method[tuple[R, Array]] = Method(
            self,
            "value_and_grad",
            """(value, gradient with respect to the first argument) of {name}.

            The gradient is that of the reduced value, with `reduction="none"` that of the sum. It
            is written to `out`, which may be the first argument itself, and which is undefined if the
            call is interrupted (Ctrl-C).
            """,
            lambda bound, out: bound.value_and_grad(out),
        )
        self.grad: Method[Array] = Method(
            self,
            "grad",
            """The gradient of {name} with respect to its first argument; see `value_and_grad`.""",
            lambda bound, out: bound.value_and_grad(out)[1],
        )


class ElementLoss(Loss[P, R]):
    """A loss with the diagonal of its Hessian."""

    def __init__(self, door: Callable[P, BoundElementLoss[R]]) -> None:
        super().__init__(door)
        self.value_grad_hess: Method[tuple[R, Array, Array]] = Method(
            self,
            "value_grad_hess",
            """(value, gradient, diagonal of the Hessian) of {name}, the last two scaled alike.

            `out` is a pair: where to write the gradient, and the diagonal; either may be None.
            """,
            lambda bound, out: bound.value_grad_hess(out),
        )


class CurvedLoss(ElementLoss[P, R]):
    """A loss of rows, with products with its Hessian."""

    def __init__(self, door: Callable[P, BoundCurvedLoss[R]]) -> None:
        super().__init__(door)
        self.hvp: Method[Array] = Method(
            self,
            "hvp",
            """H @ tangent, H the Hessian of {name} with respect to its first argument.

            H is that of the reduced value, with `reduction="none"` that of the sum.
            """,
            lambda bound, tangent, out: bound.hvp(tangent, out),
            vector=(2, "tangent"),
        )
        self.temperature_grad: Method[tuple[R, R]] = Method(
            self,
            "temperature_grad",
            """(value, its derivative with respect to the temperature) of {name}, in one read of the logits.

            Both are reduced alike: with `reduction="none"` one of each a row.
            """,
            lambda bound: bound.value_and_temperature_grad(),
            out=False,
        )


class ScaledLoss(Loss[P, R]):
    """A loss of rows that a trainable scale multiplies."""

    def __init__(self, door: Callable[P, BoundScaledLoss[R]]) -> None:
        super().__init__(door)
        self.scale_grad: Method[tuple[R, R]] = Method(
            self,
            "scale_grad",
            """(value, its derivative with respect to the scale) of {name}, in one read of the scores.

            Both are reduced alike: with `reduction="none"` one of each a row.
            """,
            lambda bound: bound.value_and_scale_grad(),
            out=False,
        )
