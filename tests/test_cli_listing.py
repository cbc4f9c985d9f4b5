"""The commands that list tasks and nodes, from outside."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from commands import objects
from conftest import wait_until
from terminal import Terminal

from pytask.cli.tables import lines_of


def test_list_shows_a_row_a_task_in_pages(cli, app, server):
    app.helpers.start_task("noop", task_id="a", title="T \x1b[1m")
    app.helpers.start_task("other", task_id="b", queue="mail")
    server.redis.lpush("new-task", "gone")
    head, first, gone, second = cli("list").stdout.splitlines()
    assert head.split() == ["id", "state", "task", "queue", "since", "title"]
    assert first.split()[:4] == ["a", "WAIT", "noop", "default"]
    assert first.endswith("s ago  T \\x1b[1m")
    assert gone.split() == ["gone", "(no", "record)", "default"]
    assert second.split()[:4] == ["b", "WAIT", "other", "mail"]
    assert [row["id"] for row in objects(cli("list", "--json", "--page", "2", "--limit", "2"))] == ["b"]
    assert "3 tasks in all: --page 2 shows the next ones" in cli("list", "--limit", "1").stderr
    assert [row["id"] for row in objects(cli("list", "--json", "-q", "mail", "--state", "wait"))] == ["b"]
    assert [row["id"] for row in objects(cli("list", "--json", "--name", "noop"))] == ["a"]
    assert cli("list", "--state", "success", "--state", "ERROR").stdout.splitlines() == [
        "id  state  task  queue  since  title"
    ]


@pytest.mark.parametrize(
    "arguments", [("--page", "0"), ("--limit", "0"), ("--limit", "1000000"), ("--state", "done"), ("-q", "mial")]
)
def test_what_is_said_wrongly_is_a_usage_error(cli, arguments):
    assert cli("list", *arguments, status=2).stderr


def test_nodes_shows_what_each_says_of_itself(cli, start_node):
    assert cli("nodes").stdout.split() == ["id", "running", "queues", "host", "pid", "since"]
    node = start_node("-q", "crawl", "-q", "mail", "-c", "7", "-n", "front")
    rows = wait_until(lambda: objects(cli("nodes", "--json")))
    (row,) = [row for row in rows if row["id"] == node.node_id]
    assert (row["queues"], row["running"], row["concurrency"]) == (["crawl", "mail"], 0, 7)
    assert row["pid"] == node.pid
    assert row["started"] > 1e9
    assert "noop" in row["tasks"]
    _, line = cli("nodes").stdout.splitlines()
    assert line.startswith("front:")
    assert line.split()[1:3] == ["0/7", "crawl,mail"]


def test_nodes_names_one_whose_record_is_gone(cli, server):
    server.redis.hset("{new-task:mail}:nodes", "N\x1b", 5)
    assert cli("nodes").stdout.splitlines()[1].split()[:3] == ["N\\x1b", "(no", "record)"]
    server.redis.hset("node-N\x1b", mapping={"running": "many", "pid": "x", "started": "1e999", "host": "\x1b"})
    assert cli("nodes").stdout.splitlines()[1].split() == ["N\\x1b", "many/", "\\x1b", "x"]
    assert objects(cli("nodes", "--json"))[0]["pid"] == "x"


def test_a_narrow_terminal_shows_a_row_in_two_lines(server, app):
    app.helpers.start_task("noop", task_id="x" * 32, title="A title that is rather long")
    with contextlib.closing(
        Terminal([sys.executable, "-m", "pytask", "list", "-u", server.url], columns=40)
    ) as seen:
        assert seen.wait() == 0
        lines = [line.rstrip() for line in seen.text.splitlines() if line.strip()]
    assert lines[2] == "x" * 32
    assert lines[3].startswith("  WAIT   noop  default  ")
    assert lines[3].endswith("...")
    assert all(len(line) <= 40 for line in lines)


def test_a_table_is_cut_to_the_terminal_and_never_for_a_pipe():
    rows = [("id", "what"), ("abc", "word")]
    assert list(lines_of(rows)) == list(lines_of(rows, 9)) == ["id   what", "abc  word"]
    assert list(lines_of(rows, 5)) == ["id", "  ...", "abc", "  ..."]


def test_logs_shows_what_a_task_has_logged(cli, server, app):
    lines = [
        {"level": "INFO", "logger": "shop", "message": "one\nand a \x1b[1m half", "time": 1795287939.007},
        {"level": "WARNING", "logger": "shop", "message": "two", "time": 1795287940},
    ]
    server.redis.hset("task-x", "task", "noop")
    for line in lines:
        server.redis.xadd("{task-x}:events", {"event": json.dumps({"event": "log", "data": line})})
    for strange in ("5", '{"message": 5}', '{"level": "INFO"}'):
        server.redis.xadd("{task-x}:events", {"event": f'{{"event": "log", "data": {strange}}}'})
    server.redis.xadd("{task-x}:events", {"event": '{"event": "log", "data": {"message": "three", "time": "x"}}'})
    first, rest, second, third = cli("logs", "x").stdout.splitlines()
    assert first.endswith(".007 INFO     shop: one")
    assert rest == "    and a \\x1b[1m half"
    assert second.endswith(".000 WARNING  shop: two")
    assert third == "--:--:--.---          : three"
    bare = {"time": None, "level": "", "logger": "", "message": "three"}
    assert objects(cli("logs", "x", "--json")) == app.helpers.get_logs("x") == [*lines, bare]


def test_logs_of_a_task_that_is_not_there_are_an_error_and_of_one_that_said_nothing_none(cli, server):
    assert "there is no task with the id 'x'" in cli("logs", "x", status=1).stderr
    server.redis.hset("task-x", "task", "noop")
    assert cli("logs", "x").stdout == ""
