"""Running one task, as a chain of small steps: resolve, read, build, run, judge, report.

Each run has a greenlet of its own. What user code raises ends here, whatever it is; the outcome is handed
on explicitly, since a greenlet that was killed calls itself successful.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent import GreenletExit

from pytask import states, wire
from pytask.node import outcome as outcomes
from pytask.node.building import build, read_data, resolve
from pytask.node.outcome import Outcome, UnknownName
from pytask.node.report import Report
from pytask.node.run import FINISH, RUN, Run
from pytask.node.state import NodeState
from pytask.task import Task

log = logging.getLogger("pytask.task")

LATE = 0.5  # seconds
LEAST = 0.01  # between two looks at those that wait


class RunContext:
    """What a running task reaches of its node."""

    __slots__ = ("_run", "_runner")

    def __init__(self, run: Run, runner: Runner) -> None:
        self._run = run
        self._runner = runner

    @property
    def id(self) -> str:
        """The task's id."""
        return wire.id_to_str(self._run.id)

    @property
    def fence(self) -> int:
        """The fence of the claim."""
        return int(self._run.fence)

    @property
    def attempt(self) -> int:
        """Which attempt, from 1."""
        return self._run.attempt

    @property
    def deliveries(self) -> int:
        """How many starts a node's death ended."""
        return self._run.deliveries

    @property
    def redis(self) -> Any:
        """The client that the tasks of the node share."""
        return self._runner.redis()

    @property
    def helpers(self) -> Any:
        """The app's helpers."""
        return self._runner.helpers

    def emit(self, event: str, data: Any) -> None:
        """Queue an event behind those sent before."""
        if event.upper() in states.MOVES:
            raise wire.WireError(f"the event name {event!r} belongs to pytask")
        encoded = wire.encode_json(data, self._runner.max_data)
        self._runner.report.emit(self._run, wire.encode_event(event, encoded))


class Runner:
    """Starts runs in greenlets and reports what became of them.

    A run that was begun ahead waits until another one ends; for at most LATE seconds, then it goes back to the
    queue.
    `on_suspect_end` is called when a run has ended against whose task deaths of nodes count.
    """

    def __init__(self, state: NodeState, report: Report, redis: Any, helpers: Any) -> None:
        self.state = state
        self.report = report
        self.redis = redis
        self.helpers = helpers
        self.on_suspect_end: Callable[[], None] = lambda: None
        self.max_data = state.settings.max_data
        self._waiting: deque[tuple[float, Run]] = deque()  # for a place, since this monotonic second
        self._looks = False  # is a look to come?
        state.registry.on_place = self._start_next

    def launch(self, run: Run) -> None:
        """Start the run's greenlet, as soon as there is a place for it."""
        run.phase = RUN
        if self.state.registry.enter(run):
            run.greenlet = gevent.spawn(self._execute, run)
            return
        self._waiting.append((time.monotonic(), run))
        if not self._looks:
            self._look_at_the_first()

    def _start_next(self) -> None:
        """A place is free."""
        while self._waiting:
            run = self._waiting[0][1]
            if self._waits_still(run):
                if not self.state.registry.enter(run):
                    return
                run.greenlet = gevent.spawn(self._execute, run)
            self._waiting.popleft()

    def _waits_still(self, run: Run) -> bool:
        return run.phase == RUN and not run.runs and run.wish is None and self.state.registry.holds(run)

    def _give_up_the_late(self) -> None:
        """Those before them take longer than the ones that had ended: others may have room for what waits here."""
        self._looks = False
        while self._waiting and time.monotonic() - self._waiting[0][0] >= LATE:
            self._put_back(self._waiting.popleft()[1])
        if self._waiting and not self._looks:
            self._look_at_the_first()

    def _look_at_the_first(self) -> None:
        """When the one that has waited longest is late; there is never more than one such look to come."""
        self._looks = True
        since = self._waiting[0][0]
        gevent.spawn_later(max(since + LATE - time.monotonic(), LEAST), self._give_up_the_late)

    def give_back(self) -> None:
        """The node takes no tasks any more: those that wait for a place go back to the head of the queue."""
        while self._waiting:
            self._put_back(self._waiting.popleft()[1])

    def _put_back(self, run: Run) -> None:
        if self._waits_still(run):
            self.settle(run, outcomes.PUT_BACK)

    def _execute(self, run: Run) -> None:
        try:
            outcome = self._attempt(run)
        except UnknownName:
            if run.wish is None:
                self._give_to_others(run)
                return
            outcome = outcomes.STOPPED
        except BaseException as error:  # noqa: BLE001 - the edge of user code: SystemExit must not end the node
            outcome = outcomes.judge(error)
        if run.wish is None:
            self.settle(run, outcome)

    def _attempt(self, run: Run) -> Outcome:
        task_class = resolve(self.state.classes, run.name)
        data = self._read(run)
        if task_class.provide_context is Task.provide_context:
            return self._call(run, task_class, data)
        outcome = outcomes.DONE
        with task_class.provide_context():
            outcome = self._call(run, task_class, data)
        return outcome  # noqa: RET504 - the context may swallow what is raised

    def _read(self, run: Run) -> dict[str, Any]:
        try:
            return read_data(run.data, run.size, self.max_data)
        finally:
            run.data = None  # a task that runs for days need not hold it twice

    def _call(self, run: Run, task_class: type[Task], data: dict[str, Any]) -> Outcome:
        run.task = task = build(task_class, RunContext(run, self), data)
        return outcomes.success(task.start(), self.max_data)

    def _give_to_others(self, run: Run) -> None:
        run.phase = FINISH
        self.state.registry.vacate(run)
        if run.claim.how == b"push":  # it comes back again and again; once is enough to say so
            log.warning(
                "no task is called %s on this node (id %s): add it with add_task; left to other nodes",
                wire.shown(run.name or b""),
                wire.shown(run.id),
            )
        self.report.unknown(run)

    def settle(self, run: Run, outcome: Outcome) -> None:
        """Hand the outcome over, once; a run that is settled already stays as it is."""
        if run.phase != RUN:
            return
        run.phase = FINISH
        self.state.registry.vacate(run)
        if run.suspect:
            self.on_suspect_end()
        if outcome.error is not None:
            self._tell(run, outcome)
        self.report.finish(run, outcome)

    def _tell(self, run: Run, outcome: Outcome) -> None:
        error = outcome.error
        assert error is not None
        log.warning(
            "task %s (id %s) ended as %s: %s %s",
            wire.shown(run.name or b""),
            wire.shown(run.id),
            outcome.state,
            type(error).__name__,
            wire.shown(outcomes.text_of(error), 200),
        )
        if outcome.state == states.EXCEPTION:
            call_handlers(self.state, error)


def call_handlers(state: NodeState, error: BaseException) -> None:
    """Tell every exception handler, in order; one that raises does no harm."""
    for handler in state.exception_handlers:
        try:
            handler(error)
        except GreenletExit:
            raise
        except BaseException:  # the edge of user code: sys.exit() in a handler must not end the node
            log.exception("an exception handler failed")
