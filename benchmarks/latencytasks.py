"""The app of the nodes that `latency.py` and `idle.py` start."""

from __future__ import annotations

import time

import gevent

from pytask import PyTask, Task

app = PyTask()


@app.add_task
class Stamp(Task):
    """Tells when it began, by the system's monotonic clock."""

    NAME = "stamp"

    def start(self):
        return time.monotonic()


@app.add_task
class Stay(Task):
    """Runs until it is stopped."""

    NAME = "stay"

    def start(self):
        self.emit("stays")
        gevent.sleep(3600)
