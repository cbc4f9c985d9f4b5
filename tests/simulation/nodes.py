"""Watches the nodes: who beats, claims, is declared dead, and runs what."""

from __future__ import annotations

from typing import Any

from pytask.keys import Keys
from pytask.tasks.monitor import GONE_SECONDS
from simulation.machines import NODE_TIMEOUT, NodeMachine, Outside
from simulation.network import Machine
from simulation.server import QUEUE_SLOTS, YOUNG, slot_of
from simulation.story import Evaluate, Ledger, UserRun, Words

SEEN_GONE = 6.0  # so long ago a Monitor may have seen that a subscription is gone
CUT_OFF = 0.8  # of node_timeout: then a node stops by itself
SLACK = 2.0  # seconds until a node that is cut off has ended its runs
MARGIN = 0.2


class NodeWatch:
    """Judges who is dead, and who may run a task."""

    def __init__(self, ledger: Ledger) -> None:
        self.world, self.server = ledger.world, ledger.server
        self.fail, self.story = ledger.fail, ledger.story
        self.running: list[UserRun] = []
        self.reaped: set[bytes] = set()
        self.joined: dict[bytes, float] = {}
        self.beats: dict[tuple[int, bytes], tuple[float, float]] = {}  # when, and after how long an outage
        self.fences = dict.fromkeys(QUEUE_SLOTS, 0)
        self.hooks = {"claim": self._claim, "renew": self._renew, "beat": self._beat, "reap": self._reap}

    def joins(self, key: bytes, node: bytes) -> None:
        """A node enters a queue."""
        if (slot_of(key), node) not in self.beats:  # to join again moves no sequence
            self._heard(slot_of(key), node)
        self.joined.setdefault(node, self.world.hub.now)

    def _claim(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        slot = slot_of(keys[0])
        paused = self.server.execute(slot, "EXISTS", [keys[8]])
        reply = evaluate()
        if paused and len(reply) > 1:
            self.fail("a paused queue is served", reply[1].decode())
        for i in range(1, len(reply), 5):
            if int(reply[i + 1]) <= self.fences[slot]:
                self.fail("a fence does not grow", f"{reply[i].decode()}: {reply[i + 1]!r}")
            self.fences[slot] = int(reply[i + 1])
        return reply

    def _renew(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        reply, story = evaluate(), self.story(args[1])
        if reply[0] == b"ok" and int(args[2]) in story.remembered:
            story.remembered.add(int(reply[1]))
        return reply

    def _beat(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        replies = evaluate()
        for nodes, answer in zip(keys[::4], replies, strict=True):
            if not answer or answer[0] >= 0:
                self._heard(slot_of(nodes), args[0])
        return replies

    def _heard(self, slot: int, node: bytes) -> None:
        self.beats[slot, node] = self.world.hub.now, self.world.network.seconds_away()

    def _silence(self, slot: int, node: bytes) -> float:
        """Seconds since a node's last beat in which it could have beaten: an outage makes nobody dead."""
        when, away = self.beats.get((slot, node), (-100.0, 0.0))
        return float(self.world.hub.now - when - (self.world.network.seconds_away() - away))

    def _reap(self, machine: Machine, keys: Words, args: Words, evaluate: Evaluate) -> Any:
        node, slot = args[0], slot_of(keys[0])
        sequence, mark = self.server.execute(slot, "HMGET", [keys[3], node, b"-" + node])
        owned = self._claims_of(slot, keys)
        reply = evaluate()
        if reply >= 0:
            said = b"%b %b" % (args[1], args[4]) if args[3] == b"1" else args[1]
            self._note_deaths(slot, mark or said, owned, self._claims_of(slot, keys))  # the first one's word holds
            if sequence is not None and mark is None:
                self._check_death(machine, slot, node)
            if isinstance(machine, Outside) or node not in machine.ids:
                self.reaped.add(node)
        return reply

    def _claims_of(self, slot: int, keys: Words) -> dict[bytes, bytes]:
        """Id -> fence of the claims that stand in `of:<node>` and in `claims`."""
        node = keys[2].rpartition(b":of:")[2]
        words = self.server.execute(slot, "HGETALL", [keys[2]])
        fences = {task_id: entry.split()[0] for task_id, entry in zip(words[::2], words[1::2], strict=True)}
        owners = {task_id: self.server.execute(slot, "HGET", [keys[1], task_id]) for task_id in fences}
        return {task_id: fence for task_id, fence in fences.items() if owners[task_id] == node + b" " + fence}

    def _note_deaths(self, slot: int, mark: bytes, before: dict[bytes, bytes], left: dict[bytes, bytes]) -> None:
        """A death counts against the run that was blamed; where none was, against all that are young."""
        _, blames, blamed = mark.partition(b" ")
        for task_id in before.keys() - left.keys():
            age = self.world.network.time(slot) - int(before[task_id]) / 1e6
            if task_id == blamed if blames else age < YOUNG:
                self.story(task_id).died_young.add(int(before[task_id]))

    def _check_death(self, machine: Any, slot: int, node: bytes) -> None:
        """Only who is silent is dead. A node may end itself, and a parent knows about its child."""
        if isinstance(machine, Outside) or self._owner(node).dead:
            return
        silent = self._silence(slot, node)
        channel = Keys().alive(node)
        network = self.world.network
        stood = self.world.hub.now - network.gone_since.get(channel, -100.0) > SEEN_GONE
        stood &= any(channel in listener.channels for listener in network.listeners)
        if silent >= (NODE_TIMEOUT if stood else GONE_SECONDS) - MARGIN:
            return
        if node not in machine.ids:
            self.fail("a live node was declared dead", f"{node.decode()}, {silent:.2f} s after a beat")
        age = self.world.hub.now - self.joined[node]
        if not machine.ending and node not in self.reaped and age < CUT_OFF * NODE_TIMEOUT - MARGIN:
            self.fail("a node gave up without a reason", f"{node.decode()}, {age:.2f} s after it joined")

    def _owner(self, node: bytes) -> NodeMachine:
        return next(machine for machine in self.world.nodes if node in machine.ids)

    # The code of tasks.

    def run_begins(self, machine: Any, task: Any) -> UserRun:
        new = UserRun(machine, task)
        for old in self.running:
            if old.id == new.id and not self._is_excused(old) and not self._is_excused(new):
                kind = "one node runs an id twice" if old.machine is machine else "two healthy nodes run one id"
                self.fail(kind, f"{new} while {old}")
        self.running.append(new)
        story = self.story(new.id)
        if story.once and story.started and not story.reloads:
            self.fail("a task that may start only once starts twice", str(new))
        story.reloads = story.reloads and not story.started
        # a start that was begun before somebody wished for another one takes nothing from that wish
        story.started = story.started or int(new.run.fence) > story.began_before
        return new

    def run_ends(self, run: UserRun) -> None:
        self.running.remove(run)

    def check_now(self) -> None:
        """A node that cannot say that it lives stops its runs by itself."""
        for run in self.running:
            machine, slot = run.machine, slot_of(run.run.queue.key)
            heard = max(self.beats.get((slot, run.run.node), (0.0, 0.0))[0], machine.resumed, run.since)
            late = self.world.hub.now - heard - CUT_OFF * NODE_TIMEOUT
            if late > SLACK and not machine.paused and not machine.ending:
                self.fail("a cut-off node goes on", f"{run}, {late:.2f} s too long")

    def _is_excused(self, run: UserRun) -> bool:
        """May this run overlap with another one?"""
        machine: NodeMachine = run.machine
        late = machine.dead or machine.excused_until > self.world.hub.now
        story = self.story(run.id)
        return late or run.run.node in self.reaped or story.deleted >= 0
