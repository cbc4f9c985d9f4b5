"""States: their table, and that the scripts which write a record make the moves of the table and no others."""

from __future__ import annotations

import re
import time

import pytest
from moves import MAIL, A, B, Q, Task

from pytask import states
from pytask.store.scripts import script

ALL = frozenset(states.MOVES)
PAST, FUTURE = "1000000000", "9000000000"

# The table.


def test_every_state_has_moves_and_a_meaning():
    named = {value for name, value in vars(states).items() if name.isupper() and isinstance(value, str)}
    assert named == ALL == set(states.MEANINGS)
    for name in named:
        assert getattr(states, name) == name


def test_every_move_leads_to_a_state():
    assert {target for targets in states.MOVES.values() for target in targets} <= ALL


def test_every_state_can_be_reached():
    reached, frontier = {states.WAIT, states.HELD}, {states.WAIT, states.HELD}
    while frontier:
        frontier = {target for state in frontier for target in states.MOVES[state]} - reached
        reached |= frontier
    assert reached == ALL


def test_an_ended_or_stopped_task_can_only_wait_again():
    for state in states.ENDED | {states.STOPPED}:
        assert states.MOVES[state] == {states.WAIT}


def test_the_groups_of_states_are_apart():
    assert states.FAILED < states.ENDED
    assert states.SUCCESS not in states.FAILED
    assert states.STOPPED not in states.ENDED
    assert not states.PARKED & states.ENDED


def test_each_ended_state_has_a_time_to_live():
    ttls = states.ttl_by_state(60, 600)
    assert set(ttls) == states.ENDED
    assert {state for state, ttl in ttls.items() if ttl == 600} == states.FAILED
    assert ttls[states.SUCCESS] == ttls[states.SKIPPED] == ttls[states.DISCARDED] == 60


def test_begin_knows_the_ended_states():
    (table,) = re.findall(r"local ENDED = \{(.*?)\}", script("begin").source)
    assert set(re.findall(r"(\w+) = 1", table)) == states.ENDED


def test_stop_knows_the_states_that_can_be_stopped():
    (table,) = re.findall(r"local OPEN\b.*?= \{(.*?)\}", script("stop").source)
    assert set(re.findall(r"(\w+) = 1", table)) == ALL - states.ENDED - {states.STOPPED}


# The scripts of the task's slot.


@pytest.fixture
def task(server):
    made = Task(server)
    yield made
    made.close()


def test_begin_tells_of_a_record_that_is_missing_or_none(task):
    task.server.redis.delete("task-T")
    assert task.begin() == [b"missing"]
    assert not task.server.redis.exists("task-T")
    task.server.redis.set("task-T", "text")
    assert task.begin() == [b"wrong"]
    assert task.server.redis.get("task-T") == b"text"


def test_a_record_without_a_task_is_no_missing_one(task):
    task.server.redis.hset("task-T", "data", "{}")
    assert task.begin() == [b"run", None, b"{}", 2, 1, 0, b"", 0, 0, b""]


def test_the_answer_for_a_first_start_without_options_leaves_out_what_is_zero_or_absent(task):
    task.has(data='{"a":1}')
    (answer,) = task.records.client.call(
        "begin", [task.records.keys.task(b"T")], [A, Q, Q, 5, 1000, "", "", 21, 0, 0]
    )
    assert answer == [b"run", b"noop", b'{"a":1}']
    task.has(data='{"a":1}', suspect="1", attempt="1")
    assert task.begin(22) == [b"run", b"noop", b'{"a":1}', 7, 2, 0, b"", 1, 0, b""]


def test_begin_notes_that_a_due_was_obeyed_and_mends_a_note_that_makes_no_sense(task):
    task.has(due="5")
    task.begin(21)
    assert task["due_used"] == "1"
    task.server.redis.delete("task-T")
    task.has(due_used="x", deliveries="y")
    task.begin(22)
    assert (task["due_used"], task["deliveries"]) == ("1", "0")


