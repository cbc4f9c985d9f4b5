"""Handles and results: what producers wait for. Tasks are ended here as a node ends them, by raw commands."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import ujson
from conftest import ON_ONE_SERVER, Server, wait_until

from pytask import PyTask, states, waiting, wire
from pytask.embedded import EmbeddedServer
from pytask.errors import (
    InvalidInputError,
    StoreRefused,
    StoreUnavailable,
    TaskFailed,
    TaskGone,
    TaskNotFoundError,
    TaskTimeout,
)
from pytask.handle import TaskHandle
from pytask.node import outcome

LONG = 30  # seconds that a test waits for a result at most


@pytest.fixture
def helpers(app):
    return app.helpers


def end(server: Server, task_id: str, made: outcome.Outcome | None = None, *, keep: bool = True) -> None:
    """End a task as the script finish does: the record and the event in one move."""
    made = made or outcome.success("done", 1000)
    with server.redis.pipeline(transaction=True) as move:
        move.hset(f"task-{task_id}", mapping={"state": made.state, "output": made.output, "ended": time.time()})
        move.publish(f"task-{task_id}", made.event)
        if not keep:
            move.delete(f"task-{task_id}")
        move.execute()


def success(value) -> outcome.Outcome:
    return outcome.success(value, 1_000_000)


class Waiter(threading.Thread):
    """Calls something in a thread of its own; `result` is what it returned or raised."""

    def __init__(self, function, *arguments, **keywords) -> None:
        super().__init__(daemon=True)
        self.call = lambda: function(*arguments, **keywords)
        self.result: object = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.call()
        except Exception as error:
            self.result = error

    def outcome(self) -> object:
        self.join(LONG)
        assert not self.is_alive(), "it waits still"
        return self.result


def listeners(server: Server, task_id: str) -> int:
    return server.redis.pubsub_numsub(f"task-{task_id}")[0][1]


def wait_for_listener(server: Server, task_id: str) -> None:
    wait_until(lambda: listeners(server, task_id), f"somebody waits for {task_id}")


def connections(server: Server) -> list[dict[str, str]]:
    """The connections of waiters: what they sent last gives them away."""
    return [row for row in server.redis.client_list() if row["cmd"] in ("subscribe", "unsubscribe", "ping")]


# The handle.


def test_a_handle_is_the_id_in_every_respect(helpers):
    handle = helpers.start_task("echo", task_id="näme")
    assert isinstance(handle, TaskHandle)
    assert handle == "näme"
    assert {handle: 1}["näme"] == 1
    assert f"{handle:>6}" == "  näme"
    assert json.loads(json.dumps({handle: [handle]})) == {"näme": ["näme"]}
    assert ujson.loads(ujson.dumps({"a": handle})) == {"a": "näme"}
    assert type(str(handle)) is str
    assert repr(handle) == "TaskHandle('näme')"
    assert copy.copy(handle) is copy.deepcopy(handle) is handle
    unpickled = pickle.loads(pickle.dumps(handle))
    assert unpickled == handle
    assert type(unpickled) is str
    assert helpers.get_task(handle) == helpers.get_task("näme")


def test_start_tasks_returns_handles(helpers):
    handles = helpers.start_tasks([("echo",), ("echo", {}, b"\xff")])
    assert [type(handle) for handle in handles] == [TaskHandle, TaskHandle]
    assert handles[1].state() == "WAIT"


def test_a_handle_of_any_id_reads_and_controls_its_task(server, helpers, events):
    server.create("raw", "echo", '{"a": 1}', progress='{"done": 3}', title="ten")
    handle = helpers.handle(b"raw")
    assert handle.state() == "WAIT"
    assert handle.record()["title"] == "ten"
    assert handle.progress() == {"done": 3}
    assert handle.stop() is True
    assert server.field("raw", "control") == "stop"
    handle.reload()
    handle.restart()
    assert server.field("raw", "control").startswith("restart "), "the message of the stop may be under way still"
    assert wait_until(lambda: [d for c, d in (events.read(), events.seen)[1] if c.endswith(b"-control")][1:])


def test_a_handle_of_nothing_says_so(helpers):
    handle = helpers.handle("nothing")
    assert handle.state() is None
    assert handle.record() is None
    assert handle.progress() is None
    with pytest.raises(TaskNotFoundError):
        handle.stop()


@pytest.mark.parametrize("task_id", ["", "x-control", "x" * 513, 7, None])
def test_there_is_no_handle_of_what_is_no_id(helpers, task_id):
    with pytest.raises(InvalidInputError):
        helpers.handle(task_id)


def test_progress_that_is_no_json_is_told_as_text(server, helpers):
    server.create("raw", "echo", progress="half way")
    assert helpers.handle("raw").progress() == "half way"


# One result.


@pytest.mark.parametrize("value", [None, 0, "text", {"a": [1, None, "ü"]}, 12345678901234567890])
def test_a_result_is_what_the_task_returned(server, helpers, value):
    handle = helpers.start_task("echo")
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    end(server, handle, success(value))
    assert waiter.outcome() == value
    assert handle.get() == value


def test_a_result_that_is_there_needs_one_read_and_no_subscription(server, helpers):
    handle = helpers.start_task("echo")
    end(server, handle)
    helpers.get_state(handle)
    before = server.redis.info("commandstats")
    assert handle.get() == "done"
    after = server.redis.info("commandstats")
    assert after["cmdstat_hmget"]["calls"] - before["cmdstat_hmget"]["calls"] == 1
    assert not connections(server)


def test_nothing_is_polled_while_a_result_is_waited_for(server, helpers):
    handle = helpers.start_task("echo")
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    wait_until(lambda: helpers.waiting._line._interest.watches)
    reads = [server.redis.info("commandstats")["cmdstat_hmget"]["calls"] for _ in iter_seconds(1.5)]
    assert reads[-1] == reads[len(reads) // 2]
    end(server, handle)
    assert waiter.outcome() == "done"


def iter_seconds(seconds: float):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)


FAILURES = {
    "ERROR": ("no luck", "no luck", None),
    "TIMEOUT": ("took longer than 5 s", "took longer than 5 s", None),
    "LOST": ("5 deaths", "5 deaths", None),
    "EXPIRED": ("expired before it began", "expired before it began", None),
    "SKIPPED": ("another one runs", "another one runs", None),
    "DISCARDED": ("", "", None),
    "STOPPED": ("", "", None),
    "EXCEPTION": (
        'Traceback (most recent call last):\n  File "x.py", line 1, in start\nValueError: two\nlines',
        "ValueError: two\nlines",
        'Traceback (most recent call last):\n  File "x.py", line 1, in start\nValueError: two\nlines',
    ),
}


def test_every_state_that_closes_a_task_but_success_is_a_failure():
    assert set(FAILURES) == states.ENDED - {"SUCCESS"} | {"STOPPED"}


@pytest.mark.parametrize("state", FAILURES)
@pytest.mark.parametrize("when", ["before", "while it is waited for", "and its record is gone"])
def test_another_end_than_success_is_raised(server, helpers, state, when):
    output, message, traceback = FAILURES[state]
    handle = helpers.start_task("echo", task_id="broken")
    made = outcome.failure(state, output) if output else outcome.make_outcome(state, b"", b"null")
    if when == "before":
        end(server, handle, made)
    waiter = Waiter(handle.get, LONG)
    if when != "before":
        wait_for_listener(server, handle)
        end(server, handle, made, keep=when != "and its record is gone")
    error = waiter.outcome()
    assert isinstance(error, TaskFailed)
    told = (error.id, error.state, error.output, error.message, error.traceback)
    assert told == ("broken", state, output, message, traceback)
    assert str(error).startswith(f"task 'broken' ended as {state}")


def test_a_failure_can_be_pickled():
    error = pickle.loads(pickle.dumps(TaskFailed("a", "ERROR", "no luck")))
    assert (error.id, error.state, error.message, str(error)) == (
        "a",
        "ERROR",
        "no luck",
        "task 'a' ended as ERROR: no luck",
    )


def test_what_was_read_from_a_traceback_without_a_frame_is_its_last_line():
    assert TaskFailed("a", "EXCEPTION", "Traceback (most recent call last):").message


def test_a_retry_is_no_end_and_neither_is_an_event_that_the_record_does_not_confirm(server, helpers):
    handle = helpers.start_task("echo")
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    for event in (b'{"event":"retry","data":"again"}', b'{"event":"success","data":1}', b'{"event":"exception"}'):
        server.redis.publish(f"task-{handle}", event)
    for noise in (b"", b"\xff", b"[]", b'{"event":7}', b'{"data":{"event":"success"}}', b'"event"success'):
        server.redis.publish(f"task-{handle}", noise)
    wait_until(lambda: waiter.is_alive())
    end(server, handle, success("at last"))
    assert waiter.outcome() == "at last"


@pytest.mark.parametrize("text", [b'{"data": [7], "event": "success"}', b' { "event" : "success" , "data": [7]}'])
def test_the_event_of_an_end_may_be_written_in_any_way_that_json_allows(server, helpers, text):
    handle = helpers.start_task("echo")
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    with server.redis.pipeline() as move:
        move.delete(f"task-{handle}").publish(f"task-{handle}", text).execute()
    assert waiter.outcome() == [7]


def test_the_result_of_a_record_that_goes_at_once_is_taken_from_the_event(server, helpers):
    handle = helpers.start_task("echo")
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    end(server, handle, success({"a": 1.5}), keep=False)
    assert waiter.outcome() == {"a": 1.5}
    with pytest.raises(TaskGone, match="there is no record of the task"):
        handle.get()


def test_a_task_that_never_was_is_gone(helpers):
    with pytest.raises(TaskGone):
        helpers.get_result("nothing", timeout=LONG)


def test_a_record_without_state_and_task_is_there_all_the_same(server, helpers):
    server.redis.hset("task-odd", "other", "field")
    with pytest.raises(TaskTimeout):
        helpers.get_result("odd", timeout=0.1)


def test_a_key_of_another_type_is_refused(server, helpers):
    server.redis.set("task-text", "x")
    with pytest.raises(StoreRefused, match="WRONGTYPE"):
        helpers.get_result("text", timeout=LONG)


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_a_result_that_does_not_come_in_time_is_a_timeout(helpers, seconds):
    handle = helpers.start_task("echo", task_id="slow")
    with pytest.raises(TaskTimeout, match="task 'slow' has not ended within 0") as found:
        handle.get(timeout=seconds)
    assert isinstance(found.value, TimeoutError)


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5", True, [1]])
@pytest.mark.parametrize("method", ["get_result", "follow_task"])
def test_a_timeout_that_is_no_time_is_refused(helpers, method, seconds):
    with pytest.raises(InvalidInputError, match="timeout is None or a number of seconds"):
        getattr(helpers, method)("x", timeout=seconds)
    with pytest.raises(InvalidInputError):
        helpers.as_completed([], timeout=seconds)


def test_a_timeout_may_be_longer_than_the_system_can_wait(server, helpers):
    handle = helpers.start_task("echo")
    waiter = Waiter(handle.get, 1e300)
    wait_for_listener(server, handle)
    end(server, handle)
    assert waiter.outcome() == "done"


# No end slips through.


def test_an_end_before_the_subscription_stands_is_seen(server, helpers, monkeypatch):
    handle = helpers.start_task("echo")
    watch = helpers.waiting.watch

    def late_watch(*arguments):
        end(server, handle)
        return watch(*arguments)

    monkeypatch.setattr(helpers.waiting, "watch", late_watch)
    assert handle.get(LONG) == "done"


def test_an_end_between_the_subscription_and_the_look_at_the_record_is_seen(server, helpers, monkeypatch):
    handle = helpers.start_task("echo")
    get_each, calls = helpers.store.records.get_each, []

    def late_read(*arguments):
        calls.append(listeners(server, handle))
        if len(calls) == 2:
            end(server, handle)
        return get_each(*arguments)

    monkeypatch.setattr(helpers.store.records, "get_each", late_read)
    assert handle.get(LONG) == "done"
    assert calls == [0, 1]


def test_a_record_that_is_removed_without_a_word_is_noticed_in_the_end(server, helpers, monkeypatch):
    monkeypatch.setattr("pytask.collecting.LOOK_EVERY", 0.3)
    handle = helpers.start_task("echo")
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    server.redis.delete(f"task-{handle}")
    assert isinstance(waiter.outcome(), TaskGone)


# Many results.


def test_all_results_come_in_the_order_of_the_tasks(server, helpers):
    handles = helpers.start_tasks([("echo",)] * 5)
    waiter = Waiter(helpers.wait_all, [*handles, handles[0]], LONG)
    wait_for_listener(server, handles[-1])
    for number in (3, 0, 4, 1, 2):
        end(server, handles[number], success(number))
    assert waiter.outcome() == [0, 1, 2, 3, 4, 0]
    assert helpers.wait_all([]) == []


def test_the_first_failure_ends_the_wait_for_all(server, helpers):
    handles = helpers.start_tasks([("echo",)] * 3)
    waiter = Waiter(helpers.wait_all, handles, LONG)
    wait_for_listener(server, handles[-1])
    end(server, handles[2], outcome.failure("ERROR", "no luck"))
    error = waiter.outcome()
    assert isinstance(error, TaskFailed)
    assert error.id == handles[2]


def test_errors_may_stand_in_the_places_of_results(server, helpers):
    handles = helpers.start_tasks([("echo",)] * 3)
    end(server, handles[0], outcome.failure("ERROR", "no luck"))
    end(server, handles[1], success(1))
    found = helpers.wait_all([*handles, "nothing"], timeout=0.2, return_errors=True)
    assert [type(part) for part in found] == [TaskFailed, int, TaskTimeout, TaskGone]
    with pytest.raises(TaskFailed):
        helpers.wait_all(handles, timeout=0.2)
    with pytest.raises(TaskTimeout, match="1 of 2 tasks have not ended within"):
        helpers.wait_all(handles[1:], timeout=0.2)


def test_handles_come_in_the_order_of_their_ends(server, helpers):
    handles = helpers.start_tasks([("echo",)] * 5)
    for number in (4, 1):
        end(server, handles[number], success(number))
    completed = helpers.as_completed([*handles, handles[0]], LONG)
    assert [next(completed), next(completed)] == [handles[4], handles[1]]
    wait_for_listener(server, handles[2])
    seen = []
    for number in (3, 0, 2):
        if number == 2:
            end(server, handles[2], outcome.failure("ERROR", "no luck"), keep=False)
        else:
            end(server, handles[number], success(number), keep=False)
        seen.append(next(completed))
    assert seen == [handles[3], handles[0], handles[2]]
    assert [handle.get() for handle in seen[:2]] == [3, 0]
    with pytest.raises(TaskFailed, match="no luck"):
        seen[2].get()
    assert list(completed) == []


def test_handles_that_have_not_ended_in_time_raise_behind_the_others(server, helpers):
    handles = helpers.start_tasks([("echo",)] * 2)
    end(server, handles[0])
    completed = helpers.as_completed(handles, 0.2)
    assert next(completed) == handles[0]
    with pytest.raises(TaskTimeout):
        next(completed)


def test_leaving_off_in_the_middle_leaves_no_subscription(server, helpers):
    handles = helpers.start_tasks([("echo",)] * 2)
    completed = helpers.as_completed(handles, LONG)
    waiter = Waiter(next, completed)
    wait_for_listener(server, handles[1])
    end(server, handles[0])
    assert waiter.outcome() == handles[0]
    completed.close()
    wait_until(lambda: not listeners(server, handles[1]))


def test_ten_thousand_results_are_waited_for_at_once(server, helpers):
    handles = helpers.start_tasks([("echo",)] * 10_000)
    waiter = Waiter(helpers.wait_all, handles, 60)
    wait_until(lambda: len(server.redis.pubsub_channels("task-*")) == len(handles), "all are subscribed to")
    for start in range(0, len(handles), 1000):
        with server.redis.pipeline(transaction=False) as batch:
            for number in range(start, start + 1000):
                made = success(number)
                batch.hset(f"task-{handles[number]}", mapping={"state": made.state, "output": made.output})
                batch.publish(f"task-{handles[number]}", made.event)
            batch.execute()
    waiter.join(60)
    assert waiter.result == list(range(10_000))
    assert sum(handle.get() for handle in helpers.as_completed(handles)) == sum(range(10_000))
    assert len(connections(server)) == 1
    wait_until(lambda: not server.redis.pubsub_channels("task-*"), "nobody listens any more")


@ON_ONE_SERVER
def test_a_thousand_threads_wait_on_one_connection(server, helpers):
    handles = helpers.start_tasks([("echo",)] * 1000)
    with ThreadPoolExecutor(1000) as pool:
        gets = [pool.submit(handle.get, 60) for handle in handles]
        wait_until(lambda: len(server.redis.pubsub_channels("task-*")) == 1000, "all of them wait")
        assert len(connections(server)) == 1
        for number, handle in enumerate(handles):
            end(server, handle, success(number))
        assert [get.result(60) for get in gets] == list(range(1000))


def test_many_may_wait_for_one_task_and_some_of_them_may_leave(server, helpers):
    handle = helpers.start_task("echo")
    waiters = [Waiter(handle.get, LONG) for _ in range(20)]
    hasty = [Waiter(handle.get, 0.3) for _ in range(20)]
    assert all(isinstance(waiter.outcome(), TaskTimeout) for waiter in hasty)
    end(server, handle)
    assert [waiter.outcome() for waiter in waiters] == ["done"] * 20
    late = Waiter(helpers.start_task("echo", task_id="late").get, LONG)
    wait_for_listener(server, "late")
    end(server, "late")
    assert late.outcome() == "done"


# The connection.


def test_the_connection_is_closed_when_nobody_has_waited_for_a_while(server, helpers, monkeypatch):
    monkeypatch.setattr(waiting, "LINGER", 0.2)
    handle = helpers.start_task("echo")
    for _ in range(2):
        with pytest.raises(TaskTimeout):
            handle.get(timeout=0.1)
        assert connections(server)
        wait_until(lambda: not connections(server), "it is closed")
        wait_until(lambda: "pytask-waiting" not in [thread.name for thread in threading.enumerate()])


def test_who_waits_is_told_when_the_app_disconnects_and_it_can_be_used_again(server, app):
    handle = app.helpers.start_task("echo")
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    app.disconnect()
    assert isinstance(waiter.outcome(), StoreUnavailable)
    assert not connections(server)
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    end(server, handle)
    assert waiter.outcome() == "done"
    handle._helpers.close()


def test_a_user_who_may_not_subscribe_is_told_so(server):
    server.redis.acl_setuser(
        "deaf", enabled=True, passwords=["+x"], keys=["*"], categories=["+@all"], reset_channels=True
    )
    arguments = {"unix_socket_path": server.embedded.socket_path, "username": "deaf", "password": "x"}
    app = PyTask(arguments)
    try:
        with pytest.raises(StoreRefused, match=r"[Nn]o permissions"):
            app.helpers.start_task("echo").get(LONG)
    finally:
        app.close()
        server.redis.acl_deluser("deaf")


def test_a_wait_begins_with_an_error_where_there_is_no_server(server, monkeypatch):
    app = PyTask({"host": "127.0.0.1", "port": 1})
    app.helpers.store.client.patience = 0.2
    with pytest.raises(StoreUnavailable):
        app.helpers.get_result("x")
    app.close()


@pytest.fixture
def own_server(tmp_path):
    """A server that may be stopped; it keeps its data."""
    (tmp_path / "data").mkdir(mode=0o700)
    with EmbeddedServer(tmp_path / "data") as running, redis.Redis.from_url(running.url) as client:
        yield Server(running.url, client, running)


@pytest.fixture
def own_app(own_server):
    made = PyTask(own_server.url)
    yield made
    made.close()


def test_a_wait_goes_on_across_a_restart_of_the_server(own_server, own_app):
    helpers = own_app.helpers
    before, after = helpers.start_task("echo"), helpers.start_task("echo")
    waiters = [Waiter(handle.get, LONG) for handle in (before, after)]
    both = Waiter(helpers.wait_all, [before, after], LONG)
    wait_for_listener(own_server, after)
    own_server.embedded.stop()
    own_server.embedded.start()
    own_server.redis.hset(f"task-{before}", mapping={"state": "SUCCESS", "output": '"unheard"'})
    own_server.redis.client_kill_filter(_type="pubsub")  # who read before this was written reads again
    assert waiters[0].outcome() == "unheard"
    wait_for_listener(own_server, after)
    end(own_server, after)
    assert waiters[1].outcome() == "done"
    assert both.outcome() == ["unheard", "done"]


@pytest.mark.waits
def test_a_server_that_hangs_is_noticed_and_the_wait_goes_on(own_server, own_app):
    handle = own_app.helpers.start_task("echo")
    waiter = Waiter(handle.get, 60)
    wait_for_listener(own_server, handle)
    (old,) = connections(own_server)
    os.kill(own_server.embedded.pid, signal.SIGSTOP)
    line = own_app.helpers.waiting._line
    try:
        wait_until(lambda: line._subscription is None, "the subscription is given up")
    finally:
        os.kill(own_server.embedded.pid, signal.SIGCONT)
    wait_until(lambda: [row["id"] for row in connections(own_server)] not in ([], [old["id"]]), "a new one stands")
    end(own_server, handle)
    assert waiter.outcome() == "done"


def test_a_wait_ends_in_time_while_the_server_is_away(own_server, own_app):
    handle = own_app.helpers.start_task("echo")
    waiter = Waiter(handle.get, 1.0)
    wait_for_listener(own_server, handle)
    own_server.embedded.stop()
    assert isinstance(waiter.outcome(), TaskTimeout)
    own_server.embedded.start()


# Other kinds of processes.

GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, sys
from pytask import PyTask
from pytask.errors import TaskTimeout

helpers = PyTask(sys.argv[1]).helpers
handles = helpers.start_tasks([("echo",)] * 1000)
gets = [gevent.spawn(handle.get) for handle in handles]
killed = [gevent.spawn(handle.get) for handle in handles[:100]]
gevent.sleep(0.3)
gevent.killall(killed)
try:
    with gevent.Timeout(0.1, ZeroDivisionError):
        handles[0].get()
except ZeroDivisionError:
    pass
helpers.start_task("ready", task_id="ready")
assert [get.get(timeout=30) for get in gets] == list(range(1000))
line = helpers.waiting._line
with gevent.Timeout(20):
    while line._interest or line.wishes:
        gevent.sleep(0.05)
print("all of them", *handles[:1])
"""

