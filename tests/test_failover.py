"""The seeds of trust: nodes are killed and frozen, and every task ends, once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from conftest import ON_ONE_SERVER, wait_until

TASKS = 2_000


def fill(server, count: int, task: str = "sleep", data: str = '{"seconds": 0.02}') -> list[str]:
    ids = [f"t{number}" for number in range(count)]
    pipe = server.redis.pipeline(transaction=False)
    for task_id in ids:
        pipe.hset(f"task-{task_id}", mapping={"task": task, "data": data})
    pipe.lpush("new-task", *ids)
    pipe.execute()
    return ids


def ended(server) -> int:
    return sum(int(count) for count in server.redis.hvals("{new-task}:counts"))


def check_each_ended_once(server, ids: list[str]) -> None:
    """The result that stands is that of the run whose fence the record holds; nothing is left anywhere."""
    server.wait_until_idle()
    for task_id in ids:
        record = server.redis.hgetall(f"task-{task_id}")
        assert record[b"state"] == b"SUCCESS", (task_id, record)
        assert record[b"closed"] == record[b"fence"]
        assert b'"fence":' + record[b"fence"] in record[b"output"]
    assert not server.redis.exists("{new-task}:due", "{new-task}:again", "{new-task}:dead")
    assert not server.redis.keys("{new-task}:of:*")
    assert not server.redis.keys("{new-task}:inbox:*")


@pytest.mark.waits
@ON_ONE_SERVER
def test_two_nodes_and_2000_tasks_survive_kills_of_one_node(server, start_node, events):
    seed = int(os.environ.get("PYTASK_TEST_SEED", random.randrange(10**6)))
    print(f"PYTASK_TEST_SEED={seed}")
    rng = random.Random(seed)
    nodes = [start_node("-c", "100"), start_node("-c", "100")]
    ids = fill(server, TASKS)
    killed = []
    for share in sorted(rng.sample(range(1, 9), 3)):
        wait_until(lambda share=share: ended(server) >= TASKS * share // 10, f"{share} tenths are done")
        victim = nodes.pop(rng.randrange(2))
        victim.kill()
        killed.append(victim.pid)
        nodes.append(start_node("-c", "100"))
    wait_until(lambda: ended(server) >= TASKS, "all ended", 60)
    check_each_ended_once(server, ids)
    for task_id in ids:
        runs = [run.split() for run in server.redis.lrange(f"runs:{task_id}", 0, -1)]
        assert all(int(pid) in killed for _, pid in runs[:-1]), "only a run on a killed node is repeated"
        assert events.names(task_id).count("success") == 1


@pytest.mark.alone
def test_the_tasks_of_a_killed_node_run_again_long_before_node_timeout(server, start_node):
    first = start_node()
    ids = fill(server, 20, data='{"seconds": 600}')
    wait_until(lambda: all(server.state(task_id) == "RUNNING" for task_id in ids))
    other = start_node()
    wait_until(lambda: server.redis.hlen("{new-task}:nodes") == 2)
    _let_the_monitor_see(server, other)
    first.kill()
    began = time.monotonic()
    pid = str(other.pid).encode()
    for task_id in ids:
        wait_until(lambda task_id=task_id: _runs_on(server, task_id, pid), "it runs again", 10)
    assert time.monotonic() - began < 6  # node_timeout is 10; test_detection.py measures how long it takes
    assert {server.field(task_id, "deliveries") for task_id in ids} == {"1"}
    assert {server.field(task_id, "attempt") for task_id in ids} == {"1"}


@pytest.mark.waits
@ON_ONE_SERVER
def test_the_tasks_of_a_frozen_node_run_again_within_12_seconds_and_its_late_writes_are_refused(
    server, start_node, events
):
    first = start_node()
    server.create("S", "sleep", '{"seconds": 16}')
    server.create("L", "loop")
    events.wait_for("L", "turn")
    server.wait_for_state("S", "RUNNING")
    frozen_id = first.node_id
    other = start_node()
    first.signal(signal.SIGSTOP)
    began = time.monotonic()
    pid = str(other.pid).encode()
    wait_until(lambda: _runs_on(server, "S", pid), "it runs again", 20)
    assert time.monotonic() - began < 14  # 12 s, and slack for a noisy machine
    first.signal(signal.SIGCONT)
    first.wait_for_log("is back as")
    fence = server.field("S", "fence")
    assert server.wait_for_state("S", "SUCCESS", deadline=40)
    assert server.field("S", "fence") == fence
    assert f'"fence":{fence}' in server.field("S", "output")
    assert events.names("S").count("success") == 1
    assert frozen_id not in {node.decode() for node in server.redis.hkeys("{new-task}:nodes")}
    # the node that was frozen works again, under its new id
    other.kill()
    server.create("again", "noop")
    server.wait_for_state("again", "SUCCESS")


@pytest.mark.waits
def test_a_server_that_goes_away_for_a_moment_stops_nothing(server, start_node, events):
    node = start_node()
    server.create("L", "loop")
    server.create("S", "sleep", '{"seconds": 1}')
    events.wait_for("L", "turn")
    server.wait_for_state("S", "RUNNING")
    os.kill(server.embedded.pid, signal.SIGSTOP)
    try:
        time.sleep(4)  # the outage itself, which is shorter than 0.8 x node_timeout
    finally:
        os.kill(server.embedded.pid, signal.SIGCONT)
    server.wait_for_state("S", "SUCCESS")
    assert server.field("L", "attempt") == "1"
    assert server.deliveries("L") == 0
    assert "is dead" not in node.text()
    assert "comes back" not in node.text()
    server.create("after", "noop")
    server.wait_for_state("after", "SUCCESS")


@pytest.mark.waits
def test_a_node_that_cannot_reach_the_server_ends_its_runs_by_itself_and_comes_back(server, start_node):
    """Whatever its services wait for meanwhile: its blocking move broke, so that it asks what it has claimed."""
    node = start_node(node_timeout="3")
    server.create("B", "bad-stop")
    server.wait_for_state("B", "RUNNING")
    server.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    os.kill(server.embedded.pid, signal.SIGSTOP)
    try:
        node.wait_for_log("stop() of id 'B' raised", deadline=10)
    finally:
        os.kill(server.embedded.pid, signal.SIGCONT)
    node.wait_for_log("is back as")
    wait_until(lambda: server.field("B", "deliveries") == "1", "it runs again")
    assert server.field("B", "node") != node.node_id


def blocked_moves(server) -> list[str]:
    """The connections on which nodes wait for an id."""
    return [client["id"] for client in server.redis.client_list() if client["cmd"] == "blmove"]


@pytest.mark.waits
def test_an_id_that_a_move_hands_over_late_is_run_though_nothing_else_waits(server, start_node):
    """The server serves a move whose connection broke, while the node waits on a new one already."""
    node = start_node()
    old = wait_until(lambda: blocked_moves(server), "it waits for an id")
    for connection in old:
        server.redis.client_kill_filter(_id=connection)
    wait_until(lambda: (new := blocked_moves(server)) and not set(new) & set(old), "it waits again")
    server.redis.hset("task-T", "task", "noop")
    server.redis.lpush(f"{{new-task}}:inbox:{node.node_id}", "T")
    server.wait_for_state("T", "SUCCESS")


@pytest.mark.waits
def test_an_id_that_a_move_hands_over_late_is_not_kept_by_a_paused_node(server, start_node):
    def looks() -> int:
        return server.redis.info("commandstats").get("cmdstat_lmove", {"calls": 0})["calls"]

    node = start_node()
    before = looks()
    node.signal(signal.SIGTSTP)
    wait_until(lambda: looks() > before, "it has looked into its inbox")
    server.redis.lpush(f"{{new-task}}:inbox:{node.node_id}", "T")
    wait_until(lambda: server.redis.lrange("new-task", 0, -1) == [b"T"], "others can take it")


@pytest.mark.waits
def test_the_connections_of_a_node_are_cut_and_it_goes_on(server, start_node, events):
    node = start_node()
    server.create("L", "loop")
    events.wait_for("L", "turn")
    for _ in range(5):
        for client in server.redis.client_list():
            if client["name"].startswith("pytask:"):
                with contextlib.suppress(Exception):
                    server.redis.client_kill_filter(_id=client["id"])
        server.create("N", "noop", state="WAIT")
        server.wait_for_state("N", "SUCCESS")
    server.redis.hset("task-L", "control", "stop")
    server.redis.publish("task-L-control", "stop")
    server.wait_for_state("L", "STOPPED")
    assert server.deliveries("L") == 0
    assert node.terminate() == 0


@pytest.mark.waits
def test_a_claim_whose_reply_was_lost_is_adopted(server, start_node):
    """The claim is made by the server and its node never hears of it: as if the reply had been lost."""
    node = start_node()
    node_id = node.node_id
    server.redis.hset("task-A", "task", "noop")
    fence = int(time.time() * 1e6)
    server.redis.hset("{new-task}:claims", "A", f"{node_id} {fence}")
    server.redis.hset("{new-task}:of:" + node_id, "A", f"{fence} 0 push 0")
    server.wait_for_state("A", "SUCCESS")
    server.wait_until_idle()
    node.wait_for_log("are adopted")


@pytest.mark.waits
def test_an_id_in_two_queues_runs_once(server, start_node):
    start_node("-q", "default", "-q", "mail")
    server.redis.hset("task-A", mapping={"task": "sleep", "data": '{"seconds": 1}'})
    server.redis.lpush("new-task", "A")
    server.redis.lpush("new-task:mail", "A")
    server.wait_for_state("A", "SUCCESS")
    server.wait_until_idle()
    wait_until(lambda: not server.redis.exists("{new-task:mail}:claims", "new-task:mail"))
    assert server.redis.llen("runs:A") == 1


def _runs_on(server, task_id: str, pid: bytes) -> bool:
    runs = server.redis.lrange(f"runs:{task_id}", 0, -1)
    return bool(runs) and runs[-1].split()[1] == pid


def _let_the_monitor_see(server, node) -> None:
    """Until both nodes have beaten a few times, so that each Monitor has seen the other's subscription."""
    before = server.redis.hgetall("{new-task}:nodes")
    wait_until(
        lambda: all(
            int(value) >= int(before[name]) + 2 for name, value in server.redis.hgetall("{new-task}:nodes").items()
        )
    )
    assert node.process.poll() is None
