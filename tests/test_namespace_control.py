"""Namespaces of a server: found by their keys, and removed with all of them, and with nothing else."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from chaos.cluster import Cluster
from commands import run
from conftest import wait_until
from terminal import Terminal

from pytask import PyTask
from pytask.errors import InvalidInputError, TaskStateError
from pytask.key_table import KEY_TABLE
from pytask.ownership import find_owner

FILLED = {
    "<q>": "new-task:mail", "<node>": "h:1:2", "<id>": "a:b", "<label>": "x:1", "<task>": "a/b",
    "<digest>": "0" * 32, "<name>": "n",
}  # fmt: skip


@pytest.fixture
def helpers(app):
    return app.helpers


def key_of(pattern: str, namespace: str) -> bytes:
    pattern = pattern.replace("<q>", "<ns>new-task:mail").replace("<ns>", f"{namespace}:" if namespace else "")
    for name, value in FILLED.items():
        pattern = pattern.replace(name, value)
    return pattern.encode()


def fill(client, namespace: str) -> None:
    """Make every key that the table lists, of the type that it says."""
    make = {
        "hash": lambda key: client.hset(key, "task", "a"),
        "list": lambda key: client.rpush(key, "a"),
        "set": lambda key: client.sadd(key, "a"),
        "zset": lambda key: client.zadd(key, {"a": 1}),
        "string": lambda key: client.set(key, "a"),
        "stream": lambda key: client.xadd(key, {"event": "{}"}),
    }
    for row in KEY_TABLE:
        make[row.type](key_of(row.pattern, namespace))


@pytest.mark.parametrize("row", KEY_TABLE, ids=lambda row: row.pattern)
@pytest.mark.parametrize("namespace", ["", "shop", "a.b-c_1"])
def test_every_key_of_the_table_tells_its_namespace(row, namespace):
    assert find_owner(key_of(row.pattern, namespace)) == (namespace, row)


@pytest.mark.parametrize(
    "key",
    [b"", b"other", b"shop:other", b"task", b"xtask-1", b"a b:task-1", b"x" * 65 + b":task-1", b"shop:x:task-1",
     b"{new-task}:other", b"{new-task}", b"new-task:a b", b"end-task:x", b"unique-a-xyz", b"task-"],
)  # fmt: skip
def test_another_key_is_nobodys(key):
    assert find_owner(key) is None


def test_an_id_with_colons_is_in_no_namespace():
    assert find_owner(b"task-shop:task-1").namespace == ""
    assert find_owner(b"{task-shop:task-1}:events").namespace == ""


@pytest.mark.parametrize(
    "key",
    ["unique-mail:task-" + "0" * 32, "{limit-max-mail:limit-x}:held", "unique-mail:unique-x-" + "0" * 32],
)
def test_a_name_of_a_task_with_colons_is_in_no_namespace(key):
    """Locks and limits have the name of the task in their keys, before everything else."""
    assert find_owner(key.encode()).namespace == ""
    assert find_owner(key.encode()).row.pattern.removeprefix("{").startswith(("<ns>unique-", "<ns>limit-"))


def test_namespaces_are_found_with_the_numbers_of_their_keys(helpers, server):
    assert helpers.find_namespaces() == {}
    fill(server.redis, "shop")
    server.redis.set("foreign", "1")
    server.redis.hset("task-1", "task", "noop")
    count = len(KEY_TABLE)
    assert helpers.find_namespaces() == {
        "": {"keys": 1, "tasks": 1, "nodes": 0}, "shop": {"keys": count, "tasks": 1, "nodes": 1},
    }  # fmt: skip


def test_deleting_removes_every_key_of_one_namespace_and_no_other_one(helpers, server):
    for namespace in ("", "shop", "shop2"):
        fill(server.redis, namespace)
    server.redis.set("shop:foreign", "1")
    server.redis.set("shop:task-string", "not of the type that the table says")
    before = {key for key in server.redis.scan_iter() if not key.startswith((b"shop:", b"{shop:"))}
    told = []
    with pytest.raises(TaskStateError, match="nodes of the namespace 'shop' live: h:1:2; stop them, or force it"):
        helpers.delete_namespace("shop")
    assert len(server.redis.keys()) == 3 * len(KEY_TABLE) + 2
    count = helpers.delete_namespace("shop", force=True, progress=lambda *words: told.append(words))
    assert count == len(KEY_TABLE)
    assert set(server.redis.keys()) == before | {b"shop:foreign", b"shop:task-string"}
    assert told[-1] == (count + 1, count + 1)
    assert helpers.delete_namespace("shop") == 0
    assert helpers.delete_namespace("", force=True) == len(KEY_TABLE)


def test_a_hash_in_no_namespace_that_is_no_record_of_a_task_stays(helpers, server):
    for key, fields in {"task-1": {"title": "milk", "done": "no"}, "task-2": {"task": "noop"}}.items():
        server.redis.hset(key, mapping=fields)
    server.redis.hset("task-3", mapping={"state": "ERROR", "fence": "5"})  # a producer forgot its name
    server.redis.hset("shop:task-1", mapping={"title": "milk"})
    assert helpers.delete_namespace("") == 2
    assert helpers.delete_namespace("shop") == 1
    assert server.redis.keys() == [b"task-1"]


def test_the_command_says_what_goes_that_is_in_no_namespace(cli, server):
    server.redis.hset("task-1", "task", "noop")
    command = [sys.executable, "-m", "pytask", "namespace", "delete", "", "-u", server.url]
    with contextlib.closing(Terminal(command)) as terminal:
        terminal.wait_for("in no namespace, of whatever app")
        terminal.type("n\n")
        assert terminal.wait() == 1
    assert server.redis.exists("task-1")
    assert cli("namespace", "delete", "", "--yes").stdout == "1 keys are gone\n"


@pytest.mark.parametrize("name", ["a b", "task-x", "unique-a", "limit-a", "x" * 65, "a:b", "*", None, 5])
def test_what_is_no_namespace_is_refused(helpers, name):
    with pytest.raises(InvalidInputError):
        helpers.delete_namespace(name)


def test_everything_that_a_node_writes_is_known_and_goes(server, start_node):
    node = start_node("--namespace", "shop", "-q", "default", "-q", "mail")
    app = PyTask(server.url, namespace="shop")
    helpers = app.helpers
    helpers.start_tasks([("echo", {"a": 1}), ("fail",), ("noop",)], queue="mail")
    helpers.start_task("noop", delay=3600, unique=True)
    helpers.start_task("loop", max_running=1, task_id="L")
    helpers.add_schedule("s", "noop", every=1000)
    helpers.start_service("v", "loop", replicas=1)
    app.start_workflow([["noop"], ["noop"]]).wait(20)
    wait_until(lambda: helpers.get_service("v")["running"] == 1)
    assert [key for key in server.redis.scan_iter() if find_owner(key) is None] == []
    other = PyTask(server.url)
    assert {name: row["nodes"] for name, row in other.helpers.find_namespaces().items()} == {"shop": 1}
    with pytest.raises(TaskStateError, match=node.node_id):
        other.helpers.delete_namespace("shop")
    assert node.terminate() == 0
    assert other.helpers.delete_namespace("shop") > 20
    assert server.redis.keys() == []
    app.close()
    other.close()


def test_the_commands_list_and_delete(server):
    fill(server.redis, "shop")
    server.redis.hset("task-1", "task", "noop")
    lines = run("namespaces", "-u", server.url).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["namespace", "keys", "tasks", "nodes"], ["(none)", "1", "1", "0"],
        ["shop", str(len(KEY_TABLE)), "1", "1"],
    ]  # fmt: skip
    ran = run("namespaces", "--json", "-u", server.url)
    assert json.loads(ran.stdout.splitlines()[1]) == {
        "namespace": "shop", "keys": len(KEY_TABLE), "tasks": 1, "nodes": 1,
    }  # fmt: skip
    assert "say --yes" in run("namespace", "delete", "shop", "-u", server.url).stderr
    refused = run("namespace", "delete", "shop", "--yes", "-u", server.url)
    assert (refused.returncode, "live: h:1:2" in refused.stderr) == (1, True)
    assert run("namespace", "delete", "a b", "--yes", "-u", server.url).returncode == 2
    forced = run("namespace", "delete", "shop", "--yes", "--force", "-u", server.url)
    assert forced.stdout == f"{len(KEY_TABLE)} keys are gone\n"
    assert server.redis.keys() == [b"task-1"]


# On a cluster.


@pytest.mark.waits
def test_lists_deletions_and_namespaces_on_a_cluster():
    with Cluster() as cluster, cluster.client() as client:
        app = PyTask(cluster.url, namespace="shop")
        helpers = app.helpers
        helpers.start_tasks([("noop",)] * 20, queue="mail")
        ids = helpers.start_tasks([{"task": "noop", "title": "T"}] * 20)
        rows = [row for page in (1, 2, 3) for row in helpers.list_tasks(page=page, limit=15)]
        assert len({row["id"] for row in rows}) == 40
        assert {row["queue"] for row in rows} == {"default", "mail"}
        assert helpers.count_tasks_by_place()["waiting"] == helpers.count_tasks(name="noop") == 40
        app.start_workflow([["noop"], ["noop"]], workflow_id="w")
        client.hset("shop:task-w", "state", "HELD")
        assert [row["id"] for row in helpers.list_tasks(state="HELD")] == ["w"]
        helpers.set_task(ids[0], state="SUCCESS")
        assert helpers.delete_task(ids[0]) is True
        fill(client, "other")
        assert set(helpers.find_namespaces()) == {"shop", "other"}
        assert helpers.delete_namespace("other", force=True) == len(KEY_TABLE)
        assert helpers.delete_namespace("shop") >= 42
        assert helpers.find_namespaces() == {}
        app.close()
