"""What a task costs: read from the servers' own counters and the processes' clocks, before and after a window."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import harness
import redis


class Reading(NamedTuple):
    """Everything that grows, at one moment."""

    at: float  # monotonic second
    ended: int
    nodes: float  # seconds of processor, all node processes
    servers: tuple[float, ...]  # seconds of processor, each server
    commands: Counter[str]  # by name, those inside scripts included
    received: int  # bytes, all servers
    sent: int


class Costs(NamedTuple):
    """What passed between two readings."""

    seconds: float
    tasks: int
    nodes: float
    servers: tuple[float, ...]
    commands: Counter[str]
    received: int
    sent: int

    def each(self) -> dict[str, float]:
        """For one task: microseconds of processor, commands (inner ones included), bytes; and tasks a second."""
        n = max(self.tasks, 1)
        return {
            "rate": self.tasks / self.seconds,
            "node_us": self.nodes / n * 1e6,
            "server_us": sum(self.servers) / n * 1e6,
            "cpu_us": (self.nodes + sum(self.servers)) / n * 1e6,
            "commands": sum(self.commands.values()) / n,
            "calls": sum(n for name, n in self.commands.items() if name in ("evalsha", "eval")) / n,
            "received": self.received / n,
            "sent": self.sent / n,
        }

    def by_command(self) -> dict[str, float]:
        """How often each command was obeyed for one task, inner ones included; the most frequent first."""
        n = max(self.tasks, 1)
        return {name: round(count / n, 4) for name, count in self.commands.most_common() if count / n >= 0.001}


class Gauge:
    """Reads servers (their clients) and node processes. `ended`: how many tasks have ended so far."""

    def __init__(self, servers: Sequence[redis.Redis], nodes: Sequence[int], ended: Callable[[], int]) -> None:
        self.servers = servers
        self.nodes = nodes
        self.ended = ended

    def read(self) -> Reading:
        """All counters now."""
        commands: Counter[str] = Counter()
        seconds, received, sent = [], 0, 0
        for server in self.servers:
            info = server.info("everything")
            seconds.append(info["used_cpu_user"] + info["used_cpu_sys"])
            received += info["total_net_input_bytes"]
            sent += info["total_net_output_bytes"]
            for name, row in info.items():
                if name.startswith("cmdstat_"):
                    commands[name.removeprefix("cmdstat_").lower()] += row["calls"]
        nodes = sum(map(harness.cpu_seconds, self.nodes))
        return Reading(time.monotonic(), self.ended(), nodes, tuple(seconds), commands, received, sent)

    def window(self, tasks: int, worker: harness.Worker, seconds: float = 60.0) -> Costs:
        """The costs of the next `tasks` tasks that end, or of some more. Raises BenchmarkError after `seconds`."""
        first = self.read()
        harness.wait_for(
            lambda: self.ended() >= first.ended + tasks, f"{tasks} tasks end", seconds, worker, nap=0.02
        )
        return between(first, self.read())


def between(first: Reading, last: Reading) -> Costs:
    """What passed."""
    return Costs(
        last.at - first.at,
        last.ended - first.ended,
        last.nodes - first.nodes,
        tuple(b - a for a, b in zip(first.servers, last.servers, strict=True)),
        last.commands - first.commands,
        last.received - first.received,
        last.sent - first.sent,
    )


def count_ended(client: Any, queue_keys: Sequence[str]) -> int:
    """How many tasks of these queues have ended, by the counts that release keeps."""
    return sum(int(n) for key in queue_keys for n in client.hgetall(f"{{{key}}}:counts").values())
