"""Tasks from asyncio: the same promises as the helpers', in an event loop."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest
from conftest import Server, wait_until
from test_following import own_app, own_server, short, tell
from test_results import LONG, connections, end, listeners, success, wait_for_listener

from pytask import PyTask, Task, aio_waiting
from pytask.aio_handle import AioTaskHandle
from pytask.errors import (
    ConfigurationError,
    InvalidInputError,
    SettingError,
    StoreRefused,
    StoreUnavailable,
    TaskDefinitionError,
    TaskFailed,
    TaskGone,
    TaskNotFoundError,
    TaskStateError,
    TaskTimeout,
)
from pytask.node import outcome

__all__ = ["own_app", "own_server"]


class Loop:
    """An event loop in a thread of its own, in which a test's coroutines run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def begin(self, coroutine):
        """Begin to run a coroutine: a future with `result(seconds)` and `cancel()`."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine):
        return self.begin(coroutine).result(LONG)

    def close(self) -> None:
        self.run(end_all_others())
        self.run(self.loop.shutdown_asyncgens())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(LONG)
        self.loop.close()


async def end_all_others() -> None:
    """End what a test has left: as garbage of a closed loop it would be told of in the middle of another test."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def aio(app, loop):
    yield app.aio
    loop.run(app.aio.close())


async def listed(generator) -> list:
    return [item async for item in generator]


# Making tasks.


class Echo(Task):
    NAME = "echo"
    queue = "mail"

    def __init__(self, **data):
        self.data = data

    def start(self):
        pass


def test_a_task_is_made_as_the_helpers_make_it(server, app, aio, loop):
    options = {
        "delay": "5m",
        "retries": 3,
        "retry_delay": [1, 2],
        "title": "ten",
        "cleanup": False,
        "queue": "mail",
    }
    theirs = app.helpers.start_task("echo", a=1, text="ü", **options)
    ours = loop.run(aio.start_task("echo", a=1, text="ü", **options))
    assert isinstance(ours, AioTaskHandle)
    records = [{**app.helpers.get_task(handle), "created": ""} for handle in (ours, theirs)]
    assert records[0] == records[1]
    assert app.helpers.get_new_task_ids("mail") == [theirs, ours]
    many = loop.run(aio.start_tasks([("echo",), ("echo",)], queue="mail", front=True))
    first = loop.run(aio.start_task("echo", queue="mail", front=True))
    assert app.helpers.get_new_task_ids("mail") == [first, *many, theirs, ours]


def test_a_class_its_queue_and_data_as_a_dict(server, app, aio, loop):
    handle = loop.run(aio.start_task(Echo, {"queue": "data"}, task_id=b"\xff"))
    assert app.helpers.get_new_task_ids("mail") == [handle]
    assert json.loads(server.redis.hget(b"task-\xff", "data")) == {"queue": "data"}


def test_many_tasks_are_made_in_batches(server, app, aio, loop):
    wanted = [("echo", {"n": n}) for n in range(1100)] + [{"task": "echo", "queue": "mail", "task_id": "last"}]
    handles = loop.run(aio.start_tasks(wanted))
    assert app.helpers.get_new_task_ids("", most=2000) == handles[:-1]
    assert app.helpers.get_new_task_ids("mail") == ["last"]
    assert len(set(handles)) == 1101


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (("echo", {"a": 1}), {"b": 2}),
        (("echo",), {"retries": -1}),
        (("echo",), {"delay": float("nan")}),
        (("echo",), {"due": "tomorrow"}),
        (("echo",), {"queue": "a b"}),
        (("echo",), {"task_id": "x-control"}),
        (("echo",), {"a": object()}),
        ((7,), {}),
    ],
)
def test_what_the_helpers_refuse_is_refused_and_nothing_is_sent(server, aio, loop, arguments, keywords):
    with pytest.raises((InvalidInputError, SettingError)):
        loop.run(aio.start_task(*arguments, **keywords))
    assert not server.redis.dbsize()


