"""What must always hold, watched from outside: every script when it is executed, and every run of a task's code.

It judges by what was asked and what was executed, never by what a node believes. `Broken` says which promise was
broken, by which id, and why that is so. The promises are in `records`, `nodes` and `rest`.
"""

from __future__ import annotations

from typing import Any

from simulation.network import Machine
from simulation.nodes import NodeWatch
from simulation.records import RecordWatch
from simulation.rest import Rest
from simulation.server import QUEUE_SLOTS
from simulation.story import Evaluate, Ledger, Words


class Checker(Ledger):
    """Watches one world."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.records = RecordWatch(self)
        self.nodes = NodeWatch(self)
        self.rest = Rest(self)
        self._hooks = {**self.records.hooks, **self.nodes.hooks, "HSET": self._hset}

    def watch(self, machine: Machine, name: str, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        """Called by the network with everything that is executed."""
        self.step += 1
        hook = self._hooks.get(name)
        return evaluate() if hook is None else hook(machine, keys, args, evaluate)

    def _hset(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        if keys[0].endswith(b":nodes"):
            self.nodes.joins(keys[0], args[0])
        elif keys[0].startswith(b"task-"):
            self.records.producer_writes(machine, keys[0], dict(zip(args[::2], args[1::2], strict=True)))
        return evaluate()

    def forget_fences(self) -> None:
        """A failover may take back what was known of them."""
        self.nodes.fences = dict.fromkeys(QUEUE_SLOTS, 0)
        for story in self.stories.values():
            story.began, story.accepted = 0, set()