INTERRUPTED = """
import sys, time
from pytask import PyTask

helpers = PyTask(sys.argv[1]).helpers
handle = helpers.start_task("echo", task_id="never")
try:
    handle.get()
except KeyboardInterrupt:
    pass
line = helpers.waiting._line
deadline = time.monotonic() + 20
while line._interest or line.wishes:
    assert time.monotonic() < deadline
    time.sleep(0.05)
print("interrupted")
"""

FORKED = """
import os, sys, threading
from pytask import PyTask

helpers = PyTask(sys.argv[1]).helpers
mine, its = helpers.start_tasks([("echo", {}, "mine"), ("echo", {}, "its")])
results = []
waits = [threading.Thread(target=lambda: results.append(mine.get(30))) for _ in range(5)]
for thread in waits:
    thread.start()
while helpers.waiting._line is None or not helpers.waiting._line._interest:
    pass
child = os.fork()
if not child:
    os._exit(0 if its.get(30) == 2 else 1)
assert os.waitpid(child, 0)[1] == 0
for thread in waits:
    thread.join()
assert results == [1] * 5
print("both")
"""

FORKED_GREENLETS = "from gevent import monkey; monkey.patch_all()\nimport gevent\n" + FORKED.replace(
    "    pass\n", "    gevent.sleep(0.01)\n"
)

