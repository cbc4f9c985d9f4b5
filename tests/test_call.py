"""pytask/call: functions by their path, and above all those that must not be called."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time

import callable_functions
import pytest
from conftest import ON_ONE_SERVER

from pytask import PyTask, Task
from pytask.calling import path_of
from pytask.errors import InvalidInputError
from pytask.tasks.call import allowing

OWN = "callable_functions"


def call(path, *args, prefixes=(OWN,), **kwargs):
    return allowing(prefixes)(path, list(args), kwargs).start()


def refused(path, prefixes=(OWN,)) -> str:
    with pytest.raises(Task.Error) as caught:
        call(path, prefixes=prefixes)
    return str(caught.value)


# On a node, with redis commands alone.


def test_a_node_calls_what_its_setting_lets_in(server, start_node):
    node = start_node(callable_prefixes=f"{OWN},time.sleep,math")
    assert f", functions of {OWN}, functions of time.sleep, functions of math\n" in node.text()
    server.create("ok", "pytask/call", json.dumps({"function": f"{OWN}.process", "args": [1], "kwargs": {"c": 3}}))
    server.wait_for_state("ok", "SUCCESS")
    assert json.loads(server.field("ok", "output")) == [1, 2, [], {"c": 3}]
    server.create("c", "pytask/call", '{"function": "time.sleep", "args": [0.01]}')
    server.wait_for_state("c", "SUCCESS")
    server.create("wrong", "pytask/call", json.dumps({"function": f"{OWN}.wrong"}))
    server.wait_for_state("wrong", "EXCEPTION")
    assert server.field("wrong", "output").endswith("ValueError: in process")


def test_a_node_calls_nothing_unless_it_is_told_and_says_how(server, start_node, tmp_path):
    start_node()
    harm = tmp_path / "harm"
    server.create("no", "pytask/call", json.dumps({"function": "os.system", "args": [f"touch {harm}"]}))
    server.wait_for_state("no", "ERROR")
    assert server.field("no", "output") == (
        "this node may not call os.system: let it in with the setting callable_prefixes"
        " (PYTASK_CALLABLE_PREFIXES), which names modules, or functions by their whole path"
    )
    assert not harm.exists()


@ON_ONE_SERVER
def test_wrong_data_of_a_call_is_an_error_in_words(server, start_node):
    start_node(callable_prefixes=OWN)
    rows = {
        "none": ({}, "missing a required argument: 'function'"),
        "args": ({"function": f"{OWN}.process", "args": "ab"}, "args is a list"),
        "kwargs": ({"function": f"{OWN}.process", "kwargs": [1]}, "kwargs is an object"),
        "number": ({"function": 7}, "7 is no path of a function"),
        "list": ({"function": ["os", "system"]}, "is no path of a function"),
        "more": ({"function": f"{OWN}.process", "expires": 3}, "unexpected keyword argument 'expires'"),
        "misfit": ({"function": f"{OWN}.publishable"}, "missing a required argument: 'data'"),
        "import": ({"function": "broken_functions.x"}, "may not call broken_functions.x"),
    }
    for task_id, (data, words) in rows.items():
        server.create(task_id, "pytask/call", json.dumps(data))
        server.wait_for_state(task_id, "ERROR")
        assert words in server.field(task_id, "output")


@ON_ONE_SERVER
def test_the_helpers_call_and_publish(server, app, start_node):
    start_node("-q", "default", "-q", "mail", callable_prefixes=OWN)
    called = app.helpers.call(f"{OWN}.process", 1, 5, 6, x=7)
    server.wait_for_state(called, "SUCCESS")
    assert json.loads(server.field(called, "output")) == [1, 5, [6], {"x": 7}]
    data = {"model_id": 21, "example": {"key1": "value1"}}
    published = app.helpers.publish("mail", f"{OWN}.publishable", data, expires=1800)
    server.wait_for_state(published, "SUCCESS")
    assert json.loads(server.field(published, "output")) == {"got": data}
    assert server.field(published, "queue") == "mail"
    assert server.field(published, "expires_in") == "1800"


@pytest.mark.parametrize("path", ["", "process", "a..b", ".a", "a.b()", "a b.c", 3, None])
def test_helpers_refuse_what_is_no_path(path, app):
    with pytest.raises(InvalidInputError, match="named by its path"):
        app.helpers.call(path)
    with pytest.raises(InvalidInputError, match="named by its path"):
        app.helpers.publish("mail", path, {})
    assert app.helpers.get_new_task_ids("mail") == app.helpers.get_new_task_ids() == []


# The path of a function that a producer has.


def test_a_function_stands_for_its_path(app, server):
    for function, path in (
        (callable_functions.process, f"{OWN}.process"),
        (callable_functions.decorated, f"{OWN}.decorated"),
        (callable_functions.Made, f"{OWN}.Made"),
        (time.sleep, "time.sleep"),
        (print, "builtins.print"),
        ("a.b", "a.b"),
    ):
        assert path_of(function) == path
    called = app.helpers.call(callable_functions.process, 5)
    assert json.loads(server.field(called, "data")) == {"function": f"{OWN}.process", "args": [5], "kwargs": {}}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: 1, "is a lambda"),
        (callable_functions.handler, "is a lambda"),
        (callable_functions.inner, "is defined inside a function"),
        (functools.partial(callable_functions.process, 1), "is a partial: give the function and its arguments"),
        (callable_functions.Made().method, "is a method of an object"),
        (callable_functions.Made.method, "is defined inside a class"),
        ([].append, "is a method of an object"),
        (callable_functions.instance, "is an object that can be called, and no function"),
        (callable_functions.coroutine, "is async"),
        (callable_functions.value, "is no function"),
        (b"a.b", "is no function"),
    ],
)
def test_what_has_no_path_is_refused_with_the_reason(function, words):
    with pytest.raises(InvalidInputError, match=f"{words}.*: a function is named by its path, in its module"):
        path_of(function)


def test_a_function_that_its_module_calls_otherwise_is_refused(monkeypatch):
    process = callable_functions.process
    monkeypatch.setattr(callable_functions, "process", print)
    with pytest.raises(InvalidInputError, match="is not what callable_functions calls process"):
        path_of(process)


def test_a_function_of_a_program_counts_under_the_name_of_its_file_and_gevents_under_those_that_it_stands_for(
    tmp_path,
):
    text = "from gevent import monkey; monkey.patch_all()\nimport time\nfrom pytask.calling import path_of\n"
    file = tmp_path / "program.py"
    file.write_text(text + "def work(): pass\nprint(path_of(work), path_of(time.sleep))\n")
    ran = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    assert ran.stdout == "program.work time.sleep\n"


# What may be called.


def test_own_functions_and_classes_are_called():
    assert call(f"{OWN}.process", 1) == [1, 2, [], {}]
    assert call(f"{OWN}.Made", a=1) == {"a": 1}
    assert call(f"{OWN}.decorated", 4) == 8


def test_whole_paths_may_name_anything_that_can_be_called():
    for path, arguments, answer in (
        ("math.sqrt", [9], 3.0),
        ("os.path.join", ["a", "b"], "a/b"),
        (f"{OWN}._private", [], "private"),
        (f"{OWN}.handler", [], "lambda"),
        (f"{OWN}.instance", [], "instance"),
    ):
        assert call(path, *arguments, prefixes=(path,)) == answer


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "system", "Popen", "os", "sys.modules", "process.__globals__", "process.__call__",
        "Made.method",
        "Made.__init__", "__getattr__", "__builtins__", "__builtins__.eval", "_private", "_make", "handler",
        "alias",
        "inner", "instance", "value", "TaskAlias", "dynamic", "nothing", "app", "app.run", "coroutine",
        "__import__",
        "Task", "PyTask", "annotations",
    ],
)  # fmt: skip
def test_nothing_but_what_a_module_defines_itself_is_called(name):
    refused(f"{OWN}.{name}")


@pytest.mark.parametrize(
    "path",
    [
        "os.system", "builtins.eval", "builtins.exec", "builtins.__import__", "__import__", "eval", "sys.exit",
        "subprocess.Popen", "callable_functions_evil.process", "callable_functionsx",
        "xcallable_functions.process",
        "Callable_functions.process", " callable_functions.process", "callable_functions.process ",
        "callable_functions.process\n", "callable_functions.process\x00", "callable_functions..process",
        "callable_functions.", ".callable_functions.process", "callable_functions", "callable_functions/process",
        "callable_functions:process", "callable_functions.process()", "callable_functions.<lambda>",
        "callable\uff3ffunctions.process", "\uff43allable_functions.process", "callable_functions.\u1d56rocess",
        "callable_functions.process.__globals__.os.system", "callable_functions.__class__.__mro__",
        "callable_functions." + "a" * 1_000_000, "callable_functions." + "a." * 400 + "b",
        "../callable_functions.x",
        "__main__.x", "pytask.app.PyTask", "importlib.import_module", "",
    ],
)  # fmt: skip
def test_hostile_paths_are_refused_in_words(path, monkeypatch):
    imported = []
    monkeypatch.setattr("pytask.tasks.call.importlib.import_module", lambda name: imported.append(name) or sys)
    words = refused(path)
    assert len(words) < 700
    below = [name for name in imported if name == OWN or name.startswith(f"{OWN}.")]
    assert imported == below  # nothing outside of the prefix was imported


@pytest.mark.parametrize("path", [None, 3, 1.5, True, [], {}, ["os", "system"], {"a": 1}, b"os.system"])
def test_what_is_no_text_is_refused(path):
    assert "is no path of a function" in refused(path)


def test_prefixes_end_at_dots(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shop", "shop_evil"):
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text("from os import system\n")
        (package / "tasks.py").write_text("import os\n\ndef process():\n    return __name__\n")
    for prefix in ("shop", "shop.tasks"):
        assert call("shop.tasks.process", prefixes=(prefix,)) == "shop.tasks"
        assert "may not call" in refused("shop_evil.tasks.process", (prefix,))
        refused("shop.tasks.os.system", (prefix,))
        refused("shop.system", (prefix,))
    assert "may not call" in refused("shop.other.process", ("shop.tasks",))
    assert "may not call" in refused("shop.tasks", ("shop.tasks.x",))
    assert "is no function" in refused("shop.tasks", ("shop.tasks",))


def test_aliases_in_sys_modules_open_nothing(monkeypatch):
    import os

    monkeypatch.setitem(sys.modules, f"{OWN}.os", os)
    monkeypatch.setitem(sys.modules, f"{OWN}.thing", object())
    assert "no plain function" in refused(f"{OWN}.os.system") or "defined elsewhere" in refused(f"{OWN}.os.system")
    assert "defined elsewhere" in refused(f"{OWN}.os.makedirs")
    assert "is no module" in refused(f"{OWN}.thing.x")


def test_an_import_that_fails_is_an_error_with_words():
    words = refused("broken_functions.x", ("broken_functions",))
    assert words == "the module broken_functions cannot be imported: SystemExit: broken at import"
    assert "ModuleNotFoundError" in refused(f"{OWN}.nothing.x")
    assert "broken_functions" not in sys.modules


def test_the_prefixes_are_those_of_the_setting():
    app = PyTask("redis://localhost:1", callable_prefixes=[OWN])
    data = {"function": f"{OWN}.process", "args": [4]}
    assert app.run_now("pytask/call", data) == [4, 2, [], {}]
    app = PyTask("redis://localhost:1")
    with pytest.raises(Task.Error, match="callable_prefixes"):
        app.run_now("pytask/call", data)
