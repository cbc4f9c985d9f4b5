"""The words of docs/scale.md, which stand between its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = """
# Scale

What a task costs, and whether that stays the same however much else there is. Made by `make bench-scale` from
`benchmarks/results/scale.json`; the ratios are what counts: each is taken within one round, in which all sizes
run in turns, and is the median of the rounds. Microseconds are those of processors, which a busy machine
lengthens; commands are counted by the server, those inside scripts included.
"""

TITLES = {
    "memory": "Memory",
    "io": "Tasks that only wait",
    "waiting": "Tasks that wait in the queue",
    "running": "Tasks that run",
    "nodes": "Nodes",
    "queues": "Queues",
    "cluster": "Masters of a cluster",
    "options": "What options cost",
    "durable": "What `durable` costs",
}

STEADY = """
A producer keeps the queue at its level while the node works it off, for 30,000 tasks; the making of a task is in
every figure.
"""

TEXTS = {
    "memory": """
A node with `concurrency` at 100,000, idle, then with so many tasks that sleep. Resident memory of its process.
""",
    "io": """
All tasks are there at one blow while the node is idle. The clock runs from then until the last has ended: the
time in which the first tasks begin one after the other, and in which the last end, is in it, and weighs the more
the fewer there are. The ideal is tasks at once / seconds of each, without end.
""",
    "waiting": f"One node, from a thousand to a million tasks that wait. {STEADY.strip()}",
    "running": f"""
One node in which so many tasks sleep already; what is counted are no-op tasks that pass beside them.
{STEADY.strip()}
""",
    "nodes": f"""
So many real nodes with connections and heartbeat threads of their own, all in one process: there is one core for
them, however many they are. {STEADY.strip()}
""",
    "queues": f"One node that serves so many queues, each with its part of what waits. {STEADY.strip()}",
    "cluster": """
One node; masters without replicas. One master holds the queue, one holds `end-task`, and the records are spread
over all. On a server that is no cluster one script serves 250 records; on a cluster each record is a script call
of its own, since its id decides its slot. All servers and the node share two cores, so that the speed says
little: what each server spends on a task says what many would carry.
""",
    "options": """
The same number of tasks of each kind, drained by one node in turns (1,000 of those with 100 KiB, else 10,000),
from the first claim to the last cleanup. Events are kept, and what a task logs goes out as events, unless a
setting says otherwise; the node's own log is a file.
""",
    "durable": """
A master and a replica on loopback. A real replica is as far away as its network: add a round trip to what is
made one at a time.
""",
}


def machine(about: Mapping[str, Any]) -> str:
    """Where it was measured."""
    if not about:
        return "Nothing was measured yet."
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return (
        f"Measured on {about['processor']}, {about['cores']} cores, {about['memory_gib']:g} GiB, "
        f"{about['system']}, Python {about['python']}, {packages}."
    )
