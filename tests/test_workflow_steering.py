"""How a workflow is steered: its scripts, what is repaired, what becomes of its records, and hostile keys."""

from __future__ import annotations

import contextlib
import signal
import time
from types import SimpleNamespace

import pytest
from chaos import points
from conftest import ON_ONE_SERVER, wait_until

from pytask import PyTask, group, step
from pytask.store.addresses import resolve_target
from pytask.store.store import Store
from pytask.store.workflows import Noted, Opened
from pytask.tasks.sweep import Sweep


@pytest.fixture
def node(start_node):
    return start_node()


@pytest.fixture
def store(server):
    made = Store(resolve_target(server.url))
    yield made
    made.close()


def keys_of(server, handle):
    """What is stored of a workflow and its tasks, but for the lists of what has ended."""
    return [key for key in server.redis.keys("*") if handle.encode() in key and b"ended" not in key]


def states_of(handle):
    return {row["name"]: row["state"] for row in handle.tasks()}


def rows_of(store, workflow=b"W"):
    return {name: noted.state for found in store.workflows.iter_tasks(workflow) for name, noted in found.items()}


def noted(gate=None, feeds=(), when="on_success", allow_failure=False):
    return Noted("HELD", when, allow_failure, gate, feeds)


def lay_out(store, tasks, gates=(), **fields):
    store.workflows.lay_out(b"W", tasks, gates, {"total": len(tasks), "queue": "mail", **fields})


def step_of(store, *ends):
    rows = [(name.encode(), state.encode()) for name, state in ends]
    return store.workflows.step({b"W": rows})[b"W"]


# The scripts.


def test_what_is_laid_out_is_not_undone_by_a_late_repeat(store, server):
    tasks = {"a": noted(feeds=(0,)), "b": noted(gate=0)}
    lay_out(store, tasks, [("row", 1)], title="T")
    assert step_of(store, ("a", "SUCCESS")) == [b"wake", b"mail"]
    before = {key: server.redis.dump(key) for key in server.redis.keys("*")}
    lay_out(store, tasks, [("row", 1)], title="another")
    assert {key: server.redis.dump(key) for key in server.redis.keys("*")} == before
    assert store.workflows.get_noted(b"W", ["a", "b", "c"]) == [
        Noted("SUCCESS", "on_success", False, None, (0,)),
        tasks["b"],
        None,
    ]


def test_a_step_counts_each_end_once_and_wakes_until_the_gate_was_seen_to(store):
    lay_out(store, {"a": noted(feeds=(0,)), "b": noted(feeds=(0,)), "c": noted(gate=0)}, [("row", 2)])
    assert step_of(store, ("a", "SUCCESS")) == [b"ok", b"mail"]
    assert step_of(store, ("a", "ERROR")) == [b"ok", b"mail"]
    assert store.workflows.get_ready(b"W", 9) == []
    assert step_of(store, ("b", "SUCCESS"), ("b", "SUCCESS")) == [b"wake", b"mail"]
    assert store.workflows.get_ready(b"W", 9) == [Opened(0, b"row", False)]
    assert step_of(store, ("b", "SUCCESS")) == [b"wake", b"mail"]
    store.workflows.drop_ready(b"W", 0)
    assert step_of(store, ("b", "SUCCESS")) == [b"ok", b"mail"]
    assert step_of(store, ("c", "SKIPPED")) == [b"wake", b"mail"]
    found = store.workflows.get(b"W")
    assert (found[b"done"], found[b"failed"], found[b"SUCCESS"], found[b"SKIPPED"]) == (b"3", b"0", b"2", b"1")


@pytest.mark.parametrize("state", ["ERROR", "EXCEPTION", "TIMEOUT", "EXPIRED", "LOST", "STOPPED"])
def test_a_failure_goes_on_along_the_gates_unless_it_is_allowed(store, state):
    tasks = {"a": noted(feeds=(0,)), "b": noted(gate=0, feeds=(1,)), "c": noted(gate=1), "d": noted(feeds=(2,)),
             "e": noted(feeds=(3,), allow_failure=True), "f": noted(gate=3), "g": noted(gate=2)}  # fmt: skip
    lay_out(store, tasks, [("one", 1), ("two", 1), ("three", 1), ("four", 1)])
    step_of(store, ("a", state), ("b", "SUCCESS"), ("d", "SUCCESS"), ("e", state))
    assert {row: failed for _, row, failed in store.workflows.get_ready(b"W", 9)} == {
        b"one": True, b"two": True, b"three": False, b"four": False,
    }  # fmt: skip
    assert store.workflows.get(b"W")[b"failed"] == b"1"


