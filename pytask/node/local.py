"""Local tasks: run on this node for as long as it lives, on no claim: Monitor, Cleanup, and those of users.

Each has a record `task-<name>@<node>` with the field `local`, which lists show and which goes with its node.
One that fails begins again after a delay that grows; one that returns is done.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import gevent

from pytask import states, wire
from pytask.errors import StoreError
from pytask.node import outcome as outcomes
from pytask.node.runner import call_handlers
from pytask.node.state import NodeState
from pytask.node.threads import Threads
from pytask.task import Task, takes_messages, takes_stop

log = logging.getLogger("pytask.node")

FIRST_DELAY, LAST_DELAY = 1.0, 30.0  # seconds
STOP_SECONDS = 5.0
MONITOR = "pytask/monitor"


class LocalRun:
    """One local task; it is its own context."""

    def __init__(self, local: LocalTasks, number: int, task_class: type[Task], data: dict[str, Any]) -> None:
        self.local = local
        self.task_class = task_class
        self.data = data
        self.number = number
        self.task: Task | None = None
        self.greenlet: gevent.Greenlet | None = None
        self.state = states.WAIT
        self.fence = self.deliveries = self.replica = 0
        self.replicas = 1
        self.attempt = 1

    @property
    def raw_id(self) -> bytes:
        """`<name>@<node>`, and `#<n>` where a name runs several times."""
        suffix = f"#{self.number}" if self.number > 1 else ""
        return f"{self.task_class.NAME}@{self.local.state.label}{suffix}".encode()

    @property
    def id(self) -> str:
        """The id as text."""
        return self.raw_id.decode()

    @property
    def redis(self) -> Any:
        """The client that the tasks of the node share."""
        return self.local.redis()

    @property
    def helpers(self) -> Any:
        """The app's helpers."""
        return self.local.helpers

    def in_thread(self, call: Callable[[], Any]) -> Any:
        """Call it in a thread, while the greenlet waits."""
        return self.local.threads.call(call)

    def emit(self, event: str, data: Any) -> None:
        """Publish an event at once."""
        encoded = wire.encode_json(data, self.local.state.settings.max_data)
        self.local.state.store.records.publish(self.raw_id, wire.encode_event(event, encoded))

    def progress(self, data: Any) -> None:
        """Publish how far it is."""
        self.emit("progress", data)

    def start(self) -> None:
        """Run in a greenlet, again and again where it fails."""
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        delay = FIRST_DELAY
        while True:
            began = time.monotonic()
            self.state = states.RUNNING
            try:
                with self.task_class.provide_context():
                    self._call()
                self.state = states.SUCCESS
                return
            except gevent.GreenletExit:
                raise
            except BaseException as error:  # the edge of user code: sys.exit() in a task must not end the node
                self.state = states.RETRY
                log.exception("local task %s failed; it begins again", self.task_class.NAME)
                call_handlers(self.local.state, error)
            delay = FIRST_DELAY if time.monotonic() - began > LAST_DELAY else min(delay * 2, LAST_DELAY)
            self.attempt += 1
            gevent.sleep(delay)

    def _call(self) -> None:
        task = self.task_class.__new__(self.task_class)
        task._context = self
        task.__init__(**self.data)  # type: ignore[misc]  # so that __init__ finds id and emit
        self.task = task
        task.start()

    def stop(self) -> None:
        """Ask it to stop, then end its greenlet."""
        if self.greenlet is None or self.greenlet.dead:
            return
        if self.task is not None and takes_stop(self.task_class):
            asked = gevent.spawn(self._ask)
            asked.join(STOP_SECONDS)
        self.greenlet.kill(timeout=STOP_SECONDS)
        self.state = states.STOPPED

    def take(self, message: bytes) -> None:
        """Hand a message to the task."""
        try:
            if self.task is not None:
                self.task.on_message(wire.decode_object(message))
        except BaseException as error:  # noqa: BLE001 - the edge of user code
            log.warning("on_message() of local task %s: %s", self.id, wire.shown(outcomes.text_of(error), 200))

    def _ask(self) -> None:
        assert self.task is not None
        try:
            self.task.stop()
        except BaseException as error:  # noqa: BLE001 - the edge of user code
            log.warning("stop() of local task %s raised %s", self.task_class.NAME, outcomes.text_of(error))


class LocalTasks:
    """All local tasks of this node, by id."""

    def __init__(self, state: NodeState, redis: Any, helpers: Any, threads: Threads) -> None:
        self.state = state
        self.threads = threads
        self.redis = redis
        self.helpers = helpers
        self.all: list[LocalRun] = []
        self._written: dict[bytes, dict[str, Any]] = {}

    @property
    def runs(self) -> dict[bytes, LocalRun]:
        """By id; the ids change with the node's."""
        return {run.raw_id: run for run in self.all}

    @property
    def runs_monitor(self) -> bool:
        """Does this node watch others?"""
        return any(run.task_class.NAME == MONITOR for run in self.all)

    def add(self, task_class: type[Task], data: dict[str, Any]) -> None:
        """Make a local task; `start` starts it."""
        number = 1 + sum(run.task_class is task_class for run in self.all)
        self.all.append(LocalRun(self, number, task_class, data))

    def start(self) -> None:
        """Start those that do not run."""
        for run in self.all:
            if run.greenlet is None:
                run.start()

    def stop(self) -> None:
        """Stop all of them at once, and remove their records."""
        gevent.joinall([gevent.spawn(run.stop) for run in self.all], timeout=2 * STOP_SECONDS)
        with contextlib.suppress(StoreError):
            for run in self.all:
                self.state.store.records.remove(run.raw_id)

    def control(self, task_id: bytes, message: bytes) -> None:
        """Obey `stop` and `reload`, and hand messages over."""
        run = self.runs[task_id]
        if message == b"stop":
            gevent.spawn(run.stop)
        elif message == b"reload":
            gevent.spawn(self._reload, run)
        elif message.startswith(b"{") and takes_messages(run.task_class):
            gevent.spawn(run.take, message)
        else:
            log.warning("local task %s: control message %s ignored", run.id, wire.shown(message))

    def _reload(self, run: LocalRun) -> None:
        run.stop()
        run.start()

    def write(self, ttl: float) -> None:
        """See to it that the records are there and as they should be; each goes after `ttl` seconds."""
        records, before = self.state.store.records, self._written
        self._written = {run.raw_id: self._fields(run) for run in self.all}
        for task_id, fields in self._written.items():
            if before.get(task_id) != fields or not records.expire(task_id, ttl):
                records.set(task_id, fields)
                records.expire(task_id, ttl)

    def _fields(self, run: LocalRun) -> dict[str, Any]:
        return {
            "task": run.task_class.NAME,
            "data": wire.encode_json(run.data),
            "state": run.state,
            "local": "1",
            "node": self.state.label,
            "attempt": run.attempt,
        }
