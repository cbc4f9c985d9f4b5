"""What enqueues tasks and workflows of Taskue, waits for them, lists and deletes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytask.app import PyTask
from pytask.calling import CALL
from pytask.compat.taskue.told import Task, TaskStatus, Workflow
from pytask.composing import step
from pytask.errors import InvalidInputError, TaskFailed, TaskGone, TaskNotFoundError, TaskTimeout

STEERING = "taskue.workflows"  # the queue in which workflows take their steps: every runner serves it
TimeoutException = TaskTimeout


class TaskNotFound(TaskNotFoundError):
    """There is no task with this uid, or its record is not kept any more."""


class WorkflowNotFound(TaskNotFoundError):
    """The same of a workflow."""


class Taskue:
    """What enqueues, and looks: the producer's side. `redis_conn`: a client, or whatever PyTask takes."""

    def __init__(self, redis_conn: Any = None, namespace: str | None = None) -> None:
        self._app = PyTask(redis_conn, namespace=namespace)

    def pytask_app(self) -> PyTask:
        """The app behind it."""
        return self._app

    @property
    def _helpers(self) -> Any:
        return self._app.helpers

    def enqueue(self, task: Task | Sequence[Sequence[Task]], title: str | None = None) -> str:
        """Enqueue one task, or stages of tasks as a workflow; the uid. Raises InvalidInputError."""
        if isinstance(task, Task):
            task.uid = str(self._helpers.start_task(CALL, task.workload, **task.options))
            task.status = TaskStatus.QUEUED
            return task.uid
        stages = [_stage(stage) for stage in task]
        steps = [[_step(one) for one in stage] for stage in stages]
        workflow = str(self._helpers.start_workflow(steps, title=title, queue=STEERING))
        for number, one in enumerate(one for stage in stages for one in stage):
            one.uid, one.workflow_uid = f"{workflow}:{number}", workflow
        return workflow

    # Tasks.

    def task_get(self, uid: str) -> Task:
        """A task as it stands. Raises TaskNotFound."""
        record = self._helpers.get_task(uid)
        if record is None:
            raise TaskNotFound(f"there is no task {uid!r}")
        return Task.of_record(self._helpers, uid, record)

    def task_wait(self, uid: str, timeout: float | None = None) -> Task:
        """Wait until a task has ended; the task. Raises TimeoutException after `timeout` seconds, TaskNotFound."""
        self._wait(self._helpers.get_result, uid, timeout, TaskNotFound)
        return self.task_get(uid)

    def tasks_list(self, page: int = 1, limit: int = 25) -> list[Task]:
        """A page of all tasks, wherever they stand; those whose records are gone are passed over."""
        rows = self._helpers.list_tasks(page=page, limit=limit)
        uids = [row["id"] for row in rows if row["state"] is not None]
        records = zip(uids, self._helpers.get_tasks(uids), strict=True)
        return [Task.of_record(self._helpers, uid, record) for uid, record in records if record]

    def tasks_count(self) -> int:
        """How many tasks there are, waiting, running, due, held and ended."""
        return int(self._helpers.count_tasks())

    def task_delete(self, uid: str) -> None:
        """Remove a task that has ended. Raises TaskNotFound, and TaskStateError for one that has not."""
        if not self._helpers.delete_task(uid):
            raise TaskNotFound(f"there is no task {uid!r}")

    # Workflows.

    def workflow_get(self, uid: str) -> Workflow:
        """A workflow as it stands. Raises WorkflowNotFound."""
        row = self._helpers.get_workflow(uid)
        if row is None:
            raise WorkflowNotFound(f"there is no workflow {uid!r}")
        return Workflow(self._helpers, row)

    def workflow_wait(self, uid: str, timeout: float | None = None) -> Workflow:
        """Wait until a workflow has ended; the workflow. Raises TimeoutException, WorkflowNotFound."""
        self._wait(self._helpers.wait_for_workflow, uid, timeout, WorkflowNotFound)
        return self.workflow_get(uid)

    def workflow_list(self, page: int = 1, limit: int = 25) -> list[Workflow]:
        """A page of workflows, the newest first: those that go on, then those that have ended."""
        return [Workflow(self._helpers, row) for row in self._helpers.list_workflows(page=page, limit=limit)]

    def workflow_count(self) -> int:
        """How many workflows there are, on all pages."""
        return int(self._helpers.count_workflows())

    def workflow_delete(self, uid: str) -> None:
        """Remove a workflow that has ended, with its tasks. Raises WorkflowNotFound, TaskStateError."""
        if not self._helpers.delete_workflow(uid):
            raise WorkflowNotFound(f"there is no workflow {uid!r}")

    def _wait(
        self, wait: Callable[[str, float | None], Any], uid: str, timeout: float | None, missing: type[Exception]
    ) -> None:
        try:
            wait(uid, timeout)
        except TaskFailed:
            return
        except TaskGone:
            raise missing(f"there is no record of {uid!r}, or none any more") from None


def _stage(stage: object) -> list[Task]:
    if isinstance(stage, list | tuple) and all(isinstance(task, Task) for task in stage):
        return list(stage)
    raise InvalidInputError("enqueue takes a Task, or a list of stages, each of which is a list of Tasks")


def _step(task: Task) -> Any:
    return step(CALL, task.workload, when=task.when, allow_failure=task.allow_failure, **task.options)
