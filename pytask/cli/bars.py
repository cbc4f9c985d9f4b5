"""Bars at the bottom of a terminal: one for each task that tells its progress. Loaded only for terminals."""

from __future__ import annotations

import time
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

REFRESH = 0.1  # seconds between two drawings
MARGIN = 3  # columns at the right: a `^C` that the terminal echoes there must not begin a new line
LONGEST_LABEL = 16


class Bar(NamedTuple):
    """What a bar shows; `label` and `told` stand before and behind it as they are."""

    label: str
    done: float
    total: float
    told: str


class Bars:
    """The bars, by key. Nothing is drawn, and the cursor shows, while there are none."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._bars: dict[str, Bar] = {}
        self._drawn = 0.0

    def __contains__(self, key: str) -> bool:
        return key in self._bars

    def __len__(self) -> int:
        return len(self._bars)

    @property
    def oldest(self) -> str:
        """The key of the bar that was made first."""
        return next(iter(self._bars))

    def step(self, key: str, bar: Bar) -> None:
        """Draw a bar anew, or a further one."""
        self._bars[key] = bar
        if self._live is None:
            self._live = Live(console=self.console, get_renderable=self._table, auto_refresh=False)
            self._live.start()
        self.tick()

    def drop(self, key: str) -> None:
        """Remove a bar."""
        del self._bars[key]
        if self._live is not None:
            self._live.refresh()
        if not self._bars:
            self.close()

    def tick(self) -> None:
        """Draw again where it is time to."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= REFRESH:
            self._drawn = now
            self._live.refresh()

    def close(self) -> None:
        """Leave the bars as they are and begin a new line below. Safe to repeat."""
        if self._live is not None:
            self._live.transient = not self._bars
            self._live.stop()
            self._live = None
            self._bars.clear()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1, 0, 0))
        table.width = max(self.console.width - MARGIN, 1)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True)
        for label, done, total, told in self._bars.values():
            short = label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 3] + "..."
            table.add_row(Text(short), ProgressBar(total=total, completed=done), Text(told))
        return table
