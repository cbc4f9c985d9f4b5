"""On paper, from what was measured: what bounds a cluster, and what a thousand nodes would ask of it."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from scale.figures import Part, table, wrapped

MASTERS = (3, 10, 30, 100)
NODES = 1_000
LONGEST_LOOK = 4.5  # seconds between the looks of a Monitor, where there are many

TEXT = """
## On paper: from here to a thousand nodes

What a task costs the servers of a cluster, from the rows for one and three masters: {queue:.0f} us on
the master of its queue (claim, release), {records:.0f} us on that of its record (begin, finish, cleanup;
and `end-task`), and {bus:.1f} us more on each further server, since a server tells every other one what
is published. The first is bound to one server, however many there are, and is spread by more queues; the
second is divided by all; the third is not divided at all. So this many tasks a second can be had where
every master has a core like this one:

{limits}

A node's own core carries {node:,.0f} tasks a second on a cluster, and more nodes carry more, until the
servers are busy. Idle, {nodes} nodes send {commands:,.0f} commands a second together ({each:.1f} each):
{thousand:,.0f} for a thousand, in which one server has {spare:.0f} % of a core to do. (Since that was
measured, looks for schedules and services have added about one each.) What grows faster
than the number of nodes is what their Monitors read: each looks at all nodes, at least once in {look:g}
s, so that {sent:,.1f} KiB a second and node leave the server with {nodes} nodes. For a thousand that is
about {flood:,.0f} MiB a second in all: the first thing to mend before there are so many.
"""


class Shares(NamedTuple):
    """Microseconds a task: on its queue's master, on its record's, and on each further server."""

    queue: float
    records: float
    bus: float

    def limit(self, masters: int, queues: int) -> float:
        """Tasks a second until the busiest master has no time left."""
        busiest = self.queue / min(queues, masters)
        return 1e6 / (busiest + self.records / masters + self.bus * (masters - 1) / masters)


def shares(part: Part) -> Shares:
    """From the rows for one and for three masters: medians of each round's own."""
    rows = []
    for one in part.rounds:
        if "1" in one and "3" in one:
            three = one["3"]["by_master_us"]
            queue = max(three[one["3"]["queue_on"]] - min(three), 0.0)
            rows.append((queue, one["1"]["server_us"] - queue, max((sum(three) - one["1"]["server_us"]) / 2, 0.0)))
    return Shares(*map(statistics.median, zip(*rows, strict=True)))


def section(cluster: Part, nodes: Part) -> str:
    """The section; empty where what it needs was not measured."""
    if not {"1", "3"} <= set(cluster.labels) or not nodes.labels:
        return ""
    found, most = shares(cluster), nodes.labels[-1]
    count = int(most)
    limits = table(
        ["masters", "all in one queue, tasks/s", "as many queues as masters, tasks/s"],
        [[str(n), f"{found.limit(n, 1):,.0f}", f"{found.limit(n, n):,.0f}"] for n in MASTERS],
    )
    commands, sent = nodes.median(most, "idle_commands"), nodes.median(most, "idle_sent")
    text = TEXT.format(
        queue=found.queue, records=found.records, bus=found.bus, limits=limits, look=LONGEST_LOOK,
        node=1e6 / cluster.median("3", "node_us"), nodes=count, commands=commands, each=commands / count,
        thousand=commands / count * NODES, spare=100 * nodes.median(most, "idle_server_core") / count * NODES,
        sent=sent / count / 1024, flood=sent * (NODES / count) ** 2 / 2**20,
    )  # fmt: skip
    return wrapped(text)