def test_one_task_opens_more_gates_than_a_command_takes_words(store):
    gates = range(10_000)
    lay_out(store, {"a": noted(feeds=gates)}, [("row", 1)] * len(gates))
    assert step_of(store, ("a", "SUCCESS")) == [b"wake", b"mail"]
    assert [opened.number for opened in store.workflows.get_ready(b"W", 20_000)] == list(gates)
    assert not any(failed for _, failed in store.workflows.get_decided(b"W", gates))


def test_a_step_of_what_is_no_end_or_no_task_changes_nothing(store):
    lay_out(store, {"a": noted()})
    assert step_of(store, ("a", "RUNNING"), ("a", "RETRY"), ("b", "SUCCESS")) == [b"ok", b"mail"]
    assert rows_of(store) == {"a": "HELD"}


def test_a_step_of_a_workflow_that_is_not_there(store, server):
    assert step_of(store, ("a", "SUCCESS")) == [b"gone"]
    server.redis.set("workflow-W", "no hash")
    assert step_of(store, ("a", "SUCCESS")) == [b"gone"]
    server.redis.delete("workflow-W")
    lay_out(store, {"a": noted()})
    for key in ("tasks", "open", "ready"):
        server.redis.rename("{workflow-W}:" + key, "aside") if key == "tasks" else None
        server.redis.set("{workflow-W}:" + key, "of another type")
        assert step_of(store, ("a", "SUCCESS")) == [b"gone"]
        server.redis.delete("{workflow-W}:" + key)
        server.redis.rename("aside", "{workflow-W}:tasks") if key == "tasks" else None
    assert step_of(store, ("a", "SUCCESS")) == [b"wake", b"mail"]


def test_a_held_task_waits_once_its_turn_has_come(store, server):
    server.redis.hset("task-a", mapping={"task": "noop", "state": "HELD", "queue": "mail"})
    server.redis.hset("task-b", mapping={"task": "noop", "state": "RUNNING"})
    server.redis.hset("task-c", mapping={"task": "pytask/workflow", "state": "HELD", "fence": "5"})
    server.redis.set("task-e", "no hash")
    ids = [b"a", b"b", b"c", b"d", b"e"]
    answers = [[b"WAIT", b"mail"], [b"RUNNING", b""], [b"HELD", b""], [b"missing"], [b"missing"]]
    assert store.workflows.unhold(ids) == answers
    assert store.workflows.unhold(ids) == answers
    assert server.state("a") == "WAIT"


def test_only_what_was_never_begun_is_skipped(store, server):
    fields = {
        "a": {"state": "HELD"},
        "b": {"state": "WAIT"},
        "c": {"state": "SCHEDULED", "due": "9e9"},
        "d": {"state": "RUNNING", "fence": "5", "attempt": "1"},
        "e": {"state": "RETRY", "fence": "5", "attempt": "1"},
        "f": {"state": "HELD", "fence": "5"},
        "g": {"state": "SCHEDULED", "limits": "max-noop 1"},
        "h": {"state": "SUCCESS"},
        "i": {"state": "WAIT", "fence": "5", "attempt": "0"},
        "j": {"state": "WAIT", "fence": "5", "attempt": "0", "task": "pytask/workflow"},
    }
    for name, own in fields.items():
        server.redis.hset(f"task-{name}", mapping={"task": "noop", **own})
    ids = [name.encode() for name in fields]
    before = {name: own["state"] for name, own in fields.items()}

    def skipped(**how):
        answers = store.workflows.skip(ids, 'a "reason"', **how)
        return {name: answer[0].decode() for name, answer in zip(fields, answers, strict=True)}

    assert skipped() == {**before, "a": "SKIPPED"}
    waiting = {**before, **dict.fromkeys("abci", "SKIPPED")}
    assert skipped(waiting=True) == waiting
    assert skipped(waiting=True) == waiting
    assert server.field("a", "output") == 'a "reason"'
    assert float(server.field("b", "ended")) > 0


def test_what_ended_without_a_claim_is_entered_once(store, server):
    for _ in range(2):
        store.workflows.note_ended("mail", [b"a", b"b"], "SKIPPED", 3)
    store.workflows.note_ended("mail", [b"c", b"d"], "SKIPPED", 3)
    assert server.redis.zrange("{new-task:mail}:ended", 0, -1) == [b"b", b"c", b"d"]
    assert server.redis.hgetall("{new-task:mail}:counts") == {b"SKIPPED": b"4"}
    store.workflows.note_ended("other", [b"a"], "SKIPPED", 0)
    assert not server.redis.exists("{new-task:other}:ended")


# What is repaired.


def wake(store, server, workflow="W"):
    """As the sweep does where a workflow has not moved for a while."""
    store.workflows.ask_for_check(workflow.encode())
    server.redis.lpush("new-task", workflow)


