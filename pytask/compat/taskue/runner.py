"""Runners: a node that runs one task at a time, of the queues of its tags."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from pytask import settings
from pytask.app import PyTask
from pytask.compat.taskue.client import STEERING
from pytask.errors import ConfigurationError
from pytask.names import queue_name_of
from pytask.tasks.call import allowing

TIMEOUT = 3600.0  # seconds that an attempt may take where its task says nothing


class TaskueRunner:
    """One runner. `queues`: tags; `run_untagged_tasks`: the default queue as well (always, where no tag is named).

    `auto_load_modules`: modules, and whole paths such as `time.sleep`, whose functions tasks may call, beside what
    the setting `callable_prefixes` names; they are imported before the first task. `timeout`: seconds that an
    attempt of a task without one of its own may take.
    """

    def __init__(
        self,
        name: str | None = None,
        namespace: str | None = None,
        queues: Sequence[str] | str | None = None,
        timeout: float | None = TIMEOUT,
        run_untagged_tasks: bool = True,
        auto_load_modules: Sequence[str] | str | None = None,
        redis_conn: Any = None,
        path: str | None = None,
    ) -> None:
        if path is not None:
            sys.path.insert(0, path)
        self.modules = _list_of(auto_load_modules)
        prefixes = list(dict.fromkeys([*settings.load().callable_prefixes, *self.modules]))
        self._app = PyTask(
            redis_conn,
            namespace=namespace,
            node_name=queue_name_of(name) if name else None,
            queues=queues_of(_list_of(queues), untagged=run_untagged_tasks),
            concurrency=1,
            callable_prefixes=prefixes,
        )
        call = allowing(prefixes)
        self._app.add_task(type("Call", (call,), {"timeout": timeout or None, "__doc__": call.__doc__}))

    def pytask_app(self) -> PyTask:
        """The app behind it."""
        return self._app

    def start(self, processes: int | None = 1) -> None:
        """Run tasks until SIGTERM or SIGINT, in a process forked off this one. Blocks.

        With `processes=None` in this very process, which gevent should have patched.
        """
        self.load_modules()
        self._app.run(processes=processes)

    def load_modules(self) -> None:
        """Import what tasks may call. Raises ConfigurationError for what is not there."""
        for name in self.modules:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name != name or "." not in name:
                    raise ConfigurationError(f"auto_load_modules: {name!r} cannot be imported: {error}") from None
                importlib.import_module(name.rpartition(".")[0])  # the whole path of a function


def queues_of(tags: Sequence[str], *, untagged: bool = True) -> list[str]:
    """The queues of tags, the default one beside them, and the one in which workflows take their steps."""
    named = [queue_name_of(tag) for tag in tags]
    return list(dict.fromkeys([*named, *([""] if untagged or not named else []), STEERING]))


def _list_of(words: Sequence[str] | str | None) -> list[str]:
    """Some words; one alone needs no list."""
    return [words] if isinstance(words, str) else list(words or ())
