"""Redis Sentinel: the sentinels say who the master is. After an error they are asked again, once for all.

So they are before each new connection: a master that was replaced comes back as a master, and for some seconds,
until the sentinels make a replica of it, takes writes that are thrown away then. Where redis-py finds a connection
broken it would connect to it again by itself.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection
from redis.retry import Retry
from redis.sentinel import Sentinel
from redis.utils import str_if_bytes

from pytask.store.cluster import Address
from pytask.store.servers import Command, Reply, Server
from pytask.store.target import Target

ASK_TIMEOUT = 1.0  # seconds that a sentinel may take
LEAST_PAUSE = 0.2  # seconds between two questions
SILENT_PAUSE = 10.0  # seconds for which a sentinel that did not answer is asked only where no other one does
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


class View(NamedTuple):
    """What one sentinel says."""

    epoch: int  # grows with each failover
    master: Address
    usable: bool  # as far as it knows, the master works


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
        self._asked = float("-inf")  # monotonic second
        self._problem: exceptions.RedisError | None = None  # why the last question has no answer
        self._silent_until: dict[int, float] = {}  # number of a sentinel -> monotonic second

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
            if self._stale or self._server is None:
                self._learn()
            assert self._server is not None
            return self._server

    def _learn(self) -> None:
        """Ask who the master is, unless that was done a moment ago. Needs the lock. Raises RedisError."""
        if time.monotonic() - self._asked >= LEAST_PAUSE * random.uniform(1, 1.5):
            self._problem = None
            try:
                self._use(self._ask())
                self._stale = False
            except exceptions.RedisError as error:
                self._problem = error
            self._asked = time.monotonic()
        if self._problem is not None:
            raise self._problem

    def _use(self, master: Address) -> None:
        if master == self._master and self._server is not None:
            return
        if self._server is not None:
            self._server.forget_idle()
        target = self.target.at(master)
        target = replace(target, arguments={**target.arguments, "redis_connect_func": self._greet})
        self._master, self._server = master, Server(target, **self._how)

    def _greet(self, connection: AbstractConnection) -> None:
        """Begin a new connection, if it goes to the master. Raises ConnectionError."""
        with self._lock:
            self._learn()
            current = self._master
        address: Address = (connection.host, connection.port)  # type: ignore[attr-defined]
        if address != current:
            raise exceptions.ConnectionError(f"{address[0]}:{address[1]} is the master no more")
        connection.on_connect()

    def _ask(self) -> Address:
        """Who is the master? Raises RedisError where no sentinel knows one.

        The sentinels hear of a failover one after another, within some seconds: who knows of the latest is right.
        """
        service = self.target.service
        views, problems = self._ask_all(service)
        latest = max((view.epoch for view in views), default=0)
        for view in views:
            if view.epoch == latest and view.usable:
                return view.master
        told = "; ".join(problems) or "no master that answers them"
        raise exceptions.ConnectionError(f"no sentinel knows a master {service!r}: {told}")

    def _ask_all(self, service: str) -> tuple[list[View], list[str]]:
        """What each sentinel says of the master, and the errors of those that do not answer."""
        views: list[View] = []
        problems: list[str] = []
        now, guards = time.monotonic(), self._sentinel.sentinels
        silent = {number for number, until in self._silent_until.items() if until > now}
        for number in sorted(range(len(guards)), key=lambda number: number in silent):
            if views and number in silent:
                break
            try:
                masters: Any = guards[number].sentinel_masters()
                view = self._see(guards[number], masters[service]) if service in masters else None
            except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                self._silent_until[number] = time.monotonic() + SILENT_PAUSE
                problems.append(str(error))
            else:
                self._silent_until.pop(number, None)
                if view is not None:
                    views.append(view)
        return views, problems

    def _see(self, guard: Any, state: Mapping[str, Any]) -> View:
        """What this sentinel says, with `state` as its own list of masters has it.

        The one that leads a failover has the new epoch there beside the old address, until all replicas follow the
        new master; the address that it gives when it is asked for that alone is the new one at once.
        """
        service, listed = self.target.service, (str(state["ip"]), int(state["port"]))
        told = guard.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", service)
        master = (str_if_bytes(told[0]), int(told[1])) if told else listed
        usable = master != listed or self._sentinel.check_master_state(state, service)
        return View(int(state["config-epoch"]), master, usable)
