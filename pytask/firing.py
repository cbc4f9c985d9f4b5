"""What a schedule is, out of its hash, and what is to be done about it now. Pure: no clock, no server.

Every node decides alike, from the hash and the server's clock; which of them acts is a matter of the scripts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytask import wire
from pytask.checks import check_boolean, check_seconds
from pytask.errors import InvalidInputError, SettingError
from pytask.names import check_queue_name, shown
from pytask.options import OPTIONS
from pytask.schedule import LATEST, RANGES, Every, Timing, latest, read_timing, write_fire_time

NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")
TIMING = ("cron", "every", *RANGES, "tz")
OWN = (*TIMING, "missed", "jitter")
MISSED = ("latest", "all", "skip")
UNFIT = ("due", "expires")  # a time that is the same for every fire
OF_TASK = tuple(name for name in OPTIONS if name not in ("queue", *UNFIT))
DEFINING = ("task", "data", "queue", *OWN, *OF_TASK)
"""The fields that say what a schedule is. `paused` is beside them; the system writes the others."""

SKIP_LATE = 5.0  # seconds by which a fire may be late under `skip`, and half the way to the next one at most
MOST_MISSED = 1000  # fires that `all` makes up for
BATCH = 100  # fires that are won at a time
DAY = 86_400.0


class Standing(NamedTuple):
    """How far a schedule has come, as its hash tells: fire times, and what they were worked out from."""

    next: float | None = None
    last: float | None = None
    spec: str = ""


class Decision(NamedTuple):
    """The fires that are to be won now, and the fire time after them. `dropped`: `all` leaves older ones out."""

    fires: tuple[float, ...]
    next: float | None
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """A schedule that can fire. `words`: what each task's record says of its own, field, value, ..."""

    name: str
    timing: Timing
    task: str
    queue: str | None
    words: tuple[Any, ...]
    missed: str = "latest"
    jitter: float = 0.0
    paused: bool = False

    def fire_id(self, instant: float) -> str:
        """The id of the task of one fire."""
        return f"{self.name}@{write_fire_time(instant)}"

    def moment(self, instant: float) -> float:
        """When a fire is to be started: its time and its part of the jitter, the same on every node."""
        if not self.jitter:
            return instant
        digest = hashlib.blake2b(self.fire_id(instant).encode(), digest_size=8).digest()
        return instant + self.jitter * (int.from_bytes(digest) / 2**64)


