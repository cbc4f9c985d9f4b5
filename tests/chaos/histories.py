"""The random tester in `make chaos`: more seeds than a commit plays, on all cores, a process for each part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

TESTS = Path(__file__).parent.parent
SEEDS = 50_000
PART = 250  # seeds a process
SHARE = 10  # of so many seeds one is also played with failovers


def play(first: int, count: int, tick: Callable[[int], None]) -> list[str]:
    """Play `count` histories from a seed on, and a tenth as many with failovers.

    Returns what failed, as the tester tells it. `tick` is called with the number of histories that are done.
    """
    parts = [*_parts(first, count), *_parts(first, count // SHARE, "--failover")]
    failed: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = {pool.submit(_play_part, words): int(words[1]) for words in parts}
        for done in as_completed(waiting):
            failed += filter(None, [done.result()])
            tick(waiting[done])
    return failed


def _parts(first: int, count: int, *options: str) -> Iterator[list[str]]:
    for start in range(first, first + count, PART):
        yield [str(start), str(min(PART, first + count - start)), *options]


def _play_part(words: list[str]) -> str:
    """What one process says where it found something, else nothing."""
    command = [sys.executable, "-m", "simulation", "seeds", *words]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{' '.join(command[1:])}\n{done.stdout}{done.stderr[-3000:]}"
