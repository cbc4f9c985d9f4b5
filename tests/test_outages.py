"""Redis goes away and comes back: what runs goes on, or ends by itself in time, and nobody is declared dead."""

from __future__ import annotations

import os
import signal
import time

import pytest
from chaos.servers import Single
from conftest import Events, Server, kinds, wait_until

SLACK = 2.0  # seconds, for a noisy machine


@pytest.fixture(params=kinds())
def deployment(request):
    with Single(request.param) as made:
        yield made


@pytest.fixture
def server(deployment):
    with deployment.client() as client:
        yield Server(deployment.url, client, None)


@pytest.fixture
def events(deployment):
    made = Events(deployment.client())
    yield made
    made.close()


def restart(deployment, seconds: float) -> float:
    """Kill the server, start it again after so many seconds; the monotonic second when it answered."""
    deployment.server.kill()
    time.sleep(seconds)  # the outage itself
    deployment.server.start()
    return time.monotonic()


@pytest.mark.waits
def test_a_short_outage_ends_no_run_and_loses_no_outcome(deployment, server, events, start_node):
    nodes = [start_node(), start_node()]
    for number in range(10):
        server.create(f"L{number}", "loop")
        server.create(f"S{number}", "pause", '{"seconds": 2}')
        server.wait_for_state(f"L{number}", "RUNNING")
        server.wait_for_state(f"S{number}", "RUNNING")
    before = server.redis.hkeys("{new-task}:nodes")
    restart(deployment, 4.0)
    for number in range(10):
        server.wait_for_state(f"S{number}", "SUCCESS")
        assert server.deliveries(f"S{number}") == 0
        assert server.deliveries(f"L{number}") == 0
        assert server.field(f"L{number}", "attempt") == "1"
    assert sorted(server.redis.hkeys("{new-task}:nodes")) == sorted(before)
    for node in nodes:
        assert "is dead" not in node.text()
        assert "comes back" not in node.text()


@pytest.mark.alone
def test_a_second_after_an_outage_everything_is_obeyed(deployment, server, start_node):
    start_node()
    server.create("L", "loop")
    server.create("M", "loop")
    server.wait_for_state("L", "RUNNING")
    server.wait_for_state("M", "RUNNING")
    back = restart(deployment, 4.0)
    server.redis.hset("task-L", "control", "stop")  # a wish without a message: found where records are compared
    server.create("N", "noop")
    server.wait_for_state("L", "STOPPED")
    server.wait_for_state("N", "SUCCESS")
    assert time.monotonic() - back < 1.0 + SLACK
    wait_until(lambda: server.redis.publish("task-M-control", "stop"), "it listens")
    server.wait_for_state("M", "STOPPED")
    assert time.monotonic() - back < 2.0 + SLACK


@pytest.mark.waits
@pytest.mark.parametrize("deployment", ["valkey"], indirect=True)
def test_a_long_outage_makes_nobody_dead_and_every_node_gives_its_runs_up_in_time(
    deployment, server, events, start_node
):
    timeout = 5.0
    nodes = [start_node(node_timeout=str(timeout)) for _ in range(3)]
    for number in range(9):
        server.create(f"L{number}", "loop")
        server.wait_for_state(f"L{number}", "RUNNING")
    before = set(server.redis.hkeys("{new-task}:nodes"))
    began = time.monotonic()
    deployment.server.kill()
    for node in nodes:
        node.wait_for_log("comes back under a new id", timeout + SLACK)  # 0.8 x node_timeout, and a look
    time.sleep(max(3 * timeout - (time.monotonic() - began), 0))  # the outage itself
    deployment.server.start()
    for number in range(9):
        wait_until(lambda n=number: server.field(f"L{n}", "node") not in {None, *map(bytes.decode, before)})
        server.wait_for_state(f"L{number}", "RUNNING")

    def ids():
        return set(server.redis.hkeys("{new-task}:nodes"))

    # two may be back under new ids, and the third one not yet
    wait_until(lambda: len(found := ids()) == 3 and not found & before, "all are back, and no old id is left")
    for node in nodes:
        assert "is dead" not in node.text()
        assert node.process.poll() is None


@pytest.mark.waits
def test_a_frozen_server_ends_nothing_for_eight_seconds(deployment, server, start_node):
    node = start_node()
    server.create("L", "loop")
    server.wait_for_state("L", "RUNNING")
    os.kill(deployment.server.pid, signal.SIGSTOP)
    try:
        time.sleep(5)  # the outage itself
    finally:
        os.kill(deployment.server.pid, signal.SIGCONT)
    server.create("N", "noop")
    server.wait_for_state("N", "SUCCESS")
    assert server.deliveries("L") == 0
    assert "comes back" not in node.text()


@pytest.mark.waits
@pytest.mark.parametrize("deployment", ["valkey"], indirect=True)
def test_a_node_that_is_paused_while_redis_is_away_stays_paused_when_it_is_back(deployment, server, start_node):
    node = start_node(node_timeout="2")
    deployment.server.kill()
    node.wait_for_log("comes back under a new id")
    node.signal(signal.SIGTSTP)
    node.wait_for_log("no new tasks until SIGCONT")
    deployment.server.start()
    node.wait_for_log("is back as")
    server.create("N", "noop")
    wait_until(lambda: server.redis.hlen("{new-task}:nodes") == 1, "it beats")
    node.wait_for_log("no new tasks until SIGCONT")
    assert server.state("N") is None
    node.signal(signal.SIGCONT)
    server.wait_for_state("N", "SUCCESS")


@pytest.mark.waits
@pytest.mark.parametrize("deployment", ["valkey"], indirect=True)
def test_a_second_signal_ends_a_node_soon_though_redis_is_away(deployment, server, start_node):
    node = start_node(node_timeout="2")
    for task_id in ("A", "B"):
        server.create(task_id, "loop")
        server.wait_for_state(task_id, "RUNNING")
    deployment.server.kill()
    node.wait_for_log("comes back under a new id")
    began = time.monotonic()
    node.signal(signal.SIGINT)
    node.wait_for_log("takes no more tasks")
    node.signal(signal.SIGINT)
    node.process.wait(20)
    assert time.monotonic() - began < 18  # 25 s of grace, 12 s to stop and 20 s to send without it
    assert "pytask/cleanup failed" not in node.text()
    deployment.server.start()


@pytest.mark.waits
def test_a_node_that_dies_in_an_outage_is_replaced_after_it_and_the_others_go_on(deployment, server, start_node):
    parent = start_node("-p", "2", connect_timeout="2")
    pids = wait_until(lambda: len(found := pids_of_nodes(server)) == 2 and found, "two nodes")
    victim, other = parent.children = sorted(pids)
    deployment.server.kill()
    os.kill(victim, signal.SIGKILL)
    parent.wait_for_log("died (status 3)", 40)
    deployment.server.start()
    wait_until(lambda: len(pids_of_nodes(server) - {victim}) == 2, parent.text, 40)
    parent.children += pids_of_nodes(server)
    assert other in pids_of_nodes(server)
    assert parent.terminate() == 0


def pids_of_nodes(server: Server) -> set[int]:
    return {int(label.split(b":")[1]) for label in server.redis.hkeys("{new-task}:nodes")}
