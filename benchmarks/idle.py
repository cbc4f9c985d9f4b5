"""Idle: what nodes without work cost: commands a second, those inside scripts included, and part of a core.

Each row is a `pytask worker` of its own on an empty server: one node with 1 and with 8 queues, and `-p 2`, whose
parent process is told by itself. Commands are counted by the server; the processor's time comes from /proc, all
threads. The budget: 5 commands a second and node and 2 for each further queue, 0.5 % of a core.

    .venv/bin/python benchmarks/idle.py [--server redis] [--seconds 40] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import harness
import redis

SECONDS = 40.0  # the rarest command comes every 30
SETTLE = 12.0  # seconds until starts, first beats and first looks are over
ROWS = {"1 queue": (1, 1), "8 queues": (1, 8), "-p 2": (2, 1)}  # nodes, queues


def calls(client: redis.Redis) -> int:
    """All commands that the server has obeyed, but for our own question."""
    return sum(row["calls"] for name, row in client.info("commandstats").items() if "info" not in name)


def scheduled(pid: int) -> float:
    """Seconds that the threads of a process were on a processor; the ticks of /proc/<pid>/stat are too coarse."""
    total = 0
    for task in (harness.Path("/proc") / str(pid) / "task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def measure(server: harness.Server, nodes: int, queues: int, seconds: float) -> dict[str, Any]:
    """Commands a second and node; percent of a core of the parent (or the one process), and of each child."""
    names = ["default", *(f"q{number}" for number in range(1, queues))]
    flags = [part for name in names for part in ("-q", name)]
    command = [sys.executable, "-m", "pytask", "worker", "latencytasks:app", "--path", str(harness.HERE), *flags]
    with (
        server.client() as client,
        harness.Worker([*command, "-u", server.url, "-p", str(nodes)], harness.SCRATCH / "idle.log") as worker,
    ):
        harness.wait_for(lambda: client.hlen("{new-task}:nodes") == nodes, "the nodes work", 30, worker)
        time.sleep(SETTLE)
        pids = harness.process_tree(worker.pid)
        before, began = [calls(client), *map(scheduled, pids)], time.monotonic()
        time.sleep(seconds)
        after, wall = [calls(client), *map(scheduled, pids)], time.monotonic() - began
    sent, *cores = [(b - a) / wall for a, b in zip(before, after, strict=True)]
    return {
        "commands": round(sent / nodes, 2),
        "budget": 5 + 2 * (queues - 1),
        "percent_of_a_core": [round(100 * core, 3) for core in cores],
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each row (%(default)s)")
    parser.add_argument("--rows", default=",".join(ROWS), help="which (%(default)s)")
    parser.add_argument("--server", default="valkey", choices=("valkey", "redis"), help="to start (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args()


def main() -> None:
    """The command line's work."""
    options = parse()
    found = {}
    for name in options.rows.split(","):
        nodes, queues = ROWS[name]
        with harness.private_server(options.server) as server:
            found[name] = measure(server, nodes, queues, options.seconds)
        if not options.json:
            cores = " + ".join(f"{percent:.3f}" for percent in found[name]["percent_of_a_core"])
            print(
                f"{name:16} {found[name]['commands']:6.2f} commands/s and node   {cores} % of a core", flush=True
            )
    if options.json:
        print(json.dumps({"benchmark": "idle", **found}))


if __name__ == "__main__":
    main()
