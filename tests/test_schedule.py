"""When schedules fire: pure functions of given instants. No clock, no server."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from pytask import RegularSchedule
from pytask.errors import InvalidInputError
from pytask.schedule import (
    Calendar,
    Every,
    check_every,
    latest,
    read_fire_time,
    read_timing,
    upcoming,
    write_every,
    write_fire_time,
)
from pytask.zones import local_zone, read_zone, write_zone

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: tzinfo = UTC) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def shown(instant: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(instant, zone).isoformat()


def fires(cron: str, start: str, count: int, zone: str = "UTC") -> list[str]:
    """The next times behind a local one, as local times with their offsets."""
    where = read_zone(zone)
    timing = Calendar.of_cron(cron, where)
    return [shown(instant, where) for instant in upcoming(timing, at(start, where), count)]


# Cron.


def test_five_fields_fire_at_second_0():
    assert fires("*/30 * * * *", "2026-11-21T10:00:00", 2) == [
        "2026-11-21T10:30:00+00:00",
        "2026-11-21T11:00:00+00:00",
    ]


def test_six_fields_begin_with_the_seconds():
    assert fires("*/20 0 12 * * *", "2026-11-21T12:00:00", 3) == [
        "2026-11-21T12:00:20+00:00",
        "2026-11-21T12:00:40+00:00",
        "2026-11-22T12:00:00+00:00",
    ]


def test_months_without_a_31st_are_passed_over():
    assert fires("0 0 31 * *", "2026-01-31T00:00:00", 3) == [
        "2026-03-31T00:00:00+00:00",
        "2026-05-31T00:00:00+00:00",
        "2026-07-31T00:00:00+00:00",
    ]


def test_the_last_day_of_the_month_is_l():
    assert [text[:10] for text in fires("0 0 L * *", "2028-01-01T00:00:00", 3)] == [
        "2028-01-31",
        "2028-02-29",
        "2028-03-31",
    ]


def test_29_february_comes_in_leap_years():
    assert [text[:10] for text in fires("0 6 29 2 *", "2026-01-01T00:00:00", 3)] == [
        "2028-02-29",
        "2032-02-29",
        "2036-02-29",
    ]
    assert fires("0 6 29 2 *", "2099-01-01T00:00:00", 1)[0][:10] == "2104-02-29", "2100 is no leap year"


def test_day_and_weekday_together_mean_one_or_the_other_as_in_cron():
    assert [text[:10] for text in fires("0 0 13 * FRI", "2026-11-01T00:00:00", 3)] == [
        "2026-11-06",
        "2026-11-13",
        "2026-11-20",
    ]


# Where clocks are changed: Berlin goes forward on 29 March 2026 at 2 and back on 25 October at 3.


def test_a_time_that_does_not_exist_fires_at_the_first_moment_that_does():
    for cron in ("30 2 * * *", "0 30 2 * * *", "0 2 * * *"):
        assert fires(cron, "2026-03-28T12:00:00", 1, "Europe/Berlin") == ["2026-03-29T03:00:00+02:00"]
    assert fires("30 2 * * *", "2026-03-29T03:00:00", 1, "Europe/Berlin") == ["2026-03-30T02:30:00+02:00"]


def test_several_times_that_do_not_exist_fire_once():
    assert fires("0,30 2,3 * * *", "2026-03-28T12:00:00", 3, "Europe/Berlin") == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-29T03:30:00+02:00",
        "2026-03-30T02:00:00+02:00",
    ]


def test_a_time_that_comes_twice_fires_at_the_first():
    for cron in ("30 2 * * *", "0 30 2 * * *"):
        assert fires(cron, "2026-10-24T12:00:00", 2, "Europe/Berlin") == [
            "2026-10-25T02:30:00+02:00",
            "2026-10-26T02:30:00+01:00",
        ]
    between = Calendar.of_cron("30 2 * * *", BERLIN).after(at("2026-10-25T02:10:00+01:00"))
    assert shown(between, BERLIN) == "2026-10-26T02:30:00+01:00", (
        "in the second of the two hours, before that time"
    )


def test_what_fires_in_any_hour_goes_by_the_moments_that_there_are():
    assert fires("*/30 * * * *", "2026-03-29T01:00:00", 3, "Europe/Berlin") == [
        "2026-03-29T01:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-29T03:30:00+02:00",
    ]
    assert fires("0 * * * *", "2026-10-25T01:00:00", 3, "Europe/Berlin") == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


def test_a_regular_schedule_goes_by_the_same_rules():
    daily = Calendar.of_regular(RegularSchedule(hours=2, minutes=30), BERLIN)
    assert shown(daily.after(at("2026-03-28T12:00", BERLIN)), BERLIN) == "2026-03-29T03:00:00+02:00"
    hourly = Calendar.of_regular(RegularSchedule(minutes=30), BERLIN)
    assert shown(hourly.after(at("2026-03-29T01:30", BERLIN)), BERLIN) == "2026-03-29T03:30:00+02:00"
    assert len(upcoming(hourly, at("2026-10-25T00:00", BERLIN), 4)) == 4


def test_a_day_that_a_zone_left_out_fires_at_its_end():
    assert fires("0 12 * * *", "2011-12-29T13:00:00", 2, "Pacific/Apia") == [
        "2011-12-31T00:00:00+14:00",
        "2011-12-31T12:00:00+14:00",
    ]


STEEP = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Africa/Casablanca",
    "+05:45",
]


@pytest.mark.parametrize("zone", STEEP)
@pytest.mark.parametrize("cron", ["*/20 * * * *", "0 * * * *", "*/7 2 * * *", "15 0-4 * * *", "*/30 * 1,L * 0"])
def test_every_moment_whose_local_time_is_on_the_list_fires_and_no_other(zone, cron):
    """Against a plain count, minute by minute, a day before and behind each change of a year."""
    where = read_zone(zone)
    timing = Calendar.of_cron(cron, where)
    for start in changes(where, 2026):
        told = set(upcoming_until(timing, start - 86_400, start + 86_400))
        assert told == set(by_the_minute(cron, where, start - 86_400, start + 86_400)), shown(start, where)


def changes(zone: tzinfo, year: int) -> list[float]:
    """The hours before which the zone's offset changes; the new year, where it never does."""
    first = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    hours = range(first, first + 365 * 86_400, 1800)
    offsets = [datetime.fromtimestamp(hour, zone).utcoffset() for hour in hours]
    return [hours[n] for n in range(1, len(hours)) if offsets[n] != offsets[n - 1]] or [first]


