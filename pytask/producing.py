"""Producing: makes records out of what producers give, and pushes their ids."""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from pytask import wire
from pytask.errors import InvalidInputError
from pytask.handle import Id, TaskHandle
from pytask.limits import lock_label
from pytask.names import check_queue_name, shown
from pytask.options import OPTIONS, suggestion, write_options
from pytask.params import check_data
from pytask.retry import Exponential
from pytask.store.queues import NewRecord
from pytask.store.store import Store
from pytask.task import AnyTask, Exceptions, Task, class_of
from pytask.uniqueness import Locked, settle

BATCH = 500  # tasks a round trip
OWN_KEYS = frozenset({"task", "data", "task_id"})  # of a task that is given as a dict, beside the options
KEYS = OWN_KEYS | OPTIONS.keys()

NAME_OR_CLASS = (str, type)
NOTHING: Mapping[str, Any] = {}
NO_LOCKS: Mapping[int, str] = {}
NO_IDS: Mapping[bytes, bytes] = {}

NewTask = tuple[Any, ...] | Mapping[str, Any]
Classes = Mapping[str, type[Task]]


class Row(NamedTuple):
    """A task that is to be made: its id (None: to be made), the words of its record, and its queue."""

    id: bytes | None
    words: list[Any]  # field, value, field, value, ...
    queue: str
    lock: str = ""  # the label of the lock that it needs


class Producing:
    """The helpers that make tasks."""

    store: Store
    classes: Classes

    def start_task(
        self,
        task: AnyTask,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        task_id: Id | None = None,
        queue: str | None = None,
        due: float | datetime | None = None,
        delay: float | str | None = None,
        expires: float | datetime | None = None,
        expires_in: float | str | None = None,
        timeout: float | str | None = None,
        retries: int | None = None,
        retry_delay: float | str | Sequence[float | str] | Exponential | None = None,
        retry_on: Exceptions | None = None,
        no_retry_on: Exceptions | None = None,
        result_ttl: float | str | None = None,
        failure_ttl: float | str | None = None,
        cleanup: bool | None = None,
        rescheduling: bool | None = None,
        unique: bool | str | None = None,
        max_running: int | None = None,
        concurrency_key: str | None = None,
        max_running_per_key: int | None = None,
        rate: str | None = None,
        rate_key: str | None = None,
        title: str | None = None,
        front: bool = False,
        **task_data: Any,
    ) -> TaskHandle:
        """Make a task and push it; returns its id, which is also its handle.

        `task` is a name or a class. The data is a dict, or keywords, not both: data that has the name of an option
        goes in as a dict. The options are those of docs/options.md; None leaves each to the class. Durations are
        seconds, or text such as `5m`; `due` and `expires` are epoch seconds or an aware datetime. With `front` it
        is pushed before all that wait. An id that exists already is written over, and runs again only where it
        waits. Raises InvalidInputError.
        """
        check_front(front)
        check_one_kind_of_data(data, task_data)
        options = {
            "due": due, "delay": delay, "expires": expires, "expires_in": expires_in, "timeout": timeout,
            "retries": retries, "retry_delay": retry_delay, "retry_on": retry_on, "no_retry_on": no_retry_on,
            "result_ttl": result_ttl, "failure_ttl": failure_ttl, "cleanup": cleanup, "rescheduling": rescheduling,
            "unique": unique, "max_running": max_running, "concurrency_key": concurrency_key,
            "max_running_per_key": max_running_per_key, "rate": rate, "rate_key": rate_key, "title": title,
        }  # fmt: skip
        given = {name: value for name, value in options.items() if value is not None}
        row = make_row(self.classes, task, task_data if data is None else data, task_id, given, queue)
        batch = Batch(make_records([row]), [row.queue], {0: row.lock} if row.lock else NO_LOCKS)
        return self._create(batch, front=front)[0]

    def start_tasks(
        self,
        tasks: Iterable[NewTask],
        *,
        queue: str | None = None,
        front: bool = False,
        progress: Callable[[int], Any] | None = None,
    ) -> list[TaskHandle]:
        """Make many tasks, in batches of 500; returns their ids, which are handles, in order.

        Each is `(task,)`, `(task, data)`, `(task, data, task_id)`, or a dict with the keys `task`, `data`,
        `task_id` and those of the options. `queue` is that of tasks that name none. With `front` each batch is
        pushed before all that wait, in its order. `progress` is called with how many are made so far, after each
        batch. Raises InvalidInputError; the batches before are made then.
        """
        check_front(front)
        ids: list[TaskHandle] = []
        batches = Batches(self.classes, tasks, queue)
        while batch := batches.take():
            ids += self._create(batch, batches.prepare, front=front)
            if progress:
                progress(len(ids))
        return ids

    def _create(
        self, batch: Batch, meanwhile: Callable[[], None] | None = None, *, front: bool
    ) -> list[TaskHandle]:
        """Write and push a batch; returns the ids, those of others where these have the locks."""
        lost = NO_IDS
        ids = [record.id for record in batch.records]
        if batch.locks:
            rows = [Locked(batch.records[number], label) for number, label in batch.locks.items()]
            won, lost = settle(self.store, rows)
            batch = batch.with_winners(won, lost)
        for name, records in batch.by_queue():
            self.store.queues.create(records, name, meanwhile, first=front)
        return [TaskHandle(wire.id_to_str(lost.get(task_id, task_id)), self) for task_id in ids]


