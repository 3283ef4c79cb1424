"""Where compiled code is kept, and that no fault of it costs more than a warning and a compile."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault import FULL, forks, linux, times
from fault import run as run_optimised
from fault import start as start_optimised

import fastloss
from fastloss import runtime
from fastloss._engine import classes, threads
from fastloss._engine.kernels import KERNELS

# What is kept does not depend on how well it is compiled; how long these tests take does. (Without any
# optimisation Numba keeps nothing.)
run, start = (partial(f, NUMBA_OPT=1) for f in (run_optimised, start_optimised))

CODE = """
import sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastloss as fl
    print(fl.sigmoid([-2.0, 0.0, 2.0]).round(4).tolist())
    from fastloss._engine import cache
    print(cache.compilations)
for w in caught:
    print(w.category.__name__, w.message)
"""
several = pytest.mark.skipif(threads.available() < 2, reason="needs two CPUs")
ANSWER = "[0.1192, 0.5, 0.8808]"
posix = pytest.mark.skipif(os.name != "posix", reason="modes, links and limits are POSIX's")


def lines(cache: Path, **settings: Any) -> list[str]:
    """The answer, the number of compilations, and the warnings of a process of its own."""
    return run(CODE, **{"FASTLOSS_CACHE_DIR": str(cache), **settings}).splitlines()


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    assert lines(tmp_path / "c") == [ANSWER, "1"]
    assert lines(tmp_path / "c") == [ANSWER, "0"]
    (home,) = (tmp_path / "c").iterdir()
    assert home.stat().st_mode & 0o777 == 0o700
    (file,) = home.iterdir()
    assert file.suffix == ".code"
    assert file.stat().st_mode & 0o777 == 0o600
    assert lines(tmp_path / "c", NUMBA_OPT="2") == [ANSWER, "1"]  # other code, another directory
    assert len(list((tmp_path / "c").iterdir())) == 2


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    assert lines(tmp_path / "c", FASTLOSS_CACHE="0") == [ANSWER, "1"]
    assert not (tmp_path / "c").exists()


# ---- directories ----------------------------------------------------------------------------
def a_file(cache: Path) -> None:
    cache.write_text("not a directory")


def a_link(cache: Path) -> None:
    (cache.parent / "elsewhere").mkdir()
    cache.symlink_to(cache.parent / "elsewhere")


def open_to_the_group(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o775)


def open_to_others(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)


def of_another_user(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(cache, 65534, 65534)


def a_file_on_the_way(cache: Path) -> None:
    cache.parent.rmdir()
    cache.parent.write_text("not a directory")


@posix
@pytest.mark.parametrize(
    "spoil", [a_file, a_link, open_to_the_group, open_to_others, of_another_user, a_file_on_the_way]
)
def test_a_directory_that_cannot_be_trusted_is_not_used(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    cache = tmp_path / "in" / "c"
    spoil(cache)
    answer, compiled, *warned = lines(cache)
    assert (answer, compiled) == (ANSWER, "1")
    assert len(warned) == 1
    assert warned[0].startswith("RuntimeWarning fastloss: no cache directory")


@posix
def test_a_read_only_directory(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    cache.mkdir()
    cache.chmod(0o500)
    answer, compiled, *warned = lines(cache)
    assert (answer, compiled) == (ANSWER, "1")
    assert len(warned) == (os.geteuid() != 0)  # root writes there all the same


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    assert lines(tmp_path / "not" / "there" / "c") == [ANSWER, "1"]
    assert lines(tmp_path / "not" / "there" / "c") == [ANSWER, "0"]


@posix
def test_the_umask_does_not_spoil_it(tmp_path: Path) -> None:
    code = f"import os; os.umask(0o002)\n{CODE}"
    for compiled in ("1", "0"):
        assert run(code, FASTLOSS_CACHE_DIR=tmp_path / "c").splitlines() == [ANSWER, compiled]


@posix
def test_without_a_home(tmp_path: Path) -> None:
    answer, _, *warned = lines(
        tmp_path, FASTLOSS_CACHE_DIR=None, HOME=None, XDG_CACHE_HOME=str(tmp_path / "x")
    )
    assert (answer, warned) == (ANSWER, [])
    homeless = "import pathlib\ndef no(*_): raise RuntimeError('no home')\npathlib.Path.home = no\n" + CODE
    answer, compiled, *warned = run(
        homeless, FASTLOSS_CACHE_DIR=None, HOME=None, XDG_CACHE_HOME=None
    ).splitlines()
    assert (answer, compiled, len(warned)) == (ANSWER, "1", 1)


@posix
def test_a_full_disk(tmp_path: Path) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    answer, compiled, *warned = run(limit + CODE, FASTLOSS_CACHE_DIR=tmp_path / "c").splitlines()
    assert (answer, compiled, len(warned)) == (ANSWER, "1", 1)
    assert "cannot be written" in warned[0]
    assert [p for p in (tmp_path / "c").rglob("*") if p.is_file()] == []
    assert lines(tmp_path / "c") == [ANSWER, "1"]
    assert lines(tmp_path / "c") == [ANSWER, "0"]


# ---- files ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("filled") / "c"
    assert lines(cache) == [ANSWER, "1"]
    return cache


def flipped(whole: bytes, place: float) -> bytes:
    at = int(place * (len(whole) - 1))
    return whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"\x80\x05garbage",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: flipped(whole, 0.0),
        *(lambda whole, k=k: flipped(whole, (k + 0.5) / times(1, 200)) for k in range(times(1, 200))),
    ],
)
def test_a_broken_file_costs_a_warning_and_a_compile(
    spoil: Callable[[bytes], bytes], filled_cache: Path, tmp_path: Path
) -> None:
    shutil.copytree(filled_cache, tmp_path / "c")
    (broken,) = (tmp_path / "c").rglob("*.code")
    bad = spoil(broken.read_bytes())
    broken.write_bytes(bad)
    answer, compiled, *warned = lines(tmp_path / "c")
    assert (answer, compiled, len(warned)) == (ANSWER, "1", 1)
    assert "cannot be used" in warned[0]
    assert broken.stat().st_size > 1000
    if FULL or not bad:
        assert lines(tmp_path / "c") == [ANSWER, "0"]  # and is mended


def test_old_directories_are_pruned(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    cache.mkdir(mode=0o700)
    for k in range(7):
        old = cache / f"kernels-{k:020x}"
        old.mkdir()
        (old / "x.code").write_bytes(b"old")
        then = time.time() - 3600 * k - (100 * 86400 if k == 2 else 0)
        os.utime(old, (then, then))
    (cache / "kernels-of-mine").mkdir()
    assert lines(cache) == [ANSWER, "1"]
    left = sorted(p.name for p in cache.iterdir() if re.fullmatch(r"kernels-0{19}.", p.name))
    assert [name[-1] for name in left] == ["0", "1", "3", "4"]  # 2 is the oldest
    assert (cache / "kernels-of-mine").exists()


# ---- other sources --------------------------------------------------------------------------
def copied_package(to: Path) -> Path:
    """A copy of the package, which `scaled` edits."""
    shutil.copytree(
        Path(fastloss.__file__).parent, to / "fastloss", ignore=shutil.ignore_patterns("__pycache__")
    )
    return to


def scaled(package: Path, factor: int) -> None:
    """Make sigmoid come out times `factor`."""
    source = package / "fastloss" / "softmax.py"
    plain = (Path(fastloss.__file__).parent / "softmax.py").read_text()
    formula = "return r if x > 0 else e * r, e * r * r"
    assert plain.count(formula) == 1
    edited = f"return cast({factor}.0, x) * (r if x > 0 else e * r), e * r * r"
    source.write_text(plain.replace(formula, edited))


def of(package: Path) -> str:
    return f"import sys; sys.path.insert(0, {str(package)!r}); sys.dont_write_bytecode = True\n{CODE}"


def answer_of(factor: int) -> str:
    return str((factor / (1 + np.exp([2.0, 0.0, -2.0]))).round(4).tolist())


def test_two_versions_share_a_home(tmp_path: Path) -> None:
    packages = [copied_package(tmp_path / str(factor)) for factor in (2, 3)]
    for compiled in ("1", "0", "0"):
        for factor, package in zip((2, 3), packages, strict=True):
            scaled(package, factor)
            ours = run(of(package), FASTLOSS_CACHE_DIR=tmp_path / "c").splitlines()
            assert ours == [answer_of(factor), compiled]


def test_an_edit_while_the_process_runs_is_not_kept_under_the_old_name(tmp_path: Path) -> None:
    package = copied_package(tmp_path / "p")
    scaled(package, 2)
    edit = f"""
