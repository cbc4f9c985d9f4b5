"""Raw producers: one that fills a list at once, and a process that keeps queues at a level.

    python -m scale.feeder URL LEVEL QUEUE_KEY[,QUEUE_KEY...]

keeps `LEVEL` no-op tasks waiting, over all queues, until it is killed; says `full` when they are there for the
first time. Both write what a producer without this library would: HSET and LPUSH, 500 a round trip.
"""

from __future__ import annotations

import secrets
import sys
import time
from typing import Any

import redis

BATCH = 500


def connect(url: str) -> Any:
    """A client of one server or of a cluster."""
    if url.startswith("redis+cluster://"):
        host, port = url.removeprefix("redis+cluster://").split(",")[0].split(":")
        return redis.RedisCluster(host=host, port=int(port), socket_timeout=60)
    return redis.Redis.from_url(url, socket_timeout=60)


def push(client: Any, key: str, count: int, task: str = "noop", data: str = "{}", **fields: str) -> None:
    """Make records and push their ids to a list, which need not be a queue yet."""
    flat = [part for pair in fields.items() for part in pair]
    for start in range(0, count, BATCH):
        ids = [secrets.token_hex(16) for _ in range(min(BATCH, count - start))]
        pipe = client.pipeline(transaction=False) if isinstance(client, redis.Redis) else client.pipeline()
        for task_id in ids:
            pipe.execute_command("HSET", "task-" + task_id, "task", task, "data", data, *flat)
        pipe.execute()
        client.lpush(key, *ids)


def feed(url: str, level: int, keys: list[str]) -> None:
    """Keep so many tasks waiting, for ever."""
    client = connect(url)
    share, full = max(level // len(keys), 1), False
    while True:
        idle = True
        for key in keys:
            missing = share - client.llen(key)
            if missing > (min(share // 10, BATCH) if full else 0):
                push(client, key, missing if not full else min(missing, BATCH))
                idle = False
        if idle and not full:
            full = True
            print("full", flush=True)
        if idle:
            time.sleep(0.002)


if __name__ == "__main__":
    feed(sys.argv[1], int(sys.argv[2]), sys.argv[3].split(","))
