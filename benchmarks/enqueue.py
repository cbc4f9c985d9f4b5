"""Enqueue: how many tasks a producer makes a second, in batches and one at a time, beside bare floors.

A plain Python process without gevent. The floors send what a raw producer sends, `HSET` of `task` and `data` and
`LPUSH`, over one connection of redis-py with hiredis' packing, and nothing else: in batches of 500 and of 100, and
one task an exchange. The helpers write `created` and `state` as well. Kinds take turns within each round, and the
ratios are those of the same round.

    .venv/bin/python benchmarks/enqueue.py [--server redis] [--rounds 7] [--tcp] [--json]
"""

from __future__ import annotations

import argparse
import json
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import harness
import hiredis

from pytask import PyTask

ROUNDS, TASKS, SINGLES, BATCH, THREADS = 7, 20_000, 2_000, 500, 4
DATA = {"to": "someone@example.org"}
RAW_DATA = b'{"to":"someone@example.org"}'


class Producer:
    """The kinds, by name: each makes so many tasks."""

    def __init__(self, server: harness.Server) -> None:
        self.app = PyTask(server.url)
        self.client = server.client()
        self.raw: Any = self.client.connection_pool.get_connection()

    def close(self) -> None:
        self.client.connection_pool.release(self.raw)
        self.client.close()
        self.app.close()

    def _exchange(self, count: int) -> None:
        ids = [secrets.token_hex(16).encode() for _ in range(count)]
        commands = [("HSET", b"task-" + one, "task", "noop", "data", RAW_DATA) for one in ids]
        commands.append(("LPUSH", "new-task", *ids))
        self.raw.send_packed_command([b"".join(map(hiredis.pack_command, commands))])
        for _ in commands:
            self.raw.read_response()

    def floor(self, count: int, batch: int) -> None:
        """The floor, so many tasks an exchange."""
        for _ in range(count // batch):
            self._exchange(batch)

    def bulk(self, count: int) -> None:
        """start_tasks."""
        self.app.helpers.start_tasks([("noop", DATA)] * count)

    def single(self, count: int) -> None:
        """start_task, one after the other."""
        for _ in range(count):
            self.app.helpers.start_task("noop", DATA)

    def threads(self, count: int) -> None:
        """start_task in several threads."""
        workers = [threading.Thread(target=self.single, args=(count // THREADS,)) for _ in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def measure(server: harness.Server, rounds: int) -> dict[str, list[float]]:
    """Tasks a second of each kind, a figure a round."""
    here = Producer(server)
    kinds: dict[str, tuple[Callable[[int], None], int]] = {
        "floor, 500 at once": (lambda n: here.floor(n, BATCH), TASKS),
        "floor, 100 at once": (lambda n: here.floor(n, 100), TASKS),
        "start_tasks": (here.bulk, TASKS),
        "floor, one at a time": (lambda n: here.floor(n, 1), SINGLES),
        "start_task": (here.single, SINGLES),
        f"start_task, {THREADS} threads": (here.threads, SINGLES),
    }
    rows: dict[str, list[float]] = {name: [] for name in kinds}
    try:
        for kind, _ in kinds.values():
            kind(BATCH)  # warm
        for _ in range(rounds):
            for name, (kind, count) in kinds.items():
                here.client.flushall()
                began = time.perf_counter()
                kind(count)
                rows[name].append(count / (time.perf_counter() - began))
                waiting = here.client.llen("new-task")
                if waiting != count:
                    raise harness.BenchmarkError(f"{name}: {waiting} of {count} tasks wait")
    finally:
        here.close()
    return rows


def ratios(rows: dict[str, list[float]]) -> dict[str, float]:
    """Medians of the rounds' ratios."""

    def of(name: str, floor: str) -> float:
        pairs = zip(rows[name], rows[floor], strict=True)
        return round(harness.summarize(a / b for a, b in pairs).median, 2)

    return {
        "start_tasks / floor of 500": of("start_tasks", "floor, 500 at once"),
        "start_tasks / floor of 100": of("start_tasks", "floor, 100 at once"),
        "time of start_task / floor": of("floor, one at a time", "start_task"),
    }


def main() -> None:
    """The command line's work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--server", default="valkey", choices=("valkey", "redis"), help="to start (%(default)s)")
    parser.add_argument("--tcp", action="store_true", help="over loopback, not a unix socket")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    with harness.private_server(options.server, tcp=options.tcp) as server:
        rows = measure(server, options.rounds)
    found = {name: harness.summarize(figures) for name, figures in rows.items()}
    if options.json:
        medians = {name: round(one.median) for name, one in found.items()}
        print(json.dumps({"benchmark": "enqueue", **medians, "ratios": ratios(rows)}))
        return
    for name, one in found.items():
        print(f"{name:26} {one.median:9,.0f}/s   ({one.least:,.0f} to {one.most:,.0f})")
    for name, ratio in ratios(rows).items():
        print(f"{name:26} {ratio:9.2f}")


if __name__ == "__main__":
    main()
