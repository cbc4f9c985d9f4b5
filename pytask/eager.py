"""Running a task in this process, now: without a queue, a node, a server or gevent."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from pytask import states, wire
from pytask.context import current
from pytask.errors import InvalidInputError, UnknownTaskError
from pytask.hooks import Hooks
from pytask.inputs import given_inputs
from pytask.node.building import embody, initialise
from pytask.node.hooks import call_each, run_inside
from pytask.node.outcome import BadInput, judge, success
from pytask.params import check_data
from pytask.task import AnyTask, Task, class_of

OnEvent = Callable[[str, Any], Any]


class EagerContext:
    """What a task reaches that runs here: the app's Redis and helpers, and a list of its events."""

    def __init__(self, app: Any, on_event: OnEvent | None = None, inputs: Mapping[str, Any] | None = None) -> None:
        self._app = app
        self.inputs = given_inputs(inputs)
        self._on_event = on_event
        self.id = secrets.token_hex(16)
        self.fence = 1
        self.attempt = 1
        self.deliveries = self.replica = 0
        self.replicas = 1

    @property
    def redis(self) -> Any:
        """The app's client."""
        return self._app.redis

    @property
    def helpers(self) -> Any:
        """The app's helpers."""
        return self._app.helpers

    def in_thread(self, call: Callable[[], Any]) -> Any:
        """Call it as it is: there is no node that it could block."""
        return call()

    def emit(self, event: str, data: Any) -> None:
        """Hand an event to who listens, as JSON makes it."""
        if event.upper() in states.MOVES:
            raise wire.WireError(f"the event name {event!r} belongs to pytask")
        self._tell(event, data)

    def progress(self, data: Any) -> None:
        """Hand the event `progress` to who listens."""
        self._tell("progress", data)

    def log(self, level: str, logger: str, message: str, when: float) -> None:
        """Hand a line of a log to who listens."""
        self._tell("log", {"level": level, "logger": logger, "message": message, "time": when})

    def print(self, text: str) -> None:
        """What it prints is no event here."""

    def _tell(self, event: str, data: Any) -> None:
        decoded = wire.decode_json(wire.encode_json(data, self._app.settings.max_data))
        if self._on_event is not None:
            self._on_event(event, decoded)


def run_now(
    app: Any,
    task: AnyTask,
    data: Mapping[str, Any],
    on_event: OnEvent | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Any:
    """The output of a task, as JSON makes it; `on_event` is called with name and data of what it emits.

    `inputs`: what `self.inputs` holds, as of a task of a workflow.

    Raises what the task raises, UnknownTaskError, and InvalidInputError for data that does not fit.
    """
    task_class = find_class(app, task)
    checked = check_data(task_class, data)
    arguments = wire.decode_object(wire.encode_json(dict(checked), app.settings.max_data))
    made = embody(task_class, EagerContext(app, on_event, inputs))
    token = current.set(made._context)
    try:
        return _run_with_hooks(app.hooks, made, lambda: _perform(made, arguments, app.settings.max_data))
    finally:
        current.reset(token)


def find_class(app: Any, task: AnyTask) -> type[Task]:
    """The class itself, or the one that is registered by this name."""
    if not isinstance(task, str):
        return class_of(task)  # type: ignore[no-any-return]
    task_class: type[Task] | None = app.known_tasks.get(task)
    if task_class is None:
        raise UnknownTaskError(f"task {task!r} is not registered: add it with add_task")
    return task_class


def _run_with_hooks(hooks: Hooks, task: Task, body: Callable[[], Any]) -> Any:
    call_each(hooks.start, task)
    try:
        value = run_inside(hooks.around, task, body)
    except BaseException as error:
        outcome = judge(error)
        call_each(hooks.end, task, outcome.state, outcome.error)
        raise
    call_each(hooks.end, task, states.SUCCESS, None)
    return value


def _perform(task: Task, data: dict[str, Any], limit: int) -> Any:
    value = None
    with task.provide_context():
        try:
            initialise(task, data)
        except BadInput as error:
            raise InvalidInputError(str(error)) from error.__cause__
        value = task.start()
    return wire.decode_json(success(value, limit).output)
