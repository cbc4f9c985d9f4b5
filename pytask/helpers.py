"""Helpers: what producers, controllers and the built-in tasks call. They need no gevent and no node.

They are safe in threads and in greenlets, block for one round trip or a few, and try again for some seconds
where Redis does not answer. Ids go in as `str` or bytes and come back as `str`. Every method raises
StoreUnavailable or StoreRefused where Redis cannot be used, and InvalidInputError for an id that is none.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn

from pytask import states, wire
from pytask.errors import InvalidInputError, TaskNotFoundError, TaskStateError
from pytask.names import check_queue_name
from pytask.store.queues import NewRecord
from pytask.store.store import Store
from pytask.task import Task

BATCH = 500  # tasks a round trip
KEYS = frozenset({"task", "data", "task_id", "cleanup", "rescheduling"})  # of a task that is given as a dict
MOST_IDS = 10_000  # ids that a list returns unless asked for more

NOTHING: Mapping[str, Any] = {}

Id = str | bytes
NewTask = tuple[Any, ...] | Mapping[str, Any]
Row = tuple[bytes | None, list[Any]]


def run_loop(function: Callable[[], Any], interval: float) -> NoReturn:
    """Call `function` every `interval` seconds, for ever.

    Without drift: the calls stay on the grid that the first one began. Calls that were missed, since one took
    longer than the interval, are skipped. What `function` raises ends the loop.
    """
    if not (interval > 0 and math.isfinite(interval)):
        raise InvalidInputError(f"interval must be a positive number of seconds, not {interval!r}")
    began, turn = time.monotonic(), 0
    while True:
        function()
        turn = max(turn, math.floor((time.monotonic() - began) / interval)) + 1
        time.sleep(max(began + turn * interval - time.monotonic(), 0))


class PyTaskHelpers:
    """The helpers of one app: `task_app.helpers`, and `self.helpers` in a task.

    `queues` are the names of the queues that lists cover unless told otherwise.
    """

    def __init__(self, store: Store, queues: Sequence[str] = ("",)) -> None:
        self.store = store
        self.queues = tuple(queues)

    # Making tasks.

    def start_task(
        self,
        task: str | type[Task],
        data: Mapping[str, Any] | None = None,
        /,
        *,
        task_id: Id | None = None,
        cleanup: bool = True,
        rescheduling: bool | None = None,
        queue: str = "",
        **task_data: Any,
    ) -> str:
        """Make a task and push it; returns its id.

        `task` is a name or a class. The data is a dict, or keywords, not both. `cleanup=False` keeps the record
        after the end. `rescheduling=False` never starts it a second time, `True` does; None leaves it to
        the class. An id that exists already is written over, and runs again only where it waits.
        """
        queue = check_queue_name(queue)
        if data is not None and task_data:
            raise InvalidInputError("give the data as a dict or as keywords, not both")
        row = _row(task, task_data if data is None else data, task_id, cleanup, rescheduling)
        ((raw, _, _),) = records = _records([row], queue)
        self.store.queues.create(records, queue)
        return wire.id_to_str(raw)

    def start_tasks(
        self,
        tasks: Iterable[NewTask],
        *,
        queue: str = "",
        progress: Callable[[int], Any] | None = None,
    ) -> list[str]:
        """Make many tasks, in batches of 500; returns their ids in order.

        Each is `(task,)`, `(task, data)`, `(task, data, task_id)`, or a dict with the keys `task`, `data`,
        `task_id`, `cleanup`, `rescheduling`. `progress` is called with how many are made so far, after each batch.
        """
        queue = check_queue_name(queue)
        ids: list[str] = []
        batches = _Batches(tasks, queue)
        while batch := batches.take():
            self.store.queues.create(batch, queue, batches.prepare)
            ids += [wire.id_to_str(record[0]) for record in batch]
            if progress:
                progress(len(ids))
        return ids

    # Controlling tasks.

    def stop_task(self, task_id: Id) -> bool:
        """Stop a task, whether it runs or waits: its state becomes STOPPED. Does not wait for that.

        False where it has ended or is stopped already. Raises TaskNotFoundError.
        """
        raw = wire.id_to_bytes(task_id)
        answer = self.store.records.stop(raw)
        if answer[0] == b"missing":
            raise _not_found(raw)
        if answer[0] == b"ended":
            return False
        if answer[1] == states.STOPPED.encode():  # obeyed already: the reply of the first try was lost
            return True
        queue = self._queue_of(answer[2], answer[3])
        if answer[1] == states.RUNNING.encode():
            self.store.claims(queue).note_stop(raw, answer[4])
        elif answer[1].decode() in states.PARKED:
            self.store.claims(queue).nudge(raw)
        return True

    def reload_task(self, task_id: Id) -> None:
        """Tell a running task to stop, read its record anew and start, on the same node. Does not wait."""
        self.store.records.control(wire.id_to_bytes(task_id), "reload")

    def restart_task(self, task_id: Id) -> None:
        """Let a task run again; one that runs now does so after its end. Raises TaskNotFoundError."""
        self._restart(wire.id_to_bytes(task_id), ())

    def restart_if_state(self, task_id: Id, states_allowed: str | Iterable[str]) -> bool:
        """Let a task run again where its state is one of these; False where it is another.

        Raises TaskNotFoundError, and TaskStateError for a name that is no state.
        """
        allowed = [states_allowed] if isinstance(states_allowed, str) else list(states_allowed)
        for state in allowed:
            if state not in states.MOVES:
                raise TaskStateError(f"{state!r} is no state; the states are {', '.join(states.MOVES)}")
        return bool(allowed) and self._restart(wire.id_to_bytes(task_id), allowed)

    def _restart(self, raw: bytes, allowed: Sequence[str]) -> bool:
        answer = self.store.records.restart(raw, allowed)
        if answer[0] == b"missing":
            raise _not_found(raw)
        if answer[0] == b"refused":
            return False
        self.store.queues.push(self._queue_of(answer[2], answer[3]), [raw])
        return True

    def _queue_of(self, at: bytes, field: bytes) -> str:
        """The queue that a record ran from, else the one that its field names, else the default one.

        A record may hold anything: what names no queue is passed over.
        """
        keys = self.store.keys
        ran_in = keys.queue_of_key(at)
        if ran_in is not None:
            return ran_in
        return keys.queue_of_key(keys.queue().key + b":" + field) or ""

    def remove_task(self, task_id: Id) -> bool:
        """Stop a task and remove its record; False where there was none."""
        raw = wire.id_to_bytes(task_id)
        self.store.records.control(raw, "stop")
        return self.store.records.remove(raw)

    # Reading and writing records.

    def get_task(self, task_id: Id, keys: str | Sequence[str] | None = None) -> Any:
        """The record as a dict of `str`; None where there is none.

        With `keys`, a sequence: a dict of these fields, None for each that is absent; a single name: its value.
        `data`, and the `output` of a success, are JSON texts.
        """
        raw = wire.id_to_bytes(task_id)
        if keys is None:
            record = self.store.records.get(raw)
            return {wire.to_str(k): wire.to_str(v) for k, v in record.items()} or None
        names = [keys] if isinstance(keys, str) else list(keys)
        if not names:
            return {}
        values = [v if v is None else wire.to_str(v) for v in self.store.records.get_fields(raw, names)]
        return values[0] if isinstance(keys, str) else dict(zip(names, values, strict=True))

    def set_task(self, task_id: Id, fields: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Write fields of a record. `data` may be a dict; everything else becomes text."""
        values = {name: _field(value) for name, value in {**(fields or {}), **more}.items()}
        if not values:
            raise InvalidInputError("set_task needs at least one field")
        self.store.records.set(wire.id_to_bytes(task_id), values)

    def get_new_task_ids(self, queue: str | None = None, most: int = MOST_IDS) -> list[str]:
        """Ids that wait in a queue (None: in all queues of the app), the next one first."""
        return self._ids(queue, lambda name: self.store.queues.get_waiting(name, most))

    def get_active_task_ids(self, queue: str | None = None) -> list[str]:
        """Ids that nodes own now."""
        return self._ids(queue, lambda name: list(self.store.queues.get_claimed(name)))

    def get_dead_task_ids(self, queue: str | None = None, most: int = MOST_IDS) -> list[str]:
        """Ids that could not be worked on at all: no record came for them, or it is none."""
        return self._ids(queue, lambda name: self.store.queues.get_dead(name, most))

    def get_end_task_ids(self, most: int = MOST_IDS) -> list[str]:
        """Ids that ended and that no consumer has taken, the oldest first."""
        return [wire.id_to_str(raw) for raw in self.store.endings.get(most)]

    def _ids(self, queue: str | None, read: Callable[[str], list[bytes]]) -> list[str]:
        names = self.queues if queue is None else (check_queue_name(queue),)
        return [wire.id_to_str(raw) for name in names for raw in read(name)]

    def get_nodes(self, queue: str | None = None) -> dict[str, dict[str, str]]:
        """What every node that serves the queues says of itself, by node id."""
        names = self.queues if queue is None else (check_queue_name(queue),)
        nodes = {node for name in names for node in self.store.membership(name).get_sequences()}
        records = self.store.node_records.read(sorted(nodes))
        return {
            node.decode(): {wire.to_str(k): wire.to_str(v) for k, v in record.items()}
            for node, record in records.items()
        }