import pathlib
source = pathlib.Path({str(package / "fastloss" / "softmax.py")!r})
import fastloss.softmax
source.write_text(source.read_text().replace("cast(2.0, x)", "cast(3.0, x)"))
"""
    code = of(package)
    first, rest = code.split("\n", 1)
    ours = run(f"{first}\n{edit}{rest}", FASTLOSS_CACHE_DIR=tmp_path / "c").splitlines()
    assert ours == [answer_of(2), "1"]  # the source as it was imported
    assert run(code, FASTLOSS_CACHE_DIR=tmp_path / "c").splitlines() == [answer_of(3), "1"]
    scaled(package, 2)
    assert run(code, FASTLOSS_CACHE_DIR=tmp_path / "c").splitlines() == [answer_of(2), "1"]


def test_settings_changed_while_the_process_runs_are_not_kept_under_the_old_name(tmp_path: Path) -> None:
    change = "import os, numba, fastloss.softmax\n"
    for each in ("os.environ['NUMBA_LOOP_VECTORIZE'] = '0'", "numba.config.LOOP_VECTORIZE = 0"):
        ours = run(f"{change}{each}\n{CODE}", FASTLOSS_CACHE_DIR=tmp_path / "c").splitlines()
        assert ours == [ANSWER, "1"]
    assert list((tmp_path / "c").rglob("*.code")) == []


@forks
def test_killed_at_any_moment_it_never_leaves_stale_code(tmp_path: Path) -> None:
    """A cold run is killed, the source changed: the next run's answer is that of the new source."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    moments = random.Random(seed)
    package = copied_package(tmp_path / "p")
    code, cache = of(package), tmp_path / "c"
    scaled(package, 1)
    begun = time.monotonic()
    assert run(code, FASTLOSS_CACHE_DIR=cache).splitlines()[0] == answer_of(1)
    cold = time.monotonic() - begun
    rounds, k, killed = times(1, 200), 0, 0
    while k < rounds or not killed:  # a run on a machine less busy than at first may outrun the kill
        assert k < rounds + 20
        scaled(package, 2 * k + 2)
        process = start(code, FASTLOSS_CACHE_DIR=cache)
        time.sleep(moments.uniform(0.1, 1.0) * cold)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.communicate()
        scaled(package, 2 * k + 3)
        assert run(code, FASTLOSS_CACHE_DIR=cache).splitlines()[0] == answer_of(2 * k + 3)
        scaled(package, 2 * k + 2)  # of whose code the killed one may have kept a part
        answer, _, *warned = run(code, FASTLOSS_CACHE_DIR=cache).splitlines()
        assert (answer, warned) == (answer_of(2 * k + 2), [])
        k += 1
    print(f"{killed} of {k} killed before they were done; cold run {cold:.1f} s")


