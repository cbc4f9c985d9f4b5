"""Call: `pytask/call`, which calls a function by its path, where the setting `callable_prefixes` lets it in.

A task that a producer may write is data, so that a path is matched before anything is imported, and it can only
mean one thing: a function or class that its module defines, by its own name. Whoever can start tasks can call
everything below an allowed prefix with any arguments.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar

from greenlet import GreenletExit  # gevent's own; so it is there without gevent

from pytask.functions import TaskFunction
from pytask.names import shown
from pytask.task import Task

MOST_PATH = 500  # characters
PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
MOST_WORDS = 300  # characters of what an import raised


class Call(Task):
    """Calls `function`, the path of one, with `args` and `kwargs`; what it returns is the output."""

    NAME = "pytask/call"
    prefixes: ClassVar[tuple[str, ...]] = ()  # what the node lets in

    def __init__(self, function: str, args: Any = (), kwargs: Any = None) -> None:
        if not isinstance(args, list | tuple):
            raise self.Error("args is a list")
        if kwargs is not None and not isinstance(kwargs, dict):
            raise self.Error("kwargs is an object")
        self.path = function
        self.args = args
        self.kwargs = kwargs or {}

    def start(self) -> Any:
        """Find the function, see whether the arguments fit, and call it."""
        function = self._find()
        try:
            inspect.signature(function).bind(*self.args, **self.kwargs)
        except TypeError as error:
            raise self.Error(f"the arguments do not fit {self.path}: {error}") from None
        except ValueError:  # a function in C that does not tell its parameters
            pass
        return function(*self.args, **self.kwargs)

    def _find(self) -> Any:
        path: object = self.path
        if not isinstance(path, str) or len(path) > MOST_PATH or not PATH.fullmatch(path):
            raise self.Error(f"{shown(path)} is no path of a function, such as myapp.tasks.process")
        if path in self.prefixes:
            return self._named(path)
        if not self._is_below_a_prefix(path):
            raise self.Error(
                f"this node may not call {path}: let it in with the setting callable_prefixes"
                " (PYTASK_CALLABLE_PREFIXES), which names modules, or functions by their whole path"
            )
        return self._own(path)

    def _is_below_a_prefix(self, path: str) -> bool:
        public = not any(part.startswith("_") for part in path.split("."))
        return public and any(path.startswith(prefix + ".") for prefix in self.prefixes)

    def _named(self, path: str) -> Any:
        """What the setting names by its whole path: anything that can be called."""
        found = self._look_up(path)
        if not callable(found):
            raise self.Error(f"{path} is no function")
        return _bare(found)

    def _own(self, path: str) -> Any:
        """What lies below a prefix: a function or class that its module defines under this very name."""
        found = _bare(self._look_up(path))
        module, _, name = path.rpartition(".")
        if not (inspect.isfunction(found) or inspect.isclass(found)):
            raise self.Error(f"{path} is no plain function and no class")
        if found.__module__ != module or found.__qualname__ != name:
            raise self.Error(f"{path} is defined elsewhere: only what {module} defines itself may be called")
        return found

    def _look_up(self, path: str) -> Any:
        name = path.rpartition(".")[2]
        module = self._import(path)
        if name not in vars(module):  # no module's __getattr__ is asked
            raise self.Error(f"{path} does not exist: {module.__name__} has no {name}")
        found = vars(module)[name]
        if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
            raise self.Error(f"{path} is async, tasks run in greenlets: write a plain `def`")
        return found

    def _import(self, path: str) -> ModuleType:
        name = path.rpartition(".")[0]
        try:
            module = importlib.import_module(name)
        except GreenletExit:
            raise
        except BaseException as error:
            words = f"{type(error).__name__}: {error}"[:MOST_WORDS]
            raise self.Error(f"the module {name} cannot be imported: {words}") from error
        if not isinstance(module, ModuleType):
            raise self.Error(f"{name} is no module")
        return module


def _bare(found: Any) -> Any:
    """The function of what `task_app.task` made."""
    return found.function if isinstance(found, TaskFunction) else found


def allowing(prefixes: Sequence[str]) -> type[Call]:
    """The class for a node that lets these in."""
    return type(
        "Call", (Call,), {"prefixes": tuple(prefixes), "__module__": Call.__module__, "__doc__": Call.__doc__}
    )