class _Batches:
    """Records of new tasks, in batches."""

    def __init__(self, tasks: Iterable[NewTask], queue: str) -> None:
        self._rows = map(_row_of, tasks)
        self._queue = queue
        self._ready: list[NewRecord] | None = None
        self._problem: Exception | None = None

    def prepare(self) -> None:
        """Make the next batch, unless it is there: while the server works on the one before. Raises nothing."""
        if self._ready is None and self._problem is None:
            try:
                self._ready = _records(list(islice(self._rows, BATCH)), self._queue)
            except Exception as error:  # noqa: BLE001 - the caller's own, from the tasks that are given: `take` raises it
                self._problem = error

    def take(self) -> list[NewRecord]:
        """The next batch; empty at the end. Raises what is wrong with a task, or what the iterable raised."""
        self.prepare()
        if self._problem is not None:
            raise self._problem
        batch, self._ready = self._ready, None
        return batch or []


def _row_of(new: NewTask) -> Row:
    """A row of what `start_tasks` is given."""
    if type(new) is not tuple and isinstance(new, Mapping):
        if not set(new) <= KEYS or "task" not in new:
            raise InvalidInputError(f"a task has the keys {', '.join(sorted(KEYS))}, not {sorted(new)}")
        cleanup, rescheduling = new.get("cleanup", True), new.get("rescheduling")
        return _row(new["task"], new.get("data", NOTHING), new.get("task_id"), cleanup, rescheduling)
    if not 1 <= len(new) <= 3:
        raise InvalidInputError("a task is (task,), (task, data), (task, data, task_id) or a dict")
    return _row(*new)


