"""The same daemon on a Redis Cluster, under Sentinel and over TLS: what works on one server works there."""

from __future__ import annotations

import json
import threading
from collections import Counter

import nursery
import pytest
import redis
from chaos.cluster import Cluster
from chaos.sentinels import Sentinels
from chaos.servers import Deployment
from chaos.tls import Tls
from conftest import Events, Server, kinds, wait_until
from redis.crc import key_slot

from pytask import PyTask
from pytask.errors import StoreRefused
from pytask.store.addresses import resolve_target

KINDS = {
    "cluster-valkey": lambda: Cluster(),
    "sentinel-valkey": lambda: Sentinels(password="secret"),
    "cluster-redis": lambda: Cluster("redis"),
    "tls-redis": lambda: Tls(),
}
HERE = [name for name in KINDS if name.partition("-")[2] in kinds()]


@pytest.fixture(scope="module", params=HERE)
def deployment(request):
    with KINDS[request.param]() as made:
        yield made


@pytest.fixture
def server(deployment: Deployment):
    client = deployment.client()
    client.flushall()
    yield Server(deployment.url, client, None)
    client.close()


@pytest.fixture
def events(deployment):
    """Heard on another server than the one that the node listens on, where there are several."""
    made = Events(deployment.masters()[-1].client())
    yield made
    made.close()


@pytest.fixture
def app(server):
    made = PyTask(server.url)
    yield made
    made.close()


def test_many_tasks_end_and_nothing_is_left(server, app, start_node):
    start_node("-c", "200")
    ids = app.helpers.start_tasks([("echo", {"n": n}) for n in range(1000)])
    wait_until(lambda: sum(map(int, server.redis.hvals("{new-task}:counts"))) == 1000, "all have ended", 60)
    for n, task_id in enumerate(ids):
        assert app.helpers.get_task(task_id, ["state", "output"]) == {"state": "SUCCESS", "output": f'{{"n":{n}}}'}
    server.wait_until_idle()
    wait_until(lambda: not server.redis.llen("end-task"), "Cleanup has taken every end")
    assert server.redis.ttl(f"task-{ids[0]}") > 0


def test_a_raw_producer_needs_nothing_but_hset_and_lpush(server, events, start_node):
    start_node()
    server.create("T", "progress", '{"total": 3}')
    server.wait_for_state("T", "SUCCESS")
    assert events.wait_for("T", "success")
    assert events.names("T") == ["running", "progress", "progress", "progress", "success"]


def test_a_task_is_reloaded_stopped_and_restarted(server, app, events, start_node):
    start_node()
    app.helpers.start_task("loop", {"text": "one"}, task_id="L")
    events.wait_for("L", "turn")
    app.helpers.set_task("L", data={"text": "two"})
    app.helpers.reload_task("L")
    wait_until(lambda: any(e["data"]["text"] == "two" for e in events.of("L") if e["event"] == "turn"))
    assert app.helpers.stop_task("L")
    server.wait_for_state("L", "STOPPED")
    app.helpers.restart_task("L")
    server.wait_for_state("L", "RUNNING")


def test_a_task_that_waits_for_its_time_is_begun_then(server, app, start_node):
    import time

    start_node()
    due = time.time() + 1
    server.redis.hset("task-D", mapping={"task": "noop", "due": due})
    server.redis.lpush("new-task", "D")
    server.wait_for_state("D", "SUCCESS")
    assert float(server.field("D", "started")) >= due


def test_the_tasks_of_a_killed_node_run_on_another_one(server, events, start_node):
    first = start_node()
    server.create("L", "loop")
    events.wait_for("L", "turn")
    start_node()
    first.kill()
    wait_until(lambda: server.field("L", "deliveries") == "1", "it runs again")
    assert server.state("L") == "RUNNING"


def test_queues_have_slots_of_their_own(server, app, start_node, deployment):
    names = ["", "mail", "web", "crawl", "poll"]
    slots = {key_slot(app.helpers.store.keys.queue(name).key) for name in names}
    assert len(slots) == len(names), "so that the load spreads"
    options = [word for name in names for word in ("-q", name or "default")]
    start_node(*options)
    ids = {name: app.helpers.start_tasks([("noop",)] * 50, queue=name) for name in names}
    for name in names:
        for task_id in ids[name]:
            server.wait_for_state(task_id, "SUCCESS")
        counts = app.helpers.store.keys.queue(name).counts
        wait_until(lambda counts=counts: server.redis.hgetall(counts) == {b"SUCCESS": b"50"}, "all are counted")


def test_the_client_commands_work_there_too(server, start_node):
    start_node()

    def pytask(*words: str) -> str:
        done = nursery.run([words[0], "-u", server.url, *words[1:]])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pytask("start", "echo", "a=1", "--id", "T")
    server.wait_for_state("T", "SUCCESS")
    assert "SUCCESS" in pytask("show", "T")
    assert json.loads(pytask("show", "T", "--json"))["output"]
    assert pytask("redis", "HGET", "task-T", "state").strip() == "SUCCESS"


def test_a_wrong_password_is_refused_at_once_and_not_shown(server, start_node, deployment):
    url = deployment.url
    url = url.replace(":secret@", ":wr0ng-s3cret@") if "@" in url else url.replace("://", "://:wr0ng-s3cret@")
    node = start_node("-u", url, ready=False, connect_timeout="3")
    assert node.wait() == 3
    assert "s3cret" not in node.text()
    assert "Traceback" not in node.text()


