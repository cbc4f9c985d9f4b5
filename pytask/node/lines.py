"""Lines: brings back whom a limit lets in, and watches the limits for which tasks of this node wait in line.

A task that has to wait stands in the line of its limit and is parked, so that it takes no place of a node. Whoever
leaves a limit lets the next one in and recalls it. That may get lost with its node: so each node that parked
somebody looks at the line every few seconds, lets in whom there is room for (a rate: as soon as its next start is
due), recalls again who was let in and has not begun, and frees the places of those that are gone. A task that runs
keeps its place, however long it runs and whatever became of its node: it is begun again with it.
"""

from __future__ import annotations

import heapq
import logging
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from gevent.event import Event

from pytask import states, wire
from pytask.errors import StoreError, StoreUnavailable
from pytask.limits import Demand, Limit, parse_demand
from pytask.node.service import Service
from pytask.node.state import NodeState
from pytask.store.limits import Glance, Member, Pass, Standing, Turnover, member_of, split_member
from pytask.uniqueness import is_over

log = logging.getLogger("pytask.node")

# Seconds.
FIRST_LOOK, LOOK = 1.0, 3.0  # until the first look at a line, and between two
LEAST = 0.05  # between two calls on one limit that this node makes by itself
RECALL_DELAYS = (0.01, 2.0)  # the first and the last between two recalls of an id that is about to be parked
FORGOTTEN = 15.0  # a place is freed of whom was let in and is in no structure of its queue
NEGLECTED = 60.0  # and of whom is in its queue and is not begun: nobody serves it
MOST_LINES = 10_000  # that a node watches; the others are asked about when their tasks ask again
MOST_PUMPS, MOST_LOOKS = 200, 20  # limits at a time; so many of the latter a second, unless there is a reason
MEMBERS = 200  # of those that were let in, a look
HEADS = 100  # of those in line, a look

PARKED = frozenset(state.encode() for state in states.PARKED)
RUNNING = states.RUNNING.encode()
NOWHERE, ON_ITS_WAY, _, UNSERVED = range(4)  # what `recall` answers


class Leaving(NamedTuple):
    """One task that gives up what it was let in to."""

    member: Member
    id: bytes
    fence: bytes
    demand: Demand
    unlock: bool  # it ended, it is not only to be tried again


class Line:
    """A limit for which somebody waits."""

    __slots__ = ("called", "limit", "look_at", "look_soon", "pump_at", "rank", "seen", "unserved")

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit = limit
        self.look_at = now + FIRST_LOOK
        self.look_soon: float | None = None  # there is a reason to look before that
        self.pump_at: float | None = None  # a rate has its next start then
        self.called = 0.0  # when this node called last
        self.unserved: set[Member] = set()  # let in, but nobody serves their queues
        self.rank = 0  # of the first member for the next look
        self.seen: dict[Member, tuple[bytes, float]] = {}  # let in, not begun: fence, and since when it is seen so


class Recall(NamedTuple):
    """An id that is to be brought back."""

    at: float
    delay: float
    limit: Limit
    member: Member


