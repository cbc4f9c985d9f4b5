"""Heartbeat: says that the node lives, from a real OS thread with its own hub and connection.

A task that blocks the main hub must not make the node look dead. The thread also watches the main hub:
blocked for `block_warning` seconds it names the culprit in the log; blocked for `block_timeout` it gives the
node's tasks back and ends the process, so that other nodes take over. It shares plain attributes with the main
hub, nothing else.

Beats come every 2 s. Every second one is full: it also asks how the claims stand. While the node works every
beat is full; while its liveness subscription is down, or its hub is blocked, they come every 0.5 s, since
Monitors then wait only for a moment (see `pytask.tasks.monitor`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event

from pytask import wire
from pytask.errors import StoreError, StoreUnavailable
from pytask.node.run import Run
from pytask.node.runner import Runner
from pytask.node.state import NodeState
from pytask.node.turns import Turns
from pytask.store.membership import GONE, Pulse, beat_all
from pytask.store.store import Store

log = logging.getLogger("pytask.node")

BEAT = 2.0  # seconds between beats, with a node_timeout of 10 or more
SOON = 1.0  # while something is to be found out
HURRY = 0.5  # while Monitors cannot see that the node listens
TICK = 0.5  # seconds between looks at the main hub
LEAST = 0.25  # seconds between two beats, however short `node_timeout` is
EARLY = 0.02  # seconds that a timer may be early
BLOCKED_STATUS = 70  # exit status of a process whose hub was blocked for too long


@dataclass
class Beats:
    """What the thread has learnt. Written by the thread, read by the main hub; each write is one assignment."""

    rounds: int = 0  # how many full beats came through
    pulses: dict[str, Pulse] = field(default_factory=dict)  # by queue, of the last full beat
    # by queue: monotonic second before the last beat was sent that came through; the main hub writes it, too
    through: dict[str, float] = field(default_factory=dict)
    gone: bytes = b""  # the id under which the node was declared dead


class Heartbeat:
    """The thread. `wake` is called in the thread after each full beat, and where the node was declared dead.

    `listening` says whether the node's liveness subscription stands; it is called in the thread.
    """

    def __init__(self, state: NodeState, store: Callable[[], Store], wake: Callable[[], None]) -> None:
        self.state = state
        self.beats = Beats()
        self.listening: Callable[[], bool] = lambda: True
        self.attentive = False  # written by the main hub: something does not tally, the next full beats come soon
        self._make_store = store
        self._wake = wake
        self._stopping = False
        self._ended = False  # written by the thread
        self._main_ident = 0
        self._turns = Turns()
        self._started = False
        self._woken: Callable[[], object] = lambda: None  # wakes the thread, from any
        self._warned = False
        self._sequence = 0  # kept here, so that a failover of the server cannot bring an old one back
        self._sent = 0.0
        self._events: deque[bytes] = deque(maxlen=100)  # from the main hub, sent by the thread

    def start(self) -> None:
        """Begin to beat. Safe to repeat."""
        if self._started:
            return
        self._started = True
        self.beats.through = dict.fromkeys(self.state.queue_names, time.monotonic())
        self._main_ident = monkey.get_original("_thread", "get_ident")()
        self._turns.start()
        monkey.get_original("_thread", "start_new_thread")(self._thread, ())

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread; waits for it."""
        self._stopping = True
        if not self._started:
            return
        self.look()
        deadline = time.monotonic() + timeout
        while not self._ended and time.monotonic() < deadline:
            gevent.sleep(0.01)
        self._turns.stop()
        self._started = False

    def look(self) -> None:
        """Let the thread look at once at how things are."""
        self._woken()

    def tell(self, event: bytes) -> None:
        """Publish an event of the node soon, on a connection that works where others may not. May be lost."""
        self._events.append(event)
        self.look()

    # The thread.

    def _thread(self) -> None:
        store = self._make_store()
        wake, waker = Event(), gevent.get_hub().loop.async_()
        waker.start(wake.set)
        self._woken = waker.send
        try:
            while not self._stopping:
                try:
                    self._turn(store)
                except Exception as error:  # noqa: BLE001 - without the thread the node would count as dead
                    _log_aside("the heartbeat failed: %r; it goes on", error)
                wake.wait(self._nap())
                wake.clear()
        finally:
            self._woken = lambda: None
            waker.stop()
            store.close()
            self._ended = True

    def _nap(self) -> float:
        """Seconds until the next look."""
        now = time.monotonic()
        return min(max(self._sent + self._pause() - now, LEAST), TICK)

    def _turn(self, store: Store) -> None:
        now = time.monotonic()
        if now - self._sent >= self._pause() - EARLY:
            self._sent = now
            self._beat(store)
        self._watch_the_hub(store)
        while self._events:
            self._publish(store, self._events.popleft())

    def _pause(self) -> float:
        """Seconds between two beats, as things are."""
        if not self.listening() or self._turns.seconds_at_work() > HURRY:
            pause = HURRY
        else:
            pause = SOON if self.attentive else BEAT
        return pause * min(self.state.settings.node_timeout / 10, 1)

    def _beat(self, store: Store) -> None:
        state, node, before = self.state, self.state.id, time.monotonic()
        # before it is sent: an answer to an older beat says nothing of a new start there
        away = frozenset(state.away)
        self._sequence += 1
        full = self.attentive or len(state.registry) > 0 or self._sequence % 2 == 1
        try:
            answers = beat_all(store.client, list(state.queues.values()), node, self._sequence, full=full)
        except StoreError:
            return
        heard = [queue for queue, answer in answers if not isinstance(answer, StoreUnavailable)]
        if any(answer == GONE and queue not in away for queue, answer in answers):
            self.beats.gone = node
            self._wake()
            return
        # a queue whose server is away must not cost the others their runs
        self.beats.through.update(dict.fromkeys(heard, before))
        if full and heard:
            # a queue whose companions are of another type is left out: the others must not suffer for it
            pulses = {queue: pulse for queue, pulse in answers if isinstance(pulse, Pulse)}
            self.beats.pulses = {queue: pulse for queue, pulse in pulses.items() if queue not in away}
            self.beats.rounds += 1
            self._wake()

    def _publish(self, store: Store, event: bytes) -> None:
        with contextlib.suppress(StoreError):
            store.node_records.publish(self.state.id, event)

    # The main hub, as the thread sees it.

    def _watch_the_hub(self, store: Store) -> None:
        settings = self.state.settings
        blocked = self._turns.seconds_at_work()
        if blocked > settings.block_timeout:
            self._end_the_process(store, blocked)
        elif blocked > settings.block_warning:
            if not self._warned:
                self._warned = True
                self._warn(store, blocked)
        else:
            self._warned = False

    def _main_frame(self) -> FrameType | None:
        return sys._current_frames().get(self._main_ident)

    def _warn(self, store: Store, blocked: float) -> None:
        frame = self._main_frame()
        stack, culprit = _stack(frame), find_culprit(frame)
        _log_aside(
            "the node has been blocked for %.1f s by code that does not yield, in %s: %s",
            blocked,
            _words(culprit),
            stack,
        )
        data = {"seconds": round(blocked, 3), "stack": stack, "id": culprit and wire.id_to_str(culprit.id)}
        self._publish(store, wire.encode_event("blocked", wire.encode_json(data)))

    def _end_the_process(self, store: Store, blocked: float) -> None:
        culprit = find_culprit(self._main_frame())
        sys.stderr.write(
            f"pytask: blocked for {blocked:.0f} s by {_words(culprit)} (block_timeout): this node ends itself\n"
        )
        for queue in self.state.queue_names:
            with contextlib.suppress(StoreError):  # then a Monitor does it, a moment later
                self._give_back(store, queue, culprit)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(BLOCKED_STATUS)

    def _give_back(self, store: Store, queue: str, culprit: Run | None) -> None:
        """Let others have the node's tasks of a queue at once. Its end counts against the culprit alone."""
        blame = None
        if culprit is not None:
            blame = culprit.id if culprit.queue.name == queue else b""
        membership = store.membership(queue)
        membership.leave(self.state.id, blame)
        # the blocked hub's own blocking move stands in the line of those that wait, and may get the first id
        membership.empty_inbox(self.state.id)


def _log_aside(text: str, *args: Any) -> None:
    """Log in a thread of its own: the blocked hub may hold the lock of a log handler, and beats must go on."""
    monkey.get_original("_thread", "start_new_thread")(log.error, (text, *args))


def find_culprit(frame: FrameType | None) -> Run | None:
    """The run in whose greenlet this frame is; None outside of any, or in a greenlet that a task spawned."""
    while frame is not None:
        if frame.f_code is Runner._execute.__code__:
            run: Run = frame.f_locals["run"]
            return run
        frame = frame.f_back
    return None


def _words(culprit: Run | None) -> str:
    if culprit is None:
        return "no task that is known"
    return f"task {wire.shown(culprit.name or b'')} (id {wire.shown(culprit.id)})"


def _stack(frame: FrameType | None) -> str:
    """Where the main hub is, innermost last, in one line."""
    if frame is None:
        return "unknown"
    rows = traceback.extract_stack(frame)[-8:]
    return " < ".join(f"{row.name} ({row.filename}:{row.lineno})" for row in reversed(rows))
