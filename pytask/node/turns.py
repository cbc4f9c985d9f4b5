"""Turns: how long the main hub has been at work in one go, for the heartbeat's thread to read.

The hub notes when it goes to rest and when it goes to work. Nothing wakes it for that: an idle node sleeps.
"""

from __future__ import annotations

import time
from typing import Any

import gevent

TICK = 0.25  # seconds, where the loop knows no priorities


class Turns:
    """The turns of the hub that calls `start`."""

    def __init__(self) -> None:
        self._since = time.monotonic()  # when it last went to work; 0 while it rests
        self._watchers: list[Any] = []

    def start(self) -> None:
        """Begin to note. Called in the main hub."""
        self._work()
        loop = gevent.get_hub().loop
        if loop.MAXPRI > loop.MINPRI:
            before, after = loop.prepare(ref=False), loop.check(ref=False)
            before.priority = loop.MINPRI  # behind gevent's own watcher, in which greenlets run
            after.priority = loop.MAXPRI
            before.start(self._rest)
        else:
            after = before = loop.timer(TICK, TICK, ref=False)
        after.start(self._work)
        self._watchers = [before, after]

    def stop(self) -> None:
        """End. Safe to repeat."""
        for watcher in self._watchers:
            watcher.stop()
        self._watchers = []

    def _rest(self) -> None:
        self._since = 0.0

    def _work(self) -> None:
        self._since = time.monotonic()

    def seconds_at_work(self) -> float:
        """For how long no turn has ended; 0 while the hub waits for something to do. For any thread."""
        since = self._since
        return time.monotonic() - since if since else 0.0
