"""Deployments of several servers: a master with a replica, a cluster of 3 + 3, Sentinel, and TLS on one server."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from chaos.servers import DURABLE, Deployment, ServerProcess, binary_of, find_ports

SETTLE_SECONDS = 60.0
FAST = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = SETTLE_SECONDS) -> Any:
    """The first true answer; errors of Redis count as none. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError):
            if found := condition():
                return found
        time.sleep(0.05)
    raise TimeoutError(f"not within {seconds:g} s: {what}")


def fields(reply: Any) -> dict[str, str]:
    """The reply of INFO or CLUSTER INFO, whatever the client made of it."""
    if isinstance(reply, dict):
        return {str(name): str(value) for name, value in reply.items()}
    text = reply.decode() if isinstance(reply, bytes) else reply
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


class Replicated(Deployment):
    """A master and a replica, without anybody who would promote it."""

    def __init__(self, kind: str = "valkey", **options: str) -> None:
        super().__init__()
        self.name = f"replicated {kind}"
        first, second = find_ports(2)
        common = {**DURABLE, **FAST, **options}
        self.master = ServerProcess(binary_of(kind), self.folder / "master", first, common)
        follow = {**common, "replicaof": f"127.0.0.1 {first}"}
        self.replica = ServerProcess(binary_of(kind), self.folder / "replica", second, follow)
        self.servers = [self.master, self.replica]
        self.url = f"redis://127.0.0.1:{first}/0"

    def start(self) -> None:
        super().start()
        wait_for(lambda: is_synchronous(self.replica), "the replica follows")

    def client(self) -> redis.Redis:
        return self.master.client()

    def masters(self) -> list[ServerProcess]:
        return [self.master]


def is_synchronous(replica: ServerProcess) -> bool:
    """Has the replica all that its master had?"""
    with replica.client(socket_timeout=2) as client:
        info = client.info("replication")
    return info["role"] == "slave" and info["master_link_status"] == "up"


class Cluster(Deployment):
    """A Redis Cluster of three masters, each with a replica."""

    def __init__(self, kind: str = "valkey", *, node_timeout_ms: int = 2000, **options: str) -> None:
        super().__init__()
        self.name = f"cluster {kind}"
        self.ports = find_ports(6)
        common = {
            **DURABLE,
            **FAST,
            "cluster-enabled": "yes",
            "cluster-node-timeout": node_timeout_ms,
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
            **options,
        }
        self.servers = [ServerProcess(binary_of(kind), self.folder / str(p), p, common) for p in self.ports]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self) -> None:
        super().start()
        for number, server in enumerate(self.servers[:3]):
            first, last = number * 5461, 16_383 if number == 2 else (number + 1) * 5461 - 1
            self.tell(server, "ADDSLOTS", *range(first, last + 1))
            self.tell(server, "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            self.tell(server, "MEET", "127.0.0.1", self.ports[0])
        wait_for(lambda: all(self._knows_all(server) for server in self.servers), "all servers have met")
        for master, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            node = self.tell(master, "MYID").decode()
            wait_for(lambda r=replica, n=node: self.tell(r, "REPLICATE", n), "a replica is told its master")
        wait_for(self.is_settled, "the cluster has settled")

    def tell(self, server: ServerProcess, *words: Any) -> Any:
        """The reply of one server to CLUSTER ...."""
        with server.client(socket_timeout=5) as client:
            client.response_callbacks.clear()
            return client.execute_command("CLUSTER", *words)

    def _knows_all(self, server: ServerProcess) -> bool:
        return fields(self.tell(server, "INFO"))["cluster_known_nodes"] == "6"

    def is_settled(self) -> bool:
        """Every living server says that all is well, and each replica has what its master has."""
        living = [server for server in self.servers if server.alive]
        if any(fields(self.tell(server, "INFO"))["cluster_state"] != "ok" for server in living):
            return False
        masters = self.masters()
        return len(masters) == 3 and all(is_synchronous(s) for s in living if s not in masters)

    def masters(self) -> list[ServerProcess]:
        ports = {int(row[2][1]) for row in self.slots()}
        return [server for server in self.servers if server.port in ports and server.alive]

    def slots(self) -> list[Any]:
        """CLUSTER SLOTS, as a server tells it that answers."""
        for server in self.servers:
            with contextlib.suppress(redis.RedisError):
                if server.alive:
                    return list(self.tell(server, "SLOTS"))
        raise TimeoutError("no server of the cluster answers")

    def owner(self, slot: int) -> ServerProcess:
        """The master of a slot."""
        port = next(int(row[2][1]) for row in self.slots() if row[0] <= slot <= row[1])
        return next(server for server in self.servers if server.port == port)

    def replica_of(self, master: ServerProcess) -> ServerProcess:
        """The living replica of a master."""
        row = next(row for row in self.slots() if int(row[2][1]) == master.port)
        ports = [int(place[1]) for place in row[3:]]
        return next(server for server in self.servers if server.port in ports and server.alive)

    def migrate(self, slot: int, to: ServerProcess) -> None:
        """Move a slot with its keys to another master, as `redis-cli --cluster reshard` does."""
        source = self.owner(slot)
        here, there = (self.tell(server, "MYID").decode() for server in (source, to))
        self.tell(to, "SETSLOT", slot, "IMPORTING", here)
        self.tell(source, "SETSLOT", slot, "MIGRATING", there)
        with source.client(socket_timeout=10) as client:
            while keys := self.tell(source, "GETKEYSINSLOT", slot, 100):
                client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "REPLACE", "KEYS", *keys)
        for server in [to, source, *(s for s in self.masters() if s not in (to, source))]:
            self.tell(server, "SETSLOT", slot, "NODE", there)

    def client(self) -> redis.RedisCluster:
        nodes = [ClusterNode("127.0.0.1", port) for port in self.ports]
        return redis.RedisCluster(startup_nodes=nodes, socket_timeout=10)


