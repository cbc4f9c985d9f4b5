"""When a schedule fires: cron expressions, intervals and sets of times, as pure functions of given instants.

Instants are epoch seconds. cronsim does the arithmetic of cron, on local times; what happens where the clocks of a
zone are changed is decided here: see `Calendar`. Nothing here reads a clock.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Protocol

from cronsim import CronSim, CronSimError

from pytask.checks import YEARS_10, as_number, check_duration
from pytask.errors import InvalidInputError, SettingError
from pytask.names import shown
from pytask.zones import read_zone, write_zone

LEAST_EVERY = 0.1  # seconds
LATEST = 253_370_000_000.0  # epoch seconds, shortly before the end of the year 9999: nothing fires later
MOST_CRON = 400  # characters
YEARS_AHEAD = 60  # what does not fire within so many years never does
MICROSECOND = 1_000_000
WEEK = 7 * 86_400  # seconds; no zone changes its clocks twice in one
EPOCH = datetime(1970, 1, 1)

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
RANGES: Mapping[str, range] = {
    "seconds": range(60),
    "minutes": range(60),
    "hours": range(24),
    "days": range(1, 32),
    "weekdays": range(7),
    "months": range(1, 13),
}
NAMES: Mapping[str, Mapping[str, int]] = {
    "weekdays": {name: number for number, name in enumerate(WEEKDAYS)},
    "months": {name: number for number, name in enumerate(MONTHS, 1)},
}
DIGITS = re.compile(r"[0-9]{1,2}")

Numbers = int | str | Iterable[int | str]


class Timing(Protocol):
    """When something fires."""

    def after(self, instant: float) -> float | None:
        """The first fire time behind an instant; None where there is none any more."""

    @property
    def digest(self) -> str:
        """Equal for equal timings, on every node."""


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many seconds, counted from the epoch: nodes need not agree on a beginning, and nothing drifts."""

    microseconds: int

    def after(self, instant: float) -> float | None:
        """The next multiple."""
        turn = round(instant * MICROSECOND) // self.microseconds + 1
        found = turn * self.microseconds / MICROSECOND
        return found if found < LATEST else None

    @property
    def digest(self) -> str:
        """Equal for equal intervals."""
        return _digest(f"every {self.microseconds}")


@dataclass(frozen=True, slots=True)
class RegularSchedule:
    """Fires at every moment of which each part is in its set. None stands for any; `seconds` is 0 unless given.

    `seconds` and `minutes` 0 to 59, `hours` 0 to 23, `days` of the month 1 to 31, `weekdays` 0 (Monday) to 6 or
    `"mon"` to `"sun"`, `months` 1 to 12 or `"jan"` to `"dec"`. Each is a number, or a set or any other collection
    of them. Raises InvalidInputError for what cannot be, and for what never comes (30 February).
    """

    seconds: Numbers | None = 0
    minutes: Numbers | None = None
    hours: Numbers | None = None
    days: Numbers | None = None
    weekdays: Numbers | None = None
    months: Numbers | None = None

    def __post_init__(self) -> None:
        for part in RANGES:
            given = getattr(self, part)
            object.__setattr__(self, part, None if given is None else frozenset(_read_numbers(part, given)))
        Calendar.of_regular(self, UTC)

    def fields(self) -> dict[str, str]:
        """The fields of the hash."""
        sets = {part: getattr(self, part) for part in RANGES}
        found = {
            part: ",".join(map(str, sorted(numbers))) for part, numbers in sets.items() if numbers is not None
        }
        return found if self.seconds is not None else {"seconds": "0-59", **found}


