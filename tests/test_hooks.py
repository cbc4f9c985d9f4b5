"""Hooks of an app, and calls in threads."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import signal
import sys
import threading
from types import SimpleNamespace

import gevent
import pytest
from conftest import ON_ONE_SERVER, wait_until

from pytask import PyTask, Task
from pytask.errors import ConfigurationError
from pytask.hooks import Hooks
from pytask.keys import Keys
from pytask.node.hooks import call_each
from pytask.node.node import Node
from pytask.node.outcome import PUT_BACK
from pytask.node.run import RUN, Registry, Run
from pytask.node.runner import Runner
from pytask.store.claims import Claim


@pytest.fixture
def node(start_node):
    return start_node("-q", "default", "--concurrency", "7", app="hookapp:app")


def told(server, task_id="") -> list[str]:
    lines = [line.decode() for line in server.redis.lrange("told", 0, -1)]
    return [line for line in lines if not task_id or task_id in line.split()]


# Around a task.


def test_hooks_are_called_in_order_around_a_task(server, node):
    server.create("one", "plain")
    server.wait_for_state("one", "SUCCESS")
    assert told(server, "one") == ["start plain one 1", "outer-in one", "outer-out one", "end plain one SUCCESS 1"]


def test_what_the_task_raises_passes_through(server, node):
    server.create("one", "fails")
    server.wait_for_state("one", "EXCEPTION")
    output = server.field("one", "output")
    assert output.endswith("ValueError: the task's own")
    assert "hooks.py" not in output  # the traceback begins in the task
    assert told(server, "one")[2:] == ["outer-saw one ValueError", "outer-out one", "end fails one EXCEPTION 1"]


@ON_ONE_SERVER
@pytest.mark.parametrize(
    ("name", "state", "output", "logged"),
    [
        ("skipped", "SUCCESS", '"skipped"', "naughty did not call run(): task skipped runs without it"),
        ("before", "SUCCESS", '"before"', "RuntimeError: before run()"),
        ("after", "SUCCESS", '"after"', "RuntimeError: after run()"),
        ("twice", "SUCCESS", '"twice"', "run() was called before"),
        ("hidden", "EXCEPTION", "ValueError: the task's own", ""),
        ("replaced", "EXCEPTION", "ValueError: the task's own", "RuntimeError: another error"),
    ],
)
def test_a_hook_changes_nothing_of_what_becomes_of_a_task(name, state, output, logged, server, node):
    server.create("one", name)
    server.wait_for_state("one", state, "SUCCESS", "ERROR", "EXCEPTION")
    assert server.state("one") == state
    assert server.field("one", "output").endswith(output)
    node.wait_for_log(logged)
    assert told(server, "one").count(f"end {name} one {state} 1") == 1


def test_data_that_does_not_fit_is_told_of_as_well(server, node):
    server.create("one", "needs")
    server.wait_for_state("one", "ERROR")
    assert told(server, "one")[-2:] == ["outer-out one", "end needs one ERROR 1"]
    assert told(server, "one")[0] == "start needs one 1"


@ON_ONE_SERVER
def test_a_workflow_that_waits_for_its_tasks_has_raised_nothing(server, node):
    with contextlib.closing(PyTask(server.url)) as producer:
        workflow = producer.start_workflow([["plain"], ["plain"]], workflow_id="w")
        assert workflow.wait(timeout=20) == "SUCCESS"
    lines = told(server, "w")
    assert lines[:4] == ["start pytask/workflow w 1", "outer-in w", "outer-out w", "end pytask/workflow w HELD 1"]
    assert not [line for line in lines if "saw" in line]


def test_hooks_that_raise_are_logged_and_harm_nothing(server, node):
    server.create("one", "plain")
    server.wait_for_state("one", "SUCCESS")
    for words in ("the hook hookapp.broken failed", "SystemExit: 6", "hookapp.broken_end failed", "SystemExit: 5"):
        node.wait_for_log(words)


@ON_ONE_SERVER
@pytest.mark.parametrize(("name", "state"), [("killed", "SUCCESS"), ("killed-fails", "EXCEPTION")])
def test_a_greenlet_exit_of_a_hook_or_handler_loses_no_outcome(name, state, server, node):
    server.create("one", name)
    server.wait_for_state("one", state)
    assert told(server, "one")[-1] == f"end {name} one {state} 1"


@ON_ONE_SERVER
def test_each_attempt_has_its_end(server, node):
    server.create("one", "fails", retries="1", retry_delay="0.05")
    server.wait_for_state("one", "EXCEPTION")
    lines = [line for line in told(server, "one") if line.startswith(("start", "end"))]
    assert lines == [
        "start fails one 1", "end fails one RETRY 1", "start fails one 2", "end fails one EXCEPTION 2",
    ]  # fmt: skip
    server.create("two", "loop", timeout="0.2")
    server.wait_for_state("two", "TIMEOUT")
    assert told(server, "two")[-2:] == ["outer-out two", "end loop two TIMEOUT 1"]
    server.create("three", "plain")
    server.wait_for_state("three", "SUCCESS")
    assert [line for line in told(server) if line.startswith("error")] == [
        "error fails 1 ValueError the task's own",
        "error fails 2 ValueError the task's own",
        "error loop 1 TimeoutError the attempt took longer than its timeout of 0.2 s",
        "error plain 1 NoneType ",
    ]


class Reporter:
    def __call__(self, task, state, *, error):
        raise error

    def with_other_words(self, task, state, exc=None, *rest):
        assert (exc, rest) == (None, ())
        raise KeyError(task, state)


def test_the_error_is_for_who_has_a_parameter_of_that_name(caplog):
    app, error = PyTask(), ValueError("the task's own")
    for hook in (Reporter(), functools.partial(Reporter(), error="none"), Reporter().with_other_words):
        assert app.on_end(hook) is hook
    call_each(app.hooks.end, "task", "EXCEPTION", error)
    assert [record.exc_info[1].args for record in caplog.records] == [
        error.args, error.args, ("task", "EXCEPTION"),
    ]  # fmt: skip
    assert "hook test_hooks.Reporter.with_other_words failed" in caplog.text


@ON_ONE_SERVER
def test_stop_and_reload_and_the_end_of_a_node_are_ends(server, events, node):
    server.create("one", "loop")
    events.wait_for("one", "turn")
    server.redis.publish("task-one-control", "reload")
    wait_until(lambda: "end loop one RUNNING 1" in told(server, "one"), "the reload is told of")
    wait_until(lambda: told(server, "one").count("outer-in one") == 2, "and the new start")
    turns = events.names("one").count("turn")
    wait_until(lambda: events.names("one").count("turn") >= turns + 2, "it is inside")
    server.redis.publish("task-one-control", "stop")
    wait_until(lambda: "end loop one STOPPED 1" in told(server, "one"), "the stop is told of")
    assert told(server, "one").count("outer-saw one GreenletExit") == 2
    server.create("two", "loop")
    events.wait_for("two", "turn")
    node.signal(signal.SIGTERM)
    node.wait_for_log("takes no more tasks")  # two signals that follow at once may be one
    node.signal(signal.SIGTERM)
    node.wait()
    assert "end loop two WAIT 1" in told(server, "two")


@ON_ONE_SERVER
def test_a_run_that_lost_its_task_ends_without_a_state(server, events, node):
    server.create("one", "loop")
    events.wait_for("one", "turn")
    server.redis.delete("task-one")
    wait_until(lambda: any(line.startswith("end loop one") for line in told(server, "one")), "its end is told of")
    ends = [line for line in server.redis.lrange("told", 0, -1) if line.startswith(b"end loop one")]
    assert ends == [b"end loop one  1"]


def test_a_run_that_never_started_is_not_told_of():
    hooks = Hooks()
    ends = []
    hooks.end.append(lambda task, state: ends.append(task))
    settings = SimpleNamespace(max_data=1000)
    state = SimpleNamespace(registry=Registry(1), settings=settings, hooks=hooks, exception_handlers=[])
    report = SimpleNamespace(finish=lambda run, outcome: ends.append(outcome.state))
    runner = Runner(state, report, None, None)
    run = Run(Keys().queue(), b"node", Claim(b"x", b"1", b"0", b"push", b"0"))
    run.told = b"what its gates said"
    state.registry.add(run)
    run.phase = RUN
    runner.settle(run, PUT_BACK)
    assert ends == ["WAIT"]


# Of a node.


def test_a_node_tells_of_its_start_and_its_end(server, node):
    assert told(server, "node-start") == [f"node-start {node.node_id} True default 7"]
    node.terminate()
    assert told(server, "node-stop") == [f"node-stop {node.node_id}"]
    assert "ValueError: in a node's hook" in node.text()


def test_a_hook_of_a_node_that_hangs_does_not_hold_it_up(caplog):
    told = []
    node = SimpleNamespace(state=SimpleNamespace(info="info"))
    Node._call_hooks(node, [lambda _info: gevent.sleep(60), told.append], 0.05)
    assert told == ["info"]
    assert "a hook of the node took over 0.05 s: it is ended" in caplog.text


# What a hook is.


@pytest.mark.parametrize("name", ["on_node_start", "on_node_stop", "on_start", "on_end", "around"])
def test_what_is_no_plain_function_is_refused(name):
    async def coroutine():
        pass

    def generator(task, run):
        yield

    for wrong in (None, "text", coroutine, generator):
        with pytest.raises(ConfigurationError, match=name):
            getattr(PyTask(), name)(wrong)


def test_decorators_return_the_function():
    app = PyTask()

    def hook(task, run):
        run()

    assert app.around(hook) is hook
    assert app.hooks.of_tasks
    assert not Hooks().of_tasks


# Threads.


def test_a_call_in_a_thread_returns_and_raises(server, events, start_node):
    node = start_node(app="typedapp:app")
    server.create("ok", "typedapp.wait", '{"seconds": 0.01}')
    server.wait_for_state("ok", "SUCCESS")
    assert json.loads(server.field("ok", "output")) == "slept"
    assert events.wait_for("ok", "log")["data"]["message"] == "from the thread"
    for kind in ("ValueError", "SystemExit"):
        server.create(kind, "typedapp.bad_thread", json.dumps({"kind": kind}))
        server.wait_for_state(kind, "EXCEPTION")
        assert server.field(kind, "output").endswith(f"{kind}: from the thread")
    assert "Traceback" not in node.text()  # the pool says nothing of its own


@ON_ONE_SERVER
def test_a_stop_ends_the_wait_for_a_thread_at_once(server, events, start_node):
    start_node(app="hookapp:app")
    server.create("one", "thread")
    events.wait_for("one", "waiting")
    server.redis.publish("task-one-control", "stop")
    server.wait_for_state("one", "STOPPED", deadline=10)
    assert "thread-left one" in told(server, "one")
    server.create("two", "plain")
    server.wait_for_state("two", "SUCCESS")


@ON_ONE_SERVER
def test_calls_beyond_the_threads_wait_and_a_stop_of_one_leaves_no_gap(server, events, start_node):
    start_node(app="typedapp:app", threads="1")
    server.create("first", "typedapp.wait", '{"seconds": 1.5}')
    events.wait_for("first", "waiting")
    server.create("second", "typedapp.wait", '{"seconds": 0}')
    events.wait_for("second", "waiting")
    server.redis.publish("task-second-control", "stop")
    server.wait_for_state("second", "STOPPED")
    server.create("third", "typedapp.wait", '{"seconds": 0}')
    server.wait_for_state("first", "SUCCESS")
    server.wait_for_state("third", "SUCCESS")


def test_without_a_node_the_function_is_called_as_it_is():
    seen = contextvars.ContextVar("seen", default=0)
    seen.set(3)
    assert Task().in_thread(lambda *, add: (seen.get() + add, threading.current_thread()), add=1) == (
        4,
        threading.main_thread(),
    )
    with pytest.raises(SystemExit):
        Task().in_thread(sys.exit)
