"""Four nodes, ten kills, two freezes and a restart of the server, on every commit: every task ends, once."""

from __future__ import annotations

import os
import random

import pytest
from chaos.load import Shape
from chaos.scenario import Plan, Scenario
from chaos.servers import Single

PLAN = Plan(Shape(tasks=1000, seconds=22), kills=10, freezes=2, restarts=1)


@pytest.fixture
def seed() -> int:
    """Printed, and given with PYTASK_TEST_SEED."""
    chosen = int(os.environ.get("PYTASK_TEST_SEED", random.randrange(10**6)))
    print(f"PYTASK_TEST_SEED={chosen}")
    return chosen


@pytest.mark.waits
def test_1000_tasks_survive_10_kills_2_freezes_and_a_restart_of_the_server(seed):
    with Single("valkey") as server:
        scenario = Scenario(PLAN, server, seed)
        result = scenario.run()
    print(result.figures())
    assert not result.verdict.problems, f"seed {seed}, files in {result.folder}\n{result.verdict.text()}"
    figures = result.figures()
    assert (figures["kill"], figures["freeze"], figures["restart"]) == (10, 2, 1)
    assert figures["tasks"] == 1000
    assert figures["extra runs"] > 0, "no fault hit a task: the test has shown nothing"
    scenario.remove_files()
