"""The sweep from outside: on nodes, one of which does it, and as a command."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import nursery
import pytest
from conftest import ON_ONE_SERVER, wait_until
from moves import A, Broom
from terminal import Terminal

from pytask.cli.sweep import ROWS, report_lines
from pytask.tasks.sweeping import Report

# Nodes.


def sweepers(nodes) -> list:
    return [node for node in nodes if "the sweep has put back" in node.text()]


def lease_of(server) -> str:
    holder = server.redis.get("{new-task}:sweep")
    return holder.decode().partition("@")[2] if holder else ""


FAST = {"sweep_interval": "1", "node_timeout": "2"}


def test_a_node_puts_a_lost_task_back_and_says_so(server, start_node, events):
    node = start_node(**FAST)
    server.redis.hset("task-T", mapping={"task": "echo", "state": "WAIT", "data": '{"n": 1}'})
    server.redis.hset("task-N", mapping={"task": "echo"})
    server.wait_for_state("T", "SUCCESS")
    node.wait_for_log("the sweep has put back what was lost: 1 tasks that were in no queue")
    node.wait_for_log("1 records without a state in no queue")
    task_id = f"pytask/sweep@{node.node_id}"
    told = events.wait_for(task_id, "swept")["data"]
    assert (told["pushed"], told["unpushed"]) == (1, 1)
    wait_until(lambda: (server.field(task_id, "output") or "").count('"unpushed":1'))
    assert 0 < server.redis.ttl(f"task-{task_id}") <= 6
    assert events.names("T") == ["running", "success"]
    assert server.state("N") is None
    assert node.terminate() == 0
    assert not server.redis.exists("{new-task}:sweep", f"task-{task_id}"), "it leaves with its node"


@ON_ONE_SERVER
def test_one_node_sweeps_and_another_takes_over_when_it_dies(server, start_node):
    nodes = [start_node(**FAST) for _ in range(2)]
    first = wait_until(lambda: lease_of(server))
    for n in range(3):
        server.redis.hset(f"task-T{n}", mapping={"task": "noop", "state": "WAIT"})
        server.wait_for_state(f"T{n}", "SUCCESS")
        assert lease_of(server) == first
    (sweeper,) = sweepers(nodes)
    (other,) = [node for node in nodes if node is not sweeper]
    assert sweeper.node_id == first
    sweeper.kill()
    server.redis.hset("task-U", mapping={"task": "noop", "state": "WAIT"})
    server.wait_for_state("U", "SUCCESS", deadline=30)
    other.wait_for_log("the sweep has put back")
    assert lease_of(server) == other.node_id


@ON_ONE_SERVER
@pytest.mark.parametrize("point", ["before-rescue", "after-rescue"])
def test_a_node_that_dies_while_it_puts_back_loses_nothing(server, start_node, point):
    dies = f"points.reach = lambda name: name == {point!r} and os.kill(os.getpid(), signal.SIGKILL)\n"
    first = start_node(changes="import os, signal\n" + dies, **FAST)
    wait_until(lambda: lease_of(server) == first.node_id)
    for n in range(3):
        server.redis.hset(f"task-T{n}", mapping={"task": "sleep", "state": "WAIT"})
    first.wait()
    start_node(**FAST)
    for n in range(3):
        server.wait_for_state(f"T{n}", "SUCCESS", deadline=30)
        assert server.redis.llen(f"runs:T{n}") == 1
    server.wait_until_idle()


@ON_ONE_SERVER
def test_a_busy_system_is_left_alone(server, start_node, app, events):
    """Sweeps back to back, without a pause between their looks: what moves is never taken for lost."""
    nodes = [start_node(sweep_interval="0", node_timeout="5") for _ in range(2)]
    broom = Broom(server)
    broom.redis.hdel(broom.keys.nodes, A)
    ids = [f"t{n}" for n in range(2000)]
    app.helpers.start_tasks([("sleep", {"seconds": 0.02 * (n % 40)}, task_id) for n, task_id in enumerate(ids)])
    for n in range(0, 2000, 4):  # as a restart would leave them
        server.redis.hsetnx(f"task-t{n}", "state", "WAIT")
    passes, seen = 0, 0
    while passes < 3 or server.redis.zcard("{new-task}:ended") < len(ids):
        report = broom.sweep()
        passes, seen = passes + 1, seen + report.seen
        assert report.repaired == 0, report
        assert not report.refused
    server.wait_until_idle()
    assert passes >= 5
    assert seen >= 5 * len(ids)
    assert broom.sweep().unpushed == 0
    assert all(server.redis.llen(f"runs:{task_id}") == 1 for task_id in ids)
    events.read()
    assert not [data for _, data in events.seen if b'"ignored"' in data]
    broom.close()
    assert all(node.terminate() == 0 for node in nodes)


def test_an_interval_of_0_starts_no_sweep(server, start_node):
    node = start_node(sweep_interval="0")
    assert "pytask/sweep" not in node.text()


@ON_ONE_SERVER
def test_a_run_whose_claim_was_lost_takes_it_again_and_is_not_run_twice(server, start_node):
    start_node(**FAST)
    server.create("T", "sleep", '{"seconds": 8}')
    wait_until(lambda: server.redis.llen("runs:T"))
    server.redis.delete("{new-task}:claims", *server.redis.keys("{new-task}:of:*"))
    server.wait_for_state("T", "SUCCESS", deadline=30)
    assert server.redis.llen("runs:T") == 1


@ON_ONE_SERVER
def test_what_was_claimed_is_run_again_where_the_whole_slot_of_the_queue_is_lost(server, start_node):
    """Nodes come back under new ids; what waited with a state, ran, or was parked goes on."""
    start_node(**FAST)
    server.create("R", "sleep", '{"seconds": 4}')
    server.create("P", "noop", due=str(time.time() + 4))
    server.wait_for_state("R", "RUNNING")
    server.wait_for_state("P", "SCHEDULED")
    server.redis.hset("task-W", mapping={"task": "noop", "state": "WAIT"})
    server.redis.delete("new-task", *server.redis.keys("{new-task}:*"))
    for task_id in "RPW":
        server.wait_for_state(task_id, "SUCCESS", deadline=40)
    assert float(server.field("P", "started")) >= float(server.field("P", "due"))
    server.wait_until_idle()


# The command.


def sweep(server, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    ran = nursery.run(["sweep", "-u", server.url, *options])
    assert ran.returncode == status, (ran.stdout, ran.stderr)
    return ran


def test_the_command_puts_back_and_prints_a_table(server):
    server.redis.hset("task-T", mapping={"task": "noop", "state": "WAIT"})
    server.redis.hset("task-N", mapping={"task": "noop"})
    dry = sweep(server, "--dry-run", "--pause", "0").stdout.splitlines()
    assert not server.redis.exists("new-task")
    wet = sweep(server, "--pause", "0.2").stdout.splitlines()
    assert dry[0] == wet[0] == "records: 2, queues: 1"
    assert dry[1].split() == ["found", "what", "would", "be"]
    assert wet[2].split() == ["1", "tasks", "in", "no", "queue", "pushed"]
    assert wet[-1].split() == ["1", "records", "without", "a", "state", "in", "no", "queue", "as", "they", "were"]
    assert dry[2:] == wet[2:]
    assert server.redis.lrange("new-task", 0, -1) == [b"T"]
    assert sweep(server, "--pause", "0").stdout.count("pushed") == 0


def test_the_command_prints_json_for_programs(server):
    server.redis.set("new-task:odd\n", "x")
    server.redis.set("new-task:odd", "x")
    server.redis.hset("task-T", mapping={"task": "noop", "state": "WAIT", "queue": "odd"})
    server.redis.hset("task-U", mapping={"task": "noop", "state": "WAIT"})
    report = json.loads(sweep(server, "--json", "--pause", "0").stdout)
    assert report["dry_run"] is False
    assert (report["pushed"], report["seen"]) == (1, 2)
    assert "WRONGTYPE" in report["refused"]["odd"]
    assert "queue odd cannot be read" in sweep(server, "--pause", "0").stderr


@ON_ONE_SERVER
def test_the_command_waits_as_long_as_the_nodes_would(server, monkeypatch):
    monkeypatch.setenv("PYTASK_NODE_TIMEOUT", "2")
    server.redis.hset("task-T", mapping={"task": "noop", "state": "WAIT"})
    began = time.monotonic()
    sweep(server)
    assert time.monotonic() - began > 3


def test_the_command_serves_one_namespace(server):
    server.redis.hset("shop:task-T", mapping={"task": "noop", "state": "WAIT"})
    assert "records: 0" in sweep(server, "--pause", "0").stdout
    assert "records: 1" in sweep(server, "--pause", "0", "--namespace", "shop").stdout
    assert server.redis.lrange("shop:new-task", 0, -1) == [b"T"]


@pytest.mark.parametrize("pause", ["-1", "x", "nan"])
def test_the_command_refuses_a_pause_that_is_none(server, pause):
    assert "Traceback" not in sweep(server, "--pause", pause, status=2).stderr


@ON_ONE_SERVER
def test_a_terminal_shows_how_long_it_takes(server):
    server.redis.hset("task-T", mapping={"task": "noop", "state": "WAIT"})
    terminal = Terminal([sys.executable, "-m", "pytask", "sweep", "-u", server.url, "--pause", "2.5"])
    try:
        terminal.wait_for("second look in 1 s")
        assert terminal.wait() == 0
        assert "1  tasks in no queue" in terminal.text
    finally:
        terminal.close()


def test_the_command_can_be_interrupted(server):
    server.redis.hset("task-T", mapping={"task": "noop", "state": "WAIT"})
    terminal = Terminal([sys.executable, "-m", "pytask", "sweep", "-u", server.url, "--pause", "600"])
    try:
        terminal.wait_for("second look in")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.text
    finally:
        terminal.close()
    assert not server.redis.exists("new-task")


def test_the_command_does_not_hold_a_node_up(server, start_node):
    """It takes no lease: a node that sweeps goes on."""
    start_node(**FAST)
    holder = wait_until(lambda: lease_of(server))
    sweep(server, "--pause", "0")
    assert lease_of(server) == holder


def test_a_report_names_every_number_once():
    numbers = {name for name, value in Report().as_json().items() if value == 0 and value is not False}
    assert {name for name, _, _ in ROWS} | {"seen", "queues"} == numbers
    assert len(report_lines(Report().as_json(), dry_run=False)) == len(ROWS) + 2
