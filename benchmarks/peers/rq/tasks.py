"""RQ: functions, and the queue."""

from __future__ import annotations

import os
import time

import redis
from marks import marks
from rq import Queue

queue = Queue("bench", connection=redis.Redis.from_url(os.environ["BENCH_URL"]))


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
    queue.enqueue(TASKS[kind], *(() if kind == "noop" else (number,)))


def enqueue_many(kind, numbers):
    queue.enqueue_many(
        [Queue.prepare_data(TASKS[kind], () if kind == "noop" else (number,)) for number in numbers]
    )
