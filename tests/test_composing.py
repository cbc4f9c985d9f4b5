"""Workflows that are put together in Python: what becomes of classes, functions, names, steps and groups."""

from __future__ import annotations

import datetime

import pytest

from pytask import PyTask, Task, Workflow, chain, exponential, group, step
from pytask.composing import spec_of
from pytask.errors import InvalidInputError
from pytask.wire import decode_json, encode_json
from pytask.workflow import plan_of


class Fetch(Task):
    NAME = "fetch"
    queue = "slow"

    def __init__(self, url: str = "") -> None:
        self.url = url

    def start(self) -> str:
        return self.url


CLASSES = {"fetch": Fetch}


def refused(given, **more):
    with pytest.raises(InvalidInputError) as caught:
        plan_of(spec_of(given, CLASSES, **more))
    return str(caught.value)


def test_lists_are_stages_and_everything_else_a_task():
    assert spec_of([["a", ("b", {"n": 1})], [step("c")]]) == {
        "stages": [[{"task": "a"}, {"task": "b", "data": {"n": 1}}], [{"task": "c"}]]
    }
    assert spec_of(["a", ("b",)]) == {"tasks": [{"task": "a"}, {"task": "b"}]}


def test_a_class_and_a_function_bring_their_name_and_their_queue():
    app = PyTask()

    @app.task(name="merge", queue="big")
    def merge(parts: int = 0) -> int:
        return parts

    assert spec_of([[Fetch], [(merge, {"parts": 3})]]) == {
        "stages": [
            [{"task": "fetch", "data": {}, "queue": "slow"}],
            [{"task": "merge", "data": {"parts": 3}, "queue": "big"}],
        ]
    }


def test_a_name_whose_class_is_known_brings_its_queue_and_has_its_data_checked():
    assert spec_of([["fetch"]], CLASSES) == {"stages": [[{"task": "fetch", "data": {}, "queue": "slow"}]]}
    assert "task 1 of the workflow: the field 'data' does not fit fetch" in refused(
        [["a", ("fetch", {"uri": "x"})]]
    )
    assert spec_of([[step("fetch", queue="fast")]], CLASSES)["stages"][0][0]["queue"] == "fast"


def test_a_step_says_everything_that_an_entry_may():
    made = step("fetch", {"url": "x"}, name="a", when="always", allow_failure=True, timeout="5m", title="T")
    assert spec_of([made])["tasks"] == [
        {"task": "fetch", "data": {"url": "x"}, "name": "a", "when": "always", "allow_failure": True,
         "timeout": 300.0, "title": "T"},
    ]  # fmt: skip


def test_options_become_json_and_the_plan_takes_them_back():
    when = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    made = step(
        "a", due=when, retries=3, retry_delay=exponential(2, 3, 100, 0), retry_on=(OSError, ValueError),
        rate="10/m", cleanup=False, queue="default", expires_in="2h", unique="key", concurrency_key=None,
    )  # fmt: skip
    spec = decode_json(encode_json(spec_of([made])))
    words = plan_of(spec).tasks[0].words
    fields = dict(zip(words[::2], words[1::2], strict=True))
    assert fields == {
        "task": "a", "data": b"{}", "due": "1893456000.000000", "retries": "3",
        "retry_delay": '{"base": 2.0, "factor": 3.0, "max": 100.0, "jitter": 0.0}',
        "retry_on": "OSError,ValueError", "rate": "10/60s",
        "cleanup": "false", "expires_in": "7200", "unique": b"key",
    }  # fmt: skip


def test_a_list_of_delays_stays_one():
    assert spec_of([step("a", retry_delay=[1, "5s"])])["tasks"][0]["retry_delay"] == [1.0, 5.0]


def test_after_may_hold_steps_in_place_of_names():
    first, second = step("a"), step("b", name="second")
    spec = spec_of([first, second, step("c", after=[first, second, "0"]), step("d", after=second)])
    assert [entry.get("after") for entry in spec["tasks"]] == [None, None, ["0", "second", "0"], ["second"]]


def test_a_step_in_after_that_stands_nowhere_or_twice_is_refused():
    stray = step("a")
    assert "a step of 'a' stands not at all in the workflow" in refused([step("b", after=[stray])])
    assert "a step of 'a' stands twice" in refused([stray, stray, step("b", after=[stray])])


