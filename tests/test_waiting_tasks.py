"""Tasks that wait for other tasks: they give their place up meanwhile, so that no node can lock itself up."""

from __future__ import annotations

import pytest
from conftest import wait_until

DEEP = 5


@pytest.fixture
def node(start_node):
    def start(concurrency):
        return start_node(app="waitapp:app", concurrency=str(concurrency))

    return start


def test_a_task_waits_for_one_that_runs_on_the_only_place_of_its_node(app, node):
    node(1)
    assert app.helpers.start_task("parent").get(timeout=20) == 2


def test_they_may_wait_for_each_other_many_generations_deep(app, node):
    node(1)
    assert app.helpers.start_task("parent", depth=DEEP).get(timeout=30) == DEEP + 1


def test_fifty_parents_and_their_children_share_ten_places(app, node):
    node(10)
    handles = app.helpers.start_tasks([("parent", {"seconds": 0.05})] * 50)
    assert app.helpers.wait_all(handles, timeout=40) == [2] * 50


def test_every_way_to_wait_gives_the_place_up(app, node):
    node(1)
    assert app.helpers.start_task("family", children=5).get(timeout=40) == [10, 10, 10, "success"]


def test_a_parent_is_told_how_its_child_failed(app, node):
    node(1)
    assert app.helpers.start_task("forgiving").get(timeout=20) == ["ERROR", "no luck"]


def test_places_that_were_lent_are_counted_right_afterwards(app, node):
    node(3)
    helpers = app.helpers
    helpers.wait_all(helpers.start_tasks([("parent", {"seconds": 0.01})] * 20), timeout=30)
    most = max(helpers.wait_all(helpers.start_tasks([("crowd",)] * 60), timeout=30))
    assert most == 3


@pytest.mark.parametrize("how", ["timeout", "gevent", "kill"])
def test_a_task_that_gives_up_waiting_has_its_place_again(server, app, events, node, how):
    node(1)
    app.helpers.set_task("never", task="nobody")
    app.helpers.start_task("impatient", how=how, task_id="first")
    events.wait_for("first", "goes-on")
    app.helpers.start_task("child", task_id="second")
    wait_until(lambda: server.redis.llen("new-task") == 1, "the second one waits, the place is taken")
    app.helpers.stop_task("first")
    assert app.helpers.handle("second").get(timeout=20) == 1


def test_a_task_that_waits_can_be_stopped_and_leaves_no_subscription(server, app, events, node):
    node(1)
    app.helpers.set_task("never", task="nobody")
    handle = app.helpers.start_task("impatient", how="stop")
    channel = "task-never"
    wait_until(lambda: server.redis.pubsub_numsub(channel)[0][1] == 1, "it waits")
    handle.stop()
    server.wait_for_state(handle, "STOPPED")
    wait_until(lambda: server.redis.pubsub_numsub(channel)[0][1] == 0, "nobody listens")
    assert app.helpers.start_task("child").get(timeout=20) == 1


def test_a_task_that_waits_is_put_back_when_its_node_ends(server, app, start_node):
    node = start_node("--grace", "0.2", app="waitapp:app", concurrency="1")
    app.helpers.set_task("never", task="nobody")
    handle = app.helpers.start_task("impatient", how="stop")
    wait_until(lambda: server.redis.pubsub_numsub("task-never")[0][1] == 1, "it waits")
    node.terminate()
    assert handle.state() == "WAIT"
    assert app.helpers.get_new_task_ids() == [handle]
