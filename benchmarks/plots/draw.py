"""Draws the charts of a report as SVG, with matplotlib, in an environment of its own.

    python draw.py DIRECTORY < charts.json

Reads a list of charts, each with `name`, `title`, `log`, and rows of title, value, least, most, kind; writes
DIRECTORY/<name>.svg. The same charts make the same files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

COLOURS = {"own": "#c2410c", "floor": "#9ca3af", "peer": "#1d4ed8"}
mpl.use("svg")
mpl.rcParams.update(
    {"svg.hashsalt": "pytask", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
)


def draw(chart: dict, directory: Path) -> None:
    """Bars from top to bottom, each with its value; a thin line from the least to the most."""
    rows = chart["rows"]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.3 * max(len(rows), 1)))
    places = range(len(rows))
    axes.barh(places, [row[1] for row in rows], color=[COLOURS[row[4]] for row in rows], height=0.65)
    for place, (_, value, least, most, _) in zip(places, rows, strict=True):
        axes.plot([least, most], [place, place], color="black", linewidth=0.8)
        text = f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"
        axes.annotate(text, (max(value, most), place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set_title(chart["title"] if rows else f"{chart['title']}: not measured", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    if chart["log"] and rows:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    figure.savefig(
        directory / f"{chart['name']}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None}
    )
    pyplot.close(figure)


def main() -> None:
    """Draw all of them."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for chart in json.load(sys.stdin):
        draw(chart, directory)


if __name__ == "__main__":
    main()
