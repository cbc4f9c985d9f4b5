"""Tasks that are begun ahead of a place: what a node may do to lose no time between two short tasks."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import gevent
from conftest import wait_until

from pytask.keys import Keys
from pytask.node.run import Registry, Run
from pytask.node.runner import Runner
from pytask.store.claims import Claim

PLACES = 10


def create_all(server, ids, task, data="{}"):
    for task_id in ids:
        server.redis.hset(f"task-{task_id}", mapping={"task": task, "data": data})
    server.redis.lpush("new-task", *ids)


def test_no_more_tasks_run_at_once_than_the_node_has_places(server, start_node):
    ids = [f"t{number}" for number in range(2000)]
    create_all(server, ids, "crowd")
    start_node("--concurrency", str(PLACES))
    wait_until(lambda: server.redis.hget("{new-task}:counts", "SUCCESS") == b"2000", "all end")
    found = [int(server.field(task_id, "output")) for task_id in ids]
    assert max(found) == PLACES


def test_what_was_begun_ahead_goes_back_unharmed_where_those_before_it_go_on_for_ever(server, start_node):
    short = [f"short{number}" for number in range(500)]
    long = [f"long{number}" for number in range(60)]
    create_all(server, short, "crowd")
    create_all(server, long, "once-forever", '{"seconds": 600}')
    start_node("--concurrency", str(PLACES))
    wait_until(
        lambda: server.redis.hlen("{new-task}:claims") == PLACES and server.redis.llen("new-task") == 50,
        "the others wait in the queue again",
    )
    states = [server.state(task_id) for task_id in long]
    assert sum(state == "RUNNING" for state in states) == PLACES
    assert {state for state in states if state != "RUNNING"} <= {None, "WAIT"}, "none of them was lost"

    def started():
        return [task_id for task_id in long if server.redis.llen(f"runs:{task_id}")]

    wait_until(lambda: len(started()) >= PLACES, "as many as there are places have reached their start()")
    assert len(started()) == PLACES
    start_node("--concurrency", "50")
    wait_until(lambda: all(server.redis.llen(f"runs:{task_id}") == 1 for task_id in long), "another node has room")


def test_a_stop_reaches_a_task_whether_it_waits_for_a_place_or_not(server, start_node, app):
    short = [f"short{number}" for number in range(300)]
    long = [f"long{number}" for number in range(30)]
    create_all(server, short, "crowd")
    create_all(server, long, "forever")
    start_node("--concurrency", str(PLACES))
    wait_until(lambda: server.redis.hget("{new-task}:counts", "SUCCESS") == b"300", "the short ones end")
    for task_id in long:
        app.helpers.stop_task(task_id)
    for task_id in long:
        server.wait_for_state(task_id, "STOPPED")
    server.wait_until_idle()


def test_however_often_a_task_waits_for_a_place_one_look_at_the_late_is_to_come():
    registry = Registry(1)
    state = SimpleNamespace(registry=registry, settings=SimpleNamespace(max_data=1000))
    runner = Runner(state, None, None, None)
    before = None
    for number in range(100):
        run = Run(Keys().queue(), b"node", Claim(b"%d" % number, b"1", b"0", b"push", b"0"))
        registry.add(run)
        runner.launch(run)
        if before:
            registry.forget(before)  # it ends, and the run that waits has its place
        before = run
    made = [thing for thing in gc.get_objects() if isinstance(thing, gevent.Greenlet)]
    looks = [greenlet for greenlet in made if greenlet._run == runner._give_up_the_late]
    runs = [greenlet for greenlet in made if greenlet._run == runner._execute]
    gevent.killall(looks + runs)
    assert (len(looks), len(runs)) == (1, 100)


def test_a_task_that_waited_for_a_place_twice_since_it_was_reloaded_begins_once():
    registry = Registry(1)
    state = SimpleNamespace(registry=registry, settings=SimpleNamespace(max_data=1000))
    runner = Runner(state, None, None, None)
    first, reloaded, last = (
        Run(Keys().queue(), b"node", Claim(i, b"1", b"0", b"push", b"0")) for i in (b"1", b"2", b"3")
    )
    for run in (first, reloaded, last, reloaded):
        registry.add(run)
        runner.launch(run)
    registry.forget(first)
    begun = reloaded.greenlet
    registry.lend(reloaded)  # it waits for another task, and the last one has its place
    assert last.greenlet is not None
    registry.forget(last)
    assert reloaded.greenlet is begun
    gevent.killall([greenlet for greenlet in (first.greenlet, begun, last.greenlet) if greenlet])
