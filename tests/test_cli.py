"""The real command on real files: numbers, bad input, memory, terminals, pipes and signals."""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastloss as fl
from fastloss import reference
from fastloss.cli.errors import BadInputError
from fastloss.cli.npy import Rows

FASTLOSS = [sys.executable, "-m", "fastloss"]
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's numbers")
posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX signals, pipes and terminals")


def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FASTLOSS, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False,
        **options,
    )


def score(*arguments: Any, **options: Any) -> dict[str, Any]:
    done = run("score", *arguments, "--json", **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Files:
    """Logits and targets in a directory, and what the command must say of them."""

    def __init__(self, folder: Path) -> None:
        self.logits, self.targets, self.out = (
            folder / name for name in ("logits.npy", "targets.npy", "rows.npz")
        )

    def save(self, logits: Any, targets: Any) -> Files:
        np.save(self.logits, logits)
        np.save(self.targets, targets)
        return self

    def __iter__(self) -> Any:
        return iter((self.logits, self.targets))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def columns_of(logits: Any, targets: Any, ignore: int = -100, temperature: float = 1.0) -> dict[str, Any]:
    """The columns of --out, by the reference and by sorting."""
    x = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1])
    y = np.asarray(targets).astype(np.int64).reshape(-1)
    p = reference.softmax(x, temperature=temperature)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(p == 0, 0, p * np.log(p)).sum(axis=1)
    order = np.argsort(-x, axis=1, kind="stable")
    counted = y != ignore
    return {
        "target": y,
        "nll": reference.cross_entropy(
            x, y, ignore_index=ignore, reduction="none", temperature=temperature
        ),
        "rank": np.where(counted, (order == y[:, None]).argmax(axis=1), -1),
        "argmax": order[:, 0],
        "max_prob": p.max(axis=1),
        "entropy": entropy,
        "logsumexp": reference.logsumexp(x / temperature),
    }


def totals_of(
    columns: dict[str, Any], ignore: int = -100, ranks: tuple[int, ...] = (1, 5)
) -> dict[str, Any]:
    counted = columns["target"] != ignore
    nll = columns["nll"][counted].mean()
    return {
        "rows": len(counted),
        "tokens": counted.sum(),
        "mean_nll": nll,
        "perplexity": math.exp(nll),
        "bits_per_token": nll / math.log(2),
        "top_k": {str(k): (columns["rank"][counted] < k).mean() for k in ranks},
        "mean_entropy": columns["entropy"][counted].mean(),
    }


def assert_scored(found: dict[str, Any], wanted: dict[str, Any], dtype: Any) -> None:
    rel = 1e-6 if np.dtype(dtype).itemsize <= 4 else 1e-13
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=rel), name