def test_begin_marks_the_record_and_says_what_to_run(task):
    task.has(data='{"a":1}', cleanup="false", output="old", ended="1", attempt="1")
    task.server.redis.expire("task-T", 100)
    before = time.time()
    assert task.begin(21) == [b"run", b"noop", b'{"a":1}', 7, 2, 0, b"false", 0, 0, b""]
    assert (task["state"], task["fence"], task["node"], task["at"]) == ("RUNNING", "21", A.decode(), "new-task")
    assert (task["attempt"], task["deliveries"], task["due_used"]) == ("2", None, None), "absent is 0"
    for name in ("started", "last_update", "created"):
        assert abs(float(task[name]) - before) < 60
    assert task["output"] is None
    assert task["ended"] is None
    assert task.server.redis.ttl("task-T") == -1
    assert task.heard() == [{"event": "running", "data": {"node": A.decode(), "attempt": 2}}]


@pytest.mark.parametrize(("size", "data"), [(1000, b"x" * 1000), (1001, None), (0, b"")])
def test_begin_reads_data_up_to_the_limit_only(task, size, data):
    task.has(data="x" * size, none="another field")
    answer = task.begin(max_data=1000)
    assert answer[3] == size
    assert answer[2] in (data, None)
    assert (answer[2] == data) or not size


