"""Monitor: puts back the tasks of nodes that died. Runs on every node; however many run, one wins.

Only a failed observation makes a node dead: its sequence was seen unchanged for `node_timeout` seconds on
this Monitor's own monotonic clock; or for 2 s where its liveness subscription, which this Monitor saw
standing, is gone. Any error of Redis, or a gap of its own, starts all observations over, so that an outage
makes nobody dead. No two machines' clocks are compared.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pytask import points, wire
from pytask.errors import StoreError, StoreUnavailable
from pytask.names import queue_label
from pytask.store.membership import Membership
from pytask.task import Task

log = logging.getLogger("pytask.monitor")

LOOK = 0.5  # seconds between looks, with few nodes
LONGEST_LOOK = 2.0
GAP = 2.5  # a Monitor that did not look for so long (beyond its own pace) knows nothing any more
GONE_SECONDS = 2.0


@dataclass(slots=True)
class Observation:
    """What was seen of one node."""

    sequence: bytes
    since: float  # monotonic second when this sequence was first seen
    stood: bool = False  # its liveness subscription was seen standing
    gone: float | None = None  # monotonic second when it was first seen gone, with this sequence


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
        self, now: float, sequences: dict[bytes, bytes], listening: set[bytes], gap: float
    ) -> list[tuple[bytes, bytes]]:
        """Take in what was read now; returns (node, sequence) of every node that is dead."""
        if self.last_look is not None and now - self.last_look > gap:
            self.seen.clear()
        self.last_look = now
        for node in set(self.seen) - set(sequences):
            del self.seen[node]
        return [
            (node, sequence.lstrip(b"-"))
            for node, sequence in sequences.items()
            if self._is_dead(now, node, sequence, node in listening)
        ]

    def _is_dead(self, now: float, node: bytes, sequence: bytes, listens: bool) -> bool:
        if sequence.startswith(b"-"):
            return True  # being reaped: carry on, its Monitor may have died
        seen = self.seen.get(node)
        if seen is None or seen.sequence != sequence:
            stood = listens or bool(seen and seen.stood)
            self.seen[node] = Observation(sequence, now, stood, now if stood and not listens else None)
            return False
        seen.stood = seen.stood or listens
        if listens or not seen.stood:
            seen.gone = None
        elif seen.gone is None:
            seen.gone = now
        # counted from when it was seen gone: an outage between two looks, which this Monitor did not notice, cuts
        # every subscription, and the node needs a moment to beat again
        return now - seen.since >= self.node_timeout or (seen.gone is not None and now - seen.gone >= GONE_SECONDS)


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
        self.gone: dict[str, set[bytes]] = {queue: set() for queue in self.queues}  # as last read
        self.read_gone = dict.fromkeys(self.queues, 0.0)  # monotonic second at which to read that again
        self.orphans: dict[tuple[str, bytes], float] = {}

    def start(self) -> None:
        """Look, reap, and sleep, for ever."""
        while True:
            pace = LOOK
            for queue in self.queues:
                pace = max(pace, self._watch(queue))
            self._empty_orphans()
            time.sleep(pace * random.uniform(0.9, 1.0))

    def _watch(self, queue: str) -> float:
        """Look at one queue's nodes; returns the seconds until the next look."""
        observer, membership = self.observers[queue], self.helpers.store.membership(queue)
        try:
            sequences = membership.get_sequences()
            listening = membership.get_listening(list(sequences)) if sequences else set()
            self._note_orphans(queue, membership)
            pace = min(LOOK * max(len(sequences) / 4, 1), LONGEST_LOOK)
            for node, sequence in observer.look(time.monotonic(), sequences, listening, pace + GAP):
                self._reap(queue, membership, node, sequence)
        except StoreError as error:
            level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
            log.log(level, "observations start over: %s", wire.shown(str(error), 200))
            observer.forget()
            return LOOK
        return pace

    def _note_orphans(self, queue: str, membership: Membership) -> None:
        """Whoever reaped a node, its blocking move may still be handed an id: look at its inbox again later.

        The one who reaped it may be a parent process, the node itself, or a Monitor that died since.
        """
        now = time.monotonic()
        if now >= self.read_gone[queue]:
            gone = membership.get_gone()
            for node in gone - self.gone[queue]:
                self.orphans.setdefault((queue, node), now + self.late_move)
            self.gone[queue] = gone
            self.read_gone[queue] = now + self.late_move

    def _reap(self, queue: str, membership: Membership, node: bytes, sequence: bytes) -> None:
        points.reach("before-reap")
        if membership.reap(node, sequence):
            points.reach("after-reap")
            log.warning("node %s is dead: its tasks are back in queue %s", node.decode(), queue_label(queue))
        self.orphans[queue, node] = time.monotonic() + self.late_move

    def _empty_orphans(self) -> None:
        now = time.monotonic()
        for (queue, node), when in list(self.orphans.items()):
            if now >= when:
                try:
                    self.helpers.store.membership(queue).empty_inbox(node)
                except StoreError:
                    continue
                del self.orphans[queue, node]
