"""taskkit's face on real nodes: the document's examples, to the letter, and what they do not show."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import HERE, wait_until

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
from pytask.compat.taskkit import Failed, NotFound, ResultGetTimedOut, TaskHandler, make_kit

GROUP = "Any task group name"
QUEUE = "Any-task-group-name-a62e38ca"
IMPORT = Edit("", "from taskkit", "from pytask.compat.taskkit", "the import line")
RESULT = "# return result for the task\n                return ..."
DONE = "# do something\n                return ..."
ONE_WAY = Edit(
    "workers",
    """kit.start(
    # number of processes
    num_processes=3,
    # number of worker threads per process
    num_worker_threads_per_group={GROUP_NAME: 3})
""",
    "",
    "or else `kit.start_processes`, below it: the first never returns",
    "kit.start(...)",
)
EDITS = [
    *(IMPORT._replace(block=name) for name in ("handler", "make_kit", "initiate", "schedules")),
    Edit("handler", "== '...'", f"== '{GROUP}'", "a placeholder"),
    Edit("handler", RESULT, "return data", "a placeholder, which JSON cannot hold", "return ..."),
    Edit("handler", DONE, "return 'done'", "a placeholder, which JSON cannot hold", "return ..."),
    Edit("make_kit", "REDIS_HOST = '...'", "REDIS_HOST = 'localhost'", "a placeholder"),
    Edit("make_kit", "REDIS_PORT = '...'", "REDIS_PORT = 6379", "a placeholder"),
    Edit("initiate", "import timedelta", "import datetime, timedelta", "`datetime` is never imported"),
    Edit("initiate", "'your task name'", "'foo'", "a placeholder: the handler knows `foo` and `bar`"),
    Edit("schedules", "Handler.encode_data", "Handler().encode_data", "a method, called on a class"),
    Edit(
        "schedules",
        "'key': '...'",
        "'key': 'other'",
        "a placeholder, which two entries of a scheduler have",
    ),
]


@pytest.fixture(scope="module")
def start(own_server, tmp_path_factory):
    """Starts programs; one of a name that runs is given back as it is. They are gone at the end."""
    folder, started = tmp_path_factory.mktemp("taskkit"), {}

    def start_program(name, text, **environ):
        if name not in started or started[name].process.poll() is not None:
            started[name] = Program(folder, name, text, {"URL": own_server.url, **environ})
        return started[name]

    yield start_program
    for program in started.values():
        program.end()


def literal(own_server, *names, more=()):
    return write_program("taskkit", names, [*EDITS, *more]).replace("6379", str(own_server.port))


# The document.


@pytest.fixture
def working(own_server, client, start):
    """The example that starts workers and stays."""
    program = start("workers", literal(own_server, "handler", "make_kit", "workers"))
    wait_until(lambda: len(nodes_of(client, f"new-task:{QUEUE}")) == 3, lambda: f"3 processes:\n{program.text}")
    return program


@pytest.fixture(scope="module")
def kit(own_server):
    """The kit of the document, in another program."""
    names = {}
    exec(literal(own_server, "handler", "make_kit"), names)
    with closing(names["kit"].app):
        yield names["kit"]


def test_the_handler_of_the_document_handles_tasks(working, kit, client):
    result = kit.initiate_task(GROUP, "foo", {"größe": [1, None]})
    assert result.get(timeout=20) == {"größe": [1, None]}
    assert kit.initiate_task(GROUP, "bar", None).get(timeout=20) == "done"
    with pytest.raises(NotFound, match="DISCARDED"):
        kit.initiate_task(GROUP, "baz", None).get(timeout=20)
    record = client.hgetall(f"task-{result.task_id}")
    assert (record[b"task"], record[b"title"], record[b"queue"]) == (b"taskkit", b"foo", QUEUE.encode())
    assert json.loads(record[b"data"])["data"] == '{"gr\\u00f6\\u00dfe": [1, null]}'
    assert json.loads(json.loads(record[b"output"])) == {"größe": [1, None]}


def test_the_handler_of_the_document_is_asked_for_retries(working, kit, client):
    data = json.dumps({"group": GROUP, "name": "foo", "data": "no JSON"})
    client.hset("task-unread", mapping={"task": "taskkit", "data": data})
    client.lpush(f"new-task:{QUEUE}", "unread")
    wait_until(lambda: int(client.hget("task-unread", "attempt") or 0) >= 2, "a second attempt, at once")
    with pytest.raises(ResultGetTimedOut):
        kit.get_result("unread").get(timeout=0)
    kit.app.helpers.stop_task("unread")
    with pytest.raises(Failed, match="STOPPED"):
        kit.get_result("unread").get(timeout=20)


def test_the_program_of_the_document_is_run_once_and_ends_with_ctrl_c(working, client):
    assert working.text.count("the program runs") == 1
    assert working.interrupt() == 0
    assert nodes_of(client, f"new-task:{QUEUE}") == []
    assert "Traceback" not in working.text


def test_the_schedules_of_the_document_are_those_of_the_program(own_server, client, start):
    program = start(
        "schedules", f"GROUP_NAME = {GROUP!r}\n" + literal(own_server, "handler", "make_kit", "schedules")
    )
    app = PyTask(own_server.url)
    with closing(app):
        found = wait_until(lambda: len(s := app.helpers.get_schedules()) == 2 and s, lambda: program.text)
        assert list(found) == ["scheduler_name:...", "scheduler_name:other"]
        fields = [schedule["fields"] for schedule in found.values()]
        assert [row["minutes"] for row in fields] == ["0,30", "30"]
        assert [row["seconds"] for row in fields] == ["0", "0"]
        assert [row["tz"] for row in fields] == ["+09:00", "+09:00"]
        assert [json.loads(row["data"])["data"] for row in fields] == ['"SOME DATA"', "2"]
        started = app.helpers.run_schedule("scheduler_name:other")
        wait_until(lambda: started.state() == "DISCARDED", "the handler knows no test3")
    program.interrupt()
    for name in found:
        app.helpers.remove_schedule(name)


@pytest.mark.waits
def test_a_task_of_the_document_is_initiated_for_later(own_server, start, client):
    text = literal(own_server, "handler", "make_kit", "workers", "initiate", more=[ONE_WAY])
    program = start("initiate", f"{text}\nprint('it goes on')", PYTASK_NAMESPACE="initiate")
    assert program.wait() == 0, program.text
    assert "it goes on" in program.text
    (key,) = client.scan_iter("initiate:task-*", 1000)
    made, due = map(float, client.hmget(key, "created", "due"))
    assert due - made == pytest.approx(10, abs=0.5)
    assert nodes_of(client, f"initiate:new-task:{QUEUE}") == []  # they were daemons


def test_every_edit_of_the_examples_stands_on_the_page():
    assert rows_on_page("taskkit") == rows_of([*EDITS, ONE_WAY])
    assert set(read_blocks("taskkit")) == {"handler", "make_kit", "workers", "initiate", "schedules"}


class Site(BaseHTTPRequestHandler):
    """What the program of the page looks at."""

    def do_GET(self):
        status, words = {"/gone": (404, "gone"), "/broken": (500, "broken")}.get(self.path, (200, "fine"))
        self.send_response(status, words)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_the_program_of_the_page_does_what_it_says(own_server, client, site, tmp_path, monkeypatch):
    write_page_files("taskkit", tmp_path)
    text = (tmp_path / "watcher.py").read_text()
    program = Program(tmp_path, "watch", text, {"PYTASK_REDIS_URL": own_server.url})
    monkeypatch.setenv("PYTASK_REDIS_URL", own_server.url)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        run_page("taskkit", client, {"site": site})
        assert program.interrupt() == 0
    finally:
        program.end()
        watcher = sys.modules.pop("watcher")
        for name in watcher.kit.app.helpers.get_schedules():
            watcher.kit.app.helpers.remove_schedule(name)
        watcher.kit.app.close()
        watcher.redis.close()


# What the document does not show.

A, B = "Größe XL / a", "b"


@pytest.fixture
def own(own_server, client, start):
    """A program of our own with two processes."""
    program = start("own", (HERE / "compat" / "kit_program.py").read_text(), PYTASK_NAMESPACE="own")
    wait_until(lambda: len(nodes_of(client, f"own:new-task:{B}")) == 2, lambda: f"2 processes:\n{program.text}")
    return program


class Handler(TaskHandler):
    """That of a program which only makes tasks."""

    def encode_data(self, group, task_name, data):
        return data if isinstance(data, bytes) else json.dumps(data).encode()

    def decode_result(self, task, encoded):
        return encoded if b"\xff" in encoded else json.loads(encoded)


@pytest.fixture
def ours(own, own_server):
    kit = make_kit(own_server.url, Handler(), namespace="own")
    with closing(kit.app):
        yield kit


def test_bytes_that_are_no_text_travel_both_ways(ours, client):
    result = ours.initiate_task(B, "echo", b"\xff\x00")
    assert result.get(timeout=20) == b"\xff\x00"
    record = client.hgetall(f"own:task-{result.task_id}")
    assert json.loads(record[b"data"])["data"] == {"base64": "/wA="}
    assert json.loads(record[b"output"]) == {"base64": "/wA="}
    assert ours.initiate_task(B, "any_bytes", 0).get(timeout=20) == bytes(range(256))


def test_a_group_may_have_any_name(ours, client):
    result = ours.initiate_task(A, "where", None, ttl=77)
    told = result.get(timeout=20)
    assert (told["group"], told["ttl"]) == (A, 77)
    assert told["due"] == told["created"] == pytest.approx(time.time(), abs=30)
    queue = client.hget(f"own:task-{result.task_id}", "queue").decode()
    assert queue.startswith("Grosse-XL-a-")
    wait_until(lambda: 0 < client.ttl(f"own:task-{result.task_id}") <= 77, "its record goes")


def test_the_handler_decides_on_every_retry(ours):
    assert ours.initiate_task(B, "fail", 2).get(timeout=20) == 2
    failed = ours.initiate_task(B, "fail", 9)
    with pytest.raises(Failed, match="ValueError: failure 3") as told:
        failed.get(timeout=20)
    assert told.value.message.startswith("Traceback ")
    assert (told.value.task.name, told.value.task.data, told.value.task.retry_count) == ("fail", b"9", 2)
    assert told.value.task.id == failed.task_id
    assert ours.app.helpers.get_state(failed.task_id) == "EXCEPTION"


def test_a_task_is_discarded_by_its_handler_in_either_place(ours):
    for name in ("discard", "give_up"):
        result = ours.initiate_task(B, name, "spam")
        with pytest.raises(NotFound, match="spam"):
            result.get(timeout=20)
        assert ours.app.helpers.get_state(result.task_id) == "DISCARDED"


def test_a_handler_that_raises_when_it_is_asked_for_an_interval_is_asked_again(ours):
    began = time.time()
    assert ours.initiate_task(B, "raise_in_interval", 1).get(timeout=20) == 1
    assert time.time() - began >= 1


def test_a_result_that_is_no_bytes_and_data_that_are_none_end_the_task_in_words(ours, own):
    with pytest.raises(Failed, match="a handler encodes to bytes, not to 17"):
        ours.initiate_task(B, "no_bytes", 0).get(timeout=20)
    with pytest.raises(Failed, match=r"object has no attribute .no_such_name"):
        ours.initiate_task(B, "no_such_name", 0).get(timeout=20)
    assert own.process.poll() is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{}", "the data need a group and a name"),
        ('{"group": 1, "name": "echo"}', "the data need a group and a name"),
        ('{"group": "b", "name": "echo", "data": {"base64": "?"}}', "what a handler encoded is neither text nor"),
        ('{"group": "b", "name": "echo", "data": 5}', "what a handler encoded is neither text nor"),
    ],
)
def test_a_record_that_no_kit_wrote_ends_in_words(data, words, ours, client):
    client.hset("own:task-raw", mapping={"task": "taskkit", "data": data, "state": "WAIT"})
    client.lpush(f"own:new-task:{B}", "raw")
    wait_until(lambda: client.hget("own:task-raw", "state") == b"ERROR")
    assert words in client.hget("own:task-raw", "output").decode()
    client.delete("own:task-raw")


def test_a_group_has_so_many_tasks_at_a_time_on_each_process(ours):
    told = [result.get(timeout=20) for result in [ours.initiate_task(A, "nap", 0.3) for _ in range(8)]]
    assert len({pid for pid, _ in told}) == 2
    assert max(at_a_time for _, at_a_time in told) == 2


def test_a_task_may_make_others_and_wait_for_them(ours):
    assert ours.initiate_task(B, "chain", 5).get(timeout=20) == 5  # where there are two places


def test_a_killed_process_is_replaced_and_its_task_is_done_by_another(ours, client):
    result = ours.initiate_task(B, "nap", 1.5)
    node = wait_until(lambda: client.hget(f"own:task-{result.task_id}", "node"), "it runs").decode()
    os.kill(int(node.split(":")[1]), signal.SIGKILL)
    assert result.get(timeout=30)[0] != int(node.split(":")[1])
    wait_until(lambda: len(set(nodes_of(client, f"own:new-task:{B}")) - {node}) == 2, "there are two again")


def test_a_schedule_fires_and_what_the_program_drops_from_it_fires_no_more(own, ours, start, client):
    helpers = ours.app.helpers
    names = wait_until(lambda: len(found := set(helpers.get_schedules())) == 2 and found, "both are there")
    name = next(name for name in names if name.startswith("ticks:every-second-"))
    assert names == {name, "ticks:later"}
    assert helpers.get_schedules()["ticks:later"]["fields"]["tz"] == "+09:00"
    fired = wait_until(lambda: [k.decode()[9:] for k in client.scan_iter(f"own:task-{name}@*", 1000)], "it fires")[
        0
    ]
    task_id, scheduled, due, data = ours.get_result(fired).get(timeout=20)
    assert (task_id, data) == (fired, 5)
    assert scheduled == due == pytest.approx(time.time(), abs=30)

    elsewhere = make_kit(ours.app.settings.redis, Handler(), namespace="own")
    elsewhere.app.helpers.add_schedule(
        "mine", "taskkit", {"group": B, "name": "echo", "data": "1"}, cron="0 3 * * *"
    )
    assert own.interrupt() == 0
    text = (HERE / "compat" / "kit_program.py").read_text()
    without = start("without", text, PYTASK_NAMESPACE="own", WITHOUT="yes")
    wait_until(lambda: set(helpers.get_schedules()) == {"ticks:later", "mine"}, "the entry is gone")
    wait_until(lambda: len(nodes_of(client, f"own:new-task:{B}")) == 2, "its nodes take the signal")
    elsewhere.app.helpers.remove_schedule("mine")
    elsewhere.app.close()
    wait_until(
        lambda: len(nodes_of(client, f"own:new-task:{B}")) == 2, "it looks after its nodes, and takes signals"
    )
    assert without.interrupt() == 0