RUNS = {"state": "RUNNING", "fence": 10, "node": A, "at": Q, "attempt": 1, "deliveries": 0, "due_used": 1}
OURS = {**RUNS, "fence": 20}
ENDED = {**RUNS, "state": "SUCCESS", "closed": 10}
SUSPECT = {**RUNS, "state": "WAIT", "closed": 10, "suspect": 2, "attempt": 0}  # begin answered `probation`
BEGINS = {
    # PROTOCOL.md, begin: the first match wins
    "a higher fence is stale": ({**RUNS, "fence": 21}, {}, [b"stale", b"21"], "RUNNING"),
    "a higher fence is stale, ended or not": ({**ENDED, "fence": 21}, {}, [b"stale", b"21"], "SUCCESS"),
    "our fence on another node is stale": ({**OURS, "node": B}, {}, [b"stale", b"20"], "RUNNING"),
    "our fence in another queue is stale": ({**OURS, "at": MAIL}, {}, [b"stale", b"20"], "RUNNING"),
    "our fence, closed: its tail": ({**OURS, "state": "ERROR", "closed": 20}, {}, [b"tail", b"ERROR"], "ERROR"),
    "our fence, closed as RETRY": (
        {**OURS, "state": "RETRY", "closed": 20, "due": FUTURE},
        {},
        [b"tail", b"RETRY", b"9000000000.000000"],
        "RETRY",
    ),
    "our fence, open: run again": (OURS, {}, [b"run", b"noop", None, 0, 1, 0, b""], "RUNNING"),
    "ended": (ENDED, {}, [b"ended", b"SUCCESS"], "SUCCESS"),
    "ended, after a lost claim: its tail": (ENDED, {"lost": 1}, [b"tail", b"SUCCESS", b""], "SUCCESS"),
    "ended elsewhere, after a lost claim": ({**ENDED, "at": MAIL}, {"lost": 1}, [b"ended", b"SUCCESS"], "SUCCESS"),
    "set by hand, never closed": ({**ENDED, "closed": 9}, {"lost": 1}, [b"ended", b"SUCCESS"], "SUCCESS"),
    "a producer wrote an end": ({"state": "SUCCESS"}, {"lost": 1}, [b"ended", b"SUCCESS"], "SUCCESS"),
    "stopped": ({**ENDED, "state": "STOPPED"}, {}, [b"ended", b"STOPPED"], "STOPPED"),
    "stopped, lost": ({**ENDED, "state": "STOPPED"}, {"lost": 1}, [b"tail", b"STOPPED", b""], "STOPPED"),
    "held": ({"state": "HELD"}, {}, [b"ended", b"HELD"], "HELD"),
    "held is not stopped by a push": ({"state": "HELD", "control": "stop"}, {}, [b"ended", b"HELD"], "HELD"),
    "parked, too early": ({**ENDED, "state": "RETRY", "due": FUTURE}, {"early": 1}, [b"early"], "RETRY"),
    "parked and stopped, too early": (
        {**ENDED, "state": "RETRY", "due": FUTURE, "control": "stop"},
        {"early": 1},
        [b"tail", b"STOPPED"],
        "STOPPED",
    ),
    "parked and stopped, lost": (
        {**ENDED, "state": "SCHEDULED", "due": FUTURE, "control": "stop"},
        {"lost": 1},
        [b"tail", b"STOPPED"],
        "STOPPED",
    ),
    "parked, due": ({**ENDED, "state": "RETRY", "due": PAST}, {}, [b"run"], "RUNNING"),
    "parked, lost": (
        {**ENDED, "state": "SCHEDULED", "due": PAST},
        {"lost": 1},
        [b"tail", b"SCHEDULED", b"1000000000.000000"],
        "SCHEDULED",
    ),
    "running in another queue": ({**RUNS, "at": MAIL}, {}, [b"elsewhere", MAIL], "RUNNING"),
    "running in what is no queue": ({**RUNS, "at": b"end-task"}, {}, [b"run"], "RUNNING"),
    "a local task of a node": ({"state": "RUNNING", "local": 1}, {}, [b"ended", b"RUNNING"], "RUNNING"),
    "restarted while it runs in another queue": (
        {**RUNS, "at": MAIL, "state": "WAIT"},
        {},
        [b"elsewhere", MAIL],
        "WAIT",
    ),
    "ran in another queue": ({**RUNS, "at": MAIL, "state": "WAIT", "closed": 10}, {}, [b"run"], "RUNNING"),
    "control stop": ({"control": "stop"}, {}, [b"tail", b"STOPPED"], "STOPPED"),
    "control stop while it ran": ({**RUNS, "control": "stop"}, {"lost": 1}, [b"tail", b"STOPPED"], "STOPPED"),
    "another control": ({"control": "halt"}, {}, [b"run"], "RUNNING"),
    "expired": ({"expires": PAST}, {}, [b"tail", b"EXPIRED"], "EXPIRED"),
    "not expired": ({"expires": FUTURE}, {}, [b"run"], "RUNNING"),
    "expires is no time": ({"expires": "soon"}, {}, [b"run"], "RUNNING"),
    "a delivery": (RUNS, {"lost": 1}, [b"run", b"noop", None, 0, 1, 1, b""], "RUNNING"),
    "a death that does not count": (
        {**RUNS, "deliveries": 9, "suspect": 1},
        {"lost": 1},
        [b"run", b"noop", None, 0, 1, 10, b"", 1, 0],
        "RUNNING",
    ),
    "the first death that counts": (RUNS, {"lost": 2}, [b"run", b"noop", None, 0, 1, 1, b"", 1, 0], "RUNNING"),
    "the second death that counts": ({**RUNS, "suspect": 1}, {"lost": 2}, [b"probation", 2], "WAIT"),
    "the last death but one": ({**RUNS, "suspect": 3}, {"lost": 2}, [b"probation", 4], "WAIT"),
    "the last death": ({**RUNS, "suspect": 4}, {"lost": 2}, [b"tail", b"LOST"], "LOST"),
    "on probation, its node died before it began": (
        {**RUNS, "state": "WAIT", "suspect": 4, "closed": 10},
        {"lost": 2},
        [b"probation", 4],
        "WAIT",
    ),
    "room for it": ({**SUSPECT, "suspect": 4}, {"wish": "granted"}, [b"run"], "RUNNING"),
    "room for it, and no attempt lost": (SUSPECT, {"wish": "granted"}, [b"run", b"noop", None, 0, 1], "RUNNING"),
    "on probation, stopped": (SUSPECT, {"wish": "stop"}, [b"tail", b"STOPPED"], "STOPPED"),
    "on probation, control stop": ({**SUSPECT, "control": "stop"}, {}, [b"tail", b"STOPPED"], "STOPPED"),
    "on probation, expired": ({**SUSPECT, "expires": PAST}, {"wish": "granted"}, [b"tail", b"EXPIRED"], "EXPIRED"),
    "few deaths may count": ({**RUNS, "suspect": 0}, {"lost": 2, "limit": 2}, [b"probation", 1], "WAIT"),
    "no death may count": (RUNS, {"lost": 2, "limit": 1}, [b"tail", b"LOST"], "LOST"),
    "many deaths may count": ({**RUNS, "suspect": 8}, {"lost": 2, "limit": 99}, [b"probation", 9], "WAIT"),
    "only once, its first start": ({"rescheduling": "false"}, {}, [b"run"], "RUNNING"),
    "only once, started before": ({**RUNS, "rescheduling": "false"}, {"lost": 1}, [b"tail", b"LOST"], "LOST"),
    "only once, found without a mark": ({**RUNS, "rescheduling": "false"}, {}, [b"tail", b"LOST"], "LOST"),
    "only once, and stopped": (
        {**RUNS, "rescheduling": "false", "control": "stop"},
        {"lost": 1},
        [b"tail", b"STOPPED"],
        "STOPPED",
    ),
    "only once, expired since": (
        {**RUNS, "rescheduling": "false", "expires": PAST},
        {"lost": 1},
        [b"tail", b"LOST"],
        "LOST",
    ),
    "only once, put back before it began": (
        {**RUNS, "rescheduling": "false", "state": "WAIT", "closed": 10},
        {"lost": 1},
        [b"run"],
        "RUNNING",
    ),
    "only once, written as RUNNING by its producer": (
        {"rescheduling": "false", "state": "RUNNING"},
        {},
        [b"run"],
        "RUNNING",
    ),
    "only once, says the class": (RUNS, {"lost": 1, "once": "x once\nnoop once\ny"}, [b"tail", b"LOST"], "LOST"),
    "another class may start only once": (RUNS, {"lost": 1, "once": "noop2 once\nno once"}, [b"run"], "RUNNING"),
    "the record goes before the class": (
        {**RUNS, "rescheduling": "true"},
        {"lost": 1, "once": "noop once"},
        [b"run"],
        "RUNNING",
    ),
    "junk does not go before the class": (
        {**RUNS, "rescheduling": "yes"},
        {"lost": 1, "once": "noop once"},
        [b"tail", b"LOST"],
        "LOST",
    ),
    "due": ({"due": FUTURE}, {}, [b"tail", b"SCHEDULED", b"9000000000.000000"], "SCHEDULED"),
    "due, used before": ({"due": FUTURE, "due_used": 1}, {}, [b"run"], "RUNNING"),
    "due in the past": ({"due": PAST}, {}, [b"run"], "RUNNING"),
    "due is no time": ({"due": "soon"}, {}, [b"run"], "RUNNING"),
    "due never": ({"due": "inf"}, {}, [b"tail", b"SCHEDULED", b"1000000000000.000000"], "SCHEDULED"),
    "restarted": ({**ENDED, "state": "WAIT"}, {}, [b"run", b"noop", None, 0, 2, 0, b""], "RUNNING"),
    "an unknown state": ({"state": "PAUSED"}, {}, [b"run"], "RUNNING"),
}


