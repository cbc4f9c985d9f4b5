"""The app that the tests' nodes run: one small task for each thing that can happen."""

from __future__ import annotations

import contextlib
import os
import sys
import time

import gevent

from pytask import PyTask, Task

app = PyTask()


@app.add_task
class Noop(Task):
    NAME = "noop"

    def start(self):
        pass


@app.add_task
class Echo(Task):
    """Returns what it was given."""

    NAME = "echo"

    def __init__(self, **data):
        self.data = data

    def start(self):
        return self.data


@app.add_task
class Sleep(Task):
    """Sleeps; counts its runs, outside its own record, in `runs:<id>`, with the fence of each."""

    NAME = "sleep"

    def __init__(self, seconds=0.1):
        self.seconds = seconds

    def start(self):
        self.redis.rpush(f"runs:{self.id}", f"{self.fence} {os.getpid()}")
        gevent.sleep(self.seconds)
        return {"fence": self.fence, "pid": os.getpid()}


@app.add_task
class Loop(Task):
    """Runs until it is stopped; tells each turn, and the text it was given."""

    NAME = "loop"

    def __init__(self, text="hello"):
        self.text = text
        self.stopped = False

    def start(self):
        while not self.stopped:
            self.emit("turn", {"text": self.text, "attempt": self.attempt})
            gevent.sleep(0.05)

    def stop(self):
        self.stopped = True
        self.emit("stopping", self.text)


@app.add_task
class Forever(Task):
    """Never ends by itself, and has no stop()."""

    NAME = "forever"
    forever = True

    def start(self):
        while True:
            self.emit("turn")
            gevent.sleep(0.05)


@app.add_task
class Fail(Task):
    NAME = "fail"

    def __init__(self, message="no luck"):
        self.message = message

    def start(self):
        raise self.Error(self.message)


@app.add_task
class Boom(Task):
    NAME = "boom"

    def __init__(self, kind="ValueError", message="boom"):
        self.kind, self.message = kind, message

    def start(self):
        kinds = {
            "ValueError": ValueError,
            "SystemExit": SystemExit,
            "KeyboardInterrupt": KeyboardInterrupt,
            "GreenletExit": gevent.GreenletExit,
        }
        raise kinds[self.kind](self.message)


@app.add_task
class Exits(Task):
    NAME = "exits"

    def start(self):
        sys.exit(3)


@app.add_task
class BadInit(Task):
    """Its __init__ raises, hangs or exits."""

    NAME = "bad-init"

    def __init__(self, how="raise"):
        if how == "raise":
            raise ValueError("in init")
        if how == "hang":
            gevent.sleep(3600)
        sys.exit(4)

    def start(self):
        pass


@app.add_task
class Returns(Task):
    """Returns what JSON cannot hold, or too much of it."""

    NAME = "returns"

    def __init__(self, what):
        self.what = what

    def start(self):
        return {
            "object": object(),
            "set": {1, 2},
            "bytes": b"x",
            "nan": float("nan"),
            "inf": [float("inf")],
            "surrogate": "\ud800",
            "large": "x" * 20_000_000,
            "list": [1, 2.5, "ü", None, True, {"a": {}}],
        }[self.what]


@app.add_task
class Stubborn(Task):
    """Swallows every end."""

    NAME = "stubborn"

    def start(self):
        while True:
            with contextlib.suppress(BaseException):
                self.emit("turn")
                gevent.sleep(0.1)


@app.add_task
class BadStop(Task):
    """Its stop() raises or hangs."""

    NAME = "bad-stop"

    def __init__(self, how="raise"):
        self.how = how

    def start(self):
        gevent.sleep(3600)

    def stop(self):
        if self.how == "raise":
            raise ValueError("in stop")
        gevent.sleep(3600)


@app.add_task
class Block(Task):
    """Blocks the hub, for seconds."""

    NAME = "block"

    def __init__(self, seconds=1.0):
        self.seconds = seconds

    def start(self):
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass


@app.add_task
class Progress(Task):
    NAME = "progress"

    def __init__(self, total=5):
        self.total = total

    def start(self):
        for done in range(1, self.total + 1):
            self.emit("progress", {"done": done, "total": self.total})
            gevent.sleep(0.01)


@app.add_task
class BlockOnce(Block):
    """Blocks the hub at its first start only."""

    NAME = "block-once"

    def start(self):
        if self.deliveries == 0:
            super().start()
