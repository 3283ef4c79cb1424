"""Processes that are forks, of whatever and whenever: right, and soon."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault import LAYERS, PROBLEM, forks, run, times

from fastloss._engine import threads

pytestmark = forks

CHILDREN = """
if {after}:
    assert right(answers())

def child(depth):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        good = right(answers()) and right(answers())
        if depth:
            good = good and child(depth - 1)
        os._exit(0 if good else 1)
    return os.waitpid(pid, 0)[1] == 0

for _ in range({rounds}):
    assert child(1)
assert right(answers())
print("ok")
"""


@LAYERS
@pytest.mark.parametrize("after", [True, False], ids=["after use", "before"])
def test_child_and_grandchild(layer: str, after: bool) -> None:
    code = PROBLEM + CHILDREN.format(after=after, rounds=times(2, 50))
    assert run(code, layer, timeout=300) == "ok"


@LAYERS
def test_orphan(layer: str) -> None:
    """A fork of a fork whose parent has gone."""
    code = """
assert right(answers())
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        signal.alarm(30)
        os.write(write, b"right" if right(answers()) else b"wrong")
    os._exit(0)
os.wait()
os.close(write)
print(os.read(read, 10).decode())
"""
    assert run(PROBLEM + code, layer) == "right"


@LAYERS
def test_child_of_a_process_in_which_numba_alone_has_run(layer: str) -> None:
    """fastloss comes with the child; the threads of Numba's layer do not."""
    code = """
import os, signal, numba, numpy as np
@numba.njit(parallel=True)
def own(a):
    for i in numba.prange(a.size):
        a[i] += 1
own(np.zeros(1000))
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    import threading, time
    for _ in range(3):  # threads of its own, which are not those it lacks
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    code = {problem!r}
    space = dict()
    exec(code, space)
    os._exit(0 if space["right"](space["answers"]()) else 1)
print(os.waitpid(pid, 0)[1])
"""
    assert run(code.format(problem=PROBLEM), layer) == "0"


@LAYERS
def test_fork_while_another_thread_compiles(layer: str) -> None:
    code = """
fl.softplus(x)
compiler = threading.Thread(target=lambda: fl.log_sigmoid(x))
compiler.start()
time.sleep({wait})
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    begun = time.monotonic()
    good = np.allclose(fl.softplus(x), np.log1p(np.exp(x)), atol=1e-6)
    good = good and np.allclose(fl.log_sigmoid(x), -np.log1p(np.exp(-x)), atol=1e-6)
    os._exit(0 if good and time.monotonic() - begun < 10 else 1)
status = os.waitpid(pid, 0)[1]
compiler.join()
print(status)
"""
    for k in range(times(1, 10)):
        assert run(PROBLEM + code.format(wait=0.3 + 0.15 * k), layer, FASTLOSS_CACHE=0) == "0"


METHODS = """
import multiprocessing

def work(_):
    return right(answers())

if __name__ == "__main__":
    if {after}:
        assert right(answers())
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        assert all(pool.map(work, range(6)))
    print("ok")
"""


@LAYERS
@pytest.mark.parametrize("after", [True, False], ids=["after use", "before"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_start_methods(method: str, after: bool, layer: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROBLEM + METHODS.format(after=after, method=method))
    assert run(script, layer) == "ok"


def test_start_method_can_be_set_after_import() -> None:
    code = """
import multiprocessing
fl.softmax, fl.cross_entropy
multiprocessing.set_start_method("spawn")
assert right(answers())
print(multiprocessing.get_start_method())
"""
    assert run(PROBLEM + code) == "spawn"


@pytest.mark.parametrize("last", [False, True], ids=["imported before it", "imported after it"])
def test_whose_threads_after_a_kernel_of_the_users(last: bool) -> None:
    """Numba's, if the package saw the process before they started; else it may be a child that lacks them."""
    own = """
import numba, numpy as np
@numba.njit(parallel=True)
def own(a):
    for i in numba.prange(a.size):
        a[i] += 1
own(np.zeros(1000))
"""
    code = f"{'' if last else 'import fastloss'}\n{own}\n{PROBLEM}\nassert right(answers())\n"
    code += "launch.threads.available() > 1 and print(*[t.name for t in threading.enumerate()][1:2])"
    assert run(code, "omp").startswith("fastloss-") == (last and threads.available() > 1)
