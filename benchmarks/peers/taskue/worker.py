"""Its runner, with an address that has a password: its command line takes none."""

from __future__ import annotations

import os

from taskue.runner import TaskueRunner  # patches, with gevent

import tasks
from redis import Redis

if __name__ == "__main__":
    assert tasks
    TaskueRunner(Redis.from_url(os.environ["BENCH_URL"], socket_timeout=None)).start()
