"""Limits on a Redis Cluster: limits, queues and records lie in slots of different servers."""

from __future__ import annotations

import pytest
from chaos.cluster import Cluster
from conftest import Server, wait_until
from test_limits_outages import APP, create, most_at_once, names, wait_until_ended

from pytask import PyTask

pytestmark = pytest.mark.waits


@pytest.fixture(scope="module")
def deployment():
    with Cluster() as made:
        yield made


@pytest.fixture
def app(server):
    made = PyTask(server.url)
    yield made
    made.close()


@pytest.fixture
def server(deployment):
    with deployment.client() as client:
        client.flushall(target_nodes="primaries")
        yield Server(deployment.url, client, None)


def test_places_rates_and_locks_hold_on_all_nodes_together(server, start_node, app):
    for _ in range(2):
        start_node(app=APP)
    create(server, "one", names(10))
    create(server, "two", names(20, "u"), group="two")
    create(server, "per-customer", names(5, "a"), group="a", customer="a")
    create(server, "per-customer", names(5, "b"), group="b", customer="b")
    create(server, "rated", names(15, "r"), group="r")
    first = app.helpers.start_task("unique", {"seconds": 1, "group": "x"}, unique=True)
    assert app.helpers.start_task("unique", {"seconds": 1, "group": "x"}, unique=True) == first
    wait_until_ended(server, names(10) + names(20, "u") + names(5, "a") + names(5, "b") + names(15, "r"))
    assert most_at_once(server) == most_at_once(server, "a") == most_at_once(server, "b") == 1
    assert most_at_once(server, "two") == 2
    started = sorted(float(server.field(task_id, "started")) for task_id in names(15, "r"))
    assert started[14] - started[0] >= 5 * 0.1 - 0.05  # by clocks of one machine
    server.wait_for_state(first, "SUCCESS")


def test_limits_go_on_after_their_server_failed_over(deployment, server, start_node):
    start_node(app=APP)
    create(server, "one", names(40), seconds=0.2)
    wait_until(lambda: server.redis.llen("began") >= 3)
    slot = server.redis.keyslot("{limit-max-one}:held")
    deployment.fail_over(deployment.owner(slot))
    wait_until_ended(server, names(40))
    assert most_at_once(server) == 1
