"""What is to be done about a schedule at a given instant: pure functions. No clock, no server."""

from __future__ import annotations

import pytest

from pytask.errors import InvalidInputError
from pytask.firing import BATCH, DAY, MOST_MISSED, Decision, Standing, decide, read_definition, read_standing
from pytask.schedule import Every

HOUR = 3600.0
T = 495_000 * HOUR  # a full hour


def definition(**fields: str):
    given = {"task": "echo", "every": "1h", **fields}
    if any(name in given for name in ("cron", "minutes", "hours")):
        del given["every"]
    return read_definition(b"s", {name.encode(): value.encode() for name, value in given.items()})


def standing(next: float | None, last: float | None = None, of=None) -> Standing:
    return Standing(next, last, (of or definition()).timing.digest)


def test_a_new_schedule_fires_nothing_and_waits_for_its_next_time():
    assert decide(definition(), Standing(), T + 5) == Decision((), T + HOUR)


def test_nothing_is_done_before_the_time():
    assert decide(definition(), standing(T), T - 0.001) == Decision((), T)


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
def test_a_fire_that_is_due_fires(missed):
    assert decide(definition(missed=missed), standing(T, T - HOUR), T + 0.01) == Decision((T,), T + HOUR)


# After an outage over three fire times.


OUTAGE = standing(T, T - HOUR)
BACK = T + 2 * HOUR + 60


def test_latest_makes_up_for_the_newest_one():
    assert decide(definition(missed="latest"), OUTAGE, BACK) == Decision((T + 2 * HOUR,), T + 3 * HOUR)


def test_all_makes_up_for_each_in_order():
    assert decide(definition(missed="all"), OUTAGE, BACK) == Decision((T, T + HOUR, T + 2 * HOUR), T + 3 * HOUR)


def test_skip_makes_up_for_none():
    assert decide(definition(missed="skip"), OUTAGE, BACK) == Decision((), T + 3 * HOUR)


def test_latest_is_what_a_schedule_does_unless_it_says_more():
    assert decide(definition(), OUTAGE, BACK) == decide(definition(missed="latest"), OUTAGE, BACK)


def test_skip_forgives_five_seconds_and_half_the_way_to_the_next():
    assert decide(definition(missed="skip"), standing(T), T + 4.9).fires == (T,)
    assert decide(definition(missed="skip"), standing(T), T + 5.1).fires == ()
    often = definition(missed="skip", every="2")
    assert decide(often, standing(T, of=often), T + 0.9).fires == (T,)
    assert decide(often, standing(T, of=often), T + 1.1) == Decision((), T + 2)


def test_all_comes_in_batches():
    often = definition(missed="all", every="1")
    first = decide(often, standing(T, of=often), T + 250)
    assert first.fires == tuple(T + n for n in range(BATCH))
    assert first.next == T + BATCH
    assert not first.dropped


@pytest.mark.parametrize("timing", [{"every": "1"}, {"cron": "* * * * * *"}])
def test_all_makes_up_for_a_thousand_at_most_the_newest(timing):
    often, now = definition(missed="all", **timing), T + 30 * DAY
    made_up, next, dropped = [], T, []
    while next <= now:
        decision = decide(often, standing(next, of=often), now)
        made_up += decision.fires
        dropped.append(decision.dropped)
        next = decision.next
    assert MOST_MISSED / 2 <= len(made_up) <= MOST_MISSED
    assert made_up[-1] == now
    assert made_up == sorted(set(made_up))
    assert dropped[0]
    assert not any(dropped[1:])


def test_a_long_outage_of_a_frequent_schedule_is_looked_through_in_no_time():
    often = definition(cron="* * * * * *", tz="Europe/Berlin")
    assert decide(often, standing(T, of=often), T + 3 * 365 * DAY).fires == (T + 3 * 365 * DAY,)


# Changes.


def test_a_changed_schedule_begins_with_its_own_next_time():
    changed = definition(every="7m")
    decision = decide(changed, standing(T + HOUR), T + 1)
    assert decision == Decision((), changed.timing.after(T + 1))


def test_what_was_due_when_the_schedule_was_changed_fires_where_it_is_on_the_new_list():
    assert decide(definition(every="30m"), standing(T), T + 1).fires == (T,)
    assert decide(definition(every="7m"), standing(T), T + 1).fires == ()


def test_what_has_fired_does_not_fire_again_after_a_change():
    half = definition(every="30m")
    assert decide(half, standing(T + HOUR, last=T), T + 0.2) == Decision((), T + HOUR / 2)


def test_a_changed_task_is_no_changed_time():
    assert decide(definition(task="other", data="{}"), standing(T), T).fires == (T,)


def test_a_paused_schedule_does_nothing_and_begins_anew_when_it_is_resumed():
    for paused in ("1", "1795290000.5", "true", "yes", "whatever"):
        assert decide(definition(paused=paused), standing(T), T + 5) == Decision((), None)
    for resumed in ("0", "false", ""):
        assert decide(definition(paused=resumed), standing(None, T - HOUR), T + 5) == Decision((), T + HOUR)


# Clocks that are set.


def test_a_clock_that_is_set_back_fires_nothing_again():
    later = standing(T + HOUR, last=T)
    for back in (1.0, HOUR / 2, HOUR, 3 * HOUR):
        assert decide(definition(), later, T - back) == Decision((), T + HOUR)


