"""The queues that a node serves: their names, and beside them how many tasks of each at once, and its weight.

Pure: what people write goes in, checked names come out, or a SettingError that says what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pytask.checks import check_integer
from pytask.errors import SettingError
from pytask.names import DEFAULT_QUEUE, check_queue_name, queue_label, read_list, refusal, shown

MOST_AT_ONCE = 1_000_000  # tasks
MOST_WEIGHT = 1000

_FORMS = (
    "a queue's name, with at most so many of its tasks at once behind a colon and its weight behind '=':"
    " 'mail', 'mail:50', 'mail=3', 'mail:50=3'"
)
_ALL = "one queue or more, as text like 'a,b=3', as a list of such, or as a table of names with limits"


class Share(NamedTuple):
    """What a node gives a queue: at most so many tasks at once (None: as many as it has places), and a weight."""

    concurrency: int | None = None
    weight: int | None = None

    def __str__(self) -> str:
        """As people write it behind a name."""
        at_most = "" if self.concurrency is None else f":{self.concurrency}"
        return at_most + ("" if self.weight is None else f"={self.weight}")


class QueueNames(tuple[str, ...]):
    """Canonical names, each once, in order. `shares` has those of which something else was said, by name."""

    shares: Mapping[str, Share]

    def __new__(cls, names: Iterable[str], shares: Mapping[str, Share] | None = None) -> QueueNames:  # noqa: D102
        made = super().__new__(cls, names)
        made.shares = MappingProxyType({name: share for name, share in (shares or {}).items() if share != Share()})
        return made

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.shares == getattr(other, "shares", self.shares)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return super().__hash__()

    @property
    def plans(self) -> dict[str, Share]:
        """The share of every queue; empty where nothing was said of any, so that they need not be counted."""
        return {name: self.shares.get(name, Share()) for name in self} if self.shares else {}

    @property
    def text(self) -> str:
        """As people write them."""
        return ",".join(f"{queue_label(name)}{self.shares.get(name, '')}" for name in self)


def check_queues(value: object) -> QueueNames:
    """Queues out of text like `'mail=3,crawl:50'`, a list of such, or a dict of name -> limits."""
    if isinstance(value, QueueNames):
        return value
    found: dict[str, Share] = {}
    for name, share in _read(value):
        if found.setdefault(name, share) != share:
            raise SettingError(
                f"queue {shown(queue_label(name))} is named twice, as {shown(f'{name}{found[name]}')} and as"
                f" {shown(f'{name}{share}')}: name it once"
            )
    if not found:
        raise refusal(value, _ALL)
    return QueueNames(found, found)


def _read(value: object) -> Iterator[tuple[str, Share]]:
    if isinstance(value, Mapping):
        for name, limits in value.items():
            yield check_queue_name(name), _check_limits(name, limits)
        return
    entries = [DEFAULT_QUEUE] if value == "" else read_list(value)
    if entries is None:
        raise refusal(value, _ALL)
    for entry in entries:
        yield _read_entry(entry)


def _read_entry(entry: object) -> tuple[str, Share]:
    """One name, with what stands behind it."""
    if not isinstance(entry, str) or not set(":=") & set(entry):
        return check_queue_name(entry), Share()
    rest, equals, weight = entry.partition("=")
    name, colon, at_most = rest.partition(":")
    if not name or (equals and not weight) or (colon and not at_most):
        raise refusal(entry, _FORMS)
    limits = {"concurrency": at_most if colon else None, "weight": weight if equals else None}
    return check_queue_name(name), _check_limits(name, limits)


def _check_limits(name: object, limits: Any) -> Share:
    """What is said of a queue: a number (at once), a dict of `concurrency` and `weight`, or None."""
    if not isinstance(limits, Mapping):
        limits = {"concurrency": limits}
    unknown = sorted(map(str, set(limits) - set(Share._fields)))
    if unknown:
        raise SettingError(f"queue {shown(name)}: {shown(unknown[0])} is neither concurrency nor weight")
    at_most = _check_number(name, "concurrency", limits.get("concurrency"), MOST_AT_ONCE, "tasks")
    return Share(at_most, _check_number(name, "weight", limits.get("weight"), MOST_WEIGHT, ""))


def _check_number(name: object, what: str, value: object, most: int, unit: str) -> int | None:
    if value is None:
        return None
    try:
        return check_integer(value, 1, most, f"1 to {most} {unit}".strip())
    except SettingError as error:
        raise SettingError(f"queue {shown(name)}: {what} {error}") from None
