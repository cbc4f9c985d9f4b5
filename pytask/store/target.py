"""Which server to talk to: what a user gave (dict, URL, client), as the arguments of a connection.

From a client that a user hands in only its connection settings are taken, never its pool: locks and
sockets made before gevent patched would block the hub. Nothing here connects.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.retry import Retry

from pytask.errors import ConfigurationError

# Never taken over from a user's client: ours to decide, or bound to the pool they came from.
OURS = frozenset(
    {
        "retry", "retry_on_error", "retry_on_timeout", "decode_responses", "encoding", "encoding_errors",
        "health_check_interval", "protocol", "legacy_responses", "parser_class", "command_packer",
        "event_dispatcher", "maint_notifications_config", "maint_notifications_pool_handler",
        "maintenance_state", "maintenance_notification_hash", "orig_host_address", "orig_socket_timeout",
        "orig_socket_connect_timeout", "oss_cluster_maint_notifications_handler", "himport_registry",
        "redis_connect_func", "socket_timeout", "client_name", "lib_name", "lib_version", "driver_info",
        "max_connections", "connection_pool", "single_connection_client", "cache", "cache_config",
        "from_url", "auto_close_connection_pool", "socket_read_size", "timeout", "queue_class",
    }
)  # fmt: skip
TO_CONNECTION = {"unix_socket_path": "path"}


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

    def client(self, *, timeout: float | None = 5.0, size: int = 16, name: str = "") -> redis.Redis:
        """A client with a pool of its own."""
        return redis.Redis(connection_pool=self.pool(timeout=timeout, size=size, name=name))


def resolve_target(given: object, password: str | None = None) -> Target:
    """The server that `given` names: a dict, a URL or a client; None is localhost.

    `password` is used where `given` holds none. Raises ConfigurationError, which never quotes a password.
    """
    target = _resolve(given)
    if password and not target.arguments.get("password"):
        return Target(target.connection_class, {**target.arguments, "password": password})
    return target


def _resolve(given: object) -> Target:
    if given is None:
        return Target(Connection, {})
    if isinstance(given, str):
        return _from_url(given)
    if isinstance(given, Mapping):
        return _from_mapping(given)
    if isinstance(given, redis.Redis):
        return _from_client(given)
    if isinstance(given, list | tuple | redis.RedisCluster):
        raise ConfigurationError("Redis Cluster is not supported yet: give the address of one server")
    raise ConfigurationError(f"redis must be a dict, a URL or a client, not {type(given).__name__}")


def _from_url(url: str) -> Target:
    scheme = urlsplit(url).scheme
    if scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError(f"a Redis URL begins with redis://, rediss:// or unix://, not {scheme!r}")
    try:
        arguments = dict(parse_url(url))
    except ValueError as error:
        raise ConfigurationError(f"the Redis URL is wrong: {type(error).__name__}") from None
    kind = arguments.pop("connection_class", Connection)
    return Target(kind, _checked(kind, arguments))


def _from_mapping(given: Mapping[Any, Any]) -> Target:
    arguments = {TO_CONNECTION.get(name, name): value for name, value in given.items()}
    secure = arguments.pop("ssl", False)
    plain = UnixDomainSocketConnection if "path" in arguments else Connection
    kind = SSLConnection if secure else plain
    return Target(kind, _checked(kind, arguments))


def _from_client(client: redis.Redis) -> Target:
    pool = client.connection_pool
    known = _parameters(pool.connection_class)
    arguments = {
        name: value
        for name, value in pool.connection_kwargs.items()
        if name in known and name not in OURS and value is not None
    }
    return Target(pool.connection_class, arguments)


def _parameters(kind: type[AbstractConnection]) -> set[str]:
    names: set[str] = set()
    for base in inspect.getmro(kind):
        if issubclass(base, AbstractConnection):
            names |= set(inspect.signature(base.__init__).parameters)
    return names - {"self", "args", "kwargs"}


def _checked(kind: type[AbstractConnection], arguments: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(arguments) - _parameters(kind) - OURS)
    if unknown:
        raise ConfigurationError(f"unknown connection argument for Redis: {', '.join(map(repr, unknown))}")
    return {name: value for name, value in arguments.items() if name not in OURS}
