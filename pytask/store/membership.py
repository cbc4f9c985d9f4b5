"""Which nodes serve a queue: joining, beating, and the end of those that died."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pytask import points
from pytask.errors import StoreUnavailable
from pytask.keys import Keys, QueueKeys
from pytask.store.claims import REAP_CHUNK
from pytask.store.client import Client, as_dict


class Membership:
    """The nodes of one queue."""

    def __init__(self, client: Client, keys: QueueKeys) -> None:
        self.client = client
        self.keys = keys

    def join(self, node: bytes) -> None:
        """From now on the node may claim; it must beat."""
        self.client.execute("HSET", self.keys.nodes, node, "0")

    def beat(self, node: bytes, sequence: int) -> tuple[int, list[bytes]]:
        """Say that the node lives: how many claims it has (-1: declared dead), which are told to stop."""
        k = self.keys
        reply = self.client.call("beat", (k.nodes, k.claims_of(node), k.control), (node, sequence))
        return reply[0], reply[1:]

    def get_sequences(self) -> dict[bytes, bytes]:
        """Node -> sequence, of every node that serves the queue; a minus where one is being reaped."""
        return as_dict(self.client.execute("HGETALL", self.keys.nodes, patience=0))

    def get_gone(self) -> set[bytes]:
        """The nodes that left the queue, or were reaped, in the last hour."""
        return set(self.client.execute("ZRANGE", self.keys.gone, 0, -1, patience=0))

    def get_listening(self, nodes: Sequence[bytes]) -> set[bytes]:
        """Those of the nodes whose liveness subscription stands on this server."""
        channels = {self.keys.alive(node): node for node in nodes}
        replies = self.client.execute_everywhere("PUBSUB", "NUMSUB", *channels)
        if not replies:
            raise StoreUnavailable("Redis: no server tells who listens")
        pairs = [pair for reply in replies.values() for pair in zip(reply[::2], reply[1::2], strict=True)]
        return {channels[channel] for channel, count in pairs if count}

    def reap(self, node: bytes, sequence: bytes) -> bool:
        """Put back everything that the node owned. False where it has beaten since, or another one did it."""
        k = self.keys
        keys = (k.key, k.claims, k.claims_of(node), k.nodes, k.inbox(node), k.gone)
        while True:
            reply = self.client.call("reap", keys, (node, sequence, REAP_CHUNK))
            if reply != 1:
                return bool(reply == 0)
            points.reach("in-reap")

    def leave(self, node: bytes) -> None:
        """The node's own end: what it still owns goes back, as if it had been reaped."""
        while sequence := self.client.execute("HGET", self.keys.nodes, node):
            self.reap(node, sequence.lstrip(b"-"))

    def empty_inbox(self, node: bytes) -> int:
        """Put back what a node that is gone was handed after its end."""
        k = self.keys
        return int(self.client.call("orphan", (k.key, k.nodes, k.inbox(node)), (node,)))


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

    def read(self, nodes: Iterable[bytes]) -> dict[bytes, dict[bytes, bytes]]:
        """The records of these nodes; empty for one that has none."""
        names = list(nodes)
        replies = self.client.pipeline([("HGETALL", self.keys.node(node)) for node in names])
        return dict(zip(names, map(as_dict, replies), strict=True))

    def publish(self, node: bytes, event: bytes) -> None:
        """Tell an event of the node itself, on the channel with the name of its record."""
        self.client.execute("PUBLISH", self.keys.node(node), event)

    def remove(self, node: bytes) -> None:
        """Remove the record at a clean end."""
        self.client.execute("DEL", self.keys.node(node))
