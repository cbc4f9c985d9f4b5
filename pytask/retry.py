"""When a failed attempt is followed by another one: delays, and the exceptions that count. Pure.

A delay is a number of seconds, a list of them (the last one goes for all later attempts), or `exponential(...)`.
In a record it is JSON: `10`, `[1, 5, 30]`, `{"base": 1, "factor": 2, "max": 300, "jitter": 0.1}`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pytask.checks import check_seconds
from pytask.errors import SettingError
from pytask.names import refusal

MOST_DELAYS = 1000
MOST_NAMES = 100
ALLOWED = "a number of seconds, a list of them, or exponential(base, factor, max, jitter)"
ALLOWED_NAMES = "exception classes, or names of such with commas between them"


@dataclass(frozen=True, slots=True)
class Exponential:
    """`base * factor ** (attempt - 1)` seconds, at most `max`, each up to `jitter` (0 to 1) of itself off."""

    base: float
    factor: float
    max: float
    jitter: float

    def get(self, attempt: int) -> float:
        """Seconds to wait after this attempt."""
        try:
            delay = min(self.base * self.factor ** (attempt - 1), self.max)
        except OverflowError:
            delay = self.max
        return delay * random.uniform(1 - self.jitter, 1 + self.jitter)


Delay = tuple[float, ...] | Exponential


def exponential(base: float = 1.0, factor: float = 2.0, max: float = 3600.0, jitter: float = 0.1) -> Exponential:
    """Delays that grow: 1, 2, 4 ... seconds by default, at most an hour, each a tenth more or less by chance.

    Raises SettingError where base or max is no duration, factor is not 1 to 1000, or jitter not 0 to 1.
    """
    return Exponential(
        check_seconds(base),
        _between(factor, 1, 1000, "factor"),
        check_seconds(max),
        _between(jitter, 0, 1, "jitter"),
    )


def _between(value: object, least: float, most: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise refusal(value, f"a {name} of {least} to {most}")
    return float(value)


def check_delay(value: object) -> Delay:
    """The canonical form of a delay, out of what Python or JSON holds. Raises SettingError."""
    if isinstance(value, Exponential):
        return value
    if isinstance(value, dict):
        return _from_dict(value)
    if isinstance(value, list | tuple):
        if not 1 <= len(value) <= MOST_DELAYS:
            raise refusal(value, f"{ALLOWED}; a list has 1 to {MOST_DELAYS}")
        return tuple(check_seconds(item) for item in value)
    return (check_seconds(value),)


def _from_dict(value: dict[Any, Any]) -> Exponential:
    try:
        return exponential(**value)
    except TypeError:
        raise refusal(value, "an object with base, factor, max, jitter, none of which it needs") from None


def read_delay(text: str) -> Delay:
    """The delay that a record holds, as JSON or as a duration such as `10s`. Raises SettingError."""
    try:
        value = json.loads(text, parse_constant=_no_number) if text[:1] in "[{" else text
    except (ValueError, RecursionError):
        raise refusal(text, ALLOWED) from None
    return check_delay(value)


def _no_number(text: str) -> None:
    raise ValueError(text)


def write_delay(delay: Delay) -> str:
    """The delay as a record holds it."""
    if isinstance(delay, Exponential):
        return json.dumps(asdict(delay))
    return json.dumps(delay if len(delay) > 1 else delay[0])


def delay_after(delay: Delay, attempt: int) -> float:
    """Seconds to wait after this attempt, counted from 1."""
    if isinstance(delay, Exponential):
        return delay.get(attempt)
    return delay[min(attempt, len(delay)) - 1]


def check_names(value: object) -> frozenset[str]:
    """Names of exception classes, at least one, out of classes, names, or several of them. Raises SettingError."""
    items: Iterable[object]
    if isinstance(value, str):
        items = [name.strip() for name in value.split(",") if name.strip()]
    elif isinstance(value, list | tuple | set | frozenset):
        items = list(value)
    else:
        items = [value]
    names = frozenset(_name_of(item, value) for item in items)
    if not names:
        raise SettingError(f"no exceptions are named: it must be {ALLOWED_NAMES}")
    if len(names) > MOST_NAMES:
        raise refusal(value, f"{ALLOWED_NAMES}, at most {MOST_NAMES}")
    return names


def _name_of(item: object, value: object) -> str:
    if isinstance(item, type) and issubclass(item, BaseException):
        return item.__qualname__ if item.__module__ == "builtins" else f"{item.__module__}.{item.__qualname__}"
    if isinstance(item, str) and item and all(part.isidentifier() for part in item.split(".")):
        return item
    raise refusal(value, ALLOWED_NAMES)


def is_among(error: type[BaseException], names: frozenset[str]) -> bool:
    """Is the error, or one of the classes that it comes from, named here, with or without its module?"""
    return any(
        kind.__name__ in names or kind.__qualname__ in names or f"{kind.__module__}.{kind.__qualname__}" in names
        for kind in error.__mro__
    )
