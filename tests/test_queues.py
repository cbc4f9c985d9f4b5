"""Queues as a whole, with real nodes: pause, resume, purge, the dead list, and how each queue stands."""

from __future__ import annotations

import threading
import time

import pytest
from conftest import ON_ONE_SERVER, wait_until
from moves import A, Broom, Queue

from pytask.errors import ConfigurationError, InvalidInputError, StoreRefused, TaskGone
from pytask.store.purge import BATCH, MOVE_MOST
from pytask.store.store import Store


@pytest.fixture
def helpers(app):
    return app.helpers


@pytest.fixture
def queue(server):
    """The default queue, with one node that does nothing by itself."""
    made = Queue(server, "", "")
    made.membership.join(A)
    yield made
    made.close()


def figures(helpers, queue="default"):
    return helpers.get_queues()[queue]


# Pause and resume.


def test_nothing_of_a_paused_queue_starts_on_any_node_until_it_is_resumed(server, helpers, start_node, events):
    nodes = [start_node("-q", "default", "-q", "mail") for _ in range(2)]
    running = helpers.start_task("loop", queue="mail")
    events.wait_for(running, "turn")
    helpers.pause_queue("mail")
    for number in range(20):
        helpers.start_task("noop", task_id=f"mail-{number}", queue="mail")
        helpers.start_task("noop", task_id=f"other-{number}")
    helpers.start_task("noop", task_id="due", queue="mail", due=time.time() + 0.3)
    for number in range(20):
        server.wait_for_state(f"other-{number}", "SUCCESS")
    for node in nodes:
        node.wait_for_log("queue mail is paused")
    turns = events.names(running).count("turn")
    wait_until(lambda: events.names(running).count("turn") > turns, "what runs goes on")
    assert server.redis.llen("new-task:mail") == 21
    assert {server.state(f"mail-{number}") for number in range(20)} == {None}
    assert figures(helpers, "mail")["paused"] == pytest.approx(time.time(), abs=60)

    assert helpers.resume_queue("mail") is True
    for number in range(20):
        server.wait_for_state(f"mail-{number}", "SUCCESS")
    server.wait_for_state("due", "SUCCESS")
    assert helpers.resume_queue("mail") is False
    assert figures(helpers, "mail")["paused"] is None
    for node in nodes:
        node.wait_for_log("queue mail is resumed")


def test_a_raw_producer_pauses_and_resumes_with_set_and_del(server, start_node):
    start_node()
    server.redis.set("{new-task}:paused", "1")
    server.create("a", "noop")
    wait_until(lambda: server.redis.llen("new-task") == 1 and server.redis.exists("{new-task}:nodes"))
    server.create("b", "noop")
    wait_until(lambda: not server.redis.keys("{new-task}:inbox:*"))
    assert server.redis.llen("new-task") == 2
    server.redis.delete("{new-task}:paused")
    server.wait_for_state("a", "SUCCESS")
    server.wait_for_state("b", "SUCCESS")


def test_a_task_that_becomes_due_while_its_queue_is_paused_waits_in_the_queue(server, helpers, start_node):
    start_node()
    helpers.start_task("noop", task_id="T", due=time.time() + 2.5)
    server.wait_for_state("T", "SCHEDULED")
    helpers.pause_queue()
    wait_until(lambda: server.redis.lrange("new-task", 0, -1) == [b"T"], "it is promoted")
    assert server.state("T") == "SCHEDULED"
    helpers.resume_queue("default")
    server.wait_for_state("T", "SUCCESS")


def test_a_stop_of_what_waits_in_a_paused_queue_is_obeyed_when_it_is_resumed(server, helpers, start_node):
    start_node()
    helpers.pause_queue()
    helpers.start_task("sleep", task_id="T")
    assert helpers.stop_task("T")
    helpers.resume_queue()
    server.wait_for_state("T", "STOPPED")
    assert not server.redis.exists("runs:T")


def test_a_claim_of_a_paused_queue_takes_nothing_and_gives_the_inbox_back(queue):
    queue.push("1", "2")
    assert queue.claims.wait_for_id(A, 1)
    queue.redis.set(queue.keys.paused, "whatever it holds")
    assert queue.claims.claim(A, 10) is None
    assert queue.waiting() == [b"1", b"2"]
    assert queue.claims.claim(A, 10) is None
    queue.redis.delete(queue.keys.paused)
    assert list(queue.take()) == [b"1", b"2"]


