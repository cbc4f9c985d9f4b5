"""Retention: what the server holds after many tasks, and how much of it a record takes.

One node drains no-op tasks as fast as it can, while a producer keeps its queue from running empty. At the end the
server is asked what is left: keys, bytes, ended ids. In the first part records live for a second, so that only
what is kept for ever is left; in the second one they stay, and their bytes are counted.

    .venv/bin/python benchmarks/retention.py [--tasks 1000000] [--server redis] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import harness
import redis

from pytask import PyTask, Task

TASKS, KEPT = 1_000_000, 20_000
AHEAD, BATCH = 20_000, 5_000  # tasks that wait at most, tasks that are made at once
SETTLE = 5.0  # seconds until records of a second's life are gone for sure

app = PyTask()


@app.add_task
class Noop(Task):
    """Does nothing."""

    NAME = "noop"

    def start(self) -> None:
        """Nothing."""


def drain(server: harness.Server, tasks: int, ttl: float) -> dict[str, Any]:
    """Run so many tasks whose records live for so many seconds; returns what the server holds then."""
    command = [sys.executable, "-m", "pytask", "worker", "retention:app", "--path", str(harness.HERE)]
    flags = ["-u", server.url, "--result-ttl", str(ttl)]
    log = harness.SCRATCH / "retention.log"
    with server.client() as client, harness.Worker([*command, *flags], log) as worker:
        harness.wait_for(lambda: client.hlen("{new-task}:nodes") == 1, "the node works", 30, worker)
        before = client.info("memory")["used_memory"]
        began = time.monotonic()
        feed(server.url, client, tasks)
        harness.wait_for(lambda: ended(client) >= tasks, "all have ended", 600, worker)
        seconds = time.monotonic() - began
        if ttl < SETTLE:
            time.sleep(SETTLE)
        client.memory_purge()
        held = client.info("memory")["used_memory"] - before
        return {
            "tasks": tasks,
            "a_second": round(tasks / seconds),
            "keys": client.dbsize(),
            "records": sum(1 for _ in client.scan_iter("task-*", 10_000)),
            "ended_ids": client.zcard("{new-task}:ended"),
            "ended_bytes": client.memory_usage("{new-task}:ended", samples=0),
            "more_bytes": held,
        }


def feed(url: str, client: redis.Redis, tasks: int) -> None:
    """Make tasks, as fast as they are taken."""
    producer = PyTask(url)
    made = 0
    while made < tasks:
        if client.llen("new-task") > AHEAD:
            time.sleep(0.02)
            continue
        count = min(BATCH, tasks - made)
        producer.helpers.start_tasks([("noop",)] * count)
        made += count
    producer.close()


def ended(client: redis.Redis) -> int:
    """How many tasks have ended so far, as the queue counts them."""
    return int(client.hget("{new-task}:counts", "SUCCESS") or 0)


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for tasks, ttl in ((options.tasks, 1), (KEPT, 3600)):
        with harness.private_server(options.server) as server:
            rows.append(drain(server, tasks, ttl))
    gone, kept = rows
    kept["bytes_a_record"] = round((kept["more_bytes"] - kept["ended_bytes"]) / kept["records"])
    if options.json:
        print(json.dumps(rows))
        return
    print("{tasks:,} tasks ({a_second:,} a second), their records gone after a second:".format(**gone))
    print(
        "  {keys} keys, {records} of them records; {ended_ids:,} ended ids in {ended_bytes:,} bytes;".format(
            **gone
        )
    )
    print("  the server uses {more_bytes:,} bytes more than before".format(**gone))
    print("{records:,} records that are kept: {bytes_a_record} bytes each".format(**kept))


if __name__ == "__main__":
    main()
