"""The sweep: each loss is made by hand, on a real server, and found by one pass; what is healthy is left alone."""

from __future__ import annotations

import time

import pytest
from moves import MAIL, A, B, Broom, Queue, Task

from pytask.keys import Keys
from pytask.store.sweep import NEAR, Rescue
from pytask.tasks import sweeping as sweeping_module
from pytask.tasks.places import LEAST, Filter, Place

OPEN = ["WAIT", "SCHEDULED", "RETRY", "RUNNING"]
CLOSED = ["STOPPED", "HELD", "SUCCESS", "ERROR", "EXCEPTION", "TIMEOUT", "EXPIRED", "SKIPPED", "DISCARDED", "LOST"]


@pytest.fixture
def queue(server):
    made = Broom(server)
    yield made
    made.close()


# Records in no structure.


@pytest.mark.parametrize("state", OPEN)
def test_an_open_task_that_is_nowhere_is_back_in_its_queue(queue, state):
    queue.has("T", state=state, fence="7")
    report = queue.sweep()
    assert (report.pushed, report.repaired) == (1, 1)
    assert queue.waiting() == [b"T"]
    assert queue.mark() == b"-back"
    queue.sweep_finds_nothing()


@pytest.mark.parametrize("state", CLOSED)
def test_a_task_that_has_ended_or_is_stopped_or_held_is_none_of_its_business(queue, state):
    queue.has("T", state=state, fence="7")
    queue.sweep_finds_nothing()


def test_a_record_without_a_state_is_counted_and_not_pushed(queue):
    queue.has("T")
    queue.has("U")
    assert queue.sweep_finds_nothing().unpushed == 2


def test_a_record_without_a_state_that_waits_is_not_even_counted(queue):
    queue.has("T")
    queue.push("T")
    assert queue.sweep_finds_nothing().unpushed == 0


def test_the_queue_is_the_one_that_ran_it(queue, server):
    mail = Queue(server, "", "mail")
    queue.has("T", state="RUNNING", at=MAIL, queue="other")
    queue.sweep()
    assert mail.waiting() == [b"T"]
    assert queue.waiting() == []
    mail.close()


def test_the_queue_of_a_task_that_never_ran_is_the_one_of_its_field(queue, server):
    mail = Queue(server, "", "mail")
    queue.has("T", state="WAIT", queue="mail")
    queue.sweep()
    assert mail.waiting() == [b"T"]
    mail.close()


@pytest.mark.parametrize(
    "fields", [{"at": "task-x"}, {"at": "new-task:a b"}, {"queue": "a b"}, {"queue": "x" * 999}]
)
def test_a_field_that_names_no_queue_is_passed_over(queue, fields):
    queue.has("T", state="WAIT", **fields)
    queue.sweep()
    assert queue.waiting() == [b"T"]
    assert {key for key in queue.redis.keys("*") if b"task" in key} >= {b"task-T", b"new-task"}


def test_a_task_that_was_pushed_to_another_queue_is_left_there(queue, server):
    mail = Queue(server, "", "mail")
    queue.has("T", state="WAIT", at="new-task", fence="7")
    mail.push("T")
    queue.sweep_finds_nothing()
    mail.close()


def test_one_in_another_namespace_is_left_alone(queue, server):
    other = Broom(server, "shop")
    other.has("T", state="WAIT")
    queue.sweep_finds_nothing()
    assert other.sweep().pushed == 1
    assert other.waiting() == [b"T"]
    other.has("U", state="WAIT")
    queue.has("V", state="WAIT")
    other.sweep()
    assert queue.waiting() == [], "nor does a namespace sweep what lies outside of it"
    other.close()


# Times.


@pytest.mark.parametrize("state", ["SCHEDULED", "RETRY"])
def test_one_that_waits_for_a_time_is_parked_again(queue, state):
    due = time.time() + 3600
    queue.has("T", state=state, fence="7", due=f"{due:.6f}")
    report = queue.sweep()
    assert (report.parked, report.repaired) == (1, 1)
    assert queue.redis.zscore(queue.keys.due, "T") == pytest.approx(due)
    assert queue.waiting() == []
    assert queue.mark() is None, "promote passes over what has a mark"
    queue.sweep_finds_nothing()


@pytest.mark.parametrize(
    "fields", [{"due": "1"}, {"due": "x"}, {"due": "nan"}, {}, {"due": "9e9", "control": "stop"}]
)
def test_one_whose_time_has_come_or_that_is_to_be_stopped_is_pushed(queue, fields):
    queue.has("T", state="RETRY", fence="7", **fields)
    assert queue.sweep().pushed == 1
    assert queue.waiting() == [b"T"]


