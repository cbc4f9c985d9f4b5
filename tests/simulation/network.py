"""The way between processes and servers, and everything that goes wrong on it.

A command takes a while to arrive, and its reply a while to come back. On the way a command may be refused (it was
not executed, the caller gets an error) or its reply may be lost (it was executed, the caller gets an error all
the same). A process may be cut off, a server may be away, connections may be reset: what was blocked or subscribed
on them is then gone. A blocking move is kept at the server: a frozen node still gets its id.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from random import Random
from typing import Any

from greenlet import GreenletExit
from redis import exceptions

from pytask.store import scripts as product
from pytask.store.listener import Message
from simulation.hub import EPOCH, Hub, Process, Unit
from simulation.server import SLOTS, ServerError, slot_of

NOWHERE = -1
LIST_SLOTS = (0, 1, 3)  # those with a list on which somebody may block
NEVER_PUSH = frozenset({"beat", "begin", "claim", "emit", "finish", "hold", "renew", "HGETALL", "PUBSUB", "HGET"})
REFUSED, LOST = "refused", "lost"
SOCKET_TIMEOUT = 5.0
UNNOTICED = 2.0  # seconds: a Monitor may look before and after, and not meanwhile
ERRORS = {REFUSED: "connection refused", LOST: "the reply was lost"}
Command = tuple[bytes, ...]


class Machine(Process):
    """A process with a network card."""

    def __init__(self, hub: Hub, label: str, seed: object) -> None:
        super().__init__(hub, label, seed)
        self.network: Network
        self.luck = Random(f"{seed}/{label}/faults")
        self.sent = 0
        self.cut = False
        self.connection = 0  # grows when its connections are reset


class Sending:
    """A call on its way."""

    __slots__ = ("commands", "connection", "deadline", "fault", "machine", "role", "turn", "unit")

    def __init__(
        self, machine: Machine, unit: Unit, role: str, commands: list[Command], fault: str | None
    ) -> None:
        self.machine = machine
        self.unit = unit
        self.turn = unit.turn
        self.role = role
        self.commands = commands
        self.fault = fault
        self.connection = machine.connection
        seconds = float(commands[0][-1]) if commands[0][0] == b"BLMOVE" else 0.0
        self.deadline = machine.hub.now + seconds + SOCKET_TIMEOUT


class Network:
    """All ways. `watch(machine, name, keys, args, evaluate)` sees every script and command when it is executed."""

    def __init__(
        self, hub: Hub, server: Any, slowness: float, slowest: float, fault: Callable[[Machine, str], str | None]
    ) -> None:
        self.hub = hub
        self.server = server
        self.slowness = slowness  # the share of commands, and of replies, that are slow
        self.slowest = slowest  # seconds
        self.fault = fault
        self.watch: Callable[..., Any] = lambda _machine, _name, _keys, _args, evaluate: evaluate()
        self.on_refusal: Callable[[str], None] = lambda _what: None
        self.trace: Callable[[str], None] | None = None
        self.clocks = [0.0] * len(SLOTS)
        self.cluster = False  # has each slot, and each record, a server of its own?
        self.away = False
        self.away_before = 0.0  # seconds of outages that are over
        self._away_since = 0.0
        self.waiters: dict[bytes, deque[tuple[Sending, bytes]]] = defaultdict(deque)
        self.listeners: list[Any] = []
        self.gone_since: dict[bytes, float] = {}  # channel -> when its listener last went
        self._names = script_digests()

    def time(self, slot: int) -> float:
        """Epoch seconds by the clock of a slot's server."""
        return EPOCH + self.hub.now + self.clocks[slot]

    # Sending.

    def send(self, machine: Machine, role: str, commands: list[Command]) -> list[Any]:
        """The replies; an error in the place of each that the server refused. Raises ConnectionError."""
        hub, unit = self.hub, self.hub.unit
        machine.sent += 1
        sending = Sending(machine, unit, role, commands, self.fault(machine, role))
        hub.at(hub.now + self._latency(machine, role), self._arrive, sending)
        try:
            replies = hub.block()
        except GreenletExit:  # its connection is closed, and the server will notice
            if commands[0][0] == b"BLMOVE":
                self._notice_the_end(sending)
            raise
        return [exceptions.ResponseError(str(r)) if isinstance(r, ServerError) else r for r in replies]

    def _latency(self, machine: Machine, role: str) -> float:
        number = machine.random.random()
        if number >= self.slowness:
            return number * 0.004
        if role == "pytask:beat":
            return machine.random.uniform(0.01, 0.3)
        return self.slowest * machine.random.choice((machine.random.random(), machine.random.uniform(0.85, 1.0)))

    def _arrive(self, sending: Sending) -> None:
        machine = sending.machine
        if (
            self.away
            or machine.cut
            or sending.fault == REFUSED
            or (sending.connection != machine.connection and machine.random.random() < 0.5)
        ):
            self._fail(sending, REFUSED)
        elif sending.commands[0][0] == b"BLMOVE":
            self._block(sending)
        else:
            self._reply(sending, [self._execute(machine, command) for command in sending.commands])

    def _fail(self, sending: Sending, why: str) -> None:
        if self.trace:
            self.trace(f"{sending.machine.label} {_short(self._name(sending.commands[0]))} -> {ERRORS[why]}")
        error = exceptions.ConnectionError(ERRORS[why])
        delay = 0.05 if why == REFUSED else 0.5
        self.hub.at(self.hub.now + delay, self.hub.wake, sending.unit, sending.turn, None, error)

    def _reply(self, sending: Sending, replies: list[Any]) -> None:
        machine = sending.machine
        if sending.fault == LOST or machine.cut or sending.connection != machine.connection:
            self._fail(sending, LOST)
        elif machine.random.random() < self.slowness:
            time = self.hub.now + self._latency(machine, sending.role)
            if time > sending.deadline:
                self.hub.at(sending.deadline, self._fail, sending, LOST)
            else:
                self.hub.at(time, self.hub.wake, sending.unit, sending.turn, replies)
        else:
            self.hub.wake(sending.unit, sending.turn, replies)

    # Executing.

    def _name(self, command: Command) -> Command:
        """The command with the script's name in place of its digest."""
        if command[0] == b"EVALSHA":
            return (self._names[command[1]].encode(), *command[3:])
        return command

    def _execute(self, machine: Machine, command: Command) -> Any:
        try:
            reply = self._execute_one(machine, command)
        except ServerError as error:
            reply = error
            self.on_refusal(f"{machine.label} {_short(self._name(command))}: {error}")
        if self.trace:
            self.trace(f"{machine.label} {_short(self._name(command))} -> {_shown(reply)}")
        return reply

    def _execute_one(self, machine: Machine, command: Command) -> Any:
        name, slot = command[0].decode(), NOWHERE
        if name == "EVALSHA":
            name, count = self._names[command[1]], int(command[2])
            slot = slot_of(command[3])
            reply = self._evaluate(machine, name, command[3 : 3 + count], command[3 + count :])
        elif name == "PUBLISH":
            return self.watch(
                machine, name, command[1:2], command[2:], lambda: self._deliver(command[1], command[2])
            )
        elif name == "PUBSUB":
            standing = {channel for listener in self.listeners for channel in listener.channels}
            return [word for channel in command[2:] for word in (channel, int(channel in standing))]
        elif name == "PING":
            return b"PONG"
        elif name == "SCAN":  # a slot each time: between two of them things happen
            slot = int(command[1])
            _, keys = self.server.execute(slot, name, [b"0", *command[2:]])
            return [(slot + 1) % len(SLOTS), keys]
        else:
            slot, args = slot_of(command[1]), command[1:]
            reply = self.watch(machine, name, args[:1], args[1:], lambda: self.server.execute(slot, name, args))
        if slot in LIST_SLOTS and name not in NEVER_PUSH:
            self._serve_waiters(SLOTS[slot].encode())
        return reply

    def _evaluate(self, machine: Machine, name: str, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        width = 4 if name == "beat" and args[2] == b"1" else 1  # each queue is a server of its own here
        if name == "beat" and len(keys) > width and not self.cluster:
            groups = [keys[n : n + width] for n in range(0, len(keys), width)]
            return [row for group in groups for row in self._evaluate(machine, name, group, args)]
        slots = {slot_of(key) for key in keys}
        if len(slots) != 1:
            raise ServerError(f"CROSSSLOT {name} {keys}")
        slot = slots.pop()
        reply = self.watch(
            machine, name, keys, args, lambda: self.server.evaluate(slot, name, keys, args, self.time(slot))
        )
        if name == "stop" and reply[0] == b"ok":
            self._deliver(keys[0] + b"-control", b"stop")
        return reply

    # Blocking moves.

    def _block(self, sending: Sending) -> None:
        _, source, target, *_, seconds = sending.commands[0]
        self.waiters[source].append((sending, target))
        self.hub.at(self.hub.now + float(seconds), self._give_up, sending)
        self._serve_waiters(source)
        if sending.machine.dead or sending.unit.turn != sending.turn:
            self._notice_the_end(sending)

    def _notice_the_end(self, sending: Sending) -> None:
        """The caller's connection was closed: for a moment the server does not know that."""
        self.hub.at(self.hub.now + sending.machine.random.uniform(0, 0.05), self._forget_waiter, sending)

    def _serve_waiters(self, source: bytes) -> None:
        waiting = self.waiters.get(source)
        while waiting:
            sending, target = waiting[0]
            item = self.server.execute(slot_of(source), "LMOVE", [source, target, b"RIGHT", b"LEFT"])
            if item is None:
                return
            waiting.popleft()
            if self.trace:
                self.trace(f"{sending.machine.label} BLMOVE {_short((source, target))} -> {_shown(item)}")
            self._reply(sending, [item])

    def _give_up(self, sending: Sending) -> None:
        if self._forget_waiter(sending):
            self._reply(sending, [None])

    def _forget_waiter(self, sending: Sending) -> bool:
        waiting = self.waiters[sending.commands[0][1]]
        for row in waiting:
            if row[0] is sending:
                waiting.remove(row)
                return True
        return False

    # Pub/sub.

    def _deliver(self, channel: bytes, data: bytes) -> int:
        for listener in self.listeners:
            if not listener.machine.cut and listener.hears(channel):
                listener.take(Message(channel, data))
        return 0

    # What goes wrong.

    def go_away(self) -> None:
        """From now on no server answers."""
        if not self.away:
            self.away, self._away_since = True, self.hub.now

    def come_back(self) -> None:
        """The servers answer again."""
        self.away_before, self.away = self.seconds_away(), False

    def seconds_away(self) -> float:
        """How long no server has answered, in all; a moment that a Monitor may not notice left out."""
        lasted = self.hub.now - self._away_since if self.away else 0.0
        return self.away_before + (lasted if lasted > UNNOTICED else 0.0)

    def reset(self, machine: Machine) -> None:
        """The connections of a machine are gone, for itself and at the server."""
        machine.connection += 1
        blocked = [sending for rows in self.waiters.values() for sending, _ in rows if sending.machine is machine]
        for sending in blocked:
            self._forget_waiter(sending)
            self._fail(sending, LOST)
        for listener in [listener for listener in self.listeners if listener.machine is machine]:
            listener.break_off()


@cache
def script_digests() -> dict[bytes, str]:
    """Digest -> name of each script; patches of its text do not change it."""
    return {product.script(name).sha.encode(): name for name in product.script_names()}


def encoded(words: Iterable[Any]) -> Command:
    """A command as redis-py writes it."""
    return tuple(
        word if type(word) is bytes else word.encode() if isinstance(word, str) else repr(word).encode()
        for word in words
    )


def _short(command: Command) -> str:
    return " ".join(word.decode()[:60] for word in command)


def _shown(reply: Any) -> str:
    if isinstance(reply, list):
        return "[" + " ".join(_shown(item) for item in reply) + "]"
    return reply.decode()[:60] if isinstance(reply, bytes) else str(reply)
