"""arq."""

from __future__ import annotations

import asyncio
import contextlib
import os

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import func
from marks import marks

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_URL"])
pool = None


async def noop(ctx):
    marks.begin()
    marks.end()


async def pause(ctx, seconds):
    marks.begin()
    await asyncio.sleep(seconds)
    marks.end()


async def stamp(ctx, number):
    marks.stamp(number)


@contextlib.asynccontextmanager
async def opened():
    global pool
    pool = await create_pool(SETTINGS)
    yield
    await pool.aclose()


async def enqueue(kind, number):
    await pool.enqueue_job(kind, *(() if kind == "noop" else (number,)))


async def enqueue_many(kind, numbers):
    """arq has no bulk call: 50 of its calls at a time, which is what its pool of connections is for."""
    for start in range(0, len(numbers), 50):
        await asyncio.gather(*(enqueue(kind, number) for number in numbers[start : start + 50]))


class WorkerSettings:
    redis_settings = SETTINGS
    functions = [func(task, keep_result=0, timeout=600) for task in (noop, pause, stamp)]
    max_jobs = int(os.environ["BENCH_CONCURRENCY"])
    poll_delay = float(os.environ["POLL_DELAY"])


LOG = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}
