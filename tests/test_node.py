"""The daemon from outside: raw Redis commands go in, states and events come out."""

from __future__ import annotations

import signal

from conftest import wait_until


def test_a_raw_hset_and_lpush_run_a_task_to_its_end(server, start_node, events):
    start_node()
    server.redis.hset("task-T", "task", "echo")
    server.redis.hset("task-T", "data", '{"text": "Not hello world"}')
    server.redis.lpush("new-task", "T")
    assert events.wait_for("T", "success")["data"] == {"text": "Not hello world"}
    assert server.state("T") == "SUCCESS"
    assert server.field("T", "output") == '{"text":"Not hello world"}'
    assert events.names("T") == ["running", "success"]
    wait_until(lambda: server.redis.ttl("task-T") > 3000, "Cleanup lets the record expire")
    server.wait_until_idle()


def test_the_node_ends_clean_and_leaves_nothing_behind(server, start_node):
    node = start_node()
    server.create("T", "noop")
    server.wait_for_state("T", "SUCCESS")
    wait_until(
        lambda: server.redis.ttl("task-T") > 0 and not server.redis.keys("{end-task}:of:*"), "Cleanup is done"
    )
    assert node.terminate() == 0
    left = {key.decode() for key in server.redis.keys("*")}
    assert left == {"task-T", "{new-task}:ended", "{new-task}:counts", "{new-task}:fence", "{new-task}:gone"}


def test_a_running_task_is_stopped_by_a_message_and_started_again_by_its_state(server, start_node, events):
    start_node()
    server.create("L", "loop")
    events.wait_for("L", "turn")
    server.redis.publish("task-L-control", "stop")
    events.wait_for("L", "stopped")
    assert server.state("L") == "STOPPED"
    assert "stopping" in events.names("L")
    server.wait_until_idle()
    server.redis.lpush("new-task", "L")
    events.wait_for("L", "ignored")
    assert server.state("L") == "STOPPED"
    events.seen.clear()
    server.redis.hset("task-L", "state", "WAIT")
    server.redis.lpush("new-task", "L")
    events.wait_for("L", "turn")


def test_a_running_task_is_reloaded_with_new_data(server, start_node, events):
    start_node()
    server.create("L", "loop", '{"text": "old"}')
    assert events.wait_for("L", "turn")["data"]["text"] == "old"
    server.redis.hset("task-L", "data", '{"text": "new"}')
    server.redis.publish("task-L-control", "reload")
    events.wait_for("L", "reloaded")
    wait_until(lambda: events.of("L")[-1]["data"] == {"text": "new", "attempt": 1})
    assert server.state("L") == "RUNNING"


def test_a_node_that_ends_puts_a_forever_task_back_and_counts_as_clean(server, start_node, events):
    node = start_node()
    server.create("F", "forever")
    events.wait_for("F", "turn")
    assert node.terminate() == 0
    assert server.state("F") == "WAIT"
    assert server.redis.lrange("new-task", 0, -1) == [b"F"]
    assert server.field("F", "attempt") == "0"


def test_work_that_outlives_the_grace_is_killed_and_put_back(server, start_node):
    node = start_node("--grace", "0.5")
    server.create("S", "sleep", '{"seconds": 100}')
    wait_until(lambda: server.redis.exists("runs:S"), "it has reached its start()")
    assert node.terminate() == 1
    assert server.state("S") == "WAIT"
    assert server.redis.lrange("new-task", 0, -1) == [b"S"]


def test_a_second_signal_skips_the_grace(server, start_node):
    node = start_node("--grace", "600")
    server.create("S", "sleep", '{"seconds": 600}')
    wait_until(lambda: server.redis.exists("runs:S"), "it has reached its start()")
    node.signal(signal.SIGINT)
    node.wait_for_log("it takes no more tasks")
    node.signal(signal.SIGINT)
    assert node.wait(15) == 1
    assert server.state("S") == "WAIT"


BEGINS_SLOWLY = """
from gevent import sleep
points.reach = lambda name: sleep(1.0) if name == "after-begin" else None
"""


def test_what_is_being_begun_when_its_node_ends_is_run_and_not_forgotten(server, start_node):
    """Redis takes its time to answer, so that the record says RUNNING long before the node knows."""
    node = start_node(changes=BEGINS_SLOWLY)
    server.create("O", "once", '{"seconds": 0}')
    server.wait_for_state("O", "RUNNING")
    assert node.terminate() == 0
    assert server.state("O") == "SUCCESS"
    assert server.deliveries("O") == 0
    node = start_node("--grace", "0", changes=BEGINS_SLOWLY)
    server.create("F", "forever")
    server.wait_for_state("F", "RUNNING")
    assert node.terminate() == 0, "it was not cut short"
    assert server.state("F") == "WAIT"
    assert server.deliveries("F") == 0


def test_a_task_ends_within_the_grace(server, start_node):
    node = start_node("--grace", "30")
    server.create("S", "sleep", '{"seconds": 1}')
    server.wait_for_state("S", "RUNNING")
    assert node.terminate() == 0
    assert server.state("S") == "SUCCESS"
