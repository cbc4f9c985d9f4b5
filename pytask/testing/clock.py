"""Clock: lets time pass on a private server, for due tasks, retries, expiry and retention, without waiting for it.

Moving the clock forward by N is the same as moving every time that is stored back by N. So nothing has to
pretend: servers and nodes read their own clocks, as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pytask.app import PyTask
from pytask.errors import ConfigurationError, InvalidInputError

TIMES = ("created", "due", "expires", "started", "last_update", "ended")  # of a record, epoch seconds
EPOCH = 1e9  # scores above are epoch seconds: no time of ours is before 2001
LATEST = 1e12  # what is beyond is no time but "never"
CHUNK = 500


class Clock:
    """The clock of the server that an app uses: an embedded one. `moved`: how far, in seconds, so far."""

    def __init__(self, app: PyTask) -> None:
        self.app = app
        self.moved = 0.0

    def move(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Let so much time pass. What is due then waits in its queue.

        The time to live of every key runs on, of the project's own too. Tasks that run at this moment notice
        nothing. Raises InvalidInputError for a time that is not above 0.
        """
        passed = seconds + 60 * minutes + 3600 * hours + 86_400 * days
        if not 0 < passed < math.inf:
            raise InvalidInputError(f"the clock moves forward, by a number of seconds above 0, not {passed!r}")
        self._check_server()
        for keys in self._iter_keys():
            self._move_keys(keys, passed)
        self.moved += passed
        for queue in self.app.helpers.queues:
            while self.app.helpers.store.claims(queue).promote()[0]:
                pass

    def _check_server(self) -> None:
        """Never on a server that others share."""
        address = self.app.target.address
        if not self._client.servers.one or not address.startswith(("unix:", "127.0.0.1:", "localhost:")):
            raise ConfigurationError(f"the clock of {address} is not moved: it is no server of this machine alone")

    @property
    def _client(self) -> Any:
        return self.app.helpers.store.client

    def _iter_keys(self) -> Iterator[list[bytes]]:
        cursor: bytes = b"0"
        seen: set[bytes] = set()
        while True:
            cursor, keys = self._client.execute("SCAN", cursor, "COUNT", CHUNK)
            new = [key for key in keys if key not in seen]
            seen.update(new)
            if new:
                yield new
            if cursor in (b"0", 0):
                return

    def _move_keys(self, keys: list[bytes], passed: float) -> None:
        prefix = self.app.helpers.store.keys.prefix
        types = self._client.pipeline([("TYPE", key) for key in keys])
        kinds = dict(zip(keys, types, strict=True))
        records = [key for key in keys if key.startswith(prefix + b"task-") and kinds[key] == b"hash"]
        indexes = [key for key in keys if key.startswith(b"{" + prefix) and kinds[key] == b"zset"]
        self._move_records(records, passed)
        self._move_meters([key for key in keys if key.startswith(b"{" + prefix + b"limit-")], passed)
        self._move_scores(indexes, passed)
        self._move_ends([key for key in keys if not key.startswith(prefix + b"node-")], passed)

    def _move_records(self, keys: list[bytes], passed: float) -> None:
        rows = self._pipeline([("HMGET", key, *TIMES) for key in keys])
        writes: list[tuple[Any, ...]] = []
        for key, values in zip(keys, rows, strict=True):
            found = {name: _earlier(value, passed) for name, value in zip(TIMES, values, strict=True)}
            flat = [part for name, value in found.items() if value is not None for part in (name, value)]
            if flat:
                writes.append(("HSET", key, *flat))
        self._pipeline(writes)

    def _move_meters(self, keys: list[bytes], passed: float) -> None:
        """What a rate has used up recovers; a meter is in microseconds."""
        for key in keys:
            if key.endswith(b":meter") and (used := self._client.execute("GET", key)):
                self._client.execute("SET", key, f"{float(used) - passed * 1e6:.3f}", "KEEPTTL")

    def _move_scores(self, keys: list[bytes], passed: float) -> None:
        for key in keys:
            flat = self._client.execute("ZRANGE", key, 0, -1, "WITHSCORES")
            words = iter(flat)
            moved = [(_earlier(score, passed), member) for member, score in zip(words, words, strict=True)]
            self._pipeline([("ZADD", key, score, member) for score, member in moved if score is not None])

    def _move_ends(self, keys: list[bytes], passed: float) -> None:
        left = self._pipeline([("PTTL", key) for key in keys])
        writes: list[tuple[Any, ...]] = []
        for key, milliseconds in zip(keys, left, strict=True):
            if milliseconds > 0:
                writes.append(("PEXPIRE", key, max(int(milliseconds - passed * 1000), 0)))
        self._pipeline(writes)

    def _pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        return list(self._client.pipeline(commands)) if commands else []


def _earlier(value: object, passed: float) -> str | None:
    """A time, so much earlier; None for what is none."""
    try:
        time = float(value)  # type: ignore[arg-type]  # bytes, or None
    except (TypeError, ValueError):
        return None
    return f"{max(time - passed, EPOCH):.6f}" if EPOCH < time < LATEST else None