def test_an_end_that_the_workflow_never_heard_of_is_found(app, node, store, server):
    handle = app.start_workflow([[step("noop", queue="nobody")] * 2, ["noop"]], workflow_id="W")
    wait_until(lambda: server.redis.llen("new-task:nobody") == 2 and server.state("W") == "HELD")
    for name, state in (("0", "STOPPED"), ("1", "SUCCESS")):  # as their records say; no word of it to the workflow
        server.redis.hset(f"task-W:{name}", "state", state)
    assert handle.state() == "RUNNING"
    wake(store, server)
    assert handle.wait(20) == "ERROR"
    assert states_of(handle) == {"0": "STOPPED", "1": "SUCCESS", "2": "SKIPPED"}


def test_a_task_whose_record_was_removed_counts_as_lost(app, node, store, server):
    handle = app.start_workflow([["loop"], ["noop"]], workflow_id="W")
    wait_until(lambda: states_of(handle)["0"] == "RUNNING")
    server.redis.delete("task-W:0")
    wake(store, server)
    assert handle.wait(20) == "ERROR"
    assert server.field("W", "output") == "1 of 2 tasks failed: 0 (LOST)"
    assert states_of(handle)["1"] == "SKIPPED"


def test_a_gate_that_opened_and_was_forgotten_is_seen_to(app, node, store, server):
    handle = app.start_workflow([["noop"], ["noop"]], workflow_id="W", delay=3600)
    server.wait_for_state("W", "SCHEDULED")
    gates = [('{"needs":1,"after":["0"],"tasks":["1"]}', 1)]
    fields = {"state": "RUNNING", "made": 1, "last": '{"needs":1,"after":["1"],"tasks":[]}', "returns": "list"}
    lay_out(store, {"0": noted(feeds=(0,)), "1": noted(gate=0)}, gates, **fields, queue="")
    server.redis.hset("task-W:1", mapping={"task": "noop", "data": "{}", "state": "HELD", "workflow": "W"})
    step_of(store, ("0", "SUCCESS"))
    server.redis.delete("{workflow-W}:ready")
    store.workflows.ask_for_check(b"W")
    server.redis.hset("task-W", mapping={"state": "WAIT", "due": 0})
    server.redis.lpush("new-task", "W")
    assert handle.get(20) == [None]


def test_a_server_that_takes_no_writes_for_a_while_ends_no_workflow(app, start_node, server):
    start_node(node_timeout="30")
    handle = app.start_workflow([["noop"] * 6000, ["noop"]])
    wait_until(lambda: server.redis.exists(f"task-{handle}:500"))
    server.redis.config_set("maxmemory", 1)
    try:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 6.5, "longer than helpers try again")
        assert handle.state() == "RUNNING"
    finally:
        server.redis.config_set("maxmemory", 0)
    assert handle.wait(60) == "SUCCESS"


def sweep_of(app):
    """A sweep as a node runs it."""
    sweep = Sweep.__new__(Sweep)
    sweep._context = SimpleNamespace(helpers=app.helpers, id="pytask/sweep@here")
    sweep.__init__()
    sweep._sleep = lambda _seconds: None  # which would ask for the lease that a node may have
    return sweep


def test_the_sweep_wakes_workflows_that_have_not_moved_for_a_while(app, server, store):
    for name, touched in (("W", 1), ("moves", 9e9)):
        app.start_workflow([["noop"]], workflow_id=name)
        store.workflows.enter(name.encode())
        store.workflows.set(name.encode(), touched=touched, queue="mail")
    sweep_of(app)._wake_workflows()
    assert server.redis.lrange("new-task:mail", 0, -1) == [b"W"]
    sweep_of(app)._wake_workflows()  # a moment later it has been asked already
    assert server.redis.llen("new-task:mail") == 1


def test_the_sweep_removes_what_is_left_of_a_workflow_whose_record_was_removed(app, node, server, store):
    handle = app.start_workflow([["loop"], ["noop"]], workflow_id="W")
    wait_until(lambda: states_of(handle)["0"] == "RUNNING")
    server.redis.delete("task-W")
    store.workflows.set(b"W", touched="soon")  # and somebody has written what is no time
    sweep_of(app)._wake_workflows()
    wait_until(lambda: [key for key in server.redis.keys("*") if b"W" in key and b"claims" not in key] == [])


# What becomes of its records.


def test_a_cleanup_that_dies_in_the_midst_of_a_workflow_leaves_it_to_the_next(app, start_node, server, store):
    node = start_node(cleanup_local="false")
    handle = app.start_workflow([["noop", group(["noop"])]])
    assert handle.wait(20) == "SUCCESS"
    server.wait_until_idle()
    assert node.terminate() == 0
    ttls = dict.fromkeys(("SUCCESS", "ERROR"), 0.0)
    let_expire = store.workflows.let_expire
    for dies in (True, False):
        store.workflows.let_expire = None if dies else let_expire
        with contextlib.suppress(TypeError):
            store.expiry.let_expire([handle.encode()], ttls)
    wait_until(lambda: keys_of(server, handle) == [])


