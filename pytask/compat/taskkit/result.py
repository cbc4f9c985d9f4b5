"""The result of a task, which may not be there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytask import states, wire
from pytask.compat.taskkit.handling import Task, from_json
from pytask.errors import TaskFailed, TaskGone, TaskTimeout

if TYPE_CHECKING:
    from pytask.compat.taskkit.kit import Kit

T = TypeVar("T")


class NotFound(Exception):
    """There is no such task: it was discarded, is not kept any more, or never was."""


class ResultGetTimedOut(Exception):
    """The task has not ended in time; it goes on."""


class Failed(Exception):
    """The task has failed; `message` is the traceback, or says otherwise why."""

    def __init__(self, task: Task, message: str) -> None:
        super().__init__(message)
        self.task = task
        self.message = message


class Result(Generic[T]):
    """What `initiate_task` returns; `task_id` is the id of the record."""

    def __init__(self, kit: Kit, task_id: str) -> None:
        self.kit = kit
        self.task_id = task_id
        self._values: list[T] = []

    def get(self, timeout: float | None = None) -> T:
        """What `decode_result` makes of the result; waits for it, `timeout` seconds at most.

        Raises ResultGetTimedOut, Failed, and NotFound, which is raised for a task that was discarded, too.
        """
        if not self._values:
            self._values.append(self._get(None if timeout is None else max(timeout, 0)))
        return self._values[0]

    def _get(self, timeout: float | None) -> Any:
        try:
            output = self.kit.app.helpers.get_result(self.task_id, timeout)
        except TaskTimeout as error:
            raise ResultGetTimedOut(str(error)) from None
        except TaskGone as error:
            raise NotFound(str(error)) from None
        except TaskFailed as error:
            if error.state == states.DISCARDED:
                raise NotFound(str(error)) from None
            raise Failed(self._task(), error.output or error.state) from None
        return self.kit.handler.decode_result(self._task(), from_json(output))

    def _task(self) -> Task:
        record = self.kit.app.helpers.get_task(self.task_id)
        if record is None:
            raise NotFound(f"task {self.task_id!a} is not kept any more")
        data = wire.decode_object(record.get("data", "{}").encode())
        return Task.of_record(self.task_id, int(record.get("attempt", 1)), data)