class Sentinel(Deployment):
    """A master, two replicas, three sentinels; all of them want a password."""

    def __init__(self, kind: str = "valkey", *, down_after_ms: int = 1500) -> None:
        super().__init__()
        self.name = f"sentinel {kind}"
        self.kind = kind
        self.down_after_ms = down_after_ms
        *data, a, b, c = find_ports(6)
        self.sentinel_ports = [a, b, c]
        for port in data:
            options = {**DURABLE, **FAST, "requirepass": "secret", "masterauth": "secret"}
            if port != data[0]:
                options["replicaof"] = f"127.0.0.1 {data[0]}"
            folder = self.folder / str(port)
            self.servers.append(ServerProcess(binary_of(kind), folder, port, options, {"password": "secret"}))
        self.sentinels: list[subprocess.Popen[bytes]] = []
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        self.url = f"redis+sentinel://:secret@{hosts}/mymaster"

    def start(self) -> None:
        super().start()
        wait_for(lambda: all(map(is_synchronous, self.servers[1:])), "the replicas follow")
        for port in self.sentinel_ports:
            self.sentinels.append(self._start_sentinel(port))
        wait_for(lambda: all(map(self._knows_all, self.sentinel_ports)), "the sentinels know each other")

    def _start_sentinel(self, port: int) -> subprocess.Popen[bytes]:
        folder = self.folder / f"sentinel-{port}"
        folder.mkdir()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor mymaster 127.0.0.1 {self.servers[0].port} 2\n"
            "sentinel auth-pass mymaster secret\n"
            f"sentinel down-after-milliseconds mymaster {self.down_after_ms}\n"
            "sentinel failover-timeout mymaster 6000\n"
        )
        with (folder / "log").open("wb") as log:
            command = [binary_of(self.kind), str(config), "--sentinel"]
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _ask(self, port: int) -> dict[str, str]:
        with redis.Redis(port=port, socket_timeout=2, protocol=2, retry=Retry(NoBackoff(), 0)) as client:
            client.response_callbacks.clear()
            words = [word.decode() for word in client.execute_command("SENTINEL", "MASTER", "mymaster")]
        return dict(zip(words[::2], words[1::2], strict=True))

    def _knows_all(self, port: int) -> bool:
        state = self._ask(port)
        return state["num-other-sentinels"] == "2" and state["num-slaves"] == "2" and state["flags"] == "master"

    def masters(self) -> list[ServerProcess]:
        port = int(wait_for(lambda: self._ask(self.sentinel_ports[0]), "a sentinel answers")["port"])
        return [server for server in self.servers if server.port == port]

    def is_settled(self) -> bool:
        """Is there a master that lives, and do all other servers that live follow it?"""
        masters = self.masters()
        living = [server for server in self.servers if server.alive and server not in masters]
        return bool(masters) and masters[0].alive and all(map(is_synchronous, living))

    def client(self) -> redis.Redis:
        return self.masters()[0].client()

    def close(self) -> None:
        for process in self.sentinels:
            process.kill()
            process.wait(10)
        super().close()


class Tls(Deployment):
    """One server that speaks TLS alone, with a CA of its own, and wants a certificate of its clients."""

    def __init__(self, kind: str = "redis") -> None:
        super().__init__()
        self.name = f"TLS {kind}"
        make_certificates(self.folder)
        (port,) = find_ports(1)
        ca, cert, key = (self.folder / name for name in ("ca.crt", "server.crt", "server.key"))
        options = {**DURABLE, "port": "0", "tls-port": port, "tls-ca-cert-file": ca, "tls-cert-file": cert,
                   "tls-key-file": key, "tls-auth-clients": "yes"}  # fmt: skip
        ours = {"ssl_ca_certs": str(ca), "ssl_certfile": str(self.folder / "client.crt"),
                "ssl_keyfile": str(self.folder / "client.key")}  # fmt: skip
        server = ServerProcess(binary_of(kind), self.folder, port, options, {"ssl": True, **ours})
        self.servers = [server]
        query = "&".join(f"{name}={value}" for name, value in ours.items())
        self.url = f"rediss://127.0.0.1:{port}/0?{query}"

    def client(self) -> redis.Redis:
        return self.servers[0].client()


def make_certificates(folder: Path) -> None:
    """A CA, a server's and a client's certificate, for 127.0.0.1, valid for two days."""

    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", 2,
            "-subj", "/CN=tests", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", 2, "-extfile", "names")  # fmt: skip
