"""Task classes: which can be registered, what a task reaches; and what becomes of what it returns or raises."""

from __future__ import annotations

import json
import traceback
from types import SimpleNamespace

import pytest
from gevent import GreenletExit

from pytask import Cleanup, Monitor, PyTask, Task, states
from pytask.errors import InvalidInputError, PyTaskError, TaskDefinitionError
from pytask.node import outcome
from pytask.node.outcome import MOST_TEXT, BadInput
from pytask.task import check_task_class, takes_stop
from pytask.wire import WireError


class Good(Task):
    NAME = "good"

    def start(self):
        pass


class AsyncStart(Task):
    NAME = "async-start"

    async def start(self):
        pass


class AsyncGeneratorStart(Task):
    NAME = "async-generator"

    async def start(self):
        yield


class AsyncStop(Good):
    NAME = "async-stop"

    async def stop(self):
        pass


# Which classes can be registered.


@pytest.mark.parametrize("task_class", [Good, Monitor, Cleanup])
def test_a_good_class_can_be_registered(task_class):
    assert check_task_class(task_class) is task_class


@pytest.mark.parametrize("name", ["a", "my-task", "shop.mail/send:v2", "A_9", "x" * 200])
def test_a_name_may_be_built_of_these_characters(name):
    check_task_class(type("Named", (Good,), {"NAME": name}))


@pytest.mark.parametrize("name", ["with space", "a\n", "ü", "x" * 201, "a;b", "{x}", "*"])
def test_a_name_of_other_characters_is_refused_with_the_rule(name):
    with pytest.raises(TaskDefinitionError, match="must be 1 to 200 characters of"):
        check_task_class(type("Named", (Good,), {"NAME": name}))


@pytest.mark.parametrize("name", ["", None, 5, b"bytes", ["a"]])
def test_a_class_without_a_name_is_refused(name):
    with pytest.raises(TaskDefinitionError, match=r"Named has no NAME: set NAME = "):
        check_task_class(type("Named", (Good,), {"NAME": name}))


@pytest.mark.parametrize("start", [Task.start, None, "text"])
def test_a_class_without_start_is_refused(start):
    with pytest.raises(TaskDefinitionError, match=r"has no start\(\)"):
        check_task_class(type("Named", (Task,), {"NAME": "named", "start": start}))


@pytest.mark.parametrize(
    ("task_class", "name"), [(AsyncStart, "start"), (AsyncGeneratorStart, "start"), (AsyncStop, "stop")]
)
def test_an_async_class_is_refused_with_what_to_write(task_class, name):
    with pytest.raises(TaskDefinitionError, match=f"{name} is async, .* write a plain `def {name}`"):
        check_task_class(task_class)


@pytest.mark.parametrize("thing", [Good(), Good.start, "good", None, int, object])
def test_what_is_no_task_class_is_refused(thing):
    with pytest.raises(TaskDefinitionError, match=r"takes a subclass of pytask\.Task"):
        PyTask().add_task(thing)


def test_two_classes_with_one_name_are_refused_and_both_are_told():
    class Other(Task):
        NAME = "good"

        def start(self):
            pass

    app = PyTask()
    app.add_task(Good)
    app.add_task(Good)
    with pytest.raises(TaskDefinitionError, match=r"two task classes have the NAME 'good': Good .* and .*Other"):
        app.add_task(Other)
    assert app.tasks == {"good": Good}


def test_classes_are_registered_one_by_one_several_at_once_or_as_a_decorator():
    app = PyTask()
    named = [type(name, (Good,), {"NAME": name}) for name in "abcde"]
    app.add_tasks(named[0], [named[1], named[2]], (named[3],))
    assert app.add_task(named[4]) is named[4]
    assert list(app.tasks) == list("abcde")
    with pytest.raises(TaskDefinitionError):
        app.add_tasks(Good, [Task])


def test_a_class_that_is_inherited_from_may_be_left_unregistered():
    class Base(Task):
        def start(self):
            return self.NAME

    class Leaf(Base):
        NAME = "leaf"

    assert check_task_class(Leaf) is Leaf
    with pytest.raises(TaskDefinitionError, match="no NAME"):
        check_task_class(Base)


def test_a_class_takes_a_stop_only_where_it_defines_one():
    stops = type("Stops", (Good,), {"stop": lambda self: None})
    assert takes_stop(stops)
    assert takes_stop(type("Child", (stops,), {}))
    assert not takes_stop(Good)


# What a task reaches.


@pytest.mark.parametrize("name", ["id", "fence", "attempt", "deliveries", "redis", "helpers"])
def test_a_task_that_does_not_run_on_a_node_says_so(name):
    with pytest.raises(PyTaskError, match="Good is not running on a node"):
        getattr(Good(), name)
    with pytest.raises(PyTaskError, match="not running"):
        Good().emit("turn")


def test_a_task_reaches_what_its_context_gives():
    sent = []
    task = Good()
    context = {"id": "T", "fence": 7, "attempt": 2, "deliveries": 1, "redis": "redis", "helpers": "helpers"}
    task._context = SimpleNamespace(**context, emit=lambda *args: sent.append(args))
    assert (task.id, task.fence, task.attempt, task.deliveries) == ("T", 7, 2, 1)
    assert (task.redis, task.helpers) == ("redis", "helpers")
    task.emit("progress", {"done": 1})
    task.emit("my.event:a/b-c_9")
    assert sent == [("progress", {"done": 1}), ("my.event:a/b-c_9", None)]
    for bad in ("", "two words", "a\n", "ü", "x" * 101, "a\x00", None, 5):
        with pytest.raises(InvalidInputError, match="event name"):
            task.emit(bad)
    assert len(sent) == 2


