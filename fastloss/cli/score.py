"""`fastloss score`: from files of logits and targets to perplexity, in bounded memory."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss as fl
from fastloss.cli import console
from fastloss.cli.errors import BadInputError
from fastloss.cli.keeper import Keeper
from fastloss.cli.npy import Rows

Array = NDArray[Any]

BLOCK = 16 << 20  # bytes of logits read at a time: little memory, and few launches of a kernel
BLOCK_ROWS = 1 << 16
PIECE = 1 << 16  # logits that NumPy goes over several times
FAR = -1e4  # below the largest by more than this, a logit's probability is 0 and stays so


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
    logits, targets = Rows(logits_path), Rows(targets_path, elements=True)
    _check(logits, targets)
    _check_temperature(temperature, logits)
    _check_out(out, logits, targets)
    _check_range(targets, logits.columns, ignore_index)
    rows = max(1, min(BLOCK // (logits.columns * _computed(logits).itemsize), BLOCK_ROWS))
    with console.status("preparing the kernels (compiled once a machine)"):
        _prepare(logits, rows, temperature)
    total = _Total(ranks)
    started = time.perf_counter()
    with (
        Keeper(out, _column_types(logits)) as keeper,
        console.progress("scoring", "rows", logits.count) as advance,
    ):
        for x, y in zip(_logits(logits, rows), targets.blocks(rows), strict=True):
            columns = row_columns(x, y[:, 0].astype(np.int64), ignore_index, temperature)
            total.add(columns, ignore_index)
            keeper.add(columns)
            advance(len(x))
        seconds = time.perf_counter() - started
    result = _result(total, logits, seconds)
    if as_json:
        print(json.dumps(_finite(result)))
    else:
        console.pairs(_lines(result))


# ---- all that can be wrong, before any row is scored ----------------------------------------
def _check(logits: Rows, targets: Rows) -> None:
    if logits.dtype.str[1:] == "V2" and logits.dtype.names is None:
        raise BadInputError(
            f"{logits.path} holds {logits.dtype}, as np.save writes bfloat16; save logits.astype(np.float32)"
        )
    if logits.dtype.kind != "f" or logits.dtype.itemsize not in (2, 4, 8):
        raise BadInputError(
            f"{logits.path} holds {logits.dtype}; logits are float16, float32 or float64"
        )
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


def _check_temperature(temperature: float, logits: Rows) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise BadInputError(f"--temperature must be finite and > 0, got {temperature}")
    limits = np.finfo(_computed(logits))
    if not limits.tiny <= temperature <= limits.max:
        raise BadInputError(f"--temperature {temperature} is out of the range of {limits.dtype.name}")


def _check_out(out: Path | None, logits: Rows, targets: Rows) -> None:
    if out is None:
        return
    try:
        if out.is_dir():
            raise BadInputError(f"--out {out} is a directory")
        if not out.parent.is_dir():
            raise BadInputError(f"--out {out}: there is no directory {out.parent}")
        if out.exists() and any(os.path.samefile(out, rows.path) for rows in (logits, targets)):
            raise BadInputError(f"--out {out} would replace what is to be scored")
    except OSError as error:
        raise BadInputError(f"--out {out}: {error.strerror or error}") from None


def _check_range(targets: Rows, classes: int, ignore_index: int) -> None:
    first = 0
    for block in targets.blocks(1 << 20):
        y = block[:, 0]
        wrong = (y != ignore_index) & ((y < 0) | (y >= classes))
        if wrong.any():
            k = int(wrong.argmax())
            raise BadInputError(
                f"{targets.path}: target {y[k]} of row {first + k} is out of range for {classes} classes"
            )
        first += len(y)


# ---- rows -----------------------------------------------------------------------------------
def _computed(logits: Rows) -> np.dtype[Any]:
    """What is computed in; differences of float16 logits have more digits than float16."""
    return np.dtype(np.float32) if logits.dtype.itemsize == 2 else logits.dtype.newbyteorder("=")


def _logits(logits: Rows, rows: int) -> Iterator[Array]:
    for x in logits.blocks(rows):
        yield x.astype(_computed(logits), copy=False)


def _column_types(logits: Rows) -> dict[str, np.dtype[Any]]:
    index, real = np.dtype(np.int64), _computed(logits)
    return {
        "target": index, "nll": real, "rank": index, "argmax": index,
        "max_prob": real, "entropy": real, "logsumexp": real,
    }


def _prepare(logits: Rows, rows: int, temperature: float) -> None:
    """Score a full block and one like the last: compiles and loads what the clock is not about."""
    for x in _logits(logits, min(rows, max(1, logits.count))):
        for n in {len(x), logits.count % rows} - {0}:
            row_columns(x[:n], np.zeros(n, np.int64), -1, temperature)
        break


def row_columns(x: Array, y: Array, ignore_index: int, temperature: float) -> dict[str, Array]:
    """The columns of each row; `x` is written to."""
    with np.errstate(all="ignore"):
        if temperature != 1.0:
            x /= x.dtype.type(temperature)
        counted = y != ignore_index
        nll = np.asarray(fl.cross_entropy(x, y, ignore_index=ignore_index, reduction="none"))
        ranks, top, largest = _places(x, np.where(counted, y, 0))
        ranks[np.isnan(nll)] = x.shape[1] - 1
        # x is now the logits less their largest: log s and -sum(p x) add up, both of one sign
        log_s = np.asarray(fl.logsumexp(x))
        return {
            "target": y,
            "nll": nll,
            "rank": np.where(counted, ranks, -1),
            "argmax": top,
            "max_prob": np.exp(-log_s),
            "entropy": log_s - np.asarray(fl.logsumexp.jvp(x, x)),
            "logsumexp": np.where(np.isinf(largest), largest, largest + log_s),
        }


def _places(x: Array, index: Array) -> tuple[Array, Array, Array]:
    """How many logits come before the one at `index`, ties by place; where the largest is, and it.

    Subtracts it from the row, in pieces that stay in a core's cache.
    """
    count, classes = x.shape
    ranks, top = np.empty(count, np.int64), np.empty(count, np.int64)
    largest = np.empty(count, x.dtype)
    places = np.arange(classes, dtype=np.int32)
    step = max(1, PIECE // classes)
    for k in range(0, count, step):
        piece, at = x[k : k + step], index[k : k + step, None].astype(np.int32)
        value = np.take_along_axis(piece, at, 1)
        before = piece == value
        before &= places < at
        before |= piece > value
        ranks[k : k + step] = np.count_nonzero(before, axis=1)
        top[k : k + step] = best = piece.argmax(axis=1)
        largest[k : k + step] = m = np.take_along_axis(piece, best[:, None], 1)[:, 0]
        piece -= m[:, None]
        np.maximum(piece, FAR, out=piece)
    return ranks, top, largest


# ---- totals ---------------------------------------------------------------------------------
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


def _result(total: _Total, logits: Rows, seconds: float) -> dict[str, Any]:
    nll = total.mean(total.nll)
    seconds = max(seconds, 1e-9)
    return {
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
        "gb_per_second": total.rows * logits.columns * logits.dtype.itemsize / seconds / 1e9,
    }


def _lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    number = console.number
    speed = f"{result['rows_per_second']:,.0f} rows/s, {result['gb_per_second']:.2f} GB/s"
    return [
        ("tokens", f"{result['tokens']:,} of {result['rows']:,} rows"),
        ("classes", f"{result['classes']:,}"),
        ("mean NLL", f"{number(result['mean_nll'])} nats"),
        ("perplexity", number(result["perplexity"])),
        ("bits per token", number(result["bits_per_token"])),
        *((f"top-{k} accuracy", f"{100 * share:.2f} %") for k, share in result["top_k"].items()),
        ("mean entropy", f"{number(result['mean_entropy'])} nats"),
        ("speed", speed),
    ]


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
