"""Services: the cluster keeps so many replicas running, whatever becomes of nodes, of replicas and of messages."""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections import Counter

import pytest
from conftest import ON_ONE_SERVER, Server, wait_until

from pytask.errors import ServiceNotFoundError

pytestmark = ON_ONE_SERVER
APP = "serviceapp:app"


def replicas(server: Server, name: str) -> dict[int, dict[str, str]]:
    """The records of a service's replicas, by number."""
    found = {}
    for key in server.redis.keys(f"task-{name}:*"):
        record = server.redis.hgetall(key)
        if record:
            found[int(key.rpartition(b":")[2])] = {k.decode(): v.decode() for k, v in record.items()}
    return found


def running(server: Server, name: str) -> dict[int, str]:
    """Number -> node, of those that run."""
    return {n: r["node"] for n, r in replicas(server, name).items() if r.get("state") == "RUNNING"}


def wait_for(server: Server, name: str, count: int, deadline: float = 20) -> dict[int, str]:
    """Until exactly the replicas 0 to count - 1 are there, and all run."""

    def there() -> bool:
        records = replicas(server, name)
        return sorted(records) == list(range(count)) and all(r.get("state") == "RUNNING" for r in records.values())

    wait_until(there, f"{count} replicas of {name} run: {replicas(server, name)}", deadline)
    return running(server, name)


def by_node(server: Server, name: str) -> Counter[str]:
    return Counter(running(server, name).values())


def notes(server: Server, name: str) -> list[list[str]]:
    """Every start of a replica: ['start', id, word, pid, fence, time]."""
    return [line.decode().split(" ") for line in server.redis.lrange(f"notes:{name}", 0, -1)]


def uses(server: Server, name: str, count: int) -> list[bytes]:
    """Which revision each of the first replicas runs, all at one moment."""
    with server.redis.pipeline() as transaction:
        for n in range(count):
            transaction.hget(f"task-{name}:{n}", "uses")
        return transaction.execute()


def told(server: Server, name: str, count: int) -> set[tuple[str, str]]:
    """What the first replicas say of themselves: (replica, replicas)."""
    rows = [server.redis.hmget(f"numbers:{name}:{n}", "replica", "replicas") for n in range(count)]
    return {tuple((word or b"").decode() for word in row) for row in rows}


# As anybody writes it.


def test_redis_commands_alone_define_change_scale_and_remove_a_service(server, start_node):
    start_node(app=APP)
    server.redis.hset("service-orders", mapping={"task": "serve", "data": '{"word": "a"}', "replicas": "3"})
    server.redis.zadd("services", {"orders": 0})
    wait_for(server, "orders", 3)
    wait_until(lambda: told(server, "orders", 3) == {("0", "3"), ("1", "3"), ("2", "3")}, "each knows its number")
    server.redis.hset("service-orders", "replicas", "5")
    server.redis.zadd("services", {"orders": 0})
    wait_for(server, "orders", 5)
    wait_until(lambda: {row[1] for row in told(server, "orders", 5)} == {"5"}, "those that ran learn of it")
    assert len(notes(server, "orders")) == 5, "nobody was started anew for that"
    server.redis.hset("service-orders", mapping={"data": '{"word": "b"}', "replicas": "2"})
    server.redis.zadd("services", {"orders": 0})
    wait_for(server, "orders", 2)
    wait_until(lambda: [row[1:3] for row in notes(server, "orders")[5:]] == [["orders:0", "b"], ["orders:1", "b"]])
    server.redis.delete("service-orders")
    server.redis.zadd("services", {"orders": 0})
    wait_until(
        lambda: not server.redis.keys("task-orders:*") and not server.redis.exists("services"), "it is gone"
    )
    assert not server.redis.keys("{service-orders}*")
    server.wait_until_idle()


