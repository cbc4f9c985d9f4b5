"""Finding the app that a command line names: `module:attribute`, or a module that holds just one app."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from pytask.app import PyTask
from pytask.errors import ConfigurationError


def load_app(where: str, path: str = ".") -> PyTask:
    """The app at `module:attribute`. Raises ConfigurationError, which says what to write instead."""
    sys.path.insert(0, str(Path(path).resolve()))
    module_name, _, attribute = where.partition(":")
    if not module_name:
        raise ConfigurationError(f"{where!r} names no module: write module:app, such as myproject.tasks:task_app")
    module = load_module(module_name, path)
    return _named(module, module_name, attribute) if attribute else _only(module, module_name)


def load_module(name: str, path: str) -> Any:
    """The module, imported. Raises ConfigurationError."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(f"there is no module {name!r} below {path!r}: see --path") from None
        raise ConfigurationError(f"module {name!r} cannot be imported: {last_line(error)}") from error
    except Exception as error:
        raise ConfigurationError(f"module {name!r} cannot be imported: {last_line(error)}") from error


def last_line(error: Exception) -> str:
    """What was raised, and where, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _named(module: Any, module_name: str, attribute: str) -> PyTask:
    found = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, PyTask):
        raise ConfigurationError(f"{module_name}:{attribute} is no PyTask app{_hint(module, module_name)}")
    return found


def _only(module: Any, module_name: str) -> PyTask:
    apps = _apps(module)
    if len(apps) != 1:
        raise ConfigurationError(
            f"{module_name} holds {len(apps)} apps: write module:app{_hint(module, module_name)}"
        )
    return next(iter(apps.values()))


def _apps(module: Any) -> dict[str, PyTask]:
    return {name: value for name, value in vars(module).items() if isinstance(value, PyTask)}


def _hint(module: Any, module_name: str) -> str:
    names = ", ".join(f"{module_name}:{name}" for name in _apps(module))
    return f"; there is {names}" if names else ""
