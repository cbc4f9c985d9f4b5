"""The moves in a workflow's slot, and what helpers read of workflows. The tasks themselves: `records`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pytask import wire
from pytask.checks import YEARS_10
from pytask.keys import Keys
from pytask.store.client import Client, as_dict

CHUNK = 500  # rows a call
MOST_ENDED = 10_000  # ended workflows that the list remembers
UNSETTLED = 2 * YEARS_10  # seconds: how long one is kept of which Cleanup has not said how long it is
FORGOTTEN = 1000  # that are taken off the lists at a time
OPEN = "HELD"  # the state in the row of a task that has not ended
STEPS = {"on_success": "s", "on_failure": "f", "always": "a"}
WHEN = {letter: when for when, letter in STEPS.items()}


class Noted(NamedTuple):
    """What a workflow says of one of its tasks. `state`: HELD until it has ended. `gate`: None for a first one."""

    state: str
    when: str
    allow_failure: bool
    gate: int | None
    feeds: tuple[int, ...]

    def encode(self) -> str:
        """The row, as step.lua reads it."""
        gate = "-" if self.gate is None else self.gate
        feeds = ",".join(map(str, self.feeds))
        return f"{self.state} {STEPS[self.when]} {int(self.allow_failure)} {gate} {feeds}"


def read_noted(row: bytes) -> Noted:
    """The row of a task."""
    state, when, allowed, gate, feeds = row.decode().split(" ")
    numbers = tuple(map(int, feeds.split(","))) if feeds else ()
    return Noted(state, WHEN[when], allowed == "1", None if gate == "-" else int(gate), numbers)


class Opened(NamedTuple):
    """A gate that is open: its row, and whether something before it has failed."""

    number: int
    row: bytes
    failed: bool


class Workflows:
    """The workflows of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    # Making one.

    def put_spec(self, workflow: bytes, chunks: Sequence[bytes]) -> None:
        """Write a spec that is too large for one record, in parts; one that is there is replaced."""
        spec = self.keys.workflow(workflow).spec
        self.client.pipeline([("DEL", spec), *(("RPUSH", spec, chunk) for chunk in chunks)])

    def get_spec(self, workflow: bytes) -> bytes:
        """That spec, whole; empty where there is none."""
        return b"".join(self.client.execute("LRANGE", self.keys.workflow(workflow).spec, 0, -1))

    def lay_out(
        self,
        workflow: bytes,
        tasks: Mapping[str, Noted],
        gates: Sequence[tuple[str, int]],
        fields: Mapping[str, Any],
    ) -> None:
        """Write what it consists of: tasks, gates (row, how many tasks it waits for) and its own fields, last.

        Safe to repeat; nothing is changed where it is all there.
        """
        k = self.keys.workflow(workflow)
        keys = (k.key, k.tasks, k.gates, k.open)
        rows = [word for name, noted in tasks.items() for word in (name, noted.encode())]
        for start in range(0, len(rows), 2 * CHUNK):
            part = rows[start : start + 2 * CHUNK]
            self.client.call("lay_out", keys, (len(part) // 2, 0, *part))
        for start in range(0, len(gates), CHUNK):
            words = [w for n, gate in enumerate(gates[start : start + CHUNK], start) for w in (n, *gate)]
            self.client.call("lay_out", keys, (0, len(words) // 3, *words))
        self.client.call("lay_out", keys, (0, 0, *(part for pair in fields.items() for part in pair)))

    def enter(self, workflow: bytes) -> None:
        """Let lists show it, among those that have not ended, and there alone. Safe to repeat."""
        entry = ("ZADD", self.keys.workflows, "NX", wire.encode_time(time.time()), workflow)
        self.client.pipeline([entry, *(("ZREM", key, workflow) for key in self._ended_ones)])

    # Steering one.

    def step(
        self, rows: Mapping[bytes, Sequence[tuple[bytes, bytes]]], *, partial: bool = False
    ) -> dict[bytes, Any]:
        """Note ends: workflow -> (name, state) of tasks. Of each [`gone`], or [`ok` | `wake`, queue].

        Behind a state stands the round of its task, with a space, where its record names one. `wake`: push the
        workflow. With `partial` a StoreUnavailable stands where no answer came.
        """
        calls = []
        for workflow, ends in rows.items():
            k = self.keys.workflow(workflow)
            words = [word for end in ends for word in end]
            calls.append(((k.key, k.tasks, k.open, k.ready), (self.keys.task(workflow), *words)))
        return dict(zip(rows, self.client.call_many("step", calls, partial=partial), strict=True))

    def note(self, workflow: bytes, **fields: Any) -> bool:
        """Write fields of its own record; False, and nothing written, where it was removed or never laid out."""
        flat = [part for pair in fields.items() for part in pair]
        return bool(self.client.call("note_workflow", (self.keys.workflow(workflow).key,), flat))

    def is_laid_out(self, workflow: bytes) -> bool:
        """Is it written down what it consists of?"""
        return bool(self.client.execute("HEXISTS", self.keys.workflow(workflow).key, "laid"))

    def unlay(self, workflow: bytes) -> None:
        """Let nobody take another step of it. Safe to repeat."""
        self.client.execute("DEL", self.keys.workflow(workflow).key)

    def set(self, workflow: bytes, **fields: Any) -> None:
        """Write fields of its own record."""
        flat = [part for pair in fields.items() for part in pair]
        self.client.execute("HSET", self.keys.workflow(workflow).key, *flat)

    def get_ready(self, workflow: bytes, most: int) -> list[Opened]:
        """Gates whose tasks may go on, and have not been seen to yet; at most so many."""
        k = self.keys.workflow(workflow)
        numbers = self.client.execute("LRANGE", k.ready, 0, most - 1)
        if not numbers:
            return []
        rows, left = self.client.pipeline([("HMGET", k.gates, *numbers), ("HMGET", k.open, *numbers)])
        return [
            Opened(int(number), row or b"", bool(state) and state.endswith(b" 1"))
            for number, row, state in zip(numbers, rows, left, strict=True)
        ]

    def get_decided(self, workflow: bytes, gates: Sequence[int]) -> list[tuple[bytes, bool]]:
        """Of these gates those that are open: the row of each, and whether something before it has failed."""
        if not gates:
            return []
        k = self.keys.workflow(workflow)
        rows, left = self.client.pipeline([("HMGET", k.gates, *gates), ("HMGET", k.open, *gates)])
        open_ones = [(row, state) for row, state in zip(rows, left, strict=True) if state and state[:2] == b"0 "]
        return [(row, state.endswith(b" 1")) for row, state in open_ones]

    def ask_for_check(self, workflow: bytes) -> None:
        """Let its next run compare it with the records of its tasks."""
        self.client.execute("HSET", self.keys.workflow(workflow).key, "check", wire.encode_time(time.time()))

    def forget_check(self, workflow: bytes) -> None:
        """It has done so."""
        self.client.execute("HDEL", self.keys.workflow(workflow).key, "check")
        self.note(workflow, touched=wire.encode_time(time.time()))

    def drop_ready(self, workflow: bytes, number: int) -> None:
        """The tasks of a gate have been seen to."""
        self.client.execute("LREM", self.keys.workflow(workflow).ready, 0, number)

    def unhold(self, ids: Sequence[bytes]) -> list[list[bytes]]:
        """Let held tasks wait: [state, queue] of each, as `unhold.lua` says."""
        return self.client.call_each("unhold", [self.keys.task(i) for i in ids], (), (), 0)

    def skip(self, ids: Sequence[bytes], reason: str, *, waiting: bool = False) -> list[list[bytes]]:
        """End tasks that were not begun as SKIPPED: [state, queue, at] of each, as `skip.lua` says."""
        return self.client.call_each("skip", [self.keys.task(i) for i in ids], (reason, int(waiting)), (), 0)

    def note_ended(self, queue: str, ids: Sequence[bytes], state: str, most: int) -> None:
        """Enter tasks that were never claimed in their queue's list of ended ones, which keeps so many."""
        k = self.keys.queue(queue)
        self.client.call("note_ended", (k.ended, k.counts), (most, state, *ids))

    # Ending one.

    def close(self, workflow: bytes) -> None:
        """It has ended: lists show it so. Safe to repeat."""
        ended, until = self._ended_ones
        now = time.time()
        commands = [
            ("ZADD", ended, "NX", wire.encode_time(now), workflow),
            ("ZADD", until, "NX", wire.encode_time(now + UNSETTLED), workflow),
            ("ZREM", self.keys.workflows, workflow),
            ("ZRANGE", ended, 0, -MOST_ENDED - 1),
        ]
        if surplus := list(self.client.pipeline(commands)[-1]):
            self.client.pipeline([("ZREM", key, *surplus) for key in (ended, until)])

    def cut_off(self, workflow: bytes, fence: bytes) -> bool:
        """Let nobody take another step of one whose task has ended under this fence. Safe to repeat.

        False where a run of its own has ended it, or it has begun anew since.
        """
        return bool(self.client.call("cut", (self.keys.workflow(workflow).key,), (fence,)))

    def let_expire(self, workflow: bytes, seconds: float, fence: bytes) -> None:
        """Let all that is known of it go after so many seconds; then lists do not show it any more.

        Not where it has begun anew since its task ended under this fence.
        """
        keys = self.keys.workflow(workflow).all
        if not self.client.call("lapse", keys, (fence, max(int(seconds * 1000), 1))):
            return
        now, until = time.time(), self.keys.workflows_until
        self.client.execute("ZADD", until, "XX", wire.encode_time(now + seconds), workflow)
        over = (until, "-inf", wire.encode_time(now), "BYSCORE", "LIMIT", 0, FORGOTTEN)
        if forgotten := list(self.client.execute("ZRANGE", *over)):
            self.client.pipeline([("ZREM", key, *forgotten) for key in (self.keys.workflows_ended, until)])

    def reopen(self, workflow: bytes, fence: int) -> None:
        """Forget how it went: it begins anew, with the run of this fence. Its spec stays."""
        k = self.keys.workflow(workflow)
        self.client.call("reopen", [key for key in k.all if key != k.spec], (fence,))
        self.client.pipeline([("ZREM", key, workflow) for key in self._ended_ones] + [("PERSIST", k.spec)])

    def remove(self, workflow: bytes) -> None:
        """Remove all that is known of a workflow, but not the records of its tasks. Safe to repeat."""
        self.client.pipeline([("DEL", key) for key in self.keys.workflow(workflow).all])
        self.client.pipeline([("ZREM", key, workflow) for key in (self.keys.workflows, *self._ended_ones)])

    @property
    def _ended_ones(self) -> tuple[bytes, bytes]:
        return self.keys.workflows_ended, self.keys.workflows_until

    # Looking.

    def get(self, workflow: bytes) -> dict[bytes, bytes]:
        """Its own record; empty where there is none."""
        return as_dict(self.client.execute("HGETALL", self.keys.workflow(workflow).key))

    def get_each(self, ids: Sequence[bytes], fields: Sequence[str]) -> list[list[bytes | None]]:
        """Some fields of many."""
        return self.client.pipeline([("HMGET", self.keys.workflow(i).key, *fields) for i in ids])

    def get_noted(self, workflow: bytes, names: Sequence[str]) -> list[Noted | None]:
        """What it says of some of its tasks; None for each that it does not know."""
        rows = self.client.execute("HMGET", self.keys.workflow(workflow).tasks, *names) if names else ()
        return [read_noted(row) if row else None for row in rows]

    def get_gate_row(self, workflow: bytes, name: str) -> bytes | None:
        """The row of the gate for which a task of it waited; None where there is none."""
        (noted,) = self.get_noted(workflow, [name])
        if noted is None or noted.gate is None:
            return None
        found: bytes | None = self.client.execute("HGET", self.keys.workflow(workflow).gates, noted.gate)
        return found

    def iter_tasks(self, workflow: bytes) -> Iterator[dict[str, Noted]]:
        """All its tasks, in batches, in no order; one may come twice."""
        key, cursor = self.keys.workflow(workflow).tasks, b"0"
        while True:
            cursor, reply = self.client.execute("HSCAN", key, cursor, "COUNT", CHUNK)
            found = {name.decode(): read_noted(row) for name, row in as_dict(reply).items()}
            if found:
                yield found
            if cursor in (b"0", 0):
                return

    def get_ids(self, start: int, most: int) -> list[bytes]:
        """Workflows, the newest first: those that have not ended, then those that have."""
        active = self.keys.workflows
        open_ones = list(self.client.execute("ZREVRANGE", active, start, start + most - 1)) if most > 0 else []
        if len(open_ones) == most:
            return open_ones
        skip = max(start - int(self.client.execute("ZCARD", active)), 0)
        return open_ones + self._get_ended(skip, most - len(open_ones))

    def _get_ended(self, start: int, most: int) -> list[bytes]:
        """Those that have ended, the newest first, without those that are forgotten by now."""
        ended, until = self._ended_ones
        found = list(self.client.execute("ZREVRANGE", ended, start, start + most - 1))
        times = self.client.execute("ZMSCORE", until, *found) if found else []
        now = time.time()
        return [task_id for task_id, when in zip(found, times, strict=True) if when is None or float(when) > now]

    def get_open(self, start: int, most: int) -> list[bytes]:
        """Workflows that have not ended, the oldest first."""
        return list(self.client.execute("ZRANGE", self.keys.workflows, start, start + most - 1))

    def count(self) -> int:
        """How many `get_ids` could give, about: as many ended ones as were remembered and are not forgotten."""
        ended, until = self._ended_ones
        over = ("ZCOUNT", until, "-inf", wire.encode_time(time.time()))
        active, closed, gone = self.client.pipeline([("ZCARD", self.keys.workflows), ("ZCARD", ended), over])
        return int(active) + max(int(closed) - int(gone), 0)
