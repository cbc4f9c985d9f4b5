"""Typed data: checked before the task begins, and before a producer sends anything."""

from __future__ import annotations

import json

import pytest
import typedapp
from conftest import ON_ONE_SERVER
from typedapp import Annotated, Ducky, Order, Typed, Untyped

from pytask import PyTask, Task
from pytask.errors import ConfigurationError, InvalidInputError, TaskDefinitionError
from pytask.params import MOST_LISTED, check_data, get_schema, words_of

FIT = "the field 'data' does not fit"


@pytest.fixture
def node(start_node):
    return start_node(app="typedapp:app")


# On a node, with redis commands alone.


def test_data_that_fits_arrives_as_params(server, node):
    server.create("ok", "typed", '{"customer": "ada", "count": "3", "when": "2026-01-31"}')
    server.wait_for_state("ok", "SUCCESS")
    assert json.loads(server.field("ok", "output")) == {"customer": "ada", "count": 3, "when": "2026-01-31"}


def test_wrong_data_ends_as_error_with_each_problem_in_words(server, node):
    server.create("bad", "typed", '{"count": 0, "when": "never", "more": 1, "password": {"hunter2": 1}}')
    assert server.wait_for_state("bad", "ERROR", "SUCCESS") == "ERROR"
    output = server.field("bad", "output")
    assert output.startswith(
        f"{FIT} typed: customer: Field required; count: Input should be greater than 0; when: "
    )
    assert "more: Extra inputs are not permitted" in output
    assert "hunter2" not in output + node.text()


def test_annotations_of_init_are_obeyed_where_the_class_asks_for_it(server, node):
    server.create("ok", "annotated", '{"count": "3", "when": "2026-01-31"}')
    server.create("bad", "annotated", '{"count": "x", "names": [1], "other": 2}')
    server.create("none", "annotated")
    server.wait_for_state("ok", "SUCCESS")
    assert json.loads(server.field("ok", "output")) == ["int", [], "date"]
    server.wait_for_state("bad", "ERROR")
    for words in (
        "count: Input should be a valid integer",
        "names.0: Input should be a valid string",
        "other: Extra",
    ):
        assert words in server.field("bad", "output")
    server.wait_for_state("none", "ERROR")
    assert server.field("none", "output") == f"{FIT} annotated: count: Field required"


@ON_ONE_SERVER
@pytest.mark.parametrize(
    ("how", "state", "words"),
    [
        ("value", "ERROR", f"{FIT} ducky: how must not be 'value'"),
        ("key", "EXCEPTION", "KeyError: 'in model_validate'"),
        ("exit", "EXCEPTION", "SystemExit was raised inside the task; the node goes on"),
        ("deep", "EXCEPTION", "RecursionError"),
        ("error", "ERROR", "the task's own word"),
    ],
)
def test_params_that_raise_anything_harm_no_node(how, state, words, server, node):
    server.create("bad", "ducky", json.dumps({"how": how}))
    server.create("good", "ducky", '{"a": 1}')
    server.wait_for_state("bad", state)
    assert words in server.field("bad", "output")
    server.wait_for_state("good", "SUCCESS")
    assert server.field("good", "output") == '{"a":1}'


@ON_ONE_SERVER
def test_hostile_data_is_told_of_in_few_words(server, node):
    server.create("many", "hostile", json.dumps({"many": ["x"] * 100_000}))
    server.create("some", "hostile", json.dumps({"many": ["x"] * 30}))
    server.create("long", "hostile", '{"text": "bad"}')
    server.create("exit", "hostile", '{"text": "exit"}')
    server.create("names", "typed", json.dumps({"customer": "a", "\n\u202e" + "k" * 5000: 1}))
    server.wait_for_state("many", "ERROR")
    assert server.field("many", "output") == f"{FIT} hostile: 100000 problems"
    server.wait_for_state("some", "ERROR")
    assert "; and 10 more problems" in server.field("some", "output")
    server.wait_for_state("long", "ERROR")
    assert len(server.field("long", "output")) < 500
    server.wait_for_state("exit", "EXCEPTION")
    server.wait_for_state("names", "ERROR")
    assert len(server.field("names", "output")) < 300
    assert "\n" not in server.field("names", "output")


# Producers.


def sent(helpers, *args, **kwargs):
    """The words with which nothing was sent."""
    with pytest.raises(InvalidInputError) as caught:
        helpers.start_task(*args, **kwargs)
    assert helpers.get_new_task_ids() == []
    return str(caught.value)


