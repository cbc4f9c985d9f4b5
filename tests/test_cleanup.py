"""Cleanup: records expire, handlers are told of each end, and no ended id gets lost."""

from __future__ import annotations

import json
import re
import time

import pytest
from conftest import ON_ONE_SERVER, wait_until

from pytask import PyTask, Task, states
from pytask.errors import ConfigurationError
from pytask.retention import class_ttls
from pytask.store.addresses import resolve_target
from pytask.store.scripts import script
from pytask.store.store import Store
from pytask.tasks.cleanup import load_handler, seconds_of_rest

TTLS = states.ttl_by_state(60, 600)


@pytest.fixture
def store(server):
    made = Store(resolve_target(server.url), patience=0)
    yield made
    made.close()


@pytest.fixture
def start_cleanup(server, start_node):
    """Starts a node whose Cleanup calls a handler of `handlers`."""

    def start(name="noting", **settings):
        return start_node(app=f"handlers:{name}", test_url=server.url, **settings)

    return start


def handled(server, key="handled") -> list[str]:
    return [json.loads(row)[0] for row in server.redis.lrange(key, 0, -1)]


def record_of(server, task_id: str) -> dict[str, str]:
    rows = [json.loads(row) for row in server.redis.lrange("handled", 0, -1)]
    return next(record for name, record in rows if name == task_id)


def end(server, *ids: str, **fields: str) -> None:
    """As if these tasks had just ended."""
    for task_id in ids:
        server.redis.hset(f"task-{task_id}", mapping={"task": "noop", "state": "SUCCESS", **fields})
    server.redis.lpush("end-task", *ids)


def empty(server) -> bool:
    """Nothing is left to do for any Cleanup."""
    return not server.redis.keys("{end-task}:of:*") and not server.redis.exists("end-task")


# How long records live: the script.


@pytest.mark.parametrize("state", sorted(states.ENDED))
def test_an_ended_record_expires_by_its_state(server, store, state):
    server.redis.hset("task-T", mapping={"task": "noop", "state": state})
    left = 600 if state in states.FAILED else 60
    assert store.expiry.let_expire([b"T"], TTLS) == [left]
    assert left - 30 < server.redis.ttl("task-T") <= left
    assert store.expiry.let_expire([b"T"], TTLS) == [left]


@pytest.mark.parametrize("state", sorted(states.ENDED))
def test_zero_seconds_remove_a_record_at_once(server, store, state):
    server.redis.hset("task-T", mapping={"task": "noop", "state": state})
    assert store.expiry.let_expire([b"T"], states.ttl_by_state(0, 0)) == [0]
    assert not server.redis.exists("task-T")
    assert store.expiry.let_expire([b"T"], states.ttl_by_state(0, 0)) == [-1]


@pytest.mark.parametrize("state", sorted(set(states.MOVES) - states.ENDED))
def test_a_record_that_has_not_ended_stays(server, store, state):
    server.redis.hset("task-T", mapping={"task": "noop", "state": state})
    assert store.expiry.let_expire([b"T"], states.ttl_by_state(0, 0)) == [-1]
    assert server.redis.ttl("task-T") == -1


def test_what_is_no_record_stays(server, store):
    server.redis.set("task-text", "text")
    server.redis.hset("task-odd", "state", "DONE")
    server.redis.hset("task-none", "task", "noop")
    assert store.expiry.let_expire([b"text", b"odd", b"none", b"no"], TTLS) == [-1, -1, -1, -1]
    assert server.redis.get("task-text") == b"text"


@pytest.mark.parametrize(
    ("own", "left"),
    [
        ("5", 5),
        ("0", 0),
        ("2.5", 3),
        ("1500ms", 2),
        ("5m", 300),
        ("-1", 60),
        ("soon", 60),
        ("inf", 60),
        ("nan", 60),
        ("1e99", 60),
    ],
)
def test_the_records_own_time_goes_first_where_it_is_one(server, store, own, left):
    server.redis.hset("task-T", mapping={"state": "SUCCESS", "result_ttl": own, "failure_ttl": "7"})
    server.redis.hset("task-F", mapping={"state": "ERROR", "failure_ttl": own, "result_ttl": "7"})
    assert store.expiry.let_expire([b"T", b"F"], TTLS) == [left, 600 if left == 60 else left]
    assert server.redis.exists("task-T") == server.redis.exists("task-F") == (left > 0)