def test_a_unique_task_is_made_once(server, app, aio, loop):
    first = loop.run(aio.start_task("echo", unique="key"))
    assert loop.run(aio.start_task("echo", unique="key")) == first
    assert app.helpers.start_task("echo", unique="key") == first
    several = loop.run(
        aio.start_tasks([{"task": "echo", "unique": "key"}, ("echo",), {"task": "echo", "unique": "2"}])
    )
    assert several[0] == first
    assert len(app.helpers.get_new_task_ids()) == 3


def test_a_handle_is_text(aio, loop):
    handle = loop.run(aio.start_task("echo", task_id="x"))
    assert handle == "x" == f"{handle}" == json.loads(json.dumps(handle))
    assert repr(handle) == "AioTaskHandle('x')"
    assert copy.copy(handle) is copy.deepcopy(handle) is handle
    assert type(pickle.loads(pickle.dumps(handle))) is str


# Results.


def test_a_result_is_awaited(server, aio, loop):
    handle = loop.run(aio.start_task("echo"))
    getting = loop.begin(handle.get(LONG))
    wait_for_listener(server, handle)
    end(server, handle, success({"a": 1}))
    assert getting.result(LONG) == {"a": 1}
    assert loop.run(aio.get(str(handle))) == {"a": 1}
    assert loop.run(handle.state()) == "SUCCESS"
    assert loop.run(handle.record())["output"] == '{"a":1}'


def test_how_it_went_otherwise_is_raised(server, aio, loop):
    handle = loop.run(aio.start_task("echo", task_id="x"))
    with pytest.raises(TaskTimeout, match=r"task 'x' has not ended within 0\.1 s"):
        loop.run(handle.get(0.1))
    end(server, handle, outcome.failure("ERROR", "no luck"))
    with pytest.raises(TaskFailed, match="no luck"):
        loop.run(handle.get())
    with pytest.raises(TaskGone):
        loop.run(aio.get("nothing"))
    with pytest.raises(InvalidInputError):
        loop.run(aio.get("x", timeout=-1))


def test_a_result_of_a_record_that_goes_at_once_comes_from_the_event(server, aio, loop):
    handle = loop.run(aio.start_task("echo"))
    getting = loop.begin(handle.get(LONG))
    wait_for_listener(server, handle)
    end(server, handle, success(5), keep=False)
    assert getting.result(LONG) == 5


def test_all_and_as_they_come(server, aio, loop):
    handles = loop.run(aio.start_tasks([("echo",)] * 4))
    waiting = loop.begin(aio.wait_all([*handles, handles[0]], LONG))
    coming = loop.begin(listed(aio.as_completed(handles, LONG)))
    wait_for_listener(server, handles[3])
    for number in (2, 0, 3, 1):
        end(server, handles[number], success(number))
    assert waiting.result(LONG) == [0, 1, 2, 3, 0]
    completed = coming.result(LONG)
    assert completed == [handles[number] for number in (2, 0, 3, 1)]
    assert [loop.run(handle.get()) for handle in completed] == [2, 0, 3, 1]


def test_errors_may_stand_in_the_places_of_results(server, aio, loop):
    handles = loop.run(aio.start_tasks([("echo",)] * 2))
    end(server, handles[0], outcome.failure("ERROR", "no luck"))
    found = loop.run(aio.wait_all([*handles, "nothing"], 0.1, return_errors=True))
    assert [type(part) for part in found] == [TaskFailed, TaskTimeout, TaskGone]
    with pytest.raises(TaskFailed):
        loop.run(aio.wait_all(handles, LONG))


def test_hundreds_of_coroutines_wait_on_one_connection(server, aio, loop):
    handles = loop.run(aio.start_tasks([("echo",)] * 300))
    getting = [loop.begin(handle.get(LONG)) for handle in handles]
    wait_until(lambda: len(server.redis.pubsub_channels("task-*")) == 300, "all of them wait")
    assert len(connections(server)) == 1
    for number, handle in enumerate(handles):
        end(server, handle, success(number))
    assert [future.result(LONG) for future in getting] == list(range(300))


