"""Monitor: puts back the tasks of nodes that died. Runs on every node; however many run, one wins.

Only a failed observation makes a node dead: its sequence was seen unchanged for `node_timeout` seconds on
this Monitor's own monotonic clock; or for 1.5 s since its liveness subscription, which this Monitor saw standing,
was first seen gone from every server. Any error of Redis, or a gap of its own, starts all observations over, so
that an outage makes nobody dead. No two machines' clocks are compared.

The more Monitors there are the more seldom each looks, so that all together look as often as a few. One that has
a suspicion looks often until it is settled.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from pytask import points, wire
from pytask.errors import StoreError, StoreUnavailable
from pytask.names import queue_label
from pytask.store.membership import Membership, Standing
from pytask.task import Task

log = logging.getLogger("pytask.monitor")

LOOK = 0.8  # seconds between the looks of each of a few Monitors
FEW = 5  # Monitors; of more, each looks as much more seldom
LONGEST_LOOK = 4.5
FEW_QUEUES = 4  # of more, a Monitor that is alone looks as much more seldom
ALONE_LOOK = 1.0  # with no other node there is nobody to watch, but one may come
SILENT_LOOK = 1.0  # while a node has not beaten for half of node_timeout
KEEN_LOOK = 0.25  # at most, while a subscription is gone
LEAST_LOOK = 0.02
JITTER = 0.9  # of a pause is the least that it takes
GONE_LOOKS = 5  # times as seldom as a late move is awaited: who left the queue without ever being seen there
GAP = 2.5  # a Monitor that did not look for so long (beyond its own pace) knows nothing any more
GONE_SECONDS = 1.5
GONE_LATE = 1.0  # so late a look may hide an outage in which no node could subscribe again


class Subscriptions:
    """Where the liveness subscription of each node was seen standing. Pure."""

    def __init__(self) -> None:
        self.stood: dict[bytes, set[str]] = {}

    def forget(self) -> None:
        """Start over."""
        self.stood.clear()

    def look(self, standing: Mapping[str, set[bytes]], nodes: set[bytes], own: bytes) -> set[bytes]:
        """Take in who listens on which server; returns the nodes whose subscription is gone.

        A server that did not answer may have been replaced: what was seen there counts no more. Where our `own`
        node's is gone too, the server itself may have begun anew: then nothing does.
        """
        self.stood = {node: servers & standing.keys() for node, servers in self.stood.items() if node in nodes}
        if self.stood.get(own) and not any(own in listening for listening in standing.values()):
            self.forget()
        for server, listening in standing.items():
            for node in listening & nodes:
                self.stood.setdefault(node, set()).add(server)
        return {node for node, servers in self.stood.items() if servers and not _listens(standing, node)}


def _listens(standing: Mapping[str, set[bytes]], node: bytes) -> bool:
    return any(node in listening for listening in standing.values())


@dataclass(slots=True)
class Observation:
    """What was seen of one node, at monotonic seconds."""

    sequence: bytes
    since: float  # when this sequence was first seen
    gone: float | None = None  # when the subscription was first seen gone, at this sequence


class Observer:
    """The observations of one queue's nodes. Pure but for the clock that it is given."""

    def __init__(self, node_timeout: float) -> None:
        self.node_timeout = node_timeout
        self.seen: dict[bytes, Observation] = {}
        self.last_look: float | None = None

    def forget(self) -> None:
        """Start all observations over."""
        self.seen.clear()
        self.last_look = None

    def look(
        self, now: float, sequences: Mapping[bytes, bytes], gone: set[bytes], gap: float
    ) -> list[tuple[bytes, bytes]]:
        """Take in what was read now; returns (node, sequence) of every node that is dead.

        `gone`: the nodes whose liveness subscription is gone. `gap`: the longest that may lie between two looks.
        """
        late = 0.0 if self.last_look is None else now - self.last_look - (gap - GAP)
        if late > GAP:
            self.seen.clear()
        elif late > GONE_LATE:
            for seen in self.seen.values():
                seen.gone = None
        self.last_look = now
        for node in self.seen.keys() - sequences.keys():
            del self.seen[node]
        return [
            (node, sequence.lstrip(b"-"))
            for node, sequence in sequences.items()
            if self._is_dead(now, node, sequence, node in gone)
        ]

    def _is_dead(self, now: float, node: bytes, sequence: bytes, gone: bool) -> bool:
        if sequence.startswith(b"-"):
            return True  # being reaped: carry on, its Monitor may have died
        seen = self.seen.get(node)
        if seen is None or seen.sequence != sequence:
            self.seen[node] = Observation(sequence, now, now if gone else None)
            return False
        if not gone:
            seen.gone = None
        elif seen.gone is None:
            seen.gone = now
        # counted from when it was seen gone: an outage between two looks, which this Monitor did not notice, cuts
        # every subscription, and the node needs a moment to beat again
        if seen.gone is not None and now - seen.gone >= GONE_SECONDS:
            return True
        return now - seen.since >= self.node_timeout

    def seconds_to_a_death(self, now: float) -> float | None:
        """Until a node whose subscription is gone counts as dead; None where there is none."""
        gone = [seen.gone for seen in self.seen.values() if seen.gone is not None]
        return min(gone) + GONE_SECONDS - now if gone else None

    def suspects_silence(self, now: float) -> bool:
        """Has a node not beaten for long?"""
        return any(now - seen.since > self.node_timeout / 2 for seen in self.seen.values())


