"""`python bench/report.py`: this machine's races as Markdown; into the README, with a plot, if asked.

Races take an hour when all are run: `--keep` writes them to a file, `--from` reads them back.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import memory
from choice import Choice, add_options, choice_of
from table import lines, markdown, milliseconds, ran, rival

from fastloss._bench.machine import Others, machine, versions
from fastloss._bench.operations import OPERATIONS
from fastloss._bench.race import Race, over_floor, over_us
from fastloss._bench.rivals import LIBRARIES
from fastloss._bench.sizes import dtype_of

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- written by bench/report.py -->", "<!-- end of what bench/report.py writes -->"
# What the README shows of every workload and dtype; of the first, all operations.
SHOWN = ("softmax_out", "cross_entropy", "value_and_grad", "vjp_from_output")


def measure(choice: Choice) -> dict[str, Any]:
    """All that a report needs, in plain types."""
    noise, races = Others(), []
    dtypes = sum(dtype_of(name) is not None for name in choice.dtypes)
    count = len(choice.workloads) * dtypes * len(choice.operations)
    for race in choice.races():
        races.append(race)
        print(f"{len(races)}/{count} {race.operation}, {race.title()}", file=sys.stderr, flush=True)
    others = noise.cpus()
    first = races[0]
    extra = {}
    for operation in (race.operation for race in races if race.title() == first.title()):
        found = memory.measured("fastloss", operation, first.workload, first.dtype)
        extra[operation] = found and found["extra"]
    return {
        "machine": machine(), "versions": versions(), "date": date.today().isoformat(),
        "cpus busy with others": others, "extra bytes": extra,
        "races": [race.as_dict() for race in races],
    }


def races_of(found: dict[str, Any]) -> list[Race]:
    return [Race.from_dict(stored) for stored in found["races"]]


# ---- the README -----------------------------------------------------------------------------
def summary(found: dict[str, Any], plot: Path | None) -> str:
    races = races_of(found)
    first = [race for race in races if race.title() == races[0].title()]
    parts = [
        about(found),
        f"**{_shape(races[0])}**: milliseconds; in brackets, how many times fastloss's.",
        _every_operation(first, found["extra bytes"]),
    ]
    if plot is not None:
        parts.append(f"![Times of each library over the machine's floor]({plot.as_posix()})")
    parts += [
        "Other shapes and types: fastloss's milliseconds, in brackets over the floor; how many times that"
        " PyTorch takes." if "torch" in ran(races) else
        "Other shapes and types: fastloss's milliseconds, in brackets over the floor.",
        _every_workload(races),
    ]  # fmt: skip
    return "\n\n".join(parts)


def about(found: dict[str, Any]) -> str:
    """Machine, versions and date, in a sentence or two."""
    known = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    others = found["cpus busy with others"]
    busy = "" if others is None else f" {others:.2f} CPUs were busy with others meanwhile."
    return (
        "Medians of calls in turn, ratios of each round, on {cpu}, {cores} cores, {threads} threads, "
        "{vector bits}-bit vectors".format(**found["machine"])
        + f"; {found['date']}.{busy} {known}."
    )


def _shape(race: Race) -> str:
    size = race.workload.size * race.itemsize / 1e6
    return f"{race.title()}, {size:,.0f} MB" if size >= 1 else race.title()


def _every_operation(races: Sequence[Race], extra: dict[str, float | None]) -> str:
    rivals = ran(races)
    header = ["operation", "fastloss", "over the floor", "extra memory"]
    header += [LIBRARIES[name].label for name in rivals]
    body = []
    for race in races:
        size = extra.get(race.operation)
        body.append(
            [
                f"`{OPERATIONS[race.operation].label}`",
                f"**{milliseconds(race.seconds['fastloss'])}**",
                _over_floor(race),
                "–" if size is None else f"{memory.megabytes(size)} MB",
                *(rival(race, name) for name in rivals),
            ]
        )
    return lines(header, body)


def _over_floor(race: Race) -> str:
    floor = race.floor()
    if floor is None:
        return "–"
    rate = race.rate(floor)
    return f"{race.ratios[over_floor(floor)]:.2f}× {floor} ({milliseconds(race.seconds[floor])}, {rate})"


def _every_workload(races: Sequence[Race]) -> str:
    operations = [name for name in SHOWN if any(race.operation == name for race in races)]
    by_title: dict[str, dict[str, Race]] = {}
    for race in races:
        by_title.setdefault(race.title(), {})[race.operation] = race
    body = [
        [title, *(_brief(mine.get(name)) for name in operations)] for title, mine in by_title.items()
    ]
    return lines(["workload", *(f"`{OPERATIONS[name].label}`" for name in operations)], body)


def _brief(race: Race | None) -> str:
    if race is None:
        return "–"
    text, floor = milliseconds(race.seconds["fastloss"]), race.floor()
    if floor is not None:
        text += f" ({race.ratios[over_floor(floor)]:.2f}×)"
    torch = race.ratios.get(over_us("torch"))
    return text if torch is None else f"{text}; {torch:.3g}×"


def written_into(readme: str, text: str) -> str:
    """The README with `text` between its markers."""
    before, found, rest = readme.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"no {BEGIN} … {END} to write between")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


# ---- the plot -------------------------------------------------------------------------------
def draw(found: dict[str, Any], path: Path) -> None:
    """A panel an operation, of the first workload that has floors: bars against the floor."""
    import style

    floored = [race for race in races_of(found) if race.floor()]
    races = [race for race in floored if race.title() == floored[0].title()]
    bars = [[name for name in LIBRARIES if name in race.seconds] for race in races]
    slots = [max(map(len, bars[k - k % 2 : k - k % 2 + 2])) for k in range(len(bars))]  # of its row
    figure, panels = style.panels(2, 4.9, [0.75 + 0.23 * n for n in slots])
    most = 2.0
    for panel, race, names, room in zip(panels, races, bars, slots, strict=True):
        floor = race.floor()
        assert floor is not None
        ours = race.ratios[over_floor(floor)]
        values = [ours * race.ratios.get(over_us(name), 1.0) for name in names]
        notes = [
            f"{value:.2f}× · {milliseconds(race.seconds[name])} ms" if value < 10 else
            f"{value:.0f}× · {milliseconds(race.seconds[name])} ms"
            for name, value in zip(names, values, strict=True)
        ]  # fmt: skip
        most = max(most, *values)
        style.bars(panel, [LIBRARIES[name].label for name in names], values, notes, room)
        panel.set_title(OPERATIONS[race.operation].label)
        panel.set_xlabel(
            f"{floor} floor: {milliseconds(race.seconds[floor])} ms, {race.rate(floor)}",
            fontsize=8, loc="right",
        )
    for panel in panels:
        style.times_axis(panel, most)
    figure.suptitle(
        f"Time over the machine's floor: {_shape(races[0])}", x=0.01, ha="left", weight="bold",
        fontsize=12,
    )
    used = "{cpu}, {threads} threads".format(**found["machine"])
    style.save(figure, path, f"logarithmic scale · {used} · fastloss "
               f"{found['versions']['fastloss']}, {found['date']}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench/report.py", description=__doc__)
    add_options(parser.add_argument)
    parser.add_argument("--keep", type=Path, metavar="FILE.json", help="write the races there")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE.json", help="run none; read")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw bars against the floor")
    parser.add_argument("--readme", action="store_true", help="write the tables into README.md")
    options = parser.parse_args(arguments)
    if options.source:
        found = json.loads(options.source.read_text(encoding="utf-8"))
    else:
        found = measure(choice_of(options))
    if options.keep:
        text = json.dumps(found, indent=1, ensure_ascii=False)
        options.keep.write_text(text + "\n", encoding="utf-8")
    print(markdown(races_of(found)), about(found), sep="\n\n")
    if options.plot:
        draw(found, options.plot)
    if options.readme:
        readme, plot = ROOT / "README.md", options.plot and options.plot.resolve().relative_to(ROOT)
        text = written_into(readme.read_text(encoding="utf-8"), summary(found, plot))
        readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
