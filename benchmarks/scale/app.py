"""The app that the nodes of these benchmarks run: `pytask worker scale.app:app`."""

from __future__ import annotations

from typing import Any

import gevent

from pytask import PyTask, Task

app = PyTask()


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
