"""`python bench/growth.py FILE.svg`: time per element as arrays grow, and speed-up as threads do."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import style
from table import lines

import fastloss as fl
from fastloss._bench.floors import FLOORS
from fastloss._bench.machine import machine
from fastloss._bench.operations import OPERATIONS, Candidate
from fastloss._bench.race import Times, race
from fastloss._bench.rivals import candidate
from fastloss._bench.sizes import WORKLOADS, Problem, Workload, dtype_of
from fastloss._engine import threads

_CLASSES = 1000
_OPERATIONS = ("logsumexp", "softmax_out", "value_and_grad")
_FLOORS = ("read", "copy")
_WORKLOADS = ("llama3_vocab", "one_row")

Curves = dict[str, list[tuple[float, float]]]  # who -> (size, nanoseconds) or (threads, speed-up)


def _available() -> int:
    """Bytes of memory that may be taken without disturbing others."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _label(name: str) -> str:
    return OPERATIONS[name].label if name in OPERATIONS else f"{name} floor"


def _candidates(problem: Problem) -> dict[str, Candidate]:
    floors = {name: Candidate(FLOORS[name].setup(problem)) for name in _FLOORS}
    return {**{name: candidate("fastloss", name, problem) for name in _OPERATIONS}, **floors}


def _ready(problem: Problem) -> dict[str, Candidate]:
    ready = _candidates(problem)
    for each in ready.values():
        each.call()
    return ready


def _medians(times: Times) -> dict[str, float]:
    return {name: median(t for t in each if t is not None) for name, each in times.items()}


def by_size(largest: int, rounds: int) -> Curves:
    """Nanoseconds an element from 1e3 elements on, rows of 1000, float32."""
    dtype = dtype_of("float32")
    assert dtype is not None
    curves: Curves = {}
    size = _CLASSES
    while size <= largest:
        workload = Workload("growth", size // _CLASSES, _CLASSES)
        if 3 * size * dtype.itemsize > _available():
            break
        medians = _medians(race(_ready(Problem(workload, dtype)), rounds, _OPERATIONS[0]))
        for name, seconds in medians.items():
            curves.setdefault(_label(name), []).append((size, seconds * 1e9 / size))
        size *= 10
    return curves


def by_threads(workload: Workload, rounds: int) -> Curves:
    """Speed-up over one thread, each number of threads in turn in every round."""
    dtype = dtype_of("float32")
    assert dtype is not None
    problem, counts = Problem(workload, dtype), _counts(threads.available())
    made = {}
    for n in counts:
        with fl.num_threads(n):
            for name, each in _ready(problem).items():
                made[name, n] = partial(_with_threads, n, each)
    keys = {f"{name} {n}": Candidate(call) for (name, n), call in made.items()}
    times = race(keys, rounds, f"{_OPERATIONS[0]} 1")
    curves: Curves = {}
    for name, n in made:
        pairs = zip(times[f"{name} 1"], times[f"{name} {n}"], strict=True)
        speedup = median(one / many for one, many in pairs if one is not None and many is not None)
        curves.setdefault(_label(name), []).append((n, speedup))
    return curves


def _with_threads(n: int, each: Candidate) -> None:
    with fl.num_threads(n):
        each.call()


def _counts(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, … and the most there are."""
    steps = [n for k in range(12) for n in (1 << k, 3 << k)]
    return sorted({n for n in steps if n < most} | {1, most})


def draw(size: Curves, speedups: dict[str, Curves], path: Path) -> None:
    figure, panels = style.panels(1 + len(speedups), 4.0, [3.4] * (1 + len(speedups)))
    for panel, curves in zip(panels, (size, *speedups.values()), strict=True):
        for k, (name, points) in enumerate(curves.items()):
            style.curve(panel, points, name, k, floor=name.endswith("floor"))
    panels[0].set(
        xscale="log", yscale="log", xlabel="elements", ylabel="nanoseconds per element",
        title="rows of 1,000 classes, float32",
    )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    for panel, name in zip(panels[1:], speedups, strict=True):
        panel.set(xlabel="threads", ylabel="times as fast as one", title=name, ylim=(0, None))
        counts = [n for n, _ in next(iter(speedups[name].values()))]
        panel.set_xticks(counts[-8:])
    style.save(figure, path, "{cpu}, {cores} cores".format(**machine()) + f", {date.today()}")


def _print(header: str, curves: Curves) -> None:
    points: Iterable[float] = (n for n, _ in next(iter(curves.values())))
    body = [[name, *(f"{value:.3g}" for _, value in each)] for name, each in curves.items()]
    print(lines([header, *(f"{n:,.0f}" for n in points)], body), end="\n\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench/growth.py", description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", metavar="FILE.svg", help="where to draw it")
    parser.add_argument("--largest", type=float, default=1e9, help="elements (1e9, if they fit)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="cut the workloads of the threads")
    options = parser.parse_args(arguments)
    size = by_size(int(options.largest), options.rounds)
    _print("ns per element, of", size)
    speedups = {}
    for workload in (WORKLOADS[name] for name in _WORKLOADS):
        cut = workload.quick() if options.quick else workload
        speedups[str(cut)] = by_threads(cut, options.rounds)
        _print(f"{cut}: threads", speedups[str(cut)])
    if options.path:
        draw(size, speedups, options.path)


if __name__ == "__main__":
    main()
