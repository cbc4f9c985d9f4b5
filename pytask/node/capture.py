"""Capture: what the greenlets of a task log, or print, goes out as events of that task as well.

A handler of the root logger, and a stand-in for `sys.stdout`; both pass everything on as before. pytask's own
lines are about tasks, not by them, and are left alone.
"""

from __future__ import annotations

import logging
import sys
from contextvars import copy_context
from typing import Any

from gevent import Greenlet

from pytask.context import current


class TaskLogHandler(logging.Handler):
    """Gives log records to the task in whose greenlets they were made."""

    def createLock(self) -> None:
        """None: whoever logs in one greenlet must not wait for another."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record over; never raises, never waits."""
        log = getattr(current.get(), "log", None)
        if log is None or record.name.partition(".")[0] == "pytask":
            return
        try:
            log(record.levelname, record.name, self.format(record), record.created)
        except Exception:  # noqa: BLE001 - arguments that do not fit the text, say: as logging itself does
            self.handleError(record)


class TaskOutput:
    """Stands in for a stream; gives what tasks write to them, too."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text."""
        written: int = self.stream.write(text)
        take = getattr(current.get(), "print", None)
        if take is not None:
            take(text)
        return written

    def writelines(self, lines: Any) -> None:
        """Write lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def share_context(child: Greenlet) -> None:
    """Let a greenlet that a task spawns, or a thread, belong to the task: gevent gives it no context by itself."""
    if current.get() is not None:
        child.gr_context = copy_context()


class Capture:
    """Both of them, as the settings want it, between `start` and `stop`."""

    def __init__(self, *, logs: bool, prints: bool) -> None:
        self.handler = TaskLogHandler() if logs else None
        self.prints = prints
        self._output: TaskOutput | None = None

    def start(self) -> None:
        """Begin to listen."""
        Greenlet.add_spawn_callback(share_context)
        if self.handler is not None:
            logging.getLogger().addHandler(self.handler)
        if self.prints:
            sys.stdout = self._output = TaskOutput(sys.stdout)

    def stop(self) -> None:
        """Leave things as they were."""
        Greenlet.remove_spawn_callback(share_context)
        if self.handler is not None:
            logging.getLogger().removeHandler(self.handler)
        if self._output is not None and sys.stdout is self._output:
            sys.stdout = self._output.stream
