"""Parent: starts several nodes as fresh processes and looks after them. It runs no task and is not patched.

A child that dies is replaced, after a delay that grows; children that die one after the other before they are
nodes end the parent with an error. One that a task of its own killed is replaced for ever. A child tells its
node's ids through a pipe, so that the parent, which knows at once that the child is dead, can put its tasks back
at once. Signals go on to the children; SIGHUP replaces them one by one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from types import FrameType

from pytask.app import PyTask
from pytask.cli.worker import CHILD_FD, PARENT, URL
from pytask.errors import StoreError

log = logging.getLogger("pytask.parent")

FIRST_DELAY, LAST_DELAY = 0.5, 5.0  # seconds until a dead child is replaced
STABLE = 30.0  # a child that lived for so many seconds is replaced at once
CRASH_LOOP = 5  # children in a row that died before they were nodes
LOOK = 2.0  # seconds between two looks at the children, of whose deaths the system tells at once
LEAST = 0.01
READY_SECONDS = 30.0
FINAL = (2, 3)  # statuses that say that another try does not help: usage, no Redis at the start
PASSED_ON = (signal.SIGUSR1, signal.SIGTSTP, signal.SIGCONT)


class Child:
    """One node process."""

    def __init__(self, command: list[str]) -> None:
        read, write = os.pipe()
        environment = {**os.environ, CHILD_FD: str(write), PARENT: str(os.getpid())}
        # Ctrl-C in a terminal reaches every process of its group; the parent alone decides what it means.
        self.process = subprocess.Popen(command, env=environment, pass_fds=[write], process_group=0)
        os.close(write)
        self.started = time.monotonic()
        self.nodes: list[str] = []
        self.ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(read,), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor) as lines:
            for line in lines:
                self.nodes.append(line.strip())
                self.ready.set()

    def wait_for_ids(self) -> list[str]:
        """Every id that the dead child's node has had."""
        self._reader.join(timeout=1.0)
        return list(self.nodes)

    def send(self, number: int) -> None:
        """Send a signal, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    @property
    def status(self) -> int | None:
        """Its exit status; None while it lives."""
        return self.process.poll()


class Parent:
    """Looks after `count` children that run `command`."""

    def __init__(self, app: PyTask, count: int, command: list[str]) -> None:
        self.app = app
        self.count = count
        self.command = [*command, "--processes=1"]
        if app.is_embedded:
            os.environ[URL] = app.url  # not on a command line, which everybody can read: it may hold a password
        self.children: list[Child] = []
        self.crashes = 0  # children in a row that died soon
        self.failed_starts = 0  # children in a row that died before they were nodes
        self.not_before = 0.0
        self.worst = 0
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> int:
        """The exit status: 0 where every child ended clean."""
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *PASSED_ON):
            signal.signal(number, self._note)
        log.info("%d nodes are started, each a process", self.count)
        try:
            return self._look_after()
        finally:
            for child in self.children:
                child.send(signal.SIGKILL)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(number)

    def _look_after(self) -> int:
        while True:
            number = self._next_signal(self._seconds_to_a_start())
            if number in (signal.SIGTERM, signal.SIGINT):
                return self._end()
            if number == signal.SIGHUP:
                self._replace_all()
            elif number is not None:
                self._pass_on(number)
            self._bury()
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
        missing = len(self.children) < self.count
        return min(max(self.not_before - time.monotonic(), LEAST), LOOK) if missing else LOOK

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
            self.children.append(Child(self.command))

    def _bury(self) -> None:
        """Take note of children that died, and put their tasks back."""
        for child in [child for child in self.children if child.status is not None]:
            self.children.remove(child)
            status = child.status
            log.error("node process %d died (%s)", child.process.pid, _words(status or 0))
            self._reap(child)
            if status in FINAL and not child.nodes:
                self.worst = status or 0
            self.failed_starts = 0 if child.nodes else self.failed_starts + 1
            sound = time.monotonic() - child.started > STABLE
            self.crashes = 0 if sound else self.crashes + 1
            delay = min(FIRST_DELAY * 2 ** max(self.crashes - 1, 0), LAST_DELAY)
            self.not_before = time.monotonic() + (0 if sound else delay)

    def _reap(self, child: Child) -> None:
        store = self.app.helpers.store
        for node in child.wait_for_ids():
            for name in self.app.settings.queues:
                try:
                    store.membership(name).leave(node.encode())
                except StoreError as error:
                    log.warning("the tasks of node %s wait for a Monitor: %s", node, error)

    def _replace_all(self) -> None:
        """Replace the children one by one: a new one first, then the end of an old one."""
        log.info("SIGHUP: the nodes are replaced one by one")
        for old in list(self.children):
            new = Child(self.command)
            if not new.ready.wait(READY_SECONDS) or new.status is not None:
                log.error("a new node did not start: the old ones stay")
                new.send(signal.SIGKILL)
                new.process.wait()
                return
            self.children.append(new)
            old.send(signal.SIGTERM)
            old.process.wait()
            self.children.remove(old)
            self._reap(old)

    def _end(self) -> int:
        """Pass the wish to end on, every time that it comes, and wait for all children."""
        self._pass_on(signal.SIGTERM)
        while any(child.status is None for child in self.children):
            number = self._next_signal()
            if number is not None:
                self._pass_on(signal.SIGTERM if number == signal.SIGINT else number)
        statuses = [abs(child.status or 0) for child in self.children]
        for child in self.children:
            if child.status:
                self._reap(child)
        return 1 if any(statuses) else 0


def _words(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"status {status}"
