"""`fastloss score`: from files of logits and targets to perplexity, in bounded memory."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

import fastloss as fl
from fastloss.cli.console import progress
from fastloss.cli.errors import BadInputError
from fastloss.cli.npy import Rows

Array = NDArray[Any]

BLOCK = 32 << 20  # bytes of logits read at a time
COLUMNS = ("target", "nll", "rank", "argmax", "max_prob", "entropy", "logsumexp")


def run_score(
    logits_path: Path,
    targets_path: Path,
    *,
    out: Path | None,
    ignore_index: int,
    ranks: tuple[int, ...],
    temperature: float,
    as_json: bool,
) -> None:
    """Print the scores; write the per-row columns to `out`."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise BadInputError(f"--temperature must be finite and > 0, got {temperature}")
    logits, targets = Rows(logits_path), Rows(targets_path, elements=True)
    _check(logits, targets, ignore_index)
    total = _Total(ranks)
    rows = max(1, BLOCK // (logits.columns * logits.dtype.itemsize))
    for x in logits.blocks(min(rows, max(1, logits.count))):  # compiles what the clock is not about
        row_columns(x, np.zeros(len(x), np.int64), ignore_index, temperature)
        break
    started = time.perf_counter()
    with _Keeper(out) as keeper, progress("scoring", logits.count) as advance:
        for x, y in zip(logits.blocks(rows), targets.blocks(rows), strict=True):
            columns = row_columns(x, y[:, 0].astype(np.int64), ignore_index, temperature)
            total.add(columns, ignore_index)
            keeper.add(columns)
            advance(len(x))
    seconds = time.perf_counter() - started
    size = logits.count * logits.columns * logits.dtype.itemsize
    _report(total, logits, seconds, size, as_json)


def _check(logits: Rows, targets: Rows, ignore_index: int) -> None:
    """All that can be wrong with the two files, before any row is scored."""
    if logits.dtype.kind != "f" or logits.dtype.itemsize not in (4, 8):
        raise BadInputError(f"{logits.path} holds {logits.dtype}; expected float32 or float64 logits")
    if len(logits.shape) < 2:
        raise BadInputError(f"{logits.path} has shape {logits.shape}; expected rows of logits, (N, V)")
    if logits.columns == 0:
        raise BadInputError(f"{logits.path} has shape {logits.shape}: no classes")
    if targets.dtype.kind not in "iu":
        raise BadInputError(f"{targets.path} holds {targets.dtype}; targets are integer class indices")
    if targets.shape != logits.shape[:-1]:
        raise BadInputError(
            f"{targets.path} has shape {targets.shape}, but the logits {logits.shape} have rows of "
            f"shape {logits.shape[:-1]}"
        )
    if targets.columns_first and len(targets.shape) > 1:
        raise BadInputError(f"{targets.path} is in Fortran order; save np.ascontiguousarray of it")
    first = 0
    for block in targets.blocks(1 << 20):
        y = block[:, 0]
        wrong = (y != ignore_index) & ((y < 0) | (y >= logits.columns))
        if wrong.any():
            k = int(wrong.argmax())
            raise BadInputError(
                f"{targets.path}: target {y[k]} of row {first + k} is out of range for "
                f"{logits.columns} classes"
            )
        first += len(y)


def row_columns(x: Array, y: Array, ignore_index: int, temperature: float) -> dict[str, Array]:
    """COLUMNS of each row; `x` may be written to."""
    if temperature != 1.0:
        x /= x.dtype.type(temperature)
    counted = y != ignore_index
    index = np.where(counted, y, 0)
    lse = np.asarray(fl.logsumexp(x))
    nll = np.asarray(fl.cross_entropy(x, y, ignore_index=ignore_index, reduction="none"))
    # sum(p x): where x is -inf, p is 0 and any finite number does
    finite = x if np.isfinite(x.min(axis=1)).all() else np.maximum(x, np.finfo(x.dtype).min)
    entropy = lse - np.asarray(fl.logsumexp.jvp(x, finite))
    top = x.argmax(axis=1)
    at_target = x[np.arange(len(x)), index]
    return {
        "target": y,
        "nll": nll,
        "rank": np.where(counted, _ranks(x, at_target, index, nll), -1),
        "argmax": top,
        "max_prob": np.exp(x[np.arange(len(x)), top] - lse),
        "entropy": entropy,
        "logsumexp": lse,
    }


def _ranks(x: Array, at_target: Array, index: Array, nll: Array) -> Array:
    """How many logits come before the target's, ties by index; the last place in a row of NaN."""
    ranks = np.empty(len(x), np.int64)
    for i, (row, value) in enumerate(zip(x, at_target, strict=True)):
        ranks[i] = np.count_nonzero(row > value)
        ranks[i] += np.count_nonzero(row[: index[i]] == value)
    return np.where(np.isnan(nll), x.shape[1] - 1, ranks)


class _Total:
    """Sums over the rows that count."""

    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.tokens = self.rows = 0
        self.nll = self.entropy = 0.0
        self.hits = dict.fromkeys(ranks, 0)

    def add(self, columns: dict[str, Array], ignore_index: int) -> None:
        counted = columns["target"] != ignore_index
        self.rows += len(counted)
        self.tokens += int(np.count_nonzero(counted))
        self.nll += float(columns["nll"].sum(dtype=np.float64))
        self.entropy += float(columns["entropy"][counted].sum(dtype=np.float64))
        for k in self.hits:
            self.hits[k] += int(np.count_nonzero(counted & (columns["rank"] < k)))

    def mean(self, number: float) -> float:
        return number / self.tokens if self.tokens else math.nan


def _report(total: _Total, logits: Rows, seconds: float, size: int, as_json: bool) -> None:
    nll = total.mean(total.nll)
    result: dict[str, Any] = {
        "rows": total.rows,
        "classes": logits.columns,
        "tokens": total.tokens,
        "mean_nll": nll,
        "perplexity": perplexity(nll),
        "bits_per_token": nll / math.log(2),
        "top_k": {str(k): total.mean(n) for k, n in total.hits.items()},
        "mean_entropy": total.mean(total.entropy),
        "seconds": seconds,
        "rows_per_second": total.rows / seconds,
        "gb_per_second": size / seconds / 1e9,
    }
    if as_json:
        print(json.dumps(_finite(result)))
        return
    lines = [
        ("tokens", f"{total.tokens:,} of {total.rows:,} rows, {logits.columns:,} classes"),
        ("mean NLL", f"{nll:.6f} nats"),
        ("perplexity", f"{result['perplexity']:.4f}"),
        ("bits per token", f"{result['bits_per_token']:.6f}"),
        *((f"top-{k} accuracy", f"{100 * total.mean(n):.2f} %") for k, n in total.hits.items()),
        ("mean entropy", f"{result['mean_entropy']:.6f} nats"),
        ("speed", f"{result['rows_per_second']:,.0f} rows/s, {result['gb_per_second']:.2f} GB/s"),
    ]
    for name, value in lines:
        print(f"{name:<15}{value}")


def perplexity(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Keeper:
    """Columns on their way to an .npz, in files of their own until all rows are there: memory stays
    bounded, and what `path` held is replaced whole or not at all.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._rows = 0
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def __enter__(self) -> _Keeper:
        if self.path is not None:
            try:
                self._folder = tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".fastloss-")
            except OSError as error:
                raise BadInputError(f"--out {self.path}: {error.strerror or error}") from None
            home = Path(self._folder.name)
            self._files = {name: (home / name).open("w+b") for name in COLUMNS}
        return self

    def add(self, columns: dict[str, Array]) -> None:
        self._rows += len(columns["target"])
        if self.path is not None:
            for name in COLUMNS:
                self._dtypes[name] = columns[name].dtype
                self._files[name].write(np.ascontiguousarray(columns[name]).data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        try:
            if kind is None:
                self._write(self.path)
        finally:
            for file in self._files.values():
                file.close()
            self._folder.cleanup()

    def _write(self, path: Path) -> None:
        whole = Path(self._folder.name) / "whole.npz"
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, file in self._files.items():
                header = {
                    "descr": npy_format.dtype_to_descr(self._dtypes.get(name, np.dtype(np.float64))),
                    "fortran_order": False,
                    "shape": (self._rows,),
                }
                file.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    npy_format.write_array_header_1_0(entry, header)
                    while piece := file.read(1 << 20):
                        entry.write(piece)
        try:
            os.replace(whole, path)
        except OSError as error:
            raise BadInputError(f"--out {path}: {error.strerror or error}") from None
