"""Huey on Redis, with greenlets."""

from __future__ import annotations

import os

if os.environ.get("BENCH_ROLE") == "worker":
    from gevent import monkey

    monkey.patch_all()

import time

from huey import RedisHuey
from marks import marks
from redis import ConnectionPool

pool = ConnectionPool.from_url(os.environ["BENCH_URL"], max_connections=20_000, socket_timeout=None)
huey = RedisHuey("bench", connection_pool=pool, results=False)


@huey.task()
def noop():
    marks.begin()
    marks.end()


@huey.task()
def pause(seconds):
    marks.begin()
    time.sleep(seconds)
    marks.end()


@huey.task()
def stamp(number):
    marks.stamp(number)


TASKS = {"noop": noop, "pause": pause, "stamp": stamp}


def enqueue(kind, number):
    TASKS[kind](*(() if kind == "noop" else (number,)))