def test_helpers_do_the_same_from_a_process_that_is_no_node(server, app, start_node):
    start_node(app=APP)
    helpers = app.helpers
    assert helpers.start_service("watch", "serve", replicas=2, data={"word": "a"}) is True
    wait_for(server, "watch", 2)
    assert helpers.start_service("watch", "serve", replicas=2, data={"word": "a"}) is False, "nothing changes"
    assert helpers.scale_service("watch", 4) is True
    wait_for(server, "watch", 4)
    found = helpers.get_service("watch")
    assert (found["wanted"], found["running"], found["state"]) == (4, 4, "running")
    assert found["task"] == "serve"
    assert found["data"] == {"word": "a"}
    assert sum(found["nodes"].values()) == 4
    assert [row["name"] for row in helpers.list_services()] == ["watch"]
    assert [row["replica"] for row in helpers.get_replicas("watch")] == [0, 1, 2, 3]
    helpers.update_service("watch", data={"word": "b"}, replicas=3)
    wait_until(lambda: [row[2] for row in notes(server, "watch")[4:]] == ["b"] * 3, "three begin anew")
    helpers.reload_service("watch")
    wait_until(lambda: len(notes(server, "watch")) == 4 + 3 + 3, "and once more")
    wait_until(lambda: helpers.get_service("watch")["state"] == "running")
    assert helpers.remove_service("watch") is True
    wait_until(lambda: helpers.get_service("watch") is None, "it is gone")
    assert helpers.list_services() == []
    assert helpers.remove_service("watch") is False


def test_a_service_that_is_not_there_cannot_be_changed(app):
    for change in (
        lambda: app.helpers.scale_service("nobody", 2),
        lambda: app.helpers.update_service("nobody", replicas=2),
        lambda: app.helpers.reload_service("nobody"),
    ):
        with pytest.raises(ServiceNotFoundError, match="there is no service 'nobody'"):
            change()
    assert app.helpers.get_service("nobody") is None
    assert app.helpers.get_replicas("nobody") == []


def test_the_code_of_an_app_defines_services_once_and_what_people_change_stays(server, app, start_node):
    node = start_node(app=APP, test_service_replicas="2")
    wait_for(server, "coded", 2)
    app.helpers.scale_service("coded", 4)
    wait_for(server, "coded", 4)
    other = start_node(app=APP, test_service_replicas="2")
    assert node.terminate() == 0
    wait_until(lambda: set(running(server, "coded").values()) == {other.node_id}, "it moved")
    wait_for(server, "coded", 4)
    start_node(app=APP, test_service_replicas="3")
    wait_for(server, "coded", 3)


# Replicas that end.


def test_a_replica_that_fails_begins_again_after_a_delay_that_doubles(server, app, start_node):
    start_node(app=APP)
    app.helpers.start_service("weak", "serve", data={"seconds": 0, "fail": True})
    wait_until(lambda: len(notes(server, "weak")) >= 4, "four starts")
    times = [float(row[5]) for row in notes(server, "weak")[:4]]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap >= least for gap, least in zip(gaps, (1, 2, 4), strict=True)), gaps
    assert server.field("weak:0", "backoff") in ("4.000000", "8.000000")


def test_a_replica_that_ends_well_begins_again_where_it_always_does(server, app, start_node, events):
    start_node(app=APP)
    app.helpers.start_service("short", "serve", data={"seconds": 0})
    wait_until(lambda: len(notes(server, "short")) >= 2, "it begins again")
    assert events.wait_for("short:0", "retry")["data"] == {
        "attempt": 1,
        "state": "SUCCESS",
        "error": None,
        "delay": 1.0,
    }


def test_a_replica_that_ends_well_is_done_where_only_failures_count(server, app, start_node):
    start_node(app=APP)
    app.helpers.start_service("done", "serve", data={"seconds": 0}, restart="on-failure", replicas=2)
    server.wait_for_state("done:0", "SUCCESS")
    server.wait_for_state("done:1", "SUCCESS")
    server.redis.zadd("services", {"done": 0})
    app.helpers.scale_service("done", 3)
    server.wait_for_state("done:2", "SUCCESS")
    assert sorted(row[1] for row in notes(server, "done")) == ["done:0", "done:1", "done:2"]
    app.helpers.update_service("done", data={"seconds": 0, "word": "b"})
    wait_until(lambda: len(notes(server, "done")) == 6, "a new definition is new work")


