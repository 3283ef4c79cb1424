"""How the plots look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, OTHERS, INK, FAINT = "#1b5e9e", "#b9c2cc", "#2b3138", "#6b7580"
COLOURS = (OURS, "#d1752b", "#3c8d5a", "#8a5aa8")

matplotlib.rcParams.update(
    {
        "font.family": "sans-serif", "font.size": 9, "text.color": INK, "axes.labelcolor": FAINT,
        "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": INK, "axes.titlesize": 9.5,
        "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
        "axes.spines.right": False, "svg.hashsalt": "fastloss", "svg.fonttype": "none",
    }
)  # fmt: skip


def panels(columns: int, width: float, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Panels row by row, as wide as that and each row as high as its highest, in inches."""
    rows = [max(heights[k : k + columns]) for k in range(0, len(heights), columns)]
    figure = Figure(figsize=(width * columns, sum(rows) + 0.5), layout="constrained")
    grid: Any = figure.subplots(len(rows), columns, squeeze=False, height_ratios=rows).reshape(-1)
    for unused in grid[len(heights) :]:
        unused.set_axis_off()
    figure.get_layout_engine().set(hspace=0.02, wspace=0.03)  # type: ignore[union-attr]
    return figure, list(grid[: len(heights)])


def bars(
    panel: Axes, names: Sequence[str], values: Sequence[float], notes: Sequence[str], slots: int
) -> None:
    """Bars from 1, the floor, on a logarithmic scale; the first is ours. As thick as `slots` would be."""
    places = range(len(names))
    colours = [OURS, *[OTHERS] * (len(names) - 1)]
    panel.barh(places, [v - 1 for v in values], left=1, height=0.72, color=colours)
    panel.axvline(1, color=INK, linewidth=1.2)
    for place, value, note in zip(places, values, notes, strict=True):
        panel.annotate(
            note, (max(value, 1), place), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=8, color=OURS if place == 0 else INK, weight="bold" if place == 0 else "normal",
        )
    panel.set_yticks(places, names)
    panel.set(xscale="log", ylim=(slots - 0.45, -0.55))
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.get_yticklabels()[0].set(color=OURS, weight="bold")


def times_axis(panel: Axes, most: float) -> None:
    """An axis of multiples of the floor, with room for the notes beyond the longest bar."""
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= most]
    panel.set_xlim(0.85, most**1.32 * 1.3)
    panel.set_xticks(ticks, [f"{t}×" for t in ticks])
    panel.minorticks_off()


def curve(
    panel: Axes, points: Sequence[tuple[float, float]], name: str, k: int, *, floor: bool
) -> None:
    x, y = zip(*points, strict=True)
    look = {"color": FAINT, "linestyle": (0, (4, 2) if k % 2 else (1, 1.5))} if floor else {
        "color": COLOURS[k % len(COLOURS)], "marker": "o", "markersize": 3.5,
    }  # fmt: skip
    panel.plot(x, y, label=name, linewidth=1.5, **look)
    panel.grid(axis="y", color="#e6e9ec", linewidth=0.7)


def save(figure: Figure, path: Path, note: str) -> None:
    figure.supxlabel(note, fontsize=8, color=FAINT, x=0.99, ha="right")
    figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
    if path.suffix == ".svg":  # without the spaces that matplotlib leaves at the ends of lines
        text = path.read_text(encoding="utf-8")
        path.write_text("\n".join(map(str.rstrip, text.splitlines())) + "\n", encoding="utf-8")
