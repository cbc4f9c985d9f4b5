"""Task: what users subclass. What a node gives to a running task comes through its context.

Nothing here talks to a server; a task can be made and started by hand in a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from pytask.errors import InvalidInputError, PyTaskError, TaskDefinitionError

NAME_RULE = re.compile(r"[A-Za-z0-9_./:-]{1,200}")
EVENT_RULE = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")


class TaskContext(Protocol):
    """What a running task can reach: set by the node before `__init__` runs."""

    @property
    def id(self) -> str:
        """The task's id."""

    @property
    def fence(self) -> int:
        """The fence of the claim."""

    @property
    def attempt(self) -> int:
        """Which attempt, from 1."""

    @property
    def deliveries(self) -> int:
        """How many starts a node's death ended."""

    @property
    def redis(self) -> Any:
        """A redis-py client for the task's own use."""

    @property
    def helpers(self) -> Any:
        """The helpers of the app."""

    def emit(self, event: str, data: Any) -> None:
        """Send an event."""


class Task:
    """One kind of work. A subclass sets `NAME`, takes its data in `__init__` and works in `start`.

    ::

        class Fetch(Task):
            NAME = "fetch"

            def __init__(self, url):
                self.url = url

            def start(self):
                return requests.get(self.url).status_code

    A task runs in a greenlet of its own; `self.id`, `self.emit` and the rest work from `__init__` on.

    Class attributes: `NAME`, by which producers call it; `forever`, true for work that never ends by
    itself: a node that stops returns it to the queue at once; `rescheduling`, false for work that must never
    be started a second time by itself: it ends as LOST where its node dies or ends first; `local_only`, true for
    a task that `start_local_task` alone may start and no producer.
    """

    NAME: ClassVar[str] = ""
    forever: ClassVar[bool] = False
    rescheduling: ClassVar[bool] = True
    local_only: ClassVar[bool] = False

    _context: TaskContext | None = None

    class Error(PyTaskError):
        """Raise it in a task to end it as ERROR; its text becomes the output."""

    def __init__(self) -> None:
        """Take the data: the keys of the JSON object are keyword arguments. Without data there are none."""

    def start(self) -> Any:
        """Do the work. What it returns is the output, as JSON (at most `max_data` bytes)."""
        raise NotImplementedError

    def stop(self) -> None:
        """Asked to stop: end what `start` does, softly. Afterwards the greenlet is killed.

        Called in another greenlet than `start`; may block, for up to 5 seconds.
        """

    @staticmethod
    def provide_context() -> contextlib.AbstractContextManager[Any]:
        """A context manager, made once a task, around `__init__`, `start` and `stop`."""
        return contextlib.nullcontext()

    def emit(self, event: str, data: Any = None) -> None:
        """Send an event to whoever listens on `task-<id>`: `{"event": event, "data": data}`.

        Returns at once; waits only while 10,000 events of the node are unsent. Raises InvalidInputError
        for a name that is no event name or belongs to pytask, and for data that JSON cannot hold.
        """
        name: object = event
        if not (isinstance(name, str) and EVENT_RULE.fullmatch(name)):
            raise InvalidInputError("an event name is 1 to 100 characters of A-Z a-z 0-9 _ . : / -")
        self._running.emit(event, data)

    @property
    def _running(self) -> TaskContext:
        if self._context is None:
            raise PyTaskError(f"{type(self).__name__} is not running on a node: it has no id, redis or helpers")
        return self._context

    @property
    def id(self) -> str:
        """The task's id."""
        return self._running.id

    @property
    def fence(self) -> int:
        """A number that grows with every claim of the id: hand it to systems of your own to refuse old runs."""
        return self._running.fence

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._running.attempt

    @property
    def deliveries(self) -> int:
        """How many earlier starts were ended by the death of a node."""
        return self._running.deliveries

    @property
    def redis(self) -> Any:
        """A redis-py client (replies in bytes), shared by the tasks of the node."""
        return self._running.redis

    @property
    def helpers(self) -> Any:
        """The helpers of the app, a `PyTaskHelpers`."""
        return self._running.helpers


def check_task_class(task_class: object) -> type[Task]:
    """The class itself where it can be registered. Raises TaskDefinitionError, which says what is wrong."""
    if not (inspect.isclass(task_class) and issubclass(task_class, Task)):
        raise TaskDefinitionError(f"add_task takes a subclass of pytask.Task, not {task_class!r}")
    label = f"task class {task_class.__module__}.{task_class.__qualname__}"
    name: object = task_class.NAME
    if not isinstance(name, str) or not name:
        raise TaskDefinitionError(f"{label} has no NAME: set NAME = 'some-name' in the class")
    if not NAME_RULE.fullmatch(name):
        raise TaskDefinitionError(
            f"{label}: NAME {name[:50]!r} must be 1 to 200 characters of A-Z a-z 0-9 _ . / : -"
        )
    if task_class.start is Task.start or not callable(task_class.start):
        raise TaskDefinitionError(f"{label} has no start(): define what the task does")
    _refuse_coroutine(label, "start", task_class.start)
    _refuse_coroutine(label, "stop", task_class.stop)
    return task_class


def _refuse_coroutine(label: str, name: str, function: Callable[..., Any]) -> None:
    if asyncio.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{label}: {name} is async, tasks run in greenlets: write a plain `def {name}`")


def takes_stop(task_class: type[Task]) -> bool:
    """Does the class define a `stop` of its own?"""
    return task_class.stop is not Task.stop
