"""What a handler is, what it sees of a task, and the task of ours that calls it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pytask import task as core
from pytask import wire
from pytask.errors import InvalidInputError
from pytask.names import shown
from pytask.schedule import read_fire_time

NAME = "taskkit"
TTL = 604_800.0  # seconds that a record is kept after its end
DROPPED = "its handler has discarded it"


class DiscardTask(Exception):
    """Raise it in `handle` or `get_retry_interval`: the task is dropped."""


@dataclass(frozen=True)
class Task:
    """What a handler sees of a task. Times are epoch seconds; `scheduled` is that of its schedule."""

    id: str
    group: str
    name: str
    data: bytes
    due: float
    created: float
    scheduled: float | None
    retry_count: int
    ttl: float

    @classmethod
    def of_record(cls, task_id: str, attempt: int, data: Mapping[str, Any]) -> Task:
        """Raises InvalidInputError where the data are not those of a kit."""
        group, name, encoded = data.get("group"), data.get("name"), data.get("data", "")
        if not (isinstance(group, str) and isinstance(name, str)):
            raise InvalidInputError("the data need a group and a name, which are text")
        scheduled = read_fire_time(task_id.rpartition("@")[2])
        created = data.get("created") or scheduled or time.time()
        due, ttl = data.get("due") or scheduled or created, data.get("ttl", TTL)
        return cls(task_id, group, name, from_json(encoded), due, created, scheduled, attempt - 1, ttl)


class TaskHandler(Protocol):
    """What users of a kit subclass."""

    def handle(self, task: Task) -> Any:
        """Do the task and return its result, or raise DiscardTask."""

    def get_retry_interval(self, task: Task, exception: Exception) -> float | None:
        """Seconds until the next try, after `handle` raised this; None: the task fails. Or raise DiscardTask."""

    def encode_data(self, group: str, task_name: str, data: Any) -> bytes:
        """The bytes of the data of a task."""

    def encode_result(self, task: Task, result: Any) -> bytes:
        """The bytes of what `handle` returned."""

    def decode_result(self, task: Task, encoded: bytes) -> Any:
        """The opposite: what `Result.get` returns."""


class HandledTask(core.Task):
    """The task of a kit, which has a subclass with its handler."""

    NAME = NAME
    handler: ClassVar[TaskHandler]

    def __init__(self, **data: Any) -> None:
        try:
            self.seen = Task.of_record(self.id, self.attempt, data)
        except InvalidInputError as error:
            raise self.Error(str(error)) from None

    def start(self) -> Any:
        """What the handler returns, encoded."""
        try:
            return to_json(self.handler.encode_result(self.seen, self.handler.handle(self.seen)))
        except DiscardTask as error:
            raise self.Discard(str(error) or DROPPED) from None

    def get_retry_interval(self, exception: BaseException) -> float | None:
        """What the handler says; where it raises, what taskkit does then: wait a second longer each time."""
        if not isinstance(exception, Exception):  # SystemExit, say: handlers are promised others
            return None
        try:
            return self.handler.get_retry_interval(self.seen, exception)
        except DiscardTask as error:
            raise self.Discard(str(error) or DROPPED) from None
        except Exception:
            logging.getLogger("pytask.compat.taskkit").exception("get_retry_interval of id %a raised", self.id)
            return self.attempt


def to_json(encoded: object) -> str | dict[str, Any]:
    """The bytes that a handler made, for a record. Raises InvalidInputError for what is no bytes."""
    if not isinstance(encoded, bytes | bytearray | memoryview):
        raise InvalidInputError(f"a handler encodes to bytes, not to {shown(encoded)}")
    return wire.bytes_to_json(bytes(encoded))


def from_json(value: object) -> bytes:
    """The opposite. Raises InvalidInputError."""
    try:
        return wire.bytes_of_json(value)
    except wire.WireError as error:
        raise InvalidInputError(f"what a handler encoded {error}") from None
