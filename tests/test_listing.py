"""Lists and counts of all tasks, wherever they stand, in pages. Raw commands make what they stand in."""

from __future__ import annotations

import time

import pytest
from conftest import wait_until

from pytask.errors import InvalidInputError


@pytest.fixture
def helpers(app):
    return app.helpers


def ids(rows):
    return [row["id"] for row in rows]


@pytest.fixture
def everywhere(server):
    """A task in every place of two queues, made with raw commands."""
    made = server.redis
    for task_id, fields in {
        "waits1": {}, "waits2": {}, "mail1": {"queue": "mail"},
        "runs1": {"state": "RUNNING", "attempt": "2", "started": "50.5", "node": "N"},
        "due1": {"state": "SCHEDULED"}, "due2": {"state": "RETRY"},
        "over1": {"state": "SUCCESS", "ended": "60"}, "over2": {"state": "ERROR"}, "over3": {"state": "STOPPED"},
    }.items():  # fmt: skip
        made.hset(f"task-{task_id}", mapping={"task": "other" if task_id == "over2" else "noop", **fields})
    made.lpush("new-task", "waits1", "waits2")
    made.lpush("new-task:mail", "mail1")
    made.hset("{new-task}:nodes", mapping={"N": "1", "-M": "1"})
    made.hset("{new-task}:of:N", "runs1", "5 0")
    made.lpush("{new-task}:inbox:M", "handed")
    made.hset("task-handed", mapping={"task": "noop"})
    made.zadd("{new-task}:due", {"due1": 9e9, "due2": 8e9})
    made.zadd("{new-task:mail}:ended", {"over1": 3, "over2": 2, "over3": 1})


ALL = ["handed", "runs1", "waits1", "waits2", "mail1", "due2", "due1", "over1", "over2", "over3"]


@pytest.mark.usefixtures("everywhere")
def test_all_tasks_are_listed_once_in_the_order_of_their_places(helpers):
    rows = helpers.list_tasks()
    assert ids(rows) == ALL
    assert helpers.count_tasks() == len(ALL)
    assert helpers.count_tasks_by_place() == {"running": 2, "waiting": 3, "due": 2, "held": 0, "ended": 3}
    assert rows[1] == {
        "id": "runs1", "task": "noop", "state": "RUNNING", "title": None, "queue": "default", "created": None,
        "started": 50.5, "ended": None, "attempt": 2, "node": "N", "workflow": None,
    }  # fmt: skip
    assert [(row["state"], row["queue"]) for row in rows[4:6]] == [("WAIT", "mail"), ("RETRY", "default")]
    assert rows[7]["ended"] == 60


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 100])
def test_pages_put_together_are_the_whole(helpers, limit):
    pages = [ids(helpers.list_tasks(page=page, limit=limit)) for page in range(1, len(ALL) // limit + 3)]
    assert [task_id for page in pages for task_id in page] == ALL
    assert pages[-1] == []


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"queue": "mail"}, ["mail1", "over1", "over2", "over3"]),
        ({"queue": "default"}, ["handed", "runs1", "waits1", "waits2", "due2", "due1"]),
        ({"find": False}, ["handed", "runs1", "waits1", "waits2", "due2", "due1"]),
        ({"state": "RUNNING"}, ["handed", "runs1"]),
        ({"state": "WAIT", "queue": "mail"}, ["mail1"]),
        ({"state": "RETRY"}, ["due2"]),
        ({"state": ["SCHEDULED", "RETRY"]}, ["due2", "due1"]),
        ({"state": "ERROR"}, ["over2"]),
        ({"state": ["WAIT", "STOPPED"]}, ["waits1", "waits2", "mail1", "over3"]),
        ({"state": "TIMEOUT"}, []),
        ({"name": "other"}, ["over2"]),
        ({"name": "noop", "state": "SUCCESS", "queue": "mail"}, ["over1"]),
        ({"name": "nobody"}, []),
    ],
)
def test_a_list_is_narrowed_by_queue_state_and_name(helpers, wanted, expected):
    assert ids(helpers.list_tasks(**wanted)) == expected
    assert helpers.count_tasks(**wanted) == len(expected)
    assert ids(helpers.list_tasks(**wanted, page=2, limit=2)) == expected[2:4]


def test_an_id_without_a_record_is_told_without_a_state(helpers, server):
    server.redis.lpush("new-task", "a")
    server.redis.zadd("{new-task}:ended", {b"\xff": 1})
    rows = helpers.list_tasks()
    assert [(row["id"], row["task"], row["state"]) for row in rows] == [("a", None, None), ("\udcff", None, None)]
    assert helpers.list_tasks(state="SUCCESS") == []


def test_a_task_that_was_restarted_is_listed_where_it_is_now(helpers, server):
    helpers.start_task("noop", task_id="a")
    server.redis.zadd("{new-task}:ended", {"a": 1})
    assert ids(helpers.list_tasks()) == ["a"]
    assert helpers.list_tasks(state=["SUCCESS", "ERROR"]) == []


def test_an_id_that_was_pushed_twice_is_on_a_page_once(helpers, server):
    server.redis.lpush("new-task", "a", "b", "a")
    assert ids(helpers.list_tasks()) == ["a", "b"]


