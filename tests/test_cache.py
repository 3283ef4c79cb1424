"""Where compiled code is kept, and that no fault of it costs more than a warning and a compile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CODE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastloss as fl
    print(fl.sigmoid([-2.0, 0.0, 2.0]).round(4).tolist())
    from fastloss._engine import cache
    print(cache.compilations)
for w in caught:
    print(w.category.__name__, w.message)
"""
ANSWER = "[0.1192, 0.5, 0.8808]"


def run(cache: Path, **settings: str) -> list[str]:
    """The answer, the number of compilations, and the warnings of a process of its own."""
    environment = {**os.environ, "FASTLOSS_CACHE_DIR": str(cache), **settings}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    assert run(tmp_path / "c") == [ANSWER, "1"]
    assert run(tmp_path / "c") == [ANSWER, "0"]
    (home,) = (tmp_path / "c").iterdir()
    assert home.stat().st_mode & 0o777 == 0o700
    (file,) = home.iterdir()
    assert file.suffix == ".code"
    assert file.stat().st_mode & 0o777 == 0o600
    assert run(tmp_path / "c", NUMBA_OPT="2") == [ANSWER, "1"]  # other code, another directory
    assert len(list((tmp_path / "c").iterdir())) == 2


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    assert run(tmp_path / "c", FASTLOSS_CACHE="0") == [ANSWER, "0"]
    assert not (tmp_path / "c").exists()


def a_file(cache: Path) -> None:
    cache.write_text("not a directory")


def a_link(cache: Path) -> None:
    (cache.parent / "elsewhere").mkdir()
    cache.symlink_to(cache.parent / "elsewhere")


def open_to_others(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
@pytest.mark.parametrize("spoil", [a_file, a_link, open_to_others])
def test_a_directory_that_cannot_be_trusted_is_not_used(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    spoil(tmp_path / "c")
    answer, hits, *warned = run(tmp_path / "c")
    assert (answer, hits) == (ANSWER, "0")
    assert len(warned) == 1
    assert warned[0].startswith("RuntimeWarning fastloss: no cache directory")


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("filled") / "c"
    assert run(cache) == [ANSWER, "0"]
    return cache


@pytest.mark.parametrize("suffix", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x05garbage", None])
def test_a_broken_file_costs_a_warning_and_a_compile(
    suffix: str, content: bytes | None, filled_cache: Path, tmp_path: Path
) -> None:
    shutil.copytree(filled_cache, tmp_path / "c")
    (broken,) = (tmp_path / "c").rglob(suffix)
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2] if content is None else content)
    answer, hits, *warned = run(tmp_path / "c")
    assert (answer, hits) == (ANSWER, "0")
    assert len(warned) <= 1
    assert all("cannot be used" in w for w in warned)
