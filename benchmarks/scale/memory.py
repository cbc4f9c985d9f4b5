"""What a node holds in memory: idle, and for each task that sleeps in it, beside a bare greenlet that sleeps."""

from __future__ import annotations

import sys
import time
from typing import Any

import harness
from harness import Worker, wait_for

from scale.farm import Farm, farm

IDLE_MIB, EACH_KIB = 60.0, 12.0  # what is wanted at most
COUNT = 100_000

BARE = """
from gevent import monkey; monkey.patch_all()
import gc, os, sys, gevent
gevent.config.track_greenlet_tree = False

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

count = int(sys.argv[1])
gevent.sleep(0.1)
gc.collect()
before = resident()
all = [gevent.spawn(gevent.sleep, 3600) for _ in range(count)]
gevent.sleep(1)
print((resident() - before) / count)
os._exit(0)
"""


def measure(kind: str, count: int = COUNT) -> dict[str, Any]:
    """MiB of an idle node; KiB a sleeping task: of the node, of the server, and of a bare greenlet."""
    with farm(kind) as f:
        worker = f.start_worker(concurrency=count)
        time.sleep(3.0)
        idle, empty = harness.rss_bytes(worker.pid), _server_bytes(f)
        f.prepare(count, "sleep", '{"seconds":3600}')
        recorded = _server_bytes(f)
        f.release()
        wait_for(lambda: f.client.hlen("{new-task}:claims") == count, "all are claimed", 90, worker, nap=0.1)
        _wait_until_still(worker)
        full, claimed = harness.rss_bytes(worker.pid), _server_bytes(f)
    bare = float(harness.run_program([sys.executable, "-c", BARE, count], 60))
    return {
        "count": count,
        "idle_mib": idle / 2**20,
        "each_kib": (full - idle) / count / 1024,
        "bare_kib": bare / 1024,
        "server_record_bytes": (recorded - empty) / count,
        "server_running_bytes": (claimed - empty) / count,
    }


def _server_bytes(f: Farm) -> int:
    return int(f.client.info("memory")["used_memory"])


def _wait_until_still(worker: Worker) -> None:
    """Until every task that was claimed has started: the node has hardly anything to do any more."""

    def is_still() -> bool:
        before = harness.cpu_seconds(worker.pid)
        time.sleep(1.0)
        return harness.cpu_seconds(worker.pid) - before < 0.3

    wait_for(is_still, "the node comes to rest", 60, worker)
