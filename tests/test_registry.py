"""The registry of a node's runs: who takes one of its places, and when another task may be claimed."""

from __future__ import annotations

import pytest
from conftest import wait_until

from pytask.keys import Keys
from pytask.node.run import Registry, Run
from pytask.store.claims import Claim

QUEUE = Keys().queue()


def make_run(task_id: bytes, fence: int = 1) -> Run:
    return Run(QUEUE, b"host:1:abcdefab", Claim(task_id, str(fence).encode(), b"0", b"push", b"0"))


@pytest.fixture
def full() -> tuple[Registry, list[Run]]:
    """A registry with two places, and the runs that take them."""
    registry = Registry(2)
    runs = [make_run(b"a"), make_run(b"b")]
    for run in runs:
        registry.add(run)
    return registry, runs


def test_a_registry_is_full_when_every_place_is_taken(full):
    registry, _ = full
    assert registry.free == 0
    assert not registry.room.is_set()


def test_a_run_that_has_ended_gives_up_its_place_before_it_is_told_of(full):
    registry, (run, _) = full
    registry.vacate(run)
    assert registry.free == 1
    assert registry.room.is_set()
    assert registry.holds(run), "its claim still stands"


def test_a_place_is_given_up_once_however_often_that_is_said(full):
    registry, (run, _) = full
    registry.vacate(run)
    registry.vacate(run)
    registry.remove(run)
    assert registry.free == 1


def test_no_more_runs_are_untold_than_may_run(full):
    registry, runs = full
    for number, run in enumerate(runs):
        registry.vacate(run)
        registry.add(make_run(b"next %d" % number))
    for run in list(registry.runs.values()):
        registry.vacate(run)
    assert (registry.taken, registry.free) == (0, 0)
    registry.remove(runs[0])
    assert registry.free == 1


def test_a_newer_claim_of_the_same_id_takes_the_place_of_the_older(full):
    registry, (old, other) = full
    newer = make_run(b"a", fence=2)
    registry.add(newer)
    registry.forget(old)
    assert registry.holds(newer)
    assert registry.taken == 2
    registry.remove(newer)
    registry.remove(other)
    assert registry.taken == 0
    assert registry.empty.is_set()


def test_nothing_is_claimed_ahead_before_a_run_has_ended(full):
    registry, (run, other) = full
    assert registry.enter(run)
    assert registry.enter(other)
    assert registry.free == 0


def test_as_many_are_claimed_ahead_as_ended_a_moment_ago(full):
    registry, (run, _) = full
    registry.enter(run)
    registry.vacate(run)
    registry.add(make_run(b"next"))
    assert registry.taken == registry.capacity
    assert registry.free == 1
    wait_until(lambda: registry.free == 0, "a moment passes in which nothing ends")
    assert not registry.has_room()


def test_no_more_runs_are_started_than_there_are_places(full):
    registry, runs = full
    for run in runs:
        assert registry.enter(run)
    ahead = make_run(b"ahead")
    registry.add(ahead)
    assert not registry.enter(ahead)
    registry.vacate(runs[0])
    assert registry.enter(ahead)
    assert registry.enter(runs[1]), "it has been started: a reload goes on in its place"
