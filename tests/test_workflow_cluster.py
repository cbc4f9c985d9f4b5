"""Workflows on a Redis Cluster: a workflow's records lie in other slots than its tasks'."""

from __future__ import annotations

import pytest
from chaos.cluster import Cluster
from conftest import Server, wait_until

from pytask import PyTask, group, step

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


@pytest.fixture
def app(server):
    made = PyTask(server.url)
    yield made
    made.close()


def states_of(handle):
    return {row["name"]: row["state"] for row in handle.tasks()}


def test_stages_failures_stops_and_removal(server, start_node, app):
    for _ in range(2):
        start_node()
    handle = app.start_workflow([["noop"] * 30, [("echo", {"n": n}) for n in range(30)], [group(["noop"])]])
    assert handle.get(40) == [[None]]
    failed = app.start_workflow([["noop", "fail"], ["noop"], [step("noop", when="always")]])
    assert failed.wait(40) == "ERROR"
    assert states_of(failed) == {"0": "SUCCESS", "1": "ERROR", "2": "SKIPPED", "3": "SUCCESS"}
    endless = app.start_workflow([["loop"] * 10, ["noop"] * 10])
    wait_until(lambda: list(states_of(endless).values()).count("RUNNING") == 10, deadline=40)
    assert endless.stop() is True
    assert endless.wait(40) == "STOPPED"
    assert endless.delete() is True
    assert app.helpers.get_workflow(endless) is None


def test_a_workflow_goes_on_after_the_server_of_its_records_failed_over(deployment, server, start_node, app):
    start_node()
    handle = app.start_workflow([[("pause", {"seconds": 0.3})] * 20 for _ in range(6)], workflow_id="W")
    wait_until(lambda: "SUCCESS" in states_of(handle).values(), deadline=40)
    deployment.fail_over(deployment.owner(server.redis.keyslot("workflow-W")))
    assert handle.wait(60) == "SUCCESS"
    assert set(states_of(handle).values()) == {"SUCCESS"}
