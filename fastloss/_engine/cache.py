"""Where compiled code lives, and what happens when that goes wrong: one warning, and a compile.

- The directory is private: 0700, ours, not a link. What is kept are pickles, so whoever can write them
  runs code in this process.
- It is named by a hash of everything that decides the machine code: the package's sources, the versions
  of Python, Numba and llvmlite, and Numba's settings. Code of other sources is never found, whatever
  the times of files say and whoever was killed while saving.
- A file holds a kernel for one compute type and CPU, behind a checksum of its own: a flipped bit in machine
  code would otherwise run. It is written beside its place and moved there, so it is whole or absent.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import secrets
import shutil
import stat
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import caching, compiler, serialize
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys

# Settings of Numba that leave the code of a kernel as it is.
_HARMLESS = re.compile(
    r"CACHE_|CUDA|COLOR_|CHROME_|GDB|RUNNING_UNDER|SHOW_HELP|.*NUM_THREADS|THREADING_LAYER"
)
_PACKAGE = Path(__file__).resolve().parents[1]
_NAME = re.compile(r"kernels-[0-9a-f]{20}")
# Directories of other sources and versions that stay, the last used first; and for how long at most.
_OTHERS = 4
_AGE = 60 * 86_400.0  # seconds

compilations = 0  # of kernels, in this process; those found in the cache are not among them


def compile_for(dispatcher: Any, signature: tuple[Any, ...]) -> None:
    """Compile `dispatcher` for one signature, from the cache and into it where there is one.

    It compiles for nothing else: a call with other types is a TypeError, not a wait.
    """
    global compilations
    with global_compiler_lock:
        where = directory()
        shelf = None if where is None else _Shelf(where, dispatcher.__name__)
        dispatcher._cache = shelf or caching.NullCache()
        dispatcher.disable_compile(False)
        try:
            dispatcher.compile(signature)
        finally:
            dispatcher._can_compile = False  # disable_compile() asserts that something was compiled
        compilations += not (shelf and shelf.found)


def holds(dispatcher: Any, signature: tuple[Any, ...]) -> bool:
    """Whether the cache has something for one signature of `dispatcher`; it may turn out to be broken."""
    where = directory()
    return where is not None and _Shelf(where, dispatcher.__name__).holds(
        signature, dispatcher.targetctx.codegen()
    )


class _Shelf(caching._Cache):  # type: ignore[misc]
    """Numba's side of the cache: one function's compiled code, by signature."""

    def __init__(self, where: Path, name: str) -> None:
        self._where, self._name = where, name
        self.found = False

    @property
    def cache_path(self) -> str:
        return str(self._where)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # All that compiled code stands on. Numba would make ready to compile here too, which takes a
        # quarter of a second: it imports SciPy.
        rtsys.initialize(target_context)
        path = self._path(sig, target_context.codegen())
        try:
            payload = _read(path)
            if payload is not None:
                result = compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
                self.found = True
                return result
        except Exception as error:  # whatever unpickling makes of what another hand wrote
            _warn(f"{path} cannot be used ({type(error).__name__}: {error})")
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if data.library.has_dynamic_globals or not _unchanged():
            return
        path = self._path(sig, data.codegen)
        try:
            _write(path, serialize.dumps(data._reduce()))
        except Exception as error:  # OSError of a full disk; whatever pickling may come to
            _warn(f"{path} cannot be written ({type(error).__name__}: {error})")

    def holds(self, sig: Any, codegen: Any) -> bool:
        return self._path(sig, codegen).exists()

    def _path(self, sig: Any, codegen: Any) -> Path:
        place = hashlib.sha256(repr((sig, codegen.magic_tuple())).encode()).hexdigest()[:20]
        return self._where / f"{self._name}-{place}.code"

    def enable(self) -> None:
        """Numba's interface; a shelf is always enabled."""

    def disable(self) -> None:
        """Numba's interface; without a cache there is no shelf."""

    def flush(self) -> None:
        """Numba's interface; nothing is held back."""


def _read(path: Path) -> bytes | None:
    """What `_write` put there, None where there is nothing; OSError if a bit of it is another."""
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    checksum, payload = whole[:32], whole[32:]
    if hashlib.sha256(payload).digest() != checksum:
        raise OSError("its checksum does not match")
    return payload


def _write(path: Path, payload: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)  # another process may have pruned it
    beside = path.with_suffix(f".{secrets.token_hex(8)}.part")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


# ---- the directory --------------------------------------------------------------------------
class _State:
    """What this process knows of its cache directory."""

    def __init__(self) -> None:
        self.known = False
        self.where: Path | None = None
        self.why = ""  # there is none
        self.warned = False


