"""SAQ on Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os

import uvloop
from marks import marks
from redis import asyncio as aioredis
from saq.queue.redis import RedisQueue

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

client = aioredis.from_url(os.environ["BENCH_URL"], socket_timeout=None, max_connections=20_000)
queue = RedisQueue(client, name="bench", max_concurrent_ops=50)


async def noop(ctx):
    marks.begin()
    marks.end()


async def pause(ctx, *, number):
    marks.begin()
    await asyncio.sleep(number)
    marks.end()


async def stamp(ctx, *, number):
    marks.stamp(number)


@contextlib.asynccontextmanager
async def opened():
    await queue.connect()
    yield
    await queue.disconnect()


OPTIONS = {"timeout": 600, "ttl": -1, "retries": 1}


async def enqueue(kind, number):
    await queue.enqueue(kind, **OPTIONS, **({} if kind == "noop" else {"number": number}))


async def enqueue_many(kind, numbers):
    """SAQ has no bulk call: as many of its calls at a time as the queue allows."""
    await asyncio.gather(*(enqueue(kind, number) for number in numbers))


settings = {
    "queue": queue,
    "functions": [noop, pause, stamp],
    "concurrency": int(os.environ["BENCH_CONCURRENCY"]),
    "dequeue_timeout": 2,
}
