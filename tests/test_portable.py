"""Other CPUs' code: right answers without the instructions that this CPU has and others lack.

A process compiles every kernel for another CPU, and runs there what judges the kernels here. All that it
took to compile is what `warmup` lists.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import llvmlite.binding
import pytest
from fault import FULL, start

X86 = platform.machine().lower() in ("x86_64", "amd64")
HASWELL = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2"

CODE = f"""
import os, re, sys
kinds = os.environ["KINDS"]
os.nice(10)
import pytest
folder = {str(Path(__file__).parent)!r}
sys.path.insert(0, folder)
tests = (
    "test_agreement.py::test_agrees_with_reference", "test_exp.py", "test_twofold.py",
    "test_strips.py::test_right",
)
chosen = ["-k", "not f8"] if kinds == "f" else []
status = pytest.main(["-q", *chosen, *(f"{{folder}}/{{name}}" for name in tests)])
import numpy as np
from fastloss import runtime
from fastloss._engine.kernels import KERNELS
compiled = {{
    (kernel, kind): entry for kernel in KERNELS for kind, entry in kernel.ready.items() if kind in kinds
}}
listed = runtime._jobs(runtime._operations().values(), [np.dtype(kind) for kind in kinds])
alike = {{job: entry.kinds for job, entry in compiled.items()}} == {{
    job: arguments for job, arguments in listed.items() if job[1] in kinds
}}
code = "".join(
    code.library.get_asm_str() for entry in compiled.values() for code in entry.run.overloads.values()
)
print("ends with", int(status), alike, *sorted(set(re.findall("[xyz]mm|vfmadd", code))))
"""
# The CPU, its features, the types that are tried (haswell's float64 in the full run), what its code holds.
CPUS = {
    "generic": ("generic", "", "fd", "xmm" if X86 else ""),
    "haswell": ("haswell", HASWELL, "fd" if FULL else "f", "vfmadd xmm ymm"),
}


processes: dict[str, Any] = {}


def begin() -> None:
    """Start both, if they have not been: they compile for half a minute of one core each. A CPU without
    AVX-512 runs code like haswell's in all other tests, and in this one in the full run alone.
    """
    host = llvmlite.binding.get_host_cpu_features()
    with_avx2 = X86 and host.get("avx2") and host.get("fma") and (FULL or host.get("avx512f"))
    for name, (cpu, features, kinds, _) in CPUS.items():
        if name not in processes and (name == "generic" or with_avx2):
            processes[name] = start(
                CODE, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features, FASTLOSS_CACHE=0,
                FASTLOSS_NUM_THREADS=1, KINDS=kinds,
            )


def end() -> None:
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", CPUS)
def test_right_on_other_cpus(name: str) -> None:
    begin()
    if name not in processes:
        pytest.skip(f"this CPU does not run {name}'s code, or all tests run code like that")
    out, err = processes[name].communicate(timeout=300)
    assert out.splitlines()[-1:] == [f"ends with 0 True {CPUS[name][-1]}".rstrip()], (out, err)
