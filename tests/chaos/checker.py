"""The checker: compares journal, records, events and queues, and says what does not agree."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import redis
import ujson

from chaos.faults import Fault
from chaos.journal import JournalRun
from chaos.servers import Deployment
from pytask.keys import Keys

BATCH = 500
MOST_TOLD = 20  # problems of a kind that are spelled out
EMPTY = ("", "claims", "due", "again", "dead", "control", "of:*", "inbox:*")
ENDED = (b"SUCCESS", b"ERROR", b"EXCEPTION", b"TIMEOUT", b"EXPIRED", b"SKIPPED", b"DISCARDED", b"LOST", b"STOPPED")


@dataclass
class Verdict:
    """What was found. No problems: all is well."""

    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def complain(self, kind: str, text: str) -> None:
        """Note a problem; the first of each kind in full."""
        self._counts[kind] += 1
        if self._counts[kind] <= MOST_TOLD:
            self.problems.append(f"{kind}: {text}")

    def count(self, kind: str) -> int:
        return self._counts[kind]

    def text(self) -> str:
        rows = [f"{count} x {kind}" for kind, count in self._counts.items()]
        return "\n".join([*rows, *self.problems])


class Checker:
    """Looks at one round: `ids` were acknowledged, `runs` are the journal's."""

    def __init__(
        self,
        deployment: Deployment,
        ids: Sequence[str],
        runs: Mapping[str, list[JournalRun]],
        faults: Sequence[Fault],
        *,
        queues: Iterable[str] = ("",),
        expected: Mapping[str, str] = MappingProxyType({}),
        more_ends: int = 0,
        duplicates: int = 0,
    ) -> None:
        self.deployment = deployment
        self.ids = ids
        self.runs = runs
        self.faults = faults
        self.expected = expected  # states of ids that shall not end as SUCCESS
        self.more_ends = more_ends  # of tasks that were run again on purpose
        self.duplicates = duplicates  # pushes of ids that were pushed before
        self.keys = Keys()
        self.queues = [self.keys.queue(name) for name in queues]
        self.verdict = Verdict()
        self._wall = time.time() - time.monotonic()  # a fence is the microsecond of its claim

    def check(self, successes: Mapping[str, int] | None = None) -> Verdict:
        """All checks; `successes`: how many `success` events were seen of each id."""
        records = self.read_records()
        for task_id in self.ids:
            self._check_record(task_id, records[task_id])
            self._check_runs(task_id, records[task_id])
        self._check_counts()
        self._check_empty()
        if successes is not None:
            self._check_events(successes)
        self._add_figures()
        return self.verdict

    def read_records(self) -> dict[str, dict[bytes, bytes]]:
        """Every record, with the seconds that it lives on as `ttl`."""
        found: dict[str, dict[bytes, bytes]] = {}
        with self.deployment.client() as client:
            for start in range(0, len(self.ids), BATCH):
                part = self.ids[start : start + BATCH]
                pipe = client.pipeline(transaction=False) if isinstance(client, redis.Redis) else client.pipeline()
                for task_id in part:
                    pipe.hgetall(f"task-{task_id}")
                    pipe.ttl(f"task-{task_id}")
                replies = pipe.execute()
                for task_id, record, ttl in zip(part, replies[::2], replies[1::2], strict=True):
                    found[task_id] = {**record, b"ttl": str(ttl).encode()}
        return found

    def _check_record(self, task_id: str, record: dict[bytes, bytes]) -> None:
        state = record.get(b"state")
        if state != self.expected.get(task_id, "SUCCESS").encode():
            self.verdict.complain(
                "lost" if state not in ENDED or state == b"LOST" else "wrong end", _shown(task_id, record)
            )
            return
        if record.get(b"closed") != record.get(b"fence"):
            self.verdict.complain("not closed", _shown(task_id, record))
        if state == b"SUCCESS" and _fence_of(record) != int(record[b"fence"]):
            self.verdict.complain("stale write", _shown(task_id, record))
        if state != b"STOPPED" and int(record[b"ttl"]) < 0:
            self.verdict.complain("never in end-task", _shown(task_id, record))

    def _check_runs(self, task_id: str, record: dict[bytes, bytes]) -> None:
        runs = self.runs.get(task_id, [])
        for run, following in pairwise(runs):
            if run.fence == following.fence:
                self.verdict.complain("two runs of one fence", f"{run} {following}")
            elif not self._excused(run, following):
                self.verdict.complain("extra run", f"{run} {following}")
        if record.get(b"state") != b"SUCCESS":
            return
        if not runs:
            self.verdict.complain("success without a run", _shown(task_id, record))
        elif runs[-1].fence != int(record[b"fence"]):
            self.verdict.complain("stale write", f"the newest run is {runs[-1]}: {_shown(task_id, record)}")
        elif runs[-1].ended is None:
            self.verdict.complain("success of a run that did not end", str(runs[-1]))

    def _excused(self, run: JournalRun, following: JournalRun) -> bool:
        since = min(run.started, run.fence / 1e6 - self._wall)  # what a frozen node had claimed it begins later
        until = max(run.started, following.started)
        return any(fault.excuses and fault.touches(run.pid, since, until) for fault in self.faults)

    def _check_counts(self) -> None:
        """Each end was counted once. A failover may take counts back.

        Where a node dies that has claimed a repeated push of what has ended, that is told and counted once more.
        """
        total: Counter[str] = Counter()
        with self.deployment.client() as client:
            for queue in self.queues:
                total.update({state.decode(): int(n) for state, n in client.hgetall(queue.counts).items()})
        self.verdict.figures["counted"] = dict(total)
        ends = len(self.ids) + self.more_ends
        if (
            not any(fault.kind == "failover" for fault in self.faults)
            and not ends <= sum(total.values()) <= ends + self.duplicates
        ):
            self.verdict.complain("counts", f"{dict(total)} for {ends} ends")

    def _check_empty(self) -> None:
        """Nothing is left in any queue or in `end-task`."""
        wanted = [self.keys.end.decode(), "{end-task}:of:", "{end-task}:dead"]
        for queue in self.queues:
            key = queue.key.decode()
            wanted += [key, *(f"{{{key}}}:{name.rstrip('*')}" for name in EMPTY if name)]
        prefixes = tuple(name for name in wanted if name.endswith(":"))
        for raw in self.deployment.iter_keys("*"):
            name = raw.decode("utf-8", "backslashreplace")
            if name in wanted or name.startswith(prefixes):
                self.verdict.complain("not empty", name)

    def _check_events(self, successes: Mapping[str, int]) -> None:
        complete = all(fault.kind not in ("restart", "failover", "outage") for fault in self.faults)
        missing = 0
        for task_id in self.ids:
            if task_id in self.expected:
                continue
            count = successes.get(task_id, 0)
            missing += not count
            if count > 1 and not any(fault.kind == "failover" for fault in self.faults):
                self.verdict.complain("two accepted finishes", f"{task_id}: {count} events")
            elif not count and complete:
                self.verdict.complain("no event of its end", task_id)
        self.verdict.figures["ends without an event seen"] = missing

    def _add_figures(self) -> None:
        figures = self.verdict.figures
        extra = sum(max(len(self.runs.get(task_id, [])) - 1, 0) for task_id in self.ids)
        figures.update(
            {
                "tasks": len(self.ids),
                "runs": sum(len(self.runs.get(task_id, [])) for task_id in self.ids),
                "extra runs": extra,
                "extra runs not excused": self.verdict.count("extra run"),
                "lost": self.verdict.count("lost"),
                "stale writes": self.verdict.count("stale write"),
            }
        )


