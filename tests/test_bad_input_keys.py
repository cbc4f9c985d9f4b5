"""Bad input: keys of another type where lists of ids should be, and names that are not for producers."""

from __future__ import annotations

import itertools
import json
import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from conftest import HERE, Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row

DUE = "{new-task}:due"


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)


def break_queue(attack: Attack) -> None:
    """Turn the empty queue into a string between two claims."""
    wait_until(lambda: attack.server.redis.set("new-task", "no list", nx=True), "the queue is empty")


def repair(attack: Attack, key: str = "new-task") -> None:
    """The string is untouched; remove it."""
    assert attack.server.redis.get(key) == b"no list"
    attack.server.redis.delete(key)


ALARM = "queue 'new-task' cannot be served: 'Redis: WRONGTYPE"


def alarms(attack: Attack) -> list[float]:
    """When the node told of the queue, in seconds."""
    stamps = [re.split(r" \d+ ERROR", line)[0] for line in attack.lines() if ALARM in line]
    return [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").timestamp() for stamp in stamps]


@row("the queue's key is of another type")
def test_a_queue_of_another_type_is_left_alone_and_served_again_after_its_repair(attack):
    client = attack.server.redis
    client.set("new-task", "no list")
    attack.start("-q", "default", "-q", "other")
    attack.write("T", "echo", {"n": 1})
    client.lpush("new-task:other", "T")
    attack.ends("T", "SUCCESS")
    wait_until(lambda: len(alarms(attack)) >= 3, "it tells of the queue again and again")
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(alarms(attack))), "it backs off"
    repair(attack)
    attack.push()


@row("the queue's key is of another type")
@pytest.mark.parametrize("kind", ["hash", "set", "zset", "stream"])
def test_a_queue_of_whatever_type_is_left_alone(attack, kind):
    client = attack.server.redis
    make = {
        "hash": lambda: client.hset("new-task", "x", "x"),
        "set": lambda: client.sadd("new-task", "x"),
        "zset": lambda: client.zadd("new-task", {"x": 1}),
        "stream": lambda: client.xadd("new-task", {"x": "x"}),
    }
    make[kind]()
    before = client.dump("new-task")
    attack.start()
    attack.wait_for_log(ALARM)
    assert client.dump("new-task") == before
    client.delete("new-task")
    attack.push()


@row("the queue's key becomes another type while an id waits for a time")
def test_an_id_that_is_parked_outlives_a_queue_of_another_type(attack):
    attack.start()
    attack.push("L")
    wait_until(lambda: attack.server.redis.zscore(DUE, "L") is not None, "it waits for its record")
    break_queue(attack)
    attack.write("L", "echo", {"n": 1})
    wait_until(lambda: (attack.server.redis.zscore(DUE, "L") or 0) < time.time(), "its time has come")
    attack.wait_for_log(ALARM)
    repair(attack)
    attack.push()
    attack.ends("L", "SUCCESS", '{"n":1}')


@row("the queue's key becomes another type while a task runs that goes back to it")
def test_a_task_that_is_put_back_outlives_a_queue_of_another_type(attack):
    attack.start("--grace", "0", app="hastyapp:app")
    attack.create("F", "sleep", {"seconds": 600})
    attack.server.wait_for_state("F", "RUNNING")
    attack.check_innocents()
    break_queue(attack)
    old = attack.nodes.pop(0)
    old.signal(signal.SIGTERM)
    old.wait(60)
    repair(attack)
    attack.start()
    attack.push()
    attack.server.wait_for_state("F", "RUNNING")
    attack.stop("F")


@row("the queue's key is of another type while a dead node's tasks go back to it")
def test_the_tasks_of_a_dead_node_outlive_a_queue_of_another_type(attack):
    attack.start(local_tasks="false")
    attack.create("D", "sleep", {"seconds": 600})
    attack.server.wait_for_state("D", "RUNNING")
    attack.check_innocents()
    break_queue(attack)
    attack.nodes.pop(0).kill()
    attack.start(node_timeout="2")
    attack.wait_for_log("WRONGTYPE")
    wait_until(lambda: attack.node.text().count("WRONGTYPE") >= 4, "the Monitor has tried too")
    repair(attack)
    attack.push()
    wait_until(lambda: len(attack.events.names("D")) >= 2, "it runs again", 30)
    attack.stop("D")


