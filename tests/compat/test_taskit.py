"""taskit's face: the document's examples, to the letter, on a real engine, and what they do not show."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import closing

import pytest
from conftest import wait_until

from compat.literal import (
    Edit,
    Program,
    nodes_of,
    read_blocks,
    rows_of,
    rows_on_page,
    run_page,
    write_page_files,
    write_program,
)
from pytask import PyTask
from pytask.compat import taskit
from pytask.errors import ConfigurationError, InvalidInputError, SettingError

EDITS = [
    Edit("publish", "import taskit", "from pytask.compat import taskit", "the import line"),
    Edit("engine", "django_jestit.taskit.runner", "pytask.compat.taskit", "the import line"),
]
TASKS = """
import os, threading, time
from pathlib import Path

def fail(task_data):
    raise ValueError("no luck")

def nap(task_data):
    time.sleep(task_data["seconds"])
    return os.getpid()

def leave(task_data):
    raise SystemExit(1)

def echo(task_data):
    return task_data

def free(task_data):
    Path(task_data).touch()

def hold(task_data):
    while not Path(task_data).exists():
        time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the package `myapp` of the document is."""
    made = tmp_path_factory.mktemp("taskit")
    (made / "myapp").mkdir()
    (made / "myapp" / "__init__.py").touch()
    (made / "myapp" / "tasks.py").write_text(write_program("taskit", ["function"], EDITS) + TASKS)
    return made


@pytest.fixture(scope="module")
def start(own_server, folder):
    """Starts programs beside the package; one of a name that runs is given back as it is."""
    started = {}
    environ = {"PYTASK_REDIS_URL": own_server.url, "PYTASK_CALLABLE_PREFIXES": "myapp.tasks"}

    def start_program(name, text):
        if name not in started or started[name].process.poll() is not None:
            started[name] = Program(folder, name, text, environ)
        return started[name]

    yield start_program
    for program in started.values():
        program.end()


@pytest.fixture
def listening(start, client):
    """The document's engine, on `channel1`."""
    program = start("listen", write_program("taskit", ["engine"], EDITS))
    wait_until(lambda: nodes_of(client, "new-task:channel1"), lambda: f"it listens:\n{program.text}")
    return program


@pytest.fixture
def engine(own_server):
    """An engine in a process that does not listen."""
    made = taskit.TaskEngine(["channel1"], max_workers=10, redis=own_server.url)
    with closing(made.app):
        yield made


@pytest.fixture
def publish(own_server, monkeypatch):
    """The module's own `publish`, on the server of the environment."""
    monkeypatch.setenv("PYTASK_REDIS_URL", own_server.url)
    monkeypatch.setattr(taskit, "_app", None)
    yield taskit.publish
    taskit._app.close()


# The document.


def test_the_program_of_the_document_publishes_what_the_engine_of_the_document_runs(listening, start, client):
    text = write_program("taskit", ["publish"], EDITS)
    assert start("publish", text).wait() == 0
    wait_until(lambda: "Processing data: [] {}" in listening.text, lambda: listening.text)
    assert listening.text.count("the program runs") == 1
    (key,) = [
        key for key in client.scan_iter("task-*", 1000) if client.hget(key, "title") == b"myapp.tasks.process_data"
    ]
    record = client.hgetall(key)
    assert (record[b"task"], record[b"queue"], record[b"expires_in"]) == (b"pytask/call", b"channel1", b"1800")
    data = {"model_id": 21, "example": {"key1": "value1", "key2": "value2"}}
    assert json.loads(record[b"data"]) == {"function": "myapp.tasks.process_data", "args": [data]}


def test_the_status_of_the_document_tells_three_lists(listening, engine, publish, folder):
    assert publish("channel1", "myapp.tasks.echo", {"args": [1]}).get(timeout=20) == {"args": [1]}
    names = {"engine": engine}
    exec("status = " + write_program("taskit", ["status"], EDITS), names)
    assert set(names["status"]) == {"pending_tasks", "running_tasks", "error_tasks"}
    assert all(isinstance(ids, list) for ids in names["status"].values())


