"""Promoter: puts parked ids back into their queue when their time has come.

Each node does it for the queues it serves, so that none is needed in particular. It sleeps until the next
time it knows of; it learns of times that this node parked at once, and of others' within POLL seconds.
"""

from __future__ import annotations

import random
import time

from gevent.event import Event

from pytask import points
from pytask.node.service import Service
from pytask.node.state import NodeState

POLL = 5.0  # seconds
LEAST = 0.02  # seconds between two looks


class Promoter(Service):
    """The promoter of one queue."""

    def __init__(self, state: NodeState, queue: str) -> None:
        super().__init__()
        self.name = f"promoter {queue or 'default'}"
        self.claims = state.store.claims(queue)
        self._parked = Event()
        self._first: object = None  # the score of the id that is next, whose time is `_when` on our clock
        self._when = 0.0

    def note(self) -> None:
        """An id was parked: its time may be the next one."""
        self._parked.set()

    def run(self) -> None:
        """Promote and sleep, for ever."""
        while True:
            pause = min(self._promote(), POLL * random.uniform(0.8, 1.0))
            self._parked.wait(timeout=max(pause, LEAST))
            self._parked.clear()

    def _promote(self) -> float:
        """Put back what is due; returns the seconds until the next look.

        Mostly nothing is parked, or the next time is known (by the server's clock): one plain command then.
        """
        first = self.claims.get_first_due()
        if first is None:
            return POLL
        left = self._when - time.monotonic()
        if first == self._first and left > 0:
            return left
        points.reach("before-promote")
        count, wait = self.claims.promote()
        if count:
            points.reach("after-promote")
        self._first = None if count else first
        self._when = time.monotonic() + (wait or 0.0)
        return POLL if wait is None else wait
