"""The keys of whole namespaces, found by SCAN, and their removal."""

from __future__ import annotations

from collections.abc import Iterator

from pytask.keys import Keys
from pytask.ownership import Owned, find_owner
from pytask.store.client import Client

CHUNK = 1000  # keys a reply


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
        """Remove those of these keys that are of the type which the table says; how many those were."""
        if not rows:
            return 0
        types = self.client.pipeline([("TYPE", key) for key, _ in rows])
        ours = [key for (key, found), kind in zip(rows, types, strict=True) if kind == found.row.type.encode()]
        return sum(self.client.pipeline([("UNLINK", key) for key in ours])) if ours else 0