@ON_ONE_SERVER
def test_a_workflow_that_is_cut_short_leaves_nothing_behind_and_can_be_restarted(app, start_node, server, store):
    start_node(failure_ttl="4", result_ttl="4")
    stages = [[("pause", {"seconds": 1}), "noop"], ["noop"], ["noop"]]
    handle = app.start_workflow(stages, workflow_id="W")
    wait_until(lambda: server.state("W:0") == "RUNNING" and server.state("W") == "HELD")
    server.redis.rename("{workflow-W}:gates", "aside")
    server.redis.set("{workflow-W}:gates", "no hash")
    assert handle.wait(20) == "EXCEPTION"
    wait_until(lambda: server.field("W:2", "output") == "its workflow could not go on")
    server.redis.delete("{workflow-W}:gates", "aside")
    handle.restart()
    assert handle.wait(20) == "SUCCESS"
    wait_until(lambda: keys_of_W(server) == [] or set(keys_of_W(server)) == {b"{workflow-W}:aside"})


def test_the_sweep_closes_workflows_whose_task_has_ended_and_leaves_those_that_wait_for_their_time(
    app, server, store
):
    for name, state in (("stopped", "STOPPED"), ("cut", "LOST"), ("later", "SCHEDULED"), ("held", "HELD")):
        app.start_workflow([["noop"], ["noop"]], workflow_id=name)
        server.redis.delete("new-task")
        server.redis.hset(f"task-{name}", "state", state)
    store.workflows.lay_out(b"cut", {"1": noted(gate=0)}, [("row", 1)], {"state": "RUNNING", "queue": ""})
    server.redis.hset("task-cut:1", mapping={"task": "noop", "state": "HELD", "workflow": "cut"})
    for _ in range(2):
        sweep_of(app)._wake_workflows()
    assert server.redis.lrange("new-task", 0, -1) == [b"held"]
    assert set(server.redis.zrange("workflows", 0, -1)) == {b"later", b"held"}
    assert server.state("cut:1") == "SKIPPED"
    assert set(server.redis.keys("workflow-*")) == {b"workflow-cut", b"workflow-held"}


def test_nothing_comes_back_of_a_workflow_that_is_removed_while_its_tasks_are_made(app, start_node, server, store):
    node = start_node()
    for key in ("{workflow-W}:tasks", "workflow-W", "task-W:0", "task-W:2000", "task-W:5500"):
        handle = app.start_workflow([["noop"] * 3000, ["noop"] * 3000], workflow_id="W")
        wait_until(lambda key=key: server.redis.exists(key))
        node.signal(signal.SIGSTOP)
        store.expiry.remove_workflow(handle.encode())
        node.signal(signal.SIGCONT)
        server.wait_until_idle()
        # a run that takes long to remove what it has made is left behind, and goes on with that
        wait_until(lambda: keys_of_W(server) == [], "all of it is gone")


NOTES_FOR_EVER = """
from gevent import sleep
from pytask.store.workflows import Workflows
def note(self, workflow, **fields):
    self.client.execute("SET", "reached", 1)
    sleep(600)
Workflows.note = note
"""


def test_nothing_comes_back_of_a_workflow_that_is_removed_at_its_last_word(app, start_node, server):
    """Its node finds out that the record is gone, and ends the run, just when all its tasks have been made."""
    start_node(changes=NOTES_FOR_EVER, local_tasks="false")  # its Sweep would find what is left
    app.start_workflow([["noop"], ["noop"]], workflow_id="W")
    wait_until(lambda: server.redis.exists("reached"))
    server.redis.delete("task-W", "workflow-W")
    wait_until(lambda: keys_of_W(server) == [])


def keys_of_W(server):
    """What is stored of the workflow W."""
    return [key for key in server.redis.scan_iter("*", count=10_000) if b"W" in key]


def test_a_stop_that_is_heard_late_makes_no_record_and_undoes_no_restart(store, server):
    assert store.records.want_stop(b"gone", b"5") is False
    server.redis.set("task-text", "no hash")
    assert store.records.want_stop(b"text", b"5") is False
    for state, fence, noted in (
        ("RUNNING", 5, True), ("HELD", 5, True), ("WAIT", 5, False), ("RUNNING", 6, False), ("STOPPED", 5, False),
    ):  # fmt: skip
        server.redis.hset("task-W", mapping={"task": "pytask/workflow", "state": state, "fence": fence})
        assert store.records.want_stop(b"W", b"5") is noted
        assert server.redis.hdel("task-W", "control") == noted
    for seconds, noted in ((0, False), (5, True)):  # since a restart, after which it runs
        restarted = {"state": "RUNNING", "fence": 5, "control": f"restarted {time.time() - seconds:.6f}"}
        server.redis.hset("task-W", mapping=restarted)
        assert store.records.want_stop(b"W", b"5") is noted
        assert (server.field("W", "control") == "stop") is noted
    assert sorted(server.redis.keys("*")) == [b"task-W", b"task-text"]


