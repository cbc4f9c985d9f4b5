"""A world: servers, nodes and producers of one scenario, from its first act until everything is at rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import Any

from pytask.errors import StoreUnavailable
from simulation import hub as virtual
from simulation.acts import Acts
from simulation.checker import Checker
from simulation.hub import Hub, Unit
from simulation.machines import NodeMachine, Outside, make_settings
from simulation.network import LOST, REFUSED, Machine, Network
from simulation.scenario import SPAN, Fault, Scenario
from simulation.server import READ
from simulation.story import Broken

PATIENCE = 150.0  # seconds until a world must be at rest
CALM = 3.0  # seconds in which nothing is left to do
SWEPT = 75.0  # seconds in which a sweep must have looked at everything
BEAT_FAULTS = 0.3  # beats have a connection of their own, and fail less often


class World:
    """One run of a scenario. `adjust_node` is called with each node that is made."""

    def __init__(
        self, scenario: Scenario, server: Any, adjust_node: Callable[[Any], None] = lambda _node: None
    ) -> None:
        self.scenario = scenario
        self.server = server
        self.seed = scenario.seed
        self.adjust_node = adjust_node
        self.random = Random(f"{scenario.seed}/world")
        self.hub = Hub()
        self.hub.on_failure = self._on_failure
        self.network = Network(self.hub, server, scenario.slowness, scenario.slowest, self._fault)
        self.network.clocks = list(scenario.skews)
        self.network.cluster = scenario.cluster
        self.trace: list[str] | None = None
        self.settings = make_settings(**({} if scenario.keep_results else {"result_ttl": 0, "failure_ttl": 0}))
        self.at_rest = self.over = False
        self.swept = -1.0  # when the last sweep that found nothing to put back began
        self.faults: list[Fault] = []  # those that happened
        self._allowed = (
            None if scenario.faults is None else {(f.machine, f.number): f.kind for f in scenario.faults}
        )
        self._undo: list[Callable[[], None]] = []
        self.checker = Checker(self)
        self.network.watch = self.checker.watch
        self.network.on_refusal = lambda what: self.checker.fail("the server refused a command", what)
        self.nodes: list[NodeMachine] = []
        self.outside = Outside(self, "p")
        self.acts = Acts(self)

    def run(self) -> Broken | None:
        """Play the scenario; what broke, None where nothing did."""
        virtual.use(self.hub)
        self.server.reset()
        logging_of(self)
        for _ in range(self.scenario.nodes):
            self.add_node()
        for act in self.scenario.acts:
            self.hub.at(act.time, self._act, act)
        try:
            self._go_on_until(SPAN)
            self._come_to_rest()
        except Broken as broken:
            self.checker.fail(broken.kind, broken.what)
        finally:
            self.over = True
            for machine in [*self.nodes, self.outside]:
                machine.kill()
        return self.checker.broken

    def _go_on_until(self, time: float) -> None:
        while self.hub.now < time:
            self.hub.run_until(min(self.hub.now + 1.0, time))
            self.checker.nodes.check_now()
            if self.checker.broken:
                raise self.checker.broken

    def _act(self, act: Any) -> None:
        self.note(f"--- {act}")
        getattr(self.acts, act.name)(*act.args)

    def _come_to_rest(self) -> None:
        self.note("--- everything is mended, and comes to rest")
        self.at_rest = True
        self.network.slowness = 0.0
        for undo in list(self._undo):
            undo()
        self.acts.resume_queues()
        if all(machine.dead or machine.ending for machine in self.nodes):
            self.add_node()
        calm = self.hub.now  # since when nothing is left to do
        while not self._is_calm(calm):
            self._go_on_until(self.hub.now + 1.0)
            left = self.checker.rest.unsettled()
            if left:
                calm = self.hub.now
            if self.hub.now > SPAN + PATIENCE:
                raise Broken("the world does not come to rest", left)
        self.checker.rest.check_the_end()

    def _is_calm(self, since: float) -> bool:
        """Long enough; where a failover took writes back, the sweep has also found nothing since."""
        calm = self.hub.now - since
        return calm >= CALM and (not self.scenario.failover or self.swept > since or calm >= SWEPT)

    # What acts need.

    def add_node(self) -> None:
        machine = NodeMachine(self, len(self.nodes) + 1)
        self.nodes.append(machine)
        machine.boot()

    def at_most(self, seconds: float, undo: Callable[[], None]) -> None:
        """Call `undo` after so many seconds, or when the world is to come to rest, if that is sooner."""

        def once() -> None:
            if once in self._undo:
                self._undo.remove(once)
                self.note(f"--- the end of {undo.__qualname__}")
                undo()

        self._undo.append(once)
        self.hub.at(self.hub.now + seconds, once)

    def _fault(self, machine: Machine, role: str) -> str | None:
        if self.at_rest:
            return None
        if self._allowed is not None:
            return self._allowed.get((machine.label, machine.sent))
        number = machine.luck.random()
        rate = self.scenario.fault_rate * (BEAT_FAULTS if role == "pytask:beat" else 1.0)
        if number >= rate:
            return None
        kind = REFUSED if number < rate / 3 else LOST
        self.faults.append(Fault(machine.label, machine.sent, kind))
        return kind

    # What is told.

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.hub.now:7.3f} {text}")

    def contents(self, slot: int, key: bytes) -> Any:
        name, *rest = READ[self.server.kind(slot, key)]
        return self.server.execute(slot, name, [key, *rest])

    def _on_failure(self, unit: Unit, error: BaseException) -> None:
        if not unit.process.dead:
            where = f"{unit.process.label} {unit.work[0].__qualname__}"
            self.checker.fail("a greenlet failed", f"{where} {type(error).__name__}: {error}")


class _Log(logging.Handler):
    """What the product logs goes into the trace; a service that fails is a promise broken."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    def emit(self, record: logging.LogRecord) -> None:
        world = self.world
        if world is None or world.over:
            return
        unit = world.hub.current
        if unit is None or unit.process.dead:
            return
        world.note(f"{unit.process.label} LOG {record.getMessage()}")
        error = record.exc_info[1] if record.exc_info else None
        if error and not isinstance(error, StoreUnavailable):
            world.checker.fail("a service failed", f"{record.getMessage()}: {error!r}")


_log = _Log()


def logging_of(world: World) -> None:
    """Hear what the product logs in this world."""
    logger = logging.getLogger("pytask")
    if _log not in logger.handlers:
        logger.addHandler(_log)
        logger.propagate = False
    _log.world = world
    logger.setLevel(logging.INFO if world.trace is not None else logging.ERROR)
