"""Scheduler: lets schedules fire. Runs on every node; each fire is won by one, and finished by any.

A node sleeps until the schedule that is looked at next is due, takes it for a moment, decides what is to fire
(`pytask.firing`), and wins that with one script. Whoever dies in between loses nothing: what it took comes back
when its moment is over, and what it won stands in the schedule until it was started. The server's clock counts.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from pytask import points, wire
from pytask.errors import InvalidInputError, StoreError, StoreRefused, StoreUnavailable
from pytask.firing import DEFINING, Definition, decide, read_definition, read_standing, read_time
from pytask.schedule import write_fire_time
from pytask.scheduling import BUILT_IN, queue_of, words_of_fire
from pytask.store.schedules import NEVER, Hash, Schedules, Taken
from pytask.task import Task

log = logging.getLogger("pytask.scheduler")

POLL = 0.5  # seconds between two looks at which schedule is next
EMPTY_POLL = 2.0  # while there is none
SPREAD = 0.03  # seconds; so that nodes do not all look in the same instant
AGAIN = 0.02  # seconds until the next look, where others are at work
LEASE = 0.2  # seconds that a node has for what it took
MOST = 20  # schedules that it takes at a time
CLOCK_EVERY = 30.0  # seconds after which the server is asked for its time
JUMP = 2.0  # seconds by which its clock may drift until then
LATE = 5.0  # seconds after which a fire counts as late, in the log
FIRST_DELAY, LAST_DELAY = 0.5, 30.0  # seconds, where Redis refuses
MOST_PASSED = 200


class Strange(NamedTuple):
    """A schedule whose task this node does not know: since when (monotonic), and `next` as it stood then."""

    since: float
    next: bytes


class Clock:
    """The server's clock, as of the last time that it was asked."""

    def __init__(self) -> None:
        self.offset: float | None = None  # of the server's epoch seconds to this node's monotonic ones
        self.asked = 0.0

    def now(self) -> float | None:
        """The server's time; None where it is to be asked."""
        monotonic = time.monotonic()
        fresh = self.offset is not None and monotonic - self.asked < CLOCK_EVERY
        return monotonic + (self.offset or 0.0) if fresh else None

    def note(self, now: float) -> bool:
        """The server says that it is now; True where its clock was set since."""
        self.asked = time.monotonic()
        before, self.offset = self.offset, now - self.asked
        return before is not None and abs(self.offset - before) > JUMP


