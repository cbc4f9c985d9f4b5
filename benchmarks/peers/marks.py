"""What a task leaves behind for the clock: counts and times in shared memory, at some 0.2 us a task.

Each process that runs tasks has a file of its own in the directory BENCH_MARKS, made when this is imported: four
doubles, tasks begun, tasks ended, when the first began, when the last ended. Children that are forked later write
to their parent's file, which is right where they run one at a time. `stamp` writes when a task began into one file
for all, by the number that the producer gave to the task. The clock is the machine's monotonic one, which all
processes share. Nothing but the standard library: each peer's environment imports it. Threads may share a file: no
other thread gets its turn within `slots[n] += 1` (CPython 3.11 to 3.13 switch at calls and jumps only).
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from time import monotonic

BEGUN, ENDED, FIRST, LAST = range(4)
STAMPS = "stamps"  # the file's name


def open_doubles(path: Path, count: int) -> memoryview:
    """The doubles of a file, at least `count`, shared with who else opens it; made, with zeros, where missing."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(fd).st_size < count * 8:
            os.ftruncate(fd, count * 8)
        return memoryview(mmap.mmap(fd, 0)).cast("d")
    finally:
        os.close(fd)


class Marks:
    """The marks of one process. Without a directory they are kept nowhere: a producer imports the tasks too."""

    def __init__(self, directory: str | None) -> None:
        self.slots = memoryview(bytearray(32)).cast("d")
        self.stamps = memoryview(bytearray(8)).cast("d")
        if directory:
            self.slots = open_doubles(Path(directory, str(os.getpid())), 4)
            if os.path.exists(path := Path(directory, STAMPS)):
                self.stamps = open_doubles(path, 1)

    def begin(self) -> None:
        """A task begins."""
        slots = self.slots
        if not slots[BEGUN]:
            slots[FIRST] = monotonic()
        slots[BEGUN] += 1

    def end(self) -> None:
        """A task ends."""
        slots = self.slots
        slots[ENDED] += 1
        slots[LAST] = monotonic()

    def stamp(self, number: int) -> None:
        """The task with this number begins, now."""
        self.stamps[number] = monotonic()
        self.begin()
        self.end()


class Total:
    """All marks of a directory, read by another process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.views: dict[str, memoryview] = {}

    def _look(self) -> list[memoryview]:
        for name in os.listdir(self.directory):
            if name.isdigit() and name not in self.views and (self.directory / name).stat().st_size >= 32:
                self.views[name] = open_doubles(self.directory / name, 4)
        return list(self.views.values())

    @property
    def begun(self) -> int:
        return int(sum(view[BEGUN] for view in self._look()))

    @property
    def ended(self) -> int:
        return int(sum(view[ENDED] for view in self._look()))

    @property
    def first(self) -> float:
        """When the first task began; of no meaning before."""
        return min((view[FIRST] for view in self._look() if view[BEGUN]), default=0.0)

    @property
    def last(self) -> float:
        """When the last task so far ended."""
        return max((view[LAST] for view in self._look()), default=0.0)


marks = Marks(os.environ.get("BENCH_MARKS") if os.environ.get("BENCH_ROLE") == "worker" else None)