def test_a_node_that_ends_gives_a_paused_queue_back_what_it_had(server, helpers, start_node, events):
    node = start_node()
    helpers.start_task("forever", task_id="T")
    events.wait_for("T", "turn")
    helpers.pause_queue()
    assert node.terminate() == 0
    start_node().wait_for_log("queue default is paused")
    assert server.state("T") == "WAIT"
    assert server.redis.lrange("new-task", 0, -1) == [b"T"]


@pytest.mark.parametrize("bad", ["a b", "x" * 65, "new/task", 7, None, b"mail"])
def test_a_name_that_is_no_queue_is_refused(helpers, server, bad):
    for act in (
        helpers.pause_queue,
        helpers.resume_queue,
        helpers.purge_queue,
        helpers.requeue_dead,
        helpers.drop_dead,
        helpers.get_ended,
    ):
        with pytest.raises(ConfigurationError, match="queue name"):
            act(bad)
    assert not server.redis.keys("*")


# Purge.


def test_a_purge_removes_what_waits_and_lets_go_on_what_runs(server, helpers, start_node, events):
    start_node("-c", "1")
    running = helpers.start_task("loop")
    events.wait_for(running, "turn")
    for number in range(3):
        helpers.start_task("noop", task_id=f"w{number}")
    helpers.start_task("noop", task_id="elsewhere", queue="mail")
    assert helpers.purge_queue() == 3
    for number in range(3):
        events.wait_for(f"w{number}", "purged")
        assert not server.redis.exists(f"task-w{number}")
    assert server.state(running) == "RUNNING"
    assert helpers.purge_queue() == 0
    assert server.redis.llen("new-task:mail") == 1
    helpers.stop_task(running)
    server.wait_for_state(running, "STOPPED")
    server.create("after", "noop")
    server.wait_for_state("after", "SUCCESS")
    assert not server.redis.exists("{new-task}:purged")


def test_who_waits_for_a_task_that_is_purged_learns_that_it_is_gone(helpers):
    handle = helpers.start_task("noop")
    threading.Timer(0.3, helpers.purge_queue).start()
    with pytest.raises(TaskGone):
        handle.get(timeout=20)


def test_a_purge_removes_kept_events_with_the_record(server, helpers, start_node):
    node = start_node()
    helpers.start_task("boom", task_id="T", retries=3, retry_delay=3600)
    server.wait_for_state("T", "RETRY")
    wait_until(lambda: server.redis.zcard("{new-task}:due") == 1)
    assert server.redis.exists("{task-T}:events")
    assert helpers.purge_queue(scheduled=True) == 1
    assert server.redis.exists("{task-T}:events", "task-T", "{new-task}:due") == 0
    assert node.process.poll() is None


def test_a_purge_removes_in_batches_and_tells_how_far_it_is(server, helpers):
    number = 2 * BATCH + 10
    ids = helpers.start_tasks([("noop",)] * number)
    told = []
    assert helpers.purge_queue(progress=lambda done, total: told.append((done, total))) == number
    assert told == [(BATCH, number), (2 * BATCH, number), (number, number)]
    assert server.redis.keys("*") == []
    assert len(ids) == number


def test_what_waits_for_a_time_stays_unless_it_is_asked_for(server, helpers, start_node):
    node = start_node()
    helpers.start_task("noop", task_id="late", due=time.time() + 600)
    server.wait_for_state("late", "SCHEDULED")
    node.terminate()
    helpers.start_task("noop", task_id="soon")
    server.redis.lpush("new-task", "late")  # a repeated push: the task is parked all the same
    assert helpers.purge_queue() == 1
    assert server.state("late") == "SCHEDULED"
    assert server.redis.zcard("{new-task}:due") == 1
    assert helpers.purge_queue(scheduled=True) == 1
    assert server.redis.keys("{new-task}:due") == []
    assert not server.redis.exists("task-late")


def test_ended_and_stopped_tasks_of_a_repeated_push_keep_their_records(server, helpers):
    for state in ("SUCCESS", "STOPPED", "HELD"):
        server.create(state, "noop", state=state)
    server.redis.lpush("new-task", "no-record")
    server.redis.lpush("new-task", "text")
    server.redis.set("task-text", "no hash")
    assert helpers.purge_queue() == 1  # the id without a record
    assert {server.state(state) for state in ("SUCCESS", "STOPPED", "HELD")} == {"SUCCESS", "STOPPED", "HELD"}
    assert server.redis.get("task-text") == b"no hash"


def test_a_purge_that_was_interrupted_is_carried_on_by_the_next_one(server, queue, helpers):
    helpers.start_tasks([("noop", {}, f"t{number}") for number in range(BATCH + 5)])
    purge = queue.store.purge()
    assert purge.set_aside() == BATCH + 5
    assert queue.waiting() == []
    assert purge.remove_some() == (BATCH, BATCH)
    assert figures(helpers)["purging"] == 5
    helpers.start_task("noop", task_id="pushed-meanwhile")
    assert helpers.purge_queue() == 6
    assert not server.redis.keys("task-*")


