"""The app that the nodes of these benchmarks run: `pytask worker scale.app:app`."""

from __future__ import annotations

import logging
from typing import Any

import gevent

from pytask import PyTask, Task

app = PyTask()
log = logging.getLogger("scale")


@app.add_task
class Noop(Task):
    NAME = "noop"

    def start(self) -> None:
        pass


@app.add_task
class Sleep(Task):
    """Waits, as a task does whose server is slow."""

    NAME = "sleep"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def start(self) -> None:
        gevent.sleep(self.seconds)


@app.add_task
class Emit(Task):
    NAME = "emit"

    def __init__(self, events: int) -> None:
        self.events = events

    def start(self) -> None:
        for number in range(self.events):
            self.emit("turn", number)


@app.add_task
class Log(Task):
    NAME = "log"

    def __init__(self, lines: int) -> None:
        self.lines = lines

    def start(self) -> None:
        for number in range(self.lines):
            log.info("line %d", number)


@app.add_task
class Print(Log):
    NAME = "print"

    def start(self) -> None:
        for number in range(self.lines):
            print("line", number)


@app.add_task
class Progress(Task):
    """Tells how far it is, as often as it is asked to; at most ten a second are sent."""

    NAME = "progress"

    def __init__(self, times: int) -> None:
        self.times = times

    def start(self) -> None:
        for number in range(self.times):
            self.progress(number, self.times)


@app.add_task
class Output(Task):
    """Returns so many bytes of text."""

    NAME = "output"

    def __init__(self, size: int) -> None:
        self.size = size

    def start(self) -> str:
        return "x" * self.size


@app.add_task
class Take(Task):
    """Takes data, whatever its size, and does nothing with it."""

    NAME = "take"

    def __init__(self, **data: Any) -> None:
        self.data = data

    def start(self) -> None:
        pass


@app.add_task
class Once(Noop):
    NAME = "once"
    rescheduling = False
