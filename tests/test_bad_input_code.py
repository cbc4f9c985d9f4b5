"""Bad input: tasks whose own code misbehaves: what they return and raise, and how they take a stop."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from conftest import ON_ONE_SERVER, Events, Server, StartNode, wait_until
from test_bad_input import Attack, guarded, row


@pytest.fixture
def attack(server: Server, events: Events, start_node: StartNode) -> Iterator[Attack]:
    yield from guarded(server, events, start_node)


# What start() returns.


@row("`start()` returns what JSON cannot hold: an object, a set, bytes, a lone surrogate, a list in itself")
def test_a_result_that_json_cannot_hold_ends_as_exception(attack):
    attack.start()
    for what in ("object", "set", "bytes", "surrogate"):
        attack.create(what, "returns", {"what": what})
        attack.ends(what, "EXCEPTION", "what start() returned cannot be written as JSON")
        attack.wait_for_log(f"task 'returns' (id '{what}') ended as EXCEPTION", "cannot be written as JSON")


@row("`start()` returns what JSON cannot hold: an object, a set, bytes, a lone surrogate, a list in itself")
def test_a_result_that_is_nested_too_deep_ends_as_exception(attack):
    attack.start()
    for depth in (None, 1_500, 100_000):
        attack.create(f"D{depth}", "returns-deep", {"depth": depth})
        attack.ends(f"D{depth}", "EXCEPTION", "what start() returned cannot be written as JSON")


@row("`start()` returns NaN or Infinity")
def test_a_result_that_is_no_number_ends_as_exception(attack):
    attack.start()
    for what in ("nan", "inf"):
        attack.create(what, "returns", {"what": what})
        attack.ends(what, "EXCEPTION", "what start() returned cannot be written as JSON")


@row("`start()` returns 20 MB")
def test_a_result_above_the_limit_ends_as_exception(attack):
    attack.start()
    attack.create("R", "returns", {"what": "large"})
    output = attack.ends("R", "EXCEPTION", "has 20000002 bytes as JSON; the limit (max_data) is 1048576")
    assert len(output) < 17_000


UNSENDABLE = [
    ({"what": "nan"}, "cannot be written as JSON"),
    ({"what": "object"}, "cannot be written as JSON"),
    ({"what": "large"}, "bytes as JSON; the limit (max_data)"),
    ({"event": "success"}, "the event name 'success' belongs to pytask"),
    ({"event": "Running"}, "the event name 'Running' belongs to pytask"),
    ({"event": "a\nb"}, "an event name is 1 to 100 characters"),
    ({"event": ""}, "an event name is 1 to 100 characters"),
    ({"event": {}}, "an event name is 1 to 100 characters"),
    ({"event": 5}, "an event name is 1 to 100 characters"),
]


@row("`emit` with a name or with data that cannot be sent")
def test_an_event_that_cannot_be_sent_raises_in_the_task(attack):
    attack.start()
    for number, (data, text) in enumerate(UNSENDABLE):
        attack.create(f"E{number}", "emits", {"what": "good", **data})
        attack.ends(f"E{number}", "EXCEPTION", text)
        assert attack.events.names(f"E{number}") == ["running", "exception"]


# What is raised.


@row("`__init__` raises")
def test_an_init_that_raises_ends_as_exception(attack):
    attack.start()
    attack.create("I", "bad-init", {"how": "raise"})
    attack.ends("I", "EXCEPTION", "Traceback", "ValueError: in init", "nodeapp.py")
    attack.wait_for_log("task 'bad-init' (id 'I') ended as EXCEPTION: ValueError 'in init'")


@row("`__init__` hangs")
def test_an_init_that_hangs_can_be_stopped(attack):
    attack.start()
    attack.create("I", "bad-init", {"how": "hang"})
    attack.events.wait_for("I", "running")
    attack.stop("I")


@row("`__init__` hangs")
def test_an_init_that_hangs_can_be_reloaded(attack):
    attack.start()
    attack.create("I", "bad-init", {"how": "hang"})
    attack.events.wait_for("I", "running")
    attack.server.redis.hset("task-I", "data", '{"how": "raise"}')
    attack.control("I", "reload")
    attack.ends("I", "EXCEPTION", "ValueError: in init")


@row("`__init__` hangs")
def test_an_init_that_hangs_does_not_hold_the_end_of_the_node_up(attack):
    attack.start("--grace", "0.5")
    attack.create("I", "bad-init", {"how": "hang"})
    attack.events.wait_for("I", "running")
    attack.end(1)
    attack.server.wait_for_state("I", "RUNNING")
    attack.stop("I")


@row("`__init__` exits")
def test_an_init_that_exits_ends_as_exception(attack):
    attack.start()
    attack.create("I", "bad-init", {"how": "exit"})
    attack.ends("I", "EXCEPTION", "SystemExit was raised inside the task; the node goes on", "sys.exit(4)")


@row("`sys.exit()` in a task")
def test_sys_exit_ends_the_task_and_not_the_node(attack):
    attack.start()
    attack.create("X", "exits")
    attack.ends("X", "EXCEPTION", "SystemExit was raised inside the task", "Traceback", "sys.exit(3)")
    attack.wait_for_log("task 'exits' (id 'X') ended as EXCEPTION: SystemExit '3'")


@row("KeyboardInterrupt, SystemExit or GreenletExit raised in a task")
@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit", "GreenletExit"])
def test_what_ends_programs_and_greenlets_ends_the_task_as_exception(attack, kind):
    attack.start()
    attack.create("X", "boom", {"kind": kind})
    attack.ends("X", "EXCEPTION", f"{kind} was raised inside the task; the node goes on", "boom")
    attack.wait_for_log(f"task 'boom' (id 'X') ended as EXCEPTION: {kind} 'boom'")


@row("KeyboardInterrupt, SystemExit or any other error raised in a greenlet that a task made")
@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit", "ValueError"])
def test_what_is_raised_in_a_task_s_own_greenlet_does_not_end_the_node(attack, kind):
    attack.start()
    attack.create("X", "spawns", {"kind": kind, "message": "one\n2026-01-01 two \x1b[31m"})
    attack.ends("X", "SUCCESS")
    attack.wait_for_log(kind)


@row("endless recursion in a task")
def test_endless_recursion_ends_as_exception(attack):
    attack.start()
    attack.create("X", "recurses")
    assert len(attack.ends("X", "EXCEPTION", "RecursionError")) < 17_000


@row("an error whose `__str__` raises, exits or returns no text")
@pytest.mark.parametrize("how", ["raise", "exit", "number"])
def test_an_error_that_cannot_say_its_message_ends_as_exception(attack, how):
    attack.start()
    attack.create("X", "speechless", {"how": how})
    attack.ends("X", "EXCEPTION", "SpeechlessError")


@row("`provide_context()` raises, or its context swallows what `start()` raises")
def test_a_context_that_raises_ends_as_exception_and_one_that_swallows_as_success(attack):
    attack.start()
    attack.write("B", "bad-context")
    attack.write("S", "suppressed")
    attack.push("B", "S")
    attack.ends("B", "EXCEPTION", "ValueError: in provide_context")
    attack.ends("S", "SUCCESS", "null")


# How a task takes a stop.


@ON_ONE_SERVER
@row("a task that swallows GreenletExit is told to stop or reload")
@pytest.mark.parametrize("message", ["stop", "reload"])
def test_a_task_that_swallows_its_end_is_stopped_and_left_behind(attack, message):
    attack.start("--grace", "1")
    attack.create("S", "stubborn")
    attack.events.wait_for("S", "turn")
    attack.control("S", message)
    attack.ends("S", "STOPPED", "stopped by request, but its greenlet did not end: it swallows GreenletExit")
    attack.wait_for_log("task 'stubborn' (id 'S') does not end: it swallows GreenletExit; it is left behind")
    attack.check_innocents()
    names = attack.events.names("S")
    assert "turn" not in names[names.index("stopped") :], "it still speaks"
    attack.end(0)


@ON_ONE_SERVER
@row("a task that swallows GreenletExit when its node ends")
def test_a_task_that_swallows_its_end_does_not_hold_the_end_of_the_node_up(attack):
    attack.start("--grace", "0.5")
    attack.create("S", "stubborn")
    attack.events.wait_for("S", "turn")
    began = time.monotonic()
    attack.end(1)
    assert time.monotonic() - began < 20
    attack.events.wait_for("S", "wait")
    attack.server.wait_for_state("S", "RUNNING")
    attack.control("S", "stop")
    attack.server.wait_for_state("S", "STOPPED")


@row("`stop()` raises or exits")
@pytest.mark.parametrize(
    ("task", "said"),
    [("bad-stop", "ValueError 'in stop'"), ("exits-in-stop", "SystemExit '6'")],
    ids=["raises", "exits"],
)
def test_a_stop_that_raises_stops_the_task_all_the_same(attack, task, said):
    attack.start()
    attack.create("S", task)
    attack.events.wait_for("S", "running")
    attack.stop("S")
    attack.wait_for_log(f"stop() of id 'S' raised {said}")


@ON_ONE_SERVER
@row("`stop()` hangs")
def test_a_stop_that_hangs_stops_the_task_after_five_seconds(attack):
    attack.start()
    attack.create("S", "bad-stop", {"how": "hang"})
    attack.events.wait_for("S", "running")
    began = time.monotonic()
    attack.stop("S")
    assert 4 < time.monotonic() - began < 15
    attack.wait_for_log("stop() of id 'S' took over 5 s")


@ON_ONE_SERVER
@row("`stop()` hangs")
def test_a_stop_that_hangs_does_not_hold_the_end_of_the_node_up(attack):
    attack.start(app="hastyapp:app")
    attack.create("S", "bad-stop", {"how": "hang"})
    attack.events.wait_for("S", "running")
    attack.end(0)
    attack.server.wait_for_state("S", "RUNNING")
    attack.control("S", "stop")
    wait_until(lambda: attack.server.state("S") == "STOPPED")
