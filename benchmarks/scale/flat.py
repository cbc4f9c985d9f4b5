"""Is the cost of a task the same whatever else there is? From few to many: waiting, running, nodes, queues.

Each figure is a window in a steady state: a producer of its own keeps the queue at its level while nodes work it
off, and what passes in the window is divided by the tasks that ended in it. So the making of a task is in every
figure, the same in all of them: one HSET, and its part of an LPUSH.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import wait_for

from scale.farm import Farm, farm

WAITING = (1_000, 10_000, 100_000, 1_000_000)
RUNNING = (1, 100, 1_000, 10_000, 100_000)
NODES = (1, 4, 16, 64)
QUEUES = (1, 4, 16)
WINDOW = 30_000  # tasks
WARM = 5_000
IDLE = 6.0  # seconds
LEVEL = 20_000  # waiting, where something else is varied


def measure(f: Farm) -> dict[str, Any]:
    """A window's costs."""
    costs = f.window(WINDOW)
    return {**costs.each(), "by_command": costs.by_command()}


def waiting(kind: str, count: int) -> dict[str, Any]:
    """One node, so many tasks waiting."""
    with farm(kind) as f:
        f.start_worker()
        f.start_feeder(count)
        f.warm(WARM)
        return measure(f)


def running(kind: str, count: int) -> dict[str, Any]:
    """One node in which so many tasks sleep; what passes beside them are no-op tasks."""
    with farm(kind) as f:
        worker = f.start_worker(concurrency=count + 1000)
        f.prepare(count, "sleep", '{"seconds":3600}')
        f.release()
        wait_for(lambda: f.client.hlen("{new-task}:claims") == count, "they run", 90, worker, nap=0.1)
        idle = f.idle(IDLE)
        f.start_feeder(LEVEL)
        f.warm(WARM)
        return measure(f) | {f"idle_{name}": value for name, value in idle.items()}


def nodes(kind: str, count: int) -> dict[str, Any]:
    """So many nodes, all in one process, so that there is one core for them however many they are."""
    with farm(kind) as f:
        f.start_nodes(count)
        idle = f.idle(IDLE)
        f.start_feeder(LEVEL)
        f.warm(
            WARM + 1000 * count
        )  # until each has as many as it may run: until then they claim more than they end
        return measure(f) | {f"idle_{name}": value for name, value in idle.items()}


def queues(kind: str, count: int) -> dict[str, Any]:
    """One node that serves so many queues, which all have work."""
    with farm(kind, queues=count) as f:
        f.start_worker()
        f.start_feeder(LEVEL)
        f.warm(WARM)
        return measure(f)


Part = tuple[Callable[[str, int], dict[str, Any]], tuple[int, ...]]
PARTS: dict[str, Part] = {
    "waiting": (waiting, WAITING),
    "running": (running, RUNNING),
    "nodes": (nodes, NODES),
    "queues": (queues, QUEUES),
}
