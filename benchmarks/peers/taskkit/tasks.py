"""taskkit on its Redis backend, with threads."""

from __future__ import annotations

import json
import logging
import os
import time

from marks import marks
from redis import Redis
from taskkit import DiscardTask, TaskHandler
from taskkit.impl.redis import make_kit

logging.disable(logging.INFO)


class Handler(TaskHandler):
    def handle(self, task):
        if task.name == "noop":
            marks.begin()
            marks.end()
        elif task.name == "pause":
            marks.begin()
            time.sleep(json.loads(task.data))
            marks.end()
        elif task.name == "stamp":
            marks.stamp(json.loads(task.data))
        else:
            raise DiscardTask

    def get_retry_interval(self, task, exception):
        return None

    def encode_data(self, group, task_name, data):
        return json.dumps(data).encode()

    def encode_result(self, task, result):
        return json.dumps(result).encode()

    def decode_result(self, task, encoded):
        return json.loads(encoded)


kit = make_kit(Redis.from_url(os.environ["BENCH_URL"], max_connections=20_000, socket_timeout=None), Handler())


def enqueue(kind, number):
    kit.initiate_task("bench", kind, number)


def enqueue_many(kind, numbers):
    kit.initiate_tasks(*({"group": "bench", "name": kind, "data": number} for number in numbers))


if __name__ == "__main__":
    kit.start(1, {"bench": int(os.environ["BENCH_CONCURRENCY"])})
