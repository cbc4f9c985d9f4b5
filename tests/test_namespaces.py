"""Apps in different namespaces on one server, and one in none: nobody sees anything of the others."""

from __future__ import annotations

import pytest
import redis
from conftest import ON_ONE_SERVER, Events, wait_until
from moves import Broom

from pytask import PyTask

NAMES = ("", "shop", "shop2")


def prefix(namespace):
    return f"{namespace}:" if namespace else ""


@pytest.fixture
def apps(server):
    made = {name: PyTask(server.url, namespace=name) for name in NAMES}
    yield made
    for app in made.values():
        app.close()


@pytest.fixture
def start(start_node):
    """Starts a node in a namespace."""

    def start(namespace, *options, **settings):
        flags = ("--namespace", namespace) if namespace else ()
        return start_node(*flags, *options, **settings)

    return start


def keys_of(server, namespace):
    """The keys that belong to a namespace, and to no other one."""
    found = {key.decode() for key in server.redis.keys("*")}
    others = [prefix(name) for name in NAMES if name != namespace]

    def is_ours(key):
        bare = key.removeprefix("{")
        own = bare.startswith(prefix(namespace))
        return own and not any(bare.startswith(other) for other in others if other)

    return {key for key in found if is_ours(key)}


def wait_for(app, task_id, *states):
    return wait_until(lambda: (state := app.helpers.get_task(task_id, "state")) in states and state, task_id)


def test_nodes_side_by_side_run_their_own_tasks_alone(server, apps, start):
    nodes = {name: start(name) for name in NAMES}
    listeners = {name: Events(redis.Redis.from_url(server.url), f"{prefix(name)}task-*") for name in NAMES}
    for number in range(20):
        for name, app in apps.items():
            app.helpers.start_task("echo", {"namespace": name, "n": number}, task_id=f"T{number}", cleanup=False)
    for name, app in apps.items():
        for number in range(20):
            wait_for(app, f"T{number}", "SUCCESS")
            record = app.helpers.get_task(f"T{number}")
            assert f'"{name}"' in record["output"]
            assert record["node"] == nodes[name].node_id
        assert set(wait_until(lambda app=app: app.helpers.get_nodes())) == {nodes[name].node_id}
        counts = app.helpers.get_queues()["default"]
        assert (counts["ended"], counts["nodes"]) == ({"SUCCESS": 20}, 1)
    for name, listener in listeners.items():
        listener.read()
        assert listener.seen
        assert {channel.decode().startswith(f"{prefix(name)}task-") for channel, _ in listener.seen} == {True}
        told = b"".join(data for _, data in listener.seen if b"success" in data)
        assert {other for other in NAMES if f'"namespace":"{other}"'.encode() in told} == {name}
        listener.close()


def test_control_messages_reach_the_task_of_their_namespace_alone(server, apps, start, events):
    for name in NAMES:
        start(name)
    for app in apps.values():
        app.helpers.start_task("loop", task_id="T")
        wait_for(app, "T", "RUNNING")
    # ids in no namespace whose keys and channels look like those of another one
    for odd in ("shop:task-T", "shop:T", "{shop:new-task}:claims"):
        apps[""].helpers.start_task("loop", task_id=odd)
        wait_for(apps[""], odd, "RUNNING")
        apps[""].helpers.stop_task(odd)
        wait_for(apps[""], odd, "STOPPED")
    server.redis.publish("shop2:task-T-control", "reload")
    apps[""].helpers.stop_task("T")
    wait_for(apps[""], "T", "STOPPED")
    assert apps["shop"].helpers.get_task("T", "state") == "RUNNING"
    server.redis.publish("shop:task-T-control", "stop")
    wait_for(apps["shop"], "T", "STOPPED")
    assert apps["shop2"].helpers.get_task("T", ["state", "control"]) == {"state": "RUNNING", "control": None}
    assert apps["shop2"].helpers.stop_tasks() == 1
    wait_for(apps["shop2"], "T", "STOPPED")


