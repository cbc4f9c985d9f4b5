"""Helpers: what producers, controllers and the built-in tasks call. They need no gevent and no node.

They are safe in threads and in greenlets, block for one round trip or a few, and try again for some seconds
where Redis does not answer. Ids go in as `str` or bytes and come back as `str`. Every method raises
StoreUnavailable or StoreRefused where Redis cannot be used, and InvalidInputError for an id that is none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from pytask import states, wire
from pytask.calling import Calling
from pytask.collecting import Collecting
from pytask.conducting import Conducting
from pytask.deleting import Deleting
from pytask.errors import InvalidInputError, TaskNotFoundError, TaskStateError
from pytask.following import Following
from pytask.handle import Id
from pytask.listing import Listing
from pytask.mass_control import MassControl
from pytask.names import check_queue_name
from pytask.namespaces import NamespaceControl
from pytask.producing import Producing, as_field
from pytask.queue_control import QueueControl
from pytask.scheduling import Scheduling
from pytask.serving import Serving
from pytask.settings import SETTINGS
from pytask.store.store import Store
from pytask.task import Task
from pytask.waiting import Waiting

DEFAULT_MAX_DATA: int = SETTINGS["max_data"].default
MOST_IDS = 10_000  # ids that a list returns unless asked for more


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


class PyTaskHelpers(
    Producing,
    Calling,
    QueueControl,
    MassControl,
    Listing,
    NamespaceControl,
    Collecting,
    Following,
    Conducting,
    Deleting,
    Scheduling,
    Serving,
):
    """The helpers of one app: `task_app.helpers`, and `self.helpers` in a task.

    `queues` are the names of the queues that lists cover unless told otherwise; `classes` are the task classes
    that are known here, by name.
    """

    def __init__(
        self,
        store: Store,
        queues: Sequence[str] = ("",),
        classes: Mapping[str, type[Task]] | None = None,
        *,
        max_data: int = DEFAULT_MAX_DATA,
    ) -> None:
        self.store = store
        self.queues = tuple(queues)
        self.classes = {} if classes is None else classes
        self.max_data = max_data
        self.waiting = Waiting(store)

    def close(self) -> None:
        """Close the connections; they are made anew when used. Who waits for a result gets StoreUnavailable."""
        self.waiting.close()
        self.store.close()

    # Controlling tasks.

    def stop_task(self, task_id: Id) -> bool:
        """Stop a task, whether it runs or waits: its state becomes STOPPED. Does not wait for that.

        False where it has ended or is stopped already. Raises TaskNotFoundError.
        """
        raw = wire.id_to_bytes(task_id)
        answer = self.store.records.stop(raw)
        if answer[0] == b"missing":
            raise not_found(raw)
        if answer[0] == b"ended":
            return False
        if answer[1] == states.STOPPED.encode():  # obeyed already: the reply of the first try was lost
            return True
        queue = self._queue_of(answer[2], answer[3])
        if answer[1] == states.RUNNING.encode():
            self.store.claims(queue).note_stop(raw, answer[4])
        elif answer[1].decode() in states.PARKED:
            self.store.claims(queue).nudge(raw)
        elif answer[1] == states.HELD.encode() and answer[4]:  # what steers others: its next run stops them
            self.store.queues.push(queue, [raw])
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
        allowed = check_states(states_allowed)
        return bool(allowed) and self._restart(wire.id_to_bytes(task_id), allowed)

    def _restart(self, raw: bytes, allowed: Sequence[str]) -> bool:
        answer = self.store.records.restart(raw, allowed)
        if answer[0] == b"missing":
            raise not_found(raw)
        if answer[0] == b"refused":
            return False
        if answer[0] != b"begun":
            self.store.queues.push(self._queue_of(answer[2], answer[3]), [raw])
        return True

    def _queue_of(self, at: bytes, field: bytes) -> str:
        return self.store.keys.queue_of_record(at, field)

    def remove_task(self, task_id: Id) -> bool:
        """Stop a task and remove its record, at once, whatever it does; False where there was none.

        See `delete_task`, which leaves nothing behind.
        """
        raw = wire.id_to_bytes(task_id)
        self.store.records.control(raw, "stop")
        return self.store.records.remove(raw)

    # Reading and writing records.

    def get_task(self, task_id: Id, keys: str | Sequence[str] | None = None) -> Any:
        """The record as a dict of `str`; None where there is none.

        With `keys`, a sequence: a dict of these fields, None for each that is absent; a single name: its value.
        `data`, and the `output` of a success, are JSON texts.
        """
        if keys is None:
            return self.get_tasks([task_id])[0]
        raw = wire.id_to_bytes(task_id)
        names = [keys] if isinstance(keys, str) else list(keys)
        if not names:
            return {}
        values = [v if v is None else wire.to_str(v) for v in self.store.records.get_fields(raw, names)]
        return values[0] if isinstance(keys, str) else dict(zip(names, values, strict=True))

    def get_tasks(self, task_ids: Iterable[Id]) -> list[dict[str, str] | None]:
        """The records of many tasks, in order, as `get_task` gives one; batched."""
        records = self.store.records.get_whole([wire.id_to_bytes(task_id) for task_id in task_ids])
        return [{wire.to_str(k): wire.to_str(v) for k, v in record.items()} or None for record in records]

    def set_task(self, task_id: Id, fields: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Write fields of a record. `data` may be a dict; everything else becomes text."""
        values = {name: as_field(value) for name, value in {**(fields or {}), **more}.items()}
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

    def get_nodes(self, queue: str | None = None, *, find: bool = False) -> dict[str, dict[str, str]]:
        """What every node that serves the queues says of itself, by node id.

        `queue`: this one; None: those of the app, and with `find` those that any key of the servers names.
        """
        names = set(self.queues) if queue is None else {check_queue_name(queue)}
        if find and queue is None:
            names |= self.store.queues.find()
        return {
            wire.id_to_str(node): {wire.to_str(k): wire.to_str(v) for k, v in record.items()}
            for node, record in self.store.inventory.get_nodes(sorted(names)).items()
        }


def check_states(given: str | Iterable[str]) -> list[str]:
    """Names of states. Raises TaskStateError for one that is none."""
    names = [given] if isinstance(given, str) else list(given)
    for state in names:
        if state not in states.MOVES:
            raise TaskStateError(f"{state!r} is no state; the states are {', '.join(states.MOVES)}")
    return names


def not_found(raw: bytes) -> TaskNotFoundError:
    """The error that says that there is no record."""
    return TaskNotFoundError(f"there is no task with the id {wire.shown(raw)}")
