"""Messages and their statuses: what a custom queue carries, and what the record of a task of ours reads as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from pytask import states
from pytask.errors import TaskFailed, TaskNotFoundError


class TaskStatus(StrEnum):
    """How a task stands; NOT_CREATED where there is no message of it, or none any more."""

    NOT_CREATED = "not_created"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    RETRY = "retry"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


STATUSES = {
    states.WAIT: TaskStatus.PENDING,
    states.SCHEDULED: TaskStatus.PENDING,
    states.HELD: TaskStatus.PENDING,
    states.RUNNING: TaskStatus.RUNNING,
    states.RETRY: TaskStatus.RETRY,
    states.SUCCESS: TaskStatus.COMPLETED,
    states.ERROR: TaskStatus.FAILED,
    states.EXCEPTION: TaskStatus.FAILED,
    states.TIMEOUT: TaskStatus.FAILED,
    states.LOST: TaskStatus.FAILED,
    states.EXPIRED: TaskStatus.SKIPPED,
    states.SKIPPED: TaskStatus.SKIPPED,
    states.DISCARDED: TaskStatus.SKIPPED,
    states.STOPPED: TaskStatus.CANCELLED,
}
ENDED = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.CANCELLED})


class MessageNotExist(TaskNotFoundError):
    """There is no message of this task: it was never enqueued, or it is not kept any more."""


def now() -> str:
    """The time as messages hold it."""
    return datetime.now(UTC).isoformat()


@dataclass(kw_only=True)
class Message:
    """What both kinds of messages hold; times are ISO 8601 in UTC."""

    task_id: str
    task_name: str
    status: TaskStatus = TaskStatus.PENDING
    retry_count: int = 0
    created_at: str | None = field(default_factory=now)

    def __post_init__(self) -> None:
        self.status = TaskStatus(self.status)

    def to_json(self) -> str:
        """The message as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The message that `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(kw_only=True)
class TaskMessage(Message):
    """A task that is to be run. `max_retries` None: as many as the worker says.

    `receipt` is what a queue that lends its messages knows this one by; it is no part of the JSON.
    """

    params: dict[str, Any] = field(default_factory=dict)
    max_retries: int | None = None
    receipt: Any = field(default=None, repr=False, compare=False)

    def to_json(self) -> str:
        """The message as JSON."""
        return json.dumps({name: value for name, value in vars(self).items() if name != "receipt"})


@dataclass(kw_only=True)
class ResultMessage(Message):
    """How a task stands. `error` and `traceback`: of its last attempt, where that failed."""

    started_at: str | None = None
    completed_at: str | None = None
    result: Any = None
    error: str | None = None
    traceback: str | None = None
    worker_id: str | None = None


def result_of_record(task_id: str, record: Mapping[str, str]) -> ResultMessage:
    """What the record of a task of ours tells."""
    state = record.get("state") or states.WAIT
    status = STATUSES.get(state, TaskStatus.PENDING)
    attempts = int(record.get("attempt") or 0)
    message = ResultMessage(
        task_id=task_id,
        task_name=record.get("task", ""),
        status=status,
        retry_count=max(attempts - 1, 0) if status in ENDED | {TaskStatus.RUNNING} else attempts,
        created_at=_time(record.get("created")),
        started_at=_time(record.get("started")),
        completed_at=_time(record.get("ended")),
        worker_id=record["node"].split(":")[0] if "node" in record else None,
    )
    output = record.get("output")
    if output and status is TaskStatus.COMPLETED:
        message.result = json.loads(output)
    elif output:
        failure = TaskFailed(task_id, state, output)
        message.error, message.traceback = failure.message, failure.traceback
    return message


def _time(seconds: str | None) -> str | None:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat() if seconds else None
