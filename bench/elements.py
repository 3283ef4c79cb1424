"""`python bench/elements.py [--quick]`: element-wise losses beside the machine's floors and PyTorch.

Each takes a hundred million float32 numbers and as many targets; all take turns, and ratios are medians of
the rounds' ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
from table import lines

import fastloss as fl
from fastloss._bench.floors import FLOORS, words
from fastloss._bench.machine import machine, versions
from fastloss._bench.operations import Candidate, quietly
from fastloss._bench.race import race
from fastloss._bench.sizes import Problem, Workload
from fastloss._engine import threads

LABELS = ("hinge_loss", "squared_hinge_loss", "perceptron_loss", "logistic_loss")
PROBABILITIES = ("binary_cross_entropy_with_logits", "sigmoid_focal_loss")
LOSSES = (
    "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "log_cosh_loss", "pinball_loss", *LABELS,
    *PROBABILITIES,
)  # fmt: skip
# What exponentials bound, beside memory.
ARITHMETIC = ("log_cosh_loss", "logistic_loss", *PROBABILITIES)


def peers(functional: Any, torch: Any) -> dict[str, Callable[[Any, Any], Any]]:
    """PyTorch's own, where it has one, and what its users write."""
    return {
        "mse_loss": functional.mse_loss,
        "l1_loss": functional.l1_loss,
        "huber_loss": functional.huber_loss,
        "smooth_l1_loss": functional.smooth_l1_loss,
        "log_cosh_loss": lambda z, y: torch.logaddexp(z - y, y - z).mean() - 0.6931471805599453,
        "pinball_loss": lambda z, y: torch.maximum(0.5 * (y - z), -0.5 * (y - z)).mean(),
        "hinge_loss": lambda z, y: torch.clamp(1 - y * z, min=0).mean(),
        "squared_hinge_loss": lambda z, y: torch.clamp(1 - y * z, min=0).square().mean(),
        "perceptron_loss": lambda z, y: torch.clamp(-y * z, min=0).mean(),
        "logistic_loss": functional.soft_margin_loss,
        "binary_cross_entropy_with_logits": functional.binary_cross_entropy_with_logits,
        "sigmoid_focal_loss": lambda z, y: (
            functional.binary_cross_entropy_with_logits(z, y, reduction="none")
            * (torch.sigmoid(z) * (1 - y) + (1 - torch.sigmoid(z)) * y) ** 2
        ).mean(),
    }


def read_two(problem: Problem) -> Callable[[], None]:
    """Both arrays summed, one after the other."""
    read = FLOORS["read"].setup
    first = read(problem)
    second = partial(first.func, words(problem.vector), *first.args[1:])  # type: ignore[attr-defined]

    def call() -> None:
        first()
        second()

    return call


def differentiated(loss: Callable[[Any, Any], Any], z: Any, y: Any) -> Any:
    z.requires_grad_().grad = None
    value = loss(z, y)
    value.backward()
    return value.detach()


def without_gradient(torch: Any, loss: Callable[[Any, Any], Any], z: Any, y: Any) -> Any:
    with torch.no_grad():
        return loss(z, y)


def race_of(name: str, problem: Problem, rounds: int) -> list[str]:
    """A row of the table."""
    y = problem.vector
    z, out, op = problem.logits, problem.out, getattr(fl, name)
    ready: dict[str, Candidate] = {
        "fastloss": Candidate(partial(op, z, y)),
        "read": Candidate(read_two(problem)),
        "both": Candidate(partial(op.value_and_grad, z, y, out=out)),
        "write": Candidate(FLOORS["read two, write one"].setup(problem)),
        "arithmetic": Candidate(FLOORS["arithmetic"].setup(problem)),
    }
    if find_spec("torch"):
        torch = quietly("torch")
        torch.set_num_threads(threads.count())
        loss = peers(torch.nn.functional, torch)[name]
        tensors = torch.from_numpy(z), torch.from_numpy(y)
        ready["torch"] = Candidate(partial(without_gradient, torch, loss, *tensors))
        ready["torch both"] = Candidate(partial(differentiated, loss, *tensors))
        ours, theirs = float(op(z, y)), float(ready["torch"].call())
        assert abs(ours - theirs) <= 1e-3 * abs(ours), (name, ours, theirs)
    times = race(ready, rounds, "fastloss")

    def ratio(ours: str, others: str | tuple[str, ...]) -> float:
        """Over the slower of others, a ratio a round."""
        names = (others,) if isinstance(others, str) else others
        rows = zip(times[ours], *(times[n] for n in names), strict=True)
        return median(a / max(b) for a, *b in rows if a is not None and None not in b)

    exps = ("arithmetic",) if name in ARITHMETIC else ()
    cells = [
        f"`{name}`", f"{median(filter(None, times['fastloss'])) * 1e3:.1f}",
        f"{ratio('fastloss', 'read'):.2f}×", f"{ratio('fastloss', ('read', *exps)):.2f}×",
        f"{median(filter(None, times['both'])) * 1e3:.1f}",
        f"{ratio('both', 'write'):.2f}×", f"{ratio('both', ('write', *exps)):.2f}×",
    ]
    if "torch" in times:
        cells += [f"{1 / ratio('fastloss', 'torch'):.1f}×", f"{1 / ratio('both', 'torch both'):.1f}×"]
    return cells


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench/elements.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the numbers, three rounds")
    parser.add_argument("--loss", help=f"of {', '.join(LOSSES)}; with commas")
    options = parser.parse_args(arguments)
    n, rounds = (10_000_000, 3) if options.quick else (100_000_000, 9)
    problem = Problem(Workload("elements", 1, n), np.dtype(np.float32))
    problem.logits /= 2
    normal = problem.vector.copy()
    rows = []
    for name in options.loss.split(",") if options.loss else LOSSES:
        if name in LABELS:
            np.copysign(1, normal, out=problem.vector)
        elif name in PROBABILITIES:
            fl.sigmoid(normal, out=problem.vector)
        else:
            problem.vector[...] = normal
        rows.append(race_of(name, problem, rounds))
        print(*rows[-1], flush=True)
    head = ["loss", "ms", "/ read two", "/ slower floor", "with gradient, ms", "/ read two, write one",
            "/ slower floor", "PyTorch", "forward + backward"]
    print("", lines(head[: len(rows[0])], rows), "", machine(), versions(), sep="\n")


if __name__ == "__main__":
    main()
