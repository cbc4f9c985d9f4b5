"""Bad input: records that are absent, of another type, or hold what nobody can run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from conftest import Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row

DUE = "{new-task}:due"


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)


# No record, or another type.


@row("an id without a record, which comes within `hash_wait`")
def test_a_record_may_come_after_its_id(attack):
    attack.start()
    attack.push("L")
    wait_until(lambda: attack.server.redis.zscore(DUE, "L") is not None, "it waits for its record")
    attack.write("L", "echo", {"late": True})
    attack.ends("L", "SUCCESS", '{"late":true}')
    assert attack.server.dead() == []


@row("an id without a record, which never comes")
def test_an_id_whose_record_never_comes_is_dead(attack):
    attack.start(hash_wait="1")
    attack.push("L")
    wait_until(lambda: attack.server.dead() == [b"L"], "it is dead")
    attack.wait_for_log("id 'L' is on the dead list: no record came for it")
    assert not attack.server.redis.exists("task-L", DUE)


@row("an id without a record, pushed a hundred times")
def test_an_id_without_a_record_is_dead_once_however_often_it_was_pushed(attack):
    attack.start(hash_wait="1")
    attack.push(*["L"] * 100)
    wait_until(attack.server.dead, "it is dead")
    attack.server.wait_until_idle()
    assert attack.server.dead() == [b"L"]


@row("two thousand ids without records")
def test_many_ids_without_records_hold_nothing_up(attack):
    attack.start(hash_wait="1")
    attack.push(*[f"L{n}" for n in range(2000)])
    attack.push()
    wait_until(lambda: len(attack.server.dead()) == 2000, "all are dead", 60)


@row("`task-<id>` is a string, a list, a set, a sorted set or a stream")
def test_a_record_of_another_type_is_dead_and_stays_as_it_is(attack):
    attack.start()
    redis = attack.server.redis
    redis.set("task-string", "x")
    redis.rpush("task-list", "x")
    redis.sadd("task-set", "x")
    redis.zadd("task-zset", {"x": 1})
    redis.xadd("task-stream", {"x": "x"})
    kinds = ["string", "list", "set", "zset", "stream"]
    attack.push(*kinds)
    wait_until(lambda: len(attack.server.dead()) == 5, "all are dead")
    assert sorted(attack.server.dead()) == sorted(kind.encode() for kind in kinds)
    for kind in kinds:
        assert redis.type(f"task-{kind}") == kind.encode()
        attack.wait_for_log(f"id '{kind}' is on the dead list: task-<id> is not a hash")


# The field `task`.


@row("no field `task`")
def test_a_record_without_a_task_ends_as_error(attack):
    attack.start()
    attack.create("N", None, {})
    attack.ends("N", "ERROR", "the record has no field 'task'", "HSET")
    attack.wait_for_log("id 'N'", "ended as ERROR", "no field")


@row("an unknown task name that another node knows")
def test_an_unknown_task_is_run_by_a_node_that_knows_it(attack, tmp_path):
    attack.start()
    attack.create("U", "only-elsewhere")
    event = attack.events.wait_for("U", "unknown")
    assert event["data"] == {"task": "only-elsewhere", "node": attack.node.node_id}
    attack.wait_for_log("no task is called 'only-elsewhere' on this node (id 'U')", "add it with add_task")
    assert attack.server.state("U") == "SCHEDULED"
    (tmp_path / "elsewhere.py").write_text(
        "from pytask import PyTask, Task\n"
        "app = PyTask()\n"
        "class Elsewhere(Task):\n"
        "    NAME = 'only-elsewhere'\n"
        "    def start(self):\n"
        "        return self.attempt\n"
        "class Echo(Task):\n"
        "    NAME = 'echo'\n"
        "    def __init__(self, **data):\n"
        "        self.data = data\n"
        "    def start(self):\n"
        "        return self.data\n"
        "app.add_tasks(Elsewhere, Echo)\n"
    )
    attack.start("--path", str(tmp_path), app="elsewhere:app")
    assert attack.ends("U", "SUCCESS") == "1"


@row("an unknown task name that no node knows for `unknown_wait`")
def test_a_task_that_no_node_knows_ends_as_exception(attack):
    attack.start(unknown_wait="2")
    began = time.monotonic()
    attack.create("U", "nobody")
    attack.events.wait_for("U", "unknown")
    attack.ends("U", "EXCEPTION", "no node knew the task 'nobody' for 2 s", "add_task")
    assert time.monotonic() - began > 1.8
    attack.wait_for_log("task 'nobody' (id 'U') ended as EXCEPTION", "no node knew the task")
    assert attack.events.names("U")[0] == "running"
    assert sum("no task is called" in line for line in attack.lines()) == 1


@row("an empty task name, one that is not UTF-8, one of 5 MB")
def test_a_name_that_no_task_can_have_is_an_unknown_name(attack):
    attack.start(unknown_wait="1")
    before = attack.server.redis.info("stats")["total_net_output_bytes"]
    for task_id, name in {"E": b"", "B": b"\xff\xfe", "N": b"echo\n", "L": b"x" * 5_000_000}.items():
        attack.write(task_id, name)
    attack.push("E", "B", "N", "L")
    for task_id in "EBNL":
        attack.ends(task_id, "EXCEPTION", "no node knew the task")
    sent = attack.server.redis.info("stats")["total_net_output_bytes"] - before
    assert sent < 4_000_000, "the whole name goes over the wire at each look"


# The field `data`.


@row("`data` is missing or empty")
def test_a_task_without_data_runs_without_arguments(attack):
    attack.start()
    all_end(attack, [None, b"", b"{}", b" { } "], "SUCCESS", "{}")


def all_end(attack: Attack, data: list[bytes | None], state: str, text: str) -> None:
    """A task for each data; all of them end so, with the text in the output, and the log tells of each."""
    ids = [f"D{n}" for n in range(len(data))]
    for task_id, value in zip(ids, data, strict=True):
        attack.write(task_id, "echo", value)
    attack.push(*ids)
    for task_id in ids:
        attack.ends(task_id, state, text)
        if state != "SUCCESS":
            attack.wait_for_log(f"task 'echo' (id '{task_id}') ended as {state}")


@row("`data` is not JSON")
def test_data_that_is_not_json_ends_as_error(attack):
    attack.start()
    bad = [b"{", b"{'a': 1}", b"{} {}", b"nonsense", b" ", b"\xef\xbb\xbf{}", b'{"a": 01}', b'{"a": -}']
    all_end(attack, bad, "ERROR", "the field 'data' is not JSON: ")


@row("`data` holds NaN, Infinity or -Infinity")
def test_a_number_that_json_does_not_know_ends_as_error(attack):
    attack.start()
    for number in ("NaN", "Infinity", "-Infinity"):
        attack.create(number, "echo", f'{{"a": [{number}]}}'.encode())
        attack.ends(number, "ERROR", f"the field 'data' {number} is not JSON")


@row("`data` holds a number that is too large to be one: `1e400`, or 5,000 digits")
def test_a_number_that_overflows_ends_as_error(attack):
    attack.start()
    digits = b"1" * 5000
    bad = [b'{"a": 1e400}', b'{"a": [-1e400]}', b'{"a": %s}' % digits, b'{"a": %s.0}' % digits]
    all_end(attack, bad, "ERROR", "the field 'data'")


@row("`data` is JSON and not an object")
def test_data_that_is_not_an_object_ends_as_error(attack):
    attack.start()
    kinds = {b"[1]": "an array", b'"x"': "a string", b"1": "a number", b"true": "a boolean", b"null": "null"}
    for number, (data, kind) in enumerate(kinds.items()):
        attack.create(f"D{number}", "echo", data)
        attack.ends(f"D{number}", "ERROR", f"the field 'data' is not a JSON object but {kind}")


@row("`data` is not UTF-8")
def test_data_that_is_not_utf8_ends_as_error(attack):
    attack.start()
    bad = [b'{"a": "\xff"}', b"\x00\xff", '{"a": 1}'.encode("utf-16")]
    all_end(attack, bad, "ERROR", "the field 'data' is not UTF-8 (byte ")


@row("`data` is nested 2,000 deep")
def test_data_that_is_nested_too_deep_ends_as_error(attack):
    attack.start(max_data="10000000")
    bad = [b'{"a":' + b"[" * depth + b"]" * depth + b"}" for depth in (2_000, 500_000)]
    bad += [b'{"a":' * depth + b"1" + b"}" * depth for depth in (2_000, 500_000)]
    all_end(attack, bad, "ERROR", "the field 'data' is nested too deep")


@row("`data` holds 5,000 brackets in a string")
def test_brackets_in_a_string_are_not_depth(attack):
    attack.start()
    attack.create("D", "echo", {"text": "[{" * 2_500})
    attack.ends("D", "SUCCESS", "[{[{")


@row("`data` has 20 MB, or one byte more than `max_data`")
def test_data_above_the_limit_ends_as_error_and_is_not_read(attack):
    attack.start()
    before = attack.server.redis.info("stats")["total_net_output_bytes"]
    for size in (1_048_577, 20_000_000):
        attack.create(f"D{size}", "echo", b'{"a": "' + b"x" * (size - 9) + b'"}')
        text = f"the field 'data' has {size} bytes; the limit (max_data) is 1048576"
        assert attack.ends(f"D{size}", "ERROR") == text
    assert attack.server.redis.info("stats")["total_net_output_bytes"] - before < 1_000_000


@row("`data` has exactly `max_data` bytes")
def test_data_of_the_limit_runs(attack):
    attack.start(max_data="2000000")
    attack.create("D", "echo", b'{"a":"' + b"x" * (2_000_000 - 8) + b'"}')
    assert len(attack.ends("D", "SUCCESS")) == 2_000_000


@row("`data` holds a lone surrogate (`\\ud800`)")
def test_a_lone_surrogate_reaches_the_task_and_cannot_be_its_output(attack):
    attack.start()
    attack.create("D", "echo", b'{"a": "\\ud800"}')
    attack.ends("D", "EXCEPTION", "what start() returned cannot be written as JSON")
    attack.create("E", "fail", b'{"message": "\\ud800"}')
    assert attack.ends("E", "ERROR") == "\\ud800"


UNFIT = [
    ("noop", {"wrong": 1}, "got an unexpected keyword argument 'wrong'"),
    ("loop", {"text": "a", "more": 1}, "got an unexpected keyword argument 'more'"),
    ("returns", {}, "missing a required argument: 'what'"),
    ("noop", {"": 1}, "got an unexpected keyword argument ''"),
    ("noop", {"x" * 100_000: 1}, "got an unexpected keyword argument 'xxx"),
    ("noop", {"self": 1}, "'self'"),
    ("echo", {"self": 1}, "'self'"),
]


@row("`data` has arguments that the task does not take, or lacks one that it needs")
def test_arguments_that_do_not_fit_end_as_error(attack):
    attack.start()
    for number, (task, data, text) in enumerate(UNFIT):
        attack.create(f"D{number}", task, data)
        output = attack.ends(f"D{number}", "ERROR", f"the field 'data' does not fit {task}: ", text)
        assert len(output) < 17_000
        attack.wait_for_log(f"task '{task}' (id 'D{number}') ended as ERROR", "does not fit")


@row("`data` has 100,000 keys, or one key twice")
def test_many_keys_reach_the_task_and_of_equal_ones_the_last(attack):
    attack.start(max_data="4000000")
    attack.write("D", "echo", {f"k{n}": n for n in range(100_000)})
    attack.write("E", "echo", b'{"a": 1, "a": 2}')
    attack.push("D", "E")
    assert json.loads(attack.ends("D", "SUCCESS"))["k99999"] == 99_999
    assert attack.ends("E", "SUCCESS") == '{"a":2}'
