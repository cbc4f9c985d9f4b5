"""What the cluster keeps going by itself, under faults: workflows, schedules that fire each second, and a service.

All of it is written as another language would write it. In the end the journal is asked whether every fire came
once, whether a replica ran twice at a time, and whether all of them are up.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis

from chaos import flows, journal
from chaos.checker import Verdict
from chaos.faults import Fault
from chaos.flows import Flow
from chaos.journal import JournalRun
from chaos.servers import Deployment
from pytask import PyTask
from pytask.errors import StoreError

QUEUE = "keep"  # of the replicas: they end as STOPPED, which is none of the other tasks' counts
SERVICE = "watch"
FIRST = 3.5  # seconds until the first fire: nodes look every 2 s where there is no schedule
LAST = 2.0  # seconds at most between the last fire and the end
AFTER_A_THAW = 3.0  # seconds within which a node that was frozen has noticed that its claims are gone
PATIENCE = 200.0  # seconds until all is as it should be, after the last fault: probation takes a minute and more

Runs = Mapping[str, list[JournalRun]]


@dataclass(frozen=True)
class Keep:
    """How many of each."""

    workflows: int = 0
    schedules: int = 0
    replicas: int = 0

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Keep()


class Standing:
    """Begins them, and looks at what came of them. Schedules fire from `began` to `ended`, in epoch seconds."""

    def __init__(self, deployment: Deployment, keep: Keep, rng: random.Random) -> None:
        self.deployment = deployment
        self.keep = keep
        self.rng = rng
        self.flows: list[Flow] = []
        self.fires: list[str] = []
        self.began = self.ended = 0.0
        self._app = PyTask(deployment.url)

    @property
    def schedules(self) -> list[str]:
        return [f"tick-{number}" for number in range(self.keep.schedules)]

    @property
    def replicas(self) -> list[str]:
        """The ids of the replicas."""
        return [f"{SERVICE}:{number}" for number in range(self.keep.replicas)]

    @property
    def ids(self) -> list[str]:
        """The tasks that ran to their end: those of workflows, and of fires."""
        return [task_id for flow in self.flows for task_id in flow.ids] + self.fires

    @property
    def expected(self) -> dict[str, str]:
        return {flow.skipped: "SKIPPED" for flow in self.flows}

    # While faults happen.

    def begin(self) -> None:
        """Define the schedules and the service."""
        self.began = time.time()
        for name in self.schedules:
            fields = {"task": "work", "data": '{"seconds": 0.05}', "every": "1", "missed": "all"}
            self._write("schedule", name, fields)
        if self.keep.replicas:
            fields = {"task": "replica", "replicas": str(self.keep.replicas), "queue": QUEUE}
            self._write("service", SERVICE, fields)

    def turn(self, share: float) -> None:
        """Start the workflows that are due when this share of the time is over."""
        while len(self.flows) < int(self.keep.workflows * min(share / 0.9, 1.0)):
            flow = flows.flow_of(f"flow-{len(self.flows)}")
            row = flow.record(self.rng, 0.01, 0.5)
            self._insist(lambda row=row: self._app.helpers.store.queues.create([row], ""))
            self.flows.append(flow)

    def _write(self, kind: str, name: str, fields: Mapping[str, str]) -> None:
        """What is there already is changed: the command may be repeated."""
        self._ask(lambda client: client.hset(f"{kind}-{name}", mapping=dict(fields)))
        self._ask(lambda client: client.zadd(f"{kind}s", {name: 0}))

    # When they are over.

    def settle(self, folder: Path) -> list[str]:
        """Wait until all is up and done, and end what would go on for ever; returns what is not, in words."""
        if not self.keep:
            return []
        left = self._wait_until_up(folder)
        self._end_schedules()
        left += self._wait("not ended", lambda: [flow.id for flow in self.flows if not self._has_ended(flow)])
        self._ask(lambda client: client.delete(f"service-{SERVICE}"))
        self._ask(lambda client: client.zadd("services", {SERVICE: 0}))
        left += self._wait("not stopped", self._claimed)
        return left

    def close(self) -> None:
        self._app.close()

    def _wait_until_up(self, folder: Path) -> list[str]:
        def down() -> list[str]:
            runs, now = journal.read(folder), time.monotonic()
            return [i for i in self.replicas if not any(now - run.seen < 1 for run in runs.get(i, ()))]

        return self._wait("not up", down)

    def _end_schedules(self) -> None:
        """Let them fire until now, and pause them; then each fire has its record."""
        self.ended = time.time()
        self._wait("behind", lambda: [name for name in self.schedules if self._is_behind(name)])
        for name in self.schedules:
            self._write("schedule", name, {"paused": "1"})
        self._wait("firing", lambda: [name for name in self.schedules if self._field("schedule", name, "firing")])
        self.fires = self.read_fires()

    def read_fires(self) -> list[str]:
        """The ids of all fires until now. What has a record and was not won, as a death may leave it, is none."""
        last = {name: self._last(name) for name in self.schedules}
        keys = (raw.decode().removeprefix("task-") for raw in self.deployment.iter_keys("task-tick-*@*Z"))
        return sorted(key for key in keys if second_of(key) <= last[key.partition("@")[0]])

    def _last(self, name: str) -> float:
        """The epoch second of the last fire that was won; 0 where there was none."""
        return float(self._field("schedule", name, "last") or 0)

    def _is_behind(self, name: str) -> bool:
        return self._last(name) < self.ended - LAST

    def _has_ended(self, flow: Flow) -> bool:
        return self._field("task", flow.id, "state") in (b"SUCCESS", b"ERROR", b"EXCEPTION", b"LOST")

    def _claimed(self) -> list[str]:
        return [raw.decode() for raw in self._ask(lambda client: client.hkeys(f"{{new-task:{QUEUE}}}:claims"))]

    def _wait(self, what: str, open_ones: Callable[[], list[str]]) -> list[str]:
        """Wait until there are none; returns those that are left, in words."""
        deadline = time.monotonic() + PATIENCE
        while left := open_ones():
            if time.monotonic() > deadline:
                return [f"{what}: {', '.join(left[:10])}"]
            time.sleep(0.2)
        return []

    def _field(self, kind: str, name: str, field: str) -> bytes | None:
        found: bytes | None = self._ask(lambda client: client.hget(f"{kind}-{name}", field))
        return found

    def _ask(self, send: Callable[[Any], Any]) -> Any:
        def once() -> Any:
            with self.deployment.client() as client:
                return send(client)

        return self._insist(once)

    def _insist(self, send: Callable[[], Any]) -> Any:
        while True:
            try:
                return send()
            except (StoreError, redis.RedisError):
                time.sleep(0.05)

    # What came of it.

    def check(self, runs: Runs, faults: Iterable[Fault], verdict: Verdict) -> None:
        """Complain of all that is not as it should be."""
        if not self.keep:
            return
        for flow in self.flows:
            flows.check(flow, self.deployment, runs, verdict)
        for name in self.schedules:
            for text in self.gaps(name):
                verdict.complain("fires", text)
        faults = list(faults)
        for replica in self.replicas:
            for text in doubles(runs.get(replica, []), faults):
                verdict.complain("two of a replica", text)
        verdict.figures |= {
            "workflows": len(self.flows),
            "fires": len(self.fires),
            "runs of replicas": sum(len(runs.get(replica, [])) for replica in self.replicas),
        }

    def gaps(self, name: str) -> Iterator[str]:
        """Fires that did not come, in words."""
        seconds = [second_of(fire) for fire in self.fires if fire.startswith(f"{name}@")]
        rows = [(self.began, min(seconds, default=self.ended), FIRST), (max(seconds, default=0), self.ended, LAST)]
        rows += [(before, after, 1.0) for before, after in pairwise(seconds)]
        for before, after, most in rows:
            if after - before > most:
                yield f"{name}: none between {before:.0f} and {after:.0f}"


def second_of(fire: str) -> float:
    """The epoch second that the id of a fire names."""
    return datetime.strptime(fire.partition("@")[2], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def doubles(runs: Iterable[JournalRun], faults: Iterable[Fault]) -> Iterator[str]:
    """Runs of one id that went on while a later one ran, in words.

    A node that was frozen goes on with its runs until it notices that they are others' now: until its next beat.
    """
    thaws = [fault for fault in faults if fault.kind == "freeze"]
    for run, following in pairwise(runs):
        excused = max((fault.ended + AFTER_A_THAW for fault in thaws if fault.pid == run.pid), default=0.0)
        if run.seen > max(following.started, excused):
            yield f"{run} {following}"
