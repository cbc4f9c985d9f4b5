"""Fixtures: real servers, and real nodes as processes of their own.

Every test that asks for `server` runs once on the bundled Valkey and once on Debian's redis-server where it is
installed; with PYTASK_TEST_REQUIRE=redis-server, as CI sets it, a missing one is a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import commands
import nursery
import pytest
import redis

from pytask import PyTask
from pytask.embedded import EmbeddedServer

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile pytask anew, one by one
HERE = Path(__file__).parent
DEADLINE = 20.0  # seconds that anything may take on a noisy machine


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str] = "", deadline: float = DEADLINE
) -> Any:
    """The first true answer of the condition; fails after the deadline, in seconds, and says what was not met."""
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"not within {deadline:g} s: {(what() if callable(what) else what) or condition}")
        time.sleep(0.01)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that nobody waits for it alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def kinds() -> list[str]:
    """The servers that tests run on; PYTASK_TEST_SERVERS chooses others."""
    found = ["valkey"]
    required = os.environ.get("PYTASK_TEST_REQUIRE", "").split(",")
    if shutil.which("redis-server") or "redis-server" in required:
        found.append("redis")
    return os.environ.get("PYTASK_TEST_SERVERS", ",".join(found)).split(",")


ON_ONE_SERVER = pytest.mark.parametrize("running_server", kinds()[:1], indirect=True)
"""For long tests of what has nothing to do with the kind of the server."""


@pytest.fixture(scope="session", params=kinds())
def running_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    binary = None
    if request.param == "redis":
        binary = shutil.which("redis-server")
        assert binary, "redis-server is required (PYTASK_TEST_REQUIRE) and not installed"
    with EmbeddedServer(binary=binary) as running:
        yield running


@dataclass
class Server:
    """A server that is empty at the start of the test."""

    url: str
    redis: redis.Redis
    embedded: Any

    def create(self, task_id: Any, task: str, data: str | bytes | None = None, **fields: Any) -> None:
        """What a raw producer does: HSET, HSET, LPUSH."""
        key = raw_key(task_id)
        self.redis.hset(key, mapping={"task": task, **fields})
        if data is not None:
            self.redis.hset(key, "data", data)
        self.redis.lpush("new-task", task_id)

    def field(self, task_id: Any, name: str) -> str | None:
        value = self.redis.hget(raw_key(task_id), name)
        return None if value is None else value.decode("utf-8", "backslashreplace")

    def state(self, task_id: Any) -> str | None:
        return self.field(task_id, "state")

    def deliveries(self, task_id: Any) -> int:
        """How many starts of a task the death of a node ended; a record without the field says 0."""
        assert self.redis.exists(raw_key(task_id)), f"no record of {task_id!r}"
        return int(self.field(task_id, "deliveries") or 0)

    def wait_for_state(self, task_id: Any, *states: str, deadline: float = DEADLINE) -> str:
        return wait_until(
            lambda: (s := self.state(task_id)) in states and s,
            lambda: f"state of {task_id!r} in {states}, it is {self.state(task_id)}",
            deadline,
        )

    def wait_until_idle(self, deadline: float = DEADLINE) -> None:
        """Nothing waits and nothing is claimed."""
        wait_until(
            lambda: not self.redis.llen("new-task") and not self.redis.exists("{new-task}:claims"),
            "idle",
            deadline,
        )

    def dead(self) -> list[bytes]:
        return self.redis.lrange("{new-task}:dead", 0, -1)


def raw_key(task_id: str | bytes) -> bytes:
    return b"task-" + (task_id if isinstance(task_id, bytes) else task_id.encode())


@pytest.fixture
def server(running_server: EmbeddedServer) -> Iterator[Server]:
    with redis.Redis.from_url(running_server.url) as client:
        client.flushall()
        yield Server(running_server.url, client, running_server)
        client.flushall()


@pytest.fixture
def app(server: Server) -> Iterator[PyTask]:
    """An app in this process, which is not patched: a producer."""
    made = PyTask(server.url)
    yield made
    made.close()


@pytest.fixture
def cli(server: Server) -> Callable[..., commands.Ran[str]]:
    """Runs a command on the test's server; fails unless its exit status is `status`."""

    def command(*arguments: str | bytes, status: int = 0, stdin: str = "") -> commands.Ran[str]:
        ran = commands.run(*arguments, stdin=stdin, PYTASK_REDIS_URL=server.url)
        assert ran.returncode == status, (ran.stdout, ran.stderr)
        assert "Traceback" not in ran.stderr
        return ran

    return command


