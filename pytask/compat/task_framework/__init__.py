"""The words of task-framework over the parts of pytask, loaded when first used. See docs/coming-from/.

`python -m pytask.compat.task_framework.worker` patches before anything of this is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytask.compat.task_framework.custom import InMemoryQueue, LendingQueue, Queue
    from pytask.compat.task_framework.messages import MessageNotExist, ResultMessage, TaskMessage, TaskStatus
    from pytask.compat.task_framework.params import TaskParams
    from pytask.compat.task_framework.redis_queue import RedisTaskQueue
    from pytask.compat.task_framework.tasks import Task, TaskFramework
    from pytask.compat.task_framework.working import TaskRegistry, TaskWorker

__all__ = [
    "InMemoryQueue",
    "LendingQueue",
    "MessageNotExist",
    "Queue",
    "RedisTaskQueue",
    "ResultMessage",
    "Task",
    "TaskFramework",
    "TaskMessage",
    "TaskParams",
    "TaskRegistry",
    "TaskStatus",
    "TaskWorker",
]

_HOMES = {
    "custom": ("InMemoryQueue", "LendingQueue", "Queue"),
    "messages": ("MessageNotExist", "ResultMessage", "TaskMessage", "TaskStatus"),
    "params": ("TaskParams",),
    "redis_queue": ("RedisTaskQueue",),
    "tasks": ("Task", "TaskFramework"),
    "working": ("TaskRegistry", "TaskWorker"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
