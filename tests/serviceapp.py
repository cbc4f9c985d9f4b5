"""The app of the tests of services: a replica tells what it knows of itself, in Redis and beside its record."""

from __future__ import annotations

import os
import time

import gevent

from pytask import PyTask, Task

app = PyTask()


class Serve(Task):
    """Notes each start in `starts:<service>`, tells its numbers in `numbers:<id>`, and goes on for ever."""

    NAME = "serve"

    def __init__(self, word="", seconds=3600.0, fail=False):
        self.word, self.seconds, self.fail = word, seconds, fail

    def start(self):
        self.note("start")
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self.redis.hset(f"numbers:{self.id}", mapping={"replica": self.replica, "replicas": self.replicas})
            gevent.sleep(min(0.1, max(end - time.monotonic(), 0.001)))
        if self.fail:
            raise ValueError("it fails")

    def note(self, what):
        line = f"{what} {self.id} {self.word} {os.getpid()} {self.fence} {time.time():.3f}"
        self.redis.rpush(f"notes:{self.id.rpartition(':')[0]}", line)


class Quiet(Task):
    """Sleeps, and says nothing."""

    NAME = "quiet"
    forever = True

    def start(self):
        while True:
            gevent.sleep(3600)


class Once(Task):
    NAME = "once"
    unique = True
    expires_in = 1
    rescheduling = False

    def start(self):
        while True:
            gevent.sleep(3600)


app.add_tasks(Serve, Quiet, Once)
if "PYTASK_TEST_SERVICE_REPLICAS" in os.environ:
    word = os.environ.get("PYTASK_TEST_SERVICE_WORD", "code")
    app.add_service("coded", Serve, replicas=int(os.environ["PYTASK_TEST_SERVICE_REPLICAS"]), data={"word": word})
