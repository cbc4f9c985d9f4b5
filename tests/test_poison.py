"""A task that kills every node that starts it ends as LOST, and the tasks beside it do not."""

from __future__ import annotations

import random
import signal
from collections import Counter

import pytest
from conftest import ON_ONE_SERVER, wait_until

from pytask.node.heartbeat import BLOCKED_STATUS

pytestmark = [pytest.mark.alone, ON_ONE_SERVER]

INNOCENTS = 1_000


def fill(server, rng: random.Random) -> list[str]:
    """Innocent tasks with the poison somewhere among them."""
    ids = [f"t{number}" for number in range(INNOCENTS)]
    pipe = server.redis.pipeline(transaction=False)
    for task_id in ids:
        pipe.hset(
            f"task-{task_id}", mapping={"task": "sleep", "data": f'{{"seconds": {rng.uniform(0.5, 2):.2f}}}'}
        )
    pipe.hset("task-poison", "task", "poison")
    queued = [*ids, "poison"]
    rng.shuffle(queued)
    pipe.lpush("new-task", *queued)
    pipe.execute()
    return ids


class Fleet:
    """Nodes that are replaced when they die."""

    def __init__(self, start_node, *options: str, status: int, **settings: str) -> None:
        self.make = lambda: start_node(*options, node_timeout="3", ready=False, **settings)
        self.status = status  # with which they die
        self.nodes = [self.make() for _ in range(2)]
        self.deaths = 0

    def replace_the_dead(self) -> None:
        for place, node in enumerate(self.nodes):
            if node.process.poll() is not None:
                assert node.process.returncode == self.status, node.text()
                self.deaths += 1
                self.nodes[place] = self.make()


def ended(server) -> int:
    return sum(int(count) for count in server.redis.hvals("{new-task}:counts"))


def test_a_poison_task_ends_as_lost_and_its_thousand_neighbours_succeed(server, start_node):
    ids = fill(server, random.Random(7))
    fleet = Fleet(start_node, "-c", "600", status=-signal.SIGKILL)

    def all_ended() -> bool:
        fleet.replace_the_dead()
        return ended(server) > INNOCENTS

    wait_until(all_ended, "all have ended", 120)
    server.wait_until_idle()
    assert fleet.deaths <= 5
    assert (
        server.field("poison", "output") == "5 deaths of its nodes in a row count against it (max_deliveries is 5)"
    )
    assert (server.state("poison"), server.field("poison", "deliveries")) == ("LOST", "5")
    assert server.redis.llen("runs:poison") == 5
    assert Counter(server.state(task_id) for task_id in ids) == {"SUCCESS": INNOCENTS}
    # many of them died with it: what is tested is not only luck
    deaths = Counter(server.deliveries(task_id) for task_id in ids)
    print("deaths that innocent tasks saw:", dict(sorted(deaths.items())))
    assert sum(count for number, count in deaths.items() if number >= 2) > 50
    assert not any(server.field(task_id, "suspect") for task_id in ids)


def test_a_task_that_blocks_its_nodes_is_lost_and_nothing_counts_against_its_neighbours(server, start_node):
    ids = [f"t{number}" for number in range(50)]
    for task_id in ids:
        server.create(task_id, "sleep", '{"seconds": 600}')
    server.create("block", "block", '{"seconds": 60}')
    fleet = Fleet(start_node, status=BLOCKED_STATUS, block_warning="0.5", block_timeout="1.5")

    def is_lost() -> bool:
        fleet.replace_the_dead()
        return server.state("block") == "LOST"

    wait_until(is_lost, "the culprit is lost", 90)
    # its last node gave it back, and is about to end
    wait_until(lambda: fleet.replace_the_dead() or fleet.deaths >= 5, "five nodes have ended")
    assert fleet.deaths == 5
    wait_until(lambda: all(server.state(task_id) == "RUNNING" for task_id in ids), "the others run on")
    assert not any(server.field(task_id, "suspect") for task_id in ids)
    assert max(server.deliveries(task_id) for task_id in ids) >= 2
