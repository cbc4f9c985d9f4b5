"""The commands for queues, and for many tasks, from outside."""

from __future__ import annotations

import contextlib
import sys
import time

import pytest
from commands import objects
from conftest import wait_until
from terminal import Terminal

from pytask.cli.queues import table


@pytest.fixture
def helpers(app):
    return app.helpers


def test_queues_lists_each_with_its_figures(cli, server, helpers):
    helpers.start_tasks([("noop",)] * 3, queue="mail")
    server.redis.hset("{new-task:mail}:counts", "SUCCESS", 7)
    server.redis.set("{new-task:crawl}:paused", f"{time.time() - 100:.0f}")
    ran = cli("queues")
    head, default, crawl, mail = ran.stdout.splitlines()
    assert head.split() == ["queue", "waiting", "running", "due", "dead", "nodes", "ended"]
    assert crawl.split()[:7] == ["crawl", "0", "0", "0", "0", "0", "0"]
    assert "paused for 10" in crawl
    assert default.split() == ["default", "0", "0", "0", "0", "0", "0"]
    assert mail.split() == ["mail", "3", "0", "0", "0", "0", "7"]
    rows = objects(cli("queues", "--json"))
    assert [(row["queue"], row["waiting"], row["ended"]) for row in rows] == [
        ("default", 0, {}),
        ("crawl", 0, {}),
        ("mail", 3, {"SUCCESS": 7}),
    ]


def test_a_queue_that_is_no_list_is_told_and_the_others_are_listed(cli, server):
    server.redis.set("new-task:text", "text")
    server.redis.lpush("new-task", "a")
    ran = cli("queues", status=1)
    assert "queue text cannot be read: " in ran.stderr
    assert "default        1" in ran.stdout


def test_pause_and_resume(cli, server):
    assert objects(cli("pause", "mail", "default", "--json")) == [
        {"queue": "mail", "result": "paused"},
        {"queue": "default", "result": "paused"},
    ]
    assert server.redis.exists("{new-task:mail}:paused", "{new-task}:paused") == 2
    assert cli("resume", "mail").stdout == "queue mail goes on\n"
    assert cli("resume", "mail").stdout == "queue mail was not paused\n"
    assert server.redis.exists("{new-task:mail}:paused", "{new-task}:paused") == 1


def test_purge_needs_a_yes(cli, server, helpers):
    helpers.start_tasks([("noop",)] * 3, queue="mail")
    assert "say --yes" in cli("purge", "mail", status=2).stderr
    assert server.redis.llen("new-task:mail") == 3
    assert cli("purge", "mail", "--yes").stdout == "3 tasks are gone\n"
    assert objects(cli("purge", "mail", "-y", "--json")) == [{"queue": "mail", "purged": 0}]


@pytest.mark.parametrize(("answer", "status", "left"), [("n", 1, 3), ("y", 0, 0)])
def test_purge_asks_a_person(answer, status, left, server, helpers):
    helpers.start_tasks([("noop",)] * 3, queue="mail")
    command = [sys.executable, "-m", "pytask", "purge", "mail", "-u", server.url]
    with contextlib.closing(Terminal(command)) as terminal:
        terminal.wait_for("Remove all tasks that wait in queue mail?")
        terminal.type(f"{answer}\n")
        assert terminal.wait() == status
    assert server.redis.llen("new-task:mail") == left