@pytest.mark.parametrize("case", BEGINS)
def test_begin_answers_as_the_protocol_says(task, case):
    fields, claim, answer, after = BEGINS[case]
    task.has(**fields)
    before = task.record
    first = task.begin(**claim)
    assert first[: len(answer)] == answer
    assert task["state"] == after
    moved = fields.get("state", "WAIT")
    assert after == moved or moved not in ALL or after in states.MOVES[moved]
    if answer[0] in (b"stale", b"ended", b"early", b"elsewhere"):
        assert task.record == before
        assert task.heard() == []
    else:
        record, heard = task.record, task.heard()
        again = task.begin(**claim)
        assert again[:2] == first[:2] or again[0] == b"run" == first[0]
        assert task.record == record, "a second run changes nothing"
        assert task.heard() == [], "and tells nobody"
        told = task["fence"] != str(fields.get("fence")) and (answer[0] != b"probation" or moved != "WAIT")
        assert len(heard) == told


@pytest.mark.parametrize("case", ["control stop", "expired", "the last death", "only once, started before", "due"])
def test_begin_closes_what_it_does_not_run_and_tells_of_it(task, case):
    fields, claim, _, after = BEGINS[case]
    task.has(**fields)
    task.begin(**claim)
    assert task["closed"] == task["fence"] == "20"
    assert task["control"] is None
    assert [event["event"] for event in task.heard()] == [after.lower()]
    assert (task["output"] is not None) == (after in states.ENDED)
    assert (task["ended"] is not None) == (after in states.ENDED)


