"""Limits across restarts of Redis, while nodes are killed one after the other, and with thousands in line."""

from __future__ import annotations

import json

import pytest
from chaos.servers import ServerProcess, find_ports
from conftest import ON_ONE_SERVER, Server, wait_until

from pytask.embedded import find_binary

pytestmark = pytest.mark.waits
APP = "limitapp:app"


def create(server, task, ids, queue="new-task", fields=None, **data):
    for task_id in ids:
        record = {"task": task, "data": json.dumps({"seconds": 0.02, **data}), **(fields or {})}
        server.redis.hset(f"task-{task_id}", mapping=record)
        server.redis.lpush(queue, task_id)


def names(count, letter="t"):
    return [f"{letter}{number:03}" for number in range(count)]


def wait_until_ended(server, ids, deadline=60):
    wait_until(lambda: all(server.state(i) == "SUCCESS" for i in ids), "all ended", deadline)


def in_order_of_start(server, ids):
    return sorted(ids, key=lambda task_id: float(server.field(task_id, "started")))


def most_at_once(server, group=""):
    return max(map(int, server.redis.lrange(f"crowd:{group}", 0, -1)))


@ON_ONE_SERVER
def test_limits_go_on_after_a_restart_of_redis(running_server, start_node, tmp_path):
    (port,) = find_ports(1)
    process = ServerProcess(
        find_binary(), tmp_path / "redis", port, {"appendonly": "yes", "appendfsync": "always"}
    )
    process.start()
    try:
        with process.client() as client:
            made = Server(f"redis://127.0.0.1:{port}", client, None)
            start_node("-u", made.url, app=APP)
            create(made, "one", names(20), seconds=0.1)
            create(made, "rated", names(30, "r"))
            wait_until(lambda: client.llen("began") >= 14)
            process.kill()
            process.start()
            for task_id in names(20) + names(30, "r"):  # one that talks to Redis just then raises
                made.wait_for_state(task_id, "SUCCESS", "EXCEPTION")
            assert in_order_of_start(made, names(20)) == names(20)
            # several may have been let in when the server went: which of these begins first is open
            order = in_order_of_start(made, names(30, "r"))
            assert all(abs(place - order.index(name)) <= 3 for place, name in enumerate(names(30, "r"))), order
            wait_until(lambda: not client.keys("{limit-max*"))
    finally:
        process.kill()


@ON_ONE_SERVER
def test_limits_hold_while_nodes_are_killed_one_after_the_other(server, start_node):
    nodes = [start_node(app=APP) for _ in range(2)]
    ids = names(120)
    create(server, "two", ids, seconds=0.1)
    for turn in range(4):
        wait_until(lambda turn=turn: server.redis.llen("began") > 15 * (turn + 1))
        nodes.append(start_node(app=APP))
        nodes.pop(0).kill()
    wait_until_ended(server, ids)
    assert most_at_once(server) == 2
    wait_until(lambda: not server.redis.keys("*limit-*"))


@ON_ONE_SERVER
def test_thousands_in_line_are_stopped_and_started_in_order(server, start_node, app):
    start_node(app=APP)
    server.redis.hset("task-first", mapping={"task": "one", "data": '{"seconds": 0}'})
    server.redis.lpush("new-task", "first")
    server.wait_for_state("first", "RUNNING")
    ids = app.helpers.start_tasks([("one", {"seconds": 0.001}) for _ in range(3000)])
    wait_until(lambda: server.redis.zcard("{limit-max-one}:line") == 3000, deadline=40)
    for task_id in ids[:500]:
        app.helpers.stop_task(task_id)
    server.redis.set("go", 1)
    wait_until_ended(server, ids[500:], deadline=90)
    assert in_order_of_start(server, ids[500:]) == ids[500:]
    assert most_at_once(server) == 1