def test_dead_ids_are_listed_pushed_again_and_dropped(cli, server):
    server.redis.lpush("{new-task:mail}:dead", "a", "b\x1b[31m", "c", "d")
    assert cli("dead", "list", "-q", "mail").stdout == "d\nc\nb\\x1b[31m\na\n"
    assert cli("dead", "list", "-q", "mail", "--json").stdout.count('"id"') == 4
    assert cli("dead", "list").stdout == ""
    assert cli("dead", "requeue", "a", "-q", "mail").stdout == "1 ids are queued again\n"
    assert server.redis.lrange("new-task:mail", 0, -1) == [b"a"]
    ran = cli("dead", "drop", "c", "unknown", "-q", "mail", status=1)
    assert ran.stdout == "1 ids are dropped\n"
    assert "1 of the ids are not on the dead list" in ran.stderr
    assert objects(cli("dead", "requeue", "--all", "-q", "mail", "--json")) == [{"count": 2}]
    assert cli("dead", "drop", "--all", "-q", "mail").stdout == "0 ids are dropped\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("pause",),
        ("pause", "a b"),
        ("resume", "x" * 65),
        ("purge", "a/b", "-y"),
        ("purge", "-y"),
        ("dead", "requeue"),
        ("dead", "drop", "a", "--all"),
        ("dead", "list", "-q", "new task"),
        ("stop",),
        ("stop", "a", "--all"),
        ("stop", "a", "-q", "mail"),
        ("stop", "--all", "--state", "SUCCESS"),
        ("stop", "--all", "-q", "a b"),
        ("restart",),
        ("restart", "a", "--failed"),
        ("restart", "a", "--name", "noop"),
        ("restart", "--failed", "--if-state", "none"),
    ],
)
def test_what_is_said_wrongly_is_refused_and_nothing_is_done(arguments, cli, server, helpers):
    helpers.start_task("noop", task_id="a")
    before = {key: server.redis.dump(key) for key in server.redis.keys("*")}
    ran = cli(*arguments, status=2)
    assert ran.stderr
    assert {key: server.redis.dump(key) for key in server.redis.keys("*")} == before


def test_stop_all_and_restart_failed(cli, server, helpers, start_node):
    helpers.start_task("noop", task_id="waits", queue="nobody")
    start_node("-q", "mail", "-q", "default")
    for number in range(3):
        helpers.start_task("fail", task_id=f"f{number}", queue="mail")
        server.wait_for_state(f"f{number}", "ERROR")
    wait_until(lambda: server.redis.zcard("{new-task:mail}:ended") == 3)
    helpers.pause_queue("mail")
    assert cli("restart", "--failed", "-q", "default").stdout == "0 tasks are queued again\n"
    assert cli("restart", "--failed", "-q", "mail").stdout == "3 tasks are queued again\n"
    assert objects(cli("stop", "--all", "-q", "mail", "--name", "fail", "--json")) == [{"asked": 3}]
    helpers.resume_queue("mail")
    for number in range(3):
        server.wait_for_state(f"f{number}", "STOPPED")
    wait_until(lambda: server.redis.zcard("{new-task:mail}:ended") == 3)
    assert objects(cli("restart", "--failed", "--if-state", "stopped", "--name", "fail", "--json")) == [
        {"restarted": 3}
    ]
    assert cli("stop", "--all", "--state", "wait", "-q", "nobody").stdout == "1 tasks are asked to stop\n"
    assert server.field("waits", "control") == "stop"


def test_a_long_purge_draws_a_bar_in_a_terminal(server, helpers):
    helpers.start_tasks([("noop",)] * 20_000, queue="mail")
    command = [sys.executable, "-m", "pytask", "purge", "mail", "-y", "-u", server.url]
    with contextlib.closing(Terminal(command)) as terminal:
        assert terminal.wait() == 0
        assert "20000 tasks are gone" in terminal.text


def test_the_table_tells_of_pauses_and_of_purges():
    row = {"waiting": 1, "running": 0, "due": 0, "dead": 0, "nodes": 2, "ended": {}, "paused": None, "purging": 5}
    (_, first, second, third) = table(
        {"a": row, "b": {**row, "paused": 90.0, "purging": 0}, "c": {**row, "paused": 0.0}, "d": {"error": "x"}},
        100,
    )
    assert first.endswith("0  5 to be purged")
    assert second.endswith("0  paused for 10 s")
    assert third.endswith("0  paused, 5 to be purged")
