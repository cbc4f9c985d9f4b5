"""Tables for people: a row a line, or, where the terminal is narrow, a row in two lines."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence

import click

GAP = "  "


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of which is the head; their cells are safe to show."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines_of(rows, width):
        click.echo(line)


def lines_of(rows: Sequence[Sequence[str]], width: int | None = None) -> Iterator[str]:
    """The lines of a table, for so many columns (None: as many as it takes).

    Where one would be longer than that each row takes two: its first cell, which people copy, and below it the
    others, cut at the end.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    if width is None or all(len(line) <= width for line in lines):
        yield from lines
        return
    for row in rows:
        yield row[0]
        yield cut_to(GAP + _line(row[1:], widths[1:]), width)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def cut_to(line: str, width: int) -> str:
    """At most so many characters, with dots where some are left out."""
    return line if len(line) <= width else line[: max(width - 3, 0)] + "..."


def ago(moment: float | None) -> str:
    """How long ago a time was, in one unit; empty for none."""
    if moment is None:
        return ""
    seconds = max(time.time() - moment, 0)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
