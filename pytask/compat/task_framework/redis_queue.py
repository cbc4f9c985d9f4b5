"""RedisTaskQueue: a queue of ours, under their name."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from pytask.app import PyTask
from pytask.compat.task_framework.messages import MessageNotExist, ResultMessage, TaskMessage, result_of_record
from pytask.errors import TaskFailed, TaskGone, TaskNotFoundError
from pytask.names import queue_name_of

QUEUE = "tasks"


class RedisTaskQueue:
    """A queue on Redis: an app of ours with one queue. Connects when it is first used.

    Without `redis_url` the environment says where Redis is (REDIS_URL), else it is localhost. Without `queue_name`
    QUEUE_NAME says it, else it is `tasks`. `settings` are those of docs/settings.md.
    """

    def __init__(self, redis_url: str | None = None, queue_name: str | None = None, **settings: Any) -> None:
        self.queue_name = queue_name or os.environ.get("QUEUE_NAME") or QUEUE
        self.queue = queue_name_of(self.queue_name)
        self.app = PyTask(redis_url, **{"queues": [self.queue], **settings})

    def enqueue(self, message: TaskMessage, **options: Any) -> str:
        """Make a task and push it; returns its id. The options are those of docs/options.md."""
        given = {"queue": self.queue, "task_id": message.task_id or None, "retries": message.max_retries}
        return str(self.app.helpers.start_task(message.task_name, message.params, **{**given, **options}))

    def get_message(self, message_id: str) -> ResultMessage | None:
        """How a task stands now; None where there is no record of it."""
        record = self.app.helpers.get_task(message_id)
        return None if record is None else result_of_record(message_id, record)

    def wait(self, message_id: str, timeout: float | None) -> ResultMessage:
        """The same once it has ended. Raises TaskTimeout, MessageNotExist."""
        with contextlib.suppress(TaskFailed, TaskGone):
            self.app.helpers.get_result(message_id, timeout)
        message = self.get_message(message_id)
        if message is None:
            raise MessageNotExist(
                f"there is no message of task {message_id}: see result_ttl for how long it is kept"
            )
        return message

    def cancel(self, message_id: str) -> bool:
        """Stop a task, whether it waits or runs; False where it has ended, or there is none."""
        try:
            return self.app.helpers.stop_task(message_id)
        except TaskNotFoundError:
            return False
