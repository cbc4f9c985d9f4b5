"""Following one task from asyncio: the counterpart of `following`, under the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from pytask import wire
from pytask.aio_waiting import AioWaiting
from pytask.collection import SETTLE, gone, too_late
from pytask.errors import StoreUnavailable, TaskGone
from pytask.following import AGAIN, PAGE, is_any
from pytask.interest import News, Watch
from pytask.result import FIELDS, TASK, Result, kind_of, of_record
from pytask.store.aio_store import AioStore
from pytask.story import Story, TaskEvent
from pytask.waiting import LOOK_EVERY, Deadline


class AioFollower:
    """One call of `events`."""

    def __init__(self, store: AioStore, waiting: AioWaiting, raw: bytes, replay: bool, deadline: Deadline) -> None:
        self._store = store
        self._waiting = waiting
        self._raw = raw
        self._replay = replay
        self._deadline = deadline
        self._kind = TASK  # what it is called, until its record says that
        self._story = Story(wire.id_to_str(raw))
        self._unread = False  # could the record, or what is kept, not be read?
        self._gone: Deadline | None = None  # the record has gone: until when its event may arrive

    async def run(self) -> AsyncGenerator[TaskEvent, None]:
        """The events. Closing it leaves nothing behind."""
        settle = SETTLE if await self._read_end() is None else 0.0
        async with self._waiting.watch([self._store.keys.task(self._raw)], is_any) as watch:
            while True:
                news = await self._waiting.wait(watch, self._deadline, self._most())
                for event in await self._take_in(news):
                    yield event
                result = await self._find_end(news)
                if result is not None:
                    for event in await self._wait_for_last(watch, result, settle):
                        yield event
                    return
                if self._deadline.is_over:
                    raise too_late(self._raw, self._deadline.timeout, self._kind)

    def _most(self) -> float:
        """Seconds to wait for news."""
        if self._gone is not None:
            return SETTLE
        return AGAIN if self._unread else LOOK_EVERY

    async def _take_in(self, news: News) -> list[TaskEvent]:
        self._unread = False
        events: list[TaskEvent] = []
        if news.renewed and self._replay:
            events += await self._read_kept()
        return [*events, *self._story.iter_heard(message for _, message in news.messages)]

    async def _read_kept(self) -> list[TaskEvent]:
        events: list[TaskEvent] = []
        while True:
            try:
                rows = await self._store.get_kept(self._raw, self._story.last, PAGE)
            except StoreUnavailable:
                self._unread = True
                return events
            events += self._story.iter_kept(rows)
            if len(rows) < PAGE:
                return events

    async def _find_end(self, news: News) -> Result | None:
        """The end, where there may be one. Raises TaskGone."""
        if not (self._story.take_end_sign() or news.renewed or self._gone):
            return None
        try:
            return await self._read_end()
        except StoreUnavailable:
            self._unread = True
            return None
        except TaskGone:
            self._gone = self._gone or Deadline(SETTLE)
            if self._story.told_end is None and self._gone.is_over:
                raise
            return self._story.told_end  # or None: the event of the end may be on its way

    async def _read_end(self) -> Result | None:
        (row,) = await self._store.get_each([self._raw], FIELDS)
        if row is None:
            raise gone(self._raw, self._kind)
        self._kind = kind_of(row)
        return of_record(self._raw, row)

    async def _wait_for_last(self, watch: Watch[asyncio.Event], result: Result, settle: float) -> list[TaskEvent]:
        """The end, as it was published where that arrives within `settle` seconds, else as the record tells it."""
        deadline, events = Deadline(settle), list[TaskEvent]()
        while not self._story.has_told(result):
            if deadline.is_over:
                return [*events, self._story.tell_end(result)]
            events += await self._take_in(await self._waiting.wait(watch, deadline))
        return events
