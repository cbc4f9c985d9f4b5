"""Looks at a world that has come to rest: is everything in its place, and was every wish obeyed?"""

from __future__ import annotations

from pytask import states
from simulation.server import QUEUE_SLOTS, SLOTS
from simulation.story import Ledger

ENDED = {state.encode() for state in states.ENDED}
# what a queue keeps when nothing waits
STAY = ("nodes", "gone", "fence", "ended", "counts", "dead", "missing", "sweep")


class Rest:
    """The last look."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.world, self.server = ledger.world, ledger.server

    def unsettled(self) -> str:
        """What is left to do, in words; '' where everything is in its place."""
        for machine in self.world.nodes:
            if not machine.dead and not machine.is_settled:
                left = list(machine.node.state.registry.runs) if machine.node else "to boot"
                return f"{machine.label} still has {left}"
        if self.world.acts.producers:
            return "a producer is at work"
        return self._left_in_queues()

    def _left_in_queues(self) -> str:
        alive = {machine.node.state.id for machine in self.world.nodes if not machine.dead and machine.node}
        for slot in QUEUE_SLOTS:
            tag = b"{" + SLOTS[slot].encode() + b"}:"
            for key in self.server.keys(slot):
                name = key.removeprefix(tag).decode()
                if name not in STAY and not (name == "control" and self.world.scenario.failover):
                    return f"{key.decode()} holds {self.world.contents(slot, key)}"
            members = set(self.server.execute(slot, "HKEYS", [tag + b"nodes"]))
            if members != alive:
                return f"{tag.decode()}nodes holds {sorted(members)}, alive are {sorted(alive)}"
        return ""

    def check_the_end(self) -> None:
        """Everything is at rest: was every wish obeyed?"""
        dead = {
            i for slot in QUEUE_SLOTS for i in self.server.execute(slot, "LRANGE", [self._dead(slot), b"0", b"-1"])
        }
        for task_id, story in sorted(self.ledger.stories.items()):
            record, name = self.ledger.peek(b"task-" + task_id), task_id.decode()
            if (record.task is None and record.state is None) or task_id in dead:
                continue  # there is no record, or one that nobody made
            if self.world.scenario.failover and record.state is None:
                continue  # nobody knows whether it was ever pushed
            is_open = record.state not in ENDED and record.state != b"STOPPED" and story.wanted >= 0
            if is_open and record.control == b"stop":
                self.ledger.fail("a stop was never obeyed", f"{name} rests as {record.state!r}")
            if is_open:
                self.ledger.fail("a task is lost", f"{name} rests as {record.state!r}")
            if record.state in ENDED and story.announced < story.ended and not story.kept:
                self.ledger.fail("an end is not on end-task", name)
            if story.obeyed < story.wanted and max(story.stop, story.deleted) < story.wanted:
                self.ledger.fail("a restart was lost", f"{name} rests as {record.state!r}")

    def _dead(self, slot: int) -> bytes:
        return b"{" + SLOTS[slot].encode() + b"}:dead"