def test_many_coroutines_make_tasks_at_once(server, app, aio, loop):
    async def make() -> list:
        return await asyncio.gather(*[aio.start_task("echo", n=n) for n in range(500)])

    assert sorted(loop.run(make())) == sorted(app.helpers.get_new_task_ids())


def test_a_coroutine_that_is_cancelled_leaves_nothing_behind(server, aio, loop):
    handle = loop.run(aio.start_task("echo"))
    futures = [loop.begin(handle.get()), loop.begin(listed(handle.events())), loop.begin(aio.wait_all([handle]))]
    futures.append(loop.begin(listed(aio.as_completed([handle]))))
    wait_for_listener(server, handle)
    for future in futures:
        future.cancel()
    wait_until(lambda: not listeners(server, handle), "nobody listens")
    stays = loop.begin(handle.get(LONG))
    wait_for_listener(server, handle)
    end(server, handle)
    assert stays.result(LONG) == "done"


def test_a_cancel_that_comes_with_a_reply_is_not_lost(server, aio, loop):
    handle = loop.run(aio.start_task("echo"))

    async def cancelled_at_every_turn() -> int:
        """How many waits were cancelled, each one turn of the loop later than the one before."""
        ended = 0
        for turns in range(60):
            task = asyncio.ensure_future(handle.get())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait((task,), timeout=LONG)
            ended += len(done)
        return ended

    assert loop.begin(cancelled_at_every_turn()).result(60) == 60


def test_commands_that_are_cancelled_in_the_middle_mix_no_replies_up(server, aio, loop):
    async def hasty() -> None:
        tasks = [asyncio.ensure_future(aio.start_task("echo", n=n)) for n in range(200)]
        for number, task in enumerate(tasks):
            if number % 3 == 0:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    for _ in range(5):
        loop.run(hasty())
        handle = loop.run(aio.start_task("echo", n="after"))
        assert json.loads(loop.run(handle.record())["data"]) == {"n": "after"}


def test_an_end_before_the_subscription_stands_is_seen(server, aio, loop, monkeypatch):
    handle = loop.run(aio.start_task("echo"))
    session = aio._sessions[loop.loop]
    watch = session.waiting.watch

    def late_watch(*arguments):
        end(server, handle)
        return watch(*arguments)

    monkeypatch.setattr(session.waiting, "watch", late_watch)
    assert loop.run(handle.get(LONG)) == "done"


# Events, messages, control.


def test_events_are_replayed_and_followed(server, aio, loop):
    handle = loop.run(aio.start_task("echo"))
    tell(server, handle, "kept", 1)
    seen = []

    async def follow() -> None:
        async for event in handle.events(timeout=LONG):
            seen.append(event)

    following = loop.begin(follow())
    wait_until(lambda: seen, "the first")
    tell(server, handle, "next", 2)
    end(server, handle, success(3))
    following.result(LONG)
    assert short(seen) == [("kept", 1), ("next", 2), ("success", 3)]
    assert short(loop.run(listed(handle.events()))) == [("kept", 1), ("next", 2), ("success", 3)]
    assert short(loop.run(listed(handle.events(replay=False)))) == [("success", 3)]
    with pytest.raises(TaskGone):
        loop.run(listed(aio.events("nothing")))


