"""run_now: a task in this process, without a queue and without a server."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

from pytask import PyTask, PyTaskHelpers, Task
from pytask.context import current
from pytask.eager import run_now
from pytask.errors import InvalidInputError, PyTaskError, UnknownTaskError
from pytask.wire import WireError

app = PyTask("redis://localhost:1")  # nobody listens there


@app.add_task
class Echo(Task):
    NAME = "echo"

    def __init__(self, **data):
        self.data = data
        self.emit("made", {"attempt": self.attempt, "deliveries": self.deliveries, "fence": self.fence})

    def start(self):
        self.progress(1, 2, "half")
        assert current.get().id == self.id
        return self.data


@app.add_task
class Says(Task):
    NAME = "says"

    def __init__(self, how):
        self.how = how

    def start(self):
        if self.how == "error":
            raise self.Error("no luck")
        if self.how == "object":
            return object()
        if self.how == "event":
            self.emit("success")
        sys.exit(3)


def test_the_output_is_what_json_makes_of_it():
    assert app.run_now("echo", a=(1, 2), b={"c": None}) == {"a": [1, 2], "b": {"c": None}}
    assert app.run_now(Echo) == {}
    assert current.get() is None


def test_what_the_task_raises_is_raised():
    for how, kind in (("error", Task.Error), ("exit", SystemExit), ("object", WireError), ("event", WireError)):
        with pytest.raises(kind):
            app.run_now(Says, how=how)


def test_events_are_handed_over():
    seen = []
    run_now(app, "echo", {"a": 1}, lambda event, data: seen.append((event, data)))
    assert seen == [
        ("made", {"attempt": 1, "deliveries": 0, "fence": 1}),
        ("progress", {"done": 1, "total": 2, "note": "half"}),
    ]


def test_the_helpers_run_it_too():
    assert app.helpers.run_now("echo", a=1) == app.helpers.run_now(Echo, {"a": 1}) == {"a": 1}
    with pytest.raises(PyTaskError, match="belong to no app"):
        PyTaskHelpers(app.helpers.store).run_now(Echo)


def test_wrong_input_is_refused():
    with pytest.raises(UnknownTaskError, match="'nobody' is not registered"):
        app.run_now("nobody")
    with pytest.raises(InvalidInputError, match="missing a required argument: 'how'"):
        app.run_now(Says)
    with pytest.raises(InvalidInputError, match="not both"):
        app.run_now(Echo, {"a": 1}, b=2)
    with pytest.raises(InvalidInputError, match="cannot be written as JSON"):
        app.run_now(Echo, {"a": float("nan")})


def test_contexts_and_hooks_stand_around_it():
    told = []
    own = PyTask("redis://localhost:1")
    own.on_start(lambda task: told.append(("start", task.NAME)))
    own.on_end(lambda task, state, error: told.append((state, task.attempt, error)))

    @own.around
    def inside(task, run):
        told.append("in")
        run()
        told.append("out")

    class InContext(Says):
        NAME = "in-context"

        @staticmethod
        @contextlib.contextmanager
        def provide_context():
            told.append("context")
            yield
            told.append("left")

        def start(self):
            return "fine" if self.how == "ok" else super().start()

    assert own.run_now(InContext, how="ok") == "fine"
    assert told == [("start", "in-context"), "in", "context", "left", "out", ("SUCCESS", 1, None)]
    del told[:]
    with pytest.raises(Task.Error) as found:
        own.run_now(InContext, how="error")
    assert told == [("start", "in-context"), "in", "context", ("ERROR", 1, found.value)]


def test_it_needs_no_gevent():
    code = (
        "import sys, pytask; app = pytask.PyTask('redis://localhost:1')\n"
        "@app.task(name='f')\ndef f(x): return x + 1\n"
        "assert f.run_now(1) == 2\nassert 'gevent' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
