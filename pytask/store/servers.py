"""Servers: where commands go, and what comes back. One server here; a cluster and Sentinel have modules.

`send` tries once and never raises: each command gets its reply, or the error that came in its place. Trying
again, and what an error means, is the business of `client`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import hiredis
from redis import exceptions

from pytask.store.links import Links
from pytask.store.scripts import source_of

if TYPE_CHECKING:
    from pytask.store.target import Target

Command = Sequence[Any]
Reply = Any  # or an instance of RedisError in its place

WAIT_MS = 1000  # how long a replica may take to confirm a write
ASKING = ("ASKING",)


class Servers(Protocol):
    """All servers of one installation."""

    one: bool  # is there a single one, so that commands in a row are obeyed in order?

    def send(self, commands: Sequence[Command], *, durable: bool = False) -> list[Reply]:
        """Each command's reply or error, in order. `durable`: not before a replica has heard of them."""

    def send_everywhere(self, command: Command, *, masters: bool = False) -> dict[str, Reply]:
        """The reply or error of every server (of every master), by address."""

    def get_target(self) -> Target:
        """A server that may be subscribed to. Raises RedisError where none is known."""

    def get_masters(self) -> list[Target]:
        """Every server that takes writes. Raises RedisError where none is known."""

    def close(self) -> None:
        """Close every connection. Safe to repeat."""


class Exchange:
    """Commands that were sent on one connection, and whose replies are to be read.

    `asking`: each with an ASKING before it. `durable`: a WAIT behind all. `loads`: scripts to load first.
    """

    __slots__ = ("_asking", "_durable", "_link", "_links", "_loads", "_words", "commands")

    def __init__(
        self,
        links: Links,
        commands: Sequence[Command],
        *,
        asking: bool = False,
        durable: bool = False,
        loads: Sequence[str] = (),
    ) -> None:
        """Send. Raises RedisError, and gives the connection back."""
        self.commands = commands
        self._links = links
        self._asking, self._durable, self._loads = asking, durable, loads
        self._words = self._framed() if asking or durable or loads else commands
        packed = pack(self._words)
        self._link = links.take()
        sent = False
        try:
            self._link.connection.send_packed_command([packed])
            sent = True
        finally:
            if not sent:
                self.abandon()

    def _framed(self) -> list[Command]:
        words: list[Command] = [("SCRIPT", "LOAD", source) for source in self._loads]
        for command in self.commands:
            words += (ASKING, command) if self._asking else (command,)
        return [*words, ("WAIT", 1, WAIT_MS)] if self._durable else words

    def abandon(self) -> None:
        """Give the connection back, closed: a reply may still be on its way."""
        self._links.drop(self._link)

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Do something else before the replies are read. What it raises gives the connection back."""
        try:
            meanwhile()
        except BaseException:
            self.abandon()
            raise

    def read(self) -> list[Reply]:
        """Every command's reply or error. Never raises RedisError."""
        replies = self._read_all()
        if self._words is self.commands:
            return replies
        loaded, replies = replies[: len(self._loads)], replies[len(self._loads) :]
        for refused in (reply for reply in loaded if isinstance(reply, exceptions.NoPermissionError)):
            replies = [refused if isinstance(reply, exceptions.NoScriptError) else reply for reply in replies]
        heard = replies.pop() if self._durable else 1
        if self._asking:
            replies = replies[1::2]
        return replies if isinstance(heard, int) and heard >= 1 else [_unheard(reply, heard) for reply in replies]

    def _read_all(self) -> list[Reply]:
        replies: list[Reply] = []
        read = self._link.connection.read_response
        try:
            for _ in self._words:
                try:
                    replies.append(read())
                except exceptions.ResponseError as error:
                    replies.append(error)
        except exceptions.RedisError as error:
            self.abandon()
            return replies + [error] * (len(self._words) - len(replies))
        except BaseException:  # the greenlet is killed
            self.abandon()
            raise
        self._links.give_back(self._link)
        return replies


def pack(commands: Sequence[Command]) -> bytes:
    """Commands as they go over the wire, in one piece. Raises DataError for a word that is no text or number."""
    try:
        return b"".join([hiredis.pack_command(tuple(command)) for command in commands])
    except TypeError as error:
        raise exceptions.DataError(str(error)) from error


