"""The scripts of limits and locks, one by one, on a real server: order, guards, and what a second run does."""

from __future__ import annotations

import time

import pytest
from conftest import wait_until
from moves import A, Queue

from pytask.limits import Limit
from pytask.store.limits import Turnover, member_of, split_member

PLACES = Limit("max-mail", 2)
RATE = Limit("rate-mail", 2, 3600.0)


def member(name: str) -> bytes:
    return member_of(b"new-task", name.encode())


def passes(*names: str, fence: int = 0) -> list[tuple[bytes, bytes]]:
    """Each with its own fence, in order, unless one is given."""
    return [(member(name), b"%d" % (fence or 10 + number)) for number, name in enumerate(names)]


@pytest.fixture
def queue(server):
    made = Queue(server, "shop", "mail")
    made.membership.join(A)
    yield made
    made.close()


@pytest.fixture
def limits(queue):
    return queue.store.limits


def ask(limits, limit, *names, spend=False, fence=0):
    (standing,) = limits.turn_over([Turnover(limit, asks=passes(*names, fence=fence), spend=spend)])
    return standing


def leave(limits, limit, *names, fence=99):
    (standing,) = limits.turn_over([Turnover(limit, leaves=passes(*names, fence=fence))])
    return standing


# places


def test_places_are_given_to_as_many_as_there_are_and_the_others_stand_in_line_in_order(limits):
    standing = ask(limits, PLACES, "a", "b", "c", "d")
    assert standing.answers == [-1, -1, 0, 1]
    assert (standing.length, standing.granted, standing.wait) == (2, [], None)


def test_whoever_asks_again_keeps_its_place_or_its_turn(limits):
    ask(limits, PLACES, "a", "b", "c", "d")
    assert ask(limits, PLACES, "d", "c", "b", fence=50).answers == [1, 0, -1]


def test_the_line_is_ordered_by_fence_whoever_asked_first(limits):
    ask(limits, PLACES, "a", "b")
    ask(limits, PLACES, "late", fence=40)
    assert ask(limits, PLACES, "early", fence=30).answers == [0]
    assert leave(limits, PLACES, "a").granted == [member("early")]


def test_nobody_overtakes_those_in_line_though_places_are_free(limits):
    ask(limits, PLACES, "a", "b", "c", "d", "e")
    wider = Limit(PLACES.label, 4)
    standing = ask(limits, wider, "new", fence=60)
    assert standing.granted == [member("c"), member("d")]
    assert standing.answers == [1]


def test_a_place_that_is_left_goes_to_the_first_in_line_at_once(limits):
    ask(limits, PLACES, "a", "b", "c", "d")
    standing = leave(limits, PLACES, "b")
    assert standing.granted == [member("c")]
    assert standing.length == 1
    assert ask(limits, PLACES, "c", fence=70).answers == [-1]


def test_to_leave_twice_frees_one_place(limits):
    ask(limits, PLACES, "a", "b", "c", "d")
    assert leave(limits, PLACES, "a").granted == [member("c")]
    assert leave(limits, PLACES, "a").granted == []


def test_an_old_run_cannot_give_up_the_place_of_a_newer_one(limits):
    ask(limits, PLACES, "a", "b", "c")
    ask(limits, PLACES, "a", fence=80)
    assert leave(limits, PLACES, "a", fence=79).granted == []
    assert leave(limits, PLACES, "a", fence=80).granted == [member("c")]


def test_whoever_stands_in_line_can_leave_it(limits):
    ask(limits, PLACES, "a", "b", "c", "d")
    assert leave(limits, PLACES, "c").length == 1
    assert leave(limits, PLACES, "a").granted == [member("d")]


def test_a_limit_that_nobody_uses_leaves_no_key(limits, queue):
    before = queue.state()
    ask(limits, PLACES, "a", "b", "c")
    leave(limits, PLACES, "a", "b", "c")
    assert queue.state() == before


def test_fewer_places_than_before_let_nobody_in_until_enough_have_left(limits):
    ask(limits, PLACES, "a", "b", "c")
    narrow = Limit(PLACES.label, 1)
    assert leave(limits, narrow, "a").granted == []
    assert leave(limits, narrow, "b").granted == [member("c")]


def test_a_member_tells_its_queue_and_its_id_also_with_spaces():
    assert split_member(member_of(b"shop:new-task:mail", b"an id \xff")) == (b"shop:new-task:mail", b"an id \xff")


# rates


def test_a_rate_gives_out_its_starts_and_then_one_after_the_other(limits):
    standing = ask(limits, RATE, "a", "b", "c", spend=True)
    assert standing.answers == [-1, -1, 0]
    assert 1790 < standing.wait <= 1800
    assert leave(limits, RATE, "a", "b").granted == []  # a start is used up, however soon it ends


def test_a_start_that_was_granted_in_line_is_kept_until_it_is_spent(limits):
    fast = Limit("rate-fast", 1, 0.2)
    ask(limits, fast, "a", "b", "c", spend=True)
    assert wait_until(lambda: leave(limits, fast).granted) == [member("b")]
    held = limits.get_members(fast, 0, 10, 10)
    assert held == ([(member("b"), b"11")], [(member("c"), b"12")])
    assert leave(limits, fast).wait is None  # only one at a time: none before that one is spent
    assert ask(limits, fast, "b", spend=True, fence=90).answers == [-1]
    assert wait_until(lambda: leave(limits, fast).granted) == [member("c")]


