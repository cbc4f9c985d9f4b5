"""What a running task tells, and is told: progress, logs, kept events, messages."""

from __future__ import annotations

import json
import math

import pytest
from conftest import ON_ONE_SERVER, Events, Server, StartNode, wait_until

from pytask import Task
from pytask.errors import InvalidInputError

COUNT = 3000


def kept(server: Server, task_id: str) -> list[dict]:
    return [json.loads(row[b"event"]) for _, row in server.redis.xrange(f"{{task-{task_id}}}:events")]


@ON_ONE_SERVER
def test_progress_is_sent_at_most_ten_times_a_second_and_the_last_one_in_any_case(server, events, start_node):
    start_node()
    server.create("P", "busy", json.dumps({"count": COUNT, "seconds": 1.0}))
    server.wait_for_state("P", "SUCCESS")
    told = [event["data"] for event in events.of("P") if event["event"] == "progress"]
    seconds = float(server.field("P", "ended")) - float(server.field("P", "started"))
    assert 2 <= len(told) <= seconds * 10 + 2
    last = {"done": COUNT, "total": COUNT, "note": None}
    assert told[-1] == last
    assert json.loads(server.field("P", "progress")) == last
    assert [event["event"] for event in events.of("P")][-1] == "success"
    assert server.redis.exists("{task-P}:events") == 0


NO_PROGRESS = [(-1,), ("x",), (math.nan,), (math.inf,), (True,), (1, -1), (1, "x"), (1, 2, 3), (1, 2, "n" * 1001)]


@pytest.mark.parametrize("arguments", NO_PROGRESS, ids=str)
def test_progress_that_is_none_is_refused(arguments):
    class Tell(Task):
        NAME = "tell"

        def start(self):
            pass

    with pytest.raises(InvalidInputError, match="progress: "):
        Tell().progress(*arguments)


def test_what_a_task_and_its_greenlets_log_goes_out_as_events_and_nobody_else_s_does(server, events, start_node):
    node = start_node()
    for number in (1, 2):
        server.create(f"L{number}", "log", json.dumps({"name": f"n{number}"}))
    for number in (1, 2):
        server.wait_for_state(f"L{number}", "SUCCESS")
        lines = [event["data"] for event in events.of(f"L{number}") if event["event"] == "log"]
        assert [line["message"] for line in lines] == [
            f"n{number} {where}" for where in ("start", "greenlet", "thread", "end")
        ]
        assert {line["level"] for line in lines} == {"INFO"}
        assert {line["logger"] for line in lines} == {"nodeapp.log"}
        assert [event["data"] for event in kept(server, f"L{number}") if event["event"] == "log"] == lines
    assert "nodeapp.log: n1 greenlet" in node.text()


def test_what_a_task_prints_goes_out_where_the_setting_says_so(server, events, start_node):
    start_node(capture_print="true")
    server.create("P", "print", "{}")
    server.wait_for_state("P", "SUCCESS")
    lines = [event["data"]["message"] for event in events.of("P") if event["event"] == "log"]
    assert lines == ["one line", "two", "lines", "no end"]


def test_a_log_line_that_no_json_and_no_text_can_hold_harms_nothing(server, events, start_node):
    node = start_node()
    server.create("H", "log-hostile", "{}")
    server.wait_for_state("H", "SUCCESS")
    lines = [event["data"]["message"] for event in events.of("H") if event["event"] == "log"]
    assert lines[0] == "lone \\udcff"
    assert len(lines[1]) < 20_000
    assert lines[-1] == "still here"
    assert "Traceback" in "".join(lines)
    assert "\x1b" not in node.text()


def test_events_are_kept_capped_and_carry_their_places(server, events, start_node):
    start_node(keep_events="20")
    server.create("K", "many-events", '{"count": 100}')
    server.wait_for_state("K", "SUCCESS")
    found = kept(server, "K")
    assert len(found) == 20
    assert found[-1] == {"event": "success", "data": None}
    assert [event["data"] for event in found[:-1]] == list(range(81, 100))
    places = {row.decode() for row, _ in server.redis.xrange("{task-K}:events")}
    assert places <= {event.get("id") for event in events.of("K")}
    assert 0 < server.redis.ttl("{task-K}:events") <= 604_800