@pytest.mark.parametrize("state", sorted(states.ENDED))
def test_a_class_says_how_long_its_records_are_kept_unless_they_do(server, store, state):
    failed = state in states.FAILED
    for task_id, fields in {
        "own": {"failure_ttl": "5", "result_ttl": "5"},
        "class": {},
        "half": {"task": "half"},
        "other": {"task": "other"},
    }.items():
        server.redis.hset(f"task-{task_id}", mapping={"task": "short", "state": state, **fields})
    classes = "short 20 200 half - 0"
    left = store.expiry.let_expire([b"own", b"class", b"half", b"other"], TTLS, classes)
    assert left == [5, 200 if failed else 20, 0 if failed else 60, 600 if failed else 60]


def test_what_classes_say_is_read_from_them():
    class Short(Task):
        NAME = "short"
        result_ttl = "1m"

    class Both(Task):
        NAME = "both"
        result_ttl, failure_ttl = 0, 2.5

    class Neither(Task):
        NAME = "neither"

    assert class_ttls([Short, Both, Neither]) == "short 60.000 - both 0.000 2.500"
    assert class_ttls([Neither]) == ""


def test_kept_events_go_with_their_record(server, store):
    for task_id, state in {"T": "SUCCESS", "F": "ERROR", "none": "SUCCESS", "{x}": "SUCCESS"}.items():
        server.redis.hset(f"task-{task_id}", mapping={"task": "noop", "state": state, "kept": "1"})
    for task_id in ("T", "F"):
        server.redis.xadd(f"{{task-{task_id}}}:events", {"event": "{}"})
        server.redis.pexpire(f"{{task-{task_id}}}:events", 604_800_000)
    assert store.expiry.let_expire([b"T", b"F", b"none", b"{x}"], TTLS) == [60, 600, 60, 60]
    assert 30 < server.redis.ttl("{task-T}:events") <= 60
    assert 300 < server.redis.ttl("{task-F}:events") <= 600
    assert store.expiry.let_expire([b"T"], states.ttl_by_state(0, 0)) == [0]
    assert not server.redis.exists("{task-T}:events")


def test_the_script_knows_what_a_failure_is():
    (table,) = re.findall(r"local FAILED = \{(.*?)\}", script("cleanup").source)
    assert set(re.findall(r"(\w+) = 1", table)) == states.FAILED


def test_a_record_that_keeps_itself_stays(server, store):
    server.redis.hset("task-T", mapping={"state": "SUCCESS", "cleanup": "false"})
    server.redis.hset("task-U", mapping={"state": "SUCCESS", "cleanup": "true"})
    assert store.expiry.let_expire([b"T", b"U"], TTLS) == [-2, 60]
    assert server.redis.ttl("task-T") == -1


# Taking ended ids: the scripts.


def test_ended_ids_are_taken_in_turn_and_taken_again_until_they_are_dropped(server, store):
    store.endings.push([b"%d" % number for number in range(5)])
    assert store.endings.get(2) == [b"0", b"1"]
    assert store.endings.take(b"me", 3) == [b"0", b"1", b"2"]
    assert store.endings.take(b"me", 3) == [b"0", b"1", b"2"], "a second run returns the same"
    assert store.endings.take(b"me", 4) == [b"0", b"1", b"2", b"3"]
    store.endings.drop(b"me", [b"1"])
    assert store.endings.take(b"me", 3) == [b"0", b"2", b"3"]
    assert store.endings.wait_for_id(b"me", 1)
    assert store.endings.take(b"me", 9) == [b"0", b"2", b"3", b"4"]
    store.endings.drop_all(b"me", 3)
    assert store.endings.take(b"me", 9) == [b"4"]
    store.endings.drop_all(b"me", 1)
    assert empty(server)


