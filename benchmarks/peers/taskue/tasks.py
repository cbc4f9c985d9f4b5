"""taskue."""

from __future__ import annotations

import os
import time

from marks import marks
from redis import Redis
from taskue import Taskue
from taskue.task import Task
from taskue.utils import logging

logging.disable(logging.INFO)
taskue = Taskue(Redis.from_url(os.environ["BENCH_URL"]))


def noop():
    marks.begin()
    marks.end()


def pause(seconds):
    marks.begin()
    time.sleep(seconds)
    marks.end()


def stamp(number):
    marks.stamp(number)


TASKS = {"noop": noop, "pause": pause, "stamp": stamp}


def enqueue(kind, number):
    task = Task()
    task.execute(TASKS[kind], *(() if kind == "noop" else (number,)))
    taskue.run(task)
