"""The store: one client and the concerns that speak through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytask.errors import StoreError
from pytask.keys import Keys
from pytask.store.claims import Claims
from pytask.store.client import Client
from pytask.store.endings import Endings
from pytask.store.membership import Membership, NodeRecords
from pytask.store.queues import Queues
from pytask.store.records import Records
from pytask.store.target import Target


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

    `patience`: see Client. A store is safe to share between threads, and between greenlets.
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
    ) -> None:
        self.target = target
        self.keys = Keys(namespace)
        self.client = Client(target.client(timeout=timeout, size=size, name=name), patience)
        self.records = Records(self.client, self.keys)
        self.queues = Queues(self.client, self.keys)
        self.endings = Endings(self.client, self.keys)
        self.node_records = NodeRecords(self.client, self.keys)

    def claims(self, queue: str = "") -> Claims:
        """The claims of a queue."""
        return Claims(self.client, self.keys.queue(queue))

    def membership(self, queue: str = "") -> Membership:
        """The nodes of a queue."""
        return Membership(self.client, self.keys.queue(queue))

    def ping(self) -> None:
        """Raises StoreUnavailable or StoreRefused where the server cannot be used."""
        self.client.execute("PING", patience=0)

    def get_server_info(self) -> ServerInfo:
        """Name, version and what of its settings matters to us."""
        info: dict[str, Any] = self.client.persist(self.client.raw.info)
        saves = info.get("aof_enabled") or self._get_config("save", "?")
        return ServerInfo(
            name=str(info.get("server_name", "redis")),
            version=str(info.get("valkey_version") or info.get("redis_version", "?")),
            maxmemory=int(info.get("maxmemory", 0)),
            policy=str(info.get("maxmemory_policy", "noeviction")),
            persistent=bool(saves),
        )

    def _get_config(self, name: str, default: str) -> str:
        try:
            reply = self.client.persist(lambda: self.client.raw.config_get(name), 0)
        except StoreError:  # a managed server forbids CONFIG: then we do not know
            return default
        return str(reply.get(name, default))

    def close(self) -> None:
        """Close the connections. Safe to repeat."""
        self.client.close()
