"""The app of a test of burst mode: a task comes when the node finds for the first time that nothing is left."""

from __future__ import annotations

from nodeapp import app

from pytask.node.burst import Burst

has_nothing = Burst._has_nothing
late = iter(["late"])


def has_nothing_and_then(burst, *, resting=False):
    found = has_nothing(burst, resting=resting)
    if found and not resting and (task_id := next(late, None)):
        app.helpers.start_task("sleep", seconds=0.3, task_id=task_id)
    return found


Burst._has_nothing = has_nothing_and_then
