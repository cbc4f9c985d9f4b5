"""Drain: no-op tasks that are already queued, through one node, beside the bare floor, in the same run.

Each task has its whole life: claim, begin, a greenlet, finish with hash, event and output, `end-task`, release,
and Cleanup lets its record expire; Monitor and Cleanup run. A round is one drain by the floor program and one by
a node, each a fresh process on an empty server of its own; the ratio is node over floor of the same round. It is
what `make bench` and `make bench-quick` measure, with each round told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

import measuring
from contenders import FLOOR, all_contenders
from report import OWN

ROUNDS, SCALE = 5, 1 / 3
NAMES = ("floor", "node", "ratio", "cpu_us", "server_us")


def compare(rounds: int, scale: float, server: str) -> dict[str, float]:
    """Medians of the rounds: floor and node in tasks a second, the ratio of each round's pair, the node's CPU."""
    known, rows = all_contenders(), []
    for number in range(rounds):
        floor, node = (measuring.measure(known[name], "drain", server, scale) for name in (FLOOR, OWN))
        rows.append(row := (floor["rate"], node["rate"], node["rate"] / floor["rate"], *costs(node)))
        print(
            "round {}: floor {:8,.0f}/s   node {:8,.0f}/s   ratio {:.2f}   CPU a task {:.0f} us, "
            "in the server {:.0f} us; others used {:.2f} cores".format(number + 1, *row, node["others"]),
            file=sys.stderr,
        )
    return {name: statistics.median(column) for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)}


def costs(figures: dict[str, Any]) -> tuple[float, float]:
    """Microseconds of processor a task: of the worker, of the server."""
    return figures["worker_us"], figures["server_us"]


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--scale", type=float, default=SCALE, help="times 60,000 tasks (%(default).2f)")
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    medians = compare(options.rounds, options.scale, options.server)
    if options.json:
        print(json.dumps(medians))
    else:
        print("median: floor {floor:,.0f}/s, node {node:,.0f}/s, ratio {ratio:.2f}".format(**medians))


if __name__ == "__main__":
    main()