def test_a_due_of_a_task_that_waits_or_runs_means_nothing_here(queue):
    queue.has("T", state="RUNNING", due="9999999999")
    assert queue.sweep().pushed == 1, "begin decides"


# What is somewhere.


def test_one_that_waits_is_left_alone_wherever_it_stands(queue):
    ids = [f"t{n}".encode() for n in range(2500)]
    for task_id in ids:
        queue.has(task_id, state="WAIT")
    queue.push(*ids)
    assert queue.sweep_suspects_nothing().seen == len(ids)


def test_one_that_runs_is_left_alone(queue):
    queue.has("T", state="RUNNING")
    queue.take_one()
    queue.sweep_suspects_nothing()


def test_one_that_is_parked_is_left_alone(queue):
    queue.has("T", state="SCHEDULED")
    queue.redis.zadd(queue.keys.due, {"T": 1})
    queue.sweep_suspects_nothing()


def test_one_in_the_inbox_of_a_node_is_left_alone(queue):
    queue.has("T", state="WAIT")
    queue.redis.lpush(queue.keys.inbox(A), "T")
    queue.sweep_suspects_nothing()


@pytest.mark.parametrize("field", [A, b"-" + A], ids=["value", "field"])
def test_one_whose_node_is_being_reaped_is_left_alone(queue, field):
    """However the mark is written: it is taken care of."""
    queue.has("T", state="RUNNING")
    queue.take_one()
    queue.redis.delete(queue.keys.nodes)
    queue.redis.hset(queue.keys.nodes, field, "-5")
    queue.sweep_suspects_nothing()


def test_a_record_of_a_local_task_is_left_alone(queue):
    queue.has("pytask/monitor@x", state="RUNNING", local="1")
    queue.sweep_suspects_nothing()


def test_a_hash_that_is_no_record_of_a_task_is_left_alone(queue):
    queue.redis.hset("task-config", mapping={"state": "RUNNING", "colour": "blue"})
    assert queue.sweep_suspects_nothing().unpushed == 0


# Seen twice, the same.


def test_one_that_is_pushed_between_the_looks_is_not_pushed_again(queue):
    queue.has("T", state="WAIT")
    assert queue.sweep(between=lambda: queue.push("T")).repaired == 0
    assert queue.waiting() == [b"T"]


@pytest.mark.parametrize("change", [{"state": "RUNNING"}, {"fence": "8"}, {"state": "SUCCESS"}, {"state": "WAIT"}])
def test_one_that_has_changed_between_the_looks_is_left_for_the_next_pass(queue, change):
    queue.has("T", state="RETRY", fence="7")
    assert queue.sweep(between=lambda: queue.has("T", **change)).repaired == 0
    assert queue.waiting() == []


def test_one_that_its_node_holds_again_between_the_looks_is_left_alone(queue):
    queue.has("T", state="RUNNING", fence="7")
    assert queue.sweep(between=lambda: queue.claims.hold(A, b"T", b"7", b"0")).repaired == 0
    assert queue.mark() == A + b" 7"


def test_one_that_is_removed_between_the_looks_is_forgotten(queue):
    queue.has("T", state="WAIT")
    assert queue.sweep(between=lambda: queue.redis.delete("task-T")).repaired == 0


def test_one_without_a_state_that_is_pushed_between_the_looks_is_not_counted(queue):
    queue.has("T")
    assert queue.sweep(between=lambda: queue.push("T")).unpushed == 0


# Claims of nodes that nobody knows.


def test_a_claim_of_an_unknown_node_goes_back_as_lost(queue):
    claim = queue.take_one()
    queue.redis.hdel(queue.keys.nodes, A)
    queue.membership.join(B)
    report = queue.sweep()
    assert (report.claims, report.repaired) == (1, 1)
    assert queue.mark() == b"-lost push"
    assert not queue.redis.exists(queue.keys.claims_of(A))
    new = queue.take(B)[b"T"]
    assert (new.lost, new.how) == (b"1", b"push")
    assert int(new.fence) > int(claim.fence)
    queue.sweep_finds_nothing()


def test_a_claim_of_an_unknown_node_whose_id_also_waits_is_freed(queue):
    """Whoever took the id from the queue would find it owned, for ever."""
    queue.take_one()
    queue.push("T")
    queue.redis.delete(queue.keys.nodes)
    queue.membership.join(B)
    queue.sweep()
    assert queue.waiting() == [b"T"]
    assert queue.take(B)[b"T"].lost == b"1"