def test_a_published_stop_reaches_a_workflow_between_its_steps(app, start_node, server):
    for _ in range(2):
        start_node()
    handles = [app.start_workflow([["sleep"], [("sleep", {"seconds": 600})], ["noop"]]) for _ in range(4)]
    for handle in handles:
        wait_until(lambda handle=handle: states_of(handle)["1"] == "RUNNING" and server.state(handle) == "HELD")
    wait_until(lambda: not any(h.encode() in server.redis.hgetall("{new-task}:claims") for h in handles))
    for handle in handles:
        server.redis.publish(f"task-{handle}-control", "stop")
        assert handle.wait(20) == "STOPPED"
        assert states_of(handle) == {"0": "SUCCESS", "1": "STOPPED", "2": "SKIPPED"}


def test_a_published_stop_that_is_not_believed_soon_after_a_restart_is_so_later(app, node, server):
    handle = app.start_workflow([[("sleep", {"seconds": 600})], ["noop"]])
    for _ in range(2):
        wait_until(lambda: states_of(handle)["0"] == "RUNNING" and server.state(handle) == "HELD")
        wait_until(
            lambda: server.redis.publish(f"task-{handle}-control", "stop") and server.state(handle) == "STOPPED",
            "it is stopped in the end",
        )
        handle.restart()


def test_a_step_that_comes_late_leaves_nothing_of_a_removed_workflow(store, server):
    lay_out(store, {"a": noted()})
    assert store.workflows.note(b"W", made=1) is True
    store.expiry.remove_workflow(b"W")
    with server.redis.pipeline() as transaction:
        transaction.watch("workflow-W")
        assert store.workflows.note(b"W", made=1) is False
        transaction.multi()
        transaction.ping()
        assert transaction.execute() == [True], "not even for a moment, in which its writer might die"
    store.workflows.forget_check(b"W")
    assert server.redis.keys("*") == []


STOPS_LATE = """
def reach(name):
    if name == "before-finish":
        app.redis.hset("task-W", "control", "stop")
points.reach = reach
"""


def test_a_stop_that_comes_when_its_run_is_about_to_end_is_obeyed(app, start_node, server):
    """Whoever asks finds it RUNNING, and its node hears the message when the run is gone."""
    start_node(changes=STOPS_LATE)
    handle = app.start_workflow([[("sleep", {"seconds": 600})], ["noop"]], workflow_id="W")
    assert handle.wait(20) == "STOPPED"
    assert states_of(handle) == {"0": "STOPPED", "1": "SKIPPED"}
    server.wait_until_idle()
    assert int(server.field("W", "attempt")) <= 5, "it is not pushed for ever"


IS_HELD_UP = """
import time
def reach(name):
    if name == "in-workflow" and app.redis.exists("hold"):
        app.redis.set("hold", "held")
        time.sleep(60)
points.reach = reach
"""


def test_a_stop_of_a_workflow_that_its_node_puts_back_stops_its_tasks(app, start_node, server):
    """Its second run is held up until its node ends, and a stop comes meanwhile."""
    first = start_node("--grace", "0.1", changes=IS_HELD_UP)
    tasks = [step("noop", name="a"), step("sleep", {"seconds": 600}, name="b", queue="other"),
             step("noop", name="c", after="a"), step("noop", name="d", after="b")]  # fmt: skip
    start_node("-q", "other")
    server.redis.set("hold", "now")
    handle = app.start_workflow(tasks, workflow_id="W")
    wait_until(lambda: server.redis.get("hold") == b"held" and server.state("W:b") == "RUNNING")
    server.redis.hset("task-W", "control", "stop")
    server.redis.delete("hold")
    assert first.terminate() == 1
    start_node()
    assert handle.wait(20) == "STOPPED"
    assert states_of(handle)["b"] == "STOPPED"
    assert states_of(handle)["d"] == "SKIPPED"


def test_the_tasks_of_a_workflow_that_was_stopped_before_it_began_are_skipped(app, server, start_node):
    handle = app.start_workflow([["noop"], ["noop"]])
    assert states_of(handle) == {"0": "HELD", "1": "HELD"}
    assert handle.stop() is True
    start_node()
    assert handle.wait(20) == "STOPPED"
    assert states_of(handle) == {"0": "SKIPPED", "1": "SKIPPED"}


