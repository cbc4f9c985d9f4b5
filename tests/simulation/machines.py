"""The processes: nodes, which run the product's own node with its Monitor and Cleanup, and the producer."""

from __future__ import annotations

from typing import Any

from pytask.errors import StoreUnavailable
from pytask.helpers import PyTaskHelpers
from pytask.node.node import Node
from pytask.settings import Settings
from pytask.store.store import Store
from pytask.tasks.cleanup import Cleanup
from pytask.tasks.monitor import Monitor
from pytask.tasks.sweep import Sweep
from pytask.tasks.sweeping import Report
from simulation.connections import SimClient, SimTarget
from simulation.hub import current_hub
from simulation.network import Machine
from simulation.work import EVERYWHERE, SOMEWHERE, with_due

QUEUES = ("", "mail")
NODE_TIMEOUT = 5.0  # seconds
GRACE = 3.0


class ToldSweep(Sweep):
    """The product's sweep; the world learns of each pass."""

    def _sweep(self) -> None:
        self.began = current_hub().now
        super()._sweep()

    def _tell(self, report: Report) -> None:
        super()._tell(report)
        world = current_hub().unit.process.world  # type: ignore[attr-defined]
        if not report.repaired and not report.more:
            world.swept = self.began


class NodeMachine(Machine):
    """A process that is a node, and comes to its end by a signal or a kill."""

    def __init__(self, world: Any, number: int) -> None:
        super().__init__(world.hub, f"n{number}", world.seed)
        self.world = world
        self.network = world.network
        self.number = number
        self.ids: list[bytes] = []
        self.node: Node | None = None
        self.excused_until = 0.0  # it was frozen or cut off until a moment ago: others may have its tasks
        self.started = False
        self.ending = False

    def new_node_id(self) -> bytes:
        self.ids.append(f"{self.label}.{len(self.ids) + 1}".encode())
        return self.ids[-1]

    def boot(self) -> None:
        self.spawn(self._boot)

    def _boot(self) -> None:
        target: Any = SimTarget(self)
        settings = self.world.settings
        helpers = PyTaskHelpers(Store(target, name="pytask:helpers"), QUEUES)
        local: list[tuple[Any, dict[str, Any]]] = [
            (Monitor, {"queues": QUEUES, "node_timeout": settings.node_timeout})
        ]
        if self.world.scenario.cleanup:
            ttls = {"result_ttl": settings.result_ttl, "failure_ttl": settings.failure_ttl}
            local.append((Cleanup, {**ttls, "node_timeout": settings.node_timeout}))
        if self.world.scenario.sweep:
            local.append((ToldSweep, {"queues": QUEUES, "interval": 1.0, "node_timeout": settings.node_timeout}))
        classes = SOMEWHERE if self.number % 2 else EVERYWHERE
        node = Node(
            settings,
            target,
            classes,
            helpers=helpers,
            redis=lambda: None,
            exception_handlers=[],
            local_tasks=local,
        )
        node.presence.run = lambda: None  # type: ignore[method-assign]  # nobody reads it here
        node.store.records.finish = with_due(self, node.store.records.finish)  # type: ignore[method-assign]
        self.world.adjust_node(node)
        self.node = node
        try:
            node.start()
        except StoreUnavailable:  # status 3: no Redis at the start
            self.hub.at(self.hub.now, self.kill)
        self.started = True
        if self.ending:
            self._end()

    @property
    def is_settled(self) -> bool:
        """Has it nothing left to do?"""
        return self.node is not None and not len(self.node.state.registry) and self.node.state.accepting.is_set()

    # Signals.

    def terminate(self) -> None:
        """SIGTERM; obeyed once the node has started."""
        if self.started and not self.ending:
            self.spawn(self._end)
        self.ending = True

    def _end(self) -> None:
        assert self.node is not None
        self.node.stop()
        self.hub.at(self.hub.now, self.kill)

    def hold(self) -> None:
        """SIGTSTP."""
        if self.node is not None and self.started and not self.ending:
            self.spawn(self.node.pause)

    def go_on(self) -> None:
        """SIGCONT."""
        if self.node is not None and self.started and not self.ending:
            self.spawn(self.node.resume)


class Outside(Machine):
    """Producers, and the parents of nodes: a process that never dies."""

    def __init__(self, world: Any, label: str) -> None:
        super().__init__(world.hub, label, world.seed)
        self.world = world
        self.network = world.network
        target: Any = SimTarget(self)
        self.raw = SimClient(self, "raw")
        self.store = Store(target, name="pytask:helpers", patience=None)
        self.helpers = PyTaskHelpers(self.store, QUEUES)


def make_settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "queues": QUEUES,
        "concurrency": 3,
        "node_timeout": NODE_TIMEOUT,
        "grace": GRACE,
        "hash_wait": 6.0,
        "unknown_wait": 8.0,
        "max_deliveries": 3,
        "connect_timeout": 1000.0,
        "block_warning": 1e5,
        "block_timeout": 1e6,
        "keep_events": 0,  # the fake server keeps no streams
    }
    return Settings(**{**values, **changes})
