"""`pytask schedules` and `pytask schedule`, as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import ON_ONE_SERVER, wait_until
from test_schedules import APP, define, field


@pytest.fixture
def pytask(server):
    def run(*words: str, status: int = 0, given: str | None = None) -> str:
        """The output of a command, which must end with this status; of a failure standard error."""
        environ = {**os.environ, "PYTASK_REDIS_URL": server.url}
        ended = subprocess.run(
            [sys.executable, "-m", "pytask", *words],
            env=environ,
            capture_output=True,
            text=True,
            input=given,
            timeout=60,
        )
        assert ended.returncode == status, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    return run


@ON_ONE_SERVER
def test_a_schedule_is_added_listed_changed_and_removed(server, pytask):
    words = (
        "schedule",
        "add",
        "n",
        "note",
        "word=hi",
        "--cron",
        "30 2 * * *",
        "--tz",
        "Europe/Berlin",
        "--retries",
        "3",
    )
    assert pytask(*words) == "schedule n is defined\n"
    assert pytask(*words) == "schedule n is unchanged\n"
    assert json.loads(field(server, "n", "data")) == {"word": "hi"}
    assert field(server, "n", "retries") == "3"
    first, *times = pytask("schedules").splitlines()
    assert first == "n  starts note; cron 30 2 * * *, tz Europe/Berlin"
    assert len(times) == 5
    assert all(" 02:30:00+0" in line or " 03:00:00+02:00" in line for line in times)
    (row,) = map(json.loads, pytask("schedules", "--json", "--times", "2").splitlines())
    assert (row["schedule"], row["task"], len(row["times"]), row["error"]) == ("n", "note", 2, None)
    assert pytask("schedule", "add", "n", "note", "--minutes", "0,30", "--weekdays", "fri-mon", status=2)
    pytask(
        "schedule",
        "add",
        "n",
        "note",
        "--minutes",
        "0,30",
        "--weekdays",
        "mon,fri",
        "--missed",
        "all",
        "--jitter",
        "5m",
    )
    assert (field(server, "n", "weekdays"), field(server, "n", "jitter"), field(server, "n", "cron")) == (
        "0,4",
        "300",
        None,
    )
    assert pytask("schedule", "pause", "n") == "schedule n is paused\n"
    assert pytask("schedule", "pause", "n", "--json") == '{"schedule": "n", "result": "was paused"}\n'
    assert "; paused for" in pytask("schedules")
    assert pytask("schedule", "resume", "n") == "schedule n is resumed\n"
    assert pytask("schedule", "remove", "n") == "schedule n is removed\n"
    assert pytask("schedules") == ""


@ON_ONE_SERVER
def test_a_schedule_is_run_now(server, pytask, start_node):
    start_node(app=APP)
    pytask("schedule", "add", "n", "note", "--every", "1h", "--data", "-", "--keep", given='{"word": "now"}')
    task_id = pytask("schedule", "run", "n").strip()
    assert task_id.startswith("n@")
    server.wait_for_state(task_id, "SUCCESS")
    assert server.field(task_id, "output") == '"now"'
    assert server.field(task_id, "cleanup") == "false"
    assert json.loads(pytask("schedule", "run", "n", "--json"))["result"] == "started"


@ON_ONE_SERVER
def test_what_is_wrong_is_a_usage_error_and_what_is_not_there_a_failure(server, pytask):
    for words, why in (
        (("--cron", "99 * * * *"), "its field minute is wrong"),
        (("--cron", "* * * * *", "--tz", "Mars"), "no time zone"),
        (("--every", "0"), "every: '0' is not allowed"),
        (("--every", "5", "--hours", "3"), "not every and regular"),
        (("--every", "5", "--due", "1e9"), "has no due"),
        ((), "give one of cron, every and regular"),
    ):
        assert why in pytask("schedule", "add", "n", "note", *words, status=2)
    assert not server.redis.keys("*")
    for action in ("run", "pause", "resume", "remove"):
        assert "there is no schedule 'n'" in pytask("schedule", action, "n", status=1)
        assert "the name of a schedule is" in pytask("schedule", action, "a b", status=2)


@ON_ONE_SERVER
def test_a_broken_schedule_is_listed_with_the_reason(server, pytask, start_node):
    define(server, "bad", cron="\x1b[31m * * * *")
    server.redis.set("schedule-text", "x")
    server.redis.zadd("schedules", {"text": 0})
    told = pytask("schedules", status=1)
    assert "schedule bad is broken: cron" in told
    assert "schedule text is broken: its key is not a hash" in told
    assert "\x1b" not in told
    start_node(app=APP)
    wait_until(lambda: field(server, "bad", "error"), "a node says so, too")
    server.redis.delete("schedules")
    server.redis.set("schedules", "x")
    assert "of another type" in pytask("schedules", status=1)
