"""Bad input: definitions of services that are none, and fields and keys of services with any content."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    for made in guarded(server, events, start_node):
        made.start()
        made.push()
        yield made
        end_all(server)


def end_all(server: Server) -> None:
    """Stop whatever runs, so that nothing is left to be done."""
    server.redis.delete("services", "{new-task}:replicas", *server.redis.keys("service-*"))
    for key in server.redis.keys("task-*"):
        if server.redis.type(key) == b"hash" and not server.redis.hexists(key, "local"):
            server.redis.hset(key, "control", "stop")
            server.redis.publish(key + b"-control", "stop")
    for task_id in server.redis.zrange("{new-task}:due", 0, -1):
        server.redis.zrem("{new-task}:due", task_id)


DEFINITIONS = {
    "negative": {"task": "loop", "replicas": "-1"},
    "many": {"task": "loop", "replicas": "1000000000"},
    "nan": {"task": "loop", "replicas": "nan"},
    "text": {"task": "loop", "replicas": "many"},
    "list": {"task": "loop", "data": "[]"},
    "option": {"task": "loop", "retries": "3"},
    "nothing": {"title": "no task"},
    "huge": {"task": "loop", "data": "x" * 20_000_000},
}


@row(
    "a service whose hash says what cannot be: `replicas` negative, 1e9, NaN or text, data that is no JSON object,"
    " an unknown option"
)
def test_a_definition_that_is_no_good_makes_its_service_broken_and_no_other(attack, server, app):
    for name, fields in DEFINITIONS.items():
        server.redis.hset(f"service-{name}", mapping=fields)
        server.redis.zadd("services", {name: 0})
    app.helpers.start_service("good", "loop", replicas=2)
    wait_until(lambda: app.helpers.get_service("good")["running"] == 2, "the good one runs")
    found = {row["name"]: row["state"] for row in app.helpers.list_services()}
    assert found == {**dict.fromkeys(DEFINITIONS, "broken"), "good": "running"}
    for name in DEFINITIONS:
        attack.node.wait_for_log(f"service '{name}' is broken")


@row("a service whose hash is no hash, has a name with odd characters or of 1 MB, or is not there")
def test_names_and_keys_of_services_may_be_anything(attack, server, app):
    server.redis.set("service-string", "x")
    server.redis.hset(b"service-\xff{}\n\x1b[2J", mapping={"task": "loop"})
    server.redis.zadd("services", {"string": 0, b"\xff{}\n\x1b[2J": 0, "x" * 1_000_000: 0, "absent": 0, "": 0})
    attack.node.wait_for_log("service 'string' is broken: its key is no hash")
    wait_until(lambda: server.redis.zscore("services", "absent") is None, "what is not there is forgotten")
    assert "Traceback" not in attack.node.text()
    assert "\x1b[2J" not in attack.node.text()


@row("fields `service`, `replica`, `replicas`, `restart`, `backoff` of any content in a task that is no replica")
@pytest.mark.parametrize("value", ["", "-1", "nan", "1e999", "x" * 100_000, b"\xff\x00", "always"])
def test_fields_of_replicas_may_be_anything(attack, server, value):
    names = ("service", "replica", "replicas", "restart", "backoff", "revision", "uses")
    attack.create("T", "noop", **dict.fromkeys(names, value))
    server.wait_for_state("T", "RETRY")
    assert float(server.field("T", "backoff")) in (1.0, 60.0)


@row("another task under the id of a replica")
def test_a_task_that_has_the_id_of_a_replica_is_left_alone(attack, server, app):
    server.redis.hset("task-x:0", mapping={"task": "echo", "state": "SUCCESS", "output": "{}"})
    server.redis.set("task-x:1", "no hash")
    app.helpers.start_service("x", "loop", replicas=3)
    server.wait_for_state("x:2", "RUNNING")
    attack.node.wait_for_log("there is another record under the id 'x:0'")
    app.helpers.remove_service("x")
    wait_until(lambda: app.helpers.get_service("x") is None)
    assert server.state("x:0") == "SUCCESS"
    assert server.redis.get("task-x:1") == b"no hash"


@row("`services` or `{new-task}:replicas` of another type")
def test_keys_of_services_of_other_types_hold_nothing_up(attack, server, app):
    server.redis.set("{new-task}:replicas", "x")
    app.helpers.start_service("x", "loop", replicas=2)
    wait_until(lambda: app.helpers.get_service("x")["running"] == 2, "it runs, unspread")
    attack.node.wait_for_log("replicas are not spread")
    server.redis.delete("services")
    server.redis.set("services", "x")
    attack.node.wait_for_log("services cannot be looked at")
    server.redis.delete("services", "{new-task}:replicas")
