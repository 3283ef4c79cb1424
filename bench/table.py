"""Races as a Markdown table, and what machine and versions they are of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from floors import FLOORS
from race import Race
from rivals import RIVALS

from fastloss.cli import info

LIBRARIES = list(dict.fromkeys(library for row in RIVALS.values() for library in row))


def markdown(races: Sequence[Race]) -> str:
    """Median milliseconds; a rival's in brackets too as a multiple of fastloss's."""
    header = ["operation", "workload", *FLOORS, *LIBRARIES, *(f"fastloss / {f}" for f in FLOORS)]
    lines = [_line(header), _line(["---"] * 2 + ["---:"] * (len(header) - 2))]
    for race in races:
        cells = [race.operation, str(race.workload)]
        cells += [_cell(race, name) for name in [*FLOORS, *LIBRARIES]]
        cells += [f"{race.ratios()[f'fastloss / {floor}']:.2f}" for floor in FLOORS]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(race: Race, name: str) -> str:
    if name not in race.seconds:
        return "–"
    ms = race.seconds[name] * 1e3
    time = f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
    ratio = race.ratios().get(f"{name} / fastloss")
    return time if ratio is None else f"{time} ({ratio:.3g}×)"


def machine() -> dict[str, str | int]:
    """The CPU, its cores, and the threads that fastloss uses of them."""
    found = info.collect()
    return {
        "cpu": found["cpu"], "vector bits": found["vector_bits"],
        "cores": os.cpu_count() or 1, "threads": found["threads"],
    }


def versions() -> dict[str, str]:
    """Of fastloss, what it stands on, and the rivals that are installed."""
    found = info.collect()
    known = {name: found[name] for name in ("fastloss", "python", "numpy", "numba", "llvmlite")}
    for library in LIBRARIES:
        if library not in known:
            try:
                known[library] = version(library)
            except PackageNotFoundError:
                continue
    return known