def upcoming_until(timing: Calendar, start: float, end: float) -> list[float]:
    found = []
    while (instant := timing.after(found[-1] if found else start)) is not None and instant <= end:
        found.append(instant)
    return found


def by_the_minute(cron: str, zone: tzinfo, start: float, end: float) -> list[float]:
    minutes, hours, days, _, weekdays = cron.split()
    fixed = not minutes.startswith("*") and not hours.startswith("*")
    found, seen = [], set()
    for instant in range(int(start) + 60, int(end) + 1, 60):
        local = datetime.fromtimestamp(instant, zone)
        last = (local + timedelta(days=1)).day == 1
        day = days == "*" or local.day == 1 or last
        if weekdays != "*":
            day = day or local.isoweekday() % 7 == 0
        if day and fits(local.minute, minutes) and fits(local.hour, hours):
            if fixed and local.replace(tzinfo=None) in seen:
                continue
            seen.add(local.replace(tzinfo=None))
            found.append(float(instant))
        elif (
            fixed
            and gap_ends(instant, zone)
            and any(fits(n // 60 % 60, minutes) and fits(n // 3600 % 24, hours) for n in gap_ends(instant, zone))
        ):
            found.append(float(instant))
    return found


def fits(number: int, field: str) -> bool:
    if field.startswith("*"):
        return number % int(field[2:] or 1) == 0
    first, _, last = field.partition("-")
    return int(first) <= number <= int(last or first)


def gap_ends(instant: int, zone: tzinfo) -> range:
    """The local seconds of the day that were left out just before."""
    before, now = (datetime.fromtimestamp(n, zone) for n in (instant - 60, instant))
    left_out = now.replace(tzinfo=None) - before.replace(tzinfo=None) - timedelta(minutes=1)
    end = now.hour * 3600 + now.minute * 60
    return range(int(end - left_out.total_seconds()), end, 60) if left_out > timedelta(0) else range(0)


# Intervals.


def test_an_interval_counts_from_the_epoch():
    assert [upcoming(check_every(value), 100.0, 3) for value in (30, "30s", 30.0)] == [[120.0, 150.0, 180.0]] * 3
    assert Every(3_600_000_000).after(at("2026-11-21T10:17:00")) == at("2026-11-21T11:00:00")


def test_an_interval_does_not_drift():
    third = Every(300_000)
    instant = at("2026-11-21T10:00:00")
    for _ in range(10_000):
        instant = third.after(instant)
    assert instant == at("2026-11-21T10:50:00")


@pytest.mark.parametrize(
    "value", [0, -1, 0.01, 1e9, float("nan"), float("inf"), "soon", "", None, True, [], "1e3", 10**400]
)
def test_an_interval_that_is_none_is_refused(value):
    with pytest.raises(InvalidInputError, match=r"every: .* is not allowed"):
        check_every(value)


def test_an_interval_is_written_as_it_is_read():
    for value in (0.1, 30, "5m", "1h", 0.3, 86_400):
        assert check_every(write_every(check_every(value))) == check_every(value)


# Sets.


def test_a_regular_schedule_fires_where_every_set_holds_the_moment():
    friday_13 = Calendar.of_regular(RegularSchedule(days=13, weekdays="fri", hours={9}, minutes={0}), UTC)
    assert [shown(t, UTC)[:10] for t in upcoming(friday_13, at("2026-01-01T00:00"), 3)] == [
        "2026-02-13",
        "2026-03-13",
        "2026-11-13",
    ]


def test_a_regular_schedule_knows_seconds():
    often = Calendar.of_regular(RegularSchedule(seconds=range(0, 60, 20), minutes={0}, hours={12}), UTC)
    assert upcoming(often, at("2026-11-21T12:00:00"), 3) == [
        at("2026-11-21T12:00:20"),
        at("2026-11-21T12:00:40"),
        at("2026-11-22T12:00:00"),
    ]


def test_a_regular_schedule_without_anything_fires_each_minute():
    assert upcoming(Calendar.of_regular(RegularSchedule(), UTC), 0.0, 2) == [60.0, 120.0]
    assert upcoming(Calendar.of_regular(RegularSchedule(seconds=None), UTC), 0.0, 2) == [1.0, 2.0]


@pytest.mark.parametrize(
    "given",
    [
        RegularSchedule(),
        RegularSchedule(seconds=None),
        RegularSchedule(minutes={0, 30}, hours=range(8, 18), weekdays=["mon", "TUE", 4], months={"dec", 1}),
        RegularSchedule(seconds="0,30", minutes="10-12", days=31),
    ],
)
def test_a_regular_schedule_survives_its_hash(given):
    fields = {**given.fields(), "tz": "Europe/Berlin"}
    assert read_timing(fields) == Calendar.of_regular(given, BERLIN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"minutes": 60},
        {"hours": {24}},
        {"days": 0},
        {"weekdays": 7},
        {"weekdays": "holiday"},
        {"months": {0}},
        {"seconds": set()},
        {"seconds": ""},
        {"hours": -1},
        {"hours": True},
        {"hours": 1.5},
        {"hours": "5-3"},
        {"hours": object()},
        {"hours": {"a": 1}},
        {"hours": b"5"},
        {"days": "\u0661"},
        {"days": 31, "months": 4},
    ],
)
def test_a_set_that_is_none_is_refused(wrong):
    with pytest.raises(InvalidInputError, match="is not allowed"):
        RegularSchedule(**wrong)


