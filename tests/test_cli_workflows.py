"""The commands for workflows, from outside."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from commands import objects
from conftest import ON_ONE_SERVER, wait_until
from terminal import Terminal

from pytask import group

SPEC = {"title": "T", "stages": [[{"task": "echo", "data": {"n": 1}}], [{"task": "noop", "name": "last"}]]}


def test_a_workflow_is_started_out_of_a_file(cli, server, tmp_path):
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(SPEC))
    made = cli("workflow", "start", str(file), "--queue", "steps", "--title", "Other").stdout.strip()
    assert json.loads(server.field(made, "data")) == {**SPEC, "title": "Other"}
    assert server.redis.lrange("new-task:steps", 0, -1) == [made.encode()]


def test_a_workflow_is_started_and_watched_out_of_standard_input(cli, start_node):
    start_node()
    ran = cli("workflow", "start", "-", "--id", "w", "--watch", "--json", stdin=json.dumps(SPEC))
    told = objects(ran)
    assert told[0] == {"id": "w"}
    assert told[-1]["event"] == "success"
    assert told[-1]["data"] == [None]
    assert cli("workflow", "watch", "w", "--json").stdout.count('"success"') == 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "the spec is not JSON"),
        ("[]", "the spec is not a JSON object"),
        ("{}", "a workflow has stages, or tasks"),
        ('{"stages": [[{"task": "a", "timout": 5}]]}', "did you mean timeout?"),
        ('{"tasks": [{"task": "a", "after": "1"}, {"task": "a", "after": "0"}]}', "in a circle: 0 -> 1 -> 0"),
    ],
)  # fmt: skip
def test_a_spec_that_is_no_good_is_a_usage_error_with_the_reason(cli, server, spec, words):
    assert words in cli("workflow", "start", "-", stdin=spec, status=2).stderr
    assert server.redis.dbsize() == 0


def test_an_id_that_is_taken_is_refused(cli, app):
    app.start_workflow([["noop"]], workflow_id="w")
    assert (
        "the id 'w' is taken"
        in cli("workflow", "start", "-", "--id", "w", stdin=json.dumps(SPEC), status=1).stderr
    )


def test_the_list_has_a_row_a_workflow_and_pages(cli, app, start_node):
    start_node()
    app.start_workflow([["noop", "fail"], ["noop"]], workflow_id="bad", title="Bad \x1b[1m").wait(20)
    app.start_workflow([["loop"], ["noop"]], workflow_id="runs")
    wait_until(lambda: app.helpers.get_workflow_state("runs") == "RUNNING")
    head, first, second = cli("workflows").stdout.splitlines()
    assert head.split() == ["id", "state", "done", "failed", "since", "title"]
    assert first.split()[:3] == ["runs", "RUNNING", "0/2"]
    assert second.split()[:4] == ["bad", "ERROR", "3/3", "1"]
    assert second.endswith("Bad \\x1b[1m")
    assert [row["id"] for row in objects(cli("workflow", "list", "--json", "--page", "2", "--limit", "1"))] == [
        "bad"
    ]
    assert "2 workflows in all: --page 2" in cli("workflow", "list", "--limit", "1").stderr


def test_get_shows_how_it_stands_and_waits_for_its_end(cli, app, start_node):
    app.start_workflow([["noop", "fail"], ["noop"]], workflow_id="w", title="T")
    assert objects(cli("workflow", "get", "w", "--json"))[0]["state"] == "WAIT"
    late = cli("workflow", "get", "w", "--wait", "--timeout", "0.1", status=4)
    assert "workflow 'w' has not ended within 0.1 s; it goes on" in late.stderr
    start_node()
    lines = cli("workflow", "get", "w", "--wait", status=1).stdout.splitlines()
    assert lines[:4] == [
        "id          w",
        "title       T",
        "state       ERROR",
        "tasks       3 of 3 have ended, 1 failed",
    ]
    assert lines[-1] == "output      1 of 3 tasks failed: 1 (ERROR)"
    assert cli("workflow", "get", "w").stdout.splitlines()[:5] == lines[:5]


def test_tasks_are_listed_in_order_and_in_pages(cli, app, start_node):
    start_node()
    app.start_workflow(
        [[group(["noop"], title="Inner")], [{"task": "noop", "name": "last"}]], workflow_id="w"
    ).wait(20)
    lines = cli("workflow", "tasks", "w").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["name", "state", "task", "title"],
        ["0", "SUCCESS", "pytask/workflow", "Inner"],
        ["last", "SUCCESS", "noop"],
    ]
    (row,) = objects(cli("workflow", "tasks", "w", "--json", "--page", "2", "--limit", "1"))
    assert row == {"name": "last", "id": "w:last", "task": "noop", "title": None, "state": "SUCCESS"}


def test_stop_and_delete(cli, app, server, start_node):
    start_node()
    handle = app.start_workflow([["loop"], ["noop"]], workflow_id="w")
    server.wait_for_state("w:0", "RUNNING")
    assert "stop it first, or force it" in cli("workflow", "delete", "w", status=1).stderr
    assert cli("workflow", "stop", "w").stdout == "w told to stop\n"
    assert handle.wait(20) == "STOPPED"
    assert objects(cli("workflow", "stop", "w", "--json")) == [{"id": "w", "result": "has ended already"}]
    assert cli("workflow", "delete", "w").stdout == "w removed\n"
    app.start_workflow([["loop"]], workflow_id="x")
    server.wait_for_state("x:0", "RUNNING")
    assert objects(cli("workflow", "delete", "x", "--force", "--json")) == [{"id": "x", "result": "removed"}]
    assert app.helpers.count_workflows() == 0


@pytest.mark.parametrize("command", ["get", "tasks", "stop", "delete", "watch"])
def test_a_workflow_that_is_not_there_is_told(cli, command):
    told = cli("workflow", command, "nobody", status=1).stderr
    assert "workflow" in told
    assert "'nobody'" in told
    assert "task" not in told.replace("pytask", "")


@pytest.mark.parametrize("command", ["get", "tasks", "delete"])
def test_a_task_that_is_no_workflow_is_none(cli, app, server, command):
    app.helpers.start_task("noop", task_id="plain")
    assert "plain" in cli("workflow", command, "plain", status=1).stderr
    assert server.redis.exists("task-plain")


@ON_ONE_SERVER
def test_a_terminal_shows_a_bar_while_a_workflow_is_waited_for(app, server, start_node):
    start_node()
    app.start_workflow([[("sleep", {"seconds": 0.1 * n}) for n in range(30)]], workflow_id="w")
    command = [sys.executable, "-m", "pytask", "workflow", "get", "w", "--wait", "-u", server.url]
    with contextlib.closing(Terminal(command)) as terminal:
        terminal.wait_for(" of 30")
        terminal.wait_for("30 of 30 have ended")
