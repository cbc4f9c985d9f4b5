"""Results that are still to come: which records to read when, and what follows from them. Pure.

The rule that no end can slip through: subscribe, then read, and read again whenever an end is told and whenever
the subscription stands anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice

from pytask import wire
from pytask.errors import PyTaskError, TaskGone, TaskTimeout
from pytask.interest import News
from pytask.keys import Keys
from pytask.result import TASK, Result, kind_of, of_event, of_record, tells_of_end

BATCH = 500  # records a round trip
AGAIN = 1.0  # seconds until a record that could not be read is read again
SETTLE = 0.2  # seconds in which the event of an end may still arrive, where the record went with it
End = Result | TaskGone


class Collection:
    """The tasks whose ends are waited for: those of `open` have not ended as far as is known.

    `kind` is what those are called of which there was no record yet.
    """

    def __init__(self, keys: Keys, ids: Iterable[bytes], kind: str = TASK) -> None:
        self._kind = kind
        self._kinds: dict[bytes, str] = {}  # of those that a record says are something else
        self._by_channel = {keys.task(task_id): task_id for task_id in ids}
        self.open = dict.fromkeys(self._by_channel.values())
        self._total = len(self.open)
        self._doubtful = dict.fromkeys(self.open)  # to be read
        self._told: dict[bytes, Result] = {}  # by an event
        self._unread = False  # could a record not be read?
        self._listens = False  # does the subscription stand?
        self._missing: dict[bytes, float] = {}  # whose records have gone: since which monotonic second

    @property
    def channels(self) -> list[bytes]:
        """The channels of those that are open."""
        return [channel for channel, task_id in self._by_channel.items() if task_id in self.open]

    def note(self, news: News) -> None:
        """Take in what the subscription told."""
        self._listens = True
        if news.renewed:
            self._doubtful.update(self.open)
        elif self._missing:
            self._doubtful.update(dict.fromkeys(self._missing))
        for channel, message in news.messages:
            task_id = self._by_channel[channel]
            if task_id in self.open:
                told = of_event(task_id, message)
                if told is not None:
                    self._told[task_id] = told
                if told is not None or tells_of_end(message):
                    self._doubtful[task_id] = None

    def take_doubtful(self) -> list[bytes]:
        """Some ids whose records are to be read now."""
        ids = list(islice(self._doubtful, BATCH))
        for task_id in ids:
            del self._doubtful[task_id]
        return ids

    def put_back(self, ids: Iterable[bytes]) -> None:
        """Their records could not be read."""
        self._doubtful.update(dict.fromkeys(ids))
        self._unread = True

    def seconds_to_wait(self, most: float) -> float:
        """How long to wait for news, at most."""
        if self._missing:
            return SETTLE
        return AGAIN if self._unread else most

    def judge(
        self, ids: Sequence[bytes], rows: Sequence[Sequence[bytes | None] | None]
    ) -> list[tuple[bytes, End]]:
        """The ends that records tell (None: there is none), in the order of the ids."""
        self._unread = False
        found = []
        for task_id, row in zip(ids, rows, strict=True):
            told = self._told.pop(task_id, None)
            if row is not None and kind_of(row) != self._kind:
                self._kinds[task_id] = kind_of(row)
            end = self._without_record(task_id, told) if row is None else of_record(task_id, row)
            if end is not None:
                self._missing.pop(task_id, None)
                del self.open[task_id]
                found.append((task_id, end))
        return found

    def _without_record(self, task_id: bytes, told: Result | None) -> End | None:
        """The event of the end has what the record held; it may be on its way still, where somebody listens."""
        since = self._missing.setdefault(task_id, time.monotonic())
        kind = self._kinds.get(task_id, self._kind)
        if told is not None:
            return told._replace(kind=kind)
        return None if self._listens and time.monotonic() - since < SETTLE else gone(task_id, kind)

    def too_late(self, timeout: float | None) -> TaskTimeout:
        """The error that says that they have not ended in time."""
        if self._total == 1:
            (task_id,) = self.open
            return too_late(task_id, timeout, self._kinds.get(task_id, self._kind))
        return TaskTimeout(
            f"{len(self.open)} of {self._total} tasks have not ended within {timeout:g} s; they go on"
        )


def too_late(task_id: bytes, timeout: float | None, kind: str = TASK) -> TaskTimeout:
    """The error that says that one has not ended in time."""
    return TaskTimeout(f"{kind} {wire.shown(task_id)} has not ended within {timeout:g} s; it goes on")


def gone(task_id: bytes, kind: str = TASK) -> TaskGone:
    """The error that says that there is no record."""
    return TaskGone(
        f"there is no record of the {kind} {wire.shown(task_id)}:"
        " its result is not kept any more (see result_ttl), or there never was one"
    )


def in_order_of_ends(ends: Iterable[tuple[bytes, End]]) -> list[tuple[bytes, End]]:
    """As their records tell it; what has no record comes first."""
    return sorted(ends, key=lambda pair: pair[1].ended if isinstance(pair[1], Result) else 0.0)


def output_of(end: End | PyTaskError) -> object:
    """What the task returned. Raises TaskFailed, TaskGone, or what stands in place of the end."""
    if isinstance(end, PyTaskError):
        raise end
    return end.get()
