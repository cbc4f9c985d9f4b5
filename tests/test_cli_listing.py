"""The commands that list tasks and nodes, from outside."""

from __future__ import annotations

import contextlib
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
