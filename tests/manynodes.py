"""Several real nodes in one process, for tests of what many nodes do to a server: `manynodes.py URL COUNT QUEUES`.

Each has an app, stores, connections and a heartbeat thread of its own, as if it were alone. Says `ready` when all
take tasks, and ends when its standard input does.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

import gevent  # noqa: E402

from pytask import PyTask, Task  # noqa: E402


class Noop(Task):
    """Does nothing."""

    NAME = "noop"

    def start(self):
        """Return at once."""


def main(url: str, count: str, queues: str) -> None:
    """Start the nodes, one after the other, and wait."""
    nodes = []
    for number in range(int(count)):
        app = PyTask(url, queues=queues, node_name=f"n{number}")
        app.add_task(Noop)
        nodes.append(app.make_node())
        nodes[-1].start()
    print("ready", flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)


if __name__ == "__main__":
    main(*sys.argv[1:])
