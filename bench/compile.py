"""`python bench/compile.py`: what importing and compiling cost, each in fresh interpreters.

Imports and cached calls are medians of interpreters started in turn; cold ones run once, in a cache of
their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from statistics import median

ROUNDS = 15
_ARRAYS = "import numpy as np; x = np.ones((2, 3), np.float32); y = np.array([0, 1])"
IMPORTS = {
    "numpy": "import numpy",
    "fastloss": "import numpy, fastloss",
    "numba": "import numpy, numba",
}
CALLS = {
    "softmax": f"{_ARRAYS}; import fastloss as fl; fl.softmax(x)",
    "cross_entropy": f"{_ARRAYS}; import fastloss as fl; fl.cross_entropy(x, y)",
}


def seconds(code: str, cache: str) -> float:
    """Wall time of an interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"FASTLOSS_CACHE_DIR": cache}
    )
    return time.perf_counter() - start


def in_turn(programs: Mapping[str, str], cache: str) -> dict[str, list[float]]:
    """Seconds of each program in each round, the first of which fills the files' caches."""
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for k in range(ROUNDS + 1):
        for name, code in programs.items():
            if k:
                taken[name].append(seconds(code, cache))
            else:
                seconds(code, cache)
    return taken


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, code in CALLS.items():
            print(f"cold first call, {name:<16} {seconds(code, f'{folder}/{name}'):6.2f} s")
        start = time.perf_counter()
        warmed = subprocess.run(
            [sys.executable, "-m", "fastloss", "warmup", "--json"], check=True, capture_output=True,
            env=os.environ | {"FASTLOSS_CACHE_DIR": f"{folder}/all"},
        )
        compiled = json.loads(warmed.stdout)["compiled"]
        print(f"fastloss warmup, {compiled} compilations  {time.perf_counter() - start:6.1f} s")
        taken = in_turn({"nothing": "pass", **IMPORTS, **CALLS}, f"{folder}/all")
    for name in CALLS:
        print(f"cached first call, {name:<14} {median(taken[name]) * 1e3:6.0f} ms from the start")
    for name, base in (("numpy", "nothing"), ("numba", "numpy"), ("fastloss", "numpy")):
        above = median(a - b for a, b in zip(taken[name], taken[base], strict=True))
        print(f"import {name}, above {base:<15} {above * 1e3:6.1f} ms")


if __name__ == "__main__":
    main()
