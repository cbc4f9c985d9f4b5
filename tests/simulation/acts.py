"""What the acts of a scenario do: producers' wishes, and everything that breaks. Each returns at once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from redis import exceptions

from pytask.errors import TaskNotFoundError
from simulation.hub import EPOCH
from simulation.machines import NODE_TIMEOUT, QUEUES, NodeMachine
from simulation.network import Machine
from simulation.server import TASK_SLOT
from simulation.stand_ins import sleep

EXCUSED = 8.0  # seconds after a fault in which a node may not know yet that it was declared dead
KEYS = (b"new-task", b"new-task:mail")


class Acts:
    """The acts, on one world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.producers = 0

    def _produce(self, function: Callable[..., Any], *args: Any) -> None:
        self.producers += 1

        def work() -> None:
            function(*args)
            self.producers -= 1

        self.world.outside.spawn(work)

    def _send(self, *command: Any) -> Any:
        """A raw producer's command, sent again until a reply comes."""
        while True:
            try:
                return self.world.outside.raw.execute_command(*command)
            except exceptions.ConnectionError:
                sleep(0.2)

    # Producers.

    def create(self, number: int, queue: int, kind: str, turns: int, end: str, options: dict[str, Any]) -> None:
        key = f"task-t{number}"
        data = {"turns": turns, "end": end, "silent": "silent" in options}
        fields: list[Any] = ["task", kind, "data", json.dumps(data)]
        for name in ("due", "expires"):
            if name in options:
                fields += [name, f"{EPOCH + self.world.hub.now + options[name]:.3f}"]
        if "kept" in options:
            fields += ["cleanup", "false"]
        if "once" in options:
            fields += ["rescheduling", "false"]
        self._produce(self._create, key, fields, queue, number, options.get("late"))

    def _create(self, key: str, fields: list[Any], queue: int, number: int, late: float | None) -> None:
        if late is not None:  # the push comes before the hash
            self._send("LPUSH", KEYS[queue], f"t{number}")
            sleep(late)
        self._send("HSET", key, *fields)
        if late is None:
            self._send("LPUSH", KEYS[queue], f"t{number}")

    def put_off(self, number: int, queue: int, seconds: float, delay: float) -> None:
        """Make a task that waits for so long; stop it after a while."""
        self._produce(self._put_off, number, queue, seconds, delay)

    def _put_off(self, number: int, queue: int, seconds: float, delay: float) -> None:
        due = f"{EPOCH + self.world.hub.now + seconds:.3f}"
        self._create(f"task-t{number}", ["task", "work", "due", due], queue, number, None)
        sleep(delay)
        self.world.outside.helpers.stop_task(f"t{number}")

    def push(self, number: int, queue: int) -> None:
        self._produce(self._send, "LPUSH", KEYS[queue], f"t{number}")

    def push_often(self, number: int, queue: int) -> None:
        """Several times in one command, beside another id: one claim pops them together."""
        self._produce(self._send, "LPUSH", KEYS[queue], f"t{number}", f"t{number}", f"t{number + 1}", f"t{number}")

    def restart(self, number: int, raw: bool) -> None:
        if raw:
            self._produce(self._restart, number)
        else:
            self._produce(self._try, self.world.outside.helpers.restart_task, f"t{number}")

    def _restart(self, number: int) -> None:
        if self.world.checker.exists(number):
            self._send("HDEL", f"task-t{number}", "control")
            self._send("HSET", f"task-t{number}", "state", "WAIT")
            self._send("LPUSH", KEYS[self.world.random.randrange(2)], f"t{number}")

    def stop(self, number: int, raw: bool) -> None:
        if raw:
            self._produce(self._stop, number)
        else:
            self._produce(self._try, self.world.outside.helpers.stop_task, f"t{number}")

    def _stop(self, number: int) -> None:
        if self.world.checker.exists(number):
            self._send("HSET", f"task-t{number}", "control", "stop")
            self._send("PUBLISH", f"task-t{number}-control", "stop")

    def tell_stop(self, number: int) -> None:
        """The message alone, which may be lost."""
        self._produce(self._send, "PUBLISH", f"task-t{number}-control", "stop")

    def reload(self, number: int) -> None:
        self._produce(self._send, "PUBLISH", f"task-t{number}-control", "reload")

    def delete(self, number: int) -> None:
        self._produce(self._send, "DEL", f"task-t{number}")

    def recreate(self, number: int, queue: int) -> None:
        self._produce(self._recreate, number, queue)

    def _recreate(self, number: int, queue: int) -> None:
        self._send("DEL", f"task-t{number}")
        self._send("HSET", f"task-t{number}", "task", "work")
        self._send("LPUSH", KEYS[queue], f"t{number}")

    def _try(self, helper: Callable[[str], Any], task_id: str) -> None:
        with contextlib.suppress(TaskNotFoundError):
            helper(task_id)

    def pause_queue(self, queue: int, seconds: float) -> None:
        """Nothing of the queue starts for so long."""
        self._produce(self._pause_queue, b"{%s}:paused" % KEYS[queue], seconds)

    def _pause_queue(self, key: bytes, seconds: float) -> None:
        self._send("SET", key, "1")
        self.world.at_most(seconds, lambda: self._produce(self._send, "DEL", key))

    def resume_queues(self) -> None:
        """Again: a failover may have taken the end of a pause back."""
        for queue in KEYS:
            self._produce(self._send, "DEL", b"{%s}:paused" % queue)

    # Nodes.

    def _pick(self, number: int) -> NodeMachine | None:
        alive = [machine for machine in self.world.nodes if not machine.dead]
        return alive[number % len(alive)] if alive else None

    def kill(self, number: int, replaced: bool, parent: bool) -> None:
        machine = self._pick(number)
        if machine is None:
            return
        machine.kill()
        if parent:
            self.world.outside.spawn(self._bury, machine)
        if replaced:
            self.world.add_node()

    def _bury(self, machine: NodeMachine) -> None:
        """What a parent process does for a child that died."""
        for node in machine.ids:
            for queue in QUEUES:
                self.world.outside.store.membership(queue).leave(node)

    def terminate(self, number: int, replaced: bool) -> None:
        machine = self._pick(number)
        if machine is not None:
            machine.terminate()
        if replaced:
            self.world.add_node()

    def hold(self, number: int, seconds: float) -> None:
        machine = self._pick(number)
        if machine is not None:
            machine.hold()
            self._after(seconds, machine, machine.go_on)

    def freeze(self, number: int, seconds: float) -> None:
        machine = self._pick(number)
        if machine is not None and not machine.paused:
            machine.paused = True
            machine.excused_until = self.world.hub.now + seconds + EXCUSED
            self._after(seconds, machine, machine.resume)

    def cut(self, number: int, seconds: float, noticed: bool) -> None:
        """No packet comes through; the server may notice at once, or after a while."""
        machine = self._pick(number)
        if machine is not None and not machine.cut:
            machine.cut = True
            machine.excused_until = self.world.hub.now + seconds + EXCUSED
            self._after(seconds, machine, lambda: self._mend(machine))
            if noticed:
                self.world.network.reset(machine)
            elif seconds > NODE_TIMEOUT:
                self._after(NODE_TIMEOUT, machine, lambda: self.world.network.reset(machine))

    def _mend(self, machine: Machine) -> None:
        machine.cut = False
        self.world.network.reset(machine)

    def reset(self, number: int) -> None:
        machine = self._pick(number)
        if machine is not None:
            self.world.network.reset(machine)

    def _after(self, seconds: float, machine: Machine, function: Callable[[], Any]) -> None:
        def act() -> None:
            if not machine.dead:
                function()

        self.world.at_most(seconds, act)

    # Servers.

    def outage(self, seconds: float, restarted: bool) -> None:
        """The servers answer nothing; where they are restarted every connection is gone."""
        network = self.world.network
        network.go_away()
        if restarted:
            for machine in [*self.world.nodes, self.world.outside]:
                network.reset(machine)
        self.world.at_most(seconds, network.come_back)

    def failover(self, slot: int, seconds: float) -> None:
        """A replica takes over that had not heard of the last seconds; its clock may be another."""
        world = self.world
        world.server.remember(slot)
        self.world.at_most(seconds, lambda: self._take_over(slot))

    def _take_over(self, slot: int) -> None:
        network = self.world.network
        self.world.server.restore(slot)
        self.world.checker.forget_fences()
        if slot != TASK_SLOT and self.world.random.random() < 0.5:
            network.clocks[slot] -= 20.0
        for machine in [*self.world.nodes, self.world.outside]:
            network.reset(machine)
