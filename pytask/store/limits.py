"""The moves of limits and locks: who is let in, who stands in line, who owns a unique key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pytask.errors import StoreError, StoreRefused
from pytask.keys import Keys
from pytask.limits import Limit
from pytask.store.client import Client

Member = bytes  # `<key of the queue> <id>`
Pass = tuple[Member, bytes]  # with the fence of the claim
Call = tuple[list[bytes], list[Any]]  # keys and arguments


def member_of(queue: bytes, task_id: bytes) -> Member:
    """How a limit knows a task: keys of queues have no spaces."""
    return queue + b" " + task_id


def split_member(member: Member) -> tuple[bytes, bytes]:
    """The key of the queue and the id."""
    queue, _, task_id = member.partition(b" ")
    return queue, task_id


class Standing(NamedTuple):
    """What one call on a limit told: also of others that it let in."""

    now: float  # the server's clock
    length: int  # how many stand in line
    wait: float | None  # seconds until somebody can be let in; None: when somebody leaves
    granted: list[Member]
    answers: list[int]  # for each that asked its place in line; -1: it is in


class Turnover(NamedTuple):
    """One call on a limit: who leaves and who asks. `spend`: those who are let in start at once."""

    limit: Limit
    leaves: Sequence[Pass] = ()
    asks: Sequence[Pass] = ()
    spend: bool = False


class Glance(NamedTuple):
    """What of a record matters to a limit or a lock; empty for each field that is absent."""

    state: bytes
    at: bytes
    fence: bytes
    created: bytes
    queue: bytes
    limits: bytes


class Limits:
    """The limits of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    def turn_over(self, turnovers: Sequence[Turnover]) -> list[Standing | StoreError]:
        """Make calls on limits, all at once; an error in place of what did not come, or was refused."""
        replies = self._send("places", [self._call(each) for each in turnovers])
        return [
            reply if isinstance(reply, StoreError) else _standing(reply, len(each.asks))
            for each, reply in zip(turnovers, replies, strict=True)
        ]

    def _send(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """The replies of calls of one script; an error in place of each that did not come, or was refused."""
        try:
            return self.client.call_many(name, calls, partial=True)
        except StoreRefused as error:
            # one of the keys may be of another type: what the others say is as good as ever
            return [self._send(name, [call])[0] for call in calls] if len(calls) > 1 else [error]

    def _call(self, each: Turnover) -> Call:
        limit = each.limit
        keys = self.keys.limit(limit.label)
        args: list[Any] = [limit.most, f"{limit.seconds * 1e6:.0f}", len(each.leaves)]
        for member, fence in each.leaves:
            args += (member, fence)
        purpose = b"spend" if each.spend else b"hold"
        for member, fence in each.asks:
            args += (member, fence, purpose)
        return [keys.held, keys.line, keys.meter], args

    def get_members(self, limit: Limit, rank: int, most: int, heads: int) -> tuple[list[Pass], list[Pass]]:
        """So many of those that were let in, from a rank on, and of the first in line, with their fences."""
        keys = self.keys.limit(limit.label)
        held, line = self.client.pipeline(
            [
                ("ZRANGE", keys.held, rank, rank + most - 1, "WITHSCORES"),
                ("ZRANGE", keys.line, 0, heads - 1, "WITHSCORES"),
            ]
        )
        return _with_fences(held), _with_fences(line)

    def glance(self, ids: Sequence[bytes]) -> list[Glance | None]:
        """What of the records of these ids matters; None where there is none."""
        replies = self.client.call_each("glance", [self.keys.task(task_id) for task_id in ids], (), (), 0)
        return [Glance(*reply) if reply else None for reply in replies]

    # Locks of unique tasks.

    def lock(self, rows: Sequence[tuple[str, bytes, bytes, bytes]]) -> list[bytes | StoreError | None]:
        """Take or keep locks (label, id, fence, owner to replace or ''): None, or the id of the owner."""
        calls: list[Call] = [([self.keys.lock(label)], [*words]) for label, *words in rows]
        replies = self._send("lock", calls)
        return [
            reply if isinstance(reply, StoreError) else (reply[1] if reply[0] == b"taken" else None)
            for reply in replies
        ]

    def take_locks(self, rows: Sequence[tuple[str, bytes, bytes, bytes]]) -> list[bytes | None]:
        """The same, for producers. Raises StoreUnavailable, StoreRefused."""
        answers = self.lock(rows)
        for answer in answers:
            if isinstance(answer, StoreError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, StoreError)]

    def unlock(self, rows: Sequence[tuple[str, bytes, bytes]]) -> list[int | StoreError]:
        """Give up locks (label, id, fence): 1 where it was ours."""
        return self._send("unlock", [([self.keys.lock(label)], [*words]) for label, *words in rows])


def _standing(reply: list[Any], asks: int) -> Standing:
    now, length, wait, count = reply[:4]
    answers = [int(answer) for answer in reply[4 + count :]]
    assert len(answers) == asks
    return Standing(float(now), length, None if wait < 0 else wait / 1e6, reply[4 : 4 + count], answers)


def _with_fences(reply: Sequence[Any]) -> list[tuple[Member, bytes]]:
    """What ZRANGE answers with scores; these are fences, which are whole numbers."""
    rows = [pair if isinstance(pair, list | tuple) else None for pair in reply]
    pairs = rows if rows and rows[0] is not None else list(zip(reply[::2], reply[1::2], strict=True))
    return [(member, b"%.0f" % float(score)) for member, score in pairs]  # type: ignore[misc]
