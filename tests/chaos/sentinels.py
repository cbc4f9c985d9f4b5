"""A master with two replicas, and three sentinels that watch over them, on loopback."""

from __future__ import annotations

import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from chaos.servers import DURABLE, Deployment, ServerProcess, binary_of, find_ports

SERVICE = "mymaster"
FORM_SECONDS = 40.0

CONFIG = """\
port {port}
dir {folder}
bind 127.0.0.1
sentinel monitor {service} 127.0.0.1 {master} 2
sentinel down-after-milliseconds {service} 1500
sentinel failover-timeout {service} 6000
sentinel parallel-syncs {service} 2
{login}
"""


class SentinelProcess(ServerProcess):
    """A sentinel: the same program; it writes what it learns into its configuration."""

    def command(self) -> list[str]:
        path = self.folder / "sentinel.conf"
        if not path.exists():
            path.write_text(CONFIG.format(port=self.port, folder=self.folder, service=SERVICE, **self.options))
        return [self.binary, str(path), "--sentinel"]


class Sentinels(Deployment):
    """`servers` hold data, and want the password where one is given; `guards` are the sentinels."""

    def __init__(self, kind: str = "valkey", *, password: str = "") -> None:
        super().__init__()
        self.name = f"sentinel {kind}"
        self.connect = {"password": password} if password else {}
        binary, ports = binary_of(kind), find_ports(6)
        for number, port in enumerate(ports[:3]):
            given = {**DURABLE, "repl-diskless-sync-delay": 0}
            if number:
                given["replicaof"] = f"127.0.0.1 {ports[0]}"
            if password:
                given |= {"requirepass": password, "masterauth": password}
            self.servers.append(ServerProcess(binary, self.folder / str(port), port, given, self.connect))
        options = {
            "master": ports[0],
            "login": f"sentinel auth-pass {SERVICE} {password}" if password else "",
        }
        self.guards = [SentinelProcess(binary, self.folder / str(port), port, options) for port in ports[3:]]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports[3:])
        self.url = f"redis+sentinel://{f':{password}@' if password else ''}{hosts}/{SERVICE}"

    def start(self) -> None:
        """Start all; blocks until the replicas follow and the sentinels know of each other."""
        super().start()
        for guard in self.guards:
            guard.start(wait=False)
        deadline = time.monotonic() + FORM_SECONDS
        while not (self.is_whole() and all(self._knows_all(guard) for guard in self.guards)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sentinels know no whole of three servers within {FORM_SECONDS:g} s")
            time.sleep(0.1)
        for server in self.servers:
            server.options.pop("replicaof", None)  # at their next start the sentinels say whom they follow

    def close(self) -> None:
        for guard in self.guards:
            guard.kill()
        super().close()

    def client(self) -> redis.Redis:
        guards = [("127.0.0.1", guard.port) for guard in self.guards]
        plain: dict[str, Any] = {"socket_timeout": 5, "retry": Retry(NoBackoff(), 0)}
        return Sentinel(guards, sentinel_kwargs=plain).master_for(SERVICE, **plain, **self.connect)

    def masters(self) -> list[ServerProcess]:
        """The one that the sentinels name, where it lives."""
        for guard in self.guards:
            try:
                with guard.client(socket_timeout=1) as client:
                    answer = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
                port = int(answer[1])
                return [server for server in self.servers if server.alive and server.port == port]
            except (redis.RedisError, TypeError):
                continue
        return []

    def is_whole(self) -> bool:
        """Does the master work, with two replicas that have what it had?"""
        return any(map(self._has_replicas, self.masters()))

    def _has_replicas(self, master: ServerProcess) -> bool:
        try:
            with master.client(socket_timeout=1) as client:
                role = client.execute_command("ROLE")
        except redis.RedisError:
            return False
        others = [server for server in self.servers if server is not master]
        return role[0] == b"master" and all(server.has_obeyed(role[1]) for server in others)

    def _knows_all(self, guard: ServerProcess) -> bool:
        try:
            with guard.client(socket_timeout=1) as client:
                others = client.execute_command("SENTINEL SENTINELS", SERVICE)
                replicas = client.execute_command("SENTINEL SLAVES", SERVICE)
        except redis.RedisError:
            return False
        return len(others) == 2 and len(replicas) == 2
