"""Task: what users of task-framework subclass; and where its tasks are enqueued."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import pytask
from pytask.compat.task_framework.custom import Custom
from pytask.compat.task_framework.messages import MessageNotExist, ResultMessage, TaskMessage, TaskStatus
from pytask.compat.task_framework.redis_queue import RedisTaskQueue
from pytask.errors import InvalidInputError
from pytask.params import dump, words_of


class Task:
    """One kind of work: `params_model` says what it takes, `run` does it, and what that returns is the result.

    Raises InvalidInputError, a ValueError, for params that the model refuses. In a worker `self.pytask` is the
    running task of ours: `self.pytask.progress(3, 10)`.
    """

    params_model: ClassVar[Any] = None
    _task_name: ClassVar[str | None] = None
    _task_queue: ClassVar[Any] = None

    Error = pytask.Task.Error  # FAILED at once, without a retry
    Discard = pytask.Task.Discard  # SKIPPED

    params: dict[str, Any]
    pytask: Any = None
    task_id: str | None = None

    def __init__(self, /, **params: Any) -> None:
        self.logger = logging.getLogger(type(self).__name__)
        self._model = self._check(params)
        self.params = params if self._model is None else self._model.model_dump()

    def _check(self, params: dict[str, Any]) -> Any:
        if self.params_model is None:
            return None
        try:
            return self.params_model(**params)
        except ValueError as error:
            raise InvalidInputError(f"invalid params for {type(self).__name__}: {words_of(error)}") from error

    @classmethod
    def get_name(cls) -> str:
        """The name it is registered by; that of the class where this process has not registered it."""
        return cls.__dict__.get("_task_name") or cls.__name__

    def get_param(self, name: str, default: Any = None) -> Any:
        """A param; `default` where there is none of this name."""
        return self.params.get(name, default)

    def run(self) -> Any:
        """Do the work; return what JSON can hold."""
        raise NotImplementedError

    def enqueue(self, **options: Any) -> str:
        """Put the task into the queue; returns its id. The options are those of docs/options.md, with Redis."""
        data = self.params if self._model is None else dump(self._model)
        message = TaskMessage(task_id="", task_name=self.get_name(), params=data)
        self.task_id = queue_of_tasks().enqueue(message, **options)
        return self.task_id

    @classmethod
    def delay(cls, /, **params: Any) -> str:
        """Enqueue a task with these params; returns its id."""
        return cls(**params).enqueue()

    @property
    def status(self) -> TaskStatus:
        """How it stands now."""
        message = queue_of_tasks().get_message(self.task_id) if self.task_id else None
        return TaskStatus.NOT_CREATED if message is None else message.status

    def get_result(self, timeout: float | None = None) -> ResultMessage:
        """The message of its end; waits for that, `timeout` seconds at most.

        Raises MessageNotExist where it was not enqueued or is not kept any more, and TaskTimeout.
        """
        if self.task_id is None:
            raise MessageNotExist(f"{type(self).__name__} was not enqueued")
        return queue_of_tasks().wait(self.task_id, timeout)

    def cancel(self) -> bool:
        """Have it not run, or stop it; False where it has ended."""
        return self.task_id is not None and queue_of_tasks().cancel(self.task_id)


class TaskFramework:
    """Where tasks are enqueued: `TaskFramework.setup(task_queue=RedisTaskQueue(...))`."""

    @classmethod
    def setup(cls, task_queue: Any, result_queue: Any = None) -> None:  # noqa: ARG003 - one queue does for both
        """Let every task be enqueued there. Without it: the queue of the first worker, else RedisTaskQueue()."""
        Task._task_queue = task_queue


def queue_of_tasks() -> RedisTaskQueue | Custom:
    """The queue that tasks are enqueued in."""
    if Task._task_queue is None:
        Task._task_queue = RedisTaskQueue()
    queue = Task._task_queue
    return queue if isinstance(queue, RedisTaskQueue) else Custom(queue)
