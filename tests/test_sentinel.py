"""Which server is the master under Sentinel: what the sentinels answer, and a master that comes back."""

from __future__ import annotations

import time

import pytest
import redis
from chaos.sentinels import Sentinels
from conftest import wait_until

from pytask import PyTask
from pytask.errors import StoreUnavailable
from pytask.store.addresses import resolve_target


class Guard:
    """What one sentinel says of the master `m`: `epoch` None is silence, `told` the port that it is asked for."""

    def __init__(self, port: int, epoch: int | None, *, down: bool = False, told: int = 0) -> None:
        self.asked = 0
        self.epoch = epoch
        self.told = told or port
        self.state = {
            "ip": "10.0.0.1", "port": port, "config-epoch": epoch, "num-other-sentinels": 2,
            "is_master": True, "is_sdown": down, "is_odown": False,
        }  # fmt: skip

    def sentinel_masters(self):
        self.asked += 1
        if self.epoch is None:
            raise redis.TimeoutError("it does not answer")
        return {"m": self.state}

    def execute_command(self, command, service):
        assert (command, service) == ("SENTINEL GET-MASTER-ADDR-BY-NAME", "m")
        return b"10.0.0.1", self.told


def servers_told_by(*guards: Guard):
    servers = resolve_target("redis+sentinel://h1,h2,h3/m").servers()
    servers._sentinel.sentinels = list(guards)
    return servers


def test_the_sentinel_that_has_heard_of_the_latest_failover_is_right():
    servers = servers_told_by(Guard(1, 4), Guard(2, 5), Guard(1, 4))
    assert servers.get_target().address == "10.0.0.1:2/0"


def test_the_sentinel_that_leads_a_failover_lists_the_old_master_with_the_new_epoch_and_is_asked_for_the_new_one():
    """Until all replicas follow the new master. The old one may have come back by then, and looks well."""
    servers = servers_told_by(Guard(1, 4), Guard(1, 5, told=2), Guard(1, 4))
    assert servers.get_target().address == "10.0.0.1:2/0"


def test_a_sentinel_that_knows_of_an_earlier_master_does_not_count_where_the_latest_one_is_down():
    servers = servers_told_by(Guard(1, 4), Guard(2, 5, down=True))
    with pytest.raises(redis.ConnectionError, match="no sentinel knows a master 'm'"):
        servers.get_target()


def test_a_sentinel_that_does_not_answer_is_not_asked_each_time():
    silent, other = Guard(1, None), Guard(2, 5)
    servers = servers_told_by(silent, other)
    for _ in range(3):
        assert servers._ask() == ("10.0.0.1", 2)
    assert (silent.asked, other.asked) == (1, 3)
    other.epoch = None
    with pytest.raises(redis.ConnectionError, match="it does not answer"):
        servers._ask()
    assert silent.asked == 2, "it is asked where no other one answers"


@pytest.fixture
def deployment():
    with Sentinels(password="secret") as made:
        yield made


def role(server) -> bytes:
    with server.client() as client:
        return client.execute_command("ROLE")[0]


def test_a_push_after_a_failover_does_not_go_to_the_old_master_that_has_come_back(deployment):
    """For some seconds it takes writes, and then throws them away."""
    app = PyTask(deployment.url)
    app.helpers.start_task("noop", task_id="before")
    (old,) = deployment.masters()
    old.kill()
    (new,) = wait_until(lambda: [s for s in deployment.masters() if s is not old], "another one is the master")
    old.start()
    assert role(old) == b"master"
    app.helpers.start_task("noop", task_id="after")  # its connection is broken, and it did not know
    with old.client() as there, new.client() as here:
        with there.pipeline() as both:
            is_there, (role_then, *_) = both.exists("task-after").execute_command("ROLE").execute()
        assert role_then == b"master", "the sentinels made a replica of it too soon to see anything"
        assert not is_there
        assert here.hget("task-after", "task") == b"noop"
    app.close()


def test_without_any_sentinel_connections_that_stand_are_used_still(deployment):
    app = PyTask(deployment.url)
    app.helpers.start_task("noop", task_id="T")
    for guard in deployment.guards:
        guard.kill()
    assert app.helpers.get_task("T", "task") == "noop"
    with deployment.servers[0].client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    app.helpers.store.client.servers._asked = 0.0  # not a moment ago
    app.helpers.store.client.patience = 0.5
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no sentinel knows a master"):
        app.helpers.get_task("T", "state")
    assert time.monotonic() - began < 5
    app.close()
