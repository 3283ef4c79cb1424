"""Where compiled code lives, and what happens when that goes wrong: a warning and a compile.

The directory is private (0700, ours, not a link: cache files are pickles, so whoever can write them
runs code in this process) and is named by a hash of everything that decides the machine code: the
package's sources, the versions of fastloss, Numba, llvmlite and Python, and the NUMBA_* settings.
Numba itself looks at one source file's time and size; under this name it never needs to.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import caching
from numba.core.compiler_lock import global_compiler_lock

# A NUMBA_* setting that only names a place or a number of threads leaves the code as it is.
_HARMLESS = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER"}


def compile_for(dispatcher: Any, signature: tuple[Any, ...]) -> None:
    """Compile `dispatcher` for one signature, from the cache and into it where there is one.

    It compiles for nothing else: a call with other types is a TypeError, not a wait.
    """
    with global_compiler_lock:
        dispatcher.disable_compile(False)
        try:
            _compile(dispatcher, signature)
        finally:
            dispatcher.disable_compile()


def _compile(dispatcher: Any, signature: tuple[Any, ...]) -> None:
    where = directory()
    if where is not None:
        try:
            _enable(dispatcher, where)
            dispatcher.compile(signature)
            return
        except Exception as error:  # whatever a broken file makes of Numba's unpickling
            _warn(f"{where} cannot be used ({type(error).__name__}: {error})")
            dispatcher.overloads.pop(signature, None)
    dispatcher._cache = caching.NullCache()
    dispatcher.compile(signature)


def _enable(dispatcher: Any, where: Path) -> None:
    saved = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(where)
    try:
        dispatcher.enable_caching()
    finally:
        numba.config.CACHE_DIR = saved


@lru_cache(maxsize=1)
def directory() -> Path | None:
    """The cache directory, made if need be; None where there is none or it cannot be trusted."""
    if os.environ.get("FASTLOSS_CACHE") == "0":
        return None
    try:
        base = _base()
        where = base / key()
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (base, where):
            _check(each)
    except (OSError, RuntimeError) as error:
        _warn(f"no cache directory ({error})")
        return None
    return where


def _base() -> Path:
    chosen = os.environ.get("FASTLOSS_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "fastloss"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastloss"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastloss"


def _check(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{path} is not a directory of its own")
    if hasattr(os, "getuid"):
        if found.st_uid != os.getuid():
            raise OSError(f"{path} belongs to another user")
        if stat.S_IMODE(found.st_mode) & 0o022:
            raise OSError(f"{path} can be written by others")
    if not os.access(path, os.W_OK | os.X_OK):
        raise OSError(f"{path} is not writable")


def key() -> str:
    """A hash of everything that decides the machine code."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for source in sorted(package.rglob("*.py")):
        digest.update(str(source.relative_to(package)).encode())
        digest.update(source.read_bytes())
    digest.update(f"{sys.version} numba {numba.__version__} llvmlite {llvmlite.__version__}".encode())
    for name in sorted(os.environ):
        if name.startswith("NUMBA_") and name not in _HARMLESS:
            digest.update(f"{name}={os.environ[name]}".encode())
    return digest.hexdigest()[:20]


def _warn(message: str) -> None:
    with suppress(Exception):
        warnings.warn(
            f"fastloss: {message}; kernels are compiled again in this process",
            RuntimeWarning,
            stacklevel=2,
        )
