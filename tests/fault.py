"""Programs in processes of their own, with a time limit. FASTLOSS_FAULTS=full repeats them often enough to
meet what is rare; `ci/faults` does, and prints what they report.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FULL = os.environ.get("FASTLOSS_FAULTS") == "full"
LAYERS = pytest.mark.parametrize("layer", ["omp", "workqueue"])
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs what Linux has")

# Two operations, their right answers, and whether a call gives them.
PROBLEM = """
import os, signal, sys, threading, time
import numpy as np
import fastloss as fl
from fastloss._engine import launch
launch.POOLED = 0  # so that small arrays meet the pool
x = np.random.default_rng(0).normal(size=(300, 700)).astype(np.float32)
y = np.arange(300)

def answers():
    return fl.softmax(x), fl.cross_entropy(x, y)

def right(ours):
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return np.abs(ours[0] - p).max() < 1e-6 and abs(ours[1] + np.log(p[y, y]).mean()) < 1e-5
"""


def times(few: int, many: int) -> int:
    return many if FULL else few


def start(
    code: str | Path, layer: str = "default", before: Callable[[], Any] | None = None, **settings: Any
) -> Any:
    """A process that runs code, or a file, on a threading layer; `before` runs in it first of all.

    A setting is a variable of its environment; None removes it. It hears Ctrl-C, which whatever is started
    in the background of a shell is deaf to.
    """

    def first() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if before is not None:
            before()

    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    for name, value in settings.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = str(value)
    return subprocess.Popen(
        [sys.executable, str(code)] if isinstance(code, Path) else [sys.executable, "-c", code],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=first,
        cwd=str(Path(__file__).parent),
    )  # fmt: skip


def run(code: str | Path, layer: str = "default", *, timeout: float = 120, **settings: Any) -> str:
    """What `code` prints; it may neither fail, nor be killed, nor take longer than `timeout` seconds."""
    return finish(start(code, layer, **settings), timeout)


def finish(process: Any, timeout: float = 1500) -> str:
    """`run` of a process that has been started."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"hangs: {process.communicate()}")
    assert process.returncode == 0, (process.returncode, out, err)
    return str(out).strip()
