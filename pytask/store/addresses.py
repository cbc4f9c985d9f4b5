"""What a user gave (dict, URL, list of hosts, client), as the target to talk to. Nothing here connects.

From a client that a user hands in only its connection settings are taken, never its pool: locks and
sockets made before gevent patched would block the hub.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
from redis import exceptions
from redis.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.sentinel import SentinelConnectionPool

from pytask.errors import ConfigurationError
from pytask.store.cluster import Address, ClusterTarget
from pytask.store.sentinel import SentinelTarget
from pytask.store.target import Target

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


PORT, SENTINEL_PORT = 6379, 26_379
GUARD = "sentinel_"  # before arguments that are meant for the sentinels
SCHEMES = (
    "redis://, rediss://, unix://, redis+cluster://, rediss+cluster://, redis+sentinel:// or rediss+sentinel://"
)


def resolve_target(given: object, password: str | None = None) -> Target:
    """The server or servers that `given` names: a dict, a URL, a list of hosts or a client; None is localhost.

    `password` is used where `given` holds none. Raises ConfigurationError, which never quotes a password.
    """
    target = _resolve(given)
    if password and not target.arguments.get("password"):
        return replace(target, arguments={**target.arguments, "password": password})
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
    if isinstance(given, redis.RedisCluster):
        return _from_cluster(given)
    if isinstance(given, list | tuple):
        return _from_list(given)
    raise ConfigurationError(f"redis is a dict, a URL, a list of hosts or a client, not {type(given).__name__}")


# From a URL.


def _from_url(url: str) -> Target:
    scheme = url.partition("://")[0].lower()
    kind = scheme.partition("+")[2]
    if scheme not in SCHEMES.replace("://", "").replace(" or ", ", ").split(", "):
        raise ConfigurationError(f"a Redis URL begins with {SCHEMES}, not {scheme[:20]!r}")
    if kind:
        return _from_url_of_many(url, kind)
    try:
        arguments = dict(parse_url(url))
    except ValueError as error:
        raise ConfigurationError(f"the Redis URL is wrong: {type(error).__name__}") from None
    connection = arguments.pop("connection_class", Connection)
    return Target(connection, _checked(connection, arguments))


def _from_url_of_many(url: str, kind: str) -> Target:
    """`redis+cluster://user:password@h1:7000,h2/?option=value`, `redis+sentinel://h1,h2:26379/mymaster/0?...`."""
    try:
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        path = [unquote(part) for part in parts.path.split("/") if part]
    except ValueError as error:
        raise ConfigurationError(f"the Redis URL is wrong: {type(error).__name__}") from None
    arguments = _as_redis_py_reads({n: value for n, value in options.items() if not n.startswith(GUARD)})
    if user:
        arguments["username"] = unquote(user)
    if password:
        arguments["password"] = unquote(password)
    secure = parts.scheme.startswith("rediss")
    if kind == "cluster":
        if path not in ([], ["0"]):
            raise ConfigurationError("a Redis Cluster has one database, 0: leave it out of the URL")
        return _cluster(hosts.split(","), arguments, secure)
    guard = {name.removeprefix(GUARD): value for name, value in options.items() if name.startswith(GUARD)}
    if not 1 <= len(path) <= 2:
        raise ConfigurationError("a Sentinel URL names its master: redis+sentinel://h1:26379,h2:26379/mymaster")
    if len(path) == 2:
        arguments["db"] = _number(path[1], "the database in the Redis URL")
    of_guard = _of_sentinels(guard, arguments, secure)
    return _sentinel(hosts.split(","), path[0], arguments, of_guard, secure)


def _of_sentinels(options: dict[str, str], arguments: Mapping[str, Any], secure: bool) -> dict[str, Any]:
    """Arguments for the sentinels; they speak TLS where the servers do, unless `sentinel_ssl=false`."""
    wants_tls = options.pop("ssl", "true" if secure else "false").lower() in ("true", "1", "yes")
    own = _as_redis_py_reads(options)
    if not wants_tls:
        return own
    return {**{name: value for name, value in arguments.items() if name.startswith("ssl_")}, **own, "ssl": True}


def _as_redis_py_reads(options: Mapping[str, str]) -> dict[str, Any]:
    """Options of a URL in their types, as redis-py reads them."""
    try:
        arguments = dict(parse_url("redis://h/?" + urlencode(options)))
    except ValueError as error:
        raise ConfigurationError(f"the Redis URL is wrong: {type(error).__name__}") from None
    arguments.pop("host", None)
    return arguments


# From what is not a URL.


def _from_mapping(given: Mapping[Any, Any]) -> Target:
    arguments = {TO_CONNECTION.get(name, name): value for name, value in given.items()}
    secure = arguments.pop("ssl", False)
    nodes = arguments.pop("nodes", None)
    if nodes is not None:
        return _cluster(_sequence(nodes), arguments, secure)
    sentinels = arguments.pop("sentinels", None)
    if sentinels is not None:
        service = arguments.pop("service", None) or arguments.pop("master", None)
        if not isinstance(service, str):
            raise ConfigurationError("redis with 'sentinels' needs 'service', the name of the master")
        guard = {
            name.removeprefix(GUARD): arguments.pop(name) for name in list(arguments) if name.startswith(GUARD)
        }
        return _sentinel(_sequence(sentinels), service, arguments, guard, secure)
    plain = UnixDomainSocketConnection if "path" in arguments else Connection
    kind = SSLConnection if secure else plain
    return Target(kind, _checked(kind, arguments))


def _from_list(given: Sequence[Any]) -> Target:
    """Hosts of a cluster: `'h:7000'`, `('h', 7000)`, or dicts with `host`, `port` and what they all share."""
    shared: dict[str, Any] = {}
    for item in given:
        if isinstance(item, Mapping):
            shared |= {name: value for name, value in item.items() if name not in ("host", "port")}
    secure = shared.pop("ssl", False)
    return _cluster(given, shared, secure)


def _from_client(client: redis.Redis) -> Target:
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return _from_sentinel_pool(pool)
    return Target(pool.connection_class, _taken(pool.connection_class, pool.connection_kwargs))


def _from_sentinel_pool(pool: SentinelConnectionPool) -> Target:
    secure = issubclass(pool.connection_class, SSLConnection)
    sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    seeds = [(row.get("host", "localhost"), row.get("port", SENTINEL_PORT)) for row in sentinels]
    kind = SSLConnection if secure else Connection
    guard = _without_place(_taken(Connection, sentinels[0]))
    arguments = _without_place(_taken(kind, pool.connection_kwargs))
    return SentinelTarget(kind, arguments, seeds=tuple(seeds), service=pool.service_name, guard=guard)


def _from_cluster(client: redis.RedisCluster) -> Target:
    manager = client.nodes_manager
    given = dict(manager.connection_kwargs)
    kind = SSLConnection if given.pop("ssl", False) else Connection
    kind = given.pop("connection_class", None) or kind
    seeds = [(node.host, int(node.port)) for node in manager.startup_nodes.values()]
    arguments = _without_place(_taken(kind, given))
    return ClusterTarget(kind, arguments, seeds=tuple(seeds), remap=manager.address_remap)


def _cluster(hosts: Sequence[Any], arguments: dict[str, Any], secure: Any) -> Target:
    if arguments.pop("db", 0) not in (0, "0"):
        raise ConfigurationError("a Redis Cluster has one database, 0")
    remap = arguments.pop("address_remap", None)
    kind = SSLConnection if secure else Connection
    seeds = tuple(_address(host, PORT) for host in hosts)
    if not seeds:
        raise ConfigurationError("redis names no server of the cluster")
    return ClusterTarget(kind, _without_place(_checked(kind, arguments)), seeds=seeds, remap=remap)


def _sentinel(
    hosts: Sequence[Any], service: str, arguments: dict[str, Any], guard: dict[str, Any], secure: Any
) -> Target:
    kind = SSLConnection if secure else Connection
    seeds = tuple(_address(host, SENTINEL_PORT) for host in hosts)
    if not seeds:
        raise ConfigurationError("redis names no sentinel")
    of_guard = SSLConnection if guard.get("ssl") else Connection
    checked = {**_checked(of_guard, {k: v for k, v in guard.items() if k != "ssl"})}
    if guard.get("ssl"):
        checked["ssl"] = True
    return SentinelTarget(
        kind, _without_place(_checked(kind, arguments)), seeds=seeds, service=service, guard=checked
    )


def _sequence(given: Any) -> Sequence[Any]:
    return given.split(",") if isinstance(given, str) else list(given)


HOST = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::(\d+))?|([^:\[\]\s/@]+)(?::(\d+))?")


def _address(given: Any, port: int) -> Address:
    """`'host'`, `'host:port'`, `'[::1]:port'`, `(host, port)` or a dict with `host` and `port`."""
    if isinstance(given, Mapping):
        given = (given.get("host", "localhost"), given.get("port", port))
    if isinstance(given, str):
        match = HOST.fullmatch(given.strip())
        if not match:
            raise ConfigurationError("a server is written host:port; one of those given is not")
        given = (match[1] or match[3], match[2] or match[4] or port)
    if not (isinstance(given, list | tuple) and len(given) == 2 and isinstance(given[0], str) and given[0]):
        raise ConfigurationError("a server is 'host:port', (host, port) or a dict with host and port")
    return given[0], _number(given[1], "a port")


def _number(given: Any, what: str) -> int:
    text = str(given)
    if not (text.isascii() and text.isdigit() and int(text) < 65_536):
        raise ConfigurationError(f"{what} is a number from 0 to 65535")
    return int(text)


# Arguments of connections.


def _taken(kind: type[AbstractConnection], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What of a user's client is taken over."""
    known = _parameters(kind)
    return {
        name: value
        for name, value in arguments.items()
        if name in known and name not in OURS and value is not None
    }


def _without_place(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in ("host", "port", "path", "db_host")}


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
    checked = {name: value for name, value in arguments.items() if name not in OURS}
    if issubclass(kind, SSLConnection):
        try:
            kind(**checked)  # connects later, but looks at what it is given
        except (exceptions.RedisError, ValueError, TypeError) as error:
            raise ConfigurationError(f"the arguments for TLS to Redis are wrong: {error}") from None
    return checked
