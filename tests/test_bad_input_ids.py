"""Bad input: strange ids, ids pushed again, and records that go or change while their task runs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conftest import Events, Server, StartNode, raw_key, wait_until
from test_bad_input import Attack, guarded, row


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)


# Strange ids.

STRANGE = {
    "an id of 512 bytes": [b"x" * 512, b"\xff" * 512],
    "an id that is not UTF-8": [b"\xff\xfe\x00\x80", b"\xc3", b"a\xffb"],
    "an id with spaces, newlines or control characters": [
        b"two words ", b" ", b"one\ntwo\r\n", b"\x1b[31m", b"\x00", b"\t", "\u2028\u202e".encode(),
    ],
    "an id with `*`, `?`, `[ab]`, `{x}`, quotes or backslashes": [
        b"*", b"?", b"[ab]", b"{x}", b"}{", b"\\", b"'\"`$(x)", b"%s%n", b"a:b", b"<b>",
    ],
    "an id that looks like something else: a number, a key, a mark, a channel": [
        b"0", b"-1", b"stop", b"new-task", b"task-x", b"-lost push", b"-back", b"x-control-y", b"-control-",
    ],
}  # fmt: skip


@row(*STRANGE)
@pytest.mark.parametrize("ids", STRANGE.values(), ids=STRANGE)
def test_a_strange_id_is_an_id_like_any_other(attack, ids):
    attack.start()
    for task_id in (b"a", b"xx", *ids):
        attack.write(task_id, "loop")
    attack.push(b"a", b"xx", *ids)
    for task_id in (b"a", b"xx", *ids):
        attack.events.wait_for(task_id, "turn")
    for task_id in ids:
        attack.control(task_id, "stop")
    for task_id in ids:
        attack.events.wait_for(task_id, "stopped")
        assert attack.server.state(task_id) == "STOPPED"
    for other in ("a", "xx"):
        assert attack.server.state(other) == "RUNNING"
        attack.stop(other)


@row("an empty id")
def test_an_empty_id_is_dead(attack):
    attack.start()
    attack.create("", "echo")
    wait_until(lambda: attack.server.dead() == [b""], "it is dead")
    attack.wait_for_log("id '' is on the dead list: an id must not be empty")
    assert attack.server.redis.hgetall("task-") == {b"task": b"echo"}


@row("an id of 513 bytes, or of 1 MB")
def test_an_id_that_is_too_long_is_dead(attack):
    attack.start()
    for number, size in enumerate((513, 1_000_000), 1):
        attack.create(b"x" * size, "echo")
        wait_until(lambda number=number: len(attack.server.dead()) == number, "it is dead")
        attack.wait_for_log(f"is on the dead list: an id has at most 512 bytes, this one has {size}")
        assert attack.server.dead()[0] == b"x" * size
        assert attack.server.state(b"x" * size) is None
    assert max(map(len, attack.lines())) < 500


@row("an id that ends in `-control`")
def test_an_id_that_ends_in_control_is_dead_and_disturbs_no_other_task(attack):
    attack.start()
    attack.create("L", "loop")
    attack.events.wait_for("L", "turn")
    attack.write("L-control", "loop", {"text": "stop"})
    attack.write("-control", "loop")
    attack.push("L-control", "-control")
    wait_until(lambda: sorted(attack.server.dead()) == [b"-control", b"L-control"], "both are dead")
    attack.wait_for_log("id 'L-control' is on the dead list: an id must not end in '-control'")
    assert attack.events.names("L-control") == []
    assert "control message" not in attack.node.text()
    attack.events.seen.clear()
    attack.events.wait_for("L", "turn")
    assert attack.server.state("L") == "RUNNING"
    attack.stop("L")


@row("the id of a node's own Monitor or Cleanup")
def test_the_id_of_a_local_task_cannot_be_run_from_a_queue(attack):
    attack.start()
    attack.push(*[f"pytask/{name}@{attack.node.node_id}" for name in ("monitor", "cleanup")])
    attack.server.wait_until_idle()
    attack.create("E", "echo")
    attack.ends("E", "SUCCESS")
    wait_until(lambda: attack.server.redis.ttl("task-E") > 3000, "Cleanup still works")


# The same id again.


@row("an id that is pushed again before it runs")
def test_an_id_that_was_pushed_twice_before_it_runs_runs_once(attack):
    attack.write("T", "sleep", {"seconds": 0.1})
    attack.push("T", "T", "T")
    attack.start()
    attack.ends("T", "SUCCESS")
    attack.events.wait_for("T", "ignored")
    attack.server.wait_until_idle()
    assert attack.server.redis.llen("runs:T") == 1
    assert attack.events.names("T") == ["running", "success", "ignored"]


@row("an id that is pushed again while it runs")
@pytest.mark.parametrize("times", [1, 3_000])
def test_an_id_that_is_pushed_while_it_runs_runs_once(attack, times):
    attack.start()
    attack.create("T", "sleep", {"seconds": 2})
    attack.server.wait_for_state("T", "RUNNING")
    attack.push(*["T"] * times)
    wait_until(lambda: attack.server.redis.sismember("{new-task}:again", "T"), "the push is noted")
    attack.ends("T", "SUCCESS")
    assert attack.events.wait_for("T", "ignored")["data"] == {"state": "SUCCESS"}
    attack.server.wait_until_idle()
    assert attack.server.redis.llen("runs:T") == 1
    assert attack.events.names("T") == ["running", "success", "ignored"]


@row("an id that is pushed again after it ended")
def test_an_id_that_is_pushed_after_it_ended_is_ignored(attack):
    attack.start()
    for task, state in {"echo": "SUCCESS", "fail": "ERROR", "boom": "EXCEPTION"}.items():
        attack.create(state, task)
        attack.ends(state, state)
        before = attack.server.redis.hgetall(f"task-{state}")
        attack.push(state)
        assert attack.events.wait_for(state, "ignored")["data"] == {"state": state}
        attack.server.wait_until_idle()
        assert attack.server.redis.hgetall(f"task-{state}") == before


@row("an id that is pushed to two queues")
def test_an_id_in_two_queues_runs_once(attack):
    attack.start("-q", "default", "-q", "other")
    attack.write("T", "sleep", {"seconds": 0.5})
    attack.server.redis.lpush("new-task:other", "T")
    attack.push("T")
    attack.ends("T", "SUCCESS")
    attack.events.wait_for("T", "ignored")
    wait_until(lambda: not attack.server.redis.exists("new-task:other", "{new-task:other}:claims"), "idle")
    assert attack.server.redis.llen("runs:T") == 1


# Records that change while their task runs.


def run_ends_without_a_word(attack: Attack, task_id: str) -> None:
    """The run of a record that is gone ends by itself, soon, and nothing is left."""
    attack.wait_for_log(f"id '{task_id}': its record is gone or another's, its run ends")
    attack.server.wait_until_idle(15)
    assert attack.events.names(task_id) == ["running"]


@row("the record is deleted while its task runs")
def test_a_run_whose_record_was_deleted_ends_by_itself(attack):
    attack.start()
    attack.create("R", "sleep", {"seconds": 600})
    attack.server.wait_for_state("R", "RUNNING")
    attack.server.redis.delete("task-R")
    run_ends_without_a_word(attack, "R")
    assert not attack.server.redis.exists("task-R", "end-task")


@row("the record is deleted while its task runs")
def test_a_run_that_returns_after_its_record_was_deleted_makes_no_new_one(attack):
    attack.start()
    attack.create("R", "sleep", {"seconds": 1})
    attack.server.wait_for_state("R", "RUNNING")
    attack.server.redis.delete("task-R")
    attack.server.wait_until_idle()
    assert attack.events.names("R") == ["running"]
    assert not attack.server.redis.exists("task-R")


@row("the record becomes another type while its task runs")
def test_a_run_whose_record_became_another_type_ends_by_itself(attack):
    attack.start()
    attack.write("short", "sleep", {"seconds": 1})
    attack.write("long", "sleep", {"seconds": 600})
    attack.push("short", "long")
    for task_id in ("short", "long"):
        attack.server.wait_for_state(task_id, "RUNNING")
        attack.server.redis.set(f"task-{task_id}", "mine")
    attack.server.wait_until_idle()
    for task_id in ("short", "long"):
        assert attack.events.names(task_id) == ["running"]
        assert attack.server.redis.get(f"task-{task_id}") == b"mine"


@row("the record is deleted while its task runs, written anew and pushed")
def test_a_new_record_under_the_id_of_a_run_is_run_after_it(attack):
    attack.start()
    attack.create("R", "sleep", {"seconds": 600})
    attack.server.wait_for_state("R", "RUNNING")
    attack.server.redis.delete("task-R")
    attack.create("R", "echo", {"new": True})
    attack.ends("R", "SUCCESS", '{"new":true}')
    assert attack.events.names("R") == ["running", "running", "success"]
    attack.wait_for_log("id 'R': its record is gone or another's, its run ends")


@row("the record is deleted while its task runs, and the task is told to stop or reload")
@pytest.mark.parametrize("message", ["stop", "reload"])
def test_a_run_without_a_record_takes_control_messages(attack, message):
    attack.start(hash_wait="1")
    attack.create("R", "sleep", {"seconds": 600})
    attack.server.wait_for_state("R", "RUNNING")
    attack.server.redis.delete("task-R")
    attack.control("R", message)
    attack.server.wait_until_idle()
    if message == "reload":
        wait_until(lambda: attack.server.dead() == [b"R"], "no record came")
    assert attack.events.names("R") == ["running"]
    assert not attack.server.redis.exists("task-R")


@row("`data` is no good when a running task is told to reload")
def test_a_reload_reads_the_data_anew_and_judges_it(attack):
    attack.start()
    attack.create("R", "loop")
    attack.events.wait_for("R", "turn")
    attack.server.redis.hset(raw_key("R"), "data", "{")
    attack.control("R", "reload")
    attack.ends("R", "ERROR", "the field 'data' is not JSON")


@row("`data` is no good when a running task is told to reload")
def test_a_reload_of_a_task_that_is_now_unknown_goes_round_until_it_is_known(attack):
    attack.start()
    attack.create("R", "loop")
    attack.events.wait_for("R", "turn")
    attack.server.redis.hset("task-R", "task", "nobody")
    attack.control("R", "reload")
    attack.events.wait_for("R", "unknown")
    attack.server.redis.hset("task-R", mapping={"task": "echo", "data": json.dumps({"n": 1})})
    attack.ends("R", "SUCCESS", '{"n":1}')
