"""Dramatiq on its Redis broker."""

from __future__ import annotations

import os
import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend
from marks import marks

RESULTS = os.environ.get("RESULTS") == "1"


def connect():
    """A client that may have as many connections as there are greenlets, and waits as long as it takes."""
    return redis.Redis.from_url(os.environ["BENCH_URL"], max_connections=20_000, socket_timeout=None)


broker = RedisBroker(client=connect())
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(client=connect())))
dramatiq.set_broker(broker)
options = {"store_results": True} if RESULTS else {}


@dramatiq.actor(**options)
def noop():
    marks.begin()
    marks.end()


@dramatiq.actor(**options)
def pause(seconds):
    marks.begin()
    time.sleep(seconds)
    marks.end()


@dramatiq.actor(**options)
def stamp(number):
    marks.stamp(number)


TASKS = {"noop": noop, "pause": pause, "stamp": stamp}


def enqueue(kind, number):
    TASKS[kind].send(*(() if kind == "noop" else (number,)))


def enqueue_many(kind, numbers):
    """A group: its way to send many at once."""
    task = TASKS[kind]
    dramatiq.group([task.message(*(() if kind == "noop" else (number,))) for number in numbers]).run()


if RESULTS:

    def settled(count):
        """A result for each task; the rest of the keys are the broker's own."""
        return broker.client.dbsize() >= count
