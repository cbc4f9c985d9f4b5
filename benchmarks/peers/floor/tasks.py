"""The floor's producer: what the wire protocol asks of one, over a raw connection, with no framework around it."""

from __future__ import annotations

import os
import secrets

import hiredis
import redis

client = redis.Redis.from_url(os.environ["BENCH_URL"], socket_timeout=60)
connection = client.connection_pool.get_connection()
pack = hiredis.pack_command


def enqueue_many(kind, numbers):
    """HSET a record each and LPUSH the ids, in one round trip."""
    ids = [secrets.token_hex(16) for _ in numbers]
    if kind == "noop":
        packed = [pack(("HSET", "task-" + task_id, "task", "noop", "data", "{}")) for task_id in ids]
    else:
        rows = zip(ids, numbers, strict=True)
        packed = [pack(("HSET", "task-" + i, "task", kind, "data", f'{{"number":{n}}}')) for i, n in rows]
    packed.append(pack(("LPUSH", "new-task", *ids)))
    connection.send_packed_command([b"".join(packed)])
    for _ in packed:
        connection.read_response()


def enqueue(kind, number):
    enqueue_many(kind, [number])
