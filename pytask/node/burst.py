"""Burst: a node that ends by itself, when its queues are empty and what it took of them has ended.

What waits for a later time does not hold it, nor what goes on for ever: tasks that are `forever`, replicas of
services, local tasks. A queue that is paused counts as empty.
"""

from __future__ import annotations

import logging
from collections import Counter

import gevent

from pytask.errors import StoreError
from pytask.node.node import Node
from pytask.node.run import Run

log = logging.getLogger("pytask.node")

LOOK = 0.1  # seconds between two looks


class Burst:
    """Waits until a node has nothing left to do."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.state = node.state

    def wait(self) -> None:
        """Block until all is done. From then on the node takes no tasks."""
        while not self._is_done():
            gevent.sleep(LOOK)

    def _is_done(self) -> bool:
        """Look, and where nothing is left look again without any claim that could come in between."""
        if not self._has_nothing():
            return False
        self.state.want(False)
        for intake in self.node.intakes:
            intake.finish()
        if self._has_nothing(resting=True):
            return True
        self.state.want(True)
        for intake in self.node.intakes:
            self.node.reconcile.want_adoption(intake.queue.name)  # a claim that was cut short may be ours
            intake.start()
        return False

    def _has_nothing(self, *, resting: bool = False) -> bool:
        if not (resting or self.state.wanted) or not self.state.goes_by(self.state.id):
            return False  # told to rest, or about to come back under a new id
        runs = list(self.state.registry.runs.values())
        if not all(map(_goes_on, runs)):
            return False
        kept = Counter(run.queue.name for run in runs)
        try:
            return all(self._is_empty(queue, kept[queue]) for queue in self.state.queue_names)
        except StoreError as error:
            log.warning("whether the queues are empty cannot be told: %s", error)
            return False

    def _is_empty(self, queue: str, kept: int) -> bool:
        """Is nothing there, on its way, or this node's, but for so many that go on for ever?"""
        claims = self.state.store.claims(queue)
        claims.promote()
        return claims.has_nothing_for(self.state.id, kept)


def _goes_on(run: Run) -> bool:
    return run.replica is not None or (run.task is not None and type(run.task).forever)
