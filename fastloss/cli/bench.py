"""`fastloss bench`: this machine's numbers, beside the libraries that are installed on it."""

from __future__ import annotations

import json

from fastloss._bench.floors import FLOORS
from fastloss._bench.machine import Others, machine, versions
from fastloss._bench.operations import OPERATIONS
from fastloss._bench.race import Race, over_floor, over_us, rounds_of, run
from fastloss._bench.rivals import LIBRARIES
from fastloss._bench.sizes import WORKLOADS, Problem, Workload, dtype_of
from fastloss.cli import console

_WORKLOADS = ("llama3_vocab", "imagenet", "digits")
_LIBRARIES = ("fastloss", "numpy", "scipy", "torch", "jax")
_OPERATIONS = ("softmax", "softmax_out", "logsumexp", "cross_entropy", "value_and_grad")


def run_bench(*, quick: bool, as_json: bool) -> None:
    """Race, and print a table a workload or one JSON object."""
    workloads = [WORKLOADS[name] for name in _WORKLOADS]
    if quick:
        workloads = [workload.quick() for workload in workloads[:1]]
    noise, races = Others(), _races(workloads, rounds_of(quick))
    others = noise.cpus()
    if as_json:
        about = {"machine": machine(), "cpus_busy_with_others": others, "versions": versions()}
        print(json.dumps({**about, "races": [race.as_dict() for race in races]}))
        return
    known = versions()
    libraries = [lib for name in _LIBRARIES if (lib := LIBRARIES[name]).distribution in known]
    console.pairs(
        [
            ("machine", "{cpu}, {cores} cores, {threads} threads used".format(**machine())),
            ("versions", ", ".join(f"{lib.label} {known[lib.distribution]}" for lib in libraries)),
            ("busy with others", "unknown" if others is None else f"{others:.2f} CPUs meanwhile"),
        ]
    )
    for workload in workloads:
        _print([race for race in races if race.workload == workload])


def _races(workloads: list[Workload], rounds: int) -> list[Race]:
    races = []
    dtype = dtype_of("float32")
    assert dtype is not None
    with console.progress("racing", "races", len(workloads) * len(_OPERATIONS)) as advance:
        for workload in workloads:
            problem = Problem(workload, dtype)
            for operation in _OPERATIONS:
                races.append(run(operation, problem, rounds, _LIBRARIES))
                advance(1)
    return races


def _print(races: list[Race]) -> None:
    """A row a library and a column an operation."""
    workload = races[0].workload
    names = [n for n in (*_LIBRARIES, *FLOORS) if any(n in race.seconds for race in races)]
    body = []
    for name in names:
        label = LIBRARIES[name].label if name in LIBRARIES else f"floor: {name}"
        body.append([label, *(_cell(race, name) for race in races)])
    megabytes = workload.size * races[0].itemsize / 1e6
    left_out = {
        f"\n{LIBRARIES[name].label} left out: {why}"
        for race in races
        for name, why in race.left_out.items()
    }
    console.table(
        f"{workload.rows:,} x {workload.classes:,} {races[0].dtype}, {megabytes:.0f} MB: milliseconds",
        [workload.name, *(_heading(race) for race in races)],
        body,
        "median; in brackets: times fastloss's, and at a floor, fastloss's times the floor's"
        + "".join(sorted(left_out)),
    )


def _heading(race: Race) -> str:
    return OPERATIONS[race.operation].label.rpartition(".")[2]


def _cell(race: Race, name: str) -> str:
    if name not in race.seconds:
        return ""
    ms = _three_digits(race.seconds[name] * 1e3)
    if name == "fastloss":
        return ms
    return f"{ms} ({_three_digits(race.ratios[over_floor(name) if name in FLOORS else over_us(name)])}x)"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")
