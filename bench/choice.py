"""Which races to run: the options that pytest, `report.py` and `ci/bench` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from fastloss._bench.operations import OPERATIONS
from fastloss._bench.race import Race, rounds_of, run_all
from fastloss._bench.rivals import LIBRARIES
from fastloss._bench.sizes import DTYPES, WORKLOADS, Workload

QUICK = ("llama3_vocab", "gpt2_vocab", "tiny")


class Choice(NamedTuple):
    workloads: tuple[Workload, ...]
    dtypes: tuple[str, ...]
    operations: tuple[str, ...]
    libraries: tuple[str, ...]
    rounds: int

    def races(self) -> Iterator[Race]:
        """Run them; a dtype that fastloss refuses here is left out."""
        return run_all(*self)


def _names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def add_options(add: Callable[..., Any]) -> None:
    """By argparse's `add_argument`, or pytest's `addoption`."""
    add("--quick", action="store_true", help="few rows, float32, three rounds")
    for name, known in (
        ("workload", WORKLOADS), ("dtype", DTYPES), ("operation", OPERATIONS), ("library", LIBRARIES),
    ):  # fmt: skip
        add(f"--{name}", type=_names(known), metavar="NAME,...", help=f"of {', '.join(known)}")


def choice_of(options: Any) -> Choice:
    names = options.workload or (QUICK if options.quick else tuple(WORKLOADS))
    workloads = tuple(WORKLOADS[name] for name in names)
    return Choice(
        tuple(w.quick() for w in workloads) if options.quick else workloads,
        options.dtype or (DTYPES[:1] if options.quick else DTYPES),
        options.operation or tuple(OPERATIONS),
        options.library or tuple(LIBRARIES),
        rounds_of(options.quick),
    )
