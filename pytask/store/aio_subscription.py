"""AioSubscription: one pub/sub connection of asyncio whose channels change while it stands. One task of a loop
has it.

It never reconnects by itself, since what was sent in the gap is lost. A server that hangs is noticed by PING.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions

from pytask.errors import StoreUnavailable
from pytask.store.client import translated
from pytask.store.servers import pack
from pytask.store.subscription import PING_EVERY, PONG_WITHIN, READ, replies_in


class AioSubscription:
    """Subscribed to nothing at first. Made with `open`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reader = hiredis.Reader()
        self._reading: asyncio.Task[bytes] | None = None
        self._heard = time.monotonic()
        self._pinged = False  # since it was heard last

    @classmethod
    async def open(cls, connection: Any) -> AioSubscription:
        """Connect. Raises RedisError."""
        try:
            await connection.connect()
        except (TimeoutError, OSError) as error:
            raise exceptions.ConnectionError(str(error)) from error
        return cls(connection)

    async def send(self, command: Sequence[bytes]) -> None:
        """Send a command; its replies come with `read`. Raises StoreUnavailable."""
        if not self._connection.is_connected:
            raise StoreUnavailable("Redis: the subscription broke")
        try:
            await self._connection.send_packed_command([pack([command])], check_health=False)
        except exceptions.RedisError as error:
            raise translated(error) from error

    async def read(self, timeout: float, wake: asyncio.Event) -> list[Any]:
        """What has arrived, after waiting for it; nothing after `timeout` seconds, or when `wake` is set.

        Raises StoreUnavailable, and StoreRefused where the server refused a command.
        """
        await self._keep_alive()
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._connection._reader.read(READ))
        woken = asyncio.ensure_future(wake.wait())
        try:
            await asyncio.wait(
                (self._reading, woken), timeout=min(timeout, PING_EVERY), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            woken.cancel()
        if not self._reading.done():
            return []
        reading, self._reading = self._reading, None
        self._heard, self._pinged = time.monotonic(), False
        return replies_in(self._reader, _bytes_of(reading))

    async def _keep_alive(self) -> None:
        silence = time.monotonic() - self._heard
        if silence > PING_EVERY + PONG_WITHIN and self._pinged:
            raise StoreUnavailable("Redis: a subscription got no answer to PING")
        if silence >= PING_EVERY and not self._pinged:
            self._heard, self._pinged = time.monotonic() - PING_EVERY, True
            await self.send([b"PING"])

    async def close(self) -> None:
        """Close the connection. Safe to repeat."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        await self._connection.disconnect(nowait=True)


def _bytes_of(reading: asyncio.Task[bytes]) -> bytes:
    try:
        data = reading.result()
    except (OSError, ValueError, asyncio.CancelledError) as error:
        raise StoreUnavailable(f"Redis: the subscription broke: {error}") from error
    if not data:
        raise StoreUnavailable("Redis: the server closed the subscription")
    return data
