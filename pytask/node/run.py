"""Run: one claim on this node, from claim to release; and the registry of all of them.

The registry is keyed by (queue, id). A run belongs to it until its claim was given up; its size is what
the node's capacity counts.
"""

from __future__ import annotations

from typing import Any

import gevent
from gevent.event import Event

from pytask.keys import QueueKeys
from pytask.store.claims import Claim

# Phases, in their order.
BEGIN, RUN, FINISH, TAIL, RELEASE = range(5)
REMEMBER = 20_000  # finished fences, twice


class Run:
    """One claim. `wish` is what shall become of the run when its greenlet ends: see `stopper`."""

    __slots__ = (
        "attempt", "claim", "cleanup", "data", "deliveries", "greenlet", "id", "name", "node", "once", "phase",
        "queue", "size", "stop_wanted", "stopping", "suspect", "task", "wish",
    )  # fmt: skip

    def __init__(self, queue: QueueKeys, node: bytes, claim: Claim) -> None:
        self.queue = queue
        self.node = node
        self.id = claim.id
        self.claim = claim
        self.phase = BEGIN
        self.task: Any = None
        self.greenlet: gevent.Greenlet | None = None
        self.wish: str | None = None
        self.stop_wanted = False
        self.stopping: gevent.Greenlet | None = None
        self.name: bytes | None = None
        self.data: bytes | None = None
        self.size = 0
        self.attempt = 1
        self.deliveries = 0
        self.suspect = 0  # deaths of nodes that count against its task
        self.once = False  # it may not start a second time
        self.cleanup = True

    @property
    def key(self) -> tuple[str, bytes]:
        """Its place in the registry."""
        return self.queue.name, self.id

    @property
    def fence(self) -> bytes:
        """The fence of the claim."""
        return self.claim.fence


class Registry:
    """All runs of this node. Only the main hub's greenlets touch it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.runs: dict[tuple[str, bytes], Run] = {}
        self._aside: set[Run] = set()
        self.room = Event()
        self.room.set()
        self.empty = Event()
        self.empty.set()
        self._done: dict[tuple[str, bytes], int] = {}
        self._done_before: dict[tuple[str, bytes], int] = {}
        self.adopting = 0  # adoptions under way; finished fences are kept meanwhile

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def free(self) -> int:
        """How many more tasks may be claimed."""
        return max(self.capacity + min(len(self._aside), self.capacity) - len(self.runs), 0)

    def set_aside(self, run: Run) -> None:
        """The run waits for a server that is away: it takes no room, unless more than `capacity` do."""
        if self.holds(run):
            self._aside.add(run)
            self._show_room()

    def take_back(self, run: Run) -> None:
        """It waits no more."""
        self._aside.discard(run)
        self._show_room()

    def _show_room(self) -> None:
        if self.free:
            self.room.set()
        else:
            self.room.clear()

    def add(self, run: Run) -> None:
        """Register a run; one of the same key is replaced."""
        old = self.runs.get(run.key)
        if old is not None:
            self._aside.discard(old)
        self.runs[run.key] = run
        self.empty.clear()
        if len(self.runs) >= self.capacity:
            self._show_room()

    def remove(self, run: Run) -> None:
        """The run's claim was given up, or is no longer ours."""
        key = run.key
        fence = int(run.fence)
        if self._done.get(key, 0) < fence:
            self._done[key] = fence
        if len(self._done) > REMEMBER and not self.adopting:
            self._done_before, self._done = self._done, {}
        self.forget(run)

    def forget(self, run: Run) -> None:
        """Nobody works on the run any more, and its claim still stands: adoption finds it."""
        if self.runs.get(run.key) is run:
            del self.runs[run.key]
            self._aside.discard(run)
            if self.free:
                self.room.set()
            if not self.runs:
                self.empty.set()

    def holds(self, run: Run) -> bool:
        """Is this very run still registered?"""
        return self.runs.get(run.key) is run

    def find(self, queues: list[str], task_id: bytes) -> Run | None:
        """The run of an id, in whichever queue."""
        for queue in queues:
            run = self.runs.get((queue, task_id))
            if run is not None:
                return run
        return None

    def highest_done(self, queue: str, task_id: bytes) -> int:
        """The highest fence of this id that this node has finished with; 0 for none."""
        key = (queue, task_id)
        return max(self._done.get(key, 0), self._done_before.get(key, 0))