def test_a_purge_moves_in_parts_what_it_cannot_rename(server, queue):
    queue.redis.lpush(queue.keys.purged, "left")
    queue.redis.lpush(queue.keys.key, *range(MOVE_MOST + 3))
    assert queue.store.purge().set_aside() == MOVE_MOST + 4
    assert queue.waiting() == []
    assert queue.redis.lrange(queue.keys.purged, -2, -1) == [b"0", b"left"]


def test_two_purges_at_a_time_remove_each_task_once(server, queue, helpers):
    helpers.start_tasks([("noop", {}, f"t{number}") for number in range(2 * BATCH)])
    first, second = queue.store.purge(), queue.store.purge()
    assert first.set_aside() == second.set_aside() == 2 * BATCH
    ids = queue.redis.lrange(queue.keys.purged, -BATCH, -1)[::-1]
    assert first.remove_some() == (BATCH, BATCH)
    assert second._drop(ids, set()) == 0  # it had read the same batch, and comes late
    assert second.remove_some() == (BATCH, BATCH)
    assert first.remove_some() is None


@ON_ONE_SERVER
def test_what_a_dead_node_had_begun_goes_back_and_is_not_purged(server, helpers, start_node):
    node = start_node()
    helpers.start_task("sleep", {"seconds": 600}, task_id="T")
    wait_until(lambda: server.redis.llen("runs:T") == 1, "its start() has noted the first run")
    helpers.pause_queue()
    node.kill()
    helper = start_node()  # its Monitor puts the id back
    wait_until(lambda: server.redis.lrange("new-task", 0, -1) == [b"T"], "it is put back", 40)
    assert helpers.purge_queue() == 0
    assert server.redis.lrange("new-task", 0, -1) == [b"T"]
    helpers.resume_queue()
    wait_until(lambda: server.redis.llen("runs:T") == 2, "it starts again")
    assert server.deliveries("T") == 1
    helper.kill()


def test_a_purge_removes_a_task_that_has_come_due_with_its_mark(server, queue):
    queue.redis.hset("task-T", mapping={"task": "noop", "state": "RETRY", "fence": "5", "closed": "5"})
    queue.redis.zadd(queue.keys.due, {"T": 1})
    assert queue.claims.promote()[0] == 1
    purge = queue.store.purge()
    assert purge.set_aside() == 1
    assert purge.remove_some() == (1, 1)
    assert queue.mark() is None
    assert set(queue.state()) == {queue.keys.nodes}


def test_a_claim_of_an_id_that_is_purged_meanwhile_keeps_its_record(server, queue):
    queue.redis.hset("task-T", "task", "noop")
    claim = queue.take_one()
    queue.push("T")
    purge = queue.store.purge()
    assert purge.set_aside() == 1
    assert purge.remove_some() == (1, 0)
    assert queue.redis.exists("task-T")
    assert queue.mark() == A + b" " + claim.fence


def test_the_sweep_leaves_alone_what_is_being_purged(server):
    broom = Broom(server)
    try:
        broom.has("T", state="WAIT")
        broom.push("T")
        assert broom.store.purge().set_aside() == 1
        broom.sweep_suspects_nothing()
        broom.store.purge().remove_some()
        broom.sweep_suspects_nothing()
    finally:
        broom.close()


def test_a_queue_that_is_no_list_is_not_purged(server, helpers):
    server.redis.set("new-task", "text")
    with pytest.raises(StoreRefused, match="WRONGTYPE"):
        helpers.purge_queue()
    assert server.redis.get("new-task") == b"text"


# The dead list.


def test_dead_ids_are_read_pushed_back_and_dropped(server, helpers, start_node):
    start_node(hash_wait="0")
    server.redis.lpush("new-task", *(f"d{number}" for number in range(5)))
    wait_until(lambda: len(server.dead()) == 5)
    assert sorted(helpers.get_dead_task_ids()) == [f"d{number}" for number in range(5)]
    assert figures(helpers)["dead"] == 5
    server.redis.hset("task-d1", "task", "noop")
    assert helpers.requeue_dead("default", ["d1", "unknown"]) == 1
    server.wait_for_state("d1", "SUCCESS")
    assert helpers.drop_dead(ids=["d2", b"d2", "nothing"]) == 1
    for number in (0, 3, 4):
        server.redis.hset(f"task-d{number}", "task", "noop")
    assert helpers.requeue_dead() == 3
    for number in (0, 3, 4):
        server.wait_for_state(f"d{number}", "SUCCESS")
    assert helpers.get_dead_task_ids() == []
    assert helpers.drop_dead() == 0


