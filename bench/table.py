"""Races as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastloss._bench.operations import OPERATIONS
from fastloss._bench.race import Race, over_floor, over_us
from fastloss._bench.rivals import LIBRARIES


def lines(header: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """A table whose first `names` columns are names, to the left, and the others numbers."""
    rule = ["---"] * names + ["---:"] * (len(header) - names)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def markdown(races: Sequence[Race]) -> str:
    """Every race in full, and who was left out and why."""
    rivals = ran(races)
    header = ["operation", "workload", "fastloss", "memory floor", "arithmetic floor"]
    header += [LIBRARIES[name].label for name in rivals]
    body = []
    for race in races:
        operation = OPERATIONS[race.operation]
        cells = [operation.label, race.title(), milliseconds(race.seconds["fastloss"])]
        cells += [_floor(race, operation.floor), _floor(race, "arithmetic")]
        body.append([*cells, *(rival(race, name) for name in rivals)])
    return "\n".join([lines(header, body, names=2), *_left_out(races)])


def ran(races: Sequence[Race]) -> list[str]:
    """The rivals that ran in any."""
    return [n for n in LIBRARIES if n != "fastloss" and any(n in race.seconds for race in races)]


def milliseconds(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def rival(race: Race, name: str) -> str:
    if name not in race.seconds:
        return "–"
    return f"{milliseconds(race.seconds[name])} ({race.ratios[over_us(name)]:.3g}×)"


def _floor(race: Race, name: str) -> str:
    if name not in race.seconds:
        return "–"
    times = f"fastloss {race.ratios[over_floor(name)]:.2f}×"
    return f"{name} {milliseconds(race.seconds[name])}, {race.rate(name)}; {times}"


def _left_out(races: Sequence[Race]) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for race in races:
        for library, why in race.left_out.items():
            reasons.setdefault((library, why), []).append(f"{race.operation} {race.title()}")
    return [f"\n{name} left out of {', '.join(of)}: {why}" for (name, why), of in reasons.items()]
