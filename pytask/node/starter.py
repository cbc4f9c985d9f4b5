"""Starter: from claims to runs. Begins them in one batch and does what each answer of the record asks for."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent import GreenletExit

from pytask import points, states, wire
from pytask.errors import StoreError, StoreUnavailable
from pytask.keys import QueueKeys, flaw_of_id, has_brace
from pytask.limits import parse_demand
from pytask.node.closing import Closing
from pytask.node.outbox import MOST_BYTES, iter_batches
from pytask.node.probation import Probation
from pytask.node.replica import take_replica
from pytask.node.report import Report
from pytask.node.run import BEGIN, RUN, Run
from pytask.node.runner import Runner
from pytask.node.state import NodeState
from pytask.node.stopper import Stopper
from pytask.options import GATES, check_class
from pytask.store.claims import Claim
from pytask.task import Task

log = logging.getLogger("pytask.node")


TOLD = ("admitted", "defer", "skip")  # wishes for which what its gates told a run stands in place of `early`
MOST_STRANGE = 1000  # fields that mean nothing, of which the log tells
LATE_PAUSE = 0.7  # seconds between two questions to records whose server is away


class Starter:
    """Begins claims."""

    def __init__(
        self,
        state: NodeState,
        runner: Runner,
        stopper: Stopper,
        report: Report,
        closing: Closing,
        probation: Probation,
    ) -> None:
        self.state = state
        self.runner = runner
        self.stopper = stopper
        self.report = report
        self.closing = closing
        self.probation = probation
        self._answers = {
            b"missing": self._missing,
            b"wrong": self._wrong,
            b"stale": self._stale,
            b"tail": self._tail,
            b"ended": self._ended,
            b"early": self._early,
            b"elsewhere": self._elsewhere,
            b"probation": self._probation,
            b"gate": self._gate,
            b"run": self._run,
        }
        self._classes_told, self._told = -1, ""
        self._strange: set[str] = set()  # fields that were told of
        self.on_gate: Callable[[Run], None] = lambda _run: None
        self._under_way: dict[object, tuple[QueueKeys, int]] = {}  # batches: queue, and fence of the first claim
        self.on_begun: Callable[[], None] = lambda: None

    def accept(self, queue: QueueKeys, node: bytes, claims: Sequence[Claim]) -> None:
        """Register claims of this node and begin them. Blocks until the records have answered."""
        self.begin_or_return(queue, node, self.register(queue, node, claims))

    def register(self, queue: QueueKeys, node: bytes, claims: Sequence[Claim]) -> list[Run]:
        """Make runs of claims; they count against the node's capacity from now on. Does not block.

        Claims of an id under which this node has given up are left to whoever gets them next.
        """
        if not self.state.goes_by(node):
            return []
        return [run for claim in claims if (run := self._register(queue, node, claim))]

    def begin_or_return(self, queue: QueueKeys, node: bytes, runs: Sequence[Run], wish: str = "") -> None:
        """Begin runs; where the server refuses to, their ids go back to the head of the queue."""
        try:
            if runs:
                self.begin(queue, node, runs, wish)
        except StoreError:
            for run in runs:
                if run.phase == BEGIN and self.state.registry.holds(run):
                    self.closing.release(run, "head")
            raise
        except GreenletExit:  # whoever began them was ended meanwhile: their records may say RUNNING by now
            for run in runs:
                if run.phase == BEGIN:
                    self.state.registry.forget(run)
            raise

    def _register(self, queue: QueueKeys, node: bytes, claim: Claim) -> Run | None:
        registry = self.state.registry
        old = registry.runs.get((queue.name, claim.id))
        if old is not None:
            if int(old.fence) >= int(claim.fence):
                return None
            if old.phase in (BEGIN, RUN):
                self.stopper.abandon(old)
        run = Run(queue, node, claim)
        registry.add(run)
        flaw = flaw_of_id(claim.id)
        if flaw:
            log.warning("id %s is on the dead list: %s", wire.shown(claim.id), flaw)
            self.closing.release(run, "dead")
            return None
        return run

    def begin(self, queue: QueueKeys, node: bytes, runs: Sequence[Run], wish: str = "") -> None:
        """Ask the records, and act on the answers; `wish` is that of `Records.begin`.

        The data in one answer is bounded: a task whose share of that does not suffice is asked for again, with few
        others. By then its record is RUNNING, and says the same again.
        """
        most = self.state.settings.max_data
        if wish == "stop":
            for run in runs:
                run.stop_wanted = False  # the record decides; it may say that a restart has taken the stop back
        batch = None if wish else self.announce(queue, runs)
        try:
            large = self._begin(queue, node, runs, wish, min(most, MOST_BYTES // len(runs)))
            for part in iter_batches([(run, run.size) for run in large], int):
                self._begin(queue, node, [run for run, _ in part], wish, most)
        finally:
            self.conclude(batch)

    def announce(self, queue: QueueKeys, runs: Sequence[Run]) -> object:
        """A batch of claims that is about to be begun: those that were claimed after it do not overtake it."""
        batch = object()
        if runs:
            self._under_way[batch] = (queue, int(runs[0].fence))
        return batch

    def conclude(self, batch: object) -> None:
        """It was begun."""
        if self._under_way.pop(batch, None) is not None:
            self.on_begun()

    def is_overtaking(self, run: Run) -> bool:
        """Are others being begun that were claimed from its queue before it?"""
        return any(queue is run.queue and fence < int(run.fence) for queue, fence in self._under_way.values())

    def _begin(self, queue: QueueKeys, node: bytes, runs: Sequence[Run], wish: str, most: int) -> list[Run]:
        """Begin runs with at most so many bytes of data each; returns those that have more of it."""
        settings, registry = self.state.settings, self.state.registry
        answers = self._ask(queue, node, runs, wish, most)
        large, late = [], []
        for run, answer in zip(runs, answers, strict=True):
            if not registry.holds(run):
                continue
            if isinstance(answer, StoreUnavailable):
                late.append(run)
            elif len(answer) > 3 and answer[0] in (b"run", b"gate") and most < answer[3] <= settings.max_data:
                run.size = answer[3]
                large.append(run)
            else:
                self._answers[answer[0]](run, answer)
        if late:
            self._begin_late(queue, node, late, wish)
        return large

    def _begin_late(self, queue: QueueKeys, node: bytes, runs: list[Run], wish: str) -> None:
        """Ask records that did not answer again, beside what others have to wait for, until they do.

        Under the same fence, since a reply may have been lost: then the claim is all that tells how far it came.
        """
        for run in runs:
            self.state.registry.set_aside(run)
        gevent.spawn(self._keep_asking, queue, node, runs, wish)

    def _keep_asking(self, queue: QueueKeys, node: bytes, runs: list[Run], wish: str) -> None:
        most, left = self.state.settings.max_data, runs
        while left:
            gevent.sleep(LATE_PAUSE * random.uniform(0.5, 1.0))
            try:
                left = self._ask_again(queue, node, [run for run in left if self._begins_still(run)], wish, most)
            except StoreError as error:
                log.error("queue %s: %s; trying again", wire.shown(queue.key), wire.shown(str(error), 200))

    def _ask_again(self, queue: QueueKeys, node: bytes, runs: list[Run], wish: str, most: int) -> list[Run]:
        """Begin them; returns those whose records do not answer still."""
        answers = self._ask(queue, node, runs, wish, most) if runs else []
        silent = []
        for run, answer in zip(runs, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                silent.append(run)
            elif self._begins_still(run):
                self.state.registry.take_back(run)
                self._answers[answer[0]](run, answer)
        return silent

    def _begins_still(self, run: Run) -> bool:
        return run.phase == BEGIN and self.state.registry.holds(run)

    def _ask(self, queue: QueueKeys, node: bytes, runs: Sequence[Run], wish: str, most: int) -> list[Any]:
        """The answers of the records; a StoreUnavailable for each that gave none."""
        told = wish in TOLD
        rows = [(run.id, run.claim.fence, run.claim.lost, run.told if told else run.claim.early) for run in runs]
        points.reach("before-begin")
        deaths = self.state.settings.max_deliveries
        answers = self.state.store.records.begin(node, queue.key, rows, deaths, most, self._class_options(), wish)
        points.reach("after-begin")
        return answers

    def _class_options(self) -> str:
        """What the classes of this node say that matters before a task starts, as begin.lua reads it."""
        if self._classes_told != len(self.state.classes):
            self._classes_told = len(self.state.classes)
            self._told = "\n".join(filter(None, map(_begin_options, self.state.classes.values())))
        return self._told

    def begin_again(self, run: Run) -> None:
        """Read the record anew for a run of a claim that is ours still (reload)."""
        try:
            self.begin_or_return(run.queue, run.node, [run])
        except StoreError as error:
            log.error("id %s is not reloaded, it goes back: %s", wire.shown(run.id), wire.shown(str(error), 200))
        if run.phase == RUN:
            self.report.emit(run, wire.encode_event("reloaded"))

    def _run(self, run: Run, answer: list[Any]) -> None:
        self._take_in(run, answer)
        self.runner.launch(run)
        if run.replica is not None:
            self.state.counts.on_change()
        if run.suspect:
            self.probation.watch(run)
        if run.stop_wanted:
            self.stopper.stop(run)
        elif run.reload_wanted:
            run.reload_wanted = False
            self.stopper.reload(run)

    def _gate(self, run: Run, answer: list[Any]) -> None:
        self._take_in(run, answer)
        self.on_gate(run)

    def _take_in(self, run: Run, answer: list[Any]) -> None:
        """What the record says of the run; three words are a first start of which all else is 0 or absent."""
        if len(answer) == 3:
            _, run.name, run.data = answer
            run.size = len(answer[2])
            run.attempt, run.deliveries, run.suspect = 1, 0, 0
            run.once, run.cleanup, run.options, run.replica = False, True, None, None
            return
        (_, run.name, run.data, run.size, run.attempt, run.deliveries, cleanup, run.suspect, once, strange,
         *options) = answer  # fmt: skip
        run.cleanup = cleanup != b"false"
        run.once = bool(once)
        run.options = run.replica = None
        if options:
            words = iter(options)
            run.options = {name.decode(): value for name, value in zip(words, words, strict=True)}
            run.kept = run.options.pop("kept", b"") == b"1"
            run.workflow = _workflow_of(run, run.options.pop("workflow", b""))
            run.round = run.options.pop("round", b"")
            run.replica = take_replica(run.options, self.state.counts.version)
        if strange:
            self._tell_of(run, strange)

    def _tell_of(self, run: Run, strange: bytes) -> None:
        """Fields that mean nothing are told of once, whatever their number."""
        new = set(strange.decode("utf-8", "backslashreplace").split(" ")) - self._strange
        if new and len(self._strange) < MOST_STRANGE:
            self._strange |= new
            log.warning(
                "id %s: its record has fields that mean nothing and are ignored: %s",
                wire.shown(run.id),
                wire.shown(" ".join(sorted(new)), 300),
            )

    def _probation(self, run: Run, answer: list[Any]) -> None:
        run.suspect = answer[1]
        self.probation.take(run, answer[2])

    def _tail(self, run: Run, answer: list[Any]) -> None:
        run.cleanup = answer[3] != b"false"
        if len(answer) > 4 and answer[1] in states.CLOSED_RAW:
            run.demand = parse_demand(wire.to_str(answer[4])) if answer[4] else None
            run.workflow, run.round = _workflow_of(run, answer[5]), answer[6]
        self.closing.tail(run, answer[1], answer[2])

    def _missing(self, run: Run, _answer: list[Any]) -> None:
        self.closing.miss(run)

    def _wrong(self, run: Run, _answer: list[Any]) -> None:
        log.warning("id %s is on the dead list: task-<id> is not a hash", wire.shown(run.id))
        self.closing.release(run, "dead")

    def _ended(self, run: Run, answer: list[Any]) -> None:
        """A repeated push of an id that has ended: a push alone never restarts anything."""
        data = wire.encode_json({"state": wire.to_str(answer[1])})
        with contextlib.suppress(StoreUnavailable):
            self.state.store.records.publish(run.id, wire.encode_event("ignored", data))
        self.closing.gone(run)

    def _early(self, run: Run, _answer: list[Any]) -> None:
        self.closing.release(run, "early")

    def _elsewhere(self, run: Run, answer: list[Any]) -> None:
        self.closing.send_elsewhere(run, answer[1])

    def _stale(self, run: Run, answer: list[Any]) -> None:
        """The record has seen a higher fence (a failover took ours back): ask for a new one."""
        claims = self.state.store.claims(run.queue.name)
        try:
            claim = claims.renew(run.node, run.id, run.fence, answer[1])
        except StoreUnavailable:
            self.state.registry.forget(run)  # adoption finds it
            return
        if claim is None:
            self.state.registry.remove(run)
        else:
            run.renew(claim)
            self.begin(run.queue, run.node, [run])


def _workflow_of(run: Run, field: bytes) -> bytes:
    """The workflow that the field names, where the task's id says so, too; a producer may write anything there."""
    is_one = field and run.id.startswith(field + b":") and not has_brace(field)
    return field if is_one else b""


def _begin_options(task_class: type[Task]) -> str:
    """A line of `_class_options`; empty where the class says nothing of the kind."""
    set_by_class = check_class(task_class)
    words = ["once"] if set_by_class.get("rescheduling") is False else []
    if any(set_by_class.get(name) for name in GATES):
        words.append("gate")
    if task_class.steers:
        words.append("steers")
    words += [f"{name}={set_by_class[name]!r}" for name in ("delay", "expires_in") if name in set_by_class]
    return " ".join([task_class.NAME, *words]) if words else ""
