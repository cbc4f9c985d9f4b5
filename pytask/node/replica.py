"""Replicas of services as a node sees them: what their records say, and how many of each service there are now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

FIELDS = ("service", "replica", "replicas", "restart", "backoff")
FIRST, LONGEST = 1.0, 60.0  # seconds between a replica's end and its next start
STEADY = 60.0  # seconds of a run after which its end counts as the first one
ALWAYS, ON_FAILURE = "always", "on-failure"


class Replica:
    """One replica of a service, for one run. `count` is as its record said; ServiceCounts may know better."""

    __slots__ = ("backoff", "began", "count", "known", "number", "on_failure", "service")

    def __init__(self, words: Mapping[str, bytes], known: int) -> None:
        self.service = words.get("service", b"")
        self.number = _whole(words.get("replica", b""))
        self.count = _whole(words.get("replicas", b""))
        self.on_failure = words.get("restart") == ON_FAILURE.encode()
        self.backoff = _seconds(words.get("backoff", b""))
        self.began = time.monotonic()
        self.known = known  # the version of the counts when its record was read, which was at least as new

    def next_delay(self) -> float:
        """Seconds from its end now to its next start."""
        if not self.backoff or time.monotonic() - self.began >= STEADY:
            return FIRST
        return min(max(2 * self.backoff, FIRST), LONGEST)


def take_replica(options: dict[str, bytes], known: int) -> Replica | None:
    """What the answer of `begin` says of a replica, taken out of it; None for a task that is none."""
    if "service" not in options:
        return None
    return Replica({name: options.pop(name) for name in FIELDS if name in options}, known)


def _whole(raw: bytes) -> int:
    """A record may hold anything."""
    return int(raw) if len(raw) <= 9 and raw.isdigit() else 0


def _seconds(raw: bytes) -> float:
    try:
        seconds = float(raw)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds <= LONGEST else (LONGEST if seconds > LONGEST else 0.0)


class ServiceCounts:
    """How many replicas each service has, as far as this node runs some. Only greenlets of the main hub touch it.

    `version` grows by one with each reading. `on_change` is called when a replica begins or ends here.
    """

    def __init__(self) -> None:
        self.version = 0
        self._counts: dict[bytes, int] = {}
        self.on_change: Callable[[], None] = lambda: None

    def learn(self, counts: Mapping[bytes, bytes | None]) -> None:
        """Take in what was read of the services that run here."""
        self._counts = {name: _whole(count or b"") for name, count in counts.items()}
        self.version += 1

    def get(self, replica: Replica) -> int:
        """How many replicas its service has now; never fewer than one."""
        count = self._counts.get(replica.service, 0) if self.version > replica.known else 0
        return max(count or replica.count, 1)
