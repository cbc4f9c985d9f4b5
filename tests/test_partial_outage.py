"""A cluster one part of which is away for long: what lies elsewhere goes on, and no node begins anew."""

from __future__ import annotations

import pytest
from chaos.cluster import Cluster
from conftest import Server, raw_key, wait_until
from redis.crc import key_slot

from pytask.errors import StoreUnavailable
from pytask.node.outbox import Outbox, iter_answered


@pytest.fixture
def deployment():
    with Cluster(**{"cluster-require-full-coverage": "no"}) as running:
        yield running


@pytest.fixture
def server(deployment):
    with deployment.client() as client:
        yield Server(deployment.url, client, None)


def place_of(key: str | bytes) -> int:
    """Which master holds a key: 0, 1 or 2."""
    return key_slot(key if isinstance(key, bytes) else key.encode()) * 3 // 16_384


def queue_at(place: int) -> str:
    return next(name for name in map("q{}".format, range(99)) if place_of(f"new-task:{name}") == place)


def ids_at(place: int, prefix: str, count: int) -> list[str]:
    found = (f"{prefix}{number}" for number in range(999))
    return [task_id for task_id in found if place_of(raw_key(task_id)) == place][:count]


def create(server: Server, queue: str, task_id: str, task: str) -> str:
    server.redis.hset(f"task-{task_id}", mapping={"task": task, "queue": queue})
    server.redis.lpush(f"new-task:{queue}", task_id)
    return task_id


@pytest.mark.waits
def test_a_node_goes_on_with_the_queues_and_records_that_are_left(deployment, server, start_node):
    dead, living = queue_at(0), queue_at(1)
    node = start_node(queues=f"{dead},{living}", node_timeout="4")
    for task_id in ("A", "B"):
        assert place_of(raw_key(task_id)), "its record must not be lost"
    create(server, dead, "A", "loop")
    create(server, living, "B", "loop")
    unreachable = create(server, living, ids_at(0, "u", 1)[0], "loop")  # tells each turn
    for task_id in ("A", "B", unreachable):
        server.wait_for_state(task_id, "RUNNING")
    fences = {task_id: server.field(task_id, "fence") for task_id in ("A", "B", unreachable)}

    for number in (0, 3):  # the master, and the replica that would take over
        deployment.servers[number].kill()
    wait_until(lambda: not deployment.servers[0].alive)
    server.redis.lpush(f"new-task:{living}", *ids_at(0, "hidden", 5))
    node.wait_for_log(f"queue {dead}: no beat has reached it for too long")
    short = [create(server, living, task_id, "noop") for task_id in ids_at(1, "s", 20) + ids_at(2, "s", 20)]
    for task_id in short:
        server.wait_for_state(task_id, "SUCCESS")
    assert server.field("B", "fence") == fences["B"], "its run goes on"
    assert "comes back under a new id" not in node.text()

    deployment.servers[0].start()
    node.wait_for_log(f"queue {dead} is served again")
    wait_until(lambda: server.field("A", "fence") != fences["A"], "what was given up is begun anew")
    server.wait_for_state("A", "RUNNING")
    late = [create(server, dead, task_id, "noop") for place in range(3) for task_id in ids_at(place, "l", 3)]
    for task_id in late:
        server.wait_for_state(task_id, "SUCCESS")
    assert server.field("B", "fence") == fences["B"]
    assert server.field(unreachable, "fence") == fences[unreachable]
    assert server.field("A", "suspect") is None, "nobody's fault"


class Box(Outbox):
    """Sends to servers some of which are away."""

    def __init__(self, in_order: bool) -> None:
        super().__init__()
        self.in_order = in_order
        self.away: set[str] = set()
        self.sent: list[tuple[str, str]] = []
        self.first, self.second = self.box(self._send), self.box(self._send)

    def _send(self, _queue, _node, rows) -> None:
        answers = [StoreUnavailable("away") if run.id in self.away else b"" for run, _ in rows]
        for (run, what), _ in iter_answered(rows, answers):
            self.sent.append((run.id, what))

    def drain(self) -> None:
        held: set = set()
        for box, send, weigh in self._boxes:
            self._drain(box, send, weigh, len(box), held)


class Runs:
    """What an outbox asks of a run."""

    queue, node = "q", b"n"

    def __init__(self, name: str) -> None:
        self.id = name


def test_what_a_run_has_to_say_keeps_its_order_and_waits_for_no_other_run():
    box, a, b = Box(in_order=True), Runs("a"), Runs("b")
    for run in (a, b):
        box.add(box.first, run, "event")
        box.add(box.second, run, "end")
    box.away = {"a"}
    box.drain()
    assert box.sent == [("b", "event"), ("b", "end")]
    box.add(box.first, a, "later event")
    box.away = set()
    box.drain()
    assert box.sent[2:] == [("a", "event"), ("a", "later event"), ("a", "end")]


def test_boxes_without_an_order_hold_nothing_up():
    box, a = Box(in_order=False), Runs("a")
    box.add(box.first, a, "one")
    box.away = {"a"}
    box.drain()
    box.add(box.second, a, "two")
    box.away = set()
    box.drain()
    assert box.sent == [("a", "one"), ("a", "two")]
