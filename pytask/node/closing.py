"""Closing: what follows the end of a run: `end-task`, and giving the claim up, one way or another.

A crash anywhere leaves the claim; whoever begins the task next sees how far it came and does the rest.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from pytask import points, states, wire
from pytask.errors import StoreRefused, StoreUnavailable
from pytask.keys import QueueKeys
from pytask.node.lines import Leaving
from pytask.node.outbox import MOST_ROWS, Outbox, Row, iter_answered
from pytask.node.run import RELEASE, TAIL, Run
from pytask.node.state import NodeState
from pytask.retention import class_ttls
from pytask.store.limits import member_of

log = logging.getLogger("pytask.node")

END_TASK_CAP = 100_000
ENDED = frozenset(state.encode() for state in states.ENDED)
ENDS = {state: ("end", state) for state in ENDED}
PARKED = frozenset(state.encode() for state in states.PARKED)
STOPPED = states.STOPPED.encode()
WAIT = states.WAIT.encode()
HELD = states.HELD.encode()
GOES_ON = frozenset({WAIT, HELD})  # its end is to come: limits and workflow hear of that


class Closing(Outbox):
    """The ends of runs."""

    name = "closing"

    def __init__(self, state: NodeState) -> None:
        super().__init__()
        self.state = state
        # each command is tried once, and later again with what came meanwhile: a queue whose slot cannot be
        # written to, since it moves or its server is away, must not hold the others up
        self.store = state.store.with_patience(0)
        self.on_parked: Callable[[str], None] = lambda _queue: None
        self._takers: dict[bytes, bytes] = {}
        self._takers_since = 0.0
        self.on_leave: Callable[[list[Leaving]], list[StoreUnavailable | None]] = lambda rows: [None] * len(rows)
        self._leaves = self.box(self._send_leaves)
        self._elsewhere = self.box(self._send_elsewhere)
        self._steps = self.box(self._send_steps)
        self._ended = self.box(self._send_ended)
        self._parks = self.box(self._send_parks)
        self._misses = self.box(self._send_misses)
        self._hands = self.box(self._send_hands)
        self._releases = self.box(self._send_releases)

    def release(self, run: Run, mode: str, state: bytes = b"") -> None:
        """Give the claim up without a finish."""
        run.phase = RELEASE
        self.add(self._releases, run, (mode, state))

    def miss(self, run: Run) -> None:
        """There is no record."""
        self.add(self._misses, run, None)

    def park(self, run: Run, due: bytes) -> None:
        """Give the claim up until a time, in epoch seconds."""
        run.phase = TAIL
        self.add(self._parks, run, due)

    def send_elsewhere(self, run: Run, key: bytes) -> None:
        """Push it, to the queue whose claim runs it or to its own, then give the claim up."""
        self.add(self._elsewhere, run, key)

    def gone(self, run: Run) -> None:
        """There is no record any more, or it has ended without this run: what limits gave the run goes back."""
        if run.demand is None:
            self.release(run, "none")
        else:
            self.add(self._leaves, run, (b"", b""))

    def tail(self, run: Run, state: bytes, due: bytes) -> None:
        """The record says how the run ended: do what follows. What was put back keeps its places in limits."""
        run.phase = TAIL
        if run.demand is not None and state not in GOES_ON:
            self.add(self._leaves, run, (state, due))
        elif run.workflow and state in states.CLOSED_RAW:
            self.add(self._steps, run, state)
        elif state == HELD and due == b"stop":
            self.send_elsewhere(run, run.queue.key)
        elif state == HELD:
            self.state.held.note(run)
            self.release(run, "none")
        elif state in ENDED:
            self.add(self._ended if run.cleanup else self._releases, run, ENDS[state])
        elif state == STOPPED:
            self.release(run, "end", state)
        elif state in PARKED:
            self.park(run, due or b"0")
        elif run.target:
            run.phase = RELEASE
            self.add(self._hands, run, None)
        else:
            self.release(run, "head")

    def _send_leaves(self, queue: QueueKeys, _node: bytes, rows: list[Row]) -> None:
        """Give up places, before the claim: after a crash whoever begins the task next does it."""
        leaving = []
        for run, (state, _) in rows:
            assert run.demand is not None
            member = member_of(queue.key, run.id)
            leaving.append(Leaving(member, run.id, run.fence, run.demand, unlock=state not in PARKED))
        points.reach("before-leave")
        answers = self.on_leave(leaving)
        points.reach("after-leave")
        for (run, (state, due)), _ in iter_answered(rows, answers):
            run.demand = None
            if state:
                self.tail(run, state, due)
            else:
                self.release(run, "none")

    def _send_elsewhere(self, _queue: QueueKeys, _node: bytes, rows: list[Row]) -> None:
        for run, key in rows:
            self.store.queues.push_to_key(key, [run.id])
            self.release(run, "none")

    def _send_steps(self, _queue: QueueKeys, _node: bytes, rows: list[Row]) -> None:
        """Tell workflows of the ends of their tasks, before the claims are given up."""
        points.reach("before-step")
        answers = self._step(rows)
        points.reach("after-step")
        gone = [run.id for (run, _), answer in zip(rows, answers, strict=True) if answer == [b"gone"]]
        self.store.records.drop_workflow(gone)
        for (run, state), _ in iter_answered(rows, answers):
            run.workflow = b""
            self.tail(run, state, b"")

    def _step(self, rows: list[Row]) -> list[Any]:
        """The answer of each row's workflow; those that are to be woken are, or have a StoreUnavailable."""
        ends: dict[bytes, list[tuple[bytes, bytes]]] = defaultdict(list)
        for run, state in rows:
            told = state + b" " + run.round if run.round else state
            ends[run.workflow].append((run.id[len(run.workflow) + 1 :], told))
        found = self.store.workflows.step(ends, partial=True)
        for workflow, answer in found.items():
            if not isinstance(answer, StoreUnavailable) and answer[0] == b"wake":
                try:
                    self.store.queues.push(self.store.keys.queue_of_record(b"", answer[1]), [workflow])
                except StoreUnavailable as error:
                    found[workflow] = error
        return [found[run.workflow] for run, _ in rows]

    def _send_ended(self, _queue: QueueKeys, _node: bytes, rows: list[Row]) -> None:
        ids = [run.id for run, _ in rows]
        length = 0
        points.reach("before-end-task")
        try:
            length = self.store.endings.push(ids)
        except StoreRefused as error:
            log.error("end-task cannot be used, ended records expire untold: %s", wire.shown(str(error), 200))
            self._let_expire(ids)
        points.reach("after-end-task")
        for run, _ in rows:
            run.phase = RELEASE
        self.add_all(self._releases, rows)
        if length > END_TASK_CAP:
            with contextlib.suppress(StoreUnavailable):  # what was pushed must not be pushed again
                self._relieve(length)

    def _let_expire(self, ids: list[bytes]) -> None:
        """Do for records what Cleanup would do."""
        settings = self.state.settings
        ttls = states.ttl_by_state(settings.result_ttl, settings.failure_ttl)
        self.state.store.expiry.let_expire(ids, ttls, class_ttls(self.state.classes.values()))

    def _relieve(self, length: int) -> None:
        """Nobody takes ended ids: let the oldest records expire as Cleanup would, and say so."""
        if self._a_cleanup_lives(self.state.settings.node_timeout):
            return
        log.error(
            "end-task holds %d ids and no Cleanup lives: the oldest are let expire (run Cleanup, or take them)",
            length,
        )
        oldest = self.state.store.endings.get(2 * MOST_ROWS)
        self._let_expire(oldest)
        self.state.store.endings.discard(oldest)

    def _a_cleanup_lives(self, patience: float) -> bool:
        """Has any of the Cleanups that announced themselves moved on, since we first saw them as they are?"""
        takers, now = self.state.store.endings.get_takers(), time.monotonic()
        if takers != self._takers:
            self._takers, self._takers_since = takers, now
        return bool(takers) and now - self._takers_since < patience

    def _send_parks(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        triples = [(run.id, run.fence, due) for run, due in rows]
        points.reach("before-park")
        self.store.claims(queue.name).park(node, triples)
        points.reach("after-park")
        self._forget(rows)
        self.on_parked(queue.name)

    def _send_hands(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        """Give claims up to other nodes, and tell these."""
        for target in sorted({run.target for run, _ in rows}):
            mine = [(run, what) for run, what in rows if run.target == target]
            points.reach("before-hand")
            self.store.claims(queue.name).hand(node, target, [(run.id, run.fence) for run, _ in mine])
            points.reach("after-hand")
            self._forget(mine)
            with contextlib.suppress(StoreUnavailable):  # it looks there now and then
                self.store.node_records.tell(target, queue.key)

    def _send_misses(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        triples = [(run.id, run.fence, run.claim.how) for run, _ in rows]
        wait = self.state.settings.hash_wait
        for (run, _), when in zip(rows, self.store.claims(queue.name).miss(node, triples, wait), strict=True):
            if when == b"dead":
                log.warning("id %s is on the dead list: no record came for it", wire.shown(run.id))
        self._forget(rows)
        self.on_parked(queue.name)

    def _send_releases(self, queue: QueueKeys, node: bytes, rows: list[Row]) -> None:
        rows, later = _once_each(rows)
        releases = [(run.id, run.fence, mode, state) for run, (mode, state) in rows]
        points.reach("before-release")
        self.store.claims(queue.name).release(node, releases, self.state.settings.keep_ended)
        points.reach("after-release")
        self._forget(rows)
        if later:
            self._send_releases(queue, node, later)

    def _forget(self, rows: Iterable[Row]) -> None:
        for run, _ in rows:
            self.state.registry.remove(run)


def _once_each(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The first row of each id, and the others: one call must not hold an id twice."""
    if len({run.id for run, _ in rows}) == len(rows):
        return rows, []
    first: dict[bytes, Row] = {}
    later = [row for row in rows if first.setdefault(row[0].id, row) is not row]
    return list(first.values()), later
