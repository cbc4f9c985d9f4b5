"""What Taskue's users make and get: tasks and workflows, with the attributes and words that these have there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import islice
from typing import Any

from pytask import states, wire
from pytask.calling import path_of
from pytask.errors import InvalidInputError, SettingError
from pytask.names import queue_label, queue_name_of, shown
from pytask.workflow import ALWAYS, ON_FAILURE, ON_SUCCESS


class Conditions:
    """When a task of a later stage runs."""

    ALWAYS, ON_SUCCESS, ON_FAILURE = ALWAYS, ON_SUCCESS, ON_FAILURE


class TaskStatus:
    """How a task, or a workflow, stands."""

    CREATED, QUEUED, RESCHEDULED, RUNNING = "Created", "Queued", "Rescheduled", "Running"
    PASSED, FAILED, TIMEOUT, SKIPPED, STOPPED = "Passed", "Failed", "Timeout", "Skipped", "Stopped"
    UNDONE_STATES = (CREATED, QUEUED, RESCHEDULED, RUNNING)
    DONE_STATES = (PASSED, FAILED, TIMEOUT, SKIPPED, STOPPED)
    FAILED_STATES = (FAILED, TIMEOUT)


WorkflowStatus = TaskStatus
STATUSES = {
    states.HELD: TaskStatus.CREATED,
    states.WAIT: TaskStatus.QUEUED,
    states.SCHEDULED: TaskStatus.QUEUED,
    states.RETRY: TaskStatus.RESCHEDULED,
    states.RUNNING: TaskStatus.RUNNING,
    states.SUCCESS: TaskStatus.PASSED,
    states.TIMEOUT: TaskStatus.TIMEOUT,
    states.SKIPPED: TaskStatus.SKIPPED,
    states.DISCARDED: TaskStatus.SKIPPED,
    states.STOPPED: TaskStatus.STOPPED,
}


def status_of(state: str | None) -> str:
    """The word for a state; every end that has no word of its own is a failure."""
    return STATUSES.get(state or states.WAIT, TaskStatus.FAILED)


class Task:
    """A task: what it calls, and how it stands once it is enqueued (`task_get` reads that).

    `retries`: further attempts, at once. `tag`: the queue, any text. `timeout`: seconds an attempt may take.
    `allow_rescheduling`: is it started again where its runner dies? `allow_failure` and `when` (one of
    Conditions) count in a workflow.
    """

    uid: str | None = None
    workflow_uid: str | None = None
    runner_uid: str | None = None
    status: str = TaskStatus.CREATED
    result: Any = None
    error: str | None = None
    attempts: int = 0
    rescheduled: int = 0
    created_at: float | None = None
    started_at: float | None = None
    executed_at: float | None = None
    _workload: dict[str, Any] | None = None
    _helpers: Any = None

    def __init__(
        self,
        title: str | None = None,
        retries: int = 0,
        tag: str | None = None,
        timeout: float | None = None,
        allow_failure: bool = False,
        allow_rescheduling: bool = True,
        when: str = Conditions.ON_SUCCESS,
    ) -> None:
        self.title, self.retries, self.tag, self.timeout = title, retries, tag, timeout
        self.allow_failure, self.allow_rescheduling, self.when = allow_failure, allow_rescheduling, when

    def execute(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Say what it calls. Raises InvalidInputError for a function that has no path, such as a lambda."""
        self._workload = {"function": path_of(func), "args": list(args), "kwargs": kwargs}

    enqueue = execute

    @property
    def workload(self) -> dict[str, Any]:
        """What it calls: `function`, `args`, `kwargs`. Raises InvalidInputError where nothing was said."""
        if self._workload is None:
            raise InvalidInputError("the task has nothing to do: say task.execute(function, ...) first")
        return self._workload

    @property
    def options(self) -> dict[str, Any]:
        """The options of its record. Where it has no title, lists show what it calls."""
        return {
            "queue": _queue_of(self.tag),
            "title": self.title or self.workload["function"],
            **({"timeout": self.timeout} if self.timeout else {}),
            **({"retries": self.retries, "retry_delay": 0} if self.retries else {}),
            **({} if self.allow_rescheduling else {"rescheduling": False}),
        }

    @property
    def runner(self) -> str | None:
        """The runner that has it, or had it last."""
        return self.runner_uid

    @cached_property
    def logs(self) -> list[dict[str, Any]]:
        """What it logged, the newest 200 lines: `timestamp`, `level`, `msg` of each. Read when first asked for."""
        return logs_of(self._helpers, self.uid) if self._helpers and self.uid else []

    @property
    def is_done(self) -> bool:
        """Has it ended?"""
        return self.status in TaskStatus.DONE_STATES

    @property
    def is_passed(self) -> bool:
        """Did it succeed?"""
        return self.status == TaskStatus.PASSED

    @property
    def is_failed(self) -> bool:
        """Did it fail, or take too long?"""
        return self.status in TaskStatus.FAILED_STATES

    @classmethod
    def of_record(cls, helpers: Any, uid: str, record: Mapping[str, str]) -> Task:
        """The task that a record tells of."""
        numbers = {name: _number(text) for name, text in record.items()}
        task = cls(
            record.get("title"),
            int(numbers.get("retries") or 0),
            queue_label(record["queue"]) if "queue" in record else None,
            numbers.get("timeout"),
            allow_rescheduling=record.get("rescheduling") != "false",
        )
        task.uid, task.status, task._helpers = uid, status_of(record.get("state")), helpers
        task.workflow_uid, task.runner_uid = record.get("workflow"), record.get("node")
        task.attempts, task.rescheduled = (int(numbers.get(name) or 0) for name in ("attempt", "deliveries"))
        task.created_at, task.started_at = numbers.get("created"), numbers.get("started")
        task.executed_at = numbers.get("ended")
        if task.is_passed:
            task.result = _decoded(record.get("output"))
        elif task.is_done:
            task.error = record.get("output")
        task._workload = _decoded(record.get("data"))
        return task