def test_a_workflow_that_was_stopped_restarted_and_stopped_again_is_stopped(app, node, server):
    tasks = [step("loop", name="a"), step("loop", name="b", queue="nobody"), step("noop", after="b")]
    handle = app.start_workflow(tasks, workflow_id="W")
    wait_until(lambda: states_of(handle)["a"] == "RUNNING" and server.state("W") == "HELD")
    server.redis.hset("workflow-W", "stops", 1)  # and a was restarted before it had ended
    app.helpers.restart_task("W")
    server.wait_for_state("W", "HELD")
    wait_until(lambda: server.redis.hget("workflow-W", "stops") == b"2")
    assert handle.stop() is True
    assert handle.wait(20) == "STOPPED"


def test_a_workflow_that_is_restarted_while_it_is_stopped_begins_anew_when_its_tasks_have_ended(app, node, server):
    tasks = [step("bad-stop", {"how": "hang"}, name="a"), step("noop", name="b"), step("noop", after=["a", "b"])]
    handle = app.start_workflow(tasks, workflow_id="W")
    wait_until(lambda: states_of(handle)["a"] == "RUNNING" and server.state("W") == "HELD")
    assert handle.stop() is True
    wait_until(lambda: server.redis.hget("workflow-W", "stops") == b"1")
    handle.restart()
    wait_until(lambda: server.redis.hexists("workflow-W", "round"), "it begins anew")
    wait_until(lambda: states_of(handle) == {"a": "RUNNING", "b": "SUCCESS", "2": "HELD"})
    assert server.field("W:b", "round") == server.redis.hget("workflow-W", "round").decode()
    handle.stop()
    assert handle.wait(20) == "STOPPED"


def test_what_its_tasks_of_before_tell_late_is_passed_over_in_the_next_round(store):
    lay_out(store, {"a": noted()})
    store.workflows.reopen(b"W", 7)
    lay_out(store, {"a": noted(feeds=(0,)), "b": noted(gate=0)}, [("row", 1)])
    assert step_of(store, ("a", "SUCCESS"), ("a", "SUCCESS 6")) == [b"ok", b"mail"]
    assert rows_of(store) == {"a": "HELD", "b": "HELD"}
    assert step_of(store, ("a", "SUCCESS 7")) == [b"wake", b"mail"]
    assert rows_of(store) == {"a": "SUCCESS", "b": "HELD"}


def test_a_cleanup_leaves_a_workflow_alone_that_has_begun_anew_meanwhile(store, server):
    """It was restarted after Cleanup had read how its task had ended, under the fence 5."""
    for laid, answer in ((5, True), (6, False)):
        lay_out(store, {"a": noted()}, state="RUNNING", laid=laid)
        server.redis.hset("task-W:a", mapping={"task": "noop", "state": "SUCCESS", "workflow": "W", "round": laid})
        assert store.workflows.cut_off(b"W", b"5") is answer
        assert server.redis.hexists("workflow-W", "cut") is answer
        ttls = {"SUCCESS": 0.0}
        assert store.records.cleanup([b"W:a"], ttls, most=1, fence=b"5") == [(0 if answer else -1, None)]
        store.workflows.let_expire(b"W", 1000, b"5")
        assert (server.redis.ttl("workflow-W") > 0) is answer
        store.workflows.reopen(b"W", laid)
    server.redis.hset("task-W", mapping={"task": "pytask/workflow", "state": "SUCCESS", "fence": 6})
    assert store.records.cleanup([b"W"], ttls, most=2, fence=b"5") == [(-1, None)]
    assert store.records.cleanup([b"W"], ttls, most=2, fence=b"6") == [(0, b"6")]


@pytest.mark.parametrize("how", ["helper", "raw", "raw, counted from 1"])
def test_a_workflow_that_is_restarted_runs_its_tasks_again_however_that_is_said(app, node, server, how):
    handle = app.start_workflow([[("sleep", {"seconds": 0})], ["noop"]], workflow_id="W")
    for turn in (1, 2, 3):
        assert handle.get(20)
        server.wait_until_idle()
        assert server.redis.llen("runs:W:0") == turn
        if how == "helper":
            handle.restart()
        else:
            server.redis.hset("task-W", "state", "WAIT")
            server.redis.hdel("task-W", "control", *(["attempt"] if "from 1" in how else []))
            server.redis.lpush("new-task", "W")
        wait_until(lambda turn=turn: server.redis.llen("runs:W:0") == turn + 1)


@pytest.mark.parametrize("point", ["before-workflow-end", "after-workflow-end"])
def test_a_workflow_whose_node_dies_at_its_end_does_not_begin_anew(app, start_node, server, monkeypatch, point):
    monkeypatch.setenv(points.VARIABLE, f"{point}:1")
    first = start_node(app="scheduleapp:app")
    handle = app.start_workflow([[("note", {"word": "x"})], ["note"]], workflow_id="W")
    assert first.process.wait(20) == -signal.SIGKILL
    monkeypatch.delenv(points.VARIABLE)
    start_node(app="scheduleapp:app")
    assert handle.get(20) == [""]
    server.wait_until_idle()
    assert server.redis.llen("fired:") == 2


