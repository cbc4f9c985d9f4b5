"""The words of Taskue: tasks and workflows of functions, over `pytask/call` and workflows. Loaded when first used.

::

    from pytask.compat.taskue import Taskue, Task

    task = Task(title="thumbnails", retries=2, tag="images")
    task.execute(shop.images.resize, "a.png")
    uid = Taskue(Redis()).enqueue(task)

A tag is a queue, a namespace a namespace, a function travels by its path. Runners stand in `runner`, the command
line in `__main__`, which patches before anything of this is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytask.compat.taskue.client import TaskNotFound, Taskue, TimeoutException, WorkflowNotFound
    from pytask.compat.taskue.told import Conditions, Task, TaskStatus, Workflow, WorkflowStatus

__all__ = [
    "Conditions", "Task", "TaskNotFound", "TaskStatus", "Taskue", "TimeoutException", "Workflow",
    "WorkflowNotFound", "WorkflowStatus",
]  # fmt: skip

_HOMES = {
    "client": ("TaskNotFound", "Taskue", "TimeoutException", "WorkflowNotFound"),
    "told": ("Conditions", "Task", "TaskStatus", "Workflow", "WorkflowStatus"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
