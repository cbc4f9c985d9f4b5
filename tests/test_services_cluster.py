"""Services on a Redis Cluster: a definition, its turn, and its replicas lie in slots of different servers."""

from __future__ import annotations

import pytest
from chaos.cluster import Cluster
from conftest import Server, wait_until
from test_services import APP, notes

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


def wait_for(app: PyTask, name: str, count: int) -> None:
    wait_until(lambda: (app.helpers.get_service(name) or {}).get("running") == count, f"{count} of {name} run")
    wait_until(lambda: app.helpers.get_service(name)["state"] == "running", "and that is all")


def test_a_service_lives_its_whole_life_on_a_cluster(server, app, start_node):
    first = start_node(app=APP)
    server.redis.hset("service-x", mapping={"task": "serve", "replicas": "6", "data": '{"word": "a"}'})
    server.redis.zadd("services", {"x": 0})
    wait_for(app, "x", 6)
    second = start_node(app=APP)
    wait_until(lambda: app.helpers.get_service("x")["nodes"].get(second.node_id) == 3, "three are handed over")
    app.helpers.scale_service("x", 8)
    wait_for(app, "x", 8)
    wait_until(lambda: server.redis.hget("numbers:x:0", "replicas") == b"8", "those that ran learn of it")
    before = len(notes(server, "x"))
    app.helpers.update_service("x", data={"word": "b"}, replicas=4)
    wait_until(
        lambda: [row[1] for row in notes(server, "x")[before:]] == [f"x:{n}" for n in range(4)], "one by one"
    )
    wait_for(app, "x", 4)
    first.kill()
    wait_until(lambda: app.helpers.get_service("x")["nodes"] == {second.node_id: 4}, "all run on the other node")
    app.helpers.remove_service("x")
    wait_until(lambda: app.helpers.get_service("x") is None, "it is gone")
    assert not [key for key in server.redis.scan_iter("*x:*") if key.startswith(b"task-")]


def test_a_service_goes_on_after_the_server_of_its_definition_failed_over(deployment, server, app, start_node):
    start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=4)
    wait_for(app, "x", 4)
    deployment.fail_over(deployment.owner(server.redis.keyslot("service-x")))
    app.helpers.scale_service("x", 6)
    wait_for(app, "x", 6)
    assert sum(app.helpers.get_service("x")["nodes"].values()) == 6
