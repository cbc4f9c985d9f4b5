"""Conducting: the helpers that start workflows, look at them, and remove them.

A workflow is a task `pytask/workflow`, so that what goes for tasks goes for it: waiting, events, stopping. How one
is run stands in `tasks.workflow`; what a spec may say, in `workflow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pytask import states, wire
from pytask.collection import gone
from pytask.composing import spec_of
from pytask.errors import InvalidInputError, TaskFailed, TaskStateError, TaskTimeout
from pytask.handle import Id, WorkflowHandle
from pytask.keys import has_brace
from pytask.pages import start_of_page
from pytask.producing import Classes, make_records, make_row
from pytask.result import WORKFLOW
from pytask.store.store import Store
from pytask.workflow import NAME, Plan, check_ids, id_of, names_of, plan_of

BATCH = 500  # tasks a round trip
CHUNK = 256 * 1024  # bytes of a spec that is written in parts
FORCED_WAIT = 10.0  # seconds for the end of a workflow that is removed while it goes on
FIELDS = ("task", "state", "title", "created", "ended")  # of the record of a workflow's task
COUNTS = ("total", "done", "failed")  # of the workflow's own


class Conducting:
    """The helpers for workflows."""

    store: Store
    queues: tuple[str, ...]
    classes: Classes
    max_data: int
    get_result: Any  # of Collecting
    stop_task: Any  # of PyTaskHelpers

    def start_workflow(
        self,
        tasks: Any,
        /,
        *,
        title: str | None = None,
        returns: str | None = None,
        workflow_id: Id | None = None,
        queue: str | None = None,
        due: float | datetime | None = None,
        delay: float | str | None = None,
        result_ttl: float | str | None = None,
        failure_ttl: float | str | None = None,
        cleanup: bool | None = None,
    ) -> WorkflowHandle:
        """Start a workflow; returns its id, which is also its handle.

        `tasks`: stages, each a list of tasks; or tasks that say with `after` for whom they wait; or a `Workflow`
        (`group`, `chain`), or a spec, as docs/workflows.md tells. `returns`: `list` (the outputs of its last
        tasks) or `one`. The others are options of the workflow itself: `queue` is where its own steps are taken,
        not where its tasks run: the default queue where the app names that, else the first of the app's. A
        `workflow_id` that is there already is left as it is, so that a repeated start does no harm. Raises
        InvalidInputError, which says what is wrong, and TaskStateError for the id of a task that is no workflow.
        """
        spec = spec_of(tasks, self.classes, title=title, returns=returns)
        plan = plan_of(spec)
        self._check_sizes(plan)
        options = {
            "title": plan.title or None, "due": due, "delay": delay,
            "result_ttl": result_ttl, "failure_ttl": failure_ttl, "cleanup": cleanup,
        }  # fmt: skip
        given = {name: value for name, value in options.items() if value is not None}
        task_id = None if workflow_id is None else _check_id(plan, workflow_id)
        return self._start(spec, plan.title, task_id, given, queue)

    def start_group(self, tasks: Iterable[Any], /, **options: Any) -> WorkflowHandle:
        """Start tasks that run beside each other; the output is the list of theirs. See `start_workflow`."""
        return self.start_workflow([list(tasks)], **options)

    def start_chain(self, tasks: Iterable[Any], /, **options: Any) -> WorkflowHandle:
        """Start tasks that run one after the other; the output is that of the last. See `start_workflow`."""
        return self.start_workflow([[task] for task in tasks], **{"returns": "one", **options})

    def _check_sizes(self, plan: Plan) -> None:
        for task in plan.tasks:
            if len(task.words[3]) > self.max_data:
                raise InvalidInputError(
                    f"task {task.name} of the workflow: data has {len(task.words[3])} bytes as JSON;"
                    f" the limit (max_data) is {self.max_data}"
                )

    def _start(
        self,
        spec: Mapping[str, Any],
        title: str,
        task_id: bytes | None,
        options: Mapping[str, Any],
        queue: str | None,
    ) -> WorkflowHandle:
        raw = wire.encode_json(spec)
        chunks = [raw[place : place + CHUNK] for place in range(0, len(raw), CHUNK)]
        small = len(raw) <= self.max_data // 2
        data = spec if small else {"chunks": len(chunks), "title": title}
        home = None if queue is not None or "" in self.queues else self.queues[0]
        row = make_row({}, NAME, data, task_id, options, queue if home is None else home)
        (record,) = make_records([row])
        handle = WorkflowHandle(wire.id_to_str(record.id), self)
        if task_id is not None and self._is_there(task_id):
            return handle
        if not small:
            self.store.workflows.put_spec(record.id, chunks)
        self.store.records.create([(record.id, [*record.words, "state", states.WAIT])])
        self.store.workflows.enter(record.id)
        self.store.queues.push(row.queue, [record.id])
        return handle

    def _is_there(self, task_id: bytes) -> bool:
        """Is there such a workflow? Raises TaskStateError where the id is another task's."""
        (row,) = self.store.records.get_each([task_id], ("task",))
        if row is not None and row[0] != NAME.encode():
            raise TaskStateError(f"the id {wire.shown(task_id)} is that of a task which is no workflow")
        return row is not None

    def workflow(self, workflow_id: Id) -> WorkflowHandle:
        """The handle of any workflow. Nothing is sent."""
        return WorkflowHandle(wire.id_to_str(wire.id_to_bytes(workflow_id)), self)

    # Looking.

    def get_workflow(self, workflow_id: Id) -> dict[str, Any] | None:
        """How a workflow stands; None where there is none.

        A dict of `id`, `title`, `state` (WAIT, RUNNING, SUCCESS, ERROR, STOPPED), `total`, `done`, `failed`
        (numbers of its tasks; None before its first step), `states` (how many ended in each state), `created`,
        `ended` (epoch seconds; None where it goes on) and `output`, its text, where it has ended.
        """
        raw = wire.id_to_bytes(workflow_id)
        (row,) = self._stand([raw])
        if row is not None:
            own = self.store.workflows.get(raw)
            row["states"] = {
                state: int(own[state.encode()]) for state in sorted(states.MOVES) if state.encode() in own
            }
            output = self.store.records.get_fields(raw, ("output",))[0] if row["state"] in states.CLOSED else None
            row["output"] = None if output is None else wire.to_str(output)
        return row

    def get_workflow_state(self, workflow_id: Id) -> str | None:
        """WAIT, RUNNING, SUCCESS, ERROR or STOPPED; None where there is no such workflow."""
        (row,) = self._stand([wire.id_to_bytes(workflow_id)])
        return None if row is None else row["state"]

    def list_workflows(self, *, page: int = 1, limit: int = 100) -> list[dict[str, Any]]:
        """A page of workflows, counted from 1: those that go on, then those that have ended, the newest first.

        Each is a dict as `get_workflow` gives it, without `states` and `output`. At most 10,000 ended ones are
        remembered, and none for longer than its record.
        """
        start = start_of_page(page, limit)
        rows = self._stand(self.store.workflows.get_ids(start, limit))
        return [row for row in rows if row is not None]

    def count_workflows(self) -> int:
        """How many workflows there are, on all pages of the list."""
        return self.store.workflows.count()

    def get_workflow_tasks(self, workflow_id: Id, *, page: int = 1, limit: int = 1000) -> list[dict[str, Any]]:
        """A page of the tasks of a workflow, counted from 1, in its order.

        Each is a dict of `name`, `id`, `task` (its NAME), `title` and `state`; `task` and `title` are None where
        its record is gone or not made yet. Raises TaskGone where there is no such workflow.
        """
        raw = wire.id_to_bytes(workflow_id)
        start = start_of_page(page, limit)
        names, unmade = self._names(raw)
        return self._tasks(raw, names[start : start + limit], unmade)

    def _names(self, raw: bytes) -> tuple[list[str], str]:
        """The names of the tasks, in order (none where there is no spec), and how those stand that are not made.

        Raises TaskGone.
        """
        text = self.store.workflows.get_spec(raw)
        name, data, state = self.store.records.get_fields(raw, ("task", "data", "state"))
        if name != NAME.encode():
            raise gone(raw, WORKFLOW)
        unmade = states.SKIPPED if state in states.CLOSED_RAW else states.HELD
        try:
            return names_of(wire.decode_object(text or data or b"{}")), unmade
        except InvalidInputError:  # a producer may have written anything
            return [], unmade

    def _tasks(self, raw: bytes, names: Sequence[str], unmade: str) -> list[dict[str, Any]]:
        rows = []
        for start in range(0, len(names), BATCH):
            some = names[start : start + BATCH]
            ids = [id_of(raw, name) for name in some]
            records = self.store.records.get_each(ids, ("task", "title", "state"))
            noted = self.store.workflows.get_noted(raw, some)
            for name, task_id, record, row in zip(some, ids, records, noted, strict=True):
                task, title, state = [None if v is None else wire.to_str(v) for v in record or (None,) * 3]
                known = unmade if row is None else row.state
                rows.append(
                    {
                        "name": name,
                        "id": wire.id_to_str(task_id),
                        "task": task,
                        "title": title,
                        "state": state or known,
                    }
                )
        return rows

    def _stand(self, ids: Sequence[bytes]) -> list[dict[str, Any] | None]:
        """How workflows stand; None for each of which there is no record, or that of another task."""
        if not ids:
            return []
        records = self.store.records.get_each(ids, FIELDS)
        own = self.store.workflows.get_each(ids, COUNTS)
        return [
            _row(task_id, record, counts) if record and record[0] == NAME.encode() else None
            for task_id, record, counts in zip(ids, records, own, strict=True)
        ]

    def wait_for_workflow(self, workflow_id: Id, timeout: float | None = None) -> str:
        """Wait until a workflow has ended, for `timeout` seconds at most; the state that it ended in.

        Raises TaskTimeout, and TaskGone where there is no record.
        """
        try:
            self.get_result(self.workflow(workflow_id), timeout)
        except TaskFailed as error:
            return error.state
        return states.SUCCESS

    # Removing.

    def delete_workflow(self, workflow_id: Id, *, force: bool = False) -> bool:
        """Remove a workflow that has ended, with the records of its tasks; False where there is none.

        With `force` one that goes on is stopped first, and waited for, for 10 seconds at most. Raises
        TaskStateError for one that goes on, without `force`.
        """
        raw = wire.id_to_bytes(workflow_id)
        state = self.get_workflow_state(workflow_id)
        if state is None:
            self.store.workflows.remove(raw)
            return False
        if state not in states.CLOSED:
            if not force:
                raise TaskStateError(f"the workflow {wire.shown(raw)} is {state}: stop it first, or force it")
            self._end_workflow_by_force(raw)
        self.store.expiry.remove_workflow(raw)
        return True

    def _end_workflow_by_force(self, raw: bytes) -> None:
        self.stop_task(raw)
        try:
            self.wait_for_workflow(raw, FORCED_WAIT)
        except TaskTimeout:  # no node lives, or a task does not stop: its run ends where its record is gone
            at, queue = self.store.records.get_fields(raw, ("at", "queue"))
            self.store.queues.take_out(self.store.keys.queue_of_record(at or b"", queue or b""), raw)


