"""Listener: one pub/sub connection. It never reconnects by itself: what was sent in the gap is lost.

Whoever listens makes a new one after StoreUnavailable, and then compares the wanted state.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from redis import exceptions

from pytask.errors import StoreUnavailable
from pytask.store.client import translated
from pytask.store.target import Target

PING_EVERY = 2.0  # seconds
LEAST = 0.01  # seconds that a read waits, so that a timer that is early does no harm
PONG_WITHIN = 5.0  # seconds: a hung server gives a subscriber no error


class Message(NamedTuple):
    """A message and the channel it came on."""

    channel: bytes
    data: bytes


class Listener:
    """Subscribed to channels and patterns from the moment it is made. Raises StoreUnavailable, StoreRefused."""

    def __init__(
        self,
        target: Target,
        *,
        channels: Sequence[bytes] = (),
        patterns: Sequence[bytes] = (),
        name: str = "",
    ) -> None:
        self._client = target.client(timeout=PONG_WITHIN, size=2, name=name)
        self._pubsub = self._client.pubsub()
        self._heard = self._pinged = time.monotonic()
        expected = len(channels) + len(patterns)
        try:
            if channels:
                self._pubsub.subscribe(*channels)
            if patterns:
                self._pubsub.psubscribe(*patterns)
            self._confirm(expected)
        except exceptions.RedisError as error:
            self.close()
            raise translated(error) from error

    def _confirm(self, expected: int) -> None:
        deadline = time.monotonic() + PONG_WITHIN
        while expected:
            message = self._pubsub.get_message(timeout=PONG_WITHIN)
            if message and message["type"].endswith("subscribe"):
                expected -= 1
            elif time.monotonic() > deadline:
                raise exceptions.TimeoutError("no answer to a subscription")

    def get(self, timeout: float = PING_EVERY) -> Message | None:
        """The next message; None where none came in `timeout` seconds. Blocks that long at most."""
        try:
            self._keep_alive()
            message = self._pubsub.get_message(timeout=min(timeout, self._seconds_left()))
        except exceptions.RedisError as error:
            raise translated(error) from error
        except (OSError, ValueError, AttributeError) as error:  # the connection was closed under our feet
            raise StoreUnavailable(f"Redis: the subscription broke: {error}") from error
        if message is None:
            return None
        self._heard = time.monotonic()
        if message["type"] in ("message", "pmessage"):
            return Message(message["channel"], message["data"])
        return None

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now - self._heard > PING_EVERY + PONG_WITHIN and self._pinged > self._heard:
            raise StoreUnavailable("Redis: a subscription got no answer to PING")
        if now - self._pinged >= PING_EVERY:
            self._pinged = now
            self._pubsub.ping()

    def _seconds_left(self) -> float:
        """Until the next PING."""
        return max(self._pinged + PING_EVERY - time.monotonic(), LEAST)

    def close(self) -> None:
        """Close the connection. Safe to repeat."""
        self._pubsub.close()
        self._client.close()
        self._client.connection_pool.disconnect()
