"""Faults: what is done to nodes and servers, by a schedule that a seed gives, each noted with its times."""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from chaos.fleet import Fleet, Node
from chaos.servers import Deployment, ServerProcess

Action = Callable[[], None]
Pick = Callable[[], ServerProcess]


@dataclass
class Fault:
    """One fault. `pid` is the node's, None where all nodes are touched; `excuses`: may it cause extra runs?"""

    kind: str
    pid: int | None
    began: float
    ended: float = float("inf")
    excuses: bool = True

    def touches(self, pid: int, since: float, until: float) -> bool:
        """Did it hit the process at some time between these seconds?"""
        return self.pid in (None, pid) and self.ended >= since and self.began <= until


class Agenda:
    """Actions with their times, done in this thread in their order."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    def at(self, second: float, action: Action) -> None:
        """Do something at this second of the monotonic clock, or as soon as possible after it."""
        self._count += 1
        heapq.heappush(self._heap, (second, self._count, action))

    def run_due(self) -> None:
        """Do what is due."""
        while self._heap and self._heap[0][0] <= time.monotonic():
            heapq.heappop(self._heap)[2]()


class Faults:
    """Does faults to a fleet and its servers, and keeps the list of them."""

    def __init__(self, fleet: Fleet, deployment: Deployment, rng: random.Random, cut_off: float) -> None:
        self.fleet = fleet
        self.deployment = deployment
        self.rng = rng
        self.cut_off = cut_off  # seconds of an outage after which nodes may stop their runs by themselves
        self.spared: Node | None = None  # nothing is done to it
        self.agenda = Agenda()
        self.done: list[Fault] = []

    @property
    def counts(self) -> Counter[str]:
        return Counter(fault.kind for fault in self.done)

    def _victim(self) -> Node | None:
        ready = [n for n in self.fleet.living if n.ready and not n.frozen and n is not self.spared]
        return self.rng.choice(ready) if ready else None

    def kill_node(self) -> None:
        """`kill -9` of a random node; another one takes its place at once."""
        node = self._victim()
        if node is None:  # all are starting: a moment later
            self.agenda.at(time.monotonic() + 0.5, self.kill_node)
            return
        fault = Fault("kill", node.pid, time.monotonic())
        node.kill()
        fault.ended = time.monotonic()
        self.done.append(fault)
        self.fleet.start()

    def freeze_node(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        node = self._victim()
        if node is None:
            self.agenda.at(time.monotonic() + 0.5, lambda: self.freeze_node(seconds))
            return
        fault = Fault("freeze", node.pid, time.monotonic())
        node.freeze()
        self.done.append(fault)
        self.agenda.at(time.monotonic() + seconds, lambda: self._thaw(node, fault))

    def _thaw(self, node: Node, fault: Fault) -> None:
        node.thaw()
        fault.ended = time.monotonic()

    def restart_server(self, down: float) -> None:
        """`kill -9` of a server that keeps its data; it starts again after so many seconds.

        Waits for its turn until all servers work.
        """
        if not self.deployment.is_whole():
            self.agenda.at(time.monotonic() + 0.5, lambda: self.restart_server(down))
            return
        server = self.rng.choice(self.deployment.masters())
        fault = Fault("restart", None, time.monotonic(), excuses=False)
        server.kill()
        self.done.append(fault)
        self.agenda.at(time.monotonic() + down, lambda: self._start(server.start, fault))

    def kill_master(self, down: float, pick: Pick | None = None) -> None:
        """`kill -9` of a master (a random one, or the one that `pick` gives at its time) whose replica takes
        over; it comes back as a replica some seconds after that.

        Waits for its turn until all servers work. An outage that makes nodes stop their runs excuses that.
        """
        now = time.monotonic()
        if not self.deployment.is_whole():
            self.agenda.at(now + 0.5, lambda: self.kill_master(down, pick))
            return
        masters = self.deployment.masters()
        server = pick() if pick else self.rng.choice(masters)
        fault = Fault("failover", None, now, excuses=False)
        server.kill()
        self.done.append(fault)
        self.await_failover(len(masters), fault, lambda: server.start(wait=False), down)

    def await_failover(self, masters: int, fault: Fault, bring_back: Action, seconds: float) -> None:
        """Look until there are so many masters again; bring the old one back so many seconds after that."""
        now = time.monotonic()
        if len(self.deployment.masters()) < masters:
            self.agenda.at(now + 0.1, lambda: self.await_failover(masters, fault, bring_back, seconds))
            return
        fault.ended = now
        fault.excuses = now - fault.began > self.cut_off
        self.agenda.at(now + seconds, bring_back)

    def _start(self, start: Callable[[], None], fault: Fault) -> None:
        start()
        fault.ended = time.monotonic()

    def plan(self, action: Action, count: int, begin: float, end: float) -> None:
        """Do something so many times, at random seconds, one in each equal part of the time."""
        step = (end - begin) / max(count, 1)
        for turn in range(count):
            self.agenda.at(begin + step * (turn + self.rng.random()), action)