JUNK = ["inf", "1e300", "-inf", "nan", "abc", "", "-5", "1.5", "0x10", "9e20", "9007199254740993", "9" * 40]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_in_the_systems_own_fields_does_not_stop_a_task(task, junk):
    """A producer may write any field; the fence it makes up must not become the queue's."""
    counts = {"attempt": junk, "deliveries": junk, "suspect": junk, "rescheduling": junk}
    task.has(fence=junk, closed=junk, started=junk, due_used=junk, **counts)
    assert task.begin(1_800_000_000_000_000, limit=10**9, wish="granted")[0] == b"run"
    assert task["fence"] == "1800000000000000"
    assert re.fullmatch(r"\d{1,15}", task["attempt"])
    assert re.fullmatch(r"\d{1,15}", task["deliveries"])
    assert task.heard()[0]["event"] == "running"


def test_one_call_begins_many(task):
    task.server.redis.hset("task-A", "task", "noop")
    task.server.redis.hset("task-B", mapping={"task": "noop", "state": "SUCCESS"})
    rows = [(name, b"20", b"0", b"0") for name in (b"A", b"B", b"C")]
    answers = task.records.begin(A, Q, rows, 5, 1000)
    assert [answer[0] for answer in answers] == [b"run", b"ended", b"missing"]


def test_a_call_of_more_tasks_than_a_script_takes_keeps_their_order(task):
    rows = [(b"%d" % number, b"%d" % (number + 1), b"0", b"0") for number in range(600)]
    for number in range(0, 600, 2):
        task.server.redis.hset(f"task-{number}", "task", f"t{number}")
    answers = task.records.begin(A, Q, rows, 5, 1000)
    assert [answer[1] for answer in answers[::2]] == [b"t%d" % number for number in range(0, 600, 2)]
    assert all(answer == [b"missing"] for answer in answers[1::2])
    assert task.server.field("598", "fence") == "599"


def test_a_task_on_probation_keeps_its_counts_whatever_its_claims_do(task):
    task.has(**{**RUNS, "deliveries": 7, "suspect": 1, "attempt": 3})
    task.server.redis.expire("task-T", 100)
    answer = task.begin(20, lost=2)
    assert answer[:2] == [b"probation", 2]
    assert abs(float(answer[2]) - time.time()) < 60
    assert (task["closed"], task["fence"], task["started"]) == ("20", "20", None)
    assert task.server.redis.ttl("task-T") == -1
    assert task.heard() == [{"event": "wait", "data": "on probation: 2 deaths of its nodes"}]
    for fence, lost in ((30, 2), (40, 0), (50, 1)):  # its node died while it waited, it was parked, ...
        assert task.begin(fence, lost)[:2] == [b"probation", 2]
        assert (task["state"], task["deliveries"], task["attempt"]) == ("WAIT", "8", "2")
    assert task.heard() == []
    assert task.begin(60, wish="granted") == [b"run", b"noop", None, 0, 3, 8, b"", 2, 0, b""]
    assert [event["event"] for event in task.heard()] == ["running"]


def test_the_record_says_that_a_task_may_start_only_once_from_its_start_on(task):
    task.has()
    assert task.begin(once="noop once")[8] == 1
    assert task["rescheduling"] == "false"
    assert task.begin(30, node=B)[:2] == [b"tail", b"LOST"], "a node that does not know the class obeys it"
    assert task["output"] == "its node died while it ran, and it may start only once (rescheduling is false)"


def test_the_output_of_a_task_that_kills_its_nodes_says_so(task):
    task.has(**RUNS, suspect=4)
    task.begin(lost=2)
    assert task["output"] == "5 deaths of its nodes in a row count against it (max_deliveries is 5)"
    assert task.heard() == [{"event": "lost", "data": task["output"]}]
    assert (task["suspect"], task["deliveries"]) == ("5", "1")


