"""Purging a queue: what waits in it is set aside at once, then removed in batches, with its records.

Ids that are set aside stand in the list `{q}:purged`: the sweep knows it, and a purge that was interrupted is
carried on by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytask.keys import Keys
from pytask.store.client import Client

MOVE_MOST = 5000  # ids a call, where they cannot be moved at once: a few milliseconds of the server
BATCH = 250  # ids


class Purge:
    """The purge of one queue."""

    def __init__(self, client: Client, keys: Keys, queue: str) -> None:
        self.client = client
        self.all = keys
        self.keys = keys.queue(queue)

    def set_aside(self, *, scheduled: bool = False) -> int:
        """Take out what waits in the queue, and what waits for a time; how many ids are to be purged now."""
        k = self.keys
        waiting, due = self.client.pipeline([("LLEN", k.key), ("ZCARD", k.due)])
        left = (waiting + due) // MOVE_MOST + 1  # producers may push faster than this
        while True:
            more, count = self.client.call(
                "set_aside", (k.key, k.purged, k.due), (MOVE_MOST, "1" if scheduled else "")
            )
            left -= 1
            if not more or left <= 0:
                return int(count)

    def remove_some(self) -> tuple[int, int] | None:
        """Remove a batch: how many ids are done with, and how many tasks are gone; None where none is left."""
        k = self.keys
        ids: list[bytes] = list(reversed(self.client.execute("LRANGE", k.purged, -BATCH, -1)))
        if not ids:
            return None
        claims, dues = self.client.pipeline([("HMGET", k.claims, *ids), ("ZMSCORE", k.due, *ids)])
        free = [(i, due) for i, claim, due in zip(ids, claims, dues, strict=True) if not _is_owned(claim)]
        flags = [b"" if due is None else b"1" for _, due in free]
        tasks = [self.all.task(i) for i, _ in free]
        streams = [self.all.events(i) or self.all.task(i) for i, _ in free]
        answers = self.client.call_each("purge", tasks, (), flags, 1, beside=streams) if free else []
        verdicts = dict(zip((i for i, _ in free), answers, strict=True))
        lost = {i for i, claim in zip(ids, claims, strict=True) if claim and claim.startswith(b"-lost")}
        done = self._drop(ids, {i for i in lost if verdicts.get(i) == b"open"})
        return done, sum(verdict == b"purged" for verdict in verdicts.values())

    def _drop(self, ids: Sequence[bytes], back: set[bytes]) -> int:
        """Forget ids; those that a dead node had begun go back to the head of the queue."""
        k = self.keys
        args: list[object] = []
        for task_id in ids:
            args += (task_id, "1" if task_id in back else "")
        return int(self.client.call("drop_purged", (k.key, k.purged, k.claims), args))


def _is_owned(claim: bytes | None) -> bool:
    return claim is not None and not claim.startswith(b"-")
