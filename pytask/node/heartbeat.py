"""Heartbeat: says that the node lives, from a real OS thread with its own hub and connection.

A task that blocks the main hub must not make the node look dead. The thread also watches the main hub:
blocked for `block_warning` seconds it names the culprit in the log; blocked for `block_timeout` it ends
the process, so that other nodes take over. It shares plain attributes with the main hub, nothing else.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

import gevent
from gevent import monkey

from pytask import wire
from pytask.errors import StoreError
from pytask.node.state import NodeState
from pytask.store.store import Store

log = logging.getLogger("pytask.node")

BEAT = 1.0  # seconds between beats
TICK = 0.25  # seconds between looks at the main hub
BLOCKED_STATUS = 70  # exit status of a process whose hub was blocked for too long


@dataclass
class Beats:
    """What the thread has learnt. Written by the thread, read by the main hub; each write is one assignment."""

    rounds: int = 0  # how many rounds came through
    counts: dict[str, tuple[int, list[bytes]]] = field(default_factory=dict)
    through: float = 0.0  # monotonic second before the last round of beats that all came through was sent
    gone: bytes = b""  # the id under which the node was declared dead


class Heartbeat:
    """The thread. `wake` is called in the thread after each round of beats."""

    def __init__(self, state: NodeState, store: Callable[[], Store], wake: Callable[[], None]) -> None:
        self.state = state
        self.beats = Beats()
        self._make_store = store
        self._wake = wake
        self._stopping = False
        self._ended = False  # written by the thread
        self._main_ident = 0
        self._tick = time.monotonic()  # written by the main hub
        self._ticker: gevent.Greenlet | None = None
        self._warned = False
        self._sequence = 0  # kept here, so that a failover of the server cannot bring an old one back

    def start(self) -> None:
        """Begin to beat. Safe to repeat."""
        if self._ticker is not None:
            return
        self.beats.through = time.monotonic()
        self._main_ident = monkey.get_original("_thread", "get_ident")()
        self._ticker = gevent.spawn(self._show_that_the_hub_turns)
        monkey.get_original("_thread", "start_new_thread")(self._thread, ())

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread; waits for it."""
        self._stopping = True
        if self._ticker is None:
            return
        deadline = time.monotonic() + timeout
        while not self._ended and time.monotonic() < deadline:
            gevent.sleep(0.01)
        self._ticker.kill()
        self._ticker = None

    def _show_that_the_hub_turns(self) -> None:
        while True:
            self._tick = time.monotonic()
            gevent.sleep(TICK)

    def _thread(self) -> None:
        store = self._make_store()
        try:
            next_beat = 0.0
            while not self._stopping:
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + BEAT
                    self._beat(store)
                self._watch_the_hub(store)
                gevent.sleep(TICK)
        finally:
            store.close()
            self._ended = True

    def _beat(self, store: Store) -> None:
        node, before = self.state.id, time.monotonic()
        counts: dict[str, tuple[int, list[bytes]]] = {}
        self._sequence += 1
        for queue in self.state.queue_names:
            try:
                count, stops = store.membership(queue).beat(node, self._sequence)
            except StoreError:
                return
            if count < 0:
                self.beats.gone = node
                self._wake()
                return
            counts[queue] = (count, stops)
        self.beats.through = before
        self.beats.counts = counts
        self.beats.rounds += 1
        self._wake()

    def _watch_the_hub(self, store: Store) -> None:
        settings = self.state.settings
        blocked = time.monotonic() - self._tick
        if blocked > settings.block_timeout:
            self._end_the_process(blocked)
        elif blocked > settings.block_warning:
            if not self._warned:
                self._warned = True
                self._warn(store, blocked)
        else:
            self._warned = False

    def _warn(self, store: Store, blocked: float) -> None:
        frame = sys._current_frames().get(self._main_ident)
        text = _stack(frame)
        # A thread of its own: the blocked hub may hold the lock of a log handler, and beats must go on.
        monkey.get_original("_thread", "start_new_thread")(
            log.error, ("the node has been blocked for %.1f s by code that does not yield: %s", blocked, text)
        )
        data = wire.encode_json({"seconds": round(blocked, 3), "stack": text})
        with contextlib.suppress(StoreError):
            store.node_records.publish(self.state.id, wire.encode_event("blocked", data))

    def _end_the_process(self, blocked: float) -> None:
        sys.stderr.write(f"pytask: blocked for {blocked:.0f} s (block_timeout): this node ends itself\n")
        faulthandler.dump_traceback(all_threads=True)
        os._exit(BLOCKED_STATUS)


def _stack(frame: FrameType | None) -> str:
    """Where the main hub is, innermost last, in one line."""
    if frame is None:
        return "unknown"
    rows = traceback.extract_stack(frame)[-8:]
    return " < ".join(f"{row.name} ({row.filename}:{row.lineno})" for row in reversed(rows))
