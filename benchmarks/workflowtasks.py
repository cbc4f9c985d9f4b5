"""The app of the benchmark of workflows."""

from __future__ import annotations

from pytask import PyTask, Task

app = PyTask()


@app.add_task
class Noop(Task):
    """Does nothing."""

    NAME = "noop"

    def start(self) -> None:
        pass
