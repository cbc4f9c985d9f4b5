"""Processes: a parent that starts several nodes, each a process, and looks after them. It runs no task itself.

A child that dies is replaced, after a delay that grows; children that die one after the other before they are
nodes end the parent with an error. One that a task of its own killed is replaced for ever. A child tells its
node's ids through a pipe, so that the parent, which knows at once that the child is dead, can put its tasks back
at once; in a thread, since Redis may be away, and signals are to be heard meanwhile. They go on to the children;
SIGHUP replaces them one by one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Protocol

from pytask import supervision
from pytask.forking import Forked

log = logging.getLogger("pytask.parent")

FIRST_DELAY, LAST_DELAY = 0.5, 5.0  # seconds until a dead child is replaced
STABLE = 30.0  # a child that lived for so many seconds is replaced at once
CRASH_LOOP = 5  # children in a row that died before they were nodes
LOOK = 2.0  # seconds between two looks at the children, of whose deaths the system tells at once
LEAST, SHORT = 0.01, 0.05
READY_SECONDS = 30.0
REAP_SECONDS = 5.0  # for what is left to put back at the end
NO_REDIS = 3
FINAL = (2, NO_REDIS)  # statuses that say, while no child has been a node yet, that another try does not help
PASSED_ON = (signal.SIGUSR1, signal.SIGTSTP, signal.SIGCONT)
HEARD = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *PASSED_ON)


class Process(Protocol):
    """A process that was started: a `subprocess.Popen`, or one that was forked."""

    pid: int

    def poll(self) -> int | None:
        """Its exit status, minus the signal that ended it; None while it lives."""

    def wait(self) -> int | None:
        """The same, once it has ended."""

    def send_signal(self, sig: int) -> None:
        """Send a signal. Raises ProcessLookupError where it is gone."""


Starter = Callable[[int], Process]
"""Starts a child, given the descriptor that it is to write its ids to."""


def by_command(command: Sequence[str], environ: Mapping[str, str] | None = None) -> Starter:
    """Children that are fresh processes of a command. `environ` is what they find beside this environment."""

    def start(descriptor: int) -> Process:
        found = {**os.environ, **(environ or {}), **supervision.environment(descriptor)}
        # Ctrl-C in a terminal reaches every process of its group; the parent alone decides what it means.
        return subprocess.Popen(command, env=found, pass_fds=[descriptor], process_group=0)  # noqa: S603

    return start


def by_fork(be_a_node: Callable[[], int]) -> Starter:
    """Children that are forked off this process; `be_a_node` runs in them and returns the exit status."""

    def start(descriptor: int) -> Process:
        environ = supervision.environment(descriptor)

        def run() -> int:
            os.environ.update(environ)
            return be_a_node()

        return Forked(run)

    return start


class Child:
    """One node process."""

    def __init__(self, start: Starter) -> None:
        self._reader, write = os.pipe()
        os.set_blocking(self._reader, False)
        try:
            self.process = start(write)
        finally:
            os.close(write)
        self.started = time.monotonic()
        self.is_ending = False
        self._told = b""

    @property
    def nodes(self) -> list[str]:
        """Every id that its node has had so far; empty until it takes tasks."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._reader, 4096):
                self._told += part
        return self._told.decode().split("\n")[:-1]

    def wait(self, seconds: float) -> None:
        """Wait until it takes tasks or has died, so many seconds at most."""
        if not self.nodes and self.status is None:
            select.select([self._reader], [], [], seconds)

    def end(self) -> None:
        """Tell it to end in order; a node once, since the second time it would hurry.

        What is no node yet is told each time: a signal that comes when it is about to block is heard behind that.
        """
        if not self.is_ending or not self.nodes:
            self.is_ending = True
            self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        """Send a signal, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    @property
    def was_ended_before_its_node(self) -> bool:
        """Has a signal to end it come while it started, before it had a node that could end in order?"""
        return self.status == -signal.SIGTERM and not self.nodes

    def close(self) -> None:
        """Forget it: it has ended. Safe to repeat."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    @property
    def status(self) -> int | None:
        """Its exit status; None while it lives."""
        return self.process.poll()


