"""Unique tasks as producers make them: no node runs here. What nodes do is in test_unique.py."""

from __future__ import annotations

import threading
import time

import pytest

from pytask import PyTask, Task
from pytask.errors import InvalidInputError
from pytask.limits import lock_label


class Mail(Task):
    NAME = "mail"
    unique = True

    def __init__(self, to="a", text="", n=None):
        pass

    def start(self):
        pass


@pytest.fixture
def helpers(app):
    app.add_task(Mail)
    return app.helpers


def waiting(server):
    return server.redis.lrange("new-task", 0, -1)[::-1]


def owner(server, label=None):
    value = server.redis.get(label or lock_label("mail", True, b'{"to": "a"}'))
    return value and value.partition(b" ")[2].decode()


def test_a_second_one_gets_the_id_of_the_first_and_leaves_nothing_behind(helpers, server):
    first = helpers.start_task("mail", to="a")
    keys = server.redis.keys()
    assert helpers.start_task("mail", to="a") == first
    assert helpers.start_task(Mail, {"to": "a"}) == first
    assert sorted(server.redis.keys()) == sorted(keys)
    assert waiting(server) == [first.encode()]
    assert owner(server) == first
    assert server.state(first) == "WAIT"


def test_the_same_data_is_the_same_whatever_the_order_of_its_keys(helpers):
    first = helpers.start_task("mail", {"to": "a", "text": "b/ü\u2028", "n": [1, 2.5, {"x": None}]})
    assert helpers.start_task("mail", {"n": [1, 2.5, {"x": None}], "text": "b/ü\u2028", "to": "a"}) == first
    assert helpers.start_task("mail", {"n": [2.5, 1, {"x": None}], "text": "b/ü\u2028", "to": "a"}) != first


def test_other_data_another_name_and_no_lock_are_tasks_of_their_own(helpers, server):
    ids = [
        helpers.start_task("mail", to="a"),
        helpers.start_task("mail", to="b"),
        helpers.start_task("note", to="a", unique=True),
        helpers.start_task("mail", to="a", unique=False),
        helpers.start_task("note", to="a"),
        helpers.start_task("note", to="a"),
    ]
    assert len(set(ids)) == 6
    assert waiting(server) == [task_id.encode() for task_id in ids]


def test_a_key_is_for_a_name_whatever_the_data(helpers):
    first = helpers.start_task("note", to="a", unique="nightly")
    assert helpers.start_task("note", to="b", unique="nightly") == first
    assert helpers.start_task("note", to="a", unique="hourly") != first
    assert helpers.start_task("other", to="a", unique="nightly") != first


@pytest.mark.parametrize("key", ["x" * 1_000_000, b"\x00\xff binary", "with spaces {and braces}", "\u2603"])
def test_a_key_may_be_long_or_binary_and_the_lock_has_a_short_name(helpers, server, key):
    first = helpers.start_task("note", unique=key)
    assert helpers.start_task("note", unique=key) == first
    (lock,) = server.redis.keys("unique-*")
    assert len(lock) < 60
    assert server.redis.hget(f"task-{first}", "unique") == (key if isinstance(key, bytes) else key.encode())


@pytest.mark.parametrize("key", ["", 1, 1.5, ["a"], "\ud800"])
def test_what_is_no_key_is_refused(helpers, server, key):
    with pytest.raises(InvalidInputError, match="unique"):
        helpers.start_task("note", unique=key)
    assert server.redis.keys() == []


@pytest.mark.parametrize("state", ["SUCCESS", "ERROR", "EXCEPTION", "LOST", "SKIPPED", "STOPPED"])
def test_a_lock_whose_owner_is_at_its_end_is_taken_over(helpers, server, state):
    first = helpers.start_task("mail", to="a")
    server.redis.hset(f"task-{first}", "state", state)
    second = helpers.start_task("mail", to="a")
    assert second != first
    assert owner(server) == second
    assert helpers.start_task("mail", to="a") == second


@pytest.mark.parametrize("state", ["WAIT", "RUNNING", "SCHEDULED", "RETRY", "HELD"])
def test_a_lock_whose_owner_is_not_at_its_end_stays(helpers, server, state):
    first = helpers.start_task("mail", to="a")
    server.redis.hset(f"task-{first}", "state", state)
    assert helpers.start_task("mail", to="a") == first


