"""Redis Sentinel: the sentinels say who the master is. After an error they are asked again, once for all."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import SSLConnection
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from pytask.store.cluster import Address
from pytask.store.servers import Command, Reply, Server
from pytask.store.target import Target

ASK_TIMEOUT = 1.0  # seconds that a sentinel may take
LEAST_PAUSE = 0.2  # seconds between two questions
# Errors after which another server may be the master.
CHANGED = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelTarget(Target):
    """A master by the name that the sentinels know it by. `guard`: the arguments of connections to sentinels."""

    seeds: tuple[Address, ...]
    service: str
    guard: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def address(self) -> str:
        """The sentinels that were named, for people."""
        return f"{self.service} of sentinel " + ",".join(f"{host}:{port}" for host, port in self.seeds)

    def at(self, address: Address) -> Target:
        """One of its servers."""
        return Target(self.connection_class, {**self.arguments, "host": address[0], "port": address[1]})

    def sentinel(self) -> Sentinel:
        """A client of the sentinels. Nothing is sent yet."""
        arguments = {
            **self.guard,
            "socket_timeout": ASK_TIMEOUT,
            "socket_connect_timeout": ASK_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        return Sentinel(list(self.seeds), sentinel_kwargs=arguments)

    def servers(self, *, timeout: float | None = 5.0, size: int = 16, name: str = "") -> SentinelServers:
        """The way to the master."""
        return SentinelServers(self, timeout=timeout, size=size, name=name)

    def client(self, *, timeout: float | None = 5.0, size: int = 16, name: str = "") -> Any:
        """A `redis.Redis` that follows the master."""
        return self.sentinel().master_for(
            self.service,
            ssl=issubclass(self.connection_class, SSLConnection),
            socket_timeout=timeout,
            max_connections=size,
            client_name=name or None,
            protocol=2,
            **self.arguments,
        )


class SentinelServers:
    """The server that is the master now."""

    one = True

    def __init__(self, target: SentinelTarget, *, timeout: float | None, size: int, name: str) -> None:
        self.target = target
        self._how: dict[str, Any] = {"timeout": timeout, "size": size, "name": name}
        self._sentinel = target.sentinel()
        self._server: Server | None = None
        self._master: Address | None = None
        self._lock = threading.Lock()
        self._stale = True
        self._asked = 0.0  # monotonic second

    def send(self, commands: Sequence[Command], *, durable: bool = False) -> list[Reply]:
        """Each command's reply or error, in order."""
        try:
            server = self._get_server()
        except exceptions.RedisError as error:
            return [error] * len(commands)
        replies = server.send(commands, durable=durable)
        if any(isinstance(reply, CHANGED) for reply in replies):
            self._stale = True
        return replies

    def send_everywhere(self, command: Command, *, masters: bool = False) -> dict[str, Reply]:  # noqa: ARG002
        """The reply or error of the master."""
        reply = self.send([command])[0]
        return {self._server.address if self._server else self.target.address: reply}

    def get_target(self) -> Target:
        """The master."""
        return self._get_server().target

    def get_masters(self) -> list[Target]:
        """The master."""
        return [self._get_server().target]

    def close(self) -> None:
        """Close every connection. Safe to repeat."""
        for client in self._sentinel.sentinels:
            client.connection_pool.disconnect()
        if self._server is not None:
            self._server.close()

    def _get_server(self) -> Server:
        if not self._stale and self._server is not None:
            return self._server
        with self._lock:
            recent = time.monotonic() - self._asked < LEAST_PAUSE * random.uniform(1, 1.5)
            if self._server is not None and (recent or not self._stale):
                return self._server
            self._asked = time.monotonic()
            self._use(self._ask())
            self._stale = False
            assert self._server is not None
            return self._server

    def _use(self, master: Address) -> None:
        if master == self._master and self._server is not None:
            return
        if self._server is not None:
            self._server.forget_idle()
        self._master, self._server = master, Server(self.target.at(master), **self._how)

    def _ask(self) -> Address:
        """Who is the master? Raises RedisError where no sentinel knows one."""
        try:
            found = self._sentinel.discover_master(self.target.service)
        except MasterNotFoundError as error:
            raise exceptions.ConnectionError(
                f"no sentinel knows a master {self.target.service!r}: {error}"
            ) from None
        return str(found[0]), int(found[1])
