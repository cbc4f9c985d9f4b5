"""Control: the one reader of pub/sub. Takes `stop`, `reload` and messages from `task-<id>-control`, for any task.

Its connection also carries the node's liveness subscription: a killed process drops it within milliseconds,
and Monitors see that. After each reconnect every run's record is compared, since messages may be missed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gevent.event import Event

from pytask import wire
from pytask.node.local import LocalTasks
from pytask.node.mail import deliver
from pytask.node.reconcile import Reconcile
from pytask.node.report import Report
from pytask.node.run import Run
from pytask.node.service import Service
from pytask.node.state import NodeState
from pytask.node.stopper import Stopper
from pytask.store.listener import Listener, Message

log = logging.getLogger("pytask.node")


class Control(Service):
    """The reader."""

    name = "control"
    last_delay = 0.5  # others wait only for a moment for its subscription to stand again

    def __init__(
        self,
        state: NodeState,
        stopper: Stopper,
        reconcile: Reconcile,
        local: LocalTasks,
        report: Report,
        make_listener: Callable[[list[bytes], list[bytes]], Listener],
    ) -> None:
        super().__init__()
        self.state = state
        self.stopper = stopper
        self.reconcile = reconcile
        self.local = local
        self.report = report
        self.make_listener = make_listener
        self.standing = Event()
        self.on_told: Callable[[bytes], None] = lambda _queue: None  # with the key of a queue: see to its inbox
        self.on_cut: Callable[[], None] = lambda: None  # called when the subscription is gone

    def run(self) -> None:
        """Subscribe and read, until the connection breaks."""
        listener = self.make_listener(self._channels(), [self.state.store.keys.control_pattern])
        try:
            self.standing.set()
            self.reconcile.want_check()
            while True:
                message = listener.get()
                if message is not None:
                    self._take(message)
        finally:
            self.standing.clear()
            self.on_cut()
            listener.close()

    def _channels(self) -> list[bytes]:
        """What others see of this node: that it lives, and that it watches them."""
        keys, node = self.state.store.keys, self.state.id
        return [keys.alive(node), keys.watches(node)] if self.local.runs_monitor else [keys.alive(node)]

    def renew(self) -> None:
        """Subscribe anew, under the node's new id."""
        self.stop()
        self.start()

    def _take(self, message: Message) -> None:
        if message.channel == self.state.store.keys.alive(self.state.id):
            self.on_told(message.data)
            return
        task_id = self.state.store.keys.id_of_control(message.channel)
        run = self.state.registry.find(self.state.queue_names, task_id)
        if run is not None:
            self._act(run, message.data)
        elif task_id in self.local.runs:
            self.local.control(task_id, message.data)
        elif message.data == b"stop":
            self.stopper.stop_held(task_id)

    def _act(self, run: Run, data: bytes) -> None:
        if data == b"stop":
            self.stopper.stop(run)
        elif data == b"reload":
            self.stopper.reload(run)
        elif data.lstrip(b" \t\r\n").startswith(b"{"):
            deliver(run, data, self.report, self.state.settings.max_data)
        else:
            log.warning(
                "id %s: the control message %s is none of 'stop', 'reload' and no JSON object: ignored",
                wire.shown(run.id),
                wire.shown(data),
            )
