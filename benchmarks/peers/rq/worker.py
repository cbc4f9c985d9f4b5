"""A worker script of one's own, which imports the tasks before it forks: RQ's page on performance advises it."""

from __future__ import annotations

import sys

import redis
import rq
import tasks
from rq.worker import SimpleWorker, Worker

kinds = {"simple": SimpleWorker, "fork": Worker}

if __name__ == "__main__":
    connection = redis.Redis.from_url(sys.argv[2], socket_timeout=None)
    kinds[sys.argv[1]]([rq.Queue("bench", connection=connection)], connection=connection).work(
        logging_level="WARNING"
    )
    assert tasks
