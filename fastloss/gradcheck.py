"""Numerical gradients, the check on analytic ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_gradient", "numerical_gradient"]


def numerical_gradient(
    f: Callable[[NDArray[np.floating[Any]]], Any],
    x: NDArray[np.floating[Any]],
    *,
    step: float | None = None,
    method: str = "central",
) -> NDArray[np.floating[Any]]:
    r"""Gradient of a scalar function by finite differences.

    .. math::

        \frac{\partial f}{\partial x_k} \approx \frac{f(x + h e_k) - f(x - h e_k)}{2h}
        \quad\text{or}\quad \frac{f(x + h e_k) - f(x)}{h}

    Parameters
    ----------
    f : callable
        Takes `x`, returns a number. It is called twice for each element of `x` (once and once more
        for "forward").
    x : ndarray of float, any shape
        Where; changed in place, element by element, and restored bit for bit, also when `f` raises.
    step : float, optional
        h for an element of magnitude up to 1; an element x_k takes ``h * max(1, |x_k|)``. Default:
        the cube root of the rounding unit for "central", its square root for "forward", where the
        rounding and the truncation error balance.
    method : {"central", "forward"}, default "central"
        The error is O(h**2) or O(h).

    Returns
    -------
    ndarray, shape and dtype of `x`

    Raises
    ------
    TypeError
        `x` is not a float32 or float64 ndarray, or `f` does not return a number. Half types are refused:
        their numbers lie too far apart for differences to say anything (use ``x.astype(np.float64)``).
    ValueError
        `x` is read-only, `step` is not finite and > 0, or `method` is unknown.

    Notes
    -----
    Scratch: the result. One call of `f` per element and side: for small x.

    References
    ----------
    W. H. Press et al., "Numerical Recipes", 3rd ed., 2007, section 5.7.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> fl.numerical_gradient(fl.logsumexp, x).round(4)  # the softmax
    array([0.09  , 0.2447, 0.6652])
    """
    _check_point(x)
    if method not in ("central", "forward"):
        raise ValueError(f"method must be 'central' or 'forward', got {method!r}")
    unit = float(np.finfo(x.dtype).eps)
    if step is None:
        step = unit ** (1 / 3 if method == "central" else 1 / 2)
    if not (np.isfinite(step) and step > 0):
        raise ValueError(f"step must be finite and > 0, got {step!r}")
    grad = np.empty_like(x)
    base = _number(f(x)) if method == "forward" else 0.0
    for k in np.ndindex(x.shape):
        with _restored(x, k) as old:
            h = step * max(1.0, abs(float(old)))
            x[k] = old + h
            above, right = float(x[k]), _number(f(x))
            below, left = float(old), base
            if method == "central":
                x[k] = old - h
                below, left = float(x[k]), _number(f(x))
            grad[k] = (right - left) / (above - below)
    return grad


def check_gradient(
    f: Callable[[NDArray[np.floating[Any]]], Any],
    grad: NDArray[np.floating[Any]] | Callable[[NDArray[np.floating[Any]]], Any],
    x: NDArray[np.floating[Any]],
) -> float:
    r"""Worst relative error of a gradient against central differences.

    .. math:: \max_k \frac{|a_k - n_k|}{\max(|a_k|, |n_k|, 10^{-8} \max_j |n_j|)}

    Parameters
    ----------
    f : callable
        Takes `x`, returns a number.
    grad : ndarray or callable
        The analytic gradient a, or a function of `x` that returns it.
    x : ndarray of float, any shape
        Where; restored bit for bit, also when `f` raises.

    Returns
    -------
    float
        Below about 1e-6 in float64 for a right gradient; 0 where both are 0; NaN where either is
        not a number.

    Raises
    ------
    TypeError, ValueError
        As `numerical_gradient`; `ValueError` too where the gradient has not the shape of `x`.

    Notes
    -----
    n is `numerical_gradient(f, x)`. Scratch: some arrays of the size of `x`.

    References
    ----------
    W. H. Press et al., "Numerical Recipes", 3rd ed., 2007, section 5.7.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> x = np.array([[1.0, 2.0, 3.0]])
    >>> f = lambda x: fl.cross_entropy(x, [2])
    >>> fl.check_gradient(f, fl.cross_entropy.grad(x, [2]), x) < 1e-6
    True
    """
    _check_point(x)
    analytic = np.asarray(grad(x) if callable(grad) else grad, dtype=np.float64)
    if analytic.shape != x.shape:
        raise ValueError(f"grad has shape {analytic.shape}, expected {x.shape}, the shape of x")
    numeric = numerical_gradient(f, x).astype(np.float64)
    if not x.size:
        return 0.0
    size = np.maximum(np.abs(analytic), np.abs(numeric))
    size = np.maximum(size, 1e-8 * np.abs(numeric).max())
    error = np.abs(analytic - numeric)
    return float(np.divide(error, size, out=error.copy(), where=size != 0).max())


def _check_point(x: Any) -> None:
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        mend = ", use x.astype(np.float64)" if isinstance(x, np.ndarray) else ""
        raise TypeError(f"x must be a float32 or float64 ndarray, which is changed, got {kind}{mend}")
    if not x.flags.writeable:
        raise ValueError("x is read-only; pass a writeable copy")


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"f must return a number, got {type(value).__name__}") from None


@contextmanager
def _restored(x: NDArray[Any], k: tuple[int, ...]) -> Iterator[Any]:
    old = x[k]
    try:
        yield old
    finally:
        x[k] = old