def test_a_replica_that_fails_begins_again_where_only_failures_count(server, app, start_node):
    start_node(app=APP)
    app.helpers.start_service("weak", "serve", data={"seconds": 0, "fail": True}, restart="on-failure")
    wait_until(lambda: len(notes(server, "weak")) >= 2, "it begins again")


def test_a_stopped_replica_stays_stopped_until_it_is_restarted(server, app, start_node):
    start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=2)
    wait_for(server, "x", 2)
    app.helpers.stop_task("x:1")
    server.wait_for_state("x:1", "STOPPED")
    app.helpers.scale_service("x", 3)
    server.wait_for_state("x:2", "RUNNING")
    assert server.state("x:1") == "STOPPED"
    assert app.helpers.get_service("x")["state"] == "incomplete"
    app.helpers.restart_task("x:1")
    wait_for(server, "x", 3)


def test_a_class_that_starts_once_expires_and_is_unique_serves_all_the_same(server, app, start_node):
    node = start_node(app=APP)
    app.helpers.start_service("x", "once", replicas=3)
    wait_for(server, "x", 3)
    time.sleep(1.2)  # longer than its `expires_in`
    start_node(app=APP)
    node.kill()
    wait_until(lambda: node.node_id not in running(server, "x").values() and len(running(server, "x")) == 3)


# Nodes.


def test_what_a_killed_node_ran_goes_on_elsewhere(server, app, start_node):
    victim, other = start_node(app=APP), start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=6)
    wait_for(server, "x", 6)
    wait_until(lambda: by_node(server, "x")[victim.node_id] == 3, "they are spread")
    victim.kill()
    wait_until(lambda: by_node(server, "x") == {other.node_id: 6}, "all run on the other node")
    assert all(record.get("backoff") is None for record in replicas(server, "x").values())


@pytest.mark.alone
def test_what_a_killed_node_ran_is_back_within_3_seconds(server, app, start_node):
    victim, other = start_node(app=APP), start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=40)
    wait_for(server, "x", 40)
    wait_until(lambda: abs(by_node(server, "x")[victim.node_id] - 20) <= 1, "they are spread")
    time.sleep(3)  # the Monitor of each has seen the other
    victim.kill()
    began = time.monotonic()
    wait_until(lambda: by_node(server, "x") == {other.node_id: 40}, "all run on the other node")
    assert time.monotonic() - began < 3 + 1.5


def test_replicas_of_a_node_that_ends_go_on_elsewhere_and_that_is_no_restart(server, app, start_node):
    first, second = start_node(app=APP), start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=6)
    wait_for(server, "x", 6)
    assert first.terminate() == 0
    wait_until(lambda: by_node(server, "x") == {second.node_id: 6}, "all run on the other node")
    assert app.helpers.get_service("x")["restarts"] == 0
    wait_until(lambda: list(server.redis.hkeys("{new-task}:replicas")) == [second.node_id.encode()])


def test_replicas_spread_evenly_over_nodes_that_join_and_leave(server, app, start_node):
    nodes = [start_node(app=APP)]
    app.helpers.start_service("x", "quiet", replicas=100)
    wait_for(server, "x", 100)
    nodes += [start_node(app=APP) for _ in range(3)]

    def even() -> bool:
        counts = by_node(server, "x")
        return len(counts) == len(nodes) and max(counts.values()) - min(counts.values()) <= 2

    wait_until(even, f"24 to 26 each: {by_node(server, 'x')}", 30)
    wait_until(lambda: sum(by_node(server, "x").values()) == 100, "all run")
    moved = {n: record["fence"] for n, record in replicas(server, "x").items()}
    nodes.pop().terminate()
    wait_until(lambda: even() and sum(by_node(server, "x").values()) == 100, "33 or 34 each", 30)
    stayed = sum(record["fence"] == moved[n] for n, record in replicas(server, "x").items())
    assert stayed >= 70, "only those of the node that left have moved"
    assert app.helpers.get_service("x")["restarts"] == 0