def test_cold_processes_at_once(tmp_path: Path) -> None:
    count = times(3, 16)
    processes = [start(CODE, FASTLOSS_CACHE_DIR=tmp_path / "c") for _ in range(count)]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out.splitlines()[0], len(out.splitlines())) == (0, ANSWER, 2), err
    (home,) = (tmp_path / "c").iterdir()
    assert [p.suffix for p in home.iterdir()] == [".code"]


# ---- warmup ---------------------------------------------------------------------------------
def test_after_warmup_no_call_compiles(tmp_path: Path) -> None:
    code = """
import numpy as np, fastloss as fl
from fastloss._engine import cache
print(fl.warmup("float32", ["sigmoid", "softplus"]))
rng = np.random.default_rng(0)
for shape in ((3, 4), (200, 900), (1, 200_000)):
    x = rng.normal(size=shape).astype(np.float32)
    for same in (x, x[:, ::-1], x.astype(">f4"), np.asfortranarray(x), np.broadcast_to(x[0], shape)):
        same.flags.writeable = False
        out = np.empty(shape, np.float32)
        for f in (fl.sigmoid, fl.softplus):
            f(same), f(same, out=out), f.jvp(same, same), f.vjp(same, same, out=out)
print(cache.compilations)
print(fl.warmup("float32", "softplus"))
"""
    # Of two operations, values and products, which other processes compiled; and what threads share.
    all_, own = ("5", "1") if threads.available() > 1 else ("5", "5")
    assert run(code, FASTLOSS_CACHE_DIR=tmp_path / "c", timeout=300).splitlines() == [all_, own, "0"]
    assert run(code, FASTLOSS_CACHE_DIR=tmp_path / "c").splitlines() == ["0", "0", "0"]
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".code"}