@row("the key `end-task` is of another type")
def test_an_end_task_of_another_type_holds_no_other_task_up(attack):
    attack.server.redis.set("end-task", "no list")
    attack.start("-c", "5")
    for n in range(10):
        attack.write(f"T{n}", "echo", {"n": n}, cleanup="false")
    attack.push(*[f"T{n}" for n in range(10)])
    for n in range(10):
        attack.ends(f"T{n}", "SUCCESS")
    attack.wait_for_log("WRONGTYPE")
    repair(attack, "end-task")


@row("a record `task-<id>` that becomes another type after its end, and Cleanup has a handler")
def test_a_record_that_changed_after_its_end_does_not_hold_cleanup_up(attack, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    (tmp_path / "handling.py").write_text(
        "from nodeapp import app\n"
        "def handle(task_id, record):\n"
        "    app.redis.rpush('handled', task_id)\n"
        "app.start_local_task('pytask/cleanup', task_handler='handling:handle')\n"
    )
    client = attack.server.redis
    client.set("task-broken", "x")
    client.rpush("end-task", "broken", "", b"x" * 600)
    attack.start("--path", str(tmp_path), app="handling:app")
    attack.create("T", "echo")
    attack.ends("T", "SUCCESS")
    wait_until(lambda: b"T" in client.lrange("handled", 0, -1), "the handler is called for the next ids")
    attack.wait_for_log("id 'broken' in end-task is dropped", "WRONGTYPE")
    assert client.get("task-broken") == b"x"
    wait_until(lambda: not client.exists("end-task"), "end-task is drained")


@row(
    "keys and records that Sweep comes across: of another type, without `task`, with a state or a queue that is"
    " none, an id that is none"
)
def test_nothing_holds_the_sweep_up(attack):
    client = attack.server.redis
    client.set("task-text", "x")
    client.lpush("task-list", "x")
    client.hset("task-foreign", mapping={"state": "RUNNING"})
    attack.write("nonsense", "echo", state="RUNN\xff")
    attack.write("x" * 600, "echo", state="WAIT")
    attack.write("a-control", "echo", state="WAIT")
    client.set("new-task:odd", "x")
    attack.write("odd", "echo", state="WAIT", queue="odd")
    before = {key: client.dump(key) for key in client.keys("*")}
    attack.start(sweep_interval="1", node_timeout="2")
    attack.create("T", "echo")
    attack.write("lost", "echo", {"n": 1}, state="WAIT", queue="no queue", at=b"\xff")
    assert json.loads(attack.ends("lost", "SUCCESS")) == {"n": 1}
    attack.wait_for_log("queue odd cannot be read", "WRONGTYPE")
    assert {key: client.dump(key) for key in before} == before
    assert attack.events.names("foreign") == []


# Names that run more than a task.


@row("a task `pytask/monitor`, `pytask/cleanup`, `pytask/sweep` or `pytask/scheduler` that a producer pushes")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pytask/monitor", {"node_timeout": 0}),
        ("pytask/monitor", {}),
        ("pytask/cleanup", {"result_ttl": 0, "failure_ttl": 0}),
        ("pytask/cleanup", {"task_handler": "builtins:print"}),
        ("pytask/sweep", {"interval": 0}),
        ("pytask/scheduler", {}),
    ],
    ids=["monitor-timeout", "monitor", "cleanup-ttl", "cleanup-handler", "sweep", "scheduler"],
)
def test_a_producer_cannot_run_the_tasks_of_the_system(attack, name, data):
    attack.start()
    attack.create("M", name, data)
    attack.ends("M", "ERROR", f"the task {name} runs on nodes by itself: no producer may start it")
    attack.check_innocents()
    assert attack.server.redis.ttl(f"task-{attack.innocents[0]}") > 3000
    assert "is dead" not in attack.node.text()


@row("a record of a node's own Monitor that is of another type")
def test_a_local_record_of_another_type_does_not_stop_the_node(attack):
    attack.start(node_timeout="2")
    key = f"task-pytask/monitor@{attack.node.node_id}"
    wait_until(lambda: attack.server.redis.hget(key, "state") == b"RUNNING", "its record tells of it")
    with attack.server.redis.pipeline() as both:  # at once, so that the node cannot write between them
        both.delete(key).rpush(key, "x").execute()
    wait_until(lambda: attack.server.redis.ttl(key) > 0, "the node lets it expire with itself")
    attack.create("E", "echo", {"n": 1})
    assert json.loads(attack.ends("E", "SUCCESS")) == {"n": 1}
    attack.server.redis.delete(key)
    wait_until(lambda: attack.server.redis.type(key) == b"hash", "it is written again")
