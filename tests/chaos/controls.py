"""Controls: safeguards of the product, switched off in nodes of the tests, to see that the suite notices.

`PYTASK_TEST_CONTROL=fence,hasty` in a node's environment. Each one fails where it finds nothing to switch off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pytask.node import probation
from pytask.node.reconcile import Reconcile
from pytask.store import client, scripts
from pytask.store.claims import Claims
from pytask.tasks import monitor

VARIABLE = "PYTASK_TEST_CONTROL"


def apply(names: str) -> None:
    """Switch these safeguards off; nothing where it is empty."""
    for name in filter(None, names.split(",")):
        CONTROLS[name]()


def _rewrite(rules: dict[str, tuple[str, str]]) -> None:
    """Send scripts with a piece of their text replaced: script -> old, new."""
    changed = {name: _replaced(name, *rule) for name, rule in rules.items()}
    scripts._by_sha.update({code.sha: code for code in changed.values()})
    plain = client.script
    client.script = lambda name: changed.get(name) or plain(name)


def _replaced(name: str, old: str, new: str) -> scripts.Script:
    source = scripts.script(name).source
    assert source.count(old) == 1, f"{name}.lua holds {source.count(old)} of {old!r}"
    source = source.replace(old, new)
    return scripts.Script(name, source, hashlib.sha1(source.encode()).hexdigest())


def _drop_fence() -> None:
    """An outcome is accepted whatever fence it carries."""
    _rewrite({"finish": ("if h[2] ~= fence or h[4] ~= node or h[6] ~= queue then return {'fenced'} end", "")})


def _drop_compare() -> None:
    """A node is reaped though it has beaten since it was seen."""
    _rewrite({"reap": ("if sequence ~= ARGV[2] then return -2 end", "")})


def _make_hasty() -> None:
    """No safeguard, but a Monitor that is often wrong: to it a node is dead that has not beaten for 0.2 s."""
    real = monitor.Observer.__init__
    monitor.Observer.__init__ = lambda self, *_args, **_more: real(self, 0.2)
    assert monitor.LOOK
    monitor.LOOK = 0.3


def _clear_early() -> None:
    """No safeguard, but haste: a suspect that has run for 3 s is clean."""
    assert probation.LONG_ENOUGH > 3
    probation.LONG_ENOUGH = 3.0


def _drop_reset() -> None:
    """A Monitor keeps its observations over an outage and over gaps of its own."""
    real = monitor.Observer.look
    monitor.Observer.forget = lambda self: None
    monitor.Subscriptions.forget = lambda self: None
    monitor.Observer.look = lambda self, now, sequences, listening, _gap: real(
        self, now, sequences, listening, float("inf")
    )


def _drop_adoption() -> None:
    """A claim whose reply was lost stays with a node that knows nothing of it."""
    assert Reconcile._adopt
    Reconcile._adopt = lambda self, queue: None


def _pop_plainly() -> None:
    """BRPOP in place of BLMOVE: an id is nowhere while it is on its way."""
    assert Claims.wait_for_id

    def wait_for_id(self: Claims, node: bytes, seconds: float) -> bool:
        found = self.client.execute("BRPOP", self.keys.key, seconds, patience=0)
        if found is not None:
            self.client.execute("LPUSH", self.keys.inbox(node), found[1])
        return found is not None

    Claims.wait_for_id = wait_for_id


CONTROLS: dict[str, Callable[[], None]] = {
    "fence": _drop_fence,
    "compare": _drop_compare,
    "hasty": _make_hasty,
    "early": _clear_early,
    "reset": _drop_reset,
    "adoption": _drop_adoption,
    "brpop": _pop_plainly,
}
