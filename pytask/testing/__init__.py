"""For the tests of projects that use pytask: a private server, tasks in the test's process, a clock that moves.

With pytest the fixtures `pytask_app`, `pytask_node`, `pytask_clock`, `pytask_eager` and `pytask_server` are there
as soon as pytask is installed; docs/testing.md shows them. Everything here works without pytest too. The names are
loaded when they are first used: pytest imports this package in every session, also where nobody uses it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytask.testing.clock import Clock
    from pytask.testing.eagerly import eager
    from pytask.testing.inline import InlineNode
    from pytask.testing.places import on_server, wait_until_idle
    from pytask.testing.worker import Worker

__all__ = ["Clock", "InlineNode", "Worker", "eager", "on_server", "wait_until_idle"]

_HOMES = {
    "Clock": "pytask.testing.clock",
    "InlineNode": "pytask.testing.inline",
    "Worker": "pytask.testing.worker",
    "eager": "pytask.testing.eagerly",
    "on_server": "pytask.testing.places",
    "wait_until_idle": "pytask.testing.places",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pytask.testing' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
