"""A cluster of three masters and three replicas, on loopback."""

from __future__ import annotations

import time
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
        self._wait(lambda: all(_is_ok(client) for client in clients), "the cluster works")
        self._wait(self.is_whole, "all replicas follow")
        for client in clients:
            client.close()

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
        """Do three masters work, each with a replica that follows it?"""
        masters = self.masters()
        return len(masters) == 3 and all(self.has_replica(server) for server in masters)

    def has_replica(self, master: ServerProcess) -> bool:
        """Could another one take over from this master without loss?"""
        role = self._role(master)
        return role[0] == b"master" and bool(role[2])

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


def _is_ok(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" if isinstance(info, dict) else b"cluster_state:ok" in info
