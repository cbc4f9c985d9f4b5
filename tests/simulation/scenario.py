"""What happens in a world, drawn from its seed before it begins: a list of acts, each with its time.

An act says how long what it begins lasts, and names ids and nodes by number, so that a list from which some acts
were taken away is a scenario too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

SPAN = 15.0  # seconds in which things happen


class Act(NamedTuple):
    """One thing that happens: the method of `acts.Acts` with this name, and its arguments."""

    time: float
    name: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.time:.2f} {self.name}({', '.join(map(repr, self.args))})"


class Fault(NamedTuple):
    """A command that fails: the process, which of its commands, and how."""

    machine: str
    number: int
    kind: str


@dataclass
class Scenario:
    """A world's history to come."""

    seed: int
    nodes: int = 2
    acts: list[Act] = field(default_factory=list)
    skews: tuple[float, ...] = (0.0,) * 5  # seconds, of each slot's clock
    slowness: float = 0.1  # the share of commands that are slow
    slowest: float = 3.0  # seconds
    fault_rate: float = 0.05
    faults: list[Fault] | None = None  # these and no others; None: by chance
    cleanup: bool = False
    keep_results: bool = True
    sweep: bool = False
    failover: bool = False  # with the sweep
    cluster: bool = False


def draw(seed: int, *, failover: bool = False, often: Mapping[str, float] = {}, **fixed: Any) -> Scenario:
    """The scenario of a seed. `often`: acts, or ends of tasks, that are to happen more often; `fixed`: fields."""
    rng = Random(seed)
    scenario = Scenario(seed, nodes=rng.choice((1, 2, 2, 3)), failover=failover)
    if rng.random() < 0.6:
        scenario.skews = tuple(rng.choice((0.0, -15.0, -3.0, 3.0, 15.0)) for _ in scenario.skews)
    scenario.slowness = rng.choice((0.02, 0.1, 0.3))
    scenario.slowest = rng.choice((1.0, 3.0, 4.9))
    scenario.fault_rate = rng.choice((0.0, 0.05, 0.1))
    scenario.cleanup = rng.random() < 0.25
    scenario.keep_results = rng.random() < 0.7
    scenario.cluster = rng.random() < 0.4
    scenario.sweep = rng.random() < 0.2 or failover
    _draw_acts(scenario, rng, often)
    return dataclasses.replace(scenario, **fixed)


def _draw_acts(scenario: Scenario, rng: Random, often: Mapping[str, float]) -> None:
    ids = rng.randint(2, 6)
    scenario.acts = [_create(rng, number, often) for number in range(ids)]
    names, weights = zip(
        *{**WEIGHTS, **{name: often[name] for name in often if name in WEIGHTS}}.items(), strict=True
    )
    for _ in range(rng.randint(6, 26)):
        name = rng.choices(names, weights)[0]
        scenario.acts.append(Act(rng.uniform(0.3, SPAN), name, DRAW[name](rng, ids)))
    if rng.random() < often.get("deaths", 0.15):
        scenario.acts += _deaths(rng)
    if rng.random() < often.get("far", 0.1) and not scenario.failover:
        scenario.acts.append(_far(rng))
    if scenario.failover:
        scenario.acts += [_failover(rng) for _ in range(rng.randint(1, 3))]
    if rng.random() < often.get("pauses", 0.15):
        scenario.acts += [_pause(rng) for _ in range(rng.randint(1, 3))]
    scenario.acts.sort()


def _create(rng: Random, number: int, often: Mapping[str, float] = {}) -> Act:
    kind = rng.choices(("work", "endless", "polite", "rare"), (10, often.get("endless", 4), 2, 1))[0]
    end = rng.choices(("success", "error", "exception", "retry"), (6, 1, 1, often.get("retry", 4)))[0]
    options: dict[str, Any] = {}
    if rng.random() < 0.15:
        options["due"] = rng.uniform(1, 6)
    if rng.random() < 0.08:
        options["expires"] = rng.uniform(0.5, 6)
    if rng.random() < 0.1:
        options["kept"] = True
    if rng.random() < 0.15:
        options["once"] = True
    if rng.random() < 0.4:
        options["silent"] = True
    if rng.random() < 0.15:
        options["late"] = rng.uniform(0.1, 4)
    return Act(
        rng.uniform(0.2, SPAN * 0.6), "create", (number, _queue(rng), kind, rng.randint(0, 5), end, options)
    )


def _deaths(rng: Random) -> list[Act]:
    """Something that goes on, and so many deaths of nodes that they count against it."""
    quiet = rng.choice((0.0, 5.0))  # seconds: some runs get old
    times = [rng.uniform(1, SPAN - quiet) for _ in range(rng.randint(5, 8))]
    kills = [Act(t if t < 5 else t + quiet, "kill", (0, True, rng.random() < 0.8)) for t in times]
    first = _create(rng, 6, {"endless": 100})  # an id to which nothing else happens
    return [first._replace(time=rng.uniform(0.2, 2.0)), *kills]


def _far(rng: Random) -> Act:
    """A task whose time is far, and a stop of it, which must not wait for that time."""
    delay = rng.choice((rng.uniform(0, 0.3), rng.uniform(0, 5)))
    return Act(rng.uniform(0.2, SPAN * 0.6), "put_off", (8, _queue(rng), 500.0, delay))


def _failover(rng: Random) -> Act:
    return Act(rng.uniform(1, SPAN), "failover", (rng.choice((0, 0, 1, 2)), rng.uniform(0.2, 2.0)))


def _pause(rng: Random) -> Act:
    return Act(rng.uniform(0.2, SPAN), "pause_queue", (_queue(rng), rng.uniform(0.1, 6.0)))


def _queue(rng: Random) -> int:
    return int(rng.random() < 0.3)


def _id(rng: Random, ids: int) -> tuple[Any, ...]:
    return (rng.randrange(ids),)


def _id_queue(rng: Random, ids: int) -> tuple[Any, ...]:
    return rng.randrange(ids), _queue(rng)


def _id_raw(rng: Random, ids: int) -> tuple[Any, ...]:
    return rng.randrange(ids), rng.random() < 0.4


def _node_seconds(rng: Random, _ids: int) -> tuple[Any, ...]:
    return rng.randrange(8), rng.choice((0.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0))


DRAW: dict[str, Callable[[Random, int], tuple[Any, ...]]] = {
    "push": _id_queue,
    "push_often": _id_queue,
    "restart": _id_raw,
    "stop": _id_raw,
    "tell_stop": _id,
    "reload": _id,
    "delete": _id,
    "recreate": _id_queue,
    "kill": lambda rng, _ids: (rng.randrange(8), rng.random() < 0.7, rng.random() < 0.3),
    "freeze": _node_seconds,
    "cut": lambda rng, ids: (*_node_seconds(rng, ids), rng.random() < 0.4),
    "reset": lambda rng, _ids: (rng.randrange(8),),
    "terminate": lambda rng, _ids: (rng.randrange(8), rng.random() < 0.7),
    "hold": _node_seconds,
    "outage": lambda rng, _ids: (rng.choice((1.0, 3.0, 6.0)), rng.random() < 0.5),
}
WEIGHTS = {
    "push": 6,
    "push_often": 2,
    "restart": 5,
    "stop": 5,
    "tell_stop": 2,
    "reload": 1,
    "delete": 0.5,
    "recreate": 1.5,
    "kill": 3,
    "freeze": 4,
    "cut": 2,
    "reset": 1,
    "terminate": 2,
    "hold": 1,
    "outage": 1.2,
}
