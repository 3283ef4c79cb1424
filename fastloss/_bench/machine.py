"""What machine and versions a table is of, and how much of it others took meanwhile."""

from __future__ import annotations

import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastloss import runtime
from fastloss._bench.rivals import LIBRARIES, is_installed


def machine() -> dict[str, str | int]:
    """The CPU, its cores, and the threads that fastloss uses of them."""
    found = runtime.show_config("dicts") or {}
    return {
        "cpu": found["cpu"], "vector bits": found["vector_bits"],
        "cores": os.cpu_count() or 1, "threads": found["threads"],
    }


def versions() -> dict[str, str]:
    """Of fastloss, what it stands on, and the rivals that are installed."""
    found = runtime.show_config("dicts") or {}
    known = {name: str(found[name]) for name in ("fastloss", "python", "numpy", "numba", "llvmlite")}
    for name, library in LIBRARIES.items():
        if library.distribution not in known and is_installed(name):
            try:
                known[library.distribution] = version(library.distribution)
            except PackageNotFoundError:  # a folder of that name, say
                continue
    return known


class Others:
    """CPUs that other processes kept busy since this object was made.

    One busy neighbour on two cores halves whatever runs on both, and leaves what runs on one as it
    was: ratios bend too, however the times are interleaved.
    """

    def __init__(self) -> None:
        self._busy, self._mine, self._start = _busy(), time.process_time(), time.perf_counter()

    def cpus(self) -> float | None:
        """None where the system does not say."""
        now = _busy()
        if now is None or self._busy is None:
            return None
        others = now - self._busy - (time.process_time() - self._mine)
        return max(0.0, round(others / (time.perf_counter() - self._start), 2))


def _busy() -> float | None:
    """CPU seconds that all processes, the kernel and the hypervisor have taken since boot; Linux."""
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, _idle, _iowait, *rest = (int(ticks) for ticks in line.split()[1:9])
        return float(user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