class Monitor(Task):
    """Watches the nodes of some queues (None: those of the app)."""

    NAME = "pytask/monitor"
    forever = True
    local_only = True  # its data would let a producer declare nodes dead, or name code to import

    def __init__(self, queues: Sequence[str] | None = None, node_timeout: float = 10.0) -> None:
        self.queues = tuple(self.helpers.queues if queues is None else queues)
        self.node_timeout = node_timeout
        self.late_move = node_timeout / 2 + 1  # seconds: no blocking move of a node takes longer
        self.observers = {queue: Observer(node_timeout) for queue in self.queues}
        self.subscriptions = Subscriptions()
        self.known: dict[str, set[bytes]] = {queue: set() for queue in self.queues}  # nodes at the last look
        self.gone: dict[str, set[bytes]] = {queue: set() for queue in self.queues}  # as last read
        self.read_gone = dict.fromkeys(self.queues, 0.0)  # monotonic second at which to read that again
        self.orphans: dict[tuple[str, bytes], float] = {}
        self.pace = LOOK

    def start(self) -> None:
        """Look, reap, and sleep, for ever."""
        while True:
            self._watch()
            self._empty_orphans()
            time.sleep(self.pace * random.uniform(JITTER, 1.0))

    @property
    def own_node(self) -> bytes:
        """The node that this Monitor runs on: its id is `<name>@<node>`."""
        return self.id.partition("@")[2].partition("#")[0].encode()

    def _watch(self) -> None:
        """Look at the nodes of all queues, reap the dead ones, and choose the pace."""
        sequences = {queue: read for queue in self.queues if (read := self._read(queue)) is not None}
        nodes = {node for read in sequences.values() for node in read}
        others = nodes - {self.own_node}
        standing = self.helpers.store.node_records.get_standing(nodes) if others else Standing({}, set())
        gone = self.subscriptions.look(standing.nodes, nodes, self.own_node)
        now = time.monotonic()
        for queue, read in sequences.items():
            for node, sequence in self.observers[queue].look(now, read, gone, self.pace + GAP):
                self._reap(queue, node, sequence)
        self.pace = self._choose_pace(now, others, len(standing.monitors))

    def _read(self, queue: str) -> dict[bytes, bytes] | None:
        """Node -> sequence; None, and all observations over, where it cannot be read."""
        try:
            membership = self._membership(queue)
            sequences = membership.get_sequences()
            self._note_orphans(queue, membership, sequences.keys())
            return sequences
        except StoreError as error:
            self._start_over(queue, error)
            return None

    def _start_over(self, queue: str, error: StoreError) -> None:
        passing = isinstance(error, StoreUnavailable)
        level = logging.DEBUG if passing else logging.ERROR
        log.log(level, "observations start over: %s", wire.shown(str(error), 200))
        self.observers[queue].forget()
        if passing:  # a key of another type says nothing about the server
            self.subscriptions.forget()

    def _note_orphans(self, queue: str, membership: Membership, nodes: Set[bytes]) -> None:
        """Whoever reaped a node, its blocking move may still be handed an id: look at its inbox again later.

        The one who reaped it may be a parent process, the node itself, or a Monitor that died since. Nodes that
        were never seen here are found too, after a while.
        """
        now = time.monotonic()
        before, self.known[queue] = self.known[queue], set(nodes)
        if now >= self.read_gone[queue] or before - nodes:
            gone = membership.get_gone()
            for node in gone - self.gone[queue]:
                self.orphans.setdefault((queue, node), now + self.late_move)
            self.gone[queue] = gone
            self.read_gone[queue] = now + GONE_LOOKS * self.late_move

    def _choose_pace(self, now: float, others: set[bytes], monitors: int) -> float:
        observers = self.observers.values()
        deaths = [left for observer in observers if (left := observer.seconds_to_a_death(now)) is not None]
        if deaths:
            return min(max(min(deaths), LEAST_LOOK) / JITTER, KEEN_LOOK)
        longest = min(LONGEST_LOOK, 0.45 * self.node_timeout)
        if any(observer.suspects_silence(now) for observer in observers):
            longest = min(SILENT_LOOK, longest)
        if not others:
            return min(ALONE_LOOK * max(len(self.queues) / FEW_QUEUES, 1), longest)
        return min(LOOK * max(monitors / FEW, 1), longest)

    def _membership(self, queue: str) -> Membership:
        membership: Membership = self.helpers.store.membership(queue)
        return membership

    def _reap(self, queue: str, node: bytes, sequence: bytes) -> None:
        points.reach("before-reap")
        try:
            won = self._membership(queue).reap(node, sequence)
        except StoreError as error:
            self._start_over(queue, error)
            return
        if won:
            points.reach("after-reap")
            log.warning("node %s is dead: its tasks are back in queue %s", node.decode(), queue_label(queue))
        self.orphans[queue, node] = time.monotonic() + self.late_move

    def _empty_orphans(self) -> None:
        now = time.monotonic()
        for (queue, node), when in list(self.orphans.items()):
            if now >= when:
                try:
                    self._membership(queue).empty_inbox(node)
                except StoreError:
                    continue
                del self.orphans[queue, node]
