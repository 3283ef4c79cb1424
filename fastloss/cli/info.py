"""`fastloss info`: what this installation is and where it keeps things. Launches and compiles nothing."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
import numpy as np

import fastloss
from fastloss._engine import cache, launch


def collect() -> dict[str, Any]:
    features = llvmlite.binding.get_host_cpu_features()
    widths = (("avx512f", 512), ("avx2", 256), ("avx", 256))
    width = next((w for name, w in widths if features.get(name)), 128)
    where = cache.directory()
    return {
        "fastloss": fastloss.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "vector_bits": width,
        "threads": launch.threads(),
        "parallel": "numba's threads" if launch.layer_is_safe() else "fastloss's own threads",
        "cache": str(where) if where else None,
        "cache_bytes": sum(f.stat().st_size for f in where.rglob("*") if f.is_file()) if where else 0,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({llvmlite.binding.get_host_cpu_name()})"
    except OSError:
        pass
    return str(llvmlite.binding.get_host_cpu_name())


def run_info(*, as_json: bool) -> None:
    found = collect()
    if as_json:
        print(json.dumps(found))
        return
    found["cache"] = found["cache"] or "off"
    found["cache_bytes"] = f"{found['cache_bytes'] / 1e6:.1f} MB"
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<13}{value}")