def test_what_a_dead_cleanup_took_goes_back_unless_it_has_moved(server, store):
    store.endings.push([b"1", b"2", b"3"])
    store.endings.take(b"dead", 2)
    store.endings.announce(b"dead", 7)
    assert store.endings.give_back(b"dead", b"6") == -1
    assert store.endings.get_takers() == {b"dead": b"7"}
    assert store.endings.give_back(b"dead", b"7") == 2
    assert sorted(store.endings.get(10)) == [b"1", b"2", b"3"]
    assert store.endings.get_takers() == {}
    assert store.endings.give_back(b"dead", b"7") == 0


# The task on a node.


def test_records_expire_as_the_settings_say(server, start_node):
    start_node(result_ttl="100", failure_ttl="200")
    server.create("S", "noop")
    server.create("F", "fail")
    server.create("B", "boom")
    server.create("own", "noop", result_ttl="50")
    for task_id, most in (("S", 100), ("F", 200), ("B", 200), ("own", 50)):
        wait_until(lambda task_id=task_id: server.redis.ttl(f"task-{task_id}") > 0, f"{task_id} expires")
        assert most - 30 < server.redis.ttl(f"task-{task_id}") <= most
    wait_until(lambda: empty(server))


def test_a_success_is_removed_at_once_where_it_is_kept_for_no_time(server, start_node, events):
    start_node(result_ttl="0")
    server.create("S", "noop")
    events.wait_for("S", "success")
    wait_until(lambda: not server.redis.exists("task-S"))
    server.create("F", "fail")
    wait_until(lambda: server.redis.ttl("task-F") > 0)


def test_a_stopped_task_is_kept(server, start_cleanup, app):
    start_cleanup()
    server.create("T", "noop", control="stop")
    server.wait_for_state("T", "STOPPED")
    server.create("after", "noop")
    wait_until(lambda: handled(server) == ["after"])
    assert server.redis.ttl("task-T") == -1


@pytest.mark.parametrize(("fields", "state"), [({}, "SUCCESS"), ({"expires": "1"}, "EXPIRED")])
def test_a_task_that_keeps_itself_stays_off_end_task(server, start_cleanup, fields, state):
    start_cleanup()
    server.create("kept", "noop", cleanup="false", **fields)
    server.wait_for_state("kept", state)
    server.wait_until_idle()
    server.create("after", "noop")
    wait_until(lambda: "after" in handled(server))
    assert handled(server) == ["after"]
    assert server.redis.ttl("task-kept") == -1


def test_a_task_that_keeps_itself_stays_off_end_task_also_after_a_crash(server, start_node):
    """Its node finished it and died; another one does what is left."""
    server.redis.hset(
        "task-T",
        mapping={
            "task": "noop",
            "state": "SUCCESS",
            "fence": 5,
            "closed": 5,
            "at": "new-task",
            "cleanup": "false",
        },
    )
    server.redis.hset("{new-task}:claims", "T", "-lost push")
    server.redis.lpush("new-task", "T")
    start_node(local_tasks="false")
    server.wait_until_idle()
    assert server.redis.hget("{new-task}:counts", "SUCCESS") == b"1"
    assert not server.redis.exists("end-task")


def test_the_handler_gets_id_and_record(server, start_cleanup):
    start_cleanup()
    server.create("S", "noop", title="a ü title")
    server.create("F", "fail", '{"message": "why"}')
    wait_until(lambda: sorted(handled(server)) == ["F", "S"])
    success, failure = record_of(server, "S"), record_of(server, "F")
    assert (success["state"], success["title"], success["output"]) == ("SUCCESS", "a ü title", "null")
    assert (failure["state"], failure["output"]) == ("ERROR", "why")
    wait_until(lambda: empty(server))


