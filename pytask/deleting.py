"""Deleting: the helpers that remove tasks which have ended, with all that is known of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pytask import states, wire
from pytask.errors import TaskFailed, TaskGone, TaskStateError, TaskTimeout
from pytask.handle import Id
from pytask.store.store import Store
from pytask.workflow import NAME

FORCED_WAIT = 10.0  # seconds for the end of a task that is deleted while it goes on
RELEASE_WAIT, RELEASE_POLL = 2.0, 0.01  # seconds
FIELDS = ("task", "state", "at", "queue", "workflow")


class Deleting:
    """The helpers that delete."""

    store: Store
    get_result: Any  # of Collecting
    stop_task: Any  # of PyTaskHelpers
    get_workflow_state: Callable[[Id], str | None]  # of Conducting
    delete_workflow: Any

    def delete_task(self, task_id: Id, *, force: bool = False) -> bool:
        """Remove a task that has ended: its record, its kept events, and its place in lists; False: there is none.

        With `force` one that waits or runs is stopped first, and waited for, for 10 seconds at most; and one of a
        workflow that goes on may go. The id of a workflow removes it with its tasks, as `delete_workflow` does.
        Raises TaskStateError for one that has not ended, or whose workflow goes on, without `force`.
        """
        raw = wire.id_to_bytes(task_id)
        (record,) = self.store.records.get_each([raw], FIELDS)
        if record is None:
            return False
        if record[0] == NAME.encode():
            return bool(self.delete_workflow(task_id, force=force))
        self._check_workflow(raw, record[4] or b"", force)
        queue = self.store.keys.queue_of_record(record[2] or b"", record[3] or b"")
        state = wire.to_str(record[1] or states.WAIT.encode())
        if state not in states.CLOSED:
            if not force:
                raise TaskStateError(f"task {wire.shown(raw)} is {state}: stop it first, or force it")
            self._end_task_by_force(queue, raw)
        self._wait_for_release(queue, raw)
        self.store.records.remove_each([raw])
        self.store.queues.forget_ended(queue, [raw])
        return True

    def _check_workflow(self, raw: bytes, workflow: bytes, force: bool) -> None:
        """Is it a task of a workflow which may still ask for its output?"""
        if force or not workflow or not raw.startswith(workflow + b":"):
            return
        state = self.get_workflow_state(workflow)
        if state is not None and state not in states.CLOSED:
            raise TaskStateError(
                f"task {wire.shown(raw)} belongs to the workflow {wire.shown(workflow)}, which is {state}:"
                " delete that when it has ended, or force it"
            )

    def _wait_for_release(self, queue: str, raw: bytes) -> None:
        """A node gives its claim up, and enters the id in a list, a moment after the record says how it ended."""
        end = time.monotonic() + RELEASE_WAIT
        while time.monotonic() < end:
            ((claim, _),) = self.store.traces.get_places(queue, [raw])
            if claim is None or claim.startswith(b"-"):
                return
            time.sleep(RELEASE_POLL)

    def _end_task_by_force(self, queue: str, raw: bytes) -> None:
        """Stop it and wait. Where no node sees to that it waits no more; what runs finds its record gone."""
        self.stop_task(raw)
        try:
            self.get_result(raw, FORCED_WAIT)
        except TaskTimeout:
            self.store.queues.take_out(queue, raw)
        except (TaskFailed, TaskGone):
            return