def test_the_records_of_its_tasks_stay_until_it_has_ended_and_go_with_it(app, start_node, server):
    start_node(result_ttl="1", failure_ttl="1")
    handle = app.start_workflow(
        [["noop", step("boom", allow_failure=True), group(["noop"])], [("pause", {"seconds": 2})]]
    )
    wait_until(lambda: states_of(handle)["3"] == "RUNNING")
    wait_until(lambda: not server.redis.exists("end-task"))
    assert server.redis.ttl(f"task-{handle}:0") == -1
    assert server.redis.ttl(f"task-{handle}:2:0") == -1
    wait_until(
        lambda: [key for key in server.redis.keys("*") if handle.encode() in key and b"ended" not in key] == []
    )
    wait_until(lambda: app.helpers.count_workflows() == 0)


def test_a_workflow_that_keeps_itself_keeps_its_tasks(app, start_node, server):
    start_node(result_ttl="0")
    handle = app.start_workflow([["noop"]], cleanup=False)
    assert handle.wait(20) == "SUCCESS"
    other = app.helpers.start_task("noop")
    wait_until(lambda: not server.redis.exists(f"task-{other}"), "Cleanup has come by")
    assert server.redis.ttl(f"task-{handle}:0") == server.redis.ttl(f"workflow-{handle}") == -1


def test_a_task_whose_workflow_is_gone_expires_like_any_other(start_node, server):
    start_node(result_ttl="1")
    for name in ("W:0", "other"):  # one of a workflow that is not there, one whose id says nothing of it
        server.redis.hset(f"task-{name}", mapping={"task": "noop", "workflow": "W"})
        server.redis.lpush("new-task", name)
    wait_until(lambda: not server.redis.keys("task-[Wo]*"))
    server.redis.hset("task-{W:0", mapping={"task": "noop", "workflow": "{W"})
    server.redis.lpush("new-task", "{W:0")
    wait_until(lambda: not server.redis.keys("task-{W*"))


def test_a_restarted_workflow_runs_all_of_its_tasks_again(app, node, server):
    handle = app.start_workflow([[("sleep", {"seconds": 0}), "fail"], ["noop"]], workflow_id="W")
    for turn in (1, 2):
        assert handle.wait(20) == "ERROR"
        server.wait_until_idle()
        assert server.redis.llen("runs:W:0") == turn
        assert handle.info()["states"] == {"SUCCESS": 1, "ERROR": 1, "SKIPPED": 1}
        handle.restart()
        wait_until(lambda turn=turn: server.redis.llen("runs:W:0") == turn + 1)


def test_a_node_that_ends_returns_a_workflow_to_the_others(app, start_node, server):
    first = start_node()
    handle = app.start_workflow([[("sleep", {"seconds": 1})] * 20, ["noop"] * 20, ["noop"]])
    wait_until(lambda: states_of(handle)["19"] == "RUNNING")
    start_node()
    assert first.terminate() == 0
    assert handle.wait(30) == "SUCCESS"


# Limits, queues, names.


def test_a_unique_workflow_holds_its_lock_until_its_end(app, node, server):
    spec = {"stages": [[{"task": "pause", "data": {"seconds": 2}}], [{"task": "noop"}]]}
    first = app.helpers.start_task("pytask/workflow", spec, unique="nightly")
    server.wait_for_state(f"{first}:0", "RUNNING")
    server.wait_for_state(first, "HELD")
    assert app.helpers.start_task("pytask/workflow", spec, unique="nightly") == first
    assert first.get(20) == [None]
    server.wait_until_idle()
    assert not server.redis.keys("unique-*")
    assert app.helpers.start_task("pytask/workflow", spec, unique="nightly") != first


def test_a_workflow_of_a_named_queue_is_steered_there_and_its_tasks_run_in_theirs(app, start_node, server):
    start_node("-q", "mail", "-q", "crawl")
    handle = app.start_workflow([[step("noop", queue="crawl")], [step("noop", queue="mail")]], queue="mail")
    assert handle.wait(20) == "SUCCESS"
    wait_until(lambda: server.redis.hgetall("{new-task:mail}:counts") == {b"SUCCESS": b"2"})
    assert server.redis.hgetall("{new-task:crawl}:counts") == {b"SUCCESS": b"1"}