class Reaping:
    """Puts back, in a thread, what dead nodes have. No child may be started while it does.

    A copy of this process that is forked off meanwhile would find its locks taken, for ever.
    """

    def __init__(self, reap: Callable[[str], None]) -> None:
        self._reap = reap
        self._thread: threading.Thread | None = None
        self._labels: list[str] = []  # for the next thread; the parent's own thread alone touches it

    def add(self, labels: Sequence[str]) -> None:
        """These nodes are dead."""
        self._labels += labels
        self.is_busy()

    def is_busy(self) -> bool:
        """Is there anything left to do? Sees to it that it is done."""
        if self._thread is not None and self._thread.is_alive():
            return True
        labels, self._labels = self._labels, []
        self._thread = threading.Thread(target=self._run, args=(labels,), daemon=True) if labels else None
        if self._thread is not None:
            self._thread.start()
        return self._thread is not None

    def _run(self, labels: list[str]) -> None:
        for label in labels:
            try:
                self._reap(label)
            except Exception:
                log.exception("the tasks of node %s wait for a Monitor", label)


class Parent:
    """Looks after `count` children. `reap` is called with every id that the node of a dead child has had.

    `owner`: a process id; when that is not this process's parent any more, the children are ended. `burst`: one
    that ends clean is done, and when all are the parent ends as well.
    """

    def __init__(
        self,
        count: int,
        start: Starter,
        reap: Callable[[str], None],
        *,
        owner: int | None = None,
        burst: bool = False,
    ) -> None:
        self.count = count
        self.start = start
        self.reaping = Reaping(reap)
        self.owner = owner
        self.burst = burst
        self.children: list[Child] = []
        self.crashes = 0  # children in a row that died soon
        self.failed_starts = 0  # children in a row that died before they were nodes
        self.not_before = 0.0
        self.worst = 0
        self.has_worked = False  # a child has been a node
        self.is_to_end = False  # a signal to end has come, and perhaps was not acted upon yet
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> int:
        """The exit status: 0 where every child ended clean. In the main thread, which takes the signals."""
        previous = {number: signal.signal(number, self._note) for number in HEARD}
        log.info("%s started, each a process", "1 node is" if self.count == 1 else f"{self.count} nodes are")
        try:
            return self._look_after()
        finally:
            for child in self.children:
                child.send(signal.SIGKILL)
                child.process.wait()
                child.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.is_to_end = self.is_to_end or number in (signal.SIGTERM, signal.SIGINT)
        self._signals.put(number)

    def _look_after(self) -> int:
        while True:
            number = self._next_signal(self._seconds_to_a_start())
            if self.owner is not None and os.getppid() != self.owner:
                log.warning("the process that started the nodes is gone: they end")
                number = signal.SIGTERM
            if number in (signal.SIGTERM, signal.SIGINT):
                return self._end()
            if number == signal.SIGHUP:
                self._replace_all()
            elif number is not None:
                self._pass_on(number)
            self._bury()
            if self.count == 0:
                return self._end()
            if self.worst in FINAL:
                self._end()
                return self.worst
            if self.failed_starts >= CRASH_LOOP:
                log.error("%d nodes in a row died before they worked: giving up", self.failed_starts)
                self._end()
                return 1
            self._fill_up()

    def _seconds_to_a_start(self) -> float:
        """Until the next child may be started; LOOK where none is missing."""
        if len(self.children) >= self.count:
            return LOOK
        least = SHORT if self.reaping.is_busy() else LEAST
        return min(max(self.not_before - time.monotonic(), least), LOOK)

    def _next_signal(self, pause: float = LOOK) -> int | None:
        """The next signal that asks for something; None after `pause` seconds, or when a child may have died."""
        try:
            number = self._signals.get(timeout=pause)
        except queue.Empty:
            return None
        return None if number == signal.SIGCHLD else number

    def _pass_on(self, number: int) -> None:
        for child in self.children:
            child.send(number)

    def _fill_up(self) -> None:
        while len(self.children) < self.count and time.monotonic() >= self.not_before:
            if self.reaping.is_busy():
                return
            self.children.append(Child(self.start))

    def _bury(self) -> None:
        """Take note of children that died, and put their tasks back."""
        for child in [child for child in self.children if child.status is not None]:
            self.children.remove(child)
            status = child.status
            if self.burst and status == 0:
                self.count -= 1
                child.close()
                continue
            log.error("node process %d died (%s)", child.process.pid, _words(status or 0))
            self._count(status, bool(child.nodes))
            self._reap(child)
            sound = time.monotonic() - child.started > STABLE
            self.crashes = 0 if sound else self.crashes + 1
            delay = min(FIRST_DELAY * 2 ** max(self.crashes - 1, 0), LAST_DELAY)
            self.not_before = time.monotonic() + (0 if sound else delay)

    def _count(self, status: int | None, was_node: bool) -> None:
        """Is there sense in another try? Redis that was there once comes back: the other nodes wait for it too."""
        self.has_worked = self.has_worked or was_node or any(child.nodes for child in self.children)
        if status in FINAL and not self.has_worked:
            self.worst = status or 0
        if was_node or status == NO_REDIS:
            self.failed_starts = 0
        else:
            self.failed_starts += 1

    def _reap(self, child: Child) -> None:
        self.reaping.add(child.nodes)
        child.close()

    def _wait_for_reaping(self) -> bool:
        """Wait until a child may be started; False where a signal to end came first."""
        while self.reaping.is_busy() and not self.is_to_end:
            time.sleep(SHORT)
        return not self.is_to_end

    def _replace_all(self) -> None:
        """Replace the children one by one: a new one first, then an old one ends. Stops at a signal to end."""
        log.info("SIGHUP: the nodes are replaced one by one")
        for old in list(self.children):
            if not self._wait_for_reaping():
                return
            new = Child(self.start)
            self.children.append(new)
            if not self._is_ready(new):
                return
            old.end()
            while old.status is None:
                if self.is_to_end:
                    return
                time.sleep(SHORT)
            self.children.remove(old)
            self._reap(old)

    def _is_ready(self, new: Child) -> bool:
        """Wait until a new child takes tasks. One that does not so in time is removed."""
        deadline = time.monotonic() + READY_SECONDS
        while not new.nodes and new.status is None and time.monotonic() < deadline:
            if self.is_to_end:
                return False
            new.wait(SHORT)
        if new.nodes and new.status is None:
            return True
        log.error("a new node did not start: the old ones stay")
        self.children.remove(new)
        new.send(signal.SIGKILL)
        new.process.wait()
        self._reap(new)
        return False

    def _end(self) -> int:
        """Pass the wish to end on, every time that it comes, and wait for all children."""
        for child in self.children:
            child.end()
        while any(child.status is None for child in self.children):
            number = self._next_signal()
            if number is None:
                for child in self.children:
                    child.end()
            else:
                self._pass_on(signal.SIGTERM if number == signal.SIGINT else number)
        failed = [child for child in self.children if child.status and not child.was_ended_before_its_node]
        for child in failed:
            self._reap(child)
        self._finish_reaping()
        return 1 if failed else 0

    def _finish_reaping(self) -> None:
        """Wait a moment for what is left to put back; a further signal to end cuts that short."""
        deadline = time.monotonic() + REAP_SECONDS
        while self.reaping.is_busy() and time.monotonic() < deadline:
            if self._next_signal(SHORT) in (signal.SIGTERM, signal.SIGINT):
                return


def _words(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"status {status}"
