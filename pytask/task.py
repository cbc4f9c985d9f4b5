"""Task: what users subclass. What a node gives to a running task comes through its context.

Nothing here talks to a server; a task can be made and started by hand in a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

from pytask.errors import InvalidInputError, PyTaskError, TaskDefinitionError
from pytask.inputs import Inputs, given_inputs
from pytask.names import TASK_NAME, shown
from pytask.options import OPTIONS, check_class
from pytask.params import check_definition
from pytask.retry import Exponential

EVENT_RULE = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")
MOST_NOTE = 1000  # characters
Exceptions = type[BaseException] | str | Sequence[type[BaseException] | str]


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
    def replica(self) -> int:
        """Its number among the replicas of its service."""

    @property
    def replicas(self) -> int:
        """How many replicas its service has."""

    @property
    def redis(self) -> Any:
        """A redis-py client for the task's own use."""

    @property
    def helpers(self) -> Any:
        """The helpers of the app."""

    @property
    def inputs(self) -> Inputs:
        """What the tasks of the workflow returned that this one waited for."""

    def emit(self, event: str, data: Any) -> None:
        """Send an event."""

    def in_thread(self, call: Callable[[], Any]) -> Any:
        """Call it in a thread."""

    def progress(self, data: Any) -> None:
        """Tell how far the task is."""


