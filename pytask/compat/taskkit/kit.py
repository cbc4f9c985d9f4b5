"""The kit: an app with a handler, which starts processes and makes tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, NoReturn

from pytask.app import PyTask
from pytask.app_running import MOST, NodeProcesses
from pytask.checks import check_integer
from pytask.compat.taskkit import schedules
from pytask.compat.taskkit.handling import NAME, TTL, HandledTask, TaskHandler, to_json
from pytask.compat.taskkit.result import Result
from pytask.compat.taskkit.schedules import ScheduleEntriesCompatMapping, label_of
from pytask.errors import ConfigurationError, InvalidInputError
from pytask.names import DEFAULT_QUEUE, shown
from pytask.zones import local_zone

NO_SCHEDULES: ScheduleEntriesCompatMapping = {}


class Kit:
    """What `make_kit` returns. `app` is the app beneath."""

    def __init__(self, app: PyTask, handler: TaskHandler) -> None:
        if isinstance(handler, type) or not callable(getattr(handler, "handle", None)):
            raise ConfigurationError(f"a kit needs a handler, which has a method handle, not {shown(handler)}")
        self.app = app
        self.handler = handler
        self._declared: dict[str, list[str]] = {}  # names of schedules, by scheduler
        app.add_task(type("HandledTask", (HandledTask,), {"handler": handler, "__module__": __name__}))

    def pytask_app(self) -> PyTask | None:
        """The app, for `pytask orchestrate`; None while no group is told: the file is run then."""
        return None if self.app.settings.queues == (DEFAULT_QUEUE,) else self.app

    def start(
        self,
        num_processes: int,
        num_worker_threads_per_group: Mapping[str, int],
        schedule_entries: ScheduleEntriesCompatMapping = NO_SCHEDULES,
        tzinfo: tzinfo | None = None,
    ) -> NoReturn:
        """Start processes, which are forked, and look after them until SIGTERM or Ctrl-C. Ends in SystemExit.

        Each handles so many tasks of a group at a time, and those of no other group. Schedules are in the zone
        `tzinfo`, or else in that of this machine. Raises ConfigurationError and InvalidInputError.
        """
        count = check_integer(num_processes, 1, MOST, f"1 to {MOST} processes")
        self._prepare(num_worker_threads_per_group, schedule_entries, tzinfo)
        self._remove_old_schedules()
        self.app.run(processes=count)
        raise SystemExit

    def start_processes(
        self,
        num_processes: int,
        num_worker_threads_per_group: Mapping[str, int],
        schedule_entries: ScheduleEntriesCompatMapping = NO_SCHEDULES,
        tzinfo: tzinfo | None = None,
        daemon: bool = True,
    ) -> list[NodeProcesses]:
        """The same, without waiting; one object for all of them. With `daemon` they end with this program."""
        count = check_integer(num_processes, 1, MOST, f"1 to {MOST} processes")
        self._prepare(num_worker_threads_per_group, schedule_entries, tzinfo)
        self._remove_old_schedules()
        return [self.app.start_processes(count, daemon=daemon)]

    def _prepare(
        self, threads: Mapping[str, int], schedulers: ScheduleEntriesCompatMapping, zone: tzinfo | None
    ) -> None:
        queues: dict[str, int] = {}
        for group, count in threads.items():
            number = check_integer(count, 0, 1_000_000, "0 to 1000000 threads")
            if number:
                queues[label_of(group)] = queues.get(label_of(group), 0) + number
        if not queues:
            raise ConfigurationError("num_worker_threads_per_group names no group with a thread")
        made = schedules.make_schedules(schedulers, self.handler.encode_data, zone or local_zone())
        self.app.add_schedules(made)
        for label in map(label_of, schedulers):
            self._declared.setdefault(label, []).extend(name for name in made if name.startswith(f"{label}:"))
        self.app.settings = self.app.settings.replace(queues=queues, concurrency=sum(queues.values()))

    def _remove_old_schedules(self) -> None:
        """What the program has dropped from a scheduler of its own is not to fire any more.

        Seen to where the program starts, and not where a node does: one that an older program replaces knows less.
        """
        found = self.app.helpers.get_schedules(times=0) if self._declared else {}
        for name, told in found.items():
            declared = self._declared.get(name.partition(":")[0])
            if declared is not None and name not in declared and told["task"] == NAME:
                self.app.helpers.remove_schedule(name)

    def initiate_task(
        self, group: str, name: str, data: Any, due: datetime | float | None = None, ttl: float = TTL
    ) -> Result[Any]:
        """Make a task, which is handled from `due` on: epoch seconds or a datetime; a naive one is local time.

        The record is kept for `ttl` seconds then. Raises InvalidInputError, and what `encode_data` raises.
        """
        encoded, moment = to_json(self.handler.encode_data(group, name, data)), _seconds(due)
        content = {"group": group, "name": name, "data": encoded, "created": time.time(), "ttl": ttl}
        told = content if moment is None else {**content, "due": moment}
        options = {"queue": label_of(group), "title": name, "result_ttl": ttl, "failure_ttl": ttl}
        return Result(self, self.app.helpers.start_task(NAME, told, due=moment, **options))  # type: ignore[arg-type]

    def get_result(self, task_id: str) -> Result[Any]:
        """The result of a task that was made elsewhere."""
        return Result(self, task_id)


def make_kit(redis: object, handler: TaskHandler, **settings: Any) -> Kit:
    """A kit on a redis-py client, or on what else `PyTask` takes, whose settings these are. Or on an app."""
    return Kit(redis if isinstance(redis, PyTask) else PyTask(redis, **settings), handler)


def _seconds(due: datetime | float | None) -> float | None:
    try:
        return max(due.timestamp(), 0.0) if isinstance(due, datetime) else due or None
    except (ValueError, OverflowError):
        raise InvalidInputError(f"due {shown(due)} is not allowed: it is too far away") from None
