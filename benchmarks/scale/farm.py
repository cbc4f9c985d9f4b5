"""A farm: one empty server, nodes on it, a feeder, and the gauge that reads them. Ends with its block."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import harness
from harness import Server, Worker, wait_for

from scale import feeder
from scale.gauge import Costs, Gauge, between, count_ended

QUEUE = "new-task"
START_SECONDS = 60.0
PATHS = {"PYTHONPATH": os.pathsep.join([str(harness.HERE), str(harness.ROOT), os.environ.get("PYTHONPATH", "")])}


def keys_of(count: int) -> list[str]:
    """The keys of so many queues; one is the default queue."""
    return [QUEUE] if count == 1 else [f"{QUEUE}:q{number}" for number in range(count)]


def names_of(count: int) -> str:
    """Their names, as the setting takes them."""
    return "default" if count == 1 else ",".join(f"q{number}" for number in range(count))


class Farm:
    """`worker` is the process of the node or nodes."""

    def __init__(self, server: Server, queues: int = 1) -> None:
        self.server = server
        self.client = server.client()
        self.client.flushall()
        self.keys = keys_of(queues)
        self.queues = queues
        self._stack = contextlib.ExitStack()
        self._started = 0

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.client.flushall()
        self.client.close()

    def _run(self, command: list[str], said: str) -> Worker:
        self._started += 1
        log = harness.SCRATCH / "logs" / f"scale-{self._started}.log"
        worker = self._stack.enter_context(Worker([sys.executable, *command], log, PATHS))
        wait_for(lambda: said in log.read_text("utf-8", "replace"), f"it says {said!r}", START_SECONDS, worker)
        return worker

    def start_worker(self, concurrency: int = 1000, **settings: object) -> Worker:
        """A node as people run it: `pytask worker`."""
        command = ["-m", "pytask", "worker", "scale.app:app", "--path", str(harness.HERE), "-u", self.server.url]
        command += ["--concurrency", str(concurrency)]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        for number in range(self.queues if self.queues > 1 else 0):
            command += ["-q", f"q{number}"]
        self.worker = self._run(command, "local   ")
        return self.worker

    def start_nodes(self, count: int) -> Worker:
        """So many nodes in one process."""
        self.worker = self._run(["-m", "scale.nodes", self.server.url, str(count), names_of(self.queues)], "ready")
        return self.worker

    def start_feeder(self, level: int) -> None:
        """Keep so many no-op tasks waiting from now on; returns when they do."""
        self._run(["-m", "scale.feeder", self.server.url, str(level), ",".join(self.keys)], "full")

    def prepare(self, count: int, task: str, data: str = "{}", **fields: str) -> None:
        """Make tasks that wait outside of the queue, until `release`."""
        feeder.push(self.client, "prepared", count, task, data, **fields)

    def release(self) -> None:
        """Let all that is prepared wait in the queue, at one blow."""
        self.client.rename("prepared", QUEUE)

    def ended(self) -> int:
        """How many tasks have ended."""
        return count_ended(self.client, self.keys)

    def gauge(self) -> Gauge:
        """What reads this farm."""
        return Gauge([self.client], [self.worker.pid], self.ended)

    def warm(self, tasks: int) -> None:
        """Let some tasks pass before anything is measured."""
        before = self.ended()
        wait_for(lambda: self.ended() >= before + tasks, "the first tasks end", 60, self.worker)

    def window(self, tasks: int) -> Costs:
        """The costs of the next tasks that end."""
        return self.gauge().window(tasks, self.worker)

    def idle(self, seconds: float) -> dict[str, float]:
        """What the farm costs while nothing ends: shares of a core, commands and bytes, all a second."""
        gauge = self.gauge()
        first = gauge.read()
        time.sleep(seconds)
        passed = between(first, gauge.read())
        return {
            "node_core": passed.nodes / passed.seconds,
            "server_core": sum(passed.servers) / passed.seconds,
            "commands": sum(passed.commands.values()) / passed.seconds,
            "sent": passed.sent / passed.seconds,
        }


@contextlib.contextmanager
def farm(kind: str, queues: int = 1) -> Iterator[Any]:
    """A farm on a server of its own."""
    with harness.private_server(kind) as server, Farm(server, queues) as made:
        yield made
