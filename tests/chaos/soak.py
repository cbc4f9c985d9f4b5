"""`make soak`: thousands of endless tasks, a stream of short ones, and kills, for an hour; then: what has grown?

    python -m chaos.soak --minutes 60

Samples the memory of nodes and of the server and the size of every key. Flat is what grows by less than 5 % of its
mean in an hour, by a line through the samples after the first sixth. Exit status 1 where anything is not flat.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.progress import track
from rich.table import Table

from chaos import journal
from chaos.faults import Faults
from chaos.fleet import Fleet
from chaos.servers import Single, resident_bytes
from pytask import PyTask
from pytask.errors import StoreError

ENDLESS, RATE = 5_000, 500
NODES = 4
SAMPLE = 10.0  # seconds
KILL_EVERY = 60.0  # seconds
FLAT = 0.05  # of the mean, in an hour
SIZES = {"hash": "hlen", "list": "llen", "set": "scard", "zset": "zcard", "string": "strlen", "stream": "xlen"}
NODE_ID = re.compile(rb"[A-Za-z0-9_.-]+:\d+:[0-9a-f]{8}")
KEPT = {"{new-task}:ended", "{new-task}:counts"}  # grow to a bound, or count
TTL = 20  # seconds that results are kept, so that records come and go

Series = list[tuple[float, float]]


class Stream(threading.Thread):
    """Pushes short tasks at a steady rate until it is told to stop."""

    def __init__(self, url: str, rate: int) -> None:
        super().__init__(daemon=True)
        self.app = PyTask(url)
        self.rate = rate
        self.made = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        while not self.stopping.wait(0.1):
            wanted = int((time.monotonic() - began) * self.rate)
            rows = [("work", {"seconds": random.uniform(0.01, 0.2)}) for _ in range(min(wanted - self.made, 2000))]
            try:
                self.made += len(self.app.helpers.start_tasks(rows))
            except StoreError:
                continue


class Soak:
    """One soak on one server."""

    def __init__(self, kind: str, minutes: float, rate: int, endless: int, seed: int) -> None:
        self.server = Single(kind)
        self.minutes = minutes
        self.endless = endless
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-soak-"))
        settings = {"concurrency": 4000, "result_ttl": TTL, "failure_ttl": TTL, "max_deliveries": 1_000_000}
        self.fleet = Fleet(self.server.url, self.folder, settings, {journal.NONE: "1"})
        self.faults = Faults(self.fleet, self.server, random.Random(seed), 8.0)
        self.stream = Stream(self.server.url, rate)
        self.series: dict[str, Series] = defaultdict(list)

    def run(self) -> None:
        """Blocks for the time that was asked for."""
        with self.server:
            try:
                self._run()
            finally:
                self.stream.stopping.set()
                self.fleet.close()

    def _run(self) -> None:
        for _ in range(NODES):
            self.fleet.start(wait=True)
        self.faults.spared = self.fleet.nodes[0]  # its memory is followed from the first minute to the last
        self.stream.app.helpers.start_tasks(
            [("forever", {"pause": random.uniform(5, 30)}) for _ in range(self.endless)]
        )
        self.stream.start()
        began = time.monotonic()
        steady = began + 15
        self.faults.plan(
            self.faults.kill_node, int(self.minutes * 60 / KILL_EVERY), steady, began + self.minutes * 60 - 10
        )
        samples = max(int(self.minutes * 60 / SAMPLE), 2)
        with self.server.client() as client:
            for number in track(range(samples), description="soak", console=Console(stderr=True)):
                while time.monotonic() < began + (number + 1) * SAMPLE:
                    self.faults.agenda.run_due()
                    time.sleep(0.05)
                self._sample(client, time.monotonic() - began)

    def _sample(self, client: redis.Redis, second: float) -> None:
        note = self.series
        living = [node for node in self.fleet.living if node.ready]
        note["nodes: memory each, MB"].append(
            (second, statistics.mean(resident_bytes(n.pid) for n in living) / 1e6)
        )
        note["nodes: memory of the one that is spared, MB"].append((second, resident_bytes(living[0].pid) / 1e6))
        note["server: used memory, MB"].append((second, client.info("memory")["used_memory"] / 1e6))
        note["server: clients"].append((second, client.info("clients")["connected_clients"]))
        for name, size in self._sizes(client).items():
            note[f"key {name}"].append((second, size))

    def _sizes(self, client: redis.Redis) -> dict[str, float]:
        """Elements by key; the keys of nodes and of tasks are added up."""
        sizes: dict[str, float] = defaultdict(float)
        keys = list(client.scan_iter(count=1000))
        tasks = [key for key in keys if key.startswith(b"task-")]
        sizes["task-* (how many)"] = len(tasks)
        for key in set(keys) - set(tasks):
            kind = client.type(key).decode()
            if kind in SIZES:
                sizes[NODE_ID.sub(b"*", key).decode()] += getattr(client, SIZES[kind])(key)
        return sizes


def slope(series: Series) -> float:
    """Growth in an hour, as a share of the mean, by least squares."""
    times, values = zip(*series, strict=True)
    mean = statistics.mean(values)
    if len(series) < 3 or not mean:
        return 0.0
    return statistics.linear_regression(times, values).slope * 3600 / mean


def judge(soak: Soak) -> tuple[Table, bool]:
    """A line for everything that was sampled, and whether all is flat."""
    table, fine = Table(title="soak"), True
    for head in ("what", "first", "last", "largest", "in an hour", ""):
        table.add_column(head)
    for name, series in sorted(soak.series.items()):
        settled = [row for row in series if row[0] >= soak.minutes * 10] or series
        growth = slope(settled)
        kept = name.removeprefix("key ") in KEPT
        # a list that is empty most of the time has a slope, and nothing in it
        is_small = not name.endswith("MB") and max(value for _, value in settled[-3:]) < 100
        grows = growth > FLAT and not kept and not is_small
        fine = fine and not grows
        values = [value for _, value in series]
        word = "bounded" if kept else "GROWS" if grows else "flat"
        table.add_row(name, *(f"{v:,.1f}" for v in (values[0], values[-1], max(values))), f"{growth:+.1%}", word)
    return table, fine


def main() -> int:
    """Soak, and tell."""
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--server", default="valkey", choices=("valkey", "redis"))
    parser.add_argument("--rate", type=int, default=RATE, help="short tasks a second")
    parser.add_argument("--endless", type=int, default=ENDLESS)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    soak = Soak(options.server, options.minutes, options.rate, options.endless, options.seed)
    soak.run()
    table, fine = judge(soak)
    facts: dict[str, Any] = {"seed": options.seed, "short tasks": soak.stream.made, **soak.faults.counts}
    Console().print(facts)
    Console().print(table)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
