"""What the helpers do for workflows, as far as no node is needed: starting, looking, removing."""

from __future__ import annotations

import json
import pickle

import pytest

from pytask import chain, group
from pytask.errors import InvalidInputError, TaskFailed, TaskGone, TaskStateError, TaskTimeout
from pytask.workflow import plan_of


@pytest.fixture
def helpers(app):
    return app.helpers


def record(server, task_id):
    return {key.decode(): value.decode() for key, value in server.redis.hgetall(f"task-{task_id}").items()}


def test_a_workflow_is_a_task_whose_data_is_its_spec(app, server):
    handle = app.start_workflow([["a"], [("b", {"n": 1})]], title="T", queue="steps", result_ttl="1h")
    found = record(server, handle)
    assert found.pop("created")
    assert json.loads(found.pop("data")) == {
        "title": "T", "stages": [[{"task": "a"}], [{"task": "b", "data": {"n": 1}}]],
    }  # fmt: skip
    assert found == {
        "task": "pytask/workflow", "title": "T", "queue": "steps", "result_ttl": "3600", "state": "WAIT",
    }  # fmt: skip
    assert server.redis.lrange("new-task:steps", 0, -1) == [handle.encode()]


def test_a_spec_that_is_too_large_for_a_record_is_written_in_parts(app, server):
    stage = [("a", {"text": "x" * 1000})] * 700
    handle = app.start_workflow([stage], title="Big")
    found = json.loads(record(server, handle)["data"])
    spec = app.helpers.store.workflows.get_spec(handle.encode())
    assert found == {"chunks": 3, "title": "Big"}
    assert len(plan_of(json.loads(spec)).tasks) == 700
    assert [row["name"] for row in handle.tasks(page=7, limit=100)][:2] == ["600", "601"]


def test_a_start_that_is_repeated_changes_nothing(app, server):
    first = app.start_workflow([["a"]], workflow_id="w", title="first")
    again = app.start_workflow([["a"], ["b"]], workflow_id="w", title="second")
    assert first == again == "w"
    assert record(server, "w")["title"] == "first"
    assert server.redis.lrange("new-task", 0, -1) == [b"w"]


def test_an_id_of_another_task_is_refused(app, server):
    app.helpers.start_task("noop", task_id="plain")
    with pytest.raises(TaskStateError, match="the id 'plain' is that of a task which is no workflow"):
        app.start_workflow([["a"]], workflow_id="plain")
    assert record(server, "plain")["task"] == "noop"


def test_a_group_and_a_chain_are_one_line(app, server):
    beside = json.loads(record(server, app.start_group(["a", "b"], title="G"))["data"])
    behind = json.loads(record(server, app.start_chain(["a", "b"]))["data"])
    assert beside == {"title": "G", "stages": [[{"task": "a"}, {"task": "b"}]]}
    assert behind == {"returns": "one", "stages": [[{"task": "a"}], [{"task": "b"}]]}
    assert json.loads(record(server, app.start_workflow(chain(["a", "b"])))["data"]) == behind
    assert json.loads(record(server, app.start_workflow(group(["a", "b"]), title="G"))["data"]) == beside


def test_a_new_workflow_waits_and_stands_in_the_list(app):
    handle = app.start_workflow([["a"], ["b"]], title="T")
    assert handle.state() == "WAIT"
    found = handle.info()
    assert found.pop("created") > 1e9
    assert found == {
        "id": handle, "title": "T", "state": "WAIT", "total": None, "done": None, "failed": None, "ended": None,
        "states": {}, "output": None,
    }  # fmt: skip
    assert [row["id"] for row in app.helpers.list_workflows()] == [handle]


def test_the_list_has_pages_and_a_count_and_begins_with_the_newest(helpers):
    for n in range(5):
        helpers.start_workflow([["a"]], workflow_id=f"w{n}")
    assert helpers.count_workflows() == 5
    pages = [[row["id"] for row in helpers.list_workflows(page=page, limit=2)] for page in (1, 2, 3, 4)]
    assert pages == [["w4", "w3"], ["w2", "w1"], ["w0"], []]


def test_the_tasks_of_a_new_workflow_are_told_in_its_order(app):
    handle = app.start_workflow([["a"], [("b", {})], [{"task": "c", "name": "last"}]], workflow_id="w")
    assert handle.tasks() == [
        {"name": name, "id": f"w:{name}", "task": None, "title": None, "state": "HELD"}
        for name in ("0", "1", "last")
    ]
    assert [row["name"] for row in handle.tasks(page=2, limit=2)] == ["last"]
    assert handle.tasks(page=3, limit=2) == []


@pytest.mark.parametrize("data", ["{}", '{"stages": 5}', '{"stages": [5]}', '{"stages": [[5]]}', "[]", "no JSON"])
def test_what_a_raw_producer_wrote_and_is_no_spec_has_no_tasks(helpers, server, data):
    server.create("w", "pytask/workflow", data)
    assert helpers.get_workflow_tasks("w") == []
    assert helpers.get_workflow_state("w") == "WAIT"