class Lines(Service):
    """The lines that this node knows of. Only greenlets of the main hub touch it."""

    name = "lines"

    def __init__(self, state: NodeState) -> None:
        super().__init__()
        self.state = state
        self.store = state.store.with_patience(0)
        self._lines: dict[str, Line] = {}
        self._recalls: list[Recall] = []
        self._scan_at = math.inf  # when something is due at a line, and the time of the next look without a reason
        self._looks_at = 0.0
        self._wake = Event()

    # For others: they block for a round trip or two.

    def note(self, limit: Limit, standing: Standing) -> None:
        """What a call on a limit told: bring back whom it let in, and watch the line. Raises nothing."""
        self._watch(limit, standing)
        if standing.granted:
            self._recall([Recall(0.0, RECALL_DELAYS[0], limit, member) for member in standing.granted])

    def leave(self, rows: Sequence[Leaving]) -> list[StoreUnavailable | None]:
        """Give up places and locks, and bring back who has them now; a StoreUnavailable where that failed."""
        problems: dict[Member, StoreUnavailable] = {}
        turnovers = [Turnover(limit, leaves=leaves) for limit, leaves in _by_limit(rows).items()]
        for each, standing in zip(turnovers, self.store.limits.turn_over(turnovers), strict=True):
            if isinstance(standing, StoreUnavailable):
                problems.update({member: standing for member, _ in each.leaves})
            elif isinstance(standing, StoreError):
                complain(each.limit.label, standing)  # nobody can be let in any more, but what ended has ended
            else:
                self.note(each.limit, standing)
        locks = [row for row in rows if row.demand.lock and row.unlock]
        replies = self.store.limits.unlock([(row.demand.lock, row.id, row.fence) for row in locks])
        for row, reply in zip(locks, replies, strict=True):
            if isinstance(reply, StoreUnavailable):
                problems[row.member] = reply
            elif isinstance(reply, StoreError):
                complain(row.demand.lock, reply)
        return [problems.get(row.member) for row in rows]

    # What is known.

    def _watch(self, limit: Limit, standing: Standing) -> None:
        """Watch a line as long as anybody stands there, or was let in and may not know it."""
        line = self._lines.get(limit.label)
        if standing.length == 0 and not standing.granted:
            if line is not None and line.limit == limit and not line.seen:
                del self._lines[limit.label]
            return
        now = time.monotonic()
        if line is None:
            if len(self._lines) >= MOST_LINES:
                return
            line = self._lines[limit.label] = Line(limit, now)
            self._scan_by(line.look_at)
        line.limit = limit
        line.called = now
        line.pump_at = None
        if standing.wait is not None:
            line.pump_at = now + max(standing.wait, LEAST)
            self._scan_by(line.pump_at)

    def _scan_by(self, moment: float) -> None:
        """Something is due then."""
        if moment < self._scan_at:
            self._scan_at = moment
            self._wake.set()

    def run(self) -> None:
        """Recall, let in, and look, for ever."""
        self._scan_at = 0.0
        while True:
            moment = min([self._scan_at, *(recall.at for recall in self._recalls)])
            self._wake.wait(timeout=None if moment == math.inf else max(moment - time.monotonic(), 0.005))
            self._wake.clear()
            now = time.monotonic()
            due = [recall for recall in self._recalls if recall.at <= now]
            if due:
                self._recalls = [recall for recall in self._recalls if recall.at > now]
                self._recall(due)
            if self._scan_at <= now:
                self._scan(now)

    def _scan(self, now: float) -> None:
        """Do what is due at the lines. They may be thousands: they are gone through 20 times a second at most."""
        lines = list(self._lines.values())
        self._scan_at = math.inf
        try:
            self._pump([line for line in lines if line.pump_at is not None and line.pump_at <= now])
            self._look([line for line in lines if line.look_soon is not None and line.look_soon <= now], now)
            if self._looks_at <= now:
                late = [line for line in lines if line.look_at <= now]
                part = heapq.nsmallest(MOST_LOOKS, late, key=lambda line: line.look_at)
                self._looks_at = now + len(part) / MOST_LOOKS
                self._look(part, now)
        finally:
            for line in self._lines.values():
                self._scan_at = min(self._scan_at, max(line.look_at, self._looks_at))
                for moment in (line.pump_at, line.look_soon):
                    if moment is not None:
                        self._scan_at = min(self._scan_at, moment)
            self._scan_at = max(self._scan_at, now + LEAST)

    # Bringing back.

    def _recall(self, recalls: Sequence[Recall]) -> None:
        """Bring ids back; again in a moment where they are claimed now: their nodes are about to park them."""
        verdicts = self._ask_back([recall.member for recall in recalls])
        for recall in recalls:
            self._follow(recall, verdicts.get(recall.member, ON_ITS_WAY))

    def _ask_back(self, members: Sequence[Member]) -> dict[Member, int]:
        """What `recall` answers for each of them; nothing for those whose server does not answer."""
        groups: dict[bytes, list[bytes]] = defaultdict(list)
        for member in members:
            queue, task_id = split_member(member)
            groups[queue].append(task_id)
        found: dict[Member, int] = {}
        for queue, ids in groups.items():
            name = self.state.store.keys.queue_of_key(queue)
            try:
                verdicts = [NOWHERE] * len(ids) if name is None else self.store.claims(name).recall(ids)
            except StoreError as error:
                log.error("queue %s: %s", wire.shown(queue), wire.shown(str(error), 200))
                continue
            found.update({member_of(queue, i): verdict for i, verdict in zip(ids, verdicts, strict=True)})
        return found

    def _follow(self, recall: Recall, verdict: int) -> None:
        if verdict == ON_ITS_WAY and recall.delay <= RECALL_DELAYS[1]:
            self._recalls.append(recall._replace(at=time.monotonic() + recall.delay, delay=2 * recall.delay))
            self._wake.set()
        line = self._lines.get(recall.limit.label)
        if line is None or verdict not in (NOWHERE, UNSERVED):
            return
        if verdict == UNSERVED:  # somebody in another queue may be next; it asks again when its queue is served
            line.unserved.add(recall.member)
        # else it was stopped meanwhile, or its record is gone
        line.look_soon = line.called + LEAST
        self._scan_by(line.look_soon)

    # Letting in.

    def _pump(self, due: list[Line]) -> None:
        for line in due[:MOST_PUMPS]:
            line.pump_at = None
        self._turn_over([Turnover(line.limit) for line in due[:MOST_PUMPS]])

    def _turn_over(self, turnovers: list[Turnover]) -> None:
        if not turnovers:
            return
        for each, standing in zip(turnovers, self.store.limits.turn_over(turnovers), strict=True):
            if isinstance(standing, StoreError):
                complain(each.limit.label, standing)
            else:
                self.note(each.limit, standing)

    # Looking.

    def _look(self, lines: Sequence[Line], now: float) -> None:
        turnovers = []
        for line in lines:
            line.look_at, line.look_soon = now + LOOK, None
            try:
                turnovers.append(Turnover(line.limit, leaves=self._who_is_gone(line)))
            except StoreError as error:
                complain(line.limit.label, error)
        self._turn_over(turnovers)

    def _who_is_gone(self, line: Line) -> list[Pass]:
        """Those that have a place and no right to it, and those in line that will not come when called."""
        held, heads = self.store.limits.get_members(line.limit, line.rank, MEMBERS, HEADS)
        line.rank = line.rank + MEMBERS if len(held) == MEMBERS else 0
        glances = self.store.limits.glance([split_member(member)[1] for member, _ in (*held, *heads)])
        paused = {split_member(member)[0] for member in line.unserved}
        dead = [
            row
            for row, glance in zip(heads, glances[len(held) :], strict=True)
            if is_over(glance) or split_member(row[0])[0] in paused
        ]
        if dead:
            line.look_soon = time.monotonic() + LEAST  # there may be more of them behind
        gone = []
        unbegun = []
        for row, glance in zip(held, glances[: len(held)], strict=True):
            if glance is None or is_over(glance):
                gone.append(row)
            elif self._is_right(line.limit, row[0], glance):
                line.seen.pop(row[0], None)
            else:
                unbegun.append(row)
        return gone + dead + self._see_to(line, unbegun)

    def _see_to(self, line: Line, unbegun: Sequence[Pass]) -> list[Pass]:
        """Call those back that were let in and have not begun; returns those that lose their places."""
        now = time.monotonic()
        line.seen = {member: row for member, row in line.seen.items() if now - row[1] < 2 * NEGLECTED}
        since = {}
        for member, fence in unbegun:
            before = line.seen.get(member)
            if before is None or before[0] != fence:
                before = line.seen[member] = (fence, now)
            since[member] = now - before[1]
        # the calls may have been lost with the node that made them
        verdicts = self._ask_back([member for member in since if since[member] >= FIRST_LOOK])
        gone = [
            row for row in unbegun if self._loses(row[0], since[row[0]], line, verdicts.get(row[0], ON_ITS_WAY))
        ]
        for member, _ in gone:
            line.seen.pop(member, None)
        line.unserved.clear()
        return gone

    def _loses(self, member: Member, seconds: float, line: Line, verdict: int) -> bool:
        """Does one that was let in so long ago, and has not begun, lose its place?"""
        if member in line.unserved or seconds >= NEGLECTED:
            return True
        return verdict in (NOWHERE, UNSERVED) and seconds >= FORGOTTEN

    def _is_right(self, limit: Limit, member: Member, glance: Glance) -> bool:
        """Does it run, or wait in the line of another limit?"""
        if glance.state == RUNNING:
            return limit.seconds == 0 and glance.at == split_member(member)[0]
        named = parse_demand(wire.to_str(glance.limits)).limits
        return glance.state in PARKED and limit.label in [each.label for each in named[:-1]]


def complain(label: str, error: StoreError) -> None:
    """Say that a limit or a lock cannot be used."""
    log.error("limit %s: %s", wire.shown(label), wire.shown(str(error), 200))


def _by_limit(rows: Sequence[Leaving]) -> dict[Limit, list[Pass]]:
    groups: dict[Limit, list[Pass]] = defaultdict(list)
    for row in rows:
        for limit in row.demand.limits:
            groups[limit].append((row.member, row.fence))
    return groups