def test_the_signature_is_that_of_the_document():
    (names := {})["signature"] = None
    exec(write_program("taskit", ["syntax"], EDITS), names)
    told = names["TaskEngine"].__init__
    assert told.__defaults__ == (5, 3600)
    assert taskit.TaskEngine.__init__.__defaults__ == told.__defaults__
    ours, theirs = (f.__code__.co_varnames[:4] for f in (taskit.TaskEngine.__init__, told))
    assert ours == theirs


def test_every_edit_of_the_examples_stands_on_the_page():
    assert rows_on_page("taskit") == rows_of(EDITS)
    assert set(read_blocks("taskit")) == {"publish", "syntax", "engine", "function", "status"}


def test_the_program_of_the_page_does_what_it_says(own_server, client, folder, publish, monkeypatch):
    write_page_files("taskit", folder)
    environ = {"PYTASK_REDIS_URL": own_server.url, "PYTASK_CALLABLE_PREFIXES": "thumbs"}
    program = Program(folder, "listen_page", (folder / "listen.py").read_text(), environ)
    monkeypatch.syspath_prepend(folder)
    try:
        run_page("taskit", client, {})
        assert program.interrupt() == 0
    finally:
        program.end()
        sys.modules.pop("listen").engine.app.close()


# What the document only tells.


def test_a_function_that_fails_stops_nothing_and_is_among_the_errors(listening, engine, publish):
    failed = [publish("channel1", f"myapp.tasks.{name}", {}) for name in ("fail", "leave", "no_such", "Path")]
    failed.append(publish("channel1", "os.getcwd", {}))
    assert publish("channel1", "myapp.tasks.echo", 5).get(timeout=20) == 5
    wait_until(lambda: set(failed) <= set(engine.get_status()["error_tasks"]), "they are told of")
    assert "ValueError: no luck" in failed[0].record()["output"]
    assert "this node may not call os.getcwd: let it in with" in failed[4].record()["output"]
    assert listening.process.poll() is None


def test_what_waits_and_what_runs_is_told_wherever_it_is_asked(listening, engine, publish, folder):
    gate = str(folder / f"gate-{time.monotonic_ns()}")
    held = [publish("channel1", "myapp.tasks.hold", gate) for _ in range(12)]

    def status():
        found = engine.get_status()
        return set(found["running_tasks"]) & set(held), set(found["pending_tasks"]) & set(held)

    running, pending = wait_until(lambda: len((s := status())[0]) == 10 and len(s[1]) == 2 and s, "max_workers=10")
    assert running | pending == set(held)
    (folder / gate).touch()
    for handle in held:
        handle.get(timeout=20)
    wait_until(lambda: status() == (set(), set()), "nothing is left")


def test_a_thread_beside_the_engine_is_told_the_same(start, client, own_server):
    text = """
import json, threading, time
from pytask.compat.taskit import TaskEngine, publish_task

def tell():
    while True:
        print("STATUS", json.dumps(engine.get_status()), flush=True)
        told.set()
        time.sleep(0.1)

engine = TaskEngine(["beside"], 2)
publish_task("beside", "myapp.tasks.fail", None)
told = threading.Event()
threading.Thread(target=tell, daemon=True).start()
told.wait()
engine.start_listening()
print("it has ended")
"""
    program = start("beside", text)

    def told():
        lines = [line for line in program.text.split("\n")[:-1] if line.startswith("STATUS ")]
        return [json.loads(line.removeprefix("STATUS ")) for line in lines]

    wait_until(lambda: any(status["error_tasks"] for status in told()), lambda: program.text)
    assert len(told()[0]["pending_tasks"]) == 1
    assert program.interrupt() == 0
    assert "it has ended" in program.text


def test_data_that_waited_too_long_are_not_begun(engine, publish, client, listening):
    client.set("{new-task:channel1}:paused", "1")
    late = publish("channel1", "myapp.tasks.echo", {}, expires=0.2)
    wait_until(lambda: time.time() > float(late.record()["created"]) + 0.3)
    client.delete("{new-task:channel1}:paused")
    wait_until(lambda: late.state() == "EXPIRED")
    wait_until(lambda: late in engine.get_status()["error_tasks"])


