"""Lines: brings back whom a limit lets in, and watches the limits for which tasks of this node wait in line.

A task that has to wait stands in the line of its limit and is parked, so that it takes no place of a node. Whoever
leaves a limit lets the next one in and recalls it. That may get lost with its node: so each node that parked
somebody looks at the line every few seconds, lets in whom there is room for (a rate: as soon as its next start is
due), recalls again who was let in and has not begun, and frees the places of those that are gone. A task that runs
keeps its place, however long it runs and whatever became of its node: it is begun again with it.
"""

from __future__ import annotations

import logging
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
from pytask.store.limits import Glance, Member, Pass, Standing, Turnover, split_member
from pytask.uniqueness import is_over

log = logging.getLogger("pytask.node")

# Seconds.
FIRST_LOOK, LOOK = 1.0, 3.0  # until the first look at a line, and between two
LEAST = 0.05  # between two calls on one limit that this node makes by itself
RECALL_DELAYS = (0.01, 2.0)  # the first and the last between two recalls of an id that is about to be parked
FORGOTTEN = 15.0  # a place is freed of whom was let in and is in no structure of its queue
NEGLECTED = 60.0  # and of whom is in its queue and is not begun: nobody serves it
MOST_LINES = 10_000  # that a node watches; the others are asked about when their tasks ask again
MOST_PUMPS, MOST_LOOKS = 200, 20  # limits at a time
MEMBERS = 200  # of those that were let in, a look
HEADS = 50  # of those in line, a look

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

    __slots__ = ("called", "limit", "look_at", "pump_at", "rank", "seen", "unserved")

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit = limit
        self.look_at = now + FIRST_LOOK
        self.pump_at: float | None = None
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
        line = self._lines.get(limit.label)
        if standing.length == 0:
            if line is not None and line.limit == limit:
                del self._lines[limit.label]
            return
        now = time.monotonic()
        if line is None:
            if len(self._lines) >= MOST_LINES:
                return
            line = self._lines[limit.label] = Line(limit, now)
        line.limit = limit
        line.called = now
        line.pump_at = None if standing.wait is None else now + max(standing.wait, LEAST)
        self._wake.set()

    def run(self) -> None:
        """Recall, let in, and look, for ever."""
        while True:
            self._wake.wait(timeout=self._pause())
            self._wake.clear()
            now = time.monotonic()
            due = [recall for recall in self._recalls if recall.at <= now]
            if due:
                self._recalls = [recall for recall in self._recalls if recall.at > now]
                self._recall(due)
            self._pump(now)
            self._look(now)

    def _pause(self) -> float | None:
        times = [recall.at for recall in self._recalls]
        for line in self._lines.values():
            times.append(line.look_at)
            if line.pump_at is not None:
                times.append(line.pump_at)
        return max(min(times) - time.monotonic(), 0.005) if times else None

    # Bringing back.

    def _recall(self, recalls: Sequence[Recall]) -> None:
        """Bring ids back; again in a moment where they are claimed now: their nodes are about to park them."""
        groups: dict[bytes, list[Recall]] = defaultdict(list)
        for recall in recalls:
            groups[split_member(recall.member)[0]].append(recall)
        for queue, group in groups.items():
            name = self.state.store.keys.queue_of_key(queue)
            if name is None:
                continue
            try:
                ids = [split_member(recall.member)[1] for recall in group]
                verdicts = self.store.claims(name).recall(ids)
            except StoreError as error:
                complain(group[0].limit.label, error)
                verdicts = [ON_ITS_WAY] * len(group)
            for recall, verdict in zip(group, verdicts, strict=True):
                self._follow(recall, verdict)

    def _follow(self, recall: Recall, verdict: int) -> None:
        if verdict == ON_ITS_WAY and recall.delay <= RECALL_DELAYS[1]:
            self._recalls.append(recall._replace(at=time.monotonic() + recall.delay, delay=2 * recall.delay))
            self._wake.set()
        line = self._lines.get(recall.limit.label)
        if line is None or verdict not in (NOWHERE, UNSERVED):
            return
        if verdict == UNSERVED:  # somebody in another queue may be next; it asks again when its queue is served
            line.unserved.add(recall.member)
            line.look_at = 0.0
        else:  # it was stopped meanwhile, or its record is gone
            line.look_at = min(line.look_at, line.called + LEAST)
        self._wake.set()

    # Letting in.

    def _pump(self, now: float) -> None:
        due = [line for line in self._lines.values() if line.pump_at is not None and line.pump_at <= now]
        due = due[:MOST_PUMPS]
        for line in due:
            line.pump_at = None
        self._turn_over([Turnover(line.limit) for line in due])

    def _turn_over(self, turnovers: list[Turnover]) -> None:
        if not turnovers:
            return
        for each, standing in zip(turnovers, self.store.limits.turn_over(turnovers), strict=True):
            if isinstance(standing, StoreError):
                complain(each.limit.label, standing)
            else:
                self.note(each.limit, standing)

    # Looking.

    def _look(self, now: float) -> None:
        due = sorted((line for line in self._lines.values() if line.look_at <= now), key=lambda line: line.look_at)
        for line in due[:MOST_LOOKS]:
            line.look_at = now + LOOK
        turnovers = []
        for line in due[:MOST_LOOKS]:
            try:
                turnovers.append(Turnover(line.limit, leaves=self._who_is_gone(line)))
            except StoreError as error:
                complain(line.limit.label, error)
        self._turn_over(turnovers)

    def _who_is_gone(self, line: Line) -> list[Pass]:
        """Those that have a place and no right to it, and those in line that will never ask again."""
        held, heads = self.store.limits.get_members(line.limit, line.rank, MEMBERS, HEADS)
        line.rank = line.rank + MEMBERS if len(held) == MEMBERS else 0
        glances = self.store.limits.glance([split_member(member)[1] for member, _ in (*held, *heads)])
        now = time.monotonic()
        gone = [row for row, glance in zip(held, glances, strict=False) if self._is_gone(line, row, glance, now)]
        dead = [row for row, glance in zip(heads, glances[len(held) :], strict=True) if is_over(glance)]
        if dead:
            line.look_at = now + LEAST  # there may be more of them behind
        if len(held) < MEMBERS and line.rank == 0:
            known = {member for member, _ in held}
            line.seen = {member: seen for member, seen in line.seen.items() if member in known}
        return gone + dead

    def _is_gone(self, line: Line, row: Pass, glance: Glance | None, now: float) -> bool:
        member, fence = row
        if is_over(glance):
            return True
        assert glance is not None
        unserved = member in line.unserved
        line.unserved.discard(member)
        if self._is_right(line.limit, member, glance):
            line.seen.pop(member, None)
            return False
        if unserved:
            return True
        before = line.seen.get(member)
        if before is None or before[0] != fence:
            line.seen[member] = (fence, now)
            return False
        since = now - before[1]
        if since < NEGLECTED and since >= FIRST_LOOK:
            return self._call_again(member) in (NOWHERE, UNSERVED) and since >= FORGOTTEN
        return since >= NEGLECTED

    def _is_right(self, limit: Limit, member: Member, glance: Glance) -> bool:
        """Does it run, or wait in the line of another limit?"""
        if glance.state == RUNNING:
            return limit.seconds == 0 and glance.at == split_member(member)[0]
        named = parse_demand(wire.to_str(glance.limits)).limits
        return glance.state in PARKED and limit.label in [each.label for each in named[:-1]]

    def _call_again(self, member: Member) -> int:
        """It was let in some seconds ago and has not begun: the recall may have been lost with its node."""
        queue, task_id = split_member(member)
        name = self.state.store.keys.queue_of_key(queue)
        return NOWHERE if name is None else self.store.claims(name).recall([task_id])[0]


def complain(label: str, error: StoreError) -> None:
    """Say that a limit or a lock cannot be used."""
    log.error("limit %s: %s", wire.shown(label), wire.shown(str(error), 200))


def _by_limit(rows: Sequence[Leaving]) -> dict[Limit, list[Pass]]:
    groups: dict[Limit, list[Pass]] = defaultdict(list)
    for row in rows:
        for limit in row.demand.limits:
            groups[limit].append((row.member, row.fence))
    return groups
