"""Limits and weights of queues on a node."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from conftest import ON_ONE_SERVER, wait_until

from pytask.node.run import Registry
from pytask.queue_names import check_queues


class Desk:
    """A node's registry in which queues claim and end by hand; what waits in a queue never ends."""

    def __init__(self, capacity: int, queues: str) -> None:
        self.registry = Registry(capacity, check_queues(queues).plans)
        self.shares = self.registry.shares
        self.started: Counter[str] = Counter()

    def claim(self, queue: str, most: int = 250) -> int:
        """What its intake does; nothing where there is no room."""
        share = self.registry.share_of(queue)
        share.back()
        if self.registry.free <= 0 or share.room() <= 0:
            return 0
        count = share.ask(most)
        share.got(count)
        for _ in range(count):
            self.registry.taken += 1
            self.shares.take(queue)
        self.started[queue] += count
        return count

    def end(self, queue: str, count: int = 1) -> None:
        for _ in range(count):
            self.registry.taken -= 1
            self.shares.leave(queue)

    def taken(self) -> dict[str, int]:
        return {queue: share.taken for queue, share in self.shares.by_queue.items()}


def test_queues_of_which_nothing_is_said_have_no_shares():
    assert Registry(10, check_queues("a,b").plans).shares is None


def test_places_go_to_hungry_queues_in_proportion_to_their_weights():
    desk = Desk(8, "a=3,b=1")
    assert desk.claim("a") == 8  # nobody else wants any yet
    assert desk.claim("b") == 0
    desk.shares.by_queue["b"].hungry = True
    for _ in range(20):
        desk.end("a" if desk.taken()["a"] else "b")
        desk.claim("a")
        desk.claim("b")
    assert desk.taken() == {"a": 6, "b": 2}


def test_what_a_queue_does_not_use_goes_to_the_others_and_comes_back_when_it_wants_it():
    desk = Desk(8, "a=3,b=1")
    desk.claim("a", 2)
    desk.shares.by_queue["a"].got(0)  # nothing else waits there
    assert desk.claim("b") == 6
    desk.shares.by_queue["a"].hungry = True
    desk.end("b", 2)
    assert desk.claim("b") == 0
    assert desk.claim("a") == 2


def test_where_there_is_one_place_the_turns_are_in_proportion():
    desk = Desk(1, "a=3,b=1")
    for share in desk.shares.all:
        share.hungry = True
    for _ in range(400):
        queue = "a" if desk.claim("a") else "b"
        assert queue == "a" or desk.claim("b")
        desk.end(queue)
    assert desk.started == {"a": 300, "b": 100}


def test_where_places_are_never_short_the_starts_are_in_proportion():
    desk = Desk(1000, "a=3,b=1")
    for share in desk.shares.all:
        share.hungry = True
    for _ in range(400):
        for queue in ("b", "a"):
            desk.end(queue, desk.claim(queue))
    assert desk.started["a"] / desk.started["b"] == pytest.approx(3, rel=0.05)


def test_a_queue_that_was_idle_has_saved_nothing_up():
    desk = Desk(1, "a=1,b=1")
    for _ in range(100):
        assert desk.claim("a") == 1
        desk.end("a")
    for share in desk.shares.all:
        share.hungry = True
    desk.started.clear()
    for _ in range(100):
        queue = "b" if desk.claim("b") else "a"
        assert queue == "b" or desk.claim("a")
        desk.end(queue)
    assert abs(desk.started["a"] - desk.started["b"]) <= 2


def test_a_queue_takes_no_more_than_its_limit_and_the_others_do_not_wait_for_it():
    desk = Desk(100, "a:5=1000,b")
    for share in desk.shares.all:
        share.hungry = True
    assert desk.claim("a") == 5
    assert desk.claim("a") == 0
    assert desk.claim("b") == 95
    desk.end("a")
    assert desk.claim("a") == 1


def test_nobody_waits_for_a_queue_whose_claim_is_not_answered(monkeypatch):
    desk = Desk(10, "a=1000,b=1")
    stuck = desk.shares.by_queue["a"]
    stuck.ask(1)
    assert desk.claim("b") in (0, 1)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    assert desk.registry.share_of("b").room() >= 8


def test_no_place_is_left_empty_while_somebody_wants_one():
    desk = Desk(7, "a=5,b=3,c:2=9,d")
    for share in desk.shares.all:
        share.hungry = True
    for turn in range(200):
        while any(desk.claim(queue, 1 + turn % 3) for queue in "abcd"):
            pass
        assert sum(desk.taken().values()) >= 7, desk.taken()
        busy = [queue for queue, count in desk.taken().items() if count]
        desk.end(busy[turn % len(busy)])


