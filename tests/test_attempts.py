"""Attempts: delays, expiry, timeouts, retries, as a raw producer asks for them and as a class does."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from conftest import ON_ONE_SERVER, Server, StartNode, wait_until

from pytask import PyTask, Task
from pytask.errors import InvalidInputError


def create(server: Server, task_id: str, task: str, data: str = "{}", **fields: str) -> None:
    """With raw commands alone."""
    server.redis.hset(f"task-{task_id}", mapping={"task": task, "data": data, **fields})
    server.redis.lpush("new-task", task_id)


def kept(server: Server, task_id: str) -> list[dict]:
    return [json.loads(row[b"event"]) for _, row in server.redis.xrange(f"{{task-{task_id}}}:events")]


def test_a_raw_producer_delays_a_task_and_it_starts_in_time(server, events, start_node):
    start_node()
    began = time.time()
    create(server, "D", "echo", delay="1s")
    create(server, "U", "echo", due=f"{began + 1:.6f}")
    for task_id in ("D", "U"):
        events.wait_for(task_id, "scheduled")
        server.wait_for_state(task_id, "SUCCESS")
        assert 1 <= float(server.field(task_id, "started")) - began < 3
        assert events.names(task_id) == ["scheduled", "running", "success"]


def test_a_delay_is_counted_from_the_creation_of_the_record(server, start_node):
    start_node()
    create(server, "old", "echo", delay="5m", created=f"{time.time() - 400:.6f}")
    server.wait_for_state("old", "SUCCESS")


def test_a_scheduled_task_is_stopped_at_once(server, app, start_node):
    start_node()
    app.helpers.start_task("echo", task_id="S", due=datetime.now(UTC) + timedelta(days=400))
    server.wait_for_state("S", "SCHEDULED")
    assert app.helpers.stop_task("S")
    server.wait_for_state("S", "STOPPED")


def test_a_due_of_the_year_9999_waits_and_can_be_stopped(server, app, start_node):
    start_node()
    app.helpers.start_task("echo", task_id="far", due=datetime(9999, 12, 31, tzinfo=UTC))
    server.wait_for_state("far", "SCHEDULED")
    score = wait_until(lambda: server.redis.zscore("{new-task}:due", "far"), "it is parked")
    assert score == pytest.approx(253402214400)
    app.helpers.stop_task("far")
    server.wait_for_state("far", "STOPPED")


def test_a_task_that_does_not_begin_in_time_expires_and_says_so(server, events, start_node):
    create(server, "late", "echo", expires=f"{time.time() - 1:.6f}")
    create(server, "later", "echo", expires_in="0")
    create(server, "good", "echo", expires_in="1h")
    start_node()
    for task_id in ("late", "later"):
        assert events.wait_for(task_id, "expired")["data"] == "expired before it began"
        assert server.state(task_id) == "EXPIRED"
    server.wait_for_state("good", "SUCCESS")


def test_what_a_class_says_of_its_start_goes_for_raw_producers(server, events, start_node):
    start_node()
    create(server, "C", "in-a-moment")
    events.wait_for("C", "scheduled")
    server.wait_for_state("C", "SUCCESS")
    create(server, "X", "in-a-moment", created="1700000000")
    server.wait_for_state("X", "EXPIRED")
    create(server, "R", "in-a-moment", expires_in="10000d", created="1700000000", delay="0")
    server.wait_for_state("R", "SUCCESS")


def test_an_attempt_that_takes_too_long_is_ended_with_its_greenlet(server, events, start_node):
    start_node()
    create(server, "T", "loop", timeout="300ms")
    text = "the attempt took longer than its timeout of 0.3 s"
    assert events.wait_for("T", "timeout")["data"] == text
    assert (server.state("T"), server.field("T", "output")) == ("TIMEOUT", text)
    assert "stopping" in events.names("T")
    turns = events.names("T").count("turn")
    create(server, "after", "sleep", '{"seconds": 0.3}')
    server.wait_for_state("after", "SUCCESS")
    assert events.names("T").count("turn") == turns


def test_a_task_in_time_is_not_ended(server, start_node):
    start_node()
    create(server, "quick", "sleep", '{"seconds": 0.1}', timeout="5s")
    create(server, "longer", "sleep", '{"seconds": 1.0}')
    server.wait_for_state("quick", "SUCCESS")
    server.wait_for_state("longer", "SUCCESS")


def test_a_failed_attempt_is_followed_by_others_and_every_error_stays_readable(server, events, start_node):
    node = start_node()
    create(server, "F", "boom", retries="2", retry_delay="[0.1, 0.2]")
    server.wait_for_state("F", "EXCEPTION")
    assert events.names("F") == ["running", "retry", "running", "retry", "running", "exception"]
    delays = [event["data"]["delay"] for event in events.of("F") if event["event"] == "retry"]
    assert delays == [0.1, 0.2]
    assert server.field("F", "attempt") == "3"
    errors = [event["data"] for event in kept(server, "F")]
    assert [error["attempt"] for error in errors[:2]] == [1, 2]
    assert all(error["error"].endswith("ValueError: boom") for error in errors[:2])
    assert errors[2].endswith("ValueError: boom")
    assert node.text().count("the next one follows") == 2


def test_a_timeout_is_followed_by_another_attempt(server, events, start_node):
    start_node()
    create(server, "T", "sleep", '{"seconds": 60}', timeout="0.1", retries="1", retry_delay="0.1")
    server.wait_for_state("T", "TIMEOUT")
    assert events.names("T") == ["running", "retry", "running", "timeout"]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"retry_on": "ValueError"}, ["running", "retry", "running", "exception"]),
        ({"retry_on": "builtins.Exception,KeyError"}, ["running", "retry", "running", "exception"]),
        ({"retry_on": "KeyError"}, ["running", "exception"]),
        ({"no_retry_on": "ValueError"}, ["running", "exception"]),
        ({"retry_on": "Exception", "no_retry_on": "ValueError"}, ["running", "exception"]),
    ],
    ids=str,
)
def test_only_some_errors_are_tried_again(server, events, start_node, fields, names):
    start_node()
    create(server, "E", "boom", retries="1", retry_delay="0.05", **fields)
    server.wait_for_state("E", "EXCEPTION")
    assert events.names("E") == names


def test_the_task_s_own_error_is_tried_again_only_where_it_is_named(server, events, start_node):
    start_node()
    create(server, "plain", "fail", retries="3", retry_delay="0.05")
    create(server, "named", "fail", retries="1", retry_delay="0.05", retry_on="Error")
    for task_id in ("plain", "named"):
        server.wait_for_state(task_id, "ERROR")
    assert events.names("plain") == ["running", "error"]
    assert events.names("named") == ["running", "retry", "running", "error"]


def test_bad_input_is_never_tried_again(server, events, start_node):
    start_node()
    create(server, "B", "echo", "[]", retries="3", retry_on="Exception")
    server.wait_for_state("B", "ERROR")
    assert events.names("B") == ["running", "error"]


def test_a_task_asks_for_another_attempt_by_itself_until_its_retries_are_used_up(server, events, start_node):
    start_node()
    create(server, "A", "ask-again", '{"times": 3}')
    server.wait_for_state("A", "SUCCESS")
    assert events.names("A").count("retry") == 3
    create(server, "B", "ask-again", '{"times": 3}', retries="1")
    server.wait_for_state("B", "ERROR")
    assert server.field("B", "output") == "not yet"
    assert events.names("B").count("retry") == 1


def test_a_task_decides_how_long_to_wait(server, events, start_node):
    start_node()
    create(server, "I", "interval", '{"intervals": [0.05, 0.1, null]}')
    server.wait_for_state("I", "EXCEPTION")
    assert [event["data"]["delay"] for event in events.of("I") if event["event"] == "retry"] == [0.05, 0.1]


def test_a_task_that_is_asked_for_an_interval_may_be_discarded_instead(server, events, start_node):
    start_node()
    create(server, "I", "interval", '{"intervals": [0.05, "discard"]}', retries="5")
    server.wait_for_state("I", "DISCARDED")
    assert server.field("I", "output") == "no more intervals"
    assert events.names("I") == ["running", "retry", "running", "discarded"]
    wait_until(lambda: server.redis.hget("{new-task}:counts", "DISCARDED") == b"1")


@pytest.mark.parametrize("intervals", ['["soon"]', "[-1]", '["raise"]', '["exit"]', "[1e400]"])
def test_an_interval_that_is_none_ends_the_task_and_harms_no_node(
    server: Server, start_node: StartNode, intervals
):
    node = start_node()
    create(server, "I", "interval", f'{{"intervals": {intervals}}}')
    wait_until(lambda: server.state("I") in ("EXCEPTION", "ERROR"), "the end")
    create(server, "after", "noop")
    server.wait_for_state("after", "SUCCESS")
    assert node.process.poll() is None


def test_a_task_is_discarded_at_its_own_wish(server, events, start_node):
    node = start_node()
    create(server, "X", "discard", retries="5")
    server.wait_for_state("X", "DISCARDED")
    assert server.field("X", "output") == "not needed"
    assert events.names("X") == ["running", "discarded"]
    assert "'X'" not in node.text()


def test_a_task_that_waits_for_its_next_attempt_is_stopped_at_once(
    server: Server, app: PyTask, start_node: StartNode
):
    start_node()
    app.helpers.start_task("boom", task_id="W", retries=1, retry_delay="1h")
    server.wait_for_state("W", "RETRY")
    app.helpers.stop_task("W")
    server.wait_for_state("W", "STOPPED")


@ON_ONE_SERVER
def test_the_next_attempt_is_made_by_another_node_where_the_first_died(server, start_node):
    first = start_node()
    create(server, "K", "boom", retries="1", retry_delay="3")
    server.wait_for_state("K", "RETRY")
    first.kill()
    start_node()
    server.wait_for_state("K", "EXCEPTION")
    assert server.field("K", "attempt") == "2"


@ON_ONE_SERVER
def test_a_death_of_the_node_is_no_attempt(server, start_node):
    first = start_node()
    create(server, "L", "sleep", '{"seconds": 600}', retries="1", timeout="1000")
    server.wait_for_state("L", "RUNNING")
    first.kill()
    start_node(node_timeout="2")
    wait_until(lambda: server.field("L", "deliveries") == "1", "it runs again")
    assert server.field("L", "attempt") == "1"


def test_start_task_and_start_tasks_refuse_what_is_wrong_before_anything_is_sent(server: Server, app: PyTask):
    with pytest.raises(InvalidInputError, match="option timeout"):
        app.helpers.start_task("echo", timeout=-1)
    with pytest.raises(InvalidInputError, match=r"no key 'retires': did you mean retries\?"):
        app.helpers.start_tasks([{"task": "echo"}, {"task": "echo", "retires": 3}])
    with pytest.raises(InvalidInputError, match="datetime"):
        app.helpers.start_task("echo", due=datetime(2027, 1, 1))
    assert server.redis.dbsize() == 0


def test_options_of_many_tasks_reach_their_records_and_their_queues(server: Server, app: PyTask):
    class Mail(Task):
        NAME = "mail"
        queue = "mail"

        def start(self):
            pass

    app.add_task(Mail)
    ids = app.helpers.start_tasks(
        [
            {"task": "mail", "task_id": "a", "timeout": "5m", "retry_delay": [1, 2]},
            {"task": Mail, "task_id": "b", "queue": "other"},
            (Mail, {}, "c"),
            ("echo", None, "d"),
        ]
    )
    assert ids == ["a", "b", "c", "d"]
    assert (server.field("a", "timeout"), server.field("a", "retry_delay")) == ("300", "[1.0, 2.0]")
    assert server.redis.lrange("new-task:mail", 0, -1) == [b"c", b"a"]
    assert server.redis.lrange("new-task:other", 0, -1) == [b"b"]
    assert server.redis.lrange("new-task", 0, -1) == [b"d"]
    assert server.field("c", "queue") == "mail"


@ON_ONE_SERVER
def test_a_reload_goes_by_the_timeout_that_the_record_names_by_then(server, events, start_node):
    start_node()
    create(server, "R", "loop", timeout="1500ms")
    create(server, "clock", "sleep", '{"seconds": 2.5}')
    events.wait_for("R", "turn")
    server.redis.hdel("task-R", "timeout")
    server.redis.publish("task-R-control", "reload")
    events.wait_for("R", "reloaded")
    server.wait_for_state("clock", "SUCCESS")
    assert server.state("R") == "RUNNING"
    server.redis.hset("task-R", "timeout", "100ms")
    server.redis.publish("task-R-control", "reload")
    server.wait_for_state("R", "TIMEOUT")


def test_a_stop_between_two_attempts_leaves_no_word_of_the_failed_one(server, app, start_node):
    start_node()
    app.helpers.start_task("boom", task_id="B", retries=3, retry_delay="1h")
    server.wait_for_state("B", "RETRY")
    assert server.field("B", "output").endswith("ValueError: boom")
    app.helpers.stop_task("B")
    server.wait_for_state("B", "STOPPED")
    assert server.field("B", "output") == ""
