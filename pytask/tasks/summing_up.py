"""What a workflow says at its end: the output of its last tasks, or which of its tasks failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pytask import states, wire
from pytask.store.store import Store
from pytask.workflow import LIST, decode_gate, id_of

BATCH = 500  # tasks
MOST_NAMED = 10  # failed tasks, in the output of a workflow


def sum_up(store: Store, workflow: bytes, record: Mapping[bytes, bytes], max_data: int) -> Any:
    """The outputs of the last tasks, in order; None for each that has none."""
    outputs: list[Any] = []
    size = 0
    names = decode_gate(record[b"last"]).after
    for start in range(0, len(names), BATCH):
        ids = [id_of(workflow, name) for name in names[start : start + BATCH]]
        for row in store.records.get_each(ids, ["state", "output"]):
            raw = row[1] if row is not None and row[0] == b"SUCCESS" else None
            outputs.append(wire.decode_json(raw) if raw else None)
            size += len(raw or b"") + 5
    if size > max_data:
        told = f"the outputs of its last {len(outputs)} tasks have more than max_data ({max_data} bytes)"
        return {"omitted": f"{told}: read them from the tasks"}
    return outputs if record.get(b"returns", b"").decode() == LIST else outputs[0]


def name_failures(store: Store, workflow: bytes, failed: int, total: int) -> str:
    """Which tasks failed, in words."""
    named: Counter[str] = Counter()
    for found in store.workflows.iter_tasks(workflow):
        for name, noted in found.items():
            if not noted.allow_failure and (noted.state in states.FAILED or noted.state == states.STOPPED):
                named[f"{name} ({noted.state})"] = 1
    told = ", ".join(sorted(named)[:MOST_NAMED]) + (", ..." if len(named) > MOST_NAMED else "")
    return f"{failed} of {total} tasks failed: {told}"
