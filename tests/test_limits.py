"""Limits that nodes share, on real servers and nodes: how many at a time, in which order, what a death does."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from conftest import ON_ONE_SERVER, wait_until

APP = "limitapp:app"


@pytest.fixture
def node(start_node):
    return start_node(app=APP)


def create(server, task, *ids, queue="new-task", fields=None, **data):
    """What a raw producer does."""
    for task_id in ids:
        server.redis.hset(
            f"task-{task_id}", mapping={"task": task, "data": json.dumps({"seconds": 0, **data}), **(fields or {})}
        )
        server.redis.lpush(queue, task_id)


def names(count, letter="t"):
    return [f"{letter}{number:03}" for number in range(count)]


def began(server):
    return [raw.decode() for raw in server.redis.lrange("began", 0, -1)]


def in_order_of_start(server, ids):
    """Those that started in the same batch stay as they are."""
    return sorted(ids, key=lambda task_id: float(server.field(task_id, "started")))


def most_at_once(server, group=""):
    return max(map(int, server.redis.lrange(f"crowd:{group}", 0, -1)))


def wait_until_begun(server, *ids):
    wait_until(lambda: began(server) == list(ids), lambda: f"{ids} began, not {began(server)}")


def wait_until_waiting(server, *ids):
    for task_id in ids:
        server.wait_for_state(task_id, "SCHEDULED", "RETRY")


def go(server):
    server.redis.set("go", 1)


def wait_until_ended(server, ids, deadline=60):
    wait_until(lambda: all(server.state(i) == "SUCCESS" for i in ids), "all ended", deadline)


def assert_nothing_left(server):
    wait_until(lambda: not server.redis.keys("*limit-*"), f"limits are empty: {server.redis.keys('*limit-*')}")
    assert not server.redis.keys("unique-*")


# max_running


def test_of_one_name_only_so_many_run_at_a_time_and_the_others_in_order(server, node):
    ids = names(12)
    create(server, "two", *ids, seconds=0.05)
    wait_until_ended(server, ids)
    assert in_order_of_start(server, ids) == ids
    assert most_at_once(server) == 2
    assert_nothing_left(server)


def test_those_that_wait_hold_up_nobody_else_and_take_no_place_of_the_node(server, start_node):
    start_node("--concurrency", "3", app=APP)
    create(server, "one", *names(300))
    wait_until_begun(server, "t000")
    create(server, "free", "other", "another", seconds=0.01)
    wait_until_ended(server, ["other", "another"])
    wait_until_waiting(server, "t299")
    assert server.redis.zcard("{limit-max-one}:line") == 299
    wait_until(lambda: server.redis.hlen("{new-task}:claims") == 1, "the claims of all others are given up")


def test_the_limit_is_for_all_nodes_and_all_queues_together(server, start_node):
    for _ in range(3):
        start_node("-q", "default", "-q", "mail", app=APP)
    ids = names(40)
    create(server, "two", *ids[::2], seconds=0.02)
    create(server, "two", *ids[1::2], queue="new-task:mail", seconds=0.02)
    wait_until_ended(server, ids)
    assert most_at_once(server) == 2
    assert sorted(began(server)) == ids
    assert_nothing_left(server)


@ON_ONE_SERVER
def test_with_one_place_the_order_is_that_of_the_queue_however_many_nodes_there_are(server, start_node):
    for _ in range(2):
        start_node(app=APP)
    ids = names(30)
    for task_id in ids:  # one by one: what two nodes claim at the same moment has no order
        create(server, "one", task_id, seconds=0.01)
        wait_until(lambda task_id=task_id: server.state(task_id))
    wait_until_ended(server, ids)
    assert began(server) == ids


def test_a_field_goes_before_the_class(server, node):
    create(server, "two", *names(6), seconds=0.05, fields={"max_running": "1"})
    wait_until_ended(server, names(6))
    assert most_at_once(server) == 1
    create(server, "free", *names(6, "u"), seconds=0.05, group="u", fields={"max_running": "3"})
    wait_until_ended(server, names(6, "u"))
    assert most_at_once(server, "u") == 3


def test_a_helper_takes_the_options_too(server, node, app):
    ids = app.helpers.start_tasks(
        [{"task": "free", "data": {"seconds": 0.05}, "max_running": 1} for _ in range(4)]
    )
    wait_until_ended(server, ids)
    assert began(server) == ids
    assert most_at_once(server) == 1


def test_a_record_without_data_has_its_limits_too(server, node):
    for task_id in ("a", "b"):
        server.redis.hset(f"task-{task_id}", mapping={"task": "one", "unique": task_id})
        server.redis.lpush("new-task", task_id)
    wait_until_ended(server, ["a", "b"])
    assert began(server) == ["a", "b"]
    assert most_at_once(server) == 1


ENDS_THE_TASK = """
def reach(name):
    if name == "after-ask" and app.redis.hget("task-a", "state") != b"SKIPPED":
        app.redis.hset("task-a", "state", "SKIPPED")