# On a node.


def running_in(app):
    found = app.helpers.get_queues(find=True)
    return {queue: row["running"] for queue, row in found.items() if queue != "default"}


def ended(helpers, *queues):
    found = helpers.get_queues()
    return {queue: sum(found[queue]["ended"].values()) for queue in queues}


def test_a_node_runs_at_most_so_many_tasks_of_a_queue_at_once(server, app, start_node):
    start_node("-q", "mail:2", "-q", "default")
    app.helpers.start_tasks([("crowd", {}, f"c{number}") for number in range(60)], queue="mail")
    app.helpers.start_tasks([("pause", {"seconds": 600})] * 20)
    wait_until(lambda: app.helpers.get_queues()["default"]["running"] == 20, "the others are unaffected")
    for number in range(60):
        server.wait_for_state(f"c{number}", "SUCCESS")
    assert {int(server.field(f"c{number}", "output")) for number in range(60)} <= {1, 2}


def test_a_limit_of_one_holds_while_tasks_run_on_other_queues(server, app, start_node):
    start_node("-q", "one:1", "-q", "default", "-c", "50")
    app.helpers.start_tasks([("noop",)] * 2000)
    app.helpers.start_tasks([("crowd", {}, f"c{number}") for number in range(30)], queue="one")
    for number in range(30):
        server.wait_for_state(f"c{number}", "SUCCESS")
    assert {server.field(f"c{number}", "output") for number in range(30)} == {"1"}


def test_places_of_a_node_go_to_queues_by_weight(server, app, start_node):
    for queue in ("mail", "crawl"):
        app.helpers.start_tasks([("sleep", {"seconds": 600})] * 60, queue=queue)
    start_node("-q", "mail=3", "-q", "crawl=1", "-c", "12")
    settled = wait_until(lambda: sum((found := running_in(app)).values()) == 12 and found, "all places are taken")
    # the first claim may come before the other queue is known to hold anything: then ends set it right
    for _ in range(12):
        if settled == {"mail": 9, "crawl": 3}:
            break
        over = "mail" if settled["mail"] > 9 else "crawl"
        victim = app.helpers.get_active_task_ids(over)[0]
        app.helpers.stop_task(victim)
        server.wait_for_state(victim, "STOPPED")
        settled = wait_until(
            lambda: sum((found := running_in(app)).values()) == 12 and found, "all are taken again"
        )
    assert settled == {"mail": 9, "crawl": 3}


@ON_ONE_SERVER
def test_short_tasks_are_started_in_proportion_and_no_queue_starves(server, app, start_node):
    for queue in ("mail", "crawl"):
        app.helpers.start_tasks([("noop",)] * 6000, queue=queue)
    start_node("-q", "mail=3", "-q", "crawl=1", result_ttl="0")
    last = {}

    def look():
        counts = ended(app.helpers, "mail", "crawl")
        if counts["mail"] < 5500:
            last.update(counts)
        return counts["mail"] >= 5500

    wait_until(look, deadline=60)
    assert last["crawl"] > 0.15 * last["mail"]
    assert last["crawl"] < 0.6 * last["mail"]
    wait_until(lambda: ended(app.helpers, "crawl")["crawl"] == 6000, "the rest is done, too", deadline=60)


def test_a_queue_with_nothing_waiting_lends_its_places(server, app, start_node):
    start_node("-q", "mail=9", "-q", "crawl=1", "-c", "10")
    app.helpers.start_tasks([("pause", {"seconds": 600})] * 20, queue="crawl")
    wait_until(lambda: app.helpers.get_queues()["crawl"]["running"] >= 10, "it has all of them")
    app.helpers.start_task("noop", task_id="T", queue="mail")
    app.helpers.stop_task(app.helpers.get_active_task_ids("crawl")[0])
    server.wait_for_state("T", "SUCCESS")


def test_weights_hold_where_every_queue_has_as_many_places_as_it_likes(server, app, start_node):
    start_node("-q", "a=1000", "-q", "b")
    ids = app.helpers.start_tasks([("noop",)] * 300, queue="b") + app.helpers.start_tasks(
        [("noop",)] * 300, queue="a"
    )
    for task_id in ids:
        server.wait_for_state(task_id, "SUCCESS")


def test_the_log_of_a_node_tells_its_limits_and_weights(start_node):
    start_node("-q", "mail:50=3", "-q", "default").wait_for_log("queues  mail:50=3, default; 1000 tasks at once")
