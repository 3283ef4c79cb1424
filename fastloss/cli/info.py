"""`fastloss info`: what this installation is and where it keeps things. Launches and compiles nothing."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
import numpy as np

import fastloss
from fastloss._engine import cache, launch
from fastloss.cli import console


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
        "cache_bytes": _size(where) if where else 0,
    }


def _size(folder: Path) -> int:
    """Bytes of the files in `folder`, some of which may go while we look."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size


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
    versions = [(name, found[name]) for name in ("fastloss", "python", "numpy", "numba", "llvmlite")]
    cache = f"{found['cache']} ({found['cache_bytes'] / 1e6:.1f} MB)" if found["cache"] else "off"
    console.pairs(
        [
            *versions,
            ("system", found["system"]),
            ("cpu", f"{found['cpu']}, {found['vector_bits']}-bit vectors"),
            ("threads", f"{found['threads']}, {found['parallel']}"),
            ("cache", cache),
        ]
    )
