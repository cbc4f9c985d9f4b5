"""Putting ids into queues, and reading what waits: what producers and lists need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from pytask.errors import StoreUnavailable
from pytask.keys import Keys
from pytask.store.client import Client, as_dict


class Queues:
    """All queues of one namespace, by name."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    def create(self, rows: Sequence[tuple[bytes, Mapping[str, Any]]], queue: str = "") -> None:
        """Write the records (id, fields) and push their ids, in one round trip or two; safe to repeat."""
        push = ("LPUSH", self.keys.queue(queue).key, *[row[0] for row in rows])
        if self.client.servers.one:
            try:
                self.client.pipeline([*self._records(rows), push], patience=0)
                return
            except StoreUnavailable:
                # the push may have arrived: a record whose task runs by now, or has ended, must not be set to WAIT
                rows = [(row[0], {name: row[1][name] for name in row[1] if name != "state"}) for row in rows]
        self.client.sequence(self._records(rows), [push])

    def _records(self, rows: Sequence[tuple[bytes, Mapping[str, Any]]]) -> list[tuple[Any, ...]]:
        return [("HSET", self.keys.task(row[0]), *chain.from_iterable(row[1].items())) for row in rows]

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