def test_a_workflow_that_is_not_there(helpers):
    handle = helpers.workflow("nobody")
    assert handle.state() is None
    assert handle.info() is None
    assert handle.progress() is None
    assert handle.delete() is False
    for ask in (handle.tasks, handle.wait, handle.get, lambda: next(handle.events())):
        with pytest.raises(TaskGone, match="there is no record of the workflow 'nobody'"):
            ask()


def test_waiting_for_a_workflow_ends_with_its_state_or_too_late(app, server, helpers):
    handle = app.start_workflow([["a"]])
    text = str(handle)
    for wait in (
        handle.wait,
        handle.get,
        helpers.handle(text).get,
        lambda seconds: helpers.wait_all([text], seconds),
    ):
        with pytest.raises(TaskTimeout, match=f"^workflow '{handle}' has not ended within 0.1 s; it goes on"):
            wait(0.1)
    for follow in (handle.events, lambda timeout: helpers.follow_task(text, timeout=timeout)):
        with pytest.raises(TaskTimeout, match=f"^workflow '{handle}' has not ended"):
            list(follow(timeout=0.05))
    server.redis.hset(f"task-{handle}", mapping={"state": "SUCCESS", "output": "[1]"})
    assert handle.wait(1) == handle.state() == "SUCCESS"
    assert handle.get(1) == [1]
    server.redis.hset(f"task-{handle}", mapping={"state": "ERROR", "output": "no"})
    assert handle.wait(1) == "ERROR"
    with pytest.raises(TaskFailed, match=f"^workflow '{handle}' ended as ERROR: no") as found:
        handle.get(1)
    assert pickle.loads(pickle.dumps(found.value)).kind == "workflow"


def test_a_workflow_that_has_not_ended_is_not_deleted_unless_it_is_forced(app, server):
    handle = app.start_workflow([["a"]])
    with pytest.raises(TaskStateError, match="is WAIT: stop it first, or force it"):
        handle.delete()
    assert server.redis.exists(f"task-{handle}")


def test_deleting_removes_the_records_of_the_workflow_and_of_those_inside_it(app, server):
    handle = app.start_workflow([["a", group(["b"])]], workflow_id="w")
    app.helpers.start_workflow(group(["b"]), workflow_id="w:1")
    store = app.helpers.store.workflows
    from pytask.store.workflows import Noted

    for workflow, names in (("w", ["0", "1"]), ("w:1", ["0"])):
        noted = {name: Noted("SUCCESS", "on_success", False, None, ()) for name in names}
        store.lay_out(workflow.encode(), noted, [], {"total": len(names)})
        server.redis.hset(f"task-{workflow}", "state", "SUCCESS")
    for task_id in ("w:0", "w:1:0"):
        server.redis.hset(f"task-{task_id}", mapping={"task": "a", "state": "SUCCESS"})
        server.redis.xadd(f"{{task-{task_id}}}:events", {"event": "x"})
    server.redis.hset("task-other", "task", "a")
    assert handle.state() == "SUCCESS"
    assert handle.delete() is True
    assert sorted(server.redis.keys()) == [b"new-task", b"task-other"]
    assert handle.delete() is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"workflow_id": "a{b}"}, "the id of a workflow has no brace"),
        ({"workflow_id": ""}, "an id must not be empty"),
        ({"workflow_id": "w" * 511}, "at most 512 bytes together"),
        ({"title": "t" * 1001}, "at most 1000 characters"),
        ({"returns": "some"}, "returns is list or one"),
        ({"delay": -1}, "option delay: -1 is not allowed"),
        ({"delay": 1, "due": 1}, "give due or delay, not both"),
        ({"result_ttl": "never"}, "option result_ttl: 'never' is not allowed"),
    ],
)
def test_what_is_wrong_with_a_workflow_is_refused_before_anything_is_written(app, server, arguments, words):
    with pytest.raises(InvalidInputError, match=words):
        app.start_workflow([["a"]], **arguments)
    assert server.redis.keys() == []


def test_data_that_no_node_would_take_is_refused(app, server):
    with pytest.raises(InvalidInputError, match=r"task 1 of the workflow: data has \d+ bytes as JSON; the limit"):
        app.start_workflow([["a"], [("b", {"x": "y" * 2_000_000})]])
    assert server.redis.keys() == []


@pytest.mark.parametrize(("page", "limit"), [(0, 1), (-1, 1), (True, 1), (1.5, 1), (1, 0), (1, 10_001), (1, "5")])
def test_a_page_that_is_none_is_refused(helpers, page, limit):
    with pytest.raises(InvalidInputError):
        helpers.list_workflows(page=page, limit=limit)
    with pytest.raises(InvalidInputError):
        helpers.get_workflow_tasks("w", page=page, limit=limit)
