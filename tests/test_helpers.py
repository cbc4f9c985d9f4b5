"""The helpers: what producers and controllers call, from a process that gevent has not patched."""

from __future__ import annotations

import json
import math

import pytest
from conftest import ON_ONE_SERVER, wait_until

from pytask import PyTask, Task
from pytask.errors import (
    InvalidInputError,
    SettingError,
    StoreRefused,
    StoreUnavailable,
    TaskNotFoundError,
    TaskStateError,
)
from pytask.store.claims import Claims

FUTURE = "9000000000"
ODD_IDS = ["plain", b"bytes", "ü", b"\xff\xfe", "with space\n*[ab]{x}", "a:b/c"]


@pytest.fixture
def helpers(app):
    return app.helpers


class Echo(Task):
    NAME = "echo"

    def __init__(self, **data):
        pass

    def start(self):
        pass


def raw(task_id: str | bytes) -> bytes:
    return task_id if isinstance(task_id, bytes) else task_id.encode("utf-8", "surrogateescape")


# Making tasks.


@pytest.mark.parametrize("task", ["echo", Echo])
@pytest.mark.parametrize(
    ("positional", "keywords", "data"),
    [
        ((), {}, {}),
        (({"a": [1, None], "task": 1, "queue": "x"},), {}, {"a": [1, None], "task": 1, "queue": "x"}),
        (
            (),
            {"text": "ü", "task": "a field of the data", "data": 2},
            {"text": "ü", "task": "a field of the data", "data": 2},
        ),
        (({},), {}, {}),
    ],
    ids=["none", "dict", "keywords", "empty"],
)
def test_a_task_is_made_and_pushed(server, helpers, task, positional, keywords, data):
    task_id = helpers.start_task(task, *positional, **keywords)
    assert server.field(task_id, "task") == "echo"
    assert json.loads(server.field(task_id, "data")) == data
    assert server.field(task_id, "cleanup") is None
    assert server.state(task_id) == "WAIT"
    assert helpers.get_new_task_ids() == [task_id]


@pytest.mark.parametrize("task_id", ODD_IDS, ids=ascii)
def test_an_id_is_text_or_bytes_and_comes_back_as_text(server, helpers, task_id):
    given = helpers.start_task("echo", {"a": 1}, task_id=task_id)
    assert isinstance(given, str)
    assert raw(given) == raw(task_id)
    assert helpers.get_new_task_ids() == [given]
    assert helpers.get_task(given) == helpers.get_task(task_id)
    assert server.redis.hget(b"task-" + raw(task_id), "task") == b"echo"


def test_an_id_that_is_not_given_is_new_each_time(helpers):
    ids = {helpers.start_task("echo") for _ in range(50)}
    assert len(ids) == 50
    assert all(len(task_id) == 32 for task_id in ids)


def test_ids_of_all_kinds_run_to_their_end(server, helpers, start_node):
    start_node(local_tasks="false")
    ids = [helpers.start_task("echo", task_id=task_id) for task_id in ODD_IDS]
    for task_id in ids:
        wait_until(lambda task_id=task_id: helpers.get_task(task_id, "state") == "SUCCESS")
    wait_until(lambda: sorted(helpers.get_end_task_ids()) == sorted(ids))
    server.wait_until_idle()
    assert helpers.get_active_task_ids() == []


def test_cleanup_false_goes_into_the_record(server, helpers):
    assert server.field(helpers.start_task("echo", cleanup=False), "cleanup") == "false"


def test_a_task_may_go_into_another_queue(server, helpers):
    task_id = helpers.start_task("echo", queue="mail")
    assert helpers.get_new_task_ids() == []
    assert helpers.get_new_task_ids("mail") == [task_id]
    assert helpers.get_new_task_ids("default") == []
    with pytest.raises(SettingError, match="queue name"):
        helpers.start_task("echo", queue="no queue")


def test_a_task_may_go_before_all_that_wait(helpers):
    waits = helpers.start_tasks([("echo",), ("echo",)])
    first = helpers.start_task("echo", front=True)
    many = helpers.start_tasks([("echo",), {"task": "echo"}], front=True)
    last = helpers.start_task("echo", front=False)
    assert helpers.get_new_task_ids() == [*many, first, *waits, last]
    for start in (lambda: helpers.start_task("echo", front="left"), lambda: helpers.start_tasks([], front=1)):
        with pytest.raises(InvalidInputError, match="front is True or False, not"):
            start()
    assert helpers.get_task(helpers.start_task("echo", {"front": "left"}), "data") == '{"front":"left"}'


