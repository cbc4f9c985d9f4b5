"""The commands for services, from outside."""

from __future__ import annotations

import json

import pytest
from conftest import ON_ONE_SERVER, wait_until

from pytask.cli.services import table


@ON_ONE_SERVER
def test_a_service_is_added_shown_scaled_changed_reloaded_and_removed(cli, server, app, start_node):
    node = start_node(app="serviceapp:app")
    assert cli("services").stdout.split() == ["service", "wanted", "running", "nodes", "restarts", "state"]
    assert (
        cli("service", "add", "x", "serve", "-n", "2", "--data", '{"word": "a"}').stdout == "service x: defined\n"
    )
    assert (
        cli("service", "add", "x", "serve", "-n", "2", "--data", '{"word": "a"}').stdout
        == "service x: unchanged\n"
    )
    wait_until(lambda: app.helpers.get_service("x")["state"] == "running")
    assert cli("services").stdout.splitlines()[1].split() == ["x", "2", "2", "1", "0", "running"]
    shown = cli("service", "show", "x").stdout
    assert "data      {" in shown
    assert f"x:1  RUNNING  {node.node_id}" in shown
    assert json.loads(cli("service", "scale", "x", "3", "--json").stdout) == {"service": "x", "result": "changed"}
    wait_until(lambda: app.helpers.get_service("x")["running"] == 3)
    cli("service", "update", "x", "-d", '{"word": "b"}', "--restart", "on-failure", "--timeout", "1h")
    wait_until(lambda: b"rolling" not in server.redis.hgetall("{service-x}:applied"))
    cli("service", "reload", "x")
    found = json.loads(cli("service", "show", "x", "--json").stdout)
    assert (found["restart"], found["options"], found["data"]) == (
        "on-failure",
        {"timeout": "3600"},
        {"word": "b"},
    )
    assert [row["replica"] for row in found["replicas"]] == [0, 1, 2]
    assert [json.loads(line)["name"] for line in cli("services", "--json").stdout.splitlines()] == ["x"]
    assert cli("service", "remove", "x").stdout == "service x: removed\n"
    wait_until(lambda: app.helpers.get_service("x") is None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "a b", "serve"), "service name"),
        (("add", "x", "serve", "-n", "-1"), "replicas"),
        (("add", "x", "serve", "-n", "many"), "integer"),
        (("add", "x", "serve", "--data", "[1]"), "not a JSON object"),
        (("add", "x", "serve", "--data", "{"), "not JSON"),
        (("add", "x", "serve", "--timeout", "soon"), "duration"),
        (("add", "x", "serve", "--restart", "never"), "always"),
        (("update", "x"), "at least one change"),
    ],
)
def test_what_is_no_good_is_a_usage_error(cli, arguments, words):
    assert words in cli("service", *arguments, status=2).stderr


@pytest.mark.parametrize("arguments", [("scale", "x", "3"), ("reload", "x"), ("remove", "x"), ("show", "x")])
def test_a_service_that_is_not_there_is_told_of(cli, arguments):
    assert "there is no service" in cli("service", *arguments, status=1).stderr


def test_a_broken_service_is_shown_with_its_reason(cli, server):
    server.redis.hset("service-x\x1b[2J", mapping={"task": "serve"})
    server.redis.hset("service-text", mapping={"task": "serve", "replicas": "many"})
    server.redis.set("service-string", "no hash")
    server.redis.zadd("services", {"text": 0, "string": 0, "x\x1b[2J": 0})
    told = cli("services", status=1).stdout
    assert "broken: its key is no hash" in told
    assert "broken: the field replicas: 'many' is not allowed" in told
    assert "\x1b" not in told


def test_the_table_lines_up():
    row = {"wanted": 3, "running": 10_000, "nodes": {"a": 1}, "restarts": 0, "state": "running", "problem": None}
    lines = table([{"name": "x", **row}, {"name": "a-long-name", **row}])
    assert lines[1].endswith("  running")
    assert lines[1].index("10000") == lines[2].index("10000")
