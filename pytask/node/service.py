"""The contract of every service of a node: a greenlet that is started, watched over and stopped.

`start` and `stop` are safe to repeat, and `stop` is safe before `start`. A service that fails is logged
and begins again after a delay that grows; it never takes the node with it.
"""

from __future__ import annotations

import logging
import random
import time

import gevent

from pytask import wire
from pytask.errors import NodeGone, StoreError, StoreUnavailable

log = logging.getLogger("pytask.node")

# Seconds. The last one is what a node may be late after an outage: it works again within a second.
FIRST_DELAY, LAST_DELAY = 0.05, 0.7
SOUND = 5.0  # seconds that a service works until its next failure counts as the first one
TELL_AGAIN = 10.0  # seconds between two lines of the log while Redis is away


class Service:
    """A loop in a greenlet. A subclass gives `name` and `run`, which loops for ever or returns when done."""

    name = "service"
    last_delay = LAST_DELAY

    def __init__(self) -> None:
        self._greenlet: gevent.Greenlet | None = None

    @property
    def running(self) -> bool:
        """Is its greenlet alive?"""
        return self._greenlet is not None and not self._greenlet.dead

    def start(self) -> None:
        """Begin. Does nothing where it runs already."""
        if not self.running:
            self._greenlet = gevent.spawn(self._supervise)

    def stop(self, timeout: float = 2.0) -> None:
        """End, at once; waits up to `timeout` seconds for the greenlet."""
        # taken first: whoever else stops and starts it meanwhile must find its own greenlet here, not lose it
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is not None:
            greenlet.kill(timeout=timeout)

    def run(self) -> None:
        """The loop."""
        raise NotImplementedError

    def _supervise(self) -> None:
        delay, told = FIRST_DELAY, 0.0
        while True:
            began = time.monotonic()
            try:
                self.run()
                return
            except NodeGone as error:
                self.on_gone(error.node)
                log.warning("%s: %s", self.name, error)
            except StoreUnavailable as error:
                self.on_unavailable()
                if time.monotonic() - told > TELL_AGAIN:
                    told = time.monotonic()
                    log.warning("%s: %s; trying again", self.name, error)
            except StoreError as error:
                log.error("%s: %s; trying again", self.name, wire.shown(str(error), 200))
            except Exception:
                log.exception("%s failed; it begins again", self.name)
            if time.monotonic() - began > SOUND:
                delay = FIRST_DELAY
            gevent.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, self.last_delay)

    def on_gone(self, node: bytes) -> None:
        """The node of this id was declared dead: called before the loop begins again."""

    def on_unavailable(self) -> None:
        """A command that is sent only once failed: called before the loop begins again."""
