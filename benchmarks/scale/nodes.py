"""Several real nodes in one process, for what many nodes do to servers: `python -m scale.nodes URL COUNT QUEUES`.

Each has an app, stores, connections and a heartbeat thread of its own, as if it were alone. Says `ready` when all
take tasks, and goes on until it is killed.
"""

# ruff: noqa: E402 - gevent patches before anything else is imported
from gevent import monkey

monkey.patch_all()

import sys

import gevent

from pytask import PyTask
from scale.app import Noop


def main(url: str, count: str, queues: str) -> None:
    """Start the nodes, one after the other, and wait."""
    gevent.config.track_greenlet_tree = False  # as `pytask worker` does
    for number in range(int(count)):
        app = PyTask(url, queues=queues, node_name=f"n{number}")
        app.add_task(Noop)
        app.make_node().start()
    print("ready", flush=True)
    while True:
        gevent.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
