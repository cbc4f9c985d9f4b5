"""Workflows as data: what a spec may say, and the plan that is made of it. No server is needed."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pytask.errors import InvalidInputError
from pytask.joins import MOST_EDGES
from pytask.wire import WireError, decode_json, encode_json
from pytask.workflow import (
    MOST_TASKS,
    Gate,
    check_ids,
    decode_gate,
    encode_gate,
    id_of,
    plan_of,
    sinks,
)


def stages(*sizes: int) -> dict[str, Any]:
    return {"stages": [[{"task": "a"} for _ in range(size)] for size in sizes]}


def listed(**afters: list[str]) -> dict[str, Any]:
    return {"tasks": [{"task": "a", "name": name, "after": after} for name, after in afters.items()]}


def refused(spec: object) -> str:
    with pytest.raises(InvalidInputError) as caught:
        plan_of(spec)
    return str(caught.value)


# What a plan says.


def test_a_task_has_the_words_of_its_record_and_keeps_its_own_options():
    entry = {
        "task": "mail",
        "data": {"to": "Ada"},
        "queue": "slow",
        "timeout": "5m",
        "title": "M",
        "retries": 2,
    }
    (task,) = plan_of({"stages": [[entry]]}).tasks
    assert task.words == [
        "task", "mail", "data", b'{"to":"Ada"}', "timeout", "300", "title", "M", "retries", "2", "queue", "slow",
    ]  # fmt: skip
    assert (task.task, task.queue, task.when, task.allow_failure) == ("mail", "slow", "on_success", False)


def test_the_default_queue_is_no_field_and_what_is_null_is_not_given():
    entry = {"task": "a", "data": None, "queue": "default", "timeout": None, "when": None, "name": None}
    (task,) = plan_of({"stages": [[entry]], "tasks": None, "returns": None, "title": None}).tasks
    assert (task.words, task.queue, task.name) == (["task", "a", "data", b"{}"], "", "0")


def test_each_stage_waits_at_one_gate_for_the_whole_stage_before_it():
    plan = plan_of(stages(2, 3, 1))
    assert [(task.name, task.gate, task.feeds) for task in plan.tasks] == [
        ("0", -1, (0,)), ("1", -1, (0,)), ("2", 0, (1,)), ("3", 0, (1,)), ("4", 0, (1,)), ("5", 1, ()),
    ]  # fmt: skip
    assert plan.gates == [Gate(2, ["0", "1"], ["2", "3", "4"]), Gate(3, ["2", "3", "4"], ["5"])]


def test_names_are_those_that_are_given_or_numbers_over_the_whole_workflow():
    spec = {"stages": [[{"task": "a"}, {"task": "a", "name": "b.c_d-1"}], [{"task": "a"}]]}
    assert [task.name for task in plan_of(spec).tasks] == ["0", "b.c_d-1", "2"]


def test_tasks_that_wait_for_the_same_ones_share_a_gate_in_whatever_order_they_say_it():
    plan = plan_of(listed(a=[], b=[], c=["b", "a"], d=["a", "b", "a"], e=["a"], f=["c", "e"]))
    assert plan.gates == [Gate(2, ["a", "b"], ["c", "d"]), Gate(1, ["a"], ["e"]), Gate(2, ["c", "e"], ["f"])]
    assert [(task.gate, task.feeds) for task in plan.tasks] == [
        (-1, (0, 1)), (-1, (0,)), (0, (2,)), (0, ()), (1, (2,)), (2, ()),
    ]  # fmt: skip


def test_after_may_be_one_name_and_a_number_names_the_task_without_a_name():
    plan = plan_of({"tasks": [{"task": "a"}, {"task": "b", "after": "0"}, {"task": "c", "after": [0, 1]}]})
    assert [gate.after for gate in plan.gates] == [["0"], ["0", "1"]]


def test_a_task_may_wait_for_one_that_stands_behind_it():
    plan = plan_of(listed(last=["first"], first=[]))
    assert [(task.name, task.gate) for task in plan.tasks] == [("last", 0), ("first", -1)]


def test_the_last_tasks_are_those_for_which_nobody_waits():
    assert sinks(plan_of(stages(3, 2))) == [3, 4]
    assert sinks(plan_of(listed(a=[], b=["a"], c=["a"], d=["b"]))) == [2, 3]
    assert sinks(plan_of(stages(2))) == [0, 1]


def test_a_plan_has_its_title_and_says_what_it_returns():
    assert plan_of(stages(1))[:2] == ("", "list")
    assert plan_of({**stages(2, 1), "title": "Nightly", "returns": "one"})[:2] == ("Nightly", "one")


def test_when_and_allow_failure_stand_in_the_plan():
    spec = {"stages": [[{"task": "a", "allow_failure": True}], [{"task": "b", "when": "on_failure"}]]}
    first, second = plan_of(spec).tasks
    assert (first.allow_failure, second.allow_failure, second.when) == (True, False, "on_failure")


def test_a_plan_of_what_json_made_of_a_spec_is_the_same():
    spec = {"title": "t", **listed(a=[], b=["a"]), "returns": "list"}
    assert plan_of(decode_json(encode_json(spec))) == plan_of(spec)


# Ids.


def test_the_id_of_a_task_begins_with_that_of_its_workflow():
    assert id_of(b"\xffw", "b") == b"\xffw:b"


def test_ids_that_would_be_too_long_are_refused():
    plan = plan_of(listed(a=[], longest=["a"]))
    check_ids(plan, b"w" * 504)
    with pytest.raises(InvalidInputError, match="at most 512 bytes together"):
        check_ids(plan, b"w" * 505)


# Gates as they are stored.


@pytest.mark.parametrize(
    "names", [["0"], ["0", "1", "2", "7"], ["a", "3", "4", "b"], ["007", "8"], ["9" * 64], ["2", "1", "0"]]
)
def test_a_gate_comes_back_as_it_was_stored(names):
    gate = Gate(len(names), names, names[:1])
    assert decode_gate(encode_gate(gate)) == gate


def test_ten_thousand_numbers_are_stored_as_two():
    assert len(encode_gate(plan_of(stages(10_000, 10_000)).gates[0])) < 100


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"needs":"x","after":[],"tasks":[]}', b'{"needs":1,"after":[[0,9999999999]],"tasks":[]}',
     b'{"needs":1,"after":[5],"tasks":[]}', b'{"needs":1,"after":[["a","b"]],"tasks":[]}'],
)  # fmt: skip
def test_a_text_that_is_no_gate_is_told_so(raw):
    with pytest.raises(WireError):
        decode_gate(raw)


# What it costs.


def lines_of(spec: object) -> int:
    """How many lines of Python it takes to make the plan."""
    count = 0

    def note(_frame: Any, event: str, _arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        plan_of(spec)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "make",
    [
        lambda size: stages(size, size),
        lambda size: {"stages": [[{"task": "a"}]] * size},
        lambda size: listed(**{f"t{n}": [f"t{n - 1}"] if n else [] for n in range(size)}),
        lambda size: listed(**{f"t{n}": [] for n in range(size)}, last=[f"t{n}" for n in range(size)]),
    ],
    ids=["wide", "long", "chain", "join"],
)
def test_a_plan_costs_the_same_for_each_task_however_many_there_are(make):
    assert lines_of(make(2000)) < 2.1 * lines_of(make(1000))


def test_ten_thousand_tasks_behind_ten_thousand_make_one_gate_and_no_pairs():
    plan = plan_of(stages(10_000, 10_000))
    assert len(plan.gates) == 1
    assert plan.gates[0].needs == 10_000
    assert sum(len(task.feeds) for task in plan.tasks) == 10_000


# What is refused.


@pytest.mark.parametrize("spec", [None, 5, "stages", [[{"task": "a"}]], True], ids=repr)
def test_a_spec_is_an_object(spec):
    assert "a workflow is an object with stages or tasks" in refused(spec)


@pytest.mark.parametrize("spec", [{}, {"title": "t"}, {"stages": [[{"task": "a"}]], "tasks": [{"task": "a"}]}])
def test_a_workflow_has_stages_or_tasks_and_not_both(spec):
    assert "stages, or tasks" in refused(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"stages": []}, "stages is empty"),
        ({"tasks": []}, "tasks is empty"),
        ({"stages": [[{"task": "a"}], []]}, "stage 1 is empty"),
        ({"stages": {"task": "a"}}, "stages is a list"),
        ({"stages": [{"task": "a"}]}, "stage 0 is a list"),
        ({"stages": [["a"]]}, "task 0 of the workflow is an object"),
        ({"tasks": [None]}, "task 0 of the workflow is an object"),
    ],
)
def test_an_empty_stage_and_what_is_no_list_are_refused(spec, words):
    assert words in refused(spec)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "it needs the key 'task'"),
        ({"task": ""}, "task is a name"),
        ({"task": "a b"}, "task is a name"),
        ({"task": 5}, "task is a name"),
        ({"task": "a", "timout": 5}, "no key 'timout': did you mean timeout?"),
        ({"task": "a", "allow_failures": True}, "did you mean allow_failure?"),
        ({"task": "a", "data": [1]}, "data is an object"),
        ({"task": "a", "data": {"x": float("nan")}}, "data cannot be written as JSON"),
        ({"task": "a", "data": {"x": {1, 2}}}, "data cannot be written as JSON"),
        ({"task": "a", "name": ""}, "its name is 1 to 64 characters"),
        ({"task": "a", "name": "x" * 65}, "its name is 1 to 64 characters"),
        ({"task": "a", "name": "a:b"}, "its name is 1 to 64 characters"),
        ({"task": "a", "name": 5}, "its name is 1 to 64 characters"),
        ({"task": "a", "name": "x-control"}, "must not end in '-control'"),
        ({"task": "a", "when": "never"}, "when is on_success, on_failure or always, not 'never'"),
        ({"task": "a", "when": ["always"]}, "when is on_success"),
        ({"task": "a", "allow_failure": "perhaps"}, "allow_failure: 'perhaps' is not allowed"),
        ({"task": "a", "timeout": -1}, "option timeout: -1 is not allowed"),
        ({"task": "a", "timeout": float("nan")}, "option timeout: nan is not allowed"),
        ({"task": "a", "retries": "many"}, "option retries: 'many' is not allowed"),
        ({"task": "a", "queue": "a b"}, "option queue:"),
        ({"task": "a", "due": 1, "delay": 1}, "give due or delay, not both"),
        ({"task": "a", "after": []}, "a task in a stage has no after"),
    ],
)
def test_what_is_wrong_with_a_task_is_told_with_its_name(entry, words):
    told = refused({"stages": [[{"task": "good"}, entry]]})
    assert words in told
    assert told.startswith("task 1 of the workflow: ")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({**stages(1), "titel": "t"}, "no key 'titel': did you mean title?"),
        ({**stages(1), "title": 5}, "option title: 5 is not allowed"),
        ({**stages(1), "title": "t" * 1001}, "at most 1000 characters"),
        ({**stages(1), "returns": "all"}, "returns is list or one, not 'all'"),
        ({**stages(1, 2), "returns": "one"}, "returns 'one' needs one last task; this workflow has 2"),
    ],
)
def test_what_is_wrong_with_the_workflow_itself_is_told(spec, words):
    assert words in refused(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"stages": [[{"task": "a", "name": "x"}], [{"task": "b", "name": "x"}]]},
        {"tasks": [{"task": "a", "name": "1"}, {"task": "b"}]},
    ],
)
def test_two_tasks_of_one_name_are_refused(spec):
    assert "the tasks 0 and 1 of the workflow have one name" in refused(spec)


@pytest.mark.parametrize("after", [[None], [True], [["a"]], {"a": 1}, 1.5, [-1], [10**6]], ids=repr)
def test_an_after_that_holds_no_names_is_refused(after):
    assert "after holds names of tasks" in refused({"tasks": [{"task": "a", "name": "a", "after": after}]})


def test_an_after_that_names_no_task_is_refused_with_the_closest_name():
    assert "after names no task of it: 'alph': did you mean alpha?" in refused(listed(alpha=[], b=["alph"]))


def test_a_task_that_waits_for_itself_is_refused():
    assert "task b of the workflow waits for itself" in refused(listed(a=[], b=["a", "b"]))


@pytest.mark.parametrize(
    ("spec", "circle"),
    [
        (listed(a=["b"], b=["a"]), "a -> b -> a"),
        (listed(x=[], a=["x", "c"], b=["a"], c=["b"], d=["c"]), "a -> c -> b -> a"),
        (listed(far=["a"], a=["b"], b=["a"]), "a -> b -> a"),
    ],
)
def test_a_circle_is_refused_and_told(spec, circle):
    assert refused(spec).endswith(f"in a circle: {circle}")


def test_of_a_long_circle_the_beginning_is_told():
    told = refused(listed(**{f"t{n}": [f"t{(n + 1) % 5000}"] for n in range(5000)}))
    assert told.endswith("t8 -> t9 -> ...")


def test_too_many_tasks_and_too_many_names_in_after_are_refused():
    assert f"at most {MOST_TASKS} tasks" in refused({"stages": [[{"task": "a"}] * (MOST_TASKS + 1)]})
    names = [f"t{n}" for n in range(1001)]
    many = {f"u{n}": names for n in range(1000)}
    assert f"at most {MOST_EDGES} names" in refused(listed(**{name: [] for name in names}, **many))
