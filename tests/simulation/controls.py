"""Safeguards switched off, one at a time: a tester that then still finds nothing would prove nothing.

A control patches the text of scripts, or takes methods out of the product, and names the promises of which one is
then seen broken. A pattern that a script no longer holds fails loudly: the control must follow the script.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytask.node import identity
from pytask.node.reconcile import Reconcile
from pytask.node.run import Registry
from pytask.node.state import NodeState
from pytask.node.stopper import Stopper
from pytask.store.claims import Claims
from pytask.store.membership import Membership
from pytask.tasks.monitor import Monitor, Observer
from pytask.tasks.sweep import Sweep

Patch = Callable[[str], str]

LOST = "a task is lost"
NO_REST = "the world does not come to rest"
TWICE = "two healthy nodes run one id"
TWICE_HERE = "one node runs an id twice"
OLDER = "an older claim begins"
STALE = "a stale finish was accepted"
DOUBLE = "a finish was accepted twice"
ENDED_RUNS = "an ended task runs again"
NOT_ANNOUNCED = "an end is not on end-task"
RESTART_LOST = "a restart was lost"
RESTART_LOST_AT_FINISH = "a restart was lost at finish"
STOP_LOST_AT_BEGIN = "a stop was lost at begin"
STOP_LOST_AT_FINISH = "a stop was lost at finish"
STOPPED_UNASKED = "a task was stopped that nobody told to stop"
EARLY = "a parked task runs early"
LIVE_REAPED = "a live node was declared dead"
FENCE = "a fence does not grow"
REMOVED = "a task was removed before its end"
GOES_ON = "a cut-off node goes on"
LOST_EARLY = "a task is LOST too early"
POISON = "a task that kills its nodes runs again"
PAUSED = "a paused queue is served"
STARTS_TWICE = "a task that may start only once starts twice"


def but(*pieces: tuple[str, str]) -> Patch:
    """A script's text with what matches each pattern, which does so once, replaced."""

    def patch(source: str) -> str:
        for pattern, new in pieces:
            source, count = re.subn(pattern, new, source)
            assert count == 1, f"{count} times {pattern!r} in: {source.splitlines()[0]}"
        return source

    return patch


