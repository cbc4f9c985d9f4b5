"""Every option of a task, in one table: what it is, its unit and default, where it may stand and who reads it.

An option is a keyword of `start_task`, a field of the record, and (but for times) an attribute of the class. The
field goes before the attribute. Pure: values in, checked values or the text of a field out.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from pytask import names, retry
from pytask.checks import (
    YEARS_10,
    as_number,
    check_boolean,
    check_duration,
    check_integer,
    check_seconds,
    read_seconds,
)
from pytask.errors import InvalidInputError, SettingError
from pytask.names import refusal, shown

LATEST = 1e12  # epoch seconds; what is later is as good as never
MOST_TITLE = 1000  # characters
BILLION = 1_000_000_000


class Rate(NamedTuple):
    """So many starts in so many seconds."""

    starts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table. `reader`: who acts on the field: producer, begin, node, limits, cleanup or nobody."""

    name: str
    kind: str
    default: str
    help: str
    reader: str
    in_class: bool = True
    unit: str = ""

    def check(self, value: object) -> Any:
        """The canonical value of what Python code gives. Raises InvalidInputError."""
        try:
            return KINDS[self.kind].check(value)
        except SettingError as error:
            raise InvalidInputError(f"option {self.name}: {error}") from None

    def write(self, value: object) -> str | bytes:
        """The text of the field for a value that Python code gives. Raises InvalidInputError."""
        return KINDS[self.kind].write(self.check(value))

    def read(self, raw: bytes) -> Any:
        """The canonical value of a field. Raises InvalidInputError, whose text begins with the field's name."""
        try:
            # a key may be any bytes
            return KINDS[self.kind].read(
                raw.decode("utf-8", "surrogateescape" if self.name == "unique" else "strict")
            )
        except UnicodeDecodeError:
            raise InvalidInputError(f"the field '{self.name}' is not UTF-8") from None
        except SettingError as error:
            raise InvalidInputError(f"the field '{self.name}': {error}") from None


class Kind(NamedTuple):
    """How values of a kind are checked, written into a field, and read from one."""

    check: Callable[[object], Any]
    write: Callable[[Any], str | bytes]
    read: Callable[[str], Any]


def _check_time(value: object) -> float:
    """Epoch seconds."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            hint = (
                "an aware datetime: say which time zone it is in, datetime(..., tzinfo=ZoneInfo('Europe/Berlin'))"
            )
            raise refusal(value, hint)
        return max(value.timestamp(), 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise refusal(value, "epoch seconds (a number from 0 to 1e12), or an aware datetime")
    return float(value)


def _read_time(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise refusal(text, "epoch seconds, as a decimal number")
    return value


def _check_timeout(value: object) -> float:
    return check_duration(value, 0.001, YEARS_10, f"0.001 to {YEARS_10:.0f} s")


def _check_count(value: object) -> int:
    return check_integer(value, 0, BILLION, f"0 to {BILLION}")


def _check_places(value: object) -> int:
    return check_integer(value, 1, BILLION, f"1 to {BILLION}")


def _check_title(value: object) -> str:
    if not isinstance(value, str) or len(value) > MOST_TITLE:
        raise refusal(value, f"text of at most {MOST_TITLE} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refusal(value, "text that can be encoded") from None
    return value


def _check_field_name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise refusal(value, "the name of a field of the data")
    return _check_title(value)


def _check_unique(value: object) -> bool | str:
    """True, False, or a key of any length: text, or any bytes, then decoded with `surrogateescape`."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, str) and value:
        with contextlib.suppress(UnicodeEncodeError):
            value.encode("utf-8", "surrogateescape")
            return _read_unique(value)
    if isinstance(value, bool):
        return value
    raise refusal(value, "true, false or a key, which is text or bytes")


def _read_unique(text: str) -> bool | str:
    return {"true": True, "false": False, "": False}.get(text, text)


def _write_unique(value: bool | str) -> str | bytes:
    return _write_boolean(value) if isinstance(value, bool) else value.encode("utf-8", "surrogateescape")


def _write_boolean(value: bool) -> str:
    return "true" if value else "false"


def _check_rate(value: object) -> Rate:
    """`10/s`, `100/m`, `5/h`, `3/10s`: so many starts in so much time."""
    if isinstance(value, Rate):
        return value
    allowed = "a rate such as '10/s', '100/m', '5/h', '3/10s': starts (1 to 1e9) in a time (1 ms to 10 years)"
    count, slash, time = value.partition("/") if isinstance(value, str) else ("", "", "")
    time = time.strip()
    seconds = read_seconds(time if time[:1].isdigit() else f"1{time}")
    try:
        number = _check_places(count)
    except SettingError:
        raise refusal(value, allowed) from None
    if not slash or not time or seconds is None or not 0.001 <= seconds <= YEARS_10:
        raise refusal(value, allowed)
    return Rate(number, seconds)


def _write_rate(rate: Rate) -> str:
    return f"{rate.starts}/{as_number(rate.seconds)}s"


def _as_decimal(seconds: float) -> str:
    return as_number(seconds) if abs(seconds) < 1e15 else f"{seconds:.0f}"


