"""taskit's words: `publish` and `TaskEngine`, over `pytask/call` and queues.

A channel is the queue `queue_name_of(channel)`. What `publish` makes is a plain task, `pytask/call`, which a node
runs where its setting `callable_prefixes` (PYTASK_CALLABLE_PREFIXES) lets the function in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pytask import states
from pytask.app import PyTask
from pytask.calling import EXPIRES_IN, path_of
from pytask.errors import InvalidInputError
from pytask.handle import TaskHandle
from pytask.names import queue_label, queue_name_of, shown
from pytask.options import MOST_TITLE

MOST = 10_000  # ids of a channel in each list of `get_status`

_app: PyTask | None = None


def use(redis: object = None, **settings: Any) -> PyTask:
    """Let `publish` use this Redis, or this app; returns the app.

    `redis` and `settings` are those of `PyTask`. Without a call of this the environment counts (PYTASK_REDIS_URL,
    PYTASK_NAMESPACE), then localhost.
    """
    global _app
    _app = redis if isinstance(redis, PyTask) else PyTask(redis, **settings)
    return _app


def publish(
    channel: str, function: str | Callable[..., Any], data: Any, expires: float = EXPIRES_IN
) -> TaskHandle:
    """Let a node that serves the channel call the function with the data; returns the id, which is a handle.

    `function`: `'my_module.my_function'`. `expires`: how many seconds it may wait for its start. Raises
    InvalidInputError for what is no path and for data that JSON cannot hold, SettingError for what is no channel.
    """
    app, path = use() if _app is None else _app, path_of(function)
    title = path[:MOST_TITLE]  # what lists show
    handle: TaskHandle = app.helpers.publish(queue_name_of(channel), path, data, expires=expires, title=title)
    return handle


publish_task = publish


class TaskEngine:
    """Listens to channels: a node that runs `max_workers` functions at a time, in greenlets.

    The record of each is kept for `task_expiration` seconds after its end. `settings` are those of `PyTask`, among
    them `redis`; what is not given comes from the environment.
    """

    def __init__(
        self, channels: Iterable[str], max_workers: int = 5, task_expiration: float = 3600, **settings: Any
    ) -> None:
        self.channels = _check_channels(channels)
        self.app = PyTask(
            **settings,
            queues=[queue_label(queue_name_of(channel)) for channel in self.channels],
            concurrency=max_workers,
            result_ttl=task_expiration,
            failure_ttl=task_expiration,
        )

    def pytask_app(self) -> PyTask:
        """The app, for `pytask orchestrate`."""
        return self.app

    def start_listening(self) -> None:
        """Run what is published, in a process that is forked, until SIGTERM or Ctrl-C."""
        self.app.run(processes=1)

    def get_status(self) -> dict[str, list[str]]:
        """The ids of all channels: `pending_tasks`, which wait, `running_tasks`, and `error_tasks`, which failed.

        In any process, whether it listens or not. At most 10,000 of each channel in each list. Of what has ended
        the newest `keep_ended` (a setting) of a channel are known, as long as their records are kept.
        """
        return {
            "pending_tasks": self._ids(states.WAIT, *states.PARKED),
            "running_tasks": self._ids(states.RUNNING),
            "error_tasks": self._ids(*states.FAILED),
        }

    def _ids(self, *wanted: str) -> list[str]:
        listed: Any = self.app.helpers.list_tasks
        queues = map(queue_label, self.app.settings.queues)
        return [row["id"] for queue in queues for row in listed(queue=queue, state=wanted, limit=MOST, find=False)]


def _check_channels(channels: Any) -> list[str]:
    if isinstance(channels, str | bytes) or not isinstance(channels, Iterable):
        raise InvalidInputError(f"channels is a list of names, not {shown(channels)}")
    found = list(channels)
    if not found:
        raise InvalidInputError("channels is a list of at least one name")
    return found
