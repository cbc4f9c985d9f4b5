"""Putting ids into queues, and reading what waits: what producers and lists need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytask.keys import Keys
from pytask.store.client import Client, as_dict


class Queues:
    """All queues of one namespace, by name."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    def create(self, rows: Sequence[tuple[bytes, Mapping[str, Any]]], queue: str = "") -> None:
        """Write the records (id, fields) and push their ids, in one round trip or two; safe to repeat."""
        key = self.keys.queue(queue).key
        records: list[tuple[Any, ...]] = []
        for task_id, fields in rows:
            flat = [part for pair in fields.items() for part in pair]
            records.append(("HSET", self.keys.task(task_id), *flat))
        self.client.sequence(records, [("LPUSH", key, *[row[0] for row in rows])])

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
