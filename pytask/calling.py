"""Calling: the helpers that call functions by their path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytask.errors import InvalidInputError, PyTaskError
from pytask.names import shown

if TYPE_CHECKING:
    from pytask.task import Task

CALL = "pytask/call"
EXPIRES_IN = 1800.0  # seconds


class Calling:
    """The helpers for `pytask/call`. The node lets in what its setting `callable_prefixes` names."""

    start_task: Any  # of Producing
    run_here: Callable[..., Any] | None = None  # what `run_now` of the app does

    def run_now(
        self,
        task: str | type[Task],
        data: Mapping[str, Any] | None = None,
        /,
        *,
        inputs: Any = None,
        **task_data: Any,
    ) -> Any:
        """Run a task in this process, now, without a queue: see `PyTask.run_now`. For the helpers of an app."""
        if self.run_here is None:
            raise PyTaskError("these helpers belong to no app: they know no task that they could run")
        return self.run_here(task, data, inputs=inputs, **task_data)

    def call(self, path: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function on a node by its path, such as `myapp.tasks.process`; returns the id of the task.

        `start_task("pytask/call", {"function": path, "args": [...], "kwargs": {...}}, queue=...)` does the same,
        with options.
        """
        return self.start_task(CALL, {"function": _checked(path), "args": args, "kwargs": kwargs})

    def publish(
        self, queue: str, path: str, data: Any = None, /, *, expires: float | str = EXPIRES_IN, **options: Any
    ) -> Any:
        """Call a function by its path with `data` as its one argument; returns the id of the task.

        `expires`: how many seconds it may wait for its start (30 minutes unless given). The other options are
        those of docs/options.md.
        """
        function = {"function": _checked(path), "args": [data]}
        return self.start_task(CALL, function, queue=queue, expires_in=expires, **options)


def _checked(path: object) -> str:
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise InvalidInputError(
            f"a function is named by its path, such as 'myapp.tasks.process', not {shown(path)}"
        )
    return path
