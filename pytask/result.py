"""How a task ended, out of its record or out of the event of its end. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pytask import states, wire
from pytask.errors import TaskFailed
from pytask.workflow import NAME as WORKFLOW_NAME

TASK, WORKFLOW = "task", "workflow"  # what people call what ended
FIELDS = ("state", "task", "output", "ended", "last_update")
"""What of a record `of_record` wants, in this order."""

_NAME = re.compile(rb'\s*\{\s*"event"\s*:\s*"([a-z]{1,20})"')
_CLOSING = frozenset(state.lower().encode() for state in states.CLOSED) | {b"purged"}


class Result(NamedTuple):
    """The end of a task. `output` is the text in its record; `ended`: epoch seconds, 0 where it is not told.

    `kind` is WORKFLOW where its record says that it is one.
    """

    id: str
    state: str
    output: str
    ended: float = 0.0
    kind: str = TASK

    def get(self) -> Any:
        """What the task returned. Raises TaskFailed where it did not end in SUCCESS."""
        if self.state != states.SUCCESS:
            raise TaskFailed(self.id, self.state, self.output, self.kind)
        return wire.decode_json(self.output.encode("utf-8", "surrogateescape")) if self.output else None


def tells_of_end(message: bytes) -> bool:
    """Is this the event of an end, or of a purge? It may be that of an earlier run: the record decides."""
    match = _NAME.match(message)
    if match:
        return match[1] in _CLOSING
    return b'"event"' in message and _of_message("", message) is not None


def of_record(task_id: bytes, values: Sequence[bytes | None]) -> Result | None:
    """The end that FIELDS of a record tell; None where the task has not ended."""
    state, _, output, ended, updated = values
    name = b"" if state is None else state
    if name.decode("ascii", "replace") not in states.CLOSED:
        return None
    text = (output or b"").decode("utf-8", "backslashreplace")
    return Result(wire.id_to_str(task_id), name.decode(), text, _seconds(ended or updated), kind_of(values))


def kind_of(values: Sequence[bytes | None]) -> str:
    """What FIELDS of a record say that it is."""
    return WORKFLOW if values[1] == WORKFLOW_NAME.encode() else TASK


def of_event(task_id: bytes, message: bytes) -> Result | None:
    """The end that an event tells; None where it tells of none."""
    return _of_message(wire.id_to_str(task_id), message)


def _of_message(task_id: str, message: bytes) -> Result | None:
    try:
        event, data = wire.decode_event(message)
    except wire.WireError:
        return None
    return of_event_parts(task_id, event, data)


def of_event_parts(task_id: str, event: str, data: Any, ended: float = 0.0) -> Result | None:
    """The same of an event that was decoded already."""
    state = event.upper()
    if state not in states.CLOSED or event != event.lower():
        return None
    if state != states.SUCCESS:
        return Result(task_id, state, data if isinstance(data, str) else "", ended)
    return Result(task_id, state, wire.encode_json(data).decode(), ended)


def _seconds(text: bytes | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
