"""Mass control: stopping and restarting many tasks, by queue, name and state, in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from pytask import states, wire
from pytask.errors import InvalidInputError, StoreUnavailable, TaskStateError
from pytask.names import check_queue_name, shown
from pytask.store.store import Store

BATCH = 250  # tasks
LIST = 10_000  # ended ids a reply
OPEN = frozenset(states.MOVES) - states.ENDED - {states.STOPPED}
ENDS, FAILED = states.ENDED | {states.STOPPED}, states.FAILED
PARKED = frozenset(state.encode() for state in states.PARKED)
RUNNING = states.RUNNING.encode()
HELD = states.HELD.encode()

Id = str | bytes
Progress = Callable[[int, int], Any]


class MassControl:
    """The helpers for many tasks. `queue=None`: every queue that there is. Names and states narrow the choice."""

    store: Store
    queues: tuple[str, ...]

    def stop_tasks(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        state: str | Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Stop all tasks that wait, are due, will be retried or run; returns how many were asked. Does not wait.

        Of every queue: workflows too, before their tasks, so that none of these is followed by another.
        `name`: those called so. `state`: those that are in it, or in one of several. `progress` is called after
        each batch with how many were looked at, and of how many, about. Raises TaskStateError for a state in which
        there is nothing to stop.
        """
        wanted, chosen = _check_name(name), _check_states(state, OPEN)
        asked = 0
        workflows = self._open_workflows() if queue is None else ()
        for place, ids in chain(workflows, self._batches_of(queue, progress, _Open(self.store))):
            answers = self.store.records.stop_each(ids, wanted, chosen)
            rows = [(i, answer) for i, answer in zip(ids, answers, strict=True) if answer[0] == b"ok"]
            self._follow_up(place, rows)
            asked += sum(answer[5] == b"1" for _, answer in rows)
        return asked

    def _open_workflows(self) -> Iterator[tuple[str, list[bytes]]]:
        """Workflows that have not ended; between their steps they are in no queue."""
        ids: list[bytes] = []
        while page := self.store.workflows.get_open(len(ids), LIST):
            ids += page
        return (("", batch) for batch in _batches(ids))

    def stop_each(self, ids: Iterable[Id]) -> int:
        """Stop these tasks, whether they wait or run; returns how many were asked. Does not wait for that.

        Those that have ended, and those that are not there, are passed over.
        """
        asked = 0
        for batch in _batches([wire.id_to_bytes(task_id) for task_id in ids]):
            answers = self.store.records.stop_each(batch, "", ())
            rows = [(i, answer) for i, answer in zip(batch, answers, strict=True) if answer[0] == b"ok"]
            homes = defaultdict(list)
            for task_id, answer in rows:
                homes[self.store.keys.queue_of_record(b"", answer[3])].append((task_id, answer))
            for home, group in homes.items():
                self._follow_up(home, group)
            asked += sum(answer[5] == b"1" for _, answer in rows)
        return asked

    def _follow_up(self, place: str, rows: Sequence[tuple[bytes, list[bytes]]]) -> None:
        """Let no stop get lost, and bring back what is parked, so that it is obeyed now."""
        running, parked, steering = defaultdict(list), defaultdict(list), defaultdict(list)
        for task_id, (_, state, at, _, fence, _) in rows:
            ran_in = self.store.keys.queue_of_key(at)
            home = place if ran_in is None else ran_in
            if state == RUNNING:
                running[home].append((task_id, fence))
            elif state in PARKED:
                parked[home].append(task_id)
            elif state == HELD and fence:  # what steers others: its next run stops them
                steering[home].append(task_id)
        for home, pairs in running.items():
            self.store.claims(home).note_stops(pairs)
        for home, ids in parked.items():
            self.store.claims(home).nudge_each(ids)
        for home, ids in steering.items():
            self.store.queues.push(home, ids)

    def restart_all(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        states: str | Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Let ended tasks run again, in the queues they ran in; returns how many.

        `name`: those called so. `states`: those that ended so; all that failed (ERROR, EXCEPTION, TIMEOUT,
        EXPIRED, LOST) unless told otherwise. Those are found that the queues remember (`keep_ended`) and whose
        records are still there. `progress`: as with `stop_tasks`. Raises TaskStateError for one that is no end.
        """
        wanted, chosen = _check_name(name), _check_states(states, ENDS) or sorted(FAILED)
        count = 0
        for place, ids in self._batches_of(queue, progress, _Ended(self.store)):
            count += self._restart_batch(place, ids, wanted, chosen)
        return count

    def _restart_batch(self, place: str, ids: Sequence[bytes], name: str, allowed: Sequence[str]) -> int:
        try:
            answers = self.store.with_patience(0).records.restart_each(ids, name, allowed)
        except StoreUnavailable:  # those that wait by now: a push of what waits harms nothing
            answers = self.store.records.restart_each(ids, name, [*allowed, states.WAIT])
        homes: dict[str, list[bytes]] = defaultdict(list)
        for task_id, answer in zip(ids, answers, strict=True):
            if answer[0] == b"ok":
                ran_in = self.store.keys.queue_of_key(answer[2])
                homes[place if ran_in is None else ran_in].append(task_id)
        for home, restarted in homes.items():
            self.store.queues.push(home, restarted)
            self.store.queues.forget_ended(home, restarted)
        return sum(map(len, homes.values()))

    def _batches_of(
        self, queue: str | None, progress: Progress | None, source: _Open | _Ended
    ) -> Iterator[tuple[str, list[bytes]]]:
        """Batches of ids, each with its queue; each is told of when it is done."""
        names = self._names_of(queue)
        done, total = 0, sum(source.count(name) for name in names) if progress else 0
        for name in names:
            for ids in source.iterate(name):
                for start in range(0, len(ids), BATCH):
                    batch = ids[start : start + BATCH]
                    yield name, batch
                    done += len(batch)
                    if progress:
                        progress(done, max(total, done))

    def _names_of(self, queue: str | None) -> list[str]:
        if queue is not None:
            return [check_queue_name(queue)]
        return sorted({*self.queues, *self.store.queues.find()})


class _Open:
    """Where ids are that have not ended."""

    def __init__(self, store: Store) -> None:
        self.count = store.queues.count_open
        self.iterate = store.queues.iter_open


class _Ended:
    """Where ids are that have: all of a queue are read before the first is touched, since they move."""

    def __init__(self, store: Store) -> None:
        self.queues = store.queues
        self.count = store.queues.count_ended

    def iterate(self, queue: str) -> Iterator[list[bytes]]:
        """The oldest first."""
        ids: list[bytes] = []
        while page := self.queues.get_oldest_ended(queue, LIST, len(ids)):
            ids += page
        yield ids


def _batches(ids: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def _check_name(name: object) -> str:
    if name is None:
        return ""
    if not (isinstance(name, str) and name):
        raise InvalidInputError(f"name is the name of a task, not {shown(name)}")
    return name


def _check_states(given: str | Iterable[str] | None, allowed: Iterable[str]) -> list[str]:
    names = [] if given is None else [given] if isinstance(given, str) else list(given)
    for state in names:
        if state not in allowed:
            raise TaskStateError(f"{shown(state)} is none of the states {', '.join(sorted(allowed))}")
    if given is not None and not names:
        raise TaskStateError("name one state or more, or leave them out")
    return names
