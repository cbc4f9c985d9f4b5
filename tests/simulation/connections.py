"""What stands in for redis-py, and for the modules of the store that hold its connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from redis import exceptions

from pytask.errors import StoreUnavailable
from pytask.store.listener import Message
from simulation.hub import Event
from simulation.network import Command, Machine, encoded
from simulation.server import TASK_SLOT, slot_of


class SimListener:
    """pytask.store.listener.Listener."""

    def __init__(
        self, target: SimTarget, *, channels: Sequence[bytes] = (), patterns: Sequence[bytes] = (), name: str = ""
    ) -> None:
        self.machine = target.machine
        self.network = network = target.machine.network
        self.channels = tuple(channels)
        self.patterns = tuple(patterns)
        self._messages: deque[Message] = deque()
        self._wake = Event()
        self._broken = False
        try:
            network.send(self.machine, name, [(b"PING",)])
        except exceptions.ConnectionError as error:
            raise StoreUnavailable(str(error)) from None
        network.listeners.append(self)

    def hears(self, channel: bytes) -> bool:
        text = channel.decode()
        return channel in self.channels or any(fnmatchcase(text, pattern.decode()) for pattern in self.patterns)

    def take(self, message: Message) -> None:
        self._messages.append(message)
        self._wake.set()

    def break_off(self) -> None:
        self._broken = True
        self._wake.set()
        self.close()

    def get(self, timeout: float = 0) -> Message:
        """The next message; waits for it, however long."""
        while not self._messages:
            if self._broken:
                raise StoreUnavailable("the subscription broke")
            self._wake.clear()
            self._wake.wait()
        return self._messages.popleft()

    def close(self) -> None:
        network = self.network
        if self in network.listeners:
            network.listeners.remove(self)
            network.gone_since |= dict.fromkeys(self.channels, network.hub.now)


class SimTarget:
    """pytask.store.target.Target: which server, seen from which machine."""

    address = "simulated"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def servers(self, *, timeout: float | None = None, size: int = 0, name: str = "") -> SimServers:
        return SimServers(self, name)


class SimServers:
    """pytask.store.servers.Servers: a single server, or a cluster in which every slot has one of its own."""

    def __init__(self, target: SimTarget, role: str) -> None:
        self.target = target
        self.machine = target.machine
        self.role = role
        self.one = not target.machine.network.cluster

    def send(self, commands: Sequence[Sequence[Any]], *, durable: bool = False) -> list[Any]:
        words = [encoded(command) for command in commands]
        if self.one or len(words) == 1:
            return self._send(words)
        replies: list[Any] = [None] * len(words)
        units = [self.machine.spawn(self._send_some, words, numbers, replies) for numbers in _by_server(words)]
        for unit in units:
            unit.join()
        return replies

    def _send(self, words: list[Command]) -> list[Any]:
        try:
            return self.machine.network.send(self.machine, self.role, words)
        except exceptions.ConnectionError as error:
            return [error] * len(words)

    def _send_some(self, words: list[Command], numbers: list[int], replies: list[Any]) -> None:
        for number, reply in zip(numbers, self._send([words[n] for n in numbers]), strict=True):
            replies[number] = reply

    def send_everywhere(self, command: Sequence[Any], *, masters: bool = False) -> dict[str, Any]:
        return {SimTarget.address: self.send([command])[0]}

    def get_target(self) -> SimTarget:
        return self.target

    def get_masters(self) -> list[SimTarget]:
        return [self.target]

    def close(self) -> None:
        pass


def _by_server(words: Sequence[Command]) -> Iterator[list[int]]:
    """The numbers of the commands that go to one server each; records are spread over all of them."""
    groups: dict[object, list[int]] = {}
    for number, command in enumerate(words):
        key = command[3] if command[0] == b"EVALSHA" else command[1]
        slot = slot_of(key)
        groups.setdefault(key if slot == TASK_SLOT else slot, []).append(number)
    yield from groups.values()


class SimClient:
    """A raw producer's client."""

    def __init__(self, machine: Machine, role: str) -> None:
        self.machine = machine
        self.role = role

    def execute_command(self, *words: Any) -> Any:
        """The reply. Raises ConnectionError, ResponseError."""
        reply = self.machine.network.send(self.machine, self.role, [encoded(words)])[0]
        if isinstance(reply, exceptions.ResponseError):
            raise reply
        return reply
