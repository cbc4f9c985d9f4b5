"""`pytask result`, `pytask events` and `pytask send`, as a script uses them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from commands import environment, run
from conftest import wait_until
from test_cli import NASTY, NOWHERE
from test_following import tell
from test_results import end, success, wait_for_listener

from pytask.node import outcome


@pytest.fixture
def begin(server):
    """Begins a command; `communicate` waits for its end."""
    started = []

    def command(*arguments):
        line = [sys.executable, "-m", "pytask", arguments[0], "-u", server.url, *arguments[1:]]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment()))
        return started[-1]

    yield command
    for process in started:
        process.kill()
        process.communicate()


# result


def test_result_waits_and_prints_the_output(server, begin):
    server.create("x", "echo")
    waits = begin("result", "x", "--timeout", "30s")
    wait_for_listener(server, "x")
    end(server, "x", success({"a": [1, "ü"]}))
    out, err = waits.communicate(timeout=30)
    assert (json.loads(out), err, waits.returncode) == ({"a": [1, "ü"]}, "", 0)


@pytest.mark.parametrize("value", [None, "text", 5, [1, 2]])
def test_result_prints_json(server, cli, value):
    server.create("x", "echo")
    end(server, "x", success(value))
    assert json.loads(cli("result", "x").stdout) == value
    assert json.loads(cli("result", "x", "--json").stdout) == {"id": "x", "state": "SUCCESS", "output": value}


def test_result_tells_how_a_task_failed(server, cli):
    server.create("x", "echo")
    end(server, "x", outcome.failure("EXCEPTION", f"Traceback (most recent call last):\nValueError: {NASTY}"))
    ran = run("result", "x", "-u", server.url)
    assert (ran.stdout, ran.returncode) == ("", 1)
    assert "the task 'x' ended as EXCEPTION" in ran.stderr
    assert "ValueError: " in ran.stderr
    assert "\x1b" not in ran.stderr
    told = json.loads(cli("result", "x", "--json", status=1).stdout)
    assert told["state"] == "EXCEPTION"
    assert told["output"].endswith(NASTY)


def test_result_has_a_status_of_its_own_for_each_end(server, cli):
    server.create("x", "echo")
    assert "has not ended within 0 s" in cli("result", "x", "--timeout", "0", status=4).stderr
    assert "there is no record" in cli("result", "nothing", status=1).stderr
    assert run("result", "x", "-u", NOWHERE).returncode == 3
    for wrong in ("-1", "nan", "soon", ""):
        assert "--timeout" in cli("result", "x", "--timeout", wrong, status=2).stderr
    cli("result", "", status=2)


# events


def test_events_prints_what_is_kept_and_what_comes_until_the_end(server, begin):
    server.create("x", "echo")
    tell(server, "x", "kept", {"n": 1})
    follows = begin("events", "x", "--json")
    wait_for_listener(server, "x")
    tell(server, "x", "next")
    end(server, "x", success("bye"))
    out, err = follows.communicate(timeout=30)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["id"], line["event"], line["data"]) for line in lines] == [
        ("x", "kept", {"n": 1}), ("x", "next", None), ("x", "success", "bye"),
    ]  # fmt: skip
    assert (err, follows.returncode) == ("", 0)


def test_events_without_replay_begin_with_new_ones(server, cli):
    server.create("x", "echo")
    tell(server, "x", "kept")
    end(server, "x", outcome.failure("ERROR", "no luck"))
    ran = cli("events", "x", "--no-replay", status=1)
    assert "kept" not in ran.stdout
    assert "no luck" in ran.stdout
    assert "kept" in cli("events", "x", status=1).stdout


def test_events_of_a_task_that_does_not_end_or_is_none(server, cli):
    server.create("x", "echo")
    assert "has not ended within" in cli("events", "x", "--timeout", "100ms", status=4).stderr
    assert "there is no record" in cli("events", "nothing", status=1).stderr


# send


def test_send_publishes_an_object(server, cli, events):
    told = cli("send", "x", '{"volume": 11}', "--json")
    assert json.loads(told.stdout) == {"id": "x", "subscribers": 1}
    cli("send", "x", "-", stdin='{"ü": null}')
    wait_until(lambda: (events.read(), len(events.seen) == 2)[1])
    assert [json.loads(data) for _, data in events.seen] == [{"volume": 11}, {"ü": None}]
    assert {channel for channel, _ in events.seen} == {b"task-x-control"}


@pytest.mark.parametrize("message", ["stop", "[1]", "", '{"a": NaN}', b"\xff"])
def test_send_takes_nothing_else(cli, message):
    assert "the message" in cli("send", "x", message, status=2).stderr


def test_send_has_a_limit(cli):
    assert "limit" in cli("send", "x", "-", stdin=json.dumps({"a": "x" * 2_000_000}), status=2).stderr
