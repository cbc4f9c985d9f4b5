"""The contract of a service: one greenlet, whoever starts and stops it."""

from __future__ import annotations

import gevent
from gevent.event import Event

from pytask.node.service import Service


class Slow(Service):
    """Takes its time to end, and counts itself."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.may_end = Event()

    def run(self) -> None:
        self.alive += 1
        try:
            gevent.sleep(3600)
        finally:
            self.may_end.wait()
            self.alive -= 1


def test_a_service_that_two_stop_and_start_at_a_time_runs_once_and_can_be_stopped():
    service = Slow()
    service.start()
    gevent.sleep(0)

    def begin_anew() -> None:
        service.stop()
        service.start()

    both = [gevent.spawn(begin_anew) for _ in range(2)]
    gevent.sleep(0)
    service.may_end.set()
    gevent.joinall(both, timeout=5)
    gevent.sleep(0)
    assert service.alive == 1
    service.stop()
    assert service.alive == 0
    assert not service.running
