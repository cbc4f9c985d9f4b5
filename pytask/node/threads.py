"""Threads for calls that would block the node: a pool of gevent's, of its own.

Not the hub's: that one resolves host names, and ten long calls in it would cut the node off.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import gevent
from gevent.threadpool import ThreadPool

from pytask.context import current
from pytask.settings import Settings


class Threads:
    """Threads, as many at most as the setting says, made when they are needed. For the greenlets of one hub."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: ThreadPool | None = None

    def call(self, call: Callable[[], Any]) -> Any:
        """What `call` returns, or raises, in a thread. The greenlet waits; a kill ends that, and not the call."""
        if self._pool is None:
            self._pool = ThreadPool(self._settings.threads)
        context = copy_context()
        context.run(current.set, FromThread(current.get()))
        value, error = self._pool.spawn(context.run, _answer, call).get()
        if error is not None:
            raise error
        return value


class FromThread:
    """The context of a task as a thread sees it: what it logs or prints is handed to the hub, nothing else."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._call = gevent.get_hub().loop.run_callback_threadsafe

    def log(self, *line: Any) -> None:
        """Hand a line of a log over."""
        if hasattr(self._context, "log"):
            self._call(self._context.log, *line)

    def print(self, text: str) -> None:
        """Hand what is printed over."""
        if hasattr(self._context, "print"):
            self._call(self._context.print, text)


def _answer(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What became of it: the pool would write what is raised to standard error."""
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - SystemExit ends the thread otherwise, and nobody gets an answer
        return None, error
