"""Services: what defines one, as Python code or a hash says it, and what the records of its replicas hold. Pure.

A definition is a set of fields of text: `task`, `data`, `replicas`, `restart`, `queue` and options of the task.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from pytask import states, wire
from pytask.checks import check_integer
from pytask.errors import InvalidInputError, SettingError
from pytask.names import (
    DEFAULT_QUEUE_WORD,
    TASK_NAME,
    check_queue_name,
    check_service_name,
    queue_label,
    refusal,
    shown,
)
from pytask.options import OPTIONS

MOST_REPLICAS = 100_000
WORKFLOW = "pytask/workflow"  # the task of that name stands in a module beside this one
ALWAYS, ON_FAILURE = RESTARTS = ("always", "on-failure")
OPTIONS_OF_SERVICES = (
    "timeout", "title", "max_running", "concurrency_key", "max_running_per_key", "rate", "rate_key",
)  # fmt: skip
FIELDS = ("task", "data", "replicas", "restart", "queue", *OPTIONS_OF_SERVICES)
SYSTEM = (
    "defined",
    "reload",
)  # written by helpers alone: what code defined last, and how often a reload was asked for
LONGEST = 4096  # bytes of an option


class Definition(NamedTuple):
    """What a service is to be. `shared`: fields that the records of all its replicas have, but for the count."""

    name: str
    replicas: int
    queue: str
    shared: dict[str, bytes]
    reloads: bytes = b""

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.shared["task"].decode()

    @property
    def restart(self) -> str:
        """When a replica that has ended is started again."""
        return self.shared["restart"].decode()

    @property
    def digest(self) -> str:
        """Of everything that makes replicas start anew where it changes."""
        made = hashlib.sha256(b"%d:" % len(self.reloads) + self.reloads)
        for field, value in sorted(self.shared.items()):
            made.update(b"%d:%s%d:" % (len(field), field.encode(), len(value)) + value)
        return made.hexdigest()[:32]

    def id_of(self, number: int) -> bytes:
        """The id of a replica."""
        return id_of_replica(self.name, number)

    def record_of(self, number: int, revision: int, now: float) -> list[Any]:
        """The words of a new record: field, value, field, value, ..."""
        words: list[Any] = ["service", self.name, "replica", number, "revision", revision]
        words += ["state", states.WAIT, "created", wire.encode_time(now), "cleanup", "false"]
        return words + [word for pair in self.changes().items() if pair[1] for word in pair]

    def changes(self) -> dict[str, Any]:
        """What the record of every replica says of the definition: an empty value stands for no field."""
        absent = dict.fromkeys(("queue", *OPTIONS_OF_SERVICES), b"")
        return {**absent, **self.shared, "replicas": self.replicas}


def id_of_replica(service: str, number: int) -> bytes:
    """`<name>:<number>`."""
    return f"{service}:{number}".encode()


def digest_of(fields: Mapping[str, str | bytes]) -> str:
    """Of the fields of a definition as code gives them."""
    made = hashlib.sha256()
    for field, value in sorted(fields.items()):
        raw = value if isinstance(value, bytes) else value.encode()
        made.update(b"%d:%s%d:" % (len(field), field.encode(), len(raw)) + raw)
    return made.hexdigest()[:32]


# As Python code gives it.


def write_definition(given: Mapping[str, Any], max_data: int) -> dict[str, str | bytes]:
    """The fields for values of Python, of those that are given; None leaves one out. Raises InvalidInputError."""
    fields: dict[str, str | bytes] = {}
    for name, value in given.items():
        if name not in FIELDS:
            raise InvalidInputError(_no_option(name))
        if value is not None:
            fields[name] = _write(name, value, max_data)
    return fields


def _no_option(name: object) -> str:
    if name in OPTIONS:
        return f"a service has no option {name}: its replicas are kept running, whatever becomes of them"
    close = difflib.get_close_matches(str(name)[:80], FIELDS, n=1, cutoff=0.7)
    return f"a service has no option {shown(name)}" + (f": did you mean {close[0]}?" if close else "")


def _write(name: str, value: Any, max_data: int) -> str | bytes:
    if name == "data":
        if not isinstance(value, Mapping):
            raise InvalidInputError(f"data is a dict, not {type(value).__name__}")
        return wire.encode_json(dict(value), max_data)
    try:
        if name == "replicas":
            return str(check_replicas(value))
        if name == "restart":
            return _check_restart(value)
        if name == "task":
            return _check_task(value)
        return queue_label(check_queue_name(value)) if name == "queue" else OPTIONS[name].write(value)
    except SettingError as error:
        raise InvalidInputError(f"{name}: {error}") from None


def check_replicas(value: object) -> int:
    """How many replicas. Raises SettingError."""
    return check_integer(value, 0, MOST_REPLICAS, f"0 to {MOST_REPLICAS}")


def _check_restart(value: object) -> str:
    if value not in RESTARTS:
        raise refusal(value, " or ".join(map(repr, RESTARTS)))
    return str(value)


def _check_task(value: object) -> str:
    if not isinstance(value, str) or not TASK_NAME.fullmatch(value):
        raise refusal(value, "the NAME of a task: 1 to 200 characters of A-Z a-z 0-9 _ . / : -")
    if value == WORKFLOW:
        raise refusal(value, "a task that can be kept running, which a workflow cannot: let a schedule start it")
    return value


def check_name(name: object) -> str:
    """The name of a service. Raises InvalidInputError."""
    try:
        return check_service_name(name)
    except SettingError as error:
        raise InvalidInputError(str(error)) from None


# As a hash says it.


def read_definition(name: bytes, fields: Mapping[bytes, bytes], max_data: int) -> Definition:
    """What a hash says. Raises InvalidInputError, whose text says what is wrong with which field."""
    checked = check_name(wire.to_str(name))
    values = {wire.to_str(field): value for field, value in fields.items()}
    reloads = values.pop("reload", b"")[:LONGEST]
    values.pop("defined", None)
    for field in values:
        if field not in FIELDS:
            raise InvalidInputError(_no_option(field))
    found = {field: _read(field, value, max_data) for field, value in values.items() if value}
    if "task" not in found:
        raise InvalidInputError("the field 'task' is missing: HSET it to the NAME of a task")
    replicas = int(found.pop("replicas", b"1"))
    queue = found.pop("queue", b"").decode()
    if queue and queue != DEFAULT_QUEUE_WORD:
        found["queue"] = queue.encode()
    shared = {"data": b"{}", "restart": ALWAYS.encode(), **found}
    return Definition(checked, replicas, check_queue_name(queue), shared, reloads)


def _read(field: str, value: bytes, max_data: int) -> bytes:
    """The canonical text of a field."""
    if field == "data":
        if len(value) > max_data:
            raise InvalidInputError(f"the field 'data' has {len(value)} bytes; the limit (max_data) is {max_data}")
        try:
            wire.decode_object(value)
        except wire.WireError as error:
            raise InvalidInputError(f"the field 'data' {error}") from None
        return value
    if len(value) > LONGEST:
        raise InvalidInputError(f"the field '{field}' has {len(value)} bytes")
    if field in OPTIONS_OF_SERVICES:
        OPTIONS[field].read(value)
        return value
    try:
        text = _write(field, value.decode(), max_data)
    except UnicodeDecodeError:
        raise InvalidInputError(f"the field '{field}' is not UTF-8") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"the field {error}") from None
    return text if isinstance(text, bytes) else text.encode()
