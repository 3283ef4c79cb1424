"""`python bench/classes.py [--quick]`: losses of rows by margins, of class probabilities, and divergences,
beside the machine's floors and PyTorch.

Each takes 512 rows of 128,256 float32 numbers; all take turns, and ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from elements import differentiated, read_two, without_gradient
from table import lines

import fastloss as fl
from fastloss._bench.floors import FLOORS
from fastloss._bench.machine import machine, versions
from fastloss._bench.operations import Candidate, quietly
from fastloss._bench.race import race
from fastloss._bench.sizes import WORKLOADS, Problem
from fastloss._engine import threads


class Entry(NamedTuple):
    arrays: int  # that it reads
    exps: int  # exponentials, or logarithms, of each element
    peer: Callable[[Any, Any, Any, Any], Any]  # of PyTorch, its functions, and both arguments
    options: dict[str, Any] = {}  # noqa: RUF012
    probabilities: bool = False  # whether the first argument holds them
    grad: bool = True


def without_target(torch: Any, z: Any, y: Any) -> Any:
    return z.scatter(1, y[:, None], -torch.inf)


def with_margin(functional: Any, z: Any, y: Any, held: Callable[[Any], Any], scale: float) -> Any:
    own = z.gather(1, y[:, None])
    return functional.cross_entropy(scale * z.scatter(1, y[:, None], held(own)), y)


def arc(torch: Any, c: Any) -> Any:
    c = c.clip(-1, 1)
    turned = torch.cos(torch.arccos(c) + 0.5)
    return torch.where(c > math.cos(math.pi - 0.5), turned, c - 0.5 * math.sin(0.5))


def own(z: Any, y: Any) -> Any:
    return z.gather(1, y[:, None])[:, 0]


def focal(torch: Any, functional: Any, z: Any, y: Any) -> Any:
    nll = functional.cross_entropy(z, y, reduction="none")
    return ((1 - torch.exp(-nll)) ** 2 * nll).mean()


def js(torch: Any, p: Any, q: Any) -> Any:
    m = (p + q) / 2
    return (torch.special.xlogy(p, p / m) + torch.special.xlogy(q, q / m)).sum() / 2 / len(p)


SHARE: dict[str, Any] = {"reduction": "mean"}
ENTRIES = {
    "multiclass_hinge_loss": Entry(1, 0, lambda _, f, z, y: f.multi_margin_loss(z, y) * z.shape[1]),
    "max_hinge_loss": Entry(
        1, 0, lambda t, _, z, y: t.relu(without_target(t, z, y).amax(1) - own(z, y) + 1).mean()
    ),
    "lse_hinge_loss": Entry(
        1, 1, lambda t, _, z, y: t.relu(without_target(t, z, y).logsumexp(1) - own(z, y)).mean()
    ),
    "additive_margin_softmax_loss": Entry(
        1, 1, lambda _, f, z, y: with_margin(f, z, y, lambda c: c - 0.35, 2.0), {"scale": 2.0}
    ),
    "arcface_loss": Entry(
        1, 1, lambda t, f, z, y: with_margin(f, z, y, partial(arc, t), 2.0), {"scale": 2.0}
    ),
    "focal_loss": Entry(1, 1, focal),
    "cross_entropy": Entry(2, 1, lambda _, f, z, q: f.cross_entropy(z, q)),
    "entropy": Entry(1, 1, lambda t, _, p, __: t.special.entr(p).sum(1).mean(), SHARE, True, False),
    "kl_divergence": Entry(
        2, 1, lambda _, f, p, q: f.kl_div(q.log(), p, reduction="batchmean"), SHARE, True, False
    ),
    "js_divergence": Entry(2, 1, lambda t, _, p, q: js(t, p, q), SHARE, True, False),
    "entropy_from_logits": Entry(
        1, 1, lambda t, _, z, __: t.distributions.Categorical(logits=z).entropy().mean(), SHARE, False, False
    ),
    "kl_divergence_from_logits": Entry(
        2, 2,
        lambda t, f, a, b: f.kl_div(
            t.log_softmax(b, 1), t.log_softmax(a, 1), log_target=True, reduction="batchmean"
        ),
        SHARE, False, False,
    ),
    "js_divergence_from_logits": Entry(
        2, 4, lambda t, _, a, b: js(t, t.softmax(a, 1), t.softmax(b, 1)), SHARE, False, False
    ),
}  # fmt: skip


def race_of(name: str, problem: Problem, targets: np.ndarray, rounds: int) -> list[str]:
    """A row of the table."""
    entry, op, out = ENTRIES[name], getattr(fl, name), problem.out
    z, other = problem.logits, problem.vector
    arguments: tuple[Any, ...] = (z,)
    if entry.arrays == 2:
        arguments = (z, other)
    elif entry.grad:
        arguments = (z, targets)
    read = FLOORS["read"].setup(problem) if entry.arrays == 1 else read_two(problem)
    exps = FLOORS["arithmetic"].setup(problem)
    ready: dict[str, Candidate] = {
        "fastloss": Candidate(partial(op, *arguments, **entry.options)),
        "memory": Candidate(read),
    }
    if entry.exps:
        ready["arithmetic"] = Candidate(lambda: [exps() for _ in range(entry.exps)])
    if entry.grad:
        ready["both"] = Candidate(partial(op.value_and_grad, *arguments, out=out, **entry.options))
        write = "copy" if entry.arrays == 1 else "read two, write one"
        ready["write"] = Candidate(FLOORS[write].setup(problem))
    if find_spec("torch"):
        torch = quietly("torch")
        torch.set_num_threads(threads.count())
        loss = partial(entry.peer, torch, torch.nn.functional)
        tensors = [torch.from_numpy(each) for each in (z, targets if len(arguments) > 1 else other)]
        if entry.arrays == 2:
            tensors[1] = torch.from_numpy(other)
        ready["torch"] = Candidate(partial(without_gradient, torch, loss, *tensors))
        if entry.grad:
            ready["torch both"] = Candidate(partial(differentiated, loss, *tensors))
        ours, theirs = float(op(*arguments, **entry.options)), float(ready["torch"].call())
        assert abs(ours - theirs) <= 2e-3 * abs(ours), (name, ours, theirs)
    times = race(ready, rounds, "fastloss")

    def ratio(ours: str, *others: str) -> float:
        """Over the slower of others, a ratio a round."""
        rows = zip(times[ours], *(times[n] for n in others), strict=True)
        return median(a / max(b) for a, *b in rows if a is not None and None not in b)

    slow = ("arithmetic",) if entry.exps else ()
    cells = [
        f"`{name}`" + (" of probabilities" if name == "cross_entropy" else ""),
        f"{median(filter(None, times['fastloss'])) * 1e3:.1f}",
        f"{ratio('fastloss', 'memory'):.2f}×", f"{ratio('fastloss', 'memory', *slow):.2f}×",
        f"{1 / ratio('fastloss', 'torch'):.1f}×" if "torch" in times else "–",
    ]
    if not entry.grad:
        return [*cells, "–", "–", "–", "–"]
    return [
        *cells, f"{median(filter(None, times['both'])) * 1e3:.1f}",
        f"{ratio('both', 'write'):.2f}×", f"{ratio('both', 'write', *slow):.2f}×",
        f"{1 / ratio('both', 'torch both'):.1f}×" if "torch both" in times else "–",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench/classes.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sixth of the rows, three rounds")
    parser.add_argument("--loss", help=f"of {', '.join(ENTRIES)}; with commas")
    options = parser.parse_args(arguments)
    workload, rounds = WORKLOADS["llama3_vocab"], 9
    if options.quick:
        workload, rounds = workload.quick(), 3
    problem = Problem(workload, np.dtype(np.float32))
    logits, vector = problem.logits.copy(), problem.vector.copy()
    targets = np.random.default_rng(0).integers(0, workload.classes, workload.rows)
    rows = []
    for name in options.loss.split(",") if options.loss else ENTRIES:
        problem.logits[...], problem.vector[...] = logits, vector
        if ENTRIES[name].probabilities:
            fl.softmax(logits, out=problem.logits)
        if ENTRIES[name].probabilities or name == "cross_entropy":
            fl.softmax(vector, out=problem.vector)
        rows.append(race_of(name, problem, targets, rounds))
        print(*rows[-1], flush=True)
    head = ["loss", "ms", "/ memory", "/ slower floor", "PyTorch", "with gradient, ms", "/ memory",
            "/ slower floor", "PyTorch"]
    print("", lines(head, rows), "", machine(), versions(), sep="\n")


if __name__ == "__main__":
    main()
