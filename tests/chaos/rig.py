"""A rig: one server, some nodes, a producer and the checker, for a short story that a test tells itself."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import redis

from chaos import journal
from chaos.checker import Checker, Verdict, wait_until_ended
from chaos.faults import Fault
from chaos.fleet import Fleet, Node
from chaos.servers import Single
from chaos.watcher import Watcher
from pytask import PyTask, wire
from pytask.store.queues import NewRecord

PATIENCE = 30.0  # seconds that anything may take on a noisy machine


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first true answer. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return answer


class Rig:
    """`url` is where nodes and producer connect: the server itself, or a proxy before it."""

    def __init__(self, kind: str = "valkey", **settings: object) -> None:
        self.server = Single(kind)
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-rig-"))
        self.settings = {"node_timeout": 2, "concurrency": 1000, **settings}
        self.ids: list[str] = []
        self.expected: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.url = self.server.url

    def __enter__(self) -> Self:
        self.server.start()
        self.redis = self.server.client()
        self.fleet = Fleet(self.url, self.folder, self.settings)
        self.app = PyTask(self.url)
        self.watcher = Watcher(self.server)
        self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.close()
        self.watcher.stop()
        self.app.close()
        self.redis.close()
        self.server.close()

    # Work.

    def create(
        self, count: int = 1, *, due: float | None = None, most: int = 0, queue: str = "", **data: Any
    ) -> list[str]:
        """Make tasks; `due`: seconds from now; `most`: so many run at a time. Returns their ids."""
        ids = [f"t{len(self.ids) + n}" for n in range(count)]
        words: list[Any] = ["task", "work", "data", wire.encode_json(data)]
        if due is not None:
            words += ["due", f"{time.time() + due:.3f}"]
        if most:
            words += ["max_running", most]
        self.app.helpers.store.queues.create(
            [NewRecord(task_id.encode(), words, new=False) for task_id in ids], queue
        )
        self.ids += ids
        return ids

    def state(self, task_id: str) -> str:
        return (self.redis.hget(f"task-{task_id}", "state") or b"").decode()

    def wait_for_state(self, ids: list[str], *states: str) -> None:
        wait_for(lambda: all(self.state(task_id) in states for task_id in ids), f"{ids[:5]}... in {states}")

    # Nodes.

    def start_node(self, **environ: str) -> Node:
        """A node that takes tasks. `environ`: settings; those that begin with `test_` are for the app."""
        return self.fleet.start(url=self.url, wait=True, **environ)

    def node_ids(self) -> set[str]:
        return {name.decode() for name in self.redis.hkeys("{new-task}:nodes")}

    def wait_until_seen(self) -> None:
        """Until every node has beaten twice more, so that each Monitor has seen the others' subscriptions."""
        seen: dict[bytes, set[bytes]] = defaultdict(
            set
        )  # what a node says where it joins is no beat, and any number

        def has_beaten() -> bool:
            now = self._sequences()
            for name, beat in now.items():
                seen[name].add(beat)
            return len(now) == len(self.fleet.living) and all(len(seen[name]) > 2 for name in now)

        wait_for(has_beaten, "all nodes beat")

    def _sequences(self) -> dict[bytes, bytes]:
        """Node -> sequence, of those that nobody reaps."""
        try:
            found = self.redis.hgetall("{new-task}:nodes")
        except redis.RedisError:
            return {}
        return {name: beat for name, beat in found.items() if beat.isdigit() and not name.startswith(b"-")}

    def kill(self, node: Node) -> None:
        self.note_fault("kill", node)
        node.kill()
        self.faults[-1].ended = time.monotonic()

    def note_fault(self, kind: str, node: Node | None, *, excuses: bool = True) -> Fault:
        """Note what begins now; it is over when its `ended` is set."""
        fault = Fault(kind, None if node is None else node.pid, time.monotonic(), excuses=excuses)
        self.faults.append(fault)
        return fault

    # The end.

    def check(self, seconds: float = PATIENCE, *, more_ends: int = 0) -> Verdict:
        """Wait until all has ended, and compare. `more_ends`: see Checker."""
        left = wait_until_ended(self.server, self.ids, seconds)
        runs = journal.read(self.folder)
        checker = Checker(self.server, self.ids, runs, self.faults, expected=self.expected, more_ends=more_ends)
        verdict = checker.check(self.watcher.successes)
        verdict.figures["open at the deadline"] = len(left)
        return verdict

    def story(self) -> str:
        """The nodes' logs, for a test that failed."""
        return "\n".join(f"== {node.log} pid {node.pid}\n{node.text()}" for node in self.fleet.nodes)