def check_name(name: object) -> str:
    """The name of a schedule. Raises InvalidInputError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidInputError(
            f"the name of a schedule is 1 to 200 characters of A-Z a-z 0-9 _ . : / -, not {shown(name)}"
        )
    return name


def read_definition(name: bytes, fields: Mapping[bytes, bytes]) -> Definition:
    """The schedule of a hash. Raises InvalidInputError with what is wrong with it."""
    checked = check_name(name.decode("utf-8", "surrogateescape"))
    if not fields.get(b"task"):
        raise InvalidInputError("the hash has no field 'task'")
    own = {key: _text(fields, key) for key in (*OWN, "task", "queue", "paused") if fields.get(key.encode())}
    timing = read_timing({key: own[key] for key in TIMING if key in own})
    return Definition(
        checked,
        timing,
        own["task"],
        _read_queue(own.get("queue")),
        _read_words(fields),
        check_missed(own.get("missed", "latest")),
        check_jitter(own.get("jitter", "0"), timing),
        is_paused(own.get("paused")),
    )


def _text(fields: Mapping[bytes, bytes], key: str) -> str:
    try:
        return fields[key.encode()].decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"the field '{key}' is not UTF-8") from None


def _read_queue(text: str | None) -> str | None:
    try:
        return None if text is None else check_queue_name(text)
    except SettingError as error:
        raise InvalidInputError(f"the field 'queue': {error}") from None


def _read_words(fields: Mapping[bytes, bytes]) -> tuple[Any, ...]:
    """Task, data and options as a record has them."""
    data = fields.get(b"data") or b"{}"
    try:
        wire.decode_object(data)
    except wire.WireError as error:
        raise InvalidInputError(f"the field 'data' {error}") from None
    words: list[Any] = ["task", fields[b"task"], "data", data]
    for name in UNFIT:
        if fields.get(name.encode()):
            raise InvalidInputError(unfit(name))
    for name in OF_TASK:
        if raw := fields.get(name.encode()):
            OPTIONS[name].read(raw)
            words += (name, raw)
    return tuple(words)


def unfit(name: str) -> str:
    """Why a schedule cannot have this option."""
    other = "delay" if name == "due" else "expires_in"
    return f"a schedule has no {name}, which would be the same time for all its tasks: give {other}"


def is_paused(text: str | None) -> bool:
    """What stands in `paused`: anything but nothing, or a word for no, pauses."""
    try:
        return bool(text) and check_boolean(text)
    except SettingError:
        return True


def check_missed(value: object) -> str:
    """A policy for fires that were missed. Raises InvalidInputError."""
    if value not in MISSED:
        raise InvalidInputError(f"missed {shown(value)} is not allowed: it must be latest, all or skip")
    return str(value)


def check_jitter(value: object, timing: Timing) -> float:
    """Seconds, as a number or text such as `5m`. Raises InvalidInputError."""
    try:
        seconds = check_seconds(value)
    except SettingError as error:
        raise InvalidInputError(f"jitter: {error}") from None
    if isinstance(timing, Every) and seconds * 1e6 > timing.microseconds:
        raise InvalidInputError(f"jitter {shown(value)} is not allowed: it is longer than the interval")
    return seconds


def read_standing(fields: Mapping[bytes, bytes]) -> Standing:
    """How far the schedule of a hash has come; what cannot be read counts as absent."""
    spec = fields.get(b"spec", b"").decode("ascii", "replace")
    return Standing(read_time(fields.get(b"next", b"")), read_time(fields.get(b"last", b"")), spec)


def read_time(raw: bytes) -> float | None:
    """A fire time out of a field; None for what is none."""
    try:
        instant = float(raw)
    except ValueError:
        return None
    return instant if 0 <= instant < LATEST else None


def decide(definition: Definition, standing: Standing, now: float) -> Decision:
    """What is to fire now, by the server's clock, and what comes next."""
    if definition.paused:
        return Decision((), None)
    first = _first(definition.timing, standing, now)
    if first is None or definition.moment(first) > now:
        return Decision((), first)
    if definition.missed == "all":
        return _all(definition, first, now)
    newest = _newest(definition, first, now)
    following = definition.timing.after(newest)
    if definition.missed == "skip" and now - definition.moment(newest) > _late(newest, following):
        return Decision((), following)
    return Decision((newest,), following)


def _first(timing: Timing, standing: Standing, now: float) -> float | None:
    """The first fire time that was not won yet.

    What was fired is not fired again where the clock was set back by up to a day. By more: the clock that fired it
    was wrong. A changed definition begins now; what is due already stays due where it is on the new list, too.
    """
    last = standing.last if standing.last is not None and standing.last <= now + DAY else None
    floor = now if last is None else max(now, last)
    first = standing.next
    if first is None or (standing.spec != timing.digest and not (first <= now and _has(timing, first))):
        return timing.after(floor)
    if last is not None and first <= last:
        return timing.after(last)
    if first > now:  # unless the clock was set back, or somebody wrote it, this is the one
        earlier = timing.after(floor)
        return first if earlier is None else min(first, earlier)
    return first


def _has(timing: Timing, instant: float) -> bool:
    return timing.after(instant - 0.01) == instant


def _newest(definition: Definition, first: float, now: float) -> float:
    """The last fire that is due, where the first one is."""
    newest = latest(definition.timing, first, max(first, now - definition.jitter))
    while (found := definition.timing.after(newest)) is not None and definition.moment(found) <= now:
        newest = found
    return newest


def _late(instant: float, following: float | None) -> float:
    return SKIP_LATE if following is None else min(SKIP_LATE, (following - instant) / 2)


def _all(definition: Definition, first: float, now: float) -> Decision:
    """The oldest that are due, of the newest MOST_MISSED."""
    newest = _newest(definition, first, now)
    fires = _list(definition.timing, first, newest)
    dropped = fires[-1] < newest
    while fires[-1] < newest:  # too many: begin later
        first = definition.timing.after((first + newest) / 2) or newest
        fires = _list(definition.timing, first, newest)
    won = tuple(fires[:BATCH])
    return Decision(won, definition.timing.after(won[-1]), dropped)


def _list(timing: Timing, first: float, newest: float) -> list[float]:
    """The fire times from `first` to `newest`, at most MOST_MISSED."""
    found = [first]
    while len(found) < MOST_MISSED and found[-1] < newest and (instant := timing.after(found[-1])) is not None:
        found.append(instant)
    return found
