"""Run: one claim on this node, from claim to release; and the registry of all of them.

The registry is keyed by (queue, id). A run belongs to it until its claim was given up. It takes one of the
node's places only until it has ended: what is still to be told of it holds no other task up, unless as many are
untold as may run. Where tasks are short, some more are claimed and begun than there are places: as many as are
going to end in a moment, so that a place that is given up need not wait for a claim.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import gevent
from gevent.event import Event

from pytask.keys import QueueKeys
from pytask.limits import Demand
from pytask.node.replica import Replica
from pytask.node.shares import Share, Shares
from pytask.queue_names import Share as Plan
from pytask.store.claims import Claim

# Phases, in their order.
BEGIN, RUN, FINISH, TAIL, RELEASE = range(5)
REMEMBER = 20_000  # finished fences, twice
MOMENT = 0.03  # seconds: the places that will be given up within them are counted as free
MOMENTS = 10  # of which the busiest counts


class Run:
    """One claim. `wish` is what shall become of the run when its greenlet ends: see `stopper`."""

    __slots__ = (
        "attempt", "claim", "cleanup", "data", "deliveries", "demand", "fence", "greenlet", "has_more",
        "hooked", "id", "kept", "key", "lends", "mail", "name", "node", "once", "options", "phase",
        "policy", "progress", "queue", "reload_wanted", "replica", "round", "runs", "size", "stop_wanted",
        "stopping", "suspect", "takes_place", "target", "task", "timer", "told", "waits", "wish", "workflow",
    )  # fmt: skip

    def __init__(self, queue: QueueKeys, node: bytes, claim: Claim) -> None:
        self.queue = queue
        self.node = node
        self.id = claim.id
        self.key = (queue.name, claim.id)  # its place in the registry
        self.claim = claim
        self.fence = claim.fence
        self.phase = BEGIN
        self.takes_place = False
        self.runs = False  # has its greenlet been started?
        self.waits = 0  # for how many tasks its own greenlets wait now
        self.lends = False  # is its place lent meanwhile?
        self.task: Any = None
        self.hooked: Any = None  # the task, while hooks know that it has begun and not that it has ended
        self.greenlet: gevent.Greenlet | None = None
        self.wish: str | None = None
        self.stop_wanted = self.reload_wanted = False  # it was told so before it had begun
        self.stopping: gevent.Greenlet | None = None
        self.name: bytes | None = None
        self.data: bytes | None = None
        self.size = 0
        self.attempt = 1
        self.deliveries = 0
        self.suspect = 0  # deaths of nodes that count against its task
        self.once = False  # it may not start a second time
        self.cleanup = True
        self.options: dict[str, bytes] | None = None  # that its record sets and a node reads
        self.demand: Demand | None = None  # the limits and the lock that it has to give up at its end
        self.replica: Replica | None = None  # of a service
        self.target = b""  # the node that it is handed over to when it is put back
        self.told = b""  # what its gates told it: for its next begin
        self.has_more = False  # a timer, progress, messages or output, which are put away at its end
        self.workflow = b""  # of which its task is one
        self.round = b""  # of that, where it was restarted
        self.kept = False  # has it a stream of events?
        self.policy: Any = None  # what these, and its class, say of timeouts and retries
        self.timer: Any = None  # of its timeout
        self.progress: Any = None  # what it said of that and is not sent
        self.mail: Any = None  # messages that it has not taken

    def renew(self, claim: Claim) -> None:
        """The claim has a new fence."""
        self.claim, self.fence = claim, claim.fence


class Pace:
    """How many runs ended in the busiest moment of late: as many may end in the next one.

    Tasks that began together end together, and then none does for as long as they take: one moment says little.
    """

    __slots__ = ("_counts", "_moment")

    def __init__(self) -> None:
        self._moment = 0  # number of the present one
        self._counts = [0] * MOMENTS  # of the last ones

    def note(self) -> None:
        """A run has ended."""
        self._turn()
        self._counts[self._moment % MOMENTS] += 1

    def get(self) -> int:
        """The number, as of late."""
        self._turn()
        return max(self._counts)

    def _turn(self) -> None:
        moment = int(time.monotonic() / MOMENT)
        if moment != self._moment:
            for passed in range(max(self._moment, moment - MOMENTS) + 1, moment + 1):
                self._counts[passed % MOMENTS] = 0
            self._moment = moment


class Registry:
    """All runs of this node. Only the main hub's greenlets touch it.

    `capacity`: places, and how many runs that have ended may be untold before no more are claimed. `room` is set
    when another task may be claimed, `empty` while there is no run.
    """

    def __init__(self, capacity: int, plans: Mapping[str, Plan] | None = None) -> None:
        self.capacity = capacity
        self.shares = Shares(plans, lambda: self.free) if plans else None
        self.taken = 0  # places; more of them than there are where tasks have begun ahead
        self.running = 0  # runs with a started greenlet; above `capacity` where lent places were reclaimed
        self.lent = 0  # runs that wait for other tasks: they have no place and hold nothing up
        self.pace = Pace()
        self.on_place: Callable[[], None] = lambda: None  # called when one of these has ended
        self.runs: dict[tuple[str, bytes], Run] = {}
        self.room = Event()
        self.room.set()
        self.empty = Event()
        self.empty.set()
        self._done: dict[tuple[str, bytes], bytes] = {}  # the highest fence of each id that is finished with
        self._done_before: dict[tuple[str, bytes], bytes] = {}
        self.adopting = 0  # adoptions under way; finished fences are kept meanwhile

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def free(self) -> int:
        """How many more tasks may be claimed."""
        ahead = min(self.pace.get(), self.capacity) if self.taken >= self.capacity // 2 else 0
        places, untold = self.capacity + ahead - self.taken, 2 * self.capacity - len(self.runs) + self.lent
        return max(places if places < untold else untold, 0)

    def share_of(self, queue: str) -> Share | None:
        """The share of a queue; None where nothing was said of any."""
        return None if self.shares is None else self.shares.by_queue[queue]

    @property
    def has_place(self) -> bool:
        """Would another task start at once?"""
        return self.taken < self.capacity

    def has_room(self) -> bool:
        """May another task be claimed? Where not, `room` is set when it may."""
        if not self.free:
            self.room.clear()
        return bool(self.room.is_set())

    def add(self, run: Run) -> None:
        """Register a run; one of the same key is replaced."""
        old = self.runs.get(run.key)
        if old is not None:
            self.vacate(old)
        self.runs[run.key] = run
        if self.empty.is_set():
            self.empty.clear()
        self._occupy(run)

    def _occupy(self, run: Run) -> None:
        if not run.takes_place:
            run.takes_place = True
            self.taken += 1
            if self.shares is not None:
                self.shares.take(run.queue.name)
            if self.taken >= self.capacity or len(self.runs) - self.lent >= 2 * self.capacity:
                self.room.clear()

    def enter(self, run: Run) -> bool:
        """The run's greenlet is about to be started; False where it has to wait for another one's end."""
        if not run.runs:
            if self.running >= self.capacity or (self.shares is not None and not self.is_allowed(run)):
                return False
            run.runs = True
            self.running += 1
            if self.shares is not None:
                self.shares.by_queue[run.queue.name].running += 1
        return True

    def _count_running(self, run: Run, change: int) -> None:
        self.running += change
        if self.shares is not None:
            self.shares.by_queue[run.queue.name].running += change

    def is_allowed(self, run: Run) -> bool:
        """May one more run of its queue be started? Not where claims were adopted beyond the queue's limit."""
        return self.shares is None or self.shares.by_queue[run.queue.name].is_open()

    def vacate(self, run: Run) -> None:
        """The run has ended: another one may have its place. Safe to repeat."""
        if run.takes_place:
            run.takes_place = False
            self.taken -= 1
            if run.runs:
                self._leave(run)
            self._show_room()
            if self.shares is not None:
                self.shares.leave(run.queue.name)
        elif run.lends:
            self._end_loan(run)

    def _end_loan(self, run: Run) -> None:
        run.lends = False
        self.lent -= 1

    def _show_room(self) -> None:
        if not self.room.is_set() and self.free:
            self.room.set()

    def _leave(self, run: Run) -> None:
        run.runs = False
        self.running -= 1
        if self.shares is not None:
            self.shares.by_queue[run.queue.name].running -= 1
        self.pace.note()
        self.on_place()

    def lend(self, run: Run) -> None:
        """A greenlet of the run waits for another task, which may need the run's place to begin."""
        run.waits += 1
        if run.takes_place and run.runs:
            run.takes_place = run.runs = False
            run.lends = True
            self.lent += 1
            self.taken -= 1
            self._count_running(run, -1)
            self.on_place()
            self._show_room()
            if self.shares is not None:
                self.shares.leave(run.queue.name)

    def reclaim(self, run: Run) -> None:
        """It waits no more: the run goes on at once, however many places are taken."""
        run.waits -= 1
        if run.waits == 0 and run.lends:  # it has not ended meanwhile
            self._end_loan(run)
            self._occupy(run)
            run.runs = True
            self._count_running(run, 1)

    def set_aside(self, run: Run) -> None:
        """The run waits for a server that is away: another one may have its place."""
        self.vacate(run)

    def take_back(self, run: Run) -> None:
        """It waits no more, and takes a place, however many are taken."""
        if self.holds(run):
            self._occupy(run)

    def remove(self, run: Run) -> None:
        """The run's claim was given up, or is no longer ours."""
        done = self._done
        known = done.get(run.key)
        if known is None or int(known) < int(run.fence):
            done[run.key] = run.fence
            if len(done) > REMEMBER and not self.adopting:
                self._done_before, self._done = done, {}
        self.forget(run)

    def forget(self, run: Run) -> None:
        """Nobody works on the run any more, and its claim still stands: adoption finds it."""
        self.vacate(run)
        if self.runs.get(run.key) is run:
            del self.runs[run.key]
            self._show_room()
            if self.shares is not None:
                self.shares.wake()
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
        return max(int(self._done.get(key, 0)), int(self._done_before.get(key, 0)))
