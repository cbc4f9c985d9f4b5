"""What must always hold, watched from outside: every script when it is executed, and every run of a task's code.

It judges by what was asked and what was executed, never by what a node believes. `Broken` says which promise was
broken, by which id, and why that is so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pytask import states
from simulation.machines import NODE_TIMEOUT, NodeMachine, Outside
from simulation.network import Machine
from simulation.server import QUEUE_SLOTS, SLOTS, TASK_SLOT, slot_of

ENDED = {state.encode() for state in states.ENDED}
PARKED = {state.encode() for state in states.PARKED}
STAY = ("nodes", "gone", "fence", "ended", "counts", "dead", "missing")  # what a queue keeps when nothing waits
GONE_SECONDS = 2.0  # a node whose subscription is gone is dead after so long without a beat
SEEN_GONE = 6.0  # so long ago a Monitor may have seen that a subscription is gone
CUT_OFF = 0.8  # of node_timeout: then a node stops by itself
SLACK = 2.0  # seconds until a node that is cut off has ended its runs
MARGIN = 0.2
# what nobody promises where a failover takes acknowledged writes back
NOT_PROMISED = frozenset(
    {
        "an ended task runs again",
        "a task is LOST too early",
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


class UserRun:
    """The code of a task, while it runs."""

    def __init__(self, machine: Any, task: Any) -> None:
        self.machine = machine
        self.since = machine.hub.now
        self.id = task.id.encode()
        self.run = task._context._run

    def __str__(self) -> str:
        return f"{self.id.decode()} with fence {self.run.fence.decode()} on {self.run.node.decode()}"


class Checker:
    """Watches one world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.server = world.server
        self.step = 0
        self.stories: dict[bytes, Story] = {}
        self.running: list[UserRun] = []
        self.reaped: set[bytes] = set()
        self.joined: dict[bytes, float] = {}
        self.beats: dict[tuple[int, bytes], tuple[float, float]] = {}  # when, and after how long an outage
        self.fences = dict.fromkeys(QUEUE_SLOTS, 0)
        self.broken: Broken | None = None
        self._hooks = {
            "begin": self._begin,
            "finish": self._finish,
            "unknown": self._unknown,
            "restart": self._restart,
            "stop": self._stop,
            "claim": self._claim,
            "beat": self._beat,
            "renew": self._renew,
            "reap": self._reap,
            "HSET": self._hset,
            "DEL": self._delete,
            "LPUSH": self._lpush,
            "PUBLISH": self._publish,
            "cleanup": self._cleanup,
        }

    def watch(self, machine: Machine, name: str, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        """Called by the network with everything that is executed."""
        self.step += 1
        hook = self._hooks.get(name)
        return evaluate() if hook is None else hook(machine, keys, args, evaluate)

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

    def forget_fences(self) -> None:
        """A failover may take back what was known of them."""
        self.fences = dict.fromkeys(QUEUE_SLOTS, 0)
        for story in self.stories.values():
            story.began, story.accepted = 0, set()

    # The task's slot.

    def _begin(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        before = [self.peek(key) for key in keys]
        replies = evaluate()
        for i, (key, record, reply) in enumerate(zip(keys, before, replies, strict=True)):
            fence = args[3 * (i - len(keys))]
            if record.fence == fence:
                if reply[0] == b"run" and record.closed == fence:
                    self.fail("an ended task runs again", f"{key[5:].decode()}: its fence is closed")
            elif reply[0] == b"run":
                self._check_run(key[5:], fence, record, reply, args[1])
            elif reply[0] == b"tail" and reply[1] != record.state:
                self._ends_at_begin(key[5:], reply[1])
        return replies

    def _check_run(self, task_id: bytes, fence: bytes, before: Record, reply: list[Any], queue: bytes) -> None:
        story, name = self.story(task_id), task_id.decode()
        if before.state in ENDED or before.state in (b"STOPPED", b"HELD"):
            self.fail("an ended task runs again", f"{name} was {before.state!r}")
        if before.control == b"stop":
            self.fail("a stop was lost at begin", name)
        if int(fence) <= story.began:
            self.fail("an older claim begins", f"{name}: {fence!r} after {story.began}")
        slot = slot_of(queue)
        if before.state in PARKED and before.at == queue and float(before.due or 0) > self._time(slot) + 0.001:
            self.fail("a parked task runs early", f"{name}: {float(before.due or 0) - self._time(slot):.3f} s")
        if story.open:
            self._count_the_end_of_an_open_start(story, before)
        if int(reply[4]) != story.outcomes + 1 or int(reply[5]) != story.deaths:
            expected = f"{story.outcomes + 1} and {story.deaths}"
            self.fail("attempt or deliveries are wrong", f"{name}: {reply[4]} and {reply[5]}, not {expected}")
            story.outcomes, story.deaths = int(reply[4]) - 1, int(reply[5])
        story.open = story.counted = True
        story.began = int(fence)
        story.obeyed = self.step

    @staticmethod
    def _count_the_end_of_an_open_start(story: Story, before: Record) -> None:
        """Its node died. Where a producer asked for a restart meanwhile, that wish ended it."""
        if before.state == b"WAIT":
            story.outcomes += story.counted
        else:
            story.deaths += 1

    def _time(self, slot: int) -> float:
        return float(self.world.network.time(slot))

    def _ends_at_begin(self, task_id: bytes, state: bytes) -> None:
        """STOPPED, EXPIRED, LOST, or put off to its time."""
        story = self.story(task_id)
        if state == b"STOPPED" and not story.told_to_stop:
            self.fail("a task was stopped that nobody told to stop", task_id.decode())
        if state == b"LOST" and story.deaths + story.open <= self.world.settings.max_deliveries:
            self.fail("a task is LOST too early", f"{task_id.decode()} after {story.deaths + story.open} deaths")
        if state not in PARKED:
            story.obeyed = self.step
            if story.open and state == b"LOST":
                story.deaths += 1
            elif story.open:  # what ends it now is the outcome of the start whose node died
                story.outcomes += story.counted
            story.open = False
        if state in ENDED:
            story.ended = self.step

    def _finish(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        before = [self.peek(key) for key in keys]
        replies = evaluate()
        for i, (key, record, reply) in enumerate(zip(keys, before, replies, strict=True)):
            if reply[0] in (b"ok", b"restarted"):
                a = 5 * (i - len(keys))
                self._check_finish(key[5:], int(args[a]), args[a + 1], record, reply)
        return replies

    def _check_finish(self, task_id: bytes, fence: int, wish: bytes, before: Record, reply: list[Any]) -> None:
        story, name, state = self.story(task_id), task_id.decode(), reply[1]
        if fence < story.began:
            self.fail("a stale finish was accepted", f"{name}: {fence}, but {story.began} began")
        if fence in story.accepted:
            self.fail("a finish was accepted twice", f"{name}: {fence}")
        story.accepted.add(fence)
        put_back = wish == b"WAIT" and state == b"WAIT"
        story.outcomes += story.open and story.counted and not put_back
        story.open = False
        if reply[0] == b"ok":
            if before.control == b"stop" and state in (b"RETRY", b"WAIT"):
                self.fail("a stop was lost at finish", name)
            if before.state == b"WAIT" and before.control != b"stop" and state != b"WAIT":
                self.fail("a restart was lost at finish", name)
            if state == b"STOPPED" and fence in story.remembered:
                story.stop = self.step
            elif state == b"STOPPED" and not story.told_to_stop:
                self.fail("a task was stopped that nobody told to stop", name)
            if state in ENDED:
                story.ended = self.step

    def _unknown(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        reply = evaluate()
        if reply[0] == b"ok":
            self.story(keys[0][5:]).open = False
        return reply

    def _restart(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        reply = evaluate()
        if reply[0] == b"ok":
            self._is_restarted(keys[0][5:], reset=reply[1] != b"RUNNING", told=False)
        return reply

    def _is_restarted(self, task_id: bytes, *, reset: bool, told: bool) -> None:
        story = self.story(task_id)
        story.written = self.step
        story.told_to_stop = told
        if told:
            story.stop = self.step
        if reset:
            story.outcomes = story.deaths = 0
            story.counted = False

    def _stop(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        reply = evaluate()
        if reply[0] == b"ok":
            self._is_told_to_stop(keys[0][5:])
            self.story(keys[0][5:]).remembered |= self._claims_of(keys[0][5:])
        return reply

    def _is_told_to_stop(self, task_id: bytes) -> None:
        story = self.story(task_id)
        story.stop = self.step
        story.told_to_stop = True

    def _publish(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        """A message alone may be lost, but is a reason to stop."""
        if args[0] == b"stop":
            task_id = keys[0].removesuffix(b"-control")[5:]
            self.story(task_id).told_to_stop = True
            self.story(task_id).remembered |= self._claims_of(task_id)
        return evaluate()

    def _claims_of(self, task_id: bytes) -> set[int]:
        """Fences: a node remembers a message for an id that it is about to begin, even beyond a restart."""
        owners = [
            self.server.execute(s, "HGET", [b"{" + SLOTS[s].encode() + b"}:claims", task_id]) for s in QUEUE_SLOTS
        ]
        return {int(owner.split()[1]) for owner in owners if owner and not owner.startswith(b"-")}

    # The queue's slot.

    def _claim(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        reply, slot = evaluate(), slot_of(keys[0])
        for i in range(1, len(reply), 5):
            if int(reply[i + 1]) <= self.fences[slot]:
                self.fail("a fence does not grow", f"{reply[i].decode()}: {reply[i + 1]!r}")
            self.fences[slot] = int(reply[i + 1])
        return reply

    def _renew(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        reply, story = evaluate(), self.story(args[1])
        if reply[0] == b"ok" and int(args[2]) in story.remembered:
            story.remembered.add(int(reply[1]))
        return reply

    def _beat(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        reply = evaluate()
        if reply[0] >= 0:
            self._heard(slot_of(keys[0]), args[0])
        return reply

    def _heard(self, slot: int, node: bytes) -> None:
        self.beats[slot, node] = self.world.hub.now, self.world.network.seconds_away()

    def _silence(self, slot: int, node: bytes) -> float:
        """Seconds since a node's last beat in which it could have beaten: an outage makes nobody dead."""
        when, away = self.beats.get((slot, node), (-100.0, 0.0))
        return float(self.world.hub.now - when - (self.world.network.seconds_away() - away))

    def _reap(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        node, slot = args[0], slot_of(keys[0])
        status = self.server.execute(slot, "HGET", [keys[3], node])
        reply = evaluate()
        if reply >= 0 and status is not None:
            if not status.startswith(b"-"):
                self._check_death(machine, slot, node)
            if isinstance(machine, Outside) or node not in machine.ids:
                self.reaped.add(node)
        return reply

    def _check_death(self, machine: Any, slot: int, node: bytes) -> None:
        """Only who is silent is dead. A node may end itself, and a parent knows about its child."""
        if isinstance(machine, Outside):
            return
        silent = self._silence(slot, node)
        channel = b"{" + SLOTS[slot].encode() + b"}:alive:" + node
        network = self.world.network
        stood = self.world.hub.now - network.gone_since.get(channel, -100.0) > SEEN_GONE
        stood &= any(channel in listener.channels for listener in network.listeners)
        if silent >= (NODE_TIMEOUT if stood else GONE_SECONDS) - MARGIN:
            return
        if node not in machine.ids:
            self.fail("a live node was declared dead", f"{node.decode()}, {silent:.2f} s after a beat")
        age = self.world.hub.now - self.joined[node]
        if not machine.ending and node not in self.reaped and age < CUT_OFF * NODE_TIMEOUT - MARGIN:
            self.fail("a node gave up without a reason", f"{node.decode()}, {age:.2f} s after it joined")

    # What producers write.

    def _hset(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        key = keys[0]
        if key.endswith(b":nodes"):
            self._heard(slot_of(key), args[0])
            self.joined.setdefault(args[0], self.world.hub.now)
        elif isinstance(machine, Outside) and key.startswith(b"task-"):
            self._producer_writes(key, dict(zip(args[::2], args[1::2], strict=True)))
        return evaluate()

    def _producer_writes(self, key: bytes, fields: dict[bytes, bytes]) -> None:
        task_id, before = key[5:], self.peek(key)
        if fields.get(b"state") == b"WAIT":
            self._is_restarted(task_id, reset=False, told=before.control == b"stop")
        elif fields.get(b"control") == b"stop":
            if before.state not in ENDED and before.state != b"STOPPED":
                self._is_told_to_stop(task_id)
        elif b"task" in fields:
            self.story(task_id).kept |= fields.get(b"cleanup") == b"false"
            if before.state in (None, b"WAIT"):
                self._is_written(task_id, self.story(task_id), before)

    def _is_written(self, task_id: bytes, story: Story, before: Record) -> None:
        """A record to be run. It may have been pushed before it was written."""
        if before.task is None and story.deleted < 0 and self._is_on_its_way(task_id):
            story.wanted = self.step
        else:
            story.written = self.step

    def _is_on_its_way(self, task_id: bytes) -> bool:
        found = [self.world.contents(slot, key) for slot in QUEUE_SLOTS for key in self.server.keys(slot)]
        return any(task_id in content for content in found)

    def _cleanup(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        before = [self.peek(key) for key in keys]
        reply = evaluate()
        for key, record, left in zip(keys, before, reply, strict=True):
            if left >= 0 and record.state not in ENDED and record.state is not None:
                self.fail("a task was removed before its end", f"{key[5:].decode()} was {record.state!r}")
            if left == 0:
                self._is_gone(key[5:])
        return reply

    def _is_gone(self, task_id: bytes) -> None:
        remembered = self.story(task_id).remembered
        self.stories[task_id] = Story(deleted=self.step, announced=self.step, remembered=remembered)

    def _delete(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        if keys[0].startswith(b"task-"):
            self._is_gone(keys[0][5:])
        return evaluate()

    def _lpush(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        for task_id in args:
            story = self.story(task_id)
            if keys[0] == b"end-task":
                story.announced = self.step
            elif isinstance(machine, Outside) and story.written >= 0:
                story.wanted, story.written = story.written, -1
        return evaluate()

    # The code of tasks.

    def run_begins(self, machine: Any, task: Any) -> UserRun:
        new = UserRun(machine, task)
        for old in self.running:
            if old.id == new.id and not self._is_excused(old) and not self._is_excused(new):
                kind = "one node runs an id twice" if old.machine is machine else "two healthy nodes run one id"
                self.fail(kind, f"{new} while {old}")
        self.running.append(new)
        return new

    def run_ends(self, run: UserRun) -> None:
        self.running.remove(run)

    def check_now(self) -> None:
        """A node that cannot say that it lives stops its runs by itself."""
        for run in self.running:
            machine, slot = run.machine, slot_of(run.run.queue.key)
            heard = max(self.beats.get((slot, run.run.node), (0.0, 0.0))[0], machine.resumed, run.since)
            late = self.world.hub.now - heard - CUT_OFF * NODE_TIMEOUT
            if late > SLACK and not machine.paused and not machine.ending:
                self.fail("a cut-off node goes on", f"{run}, {late:.2f} s too long")

    def _is_excused(self, run: UserRun) -> bool:
        """May this run overlap with another one?"""
        machine: NodeMachine = run.machine
        late = machine.dead or machine.excused_until > self.world.hub.now
        story = self.story(run.id)
        return late or run.run.node in self.reaped or story.deleted >= 0

    # At rest.

    def unsettled(self) -> str:
        """What is left to do, in words; '' where everything is in its place."""
        for machine in self.world.nodes:
            if not machine.dead and not machine.is_settled:
                return f"{machine.label} still has {list(machine.node.state.registry.runs) if machine.node else 'to boot'}"
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
        for task_id, story in sorted(self.stories.items()):
            record, name = self.peek(b"task-" + task_id), task_id.decode()
            if (record.task is None and record.state is None) or task_id in dead:
                continue  # there is no record, or one that nobody made
            if self.world.scenario.failover and record.state is None:
                continue  # nobody knows whether it was ever pushed
            is_open = record.state not in ENDED and record.state != b"STOPPED" and story.wanted >= 0
            if is_open and record.control == b"stop":
                self.fail("a stop was never obeyed", f"{name} rests as {record.state!r}")
            if is_open:
                self.fail("a task is lost", f"{name} rests as {record.state!r}")
            if record.state in ENDED and story.announced < story.ended and not story.kept:
                self.fail("an end is not on end-task", name)
            if story.obeyed < story.wanted and max(story.stop, story.deleted) < story.wanted:
                self.fail("a restart was lost", f"{name} rests as {record.state!r}")

    def _dead(self, slot: int) -> bytes:
        return b"{" + SLOTS[slot].encode() + b"}:dead"
