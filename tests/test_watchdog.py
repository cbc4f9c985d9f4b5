"""A node that takes no tasks although there are some notices it, says so, and gets on."""

from __future__ import annotations

import json

import pytest
import redis
from conftest import ON_ONE_SERVER, Events, wait_until

pytestmark = [pytest.mark.alone, ON_ONE_SERVER]


def test_a_node_whose_blocking_move_never_ends_says_so_and_begins_its_intake_again(server, start_node):
    node = start_node(node_timeout="2")  # so that a move takes a second, and three are soon over
    of_nodes = Events(redis.Redis.from_url(server.url), "node-*")
    server.create("C", "clog")
    wait_until(lambda: server.redis.get("clogged"), "its intake hangs")
    server.create("T", "noop")
    wait_until(lambda: (of_nodes.read(), of_nodes.seen)[1], "it says so")
    channel, message = of_nodes.seen[0]
    of_nodes.close()
    assert channel.decode() == f"node-{node.node_id}"
    event = json.loads(message)
    assert event["event"] == "stalled"
    assert event["data"].pop("seconds") >= 3
    assert event["data"] == {"queue": "default", "waiting": 1, "reason": "it waits for its blocking move"}
    server.wait_for_state("T", "SUCCESS")
    assert "queue default: 1 ids wait, this node has room and took none for" in node.text()


def test_a_node_without_room_is_not_taken_for_stalled(server, start_node):
    node = start_node("-c", "1", node_timeout="2")
    server.create("S", "sleep", '{"seconds": 8}')
    server.wait_for_state("S", "RUNNING")
    server.create("T", "noop")
    server.wait_for_state("T", "SUCCESS")
    assert "took none" not in node.text()
