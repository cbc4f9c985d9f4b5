"""Node: one running daemon. Puts the services together, starts them in order and ends them in order.

Start: reach Redis, join the queues, beat, listen, report, local tasks, and only then take work.
End: no new claims; tasks that are `forever` or define `stop()` are stopped and put back at once; the others
get `grace` seconds; what is left is killed and put back to the head of its queue, or ends as LOST where it may
start only once; then the node leaves.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent
from gevent.event import Event

from pytask.errors import StoreError, StoreRefused, StoreUnavailable
from pytask.hooks import Hook, Hooks
from pytask.keys import QueueKeys
from pytask.node.balance import Balance
from pytask.node.capture import Capture
from pytask.node.closing import Closing
from pytask.node.control import Control
from pytask.node.gates import Gates
from pytask.node.heartbeat import Heartbeat
from pytask.node.hooks import call_each
from pytask.node.identity import Identity
from pytask.node.intake import Intake
from pytask.node.lines import Lines
from pytask.node.local import LocalTasks
from pytask.node.presence import Presence
from pytask.node.probation import Probation
from pytask.node.promoter import Promoter
from pytask.node.reconcile import Reconcile
from pytask.node.report import Report
from pytask.node.run import BEGIN, RUN, Run
from pytask.node.runner import Runner
from pytask.node.service import Service
from pytask.node.starter import Starter
from pytask.node.state import NodeState
from pytask.node.stopper import Stopper
from pytask.node.watchdog import Watchdog
from pytask.settings import Settings
from pytask.store.listener import Listener
from pytask.store.store import Store
from pytask.store.target import Target
from pytask.task import Task, takes_stop

log = logging.getLogger("pytask.node")

FLUSH_SECONDS = 10.0  # at the end, for outcomes that are not sent yet
HURRIED_FLUSH_SECONDS = 2.0  # after a second signal
START_HOOK_SECONDS = 30.0  # for each hook of the node's start
STOP_HOOK_SECONDS = 5.0  # and of its end
END_SECONDS = 12.0  # at the end, for tasks that were told to stop


class Node:
    """A node. `start` raises StoreUnavailable or StoreRefused; `stop` returns whether the end was clean."""

    def __init__(
        self,
        settings: Settings,
        target: Target,
        classes: Mapping[str, type[Task]],
        *,
        helpers: Any,
        redis: Callable[[], Any],
        exception_handlers: list[Callable[[BaseException], Any]],
        hooks: Hooks | None = None,
        local_tasks: Sequence[tuple[type[Task], dict[str, Any]]] = (),
    ) -> None:
        self.settings = settings
        self.target = target
        self.store = self._make_main_store()
        self.state = NodeState(settings, self.store, classes, exception_handlers, hooks)
        self.closing = Closing(self.state)
        self.lines = Lines(self.state)
        self.gates = Gates(self.state, self.closing, self.lines)
        self.report = Report(self.state, self.closing)
        self.runner = Runner(self.state, self.report, redis, helpers)
        self.stopper = Stopper(self.state, self.runner)
        self.probation = Probation(self.state, self.closing)
        self.starter = Starter(self.state, self.runner, self.stopper, self.report, self.closing, self.probation)
        self.reconcile = Reconcile(self.state, self.starter, self.stopper, self.closing)
        self.local = LocalTasks(self.state, redis, helpers, self.runner.threads)
        for task_class, data in local_tasks:
            self.local.add(task_class, data)
        self.presence = Presence(self.state, self.local)
        self.control = Control(self.state, self.stopper, self.reconcile, self.local, self.report, self._listen)
        self.capture = Capture(logs=settings.capture_logs, prints=settings.capture_print)
        self._waker = gevent.get_hub().loop.async_()
        self._waker.start(self._after_beat)
        self.heartbeat = Heartbeat(self.state, self._beat_store, self._waker.send)
        self.identity = Identity(self.state, self.stopper, self.heartbeat)
        self.waits = self._make_store("wait", patience=0, timeout=10.0, size=len(settings.queues) + 1)
        self.intakes = [
            Intake(self.state, queue, self.starter, self.reconcile, self.identity, self.waits)
            for queue in self.state.queues.values()
        ]
        self.promoters = {name: Promoter(self.state, name) for name in self.state.queue_names}
        self.balance = Balance(self.state, self.stopper, {intake.queue.name: intake for intake in self.intakes})
        self.watchdog = Watchdog(self.intakes, self.heartbeat)
        self.hurry = Event()
        self.on_identity: Callable[[str], object] = lambda _label: None
        self._connect_services()

    def _connect_services(self) -> None:
        self.report.on_fenced = self.stopper.drop
        self.report.on_stop = self.stopper.stop
        self.report.on_restart = self.stopper.make_way
        self.closing.on_parked = lambda queue: self.promoters[queue].note()
        self.stopper.restart = self.starter.begin_again
        self.stopper.on_early_stop = self.probation.wake
        self.runner.on_suspect_end = self.probation.wake
        self.runner.on_timeout = self.stopper.time_out
        self.probation.begin = self.starter.begin_or_return
        self.closing.on_leave = self.lines.leave
        self.starter.on_gate = self.gates.take
        self.starter.on_begun = self.gates.wake
        self.gates.is_overtaking = self.starter.is_overtaking
        self.gates.begin = self.starter.begin_or_return
        self.reconcile.heartbeat = self.heartbeat
        self.heartbeat.listening = self.control.standing.is_set
        self.control.on_told = self._see_to_inbox
        self.control.on_cut = self.heartbeat.look
        self.reconcile.on_refused = self.identity.refuse
        self.identity.on_given_up = self._interrupt_intakes
        for intake in self.intakes:
            intake.on_paused = self._give_back
        by_queue = {intake.queue.name: intake for intake in self.intakes}
        self.identity.on_away = lambda queue: by_queue[queue].stop()
        self.identity.on_back = lambda queue: by_queue[queue].start()
        self.identity.on_new = self._on_new_identity

    def _make_main_store(self) -> Store:
        """One server is waited for in each call. On a cluster what is for other servers must not wait as well."""
        store = self._make_store("main", patience=None)
        return store if store.client.servers.one else store.with_patience(0)  # services try again

    def _make_store(self, role: str, *, patience: float | None, timeout: float = 5.0, size: int = 16) -> Store:
        namespace, name = self.settings.namespace, f"pytask:{role}"
        durable = self.settings.durable
        return Store(
            self.target, namespace, patience=patience, timeout=timeout, size=size, name=name, durable=durable
        )

    def _beat_store(self) -> Store:
        return self._make_store("beat", patience=0, timeout=max(self.settings.node_timeout / 5, 0.5), size=2)

    def _listen(self, channels: list[bytes], patterns: list[bytes]) -> Listener:
        return self.store.listen(channels=channels, patterns=patterns, name="pytask:control")

    def _see_to_inbox(self, queue: bytes) -> None:
        for intake in self.intakes:
            if intake.queue.key == queue:
                intake.look()

    def _after_beat(self) -> None:
        self.identity.wake()
        self.reconcile.wake()

    def _on_new_identity(self) -> None:
        self.on_identity(self.state.label)
        self.control.renew()
        self.presence.stop()
        self.presence.start()

    @property
    def services(self) -> list[Service]:
        """Every service that is a greenlet and runs until the end, in the order of their start."""
        promoters = self.promoters.values()
        return [
            self.closing, self.report, self.probation, self.lines, self.gates, self.identity, self.reconcile,
            self.control, *promoters, self.presence, self.balance, self.watchdog,
        ]  # fmt: skip

    # Start.

    def start(self) -> None:
        """Begin to work. Raises StoreUnavailable where Redis does not answer for `connect_timeout` seconds."""
        self._reach()
        self.capture.start()
        self.heartbeat.start()
        for service in self.services:
            service.start()
        self.control.standing.wait(timeout=5)
        self._call_hooks(self.state.hooks.node_start, START_HOOK_SECONDS)
        self.local.start()
        self.on_identity(self.state.label)  # before it has tasks: whoever reaps it must know that it may
        for intake in self.intakes:
            intake.start()
        self.state.want(True)

    def _reach(self) -> None:
        deadline = time.monotonic() + self.settings.connect_timeout
        delay = 0.1
        while True:
            silence = StoreUnavailable("Redis: connected, but it does not answer")
            try:
                with gevent.Timeout(max(deadline - time.monotonic(), 0.1), silence):
                    self.store.ping()
                    self._try_rights()
                    for queue in self.state.queue_names:
                        self.store.membership(queue).join(self.state.id)
                return
            except StoreRefused:
                raise
            except StoreUnavailable:
                if time.monotonic() + delay > deadline:
                    raise
            gevent.sleep(delay)
            delay = min(delay * 2, 1.0)

    def _try_rights(self) -> None:
        """Raise StoreRefused now for a user that may not subscribe or run scripts: it would fail for ever."""
        if self.settings.durable:
            self.store.check_durable()  # without a replica no write would ever count
        self._listen([], [self.store.keys.control_pattern]).close()
        for queue in self.state.queue_names:
            try:
                self.store.claims(queue).promote(0)
            except StoreRefused as error:
                if "WRONGTYPE" not in str(error):  # a queue that is no list: the others are served all the same
                    raise

    def pause(self) -> None:
        """Take no new tasks; those that run go on."""
        self.state.want(False)
        self._interrupt_intakes()
        self._give_back()

    def _give_back(self, queue: QueueKeys | None = None) -> None:
        """What was claimed and waits on this node (of one queue) goes back to the queue."""
        self.probation.give_back(queue)
        self.runner.give_back(queue)

    def _interrupt_intakes(self) -> None:
        for intake in self.intakes:
            intake.interrupt()

    def resume(self) -> None:
        """Take tasks again."""
        self.state.want(True)

    # End.

    def stop(self) -> bool:
        """End in order. True where nothing but forever tasks had to be cut short."""
        self.state.want(False)
        with contextlib.suppress(StoreError):
            self.balance.leave()
        for intake in self.intakes:
            intake.finish()
        self._give_back()
        self._put_back(self._restless())
        self._wait_for_runs(self.settings.grace)
        self.reconcile.ending = True
        left = [run for run in self._open_runs() if run.wish is None and run.phase == RUN]
        if left:
            log.warning("%d tasks did not end within the grace: they are killed and put back", len(left))
        self._wait_for_runs(END_SECONDS, all_go_back=True)
        self._leave()
        return not left

    def _open_runs(self) -> list[Run]:
        return [run for run in self.state.registry.runs.values() if run.phase in (BEGIN, RUN)]

    def _restless(self) -> list[Run]:
        """Runs that are not waited for: they go on for ever, or know how to stop."""
        return [
            run
            for run in self._open_runs()
            if run.replica is not None or (run.task is not None and _gives_way(run))
        ]

    def _put_back(self, runs: list[Run]) -> None:
        for run in runs:
            self.stopper.put_back(run)

    def _wait_for_runs(self, seconds: float, *, all_go_back: bool = False) -> None:
        """Wait until every run has ended and was told of; less where somebody is in a hurry.

        Those that give way are put back meanwhile, or all, also one that begins only now.
        """
        deadline = time.monotonic() + seconds
        while not self.state.registry.empty.is_set() and time.monotonic() < deadline:
            if self.hurry.is_set() and (not self._open_runs() or (not all_go_back and self._only_waiting())):
                return  # what is not sent yet has its own time, in `_leave`
            self._put_back(self._open_runs() if all_go_back else self._restless())
            self.state.registry.empty.wait(timeout=0.05)

    def _only_waiting(self) -> bool:
        return any(run.wish is None for run in self._open_runs())

    @property
    def _flush_seconds(self) -> float:
        return HURRIED_FLUSH_SECONDS if self.hurry.is_set() else FLUSH_SECONDS

    def _call_hooks(self, hooks: list[Hook], seconds: float) -> None:
        """Call the node's hooks, each for so many seconds at most: one that hangs must not hold the node up."""
        for hook in hooks:
            called = gevent.spawn(call_each, [hook], self.state.info)
            called.join(seconds)
            if not called.dead:
                log.error("a hook of the node took over %g s: it is ended", seconds)
                called.kill(block=False)

    def _leave(self) -> None:
        for intake in self.intakes:
            intake.stop()
        self._call_hooks(self.state.hooks.node_stop, STOP_HOOK_SECONDS)
        self.capture.stop()
        with gevent.Timeout(self._flush_seconds, False):
            self.local.stop()
            self.report.wait_until_sent(FLUSH_SECONDS)
            self.closing.wait_until_sent(FLUSH_SECONDS)
        for service in reversed(self.services):
            service.stop()
        self.heartbeat.stop()
        self._waker.stop()
        with gevent.Timeout(self._flush_seconds, False):
            for queue in self.state.queue_names:
                with contextlib.suppress(StoreError):
                    self.store.membership(queue).leave(self.state.id, b"")  # nobody's fault
            with contextlib.suppress(StoreError):
                self.store.node_records.remove(self.state.id)
        self.waits.close()
        self.store.close()


def _gives_way(run: Run) -> bool:
    """Who may not start again keeps its chance to end, unless it never would."""
    task_class = type(run.task)
    return task_class.forever or (takes_stop(task_class) and not run.once)
