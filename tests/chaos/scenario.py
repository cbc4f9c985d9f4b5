"""A scenario: servers, nodes, a load and faults for some time, then a look at what is left."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import journal, times
from chaos.checker import Checker, Verdict, wait_until_ended
from chaos.faults import Faults
from chaos.fleet import Fleet
from chaos.load import Load, Shape
from chaos.servers import Deployment
from chaos.standing import NOTHING, QUEUE, Keep, Standing
from chaos.watcher import Watcher

Story = Callable[[Faults, float, float], None]


@dataclass(frozen=True)
class Plan:
    """What happens. Seconds; `node_timeout` is that of the nodes."""

    shape: Shape
    nodes: int = 4
    kills: int = 0
    freezes: int = 0
    restarts: int = 0
    failovers: int = 0
    node_timeout: float = 4.0
    concurrency: int = 50
    deadline: float = 60.0  # after the last push
    down: tuple[float, float] = (0.1, 1.0)  # how long a server is away
    settings: dict[str, object] = field(default_factory=dict)
    story: Story = lambda _faults, _begin, _end: None  # plans more faults, between these seconds
    keep: Keep = NOTHING  # what the cluster keeps going by itself meanwhile


@dataclass
class Result:
    """What came of it."""

    verdict: Verdict
    faults: Faults
    seconds: float
    statuses: list[int]
    folder: Path

    def figures(self) -> dict[str, Any]:
        return {"seconds": round(self.seconds, 1), **self.faults.counts, **self.verdict.figures}


Tick = Callable[[float, int], None]


class Scenario:
    """One round. `tick` is called now and then with the share that is done and the tasks that are open."""

    def __init__(
        self, plan: Plan, deployment: Deployment, seed: int, tick: Tick = lambda _share, _open: None
    ) -> None:
        self.plan = plan
        self.deployment = deployment
        self.tick = tick
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-run-"))
        settings = {
            "node_timeout": plan.node_timeout,
            "concurrency": plan.concurrency,
            "queues": ",".join([*(name or "default" for name in plan.shape.queues), *[QUEUE] * bool(plan.keep)]),
            "max_deliveries": 100,  # the point here are deaths of nodes, of which no task is guilty
            **plan.settings,
        }
        self.fleet = Fleet(deployment.url, self.folder, settings, deployment.environ())
        self.faults = Faults(self.fleet, deployment, random.Random(seed), 0.8 * plan.node_timeout - 1.5)
        self.load = Load(deployment.url, plan.shape, random.Random(seed + 1))
        self.standing = Standing(deployment, plan.keep, random.Random(seed + 2))
        self.watcher = Watcher(deployment)

    def run(self) -> Result:
        """Do it; blocks until everything has ended, or the deadline has passed."""
        began = time.monotonic()
        try:
            return self._run(began)
        finally:
            self.fleet.close()
            self.load.close()
            self.standing.close()
            self.watcher.stop()

    def _run(self, began: float) -> Result:
        for _ in range(self.plan.nodes):
            self.fleet.start()
        for node in self.fleet.nodes:
            node.wait_until_ready()
        self.watcher.start()
        self.standing.begin()
        self._schedule()
        self.load.start()
        self._wait_for_the_load()
        unsettled = self.standing.settle(self.folder)
        ids = self.load.acknowledged + self.standing.ids
        left = wait_until_ended(self.deployment, ids, self.plan.deadline, lambda left: self.tick(1.0, left))
        seconds = time.monotonic() - began
        runs = journal.read(self.folder)
        checker = Checker(
            self.deployment,
            ids,
            runs,
            self.faults.done,
            queues=self.plan.shape.queues,
            expected=self.standing.expected,
            more_ends=len(self.standing.flows),
            duplicates=self.load.duplicates,
        )
        verdict = checker.check(self.watcher.successes)
        verdict.figures["open at the deadline"] = len(left)
        verdict.figures["duplicate pushes"] = self.load.duplicates
        verdict.figures |= times.describe(runs, self.faults.done, self.load.last_push)
        for text in unsettled:
            verdict.complain("unsettled", text)
        self.standing.check(runs, self.faults.done, verdict)
        statuses = self.fleet.stop()
        if any(statuses):
            verdict.complain("exit status", str(statuses))
        return Result(verdict, self.faults, seconds, statuses, self.folder)

    def _schedule(self) -> None:
        plan, faults, rng = self.plan, self.faults, self.faults.rng
        now = time.monotonic()
        begin, end = now + 1, now + plan.shape.seconds
        faults.plan(faults.kill_node, plan.kills, begin, end)
        faults.plan(lambda: faults.freeze_node(plan.node_timeout + rng.uniform(1, 3)), plan.freezes, begin, end)
        faults.plan(lambda: faults.restart_server(rng.uniform(*plan.down)), plan.restarts, begin, end)
        faults.plan(lambda: faults.kill_master(rng.uniform(*plan.down)), plan.failovers, begin, end)
        plan.story(faults, begin, end)

    def _wait_for_the_load(self) -> None:
        while not self.load.done or self.faults.agenda:
            self.faults.agenda.run_due()
            made = len(self.load.acknowledged)
            self.standing.turn(made / self.plan.shape.tasks)
            self.tick(made / self.plan.shape.tasks, made)
            time.sleep(0.02)

    def remove_files(self) -> None:
        """Remove journal and logs."""
        shutil.rmtree(self.folder, ignore_errors=True)
