"""Probation: its arithmetic in a simulation without a server, then what a real node does with it."""

from __future__ import annotations

import random
import signal

import pytest
from conftest import ON_ONE_SERVER, wait_until

from pytask.node.probation import LONG_ENOUGH, has_room, most_together, turn

LIMIT = 5  # deaths, max_deliveries' default


@pytest.mark.parametrize(
    ("suspect", "concurrency", "limit", "most"),
    [
        (2, 1000, 5, 125),
        (2, 10, 5, 8),
        (3, 1000, 5, 8),
        (4, 1000, 5, 1),
        (9, 1000, 5, 1),
        (3, 1000, 4, 1),
        (2, 1000, 4, 125),
        (2, 1000, 3, 1),
        (1, 1000, 2, 1),
        (4, 1000, 99, 1),
    ],
)
def test_the_more_deaths_count_against_a_task_the_fewer_are_beside_it(suspect, concurrency, limit, most):
    assert most_together(suspect, concurrency, limit) == most
    assert has_room([suspect] * (most - 1), suspect, concurrency, limit)
    assert not has_room([suspect] * most, suspect, concurrency, limit)


def test_nobody_joins_a_task_that_must_be_alone_and_it_joins_nobody():
    assert has_room([], 4, 1000, LIMIT)
    assert not has_room([2], 4, 1000, LIMIT)
    assert not has_room([4], 2, 1000, LIMIT)
    assert has_room([2] * 7, 3, 1000, LIMIT)
    assert not has_room([2] * 8, 3, 1000, LIMIT)


class Node:
    """A node in the simulation: what runs on it, since when; and when it is back from the dead."""

    def __init__(self) -> None:
        self.running: dict[int, float] = {}
        self.inside: dict[int, int] = {}
        self.back = 0.0


class Town:
    """Tasks that run for ever; some of them kill their node some seconds after their start. A second is a step."""

    def __init__(self, seed: int, *, tasks: int, nodes: int, concurrency: int, poisons: int = 1) -> None:
        self.rng = random.Random(seed)
        self.nodes = [Node() for _ in range(nodes)]
        self.concurrency = concurrency
        self.waiting = self.rng.sample(range(tasks), tasks)
        self.poisons = {p: self.rng.choice([0, 1, 20, 59]) for p in self.rng.sample(range(tasks), poisons)}
        self.suspect = dict.fromkeys(range(tasks), 0)
        self.lost: set[int] = set()
        self.deaths = 0
        self.now = 0.0

    def step(self) -> None:
        self.now += 1
        for node in self.nodes:
            if node.back <= self.now:
                self.clear(node)
                self.admit(node)
                self.kill(node)

    def clear(self, node: Node) -> None:
        for task, since in node.running.items():
            if self.now - since >= LONG_ENOUGH:
                self.suspect[task] = 0
                node.inside.pop(task, None)

    def admit(self, node: Node) -> None:
        clean = [task for task in self.waiting if self.suspect[task] < 2]
        chosen = clean[: self.concurrency - len(node.running)]
        suspects = sorted((task for task in self.waiting if self.suspect[task] >= 2), key=self.turn)
        for task in suspects:
            if not has_room(node.inside.values(), self.suspect[task], self.concurrency, LIMIT):
                break
            if len(node.running) + len(chosen) < self.concurrency:
                node.inside[task] = self.suspect[task]
                chosen.append(task)
        node.running.update(dict.fromkeys(chosen, self.now))
        gone = set(chosen)
        self.waiting = [task for task in self.waiting if task not in gone]

    def turn(self, task: int) -> tuple[int, float]:
        return turn(self.suspect[task])

    def kill(self, node: Node) -> None:
        if not any(p in node.running and self.now - node.running[p] >= delay for p, delay in self.poisons.items()):
            return
        self.deaths += 1
        for task, since in node.running.items():
            if self.now - since < LONG_ENOUGH:
                self.suspect[task] += 1
            if self.suspect[task] >= LIMIT:
                self.lost.add(task)
            else:
                self.waiting.append(task)
        node.running, node.inside, node.back = {}, {}, self.now + 2

    @property
    def settled(self) -> bool:
        return set(self.poisons) <= self.lost and not self.waiting and not any(self.suspect[t] for t in self.alive)

    @property
    def alive(self) -> list[int]:
        return [task for task in self.suspect if task not in self.lost]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("nodes", "concurrency", "minutes"), [(2, 1000, 30), (8, 200, 15)])
def test_the_culprit_is_lost_and_a_thousand_tasks_that_run_for_ever_come_back(seed, nodes, concurrency, minutes):
    random.seed(seed)
    town = Town(seed, tasks=1_001, nodes=nodes, concurrency=concurrency)
    while not town.settled and town.now < 60 * minutes:
        town.step()
    assert town.lost == set(town.poisons)
    assert town.deaths == LIMIT
    assert town.settled, f"after {minutes} minutes: {len(town.waiting)} wait"


@pytest.mark.parametrize("seed", range(3))
def test_several_culprits_that_come_at_once_are_lost_and_nobody_else(seed):
    random.seed(seed)
    town = Town(seed, tasks=1_000, nodes=4, concurrency=400, poisons=4)
    while not town.settled and town.now < 3_600:
        town.step()
    assert town.lost == set(town.poisons)


