"""Apps whose local tasks and exception handlers the tests look at."""

from __future__ import annotations

import sys

import gevent

from pytask import Cleanup, Monitor, PyTask, Task


class Boom(Task):
    """Raises one of these."""

    NAME = "boom"

    def __init__(self, kind="ValueError"):
        self.kind = kind

    def start(self):
        raise {"ValueError": ValueError, "Error": self.Error, "SystemExit": SystemExit}[self.kind]("boom")


class Noop(Task):
    NAME = "noop"

    def start(self):
        pass


class Ticker(Task):
    """A local task of a user: tells that it runs, and its data."""

    NAME = "ticker"

    def __init__(self, text="none", fails=0):
        self.text = text
        self.fails = fails

    def start(self):
        if self.redis.incr("ticks") <= self.fails:
            raise ValueError("not yet")
        self.redis.rpush("ticker", f"{self.text} {self.attempt}")
        while True:
            self.emit("tick", self.text)
            gevent.sleep(0.05)


# As the README of the original idea shows it.
written_out = PyTask()
written_out.add_tasks(Monitor, Cleanup, Noop)
written_out.start_local_task("pytask/monitor")
written_out.start_local_task("pytask/cleanup")

without = PyTask(local_tasks=False)
without.add_task(Noop)

only_monitor = PyTask(local_tasks=False)
only_monitor.start_local_task("pytask/monitor")

own = PyTask()
own.add_task(Ticker)
own.start_local_task("ticker", text="a")
own.start_local_task("ticker", text="b")

failing = PyTask()
failing.add_tasks(Ticker, Noop)
failing.start_local_task("ticker", fails=1)
failing.add_exception_handler(lambda error: failing.redis.rpush("heard", str(error)))

unknown = PyTask()
unknown.start_local_task("not-registered")

told = PyTask()
told.add_tasks(Boom, Noop)


@told.add_exception_handler
def first(error):
    told.redis.rpush("heard", f"first {type(error).__name__} {error}")


@told.add_exception_handler
def second(error):
    raise KeyError("the handler itself")


@told.add_exception_handler
def third(error):
    told.redis.rpush("heard", f"third {type(error).__name__} {error}")


exiting = PyTask()
exiting.add_tasks(Boom, Noop)
exiting.add_exception_handler(lambda error: sys.exit(8))
