"""Scheduling: the helpers that define, list and steer schedules. What they write counts at once, on every node."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from pytask import wire
from pytask.errors import InvalidInputError, ScheduleNotFoundError, SettingError, StoreError, UnknownTaskError
from pytask.firing import (
    DEFINING,
    OF_TASK,
    TIMING,
    UNFIT,
    Definition,
    check_jitter,
    check_missed,
    check_name,
    read_definition,
    read_standing,
    unfit,
)
from pytask.handle import TaskHandle
from pytask.names import queue_label, shown
from pytask.options import suggestion
from pytask.producing import Classes, make_row, task_name
from pytask.schedule import (
    Calendar,
    RegularSchedule,
    Timing,
    check_every,
    read_timing,
    upcoming,
    write_every,
)
from pytask.store.queues import NewRecord
from pytask.store.store import Store
from pytask.task import AnyTask, class_of
from pytask.zones import write_zone

ENTRY = ("task", "data", "regular", "cron", "every", "tz", "queue", "missed", "jitter", *OF_TASK)
BUILT_IN = "pytask/"
NEXT = 5  # fire times that lists tell

Fields = Mapping[str, Any]


class Scheduling:
    """The helpers for schedules."""

    store: Store
    classes: Classes
    declared_schedules: Mapping[str, Fields] = {}  # of the app: its nodes write them when they start

    def add_schedule(
        self,
        name: str,
        task: AnyTask,
        data: Mapping[str, Any] | None = None,
        regular: RegularSchedule | None = None,
        *,
        cron: str | None = None,
        every: float | str | None = None,
        tz: Any = None,
        queue: str | None = None,
        missed: str | None = None,
        jitter: float | str | None = None,
        **options: Any,
    ) -> bool:
        """Define a schedule, or define it anew, at once; False where it is defined so already.

        One of `cron` (five fields, or six with the seconds first), `every` (seconds, or text such as `5m`) and
        `regular` says when; `tz` (a name, an offset, a tzinfo object) in which zone, UTC unless given. `missed`
        says what becomes of fires that no node was there for: `latest`, `all` or `skip`. `jitter`: seconds by
        which each fire is late, at random, at most. The options of docs/options.md go to each task. Raises
        InvalidInputError; UnknownTaskError for a name that the app does not know.
        """
        given = {**options, "regular": regular, "cron": cron, "every": every, "tz": tz, "queue": queue}
        fields = make_schedule(
            self.classes, name, {**given, "task": task, "data": data, "missed": missed, "jitter": jitter}
        )
        return self.store.schedules.define(name.encode(), DEFINING, fields)

    def add_schedules(self, *groups: Mapping[str, Any], **named: Any) -> int:
        """Define many; how many were not defined so already. All are checked before the first one is written.

        Each group is a mapping of names to schedules: dicts with the arguments of `add_schedule` as keys, or
        objects with such attributes. A group in a group, or one that is given by keyword, has its own name before
        the names in it: `group:name`. Raises InvalidInputError, UnknownTaskError.
        """
        made = make_schedules(self.classes, *groups, named)
        return sum(self.store.schedules.define(name.encode(), DEFINING, fields) for name, fields in made.items())

    def remove_schedule(self, name: str) -> bool:
        """Remove a schedule; False where there is none. Tasks that it has started go on."""
        return self.store.schedules.remove(check_name(name).encode())

    def pause_schedule(self, name: str) -> bool:
        """Let a schedule fire no more until it is resumed; False where it is paused already.

        What would have fired meanwhile does not count as missed. Raises ScheduleNotFoundError.
        """
        return self._pause(name, time.time())

    def resume_schedule(self, name: str) -> bool:
        """Let a schedule fire again from now on; False where it was not paused. Raises ScheduleNotFoundError."""
        return self._pause(name, None)

    def _pause(self, name: str, now: float | None) -> bool:
        answer = self.store.schedules.pause(check_name(name).encode(), now)
        if answer < 0:
            raise _not_found(name)
        return bool(answer)

    def run_schedule(self, name: str) -> TaskHandle:
        """Start the task of a schedule now, whatever its times, also of one that is paused; returns its id.

        Raises ScheduleNotFoundError, and InvalidInputError for one that is broken.
        """
        fields = self.store.schedules.get(check_name(name).encode())
        if not fields:
            raise _not_found(name)
        definition = read_definition(name.encode(), fields)
        queue, now = queue_of(definition, self.classes), time.time()
        task_id = definition.fire_id(now)
        words = words_of_fire(definition, queue, now)
        self.store.queues.create([NewRecord(task_id.encode(), words, new=True)], queue)
        return TaskHandle(task_id, self)

    def get_schedule(self, name: str, times: int = NEXT) -> dict[str, Any] | None:
        """How one schedule stands, as `get_schedules` tells it; None where there is none."""
        raw = check_name(name).encode()
        (found,) = self.store.schedules.get_each([raw])
        if not found and not self.store.schedules.has(raw):
            return None
        return _told(raw, found, times)

    def get_schedules(self, times: int = NEXT) -> dict[str, dict[str, Any]]:
        """How every schedule stands, by name.

        Each is a dict of `task`, `when` (in words), `queue`, `missed`, `jitter`, `paused` (since when, or None),
        `last` and `next` (fire times, or None), `times` (the next ones; epoch seconds, without jitter), `error`
        (what is wrong with it, or None) and `fields` (the hash, as texts).
        """
        told: dict[str, dict[str, Any]] = {}
        for batch in self.store.schedules.iter_names():
            names = [name for name, _ in batch]
            for name, found in zip(names, self.store.schedules.get_each(names), strict=True):
                told[wire.to_str(name)] = _told(name, found, times)
        return dict(sorted(told.items()))


def _not_found(name: str) -> ScheduleNotFoundError:
    return ScheduleNotFoundError(f"there is no schedule {shown(name)}")


# Out of what Python code gives.


def make_schedules(classes: Classes, *groups: object) -> dict[str, Fields]:
    """The hashes of many, by name. Raises InvalidInputError, UnknownTaskError."""
    made: dict[str, Fields] = {}
    for group in groups:
        for name, entry in _entries(group, ""):
            if name in made:
                raise InvalidInputError(f"two of the schedules have the name {shown(name)}")
            made[name] = make_schedule(classes, name, entry)
    return made


def _entries(group: object, prefix: str) -> Iterator[tuple[str, Fields]]:
    if not isinstance(group, Mapping):
        raise InvalidInputError(f"a group of schedules is a mapping of names, not {shown(group)}")
    for name, value in group.items():
        if isinstance(value, Mapping) and (isinstance(class_of(value.get("task")), str | type) or not value):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _entries(value, f"{prefix}{name}:")
        elif hasattr(value, "task"):
            yield f"{prefix}{name}", {key: getattr(value, key, None) for key in ENTRY}
        else:
            raise InvalidInputError(
                f"schedule {shown(f'{prefix}{name}')} is neither a dict nor an object with the attribute 'task'"
            )


def make_schedule(classes: Classes, name: object, entry: Fields) -> dict[str, Any]:
    """The fields of the hash of a schedule. Raises InvalidInputError, UnknownTaskError."""
    checked = check_name(name)
    try:
        return _make_fields(classes, {key: value for key, value in entry.items() if value is not None})
    except (InvalidInputError, SettingError) as error:
        raise InvalidInputError(f"schedule {checked!r}: {error}") from error.__cause__


def _make_fields(classes: Classes, given: dict[str, Any]) -> dict[str, Any]:
    for key in given:
        if key in UNFIT:
            raise InvalidInputError(unfit(key))
        if key not in ENTRY:
            raise InvalidInputError(f"there is no option {shown(key)}{suggestion(key)}")
    if "task" not in given:
        raise InvalidInputError("it needs the key 'task'")
    _check_task(classes, given["task"])
    options = {key: value for key, value in given.items() if key in OF_TASK}
    row = make_row(classes, given["task"], given.get("data"), None, options, given.get("queue"))
    words = dict(zip(row.words[::2], row.words[1::2], strict=True))
    words.pop("limits", None)  # of a producer's lock: nodes see to it
    when = _write_timing(given)
    timing = read_timing(when)
    fields = {**words, **when}
    if row.queue or "queue" in given:
        fields["queue"] = queue_label(row.queue)
    if "missed" in given:
        fields["missed"] = check_missed(given["missed"])
    if "jitter" in given:
        fields["jitter"] = f"{_check_spread(given['jitter'], timing):g}"
    return fields


def _check_task(classes: Classes, task: object) -> None:
    """Raises UnknownTaskError for a name that an app with tasks does not know."""
    if isinstance(task, str) and classes and task not in classes and not task.startswith(BUILT_IN):
        raise UnknownTaskError(f"task {shown(task)} is not registered with this app: add it with add_task first")
    known = classes.get(task) if isinstance(task, str) else class_of(task)
    if getattr(known, "local_only", False):
        raise InvalidInputError(
            f"the task {task_name(task)} runs on nodes by itself: no schedule may start it"  # type: ignore[arg-type]
        )


def _write_timing(given: Fields) -> dict[str, str]:
    """The fields that say when."""
    kinds = [key for key in ("cron", "every", "regular") if key in given]
    if len(kinds) != 1:
        raise InvalidInputError(f"give one of cron, every and regular, not {' and '.join(kinds) or 'none'}")
    zone = {"tz": write_zone(given["tz"])} if "tz" in given else {}
    if "every" in given:
        return {"every": write_every(check_every(given["every"])), **zone}
    if "regular" in given:
        if not isinstance(given["regular"], RegularSchedule):
            raise InvalidInputError(f"regular is a RegularSchedule, not {shown(given['regular'])}")
        return {**given["regular"].fields(), **zone}
    if not isinstance(given["cron"], str):
        raise InvalidInputError(f"cron is text, not {shown(given['cron'])}")
    return {"cron": given["cron"], **zone}


def _check_spread(value: object, timing: Timing) -> float:
    """Jitter must not be longer than from one fire to the next, as far as can be seen."""
    seconds = check_jitter(value, timing)
    if seconds and isinstance(timing, Calendar):
        times = upcoming(timing, time.time(), 20)
        least = min((b - a for a, b in pairwise(times)), default=seconds)
        if seconds > least:
            raise InvalidInputError(
                f"jitter {shown(value)} is not allowed: it is longer than from one time to the next ({least:g} s)"
            )
    return seconds


# The task of a fire.


def queue_of(definition: Definition, classes: Classes) -> str:
    """The queue of the tasks: the schedule's own, else that of their class where it is known here."""
    if definition.queue is not None:
        return definition.queue
    queue = getattr(classes.get(definition.task), "queue", None)
    return queue if isinstance(queue, str) else ""


