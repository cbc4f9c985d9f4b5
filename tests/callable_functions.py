"""Functions that tests let nodes call by their path, and what must never be called."""

from __future__ import annotations

import os
from os import system  # noqa: F401
from subprocess import Popen  # noqa: F401

from pytask import PyTask, Task

app = PyTask("redis://localhost:1")


def process(a=0, b=2, *args, **kwargs):
    return [a, b, list(args), kwargs]


def publishable(data):
    return {"got": data}


def _private():
    return "private"


async def coroutine():
    return 1


def wrong():
    raise ValueError("in process")


@app.task
def decorated(x):
    return x * 2


class Made(dict):
    def method(self):
        return "method"


class Instance:
    def __call__(self):
        return "instance"


def _make():
    def inner():
        return "inner"

    return inner


handler = lambda: "lambda"  # noqa: E731
alias = process
inner = _make()
instance = Instance()
value = 3
TaskAlias = Task


def __getattr__(name):
    if name == "dynamic":
        return os.getcwd
    raise AttributeError(name)
