"""One queue, or one record, with the scripts that move it: what the tests of the scripts are written with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from answers import spelt_out

from pytask.keys import QueueKeys
from pytask.store.addresses import resolve_target
from pytask.store.claims import Claim, Claims
from pytask.store.membership import Membership
from pytask.store.records import Records
from pytask.store.store import Store
from pytask.tasks.sweeping import Report, Sweeping

A, B = b"a:1:0a", b"b:2:0b"  # two nodes
Q, MAIL = b"new-task", b"new-task:mail"


class Queue:
    """One queue with its companions, and what two nodes do to it."""

    def __init__(self, server: Any, namespace: str, name: str) -> None:
        self.redis = server.redis
        self.store = store = Store(resolve_target(server.url), namespace, patience=0)
        self.keys: QueueKeys = store.keys.queue(name)
        self.claims: Claims = store.claims(name)
        self.membership: Membership = store.membership(name)

    def push(self, *ids: bytes | str) -> None:
        self.redis.lpush(self.keys.key, *ids)

    def take(self, node: bytes = A, most: int = 10) -> dict[bytes, Claim]:
        return {claim.id: claim for claim in self.claims.claim(node, most)}

    def take_one(self, task_id: bytes = b"T", node: bytes = A) -> Claim:
        self.push(task_id)
        return self.take(node)[task_id]

    def waiting(self) -> list[bytes]:
        """The next one first."""
        return self.redis.lrange(self.keys.key, 0, -1)[::-1]

    def release(self, claim: Claim, mode: str = "none", state: bytes = b"", node: bytes = A) -> None:
        self.claims.release(node, [(claim.id, claim.fence, mode, state)])

    def state(self) -> dict[bytes, Any]:
        """Everything that is stored, to see that nothing changes."""
        return {key: self.redis.dump(key) for key in self.redis.keys("*")}

    def mark(self, task_id: bytes = b"T") -> bytes | None:
        return self.redis.hget(self.keys.claims, task_id)

    def owned(self, node: bytes = A) -> list[bytes]:
        return sorted(claim.id for claim in self.claims.get_claims_of(node))

    def close(self) -> None:
        self.store.close()


class Broom(Queue):
    """A queue, its records, and a sweep of the namespace that does not wait between its looks."""

    def __init__(self, server, namespace: str = "", name: str = "") -> None:
        super().__init__(server, namespace, name)
        self.membership.join(A)

    def has(self, task_id: str | bytes, **fields: object) -> None:
        raw = task_id.encode() if isinstance(task_id, str) else task_id
        self.redis.hset(self.store.keys.task(raw), mapping={"task": "noop", **fields})

    def sweep(self, between: Callable[[], object] = lambda: None, **options: object) -> Report:
        """One pass; `between` happens after its first look."""
        self.looked_twice = False

        def pause() -> None:
            self.looked_twice = True
            between()

        return Sweeping(self.store, ("",), pace=lambda _: None, **options).run(pause)

    def sweep_suspects_nothing(self) -> Report:
        """Not even at its first look."""
        report = self.sweep_finds_nothing()
        assert not self.looked_twice
        return report

    def sweep_finds_nothing(self) -> Report:
        before = self.state()
        report = self.sweep()
        assert report.repaired == 0
        assert self.state() == before
        return report


class Task:
    """One record, `task-T`, the scripts that write it, and what is published meanwhile."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.store = Store(resolve_target(server.url))
        self.records: Records = self.store.records
        self.listener = server.redis.pubsub()
        self.listener.psubscribe("task-*")
        assert self.listener.get_message(timeout=5)["type"] == "psubscribe"

    def close(self) -> None:
        self.listener.close()
        self.store.close()

    def has(self, **fields: Any) -> None:
        self.server.redis.delete("task-T")
        self.server.redis.hset("task-T", mapping={"task": "noop", **fields})

    def begin(
        self, fence=20, lost=0, early=0, node=A, queue=Q, limit=5, max_data=1000, once="", wish=""
    ) -> list[Any]:
        rows = [(b"T", str(fence).encode(), str(lost).encode(), str(early).encode())]
        return spelt_out(self.records.begin(node, queue, rows, limit, max_data, once, wish)[0])

    def finish(self, state, fence=20, node=A, queue=Q, output=b"out", due=b"", event=b'{"event":"e"}') -> Any:
        row = (b"T", str(fence).encode(), state, output, due, event)
        return list(self.records.finish(node, queue, [row])[0])

    def __getitem__(self, field: str) -> str | None:
        return self.server.field("T", field)

    @property
    def record(self) -> dict[bytes, bytes]:
        return self.server.redis.hgetall("task-T")

    def heard(self) -> list[Any]:
        return [json.loads(data) for _, data in self.messages(b"task-T")]

    def messages(self, channel: bytes) -> list[tuple[bytes, bytes]]:
        self.server.redis.publish("task-end", "")
        found = []
        while True:
            message = self.listener.get_message(timeout=5)
            assert message, "the publish comes back"
            if message["channel"] == b"task-end":
                return found
            if message["type"] == "pmessage" and message["channel"] == channel:
                found.append((channel, message["data"]))
