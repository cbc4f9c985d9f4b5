"""Held: the workflows whose last step was taken on this node, so that a `stop` reaches them between two steps."""

from __future__ import annotations

from pytask.keys import QueueKeys
from pytask.node.run import Run

MOST = 10_000  # that are remembered: the newest


class Held:
    """Runs that ended as HELD: queue and fence, by id. Whether that is still so the record knows."""

    def __init__(self) -> None:
        self._runs: dict[bytes, tuple[QueueKeys, bytes]] = {}

    def note(self, run: Run) -> None:
        """It was the last step so far."""
        self._runs.pop(run.id, None)
        self._runs[run.id] = (run.queue, run.fence)
        if len(self._runs) > MOST:
            del self._runs[next(iter(self._runs))]

    def find(self, task_id: bytes) -> tuple[QueueKeys, bytes] | None:
        """Queue and fence of that step; None where there is none."""
        return self._runs.get(task_id)
