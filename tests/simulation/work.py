"""The tasks that the simulated nodes run: some turns, an event now and then, and an end as it was ordered."""

from __future__ import annotations

from typing import Any

from pytask import Task, states
from pytask.node import outcome as outcomes
from pytask.node.outcome import Outcome, make_outcome
from simulation.hub import current_hub
from simulation.stand_ins import sleep

RETRY_DELAYS = (0.0, 1.5, 4.0)  # seconds


class Retry(Exception):
    """Ends an attempt as RETRY: stands in for the policy of retries, which the product does not have yet."""


class Work(Task):
    """Ends after some turns. A world that comes to rest lets it end as a success."""

    NAME = "work"

    def __init__(self, turns: int = 1, end: str = "success", silent: bool = False) -> None:
        self.turns = turns
        self.end = end
        self.silent = silent

    def start(self) -> Any:
        machine = current_hub().unit.process
        world = machine.world  # type: ignore[attr-defined]
        run = world.checker.nodes.run_begins(machine, self)
        try:
            while self._has_turns(world):
                self.turns -= 1
                sleep(machine.random.expovariate(1.2))
                if not self.silent and machine.random.random() < 0.3:
                    self.emit("turn", self.turns)
            return self._finish("success" if world.at_rest else self.end)
        finally:
            world.checker.nodes.run_ends(run)

    def _has_turns(self, _world: Any) -> bool:
        return self.turns > 0

    def _finish(self, end: str) -> str:
        if end == "error":
            raise Task.Error("as it was told")
        if end == "exception":
            raise RuntimeError("as it was told")
        if end == "retry":
            raise Retry
        return end


class Endless(Work):
    """Goes on until it is stopped. A world that comes to rest ends it, but not where somebody asked for a stop."""

    NAME = "endless"
    forever = True

    def _has_turns(self, world: Any) -> bool:
        return not world.at_rest or bool(world.checker.stop_is_wanted(self.id))


class Polite(Endless):
    """Takes its time to stop."""

    NAME = "polite"

    def stop(self) -> None:
        sleep(0.4)


class Rare(Work):
    """Every other node knows it."""

    NAME = "rare"


EVERYWHERE = {kind.NAME: kind for kind in (Work, Endless, Polite)}
SOMEWHERE = {**EVERYWHERE, Rare.NAME: Rare}


def install_retries() -> None:
    """Let `Retry` end an attempt as RETRY."""
    judge = outcomes.judge

    def judged(error: BaseException) -> Outcome:
        return make_outcome(states.RETRY, b"", b"null") if isinstance(error, Retry) else judge(error)

    outcomes.judge = judged


def with_due(machine: Any, finish: Any) -> Any:
    """`Records.finish`, which gives a RETRY the time of the next attempt."""

    def finish_with_due(node: bytes, queue: bytes, rows: Any, keep: Any) -> Any:
        return finish(node, queue, [_due(machine, row) for row in rows], keep)

    return finish_with_due


def _due(machine: Any, row: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if row[2] != states.RETRY.encode():
        return row
    due = machine.world.network.time(2) + machine.random.choice(RETRY_DELAYS)
    return (*row[:4], b"%.6f" % due, row[5])
