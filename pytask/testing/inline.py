"""InlineNode: runs what waits in this very process, when it is told to, without gevent's patches.

It is a real node without its own loops: what it takes off a queue goes through the same scripts and the same code
as on any other, so that retries, limits, expiry, results and events are real.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import gevent

from pytask.app import PyTask
from pytask.hooks import Hooks
from pytask.keys import QueueKeys
from pytask.node.control import Control
from pytask.node.hooks import call_each
from pytask.node.identity import Identity
from pytask.node.node import Node
from pytask.node.presence import Presence
from pytask.node.promoter import Promoter
from pytask.node.reconcile import Reconcile
from pytask.node.run import Run
from pytask.node.watchdog import Watchdog
from pytask.task import Task

LOOPS = (Identity, Reconcile, Control, Promoter, Presence, Watchdog)  # what belongs to a node that lives on
PLACES = 10_000  # for tasks that start others and wait for them
SPINS = 20  # looks without a pause, before each one waits for PAUSE seconds
PAUSE = 0.001


class InlineNode:
    """The node of an app in this process. `errors` holds what the last attempt of each task raised, by id.

    Use it as a context manager, or `close` it. Tasks run one after the other, each in a greenlet of the calling
    thread: what blocks in one of them blocks the test.
    """

    def __init__(self, app: PyTask) -> None:
        self.app = app
        self.errors: dict[str, BaseException] = {}
        self._hooks = Hooks()
        self._node: Node | None = None
        self._starts = 0  # so far
        self._depth = 0  # calls of run_until_idle, each inside of a task of the one before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def run_until_idle(self, timeout: float = 30.0) -> int:
        """Run what waits, and what that starts, until nothing waits; returns how many starts there were.

        What waits for a later time stays where it is: see Clock. Raises TimeoutError after so many seconds, with
        the tasks that still run; these are put back.
        """
        return self._run(timeout, lambda _count: False)

    def run_one(self, timeout: float = 30.0) -> bool:
        """Run the next task that waits; False where none does."""
        return self._run(timeout, lambda count: count >= 1) > 0

    def close(self) -> None:
        """Call the hooks of a node's end and close the connections. Safe to repeat."""
        node, self._node = self._node, None
        if node is None:
            return
        call_each(self._hooks.node_stop, node.state.info)
        for service in reversed(node.services):
            service.stop()
        node.waits.close()
        node.store.close()

    def _run(self, timeout: float, enough: Callable[[int], bool]) -> int:
        node = self._start()
        deadline = time.monotonic() + timeout
        before = self._starts
        self._enter(node)
        try:
            while not enough(self._starts - before) and self._take(node, deadline):
                pass
            return self._starts - before
        finally:
            self._leave(node)

    def _start(self) -> Node:
        """The node, which knows what the app knows now."""
        if self._node is None:
            settings = self.app.settings.replace(concurrency=PLACES)
            self._node = node = Node(
                settings,
                self.app.target,
                {},
                helpers=self.app.helpers,
                redis=lambda: self.app.redis,
                exception_handlers=self.app.exception_handlers,
                hooks=self._hooks,
            )
            self._hooks.node_start, self._hooks.node_stop = self.app.hooks.node_start, self.app.hooks.node_stop
            self._hooks.start, self._hooks.end = self.app.hooks.start, self.app.hooks.end
            registry: Any = node.state.registry
            registry.lend = lambda _run: self.run_until_idle()  # before a task waits for others, these run
            registry.reclaim = lambda _run: None
            for service in node.services:
                if not isinstance(service, LOOPS):
                    service.start()
            call_each(self._hooks.node_start, node.state.info)
            node.state.want(True)
        self._hooks.around = [self._note, *self.app.hooks.around]
        self._node.state.classes = self.app.known_tasks
        self._node.runner._kinds.clear()  # of classes that may have been replaced
        return self._node

    def _note(self, task: Task, run: Callable[[], None]) -> None:
        """Around each task: keep what it raises."""
        self.errors.pop(task.id, None)
        try:
            run()
        except BaseException as error:
            self.errors[task.id] = error
            raise

    def _enter(self, node: Node) -> None:
        self._depth += 1
        if self._depth == 1:
            node.capture.start()
            for queue in node.state.queue_names:
                node.store.membership(queue).join(node.state.id)

    def _leave(self, node: Node) -> None:
        self._depth -= 1
        if self._depth == 0:
            node.capture.stop()
            for queue in node.state.queue_names:
                node.store.membership(queue).leave(node.state.id, b"")

    def _take(self, node: Node, deadline: float) -> bool:
        """Take an id off the first queue that has one and see it through; False where none has."""
        return any(self._take_from(node, queue, deadline) for queue in node.state.queues.values())

    def _take_from(self, node: Node, queue: QueueKeys, deadline: float) -> bool:
        claims = node.store.claims(queue.name)
        claims.promote()
        found = claims.claim(node.state.id, 1) or []  # None: the queue is paused
        runs = node.starter.register(queue, node.state.id, found)
        node.starter.begin_or_return(queue, node.state.id, runs)
        self._starts += len(found)
        self._wait(node, runs, deadline)
        return bool(found)

    def _wait(self, node: Node, runs: list[Run], deadline: float) -> None:
        """Wait until these runs are told of and their claims given up."""
        looks = 0
        while any(node.state.registry.holds(run) for run in runs):
            if time.monotonic() > deadline:
                self._put_back(node, runs)
                names = ", ".join(_name(run) for run in runs)
                raise TimeoutError(f"{names} did not end in time: put back")
            looks += 1
            gevent.sleep(0 if looks < SPINS else PAUSE)

    def _put_back(self, node: Node, runs: list[Run]) -> None:
        for run in runs:
            node.stopper.put_back(run)
        end = time.monotonic() + 10.0
        while any(node.state.registry.holds(run) for run in runs) and time.monotonic() < end:
            gevent.sleep(PAUSE)


def _name(run: Run) -> str:
    name: Any = run.name or b"?"
    return f"task {name.decode('utf-8', 'backslashreplace')} (id {run.id.decode('utf-8', 'backslashreplace')})"