def _row(
    task: Any, data: Any = None, task_id: Id | None = None, cleanup: bool = True, rescheduling: bool | None = None
) -> Row:
    """The id, None for one that is to be made, and the words of a record: field, value, field, value, ..."""
    if data is None:
        data = NOTHING
    elif not isinstance(data, Mapping):
        raise InvalidInputError(f"data is a dict, not {type(data).__name__}")
    raw = None if task_id is None else wire.id_to_bytes(task_id)
    words: list[Any] = ["task", task_name(task), "data", wire.encode_json(dict(data)) if data else b"{}"]
    if not cleanup:
        words += ("cleanup", "false")
    if rescheduling is not None:
        words += ("rescheduling", _field(rescheduling))
    return raw, words


def _records(rows: Sequence[Row], queue: str) -> list[NewRecord]:
    """The records of rows, complete: what they share is made once for all, as are the ids of those without."""
    made = secrets.token_hex(16 * len(rows)).encode() if rows else b""
    shared: list[Any] = ["created", wire.encode_time(time.time())]
    if queue:
        shared += ("queue", queue)
    records = []
    for number, (raw, words) in enumerate(rows):
        task_id = made[32 * number : 32 * number + 32] if raw is None else raw
        records.append(NewRecord(task_id, words + shared, raw is None))
    return records


def task_name(task: str | type[Task]) -> str:
    """The name of a task that is given as a name or as a class."""
    name = task if isinstance(task, str) else getattr(task, "NAME", None)
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"task is a name or a Task class, not {wire.shown(task)}")
    return name


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return wire.encode_json(value)
    return value if isinstance(value, bytes | str) else str(value)


def _not_found(raw: bytes) -> TaskNotFoundError:
    return TaskNotFoundError(f"there is no task with the id {wire.shown(raw)}")
