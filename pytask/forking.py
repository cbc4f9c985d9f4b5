"""Forking: a function that goes on in a process of its own, a copy of this one.

So the function needs no name by which a fresh process could import it, and the program that calls this is not run
again: it may be a script without a guard, or a shell.
"""

from __future__ import annotations

import _imp
import contextlib
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from pytask.patching import is_patched

POLL = 0.02  # seconds between two looks at a process that is waited for
IMPORT_SECONDS = 5.0  # that imports of other threads are waited for; some go on as long as their program
LOST = 1  # the status of one whose end somebody else has taken note of
HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGTSTP,
    signal.SIGCONT,
)


class Forked:
    """A process that runs a function and exits with what it returns, in a process group of its own.

    What the function raises is written to standard error; the status is 1 then.
    """

    def __init__(self, run: Callable[[], int]) -> None:
        self._status: int | None = None
        _flush()
        # A signal that comes before the child has its own handlers would be taken by a copy of this process's.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            self.pid = _fork()
            if not self.pid:
                _run(run, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def poll(self) -> int | None:
        """Its exit status, minus the signal that ended it; None while it lives."""
        if self._status is None:
            try:
                pid, status = _original("waitpid")(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._status = LOST
            else:
                self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self, timeout: float | None = None) -> int | None:
        """The same, once it has ended; None where that takes longer than `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None and (end is None or time.monotonic() < end):
            time.sleep(POLL)
        return self._status

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it lives."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)


def _fork() -> int:
    """Fork, once no other thread is in the middle of an import: in the copy nobody would bring it to its end."""
    fork, end = _original("fork"), time.monotonic() + IMPORT_SECONDS
    while True:
        _imp.acquire_lock()  # no thread begins another import
        try:
            if not _is_imported_elsewhere() or time.monotonic() > end:
                pid: int = fork()
                return pid
        finally:
            _imp.release_lock()
        time.sleep(POLL)


def _is_imported_elsewhere() -> bool:
    """Is there a module that is not complete yet, and that this very code is not called by?"""
    callers = {id(frame.f_globals.get("__spec__")) for frame, _ in traceback.walk_stack(sys._getframe())}
    specs = map(_get_spec, list(sys.modules.values()))
    return any(getattr(spec, "_initializing", False) and id(spec) not in callers for spec in specs)


def _get_spec(module: object) -> object:
    """The spec of a module; without a word to the module, which may be one that is loaded when it is asked."""
    try:
        return object.__getattribute__(module, "__dict__").get("__spec__")
    except AttributeError:  # what somebody has put among the modules
        return None


def _original(name: str) -> Any:
    """A function of `os` as Python has it: gevent's fork watches its children in its own way."""
    if not is_patched():
        return getattr(os, name)
    from gevent import monkey

    return monkey.get_original("os", name)


def _run(run: Callable[[], int], mask: set[Any]) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, 0)
        for number in HANDLED:
            signal.signal(number, _end if number in (signal.SIGTERM, signal.SIGINT) else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.set_wakeup_fd(-1)  # an asyncio loop of the starter would take signals to this process for its own
        _leave_greenlets()
        status = run()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _end(_number: int, _frame: object) -> None:
    """A wish to end that comes before the function listens to it: it has begun nothing that would be left."""
    os._exit(0)


def _leave_greenlets() -> None:
    """Let this greenlet alone go on in the copy: what the others do, or wait for, is the starter's work.

    They are not killed, since what they do at their ends, such as to remove a file, is the starter's as well.
    Nothing wakes them any more.
    """
    if "gevent" not in sys.modules:
        return
    import gevent

    gevent.reinit()
    loop = gevent.get_hub().loop
    watcher = next(kind for kind in type(loop.timer(0)).__mro__ if kind.__name__ == "watcher")
    wakers, kept = (watcher, type(loop.run_callback(int))), type(loop.fork())
    for found in gc.get_objects():
        kind = type(found)  # not isinstance, which asks objects of other programs what they take themselves for
        if issubclass(kind, wakers) and not issubclass(kind, kept):
            found.stop()


def _flush() -> None:
    """What is in the buffers now must not be written by both."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