def test_an_id_that_dies_again_is_pushed_back_once(server, helpers, start_node):
    start_node(hash_wait="0")
    server.redis.lpush("{new-task}:dead", "a", "b")
    assert helpers.requeue_dead() == 2
    wait_until(lambda: sorted(server.dead()) == [b"a", b"b"])


def test_all_dead_ids_are_dropped_in_parts(server, helpers):
    server.redis.lpush("{new-task:mail}:dead", *range(1201))
    assert helpers.drop_dead("mail") == 1201
    assert server.redis.keys("*") == []


def test_a_hash_that_did_not_come_is_waited_for_anew_after_a_requeue(queue):
    queue.redis.lpush(queue.keys.dead, "T")
    queue.redis.zadd(queue.keys.missing, {"T": 1})
    assert queue.store.queues.requeue_dead("", [b"T"]) == 1
    assert queue.waiting() == [b"T"]
    assert not queue.redis.exists(queue.keys.missing)
    assert queue.store.queues.requeue_dead("", [b"T"]) == 0


def test_ids_that_are_none_are_refused(helpers):
    for bad in ("d1", b"d1"):
        with pytest.raises(InvalidInputError, match="list of ids"):
            helpers.requeue_dead(ids=bad)
        with pytest.raises(InvalidInputError, match="list of ids"):
            helpers.drop_dead(ids=bad)
    with pytest.raises(InvalidInputError, match="str or bytes"):
        helpers.drop_dead(ids=[7])


# How each queue stands.


def test_every_queue_that_exists_is_listed_with_its_figures(server, helpers, start_node, events):
    node = start_node("-q", "mail")
    helpers.start_task("loop", task_id="runs", queue="mail")
    events.wait_for("runs", "turn")
    helpers.start_task("noop", task_id="ends", queue="mail")
    helpers.start_task("fail", task_id="fails", queue="mail")
    helpers.start_task("noop", task_id="due", queue="mail", due=time.time() + 600)
    helpers.start_task("noop", task_id="waits", queue="nobody-serves")
    server.redis.set("new-task:text", "no list")
    server.redis.set("other:new-task", "another namespace")
    server.redis.lpush("{new-task:mail}:dead", "d")
    wait_until(lambda: sum(figures(helpers, "mail")["ended"].values()) == 2)
    found = wait_until(lambda: (f := helpers.get_queues())["mail"]["due"] and f)
    assert list(found) == ["default", "mail", "nobody-serves", "text"]
    assert found["mail"] == {
        "waiting": 0,
        "running": 1,
        "due": 1,
        "dead": 1,
        "purging": 0,
        "nodes": 1,
        "paused": None,
        "ended": {"SUCCESS": 1, "ERROR": 1},
    }
    assert found["nobody-serves"]["waiting"] == 1
    assert found["nobody-serves"]["nodes"] == 0
    assert "WRONGTYPE" in found["text"]["error"]
    assert list(helpers.get_queues(find=False)) == ["default"]
    ended = helpers.get_ended("mail")
    assert {task_id for task_id, _ in ended} == {"ends", "fails"}
    assert ended[0][1] >= ended[1][1] > time.time() - 60
    assert helpers.get_ended("mail", 1, 1) == ended[1:]
    assert helpers.get_ended("mail", 0) == []
    assert helpers.get_ended() == []
    node.kill()


def test_whatever_somebody_wrote_pauses_a_queue(server, helpers):
    for text in ("yes", "nan", "-1", "inf"):
        server.redis.set("{new-task}:paused", text)
        assert figures(helpers)["paused"] == 0


def test_an_owner_that_is_being_reaped_counts_still(server, queue, helpers):
    queue.push("a", "b")
    queue.take(A)
    queue.redis.hset(queue.keys.nodes, b"-" + A, "1")
    queue.redis.hdel(queue.keys.nodes, A)
    assert figures(helpers)["running"] == 2


def test_a_store_in_another_namespace_finds_its_own_queues_alone(server, app):
    with_namespace = Store(app.target, "shop")
    try:
        server.redis.lpush("new-task:mail", "a")
        server.redis.lpush("shop:new-task:post", "b")
        server.redis.sadd("{shop:new-task:x}:again", "c")
        server.redis.lpush("wshop:new-task:y", "d")
        assert with_namespace.queues.find() == {"post", "x"}
        assert app.helpers.store.queues.find() == {"mail"}
    finally:
        with_namespace.close()
