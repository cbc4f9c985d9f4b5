"""Who waits for what on which channels: the part of a shared subscription that needs no connection.

`Interest` decides what to SUBSCRIBE to and to UNSUBSCRIBE from, and hands what arrives to the watches that want
it. Whoever owns the connection drives it: a thread (see `waiting`) or an asyncio loop (see `aio`). Not
thread-safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pytask.errors import StoreError

MOST_HEARD = 10_000  # messages that a watch keeps for a reader that is slow
MOST_CHANNELS = 1000  # a command: the replies to it are read before the next one is sent


class Alarm(Protocol):
    """What wakes a waiter: an Event of threading, or of asyncio."""

    def set(self) -> object:
        """Wake it."""

    def clear(self) -> object:
        """It has looked."""


class News(NamedTuple):
    """What a watch has heard since it was asked last.

    `renewed`: its subscription stands now and did not before, so that anything may have happened unheard: look at
    the records. `messages`: channel and data, in their order.
    """

    renewed: bool
    messages: list[tuple[bytes, bytes]]


A = TypeVar("A", bound=Alarm)


class Watch(Generic[A]):
    """What one waiter hears on its channels; `accepts` says of a message whether it wants it."""

    __slots__ = ("_accepts", "_heard", "_renewed", "alarm", "channels", "missing", "problem")

    def __init__(self, channels: Iterable[bytes], accepts: Callable[[bytes], bool], alarm: A) -> None:
        self.channels = frozenset(channels)
        self.missing = set(self.channels)  # to which there is no subscription yet
        self.alarm = alarm
        self.problem: StoreError | None = None  # why there will never be one
        self._accepts = accepts
        self._heard: deque[tuple[bytes, bytes]] = deque()
        self._renewed = False

    def take(self) -> News:
        """The news so far. Raises StoreError where the subscription was refused."""
        self.alarm.clear()
        if self.problem is not None:
            raise self.problem
        renewed = self._renewed
        if renewed:  # else the other thread may set it between the two
            self._renewed = False
        messages = []
        while self._heard:
            messages.append(self._heard.popleft())
        return News(renewed, messages)

    def hear(self, channel: bytes, data: bytes) -> None:
        """A message. One that comes while too many are unread drops them all: the records must be looked at."""
        if not self._accepts(data):
            return
        if len(self._heard) >= MOST_HEARD:
            self._heard.clear()
            self._renewed = True
        self._heard.append((channel, data))
        self.alarm.set()

    def note_standing(self, channel: bytes) -> None:
        """There is a subscription to this channel."""
        self.missing.discard(channel)
        if not self.missing:
            self._renewed = True
            self.alarm.set()

    def refuse(self, problem: StoreError) -> None:
        """There will be no subscription."""
        self.problem = problem
        self.alarm.set()


class Interest:
    """All watches of one connection."""

    def __init__(self) -> None:
        self._watches: dict[bytes, set[Watch[Any]]] = {}
        self._standing: set[bytes] = set()
        self._unconfirmed: dict[bytes, int] = {}  # SUBSCRIBEs without a reply so far
        self._wanted: dict[bytes, None] = {}  # to subscribe to, in order
        self._unwanted: dict[bytes, None] = {}

    def __bool__(self) -> bool:
        return bool(self._watches)

    @property
    def watches(self) -> set[Watch[Any]]:
        """All of them."""
        return {watch for watches in self._watches.values() for watch in watches}

    def take_wishes(self, wishes: deque[tuple[bool, Watch[Any]]]) -> None:
        """Take in, in order, which watches begin (True) and which end, and empty the line of them."""
        while wishes:
            begins, watch = wishes.popleft()
            if begins:
                self.add(watch)
            else:
                self.remove(watch)

    def add(self, watch: Watch[Any]) -> None:
        """A watch wants to hear."""
        for channel in watch.channels:
            watches = self._watches.get(channel)
            if watches is None:
                watches = self._watches[channel] = set()
                if channel in self._unwanted:  # and still subscribed to
                    del self._unwanted[channel]
                else:
                    self._wanted[channel] = None
            watches.add(watch)
            if channel in self._standing:
                watch.note_standing(channel)

    def remove(self, watch: Watch[Any]) -> None:
        """It does not any more. Safe to repeat."""
        for channel in watch.channels:
            watches = self._watches.get(channel)
            if watches is None or watch not in watches:
                continue
            watches.remove(watch)
            if not watches:
                del self._watches[channel]
                if channel in self._wanted:
                    del self._wanted[channel]
                else:
                    self._unwanted[channel] = None

    def take_command(self) -> list[bytes]:
        """The next command to send; empty where there is none."""
        if self._wanted:
            channels = self._take(self._wanted)
            for channel in channels:
                self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
            return [b"SUBSCRIBE", *channels]
        if self._unwanted:
            channels = self._take(self._unwanted)
            self._standing.difference_update(channels)
            return [b"UNSUBSCRIBE", *channels]
        return []

    def _take(self, channels: dict[bytes, None]) -> list[bytes]:
        taken = list(channels)[:MOST_CHANNELS]
        for channel in taken:
            del channels[channel]
        return taken

    @property
    def has_commands(self) -> bool:
        """Is there anything to send?"""
        return bool(self._wanted or self._unwanted)

    def feed(self, reply: object) -> None:
        """What the server sent: a confirmation, or a message."""
        if not isinstance(reply, list) or len(reply) != 3:
            return  # the answer to a PING
        kind, channel, data = reply
        if kind == b"message":
            for watch in list(self._watches.get(channel, ())):
                watch.hear(channel, data)
        elif kind == b"subscribe":
            self._confirm(channel)

    def _confirm(self, channel: bytes) -> None:
        left = self._unconfirmed.pop(channel, 1) - 1
        if left > 0:  # this is the reply to one before, which an UNSUBSCRIBE followed
            self._unconfirmed[channel] = left
        elif channel in self._watches and channel not in self._wanted:
            self._standing.add(channel)
            for watch in list(self._watches[channel]):
                watch.note_standing(channel)

    def lose(self) -> None:
        """The connection is gone: on the next one all is to be subscribed to anew."""
        self._standing.clear()
        self._unconfirmed.clear()
        self._unwanted.clear()
        self._wanted = dict.fromkeys(self._watches)
        for watch in self.watches:
            watch.missing = set(watch.channels)

    def refuse(self, problem: StoreError) -> None:
        """Tell all watches without a whole subscription that there will be none, and forget them."""
        for watch in self.watches:
            if watch.missing:
                watch.refuse(problem)
                self.remove(watch)