def sample(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> tuple[Any, Any]:
    logits = (4 * rng.standard_normal(shape)).astype(dtype)
    return logits, rng.integers(0, shape[-1], shape[:-1])


# ---- numbers --------------------------------------------------------------------------------
@pytest.mark.parametrize("layout", [
    "<f4", "<f8", ">f4", ">f8", "<f2", ">f2", "fortran", "3-D", "narrow", "one row"
])
def test_scores_what_the_reference_scores(layout: str, files: Files, rng: np.random.Generator) -> None:
    shape = {"3-D": (3, 7, 50), "narrow": (70_000, 3), "one row": (1, 9)}.get(layout, (60, 300))
    dtype = layout if layout[0] in "<>" else "<f4"
    logits, targets = sample(rng, shape, dtype)
    targets[(targets == 2) | (targets == 7)] = -100
    targets.flat[0] = 0
    saved = np.asfortranarray(logits) if layout == "fortran" else logits
    found = score(*files.save(saved, targets))
    assert found["classes"] == shape[-1]
    assert_scored(found, totals_of(columns_of(logits, targets)), dtype)


@pytest.mark.parametrize("fortran", [False, True])
def test_scores_a_file_of_many_blocks(fortran: bool, files: Files, rng: np.random.Generator) -> None:
    logits, targets = sample(rng, (5003, 8192))  # 164 MB: a last block of its own length
    saved = np.asfortranarray(logits) if fortran else logits
    found = score(*files.save(saved, targets.astype(np.uint16)), "--out", files.out)
    nll = fl.cross_entropy(logits, targets, reduction="none")
    assert found["mean_nll"] == nll.mean(dtype=np.float64)
    with np.load(files.out) as kept:
        assert np.array_equal(kept["nll"], nll)
        assert np.array_equal(kept["target"], targets)
        assert np.array_equal(kept["argmax"], logits.argmax(axis=1))
        at_target = logits[np.arange(len(targets)), targets][:, None]
        before = np.arange(logits.shape[1]) < targets[:, None]
        ranks = np.count_nonzero((logits > at_target) | (logits == at_target) & before, axis=1)
        assert np.array_equal(kept["rank"], ranks)


def test_options(files: Files, rng: np.random.Generator) -> None:
    logits, targets = sample(rng, (200, 40))
    found = score(
        *files.save(logits, targets.astype(np.int8)), "--ignore-index", 3, "--top-k", "10,1,2",
        "--temperature", 2.5,
    )
    columns = columns_of(logits, targets, 3, 2.5)
    assert_scored(found, totals_of(columns, 3, (1, 2, 10)), np.float32)
    assert list(found["top_k"]) == ["1", "2", "10"]
    assert found["tokens"] == np.count_nonzero(targets != 3) < 200


def test_prints_what_json_holds(files: Files, rng: np.random.Generator) -> None:
    logits, targets = sample(rng, (1234, 100))
    targets[5] = -100
    found = score(*files.save(logits, targets), "--top-k", "1,100")
    done = run("score", *files, "--top-k", "1,100")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert len({len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines}) == 1, "one column"
    said = {name: value.split()[0] for name, value in (line.split("  ", 1) for line in lines)}
    assert said["tokens"] == "1,233"
    assert "1,234 rows" in lines[0]
    for name, key in (
        ("mean NLL", "mean_nll"), ("perplexity", "perplexity"), ("mean entropy", "mean_entropy"),
        ("bits per token", "bits_per_token"),
    ):
        assert float(said[name]) == pytest.approx(found[key], rel=1e-5)
    assert float(said["top-1 accuracy"]) == pytest.approx(100 * found["top_k"]["1"], abs=0.005)
    assert said["top-100 accuracy"] == "100.00"
    assert found["rows_per_second"] == pytest.approx(found["rows"] / found["seconds"])
    assert found["gb_per_second"] == pytest.approx(logits.nbytes / found["seconds"] / 1e9)


@pytest.mark.parametrize("kind", ["f4", "f8", ">f4", "f2"])
def test_out_holds_the_columns(kind: str, files: Files, rng: np.random.Generator) -> None:
    logits, targets = sample(rng, (90, 64), kind)
    logits[10] *= 30  # a sure row: the entropy is small, and not below 0
    logits[11, 5:40] = -np.inf
    logits[12, 3:9] = logits[12].max() + 1  # ties
    targets[11:14] = 20, 5, -100
    files.out.write_bytes(b"old")
    score(*files.save(logits, targets), "--out", files.out)
    native = np.dtype(np.float64 if kind == "f8" else np.float32)
    with np.load(files.out) as kept:
        wanted = columns_of(logits, targets)
        assert set(kept) == set(wanted)
        for name, column in wanted.items():
            assert kept[name].dtype == (column.dtype if column.dtype.kind == "i" else native), name
            if column.dtype.kind == "i":
                np.testing.assert_array_equal(kept[name], column, err_msg=name)
            else:
                rtol, atol = (1e-5, 1e-6) if native.itemsize == 4 else (1e-13, 1e-14)
                np.testing.assert_allclose(kept[name], column, rtol, atol, err_msg=name)
        assert kept["nll"][11] == np.inf
        assert kept["nll"][13] == 0
        assert (kept["entropy"] >= 0).all()
    assert sorted(p.name for p in files.out.parent.iterdir()) == ["logits.npy", "rows.npz", "targets.npy"]


def test_what_is_not_finite(files: Files, rng: np.random.Generator) -> None:
    logits, targets = sample(rng, (8, 30))
    logits[0], logits[1, 3], logits[2, 4], logits[3, :] = 2.0, np.nan, np.inf, -np.inf
    logits[4, 7] = 3e38
    logits[5] = -3e38
    targets[:] = 6
    found = score(*files.save(logits, targets), "--out", files.out)
    assert found["mean_nll"] is found["perplexity"] is found["bits_per_token"] is None
    assert found["mean_entropy"] is None
    assert found["tokens"] == 8
    with np.load(files.out) as kept:
        assert np.isnan(kept["nll"][1:4]).all()
        assert np.isnan(kept["entropy"][1:4]).all()
        assert (kept["rank"][1:4] == 29).all()
        np.testing.assert_array_equal(kept["logsumexp"][1:4], [np.nan, np.inf, -np.inf])
        assert kept["argmax"][2] == 4
        assert np.isfinite(np.delete(kept["entropy"], [1, 2, 3])).all()
        assert kept["entropy"][[0, 5]] == pytest.approx(math.log(30), rel=1e-6)
        assert kept["entropy"][4] == 0
    text = run("score", *files)
    assert text.returncode == 0
    assert text.stderr == ""
    assert "nan nats" in text.stdout
    assert score(*files, "--ignore-index", 6)["mean_nll"] is None  # none counts


def test_probability_zero_is_an_infinite_perplexity(files: Files) -> None:
    logits = np.array([[0.0, -np.inf], [1.0, 1.0]], np.float32)
    found = score(*files.save(logits, [1, 0]))
    assert found["perplexity"] is None
    assert found["mean_entropy"] == pytest.approx(math.log(2) / 2)
    assert found["top_k"] == {"1": 0.5, "5": 1.0}
    assert "inf nats" in run("score", *files).stdout


def test_ignored_rows_may_hold_anything(files: Files, rng: np.random.Generator) -> None:
    logits, targets = sample(rng, (20, 30))
    wanted = totals_of(columns_of(logits[3:], targets[3:])) | {"rows": 20}
    logits[:3] = np.array([np.nan, np.inf, -np.inf])[:, None]
    targets[:3] = -100
    assert_scored(score(*files.save(logits, targets)), wanted, np.float32)


@pytest.mark.parametrize("fortran", [False, True])
def test_no_rows(fortran: bool, files: Files) -> None:
    empty = np.empty((0, 5), np.float32, "F" if fortran else "C")
    found = score(*files.save(empty, np.empty(0, int)), "--out", files.out)
    assert (found["rows"], found["tokens"], found["mean_nll"]) == (0, 0, None)
    with np.load(files.out) as kept:
        assert {name: kept[name].shape for name in kept} == dict.fromkeys(kept, (0,))
        assert kept["nll"].dtype == np.float32
    assert "0 of 0 rows" in run("score", *files).stdout


def test_format_version_2_and_spaces_in_names(tmp_path: Path, rng: np.random.Generator) -> None:
    files = Files(tmp_path / "a folder")
    files.logits.parent.mkdir()
    logits, targets = sample(rng, (11, 12))
    for path, array in zip(files, (logits, targets), strict=True):
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version=(2, 0))
    assert_scored(score(*files), totals_of(columns_of(logits, targets)), np.float32)


