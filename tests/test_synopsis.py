"""What the first page about pytask ever said, where no other test says it."""

from __future__ import annotations

import contextlib
import json

from conftest import wait_until


def test_whoever_subscribes_to_one_task_gets_its_events_and_no_others(server, start_node):
    start_node()
    with contextlib.closing(server.redis.pubsub()) as pubsub:
        pubsub.subscribe("task-mine")
        assert wait_until(lambda: pubsub.get_message(timeout=1))["type"] == "subscribe"
        server.create("other", "many-events", '{"count": 2}')
        server.wait_for_state("other", "SUCCESS")
        server.create("mine", "many-events", '{"count": 2}')
        server.wait_for_state("mine", "SUCCESS")
        messages = [wait_until(lambda: pubsub.get_message(timeout=1)) for _ in range(4)]
    assert {message["channel"] for message in messages} == {b"task-mine"}
    told = [json.loads(message["data"]) for message in messages]
    assert [(event["event"], event["data"]) for event in told[1:]] == [("turn", 0), ("turn", 1), ("success", None)]


def test_a_task_without_data_has_the_defaults_of_its_arguments(server, start_node, events):
    start_node()
    server.redis.hset("task-T", "task", "loop")
    server.redis.lpush("new-task", "T")
    assert events.wait_for("T", "turn")["data"] == {"text": "hello", "attempt": 1}
