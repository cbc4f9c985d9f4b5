"""A cluster that is in a bad way for long: a slot that stays half moved, and no server at all."""

from __future__ import annotations

import os
import time

import pytest
from chaos.cluster import Cluster
from conftest import Server, wait_until

from pytask import PyTask

pytestmark = pytest.mark.waits

LONG = "PYTASK_TEST_ROUNDS" in os.environ  # then with the figures of the docs, else with smaller ones
QUEUE = 6431  # the slot of `new-task`; that of `new-task:mail` is on another master


@pytest.fixture(params=("valkey", "redis") if LONG else ("valkey",))
def deployment(request):
    with Cluster(request.param) as made:
        yield made


@pytest.fixture
def server(deployment):
    with deployment.client() as client:
        yield Server(deployment.url, client, None)


@pytest.fixture
def app(server):
    made = PyTask(server.url)
    yield made
    made.close()


def assert_nobody_gave_up(nodes) -> None:
    for node in nodes:
        assert "is dead" not in node.text()
        assert "comes back" not in node.text()
        assert node.process.poll() is None


def start_loops(server, count: int) -> dict[str, str]:
    """Tasks that run; their fences, by id."""
    ids = [f"L{number}" for number in range(count)]
    for task_id in ids:
        server.create(task_id, "loop")
    for task_id in ids:
        server.wait_for_state(task_id, "RUNNING")
    return {task_id: server.field(task_id, "fence") for task_id in ids}


MOVED = {
    "nothing": lambda _key: False,
    "nodes": lambda key: key == b"{new-task}:nodes",
    "all but nodes": lambda key: key != b"{new-task}:nodes",
}


@pytest.mark.parametrize("moved", MOVED)
def test_a_slot_that_stays_half_moved_ends_no_run_and_holds_no_other_queue_up(
    deployment, server, app, start_node, moved
):
    timeout = 3.0
    options = ("-q", "default", "-q", "mail", "-c", "20")
    nodes = [start_node(*options, node_timeout=str(timeout)) for _ in range(2)]
    fences = start_loops(server, 10)
    ends = app.helpers.start_tasks([("pause", {"seconds": 1})] * 10)
    for task_id in ends:
        server.wait_for_state(task_id, "RUNNING")
    to = next(master for master in deployment.masters() if master is not deployment.owner(QUEUE))
    deployment.open_migration(QUEUE, to)
    deployment.move_keys(QUEUE, to, MOVED[moved])
    began = time.monotonic()
    waiting = app.helpers.start_tasks([("noop",)] * 20)
    while time.monotonic() < began + 3 * timeout:
        others = app.helpers.start_tasks([("noop",)] * 20, queue="mail")
        for task_id in others:
            server.wait_for_state(task_id, "SUCCESS")
    assert {server.state(task_id) for task_id in ends} == {"SUCCESS"}
    assert {server.state(task_id) for task_id in waiting} == {"WAIT"}
    assert_nobody_gave_up(nodes)
    deployment.move_keys(QUEUE, to)
    deployment.close_migration(QUEUE, to)
    for task_id in waiting:
        server.wait_for_state(task_id, "SUCCESS")
    assert {task_id: server.field(task_id, "fence") for task_id in fences} == fences
    assert {server.state(task_id) for task_id in fences} == {"RUNNING"}
    wait_until(lambda: server.redis.hlen("{new-task}:claims") <= 11, "the claims of what ended are given up")
    assert_nobody_gave_up(nodes)


def test_no_server_for_half_a_minute_makes_nobody_dead(deployment, server, app, start_node):
    timeout, away = (10.0, 30.0) if LONG else (3.0, 9.0)
    nodes = [start_node(node_timeout=str(timeout)) for _ in range(3)]
    fences = start_loops(server, 9)
    before = set(server.redis.hkeys("{new-task}:nodes"))
    began = time.monotonic()
    for process in deployment.servers:
        process.kill()
    for node in nodes:
        node.wait_for_log("comes back under a new id", timeout + 5)
    time.sleep(max(began + away - time.monotonic(), 0))  # the outage itself
    for process in deployment.servers:
        process.start(wait=False)
    wait_until(deployment.is_whole, "the cluster works", 40)
    for task_id, fence in fences.items():
        wait_until(lambda i=task_id, f=fence: int(server.field(i, "fence")) > int(f), "it runs again")
        server.wait_for_state(task_id, "RUNNING")
        assert server.field(task_id, "suspect") in (None, "0")
    wait_until(lambda: len(set(server.redis.hkeys("{new-task}:nodes")) - before) == 3, "all are back")
    assert not set(server.redis.hkeys("{new-task}:nodes")) & before
    for node in nodes:
        assert "is dead" not in node.text()
        assert node.process.poll() is None