def test_the_same_step_may_stand_several_times_where_nobody_names_it():
    one = step("a")
    assert [task.name for task in plan_of(spec_of([[one, one], [one]])).tasks] == ["0", "1", "2"]


def test_a_group_is_one_stage_and_a_chain_has_one_task_a_stage():
    assert spec_of(group(["a", "b"], title="G")) == {"stages": [[{"task": "a"}, {"task": "b"}]], "title": "G"}
    assert spec_of(chain(["a", "b"])) == {"stages": [[{"task": "a"}], [{"task": "b"}]], "returns": "one"}


def test_title_and_returns_go_before_those_of_the_workflow():
    spec = spec_of(Workflow([["a"]], title="old", returns="list"), title="new", returns="one")
    assert (spec["title"], spec["returns"]) == ("new", "one")


def test_a_workflow_inside_another_is_a_task_whose_data_is_its_spec():
    spec = spec_of([[chain(["a", "b"], title="inner")], [step(group(["c"]), name="g", when="always")]])
    inner, outer = spec["stages"][0][0], spec["stages"][1][0]
    assert (inner["task"], inner["title"]) == ("pytask/workflow", "inner")
    assert plan_of(inner["data"]).title == "inner"
    assert outer == {
        "task": "pytask/workflow", "data": {"stages": [[{"task": "c"}]]}, "name": "g", "when": "always",
    }  # fmt: skip


def test_what_is_wrong_inside_a_workflow_that_is_a_task_is_told_at_once():
    assert refused([["a", group([])]]) == "task 1 of the workflow: stage 0 is empty"
    assert "a workflow inside another has no data" in refused([[step(group(["a"]), {"x": 1})]])


def test_a_workflow_inside_itself_is_refused():
    ring = Workflow([["a"]])
    ring.tasks.append([ring])
    told = refused(ring)
    assert "workflows are nested too deep, or one is inside itself" in told
    assert len(told) < 1000


def test_a_spec_may_hold_classes_and_steps():
    spec = spec_of({"title": "t", "stages": [[Fetch, {"task": Fetch, "data": {"url": "x"}, "timeout": "1m"}]]})
    assert spec["stages"] == [
        [
            {"task": "fetch", "data": {}, "queue": "slow"},
            {"task": "fetch", "data": {"url": "x"}, "timeout": 60.0, "queue": "slow"},
        ]
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "a list of stages or of tasks, not None"),
        ("fetch", "a list of stages or of tasks"),
        (Fetch, "a list of stages or of tasks"),
        (step("a"), "a list of stages or of tasks"),
        (5, "a list of stages or of tasks, not 5"),
        ([], "stages is empty"),
        ([[]], "stage 0 is empty"),
        ([["a"], "b"], "where one item is a stage, which is a list, all are: 'b' is none"),
        ([["a", 5]], "task 1 of the workflow: it is a name, a Task class"),
        ([["a"], [Fetch()]], "task 1 of the workflow: it is a name, a Task class"),
        ([[step(Fetch())]], "task is a name"),
        ([[("a", {}, "id")]], "for more there is step(...)"),
        ([[()]], "it is (task,) or (task, data)"),
        ([[("a", 5)]], "data is an object, not 5"),
        ([[(Fetch, 5)]], "data is a dict, not int"),
        ([[step("a", timeout=-1)]], "task 0 of the workflow: option timeout: -1 is not allowed"),
        ([[{"task": "a", "colour": "red"}]], "task 0 of the workflow: a task has no key 'colour'"),
        ({"stages": "abc"}, "stage 0 is a list, not 'a'"),
        ({"stages": 5}, "stages is a list, not 5"),
        ({"steps": [["a"]]}, "a workflow has no key 'steps'"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_workflow_is_refused_with_the_reason(given, words):
    assert words in refused(given)


def test_an_unknown_option_of_a_step_is_refused_at_once():
    with pytest.raises(InvalidInputError, match="there is no option 'timout': did you mean timeout"):
        step("a", timout=5)


def test_a_workflow_tells_what_it_is():
    assert repr(Workflow([["a"], ["b"]], title="t")) == "<workflow of 2, 't'>"
