"""A bar on standard error for what takes long: so many of so many are done. Only for terminals, after a second."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

SHOW_AFTER = 1.0  # seconds without an end, until a bar is drawn


class CountingBar:
    """Use it as a context; call it with how many are done and how many there are."""

    def __init__(self, label: str, *, quiet: bool = False) -> None:
        self._label = label
        self._draws = sys.stderr.isatty() and not quiet
        self._began = time.monotonic()
        self._bars: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        if not self._draws or time.monotonic() - self._began < SHOW_AFTER:
            return
        from rich.console import Console

        from pytask.cli.bars import Bar, Bars

        if self._bars is None:
            self._bars = Bars(Console(stderr=True, highlight=False, markup=False, emoji=False))
        self._bars.step(self._label, Bar(self._label, done, total or 1, f"{done} of {total}"))

    def __enter__(self) -> CountingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.drop(self._label)
