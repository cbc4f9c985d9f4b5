"""Probation: finds the task that kills its nodes, without harm to the tasks that ran beside it.

When a node dies, its end counts against every run that was young. A task against which two deaths count is begun
on probation: few of its kind at a time on a node, fewer the more deaths count against it, and alone before the
last one, so that the culprit gets there and the others do not. Those with most deaths go first, since the culprit
is among them; among equals the order is random. A run that lasts LONG_ENOUGH seconds, or ends by itself, is clean.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from gevent.event import Event

from pytask import wire
from pytask.errors import StoreError
from pytask.keys import QueueKeys
from pytask.node.closing import Closing
from pytask.node.run import BEGIN, FINISH, RUN, Run
from pytask.node.service import Service
from pytask.node.state import NodeState

LONG_ENOUGH = 60.0  # seconds: reap counts deaths against runs that are younger
AWAY = (1.0, 5.0)  # seconds after which a task that found no room to wait in comes back
TICK = 1.0  # seconds between looks while somebody waits
SOON = 0.05  # while somebody waits and an outcome is on its way: until it is accepted a death would count


def most_together(suspect: int, concurrency: int, max_deliveries: int) -> int:
    """How many tasks may be on probation on a node while one is there against which so many deaths count."""
    if suspect >= min(max_deliveries - 1, 4):
        return 1
    return 8 if suspect == 3 else max(concurrency // 8, 8)


def has_room(inside: Iterable[int], suspect: int, concurrency: int, max_deliveries: int) -> bool:
    """May a task with so many counted deaths join those on probation, whose counts are `inside`?"""
    counts = [*inside, suspect]
    return len(counts) <= min(most_together(each, concurrency, max_deliveries) for each in counts)


def turn(suspect: int) -> tuple[int, float]:
    """When it is a task's turn, among those that wait: the lowest is next."""
    return -suspect, random.random()


class Begins(Protocol):
    """What the starter does for probation."""

    def __call__(self, queue: QueueKeys, node: bytes, runs: Sequence[Run], wish: str = "") -> None:
        """Begin runs of one queue and node."""