_state = _State()


def directory() -> Path | None:
    """The cache directory, made if need be; None where there is none or it cannot be trusted."""
    if not _state.known:
        _state.known = True
        try:
            _state.where = _open()
        except (OSError, RuntimeError) as error:
            _state.why = str(error)
            _warn(f"no cache directory ({error})")
    return _state.where if _state.where is None or _unchanged() else None


def _open() -> Path | None:
    if os.environ.get("FASTLOSS_CACHE") == "0":
        _state.why = "off, FASTLOSS_CACHE=0"
        return None
    if not _KEY:
        raise OSError("the package's sources cannot be read")
    base = _base()
    where = base / f"kernels-{_KEY}"
    base.parent.mkdir(parents=True, exist_ok=True)
    for each in (base, where):
        each.mkdir(mode=0o700, exist_ok=True)
        _check(each)
    with suppress(OSError):
        os.utime(where)
        _prune(base, where)
        for part in where.glob("*.part"):  # of a process that was killed while it wrote
            if time.time() - part.lstat().st_mtime > 3600.0:
                part.unlink(missing_ok=True)
    return where


def describe() -> dict[str, Any]:
    """Path, owner, state and size of the cache."""
    where = directory()
    if where is None:
        return {"path": None, "owner": None, "state": _state.why or "the sources have changed", "bytes": 0}
    size = 0
    try:
        owner = _owner(where)
        for file in where.iterdir():
            with suppress(OSError):  # gone while we look
                size += file.stat().st_size
    except OSError as error:
        return {"path": str(where), "owner": None, "state": str(error), "bytes": size}
    return {"path": str(where), "owner": owner, "state": "in use", "bytes": size}


def _owner(path: Path) -> str | None:
    try:
        return path.owner()
    except (KeyError, NotImplementedError):  # a user without a name; a system without owners
        return str(path.stat().st_uid) if hasattr(os, "getuid") else None


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


def _prune(base: Path, ours: Path) -> None:
    """Remove the directories of other sources and versions, but the few last used of late."""
    others = [p for p in base.iterdir() if _NAME.fullmatch(p.name) and p != ours]
    others.sort(key=lambda p: p.lstat().st_mtime, reverse=True)
    for rank, path in enumerate(others):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and (rank >= _OTHERS or time.time() - found.st_mtime > _AGE):
            shutil.rmtree(path, ignore_errors=True)


# ---- what decides the code ------------------------------------------------------------------
def _sources() -> list[Path]:
    return sorted(path for path in _PACKAGE.rglob("*.py") if not path.name.startswith("."))


def _stamp() -> list[tuple[int, int]]:
    found = (path.stat() for path in _sources())
    return [(s.st_mtime_ns, s.st_size) for s in found]


def _identity() -> tuple[list[tuple[int, int]], str]:
    """Stamp and key; no key where the sources cannot be read, in an archive for example."""
    try:
        stamp = _stamp()
        return stamp, key() if stamp else ""
    except OSError:
        return [], ""


def key() -> str:
    """A hash of everything that decides the machine code, but the CPU."""
    digest = hashlib.sha256()
    for source in _sources():
        digest.update(str(source.relative_to(_PACKAGE)).encode())
        digest.update(source.read_bytes())
    digest.update(f"{sys.version} numba {numba.__version__} llvmlite {llvmlite.__version__}".encode())
    digest.update(repr(_settings()).encode())
    return digest.hexdigest()[:20]


def _settings() -> list[tuple[str, str]]:
    """Numba's settings that may decide code: as they are, and in the environment, which Numba reads again."""
    found = {name: repr(value) for name, value in vars(numba.config).items() if name.isupper()}
    found |= {name: value for name, value in os.environ.items() if name.startswith("NUMBA_")}
    return sorted(
        (name, value)
        for name, value in found.items()
        if not _HARMLESS.match(name.removeprefix("NUMBA_"))
    )


# Of the sources and settings at import. What is compiled after they have changed has no name to go by.
_STAMP, _KEY = _identity()
_SETTINGS = _settings()


def _unchanged() -> bool:
    """Whether sources and settings are still those of `_KEY`."""
    try:
        return _settings() == _SETTINGS and (_stamp() == _STAMP or key() == _KEY)
    except OSError:
        return False


def _warn(message: str) -> None:
    """Say it, the first time."""
    if not _state.warned:
        _state.warned = True
        with suppress(Exception):
            warnings.warn(
                f"fastloss: {message}; kernels are compiled again in this process",
                RuntimeWarning,
                stacklevel=2,
            )
