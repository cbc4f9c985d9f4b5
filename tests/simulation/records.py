"""Watches the records: what claims begin and finish, and what producers write and push."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from answers import spelt_out

from pytask import states
from pytask.store.records import WRITTEN
from simulation.machines import Outside
from simulation.network import Machine
from simulation.server import QUEUE_SLOTS, slot_of
from simulation.story import Evaluate, Ledger, Record, Story, Words

ENDED = {state.encode() for state in states.ENDED}
PARKED = {state.encode() for state in states.PARKED}


class RecordWatch:
    """Judges begin and finish by what producers asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.world, self.server = ledger.world, ledger.server
        self.fail, self.story, self.peek = ledger.fail, ledger.story, ledger.peek
        self.hooks = {
            "begin": self._begin,
            "finish": self._finish,
            "unknown": self._unknown,
            "cleanup": self._cleanup,
            "restart": self._restart,
            "stop": self._stop,
            "nudge": self._nudge,
            "survive": self._survive,
            "PUBLISH": self._publish,
            "DEL": self._delete,
            "LPUSH": self._lpush,
        }

    @property
    def step(self) -> int:
        """The number of what is executed now."""
        return self.ledger.step

    # What nodes do.

    def _begin(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        before = [self.peek(key) for key in keys]
        replies = evaluate()
        for i, (key, record, answer) in enumerate(zip(keys, before, replies, strict=True)):
            reply, fence = spelt_out([*answer]), args[3 * (i - len(keys))]
            if record.fence == fence:
                if reply[0] == b"run" and record.closed == fence:
                    self.fail("an ended task runs again", f"{key[5:].decode()}: its fence is closed")
            elif reply[0] == b"run":
                self._check_run(key[5:], fence, record, reply, args[1])
            elif reply[0] == b"probation" and self.story(key[5:]).open:
                _count_the_end_of_an_open_start(self.story(key[5:]), record)
                self.story(key[5:]).open = False
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
        if (
            before.state in PARKED
            and not story.nudged
            and before.at == queue
            and float(before.due or 0) > self._time(slot) + 0.001
        ):
            self.fail("a parked task runs early", f"{name}: {float(before.due or 0) - self._time(slot):.3f} s")
        if story.open:
            _count_the_end_of_an_open_start(story, before)
        if story.young >= self.world.settings.max_deliveries:
            self.fail("a task that kills its nodes runs again", f"{name} after {story.young} deaths")
        if int(reply[4]) != story.outcomes + 1 or int(reply[5]) != story.deaths:
            expected = f"{story.outcomes + 1} and {story.deaths}"
            self.fail("attempt or deliveries are wrong", f"{name}: {reply[4]} and {reply[5]}, not {expected}")
            story.outcomes, story.deaths = int(reply[4]) - 1, int(reply[5])
        story.open = story.counted = True
        story.nudged = False
        story.began = int(fence)
        story.obeyed = self.step

    def _time(self, slot: int) -> float:
        return float(self.world.network.time(slot))

    def _ends_at_begin(self, task_id: bytes, state: bytes) -> None:
        """STOPPED, EXPIRED, LOST, or put off to its time."""
        story = self.story(task_id)
        if state == b"STOPPED" and not story.told_to_stop:
            self.fail("a task was stopped that nobody told to stop", task_id.decode())
        young = story.young + (story.open and story.began in story.died_young)
        if state == b"LOST" and young < self.world.settings.max_deliveries and not (story.once and story.open):
            self.fail("a task is LOST too early", f"{task_id.decode()} after {young} deaths")
        if state not in PARKED:
            story.obeyed = self.step
            if story.open and state == b"LOST":  # that start counts as both
                story.deaths += 1
            if story.open:  # what ends it now is the outcome of the start whose node died
                story.outcomes += story.counted
            story.open = False
        if state in ENDED:
            story.ended = self.step

    def _finish(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        keys = keys[:: 1 if args[2] == b"0" else 2]  # each with its stream behind it where events are kept
        before = [self.peek(key) for key in keys]
        replies = evaluate()
        for i, (key, record, answer) in enumerate(zip(keys, before, replies, strict=True)):
            a = 5 * (i - len(keys))
            reply = WRITTEN[args[a + 1].decode()] if answer == b"ok" else answer
            if reply[0] in (b"ok", b"restarted"):
                self._check_finish(key[5:], int(args[a]), args[a + 1], record, reply)
        return replies

    def _check_finish(self, task_id: bytes, fence: int, wish: bytes, before: Record, reply: Sequence[Any]) -> None:
        story, name, state = self.story(task_id), task_id.decode(), reply[1]
        if fence < story.began:
            self.fail("a stale finish was accepted", f"{name}: {fence}, but {story.began} began")
        if fence in story.accepted:
            self.fail("a finish was accepted twice", f"{name}: {fence}")
        story.accepted.add(fence)
        put_back = wish == b"WAIT" and state == b"WAIT"
        story.outcomes += story.open and story.counted and not put_back
        if wish != b"WAIT":
            story.started, story.young = False, 0
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
        replies = evaluate()
        for key, reply in zip(keys, replies, strict=True):
            if reply[0] == b"ok":
                self.story(key[5:]).open = False
        return replies

    def _cleanup(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        before = [self.peek(key) for key in keys]
        reply = evaluate()
        for key, record, left in zip(keys, before, reply, strict=True):
            if left >= 0 and record.state not in ENDED and record.state is not None:
                self.fail("a task was removed before its end", f"{key[5:].decode()} was {record.state!r}")
            if left == 0:
                self._is_gone(key[5:])
        return reply

    # What producers do.

    def _restart(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        before = [self.peek(key) for key in keys]
        replies = evaluate()
        for key, record, reply in zip(keys, before, replies, strict=True):
            if reply[0] == b"ok":
                if record.control == b"stop":
                    self.story(key[5:]).remembered.clear()  # no message that was sent before ends it
                self._is_restarted(key[5:], reset=reply[1] != b"RUNNING", told=False)
        return replies

    def _is_restarted(self, task_id: bytes, *, reset: bool, told: bool) -> None:
        story = self.story(task_id)
        story.written = self.step
        story.told_to_stop = told
        if told:
            story.stop = self.step
        story.started, story.began_before = False, story.began
        if reset:
            story.outcomes = story.deaths = story.young = 0
            story.counted = False

    def _stop(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        replies = evaluate()
        for key, reply in zip(keys, replies, strict=True):
            if reply[0] == b"ok":
                self._is_told_to_stop(key[5:])
                self.story(key[5:]).remembered |= self.ledger.claims_of(key[5:])
        return replies

    def _nudge(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        """Sent again after its reply was lost it may bring a later parking back early, which does no harm."""
        reply = evaluate()
        self.story(args[0]).nudged |= reply == 1
        return reply

    def _survive(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        replies = evaluate()
        for key, reply in zip(keys, replies, strict=True):
            if reply:
                self.story(key[5:]).young = 0
        return replies

    def _is_told_to_stop(self, task_id: bytes) -> None:
        story = self.story(task_id)
        story.stop = self.step
        story.told_to_stop = True

    def _publish(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        """A message alone may be lost, but is a reason to stop, or to start anew."""
        if args[0] == b"reload":
            self.story(keys[0].removesuffix(b"-control")[5:]).reloads = True
        if args[0] == b"stop":
            task_id = keys[0].removesuffix(b"-control")[5:]
            self.story(task_id).told_to_stop = True
            self.story(task_id).remembered |= self.ledger.claims_of(task_id)
        return evaluate()

    def producer_writes(self, machine: Machine, key: bytes, fields: dict[bytes, bytes]) -> None:
        """Somebody writes a record with a plain HSET."""
        if not isinstance(machine, Outside):
            return
        task_id, before = key[5:], self.peek(key)
        if fields.get(b"state") == b"WAIT":
            self._is_restarted(task_id, reset=False, told=before.control == b"stop")
        elif fields.get(b"control") == b"stop":
            if before.state not in ENDED and before.state != b"STOPPED":
                self._is_told_to_stop(task_id)
        elif b"task" in fields:
            self.story(task_id).kept |= fields.get(b"cleanup") == b"false"
            self.story(task_id).once |= fields.get(b"rescheduling") == b"false"
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

    def _delete(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        if keys[0].startswith(b"task-"):
            self._is_gone(keys[0][5:])
        return evaluate()

    def _is_gone(self, task_id: bytes) -> None:
        remembered = self.story(task_id).remembered
        self.ledger.stories[task_id] = Story(deleted=self.step, announced=self.step, remembered=remembered)

    def _lpush(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        for task_id in args:
            story = self.story(task_id)
            if keys[0] == b"end-task":
                story.announced = self.step
            elif isinstance(machine, Outside) and story.written >= 0:
                story.wanted, story.written = story.written, -1
        return evaluate()


def _count_the_end_of_an_open_start(story: Story, before: Record) -> None:
    """Its node died. Where a producer asked for a restart meanwhile, that wish ended it."""
    if before.state == b"WAIT":
        story.outcomes += story.counted
    else:
        story.deaths += 1
        story.young += story.began in story.died_young