def test_a_stop_of_everything_stops_workflows_before_their_tasks(app, node, server):
    alarm = step("noop", name="alarm", when="on_failure")
    handles = [app.start_workflow([["loop"], [alarm, "noop"]]) for _ in range(3)]
    later = app.start_workflow([["noop"]], delay=3600)
    for handle in handles:
        wait_until(
            lambda handle=handle: server.state(f"{handle}:0") == "RUNNING" and server.state(handle) == "HELD"
        )
    server.wait_for_state(later, "SCHEDULED")
    assert app.helpers.stop_tasks(name="noop") == 0
    assert app.helpers.stop_tasks() >= 4
    for handle in (*handles, later):
        assert handle.wait(20) == "STOPPED"
    assert [states_of(handle) for handle in handles] == [{"0": "STOPPED", "alarm": "SKIPPED", "2": "SKIPPED"}] * 3


def test_what_waits_in_a_queue_that_nobody_serves_is_skipped_by_a_stop(app, node, server):
    handle = app.start_workflow([[step("noop", queue="nobody")], [step("noop", queue="nobody")]])
    wait_until(lambda: server.redis.llen("new-task:nobody") == 1 and server.state(handle) == "HELD")
    assert handle.stop() is True
    assert handle.wait(20) == "STOPPED"
    assert states_of(handle) == {"0": "SKIPPED", "1": "SKIPPED"}
    assert server.redis.hgetall("{new-task:nobody}:counts") == {b"SKIPPED": b"2"}


def test_a_stop_reaches_the_workflows_inside_a_workflow(app, node, server):
    handle = app.start_workflow([[group(["loop", "noop"])], ["noop"]], workflow_id="W")
    wait_until(lambda: server.state("W:0:0") == "RUNNING" and server.state("W:0") == "HELD")
    assert handle.stop() is True
    assert handle.wait(20) == "STOPPED"
    assert server.state("W:0:0") == server.state("W:0") == "STOPPED"


@pytest.mark.parametrize("name", ["a{b", "a}b", "{a}"])
def test_an_id_with_a_brace_is_refused(server, node, name):
    server.create(name, "pytask/workflow", '{"stages": [[{"task": "noop"}]]}')
    server.wait_for_state(name, "ERROR")
    assert "must not have a brace" in server.field(name, "output")


@pytest.mark.parametrize("spec", ['{"chunks": 2}', '{"chunks": 2, "title": "T"}'])
def test_parts_that_are_not_there_or_no_spec_are_told_of(server, node, spec):
    server.create("W", "pytask/workflow", spec)
    server.wait_for_state("W", "ERROR")
    assert server.field("W", "output") == "the parts of its spec are not there"
    server.redis.rpush("{workflow-V}:spec", '{"stages"', ": no json")
    server.create("V", "pytask/workflow", spec)
    server.wait_for_state("V", "ERROR")
    assert "its spec cannot be read" in server.field("V", "output")


def test_outputs_that_are_too_large_together_are_left_to_the_records(start_node, server):
    start_node(max_data="2000")
    with contextlib.closing(PyTask(server.url, max_data=2000)) as app:
        handle = app.start_workflow([[("echo", {"text": "x" * 900})] * 3])
        assert "have more than max_data (2000 bytes)" in handle.get(20)["omitted"]


def test_a_push_of_a_held_task_starts_nothing(app, node, server, events):
    handle = app.start_workflow([[("pause", {"seconds": 2})], ["noop", group(["noop"])]], workflow_id="W")
    wait_until(lambda: states_of(handle)["0"] == "RUNNING")
    server.redis.lpush("new-task", "W:1", "W:2")
    assert events.wait_for("W:1", "ignored")["data"] == {"state": "HELD"}
    assert events.wait_for("W:2", "ignored")["data"] == {"state": "HELD"}
    assert handle.wait(20) == "SUCCESS"


def test_pushing_a_workflow_again_and_again_changes_nothing(app, node, server):
    handle = app.start_workflow([[("sleep", {"seconds": 0.2})] * 3, [("sleep", {"seconds": 0})]], workflow_id="W")
    for _ in range(200):
        server.redis.lpush("new-task", "W")
    assert handle.wait(20) == "SUCCESS"
    server.wait_until_idle()
    assert [server.redis.llen(f"runs:W:{name}") for name in range(4)] == [1, 1, 1, 1]


def test_a_large_workflow_costs_the_server_no_more_for_each_task(app, node, server):
    def calls(tasks):
        before = server.redis.info("commandstats")
        handle = app.start_workflow([["noop"] * tasks, ["noop"]])
        assert handle.wait(60) == "SUCCESS"
        server.wait_until_idle()
        after = server.redis.info("commandstats")
        names = ("cmdstat_hget", "cmdstat_hset", "cmdstat_hmget", "cmdstat_hgetall", "cmdstat_publish")
        return (
            sum(after.get(n, {"calls": 0})["calls"] - before.get(n, {"calls": 0})["calls"] for n in names) / tasks
        )

    calls(10)
    small, large = calls(200), calls(4000)
    assert large < 1.2 * small, f"{small:.1f} and {large:.1f} commands a task"
