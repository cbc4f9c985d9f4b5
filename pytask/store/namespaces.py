"""The keys of whole namespaces, found by SCAN, and their removal."""

from __future__ import annotations

from collections.abc import Iterator

from pytask.keys import Keys
from pytask.ownership import Owned, find_owner
from pytask.store.client import Client

CHUNK = 1000  # keys a reply
RECORD = "<ns>task-<id>"
MARKS = ("task", "fence")  # what a record has of a task that anybody made, or a node has begun


class Namespaces:
    """All namespaces of the servers, whatever the own one is."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def iter_owned(self, namespace: str | None = None) -> Iterator[list[tuple[bytes, Owned]]]:
        """The keys of a namespace (None: of all), batch by batch, each with its row; one may come twice."""
        pattern = b"*" if not namespace else b"*" + Keys(namespace).prefix + b"*"
        for keys in self.client.iter_keys(pattern, CHUNK):
            rows = [(key, found) for key in keys if (found := find_owner(key)) is not None]
            yield [(key, found) for key, found in rows if namespace is None or found.namespace == namespace]

    def remove(self, rows: list[tuple[bytes, Owned]]) -> int:
        """Remove those of these keys that are of the type which the table says; how many those were.

        In no namespace a hash `task-...` may be anybody's: there it goes only where it is a record of a task.
        """
        if not rows:
            return 0
        types = self.client.pipeline([("TYPE", key) for key, _ in rows])
        ours = [row for row, kind in zip(rows, types, strict=True) if kind == row[1].row.type.encode()]
        doubtful = [key for key, found in ours if not found.namespace and found.row.pattern == RECORD]
        strange = set(self._without_marks(doubtful))
        gone = [("UNLINK", key) for key, _ in ours if key not in strange]
        return sum(self.client.pipeline(gone)) if gone else 0

    def _without_marks(self, keys: list[bytes]) -> list[bytes]:
        found = self.client.pipeline([("HMGET", key, *MARKS) for key in keys]) if keys else []
        return [key for key, marks in zip(keys, found, strict=True) if not any(marks)]
