"""Durable: what it costs that every write waits for a replica, on a master and a replica on loopback.

Rounds with and without it take turns: making tasks in batches, making one at a time, and draining them through a
node, from the first that has ended to the last. A real replica is as far away as its network: add a round trip.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chaos.replicated import Replicated  # noqa: E402
from chaos.rig import wait_for  # noqa: E402

from pytask import PyTask  # noqa: E402

TASKS, ONE_BY_ONE, ROUNDS = 10_000, 200, 3


def ended(client: Any) -> int:
    return int(client.hget("{new-task}:counts", "SUCCESS") or 0)


def run_round(servers: Replicated, durable: bool) -> dict[str, float]:
    """Tasks a second, and milliseconds for one."""
    app, client = PyTask(servers.url, durable=durable), servers.client()
    client.flushall()
    began = time.perf_counter()
    app.helpers.start_tasks([("noop",)] * TASKS)
    batched = TASKS / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(ONE_BY_ONE):
        app.helpers.start_task("noop")
    single = (time.perf_counter() - began) / ONE_BY_ONE * 1e3
    command = [sys.executable, "-m", "pytask", "worker", "nodeapp:app", "--path", str(ROOT / "tests")]
    command += ["-u", servers.url, "--durable", str(durable)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as node:
        first, began = wait_for(lambda: ended(client), "the first task ends"), time.perf_counter()
        wait_for(lambda: ended(client) == TASKS + ONE_BY_ONE, "all end")
        drained = (TASKS + ONE_BY_ONE - first) / (time.perf_counter() - began)
        node.terminate()
    app.close()
    client.close()
    return {
        "made in batches, a second": batched,
        "made one at a time, ms each": single,
        "drained, a second": drained,
    }


def main() -> None:
    figures: dict[tuple[str, bool], list[float]] = defaultdict(list)
    with Replicated("valkey", appendonly="no", appendfsync="no") as servers:
        for _ in range(ROUNDS):
            for durable in (False, True):
                for name, figure in run_round(servers, durable).items():
                    figures[name, durable].append(figure)
    for name in dict.fromkeys(name for name, _ in figures):
        without, with_it = (statistics.median(figures[name, durable]) for durable in (False, True))
        print(f"{name:32} without {without:10,.2f}   durable {with_it:10,.2f}   ratio {with_it / without:.2f}")


if __name__ == "__main__":
    main()