# Zones.


@pytest.mark.parametrize(
    ("given", "text", "offset"),
    [
        ("Asia/Tokyo", "Asia/Tokyo", 9),
        ("+09:00", "+09:00", 9),
        ("-0330", "-0330", -3.5),
        (ZoneInfo("Asia/Tokyo"), "Asia/Tokyo", 9),
        (timezone(timedelta(hours=9)), "+09:00", 9),
        (timezone(timedelta(hours=-3.5), "made up"), "-03:30", -3.5),
        (timezone(timedelta(seconds=-61)), "-00:01:01", -61 / 3600),
        (UTC, "+00:00", 0),
        ("UTC", "UTC", 0),
        ("Z", "Z", 0),
    ],
)
def test_a_zone_is_written_as_it_can_be_read(given, text, offset):
    assert write_zone(given) == text
    assert read_zone(text).utcoffset(datetime(2026, 1, 1)) == timedelta(hours=offset)


class Pytz(tzinfo):
    """As zones of pytz and dateutil look from outside."""

    def __init__(self, zone=None):
        self.zone = zone

    def utcoffset(self, moment):
        return None if moment is None else timedelta(hours=1)


def test_of_a_tzinfo_object_its_name_is_kept():
    assert write_zone(Pytz("Europe/Berlin")) == "Europe/Berlin"