def test_a_lock_whose_owner_was_removed_is_taken_over(helpers, server):
    first = helpers.start_task("mail", to="a")
    server.redis.delete(f"task-{first}")
    second = helpers.start_task("mail", to="a")
    assert second != first
    assert helpers.start_task("mail", to="a") == second


def test_an_owner_whose_producer_died_before_the_push_is_pushed_by_the_next_one(helpers, server):
    first = helpers.start_task("mail", to="a", queue="letters")
    server.redis.delete("new-task:letters")
    server.redis.hdel(f"task-{first}", "state")
    assert helpers.start_task("mail", to="a", queue="letters") == first
    assert server.redis.llen("new-task:letters") == 0  # its producer may be about to push it
    server.redis.hset(f"task-{first}", "created", time.time() - 6)
    assert helpers.start_task("mail", to="a") == first
    assert server.redis.lrange("new-task:letters", 0, -1) == [first.encode()]
    assert server.state(first) == "WAIT"
    assert waiting(server) == []


def test_a_producer_that_died_before_the_lock_holds_nobody_up(helpers, server):
    server.redis.hset("task-dead", mapping={"task": "mail", "data": '{"to":"a"}', "unique": "true"})
    first = helpers.start_task("mail", to="a")
    assert owner(server) == first


def test_a_lock_of_a_stranger_or_without_a_fence_holds_nobody_up(helpers, server):
    label = lock_label("note", "key", b"{}")
    server.redis.set(label, "0 gone")
    assert helpers.start_task("note", unique="key") == owner(server, label)
    server.redis.set(label, "no fence")
    assert helpers.start_task("note", unique="key") == owner(server, label)


def test_an_id_of_ones_own_keeps_its_record_where_it_loses(helpers, server):
    server.redis.hset("task-mine", mapping={"task": "mail", "state": "SUCCESS", "output": "1"})
    first = helpers.start_task("mail", to="a")
    assert helpers.start_task("mail", {"to": "a"}, task_id="mine") == first
    assert server.redis.hgetall("task-mine") == {b"task": b"mail", b"state": b"SUCCESS", b"output": b"1"}


def test_an_id_of_ones_own_that_has_the_lock_is_pushed_as_ever(helpers, server):
    assert helpers.start_task("mail", {"to": "a"}, task_id="mine") == "mine"
    assert helpers.start_task("mail", {"to": "a"}, task_id="mine") == "mine"
    assert waiting(server) == [b"mine", b"mine"]
    assert server.field("mine", "state") is None  # as without a lock: it may be another task that has ended


def test_batches_honour_locks_and_keep_the_order(helpers, server):
    before = helpers.start_task("mail", to="old")
    new = [("mail", {"to": "1"}), ("note",), ("mail", {"to": "old"}), ("mail", {"to": "1"}), ("mail", {"to": "2"})]
    ids = helpers.start_tasks(new)
    assert ids[0] == ids[3]
    assert ids[2] == before
    assert waiting(server) == [task_id.encode() for task_id in (before, ids[0], ids[1], ids[4])]
    assert len(server.redis.keys("task-*")) == 4
    assert (
        helpers.start_tasks([{"task": "note", "unique": "k"}] * 3 + [("note",)])[:3]
        == [owner(server, lock_label("note", "k", b"{}"))] * 3
    )


def test_a_batch_of_nothing_but_repeats_pushes_nothing(helpers, server):
    first = helpers.start_task("mail", to="a")
    assert helpers.start_tasks([("mail", {"to": "a"})] * 1200) == [first] * 1200
    assert waiting(server) == [first.encode()]


def test_many_producers_at_once_make_one_task(server):
    start, ids = threading.Barrier(8), []

    def produce():
        app = PyTask(server.url)
        start.wait()
        ids.append(app.helpers.start_task("mail", to="a", unique=True))
        app.close()

    threads = [threading.Thread(target=produce) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    assert waiting(server) == [ids[0].encode()]
    assert len(server.redis.keys("task-*")) == 1


def test_tasks_that_are_not_unique_cost_their_producer_no_key_and_no_command_more(helpers, server):
    helpers.start_task("note")
    server.redis.config_resetstat()
    task_id = helpers.start_task("note", to="a")
    stats = {name for name in server.redis.info("commandstats") if not name.startswith("cmdstat_config")}
    assert stats == {"cmdstat_hset", "cmdstat_lpush"}
    assert "limits" not in helpers.get_task(task_id)
    assert sorted(key for key in server.redis.keys("*") if not key.startswith(b"task-")) == [b"new-task"]
