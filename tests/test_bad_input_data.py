"""Bad input: data that typed tasks refuse, paths of functions, and hooks that misbehave."""

from __future__ import annotations

import json

import pytest
from conftest import wait_until
from test_bad_input import attack, row  # noqa: F401  the fixture

FIT = "the field 'data' does not fit"


@row("data that does not fit `Params`, or the annotations of `__init__`")
def test_typed_data_that_does_not_fit(attack):  # noqa: F811
    attack.start(app="typedapp:app")
    attack.create("params", "typed", {"count": 0, "customer": 7, "\x1b[2J\u202e" + "k" * 9000: 1})
    assert (
        len(attack.ends("params", "ERROR", f"{FIT} typed: customer: Input should be a valid string; count:")) < 400
    )
    attack.create("init", "annotated", {"count": "x", "names": [None], "password": "hunter2"})
    output = attack.ends("init", "ERROR", f"{FIT} annotated: count: ", "; names.0: ", "; password: Extra inputs")
    assert "hunter2" not in output + attack.node.text()
    attack.create("function", "typedapp.total", {"numbers": {"a": 1}})
    attack.ends("function", "ERROR", f"{FIT} typedapp.total: numbers: Input should be a valid list")


@row("typed data with 100,000 wrong values")
def test_typed_data_with_very_many_problems(attack):  # noqa: F811
    attack.start(app="typedapp:app")
    attack.create("many", "hostile", {"many": ["x"] * 100_000})
    assert attack.ends("many", "ERROR") == f"{FIT} hostile: 100000 problems"


@row("a `Params` that raises, exits or recurses without end")
@pytest.mark.parametrize(
    ("how", "told"), [("key", "KeyError"), ("exit", "SystemExit was raised"), ("deep", "RecursionError")]
)
def test_params_that_raise(attack, how, told):  # noqa: F811
    attack.start(app="typedapp:app")
    attack.create("bad", "ducky", {"how": how})
    attack.ends("bad", "EXCEPTION", told)


@row("a path for `pytask/call` that the node does not let in, or that is none")
def test_a_hostile_path(attack, tmp_path):  # noqa: F811
    attack.start(app="typedapp:app", callable_prefixes="callable_functions,math.sqrt")
    harm = tmp_path / "harm"
    paths = {
        "os.system": "this node may not call os.system",
        "callable_functions.os.system": "cannot be imported",
        "callable_functions.system": "is no plain function",
        "callable_functions_evil.x": "may not call",
        "callable_functions.process.__globals__": "may not call",
        "math.sqrt.x": "the module math.sqrt cannot be imported",
        "callable\uff3ffunctions.process": "is no path of a function",
        "callable_functions.\x1b[2J\n": "is no path of a function",
        "x." * 100_000: "is no path of a function",
        "": "is no path of a function",
    }
    for number, (path, words) in enumerate(paths.items()):
        attack.create(f"path-{number}", "pytask/call", {"function": path, "args": [f"touch {harm}"]})
        assert len(attack.ends(f"path-{number}", "ERROR", words)) < 700
    assert not harm.exists()


@row("`function`, `args` or `kwargs` of `pytask/call` of another type")
def test_hostile_arguments_of_a_call(attack):  # noqa: F811
    attack.start(app="typedapp:app", callable_prefixes="callable_functions")
    function = "callable_functions.process"
    rows = {
        "number": ({"function": 7}, "7 is no path of a function"),
        "args": ({"function": function, "args": {"0": 1}}, "args is a list"),
        "kwargs": ({"function": function, "kwargs": "a"}, "kwargs is an object"),
        "misfit": ({"function": "callable_functions.publishable", "kwargs": {"x": 1}}, "the arguments do not fit"),
    }
    for task_id, (data, words) in rows.items():
        attack.create(task_id, "pytask/call", data)
        attack.ends(task_id, "ERROR", words)


@row("a module that `pytask/call` may import, and that raises or exits")
def test_a_module_that_exits(attack):  # noqa: F811
    attack.start(app="typedapp:app", callable_prefixes="broken_functions")
    attack.create("exits", "pytask/call", {"function": "broken_functions.x"})
    attack.ends("exits", "ERROR", "the module broken_functions cannot be imported: SystemExit: broken at import")


@row("a hook that raises, exits, or does not call `run()`")
def test_hooks_that_misbehave(attack):  # noqa: F811
    attack.start(app="hookapp:app")
    for name in ("skipped", "before", "after", "twice"):
        attack.create(name, name)
        assert json.loads(attack.ends(name, "SUCCESS")) == name
    attack.create("hidden", "hidden")
    attack.ends("hidden", "EXCEPTION", "ValueError: the task's own")
    wait_until(lambda: "the hook hookapp.broken failed" in attack.node.text(), "the log tells")