@pytest.mark.parametrize(
    ("positional", "keywords", "why"),
    [
        (("echo", {"a": 1}), {"b": 2}, "not both"),
        (("echo", {}), {"b": 2}, "not both"),
        (("echo", [1]), {}, "data is a dict, not list"),
        (("echo", "text"), {}, "data is a dict, not str"),
        (("echo", {"a": math.nan}), {}, "cannot be written as JSON"),
        (("echo",), {"a": object()}, "cannot be written as JSON"),
        (("",), {}, "its name, its class or its function"),
        ((None,), {}, "its name, its class or its function"),
        ((Task,), {}, "its name, its class or its function"),
        (("echo",), {"task_id": ""}, "empty"),
        (("echo",), {"task_id": "x" * 513}, "512 bytes"),
        (("echo",), {"task_id": "a-control"}, "-control"),
        (("echo",), {"task_id": 5}, "not int"),
    ],
)
def test_a_task_that_is_none_is_refused_before_anything_is_written(server, helpers, positional, keywords, why):
    with pytest.raises(InvalidInputError, match=why):
        helpers.start_task(*positional, **keywords)
    assert server.redis.dbsize() == 0


def test_many_tasks_are_made_in_batches_with_their_progress(server, helpers):
    told = []
    rows = (("echo", {"n": number}, f"t{number}") for number in range(1201))
    ids = helpers.start_tasks(rows, progress=told.append)
    assert ids == [f"t{number}" for number in range(1201)]
    assert told == [500, 1000, 1201]
    assert helpers.get_new_task_ids() == ids
    assert json.loads(server.field("t1200", "data")) == {"n": 1200}


@pytest.mark.parametrize("tasks", ["noop", ["n"], [b"n"], [5], [None], [{"noop"}]], ids=repr)
def test_what_is_no_list_of_tasks_makes_none(tasks, server, app):
    with pytest.raises(InvalidInputError, match="a task is"):
        app.helpers.start_tasks(tasks)
    assert server.redis.dbsize() == 0


def test_what_the_iterable_of_start_tasks_raises_comes_when_the_batches_before_are_made(server, app):
    made = []

    def tasks():
        for _ in range(1200):
            yield ("noop",)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        app.helpers.start_tasks(tasks(), progress=made.append)
    assert made == [500, 1000]
    assert server.redis.llen("new-task") == 1000


def test_an_iterable_may_wait_for_the_tasks_that_it_has_given(server, app):
    def tasks():
        for number in range(1500):
            if number >= 500:
                wait_until(lambda: server.redis.llen("new-task") >= 500, "the first batch is there")
            yield ("noop",)

    assert len(set(app.helpers.start_tasks(tasks()))) == 1500
    assert server.redis.llen("new-task") == 1500


def test_many_tasks_have_many_forms(server, helpers):
    rows = [
        ("echo",),
        (Echo, {"a": 1}),
        ("echo", None, b"\xff"),
        {"task": "echo", "cleanup": False, "data": {"b": 2}},
    ]
    ids = helpers.start_tasks(rows, queue="mail")
    assert helpers.get_new_task_ids("mail") == ids
    assert raw(ids[2]) == b"\xff"
    assert [json.loads(helpers.get_task(task_id, "data")) for task_id in ids] == [{}, {"a": 1}, {}, {"b": 2}]
    assert helpers.get_task(ids[3], "cleanup") == "false"
    assert helpers.start_tasks([]) == []


@pytest.mark.parametrize(
    "row", [(), ("a", {}, "i", 1), {"data": {}}, {"task": "a", "tsak_id": "x"}, ("a", {}, "")]
)
def test_a_row_that_is_no_task_is_refused(helpers, row):
    with pytest.raises(InvalidInputError):
        helpers.start_tasks([row])


def test_an_id_that_has_ended_does_not_run_again_by_being_made_again(server, helpers, start_node, events):
    start_node()
    helpers.start_task("sleep", seconds=0, task_id="T")
    server.wait_for_state("T", "SUCCESS")
    helpers.start_task("sleep", seconds=0, task_id="T")
    events.wait_for("T", "ignored")
    assert server.redis.llen("runs:T") == 1


# Stopping.


def test_stopping_a_task_that_waits_keeps_it_from_running(server, helpers, start_node, events):
    helpers.start_task("echo", task_id="T")
    assert helpers.stop_task("T") is True
    assert helpers.stop_task("T") is True
    start_node()
    server.wait_for_state("T", "STOPPED")
    assert events.names("T") == ["stopped"]
    assert helpers.stop_task("T") is False