@ON_ONE_SERVER
def test_a_monitor_reaps_nobody_of_another_namespace(server, apps, start):
    victim, witness = start("shop"), start("", node_timeout="2")
    apps["shop"].helpers.start_task("sleep", {"seconds": 0.1}, task_id="T")
    wait_for(apps["shop"], "T", "SUCCESS")
    apps["shop"].helpers.start_task("sleep", {"seconds": 600}, task_id="long")
    wait_for(apps["shop"], "long", "RUNNING")
    other = start("", node_timeout="2")
    victim.kill()
    other.kill()
    witness.wait_for_log(other.node_id)
    assert victim.node_id not in witness.text()
    assert server.redis.hlen("{shop:new-task}:claims") == 1
    heir = start("shop", node_timeout="2")
    wait_until(lambda: apps["shop"].helpers.get_task("long", "node") == heir.node_id, "its own Monitor does", 40)


def test_a_cleanup_takes_no_ended_id_of_another_namespace(server, apps, start):
    start("shop", result_ttl="0")
    for app in apps.values():
        app.helpers.start_task("noop", task_id="T")
        app.store = app.helpers.store
        app.store.endings.push([b"old"])
        app.helpers.set_task("old", task="noop", state="SUCCESS")
    wait_until(lambda: not keys_of(server, "shop") & {"shop:task-T", "shop:task-old"}, "Cleanup removes them")
    for name in ("", "shop2"):
        assert server.redis.lrange(f"{prefix(name)}end-task", 0, -1) == [b"old"]
        assert server.redis.ttl(f"{prefix(name)}task-old") == -1
        assert apps[name].helpers.get_new_task_ids() == ["T"]


@pytest.mark.parametrize("sweeps", NAMES)
def test_a_sweep_repairs_its_own_namespace_alone(sweeps, server):
    brooms = {name: Broom(server, name) for name in NAMES}
    try:
        for broom in brooms.values():
            broom.has("lost", state="WAIT")
            broom.redis.hset(broom.keys.claims, "claimed", "gone:1:ff 5")
            broom.redis.lpush(broom.keys.inbox(b"gone:1:ff"), "handed")
        report = brooms[sweeps].sweep()
        assert (report.pushed, report.claims, report.inboxes) == (1, 1, 1)
        for name, broom in brooms.items():
            assert set(broom.waiting()) == ({b"lost", b"claimed", b"handed"} if name == sweeps else set())
    finally:
        for broom in brooms.values():
            broom.close()


def test_pause_and_purge_and_the_dead_list_know_their_namespace_alone(server, apps, start):
    for name in ("", "shop"):
        start(name)
    apps[""].helpers.pause_queue()
    for app in apps.values():
        app.helpers.start_task("noop", task_id="T")
    wait_for(apps["shop"], "T", "SUCCESS")
    wait_until(lambda: apps[""].helpers.get_new_task_ids() == ["T"], "a node that waited for it hands it back")
    assert [app.helpers.get_queues()["default"]["paused"] is None for app in apps.values()] == [False, True, True]
    assert apps[""].helpers.purge_queue() == 1
    assert apps["shop2"].helpers.get_new_task_ids() == ["T"]
    server.redis.lpush("{shop:new-task}:dead", "d")
    assert apps[""].helpers.requeue_dead() == 0
    assert apps["shop2"].helpers.drop_dead() == 0
    assert apps["shop"].helpers.get_dead_task_ids() == ["d"]


def test_a_purge_of_every_namespace_leaves_nothing_of_it_and_all_of_the_others(server, apps):
    for app in apps.values():
        app.helpers.start_tasks([("noop",)] * 10, queue="mail")
    before = {name: keys_of(server, name) for name in NAMES}
    assert all(len(found) == 11 for found in before.values())
    apps["shop"].helpers.purge_queue("mail")
    assert {name: keys_of(server, name) for name in NAMES} == {**before, "shop": set()}