@dataclass(frozen=True, slots=True)
class Calendar:
    """Fires at local times of a zone, out of a cron expression of six fields, seconds first.

    Where clocks are changed: a `fixed` one (neither its hours nor its minutes are "any") fires once for each time
    on its list: for one that does not exist at the first moment that does, for one that comes twice at the first.
    Any other one fires at the moments that there are: never at one that does not exist, twice at one that comes
    twice. That is what Debian's cron does. `weekdays`: none but these (Monday is 0), empty for any.
    """

    expression: str
    zone: tzinfo
    zone_text: str
    fixed: bool
    weekdays: frozenset[int] = frozenset()

    @classmethod
    def of_cron(cls, expression: str, zone: tzinfo) -> Calendar:
        """Of five fields, or six with the seconds before them. Raises InvalidInputError."""
        fields = expression.split()
        if len(expression) > MOST_CRON or len(fields) not in (5, 6):
            raise InvalidInputError(
                f"cron {shown(expression)} is not allowed: it must be five fields (minute, hour, day of the month,"
                " month, weekday), or six with the seconds before them"
            )
        six = fields if len(fields) == 6 else ["0", *fields]
        fixed = not six[1].startswith("*") and not six[2].startswith("*")
        return _checked(cls(" ".join(six), zone, write_zone(zone), fixed), f"cron {shown(expression)}")

    @classmethod
    def of_regular(cls, given: RegularSchedule, zone: tzinfo) -> Calendar:
        """Raises InvalidInputError for what never fires."""
        parts = ("seconds", "minutes", "hours", "days", "months")
        listed = [_list_numbers(getattr(given, part), RANGES[part]) for part in parts]
        fixed = "*" not in listed[1:3]
        weekdays = frozenset() if given.weekdays is None else given.weekdays
        assert isinstance(weekdays, frozenset)
        made = cls(" ".join([*listed, "*"]), zone, write_zone(zone), fixed, weekdays)
        return _checked(made, "this RegularSchedule")

    @property
    def digest(self) -> str:
        """Equal for equal times in equal zones."""
        days = ",".join(map(str, sorted(self.weekdays)))
        return _digest(f"{self.expression} {days} {self.zone_text}")

    def after(self, instant: float) -> float | None:
        """The first time on the list behind an instant."""
        if not 0 <= instant < LATEST:
            return self.after(0.0) if instant < 0 else None
        if not self.fixed:
            return self._after_flowing(instant)
        for local in self._iter_local(datetime.fromtimestamp(instant, self.zone).replace(tzinfo=None)):
            moment = _moment(local.replace(tzinfo=self.zone))
            if moment > instant:  # the local time of one that has fired may come a second time
                return moment
        return None

    def _after_flowing(self, instant: float) -> float | None:
        """From one change of the clocks to the next: in between local times are as far apart as moments are."""
        begin, offset = instant, self._offset(instant)
        while True:
            local = next(self._iter_local(EPOCH + timedelta(seconds=math.floor(begin)) + offset), None)
            if local is None:
                return None
            moment = (local - EPOCH - offset).total_seconds()
            change = self._first_change(math.floor(instant), math.floor(moment), offset)
            if change is None:
                return moment
            instant, begin, offset = change, change - 1, self._offset(change)

    def _iter_local(self, local: datetime) -> Iterator[datetime]:
        """The local times on the list behind one, as if no clock was ever changed."""
        last_year = min(local.year + YEARS_AHEAD, 9998)
        times = CronSim(self.expression, local)
        while (found := next(times, None)) is not None and found.year <= last_year:
            if not self.weekdays or found.weekday() in self.weekdays:
                yield found
            else:
                times = CronSim(self.expression, found.replace(hour=23, minute=59, second=59))

    def _offset(self, instant: float) -> timedelta:
        return datetime.fromtimestamp(instant, self.zone).utcoffset() or timedelta(0)

    def _first_change(self, low: int, until: int, offset: timedelta) -> int | None:
        """The first second up to `until` at which the zone has another offset than at `low`."""
        while low < until:
            high = min(low + WEEK, until)
            if self._offset(high) != offset:
                return _first_other(self.zone, offset, low, high)
            low = high
        return None


def _list_numbers(numbers: frozenset[int] | None, full: range) -> str:
    """A field of a cron expression."""
    return "*" if numbers is None or len(numbers) == len(full) else ",".join(map(str, sorted(numbers)))


def _checked(calendar: Calendar, what: str) -> Calendar:
    """The calendar, if there is a time at which it fires."""
    try:
        found = calendar.after(0.0)
    except CronSimError as error:
        raise InvalidInputError(f"{what} is not allowed: {_words(error)}") from None
    except Exception as error:  # whatever the library makes of a text that it did not foresee
        raise InvalidInputError(f"{what} is not allowed: it cannot be read") from error
    if found is None:
        raise InvalidInputError(f"{what} is not allowed: it never fires")
    return calendar


def _words(error: CronSimError) -> str:
    """`Bad minute` as a sentence goes on."""
    text = str(error)
    return f"its field {text[4:]} is wrong" if text.startswith("Bad ") else text.lower()


