"""Following events: one subscription that is made anew when Redis goes away, and how named tasks ended.

Pub/sub may lose messages. So the end of a task is read from its record: when an event tells of it, after each
reconnect, and every two seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pytask import states, wire
from pytask.cli.connect import Connection
from pytask.errors import StoreUnavailable
from pytask.keys import CONTROL_SUFFIX
from pytask.store.listener import Listener

FIRST_DELAY, LAST_DELAY = 0.1, 2.0  # seconds between tries to connect again
CHECK_EVERY = 2.0  # seconds between looks at the records
SETTLE = 0.2  # seconds in which the event of an end that was read may still arrive
CLOSED = states.CLOSED  # a stopped task sends no more events either
REMOVED = "REMOVED"  # in place of a state: there is no record


class Event(NamedTuple):
    """An event as it arrived. `time`: our own epoch seconds; `name` is None where it was no event at all."""

    time: float
    id: str
    name: str | None
    data: Any

    @property
    def state(self) -> str:
        """The state of which the event tells; `''` for others."""
        state = (self.name or "").upper()
        return state if state in states.MOVES else ""


def read_event(task_id: bytes, raw: bytes) -> Event:
    """The event in a message; one that holds anything else is kept as text."""
    label = wire.id_to_str(task_id)
    try:
        name, data = wire.decode_event(raw)
    except wire.WireError:
        return Event(time.time(), label, None, wire.to_str(raw))
    return Event(time.time(), label, name, data)


class Feed:
    """Events of these ids (none: of all tasks) from the moment it is made. Raises StoreUnavailable, StoreRefused.

    `tell` is called with a sentence when the connection is lost, and when it is back.
    """

    def __init__(self, connection: Connection, ids: Sequence[bytes], tell: Callable[[str], Any]) -> None:
        self.connection = connection
        self.ids = ids
        self.tell = tell
        self.connects = 0
        self._prefix = len(connection.store.keys.task(b""))
        self._lost = self._retry_at = 0.0
        self._delay = FIRST_DELAY
        self._listener: Listener | None = self._subscribe()

    def _subscribe(self) -> Listener:
        store = self.connection.store
        task = store.keys.task
        patterns = [] if self.ids else [task(b"*")]
        listener = store.listen(channels=[task(i) for i in self.ids], patterns=patterns, name="pytask:watch")
        self.connects += 1
        return listener

    def get(self, timeout: float) -> Event | None:
        """The next event; None where none came in `timeout` seconds, or while there is no connection."""
        if self._listener is None:
            self._try_again(timeout)
            return None
        try:
            message = self._listener.get(timeout)
        except StoreUnavailable as error:
            self._lose(error)
            return None
        if message is None or (not self.ids and message.channel.endswith(CONTROL_SUFFIX)):
            return None
        return read_event(message.channel[self._prefix :], message.data)

    def _lose(self, error: StoreUnavailable) -> None:
        self.close()
        self._lost, self._delay = time.monotonic(), FIRST_DELAY
        self._retry_at = self._lost + self._delay
        self.tell(f"the connection is lost, trying again: {error}")

    def _try_again(self, timeout: float) -> None:
        wait = self._retry_at - time.monotonic()
        if wait > 0:
            time.sleep(min(wait, timeout))
            return
        try:
            self._listener = self._subscribe()
        except StoreUnavailable:
            self._delay = min(self._delay * 2, LAST_DELAY)
            self._retry_at = time.monotonic() + self._delay
            return
        gap = time.monotonic() - self._lost
        self.tell(f"connected again; events of the last {gap:.1f} s may be missing")

    def close(self) -> None:
        """Close the subscription. Safe to repeat."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None


class Ends:
    """Which of some tasks have not ended yet, and as what the others did: `states`, by id.

    One that has no record counts as ended, as REMOVED.
    """

    def __init__(self, connection: Connection, ids: Sequence[bytes]) -> None:
        self.connection = connection
        self.open = {wire.id_to_str(task_id) for task_id in ids}
        self.states: dict[str, str] = {}
        self._suspects: dict[str, float] = {}  # ids whose end was read, and when
        self._next = 0.0
        self._connects = 0

    def add(self, task_id: str) -> None:
        """Look after this task too, whose record exists by now."""
        self.open.add(task_id)

    def note(self, event: Event) -> None:
        """Take in an event: where it tells of an end, the record decides (a restart may have been asked for)."""
        if event.id not in self.open or event.state not in CLOSED:
            return
        try:
            state = self._read(event.id)[0]
        except StoreUnavailable:
            self._next = 0.0
            return
        if state in CLOSED or state == REMOVED:
            self._close(event.id, state if state in CLOSED else event.state)

    def check(self, connects: int) -> list[Event]:
        """Look at the records when it is time to, or after a reconnect; an event for every end that had none."""
        now = time.monotonic()
        found: list[Event] = []
        if now < self._next and connects == self._connects:
            return found
        self._connects = connects
        try:
            for task_id in sorted(self.open):
                found += self._look(task_id, now)
        except StoreUnavailable:
            pass  # the feed tells of it, and the records are read again
        self._next = now + (SETTLE if self._suspects else CHECK_EVERY)
        return found

    def _look(self, task_id: str, now: float) -> list[Event]:
        state, output, ended = self._read(task_id)
        if state not in CLOSED and state != REMOVED:
            self._suspects.pop(task_id, None)
            return []
        if now - self._suspects.setdefault(task_id, now) < SETTLE:
            return []
        self._close(task_id, state)
        return [] if state == REMOVED else [_end(task_id, state, output, ended)]

    def _read(self, task_id: str) -> tuple[str, str, str]:
        """State, output and end of a task, as text."""
        get = self.connection.helpers.get_task
        record: dict[str, str | None] = get(task_id, ("state", "output", "ended"))
        state = record["state"]
        if state is None and get(task_id) is None:
            state = REMOVED
        return state or states.WAIT, record["output"] or "", record["ended"] or ""

    def _close(self, task_id: str, state: str) -> None:
        self.open.discard(task_id)
        self._suspects.pop(task_id, None)
        self.states[task_id] = state


def _end(task_id: str, state: str, output: str, ended: str) -> Event:
    """The end as its event told it, or would have."""
    data: Any = output or None
    if state == states.SUCCESS:
        with contextlib.suppress(wire.WireError):
            data = wire.decode_json(output.encode())
    return Event(_seconds(ended), task_id, state.lower(), data)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return time.time()