def test_a_claim_of_an_unknown_node_whose_id_is_parked_too_is_freed(queue):
    queue.redis.zadd(queue.keys.due, {"T": time.time() + 3600})
    queue.take_one()
    queue.redis.delete(queue.keys.nodes)
    queue.membership.join(B)
    assert queue.sweep().claims == 1
    assert queue.take(B)[b"T"].early == b"1"


def test_what_a_node_owned_is_back_where_claims_are_gone(queue):
    """An eviction, or a hand, took `claims` and `nodes`: `of:<node>` alone knows of the id."""
    queue.take_one()
    queue.redis.delete(queue.keys.claims, queue.keys.nodes)
    queue.membership.join(B)
    assert queue.sweep().claims == 1
    assert queue.take(B)[b"T"].lost == b"1"
    assert not queue.redis.exists(queue.keys.claims_of(A))


def test_a_node_that_joins_between_the_looks_keeps_its_claims(queue):
    queue.take_one()
    queue.redis.delete(queue.keys.nodes)
    assert queue.sweep(between=lambda: queue.membership.join(A)).repaired == 0
    assert queue.owned() == [b"T"]


@pytest.mark.parametrize("value", [b"x", b"", b"a b c", b"\xff 7", b" 7"])
def test_an_entry_in_claims_that_is_none_is_replaced(queue, value):
    queue.redis.hset(queue.keys.claims, "T", value)
    assert queue.sweep().claims == 1
    assert queue.take()[b"T"].lost == b"1"


@pytest.mark.parametrize("mark", [b"-lost push", b"-lost back", b"-lost push young", b"-back"])
def test_a_mark_whose_id_is_not_in_the_queue_is_kept_and_the_id_pushed(queue, mark):
    queue.redis.hset(queue.keys.claims, "T", mark)
    assert queue.sweep().claims == 1
    assert queue.mark() == mark
    assert queue.waiting() == [b"T"]
    queue.sweep_finds_nothing()


def test_a_mark_of_a_parked_id_does_not_hold_it_for_ever(queue):
    queue.redis.hset(queue.keys.claims, "T", "-back")
    queue.redis.zadd(queue.keys.due, {"T": 1})
    assert queue.sweep().claims == 1
    assert queue.waiting() == [b"T"]


def test_marks_of_a_long_queue_are_left_alone(queue):
    ids = [f"t{n}".encode() for n in range(3000)]
    queue.redis.hset(queue.keys.claims, mapping=dict.fromkeys(ids, "-back"))
    queue.push(*ids)
    queue.sweep_suspects_nothing()


def test_a_whole_slot_that_was_lost_comes_back(queue):
    """The queue's server was replaced by an empty one; the records are on others."""
    for n in range(600):
        queue.has(f"t{n}", state=OPEN[n % 4], fence=str(n), due="9999999999")
    report = queue.sweep()
    assert (report.pushed, report.parked) == (300, 300)
    assert len(set(queue.waiting())) == 300
    queue.sweep_finds_nothing()


# Inboxes, and Cleanups.


def test_the_inbox_of_an_unknown_node_is_emptied_to_the_head_of_the_queue(queue):
    queue.push("W")
    queue.redis.lpush(queue.keys.inbox(B), "T")
    report = queue.sweep()
    assert (report.inboxes, report.repaired) == (1, 1)
    assert queue.waiting() == [b"T", b"W"]
    queue.sweep_finds_nothing()


def test_the_inbox_of_a_node_that_joins_between_the_looks_is_left_alone(queue):
    queue.redis.lpush(queue.keys.inbox(B), "T")
    assert queue.sweep(between=lambda: queue.membership.join(B)).repaired == 0


def test_what_an_unknown_cleanup_had_taken_is_back_in_end_task(queue):
    queue.redis.lpush("end-task", "T")
    queue.store.endings.take(b"gone", 10)
    queue.redis.lpush("end-task", "U")
    queue.store.endings.announce(b"here", 1)
    queue.store.endings.take(b"here", 10)
    assert queue.sweep().endings == 1
    assert queue.redis.lrange("end-task", 0, -1) == [b"T"]
    queue.sweep_suspects_nothing()


# Hostile records.


