"""Virtual time, and greenlets that run in it: what stands in for gevent.

The hub runs one unit (a greenlet of a simulated process) at a time, until it waits. Nothing happens between two
waits of one process but what that process does, as with gevent; processes meet at the server alone. Time is a
number that jumps to the next thing that is due.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

EPOCH = 1_700_000_000.0
ANY = -1
# a unit that can go on: the turn for which that is so (or ANY), and the value or the error with which it does
Ready = tuple["Unit", int, Any, BaseException | None]


class Process:
    """A simulated process: its greenlets die with it, and wait while it is paused."""

    def __init__(self, hub: Hub, label: str, seed: object) -> None:
        self.hub = hub
        self.label = label
        self.random = Random(f"{seed}/{label}")
        self.clock = self.random.uniform(0, 1e6)  # no two machines' monotonic clocks agree
        self.units: dict[Unit, None] = {}
        self.frozen: list[Ready] = []
        self.dead = False
        self.paused = False
        self.resumed = 0.0

    def spawn(self, function: Callable[..., Any], *args: Any) -> Unit:
        unit = Unit(self, function, args)
        self.hub.ready.append((unit, unit.turn, None, None))
        return unit

    def resume(self) -> None:
        self.paused = False
        self.resumed = self.hub.now
        self.hub.ready.extend(self.frozen)
        self.frozen = []

    def kill(self) -> None:
        """End at once. What its greenlets would still do in `finally` reaches nobody."""
        self.dead = True
        for unit in list(self.units):
            unit.turn += 1
            if unit.started and unit is not self.hub.current:
                unit.greenlet.throw(GreenletExit())
        self.units.clear()
        self.frozen.clear()


class Unit:
    """A greenlet of a process; it has the methods of a gevent Greenlet that pytask uses."""

    __slots__ = ("dead", "greenlet", "name", "process", "started", "turn", "watchers", "work")

    def __init__(self, process: Process, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.process = process
        self.work = function, args
        self.name = ""
        self.turn = 0  # grows with each wake: a wake that comes late finds another number and does nothing
        self.started = False
        self.dead = False
        self.watchers: list[tuple[Unit, int]] = []
        self.greenlet = greenlet(self._run, process.hub.root)
        process.units[self] = None

    def _run(self, _value: Any = None) -> None:
        function, args = self.work
        try:
            function(*args)
        except GreenletExit:
            pass
        except BaseException as error:
            self.process.hub.on_failure(self, error)
        finally:
            self._end()

    def _end(self) -> None:
        self.dead = True
        self.process.units.pop(self, None)
        for unit, turn in self.watchers:
            self.process.hub.wake(unit, turn)
        self.watchers.clear()

    def kill(self, exception: Any = GreenletExit, block: bool = True, timeout: float | None = None) -> None:
        hub = self.process.hub
        if self.dead:
            return
        if hub.current is self:
            raise GreenletExit
        if self.started:
            hub.throw(self, GreenletExit())
            if block:
                self.join(timeout)
        else:
            self._end()

    def join(self, timeout: float | None = None) -> None:
        hub = self.process.hub
        if not self.dead and hub.current is not None:
            self.watchers.append((hub.current, hub.current.turn))
            hub.wait(timeout)


class Hub:
    """The scheduler. It runs in the greenlet that made it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.root = getcurrent()
        self.current: Unit | None = None
        self.ready: deque[Ready] = deque()
        self.heap: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self.on_failure: Callable[[Unit, BaseException], None] = lambda _unit, _error: None

    def at(self, time: float, function: Callable[..., Any], *args: Any) -> None:
        """Call a function at a time, outside of every process."""
        heapq.heappush(self.heap, (time, next(self._numbers), function, args))

    def run_until(self, time: float) -> None:
        ready, heap, switch = self.ready, self.heap, self._switch
        while True:
            while ready:
                switch(*ready.popleft())
            if not heap or heap[0][0] > time:
                self.now = time
                return
            self.now, _, function, args = heapq.heappop(heap)
            function(*args)

    def _switch(self, unit: Unit, turn: int, value: Any, error: BaseException | None) -> None:
        process = unit.process
        if unit.dead or process.dead or turn not in (unit.turn, ANY):
            return
        if process.paused:
            process.frozen.append((unit, turn, value, error))
            return
        if isinstance(error, Timeout) and not error.open:  # it struck while the process was frozen
            return
        self.current = unit
        if error is None:
            unit.started = True
            unit.greenlet.switch(value)
        else:
            unit.turn += 1
            unit.greenlet.throw(error)
        self.current = None

    # What units call.

    def wait(self, timeout: float | None = None) -> Any:
        """Let the current unit wait until it is woken; the value that it is woken with, None after `timeout`."""
        unit = self.unit
        if timeout is not None:
            self.at(self.now + max(timeout, 0.0), self.wake, unit, unit.turn)
        return self.block()

    @property
    def unit(self) -> Unit:
        """The current unit; what a dead process still tries ends here."""
        unit = self.current
        if unit is None or unit.process.dead:
            raise GreenletExit
        return unit

    def block(self) -> Any:
        """Let the current unit wait for a wake that is under way."""
        assert self.unit
        return self.root.switch()

    def wake(self, unit: Unit, turn: int, value: Any = None, error: BaseException | None = None) -> None:
        if unit.turn == turn:
            unit.turn += 1
            self.ready.append((unit, unit.turn, value, error))

    def throw(self, unit: Unit, error: BaseException) -> None:
        """Throw an error into a unit, whatever it waits for."""
        self.ready.append((unit, ANY, None, error))


class Event:
    """gevent.event.Event."""

    def __init__(self) -> None:
        self._flag = False
        self._waiters: list[tuple[Unit, int]] = []

    def is_set(self) -> bool:
        return self._flag

    def clear(self) -> None:
        self._flag = False

    def set(self) -> None:
        self._flag = True
        waiters, self._waiters = self._waiters, []
        for unit, turn in waiters:
            unit.process.hub.wake(unit, turn)

    def wait(self, timeout: float | None = None) -> bool:
        if self._flag:
            return True
        hub = current_hub()
        waiter = hub.unit, hub.unit.turn
        self._waiters.append(waiter)
        hub.wait(timeout)
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        return self._flag


class Semaphore:
    """gevent.lock.Semaphore."""

    def __init__(self, value: int = 1) -> None:
        self._free = value
        self._event = Event()

    def acquire(self) -> bool:
        while not self._free:
            self._event.clear()
            self._event.wait()
        self._free -= 1
        return True

    def release(self) -> None:
        self._free += 1
        self._event.set()


class Timeout(BaseException):
    """gevent.Timeout, as a context manager; with False it passes silently."""

    def __init__(self, seconds: float, silent: Any = None) -> None:
        self.seconds = seconds
        self.silent = silent is False
        self.open = False

    def __enter__(self) -> Timeout:
        hub = current_hub()
        self.open = True
        hub.at(hub.now + self.seconds, self._strike, hub, hub.unit)
        return self

    def _strike(self, hub: Hub, unit: Unit) -> None:
        if self.open:
            hub.throw(unit, self)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        self.open = False
        return error is self and self.silent


_hub: Hub | None = None


def current_hub() -> Hub:
    """The hub of the world that runs now."""
    assert _hub is not None
    return _hub


def use(hub: Hub) -> None:
    """From now on this hub's time is the time."""
    global _hub
    _hub = hub
