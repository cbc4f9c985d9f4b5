"""Schedules as taskkit has them: the entries of schedulers, each known by its key there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, NotRequired, TypedDict

from pytask import schedule as core
from pytask.compat.taskkit.handling import NAME, TTL, to_json
from pytask.errors import InvalidInputError
from pytask.names import queue_label, queue_name_of, shown


class RegularSchedule:
    """Every moment of which each part is in its set: `seconds` (0 unless given), `minutes`, `hours`, and so on.

    `"*"` and None stand for any.
    """

    def __init__(self, seconds: Any = 0, *parts: Any, tzinfo: tzinfo | None = None, **named: Any) -> None:
        given = {name: None if value == "*" else value for name, value in named.items()}
        self.times = core.RegularSchedule(*(None if part == "*" else part for part in (seconds, *parts)), **given)
        self.tzinfo = tzinfo


@dataclass(frozen=True)
class ScheduleEntry:
    """A schedule of a scheduler, with data that are encoded."""

    key: str
    schedule: RegularSchedule
    group: str
    name: str
    data: bytes
    result_ttl: float | None = None


class ScheduleEntryDict(TypedDict):
    """The same, with data that the kit encodes."""

    key: str
    schedule: RegularSchedule
    group: str
    name: str
    data: Any
    result_ttl: NotRequired[float | None]


ScheduleEntryCompat = ScheduleEntry | ScheduleEntryDict
ScheduleEntriesCompat = Sequence[ScheduleEntryCompat]
ScheduleEntriesCompatMapping = Mapping[str, ScheduleEntriesCompat]


def make_schedules(
    schedulers: ScheduleEntriesCompatMapping, encode: Callable[..., bytes], zone: tzinfo | str
) -> dict[str, dict[str, Any]]:
    """Schedules of ours, `<scheduler>:<key>`. Raises InvalidInputError for two of one name."""
    made: dict[str, dict[str, Any]] = {}
    for scheduler, entries in schedulers.items():
        for entry in (_encoded(entry, encode) for entry in entries):
            name = f"{label_of(scheduler)}:{label_of(entry.key)}"
            if name in made:
                raise InvalidInputError(
                    f"scheduler {shown(scheduler)} has two entries of the key {shown(entry.key)}"
                )
            made[name] = _make_schedule(entry, zone)
    return made


def _encoded(entry: ScheduleEntryCompat, encode: Callable[..., bytes]) -> ScheduleEntry:
    if isinstance(entry, ScheduleEntry):
        return entry
    data = encode(entry["group"], entry["name"], entry["data"])
    return ScheduleEntry(**{**entry, "data": data})  # type: ignore[arg-type]


def label_of(word: str) -> str:
    """A scheduler, a key or a group in the names of schedules and queues."""
    return queue_label(queue_name_of(word))


def _make_schedule(entry: ScheduleEntry, zone: tzinfo | str) -> dict[str, Any]:
    ttl = TTL if entry.result_ttl is None else entry.result_ttl
    return {
        "task": NAME,
        "data": {"group": entry.group, "name": entry.name, "data": to_json(entry.data), "ttl": ttl},
        "regular": getattr(entry.schedule, "times", entry.schedule),
        "tz": getattr(entry.schedule, "tzinfo", None) or zone,
        **{"queue": label_of(entry.group), "title": entry.name, "result_ttl": ttl, "failure_ttl": ttl},
    }
