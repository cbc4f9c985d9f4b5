"""What an option of a task costs, beside a plain one: the same number of each, drained in turns.

A new row is a task in `app.py` and a line in VARIANTS.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from harness import wait_for

from scale.farm import farm
from scale.gauge import between


class Variant(NamedTuple):
    """One kind of task. `fields` are further ones of its record, `settings` those of the node."""

    label: str
    task: str = "noop"
    data: dict[str, Any] = {}
    fields: dict[str, str] = {}
    tasks: int = 10_000
    settings: dict[str, str] = {}


PLAIN = Variant("plain")
VARIANTS = (
    PLAIN,
    Variant("`cleanup` false", fields={"cleanup": "false"}),
    Variant("no Monitor and no Cleanup on the node", settings={"local_tasks": "false"}),
    Variant("`rescheduling` false", task="once"),
    Variant("1 event by `emit`", task="emit", data={"events": 1}),
    Variant("10 events by `emit`", task="emit", data={"events": 10}),
    Variant("... with `keep_events` 0", task="emit", data={"events": 10}, settings={"keep_events": "0"}),
    Variant("1 line logged", task="log", data={"lines": 1}),
    Variant("10 lines logged", task="log", data={"lines": 10}),
    Variant("... with `capture_logs` false", task="log", data={"lines": 10}, settings={"capture_logs": "false"}),
    Variant(
        "10 lines printed, `capture_print` true",
        task="print",
        data={"lines": 10},
        settings={"capture_print": "true"},
    ),
    Variant("1 `progress`", task="progress", data={"times": 1}),
    Variant("10 times `progress`", task="progress", data={"times": 10}),
    Variant("output of 1 KiB", task="output", data={"size": 1024}),
    Variant("output of 100 KiB", task="output", data={"size": 102_400}, tasks=1_000),
    Variant("data of 1 KiB", task="take", data={"text": "x" * 1024}),
    Variant("data of 100 KiB", task="take", data={"text": "x" * 102_400}, tasks=1_000),
)


def measure(kind: str, variant: Variant) -> dict[str, Any]:
    """What one task costs, from the first claim to the last cleanup."""
    with farm(kind) as f:
        worker = f.start_worker(**variant.settings)
        f.prepare(variant.tasks, variant.task, json.dumps(variant.data), **variant.fields)
        time.sleep(0.5)
        gauge = f.gauge()
        first = gauge.read()
        f.release()
        cleaned = "local_tasks" not in variant.settings
        wait_for(lambda: f.ended() >= variant.tasks, "all end", 60, worker)
        seconds = time.monotonic() - first.at
        wait_for(lambda: not (cleaned and f.client.llen("end-task")), "all are cleaned up", 60, worker)
        costs = between(first, gauge.read())
        return {**costs.each(), "rate": variant.tasks / seconds, "by_command": costs.by_command()}