def test_a_node_keeps_to_its_connections_and_names_them(server, app, start_node, deployment):
    start_node("-c", "500")
    app.helpers.start_tasks([("sleep", {"seconds": 0.2})] * 1000)
    most: Counter[str] = Counter()
    for _ in range(20):
        for process in deployment.masters():
            with process.client() as client:
                rows = client.client_list()
            most |= Counter(row["name"] for row in rows if row["name"].startswith("pytask:"))
    wait_until(lambda: sum(map(int, server.redis.hvals("{new-task}:counts"))) == 1000, "all have ended", 60)
    assert most["pytask:main"] <= 16
    assert most["pytask:beat"] <= 1
    assert most["pytask:wait"] <= 2
    assert most["pytask:control"] <= 2


# What is true of a cluster alone.


CLUSTERS = pytest.mark.parametrize("deployment", [name for name in HERE if "cluster" in name], indirect=True)
SENTINEL = pytest.mark.parametrize("deployment", ["sentinel-valkey"], indirect=True)


@CLUSTERS
@pytest.mark.parametrize("form", ["url", "pairs", "texts", "dicts", "mapping", "client"])
def test_an_app_takes_a_cluster_in_every_form(server, deployment, form):
    ports = [process.port for process in deployment.servers]
    given = {
        "url": deployment.url,
        "pairs": [("127.0.0.1", port) for port in ports],
        "texts": [f"127.0.0.1:{port}" for port in ports],
        "dicts": [{"host": "127.0.0.1", "port": port} for port in ports],
        "mapping": {"nodes": [f"127.0.0.1:{ports[0]}"], "socket_connect_timeout": 2},
        "client": server.redis,
    }[form]
    app = PyTask(given)
    ids = app.helpers.start_tasks([("noop",)] * 20)
    assert sorted(app.helpers.get_new_task_ids()) == sorted(ids)
    assert app.redis.hget(f"task-{ids[0]}", "task") == b"noop"
    app.close()


@CLUSTERS
def test_a_change_of_the_cluster_is_learnt_once_for_all(server, deployment):
    """Many threads run into MOVED at the same time; the servers are asked once or twice, not by each."""
    servers = resolve_target(deployment.url).servers()
    assert servers.send([("SET", "new-task", "x")]) == [b"OK"]
    slot, source = key_slot(b"new-task"), deployment.owner(key_slot(b"new-task"))
    to = next(master for master in deployment.masters() if master is not source)
    deployment.migrate(slot, to)
    asked = questions(deployment)
    start, replies = threading.Barrier(50), []

    def read():
        start.wait()
        replies.extend(servers.send([("GET", "new-task")]))

    threads = [threading.Thread(target=read) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [b"x"] * 50
    assert servers.send([("GET", "new-task")]) == [b"x"]
    assert questions(deployment) - asked <= 3
    servers.close()
    deployment.migrate(slot, source)


def questions(cluster: Cluster) -> int:
    total = 0
    for process in cluster.servers:
        with process.client() as client:
            stats = client.info("commandstats")
        total += next((row["calls"] for name, row in stats.items() if name.lower().endswith("cluster|slots")), 0)
    return total


@CLUSTERS
def test_keys_under_way_to_another_server_are_followed(server, deployment):
    """ASK: the slot is half here, half there."""
    app = PyTask(deployment.url)
    key = b"task-T"
    slot, source = key_slot(key), deployment.owner(key_slot(key))
    to = next(master for master in deployment.masters() if master is not source)
    deployment.open_migration(slot, to)
    try:
        app.helpers.set_task("T", task="noop", text="hello")
        with to.client() as client:
            client.execute_command("ASKING")
        assert app.helpers.get_task("T", "text") == "hello"
        assert app.helpers.store.records.stop(b"T")[0] == b"ok", "a script, which that server has not seen yet"
    finally:
        deployment.close_migration(slot, to)
        app.close()
    assert server.redis.hget(key, "control") == b"stop"


def test_durable_wants_a_replica(deployment, server, start_node):
    node = start_node("--durable", "yes", ready=False)
    if isinstance(deployment, Tls):
        assert node.wait() == 3
        assert "has no replica" in node.text()
        with pytest.raises(StoreRefused, match="no replica"):
            PyTask(server.url, durable=True).helpers.store.check_durable()
        return
    node.wait_for_log("local   ")
    app = PyTask(server.url, durable=True)
    task_id = app.helpers.start_task("echo", {"a": 1})
    server.wait_for_state(task_id, "SUCCESS")
    app.close()


@SENTINEL
def test_sentinel_tells_of_a_master_that_nobody_knows(deployment):
    app = PyTask(deployment.url.replace("mymaster", "other"))
    app.helpers.store.client.patience = 0.2
    with pytest.raises(Exception, match="no sentinel knows a master 'other'"):
        app.helpers.start_task("noop")
    app.close()


@SENTINEL
def test_a_client_that_follows_sentinel_is_taken(deployment):
    sentinel = redis.Sentinel([("127.0.0.1", guard.port) for guard in deployment.guards])
    app = PyTask(sentinel.master_for("mymaster", password="secret"))
    assert app.helpers.start_task("noop")
    assert app.redis.ping()
    app.close()
