"""A program without a guard, as users of taskkit write them: it starts processes and looks after them."""

import json
import os
import time
from datetime import timedelta, timezone

from pytask.compat.taskkit import DiscardTask, RegularSchedule, ScheduleEntry, Task, TaskHandler, make_kit


class Handler(TaskHandler):
    now = 0  # how many naps there are at this moment, in this process

    def handle(self, task: Task):
        return getattr(self, task.name)(task, self.decode(task.data))

    def echo(self, task, data):
        return data

    def where(self, task, data):
        return {"pid": os.getpid(), "group": task.group, "due": task.due, "created": task.created, "ttl": task.ttl}

    def nap(self, task, data):
        self.now += 1
        before = self.now
        time.sleep(data)
        self.now -= 1
        return os.getpid(), before

    def chain(self, task, data):
        return 1 + kit.initiate_task(task.group, "chain", data - 1).get(timeout=20) if data else 0

    def fail(self, task, data):
        if task.retry_count < data:
            raise ValueError(f"failure {task.retry_count + 1}")
        return task.retry_count

    def discard(self, task, data):
        raise DiscardTask(data)

    def give_up(self, task, data):
        raise KeyError(data)

    def raise_in_interval(self, task, data):
        if task.retry_count < data:
            raise RuntimeError("the interval raises, too")
        return task.retry_count

    def no_bytes(self, task, data):
        return NotImplemented

    def any_bytes(self, task, data):
        return bytes(range(256))

    def fire(self, task, data):
        return [task.id, task.scheduled, task.due, data]

    def get_retry_interval(self, task: Task, exception: Exception) -> float | None:
        if isinstance(exception, KeyError):
            raise DiscardTask(f"{exception} is not wanted")
        if isinstance(exception, RuntimeError):
            raise ZeroDivisionError
        return 0.05 if task.retry_count < 2 else None

    def encode_data(self, group, task_name, data) -> bytes:
        return data if isinstance(data, bytes) else json.dumps(data).encode()

    def decode(self, data):
        return data if b"\xff" in data else json.loads(data)

    def encode_result(self, task, result) -> bytes:
        if result is NotImplemented:
            return 17
        return result if isinstance(result, bytes) else json.dumps(result).encode()

    def decode_result(self, task, encoded):
        return self.decode(encoded)


kit = make_kit(os.environ["URL"], Handler())
ENTRIES = {
    "ticks": [
        {
            "key": "every second",
            "group": "Größe XL / a",
            "name": "fire",
            "data": 5,
            "schedule": RegularSchedule(seconds="*"),
            "result_ttl": 60,
        },
        ScheduleEntry("later", RegularSchedule(hours=3, minutes=0), "b", "fire", b"\xff", 60),
    ],
    "empty": [],
}

if os.environ.get("WITHOUT"):
    ENTRIES["ticks"].pop(0)

kit.start(2, {"Größe XL / a": 2, "b": 1, "nobody": 0}, ENTRIES, timezone(timedelta(hours=9)))
