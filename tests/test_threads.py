"""The bits do not depend on who computes them; threads and forks neither abort nor hang."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from cases import logits
from fault import LAYERS, PROBLEM, linux, run, start, times

import fastloss as fl
from fastloss._engine import blocks, launch, threads

SHAPES = [(300, 700), (1, 400_000), (3, 150_000), (2, 1_200_000)]


def results(x: np.ndarray, y: np.ndarray, t: np.ndarray) -> list[Any]:
    return [
        fl.softmax(x), fl.softmax(x, out=np.empty_like(x)), fl.log_softmax(x), fl.logsumexp(x),
        fl.softmax.jvp(x, t), fl.log_softmax.vjp(x, t), fl.logsumexp.jvp(x, t), fl.softplus(x),
        fl.sigmoid.vjp(x, t), fl.cross_entropy(x, y, label_smoothing=0.1),
        *fl.cross_entropy.value_grad_hess(x, y), fl.cross_entropy.hvp(x, y, t),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_do_not_depend_on_the_threads(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch, dtype: type, rng: np.random.Generator
) -> None:
    x, t = logits(rng, shape, dtype), rng.normal(size=shape).astype(dtype)
    y = rng.integers(0, shape[1], shape[0])
    expected = results(x, y, t)
    for n in (1, 2, 3, 7):
        monkeypatch.setattr(threads, "count", lambda n=n: n)
        for ours, plain in zip(results(x, y, t), expected, strict=True):
            assert np.array_equal(ours, plain), n
    monkeypatch.setattr(launch, "layer_is_safe", lambda: False)  # the package's own threads
    monkeypatch.setattr(launch, "POOLED", 0)
    for ours, plain in zip(results(x, y, t), expected, strict=True):
        assert np.array_equal(ours, plain)
    monkeypatch.setattr(launch, "WORTHWHILE", 1 << 60)  # in place
    monkeypatch.setattr(blocks, "STREAMED", 0)
    for ours, plain in zip(results(x, y, t), expected, strict=True):
        assert np.array_equal(ours, plain)


@pytest.mark.parametrize("rest", range(0, 64, 7))
def test_streamed_stores_reach_every_element(
    rest: int, monkeypatch: pytest.MonkeyPatch, dtype: type, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(blocks, "STREAMED", 0)
    memory = np.full(5 * 2112 + 128, 7, dtype)
    memory = memory[(-memory.ctypes.data % 64) // memory.itemsize :]  # from a cache line on
    x = logits(rng, (5, 2112 - rest), dtype)
    out = memory[rest : rest + x.size].reshape(x.shape)
    fl.softmax(x, out=out)
    assert np.array_equal(out, fl.softmax(x))
    assert (memory[:rest] == 7).all()
    assert (memory[rest + x.size :] == 7).all()


def streaming(x: np.ndarray, y: np.ndarray, t: np.ndarray) -> dict[str, Any]:
    """Calls that write an array like x."""
    return {
        "softmax": partial(fl.softmax, x),
        "log_softmax": partial(fl.log_softmax, x),
        "softmax.vjp": partial(fl.softmax.vjp, x, t),
        "from output": partial(fl.log_softmax.vjp_from_output, x, t),
        "cross_entropy": partial(fl.cross_entropy.grad, x, y, ignore_index=-1),
        "smoothing": partial(fl.cross_entropy.grad, x, y, ignore_index=-1, label_smoothing=0.1),
        "hvp": partial(fl.cross_entropy.hvp, x, y, t, ignore_index=-1),
        "sigmoid": partial(fl.sigmoid, x),
        "mse_loss": partial(fl.mse_loss.grad, x, t),
        "multiclass_hinge_loss": partial(fl.multiclass_hinge_loss.grad, x, y, ignore_index=-1),
        "max_hinge_loss": partial(fl.max_hinge_loss.grad, x, y, ignore_index=-1),
        "arcface_loss": partial(fl.arcface_loss.grad, np.tanh(x), y, ignore_index=-1),
        "probabilities": partial(fl.cross_entropy.grad, x, np.abs(t)),
        "curvature": lambda out: fl.cross_entropy.value_grad_hess(
            x, y, ignore_index=-1, out=(np.empty_like(x), out)
        )[2],
        "entropy": partial(fl.entropy_from_logits.vjp, x, t[:, 0]),
    }


@pytest.mark.parametrize("columns", [1, 3, 7, 31, 33, 47, 130, 1000, 1030, 2500])
def test_lines_that_rows_share_reach_memory_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, dtype: type, rng: np.random.Generator
) -> None:
    """Past the cache, wherever on a line rows begin and whoever writes them: every number, nothing beside."""
    monkeypatch.setattr(launch, "WORTHWHILE", 2)
    x, t = logits(rng, (11, columns), dtype), rng.normal(size=(11, columns)).astype(dtype)
    y = rng.integers(-1, columns, 11)
    x[1, -1], x[2, columns // 2] = 90, 80  # blocks see maxima of their own
    for name, call in streaming(x, y, t).items():
        monkeypatch.setattr(blocks, "STREAMED", 1 << 60)
        expected = call(out=np.empty_like(x))
        monkeypatch.setattr(blocks, "STREAMED", 0)
        for count in (1, 3):
            monkeypatch.setattr(threads, "count", lambda n=count: n)
            for begin in (0, 1, 5, 15):
                memory = np.full(x.size + 48, 7, dtype)
                first = begin + (-memory.ctypes.data % 64) // memory.itemsize
                out = memory[first : first + x.size].reshape(x.shape)
                call(out=out)
                assert np.array_equal(out, expected, equal_nan=True), (name, count, begin)
                assert (memory[:first] == 7).all(), (name, count, begin)
                assert (memory[first + x.size :] == 7).all(), (name, count, begin)


@pytest.mark.parametrize("columns", [1000, 1024, 2051, 3072, 33_000])
def test_a_row_among_others_has_the_bits_it_has_alone(
    columns: int, monkeypatch: pytest.MonkeyPatch, dtype: type, rng: np.random.Generator
) -> None:
    """One's results are written while the next is read: whatever either holds, in place and elsewhere."""
    x = np.tile(logits(rng, (8, columns), dtype), (2, 1))
    x[1].sort()
    x[2] = x[1, ::-1]
    x[3, : columns // 2] = x[4, columns // 2 :] = x[5] = -np.inf
    x[6, columns // 3], x[7, -1] = np.nan, np.inf
    x = x[rng.permutation(16)]
    y, temperature = rng.integers(-1, columns, 16), 0.7
    y[:2] = 0, columns - 1
    calls = {
        "softmax": partial(fl.softmax, temperature=temperature),
        "log_softmax": partial(fl.log_softmax, temperature=temperature),
        "cross_entropy": lambda x, out=None, y=y: fl.cross_entropy.grad(
            x, y, ignore_index=-1, reduction="sum", temperature=temperature, out=out
        ),
    }
    for name, call in calls.items():
        alone = [
            call(x[i : i + 1], y=y[i : i + 1]) if name == "cross_entropy" else call(x[i : i + 1])
            for i in range(16)
        ]
        expected = np.concatenate(alone)
        for streamed in (0, 1 << 60):
            monkeypatch.setattr(blocks, "STREAMED", streamed)
            for count in (1, 3):
                monkeypatch.setattr(threads, "count", lambda n=count: n)
                for wider in (0, 1, 13):
                    out = np.full((16, columns + wider), 7, dtype)
                    call(x, out=out[:, :columns])
                    assert np.array_equal(out[:, :columns], expected, equal_nan=True), (name, count, wider)
                    assert (out[:, columns:] == 7).all(), (name, count, wider)
                own = x.copy()
                call(own, out=own)
                assert np.array_equal(own, expected, equal_nan=True), (name, count)


CALLERS = """
calls = {calls}
if {beside}:
    import numba
    @numba.njit(parallel=True)
    def own(a):
        total = 0.0
        for i in numba.prange(a.size):
            total += a[i]
        return total
    ones = np.ones(100_000)
    own(ones)
wrong, running = [], True

def call(k):
    for n in range(calls):
        if (k + n) % 2:
            if not np.array_equal(fl.softmax(x), expected[0]):
                wrong.append(k)
        elif fl.cross_entropy(x, y) != expected[1]:
            wrong.append(k)
        # Small enough for one worker: what a thread keeps for such calls is its own.
        if not np.array_equal(fl.softmax(x[k : k + 20]), expected[0][k : k + 20]):
            wrong.append(k)

def theirs():
    while running:
        if own(ones) != 100_000:
            wrong.append("theirs")

expected = answers()
assert right(expected)
threads = [threading.Thread(target=call, args=(k,)) for k in range(32)]
user = threading.Thread(target=theirs)
if {beside}:
    user.start()
for t in threads:
    t.start()
for t in threads:
    t.join()
running = False
if {beside}:
    user.join()
print(len(wrong), "wrong")
"""


@LAYERS
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a user's kernel"])
def test_32_threads_call_at_once(layer: str, beside: bool) -> None:
    code = PROBLEM + CALLERS.format(calls=times(15, 500), beside=beside)
    assert run(code, layer, timeout=600) == "0 wrong"


def test_workqueue_is_never_launched() -> None:
    code = """
import numba
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    assert all(right(pool.submit(answers).result()) for _ in range(20))
try:
    print(numba.threading_layer())
except ValueError:
    print("none")
"""
    assert run(PROBLEM + code, "workqueue") == "none"


SCHEDULERS = {
    "ThreadPoolExecutor": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    assert all(right(f.result()) for f in [pool.submit(answers) for _ in range(40)])
""",
    "joblib, threading": """
from joblib import Parallel, delayed
assert all(map(right, Parallel(8, backend="threading")(delayed(answers)() for _ in range(40))))
""",
    "joblib, loky": """
from joblib import Parallel, delayed
p, loss = fl.softmax(x), fl.cross_entropy(x, y)
for ours in Parallel(2, backend="loky")(delayed(fl.softmax)(x) for _ in range(6)):
    assert np.array_equal(ours, p)
for ours in Parallel(2, backend="loky")(delayed(fl.cross_entropy.grad)(x, y) for _ in range(6)):
    assert np.array_equal(ours, fl.cross_entropy.grad(x, y))
""",
    "dask": """
import dask, dask.array as da
rows = da.from_array(x, chunks=(50, 700))
with dask.config.set(scheduler="threads", num_workers=8):
    assert right((rows.map_blocks(fl.softmax, dtype=x.dtype).compute(), fl.cross_entropy(x, y)))
""",
}


@LAYERS
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(scheduler: str, layer: str) -> None:
    if scheduler != "ThreadPoolExecutor":
        pytest.importorskip(scheduler.partition(",")[0])
    code = f"{SCHEDULERS[scheduler]}\nassert right(answers())\nprint('ok')"
    assert run(PROBLEM + code, layer) == "ok"


@LAYERS
@pytest.mark.parametrize("order", ["before", "after"])
def test_beside_torch(order: str, layer: str) -> None:
    pytest.importorskip("torch")
    use = "import torch\nassert torch.softmax(torch.ones(200, 1000), -1).sum() > 199\n"
    code = use + PROBLEM if order == "before" else PROBLEM + "assert right(answers())\n" + use
    again = "assert right(answers()) and torch.ones(1000, 1000).exp().sum() > 0\n" * 3
    assert run(code + again + "print('ok')", layer) == "ok"


# ---- how many -------------------------------------------------------------------------------
def test_number_of_threads() -> None:
    most = threads.available()
    assert threads.count() == most
    with fl.num_threads(1):
        assert threads.count() == 1
        assert threads.source() == "fastloss.num_threads"
        with fl.num_threads(most):
            assert threads.count() == most
        assert threads.count() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(threads.count).result() == most
    with pytest.raises(RuntimeError, match="ours"), fl.num_threads(1):
        raise RuntimeError("ours")
    assert threads.count() == most
    one = fl.num_threads(1)
    with one, one, ThreadPoolExecutor(1) as pool:
        assert pool.submit(one.__enter__).result() is None
        assert pool.submit(threads.count).result() == 1
        assert threads.count() == 1
    assert threads.count() == most
    for wrong in (0, -1, most + 1):
        with pytest.raises(ValueError, match=f"^n must be from 1 to {most}"):
            fl.num_threads(wrong)
        with pytest.raises(ValueError, match=f"^n must be from 1 to {most}"):
            fl.set_num_threads(wrong)
    for wrong in (1.0, "1", None):
        with pytest.raises(TypeError, match=r"^n must be an integer"):
            fl.set_num_threads(wrong)  # type: ignore[arg-type]


def test_number_of_threads_of_the_process() -> None:
    code = """
from fastloss._engine import threads
print(threads.count(), threads.source())
fl.set_num_threads(1)
print(threads.count(), threads.source())
seen = []
t = threading.Thread(target=lambda: seen.append(threads.count()))
t.start(); t.join()
print(*seen)
import numba
assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
assert right(answers())
"""
    most = threads.available()
    lines = run(PROBLEM + code).splitlines()
    assert lines[0].split()[0] == str(most)
    assert lines[1:] == ["1 fastloss.set_num_threads", "1"]
    assert run(PROBLEM + code, FASTLOSS_NUM_THREADS=1).splitlines()[0] == "1 FASTLOSS_NUM_THREADS"
    shown = "try:\n    fl.softmax(x)\nexcept ValueError as e:\n    print(e)"
    for wrong in ("0", str(most + 1), "two"):
        said = run(PROBLEM + shown, FASTLOSS_NUM_THREADS=wrong)
        assert said.startswith("FASTLOSS_NUM_THREADS must be")
        assert wrong in said


def test_users_mask_and_layer_stay() -> None:
    code = """
import numba
numba.set_num_threads(1)
assert right(answers())
print(numba.get_num_threads(), numba.config.THREADING_LAYER)
"""
    assert run(PROBLEM + code, "omp") == "1 omp"


@linux
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "GOMP_SPINCOUNT = '10000'"),
        ({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"),
        ({"OMP_WAIT_POLICY": "active"}, "OMP_WAIT_POLICY = 'ACTIVE'"),
    ],
)
def test_idle_threads_sleep_soon_unless_the_user_has_chosen(given: dict[str, str], found: str) -> None:
    chosen = {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": None, **given}
    code = """
import os
before = dict(os.environ)
import fastloss as fl
fl.softmax
assert dict(os.environ) == before
"""
    process = start(code, "omp", OMP_DISPLAY_ENV="verbose", **chosen)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("not GNU's")
    assert found in said


def test_nothing_happens_at_import() -> None:
    code = """
import os, sys, threading, multiprocessing
def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
import numba
before = tasks()
import fastloss as fl
for name in fl.__all__:
    getattr(fl, name)
from fastloss._engine import cache
assert (tasks(), threading.active_count(), cache.compilations) == (before, 1, 0)
assert multiprocessing.get_start_method(allow_none=True) is None
try:
    numba.threading_layer()
except ValueError:
    print("ok")
"""
    assert run(code) == "ok"


def test_without_the_compiler_there_is_a_clear_error() -> None:
    code = """
try:
    fl.softmax(x)
except RuntimeError as error:
    print(error)
"""
    assert "NUMBA_DISABLE_JIT is set" in run(PROBLEM + code, NUMBA_DISABLE_JIT=1)


def test_an_interrupt_waits_for_the_other_workers() -> None:
    """They write to arrays that may be gone once it is raised on."""
    done = []

    def entry(*arguments: int) -> None:
        w = arguments[1]
        if w == 0:
            time.sleep(0.1)  # the other has begun
            raise KeyboardInterrupt
        time.sleep(0.4)
        done.append(w)

    with pytest.raises(KeyboardInterrupt):
        launch._run_on_pool(entry, 0, 2, [(0, 1)])
    assert done == [1]


def test_a_worker_that_fails_does_not_lose_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread to be had: the caller does all the work itself."""

    def none(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    x = np.random.default_rng(0).normal(size=(300, 700))
    expected = fl.softmax(x)
    monkeypatch.setattr(launch, "layer_is_safe", lambda: False)
    monkeypatch.setattr(launch, "POOLED", 0)
    monkeypatch.setattr("threading.Thread.start", none)
    monkeypatch.setattr(launch._state, "pool", None)
    assert np.array_equal(fl.softmax(x), expected)
    assert launch._state.pool is None  # nothing waits for threads that do not come
    monkeypatch.undo()
    monkeypatch.setattr(launch, "POOLED", 0)
    monkeypatch.setattr("threading.Thread.start", none)
    monkeypatch.setattr(launch, "layer", lambda: ("omp", False))
    monkeypatch.setattr(launch._state, "enough", None)
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", 2)
    monkeypatch.setattr(launch._state, "pool", None)
    assert not launch._may_launch()
    assert np.array_equal(fl.softmax(x), expected)


@LAYERS
def test_a_signal_handler_may_call_while_a_call_runs(layer: str) -> None:
    code = """
expected, inside, depth = answers(), [], [0]
def handler(*_):
    depth[0] += 1
    if depth[0] < 5:  # another signal may come before this one is dealt with, on a busy machine for ever
        inside.append(np.array_equal(fl.softmax(x), expected[0]))
    depth[0] -= 1
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
until = time.monotonic() + {seconds}
while time.monotonic() < until:
    assert np.array_equal(fl.softmax(x), expected[0])
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(inside) > 100 and all(inside)
print("ok")
"""
    assert run(PROBLEM + code.format(seconds=times(2, 60)), layer, timeout=200) == "ok"
