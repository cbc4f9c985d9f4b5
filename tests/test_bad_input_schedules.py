"""Bad input: hashes of schedules that somebody else wrote. What Python refuses stands in test_schedules.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row
from test_schedules import define, field

from pytask import PyTask


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)


def error_of(attack, name: str) -> str:
    return wait_until(lambda: field(attack.server, name, "error"), f"{name} is broken")


def fires(attack) -> None:
    """A schedule that is as it should be fires among the others."""
    define(attack.server, "good", task="echo", every="0.5")
    attack.push()
    wait_until(lambda: attack.server.redis.keys("task-good@*"), "it fires")


BROKEN = {
    "cron": ({"cron": "99 * * * *"}, "its field minute is wrong"),
    "never": ({"cron": "0 0 30 2 *"}, "its field day-of-month is wrong"),
    "long": ({"cron": "*" * 1_000_000}, "it must be five fields"),
    "zone": ({"cron": "* * * * *", "tz": "../../etc/passwd"}, "is no time zone that is known here"),
    "zero": ({"every": "0"}, "every: '0' is not allowed"),
    "nan": ({"every": "nan"}, "every: 'nan' is not allowed"),
    "negative": ({"every": "-1"}, "every: '-1' is not allowed"),
    "text": ({"every": "soon\n\x1b[31mforged"}, "every: 'soon"),
    "set": ({"hours": "25"}, "hours '25' is not allowed"),
    "two": ({"every": "5", "cron": "* * * * *"}, "not cron and every together"),
    "none": ({}, "a schedule has cron, or every"),
    "missed": ({"every": "5", "missed": "maybe"}, "missed 'maybe' is not allowed"),
    "jitter": ({"every": "5", "jitter": "9"}, "longer than the interval"),
    "option": ({"every": "5", "timeout": "-1"}, "the field 'timeout'"),
    "due": ({"every": "5", "due": "1e9"}, "a schedule has no due"),
    "queue": ({"every": "5", "queue": "a b"}, "the field 'queue'"),
    "data": ({"every": "5", "data": "[1]"}, "the field 'data' is not a JSON object"),
    "bytes": ({"every": b"\xff"}, "the field 'every' is not UTF-8"),
}


@row("a schedule whose cron, interval, sets, zone, options or data are none, or that says twice when it fires")
def test_a_schedule_that_is_none_is_broken_and_the_others_fire(attack):
    attack.start()
    for name, (fields, _) in BROKEN.items():
        define(attack.server, name, task="echo", **fields)
    fires(attack)
    for name, (_, reason) in BROKEN.items():
        assert reason in error_of(attack, name)
        assert not attack.server.redis.keys(f"task-{name}@*")
    attack.wait_for_log("schedule 'zero' is broken: ", "every:")


@row("a schedule whose task no node knows for `unknown_wait`")
def test_a_schedule_of_an_unknown_task_is_broken_after_a_while(attack):
    attack.start(unknown_wait="0.5")
    define(attack.server, "s", task="nobody", every="0.5")
    assert error_of(attack, "s") == "no node knows the task 'nobody': add it with add_task"
    fires(attack)
    assert not attack.server.redis.keys("task-s@*")


@row(
    "a name in `schedules` that is none, or without a hash",
    "`schedule-<name>` is a string, a list, a set, a sorted set or a stream",
)
def test_a_schedule_without_a_hash_holds_up_no_other_one(attack):
    client = attack.server.redis
    client.set("schedule-string", "x")
    client.rpush("schedule-list", "x")
    client.sadd("schedule-set", "x")
    client.zadd("schedule-zset", {"x": 1})
    client.xadd("schedule-stream", {"x": "1"})
    wrong = ["string", "list", "set", "zset", "stream"]
    names = {**dict.fromkeys(wrong, 0), b"\xff\n{x}": 0, "": 0, "gone": 0, "n" * 100_000: 0}
    client.zadd("schedules", names)
    attack.start()
    fires(attack)
    for name in wrong:
        attack.wait_for_log(f"schedule '{name}' is broken: its key is not a hash")
    wait_until(lambda: client.zscore("schedules", "gone") is None, "a name without a hash is removed")
    app = PyTask(attack.server.url)
    found = app.helpers.get_schedules()
    assert [found[name]["error"] for name in wrong] == ["its key is not a hash"] * len(wrong)
    app.close()


@row("the key `schedules` is of another type")
def test_a_list_of_schedules_of_another_type_is_left_as_it_is(attack):
    attack.server.redis.set("schedules", "x")
    attack.start()
    attack.wait_for_log("schedules cannot be read: ", "WRONGTYPE")
    attack.check_innocents()
    assert attack.server.redis.get("schedules") == b"x"
    attack.server.redis.delete("schedules")
    fires(attack)


@row("fields `next`, `last`, `spec`, `firing`, `error` and `paused` of a schedule, of any content")
@pytest.mark.parametrize("value", ["", "soon", "nan", "-1", "1e300", b"\xff\xfe", "x" * 100_000, "1 2 3 \n"])
def test_what_the_system_writes_may_be_written_over(attack, value):
    """A `paused` of any content pauses; so it is left out here."""
    for name in ("next", "last", "spec", "firing", "error"):
        define(attack.server, f"s-{name}", task="echo", every="0.5", **{name: value})
    attack.start()
    for name in ("next", "last", "spec", "firing", "error"):
        wait_until(lambda name=name: attack.server.redis.keys(f"task-s-{name}@202*"), f"it fires with any {name}")
    define(attack.server, "p", task="echo", every="0.5", paused=value)
    fires(attack)
    assert bool(attack.server.redis.keys("task-p@*")) <= (value == "")
