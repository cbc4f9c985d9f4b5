"""Which task the running code belongs to. Set by whoever runs tasks; child greenlets inherit it.

Helpers ask it, so that a task that waits for another one can give its place up meanwhile.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

current: ContextVar[Any] = ContextVar("pytask.current", default=None)
"""The context of the running task (see `pytask.task.TaskContext`), None outside of any."""