def test_the_handler_gets_ids_and_records_of_any_bytes(server, start_cleanup):
    start_cleanup()
    server.redis.hset(b"task-\xff\n", mapping={"task": "noop", "title": b"\xfe"})
    server.redis.lpush("new-task", b"\xff\n")
    wait_until(lambda: handled(server))
    assert handled(server)[0].encode("utf-8", "surrogateescape") == b"\xff\n"
    assert record_of(server, handled(server)[0])["title"] == "\\xfe"


def test_the_handler_of_a_record_that_is_gone_gets_an_empty_one(server, start_cleanup):
    start_cleanup()
    server.redis.lpush("end-task", "gone")
    wait_until(lambda: handled(server) == ["gone"])
    assert record_of(server, "gone") == {}


def test_junk_in_end_task_holds_nothing_up(server, start_cleanup):
    server.redis.set("task-text", "no hash")
    server.redis.lpush("end-task", "", "a-control", "x" * 513, "text", b"\xff")
    end(server, "good")
    start_cleanup()
    wait_until(lambda: "good" in handled(server))
    wait_until(lambda: empty(server))
    end(server, "next")
    wait_until(lambda: "next" in handled(server))


def test_a_handler_that_fails_is_logged_and_tried_again_and_the_next_ones_are_served(server, start_cleanup):
    end(server, "first", "bad", "last")
    server.redis.hset("task-bad", "output", "twice")
    node = start_cleanup()
    wait_until(lambda: handled(server).count("bad") == 3)
    wait_until(lambda: empty(server))
    assert handled(server)[:3] == ["first", "bad", "last"]
    assert sorted(handled(server)) == ["bad", "bad", "bad", "first", "last"]
    assert server.redis.ttl("task-bad") > 0
    assert not server.redis.exists("{end-task}:dead")
    assert "the task handler failed for id 'bad'" in node.text()
    assert "ValueError: not yet bad" in node.text()
    wait_until(lambda: not server.redis.exists("{end-task}:failed"), "its failures are forgotten")


def test_an_id_whose_handler_keeps_failing_is_dead_after_five_times(server, start_cleanup):
    end(server, "bad", output="always")
    server.redis.hset("{end-task}:failed", "bad", 3)  # so often on other nodes
    node = start_cleanup()
    wait_until(lambda: server.redis.lrange("{end-task}:dead", 0, -1) == [b"bad"])
    wait_until(lambda: empty(server))
    assert handled(server).count("bad") == 2
    assert not server.redis.exists("{end-task}:failed")
    wait_until(lambda: server.redis.ttl("task-bad") > 0, "its record expires all the same")
    node.wait_for_log("id 'bad' is on end-task:dead: its handler failed 5 times")
    end(server, "good")
    wait_until(lambda: "good" in handled(server))


def test_a_handler_that_exits_does_not_end_the_node(server, start_cleanup):
    end(server, "bad", output="exit")
    node = start_cleanup()
    wait_until(lambda: handled(server).count("bad") == 2 or node.process.poll() is not None, "it is tried again")
    assert node.process.poll() is None, node.text()
    end(server, "good")
    wait_until(lambda: "good" in handled(server))


@pytest.mark.parametrize(("name", "why"), [("broken", "is no function"), ("missing", "cannot be loaded")])
def test_a_handler_that_cannot_be_called_is_told_and_the_node_works_on(server, start_cleanup, name, why):
    node = start_cleanup(name)
    node.wait_for_log(why)
    server.create("T", "noop")
    server.wait_for_state("T", "SUCCESS")
    wait_until(lambda: server.redis.lrange("end-task", 0, -1) == [b"T"], "it waits for a Cleanup that works")


@pytest.mark.parametrize("path", ["json:dumps", "os.path:join"])
def test_a_handler_is_found_by_its_path(path):
    assert callable(load_handler(path))


@pytest.mark.parametrize(
    "path", ["", ":", "json", "json:", "json:nothing", ":x", "no.such.module:x", "json:__doc__"]
)
def test_a_handler_that_is_not_there_is_told(path):
    with pytest.raises(ConfigurationError, match="task_handler"):
        load_handler(path)


