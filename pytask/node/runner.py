"""Running one task, as a chain of small steps: resolve, read, build, run, judge, report.

Each run has a greenlet of its own. What user code raises ends here, whatever it is; the outcome is handed
on explicitly, since a greenlet that was killed calls itself successful.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from gevent import GreenletExit

from pytask import states, wire
from pytask.context import current
from pytask.keys import QueueKeys
from pytask.node import outcome as outcomes
from pytask.node.building import embody, initialise, read_data, resolve
from pytask.node.hooks import call_each, run_inside
from pytask.node.outcome import Outcome, UnknownName
from pytask.node.policy import Policy, again, judge, policy_of
from pytask.node.report import Report
from pytask.node.run import FINISH, RUN, Run
from pytask.node.run_context import RunContext
from pytask.node.state import NodeState
from pytask.node.threads import Threads
from pytask.task import Task

log = logging.getLogger("pytask.task")

LATE = 0.5  # seconds
LEAST = 0.01  # between two looks at those that wait


class Kind(NamedTuple):
    """What a node knows of the tasks of a name."""

    task_class: type[Task]
    policy: Policy
    has_context: bool  # does the class provide a context of its own?


class Runner:
    """Starts runs in greenlets and reports what became of them.

    A run that was begun ahead waits until another one ends; for at most LATE seconds, then it goes back to the
    queue.
    `on_suspect_end` is called when a run has ended against whose task deaths of nodes count, `on_timeout` with one
    that takes too long: it must not block.
    """

    def __init__(self, state: NodeState, report: Report, redis: Any, helpers: Any) -> None:
        self.state = state
        self.report = report
        self.redis = redis
        self.helpers = helpers
        self.on_suspect_end: Callable[[], None] = lambda: None
        self.on_timeout: Callable[[Run], None] = lambda _run: None
        self.max_data = state.settings.max_data
        self.threads = Threads(state.settings)
        self._kinds: dict[bytes | None, Kind] = {}
        self._waiting: deque[tuple[float, Run]] = deque()  # for a place, since this monotonic second
        self._looks = False  # is a look to come?
        state.registry.on_place = self._start_next

    def launch(self, run: Run) -> None:
        """Start the run's greenlet, as soon as there is a place for it."""
        run.phase = RUN
        if self.state.registry.enter(run):
            run.greenlet = gevent.spawn(self._execute, run)
        elif self.state.registry.is_allowed(run):
            self._waiting.append((time.monotonic(), run))
            if not self._looks:
                self._look_at_the_first()
        else:
            self.settle(run, outcomes.PUT_BACK)

    def _start_next(self) -> None:
        """A place is free."""
        while self._waiting:
            run = self._waiting[0][1]
            if self._waits_still(run):
                if self.state.registry.enter(run):
                    run.greenlet = gevent.spawn(self._execute, run)
                elif self.state.registry.is_allowed(run):
                    return
                else:
                    self.settle(run, outcomes.PUT_BACK)
            self._waiting.popleft()

    def _waits_still(self, run: Run) -> bool:
        return run.phase == RUN and run.greenlet is None and run.wish is None and self.state.registry.holds(run)

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

    def give_back(self, queue: QueueKeys | None = None) -> None:
        """The node takes no tasks (of this queue) any more: those that wait for a place go back to its head."""
        rows = [row for row in self._waiting if queue is None or row[1].queue is queue]
        for row in rows:
            self._waiting.remove(row)
            self._put_back(row[1])

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
            if run.wish is not None:
                return
            outcome = judge(run, error)
        if run.wish is None:
            self.settle(run, outcome)

    def judge_timeout(self, run: Run) -> Outcome:
        """The outcome of an attempt that took too long."""
        seconds = run.policy.timeout
        if run.greenlet is not None and not run.greenlet.dead:  # another attempt would run beside it
            return outcomes.timed_out(seconds, ", and its greenlet did not end: it swallows GreenletExit")
        failed = outcomes.timed_out(seconds)
        assert failed.error is not None
        return judge(run, failed.error, failed)

    def _attempt(self, run: Run) -> Outcome:
        kind = self._kinds.get(run.name) or self._learn(run.name)
        policy = run.policy = kind.policy if run.options is None else policy_of(kind.task_class, run.options)
        if policy.timeout is not None:
            self._set_timer(run, policy.timeout)
        context = RunContext(run, self)
        current.set(context)
        task = embody(kind.task_class, context)
        if not self.state.hooks.of_tasks:
            return self._perform(run, task, kind)
        run.hooked = task
        call_each(self.state.hooks.start, task)
        return run_inside(self.state.hooks.around, task, lambda: self._perform(run, task, kind))

    def _learn(self, name: bytes | None) -> Kind:
        task_class = resolve(self.state.classes, name)
        has_context = task_class.provide_context is not Task.provide_context
        kind = self._kinds[name] = Kind(task_class, policy_of(task_class, None), has_context)
        return kind

    def _perform(self, run: Run, task: Task, kind: Kind) -> Outcome:
        data = {} if run.data == b"{}" else self._read(run)
        if not kind.has_context:
            return self._call(run, task, data)
        outcome = outcomes.DONE
        with task.provide_context():
            outcome = self._call(run, task, data)
        return outcome  # noqa: RET504 - the context may swallow what is raised

    def _read(self, run: Run) -> dict[str, Any]:
        try:
            return read_data(run.data, run.size, self.max_data)
        finally:
            run.data = None  # a task that runs for days need not hold it twice

    def _set_timer(self, run: Run, seconds: float) -> None:
        run.has_more = True
        run.timer = gevent.get_hub().loop.timer(seconds)
        run.timer.start(self.on_timeout, run)

    def _call(self, run: Run, task: Task, data: dict[str, Any]) -> Outcome:
        initialise(task, data)
        run.task = task
        if run.mail is not None:
            run.mail.begin()
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
        if run.has_more:
            _put_away(run)
        if run.suspect:
            self.on_suspect_end()
        ended_as = outcome.state
        if run.replica is not None:
            outcome = again(run, outcome)
            self.state.counts.on_change()
        if outcome.error is not None:
            self._tell(run, outcome, ended_as)
        if run.hooked is not None:
            self.tell_end(run, outcome.state, outcome.error)
        self.report.finish(run, outcome)

    def tell_end(self, run: Run, state: str, error: BaseException | None = None) -> None:
        """Tell the hooks that were told of the run's start."""
        task, run.hooked = run.hooked, None
        if task is not None:
            call_each(self.state.hooks.end, task, state, error, may_be_killed=False)

    def _tell(self, run: Run, outcome: Outcome, ended_as: str) -> None:
        error = outcome.error
        assert error is not None
        if outcome.state == states.RETRY:
            became = f"attempt {run.attempt} failed, the next one follows in {float(outcome.due):g} s"
        else:
            became = f"ended as {outcome.state}"
        log.warning(
            "task %s (id %s) %s: %s %s",
            wire.shown(run.name or b""),
            wire.shown(run.id),
            became,
            type(error).__name__,
            wire.shown(outcomes.text_of(error), 200),
        )
        if ended_as == states.EXCEPTION:  # of a replica, too: it never ends otherwise
            call_handlers(self.state, error, may_be_killed=False)


def _put_away(run: Run) -> None:
    """What belongs to an attempt ends with it."""
    if run.timer is not None:
        run.timer.close()
        run.timer = None
    if run.progress is not None:
        run.progress.flush()
    if run.mail is not None:
        run.mail.halt()
    if run.task is not None:
        run.task._context.close()


def call_handlers(state: NodeState, error: BaseException, may_be_killed: bool = True) -> None:
    """Tell every exception handler, in order; one that raises does no harm. GreenletExit is as in `call_each`."""
    for handler in state.exception_handlers:
        try:
            handler(error)
        except BaseException as raised:  # the edge of user code: sys.exit() in a handler must not end the node
            if may_be_killed and isinstance(raised, GreenletExit):
                raise
            log.exception("an exception handler failed")
