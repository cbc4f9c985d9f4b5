"""Identity: under which id this node lives, and what it does when nobody believes that any more.

A node that was declared dead, or has not got a beat through for CUT_OFF of `node_timeout`, ends its runs at once,
since others may have them, and comes back under a new id. It is a service of its own, so that runs end in time
whatever the other services wait for while Redis is away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import gevent
from gevent.event import Event

from pytask.node.heartbeat import Heartbeat
from pytask.node.run import BEGIN, RUN
from pytask.node.service import Service
from pytask.node.state import NodeState, new_node_id
from pytask.node.stopper import Stopper

log = logging.getLogger("pytask.node")

CUT_OFF = 0.8  # of node_timeout
LOOK = 0.5  # seconds
LATE_MOVE = 6.0  # seconds: no blocking move takes longer than 5


class Identity(Service):
    """The id of a node. `on_given_up` is called when its runs have been told to end, `on_new` when it is back."""

    name = "identity"

    def __init__(self, state: NodeState, stopper: Stopper, heartbeat: Heartbeat) -> None:
        super().__init__()
        self.state = state
        self.stopper = stopper
        self.heartbeat = heartbeat
        self.on_given_up: Callable[[], None] = lambda: None
        self.on_new: Callable[[], None] = lambda: None
        self._refused = b""
        self._wake = Event()

    def wake(self) -> None:
        """A beat was answered."""
        self._wake.set()

    def refuse(self, node: bytes) -> None:
        """The server said that the node with this id was declared dead; an answer to an older id says nothing."""
        self._refused = node
        self._wake.set()

    def run(self) -> None:
        """Look after each beat, for ever."""
        while True:
            self._wake.wait(timeout=LOOK)
            self._wake.clear()
            why = self._doubt()
            if why:
                self._come_back(why)

    def _doubt(self) -> str:
        """Why others may hold this node for dead; '' where they do not."""
        beats = self.heartbeat.beats
        if self.state.id in (self._refused, beats.gone, self.state.given_up):
            return "it was declared dead"
        if time.monotonic() - beats.through > CUT_OFF * self.state.settings.node_timeout:
            return "it has not reached Redis for too long, others may have its tasks"
        return ""

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
        runs = [run for run in state.registry.runs.values() if run.phase in (BEGIN, RUN)]
        for run in runs:
            self.stopper.abandon(run)
        self.on_given_up()
        ends = [run.stopping for run in runs if run.stopping is not None]
        gevent.joinall(ends, timeout=(1 - CUT_OFF) * state.settings.node_timeout)
        return state.id

    def _change(self, old: bytes, new: bytes) -> None:
        """Leave under the old id and join under the new one; waits for Redis, however long."""
        state = self.state
        members = [state.store.membership(queue) for queue in state.queue_names]
        for membership in members:
            membership.leave(old, b"")  # it lives: that is nobody's fault
            # a blocking move that was under way may still fill the inbox of the old id
            gevent.spawn_later(LATE_MOVE, membership.empty_inbox, old)
        state.store.node_records.remove(old)
        for membership in members:  # at last and quickly: nobody beats for the new id before it is ours
            membership.join(new)
        state.id = new
        self.heartbeat.beats.through = time.monotonic()