PATCHED_LATE = """
import sys
from pytask import PyTask
from pytask.errors import TaskTimeout

task_app = PyTask(sys.argv[1])
handle = task_app.helpers.start_task("echo", task_id="late")
try:
    handle.get(timeout=0.1)
except TaskTimeout:
    pass
task_app.disconnect()
from gevent import monkey; monkey.patch_all()
import gevent
gets = [gevent.spawn(handle.get, 30) for _ in range(50)] + [gevent.spawn(task_app.helpers.get_result, "late", 30)]
ticks = []
gevent.spawn(lambda: [(gevent.sleep(0), ticks.append(1)) for _ in range(40)])
assert [get.get() for get in gets] == [5] * 51
assert ticks, "the hub was blocked"
print("late")
"""


def run_script(text: str, server: Server) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", text, server.url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output_of(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@ON_ONE_SERVER
def test_a_thousand_greenlets_wait_and_those_that_are_killed_leave_nothing_behind(server):
    process = run_script(GREENLETS, server)
    wait_until(lambda: server.redis.exists("task-ready"), "some were killed")
    wait_until(lambda: len(server.redis.pubsub_channels("task-*")) == 1000, "the others wait")
    ids = [raw.decode() for raw in reversed(server.redis.lrange("new-task", 0, -1))]
    assert len(connections(server)) == 1
    for number, task_id in enumerate(ids[:1000]):
        end(server, task_id, success(number))
    assert output_of(process) == f"all of them {ids[0]}\n"


