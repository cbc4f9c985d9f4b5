"""What asyncio programs say to Redis: the counterpart of the store, as far as producers and watchers need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytask.errors import StoreRefused, StoreUnavailable
from pytask.keys import Keys
from pytask.store.aio_client import AioClient
from pytask.store.client import as_dict
from pytask.store.queues import NewRecord, push_of, writes_of
from pytask.store.records import ANY_FENCE


class AioStore:
    """Everything in one namespace, over one client."""

    def __init__(self, client: AioClient, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    async def create(self, records: Sequence[NewRecord], queue: str, *, first: bool = False) -> None:
        """Write records and push their ids; safe to repeat. `first`: before all that wait."""
        push = push_of(self.keys, records, queue, first=first)
        if self.client.one:
            try:
                await self.client.pipeline([*writes_of(self.keys, records), push], 0)
                return
            except StoreUnavailable:
                # the push may have arrived: a record whose task runs by now, or has ended, must not be set to WAIT
                records = [record._replace(new=False) for record in records]
        await self.client.pipeline(writes_of(self.keys, records))
        await self.client.execute(*push)

    async def push(self, queue: str, task_id: bytes) -> None:
        """Push an id."""
        await self.client.execute("LPUSH", self.keys.queue(queue).key, task_id)

    async def stop(self, task_id: bytes) -> list[bytes]:
        """Ask for the end of a task, as `stop.lua` says."""
        answer, repeated = await self._call_again("stop", task_id, (), ())
        if repeated and answer == [b"ended", b"STOPPED"]:
            answer[0] = b"ok"
        return answer

    async def restart(self, task_id: bytes, states: Sequence[str]) -> list[bytes]:
        """Set WAIT where the state is one of `states` (none: whatever it is), as `Records.restart` does."""
        first: Sequence[Any] = (ANY_FENCE, *states)
        again = first if states else (await self._get_fence(task_id),)
        answer, repeated = await self._call_again("restart", task_id, first, again)
        if repeated and answer[:2] == [b"refused", b"WAIT"]:
            answer[0] = b"ok"
        return answer

    async def _get_fence(self, task_id: bytes) -> bytes:
        try:
            return await self.get_field(task_id, "fence") or b""
        except StoreRefused:  # it is no record: the script says so
            return b""

    async def _call_again(
        self, name: str, task_id: bytes, args: Sequence[Any], again: Sequence[Any]
    ) -> tuple[list[bytes], bool]:
        """The reply of a script, and whether it was sent again: it may then tell what the first one did."""
        keys = (self.keys.task(task_id),)
        try:
            return list((await self.client.call(name, keys, ("", *args), 0))[0]), False
        except StoreUnavailable:
            return list((await self.client.call(name, keys, ("", *again)))[0]), True

    async def note_stop(self, queue: str, task_id: bytes, fence: bytes) -> None:
        """Note a stop where the beat of the owner finds it."""
        k = self.keys.queue(queue)
        await self.client.call("note_stop", (k.claims, k.control), (task_id, fence))

    async def nudge(self, queue: str, task_id: bytes) -> None:
        """Bring a parked id back at once."""
        k = self.keys.queue(queue)
        await self.client.call("nudge", (k.key, k.claims, k.due, k.again), (task_id,))

    async def control(self, task_id: bytes, message: str | bytes) -> int:
        """Publish a message on the task's control channel. How many the server handed it to."""
        return int(await self.client.execute("PUBLISH", self.keys.control(task_id), message))

    async def get(self, task_id: bytes) -> dict[bytes, bytes]:
        """The whole record; empty where there is none."""
        return as_dict(await self.client.execute("HGETALL", self.keys.task(task_id)))

    async def get_field(self, task_id: bytes, name: str) -> bytes | None:
        """One field of a record."""
        (value,) = await self.client.execute("HMGET", self.keys.task(task_id), name)
        return value  # type: ignore[no-any-return]

    async def get_each(self, ids: Sequence[bytes], fields: Sequence[str]) -> list[list[bytes | None] | None]:
        """Fields of many records, in one round trip or two; None for each record that is not there."""
        keys = [self.keys.task(task_id) for task_id in ids]
        rows: list[Any] = await self.client.pipeline([("HMGET", key, *fields) for key in keys])
        blank = [n for n, row in enumerate(rows) if not any(row)]
        if blank:  # some may have other fields
            there = await self.client.pipeline([("EXISTS", keys[n]) for n in blank])
            for n in (n for n, found in zip(blank, there, strict=True) if not found):
                rows[n] = None
        return rows

    async def get_kept(self, task_id: bytes, after: bytes, most: int) -> list[tuple[bytes, bytes]]:
        """Kept events (id, event) behind the id `after`, the oldest first; at most so many."""
        key = self.keys.events(task_id)
        if not key:
            return []
        rows = await self.client.execute("XRANGE", key, b"(" + after, b"+", "COUNT", most)
        return [(event_id, as_dict(words).get(b"event", b"")) for event_id, words in rows]
