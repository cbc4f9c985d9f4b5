"""The app of the tests of hooks: everything that a hook is told of goes into the Redis list `told`."""

from __future__ import annotations

import os
import sys
import time

import gevent

from pytask import PyTask, Task

app = PyTask()
OPEN = []  # sessions


def tell(*words):
    app.redis.rpush("told", " ".join(map(str, words)))


@app.on_node_start
def started(node):
    tell("node-start", node.id, node.pid == os.getpid(), ",".join(node.queues), node.concurrency)


@app.on_node_start
def broken_start(node):
    sys.exit(5)


@app.on_node_stop
def stopped(node):
    tell("node-stop", node.id)
    raise ValueError("in a node's hook")


@app.on_start
def begins(task):
    tell("start", task.NAME, task.id, task.attempt)


@app.on_start
def broken(task):
    sys.exit(6)


@app.on_end
def broken_end(task, state):
    if task.NAME.startswith("killed"):
        raise gevent.GreenletExit
    raise KeyError("in on_end")


@app.on_end
def ended(task, state):
    tell("end", task.NAME, task.id, state, task.attempt)


@app.on_end
def ended_with(task, state, error):
    tell("error", task.NAME, task.attempt, type(error).__name__, "" if error is None else error)


@app.add_exception_handler
def killed(error):
    raise gevent.GreenletExit


@app.around
def outer(task, run):
    tell("outer-in", task.id)
    try:
        run()
    except BaseException as error:
        tell("outer-saw", task.id, type(error).__name__)
        raise
    finally:
        tell("outer-out", task.id)


@app.around
def session(task, run):
    task.session = object()
    OPEN.append(task.session)
    try:
        run()
    finally:
        OPEN.remove(task.session)


@app.around
def naughty(task, run):
    """What it does depends on the task's name."""
    if task.NAME == "skipped":
        return
    if task.NAME == "before":
        raise RuntimeError("before run()")
    if task.NAME == "hidden":
        try:
            run()
        except ValueError:
            return
    if task.NAME == "replaced":
        try:
            run()
        except ValueError:
            raise RuntimeError("another error") from None
    run()
    if task.NAME == "after":
        raise RuntimeError("after run()")
    if task.NAME == "twice":
        run()


@app.add_task
class Echo(Task):
    """Returns what it was given."""

    NAME = "echo"

    def __init__(self, **data):
        self.data = data

    def start(self):
        return self.data


class Work(Task):
    def start(self):
        assert self.session in OPEN
        return self.NAME


for name in ("plain", "skipped", "before", "after", "twice", "killed"):
    app.add_task(type(name, (Work,), {"NAME": name}))


class Fails(Task):
    def start(self):
        raise ValueError("the task's own")


for name in ("fails", "hidden", "replaced", "killed-fails"):
    app.add_task(type(name, (Fails,), {"NAME": name}))


@app.add_task
class Needs(Task):
    NAME = "needs"

    def __init__(self, argument):
        pass

    def start(self):
        pass


@app.add_task
class Loop(Task):
    NAME = "loop"

    def start(self):
        while True:
            self.emit("turn")
            gevent.sleep(0.05)


@app.add_task
class Swallow(Task):
    """Ends softly where it is told to."""

    NAME = "thread"

    def start(self):
        self.emit("waiting")
        try:
            self.in_thread(time.sleep, 30)
        finally:
            tell("thread-left", self.id)
