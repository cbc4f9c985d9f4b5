"""Declaring: what an app says of schedules, for its nodes to write when they start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytask.errors import InvalidInputError, UnknownTaskError
from pytask.names import shown
from pytask.schedule import RegularSchedule
from pytask.scheduling import Fields, make_schedule, make_schedules
from pytask.task import Task


class DeclaresSchedules:
    """The part of an app that declares schedules."""

    _schedules: dict[str, Fields]

    @property
    def known_tasks(self) -> dict[str, type[Task]]:
        """Every task class that a node of this app knows, by name."""
        raise NotImplementedError

    def add_schedule(
        self,
        name: str,
        task: str | type[Task],
        data: Mapping[str, Any] | None = None,
        regular: RegularSchedule | None = None,
        **more: Any,
    ) -> None:
        """Let every node of this app define a schedule when it starts; the arguments of `helpers.add_schedule`.

        Nothing is written before: in other programs use the helper. What is defined so already is left alone, so
        that nodes that start do not disturb it. Raises InvalidInputError, and UnknownTaskError for a task that is
        not added yet.
        """
        entry = {**more, "task": task, "data": data, "regular": regular}
        self._declare({name: make_schedule(self.known_tasks, name, entry)})

    def add_schedules(self, *groups: Mapping[str, Any], **named: Any) -> None:
        """The same for many, as `helpers.add_schedules` takes them. All are checked before one is declared."""
        self._declare(make_schedules(self.known_tasks, *groups, named))

    def _declare(self, made: Mapping[str, Fields]) -> None:
        for name, fields in made.items():
            if self._schedules.get(name, fields) != fields:
                raise InvalidInputError(f"two schedules of this app have the name {shown(name)}")
            if fields["task"] not in self.known_tasks:
                raise UnknownTaskError(
                    f"task {shown(fields['task'])} is not registered: add it with add_task first"
                )
        self._schedules.update(made)
