"""A cluster of three masters and three replicas, on loopback."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from chaos.certificates import Certificates
from chaos.servers import DURABLE, Deployment, ServerProcess, binary_of, find_ports

SLOTS = 16_384
FORM_SECONDS = 40.0
NODE_TIMEOUT = 1500  # milliseconds until the servers hold one of theirs for failed


class Cluster(Deployment):
    """Servers 0 to 2 begin as masters, 3 to 5 as their replicas."""

    def __init__(self, kind: str = "valkey", *, tls: bool = False, **options: object) -> None:
        super().__init__()
        self.name = f"cluster {kind}{' TLS' if tls else ''}"
        self.certificates = Certificates(self.folder / "tls") if tls else None
        connect = self.certificates.arguments() if self.certificates else {}
        for port in find_ports(6):
            given = {
                **DURABLE,
                "cluster-enabled": "yes",
                "cluster-node-timeout": NODE_TIMEOUT,
                "cluster-replica-validity-factor": 0,
                "repl-diskless-sync-delay": 0,
                **(self.certificates.server_options(port) if self.certificates else {}),
                **options,
            }
            self.servers.append(ServerProcess(binary_of(kind), self.folder / str(port), port, given, connect))
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        scheme, query = (
            ("rediss+cluster", self.certificates.query()) if self.certificates else ("redis+cluster", "")
        )
        self.url = f"{scheme}://{hosts}" + (f"?{query}" if query else "")

    def start(self) -> None:
        """Start the servers and let them form a cluster; blocks until it works and all replicas follow."""
        super().start()
        clients = [server.client() for server in self.servers]
        for number, client in enumerate(clients[:3]):
            low, high = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
        for server in self.servers[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        self._wait(lambda: all(len(_nodes(client)) == 6 for client in clients), "six servers know each other")
        for number, client in enumerate(clients[3:]):
            master = clients[number].execute_command("CLUSTER", "MYID").decode()
            self._wait(lambda c=client, m=master: _replicate(c, m), "a replica knows its master")
        self._wait(self.is_whole, "the cluster works, and all replicas follow")
        for client in clients:
            client.close()

    # What the cluster says of itself.

    def tell(self, server: ServerProcess, *words: object) -> Any:
        """The reply of one server to CLUSTER ...."""
        with server.client(socket_timeout=5) as client:
            client.response_callbacks.clear()
            return client.execute_command("CLUSTER", *words)

    def name_of(self, server: ServerProcess) -> str:
        """The id by which the cluster knows a server."""
        return str(self.tell(server, "MYID").decode())

    def slots(self, server: ServerProcess) -> list[list[Any]]:
        """CLUSTER SLOTS, as one server sees it: first, last, master, replicas."""
        return list(self.tell(server, "SLOTS"))

    def _row(self, slot: int) -> list[Any]:
        for server in self.masters():
            for row in self.slots(server):
                if row[0] <= slot <= row[1]:
                    return row
        raise LookupError(f"nobody serves slot {slot}")

    def _server_at(self, port: int) -> ServerProcess:
        return next(server for server in self.servers if server.port == port)

    def owner(self, slot: int) -> ServerProcess:
        """The master of a slot, as a master sees it: it may be dead."""
        return self._server_at(int(self._row(slot)[2][1]))

    def replica_of(self, master: ServerProcess) -> ServerProcess:
        """The replica of a master that works."""
        return self._server_at(int(self._role(master)[2][0][1]))

    # What is done to it.

    def open_migration(self, slot: int, to: ServerProcess) -> None:
        """Say that a slot is on its way to another master: of that one the keys are asked that its own lacks."""
        source = self.owner(slot)
        self.tell(to, "SETSLOT", slot, "IMPORTING", self.name_of(source))
        self.tell(source, "SETSLOT", slot, "MIGRATING", self.name_of(to))

    def move_keys(self, slot: int, to: ServerProcess, which: Callable[[bytes], bool] = lambda _: True) -> None:
        """Move the keys of a slot that is on its way, or only some of them."""
        source = self.owner(slot)
        with source.client(socket_timeout=10) as client:
            while keys := [*filter(which, self.tell(source, "GETKEYSINSLOT", slot, 1000))]:
                client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "REPLACE", "KEYS", *keys)

    def close_migration(self, slot: int, to: ServerProcess) -> None:
        """Say to all that the slot has arrived."""
        source, name = self.owner(slot), self.name_of(to)
        for server in [to, source, *(other for other in self.masters() if other not in (to, source))]:
            self.tell(server, "SETSLOT", slot, "NODE", name)

    def migrate(self, slot: int, to: ServerProcess) -> None:
        """Move a slot with its keys to another master, as `redis-cli --cluster reshard` does."""
        self.open_migration(slot, to)
        self.move_keys(slot, to)
        self.close_migration(slot, to)

    def fail_over(self, master: ServerProcess, how: str = "") -> ServerProcess:
        """Let the replica of a master that works take over; blocks until all know. Returns the new master.

        `how`: as in CLUSTER FAILOVER. With none the two do it together, and nothing is lost.
        """
        new = self.replica_of(master)
        self.tell(new, "FAILOVER", *filter(None, [how]))
        self.wait_for_master(new)
        return new

    def wait_for_master(self, server: ServerProcess) -> None:
        """Block until a server is the master of slots by what all servers say that answer."""
        self._wait(
            lambda: all(server.port in ports for ports in self._masters_by_view()), "all know the new master"
        )

    def _masters_by_view(self) -> list[set[int]]:
        views = []
        for server in self.servers:
            with contextlib.suppress(redis.RedisError):
                if server.alive:
                    views.append({int(row[2][1]) for row in self.slots(server)})
        return views

    def _wait(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + FORM_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {FORM_SECONDS:g} s: {what}")
            time.sleep(0.05)

    def client(self) -> RedisCluster:
        alive = [ClusterNode("127.0.0.1", server.port) for server in self.servers if server.alive]
        arguments = self.certificates.arguments() if self.certificates else {}
        return RedisCluster(startup_nodes=alive, retry=Retry(NoBackoff(), 3), socket_timeout=5, **arguments)

    def masters(self) -> list[ServerProcess]:
        """Those that serve slots now, as they say themselves."""
        return [server for server in self.servers if server.alive and self._role(server)[0] == b"master"]

    def is_whole(self) -> bool:
        """Do three masters work, each with a replica that follows it, and do all say so?"""
        masters = self.masters()
        return len(masters) == 3 and all(map(self.has_replica, masters)) and all(map(self._is_ok, self.servers))

    def has_replica(self, master: ServerProcess) -> bool:
        """Could another take over from this master without loss? One that still loads or lags could not."""
        role = self._role(master)
        return role[0] == b"master" and any(self._server_at(int(row[1])).has_obeyed(role[1]) for row in role[2])

    def _is_ok(self, server: ServerProcess) -> bool:
        try:
            return server.alive and b"cluster_state:ok" in self.tell(server, "INFO")
        except redis.RedisError:
            return False

    def _role(self, server: ServerProcess) -> list[Any]:
        """ROLE of a server that serves slots or follows one that does; else nothing of use."""
        try:
            with server.client(socket_timeout=1) as client:
                role = client.execute_command("ROLE")
                if role[0] == b"master" and not _serves_slots(client):
                    return [b"idle", 0, []]
                return list(role)
        except redis.RedisError:
            return [b"away", 0, []]


def _nodes(client: redis.Redis) -> list[str]:
    text = client.execute_command("CLUSTER NODES")
    if isinstance(text, dict):
        return [name for name, node in text.items() if "handshake" not in node["flags"]]
    return [line for line in text.decode().splitlines() if "handshake" not in line]


def _serves_slots(client: redis.Redis) -> bool:
    text = client.execute_command("CLUSTER NODES")
    if isinstance(text, dict):
        return any("myself" in node["flags"] and node["slots"] for node in text.values())
    mine = next(line for line in text.decode().splitlines() if "myself" in line)
    return len(mine.split()) > 8


def _replicate(client: redis.Redis, master: str) -> bool:
    try:
        return bool(client.execute_command("CLUSTER", "REPLICATE", master))
    except redis.ResponseError:
        return False
