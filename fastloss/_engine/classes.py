"""Many class indices of few classes: looked at, and copied to a byte each, in one pass by all threads."""

from __future__ import annotations

import numpy as np

from fastloss._engine import arrays, blocks, launch
from fastloss._engine.arrays import Array
from fastloss._engine.jit import leaf
from fastloss._engine.kernels import kernel
from fastloss._engine.vector import LANES, classes_of, part, prefetch, view, wide

MANY = 1 << 16  # indices from which NumPy's passes over them would be felt
MOST = 1 << 7  # classes that a signed byte tells apart
TASK = 1 << 15  # indices; a sum of as many counts fits into 32 bits
AHEAD = 4096  # indices between a loop and its prefetch
OUTSIDE, IGNORED = 0, 1  # of what each worker counts


@leaf
def narrowed(given: Array, own: Array, classes: int, ignored: int, counts: Array) -> None:
    """own = the classes given, -1 for `ignored`; counts += (others that are none, those)."""
    wide()
    both, many = np.int64(0), own.size // LANES * LANES
    for k in range(0, many, LANES):
        prefetch(given, k + AHEAD)
        both += classes_of(part(given, k), part(own, k), classes, ignored)
    counts[OUTSIDE] += both >> 32
    counts[IGNORED] += both & 0xFFFFFFFF
    for k in range(many, own.size):
        y = np.int64(given[k])
        away = y == ignored
        own[k] = np.int8(-1) if away else np.int8(y)
        counts[IGNORED] += np.int64(away)
        counts[OUTSIDE] += np.int64((not away) & (np.uint64(y) >= np.uint64(classes)))


@kernel
def narrow_classes(
    w: int, workers: int, first: int, last: int, n: int, size: int, given: int, own: int, classes: int,
    ignored: int, counts: Array,
) -> None:
    """`narrowed` of n indices at an address, of `size` bytes each, TASK of them at a time."""
    for task in blocks.share(w, workers, first, last):
        j = task * TASK
        count = min(TASK, n - j)
        to = view(own + j, count, np.int8(0))
        if size == 4:
            narrowed(view(given + 4 * j, count, np.int32(0)), to, classes, ignored, counts[w])
        else:
            narrowed(view(given + 8 * j, count, np.int64(0)), to, classes, ignored, counts[w])


def targets(given: Array, classes: int, ignored: int) -> tuple[Array, int]:
    """What `arrays.class_targets` returns, the copy in bytes where indices are many, and classes few."""
    n, dtype = given.size, given.dtype
    if (
        (n >= MANY or launch.is_listing()) and classes <= MOST and abs(ignored) < 1 << 62
        and dtype.kind == "i" and dtype.itemsize >= 4 and dtype.isnative
        and given.flags.c_contiguous and given.flags.aligned
    ):
        tasks = -(-n // TASK)
        workers = launch.workers(n, tasks)
        own, counts = np.empty(n, np.int8), np.zeros((workers, blocks.LINES), np.int64)
        if launch.is_listing():  # nothing will write them
            own[...] = 0
        launch.run(
            narrow_classes, workers, "q", tasks, TASK,
            (n, dtype.itemsize, arrays.address(given), arrays.address(own), classes, ignored, counts),
        )
        outside, absent = counts.sum(axis=0)[:2].tolist()
        if not outside:
            return own, n - absent
    return arrays.class_targets(given, classes, ignored)
