"""Times of a round: how long it took until what was cut short went on. Seconds, from the journal alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from chaos.faults import Fault
from chaos.journal import JournalRun

Runs = Mapping[str, list[JournalRun]]


def describe(runs: Runs, faults: Sequence[Fault], last_push: float) -> dict[str, str]:
    """The figures of a report."""
    rows = {
        "last push to last end, s": [last_end(runs) - last_push],
        "kill until it runs again, s": until_run_again(runs, faults, "kill"),
        "freeze until it runs again, s": until_run_again(runs, faults, "freeze"),
        "failover until a claim, s": until_claimed(runs, faults),
    }
    return {name: _shown(seconds) for name, seconds in rows.items() if seconds}


def last_end(runs: Runs) -> float:
    """The monotonic second at which the last run ended."""
    return max((run.ended or 0.0 for row in runs.values() for run in row), default=0.0)


def until_run_again(runs: Runs, faults: Iterable[Fault], kind: str) -> list[float]:
    """For each run that a fault of a node cut short: from the fault until the start of the next one."""
    began: dict[int | None, list[float]] = {}
    for fault in faults:
        if fault.kind == kind:
            began.setdefault(fault.pid, []).append(fault.began)
    found = []
    for row in runs.values():
        for run, following in pairwise(row):
            hits = [at for at in began.get(run.pid, ()) if run.started <= at <= following.started]
            if run.ended is None and hits:
                found.append(following.started - hits[0])
    return found


def until_claimed(runs: Runs, faults: Iterable[Fault]) -> list[float]:
    """For each failover: from the death of the master until the next claim.

    A fence is the microsecond of its claim.
    """
    wall = time.time() - time.monotonic()
    claims = sorted(run.fence / 1e6 - wall for row in runs.values() for run in row)
    waits = []
    for fault in faults:
        later = [claim for claim in claims if claim > fault.began]
        if fault.kind == "failover" and later:
            waits.append(later[0] - fault.began)
    return waits


def _shown(seconds: list[float]) -> str:
    if len(seconds) == 1:
        return f"{seconds[0]:.1f}"
    return f"median {statistics.median(seconds):.1f}, worst {max(seconds):.1f}"
