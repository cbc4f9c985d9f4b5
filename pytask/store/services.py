"""Services: their definitions, whose turn it is to be looked at, and the records of their replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pytask.errors import StoreRefused
from pytask.keys import Keys
from pytask.store.client import Client, as_dict

BATCH = 250  # replicas a round trip


class Visit(NamedTuple):
    """A service that was taken to be looked at, and the score that says so."""

    name: bytes
    score: bytes


class Plan(NamedTuple):
    """What a definition asks for, as `take_up.lua` answers."""

    revision: int
    content: int
    made: int  # at most so many replicas have ever been made
    replicas: int | None  # there were to be last; None for a new service
    rolling: bool


class Standing(NamedTuple):
    """How a replica stands; empty where there is no record of it."""

    state: bytes = b""
    at: bytes = b""
    uses: bytes = b""
    is_stopping: bool = False


class Services:
    """The services of one namespace. Names are bytes, since anybody may have written them."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self.keys = keys

    # Definitions.

    def define(self, name: bytes, how: str, fields: Mapping[str, Any], digest: str = "") -> int:
        """Write a definition, as `define.lua` says. Nobody is told: see `want_look`."""
        words = [word for pair in fields.items() for word in pair]
        return int(self.client.call("define", (self.keys.service(name),), (how, digest, *words)))

    def undefine(self, name: bytes) -> bool:
        """Remove a definition; False where there was none."""
        return bool(self.client.execute("DEL", self.keys.service(name)))

    def get(self, name: bytes) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """The definition, empty where there is none, and what was applied. Raises StoreRefused for no hash."""
        service, applied = self.client.pipeline(
            [("HGETALL", self.keys.service(name)), ("HGETALL", self.keys.service_applied(name))]
        )
        return as_dict(service), as_dict(applied)

    def get_names(self) -> list[bytes]:
        """Every service that is looked at, and those that are being removed."""
        return list(self.client.execute("ZRANGE", self.keys.services, 0, -1))

    # Whose turn it is.

    def want_look(self, name: bytes, *, new: bool = False) -> None:
        """Let a node look at a service now; with `new` only where none ever does."""
        self.client.execute("ZADD", self.keys.services, *(["NX"] if new else []), 0, name)

    def get_first(self) -> object:
        """Who is looked at next, and when, to be compared; None where there is no service. Tried once."""
        return self.client.execute("ZRANGE", self.keys.services, 0, 0, "WITHSCORES", patience=0) or None

    def visit(self, seconds: float, most: int) -> tuple[list[Visit], float | None]:
        """Take services whose turn has come, for so long; and the seconds until the next (None: no service)."""
        wait, *answer = self.client.call("visit", (self.keys.services,), (seconds, most))
        words = iter(answer)
        visits = [Visit(name, score) for name, score in zip(words, words, strict=True)]
        return visits, float(wait) if wait else None

    def revisit(self, visit: Visit, seconds: float | None) -> Visit | None:
        """Keep it for longer, or come again after so long (None: never); None where it is not ours any more."""
        after = "" if seconds is None else f"{seconds:.3f}"
        answer = self.client.call("revisit", (self.keys.services,), (visit.name, visit.score, after))
        return visit._replace(score=answer) if isinstance(answer, bytes) else None

    # What has been done of a definition.

    def take_up(self, name: bytes, digest: str, replicas: int) -> Plan:
        """Note what a definition asks for."""
        answer = self.client.call("take_up", (self.keys.service_applied(name),), (digest, replicas))
        revision, content, made, before, rolling = answer
        return Plan(int(revision), int(content), int(made), int(before) if before else None, bool(rolling))

    def note_applied(self, name: bytes, revision: int, fields: Mapping[str, Any]) -> bool:
        """Note how far it is; False where the definition is another one by now."""
        words = [word for pair in fields.items() for word in pair]
        return bool(self.client.call("note_applied", (self.keys.service_applied(name),), (revision, *words)))

    def tell_count(self, name: bytes, revision: int, count: int | None) -> None:
        """Let the replicas that run know how many there are, unless a later revision has told; None: none."""
        keys = (self.keys.service_counts, self.keys.services_changed)
        self.client.call("tell", keys, (name, revision, "" if count is None else count))

    def get_changed(self) -> bytes | None:
        """A number that grows with each change of a count; None where there never was a service. Tried once."""
        reply = self.client.execute("GET", self.keys.services_changed, patience=0)
        return None if reply is None else bytes(reply)

    def get_counts(self, names: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """How many replicas these services have."""
        counts = self.client.execute("HMGET", self.keys.service_counts, *names) if names else ()
        return {name: count and count.partition(b" ")[0] for name, count in zip(names, counts, strict=True)}

    # Spreading replicas over nodes.

    def balance(
        self, queue: str, node: bytes, count: int | None, room: int, *, gives: bool = False
    ) -> tuple[int, bytes]:
        """Tell how many replicas a node runs (None: it leaves), and for how many tasks it has room.

        Returns how many ids its inbox holds, and the node which has so few that this one should hand one over.
        """
        k = self.keys.queue(queue)
        keys = (k.nodes, k.replicas, k.paused, k.inbox(node))
        args = (node, "" if count is None else count, room, int(gives))
        inbox, target, _ = self.client.call("balance", keys, args, patience=0)
        return int(inbox), bytes(target)

    # The records of replicas.

    def equip(
        self, name: bytes, ids: Sequence[bytes], revision: int, changes: Mapping[str, Any], *, anew: bool
    ) -> list[Standing]:
        """Let records say what the definition says; `anew`: a delay before the next start is done with."""
        words = [word for pair in changes.items() for word in pair]
        shared = (name, revision, int(anew), *words)
        answers = self.client.call_each("equip", [self.keys.task(i) for i in ids], shared, (), 0)
        return [Standing(a[0], a[1], a[2], a[3] == b"1") if a else Standing() for a in answers]

    def get_standings(self, name: bytes, ids: Sequence[bytes]) -> list[Standing]:
        """How the replicas of a service stand; other keys may stand in their places."""
        return self.equip(name, ids, 0, {}, anew=False)

    def discharge(self, name: bytes, rows: Sequence[tuple[bytes, bool]]) -> list[bool]:
        """Remove replicas (id, whether a node owns it) that have ended: True for each that is gone."""
        tasks = [self.keys.task(task_id) for task_id, _ in rows]
        streams = [self.keys.events(task_id) or self.keys.task(task_id) for task_id, _ in rows]
        owned = ["1" if is_owned else "" for _, is_owned in rows]
        answers = self.client.call_each("discharge", tasks, (name,), owned, 1, beside=streams)
        return [bool(answer) for answer in answers]

    def get_owned(self, queue: str, ids: Sequence[bytes]) -> list[bool]:
        """Does a node own these ids, or are they on their way back?"""
        claims = self.client.execute("HMGET", self.keys.queue(queue).claims, *ids)
        return [claim is not None for claim in claims]


def is_wrong_type(error: StoreRefused) -> bool:
    """Is a key of another type than it should be?"""
    return "WRONGTYPE" in str(error)


def batches(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers of replicas in batches."""
    every = list(numbers)
    return [every[start : start + BATCH] for start in range(0, len(every), BATCH)]
