"""One client: sends commands and scripts, tries again where that is safe, and names errors as pytask's.

Whatever is sent here may run twice, since a reply may be lost; callers send only what is safe to repeat,
or set `patience` to 0. A wrong password or a key of another type is refused at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis import exceptions

from pytask.errors import StoreError, StoreRefused, StoreUnavailable
from pytask.store.scripts import Script, script

T = TypeVar("T")

# The first words of errors that pass by themselves.
PASSING = (
    "LOADING", "BUSY", "MISCONF", "OOM", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS",
    "UNBLOCKED", "MOVED", "ASK",
)  # fmt: skip
REFUSED = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
    exceptions.AuthenticationWrongNumberOfArgsError,
)
MOST_KEYS = 250  # tasks a script call: large enough to be cheap, small enough not to hold the server up
FIRST_DELAY, LAST_DELAY = 0.02, 1.0  # seconds between tries


def passes(error: Exception) -> bool:
    """Does this error pass by itself, so that trying again makes sense?"""
    if isinstance(error, REFUSED):
        return False
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | exceptions.ClusterError):
        return True
    if isinstance(error, exceptions.ReadOnlyError | exceptions.OutOfMemoryError | exceptions.TryAgainError):
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


class Client:
    """A redis-py client with our way of trying again.

    `patience` is for how many seconds a call is tried anew; None for ever, 0 not at all.
    """

    def __init__(self, raw: redis.Redis, patience: float | None = 5.0) -> None:
        self.raw = raw
        self.patience = patience

    def execute(self, *command: Any, patience: float | bool | None = True) -> Any:
        """The reply to one command. Raises StoreUnavailable, StoreRefused."""
        return self.persist(lambda: self.raw.execute_command(*command), patience)

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to several commands sent at once, in their order, without a transaction."""

        def send() -> list[Any]:
            pipe = self.raw.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            return pipe.execute()

        return self.persist(send)

    def call(
        self, name: str, keys: Sequence[bytes], args: Sequence[Any], patience: float | bool | None = True
    ) -> Any:
        """The reply of one script."""
        code = script(name)
        return self.persist(lambda: self._evaluate(code, keys, args), patience)

    def call_each(
        self, name: str, keys: Sequence[bytes], shared: Sequence[Any], each: Sequence[Any], width: int
    ) -> list[Any]:
        """The replies of a script that takes many keys, `width` arguments each, in the order of the keys."""
        if len(keys) <= MOST_KEYS:
            return list(self.call(name, keys, [*shared, *each]))
        replies: list[Any] = []
        for start in range(0, len(keys), MOST_KEYS):
            end = start + MOST_KEYS
            replies += self.call(name, keys[start:end], [*shared, *each[start * width : end * width]])
        return replies

    def _evaluate(self, code: Script, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        try:
            return self.raw.execute_command("EVALSHA", code.sha, len(keys), *keys, *args)
        except exceptions.NoScriptError:
            return self.raw.execute_command("EVAL", code.source, len(keys), *keys, *args)

    def persist(self, send: Callable[[], T], patience: float | bool | None = True) -> T:
        """Send until it works, for as long as patience lasts, with growing, jittered delays."""
        limit = self.patience if patience is True else patience
        deadline = None if limit is None else time.monotonic() + limit
        delay = FIRST_DELAY
        while True:
            try:
                return send()
            except exceptions.RedisError as error:
                wait = delay * random.uniform(0.5, 1.0)
                late = deadline is not None and time.monotonic() + wait > deadline
                if late or not passes(error):
                    raise translated(error) from error
            time.sleep(wait)
            delay = min(delay * 2, LAST_DELAY)

    def close(self) -> None:
        """Close every connection. Safe to repeat."""
        self.raw.close()
        self.raw.connection_pool.disconnect()
