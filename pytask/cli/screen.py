"""Showing what happens, line by line: for people, with bars where it is a terminal, or as JSON for programs.

Whatever a producer wrote is escaped, and never read as markup.
"""

from __future__ import annotations

import io
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from pytask import states
from pytask.cli.escape import cut, escaped, json_line, json_shown
from pytask.cli.watching import CLOSED, Event

MOST_DATA = 1000  # characters of an event's data on a line for people; --json shows all
MOST_BARS = 8
NARROW = 60  # columns; below, a time is shown without milliseconds

Part = tuple[str, str]  # text and its style


class Screen(Protocol):
    """Where a command shows what it does."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def event(self, event: Event) -> None:
        """An event."""

    def command(self, words: Sequence[str]) -> None:
        """A Redis command that is sent now."""

    def say(self, text: str, style: str = "") -> None:
        """A sentence for people."""

    def paste(self, text: str) -> None:
        """A line that people copy."""

    def fact(self, fact: Mapping[str, Any]) -> None:
        """What programs want to know."""

    def tick(self) -> None:
        """Time has passed."""


def make_screen(*, as_json: bool, color: bool = True) -> Screen:
    """The screen for standard output. Text that its encoding does not have is escaped from now on."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_json:
        return JSONScreen()
    return Terminal(color) if sys.stdout.isatty() else Plain()


class JSONScreen:
    """One JSON object a line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, event: Event) -> None:
        """`{"time": epoch seconds, "id", "event": its name or null, "data"}`."""
        row = {"time": round(event.time, 3), "id": event.id, "event": event.name, "data": event.data}
        try:
            line = json_line(row)
        except (ValueError, RecursionError):  # 1e999 is infinite once it is read
            line = json_line({**row, "data": json_shown(event.data)})
        self._write(line)

    def command(self, words: Sequence[str]) -> None:
        """`{"command": [...]}`."""
        self.fact({"command": list(words)})

    def say(self, text: str, style: str = "") -> None:
        """Nothing: it is for people."""

    def paste(self, text: str) -> None:
        """Nothing: it is for people."""

    def fact(self, fact: Mapping[str, Any]) -> None:
        """The object."""
        self._write(json_line(dict(fact)))

    def tick(self) -> None:
        """Nothing."""

    def _write(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Plain:
    """Lines of text, without colour: a file or a pipe."""

    narrow = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, event: Event) -> None:
        """One line."""
        self.print(event_parts(event, self.narrow))

    def command(self, words: Sequence[str]) -> None:
        """As it is typed into redis-cli."""
        self.print([("> ", "dim"), (shlex.join(words), "bold")])

    def say(self, text: str, style: str = "") -> None:
        """The line, which is ours."""
        self.print([(text, style)])

    def paste(self, text: str) -> None:
        """The line, whole."""
        self.print([(text, "")])

    def fact(self, fact: Mapping[str, Any]) -> None:
        """Nothing: it is for programs."""

    def tick(self) -> None:
        """Nothing."""

    def print(self, parts: Sequence[Part]) -> None:
        """Print one line at once."""
        sys.stdout.write("".join(text for text, _ in parts) + "\n")
        sys.stdout.flush()


class Terminal(Plain):
    """Lines with colour, and below them a bar for each task that tells its progress."""

    def __init__(self, color: bool = True) -> None:
        from rich.console import Console

        from pytask.cli.bars import Bars

        self.console = Console(no_color=None if color else True, highlight=False, markup=False, emoji=False)
        self.bars = Bars(self.console)
        self._last: dict[str, Event] = {}  # of each bar

    def __exit__(self, *_: object) -> None:
        self.bars.close()

    @property
    def narrow(self) -> bool:  # type: ignore[override]
        """Is there little room on a line?"""
        return self.console.width < NARROW

    def event(self, event: Event) -> None:
        """A step of a bar, or a line."""
        progress = progress_of(event)
        if progress and not self.console.is_dumb_terminal:
            self._step(event, *progress)
            return
        if event.state in CLOSED:
            self._drop(event.id)
        super().event(event)

    def say(self, text: str, style: str = "") -> None:
        """The line, broken between words."""
        from rich.text import Text

        self.console.print(Text(text, style))

    def print(self, parts: Sequence[Part]) -> None:
        """Print one line above the bars. The terminal wraps it, so that it can be copied whole."""
        from rich.text import Text

        self.console.print(Text.assemble(*parts), soft_wrap=True)

    def tick(self) -> None:
        """Draw the bars, at most ten times a second."""
        self.bars.tick()

    def _step(self, event: Event, done: float, total: float) -> None:
        from pytask.cli.bars import Bar

        if event.id not in self.bars and len(self.bars) >= MOST_BARS:
            self._drop(self.bars.oldest)
        self._last[event.id] = event
        told = f"{_number(done)}/{_number(total)}"
        self.bars.step(event.id, Bar(escaped(event.id), done, total, told))

    def _drop(self, task_id: str) -> None:
        """Replace a bar by the line of its last step."""
        if task_id in self.bars:
            self.bars.drop(task_id)
            super().event(self._last.pop(task_id))


def event_parts(event: Event, narrow: bool = False) -> list[Part]:
    """The line of an event: when, which task, what, and the data."""
    name = "(no event)" if event.name is None else cut(escaped(event.name), 100)
    parts = [
        (clock(event.time, narrow) + " ", "dim"),
        (escaped(event.id) + " ", "bold"),
        (name, style_of(event)),
    ]
    text = _data(event)
    return [*parts, (" " + cut(text, MOST_DATA), "")] if text else parts


def _data(event: Event) -> str:
    progress = progress_of(event)
    if progress:
        done, total = progress
        return f"{_number(done)}/{_number(total)} ({100 * done / total:.0f} %)"
    if event.data is None:
        return ""
    if isinstance(event.data, str) and (event.name is None or event.state):
        lines = event.data.strip().split("\n")
        return escaped(lines[-1] if event.state == states.EXCEPTION else event.data.strip())
    return json_shown(event.data)


def progress_of(event: Event) -> tuple[float, float] | None:
    """How much of how much an event of progress tells; None for any other."""
    if event.name != "progress" or not isinstance(event.data, dict):
        return None
    done, total = _amount(event.data.get("done")), _amount(event.data.get("total"))
    return (done, total) if done is not None and total else None


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= 1e15 else None


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.2f}"


def clock(seconds: float, narrow: bool = False) -> str:
    """A time of day, local, to the millisecond where there is room."""
    try:
        text = time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "--:--:--"
    return text if narrow else f"{text}.{math.floor(seconds * 1000) % 1000:03d}"


def style_of(event: Event) -> str:
    """The colour of an event's name; what it says stands in the word itself."""
    if event.name is None:
        return "red"
    if event.state in states.FAILED:
        return "red"
    return {"success": "green", "stopped": "yellow", "running": "cyan", "reloaded": "cyan"}.get(
        event.name, "magenta"
    )
