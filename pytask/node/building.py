"""From what a record says to an object of a Task class: resolve the name, read the data, build.

Shared by the node's runner and by whatever else runs tasks in this process. Nothing here needs gevent or a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytask import wire
from pytask.errors import InvalidInputError
from pytask.node.outcome import BadInput, UnknownName
from pytask.params import fit, misfit_of_names
from pytask.task import Task, TaskContext


def resolve(classes: Mapping[str, type[Task]], name: bytes | None) -> type[Task]:
    """The class that a record's field `task` names.

    Raises UnknownName, and BadInput where the field is missing or names what no producer may start.
    """
    if name is None:
        raise BadInput("the record has no field 'task': HSET it to the NAME of a task")
    task_class = classes.get(name.decode("utf-8", "replace"))
    if task_class is None:
        raise UnknownName
    if task_class.local_only:
        raise BadInput(f"the task {task_class.NAME} runs on nodes by itself: no producer may start it")
    return task_class


def read_data(raw: bytes | None, size: int, limit: int) -> dict[str, Any]:
    """The field `data`, of `size` bytes, as a dict. Raises BadInput where it is too large or no JSON object."""
    if size == 0 or raw == b"{}":
        return {}
    if size > limit:
        raise BadInput(f"the field 'data' has {size} bytes; the limit (max_data) is {limit}")
    assert raw is not None
    try:
        return wire.decode_object(raw)
    except wire.WireError as error:
        raise BadInput(f"the field 'data' {error}") from None


def embody(task_class: type[Task], context: TaskContext) -> Task:
    """An object with its context, before `__init__` runs, so that it finds id and emit."""
    task = task_class.__new__(task_class)
    task._context = context
    return task


def initialise(task: Task, data: dict[str, Any]) -> None:
    """Check the data and call `__init__`.

    Raises BadInput where the data does not fit, and whatever `__init__` or `Params` raises.
    """
    if task.Params is not None or task.validate:
        data = _fit(task, data)
    try:
        task.__init__(**data)  # type: ignore[misc]
    except TypeError as error:
        words = misfit_of_names(type(task), data)
        raise (BadInput(words) if words else error) from error


def _fit(task: Task, data: dict[str, Any]) -> dict[str, Any]:
    """Set `params`; returns the arguments of `__init__`."""
    try:
        task.params, arguments = fit(type(task), data)
    except InvalidInputError as error:
        raise BadInput(str(error)) from error.__cause__
    return arguments