@pytest.mark.parametrize(
    ("given", "text"),
    [("Asia/Tokyo", "Asia/Tokyo"), (":Asia/Tokyo", "Asia/Tokyo"), ("JST-9", "+09:00"), ("UTC", "UTC")],
)
def test_the_zone_of_this_machine_is_its_name_or_else_its_offset(given, text, monkeypatch):
    monkeypatch.setenv("TZ", given)
    time.tzset()
    try:
        assert local_zone() == text
    finally:
        monkeypatch.undo()
        time.tzset()


def test_without_a_word_the_zone_of_this_machine_is_that_of_its_link(monkeypatch):
    monkeypatch.delenv("TZ", raising=False)
    monkeypatch.setattr(
        "os.path.realpath", lambda path: f"/usr/share/zoneinfo/Asia/Tokyo?{path}".partition("?")[0]
    )
    assert local_zone() == "Asia/Tokyo"


def test_a_tzinfo_object_without_a_name_or_a_fixed_offset_is_refused():
    with pytest.raises(InvalidInputError, match="neither a name nor a fixed offset"):
        write_zone(Pytz())
    with pytest.raises(InvalidInputError, match="fraction of a second"):
        write_zone(timezone(timedelta(microseconds=5)))


@pytest.mark.parametrize(
    "wrong",
    [
        "Mars/Olympus",
        "Europe",
        "../../etc/passwd",
        "/etc/localtime",
        "",
        "+25:00",
        "+9",
        "+09:60",
        "x" * 1_000_000,
        "a\0b",
        "localtime\n",
        "\u0665",
        "posixrules/..",
        "Europe/",
    ],
)
def test_an_unknown_zone_is_refused(wrong):
    with pytest.raises(InvalidInputError, match="is no time zone that is known here"):
        read_zone(wrong)


@pytest.mark.parametrize("wrong", [9, 9.5, b"UTC", object(), None])
def test_what_is_no_zone_is_refused(wrong):
    with pytest.raises(InvalidInputError, match="tz is a name"):
        write_zone(wrong)