def test_a_file_written_by_python_2(files: Files, rng: np.random.Generator) -> None:
    logits, targets = sample(rng, (11, 12))
    files.save(logits, targets)
    old = files.logits.read_bytes().replace(b"(11, 12), } ", b"(11L, 12L),}")
    assert b"11L" in old
    files.logits.write_bytes(old)
    assert_scored(score(*files), totals_of(columns_of(logits, targets)), np.float32)


# ---- bad input ------------------------------------------------------------------------------
def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("fastloss")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("\n")
    for word in words:
        assert word in done.stderr, done.stderr


GOOD = np.zeros((6, 4), np.float32)
INDEX = np.zeros(6, np.int64)
BIG = np.zeros((5000, 1000), np.float32)  # more than a block


def in_last_block(value: int, dtype: Any = np.int64) -> Any:
    targets = np.zeros(len(BIG), dtype)
    targets[-2] = value
    return targets


BAD_ARRAYS: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "bfloat16": (GOOD.astype(ml_dtypes.bfloat16), INDEX, ("logits.npy", "bfloat16", "astype(np.float32)")),
    "longdouble": (GOOD.astype(np.longdouble), INDEX, ("logits.npy", str(np.dtype(np.longdouble)))),
    "integers": (GOOD.astype(int), INDEX, ("logits.npy", "int64")),
    "complex": (GOOD.astype(complex), INDEX, ("logits.npy", "complex128")),
    "structured": (np.zeros(6, [("a", "f4"), ("b", "f4")]), INDEX, ("logits.npy",)),
    "strings": (np.array([["a"]]), INDEX, ("logits.npy",)),
    "objects": (np.array([[None]]), INDEX, ("logits.npy", "Python objects")),
    "object targets": (GOOD, np.array([None] * 6), ("targets.npy", "Python objects")),
    "float targets": (GOOD, INDEX.astype(float), ("targets.npy", "float64")),
    "bool targets": (GOOD, INDEX.astype(bool), ("targets.npy", "bool")),
    "mismatched rows": (GOOD, INDEX[:5], ("targets.npy", "(5,)", "(6, 4)")),
    "a column of targets": (GOOD, INDEX[:, None], ("targets.npy", "(6, 1)")),
    "one-hot": (GOOD, GOOD.astype(int), ("targets.npy", "(6, 4)")),
    "no classes": (GOOD[:, :0], INDEX, ("logits.npy", "no classes")),
    "1-D logits": (GOOD[0], np.int64(0), ("logits.npy", "(4,)")),
    "0-d logits": (GOOD[0, 0], np.int64(0), ("logits.npy", "()")),
    "3-D Fortran": (np.zeros((2, 3, 4), np.float32, "F"), INDEX.reshape(2, 3), ("ascontiguousarray",)),
    "2-D Fortran targets": (
        GOOD.reshape(2, 3, 4), np.asfortranarray(INDEX.reshape(2, 3)),
        ("targets.npy", "ascontiguousarray"),
    ),
    "too large": (BIG, in_last_block(1000), ("targets.npy", "1000", "row 4998")),
    "negative": (BIG, in_last_block(-1), ("targets.npy", "-1", "row 4998")),
    "uint64": (BIG, in_last_block(2**64 - 1, np.uint64), ("targets.npy", str(2**64 - 1), "row 4998")),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(name: str, files: Files) -> None:
    logits, targets, words = BAD_ARRAYS[name]
    assert_one_line(run("score", *files.save(logits, targets), "--out", files.out), *words)
    assert not files.out.exists()


