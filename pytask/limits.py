"""Limits: which of them a task is under, and the names by which all nodes know each. Pure.

A task may need a lock (`unique`), a place for a value of its data (`concurrency_key`), a start out of a rate
(`rate`), and a place for its name (`max_running`). They are asked for in this order, from the narrow to the wide,
and what was granted is kept while it waits for the next: so nobody waits for a place that another one keeps while
it waits, but for those who would have to wait behind that one anyway.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pytask import wire
from pytask.options import OPTIONS, Rate

UNIQUE = "unique-"
KINDS = ("key-", "rate", "max-")  # how labels begin, in the order in which the limits are asked


class Limit(NamedTuple):
    """A limit that nodes share. `seconds` is 0 where `most` counts places; else so many starts in so much time."""

    label: str
    most: int
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """As a record names it: `<label>=<places>`, `<label>=<starts>/<seconds>`."""
        return f"{self.label}={self.most}/{self.seconds!r}" if self.seconds else f"{self.label}={self.most}"


class Demand(NamedTuple):
    """What a task has to ask for before it starts: a lock, or `''`, and limits, in order."""

    lock: str = ""
    limits: tuple[Limit, ...] = ()

    @property
    def text(self) -> str:
        """As the record's field `limits` holds it."""
        return " ".join([limit.text for limit in self.limits] + [self.lock] * bool(self.lock))


NOTHING = Demand()


def read_demand(task: str, data: bytes | None, fields: Mapping[str, bytes], of_class: Mapping[str, Any]) -> Demand:
    """What the options of a task ask for: those of its record, and those of its class where the record has none.

    `data` is the record's, None where it is too large. Data that cannot be read asks for nothing: such a task ends
    as ERROR when it starts. Raises InvalidInputError for an option that is wrong.
    """
    options = {name: _option(name, fields, of_class) for name in OPTIONS if name in fields or name in of_class}
    try:
        values = _Data(data)
        limits = [_per_key(task, options, values), _rate(task, options, values), _max_running(task, options)]
        lock = lock_label(task, options.get("unique"), values.raw)
    except wire.WireError:
        return NOTHING
    return Demand(lock, tuple(limit for limit in limits if limit))


def _option(name: str, fields: Mapping[str, bytes], of_class: Mapping[str, Any]) -> Any:
    raw = fields.get(name)
    if raw is None:
        return of_class[name]
    return OPTIONS[name].read(raw) if raw else None


class _Data:
    """The data of a task, decoded when it is first needed."""

    def __init__(self, raw: bytes | None) -> None:
        self._raw = raw
        self._values: dict[str, Any] | None = None

    @property
    def raw(self) -> bytes:
        if self._raw is None:
            raise wire.WireError("is too large")
        return self._raw

    def digest(self, name: str) -> str:
        """Of the value of one field; what lacks it is as what holds null."""
        if self._values is None:
            self._values = wire.decode_object(self.raw)
        return digest_of(name.encode("utf-8", "surrogatepass"), canonical(self._values.get(name)))


def _max_running(task: str, options: Mapping[str, Any]) -> Limit | None:
    most = options.get("max_running")
    return Limit(f"max-{task}", most) if most else None


def _per_key(task: str, options: Mapping[str, Any], data: _Data) -> Limit | None:
    name = options.get("concurrency_key")
    if not name:
        return None
    return Limit(f"key-{data.digest(name)}-{task}", options.get("max_running_per_key") or 1)


def _rate(task: str, options: Mapping[str, Any], data: _Data) -> Limit | None:
    rate: Rate | None = options.get("rate")
    if not rate:
        return None
    name = options.get("rate_key")
    label = f"rates-{data.digest(name)}-{task}" if name else f"rate-{task}"
    return Limit(label, rate.starts, rate.seconds)


def lock_label(task: str, unique: bool | str | None, data: bytes) -> str:
    """The label of the lock of a task that is `unique`, `''` where it is not.

    `True` is for the same data, whatever the order of its keys; a key is for itself. Raises WireError for data
    that is no JSON object.
    """
    if not unique:
        return ""
    if unique is True:
        digest = digest_of(b"data", canonical(wire.decode_object(data)))
    else:
        digest = digest_of(b"key", unique.encode("utf-8", "surrogateescape"))
    return f"{UNIQUE}{task}-{digest}"


def canonical(value: Any) -> bytes:
    """A JSON value as bytes that are the same however it was written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest_of(*parts: bytes) -> str:
    """32 hex digits."""
    made = hashlib.sha256()
    for part in parts:
        made.update(b"%d:" % len(part) + part)
    return made.hexdigest()[:32]


def parse_limit(text: str) -> Limit | None:
    """A limit as `Limit.text` writes it; None for anything else."""
    label, _, size = text.rpartition("=")
    most, _, seconds = size.partition("/")
    if not label.startswith(KINDS) or len(size) > 40 or not most.isdecimal() or not int(most):
        return None
    try:
        limit = Limit(label, int(most), float(seconds) if seconds else 0.0)
    except ValueError:
        return None
    return limit if 0 <= limit.seconds <= 1e9 else None


def parse_demand(text: str) -> Demand:
    """What a record's field `limits` names; whatever else stands there is passed over."""
    words = text.split(" ")
    locks = [word for word in words if word.startswith(UNIQUE)]
    limits = [limit for limit in map(parse_limit, words) if limit]
    return Demand(locks[0] if locks else "", tuple(limits))


def in_order(limits: Iterable[Limit]) -> list[list[Limit]]:
    """Limits by kind, in the order in which they are asked."""
    found = list(limits)
    return [[limit for limit in found if limit.label.startswith(kind)] for kind in KINDS]
