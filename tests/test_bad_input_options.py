"""Bad input: hostile fields beside `task` and `data`: options, and fields that belong to the system."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from conftest import ON_ONE_SERVER, Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row

MEGABYTE = "x" * 1_000_000
VALUES = ["", "text", "nan", "-nan", "inf", "-inf", "1e400", "-1", "0x10", "9007199254740993", b"\xff", MEGABYTE]
FAR = {"inf", "1e400", "9007199254740993"}
PAST = {"-inf", "-1", "0x10"}
LATER = {"9007199254740993"}  # seconds: a time in the far future, which is allowed
GOOD = {"retry_on": {"text", "nan", "inf", MEGABYTE}}
DAY = 86_400_000_000  # microseconds


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)
    assert_the_fence_is_sane(server)


def assert_the_fence_is_sane(server: Server) -> None:
    """No record has moved the queue's counter away from the server's clock."""
    fence = server.redis.get("{new-task}:fence")
    assert fence.isdigit(), fence
    assert abs(int(fence) - time.time() * 1e6) < 2 * DAY, fence


def push_all(attack: Attack, field: str, task: str = "echo") -> dict[str, str | bytes]:
    """A task for each value of the field; returns id -> value."""
    values = {f"{field}-{n}": value for n, value in enumerate(VALUES)}
    for task_id, value in values.items():
        attack.write(task_id, task, {"n": 1}, **{field: value})
    attack.push(*values)
    return values


def all_run(attack: Attack, *fields: str) -> None:
    """Tasks with any value of any of the fields run as if it were not there, and their events are JSON."""
    for task_id in [task_id for field in fields for task_id in push_all(attack, field)]:
        attack.ends(task_id, "SUCCESS", '{"n":1}')
        assert attack.events.names(task_id) == ["running", "success"]


@row("a field `attempt` that is no number")
def test_a_hostile_attempt_neither_keeps_a_task_from_its_end_nor_spoils_its_events(attack):
    attack.start()
    all_run(attack, "attempt")


@row("a field `deliveries` that is no number")
def test_a_hostile_deliveries_does_not_keep_a_task_from_its_end(attack):
    attack.start()
    all_run(attack, "deliveries")


@row("a field `suspect` of any content")
def test_a_hostile_suspect_makes_a_task_wait_for_its_turn_at_most(attack):
    attack.start()
    all_run(attack, "suspect")
    attack.create("many", "echo", {"n": 1}, suspect="999")
    attack.ends("many", "SUCCESS", '{"n":1}')


@row("a field `rescheduling` that is neither `true` nor `false`")
def test_a_hostile_rescheduling_says_nothing(attack):
    attack.start()
    all_run(attack, "rescheduling")


@row("a field `fence` that is no fence")
def test_a_hostile_fence_harms_neither_its_task_nor_the_queue(attack):
    attack.start()
    all_run(attack, "fence")


@row("a field `fence` that is ahead of the server's clock")
@pytest.mark.parametrize("ahead", [3_600_000_000, 30 * DAY, 2**53 - 2 * DAY * 365 * 60], ids=str)
def test_a_fence_of_the_future_harms_neither_its_task_nor_the_queue(attack, ahead):
    attack.start()
    attack.create("F", "echo", {"n": 1}, fence=str(int(time.time() * 1e6) + ahead))
    attack.ends("F", "SUCCESS", '{"n":1}')


@row("a field `closed`, `node` or `due_used` of any content")
def test_the_system_s_own_fields_do_not_keep_a_task_from_its_end(attack):
    attack.start()
    all_run(attack, "closed", "node", "due_used", "started", "ended", "last_update", "output", "progress")


@row("a field `control` that is not exactly `stop`")
def test_a_hostile_control_is_no_stop(attack):
    attack.start()
    all_run(attack, "control")


@row("a field `cleanup`, `queue`, `title`, `created`, `result_ttl` ... of any content")
def test_hostile_fields_do_not_keep_a_task_from_its_end(attack):
    attack.start()
    all_run(attack, "cleanup", "queue", "title", "workflow", "created", "unknown", "result_ttl", "failure_ttl")


@row("a field `timeout`, `retries`, `retry_delay`, `retry_on`, `delay`, `expires_in` that is none")
@pytest.mark.parametrize("field", ["timeout", "retries", "retry_delay", "retry_on", "delay", "expires_in"])
def test_an_option_that_is_none_ends_its_task_and_says_what_is_allowed(attack, field):
    attack.start()
    good = GOOD.get(field, set())
    for task_id, value in push_all(attack, field).items():
        if value == "" or value in good:
            attack.ends(task_id, "SUCCESS")
        elif value == b"\xff":
            attack.ends(task_id, "ERROR", f"the field '{field}' is not UTF-8")
        elif value not in LATER:
            attack.ends(task_id, "ERROR", f"the field '{field}': ", "is not allowed: it must be")


@row("a field that means nothing")
def test_a_field_that_means_nothing_is_ignored_and_told_of_once(attack):
    attack.start()
    for task_id in ("M1", "M2"):
        attack.create(task_id, "echo", {"n": 1}, retires="3", **{"evil\nline": "x"})
        attack.ends(task_id, "SUCCESS", '{"n":1}')
    assert attack.node.text().count("fields that mean nothing and are ignored") == 1
    assert r"'evil\nline retires'" in attack.node.text()


@row("a field `due` that is no time")
def test_a_hostile_due_is_a_far_time_or_none(attack):
    attack.start()
    for task_id, value in push_all(attack, "due").items():
        if value in FAR:
            attack.server.wait_for_state(task_id, "SCHEDULED")
            wait_until(lambda task_id=task_id: attack.server.redis.zscore("{new-task}:due", task_id) == 1e12)
            attack.events.wait_for(task_id, "scheduled")
        elif value == "" or value in PAST:
            attack.ends(task_id, "SUCCESS")
        else:
            attack.ends(task_id, "ERROR", "the field 'due'")


@row("a field `expires` that is no time")
def test_a_hostile_expires_is_a_past_time_or_none(attack):
    attack.start()
    for task_id, value in push_all(attack, "expires").items():
        if value in PAST:
            attack.ends(task_id, "EXPIRED", "expired before it began")
        elif value == "" or value in FAR:
            attack.ends(task_id, "SUCCESS")
        else:
            attack.ends(task_id, "ERROR", "the field 'expires'")


@row("a field `state` that is no state")
def test_an_invented_state_counts_as_waiting(attack):
    attack.start()
    all_run(attack, "state")


@row("a fresh record whose `state` says RUNNING, RETRY or SCHEDULED")
def test_a_state_that_only_the_system_writes_is_run(attack):
    attack.start()
    for state in ("RUNNING", "RETRY", "SCHEDULED"):
        attack.create(state, "echo", {}, state=state)
        attack.ends(state, "SUCCESS")


@row("a fresh record whose `state` says STOPPED, HELD or how it ended")
def test_a_record_that_says_it_has_ended_is_ignored(attack):
    attack.start()
    for state in ("STOPPED", "HELD", "SUCCESS", "LOST"):
        attack.create(state, "echo", {}, state=state)
        assert attack.events.wait_for(state, "ignored")["data"] == {"state": state}
        assert attack.server.state(state) == state


NO_QUEUES = ["", "task-victim", "{new-task}:claims", "nonsense", "new-task:../x", "new-taskx", b"\xff", MEGABYTE]


@row("a field `at` that is no queue")
def test_a_record_cannot_make_the_node_write_to_a_key_of_its_choice(attack):
    attack.start()
    attack.server.redis.hset("task-victim", mapping={"task": "noop"})
    ids = [f"A{n}" for n in range(len(NO_QUEUES))]
    for task_id, at in zip(ids, NO_QUEUES, strict=True):
        attack.write(task_id, "echo", {"n": 1}, fence="1", at=at)
    attack.push(*ids)
    for task_id in ids:
        attack.ends(task_id, "SUCCESS", '{"n":1}')
    assert attack.server.redis.type("task-victim") == b"hash"
    for key in ("", "nonsense", "new-task:../x", "new-taskx", b"\xff", MEGABYTE):
        assert not attack.server.redis.exists(key)


@row("a field `at` that is no queue, and the helper restarts the task")
def test_a_restart_does_not_push_to_a_key_of_the_record_s_choice(attack, app):
    attack.start()
    for number, at in enumerate([*NO_QUEUES, "0123456789evil"]):
        attack.create(f"A{number}", "echo", {"n": 1})
        attack.ends(f"A{number}", "SUCCESS")
        attack.server.redis.hset(f"task-A{number}", "at", at)
        app.helpers.restart_task(f"A{number}")
        wait_until(lambda name=f"A{number}": attack.events.names(name).count("success") == 2, "it runs again")


@row("a field `local`, which the records of Monitor and Cleanup have")
def test_a_record_that_says_it_is_local_is_ignored(attack):
    attack.start()
    attack.create("L", "echo", {}, local="1")
    attack.events.wait_for("L", "ignored")
    assert attack.server.state("L") is None


@row("a field `at` that is another queue")
def test_a_record_that_names_another_queue_is_run_there(attack):
    attack.start("-q", "default", "-q", "other")
    attack.create("A", "echo", {"n": 1}, fence="1", at="new-task:other")
    attack.ends("A", "SUCCESS", '{"n":1}')
    assert attack.server.field("A", "at") == "new-task:other"


@row("a field `unknown` that is no time, of a task that no node knows")
def test_a_hostile_unknown_does_not_keep_an_unknown_task_going(attack):
    attack.start(unknown_wait="1", hash_wait="1")
    ids = push_all(attack, "unknown", task="nobody")
    attack.push("never-comes")
    for task_id in ids:
        attack.ends(task_id, "EXCEPTION", "no node knew the task")
    wait_until(attack.server.dead, "an id that was parked beside them is served")


@row("a field `control` of 1 MB, of a task that emits")
def test_a_huge_control_field_is_not_sent_back_with_every_event(attack):
    attack.start()
    before = attack.server.redis.info("stats")["total_net_output_bytes"]
    attack.create("P", "progress", {"total": 20}, control=MEGABYTE)
    attack.ends("P", "SUCCESS")
    assert attack.events.names("P").count("progress") == 20
    assert attack.server.redis.info("stats")["total_net_output_bytes"] - before < 3_000_000


@row("a record of 100,000 fields")
def test_a_record_of_many_fields_is_run(attack):
    attack.start()
    for start in range(0, 100_000, 10_000):
        attack.server.redis.hset("task-M", mapping={f"field{n}": n for n in range(start, start + 10_000)})
    attack.create("M", "echo", {"n": 1})
    attack.ends("M", "SUCCESS", '{"n":1}')


@ON_ONE_SERVER
@row("a field `fence`, `node` or `at` that is written over while the task runs")
def test_a_run_whose_record_says_that_it_is_another_ends_without_a_word(attack):
    attack.start(node_timeout="4")
    ids = [f"{field}-{value}" for field in ("fence", "node", "at") for value in ("text", "inf", "0")]
    for task_id in ids:
        attack.write(task_id, "sleep", {"seconds": 600})
    attack.push(*ids)
    for task_id in ids:
        attack.server.wait_for_state(task_id, "RUNNING")
        attack.server.redis.hset(f"task-{task_id}", *task_id.split("-"))
    for task_id in ids:
        attack.wait_for_log(f"id '{task_id}': its record is gone or another's, its run ends")
    attack.server.wait_until_idle()
    for task_id in ids:
        assert attack.events.names(task_id) == ["running"]
        assert attack.server.state(task_id) == "RUNNING"


@ON_ONE_SERVER
@row("a field `fence`, `node` or `at` that was written over, and the id is pushed again")
def test_a_record_that_was_written_over_is_run_anew_by_a_push(attack):
    attack.start(node_timeout="4")
    ids = [f"{field}-{value}" for field in ("fence", "node", "at") for value in ("text", "inf", "0")]
    for task_id in ids:
        attack.write(task_id, "sleep", {"seconds": 600})
    attack.push(*ids)
    for task_id in ids:
        attack.server.wait_for_state(task_id, "RUNNING")
        attack.server.redis.hset(
            f"task-{task_id}", mapping={task_id.split("-")[0]: task_id.split("-")[1], "task": "echo"}
        )
    attack.push(*ids)
    for task_id in ids:
        attack.ends(task_id, "SUCCESS", '{"seconds":600}')