def broken_files(whole: bytes) -> dict[str, tuple[bytes | None, str]]:
    return {
        "missing": (None, "No such file"),
        "empty": (b"", "not a .npy file"),
        "garbage": (b"garbage" * 50, "not a .npy file"),
        "text": (b"0.5 0.5\n", "not a .npy file"),
        "archive": (b"PK\x03\x04" + bytes(100), ".npz"),
        "no header": (whole[:20], "not a .npy file"),
        "truncated": (whole[:-1], "truncated"),
        "version 9": (whole[:6] + b"\x09" + whole[7:], "9.0"),
        "a huge header": (b"\x93NUMPY\x02\x00\x00\x00\x01\x00" + b" " * 65536, "not a .npy file"),
        "a negative shape": (whole.replace(b"(6, 4)", b"(-6,4)"), "not a .npy file"),
        "a header that does not parse": (whole.replace(b"(6, 4)", b"(6, 4 "), "not a .npy file"),
    }


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", broken_files(b""))
def test_broken_files(name: str, which: int, files: Files) -> None:
    files.save(GOOD, GOOD.astype(int))
    path = [*files][which]
    content, word = broken_files(path.read_bytes())[name]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    files.out.write_bytes(b"old")
    assert_one_line(run("score", *files, "--out", files.out), path.name, word)
    assert files.out.read_bytes() == b"old"
    assert not [*path.parent.glob(".*")]


