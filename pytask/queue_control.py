"""Queue control: what helpers do with whole queues: pause, resume, purge, look, and the list of dead ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pytask import wire
from pytask.errors import InvalidInputError, StoreRefused
from pytask.names import check_queue_name, queue_label
from pytask.store.queues import Figures
from pytask.store.store import Store

DEAD_BATCH = 500  # ids a call
PAGE = 100  # ids that `get_ended` returns unless asked for more

Id = str | bytes
Progress = Callable[[int, int], Any]


class QueueControl:
    """The helpers for queues. `queue` is a name; `''` or `'default'` is the default queue."""

    store: Store
    queues: tuple[str, ...]

    def pause_queue(self, queue: str = "") -> None:
        """Let nothing of a queue start, on any node, from now on until it is resumed.

        What runs goes on, what is pushed or due waits in the queue. Safe to repeat.
        """
        self.store.queues.pause(check_queue_name(queue), time.time())

    def resume_queue(self, queue: str = "") -> bool:
        """Let tasks of a queue start again, on every node within half a second; False where it was not paused."""
        return self.store.queues.resume(check_queue_name(queue))

    def purge_queue(self, queue: str = "", *, scheduled: bool = False, progress: Progress | None = None) -> int:
        """Remove what waits in a queue, with the records; returns how many tasks are gone.

        The queue is empty at once; records are removed in batches, after each of which `progress` is called with
        how many are done and how many there are. With `scheduled` tasks that wait for a time are removed as well.
        What runs goes on. A purge that was interrupted is carried on by the next one.
        """
        purge = self.store.purge(check_queue_name(queue))
        total = purge.set_aside(scheduled=scheduled)
        done = gone = 0
        while (batch := purge.remove_some()) is not None:
            done, gone = done + batch[0], gone + batch[1]
            if progress:
                progress(done, max(total, done))
        return gone

    def get_queues(self, *, find: bool = True) -> dict[str, dict[str, Any]]:
        """How each queue stands, by name (`'default'` for the default queue).

        Each is a dict of `waiting`, `running`, `due`, `dead`, `purging` (numbers of ids), `nodes` (how many serve
        it), `paused` (since when, epoch seconds; 0 where nobody knows; None where it is not) and `ended` (how many
        so far, by state); with a key of a wrong type, of `error` alone. `find` looks for queues that this app does
        not name, among all keys of the servers: about a second for each million.
        """
        names = {*self.queues, *(self.store.queues.find() if find else ())}
        return {queue_label(name): self._figures(name) for name in sorted(names)}

    def _figures(self, queue: str) -> dict[str, Any]:
        try:
            return _told(self.store.queues.get_figures(queue))
        except StoreRefused as error:
            if "WRONGTYPE" not in str(error):
                raise
            return {"error": str(error)}

    def requeue_dead(self, queue: str = "", ids: Iterable[Id] | None = None) -> int:
        """Push ids of a queue's dead list again (None: all of them, the oldest first); how many went."""
        queue, queues = check_queue_name(queue), self.store.queues
        if ids is None:
            return _in_parts(queues.count_dead(queue), lambda most: queues.requeue_dead(queue, most=most))
        return sum(queues.requeue_dead(queue, batch) for batch in _batches(ids))

    def drop_dead(self, queue: str = "", ids: Iterable[Id] | None = None) -> int:
        """Take ids off a queue's dead list (None: all of them); how many stood there. Their keys stay."""
        queue, queues = check_queue_name(queue), self.store.queues
        if ids is None:
            return _in_parts(queues.count_dead(queue), lambda most: queues.drop_oldest_dead(queue, most))
        return sum(queues.drop_dead(queue, batch) for batch in _batches(ids))

    def get_ended(self, queue: str = "", most: int = PAGE, offset: int = 0) -> list[tuple[str, float]]:
        """Ids that ended and when (epoch seconds), the newest first, after the first `offset` of them.

        The newest `keep_ended` are known; the record of one may be gone, or it may wait again.
        """
        rows = self.store.queues.get_ended(check_queue_name(queue), most, max(offset, 0))
        return [(wire.id_to_str(raw), when) for raw, when in rows]


def _told(figures: Figures) -> dict[str, Any]:
    paused = None if figures.paused is None else _seconds(figures.paused)
    ended = {wire.to_str(state): int(count) for state, count in sorted(figures.ended.items()) if count.isdigit()}
    return {**figures._asdict(), "paused": paused, "ended": ended}


def _seconds(raw: bytes) -> float:
    """Whatever somebody wrote there pauses the queue."""
    try:
        seconds = float(raw)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < 1e12 else 0.0


def _raw(task_id: Id) -> bytes:
    """An id as it stands on the dead list, where also those stand that are no good as ids."""
    if not isinstance(task_id, str | bytes):
        raise InvalidInputError(f"an id is a str or bytes, not {type(task_id).__name__}")
    return task_id if isinstance(task_id, bytes) else task_id.encode("utf-8", "surrogateescape")


def _in_parts(count: int, take: Callable[[int], int]) -> int:
    """Take so many, in parts: what comes back meanwhile is not taken again."""
    taken = 0
    while taken < count and (part := take(min(count - taken, DEAD_BATCH))):
        taken += part
    return taken


def _batches(ids: Iterable[Id]) -> Iterator[list[bytes]]:
    if isinstance(ids, str | bytes):
        raise InvalidInputError("ids is a list of ids, not one of them")
    raws = list(map(_raw, ids))
    for start in range(0, len(raws), DEAD_BATCH):
        yield raws[start : start + DEAD_BATCH]