def _fence_of(record: dict[bytes, bytes]) -> int:
    """The fence of the run whose outcome stands."""
    try:
        return int(ujson.loads(record[b"output"])["fence"])
    except (KeyError, TypeError, ValueError):
        return -1


def _shown(task_id: str, record: dict[bytes, bytes]) -> str:
    return f"{task_id} { ({k.decode(): v.decode('utf-8', 'replace')[:80] for k, v in record.items()}) }"


def wait_until_ended(
    deployment: Deployment, ids: Sequence[str], seconds: float, tick: Any = lambda _left: None
) -> list[str]:
    """Wait until every record has ended and nothing is claimed; returns the ids that have not.

    `tick` is called meanwhile, with how many are open.
    """
    deadline = time.monotonic() + seconds
    left = list(ids)
    while time.monotonic() < deadline:
        try:
            left = left and _still_open(deployment, left)
            if not left and not _is_busy(deployment):
                return []
        except redis.RedisError:  # a server is away: what is asked next time is the same
            pass
        tick(len(left))
        time.sleep(0.2)
    return left


def _still_open(deployment: Deployment, ids: list[str]) -> list[str]:
    still: list[str] = []
    with deployment.client() as client:
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            pipe = client.pipeline(transaction=False) if isinstance(client, redis.Redis) else client.pipeline()
            for task_id in part:
                pipe.hget(f"task-{task_id}", "state")
            still += [task_id for task_id, state in zip(part, pipe.execute(), strict=True) if state not in ENDED]
    return still


def _is_busy(deployment: Deployment) -> bool:
    """Is anything claimed, or waiting to be cleaned up?"""
    busy = ("new-task", "end-task", "{end-task}:of:")
    for raw in deployment.iter_keys():
        name = raw.decode("utf-8", "backslashreplace")
        if name.startswith(busy) or ":claims" in name or ":inbox:" in name or name.endswith((":due", ":again")):
            return True
    return False
