"""Reconcile: compares what this node runs with what the server says, after each beat.

- The server counts more claims than there are runs, three beats over: claims whose reply was lost are adopted.
- It counts fewer, three beats over: claims that a failover took back are taken again, or their runs end.
- Beats bring stops that must not get lost; and bit by bit every run's record is asked whether it is still ours.
  With many runs, whether it is there at all: that is one command for hundreds of them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable

from gevent.event import Event

from pytask import points, wire
from pytask.errors import StoreUnavailable
from pytask.node.closing import Closing
from pytask.node.heartbeat import Heartbeat
from pytask.node.run import RUN, Run
from pytask.node.service import Service
from pytask.node.starter import Starter
from pytask.node.state import NodeState
from pytask.node.stopper import Stopper
from pytask.store.claims import Claim
from pytask.store.membership import Pulse

log = logging.getLogger("pytask.node")

PATIENCE = 3  # full beats
CHECK_PARTS = 5  # each run's record is asked once in so many full beats
CHECK_MOST = 200  # records a beat
MANY = 2_000  # runs; thousands that go on for days are not worth a thousand commands a second between them
CHECK_FEW = 5  # records a beat where there are more
CHECK_FEW_ALONE = 100  # on a cluster, where every record is looked for by itself
LOOK_MOST = 10_000  # records that are looked for in a beat


class Rounds:
    """Takes runs in turn: all of them in CHECK_PARTS times, but at most `most` at a time, `few` of MANY runs."""

    def __init__(self, most: int, few: int) -> None:
        self.most = most
        self.few = few
        self._left: list[Run] = []
        self._part = 1

    def take(self, runs: Iterable[Run]) -> list[Run]:
        """The next ones; `runs` is asked for where a new round begins."""
        if not self._left:
            self._left = [run for run in runs if run.phase == RUN]
            most = self.most if len(self._left) <= MANY else self.few
            self._part = min(len(self._left) // CHECK_PARTS + 1, most)
        part, self._left = self._left[: self._part], self._left[self._part :]
        return [run for run in part if run.phase == RUN]


class Reconcile(Service):
    """Acts on the beats."""

    name = "reconcile"

    def __init__(self, state: NodeState, starter: Starter, stopper: Stopper, closing: Closing) -> None:
        super().__init__()
        self.state = state
        self.starter = starter
        self.stopper = stopper
        self.closing = closing
        self.heartbeat: Heartbeat | None = None
        self.on_refused: Callable[[bytes], None] = lambda _node: None
        self.ending = False  # the node is about to leave: what it has not begun goes back with that
        self._wake = Event()
        self._wanted_adoption: set[str] = set()
        self._check_all = False
        self._more: Counter[str] = Counter()
        self._fewer: Counter[str] = Counter()
        self._seen = 0
        self._one = state.store.client.servers.one
        self._to_check = Rounds(CHECK_MOST, CHECK_FEW if self._one else CHECK_FEW_ALONE)
        self._to_look_for = Rounds(LOOK_MOST, LOOK_MOST)

    def wake(self) -> None:
        """There is something to compare."""
        self._wake.set()

    def want_adoption(self, queue: str) -> None:
        """The reply of a claim may have been lost."""
        self._wanted_adoption.add(queue)
        self._wake.set()

    def want_check(self) -> None:
        """Messages may have been missed: ask every run's record soon."""
        self._check_all = True
        self._wake.set()

    def run(self) -> None:
        """Compare after each full beat, and when something is wanted; for ever."""
        while True:
            self._compare()
            self._wake.wait()
            self._wake.clear()

    def _compare(self) -> None:
        assert self.heartbeat is not None
        beats = self.heartbeat.beats
        for queue in sorted(self._wanted_adoption):
            self._wanted_adoption.discard(queue)
            try:
                self._adopt(queue)
            except StoreUnavailable:  # the other queues must not wait for this one
                self._wanted_adoption.add(queue)
        if beats.rounds != self._seen:
            self._seen = beats.rounds
            self._after_beat(beats.pulses)
        if self._check_all:
            self._check_all = False
            self._check([run for run in self.state.registry.runs.values() if run.phase == RUN])

    def _after_beat(self, pulses: dict[str, Pulse]) -> None:
        assert self.heartbeat is not None
        local = Counter(run.queue.name for run in self.state.registry.runs.values() if run.node == self.state.id)
        self.heartbeat.attentive = any(pulse.claims != local[queue] for queue, pulse in pulses.items())
        told = [self.state.registry.runs.get((queue, i)) for queue, pulse in pulses.items() for i in pulse.stops]
        # the beat may speak of an earlier claim of that id: the record knows whether this run is to stop
        self._check([run for run in told if run is not None and run.phase == RUN])
        for queue, pulse in pulses.items():
            self._more[queue] = self._more[queue] + 1 if pulse.claims > local[queue] else 0
            self._fewer[queue] = self._fewer[queue] + 1 if pulse.claims < local[queue] else 0
            if self._more[queue] >= PATIENCE:
                self._more[queue] = 0
                self._adopt(queue)
            if self._fewer[queue] >= PATIENCE:
                self._fewer[queue] = 0
                self._hold(queue)
        self._check_some()

    # Claims whose reply was lost.

    def _adopt(self, queue: str) -> None:
        if queue in self.state.away:
            return
        before = self.state.absences[queue]
        registry, node = self.state.registry, self.state.id
        registry.adopting += 1
        try:
            claims = self.state.store.claims(queue).get_claims_of(node)
            if self.ending or not self.state.goes_by(node) or self.state.absences[queue] != before:
                return  # abandoned runs need not have ended; at its end a node gives back what it has not begun
            new = [claim for claim in claims if self._is_new(queue, node, claim)]
        finally:
            registry.adopting -= 1
        if new:
            log.warning("queue %s: %d claims whose reply was lost are adopted", queue or "default", len(new))
            points.reach("before-adoption")
            self.starter.accept(self.state.queues[queue], node, new)
            points.reach("after-adoption")

    def _is_new(self, queue: str, node: bytes, claim: Claim) -> bool:
        run = self.state.registry.runs.get((queue, claim.id))
        if run is not None and int(run.fence) >= int(claim.fence):
            return False
        if self.state.registry.highest_done(queue, claim.id) >= int(claim.fence):
            # finished already: only its release is missing, it must neither begin again nor be forgotten
            self.closing.release(Run(self.state.queues[queue], node, claim), "none")
            return False
        return True

    # Claims that a failover took back.

    def _hold(self, queue: str) -> None:
        claims = self.state.store.claims(queue)
        owned = {claim.id for claim in claims.get_claims_of(self.state.id)}
        for run in [run for run in self.state.registry.runs.values() if run.queue.name == queue]:
            if run.phase != RUN or run.id in owned or run.node != self.state.id:
                continue
            verdict = claims.hold(run.node, run.id, run.fence, run.claim.lost)
            if verdict == "gone":
                self.on_refused(run.node)
                return
            if verdict == "taken":
                self.stopper.abandon(run)

    # Records that are not ours any more.

    def _check_some(self) -> None:
        runs = self.state.registry.runs
        self._check(self._to_check.take(runs.values()))
        if self._one and len(runs) > MANY:
            part = self._to_look_for.take(runs.values())
            if not self.state.store.records.are_there([run.id for run in part]):
                self._check(part)

    def _check(self, runs: list[Run]) -> None:
        for queue in self.state.queues.values():
            mine = [run for run in runs if run.queue is queue and run.node == self.state.id]
            if not mine:
                continue
            rows = [(run.id, run.fence, b"", "") for run in mine]
            verdicts = self.state.store.records.emit(self.state.id, queue.key, rows)
            for run, verdict in zip(mine, verdicts, strict=True):
                if verdict == b"fenced" and run.phase == RUN:
                    log.warning("id %s: its record is gone or another's, its run ends", wire.shown(run.id))
                    self.stopper.drop(run)
                elif verdict == b"stop":  # or it did not answer: it is asked again
                    self.stopper.stop(run)
                elif verdict == b"restart":
                    self.stopper.make_way(run)