def _unheard(reply: Reply, heard: Reply) -> Reply:
    """No replica has heard of the write, which may be lost with its server: an error in place of the reply."""
    if isinstance(reply, exceptions.RedisError):
        return reply
    if isinstance(heard, exceptions.RedisError):
        return heard
    return exceptions.ResponseError("NOREPLICAS durable: no replica has confirmed the write")


class Server:
    """One server with a pool of connections of its own."""

    def __init__(self, target: Target, *, timeout: float | None, size: int, name: str) -> None:
        self.target = target
        self.address = target.address
        pool = target.pool(timeout=timeout, size=size, name=name)
        self._links = Links(pool, size=size, timeout=timeout)

    def begin(self, commands: Sequence[Command], **how: Any) -> Exchange:
        """Send commands; what is returned reads the replies. Raises RedisError. `how`: see Exchange."""
        return Exchange(self._links, commands, **how)

    def send(
        self, commands: Sequence[Command], meanwhile: Callable[[], None] | None = None, **how: Any
    ) -> list[Reply]:
        """Each command's reply or error. `meanwhile` is called between sending and reading."""
        try:
            exchange = self.begin(commands, **how)
        except exceptions.RedisError as error:
            return [error] * len(commands)
        if meanwhile is not None:
            exchange.wait(meanwhile)
        return self.finish(exchange, **how)

    def finish(self, exchange: Exchange, **how: Any) -> list[Reply]:
        """Read every reply. Scripts that the server does not know are loaded, and their commands sent anew."""
        replies = exchange.read()
        unknown = [
            n
            for n, reply in enumerate(replies)
            if isinstance(reply, exceptions.NoScriptError) and source_of(exchange.commands[n][1])
        ]
        if unknown:
            commands = [exchange.commands[n] for n in unknown]
            loads = sorted({source_of(command[1]) for command in commands})
            try:
                again = self.begin(commands, **how, loads=loads).read()
            except exceptions.RedisError as error:
                again = [error] * len(unknown)
            for n, reply in zip(unknown, again, strict=True):
                replies[n] = reply
        return replies

    def forget_idle(self) -> None:
        """Close the connections that nobody uses now."""
        self._links.close_idle()

    def close(self) -> None:
        """Close every connection. Safe to repeat."""
        self._links.close()


class OneServer:
    """A single server."""

    one = True

    def __init__(self, target: Target, *, timeout: float | None, size: int, name: str) -> None:
        self._server = Server(target, timeout=timeout, size=size, name=name)

    def send(
        self, commands: Sequence[Command], *, durable: bool = False, meanwhile: Callable[[], None] | None = None
    ) -> list[Reply]:
        """Each command's reply or error, in order. `meanwhile` is called, once, while the server works."""
        return self._server.send(commands, meanwhile, durable=durable)

    def send_everywhere(self, command: Command, *, masters: bool = False) -> dict[str, Reply]:  # noqa: ARG002
        """The reply or error of the server."""
        return {self._server.address: self._server.send([command])[0]}

    def get_target(self) -> Target:
        """The server."""
        return self._server.target

    def get_masters(self) -> list[Target]:
        """The server."""
        return [self._server.target]

    def close(self) -> None:
        """Close every connection. Safe to repeat."""
        self._server.close()


# Which key decides where a command goes.

_KEYLESS = frozenset(
    {"PING", "INFO", "TIME", "PUBSUB", "SCRIPT", "CONFIG", "CLIENT", "CLUSTER", "COMMAND", "ACL", "DBSIZE", "SCAN",
     "WAIT", "ECHO", "ROLE", "SLOWLOG", "LATENCY", "FLUSHALL", "FLUSHDB", "RANDOMKEY", "KEYS", "LASTSAVE", "HELLO"}
)  # fmt: skip
_KEY_THIRD = frozenset({"OBJECT", "MEMORY", "XINFO", "XGROUP"})
_KEY_AFTER_COUNT = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})


def key_of(command: Command) -> bytes | str | None:
    """The first key of a command; None where it has none and any server may take it."""
    name = command[0] if isinstance(command[0], str) else command[0].decode("ascii", "replace")
    name = name.upper()
    if name in _KEYLESS:
        return None
    place = 3 if name in _KEY_AFTER_COUNT else 2 if name in _KEY_THIRD else 1
    return command[place] if len(command) > place else None


def grouped(items: Iterable[tuple[Any, int]]) -> Mapping[Any, list[int]]:
    """Numbers by what they go to, each in order."""
    groups: dict[Any, list[int]] = {}
    for place, number in items:
        groups.setdefault(place, []).append(number)
    return groups