# On a real node.


def suspect(server, task_id: str, deaths: int, task: str = "sleep", seconds: float = 600, **fields) -> None:
    """A task against which deaths count already."""
    server.create(task_id, task, f'{{"seconds": {seconds}}}', suspect=str(deaths), **fields)


def most_at_once(server, ids: list[str]) -> int:
    """How many of these tasks, which have all ended, ran at the same time."""
    moments = []
    for task_id in ids:
        moments += [(float(server.field(task_id, "started")), 1), (float(server.field(task_id, "ended")), -1)]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


@ON_ONE_SERVER
def test_suspects_of_the_last_degree_run_one_by_one_beside_all_that_is_clean(server, start_node):
    start_node()
    server.create("clean", "sleep", '{"seconds": 600}')
    server.wait_for_state("clean", "RUNNING")
    ids = [f"s{number}" for number in range(10)]
    for task_id in ids:
        suspect(server, task_id, 4, seconds=0.1)
    for task_id in ids:
        server.wait_for_state(task_id, "SUCCESS")
        assert server.redis.llen(f"runs:{task_id}") == 1
        assert server.field(task_id, "attempt") == "1"
        assert server.field(task_id, "suspect") is None
    assert most_at_once(server, ids) == 1
    assert server.state("clean") == "RUNNING"


@ON_ONE_SERVER
def test_suspects_run_few_at_a_time_and_all_of_them_get_their_turn(server, start_node, events):
    start_node("-c", "40")
    ids = [f"s{number}" for number in range(60)]
    for task_id in ids:
        suspect(server, task_id, 2, seconds=0.3)
    server.create("clean", "noop")
    server.wait_for_state("clean", "SUCCESS")
    for task_id in ids:
        server.wait_for_state(task_id, "SUCCESS", deadline=60)
        assert events.names(task_id) == ["running", "success"]
    assert 2 <= most_at_once(server, ids) <= 8
    server.wait_until_idle()
    assert not server.redis.exists("{new-task}:due", "{new-task}:again")


@ON_ONE_SERVER
def test_a_suspect_that_runs_for_long_enough_is_clean_and_the_next_one_starts(server, start_node):
    start_node(app="probationapp:app")
    for task_id in "ABC":
        suspect(server, task_id, 4)
    for task_id in "ABC":
        server.wait_for_state(task_id, "RUNNING")
        wait_until(lambda task_id=task_id: server.field(task_id, "suspect") is None, "it is clean")
        assert server.state(task_id) == "RUNNING"


def test_a_reload_of_a_suspect_does_not_make_it_wait(server, start_node, events):
    start_node()
    server.create("L", "loop", '{"text": "one"}', suspect="4")
    events.wait_for("L", "turn")
    server.redis.publish("task-L-control", "reload")
    events.wait_for("L", "reloaded")
    assert server.field("L", "suspect") == "4"
    suspect(server, "next", 4, seconds=0)
    server.redis.publish("task-L-control", "stop")
    server.wait_for_state("next", "SUCCESS")


def busy(server, start_node, *options: str):
    """A node on which a suspect runs alone, and another one waits."""
    node = start_node(*options)
    suspect(server, "first", 4)
    server.wait_for_state("first", "RUNNING")
    suspect(server, "T", 4, seconds=0)
    server.wait_for_state("T", "WAIT")
    return node


@pytest.mark.parametrize("how", ["message", "helper"])
def test_a_task_that_waits_for_its_probation_can_be_stopped(server, start_node, app, events, how):
    busy(server, start_node)
    if how == "helper":
        assert app.helpers.stop_task("T")
    else:
        server.redis.publish("task-T-control", "stop")
    events.wait_for("T", "stopped", deadline=5)
    assert server.state("T") == "STOPPED"
    assert not server.redis.exists("runs:T")
    assert server.state("first") == "RUNNING"
    server.redis.publish("task-first-control", "stop")
    server.wait_until_idle()


def test_a_task_that_waits_for_its_probation_goes_back_when_its_node_ends(server, start_node):
    node = busy(server, start_node, "--grace", "0")
    assert node.terminate() == 1
    assert server.redis.lrange("new-task", 0, -1)[-1] in (b"T", b"first")
    assert set(server.redis.lrange("new-task", 0, -1)) == {b"T", b"first"}
    start_node()
    server.redis.publish("task-first-control", "stop")
    server.wait_for_state("T", "SUCCESS", "WAIT")
    assert server.deliveries("T") == 0


@ON_ONE_SERVER
def test_a_task_that_waits_for_its_probation_survives_the_death_of_its_node_uncounted(server, start_node):
    node = busy(server, start_node)
    node.kill()
    start_node(node_timeout="2")
    server.wait_for_state("T", "SUCCESS", deadline=30)
    assert server.deliveries("T") == 0
    assert server.state("first") == "LOST", "which ran: it was young"


def test_a_node_that_pauses_gives_back_what_waits(server, start_node):
    node = busy(server, start_node)
    node.signal(signal.SIGTSTP)
    wait_until(lambda: server.redis.lrange("new-task", 0, -1) == [b"T"], "it is given back")
    node.signal(signal.SIGCONT)
    server.redis.publish("task-first-control", "stop")
    server.wait_for_state("T", "SUCCESS")
