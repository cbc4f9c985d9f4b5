"""The hooks of an app: what wants to be told of nodes and tasks, and what is wrapped around tasks.

Only what there is, in the order in which it was added; who runs tasks calls them (`pytask.node.hooks`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pytask.errors import ConfigurationError

Hook = Callable[..., Any]
F = TypeVar("F", bound=Hook)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What hooks are told of a node. `queues` are names as people write them, `namespace` is '' for none."""

    id: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    namespace: str
    version: str


class Hooks:
    """The hooks of one app."""

    def __init__(self) -> None:
        self.node_start: list[Hook] = []
        self.node_stop: list[Hook] = []
        self.start: list[Hook] = []
        self.end: list[Hook] = []
        self.around: list[Hook] = []

    @property
    def of_tasks(self) -> bool:
        """Does any of them concern tasks?"""
        return bool(self.start or self.end or self.around)


def check_hook(hook: F, what: str) -> F:
    """The hook itself. Raises ConfigurationError for what cannot be called, and for a coroutine function."""
    if not callable(hook):
        raise ConfigurationError(f"{what} takes a function, not {hook!r}")
    if inspect.iscoroutinefunction(hook) or inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise ConfigurationError(f"{what} takes a plain function: {name_of(hook)} is async, or a generator")
    return hook


def end_hook(hook: Hook) -> Hook:
    """The hook, or one around it, to be called with a task, its state and what it raised.

    The latter goes to those alone that have a parameter of the name `error`.
    """
    takes_error = False
    with contextlib.suppress(TypeError, ValueError):  # of a class in C, say, no signature is known
        takes_error = "error" in inspect.signature(hook).parameters

    def call(task: Any, state: str, error: BaseException | None) -> Any:
        return hook(task, state, error=error) if takes_error else hook(task, state)

    call.__module__, _, call.__qualname__ = name_of(hook).rpartition(".")
    return call


def name_of(hook: Hook) -> str:
    """Where a hook is defined, for messages."""
    return f"{getattr(hook, '__module__', '?')}.{getattr(hook, '__qualname__', type(hook).__name__)}"