def test_stopping_a_task_that_runs_ends_it(server, helpers, start_node, events):
    start_node()
    helpers.start_task("loop", task_id=b"\xff")
    events.wait_for(b"\xff", "turn")
    assert helpers.stop_task(b"\xff") is True
    server.wait_for_state(b"\xff", "STOPPED")
    assert "stopping" in events.names(b"\xff"), "its own stop() is called"
    server.wait_until_idle()
    wait_until(lambda: not server.redis.exists("{new-task}:control"))
    assert helpers.get_task(b"\xff", "control") is None


def test_stopping_a_task_whose_message_gets_lost_still_ends_it(server, helpers, start_node, events):
    """The note is left where the beat of its node finds it, and the field of the record."""
    start_node()
    helpers.start_task("loop", task_id="T")
    events.wait_for("T", "turn")
    server.redis.hset("task-T", "control", "stop")
    assert helpers.store.claims().note_stop(b"T", server.field("T", "fence").encode())
    server.wait_for_state("T", "STOPPED")


@ON_ONE_SERVER
def test_a_note_of_an_earlier_claim_stops_no_run_whose_record_asks_for_none(server, helpers, start_node, events):
    """A beat's answer may be read when the claim that it speaks of has ended and the id runs anew."""
    start_node()
    helpers.start_task("loop", task_id="T")
    events.wait_for("T", "turn")
    assert helpers.store.claims().note_stop(b"T", server.field("T", "fence").encode())
    beats = int(server.redis.hvals("{new-task}:nodes")[0])
    wait_until(lambda: int(server.redis.hvals("{new-task}:nodes")[0]) >= beats + 3)
    assert server.field("T", "state") == "RUNNING"


def test_stopping_a_task_that_waits_for_a_time_ends_it_at_once(server, helpers, start_node):
    start_node()
    server.create("T", "echo", due=FUTURE)
    server.wait_for_state("T", "SCHEDULED")
    wait_until(lambda: server.redis.zscore("{new-task}:due", "T"))
    assert helpers.stop_task("T") is True
    server.wait_for_state("T", "STOPPED")
    assert not server.redis.exists("{new-task}:due")


def test_stopping_a_task_that_has_ended_does_nothing(server, helpers):
    for state in ("SUCCESS", "ERROR", "LOST", "STOPPED"):
        server.redis.hset("task-T", mapping={"task": "echo", "state": state})
        assert helpers.stop_task("T") is False
        assert server.field("T", "control") is None


@pytest.fixture
def meanwhile(helpers, monkeypatch):
    """Lets the reply of the next script get lost: it is done, then what is given here, then the error comes."""

    def lose_reply(then):
        client = helpers.store.records.client
        call = client.call

        def call_in_vain(*args, **options):
            monkeypatch.setattr(client, "call", call)
            call(*args, **options)
            then()
            raise StoreUnavailable("the reply is lost")

        monkeypatch.setattr(client, "call", call_in_vain)

    return lose_reply


def test_a_stop_whose_reply_was_lost_and_that_was_obeyed_meanwhile_is_no_refusal(server, helpers, meanwhile):
    server.redis.hset("task-T", mapping={"task": "echo", "state": "WAIT"})
    meanwhile(lambda: server.redis.hset("task-T", "state", "STOPPED"))
    assert helpers.stop_task("T") is True
    assert helpers.stop_task("T") is False


def test_a_stop_whose_reply_was_lost_is_too_late_where_the_task_ended_otherwise(server, helpers, meanwhile):
    server.redis.hset("task-T", mapping={"task": "echo", "state": "WAIT"})
    meanwhile(lambda: server.redis.hset("task-T", "state", "SUCCESS"))
    assert helpers.stop_task("T") is False


def test_a_restart_whose_reply_was_lost_still_pushes_the_id(server, helpers, meanwhile):
    server.redis.hset("task-T", mapping={"task": "echo", "state": "STOPPED", "at": "new-task:mail"})
    meanwhile(lambda: None)
    assert helpers.restart_if_state("T", "STOPPED") is True
    assert server.redis.lrange("new-task:mail", 0, -1) == [b"T"]


def test_a_restart_whose_reply_was_lost_does_not_run_the_task_once_more(server, helpers, start_node, meanwhile):
    helpers.start_task("echo", task_id="T")
    start_node()
    server.wait_for_state("T", "SUCCESS")
    fences = [server.field("T", "fence")]

    def runs():
        wait_until(lambda: server.field("T", "fence") != fences[-1] and server.state("T") == "SUCCESS", "it runs")
        server.wait_until_idle()
        fences.append(server.field("T", "fence"))

    meanwhile(lambda: server.redis.lpush("new-task", "T") and runs())
    helpers.restart_task("T")
    server.wait_until_idle()
    assert (server.state("T"), server.field("T", "fence")) == ("SUCCESS", fences[-1])
    meanwhile(lambda: None)
    helpers.restart_task("T")
    runs()


