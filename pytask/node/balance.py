"""Balance: spreads the replicas of services evenly over the nodes that serve a queue, and learns their counts.

Each node tells, for each of its queues, how many replicas it runs and for how many tasks it has room. One that has
two more than the node with the fewest, or above, hands one over to that node, then looks again; so nothing goes
back and forth, and all end within one of each other. It begins only when the difference has lasted for CALM
seconds: what starts, or comes back from a dead node, has found its place by then.

A replica that is handed over is stopped as for a reload, and its id goes to the other node's inbox in one script;
a message on that node's own channel lets it look there. Where that is lost, it looks there all the same, later.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter

import gevent
from gevent.event import Event

from pytask import wire
from pytask.errors import StoreError, StoreRefused
from pytask.names import queue_label
from pytask.node.intake import Intake
from pytask.node.run import RUN, Run
from pytask.node.service import Service
from pytask.node.state import NodeState
from pytask.node.stopper import Stopper

log = logging.getLogger("pytask.node")

LOOK = 2.0  # seconds between two looks at how the queues stand
LEARN = 0.7  # seconds between two looks whether a count has changed, while this node runs replicas
REST = 5.0  # and while it runs none
CALM = 1.0  # seconds that a difference must have lasted before the first replica moves
SOON = 0.05  # seconds after a change, or after a replica has left, until the next look
NAP = 0.02
MOST_WAIT = 15.0  # seconds for a replica that was told to end: a task's own stop() may take five, kills three


class Balance(Service):
    """Tells, learns, and hands over. Only greenlets of the main hub touch it."""

    name = "balance"

    def __init__(self, state: NodeState, stopper: Stopper, intakes: dict[str, Intake]) -> None:
        super().__init__()
        self.state = state
        self.services = state.store.services
        self.stopper = stopper
        self.intakes = intakes
        self._wake = Event()
        self._changed: bytes | None = None  # the number of the last change of a count that was read
        self._known: set[bytes] = set()  # the services whose counts were read then
        self._looked = self._learned = float("-inf")  # monotonic seconds
        self._uneven: dict[str, float] = {}  # queue -> since when
        self._told: dict[str, int] = {}  # queue -> how many replicas were told of
        self._waiting: Counter[str] = Counter()  # looks in a row at which something stood in the inbox
        self._refused: set[str] = set()  # queues whose keys are of other types: told of once
        self._leaving = False
        state.counts.on_change = self._note

    def _note(self) -> None:
        """A replica has begun or ended here."""
        self._wake.set()

    def run(self) -> None:
        """Learn and look, for ever."""
        while True:
            runs = self._runs()
            self._learn(runs)
            # before there is any service nothing is told, and nothing is looked at
            pause = self._look(runs) if self._changed is not None and not self._leaving else REST
            pause = min(pause, LEARN if runs else REST)
            if self._wake.wait(timeout=pause * random.uniform(0.8, 1.0)):
                gevent.sleep(SOON)  # many begin together
                self._wake.clear()

    def _runs(self) -> list[Run]:
        return [run for run in self.state.registry.runs.values() if run.replica is not None and run.phase <= RUN]

    def leave(self) -> None:
        """The node takes no more replicas: it ends. Raises StoreError."""
        self._leaving = True
        for queue in self._told:
            self.services.balance(queue, self.state.id, None, 0)

    # Counts.

    def _learn(self, runs: list[Run]) -> None:
        """Read how many replicas there are of each service that runs here, where one of the counts has changed."""
        now = time.monotonic()
        names = {run.replica.service for run in runs if run.replica is not None}
        if now - self._learned < (LEARN / 2 if names else REST / 2):
            return
        self._learned = now
        changed = self.services.get_changed()
        if changed != self._changed or not names <= self._known:
            counts = self.services.get_counts(sorted(names))
            self.state.counts.learn(counts)
            self._changed, self._known = changed, names

    # Spreading.

    def _look(self, runs: list[Run]) -> float:
        """Tell how queues stand, and hand a replica over where there are too many; seconds to the next look."""
        counts = Counter(run.queue.name for run in runs)
        now = time.monotonic()
        due = now - self._looked >= LOOK * 0.8
        if due:
            self._looked = now
        pauses = [
            self._look_at(queue, counts[queue], runs)
            for queue in self.state.queue_names
            if queue not in self.state.away
            and (due or queue in self._uneven or self._told.get(queue) != counts[queue])
        ]
        return min(pauses, default=LOOK)

    def _look_at(self, queue: str, count: int, runs: list[Run]) -> float:
        """One queue; one that cannot be read must not hold the others up."""
        try:
            target = self._tell(queue, count)
        except StoreError as error:
            if isinstance(error, StoreRefused) and queue not in self._refused:
                self._refused.add(queue)
                log.error("queue %s: replicas are not spread: %s", queue_label(queue), wire.shown(str(error), 200))
            return LOOK
        if not target:
            return CALM / 2 if queue in self._uneven else LOOK
        run = self._choose([run for run in runs if run.queue.name == queue])
        if run is None:
            return LOOK
        self._hand_over(run, target)
        return SOON

    def _tell(self, queue: str, count: int) -> bytes:
        """Tell how many there are; returns the node that is to have one of them, empty for none."""
        now = time.monotonic()
        is_calm = now - self._uneven.get(queue, now) >= CALM and self.state.accepting.is_set()
        inbox, target = self.services.balance(queue, self.state.id, count, self._room(queue), gives=is_calm)
        self._told[queue] = count
        self._see_to_inbox(queue, inbox)
        if target:
            self._uneven.setdefault(queue, now)
        else:
            self._uneven.pop(queue, None)
        return target if is_calm else b""

    def _room(self, queue: str) -> int:
        """For how many more tasks of a queue there is room."""
        if not self.state.accepting.is_set():
            return 0
        registry = self.state.registry
        share = registry.share_of(queue)
        places = max(registry.capacity - registry.taken, 0)
        return places if share is None else int(min(places, max(share.limit - share.taken, 0)))

    def _see_to_inbox(self, queue: str, length: int) -> None:
        """What stands there at two looks in a row was told of in vain."""
        self._waiting[queue] = self._waiting[queue] + 1 if length else 0
        if self._waiting[queue] > 1:
            self.intakes[queue].look()

    def _choose(self, runs: list[Run]) -> Run | None:
        """One of the service that has most replicas here; the one that began last, which has least to lose."""
        ready = [run for run in runs if run.phase == RUN and run.wish is None and run.replica is not None]
        if not ready:
            return None
        of_service = Counter(run.replica.service for run in ready if run.replica is not None)
        return max(ready, key=lambda run: (of_service[run.replica.service], run.replica.began))  # type: ignore[union-attr]

    def _hand_over(self, run: Run, target: bytes) -> None:
        """Let one replica go on at another node; waits until it has left this one."""
        log.info(
            "queue %s: %s is handed over to node %s",
            queue_label(run.queue.name),
            wire.shown(run.id),
            target.decode(),
        )
        run.target = target
        self.stopper.put_back(run)
        end = time.monotonic() + MOST_WAIT
        while self.state.registry.holds(run) and time.monotonic() < end:
            gevent.sleep(NAP)
