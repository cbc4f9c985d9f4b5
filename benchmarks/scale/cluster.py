"""Tasks a second against the number of masters of a cluster, and what each of them spends on a task.

The queue's slot and that of `end-task` lie on one master each; the records are spread over all. Two cores, of
which the node needs one, show what a task costs each server, not how far many servers would carry: that is worked
out from it.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import Any

import harness
import redis
from harness import Worker, wait_for
from redis.crc import key_slot

from scale.farm import PATHS, QUEUE, START_SECONDS
from scale.gauge import Gauge, between, count_ended

sys.path.insert(0, str(harness.ROOT / "tests"))

from chaos.servers import Deployment, ServerProcess, binary_of, find_ports

SLOTS = 16_384
MASTERS = (0, 1, 2, 3)  # 0: a server that is no cluster
TASKS = 20_000
PREPARED = f"{{{QUEUE}}}:prepared"  # in the queue's own slot


class Masters(Deployment):
    """So many masters without replicas and without persistence; 0: one server alone."""

    def __init__(self, count: int, kind: str) -> None:
        super().__init__()
        options: dict[str, Any] = {"save": "", "appendonly": "no"}
        if count:
            options |= {"cluster-enabled": "yes", "cluster-node-timeout": 15_000}
        self.count = count
        binary = binary_of(kind)
        for port in find_ports(max(count, 1)):
            self.servers.append(ServerProcess(binary, self.folder / str(port), port, options))
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        self.url = f"redis+cluster://{hosts}" if count else f"redis://{hosts}/0"

    def start(self) -> None:
        """Start them, give each its slots, and wait until all agree."""
        super().start()
        self.clients = [server.client(socket_timeout=60) for server in self.servers]
        for number, client in enumerate(self.clients if self.count else ()):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", self._low(number), self._low(number + 1) - 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        wait_for(lambda: all(map(self._agrees, self.clients)), "the cluster forms", 30)

    def _agrees(self, client: redis.Redis) -> bool:
        return not self.count or b"cluster_state:ok" in _raw(client, "CLUSTER", "INFO")

    def _low(self, number: int) -> int:
        """The first slot of a master."""
        return SLOTS * number // self.count

    def client_of(self, key: str) -> redis.Redis:
        """The client of the master that holds a key."""
        slot = key_slot(key.encode())
        return self.clients[max((n for n in range(self.count) if self._low(n) <= slot), default=0)]

    def fill(self, count: int) -> None:
        """Make no-op tasks that wait beside the queue."""
        ids = [f"{number:032x}" for number in range(count)]
        by_master: dict[int, list[str]] = defaultdict(list)
        for task_id in ids:
            by_master[self.clients.index(self.client_of(f"task-{task_id}"))].append(task_id)
        for number, group in by_master.items():
            pipe = self.clients[number].pipeline(transaction=False)
            for task_id in group:
                pipe.execute_command("HSET", f"task-{task_id}", "task", "noop", "data", "{}")
            pipe.execute()
        self.client_of(PREPARED).lpush(PREPARED, *ids)


def _raw(client: redis.Redis, *words: str) -> bytes:
    reply = client.connection_pool.get_connection()
    try:
        reply.send_command(*words)
        return bytes(reply.read_response())
    finally:
        client.connection_pool.release(reply)


def measure(kind: str, count: int) -> dict[str, Any]:
    """One node and so many masters."""
    command = [sys.executable, "-m", "pytask", "worker", "scale.app:app", "--path", str(harness.HERE)]
    log = harness.SCRATCH / "logs" / "scale-cluster.log"
    with Masters(count, kind) as masters, Worker([*command, "-u", masters.url], log, PATHS) as worker:
        wait_for(lambda: "local   " in log.read_text("utf-8", "replace"), "the node starts", START_SECONDS, worker)
        masters.fill(TASKS)
        home = masters.client_of(QUEUE)
        gauge = Gauge(masters.clients, [worker.pid], lambda: count_ended(home, [QUEUE]))
        first = gauge.read()
        home.rename(PREPARED, QUEUE)
        wait_for(lambda: gauge.ended() >= TASKS, "all end", 60, worker)
        seconds = time.monotonic() - first.at
        wait_for(lambda: not masters.client_of("end-task").llen("end-task"), "all are cleaned up", 60, worker)
        costs = between(first, gauge.read())
    each = [used / TASKS * 1e6 for used in costs.servers]
    return {
        **costs.each(),
        "rate": TASKS / seconds,
        "by_master_us": each,
        "queue_on": masters.clients.index(home),
        "by_command": costs.by_command(),
    }
