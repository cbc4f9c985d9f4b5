"""The random tester of the protocol: what it finds, and that it finds what is broken. See `simulation`.

A seed is a history: PYTASK_TEST_SEED is the first one that is played, PYTASK_TEST_SEEDS how many are; a failure
says which seed broke which promise, and shows the smallest history that does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.controls import CONTROLS

FIRST = int(os.environ.get("PYTASK_TEST_SEED", "0"))
SEEDS = int(os.environ.get("PYTASK_TEST_SEEDS", "2000"))
PARTS = 8
FAILOVER_SEEDS = max(SEEDS // 10, 200)
COMPARED_SEEDS = 30  # from 0 on they use every script and command that any history uses
CONTROL_SEEDS = 600
SECONDS = 0.3  # a seed, on a noisy machine; ten times less on one that has nothing else to do
SHRINKING = 300  # seconds, where some fail


def simulation(command: str, first: int, count: int = 1, *options: str) -> subprocess.CompletedProcess[str]:
    """The tester, in a process of its own: it replaces gevent and the clock."""
    words = [sys.executable, "-m", "simulation", command, str(first), str(count), *options]
    deadline = SHRINKING + count * SECONDS
    return subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=deadline)


def play(first: int, count: int, *options: str) -> None:
    print(f"PYTASK_TEST_SEED={first} PYTASK_TEST_SEEDS={count}")
    done = simulation("seeds", first, count, *options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_a_promise(part):
    start, end = (FIRST + SEEDS * n // PARTS for n in (part, part + 1))
    play(start, end - start)


@pytest.mark.parametrize("part", range(2))
def test_the_sweep_repairs_what_a_failover_takes_back(part):
    start, end = (FIRST + FAILOVER_SEEDS * n // 2 for n in (part, part + 1))
    play(start, end - start, "--failover")


@pytest.mark.parametrize("name", [name for name, control in CONTROLS.items() if control.breaks])
def test_a_safeguard_that_is_switched_off_is_missed(name):
    done = simulation("control", FIRST, CONTROL_SEEDS, "--without", name)
    assert done.returncode == 0, (
        f"{CONTROL_SEEDS} seeds from {FIRST} find nothing: {done.stdout}{done.stderr[-3000:]}"
    )
    assert json.loads(done.stdout)["kind"] in CONTROLS[name].breaks


def test_every_safeguard_that_nothing_misses_says_why():
    assert all(bool(control.breaks) != bool(control.why_not) for control in CONTROLS.values())


def test_the_fake_server_agrees_with_a_real_one(server):
    done = simulation("compare", FIRST, COMPARED_SEEDS, "--url", server.url)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert int(done.stdout.split()[0]) > 100 * COMPARED_SEEDS


def test_a_seed_is_the_same_history_each_time():
    once = simulation("show", 3).stdout
    assert len(once.splitlines()) > 200
    assert simulation("show", 3).stdout == once


def test_a_failure_is_shown_as_the_smallest_history_that_does_it():
    """With the fence of begin off some seed breaks: few acts of it remain."""
    found = json.loads(simulation("control", FIRST, CONTROL_SEEDS, "--without", "fence at begin").stdout)
    shown = simulation("show", found["seed"], 1, "--without", "fence at begin", "--shrunk")
    assert shown.returncode == 1
    head, _, trace = shown.stdout.partition("trace:\n")
    assert head.startswith(f"seed {found['seed']}: {found['kind']}")
    assert len(head.splitlines()) < 16
    assert f"BROKEN {found['kind']}" in trace
