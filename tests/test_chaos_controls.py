"""Tests of the tests: each story ends well, and does not where the safeguard that it is about is switched off."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from chaos.checker import Verdict
from chaos.proxy import Proxy
from chaos.rig import Rig, wait_for

TRIES = 6  # of a story whose end depends on chance


def late_outcomes(control: str) -> Verdict:
    """A node is frozen with outcomes that it has not sent; others run its tasks; it thaws and sends them."""
    with Rig(test_control=control) as rig:
        frozen = rig.start_node(test_point="before-finish:1:2")
        rig.start_node()
        rig.wait_until_seen()
        rig.create(40, seconds=0.2, again=6)
        time.sleep(0.6)
        fault = rig.note_fault("freeze", frozen)
        frozen.freeze()
        time.sleep(4.5)
        frozen.thaw()
        fault.ended = time.monotonic()
        return rig.check()


def hasty_monitor(control: str) -> Verdict:
    """A Monitor takes nodes for dead that live, and is slow to act: they have beaten since."""
    with Rig(node_timeout=10, test_control=control) as rig:
        rig.start_node(local_tasks="false")
        ids = rig.create(20, seconds=9)
        rig.wait_for_state(ids, "RUNNING")
        rig.start_node(test_control=f"hasty,{control}", test_point="before-reap:0:3.5")
        return rig.check(20)


def outages(control: str) -> Verdict:
    """The server is away for longer than a dead node is waited for, several times, and all nodes live.

    One of them is held up from before, and comes back after the others: Monitors look before it has beaten.
    """
    with Rig(node_timeout=3, test_control=control) as rig:
        late, *_ = [rig.start_node() for _ in range(3)]
        rig.create(60, seconds=2)
        for _ in range(1 if control else 3):
            rig.wait_until_seen()
            fault = rig.note_fault("outage", None)
            late.freeze()
            time.sleep(0.9)  # each Monitor looks behind its last beat: one that was not seen would save it
            rig.server.server.kill()
            time.sleep(4)
            rig.server.server.start()
            time.sleep(1.2)
            late.thaw()
            fault.ended = time.monotonic()
        verdict = rig.check()
        for line in rig.story().splitlines():
            if " is dead: " in line:
                verdict.complain("declared dead", line)
        return verdict


def lost_reply_of_a_claim(control: str) -> Verdict:
    with Rig(test_control=control) as rig, Proxy(rig.server.server.port) as proxy:
        rig.fleet.start(url=proxy.url, wait=True)
        proxy.lose(["claim"])
        rig.create(20, seconds=0.1)
        return rig.check(12)


def lost_reply_of_a_wait(control: str) -> Verdict:
    with Rig(test_control=control) as rig, Proxy(rig.server.server.port) as proxy:
        rig.fleet.start(url=proxy.url, wait=True)
        proxy.lose(["BLMOVE new-task", "BRPOP new-task"])
        wait_for(lambda: rig.redis.info("clients")["blocked_clients"], "it waits for an id")
        rig.create(1, seconds=0.1)
        return rig.check(12)


STORIES: dict[str, Callable[[str], Verdict]] = {
    "fence": late_outcomes,
    "compare": hasty_monitor,
    "reset": outages,
    "adoption": lost_reply_of_a_claim,
    "brpop": lost_reply_of_a_wait,
}
COMPLAINTS = {
    "fence": "two accepted finishes",
    "compare": "extra run",
    "reset": "declared dead",
    "adoption": "lost",
    "brpop": "lost",
}


@pytest.mark.parametrize("control", STORIES)
def test_the_story_ends_well(control):
    verdict = STORIES[control]("")
    assert not verdict.problems, verdict.text()


@pytest.mark.long
@pytest.mark.parametrize("control", STORIES)
def test_the_checker_notices_that_a_safeguard_is_off(control):
    for _ in range(TRIES):
        verdict = STORIES[control](control)
        if verdict.count(COMPLAINTS[control]):
            return
    pytest.fail(f"{TRIES} times nothing was wrong without the safeguard {control}: {verdict.text()}")
