"""Collecting: waits for the ends of tasks and hands out their results. Nothing is polled (see `waiting`)."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from pytask import wire
from pytask.collection import Collection, End, in_order_of_ends, output_of
from pytask.errors import PyTaskError, StoreUnavailable, TaskFailed, TaskGone, TaskTimeout
from pytask.handle import Id, TaskHandle, kind_of_handle
from pytask.result import FIELDS, TASK, tells_of_end
from pytask.store.store import Store
from pytask.waiting import LOOK_EVERY, Deadline, Waiting, place_lent


class Collecting:
    """The helpers that wait for results.

    They raise StoreUnavailable where Redis cannot be reached at first; one that goes away later is waited for,
    until the timeout. Inside a task of a node its place is free for others while it waits.
    """

    store: Store
    waiting: Waiting

    def handle(self, task_id: Id) -> TaskHandle:
        """The handle of any task, as `start_task` returns one. Nothing is sent."""
        return TaskHandle(wire.id_to_str(wire.id_to_bytes(task_id)), self)

    def get_result(self, task_id: Id, timeout: float | None = None) -> Any:
        """What the task returned; waits until it has ended, for `timeout` seconds at most.

        A retry is no end. Raises TaskFailed where it ended otherwise than in SUCCESS or was stopped, TaskGone
        where there is no record, TaskTimeout.
        """
        if isinstance(task_id, TaskHandle) and task_id.end is not None:
            return output_of(task_id.end)
        ((_, end),) = self._iter_ends([wire.id_to_bytes(task_id)], Deadline(timeout), kind_of_handle(task_id))
        return output_of(end)

    def wait_all(
        self, tasks: Iterable[Id], timeout: float | None = None, *, return_errors: bool = False
    ) -> list[Any]:
        """What the tasks returned, in their order; waits for `timeout` seconds at most.

        The first one that fails ends the wait with its error. With `return_errors` all are waited for, and a
        TaskFailed, TaskGone or TaskTimeout stands in the place of each that has no output.
        """
        deadline, ids, ends = Deadline(timeout), _ids(tasks), dict[bytes, Any]()
        late: TaskTimeout | None = None
        try:
            for task_id, end in self._iter_ends(ids, deadline):
                ends[task_id] = output_or_error(end)
                if not return_errors and isinstance(ends[task_id], PyTaskError):
                    raise ends[task_id]
        except TaskTimeout as error:
            if not return_errors:
                raise
            late = error
        return [ends.get(task_id, late) for task_id in ids]

    def as_completed(self, tasks: Iterable[Id], timeout: float | None = None) -> Iterator[TaskHandle]:
        """The handles of the tasks in the order of their ends, each once, as they end.

        `get` of such a handle answers at once, from what it holds. Raises TaskTimeout where some have not ended
        within `timeout` seconds.
        """
        deadline, ids = Deadline(timeout), _ids(tasks)
        return self._iter_handles(ids, deadline)

    def _iter_handles(self, ids: list[bytes], deadline: Deadline) -> Iterator[TaskHandle]:
        with contextlib.closing(self._iter_ends(ids, deadline)) as ends:
            for task_id, end in ends:
                yield TaskHandle(wire.id_to_str(task_id), self, end)

    def _iter_ends(
        self, ids: list[bytes], deadline: Deadline, kind: str = TASK
    ) -> Generator[tuple[bytes, End], None, None]:
        """The ends as they come. Raises TaskTimeout behind those that have come in time."""
        collection = Collection(self.store.keys, ids, kind)
        ends = self._read(collection)
        if collection.open and not deadline.is_over:
            yield from self._watch(collection, deadline, ends)
        else:
            yield from ends
        if collection.open:
            raise collection.too_late(deadline.timeout)

    def _watch(
        self, collection: Collection, deadline: Deadline, ends: list[tuple[bytes, End]]
    ) -> Iterator[tuple[bytes, End]]:
        """The ends that were read already, and those to come, none of which slips through meanwhile."""
        with self.waiting.watch(collection.channels, tells_of_end) as watch:
            yield from ends
            while collection.open and not deadline.is_over:
                with place_lent():
                    most = collection.seconds_to_wait(LOOK_EVERY)
                    collection.note(self.waiting.wait(watch, deadline, most))
                    ends = self._read_if_possible(collection)
                yield from ends

    def _read(self, collection: Collection) -> list[tuple[bytes, End]]:
        ends = []
        while ids := collection.take_doubtful():
            try:
                ends += collection.judge(ids, self.store.records.get_each(ids, FIELDS))
            except StoreUnavailable:
                collection.put_back(ids)
                if not ends:
                    raise
                break
        return in_order_of_ends(ends)

    def _read_if_possible(self, collection: Collection) -> list[tuple[bytes, End]]:
        try:
            return self._read(collection)
        except StoreUnavailable:  # they are read again, once it is back
            return []


def _ids(tasks: Iterable[Id]) -> list[bytes]:
    return [wire.id_to_bytes(task_id) for task_id in tasks]


def output_or_error(end: End) -> Any:
    """What the task returned, or the error in its place."""
    if isinstance(end, TaskGone):
        return end
    try:
        return end.get()
    except TaskFailed as error:
        return error
