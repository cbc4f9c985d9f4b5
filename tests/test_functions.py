"""Functions as tasks."""

from __future__ import annotations

import asyncio
import json

import pytest
import typedapp
from conftest import ON_ONE_SERVER
from typedapp import add, send, tell, total

from pytask import PyTask, Task
from pytask.errors import InvalidInputError, TaskDefinitionError
from pytask.functions import TaskFunction, default_name


@pytest.fixture
def functions(server):
    """The functions' app, on the test's server."""
    before = typedapp.app.settings
    typedapp.app.configure(redis=server.url)
    yield typedapp.app
    typedapp.app.disconnect()
    typedapp.app.settings = before


@pytest.fixture
def node(start_node):
    return start_node("-q", "default", "-q", "mail", app="typedapp:app")


def output(server, task_id):
    server.wait_for_state(task_id, "SUCCESS")
    return json.loads(server.field(task_id, "output"))


# With a node.


def test_redis_commands_alone_start_a_function(server, node):
    server.create("one", "typedapp.add", '{"a": 1, "b": 5}')
    assert output(server, "one") == 6
    server.create("two", "shop.mail/send", '{"to": "ada", "rest": [1, 2], "x": 3}')
    assert output(server, "two") == ["ada", [1, 2], "hello", {"x": 3}]


@ON_ONE_SERVER
def test_wrong_arguments_in_a_record_end_as_error_in_words(server, node):
    rows = {
        "typedapp.add": ('{"b": 1}', "missing a required argument: 'a'"),
        "shop.mail/send": ('{"to": 1, "rest": "abc"}', "rest is a list"),
        "typedapp.total": ('{"numbers": [1, "x"]}', "numbers.1: Input should be a valid integer"),
        "typedapp.tell": ('{"text": "a", "self": 1}', "unexpected keyword argument 'self'"),
        "typedapp.fail": ('{"message": "no luck"}', "no luck"),
    }
    for name, (data, words) in rows.items():
        server.create(name, name, data)
        server.wait_for_state(name, "ERROR")
        assert words in server.field(name, "output")


def test_start_makes_a_task(server, functions, node):
    assert output(server, add.start(1)) == 3
    assert output(server, add.start(1, b=4)) == 5
    sent = send.start("ada", 1, 2, subject="s", more=True)
    assert output(server, sent) == ["ada", [1, 2], "s", {"more": True}]
    assert server.field(sent, "queue") == "mail"
    assert output(server, send.options(queue="default", title="other", task_id="mine").start("bo")) == [
        "bo",
        [],
        "hello",
        {},
    ]
    assert (server.field("mine", "title"), server.field("mine", "queue")) == ("other", None)
    assert output(server, total.start(1, 2, factor=3)) == 9


def test_wherever_a_task_is_given_a_function_that_is_one_will_do(server, functions, node):
    helpers = functions.helpers
    assert output(server, helpers.start_task(add, a=1)) == 3
    assert server.field(helpers.start_task(send, {"to": "ada"}), "queue") == "mail"
    assert output(server, helpers.start_tasks([(add, {"a": 2}), {"task": add, "data": {"a": 3}}])[1]) == 5
    assert asyncio.run(start_with_aio(functions, add)) == 6
    assert helpers.run_now(add, a=3) == 5
    helpers.add_schedule("later", add, {"a": 1}, every="1h")
    helpers.add_schedules({"sooner": {"task": send, "data": {"to": "ada"}, "every": 3600}})
    assert {name: told["task"] for name, told in helpers.get_schedules().items()} == {
        "later": "typedapp.add",
        "sooner": "shop.mail/send",
    }
    helpers.start_service("adding", add, data={"a": 1})
    assert helpers.get_service("adding")["task"] == "typedapp.add"
    helpers.update_service("adding", task=tell, data={"text": "hello"})
    assert helpers.get_service("adding")["task"] == "typedapp.tell"


async def start_with_aio(app, function):
    async with app.aio as aio:
        return await (await aio.start_task(function, a=4)).get(timeout=20)


@ON_ONE_SERVER
def test_what_is_neither_name_nor_class_nor_function_of_a_task_is_refused(functions):
    for wrong in (len, None, 7, object(), functions):
        with pytest.raises(InvalidInputError, match="given as its name, its class or its function, not"):
            functions.helpers.start_task(wrong)


def test_bind_gives_the_running_task(server, events, functions, node):
    task_id = tell.start("hello")
    assert output(server, task_id) == "HELLO"
    assert events.wait_for(task_id, "told")["data"] == {"text": "hello", "id": task_id, "attempt": 1}


# Without one.


def test_a_call_calls_the_function():
    assert add(1) == 3
    assert send("ada", 1, subject="s") == ["ada", [1], "s", {}]
    assert (add.name, add.__name__, add.__doc__) == ("typedapp.add", "add", "Add two numbers.")
    assert add.__wrapped__ is add.function
    assert issubclass(add.task, Task)
    assert typedapp.app.tasks["typedapp.add"] is add.task
    assert add.task.__doc__ == add.__doc__
    assert send.task.retries == 0
    assert repr(add) == "<task typedapp.add>"


