"""Gates: asks the limits that nodes share for the tasks that need them, before they start.

A run that has a gate arrives here with its claim, unbegun. Its lock and its limits are asked in batches, kind by
kind. Then its record is begun again: started, skipped (another one has its lock), or parked in the line of a
limit, which `lines` watches. Nothing waits here: only a question that is under way takes a place of this node.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from gevent import GreenletExit
from gevent.event import Event

from pytask import points, wire
from pytask.errors import InvalidInputError, StoreError
from pytask.keys import QueueKeys
from pytask.limits import KINDS, NOTHING, Demand, Limit, read_demand
from pytask.node.closing import Closing
from pytask.node.lines import Lines, complain
from pytask.node.run import BEGIN, Run
from pytask.node.service import Service
from pytask.node.state import NodeState
from pytask.options import check_class
from pytask.store.limits import Pass, Turnover, member_of
from pytask.uniqueness import MOST_TAKEOVERS, is_over, was_never_pushed

log = logging.getLogger("pytask.node")

MOST = 250  # runs a batch
FALLBACK = 30.0  # seconds after which the first in line asks again by itself, should nobody recall it
FALLBACK_EACH = 0.05  # seconds more for each that stands before it: all in line ask 20 times a second together
SILENT = 2.0  # seconds until a limit that did not answer is asked again


def _turn(run: Run) -> int:
    """Whoever was claimed first is asked for first."""
    return int(run.fence)


class Begins(Protocol):
    """What the starter does for the gates."""

    def __call__(self, queue: QueueKeys, node: bytes, runs: Sequence[Run], wish: str = "") -> None:
        """Begin runs of one queue and node."""


class Visitor:
    """A run at the gates, and what it was told there."""

    __slots__ = ("demand", "granted", "member", "run", "told", "wish")

    def __init__(self, run: Run, demand: Demand) -> None:
        self.run = run
        self.member = member_of(run.queue.key, run.id)
        self.demand = demand
        self.granted: list[Limit] = []
        self.wish = "admitted"
        self.told = ""

    @property
    def goes_on(self) -> bool:
        """Has nobody refused it yet?"""
        return self.wish == "admitted"

    @property
    def row(self) -> Pass:
        """Itself, as limits take it."""
        return self.member, self.run.fence

    def admit(self) -> None:
        """It has all that it needs. A start out of a rate is spent: that is nothing to give up."""
        demand = Demand(self.demand.lock, tuple(limit for limit in self.granted if not limit.seconds))
        self.told = demand.text
        if self.told:
            self.run.demand = demand

    def defer(self, seconds: float, waits_for: Limit | None = None) -> None:
        """It has to wait. The record names what it has, and last what it waits for."""
        self.wish = "defer"
        limits = (*self.granted, waits_for) if waits_for else tuple(self.granted)
        self.told = f"+{seconds:.3f} {Demand(self.demand.lock, limits).text}"

    def skip(self, owner: bytes) -> None:
        """Another task has its lock."""
        self.wish = "skip"
        self.told = f"the task {wire.to_str(owner)}, which waits or runs, has the same unique key"


class Gates(Service):
    """Those that have to ask. Only greenlets of the main hub touch it."""

    name = "gates"

    def __init__(self, state: NodeState, closing: Closing, lines: Lines) -> None:
        super().__init__()
        self.state = state
        self.closing = closing
        self.lines = lines
        self.limits = lines.store.limits
        self.begin: Begins = lambda _queue, _node, _runs, _wish="": None
        self.is_overtaking: Callable[[Run], bool] = lambda _run: False
        self._arrived: list[Run] = []
        self._wake = Event()
        self._of_classes: dict[type, dict[str, Any]] = {}

    def take(self, run: Run) -> None:
        """A run whose record has a gate. Does not block."""
        self._arrived.append(run)
        self._wake.set()

    def run(self) -> None:
        """Ask for whoever is there, for ever."""
        while True:
            self._wake.wait()
            self._wake.clear()
            while batch := self._take_batch():
                self._serve(batch)

    def wake(self) -> None:
        """A batch of claims was begun: those that were claimed after it may ask now."""
        if self._arrived:
            self._wake.set()

    def _take_batch(self) -> list[Run]:
        """Those that are next: nobody asks before all that were claimed from its queue before it have arrived."""
        ready: list[Run] = []
        later: list[Run] = []
        for run in sorted(self._arrived, key=_turn):  # a batch that was claimed later may have been begun first
            if len(ready) == MOST or self.is_overtaking(run):
                later.append(run)
            else:
                ready.append(run)
        self._arrived = later
        return ready

    def _serve(self, batch: Iterable[Run]) -> None:
        """Ask and begin; where the server refuses to, or fails, their ids go back to the head of the queue."""
        visitors = []
        try:
            visitors = [self._visitor(run) for run in batch if self._waits_still(run)]
            if not self.state.accepting.is_set():
                self._give_back(visitors)
                return
            points.reach("before-ask")
            self._ask(visitors)
            points.reach("after-ask")
            self._begin(visitors)
        except GreenletExit:
            raise
        except BaseException:
            self._give_back(visitors)
            raise

    def _waits_still(self, run: Run) -> bool:
        return run.phase == BEGIN and self.state.registry.holds(run)

    def _give_back(self, visitors: Iterable[Visitor]) -> None:
        for visitor in visitors:
            if self._waits_still(visitor.run):
                self.closing.release(visitor.run, "head")

    def _visitor(self, run: Run) -> Visitor:
        """What a run has to ask for: nothing where its name is unknown here, or it cannot start as it is."""
        task_class = self.state.classes.get((run.name or b"").decode("utf-8", "replace"))
        if task_class is None or run.stop_wanted:
            return Visitor(run, NOTHING)
        try:
            data = run.data if run.size else b"{}"
            options = self._options_of(task_class)
            demand = read_demand(task_class.NAME, data, run.options or {}, options)
            # the replicas of a service are unique by their numbers
            return Visitor(run, demand if run.replica is None else demand._replace(lock=""))
        except InvalidInputError:  # it ends as ERROR when it starts
            return Visitor(run, NOTHING)

    def _options_of(self, task_class: type) -> dict[str, Any]:
        if task_class not in self._of_classes:
            self._of_classes[task_class] = check_class(task_class)
        return self._of_classes[task_class]

    # Asking.

    def _ask(self, visitors: Sequence[Visitor]) -> None:
        self._ask_locks([visitor for visitor in visitors if visitor.demand.lock])
        for kind in KINDS:
            self._ask_limits(kind, [visitor for visitor in visitors if visitor.goes_on])
        for visitor in visitors:
            if visitor.goes_on:
                visitor.admit()
        self._spend([visitor for visitor in visitors if visitor.goes_on])

    def _ask_limits(self, kind: str, visitors: Sequence[Visitor]) -> None:
        groups: dict[tuple[Limit, bool], list[Visitor]] = defaultdict(list)
        for visitor in visitors:
            for limit in visitor.demand.limits:
                if limit.label.startswith(kind):
                    groups[limit, limit is visitor.demand.limits[-1]].append(visitor)
        turnovers = [
            Turnover(limit, asks=[visitor.row for visitor in group], spend=bool(limit.seconds) and last)
            for (limit, last), group in groups.items()
        ]
        answers = self.limits.turn_over(turnovers) if turnovers else []
        for each, group, standing in zip(turnovers, groups.values(), answers, strict=True):
            if isinstance(standing, StoreError):
                complain(each.limit.label, standing)
                for visitor in group:
                    visitor.defer(SILENT)
                continue
            for visitor, rank in zip(group, standing.answers, strict=True):
                if rank < 0:
                    visitor.granted.append(each.limit)
                else:
                    visitor.defer(FALLBACK + FALLBACK_EACH * rank, each.limit)
            self.lines.note(each.limit, standing)

    def _spend(self, visitors: Iterable[Visitor]) -> None:
        """Starts out of a rate that were kept while their tasks waited for a place are used up now."""
        groups: dict[Limit, list[Pass]] = defaultdict(list)
        for visitor in visitors:
            for limit in visitor.granted[:-1]:
                if limit.seconds:
                    groups[limit].append(visitor.row)
        turnovers = [Turnover(limit, asks=rows, spend=True) for limit, rows in groups.items()]
        for each, standing in zip(turnovers, self.limits.turn_over(turnovers), strict=True):
            if isinstance(standing, StoreError):
                complain(each.limit.label, standing)  # lines find that they run
            else:
                self.lines.note(each.limit, standing)

    def _ask_locks(self, visitors: Sequence[Visitor]) -> None:
        """Let those go on whose lock is theirs; also where its owner is at its end, or was never pushed."""
        replaced: dict[Visitor, bytes] = {}
        for _ in range(MOST_TAKEOVERS):
            rows = [(v.demand.lock, v.run.id, v.run.fence, replaced.get(v, b"")) for v in visitors]
            refused: list[tuple[Visitor, bytes]] = []
            for visitor, owner in zip(visitors, self.limits.lock(rows), strict=True):
                if isinstance(owner, StoreError):
                    complain(visitor.demand.lock, owner)
                    visitor.defer(SILENT)
                elif owner is not None:
                    refused.append((visitor, owner))
            glances = self.limits.glance([owner for _, owner in refused]) if refused else []
            replaced = {}
            for (visitor, owner), glance in zip(refused, glances, strict=True):
                if is_over(glance) or was_never_pushed(glance):
                    replaced[visitor] = owner
                else:
                    visitor.skip(owner)
            visitors = list(replaced)
            if not visitors:
                return
        for visitor, owner in replaced.items():
            visitor.skip(owner)

    # Beginning.

    def _begin(self, visitors: Iterable[Visitor]) -> None:
        groups: dict[tuple[QueueKeys, bytes, str], list[Run]] = defaultdict(list)
        for visitor in visitors:
            run = visitor.run
            if self._waits_still(run):
                run.told = visitor.told.encode("utf-8", "backslashreplace")
                groups[run.queue, run.node, "stop" if run.stop_wanted else visitor.wish].append(run)
        for (queue, node, wish), runs in groups.items():
            self.begin(queue, node, runs, wish)
