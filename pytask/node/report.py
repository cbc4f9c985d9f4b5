"""Report: what runs have to say goes out from here: their events, then their outcomes.

What follows an outcome is done by `closing`, which works beside this: the order for one run is always its
events, finish, `end-task`, release. While Redis is away outcomes wait here, at most twice as many as tasks may
run at once, and events, at most MOST_EVENTS of MOST_EVENT_BYTES together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from operator import attrgetter

from gevent.event import Event

from pytask import points, states, wire
from pytask.keys import QueueKeys
from pytask.node.closing import Closing
from pytask.node.outbox import Outbox, Row, iter_answered
from pytask.node.outcome import Outcome, failure
from pytask.node.policy import again
from pytask.node.run import Run
from pytask.node.state import NodeState
from pytask.settings import Settings
from pytask.store.records import NOTHING, Keep

log = logging.getLogger("pytask.node")

MOST_EVENTS = 10_000
MOST_EVENT_BYTES = 67_108_864
LEAST_KEPT = 604_800.0  # seconds


class Report(Outbox):
    """Events and outcomes."""

    name = "report"
    in_order = True  # an outcome must not overtake the events of its run

    def __init__(self, state: NodeState, closing: Closing) -> None:
        super().__init__()
        self.state = state
        self.closing = closing
        self.on_fenced: Callable[[Run], None] = lambda _run: None
        self.on_stop: Callable[[Run], None] = lambda _run: None
        self.on_restart: Callable[[Run], None] = lambda _run: None
        self._room = Event()
        self._event_bytes = 0  # of events that are not sent yet
        self._keep = keep_of(state.settings)
        self._events = self.box(self._send_events, lambda row: len(row[0]))
        self._finishes = self.box(self._send_finishes, attrgetter("size"))
        self._kept_finishes = self.box(self._send_kept_finishes, attrgetter("size"))
        self._unknown = self.box(self._send_unknown)

    def emit(self, run: Run, event: bytes, how: str = "") -> None:
        """An event of a run; waits while too many are unsent. `how`: see `Records.emit`."""
        while self.is_full:
            self._room.clear()
            self._room.wait()
        self.emit_now(run, event, how)

    def emit_now(self, run: Run, event: bytes, how: str = "") -> None:
        """An event of a run, however many are unsent."""
        self._event_bytes += len(event)
        if how == "keep":
            run.kept = True
        self.add(self._events, run, (event, how))

    @property
    def is_full(self) -> bool:
        """Does an event have to wait?"""
        return len(self._events) >= MOST_EVENTS or self._event_bytes >= MOST_EVENT_BYTES

    def finish(self, run: Run, outcome: Outcome) -> None:
        """The outcome of a run. What a run tells at its end is kept where it kept something before."""
        keeps = self._keep.most and (run.kept or run.attempt > 1 or outcome.state == states.RETRY)
        if keeps and self.state.store.keys.events(run.id):
            run.kept = True
            self.add(self._kept_finishes, run, outcome)
        else:
            self.add(self._finishes, run, outcome)

    def unknown(self, run: Run) -> None:
        """No class of that name here."""
        self.add(self._unknown, run, None)

    def _send_events(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        four = [(run.id, run.fence, event, how) for run, (event, how) in rows]
        verdicts = self.state.store.records.emit(node, queue.key, four, self._keep)
        for (run, (event, _)), verdict in iter_answered(rows, verdicts):
            self._event_bytes -= len(event)
            self._room.set()
            if verdict == b"fenced":
                self.on_fenced(run)
            elif verdict == b"stop":
                self.on_stop(run)
            elif verdict == b"restart":
                self.on_restart(run)

    def _send_kept_finishes(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        self._send_finishes(queue, node, rows, self._keep)

    def _send_finishes(self, queue: QueueKeys, node: bytes, rows: list[Row], keep: Keep = NOTHING) -> None:
        six = [(run.id, run.fence, o.state, o.output, o.due, o.event) for run, o in rows]
        points.reach("before-finish")
        answers = self.state.store.records.finish(node, queue.key, six, keep)
        points.reach("after-finish")
        for (run, _), answer in iter_answered(rows, answers):
            self._follow(run, answer)

    def _send_unknown(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        wait = self.state.settings.unknown_wait
        triples = [(run.id, run.fence, _unknown_event(run)) for run, _ in rows]
        answers = self.state.store.records.unknown(node, queue.key, wait, triples)
        for (run, _), answer in iter_answered(rows, answers):
            if answer[0] == b"over":
                text = f"no node knew the task {wire.shown(run.name or b'')} for {wait:g} s: add it with add_task"
                log.warning(
                    "task %s (id %s) ended as EXCEPTION: %s", wire.shown(_name(run)), wire.shown(run.id), text
                )
                self.finish(run, again(run, failure(states.EXCEPTION, text)))
            else:
                self._follow(run, answer)

    def _follow(self, run: Run, answer: Sequence[bytes]) -> None:
        """What follows from the answer of finish: [verdict, state, due]."""
        if answer[0] == b"fenced":
            self.closing.release(run, "none")
        elif answer[0] == b"gone":
            self.closing.gone(run)
        else:
            self.closing.tail(run, answer[1], answer[2])


def keep_of(settings: Settings) -> Keep:
    """How many events of a task are kept, and for how long."""
    return Keep(settings.keep_events, int(max(settings.failure_ttl, LEAST_KEPT) * 1000))


def _unknown_event(run: Run) -> bytes:
    return wire.encode_event("unknown", wire.encode_json({"task": _name(run), "node": run.node.decode()}))


def _name(run: Run) -> str:
    return wire.to_str((run.name or b"")[:200])
