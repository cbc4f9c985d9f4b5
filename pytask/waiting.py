"""Waiting for what tasks tell: one subscription for all waiters of a process, kept by one thread.

In a process that gevent has patched the thread is a greenlet. It begins with the first waiter, connects again when
the server went away, and ends when nobody has waited for a while. It alone touches the connection, so that a
waiter that is killed, interrupted or timed out leaves nothing half done.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pytask import wire
from pytask.context import current
from pytask.errors import InvalidInputError, StoreRefused, StoreUnavailable
from pytask.interest import Interest, News, Watch

if TYPE_CHECKING:
    from pytask.store.store import Store
    from pytask.store.subscription import Subscription

Accepts = Callable[[bytes], bool]

LINGER = 10.0  # seconds without a waiter, after which the connection is closed
LOOK_EVERY = 60.0  # seconds; see `Waiting.wait`
FIRST_DELAY, LAST_DELAY = 0.05, 1.0  # seconds between tries to connect
CLOSE_SECONDS = 2.0  # for the thread to end


class Deadline:
    """The end of a time to wait; `timeout` None is never. Raises InvalidInputError."""

    __slots__ = ("_end", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        if timeout is not None and not _is_seconds(timeout):
            raise InvalidInputError(f"timeout is None or a number of seconds from 0 on, not {wire.shown(timeout)}")
        self._end = math.inf if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds, at least 0; infinity for None."""
        return max(self._end - time.monotonic(), 0.0)

    @property
    def is_over(self) -> bool:
        """Has the time passed?"""
        return time.monotonic() >= self._end


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


class Waiting:
    """The waiters of one store. Safe to share between threads and greenlets; a forked process has its own.

    Nothing that may block happens under its lock: greenlets must not wait for one that was made before gevent
    patched.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self.lock = threading.Lock()
        self._line: Line | None = None

    @contextlib.contextmanager
    def watch(self, channels: Iterable[bytes], accepts: Accepts) -> Iterator[Watch[threading.Event]]:
        """Listen to channels, to those messages that are accepted. The first news: the subscription stands."""
        watch = Watch(channels, accepts, threading.Event())
        line, is_new = self._take_line(watch)
        try:
            if is_new:
                line.start()
            line.wake()
            yield watch
        finally:
            line.remove(watch)

    def _take_line(self, watch: Watch[Any]) -> tuple[Line, bool]:
        with self.lock:
            line, is_new = self._line, self._line is None
            if line is None:
                line = self._line = Line(self)
            line.wishes.append((True, watch))
        return line, is_new

    def wait(self, watch: Watch[threading.Event], deadline: Deadline, most: float = LOOK_EVERY) -> News:
        """The next news; empty ones when the time is over. Raises StoreRefused.

        After `most` seconds without any they say that records must be looked at. A message may be lost without a
        sign: the servers of a cluster lose some when they lose each other, and a record that is removed by hand
        sends none.
        """
        heard = watch.alarm.wait(min(deadline.left, most))
        news = watch.take()
        return news if heard or deadline.is_over else News(True, news.messages)

    def leave(self, line: Line) -> bool:
        """The line has nothing to do: forget it, unless a wish has come. Returns whether it is to end."""
        with self.lock:
            if line.wishes:
                return False
            self._forget(line)
            return True

    def _forget(self, line: Line | None) -> None:
        if self._line is line:
            self._line = None

    def close(self) -> None:
        """Close the connection; who waits gets StoreUnavailable. Safe to repeat, and it can be used again."""
        with self.lock:
            line, self._line = self._line, None
        if line is not None:
            line.close()


class Line:
    """One life of the thread, from the first waiter to the end of its connection."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.wishes: deque[tuple[bool, Watch[Any]]] = deque()  # a watch begins, or ends; anybody may add one
        self._interest = Interest()
        self._subscription: Subscription | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="pytask-waiting", daemon=True)

    def start(self) -> None:
        """Start the thread; in no context, so that it does not pass for a child of a task that waits first."""
        try:
            contextvars.Context().run(self._thread.start)
        except RuntimeError:  # no more threads
            self.waiting.leave(self)
            raise

    def wake(self) -> None:
        """There is a wish."""
        subscription = self._subscription
        if subscription is not None:
            subscription.wake()

    def remove(self, watch: Watch[Any]) -> None:
        """The watch has ended. The thread sees to it when it wakes, within seconds."""
        self.wishes.append((False, watch))

    def close(self) -> None:
        """End."""
        self._closing = True
        self.wake()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    # The thread.

    def _run(self) -> None:
        delay, failed = FIRST_DELAY, False
        try:
            while not self._closing:
                try:
                    self._subscription = self._connect(failed)
                    delay, failed = FIRST_DELAY, True
                    self._serve(self._subscription)
                except StoreUnavailable:
                    self._interest.lose()
                except StoreRefused as error:
                    self._take_wishes()
                    self._interest.refuse(error)
                    self._interest.lose()
                finally:
                    self._hang_up()
                if not self._interest and self.waiting.leave(self):
                    return
                time.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, LAST_DELAY)
        finally:
            self._end()

    def _connect(self, failed: bool) -> Subscription:
        store = self.waiting.store
        if failed:
            store.ping()  # tells whether another server is the master now
        return store.subscribe()  # without a name: that would be one more right to have

    def _hang_up(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _serve(self, subscription: Subscription) -> None:
        """Until nobody has waited for LINGER seconds. Raises StoreUnavailable, StoreRefused."""
        idle_since = time.monotonic()
        while not self._closing:
            self._take_wishes()
            if self._interest:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > LINGER and not self.wishes:
                return
            command = self._interest.take_command()
            if command:
                subscription.send(command)
            for reply in subscription.read(0 if self._interest.has_commands or self.wishes else LINGER):
                self._interest.feed(reply)

    def _take_wishes(self) -> None:
        self._interest.take_wishes(self.wishes)

    def _end(self) -> None:
        """Nobody is to wait for ever for a thread that has ended, whatever ended it."""
        with self.waiting.lock:
            self.waiting._forget(self)
        self._take_wishes()
        for watch in self._interest.watches:
            watch.refuse(StoreUnavailable("Redis: the connection was closed while a task was waited for"))


_all: weakref.WeakSet[Waiting] = weakref.WeakSet()


def _forget_parent() -> None:
    """In a forked child: the thread stayed with the parent, whose connection is not ours."""
    for waiting in list(_all):
        waiting._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


@contextlib.contextmanager
def place_lent() -> Iterator[None]:
    """Inside a task of a node: others may have its place meanwhile. Elsewhere nothing."""
    lend: Any = getattr(current.get(), "lend_place", None)
    if lend is None:
        yield
        return
    with lend():
        yield
