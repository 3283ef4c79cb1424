"""The per-row columns of `fastloss score --out`, on their way to an .npz file."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastloss.cli.errors import BadInputError


class Keeper:
    """Columns kept in files of their own until all rows are there: memory stays bounded, and what
    `path` held is replaced whole or not at all. Without a path it keeps nothing.
    """

    def __init__(self, path: Path | None, columns: dict[str, np.dtype[Any]]) -> None:
        self.path = path
        self._columns = columns
        self._files: dict[str, FileIO] = {}
        self._rows = 0
        self._open = ExitStack()

    def __enter__(self) -> Keeper:
        if self.path is not None:
            with self._failing(), ExitStack() as stack:
                folder = tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".fastloss-")
                self._folder = Path(stack.enter_context(folder))
                for name in self._columns:
                    file = (self._folder / name).open("w+b", buffering=0)
                    self._files[name] = stack.enter_context(file)
                self._open = stack.pop_all()
        return self

    def add(self, columns: dict[str, NDArray[Any]]) -> None:
        with self._failing():
            for name, file in self._files.items():
                left = columns[name].astype(self._columns[name], order="C").data.cast("B")
                while len(left):
                    left = left[file.write(left) :]
        self._rows += len(columns["target"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if self.path is not None and kind is None:
                with self._failing():
                    self._write(self.path)

    def _write(self, path: Path) -> None:
        whole = self._folder / "whole.npz"
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, file in self._files.items():
                header = {
                    "descr": npy_format.dtype_to_descr(self._columns[name]),
                    "fortran_order": False,
                    "shape": (self._rows,),
                }
                file.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    npy_format.write_array_header_1_0(entry, header)
                    while piece := file.read(1 << 20):
                        entry.write(piece)
        os.replace(whole, path)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInputError(f"--out {self.path}: {error.strerror or error}") from None
