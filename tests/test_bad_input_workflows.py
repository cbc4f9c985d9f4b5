"""Bad input: workflows that are none, and what a producer may write around them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conftest import Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row

GOOD = {"stages": [[{"task": "echo", "data": {"n": 1}}], [{"task": "gather"}]]}


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)


@row("the data of a `pytask/workflow` that is no spec: an empty stage, an unknown key, a circle, a name twice")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "a workflow has stages, or tasks"),
        ({"stages": []}, "stages is empty"),
        ({"stages": [[{"task": "a"}], []]}, "stage 1 is empty"),
        ({"stages": {"task": "a"}}, "stages is a list"),
        ({"stages": [[5]]}, "task 0 of the workflow is an object, not 5"),
        ({"stages": [[{"task": "a"}]], "x" * 1_000: 1}, "a workflow has no key"),
        ({"stages": [[{"task": "a", "timout": 1}]]}, "did you mean timeout?"),
        ({"stages": [[{"task": "a", "after": ["b"]}]]}, "a task in a stage has no after"),
        ({"tasks": [{"task": "a", "after": ["1"]}, {"task": "a", "after": ["0"]}]}, "in a circle: 0 -> 1 -> 0"),
        ({"tasks": [{"task": "a", "after": ["nobody"]}]}, "after names no task of it: 'nobody'"),
        ({"stages": [[{"task": "a", "name": "x"}, {"task": "a", "name": "x"}]]}, "have one name: x"),
        ({"stages": [[{"task": "a", "name": "x-control"}]]}, "must not end in '-control'"),
        ({"stages": [[{"task": "\x1b[1m\n"}]]}, "task is a name"),
        ({"stages": [[{"task": "a"}]], "title": "t" * 1_001}, "at most 1000 characters"),
        ({"stages": [[{"task": "a"}]], "returns": 5}, "returns is list or one, not 5"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_workflow_ends_as_error_with_the_reason_and_starts_nothing(attack, spec, words):
    attack.start()
    attack.create("W", "pytask/workflow", spec)
    attack.ends("W", "ERROR", words)
    assert attack.server.redis.keys("*workflow*") == []
    assert attack.server.redis.keys("task-W:*") == []


@row("an option of a workflow's task that is none: a negative time, NaN, text in place of a number")
@pytest.mark.parametrize(
    "option",
    [{"timeout": -1}, {"timeout": "soon"}, {"retries": -1}, {"retries": 1e300}, {"retries": "many"}, {"delay": []},
     {"queue": "a b"}, {"due": "tomorrow"}, {"title": 5}, {"rate": "fast"}, {"expires": -1}],
    ids=repr,
)  # fmt: skip
def test_an_option_that_is_none_ends_the_workflow_before_it_begins(attack, option):
    attack.start()
    attack.create("W", "pytask/workflow", {"stages": [[{"task": "noop"}, {"task": "noop", **option}]]})
    attack.ends("W", "ERROR", f"task 1 of the workflow: option {next(iter(option))}: ")
    assert attack.server.redis.keys("task-W:*") == []


@row("a workflow of 100,001 tasks, or with over 1,000,000 names in its `after`")
def test_a_workflow_of_too_many_tasks_is_refused_and_holds_nothing_up(attack):
    attack.start()
    text = json.dumps({"stages": [[{"task": "a"}] * 100_001]})
    attack.server.redis.rpush("{workflow-W}:spec", text[:1_000_000], text[1_000_000:])
    attack.create("W", "pytask/workflow", {"chunks": 2})
    attack.ends("W", "ERROR", "a workflow has at most 100000 tasks, this one has 100001")


@row("a spec in parts that are not there, or are no JSON")
def test_a_spec_whose_parts_are_no_good_ends_as_error(attack):
    attack.start()
    attack.create("W", "pytask/workflow", {"chunks": 3})
    attack.ends("W", "ERROR", "the parts of its spec are not there")
    attack.server.redis.rpush("{workflow-X}:spec", b'{"stages": \xff')
    attack.create("X", "pytask/workflow", {"chunks": 1, "title": "t"})
    attack.ends("X", "ERROR", "its spec cannot be read: is not UTF-8")


@row("a workflow whose id has a brace, or is so long that no task could have one behind it")
def test_an_id_that_cannot_be_a_workflows_is_told(attack):
    attack.start()
    attack.create("W{x}", "pytask/workflow", GOOD)
    attack.ends("W{x}", "ERROR", "the id of a workflow must not have a brace")
    attack.create("W" * 512, "pytask/workflow", GOOD)
    attack.ends("W" * 512, "ERROR", "have at most 512 bytes together")


@row("a task of a later stage that is pushed before its turn")
def test_a_push_of_a_task_that_is_held_starts_nothing(attack):
    attack.start()
    attack.create("W", "pytask/workflow", {"stages": [[{"task": "loop"}], [{"task": "gather"}]]})
    attack.events.wait_for("W:0", "turn")
    attack.push("W:1")
    assert attack.events.wait_for("W:1", "ignored")["data"] == {"state": "HELD"}
    assert attack.server.state("W:1") == "HELD"
    attack.server.redis.hset("task-W", "control", "stop")
    attack.push("W")
    attack.events.wait_for("W", "stopped")


@row("a workflow that is pushed again and again, before, while and after it runs")
def test_pushes_of_a_workflow_that_are_repeated_run_nothing_twice(attack):
    attack.start()
    spec = {"stages": [[{"task": "sleep", "data": {"seconds": 0.3}}], [{"task": "sleep", "data": {"seconds": 0}}]]}
    attack.create("W", "pytask/workflow", spec)
    for _ in range(20):
        attack.push("W", "W", "W")
    attack.ends("W", "SUCCESS")
    attack.push("W")
    attack.server.wait_until_idle()
    assert [attack.server.redis.llen(f"runs:W:{n}") for n in (0, 1)] == [1, 1]


@row("a field `workflow` of any content")
@pytest.mark.parametrize(
    "value", ["nobody", "", "W", "x" * 1_000_000, b"\xff\x00", "{}", "a:b"], ids=lambda value: repr(value[:20])
)
def test_a_field_workflow_may_be_anything(attack, value):
    attack.start()
    attack.create("V", "gather", workflow=value)
    assert json.loads(attack.ends("V", "SUCCESS")) == {"inputs": {}, "states": {}}
    attack.create("nobody:V", "gather", workflow=value)
    assert json.loads(attack.ends("nobody:V", "SUCCESS")) == {"inputs": {}, "states": {}}


@row("a record `<workflow>:<name>` that is there before its workflow begins")
def test_a_record_that_stands_in_the_place_of_a_task_is_left_as_it_is(attack):
    attack.start()
    attack.write("W:1", "echo", {"n": 2}, state="SUCCESS", output="5")
    attack.create("W", "pytask/workflow", {"stages": [[{"task": "noop"}, {"task": "noop"}]]})
    wait_until(lambda: attack.server.state("W:0") == "SUCCESS", "the other task runs")
    assert attack.server.field("W:1", "output") == "5"