def test_a_node_without_room_is_handed_nothing(server, app, start_node):
    start_node(app=APP)
    app.helpers.start_service("x", "quiet", replicas=10)
    wait_for(server, "x", 10)
    small = start_node("-c", "2", app=APP)
    wait_until(lambda: by_node(server, "x")[small.node_id] == 2, "it takes as many as it may")
    limited = start_node("-q", "default:3", app=APP)
    wait_until(lambda: by_node(server, "x")[limited.node_id] == 3, "and so does one with a limit for the queue")
    wait_until(lambda: sorted(by_node(server, "x").values()) == [2, 3, 5])
    assert not server.redis.llen("new-task")


def test_a_lost_message_delays_a_replica_that_is_handed_over_for_some_seconds_only(server, app, start_node):
    node = start_node(app=APP)
    app.helpers.start_service("x", "quiet", replicas=2)
    wait_for(server, "x", 2)
    server.redis.hset("task-alone", mapping={"task": "quiet", "data": "{}"})
    server.redis.lpush("{new-task}:inbox:" + node.node_id, "alone")  # nobody tells it
    server.wait_for_state("alone", "RUNNING")


# One after the other.


def test_new_data_rolls_through_one_replica_at_a_time(server, app, start_node):
    start_node(app=APP)
    start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=6, data={"word": "a"})
    wait_until(lambda: sorted(by_node(server, "x").values()) == [3, 3], "what is handed over is out of turn")
    runs = {(f"x:{n}", record["fence"]) for n, record in replicas(server, "x").items()}
    wait_until(lambda: runs <= {(row[1], row[4]) for row in notes(server, "x")}, "all have reached their start()")
    before, old = len(notes(server, "x")), uses(server, "x", 6)
    app.helpers.update_service("x", data={"word": "b"})

    def all_are_anew():
        anew = [now != then for now, then in zip(uses(server, "x", 6), old, strict=True)]
        assert anew == sorted(anew, reverse=True), "in their order: their start() may be reached in another one"
        return all(anew)

    wait_until(all_are_anew)
    wait_until(lambda: len(notes(server, "x")) == before + 6)
    again = notes(server, "x")[before:]
    assert {row[1] for row in again} == {f"x:{n}" for n in range(6)}
    assert {row[2] for row in again} == {"b"}
    assert {row["attempt"] for row in replicas(server, "x").values()} == {"1"}, "that is no restart"
    wait_until(lambda: app.helpers.get_service("x")["state"] == "running")


# Held up once it has made replicas, until `go`; `held` and `told` say how far it is.
IS_HELD_UP = """
from gevent import sleep
from pytask.store.services import Services
def reach(name):
    if name == "after-replicas" and not app.redis.exists("held", "go"):
        app.redis.set("held", 1)
        while not app.redis.exists("go"):
            sleep(0.02)
        app.redis.set("told", 0)
def tell_count(self, *words):
    tell(self, *words)
    app.redis.incr("told") if app.redis.exists("told") else None
points.reach, tell, Services.tell_count = reach, Services.tell_count, tell_count
"""


def test_a_replica_that_is_done_is_not_run_again_where_another_node_goes_on(server, app, start_node):
    """The node that has made it has not noted so yet when more of them are wanted."""
    app.helpers.start_service("x", "serve", data={"seconds": 0}, restart="on-failure", replicas=2)
    start_node(app=APP, changes=IS_HELD_UP)
    for number in range(2):
        server.wait_for_state(f"x:{number}", "SUCCESS")
    app.helpers.scale_service("x", 3)
    start_node(app=APP)
    server.wait_for_state("x:2", "SUCCESS")
    wait_until(lambda: server.redis.hget("{service-x}:applied", "replicas") == b"3", "the other one has noted it")
    server.wait_until_idle()
    assert sorted(row[1] for row in notes(server, "x")) == ["x:0", "x:1", "x:2"]