def test_any_header_is_read_or_refused(files: Files, rng: np.random.Generator) -> None:
    files.save(np.zeros((6, 4), np.float32), INDEX)
    whole = bytearray(files.logits.read_bytes())
    for _ in range(2000):
        bent = whole.copy()
        for at in rng.integers(0, 80, rng.integers(1, 4)):
            bent[at] = rng.choice(bytearray(b"\x00\xff()[]{},'\": \\\n-0L9#f<>|OU")) if at > 9 else at
        files.logits.write_bytes(bent)
        try:
            rows = Rows(files.logits)
            for _ in rows.blocks(2) if rows.dtype == np.float32 and rows.columns else ():
                pass
        except BadInputError:
            pass


@pytest.mark.parametrize(
    "options",
    [
        "--temperature 0", "--temperature nan", "--temperature -1", "--temperature inf",
        "--temperature 1e-60", "--temperature warm", "--top-k 0", "--top-k abc", "--top-k 1,,2",
        "--top-k 1.5", "--ignore-index x", "--ignore-index 9223372036854775808", "--unknown",
        "--out", "another.npy",
    ],
)
def test_bad_options(options: str, files: Files) -> None:
    files.save(GOOD, INDEX)
    assert_one_line(run("score", *files, *options.split()), options.split()[0])


def test_bad_places_to_write(files: Files) -> None:
    folder = files.save(GOOD, INDEX).logits.parent
    before = files.logits.read_bytes()
    for out, word in (
        (folder, "directory"), (folder / "none" / "rows.npz", "no directory"),
        (files.logits, "would replace"), (folder / ("n" * 300), "too long"),
        (files.targets / "rows.npz", "--out"),
    ):
        assert_one_line(run("score", *files, "--out", out), "--out", word)
    assert files.logits.read_bytes() == before
    assert_one_line(run("demo", "--keep", files.logits), "--keep")


