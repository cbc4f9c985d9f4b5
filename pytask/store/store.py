"""The store: one client and the concerns that speak through it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from redis.exceptions import RedisError

from pytask.errors import StoreError, StoreRefused
from pytask.keys import Keys
from pytask.store.claims import Claims
from pytask.store.client import Client, translated
from pytask.store.endings import Endings
from pytask.store.expiry import Expiry
from pytask.store.inventory import Inventory
from pytask.store.limits import Limits
from pytask.store.listener import Listener
from pytask.store.membership import Membership, NodeRecords
from pytask.store.namespaces import Namespaces
from pytask.store.purge import Purge
from pytask.store.queues import Queues
from pytask.store.records import Records
from pytask.store.schedules import Schedules
from pytask.store.services import Services
from pytask.store.subscription import Subscription
from pytask.store.sweep import Traces
from pytask.store.target import Target
from pytask.store.workflows import Workflows


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a person wants to know of the server."""

    name: str
    version: str
    maxmemory: int
    policy: str
    persistent: bool

    def warnings(self) -> list[str]:
        """What may cost tasks, in words."""
        found = []
        if self.maxmemory and self.policy != "noeviction":
            found.append(f"maxmemory-policy {self.policy} may evict tasks: set it to noeviction")
        if not self.persistent:
            found.append("the server keeps nothing on disk: a restart of it loses every task")
        return found


class Store:
    """Everything that pytask says to Redis, in one namespace, over one client.

    `patience`, `durable`: see Client. `size`: connections to each server at most. A store is
    safe to share between threads, and between greenlets.
    """

    def __init__(
        self,
        target: Target,
        namespace: str = "",
        *,
        patience: float | None = 5.0,
        timeout: float = 5.0,
        size: int = 16,
        name: str = "",
        durable: bool = False,
    ) -> None:
        self.target = target
        self.keys = Keys(namespace)
        servers = target.servers(timeout=timeout, size=size, name=name)
        self._speak_through(Client(servers, patience, durable=durable))

    def _speak_through(self, client: Client) -> None:
        self.client = client
        self.records = Records(self.client, self.keys)
        self.queues = Queues(self.client, self.keys)
        self.endings = Endings(self.client, self.keys)
        self.node_records = NodeRecords(self.client, self.keys)
        self.traces = Traces(self.client, self.keys)
        self.limits = Limits(self.client, self.keys)
        self.schedules = Schedules(self.client, self.keys)
        self.services = Services(self.client, self.keys)
        self.workflows = Workflows(self.client, self.keys)
        self.expiry = Expiry(self.records, self.workflows)
        self.inventory = Inventory(self.client, self.keys)
        self.namespaces = Namespaces(self.client)

    def with_patience(self, patience: float | None) -> Store:
        """This store, over the same connections, with another patience."""
        other = copy(self)
        other._speak_through(Client(self.client.servers, patience, durable=self.client.durable))
        return other

    def claims(self, queue: str = "") -> Claims:
        """The claims of a queue."""
        return Claims(self.client, self.keys.queue(queue))

    def purge(self, queue: str = "") -> Purge:
        """The purge of a queue."""
        return Purge(self.client, self.keys, queue)

    def membership(self, queue: str = "") -> Membership:
        """The nodes of a queue."""
        return Membership(self.client, self.keys.queue(queue))

    def ping(self) -> None:
        """Raises StoreUnavailable or StoreRefused where the server cannot be used."""
        self.client.execute("PING", patience=0)

    def check_durable(self) -> None:
        """Raises StoreRefused where a master has no replica that could confirm a write."""
        for address, reply in self.client.execute_everywhere("INFO", "replication", masters=True).items():
            if _read_info(reply).get("connected_slaves", "0") == "0":
                raise StoreRefused(f"durable: the server {address} has no replica that could confirm a write")

    def get_server_info(self) -> ServerInfo:
        """Name, version and what of its settings matters to us."""
        info = _read_info(self.client.execute("INFO"))
        saves = info.get("aof_enabled") == "1" or self._get_config("save", "?")
        return ServerInfo(
            name=info.get("server_name", "redis"),
            version=info.get("valkey_version") or info.get("redis_version", "?"),
            maxmemory=int(info.get("maxmemory", 0)),
            policy=info.get("maxmemory_policy", "noeviction"),
            persistent=bool(saves),
        )

    def _get_config(self, name: str, default: str) -> str:
        try:
            reply = self.client.execute("CONFIG", "GET", name, patience=0)
        except StoreError:  # a managed server forbids CONFIG: then we do not know
            return default
        return reply[1].decode() if len(reply) > 1 else default

    def listen(
        self, *, channels: Sequence[bytes] = (), patterns: Sequence[bytes] = (), name: str = ""
    ) -> Listener:
        """Subscribe, on any server of a cluster. Raises StoreUnavailable, StoreRefused."""
        try:
            target = self.client.servers.get_target()
        except RedisError as error:
            raise translated(error) from error
        return Listener(target, channels=channels, patterns=patterns, name=name)

    def subscribe(self) -> Subscription:
        """A subscription to nothing so far, on any server of a cluster. Raises StoreUnavailable, StoreRefused."""
        try:
            return Subscription(self.client.servers.get_target())
        except RedisError as error:
            raise translated(error) from error

    def close(self) -> None:
        """Close the connections. Safe to repeat."""
        self.client.close()


def _read_info(reply: bytes) -> dict[str, str]:
    """The reply of INFO by name."""
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
