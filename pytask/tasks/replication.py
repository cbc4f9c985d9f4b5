"""Replication: brings one service to what its definition says, a step at a time.

Every step can be repeated, and done by two nodes at a time: records are made where there are none, changed where
they are of an older revision, pushed where that starts nothing twice, and removed once they have ended. Whoever is
ended in the midst of it leaves the service to the node that looks at it next.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from pytask import points, states, wire
from pytask.errors import InvalidInputError, StoreRefused
from pytask.services import Definition, id_of_replica, read_definition
from pytask.store.services import Plan, Standing, batches, is_wrong_type

log = logging.getLogger("pytask.services")

LOOK = 30.0  # seconds between two looks at a service of which nothing is to be done
LOOK_RATE = 20.0  # replicas a second whose records are looked for, where each of them takes a command of its own
SOON = 2.0  # seconds until a service is looked at again whose replicas have not ended yet
PATIENCE = 10.0  # seconds that the end of replicas is waited for in one go
NAPS = (0.01, 0.25)  # seconds between two looks at replicas that are to end or to begin anew, growing
REPEAT = 3.0  # seconds until a replica is told a second time
RENEWAL = 30.0  # seconds that a replica may take to begin anew, until the next one does

RUNNING, STOPPED, WAIT = states.RUNNING.encode(), states.STOPPED.encode(), states.WAIT.encode()
PARKED = frozenset(state.encode() for state in states.PARKED)


class Superseded(Exception):
    """Somebody wants the service to be looked at anew, or another node has taken it."""


class Broken(Exception):
    """The definition says nothing that could be done; the text says why."""


class Replication:
    """One look at one service. `hold` keeps it for this node; it raises Superseded."""

    def __init__(self, helpers: Any, name: bytes, hold: Callable[[], None]) -> None:
        self.helpers = helpers
        self.store = helpers.store
        self.services = helpers.store.services
        self.name = name
        self.hold = hold

    def run(self) -> float | None:
        """Do what is to be done; returns the seconds until the next look, None where there is nothing to look at.

        Raises Broken, Superseded and StoreError.
        """
        try:
            fields, applied = self.services.get(self.name)
            if not fields:
                return self._dismiss(applied)
            definition = read_definition(self.name, fields, self.helpers.max_data)
        except InvalidInputError as error:
            raise Broken(str(error)) from None
        except StoreRefused as error:
            if is_wrong_type(error):
                raise Broken("its key is no hash") from None
            raise
        if _is_done(definition, applied):
            self._fill_gaps(definition)
            return self._pause_after(definition)
        return self._apply(definition)

    def _pause_after(self, definition: Definition) -> float:
        one = self.store.client.servers.one
        return LOOK if one else max(LOOK, definition.replicas / LOOK_RATE)

    def _apply(self, definition: Definition) -> float:
        plan = self.services.take_up(self.name, definition.digest, definition.replicas)
        points.reach("after-take-up")
        before = min(plan.replicas or 0, definition.replicas)
        self._equip(definition, plan, range(before))
        for numbers in batches(range(before, definition.replicas)):
            self._add(definition, plan, numbers)
            points.reach("after-replicas")
        self.services.tell_count(self.name, plan.revision, definition.replicas)
        if plan.replicas != definition.replicas:
            self._note(plan, replicas=definition.replicas)
        if not self._remove(range(definition.replicas, plan.made), definition.queue):
            return SOON
        if plan.rolling:
            self._roll(definition, plan)
        self._note(plan, made=definition.replicas, rolling="")
        return self._pause_after(definition)

    def _note(self, plan: Plan, **fields: Any) -> None:
        if not self.services.note_applied(self.name, plan.revision, fields):
            self.services.tell_count(self.name, plan.revision, None)  # the service may be gone since it was told
            raise Superseded

    def _ids(self, numbers: Sequence[int]) -> list[bytes]:
        name = self.name.decode()
        return [id_of_replica(name, number) for number in numbers]

    # Records.

    def _equip(self, definition: Definition, plan: Plan, numbers: Sequence[int]) -> None:
        """Let the records that there are say what the definition says; those that wait begin with that."""
        changes = definition.changes()
        for batch in batches(numbers):
            self.hold()
            self.services.equip(self.name, self._ids(batch), plan.revision, changes, anew=plan.rolling)

    def _add(self, definition: Definition, plan: Plan, numbers: Sequence[int]) -> None:
        """Make replicas and push them. Those that were wanted no more, and still are there, are wanted again."""
        self.hold()
        ids, now = self._ids(numbers), time.time()
        rows = [definition.record_of(number, plan.revision, now) for number in numbers]
        made = self.store.records.create(list(zip(ids, rows, strict=True)))
        points.reach("after-create")
        old = [task_id for task_id, is_new in zip(ids, made, strict=True) if not is_new]
        new = [task_id for task_id, is_new in zip(ids, made, strict=True) if is_new]
        if old:
            standings = self.services.equip(self.name, old, plan.revision, definition.changes(), anew=True)
            new += self._want_again(old, standings, plan)
        if new:
            self.store.queues.push(definition.queue, new)

    def _want_again(self, ids: Sequence[bytes], standings: Sequence[Standing], plan: Plan) -> list[bytes]:
        """Of records that there were: those to be pushed."""
        strange = [i for i, standing in zip(ids, standings, strict=True) if not standing.state]
        if strange and self.store.records.are_there(strange[:1]):  # else it was removed a moment ago
            log.error(
                "service %s: there is another record under the id %s: remove it",
                wire.shown(self.name),
                wire.shown(strange[0]),
            )
        ours = [(i, standing) for i, standing in zip(ids, standings, strict=True) if standing.state]
        over = [i for i, standing in ours if _is_over(standing, plan)]
        self.store.records.restart_each(over, "", ())
        return over + [i for i, standing in ours if standing.state == WAIT and i not in over]

    def _fill_gaps(self, definition: Definition) -> None:
        """Make replicas again whose records somebody has removed."""
        for numbers in batches(range(definition.replicas)):
            self.hold()
            ids = self._ids(numbers)
            if self.store.records.are_there(ids):
                continue
            _, applied = self.services.get(self.name)
            revision, now = int(applied.get(b"revision", b"0")), time.time()
            rows = [definition.record_of(number, revision, now) for number in numbers]
            made = self.store.records.create(list(zip(ids, rows, strict=True)))
            gaps = [task_id for task_id, is_new in zip(ids, made, strict=True) if is_new]
            if gaps:
                log.warning("service %s: %d records were gone and are made again", self.name.decode(), len(gaps))
                self.store.queues.push(definition.queue, gaps)

    # Fewer replicas, or none.

    def _dismiss(self, applied: dict[bytes, bytes]) -> float | None:
        """There is no definition any more."""
        if not applied:
            return None
        plan = self.services.take_up(self.name, applied.get(b"digest", b"").decode(), 0)
        self.services.tell_count(self.name, plan.revision, None)
        self._note(plan, replicas=0)  # whoever defines it anew meanwhile wants all of them again
        if not self._remove(range(plan.made), ""):
            return SOON
        all_fields = (*applied, b"replicas", b"wanted", b"revision")  # some were written since it was read
        self._note(plan, **{field.decode(): "" for field in all_fields})
        log.info("service %s is removed", wire.shown(self.name))
        return None

    def _remove(self, numbers: Sequence[int], queue: str) -> bool:
        """Stop replicas and remove their records; False where some have not ended yet."""
        left = list(numbers)
        end, told, nap = time.monotonic() + PATIENCE, 0.0, NAPS[0]
        while left:
            if time.monotonic() - told > REPEAT:
                self._stop(left)
                points.reach("after-stops")
                told = time.monotonic()
            left = [number for batch in batches(left) for number in self._discharge(batch, queue)]
            if left and time.monotonic() > end:
                return False
            if left:
                time.sleep(nap)
                nap = min(2 * nap, NAPS[1])
        return True

    def _stop(self, numbers: Sequence[int]) -> None:
        for batch in batches(numbers):
            self.hold()
            ids = self._ids(batch)
            standings = self.services.get_standings(self.name, ids)
            ours = [
                i
                for i, standing in zip(ids, standings, strict=True)
                if standing.state and standing.state not in states.CLOSED_RAW
            ]
            self.helpers.stop_each(ours)

    def _discharge(self, numbers: Sequence[int], queue: str) -> list[int]:
        """Remove those that have ended and that no node owns; returns the others."""
        self.hold()
        ids = self._ids(numbers)
        owned = self._find_owned(ids, queue)
        gone = self.services.discharge(self.name, [(i, i in owned) for i in ids])
        return [number for number, is_gone in zip(numbers, gone, strict=True) if not is_gone]

    def _find_owned(self, ids: Sequence[bytes], queue: str) -> set[bytes]:
        homes: dict[str, list[bytes]] = defaultdict(list)
        for task_id, standing in zip(ids, self.services.get_standings(self.name, ids), strict=True):
            ran_in = self.store.keys.queue_of_key(standing.at)
            homes[queue if ran_in is None else ran_in].append(task_id)
        return {
            task_id
            for home, mine in homes.items()
            for task_id, is_owned in zip(mine, self.services.get_owned(home, mine), strict=True)
            if is_owned
        }

    # New content, one replica after the other.

    def _roll(self, definition: Definition, plan: Plan) -> None:
        for batch in batches(range(definition.replicas)):
            standings = self.services.get_standings(self.name, self._ids(batch))
            for number, standing in zip(batch, standings, strict=True):
                if not self._is_anew(standing, plan):
                    self._renew(number, definition, plan)

    def _is_anew(self, standing: Standing, plan: Plan) -> bool:
        """Does it run what the definition says?"""
        return standing.state == RUNNING and _uses(standing, plan)

    def _renew(self, number: int, definition: Definition, plan: Plan) -> None:
        """Let one replica begin anew, and wait until it has."""
        task_id, key = definition.id_of(number), self.store.keys.queue(definition.queue).key
        end, told, nap = time.monotonic() + RENEWAL, 0.0, NAPS[0]
        while time.monotonic() < end:
            self.hold()
            (standing,) = self.services.get_standings(self.name, [task_id])
            if self._is_anew(standing, plan) and standing.at == key:
                return
            if standing.state != RUNNING:
                self._begin_anew(task_id, standing, definition)
                return
            if time.monotonic() - told > REPEAT:
                self._tell(task_id, standing, key)
                told = time.monotonic()
            time.sleep(nap)
            nap = min(2 * nap, NAPS[1])
        log.warning("%s has not begun anew in %g s; the others go on", wire.shown(task_id), RENEWAL)

    def _tell(self, task_id: bytes, standing: Standing, key: bytes) -> None:
        if standing.at == key:
            self.store.records.control(task_id, "reload")
        else:  # it is to run in another queue
            self.helpers.stop_each([task_id])

    def _begin_anew(self, task_id: bytes, standing: Standing, definition: Definition) -> None:
        """One that does not run: it begins now, also where it was stopped, or had ended."""
        if standing.state in states.CLOSED_RAW:
            self.store.records.restart(task_id, ())
        elif standing.state in PARKED:
            at = self.store.keys.queue_of_key(standing.at)
            self.store.claims(definition.queue if at is None else at).nudge(task_id)
        if standing.state:
            self.store.queues.push(definition.queue, [task_id])


def _is_over(standing: Standing, plan: Plan) -> bool:
    """Is it to be started again where it is wanted? What has ended by itself with this very content is done."""
    if standing.is_stopping or standing.state == STOPPED:
        return True
    return standing.state in states.CLOSED_RAW and not _uses(standing, plan)


def _uses(standing: Standing, plan: Plan) -> bool:
    """Did its last run read what the definition says?"""
    return standing.uses.isdigit() and int(standing.uses) >= plan.content


def _is_done(definition: Definition, applied: dict[bytes, bytes]) -> bool:
    """Has everything been done that the definition asks for?"""
    count = str(definition.replicas).encode()
    said = [applied.get(field) for field in (b"wanted", b"replicas", b"made")]
    return (
        applied.get(b"digest") == definition.digest.encode() and said == [count] * 3 and b"rolling" not in applied
    )