class Scheduler(Task):
    """Lets schedules fire, those of the app and all others of the namespace.

    `unknown_wait`: for how many seconds a schedule may be due whose task no node knows; then it is broken.
    """

    NAME = "pytask/scheduler"
    forever = True
    local_only = True

    def __init__(self, unknown_wait: float = 60.0) -> None:
        self.unknown_wait = unknown_wait
        self.schedules: Schedules = self.helpers.store.schedules
        self.clock = Clock()
        self.strange: dict[bytes, Strange] = {}
        self.refreshed = 0.0  # monotonic second at which the strange ones were read last
        self.to_write = dict(self.helpers.declared_schedules)
        self.to_check = True  # every schedule, once

    def start(self) -> None:
        """Look and sleep, for ever."""
        delay = FIRST_DELAY
        while True:
            try:
                pause = self._turn()
                delay = FIRST_DELAY
            except StoreUnavailable as error:
                log.debug("schedules wait: %s", wire.shown(str(error), 200))
                pause = POLL
            except StoreError as error:
                log.error("schedules cannot be read: %s", wire.shown(str(error), 200))
                pause, delay = delay, min(delay * 2, LAST_DELAY)
            time.sleep(pause)

    def _turn(self) -> float:
        """Do what is to be done now; returns after how many seconds to look again."""
        if self.to_write:
            self._write_own()
        first = self.schedules.get_first()
        now = self.clock.now()
        if now is not None and first is None:
            return EMPTY_POLL * random.uniform(0.8, 1.0)
        if now is not None and first is not None and first > now:
            return min(first - now + random.uniform(0, SPREAD), POLL)
        return self._work()

    def _write_own(self) -> None:
        """Write the schedules of the app; what is there already, unchanged, is left alone."""
        for name in list(self.to_write):
            try:
                if self.schedules.define(name.encode(), DEFINING, self.to_write[name]):
                    log.info("schedule %s is defined", wire.shown(name))
            except StoreRefused as error:
                log.error("schedule %s cannot be written: %s", wire.shown(name), wire.shown(str(error), 200))
            del self.to_write[name]

    def _work(self) -> float:
        self._refresh_strange()
        now, taken = self.schedules.take(MOST, LEASE, self._passed())
        if self.clock.note(now):
            log.warning("the server's clock was set: every schedule is looked at")
            self.to_check = True
        if self.to_check:
            self._check_all(now)
            self.to_check = False
        for one in taken:
            self._look(one, now)
        if taken:
            return 0.0 if len(taken) == MOST else random.uniform(0, AGAIN)
        return POLL if self.strange else AGAIN

    # One schedule.

    def _look(self, taken: Taken, now: float) -> None:
        """Do what is to be done about a schedule that this node has taken."""
        try:
            fields = self.schedules.get(taken.name)
        except StoreRefused as error:
            if "WRONGTYPE" not in str(error):
                raise
            log.warning("schedule %s is broken: its key is not a hash", wire.shown(taken.name))
            self.schedules.give_back(taken, NEVER)
            return
        if not fields:
            self.schedules.give_back(taken, None)
            return
        if (firing := fields.get(b"firing")) is not None:
            self._start_won(taken.name, firing)
        try:
            definition = read_definition(taken.name, fields)
        except InvalidInputError as error:
            self._break(taken, fields, str(error))
            return
        if self._knows(definition.task):
            self.strange.pop(taken.name, None)
            self._advance(taken, definition, fields, now)
        else:
            self._leave(taken, definition, fields, now)

    def _knows(self, task: str) -> bool:
        return task in self.helpers.classes or task.startswith(BUILT_IN)

    def _advance(self, taken: Taken, definition: Definition, fields: Hash, now: float) -> None:
        """Win what is due and start it, and say when to look again."""
        standing = read_standing(fields)
        decision = decide(definition, standing, now)
        following, digest = decision.next, definition.timing.digest
        changed = decision.fires or following != standing.next or digest != standing.spec or b"error" in fields
        if decision.fires:
            self._draft(definition, decision.fires, now)
        if changed:
            if not self.schedules.advance(taken.name, fields, following, digest, "", decision.fires):
                self.schedules.give_back(taken, now)  # somebody was faster, or has changed it
                return
            if decision.fires:
                points.reach("after-win")
                self._start_won(taken.name, b" ".join(map(wire.encode_time, decision.fires)))
                self._tell(definition, decision.fires, now, dropped=decision.dropped)
        self.schedules.give_back(taken, NEVER if following is None else definition.moment(following))

    def _draft(self, definition: Definition, fires: Sequence[float], now: float) -> None:
        ids = [definition.fire_id(instant).encode() for instant in fires]
        words = words_of_fire(definition, queue_of(definition, self.helpers.classes), now)
        points.reach("before-draft")
        self.schedules.draft(ids, words)
        points.reach("after-draft")

    def _start_won(self, name: bytes, firing: bytes) -> None:
        """Start what was won, by this node or by one that has died since. Harmless where it was started before."""
        instants = [instant for word in firing.split(b" ") if (instant := read_time(word)) is not None]
        ids = [fire_id(name, instant) for instant in instants]
        if ids:
            self.schedules.start(ids)
        points.reach("after-start")
        self.schedules.strike(name, firing)

    def _tell(self, definition: Definition, fires: Sequence[float], now: float, *, dropped: bool) -> None:
        late = now - definition.moment(fires[0])
        if late > LATE:
            log.warning("schedule %s: %d fires that were missed are made up for", definition.name, len(fires))
        if dropped:
            log.warning("schedule %s: too many fires were missed: the oldest are left out", definition.name)

    def _break(self, taken: Taken, fields: Hash, reason: str) -> None:
        """Show it as broken: it fires no more until somebody mends it and says so."""
        if fields.get(b"error", b"").decode("utf-8", "replace") != reason or b"next" in fields:
            log.warning("schedule %s is broken: %s", wire.shown(taken.name), wire.shown(reason, 300))
            self.schedules.advance(taken.name, fields, None, "", reason, ())
        self.schedules.give_back(taken, NEVER)

    # Tasks that this node does not know: another one may.

    def _leave(self, taken: Taken, definition: Definition, fields: Hash, now: float) -> None:
        """Leave it to a node that knows the task; where none does for too long it is broken."""
        following = fields.get(b"next", b"")
        strange = self.strange.get(taken.name)
        if strange is not None and strange.next == following:
            if time.monotonic() - strange.since >= self.unknown_wait:
                del self.strange[taken.name]
                words = f"no node knows the task {wire.shown(definition.task)}: add it with add_task"
                self._break(taken, fields, words)
                return
        elif len(self.strange) < MOST_PASSED or strange is not None:
            self.strange[taken.name] = Strange(time.monotonic(), following)
        self.schedules.give_back(taken, now)

    def _passed(self) -> list[bytes]:
        """Names that are not taken: they are left to others for now."""
        now = time.monotonic()
        return [name for name, strange in self.strange.items() if now - strange.since < self.unknown_wait]

    def _refresh_strange(self) -> None:
        """Whoever is late by its own fault must not be taken for one that nobody knows: others move `next` on."""
        now = time.monotonic()
        if not self.strange or now - self.refreshed < self.unknown_wait / 4:
            return
        self.refreshed = now
        names = list(self.strange)
        for name, fields in zip(names, self.schedules.get_each(names), strict=True):
            if isinstance(fields, StoreError) or not fields:
                del self.strange[name]
            elif fields.get(b"next", b"") != self.strange[name].next:
                self.strange[name] = Strange(now, fields.get(b"next", b""))

    # All of them.

    def _check_all(self, now: float) -> None:
        """Have every schedule looked at whose next look is not where it should be: after a clock was set, say."""
        for batch in self.schedules.iter_names():
            hashes = self.schedules.get_each([name for name, _ in batch])
            wrong = [
                name
                for (name, score), fields in zip(batch, hashes, strict=True)
                if score > now and not isinstance(fields, StoreError) and self._is_wrong(name, fields, score, now)
            ]
            self.schedules.touch(wrong)
            time.sleep(0)

    def _is_wrong(self, name: bytes, fields: Hash, score: float, now: float) -> bool:
        try:
            definition = read_definition(name, fields)
        except InvalidInputError:
            return b"error" not in fields
        if not self._knows(definition.task):
            return False
        standing = read_standing(fields)
        decision = decide(definition, standing, now)
        if decision.fires or decision.next != standing.next or b"error" in fields:
            return True
        return decision.next is not None and score > max(definition.moment(decision.next), now + LEASE)


def fire_id(name: bytes, instant: float) -> bytes:
    """The id of the task of one fire."""
    return name + b"@" + write_fire_time(instant).encode()
