"""Sweep: finds ids that are in no structure any more, and puts them back. What it looks for: `sweeping.py`.

Runs on every node; one of them at a time holds a lease and works. The others ask for it now and then. Should two
work at a time, since one was frozen for longer than its lease, they do no harm.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Sequence

from pytask import states, wire
from pytask.errors import StoreError, StoreUnavailable
from pytask.names import queue_label
from pytask.task import Task
from pytask.tasks.sweeping import Report, Sweeping

log = logging.getLogger("pytask.sweep")

RATE = 5_000  # records a second: a percent or two of a server, and of the node
LEAST_SLEEP = 0.005  # seconds: shorter ones are saved up
RETRY_DELAY = 1.0  # seconds
PAGE = 500  # workflows
PARKED = frozenset(state.encode() for state in states.PARKED)
STILL = 120.0  # seconds; clocks of several machines are compared, a minute or two does not matter
STANDING = ("queue", "touched", "check")
LEASE = 3  # times node_timeout


class Deposed(Exception):
    """Another node sweeps now."""


def pause_between_looks(node_timeout: float) -> float:
    """Seconds between two looks: a run whose claim was lost has taken it again, or has ended, long before."""
    return 1.5 * node_timeout


class Sweep(Task):
    """Sweeps every `interval` seconds, also where another node has just done it.

    `queues`: names of queues that are looked at even where they hold nothing (None: those of the app).
    """

    NAME = "pytask/sweep"
    forever = True
    local_only = True  # it reads every key

    def __init__(
        self, queues: Sequence[str] | None = None, interval: float = 60.0, node_timeout: float = 10.0
    ) -> None:
        self.queues = tuple(self.helpers.queues if queues is None else queues)
        self.interval = interval
        self.node_timeout = node_timeout
        self.store = self.helpers.store
        self.name = self.id.encode()
        self._held_until = 0.0  # monotonic seconds
        self._next = 0.0
        self._debt = 0.0  # seconds to sleep, for work that was done
        self._told = ""

    def start(self) -> None:
        """Ask for the lease; with it, sweep from time to time, for ever."""
        try:
            while True:
                time.sleep(self._turn() * random.uniform(0.9, 1.0))
        finally:
            with contextlib.suppress(StoreError):
                self.store.traces.drop_lease(self.name)

    def _turn(self) -> float:
        """Do what is to be done now; returns after how many seconds to come again."""
        try:
            if not self._hold():
                return self.node_timeout
            if time.monotonic() >= self._next:
                self._sweep()
        except Deposed:
            log.info("another node sweeps now")
            return self.node_timeout
        except StoreError as error:
            level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
            log.log(level, "the sweep starts over: %s", wire.shown(str(error), 200))
            return RETRY_DELAY
        return min(self.node_timeout, max(self._next - time.monotonic(), LEAST_SLEEP))

    def _hold(self) -> bool:
        """Have the lease; it is renewed when a third of it has passed."""
        now = time.monotonic()
        lease = LEASE * self.node_timeout
        if now < self._held_until - 2 / 3 * lease:
            return True
        was_held = now < self._held_until
        if not self.store.traces.hold_lease(self.name, lease):
            self._held_until = 0.0
            return False
        self._held_until = now + lease
        if not was_held:  # new in office: do not sweep at once, nodes may be starting everywhere
            self._next = now + min(self.interval, self.node_timeout)
        return True

    def _sweep(self) -> None:
        pause = pause_between_looks(self.node_timeout)
        salt = random.getrandbits(62)
        sweeping = Sweeping(self.store, self.queues, pace=self._pace, salt=salt)
        report = sweeping.run(lambda: self._sleep(pause))
        self._wake_workflows()
        self._next = time.monotonic() + (0.0 if report.more else self.interval * random.uniform(0.9, 1.0))
        self._tell(report)

    def _wake_workflows(self) -> None:
        """Let workflows that have not moved for a while look whether something was lost."""
        start = 0
        while ids := self.store.workflows.get_open(start, PAGE):
            start += PAGE
            for workflow, found in zip(ids, self.store.workflows.get_each(ids, STANDING), strict=True):
                self._wake_workflow(workflow, *found)
            self._sleep(0)

    def _wake_workflow(
        self, workflow: bytes, queue: bytes | None, touched: bytes | None, check: bytes | None
    ) -> None:
        if time.time() - max(_seconds(touched), _seconds(check)) < STILL:
            return
        (row,) = self.store.records.get_each([workflow], ["state", "fence"])
        state, fence = row or (None, None)
        if row is None:  # somebody removed its record, and nothing else
            self.store.expiry.remove_workflow(workflow)
        elif state in states.CLOSED_RAW:
            self.store.expiry.settle(workflow, fence or b"0")
            self.store.workflows.close(workflow)
        elif state not in PARKED:
            self.store.workflows.ask_for_check(workflow)
            self.store.queues.push(self.store.keys.queue_of_record(b"", queue or b""), [workflow])

    def _pace(self, records: int) -> None:
        self._debt += records / RATE
        if self._debt >= LEAST_SLEEP:
            debt, self._debt = self._debt, 0.0
            self._sleep(debt)

    def _sleep(self, seconds: float) -> None:
        """Sleep, and keep the lease meanwhile. Raises Deposed."""
        end = time.monotonic() + seconds
        while True:
            if not self._hold():
                raise Deposed
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, self.node_timeout))

    def _tell(self, report: Report) -> None:
        if report.repaired:
            log.warning("the sweep has put back what was lost: %s", summary(report))
            self.emit("swept", report.as_json())
        others = remarks(report)
        if others != self._told:
            self._told = others
            if others:
                log.info("the sweep found: %s", others)
        self._note(report)

    def _note(self, report: Report) -> None:
        """Write the last pass into the record of this task, which goes with its node."""
        raw = self.id.encode()
        output, now = wire.encode_json(report.as_json()), wire.encode_time(time.time())
        self.store.records.set(raw, {"local": "1", "output": output, "last_update": now})
        self.store.records.expire(raw, 3 * self.node_timeout)


def summary(report: Report) -> str:
    """What was put back, in words."""
    parts = (
        (report.pushed, "tasks that were in no queue"),
        (report.parked, "tasks that wait for their time"),
        (report.claims, "claims of nodes that nobody knows"),
        (report.inboxes, "ids from inboxes of nodes that are gone"),
        (report.endings, "ended ids of Cleanups that are gone"),
    )
    return ", ".join(f"{number} {what}" for number, what in parts if number)


def remarks(report: Report) -> str:
    """What else is worth a line; empty for nothing."""
    parts = [
        f"queue {queue_label(queue)} cannot be read ({wire.shown(reason, 120)})"
        for queue, reason in sorted(report.refused.items())[:5]
    ]
    if report.unpushed:
        parts.insert(0, f"{report.unpushed} records without a state in no queue: push their ids, or remove them")
    return "; ".join(parts)


def _seconds(raw: bytes | None) -> float:
    """The time that a field holds; 0 for anything else."""
    try:
        return float(raw or 0)
    except ValueError:
        return 0.0
