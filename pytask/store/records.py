"""The moves in a task's slot: begin, finish, emit, and what helpers do with a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pytask import states
from pytask.errors import StoreRefused, StoreUnavailable
from pytask.keys import Keys
from pytask.store.client import Client, as_dict, by_slot

MOST_WHOLE = 100  # records, of up to a megabyte each, a round trip
MOST_NAMES = 1000  # keys of which one EXISTS asks
ANY_FENCE = "-"  # of a task that is restarted, whatever fence its record has


class Keep(NamedTuple):
    """How many events a stream keeps, and for how long after the last one."""

    most: int
    milliseconds: int


NOTHING = Keep(0, 0)

# What `finish` means where it answers `ok` alone: the state is the one that was given.
WRITTEN = {state: (b"ok", state.encode(), b"") for state in states.MOVES}


class Records:
    """The records of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    def create(self, rows: Sequence[tuple[bytes, Sequence[Any]]]) -> list[int]:
        """Make records (id, [field, value, ...]) where there are none: 1 for each that was made, else 0.

        Safe to repeat, and for several to do at a time. None is pushed.
        """
        if not rows:
            return []
        width = max(len(words) for _, words in rows)
        args: list[Any] = []
        for _, words in rows:
            args += words
            args += [""] * (width - len(words))
        return self.client.call_each("create", [self.keys.task(row[0]) for row in rows], (width,), args, width)

    def begin(
        self,
        node: bytes,
        queue: bytes,
        claims: Sequence[tuple[bytes, bytes, bytes, bytes]],
        max_deliveries: int,
        max_data: int,
        classes: str = "",
        wish: str = "",
    ) -> list[list[Any]]:
        """Begin claims (id, fence, lost, early) of one queue: an answer each, as `begin.lua` lists them.

        Three words, `run`, name and data, are the first start of a task of which all else is 0 or absent.

        `classes`: what the classes of some tasks say, as `begin.lua` reads it. `wish`: `granted` starts what is
        on probation, `admitted` what its limits let start; `stop` starts nothing, `defer` nothing before the time
        that stands in place of `early`, `skip` nothing, for the reason that stands there. Here and below a
        StoreUnavailable stands in place of each answer that did not come.
        """
        task = self.keys.task
        args: list[Any] = []
        for _, fence, lost, early in claims:
            args += (fence, lost, early)
        shared = (node, queue, self.keys.queue().key, max_deliveries, max_data, wish, classes)
        return self.client.call_each("begin", [task(row[0]) for row in claims], shared, args, 3, partial=True)

    def finish(
        self,
        node: bytes,
        queue: bytes,
        rows: Sequence[tuple[bytes, bytes, str, bytes, bytes, bytes]],
        keep: Keep = NOTHING,
    ) -> list[Sequence[bytes]]:
        """Write outcomes (id, fence, state, output, due, event): verdict, state and due each.

        `keep`: their events go into their streams as well; then no id may have a brace.
        """
        task = self.keys.task
        args: list[Any] = []
        for _, *five in rows:
            args += five
        beside = [self._stream(row[0]) for row in rows] if keep.most else ()
        shared = (node, queue, keep.most, keep.milliseconds)
        answers = self.client.call_each(
            "finish", [task(row[0]) for row in rows], shared, args, 5, beside=beside, partial=True
        )
        return [WRITTEN[row[2]] if answer == b"ok" else answer for row, answer in zip(rows, answers, strict=True)]

    def unknown(
        self, node: bytes, queue: bytes, wait: float, rows: Sequence[tuple[bytes, bytes, bytes]]
    ) -> list[list[bytes]]:
        """Names that are unknown here (id, fence, event): [verdict, state, due] each.

        `over` where nobody knew it for so many seconds.
        """
        task = self.keys.task
        args: list[Any] = []
        for row in rows:
            args += row[1:]
        return self.client.call_each(
            "unknown", [task(row[0]) for row in rows], (node, queue, wait), args, 2, partial=True
        )

    def survive(self, node: bytes, queue: bytes, rows: Sequence[tuple[bytes, bytes]]) -> list[int]:
        """Runs (id, fence) that have lasted: no death counts against their tasks any more. 1 where it was ours."""
        keys, fences = [self.keys.task(row[0]) for row in rows], [row[1] for row in rows]
        return self.client.call_each("survive", keys, (node, queue), fences, 1, partial=True)

    def emit(
        self, node: bytes, queue: bytes, rows: Sequence[tuple[bytes, bytes, bytes, str]], keep: Keep = NOTHING
    ) -> list[bytes]:
        """Publish events (id, fence, event, how) of running tasks: `fenced`, or the record's `control`, each.

        `how`: `keep` puts it into the stream, where `keep` lets it; `progress` into the record's field.
        """
        task = self.keys.task
        args: list[Any] = []
        for row in rows:
            args += row[1:]
        shared = (node, queue, keep.most, keep.milliseconds)
        beside = [self._stream(row[0]) for row in rows]
        return self.client.call_each(
            "emit", [task(row[0]) for row in rows], shared, args, 3, beside=beside, partial=True
        )

    def _stream(self, task_id: bytes) -> bytes:
        """The key of the stream; of an id that has none any key of its slot, which is left alone."""
        return self.keys.events(task_id) or self.keys.task(task_id)

    def cleanup(
        self,
        ids: Sequence[bytes],
        ttls: Mapping[str, float],
        classes: str = "",
        *,
        most: int = 0,
        fence: bytes = b"",
    ) -> list[tuple[int, bytes | None]]:
        """Let records expire: the seconds left, -1 not ended, -2 it is kept; and of a workflow its fence; each.

        `classes`: what classes say of their own, as `cleanup.lua` reads it. Kept events go with the record.
        `most`: 1 for those of a workflow's tasks too, which are kept until it has ended; 2 for workflows
        themselves too, which are kept until all that belongs to them has been seen to; with `fence` that of the
        workflow's run that has ended: what has begun anew since stays.
        """
        shared = [classes, most, fence, *(part for pair in ttls.items() for part in pair)]
        answers = self.client.call_each("cleanup", [self.keys.task(i) for i in ids], shared, (), 0)
        more = [(i, answer) for i, answer in zip(ids, answers, strict=True) if answer.__class__ is list]
        if more:
            streams = [(self.keys.events(task_id), answer[0]) for task_id, answer in more if answer[1]]
            commands = [("PEXPIRE", stream, 1000 * left) for stream, left in streams if stream]
            if commands:
                self.client.pipeline(commands)
        return [(a[0], a[3] if a[2] else None) if a.__class__ is list else (a, None) for a in answers]

    def want_stop(self, task_id: bytes, fence: bytes) -> bool:
        """Note a stop in the record of what steers others; False where its last run is not that of this fence."""
        return bool(self.client.call("want_stop", (self.keys.task(task_id),), (fence,)))

    def drop_workflow(self, ids: Sequence[bytes]) -> None:
        """There is no such workflow any more: from now on these are tasks like any other."""
        if ids:
            self.client.pipeline([("HDEL", self.keys.task(task_id), "workflow") for task_id in ids])

    def restart(self, task_id: bytes, states: Sequence[str] = ()) -> list[bytes]:
        """Set WAIT where the state is one of `states` (none: whatever it is), as `restart.lua` says.

        Sent again where the reply was lost; what has begun meanwhile is then left alone.
        """
        first: Sequence[Any] = (ANY_FENCE, *states)
        again = first if states else (self._get_fence(task_id),)
        answer, repeated = self._call_again("restart", task_id, first, again)
        if repeated and answer[:2] == [b"refused", b"WAIT"]:  # a push of what waits harms nothing
            answer[0] = b"ok"
        return answer

    def _get_fence(self, task_id: bytes) -> bytes:
        try:
            return self.get_fields(task_id, ("fence",))[0] or b""
        except StoreRefused:  # it is no record: the script says so
            return b""

    def restart_each(self, ids: Sequence[bytes], name: str, states: Sequence[str]) -> list[list[bytes]]:
        """The same for many, of those with this name (empty: whatever they are called)."""
        keys = [self.keys.task(task_id) for task_id in ids]
        return self.client.call_each("restart", keys, (name, ANY_FENCE, *states), (), 0)

    def stop(self, task_id: bytes) -> list[bytes]:
        """Ask for the end of a task, as `stop.lua` says."""
        answer, repeated = self._call_again("stop", task_id, (), ())
        if repeated and answer == [b"ended", b"STOPPED"]:
            answer[0] = b"ok"
        return answer

    def stop_each(self, ids: Sequence[bytes], name: str, states: Sequence[str]) -> list[list[bytes]]:
        """The same for many, of those with this name and in one of these states (empty: any)."""
        keys = [self.keys.task(task_id) for task_id in ids]
        return self.client.call_each("stop", keys, (name, *states), (), 0)

    def _call_again(
        self, name: str, task_id: bytes, args: Sequence[Any], again: Sequence[Any]
    ) -> tuple[list[bytes], bool]:
        """The answer of a script, and whether it was sent again: it may then tell what the first one did."""
        keys = (self.keys.task(task_id),)
        try:
            return list(self.client.call(name, keys, ("", *args), patience=0)[0]), False
        except StoreUnavailable:
            return list(self.client.call(name, keys, ("", *again))[0]), True

    def control(self, task_id: bytes, message: str | bytes) -> int:
        """Publish a message on the task's control channel; it may be lost. How many the server handed it to."""
        return int(self.client.execute("PUBLISH", self.keys.control(task_id), message))

    def get_kept(self, task_id: bytes, after: bytes, most: int) -> list[tuple[bytes, bytes]]:
        """Kept events (id, event) behind the id `after`, the oldest first; at most so many."""
        key = self.keys.events(task_id)
        rows = self.client.execute("XRANGE", key, b"(" + after, b"+", "COUNT", most) if key else ()
        return [(event_id, as_dict(words).get(b"event", b"")) for event_id, words in rows]

    def publish(self, task_id: bytes, event: bytes) -> None:
        """Publish an event that needs no fence (of a task that runs on no claim)."""
        self.client.execute("PUBLISH", self.keys.task(task_id), event)

    def get(self, task_id: bytes) -> dict[bytes, bytes]:
        """The whole record; empty where there is none."""
        return self.get_whole([task_id])[0]

    def get_whole(self, ids: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """Whole records, a hundred in a round trip; empty for each that is not there."""
        keys = [self.keys.task(task_id) for task_id in ids]
        parts = [keys[start : start + MOST_WHOLE] for start in range(0, len(keys), MOST_WHOLE)]
        return [as_dict(row) for part in parts for row in self.client.pipeline([("HGETALL", key) for key in part])]

    def get_fields(self, task_id: bytes, fields: Sequence[str]) -> list[bytes | None]:
        """Some fields of a record; None for each that it lacks."""
        return list(self.client.execute("HMGET", self.keys.task(task_id), *fields))

    def get_each(self, ids: Sequence[bytes], fields: Sequence[str]) -> list[list[bytes | None] | None]:
        """The same of many records, in one round trip or two; None for each record that is not there."""
        keys = [self.keys.task(task_id) for task_id in ids]
        rows: list[Any] = self.client.pipeline([("HMGET", key, *fields) for key in keys])
        blank = [n for n, row in enumerate(rows) if not any(row)]
        if blank:  # some may have other fields
            there = self.client.pipeline([("EXISTS", keys[n]) for n in blank])
            for n in (n for n, found in zip(blank, there, strict=True) if not found):
                rows[n] = None
        return rows

    def set(self, task_id: bytes, fields: Mapping[str, Any]) -> None:
        """Write fields of a record, which is made where there is none."""
        flat = [part for pair in fields.items() for part in pair]
        self.client.execute("HSET", self.keys.task(task_id), *flat)

    def expire(self, task_id: bytes, seconds: float) -> bool:
        """Let a record go after so many seconds; False where there is none."""
        return bool(self.client.execute("PEXPIRE", self.keys.task(task_id), int(seconds * 1000)))

    def remove_each(self, ids: Sequence[bytes]) -> None:
        """Remove records, with their kept events."""
        keys = [key for i in ids for key in (self.keys.task(i), self.keys.events(i)) if key]
        if keys:
            self.client.pipeline([("DEL", key) for key in keys])

    def are_there(self, ids: Sequence[bytes]) -> bool:
        """Has every one of these tasks a record? One command for those of a slot."""
        keys = [self.keys.task(task_id) for task_id in dict.fromkeys(ids)]
        groups: Sequence[Sequence[int]] = [range(len(keys))] if self.client.servers.one else by_slot(keys)
        parts = [group[n : n + MOST_NAMES] for group in groups for n in range(0, len(group), MOST_NAMES)]
        found: list[int] = (
            self.client.pipeline([("EXISTS", *[keys[n] for n in part]) for part in parts]) if parts else []
        )
        return sum(found) == len(keys)

    def remove(self, task_id: bytes) -> bool:
        """Remove a record; False where there was none."""
        return bool(self.client.execute("DEL", self.keys.task(task_id)))
