"""Rows of scores, their class-index targets and their weights, checked; and how losses of rows reduce."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss._engine import across, arrays, classes
from fastloss._engine.arrays import Array


class Targets:
    """Checked rows of logits or log-probabilities, their class-index targets and their weights."""

    def __init__(
        self,
        logits: ArrayLike,
        name: str,
        targets: ArrayLike,
        axis: int,
        weight: ArrayLike | None,
        sample_weight: ArrayLike | None,
        ignore_index: int,
        reduction: str,
    ) -> None:
        self.x = arrays.real(logits, name)
        self.axis = arrays.axis_of(axis, self.x.ndim, name)
        self.dtype = arrays.result_type(self.x)
        self.row_dtype = self.compute = arrays.upcast(self.dtype)
        self.shape = arrays.without(self.x.shape, (self.axis,))
        self.classes = self.x.shape[self.axis]
        self.reduction = arrays.reduction_of(reduction)
        self.weight = arrays.class_weights(weight, self.classes, self.row_dtype)
        self.sample_weight = arrays.sample_weights(sample_weight, self.shape, self.row_dtype)
        self.ignore_index = arrays.index_of(ignore_index, "ignore_index")
        given = arrays.class_indices(targets, self.x.shape, self.axis, name)
        # A private copy, -1 where a row is ignored, of int64 or int8; and how many rows are not.
        self.checked, self.counted = classes.targets(given, self.classes, self.ignore_index)
        if self.sample_weight is not None:
            self.sample_weight[self.checked < 0] = 0.0
        if self.reduction == "mean":
            self.weight, self.sample_weight = (
                None if w is None else arrays.lifted(w) for w in (self.weight, self.sample_weight)
            )

    @cached_property
    def targets(self) -> Array:
        """The class indices, -1 where a row is ignored."""
        return self.checked.astype(np.int64, copy=False)

    def row_weights(self) -> Array:
        """Each row's weight in the mean, sample weight times class weight; 0 where ignored."""
        share = (self.checked >= 0).astype(np.float64)
        if self.weight is not None:
            share *= np.where(self.targets < 0, 0.0, self.weight[self.targets])
        if self.sample_weight is not None:
            share *= self.sample_weight
        return share

    def reduce(self, losses: Array | float) -> Any:
        """Losses of the rows, class weights within, or their sum, to the value asked for."""
        if not isinstance(losses, float):
            if self.sample_weight is not None:
                losses *= self.sample_weight
            if self.reduction == "none":
                result = losses.astype(self.row_dtype).reshape(self.shape)
                return result if result.ndim else result[()]
            losses = across.summed(losses, self.classes * self.compute.itemsize)
        if self.reduction == "mean":
            # No row that counts, or none of any weight: 0/0, whatever the logits.
            denominator = self.denominator
            losses = losses / denominator if denominator != 0.0 else np.nan
        return self.row_dtype.type(losses)

    def divisor(self) -> float:
        """What the derivatives are divided by; 0 where they are to be exactly 0."""
        if self.reduction == "mean":
            return self.denominator
        if self.weight is None and self.sample_weight is None:
            return float(self.counted > 0)
        return float(self.row_weights().any())

    @cached_property
    def denominator(self) -> float:
        """What the mean divides by."""
        if self.weight is None and self.sample_weight is None:
            return float(self.counted)
        return float(self.row_weights().sum())
