"""Batches that go out: bounded in rows and in bytes; and what a node of large tasks takes in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import ON_ONE_SERVER, wait_until

from pytask.node.outbox import MOST_BYTES, MOST_ROWS, iter_batches

HALF = MOST_BYTES // 2


def sizes_of(rows: list[Any], weigh: Any = len) -> list[list[int]]:
    return [[weigh(what) if weigh else what for _, what in part] for part in iter_batches(rows, weigh)]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([HALF, HALF], [[HALF, HALF]]),
        ([HALF, HALF, 1], [[HALF, HALF], [1]]),
        ([MOST_BYTES + 1, 0, 5], [[MOST_BYTES + 1], [0, 5]]),
        ([5, MOST_BYTES + 1], [[5], [MOST_BYTES + 1]]),
        ([MOST_BYTES] * 3, [[MOST_BYTES]] * 3),
        ([1] * MOST_ROWS + [2], [[1] * MOST_ROWS, [2]]),
        ([0] * (2 * MOST_ROWS) + [HALF] * 3, [[0] * MOST_ROWS, [0] * MOST_ROWS, [HALF, HALF], [HALF]]),
    ],
)
def test_a_batch_has_so_many_rows_and_so_many_bytes_at_most(sizes, batches):
    assert sizes_of([(None, size) for size in sizes], weigh=lambda size: size) == batches


def test_rows_without_a_weight_are_only_counted():
    assert sizes_of([(None, 1)] * (MOST_ROWS + 1), weigh=None) == [[1] * MOST_ROWS, [1]]


def peak_memory(pid: int) -> float:
    """The most that a process has had in memory, in MiB."""
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def test_tasks_get_their_data_whatever_stands_beside_them(server, start_node):
    sizes = [0, 10, 70_000, 900_000] * 60
    for number, size in enumerate(sizes):
        data = json.dumps({"text": "x" * size}) if size else "{}"
        server.redis.hset(f"task-{number}", mapping={"task": "echo", "data": data})
    server.redis.lpush("new-task", *range(len(sizes)))
    start_node()
    wait_until(lambda: server.redis.hget("{new-task}:counts", "SUCCESS") == b"240", "all have ended", 60)
    for number, size in enumerate(sizes):
        output = json.loads(server.field(str(number), "output"))
        assert output == ({"text": "x" * size} if size else {})
        assert server.field(str(number), "attempt") == "1"


@ON_ONE_SERVER
@pytest.mark.alone
def test_tasks_with_a_mebibyte_each_do_not_fill_the_memory_of_a_node(server, start_node):
    node = start_node()
    before = peak_memory(node.pid)
    data = json.dumps({"text": "x" * 1_000_000})
    ids = [f"t{number}" for number in range(250)]
    for task_id in ids:
        server.redis.hset(f"task-{task_id}", mapping={"task": "echo", "data": data})
    server.redis.lpush("new-task", *ids)
    wait_until(lambda: server.redis.hget("{new-task}:counts", "SUCCESS") == b"250", "all have ended", 60)
    assert all(server.redis.hstrlen(f"task-{task_id}", "output") == len(data) - 1 for task_id in ids)
    grown = peak_memory(node.pid) - before
    print(f"the node grew by {grown:.0f} MiB")
    assert grown < 900
