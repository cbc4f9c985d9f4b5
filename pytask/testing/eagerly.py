"""Eager mode: what the helpers start has run, in this process, when they return."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from pytask import states, wire
from pytask.app import PyTask
from pytask.errors import PyTaskError
from pytask.limits import parse_demand
from pytask.states import CLOSED
from pytask.testing.inline import InlineNode
from pytask.workflow import NAME

MOST_TURNS = 100  # starts of one task, by retries and reschedules
FAILED = states.ENDED - {states.SUCCESS, states.SKIPPED}


class EagerHelpers:
    """Put before the class of an app's helpers while the mode stands."""

    eager_mode: EagerMode

    def start_task(self, *args: Any, **kwargs: Any) -> Any:
        """Make a task, push it, and run it."""
        task_id = super().start_task(*args, **kwargs)  # type: ignore[misc]  # it stands before PyTaskHelpers
        self.eager_mode.run([task_id])
        return task_id

    def start_tasks(self, *args: Any, **kwargs: Any) -> Any:
        """Make many tasks, push them, and run them."""
        ids = super().start_tasks(*args, **kwargs)  # type: ignore[misc]
        self.eager_mode.run(ids)
        return ids

    def start_workflow(self, *args: Any, **kwargs: Any) -> Any:
        """Start a workflow, and run all its tasks."""
        handle = super().start_workflow(*args, **kwargs)  # type: ignore[misc]
        self.eager_mode.run_workflow(handle)
        return handle

    def restart_task(self, task_id: Any) -> None:
        """Let a task run again, and run it."""
        super().restart_task(task_id)  # type: ignore[misc]
        self.eager_mode.run([task_id])

    def restart_if_state(self, task_id: Any, *args: Any) -> bool:
        """Let a task run again where its state is one of these, and run it."""
        restarted: bool = super().restart_if_state(task_id, *args)  # type: ignore[misc]
        if restarted:
            self.eager_mode.run([task_id])
        return restarted


class EagerMode:
    """What runs tasks while the mode stands."""

    def __init__(self, app: PyTask, node: InlineNode, propagate: bool) -> None:
        self._app = app
        self._node = node
        self._propagate = propagate

    def run(self, ids: Sequence[str | bytes]) -> None:
        """See tasks to their end; waits are skipped. Raises what the first one raised that failed."""
        for task_id in ids:
            self._run_one(task_id)
        if self._propagate:
            for task_id in ids:
                self._raise(task_id)

    def run_workflow(self, workflow: str) -> None:
        """See a workflow and its tasks to their end. Raises its error, caused by that of a task that failed."""
        helpers = self._app.helpers
        for _ in range(MOST_TURNS):
            self._node.run_until_idle()
            if helpers.get_workflow_state(workflow) in CLOSED:
                break
            if not sum(map(self._wake, self._ids_of(workflow))):
                raise PyTaskError(
                    f"workflow {workflow!r} goes on, but none of its tasks waits in a queue of the app"
                )
        else:
            raise PyTaskError(f"tasks of workflow {workflow!r} were started {MOST_TURNS} times and go on")
        if self._propagate:
            errors = [
                self._node.errors[task_id]
                for task_id in self._ids_of(workflow)[1:]
                if task_id in self._node.errors
            ]
            self._raise(workflow, errors[0] if errors else None)

    def _ids_of(self, workflow: str) -> list[str]:
        """The ids of a workflow, of its tasks in order, and of those of workflows among them."""
        found = [workflow]
        for row in self._app.helpers.get_workflow_tasks(workflow, limit=10_000):
            found += self._ids_of(row["id"]) if row["task"] == NAME else [row["id"]]
        return found

    def _run_one(self, task_id: str | bytes) -> None:
        for _ in range(MOST_TURNS):
            self._node.run_until_idle()
            if not self._wake(task_id):
                return
        raise PyTaskError(f"id {task_id!r} was started {MOST_TURNS} times and goes on")

    def _wake(self, task_id: str | bytes) -> bool:
        """Let a task go on that waits for a time; False where it does not."""
        helpers = self._app.helpers
        state, at, queue, limits = helpers.get_task(task_id, ["state", "at", "queue", "limits"]).values()
        if state not in states.PARKED:
            return False
        self._forget_rates(limits or "")
        raw = wire.id_to_bytes(task_id)
        name = helpers._queue_of((at or "").encode(), (queue or "").encode())
        helpers.store.claims(name).nudge(raw)
        return True

    def _forget_rates(self, limits: str) -> None:
        """What a task waits for may be a start out of a rate: as if that time had passed."""
        store = self._app.helpers.store
        for limit in parse_demand(limits).limits:
            if limit.seconds:
                store.client.execute("DEL", store.keys.limit(limit.label).meter)

    def _raise(self, task_id: str | bytes, cause: BaseException | None = None) -> None:
        state, output = self._app.helpers.get_task(task_id, ["state", "output"]).values()
        error = self._node.errors.get(wire.id_to_str(wire.id_to_bytes(task_id)))
        if state in FAILED:
            raise error or PyTaskError(f"task {task_id!r} ended as {state}: {output}") from cause


@contextlib.contextmanager
def eager(app: PyTask, *, propagate: bool = True, node: InlineNode | None = None) -> Iterator[InlineNode]:
    """Run at once, here, what the app's helpers start: also tasks that are due later, and every retry.

    `propagate`: raise what the task raised, in whoever started it; else look at its state, or at `errors` of the
    node that this yields.
    """
    helpers = app.helpers
    own = type(helpers)
    running = node or InlineNode(app)
    made: Any = type("EagerHelpers", (EagerHelpers, own), {})
    made.eager_mode = EagerMode(app, running, propagate)
    helpers.__class__ = made
    try:
        yield running
    finally:
        helpers.__class__ = own
        if node is None:
            running.close()