@ON_ONE_SERVER
def test_ctrl_c_ends_a_wait_and_leaves_nothing_behind(server):
    process = run_script(INTERRUPTED, server)
    wait_for_listener(server, "never")
    process.send_signal(signal.SIGINT)
    assert output_of(process) == "interrupted\n"


@pytest.mark.parametrize("text", [FORKED, FORKED_GREENLETS], ids=["threads", "greenlets"])
def test_a_forked_child_waits_on_a_connection_of_its_own(server, text):
    process = run_script(text, server)
    wait_for_listener(server, "its")
    wait_for_listener(server, "mine")
    assert len(connections(server)) == 2
    end(server, "its", success(2))
    end(server, "mine", success(1))
    assert output_of(process) == "both\n"


def test_a_handle_from_before_gevent_patched_works_afterwards(server):
    process = run_script(PATCHED_LATE, server)
    wait_until(lambda: listeners(server, "late") == 2, "both helpers wait")
    end(server, "late", success(5))
    assert output_of(process) == "late\n"


# With nodes.


def test_a_result_of_a_node_is_returned(server, app, start_node):
    start_node()
    helpers = app.helpers
    assert helpers.start_task("echo", a=[1, "ü"]).get(LONG) == {"a": [1, "ü"]}
    with pytest.raises(TaskFailed, match="no luck"):
        helpers.start_task("fail").get(LONG)
    with pytest.raises(TaskFailed) as found:
        helpers.start_task("boom", message="oh").get(LONG)
    assert found.value.message == "ValueError: oh"
    assert "nodeapp.py" in found.value.traceback
    loop = helpers.start_task("loop")
    waiter = Waiter(loop.get, LONG)
    server.wait_for_state(loop, "RUNNING")
    loop.stop()
    error = waiter.outcome()
    assert isinstance(error, TaskFailed)
    assert error.state == "STOPPED"


def test_a_node_that_keeps_no_records_still_tells_results_to_those_who_wait(server, app, start_node):
    handle = app.helpers.start_task("echo", {"a": 1})
    waiter = Waiter(handle.get, LONG)
    wait_for_listener(server, handle)
    start_node(result_ttl="0")
    assert waiter.outcome() == {"a": 1}
    wait_until(lambda: handle.state() is None, "the record goes")


def test_ids_and_bytes_work_as_well_as_handles(server, helpers):
    helpers.start_task("echo", task_id=b"\xff\xfe")
    server.redis.hset(b"task-\xff\xfe", mapping={"state": "SUCCESS", "output": "1"})
    assert helpers.get_result(b"\xff\xfe") == 1
    assert helpers.wait_all([wire.id_to_str(b"\xff\xfe")]) == [1]
