"""What the nodes of the chaos tests run. `pytask worker` imports it: hooks stand before the node starts."""

from __future__ import annotations

import os

import gevent

from chaos import controls, journal, points
from pytask import PyTask, Task

app = PyTask()
points.install(os.environ.get(points.VARIABLE, ""))
controls.apply(os.environ.get(controls.VARIABLE, ""))


@app.add_task
class Work(Task):
    """Works for a while, tells so often of its progress, and returns the fence of its run.

    `again`: seconds of a run that follows the death of a node, where it differs.
    """

    NAME = "work"

    def __init__(self, seconds: float = 0.1, events: int = 0, again: float | None = None) -> None:
        self.seconds = seconds if again is None or not self.deliveries else again
        self.events = events

    def start(self) -> dict[str, int]:
        points.reach("before-run")
        journal.write("start", self)
        for done in range(self.events):
            self.emit("progress", {"done": done, "total": self.events})
            gevent.sleep(self.seconds / self.events)
        if not self.events:
            gevent.sleep(self.seconds)
        journal.write("end", self)
        points.reach("after-run")
        return {"fence": self.fence, "pid": os.getpid()}


@app.add_task
class Replica(Task):
    """A replica of a service: writes that it lives every 50 ms, until it is stopped."""

    NAME = "replica"
    forever = True

    def start(self) -> None:
        journal.write("start", self)
        try:
            while True:
                gevent.sleep(0.05)
                journal.write("beat", self)
        finally:
            journal.write("end", self)


@app.add_task
class Forever(Task):
    """Tells of a turn now and then, for ever."""

    NAME = "forever"
    forever = True

    def __init__(self, pause: float = 5.0) -> None:
        self.pause = pause

    def start(self) -> None:
        journal.write("start", self)
        while True:
            gevent.sleep(self.pause)
            self.emit("turn")
