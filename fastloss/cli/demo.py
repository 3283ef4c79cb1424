"""`fastloss demo`: score a language model of real text, and set the result beside plain NumPy."""

from __future__ import annotations

import math
import shlex
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss as fl
from fastloss import reference
from fastloss.cli import console
from fastloss.cli.corpus import VOCABULARY, Bigram, Corpus, read_corpus
from fastloss.cli.errors import BadInputError
from fastloss.cli.score import perplexity

Array = NDArray[Any]

REFERENCE_ROWS = 64  # rows the reference takes at a time: about 16 MB an array, a dozen of them


def by_fastloss(logits: Array, targets: Array) -> Array:
    return np.asarray(fl.cross_entropy(logits, targets, reduction="none"))


def by_numpy(logits: Array, targets: Array) -> Array:
    """What one writes without a library."""
    m = logits.max(axis=1, keepdims=True)
    lse = m[:, 0] + np.log(np.exp(logits - m).sum(axis=1))
    losses: Array = lse - logits[np.arange(len(logits)), targets]
    return losses


def by_reference(logits: Array, targets: Array) -> Array:
    pieces = range(0, len(logits), REFERENCE_ROWS)
    return np.concatenate(
        [
            reference.cross_entropy(
                logits[k : k + REFERENCE_ROWS], targets[k : k + REFERENCE_ROWS], reduction="none"
            )
            for k in pieces
        ]
    )


# method -> how often it is run: enough for a median where it is quick
METHODS: dict[str, tuple[Callable[[Array, Array], Array], int]] = {
    "fastloss": (by_fastloss, 9),
    "plain NumPy": (by_numpy, 3),
    "float64 reference": (by_reference, 1),
}


def run_demo(*, positions: int, keep: Path | None) -> None:
    """Fit, score, compare, print; keep the arrays in `keep`."""
    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"--keep {keep}: {error.strerror or error}") from None
    with console.status("reading the standard library's source files"):
        corpus = read_corpus()
    available = len(corpus.held_out) - 1
    if positions > available:
        raise BadInputError(f"--positions {positions}: the held-out files have {available}")
    with console.status("counting bigrams"):
        model = Bigram(corpus.train)
    at = np.linspace(0, available - 1, positions).astype(np.int64)
    targets = corpus.held_out[at + 1]
    with console.status("building the logits"):
        logits = model.logits(corpus.held_out[at])
    with console.status("preparing the kernel (compiled once a machine)"):
        by_fastloss(logits, targets)

    losses, times = _race(logits, targets)
    unigram = np.broadcast_to(model.unigram, logits.shape)
    with console.status("scoring the unigram"):
        baseline = {name: method(unigram, targets) for name, (method, _) in METHODS.items()}
    _report_model(corpus, model.unigram, logits, targets, losses, baseline)
    _report_methods(logits, losses, baseline, times)
    if keep is not None:
        _keep(keep, logits, targets)


def _race(logits: Array, targets: Array) -> tuple[dict[str, Array], dict[str, float]]:
    """The losses by each method, and its median time; the methods take turns."""
    taken: dict[str, list[float]] = {name: [] for name in METHODS}
    losses = {}
    rounds = max(runs for _, runs in METHODS.values())
    with console.progress("racing", "rounds", rounds) as advance:
        for k in range(rounds):
            for name, (method, runs) in METHODS.items():
                if k < runs:
                    started = time.perf_counter()
                    losses[name] = method(logits, targets)
                    taken[name].append(time.perf_counter() - started)
            advance(1)
    return losses, {name: statistics.median(each) for name, each in taken.items()}


def _mean(losses: Array) -> float:
    return float(losses.mean(dtype=np.float64))


def _report_model(
    corpus: Corpus,
    unigram: Array,
    logits: Array,
    targets: Array,
    losses: dict[str, Array],
    baseline: dict[str, Array],
) -> None:
    console.pairs(
        [
            ("text", f"{corpus.files:,} source files of the standard library, by tokenize"),
            ("trained on", f"{len(corpus.train):,} tokens of {corpus.types:,} types"),
            ("scored", f"{len(targets):,} held-out positions, vocabulary {VOCABULARY:,}"),
            ("logits", f"{logits.nbytes / 1e6:.0f} MB of float32, not normalised"),
        ]
    )
    top = {"bigram": logits.argmax(axis=1), "unigram": unigram.argmax()}
    body = []
    for name, found in (("bigram", losses), ("unigram", baseline)):
        nll = _mean(found["fastloss"])
        hits = 100 * float(np.mean(top[name] == targets))
        numbers = console.number(perplexity(nll)), console.number(nll / math.log(2))
        body.append([name, *numbers, f"{hits:.2f} %"])
    columns = ["model", "perplexity", "bits per token", "top-1 accuracy"]
    console.table("What the model knows", columns, body)


def _report_methods(
    logits: Array, losses: dict[str, Array], baseline: dict[str, Array], times: dict[str, float]
) -> None:
    truth = losses["float64 reference"]
    body = []
    for name in METHODS:
        different = np.abs(losses[name] - truth).max()
        body.append(
            [
                name,
                console.number(perplexity(_mean(losses[name]))),
                console.number(perplexity(_mean(baseline[name]))),
                f"{times[name] * 1e3:,.1f} ms",
                f"{logits.nbytes / times[name] / 1e9:.2f}",
                f"{times['plain NumPy'] / times[name]:.3g}x",
                f"{different:.1e}" if different else "0",
            ]
        )
    console.table(
        f"Cross-entropy of {logits.shape[0]:,} x {logits.shape[1]:,} float32 logits",
        ["perplexity by", "bigram", "unigram", "time", "GB/s", "speed-up", "max diff"],
        body,
        "time: median for the bigram's logits, the methods taking turns\n"
        "max diff: the largest difference of one loss from the reference's, in nats",
    )


def _keep(folder: Path, logits: Array, targets: Array) -> None:
    paths = folder / "logits.npy", folder / "targets.npy"
    try:
        for path, array in zip(paths, (logits, targets), strict=True):
            np.save(path, array)
    except OSError as error:
        raise BadInputError(f"--keep {folder}: {error.strerror or error}") from None
    print(f"\nkept; score them with:\n  fastloss score {shlex.join(map(str, paths))}")
