"""Identity: under which id this node lives, and what it does when nobody believes that any more.

A node that was declared dead, or has not got a beat through to any of its queues for CUT_OFF of `node_timeout`,
ends its runs at once, since others may have them, and comes back under a new id. Where beats reach some of its
queues (on a cluster, one server of which is away), it gives up those that they do not reach, and the runs of these
alone, until they are reached again. It is a service of its own, so that runs end in time whatever the other
services wait for while Redis is away.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from itertools import count

import gevent
from gevent.event import Event

from pytask.errors import StoreUnavailable
from pytask.names import queue_label
from pytask.node.heartbeat import Heartbeat
from pytask.node.run import BEGIN, RUN
from pytask.node.service import Service
from pytask.node.state import NodeState, new_node_id
from pytask.node.stopper import Stopper
from pytask.store.membership import Membership

log = logging.getLogger("pytask.node")

CUT_OFF = 0.8  # of node_timeout
LEAST = 0.05  # seconds between two looks
LOOK = 0.5  # seconds, while a queue is away
JOINED = 1_000_000_000  # more than a node beats in a life
LATE_MOVE = 6.0  # seconds: no blocking move takes longer than 5


class Identity(Service):
    """The id of a node. `on_given_up` is called when its runs have been told to end, `on_new` when it is back.

    `on_away` is called with a queue that is given up, `on_back` when it is served again.
    """

    name = "identity"

    def __init__(self, state: NodeState, stopper: Stopper, heartbeat: Heartbeat) -> None:
        super().__init__()
        self.state = state
        self.stopper = stopper
        self.heartbeat = heartbeat
        self.on_given_up: Callable[[], None] = lambda: None
        self.on_away: Callable[[str], None] = lambda _queue: None
        self.on_back: Callable[[str], None] = lambda _queue: None
        self.on_new: Callable[[], None] = lambda: None
        self._refused = b""
        self._left: dict[str, float] = {}  # queues that were given up: the monotonic second of that
        self._turns = count(JOINED)  # what it says where it joins, until its first beat there
        self._owed: dict[str, set[bytes]] = {}  # ids under which queues are still to be left
        self._wake = Event()

    def wake(self) -> None:
        """A beat was answered."""
        self._wake.set()

    def refuse(self, node: bytes) -> None:
        """The server said that the node with this id was declared dead; an answer to an older id says nothing."""
        self._refused = node
        self._wake.set()

    def run(self) -> None:
        """Look after each full beat, and when a beat has been missing for too long; for ever."""
        while True:
            why = self._doubt()
            if why:
                self._come_back(why)
            else:
                self._cut_off()
                self._return()
            self._wake.wait(timeout=self._nap())
            self._wake.clear()

    def _nap(self) -> float:
        """Seconds until a queue has to be given up, unless a beat reaches it before; LOOK where one is away."""
        through, away = self.heartbeat.beats.through, self.state.away
        oldest = min((through[queue] for queue in self.state.queue_names if queue not in away), default=0.0)
        left = oldest + CUT_OFF * self.state.settings.node_timeout - time.monotonic()
        return max(min(left, LOOK) if away else left, LEAST)

    def _doubt(self) -> str:
        """Why others may hold this node for dead; '' where they do not."""
        if self.state.id in (self._refused, self.heartbeat.beats.gone, self.state.given_up):
            return "it was declared dead"
        if not any(self._is_heard(queue) for queue in self.state.queue_names):
            return "it has not reached Redis for too long, others may have its tasks"
        return ""

    def _is_heard(self, queue: str) -> bool:
        through = self.heartbeat.beats.through[queue]
        return time.monotonic() - through <= CUT_OFF * self.state.settings.node_timeout

    # One queue of several.

    def _cut_off(self) -> None:
        """Give up the queues that no beat reaches, though others are reached."""
        late = [
            queue for queue in self.state.queue_names if queue not in self.state.away and not self._is_heard(queue)
        ]
        for queue in late:
            log.error("queue %s: no beat has reached it for too long: its runs end", queue_label(queue))
            self._leave_later(queue, self.state.id)
        if late:
            self._end_runs(late)

    def _leave_later(self, queue: str, node: bytes) -> None:
        if queue not in self.state.away:
            self.state.away.add(queue)
            self.state.absences[queue] += 1
            self.on_away(queue)
        self._left[queue] = time.monotonic()
        self._owed.setdefault(queue, set()).add(node)

    def _return(self) -> None:
        """Serve those again that beats reach again."""
        for queue in sorted(self.state.away):
            if self.heartbeat.beats.through[queue] > self._left[queue]:
                try:
                    self._join_anew(queue)
                except StoreUnavailable as error:
                    log.debug("queue %s is away still: %s", queue_label(queue), error)

    def _join_anew(self, queue: str) -> None:
        for node in sorted(self._owed[queue]):
            self._leave(queue, node)
        self._join(queue, self.state.id)
        self._serve(queue)

    def _join(self, queue: str, node: bytes) -> None:
        # a Monitor may have seen the node here before it left: what it sees now must differ from that
        self.state.store.membership(queue).join(node, next(self._turns))
        self.heartbeat.beats.through[queue] = time.monotonic()
        self._owed.pop(queue, None)

    def _serve(self, queue: str) -> None:
        if queue in self.state.away:
            self.state.away.discard(queue)
            log.warning("queue %s is served again", queue_label(queue))
            self.on_back(queue)

    # All of them.

    def _come_back(self, why: str) -> None:
        state = self.state
        log.error("node %s stops its runs and comes back under a new id: %s", state.label, why)
        old = self._give_up()
        self._change(old, new_node_id(state.settings.node_name))
        state.want(state.wanted)
        self.on_new()
        log.warning("node %s is back as %s", old.decode(), state.label)

    def _give_up(self) -> bytes:
        """End every run; from now on no claim of the old id is begun.

        Waits for the runs for as long as nobody else can have noticed: what this node leaves others begin at once.
        """
        state = self.state
        state.given_up = state.id
        state.accepting.clear()
        self._end_runs(state.queue_names)
        return state.id

    def _end_runs(self, queues: Iterable[str]) -> None:
        """Let the runs of these queues end without a word, and wait for that."""
        names = set(queues)
        runs = [r for r in self.state.registry.runs.values() if r.queue.name in names and r.phase in (BEGIN, RUN)]
        for run in runs:
            self.stopper.abandon(run)
        self.on_given_up()
        ends = [run.stopping for run in runs if run.stopping is not None]
        gevent.joinall(ends, timeout=(1 - CUT_OFF) * self.state.settings.node_timeout)

    def _change(self, old: bytes, new: bytes) -> None:
        """Leave under the old id and join under the new one; waits for Redis, however long.

        Queues whose servers are away follow when they are reached again.
        """
        while not (joined := self._move(old, new)):
            gevent.sleep(LOOK)
        self.state.id = new
        for queue in joined:
            self._serve(queue)

    def _move(self, old: bytes, new: bytes) -> list[str]:
        """Leave and join the queues that are reached; returns these."""
        reached = [queue for queue in self.state.queue_names if self._try_to_leave(queue, old)]
        if reached:
            self._forget_record(old)
        # at last and quickly: nobody beats for the new id before it is ours
        return [queue for queue in reached if self._try_to_join(queue, old, new)]

    def _try_to_join(self, queue: str, old: bytes, new: bytes) -> bool:
        try:
            self._join(queue, new)
        except StoreUnavailable:
            self._leave_later(queue, old)  # under the new id nothing was claimed
            return False
        return True

    def _try_to_leave(self, queue: str, old: bytes) -> bool:
        try:
            for node in sorted({old} | self._owed.get(queue, set())):
                self._leave(queue, node)
        except StoreUnavailable:
            self._leave_later(queue, old)
            return False
        return True

    def _leave(self, queue: str, node: bytes) -> None:
        membership = self.state.store.membership(queue)
        membership.leave(node, b"")  # it lives: that is nobody's fault
        # a blocking move that was under way may still fill the inbox of the old id
        gevent.spawn_later(LATE_MOVE, self._empty_inbox, membership, node)

    def _empty_inbox(self, membership: Membership, node: bytes) -> None:
        with contextlib.suppress(StoreUnavailable):  # then a Monitor does it
            membership.empty_inbox(node)

    def _forget_record(self, old: bytes) -> None:
        try:
            self.state.store.node_records.remove(old)
        except StoreUnavailable:  # it goes by itself
            log.debug("the record of node %s cannot be removed now", old.decode())
