"""The watcher: counts the events of tasks as they are published, in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter

import redis

from chaos.servers import Deployment

SUCCESS = b'{"event":"success"'


class Watcher:
    """Subscribed to all tasks from `start` on; after a broken connection, again, to a server that lives."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.successes: Counter[str] = Counter()
        self.gaps = 0
        self._standing = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin; returns when the subscription stands."""
        self._thread.start()
        assert self._standing.wait(20), "no subscription"

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        turn = 0
        while not self._stopping.is_set():
            server = self.deployment.servers[turn % len(self.deployment.servers)]
            turn += 1
            if not server.alive:
                self._stopping.wait(0.05)
                continue
            with contextlib.suppress(redis.RedisError, OSError):
                self._read(server.client(socket_timeout=5))
            self.gaps += not self._stopping.is_set()

    def _read(self, client: redis.Redis) -> None:
        with client, client.pubsub() as pubsub:
            pubsub.psubscribe("task-*")
            while not self._stopping.is_set():
                message = pubsub.get_message(timeout=0.2)
                if message is None:
                    continue
                if message["type"] == "psubscribe":
                    self._standing.set()
                elif message["type"] == "pmessage" and message["data"].startswith(SUCCESS):
                    self.successes[message["channel"][5:].decode()] += 1
