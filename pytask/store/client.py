"""One client: sends commands and scripts, tries again where that is safe, and names errors as pytask's.

Whatever is sent here may run twice, since a reply may be lost; callers send only what is safe to repeat,
or set `patience` to 0. A wrong password or a key of another type is refused at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.crc import key_slot

from pytask.errors import StoreError, StoreRefused, StoreUnavailable
from pytask.store.scripts import Script, script
from pytask.store.servers import Command, OneServer, Reply, Servers

if TYPE_CHECKING:
    from pytask.store.target import Target

# The first words of errors that pass by themselves.
PASSING = (
    "LOADING", "BUSY", "MISCONF", "OOM", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS",
    "UNBLOCKED",
)  # fmt: skip
PASSING_KINDS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.TryAgainError,
    exceptions.AskError,  # and MOVED
    exceptions.NoScriptError,  # somebody flushed the scripts a moment ago
)
REFUSED = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
    exceptions.AuthenticationWrongNumberOfArgsError,
)
MOST_KEYS = 250  # tasks a script call: large enough to be cheap, small enough not to hold the server up
FIRST_DELAY, LAST_DELAY = 0.02, 0.7  # seconds between tries


def passes(error: Exception) -> bool:
    """Does this error pass by itself, so that trying again makes sense?"""
    if isinstance(error, REFUSED):
        return False
    if isinstance(error, PASSING_KINDS):
        return True
    return isinstance(error, exceptions.ResponseError) and str(error).startswith(PASSING)


def translated(error: Exception) -> StoreError:
    """The same error as one of pytask's. Redis names no passwords in its errors."""
    kind = StoreUnavailable if passes(error) else StoreRefused
    return kind(f"Redis: {error}")


def as_dict(reply: object) -> dict[bytes, bytes]:
    """The reply of HGETALL as a dict, whether the client made one of it or not."""
    if isinstance(reply, dict):
        return reply
    assert isinstance(reply, list | tuple)
    return dict(zip(reply[::2], reply[1::2], strict=True))


# What a replica need not have heard of, even where everything else waits for one.
FLEETING = frozenset({"beat", "emit", "PING", "PUBLISH", "BLMOVE", "HGETALL", "HMGET", "HGET", "GET",
                      "LRANGE", "LLEN",
                      "EXISTS", "XRANGE", "ZRANGE", "ZMSCORE", "PUBSUB", "SCAN", "HSCAN", "HKEYS", "INFO",
                      "CONFIG", "look", "lease", "glance"})  # fmt: skip


