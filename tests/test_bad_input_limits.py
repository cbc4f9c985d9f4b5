"""Bad input: limits and unique keys that are none, and keys of limits that are of another type."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row
from test_bad_input_options import VALUES, push_all

LABEL = "limit-max-echo"


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)
    assert not [key for key in server.redis.keys("*limit-*") if b"rate" not in key]
    assert not server.redis.keys("unique-*")


@row("a field `max_running`, `max_running_per_key`, `rate` that is none")
@pytest.mark.parametrize("field", ["max_running", "max_running_per_key", "rate"])
def test_a_limit_that_is_none_ends_its_task_and_says_what_is_allowed(attack, field):
    attack.start()
    for task_id, value in push_all(attack, field).items():
        if value == "":
            attack.ends(task_id, "SUCCESS")
        elif value == b"\xff":
            attack.ends(task_id, "ERROR", f"the field '{field}' is not UTF-8")
        else:
            attack.ends(task_id, "ERROR", f"the field '{field}': ", "is not allowed: it must be")


@row("a field `max_running`, `max_running_per_key`, `rate` that is none")
@pytest.mark.parametrize(
    "rate", ["0/s", "-1/s", "10/0s", "10/-5s", "1/nan", "1e400/s", "10/", "/s", "10", "1/99999999d"]
)
def test_a_rate_that_is_none_ends_its_task_and_says_what_is_allowed(attack, rate):
    attack.start()
    attack.create("R", "echo", {"n": 1}, rate=rate)
    attack.ends("R", "ERROR", "the field 'rate': ", "it must be a rate such as '10/s'")


@row("a field `concurrency_key` or `rate_key` of any content")
@pytest.mark.parametrize("field", ["concurrency_key", "rate_key"])
def test_the_name_of_a_data_field_may_be_any_text_of_200_characters(attack, field):
    attack.start()
    for number, value in enumerate(VALUES):
        fields = {field: value, "rate": "100/s"}
        attack.create(f"K{number}", "echo", {"n": 1}, **fields)
        bad = value == b"\xff" or len(value) > 200
        attack.ends(f"K{number}", "ERROR" if bad else "SUCCESS")


@row("a field `unique` of any content")
def test_a_unique_key_may_be_anything(attack):
    attack.start()
    for task_id in push_all(attack, "unique"):
        attack.ends(task_id, "SUCCESS", '{"n":1}')


@row("a task with limits whose `data` cannot be read")
@pytest.mark.parametrize(
    "data", [b"[1]", b"{", b"NaN", b"\xff", b"[" * 5000, b'{"x": "' + b"x" * 2_000_000 + b'"}']
)
def test_data_that_cannot_be_read_asks_no_limit(attack, data):
    attack.start()
    attack.create("D", "echo", data, concurrency_key="x", rate="1/h", rate_key="x", unique="true", max_running="1")
    attack.ends("D", "ERROR", "the field 'data' ")


@row("a key of a limit, or of a lock, that is of another type")
@pytest.mark.parametrize("key", [f"{{{LABEL}}}:held", f"{{{LABEL}}}:line", "{limit-rate-echo}:meter"])
def test_a_limit_whose_key_is_of_another_type_holds_up_its_own_tasks_until_it_is_repaired(attack, key):
    attack.start()
    attack.server.redis.hset(key, "no", "limit")
    attack.create("T", "echo", {"n": 1}, **({"rate": "5/s"} if "rate" in key else {"max_running": "1"}))
    attack.server.wait_for_state("T", "SCHEDULED")
    attack.wait_for_log("limit 'max-echo'" if "max" in key else "limit 'rate-echo'", "WRONGTYPE")
    attack.check_innocents()
    attack.server.redis.delete(key)
    attack.ends("T", "SUCCESS")


@row("a field `limits` of any content")
def test_a_hostile_field_limits_gives_up_nothing_of_others(attack):
    attack.start()
    attack.create("L", "loop", None, max_running="1")
    attack.server.wait_for_state("L", "RUNNING")
    for number, value in enumerate(
        [*VALUES, "max-loop=1 max-=0 key-x=1/0 unique-x \x00 max-a=1/nan max-b=1/1e308"]
    ):
        attack.create(f"H{number}", "echo", {"n": 1}, limits=value, expires="1")
        attack.ends(f"H{number}", "EXPIRED")
    assert attack.server.redis.zrange("{limit-max-loop}:held", 0, -1) == [b"new-task L"]
    attack.stop("L")
    wait_until(lambda: not attack.server.redis.keys("*limit-*"))
