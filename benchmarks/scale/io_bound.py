"""How near one node comes to the ideal where tasks do nothing but wait: tasks at once / seconds of each.

All tasks are there at one blow (a RENAME) while the node is idle; the clock runs from then until the last has
ended, as release counts them: so the first claim, the last release and everything between are in the figure.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from harness import wait_for

from scale.farm import farm
from scale.gauge import between


class Case(NamedTuple):
    """So many tasks of so many seconds, so many at once; `goal` is the part of the ideal that is wanted."""

    at_once: int
    seconds: float
    tasks: int
    goal: float

    @property
    def ideal(self) -> float:
        """Tasks a second."""
        return self.at_once / self.seconds

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.tasks:,} x {self.seconds * 1000:g} ms, {self.at_once:,} at once"


# the ideal of the second is below what a node drains, so that waiting, not the drain, is what is measured
CASES = (Case(500, 0.1, 5_000, 0.95), Case(500, 0.1, 20_000, 0.95), Case(5_000, 0.5, 50_000, 0.9))


def measure(kind: str, case: Case) -> dict[str, Any]:
    """Tasks a second and the part of the ideal; what each task cost."""
    with farm(kind) as f:
        worker = f.start_worker(concurrency=case.at_once)
        f.prepare(case.tasks, "sleep", json.dumps({"seconds": case.seconds}))
        time.sleep(1.0)  # so that nothing of the start is left
        gauge = f.gauge()
        first = gauge.read()
        began = time.monotonic()
        f.release()
        wait_for(lambda: f.ended() >= case.tasks, "all end", 60, worker, nap=0.001)
        seconds = time.monotonic() - began
        costs = between(first, gauge.read())
        rate = case.tasks / seconds
        each = {**costs.each(), "rate": rate}
        return {**each, "seconds": seconds, "part": rate / case.ideal}
