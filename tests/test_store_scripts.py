"""The scripts of a queue's slot, one by one, on a real server: guards, answers, and what a second run does."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from moves import MAIL, A, B, Q, Queue, Task

from pytask.errors import NodeGone, StoreRefused
from pytask.store.addresses import resolve_target
from pytask.store.claims import Claim
from pytask.store.scripts import script, script_names
from pytask.store.store import Store


@pytest.fixture(params=["", "mail"])
def queue(request, server):
    """A queue that one node serves: the default one, and a named one in a namespace."""
    made = Queue(server, "shop" if request.param else "", request.param)
    made.membership.join(A)
    yield made
    made.close()


@pytest.fixture
def task(server):
    made = Task(server)
    yield made
    made.close()


def test_every_script_says_its_keys_its_arguments_and_what_it_returns():
    for name in script_names():
        head = script(name).source.split("\n\n")[0]
        assert head.startswith(f"-- {name}: "), name
        assert "-- KEYS" in head, name
        assert "-- Returns" in head, name


# create


def test_a_record_is_created_once_whoever_asks_and_however_often(server):
    store = Store(resolve_target(server.url), "")
    rows = [(b"a", ["task", "noop", "data", "{}"]), (b"b", ["task", "noop"])]
    assert store.records.create(rows) == [1, 1]
    server.redis.hset("task-a", "state", "RUNNING")
    assert store.records.create([(b"c", ["task", "hello"]), *rows]) == [1, 0, 0]
    assert server.redis.hgetall("task-a") == {b"task": b"noop", b"data": b"{}", b"state": b"RUNNING"}
    assert server.redis.hgetall("task-b") == {b"task": b"noop"}
    assert server.redis.hgetall("task-c") == {b"task": b"hello"}
    server.redis.set("task-d", "no hash")
    assert store.records.create([(b"d", ["task", "noop"])]) == [0]
    assert store.records.create([]) == []
    store.close()


# claim


def test_a_claim_takes_ids_in_turn_and_gives_each_a_growing_fence(queue):
    before = int(time.time() * 1e6)
    queue.push("1", "2", "3")
    queue.redis.rpush(queue.keys.key, "next")
    claims = queue.claims.claim(A, 10)
    assert [claim.id for claim in claims] == [b"next", b"1", b"2", b"3"]
    fences = [int(claim.fence) for claim in claims]
    assert fences == sorted(set(fences))
    assert fences[0] >= before - 60_000_000
    assert int(queue.redis.get(queue.keys.fence)) == fences[-1]
    assert {claim[2:] for claim in claims} == {(b"0", b"push", b"0")}
    assert queue.mark(b"1") == A + b" " + claims[1].fence
    assert sorted(queue.claims.get_claims_of(A)) == sorted(claims)
    assert queue.waiting() == []


def test_a_fence_never_falls_behind_the_last_one(queue):
    queue.redis.set(queue.keys.fence, "4000000000000000")
    assert queue.take_one().fence == b"4000000000000001"


def test_a_node_that_is_unknown_or_reaped_claims_nothing(queue):
    queue.push("T")
    before = queue.state()
    with pytest.raises(NodeGone):
        queue.take(B)
    queue.redis.hset(queue.keys.nodes, b"-" + B, "7")
    with pytest.raises(NodeGone):
        queue.take(B)
    queue.redis.hdel(queue.keys.nodes, b"-" + B)
    assert queue.state() == before


def test_a_claim_takes_its_inbox_first(queue):
    queue.push("1", "2", "3")
    assert queue.claims.wait_for_id(A, 1)
    assert queue.redis.lrange(queue.keys.inbox(A), 0, -1) == [b"1"]
    assert [claim.id for claim in queue.claims.claim(A, 2)] == [b"1", b"2"]
    assert not queue.redis.exists(queue.keys.inbox(A))


def test_a_wait_for_an_id_that_does_not_come_ends(queue):
    assert not queue.claims.wait_for_id(A, 0.05)


@pytest.mark.parametrize(
    ("waiting", "nodes", "most", "taken"), [(10, 2, 100, 5), (11, 3, 100, 4), (1, 5, 9, 1), (9, 1, 4, 4)]
)
def test_a_claim_is_at_most_its_fair_share(queue, waiting, nodes, most, taken):
    for number in range(1, nodes):
        queue.membership.join(b"n:%d:0" % number)
    queue.push(*map(str, range(waiting)))
    assert len(queue.take(most=most)) == taken
    assert len(queue.waiting()) == waiting - taken


def test_an_id_that_is_owned_is_noted_and_not_claimed_twice(queue):
    claim = queue.take_one()
    queue.membership.join(B)
    queue.push("T", "T", "U")
    assert list(queue.take(B)) == [b"U"]
    assert queue.redis.smembers(queue.keys.again) == {b"T"}
    assert queue.mark() == A + b" " + claim.fence


def test_an_id_that_waits_twice_is_claimed_once(queue):
    queue.push("T", "T", "T")
    assert list(queue.take()) == [b"T"]
    assert queue.redis.smembers(queue.keys.again) == {b"T"}
    assert queue.waiting() == []


def test_a_claim_pops_at_most_four_times_what_it_may_take(queue):
    queue.take_one(b"busy")
    queue.push(*["busy"] * 30, "T")
    assert queue.take(most=2) == {}
    assert len(queue.waiting()) == 31 - 8
    assert queue.redis.smembers(queue.keys.again) == {b"busy"}


def test_a_claim_knows_what_was_parked_put_back_or_lost(queue):
    now = time.time()
    queue.redis.zadd(queue.keys.due, {"early": now + 1000, "due": now - 10})
    queue.redis.hset(queue.keys.claims, mapping={"back": "-back", "lost": "-lost push", "again": "-lost back"})
    queue.push("early", "due", "back", "lost", "again")
    seen = {task_id: claim[2:] for task_id, claim in queue.take().items()}
    assert seen == {
        b"early": (b"0", b"push", b"1"),
        b"due": (b"0", b"push", b"0"),
        b"back": (b"0", b"back", b"0"),
        b"lost": (b"1", b"push", b"0"),
        b"again": (b"1", b"back", b"0"),
    }
    assert queue.redis.zcard(queue.keys.due) == 2, "due is not touched"


def test_a_claim_takes_500_at_most_and_ids_of_any_bytes(queue):
    odd = [b"", b"\xff\x00", b"a b\n", b"*", b"x" * 513, b"-back", A]
    queue.push(*odd, *map(str, range(600)))
    taken = queue.take(most=10_000)
    assert len(taken) == 500
    assert set(odd) <= set(taken)
    assert set(queue.owned()) == set(taken)


def test_a_queue_that_is_no_list_is_refused_and_left_alone(queue):
    queue.redis.set(queue.keys.key, "text")
    with pytest.raises(StoreRefused):
        queue.take()
    assert queue.redis.get(queue.keys.key) == b"text"


# release


@pytest.mark.parametrize("mode", ["end", "none", "early", "head", "dead"])
@pytest.mark.parametrize("again", [False, True])
def test_a_release_gives_the_claim_up_once(queue, mode, again):
    claim = queue.take_one()
    queue.redis.zadd(queue.keys.due, {"T": 5})
    queue.redis.hset(queue.keys.control, "T", "stop")
    queue.push("other")
    if again:
        queue.redis.sadd(queue.keys.again, "T")
    queue.release(claim, mode, b"SUCCESS")
    assert queue.owned() == []
    assert queue.mark() is None
    assert not queue.redis.exists(queue.keys.again, queue.keys.control)
    assert (queue.redis.zscore(queue.keys.due, "T") is not None) == (mode == "early")
    back = {"head": [b"T", b"other"]}.get(mode, [b"other", b"T"] if again else [b"other"])
    assert queue.waiting() == back
    assert queue.redis.lrange(queue.keys.dead, 0, -1) == ([b"T"] if mode == "dead" else [])
    assert queue.redis.hgetall(queue.keys.counts) == ({b"SUCCESS": b"1"} if mode == "end" else {})
    assert queue.redis.zrange(queue.keys.ended, 0, -1) == ([b"T"] if mode == "end" else [])
    before = queue.state()
    queue.release(claim, mode, b"SUCCESS")
    assert queue.state() == before


@pytest.mark.parametrize("mode", ["end", "none", "early", "head", "dead"])
def test_a_release_of_a_claim_that_is_not_ours_does_nothing(queue, mode):
    claim = queue.take_one()
    queue.membership.join(B)
    queue.redis.sadd(queue.keys.again, "T")
    before = queue.state()
    queue.release(claim._replace(fence=b"%d" % (int(claim.fence) - 1)), mode)
    queue.release(claim._replace(fence=claim.fence[:-1]), mode)
    queue.release(claim, mode, node=B)
    assert queue.state() == before


def test_a_release_leaves_the_newer_claim_of_another_node_alone(queue):
    claim = queue.take_one()
    queue.redis.hset(queue.keys.claims, "T", B + b" 99")
    queue.release(claim)
    assert queue.mark() == B + b" 99"
    assert queue.owned() == []


def test_one_call_releases_many_in_many_ways(queue):
    queue.push(*"abcdef")
    claims = queue.take()
    modes = {b"a": ("end", b"SUCCESS"), b"b": ("end", b"ERROR"), b"c": ("end", b"SUCCESS"), b"d": ("head", b"")}
    rows = [(i, claims[i].fence, *modes.get(i, ("dead", b""))) for i in sorted(claims)]
    queue.claims.release(A, [*rows, (b"g", b"1", "head", b"")])
    assert queue.redis.hgetall(queue.keys.counts) == {b"SUCCESS": b"2", b"ERROR": b"1"}
    assert set(queue.redis.lrange(queue.keys.dead, 0, -1)) == {b"e", b"f"}
    assert queue.waiting() == [b"d"]


def test_the_newest_ended_and_dead_ids_are_kept(queue, monkeypatch):
    monkeypatch.setattr("pytask.store.claims.KEEP_DEAD", 2)
    for mode in ("end", "dead"):
        for number in range(5):
            claim = queue.take_one(b"%s%d" % (mode.encode(), number))
            queue.claims.release(A, [(claim.id, claim.fence, mode, b"SUCCESS")], 3)
    assert queue.redis.zrange(queue.keys.ended, 0, -1) == [b"end2", b"end3", b"end4"]
    assert queue.redis.lrange(queue.keys.dead, 0, -1) == [b"dead4", b"dead3"]
    assert queue.redis.hget(queue.keys.counts, "SUCCESS") == b"5"


def test_no_ended_id_is_kept_where_none_is_wanted_and_all_are_counted(queue):
    queue.redis.zadd(queue.keys.ended, {"old": 1})
    claim = queue.take_one()
    queue.claims.release(A, [(claim.id, claim.fence, "end", b"SUCCESS")], 0)
    assert not queue.redis.exists(queue.keys.ended)
    assert queue.redis.hgetall(queue.keys.counts) == {b"SUCCESS": b"1"}


# park, promote, nudge, miss


@pytest.mark.parametrize("again", [False, True])
def test_a_claim_is_parked_until_its_time_once(queue, again):
    claim = queue.take_one()
    if again:
        queue.push("T")
        queue.take()
    queue.claims.park(A, [(b"T", claim.fence, b"9000000000")])
    assert queue.redis.zscore(queue.keys.due, "T") == 9e9
    assert queue.owned() == []
    assert queue.mark() is None
    assert queue.waiting() == ([b"T"] if again else [])
    before = queue.state()
    queue.claims.park(A, [(b"T", claim.fence, b"5")])
    assert queue.state() == before
    if again:
        assert queue.take()[b"T"].early == b"1"


def test_what_is_due_is_promoted_and_the_next_time_told(queue):
    now = time.time()
    queue.redis.zadd(queue.keys.due, {"a": now - 2, "b": now - 1, "c": now + 100})
    queue.push("waits")
    count, wait = queue.claims.promote()
    assert count == 2
    assert wait == pytest.approx(100, abs=5)
    assert queue.waiting() == [b"waits", b"a", b"b"]
    assert queue.mark(b"a") == b"-back"
    assert queue.redis.zrange(queue.keys.due, 0, -1) == [b"c"]
    before = queue.waiting()
    assert queue.claims.promote()[0] == 0
    assert queue.waiting() == before
    assert queue.take()[b"a"].how == b"back"


def test_promote_takes_so_many_and_says_where_more_are_due(queue):
    queue.redis.zadd(queue.keys.due, {str(number): number for number in range(5)})
    assert queue.claims.promote(3) == (3, 0.0)
    assert queue.claims.promote(3) == (2, None)
    assert queue.claims.promote(3) == (0, None)


@pytest.mark.parametrize("mark", [A + b" 5", b"-back", b"-lost push"])
def test_a_due_id_that_is_claimed_or_on_its_way_is_looked_at_a_second_later(queue, mark):
    queue.redis.hset(queue.keys.claims, "T", mark)
    queue.redis.zadd(queue.keys.due, {"T": 5})
    count, wait = queue.claims.promote()
    assert count == 0
    assert 0 < wait <= 1
    assert queue.mark() == mark
    assert queue.waiting() == []


@pytest.mark.parametrize("mark", [b"-lost push", b"-lost back young"])
def test_what_goes_back_to_the_head_unbegun_still_follows_its_dead_node(queue, mark):
    queue.push(b"T")
    queue.redis.hset(queue.keys.claims, b"T", mark)
    claim = queue.take()[b"T"]
    assert (claim.lost, claim.how) == ((b"2", b"back") if b"young" in mark else (b"1", b"push"))
    queue.release(claim, "head")
    assert queue.mark() == mark
    assert queue.waiting() == [b"T"]
    assert queue.take()[b"T"][2:] == claim[2:]


def test_a_nudge_brings_a_parked_id_to_the_head(queue):
    queue.push("waits")
    queue.redis.zadd(queue.keys.due, {"T": 9e9})
    assert queue.claims.nudge(b"T")
    assert queue.waiting() == [b"T", b"waits"]
    assert queue.mark() == b"-back"
    assert not queue.redis.exists(queue.keys.due)
    before = queue.state()
    assert not queue.claims.nudge(b"T")
    assert not queue.claims.nudge(b"waits")
    assert queue.state() == before


@pytest.mark.parametrize("how", ["parked", "left parked"])
def test_a_nudge_of_an_id_that_is_about_to_be_parked_brings_it_back_then(queue, how):
    claim = queue.take_one()
    if how == "left parked":
        queue.redis.zadd(queue.keys.due, {"T": 9e9})
    assert not queue.claims.nudge(b"T")
    assert not queue.claims.nudge(b"T")
    assert queue.waiting() == []
    if how == "parked":
        queue.claims.park(A, [(b"T", claim.fence, b"9e9")])
    else:
        queue.release(claim, "early")
    assert queue.waiting() == [b"T"]
    assert queue.take()[b"T"].early == b"1"


def test_an_id_without_a_hash_is_looked_at_again_and_then_dead(queue):
    claim = queue.take_one()
    (when,) = queue.claims.miss(A, [(b"T", claim.fence, b"push")], hash_wait=30)
    assert float(when) - time.time() == pytest.approx(2, abs=1)
    assert queue.redis.zscore(queue.keys.due, "T") == pytest.approx(float(when))
    assert (queue.owned(), queue.mark(), queue.waiting()) == ([], None, [])
    first = queue.redis.zscore(queue.keys.missing, "T")
    queue.redis.zadd(queue.keys.missing, {"T": first - 29})
    claim = queue.take_one()
    (when,) = queue.claims.miss(A, [(b"T", claim.fence, b"back")], hash_wait=30)
    assert float(when) - time.time() == pytest.approx(1, abs=0.5), "no longer than the wait"
    claim = queue.take_one()
    queue.redis.zadd(queue.keys.missing, {"T": first - 31})
    assert queue.claims.miss(A, [(b"T", claim.fence, b"back")], hash_wait=30) == [b"dead"]
    assert queue.redis.lrange(queue.keys.dead, 0, -1) == [b"T"]
    assert not queue.redis.exists(queue.keys.due, queue.keys.missing)
    before = queue.state()
    assert queue.claims.miss(A, [(b"T", claim.fence, b"back")], hash_wait=30) == [b""]
    assert queue.state() == before


def test_a_fresh_push_of_a_missing_id_begins_its_wait_anew(queue):
    queue.redis.zadd(queue.keys.missing, {"T": time.time() - 29})
    claim = queue.take_one()
    (when,) = queue.claims.miss(A, [(b"T", claim.fence, b"push")], hash_wait=30)
    assert float(when) - time.time() == pytest.approx(2, abs=1)
    assert queue.redis.zscore(queue.keys.missing, "T") == pytest.approx(time.time(), abs=5)


def test_a_missing_id_that_was_pushed_meanwhile_is_tried_at_once_and_never_dead(queue):
    claim = queue.take_one()
    queue.push("T")
    queue.take()
    assert queue.claims.miss(A, [(b"T", claim.fence, b"back")], hash_wait=0) != [b"dead"]
    assert queue.waiting() == [b"T"]
    assert not queue.redis.exists(queue.keys.dead, queue.keys.again)


def test_without_a_wait_a_missing_id_is_dead_at_once(queue):
    claim = queue.take_one()
    assert queue.claims.miss(A, [(b"T", claim.fence, b"push")], hash_wait=0) == [b"dead"]


# renew and hold


def test_a_claim_is_renewed_above_what_the_record_has_seen(queue):
    claim = queue.take_one()
    floor = b"%d" % (int(claim.fence) + 10**9)
    new = queue.claims.renew(A, b"T", claim.fence, floor)
    assert int(new.fence) == int(floor) + 1
    assert new[2:] == claim[2:]
    assert queue.mark() == A + b" " + new.fence
    assert queue.claims.get_claims_of(A) == [new]
    assert queue.redis.get(queue.keys.fence) == new.fence
    before = queue.state()
    assert queue.claims.renew(A, b"T", claim.fence, floor) == new, "after a lost reply"
    assert queue.claims.renew(A, b"T", claim.fence, new.fence) is None
    assert queue.claims.renew(A, b"U", claim.fence, floor) is None
    assert queue.claims.renew(B, b"T", new.fence, floor) is None
    assert queue.state() == before
    assert int(queue.take_one(b"U").fence) > int(new.fence)


def test_a_claim_that_a_failover_took_back_is_held_again(queue):
    queue.membership.join(A)
    assert queue.claims.hold(A, b"T", b"7", b"1") == "ok"
    assert queue.mark() == A + b" 7"
    assert queue.claims.get_claims_of(A) == [Claim(b"T", b"7", b"1", b"push", b"0")]
    before = queue.state()
    assert queue.claims.hold(A, b"T", b"7", b"1") == "ok"
    assert queue.state() == before


@pytest.mark.parametrize("mark", [B + b" 9", A + b" 8", b"-back", b"-lost push"])
def test_a_claim_that_is_anothers_is_not_held(queue, mark):
    queue.redis.hset(queue.keys.claims, "T", mark)
    before = queue.state()
    assert queue.claims.hold(A, b"T", b"7", b"0") == "taken"
    assert queue.claims.hold(B, b"U", b"7", b"0") == "gone"
    sequence = queue.redis.hget(queue.keys.nodes, A)
    queue.redis.hset(queue.keys.nodes, b"-" + A, sequence)
    queue.redis.hdel(queue.keys.nodes, A)
    assert queue.claims.hold(A, b"U", b"7", b"0") == "gone"
    queue.redis.hset(queue.keys.nodes, A, sequence)
    queue.redis.hdel(queue.keys.nodes, b"-" + A)
    assert queue.state() == before


# emit and unknown

OURS = {"state": "RUNNING", "fence": 20, "node": A, "at": Q, "attempt": 1}


def test_emit_publishes_for_the_run_that_owns_the_record_and_returns_its_control(task):
    task.has(**OURS)
    rows = [(b"T", b"20", b'{"event":"a"}', ""), (b"T", b"20", b"", ""), (b"T", b"19", b'{"event":"b"}', "")]
    assert task.records.emit(A, Q, rows) == [b"", b"", b"fenced"]
    assert task.heard() == [{"event": "a"}]
    task.server.redis.hset("task-T", "control", "stop")
    assert task.records.emit(A, Q, rows[:1]) == [b"stop"]


def test_emit_tells_a_run_that_was_stopped_and_restarted_since_it_began(task):
    task.has(**OURS)
    task.records.stop(b"T")
    task.records.restart(b"T")
    assert task.records.emit(A, Q, [(b"T", b"20", b"", "")]) == [b"restart"]
    assert task.finish("STOPPED") == [b"restarted", b"WAIT", b""]
    assert task.begin(21)[0] == b"run"
    assert task.records.emit(A, Q, [(b"T", b"21", b"", "")]) == [b""]
    assert task.finish("STOPPED", fence=21) == [b"restarted", b"WAIT", b""], "a message that came late"
    task.begin(22)
    task.records.stop(b"T")
    assert task.finish("STOPPED", fence=22)[:2] == [b"ok", b"STOPPED"]
    assert task["control"] is None


@pytest.mark.parametrize("change", [{"fence": 21}, {"node": B}, {"at": MAIL}, {"closed": 20}])
def test_emit_refuses_a_run_that_does_not_own_its_record(task, change):
    task.has(**{**OURS, **change})
    assert task.records.emit(A, Q, [(b"T", b"20", b'{"event":"a"}', "")]) == [b"fenced"]
    task.server.redis.delete("task-T")
    assert task.records.emit(A, Q, [(b"T", b"20", b'{"event":"a"}', "")]) == [b"fenced"]
    assert task.heard() == []


def test_a_name_that_is_unknown_waits_longer_each_time_and_counts_no_attempt(task):
    task.has()
    delays = []
    for fence, ago in ((20, 0), (21, 2), (22, 8), (23, 55)):
        task.begin(fence)
        if ago:
            task.server.redis.hset("task-T", "unknown", f"{time.time() - ago:.6f}")
        verdict, state, due = task.records.unknown(A, Q, 60, [(b"T", b"%d" % fence, b'{"event":"unknown"}')])[0]
        assert (verdict, state) == (b"ok", b"SCHEDULED")
        delays.append(float(due) - time.time())
        assert task["attempt"] == "0"
        again = task.records.unknown(A, Q, 60, [(b"T", b"%d" % fence, b'{"event":"unknown"}')])[0]
        assert again == [b"again", b"SCHEDULED", due]
    assert delays == pytest.approx([0.25, 1, 4, 5], abs=0.2)
    assert [event["event"] for event in task.heard()] == ["running", "unknown"] * 4


def test_the_time_that_an_unknown_name_waits_for_does_not_hold_up_who_restarts_the_task(task):
    task.has()
    task.begin(20)
    task.server.redis.hset("task-T", "unknown", f"{time.time() - 30:.6f}")
    _, _, due = task.records.unknown(A, Q, 60, [(b"T", b"20", b'{"event":"unknown"}')])[0]
    assert float(due) > time.time() + 2
    task.server.redis.hset("task-T", "state", "WAIT")
    assert task.begin(21)[0] == b"run"


def test_a_name_that_stays_unknown_is_over_after_the_wait(task):
    task.has(unknown=f"{time.time() - 61:.6f}")
    task.begin()
    rows = [(b"T", b"20", b"e"), (b"T", b"19", b"e"), (b"none", b"20", b"e")]
    assert task.records.unknown(A, Q, 60, rows) == [[b"over"], [b"fenced"], [b"gone"]]
    assert task["state"] == "RUNNING"


@pytest.mark.parametrize(
    ("control", "given", "told"),
    [("stop", b"", b"stop"), ("stop", b"stop", b""), ("", b"", b""), ("reload", b"", b""), ("", b"stop", b"")],
)
def test_what_is_held_with_a_stop_that_its_run_has_not_seen_is_told_so(task, control, given, told):
    task.has(**OURS, control=control)
    assert task.finish("HELD", due=given) == [b"ok", b"HELD", told]
    assert task.finish("HELD", due=given) == [b"again", b"HELD", told]
    assert task["state"] == "HELD"
    assert task["due"] is None


@pytest.mark.parametrize(("name", "state"), [("noop", "STOPPED"), ("pytask/workflow", "WAIT")])
def test_what_is_put_back_with_a_stop_is_stopped_unless_its_tasks_have_to_hear_of_it(task, name, state):
    task.has(**OURS, control="stop", task=name)
    assert task.finish("WAIT")[:2] == [b"ok", state.encode()]
    assert task["state"] == state
    assert (task["control"] == "stop") == (state == "WAIT")


def test_all_scripts_and_the_page_agree_on_how_long_a_late_stop_is_not_believed():
    found = {name: re.findall(r"UNDER_WAY = (\d+)", script(name).source) for name in script_names()}
    assert {name for name, seconds in found.items() if seconds} == {"begin", "finish", "want_stop"}
    (seconds,) = {each for row in found.values() for each in row}
    page = Path(__file__).parent.parent / "docs" / "protocol.md"
    assert f"For {seconds} seconds no message ends the task" in page.read_text()


@pytest.mark.parametrize(
    ("ago", "more", "told"),
    [(0, {}, b"restarted"), (-2, {}, b"restarted"), (4, {}, b"ok"), (0, {"control": "stop"}, b"ok"),
     (0, {"control": "restart nan"}, b"ok")],
)  # fmt: skip
def test_a_stop_that_a_restart_took_back_a_moment_ago_ends_no_run(task, ago, more, told):
    restarted = {"control": f"restart {time.time() - ago:.6f}"}
    task.has(**{**OURS, **restarted, **more})
    assert task.finish("STOPPED")[0] == told
    assert task["state"] == ("WAIT" if told == b"restarted" else "STOPPED")
    task.has(**{**OURS, **restarted})
    assert task.finish("SUCCESS")[:2] == [b"ok", b"SUCCESS"]
    assert task["control"] is None
    task.has(state="WAIT", max_running=1, **{**restarted, **more})
    assert task.begin(21, wish="stop")[0] == (b"gate" if told == b"restarted" else b"tail")


@pytest.mark.parametrize(
    ("due", "told"), [("inf", b"1000000000000.000000"), ("x" * 999, b"0"), ("-1", b"0.000000")]
)
def test_a_second_call_tells_a_due_that_can_be_used_whatever_stands_in_the_record(task, due, told):
    task.has(**OURS)
    task.records.unknown(A, Q, 60, [(b"T", b"20", b"e")])
    task.server.redis.hset("task-T", "due", due)
    assert task.records.unknown(A, Q, 60, [(b"T", b"20", b"e")]) == [[b"again", b"SCHEDULED", told]]
    assert task.finish("SUCCESS") == [b"again", b"SCHEDULED", told]
