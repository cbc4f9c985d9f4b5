"""taskiq, on a Redis list or a Redis stream."""

from __future__ import annotations

import asyncio
import contextlib
import os

from marks import marks
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

URL, RESULTS = os.environ["BENCH_URL"], os.environ.get("RESULTS") == "1"
options = {"socket_timeout": None}

if os.environ["QUEUE"] == "list":
    broker = ListQueueBroker(URL, **options)
else:
    broker = RedisStreamBroker(URL, xread_count=500, **options)
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=3600, **options))


@broker.task
async def noop():
    marks.begin()
    marks.end()


@broker.task
async def pause(seconds):
    marks.begin()
    await asyncio.sleep(seconds)
    marks.end()


@broker.task
async def stamp(number):
    marks.stamp(number)


TASKS = {"noop": noop, "pause": pause, "stamp": stamp}


@contextlib.asynccontextmanager
async def opened():
    await broker.startup()
    yield
    await broker.shutdown()


async def enqueue(kind, number):
    await TASKS[kind].kiq(*(() if kind == "noop" else (number,)))


async def enqueue_many(kind, numbers):
    """taskiq has no bulk call: 50 of its calls at a time."""
    for start in range(0, len(numbers), 50):
        await asyncio.gather(*(enqueue(kind, number) for number in numbers[start : start + 50]))


if RESULTS:
    import redis

    client = redis.Redis.from_url(URL)

    def settled(count):
        """A result for each task."""
        return client.dbsize() >= count