@pytest.mark.parametrize("state", sorted(states.MOVES[states.RUNNING] - {states.SCHEDULED}))
def test_a_task_that_ended_by_itself_is_clean_again(task, state):
    task.has(**RUNS, suspect=1)
    task.begin(lost=1)
    task.finish(state, due=FUTURE.encode())
    assert task["suspect"] == ("1" if state == states.WAIT else None)


def test_a_run_that_has_lasted_makes_its_task_clean_again(task):
    task.has(**OURS, suspect=3)
    for rows in ([(b"T", b"19")], [(b"U", b"20")]):
        assert task.records.survive(A, Q, rows) == [0]
    assert task.records.survive(B, Q, [(b"T", b"20")]) == [0]
    assert task.records.survive(A, MAIL, [(b"T", b"20")]) == [0]
    assert task["suspect"] == "3"
    assert task.records.survive(A, Q, [(b"U", b"20"), (b"T", b"20")]) == [0, 1]
    assert task["suspect"] is None
    task.has(**OURS, suspect=3, closed=20)
    assert task.records.survive(A, Q, [(b"T", b"20")]) == [0], "it has ended"
    task.server.redis.set("task-U", "text")
    assert task.records.survive(A, Q, [(b"U", b"20")]) == [0]


# finish


@pytest.mark.parametrize("state", sorted(states.MOVES[states.RUNNING] - {states.SCHEDULED}))
def test_finish_writes_an_outcome_once_and_tells_of_it(task, state):
    task.has()
    task.begin()
    task.heard()
    due = b"9000000000.000000" if state == "RETRY" else b""
    assert task.finish(state, due=due) == [b"ok", state.encode(), due]
    assert task["state"] == state
    assert task["closed"] == "20"
    assert (task["ended"] is not None) == (state in states.ENDED)
    assert task["output"] == (None if state == "WAIT" else "out")
    assert task["attempt"] == ("0" if state == "WAIT" else "1")
    assert task.heard() == [{"event": "e"}]
    record = task.record
    assert task.finish("ERROR", output=b"other") == [b"again", state.encode(), due]
    assert task.record == record
    assert task.heard() == []


FINISHES = {
    "the record is gone": (None, "SUCCESS", [b"gone"], None),
    "a newer run owns it": ({**OURS, "fence": 21}, "SUCCESS", [b"fenced"], "RUNNING"),
    "another node owns it": ({**OURS, "node": B}, "SUCCESS", [b"fenced"], "RUNNING"),
    "another queue's claim runs it": ({**OURS, "at": MAIL}, "SUCCESS", [b"fenced"], "RUNNING"),
    "it was written anew": ({}, "SUCCESS", [b"fenced"], None),
    "a stop turns RETRY into STOPPED": ({**OURS, "control": "stop"}, "RETRY", [b"ok", b"STOPPED"], "STOPPED"),
    "a stop turns WAIT into STOPPED": ({**OURS, "control": "stop"}, "WAIT", [b"ok", b"STOPPED"], "STOPPED"),
    "a stop does not undo a success": ({**OURS, "control": "stop"}, "SUCCESS", [b"ok", b"SUCCESS"], "SUCCESS"),
    "a restart was asked for": ({**OURS, "state": "WAIT"}, "SUCCESS", [b"restarted", b"WAIT"], "WAIT"),
    "a restart, and it failed": (
        {**OURS, "state": "WAIT"},
        "RETRY",
        [b"restarted", b"WAIT"],
        "WAIT",
    ),
    "a restart, and it is put back": ({**OURS, "state": "WAIT"}, "WAIT", [b"ok", b"WAIT"], "WAIT"),
    "a restart, and a stop after it": (
        {**OURS, "state": "WAIT", "control": "stop"},
        "STOPPED",
        [b"ok", b"STOPPED"],
        "STOPPED",
    ),
    "stopped by a message, restarted before it ended": (
        {**OURS, "state": "WAIT"},
        "STOPPED",
        [b"restarted", b"WAIT"],
        "WAIT",
    ),
}


