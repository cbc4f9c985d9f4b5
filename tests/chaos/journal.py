"""The journal: what runs of tasks write outside Redis, each process into a file of its own.

A line is one `write`, so that a `kill -9` between two of them loses none: `start` and `end` of each run, and for
some a `beat` while they run, with id, fence, pid, second, and the attempt and deliveries that the task was told.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "PYTASK_TEST_JOURNAL"
NONE = "PYTASK_TEST_NO_JOURNAL"  # where nobody reads it and it would only grow
_files: dict[int, int] = {}  # pid -> descriptor


@dataclass
class JournalRun:
    """One run. `ended` is None where it was cut short; `seen`: when it wrote last."""

    id: str
    fence: int
    pid: int
    started: float
    attempt: int
    deliveries: int
    ended: float | None = None
    seen: float = 0.0


def write(what: str, task: Any) -> None:
    """Note the start, a beat or the end of the task's run. Does not yield to other greenlets."""
    if NONE in os.environ:
        return
    pid = os.getpid()
    if pid not in _files:
        path = Path(os.environ[FOLDER], f"{pid}.journal")
        _files[pid] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    row = (what, task.id, task.fence, pid, f"{time.monotonic():.6f}", task.attempt, task.deliveries)
    os.write(_files[pid], (" ".join(map(str, row)) + "\n").encode())


def read(folder: Path) -> dict[str, list[JournalRun]]:
    """All runs, by id, in the order of their fences; runs of one fence by time."""
    runs: list[JournalRun] = []
    for path in folder.glob("*.journal"):
        runs += _read_one(path)
    by_id: dict[str, list[JournalRun]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.fence, run.started)):
        by_id[run.id].append(run)
    return by_id


def _read_one(path: Path) -> list[JournalRun]:
    found: list[JournalRun] = []
    open_runs: dict[tuple[str, int], JournalRun] = {}
    for line in path.read_text().splitlines():
        what, task_id, fence, pid, second, attempt, deliveries = line.split()
        if what == "start":
            run = JournalRun(task_id, int(fence), int(pid), float(second), int(attempt), int(deliveries))
            found.append(run)
            open_runs[task_id, run.fence] = run
        elif what == "end":
            open_runs[task_id, int(fence)].ended = float(second)
        open_runs[task_id, int(fence)].seen = float(second)
    return found
