"""Tasks that may start only once: whatever happens to their nodes, there is no second start."""

from __future__ import annotations

import pytest
from conftest import ON_ONE_SERVER, wait_until

DIED = "its node died while it ran, and it may start only once (rescheduling is false)"
CUT = "its node ended while it ran, and it may start only once (rescheduling is false)"


def starts(server, task_id: str) -> int:
    return server.redis.llen(f"runs:{task_id}")


@ON_ONE_SERVER
@pytest.mark.parametrize("how", ["class", "field", "helper"])
def test_a_task_that_may_start_only_once_is_lost_with_its_node(server, start_node, app, events, how):
    node = start_node()
    if how == "helper":
        app.helpers.start_task("sleep", {"seconds": 600}, task_id="T", rescheduling=False)
    elif how == "field":
        server.create("T", "sleep", '{"seconds": 600}', rescheduling="false")
    else:
        server.create("T", "once", '{"seconds": 600}')
    server.create("other", "sleep", '{"seconds": 600}')
    wait_until(lambda: starts(server, "T") and starts(server, "other"))
    node.kill()
    start_node(node_timeout="2")
    server.wait_for_state("T", "LOST", deadline=30)
    assert server.field("T", "output") == DIED
    assert events.wait_for("T", "lost")["data"] == DIED
    assert server.field("T", "deliveries") == "1"
    wait_until(lambda: starts(server, "other") == 2, "the other one starts again")
    assert starts(server, "T") == 1


@ON_ONE_SERVER
def test_a_producer_may_allow_what_the_class_does_not(server, start_node, app):
    node = start_node()
    app.helpers.start_tasks([{"task": "once", "data": {"seconds": 600}, "task_id": "T", "rescheduling": True}])
    wait_until(lambda: starts(server, "T"))
    node.kill()
    start_node(node_timeout="2")
    wait_until(lambda: starts(server, "T") == 2, "it starts again", 30)


def test_a_task_that_may_start_only_once_is_lost_when_its_node_ends_and_waits_where_it_had_not_begun(
    server, start_node
):
    node = start_node("--grace", "0", "-c", "1")
    server.create("T", "once", '{"seconds": 600}')
    wait_until(lambda: starts(server, "T"))
    server.create("later", "once", '{"seconds": 0}')
    assert node.terminate() == 1
    assert (server.state("T"), server.field("T", "output")) == ("LOST", CUT)
    assert server.redis.lrange("end-task", 0, -1) == [b"T"] or server.redis.ttl("task-T") > 0
    start_node()
    server.wait_for_state("later", "SUCCESS")
    assert starts(server, "T") == starts(server, "later") == 1


def test_within_the_grace_it_may_end_by_itself(server, start_node):
    node = start_node("--grace", "20")
    server.create("T", "once", '{"seconds": 2}')
    wait_until(lambda: starts(server, "T"))
    assert node.terminate() == 0
    assert server.state("T") == "SUCCESS"


def test_one_that_never_ends_does_not_make_the_end_of_its_node_wait(server, start_node):
    node = start_node("--grace", "600")
    server.create("T", "once-forever", '{"seconds": 600}')
    wait_until(lambda: starts(server, "T"))
    assert node.terminate() == 0
    assert (server.state("T"), server.field("T", "output")) == ("LOST", CUT)


def test_a_restart_that_somebody_asks_for_starts_it_again(server, start_node, app):
    start_node()
    server.create("T", "once", '{"seconds": 0}')
    server.wait_for_state("T", "SUCCESS")
    app.helpers.restart_task("T")
    wait_until(lambda: starts(server, "T") == 2)
    server.wait_for_state("T", "SUCCESS")
