"""Task handlers for Cleanup, and apps that use them. They tell what they saw in lists of Redis."""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from typing import Any

import redis

from pytask import PyTask, Task


@cache
def client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["PYTASK_TEST_URL"])


def _tell(name: str, task_id: str, record: dict[str, str]) -> None:
    row = json.dumps([task_id, record])
    client().rpush(name, row)


def note(task_id: str, record: dict[str, str]) -> None:
    """Sees everything, and fails where the output says so: always, the first two times, or by exiting."""
    _tell("handled", task_id, record)
    wish = record.get("output")
    if wish == "always":
        raise ValueError(f"no luck with {task_id}")
    if wish == "twice" and client().incr(f"tries:{task_id}") <= 2:
        raise ValueError(f"not yet {task_id}")
    if wish == "exit":
        sys.exit(9)


def hang(task_id: str, record: dict[str, str]) -> None:
    """Waits for as long as the key `hold` exists."""
    _tell("handled" if not client().exists("hold") else "taken", task_id, record)
    while client().exists("hold"):
        client().blpop("never", 0.1)


not_a_function = "text"


class Fail(Task):
    NAME = "fail"

    def __init__(self, message: str = "no luck") -> None:
        self.message = message

    def start(self) -> Any:
        raise self.Error(self.message)


class Noop(Task):
    NAME = "noop"

    def start(self) -> Any:
        pass


def make_app(handler: str) -> PyTask:
    app = PyTask()
    app.add_tasks(Noop, Fail)
    app.start_local_task("pytask/cleanup", task_handler=handler)
    return app


noting = make_app("handlers:note")
hanging = make_app("handlers:hang")
broken = make_app("handlers:not_a_function")
missing = make_app("no_such_module:note")