class Conductor(Conducting):
    """These helpers alone, for who has no others."""

    def __init__(self, store: Store, queues: tuple[str, ...], classes: Classes, max_data: int) -> None:
        self.store = store
        self.queues = queues
        self.classes = classes
        self.max_data = max_data


def _check_id(plan: Plan, workflow_id: Id) -> bytes:
    raw = wire.id_to_bytes(workflow_id)
    if has_brace(raw):
        raise InvalidInputError(f"the id of a workflow has no brace: {wire.shown(raw)}")
    check_ids(plan, raw)
    return raw


def _row(task_id: bytes, record: Sequence[bytes | None], counts: Sequence[bytes | None]) -> dict[str, Any]:
    _, state, title, *times = record
    total, done, failed = map(_number, counts)
    created, ended = map(_seconds, times)
    told = wire.to_str(state or states.WAIT.encode())
    return {
        "id": wire.id_to_str(task_id),
        "title": wire.to_str(title or b""),
        "state": told if told in states.CLOSED or total is None else states.RUNNING,
        "total": total,
        "done": done,
        "failed": failed,
        "created": created,
        "ended": ended,
    }


def _number(raw: bytes | None) -> int | None:
    return int(raw) if raw is not None and raw.isdigit() else None


def _seconds(raw: bytes | None) -> float | None:
    try:
        return None if raw is None else float(raw)
    except ValueError:  # a producer may have written anything
        return None
