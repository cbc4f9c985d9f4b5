"""Which nodes serve a queue: joining, beating, and the end of those that died."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pytask import points
from pytask.errors import StoreUnavailable
from pytask.keys import Keys, QueueKeys
from pytask.store.claims import REAP_CHUNK
from pytask.store.client import Client, as_dict

GONE, REFUSED = -1, -2


class Pulse(NamedTuple):
    """What a full beat learnt of a queue: how many claims the node has, how many ids wait, which are to stop."""

    claims: int
    waiting: int
    stops: list[bytes]


class Membership:
    """The nodes of one queue."""

    def __init__(self, client: Client, keys: QueueKeys) -> None:
        self.client = client
        self.keys = keys

    def join(self, node: bytes, sequence: int = 0) -> None:
        """From now on the node may claim; it must beat. `sequence`: one that nobody has seen of this node."""
        self.client.execute("HSET", self.keys.nodes, node, sequence)

    def beat(self, node: bytes, sequence: int) -> tuple[int, list[bytes]]:
        """Say that the node lives: how many claims it has (-1: declared dead), which are told to stop."""
        ((_, answer),) = beat_all(self.client, [self.keys], node, sequence, full=True)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return (answer.claims, answer.stops) if isinstance(answer, Pulse) else (answer or 0, [])

    def get_sequences(self) -> dict[bytes, bytes]:
        """Node -> sequence, of every node that serves the queue; a minus where one is being reaped."""
        rows = as_dict(self.client.execute("HGETALL", self.keys.nodes, patience=0))
        return {
            field.removeprefix(b"-"): b"-" + value.split(b" ")[0] if field.startswith(b"-") else value
            for field, value in rows.items()
        }

    def get_gone(self) -> set[bytes]:
        """The nodes that left the queue, or were reaped, in the last hour."""
        return set(self.client.execute("ZRANGE", self.keys.gone, 0, -1, patience=0))

    def reap(self, node: bytes, sequence: bytes, blame: bytes | None = None) -> bool:
        """Put back everything that the node owned. False where it has beaten since, or another one did it.

        Its death counts against runs younger than 60 s; with `blame` (an id, `b""` for none) against that alone.
        """
        k = self.keys
        keys = (k.key, k.claims, k.claims_of(node), k.nodes, k.inbox(node), k.gone)
        args = (node, sequence, REAP_CHUNK, int(blame is not None), blame or b"")
        while True:
            reply = self.client.call("reap", keys, args)
            if reply != 1:
                return bool(reply == 0)
            points.reach("in-reap")

    def leave(self, node: bytes, blame: bytes | None = None) -> None:
        """The node's own end: what it still owns goes back, as if it had been reaped."""
        while sequence := self._get_sequence(node):
            self.reap(node, sequence, blame)

    def _get_sequence(self, node: bytes) -> bytes | None:
        """Also of a node that is being reaped."""
        sequence, reaped = self.client.execute("HMGET", self.keys.nodes, node, b"-" + node)
        return sequence or (reaped and bytes(reaped).split(b" ")[0])

    def empty_inbox(self, node: bytes) -> int:
        """Put back what a node that is gone was handed after its end."""
        k = self.keys
        return int(self.client.call("orphan", (k.key, k.nodes, k.inbox(node)), (node,)))


def beat_all(
    client: Client, queues: Sequence[QueueKeys], node: bytes, sequence: int, *, full: bool
) -> list[tuple[str, Pulse | int | StoreUnavailable | None]]:
    """Say in several queues that the node lives, tried once: for each its name and what was learnt.

    None after a beat that is not `full`, or could not be since the queue's slot moves; GONE where the node was
    declared dead, REFUSED where a key of the queue is of another type, a StoreUnavailable where its server did not
    answer.
    """
    groups = [_read_by_a_beat(keys, node) if full else (keys.nodes,) for keys in queues]
    replies = client.call_groups("beat", groups, (node, sequence, int(full)))
    for number, reply in enumerate(replies):
        if reply is None:  # keys of a slot that moves cannot be had together, for as long as that takes; one can
            replies[number] = client.call_groups("beat", [groups[number][:1]], (node, sequence, 0))[0]
    return [(keys.name, _read_pulse(reply)) for keys, reply in zip(queues, replies, strict=True)]


def _read_by_a_beat(keys: QueueKeys, node: bytes) -> tuple[bytes, ...]:
    return keys.nodes, keys.claims_of(node), keys.control, keys.key


def _read_pulse(reply: list[Any] | StoreUnavailable | None) -> Pulse | int | StoreUnavailable | None:
    if reply is None:
        return StoreUnavailable("Redis: the slot of the queue moves")
    if isinstance(reply, StoreUnavailable):
        return reply
    if len(reply) < 2:
        return int(reply[0]) if reply else None
    return Pulse(reply[0], reply[1], reply[2:])


class Standing(NamedTuple):
    """Whose liveness subscription stands, by the server that was asked; and which nodes run a Monitor."""

    nodes: dict[str, set[bytes]]
    monitors: set[bytes]


class NodeRecords:
    """What nodes say of themselves: `node-<node>`."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    def write(self, node: bytes, fields: Mapping[str, object], ttl: float) -> None:
        """Write the record; it goes after `ttl` seconds unless it is written again."""
        key = self.keys.node(node)
        flat = [part for pair in fields.items() for part in pair]
        self.client.pipeline([("HSET", key, *flat), ("PEXPIRE", key, int(ttl * 1000))])

    def get_standing(self, nodes: Iterable[bytes]) -> Standing:
        """Ask every server once whose liveness subscription stands there; one that does not answer is left out."""
        asked = list(nodes)
        channels = [*map(self.keys.alive, asked), *map(self.keys.watches, asked)]
        standing, monitors = {}, set()
        for server, reply in self.client.execute_everywhere("PUBSUB", "NUMSUB", *channels).items():
            # only whether there is a subscriber: Valkey 9.1 counts several wrongly at times
            heard = {channel for channel, count in zip(reply[::2], reply[1::2], strict=True) if count}
            standing[server] = {node for node in asked if self.keys.alive(node) in heard}
            monitors |= {node for node in asked if self.keys.watches(node) in heard}
        return Standing(standing, monitors)

    def read(self, nodes: Iterable[bytes]) -> dict[bytes, dict[bytes, bytes]]:
        """The records of these nodes; empty for one that has none."""
        names = list(nodes)
        replies = self.client.pipeline([("HGETALL", self.keys.node(node)) for node in names])
        return dict(zip(names, map(as_dict, replies), strict=True))

    def publish(self, node: bytes, event: bytes) -> None:
        """Tell an event of the node itself, on the channel with the name of its record."""
        self.client.execute("PUBLISH", self.keys.node(node), event)

    def tell(self, node: bytes, queue: bytes) -> None:
        """Let a node know that something stands in its inbox of the queue with this key. May be lost."""
        self.client.execute("PUBLISH", self.keys.alive(node), queue, patience=0)

    def remove(self, node: bytes) -> None:
        """Remove the record at a clean end."""
        self.client.execute("DEL", self.keys.node(node))
