"""Outbox: rows that wait to be sent, in boxes; one greenlet sends all that is there, in batches.

What arrives while a batch is under way makes the next batch, so that a batch never waits for company. A row
leaves its box only when it was sent; while Redis is away everything waits here.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from gevent.event import Event

from pytask.errors import StoreError, StoreUnavailable
from pytask.keys import QueueKeys
from pytask.node.run import Run
from pytask.node.service import Service

MOST_ROWS = 500  # a batch
MOST_BYTES = 16_777_216  # a batch, unless its first row alone has more
Row = tuple[Run, Any]
Box = list[Row]
Send = Callable[[QueueKeys, bytes, list[Row]], None]
Weigh = Callable[[Any], int]


class Unsent(StoreUnavailable):
    """Some rows of a batch could not be sent, and are to be sent again: their servers are away."""

    def __init__(self, rows: list[Row], error: StoreUnavailable) -> None:
        super().__init__(str(error))
        self.rows = rows


def iter_answered(rows: list[Row], answers: Iterable[Any]) -> Iterator[tuple[Row, Any]]:
    """The rows that were answered, each with its answer. Raises Unsent behind them where some were not."""
    unsent: list[Row] = []
    problem: StoreUnavailable | None = None
    for row, answer in zip(rows, answers, strict=True):
        if isinstance(answer, StoreUnavailable):
            unsent.append(row)
            problem = answer
        else:
            yield row, answer
    if problem is not None:
        raise Unsent(unsent, problem)


class Outbox(Service):
    """Boxes in the order in which they are sent. Any greenlet may add; only its own one sends.

    `in_order`: a row that could not be sent holds up what its run has to say behind it.
    """

    in_order = False

    def __init__(self) -> None:
        super().__init__()
        self._wake = Event()
        self._boxes: list[tuple[Box, Send, Weigh | None]] = []

    def box(self, send: Send, weigh: Weigh | None = None) -> Box:
        """A new box, behind the others, whose rows `send` sends: (queue, node, rows of both).

        `weigh` gives the bytes of what stands in a row, where that may be much.
        """
        made: Box = []
        self._boxes.append((made, send, weigh))
        return made

    def add(self, box: Box, run: Run, what: Any) -> None:
        """Put a row in a box."""
        box.append((run, what))
        if not self._wake.is_set():
            self._wake.set()

    def add_all(self, box: Box, rows: list[Row]) -> None:
        """Put rows in a box."""
        box += rows
        self._wake.set()

    def run(self) -> None:
        """Send what there is, for ever."""
        self._wake.set()
        while True:
            self._wake.wait()
            self._wake.clear()
            # what comes while this round is under way waits for the next one: an outcome must not overtake events
            counts = [len(box) for box, _, _ in self._boxes]
            problem: StoreError | None = None
            held: set[Run] = set()
            for (box, send, weigh), count in zip(self._boxes, counts, strict=True):
                problem = self._drain(box, send, weigh, count, held) or problem
            if problem:
                raise problem

    def wait_until_sent(self, seconds: float) -> bool:
        """Wait until every box is empty; False where some are not after so many seconds."""
        deadline = time.monotonic() + seconds
        while self._waiting and time.monotonic() < deadline:
            gevent.sleep(0.01)
        return not self._waiting

    @property
    def _waiting(self) -> bool:
        return any(box for box, _, _ in self._boxes)

    def _drain(self, box: Box, send: Send, weigh: Weigh | None, count: int, held: set[Run]) -> StoreError | None:
        """Send a box's first rows by queue and node. What could not be sent stays, and holds nothing else up.

        `held`: the runs whose rows must wait, those of what stays among them where the order matters.
        """
        rows, failed = box[:count], []
        problem: StoreError | None = None
        if not rows:
            return None
        for (queue, node), group in _by_owner(rows):
            for part in iter_batches(group, weigh):
                unsent, error = self._send_part(send, queue, node, part, held)
                problem = error or problem
                failed += unsent
                if self.in_order:
                    held.update(run for run, _ in unsent)
        box[: len(rows)] = failed
        return problem

    def _send_part(
        self, send: Send, queue: QueueKeys, node: bytes, part: list[Row], held: set[Run]
    ) -> tuple[list[Row], StoreError | None]:
        """Send one batch, without the rows of runs that are held; returns what stays, in order, and why."""
        ready = [row for row in part if row[0] not in held] if held else part
        try:
            if ready:
                send(queue, node, ready)
        except Unsent as error:
            sent = set(map(id, ready)) - set(map(id, error.rows))
            return [row for row in part if id(row) not in sent], error
        except StoreError as error:
            return part, error
        return [row for row in part if row[0] in held] if held else [], None


def iter_batches(rows: list[Row], weigh: Weigh | None) -> Iterator[list[Row]]:
    """The rows in batches of at most MOST_ROWS rows and MOST_BYTES; a row that has more is one by itself."""
    sizes = [weigh(what) for _, what in rows] if weigh else []
    if sum(sizes) <= MOST_BYTES:
        for start in range(0, len(rows), MOST_ROWS):
            yield rows[start : start + MOST_ROWS]
        return
    start = filled = 0
    for number, size in enumerate(sizes):
        if number > start and (filled + size > MOST_BYTES or number - start == MOST_ROWS):
            yield rows[start:number]
            start, filled = number, 0
        filled += size
    yield rows[start:]


def _by_owner(rows: list[Row]) -> Iterable[tuple[tuple[QueueKeys, bytes], list[Row]]]:
    first = rows[0][0]
    if all(run.queue is first.queue and run.node is first.node for run, _ in rows):
        return [((first.queue, first.node), rows)]
    groups: dict[tuple[QueueKeys, bytes], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[0].queue, row[0].node].append(row)
    return groups.items()