class Client:
    """Sends commands to the servers, and again where that makes sense.

    `patience` is for how many seconds a call is tried anew; None for ever, 0 not at all. `durable`: a write
    counts only when a replica has heard of it.
    """

    def __init__(self, servers: Servers, patience: float | None = 5.0, *, durable: bool = False) -> None:
        self.servers = servers
        self.patience = patience
        self.durable = durable

    def execute(self, *command: Any, patience: float | bool | None = True) -> Any:
        """The reply to one command. Raises StoreUnavailable, StoreRefused."""
        return self._persist([command], patience, fleeting=command[0] in FLEETING)[0]

    def pipeline(
        self,
        commands: Sequence[Command],
        patience: float | bool | None = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Any]:
        """The replies to several commands sent at once, in their order, without a transaction.

        `meanwhile` may be called, once, while a server works on them.
        """
        fleeting = all(command[0] in FLEETING for command in commands)
        return self._persist(commands, patience, fleeting=fleeting, meanwhile=meanwhile)

    def sequence(self, *phases: Sequence[Command]) -> None:
        """Send several pipelines, none before those ahead of it were obeyed; one round trip to a single server."""
        if self.servers.one:
            self._persist([command for phase in phases for command in phase])
            return
        for phase in phases:
            self._persist(phase)

    def call(
        self, name: str, keys: Sequence[bytes], args: Sequence[Any], patience: float | bool | None = True
    ) -> Any:
        """The reply of one script."""
        return self._persist([_evaluation(script(name), keys, args)], patience, fleeting=name in FLEETING)[0]

    def call_many(
        self, name: str, calls: Sequence[tuple[Sequence[bytes], Sequence[Any]]], *, partial: bool = False
    ) -> list[Any]:
        """The replies of several calls (keys, arguments) of one script, sent at once.

        With `partial` a StoreUnavailable stands in place of each that did not come.
        """
        code = script(name)
        commands = [_evaluation(code, keys, args) for keys, args in calls]
        return self._persist(commands, fleeting=name in FLEETING, partial=partial) if commands else []

    def call_each(
        self,
        name: str,
        keys: Sequence[bytes],
        shared: Sequence[Any],
        each: Sequence[Any],
        width: int,
        *,
        beside: Sequence[bytes] = (),
        partial: bool = False,
    ) -> list[Any]:
        """The replies of a script that takes many keys, `width` arguments each, in the order of the keys.

        The keys of one call lie in one slot; calls for many slots go out together. `beside`: a second key for
        each, of the same slot. With `partial` a StoreUnavailable stands in place of each reply that did not come:
        the other keys have theirs.
        """
        code = script(name)
        if self.servers.one and len(keys) <= MOST_KEYS:
            words = [key for pair in zip(keys, beside, strict=True) for key in pair] if beside else keys
            command = _evaluation(code, words, [*shared, *each])
            reply = self._persist([command], fleeting=name in FLEETING, partial=partial)[0]
            return [reply] * len(keys) if isinstance(reply, StoreUnavailable) else list(reply)
        groups = [range(len(keys))] if self.servers.one else by_slot(keys)
        parts = [group[n : n + MOST_KEYS] for group in groups for n in range(0, len(group), MOST_KEYS)]
        commands = []
        for part in parts:
            args = [arg for n in part for arg in each[n * width : (n + 1) * width]]
            words = [key for n in part for key in ((keys[n], beside[n]) if beside else (keys[n],))]
            commands.append(_evaluation(code, words, [*shared, *args]))
        replies: list[Any] = [None] * len(keys)
        answered = self._persist(commands, fleeting=name in FLEETING, partial=partial)
        _spread(parts, answered, replies)
        return replies

    def call_groups(self, name: str, groups: Sequence[Sequence[bytes]], args: Sequence[Any]) -> list[Any]:
        """The replies of a script that takes groups of keys, each group in one slot: one a group. Tried once.

        None for a group that is torn: its slot is on its way to another server. A StoreUnavailable for one whose
        server did not answer. Every server is asked before StoreRefused is raised.
        """
        numbers = range(len(groups))
        parts = [numbers] if self.servers.one else [numbers[n : n + 1] for n in numbers]
        commands = [_evaluation(script(name), [key for n in part for key in groups[n]], args) for part in parts]
        replies: list[Any] = [None] * len(groups)
        for part, reply in zip(parts, self.servers.send(commands), strict=True):
            if isinstance(reply, exceptions.TryAgainError):
                continue
            answers = translated(reply) if isinstance(reply, exceptions.RedisError) else reply
            if isinstance(answers, StoreRefused):
                raise answers
            _spread([part], [answers], replies)
        return replies

    def execute_everywhere(self, *command: Any, masters: bool = False) -> dict[str, Any]:
        """The replies of all servers (of all masters) by address, once; one that does not answer is left out."""
        replies = self.servers.send_everywhere(command, masters=masters)
        return {address: reply for address, reply in replies.items() if not isinstance(reply, Exception)}

    def iter_keys(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        """Keys of all masters, in batches of about `count`; one may come twice. Raises StoreError."""
        for target in self._get_masters():
            one = Client(target.servers(size=1), self.patience)
            try:
                cursor: Any = 0
                while True:
                    cursor, keys = one.execute("SCAN", cursor, "MATCH", pattern, "COUNT", count)
                    yield keys
                    if int(cursor) == 0:
                        break
            finally:
                one.close()

    def _get_masters(self) -> list[Target]:
        try:
            return self.servers.get_masters()
        except exceptions.RedisError as error:
            raise translated(error) from error

    def _persist(
        self,
        commands: Sequence[Command],
        patience: float | bool | None = True,
        *,
        fleeting: bool = False,
        partial: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Send until every command has its reply, for as long as patience lasts, with growing, jittered delays.

        With `partial` what still has none then has a StoreUnavailable in its place; else the first one is raised.
        """
        durable = self.durable and not fleeting
        if meanwhile is not None and isinstance(self.servers, OneServer):
            replies = self.servers.send(commands, durable=durable, meanwhile=meanwhile)
        else:
            replies = self.servers.send(commands, durable=durable)
        failed = _failed(replies)
        if not failed:
            return replies
        limit = self.patience if patience is True else patience
        deadline = None if limit is None else time.monotonic() + limit
        delay = FIRST_DELAY
        while failed:
            wait = delay * random.uniform(0.5, 1.0)
            late = deadline is not None and time.monotonic() + wait > deadline
            for n in failed:
                if not passes(replies[n]) or (late and not partial):
                    raise translated(replies[n]) from replies[n]
            if late:
                return [translated(r) if isinstance(r, exceptions.RedisError) else r for r in replies]
            time.sleep(wait)
            delay = min(delay * 2, LAST_DELAY)
            answers = self.servers.send([commands[n] for n in failed], durable=durable)
            for n, answer in zip(failed, answers, strict=True):
                replies[n] = answer
            failed = _failed(replies)
        return replies

    def close(self) -> None:
        """Close every connection. Safe to repeat."""
        self.servers.close()


def _evaluation(code: Script, keys: Sequence[bytes], args: Sequence[Any]) -> Command:
    return ("EVALSHA", code.sha, len(keys), *keys, *args)


def _spread(parts: Sequence[Sequence[int]], answered: Sequence[Any], replies: list[Any]) -> None:
    """Put the answers of each part, or the error that stands for all of them, where they belong."""
    for part, answers in zip(parts, answered, strict=True):
        each = [answers] * len(part) if isinstance(answers, StoreUnavailable) else answers
        for n, answer in zip(part, each, strict=True):
            replies[n] = answer


def _failed(replies: Sequence[Reply]) -> list[int]:
    return [n for n, reply in enumerate(replies) if isinstance(reply, exceptions.RedisError)]


def by_slot(keys: Sequence[bytes]) -> list[list[int]]:
    """The numbers of the keys, a list for each slot."""
    groups: dict[int, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key_slot(key), []).append(number)
    return list(groups.values())
