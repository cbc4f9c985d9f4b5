"""Where ids stand, place by place, so that a page of them is read without the rest.

Each place of each queue tells how many ids it holds (LLEN, HLEN, ZCARD), and reads any slice of them. What is held
stands in no queue: it is found through the workflows that go on, by the gates that have not opened yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from pytask import states, wire
from pytask.errors import StoreRefused
from pytask.keys import Keys
from pytask.store.client import Client, as_dict
from pytask.store.records import Records
from pytask.store.workflows import Workflows
from pytask.workflow import NAME, decode_gate, id_of

RUNNING, WAITING, DUE, HELD, ENDED = PLACES = ("running", "waiting", "due", "held", "ended")
BATCH = 100  # workflows a round trip
HELD_STATE = states.HELD.encode()


@dataclass(frozen=True, slots=True)
class Part:
    """The ids in one place of one queue (None: in no queue). `read(start, most)` gives some, in their order."""

    place: str
    queue: str | None
    count: int
    read: Callable[[int, int], list[bytes]]


class Inventory:
    """The places of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys
        self.records = Records(client, keys)
        self.workflows = Workflows(client, keys)

    def is_known(self, queue: str) -> bool:
        """Is there any key of the queue: has a node served it ever, or does something stand in it?"""
        k = self.keys.queue(queue)
        return bool(self.client.execute("EXISTS", k.key, k.fence, k.counts, k.nodes, k.due, k.ended, k.dead))

    def iter_parts(self, place: str, queues: Sequence[str]) -> Iterator[Part]:
        """The parts of a place that hold anything, in order. A key of a wrong type is passed over.

        With HELD the queues do not matter.
        """
        if place == HELD:
            yield from self._iter_held()
            return
        parts_of = {RUNNING: self._running, WAITING: self._waiting, DUE: self._due, ENDED: self._ended}[place]
        for queue in queues:
            try:
                parts = parts_of(queue)
            except StoreRefused as error:
                if not _is_wrong_type(error):
                    raise
                continue
            yield from (part for part in parts if part.count)

    def _waiting(self, queue: str) -> list[Part]:
        """Those in the list, the next one first."""
        key = self.keys.queue(queue).key

        def read(start: int, most: int) -> list[bytes]:
            return list(reversed(self.client.execute("LRANGE", key, -start - most, -start - 1)))

        return [Part(WAITING, queue, int(self.client.execute("LLEN", key)), read)]

    def _running(self, queue: str) -> list[Part]:
        """Those that nodes own, node by node, and those that a node was handed and has not claimed yet."""
        k = self.keys.queue(queue)
        nodes = sorted({node.removeprefix(b"-") for node in self.client.execute("HKEYS", k.nodes)})
        if not nodes:
            return []
        asked = [words for node in nodes for words in (("HLEN", k.claims_of(node)), ("LLEN", k.inbox(node)))]
        counts = self.client.pipeline(asked)
        return [
            part
            for node, claims, inbox in zip(nodes, counts[::2], counts[1::2], strict=True)
            for part in (
                Part(RUNNING, queue, claims, self._reader_of_claims(k.claims_of(node))),
                Part(RUNNING, queue, inbox, self._reader("LRANGE", k.inbox(node))),
            )
        ]

    def _reader_of_claims(self, key: bytes) -> Callable[[int, int], list[bytes]]:
        def read(start: int, most: int) -> list[bytes]:
            return sorted(self.client.execute("HKEYS", key))[start : start + most]

        return read

    def _reader(self, command: str, key: bytes) -> Callable[[int, int], list[bytes]]:
        def read(start: int, most: int) -> list[bytes]:
            return list(self.client.execute(command, key, start, start + most - 1))

        return read

    def _due(self, queue: str) -> list[Part]:
        """Those that wait for a time, the next one first."""
        key = self.keys.queue(queue).due
        return [Part(DUE, queue, int(self.client.execute("ZCARD", key)), self._reader("ZRANGE", key))]

    def _ended(self, queue: str) -> list[Part]:
        """Those that ended and that the queue remembers, the newest first."""
        key = self.keys.queue(queue).ended
        return [Part(ENDED, queue, int(self.client.execute("ZCARD", key)), self._reader("ZREVRANGE", key))]

    # What is held.

    def _iter_held(self) -> Iterator[Part]:
        """A part for each workflow that goes on, the oldest first: itself between its steps, then its tasks."""
        start = 0
        while ids := self._get_open(start):
            for workflow, found in zip(ids, self._read_workflows(ids), strict=True):
                if found is not None and (part := self._held_of(workflow, found)) is not None:
                    yield part
            start += len(ids)

    def _get_open(self, start: int) -> list[bytes]:
        try:
            return self.workflows.get_open(start, BATCH)
        except StoreRefused as error:
            if not _is_wrong_type(error):
                raise
            return []

    def _read_workflows(self, ids: Sequence[bytes]) -> list[list[Any] | None]:
        """Of each: name and state of its task, what its gates wait for, which opened, if it is laid out; None."""
        asked: list[tuple[Any, ...]] = []
        for workflow in ids:
            k = self.keys.workflow(workflow)
            asked += (
                ("HMGET", self.keys.task(workflow), "task", "state"),
                ("HGETALL", k.open),
                ("LRANGE", k.ready, 0, -1),
                ("HGET", k.key, "laid"),
            )
        replies = self._pipeline(asked, 4)
        return [None if (part := replies[n : n + 4])[0] is None else part for n in range(0, len(replies), 4)]

    def _pipeline(self, commands: list[tuple[Any, ...]], width: int) -> list[Any]:
        """The replies; None for each of a group of `width` one of whose keys is of a wrong type."""
        try:
            return self.client.pipeline(commands) if commands else []
        except StoreRefused as error:
            if not _is_wrong_type(error):
                raise
            if len(commands) == width:
                return [None] * width
        groups = (commands[n : n + width] for n in range(0, len(commands), width))
        return [reply for group in groups for reply in self._pipeline(group, width)]

    def _held_of(self, workflow: bytes, found: Sequence[Any]) -> Part | None:
        (name, state), counts, ready, laid = found
        own = [workflow] if name == NAME.encode() and state == HELD_STATE else []
        closed = {gate for gate, left in as_dict(counts).items() if not left.startswith(b"0 ")} if laid else set()
        names = self._names_at(workflow, sorted({*closed, *(ready if laid else ())}, key=_in_order))

        def read(start: int, most: int) -> list[bytes]:
            tasks = (id_of(workflow, name) for name in islice(names, max(start - len(own), 0), None))
            return list(islice(chain(own[start:], tasks), most))

        count = len(own) + len(names)
        return Part(HELD, None, count, read) if count else None

    def _names_at(self, workflow: bytes, gates: Sequence[bytes]) -> list[str]:
        """The names of the tasks that wait at these gates, as far as their rows can be read."""
        if not gates:
            return []
        (rows,) = self._pipeline([("HMGET", self.keys.workflow(workflow).gates, *gates)], 1)
        names: list[str] = []
        for row in rows or ():
            with contextlib.suppress(wire.WireError):
                names += decode_gate(row or b"").tasks
        return names

    # Nodes.

    def get_nodes(self, queues: Sequence[str]) -> dict[bytes, dict[bytes, bytes]]:
        """Who serves any of these queues, and what each says of itself; empty where that cannot be read."""
        named = self._pipeline([("HKEYS", self.keys.queue(queue).nodes) for queue in queues], 1)
        nodes = sorted({node.removeprefix(b"-") for names in named for node in names or ()})
        records = self._pipeline([("HGETALL", self.keys.node(node)) for node in nodes], 1)
        return {node: as_dict(record or {}) for node, record in zip(nodes, records, strict=True)}

    # Records.

    def read(self, ids: Sequence[bytes], fields: Sequence[str]) -> list[list[bytes | None] | None]:
        """Some fields of records; None for each that is not there, or is no record."""
        try:
            return self.records.get_each(ids, fields)
        except StoreRefused as error:
            if not _is_wrong_type(error):
                raise
        kinds = self._pipeline([("HLEN", self.keys.task(task_id)) for task_id in ids], 1)
        good = [number for number, kind in enumerate(kinds) if kind]
        found: list[list[bytes | None] | None] = [None] * len(ids)
        for number, row in zip(good, self.records.get_each([ids[n] for n in good], fields), strict=True):
            found[number] = row
        return found


def _is_wrong_type(error: StoreRefused) -> bool:
    return "WRONGTYPE" in str(error)


def _in_order(gate: bytes) -> tuple[int, bytes]:
    return (int(gate) if gate.isdigit() else 0, gate)
