"""taskkit's face without a node: what is written, and what is refused."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pytask import PyTask
from pytask.cli.files import find_app
from pytask.compat import taskkit
from pytask.compat.taskkit import (
    NotFound,
    RegularSchedule,
    ResultGetTimedOut,
    ScheduleEntry,
    TaskHandler,
    make_kit,
)
from pytask.errors import ConfigurationError, InvalidInputError, SettingError

NOWHERE = "redis://127.0.0.1:1"


class Handler(TaskHandler):
    def handle(self, task):
        return task.data

    def encode_data(self, group, task_name, data):
        return data if isinstance(data, bytes | float) else json.dumps(data).encode()

    def encode_result(self, task, result):
        return result

    def decode_result(self, task, encoded):
        return task, encoded


@pytest.fixture
def kit(server):
    made = make_kit(server.redis, Handler())
    yield made
    made.app.close()


def due_of(server, result):
    return float(server.field(result.task_id, "due"))


def test_a_naive_due_is_local_time(kit, server, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        result = kit.initiate_task("g", "n", 1, due=datetime(2030, 1, 1, 9))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert due_of(server, result) == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert server.redis.zscore("{new-task:g}:due", result.task_id) is None  # a node sees to it
    assert server.redis.lrange("new-task:g", 0, -1) == [result.task_id.encode()]


def test_an_aware_due_and_epoch_seconds_are_what_they_are(kit, server):
    aware = datetime(2030, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    assert (
        due_of(server, kit.initiate_task("g", "n", 1, due=aware)) == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    )
    assert due_of(server, kit.initiate_task("g", "n", 1, due=1.9e9)) == 1.9e9
    assert due_of(server, kit.initiate_task("g", "n", 1, due=datetime(1950, 1, 1, tzinfo=UTC))) == 0
    assert server.field(kit.initiate_task("g", "n", 1).task_id, "due") is None


def test_what_a_raw_producer_has_to_write(kit, server):
    result = kit.initiate_task("Größe", "n", {"a": [1]}, ttl=60)
    record = {
        key.decode(): value.decode() for key, value in server.redis.hgetall(f"task-{result.task_id}").items()
    }
    data = json.loads(record.pop("data"))
    assert data.pop("created") == pytest.approx(time.time(), abs=30)
    assert data == {"group": "Größe", "name": "n", "data": '{"a": [1]}', "ttl": 60}
    assert record.pop("queue").startswith("Grosse-")
    assert float(record.pop("created")) == pytest.approx(time.time(), abs=30)
    assert record == {"task": "taskkit", "title": "n", "state": "WAIT", "result_ttl": "60", "failure_ttl": "60"}


def test_the_result_of_a_task_that_another_program_made_is_decoded_with_its_task(kit, server):
    data = {"group": "g", "name": "n", "data": {"base64": "/wA="}, "created": 5, "due": 7, "ttl": 60}
    record = {"task": "taskkit", "state": "SUCCESS", "output": '{"base64": "/w=="}', "attempt": 3}
    server.redis.hset("task-x", mapping={**record, "data": json.dumps(data)})
    task, encoded = kit.get_result("x").get(timeout=5)
    assert encoded == b"\xff"
    assert task == taskkit.Task("x", "g", "n", b"\xff\x00", 7, 5, None, 2, 60)


def test_a_task_of_a_schedule_knows_its_time(kit, server):
    server.redis.hset(
        "task-s:k@2026-11-22T03:00:00Z",
        mapping={"task": "taskkit", "state": "SUCCESS", "output": '""', "data": '{"group": "g", "name": "n"}'},
    )
    task, _ = kit.get_result("s:k@2026-11-22T03:00:00Z").get()
    assert task.scheduled == task.due == task.created == datetime(2026, 11, 22, 3, tzinfo=UTC).timestamp()


def test_a_result_is_not_waited_for_longer_than_its_timeout(kit):
    result = kit.initiate_task("g", "n", 1)
    for timeout in (0, 0.05, -1):
        with pytest.raises(ResultGetTimedOut):
            result.get(timeout=timeout)
    with pytest.raises(NotFound):
        kit.get_result("nobody").get(timeout=5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"group": 5}, "a queue is named by text"),
        ({"group": None}, "a queue is named by text"),
        ({"name": "x" * 1001}, "text of at most 1000 characters"),
        ({"name": "\ud800"}, "cannot be written as JSON|text that can be encoded|surrogates"),
        ({"data": 0.5}, "a handler encodes to bytes, not to 0.5"),
        ({"due": -1.0}, "option due"),
        ({"due": float("nan")}, "cannot be written as JSON"),
        ({"due": "soon"}, "option due"),
        ({"due": True}, "option due"),
        ({"ttl": -1}, "option result_ttl"),
        ({"ttl": "long"}, "option result_ttl"),
    ],
)
def test_a_task_that_cannot_be_is_refused_and_nothing_is_written(arguments, words, kit, server):
    with pytest.raises((InvalidInputError, SettingError), match=words):
        kit.initiate_task(**{"group": "g", "name": "n", "data": "d", **arguments})
    assert server.redis.dbsize() == 0


def test_the_year_9999_is_a_time_as_others(kit, server):
    assert due_of(server, kit.initiate_task("g", "n", 1, due=datetime(9999, 12, 31, tzinfo=UTC))) > 2.5e11


def test_what_the_handler_raises_over_data_reaches_the_caller(kit, server):
    with pytest.raises(TypeError, match="not JSON serializable"):
        kit.initiate_task("g", "n", object())
    with pytest.raises(TypeError, match="not JSON serializable"):
        kit.start(1, {"g": 1}, {"s": [entry(data=object())]})
    assert server.redis.dbsize() == 0


# Processes and schedules.


def entry(**given):
    return {"key": "k", "group": "g", "name": "n", "data": "d", "schedule": RegularSchedule(), **given}


@pytest.fixture
def idle():
    """A kit whose Redis nobody may touch."""
    made = make_kit(NOWHERE, Handler())
    yield made
    made.app.close()


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "many", None, 1000])
def test_a_number_of_processes_that_is_none_is_refused(count, idle):
    for start in (idle.start, idle.start_processes):
        with pytest.raises(SettingError, match="1 to 256 processes"):
            start(count, {"g": 1})


@pytest.mark.parametrize(
    ("threads", "words"),
    [
        ({}, "names no group with a thread"),
        ({"g": 0}, "names no group with a thread"),
        ({"g": -1}, "0 to 1000000 threads"),
        ({"g": 1.5}, "0 to 1000000 threads"),
        ({"g": "many"}, "0 to 1000000 threads"),
        ({"g": True}, "0 to 1000000 threads"),
        ({5: 1}, "a queue is named by text"),
    ],
)
def test_threads_that_are_none_are_refused(threads, words, idle):
    with pytest.raises(SettingError if "threads" in words or "text" in words else ConfigurationError, match=words):
        idle.start(1, threads)


def test_each_group_has_its_own_threads_and_one_without_is_not_served(idle):
    idle._prepare({"a": 3, "a b": 5, "c": 0, "default": 1, "": 1}, {}, None)
    settings = idle.app.settings
    assert [name.partition("-")[0] for name in settings.queues] == ["a", "a", ""]
    assert [share.concurrency for share in settings.queues.shares.values()] == [3, 5, 2]
    assert settings.concurrency == 10


def test_two_entries_of_one_key_in_one_scheduler_are_refused(idle):
    with pytest.raises(InvalidInputError, match="scheduler 's' has two entries of the key 'k'"):
        idle.start(1, {"g": 1}, {"s": [entry(), entry(name="other")]})
    idle._prepare({"g": 1}, {"s": [entry()], "t": [entry()], "u": []}, None)
    assert set(idle.app._schedules) == {"s:k", "t:k"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (entry(schedule=lambda points, last: points), "regular is a RegularSchedule"),
        (entry(group=7), "a queue is named by text"),
        (entry(result_ttl=-5), "option result_ttl"),
        (ScheduleEntry("k", RegularSchedule(), "g", "n", "no bytes"), "a handler encodes to bytes"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_before_anything_starts(given, words, idle):
    with pytest.raises((InvalidInputError, SettingError), match=words):
        idle.start(1, {"g": 1}, {"s": [given]})


@pytest.mark.parametrize("given", [{"key": "k"}, entry(surplus=1)])
def test_an_entry_with_other_keys_is_refused(given, idle):
    with pytest.raises((KeyError, TypeError)):
        idle.start(1, {"g": 1}, {"s": [given]})


def test_a_schedule_is_in_its_own_zone_or_in_that_of_the_kit_or_in_that_of_the_machine(idle, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    own = RegularSchedule(hours={3}, minutes={0}, tzinfo=timezone(timedelta(hours=-3)))
    idle._prepare({"g": 1}, {"a": [entry(schedule=own), entry(key="l")]}, timezone(timedelta(hours=9), "JST"))
    idle._prepare({"g": 1}, {"b": [entry()]}, None)
    zones = {name: fields["tz"] for name, fields in idle.app._schedules.items()}
    assert zones == {"a:k": "-03:00", "a:l": "+09:00", "b:k": "Asia/Tokyo"}


def test_a_star_stands_for_any_part():
    assert RegularSchedule(seconds="*", minutes={0, 30}, months="*").times.minutes == {0, 30}
    assert RegularSchedule("*", "*").times.seconds is None
    with pytest.raises(InvalidInputError, match="minutes 60 is not allowed"):
        RegularSchedule(minutes=60)
    with pytest.raises(TypeError):
        RegularSchedule(years=2026)


@pytest.mark.parametrize("handler", [Handler, None, 5, object(), "handler"])
def test_a_kit_needs_a_handler(handler):
    with pytest.raises(ConfigurationError, match="a kit needs a handler"):
        make_kit(NOWHERE, handler)


def test_a_kit_may_be_made_on_an_app():
    app = PyTask(NOWHERE, queues=["mail"])
    assert make_kit(app, Handler()).pytask_app() is app
    assert app.tasks["taskkit"].handler


def test_a_file_with_a_kit_that_knows_no_group_yet_is_run_as_a_program(tmp_path):
    """Its call of `start`, which stands below `if __name__ == "__main__"`, tells the groups of its nodes."""
    file = tmp_path / "kitten.py"
    file.write_text(
        "from pytask.compat.taskkit import make_kit, TaskHandler\n"
        "class Handler(TaskHandler):\n    def handle(self, task): ...\n"
        f"kit = make_kit({NOWHERE!r}, Handler())\n"
    )
    assert find_app(str(file), None) is None
    del sys.modules["kitten"]
