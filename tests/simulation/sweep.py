"""The sweep that DESIGN promises and the product does not have yet: a candidate, with `rescue.lua` beside it.

It finds records that wait or run and are in no structure, in two passes, and puts them back: what an asynchronous
failover took out is repaired. One process does it here; in the product it is one Monitor at a time.
"""

from __future__ import annotations

import hashlib
from typing import Any

from redis import exceptions

from pytask.keys import Keys, QueueKeys
from simulation.connections import SimClient
from simulation.network import Machine
from simulation.server import HERE, TASK_SLOT
from simulation.stand_ins import sleep

PAUSE = 4.0  # seconds between two passes
OPEN = (b"WAIT", b"SCHEDULED", b"RETRY", b"RUNNING")
SCRIPT = hashlib.sha1((HERE / "rescue.lua").read_bytes()).hexdigest()


class Sweep(Machine):
    """A process that sweeps."""

    def __init__(self, world: Any, queues: tuple[str, ...]) -> None:
        super().__init__(world.hub, "s", world.seed)
        self.world = world
        self.network = world.network
        self.client = SimClient(self, "sweep")
        self.queues = [Keys().queue(name) for name in queues]
        self._seen: dict[bytes, tuple[Any, Any]] = {}

    def boot(self) -> None:
        self.spawn(self._run)

    def _run(self) -> None:
        while True:
            sleep(PAUSE)
            try:
                self._pass()
            except exceptions.ConnectionError:
                self._seen = {}

    def _pass(self) -> None:
        nodes = {queue: self._nodes(queue) for queue in self.queues}
        for queue in self.queues:
            self._empty_inboxes(queue)
        seen = {}
        for key in self.world.server.keys(TASK_SLOT):  # the product: SCAN
            task_id = key[5:]
            state, fence, at = self.client.execute_command("HMGET", key, "state", "fence", "at")
            if state in OPEN and not any(self._rescue(queue, nodes[queue], task_id, 0) for queue in self.queues):
                seen[task_id] = state, fence
                if self._seen.get(task_id) == (state, fence):
                    home = next((queue for queue in self.queues if queue.key == at), self.queues[0])
                    self._rescue(home, nodes[home], task_id, 1)
        self._seen = seen

    def _nodes(self, queue: QueueKeys) -> list[bytes]:
        return [*self._alive(queue), *self._gone(queue)]

    def _alive(self, queue: QueueKeys) -> list[bytes]:
        return list(self.client.execute_command("HGETALL", queue.nodes)[::2])

    def _gone(self, queue: QueueKeys) -> list[bytes]:
        return list(self.client.execute_command("ZRANGE", queue.gone, 0, -1))

    def _empty_inboxes(self, queue: QueueKeys) -> None:
        """Of nodes that are gone: a failover may have filled them again."""
        for node in set(self._gone(queue)) - set(self._alive(queue)):
            while self.client.execute_command("LMOVE", queue.inbox(node), queue.key, "RIGHT", "RIGHT"):
                pass

    def _rescue(self, queue: QueueKeys, nodes: list[bytes], task_id: bytes, push: int) -> int:
        keys = [queue.key, queue.claims, queue.due, queue.nodes, *map(queue.inbox, nodes)]
        return int(self.client.execute_command("EVALSHA", SCRIPT, len(keys), *keys, task_id, push))
