"""Workflows, schedules and a service, while nodes die and freeze and the server restarts, on every commit."""

from __future__ import annotations

import random

import pytest
from chaos import flows, standing
from chaos.faults import Fault
from chaos.journal import JournalRun
from chaos.load import Shape
from chaos.scenario import Plan, Scenario
from chaos.servers import Single
from chaos.standing import Keep, Standing
from conftest import kinds
from test_chaos import seed

__all__ = ["seed"]

# Few deaths for each replica: one against which four of them count waits on probation for a minute.
PLAN = Plan(Shape(tasks=200, seconds=22), nodes=6, kills=6, freezes=2, restarts=1, keep=Keep(10, 3, 10))


@pytest.mark.waits
@pytest.mark.parametrize("kind", kinds())
def test_what_the_cluster_keeps_going_survives_6_kills_2_freezes_and_a_restart_of_the_server(seed, kind):
    with Single(kind) as server:
        scenario = Scenario(PLAN, server, seed)
        result = scenario.run()
    figures = result.figures()
    print(figures)
    assert not result.verdict.problems, f"seed {seed}, files in {result.folder}\n{result.verdict.text()}"
    assert (figures["kill"], figures["freeze"], figures["restart"]) == (6, 2, 1)
    assert (figures["workflows"], figures["tasks"]) == (10, 200 + 10 * 150 + figures["fires"])
    assert figures["fires"] >= 3 * 15
    assert figures["runs of replicas"] > 10, "no fault hit a replica: the test has shown nothing"
    scenario.remove_files()


# What is asked of the journal.


def run_of(task_id: str, start: float, end: float | None, pid: int = 1) -> JournalRun:
    return JournalRun(task_id, 1, pid, start, 1, 0, ended=end, seen=end or start)


def test_a_stage_that_begins_early_is_noticed():
    flow = flows.flow_of("W", stages=2, width=2)
    runs = {"W:0": [run_of("W:0", 1, None), run_of("W:0", 3, 4)], "W:1": [run_of("W:1", 1, 2)]}
    assert not list(flows.early(flow, {**runs, "W:2": [run_of("W:2", 4.1, 5)]}))
    assert list(flows.early(flow, {**runs, "W:2": [run_of("W:2", 3.9, 5)]}))
    assert list(flows.early(flow, {"W:0": [run_of("W:0", 1, None)], "W:2": [run_of("W:2", 9, 10)]}))


def test_two_of_a_replica_are_noticed_and_a_node_that_thaws_has_a_moment():
    first, second = run_of("s:0", 1, 5, pid=1), run_of("s:0", 4, 9, pid=2)
    assert list(standing.doubles([first, second], []))
    assert not list(standing.doubles([run_of("s:0", 1, 3.9), second], []))
    thaw = Fault("freeze", 1, began=2, ended=4.8)
    assert not list(standing.doubles([first, second], [thaw]))
    assert list(standing.doubles([first, second], [Fault("freeze", 2, began=2, ended=4.8)]))
    late = run_of("s:0", 1, thaw.ended + standing.AFTER_A_THAW + 0.1)
    assert list(standing.doubles([late, second], [thaw]))


def test_a_fire_that_did_not_come_is_noticed():
    with Single("valkey") as server:
        made = Standing(server, Keep(schedules=1), random.Random(1))
        made.close()
    made.began, made.ended = 1_799_999_999.5, 1_800_000_009.5
    made.fires = [f"tick-0@2027-01-15T08:00:0{second}Z" for second in range(10)]
    assert standing.second_of(made.fires[0]) == 1_800_000_000
    assert not list(made.gaps("tick-0"))
    for missing in ([2], range(7), [8, 9], range(10)):
        held, made.fires = made.fires, [fire for n, fire in enumerate(made.fires) if n not in missing]
        assert list(made.gaps("tick-0")), missing
        made.fires = held
