"""Supervision: what a node's process knows of the parent that looks after it, told through the environment.

`pytask worker -p`, `pytask orchestrate` and `run(processes=...)` set these variables for their children.
"""

from __future__ import annotations

import os
from typing import Any

CHILD_FD = "PYTASK_INTERNAL_FD"  # where a child tells its parent the ids of its node
PARENT = "PYTASK_INTERNAL_PARENT"  # the parent's process id
# Where the embedded server of the parent is: not on a command line, which everybody can read.
URL = "PYTASK_INTERNAL_URL"

_has_told = False


def environment(descriptor: int) -> dict[str, str]:
    """What a child of this process is to find in its environment; the descriptor is the end that it writes to."""
    return {CHILD_FD: str(descriptor), PARENT: str(os.getpid())}


def get_parent() -> int | None:
    """The process id of the parent, which may have died since; None where nobody looks after this process."""
    text = os.environ.get(PARENT, "")
    return int(text) if text.isdigit() else None


def is_looked_after() -> bool:
    """Is this process itself such a child, and no process that a task of one has started?"""
    return get_parent() == os.getppid()


def tell(label: str) -> None:
    """Write an id where the parent reads it; nothing where nobody looks after this process."""
    global _has_told
    descriptor = os.environ.get(CHILD_FD)
    if descriptor is not None and is_looked_after():
        _has_told = True
        os.write(int(descriptor), f"{label}\n".encode())


def tell_parent(node: Any) -> None:
    """Let a node that has not started yet tell its id, before it takes tasks and whenever that changes."""
    node.on_identity = tell


def has_told() -> bool:
    """Has this process been a node that a parent looked after?"""
    return _has_told
