"""Patching late: gevent's patches in a process that has imported the rest of its program already."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

LATE = (
    "gevent patches late, in run(): what was imported before may still block the node. "
    "Start it with `pytask worker module:app`, or patch at the top of the script."
)


def is_patched() -> bool:
    """Has gevent patched this process? Imports nothing of gevent where it has not."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def warn_late() -> None:
    """Say that gevent patches late, and name the line of the program from which that comes."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("pytask."):
        frame, level = frame.f_back, level + 1
    warnings.warn(LATE, RuntimeWarning, stacklevel=level)


def patch_late() -> None:
    """Patch now, and the functions too that modules have imported by name, such as `from time import sleep`.

    Classes that were imported so, and objects that stand already, stay as they are, but for contexts of TLS.
    """
    from gevent import monkey

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)
        monkey.patch_all()
    replaced = _replaced_functions(monkey.saved)
    for name, module in list(sys.modules.items()):
        if not _keeps_its_own(name):
            _replace_names(module, replaced)
    _mend_contexts(monkey.saved)


OF_CONTEXTS = ("wrap_socket", "options", "verify_flags", "verify_mode", "minimum_version", "maximum_version")


def _mend_contexts(saved: dict[str, dict[str, object]]) -> None:
    """Let contexts of the class that `ssl` had before do what those of gevent's do.

    urllib3, and so requests, has that class by name: where it was imported early, to set the version of TLS would
    end in a RecursionError, and a socket that such a context wraps would block.
    """
    before: Any = saved.get("ssl", {}).get("SSLContext")
    if before is None:
        return
    after: Any = sys.modules["ssl"].SSLContext
    for name in set(OF_CONTEXTS) & set(vars(after)):
        setattr(before, name, vars(after)[name])
    before.sslsocket_class = after.sslsocket_class


def _replaced_functions(saved: dict[str, dict[str, object]]) -> dict[int, object]:
    """What stands in the place of each function now, by the identity of the function that stood there."""
    kinds = types.FunctionType | types.BuiltinFunctionType
    return {
        id(before): getattr(sys.modules[module], name, before)
        for module, names in saved.items()
        if module in sys.modules
        for name, before in names.items()
        if isinstance(before, kinds)
    }


def _keeps_its_own(name: str) -> bool:
    """The modules of Python and of gevent hold originals on purpose, as do those of ours that run real threads."""
    root = name.partition(".")[0]
    return (root in sys.stdlib_module_names and root != "__main__") or root in ("gevent", "greenlet", "pytask")


def _replace_names(module: types.ModuleType, replaced: dict[int, object]) -> None:
    try:
        found = [(name, replaced[id(value)]) for name, value in vars(module).items() if id(value) in replaced]
    except TypeError:  # what stands among the modules and is none
        return
    for name, value in found:
        setattr(module, name, value)
