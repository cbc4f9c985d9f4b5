"""Links: connections to one server, kept open between exchanges. What is sent on them is up to `servers`.

redis-py's own pool looks at a connection through gevent's hub each time that it hands it out, and counts for its
metrics: as long as the exchange itself takes. Here one system call tells whether a connection is fresh.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from redis import exceptions

if TYPE_CHECKING:
    from redis.connection import ConnectionPool


def _make_poll() -> Any:
    """The system's own poll: gevent's would take a turn of its hub."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey.get_original("select", "poll")() if monkey else select.poll()


class Link:
    """One connection of redis-py. Who has it has it alone."""

    __slots__ = ("_poll", "_socket", "connection")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._socket: Any = None
        self._poll: Any = None

    def make_ready(self) -> None:
        """Connect where it is not, or where the server has closed it. Raises RedisError."""
        socket = self.connection._sock
        if socket is not None and socket is self._socket:
            if not self._poll.poll(0):
                return
            self.connection.disconnect()  # an end, or what nobody has asked for
        self.connection.connect()
        self._socket = self.connection._sock
        self._poll = _make_poll()
        self._poll.register(self._socket.fileno(), select.POLLIN)


class Links:
    """At most `size` links, made of the connections of `pool`, the one used last first.

    Safe to share between threads and between greenlets; a process that was forked makes its own.
    """

    def __init__(self, pool: ConnectionPool, *, size: int, timeout: float | None) -> None:
        self._pool = pool
        self._size = size
        self._timeout = timeout  # seconds that `take` waits for one
        self._begin()

    def _begin(self) -> None:
        self._idle: list[Link] = []
        self._made: list[Link] = []
        self._waiting = 0
        self._changed = threading.Condition()
        self._process = os.getpid()

    def take(self) -> Link:
        """A link that is connected, and the caller's until `give_back`. Raises RedisError."""
        if os.getpid() != self._process:
            self._begin()
        try:
            link = self._idle.pop()
        except IndexError:
            link = self._wait_for_one()
        ready = False
        try:
            link.make_ready()
            ready = True
        finally:
            if not ready:
                self.drop(link)
        return link

    def _wait_for_one(self) -> Link:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        with self._changed:
            self._waiting += 1  # before the look: whoever gives one back later sees it
            try:
                while True:
                    with contextlib.suppress(IndexError):  # who does not wait takes one without the lock
                        return self._idle.pop()
                    if len(self._made) < self._size:
                        return self._make()
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise exceptions.ConnectionError("no connection became free in time")
                    self._changed.wait(left)
            finally:
                self._waiting -= 1
                if self._idle:  # whoever was told of it may have been killed
                    self._changed.notify()

    def _make(self) -> Link:
        link = Link(self._pool.make_connection())
        self._made.append(link)
        return link

    def give_back(self, link: Link) -> None:
        """Whose replies were all read."""
        self._idle.append(link)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def drop(self, link: Link) -> None:
        """Give one back on which a reply may still be on its way: it is closed."""
        link.connection.disconnect()
        self.give_back(link)

    def close_idle(self) -> None:
        """Close the connections that nobody uses now."""
        for link in list(self._idle):
            link.connection.disconnect()

    def close(self) -> None:
        """Close every connection. Safe to repeat."""
        for link in list(self._made):  # the pool would forget those that a forked process has made
            link.connection.disconnect()