def test_a_start_that_is_kept_counts_from_the_moment_in_which_it_is_spent(limits):
    slow = Limit("rate-slow", 2, 0.4)
    assert ask(limits, slow, "a", "b").answers == [-1, -1]  # held
    assert ask(limits, slow, "c").answers == [0]
    until = time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() > until)
    assert leave(limits, slow).granted == []  # nothing is saved up beside what is held
    standing = ask(limits, slow, "a", "b", spend=True)
    assert standing.answers == [-1, -1]
    assert standing.granted == []
    assert standing.wait == pytest.approx(0.2, abs=0.05)


def test_a_start_that_was_kept_and_not_used_is_the_next_ones(limits):
    assert ask(limits, RATE, "a", "b", "c", "d").answers == [-1, -1, 0, 1]
    assert leave(limits, RATE, "b").granted == [member("c")]


def test_a_rate_that_rested_gives_out_no_more_than_its_starts(limits):
    fast = Limit("rate-fast", 3, 0.1)
    ask(limits, fast, "a", spend=True)
    wait_until(lambda: not limits.client.execute("EXISTS", limits.keys.limit(fast.label).meter))
    slow = Limit("rate-fast", 3, 3600.0)
    assert ask(limits, slow, "b", "c", "d", "e", "f", spend=True).answers == [-1, -1, -1, 0, 1]


def test_a_rate_leaves_no_key_behind_when_it_has_recovered(limits, queue):
    before = queue.state()
    ask(limits, Limit("rate-fast", 5, 0.01), "a", "b", spend=True)
    wait_until(lambda: queue.state() == before)


# recall


def test_recall_brings_parked_ids_to_the_head_in_their_order(queue):
    queue.push("x", "y", "z", "waits")
    claims = queue.claims.claim(A, 3)
    queue.claims.park(A, [(claim.id, claim.fence, b"4000000000") for claim in claims])
    assert queue.claims.recall([b"z", b"x", b"unknown"]) == [2, 2, 0]
    assert queue.waiting() == [b"z", b"x", b"waits"]
    assert queue.claims.recall([b"z", b"x"]) == [1, 1]
    assert [claim.how for claim in queue.claims.claim(A, 2)] == [b"back", b"back"]


def test_recall_leaves_ids_parked_where_nobody_serves_the_queue(queue):
    claim = queue.take_one(b"T")
    queue.claims.park(A, [(claim.id, claim.fence, b"4000000000")])
    queue.redis.set(queue.keys.paused, 1)
    assert queue.claims.recall([b"T", b"unknown"]) == [3, 0]
    queue.redis.delete(queue.keys.paused)
    queue.membership.leave(A, b"")
    assert queue.claims.recall([b"T"]) == [3]
    queue.membership.join(A)
    assert queue.claims.recall([b"T"]) == [2]


def test_recall_leaves_what_is_claimed_to_its_owner(queue):
    queue.take_one(b"T")
    before = queue.state()
    assert queue.claims.recall([b"T"]) == [1]
    assert queue.state() == before


# locks


LOCK = "unique-mail-0123"


def test_a_lock_has_one_owner_until_that_gives_it_up(limits):
    assert limits.lock([(LOCK, b"first", b"0", b"")]) == [None]
    assert limits.lock([(LOCK, b"second one", b"5", b"")]) == [b"first"]
    assert limits.lock([(LOCK, b"first", b"7", b"")]) == [None]
    assert limits.unlock([(LOCK, b"second one", b"9"), (LOCK, b"first", b"7")]) == [0, 1]
    assert limits.lock([(LOCK, b"second one", b"5", b"")]) == [None]


def test_a_lock_is_taken_over_only_from_the_owner_that_was_seen(limits):
    limits.lock([(LOCK, b"first", b"7", b"")])
    assert limits.lock([(LOCK, b"second", b"0", b"somebody")]) == [b"first"]
    assert limits.lock([(LOCK, b"second", b"0", b"first")]) == [None]
    assert limits.lock([(LOCK, b"third", b"0", b"first")]) == [b"second"]


def test_an_old_run_cannot_give_up_the_lock_of_a_newer_one(limits):
    limits.lock([(LOCK, b"T", b"20", b"")])
    assert limits.lock([(LOCK, b"T", b"7", b"")]) == [None]
    assert limits.unlock([(LOCK, b"T", b"7")]) == [0]
    assert limits.unlock([(LOCK, b"T", b"20")]) == [1]


# glance


def test_glance_tells_of_records_and_passes_over_what_is_none(limits, queue):
    queue.redis.set("shop:task-text", "no hash")
    queue.redis.hset("shop:task-raw", "task", "noop")
    queue.redis.hset("shop:task-runs", mapping={"task": "noop", "state": "RUNNING", "at": "q", "fence": "7"})
    none, absent, raw, runs = limits.glance([b"text", b"absent", b"raw", b"runs"])
    assert none is absent is None
    assert raw == (b"", b"", b"", b"", b"", b"")
    assert runs == (b"RUNNING", b"q", b"7", b"", b"", b"")
