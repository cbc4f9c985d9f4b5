"""What happens to a cluster while it works: a slot moves, a replica takes over in order, a master hangs."""

from __future__ import annotations

import signal
import time

from chaos.cluster import Cluster
from chaos.faults import Fault, Faults

PAUSE = 0.3  # seconds between the steps of a migration


class Topology:
    """Does that to a cluster under load, and notes it among the faults. Nothing of it excuses an extra run."""

    def __init__(self, cluster: Cluster, faults: Faults) -> None:
        self.cluster = cluster
        self.faults = faults

    def _note(self, kind: str) -> Fault:
        fault = Fault(kind, None, time.monotonic(), excuses=False)
        self.faults.done.append(fault)
        return fault

    def migrate(self, slot: int) -> None:
        """Move a slot to another master, in steps, so that it is half here and half there for a while."""
        owner = self.cluster.owner(slot)
        to = self.faults.rng.choice([master for master in self.cluster.masters() if master is not owner])
        fault, agenda = self._note("migration"), self.faults.agenda

        def move() -> None:
            self.cluster.move_keys(slot, to)
            agenda.at(time.monotonic() + PAUSE, close)

        def close() -> None:
            self.cluster.move_keys(slot, to)
            self.cluster.close_migration(slot, to)
            fault.ended = time.monotonic()

        self.cluster.open_migration(slot, to)
        agenda.at(time.monotonic() + PAUSE, move)

    def hand_over(self, slot: int) -> None:
        """CLUSTER FAILOVER of the master of a slot; blocks until all servers know."""
        if not self.cluster.is_whole():
            self.faults.agenda.at(time.monotonic() + 0.2, lambda: self.hand_over(slot))
            return
        fault = self._note("handover")
        self.cluster.fail_over(self.cluster.owner(slot))
        fault.ended = time.monotonic()

    def kill(self, slot: int, down: float) -> None:
        """`kill -9` of the master of a slot; so many seconds after its replica took over it comes back."""
        self.faults.kill_master(down, lambda: self.cluster.owner(slot))

    def hang(self, slot: int, seconds: float) -> None:
        """SIGSTOP of the master of a slot; so long after its replica took over it goes on, as a replica."""
        masters, server = len(self.cluster.masters()), self.cluster.owner(slot)
        fault = self._note("failover")
        server.signal(signal.SIGSTOP)
        self.faults.await_failover(masters, fault, lambda: server.signal(signal.SIGCONT), seconds)
