"""Deleting tasks that have ended, and those that have not, by force."""

from __future__ import annotations

import pytest
from commands import run
from conftest import wait_until

from pytask import conducting, deleting
from pytask.errors import InvalidInputError, TaskStateError


@pytest.fixture
def helpers(app):
    return app.helpers


def end(server, task_id, state="SUCCESS", **fields):
    """A task that has ended, made with raw commands."""
    server.redis.hset(f"task-{task_id}", mapping={"task": "noop", "state": state, **fields})
    server.redis.xadd(f"{{task-{task_id}}}:events", {"event": "x"})
    server.redis.zadd("{new-task:mail}:ended", {task_id: 1})


@pytest.mark.parametrize("state", ["SUCCESS", "ERROR", "STOPPED", "SKIPPED"])
def test_a_task_that_has_ended_is_removed_and_nothing_of_it_is_left(helpers, server, state):
    end(server, "a", state, at="new-task:mail")
    end(server, "b", state, queue="mail")
    assert helpers.delete_task("a") is True
    assert helpers.delete_task(b"b") is True
    assert server.redis.keys() == []
    assert helpers.delete_task("a") is False


@pytest.mark.parametrize("state", ["", "WAIT", "RUNNING", "SCHEDULED", "RETRY", "HELD", "what"])
def test_one_that_has_not_ended_is_refused_and_stays(helpers, server, state):
    end(server, "a", state)
    before = server.redis.dump("task-a")
    with pytest.raises(TaskStateError, match=f"task 'a' is {state or 'WAIT'}: stop it first, or force it"):
        helpers.delete_task("a")
    assert server.redis.dump("task-a") == before
    assert server.redis.exists("{task-a}:events")


def test_by_force_one_that_runs_or_waits_is_stopped_first(helpers, server, start_node, events):
    start_node()
    helpers.start_task("loop", task_id="runs")
    helpers.start_task("noop", task_id="later", delay=3600)
    server.wait_for_state("runs", "RUNNING")
    server.wait_for_state("later", "SCHEDULED")
    for task_id in ("runs", "later"):
        assert helpers.delete_task(task_id, force=True) is True
        events.wait_for(task_id, "stopped")
    wait_until(lambda: helpers.count_tasks() == 0)
    assert not server.redis.keys("*runs*")


def test_by_force_what_waits_leaves_its_queue_where_no_node_lives(app, helpers, server, monkeypatch):
    """Else a node would look for the record until it held the id for dead, and lists would show it."""
    for module in (deleting, conducting):
        monkeypatch.setattr(module, "FORCED_WAIT", 0.1)
    helpers.start_task("noop", task_id="waits", queue="mail")
    helpers.start_task("noop", task_id="due")
    server.redis.lrem("new-task", 0, "due")
    server.redis.zadd("{new-task}:due", {"due": 9e9})
    app.start_workflow([["noop"]], workflow_id="w", queue="mail")
    helpers.start_task("noop", task_id="other", queue="mail")
    for task_id in ("waits", "due", "w"):
        assert helpers.delete_task(task_id, force=True) is True
    assert [row["id"] for row in helpers.list_tasks()] == ["other"]
    assert helpers.count_tasks() == 1


def test_a_task_of_a_workflow_that_goes_on_is_needed(app, helpers, server, start_node):
    start_node()
    app.start_workflow([["noop", "loop"], ["noop"]], workflow_id="w")
    server.wait_for_state("w:0", "SUCCESS")
    with pytest.raises(TaskStateError, match="task 'w:0' belongs to the workflow 'w', which is RUNNING"):
        helpers.delete_task("w:0")
    with pytest.raises(TaskStateError, match="the workflow 'w' is RUNNING"):
        helpers.delete_task("w")
    assert helpers.delete_task("w:0", force=True) is True
    helpers.stop_task("w")
    assert app.helpers.wait_for_workflow("w", 20) == "STOPPED"
    assert helpers.delete_task("w:1") is True
    assert helpers.delete_task("w") is True
    assert not server.redis.keys("*w:*")


def test_a_field_workflow_of_any_content_does_not_keep_a_task(helpers, server):
    helpers.start_workflow([["noop"]], workflow_id="w")
    end(server, "a", workflow="w")
    assert helpers.delete_task("a") is True


@pytest.mark.parametrize("task_id", ["", "x" * 513, "x-control", 5, None])
def test_what_is_no_id_is_refused(helpers, task_id):
    with pytest.raises(InvalidInputError):
        helpers.delete_task(task_id)


def test_the_command_removes_what_has_ended_and_says_what_it_did_not(server, helpers):
    end(server, "a")
    end(server, "b")
    helpers.start_task("noop", task_id="waits")
    ran = run("delete", "a", "waits", "nobody", "-u", server.url)
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == ["a removed", "waits refused", "nobody not found"]
    assert ran.stderr == "pytask: task 'waits' is WAIT: stop it first, or force it\n"
    ran = run("delete", "b", "--json", "-u", server.url)
    assert (ran.returncode, ran.stdout) == (0, '{"id": "b", "result": "removed"}\n')
    assert run("delete", "-u", server.url).returncode == 2
