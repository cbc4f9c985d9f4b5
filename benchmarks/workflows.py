"""Workflows: what a task of one costs, in a large stage and in small ones, beside a plain task; a hop of a chain.

The kinds take turns in the same run; judge by their ratios. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import harness
import redis

TASKS = 10_000
SMALL = 100  # tasks of a small workflow
HOPS = 50  # stages of the chain
ROUNDS = 5
APP = "workflowtasks:app"


def stage(tasks: int) -> str:
    """A spec of one stage."""
    return json.dumps({"stages": [[{"task": "noop"}] * tasks]})


def chain(tasks: int) -> str:
    """A spec of as many stages."""
    return json.dumps({"stages": [[{"task": "noop"}]] * tasks, "returns": "one"})


class Bench:
    """One node, and what it is given."""

    def __init__(self, client: redis.Redis, worker: harness.Worker, tasks: int) -> None:
        self.client = client
        self.worker = worker
        self.tasks = tasks
        self.turn = 0

    def large(self) -> float:
        """One workflow of all tasks in one stage."""
        return self._workflows([stage(self.tasks)])

    def small(self) -> float:
        """As many tasks in workflows of SMALL each."""
        return self._workflows([stage(SMALL)] * (self.tasks // SMALL))

    def chained(self) -> float:
        """Workflows one task wide, one after the other."""
        return self._workflows([chain(HOPS)])

    def _workflows(self, specs: list[str]) -> float:
        """Seconds until all have ended."""
        self.turn += 1
        ids = [f"w{self.turn}-{n}" for n in range(len(specs))]
        pipeline = self.client.pipeline(transaction=False)
        for workflow, spec in zip(ids, specs, strict=True):
            pipeline.hset(f"task-{workflow}", mapping={"task": "pytask/workflow", "data": spec})
        pipeline.lpush("new-task", *ids)
        return self._time(pipeline.execute, ids)

    def plain(self) -> float:
        """As many tasks of no workflow."""
        self.turn += 1
        ids = [f"p{self.turn}-{n}" for n in range(self.tasks)]
        pipeline = self.client.pipeline(transaction=False)
        for task in ids:
            pipeline.hset(f"task-{task}", "task", "noop")
        for start in range(0, len(ids), 1000):
            pipeline.lpush("new-task", *ids[start : start + 1000])
        return self._time(pipeline.execute, ids)

    def _time(self, start: Callable[[], object], ids: list[str]) -> float:
        before = self._ended()
        began = time.monotonic()
        start()
        least = before + len(ids)
        harness.wait_for(lambda: self._ended() >= least, "some have ended", 120, self.worker, nap=0.005)
        harness.wait_for(lambda: self._are_over(ids), "all have ended", 120, self.worker, nap=0.005)
        return time.monotonic() - began

    def _ended(self) -> int:
        return sum(map(int, self.client.hvals("{new-task}:counts")))

    def _are_over(self, ids: list[str]) -> bool:
        return all(self.client.hget(f"task-{i}", "state") == b"SUCCESS" for i in (ids[-1], ids[0])) and (
            self.client.hlen("{new-task}:claims") == 0
        )


def measure(server: harness.Server, tasks: int, rounds: int) -> dict[str, Any]:
    """Microseconds a task of each kind, milliseconds a hop: medians."""
    command = [sys.executable, "-m", "pytask", "worker", APP, "--path", str(harness.HERE), "--max-data", "8000000"]
    worker = harness.Worker([*command, "-u", server.url], harness.SCRATCH / "workflows.log")
    found: dict[str, list[float]] = {"plain": [], "small": [], "large": [], "chained": []}
    try:
        with server.client() as client:
            harness.wait_for(lambda: client.hlen("{new-task}:nodes") == 1, "the node works", 30, worker)
            bench = Bench(client, worker, tasks)
            for turn in range(rounds + 1):
                for name, seconds in found.items():
                    taken = getattr(bench, name)()
                    if turn:  # the first round warms up
                        seconds.append(taken)
    finally:
        worker.stop(grace=10)
    each = {name: statistics.median(seconds) * 1e6 / tasks for name, seconds in found.items() if name != "chained"}
    return {
        "tasks": tasks,
        **{f"{name}_us_a_task": round(value, 1) for name, value in each.items()},
        "large_to_small": round(each["large"] / each["small"], 3),
        "large_to_plain": round(each["large"] / each["plain"], 3),
        "ms_a_hop": round(statistics.median(found["chained"]) * 1e3 / HOPS, 2),
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=TASKS, help="of each kind (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--server", default="valkey", choices=("valkey", "redis"), help="to start (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args()


def main() -> None:
    """The command line's work."""
    options = parse()
    with harness.private_server(options.server) as server:
        found = measure(server, options.tasks, options.rounds)
    if options.json:
        print(json.dumps({"benchmark": "workflows", **found}))
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
