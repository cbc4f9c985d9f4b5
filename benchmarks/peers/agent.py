"""The producer of one peer: runs in the peer's own environment, with the peer's `tasks.py`, and prints JSON.

    python agent.py DIRECTORY fill KIND COUNT [ARGUMENT]   COUNT tasks, in bulk where the peer can
    python agent.py DIRECTORY enqueue one|many SECONDS     tasks a second
    python agent.py DIRECTORY latency SAMPLES SECONDS      milliseconds from the call to a task's first line
    python agent.py DIRECTORY settle COUNT SECONDS         when all is kept that the peer keeps of COUNT tasks

A `tasks.py` has `enqueue(kind, argument)`, and, where the peer can, `enqueue_many(kind, arguments)`, each a
function or a coroutine function; `opened()`, an asynchronous context manager around all; `settled(count)`, true
when what the peer keeps of its tasks is there. Kinds: `noop`; `pause`, whose argument is seconds; `stamp`, a
number."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])
sys.path.insert(0, str(Path(__file__).parent))

import tasks
from marks import STAMPS, Total, open_doubles

BATCH = 500
WARM = 10  # tasks before the first sample
Spoken = dict[str, Any]


async def done(answer: Any) -> Any:
    """The answer itself, or what it is the promise of."""
    return await answer if inspect.isawaitable(answer) else answer


async def fill(kind: str, count: str, argument: str = "0") -> Spoken:
    """Make tasks that all have the same argument."""
    value = float(argument)
    for start in range(0, int(count), BATCH):
        await make(kind, [value] * min(BATCH, int(count) - start))
    return {"made": int(count)}


async def make(kind: str, values: Sequence[float]) -> None:
    """In bulk where the peer can."""
    if hasattr(tasks, "enqueue_many"):
        await done(tasks.enqueue_many(kind, values))
        return
    for value in values:
        await done(tasks.enqueue(kind, value))


async def enqueue(how: str, seconds: str) -> Spoken:
    """Make no-op tasks for so many seconds, one at a time or in batches of 500."""
    if how == "many" and not hasattr(tasks, "enqueue_many"):
        return {"rate": None}
    step = [0.0] * (BATCH if how == "many" else 20)
    turn = make if how == "many" else one_by_one
    await turn("noop", step)  # connects
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < float(seconds):
        await turn("noop", step)
        count += len(step)
    return {"rate": count / spent, "made": count}


async def one_by_one(kind: str, values: Sequence[float]) -> None:
    for value in values:
        answer = tasks.enqueue(kind, value)
        if inspect.isawaitable(answer):
            await answer


async def latency(samples: str, seconds: str) -> Spoken:
    """Make one task at a time, each when the worker has been idle for a moment.

    The moment is random, and longer than the peer's own time between two polls: right behind one, each task would
    meet the longest wait.
    """
    stamps = open_doubles(Path(os.environ["BENCH_MARKS"], STAMPS), int(samples) + WARM)
    deadline, found = time.monotonic() + float(seconds), []
    for number in range(int(samples) + WARM):
        began = time.monotonic()
        await done(tasks.enqueue("stamp", number))
        while not stamps[number]:
            await asyncio.sleep(0.005)
            if time.monotonic() > deadline + 60:
                raise SystemExit(f"task {number} has not begun within a minute")
        found.append(round((stamps[number] - began) * 1e3, 3))
        await asyncio.sleep(random.uniform(0.02, 0.04 + 2e-3 * statistics.median(found)))
        if time.monotonic() > deadline and len(found) > WARM:
            break
    return {"samples": found[WARM:]}


async def settle(count: str, seconds: str) -> Spoken:
    """Wait until all ended and all is kept; `at` is the monotonic clock then, null where nothing is kept."""
    if not hasattr(tasks, "settled"):
        return {"at": None}
    total, deadline = Total(Path(os.environ["BENCH_MARKS"])), time.monotonic() + float(seconds)
    while total.ended < int(count) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    while not await done(tasks.settled(int(count))):
        if time.monotonic() > deadline:
            raise SystemExit(f"not all is kept of {count} tasks")
        await asyncio.sleep(0.005)
    return {"at": time.monotonic()}


@contextlib.asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


async def main(command: str, *arguments: str) -> None:
    """Open the peer, do what was asked, print the answer as the last line."""
    commands = {"fill": fill, "enqueue": enqueue, "latency": latency, "settle": settle}
    async with getattr(tasks, "opened", nothing)():
        answer = await commands[command](*arguments)
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[2:]))
