"""What is replaced in the product, and nothing else: gevent, the clock, chance, threads, and the way to Redis.

`install` puts the stand-ins where the modules of pytask hold the real things, for the rest of this process. The
code of the node, of the store, of Monitor, Cleanup and the helpers runs as it is.
"""

from __future__ import annotations

import random
import secrets
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.event
import gevent.lock
from gevent import monkey

from pytask.node import heartbeat, probation, state
from pytask.store import listener, store
from pytask.tasks import monitor
from simulation import hub
from simulation.connections import SimListener
from simulation.hub import EPOCH, Unit, current_hub
from simulation.server import YOUNG


def spawn(function: Callable[..., Any], *args: Any) -> Unit:
    return current_hub().unit.process.spawn(function, *args)


def sleep(seconds: float = 0) -> None:
    current_hub().wait(seconds)


def spawn_later(seconds: float, function: Callable[..., Any], *args: Any) -> Unit:
    def later() -> None:
        sleep(seconds)
        function(*args)

    return spawn(later)


def joinall(units: list[Unit], timeout: float | None = None) -> None:
    end = None if timeout is None else current_hub().now + timeout
    for unit in units:
        unit.join(None if end is None else end - current_hub().now)


class Async:
    """The watcher with which one thread wakes another's hub."""

    def start(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def send(self) -> None:
        self._callback()

    def stop(self) -> None:
        pass


class Prepare:
    """The watcher that is called when the loop goes to rest: a simulated hub never blocks."""

    def __init__(self, ref: bool) -> None:
        pass

    def start(self, callback: Callable[[], None]) -> None:
        callback()

    def stop(self) -> None:
        pass


class Check(Prepare):
    """The watcher that is called when it goes to work."""

    def start(self, callback: Callable[[], None]) -> None:
        pass


LOOP = SimpleNamespace(async_=Async, prepare=Prepare, check=Check, MINPRI=-2, MAXPRI=2)

GEVENT = SimpleNamespace(
    spawn=spawn,
    spawn_later=spawn_later,
    sleep=sleep,
    joinall=joinall,
    Timeout=hub.Timeout,
    Greenlet=Unit,
    GreenletExit=gevent.GreenletExit,
    get_hub=lambda: SimpleNamespace(loop=LOOP),
)

TIME = SimpleNamespace(
    sleep=sleep,
    time=lambda: EPOCH + current_hub().now,
    monotonic=lambda: current_hub().unit.process.clock + current_hub().now,
)

RANDOM = SimpleNamespace(
    random=lambda: current_hub().unit.process.random.random(),
    uniform=lambda a, b: current_hub().unit.process.random.uniform(a, b),
    getrandbits=lambda bits: current_hub().unit.process.random.getrandbits(bits),
)

SECRETS = SimpleNamespace(
    token_hex=lambda n=16: f"{current_hub().unit.process.random.getrandbits(8 * n):0{2 * n}x}"
)

THREADS = {"get_ident": lambda: 0, "start_new_thread": lambda function, args: spawn(function, *args)}
MONKEY = SimpleNamespace(get_original=lambda _module, name: THREADS[name])


def new_node_id(_name: str = "") -> bytes:
    return current_hub().unit.process.new_node_id()  # type: ignore[attr-defined, no-any-return]


def install() -> None:
    """Replace, in every module of pytask that was imported."""
    stand_ins = {
        id(gevent): GEVENT,
        id(gevent.event.Event): hub.Event,
        id(gevent.lock.Semaphore): hub.Semaphore,
        id(monkey): MONKEY,
        id(time): TIME,
        id(random): RANDOM,
        id(secrets): SECRETS,
        id(listener.Listener): SimListener,
        id(state.new_node_id): new_node_id,
    }
    for name, module in list(sys.modules.items()):
        if name.startswith("pytask."):
            for attribute, value in list(vars(module).items()):
                if id(value) in stand_ins:
                    setattr(module, attribute, stand_ins[id(value)])
    heartbeat.TICK, monitor.LOOK, monitor.KEEN_LOOK = 0.5, 1.0, 0.5  # seconds: to look less often saves real time
    probation.LONG_ENOUGH = YOUNG
    assert store.Listener is SimListener