def words_of_fire(definition: Definition, queue: str, now: float) -> list[Any]:
    """What stands in the record, but for its state."""
    words = [*definition.words, "schedule", definition.name, "created", wire.encode_time(now)]
    return [*words, "queue", queue] if queue else words


# For lists.


def _told(name: bytes, found: Mapping[bytes, bytes] | StoreError, times: int) -> dict[str, Any]:
    if isinstance(found, StoreError):
        return {**_EMPTY, "error": "its key is not a hash"}
    fields = {wire.to_str(key): wire.to_str(value) for key, value in found.items()}
    standing = read_standing(found)
    told = {
        **_EMPTY,
        "task": fields.get("task"),
        "when": _in_words(fields),
        "queue": fields.get("queue", queue_label("")),
        "last": standing.last,
        "next": standing.next,
        "error": fields.get("error"),
        "fields": fields,
    }
    if not found:
        return {**told, "error": "it has no hash"}
    try:
        definition = read_definition(name, found)
    except InvalidInputError as error:
        return {**told, "error": str(error)}
    since = _since(fields["paused"]) if definition.paused else None
    behind = max(time.time(), standing.last or 0.0)
    return {
        **told,
        "missed": definition.missed,
        "jitter": definition.jitter,
        "paused": since,
        "times": upcoming(definition.timing, behind, times),
    }


_EMPTY: Mapping[str, Any] = {
    "task": None, "when": "", "queue": None, "missed": None, "jitter": None, "paused": None, "last": None,
    "next": None, "times": [], "error": None, "fields": {},
}  # fmt: skip


def _since(text: str) -> float:
    """When it was paused; 0 where nobody knows."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 1 < seconds < 1e12 else 0.0


def _in_words(fields: Mapping[str, str]) -> str:
    """`cron 0 3 * * *, tz Europe/Berlin`, or `every 2 s`."""
    return ", ".join(f"{key} {_with_unit(key, fields[key][:200])}" for key in TIMING if key in fields)


def _with_unit(key: str, text: str) -> str:
    """An interval without a unit is in seconds."""
    return f"{text} s" if key == "every" and text.strip().replace(".", "", 1).isdecimal() else text
