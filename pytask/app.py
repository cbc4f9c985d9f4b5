"""PyTask: the app. Puts together settings, task classes, the producers' helpers and, in `run`, a node.

Making an app and using its helpers patches nothing and needs no gevent; only `run` does.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from pytask import settings as settings_module
from pytask.app_running import AppRunning
from pytask.app_workflows import AppWorkflows
from pytask.declaring import DeclaresSchedules, DeclaresServices
from pytask.errors import ConfigurationError, TaskDefinitionError, UnknownTaskError
from pytask.functions import FunctionTask, TaskFunction, make_class
from pytask.helpers import PyTaskHelpers
from pytask.hooks import F, Hooks, check_hook, end_hook
from pytask.params import names_like_options
from pytask.producing import check_one_kind_of_data
from pytask.settings import Settings
from pytask.store.addresses import resolve_target
from pytask.store.store import Store
from pytask.store.target import Target
from pytask.task import AnyTask, Task, check_task_class

if TYPE_CHECKING:
    from pytask.aio import AioTasks

T = TypeVar("T", bound=type[Task])
P = ParamSpec("P")
R = TypeVar("R")
BUILT_IN_LOCAL = ("pytask/monitor", "pytask/cleanup", "pytask/sweep", "pytask/scheduler", "pytask/services")


class PyTask(AppRunning, AppWorkflows, DeclaresSchedules, DeclaresServices):
    """An app: where Redis is, which tasks there are, and how to make and control them.

    ::

        task_app = PyTask({"host": "localhost", "port": 6379})
        task_app.add_task(MyTask)
        task_app.helpers.start_task("my-task", text="hello")   # in any process
        task_app.run()                                         # in the daemon

    `redis`: a dict of connection arguments, a URL, a redis-py client (its settings are taken, never its pool),
    `'embedded'` for a server of its own, or nothing: then the environment, then localhost. Every other setting
    of `docs/settings.md` is a keyword. Raises SettingError for one that is unknown or wrong.
    """

    def __init__(self, redis: object = None, **arguments: Any) -> None:
        self._arguments: dict[str, Any] = {"redis": redis, **arguments}
        self.settings: Settings = settings_module.load(self._arguments)
        self.tasks: dict[str, type[Task]] = {}
        self._local: list[tuple[str, dict[str, Any]]] = []
        self._schedules = {}
        self._services = {}
        self.exception_handlers: list[Callable[[BaseException], Any]] = []
        self.hooks = Hooks()
        self._lock = threading.RLock()
        self._target: Target | None = None
        self._embedded: Any = None
        self._helpers: PyTaskHelpers | None = None
        self._aio: AioTasks | None = None
        self._redis: Any = None

    def configure(self, *, file: str | None = None, **flags: Any) -> None:
        """Let the command line's flags, and a file of settings, take their place. Before anything connects."""
        self.settings = settings_module.load(self._arguments, flags=flags, file=file)
        self.disconnect()

    # Tasks.

    def add_task(self, task_class: T) -> T:
        """Register a Task class; usable as a decorator. Raises TaskDefinitionError."""
        check_task_class(task_class)
        if (alike := names_like_options(task_class)) and not issubclass(task_class, FunctionTask):
            names = ", ".join(alike)
            warnings.warn(
                f"task {task_class.NAME}: {names} of __init__ is also an option of start_task: data with that name"
                " goes in as a dict",
                UserWarning,
                stacklevel=2,
            )
        known = self.tasks.setdefault(task_class.NAME, task_class)
        if known is not task_class:
            raise TaskDefinitionError(
                f"two task classes have the NAME {task_class.NAME!r}: {known.__qualname__} of {known.__module__}"
                f" and {task_class.__qualname__} of {task_class.__module__}"
            )
        return task_class

    def add_tasks(self, *task_classes: type[Task] | Iterable[type[Task]]) -> None:
        """Register several Task classes."""
        for item in task_classes:
            for task_class in item if isinstance(item, list | tuple | set) else (item,):
                self.add_task(task_class)

    @overload
    def task(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...

    @overload
    def task(
        self, *, name: str | None = None, bind: bool = False, **options: Any
    ) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...

    def task(  # type: ignore[misc]  # mypy: an option might be called `function`; then it is one more of them
        self, function: Any = None, /, *, name: str | None = None, bind: bool = False, **options: Any
    ) -> Any:
        """Make a task of a plain function; a decorator, with or without arguments.

        ::

            @task_app.task(queue="mail", retries=3)
            def send(to, text): ...

            send.start("ada@example.com", text="hello")     # in a node
            send("ada@example.com", text="hello")           # here and now, as ever

        `name` is `module.function` unless given. With `bind` the first parameter gets the running task. The
        options are those of docs/options.md, and `forever`, `validate`, `provide_context`. Raises
        TaskDefinitionError.
        """

        def make(function: Callable[..., Any]) -> TaskFunction[Any, Any]:
            task_class = self.add_task(make_class(function, name, bind, options))
            return TaskFunction(self, function, task_class)

        return make if function is None else make(function)

    def run_now(
        self,
        task: AnyTask,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        inputs: Any = None,
        **task_data: Any,
    ) -> Any:
        """Run a task in this process, now, without a queue and without a server: for tests and scripts.

        Returns the output, as JSON makes it, and raises what the task raises (InvalidInputError for data that does
        not fit). Options do nothing: there is one attempt, and no limit. `task` is a registered name, or a class.
        `inputs`: what the task is to find in `self.inputs`, a dict.
        """
        from pytask.eager import run_now

        check_one_kind_of_data(data, task_data)
        return run_now(self, task, task_data if data is None else data, inputs=inputs)

    def start_local_task(self, name: str, /, **data: Any) -> None:
        """Run a task on every node of this app from its start on. The built-in ones run once in any case."""
        if name in BUILT_IN_LOCAL:
            self._local = [row for row in self._local if row[0] != name]
        self._local.append((name, data))

    def add_exception_handler(self, handler: Callable[[BaseException], Any]) -> Callable[[BaseException], Any]:
        """Call `handler` with every exception that ends a task; several are called in order."""
        if not callable(handler):
            raise ConfigurationError(f"an exception handler is a function, not {handler!r}")
        self.exception_handlers.append(handler)
        return handler

    # Hooks.

    def on_node_start(self, hook: F) -> F:
        """Call `hook(node)`, with a NodeInfo, when a node is about to take tasks. For at most 30 seconds."""
        self.hooks.node_start.append(check_hook(hook, "on_node_start"))
        return hook

    def on_node_stop(self, hook: F) -> F:
        """Call `hook(node)` when a node has ended its tasks and is about to leave. For at most 5 seconds."""
        self.hooks.node_stop.append(check_hook(hook, "on_node_stop"))
        return hook

    def on_start(self, hook: F) -> F:
        """Call `hook(task)` in the task's greenlet at each start of a task, before its `__init__`."""
        self.hooks.start.append(check_hook(hook, "on_start"))
        return hook

    def on_end(self, hook: F) -> F:
        """Call `hook(task, state)` when a start has ended, before its record says so; see docs/hooks.md.

        Where it has a parameter `error` it gets what the task raised besides, or None: `hook(task, state, error)`.
        """
        self.hooks.end.append(end_hook(check_hook(hook, "on_end")))
        return hook

    def around(self, hook: F) -> F:
        """Call `hook(task, run)` around each start of a task; `run()` raises what the task raises."""
        self.hooks.around.append(check_hook(hook, "around"))
        return hook

    # Redis.

    @property
    def target(self) -> Target:
        """Where Redis is; starts the embedded server where that was asked for."""
        with self._lock:
            if self._target is None:
                self._target = resolve_target(self._address(), self.settings.redis_password)
            return self._target

    @property
    def is_embedded(self) -> bool:
        """Does the app start a server of its own?

        `embedded` is on a unix socket; `embedded:<directory>` keeps its data there; `embedded+tcp` listens on a
        port of loopback, with a password.
        """
        given = self.settings.redis
        return isinstance(given, str) and given.partition(":")[0] in ("embedded", "embedded+tcp")

    @property
    def url(self) -> str:
        """Where the embedded server listens; with its password, where it has one."""
        if not self.is_embedded:
            raise ConfigurationError("only an app with an embedded server knows a URL of its own")
        return str(self._address())

    def _address(self) -> object:
        if not self.is_embedded:
            return self.settings.redis
        from pytask.embedded import EmbeddedServer

        if self._embedded is None:
            kind, _, directory = str(self.settings.redis).partition(":")
            self._embedded = EmbeddedServer(directory or None, tcp=kind == "embedded+tcp").start()
        return self._embedded.url

    @property
    def helpers(self) -> PyTaskHelpers:
        """The producers' helpers; connects when first used."""
        with self._lock:
            if self._helpers is None:
                store = Store(self.target, self.settings.namespace, durable=self.settings.durable)
                self._helpers = PyTaskHelpers(
                    store, self.settings.queues, self.tasks, max_data=self.settings.max_data
                )
                self._helpers.run_here = self.run_now
                self._helpers.declared_schedules = self._schedules
            return self._helpers

    @property
    def aio(self) -> AioTasks:
        """The same for asyncio programs; connects when first awaited, in each event loop anew."""
        with self._lock:
            if self._aio is None:
                from pytask.aio import AioTasks

                found = self.settings
                self._aio = AioTasks(
                    self.target,
                    found.namespace,
                    self.tasks,
                    lambda: self.helpers.store,
                    max_data=found.max_data,
                    queues=found.queues,
                    durable=found.durable,
                )
            return self._aio

    @property
    def redis(self) -> Any:
        """A redis-py client for the app's own use: replies are bytes, at most 100 connections."""
        with self._lock:
            if self._redis is None:
                self._redis = self.target.client(timeout=None, size=100)
            return self._redis

    def disconnect(self) -> None:
        """Forget every connection; they are made anew when used. The embedded server goes on."""
        if self._helpers is not None:
            self._helpers.close()
        if self._redis is not None:
            self._redis.close()
        self._helpers = self._redis = self._target = self._aio = None

    def close(self) -> None:
        """Close the connections, and end the embedded server where there is one. Safe to repeat."""
        self.disconnect()
        if self._embedded is not None:
            self._embedded.stop()
            self._embedded = None

    # The daemon.

    def make_node(self) -> Any:
        """The node, not started yet. Raises ConfigurationError where gevent has not patched: it would hang."""
        from gevent import monkey

        from pytask.node.node import Node

        if not monkey.is_module_patched("socket"):
            raise ConfigurationError("a node needs gevent's patches: use run(), or `pytask worker`")
        return Node(
            self.settings,
            self.target,
            self.known_tasks,
            helpers=self.helpers,
            redis=lambda: self.redis,
            exception_handlers=self.exception_handlers,
            hooks=self.hooks,
            local_tasks=self._local_tasks(),
        )

    @property
    def known_tasks(self) -> dict[str, type[Task]]:
        """Every task class that a node of this app knows, by name."""
        return {**self._built_in(), **self.tasks}

    def _built_in(self) -> dict[str, type[Task]]:
        from pytask.tasks.call import allowing
        from pytask.tasks.cleanup import Cleanup
        from pytask.tasks.monitor import Monitor
        from pytask.tasks.scheduler import Scheduler
        from pytask.tasks.services import Services
        from pytask.tasks.sweep import Sweep
        from pytask.tasks.workflow import steering

        call = allowing(self.settings.callable_prefixes)
        ours = (Monitor, Cleanup, Sweep, Scheduler, Services, call, steering(self.settings))
        return {task_class.NAME: task_class for task_class in ours}

    def _local_tasks(self) -> list[tuple[type[Task], dict[str, Any]]]:
        known = self.known_tasks
        wanted = list(self._local)
        if self.settings.local_tasks:
            wanted += [(name, {}) for name in self._built_in_local() if name not in dict(wanted)]
        rows = []
        for name, data in wanted:
            if name not in known:
                raise UnknownTaskError(f"local task {name!r} is not registered: add it with add_task")
            rows.append((known[name], {**self._local_defaults(name), **data}))
        return rows

    def _built_in_local(self) -> list[str]:
        return [name for name in BUILT_IN_LOCAL if name != "pytask/sweep" or self.settings.sweep_interval]

    def _local_defaults(self, name: str) -> dict[str, Any]:
        settings = self.settings
        if name == "pytask/monitor":
            return {"queues": list(settings.queues), "node_timeout": settings.node_timeout}
        if name == "pytask/sweep":
            return {
                "queues": list(settings.queues),
                "interval": settings.sweep_interval,
                "node_timeout": settings.node_timeout,
            }
        if name == "pytask/scheduler":
            return {"unknown_wait": settings.unknown_wait}
        if name == "pytask/services":
            return {"definitions": self._service_definitions()}
        if name == "pytask/cleanup":
            return {
                "result_ttl": settings.result_ttl,
                "failure_ttl": settings.failure_ttl,
                "node_timeout": settings.node_timeout,
            }
        return {}
