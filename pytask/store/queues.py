"""Putting ids into queues, and reading what waits: what producers and lists need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pytask import states
from pytask.errors import StoreUnavailable
from pytask.keys import Keys
from pytask.store.client import Client, as_dict
from pytask.wire import encode_time

SCAN_COUNT = 1000  # keys a reply


class NewRecord(NamedTuple):
    """A record that is to be written. One with a `new` id says WAIT: the sweep finds it if its push gets lost."""

    id: bytes
    words: Sequence[Any]  # field, value, field, value, ...
    new: bool  # surely
    written: bool = False  # all but its state, which may be another one by now


class Figures(NamedTuple):
    """How a queue stands: numbers of ids, and of those that ended so far by state.

    `running`: owned by nodes. `purging`: set aside by a purge. `paused`: since when; None where it is not.
    """

    waiting: int
    running: int
    due: int
    dead: int
    purging: int
    nodes: int
    paused: bytes | None
    ended: dict[bytes, bytes]


class Queues:
    """All queues of one namespace, by name."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    def create(
        self,
        records: Sequence[NewRecord],
        queue: str = "",
        meanwhile: Callable[[], None] | None = None,
        *,
        first: bool = False,
    ) -> None:
        """Write records and push their ids, in one round trip or two; safe to repeat.

        `meanwhile` may be called, once, while the server works. `first`: before all that wait.
        """
        push = push_of(self.keys, records, queue, first=first)
        if self.client.servers.one:
            try:
                self.client.pipeline([*writes_of(self.keys, records), push], patience=0, meanwhile=meanwhile)
                return
            except StoreUnavailable:
                # the push may have arrived: a record whose task runs by now, or has ended, must not be set to WAIT
                records = [record._replace(new=False) for record in records]
        self.client.sequence(writes_of(self.keys, records), [push])

    def write(self, records: Sequence[NewRecord]) -> None:
        """Write records without a state, which nobody looks for."""
        if records:
            self.client.pipeline([("HSET", self.keys.task(each.id), *each.words) for each in records])

    def remove(self, ids: Sequence[bytes]) -> None:
        """Remove records that were never pushed."""
        if ids:
            self.client.pipeline([("DEL", self.keys.task(task_id)) for task_id in ids])

    def push(self, queue: str, ids: Sequence[bytes], *, first: bool = False) -> None:
        """Push ids; `first` before all that wait."""
        self.push_to_key(self.keys.queue(queue).key, ids, first=first)

    def push_to_key(self, key: bytes, ids: Sequence[bytes], *, first: bool = False) -> None:
        """Push ids to the queue with this key (as a record's `at` names it)."""
        self.client.execute("RPUSH" if first else "LPUSH", key, *ids)

    def get_waiting(self, queue: str, most: int) -> list[bytes]:
        """Ids that wait, the next one first; at most so many."""
        if most <= 0:
            return []
        ids = self.client.execute("LRANGE", self.keys.queue(queue).key, -most, -1)
        return list(reversed(ids))

    def get_claimed(self, queue: str) -> dict[bytes, bytes]:
        """Ids that a node owns now: id -> `<node> <fence>`."""
        claims = as_dict(self.client.execute("HGETALL", self.keys.queue(queue).claims))
        return {task_id: owner for task_id, owner in claims.items() if not owner.startswith(b"-")}

    def get_dead(self, queue: str, most: int) -> list[bytes]:
        """Ids that could not be worked on, the newest first."""
        return list(self.client.execute("LRANGE", self.keys.queue(queue).dead, 0, most - 1))

    def pause(self, queue: str, now: float) -> None:
        """From now on nothing of the queue starts, on any node; `now` is kept for lists. Safe to repeat."""
        self.client.execute("SET", self.keys.queue(queue).paused, encode_time(now))

    def resume(self, queue: str) -> bool:
        """Let nodes take from the queue again; False where it was not paused."""
        return bool(self.client.execute("DEL", self.keys.queue(queue).paused))

    def requeue_dead(self, queue: str, ids: Sequence[bytes] = (), most: int = 0) -> int:
        """Push dead ids again: these, or so many of the oldest; how many went."""
        k = self.keys.queue(queue)
        return int(self.client.call("requeue_dead", (k.key, k.dead, k.missing), (most, *ids)))

    def drop_dead(self, queue: str, ids: Sequence[bytes]) -> int:
        """Take ids off the dead list; how many stood there."""
        dead = self.keys.queue(queue).dead
        return sum(map(bool, self.client.pipeline([("LREM", dead, 0, task_id) for task_id in ids])))

    def drop_oldest_dead(self, queue: str, most: int) -> int:
        """Take the oldest ids off the dead list; how many those were."""
        return len(self.client.execute("RPOP", self.keys.queue(queue).dead, most) or ())

    def count_dead(self, queue: str) -> int:
        """How many ids are dead."""
        return int(self.client.execute("LLEN", self.keys.queue(queue).dead))

    # Looking.

    def find(self) -> set[str]:
        """The names of all queues of which there is any key. Asks for every key of the servers (SCAN)."""
        found: set[str] = set()
        for keys in self.client.iter_keys(b"*" + self.keys.queue().key + b"*", SCAN_COUNT):
            names = {self.keys.queue_of_key(key.removeprefix(b"{").partition(b"}")[0]) for key in keys}
            found |= {name for name in names if name is not None}
        return found

    def get_figures(self, queue: str) -> Figures:
        """How a queue stands. Raises StoreRefused where one of its keys is of another type."""
        k = self.keys.queue(queue)
        *numbers, nodes, paused, counts = self.client.pipeline(
            [
                ("LLEN", k.key),
                ("ZCARD", k.due),
                ("LLEN", k.dead),
                ("LLEN", k.purged),
                ("HKEYS", k.nodes),
                ("GET", k.paused),
                ("HGETALL", k.counts),
            ]
        )
        waiting, due, dead, purging = numbers
        known = {node.removeprefix(b"-") for node in nodes}
        running = sum(self.client.pipeline([("HLEN", k.claims_of(node)) for node in known])) if known else 0
        return Figures(waiting, running, due, dead, purging, len(nodes), paused, as_dict(counts))

    def iter_open(self, queue: str) -> Iterator[list[bytes]]:
        """Ids that wait, are parked or are owned by nodes, batch by batch; one may come several times.

        One that is parked while this looks comes nevertheless.
        """
        k = self.keys.queue(queue)
        yield from self._iter_parked(k.due)
        nodes = self.client.execute("HKEYS", k.nodes)
        for key in (*map(k.inbox, nodes), k.key):
            start = 0  # the end where producers push: what moves meanwhile may come twice, but is not passed over
            while ids := self.client.execute("LRANGE", key, start, start + SCAN_COUNT - 1):
                yield ids
                start += len(ids)
        for claims in self._iter_scan("HSCAN", k.claims):
            yield [task_id for task_id, owner in claims if not owner.startswith(b"-")]
        yield from self._iter_parked(k.due)

    def _iter_parked(self, key: bytes) -> Iterator[list[bytes]]:
        for rows in self._iter_scan("ZSCAN", key):
            yield [task_id for task_id, _ in rows]

    def _iter_scan(self, command: str, key: bytes) -> Iterator[list[tuple[bytes, Any]]]:
        """The pairs of a hash or a sorted set, batch by batch."""
        cursor: int | bytes = 0
        while True:
            cursor, reply = self.client.execute(command, key, cursor, "COUNT", SCAN_COUNT)
            words = iter(reply)
            yield list(reply.items()) if isinstance(reply, dict) else list(zip(words, words, strict=True))
            if int(cursor) == 0:
                return

    def count_open(self, queue: str) -> int:
        """How many ids wait, are parked or are owned, about."""
        k = self.keys.queue(queue)
        return sum(self.client.pipeline([("LLEN", k.key), ("ZCARD", k.due), ("HLEN", k.claims)]))

    def forget_ended(self, queue: str, ids: Sequence[bytes]) -> None:
        """These have not ended any more: they were restarted."""
        self.client.execute("ZREM", self.keys.queue(queue).ended, *ids)

    def take_out(self, queue: str, task_id: bytes) -> None:
        """Let an id wait no more, in its turn or for a time: its record is about to go. Safe to repeat."""
        k = self.keys.queue(queue)
        self.client.pipeline([("LREM", k.key, 0, task_id), ("ZREM", k.due, task_id)])

    def count_ended(self, queue: str) -> int:
        """How many ended ids the queue remembers."""
        return int(self.client.execute("ZCARD", self.keys.queue(queue).ended))

    def get_oldest_ended(self, queue: str, most: int, offset: int) -> list[bytes]:
        """Ids that ended, the oldest first, without the first `offset`."""
        return list(self.client.execute("ZRANGE", self.keys.queue(queue).ended, offset, offset + most - 1))

    def get_ended(self, queue: str, most: int, offset: int) -> list[tuple[bytes, float]]:
        """Ids that ended, and when, the newest first, without the first `offset`."""
        if most <= 0:
            return []
        ended = self.keys.queue(queue).ended
        words = iter(self.client.execute("ZREVRANGE", ended, offset, offset + most - 1, "WITHSCORES"))
        return [(task_id, float(score)) for task_id, score in zip(words, words, strict=True)]

    def get_length(self, queue: str) -> int:
        """How many ids wait."""
        return int(self.client.execute("LLEN", self.keys.queue(queue).key))


def push_of(keys: Keys, records: Sequence[NewRecord], queue: str, *, first: bool) -> tuple[Any, ...]:
    """The command that pushes records, so that they start in this order."""
    ids = [record.id for record in records]
    return ("RPUSH" if first else "LPUSH", keys.queue(queue).key, *(reversed(ids) if first else ids))


def writes_of(keys: Keys, records: Sequence[NewRecord]) -> list[tuple[Any, ...]]:
    """The commands that write records, or what is left of that."""
    task = keys.task
    return [
        ("HSETNX", task(task_id), "state", states.WAIT)
        if written
        else ("HSET", task(task_id), *words, "state", states.WAIT)
        if new
        else ("HSET", task(task_id), *words)
        for task_id, words, new, written in records
    ]
