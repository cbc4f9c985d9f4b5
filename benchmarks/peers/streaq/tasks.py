"""streaq."""

from __future__ import annotations

import asyncio
import contextlib
import os

from marks import marks
from streaq import Worker

worker = Worker(
    redis_url=os.environ["BENCH_URL"],
    concurrency=int(os.environ["BENCH_CONCURRENCY"]),
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(name="noop", silent=True)
async def noop():
    marks.begin()
    marks.end()


@worker.task(name="pause", silent=True)
async def pause(seconds):
    marks.begin()
    await asyncio.sleep(seconds)
    marks.end()


@worker.task(name="stamp", silent=True)
async def stamp(number):
    marks.stamp(number)


TASKS = {"noop": noop, "pause": pause, "stamp": stamp}


@contextlib.asynccontextmanager
async def opened():
    async with worker:
        yield


async def enqueue(kind, number):
    await TASKS[kind].enqueue(*(() if kind == "noop" else (number,)))


async def enqueue_many(kind, numbers):
    task = TASKS[kind]
    await worker.enqueue_many([task.enqueue(*(() if kind == "noop" else (number,))) for number in numbers])
