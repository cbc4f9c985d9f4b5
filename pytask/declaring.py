"""Declaring: what an app says of schedules and services, for its nodes to write when they start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytask.errors import InvalidInputError, UnknownTaskError
from pytask.names import shown
from pytask.schedule import RegularSchedule
from pytask.scheduling import Fields, make_schedule, make_schedules
from pytask.services import check_name
from pytask.serving import service_fields
from pytask.settings import Settings
from pytask.task import AnyTask, Task


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
        task: AnyTask,
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


class DeclaresServices:
    """The part of an app that declares services."""

    settings: Settings
    tasks: dict[str, type[Task]]
    _services: dict[str, tuple[Any, ...]]

    if TYPE_CHECKING:

        def add_task(self, task_class: type[Task]) -> type[Task]:
            """Of the app."""

    def add_service(
        self,
        name: str,
        task: AnyTask,
        replicas: int = 1,
        data: Mapping[str, Any] | None = None,
        restart: str = "always",
        queue: str | None = None,
        **options: Any,
    ) -> None:
        """Let the cluster keep so many replicas of a task running, with the ids `<name>:0`, `<name>:1`, ...

        ::

            task_app.add_service("watch-orders", WatchOrders, replicas=3, data={"shop": 7})

        Each finds its number in `self.replica` and their count in `self.replicas`. Nodes write the definition when
        they start; one that is as this code wrote it last changes nothing. `restart` is `always` or `on-failure`;
        the options are those of docs/services.md. A class is registered, too. Raises InvalidInputError.
        """
        label = check_name(name)
        if isinstance(task, type):
            self.add_task(task)
        if label in self._services:
            raise InvalidInputError(f"two services have the name {label!r}")
        arguments = (label, task, replicas, data, restart, queue, options)
        service_fields(self.tasks, self.settings.max_data, *arguments)
        self._services[label] = arguments

    def _service_definitions(self) -> dict[str, dict[str, str]]:
        """The fields of every service, as text; checked again, since classes may have been added since."""
        found = {}
        for name, arguments in self._services.items():
            fields = service_fields(self.tasks, self.settings.max_data, *arguments)
            found[name] = {
                field: value.decode() if isinstance(value, bytes) else value for field, value in fields.items()
            }
        return found