@ON_ONE_SERVER
def test_a_producer_that_has_the_class_gets_the_same_words_before_anything_is_sent(server, app, node):
    server.create("bad", "typed", '{"count": 0}')
    server.wait_for_state("bad", "ERROR")
    assert sent(app.helpers, Typed, count=0) == server.field("bad", "output")
    app.add_task(Annotated)  # then its name is enough
    server.create("bad2", "annotated", "{}")
    server.wait_for_state("bad2", "ERROR")
    assert sent(app.helpers, "annotated") == server.field("bad2", "output")
    server.create("bad3", "untyped", '{"a": 1}')
    server.wait_for_state("bad3", "ERROR")
    assert sent(app.helpers, Untyped, a=1) == server.field("bad3", "output")


def test_a_name_that_is_not_registered_is_not_checked(app):
    app.helpers.start_task("untyped", a=1)
    assert len(app.helpers.get_new_task_ids()) == 1


def test_a_wrong_keyword_that_looks_like_an_option_gets_a_hint(app):
    words = sent(app.helpers, Untyped, count=1, dealy=5)
    assert words.endswith(
        "unexpected keyword argument 'dealy' (dealy is no argument: did you mean the option delay?)"
    )


def test_batches_are_checked_as_well(app):
    with pytest.raises(InvalidInputError, match="missing a required argument: 'count'"):
        app.helpers.start_tasks([(Untyped, {"count": 1}), (Untyped, {})])
    with pytest.raises(InvalidInputError, match="customer: Field required"):
        app.helpers.start_tasks([{"task": Typed}])


def test_an_object_of_params_is_data(server, app, node):
    task_id = app.helpers.start_task(Typed, Order(customer="ada", when="2026-01-31"))
    server.wait_for_state(task_id, "SUCCESS")
    assert json.loads(server.field(task_id, "data")) == {"customer": "ada", "when": "2026-01-31"}


def test_an_object_that_json_would_change_is_refused(app):
    assert "does not survive JSON" in sent(app.helpers, Typed, Order(customer="ada", password="hunter2"))
    assert "data is a dict, not Order" in sent(app.helpers, Untyped, Order(customer="ada"))


# Definitions.


def test_classes_whose_data_cannot_be_checked_are_refused():
    def refused(**body):
        with pytest.raises(TaskDefinitionError) as caught:
            PyTask().add_task(type("Wrong", (Task,), {"NAME": "wrong", "start": lambda self: 1, **body}))
        return str(caught.value)

    def takes_one(self, one):
        pass

    def takes_nonsense(self, one: NoSuchType):  # noqa: F821
        pass

    assert "have a method model_validate" in refused(Params=int)
    assert "exclude each other" in refused(Params=Order, validate=True)
    assert "__init__ gets no arguments; it needs one" in refused(Params=Order, __init__=takes_one)
    assert "NameError: name 'NoSuchType' is not defined" in refused(validate=True, __init__=takes_nonsense)


def test_without_pydantic_a_class_that_needs_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydantic", None)
    body = {"NAME": "needs", "start": lambda self: 1, "validate": True}
    with pytest.raises(TaskDefinitionError, match=r"pip install 'pytask-daemon\[typed\]'"):
        PyTask().add_task(type("Needs", (Task,), body))


def test_a_parameter_with_the_name_of_an_option_is_warned_about(app):
    class Late(Task):
        NAME = "late"

        def __init__(self, delay, task_id=None):
            pass

        def start(self):
            pass

    with pytest.warns(UserWarning, match="delay, task_id of __init__ is also an option of start_task"):
        app.add_task(Late)
    assert app.helpers.start_task(Late, {"delay": 5})


# Schemas.


def test_the_schema_of_params_and_of_annotations():
    schema = get_schema(Typed)
    assert schema["title"] == "typed"
    assert schema["properties"]["count"]["exclusiveMinimum"] == 0
    assert schema["required"] == ["customer"]
    schema = get_schema(Annotated)
    assert schema["properties"]["names"]["items"] == {"type": "string"}
    assert schema["properties"]["names"]["default"] == []
    assert (schema["required"], schema["additionalProperties"]) == (["count"], False)
    assert get_schema(Untyped)["required"] == ["count"]
    assert get_schema(typedapp.total.task)["properties"]["numbers"]["items"] == {"type": "integer"}
    with pytest.raises(ConfigurationError, match="no model_json_schema"):
        get_schema(Ducky)


def test_words_of_an_error_that_has_none_are_its_name():
    assert words_of(ValueError()) == "ValueError"
    assert len(words_of(ValueError("x" * 10_000))) == 300
    assert MOST_LISTED >= 100


def test_what_a_task_takes_is_worked_out_once():
    data = {"count": 1}
    assert check_data(Untyped, data) is data
