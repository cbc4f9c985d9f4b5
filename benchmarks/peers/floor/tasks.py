"""The floor's producer: what the wire protocol asks of one, over raw redis-py, with no framework around it."""

from __future__ import annotations

import os
import secrets

import redis

client = redis.Redis.from_url(os.environ["BENCH_URL"])


def enqueue_many(kind, numbers):
    """HSET a record each and LPUSH the ids, in one round trip; its state makes it as safe as the project's own."""
    pipe = client.pipeline(transaction=False)
    ids = []
    for number in numbers:
        task_id = secrets.token_hex(16)
        ids.append(task_id)
        data = b"{}" if kind == "noop" else b'{"number":%d}' % number
        pipe.execute_command("HSET", "task-" + task_id, "task", kind, "data", data)
    pipe.execute_command("LPUSH", "new-task", *ids)
    pipe.execute()


def enqueue(kind, number):
    enqueue_many(kind, [number])
