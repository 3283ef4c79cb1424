"""Tables and progress bars, by rich where it is installed (the `cli` extra), else plain or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

_RICH = find_spec("rich") is not None


def table(title: str, columns: Sequence[str], body: Sequence[Sequence[str]], note: str = "") -> None:
    """Print a table, its first column to the left and the others to the right."""
    print(f"\n{title}\n")
    if _RICH:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        out = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for k, column in enumerate(columns):
            out.add_column(column, justify="right" if k else "left", no_wrap=True)
        for k, row in enumerate(body):
            out.add_row(*row, style="bold" if k == 0 and len(body) > 1 else "")
        # A pipe or a file has no width of its own to wrap to.
        Console(highlight=False, width=None if sys.stdout.isatty() else 100).print(out)
    else:
        widths = [max(len(row[k]) for row in (columns, *body)) for k in range(len(columns))]
        for row in (columns, *body):
            cells = zip(row, widths, strict=True)
            print("  ".join(c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(cells)).rstrip())
    if note:
        print(f"\n{note}")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's standard error; yields the function that moves it on."""
    if not (_RICH and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.update(task, advance=n)


@contextmanager
def status(what: str) -> Iterator[None]:
    """A line on a terminal's standard error while something is done."""
    if not (_RICH and sys.stderr.isatty()):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
