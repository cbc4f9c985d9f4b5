"""The client commands from outside, as a person or a script uses them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nursery
import pytest
import redis
from commands import environment, run
from conftest import ON_ONE_SERVER, Server, wait_until
from terminal import Terminal

from pytask.cli import COMMANDS
from pytask.cli.escape import cut, escaped, escaped_lines, json_line, json_shown
from pytask.cli.inspect import decoded, record_rows
from pytask.cli.raw import as_data, as_lines, as_raw
from pytask.cli.screen import clock, event_parts, progress_of
from pytask.cli.watching import Event, read_event
from pytask.embedded import EmbeddedServer
from pytask.options import OPTIONS

NASTY = 'a\x1b[31mred\x07\x9b2J\r\n[bold]b[/bold]\u202e"{0}'
NOWHERE = "redis://user:se%63ret@127.0.0.1:1/0"  # nobody listens on port 1


class Watch:
    """A `pytask watch` that has subscribed; its output goes to files."""

    def __init__(self, folder: Path, url: str, ids: tuple[str, ...], *options: str) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            words = ["watch", *options, "-u", url, *ids]
            self.process = nursery.start(words, stdout=out, stderr=err, environ=environment())

    @property
    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    @property
    def rows(self) -> list[dict]:
        return [json.loads(line) for line in self.lines]

    def wait_for_line(self, text: str) -> str:
        return wait_until(
            lambda: next((line for line in self.lines if text in line), None),
            f"{text!r} in {self.lines}, {self.err.read_text()}",
        )

    def wait(self) -> int:
        return self.process.wait(20)


@pytest.fixture
def watch(server: Server, tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    started: list[Watch] = []

    def start(*options: str, ids: tuple[str, ...] = (), url: str = "") -> Watch:
        watch = Watch(tmp_path, url or server.url, ids, *options)
        started.append(watch)
        if not url:
            wait_until(lambda: _has_subscribed(server.redis, ids) or watch.process.poll() is not None)
        return watch

    yield start
    for watch in started:
        watch.process.kill()
        watch.process.wait(10)


def _has_subscribed(client: redis.Redis, ids: tuple[str, ...]) -> bool:
    if ids:
        return all(count for _, count in client.pubsub_numsub(*[f"task-{task_id}" for task_id in ids]))
    return bool(client.pubsub_numpat())


def publish(server: Server, task_id: str, name: str, data: object = None) -> None:
    server.redis.publish(f"task-{task_id}", json.dumps({"event": name, "data": data}))


# Making tasks.


def test_start_makes_a_task_that_a_node_runs_and_prints_its_id(server, cli, start_node):
    start_node()
    task_id = cli("start", "echo", "n=3", "text=three", 'quoted="3"', "list=[1, null]", "empty=").stdout.strip()
    server.wait_for_state(task_id, "SUCCESS")
    output = json.loads(server.field(task_id, "output"))
    assert output == {"n": 3, "text": "three", "quoted": "3", "list": [1, None], "empty": ""}


def test_pairs_count_more_than_data_which_may_come_from_standard_input(server, cli):
    cli("start", "echo", "a=2", "--data", '{"a": 1, "b": 1}', "--id", "x")
    assert json.loads(server.field("x", "data")) == {"a": 2, "b": 1}
    cli("start", "echo", "--id", "y", "--data", "-", stdin='{"c": "ü"}')
    assert json.loads(server.field("y", "data")) == {"c": "ü"}
    assert server.redis.lrange("new-task", 0, -1) == [b"y", b"x"]


def test_start_takes_a_queue_and_keeps_a_record_where_it_is_told_to(server, cli):
    cli("start", "echo", "--queue", "mail", "--id", "first")
    printed = cli("start", "echo", "--queue", "mail", "--keep", "--front", "--json").stdout
    task_id = json.loads(printed)["id"]
    assert server.redis.lrange("new-task:mail", 0, -1) == [b"first", task_id.encode()]
    assert server.field(task_id, "cleanup") == "false"


def test_start_takes_every_option_of_a_task(server, cli):
    values = {
        "due": "2027-01-01T00:00+01:00", "expires": "1999999999", "timeout": "5m", "retries": "3",
        "retry_delay": "[1, 2]", "retry_on": "OSError,a.B", "no_retry_on": "KeyError", "result_ttl": "1h",
        "failure_ttl": "0", "rescheduling": "false", "unique": "k", "max_running": "2", "concurrency_key": "host",
        "max_running_per_key": "1", "rate": "10/s", "rate_key": "host", "title": "a title",
    }  # fmt: skip
    flags = [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), value)]
    cli("start", "echo", "--id", "o", *flags)
    cli("start", "echo", "--id", "d", "--delay", "5m", "--expires-in", "1d")
    assert set(values) | {"delay", "expires_in", "queue", "cleanup"} == set(OPTIONS)
    assert (server.field("o", "due"), server.field("o", "timeout")) == ("1798758000.000000", "300")
    assert (server.field("o", "retry_delay"), server.field("o", "rate")) == ("[1.0, 2.0]", "10/1s")
    assert (server.field("d", "delay"), server.field("d", "expires_in")) == ("300", "86400")


@pytest.mark.parametrize(
    "arguments",
    [
        ["echo", "no-pair"],
        ["echo", "=1"],
        ["echo", "--data", "{"],
        ["echo", "--data", "[1]"],
        ["echo", "--queue", "no spaces"],
        ["echo", "--id", ""],
        ["echo", "--id", "x-control"],
        ["a name"],
        [],
        ["echo", "--no-such-option"],
        ["echo", "--timeout", "-1"],
        ["echo", "--retries", "x"],
        ["echo", "--due", "2027-01-01"],
        ["echo", "--due", "soon-ish"],
        ["echo", "--rate", "10/0s"],
        ["echo", "--delay", "1", "--due", "5"],
        ["echo", b"text=\xff"],
    ],
)
def test_what_start_cannot_take_is_a_usage_error_and_makes_nothing(server, cli, arguments):
    told = cli("start", *arguments, status=2).stderr
    assert "Error: " in told or told.startswith("pytask: ")
    assert server.redis.dbsize() == 0


def test_start_refuses_an_id_whose_task_has_begun(server, cli):
    server.redis.hset("task-x", mapping={"task": "echo", "state": "SUCCESS"})
    assert "pytask restart" in cli("start", "echo", "--id", "x", status=1).stderr
    assert not server.redis.exists("new-task")
    server.redis.hset("task-x", "state", "WAIT")
    cli("start", "echo", "--id", "x")
    assert server.redis.lrange("new-task", 0, -1) == [b"x"]


def test_start_with_watch_shows_the_events_and_tells_a_failure_by_its_status(server, cli, start_node):
    start_node()
    lines = cli("start", "progress", "total=3", "--watch").stdout.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["running", "progress", "progress", "progress", "success"]
    assert all(lines[0] in line for line in lines[1:])
    rows = [json.loads(line) for line in cli("start", "fail", "--watch", "--json", status=1).stdout.splitlines()]
    assert [row.get("event") for row in rows] == [None, "running", "error"]
    assert rows[-1]["data"] == "no luck"


# Controlling tasks.


def test_stop_stops_tasks_that_run_and_tasks_that_wait(server, cli, start_node, events):
    node = start_node()
    server.create("run", "loop")
    events.wait_for("run", "turn")
    assert cli("stop", "run").stdout == "run is asked to stop\n"
    server.wait_for_state("run", "STOPPED")
    assert cli("stop", "run").stdout == "run has ended, or is stopped already\n"
    node.terminate()
    server.create("wait", "echo")
    cli("stop", "wait")
    start_node()
    server.wait_for_state("wait", "STOPPED")


def test_a_missing_id_is_told_and_the_others_are_served(server, cli):
    server.redis.hset("task-there", "task", "echo")
    ran = cli("stop", "not\x1bthere", "there", "--json", status=1)
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [
        {"id": "not\x1bthere", "result": "missing"},
        {"id": "there", "result": "asked"},
    ]
    assert ran.stderr == "pytask: there is no task with the id 'not\\x1bthere'\n"
    assert server.field("there", "control") == "stop"


def test_reload_lets_a_running_task_read_new_data_and_refuses_any_other(server, cli, start_node, events):
    start_node()
    server.create("run", "loop", '{"text": "old"}')
    events.wait_for("run", "turn")
    server.redis.hset("task-run", "data", '{"text": "new"}')
    assert cli("reload", "run").stdout == "run is asked to reload\n"
    events.wait_for("run", "reloaded")
    wait_until(lambda: events.of("run")[-1]["data"] == {"text": "new", "attempt": 1})
    server.redis.hset("task-waits", "task", "echo")
    assert "does not run, it is WAIT" in cli("reload", "waits", status=1).stderr
    assert "no task" in cli("reload", "nowhere", status=1).stderr


def test_restart_runs_a_task_again_where_its_state_allows(server, cli, start_node, events):
    start_node()
    server.create("x", "fail")
    events.wait_for("x", "error")
    refused = cli("restart", "x", "--if-state", "success", "--if-state", "STOPPED", status=1)
    assert "is ERROR" in refused.stderr
    cli("restart", "x", "--if-state", "error")
    wait_until(lambda: events.names("x").count("error") == 2)
    cli("restart", "x")
    wait_until(lambda: events.names("x").count("error") == 3)
    assert "no task" in cli("restart", "nowhere", status=1).stderr
    cli("restart", "x", "--if-state", "NONSENSE", status=2)


def test_a_key_of_another_type_is_told_with_status_1(server, cli):
    server.redis.set("task-x", "text")
    for name, *options in (["show"], ["reload"], ["restart"], ["stop"], ["start", "echo", "--id"]):
        ran = cli(name, *options, "x", status=1)
        assert ran.stderr.startswith("pytask: ")
        assert ran.stderr.count("\n") == 1


# Looking at one.


def test_show_prints_a_record_for_people(server, cli, start_node):
    start_node()
    server.create("ok", "echo", '{"text": "ü"}')
    server.create("bad", "boom")
    server.wait_for_state("ok", "SUCCESS")
    server.wait_for_state("bad", "EXCEPTION")
    shown = cli("show", "ok").stdout
    assert 'output      {"text": "ü"}\n' in shown
    assert "state       SUCCESS\n" in shown
    assert f"created     {time.strftime('%Y-')}" in shown
    shown = cli("show", "bad").stdout
    assert "output      Traceback (most recent call last):\n              File " in shown
    assert shown.endswith("ValueError: boom\n")


def test_show_prints_a_record_for_programs(server, cli, start_node):
    start_node()
    server.create("ok", "echo", '{"text": "ü"}')
    server.wait_for_state("ok", "SUCCESS")
    row = json.loads(cli("show", "ok", "--json").stdout)
    assert (row["id"], row["data"], row["output"], row["attempt"]) == ("ok", {"text": "ü"}, {"text": "ü"}, 1)
    assert abs(row["ended"] - time.time()) < 60


def test_show_tells_that_there_is_no_such_task(cli):
    assert cli("show", "x", status=1).stderr == "pytask: there is no task with the id 'x'\n"


def test_nothing_that_a_producer_wrote_reaches_the_terminal_as_it_is(server, cli):
    record = {"task": NASTY, "data": NASTY, NASTY: NASTY, "created": NASTY, "output": NASTY, "state": NASTY}
    server.redis.hset(f"task-{NASTY}", mapping=record)
    shown = cli("show", NASTY).stdout
    assert all(line.isprintable() for line in shown.splitlines())
    assert "[bold]b[/bold]" in shown
    assert json.loads(cli("show", NASTY, "--json").stdout)["output"] == NASTY


def test_numbers_and_times_that_are_none_are_shown_as_text():
    record = {"created": "1e999", "ended": "nan", "started": "9" * 400, "attempt": "x", "data": "{"}
    assert decoded(record) == record
    assert dict(record_rows("x", record))["created"] == ["1e999"]
    assert dict(record_rows("x", {"due": str(time.time() + 7200)}))["due"][0].endswith("(120 min from now)")


# Following events.


def test_watch_shows_the_events_of_all_tasks(server, watch):
    seen = watch()
    publish(server, "a", "running", {"node": "n"})
    publish(server, "b", "exception", "Traceback:\n  File x\nValueError: no")
    server.redis.publish("task-a-control", "stop")
    publish(server, "a", "progress", {"done": 1, "total": 4})
    publish(server, "c", "end")
    seen.wait_for_line(" c end")
    assert [line.split(" ", 1)[1] for line in seen.lines] == [
        'a running {"node": "n"}',
        "b exception ValueError: no",
        "a progress 1/4 (25 %)",
        "c end",
    ]


def test_watch_with_ids_shows_those_alone_also_with_odd_ids(server, watch):
    seen = watch(ids=("a*", "[x] y"))
    for task_id in ("ab", "x y", "a*", "[x] y"):
        publish(server, task_id, "e")
    seen.wait_for_line("[x] y e")
    assert [line.split(" ", 1)[1] for line in seen.lines] == ["a* e", "[x] y e"]


def test_watch_escapes_whatever_a_producer_wrote(server, watch):
    seen = watch()
    publish(server, NASTY, NASTY, {NASTY: NASTY})
    server.redis.publish("task-x", NASTY)
    server.redis.publish("task-x", b"\xff\x00")
    server.redis.publish("task-x", "[" * 5000)
    server.redis.publish("task-x", '{"event": 5}')
    publish(server, "x", "last")
    seen.wait_for_line("x last")
    assert len(seen.lines) == 6
    assert all(line.isprintable() for line in seen.lines)
    assert "[bold]b[/bold]" in seen.lines[0]
    assert "x (no event) \\xff\\x00" in seen.lines[2]


def test_watch_prints_one_json_object_a_line_for_programs(server, watch):
    seen = watch("--json")
    publish(server, NASTY, "e", {"text": NASTY})
    server.redis.publish("task-x", '{"event": "huge", "data": 1e999}')
    server.redis.publish("task-x", "garbage\n")
    server.redis.publish(b"task-\xff", '{"event": "e"}')
    seen.wait_for_line("udcff")
    assert [set(row) for row in seen.rows] == [{"time", "id", "event", "data"}] * 4
    assert seen.rows[0]["id"] == NASTY
    assert seen.rows[0]["data"] == {"text": NASTY}
    assert seen.rows[2]["event"] is None
    assert seen.rows[2]["data"] == "garbage\n"
    assert abs(seen.rows[0]["time"] - time.time()) < 60


def test_watch_ends_on_ctrl_c_with_status_130_and_without_a_word(server, watch):
    seen = watch()
    seen.process.send_signal(signal.SIGINT)
    assert seen.wait() == 130
    assert (seen.lines, seen.err.read_text()) == ([], "")


def test_watch_until_the_end_ends_when_all_have_ended(server, watch, start_node):
    server.create("a", "sleep", '{"seconds": 0.3}')
    server.create("b", "loop")
    seen = watch("--until-end", "--json", ids=("a", "b"))
    start_node()
    server.wait_for_state("a", "SUCCESS")
    server.wait_for_state("b", "RUNNING")
    assert seen.process.poll() is None
    server.redis.publish("task-b-control", "stop")
    assert seen.wait() == 0
    assert seen.rows[-1]["event"] == "stopped"


def test_watch_until_the_end_tells_what_had_ended_before(server, cli, start_node):
    start_node()
    server.create("ok", "echo", '{"a": 1}')
    server.create("bad", "fail")
    server.wait_for_state("ok", "SUCCESS")
    server.wait_for_state("bad", "ERROR")
    rows = [json.loads(line) for line in cli("watch", "ok", "--until-end", "--json").stdout.splitlines()]
    ended = pytest.approx(float(server.field("ok", "ended")), abs=0.01)
    assert rows == [{"time": ended, "id": "ok", "event": "success", "data": {"a": 1}}]
    assert "error no luck" in cli("watch", "ok", "bad", "--until-end", status=1).stdout


def test_watch_until_the_end_of_a_task_that_is_not_there_says_so(cli):
    ran = cli("watch", "--until-end", "x", status=1)
    assert ran.stderr == "pytask: there is no task with the id 'x'\n"
    assert "needs the ids" in cli("watch", "--until-end", status=2).stderr


def test_watch_until_the_end_ends_where_the_record_goes_without_an_event(server, watch):
    server.redis.hset("task-x", "task", "echo")
    seen = watch("--until-end", ids=("x",))
    server.redis.delete("task-x")
    assert seen.wait() == 1


def test_watch_until_the_end_believes_the_record_and_not_the_event(server, watch):
    """A restart was asked for while it ran: the event tells of an end, the record of a wait."""
    server.redis.hset("task-x", mapping={"task": "echo", "state": "WAIT"})
    seen = watch("--until-end", ids=("x",))
    publish(server, "x", "success", 1)
    seen.wait_for_line("x success 1")
    publish(server, "x", "again")
    seen.wait_for_line("x again")
    assert seen.process.poll() is None
    server.redis.hset("task-x", "state", "SUCCESS")
    publish(server, "x", "success", 2)
    assert seen.wait() == 0


def test_watch_comes_back_when_its_connection_was_cut(server, watch):
    seen = watch("--json")
    server.redis.client_kill_filter(_type="pubsub")
    wait_until(lambda: "connected again" in seen.err.read_text())
    publish(server, "x", "e")
    seen.wait_for_line('"e"')
    assert seen.err.read_text().count("\n") == 2


def test_watch_comes_back_when_the_server_does(tmp_path, watch):
    with EmbeddedServer(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        client.hset("task-x", mapping={"task": "echo", "state": "WAIT"})
        seen = watch("--until-end", ids=("x",), url=server.url)
        wait_until(lambda: _has_subscribed(client, ("x",)))
        server.stop()
        wait_until(lambda: "the connection is lost" in seen.err.read_text())
        server.start()
        client.hset("task-x", mapping={"state": "SUCCESS", "output": '"unseen"'})  # nobody was told
        assert seen.wait() == 0
        assert "success unseen" in seen.lines[-1]
        assert "connected again" in seen.err.read_text()


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (20, 40)])
def test_watch_in_a_terminal_draws_progress_as_a_bar(server, rows, columns):
    command = [sys.executable, "-m", "pytask", "watch", "-u", server.url]
    terminal = Terminal(command, rows, columns)
    try:
        wait_until(lambda: _has_subscribed(server.redis, ()))
        publish(server, "[red]t", "progress", {"done": 5, "total": 10})
        terminal.wait_for("5/10")
        assert "━━" in terminal.text
        assert "[red]t " in terminal.text
        publish(server, "other", NASTY, "[red]")
        terminal.wait_for("[red]")
        assert "\x1b[31mred" not in terminal.raw
        publish(server, "[red]t", "success")
        terminal.wait_for("[red]t success")
        assert "[red]t progress 5/10 (50 %)" in terminal.text
        publish(server, "late", "progress", {"done": 1, "total": 10})
        terminal.wait_for("1/10")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.text
        assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor shows again"
    finally:
        terminal.close()


def test_colours_can_be_turned_off(server):
    for options, environ in ((["--no-color"], {}), ([], {"NO_COLOR": "1"})):
        command = [sys.executable, "-m", "pytask", "watch", "-u", server.url, *options]
        terminal = Terminal(command, **environ)
        try:
            wait_until(lambda: _has_subscribed(server.redis, ()))
            publish(server, "x", "success", 1)
            terminal.wait_for("x success 1")
            assert "\x1b[3" not in terminal.raw
        finally:
            terminal.close()
        wait_until(lambda: not _has_subscribed(server.redis, ()))


# Raw commands.


def test_redis_sends_a_raw_command_and_prints_the_bare_reply_into_a_pipe(server, cli, start_node):
    start_node()
    assert cli("redis", "HSET", "task-x", "task", "echo", "data", '{"a": -1}').stdout == "2\n"
    assert cli("redis", "lpush", "new-task", "x").stdout == "1\n"
    server.wait_for_state("x", "SUCCESS")
    assert cli("redis", "HMGET", "task-x", "output", "nothing", "state").stdout == '{"a":-1}\n\nSUCCESS\n'
    assert cli("redis", "LRANGE", "new-task", "0", "-1").stdout == "\n"
    assert json.loads(cli("redis", "--json", "HMGET", "task-x", "task", "none").stdout) == ["echo", None]


def test_redis_keeps_bytes_as_they_are(server):
    command = [sys.executable, "-m", "pytask", "redis", "-u", server.url, "ECHO", b"\xff\x1b"]
    assert subprocess.run(command, capture_output=True, check=True, timeout=40).stdout == b"\xff\x1b\n"


def test_an_error_reply_is_printed_and_told_by_the_status(server, cli):
    server.redis.set("text", "x")
    assert cli("redis", "LPUSH", "text", "a", status=1).stdout.startswith("WRONGTYPE ")
    assert cli("redis", "NO-SUCH-COMMAND", status=1).stdout.startswith("ERR unknown command")
    assert "WRONGTYPE" in json.loads(cli("redis", "--json", "LPUSH", "text", "a", status=1).stdout)["error"]


@pytest.mark.parametrize("command", ["SUBSCRIBE", "psubscribe", "MONITOR"])
def test_what_has_no_end_is_refused_with_a_hint(command):
    ran = run("redis", command, "x")
    assert ran.returncode == 2
    assert "pytask watch" in ran.stderr


def test_redis_in_a_terminal_prints_replies_as_redis_cli_does(server):
    server.redis.rpush("list", b"a", b'"\x1b\n\xff')
    for words, expected in (
        (["LRANGE", "list", "0", "-1"], '1) "a"\n2) "\\"\\x1b\\n\\xff"\n'),
        (["SET", "x", "OK"], "OK\n"),
        (["GET", "x"], '"OK"\n'),
        (["GET", "none"], "(nil)\n"),
        (["LLEN", "list"], "(integer) 2\n"),
        (["LRANGE", "none", "0", "1"], "(empty array)\n"),
        (["TYPE", "list"], "list\n"),
        (["LPUSH", "x", "1"], "(error) WRONGTYPE Operation against a key holding the wrong kind of value\n"),
    ):
        terminal = Terminal([sys.executable, "-m", "pytask", "redis", "-u", server.url, *words])
        try:
            terminal.wait()
            assert terminal.text.replace("\r\n", "\n") == expected
        finally:
            terminal.close()


def test_nested_replies_are_numbered_and_indented():
    assert as_lines([1, [b"a", None], []]) == ["1) (integer) 1", '2) 1) "a"', "   2) (nil)", "3) (empty array)"]
    assert as_lines([0] * 10)[0] == " 1) (integer) 0"
    assert as_raw([b"a", [b"\xff", None], 3]) == b"a\n\xff\n\n3"
    assert as_data([b"a", [1, None], ValueError("no")]) == ["a", [1, None], {"error": "no"}]


# Where Redis is.

EVERY_CLIENT = [
    ["start", "echo"],
    ["stop", "x"],
    ["reload", "x"],
    ["restart", "x"],
    ["show", "x"],
    ["watch"],
    ["redis", "PING"],
]


@pytest.mark.parametrize("command", EVERY_CLIENT, ids=lambda command: command[0])
def test_without_redis_the_status_is_3_and_no_password_is_printed(command):
    ran = run(*command[:1], "-u", NOWHERE, *command[1:])
    assert ran.returncode == 3
    assert ran.stderr.startswith("pytask: no Redis at 127.0.0.1:1/0: ")
    assert ran.stderr.count("\n") == 1
    assert "secret" not in ran.stdout + ran.stderr


def test_a_wrong_password_is_refused_without_printing_it():
    with EmbeddedServer(tcp=True) as server:
        right = server.url.partition("//:")[2].partition("@")[0]
        wrong = run("redis", "PING", PYTASK_REDIS_URL=server.url.replace(right, "wr0ng"))
        assert wrong.returncode == 3
        assert "wr0ng" not in wrong.stdout + wrong.stderr
        assert run("redis", "PING", PYTASK_REDIS_URL=server.url).stdout == "PONG\n"


@pytest.mark.parametrize("command", EVERY_CLIENT, ids=lambda command: command[0])
def test_the_client_commands_do_not_import_gevent(server, command):
    server.redis.hset("task-x", mapping={"task": "loop", "state": "RUNNING"})
    command = ["watch", "--until-end", "none"] if command == ["watch"] else command
    code = (
        "import atexit, sys\n"
        "@atexit.register\n"
        "def tell(): print({m.partition('.')[0] for m in sys.modules} & {'gevent', 'greenlet'}, file=sys.stderr)\n"
        "from pytask.__main__ import main\n"
        "main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, command[0], "-u", server.url, *command[1:]],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env=environment(),
    )
    assert ran.returncode == (1 if command[0] == "watch" else 0), ran.stderr
    assert ran.stderr.splitlines()[-1] == "set()"


@ON_ONE_SERVER
def test_flags_count_more_than_the_environment_and_that_more_than_a_file(server, tmp_path):
    server.redis.hset("task-x", "task", "echo")
    (tmp_path / "settings.toml").write_text(f'redis = "{server.url}"\nnamespace = "other"\n')
    (tmp_path / "pyproject.toml").write_text(f'[tool.pytask-daemon]\nredis = "{NOWHERE}"\n')
    show = ["show", "x"]
    assert run(*show, cwd=tmp_path).returncode == 3
    assert run(*show, cwd=tmp_path, PYTASK_REDIS_URL=server.url).returncode == 0
    assert run(*show, "-C", "settings.toml", cwd=tmp_path).returncode == 1
    assert run(*show, "-C", "settings.toml", "--namespace", "", cwd=tmp_path).returncode == 0
    assert run(*show, cwd=tmp_path, PYTASK_REDIS_URL=NOWHERE).returncode == 3
    assert run(*show, "-u", server.url, cwd=tmp_path, PYTASK_REDIS_URL=NOWHERE).returncode == 0


def test_a_namespace_stands_before_every_key_and_channel(server, cli, watch):
    seen = watch("--namespace", "ns")
    task_id = cli("start", "echo", "--namespace", "ns").stdout.strip()
    assert server.redis.lrange("ns:new-task", 0, -1) == [task_id.encode()]
    cli("show", task_id, "--namespace", "ns")
    cli("show", task_id, status=1)
    cli("stop", task_id, "--namespace", "ns")
    assert server.redis.hget(f"ns:task-{task_id}", "control") == b"stop"
    server.redis.publish("task-a", '{"event": "e"}')
    server.redis.publish("ns:task-b", '{"event": "e"}')
    assert seen.wait_for_line(" e").endswith(" b e")


@pytest.mark.parametrize("url", ["embedded", "embedded:/tmp/x", "http://localhost", "", "redis://h:port"])
def test_an_address_that_is_none_is_a_usage_error(url):
    ran = run("show", "-u", url, "x")
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


def test_a_wrong_namespace_or_file_is_a_usage_error(server, cli):
    assert "namespace" in cli("show", "x", "--namespace", "task-", status=2).stderr
    assert "no-such-file" in cli("show", "x", "-C", "no-such-file", status=2).stderr


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command):
    ran = run(*filter(None, [command]), "--help")
    assert ran.returncode == 0
    assert ran.stdout.startswith("Usage: ")


# Text that somebody else wrote.


def test_escaped_text_is_printable_and_says_what_was_there():
    assert escaped("plain ü 漢 😀") == "plain ü 漢 😀"
    assert escaped("\x1b[1m\n\t\x9b\u202e\udcff\U000e0001") == "\\x1b[1m\\n\\t\\x9b\\u202e\\xff\\U000e0001"
    assert escaped_lines("a\n\tb\x00") == ["a", "        b\\x00"]
    assert json_shown({"a": "\u2028ü"}) == '{"a": "\\u2028ü"}'
    assert json_line("\x7fü\x1b") == '"\\u007f\\u00fc\\u001b"'
    assert cut("x" * 20, 5) == "xxxxx... (15 more)"


def test_what_is_nested_too_deep_is_not_shown_and_does_no_harm():
    value: list = []
    for _ in range(100_000):
        value = [value]
    assert "too deep" in json_shown(value)


@pytest.mark.parametrize(
    "data",
    [None, 5, {}, {"done": 1}, {"done": -1, "total": 2}, {"done": 1, "total": 0}, {"done": True, "total": 2},
     {"done": "1", "total": 2}, {"done": 1, "total": 1e300}, {"done": float("inf"), "total": 1}],
)  # fmt: skip
def test_progress_that_is_none_is_shown_like_any_other_event(data):
    event = Event(0.0, "x", "progress", data)
    assert progress_of(event) is None
    assert event_parts(event)[2][0] == "progress"


def test_a_message_that_is_no_event_is_kept_as_text():
    assert read_event(b"x", b"stop")[1:] == ("x", None, "stop")
    assert read_event(b"x", b'{"event": "success", "data": 1}').state == "SUCCESS"
    assert read_event(b"x", b'{"event": "turn"}').state == ""


def test_times_that_are_no_times_do_no_harm():
    assert clock(float("nan")) == clock(1e300) == "--:--:--"
    assert len(clock(1.5)) == 12
