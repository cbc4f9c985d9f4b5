"""TaskRegistry and TaskWorker: the tasks that a process knows, and the process as a node of ours."""

from __future__ import annotations

import os
from typing import Any

import pytask
from pytask.app import PyTask
from pytask.compat.task_framework.custom import Loop, Queue
from pytask.compat.task_framework.redis_queue import RedisTaskQueue
from pytask.compat.task_framework.tasks import Task
from pytask.errors import TaskDefinitionError, UnknownTaskError
from pytask.logs import ensure_logging
from pytask.names import TASK_NAME, queue_name_of, shown
from pytask.options import OPTIONS, suggestion

MAX_RETRIES = 3


class Running(pytask.Task):
    """A task of ours that runs one of theirs: `params` is its object."""

    def start(self) -> Any:
        """Run it."""
        self.params.pytask, self.params.task_id = self, self.id
        return self.params.run()


def as_task(name: str, work: type[Task], options: dict[str, Any]) -> type[Running]:
    """The class of ours that runs theirs under a name. Data is checked by making the object that runs with it."""
    model: Any = work.params_model
    checks = {"model_validate": staticmethod(lambda data: work(**data))}
    if hasattr(model, "model_json_schema"):
        checks["model_json_schema"] = staticmethod(model.model_json_schema)
    params = type("Params", (), checks)
    body = {"NAME": name, "Params": params, "__module__": work.__module__, "__doc__": work.__doc__}
    return type(work.__name__, (Running,), {**options, **body})


class TaskRegistry:
    """Task classes by name. `pytask orchestrate` and the worker take it as it is."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[type[Task], dict[str, Any]]] = {}
        self._worker: TaskWorker | None = None

    def register(self, name: str, task_class: Any, **options: Any) -> None:
        """Let workers run this class under this name; with options of docs/options.md: `retry_delay=10`.

        Raises TaskDefinitionError for a name or class that cannot be registered.
        """
        given: object = name
        if not (isinstance(given, str) and TASK_NAME.fullmatch(given)):
            raise TaskDefinitionError(
                f"task name {shown(name)} must be 1 to 200 characters of A-Z a-z 0-9 _ . / : -"
            )
        if not (isinstance(task_class, type) and issubclass(task_class, Task)) or task_class.run is Task.run:
            raise TaskDefinitionError(f"task {name}: {shown(task_class)} is no subclass of Task with a run()")
        for option in options:
            if option not in OPTIONS:
                raise TaskDefinitionError(f"task {name}: there is no option {shown(option)}{suggestion(option)}")
        known = self._tasks.setdefault(name, (task_class, options))[0]
        if known is not task_class:
            raise TaskDefinitionError(f"task {name} is registered already, with {known.__qualname__}")
        if "_task_name" not in vars(task_class):
            task_class._task_name = name

    def get_task(self, name: str) -> type[Task]:
        """The class of this name. Raises UnknownTaskError."""
        if name not in self._tasks:
            raise UnknownTaskError(f"task {name!r} is not registered: add it with register")
        return self._tasks[name][0]

    def list_tasks(self) -> dict[str, type[Task]]:
        """Every class, by name."""
        return {name: found[0] for name, found in self._tasks.items()}

    def as_tasks(self, max_retries: int) -> list[type[Running]]:
        """The classes of ours. A producer that has not registered a class calls it by the name of the class."""
        made = {name: as_task(name, *self._with(name, max_retries)) for name in self._tasks}
        for name, (work, _) in self._tasks.items():
            if work.__name__ not in made:
                made[work.__name__] = as_task(work.__name__, *self._with(name, max_retries))
        return list(made.values())

    def _with(self, name: str, max_retries: int) -> tuple[type[Task], dict[str, Any]]:
        work, options = self._tasks[name]
        return work, {"retries": max_retries, **options}

    def pytask_app(self) -> PyTask | None:
        """The app of ours that runs these tasks, for `pytask orchestrate`: that of the worker that has them."""
        worker = self._worker or TaskWorker(RedisTaskQueue(), self)
        return worker.pytask_app()


class TaskWorker:
    """Runs the tasks of a registry that come through a queue: a RedisTaskQueue, or one of your own.

    With Redis it is a node of ours, which runs many tasks at once; else it runs one after the other. A failed task
    is tried again `max_retries` times. `worker_id` is WORKER_ID of the environment unless given.
    """

    def __init__(
        self,
        queue: RedisTaskQueue | Queue,
        registry: TaskRegistry,
        max_retries: int = MAX_RETRIES,
        worker_id: str | None = None,
    ) -> None:
        self.queue = queue
        self.registry = registry
        self.max_retries: int = OPTIONS["retries"].check(max_retries)
        self.worker_id = worker_id or os.environ.get("WORKER_ID") or f"worker-{os.getpid()}"
        self._app: PyTask | None = None
        self._loop: Loop | None = None
        registry._worker = self
        if Task._task_queue is None:
            Task._task_queue = queue

    def pytask_app(self) -> PyTask | None:
        """The app of ours that does the work; None with a queue that is not on Redis."""
        if self._app is None and isinstance(self.queue, RedisTaskQueue):
            self._app = self._with_tasks(self.queue.app)
            self._app.configure(node_name=queue_name_of(self.worker_id))
        return self._app

    def _with_tasks(self, app: PyTask) -> PyTask:
        app.add_tasks(self.registry.as_tasks(self.max_retries))
        return app

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; a task that runs gets time to end."""
        app = self.pytask_app()
        if app is not None:
            app.run()
            return
        assert not isinstance(self.queue, RedisTaskQueue)
        ensure_logging()
        here = self._with_tasks(PyTask())
        self._loop = Loop(self.queue, here.run_now, self.max_retries, self.worker_id)
        self._loop.run()

    def stop(self) -> None:
        """End `run` with a queue of your own, from another thread. A node is ended by a signal."""
        if self._loop is not None:
            self._loop.stop()