def test_a_task_may_be_made_and_run_by_hand():
    class Adds(Task):
        NAME = "adds"

        def __init__(self, a, b=1):
            self.sum = a + b

        def start(self):
            return self.sum

    assert Adds(a=2, b=3).start() == 5
    with Adds.provide_context():
        assert Adds(2).start() == 3
    Good().stop()


# Outcomes of what start() returned.


@pytest.mark.parametrize("value", [1, "ü", [1, None], {"a": {}}, True, 0, ""])
def test_what_start_returned_is_the_output_and_the_data_of_the_event(value):
    made = outcome.success(value, 1000)
    assert made.state == states.SUCCESS
    assert json.loads(made.output) == value
    assert json.loads(made.event) == {"event": "success", "data": value}
    assert made.error is None


def test_a_task_that_returns_nothing_has_null_as_its_output():
    assert outcome.success(None, 1000) == outcome.DONE
    assert json.loads(outcome.DONE.event) == {"event": "success", "data": None}


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800", b"x", "x" * 1001])
def test_what_cannot_be_an_output_is_refused_in_words(value):
    with pytest.raises(WireError, match=r"what start\(\) returned "):
        outcome.success(value, 1000)


# Outcomes of what was raised.


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def _raised(error: BaseException, start=None) -> BaseException:
    """The error with a traceback that begins in the node and goes through the task's `start`."""

    def task_start():
        raise error

    code = compile("def call(start):\n    start()\n", "runner.py", "exec")
    node = {"__name__": "pytask.node.runner"}
    exec(code, node)
    try:
        node["call"](start or task_start)
    except BaseException as caught:
        return caught.with_traceback(caught.__traceback__.tb_next)  # without this function
    raise AssertionError


@pytest.mark.parametrize("kind", [Task.Error, Good.Error, BadInput, type("Mine", (Task.Error,), {})])
def test_a_task_error_ends_as_error_with_its_message(kind):
    made = outcome.judge(_raised(kind("no ü luck")))
    assert made.state == states.ERROR
    assert made.output.decode() == "no ü luck"
    assert json.loads(made.event) == {"event": "error", "data": "no ü luck"}


def test_an_error_without_words_is_named():
    assert outcome.judge(Task.Error()).output == b"Error"
    assert outcome.judge(_raised(ValueError())).output.endswith(b"ValueError")


def test_any_other_exception_ends_with_the_traceback_from_the_tasks_code_on():
    made = outcome.judge(_raised(ValueError("boom")))
    text = made.output.decode()
    assert made.state == states.EXCEPTION
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("\nValueError: boom")
    assert "in task_start" in text
    assert "runner.py" not in text
    assert json.loads(made.event) == {"event": "exception", "data": text}
    assert isinstance(made.error, ValueError)


def test_the_cause_of_an_exception_is_told_too():
    def start():
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    text = outcome.judge(_raised(ValueError(), start)).output.decode()
    assert text.index("KeyError: 'first'") < text.index("ValueError: second")


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GreenletExit("x")], ids=lambda e: type(e).__name__
)
def test_an_exit_that_was_raised_inside_says_that_the_node_goes_on(error):
    made = outcome.judge(_raised(error))
    assert made.state == states.EXCEPTION
    assert made.output.decode().startswith(
        f"{type(error).__name__} was raised inside the task; the node goes on\n"
    )


def test_an_error_that_cannot_be_shown_is_named():
    made = outcome.judge(_raised(Unprintable()))
    assert made.state == states.EXCEPTION
    assert b"Unprintable" in made.output
    made = outcome.judge(type("Mute", (Task.Error,), {"__str__": Unprintable.__str__})())
    assert made.state == states.ERROR
    assert made.output == b"Mute (its message cannot be shown)"


def test_a_traceback_that_cannot_be_made_leaves_the_name(monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr(traceback, "format_exception", fails)
    assert outcome.judge(ValueError("boom")).output == b"ValueError: boom"


@pytest.mark.parametrize("message", ["\ud800", "a\x00b\n\x1b", "ü" * 10])
def test_any_message_can_be_written(message):
    for error in (Task.Error(message), _raised(ValueError(message))):
        made = outcome.judge(error)
        made.output.decode()
        assert json.loads(made.event)["data"] == made.output.decode()


def test_a_long_text_keeps_its_head_and_its_tail():
    text = "HEAD" + "x" * 10_000_000 + "TAIL"
    short = outcome.shortened(text)
    assert len(short) < MOST_TEXT + 100
    assert short.startswith("HEADxxx")
    assert short.endswith("xxxTAIL")
    assert f"... {len(text) - MOST_TEXT} characters left out ..." in short
    for length in (0, MOST_TEXT - 1, MOST_TEXT):
        assert outcome.shortened("x" * length) == "x" * length


def test_the_output_of_a_long_failure_is_shortened():
    for error in (Task.Error("x" * 10**6), ValueError("x" * 10**6)):
        assert len(outcome.judge(error).output) < MOST_TEXT + 200


def test_a_deep_recursion_is_a_short_traceback():
    def start():
        start()

    made = outcome.judge(_raised(ValueError(), start))
    assert made.state == states.EXCEPTION
    assert len(made.output) < MOST_TEXT
    assert b"RecursionError" in made.output
