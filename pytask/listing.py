"""Listing: the helpers that list and count all tasks, wherever they stand, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pytask import states, wire
from pytask.errors import InvalidInputError, SettingError
from pytask.names import check_queue_name, queue_label, shown
from pytask.pages import start_of_page
from pytask.store.inventory import DUE, ENDED, HELD, PLACES, RUNNING, WAITING, Part
from pytask.store.store import Store

BATCH = 500  # records a round trip
FIELDS = ("task", "state", "title", "queue", "created", "started", "ended", "attempt", "node", "workflow")
STATES_OF = {
    RUNNING: frozenset({states.RUNNING}),
    WAITING: frozenset({states.WAIT}),
    DUE: states.PARKED,
    HELD: frozenset({states.HELD}),
    ENDED: states.CLOSED,
}


class Listing:
    """The helpers for lists of tasks."""

    store: Store
    queues: tuple[str, ...]

    def list_tasks(
        self,
        *,
        queue: str | None = None,
        state: str | Iterable[str] | None = None,
        name: str | None = None,
        page: int = 1,
        limit: int = 100,
        find: bool = True,
    ) -> list[dict[str, Any]]:
        """A page of all tasks, counted from 1: those that run, wait, are due, are held, and that have ended.

        Each is a dict of `id`, `task` (its NAME), `state`, `title`, `queue`, `created`, `started`, `ended` (epoch
        seconds, or None), `attempt`, `node` and `workflow`. `task` and `state` are None where the record is gone.
        `queue`: of this one alone, without what is held, which is in no queue. `state`: in this state, or in one
        of several. `name`: called so. `find` looks for queues that this app does not name, among all keys of the
        servers. Raises InvalidInputError.
        """
        start = start_of_page(page, limit)
        chosen, wanted = _check_states(state, queue), _check_name(name)
        parts = self._parts(chosen, self._queues_of(queue, find))
        if _decides(chosen) and wanted is None:
            return [row for _, row in self._rows(_slice(parts, start, limit))]
        return list(islice(self._matching(parts, chosen, wanted), start, start + limit))

    def count_tasks(
        self,
        *,
        queue: str | None = None,
        state: str | Iterable[str] | None = None,
        name: str | None = None,
        find: bool = True,
    ) -> int:
        """How many tasks there are, on all pages of `list_tasks` with the same arguments.

        Ids are counted, no record is read, unless `name` is given or some states of several that share a place.
        """
        chosen, wanted = _check_states(state, queue), _check_name(name)
        parts = self._parts(chosen, self._queues_of(queue, find))
        if _decides(chosen) and wanted is None:
            return sum(part.count for part in parts)
        return sum(1 for _ in self._matching(parts, chosen, wanted))

    def count_tasks_by_place(self, *, queue: str | None = None, find: bool = True) -> dict[str, int]:
        """How many ids there are that are `running`, `waiting`, `due`, `held` and `ended`.

        `held` is 0 for one queue. What ended is what the queues remember (`keep_ended`). No record is read.
        """
        counts = dict.fromkeys(PLACES, 0)
        for part in self._parts(_check_states(None, queue), self._queues_of(queue, find)):
            counts[part.place] += part.count
        return counts

    def _queues_of(self, queue: str | None, find: bool) -> list[str]:
        if queue is None:
            return sorted({*self.queues, *(self.store.queues.find() if find else ())})
        try:
            name = check_queue_name(queue)
        except SettingError as error:
            raise InvalidInputError(str(error)) from None
        if name and name not in self.queues and not self.store.inventory.is_known(name):
            raise InvalidInputError(
                f"there is no queue {queue_label(name)}: nothing waits in it, and nothing ever did"
            )
        return [name]

    def _parts(self, chosen: Iterable[str], queues: Sequence[str]) -> Iterator[Part]:
        for place in chosen:
            yield from self.store.inventory.iter_parts(place, queues)

    def _matching(
        self, parts: Iterable[Part], chosen: Mapping[str, frozenset[str]], name: str | None
    ) -> Iterator[dict[str, Any]]:
        """Rows that were asked for. What runs, waits and is held is told by where it stands, not by its record."""
        for part, row in self._rows(_whole(parts)):
            wanted = chosen[part.place]
            if (wanted == STATES_OF[part.place] or row["state"] in wanted) and name in (None, row["task"]):
                yield row

    def _rows(self, slices: Iterable[tuple[Part, list[bytes]]]) -> Iterator[tuple[Part, dict[str, Any]]]:
        """The rows of ids, each once; those that stand elsewhere by now are passed over."""
        seen: set[bytes] = set()
        for part, ids in slices:
            new = [task_id for task_id in dict.fromkeys(ids) if task_id not in seen]
            seen.update(new)
            for task_id, record in zip(new, self.store.inventory.read(new, FIELDS), strict=True):
                row = _row(task_id, part, record)
                if not _is_elsewhere(row, part.place):
                    yield part, row


def _slice(parts: Iterable[Part], start: int, most: int) -> Iterator[tuple[Part, list[bytes]]]:
    """So many ids behind the first `start`, in batches; parts before them are only counted."""
    for part in parts:
        end = min(part.count, start + most)
        for first in range(start, end, BATCH):
            yield part, part.read(first, min(BATCH, end - first))
        most -= max(end - start, 0)
        start = max(start - part.count, 0)
        if most <= 0:
            return


def _whole(parts: Iterable[Part]) -> Iterator[tuple[Part, list[bytes]]]:
    for part in parts:
        yield from _slice([part], 0, part.count)


def _is_elsewhere(row: dict[str, Any], place: str) -> bool:
    """Does the record say that the task has been restarted since, or has left what held it?"""
    return place in (ENDED, HELD) and row["state"] is not None and row["state"] not in STATES_OF[place]


def _decides(chosen: Mapping[str, frozenset[str]]) -> bool:
    """Does the place of an id say enough of its state?"""
    return all(wanted == STATES_OF[place] for place, wanted in chosen.items())


def _row(task_id: bytes, part: Part, record: Sequence[bytes | None] | None) -> dict[str, Any]:
    task, state, title, queue, *times, attempt, node, workflow = record or (None,) * len(FIELDS)
    named = _text(queue) if part.queue is None else part.queue
    told = {"state": _text(state) or states.WAIT} if record is not None else {"state": None}
    created, started, ended = map(_seconds, times)
    return {
        "id": wire.id_to_str(task_id),
        "task": _text(task),
        **told,
        "title": _text(title),
        "queue": None if record is None and part.queue is None else queue_label(named or ""),
        "created": created,
        "started": started,
        "ended": ended,
        "attempt": int(attempt) if attempt is not None and attempt.isdigit() else None,
        "node": _text(node),
        "workflow": _text(workflow),
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else wire.to_str(value)


def _seconds(value: bytes | None) -> float | None:
    """A time of the record; None for what is none: a producer may have written anything."""
    try:
        seconds = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e12 else None


def _check_states(given: str | Iterable[str] | None, queue: str | None) -> dict[str, frozenset[str]]:
    """The places to look at, and which states are wanted of each. Raises InvalidInputError."""
    names = _names_of(given)
    for state in names:
        if not isinstance(state, str) or state not in states.MOVES:
            raise InvalidInputError(f"{shown(state)} is no state; the states are {', '.join(states.MOVES)}")
    if not names:
        raise InvalidInputError("name one state or more, or leave them out")
    if queue is not None and set(names) == {states.HELD}:
        raise InvalidInputError("what is HELD is in no queue: leave the queue out")
    chosen = {place: of & frozenset(names) for place, of in STATES_OF.items()}
    return {place: wanted for place, wanted in chosen.items() if wanted and (place != HELD or queue is None)}


def _names_of(given: object) -> list[object]:
    if given is None:
        return list(states.MOVES)
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def _check_name(name: object) -> str | None:
    if name is not None and not (isinstance(name, str) and name):
        raise InvalidInputError(f"name is the name of a task, not {shown(name)}")
    return name
