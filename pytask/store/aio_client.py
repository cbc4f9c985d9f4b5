"""The client for asyncio: redis-py's own, under the rules of `client`. One belongs to one event loop.

Whatever is sent may run twice, since a reply may be lost; redis-py's retries are off, since they repeat what must
not be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio import connection as connections
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection

from pytask.errors import ConfigurationError
from pytask.store.aio_subscription import AioSubscription
from pytask.store.client import FIRST_DELAY, FLEETING, LAST_DELAY, passes, translated
from pytask.store.cluster import CHANGED, ClusterTarget
from pytask.store.scripts import script, source_of
from pytask.store.sentinel import ASK_TIMEOUT, SentinelTarget
from pytask.store.servers import WAIT_MS, Command, Reply
from pytask.store.target import Target

TIMEOUT = 5.0  # seconds that a server may take
SIZE = 50  # commands or pipelines under way at a time


class AioClient:
    """Sends commands to the servers, and again where that makes sense; see `client.Client`.

    Raises StoreUnavailable and StoreRefused, and ConfigurationError for what asyncio cannot have.
    """

    def __init__(self, target: Target, *, patience: float = 5.0, durable: bool = False) -> None:
        if durable and isinstance(target, ClusterTarget):
            raise ConfigurationError(
                "durable=True is not to be had with asyncio on a cluster: use task_app.helpers"
            )
        self.one = not isinstance(target, ClusterTarget)
        self.patience = patience
        self.durable = durable
        self._target = target
        self._redis = _make_client(target)
        self._places = asyncio.Semaphore(SIZE)
        self._learning = asyncio.Lock()

    async def execute(self, *command: Any) -> Any:
        """The reply to one command."""
        return (await self.pipeline([command]))[0]

    async def call(
        self, name: str, keys: Sequence[bytes], args: Sequence[Any], patience: float | None = None
    ) -> Any:
        """The reply of one script."""
        code = script(name)
        fleeting = name in FLEETING
        command = ("EVALSHA", code.sha, len(keys), *keys, *args)
        return (await self.pipeline([command], patience, fleeting=fleeting))[0]

    async def pipeline(
        self, commands: Sequence[Command], patience: float | None = None, *, fleeting: bool | None = None
    ) -> list[Any]:
        """The replies to commands that are sent at once, in their order, without a transaction.

        Tried again for `patience` seconds (None: the client's own), with growing, jittered delays.
        """
        if fleeting is None:
            fleeting = all(command[0] in FLEETING for command in commands)
        deadline = time.monotonic() + (self.patience if patience is None else patience)
        replies: list[Reply] = [None] * len(commands)
        left, delay = list(range(len(commands))), FIRST_DELAY
        while True:
            answers = await self._send([commands[n] for n in left], durable=self.durable and not fleeting)
            for n, answer in zip(left, answers, strict=True):
                replies[n] = answer
            left = [n for n in left if isinstance(replies[n], Exception)]
            if not left:
                return replies
            pause = delay * random.uniform(0.5, 1.0)
            for n in left:
                if not passes(replies[n]) or time.monotonic() + pause > deadline:
                    raise translated(replies[n]) from replies[n]
            await asyncio.sleep(pause)
            delay = min(delay * 2, LAST_DELAY)

    async def _send(self, commands: Sequence[Command], *, durable: bool) -> list[Reply]:
        """Each command's reply or error. Scripts that a server does not know are loaded first."""
        replies = await self._send_once(commands, durable=durable)
        unknown = [n for n, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
        if unknown:
            problem = await self._load({source_of(commands[n][1]) for n in unknown})
            left = [commands[n] for n in unknown]
            again = [problem] * len(left) if problem else await self._send_once(left, durable=durable)
            for n, reply in zip(unknown, again, strict=True):
                replies[n] = reply
        return replies

    async def _load(self, sources: Iterable[str]) -> exceptions.RedisError | None:
        """Load scripts, on every master; returns what went wrong."""
        try:
            for source in sources:
                await self._redis.script_load(source)
        except exceptions.RedisError as error:
            return error
        return None

    async def _send_once(self, commands: Sequence[Command], *, durable: bool) -> list[Reply]:
        cancels = _count_cancels()
        try:
            async with self._places:
                pipeline = self._redis.pipeline(transaction=False) if self.one else self._redis.pipeline()
                for command in commands:
                    pipeline.execute_command(*command)
                if durable:
                    pipeline.execute_command("WAIT", 1, WAIT_MS)
                replies: list[Reply] = await pipeline.execute(raise_on_error=False)
        except exceptions.RedisError as error:
            replies = [error] * len(commands)
        except (TimeoutError, OSError) as error:
            replies = [exceptions.ConnectionError(str(error))] * len(commands)
        else:
            replies = _heard(replies) if durable else replies
        if _count_cancels() > cancels:  # redis-py's wait_for, of Python 3.11, loses one that comes with the reply
            raise asyncio.CancelledError
        if not self.one and any(isinstance(reply, CHANGED) for reply in replies):
            await self._learn_slots()
        return replies

    async def _learn_slots(self) -> None:
        """Ask the cluster anew who holds what, which redis-py's pipelines do only where they try again."""
        if self._learning.locked():
            return  # somebody else asks
        async with self._learning:
            with contextlib.suppress(exceptions.RedisError, OSError, asyncio.TimeoutError):
                await self._redis.nodes_manager.initialize()

    async def subscribe(self) -> AioSubscription:
        """A subscription to nothing so far, on any server of a cluster."""
        try:
            return await AioSubscription.open(await self._make_connection())
        except exceptions.RedisError as error:
            raise translated(error) from error

    async def _make_connection(self) -> Any:
        if isinstance(self._target, ClusterTarget):
            await self._redis.initialize()
            node = random.choice(self._redis.get_nodes())
            return node.connection_class(**node.connection_kwargs)
        return self._redis.connection_pool.make_connection()

    async def close(self) -> None:
        """Close every connection. Safe to repeat."""
        if not self.one:
            await self._redis.aclose()
            return
        manager = getattr(self._redis.connection_pool, "sentinel_manager", None)
        await self._redis.aclose(close_connection_pool=True)
        for sentinel in manager.sentinels if manager else ():
            await sentinel.aclose(close_connection_pool=True)


def _count_cancels() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _heard(replies: Sequence[Reply]) -> list[Reply]:
    """The replies before that of WAIT, or errors in their places where no replica has heard of the writes."""
    *replies, heard = replies
    if isinstance(heard, int) and heard >= 1:
        return list(replies)
    return [exceptions.ResponseError("NOREPLICAS durable: no replica has confirmed the write")] * len(replies)


def _make_client(target: Target) -> Any:
    common: dict[str, Any] = {"socket_timeout": TIMEOUT, "protocol": 2}
    if isinstance(target, ClusterTarget):
        return redis.RedisCluster(
            startup_nodes=[redis.cluster.ClusterNode(*seed) for seed in target.seeds],
            address_remap=target.remap,
            ssl=issubclass(target.connection_class, SSLConnection),
            retry=Retry(NoBackoff(), 0),
            **{"socket_connect_timeout": TIMEOUT, **_taken(redis.RedisCluster, target.arguments), **common},
        )
    kind = _kind_of(target.connection_class)
    arguments = {**_taken(kind, target.arguments), **common, "retry": Retry(NoBackoff(), 0)}
    if isinstance(target, SentinelTarget):
        guard = {**target.guard, "socket_timeout": ASK_TIMEOUT, "socket_connect_timeout": ASK_TIMEOUT}
        sentinel = Sentinel(list(target.seeds), sentinel_kwargs={**guard, "protocol": 2})
        tls = issubclass(target.connection_class, SSLConnection)
        return sentinel.master_for(target.service, ssl=tls, **arguments)
    if kind is not connections.UnixDomainSocketConnection:
        arguments = {"socket_connect_timeout": TIMEOUT, "socket_keepalive": True, **arguments}
    pool = redis.BlockingConnectionPool(max_connections=SIZE, timeout=TIMEOUT, connection_class=kind, **arguments)
    return redis.Redis(connection_pool=pool)


def _kind_of(kind: type[AbstractConnection]) -> type[connections.AbstractConnection]:
    """The class of asyncio that belongs to one of the others."""
    if issubclass(kind, SSLConnection):
        return connections.SSLConnection
    if issubclass(kind, UnixDomainSocketConnection):
        return connections.UnixDomainSocketConnection
    return connections.Connection


def _taken(kind: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, if asyncio's connections have all of them. Raises ConfigurationError."""
    known: set[str] = set()
    for base in inspect.getmro(kind):
        if base is not object:
            known |= set(inspect.signature(base).parameters)
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise ConfigurationError(f"asyncio has no connection argument {', '.join(map(repr, unknown))}")
    return dict(arguments)
