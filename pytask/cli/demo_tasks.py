"""The tasks of `pytask demo`, and the app that its node runs. A node of this app ends at once with the demo."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from pytask.app import PyTask
from pytask.supervision import PARENT
from pytask.task import Task

LOOK = 0.5  # seconds

app = PyTask(namespace="", queues=["default"])


@app.add_task
class Hello(Task):
    """Returns its text."""

    NAME = "hello"

    def __init__(self, text: str = "hello world") -> None:
        self.text = text

    def start(self) -> str:
        """The text becomes the output."""
        return self.text


@app.add_task
class Count(Task):
    """Tells how far it is."""

    NAME = "count"

    def __init__(self, total: int = 20) -> None:
        self.total = total

    def start(self) -> dict[str, Any]:
        """An event for each step."""
        for done in range(1, self.total + 1):
            time.sleep(0.1)
            self.emit("progress", {"done": done, "total": self.total})
        return {"counted": self.total}


@app.add_task
class Fail(Task):
    """Fails, and says why."""

    NAME = "fail"

    def start(self) -> None:
        """`Task.Error` ends a task as ERROR."""
        raise self.Error("no luck today")


@app.add_task
class Boom(Task):
    """Has a mistake in it."""

    NAME = "boom"

    def start(self) -> float:
        """Any other exception ends a task as EXCEPTION."""
        return 1 / 0


@app.add_task
class Loop(Task):
    """Goes on until it is told to stop."""

    NAME = "loop"
    forever = True

    def __init__(self, text: str = "hello") -> None:
        self.text = text

    def start(self) -> None:
        """A turn every quarter of a second."""
        while True:
            self.emit("turn", {"text": self.text})
            time.sleep(0.25)


def _end_with(parent: int) -> None:
    """End this process where that one is gone: the server went with it, and nothing is left to put in order."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


if PARENT in os.environ:
    threading.Thread(target=_end_with, args=(int(os.environ[PARENT]),), daemon=True).start()
