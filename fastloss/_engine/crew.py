"""Processes of this interpreter that work through a list of jobs, a line each.

Numba compiles in one thread of a process at a time, so compiling ahead on several cores takes several
processes. They know nothing of this one's `__main__`, end when their standard input does, and whatever
goes wrong with them costs what they would have done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

Process = subprocess.Popen[str]
_HIRED = "FASTLOSS_HIRED"  # set in the environment of the crew


def can_be_hired() -> bool:
    """Whether this is Python itself, which a `-c` can follow, and not a program that holds it; nor one of
    the crew, whose site might warm up too.
    """
    name = Path(sys.executable or "").name.lower()
    hired = os.environ.get(_HIRED)
    return "python" in name and not hasattr(sys, "frozen") and not hired


def share_out(
    program: str, first: str, ready: str, jobs: Iterable[Iterable[str]], count: int, done: Callable[[], None]
) -> int:
    """Have `count` processes that run `program` do the jobs, and return the sum of their answers.

    Each is sent the line `first` and answers `ready`, then a job and answers with a number, and so on; one
    that answers otherwise gets no more. A process stays with one list of jobs, which are alike, as long
    as there are any. `done` is called after each job.
    """
    crew: list[Process] = []
    listed = _Jobs(jobs)
    answers: list[int] = []

    def attend(process: Process) -> None:
        """Hand jobs to one process, until there are none left or it is gone."""
        with suppress(OSError, ValueError):  # a closed pipe; what is no number
            if _asked(process, first) != ready:
                return
            kind = None
            while True:
                kind, job = listed.take(kind)
                if job is None:
                    return
                answers.append(int(_asked(process, job)))
                done()

    attendants: list[threading.Thread] = []
    try:
        with suppress(OSError, RuntimeError):  # no more processes, or threads, can be had
            for _ in range(count):
                crew.append(_hired(program))
                attendant = threading.Thread(target=attend, args=crew[-1:], daemon=True)
                attendant.start()
                attendants.append(attendant)
        for attendant in attendants:
            attendant.join()
    finally:  # all is done; or Ctrl-C
        for process in crew:
            process.kill()
        for attendant in attendants:
            attendant.join()  # its process is at an end, and so is what it reads
        for process in crew:
            with process, suppress(OSError):  # which it never read
                _stream(process.stdin).close()
    return sum(answers)


def _hired(program: str) -> Process:
    given = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site,
             "-S": sys.flags.no_site}
    options = [option for option, on in given.items() if on]
    return subprocess.Popen(
        [sys.executable, "-P", *options, "-c", program], env={**os.environ, _HIRED: "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, encoding="utf-8", creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _asked(process: Process, line: str) -> str:
    to, answers = _stream(process.stdin), _stream(process.stdout)
    to.write(f"{line}\n")
    to.flush()
    return answers.readline().rstrip("\n")


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # it was asked for
    return pipe


class _Jobs:
    """Lists of jobs, from which several threads take."""

    def __init__(self, lists: Iterable[Iterable[str]]) -> None:
        self._lists = [deque(each) for each in lists]
        self._lock = threading.Lock()

    def take(self, kind: int | None) -> tuple[int, str | None]:
        """Which list, and a job of it: of list `kind` while it lasts, else of the longest."""
        with self._lock:
            if kind is None or not self._lists[kind]:
                kind = max(range(len(self._lists)), key=lambda k: len(self._lists[k]))
            return kind, self._lists[kind].popleft() if self._lists[kind] else None
