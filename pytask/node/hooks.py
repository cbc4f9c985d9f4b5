"""Calling hooks: around a task, and one after the other. Needs no gevent.

A hook never changes what becomes of a task or of a node: what it raises is logged, also SystemExit. Hooks are
called in the order in which they were added; of those around a task the first is the outermost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from greenlet import GreenletExit  # gevent's own; so it is there without gevent

from pytask.errors import ConfigurationError
from pytask.hooks import Hook, name_of
from pytask.task import Leave, Task

log = logging.getLogger("pytask.node")

T = TypeVar("T")


def run_inside(hooks: list[Hook], task: Task, body: Callable[[], T]) -> T:
    """What `body` returns, called inside of all that is around a task. Raises what `body` raises."""
    for hook in reversed(hooks):
        body = _Inside(hook, task, body).run
    return body()


class _Inside:
    """The call of one hook around a task."""

    def __init__(self, hook: Hook, task: Task, body: Callable[[], Any]) -> None:
        self._hook = hook
        self._task = task
        self._body = body
        self._ran = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._trace: Any = None

    def run(self) -> Any:
        """Call the hook, and see to it that what is inside runs once and nobody hides what became of it."""
        try:
            self._hook(self._task, self._once)
        except GreenletExit:
            raise
        except BaseException as error:  # the edge of user code
            if error is not self._error:
                log.exception("the hook %s around task %s failed", name_of(self._hook), self._task.NAME)
        if not self._ran:
            log.error(
                "the hook %s did not call run(): task %s runs without it", name_of(self._hook), self._task.NAME
            )
            return self._body()
        if self._error is not None:
            raise self._error.with_traceback(self._trace)
        return self._value

    def _once(self) -> None:
        """`run`, as a hook gets it. Returns nothing; raises what the task raises.

        That a workflow waits for its tasks is no failure, and nothing for a reporter of errors: it returns.
        """
        if self._ran:
            raise ConfigurationError("run() was called before: a task starts once")
        self._ran = True
        try:
            self._value = self._body()
        except Leave as leave:
            self._error, self._trace = leave, leave.__traceback__
        except BaseException as error:
            self._error, self._trace = error, error.__traceback__
            raise


def call_each(hooks: list[Hook], *arguments: Any, may_be_killed: bool = True) -> None:
    """Call them in order. What one raises is logged and does no harm.

    GreenletExit goes on, but where nobody kills the caller: there it is the hook's own.
    """
    for hook in hooks:
        try:
            hook(*arguments)
        except BaseException as error:  # the edge of user code: sys.exit() in a hook must not end the node
            if may_be_killed and isinstance(error, GreenletExit):
                raise
            log.exception("the hook %s failed", name_of(hook))