def test_keys_of_a_wrong_type_are_passed_over_and_the_rest_is_listed(helpers, server):
    server.redis.set("new-task:text", "text")
    server.redis.set("workflows", "text")
    server.redis.set("task-list", "text")
    server.redis.lpush("new-task", "a", "list", "b")
    server.redis.hset("task-a", mapping={"task": "noop", "created": "soon", "attempt": "many", "title": "x\x1b"})
    server.redis.hset("task-b", "title", "no name")
    rows = helpers.list_tasks()
    assert [(row["id"], row["task"], row["state"]) for row in rows] == [
        ("a", "noop", "WAIT"), ("list", None, None), ("b", None, "WAIT"),
    ]  # fmt: skip
    assert (rows[0]["created"], rows[0]["attempt"]) == (None, None)
    assert helpers.count_tasks() == 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"page": 0}, "page is a number from 1 on, not 0"),
        ({"page": True}, "page is a number"),
        ({"limit": 0}, "limit is a number from 1 to 10000, not 0"),
        ({"limit": 1_000_000}, "limit is a number from 1 to 10000, not 1000000"),
        ({"limit": "5"}, "limit is a number"),
        ({"state": "DONE"}, "'DONE' is no state; the states are WAIT, "),
        ({"state": []}, "name one state or more"),
        ({"state": 5}, "5 is no state"),
        ({"queue": "no such"}, "queue name 'no such' is not allowed"),
        ({"queue": "mial"}, "there is no queue mial"),
        ({"queue": 5}, "queue name 5 is not allowed"),
        ({"queue": "mail", "state": "HELD"}, "what is HELD is in no queue"),
        ({"name": ""}, "name is the name of a task"),
        ({"name": 5}, "name is the name of a task"),
    ],
)
def test_what_is_no_good_is_refused_with_the_reason(helpers, server, wrong, words):
    server.redis.lpush("new-task:mail", "a")
    with pytest.raises(InvalidInputError, match=words):
        helpers.list_tasks(**wrong)
    if not {"page", "limit"} & set(wrong):
        with pytest.raises(InvalidInputError, match=words):
            helpers.count_tasks(**wrong)


def test_a_page_far_down_does_not_read_the_records_before_it(app, server):
    app.helpers.start_tasks([("noop",)] * 3000)
    server.redis.config_resetstat()
    assert len(app.helpers.list_tasks(page=29, limit=100, find=False)) == 100
    stats = server.redis.info("commandstats")
    assert stats["cmdstat_hmget"]["calls"] == 100
    assert stats["cmdstat_lrange"]["calls"] == 1


# What is held.


def test_what_workflows_hold_is_counted_by_their_gates_and_listed_in_their_order(app, server, start_node):
    helpers = app.helpers
    app.start_workflow([["loop"], ["noop"] * 3, [{"task": "noop", "name": "last", "title": "T"}]], workflow_id="w")
    app.start_workflow([["noop"], ["noop"]], workflow_id="waits", queue="nobody")
    assert helpers.count_tasks_by_place() == {"running": 0, "waiting": 2, "due": 0, "held": 0, "ended": 0}
    node = start_node()
    server.wait_for_state("w", "HELD")
    server.wait_for_state("w:0", "RUNNING")
    held = ["w", "w:1", "w:2", "w:3", "w:last"]
    wait_until(lambda: helpers.count_tasks_by_place()["held"] == 5)
    wait_until(lambda: server.redis.hkeys("{new-task}:claims") == [b"w:0"], "that of w is released")
    rows = helpers.list_tasks(state="HELD")
    assert ids(rows) == held
    assert {row["state"] for row in rows} == {"HELD"}
    assert (rows[-1]["title"], rows[-1]["workflow"], rows[-1]["queue"]) == ("T", "w", "default")
    assert [ids(helpers.list_tasks(state="HELD", page=page, limit=2)) for page in (1, 2, 3)] == [
        held[:2], held[2:4], held[4:],
    ]  # fmt: skip
    assert ids(helpers.list_tasks()) == ["w:0", "waits", *held]
    node.kill()
    server.redis.hset("task-w:0", "state", "SUCCESS")  # its gate opens, and nobody lets its tasks go
    helpers.store.workflows.step({b"w": [(b"0", b"SUCCESS")]})
    assert ids(helpers.list_tasks(state="HELD")) == held
    assert helpers.count_tasks(state="HELD") == 5
    server.redis.set("{workflow-w}:open", "text")
    assert helpers.count_tasks(state="HELD") == 0


def test_every_task_is_in_one_place_while_nodes_work_through_them(app, server, start_node):
    start_node()
    helpers = app.helpers
    helpers.start_tasks([("sleep", {"seconds": 0.5})] * 20)
    helpers.start_tasks([{"task": "noop", "delay": 3600}] * 10)
    app.start_workflow([["loop"], ["noop"] * 4])
    helpers.start_tasks([("fail",)] * 5, queue="nobody")
    expected = {"running": 1, "waiting": 5, "due": 10, "held": 5, "ended": 20}
    wait_until(lambda: helpers.count_tasks_by_place() == expected, lambda: str(helpers.count_tasks_by_place()))
    rows = helpers.list_tasks(limit=1000)
    assert len(set(ids(rows))) == len(rows) == sum(expected.values())
    assert all(row["task"] and row["state"] and row["created"] < time.time() for row in rows)


def test_nodes_are_listed_whatever_else_stands_where_nodes_do(server, helpers):
    """A key of a wrong type, a record that is none, and a name that is no text hide no node."""
    server.redis.set("{new-task:wrong}:nodes", "text")
    server.redis.hset("{new-task:mail}:nodes", mapping={"N": "1", "-M": "1", b"\xff": "1", "R": "1"})
    server.redis.hset("node-N", mapping={"pid": "5", b"\xff": b"\xff"})
    server.redis.set("node-R", "text")
    expected = {"M": {}, "N": {"pid": "5", "\\xff": "\\xff"}, "R": {}, "\udcff": {}}
    assert helpers.get_nodes(find=True) == helpers.get_nodes("mail") == expected
    assert helpers.get_nodes("wrong") == {}