class Leave(Exception):
    """A task that steers others ends its run with it: HELD until it is pushed again, or STOPPED.

    `stops`: it has told the others to stop. Where it has not, and a stop comes at the last moment, it is pushed
    again.
    Not for tasks of users: nobody pushes what is HELD but the node that ends one of the others.
    """

    def __init__(self, state: str, *, stops: bool = False) -> None:
        super().__init__(state)
        self.state = state
        self.stops = stops


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
    itself: a node that stops returns it to the queue at once; `local_only`, true for a task that
    `start_local_task` alone may start and no producer. The others are the defaults of options, None where there
    is none: docs/options.md tells each with its unit. A record's own field goes before them.
    """

    NAME: ClassVar[str] = ""
    forever: ClassVar[bool] = False
    local_only: ClassVar[bool] = False
    steers: ClassVar[bool] = False  # of our own: it begins again while it is HELD, and obeys a stop by itself

    queue: ClassVar[str | None] = None
    delay: ClassVar[float | str | None] = None
    expires_in: ClassVar[float | str | None] = None
    timeout: ClassVar[float | str | None] = None
    retries: ClassVar[int | None] = None
    retry_delay: ClassVar[float | str | Sequence[float | str] | Exponential | None] = None
    retry_on: ClassVar[Exceptions | None] = None
    no_retry_on: ClassVar[Exceptions | None] = None
    result_ttl: ClassVar[float | str | None] = None
    failure_ttl: ClassVar[float | str | None] = None
    cleanup: ClassVar[Any] = None  # a bool; a method of this name is the class's own
    rescheduling: ClassVar[bool | None] = None
    unique: ClassVar[bool | str | None] = None
    max_running: ClassVar[int | None] = None
    concurrency_key: ClassVar[str | None] = None
    max_running_per_key: ClassVar[int | None] = None
    rate: ClassVar[str | None] = None
    rate_key: ClassVar[str | None] = None
    title: ClassVar[str | None] = None

    Params: ClassVar[Any] = None  # a pydantic model of the data, or anything with model_validate
    validate: ClassVar[bool] = False  # check the data against the annotations of __init__, with pydantic
    params: Any = None  # the data as `Params` made it

    _context: Any = None  # a TaskContext

    class Error(PyTaskError):
        """Raise it in a task to end it as ERROR; its text becomes the output."""

    class Retry(PyTaskError):
        """Raise it in a task to be tried again: `raise self.Retry("no answer", after=10)`.

        `after` in seconds; None leaves it to `retry_delay`. Where `retries` is set and used up it ends as ERROR.
        """

        def __init__(self, message: str = "another attempt is asked for", *, after: float | None = None) -> None:
            super().__init__(message)
            self.after: float | None = None if after is None else OPTIONS["delay"].check(after)

    class Discard(PyTaskError):
        """Raise it in a task to end it as DISCARDED; its text becomes the output."""

    def __init__(self) -> None:
        """Take the data: the keys of the JSON object are keyword arguments. Without data there are none."""

    def start(self) -> Any:
        """Do the work. What it returns is the output, as JSON (at most `max_data` bytes)."""
        raise NotImplementedError

    def stop(self) -> None:
        """Asked to stop: end what `start` does, softly. Afterwards the greenlet is killed.

        Called in another greenlet than `start`; may block, for up to 5 seconds.
        """

    def get_retry_interval(self, exception: BaseException) -> float | None:  # noqa: ARG002 - for who overrides it
        """Seconds to wait before the next attempt after this exception; None for no further attempt.

        Where a class defines it, it decides in place of `retry_on` and `retry_delay`; `retries`, where that is
        set, still is the most. After a timeout the exception is a TimeoutError. It may raise `self.Discard`, too:
        the task ends as DISCARDED.
        """
        return None

    def on_message(self, message: dict[str, Any]) -> None:
        """Take a JSON object that was sent to `task-<id>-control`. Called in a greenlet of its own, one at a time.

        What it raises is told of in the log and by an event `message-failed`; the task goes on.
        """
        raise NotImplementedError

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

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Tell how far the task is: event `progress` with these three, and the record's field `progress`.

        May be called as often as it is convenient: at most ten a second are sent, the last one in any case.
        Raises InvalidInputError where `done` or `total` is no number of 0 or more, or `note` is no text.
        """
        told = {"done": _amount("done", done), "total": _total(total), "note": _note(note)}
        self._running.progress(told)

    def in_thread(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function that would block the node, in a thread, while this greenlet alone waits.

        Returns what it returns and raises what it raises. At most `threads` (a setting) run at once, others wait.
        A stop ends the waiting at once; the function itself goes on to its end, and what it returns is dropped.
        Context variables are seen in it, `self` must not be used in it. Without a node it is called as it is.
        """
        call = functools.partial(function, *args, **kwargs)
        context: TaskContext | None = self._context
        return call() if context is None else context.in_thread(call)

    @property
    def _running(self) -> TaskContext:
        context: TaskContext | None = self._context
        if context is None:
            raise PyTaskError(f"{type(self).__name__} is not running on a node: it has no id, redis or helpers")
        return context

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

    @cached_property  # which a task may set, as it may any attribute
    def inputs(self) -> Inputs:
        """In a workflow: what the tasks returned that this one waited for, by name, in order; else empty.

        A mapping. Those are in it that ended in SUCCESS; `self.inputs.states` says how each of them ended. They
        are read when one is first asked for, and kept; raises StoreUnavailable where they cannot be read.
        """
        return given_inputs(None) if self._context is None else self._running.inputs

    @property
    def replica(self) -> int:
        """Which replica of its service this is, from 0; 0 where it is none."""
        return self._running.replica

    @property
    def replicas(self) -> int:
        """How many replicas its service has now: it may change while the task runs. 1 where it is none."""
        return self._running.replicas

    @property
    def redis(self) -> Any:
        """A redis-py client (replies in bytes), shared by the tasks of the node."""
        return self._running.redis

    @property
    def helpers(self) -> Any:
        """The helpers of the app, a `PyTaskHelpers`."""
        return self._running.helpers


def _amount(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidInputError(f"progress: {name} is a number of 0 or more, not {shown(value)}")
    return value


def _total(value: object) -> float | None:
    return None if value is None else _amount("total", value)


def _note(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= MOST_NOTE):
        raise InvalidInputError(f"progress: note is text of at most {MOST_NOTE} characters, not {shown(value)}")
    return value


class FunctionAsTask(Protocol):
    """A function that is a task as well: what `task_app.task` makes."""

    @property
    def task(self) -> type[Task]:
        """Its class."""

    def to_data(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The data of a task with these arguments."""


AnyTask = str | type[Task] | FunctionAsTask
"""How a task may be given: its name, its class, or a function that is one."""


def class_of(task: Any) -> Any:
    """The class of a function that is a task; anything else as it is."""
    return task.task if not isinstance(task, type) and hasattr(task, "to_data") else task


def check_task_class(task_class: object) -> type[Task]:
    """The class itself where it can be registered. Raises TaskDefinitionError, which says what is wrong."""
    if not (inspect.isclass(task_class) and issubclass(task_class, Task)):
        raise TaskDefinitionError(f"add_task takes a subclass of pytask.Task, not {task_class!r}")
    label = f"task class {task_class.__module__}.{task_class.__qualname__}"
    name: object = task_class.NAME
    if not isinstance(name, str) or not name:
        raise TaskDefinitionError(f"{label} has no NAME: set NAME = 'some-name' in the class")
    if not TASK_NAME.fullmatch(name):
        raise TaskDefinitionError(
            f"{label}: NAME {name[:50]!r} must be 1 to 200 characters of A-Z a-z 0-9 _ . / : -"
        )
    if task_class.start is Task.start or not callable(task_class.start):
        raise TaskDefinitionError(f"{label} has no start(): define what the task does")
    _refuse_coroutine(label, "start", task_class.start)
    _refuse_coroutine(label, "stop", task_class.stop)
    try:
        check_class(task_class)
    except InvalidInputError as error:
        raise TaskDefinitionError(f"{label}: {error}") from None
    check_definition(label, task_class)
    return task_class


def _refuse_coroutine(label: str, name: str, function: Callable[..., Any]) -> None:
    if asyncio.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{label}: {name} is async, tasks run in greenlets: write a plain `def {name}`")


def takes_messages(task_class: type[Task]) -> bool:
    """Does the class define `on_message`?"""
    return task_class.on_message is not Task.on_message


def takes_stop(task_class: type[Task]) -> bool:
    """Does the class define a `stop` of its own?"""
    return task_class.stop is not Task.stop