def test_what_is_no_record_stops_nothing(queue):
    queue.redis.set("task-string", "x")
    queue.redis.lpush("task-list", "x")
    queue.redis.hset("task-", mapping={"task": "noop", "state": "WAIT"})
    queue.redis.hset(b"task-" + b"x" * 600, mapping={"task": "noop", "state": "WAIT"})
    queue.has("x-control", state="WAIT")
    queue.has("odd", state="NONSENSE")
    queue.has("empty", state="")
    queue.has("large", state="W" * 1_000_000)
    queue.has("binary", state=b"\xff\x00")
    queue.has(b"\xff\x00\n", state="WAIT", fence=b"\xff" * 100_000, at=b"\xff", queue=b"\x00")
    queue.has("T", state="WAIT")
    assert queue.sweep().pushed == 2
    assert sorted(queue.waiting()) == [b"T", b"\xff\x00\n"]
    queue.sweep_finds_nothing()


@pytest.mark.parametrize("name", ["key", "claims", "due", "nodes"])
def test_a_queue_that_cannot_be_read_is_told_and_the_others_are_swept(queue, server, name):
    mail = Queue(server, "", "mail")
    server.redis.set(getattr(mail.keys, name), "x")
    queue.has("M", state="WAIT", queue="mail")
    queue.has("T", state="WAIT")
    report = queue.sweep()
    assert queue.waiting() == [b"T"]
    assert report.pushed == 1
    assert "WRONGTYPE" in report.refused["mail"]
    mail.close()


def test_the_queues_that_anybody_makes_up_are_bounded(queue, server, monkeypatch):
    monkeypatch.setattr(sweeping_module, "MOST_QUEUES", 5)
    for n in range(20):
        server.redis.lpush(f"new-task:q{n}", "x")
    queue.has("T", state="WAIT")
    report = queue.sweep()
    assert report.pushed == 1
    assert report.queues == 5


def test_records_that_name_very_many_queues_are_swept(queue, monkeypatch):
    monkeypatch.setattr(sweeping_module, "MOST_PLACES", 3)
    for n in range(20):
        queue.has(f"t{n}", state="WAIT", queue=f"q{n}")
    assert queue.sweep().pushed == 20
    assert all(queue.redis.lrange(f"new-task:q{n}", 0, -1) == [b"t%d" % n] for n in range(20))
    queue.sweep_finds_nothing()


def test_more_suspects_than_a_pass_takes_are_left_for_the_next(queue, monkeypatch):
    monkeypatch.setattr(sweeping_module, "MOST_SUSPECTS", 30)
    for n in range(50):
        queue.has(f"t{n}", state="WAIT")
        queue.has(f"u{n}")
    first = queue.sweep()
    assert (first.pushed, first.unpushed, first.more) == (30, 30, True)
    second = queue.sweep()
    assert (second.pushed, second.more) == (20, False)
    assert len(set(queue.waiting())) == 50


# Dry.


def test_a_dry_run_changes_nothing_and_says_what_would_be(queue):
    queue.has("T", state="WAIT")
    queue.has("S", state="SCHEDULED", due="9999999999")
    queue.has("N")
    queue.redis.hset(queue.keys.claims, "C", "-back")
    queue.redis.hset(queue.keys.claims_of(B), "D", "7 0 push 0")
    queue.redis.lpush(queue.keys.inbox(B), "I")
    queue.redis.lpush("{end-task}:of:gone", "E")
    before = queue.state()
    dry = queue.sweep(dry_run=True)
    assert queue.state() == before
    wet = queue.sweep()
    assert dry.as_json() == wet.as_json()
    assert (wet.pushed, wet.parked, wet.claims, wet.inboxes, wet.endings, wet.unpushed) == (1, 1, 2, 1, 1, 1)


# The script.


def test_a_second_rescue_changes_nothing(queue):
    rows = [Rescue(b"T"), Rescue(b"D", due=b"9999999999")]
    assert queue.store.traces.rescue("", rows) == [b"pushed", b"parked"]
    before = queue.state()
    assert queue.store.traces.rescue("", rows) == [b"here"] * 2
    assert queue.state() == before


def test_a_second_rescue_of_a_lost_claim_does_not_push_what_has_ended_meanwhile(queue):
    """It would be claimed as lost once more, and its end told and counted twice."""
    queue.redis.hset(queue.keys.claims_of(B), b"L", "7 0 push 0")
    assert queue.store.traces.rescue("", [Rescue(b"L")], B) == [b"pushed"]
    claim = queue.take()[b"L"]
    assert claim.lost == b"1"
    queue.claims.release(A, [(b"L", claim.fence, "end", "SUCCESS")])
    before = queue.state()
    assert queue.store.traces.rescue("", [Rescue(b"L")], B) == [b"here"]
    assert queue.state() == before


