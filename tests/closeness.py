"""Excess error: how far a result may be from the truth is what the textbook formula, computed in the
same type, is off by, plus four roundings. Never a guessed tolerance. Half types are computed in float32,
the textbook formula too, and may be off by the rounding of what is stored besides.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_close(
    ours: Any, truth: Any, naive: Any, axis: int | None = None, what: str = "", terms: Any = None
) -> None:
    """Per row along `axis` (None: per element): |ours - truth| within the bound, and the same NaN and
    infinities.

    A product with a Jacobian is a difference, and how far rounded terms may be off does not shrink
    where they cancel. Short rows are right there all the same; for long ones `terms` is the size of the
    terms, which stands in for that of the truth.
    """
    ours, truth, naive = np.asarray(ours), np.asarray(truth), np.asarray(naive)
    assert ours.shape == truth.shape, (what, ours.shape, truth.shape)
    if ours.size == 0:
        return
    half = ours.dtype.itemsize == 2
    unit = np.finfo(np.float32 if half else ours.dtype)
    with np.errstate(over="ignore"):
        rounded = truth.astype(ours.dtype)
    if half:
        stored = ours.dtype
        ours, rounded = ours.astype(np.float32), rounded.astype(np.float32)
    special = ~np.isfinite(rounded)
    assert np.array_equal(ours[special], rounded[special], equal_nan=True), (
        f"{what}: NaN or infinities differ: {ours[special][:5]} against {rounded[special][:5]}"
    )
    assert np.isfinite(ours[~special]).all(), f"{what}: not finite where the truth is"
    wide = truth.astype(np.longdouble)
    zero = np.longdouble(0)
    excess = np.abs(np.where(special, zero, ours) - np.where(special, zero, wide))
    size = np.where(special, zero, np.abs(np.where(special, zero, wide)))
    if half:
        excess = np.maximum(excess - half_unit(size, stored), zero)
    if terms is not None:
        size = np.maximum(size, np.where(np.isfinite(terms), terms, zero))
    usable = ~special & np.isfinite(naive)
    allowed = np.abs(np.where(usable, naive, zero) - np.where(usable, wide, zero))
    if axis is not None and ours.ndim:
        excess, size, allowed = (a.max(axis=axis) for a in (excess, size, allowed))
    bound = allowed + 4 * np.longdouble(unit.eps) * size + np.longdouble(unit.tiny)
    worst = np.argmax(excess - bound)
    assert (excess <= bound).all(), (
        f"{what}: error {excess.flat[worst]:.3g} exceeds {bound.flat[worst]:.3g} "
        f"(naive {allowed.flat[worst]:.3g}, size {size.flat[worst]:.3g}) at {worst}"
    )


def half_unit(size: Any, stored: np.dtype[Any]) -> Any:
    """Half a unit of the last place of numbers of a size, stored in a half type."""
    lowest, digits = {"float16": (-14, 10), "bfloat16": (-126, 7)}[stored.name]
    exponent = np.maximum(np.frexp(size)[1] - 1, lowest)
    return np.ldexp(np.longdouble(0.5), exponent - digits)
