"""The list `end-task`: ids that ended, for Cleanup or any other consumer.

Nodes LPUSH; consumers take from the other end. Cleanup moves ids to a list of its own node first, so
that a crash loses none; what a dead Cleanup had taken goes back.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytask.keys import Keys
from pytask.store.claims import KEEP_DEAD
from pytask.store.client import Client, as_dict


class Endings:
    """The ended ids of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    def push(self, ids: Sequence[bytes]) -> int:
        """Append ids; returns how many are in the list now. A repeated id does no harm."""
        return int(self.client.execute("LPUSH", self.keys.end, *ids))

    def get(self, most: int) -> list[bytes]:
        """Ids in the list, the oldest first."""
        if most <= 0:
            return []
        return list(reversed(self.client.execute("LRANGE", self.keys.end, -most, -1)))

    def wait_for_id(self, node: bytes, seconds: float) -> bool:
        """Block until an id was moved to the node's own list; False where none came in time. Tried once."""
        move = ("BLMOVE", self.keys.end, self.keys.end_of(node), "RIGHT", "LEFT", seconds)
        return self.client.execute(*move, patience=0) is not None

    def take(self, node: bytes, most: int) -> list[bytes]:
        """Move ids to the node's own list: all that stand there now, the oldest first."""
        reply = self.client.call("take_ended", (self.keys.end, self.keys.end_of(node)), (most,))
        return list(reversed(reply))

    def discard(self, ids: Sequence[bytes]) -> None:
        """Remove ids, which are the oldest, from the list itself."""
        self.client.pipeline([("LREM", self.keys.end, -1, task_id) for task_id in ids])

    def drop(self, node: bytes, ids: Sequence[bytes]) -> None:
        """Remove ids that are done from the node's own list."""
        self.client.pipeline([("LREM", self.keys.end_of(node), -1, task_id) for task_id in ids])

    def drop_all(self, node: bytes, count: int) -> None:
        """Remove the oldest `count` ids from the node's own list: a whole batch that is done."""
        self.client.execute("LTRIM", self.keys.end_of(node), 0, -count - 1)

    def count_failure(self, task_id: bytes) -> int:
        """How often the handler of this id has failed, this time included."""
        return int(self.client.execute("HINCRBY", self.keys.end_failed, task_id, 1))

    def forget_failures(self, ids: Sequence[bytes]) -> None:
        """The handler has accepted these ids."""
        self.client.execute("HDEL", self.keys.end_failed, *ids)

    def give_up(self, task_id: bytes) -> None:
        """The handler keeps failing: note the id on the dead list of `end-task`."""
        dead = self.keys.end_dead
        self.client.pipeline(
            [
                ("LREM", dead, 0, task_id),
                ("LPUSH", dead, task_id),
                ("LTRIM", dead, 0, KEEP_DEAD - 1),
                ("HDEL", self.keys.end_failed, task_id),
            ]
        )

    def announce(self, node: bytes, sequence: int) -> None:
        """Say that this node's Cleanup lives."""
        self.client.execute("HSET", self.keys.end_takers, node, sequence)

    def get_takers(self) -> dict[bytes, bytes]:
        """Node -> sequence of every Cleanup that has announced itself."""
        return as_dict(self.client.execute("HGETALL", self.keys.end_takers, patience=0))

    def give_back(self, node: bytes, sequence: bytes) -> int:
        """Put back what a dead Cleanup had taken; -1 where it lives after all."""
        keys = (self.keys.end, self.keys.end_of(node), self.keys.end_takers)
        return int(self.client.call("return_ended", keys, (node, sequence)))
