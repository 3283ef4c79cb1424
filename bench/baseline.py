"""`ci/bench`: run the races, and name what got worse than the ratios kept in `baseline.json`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from choice import Choice, add_options, choice_of

from fastloss._bench.machine import Others, machine, versions
from fastloss._bench.race import Race

WORSE = 1.5
TRIES = 3
KEPT = Path(__file__).with_name("baseline.json")

Ratios = dict[str, dict[str, dict[str, float]]]  # workload and dtype -> operation -> name -> ratio


def worse(race: Race, kept: Ratios) -> dict[str, str]:
    """The ratios that are worse than those kept by more than `WORSE`, and by how much."""
    before = kept.get(race.title(), {}).get(race.operation, {})
    found = {}
    for name, now in race.ratios.items():
        if name in before:
            floor = name.startswith("fastloss / ")  # ours over a floor; else a rival's over ours
            change = now / before[name] if floor else before[name] / now
            if change > WORSE:
                found[name] = f"{before[name]:.3g} → {now:.3g}"
    return found


def worse_every_time(
    races: Iterable[Race], kept: Ratios, again: Callable[[Race], Race]
) -> list[tuple[Race, dict[str, str]]]:
    """What is worse in each of `TRIES` tries: a race that looks worse is run again."""
    found = []
    for first in races:
        race, bad = first, worse(first, kept)
        for _ in range(TRIES - 1):
            if bad:
                race = again(race)
                bad = {name: why for name, why in worse(race, kept).items() if name in bad}
        if bad:
            found.append((race, bad))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ci/bench", description=__doc__)
    add_options(parser.add_argument)
    parser.add_argument(
        "--write-baseline", action="store_true", help="keep the ratios measured instead of comparing"
    )
    options = parser.parse_args(arguments)
    choice, noise = choice_of(options), Others()
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    races = []
    for race in choice.races():
        races.append(race)
        print(f"{race.operation}, {race.title()}: {race.ratios}", flush=True)
        for library, why in race.left_out.items():
            print(f"  {library} left out: {why}", flush=True)
    if options.write_baseline:
        _write(kept, races, noise.cpus())
        return 0
    return _report(kept, races, choice)


def _report(kept: dict[str, Any], races: Sequence[Race], choice: Choice) -> int:
    if kept.get("machine") != machine():
        print(f"the baseline is of another machine: {kept.get('machine')}", file=sys.stderr)

    def again(race: Race) -> Race:
        print(f"again: {race.operation}, {race.title()}", flush=True)
        return next(
            choice._replace(
                workloads=(race.workload,), dtypes=(race.dtype,), operations=(race.operation,)
            ).races()
        )

    ratios: Ratios = kept.get("ratios", {})
    found = worse_every_time(races, ratios, again)
    known = sum(race.operation in ratios.get(race.title(), {}) for race in races)
    print(f"\n{known} of {len(races)} races are in the baseline")
    for race, bad in found:
        for name, why in bad.items():
            print(f"worse on {TRIES} tries: {race.operation}, {race.title()}: {name} {why}")
    return 1 if found else 0


def _write(kept: dict[str, Any], races: Sequence[Race], others: float | None) -> None:
    """Ratios alone: seconds of one machine say little about the next run, even on the same one.

    Races that were not run keep their ratios, unless those are another machine's.
    """
    about = {"machine": machine(), "cpus busy with others": others, "versions": versions()}
    ratios: Ratios = kept["ratios"] if kept.get("machine") == about["machine"] else {}
    for race in races:
        ratios.setdefault(race.title(), {})[race.operation] = race.ratios
    text = json.dumps({**about, "ratios": ratios}, indent=2, ensure_ascii=False)
    KEPT.write_text(text + "\n", encoding="utf-8")
    print(f"\n{len(races)} races written to {KEPT}")


if __name__ == "__main__":
    sys.exit(main())
