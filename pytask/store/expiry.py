"""What becomes of the records of ended tasks: they expire, and with a workflow's all that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytask.store.records import Records
from pytask.store.workflows import Workflows
from pytask.workflow import NAME, id_of

CUT_SHORT = "its workflow could not go on"


class Expiry:
    """The ends of records, and of workflows, of one namespace."""

    def __init__(self, records: Records, workflows: Workflows) -> None:
        self.records = records
        self.workflows = workflows

    def let_expire(self, ids: Sequence[bytes], ttls: Mapping[str, float], classes: str = "") -> list[int]:
        """Let records of ended tasks expire, and of workflows all that belongs to them. Safe to repeat.

        `ttls`: seconds to live for each state. `classes`: see `Records.cleanup`. The seconds left of each,
        -1 where it has not ended, -2 where it is kept.
        """
        return self._expire(ids, ttls, classes, 0, b"")

    def _expire(
        self, ids: Sequence[bytes], ttls: Mapping[str, float], classes: str, most: int, ended: bytes
    ) -> list[int]:
        answers = self.records.cleanup(ids, ttls, classes, most=most, fence=ended)
        for task_id, (seconds, fence) in zip(ids, answers, strict=True):
            if fence is not None:  # a workflow, which may be restarted at any moment
                self.settle(task_id, fence)
                for tasks in self._iter_tasks(task_id):
                    self._expire(tasks, ttls, classes, 1, fence)
                self.workflows.let_expire(task_id, seconds, fence)
                self.records.cleanup([task_id], ttls, classes, most=2, fence=fence)
        return [seconds for seconds, _ in answers]

    def settle(self, workflow: bytes, fence: bytes) -> None:
        """A workflow whose task ended under this fence: where it was cut short, what had not begun is skipped.

        What runs still goes on, and is a task like any other from then on. Safe to repeat.
        """
        if not self.workflows.cut_off(workflow, fence):
            return
        for ids in self._iter_tasks(workflow):
            self.workflows.skip(ids, CUT_SHORT)
        self.workflows.close(workflow)

    def _iter_tasks(self, workflow: bytes) -> Iterator[list[bytes]]:
        for found in self.workflows.iter_tasks(workflow):
            yield [id_of(workflow, name) for name in found]

    def remove_tasks(self, workflow: bytes) -> None:
        """Remove the records of a workflow's tasks, with their events; workflows among them wholly."""
        for ids in self._iter_tasks(workflow):
            rows = self.records.get_each(ids, ["task"])
            for task_id, row in zip(ids, rows, strict=True):
                if row is not None and row[0] == NAME.encode():
                    self.remove_tasks(task_id)
                    self.workflows.remove(task_id)
            self.records.remove_each(ids)

    def remove_workflow(self, workflow: bytes) -> None:
        """Remove a workflow: its tasks, what is known of it, and last its own record. Safe to repeat.

        A run of it that makes tasks at this moment finds out by itself, and removes them.
        """
        self.workflows.unlay(workflow)
        self.remove_tasks(workflow)
        self.workflows.remove(workflow)
        self.records.remove_each([workflow])