@posix_only
@pytest.mark.parametrize("limit", [100_000, 500_000])  # within a column, within the archive of them
def test_a_disk_that_fills(limit: int, files: Files) -> None:
    import resource

    files.save(np.zeros((30_000, 2), np.float32), np.zeros(30_000, int))
    files.out.write_bytes(b"old")
    score(*files)  # caches the kernels, which the limit would forbid
    done = run(
        "score", *files, "--out", files.out,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert_one_line(done, "--out", "too large")
    assert files.out.read_bytes() == b"old"
    assert len([*files.out.parent.iterdir()]) == 3


def test_an_odd_file_name_is_one_line(files: Files) -> None:
    assert_one_line(run("score", "no such\nfile.npy", "t.npy"), "no such file.npy")
    assert_one_line(run("score", *files, "--un\nknown"))


@pytest.mark.parametrize(
    "arguments",
    [
        "", "scor", "--unknown", "demo --positions 0", "demo --positions x", "info extra", "score",
        "score one.npy", "bench --slow", "bench one",
    ],
)
def test_bad_commands(arguments: str) -> None:
    assert_one_line(run(*arguments.split()), "--help")


def test_help_and_version() -> None:
    assert run("--version").stdout == f"fastloss {fl.__version__}\n"
    words = {"": "score", "score": "--out", "demo": "--keep", "bench": "--quick", "info": "--json"}
    for command, word in words.items():
        done = run(*command.split(), "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert word in done.stdout


# ---- memory ---------------------------------------------------------------------------------
# What a process had before exec counts in its ru_maxrss: a small one starts the command.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def sparse(path: Path, rows: int, classes: int, order: bool = False) -> Path:
    """Zeros that take no place on the disk."""
    np.lib.format.open_memmap(path, "w+", np.float32, (rows, classes), order)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no sparse files")
    return path


def peak_megabytes(*arguments: Any) -> float:
    command = [sys.executable, "-c", PEAK, *FASTLOSS, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return int(done.stdout) / 1024


@linux_only
@pytest.mark.parametrize(("rows", "classes"), [(12_000, 32_768), (8_000_000, 2)])
def test_memory_is_bounded(rows: int, classes: int, tmp_path: Path, record_property: Any) -> None:
    peaks = {}
    for n in (1, rows):
        logits = sparse(tmp_path / f"{n}.npy", n, classes)
        np.save(tmp_path / "y.npy", np.zeros(n, np.uint8))
        peaks[n] = peak_megabytes("score", logits, tmp_path / "y.npy", "--out", tmp_path / "rows.npz")
    print(f"{rows} x {classes}: {peaks[rows]:.0f} MB, a row {peaks[1]:.0f} MB")
    record_property("megabytes", peaks)
    assert peaks[rows] - peaks[1] < 300


# ---- demo -----------------------------------------------------------------------------------
def test_demo_and_the_command_it_prints(tmp_path: Path) -> None:
    folder = tmp_path / "what it keeps"
    done = run("demo", "--positions", 64, "--keep", folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(line == line.rstrip() and len(line) < 80 for line in lines[:-1])
    assert sorted(p.name for p in folder.iterdir()) == ["logits.npy", "targets.npy"]
    words = [line.split() for line in lines]
    bigram, unigram = (next(w for w in words if w[:1] == [name]) for name in ("bigram", "unigram"))
    assert float(bigram[1]) < float(unigram[1]) < 32768
    for method in ("fastloss", "plain NumPy", "float64 reference"):
        row = next(line for line in lines if line.startswith(method))
        found = [float(word) for word in row[len(method) :].split()[:2]]
        assert found == pytest.approx([float(bigram[1]), float(unigram[1])], rel=2e-5)
        assert float(row.split()[-1]) < 1e-4

    command = shlex.split(lines[-1])
    assert command[:2] == ["fastloss", "score"]
    again = run(*command[1:])
    assert f"perplexity      {bigram[1]}\n" in again.stdout
    assert f"top-1 accuracy  {bigram[3]} %\n" in again.stdout
    logits, targets = (np.load(folder / name) for name in ("logits.npy", "targets.npy"))
    assert logits.shape == (64, 32768)
    nll = reference.cross_entropy(logits, targets, reduction="mean")
    assert float(bigram[1]) == pytest.approx(math.exp(nll), rel=1e-5)
    assert reference.logsumexp(logits).min() > 1, "unnormalised"


def in_terminal(*arguments: Any, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and all that the command writes to a terminal."""
    import pty

    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | (environment or {})
    env.pop("NO_COLOR", None)
    command = [*FASTLOSS, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 1 << 16):
            said += piece
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    return process.wait(60), said.decode().replace("\r\n", "\n")


def without_rich(folder: Path) -> dict[str, str]:
    broken = folder / "broken"
    (broken / "rich").mkdir(parents=True)
    (broken / "rich" / "__init__.py").write_text("raise ImportError('no rich here')\n")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(broken), os.environ.get("PYTHONPATH")]))}


@posix_only
def test_demo_in_a_terminal_without_rich(tmp_path: Path) -> None:
    status, said = in_terminal("demo", "--positions", 16, environment=without_rich(tmp_path))
    assert status == 0
    assert "\x1b" not in said
    assert "What the model knows" in said
    assert "float64 reference" in said
    assert "Traceback" not in said


@posix_only
def test_progress_shows_on_a_terminal_only(files: Files, tmp_path: Path) -> None:
    pytest.importorskip("rich")
    files.save(np.zeros((3000, 10_000), np.float32), np.zeros(3000, int))
    status, said = in_terminal("score", *files)
    assert status == 0
    assert "scoring" in said
    assert "3,000 rows" in said
    status, plain = in_terminal("score", *files, environment=without_rich(tmp_path))
    assert status == 0
    assert plain.startswith("tokens")
    assert "\x1b" not in plain
    assert run("score", *files).stderr == ""


# ---- info -----------------------------------------------------------------------------------
def test_info(tmp_path: Path) -> None:
    env = os.environ | {"FASTLOSS_CACHE_DIR": str(tmp_path / "kernels")}
    done = run("info", "--json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["fastloss"] == fl.__version__
    assert found["numpy"] == np.__version__
    assert found["threads"] >= 1
    assert found["vector_bits"] in (128, 256, 512)
    assert Path(found["cache"]).parent == tmp_path / "kernels"
    assert found["cache_bytes"] == 0
    assert (found["cache_state"], found["fork"]) == ("in use", False)
    assert found["threads_from"]
    assert found["threading_layer_started"] is False
    text = run("info", env=env)
    assert (text.returncode, text.stderr) == (0, "")
    for value in (found["numba"], found["python"], found["cache"], found["cpu"]):
        assert value in text.stdout
    assert all(line == line.rstrip() for line in text.stdout.splitlines())
    env["FASTLOSS_CACHE"] = "0"
    assert json.loads(run("info", "--json", env=env).stdout)["cache"] is None
    assert run("info", env=env).stdout.splitlines()[-1].split(None, 1) == ["cache", "off, FASTLOSS_CACHE=0"]


def test_warmup(tmp_path: Path) -> None:
    env = os.environ | {"FASTLOSS_CACHE_DIR": str(tmp_path / "kernels")}
    done = run("warmup", "sigmoid", "--dtypes", "float64", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"\d+ compilations in \d+\.\d s, kept in {tmp_path}.*\n", done.stdout)
    again = run("warmup", "sigmoid", "--dtypes", "float64", "--json", env=env)
    found = json.loads(again.stdout)
    assert found["compiled"] == 0
    assert found["cache"]["bytes"] > 0
    assert found["cache"]["path"].startswith(str(tmp_path))
    for wrong in (["softmix"], ["--dtypes", "float33"], ["--dtypes", ""], ["softmax", "--dtypes", "U3"]):
        bad = run("warmup", *wrong, env=env)
        assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1), bad.stderr
        assert bad.stderr.startswith("fastloss warmup: ")


# ---- bench ----------------------------------------------------------------------------------
def without(folder: Path, *libraries: str) -> dict[str, str]:
    """An environment in which these seem not to be installed."""
    (folder / "sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        f"u.find_spec = lambda name, *a: None if name in {libraries} else found(name, *a)\n"
    )
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path}


def test_bench_prints_a_table(tmp_path: Path) -> None:
    done = run("bench", "--quick", env=without(tmp_path, "torch", "jax"))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert {"machine", "versions", "llama3_vocab", "fastloss", "NumPy", "floor: copy"} <= set(lines)
    assert not {"PyTorch", "JAX"} & set(lines)
    assert re.search(r"^93 x 128,256 float32, 48 MB: milliseconds$", done.stdout, flags=re.M)
    assert len(re.findall(r"\d \([\d.]+x\)", lines["NumPy"])) == 5
    assert all(float(ms) > 0 for ms in lines["fastloss"].split()[1:])


def test_bench_as_json(tmp_path: Path) -> None:
    done = run("bench", "--quick", "--json", env=without(tmp_path, "torch", "jax"))
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1), done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["threads"] >= 1
    assert found["versions"]["fastloss"] == fl.__version__
    assert [race["operation"] for race in found["races"]] == [
        "softmax", "softmax_out", "logsumexp", "cross_entropy", "value_and_grad",
    ]
    for race in found["races"]:
        assert (race["dtype"], race["workload"]["classes"], race["left_out"]) == ("float32", 128256, {})
        assert {"arithmetic", "fastloss", "numpy"} <= set(race["seconds"])
        assert {"fastloss / arithmetic", "numpy / fastloss"} <= set(race["ratios"])
        assert not {"torch", "jax"} & set(race["seconds"])
        assert all(value > 0 for value in [*race["seconds"].values(), *race["ratios"].values()])


def test_bench_leaves_a_broken_library_out(tmp_path: Path) -> None:
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise RuntimeError('half installed')\n")
    done = run("bench", "--quick", env=without(tmp_path, "torch"))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.count("JAX left out: RuntimeError: half installed\n") == 1
    assert not re.search(r"^JAX +\d", done.stdout, flags=re.M)


def test_info_launches_and_compiles_nothing() -> None:
    code = """
import os, sys, threading
def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
import numba, fastloss.runtime
before = tasks()
fastloss.show_config("dicts")
assert tasks() == before and threading.active_count() == 1
assert "fastloss.softmax" not in sys.modules
try:
    numba.threading_layer()
except ValueError:
    print("not initialised")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("not initialised\n", "")


# ---- signals and pipes ----------------------------------------------------------------------
@posix_only
def test_ctrl_c(tmp_path: Path) -> None:
    logits = sparse(tmp_path / "x.npy", 300_000, 32_768)
    np.save(tmp_path / "y.npy", np.zeros(300_000, int))
    out = tmp_path / "rows.npz"
    out.write_bytes(b"old")
    command = [*FASTLOSS, "score", logits, tmp_path / "y.npy", "--out", out]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background job is deaf
    )
    deadline = time.monotonic() + 200
    while not [*tmp_path.glob(".fastloss-*/nll")] and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)
    assert (process.returncode, *said) == (130, "", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.npz", "x.npy", "y.npy"]
    assert out.read_bytes() == b"old"


@posix_only
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["score", "info", "--help", "--version", "score --help"])
def test_a_reader_that_has_gone(command: str, unbuffered: str, files: Files) -> None:
    files.save(GOOD, INDEX)
    ours, theirs = os.pipe()
    os.close(ours)
    arguments = [*FASTLOSS, *command.split(), *map(str, files if command == "score" else ())]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(arguments, stdout=theirs, stderr=subprocess.PIPE, env=env, timeout=300)
    os.close(theirs)
    assert done.stderr == b""
    passes_over = "OSError" in inspect.getsource(argparse.ArgumentParser._print_message)  # newer ones
    assert done.returncode == (0 if "--" in command and unbuffered and passes_over else 141)


@linux_only
def test_output_that_is_full_or_closed(files: Files) -> None:
    files.save(GOOD, INDEX)
    command = shlex.join([*FASTLOSS, "score", *map(str, files)])

    def shell(redirections: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(command + redirections, shell=True, capture_output=True, timeout=300)
        return done.returncode, done.stdout, done.stderr

    full = b"fastloss: standard output: No space left on device\n"
    assert shell(" > /dev/full") == (1, b"", full)
    assert shell(" >&-") == (0, b"", b"")
    assert shell(" >&- 2>&-") == (0, b"", b"")
    assert shell(" 2>&-")[::2] == (0, b"")
    assert shell(".none 2>&-") == (2, b"", b"")
