"""Rows of a .npy file, read block by block into one buffer: nothing stays mapped or cached here."""

from __future__ import annotations

import math
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastloss.cli.errors import BadInputError

STRIPE = 64 << 20  # bytes of rows gathered at a time from a file in Fortran order


class Rows:
    """The header of a .npy file, and its rows along the last axis (or its elements, one a row)."""

    def __init__(self, path: Path, *, elements: bool = False) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.shape, self.columns_first, self.dtype = _header(file)
                self._start = file.tell()
                size = file.seek(0, 2)
        except OSError as error:
            raise BadInputError(f"{path}: {error.strerror or error}") from None
        except (ValueError, SyntaxError, tokenize.TokenError, RecursionError) as error:
            raise BadInputError(f"{path} is not a .npy file: {error}") from None
        if self.dtype.hasobject:
            raise BadInputError(f"{path} holds Python objects, not numbers")
        expected = self._start + math.prod(self.shape) * self.dtype.itemsize
        if size < expected:
            raise BadInputError(f"{path} is truncated: {size} bytes, its header promises {expected}")
        if self.columns_first and len(self.shape) > 2 - elements:
            raise BadInputError(
                f"{path} is in Fortran order, with {len(self.shape)} dimensions; "
                "save np.ascontiguousarray of it"
            )
        self.columns = 1 if elements else self.shape[-1] if self.shape else 1
        self.count = math.prod(self.shape if elements else self.shape[:-1])

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """(n, columns) native arrays of at most `rows` rows, each good until the next is asked for."""
        by_column = self.columns_first and self.columns > 1
        gathered = rows
        if by_column:
            gathered *= max(1, STRIPE // (rows * self.columns * self.dtype.itemsize))
        buffer = np.empty((min(gathered, self.count), self.columns), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            for first in range(0, self.count, gathered):
                held = buffer[: self.count - first]
                if by_column:
                    self._read_columns(file, first, held)
                else:
                    file.seek(self._start + first * self.columns * self.dtype.itemsize)
                    self._fill(file, held)
                if not self.dtype.isnative:
                    held = held.byteswap(inplace=True).view(self.dtype.newbyteorder("="))
                for k in range(0, len(held), rows):
                    yield held[k : k + rows]

    def _read_columns(self, file: BinaryIO, first: int, block: NDArray[Any]) -> None:
        column = np.empty(len(block), self.dtype)
        for j in range(self.columns):
            file.seek(self._start + (j * self.count + first) * self.dtype.itemsize)
            self._fill(file, column)
            block[:, j] = column

    def _fill(self, file: BinaryIO, block: NDArray[Any]) -> None:
        left = block.reshape(-1).view(np.uint8).data
        while len(left):
            try:
                got = file.readinto(left)  # type: ignore[attr-defined]
            except OSError as error:
                raise BadInputError(f"{self.path}: {error.strerror or error}") from None
            if not got:
                raise BadInputError(f"{self.path} shrank while it was read")
            left = left[got:]


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype; leaves the file where the data begin."""
    if file.read(2) == b"PK":
        raise ValueError("it is an archive (.npz); save the array in it by np.save")
    file.seek(0)
    version = npy_format.read_magic(file)
    read = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"its format version is {version[0]}.{version[1]}, not 1.0 or 2.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote it is no matter
        shape, columns_first, dtype = read[version](file)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, columns_first, dtype
