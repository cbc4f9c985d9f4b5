"""Workflows under faults: made as another language would make them, and compared with the journal in the end.

Three stages of 50 tasks, unless told otherwise; the last task of the last stage runs only where something failed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import ujson

from chaos.checker import Verdict
from chaos.journal import JournalRun
from chaos.servers import Deployment
from pytask import wire
from pytask.store.queues import NewRecord

STAGES, WIDTH = 3, 50
Runs = Mapping[str, list[JournalRun]]


@dataclass(frozen=True)
class Flow:
    """A workflow: its id, and the ids of its tasks by stage."""

    id: str
    stages: tuple[tuple[str, ...], ...]

    @property
    def ids(self) -> list[str]:
        """Of its tasks."""
        return [task_id for stage in self.stages for task_id in stage]

    @property
    def skipped(self) -> str:
        """The one that nothing lets run."""
        return self.stages[-1][-1]

    def record(self, rng: random.Random, shortest: float, longest: float) -> NewRecord:
        """What a producer writes of it, whose tasks take so many seconds."""
        stages = [[_entry(rng.uniform(shortest, longest)) for _ in stage] for stage in self.stages]
        stages[-1][-1]["when"] = "on_failure"
        words: list[object] = ["task", "pytask/workflow", "data", wire.encode_json({"stages": stages})]
        return NewRecord(self.id.encode(), words, new=False)


def flow_of(flow_id: str, stages: int = STAGES, width: int = WIDTH) -> Flow:
    """A workflow whose tasks have their numbers as names."""
    numbers = [range(width * stage, width * (stage + 1)) for stage in range(stages)]
    return Flow(flow_id, tuple(tuple(f"{flow_id}:{number}" for number in part) for part in numbers))


def _entry(seconds: float) -> dict[str, object]:
    return {"task": "work", "data": {"seconds": round(seconds, 3)}}


def check(flow: Flow, deployment: Deployment, runs: Runs, verdict: Verdict) -> None:
    """It ended well, once, and no stage began early. That each task ran as it should is the checker's."""
    with deployment.client() as client:
        record, kept = client.hgetall(f"task-{flow.id}"), client.hgetall(f"workflow-{flow.id}")
        listed = client.zscore("workflows", flow.id)
    total = str(len(flow.ids)).encode()
    if record.get(b"state") != b"SUCCESS" or len(ujson.loads(record[b"output"])) != len(flow.stages[-1]):
        verdict.complain("workflow not ended", f"{flow.id} {record} {kept}")
    elif (kept.get(b"state"), kept.get(b"done"), kept.get(b"failed")) != (b"SUCCESS", total, b"0"):
        verdict.complain("workflow miscounted", f"{flow.id} {kept}")
    if listed is not None:
        verdict.complain("workflow still open", flow.id)
    for text in early(flow, runs):
        verdict.complain("stage began early", text)
    if flow.skipped in runs:
        verdict.complain("skipped task ran", str(runs[flow.skipped]))


def early(flow: Flow, runs: Runs) -> Iterator[str]:
    """Runs that began before the stage before them had ended, in words."""
    for number, (before, after) in enumerate(pairwise(flow.stages)):
        ends = [runs[task_id][-1].ended or float("inf") for task_id in before if task_id in runs]
        starts = [run for task_id in after for run in runs.get(task_id, ())]
        for run in starts:
            if run.started < max(ends, default=0.0):
                yield f"{run}, and stage {number} of {flow.id} ended at {max(ends)}"
