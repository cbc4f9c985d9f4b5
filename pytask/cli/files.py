"""Python files that a command line names, `FILE` or `FILE:NAME`: the app in one, or the program that it is."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pytask import supervision
from pytask.app import PyTask
from pytask.cli.loading import last_line
from pytask.errors import ConfigurationError, PyTaskError


def split_name(where: str) -> tuple[Path, str]:
    """The file, and the name in it or `''`."""
    file, colon, name = where.rpartition(":")
    return (Path(file), name) if colon and file.endswith(".py") else (Path(where), "")


def check_file(where: str) -> None:
    """Raises ConfigurationError where there is no such file, or it is no Python."""
    place, _ = split_name(where)
    if not place.is_file():
        raise ConfigurationError(f"there is no file {str(place)!r}")
    try:
        ast.parse(place.read_bytes(), str(place))
    except OSError as error:
        raise ConfigurationError(f"{str(place)!r} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:  # ValueError: a NUL, or no UTF-8
        line = getattr(error, "lineno", None)
        at = f", line {line}" if line else ""
        raise ConfigurationError(f"{str(place)!r} is no Python: {getattr(error, 'msg', error)}{at}") from None


def find_app(where: str, path: str | None) -> PyTask | None:
    """The app in a file: a PyTask, or that of what has a method `pytask_app()`. None where there is none.

    The file is imported under its own name; modules beside it, or in `path`, can be imported by it. Raises
    ConfigurationError where it raises, and where several apps are found or the one named is none.
    """
    place, name = split_name(where)
    _begin(place, path)
    found = _apps(load_file(place))
    if name:
        if name not in found:
            raise ConfigurationError(f"{where} is no app and has none{_hint(place, found)}")
        return found[name]
    if len({id(app) for app in found.values()}) > 1:
        raise ConfigurationError(f"{place} holds {len(found)} apps: write FILE:NAME{_hint(place, found)}")
    return next(iter(found.values()), None)


def _begin(place: Path, path: str | None) -> None:
    """Let the file find what `python FILE` gives it: its own arguments, which are none, and modules beside it."""
    sys.argv = [str(place)]
    sys.path.insert(0, str(Path(path or place.parent).resolve()))


def load_file(place: Path) -> ModuleType:
    """The file, imported as a module with its name. Raises ConfigurationError."""
    name = place.stem
    if name in sys.modules:
        raise ConfigurationError(f"{str(place)!r} has the name of another module, {name}: rename it")
    spec = importlib.util.spec_from_file_location(name, place.resolve())
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{str(place)!r} is no Python file: its name ends in .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as end:
        if supervision.has_told():
            raise
        raise ConfigurationError(f"{str(place)!r} ends itself ({end.code}) while it is imported") from None
    except Exception as error:
        raise ConfigurationError(f"{str(place)!r} cannot be imported: {last_line(error)}") from error
    if supervision.has_told():
        raise SystemExit(0)  # it was a node while it was imported, and has ended in order
    return module


def _apps(module: ModuleType) -> dict[str, PyTask]:
    """The apps at the module's level, by name; an app may have several."""
    found = {name: _app_of(value) for name, value in vars(module).items()}
    return {name: app for name, app in found.items() if app is not None}


def _app_of(value: Any) -> PyTask | None:
    if isinstance(value, PyTask):
        return value
    if inspect.isclass(value) or inspect.ismodule(value) or not hasattr(type(value), "pytask_app"):
        return None
    app = value.pytask_app()
    return app if isinstance(app, PyTask) else None


def _hint(place: Path, found: dict[str, PyTask]) -> str:
    names = ", ".join(f"{place}:{name}" for name in found)
    return f"; there is {names}" if names else ""


def run_program(where: str, path: str | None) -> None:
    """Run the file as `python FILE` does, in this process. Raises ConfigurationError where it was no node."""
    place, _ = split_name(where)
    _begin(place, path)
    try:
        runpy.run_path(str(place), run_name="__main__")
    except SystemExit as end:
        if supervision.has_told() or end.code not in (None, 0):
            raise
    except PyTaskError:
        raise
    except Exception as error:
        if supervision.has_told():
            raise
        raise ConfigurationError(f"the program {str(place)!r} has failed: {last_line(error)}") from error
    if not supervision.has_told():
        raise ConfigurationError(
            f"{str(place)!r} holds no app, and ended as a program without being a node: give it an app, a registry"
            " or a worker at its top level, or call run() below `if __name__ == '__main__':`"
        )
