"""One pass of the sweep: what it takes for lost, and what it puts back. It knows no clock and does not sleep.

Every move leaves an id in a structure, so that no crash of a node loses one. What can lose one is the server: a
failover to a replica takes the last writes of one slot back, but not those of another; a server that is replaced
by an empty one loses whole slots; and people and evictions delete keys. What is left then, and what is done:

- A record that is WAIT, SCHEDULED, RETRY or RUNNING, and in no queue, inbox, `claims` or `due` of any queue: the
  queue's slot has lost the push, the claim, or the time, or the record's slot has lost the end of the run. Back
  into its queue; parked, where its `due` is to come.
- A record without a state, in none of them: whether it was ever pushed nobody knows. Counted, and told.
- An entry in `claims` whose node is unknown (`nodes` was lost, the node came back under a new id): back, as lost.
- A mark in `claims` whose id is not in the queue (the queue was lost or deleted): back. `promote` would pass over
  it for ever.
- `of:<node>` of an unknown node: its ids back, the key deleted.
- The inbox of an unknown node (filled after its end; the Monitor that would have looked again has died): back.
- The ids that an unknown Cleanup had taken: back into `end-task`.

A node that is in `nodes` is a Monitor's to judge; one that is being reaped is taken care of. Whatever was seen
must be seen again, the same, a while later, before anything is done: a run whose claim was lost takes it again by
itself within a few beats. What stands in a queue is read once a look, into a filter, since searching a long list
for each id would hold the server up. To be mistaken does no harm: a push starts what waits and nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pytask import points, states
from pytask.errors import StoreRefused
from pytask.store.store import Store
from pytask.store.sweep import CHUNK, Found, Record, Rescue
from pytask.tasks.places import Filter, Place, is_mark

T = TypeVar("T")

BATCH = 250  # records a script call
MOST_SUSPECTS = 100_000  # a pass; the others wait for the next one
MOST_QUEUES = 256  # found by SCAN: anybody can push to any name
MOST_PLACES = 1000  # remembered at a time; records may name any queue
PARKED = frozenset(state.encode() for state in states.PARKED)


@dataclass(slots=True)
class Suspects:
    """What was seen in no structure once, or twice."""

    records: dict[bytes, Record] = field(default_factory=dict)
    unpushed: dict[bytes, Record] = field(default_factory=dict)
    claims: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    owners: set[tuple[str, bytes]] = field(default_factory=set)
    inboxes: set[tuple[str, bytes]] = field(default_factory=set)
    takers: set[bytes] = field(default_factory=set)

    def __len__(self) -> int:
        nodes = len(self.owners) + len(self.inboxes) + len(self.takers)
        return len(self.records) + len(self.unpushed) + len(self.claims) + nodes


@dataclass(slots=True)
class Report:
    """What a pass found and did. Numbers of ids, but for `seen` (records) and `queues`.

    `more`: there were more suspects than a pass takes. `refused`: queues that could not be read, with the reason.
    """

    seen: int = 0
    queues: int = 0
    pushed: int = 0
    parked: int = 0
    claims: int = 0
    inboxes: int = 0
    endings: int = 0
    unpushed: int = 0
    more: bool = False
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def repaired(self) -> int:
        """How many ids were put back."""
        return self.pushed + self.parked + self.claims + self.inboxes + self.endings

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return asdict(self)


class Sweeping:
    """One pass over a namespace.

    `queues`: names of queues that are looked at even where SCAN does not find them. `pace` is called with how much
    work was just done, in records, and may sleep, or raise to give the pass up. With `dry_run` nothing is put
    back, and the report says what would be.
    """

    def __init__(
        self,
        store: Store,
        queues: Iterable[str],
        *,
        pace: Callable[[int], None],
        salt: int = 0,
        dry_run: bool = False,
    ) -> None:
        self.store = store
        self.traces = store.traces
        self.queues = set(queues)
        self.pace = pace
        self.salt = salt
        self.dry_run = dry_run
        self.report = Report()
        self._places: dict[str, Place | None] = {}
        self._owned: list[Filter] = []

    def run(self, pause: Callable[[], None]) -> Report:
        """Look, call `pause`, look again, put back what was seen twice. Raises StoreUnavailable, StoreRefused."""
        first = self.look_everywhere()
        if len(first):
            pause()
            self.put_back(self.look_again(first))
        self.report.queues = len(self.queues)
        return self.report

    # Looking.

    def look_everywhere(self) -> Suspects:
        """The first look: at every key."""
        self._places.clear()
        suspects, left = Suspects(), Found()
        self._owned = self._read_owned()
        for found in self.traces.iter_found():
            self.pace(CHUNK // 5)
            self._note_queues(found.queues)
            left.owners |= found.owners
            left.inboxes |= found.inboxes
            left.takers |= found.takers
            self.report.seen += len(found.ids)
            for ids in _batches(self._drop_owned(found.ids), BATCH):
                self._look_at(ids, suspects)
        for queue in sorted(self.queues):
            for entries in self._iter_claims(queue):
                self._note_loose(queue, entries, suspects)
        self._judge_nodes(left, suspects)
        return suspects

    def look_again(self, first: Suspects) -> Suspects:
        """The second look, at suspects alone: those that are the same still."""
        self._places.clear()
        second = Suspects()
        for ids in _batches([*first.records, *first.unpushed], BATCH):
            self._look_at(ids, second)
        for kind in ("records", "unpushed"):
            before, now = getattr(first, kind), getattr(second, kind)
            setattr(second, kind, {i: record for i, record in now.items() if before.get(i) == record})
        for queue, entries in _by_queue(first.claims).items():
            for ids in _batches(list(entries), CHUNK):
                self._note_loose(queue, {task_id: entries[task_id] for task_id in ids}, second)
        self._judge_nodes(first, second)
        return second

    def _read_owned(self) -> list[Filter]:
        """The ids that nodes own now, of each queue that is known: their records need not be read.

        A run that is lost from here on is found by the next pass.
        """
        found = []
        for queue in sorted(self.queues):
            place = self._place(queue)
            if place is None or not place.nodes:
                continue
            self.salt += 1
            owned, some = Filter(self.traces.count_claims(queue), self.salt), False
            for entries in self._iter_claims(queue):
                ids = [task_id for task_id, claim in entries.items() if place.owns(claim)]
                owned.add(ids)
                some = some or bool(ids)
            found += [owned] if some else []
        return found

    def _drop_owned(self, ids: list[bytes]) -> list[bytes]:
        for owned in self._owned:
            ids = [task_id for task_id in ids if task_id not in owned]
        return ids

    def _note_queues(self, found: set[str]) -> None:
        for queue in found - self.queues:
            if len(self.queues) < MOST_QUEUES:
                self.queues.add(queue)

    def _look_at(self, ids: list[bytes], suspects: Suspects) -> None:
        self.pace(len(ids))
        for task_id, record in self._absent(self.traces.read(ids)).items():
            if not record.state:
                if len(suspects.unpushed) < MOST_SUSPECTS:
                    suspects.unpushed[task_id] = record
            elif self._has_room(suspects.records):
                suspects.records[task_id] = record

    def _has_room(self, suspects: Sized) -> bool:
        if len(suspects) >= MOST_SUSPECTS:
            self.report.more = True
        return len(suspects) < MOST_SUSPECTS

    def _absent(self, records: Mapping[bytes, Record]) -> dict[bytes, Record]:
        """Those records whose ids are in no structure: neither of their own queue nor of another."""
        homes: dict[str, list[bytes]] = defaultdict(list)
        for task_id, record in records.items():
            homes[self.traces.queue_of(record)].append(task_id)
        absent: dict[bytes, Record] = {}
        for home, ids in homes.items():
            left = self._missing(home, ids) or []
            for queue in sorted(self.queues - {home}) if left else ():
                found = self._missing(queue, left)
                left = left if found is None else found
            absent.update((task_id, records[task_id]) for task_id in left)
        return absent

    def _missing(self, queue: str, ids: list[bytes]) -> list[bytes] | None:
        """Those ids that are in no structure of this queue; None where it cannot be read."""
        place = self._place(queue)
        if place is None:
            return None
        left = [task_id for task_id in ids if task_id not in place.listed]
        if not left:
            return left
        found = self._read_places(queue, left)
        if found is None:
            return None
        return [i for i, (claim, parked) in zip(left, found, strict=True) if not parked and not place.owns(claim)]

    def _read_places(self, queue: str, ids: list[bytes]) -> list[tuple[bytes | None, bool]] | None:
        try:
            return self.traces.get_places(queue, ids)
        except StoreRefused as error:
            self._refuse(queue, error)
            return None

    def _place(self, queue: str) -> Place | None:
        """The queue as it was when it was first asked for in this look; None where it cannot be read."""
        if queue not in self._places:
            if len(self._places) >= MOST_PLACES:
                self._places.clear()
            try:
                self._places[queue] = self._read_place(queue)
            except StoreRefused as error:
                self._refuse(queue, error)
        return self._places[queue]

    def _read_place(self, queue: str) -> Place:
        nodes = self.traces.get_nodes(queue)
        self.salt += 1
        place = Place(nodes, Filter(self.traces.get_length(queue), self.salt))
        for ids in self.traces.iter_listed(queue, sorted(nodes)):
            place.listed.add(ids)
            self.pace(len(ids) // 4)
        return place

    def _refuse(self, queue: str, error: StoreRefused) -> None:
        """A key of another type, most likely: the others are swept nevertheless."""
        self._places[queue] = None
        self.report.refused[queue] = str(error)

    def _iter_claims(self, queue: str) -> Iterable[dict[bytes, bytes]]:
        try:
            for entries in self.traces.iter_claims(queue):
                self.pace(len(entries) // 4)
                yield entries
        except StoreRefused as error:
            self._refuse(queue, error)

    def _note_loose(self, queue: str, entries: Mapping[bytes, bytes], suspects: Suspects) -> None:
        """Note the entries of `claims` that no known node owns, and the marks whose ids are not in the queue."""
        place = self._place(queue) if entries else None
        if place is None:
            return
        ids = [i for i, claim in entries.items() if not place.owns(claim) and self._is_loose(i, claim, place)]
        found = self._read_places(queue, ids) if ids else None
        for task_id, (claim, _) in zip(ids, found or (), strict=found is not None):
            if claim == entries[task_id] and self._has_room(suspects.claims):
                suspects.claims[queue, task_id] = claim

    def _is_loose(self, task_id: bytes, claim: bytes, place: Place) -> bool:
        return not is_mark(claim) or task_id not in place.listed

    def _judge_nodes(self, found: Found | Suspects, suspects: Suspects) -> None:
        """Keep what belongs to no node that is known."""
        for kind in ("owners", "inboxes"):
            for queue, node in getattr(found, kind):
                place = self._place(queue)
                if place is not None and node not in place.nodes:
                    getattr(suspects, kind).add((queue, node))
        if found.takers:
            suspects.takers |= found.takers - set(self.store.endings.get_takers())

    # Putting back.

    def put_back(self, suspects: Suspects) -> None:
        """Put back what was seen twice; the report counts it."""
        report = self.report
        report.unpushed += len(suspects.unpushed)
        done = {task_id for _, task_id in suspects.claims}
        for queue, entries in _by_queue(suspects.claims).items():
            report.claims += self._rescue(queue, [Rescue(task_id) for task_id in entries])["pushed"]
        for queue, node in sorted(suspects.owners):
            report.claims += self._disown(queue, node)
        homes: dict[str, list[Rescue]] = defaultdict(list)
        for task_id, record in suspects.records.items():
            if task_id not in done:
                homes[self.traces.queue_of(record)].append(Rescue(task_id, due=_due_of(record)))
        for queue, rows in homes.items():
            answers = self._rescue(queue, rows)
            report.pushed += answers["pushed"]
            report.parked += answers["parked"]
        report.inboxes += sum(self._empty(queue, node) for queue, node in sorted(suspects.inboxes))
        report.endings += sum(map(self._give_back, sorted(suspects.takers)))

    def _rescue(self, queue: str, rows: list[Rescue], owner: bytes | None = None) -> Counter[str]:
        if self.dry_run:
            return Counter("parked" if row.due else "pushed" for row in rows)
        counts: Counter[str] = Counter()
        for batch in _batches(rows, BATCH):
            self.pace(BATCH)
            points.reach("before-rescue")
            counts.update(answer.decode() for answer in self.traces.rescue(queue, batch, owner))
            points.reach("after-rescue")
        return counts

    def _disown(self, queue: str, node: bytes) -> int:
        count = 0
        for entries in self.traces.iter_claims_of(queue, node):
            count += self._rescue(queue, [Rescue(task_id) for task_id in entries], node)["pushed"]
        if not self.dry_run:
            self.traces.disown(queue, node)
        return count

    def _empty(self, queue: str, node: bytes) -> int:
        """Put back what stands in the inbox of a node that is gone."""
        if self.dry_run:
            return self.traces.get_length_of_inbox(queue, node)
        return self.store.membership(queue).empty_inbox(node)

    def _give_back(self, taker: bytes) -> int:
        """Put back what a Cleanup that is gone had taken."""
        if self.dry_run:
            return self.traces.get_length_of_taken(taker)
        return max(self.store.endings.give_back(taker, b""), 0)


def _due_of(record: Record) -> bytes:
    """Until when a record waits, as its field says; empty where it must not wait any more."""
    return record.due if record.state in PARKED and record.control != b"stop" else b""


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _by_queue(claims: Mapping[tuple[str, bytes], bytes]) -> dict[str, dict[bytes, bytes]]:
    found: dict[str, dict[bytes, bytes]] = defaultdict(dict)
    for (queue, task_id), claim in claims.items():
        found[queue][task_id] = claim
    return found