def test_an_ended_record_stays_as_long_as_the_engine_says(listening, publish, client):
    ended, failed = (publish("channel1", f"myapp.tasks.{name}", {}) for name in ("echo", "fail"))
    for handle in (ended, failed):
        wait_until(lambda handle=handle: 3500 < client.ttl(f"task-{handle}") <= 3600, "an hour")


def test_redis_commands_alone_publish(listening, client):
    client.hset(
        "task-raw", mapping={"task": "pytask/call", "data": '{"function": "myapp.tasks.echo", "args": [7]}'}
    )
    client.lpush("new-task:channel1", "raw")
    wait_until(lambda: client.hget("task-raw", "state") == b"SUCCESS")
    assert client.hget("task-raw", "output") == b"7"


# Without an engine.


def test_a_channel_may_have_any_name(publish, own_server, client):
    handle = publish("Kanal für Bilder", "myapp.tasks.echo", {"größe": 1})
    queue = client.hget(f"task-{handle}", "queue").decode()
    assert queue.startswith("Kanal-fur-Bilder-")
    made = taskit.TaskEngine(["Kanal für Bilder", "default"], redis=own_server.url)
    with closing(made.app):
        assert made.app.settings.queues == (queue, "")
        assert made.get_status()["pending_tasks"] == [handle]


def test_another_app_may_be_used(own_server, client, publish):
    app = PyTask(own_server.url, namespace="other")
    assert taskit.use(app) is app
    handle = publish("c", "a.b", None)
    assert client.lrange("other:new-task:c", 0, -1) == [handle.encode()]
    app.close()
    assert taskit.use(own_server.url, namespace="third").settings.namespace == "third"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channel": None}, "a queue is named by text"),
        ({"channel": b"c"}, "a queue is named by text"),
        ({"channel": ["c"]}, "a queue is named by text"),
        ({"function": "no_path"}, "a function is named by its path"),
        ({"function": "a..b"}, "a function is named by its path"),
        ({"function": "a.b()"}, "a function is named by its path"),
        ({"function": None}, "a function is named by its path"),
        ({"function": lambda data: data}, "is a lambda|a function is named by its path"),
        ({"function": ""}, "a function is named by its path"),
        ({"data": object()}, "cannot be written as JSON|not JSON serializable"),
        ({"data": {"x": float("nan")}}, "cannot be written as JSON"),
        ({"data": {"x": b"\xff"}}, "cannot be written as JSON"),
        ({"expires": -1}, "option expires_in"),
        ({"expires": float("nan")}, "option expires_in"),
        ({"expires": "soon"}, "option expires_in"),
        ({"expires": True}, "option expires_in"),
    ],
)
def test_what_cannot_be_published_is_refused_and_nothing_is_written(arguments, words, publish, client):
    before = client.dbsize()
    with pytest.raises((InvalidInputError, SettingError), match=words):
        publish(**{"channel": "refused", "function": "a.b", "data": {}, **arguments})
    taskit.use()  # for a refusal before one was needed
    assert client.dbsize() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": "channel1"}, "channels is a list of names"),
        ({"channels": 5}, "channels is a list of names"),
        ({"channels": None}, "channels is a list of names"),
        ({"channels": []}, "at least one name"),
        ({"channels": [5]}, "a queue is named by text"),
        ({"max_workers": 0}, "concurrency"),
        ({"max_workers": "many"}, "concurrency"),
        ({"task_expiration": -1}, "result_ttl"),
        ({"task_expiration": float("nan")}, "result_ttl"),
        ({"no_setting": 1}, "no_setting"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(arguments, words):
    with pytest.raises((InvalidInputError, ConfigurationError), match=words):
        taskit.TaskEngine(**{"channels": ["c"], **arguments})


def test_an_import_of_a_face_patches_nothing_and_connects_nowhere():
    text = "import sys, socket, pytask.compat.taskit, pytask.compat.taskkit; assert 'gevent' not in sys.modules"
    subprocess.run([sys.executable, "-c", text], check=True, timeout=30)
