"""`python bench/report.py`: this machine's races as a Markdown table; ratios and a plot if asked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sizes
from floors import FLOORS
from noise import Others
from race import Race, rounds_of, run_all
from rivals import RIVALS
from table import LIBRARIES, machine, markdown, versions


def as_json(races: Sequence[Race], others: float | None) -> dict[str, Any]:
    """Ratios alone: seconds of one machine say little about the next run, even on the same one."""
    ratios: dict[str, dict[str, dict[str, float]]] = {}
    for race in races:
        ratios.setdefault(str(race.workload), {})[race.operation] = race.ratios()
    about = {"machine": machine(), "cpus busy with others": others, "versions": versions()}
    return {**about, "ratios": ratios}


def plot(races: Sequence[Race], path: Path) -> None:
    """A panel a workload: for each operation a bar of median time per candidate, to a log scale."""
    from matplotlib.figure import Figure

    names = [*FLOORS, *LIBRARIES]
    workloads = list(dict.fromkeys(race.workload for race in races))
    figure = Figure(figsize=(9, 3.5 * len(workloads)), layout="constrained")
    panels = figure.subplots(len(workloads), squeeze=False)[:, 0]
    for panel, workload in zip(panels, workloads, strict=True):
        mine = [race for race in races if race.workload == workload]
        for k, name in enumerate(names):
            ran = [(i, race) for i, race in enumerate(mine) if name in race.seconds]
            panel.bar(
                [i + (k - len(names) / 2 + 0.5) / (len(names) + 1) for i, _ in ran],
                [race.seconds[name] * 1e3 for _, race in ran],
                width=1 / (len(names) + 1), label=name, color=f"C{k}",
            )
        panel.set(title=str(workload), ylabel="median ms", yscale="log")
        panel.set_xticks(range(len(mine)), [race.operation for race in mine])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names))
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench/report.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small workloads, three rounds")
    parser.add_argument(
        "--workload", nargs="+", choices=sizes.WORKLOADS, default=sizes.DEFAULT, metavar="NAME",
        help=f"which to run, of {', '.join(sizes.WORKLOADS)} (default: {' '.join(sizes.DEFAULT)})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the medians")
    options = parser.parse_args(arguments)

    workloads = sizes.chosen(options.quick, options.workload)
    count = len(workloads) * len(RIVALS)
    races, noise = [], Others()
    for race in run_all(workloads, rounds_of(options.quick)):
        races.append(race)
        print(f"{len(races)}/{count} {race.operation}, {race.workload}", file=sys.stderr, flush=True)
    others = noise.cpus()
    print(markdown(races), end="\n\n")
    print("Median ms; in brackets, how many times fastloss's.", end="\n\n")
    print(", ".join(f"{name}: {value}" for name, value in machine().items()))
    print(f"CPUs busy with others meanwhile: {'unknown' if others is None else others}", end="\n\n")
    print(", ".join(f"{name} {value}" for name, value in versions().items()))
    if options.json:
        text = json.dumps(as_json(races, others), indent=2, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.plot and find_spec("matplotlib"):
        plot(races, options.plot)
    elif options.plot:
        print("no plot: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