# Bad input.


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * * *", "five fields"),
        ("* " * 200_000, "five fields"),
        ("60 * * * *", "its field minute is wrong"),
        ("* 24 * * *", "its field hour is wrong"),
        ("* * 0 * *", "its field day-of-month is wrong"),
        ("0 0 31 2 *", "its field day-of-month is wrong"),
        ("* * * 13 *", "its field month is wrong"),
        ("* * * * 8", "its field day-of-week is wrong"),
        ("*/0 * * * *", "its field minute is wrong"),
        ("5-1 * * * *", "its field minute is wrong"),
        ("-1 * * * *", "its field minute is wrong"),
        ("61 * * * * *", "its field second is wrong"),
        ("* * */20 * 1L", "it never fires"),
        ("* * * * mon#9", "its field day-of-week is wrong"),
        ("a b c d e", "its field minute is wrong"),
        ("\u0661 * * * *", "its field minute is wrong"),
        ("@daily", "five fields"),
        ("* * L/2-3 * *", "is not allowed"),
        ("1#2/3 * * * 1#2/3", "is not allowed"),
    ],
)
def test_an_impossible_cron_is_refused_with_the_reason(cron, why):
    with pytest.raises(InvalidInputError, match=why) as refused:
        Calendar.of_cron(cron, UTC)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "a schedule has cron, or every, or some of seconds"),
        ({"tz": "UTC"}, "a schedule has cron, or every"),
        ({"cron": "* * * * *", "every": "5"}, "not cron and every together"),
        ({"cron": "* * * * *", "hours": "5"}, "not cron and hours together"),
        ({"every": "5", "tz": "Europe/Berlin"}, "tz means nothing"),
        ({"every": "0"}, "every: '0' is not allowed"),
        ({"cron": "* * * * *", "tz": "Mars"}, "is no time zone"),
        ({"minutes": "75"}, "minutes '75' is not allowed"),
    ],
)
def test_fields_that_are_no_timing_are_refused(fields, why):
    with pytest.raises(InvalidInputError, match=why):
        read_timing(fields)


def test_nothing_fires_behind_the_year_9999():
    end = at("9999-12-31T23:00:00")
    for timing in (Every(1_000_000), Calendar.of_cron("* * * * *", UTC), Calendar.of_cron("0 0 1 1 *", BERLIN)):
        assert timing.after(end) is None
        assert timing.after(1e300) is None
    assert Calendar.of_cron("0 0 1 1 *", UTC).after(-5.0) == at("1971-01-01T00:00:00")


# The last one before an instant, and texts.


@pytest.mark.parametrize(
    "timing",
    [
        Every(100_000),
        Every(7_000_000),
        Calendar.of_cron("*/5 * * * *", BERLIN),
        Calendar.of_cron("* * 2 * * *", BERLIN),
        Calendar.of_cron("0 0 29 2 *", UTC),
    ],
)
def test_the_latest_is_the_one_that_none_follows(timing):
    generator = random.Random(6)
    for _ in range(20):
        first = timing.after(generator.uniform(1.7e9, 1.8e9))
        until = first + generator.choice([0, 1, 50, 5000, 500_000, 5e7]) * generator.random()
        found = latest(timing, first, until)
        assert first <= found <= until
        assert timing.after(found) > until
        assert timing.after(found - 0.001) == found


def test_fire_times_as_text():
    for instant, text in (
        (0.0, "1970-01-01T00:00:00Z"),
        (at("2026-11-22T03:00:00"), "2026-11-22T03:00:00Z"),
        (1.5, "1970-01-01T00:00:01.5Z"),
        (1_700_000_000.3, "2023-11-14T22:13:20.3Z"),
    ):
        assert write_fire_time(instant) == text
        assert read_fire_time(text) == instant
    for wrong in ("", "now", "2026-11-22", "2026-11-22T03:00:00", "2026-11-22T03:00:00+01:00"):
        assert read_fire_time(wrong) is None


def test_equal_timings_have_equal_digests_and_others_have_not():
    timings = [
        Every(5),
        Every(6),
        Calendar.of_cron("* * * * *", UTC),
        Calendar.of_cron("* * * * *", BERLIN),
        Calendar.of_cron("1 * * * *", UTC),
        Calendar.of_regular(RegularSchedule(weekdays=3), UTC),
    ]
    assert len({timing.digest for timing in timings}) == len(timings)
    assert Calendar.of_cron("0 * * * * *", UTC).digest == Calendar.of_cron("*  * * * *", UTC).digest