class Workflow:
    """A workflow as it stands: `uid`, `title`, `status`, `created_at`, `done_at`, its `tasks` and `stages`."""

    def __init__(self, helpers: Any, row: Mapping[str, Any]) -> None:
        self._helpers = helpers
        self.uid, self.title, self.status = row["id"], row["title"], status_of(row["state"])
        self.created_at, self.done_at = row["created"], row["ended"]

    @property
    def is_done(self) -> bool:
        """Has it ended?"""
        return self.status in TaskStatus.DONE_STATES

    @cached_property
    def tasks(self) -> list[dict[str, str | None]]:
        """`uid`, `title` and `status` of each task, in order, the first 10,000. Read when first asked for."""
        rows = self._helpers.get_workflow_tasks(self.uid, limit=10_000)
        return [{"uid": row["id"], "title": row["title"], "status": status_of(row["state"])} for row in rows]

    @property
    def stages(self) -> list[list[dict[str, str | None]]]:
        """The same, a list for each stage."""
        raw = self._helpers.store.workflows.get_spec(self.uid.encode())
        spec = wire.decode_object(raw) if raw else _decoded(self._helpers.get_task(self.uid, "data"))
        tasks = iter(self.tasks)
        stages = spec.get("stages") if isinstance(spec, dict) else None
        sizes = [len(stage) for stage in stages if isinstance(stage, list)] if isinstance(stages, list) else []
        return [list(islice(tasks, size)) for size in sizes]


def logs_of(helpers: Any, uid: str) -> list[dict[str, Any]]:
    """What a task logged, as far as it is kept."""
    lines = helpers.get_logs(uid)
    return [{"timestamp": line["time"], "level": line["level"], "msg": line["message"]} for line in lines]


def _queue_of(tag: object) -> str:
    try:
        return "" if tag is None else queue_name_of(tag)
    except SettingError:
        raise InvalidInputError(f"tag: a tag is text, not {shown(tag)}") from None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:  # whoever wrote the record may have written anything
        return None
    return value if abs(value) < 1e12 else None


def _decoded(text: str | None) -> Any:
    try:
        return wire.decode_json(text.encode("utf-8", "surrogateescape")) if text else None
    except wire.WireError:
        return text
