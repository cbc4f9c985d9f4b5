"""Putting ids into queues, and reading what waits: what producers and lists need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pytask import states
from pytask.errors import StoreUnavailable
from pytask.keys import Keys
from pytask.store.client import Client, as_dict


class NewRecord(NamedTuple):
    """A record that is to be written. One with a `new` id says WAIT: the sweep finds it if its push gets lost."""

    id: bytes
    words: Sequence[Any]  # field, value, field, value, ...
    new: bool  # surely


class Queues:
    """All queues of one namespace, by name."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    def create(
        self, records: Sequence[NewRecord], queue: str = "", meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Write records and push their ids, in one round trip or two; safe to repeat.

        `meanwhile` may be called, once, while the server works.
        """
        push = ("LPUSH", self.keys.queue(queue).key, *[record.id for record in records])
        if self.client.servers.one:
            try:
                self.client.pipeline([*self._writes(records), push], patience=0, meanwhile=meanwhile)
                return
            except StoreUnavailable:
                # the push may have arrived: a record whose task runs by now, or has ended, must not be set to WAIT
                records = [record._replace(new=False) for record in records]
        self.client.sequence(self._writes(records), [push])

    def _writes(self, records: Sequence[NewRecord]) -> list[tuple[Any, ...]]:
        task = self.keys.task
        return [
            ("HSET", task(task_id), *words, "state", states.WAIT) if new else ("HSET", task(task_id), *words)
            for task_id, words, new in records
        ]

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

    def get_length(self, queue: str) -> int:
        """How many ids wait."""
        return int(self.client.execute("LLEN", self.keys.queue(queue).key))
