"""A node dies at each point between two of its commands; another one takes over, and the end state is the same."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from chaos import flows, journal, points
from chaos.checker import wait_until_ended
from chaos.proxy import Proxy
from chaos.rig import Rig, wait_for
from chaos.standing import Keep, Standing

from pytask import points as production

REAP_POINTS = [point for point in points.ALL if "reap" in point]
ADOPTION_POINTS = [point for point in points.ALL if "adoption" in point]
RESCUE_POINTS = [point for point in points.ALL if "rescue" in point]
FLOW_POINTS = {  # of workflows, and the most often that one of the tests comes there
    "before-lay-out": 1,
    "after-lay-out": 1,
    "in-workflow": 6,
    "before-step": 8,
    "after-step": 8,
    "before-workflow-end": 1,
    "after-workflow-end": 1,
}
FIRE_POINTS = [point for point in points.ALL if point.endswith(("-draft", "-win", "-start"))]
HAND_POINTS = [point for point in points.ALL if "hand" in point]
SERVICE_POINTS = ["after-take-up", "after-create", "after-replicas", "after-stops"]
OTHER_POINTS = (
    *REAP_POINTS, *ADOPTION_POINTS, *RESCUE_POINTS, *FLOW_POINTS, *FIRE_POINTS, *HAND_POINTS, *SERVICE_POINTS
)  # fmt: skip
PLAIN_POINTS = [point for point in points.ALL if point not in OTHER_POINTS]
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


def play_workflow(rig, test_point: str, rng) -> None:
    """A node dies at a point while it runs a workflow alone; another one ends it as it should."""
    flow = flows.flow_of("W")
    doomed = rig.start_node(test_point=test_point)
    rig.app.helpers.store.queues.create([flow.record(rng, 0.01, 0.2)], "")
    wait_until_dead(rig, doomed)
    survivor = rig.start_node()
    assert not wait_until_ended(rig.server, [flow.id], 60), rig.story()
    rig.ids += flow.ids
    rig.expected[flow.skipped] = "SKIPPED"
    verdict = rig.check(more_ends=1)
    flows.check(flow, rig.server, journal.read(rig.folder), verdict)
    assert not verdict.problems, f"{verdict.text()}\n{rig.story()}"
    assert rig.fleet.stop() == [0], survivor.text()


@pytest.mark.parametrize("point", FLOW_POINTS)
def test_a_workflow_ends_right_whose_node_dies_at_a_point(point, rng):
    with Rig() as rig:
        play_workflow(rig, f"{point}:{rng.randint(1, FLOW_POINTS[point])}", rng)


@pytest.mark.parametrize("turn", range(1, FLOW_POINTS["in-workflow"] + 1))
def test_a_workflow_ends_right_whose_node_dies_after_each_of_its_steps(turn, rng):
    with Rig() as rig:
        play_workflow(rig, f"in-workflow:{turn}", rng)


@pytest.mark.parametrize("turn", [2, 3])
def test_a_stop_of_a_workflow_is_obeyed_whose_node_dies_in_the_middle_of_it(turn, rng):
    with Rig() as rig:
        flow = flows.flow_of("W")
        doomed = rig.start_node(test_point=f"in-workflow:{turn}")
        rig.app.helpers.store.queues.create([flow.record(rng, 600, 600)], "")
        first = list(flow.stages[0])
        rig.wait_for_state(first, "RUNNING")
        rig.wait_for_state([flow.id], "HELD")
        rig.app.helpers.stop_task(flow.id)
        wait_until_dead(rig, doomed)
        survivor = rig.start_node()
        rig.wait_for_state([flow.id, *first], "STOPPED")
        rig.wait_for_state([task_id for stage in flow.stages[1:] for task_id in stage], "SKIPPED")
        assert not wait_until_ended(rig.server, [flow.id, *flow.ids], 30), rig.story()
        runs = journal.read(rig.folder)
        assert not [task_id for stage in flow.stages[1:] for task_id in stage if task_id in runs]
        assert rig.redis.hget(f"workflow-{flow.id}", "state") == b"STOPPED"
        assert rig.fleet.stop() == [0], survivor.text()


@pytest.mark.parametrize("point", FIRE_POINTS)
def test_every_fire_comes_once_where_a_node_dies_in_the_middle_of_one(point, rng):
    with Rig() as rig:
        standing = Standing(rig.server, Keep(schedules=2), rng)
        doomed = rig.start_node(test_point=f"{point}:{rng.randint(1, 3)}")
        standing.begin()
        wait_until_dead(rig, doomed)
        survivor = rig.start_node()
        wait_for(lambda: len(standing.read_fires()) >= 8, "it goes on firing")
        unsettled = standing.settle(rig.folder)
        rig.ids += standing.fires
        verdict = rig.check()
        standing.check(journal.read(rig.folder), rig.faults, verdict)
        standing.close()
        assert [unsettled, verdict.problems] == [[], []], f"{verdict.text()}\n{rig.story()}"
        assert rig.fleet.stop() == [0], survivor.text()


def wait_for_replicas(rig, wanted: int, node) -> None:
    """So many run on the node, as far as the service tells and the records say, and no more of them are there."""
    ids = [f"s:{number}" for number in range(6)]
    mine = f":{node.pid}:".encode()
    wait_for(
        lambda: all(mine in (rig.redis.hget(f"task-{i}", "node") or b"") for i in ids[:wanted]), "they move", 60
    )
    rig.wait_for_state(ids[:wanted], "RUNNING")
    wait_for(lambda: rig.app.helpers.get_service("s")["running"] == wanted, f"{wanted} replicas run", 60)
    wait_for(lambda: not any(map(rig.state, ids[wanted:])), "the others are gone", 60)


def end_service(rig, survivor) -> None:
    rig.app.helpers.remove_service("s")
    wait_for(lambda: rig.app.helpers.get_service("s") is None, "it is gone", 60)
    wait_for(lambda: not rig.redis.keys("task-s:*") and not rig.redis.hlen("{new-task}:claims"), "so are they")
    assert rig.fleet.stop() == [0], survivor.text()


@pytest.mark.parametrize("point", SERVICE_POINTS)
def test_a_service_is_kept_going_whose_node_dies_while_it_sees_to_it(point):
    with Rig() as rig:
        doomed = rig.start_node(test_point=f"{point}:1")
        rig.app.helpers.start_service("s", "replica", replicas=6)
        wanted = 3 if point == "after-stops" else 6
        if wanted == 3:
            wait_for_replicas(rig, 6, doomed)
            rig.app.helpers.update_service("s", replicas=3)
        wait_until_dead(rig, doomed)
        survivor = rig.start_node()
        wait_for_replicas(rig, wanted, survivor)
        end_service(rig, survivor)


@pytest.mark.parametrize("point", HAND_POINTS)
def test_a_service_is_kept_going_whose_node_dies_while_it_hands_replicas_over(point):
    with Rig() as rig:
        doomed = rig.start_node(test_point=f"{point}:1")
        rig.app.helpers.start_service("s", "replica", replicas=6)
        wait_for_replicas(rig, 6, doomed)
        survivor = rig.start_node()
        wait_until_dead(rig, doomed)
        wait_for_replicas(rig, 6, survivor)
        end_service(rig, survivor)


def test_every_point_that_a_node_reaches_is_listed():
    package = Path(production.__file__).parent
    calls = (
        found
        for file in package.rglob("*.py")
        for found in re.findall(r'points\.reach\("(\S+)"\)', file.read_text())
    )
    assert set(calls) == set(production.POINTS)