def test_run_now_runs_it_as_a_task():
    assert add.run_now(1, b=3) == 4
    assert send.run_now("a", 1, 2, x=3) == ["a", [1, 2], "hello", {"x": 3}]
    assert total.run_now("3", factor="2") == 6  # checked, as on a node
    with pytest.raises(Task.Error, match="no luck"):
        typedapp.fail.run_now("no luck")


def test_inside_a_task_a_bound_function_gets_the_running_one():
    app = PyTask("redis://localhost:1")
    seen = []

    @app.task(bind=True)
    def inner(self, x):
        self.emit("inner", x)
        return self.id

    @app.task(bind=True, name="outer")
    def outer(self):
        return [self.id, inner(5)]

    from pytask.eager import run_now

    one, two = run_now(app, "outer", {}, lambda *event: seen.append(event))
    assert one == two
    assert seen == [("inner", 5)]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (lambda: add.start(), "missing a required argument: 'a'"),
        (lambda: add.start(1, 2, 3), "too many positional arguments"),
        (lambda: add.start(1, c=3), "unexpected keyword argument 'c'"),
        (lambda: add.start(1, delay=5), r"delay is an option: add.options\(delay=...\).start"),
        (lambda: add.start(1, task_id="x"), "task_id is an option"),
        (lambda: send.start("ada", rest=3), "the argument rest would be taken for the parameter"),
        (lambda: send.start("ada", to=3), "the argument to would be taken for the parameter|multiple values"),
        (lambda: add.options(dealy=5), "there is no option 'dealy': did you mean delay?"),
        (lambda: add.options(delay=-1).start(1), "option delay"),
        (lambda: add.options(delay=1, due=2).start(1), "give due or delay, not both"),
        (lambda: add.start(object()), "cannot be written as JSON|object"),
        (lambda: total.start("x"), "numbers.0: Input should be a valid integer"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(start, words, functions):
    with pytest.raises(InvalidInputError, match=words):
        start()
    assert functions.helpers.get_new_task_ids() == functions.helpers.get_new_task_ids("mail") == []


def test_a_keyword_of_the_function_is_no_option(functions):
    app = functions

    def later(delay, task_id="x", **more):
        return [delay, task_id, more]

    function = app.task(name="later")(later)
    try:
        task_id = function.start(5, due="never")
        assert json.loads(app.helpers.get_task(task_id, "data")) == {"delay": 5, "due": "never"}
        assert function.run_now(5, title="t") == [5, "x", {"title": "t"}]
    finally:
        del app.tasks["later"]


async def coroutine():
    pass


def generator():
    yield


class Callable:
    def __call__(self):
        pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda app: app.task(coroutine), "is async, tasks run in greenlets: write a plain `def`"),
        (lambda app: app.task(generator), "is a generator"),
        (lambda app: app.task(Callable()), "takes a plain function"),
        (lambda app: app.task(Callable), "takes a plain function"),
        (lambda app: app.task(print), "takes a plain function"),
        (lambda app: app.task(name="x")(None), "takes a plain function"),
        (lambda app: app.task(lambda: 1), r"say task\(name='...'\)"),
        (lambda app: app.task(name="a b")(output), "NAME 'a b' must be"),
        (lambda app: app.task(name="")(output), "has no NAME"),
        (lambda app: app.task(retires=3)(output), "there is no option 'retires': did you mean retries?"),
        (lambda app: app.task(due=3)(output), "there is no option 'due'"),
        (lambda app: app.task(start=3)(output), "there is no option 'start'"),
        (lambda app: app.task(timeout=-1)(output), "option timeout"),
        (lambda app: app.task(bind=True)(coroutine.__class__), "takes a plain function"),
        (lambda app: app.task(bind=True, name="x")(lambda: 1), "with bind its first parameter is the task"),
        (lambda app: [app.task(name="x")(output), app.task(name="x")(name_of)], "two task classes have the NAME"),
    ],
)
def test_what_cannot_be_a_task_is_refused_at_once(make, words):
    with pytest.raises(TaskDefinitionError, match=words):
        make(PyTask("redis://localhost:1"))


def name_of(function):
    return default_name(function)


def test_the_default_name_is_that_by_which_others_import_it(monkeypatch):
    assert name_of(name_of) == f"{__name__}.name_of"
    monkeypatch.setattr(name_of, "__module__", "__main__")
    monkeypatch.setattr(
        "sys.modules", {**__import__("sys").modules, "__main__": Program("/srv/app/jobs.py", None)}
    )
    assert name_of(name_of) == "jobs.name_of"


class Program:
    def __init__(self, file, spec):
        self.__file__, self.__spec__ = file, spec


def test_a_function_stays_what_it_was():
    app = PyTask("redis://localhost:1")

    def plain(a: int, /, b="x", *c, d, **e) -> list:
        """Words."""
        return [a, b, c, d, e]

    function = app.task(name="plain", validate=True, rescheduling=False, forever=True)(plain)
    assert isinstance(function, TaskFunction)
    assert function(1, 2, 3, d=4, z=5) == [1, 2, (3,), 4, {"z": 5}]
    assert function.run_now(1, 2, 3, d=4, z=5) == [1, 2, [3], 4, {"z": 5}]
    assert function.run_now("7", d=None) == [7, "x", [], None, {}]
    assert (function.task.forever, function.task.rescheduling) == (True, False)
    assert function.to_data((1, 2, 3), {"d": 4}) == {"a": 1, "b": 2, "c": [3], "d": 4}
