"""How much of the machine others took while races ran: what makes a table worth keeping, or not."""

from __future__ import annotations

import os
import time
from pathlib import Path


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