def test_a_node_that_was_held_up_does_not_tell_an_older_count(server, app, start_node):
    """It has made the first replicas; meanwhile another node has made more of them, and has told so."""
    app.helpers.start_service("x", "serve", replicas=2)
    start_node(app=APP, changes=IS_HELD_UP)
    wait_until(lambda: server.redis.exists("held"))
    app.helpers.scale_service("x", 3)
    start_node(app=APP)
    wait_until(lambda: told(server, "x", 3) == {("0", "3"), ("1", "3"), ("2", "3")})
    server.redis.set("go", 1)
    wait_until(lambda: int(server.redis.get("told") or 0) >= 1, "the other one tells as well")
    assert app.helpers.store.services.get_counts([b"x"]) == {b"x": b"3"}


def test_what_a_service_tells_goes_with_it(server, app):
    services = app.helpers.store.services
    services.tell_count(b"x", 5, 3)
    changed = services.get_changed()
    services.tell_count(b"x", 5, 3)
    services.tell_count(b"x", 4, 2)
    services.tell_count(b"x", 4, None)
    assert (services.get_counts([b"x"]), services.get_changed()) == ({b"x": b"3"}, changed)
    services.tell_count(b"x", 6, 1)
    assert (services.get_counts([b"x"]), services.get_changed()) == ({b"x": b"1"}, b"2")
    services.tell_count(b"x", 6, None)
    assert (services.get_counts([b"x"]), services.get_changed()) == ({b"x": None}, b"3")


def test_a_service_moves_to_another_queue(server, app, start_node):
    start_node(app=APP)
    mail = start_node("-q", "mail", app=APP)
    app.helpers.start_service("x", "serve", replicas=3)
    wait_for(server, "x", 3)
    app.helpers.update_service("x", queue="mail")
    wait_until(lambda: by_node(server, "x") == {mail.node_id: 3}, "all run there")
    wait_until(lambda: not server.redis.exists("{new-task}:claims"), "and nowhere else")


def test_another_node_goes_on_where_the_one_that_rolls_dies(server, app, start_node):
    nodes = [start_node(app=APP) for _ in range(3)]
    app.helpers.start_service("x", "serve", replicas=12, data={"word": "a"})
    wait_for(server, "x", 12)
    for node in nodes[1:]:
        node.signal(signal.SIGSTOP)
    app.helpers.update_service("x", data={"word": "b"})
    wait_until(lambda: b"rolling" in server.redis.hgetall("{service-x}:applied"), "the first one has begun")
    nodes[0].kill()
    for node in nodes[1:]:
        node.signal(signal.SIGCONT)
    wait_until(lambda: {row[2] for row in last_of_each(server, "x")} == {"b"})
    wait_until(lambda: app.helpers.get_service("x")["state"] == "running", "it has been brought to its end")
    wait_for(server, "x", 12)


def last_of_each(server: Server, name: str) -> list[list[str]]:
    return list({row[1]: row for row in notes(server, name)}.values())


# Removal.


def test_a_service_that_is_removed_while_no_node_lives_goes_when_one_comes(server, app, start_node):
    node = start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=3)
    wait_for(server, "x", 3)
    node.kill()
    assert app.helpers.remove_service("x") is True
    assert app.helpers.get_service("x")["state"] == "removing"
    start_node(app=APP)
    wait_until(lambda: app.helpers.get_service("x") is None and not replicas(server, "x"), "nothing is left")
    server.wait_until_idle()
    assert server.dead() == []


def test_a_service_in_a_queue_that_nobody_serves_waits_and_goes_with_the_first_node(server, app, start_node):
    start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=2, queue="idle")
    wait_until(lambda: app.helpers.get_service("x")["states"] == {"WAIT": 2}, "they wait")
    assert app.helpers.get_service("x")["state"] == "incomplete"
    app.helpers.remove_service("x")
    wait_until(lambda: {r.get("control") for r in replicas(server, "x").values()} == {"stop"})
    app.helpers.start_service("x", "serve", replicas=1, queue="idle")
    start_node("-q", "idle", app=APP)
    wait_for(server, "x", 1)


def test_a_record_that_somebody_removes_is_made_again(server, app, start_node, monkeypatch):
    start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=3)
    wait_for(server, "x", 3)
    server.redis.delete("task-x:1")
    server.redis.zadd("services", {"x": 0})
    wait_for(server, "x", 3)


