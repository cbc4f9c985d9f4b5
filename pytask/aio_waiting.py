"""Waiting for what tasks tell, in an asyncio loop: one subscription for all waiters, kept by one task of the loop.

The counterpart of `waiting`, under the same rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from pytask.errors import StoreRefused, StoreUnavailable
from pytask.interest import Interest, News, Watch
from pytask.waiting import CLOSE_SECONDS, FIRST_DELAY, LAST_DELAY, LINGER, LOOK_EVERY, Deadline

if TYPE_CHECKING:
    from pytask.store.aio_client import AioClient
    from pytask.store.aio_subscription import AioSubscription


class AioWaiting:
    """The waiters of one client, which belongs to one loop."""

    def __init__(self, client: AioClient) -> None:
        self._client = client
        self._wishes: deque[tuple[bool, Watch[Any]]] = deque()
        self._interest = Interest()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @contextlib.asynccontextmanager
    async def watch(
        self, channels: Iterable[bytes], accepts: Callable[[bytes], bool]
    ) -> AsyncIterator[Watch[asyncio.Event]]:
        """Listen to channels, to those messages that are accepted. The first news: the subscription stands."""
        watch = Watch(channels, accepts, asyncio.Event())
        self._wishes.append((True, watch))
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        self._wake.set()
        try:
            yield watch
        finally:
            self._wishes.append((False, watch))

    async def wait(self, watch: Watch[asyncio.Event], deadline: Deadline, most: float = LOOK_EVERY) -> News:
        """The next news; empty ones when the time is over. See `waiting.Waiting.wait`."""
        try:
            async with asyncio.timeout(min(deadline.left, most)):
                await watch.alarm.wait()
        except TimeoutError:
            return watch.take() if deadline.is_over else News(True, watch.take().messages)
        return watch.take()

    async def close(self) -> None:
        """Close the connection; who waits gets StoreUnavailable. Safe to repeat, and it can be used again."""
        task = self._task
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=CLOSE_SECONDS)

    # The task.

    async def _run(self) -> None:
        delay, failed = FIRST_DELAY, False
        try:
            while True:
                subscription = None
                try:
                    if failed:
                        await self._client.execute("PING")  # finds out where the servers are by now
                    subscription = await self._client.subscribe()
                    delay, failed = FIRST_DELAY, True
                    await self._serve(subscription)
                except StoreUnavailable:
                    self._interest.lose()
                except StoreRefused as error:
                    self._take_wishes()
                    self._interest.refuse(error)
                    self._interest.lose()
                finally:
                    if subscription is not None:
                        await subscription.close()
                if not self._interest and not self._wishes:
                    return
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, LAST_DELAY)
        finally:
            self._end()

    async def _serve(self, subscription: AioSubscription) -> None:
        """Until nobody has waited for LINGER seconds. Raises StoreUnavailable, StoreRefused."""
        idle_since = time.monotonic()
        while True:
            self._wake.clear()
            self._take_wishes()
            if self._interest:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > LINGER:
                return
            while command := self._interest.take_command():
                await subscription.send(command)
            for reply in await subscription.read(LINGER, self._wake):
                self._interest.feed(reply)

    def _take_wishes(self) -> None:
        self._interest.take_wishes(self._wishes)

    def _end(self) -> None:
        """Nobody is to wait for ever for a task that has ended, whatever ended it."""
        self._task = None
        self._take_wishes()
        problem = StoreUnavailable("Redis: the connection was closed while a task was waited for")
        for watch in self._interest.watches:
            watch.refuse(problem)
            self._interest.remove(watch)
        self._interest = Interest()
