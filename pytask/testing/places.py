"""Where tests run: an app on another server for a while, and waiting until its real nodes have nothing to do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from pytask import wire
from pytask.app import PyTask
from pytask.embedded import EmbeddedServer
from pytask.names import queue_label

PAUSE = 0.01
LOOKS = 2  # in a row: a task may have started another one in a queue that was looked at before


@contextlib.contextmanager
def on_server(app: PyTask, server: EmbeddedServer | str) -> Iterator[PyTask]:
    """Let an app use another server: an embedded one, or a URL. Afterwards it is as it was.

    Helpers that somebody holds already, `helpers = task_app.helpers` in a module, go to that server as well. The
    setting `durable` is off meanwhile: a private server has no replica.
    """
    settings, held = app.settings, app._helpers
    before = {} if held is None else dict(vars(held))
    app.configure(redis=server if isinstance(server, str) else server.url, durable=False)
    if held is not None:
        vars(held).update(vars(app.helpers))
        app._helpers = held
    try:
        yield app
    finally:
        app.disconnect()
        app.settings = settings
        if held is not None:
            vars(held).update(before)
            app._helpers = held


def wait_until_idle(app: PyTask, timeout: float = 10.0) -> None:
    """Wait until nothing waits in the app's queues and no node runs anything of them.

    What waits for a later time does not count. Raises TimeoutError, with what there still is.
    """
    deadline = time.monotonic() + timeout
    quiet = 0
    while quiet < LOOKS:
        left = [words for queue in app.helpers.queues if (words := _left(app, queue))]
        quiet = 0 if left else quiet + 1
        if left and time.monotonic() > deadline:
            raise TimeoutError(f"not idle after {timeout:g} s: {'; '.join(left)}")
        time.sleep(PAUSE)


def _left(app: PyTask, queue: str) -> str:
    """What waits or runs in a queue, in words, as of one instant; empty for nothing."""
    store = app.helpers.store
    keys = store.keys.queue(queue)
    nodes = store.membership(queue).get_sequences()
    with app.redis.pipeline(transaction=True) as look:
        look.llen(keys.key)
        look.hkeys(keys.claims)
        for node in nodes:
            look.llen(keys.inbox(node))
        look.zcount(keys.due, "-inf", time.time())
        waiting, claimed, *inboxes, due = look.execute()
    counts = {"wait": waiting + sum(inboxes), "run": len(claimed), "are due": due}
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    ids = " ".join(wire.shown(task_id) for task_id in claimed[:10])
    return f"queue {queue_label(queue)}: {words} {ids}".rstrip() if words else ""
