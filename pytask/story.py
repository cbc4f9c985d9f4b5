"""The events of one task in their order, out of what is kept and what arrives, each once. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pytask import states, wire
from pytask.result import Result, of_event_parts

FIRST = b"0-0"  # before all kept events


class TaskEvent(NamedTuple):
    """An event of a task. `id`: its place among those that are kept, None for others; `time`: epoch seconds.

    The time of a kept event is the server's, that of another one is when it arrived.
    """

    event: str
    data: Any
    id: str | None
    time: float

    @property
    def state(self) -> str:
        """The state of which it tells; `''` for others."""
        state = self.event.upper()
        return state if state in states.MOVES else ""


class Story:
    """What is told of one task. `last` is the id of the newest kept event that was told."""

    def __init__(self, task_id: str) -> None:
        self.last = FIRST
        self.told_end: Result | None = None  # the newest state that was told, where it is that of an end
        self._id = task_id
        self._is_news = False  # was it heard, not read?
        self._is_new = False

    def take_end_sign(self) -> bool:
        """Was an end told since this was asked last? The record says whether it is the end of the task."""
        is_new, self._is_new = self._is_new, False
        return is_new

    def iter_kept(self, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[TaskEvent]:
        """Kept events as the stream has them: id and event."""
        for event_id, raw in rows:
            if _place(event_id) > _place(self.last):
                self.last = event_id
                event = _event(raw)
                if event is not None:
                    yield self._tell(event._replace(id=event_id.decode(), time=_place(event_id)[0] / 1000), False)

    def iter_heard(self, messages: Iterable[bytes]) -> Iterator[TaskEvent]:
        """Events as they were published, but for those that were told already."""
        for raw in messages:
            event = _event(raw)
            if event is None:
                continue
            if event.id is not None:
                if _place(event.id.encode()) <= _place(self.last):
                    continue
                self.last = event.id.encode()
                event = event._replace(time=_place(self.last)[0] / 1000)
            yield self._tell(event, True)

    def _tell(self, event: TaskEvent, is_news: bool) -> TaskEvent:
        if event.state:
            self._is_news = is_news
            self.told_end = of_event_parts(self._id, event.event, event.data, event.time)
            self._is_new = self._is_new or self.told_end is not None
        return event

    def has_told(self, result: Result) -> bool:
        """Was this end the last that was told? One that is kept may be that of an earlier run."""
        told = self.told_end
        return (
            told is not None and told.state == result.state and (self._is_news or data_of(told) == data_of(result))
        )

    def tell_end(self, result: Result) -> TaskEvent:
        """The event of an end that was missed, as it was published."""
        return TaskEvent(result.state.lower(), data_of(result), None, result.ended or time.time())


def data_of(result: Result) -> Any:
    """What the event of an end carries."""
    if result.state == states.SUCCESS:
        return result.get()
    return result.output or None


def _event(raw: bytes) -> TaskEvent | None:
    try:
        value = wire.decode_object(raw)
    except wire.WireError:
        return None  # somebody else's
    name, place = value.get("event"), value.get("id")
    if not isinstance(name, str):
        return None
    known = place if isinstance(place, str) and _place(place.encode()) > (0, 0) else None
    return TaskEvent(name, value.get("data"), known, time.time())


def _place(event_id: bytes) -> tuple[int, int]:
    """Two numbers that order the ids of a stream; (0, 0) for what is no such id."""
    first, dash, second = event_id.partition(b"-")
    if dash and first.isdigit() and second.isdigit() and len(event_id) <= 41:
        return int(first), int(second)
    return 0, 0
