"""Schedules on a Redis Cluster: a schedule, the list of all, and the records of fires lie in different slots."""

from __future__ import annotations

import pytest
from chaos.cluster import Cluster
from conftest import Server, wait_until
from redis.cluster import key_slot
from test_schedules import APP, define, field, fired, wait_for_each_once, wait_for_fires

from pytask import PyTask

pytestmark = pytest.mark.waits


@pytest.fixture(scope="module")
def deployment():
    with Cluster() as made:
        yield made


@pytest.fixture
def server(deployment):
    with deployment.client() as client:
        client.flushall(target_nodes="primaries")
        yield Server(deployment.url, client, None)


def test_each_fire_happens_once_and_raw_commands_add_change_and_pause(deployment, server, start_node):
    assert len({key_slot(key) for key in (b"schedules", b"schedule-a", b"schedule-raw", b"new-task")}) == 4
    app = PyTask(deployment.url)
    app.helpers.add_schedules({name: {"task": "note", "every": 0.5, "missed": "all"} for name in "abc"})
    nodes = [start_node(app=APP, result_ttl="0") for _ in range(3)]
    define(server, "raw", cron="* * * * * *", tz="+05:45")
    for name in "abc":
        wait_for_each_once(server, name, 8, 0.5)
    nodes[0].kill()
    for name in "abc":
        wait_for_each_once(server, name, len(fired(server, name)) + 6, 0.5)
    wait_for_each_once(server, "raw", 3, 1)
    define(server, "raw", paused="1")
    wait_until(lambda: field(server, "raw", "next") is None, "it is paused")
    before = len(fired(server, "raw"))
    app.helpers.run_schedule("raw")  # whose record is gone as soon as it has ended, since result_ttl is 0
    wait_for_fires(server, "raw", before + 1)
    assert sorted(app.helpers.get_schedules()) == ["a", "b", "c", "raw"]
    assert app.helpers.remove_schedule("raw")
    app.close()


@pytest.mark.parametrize("point", ["after-draft", "after-win"])
def test_another_node_finishes_what_one_has_won_that_died(point, server, start_node):
    define(server, "s", every="0.5", missed="all")
    doomed = start_node(app=APP, ready=False, test_point=f"{point}:3", result_ttl="0")
    assert doomed.wait() == -9
    start_node(app=APP, result_ttl="0")
    wait_for_each_once(server, "s", 8, 0.5)


def test_schedules_go_on_after_the_server_of_their_list_failed_over(deployment, server, start_node):
    for _ in range(2):
        start_node(app=APP)
    define(server, "s", every="0.5", missed="all")
    wait_for_fires(server, "s", 3)
    deployment.fail_over(deployment.owner(server.redis.keyslot("schedules")))
    wait_for_each_once(server, "s", len(fired(server, "s")) + 8, 0.5)
