"""Schedules on real nodes: each fire once, whoever dies, is frozen, joins or changes them."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter

import pytest
import redis
from conftest import ON_ONE_SERVER, Server, wait_until

from pytask import PyTask, RegularSchedule, Task
from pytask.errors import InvalidInputError, ScheduleNotFoundError, StoreRefused, UnknownTaskError
from pytask.firing import Definition
from pytask.schedule import read_fire_time
from pytask.tasks.scheduler import Clock

APP = "scheduleapp:app"
POINTS = ["before-draft", "after-draft", "after-win", "after-start"]
SLACK = 0.5  # seconds, for a machine that is busy with other things


def fired(server: Server, name: str) -> list[float]:
    """The fire times of the runs so far, in order, each as often as it has run."""
    return sorted(read_fire_time(text.decode()) for text in server.redis.lrange(f"fired:{name}", 0, -1))


def wait_for_fires(server: Server, name: str, count: int) -> list[float]:
    return wait_until(lambda: len(found := fired(server, name)) >= count and found, f"{count} fires of {name}")


def assert_each_once(times: list[float], every: float) -> None:
    """From the first to the last one, without a gap, and none twice."""
    assert [time for time, count in Counter(times).items() if count > 1] == []
    assert times == [times[0] + n * every for n in range(len(times))]


def wait_for_each_once(server: Server, name: str, count: int, every: float) -> None:
    """So many fires, each once; a later one may reach its start() on another node before an earlier one does."""

    def have_no_gap() -> list[float]:
        times = fired(server, name)
        return times if len(times) >= count and times[-1] - times[0] <= (len(set(times)) - 1) * every else []

    assert_each_once(wait_until(have_no_gap, lambda: f"{count} fires in a row, not {fired(server, name)}"), every)


def define(server: Server, name: str, **fields: str) -> None:
    """What another language does."""
    server.redis.hset(f"schedule-{name}", mapping={"task": "note", **fields})
    server.redis.zadd("schedules", {name: 0})


def field(server: Server, name: str, key: str) -> str | None:
    value = server.redis.hget(f"schedule-{name}", key)
    return None if value is None else value.decode()


# Fires.


@ON_ONE_SERVER
def test_a_schedule_of_the_app_fires_once_on_all_nodes_together(server, start_node):
    schedules = json.dumps({"often": {"task": "note", "every": 0.5, "missed": "all"}})
    for _ in range(4):
        start_node(app=APP, ready=False, test_schedules=schedules)
    wait_for_each_once(server, "often", 12, 0.5)


def test_the_task_of_a_fire_has_its_time_as_id_and_what_the_schedule_says(server, app, start_node):
    start_node(app=APP)
    assert app.helpers.add_schedule("greet", "note", {"word": "hello"}, every=1, title="Hi", queue="default")
    (when,) = wait_for_fires(server, "greet", 1)[:1]
    task_id = Definition("greet", None, "note", None, ()).fire_id(when)
    server.wait_for_state(task_id, "SUCCESS")
    record = app.helpers.get_task(task_id)
    assert json.loads(record["output"]) == "hello"
    assert (record["title"], record["schedule"], record["attempt"]) == ("Hi", "greet", "1")
    assert float(record["created"]) >= when


def test_the_tasks_go_to_the_queue_of_their_class(server, app, start_node):
    start_node("-q", "default", "-q", "slow", app=APP)
    app.helpers.add_schedule("slow", "slow", every=0.5)
    wait_until(lambda: server.redis.hgetall("{new-task:slow}:counts").get(b"SUCCESS"), "it ran in that queue")


def test_one_that_still_runs_is_not_run_a_second_time_where_it_is_unique(server, app, events, start_node):
    start_node()
    app.helpers.add_schedule("long", "sleep", {"seconds": 60}, every=0.5, unique=True)
    wait_until(lambda: server.redis.hgetall("{new-task}:counts").get(b"SKIPPED"), "a fire that was skipped")
    assert len(server.redis.keys("runs:long@*")) == 1


def test_a_fire_that_was_read_before_a_pause_is_not_won_after_it(server):
    app = PyTask(server.url)
    schedules = app.helpers.store.schedules
    define(server, "s", every="10", next="50.000000")
    read = schedules.get(b"s")
    assert app.helpers.pause_schedule("s") is True
    assert schedules.advance(b"s", read, 60.0, "digest", "", (50.0,)) is False
    assert field(server, "s", "firing") is None
    assert app.helpers.resume_schedule("s") is True
    assert schedules.advance(b"s", read, 60.0, "digest", "", (40.0, 50.0)) is True
    assert field(server, "s", "firing") == "40.000000 50.000000"
    assert field(server, "s", "last") == "50.000000"
    app.close()


def test_redis_commands_alone_add_change_pause_resume_and_remove(server, start_node):
    start_node(app=APP)
    define(server, "raw", cron="* * * * * *", tz="Asia/Tokyo", data='{"word": "raw"}')
    wait_for_each_once(server, "raw", 2, 1)

    server.redis.hdel("schedule-raw", "cron", "tz")
    define(server, "raw", every="0.5")
    wait_until(lambda: any(when % 1 for when in fired(server, "raw")), "it fires at half seconds")

    define(server, "raw", paused="1")
    wait_until(lambda: field(server, "raw", "next") is None, "it is paused")
    before = fired(server, "raw")
    define(server, "other", every="0.5")
    wait_for_fires(server, "other", 3)
    assert fired(server, "raw") == before

    server.redis.hdel("schedule-raw", "paused")
    server.redis.zadd("schedules", {"raw": 0})
    after = wait_for_fires(server, "raw", len(before) + 2)
    assert after[len(before)] > before[-1] + 0.5, "what would have fired meanwhile is not made up for"

    server.redis.delete("schedule-raw")
    server.redis.zrem("schedules", "raw")
    gone = fired(server, "raw")
    wait_for_fires(server, "other", len(fired(server, "other")) + 3)
    assert len(fired(server, "raw")) <= len(gone) + 1
    assert not server.redis.exists("schedule-raw")


def test_a_schedule_whose_hash_is_gone_leaves_the_list(server, start_node):
    start_node(app=APP)
    server.redis.zadd("schedules", {"nothing": 0})
    wait_until(lambda: not server.redis.exists("schedules"), "nobody looks at it any more")


# Whoever dies.


@ON_ONE_SERVER
@pytest.mark.parametrize("point", POINTS)
def test_a_node_that_dies_at_a_point_of_a_fire_leaves_it_to_another_one(point, server, app, start_node):
    app.helpers.add_schedule("all", "note", every=0.5, missed="all")
    doomed = start_node(app=APP, ready=False, test_point=f"{point}:3", result_ttl="0")
    assert doomed.wait() == -signal.SIGKILL
    start_node(app=APP, result_ttl="0")
    wait_for_each_once(server, "all", 8, 0.5)
    wait_until(lambda: field(server, "all", "firing") is None, "nothing is left to be started")


@ON_ONE_SERVER
@pytest.mark.parametrize("point", POINTS)
def test_a_node_that_is_held_up_in_a_fire_does_not_start_it_again(point, server, app, start_node):
    """Another one has finished it meanwhile, and the record of its task is cleaned away."""
    app.helpers.add_schedule("all", "note", every=0.5, missed="all")
    held = start_node(app=APP, test_point=f"{point}:2:2", result_ttl="0")
    start_node(app=APP, result_ttl="0")
    wait_for_each_once(server, "all", 10, 0.5)
    assert held.process.poll() is None
    wait_until(
        lambda: not [key for key in server.redis.keys("task-all@*") if server.redis.pttl(key) < 0], "cleaned"
    )


@ON_ONE_SERVER
def test_fires_go_on_while_nodes_are_killed_and_frozen(server, app, start_node):
    app.helpers.add_schedule("all", "note", every=0.5, missed="all")
    nodes = [start_node(app=APP, result_ttl="0") for _ in range(4)]
    wait_for_fires(server, "all", 4)
    nodes[0].kill()
    nodes[1].signal(signal.SIGSTOP)
    wait_for_fires(server, "all", len(fired(server, "all")) + 6)
    nodes[1].signal(signal.SIGCONT)
    wait_for_each_once(server, "all", len(fired(server, "all")) + 6, 0.5)


@pytest.mark.alone
@ON_ONE_SERVER
def test_a_fire_is_at_most_half_a_second_late_also_where_its_winner_dies(server, app, start_node):
    app.helpers.add_schedule("s", "note", every=1, missed="all")
    start_node(app=APP)
    for point in POINTS:
        doomed = start_node(app=APP, test_point=f"{point}:1")
        wait_until(lambda doomed=doomed: doomed.process.poll() is not None, "it has died", 60)
        # The next one must not die in the same fire, which would be late by the leases of both.
        wait_for_fires(server, "s", len(fired(server, "s")) + 1)
    times = wait_for_fires(server, "s", len(fired(server, "s")) + 2)
    assert_each_once(times, 1)
    ids = [Definition("s", None, "note", None, ()).fire_id(when) for when in times]
    late = [float(server.field(task_id, "started")) - when for task_id, when in zip(ids, times, strict=True)]
    print("late by", late)
    assert max(late) <= 0.5 + SLACK


# After an outage.


@pytest.mark.waits
@ON_ONE_SERVER
def test_after_all_nodes_were_stopped_over_three_fire_times_each_schedule_does_as_it_says(server, app, start_node):
    for missed in ("latest", "all", "skip"):
        app.helpers.add_schedule(missed, "note", every=4, missed=missed)
    node = start_node(app=APP)
    for missed in ("latest", "all", "skip"):
        wait_for_fires(server, missed, 1)
    node.kill()
    before = {missed: fired(server, missed)[-1] for missed in ("latest", "all", "skip")}
    last = before["all"]
    wait_until(lambda: time.time() > last + 3 * 4 + 1, "three fire times have passed", 20)
    start_node(app=APP)  # a second later, so that a fire is neither on time nor in half the way to the next
    back = wait_until(lambda: [when for when in fired(server, "all") if when > last], "a node is back")[0]
    for missed in ("latest", "all", "skip"):
        wait_until(lambda missed=missed: fired(server, missed)[-1] >= last + 4 * 4, "they go on")
    made_up = {missed: [when - last for when in fired(server, missed) if when > last] for missed in before}
    assert back == last + 4
    assert made_up["all"][:4] == [4, 8, 12, 16]
    assert made_up["latest"][:2] == [12, 16]
    assert made_up["skip"][0] in (12, 16), "the third was late by more than two seconds, or not yet"
    assert not {4, 8} & set(made_up["skip"])
    for times in made_up.values():
        assert len(times) == len(set(times))


def test_a_schedule_that_was_due_long_ago_is_made_up_for_by_its_policy(server, start_node):
    """The same without the wait: its `next` is written back by three fire times."""
    node = start_node(app=APP)
    for missed in ("latest", "all", "skip"):
        define(server, missed, every="1h", missed=missed)
        wait_until(lambda missed=missed: field(server, missed, "next"), "a node has looked at it")
    node.kill()
    coming = float(field(server, "all", "next"))
    for missed in ("latest", "all", "skip"):
        server.redis.hset(f"schedule-{missed}", "next", f"{coming - 3 * 3600:.6f}")
    start_node(app=APP)
    expected = {
        "latest": [coming - 3600],
        "all": [coming - 3 * 3600, coming - 2 * 3600, coming - 3600],
        "skip": [],
    }
    wait_until(lambda: all(float(field(server, name, "next") or 0) == coming for name in expected), "all go on")
    wait_until(lambda: {name: fired(server, name) for name in expected} == expected, f"{expected}")


# Changes.


@ON_ONE_SERVER
def test_a_rolling_deploy_ends_with_the_new_schedule_and_fires_nothing_twice(server, start_node):
    old, new = (
        {"s": {"task": "note", "every": every, "data": {"word": word}}} for every, word in ((1, "old"), (2, "new"))
    )
    nodes = [start_node(app=APP, test_schedules=json.dumps(old)) for _ in range(2)]
    wait_for_fires(server, "s", 2)
    for node in nodes:
        start_node(app=APP, test_schedules=json.dumps(new))
        assert node.terminate() == 0
    assert json.loads(field(server, "s", "data")) == {"word": "new"}
    assert field(server, "s", "every") == "2"
    changed = len(fired(server, "s"))
    times = wait_for_fires(server, "s", changed + 3)
    assert len(times) == len(set(times)), times
    assert [b - a for a, b in zip(times[-3:], times[-2:], strict=False)] == [2, 2]


def test_a_node_that_starts_with_the_same_schedule_does_not_disturb_it(server, start_node):
    schedules = json.dumps(
        {"yearly": {"task": "note", "cron": "0 0 1 1 *"}, "weekly": {"task": "note", "every": "7d"}}
    )
    start_node(app=APP, test_schedules=schedules)
    wait_until(lambda: field(server, "weekly", "next") and field(server, "yearly", "next"), "they are defined")
    server.redis.hset("schedule-weekly", "paused", "1")
    server.redis.hset("schedule-yearly", "last", "5.000000")
    before = server.redis.hgetall("schedule-yearly")
    second = start_node(app=APP, test_schedules=schedules)
    wait_until(lambda: field(server, "weekly", "next") is None, "the second one has looked at them")
    assert server.redis.hgetall("schedule-yearly") == before
    assert "is defined" not in second.text()
    assert field(server, "weekly", "paused") == "1"


def test_a_change_to_another_timing_leaves_nothing_of_the_old_one(server, app):
    helpers = app.helpers
    assert helpers.add_schedule("s", "note", cron="0 3 * * *", tz="Asia/Tokyo", retries=3, missed="all", jitter=60)
    assert not helpers.add_schedule(
        "s", "note", cron="0 3 * * *", tz="Asia/Tokyo", retries=3, missed="all", jitter=60
    )
    assert helpers.add_schedule("s", "note", None, RegularSchedule(hours={3, 4}, minutes=0))
    assert server.redis.hgetall("schedule-s") == {
        b"task": b"note",
        b"data": b"{}",
        b"seconds": b"0",
        b"minutes": b"0",
        b"hours": b"3,4",
    }
    server.redis.hset("schedule-s", mapping={"next": "5.0", "paused": "1"})
    assert helpers.add_schedule("s", "note", every=5)
    assert server.redis.hgetall("schedule-s") == {
        b"task": b"note",
        b"data": b"{}",
        b"every": b"5",
        b"next": b"5.0",
        b"paused": b"1",
    }


def test_the_helpers_steer_a_schedule(server, app, start_node):
    start_node(app=APP)
    helpers = app.helpers
    helpers.add_schedule("s", "note", {"word": "now"}, cron="0 0 1 1 *")
    assert helpers.run_schedule("s").get(timeout=20) == "now"
    assert len(helpers.get_schedule("s")["times"]) == 5
    assert helpers.pause_schedule("s")
    assert not helpers.pause_schedule("s")
    assert helpers.get_schedule("s")["paused"] > 1e9
    assert helpers.run_schedule("s").get(timeout=20) == "now", "a paused one too"
    assert helpers.resume_schedule("s")
    assert not helpers.resume_schedule("s")
    wait_until(lambda: helpers.get_schedule("s")["next"], "it goes on")
    assert helpers.get_schedule("s", times=2)["times"][0] == helpers.get_schedule("s")["next"]
    assert helpers.remove_schedule("s")
    assert not helpers.remove_schedule("s")
    assert helpers.get_schedule("s") is None
    assert helpers.get_schedules() == {}
    for call in (helpers.run_schedule, helpers.pause_schedule, helpers.resume_schedule):
        with pytest.raises(ScheduleNotFoundError, match="there is no schedule 's'"):
            call("s")
    assert not server.redis.exists("schedule-s"), "a refused call leaves nothing behind"


class Entry:
    task = "note"
    every = 60
    note = "of no meaning to a schedule"


def test_a_list_of_many_has_each_of_them(server, app, start_node):
    app.helpers.add_schedules({f"s{number}": {"task": "note", "every": 0.5 + number % 7} for number in range(250)})
    start_node(app=APP)
    wait_for_fires(server, "s0", 2)
    for _ in range(5):
        found = app.helpers.get_schedules(times=1)
        assert sorted(found) == sorted(f"s{number}" for number in range(250))
        assert not [name for name, row in found.items() if row["error"]]


def test_an_interval_is_told_with_its_unit(server, app):
    for name, every in (("a", 2), ("b", 0.5), ("c", "5m")):
        app.helpers.add_schedule(name, "noop", every=every)
    define(server, "d", task="noop", every="90s")
    define(server, "e", task="noop", every="9")
    found = app.helpers.get_schedules()
    assert [found[name]["when"] for name in "abcde"] == [
        "every 2 s", "every 0.5 s", "every 300 s", "every 90s", "every 9 s",
    ]  # fmt: skip


def test_groups_of_dicts_and_objects_are_added_at_once(server, app):
    groups = {"a": {"one": {"task": "note", "cron": "0 3 * * *"}, "two": Entry}, "b": {"task": "note", "every": 5}}
    assert app.helpers.add_schedules(groups, more={"three": Entry()}) == 4
    assert sorted(app.helpers.get_schedules()) == ["a:one", "a:two", "b", "more:three"]
    assert app.helpers.add_schedules(groups, more={"three": Entry()}) == 0


def test_of_a_group_with_a_fault_nothing_is_written(server, app):
    with pytest.raises(InvalidInputError, match="schedule 'b:two': give one of cron, every and regular"):
        app.helpers.add_schedules({"a": {"task": "note", "every": 5}, "b": {"two": {"task": "note"}}})
    assert not server.redis.keys("*schedule*")


# What is wrong.


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "give one of cron, every and regular, not none"),
        ({"cron": "* * * * *", "every": 5}, "not cron and every"),
        ({"cron": "61 * * * *"}, "its field minute is wrong"),
        ({"cron": 5}, "cron is text, not 5"),
        ({"every": 0}, "every: 0 is not allowed"),
        ({"every": float("nan")}, "every: nan is not allowed"),
        ({"every": -3}, "every: -3 is not allowed"),
        ({"every": 5, "tz": "UTC"}, "tz means nothing"),
        ({"cron": "* * * * *", "tz": "Mars"}, "'Mars' is no time zone"),
        ({"cron": "* * * * *", "tz": 5}, "tz is a name"),
        ({"regular": "daily"}, "regular is a RegularSchedule"),
        ({"every": 5, "missed": "none"}, "missed 'none' is not allowed"),
        ({"every": 5, "jitter": 6}, "longer than the interval"),
        ({"cron": "*/5 * * * *", "jitter": 301}, r"longer than from one time to the next \(300 s\)"),
        ({"every": 5, "jitter": -1}, "jitter: -1 is not allowed"),
        ({"every": 5, "data": [1]}, "data is a dict"),
        ({"every": 5, "data": {"a": {1}}}, "cannot be written as JSON"),
        ({"every": 5, "retires": 3}, "there is no option 'retires': did you mean retries"),
        ({"every": 5, "timeout": -1}, "option timeout"),
        ({"every": 5, "due": 1e9}, "has no due"),
        ({"every": 5, "expires": 1e9}, "has no expires"),
        ({"every": 5, "queue": "a b"}, "queue name 'a b'"),
    ],
)
def test_what_is_wrong_is_refused_where_python_adds_it(given, why, server, app):
    with pytest.raises(InvalidInputError, match=why):
        app.helpers.add_schedule("s", "note", **given)
    if "data" not in given:
        with pytest.raises(InvalidInputError, match=why):
            app.add_schedule("s", "pytask/call", {"function": "a.b"}, **given)
    assert not server.redis.keys("*schedule*")


@pytest.mark.parametrize("name", ["", "a b", "x" * 201, "{a}", "a@b", None, 5, b"s", "n" * 1_000_000])
def test_a_name_that_is_none_is_refused(name, app):
    for call in (lambda: app.helpers.add_schedule(name, "note", every=5), lambda: app.helpers.run_schedule(name)):
        with pytest.raises(InvalidInputError, match="the name of a schedule is"):
            call()


def test_a_task_that_the_app_does_not_know_is_refused(server):
    app = PyTask(server.url)

    @app.add_task
    class Known(Task):
        NAME = "known"

        def __init__(self, number):
            self.number = number

        def start(self):
            pass

    with pytest.raises(UnknownTaskError, match="task 'other' is not registered"):
        app.add_schedule("s", "other", every=5)
    with pytest.raises(UnknownTaskError, match="task 'other' is not registered"):
        app.helpers.add_schedule("s", "other", every=5)
    with pytest.raises(InvalidInputError, match="does not fit known: missing a required argument: 'number'"):
        app.add_schedule("s", "known", {"nuber": 5}, every=5)
    with pytest.raises(InvalidInputError, match="the task pytask/monitor runs on nodes by itself"):
        app.add_schedule("s", "pytask/monitor", every=5)
    app.add_schedule("s", Known, {"number": 1}, every=5)
    with pytest.raises(InvalidInputError, match="two schedules of this app have the name 's'"):
        app.add_schedule("s", Known, {"number": 2}, every=5)
    assert not server.redis.keys("*schedule*"), "declaring writes nothing"
    app.close()


def test_what_came_raw_and_is_wrong_is_shown_as_broken_and_the_others_go_on(server, app, start_node):
    node = start_node(app=APP, unknown_wait="1")
    server.redis.set("schedule-text", "no hash")
    server.redis.zadd("schedules", {"text": 0, b"\xff name": 0})
    server.redis.hset(b"schedule-\xff name", mapping={"task": "note", "every": "5"})
    define(server, "cron", cron="99 * * * *")
    define(server, "zone", cron="* * * * *", tz="Mars")
    define(server, "zero", every="0")
    define(server, "unknown", task="nobody", every="0.5")
    define(server, "option", every="5", retries="some")
    define(server, "data", every="5", data="[1]")
    define(server, "large", every="5", unique="k" * 1_000_000, jitter="x" * 1_000_000)
    define(server, "good", every="0.5")
    wait_for_fires(server, "good", 3)
    wait_until(lambda: field(server, "unknown", "error"), "nobody knew its task")
    found = app.helpers.get_schedules()
    reasons = {name: row["error"] for name, row in found.items() if row["error"]}
    expected = {
        "text": "its key is not a hash",
        "\\xff name": "the name of a schedule is",
        "cron": "its field minute is wrong",
        "zone": "'Mars' is no time zone that is known here",
        "zero": "every: '0' is not allowed",
        "unknown": "no node knows the task 'nobody': add it with add_task",
        "option": "the field 'retries': 'some' is not allowed",
        "data": "the field 'data' is not a JSON object but an array",
        "large": "jitter: 'xxxx",
    }
    assert sorted(reasons) == sorted(expected)
    for name, reason in expected.items():
        assert reason in reasons[name]
    assert not server.redis.keys("task-*bad*")
    wait_for_fires(server, "good", len(fired(server, "good")) + 2)

    server.redis.delete("schedule-text")
    define(server, "text", every="0.5")
    define(server, "cron", cron="* * * * * *")
    for mended in ("text", "cron"):
        wait_for_fires(server, mended, 1)
    assert field(server, "cron", "error") is None
    assert node.process.poll() is None
    assert "failed; it begins again" not in node.text()


def test_a_schedules_key_of_another_type_is_an_alarm_and_no_more(server, app, start_node):
    server.redis.rpush("schedules", "x")
    node = start_node(app=APP)
    node.wait_for_log("schedules cannot be read: ")
    server.create("t", "note")
    server.wait_for_state("t", "SUCCESS")
    with pytest.raises(StoreRefused):
        app.helpers.get_schedules()
    assert server.redis.lrange("schedules", 0, -1) == [b"x"], "it is left as it is"
    server.redis.delete("schedules")
    define(server, "s", every="0.5")
    wait_for_fires(server, "s", 2)
    assert "begins again" not in node.text()


@ON_ONE_SERVER
def test_a_schedule_that_only_some_nodes_know_is_left_to_them(server, start_node):
    for _ in range(2):
        start_node("-q", "other", unknown_wait="1")
    start_node(app=APP, unknown_wait="1")
    define(server, "s", every="0.5", missed="all")
    wait_for_each_once(server, "s", 8, 0.5)
    assert field(server, "s", "error") is None


def test_what_was_lost_of_the_list_is_found_when_a_node_starts(server, start_node):
    """A clock that was set, a score that is far off: each node looks at every schedule once."""
    define(server, "s", every="0.5")
    server.redis.zadd("schedules", {"s": 9e9})
    start_node(app=APP)
    wait_for_fires(server, "s", 2)


def test_the_clock_tells_when_that_of_the_server_was_set(monkeypatch):
    monotonic = [100.0]
    monkeypatch.setattr("pytask.tasks.scheduler.time.monotonic", lambda: monotonic[0])
    clock = Clock()
    assert clock.now() is None
    assert not clock.note(5000.0)
    monotonic[0] += 10
    assert clock.now() == 5010.0
    assert not clock.note(5010.5)
    assert clock.now() == 5010.5
    assert clock.note(1000.0)
    assert clock.note(9000.0)
    monotonic[0] += 31
    assert clock.now() is None, "it is asked again now and then"


def test_namespaces_have_schedules_of_their_own(server, start_node):
    start_node("--namespace", "shop", app=APP)
    with PyTaskIn(server, "shop") as helpers:
        helpers.add_schedule("s", "note", every=0.5)
    wait_until(lambda: server.redis.llen("fired:s") >= 2, "it fires")
    assert server.redis.exists("shop:schedules", "shop:schedule-s") == 2
    assert not server.redis.exists("schedules")


class PyTaskIn:
    """The helpers of an app in a namespace."""

    def __init__(self, server: Server, namespace: str) -> None:
        self.app = PyTask(server.url, namespace=namespace)

    def __enter__(self):
        return self.app.helpers

    def __exit__(self, *_):
        self.app.close()


def test_no_redis_is_told(tmp_path):
    app = PyTask(redis.Redis(unix_socket_path=str(tmp_path / "none")))
    app.helpers.store.client.patience = 0
    with pytest.raises(Exception, match="Redis"):
        app.helpers.add_schedule("s", "note", every=5)
    app.close()