@dataclass(frozen=True)
class Control:
    """A safeguard that is off. `breaks`: what is then seen broken; none: nothing, for the reason in `why_not`."""

    breaks: tuple[str, ...] = ()
    scripts: Mapping[str, Patch] = field(default_factory=dict)
    methods: tuple[tuple[Any, str, Any], ...] = ()
    emphasis: Mapping[str, Any] = field(default_factory=dict)  # what makes it likely: arguments of scenario.draw
    failover: bool = False
    why_not: str = ""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The product without the methods."""
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in self.methods]
        for owner, name, stand_in in self.methods:
            setattr(owner, name, stand_in)
        try:
            yield
        finally:
            for owner, name, method in kept:
                setattr(owner, name, method)


def nothing(*_args: Any, **_kwargs: Any) -> None:
    """Instead of a method."""


def pop_without_an_inbox(self: Claims, node: bytes, seconds: float) -> bool:
    """What BRPOP does: until the reply is there the id is on its way, and nowhere else."""
    away = self.keys.tag + b"inbox:away." + node
    if self.client.execute("BLMOVE", self.keys.key, away, "RIGHT", "LEFT", seconds, patience=0) is None:
        return False
    self.client.execute("LMOVE", away, self.keys.inbox(node), "RIGHT", "LEFT", patience=0)
    return True


def look_without_patience(
    _self: Observer, _now: float, sequences: dict[bytes, bytes], *_: Any
) -> list[tuple[bytes, bytes]]:
    """Without a look at whether the sequence moves."""
    return [(node, sequence.lstrip(b"-")) for node, sequence in sequences.items()]


look = Observer.look


def look_without_doubt(self: Observer, now: float, sequences: Any, listening: Any, _gap: float) -> Any:
    """Whatever happened while this Monitor did not look."""
    return look(self, now, sequences, listening, 1e9)


OUTAGES = {"often": {"outage": 8}}
FAR = {"often": {"far": 1}}
KILLS = {"often": {"kill": 12}, "fault_rate": 0.1}
DEATHS = {"nodes": 1, "often": {"deaths": 1, "freeze": 0, "outage": 0, "stop": 1, "restart": 1}}
LOSSES = {"fault_rate": 0.2}
RETRIES = {"often": {"retry": 40, "push": 15}, "fault_rate": 0.25}
GUARD = r"mine and string\.match\(mine, '\^%d\+'\) == fence"
OWNED = r"redis\.call\('HGET', KEYS\[2\], id\) == ARGV\[1\] \.\. ' ' \.\. fence"

CONTROLS: dict[str, Control] = {
    # The task's slot.
    "fence at begin": Control((OLDER, STALE), {"begin": but((r"if last > f or \(ours[^\n]*", ""))}),
    "fence at finish": Control((STALE, DOUBLE), {"finish": but((r"\n[^\n]*return \{'fenced'\} end", ""))}),
    "closed at begin": Control(
        (ENDED_RUNS,), {"begin": but((r"if closed == fence then\n[^\n]*\n    end", ""))}, emphasis=LOSSES
    ),
    "closed at finish": Control((DOUBLE,), {"finish": but((r"\n[^\n]*return \{'again'[^\n]*", ""))}),
    "stop at begin": Control(
        (STOP_LOST_AT_BEGIN,),
        {"begin": but((r"\(h\.control == 'stop' or wish == 'stop'\) and", "wish == 'stop' and"))},
    ),
    "stop at finish": Control(
        (STOP_LOST_AT_FINISH,),
        {"finish": but((r"if \(state == 'RETRY' or state == 'WAIT'\) and", "if false and"))},
        emphasis={"often": {"retry": 40, "stop": 15}},
    ),
    "restart at finish": Control(
        (RESTART_LOST_AT_FINISH,),
        {"finish": but((r"if \(h\[1\] == 'WAIT' and state ~= 'WAIT' and", "if (false and"))},
    ),
    "elsewhere": Control(
        (TWICE, TWICE_HERE), {"begin": but((r"  elseif [^\n]*return \{'elsewhere', at\} end", "  end"))}
    ),
    "early": Control((EARLY,), {"begin": but((r"if early == '1' then return \{'early'\} end", ""))}),
    "tail of a lost claim at begin": Control(
        (NOT_ANNOUNCED, NO_REST),
        {"begin": but((r"local unfinished = lost ~= '0'", "local unfinished = false"))},
        emphasis=KILLS,
    ),
    "only one start": Control(
        (STARTS_TWICE,), {"begin": but((r"elseif died and once and", "elseif false and"))}, emphasis=KILLS
    ),
    "most deaths at begin": Control(
        (POISON,), {"begin": but((r"elseif died and suspect >= limit then", "elseif false then"))}, emphasis=DEATHS
    ),
    "deaths of runs that were old": Control(
        (LOST_EARLY,),
        {"reap": but((r"counts = tonumber\(fence\) > young", "counts = true"))},
        emphasis=DEATHS,
    ),
    "runs that last long enough": Control(
        (LOST_EARLY,), {"survive": but((r"if ours then[^\n]*", ""))}, emphasis=DEATHS
    ),
    "state at cleanup": Control(
        (REMOVED,),
        {"cleanup": but((r"and ttls\[h\[1\]\]", "and ttls.SUCCESS"))},
        emphasis={"cleanup": True, "often": {"restart": 20}},
    ),
    # The queue's slot.
    "one owner at claim": Control(
        (TWICE, TWICE_HERE, LOST), {"claim": but((r"\(mark and string\.sub\(mark, 1, 1\) ~= '-'\)", "false"))}
    ),
    "an id once in a batch": Control(
        (NO_REST, NOT_ANNOUNCED, LOST),
        {"claim": but((r"if seen\[id\] or", "if"))},
        emphasis={"often": {"push_often": 20}, "fault_rate": 0.1},
    ),
    "a pause at claim": Control(
        (PAUSED,),
        {"claim": but((r"if redis\.call\('EXISTS', KEYS\[9\]\) == 1", "if false"))},
        emphasis={"often": {"pauses": 1}},
    ),
    "again": Control(
        (LOST, RESTART_LOST),
        {"claim": but((r"if #again > 0 then[^\n]*", ""))},
        emphasis={"often": {"recreate": 10}},
    ),
    "again at release": Control(
        (LOST, RESTART_LOST, NO_REST),
        {"release": but((r"elseif again\[i\] == 1 then tail[^\n]* end", "end"))},
        emphasis={"often": {"recreate": 10}},
    ),
    "a fence that grows": Control((FENCE,), {"claim": but((r"redis\.call\('SET', KEYS\[5\][^\n]*", ""))}),
    "claims of a node that is gone": Control(
        (NO_REST, TWICE), {"claim": but((r"if [^\n]*return \{'gone'\} end", ""))}
    ),
    "guard of release": Control(
        (LOST, TWICE, OLDER, NO_REST),
        {
            "release": but(
                (r"if mine\[i\] and string\.sub\(mine\[i\], 1, #fence \+ 1\) == fence .* then", "if true then"),
                (r"if owners\[i\] == node \.\. ' ' \.\. fence then", "if owners[i] then"),
                (r"string\.match\(mine\[i\], '\^%d\+ \(", "string.match(mine[i] or '0 0 push', '^%d+ ("),
            )
        },
        emphasis={"fault_rate": 0.3, "nodes": 2, "often": {"push": 20, "restart": 40}},
    ),
    "guard of park": Control(
        (TWICE, TWICE_HERE, LOST, OLDER, NO_REST),
        {"park": but((GUARD, "true"), (OWNED, "true"))},
        emphasis=RETRIES,
    ),
    "guard of miss": Control(
        (TWICE, TWICE_HERE, LOST, NO_REST),
        {"miss": but((r"not mine or string\.match\(mine, '\^%d\+'\) ~= fence", "false"))},
        emphasis={"fault_rate": 0.25, "often": {"push_often": 20}},
    ),
    "mark of what comes back": Control(
        (NO_REST,), {"promote": but((r"redis\.call\('HSET', KEYS\[2\], id, '-back'\)", ""))}
    ),
    "claimed ids at promote": Control(
        (TWICE, TWICE_HERE, NO_REST, LOST),
        {"promote": but((r"if redis\.call\('HEXISTS', KEYS\[2\], id\) == 1 then", "if false then"))},
    ),
    "renew": Control(
        (LOST, NO_REST),
        {"renew": but((r"local mine = redis\.call\([^\n]*", "local mine = false"))},
        emphasis=LOSSES,
    ),
    "fence of a noted stop": Control(
        (STOPPED_UNASKED, NO_REST),
        {
            "note_stop": but((r"if not owner or [^\n]*return 0 end", "")),
            "beat": but((r"string\.match\(mine, '\^%d\+'\) == told\[n \+ 1\]", "true")),
        },
        emphasis={"often": {"stop": 15, "restart": 15}},
    ),
    "mark of a lost claim": Control(
        (NOT_ANNOUNCED, NO_REST),
        {"reap": but((r"redis\.call\('HSET', KEYS\[2\], id, '-lost ' [^\n]*", "redis.call('HDEL', KEYS[2], id)"))},
        emphasis=KILLS,
    ),
    "sequence in reap": Control(
        (LIVE_REAPED,),
        {"reap": but((r"if sequence ~= ARGV\[2\] then return -2 end", ""))},
        emphasis={
            "slowness": 0.15,
            "slowest": 2.0,
            "nodes": 3,
            "fault_rate": 0.0,
            "often": {"cut": 60, "kill": 0, "freeze": 0, "outage": 0},
        },
    ),
    "owner in reap": Control(
        scripts={"reap": but((OWNED, "true"))},
        why_not="all scripts change `claims` and `of:<node>` together; it guards against what people write there",
    ),
    "nudge": Control(
        (NO_REST,),
        {"nudge": but((r"if redis\.call\('ZREM', [^\n]*", "if true then return 0 end"))},
        emphasis=FAR,
    ),
    "stop of a parked task": Control(
        (NO_REST,), {"begin": but((r"if h\.control ~= 'stop' then --", "if true then --"))}, emphasis=FAR
    ),
    "nudge of what is not parked yet": Control(
        (NO_REST,), {"nudge": but((r"if string\.sub\(claim, 1, 1\) ~= '-' then[^\n]*", ""))}, emphasis=FAR
    ),
    # The node and its Monitor.
    "inbox of a blocking move": Control((NO_REST, LOST), methods=((Claims, "wait_for_id", pop_without_an_inbox),)),
    "adoption": Control((NO_REST, LOST), methods=((Reconcile, "_adopt", nothing),)),
    "looks at the records of runs": Control(
        (NO_REST,),
        methods=((Reconcile, "_check", nothing),),
        emphasis={"often": {"stop": 30, "reset": 30, "kill": 0.5, "terminate": 0, "deaths": 0}},
    ),
    "a cut-off node that stops by itself": Control(
        (GOES_ON,), methods=((identity, "CUT_OFF", 1e9),), emphasis={"often": {"cut": 15}}
    ),
    "a sequence that stands still": Control((LIVE_REAPED,), methods=((Observer, "look", look_without_patience),)),
    "fresh observations after an error": Control(
        (LIVE_REAPED,),
        methods=((Observer, "forget", nothing), (Observer, "look", look_without_doubt)),
        emphasis=OUTAGES,
    ),
    "second look at inboxes": Control(
        (NO_REST,), methods=((Monitor, "_empty_orphans", nothing), (Membership, "empty_inbox", nothing))
    ),
    "claims of an id that was given up": Control(
        (TWICE, TWICE_HERE, LOST),
        methods=((NodeState, "goes_by", lambda *_: True),),
        emphasis={"often": {"outage": 8}},
    ),
    "fences that were finished": Control(
        methods=((Registry, "highest_done", lambda *_: 0),),
        why_not="begin answers `tail` for a fence that is closed: what follows an end is done a second time",
    ),
    "a run that a newer claim follows": Control(
        (TWICE, TWICE_HERE, GOES_ON), methods=((Stopper, "abandon", nothing),), emphasis=KILLS
    ),
    "sweep": Control((LOST, NO_REST), methods=((Sweep, "start", nothing),), failover=True),
    "hold": Control(
        methods=((Reconcile, "_hold", nothing),),
        failover=True,
        why_not="a run whose claim was taken back ends all the same, or is fenced; the sweep finds what is left",
    ),
}
