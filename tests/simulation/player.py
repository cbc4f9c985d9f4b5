"""Plays scenarios, and shrinks one that fails to the few acts and faults that it takes."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from simulation import stand_ins, work
from simulation.controls import CONTROLS, Control
from simulation.scenario import Fault, Scenario, draw
from simulation.server import ComparedServers, FakeServer, RealServer, load_scripts
from simulation.world import World

MOST_TRIES = 400  # of a scenario that is being shrunk
MOST_LINES = 70  # of a trace that is shown
COLLECT = 20  # worlds between two collections of garbage
T = TypeVar("T")


class Played(NamedTuple):
    """What became of a scenario. `kind` and `what` are empty where no promise was broken."""

    kind: str
    what: str
    faults: list[Fault]
    trace: list[str]


class Player:
    """Plays scenarios on one server, with one safeguard switched off or none."""

    def __init__(self, control: Control | None = None, url: str = "") -> None:
        self.control = control or Control()
        sources = load_scripts(self.control.scripts)
        fake = FakeServer(sources)
        self.server: Any = ComparedServers(fake, RealServer(sources, url)) if url else fake
        self._played = 0

    def play(self, scenario: Scenario, *, traced: bool = False) -> Played:
        world = World(scenario, self.server)
        if traced:
            world.trace = []
            world.network.trace = world.note
        with self._without_garbage_collection(), self.control.applied():
            broken = world.run()
        kind, what = (broken.kind, broken.what) if broken else ("", "")
        return Played(kind, what, world.faults, world.trace or [])

    @contextlib.contextmanager
    def _without_garbage_collection(self) -> Iterator[None]:
        gc.disable()
        yield
        self._played += 1
        if self._played % COLLECT == 0:
            gc.collect()

    def draw(self, seed: int, *, failover: bool = False) -> Scenario:
        """The scenario of a seed, as the control wants it."""
        return draw(seed, failover=failover or self.control.failover, **self.control.emphasis)

    def find(self, seeds: Iterable[int], *, failover: bool = False) -> dict[str, list[int]]:
        """Play seeds; the promises that were broken, with the seeds that broke them."""
        found: dict[str, list[int]] = {}
        for seed in seeds:
            kind = self.play(self.draw(seed, failover=failover)).kind
            if kind:
                found.setdefault(kind, []).append(seed)
        return found

    # Shrinking.

    def shrink(self, scenario: Scenario) -> tuple[Scenario, Played]:
        """The smallest scenario that was found to break the same promise, and how it does."""
        played = self.play(scenario)
        smallest = self._with_listed_faults(scenario, played)
        budget = iter(range(MOST_TRIES))

        def fails(changed: Scenario) -> bool:
            return next(budget, None) is not None and self.play(changed).kind == played.kind

        for change in (
            {"nodes": 1},
            {"nodes": 2},
            {"slowness": 0.0},
            {"skews": (0.0,) * 5},
            {"cleanup": False},
            {"sweep": scenario.failover},
            {"cluster": False},
        ):
            changed = dataclasses.replace(smallest, **change)
            if fails(changed):
                smallest = changed
        left = -1
        while left != (left := len(smallest.acts) + len(smallest.faults or ())):
            smallest = _fewer(smallest, "acts", fails)
            if smallest.faults:
                smallest = _fewer(smallest, "faults", fails)
        return smallest, self.play(smallest, traced=True)

    def _with_listed_faults(self, scenario: Scenario, played: Played) -> Scenario:
        listed = dataclasses.replace(scenario, faults=played.faults)
        return listed if self.play(listed).kind == played.kind else scenario


def _fewer(scenario: Scenario, name: str, fails: Callable[[Scenario], bool]) -> Scenario:
    """Take parts of a list away, large ones first, for as long as what is left fails."""
    items: Sequence[Any] = getattr(scenario, name)
    size = max(len(items) // 2, 1)
    while True:
        start = 0
        while start < len(items):
            kept = [*items[:start], *items[start + size :]]
            if fails(dataclasses.replace(scenario, **{name: kept})):
                items = kept
            else:
                start += size
        if size == 1:
            return dataclasses.replace(scenario, **{name: list(items)})
        size //= 2


def report(scenario: Scenario, played: Played) -> str:
    """A failure for people: what broke, the scenario that does it, and what its trace says of that."""
    return "\n".join([*head_of(scenario, played), "trace:", *_lines_about(played)])


def head_of(scenario: Scenario, played: Played) -> list[str]:
    """What broke, and the scenario."""
    servers = "a cluster" if scenario.cluster else "one server"
    slow = f"slowness {scenario.slowness} up to {scenario.slowest} s"
    return [
        f"seed {scenario.seed}: {played.kind or 'nothing broke'} {played.what}",
        f"  {scenario.nodes} nodes, {servers}, skews {scenario.skews}, {slow}",
        *(f"  {act}" for act in scenario.acts),
        *(f"  command {fault.number} of {fault.machine} is {fault.kind}" for fault in scenario.faults or ()),
    ]


def _lines_about(played: Played) -> list[str]:
    """The lines of a trace that speak of the same id or node as the failure, and the acts."""
    subjects = set(re.findall(r"\b(?:t\d+|n\d+\.\d+)\b", played.what))
    words = {*subjects, *(subject.split(".")[0] + " LOG" for subject in subjects), "---", "BROKEN"}
    lines = [line for line in played.trace if any(word in line for word in words) and " beat " not in line]
    lines = [re.sub(r"\{new-task(:mail)?\}:(?!inbox)\w+(:n\d+\.\d+)? ", "", line)[:200] for line in lines]
    return lines[-MOST_LINES:]


def prepare() -> None:
    """Put the stand-ins in place, once in a process."""
    stand_ins.install()
    work.install_retries()


def control_named(name: str | None) -> Control | None:
    return CONTROLS[name] if name else None