@ON_ONE_SERVER
def test_what_a_killed_cleanup_had_taken_is_handled_by_another_one(server, start_cleanup):
    server.redis.set("hold", "1")
    ids = [f"t{number}" for number in range(20)]
    end(server, *ids)
    first = start_cleanup("hanging", node_timeout="2")
    wait_until(lambda: handled(server, "taken"))
    wait_until(lambda: server.redis.hexists("{end-task}:takers", f"pytask/cleanup@{first.node_id}"))
    first.kill()
    server.redis.delete("hold")
    assert len(server.redis.keys("{end-task}:of:*")) == 1
    second = start_cleanup("hanging", node_timeout="2")
    wait_until(lambda: sorted(handled(server)) == sorted(ids))
    wait_until(lambda: empty(server))
    second.wait_for_log("20 ended ids of a dead Cleanup are back")
    assert set(server.redis.hkeys("{end-task}:takers")) == {b"pytask/cleanup@" + second.node_id.encode()}


def test_a_cleanup_that_ends_gives_back_what_it_has(server, start_cleanup):
    server.redis.set("hold", "1")
    end(server, "a", "b", "c")
    node = start_cleanup("hanging")
    wait_until(lambda: handled(server, "taken"))
    assert node.terminate() == 0
    assert sorted(server.redis.lrange("end-task", 0, -1)) == [b"a", b"b", b"c"]
    assert not server.redis.exists("{end-task}:takers")


def test_two_cleanups_share_the_work(server, start_cleanup):
    start_cleanup()
    start_cleanup()
    wait_until(lambda: server.redis.hlen("{end-task}:takers") == 2)
    ids = [f"t{number}" for number in range(300)]
    for task_id in ids:
        end(server, task_id)
    wait_until(lambda: sorted(handled(server)) == sorted(ids))


# Nobody takes ended ids.


@pytest.mark.parametrize("taker", [None, "pytask/cleanup@dead:1:0"])
def test_without_a_cleanup_that_lives_the_list_is_capped_with_an_alarm(server, start_node, taker):
    end(server, "oldest")
    server.redis.lpush("end-task", *[f"old{number}" for number in range(100_000)])
    if taker:
        server.redis.hset("{end-task}:takers", taker, 5)  # one that was killed
    node = start_node(local_tasks="false", node_timeout="2")

    def capped() -> bool:
        server.create(f"t{time.monotonic_ns()}", "noop")
        return server.redis.llen("end-task") <= 100_000

    wait_until(capped, "the list is capped")
    node.wait_for_log("no Cleanup lives")
    assert server.redis.ttl("task-oldest") > 0, "its record expires as Cleanup would have it"
    assert server.redis.lrange("end-task", -1, -1) != [b"oldest"]
    assert not server.redis.keys("{end-task}:of:*")


def test_with_a_cleanup_the_list_is_never_capped(server, start_cleanup):
    server.redis.set("hold", "1")
    node = start_cleanup("hanging")
    server.redis.lpush("end-task", *[f"old{number}" for number in range(100_001)])
    wait_until(lambda: handled(server, "taken"))
    server.create("T", "noop")
    server.wait_for_state("T", "SUCCESS")
    server.wait_until_idle()
    assert server.redis.llen("end-task") > 99_000
    assert "no Cleanup lives" not in node.text()


def test_a_cleanup_drains_what_an_app_without_one_left(server, start_node, app: PyTask):
    node = start_node(local_tasks="false")
    ids = app.helpers.start_tasks([("noop",)] * 700)
    wait_until(lambda: sorted(app.helpers.get_end_task_ids()) == sorted(ids))
    node.terminate()
    start_node()
    wait_until(lambda: empty(server))
    assert all(app.helpers.store.client.pipeline([("PTTL", f"task-{task_id}")])[0] > 0 for task_id in ids[::50])


def test_one_cleanup_never_rests_and_many_rest_the_longer_the_more_they_are():
    rests = [seconds_of_rest(number) for number in (0, 1, 2, 11, 1000)]
    assert rests == [0, 0, 0.01, 0.1, 0.5]