def test_a_task_is_controlled(server, app, aio, loop, start_node):
    start_node()
    loops = loop.run(aio.start_task("loop"))
    following = loop.begin(listed(loops.events()))
    server.wait_for_state(loops, "RUNNING")
    assert loop.run(loops.send({"a": 1})) >= 1
    loop.run(loops.reload())
    assert loop.run(loops.stop()) is True
    assert following.result(LONG)[-1].event == "stopped"
    assert loop.run(loops.stop()) is False
    assert loop.run(aio.restart(loops, "SUCCESS")) is False
    assert loop.run(aio.restart(loops, [])) is False
    assert loop.run(aio.restart(loops, ["STOPPED"])) is True
    server.wait_for_state(loops, "RUNNING")
    parked = loop.run(aio.start_task("echo", delay=3600))
    server.wait_for_state(parked, "SCHEDULED")
    loop.run(parked.stop())
    server.wait_for_state(parked, "STOPPED")
    loop.run(parked.restart())
    assert loop.run(parked.progress()) is None
    with pytest.raises(TaskStateError):
        loop.run(aio.restart(loops, "NONSENSE"))
    for call in (aio.stop, aio.restart):
        with pytest.raises(TaskNotFoundError):
            loop.run(call("nothing"))
    with pytest.raises(InvalidInputError):
        loop.run(aio.send("x", ["no dict"]))
    assert loop.run(aio.state("nothing")) is None
    assert loop.run(aio.record("nothing")) is None


def test_a_real_node_answers(aio, loop, start_node):
    start_node()
    assert loop.run(loop.run(aio.start_task("echo", a=[1])).get(LONG)) == {"a": [1]}
    with pytest.raises(TaskFailed, match="ValueError: boom"):
        loop.run(loop.run(aio.start_task("boom")).get(LONG))


# Connections.


def test_the_subscription_is_closed_when_nobody_has_waited_for_a_while(server, aio, loop, monkeypatch):
    monkeypatch.setattr(aio_waiting, "LINGER", 0.2)
    handle = loop.run(aio.start_task("echo"))
    for _ in range(2):
        with pytest.raises(TaskTimeout):
            loop.run(handle.get(0.1))
        assert connections(server)
        wait_until(lambda: not connections(server), "it is closed")


def test_closing_ends_waits_and_it_can_be_used_again(server, aio, loop):
    handle = loop.run(aio.start_task("echo"))
    getting = loop.begin(handle.get())
    wait_for_listener(server, handle)
    loop.run(aio.close())
    with pytest.raises(StoreUnavailable):
        getting.result(LONG)
    end(server, handle)
    assert loop.run(handle.get(LONG)) == "done"


def test_one_event_loop_after_another_and_a_context(server, app):
    async def use() -> str:
        async with app.aio as aio:
            handle = await aio.start_task("echo")
            end(server, handle)
            return await handle.get(LONG)

    before = len(server.redis.client_list())
    assert [asyncio.run(use()) for _ in range(3)] == ["done"] * 3
    wait_until(lambda: len(server.redis.client_list()) == before, "all connections are closed")


def test_a_namespace_is_obeyed(server, loop):
    app = PyTask(server.url, namespace="shop")
    handle = loop.run(app.aio.start_task("echo"))
    assert server.redis.exists(f"shop:task-{handle}", "shop:new-task") == 2
    loop.run(app.aio.close())
    app.close()


def test_a_wait_goes_on_across_a_restart_of_the_server(own_server, own_app, loop):
    before, after = (loop.run(own_app.aio.start_task("echo")) for _ in range(2))
    tell(own_server, after, "kept")
    getting = [loop.begin(handle.get(LONG)) for handle in (before, after)]
    following = loop.begin(listed(after.events()))
    wait_for_listener(own_server, after)
    own_server.embedded.stop()
    own_server.embedded.start()
    own_server.redis.hset(f"task-{before}", mapping={"state": "SUCCESS", "output": '"unheard"'})
    own_server.redis.client_kill_filter(_type="pubsub")  # who read before this was written reads again
    assert getting[0].result(LONG) == "unheard"
    wait_for_listener(own_server, after)
    end(own_server, after)
    assert getting[1].result(LONG) == "done"
    assert short(following.result(LONG)) == [("kept", None), ("success", "done")]
    loop.run(own_app.aio.close())


