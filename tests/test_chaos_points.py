"""A node dies at each point between two of its commands; another one takes over, and the end state is the same."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from chaos import points
from chaos.proxy import Proxy
from chaos.rig import Rig, wait_for

REAP_POINTS = [point for point in points.ALL if "reap" in point]
ADOPTION_POINTS = [point for point in points.ALL if "adoption" in point]
RESCUE_POINTS = [point for point in points.ALL if "rescue" in point]
PLAIN_POINTS = [point for point in points.ALL if point not in (*REAP_POINTS, *ADOPTION_POINTS, *RESCUE_POINTS)]
ROUNDS = int(os.environ.get("PYTASK_TEST_ROUNDS", "1"))


@pytest.fixture(params=range(ROUNDS))
def rng(request) -> random.Random:
    """Its seed is printed, and given with PYTASK_TEST_SEED."""
    seed = int(os.environ.get("PYTASK_TEST_SEED", random.randrange(10**6)))
    print(f"PYTASK_TEST_SEED={seed}")
    return random.Random(seed + request.param)


def wait_until_dead(rig, node) -> None:
    fault = rig.note_fault("kill", node)
    wait_for(lambda: not node.alive, f"the node dies at its point:\n{node.text()}")
    fault.ended = time.monotonic()
    assert node.process.returncode == -signal.SIGKILL, node.text()


def take_over_and_check(rig) -> None:
    survivor = rig.start_node()
    verdict = rig.check()
    assert not verdict.problems, f"{verdict.text()}\n{rig.story()}"
    assert rig.fleet.stop() == [0], survivor.text()


@pytest.mark.parametrize("point", PLAIN_POINTS)
def test_a_node_that_dies_at_a_point_leaves_nothing_undone(point, rng):
    with Rig() as rig:
        doomed = rig.start_node(test_point=f"{point}:{rng.randint(2, 4)}")
        for _ in range(8):
            if doomed.alive:
                rig.create(4, seconds=rng.uniform(0.01, 0.2))
                rig.create(1, due=rng.uniform(0.2, 0.6), seconds=0.01)
                rig.create(2, most=1, seconds=0.02)
                time.sleep(0.05)
        wait_until_dead(rig, doomed)
        take_over_and_check(rig)
        assert not rig.redis.keys("*limit-*"), "a place that nobody has"


@pytest.mark.parametrize("point", REAP_POINTS)
def test_a_node_that_dies_while_it_reaps_another_leaves_nothing_undone(point, rng):
    with Rig() as rig:
        victim = rig.start_node()
        ids = rig.create(450, seconds=60, again=0.1)
        rig.wait_for_state(ids, "RUNNING")
        doomed = rig.start_node(test_point=f"{point}:1")
        rig.wait_until_seen()
        rig.kill(victim)
        wait_until_dead(rig, doomed)
        take_over_and_check(rig)


@pytest.mark.parametrize("point", ADOPTION_POINTS)
def test_a_node_that_dies_while_it_adopts_claims_leaves_nothing_undone(point, rng):
    with Rig() as rig, Proxy(rig.server.server.port) as proxy:
        doomed = rig.fleet.start(url=proxy.url, wait=True, test_point=f"{point}:1")
        proxy.lose(["claim"])
        rig.create(30, seconds=0.1)
        wait_until_dead(rig, doomed)
        assert proxy.lost == ["claim"]
        take_over_and_check(rig)


@pytest.mark.parametrize("point", RESCUE_POINTS)
def test_a_node_that_dies_while_it_sweeps_leaves_nothing_undone(point, rng):
    with Rig(sweep_interval=1) as rig:
        doomed = rig.start_node(test_point=f"{point}:1")
        for number in range(30):  # records that wait, in no queue
            rig.redis.hset(f"task-s{number}", mapping={"task": "work", "data": "{}", "state": "WAIT"})
            rig.ids.append(f"s{number}")
        wait_until_dead(rig, doomed)
        take_over_and_check(rig)
