"""Services: 10,000 replicas on two nodes: start, what they cost while nothing happens, memory, end.

Commands are counted by the server, those inside scripts included. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import harness
import redis

REPLICAS = 10_000
NODES = 2
SECONDS = 65.0  # longer than the rarest thing that nodes do takes to come again: a sweep
SETTLE = 15.0  # seconds until starts, and what follows them, are over
APP = "servicetasks:app"


def running(client: redis.Redis) -> int:
    """How many ids nodes own."""
    nodes = client.hkeys("{new-task}:nodes")
    return sum(client.hlen(b"{new-task}:of:" + node) for node in nodes)


def measure(server: harness.Server, replicas: int, seconds: float) -> dict[str, Any]:
    """Start, rest, end."""
    each = replicas + 100  # one node could hold them all
    command = [sys.executable, "-m", "pytask", "worker", APP, "--path", str(harness.HERE), "-c", str(each)]
    workers = [
        harness.Worker([*command, "-u", server.url], harness.SCRATCH / f"services-{n}.log") for n in range(NODES)
    ]
    found: dict[str, Any] = {"replicas": replicas, "nodes": NODES}
    try:
        with server.client() as client:
            harness.wait_for(lambda: client.hlen("{new-task}:nodes") == NODES, "the nodes work", 30, workers[0])
            time.sleep(2)
            empty = sum(harness.rss_bytes(worker.pid) for worker in workers)
            found["start_seconds"] = scale(client, replicas, workers[0])
            found["even_seconds"] = wait_until_even(client, workers[0])
            time.sleep(SETTLE)
            full = sum(harness.rss_bytes(worker.pid) for worker in workers)
            found["kib_each"] = round((full - empty) / replicas / 1024, 2)
            found.update(rest(client, workers, seconds))
            found["stop_seconds"] = scale(client, 0, workers[0])
    finally:
        for worker in workers:
            worker.stop(grace=10)
    return found


def scale(client: redis.Redis, replicas: int, worker: harness.Worker) -> float:
    """Seconds until so many run."""
    client.hset("service-quiet", mapping={"task": "quiet", "replicas": replicas})
    began = time.monotonic()
    client.zadd("services", {"quiet": 0})
    harness.wait_for(lambda: running(client) == replicas, f"{replicas} run", 120, worker)
    return round(time.monotonic() - began, 2)


def wait_until_even(client: redis.Redis, worker: harness.Worker) -> float:
    """Seconds until the nodes run as many each, within one."""
    began = time.monotonic()

    def even() -> bool:
        counts = [client.hlen(b"{new-task}:of:" + node) for node in client.hkeys("{new-task}:nodes")]
        return max(counts) - min(counts) <= 1

    harness.wait_for(even, "they are spread", 300, worker, nap=0.2)
    return round(time.monotonic() - began, 2)


def rest(client: redis.Redis, workers: list[harness.Worker], seconds: float) -> dict[str, Any]:
    """Commands a second of both nodes together, and percent of a core of each, while nothing happens."""
    pids = [worker.pid for worker in workers]
    cpu, before, began = list(map(harness.cpu_seconds, pids)), counts(client), time.monotonic()
    time.sleep(seconds)
    wall, after = time.monotonic() - began, counts(client)
    by_name = {name: (after[name] - before.get(name, 0)) / wall for name in after}
    used = [harness.cpu_seconds(pid) - c for pid, c in zip(pids, cpu, strict=True)]
    return {
        "commands_a_second": round(sum(by_name.values()), 1),
        "by_command": {n: round(v, 2) for n, v in sorted(by_name.items(), key=lambda row: -row[1]) if v >= 0.05},
        "percent_of_a_core": [round(100 * each / wall, 2) for each in used],
    }


def counts(client: redis.Redis) -> dict[str, int]:
    """How often each command was obeyed, those inside scripts included, but for our own question."""
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items() if "info" not in name}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=REPLICAS, help="how many (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of rest (%(default)s)")
    parser.add_argument("--server", default="valkey", choices=("valkey", "redis"), help="to start (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args()


def main() -> None:
    """The command line's work."""
    options = parse()
    with harness.private_server(options.server) as server:
        found = measure(server, options.replicas, options.seconds)
    if options.json:
        print(json.dumps({"benchmark": "services", **found}))
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