def _of_text(check: Callable[[object], Any], write: Callable[[Any], str | bytes] = str) -> Kind:
    """A kind whose field is read as the same text is checked."""
    return Kind(check, write, check)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "queue name": _of_text(names.check_queue_name, names.queue_label),
        "time": Kind(_check_time, lambda seconds: f"{seconds:.6f}", _read_time),
        "duration": _of_text(check_seconds, _as_decimal),
        "duration above 0": _of_text(_check_timeout, _as_decimal),
        "integer": _of_text(_check_count),
        "integer above 0": _of_text(_check_places),
        "boolean": _of_text(check_boolean, _write_boolean),
        "text": _of_text(_check_title),
        "delay": Kind(retry.check_delay, retry.write_delay, retry.read_delay),
        "exceptions": _of_text(retry.check_names, lambda value: ",".join(sorted(value))),
        "true or a key": Kind(_check_unique, _write_unique, _read_unique),
        "name of a data field": _of_text(_check_field_name),
        "rate": _of_text(_check_rate, _write_rate),
    }
)


def _limit(name: str, kind: str, default: str, help: str) -> Option:
    return Option(name, kind, default, help, "limits")


_ROWS = (
    Option("queue", "queue name", "`default`", "The queue it is pushed to. The field only tells.", "producer"),
    Option("due", "time", "", "Not started before.", "begin", False, "epoch s"),
    Option("delay", "duration", "0", "Not started before so long after it was made.", "begin", unit="s"),
    Option("expires", "time", "", "Not begun any more from then on: EXPIRED.", "begin", False, "epoch s"),
    Option("expires_in", "duration", "", "The same, so long after it was made.", "begin", unit="s"),
    Option("timeout", "duration above 0", "", "How long each attempt may take: TIMEOUT.", "node", unit="s"),
    Option("retries", "integer", "0", "Further attempts after EXCEPTION or TIMEOUT.", "node", unit="attempts"),
    Option("retry_delay", "delay", "1, 2, 4 ... 3600", "How long to wait before each of them.", "node", unit="s"),
    Option("retry_on", "exceptions", "all", "What is tried again; `Task.Error` only if it is named.", "node"),
    Option("no_retry_on", "exceptions", "none", "What is not.", "node"),
    Option("result_ttl", "duration", "the setting", "How long a success is kept.", "cleanup", unit="s"),
    Option("failure_ttl", "duration", "the setting", "How long a failure is kept.", "cleanup", unit="s"),
    Option("cleanup", "boolean", "`true`", "`false` keeps the record, and stays off `end-task`.", "begin"),
    Option("rescheduling", "boolean", "`true`", "`false`: never started a second time by itself.", "begin"),
    _limit("unique", "true or a key", "`false`", "One waits or runs at a time, of its data or of this key."),
    _limit("max_running", "integer above 0", "", "How many of this name run on all nodes."),
    _limit("concurrency_key", "name of a data field", "", "`max_running_per_key` run with one value of it."),
    _limit("max_running_per_key", "integer above 0", "1", "How many run with one value of `concurrency_key`."),
    _limit("rate", "rate", "", "How many of this name start in a time on all nodes."),
    _limit("rate_key", "name of a data field", "", "The rate goes for each value of it."),
    Option("title", "text", "", "What people see in lists.", "nobody"),
)

OPTIONS: Mapping[str, Option] = MappingProxyType({row.name: row for row in _ROWS})
"""The table, by name, in the order of the documentation."""

OF_STARTS = ("task_id", "front")
"""What a start takes by name beside the options: no field of the record."""

OF_CLASSES = tuple(row for row in _ROWS if row.in_class)
GATES = tuple(row.name for row in _ROWS if row.reader == "limits")


def write_options(given: Mapping[str, object]) -> list[str | bytes]:
    """The words of a record, field, value, field, value ..., of the options that are given (not None).

    Raises InvalidInputError for an unknown option, a wrong value, and two that exclude each other.
    """
    words: list[str | bytes] = []
    for name, value in given.items():
        option = OPTIONS.get(name)
        if option is None:
            raise InvalidInputError(f"there is no option {shown(name)}{suggestion(name)}")
        if value is not None:
            words += (name, option.write(value))
    _refuse_both(given, "due", "delay")
    _refuse_both(given, "expires", "expires_in")
    return words


def _refuse_both(given: Mapping[str, object], one: str, other: str) -> None:
    if given.get(one) is not None and given.get(other) is not None:
        raise InvalidInputError(f"give {one} or {other}, not both")


def suggestion(name: object, among: Iterable[str] = OPTIONS) -> str:
    """`: did you mean ...?` with the option, or other word, that is closest, or `''`."""
    close = difflib.get_close_matches(str(name)[:80], among, n=1, cutoff=0.7)
    return f": did you mean {close[0]}?" if close else ""


def check_class(task_class: type) -> dict[str, Any]:
    """The options that the attributes of a class set (not None), checked. Raises InvalidInputError.

    A method or a property of such a name is the class's own affair.
    """
    found = {}
    for option in OF_CLASSES:
        value = getattr(task_class, option.name, None)
        if value is not None and not inspect.isroutine(value) and not isinstance(value, property):
            found[option.name] = option.check(value)
    return found
