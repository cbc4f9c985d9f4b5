"""Burst mode: a node that ends by itself when its queues are empty and its tasks have ended."""

from __future__ import annotations

import os
import signal
import time

import pytest
from conftest import ON_ONE_SERVER, wait_until


def states(server, ids):
    return {server.state(task_id) for task_id in ids}


def test_it_ends_clean_when_all_that_may_run_now_has_run(server, app, start_node):
    helpers = app.helpers
    short = helpers.start_tasks([("sleep", {"seconds": 0.01})] * 300)
    long = helpers.start_task("sleep", seconds=1)
    again = helpers.start_task("fail", retries=2, retry_delay=0, retry_on="Task.Error")
    other = helpers.start_task("noop", queue="other")
    later = helpers.start_task("noop", delay=600)
    failed = helpers.start_task("fail", retries=1, retry_delay=600, retry_on="Task.Error")
    elsewhere = helpers.start_task("noop", queue="elsewhere")
    node = start_node("--burst", "-q", "default", "-q", "other", ready=False)
    assert node.wait() == 0, node.text()
    assert states(server, [*short, long, other]) == {"SUCCESS"}
    assert (server.state(again), server.field(again, "attempt")) == ("ERROR", "3")
    assert (server.state(later), server.state(failed), server.state(elsewhere)) == ("SCHEDULED", "RETRY", "WAIT")
    assert server.redis.hlen("{new-task}:nodes") == 0
    assert "the queues are empty and all tasks have ended" in node.text()


def test_a_task_that_makes_tasks_and_a_workflow_hold_it(server, app, start_node):
    workflow = app.start_workflow([["noop"] * 5, [("sleep", {"seconds": 0.1})], ["gather"]])
    node = start_node("--burst", ready=False)
    assert node.wait() == 0
    assert workflow.state() == "SUCCESS"


def test_what_is_due_when_it_starts_holds_it_and_a_paused_queue_does_not(server, app, start_node):
    due = app.helpers.start_task("sleep", seconds=0.1, delay=0.5)
    first = start_node("--burst", ready=False)
    assert first.wait() == 0
    wait_until(lambda: time.time() > float(server.redis.zscore("{new-task}:due", due) or 0), "it is due")
    app.helpers.pause_queue("held")
    held = app.helpers.start_task("noop", queue="held")
    assert start_node("--burst", "-q", "default", "-q", "held", ready=False).wait() == 0
    assert (server.state(due), server.state(held)) == ("SUCCESS", "WAIT")


@ON_ONE_SERVER
def test_what_goes_on_for_ever_does_not_hold_it_and_goes_back(server, app, start_node):
    forever = app.helpers.start_task("forever")
    sleeps = app.helpers.start_task("sleep", seconds=0.5)
    assert start_node("--burst", ready=False).wait() == 0
    assert (server.state(forever), server.state(sleeps)) == ("WAIT", "SUCCESS")
    assert server.redis.lrange("new-task", 0, -1) == [forever.encode()]


@ON_ONE_SERVER
def test_a_task_that_comes_at_the_last_moment_is_not_left_behind(server, app, start_node):
    node = start_node("--burst", app="burstapp:app", ready=False)
    assert node.wait() == 0, node.text()
    assert server.state("late") == "SUCCESS"


@ON_ONE_SERVER
def test_a_signal_ends_it_before(server, app, start_node):
    app.helpers.start_task("loop", task_id="on")
    node = start_node("--burst", "--grace", "0.1")
    server.wait_for_state("on", "RUNNING")
    assert node.terminate() in (0, 1)
    assert server.state("on") == "WAIT"


@pytest.mark.parametrize("killed", [False, True])
def test_a_parent_ends_when_all_its_nodes_have_and_replaces_one_that_dies(killed, server, app, start_node):
    tasks = app.helpers.start_tasks([("sleep", {"seconds": 2})] * 20)
    parent = start_node("--burst", "-p", "2", "--concurrency", "5", ready=False)
    victim = wait_until(lambda: server.field(tasks[0], "node"), "the first one runs").split(":")[1]
    if killed:
        os.kill(int(victim), signal.SIGKILL)
    assert parent.wait() == 0, parent.text()
    assert states(server, tasks) == {"SUCCESS"}
    assert parent.text().count("died (") == int(killed)


@ON_ONE_SERVER
def test_what_a_node_has_claimed_that_dies_at_once_is_put_back_by_its_parent(server, app, start_node):
    tasks = app.helpers.start_tasks([("noop",)] * 5)
    parent = start_node("--burst", "-p", "2", app="firstapp:app", ready=False, node_timeout="600")
    assert parent.wait() == 0, parent.text()
    assert server.redis.get("died")
    assert states(server, tasks) == {"SUCCESS"}