class Batch(NamedTuple):
    """Records that are to be written, the queue of each, and the label of the lock of each that needs one."""

    records: list[NewRecord]
    queues: list[str]
    locks: Mapping[int, str]  # by the number of the record

    def with_winners(self, won: Mapping[bytes, NewRecord], lost: Mapping[bytes, bytes]) -> Batch:
        """What is left of the batch where these records have their locks, and the others have not."""
        rows = [
            (won.get(record.id, record), queue)
            for record, queue in zip(self.records, self.queues, strict=True)
            if record.id not in lost
        ]
        return Batch([record for record, _ in rows], [queue for _, queue in rows], NO_LOCKS)

    def by_queue(self) -> Iterable[tuple[str, list[NewRecord]]]:
        """The records of each queue, in order."""
        if not self.queues:
            return []
        first = self.queues[0]
        if all(queue == first for queue in self.queues):
            return [(first, self.records)]
        groups: dict[str, list[NewRecord]] = {}
        for queue, record in zip(self.queues, self.records, strict=True):
            groups.setdefault(queue, []).append(record)
        return groups.items()


class Batches:
    """Records of new tasks, in batches."""

    def __init__(self, classes: Classes, tasks: Iterable[NewTask], queue: str | None) -> None:
        queue = None if queue is None else check_queue_name(queue)
        self._rows = (row_of(classes, task, queue) for task in tasks)
        self._ready: Batch | None = None
        self._problem: Exception | None = None

    def prepare(self) -> None:
        """Make the next batch, unless it is there: while the server works on the one before. Raises nothing."""
        if self._ready is None and self._problem is None:
            try:
                rows = list(islice(self._rows, BATCH))
                locks = {number: row.lock for number, row in enumerate(rows) if row.lock}
                self._ready = Batch(make_records(rows), [row.queue for row in rows], locks)
            except Exception as error:  # noqa: BLE001 - the caller's own, from the tasks that are given: `take` raises it
                self._problem = error

    def take(self) -> Batch | None:
        """The next batch; None at the end. Raises what is wrong with a task, or what the iterable raised."""
        self.prepare()
        if self._problem is not None:
            raise self._problem
        batch, self._ready = self._ready, None
        return batch if batch and batch.records else None


def check_front(front: object) -> None:
    """Raises InvalidInputError for what is neither True nor False: data, say, that has this name."""
    if not isinstance(front, bool):
        raise InvalidInputError(
            f"front is True or False, not {shown(front)}: data with that name goes in as a dict"
        )


