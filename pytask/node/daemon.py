"""The life of a process that is a node: signals, the wait for the end, and the exit status.

Signal handlers only set flags; a greenlet acts on them. SIGTERM and SIGINT end the node in order, a second one
at once; SIGHUP ends it and starts the program anew; SIGTSTP takes no new tasks, SIGCONT again; SIGUSR1 writes the
stacks of all greenlets to the log.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import gevent
from gevent.event import Event
from gevent.util import format_run_info
from greenlet import greenlet as RawGreenlet

from pytask import wire
from pytask.errors import StoreError, StoreRefused
from pytask.node.burst import Burst
from pytask.node.node import Node

log = logging.getLogger("pytask.node")

CLEAN, KILLED, USAGE, NO_REDIS = 0, 1, 2, 3
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTSTP, signal.SIGCONT)
PARENT_LOOK = 1.0  # seconds
COLLECT_AFTER = 10_000  # objects; Python's own 700 are 30 tasks


def log_error(context: object, kind: type[BaseException], value: BaseException, trace: TracebackType) -> None:
    """What a greenlet that a task spawned has raised, SystemExit too: told of in the log, and the node goes on.

    What a function in gevent's pool of threads raises, a name that does not resolve say, its caller gets as well.
    """
    in_a_thread = isinstance(context, tuple) and isinstance(context[0], RawGreenlet)  # a worker, and the function
    if not in_a_thread and not issubclass(kind, gevent.GreenletExit):
        log.error("a greenlet failed: %s", wire.shown(repr(context), 200), exc_info=(kind, value, trace))


def spare_the_collector() -> None:
    """Let Python's collector of cycles pass over all that stands now, which stays, and come more seldom.

    Modules and classes make each of its full rounds take tens of milliseconds, in which no task runs. A user's own
    threshold stays where it is higher, or 0.
    """
    gc.collect()
    gc.freeze()
    first, second, third = gc.get_threshold()
    if 0 < first < COLLECT_AFTER:
        gc.set_threshold(COLLECT_AFTER, second, third)


class Daemon:
    """Runs a node until it is told to end. `banner` is called once it works.

    With `parent`, a process id, the node also ends when that is not its parent any more; with `burst` when it has
    nothing left to do.
    """

    def __init__(
        self, node: Node, banner: Callable[[Node], None], parent: int | None = None, *, burst: bool = False
    ) -> None:
        self.node = node
        self.banner = banner
        self.parent = parent
        self.burst = burst
        self._signals: list[int] = []  # appended by signal handlers, read by the greenlet
        self._wake = Event()
        self._waker = gevent.get_hub().loop.async_()
        self._ends = 0
        self.again = False  # SIGHUP: start the program anew after the end

    def run(self) -> int:
        """The exit status: 0 clean, 1 work had to be killed, 3 no Redis at the start."""
        previous = self._install()
        try:
            return self._run()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._waker.stop()

    def _run(self) -> int:
        gevent.get_hub().handle_error = log_error
        try:
            self.node.start()
        except StoreError as error:
            hint = "check user and password" if isinstance(error, StoreRefused) else "is it running?"
            log.error("no Redis at %s: %s (%s)", self.node.target.address, error, hint)
            return NO_REDIS
        spare_the_collector()
        self.banner(self.node)
        ending = gevent.spawn(self._end_when_done) if self.burst else None
        self._wait_for_the_end()
        if ending is not None:
            ending.kill()
        log.info("node %s ends: it takes no more tasks", self.node.state.label)
        helper = gevent.spawn(self._hurry_when_told)
        clean = self.node.stop()
        helper.kill()
        log.info("node %s has ended", self.node.state.label)
        return CLEAN if clean else KILLED

    def _install(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        self._waker.start(self._wake.set)
        return {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self._waker.send()

    def _end_when_done(self) -> None:
        Burst(self.node).wait()
        log.info("the queues are empty and all tasks have ended")
        self._ends += 1
        self._wake.set()

    def _wait_for_the_end(self) -> None:
        while not self._ends:
            self._wake.wait(timeout=None if self.parent is None else PARENT_LOOK)
            self._wake.clear()
            self._act()
            if self.parent is not None and os.getppid() != self.parent:
                log.warning("the parent process is gone: this node ends")
                self._ends += 1

    def _hurry_when_told(self) -> None:
        while self._ends < 2:
            self._wake.wait()
            self._wake.clear()
            self._act()
        log.warning("a second signal: tasks that run are killed and put back now")
        self.node.hurry.set()

    def _act(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT):
                self._ends += 1
                self.again = False
            elif number == signal.SIGUSR1:
                log.warning("stacks of all greenlets:\n%s", "\n".join(format_run_info()))
            elif self._ends:  # nothing undoes that: `timeout` sends SIGCONT behind SIGTERM, a terminal SIGHUP
                continue
            elif number == signal.SIGHUP:
                log.warning("SIGHUP: the node ends and starts anew")
                self.again = True
                self._ends += 1
            elif number == signal.SIGTSTP:
                log.warning("no new tasks until SIGCONT")
                self.node.pause()
            elif number == signal.SIGCONT:
                if not self.node.state.accepting.is_set():
                    log.warning("takes tasks again")
                self.node.resume()
