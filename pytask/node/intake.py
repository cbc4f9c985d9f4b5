"""Intake: takes ids off one queue, in batches, and begins them.

It waits for room on the node, claims what is there, and blocks on the queue only where nothing was. The
blocking move hands an id to the node's inbox, from which the next claim takes it: a move whose reply is
lost loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable

import gevent
from gevent.lock import Semaphore

from pytask import points, wire
from pytask.errors import StoreError, StoreRefused
from pytask.keys import QueueKeys
from pytask.names import queue_label
from pytask.node.identity import Identity
from pytask.node.reconcile import Reconcile
from pytask.node.run import Run
from pytask.node.service import Service
from pytask.node.starter import Starter
from pytask.node.state import NodeState
from pytask.store.claims import Claim
from pytask.store.store import Store

log = logging.getLogger("pytask.node")

BATCH = 250  # ids a claim
LARGE = 50  # claims that are worth a greenlet of their own
AHEAD = 2  # large batches that may be begun at a time
CLAIM, BEGIN, WAIT = "its claim", "the records of what it has claimed", "its blocking move"
REFUSED_DELAY = 2.0  # seconds until a queue that is no list is tried again
PAUSED_DELAY = 0.3  # seconds between looks whether a paused queue is resumed


class Intake(Service):
    """The intake of one queue. `waits` is the store for its blocking move, with a long socket timeout."""

    def __init__(
        self,
        state: NodeState,
        queue: QueueKeys,
        starter: Starter,
        reconcile: Reconcile,
        identity: Identity,
        waits: Store,
    ) -> None:
        super().__init__()
        self.name = f"intake {queue.name or 'default'}"
        self.state = state
        self.queue = queue
        self.starter = starter
        self.reconcile = reconcile
        self.identity = identity
        self.claims = state.store.claims(queue.name)
        self.waiting = waits.claims(queue.name)
        self.block = min(state.settings.node_timeout / 2, 5.0)
        self.doing = CLAIM  # what it waits for
        self.answered = time.monotonic()  # when a claim was answered last
        self.paused = False
        self.expects = False  # do other nodes put ids into the inbox?
        self.on_paused: Callable[[QueueKeys], None] = lambda _queue: None  # called at each look at a paused queue
        self.share = state.registry.share_of(queue.name)
        self._blocked = False
        self._moved = True  # may a blocking move have filled the inbox since the last claim?
        self._settled = False  # has a move ended by itself since the last one was cut short?
        self._ahead = Semaphore(AHEAD)

    def start(self) -> None:
        """Begin, unless the queue is given up: it is begun when it is served again."""
        if self.queue.name not in self.state.away:
            super().start()

    def run(self) -> None:
        """Claim and begin, for ever."""
        self._settled = False
        self._moved = True
        try:
            self._serve()
        finally:
            if self.share is not None:
                self.share.leave()

    def _serve(self) -> None:
        while True:
            self._stand_back()
            node = self.state.id
            try:
                points.reach("before-claim")
                self.doing = CLAIM
                claims = self._claim(node)
                self.answered = time.monotonic()
                if claims is None:
                    self._rest()
                    continue
                if self.paused:
                    self._go_on()
                if claims:
                    points.reach("after-claim")
                    self.doing = BEGIN
                    try:
                        self._begin(node, claims)
                    finally:
                        self.doing = CLAIM
                elif not self.state.registry.has_place:
                    self.state.registry.room.clear()  # nothing to begin ahead: until a run ends
                elif self.may_take():
                    self.doing = WAIT
                    self._wait(node)
            except StoreRefused as error:
                self._complain(error)
                gevent.sleep(REFUSED_DELAY)

    def _claim(self, node: bytes) -> list[Claim] | None:
        """Claim what there is room for; None where the queue is paused."""
        share = self.share
        if share is None:
            return self.claims.claim(node, max(min(self.state.registry.free, BATCH), 1))
        claims = None
        most = share.ask(BATCH)
        try:
            claims = self.claims.claim(node, most)
        finally:
            share.got(len(claims or ()))
        self._moved = not (claims and self._settled)
        return claims

    def _rest(self) -> None:
        """The queue is paused: what waits on this node goes back as well. Look again after a moment."""
        if not self.paused:
            log.info("queue %s is paused", queue_label(self.queue.name))
        self.paused = True
        self.on_paused(self.queue)
        gevent.sleep(PAUSED_DELAY * random.uniform(0.8, 1.0))

    def _go_on(self) -> None:
        log.info("queue %s is resumed", queue_label(self.queue.name))
        self.paused = False

    def _begin(self, node: bytes, claims: list[Claim]) -> None:
        """Begin claims; of a large batch while the next one is claimed, so that server and node both work."""
        runs = self.starter.register(self.queue, node, claims)
        if len(claims) < LARGE:
            self.starter.begin_or_return(self.queue, node, runs)
        else:
            batch = self.starter.announce(self.queue, runs)  # now: its greenlet may run after the next claim
            self._ahead.acquire()
            gevent.spawn(self._begin_ahead, node, runs, batch)

    def _begin_ahead(self, node: bytes, runs: list[Run], batch: object) -> None:
        try:
            self.starter.begin_or_return(self.queue, node, runs)
        except StoreError as error:
            self._complain(error)
        finally:
            self.starter.conclude(batch)
            self._ahead.release()

    def _complain(self, error: StoreError) -> None:
        log.error("queue %s cannot be served: %s", wire.shown(self.queue.key), wire.shown(str(error), 200))

    def _stand_back(self) -> None:
        """Wait until the node may take tasks. An id that is handed over meanwhile does not wait for it."""
        timeout: float | None = self.block  # a move that was cut short may be served for so long
        if self.share is not None:
            self.share.back()
        while not self.may_take():
            if self.share is not None:
                self.share.want()
            if self._moved or not self._is_free():
                self.claims.give_back(self.state.id)
            self.state.accepting.wait(timeout)
            self.state.registry.room.wait(timeout)
            if self.share is not None:
                self.share.wait(timeout)
            timeout = None

    def may_take(self) -> bool:
        """Has the node room (for tasks of this queue), and is it to take tasks?"""
        return self._is_free() and (self.share is None or self.share.room() > 0)

    def _is_free(self) -> bool:
        return bool(self.state.accepting.is_set() and self.state.registry.has_room())

    def _wait(self, node: bytes) -> None:
        """Block until there is an id; a move that brought none left nothing to claim, and is simply repeated.

        But for the first one: until then the server may have served one that was cut short.
        """
        self._blocked = self._moved = True
        try:
            while not self.waiting.wait_for_id(node, self.block):
                if self.expects or not self._settled or node != self.state.id or not self.may_take():
                    self._settled = True
                    return
        finally:
            self._blocked = False

    def interrupt(self) -> None:
        """Cut a blocking move short, and begin again."""
        if self._blocked:
            self.stop()
            self.start()

    def look(self) -> None:
        """Something may stand in the inbox: claim it now, or give it back where there is no room for it."""
        self.expects = True
        if self._blocked:
            self.interrupt()
        elif not self.may_take():
            gevent.spawn(self._empty_inbox)

    def _empty_inbox(self) -> None:
        with contextlib.suppress(StoreError):  # it is looked at again
            self.claims.give_back(self.state.id)

    def begin_anew(self) -> bool:
        """Begin again, on new connections; False where claims are being begun, which must not be cut short."""
        if self.doing == BEGIN:
            return False
        self.stop()  # what is killed while it waits for a reply drops its connection
        self.reconcile.want_adoption(self.queue.name)
        self.start()
        return True

    def finish(self) -> None:
        """End softly: a claim under way is completed, a wait is cut short. Needs `accepting` cleared.

        Claims that are being begun are not cut short, whatever that takes: their records may say RUNNING by now,
        and a run that is forgotten then counts as one that died. The node waits for them as for all its runs.
        """
        if not self._blocked and self._greenlet is not None:
            self._greenlet.join(timeout=0.2)
        if self.doing != BEGIN:
            self.stop()

    def on_unavailable(self) -> None:
        """The reply of a claim may be lost: its ids are ours all the same."""
        self.reconcile.want_adoption(self.queue.name)

    def on_gone(self, node: bytes) -> None:
        """This node was declared dead."""
        self.identity.refuse(node)
