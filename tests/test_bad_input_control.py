"""Bad input: control messages that are garbage, or reach tasks in odd moments."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conftest import Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row

GARBAGE = {
    "binary": b"\xff\x00\x1b[31m",
    "huge": b"x" * 20_000_000,
    "JSON": json.dumps(["stop"]).encode(),
    "array": b"[" * 5_000,
    "empty": b"",
    "STOP": b"STOP",
    "stop-newline": b"stop\n",
    "spaces": b" stop",
    "quoted": b'"stop"',
    "stopped": b"stopped",
    "kill": b"kill",
}


IGNORED = "id 'L': the control message"


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)


@row("a control message that is neither `stop` nor `reload` nor a JSON object: binary, 20 MB, JSON, empty, `STOP`")
def test_a_control_message_that_is_garbage_is_told_and_ignored(attack):
    attack.start()
    attack.create("L", "loop")
    attack.events.wait_for("L", "turn")
    for number, message in enumerate(GARBAGE.values(), 1):
        attack.control("L", message)
        wait_until(lambda number=number: attack.node.text().count(IGNORED) == number, f"{message[:20]!r} is told")
        attack.events.seen.clear()
        attack.events.wait_for("L", "turn")
    assert attack.server.state("L") == "RUNNING"
    assert max(map(len, attack.lines())) < 500
    attack.stop("L")


@row("control messages of 20 MB, so many that the server cuts the subscriber off")
def test_a_node_that_was_cut_off_by_huge_messages_listens_again(attack):
    attack.events.close()
    attack.start()
    attack.create("L", "loop")
    attack.server.wait_for_state("L", "RUNNING")
    for _ in range(10):
        attack.control("L", GARBAGE["huge"])
    attack.check_innocents()
    wait_until(lambda: attack.server.redis.publish("task-L-control", "stop"), "somebody listens")
    wait_until(lambda: stopped(attack, "L"), "it is stopped")


def stopped(attack: Attack, task_id: str) -> bool:
    """Tell it to stop again and again, as the node may be subscribing right now."""
    attack.control(task_id, "stop")
    return attack.server.state(task_id) == "STOPPED"


@row("a control message for an id that no node runs, or on a channel without an id")
def test_a_control_message_for_nobody_is_ignored(attack):
    attack.start()
    for task_id in ("nobody", "", "-", b"\xff", "*", "x" * 10_000, "L-control"):
        for message in ("stop", "reload", "garbage"):
            attack.control(task_id, message)
    attack.server.redis.publish("task-control", "stop")
    attack.create("L", "loop")
    attack.events.wait_for("L", "turn")
    assert "control message" not in attack.node.text()
    attack.stop("L")


@row("a thousand control messages at once")
def test_a_thousand_stops_and_reloads_end_a_task_once(attack):
    attack.start()
    attack.create("L", "loop")
    attack.events.wait_for("L", "turn")
    pipe = attack.server.redis.pipeline(transaction=False)
    for _ in range(500):
        pipe.publish("task-L-control", "reload")
        pipe.publish("task-L-control", "stop")
    pipe.execute()
    attack.events.wait_for("L", "stopped")
    attack.check_innocents()
    attack.server.wait_until_idle()
    assert attack.server.state("L") == "STOPPED"
    assert attack.events.names("L").count("stopped") == 1


@row("a garbage control message for a node's own Monitor or Cleanup")
def test_a_local_task_ignores_garbage(attack):
    attack.start()
    for name in ("pytask/monitor", "pytask/cleanup"):
        task_id = f"{name}@{attack.node.node_id}"
        for message in (b"STOP", b"", b"\xff\n\x1b[31m", b'{"stop": true}', b"x" * 1_000_000):
            attack.control(task_id, message)
        wait_until(lambda task_id=task_id: attack.node.text().count(f"local task {task_id}: control message") == 5)
    attack.create("E", "echo")
    attack.ends("E", "SUCCESS")
    wait_until(lambda: attack.server.redis.ttl("task-E") > 3000, "Cleanup still works")
