"""The moves in a queue's slot: who owns which id. Each is one script; see the header of its Lua file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from pytask.errors import NodeGone
from pytask.keys import QueueKeys
from pytask.store.client import Client, as_dict

KEEP_ENDED = 10_000  # ended ids a queue, unless a setting says otherwise
KEEP_DEAD = 100_000  # dead ids a queue
LOOK_AGAIN = 2.0  # seconds until an id whose hash is missing is tried again
REAP_CHUNK = 200
_MAKE: Any = tuple.__new__  # a third of what Claim's own constructor costs


class Claim(NamedTuple):
    """A node's ownership of an id. `lost`: 1 where it follows a dead node's claim, 2 where that counts against it.

    `how`: `push` or `back`.
    """

    id: bytes
    fence: bytes
    lost: bytes
    how: bytes
    early: bytes


class Claims:
    """The claims of one queue."""

    def __init__(self, client: Client, keys: QueueKeys) -> None:
        self.client = client
        self.keys = keys

    def claim(self, node: bytes, most: int) -> list[Claim] | None:
        """Take up to `most` ids (at most 500), never more than the node's fair share. Does not block.

        None where the queue is paused. Tried once: after StoreUnavailable the ids may be ours all the same;
        `get_claims_of` tells. Raises NodeGone where the node was declared dead.
        """
        k = self.keys
        keys = (k.key, k.claims, k.claims_of(node), k.nodes, k.fence, k.again, k.due, k.inbox(node), k.paused)
        reply = self.client.call("claim", keys, (node, min(most, 500)), patience=0)
        if reply[0] == b"gone":
            raise NodeGone(node)
        if reply[0] == b"paused":
            return None
        words = iter(reply[1:])
        return [_MAKE(Claim, five) for five in zip(words, words, words, words, words, strict=True)]

    def wait_for_id(self, node: bytes, seconds: float) -> bool:
        """Block until an id was moved to the node's inbox; False where none came in time. Tried once."""
        k = self.keys
        move = ("BLMOVE", k.key, k.inbox(node), "RIGHT", "LEFT", seconds)
        return self.client.execute(*move, patience=0) is not None

    def give_back(self, node: bytes) -> None:
        """Empty the node's own inbox, back to the head of the queue."""
        k = self.keys
        while self.client.execute("LMOVE", k.inbox(node), k.key, "RIGHT", "RIGHT") is not None:
            pass

    def get_claims_of(self, node: bytes) -> list[Claim]:
        """What the node owns, as the server sees it."""
        owned = as_dict(self.client.execute("HGETALL", self.keys.claims_of(node)))
        return [Claim(task_id, *value.split()) for task_id, value in owned.items()]

    def has_nothing_for(self, node: bytes, kept: int) -> bool:
        """Does nothing wait (a paused queue holds nothing), and does the node own no more than `kept`?

        Read in the order in which ids move, so that one which moves meanwhile is not missed.
        """
        k = self.keys
        commands = [("LLEN", k.key), ("EXISTS", k.paused), ("LLEN", k.inbox(node)), ("HLEN", k.claims_of(node))]
        waiting, paused, handed, owned = self.client.pipeline(commands)
        return (not waiting or bool(paused)) and not handed and owned <= kept

    def release(
        self, node: bytes, releases: Iterable[tuple[bytes, bytes, str, bytes]], keep_ended: int = KEEP_ENDED
    ) -> None:
        """Give claims up: id, fence, mode (`end`, `none`, `early`, `head` or `dead`), state; the ids differ.

        `keep_ended`: how many ended ids the queue remembers.
        """
        k = self.keys
        keys = (
            k.key, k.claims, k.claims_of(node), k.again, k.due, k.ended, k.counts, k.dead, k.control,
        )  # fmt: skip
        self.client.call("release", keys, [node, keep_ended, KEEP_DEAD, *chain.from_iterable(releases)])

    def hand(self, node: bytes, other: bytes, rows: Sequence[tuple[bytes, bytes]]) -> int:
        """Give claims (id, fence) up to another node; how many stand in its inbox, the others in the queue."""
        k = self.keys
        keys = (k.key, k.claims, k.claims_of(node), k.again, k.due, k.control, k.nodes, k.inbox(other))
        return int(self.client.call("hand", keys, [node, other, *chain.from_iterable(rows)]))

    def park(self, node: bytes, parks: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        """Give claims up until a time: id, fence, epoch seconds."""
        k = self.keys
        args: list[object] = [node]
        for row in parks:
            args += row
        self.client.call("park", (k.key, k.claims, k.claims_of(node), k.again, k.due), args)

    def miss(self, node: bytes, rows: Sequence[tuple[bytes, bytes, bytes]], hash_wait: float) -> list[bytes]:
        """Ids whose hash has not come: id, fence, how. Returns when each is looked at again, or `dead`."""
        k = self.keys
        keys = (k.key, k.claims, k.claims_of(node), k.again, k.due, k.missing, k.dead, k.control)
        args: list[object] = [node, hash_wait, LOOK_AGAIN, KEEP_DEAD]
        for row in rows:
            args += row
        return list(self.client.call("miss", keys, args))

    def renew(self, node: bytes, task_id: bytes, fence: bytes, floor: bytes) -> Claim | None:
        """A fence above `floor` for our claim; None where it is ours no more."""
        k = self.keys
        reply = self.client.call("renew", (k.claims, k.claims_of(node), k.fence), (node, task_id, fence, floor))
        return None if reply[0] == b"gone" else Claim(task_id, *reply[1:])

    def hold(self, node: bytes, task_id: bytes, fence: bytes, lost: bytes) -> str:
        """Take a lost claim again for a run that goes on: `gone`, `ok` or `taken`."""
        k = self.keys
        reply = self.client.call("hold", (k.claims, k.claims_of(node), k.nodes), (node, task_id, fence, lost))
        return str(reply.decode())

    def get_first_due(self) -> object:
        """The score of the id whose time comes first; None where none is parked."""
        reply = self.client.execute("ZRANGE", self.keys.due, 0, 0, "WITHSCORES")
        return reply[-1] if reply else None

    def promote(self, most: int = 500) -> tuple[int, float | None]:
        """Put back what is due. Returns how many, and the seconds until the next (None: nothing waits)."""
        k = self.keys
        count, wait = self.client.call("promote", (k.key, k.claims, k.due), (most,))
        return count, float(wait) if wait else None

    def note_stop(self, task_id: bytes, fence: bytes) -> bool:
        """Note a stop where the beat of the owner finds it; False where the claim with this fence is no more."""
        k = self.keys
        return bool(self.client.call("note_stop", (k.claims, k.control), (task_id, fence)))

    def note_stops(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """The same for many (id, fence)."""
        k = self.keys
        self.client.call_many("note_stop", [((k.claims, k.control), row) for row in rows])

    def nudge(self, task_id: bytes) -> bool:
        """Bring a parked id back at once."""
        k = self.keys
        return bool(self.client.call("nudge", (k.key, k.claims, k.due, k.again), (task_id,)))

    def nudge_each(self, ids: Sequence[bytes]) -> None:
        """The same for many."""
        k = self.keys
        self.client.call_many("nudge", [((k.key, k.claims, k.due, k.again), (task_id,)) for task_id in ids])

    def recall(self, ids: Sequence[bytes]) -> list[int]:
        """Bring parked ids back, the first of them next: what `recall.lua` answers for each."""
        k = self.keys
        return list(self.client.call("recall", (k.key, k.claims, k.due, k.nodes, k.paused), ids))
