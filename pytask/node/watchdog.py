"""Watchdog: notices that this node takes no tasks although there are some and it has room, and says so.

An intake asks for ids all the time, or waits for one in a move that ends after seconds at the latest. Where ids
wait and no claim of it was answered for three times as long, something is wrong that no error has told: it begins
again, on new connections.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import gevent

from pytask import wire
from pytask.names import queue_label
from pytask.node.heartbeat import Heartbeat
from pytask.node.intake import Intake
from pytask.node.service import Service

log = logging.getLogger("pytask.node")

LOOKS = 2  # in the time that a blocking move takes at most
PATIENCE = 3  # times as long


class Watchdog(Service):
    """Watches the intakes. It sends no command: what waits it knows from the beats."""

    name = "watchdog"

    def __init__(self, intakes: Sequence[Intake], heartbeat: Heartbeat) -> None:
        super().__init__()
        self.intakes = intakes
        self.heartbeat = heartbeat
        self._since: dict[str, float] = {}  # when ids were first seen to wait, by queue

    def run(self) -> None:
        """Look, for ever."""
        while True:
            gevent.sleep(self.intakes[0].block / LOOKS)
            for intake in self.intakes:
                self._look(intake, time.monotonic())

    def _look(self, intake: Intake, now: float) -> None:
        name = intake.queue.name
        pulse = self.heartbeat.beats.pulses.get(name)
        if pulse is None or not pulse.waiting or not intake.may_take():
            self._since.pop(name, None)
            return
        since = max(self._since.setdefault(name, now), intake.answered)
        if now - since > PATIENCE * intake.block:
            self._since[name] = now
            self._tell(queue_label(name), pulse.waiting, now - since, f"it waits for {intake.doing}")
            intake.begin_anew()

    def _tell(self, queue: str, waiting: int, seconds: float, reason: str) -> None:
        log.error(
            "queue %s: %d ids wait, this node has room and took none for %.0f s (%s): its intake begins again",
            queue,
            waiting,
            seconds,
            reason,
        )
        data = {"queue": queue, "waiting": waiting, "seconds": round(seconds, 1), "reason": reason}
        self.heartbeat.tell(wire.encode_event("stalled", wire.encode_json(data)))
