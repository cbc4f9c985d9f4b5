"""The sweep on a Redis Cluster: records on all servers, queues on one each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import redis
from chaos.servers import ServerProcess, binary_of, find_ports, make_folder
from conftest import wait_until
from moves import A, B, Broom, Queue

MASTERS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[SimpleNamespace]:
    """Three masters; `url` and a client, `redis`."""
    folder = make_folder()
    ports = find_ports(MASTERS)
    options = {"cluster-enabled": "yes", "save": "", "cluster-node-timeout": "2000"}
    binary = binary_of("valkey")
    servers = [ServerProcess(binary, folder / str(port), port, options) for port in ports]
    with contextlib.ExitStack() as stack:
        for number, server in enumerate(servers):
            stack.callback(server.kill)
            server.start()
            with server.client() as client:
                first, last = 16384 * number // MASTERS, 16384 * (number + 1) // MASTERS - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
        wait_until(lambda: all(map(is_ready, servers)), "the cluster is whole")
        client = stack.enter_context(redis.RedisCluster(host="127.0.0.1", port=ports[0]))
        yield SimpleNamespace(url=f"redis+cluster://127.0.0.1:{ports[0]}", redis=client, servers=servers)


def is_ready(server: ServerProcess) -> bool:
    with server.client() as client:
        info = client.cluster("INFO")
        return info["cluster_state"] == "ok" and info["cluster_size"] == str(MASTERS)


@pytest.fixture
def queue(cluster):
    cluster.redis.flushall()
    made = Broom(cluster)
    yield made
    made.close()


def test_what_a_slot_has_lost_comes_back_from_records_on_all_servers(queue, cluster):
    mail = Queue(cluster, "", "mail")
    for n in range(300):
        queue.has(
            f"t{n}", state=["WAIT", "SCHEDULED", "RUNNING"][n % 3], due="9999999999", queue=["", "mail"][n % 2]
        )
    queue.has("done", state="SUCCESS")
    queue.has("new")
    report = queue.sweep()
    assert (report.pushed, report.parked, report.unpushed) == (200, 100, 1)
    assert len(set(queue.waiting())) == len(set(mail.waiting())) == 100
    assert queue.redis.zcard(queue.keys.due) == queue.redis.zcard(mail.keys.due) == 50
    again = queue.sweep()
    assert (again.repaired, again.seen, again.queues) == (0, 302, 2)
    mail.close()


def test_what_nodes_left_behind_is_put_back(queue, cluster):
    mail = Queue(cluster, "", "mail")
    mail.membership.join(A)
    mail.take_one(b"T")
    queue.take_one(b"U")
    mail.redis.delete(mail.keys.nodes)
    mail.redis.lpush(mail.keys.inbox(B), "I")
    queue.redis.lpush("{end-task}:of:gone", "E")
    report = queue.sweep()
    assert (report.claims, report.inboxes, report.endings) == (1, 1, 1)
    assert mail.waiting() == [b"I", b"T"]
    assert queue.owned() == [b"U"]
    assert queue.redis.lrange("end-task", 0, -1) == [b"E"]
    mail.close()


def test_a_key_of_another_type_stops_nothing(queue, cluster):
    cluster.redis.set("new-task:odd", "x")
    cluster.redis.set("task-text", "x")
    queue.has("O", state="WAIT", queue="odd")
    queue.has("T", state="WAIT")
    report = queue.sweep()
    assert queue.waiting() == [b"T"]
    assert list(report.refused) == ["odd"]


def test_the_keys_of_all_servers_are_counted(queue):
    for n in range(50):
        queue.has(f"t{n}", state="SUCCESS")
    assert queue.store.traces.count_keys() == 51, "the records, and the nodes of the queue"
