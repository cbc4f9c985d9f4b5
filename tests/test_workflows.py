"""Workflows on real nodes, as their users see them: handles, inputs, ends, stops, raw producers."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from conftest import wait_until

from pytask import PyTask, chain, group, step
from pytask.errors import TaskFailed, TaskGone, TaskStateError
from pytask.store import workflows


@pytest.fixture
def node(start_node):
    return start_node()


def states_of(handle):
    return {row["name"]: row["state"] for row in handle.tasks()}


def ended(handle, server):
    """The state of a workflow, once everything of it has ended."""
    state = handle.wait(20)
    server.wait_until_idle()
    return state


# What comes of it.


def test_the_output_of_a_workflow_is_that_of_its_last_tasks_in_order(app, node):
    handle = app.start_workflow([["noop", "noop"], [("echo", {"n": 1}), "noop", ("echo", {"n": 2})]], title="T")
    assert handle.get(20) == [{"n": 1}, None, {"n": 2}]
    assert handle.state() == "SUCCESS"
    found = handle.info()
    assert (found["title"], found["total"], found["done"], found["failed"]) == ("T", 5, 5, 0)
    assert found["states"] == {"SUCCESS": 5}
    assert found["ended"] >= found["created"]


def test_a_group_returns_a_list_and_a_chain_one_output(app, node):
    assert app.start_group([("echo", {"n": n}) for n in range(3)]).get(20) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert app.start_chain(["noop", ("echo", {"n": 2})]).get(20) == {"n": 2}


def test_tasks_of_a_stage_run_beside_each_other_and_the_next_stage_waits(app, node, server):
    handle = app.start_workflow([[("sleep", {"seconds": 600}), ("sleep", {"seconds": 600})], ["noop"]])
    for number in (0, 1):
        server.wait_for_state(f"{handle}:{number}", "RUNNING")
    assert [row["state"] for row in handle.tasks()] == ["RUNNING", "RUNNING", "HELD"]
    handle.stop()
    assert handle.wait(20) == "STOPPED"


def test_a_task_reads_the_outputs_of_those_before_it(app, node):
    handle = app.start_workflow(
        [[("echo", {"n": 0}), step("echo", {"n": 1}, name="b"), ("echo", {"n": 2})], ["noop"], ["gather"]]
    )
    assert handle.get(20) == [{"inputs": {"3": None}, "states": {"3": "SUCCESS"}}]
    handle = app.start_workflow(
        [[("echo", {"n": 0}), step("echo", {"n": 1}, name="b"), ("echo", {"n": 2})], ["gather"]]
    )
    (told,) = handle.get(20)
    assert list(told["inputs"].items()) == [("0", {"n": 0}), ("b", {"n": 1}), ("2", {"n": 2})]


def test_a_task_reads_those_that_it_names_in_the_order_of_the_workflow(app, node):
    first, second = step("echo", {"n": 0}), step("echo", {"n": 1}, name="second")
    handle = app.start_workflow([first, second, "noop", step("gather", after=[second, first])], returns="list")
    outputs = handle.get(20)
    assert outputs[0] is None
    assert list(outputs[1]["inputs"].items()) == [("0", {"n": 0}), ("second", {"n": 1})]


def test_inputs_are_those_that_ended_in_success_and_states_tell_of_all(app, node):
    handle = app.start_workflow(
        [[("echo", {"n": 0}), step("fail", allow_failure=True), step("boom", allow_failure=True)], ["gather"]]
    )
    assert handle.get(20) == [
        {"inputs": {"0": {"n": 0}}, "states": {"0": "SUCCESS", "1": "ERROR", "2": "EXCEPTION"}}
    ]


def test_a_task_for_failures_reads_why_those_before_it_failed(app, node):
    first = [("echo", {"n": 0}), step("fail", {"message": "no such address"}, name="bad"), step("boom")]
    blame = [step("blame", when="on_failure")]
    handle = app.start_workflow([first, [("echo", {"n": 1})], blame])
    handle.wait(20)
    assert app.helpers.get_result(f"{handle}:4", 20) == {"3": "something before it failed"}
    handle = app.start_workflow([first, blame])
    handle.wait(20)
    told = app.helpers.get_result(f"{handle}:3", 20)
    assert list(told) == ["bad", "2"]
    assert told["bad"] == "no such address"
    assert told["2"].startswith("Traceback ")
    assert told["2"].endswith("ValueError: boom")


def test_inputs_are_empty_for_a_first_task_and_for_one_of_no_workflow(app, node):
    nothing = {"inputs": {}, "states": {}}
    assert app.start_workflow([["gather"]]).get(20) == [nothing]
    assert app.helpers.start_task("gather").get(20) == nothing


def test_a_producer_cannot_read_another_workflow_by_writing_the_field(app, node, server):
    handle = app.start_workflow([[("echo", {"n": 0})], ["gather"]], workflow_id="w")
    handle.get(20)
    server.create("spy", "gather", workflow="w")
    assert app.helpers.get_result("spy", 20) == {"inputs": {}, "states": {}}


def test_two_thousand_inputs_are_read(app, node):
    handle = app.start_workflow([[("echo", {"n": n}) for n in range(2000)], ["gather"]])
    (told,) = handle.get(60)
    assert [value["n"] for value in told["inputs"].values()] == list(range(2000))


def test_a_workflow_whose_spec_is_too_large_for_a_record_runs(app, node):
    handle = app.start_workflow([[("echo", {"text": "x" * 1000})] * 700, ["gather"]])
    (told,) = handle.get(60)
    assert len(told["inputs"]) == 700


def test_a_workflow_may_be_a_task_of_another(app, node):
    handle = app.start_workflow(
        [[step(chain([("echo", {"n": 1}), "gather"]), name="inner"), group([("echo", {"n": 2})])], ["gather"]]
    )
    (told,) = handle.get(30)
    assert told["inputs"] == {
        "inner": {"inputs": {"0": {"n": 1}}, "states": {"0": "SUCCESS"}},
        "1": [{"n": 2}],
    }
    assert [row["state"] for row in app.helpers.get_workflow_tasks(f"{handle}:inner")] == ["SUCCESS", "SUCCESS"]


def test_a_workflow_runs_in_a_namespace_beside_one_of_the_same_id(app, node, server, start_node):
    start_node("--namespace", "shop")
    with contextlib.closing(PyTask(server.url, namespace="shop")) as shop:
        theirs = shop.start_workflow([[("echo", {"n": 1})], ["gather"]], workflow_id="w")
        ours = app.start_workflow([[("echo", {"n": 2})], ["gather"]], workflow_id="w")
        assert theirs.get(20)[0]["inputs"] == {"0": {"n": 1}}
        assert ours.get(20)[0]["inputs"] == {"0": {"n": 2}}
        assert theirs.delete()
        assert [row["id"] for row in app.helpers.list_workflows()] == ["w"]
        assert shop.helpers.count_workflows() == 0


# What fails.


def test_what_waits_for_a_failure_is_skipped_and_the_workflow_fails(app, node, server):
    handle = app.start_workflow(
        [["fail", "noop"], ["noop", step("noop", when="on_failure"), step("noop", when="always")], ["noop"]]
    )
    with pytest.raises(TaskFailed, match=r"1 of 6 tasks failed: 0 \(ERROR\)"):
        handle.get(20)
    assert ended(handle, server) == "ERROR"
    assert states_of(handle) == {
        "0": "ERROR", "1": "SUCCESS", "2": "SKIPPED", "3": "SUCCESS", "4": "SUCCESS", "5": "SKIPPED",
    }  # fmt: skip
    assert server.field(f"{handle}:2", "output") == "something before it failed"


def test_what_is_for_failures_is_skipped_where_nothing_failed(app, node, server):
    handle = app.start_workflow([["noop"], ["noop", step("noop", when="on_failure")], ["noop"]])
    assert ended(handle, server) == "SUCCESS"
    assert states_of(handle) == {"0": "SUCCESS", "1": "SUCCESS", "2": "SKIPPED", "3": "SUCCESS"}


def test_an_allowed_failure_stops_nothing(app, node, server):
    handle = app.start_workflow([[step("boom", allow_failure=True)], ["noop"]])
    assert handle.get(20) == [None]
    assert states_of(handle) == {"0": "EXCEPTION", "1": "SUCCESS"}


def test_the_options_of_a_task_are_its_own(app, node):
    handle = app.start_workflow([[step("sleep", {"seconds": 60}, timeout=0.2), step("noop", title="Nothing")]])
    assert handle.wait(20) == "ERROR"
    assert [(row["title"], row["state"]) for row in handle.tasks()] == [(None, "TIMEOUT"), ("Nothing", "SUCCESS")]


def test_a_delay_and_an_expiry_count_from_the_turn_of_a_task(app, node, server):
    stages = [[("sleep", {"seconds": 0.5})], [step("noop", delay=0.3, expires_in="1h")], [step("noop", delay=0.1)]]
    handle = app.start_workflow(stages)
    assert ended(handle, server) == "SUCCESS"
    times = [
        [float(server.field(f"{handle}:{n}", name)) for name in ("created", "started", "ended")] for n in range(3)
    ]
    assert times[1][0] >= times[0][2]
    assert times[1][1] >= times[1][0] + 0.3
    assert times[2][1] >= times[1][2] + 0.1


# Control.


def test_stopping_a_workflow_stops_what_runs_and_skips_the_rest(app, node, server):
    handle = app.start_workflow([["loop", "noop"], ["noop"]])
    wait_until(lambda: states_of(handle)["0"] == "RUNNING" and states_of(handle)["1"] == "SUCCESS")
    assert handle.state() == "RUNNING"
    assert handle.stop() is True
    assert ended(handle, server) == "STOPPED"
    assert states_of(handle) == {"0": "STOPPED", "1": "SUCCESS", "2": "SKIPPED"}
    assert handle.stop() is False


def test_a_workflow_that_no_node_has_begun_can_be_stopped(app, start_node, server):
    handle = app.start_workflow([["noop"]])
    assert handle.stop() is True
    start_node()
    assert ended(handle, server) == "STOPPED"


def test_a_stop_that_arrives_when_a_workflow_is_about_to_go_on_leaves_nothing_running(app, node, server):
    for _ in range(20):
        handle = app.start_workflow([["loop"], ["noop"]])
        wait_until(lambda handle=handle: states_of(handle)["0"] == "RUNNING" and server.state(handle) == "HELD")
        pipeline = server.redis.pipeline(transaction=False)
        pipeline.hset(f"task-{handle}", "control", "stop")
        pipeline.lpush("new-task", handle)
        for _ in range(100):
            pipeline.publish(f"task-{handle}-control", "stop")
        pipeline.execute()
        assert ended(handle, server) == "STOPPED"
        assert states_of(handle) == {"0": "STOPPED", "1": "SKIPPED"}


def test_a_workflow_tells_how_far_it_is_until_its_end(app, node):
    handle = app.start_workflow([["noop"] * 5, ["noop"] * 5])
    told = [(event.event, event.data) for event in handle.events(timeout=20)]
    progress = [data for name, data in told if name == "progress"]
    assert progress[-1] == {"done": 10, "total": 10, "failed": 0}
    assert told[-1][0] == "success"
    assert handle.progress() == {"done": 10, "total": 10, "failed": 0}


def test_an_ended_workflow_is_deleted_with_all_that_belongs_to_it(app, node, server):
    handle = app.start_workflow([["noop", group(["noop"])], ["noop"]])
    assert ended(handle, server) == "SUCCESS"
    assert app.helpers.count_workflows() == 2
    assert handle.delete() is True
    left = [key for key in server.redis.keys("*") if handle.encode() in key]
    assert left == []
    assert handle.state() is None
    assert app.helpers.list_workflows() == []


def test_a_workflow_that_goes_on_is_deleted_only_by_force(app, node, server):
    handle = app.start_workflow([["loop"], ["noop"]])
    wait_until(lambda: states_of(handle)["0"] == "RUNNING")
    with pytest.raises(TaskStateError, match="is RUNNING: stop it first, or force it"):
        handle.delete()
    assert handle.delete(force=True) is True
    assert [key for key in server.redis.keys("*") if b"task-" + handle.encode() in key] == []
    server.wait_until_idle()
    with pytest.raises(TaskGone):
        handle.tasks()


def test_a_workflow_is_started_once_however_often_it_is_asked_for(app, node, server):
    handles = [app.start_workflow([[("sleep", {"seconds": 0})]], workflow_id="w") for _ in range(3)]
    assert ended(handles[0], server) == "SUCCESS"
    again = app.start_workflow([[("sleep", {"seconds": 0})]], workflow_id="w")
    server.wait_until_idle()
    assert again.state() == "SUCCESS"
    assert server.redis.llen("runs:w:0") == 1


def test_a_workflow_starts_when_it_is_due(app, node, server):
    handle = app.start_workflow([["noop"]], delay=0.3)
    server.wait_for_state(handle, "SCHEDULED", "HELD", "SUCCESS")
    assert ended(handle, server) == "SUCCESS"


# Raw producers.


def test_redis_commands_alone_start_watch_and_stop_a_workflow(server, node, events):
    spec = {"stages": [[{"task": "echo", "data": {"n": 1}}], [{"task": "gather", "name": "last"}]]}
    server.create("w", "pytask/workflow", json.dumps(spec))
    assert events.wait_for("w", "success")["data"] == [{"inputs": {"0": {"n": 1}}, "states": {"0": "SUCCESS"}}]
    assert json.loads(server.field("w:last", "output"))["inputs"] == {"0": {"n": 1}}
    server.create("x", "pytask/workflow", '{"stages": [[{"task": "loop"}], [{"task": "noop"}]]}')
    events.wait_for("x:0", "turn")
    server.redis.hset("task-x", "control", "stop")
    server.redis.lpush("new-task", "x")
    events.wait_for("x", "stopped")
    assert server.state("x:1") == "SKIPPED"


def test_a_raw_spec_by_dependency_runs_in_order(server, node):
    tasks = [
        {"task": "gather", "name": "last", "after": ["a", "b"]},
        {"task": "echo", "name": "a", "data": {"n": 1}},
        {"task": "gather", "name": "b", "after": "a"},
    ]
    server.create("w", "pytask/workflow", json.dumps({"tasks": tasks, "returns": "one"}))
    server.wait_for_state("w", "SUCCESS")
    assert json.loads(server.field("w", "output"))["states"] == {"a": "SUCCESS", "b": "SUCCESS"}


# In tests of one's own.


def test_a_task_is_run_now_with_inputs(app):
    from nodeapp import Gather

    assert app.run_now(Gather, inputs={"a": 1}) == {"inputs": {"a": 1}, "states": {"a": "SUCCESS"}}
    assert app.run_now(Gather) == {"inputs": {}, "states": {}}
    assert Gather().start() == {"inputs": {}, "states": {}}


def known_until(server):
    """Of how many Cleanup has said how long they are kept."""
    return server.redis.zcount("{workflows}:until", 0, time.time() + 30 * 86_400)


def test_a_list_shows_the_newest_end_first_however_long_each_is_kept(app, server, start_node):
    """A failure is kept for longer than a success."""
    start_node()
    for name, task in (("w1", "noop"), ("w2", "boom"), ("w3", "noop"), ("w4", "boom")):
        app.start_workflow([[task]], workflow_id=name).wait(20)
    wait_until(lambda: known_until(server) == 4, "it is known how long each is kept")
    assert [row["id"] for row in app.helpers.list_workflows()] == ["w4", "w3", "w2", "w1"]
    server.redis.zadd("{workflows}:until", {"w3": 1})
    assert [row["id"] for row in app.helpers.list_workflows()] == ["w4", "w2", "w1"]
    assert app.helpers.count_workflows() == 3
    app.start_workflow([["noop"]], workflow_id="w5").wait(20)
    wait_until(lambda: server.redis.zscore("{workflows}:ended", "w3") is None, "what is over is forgotten")
    assert [row["id"] for row in app.helpers.list_workflows()] == ["w5", "w4", "w2", "w1"]


def test_what_falls_off_the_end_of_the_list_is_counted_no_more(app, server, monkeypatch):
    """It is not counted a second time, as forgotten, when its time is over."""
    monkeypatch.setattr(workflows, "MOST_ENDED", 2)
    store = app.helpers.store.workflows
    for name in (b"w1", b"w2", b"w3", b"w4"):
        server.redis.hset(b"task-" + name, mapping={"task": "pytask/workflow", "state": "SUCCESS"})
        store.enter(name)
        store.close(name)
        store.let_expire(name, 0.001 if name == b"w2" else 100, b"1")
    assert [row["id"] for row in app.helpers.list_workflows()] == ["w4", "w3"]
    assert app.helpers.count_workflows() == 2
    assert server.redis.zrange("{workflows}:until", 0, -1) == [b"w3", b"w4"]


def test_a_workflow_of_an_app_without_the_default_queue_takes_its_steps_in_the_first_one(server, start_node):
    start_node("-q", "mail")
    with contextlib.closing(PyTask(server.url, queues=["mail", "slow"])) as app:
        inner = chain([step("noop", queue="mail"), step("noop", queue="mail")])
        assert app.start_workflow([[inner, step("noop", queue="mail")]], workflow_id="w").wait(20) == "SUCCESS"
        assert app.start_workflow([[step("noop", queue="mail")]], queue="mail").wait(20) == "SUCCESS"
        assert server.field("w", "queue") == server.field("w:0", "queue") == "mail"
