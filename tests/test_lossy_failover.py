"""A master dies whose replica was away: what is gone is counted, what can comes back, `durable` loses nothing."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time

import pytest
import redis
from chaos import journal
from chaos.checker import Checker, Verdict, wait_until_ended
from chaos.cluster import Cluster
from chaos.faults import Fault
from conftest import Server, wait_until
from redis.crc import key_slot

from pytask import PyTask
from pytask.errors import StoreUnavailable

pytestmark = pytest.mark.waits

ROUNDS = int(os.environ.get("PYTASK_TEST_ROUNDS", "1"))
QUEUE = 6431  # the slot of `new-task`


@pytest.fixture(params=range(ROUNDS))
def seed(request) -> int:
    """Printed, and given with PYTASK_TEST_SEED."""
    chosen = int(os.environ.get("PYTASK_TEST_SEED", random.randrange(10**6)))
    print(f"PYTASK_TEST_SEED={chosen}")
    return chosen + request.param


@pytest.fixture
def deployment():
    with Cluster() as made:
        yield made


@pytest.fixture
def server(deployment):
    with deployment.client() as client:
        yield Server(deployment.url, client, None)


@pytest.fixture
def start_workers(start_node, tmp_path):
    """Starts two nodes that run 20 tasks each at a time, and keep a journal."""
    settings = {"node_timeout": "3", "concurrency": "20", "test_journal": str(tmp_path), "app": "chaos.app:app"}
    return lambda **more: [start_node(**settings, **more) for _ in range(2)]


class Loss:
    """The failover: `cut_off` ends the replica, `promote` ends the master and makes the replica what it was."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.master = cluster.owner(QUEUE)
        self.replica = cluster.replica_of(self.master)
        rows = cluster.slots(self.master)
        self.slots = next(range(row[0], row[1] + 1) for row in rows if row[0] <= QUEUE <= row[1])

    def cut_off(self) -> None:
        """From now on the replica learns nothing. What it has been told so far it keeps."""
        with self.master.client() as client, self.replica.client() as follower:
            told = client.info("replication")["master_repl_offset"]
            wait_until(lambda: follower.info("replication")["slave_repl_offset"] >= told, "it has all")
        self.replica.kill()

    def keeps(self, task_id: str) -> bool:
        """Does the record lie on another master?"""
        return key_slot(f"task-{task_id}".encode()) not in self.slots

    def promote(self) -> Fault:
        """The master dies, and the replica takes over with what it knows; the old one comes back behind it."""
        fault = Fault("failover", None, time.monotonic())
        self.master.kill()
        self.replica.start()
        with contextlib.suppress(redis.ResponseError):  # the others may have made it the master already
            self.cluster.tell(self.replica, "FAILOVER", "TAKEOVER")
        self.cluster.wait_for_master(self.replica)
        self.master.start(wait=False)
        return fault


def check(deployment, ids, tmp_path, fault, seconds: float = 40) -> Verdict:
    """Wait for the end of all that can still end; compare."""
    wait_until_ended(deployment, ids, seconds)
    return Checker(deployment, ids, journal.read(tmp_path), [fault]).check()


def test_what_a_failover_takes_back_is_counted_and_the_sweep_puts_back_what_records_show(
    deployment, server, start_workers, tmp_path
):
    nodes = start_workers(sweep_interval="2")
    loss, app = Loss(deployment), PyTask(deployment.url)
    early = app.helpers.start_tasks([("work", {"seconds": 0.01})] * 100)
    for task_id in early:
        server.wait_for_state(task_id, "SUCCESS")
    loss.cut_off()
    ids = app.helpers.start_tasks([("work", {"seconds": 1})] * 200)
    raw = [f"raw{number}" for number in range(30)]
    for task_id in raw:
        server.create(task_id, "work")
    kept = [task_id for task_id in ids if loss.keeps(task_id)]
    shown = [task_id for task_id in raw if loss.keeps(task_id)]
    assert server.redis.llen("new-task") > 100, "some run, most wait"
    fault = loss.promote()
    verdict = check(deployment, kept, tmp_path, fault)
    assert not verdict.problems, f"what is in a record comes back:\n{verdict.text()}"
    assert {server.state(task_id) for task_id in early} == {"SUCCESS"}, "the replica had been told of them"
    verdict = check(deployment, [*early, *ids], tmp_path, fault, 1)
    gone = len(ids) - len(kept)
    print(f"{len(ids)} acknowledged, {gone} gone with their records, {len(kept)} put back or run on")
    assert verdict.count("lost") == gone > 0, "and what is not is gone: nobody else knows of it"
    assert {server.state(task_id) for task_id in shown} == {None}, (
        "a record without a state was never pushed for certain"
    )
    wait_until(lambda: any(f"{len(shown)} records" in node.text() for node in nodes), "the sweep tells of them")
    app.close()


class Producer(threading.Thread):
    """Pushes a few tasks at a time until it is told to stop; says which were acknowledged."""

    def __init__(self, app: PyTask) -> None:
        super().__init__(daemon=True)
        self.app = app
        self.ids: list[str] = []
        self.refusals: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.01):
            try:
                self.ids += self.app.helpers.start_tasks([("work", {"seconds": 0.3})] * 4)
            except StoreUnavailable as error:
                self.refusals.append(str(error))


def test_with_durable_nothing_is_acknowledged_that_a_failover_takes_back(
    deployment, server, start_workers, tmp_path, seed
):
    start_workers(durable="yes", sweep_interval="0")  # nobody repairs anything
    loss, app = Loss(deployment), PyTask(deployment.url, durable=True)
    app.helpers.store.client.patience = 0.5
    producer = Producer(app)
    producer.start()
    time.sleep(random.Random(seed).uniform(0.5, 1.5))  # until the fault
    loss.replica.kill()
    wait_until(lambda: len(producer.refusals) >= 3, "pushes are refused")
    fault = loss.promote()
    wait_until(deployment.is_whole, "there is a replica again", 40)
    taken = len(producer.ids)
    wait_until(lambda: len(producer.ids) > taken, "pushes are taken again")
    producer.stopping.set()
    producer.join()
    assert any("no replica has confirmed" in refusal for refusal in producer.refusals)
    verdict = check(deployment, producer.ids, tmp_path, fault)
    print(f"{taken} tasks acknowledged before the failover, {len(producer.refusals)} pushes refused")
    assert taken > 50
    assert not verdict.problems, verdict.text()
    assert verdict.figures["lost"] == 0
    app.close()