def check_one_kind_of_data(data: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> None:
    """Raises InvalidInputError where data is given twice."""
    if data is not None and keywords:
        raise InvalidInputError("give the data as a dict or as keywords, not both")


def row_of(classes: Classes, new: object, queue: str | None) -> Row:
    """A row of what `start_tasks` is given; `queue` is that of tasks that name none."""
    if type(new) is not tuple and isinstance(new, Mapping):
        return _row_of_dict(classes, new, queue)
    if not isinstance(new, tuple | list) or not 1 <= len(new) <= 3:
        raise InvalidInputError("a task is (task,), (task, data), (task, data, task_id) or a dict")
    data, task_id = new[1] if len(new) > 1 else None, new[2] if len(new) > 2 else None
    return make_row(classes, new[0], data, task_id, NOTHING, queue)


def _row_of_dict(classes: Classes, new: Mapping[str, Any], queue: str | None) -> Row:
    for name in new:
        if name not in KEYS:
            raise InvalidInputError(
                f"a task has no key {shown(name)}{suggestion(name)}; it has {', '.join(sorted(KEYS))}"
            )
    if "task" not in new:
        raise InvalidInputError(f"a task needs the key 'task': {shown(dict(new))}")
    given = {name: new[name] for name in new if name not in OWN_KEYS and name != "queue" and new[name] is not None}
    own = new.get("queue")
    return make_row(
        classes, new["task"], new.get("data"), new.get("task_id"), given, queue if own is None else own
    )


def make_row(
    classes: Classes,
    task: Any,
    data: Any = None,
    task_id: Id | None = None,
    options: Mapping[str, Any] = NOTHING,
    queue: str | None = None,
) -> Row:
    """A row, checked. Raises InvalidInputError."""
    raw = None if task_id is None else wire.id_to_bytes(task_id)
    if not isinstance(task, NAME_OR_CLASS):
        task = class_of(task)
    name = task_name(task)
    known = classes.get(name) if isinstance(task, str) else task
    if data is None:
        data = NOTHING
    if known is not None and not known.local_only:
        data = check_data(known, data)
    elif not isinstance(data, Mapping):
        raise InvalidInputError(f"data is a dict, not {type(data).__name__}")
    words: list[Any] = ["task", name, "data", wire.encode_json(dict(data)) if data else b"{}"]
    if options:
        words += write_options(options)
    if queue is None and known is not None and isinstance(known.queue, str):
        queue = known.queue
    lock = _lock_of(name, options.get("unique"), known, words[3])
    if lock:
        words += ("limits", lock)
    return Row(raw, words, check_queue_name(queue) if queue else "", lock)


def _lock_of(name: str, unique: Any, known: type[Task] | None, data: bytes) -> str:
    """The label of the lock that a task needs, `''` for none."""
    if unique is None and known is not None and not inspect.isroutine(known.unique):
        unique = known.unique
    return lock_label(name, OPTIONS["unique"].check(unique), data) if unique else ""


def make_records(rows: Sequence[Row]) -> list[NewRecord]:
    """The records of rows, complete: what they share is made once for all, as are the ids of those without."""
    made = secrets.token_hex(16 * len(rows)).encode() if rows else b""
    shared: list[Any] = ["created", wire.encode_time(time.time())]
    records = []
    for number, row in enumerate(rows):
        task_id = made[32 * number : 32 * number + 32] if row.id is None else row.id
        told = ("queue", row.queue) if row.queue else ()
        records.append(NewRecord(task_id, [*row.words, *shared, *told], row.id is None))
    return records


def task_name(task: AnyTask) -> str:
    """The name of a task."""
    name = task if isinstance(task, str) else getattr(class_of(task), "NAME", None)
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"a task is given as its name, its class or its function, not {wire.shown(task)}")
    return name


def as_field(value: Any) -> Any:
    """A value as a field of a record holds it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return wire.encode_json(value)
    return value if isinstance(value, bytes | str) else str(value)
