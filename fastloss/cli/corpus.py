"""A bigram model of the Python standard library's own source files: real text on every machine."""

from __future__ import annotations

import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.cli.errors import BadInputError

Array = NDArray[Any]

VOCABULARY = 32_768
HELD_OUT = 20  # one file in so many is held out
PRIOR = 5.0  # how many unigram-shaped counts smooth each bigram row
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True)
class Corpus:
    """Token ids of the training and the held-out files; 0 is any token not in the vocabulary."""

    files: int
    types: int
    train: Array
    held_out: Array


def read_corpus() -> Corpus:
    """Tokenise the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    texts = [
        tokens
        for path in sorted(root.rglob("*.py"))
        if not _SKIPPED & set(path.relative_to(root).parts)
        if (tokens := list(_tokens(path)))
    ]
    if len(texts) < 2 * HELD_OUT:
        raise BadInputError(f"{root} holds {len(texts)} source files; too few to learn from")
    train = [t for k, text in enumerate(texts) if k % HELD_OUT for t in text]
    held_out = [t for text in texts[::HELD_OUT] for t in text]
    counts = Counter(train)
    ids = {token: k for k, (token, _) in enumerate(counts.most_common(VOCABULARY - 1), start=1)}
    return Corpus(
        files=len(texts),
        types=len(counts),
        train=np.array([ids.get(t, 0) for t in train]),
        held_out=np.array([ids.get(t, 0) for t in held_out]),
    )


def _tokens(path: Path) -> Iterator[str]:
    """The tokens of a file as text, layout by name; none where it is not Python of this version."""
    try:
        with tokenize.open(path) as file:
            tokens = list(tokenize.generate_tokens(file.readline))
    except (OSError, SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return
    layout = {tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.ENDMARKER}
    for token in tokens:
        if token.type in layout:
            yield tokenize.tok_name[token.type]
        elif token.type not in (tokenize.COMMENT, tokenize.NL):
            yield token.string


class Bigram:
    """Counts smoothed towards the unigram's; as logits, logs of counts that nobody has normalised."""

    def __init__(self, train: Array) -> None:
        counts = np.bincount(train, minlength=VOCABULARY) + 1.0
        self.unigram = np.log(counts).astype(np.float32)
        self._prior = PRIOR * counts / counts.sum()
        self._base = np.log(self._prior).astype(np.float32)
        pairs, self._counts = np.unique(train[:-1] * VOCABULARY + train[1:], return_counts=True)
        before, self._after = np.divmod(pairs, VOCABULARY)
        self._start = np.searchsorted(before, np.arange(VOCABULARY + 1))

    def logits(self, before: Array) -> Array:
        """(N, VOCABULARY) float32: a row for each token that came before."""
        out = np.empty((len(before), VOCABULARY), np.float32)
        out[...] = self._base
        for row, token in zip(out, before, strict=True):
            seen = slice(self._start[token], self._start[token + 1])
            after = self._after[seen]
            row[after] = np.log(self._counts[seen] + self._prior[after])
        return out