def test_nothing_is_kept_where_the_setting_says_so_nor_of_a_task_that_tells_nothing(
    server: Server, start_node: StartNode
):
    start_node(keep_events="0")
    server.create("K", "many-events", '{"count": 10}')
    server.create("B", "boom", "{}", retries="1", retry_delay="0.05")
    server.wait_for_state("K", "SUCCESS")
    server.wait_for_state("B", "EXCEPTION")
    assert server.redis.keys("*:events") == []


def test_an_id_with_a_brace_has_no_stream_and_its_events_all_the_same(server, events, start_node):
    start_node()
    for task_id in ("a{b}c", "a{", "}"):
        server.create(task_id, "many-events", '{"count": 2}', retries="1")
        server.wait_for_state(task_id, "SUCCESS")
        assert events.names(task_id) == ["running", "turn", "turn", "success"]
    assert server.redis.keys("*:events") == []


def test_a_stream_key_of_another_type_harms_neither_the_task_nor_its_events(server, events, start_node):
    start_node()
    server.redis.set("{task-W}:events", "text")
    server.create("W", "many-events", '{"count": 2}')
    server.wait_for_state("W", "SUCCESS")
    assert events.names("W") == ["running", "turn", "turn", "success"]


def test_messages_reach_the_task_in_order_and_its_answers_are_events(server, events, start_node):
    start_node()
    server.create("M", "listen", "{}")
    events.wait_for("M", "log")
    for number in range(50):
        server.redis.publish("task-M-control", json.dumps({"n": number}))
    server.redis.publish("task-M-control", '{"end": true}')
    server.wait_for_state("M", "SUCCESS")
    heard = [event["data"] for event in events.of("M") if event["event"] == "heard"]
    assert heard == [*({"n": n} for n in range(50)), {"end": True}]


def test_a_message_may_have_space_around_it(server, events, start_node):
    start_node()
    server.create("M", "listen", "{}")
    events.wait_for("M", "log")
    server.redis.publish("task-M-control", '\n \t{\n "end": true\n}\r\n')
    server.wait_for_state("M", "SUCCESS")


LARGE = b'{"x": "' + b"y" * 2_000_000 + b'"}'
NO_MESSAGES = [b"[1]", b'"text"', b"{", b'{"a": NaN}', b"\xff", b"", b"{" * 100_000, LARGE]


@pytest.mark.parametrize("message", NO_MESSAGES, ids=lambda message: message[:10].hex())
def test_a_message_that_is_none_is_told_of_and_ignored(
    server: Server, events: Events, start_node: StartNode, message
):
    node = start_node()
    server.create("M", "listen", "{}")
    events.wait_for("M", "log")
    server.redis.publish("task-M-control", message)
    node.wait_for_log("ignored")
    server.redis.publish("task-M-control", '{"end": true}')
    server.wait_for_state("M", "SUCCESS")


def test_a_message_that_fails_is_told_of_and_the_task_goes_on(server, events, start_node):
    start_node()
    server.create("M", "listen", "{}")
    server.create("N", "loop", "{}")
    events.wait_for("M", "log")
    events.wait_for("N", "turn")
    server.redis.publish("task-M-control", '{"fail": true}')
    server.redis.publish("task-N-control", '{"a": 1}')
    assert events.wait_for("M", "message-failed")["data"] == "on_message() raised ValueError no such message"
    assert "takes no messages" in events.wait_for("N", "message-failed")["data"]
    server.redis.publish("task-M-control", '{"end": true}')
    server.wait_for_state("M", "SUCCESS")


def test_the_greenlet_of_a_message_ends_with_its_task(server, events, start_node):
    start_node()
    server.create("M", "listen", "{}")
    events.wait_for("M", "log")
    server.redis.publish("task-M-control", '{"forever": true}')
    wait_until(lambda: events.names("M").count("turn") > 2, "the message is worked on")
    server.redis.publish("task-M-control", "stop")
    server.wait_for_state("M", "STOPPED")
    turns = events.names("M").count("turn")
    server.create("after", "sleep", '{"seconds": 0.3}')
    server.wait_for_state("after", "SUCCESS")
    assert events.names("M").count("turn") == turns
