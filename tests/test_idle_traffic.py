"""What idle nodes say to a server, counted by the server: commands a second, those inside scripts included."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from conftest import wait_until

from pytask.embedded import EmbeddedServer

pytestmark = pytest.mark.waits

MANY = Path(__file__).with_name("manynodes.py")
SETTLE = 12.0  # seconds until starts, first beats and first looks are over
WINDOW = 20.0  # seconds; the rarest command of a node comes every 10


@pytest.fixture
def idle_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@contextmanager
def nodes(server: EmbeddedServer, processes: int, each: int, queues: str) -> Iterator[None]:
    command = [sys.executable, str(MANY), server.url, str(each), queues]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)]
    try:
        for process in started:
            assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


def calls(client: redis.Redis) -> dict[str, int]:
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items() if "info" not in name}


def count(client: redis.Redis, seconds: float) -> dict[str, float]:
    """Calls of each command in a second."""
    before, began = calls(client), time.monotonic()
    time.sleep(seconds)  # the measurement itself
    after, passed = calls(client), time.monotonic() - began
    return {name: (n - before.get(name, 0)) / passed for name, n in after.items() if n > before.get(name, 0)}


def rate(server: EmbeddedServer, number: int, queue_keys: list[str]) -> float:
    """Commands a second and node; every node must be there all the time, and serve every queue."""
    with redis.Redis.from_url(server.url) as client:
        wait_until(
            lambda: all(client.hlen("{" + key + "}:nodes") == number for key in queue_keys), "all joined", 60
        )
        ids = set(client.hkeys("{" + queue_keys[0] + "}:nodes"))
        time.sleep(SETTLE)
        found = count(client, WINDOW)
        assert set(client.hkeys("{" + queue_keys[0] + "}:nodes")) == ids, "nobody was taken for dead"
        for key in queue_keys:
            client.hset(f"task-{key}", "task", "noop")
            client.lpush(key, key)
        wait_until(lambda: all(client.hget(f"task-{key}", "state") == b"SUCCESS" for key in queue_keys), "work")
    for name, calls_a_second in sorted(found.items(), key=lambda row: -row[1]):
        print(f"{name:24} {calls_a_second / number:8.3f}")
    total = sum(found.values()) / number
    print(f"{'commands/s and node':24} {total:8.3f}")
    return total


def test_64_idle_nodes_with_8_queues_send_less_than_21_commands_a_second_each(idle_server):
    names = [f"q{number}" for number in range(8)]
    with nodes(idle_server, 4, 16, ",".join(names)):
        assert rate(idle_server, 64, [f"new-task:{name}" for name in names]) < 6.5 + 2 * 7


def test_an_idle_node_with_one_queue_sends_less_than_7_commands_a_second(idle_server):
    with nodes(idle_server, 1, 1, "default"):
        assert rate(idle_server, 1, ["new-task"]) < 6.5


def test_two_idle_nodes_that_watch_each_other_send_less_than_9_commands_a_second_each(idle_server):
    with nodes(idle_server, 2, 1, "default"):
        assert rate(idle_server, 2, ["new-task"]) < 6.5 + 2
