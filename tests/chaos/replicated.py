"""A master and a replica on loopback, without anybody who would promote it."""

from __future__ import annotations

import redis

from chaos.rig import wait_for
from chaos.servers import DURABLE, Deployment, ServerProcess, binary_of, find_ports


class Replicated(Deployment):
    """`options` go to both servers."""

    def __init__(self, kind: str = "valkey", **options: object) -> None:
        super().__init__()
        self.name = f"replicated {kind}"
        first, second = find_ports(2)
        given = {**DURABLE, "repl-diskless-sync-delay": 0, **options}
        follow = {**given, "replicaof": f"127.0.0.1 {first}"}
        self.master = ServerProcess(binary_of(kind), self.folder / "master", first, given)
        self.replica = ServerProcess(binary_of(kind), self.folder / "replica", second, follow)
        self.servers = [self.master, self.replica]
        self.url = f"redis://127.0.0.1:{first}/0"

    def start(self) -> None:
        """Start both; blocks until the replica follows."""
        super().start()
        wait_for(self.is_whole, "the replica follows")

    def client(self) -> redis.Redis:
        return self.master.client()

    def masters(self) -> list[ServerProcess]:
        return [self.master]

    def is_whole(self) -> bool:
        """Has the replica all that its master had?"""
        try:
            with self.master.client(socket_timeout=2) as client:
                offset = client.execute_command("ROLE")[1]
        except redis.RedisError:
            return False
        return self.replica.has_obeyed(offset)
