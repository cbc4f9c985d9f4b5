"""Calling: the helpers that call functions by their path."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytask.errors import InvalidInputError, PyTaskError
from pytask.names import importable_name, shown

if TYPE_CHECKING:
    from pytask.task import AnyTask

CALL = "pytask/call"
EXPIRES_IN = 1800.0  # seconds


class Calling:
    """The helpers for `pytask/call`. The node lets in what its setting `callable_prefixes` names."""

    start_task: Any  # of Producing
    run_here: Callable[..., Any] | None = None  # what `run_now` of the app does

    def run_now(
        self,
        task: AnyTask,
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

    def call(self, path: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function on a node by its path, such as `myapp.tasks.process`; returns the id of the task.

        A function that is given stands for its path: see `path_of`.

        `start_task("pytask/call", {"function": path, "args": [...], "kwargs": {...}}, queue=...)` does the same,
        with options.
        """
        return self.start_task(CALL, {"function": path_of(path), "args": args, "kwargs": kwargs})

    def publish(
        self,
        queue: str,
        path: str | Callable[..., Any],
        data: Any = None,
        /,
        *,
        expires: float | str = EXPIRES_IN,
        **options: Any,
    ) -> Any:
        """Call a function by its path with `data` as its one argument; returns the id of the task.

        `expires`: how many seconds it may wait for its start (30 minutes unless given). The other options are
        those of docs/options.md.
        """
        function = {"function": path_of(path), "args": [data]}
        return self.start_task(CALL, function, queue=queue, expires_in=expires, **options)


def path_of(function: object) -> str:
    """The path by which a node finds a function: a path as it is, or that of a function or class of a module.

    A program that is run by its file counts under the name by which others import it. Raises InvalidInputError,
    which says why, for what has no path: a lambda, a function inside another one, a method, a partial, an object.
    """
    if isinstance(function, str):
        return _checked(function)
    bare: Any = getattr(function, "function", function)  # that of a task which was made of it
    if flaw := _flaw(bare):
        raise InvalidInputError(f"{shown(function)} {flaw}: a function is named by its path, in its module")
    return _checked(_original(bare) or f"{importable_name(bare.__module__)}.{bare.__name__}")


def _flaw(function: Any) -> str | None:
    """Why something has no path, in words; None where it has one."""
    if isinstance(function, functools.partial):
        return "is a partial: give the function and its arguments"
    if not callable(function):
        return "is no function"
    owner = getattr(function, "__self__", None)
    if inspect.ismethod(function) or not (owner is None or inspect.ismodule(owner)):
        return "is a method of an object"
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str) or not isinstance(getattr(function, "__module__", None), str):
        return "is an object that can be called, and no function"
    if "<lambda>" in name:
        return "is a lambda"
    if "<locals>" in name:
        return "is defined inside a function"
    if "." in name:
        return "is defined inside a class"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is async, and tasks run in greenlets"
    home = vars(sys.modules[function.__module__]) if function.__module__ in sys.modules else {}
    found = home.get(name, function)
    if function is not found and function is not getattr(found, "function", None):
        return f"is not what {function.__module__} calls {name}"
    return None


def _original(function: Any) -> str:
    """The path of what gevent has put into a module, such as `time.sleep`; empty for everything else."""
    monkey = sys.modules.get("gevent.monkey")
    for module, names in getattr(monkey, "saved", {}).items():
        for name in names:
            if getattr(sys.modules.get(module), name, None) is function:
                return f"{module}.{name}"
    return ""


def _checked(path: str) -> str:
    if not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise InvalidInputError(
            f"a function is named by its path, such as 'myapp.tasks.process', not {shown(path)}"
        )
    return path
