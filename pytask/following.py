"""Following: what a task tells while it runs, and messages into it.

What is kept of a task's events comes first, then what it tells from now on, without a gap or a repeat among those
that are kept: subscribe, read the stream, and skip what comes a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Event
from typing import Any

from pytask import states, wire
from pytask.collection import SETTLE, gone, too_late
from pytask.errors import InvalidInputError, StoreUnavailable, TaskGone
from pytask.handle import Id, kind_of_handle
from pytask.interest import News, Watch
from pytask.result import FIELDS, Result, kind_of, of_record
from pytask.store.store import Store
from pytask.story import Story, TaskEvent
from pytask.waiting import LOOK_EVERY, Deadline, Waiting, place_lent

PAGE = 500  # kept events a round trip
AGAIN = 1.0  # seconds until a server that did not answer is asked again


class Following:
    """The helpers that watch one task and talk to it."""

    store: Store
    waiting: Waiting
    max_data: int

    def get_state(self, task_id: Id) -> str | None:
        """The state of a task; None where there is no record. One that says nothing waits."""
        raw = wire.id_to_bytes(task_id)
        (row,) = self.store.records.get_each([raw], ("state",))
        return None if row is None else wire.to_str(row[0] or states.WAIT.encode())

    def get_progress(self, task_id: Id) -> Any:
        """The newest progress that a task has told; None where there is none."""
        return read_progress(self.store.records.get_fields(wire.id_to_bytes(task_id), ("progress",))[0])

    def send_to_task(self, task_id: Id, message: Mapping[str, Any]) -> int:
        """Send a message, which becomes a JSON object, to a task that runs: its `on_message` takes it.

        Returns to how many subscribers the server has handed it: every node is one, so that 0 says that no node
        lives. On a cluster the number says nothing. It may be lost: let the task answer with an event. Raises
        InvalidInputError.
        """
        return self.store.records.control(wire.id_to_bytes(task_id), encode_message(message, self.max_data))

    def get_events(self, task_id: Id) -> list[TaskEvent]:
        """The events of a task that are kept (`keep_events`), the oldest first: what it emitted and logged."""
        raw = wire.id_to_bytes(task_id)
        story = Story(wire.id_to_str(raw))
        told: list[TaskEvent] = []
        while rows := self.store.records.get_kept(raw, story.last, PAGE):
            told += story.iter_kept(rows)
            if len(rows) < PAGE:
                break
        return told

    def get_logs(self, task_id: Id) -> list[dict[str, Any]]:
        """What a task has logged, as far as it is kept, the oldest line first.

        Each line is a dict of `time` (epoch seconds), `level`, `logger` and `message`.
        """
        lines = [event.data for event in self.get_events(task_id) if event.event == "log"]
        return [line for line in map(_read_line, lines) if line is not None]

    def follow_task(
        self, task_id: Id, *, replay: bool = True, timeout: float | None = None
    ) -> Iterator[TaskEvent]:
        """The events of a task until it has ended: those that are kept, then the new ones as they come.

        `replay=False` leaves out what is kept. Raises TaskTimeout after `timeout` seconds, and TaskGone where
        there is no record, or none any more.
        """
        kind = kind_of_handle(task_id)
        return _Follower(self, wire.id_to_bytes(task_id), replay, Deadline(timeout), kind).run()


def _read_line(data: Any) -> dict[str, Any] | None:
    """A line out of the data of its event; None for what is none: any program may write to the stream."""
    if not isinstance(data, dict) or not isinstance(data.get("message"), str):
        return None
    when = data.get("time")
    told = when if isinstance(when, int | float) and not isinstance(when, bool) else None
    texts = {name: value if isinstance(value := data.get(name), str) else "" for name in ("level", "logger")}
    return {"time": told, **texts, "message": data["message"]}


def read_progress(raw: bytes | None) -> Any:
    """What the field `progress` tells; text that is no JSON as it is."""
    if raw is None:
        return None
    try:
        return wire.decode_json(raw)
    except wire.WireError:  # a producer may have written anything
        return wire.to_str(raw)


def encode_message(message: Mapping[str, Any], limit: int) -> bytes:
    """A message into a task, as it is published. Raises InvalidInputError."""
    if not isinstance(message, Mapping):
        raise InvalidInputError(f"a message to a task is a dict, not {type(message).__name__}")
    try:
        return wire.encode_json(dict(message), limit)
    except wire.WireError as error:
        raise InvalidInputError(f"the message {error}") from error


class _Follower:
    """One call of `follow_task`."""

    def __init__(self, helpers: Following, raw: bytes, replay: bool, deadline: Deadline, kind: str) -> None:
        self._records = helpers.store.records
        self._waiting = helpers.waiting
        self._channel = helpers.store.keys.task(raw)
        self._raw = raw
        self._replay = replay
        self._deadline = deadline
        self._kind = kind  # what it is called, until its record says that
        self._story = Story(wire.id_to_str(raw))
        self._unread = False  # could the record, or what is kept, not be read?
        self._gone: Deadline | None = None  # the record has gone: until when its event may arrive

    def run(self) -> Iterator[TaskEvent]:
        """The events. Closing it leaves nothing behind."""
        settle = SETTLE if self._read_end() is None else 0.0
        with self._waiting.watch([self._channel], is_any) as watch:
            while True:
                news = self._wait(watch)
                yield from self._iter_news(news)
                result = self._find_end(news)
                if result is not None:
                    yield from self._iter_last(watch, result, settle)
                    return
                if self._deadline.is_over:
                    raise too_late(self._raw, self._deadline.timeout, self._kind)

    def _wait(self, watch: Watch[Event]) -> News:
        with place_lent():
            return self._waiting.wait(watch, self._deadline, self._most())

    def _most(self) -> float:
        """Seconds to wait for news."""
        if self._gone is not None:
            return SETTLE
        return AGAIN if self._unread else LOOK_EVERY

    def _iter_news(self, news: News) -> Iterator[TaskEvent]:
        self._unread = False
        if news.renewed and self._replay:
            yield from self._iter_kept()
        yield from self._story.iter_heard(message for _, message in news.messages)

    def _iter_kept(self) -> Iterator[TaskEvent]:
        rows: list[tuple[bytes, bytes]] = []
        while not rows or len(rows) == PAGE:
            try:
                rows = self._records.get_kept(self._raw, self._story.last, PAGE)
            except StoreUnavailable:
                self._unread = True
                return
            yield from self._story.iter_kept(rows)
            if not rows:
                return

    def _find_end(self, news: News) -> Result | None:
        """The end, where there may be one. Raises TaskGone."""
        if not (self._story.take_end_sign() or news.renewed or self._gone):
            return None
        try:
            return self._read_end()
        except StoreUnavailable:
            self._unread = True
            return None
        except TaskGone:
            self._gone = self._gone or Deadline(SETTLE)
            if self._story.told_end is None and self._gone.is_over:
                raise
            return self._story.told_end  # or None: the event of the end may be on its way

    def _read_end(self) -> Result | None:
        (row,) = self._records.get_each([self._raw], FIELDS)
        if row is None:
            raise gone(self._raw, self._kind)
        self._kind = kind_of(row)
        return of_record(self._raw, row)

    def _iter_last(self, watch: Watch[Event], result: Result, settle: float) -> Iterator[TaskEvent]:
        """The end, as it was published where that arrives within `settle` seconds, else as the record tells it."""
        deadline = Deadline(settle)
        while not self._story.has_told(result):
            if deadline.is_over:
                yield self._story.tell_end(result)
                return
            yield from self._iter_news(self._waiting.wait(watch, deadline))


def is_any(_message: bytes) -> bool:
    """Every message is wanted."""
    return True
