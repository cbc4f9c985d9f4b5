"""Report: the outbox. Everything that becomes of runs goes out from here, in batches.

The order for one run is always: its events, finish, `end-task`, release. What arrives while a batch is
under way makes the next batch, so that a batch never waits for company. While Redis is away everything
waits here: outcomes at most as many as the node has runs, events at most MOST_EVENTS.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import gevent
from gevent.event import Event

from pytask import states, wire
from pytask.errors import StoreError
from pytask.keys import QueueKeys
from pytask.node.outcome import Outcome, failure
from pytask.node.run import RELEASE, TAIL, Run
from pytask.node.service import Service
from pytask.node.state import NodeState
from pytask.store.claims import Release

log = logging.getLogger("pytask.node")

MOST_EVENTS = 10_000
MOST_ROWS = 500  # a batch
END_TASK_CAP = 100_000
T = TypeVar("T")
Row = tuple[Run, Any]
ENDED = frozenset(state.encode() for state in states.ENDED)
PARKED = frozenset(state.encode() for state in states.PARKED)
WAIT, STOPPED = states.WAIT.encode(), states.STOPPED.encode()


class Report(Service):
    """The outbox. Callers only append; its one greenlet sends."""

    name = "report"

    def __init__(self, state: NodeState) -> None:
        super().__init__()
        self.state = state
        self.on_fenced: Callable[[Run], None] = lambda _run: None
        self.on_stop: Callable[[Run], None] = lambda _run: None
        self.on_parked: Callable[[str], None] = lambda _queue: None
        self._wake = Event()
        self._room = Event()
        self._room.set()
        self._events: list[Row] = []
        self._finishes: list[Row] = []
        self._unknown: list[Row] = []
        self._ended: list[Row] = []
        self._releases: list[Row] = []
        self._parks: list[Row] = []
        self._misses: list[Row] = []
        self._elsewhere: list[Row] = []

    # What the others hand in.

    def emit(self, run: Run, event: bytes) -> None:
        """An event of a run; waits while too many are unsent."""
        while len(self._events) >= MOST_EVENTS:
            self._room.clear()
            self._room.wait()
        self._add(self._events, run, event)

    def finish(self, run: Run, outcome: Outcome) -> None:
        """The outcome of a run."""
        self._add(self._finishes, run, outcome)

    def unknown(self, run: Run) -> None:
        """No class of that name here."""
        self._add(self._unknown, run, None)

    def release(self, run: Run, mode: str, state: bytes = b"") -> None:
        """Give the claim up without a finish."""
        run.phase = RELEASE
        self._add(self._releases, run, (mode, state))

    def miss(self, run: Run) -> None:
        """There is no record."""
        self._add(self._misses, run, None)

    def send_elsewhere(self, run: Run, key: bytes) -> None:
        """Another queue's claim runs it: hand the push over, then give the claim up."""
        self._add(self._elsewhere, run, key)

    def tail(self, run: Run, state: bytes, due: bytes) -> None:
        """The record says how the run ended: do what follows."""
        run.phase = TAIL
        if state in ENDED:
            self._add(self._ended if run.cleanup else self._releases, run, ("end", state))
        elif state == STOPPED:
            self.release(run, "end", state)
        elif state in PARKED:
            self._add(self._parks, run, due or b"0")
        else:
            self.release(run, "head")

    def _add(self, box: list[Row], run: Run, what: Any) -> None:
        box.append((run, what))
        self._wake.set()

    # What its greenlet does.

    def run(self) -> None:
        """Send what there is, for ever."""
        self._wake.set()
        while True:
            self._wake.wait()
            self._wake.clear()
            self.flush()

    def wait_until_sent(self, seconds: float) -> bool:
        """Wait until every box is empty; False where some are not after so many seconds."""
        deadline = time.monotonic() + seconds
        while any(self._boxes) and time.monotonic() < deadline:
            gevent.sleep(0.01)
        return not any(self._boxes)

    @property
    def _boxes(self) -> tuple[list[Row], ...]:
        return (
            self._events, self._finishes, self._unknown, self._elsewhere,
            self._ended, self._parks, self._misses, self._releases,
        )  # fmt: skip

    def flush(self) -> None:
        """Send all that is in the boxes now, in the order that the protocol asks for."""
        self._drain(self._events, self._send_events)
        self._room.set()
        self._drain(self._finishes, self._send_finishes)
        self._drain(self._unknown, self._send_unknown)
        self._drain(self._elsewhere, self._send_elsewhere)
        self._drain(self._ended, self._send_ended)
        self._drain(self._parks, self._send_parks)
        self._drain(self._misses, self._send_misses)
        self._drain(self._releases, self._send_releases)

    def _drain(self, box: list[Row], send: Callable[[QueueKeys, bytes, list[Row]], None]) -> None:
        """Send a box's rows by queue and node. What could not be sent stays, and holds nothing else up."""
        rows, failed, problem = box[:], [], None
        if not rows:
            return
        for (queue, node), group in _by_owner(rows):
            for start in range(0, len(group), MOST_ROWS):
                part = group[start : start + MOST_ROWS]
                try:
                    send(queue, node, part)
                except StoreError as error:
                    failed += part
                    problem = error
        box[: len(rows)] = failed
        if problem:
            raise problem

    def _send_events(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        triples = [(run.id, run.fence, event) for run, event in rows]
        verdicts = self.state.store.records.emit(node, queue.key, triples)
        for (run, _), verdict in zip(rows, verdicts, strict=True):
            if verdict == b"fenced":
                self.on_fenced(run)
            elif verdict == b"stop":
                self.on_stop(run)

    def _send_finishes(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        six = [(run.id, run.fence, o.state.encode(), o.output, b"", o.event()) for run, o in rows]
        answers = self.state.store.records.finish(node, queue.key, six)
        for (run, _), answer in zip(rows, answers, strict=True):
            self.follow(run, answer)

    def follow(self, run: Run, answer: list[bytes]) -> None:
        """What follows from the answer of finish: [verdict, state, due]."""
        if answer[0] in (b"gone", b"fenced"):
            self.release(run, "none")
        else:
            self.tail(run, answer[1], answer[2])

    def _send_unknown(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        wait = self.state.settings.unknown_wait
        for run, _ in rows:
            event = wire.encode_event("unknown", wire.encode_json({"task": _name(run), "node": node.decode()}))
            answer = self.state.store.records.unknown(node, queue.key, run.id, run.fence, wait, event)
            if answer[0] == b"over":
                text = f"no node knew the task {wire.shown(run.name or b'')} for {wait:g} s: add it with add_task"
                self.finish(run, failure(states.EXCEPTION, text))
            else:
                self.follow(run, answer)

    def _send_elsewhere(self, _queue: QueueKeys, _node: bytes, rows: list[Row]) -> None:
        for run, key in rows:
            self.state.store.queues.push_to_key(key, [run.id])
            self.release(run, "none")

    def _send_ended(self, _queue: QueueKeys, _node: bytes, rows: list[Row]) -> None:
        length = self.state.store.endings.push([run.id for run, _ in rows])
        for run, (mode, state) in rows:
            self.release(run, mode, state)
        if length > END_TASK_CAP:
            self._relieve(length)

    def _relieve(self, length: int) -> None:
        """Nobody takes ended ids: let the oldest records expire as Cleanup would, and say so."""
        if self.state.store.endings.get_takers():
            return
        settings = self.state.settings
        log.error(
            "end-task holds %d ids and no Cleanup lives: the oldest are let expire (run Cleanup, or take them)",
            length,
        )
        ids = self.state.store.endings.take(self.state.id, 2 * MOST_ROWS)
        ttls = states.ttl_by_state(settings.result_ttl, settings.failure_ttl)
        self.state.store.records.cleanup(ids, ttls)
        self.state.store.endings.drop_all(self.state.id, len(ids))

    def _send_parks(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        triples = [(run.id, run.fence, due) for run, due in rows]
        self.state.store.claims(queue.name).park(node, triples)
        self._forget(rows)
        self.on_parked(queue.name)

    def _send_misses(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        triples = [(run.id, run.fence, run.claim.how) for run, _ in rows]
        wait = self.state.settings.hash_wait
        for (run, _), when in zip(
            rows, self.state.store.claims(queue.name).miss(node, triples, wait), strict=True
        ):
            if when == b"dead":
                log.warning("id %s is on the dead list: no record came for it", wire.shown(run.id))
        self._forget(rows)
        self.on_parked(queue.name)

    def _send_releases(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        once: dict[bytes, Row] = {}
        later = []
        for row in rows:
            if once.setdefault(row[0].id, row) is not row:
                later.append(row)
        releases = [Release(run.id, run.fence, mode, state) for run, (mode, state) in once.values()]
        self.state.store.claims(queue.name).release(node, releases)
        self._forget(once.values())
        if later:
            self._send_releases(queue, node, later)

    def _forget(self, rows: Iterable[Row]) -> None:
        for run, _ in rows:
            self.state.registry.remove(run)


def _name(run: Run) -> str:
    return wire.to_str((run.name or b"")[:200])


def _by_owner(rows: list[Row]) -> Iterable[tuple[tuple[QueueKeys, bytes], list[Row]]]:
    first = rows[0][0]
    if all(run.queue is first.queue and run.node is first.node for run, _ in rows):
        return [((first.queue, first.node), rows)]
    groups: dict[tuple[QueueKeys, bytes], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[0].queue, row[0].node].append(row)
    return groups.items()
