"""What the commands print: aligned lines, tables, and progress where there is a terminal.

Bold type and progress come by rich (the `cli` extra); without it all else is the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def number(value: float) -> str:
    """Six significant digits, about as many as float32 logits are good for."""
    return f"{value:#.6g}".rstrip(".")


def pairs(lines: Sequence[tuple[str, str]]) -> None:
    """Print names and what they are, the latter in one column."""
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def table(title: str, columns: Sequence[str], body: Sequence[Sequence[str]], note: str = "") -> None:
    """Print a table, its first column to the left and the others to the right, its first row bold."""
    widths = [max(len(row[k]) for row in (columns, *body)) for k in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, strict=True)
        return "  ".join(c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(cells)).rstrip()

    say = _styled_print()
    print()
    say(title, "bold")
    print()
    say(line(columns), "dim")
    say(_dash() * (sum(widths) + 2 * (len(widths) - 1)), "dim")
    for k, row in enumerate(body):
        say(line(row), "bold" if k == 0 else "")
    if note:
        print(f"\n{note}")


def _styled_print() -> Callable[[str, str], None]:
    if _is_terminal(sys.stdout):
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
            return lambda text, style: out.print(text, style=style)
    return lambda text, _: print(text)


def _dash() -> str:
    try:
        "─".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return "-"
    return "─"


def _is_terminal(stream: Any) -> bool:
    """Whether somebody watches; a stream that was closed before we started is None."""
    return stream is not None and stream.isatty()


@contextmanager
def progress(what: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's standard error; yields the function that moves it on."""
    bar = _bar(unit) if _is_terminal(sys.stderr) else None
    if bar is None:
        yield lambda _: None
        return
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.update(task, advance=n)


def _bar(unit: str) -> Any:
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        progress.TimeRemainingColumn(compact=True),
        console=Console(stderr=True), transient=True,
    )


@contextmanager
def status(what: str) -> Iterator[None]:
    """A line on a terminal's standard error while something is done."""
    line = _status(what) if _is_terminal(sys.stderr) else None
    if line is None:
        yield
        return
    with line:
        yield


def _status(what: str) -> Any:
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(stderr=True).status(what)
