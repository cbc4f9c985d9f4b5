"""The app of nodes whose tasks wait for other tasks."""

from __future__ import annotations

import contextlib

import gevent

from pytask import PyTask, Task
from pytask.errors import TaskFailed

app = PyTask()


@app.add_task
class Child(Task):
    NAME = "child"

    def __init__(self, value=1, seconds=0.0):
        self.value, self.seconds = value, seconds

    def start(self):
        gevent.sleep(self.seconds)
        return self.value


@app.add_task
class Parent(Task):
    """Waits for a child, and it for another, `depth` generations down."""

    NAME = "parent"

    def __init__(self, depth=1, seconds=0.0):
        self.depth, self.seconds = depth, seconds

    def start(self):
        if self.depth == 1:
            child = self.helpers.start_task(Child, value=1, seconds=self.seconds)
        else:
            child = self.helpers.start_task(Parent, depth=self.depth - 1)
        return child.get() + 1


@app.add_task
class Family(Task):
    """Waits for many children in each of the ways that there are."""

    NAME = "family"

    def __init__(self, children):
        self.children = children

    def start(self):
        helpers = self.helpers
        wanted = [(Child, {"value": value}) for value in range(self.children)]
        all_of_them = sum(helpers.wait_all(helpers.start_tasks(wanted)))
        one_by_one = sum(handle.get() for handle in helpers.as_completed(helpers.start_tasks(wanted)))
        by_greenlets = [gevent.spawn(helpers.start_task(Child, value=value).get) for value in range(self.children)]
        gevent.joinall(by_greenlets)
        watched = [event.event for event in helpers.start_task(Child).events()]
        return [all_of_them, one_by_one, sum(greenlet.value for greenlet in by_greenlets), watched[-1]]


@app.add_task
class Failing(Task):
    NAME = "failing"

    def start(self):
        raise self.Error("no luck")


@app.add_task
class Forgiving(Task):
    """Tells how its child failed."""

    NAME = "forgiving"

    def start(self):
        try:
            self.helpers.start_task(Failing).get()
        except TaskFailed as error:
            return [error.state, error.message]


@app.add_task
class Impatient(Task):
    """Waits for a task that never ends, in a way that does not last; then says that it goes on."""

    NAME = "impatient"

    def __init__(self, how):
        self.how = how

    def start(self):
        self.emit("waits")
        handle = self.helpers.handle("never")
        if self.how == "timeout":
            with contextlib.suppress(TimeoutError):
                handle.get(timeout=0.1)
        elif self.how == "gevent":
            with gevent.Timeout(0.1, False):  # raised inside
                handle.get()
        elif self.how == "kill":
            waits = gevent.spawn(handle.get)
            gevent.sleep(0.1)
            waits.kill()
        elif self.how == "stop":
            handle.get()
        self.emit("goes-on")
        gevent.sleep(600)


@app.add_task
class Crowd(Task):
    """How many of its kind ran at once in this process, at most."""

    NAME = "crowd"
    inside = most = 0

    def start(self):
        Crowd.inside += 1
        Crowd.most = max(Crowd.most, Crowd.inside)
        gevent.sleep(0.02)
        Crowd.inside -= 1
        return Crowd.most
