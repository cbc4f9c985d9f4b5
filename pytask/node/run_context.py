"""RunContext: what a running task reaches of its node, and what it says of itself: events, progress, log lines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gevent

from pytask import states, wire
from pytask.inputs import Inputs, inputs_of
from pytask.node.outcome import tellable
from pytask.node.run import Run

if TYPE_CHECKING:
    from pytask.node.runner import Runner

LEAST_PAUSE = 0.1  # seconds between two events of progress of a run


class RunContext:
    """The context of one run."""

    __slots__ = ("_dropped", "_half_line", "_run", "_runner")

    def __init__(self, run: Run, runner: Runner) -> None:
        self._run = run
        self._runner = runner
        self._dropped = 0  # log lines for which there was no room
        self._half_line = ""  # printed, without its end

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
    def replica(self) -> int:
        """Its number among the replicas of its service, from 0; 0 where it is none."""
        return self._run.replica.number if self._run.replica else 0

    @property
    def replicas(self) -> int:
        """How many replicas its service has now; 1 where it is none."""
        return self._runner.state.counts.get(self._run.replica) if self._run.replica else 1

    @property
    def redis(self) -> Any:
        """The client that the tasks of the node share."""
        return self._runner.redis()

    @property
    def helpers(self) -> Any:
        """The app's helpers."""
        return self._runner.helpers

    @property
    def inputs(self) -> Inputs:
        """What the tasks of the workflow returned that this one waited for; read when it is used."""
        return inputs_of(lambda: self._runner.helpers.store, self._run.workflow, self._run.id)

    @property
    def run(self) -> Run:
        """The run itself."""
        return self._run

    def in_thread(self, call: Callable[[], Any]) -> Any:
        """Call it in a thread, while the greenlet waits."""
        return self._runner.threads.call(call)

    @contextlib.contextmanager
    def lend_place(self) -> Iterator[None]:
        """Inside, the task waits for another one: others may have its place."""
        registry = self._runner.state.registry
        registry.lend(self._run)
        try:
            yield
        finally:
            registry.reclaim(self._run)

    def emit(self, event: str, data: Any) -> None:
        """Queue an event behind those sent before; it is kept."""
        if event.upper() in states.MOVES:
            raise wire.WireError(f"the event name {event!r} belongs to pytask")
        encoded = wire.encode_json(data, self._runner.max_data)
        self._runner.report.emit(self._run, wire.encode_event(event, encoded), "keep")

    def progress(self, data: Any) -> None:
        """Send how far the task is, now or in a moment."""
        if self._run.progress is None:
            self._run.has_more = True
            self._run.progress = Progress(self._run, self._runner)
        self._run.progress.put(wire.encode_event("progress", wire.encode_json(data)))

    def log(self, level: str, logger: str, message: str, when: float) -> None:
        """Queue a line of a log. Never waits: one for which there is no room is counted, and that is told."""
        report = self._runner.report
        if report.is_full:
            self._dropped += 1
            return
        if self._dropped:
            message, self._dropped = f"{message} ({self._dropped} lines before it were dropped)", 0
        line = {"level": level, "logger": logger, "message": tellable(message), "time": round(when, 3)}
        report.emit(self._run, wire.encode_event("log", wire.encode_json(line)), "keep")

    def print(self, text: str) -> None:
        """Take what the task prints: each whole line is a line of a log."""
        self._run.has_more = True
        *lines, self._half_line = (self._half_line + text).split("\n")
        if len(self._half_line) > LONGEST_LINE:
            lines.append(self._half_line)
            self._half_line = ""
        for line in lines:
            self.log("INFO", "print", line, time.time())

    def close(self) -> None:
        """The run is about to end: what waits goes out."""
        if self._half_line:
            self.print("\n")


LONGEST_LINE = 16_384  # characters


class Progress:
    """What a run said of its progress: sent at most ten times a second, the last of it in any case."""

    __slots__ = ("_pending", "_run", "_runner", "_sent", "_timer")

    def __init__(self, run: Run, runner: Runner) -> None:
        self._run = run
        self._runner = runner
        self._pending: bytes | None = None
        self._sent = 0.0  # monotonic second
        self._timer: gevent.Greenlet | None = None

    def put(self, event: bytes) -> None:
        """Send it, or keep it until it may be sent; what was kept before is dropped."""
        left = self._sent + LEAST_PAUSE - time.monotonic()
        if left <= 0:
            self._send(event)
            return
        self._pending = event
        if self._timer is None:
            self._timer = gevent.spawn_later(left, self.flush)

    def flush(self) -> None:
        """Send what is kept. Does not wait."""
        self._timer = None
        if self._pending is not None:
            self._send(self._pending)

    def _send(self, event: bytes) -> None:
        self._pending = None
        self._sent = time.monotonic()
        self._runner.report.emit_now(self._run, event, "progress")