def _moment(local: datetime) -> float:
    """The instant of a local time; of one that does not exist the first one behind the gap."""
    instant, offset = local.timestamp(), local.utcoffset()
    if datetime.fromtimestamp(instant, local.tzinfo).replace(tzinfo=None) == local.replace(tzinfo=None):
        return instant
    assert offset is not None
    assert local.tzinfo is not None
    return float(_first_other(local.tzinfo, offset, int(local.replace(fold=1).timestamp()), int(instant)))


def _first_other(zone: tzinfo, offset: timedelta, low: int, high: int) -> int:
    """The first second with another offset, between one that has this one and one that has not."""
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]


# Out of what people write.


def check_every(value: object) -> Every:
    """An interval: seconds, or text such as `5m`. Raises InvalidInputError."""
    try:
        seconds = check_duration(value, LEAST_EVERY, YEARS_10, f"{LEAST_EVERY:g} to {YEARS_10:.0f} s")
    except SettingError as error:
        raise InvalidInputError(f"every: {error}") from None
    return Every(round(seconds * MICROSECOND))


def write_every(every: Every) -> str:
    """The field of the hash."""
    return as_number(every.microseconds / MICROSECOND)


def read_timing(fields: Mapping[str, str]) -> Timing:
    """The timing that some fields of a hash tell. Raises InvalidInputError."""
    regular = {part: fields[part] for part in RANGES if part in fields}
    kinds = [name for name in ("cron", "every") if name in fields] + ["/".join(regular)] * bool(regular)
    if len(kinds) != 1:
        raise InvalidInputError(
            "a schedule has cron, or every, or some of seconds, minutes, hours, days, weekdays and months"
            + (f", not {' and '.join(kinds)} together" if kinds else "")
        )
    if "every" in fields:
        if "tz" in fields:
            raise InvalidInputError("every counts seconds: tz means nothing to it")
        return check_every(fields["every"])
    zone = read_zone(fields.get("tz", "UTC"))
    if "cron" in fields:
        return Calendar.of_cron(fields["cron"], zone)
    return Calendar.of_regular(RegularSchedule(**regular), zone)


def _read_numbers(part: str, given: object) -> list[int]:
    """The numbers of one set. Raises InvalidInputError."""
    items: Iterable[object]
    if isinstance(given, str):
        items = given.split(",")
    elif isinstance(given, Iterable) and not isinstance(given, bytes | Mapping):
        items = islice(given, 1000)
    else:
        items = [given]
    numbers = [number for item in items for number in _read_item(part, item)]
    if not numbers:
        raise InvalidInputError(f"{part} {shown(given)} is not allowed: an empty set never comes")
    return numbers


def _read_item(part: str, item: object) -> Iterable[int]:
    """A number, a name, or as text a span of them: `8-17`, `mon-fri`."""
    if isinstance(item, str):
        first, dash, last = item.strip(" ").lower().partition("-")
        low, high = _number(part, first), _number(part, last if dash else first)
        if low is not None and high is not None and low <= high:
            return range(low, high + 1)
    elif isinstance(item, int) and not isinstance(item, bool) and item in RANGES[part]:
        return (int(item),)
    allowed = RANGES[part]
    names = f", or {', '.join(NAMES[part])}" if part in NAMES else ""
    raise InvalidInputError(
        f"{part} {shown(item)} is not allowed: it must be {allowed[0]} to {allowed[-1]}{names}"
    )


def _number(part: str, word: str) -> int | None:
    number = NAMES.get(part, {}).get(word)
    if number is None and DIGITS.fullmatch(word) and int(word) in RANGES[part]:
        number = int(word)
    return number


# Fire times as text, in ids and in fields.


def write_fire_time(instant: float) -> str:
    """`2026-11-22T03:00:00Z`, with a fraction where there is one."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=round(instant * MICROSECOND))
    text = moment.replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def read_fire_time(text: str) -> float | None:
    """The instant; None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is not UTC:
        return None
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) / MICROSECOND


def upcoming(timing: Timing, instant: float, count: int) -> list[float]:
    """The next fire times behind an instant; fewer where there are no more."""
    found: list[float] = []
    while len(found) < count and (instant_after := timing.after(found[-1] if found else instant)) is not None:
        found.append(instant_after)
    return found


def latest(timing: Timing, first: float, until: float) -> float:
    """The last fire time that is not behind `until`, where `first` is one. In some forty steps, however many."""
    low, high = first, until  # none fires behind `high`
    while (found := timing.after(low)) is not None and found <= until:
        low, middle = found, (found + high) / 2
        found = timing.after(middle)
        if found is not None and found <= until:
            low = found
        else:
            high = middle
    return low
