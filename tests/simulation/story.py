"""What happened to each id, and the promise that was broken first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simulation.server import QUEUE_SLOTS, SLOTS, TASK_SLOT

# what nobody promises where a failover takes acknowledged writes back
NOT_PROMISED = frozenset(
    {
        "an ended task runs again",
        "a task is LOST too early",
        "a task that kills its nodes runs again",
        "a task that may start only once starts twice",
        "a parked task runs early",
        "attempt or deliveries are wrong",
        "two healthy nodes run one id",
        "one node runs an id twice",
        "a live node was declared dead",
        "a node gave up without a reason",
        "a fence does not grow",
        "a restart was lost",
        "a task was stopped that nobody told to stop",
        "an end is not on end-task",
    }
)
Evaluate = Callable[[], Any]
Words = Sequence[bytes]


class Broken(Exception):
    """A promise that was broken. `kind` names the promise alone."""

    def __init__(self, kind: str, what: str = "") -> None:
        super().__init__(f"{kind}: {what}")
        self.kind, self.what = kind, what


class Record(NamedTuple):
    """The fields of a record that the checker looks at."""

    state: bytes | None
    fence: bytes | None
    closed: bytes | None
    control: bytes | None
    due: bytes | None
    at: bytes | None
    attempt: bytes | None
    deliveries: bytes | None
    task: bytes | None


@dataclass
class Story:
    """What happened to one id. Steps count what was executed; -1 is never."""

    began: int = 0  # the highest fence that began
    accepted: set[int] = field(default_factory=set)
    outcomes: int = 0  # starts that their own outcome ended
    deaths: int = 0  # starts that the death of their node ended
    open: bool = False  # a start has neither ended nor been followed by another
    counted: bool = False  # no restart began the counting anew since
    obeyed: int = -1  # the last begin that ran it, or ended it
    written: int = -1  # a producer wrote what is to run, and has not pushed it yet
    wanted: int = -1  # and pushed it
    stop: int = -1
    told_to_stop: bool = False  # since it was last restarted
    remembered: set[int] = field(default_factory=set)  # fences of claims that were told to stop before they began
    deleted: int = -1
    ended: int = -1
    announced: int = -1  # on end-task
    kept: bool = False
    nudged: bool = False  # brought back before its time
    once: bool = False  # a producer wrote that it may start only once
    began_before: int = 0  # the highest fence that had begun when it was last restarted
    reloads: bool = False  # somebody told it to start anew, maybe before its code had started
    started: bool = False  # its code did, and neither an end nor a wish has come since
    died_young: set[int] = field(default_factory=set)  # fences of claims whose nodes' deaths count against it
    young: int = 0  # deaths in a row that count against it


class UserRun:
    """The code of a task, while it runs."""

    def __init__(self, machine: Any, task: Any) -> None:
        self.machine = machine
        self.since = machine.hub.now
        self.id = task.id.encode()
        self.run = task._context._run

    def __str__(self) -> str:
        return f"{self.id.decode()} with fence {self.run.fence.decode()} on {self.run.node.decode()}"


class Ledger:
    """The stories of all ids in one world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.server = world.server
        self.step = 0
        self.stories: dict[bytes, Story] = {}
        self.broken: Broken | None = None

    def fail(self, kind: str, what: str) -> None:
        """Remember what broke first."""
        if self.world.scenario.failover and kind in NOT_PROMISED:
            return
        if self.broken is None:
            self.broken = Broken(kind, what)
            self.world.note(f"BROKEN {self.broken}")

    def story(self, task_id: bytes) -> Story:
        return self.stories.setdefault(task_id, Story())

    def peek(self, key: bytes) -> Record:
        try:
            return Record(*self.server.execute(TASK_SLOT, "HMGET", [key, *(f.encode() for f in Record._fields)]))
        except Exception:
            return Record(*[None] * len(Record._fields))

    def exists(self, number: int) -> bool:
        return bool(self.server.execute(TASK_SLOT, "EXISTS", [b"task-t%d" % number]))

    def stop_is_wanted(self, task_id: str) -> bool:
        story = self.story(task_id.encode())
        if self.world.scenario.failover:  # the wish itself may have been taken back
            return self.peek(b"task-" + task_id.encode()).control == b"stop"
        return story.stop > max(story.deleted, story.written, story.wanted)

    def claims_of(self, task_id: bytes) -> set[int]:
        """Fences: a node remembers a message for an id that it is about to begin, even beyond a restart."""
        owners = [
            self.server.execute(s, "HGET", [b"{" + SLOTS[s].encode() + b"}:claims", task_id]) for s in QUEUE_SLOTS
        ]
        return {int(owner.split()[1]) for owner in owners if owner and not owner.startswith(b"-")}