points.reach = reach
"""


def test_a_task_that_ends_while_it_is_let_in_leaves_its_place(server, start_node):
    """As a workflow that is stopped skips one of its tasks, between the questions to limit and record."""
    start_node(app=APP, changes=ENDS_THE_TASK)
    create(server, "one", "a", fields={"unique": "u"})
    server.wait_for_state("a", "SKIPPED")
    server.wait_until_idle()
    assert_nothing_left(server)


# concurrency_key


def test_of_one_value_so_many_run_at_a_time_and_other_values_do_not_wait(server, node):
    create(server, "per-customer", "a1", "a2", "a3", customer="a")
    create(server, "per-customer", "b1", customer="b")
    wait_until(lambda: sorted(began(server)) == ["a1", "b1"])
    wait_until_waiting(server, "a2", "a3")
    go(server)
    wait_until_ended(server, ["a1", "a2", "a3", "b1"])
    assert [task_id for task_id in began(server) if task_id[0] == "a"] == ["a1", "a2", "a3"]
    assert_nothing_left(server)


def test_more_than_one_of_a_value_may_run_where_the_option_says_so(server, node):
    fields = {"concurrency_key": "customer", "max_running_per_key": "3"}
    create(server, "free", *names(9), seconds=0.05, customer={"id": 7}, fields=fields)
    wait_until_ended(server, names(9))
    assert in_order_of_start(server, names(9)) == names(9)
    assert most_at_once(server) == 3


def test_data_without_the_field_counts_as_null_and_shares_its_places(server, node):
    create(server, "per-customer", "absent")
    create(server, "per-customer", "null", customer=None)
    create(server, "per-customer", "number", customer=0)
    wait_until_waiting(server, "null")
    wait_until(lambda: sorted(began(server)) == ["absent", "number"])


# The ends of tasks.


def test_a_waiting_task_that_is_stopped_is_stopped_at_once_and_holds_nobody_up(server, node, app):
    create(server, "one", "a", "b", "c", "d")
    wait_until_waiting(server, "b", "c", "d")
    assert app.helpers.stop_task("b")
    server.wait_for_state("b", "STOPPED")
    wait_until(lambda: server.redis.zcard("{limit-max-one}:line") == 2)
    go(server)
    wait_until_ended(server, ["a", "c", "d"])
    assert began(server) == ["a", "c", "d"]
    assert_nothing_left(server)


def test_a_running_task_that_is_stopped_lets_the_next_one_in(server, node, app):
    create(server, "one", "a", "b")
    wait_until_begun(server, "a")
    wait_until_waiting(server, "b")
    app.helpers.stop_task("a")
    wait_until_begun(server, "a", "b")


def test_waiting_tasks_whose_records_are_removed_hold_nobody_up(server, node):
    create(server, "one", "a", *names(200), "z")
    wait_until_waiting(server, "z")
    server.redis.delete(*[f"task-{task_id}" for task_id in names(200)])
    server.redis.zrem("{new-task}:due", *names(200))
    go(server)
    wait_until_ended(server, ["a", "z"], deadline=20)
    assert began(server) == ["a", "z"]
    assert_nothing_left(server)


def test_an_attempt_that_failed_leaves_its_place_until_the_next_one(server, node):
    create(server, "flaky", "a", "b", seconds=0.01)
    wait_until_ended(server, ["a", "b"])
    assert began(server) == ["a", "b", "a", "b"]
    assert most_at_once(server) == 1
    assert_nothing_left(server)


def test_a_waiting_task_expires_when_it_is_its_turn_and_lets_the_next_one_in(server, node):
    create(server, "one", "a")
    wait_until_begun(server, "a")
    create(server, "one", "b", fields={"expires": f"{time.time() + 0.5:.3f}"})
    create(server, "one", "c")
    wait_until_waiting(server, "b", "c")
    wait_until(lambda: time.time() > float(server.field("b", "expires")))
    go(server)
    server.wait_for_state("b", "EXPIRED")
    server.wait_for_state("c", "SUCCESS")
    assert_nothing_left(server)


def test_a_task_is_restarted_behind_those_that_wait(server, node, app):
    create(server, "one", "a", "b")
    wait_until_begun(server, "a")
    wait_until_waiting(server, "b")
    app.helpers.stop_task("a")
    server.wait_for_state("a", "STOPPED")
    app.helpers.restart_task("a")
    go(server)
    wait_until_ended(server, ["a", "b"])
    assert began(server) == ["a", "b", "a"]


# Deaths.


@ON_ONE_SERVER
def test_the_place_of_a_task_whose_node_was_killed_is_kept_for_it(server, start_node):
    first = start_node(app=APP)
    create(server, "one", "a", "b")
    wait_until_begun(server, "a")
    wait_until_waiting(server, "b")
    start_node(app=APP)
    first.kill()
    wait_until_begun(server, "a", "a")
    assert server.state("b") == "SCHEDULED"
    go(server)
    wait_until_ended(server, ["a", "b"])
    assert began(server) == ["a", "a", "b"]
    assert most_at_once(server) == 1


@ON_ONE_SERVER
def test_those_in_line_go_on_where_the_node_that_parked_them_was_killed(server, start_node):
    first = start_node(app=APP)
    ids = names(20)
    create(server, "one", *ids, seconds=0.2)
    wait_until_waiting(server, ids[-1])
    start_node(app=APP)
    first.kill()
    wait_until_ended(server, ids)
    assert list(dict.fromkeys(began(server))) == ids
    assert most_at_once(server) == 1


def test_a_node_that_ends_in_order_hands_its_places_on(server, start_node):
    first = start_node("--grace", "0", app=APP)
    create(server, "one", "a", "b")
    wait_until_begun(server, "a")
    wait_until_waiting(server, "b")
    start_node(app=APP)
    assert first.terminate() == 1  # a task had to be cut short
    wait_until_begun(server, "a", "a")
    go(server)
    wait_until_ended(server, ["a", "b"])


@pytest.mark.parametrize(
    "lost", ["zset of places", "the recall of the one that is next", "a record that was let in"]
)
def test_what_got_lost_is_found_within_seconds(server, node, lost):
    create(server, "one", "a", "b", "c")
    wait_until_begun(server, "a")
    wait_until_waiting(server, "b", "c")
    if lost == "zset of places":
        server.redis.delete("{limit-max-one}:held")
        wait_until(lambda: began(server) == ["a", "b"])
    elif lost == "the recall of the one that is next":
        server.redis.zadd("{limit-max-one}:held", {"new-task b": 1})
        server.redis.zrem("{limit-max-one}:line", "new-task b")
        wait_until(lambda: began(server) == ["a", "b"])
    else:
        server.redis.zadd("{limit-max-one}:held", {"new-task gone": 1})
        server.redis.zrem("{limit-max-one}:held", "new-task a")
    go(server)
    wait_until_ended(server, ["a", "b", "c"], deadline=20)
    assert_nothing_left(server)


def test_those_whose_queue_is_paused_let_others_go_before_them(server, start_node, app):
    start_node("-q", "default", "-q", "mail", app=APP)
    create(server, "one", "a")
    wait_until_begun(server, "a")
    create(server, "one", *names(300), queue="new-task:mail")
    wait_until_waiting(server, *names(300))
    create(server, "one", "z", seconds=0.01)
    wait_until_waiting(server, "z")
    app.helpers.pause_queue("mail")
    go(server)
    server.wait_for_state("z", "SUCCESS")
    assert began(server) == ["a", "z"]


def test_one_that_was_let_in_just_before_its_queue_was_paused_keeps_others_waiting_for_a_moment(
    server, start_node, app
):
    start_node("-q", "default", "-q", "mail", app=APP)
    create(server, "one", "a")
    wait_until_begun(server, "a")
    create(server, "one", "b", queue="new-task:mail")
    wait_until_waiting(server, "b")
    app.helpers.pause_queue("mail")
    go(server)
    server.wait_for_state("a", "SUCCESS")
    create(server, "one", "c", seconds=0.01)
    server.wait_for_state("c", "SUCCESS")
    assert server.state("b") == "SCHEDULED"


def test_hundreds_of_lines_go_on_beside_each_other(server, node):
    ids = []
    for customer in range(300):
        ids += [f"c{customer}-{number}" for number in range(3)]
        create(server, "per-customer", *ids[-3:], seconds=0.02, customer=customer)
    wait_until_ended(server, ids)
    for customer in range(300):
        mine = ids[3 * customer : 3 * customer + 3]
        assert in_order_of_start(server, mine) == mine
    assert_nothing_left(server)


# Rates.


def times(server, ids):
    return sorted(float(server.field(task_id, "started")) for task_id in ids)


def test_a_rate_lets_its_number_start_at_once_and_then_one_after_the_other_in_order(server, node):
    ids = names(25)
    create(server, "rated", *ids, seconds=0.01)
    wait_until_ended(server, ids)
    assert in_order_of_start(server, ids) == ids
    started = times(server, ids)
    for number in range(10, 25):  # the tenth after each is at least a second later, but for what commands take
        assert started[number] - started[0] >= (number - 9) * 0.1 - 0.02
    assert_nothing_left_of_rates(server)


def assert_nothing_left_of_rates(server):
    wait_until(lambda: not server.redis.keys("*limit-rate*"))


def test_a_rate_is_for_all_nodes_together(server, start_node):
    for _ in range(3):
        start_node(app=APP)
    ids = names(25)
    create(server, "rated", *ids, seconds=0.01)
    wait_until_ended(server, ids)
    started = times(server, ids)
    assert started[24] - started[0] >= 15 * 0.1 - 0.02


def test_a_rate_with_a_key_goes_for_each_value(server, node):
    create(server, "rated-per-host", "a1", "a2", "a3", host="a", seconds=0.01)
    create(server, "rated-per-host", "b1", host="b", seconds=0.01)
    wait_until_ended(server, ["a1", "a2", "b1"])
    assert server.state("a3") == "SCHEDULED"
    assert server.redis.zcard(server.redis.keys("{limit-rates-*:line")[0]) == 1


def test_a_waiting_task_of_a_rate_that_is_stopped_uses_up_no_start(server, node, app):
    fields = {"rate": "1/500ms"}
    ids = names(6)
    create(server, "free", *ids, seconds=0.01, fields=fields)
    wait_until_waiting(server, *ids[2:])
    for task_id in ids[1:5]:
        app.helpers.stop_task(task_id)
    server.wait_for_state(ids[5], "SUCCESS", deadline=3)
    assert began(server) in ([ids[0], ids[5]], [ids[0], ids[1], ids[5]])


def test_each_attempt_asks_the_rate_anew(server, node):
    fields = {"rate": "1/300ms", "max_running": "5", "retry_delay": "0"}
    create(server, "flaky", "a", seconds=0.01, fields=fields)
    wait_until_ended(server, ["a"])
    assert began(server) == ["a", "a"]
    assert not server.redis.zcard("{limit-rate-flaky}:held")


# Several at once.


def test_a_task_may_be_under_every_limit_at_once(server, node):
    ids = []
    for customer in "ab":
        for number in range(4):
            ids.append(f"{customer}{number}")
            create(server, "all", ids[-1], seconds=0.05, customer=customer, number=number)
    wait_until_ended(server, ids)
    assert most_at_once(server) <= 2
    for customer in "ab":
        assert [i for i in began(server) if i[0] == customer] == [i for i in ids if i[0] == customer]
    started = times(server, ids)
    assert all(later - earlier >= 0.2 - 0.02 for earlier, later in pairwise(started))
    assert_nothing_left(server)


def test_whoever_waits_for_one_limit_keeps_what_it_has_of_the_narrower_one(server, node):
    fields = {"concurrency_key": "customer", "max_running": "1"}
    create(server, "free", "a1", customer="a", fields=fields)
    wait_until_begun(server, "a1")
    create(server, "free", "b1", "b2", customer="b", fields=fields)
    wait_until_waiting(server, "b1", "b2")
    assert server.redis.zrange("{limit-max-free}:line", 0, -1) == [b"new-task b1"]
    go(server)
    wait_until_ended(server, ["a1", "b1", "b2"])
    assert began(server) == ["a1", "b1", "b2"]
    assert_nothing_left(server)


# Bad input.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_running", "0"), ("max_running", "-1"), ("max_running", "nan"), ("max_running", "many"),
        ("max_running", "1" * 400), ("rate", "0/s"), ("rate", "10/0s"), ("rate", "x"), ("rate", "-1/s"),
        ("rate", "nan/s"), ("rate", "10/-5s"), ("max_running_per_key", "0"), ("concurrency_key", "x" * 1_000_000),
    ],
)  # fmt: skip
def test_a_wrong_option_ends_its_task_alone_and_says_what_is_allowed(server, node, field, value):
    create(server, "free", "bad", fields={field: value, "rate_key": "host"})
    create(server, "one", "good", seconds=0.01)
    server.wait_for_state("bad", "ERROR")
    assert f"the field '{field}'" in server.field("bad", "output")
    server.wait_for_state("good", "SUCCESS")
    assert_nothing_left(server)


@pytest.mark.parametrize("data", ["[1]", "{", '"text"', "\xff", "[" * 5000])
def test_data_that_cannot_be_read_asks_no_limit(server, node, data):
    create(server, "per-customer", "bad")
    server.redis.hset("task-bad", "data", data)
    create(server, "per-customer", "good", seconds=0.01)
    for task_id in ("bad", "good"):
        server.wait_for_state(task_id, "ERROR", "SUCCESS")


def test_an_unknown_name_asks_no_limit(server, start_node):
    start_node(app=APP, unknown_wait="0.2")
    create(server, "no such task {x}", "bad", fields={"max_running": "1", "unique": "k"})
    server.wait_for_state("bad", "EXCEPTION")
    assert not server.redis.keys("*limit-*")


def test_a_limit_whose_key_is_of_another_type_holds_up_its_own_tasks_alone(server, node):
    server.redis.set("{limit-max-one}:held", "no zset")
    create(server, "one", "a", seconds=0.01)
    create(server, "two", "b", seconds=0.01)
    server.wait_for_state("b", "SUCCESS")
    wait_until_waiting(server, "a")
    server.redis.delete("{limit-max-one}:held")
    server.wait_for_state("a", "SUCCESS")


# Costs.


def test_a_task_without_limits_costs_no_command_and_no_key(server, node):
    create(server, "free", "warm", seconds=0.01)
    server.wait_for_state("warm", "SUCCESS")
    before = server.redis.info("commandstats")
    create(server, "free", *names(20), seconds=0.01)
    wait_until_ended(server, names(20))
    after = server.redis.info("commandstats")
    for command in ("zrank", "zadd", "zcard"):  # those of `places` and of release
        calls = [stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for stats in (before, after)]
        assert command != "zrank" or calls[0] == calls[1]
    assert not server.redis.keys("*limit-*")
    assert server.field("t000", "limits") is None
