"""Unique tasks on real nodes: one waits or runs at a time, whoever makes it.

Producers without a node are in test_unique_producers.py.
"""

from __future__ import annotations

import json

import pytest
from conftest import ON_ONE_SERVER, wait_until

APP = "limitapp:app"


@pytest.fixture
def node(start_node):
    return start_node(app=APP)


@pytest.fixture
def start(app):
    def start(task="unique", **options):
        data = options.pop("data", {"seconds": 0})
        return app.helpers.start_task(task, data, **options)

    return start


def go(server):
    server.redis.set("go", 1)


def began(server):
    return [raw.decode() for raw in server.redis.lrange("began", 0, -1)]


def locks(server):
    values = [server.redis.get(key) for key in server.redis.keys("unique-*")]
    return {value.partition(b" ")[2].decode() for value in values if value}


def push(server, *ids, task="unique", unique=None, **data):
    """What a raw producer does; its tasks run until they are let go."""
    for task_id in ids:
        fields = {"task": task, "data": json.dumps({"seconds": 0, **data})}
        if unique is not None:
            fields["unique"] = unique
        server.redis.hset(f"task-{task_id}", mapping=fields)
        server.redis.lpush("new-task", task_id)


def test_while_one_runs_a_second_one_gets_its_id_and_after_its_end_a_new_one(server, node, start):
    first = start(unique=True)
    server.wait_for_state(first, "RUNNING")
    assert start(unique=True) == first
    go(server)
    server.wait_for_state(first, "SUCCESS")
    wait_until(lambda: not locks(server))
    second = start(unique=True)
    assert second != first
    server.wait_for_state(second, "SUCCESS")
    assert began(server) == [first, second]


@pytest.mark.parametrize("task", ["boom", "stop"])
def test_a_lock_is_given_up_however_its_task_ends(server, node, start, app, task):
    first = start("flaky" if task == "boom" else "unique", unique="k", retries=0, data={"seconds": 0})
    server.wait_for_state(first, "RUNNING")
    assert locks(server) == {first}
    if task == "stop":
        app.helpers.stop_task(first)
        server.wait_for_state(first, "STOPPED")
    else:
        go(server)
        server.wait_for_state(first, "EXCEPTION")
    wait_until(lambda: not locks(server))


def test_a_task_that_will_be_tried_again_still_has_its_lock(server, node, start):
    first = start("flaky", unique=True, retry_delay=60, data={"seconds": 0.01})
    server.wait_for_state(first, "RETRY")
    assert start("flaky", unique=True, retry_delay=60, data={"seconds": 0.01}) == first
    assert locks(server) == {first}


def test_a_task_that_is_due_has_its_lock_and_one_that_is_stopped_before_it_has_not(server, node, start, app):
    first = start(unique=True, delay=3600)
    server.wait_for_state(first, "SCHEDULED")
    assert start(unique=True) == first
    app.helpers.stop_task(first)
    server.wait_for_state(first, "STOPPED")
    wait_until(lambda: not locks(server))
    assert start(unique=True) != first


def test_of_raw_tasks_the_first_runs_and_the_others_are_skipped_and_say_so(server, node, events):
    push(server, "a")
    server.wait_for_state("a", "RUNNING")
    push(server, "b", "c")
    push(server, "other", other=1)
    for task_id in ("b", "c"):
        server.wait_for_state(task_id, "SKIPPED")
        told = "the task a, which waits or runs, has the same unique key"
        assert server.field(task_id, "output") == told
        assert events.wait_for(task_id, "skipped")["data"] == told
    server.wait_for_state("other", "RUNNING")
    go(server)
    server.wait_for_state("a", "SUCCESS")
    wait_until(lambda: not locks(server))
    push(server, "d")
    server.wait_for_state("d", "SUCCESS")


@pytest.mark.parametrize("key", [b"true", b"nightly", b"\x00\xff binary", b"x" * 1_000_000, b'{"a": [1]}'])
def test_a_raw_task_may_have_any_key(server, node, key):
    push(server, "a", task="free", unique=key, n=1)
    server.wait_for_state("a", "RUNNING")
    push(server, "b", task="free", unique=key, n=1)
    push(server, "c", task="free", unique=key + b"2", n=1)
    server.wait_for_state("b", "SKIPPED")
    server.wait_for_state("c", "RUNNING")


@pytest.mark.parametrize("key", [b"false", b""])
def test_a_raw_task_may_say_that_it_is_not_unique(server, node, key):
    push(server, "a", "b", unique=key)
    server.wait_for_state("a", "RUNNING")
    server.wait_for_state("b", "RUNNING")
    assert not locks(server)


def test_a_raw_task_and_a_helper_agree_on_what_is_the_same(server, node, start):
    first = start(unique=True, data={"seconds": 0, "b": "ü/\u2028", "a": [1.5, None, {"y": 1, "x": 2}]})
    server.wait_for_state(first, "RUNNING")
    raw = '{"a":[1.5,null,{"x":2,"y":1}],  "b":"\\u00fc\\/\\u2028","seconds":0}'
    server.create("raw", "unique", raw)
    server.wait_for_state("raw", "SKIPPED")
    assert first in server.field("raw", "output")


@ON_ONE_SERVER
def test_a_lock_outlives_the_death_of_its_node_with_its_task(server, start_node, start):
    doomed = start_node(app=APP)
    first = start(unique=True)
    wait_until(lambda: began(server) == [first], "its start() has noted the first run")
    start_node(app=APP)
    doomed.kill()
    wait_until(lambda: began(server) == [first, first])
    assert start(unique=True) == first
    push(server, "raw")
    server.wait_for_state("raw", "SKIPPED")
    go(server)
    server.wait_for_state(first, "SUCCESS")
    wait_until(lambda: not locks(server))


def test_a_lock_whose_owner_was_lost_with_its_record_is_taken_over_by_a_raw_task(server, node):
    push(server, "a")
    server.wait_for_state("a", "RUNNING")
    (lock,) = server.redis.keys("unique-*")
    server.redis.set(lock, "7 gone")
    push(server, "b")
    server.wait_for_state("b", "RUNNING")
    assert locks(server) == {"b"}


def test_a_task_whose_lock_was_taken_over_while_it_was_stopped_is_skipped_when_it_is_restarted(
    server, node, start, app
):
    first = start(unique=True)
    server.wait_for_state(first, "RUNNING")
    app.helpers.stop_task(first)
    server.wait_for_state(first, "STOPPED")
    second = start(unique=True)
    server.wait_for_state(second, "RUNNING")
    app.helpers.restart_task(first)
    server.wait_for_state(first, "SKIPPED")
    assert locks(server) == {second}


def test_a_lock_that_is_no_string_holds_up_its_own_tasks_alone(server, node):
    push(server, "a")
    server.wait_for_state("a", "RUNNING")
    (lock,) = server.redis.keys("unique-*")
    server.redis.delete(lock)
    server.redis.lpush(lock, "no string")
    push(server, "b")
    push(server, "other", other=1)
    server.wait_for_state("other", "RUNNING")
    go(server)
    for task_id in ("a", "other"):
        server.wait_for_state(task_id, "SUCCESS")
    server.wait_for_state("b", "SCHEDULED")
    server.redis.delete(lock)
    server.wait_for_state("b", "SUCCESS")
