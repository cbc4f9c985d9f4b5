"""The app of the tests of typed data and of functions: one task for each thing that can happen."""

from __future__ import annotations

import datetime
import logging
import sys
import time

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from pytask import PyTask, Task

app = PyTask()


@app.add_task
class Echo(Task):
    """Returns what it was given."""

    NAME = "echo"

    def __init__(self, **data):
        self.data = data

    def start(self):
        return self.data


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    customer: str
    count: int = Field(1, gt=0, description="how many")
    when: datetime.date | None = None
    password: SecretStr = SecretStr("")


@app.add_task
class Typed(Task):
    """Takes its data as an Order."""

    NAME = "typed"
    Params = Order

    def start(self):
        return {"customer": self.params.customer, "count": self.params.count, "when": str(self.params.when)}


@app.add_task
class Annotated(Task):
    """Checks its data against the annotations of __init__."""

    NAME = "annotated"
    validate = True

    def __init__(self, count: int, names: list[str] = [], when: datetime.date | None = None):  # noqa: B006
        self.count, self.names, self.when = count, names, when

    def start(self):
        return [type(self.count).__name__, self.names, type(self.when).__name__]


@app.add_task
class Untyped(Task):
    NAME = "untyped"

    def __init__(self, count, names=()):
        self.count = count

    def start(self):
        return self.count


class Own:
    """No pydantic: anything with model_validate."""

    @classmethod
    def model_validate(cls, data):
        how = data.get("how")
        if how == "value":
            raise ValueError("how must not be 'value'")
        if how == "key":
            raise KeyError("in model_validate")
        if how == "exit":
            sys.exit(3)
        if how == "deep":
            return cls.model_validate(data)
        if how == "error":
            raise Task.Error("the task's own word")
        return data


@app.add_task
class Ducky(Task):
    NAME = "ducky"
    Params = Own

    def start(self):
        return self.params


class Hostile(BaseModel):
    many: list[int] = []
    text: str = ""

    @field_validator("text")
    @classmethod
    def check_text(cls, value):
        if value == "bad":
            raise ValueError("x" * 10_000)
        if value == "exit":
            sys.exit(4)
        return value


@app.add_task
class HostileTask(Task):
    NAME = "hostile"
    Params = Hostile

    def start(self):
        return len(self.params.many)


# Functions.


@app.task
def add(a, b=2):
    """Add two numbers."""
    return a + b


@app.task(name="shop.mail/send", queue="mail", retries=0, title="mail", cleanup=False)
def send(to, /, *rest, subject="hello", **more):
    return [to, list(rest), subject, more]


@app.task(bind=True)
def tell(self, text):
    self.emit("told", {"text": text, "id": self.id, "attempt": self.attempt})
    return text.upper()


@app.task(validate=True)
def total(*numbers: int, factor: int = 1) -> int:
    return sum(numbers) * factor


@app.task
def fail(message):
    raise Task.Error(message)


@app.task(bind=True)
def wait(self, seconds):
    """Waits in a thread; tells on which one it ran."""
    self.emit("waiting")
    return self.in_thread(_sleep, seconds, word="slept")


def _sleep(seconds, word):
    logging.getLogger("typedapp").warning("from the thread")
    time.sleep(seconds)
    return word


@app.task(bind=True)
def bad_thread(self, kind):
    self.in_thread(_raise, {"ValueError": ValueError, "SystemExit": SystemExit}[kind])


def _raise(kind):
    raise kind("from the thread")
