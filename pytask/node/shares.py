"""Shares: which queue gets the next places of a node, where queues have weights or limits of their own.

Where none has, there are no shares, and the intakes take what is free in turn.

A queue is hungry while its last claim brought something, and where it could not look since then. Hungry queues
share the places that the others leave them, in proportion to their weights: one that holds its part waits for the
others. Among those that do not, the one whose starts, divided by its weight, are fewest goes first (start-time
fair queueing), so that the proportion also holds where tasks are so short that places are never short. What a
queue did not use is not saved up for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from gevent.event import Event

from pytask.queue_names import Share as Plan

STUCK = 0.25  # seconds that a claim may take until the others do not wait for it
LOOK = 0.1  # seconds between looks whether a claim is stuck


class Share:
    """The share of one queue. `taken`: places that its runs take; `running`: of these, runs that were started."""

    def __init__(self, shares: Shares, plan: Plan) -> None:
        self.shares = shares
        self.weight = plan.weight or 1
        self.limit = math.inf if plan.concurrency is None else plan.concurrency
        self.taken = 0
        self.running = 0
        self.hungry = False
        self._asked = 0  # places that a claim under way may fill
        self._tag = 0.0  # its starts so far, divided by its weight, but for those that it let pass
        self._since: float | None = None  # when it began to claim
        self._turn = Event()

    # What its intake calls.

    def room(self) -> int:
        """How many of its tasks may be claimed now."""
        free = self.shares.get_free()
        most = min(free, self.limit - self._held)
        rivals = [share for share in self.shares.all if share is not self and share.is_rival()]
        if most <= 0 or not rivals:
            return max(int(most), 0)
        hungry = [self, *rivals]
        part = (free + sum(share._held for share in hungry)) / sum(share.weight for share in hungry)
        if self._held >= self._target(part) or any(
            share._held < share._target(part) and share._start < self._start for share in rivals
        ):
            return 0
        return int(min(most, self._target(part) - self._held))

    def back(self) -> None:
        """What the last claim brought is begun."""
        self._since = None

    def want(self) -> None:
        """It cannot look whether anything waits: the next place is for a look, unless others are before it."""
        self.hungry = True

    def wait(self, timeout: float | None) -> None:
        """Block until there is room, or the time (seconds) is over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.room():
            left = LOOK if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return
            self._turn.clear()
            self.shares.waiting.add(self)
            # without a free place only the end of a run helps; with one a claim that is stuck may be in the way
            self._turn.wait(timeout=min(left, LOOK) if self.shares.get_free() > 0 else deadline and left)
            self.shares.waiting.discard(self)

    def ask(self, most: int) -> int:
        """A claim is about to be made; of how many ids at most."""
        self._asked = max(min(self.room(), most), 1)
        self._tag = self.shares.now = self._start
        self._tag += self._asked / self.weight
        self._since = time.monotonic()
        self.hungry = True
        return self._asked

    def got(self, count: int) -> None:
        """The claim brought so many; they are about to take their places."""
        self._tag -= (self._asked - count) / self.weight
        self._asked = 0
        self.hungry = count > 0
        self.shares.wake()

    def leave(self) -> None:
        """Its intake rests: it asks for nothing."""
        self._asked = 0
        self._since = None
        self.hungry = False
        self.shares.wake()

    # What the others see.

    def is_rival(self) -> bool:
        """Does it want a place, and may have one?"""
        stuck = self._since is not None and time.monotonic() - self._since > STUCK
        return self.hungry and not stuck and self._held < self.limit

    def is_open(self) -> bool:
        """May one more of its runs be started?"""
        return self.running < self.limit

    def wake(self) -> None:
        """Things have changed: look again."""
        self._turn.set()

    @property
    def asked(self) -> int:
        """Places that its claim under way may fill."""
        return self._asked

    @property
    def _held(self) -> int:
        return self.taken + self._asked

    @property
    def _start(self) -> float:
        return max(self._tag, self.shares.now)

    def _target(self, part: float) -> int:
        return math.ceil(part * self.weight)


class Shares:
    """The shares of a node's queues, by name. Only greenlets of the main hub touch them."""

    def __init__(self, plans: Mapping[str, Plan], get_free: Callable[[], int]) -> None:
        self.by_queue = {queue: Share(self, plan) for queue, plan in plans.items()}
        self.all = list(self.by_queue.values())
        self.waiting: set[Share] = set()
        self.now = 0.0  # the tag of the last claim
        self._get_free = get_free

    def get_free(self) -> int:
        """Places that neither runs take nor claims under way may fill."""
        return self._get_free() - sum(share.asked for share in self.all)

    def take(self, queue: str) -> None:
        """A run of the queue has taken a place."""
        self.by_queue[queue].taken += 1

    def leave(self, queue: str) -> None:
        """A run of the queue has given its place up."""
        self.by_queue[queue].taken -= 1
        self.wake()

    def wake(self) -> None:
        """Whoever waits may have room now."""
        for share in self.waiting:
            share.wake()
