"""How a node of the tests dies, or is held up, at a point: `PYTASK_TEST_POINT=after-claim:2` in its environment.

`<point>:<n>` kills the process when it is there for the nth time; `<point>:<n>:<seconds>` holds the greenlet up
for so long, and where n is 0, each time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from pytask import points

VARIABLE = "PYTASK_TEST_POINT"
RUN_POINTS = ("before-run", "after-run")  # in the task's own code
ALL = (*points.POINTS[:4], *RUN_POINTS, *points.POINTS[4:])


def reach(name: str) -> None:
    """The task's own code is at this point."""
    points.reach(name)


def install(text: str) -> None:
    """Do what the text says from now on; nothing where it is empty."""
    if text:
        point, count, *seconds = text.split(":")
        assert point in ALL, point
        points.reach = make_hook(point, int(count), float(seconds[0]) if seconds else None)


def make_hook(point: str, count: int, seconds: float | None) -> Callable[[str], None]:
    """A `reach` that acts when the point is reached for the count-th time; each time where it is 0."""
    seen = 0

    def hook(name: str) -> None:
        nonlocal seen
        if name == point:
            seen += 1
            if count in (0, seen):
                _act(seconds)

    return hook


def _act(seconds: float | None) -> None:
    if seconds is None:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        time.sleep(seconds)