@pytest.mark.parametrize("name", ["stop_task", "restart_task"])
def test_a_task_that_is_not_there_is_told(server, helpers, name):
    with pytest.raises(TaskNotFoundError, match="there is no task with the id 'a b'"):
        getattr(helpers, name)("a b")
    assert server.redis.dbsize() == 0


@ON_ONE_SERVER
def test_a_stop_that_is_noted_late_does_not_stop_the_next_run(server, helpers, start_node, events, monkeypatch):
    start_node()
    helpers.start_task("loop", task_id="T")
    events.wait_for("T", "turn")
    note = Claims.note_stop

    def note_late(*args: object) -> None:
        server.wait_for_state("T", "STOPPED")
        server.wait_until_idle()
        note(*args)

    monkeypatch.setattr(Claims, "note_stop", note_late)
    helpers.stop_task("T")
    helpers.restart_task("T")
    server.wait_for_state("T", "RUNNING")
    beats = int(server.redis.hvals("{new-task}:nodes")[0])
    wait_until(lambda: int(server.redis.hvals("{new-task}:nodes")[0]) >= beats + 3)
    assert server.state("T") == "RUNNING"


# Reloading and restarting.


def test_a_running_task_is_reloaded_with_what_set_task_wrote(server, helpers, start_node, events):
    start_node()
    helpers.start_task("loop", text="old", task_id="T")
    assert events.wait_for("T", "turn")["data"]["text"] == "old"
    helpers.set_task("T", data={"text": "new"})
    helpers.reload_task("T")
    events.wait_for("T", "reloaded")
    wait_until(lambda: events.of("T")[-1]["data"] == {"text": "new", "attempt": 1})
    helpers.reload_task("not there")


def test_an_ended_task_is_restarted_and_counts_from_one(server, helpers, start_node, events):
    start_node()
    helpers.start_task("fail", task_id="T")
    events.wait_for("T", "error")
    wait_until(lambda: server.redis.ttl("task-T") > 0, "Cleanup has seen it")
    helpers.set_task("T", {"task": "sleep", "data": {"seconds": 0}})
    helpers.restart_task("T")
    server.wait_for_state("T", "SUCCESS")
    assert server.field("T", "attempt") == "1"


def test_a_stopped_task_is_restarted(server, helpers, start_node, events):
    start_node()
    helpers.start_task("loop", task_id="T")
    for _ in range(3):
        events.wait_for("T", "turn")
        helpers.stop_task("T")
        server.wait_for_state("T", "STOPPED")
        events.seen.clear()
        helpers.restart_task("T")
    events.wait_for("T", "turn")


def test_a_running_task_is_restarted_after_its_end(server, helpers, start_node, events):
    start_node()
    helpers.start_task("sleep", seconds=0.5, task_id="T")
    server.wait_for_state("T", "RUNNING")
    helpers.restart_task("T")
    wait_until(lambda: events.names("T").count("success") == 2)
    server.wait_until_idle()
    assert server.redis.llen("runs:T") == 2
    assert server.state("T") == "SUCCESS"


def test_a_task_is_restarted_into_the_queue_it_came_from(server, helpers, start_node):
    node = start_node("-q", "mail")
    helpers.start_task("echo", task_id="T", queue="mail")
    server.wait_for_state("T", "SUCCESS")
    node.terminate()
    helpers.restart_task("T")
    assert (helpers.get_new_task_ids(""), helpers.get_new_task_ids("mail")) == ([], ["T"])


def test_a_task_that_never_ran_is_restarted_into_its_own_queue(helpers):
    helpers.start_task("echo", task_id="T", queue="mail")
    helpers.restart_task("T")
    assert helpers.get_new_task_ids("") == []


def test_a_task_is_restarted_if_its_state_is_one_of_these(server, helpers):
    server.redis.hset("task-T", mapping={"task": "echo", "state": "ERROR"})
    assert helpers.restart_if_state("T", "SUCCESS") is False
    assert helpers.restart_if_state("T", []) is False
    assert helpers.get_new_task_ids() == []
    assert helpers.restart_if_state("T", ["STOPPED", "ERROR"]) is True
    assert server.state("T") == "WAIT"
    assert helpers.get_new_task_ids() == ["T"]
    assert helpers.restart_if_state("T", iter(["WAIT"])) is True
    with pytest.raises(TaskStateError, match="'DONE' is no state; the states are WAIT"):
        helpers.restart_if_state("T", ["ERROR", "DONE"])
    with pytest.raises(TaskNotFoundError):
        helpers.restart_if_state("other", "ERROR")


