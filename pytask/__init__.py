"""pytask: a daemon for IO-bound work, greenlets on Redis. The public names, loaded when first used.

Importing this package patches nothing, connects nowhere and does not import gevent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytask.version import __version__

if TYPE_CHECKING:
    from pytask.app import PyTask
    from pytask.composing import Workflow, chain, group, step
    from pytask.embedded import EmbeddedServer
    from pytask.errors import PyTaskError, TaskFailed, TaskGone, TaskTimeout
    from pytask.helpers import PyTaskHelpers, run_loop
    from pytask.retry import exponential
    from pytask.schedule import RegularSchedule
    from pytask.task import Task
    from pytask.tasks.cleanup import Cleanup
    from pytask.tasks.monitor import Monitor
    from pytask.tasks.scheduler import Scheduler
    from pytask.tasks.sweep import Sweep

__all__ = [
    "Cleanup",
    "EmbeddedServer",
    "Monitor",
    "PyTask",
    "PyTaskError",
    "PyTaskHelpers",
    "RegularSchedule",
    "Scheduler",
    "Sweep",
    "Task",
    "TaskFailed",
    "TaskGone",
    "TaskTimeout",
    "Workflow",
    "__version__",
    "chain",
    "exponential",
    "group",
    "run_loop",
    "step",
]

_HOMES = {
    "Cleanup": "pytask.tasks.cleanup",
    "EmbeddedServer": "pytask.embedded",
    "Monitor": "pytask.tasks.monitor",
    "PyTask": "pytask.app",
    "PyTaskError": "pytask.errors",
    "PyTaskHelpers": "pytask.helpers",
    "RegularSchedule": "pytask.schedule",
    "Scheduler": "pytask.tasks.scheduler",
    "Sweep": "pytask.tasks.sweep",
    "Task": "pytask.task",
    "TaskFailed": "pytask.errors",
    "TaskGone": "pytask.errors",
    "TaskTimeout": "pytask.errors",
    "Workflow": "pytask.composing",
    "chain": "pytask.composing",
    "exponential": "pytask.retry",
    "group": "pytask.composing",
    "run_loop": "pytask.helpers",
    "step": "pytask.composing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pytask' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