class Events:
    """Everything that is published on a pattern, from the moment this is made."""

    def __init__(self, client: redis.Redis, pattern: str = "task-*") -> None:
        self.client = client
        self.pubsub = self.client.pubsub()
        self.pubsub.psubscribe(pattern)
        self.seen: list[tuple[bytes, bytes]] = []
        wait_until(lambda: (self.pubsub.get_message(timeout=1) or {}).get("type") == "psubscribe")

    def read(self) -> None:
        while message := self.pubsub.get_message(timeout=0.01):
            if message["type"] == "pmessage":
                self.seen.append((message["channel"], message["data"]))

    def of(self, task_id: str | bytes) -> list[dict[str, Any]]:
        """The events of one task so far."""
        self.read()
        return [json.loads(data) for channel, data in self.seen if channel == raw_key(task_id)]

    def names(self, task_id: str | bytes) -> list[str]:
        return [event["event"] for event in self.of(task_id)]

    def wait_for(self, task_id: str | bytes, name: str, deadline: float = DEADLINE) -> dict[str, Any]:
        """The first event of this name."""
        return wait_until(
            lambda: next((e for e in self.of(task_id) if e["event"] == name), None),
            lambda: f"event {name} of {task_id!r}, there were {self.names(task_id)}",
            deadline,
        )

    def close(self) -> None:
        self.pubsub.close()
        self.client.close()


@pytest.fixture
def events(server: Server) -> Iterator[Events]:
    made = Events(redis.Redis.from_url(server.url))
    yield made
    made.close()


@dataclass
class NodeProcess:
    """A `pytask worker`, its log in a file."""

    process: nursery.Process
    log: Path
    children: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_for_log(self, text: str, deadline: float = DEADLINE) -> None:
        wait_until(
            lambda: text in self.text() or self.process.poll() is not None, f"{text!r} in the log", deadline
        )
        assert text in self.text(), self.text()

    @property
    def node_id(self) -> str:
        """The id that the node told at its start."""
        self.wait_for_log(", node ")
        return self.text().split(", node ")[1].split(",")[0]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, deadline: float = 40) -> int:
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the node did not end within {deadline} s:\n{self.text()}")

    def terminate(self, deadline: float = 40) -> int:
        """SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(deadline)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(10)


StartNode = Callable[..., NodeProcess]


def write_changed(file: Path, app: str, changes: str) -> str:
    """Write a module with an app of the tests and code behind it; the way to that app."""
    module = app.partition(":")[0]
    head = f"import sys\nsys.path.append({str(HERE)!r})\nfrom {module} import app\nfrom pytask import points\n"
    file.write_text(head + changes)
    return f"{file.stem}:app"


@pytest.fixture
def start_node(server: Server, tmp_path: Path) -> Iterator[StartNode]:
    """Starts nodes: `start_node("--grace", "1", hash_wait="5")`, options and settings.

    Waits until each takes tasks, unless `ready=False`. All are killed at the end of the test. `changes` is Python
    code that a node runs behind its app, which it finds as `app`: what it does at one of `points`, say.
    """
    started: list[NodeProcess] = []

    def start(
        *options: str, app: str = "nodeapp:app", changes: str = "", ready: bool = True, **environ: str
    ) -> NodeProcess:
        log, path = tmp_path / f"node-{len(started)}.log", HERE
        if changes:
            app, path = write_changed(tmp_path / f"changed{len(started)}.py", app, changes), tmp_path
        settings = {f"PYTASK_{name.upper()}": value for name, value in environ.items()}
        with log.open("wb") as out:
            words = ["worker", app, "--path", str(path), "-u", server.url, *options]
            process = nursery.start(words, stdout=out, stderr=out, environ={**os.environ, **settings})
        node = NodeProcess(process, log)
        started.append(node)
        if ready:
            wait_until(lambda: "local   " in node.text() or process.poll() is not None, "a node takes tasks")
            assert process.poll() is None, node.text()
        return node

    yield start
    for node in started:
        with contextlib.suppress(ProcessLookupError):
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGKILL)
        node.process.wait(10)
        for child in node.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
