"""Schedules in Redis: what they are, when each is looked at next, and how their fires are won and started.

A fire goes through four steps, each of which may be repeated by any node: `draft` (its record, HELD), `advance`
(one node wins), `start` (WAIT, and a push), `strike`. Whoever dies in between leaves it to the next one who looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pytask import states, wire
from pytask.errors import StoreRefused
from pytask.keys import Keys
from pytask.store.client import Client, as_dict

BATCH = 100  # schedules a round trip
NEVER = float("inf")  # the score of one that is not looked at until somebody says so
DRAFT_TTL = 7 * 86_400  # seconds

Hash = Mapping[bytes, bytes]


class Taken(NamedTuple):
    """A schedule that is this node's to look at, until others take it; `score` proves it."""

    name: bytes
    score: bytes


class Schedules:
    """The schedules of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    # When they are looked at.

    def get_first(self) -> float | None:
        """The score of the schedule that is looked at next (epoch seconds); None where there is none."""
        reply = self.client.execute("ZRANGE", self.keys.schedules, 0, 0, "WITHSCORES")
        return next((score for _, score in _with_scores(reply)), None)

    def take(self, most: int, seconds: float, passed: Sequence[bytes] = ()) -> tuple[float, list[Taken]]:
        """Take what is due, but for names that are passed over, for so many seconds; and the server's clock."""
        now, *words = self.client.call("take_schedules", (self.keys.schedules,), (most, seconds, *passed))
        return float(now), [Taken(*pair) for pair in zip(words[::2], words[1::2], strict=True)]

    def give_back(self, taken: Taken, score: float | None) -> bool:
        """Say when it is looked at again (None: never, it is gone); False where somebody else has said so."""
        text: Any = "" if score is None else _score(score)
        return bool(self.client.call("return_schedule", (self.keys.schedules,), (*taken, text)))

    def touch(self, names: Iterable[bytes]) -> None:
        """Let nodes look at these now."""
        words = [word for name in names for word in (0, name)]
        if words:
            self.client.execute("ZADD", self.keys.schedules, *words)

    def iter_names(self) -> Iterator[list[tuple[bytes, float]]]:
        """All names with their scores, batch by batch; read at once, since scores change while this is used."""
        rows = _with_scores(self.client.execute("ZRANGE", self.keys.schedules, 0, -1, "WITHSCORES"))
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH]

    def has(self, name: bytes) -> bool:
        """Is there such a schedule?"""
        return self.client.execute("ZMSCORE", self.keys.schedules, name)[0] is not None

    # What they are.

    def get(self, name: bytes) -> dict[bytes, bytes]:
        """The hash; empty where there is none. Raises StoreRefused where it is no hash."""
        return as_dict(self.client.execute("HGETALL", self.keys.schedule(name)))

    def get_each(self, names: Sequence[bytes]) -> list[dict[bytes, bytes] | StoreRefused]:
        """The hashes of several; an error in place of one that is no hash."""
        try:
            commands = [("HGETALL", self.keys.schedule(name)) for name in names]
            return [as_dict(reply) for reply in self.client.pipeline(commands)] if names else []
        except StoreRefused as error:
            return [self.get_each([name])[0] for name in names] if len(names) > 1 else [error]

    def define(self, name: bytes, defining: Sequence[str], fields: Mapping[str, Any]) -> bool:
        """Write what a schedule is, out of the fields that may define one; False where it is so already.

        Nodes look at it in any case: who wrote it last may have died before it said so. Raises StoreRefused where
        the key is of another type.
        """
        words = [part for pair in fields.items() for part in pair]
        changed = self.client.call(
            "define_schedule", (self.keys.schedule(name),), (len(defining), *defining, *words)
        )
        self.touch([name])
        return bool(changed)

    def pause(self, name: bytes, now: float | None) -> int:
        """Pause it, or (None) let it go on: 1, 0 where it is so already, -1 where there is none."""
        since: Any = "" if now is None else wire.encode_time(now)
        answer = int(self.client.call("pause_schedule", (self.keys.schedule(name),), (since,)))
        if answer >= 0:
            self.touch([name])
        return answer

    def remove(self, name: bytes) -> bool:
        """Remove a schedule; False where there was none."""
        listed, there = self.client.pipeline(
            [("ZREM", self.keys.schedules, name), ("DEL", self.keys.schedule(name))]
        )
        return bool(listed or there)

    # Their fires.

    def draft(self, ids: Sequence[bytes], words: Sequence[Any]) -> None:
        """Make records that nothing starts yet, where there are none. They go by themselves after seven days."""
        shared = (DRAFT_TTL * 1000, *words, "state", states.HELD)
        self.client.call_each("draft", [self.keys.task(task_id) for task_id in ids], shared, (), 0)

    def advance(
        self, name: bytes, read: Hash, following: float | None, spec: str, error: str, fires: Sequence[float]
    ) -> bool:
        """Win fires and write what comes next, where the schedule still stands as it was read."""
        text = b"" if following is None else wire.encode_time(following)
        paused = read.get(b"paused", b"")
        won = map(wire.encode_time, fires)
        args = (read.get(b"next", b""), read.get(b"last", b""), text, spec, error, paused, *won)
        return bool(self.client.call("advance_schedule", (self.keys.schedule(name),), args))

    def start(self, ids: Sequence[bytes]) -> list[bytes]:
        """Let the tasks of fires that were won start; returns the ids that were pushed. Safe to repeat."""
        answers = self.client.call_each("unhold", [self.keys.task(task_id) for task_id in ids], (), (), 0)
        queues: dict[bytes, list[bytes]] = {}
        for task_id, answer in zip(ids, answers, strict=True):
            if answer[0] == states.WAIT.encode():
                queues.setdefault(answer[1], []).append(task_id)
        for queue, waiting in queues.items():
            key = self.keys.queue(self.keys.queue_of_record(b"", queue)).key
            self.client.execute("LPUSH", key, *waiting)
        return [task_id for waiting in queues.values() for task_id in waiting]

    def strike(self, name: bytes, firing: bytes) -> bool:
        """Note that what stood in `firing` was started; False where something else stands there."""
        return bool(self.client.call("strike_fires", (self.keys.schedule(name),), (firing,)))


def _score(seconds: float) -> bytes:
    return b"+inf" if seconds == NEVER else wire.encode_time(seconds)


def _with_scores(reply: Sequence[Any]) -> list[tuple[bytes, float]]:
    """What ZRANGE answers with scores, as pairs or one after the other."""
    if reply and isinstance(reply[0], list | tuple):
        return [(name, float(score)) for name, score in reply]
    return [(name, float(score)) for name, score in zip(reply[::2], reply[1::2], strict=True)]
