"""What the sweep asks of Redis, and how it puts ids back. What it makes of the answers is not decided here.

SCAN is used here alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pytask.keys import Keys, QueueKeys, flaw_of_id
from pytask.store.client import Client

CHUNK = 1000  # ids or entries a reply
NEAR = 500  # ids at each end of a queue that `rescue` looks at
RESCUE_MOST = 100  # ids a call of `rescue`: a few milliseconds of the server


class Record(NamedTuple):
    """What the sweep knows of a record; empty for each field that is absent."""

    state: bytes
    fence: bytes
    at: bytes
    queue: bytes
    due: bytes
    control: bytes


class Rescue(NamedTuple):
    """An id to put back. `due`: until when it waits, or empty."""

    id: bytes
    due: bytes = b""


@dataclass(slots=True)
class Found:
    """What SCAN came across: ids of records, names of queues, and (queue, node) of inboxes and of claims."""

    ids: list[bytes] = field(default_factory=list)
    queues: set[str] = field(default_factory=set)
    inboxes: set[tuple[str, bytes]] = field(default_factory=set)
    owners: set[tuple[str, bytes]] = field(default_factory=set)
    takers: set[bytes] = field(default_factory=set)


class Traces:
    """The sweep's way to the keys of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    # The right to sweep.

    def hold_lease(self, who: bytes, seconds: float) -> bool:
        """Take or keep the right to sweep for so many seconds; False where another one has it. Tried once."""
        return bool(self.client.call("lease", (self.keys.queue().sweep,), (who, int(seconds * 1000)), patience=0))

    def drop_lease(self, who: bytes) -> None:
        """Give the right up."""
        self.client.call("lease", (self.keys.queue().sweep,), (who, 0))

    # Reading.

    def count_keys(self) -> int:
        """How many keys the servers hold, those of others too."""
        return sum(map(int, self.client.execute_everywhere("DBSIZE", masters=True).values()))

    def iter_found(self) -> Iterator[Found]:
        """Every key of the namespace, batch by batch; one may come twice, one that comes and goes not at all."""
        for keys in self.client.iter_keys(b"*" + self.keys.prefix + b"*task*", CHUNK):
            yield self.sort(keys)

    def sort(self, keys: Sequence[bytes]) -> Found:
        """Which keys are ours, and of what kind."""
        found = Found()
        for key in keys:
            self._sort_one(key, found)
        return found

    def _sort_one(self, key: bytes, found: Found) -> None:
        task_id = self.keys.id_of_task(key)
        if task_id is not None:
            if flaw_of_id(task_id) is None:
                found.ids.append(task_id)
            return
        queue = self.keys.queue_of_key(key)
        if queue is not None:
            found.queues.add(queue)
        elif key.startswith(b"{"):
            self._sort_companion(key, found)

    def _sort_companion(self, key: bytes, found: Found) -> None:
        tag, _, rest = key[1:].partition(b"}:")
        kind, _, node = rest.partition(b":")
        queue = self.keys.queue_of_key(tag)
        if queue is not None:
            found.queues.add(queue)
            if kind == b"inbox" and node:
                found.inboxes.add((queue, node))
            elif kind == b"of" and node:
                found.owners.add((queue, node))
        elif tag == self.keys.end and kind == b"of" and node:
            found.takers.add(node)

    def read(self, ids: Sequence[bytes]) -> dict[bytes, Record]:
        """The records of those ids that are open; the others are left out."""
        rows = self.client.call_each("look", [self.keys.task(task_id) for task_id in ids], (), (), 0)
        return {task_id: Record(*row) for task_id, row in zip(ids, rows, strict=True) if row}

    def queue_of(self, record: Record) -> str:
        """Where the id belongs: the queue that ran it, else the one its field names, else the default one."""
        keys = self.keys
        ran_in = keys.queue_of_key(record.at)
        return ran_in if ran_in is not None else keys.queue_of_key(keys.queue().key + b":" + record.queue) or ""

    def get_nodes(self, queue: str) -> set[bytes]:
        """The nodes that serve a queue, and those that are being reaped."""
        return {node.removeprefix(b"-") for node in self.client.execute("HKEYS", self.keys.queue(queue).nodes)}

    def get_length(self, queue: str) -> int:
        """How many ids wait in a queue."""
        return int(self.client.execute("LLEN", self.keys.queue(queue).key))

    def count_claims(self, queue: str) -> int:
        """How many entries `claims` has."""
        return int(self.client.execute("HLEN", self.keys.queue(queue).claims))

    def get_length_of_inbox(self, queue: str, node: bytes) -> int:
        """How many ids stand in the inbox of a node."""
        return int(self.client.execute("LLEN", self.keys.queue(queue).inbox(node)))

    def get_length_of_taken(self, taker: bytes) -> int:
        """How many ended ids a Cleanup has taken."""
        return int(self.client.execute("LLEN", self.keys.end_of(taker)))

    def iter_listed(self, queue: str, nodes: Sequence[bytes]) -> Iterator[list[bytes]]:
        """The ids in a queue, in the inboxes of nodes, and among those that are being purged.

        From the end where producers push: what moves meanwhile may come twice, but is not passed over.
        """
        keys = self.keys.queue(queue)
        for key in (*map(keys.inbox, nodes), keys.key, keys.purged):
            start = 0
            while ids := self.client.execute("LRANGE", key, start, start + CHUNK - 1):
                yield ids
                start += len(ids)

    def get_places(self, queue: str, ids: Sequence[bytes]) -> list[tuple[bytes | None, bool]]:
        """For each id: its entry in `claims`, and whether it is parked."""
        keys = self.keys.queue(queue)
        claims, dues = self.client.pipeline([("HMGET", keys.claims, *ids), ("ZMSCORE", keys.due, *ids)])
        return [(claim, due is not None) for claim, due in zip(claims, dues, strict=True)]

    def iter_claims(self, queue: str) -> Iterator[dict[bytes, bytes]]:
        """All entries of `claims`, batch by batch."""
        return self._iter_hash(self.keys.queue(queue).claims)

    def iter_claims_of(self, queue: str, node: bytes) -> Iterator[dict[bytes, bytes]]:
        """All entries of `of:<node>`, batch by batch."""
        return self._iter_hash(self.keys.queue(queue).claims_of(node))

    def _iter_hash(self, key: bytes) -> Iterator[dict[bytes, bytes]]:
        cursor: int | bytes = 0
        while True:
            cursor, reply = self.client.execute("HSCAN", key, cursor, "COUNT", CHUNK)
            yield reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
            if int(cursor) == 0:
                return

    # Putting back.

    def rescue(self, queue: str, rows: Sequence[Rescue], owner: bytes | None = None) -> list[bytes]:
        """Put ids back where they are in no structure of their queue: `here`, `parked` or `pushed` for each.

        `owner`: the node, gone without a trace, among whose claims they were found; they are taken from there.
        """
        k: QueueKeys = self.keys.queue(queue)
        keys = [k.key, k.claims, k.due, k.nodes, *([k.claims_of(owner)] if owner is not None else ())]
        answers: list[bytes] = []
        for start in range(0, len(rows), RESCUE_MOST):
            args: list[object] = [NEAR]
            for row in rows[start : start + RESCUE_MOST]:
                args += (row.id, row.due)
            answers += self.client.call("rescue", keys, args)
        return answers

    def disown(self, queue: str, node: bytes) -> int:
        """Drop `of:<node>` of a node that is gone; how many entries it had."""
        k = self.keys.queue(queue)
        return int(self.client.call("disown", (k.nodes, k.claims_of(node)), (node,)))