WARM = """
import sys
print("begun")
import fastloss as fl
from fastloss._engine import cache, threads
threads.available = lambda: 2
print(fl.warmup("float32", "sigmoid"), cache.compilations)
"""


@several
@posix
def test_warmup_of_a_script_without_a_main_guard_or_standard_input(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WARM)
    env = os.environ | {"FASTLOSS_CACHE_DIR": str(tmp_path / "c"), "NUMBA_OPT": "1"}
    command = f"exec {sys.executable} {script} <&- 2>&-"
    done = subprocess.run(command, shell=True, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["begun", "3 1"])


def test_warmup_without_a_cache() -> None:
    assert run(WARM, FASTLOSS_CACHE=0).splitlines() == ["begun", "3 3"]


@linux
@several
def test_ctrl_c_ends_warmup_and_its_processes(tmp_path: Path) -> None:
    code = """
import fastloss as fl
from fastloss._engine import crew
hired = crew._hired
def shown(program):
    process = hired(program)
    print(process.pid, flush=True)
    return process
crew._hired = shown
fl.warmup()
"""
    process = start(code, FASTLOSS_CACHE_DIR=tmp_path / "c")
    crew = [int(process.stdout.readline()) for _ in range(2)]
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in err
    assert [pid for pid in crew if os.path.exists(f"/proc/{pid}")] == []


def test_warmup_is_of_every_kernel_in_both_types() -> None:
    jobs = runtime._jobs(runtime._operations().values(), [np.dtype("f4"), np.dtype("f8")])
    of_integers = (classes.narrow_classes, "q")
    others = {(kernel, kind) for kernel in KERNELS for kind in "fd" if kernel is not of_integers[0]}
    assert set(jobs) == {of_integers, *others}
    assert len({runtime._name(job) for job in jobs}) == len(jobs)
    names = [kernel.__name__ for kernel in KERNELS]
    assert len(set(names)) == len(names)  # the cache knows kernels by them
    assert len(jobs) <= 95  # compilations, which users wait for


def test_warmup_of_what_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"ops names 'softmix'; the operations are .*softmax"):
        fastloss.warmup(ops=["softmix"])
    with pytest.raises(TypeError, match="dtypes has dtype complex128"):
        fastloss.warmup("complex128", "sigmoid")
    with pytest.raises(TypeError, match="dtypes names 'float33'"):
        fastloss.warmup("float33", "sigmoid")