def test_a_clock_that_was_wrong_by_more_than_a_day_is_not_waited_for():
    later = standing(T + 50 * DAY, last=T + 50 * DAY - HOUR)
    assert decide(definition(), later, T + 5) == Decision((), T + HOUR)


def test_a_clock_that_was_ahead_before_anything_fired_is_not_waited_for():
    assert decide(definition(), standing(T + 50 * DAY), T + 5) == Decision((), T + HOUR)


def test_what_somebody_wrote_into_next_does_not_make_it_fire_again():
    assert decide(definition(), standing(T - 5 * HOUR, last=T), T + 5) == Decision((), T + HOUR)


@pytest.mark.parametrize("raw", [b"", b"soon", b"nan", b"-1", b"inf", b"1e300", b"\xff", b"9" * 1_000_000])
def test_times_in_a_hash_that_are_none_count_as_absent(raw):
    assert read_standing({b"next": raw, b"last": raw}) == Standing()


# Jitter.


def test_jitter_is_the_same_on_every_node_and_another_for_each_fire():
    spread = definition(jitter="10m")
    moments = [spread.moment(T + n * HOUR) - T - n * HOUR for n in range(200)]
    assert moments == [definition(jitter="600").moment(T + n * HOUR) - T - n * HOUR for n in range(200)]
    assert all(0 <= moment < 600 for moment in moments)
    assert 200 < sum(moments) / 200 < 400
    assert len(set(moments)) == 200


def test_a_fire_waits_for_its_jitter_and_keeps_its_name():
    spread = definition(jitter="10m")
    late = spread.moment(T)
    assert decide(spread, standing(T), late - 0.01) == Decision((), T)
    assert decide(spread, standing(T), late + 0.01) == Decision((T,), T + HOUR)
    assert spread.fire_id(T) == definition().fire_id(T)


@pytest.mark.parametrize("missed", ["latest", "all"])
def test_after_an_outage_those_fire_whose_jitter_is_over(missed):
    spread = definition(jitter="1h", missed=missed)
    now = spread.moment(T + 2 * HOUR) - 1
    fires = [n for n in range(2) if spread.moment(T + n * HOUR) <= now]
    assert decide(spread, standing(T), now).fires == tuple(
        T + n * HOUR for n in (fires if missed == "all" else fires[-1:])
    )


# Hashes.


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"task": ""}, "no field 'task'"),
        ({"data": "[]"}, "the field 'data' is not a JSON object but an array"),
        ({"data": "{"}, "the field 'data' is not JSON"),
        ({"data": '{"a": NaN}'}, "NaN is not JSON"),
        ({"every": "0"}, "every: '0' is not allowed"),
        ({"every": "-5"}, "every: '-5' is not allowed"),
        ({"every": "nan"}, "every: 'nan' is not allowed"),
        ({"every": "x" * 1_000_000}, "every: 'x"),
        ({"cron": "99 * * * *"}, "field minute is wrong"),
        ({"cron": "x" * 1_000_000}, "five fields"),
        ({"cron": "* * * * *", "tz": "Mars"}, "no time zone"),
        ({"missed": "some"}, "missed 'some' is not allowed"),
        ({"jitter": "-1"}, "jitter: '-1' is not allowed"),
        ({"jitter": "2h"}, "jitter '2h' is not allowed: it is longer than the interval"),
        ({"queue": "a b"}, "the field 'queue': queue name 'a b' is not allowed"),
        ({"timeout": "soon"}, "the field 'timeout'"),
        ({"retries": "-1"}, "the field 'retries'"),
        ({"due": "1e9"}, "has no due, which would be the same time for all its tasks: give delay"),
        ({"expires": "1e9"}, "has no expires, which would be the same time for all its tasks: give expires_in"),
    ],
)
def test_a_hash_with_a_fault_is_no_schedule_and_says_why(fields, why):
    with pytest.raises(InvalidInputError, match=why) as refused:
        definition(**fields)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("name", [b"", b"a b", b"\xff", b"n" * 1_000_000, b"{a}", b"a@b", "n\u00e4me".encode()])
def test_a_name_that_is_none_is_no_schedule(name):
    with pytest.raises(InvalidInputError, match="the name of a schedule is"):
        read_definition(name, {b"task": b"echo", b"every": b"5"})


@pytest.mark.parametrize("field", ["task", "cron", "tz", "queue", "missed", "jitter", "timeout", "data"])
def test_a_field_that_is_not_utf_8_is_no_schedule(field):
    fields = {b"task": b"echo", b"cron": b"* * * * *", field.encode(): b"\xff"}
    with pytest.raises(InvalidInputError, match="is not UTF-8"):
        read_definition(b"s", fields)


def test_the_task_of_a_fire_gets_the_options_of_the_schedule():
    made = definition(timeout="5m", retries="2", title="hello", unique="true", queue="mail", nonsense="1")
    assert made.words == (
        "task",
        b"echo",
        "data",
        b"{}",
        "timeout",
        b"5m",
        "retries",
        b"2",
        "unique",
        b"true",
        "title",
        b"hello",
    )
    assert made.queue == "mail"
    assert made.timing == Every(3_600_000_000)
    assert made.fire_id(T) == "s@2026-06-21T00:00:00Z"
