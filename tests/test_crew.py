"""Processes that work through a list: each job once, and nothing is left of them, whatever they do."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastloss._engine import crew

# Greets with what it is sent first, then answers each job, a number, with its square.
SQUARES = """
import sys
print(sys.stdin.readline().strip(), flush=True)
for line in sys.stdin:
    if {fault}:
        break
    print(int(line) ** 2, flush=True)
"""


@pytest.fixture
def hired(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """Every process that was started."""
    processes: list[subprocess.Popen[str]] = []
    hire = crew._hired

    def hire_and_tell(program: str) -> subprocess.Popen[str]:
        processes.append(hire(program))
        return processes[-1]

    monkeypatch.setattr(crew, "_hired", hire_and_tell)
    return processes


def shared_out(program: str, done: list[int], ready: str = "hello") -> int:
    jobs = [["1", "2", "3"], ["4"], [], ["5", "6"]]
    return crew.share_out(program, "hello", ready, jobs, 3, lambda: done.append(1))


def test_every_job_is_done_once(hired: list[subprocess.Popen[str]]) -> None:
    done: list[int] = []
    assert shared_out(SQUARES.format(fault=False), done) == 1 + 4 + 9 + 16 + 25 + 36
    assert (len(done), len(hired)) == (6, 3)
    assert all(p.poll() is not None for p in hired)


def test_what_a_process_dies_of_stays_undone_and_the_others_do_the_rest() -> None:
    done: list[int] = []
    assert shared_out(SQUARES.format(fault="int(line) == 4"), done) == 1 + 4 + 9 + 25 + 36
    assert len(done) == 5


@pytest.mark.parametrize(
    "program", ["print(1)", "import sys; sys.exit(3)", "raise ValueError", "print('hello\\nno number')"]
)
def test_programs_that_are_of_no_use(program: str, hired: list[subprocess.Popen[str]]) -> None:
    done: list[int] = []
    assert shared_out(program, done) == 0
    assert done == []
    assert all(p.poll() is not None for p in hired)


def test_one_that_greets_otherwise_gets_no_job() -> None:
    done: list[int] = []
    assert shared_out(SQUARES.format(fault=False), done, ready="another cache") == 0
    assert done == []


def test_an_interpreter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert shared_out(SQUARES.format(fault=False), []) == 0


def test_an_interruption_ends_them(
    monkeypatch: pytest.MonkeyPatch, hired: list[subprocess.Popen[str]]
) -> None:
    join = threading.Thread.join
    calls = []

    def first_interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        calls.append(thread)
        if len(calls) == 1:
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", first_interrupted)
    with pytest.raises(KeyboardInterrupt):
        shared_out("import time; time.sleep(600)", [])
    assert len(hired) == 3
    assert all(p.poll() is not None for p in hired)


@pytest.mark.parametrize(
    ("executable", "frozen", "can"),
    [
        (sys.executable, False, True),
        ("C:/Python/pythonw.exe", False, True),
        (sys.executable, True, False),
        ("", False, False),
        (None, False, False),
        ("/usr/bin/uwsgi", False, False),
    ],
)
def test_only_python_itself_is_started(
    executable: str | None, frozen: bool, can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    if frozen:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert crew.can_be_hired() is can


def test_no_module_of_the_working_directory_is_met(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert shared_out(f"import json\n{SQUARES.format(fault=False)}", []) == 91