@pytest.mark.waits
def test_a_server_that_hangs_is_noticed(own_server, own_app, loop):
    handle = loop.run(own_app.aio.start_task("echo"))
    getting = loop.begin(handle.get(60))
    wait_for_listener(own_server, handle)
    interest = own_app.aio._sessions[loop.loop].waiting._interest
    (old,) = connections(own_server)
    os.kill(own_server.embedded.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: not interest._standing, "the subscription is given up")
        with pytest.raises(StoreUnavailable):
            loop.begin(own_app.aio.state(handle)).result(60)
    finally:
        os.kill(own_server.embedded.pid, signal.SIGCONT)
    wait_until(lambda: [row["id"] for row in connections(own_server)] not in ([], [old["id"]]), "a new one stands")
    end(own_server, handle)
    assert getting.result(LONG) == "done"
    loop.run(own_app.aio.close())


def test_a_server_that_is_not_there_is_told(loop):
    app = PyTask({"host": "127.0.0.1", "port": 1})
    app.aio._sessions  # noqa: B018 - made here
    with pytest.raises(StoreUnavailable):
        loop.run(app.aio.get("x"))
    loop.run(app.aio.close())
    app.close()


def test_a_user_who_may_not_subscribe_is_told_so(server, loop):
    server.redis.acl_setuser(
        "deaf", enabled=True, passwords=["+x"], keys=["*"], categories=["+@all"], reset_channels=True
    )
    app = PyTask({"unix_socket_path": server.embedded.socket_path, "username": "deaf", "password": "x"})
    try:
        handle = loop.run(app.aio.start_task("echo"))
        with pytest.raises(StoreRefused, match=r"[Nn]o permissions"):
            loop.run(handle.get(LONG))
        loop.run(app.aio.close())
    finally:
        app.close()
        server.redis.acl_deluser("deaf")


def test_writes_are_durable_or_refused(server, loop):
    app = PyTask(server.url, durable=True)
    with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
        loop.run(app.aio.start_task("echo"))
    loop.run(app.aio.close())
    app.close()
    app = PyTask("redis+cluster://127.0.0.1:1", durable=True)
    with pytest.raises(ConfigurationError, match="durable"):
        loop.run(app.aio.state("x"))
    app.close()


WITHOUT_GEVENT = """
import asyncio, sys
from pytask import PyTask

async def main():
    async with PyTask(sys.argv[1]).aio as aio:
        handle = await aio.start_task("echo", task_id="x")
        try:
            await handle.get(0.1)
        except TimeoutError:
            print("gevent" in sys.modules)

asyncio.run(main())
"""


def test_asyncio_programs_import_no_gevent(server: Server):
    command = [sys.executable, "-W", "error", "-c", WITHOUT_GEVENT, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("False\n", "", 0)


def test_a_task_class_with_an_async_start_is_told_what_to_do():
    class Async(Task):
        NAME = "async"

        async def start(self):
            pass

    with pytest.raises(TaskDefinitionError, match="write a plain `def start`"):
        PyTask().add_task(Async)


# Workflows.


def test_a_workflow_is_started_awaited_and_stopped(loop, aio, server, start_node):
    start_node()
    handle = loop.run(aio.start_workflow([[("echo", {"n": 1})], ["gather"]], title="T"))
    (told,) = loop.run(handle.get(20))
    assert told["inputs"] == {"0": {"n": 1}}
    handle = loop.run(aio.start_workflow([["loop"], ["noop"]], workflow_id="w"))
    server.wait_for_state("w:0", "RUNNING")
    server.wait_for_state("w", "HELD")
    with pytest.raises(TaskTimeout, match="workflow 'w' has not ended"):
        loop.run(handle.get(0.05))
    assert loop.run(handle.stop()) is True
    server.wait_for_state("w", "STOPPED")
    assert server.state("w:0") == "STOPPED"
    assert server.state("w:1") == "SKIPPED"


def test_what_is_no_workflow_is_refused(loop, aio):
    with pytest.raises(InvalidInputError, match="stage 0 is empty"):
        loop.run(aio.start_workflow([[]]))
