"""The Lua scripts: each a file in `lua/`, loaded when first used, sent by its digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest by which the server knows it."""

    name: str
    source: str
    sha: str


_by_sha: dict[str, Script] = {}


@cache
def script(name: str) -> Script:
    """The script with this name, from `lua/<name>.lua`."""
    source = resources.files("pytask.store").joinpath("lua", f"{name}.lua").read_text("utf-8")
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return _by_sha.setdefault(digest, Script(name, source, digest))


def source_of(sha: str) -> str:
    """The source of a script that was asked for by name before; empty for any other."""
    return _by_sha[sha].source if sha in _by_sha else ""


def script_names() -> list[str]:
    """The names of all scripts."""
    folder = resources.files("pytask.store").joinpath("lua")
    return sorted(item.name[:-4] for item in folder.iterdir() if item.name.endswith(".lua"))
