"""Latency: how long until a task starts on an idle node, and until one that runs has stopped, beside bare floors.

Start: from the call of `start_task` in one process to the first line of `start()` on a node that is another. Stop:
from `PUBLISH task-<id>-control stop` to the event `stopped` in the process that published. The floors, in the same
rounds: from `HSET` and `LPUSH` in one exchange to a bare `BLMOVE` of another process, with nothing around it; and
`PUBLISH` to a subscriber and back. Milliseconds; both clocks are the system's monotonic one.

    .venv/bin/python benchmarks/latency.py [--server redis] [--samples 500] [--tcp] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
import redis

from pytask import PyTask

ROUNDS, SAMPLES = 5, 500
IDLE = 0.004, 0.012  # seconds between two samples: the node is idle again, and in no step with us
DEADLINE = 20.0  # seconds that one sample may take


# The bare floors: what answers, in a process of its own.


def mover(url: str) -> None:
    """Take ids with BLMOVE for ever, and tell when each came."""
    with redis.Redis.from_url(url, socket_timeout=None) as client:
        while True:
            client.blmove("floor", "floor:taken", 0, "RIGHT", "LEFT")
            now = time.monotonic()
            client.lpush("floor:times", now)


def echo(url: str) -> None:
    """Answer each message with one."""
    with redis.Redis.from_url(url, socket_timeout=None) as client, client.pubsub() as channel:
        channel.subscribe("floor:ask")
        for message in channel.listen():
            if message["type"] == "message":
                client.publish("floor:answer", message["data"])


# Samples, in seconds each.


class Samples:
    """What one process measures: it makes tasks and reads channels."""

    def __init__(self, url: str) -> None:
        self.app = PyTask(url)
        self.client = redis.Redis.from_url(url, socket_timeout=60)
        self.channel = self.client.pubsub()
        self.channel.psubscribe("task-*", "floor:answer")

    def close(self) -> None:
        self.channel.close()
        self.client.close()
        self.app.close()

    def _hear(self, channel: str, part: bytes) -> None:
        """Read until a message on this channel has this part."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            message = self.channel.get_message(timeout=1)
            if message and message["channel"] == channel.encode() and part in message["data"]:
                return
        raise harness.BenchmarkError(f"{channel}: no {part!r} came")

    def start(self) -> float:
        """From the call of start_task to the first line of start()."""
        began = time.monotonic()
        task_id = self.app.helpers.start_task("stamp")
        self._hear(f"task-{task_id}", b'"success"')
        return float(self.app.helpers.get_task(task_id, "output")) - began

    def stop(self) -> float:
        """From PUBLISH to the event."""
        task_id = self.app.helpers.start_task("stay")
        self._hear(f"task-{task_id}", b'"stays"')
        time.sleep(random.uniform(*IDLE))
        began = time.monotonic()
        self.client.publish(f"task-{task_id}-control", "stop")
        self._hear(f"task-{task_id}", b'"stopped"')
        return time.monotonic() - began

    def move(self) -> float:
        """From HSET and LPUSH to a process in BLMOVE."""
        began = time.monotonic()
        task_id = secrets.token_hex(16)
        pipe = self.client.pipeline(transaction=False)
        pipe.hset(f"floor-{task_id}", mapping={"task": "stamp", "data": "{}"})
        pipe.lpush("floor", task_id)
        pipe.execute()
        _, came = self.client.brpop("floor:times")
        return float(came) - began

    def ask(self) -> float:
        """From PUBLISH to a subscriber's PUBLISH."""
        began = time.monotonic()
        self.client.publish("floor:ask", "?")
        self._hear("floor:answer", b"?")
        return time.monotonic() - began


NAMES = {
    "move": "floor: LPUSH -> BLMOVE",
    "start": "start_task -> start()",
    "ask": "floor: PUBLISH -> PUBLISH",
    "stop": "PUBLISH stop -> stopped",
}


def measure(url: str, rounds: int, samples: int) -> dict[str, list[float]]:
    """All samples of each kind, in milliseconds; the kinds take turns."""
    rows: dict[str, list[float]] = {name: [] for name in NAMES}
    here = Samples(url)
    kinds: dict[str, Callable[[], float]] = {name: getattr(here, name) for name in NAMES}
    try:
        for kind in kinds.values():
            for _ in range(20):
                kind()  # warm
        for _ in range(rounds):
            for name, kind in kinds.items():
                for _ in range(-(-samples // rounds)):
                    time.sleep(random.uniform(*IDLE))
                    rows[name].append(kind() * 1e3)
    finally:
        here.close()
    return rows


@contextlib.contextmanager
def answering(url: str) -> Iterator[None]:
    """A node, and the two programs of the floors."""
    logs = harness.SCRATCH / "latency"
    command = [sys.executable, "-m", "pytask", "worker", "latencytasks:app", "--path", str(harness.HERE)]
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(harness.Worker([*command, "-u", url], logs / "node.log"))
        for role in ("mover", "echo"):
            command = [sys.executable, os.path.abspath(__file__), "--role", role, "--url", url]
            stack.enter_context(harness.Worker(command, logs / f"{role}.log"))
        with redis.Redis.from_url(url) as client:
            harness.wait_for(lambda: client.exists("{new-task}:nodes"), "the node works", 30, worker)
            harness.wait_for(lambda: client.pubsub_numsub("floor:ask")[0][1], "the floor listens", 30)
        time.sleep(3)  # until the first beats and looks are over
        yield


def summary(values: list[float]) -> dict[str, float]:
    """Milliseconds."""
    parts = {"p50": 0.5, "p99": 0.99}
    found = {name: round(harness.percentile(values, part), 3) for name, part in parts.items()}
    return found | {"max": round(max(values), 3), "samples": len(values)}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each kind (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--server", default="valkey", choices=("valkey", "redis"), help="to start (%(default)s)")
    parser.add_argument("--tcp", action="store_true", help="over loopback, not a unix socket")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--role", choices=("mover", "echo"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """The command line's work."""
    options = parse()
    if options.role:
        {"mover": mover, "echo": echo}[options.role](options.url)
    with harness.private_server(options.server, tcp=options.tcp) as server, answering(server.url):
        rows = measure(server.url, options.rounds, options.samples)
    found: dict[str, Any] = {name: summary(values) for name, values in rows.items()}
    if options.json:
        print(json.dumps({"benchmark": "latency", "server": server.version, **found}))
        return
    for name, words in NAMES.items():
        print(
            "{:28} p50 {p50:7.3f}   p99 {p99:7.3f}   max {max:7.3f} ms   of {samples}".format(words, **found[name])
        )


if __name__ == "__main__":
    main()