def test_rescue_asks_itself_whether_a_node_owns_the_id(queue):
    queue.take_one()
    before = queue.state()
    queue.redis.hset(queue.keys.claims_of(B), b"T", "7 0 push 0")
    assert queue.store.traces.rescue("", [Rescue(b"T")], B) == [b"here"]
    assert queue.state() == before


def test_rescue_does_not_search_a_long_queue(queue):
    queue.push(*[f"t{n}" for n in range(3 * NEAR)])
    answers = queue.store.traces.rescue("", [Rescue(b"t0"), Rescue(b"t%d" % (3 * NEAR - 1)), Rescue(b"t750")])
    assert answers == [b"here", b"here", b"pushed"], "which does no harm"


def test_rescue_refuses_before_its_first_write_where_the_queue_is_no_list(queue):
    queue.redis.set("new-task", "x")
    queue.redis.hset(queue.keys.claims, "T", B + b" 7")
    before = queue.state()
    with pytest.raises(Exception, match="WRONGTYPE"):
        queue.store.traces.rescue("", [Rescue(b"T")])
    assert queue.state() == before


def test_a_node_that_is_known_is_not_disowned(queue):
    queue.take_one()
    assert queue.store.traces.disown("", A) == 0
    assert queue.owned() == [b"T"]


def test_a_lease_has_one_holder(queue):
    traces = queue.store.traces
    assert traces.hold_lease(b"a", 60)
    assert not traces.hold_lease(b"b", 60)
    assert traces.hold_lease(b"a", 60), "it is renewed"
    traces.drop_lease(b"b")
    assert not traces.hold_lease(b"b", 60)
    traces.drop_lease(b"a")
    assert traces.hold_lease(b"b", 60)
    assert 55_000 < queue.redis.pttl(queue.keys.sweep) <= 60_000


def test_a_rescued_task_that_ran_runs_again(queue, server):
    task = Task(server)
    task.has(state="RUNNING", fence="7", closed="", node=A, at="new-task", attempt="1")
    queue.sweep()
    claim = queue.take()[b"T"]
    answer = queue.store.records.begin(A, b"new-task", [(b"T", claim.fence, claim.lost, claim.early)], 5, 1000)[0]
    assert answer[0] == b"run"
    task.close()


# What is read of a queue.


def test_the_filter_has_no_false_no_and_few_false_yes():
    ids = [b"%d" % n for n in range(20_000)]
    seen = Filter(len(ids), salt=1)
    seen.add(ids)
    assert all(task_id in seen for task_id in ids)
    others = [b"x%d" % n for n in range(20_000)]
    wrong = [task_id for task_id in others if task_id in seen]
    assert len(wrong) < 20_000 / 200
    other = Filter(len(ids), salt=2)
    other.add(ids)
    assert len([task_id for task_id in wrong if task_id in other]) < max(len(wrong) / 5, 3)


@pytest.mark.parametrize("expected", [0, 1, LEAST, LEAST + 1, 100_000])
def test_a_filter_takes_two_to_four_bytes_an_id(expected):
    size = len(Filter(expected, 0)._bits)
    assert 2 * max(expected, LEAST) <= size <= 4 * max(expected, LEAST)


def test_a_place_knows_whose_a_claim_is():
    place = Place({b"n:1:a"}, Filter(0, 0))
    assert place.owns(b"n:1:a 17")
    assert not any(place.owns(claim) for claim in (None, b"", b"-back", b"-lost push", b"m:1:a 17", b"n:1:a"))


def test_keys_of_others_are_not_ours(queue):
    keys = [
        b"task-T", b"task-", b"new-task", b"new-task:mail", b"new-task:a b", b"{new-task:mail}:inbox:n",
        b"{new-task}:of:n", b"{new-task}:of:", b"{shop:new-task}:of:n", b"shop:task-T", b"{task-T}:events",
        b"{end-task}:of:c", b"my-task", b"{new-task}", b"{{new-task}}:of:o", b"new-task}:of:p",
        b"{new-task:}:of:q",
    ]  # fmt: skip
    found = queue.store.traces.sort(keys)
    assert found.ids == [b"T"]
    assert found.queues == {"", "mail"}
    assert found.inboxes == {("mail", b"n")}
    assert found.owners == {("", b"n")}
    assert found.takers == {b"c"}
    assert Keys("shop").id_of_task(b"shop:task-T") == b"T"
