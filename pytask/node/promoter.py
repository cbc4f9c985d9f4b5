"""Promoter: puts parked ids back into their queue when their time has come.

Each node does it for the queues it serves, so that none is needed in particular. It sleeps until the next
time it knows of; it learns of times that this node parked at once, and of others' within POLL seconds.
"""

from __future__ import annotations

import random

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

    def note(self) -> None:
        """An id was parked: its time may be the next one."""
        self._parked.set()

    def run(self) -> None:
        """Promote and sleep, for ever."""
        while True:
            points.reach("before-promote")
            count, wait = self.claims.promote()
            if count:
                points.reach("after-promote")
            if count and wait == 0:
                continue
            pause = min(wait if wait is not None else POLL, POLL * random.uniform(0.8, 1.0))
            self._parked.wait(timeout=max(pause, LEAST))
            self._parked.clear()
