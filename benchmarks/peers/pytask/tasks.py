"""The project itself: the same tasks as everybody's, through the public API."""

from __future__ import annotations

import os
import time

from marks import marks

from pytask import PyTask, Task

app = PyTask(os.environ["BENCH_URL"])


@app.add_task
class Noop(Task):
    NAME = "noop"

    def __init__(self, number=0):
        pass

    def start(self):
        marks.begin()
        marks.end()


@app.add_task
class Pause(Task):
    NAME = "pause"

    def __init__(self, number):
        self.seconds = number

    def start(self):
        marks.begin()
        time.sleep(self.seconds)
        marks.end()


@app.add_task
class Stamp(Task):
    NAME = "stamp"

    def __init__(self, number):
        self.number = number

    def start(self):
        marks.stamp(self.number)


def enqueue(kind, number):
    if kind == "noop":
        app.helpers.start_task("noop")
    else:
        app.helpers.start_task(kind, number=number)


def enqueue_many(kind, numbers):
    if kind == "noop":
        app.helpers.start_tasks([("noop",)] * len(numbers))
    else:
        app.helpers.start_tasks((kind, {"number": number}) for number in numbers)


def settled(count):
    """Every record a success, every claim released, every ended id taken by Cleanup."""
    redis = app.redis
    if int(redis.hget("{new-task}:counts", "SUCCESS") or 0) < count:
        return False
    return not redis.exists("new-task", "{new-task}:claims", "end-task", *redis.keys("{end-task}:of:*"))
