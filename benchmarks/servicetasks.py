"""The app of the benchmark of services: a replica that holds nothing and says nothing."""

from __future__ import annotations

from gevent.event import Event

from pytask import PyTask, Task

app = PyTask()


@app.add_task
class Quiet(Task):
    """Waits for ever; without a timer, so that it is the replica alone that is measured."""

    NAME = "quiet"
    forever = True

    def start(self) -> None:
        Event().wait()
