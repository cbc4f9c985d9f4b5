"""`make chaos`: 10,000 tasks on each kind of servers while nodes and servers are killed and frozen; then a report.

Three rounds have fewer tasks, and workflows, schedules and a service beside them: "all three".

    python -m chaos --only "cluster valkey" --seed 7

Exit status 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from chaos import histories
from chaos.cluster import Cluster
from chaos.load import Shape
from chaos.scenario import Plan, Result, Scenario
from chaos.sentinels import Sentinels
from chaos.servers import Deployment, Single
from chaos.standing import Keep

TESTS = Path(__file__).parent.parent
SHAPE = Shape(tasks=10_000, seconds=90, longest=5.0)
PLAN = Plan(
    SHAPE,
    kills=40,
    freezes=8,
    failovers=5,
    node_timeout=10.0,
    concurrency=500,
    deadline=150.0,  # the sweep, which repairs what a failover takes back, looks once a minute
    down=(0.5, 3.0),
)
ALONE = replace(PLAN, failovers=0, restarts=5)
KEPT = replace(
    PLAN,
    shape=replace(SHAPE, tasks=2_000),
    nodes=6,
    kills=10,
    freezes=3,
    failovers=0,
    keep=Keep(workflows=60, schedules=10, replicas=30),  # more deaths for each would be more of probation
)

ROUNDS: dict[str, tuple[Plan, Callable[[], Deployment]]] = {
    "cluster valkey": (PLAN, lambda: Cluster("valkey")),
    "cluster redis": (PLAN, lambda: Cluster("redis")),
    "cluster redis TLS": (PLAN, lambda: Cluster("redis", tls=True)),
    "sentinel valkey": (PLAN, lambda: Sentinels("valkey")),
    "sentinel redis": (PLAN, lambda: Sentinels("redis")),
    "single valkey": (ALONE, lambda: Single("valkey")),
    "single redis": (ALONE, lambda: Single("redis")),
    "all three, single valkey": (replace(KEPT, restarts=3), lambda: Single("valkey")),
    "all three, single redis": (replace(KEPT, restarts=3), lambda: Single("redis")),
    "all three, cluster valkey": (KEPT, lambda: Cluster("valkey")),
}
STORIES = {
    "crash points": ["-n", "2", "test_chaos_points.py"],
    "lost replies": ["-n", "2", "test_chaos_replies.py"],
    "cluster faults": ["test_cluster_faults.py", "test_cluster_outages.py", "test_lossy_failover.py"],
}
LONG_STORIES = {"cluster faults": 5}  # so many times fewer rounds than of the others: each takes half a minute
HISTORIES = "random tester"

console = Console(stderr=True)


def scaled(plan: Plan, tasks: int | None, seconds: float | None) -> Plan:
    """The plan with fewer or more tasks, over another time, where they are given; the faults stay."""
    shape = plan.shape
    return replace(plan, shape=replace(shape, tasks=tasks or shape.tasks, seconds=seconds or shape.seconds))


def run_round(name: str, plan: Plan, make: Callable[[], Deployment], seed: int) -> Result:
    """One round, with a bar of its own."""
    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=console) as progress, make() as servers:
        bar = progress.add_task(name, total=1.0, what="")

        def tick(share: float, count: int) -> None:
            what = f"{count:,} pushed" if share < 1 else f"{count:,} open"
            progress.update(bar, completed=share, what=what)

        return Scenario(plan, servers, seed, tick).run()


def run_stories(name: str, rounds: int, seed: int) -> bool:
    """The tests of a story, so many times each. False where one failed."""
    rounds = max(rounds // LONG_STORIES.get(name, 1), 2)
    console.print(f"{name}: {rounds} times each")
    command = [sys.executable, "-m", "pytest", "-q", *STORIES[name]]
    environ = {**os.environ, "PYTASK_TEST_ROUNDS": str(rounds), "PYTASK_TEST_SEED": str(seed)}
    return subprocess.run(command, cwd=TESTS, env=environ, check=False).returncode == 0


def run_histories(seed: int, count: int) -> bool:
    """The random tester, with a bar. False where a history broke a promise."""
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(HISTORIES, total=count + count // histories.SHARE)
        failed = histories.play(seed, count, lambda done: progress.advance(bar, done))
    for text in failed:
        console.print(text, markup=False)
    return not failed


def report(rows: dict[str, dict[str, Any]]) -> Table:
    """A column a round, a line a figure."""
    table = Table(title="chaos")
    table.add_column("figure")
    for name in rows:
        table.add_column(name, justify="right")
    figures = dict.fromkeys(figure for row in rows.values() for figure in row if figure != "counted")
    for figure in figures:
        table.add_row(figure, *(str(row.get(figure, 0)) for row in rows.values()))
    return table


def main() -> int:
    """Run the rounds that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", action="append", choices=[*ROUNDS, *STORIES, HISTORIES], help="this round; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--tasks", type=int, help=f"{SHAPE.tasks} unless given, 2000 beside all three")
    parser.add_argument("--seconds", type=float, help=f"of pushing; {SHAPE.seconds:g} unless given")
    parser.add_argument("--rounds", type=int, default=20, help="of each crash point")
    parser.add_argument("--seeds", type=int, default=histories.SEEDS, help="of the random tester")
    options = parser.parse_args()
    wanted = options.only or [*ROUNDS, *STORIES, HISTORIES]
    console.print(f"seed {options.seed}: give it again with --seed")
    rows, fine = {}, True
    for name in [name for name in wanted if name in ROUNDS]:
        plan, make = ROUNDS[name]
        result = run_round(name, scaled(plan, options.tasks, options.seconds), make, options.seed)
        rows[name] = result.figures()
        if result.verdict.problems:
            fine = False
            console.print(f"[red]{name}[/red], files in {result.folder}", result.verdict.text(), markup=True)
    if rows:
        Console().print(report(rows))
    for name in [name for name in wanted if name in STORIES]:
        fine = run_stories(name, options.rounds, options.seed) and fine
    if HISTORIES in wanted:
        fine = run_histories(options.seed, options.seeds) and fine
    console.print("all is well" if fine else "[red]something is wrong[/red]")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
