"""In which process Numba had no threads yet when the package was imported."""

from __future__ import annotations

import os
import sys


def _without_threads() -> int:
    """Id of this process, if it has none of Numba's threads; 0 if it has, or is a fork of one that had."""
    numba = sys.modules.get("numba")
    if numba is None:
        return os.getpid()
    try:
        numba.threading_layer()
    except ValueError:  # none has started
        return os.getpid()
    except AttributeError:  # it is being imported
        pass
    return 0


def _forget() -> None:
    global UNTHREADED
    UNTHREADED = 0


UNTHREADED = _without_threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
