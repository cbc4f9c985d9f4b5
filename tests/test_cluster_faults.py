"""A cluster whose slots move and whose masters change, hang and die, under load: nothing is lost or done twice."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from chaos.cluster import Cluster
from chaos.fleet import Fleet
from chaos.load import Shape
from chaos.scenario import Plan, Result, Scenario
from chaos.topology import Topology

pytestmark = pytest.mark.waits

ROUNDS = int(os.environ.get("PYTASK_TEST_ROUNDS", "1"))
KINDS = ("valkey", "redis") if ROUNDS > 1 else ("valkey",)
QUEUE, END = 6431, 4347  # the slots of `new-task` and `end-task`, on two masters
SHAPE = Shape(tasks=2000, seconds=10, longest=1.0, long_from=0.5, queues=("", "mail", "video"))
PLAN = Plan(SHAPE, nodes=3, node_timeout=10.0, concurrency=200)
Story = Callable[[Topology], Sequence[Callable[[], None]]]


@pytest.fixture(params=range(ROUNDS))
def seed(request) -> int:
    """Printed, and given with PYTASK_TEST_SEED."""
    chosen = int(os.environ.get("PYTASK_TEST_SEED", random.randrange(10**6)))
    print(f"PYTASK_TEST_SEED={chosen}")
    return chosen + request.param


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def play(plan: Plan, kind: str, seed: int, story: Story, *, calm: bool = False) -> Result:
    """A round under load, with what the story does in its order, each at a random second. Nothing may be wrong.

    `calm`: no run may be repeated, and no node may end its runs.
    """
    with Cluster(kind) as cluster:
        scenario = Scenario(plan, cluster, seed)
        steps = story(Topology(cluster, scenario.faults))

        def spread(faults, begin, end):
            part = (end - begin) / len(steps)
            for number, step in enumerate(steps):
                faults.agenda.at(begin + part * (number + faults.rng.random()), step)

        scenario.plan = replace(plan, story=spread)
        result = scenario.run()
    print(result.figures())
    assert not result.verdict.problems, f"seed {seed}, files in {result.folder}\n{result.verdict.text()}"
    assert result.figures()["tasks"] == plan.shape.tasks
    assert declared_dead(scenario.fleet) <= {fault.pid for fault in result.faults.done if fault.kind == "kill"}
    if calm:
        assert result.figures()["extra runs"] == 0
        assert not any("comes back under a new id" in node.text() for node in scenario.fleet.nodes)
    scenario.remove_files()
    return result


def declared_dead(fleet: Fleet) -> set[int]:
    """The processes that a Monitor held for dead, by the logs of all."""
    found = [re.findall(r"node \S+:(\d+):[0-9a-f]{8} is dead", node.text()) for node in fleet.nodes]
    return {int(pid) for row in found for pid in row}


def test_the_slot_of_the_queue_moves_three_times_and_no_task_is_lost_or_begun_twice(kind, seed):
    result = play(PLAN, kind, seed, lambda topology: [lambda: topology.migrate(QUEUE)] * 3, calm=True)
    assert result.figures()["migration"] == 3


def test_replicas_take_over_in_order_and_no_task_is_lost_or_begun_twice(kind, seed):
    def story(topology):
        return [lambda slot=slot: topology.hand_over(slot) for slot in (QUEUE, END, QUEUE)]

    result = play(PLAN, kind, seed, story, calm=True)
    assert result.figures()["handover"] == 3


def test_the_master_of_the_queue_is_killed_twice_while_nodes_are_killed(kind, seed):
    result = play(replace(PLAN, kills=4), kind, seed, lambda topology: [lambda: topology.kill(QUEUE, 0.5)] * 2)
    assert (result.figures()["failover"], result.figures()["kill"]) == (2, 4)


def test_the_master_of_the_queue_hangs_and_comes_back_as_a_replica(kind, seed):
    """It goes on when no client waits for it any more: it would answer that what it loses is done."""
    result = play(PLAN, kind, seed, lambda topology: [lambda: topology.hang(QUEUE, 5.0)])
    assert result.figures()["failover"] == 1