@pytest.mark.parametrize("case", FINISHES)
def test_finish_answers_as_the_protocol_says(task, case):
    fields, state, answer, after = FINISHES[case]
    task.server.redis.delete("task-T")
    if fields is not None:
        task.has(**fields)
    before = task.record
    assert task.finish(state)[: len(answer)] == answer
    assert task["state"] == after
    if answer[0] in (b"gone", b"fenced"):
        assert task.record == before
        assert task.heard() == []
    else:
        assert task["closed"] == "20"
        assert len(task.heard()) == 1
        assert (task["control"] is None) or case == "a stop turns RETRY into STOPPED" or after == "WAIT"
        record = task.record
        assert task.finish(state)[0] == b"again"
        assert task.record == record


def test_finish_of_a_record_that_became_something_else_says_gone(task):
    task.server.redis.set("task-T", "text")
    assert task.finish("SUCCESS") == [b"gone"]


# restart and stop


@pytest.mark.parametrize("state", sorted(ALL))
def test_restart_lets_every_task_wait_and_forgets_how_it_ended(task, state):
    ran = state not in (states.WAIT, states.HELD)
    task.has(
        state=state,
        control="stop",
        ended="1",
        attempt="3",
        deliveries="2",
        suspect="1",
        **({"at": MAIL} if ran else {}),
    )
    task.server.redis.expire("task-T", 100)
    assert task.records.restart(b"T") == [b"ok", state.encode(), MAIL if ran else b"", b""]
    assert task["state"] == "WAIT"
    assert task["control"].startswith("restart ")
    assert task["ended"] is None
    assert task.server.redis.ttl("task-T") == -1
    counted = ("3", "2", "1") if state == states.RUNNING else (None, None, None)
    assert (task["attempt"], task["deliveries"], task["suspect"]) == counted
    record = task.record
    assert task.records.restart(b"T")[:2] == [b"ok", b"WAIT"]
    assert task["state"] == "WAIT"
    if state != states.RUNNING:
        assert task.record == record


def test_restart_takes_back_a_stop_and_removes_any_other_control(task):
    now = time.time()
    for state, control, last, left in (
        ("WAIT", "stop", now, 1), ("WAIT", "reload", now, 0), ("WAIT", "restart 1", now, 1),
        ("RUNNING", "restarted 1", now, 1), ("WAIT", "", now, 0), ("RUNNING", "", now, 0),
        ("STOPPED", "", now, 1), ("STOPPED", "", now - 9, 0), ("STOPPED", "", "nan", 0), ("ERROR", "", now, 0),
    ):  # fmt: skip
        task.has(state=state, last_update=last)
        if control:
            task.server.redis.hset("task-T", "control", control)
        task.records.restart(b"T")
        assert task.server.redis.hexists("task-T", "control") == left, (state, control, last)
    task.records.stop(b"T")
    assert task["control"] == "stop"


def test_restart_in_some_states_only(task):
    task.has(state="ERROR", queue="mail")
    before = task.record
    assert task.records.restart(b"T", ["SUCCESS", "STOPPED"]) == [b"refused", b"ERROR", b"", b"mail"]
    assert task.record == before
    assert task.records.restart(b"T", ["SUCCESS", "ERROR"]) == [b"ok", b"ERROR", b"", b"mail"]
    assert task.records.restart(b"T", ["WAIT"])[:2] == [b"ok", b"WAIT"]


def test_restart_and_stop_make_no_record(task):
    for kind in ("none", "string"):
        task.server.redis.delete("task-T")
        if kind == "string":
            task.server.redis.set("task-T", "text")
        assert task.records.restart(b"T") == [b"missing"]
        assert task.records.stop(b"T") == [b"missing"]
        assert task.server.redis.type("task-T").decode() == kind


@pytest.mark.parametrize("state", sorted(ALL))
def test_stop_asks_every_task_that_has_not_ended(task, state):
    task.has(state=state, at=MAIL, queue="q")
    before = task.record
    for _ in range(2):
        if state in states.ENDED or state == states.STOPPED:
            assert task.records.stop(b"T") == [b"ended", state.encode()]
            assert task.record == before
        else:
            assert task.records.stop(b"T")[:4] == [b"ok", state.encode(), MAIL, b"q"]
            assert task.record == {**before, b"control": b"stop"}


def test_stop_tells_the_node_at_once(task):
    task.has(state="RUNNING")
    task.records.stop(b"T")
    assert task.messages(b"task-T-control") == [(b"task-T-control", b"stop")]