# Removing.


def test_a_task_that_runs_is_stopped_and_its_record_stays_away(server, helpers, start_node, events):
    start_node()
    helpers.start_task("loop", task_id="T")
    events.wait_for("T", "turn")
    assert helpers.remove_task("T") is True
    wait_until(lambda: not helpers.get_active_task_ids(), "its claim was given up")
    assert helpers.get_task("T") is None
    assert helpers.remove_task("T") is False


def test_a_task_that_has_ended_is_removed(server, helpers):
    server.redis.hset("task-T", mapping={"task": "echo", "state": "SUCCESS"})
    assert helpers.remove_task(b"T") is True
    assert server.redis.dbsize() == 0


# Records and lists.


def test_a_record_is_read_whole_or_in_part(server, helpers):
    server.redis.hset("task-T", mapping={"task": "echo", "data": '{"a":"ü"}', "output": b"\xff"})
    assert helpers.get_task("T") == {"task": "echo", "data": '{"a":"ü"}', "output": "\\xff"}
    assert helpers.get_task(b"T", ["task", "state"]) == {"task": "echo", "state": None}
    assert helpers.get_task("T", "task") == "echo"
    assert helpers.get_task("T", "state") is None
    assert helpers.get_task("T", []) == {}
    assert helpers.get_task("other") is None
    assert helpers.get_task("other", ["task"]) == {"task": None}
    server.redis.set("task-text", "text")
    with pytest.raises(StoreRefused, match="WRONGTYPE"):
        helpers.get_task("text")


def test_many_records_are_read_in_order(helpers):
    ids = helpers.start_tasks([("echo", {"n": n}, f"m{n}") for n in range(250)])
    found = helpers.get_tasks(["none", *ids, b"m0"])
    assert found[0] is None
    assert found[1:] == [helpers.get_task(task_id) for task_id in [*ids, "m0"]]
    assert helpers.get_tasks([]) == []


def test_fields_are_written_as_the_wire_wants_them(server, helpers):
    helpers.set_task("T", {"task": "echo", "odd name": b"\xff"}, data={"a": [1]}, cleanup=False, n=3, due=1.5)
    assert server.redis.hgetall("task-T") == {
        b"task": b"echo",
        b"odd name": b"\xff",
        b"data": b'{"a":[1]}',
        b"cleanup": b"false",
        b"n": b"3",
        b"due": b"1.5",
    }
    with pytest.raises(InvalidInputError, match="at least one field"):
        helpers.set_task("T")


def test_lists_show_where_ids_are(server, helpers, start_node):
    node = start_node("-c", "2", local_tasks="false", hash_wait="0")
    server.redis.lpush("new-task", "no-record")
    wait_until(lambda: helpers.get_dead_task_ids() == ["no-record"])
    ids = helpers.start_tasks([("sleep", {"seconds": 600}, f"t{number}") for number in range(5)])
    wait_until(lambda: sorted(helpers.get_active_task_ids()) == ids[:2])
    assert helpers.get_new_task_ids() == ids[2:]
    assert helpers.get_new_task_ids(most=1) == ["t2"]
    server.redis.hset("{new-task}:claims", "t9", "-lost push")
    assert sorted(helpers.get_active_task_ids()) == ids[:2], "a mark is no claim"
    server.redis.lpush("end-task", "e1", "e2", "e3")
    assert helpers.get_end_task_ids() == ["e1", "e2", "e3"]
    assert helpers.get_end_task_ids(most=2) == ["e1", "e2"]
    assert helpers.get_new_task_ids(most=0) == helpers.get_end_task_ids(most=0) == []
    (about,) = helpers.get_nodes().values()
    assert (int(about["pid"]), about["queues"], about["concurrency"]) == (node.pid, "default", "2")


def test_lists_cover_the_queues_of_the_app(server):
    app = PyTask(server.url, queues=["default", "mail"])
    app.helpers.start_task("echo", task_id="a")
    app.helpers.start_task("echo", task_id="b", queue="mail")
    assert app.helpers.get_new_task_ids() == ["a", "b"]
    assert app.helpers.get_new_task_ids("mail") == ["b"]
    app.close()