class Probation(Service):
    """Who waits for a start on probation, who is on it, and how long each suspect has run.

    Only greenlets of the main hub touch it. Runs that wait keep their claims and count as running: those with most
    deaths, as many as may run together with the first of them. The others are parked for some seconds, and their
    turn may come on another node.
    """

    name = "probation"

    def __init__(self, state: NodeState, closing: Closing) -> None:
        super().__init__()
        self.state = state
        self.closing = closing
        self.begin: Begins = lambda _queue, _node, _runs, _wish="": None
        self._wake = Event()
        self._waiting: list[tuple[tuple[int, float], Run]] = []  # a heap: who is next
        self._inside: dict[Run, int] = {}  # on probation -> the deaths that count against it
        self._young: deque[tuple[float, Run]] = deque()  # runs of suspects, with the second when they are cleared

    def take(self, run: Run, now: bytes) -> None:
        """A task that may start when there is room for it; `now` is the server's clock. Does not block."""
        self._inside.pop(run, None)
        if not self.state.accepting.is_set():
            self.closing.release(run, "head")
            return
        heapq.heappush(self._waiting, (turn(run.suspect), run))
        self._wake.set()
        for each in self._take_those_who_must_go():
            self._park(each, float(now))

    def _take_those_who_must_go(self) -> list[Run]:
        settings = self.state.settings
        first = self._waiting[0][1]
        most = most_together(first.suspect, settings.concurrency, settings.max_deliveries)
        if len(self._waiting) <= most:
            return []
        rows = sorted(self._waiting)  # which is a heap, too
        self._waiting = rows[:most]
        return [run for _, run in rows[most:]]

    def _park(self, run: Run, now: float) -> None:
        if self._still_waits(run):
            self.closing.park(run, wire.encode_time(now + random.uniform(*AWAY)))

    def watch(self, run: Run) -> None:
        """A task that is suspected of something has started: it is cleared when it has run for long enough."""
        self._young.append((time.monotonic() + LONG_ENOUGH, run))
        self._wake.set()

    def wake(self) -> None:
        """Somebody has ended, or is to be stopped."""
        self._wake.set()

    def give_back(self, queue: QueueKeys | None = None) -> None:
        """The node takes no tasks (of this queue) any more: those that wait go back to the head of the queue."""
        if not self._waiting:
            return
        rows, self._waiting = self._waiting, []
        for row in rows:
            if queue is not None and row[1].queue is not queue:
                heapq.heappush(self._waiting, row)
            elif self._still_waits(row[1]):
                self.closing.release(row[1], "head")

    def run(self) -> None:
        """Clear and admit, for ever."""
        while True:
            self._wake.wait(timeout=self._pause())
            self._wake.clear()
            self._clear()
            self._stop()
            self._admit()

    def _pause(self) -> float | None:
        if self._waiting:
            return SOON if any(run.phase == FINISH for run in self._inside) else TICK
        return max(self._young[0][0] - time.monotonic(), 0) if self._young else None

    def _still_waits(self, run: Run) -> bool:
        return run.phase == BEGIN and self.state.registry.holds(run)

    # Those who have run for long enough.

    def _clear(self) -> None:
        now = time.monotonic()
        old = [run for due, run in self._young if due <= now]
        for (queue, node), runs in _by_owner(run for run in old if self._runs_still(run)).items():
            self.state.store.records.survive(node, queue.key, [(run.id, run.fence) for run in runs])
        for run in old:  # they stand at the front: each waits for equally long
            self._young.popleft()
            self._inside.pop(run, None)

    def _runs_still(self, run: Run) -> bool:
        return run.phase == RUN and self.state.registry.holds(run)

    # Those who wait.

    def _stop(self) -> None:
        """Whoever was told to stop while it waited ends without a start."""
        stopped = [run for _, run in self._waiting if run.stop_wanted]
        if stopped:
            self._waiting = [row for row in self._waiting if not row[1].stop_wanted]
            heapq.heapify(self._waiting)
            self._begin([run for run in stopped if self._still_waits(run)], "stop")

    def _admit(self) -> None:
        for run in [run for run in self._inside if not self._is_inside(run)]:
            del self._inside[run]
        chosen = []
        while self._waiting and self.state.accepting.is_set():
            run = self._waiting[0][1]
            if self._still_waits(run):
                if run.stop_wanted or not self._has_room(run):
                    break  # nobody overtakes it: it would wait for ever where it must be alone
                self._inside[run] = run.suspect
                chosen.append(run)
            heapq.heappop(self._waiting)
        self._begin(chosen, "granted")

    def _is_inside(self, run: Run) -> bool:
        return run.phase in (BEGIN, RUN, FINISH) and self.state.registry.holds(run)

    def _has_room(self, run: Run) -> bool:
        settings = self.state.settings
        return has_room(self._inside.values(), run.suspect, settings.concurrency, settings.max_deliveries)

    def _begin(self, runs: list[Run], wish: str) -> None:
        """Begin runs under new fences, since the records have closed those that they came with."""
        try:
            ours = [run for run in runs if self._renew(run)]
        except StoreError:
            for run in runs:
                self.closing.release(run, "head")
            raise
        for (queue, node), group in _by_owner(ours).items():
            self.begin(queue, node, group, wish)

    def _renew(self, run: Run) -> bool:
        claim = self.state.store.claims(run.queue.name).renew(run.node, run.id, run.fence, run.fence)
        if claim is None:
            self.state.registry.remove(run)
            return False
        run.renew(claim)
        return True


def _by_owner(runs: Iterable[Run]) -> dict[tuple[QueueKeys, bytes], list[Run]]:
    groups: dict[tuple[QueueKeys, bytes], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.queue, run.node].append(run)
    return groups