# What is no good.


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"replicas": "1"}, "'task' is missing"),
        ({"task": "serve", "replicas": "-1"}, "0 to 100000"),
        ({"task": "serve", "replicas": "1000000000"}, "0 to 100000"),
        ({"task": "serve", "replicas": "many"}, "0 to 100000"),
        ({"task": "serve", "replicas": "nan"}, "0 to 100000"),
        ({"task": "serve", "data": "[1]"}, "'data' is not a JSON object"),
        ({"task": "serve", "data": "{"}, "'data' is not JSON"),
        ({"task": "serve", "restart": "sometimes"}, "always"),
        ({"task": "serve", "queue": "a b"}, "queue"),
        ({"task": "ser ve"}, "NAME of a task"),
        ({"task": "serve", "timeout": "soon"}, "timeout"),
        ({"task": "serve", "retries": "3"}, "no option retries"),
        ({"task": "serve", "replica": "3"}, "did you mean"),
        ({"task": b"\xff"}, "not UTF-8"),
    ],
)
def test_a_definition_that_is_no_good_is_shown_as_broken_and_what_runs_goes_on(server, app, fields, words):
    server.redis.hset("service-x", mapping=fields)
    server.redis.zadd("services", {"x": 0})
    found = app.helpers.get_service("x")
    assert found["state"] == "broken"
    assert words in found["problem"], found["problem"]


def test_broken_services_do_not_hold_up_the_others(server, app, start_node):
    node = start_node(app=APP)
    server.redis.set("service-string", "no hash")
    server.redis.hset("service-text", mapping={"task": "serve", "replicas": "many"})
    server.redis.hset("service-a b{}\n", mapping={"task": "serve"})
    names = ["string", "text", "a b{}\n", "absent", "x" * 1_000_000, b"\xff"]
    for name in names:
        server.redis.zadd("services", {name: 0})
    app.helpers.start_service("good", "serve", replicas=2)
    wait_for(server, "good", 2)
    found = {row["name"]: row for row in app.helpers.list_services()}
    assert {name: row["state"] for name, row in found.items()} == {
        "string": "broken",
        "text": "broken",
        "a b{}\n": "broken",
        "good": "running",
    }
    node.wait_for_log("service 'string' is broken: its key is no hash")
    node.wait_for_log("0 to 100000")
    server.redis.hset("service-text", "replicas", "1")
    server.redis.zadd("services", {"text": 0})
    wait_for(server, "text", 1)
    assert node.terminate() == 0


def test_a_definition_that_breaks_leaves_what_runs_as_it_is(server, app, start_node):
    node = start_node(app=APP)
    app.helpers.start_service("x", "serve", replicas=2)
    wait_until(lambda: len(notes(server, "x")) == 2)
    server.redis.hset("service-x", "replicas", "none")
    server.redis.zadd("services", {"x": 0})
    node.wait_for_log("service 'x' is broken")
    wait_for(server, "x", 2)
    assert len(notes(server, "x")) == 2


def test_a_service_of_no_replicas_has_none_and_of_a_task_that_nobody_knows_tries_again(server, app, start_node):
    start_node(app=APP, unknown_wait="0.5")
    app.helpers.start_service("none", "serve", replicas=0)
    app.helpers.start_service("nobody", "nobody", replicas=1)
    wait_until(lambda: (server.field("nobody:0", "output") or "").startswith("no node knew"), "it is told")
    server.wait_for_state("nobody:0", "RETRY")
    assert app.helpers.get_service("none")["state"] == "running"
    assert not replicas(server, "none")


def test_another_task_under_the_id_of_a_replica_is_left_alone(server, app, start_node):
    node = start_node(app=APP)
    server.create("x:1", "serve", json.dumps({"word": "mine"}))
    server.wait_for_state("x:1", "RUNNING")
    app.helpers.start_service("x", "serve", replicas=3)
    server.wait_for_state("x:2", "RUNNING")
    node.wait_for_log("there is another record under the id 'x:1'")
    app.helpers.remove_service("x")
    wait_until(lambda: set(replicas(server, "x")) == {1}, "the others are gone")
    assert server.state("x:1") == "RUNNING"
    assert server.field("x:1", "service") is None
