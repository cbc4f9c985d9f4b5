"""Celery, as its guide to optimizing says for short tasks."""

from __future__ import annotations

import os
import time

from celery import Celery
from marks import marks

RESULTS = os.environ.get("RESULTS") == "1"
URL = os.environ["BENCH_URL"]

app = Celery("tasks", broker=URL, backend=URL if RESULTS else None)
app.conf.update(
    task_ignore_result=not RESULTS,
    worker_prefetch_multiplier=int(os.environ["PREFETCH"]),
    worker_disable_rate_limits=True,
    redis_max_connections=10_000,
    broker_transport_options={"max_connections": 10_000},
    broker_connection_retry_on_startup=True,
    redis_socket_timeout=None,
    result_expires=3600,
)


@app.task
def noop():
    marks.begin()
    marks.end()


@app.task
def pause(seconds):
    marks.begin()
    time.sleep(seconds)
    marks.end()


@app.task
def stamp(number):
    marks.stamp(number)


TASKS = {"noop": noop, "pause": pause, "stamp": stamp}


def enqueue(kind, number):
    TASKS[kind].delay(*(() if kind == "noop" else (number,)))


def enqueue_many(kind, numbers):
    """One connection and one producer for all: the guide's way; Celery has no bulk publish for Redis."""
    task = TASKS[kind]
    with app.producer_pool.acquire(block=True) as producer:
        for number in numbers:
            task.apply_async(() if kind == "noop" else (number,), producer=producer)


if RESULTS:
    import redis

    client = redis.Redis.from_url(URL)

    def settled(count):
        """A result for each task."""
        return client.dbsize() >= count
