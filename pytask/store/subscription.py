"""Subscription: one pub/sub connection whose channels change while it stands. One thread or greenlet has it.

Another one may only `wake` it. It never reconnects by itself, since what was sent in the gap is lost. A server
that hangs is noticed by PING: it gives a subscriber no error.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions

from pytask.errors import StoreUnavailable
from pytask.store.client import translated
from pytask.store.servers import pack
from pytask.store.target import Target

PING_EVERY = 2.0  # seconds without a word from the server
PONG_WITHIN = 5.0  # seconds
READ = 65_536  # bytes


class Subscription:
    """Connected from the moment it is made; subscribed to nothing. Raises StoreUnavailable, StoreRefused.

    A forked child that goes on with it (the greenlets of a parent do) must not: every call raises there.
    """

    def __init__(self, target: Target) -> None:
        self._process = os.getpid()
        pool = target.pool(timeout=PONG_WITHIN, size=1)
        connection: Any = pool.make_connection()
        self._connection = connection
        self._reader = hiredis.Reader()
        self._heard = time.monotonic()
        self._pinged = False  # since it was heard last
        try:
            connection.connect()
        except exceptions.RedisError as error:
            raise translated(error) from error
        self._socket: Any = connection._sock
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        self._closed = False
        self._closing = threading.Lock()  # so that nobody wakes a file of somebody else's, with the same number
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def wake(self) -> None:
        """Let a `read` that waits return. For any thread or greenlet; raises nothing."""
        with self._closing, contextlib.suppress(BlockingIOError):  # so full that it will wake
            if not self._closed:
                os.write(self._wake, b"w")

    def send(self, command: Sequence[bytes]) -> None:
        """Send a command; its replies come with `read`. Raises StoreUnavailable."""
        self._check_process()
        try:
            self._connection.send_packed_command([pack([command])], check_health=False)
        except exceptions.RedisError as error:
            raise translated(error) from error

    def read(self, timeout: float) -> list[Any]:
        """All that has arrived, after waiting for it; nothing after `timeout` seconds, or when it was woken.

        Raises StoreUnavailable, and StoreRefused where the server refused a command.
        """
        self._check_process()
        self._keep_alive()
        if not self._has_bytes():
            ready = self._poll.poll(min(timeout, PING_EVERY) * 1000)
            self._check_process()
            numbers = {number for number, _ in ready}
            if self._woken in numbers:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, READ)
            if not numbers - {self._woken}:
                return []
        return replies_in(self._reader, self._receive())

    def _has_bytes(self) -> bool:
        pending = getattr(self._socket, "pending", None)  # of TLS: what was decrypted already
        return pending is not None and pending() > 0

    def _receive(self) -> bytes:
        try:
            data: bytes = self._socket.recv(READ)
        except (OSError, ValueError) as error:
            raise StoreUnavailable(f"Redis: the subscription broke: {error}") from error
        if not data:
            raise StoreUnavailable("Redis: the server closed the subscription")
        self._heard, self._pinged = time.monotonic(), False
        return data

    def _keep_alive(self) -> None:
        silence = time.monotonic() - self._heard
        if silence > PING_EVERY + PONG_WITHIN and self._pinged:
            raise StoreUnavailable("Redis: a subscription got no answer to PING")
        if silence >= PING_EVERY and not self._pinged:
            self._heard, self._pinged = time.monotonic() - PING_EVERY, True
            self.send([b"PING"])

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StoreUnavailable("Redis: the subscription is that of another process")

    def close(self) -> None:
        """Close the connection. Safe to repeat."""
        self._connection.disconnect()
        with self._closing:
            if not self._closed:
                self._closed = True
                os.close(self._wake)
                os.close(self._woken)


def replies_in(reader: hiredis.Reader, data: bytes) -> list[Any]:
    """The replies that are whole with these bytes. Raises StoreRefused for one that is an error."""
    replies = []
    reader.feed(data)
    while (reply := reader.gets()) is not False:
        if isinstance(reply, hiredis.ReplyError):
            raise translated(_error_of(str(reply)))
        replies.append(reply)
    return replies


def _error_of(text: str) -> exceptions.RedisError:
    """An error reply as redis-py names it."""
    kinds = {"NOPERM": exceptions.NoPermissionError, "NOAUTH": exceptions.AuthenticationError}
    return kinds.get(text.partition(" ")[0], exceptions.ResponseError)(text)
