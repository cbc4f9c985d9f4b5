"""Workflow: the task `pytask/workflow`, which steers the tasks of one workflow. Its data is the spec.

It runs only where there is something to do, a moment each time:

1. Its first run makes a plan of the spec, writes it down, and makes the records of all tasks, in batches: HELD,
   but for the first ones, which are pushed.
2. Then it ends its run as HELD: no greenlet, no claim. The node on which a task ends notes that in the workflow's
   slot (`step`), and pushes the workflow's id where something has become ready, or all have ended.
3. The next run lets go what is ready, or skips it, and is HELD again, or ends: as SUCCESS, ERROR or STOPPED.

Every step can be repeated: a node that dies in the middle leaves a claim, and the next one does it again. A push
that is repeated does no harm. The sweep pushes workflows that did not move for a while, which are then compared
with the records of their tasks.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

from greenlet import GreenletExit  # gevent's own; so it is there without gevent

from pytask import points, states, wire
from pytask.errors import InvalidInputError, StoreError
from pytask.keys import has_brace
from pytask.settings import Settings
from pytask.store.store import Store
from pytask.store.workflows import Noted
from pytask.task import Leave, Task
from pytask.tasks.summing_up import name_failures, sum_up
from pytask.workflow import (
    ALWAYS,
    NAME,
    ON_FAILURE,
    Gate,
    Plan,
    PlanTask,
    check_ids,
    decode_gate,
    encode_gate,
    id_of,
    plan_of,
    sinks,
)

BATCH = 500  # tasks
MOST_GATES = 50  # that are read at once
STOPPED = "its workflow was stopped"
REMOVED = "it was removed while it went on"
NOTHING_FAILED = "it runs only where something before it failed, and nothing did"
SOMETHING_FAILED = "something before it failed"
# How far a stop is (the field `stops`): tasks are being told; have been; have been, and a restart called it off
BEGUN, TOLD, CALLED_OFF = b"0", b"1", b"2"


class Workflow(Task):
    """Steers a workflow. The spec is its data; that of a large one stands in parts of its own: `chunks`."""

    NAME = NAME
    steers = True
    keep_ended: ClassVar[int] = 10_000  # of a queue, as the node's settings say
    max_data: ClassVar[int] = 1_048_576  # bytes of an output

    def __init__(self, **spec: Any) -> None:
        self.spec = spec
        self.store = self.helpers.store.with_patience(None)  # an outage must not end a workflow
        self.patient = copy(self.helpers)
        self.patient.store = self.store
        self.flows = self.store.workflows
        self.raw_id = wire.id_to_bytes(self.id)
        self.stops = False  # seen in this run
        self.ends = False  # nothing more of it begins: it is stopped, or was and has been restarted since
        self.obeyed = False  # all tasks that were open have been told
        self.round = b""  # after a restart

    def start(self) -> Any:
        """Do what is to be done now. Returns at the end of the workflow, else raises Leave."""
        if has_brace(self.raw_id):
            raise self.Error("the id of a workflow must not have a brace: its keys would lie in different slots")
        record = self.flows.get(self.raw_id)
        if self._was_restarted(record):
            record = self._begin_anew()
        self.round = record.get(b"round", b"")
        if b"laid" not in record and self._is_to_stop():
            self.flows.close(self.raw_id)
            raise Leave(states.STOPPED)
        if b"made" not in record:
            self._make(self._plan())
        self._go_on(record)
        return self._end()

    def _was_restarted(self, record: Mapping[bytes, bytes]) -> bool:
        """Has an earlier attempt ended it? One that died or was put back meanwhile had the number of this one."""
        if b"cut" in record:
            return True
        return record.get(b"state") in states.CLOSED_RAW and record.get(b"attempt") != b"%d" % self.attempt

    def _begin_anew(self) -> dict[bytes, bytes]:
        """Forget how it went; returns what its record says then."""
        self.store.expiry.remove_tasks(self.raw_id)
        self.flows.reopen(self.raw_id, self.fence)
        return {b"round": b"%d" % self.fence}

    # The beginning.

    def _plan(self) -> Plan:
        spec: object = self.spec
        if set(self.spec) <= {"chunks", "title"} and "chunks" in self.spec:
            text = self.flows.get_spec(self.raw_id)
            if not text:
                raise self.Error("the parts of its spec are not there")
            spec = self._decoded(text)
        try:
            plan = plan_of(spec)
            check_ids(plan, self.raw_id)
        except InvalidInputError as error:
            raise self.Error(str(error)) from None
        return plan

    def _decoded(self, text: bytes) -> object:
        try:
            return wire.decode_object(text)
        except wire.WireError as error:
            raise self.Error(f"its spec cannot be read: {error}") from None

    def _make(self, plan: Plan) -> None:
        """Write the plan down, then make its tasks. Done again from the start where a node died meanwhile."""
        try:
            self._lay_out(plan)
            self._make_tasks(plan)
            if not self.flows.note(self.raw_id, made=1) or self._is_removed(self.store):
                self._withdraw(plan)
        except GreenletExit:  # at any moment, since its node finds out too that the record is gone
            with contextlib.suppress(StoreError):
                if self._is_removed(self.helpers.store.with_patience(0)):
                    self._withdraw(plan)
            raise

    def _lay_out(self, plan: Plan) -> None:
        tasks = {task.name: _noted(task) for task in plan.tasks}
        gates = [(encode_gate(gate).decode(), gate.needs) for gate in plan.gates]
        points.reach("before-lay-out")
        self.flows.lay_out(self.raw_id, tasks, gates, self._fields(plan))
        self.flows.enter(self.raw_id)
        points.reach("after-lay-out")

    def _make_tasks(self, plan: Plan) -> None:
        skipped: list[str] = []
        for batch in _batches(plan.tasks, BATCH):
            self.store.records.create([(id_of(self.raw_id, task.name), self._words(task)) for task in batch])
            self._push((task.name, self._queue_of(task)) for task in batch if _is_first(task))
            skipped += [task.name for task in batch if task.gate < 0 and not _is_first(task)]
            points.reach("in-workflow")
            if not self.flows.is_laid_out(self.raw_id):
                return
        self._skip(skipped, NOTHING_FAILED)

    def _is_removed(self, store: Store) -> bool:
        """Has its own record been removed, which a deletion does last?"""
        return store.records.get_each([self.raw_id], ["task"]) == [None]

    def _withdraw(self, plan: Plan) -> None:
        """It was removed while its tasks were made: remove these too, and what a deletion has left."""
        for batch in _batches(plan.tasks, BATCH):
            self.store.records.remove_each([id_of(self.raw_id, task.name) for task in batch])
        if self._is_removed(self.store):
            self.flows.remove(self.raw_id)

    def _fields(self, plan: Plan) -> dict[str, Any]:
        last = [plan.tasks[number].name for number in sinks(plan)]
        now = wire.encode_time(time.time())
        return {
            "laid": self.fence,
            "title": plan.title,
            "state": states.RUNNING,
            "created": now,
            "touched": now,
            "total": len(plan.tasks),
            "done": 0,
            "failed": 0,
            "returns": plan.returns,
            "queue": self.own_queue,
            "last": encode_gate(Gate(len(last), last, [])),
        }

    @cached_property
    def own_queue(self) -> str:
        """The queue in which its steps are taken."""
        at = self.store.records.get_fields(self.raw_id, ["at"])[0] or b""
        return self.store.keys.queue_of_key(at) or ""

    def _words(self, task: PlanTask) -> list[Any]:
        """The fields of a task's record."""
        queue = self._queue_of(task)
        words = [*task.words, "workflow", self.raw_id, "created", wire.encode_time(time.time())]
        if queue and not task.queue:
            words += ["queue", queue]
        if self.round:
            words += ["round", self.round]
        return [*words, "state", states.WAIT if _is_first(task) else states.HELD]

    def _queue_of(self, task: PlanTask) -> str:
        """The queue that the spec says, else the task's class, where this node knows it.

        A workflow inside takes its steps where this one does.
        """
        if task.queue:
            return task.queue
        if task.task == NAME:
            return self.own_queue
        known = self.helpers.classes.get(task.task)
        queue = getattr(known, "queue", None)
        return queue if isinstance(queue, str) else ""

    def _push(self, rows: Iterable[tuple[str, str]]) -> None:
        """Push tasks (name, queue)."""
        queues: dict[str, list[bytes]] = defaultdict(list)
        for name, queue in rows:
            queues[queue].append(id_of(self.raw_id, name))
        for queue, ids in queues.items():
            self.store.queues.push(queue, ids)

    # In between.

    def _go_on(self, record: Mapping[bytes, bytes]) -> None:
        """Let go what is ready, or skip it."""
        self.stops = self._is_to_stop()
        self.ends = self.stops or b"stops" in record
        if self.ends:
            self._end_tasks(record.get(b"stops"))
        self.obeyed = self.stops
        if b"check" in record:
            self._compare()
        while opened := self.flows.get_ready(self.raw_id, MOST_GATES):
            for number, row, failed in opened:
                self._open(row, failed)
                points.reach("in-workflow")
                self.flows.drop_ready(self.raw_id, number)
            if not self.ends and self._is_to_stop():
                self.stops = self.ends = True
                self.flows.note(self.raw_id, stops=BEGUN)

    def _is_to_stop(self) -> bool:
        return bool(self.store.records.get_fields(self.raw_id, ["control"])[0] == b"stop")

    def _open(self, row: bytes, failed: bool) -> None:
        """The tasks that waited at a gate run, or are skipped."""
        for names in _batches(decode_gate(row).tasks, BATCH):
            noted = dict(zip(names, self.flows.get_noted(self.raw_id, names), strict=True))
            waiting = [name for name, found in noted.items() if found and found.state == states.HELD]
            run = [] if self.ends else [name for name in waiting if _runs(noted[name], failed)]
            chosen = set(run)
            self._release(run)
            self._skip([name for name in waiting if name not in chosen], self._reason(failed))
            if not self.ends:
                self.emit("opened", {"tasks": len(run), "skipped": len(waiting) - len(run)})

    def _reason(self, failed: bool) -> str:
        return STOPPED if self.ends else SOMETHING_FAILED if failed else NOTHING_FAILED

    def _release(self, names: Sequence[str]) -> None:
        if names:
            answers = self.flows.unhold([id_of(self.raw_id, name) for name in names])
            self._follow(names, answers)
            points.reach("in-workflow")
            self._push(
                (name, self.store.keys.queue_of_record(b"", answer[1]))
                for name, answer in zip(names, answers, strict=True)
                if answer[0] == b"WAIT"
            )

    def _skip(self, names: Sequence[str], reason: str, *, waiting: bool = False) -> list[str]:
        """End tasks as SKIPPED; returns those that have begun, and have not ended."""
        left: list[str] = []
        for batch in _batches(names, BATCH):
            answers = self.flows.skip([id_of(self.raw_id, name) for name in batch], reason, waiting=waiting)
            points.reach("in-workflow")
            self._tell_of_skipped(zip(batch, answers, strict=True))
            left += self._follow(batch, answers)
        return left

    def _tell_of_skipped(self, rows: Iterable[tuple[str, list[bytes]]]) -> None:
        """What a node does at the end of a task."""
        queues: dict[str, list[bytes]] = defaultdict(list)
        for name, answer in rows:
            if answer[0] == b"SKIPPED":
                queues[self.store.keys.queue_of_record(answer[2], answer[1])].append(id_of(self.raw_id, name))
        for queue, ids in queues.items():
            self.flows.note_ended(queue, ids, states.SKIPPED, self.keep_ended)
            self.store.endings.push(ids)

    def _follow(self, names: Sequence[str], answers: Sequence[Sequence[bytes]]) -> list[str]:
        """Note the ends of those that have ended, whose records are gone among them; returns the others."""
        ends, left = [], []
        for name, (state, *_) in zip(names, answers, strict=True):
            if state in states.CLOSED_RAW or state == b"missing":
                ended_as = b"LOST" if state == b"missing" else state
                ends.append((name.encode(), ended_as + b" " + self.round if self.round else ended_as))
            else:
                left.append(name)
        if ends:
            self.flows.step({self.raw_id: ends})
        return left

    def _end_tasks(self, told: bytes | None) -> None:
        """What runs is stopped, the rest skipped, once for each stop; what runs has to end then."""
        wanted = TOLD if self.stops else CALLED_OFF
        if told == BEGUN or (self.stops and told != TOLD):
            self.flows.note(self.raw_id, stops=BEGUN)
            self._stop_all()
        if told != wanted:
            self.flows.note(self.raw_id, stops=wanted)

    def _stop_all(self) -> None:
        for names in self._iter_open():
            left = self._skip(names, STOPPED, waiting=True)
            self.patient.stop_each(id_of(self.raw_id, name) for name in left)

    def _iter_open(self) -> Iterator[list[str]]:
        """The names of tasks that have not ended, as far as the workflow knows, in batches."""
        for found in self.flows.iter_tasks(self.raw_id):
            if names := [name for name, noted in found.items() if noted.state == states.HELD]:
                yield names

    def _compare(self) -> None:
        """Look whether steps were lost, as a failover or a deleted record would lose them."""
        gates: set[int] = set()
        for names in self._iter_open():
            rows = self.store.records.get_each([id_of(self.raw_id, name) for name in names], ["state"])
            found = [[b"missing"] if row is None else [row[0] or b"WAIT"] for row in rows]
            self._follow(names, found)
            held = [name for name, (state,) in zip(names, found, strict=True) if state == b"HELD"]
            noted = self.flows.get_noted(self.raw_id, held)
            gates |= {row.gate for row in noted if row and row.gate is not None}
        for row, failed in self.flows.get_decided(self.raw_id, sorted(gates)):
            self._open(row, failed)
        self.flows.forget_check(self.raw_id)

    # The end.

    def _end(self) -> Any:
        """End where all tasks have. Raises Leave where not, Error where some failed."""
        record = self.flows.get(self.raw_id)
        if b"laid" not in record:
            raise self.Error(REMOVED)
        if record.get(b"done") != record.get(b"total"):
            raise Leave(states.HELD, stops=self.obeyed)
        is_called_off = self.ends and not self.stops
        if is_called_off:
            self._begin_anew()
        if is_called_off or self.attempt == 1:  # a restart counts from 1 again: the first attempt never ends it
            self.store.queues.push(self.store.keys.queue_of_record(b"", record.get(b"queue", b"")), [self.raw_id])
            raise Leave(states.HELD)
        failed = int(record.get(b"failed", b"0"))
        state = states.STOPPED if self.stops else states.ERROR if failed else states.SUCCESS
        output = sum_up(self.store, self.raw_id, record, self.max_data) if state == states.SUCCESS else None
        total = int(record[b"total"])
        words = name_failures(self.store, self.raw_id, failed, total) if state == states.ERROR else ""
        points.reach("before-workflow-end")
        now = wire.encode_time(time.time())
        if self.flows.note(self.raw_id, state=state, ended=now, attempt=self.attempt):
            self.flows.close(self.raw_id)
        points.reach("after-workflow-end")
        if state == states.STOPPED:
            raise Leave(state)
        if state == states.ERROR:
            raise self.Error(words)
        return output


def _noted(task: PlanTask) -> Noted:
    return Noted(states.HELD, task.when, task.allow_failure, None if task.gate < 0 else task.gate, task.feeds)


def _is_first(task: PlanTask) -> bool:
    """Does it run at once? Nothing has failed before it."""
    return task.gate < 0 and task.when != ON_FAILURE


def _runs(noted: Noted | None, failed: bool) -> bool:
    return noted is not None and (noted.when == ALWAYS or (noted.when == ON_FAILURE) == failed)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def steering(settings: Settings) -> type[Workflow]:
    """The class for a node with these settings."""
    own = {"keep_ended": settings.keep_ended, "max_data": settings.max_data}
    return type("Workflow", (Workflow,), {**own, "__module__": Workflow.__module__, "__doc__": Workflow.__doc__})
