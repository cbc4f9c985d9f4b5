"""The heartbeat: when it comes oftener, and how a node that is blocked for too long ends."""

from __future__ import annotations

import time

import pytest
from conftest import ON_ONE_SERVER, wait_until

pytestmark = [pytest.mark.alone, ON_ONE_SERVER]


def sequence(server, node) -> int:
    return int(server.redis.hget("{new-task}:nodes", node.node_id) or -1)


def cut(server, node, role: str = "pytask:control") -> None:
    """End the connections of a node that have this name."""
    pid_of = {client["id"]: client for client in server.redis.client_list() if client["name"] == role}
    for number in pid_of:
        server.redis.client_kill_filter(_id=number)


def test_a_node_whose_subscription_is_down_beats_oftener_and_is_not_taken_for_dead(server, start_node):
    node = start_node()
    other = start_node()
    wait_until(lambda: sequence(server, node) >= 3, "it has been seen")
    first, began = sequence(server, node), time.monotonic()

    def has_beaten_8_times() -> bool:
        cut(server, node)
        return sequence(server, node) >= first + 8

    wait_until(has_beaten_8_times, "it beats oftener")
    assert time.monotonic() - began < 10  # at the usual pace it would take 16
    assert "is dead" not in node.text() + other.text()
    server.create("T", "noop")
    server.wait_for_state("T", "SUCCESS")


def test_a_node_that_is_blocked_while_its_subscription_is_cut_is_not_taken_for_dead(server, start_node):
    node = start_node()
    server.create("B", "block", '{"seconds": 6}')
    server.wait_for_state("B", "RUNNING")
    other = start_node()
    cut(server, node)
    server.wait_for_state("B", "SUCCESS")
    assert server.deliveries("B") == 0
    assert "is dead" not in other.text()


def test_a_node_that_is_blocked_for_too_long_gives_its_tasks_back_and_blames_the_culprit_alone(server, start_node):
    first = start_node(block_warning="0.5", block_timeout="2")
    server.create("culprit", "block-when-told")
    for number in range(5):
        server.create(f"innocent-{number}", "sleep", '{"seconds": 600}')
    ids = ["culprit", *(f"innocent-{number}" for number in range(5))]
    wait_until(lambda: all(server.state(task_id) == "RUNNING" for task_id in ids), "all run on the first node")
    other = start_node()
    server.redis.set("block-now", 1)
    assert first.wait(30) == 70

    def claimed() -> dict[bytes, bytes]:
        return server.redis.hgetall("{new-task}:of:" + other.node_id)

    wait_until(lambda: len(claimed()) == len(ids), "the other node takes them")
    lost = {task_id.decode(): value.split()[1] for task_id, value in claimed().items()}
    assert lost.pop("culprit") == b"2"
    assert set(lost.values()) == {b"1"}
    assert "by task 'block-when-told' (id 'culprit') (block_timeout): this node ends itself" in first.text()
    assert "is dead" not in other.text(), "no Monitor had to do it"
