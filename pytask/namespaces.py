"""Namespaces: the helpers that find those of a server, and remove one with all its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytask.errors import InvalidInputError, SettingError, TaskStateError
from pytask.names import check_namespace, shown
from pytask.store.store import Store

TASK, NODE = "<ns>task-<id>", "<ns>node-<node>"
MOST_NAMED = 5  # nodes, in a message

Progress = Callable[[int, int], Any]


class NamespaceControl:
    """The helpers for namespaces. They look at every key of the servers: some seconds for each million."""

    store: Store

    def find_namespaces(self) -> dict[str, dict[str, int]]:
        """The namespaces of which there is any key, by name, `''` for none.

        Each is a dict of `keys`, `tasks` (records) and `nodes`: about, where keys come and go meanwhile.
        """
        found: dict[str, dict[str, int]] = {}
        for rows in self.store.namespaces.iter_owned():
            for _, owned in rows:
                counts = found.setdefault(owned.namespace, {"keys": 0, "tasks": 0, "nodes": 0})
                counts["keys"] += 1
                counts["tasks"] += owned.row.pattern == TASK
                counts["nodes"] += owned.row.pattern == NODE
        return dict(sorted(found.items()))

    def delete_namespace(self, name: str, *, force: bool = False, progress: Progress | None = None) -> int:
        """Remove all keys of a namespace, `''` for none; how many those were.

        Only keys that the protocol's table lists, of the type that it says; in no namespace those hashes
        `task-...` alone that are records of tasks (they have a field `task`, or were begun). `progress` is called
        with how many were looked at, and of how many. Raises TaskStateError where nodes of it live, or have died
        in the last half a minute, without `force`; with it they write some keys anew. Raises InvalidInputError for
        no name.
        """
        namespace = _check(name)
        nodes, total = self._look(namespace)
        if nodes and not force:
            named = ", ".join(nodes[:MOST_NAMED]) + (", ..." if len(nodes) > MOST_NAMED else "")
            raise TaskStateError(
                f"nodes of the namespace {shown(namespace)} live: {named}; stop them, or force it"
            )
        done = gone = 0
        for rows in self.store.namespaces.iter_owned(namespace):
            gone += self.store.namespaces.remove(rows)
            done += len(rows)
            if progress and rows:
                progress(done, max(total, done))
        return gone

    def _look(self, namespace: str) -> tuple[list[str], int]:
        """The nodes that have a record, and how many keys there are."""
        nodes, total, prefix = (
            [],
            0,
            NODE.partition("<node>")[0].replace("<ns>", f"{namespace}:" if namespace else ""),
        )
        for rows in self.store.namespaces.iter_owned(namespace):
            total += len(rows)
            nodes += [key.decode("utf-8", "backslashreplace") for key, owned in rows if owned.row.pattern == NODE]
        return sorted({node.removeprefix(prefix) for node in nodes}), total


def _check(name: object) -> str:
    try:
        return check_namespace(name)
    except SettingError as error:
        raise InvalidInputError(str(error)) from None
