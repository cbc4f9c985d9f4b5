"""Points: named places between two commands of a node, where a test ends the process or holds it up.

In production nothing does: `reach` is an empty function, called once for each batch of work. A test puts its
own in its place before the node starts. Nothing here reads a setting or the environment.
"""

from __future__ import annotations

from typing import Final

POINTS: Final = (
    "before-claim",
    "after-claim",
    "before-begin",
    "after-begin",
    "before-ask",
    "after-ask",
    "before-finish",
    "after-finish",
    "before-leave",
    "after-leave",
    "before-step",
    "after-step",
    "before-end-task",
    "after-end-task",
    "before-release",
    "after-release",
    "before-park",
    "after-park",
    "before-promote",
    "after-promote",
    "before-reap",
    "in-reap",
    "after-reap",
    "before-adoption",
    "after-adoption",
    "before-lay-out",
    "after-lay-out",
    "in-workflow",
    "before-workflow-end",
    "after-workflow-end",
    "before-rescue",
    "after-rescue",
    "before-draft",
    "after-draft",
    "after-win",
    "after-start",
    "after-take-up",
    "after-create",
    "after-replicas",
    "after-stops",
    "before-hand",
    "after-hand",
)
"""Every name that `reach` is called with, in the order of a task's life."""


def reach(name: str) -> None:
    """The node is at this point, one of POINTS."""
