"""Redis Cluster: which server holds a slot, learnt once for all greenlets, and commands sent to many at a time.

A command goes to the master of its key's slot; commands for one server go out together, and all servers are
written to before any is read. MOVED and ASK are followed at once; everything else that passes is left to the
client's patience. Any error that hints at a change of the cluster makes the next call learn the slots anew: one
greenlet asks, the others wait for its answer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import RedisCluster, exceptions
from redis.cluster import ClusterNode
from redis.connection import BlockingConnectionPool, SSLConnection
from redis.crc import key_slot

from pytask.store.servers import (
    Command,
    Exchange,
    Reply,
    Server,
    grouped,
    key_of,
)
from pytask.store.target import Target

Address = tuple[str, int]

MOST_REDIRECTIONS = 5
LEAST_PAUSE = 0.1  # seconds between two questions for the slots
ASK_TIMEOUT = 2.0  # seconds that a server may take to tell its slots
# Errors after which the slots may lie elsewhere.
CHANGED = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterDownError,
    exceptions.ReadOnlyError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTarget(Target):
    """A cluster: some of its servers, and the arguments of every connection."""

    seeds: tuple[Address, ...]
    remap: Callable[[Address], Address] | None = None

    @property
    def address(self) -> str:
        """The servers that were named, for people."""
        return "cluster " + ",".join(f"{host}:{port}" for host, port in self.seeds)

    def at(self, address: Address) -> Target:
        """One server of it."""
        host, port = self.remap(address) if self.remap else address
        return Target(self.connection_class, {**self.arguments, "host": host, "port": port})

    def servers(self, *, timeout: float | None = 5.0, size: int = 16, name: str = "") -> ClusterServers:
        """The way to all servers."""
        return ClusterServers(self, timeout=timeout, size=size, name=name)

    def client(self, *, timeout: float | None = 5.0, size: int = 16, name: str = "") -> Any:
        """A `redis.RedisCluster` with at most `size` connections a server. It connects at once: RedisError."""
        (host, port), *others = self.seeds
        host = f"[{host}]" if ":" in host else host
        scheme = "rediss" if issubclass(self.connection_class, SSLConnection) else "redis"
        return RedisCluster(
            url=f"{scheme}://{host}:{port}",  # by its name alone, pools that block cannot be had
            startup_nodes=[ClusterNode(*seed) for seed in others],
            connection_pool_class=BlockingConnectionPool,
            address_remap=self.remap,
            socket_timeout=timeout,
            max_connections=size,
            client_name=name or None,
            protocol=2,
            **{"socket_connect_timeout": min(timeout or 5.0, 5.0), **self.arguments},
        )


class Slots(NamedTuple):
    """What a cluster says of itself: who is the master of each slot, and all servers."""

    masters: list[Address | None]  # by slot
    known: frozenset[Address]


class ClusterServers:
    """All servers of a cluster."""

    one = False

    def __init__(self, target: ClusterTarget, *, timeout: float | None, size: int, name: str) -> None:
        self.target = target
        self._how: dict[str, Any] = {"timeout": timeout, "size": size, "name": name}
        self._servers: dict[Address, Server] = {}
        self._slots: Slots | None = None
        self._lock = threading.Lock()
        self._stale = True
        self._asked = 0.0  # monotonic second

    # Sending.

    def send(self, commands: Sequence[Command], *, durable: bool = False) -> list[Reply]:
        """Each command's reply or error, in order."""
        try:
            slots = self._get_slots()
        except exceptions.RedisError as error:
            return [error] * len(commands)
        replies: list[Reply] = [None] * len(commands)
        places = [(self._master(slots, command), False) for command in commands]
        left = list(range(len(commands)))
        for _ in range(MOST_REDIRECTIONS):
            self._send_each(commands, left, places, replies, durable=durable)
            left = [n for n in left if self._is_redirected(replies[n], n, places)]
            if not left:
                break
        if not self._stale and any(isinstance(reply, CHANGED) for reply in replies):
            self._stale = True
        return replies

    def _master(self, slots: Slots, command: Command) -> Address | None:
        key = key_of(command)
        if key is None:
            return random.choice([address for address in set(slots.masters) if address] or [*slots.known])
        return slots.masters[key_slot(key if isinstance(key, bytes) else key.encode())]

    def _send_each(
        self,
        commands: Sequence[Command],
        numbers: list[int],
        places: list[tuple[Address | None, bool]],
        replies: list[Reply],
        *,
        durable: bool,
    ) -> None:
        """Send these commands, each to its place, all servers at a time; fill in the replies."""
        groups = grouped((places[n], n) for n in numbers)
        rows: list[tuple[Server, list[int], Exchange, dict[str, bool]]] = []
        try:
            # in one order for all, so that two greenlets never wait for each other's connections
            for (address, asking), group in sorted(groups.items(), key=_place_in_order):
                if address is None:
                    _fill(replies, group, exceptions.ClusterDownError("CLUSTERDOWN no server holds the slot"))
                    continue
                server, how = self._server(address), {"asking": asking, "durable": durable}
                try:
                    rows.append((server, group, server.begin([commands[n] for n in group], **how), how))
                except exceptions.RedisError as error:
                    _fill(replies, group, error)
            while rows:
                server, group, exchange, how = rows.pop(0)
                for n, answer in zip(group, server.finish(exchange, **how), strict=True):
                    replies[n] = answer
        finally:
            for _, _, exchange, _ in rows:
                exchange.abandon()

    def _is_redirected(self, reply: Reply, number: int, places: list[tuple[Address | None, bool]]) -> bool:
        """Does the reply send us to another server? Then that is the command's new place."""
        if not isinstance(reply, exceptions.AskError):
            return False
        asked = places[number][0]
        address = (reply.host or (asked[0] if asked else ""), reply.port)
        moved = isinstance(reply, exceptions.MovedError)
        if moved:
            self._stale = True
            if self._slots is not None:
                self._slots.masters[reply.slot_id] = address
        places[number] = (address, not moved)
        return True

    def send_everywhere(self, command: Command, *, masters: bool = False) -> dict[str, Reply]:
        """The reply or error of every server (of every master), by address."""
        try:
            slots = self._get_slots()
        except exceptions.RedisError as error:
            return {self.target.address: error}
        chosen = {a for a in slots.masters if a} if masters else slots.known
        addresses = sorted(chosen)
        replies: list[Reply] = [None] * len(addresses)
        places: list[tuple[Address | None, bool]] = [(address, False) for address in addresses]
        commands = [command] * len(addresses)
        self._send_each(commands, list(range(len(addresses))), places, replies, durable=False)
        if any(isinstance(reply, CHANGED) for reply in replies):
            self._stale = True
        return {f"{host}:{port}": reply for (host, port), reply in zip(addresses, replies, strict=True)}

    def get_target(self) -> Target:
        """Any server that is known: each one hears what is published on any."""
        return self.target.at(random.choice(sorted(self._get_slots().known)))

    def get_masters(self) -> list[Target]:
        """The masters that hold slots."""
        return [self.target.at(address) for address in sorted({a for a in self._get_slots().masters if a})]

    def _server(self, address: Address) -> Server:
        server = self._servers.get(address)
        if server is None:
            server = self._servers.setdefault(address, Server(self.target.at(address), **self._how))
        return server

    def close(self) -> None:
        """Close every connection. Safe to repeat."""
        for server in list(self._servers.values()):
            server.close()

    # Learning the slots.

    def _get_slots(self) -> Slots:
        if not self._stale and self._slots is not None:
            return self._slots
        with self._lock:
            if not self._stale and self._slots is not None:
                return self._slots  # somebody else has just asked
            if self._slots is not None and time.monotonic() - self._asked < LEAST_PAUSE:
                return self._slots
            self._asked = time.monotonic()
            self._slots = self._ask_somebody()
            self._stale = any(master is None for master in self._slots.masters)
            self._forget_gone(self._slots.known)
            return self._slots

    def _ask_somebody(self) -> Slots:
        """The slots as the first server tells them that answers. Raises the last error."""
        known = list(self._slots.known) if self._slots else []
        random.shuffle(known)
        problem: exceptions.RedisError = exceptions.ConnectionError("no server of the cluster is known")
        for address in [*known, *(seed for seed in self.target.seeds if seed not in known)]:
            server = Server(self.target.at(address), timeout=ASK_TIMEOUT, size=1, name="pytask:slots")
            try:
                reply = server.send([("CLUSTER", "SLOTS")])[0]
            finally:
                server.close()
            if not isinstance(reply, exceptions.RedisError):
                found = slots_of(reply, address[0])
                if found.known:
                    return found
                reply = exceptions.ClusterDownError("CLUSTERDOWN the server knows no slots")
            problem = reply
        raise problem

    def _forget_gone(self, known: Iterable[Address]) -> None:
        for address in set(self._servers) - set(known):
            self._servers.pop(address).forget_idle()


def slots_of(reply: Sequence[Any], host: str) -> Slots:
    """The reply of CLUSTER SLOTS, asked of a server at this host, which may leave its own name out."""
    masters: list[Address | None] = [None] * 16_384
    known: set[Address] = set()
    for first, last, *servers in reply:
        addresses = [(_text(row[0]) or host, int(row[1])) for row in servers]
        masters[first : last + 1] = [addresses[0]] * (last + 1 - first)
        known.update(addresses)
    return Slots(masters, frozenset(known))


def _text(host: bytes | str | None) -> str:
    text = host.decode() if isinstance(host, bytes) else host or ""
    return "" if text == "?" else text


def _place_in_order(item: tuple[tuple[Address | None, bool], Any]) -> tuple[Address, bool]:
    address, asking = item[0]
    return address or ("", 0), asking


def _fill(replies: list[Reply], group: list[int], error: exceptions.RedisError) -> None:
    for n in group:
        replies[n] = error
