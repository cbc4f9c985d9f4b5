"""Stopper: ends runs from outside: stop, reload, put back, or drop. Soft first, then hard.

A run's `wish` says what shall become of it when its greenlet has ended: a state (STOPPED, WAIT, LOST, TIMEOUT),
RELOAD, DROP or ABANDON. The task's own `stop` is called, then its greenlet is killed; one that survives that (it
swallows GreenletExit) is told of in the log and left behind: its writes are refused from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent

from pytask import states, wire
from pytask.context import current
from pytask.errors import StoreError
from pytask.keys import QueueKeys
from pytask.node import outcome as outcomes
from pytask.node.outcome import ABANDON, DROP, RELOAD, failure
from pytask.node.run import BEGIN, RELEASE, RUN, Run
from pytask.node.runner import Runner
from pytask.node.state import NodeState
from pytask.task import takes_stop

log = logging.getLogger("pytask.task")

STOP_SECONDS = 5.0  # for the task's own stop()
KILL_SECONDS = (0.5, 1.0, 1.5)  # for each try to kill its greenlet
STRENGTH = {
    None: 0, RELOAD: 1, states.TIMEOUT: 2, states.WAIT: 3, states.LOST: 3, states.STOPPED: 4, DROP: 5, ABANDON: 6,
}  # fmt: skip


class Stopper:
    """Ends runs.

    `restart` is called with a run that is to be reloaded, once its greenlet has ended; `on_early_stop` when a run
    that has not begun was told to stop.
    """

    def __init__(self, state: NodeState, runner: Runner) -> None:
        self.state = state
        self.runner = runner
        self.restart: Callable[[Run], None] = lambda _run: None
        self.on_early_stop: Callable[[], None] = lambda: None

    def stop(self, run: Run) -> None:
        """End the run as STOPPED; one that is about to begin, as soon as it has."""
        if run.phase == BEGIN:
            run.stop_wanted = True
            self.on_early_stop()
        elif self._steers(run):
            gevent.spawn(self._tell_steering, run.id, run.queue, run.fence)
        else:
            self.end(run, states.STOPPED)

    def reload(self, run: Run) -> None:
        """Let the run read its record anew; one that is about to begin may have read it already: once more."""
        if run.phase == BEGIN:
            run.reload_wanted = True
        else:
            self.end(run, RELOAD)

    def make_way(self, run: Run) -> None:
        """End a run that was stopped and restarted since it began, the message lost: its record waits already."""
        if not self._steers(run):
            self.end(run, states.STOPPED)

    def _steers(self, run: Run) -> bool:
        """Does its task steer others? Its object may not be made yet."""
        task_class = self.state.classes.get((run.name or b"").decode("utf-8", "replace"))
        return task_class is not None and task_class.steers

    def stop_held(self, task_id: bytes) -> None:
        """A stop of an id that does not run here: it may be that of a workflow whose last step was taken here."""
        found = self.state.held.find(task_id)
        if found is not None:
            gevent.spawn(self._tell_steering, task_id, *found)

    def _tell_steering(self, task_id: bytes, queue: QueueKeys, fence: bytes) -> None:
        """What steers others stops these first: the wish stands in its record, and its next run obeys it."""
        try:
            if self.state.store.records.want_stop(task_id, fence):
                self.state.store.queues.push_to_key(queue.key, [task_id])
        except StoreError as error:
            log.warning("the stop of id %s cannot be noted: %s", wire.shown(task_id), wire.shown(str(error), 200))

    def time_out(self, run: Run) -> None:
        """The attempt takes too long."""
        self.end(run, states.TIMEOUT)

    def put_back(self, run: Run) -> None:
        """The node ends: the task starts again elsewhere, unless it may start only once."""
        self.end(run, states.LOST if run.once else states.WAIT)

    def drop(self, run: Run) -> None:
        """The record is another's, or is gone: end the run without a finish and give its claim up."""
        self.end(run, DROP)

    def abandon(self, run: Run) -> None:
        """The claim is not ours any more: end the run without a word, and forget it."""
        if run.phase == BEGIN:
            self.state.registry.remove(run)
        else:
            self.end(run, ABANDON)

    def end(self, run: Run, wish: str) -> None:
        """Begin to end the run, in a greenlet of its own; returns at once. A stronger wish replaces a weaker."""
        if run.phase != RUN or STRENGTH[wish] <= STRENGTH[run.wish]:
            return
        run.wish = wish
        if run.stopping is None:
            run.stopping = gevent.spawn(self._end, run)

    def _end(self, run: Run) -> None:
        self._ask(run)
        if not self._kill(run):
            log.error(
                "task %s (id %s) does not end: it swallows GreenletExit; it is left behind",
                wire.shown(run.name or b""),
                wire.shown(run.id),
            )
            if run.wish == RELOAD:
                run.wish = states.STOPPED
        run.stopping = None
        self._conclude(run)

    def _ask(self, run: Run) -> None:
        task = run.task
        if task is None or not takes_stop(type(task)):
            return
        asked = gevent.spawn(self._call_stop, run)
        asked.join(STOP_SECONDS)
        if not asked.dead:
            log.warning("stop() of id %s took over %g s", wire.shown(run.id), STOP_SECONDS)
            asked.kill(block=False)

    def _call_stop(self, run: Run) -> None:
        current.set(run.task._context)
        try:
            run.task.stop()
        except BaseException as error:  # noqa: BLE001 - the edge of user code
            log.warning(
                "stop() of id %s raised %s %s",
                wire.shown(run.id),
                type(error).__name__,
                wire.shown(outcomes.text_of(error), 200),
            )

    def _kill(self, run: Run) -> bool:
        greenlet = run.greenlet
        if greenlet is None:  # it waits for a place
            return True
        for seconds in KILL_SECONDS:
            greenlet.kill(timeout=seconds)
            if greenlet.dead:
                return True
        return False

    def _conclude(self, run: Run) -> None:
        if run.phase != RUN:
            return
        if run.wish == ABANDON:
            run.phase = RELEASE
            self.state.registry.remove(run)
            self.runner.tell_end(run, "")
        elif run.wish == DROP:
            self.runner.tell_end(run, "")
            self.runner.report.closing.release(run, "none")
        elif run.wish == RELOAD:
            self._reload(run)
        elif run.wish == states.WAIT:
            self.runner.settle(run, outcomes.PUT_BACK)
        elif run.wish == states.LOST:
            self.runner.settle(run, outcomes.CUT_SHORT)
        elif run.wish == states.TIMEOUT:
            self.runner.settle(run, self.runner.judge_timeout(run))
        elif run.greenlet is not None and not run.greenlet.dead:
            text = "stopped by request, but its greenlet did not end: it swallows GreenletExit"
            self.runner.settle(run, failure(states.STOPPED, text))
        else:
            self.runner.settle(run, outcomes.STOPPED)

    def _reload(self, run: Run) -> None:
        if run.mail is not None:
            run.mail.halt()
        if run.timer is not None:
            run.timer.close()
            run.timer = None
        self.runner.tell_end(run, states.RUNNING)
        run.wish = None
        run.task = run.greenlet = None
        run.phase = BEGIN
        self.restart(run)
