"""Target: one server to talk to, as the class of its connections and their arguments. Nothing here connects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import (
    AbstractConnection,
    ConnectionPool,
    UnixDomainSocketConnection,
)
from redis.retry import Retry

from pytask.store.servers import OneServer, Servers


@dataclass(frozen=True, slots=True)
class Target:
    """One server: the class of its connections and their arguments."""

    connection_class: type[AbstractConnection]
    arguments: Mapping[str, Any] = field(repr=False)

    @property
    def address(self) -> str:
        """Where it is, for people; never the password."""
        if self.connection_class is UnixDomainSocketConnection:
            return f"unix:{self.arguments.get('path', '')}"
        host, port = self.arguments.get("host", "localhost"), self.arguments.get("port", 6379)
        return f"{host}:{port}/{self.arguments.get('db', 0)}"

    def pool(self, *, timeout: float | None, size: int, name: str = "") -> ConnectionPool:
        """A pool of at most `size` connections whose reads give up after `timeout` seconds (None: never).

        redis-py's own retries are off: they repeat commands that must not run twice.
        """
        arguments = {
            "socket_connect_timeout": min(timeout or 5.0, 5.0),
            "socket_keepalive": True,
            **self.arguments,
            "socket_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "client_name": name or None,
        }
        if self.connection_class is UnixDomainSocketConnection:
            arguments.pop("socket_keepalive")
            arguments.pop("socket_connect_timeout")
        return redis.BlockingConnectionPool(
            max_connections=size, timeout=timeout, connection_class=self.connection_class, **arguments
        )

    def servers(self, *, timeout: float | None = 5.0, size: int = 16, name: str = "") -> Servers:
        """The way to the server: a pool of at most `size` connections."""
        return OneServer(self, timeout=timeout, size=size, name=name)

    def client(self, *, timeout: float | None = 5.0, size: int = 16, name: str = "") -> Any:
        """A redis-py client with a pool of its own."""
        return redis.Redis(connection_pool=self.pool(timeout=timeout, size=size, name=name))
