"""Monitor: when a node counts as dead, on a clock of the test's own, and what becomes of its claims."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from moves import A, B, Queue

from pytask.errors import NodeGone, StoreUnavailable
from pytask.tasks import monitor as monitor_module
from pytask.tasks.monitor import GAP, LOOK, Monitor, Observer

TIMEOUT = 10.0
NODE = b"n"


class Eyes:
    """An Observer and its clock: what was read, second by second."""

    def __init__(self, node_timeout: float = TIMEOUT) -> None:
        self.observer = Observer(node_timeout)
        self.now = 1000.0

    def look(self, sequence: bytes | None = b"5", *, listens: bool = False, after: float = 1.0, gap: float = 3.0):
        """Look once, `after` seconds later."""
        self.now += after
        sequences = {} if sequence is None else {NODE: sequence}
        return self.observer.look(self.now, sequences, {NODE} if listens else set(), gap)

    def seconds_until_dead(self, step: float = 0.5, **what: object) -> float:
        """How long it takes from now on."""
        began = self.now
        while not self.look(after=step, **what):
            assert self.now - began < 100, "it is never dead"
        return self.now - began


@pytest.fixture
def eyes():
    return Eyes()


# The observations.


def test_a_node_whose_sequence_stands_still_for_the_timeout_is_dead(eyes):
    assert eyes.look() == []
    assert eyes.seconds_until_dead() == TIMEOUT
    assert eyes.look() == [(NODE, b"5")], "and stays so until it was reaped"


@pytest.mark.parametrize("timeout", [2.0, 3.0, 60.0])
def test_the_timeout_is_the_one_that_was_given(timeout):
    eyes = Eyes(timeout)
    eyes.look()
    assert eyes.seconds_until_dead() == timeout


def test_a_node_that_beats_is_never_dead(eyes):
    for beat in range(200):
        assert eyes.look(b"%d" % beat, listens=beat % 2 == 0) == []


def test_a_beat_starts_the_wait_over(eyes):
    eyes.look(b"5")
    for _ in range(9):
        assert eyes.look(b"5") == []
    assert eyes.look(b"6") == []
    assert eyes.seconds_until_dead(sequence=b"6") == TIMEOUT


def test_any_other_sequence_is_a_beat_even_a_lower_one(eyes):
    eyes.look(b"500")
    for _ in range(9):
        eyes.look(b"500")
    assert eyes.look(b"3") == []
    assert eyes.seconds_until_dead(sequence=b"3") == TIMEOUT


def test_a_node_whose_subscription_stood_and_is_gone_is_dead_after_2_seconds(eyes):
    eyes.look(listens=True)
    assert eyes.look() == [], "it is gone"
    assert eyes.seconds_until_dead() == 2.0


def test_a_node_whose_subscription_was_never_seen_has_the_whole_timeout(eyes):
    eyes.look(listens=False)
    assert eyes.seconds_until_dead() == TIMEOUT


def test_a_node_whose_subscription_stands_has_the_whole_timeout(eyes):
    eyes.look(listens=True)
    assert eyes.seconds_until_dead(listens=True) == TIMEOUT


def test_a_subscription_that_goes_later_counts_from_when_it_was_seen_gone(eyes):
    """An outage between two looks cuts every subscription: the node needs a moment to beat again."""
    eyes.look(listens=True)
    for _ in range(5):
        assert eyes.look(listens=True) == []
    assert eyes.look(listens=False) == []
    assert eyes.seconds_until_dead() == 2.0


def test_a_subscription_that_stands_again_starts_the_2_seconds_over(eyes):
    eyes.look(listens=True)
    eyes.look(listens=False)
    eyes.look(listens=True)
    eyes.look(listens=False)
    assert eyes.seconds_until_dead() == 2.0


def test_that_a_subscription_stood_is_known_over_many_beats(eyes):
    eyes.look(b"1", listens=True)
    for beat in range(2, 9):
        assert eyes.look(b"%d" % beat) == [], "it beats, so it lives"
    assert eyes.seconds_until_dead(sequence=b"8") == 2.0


def test_a_gap_of_the_observers_own_starts_everything_over(eyes):
    eyes.look(listens=True)
    for _ in range(9):
        eyes.look(listens=True)
    assert eyes.look(after=3.5, gap=3.0) == [], "it did not look for too long, and knows nothing any more"
    assert eyes.seconds_until_dead() == TIMEOUT, "nor that the subscription stood"


def test_a_gap_as_long_as_is_allowed_starts_nothing_over(eyes):
    eyes.look()
    for _ in range(3):
        assert eyes.look(after=3.0, gap=3.0) == []
    assert eyes.look(after=3.0, gap=3.0) == [(NODE, b"5")]


def test_an_error_starts_everything_over(eyes):
    eyes.look(listens=True)
    eyes.look(after=1.5)
    eyes.observer.forget()
    assert eyes.look(after=1.5) == []
    assert eyes.seconds_until_dead() == TIMEOUT


def test_a_node_that_is_being_reaped_is_carried_on_at_once(eyes):
    assert eyes.look(b"-5") == [(NODE, b"5")]
    assert eyes.look(b"-5", listens=True) == [(NODE, b"5")]


def test_a_node_that_left_and_came_back_is_seen_anew(eyes):
    eyes.look(listens=True)
    for _ in range(9):
        eyes.look(listens=True)
    assert eyes.look(None) == []
    assert eyes.look() == []
    assert eyes.seconds_until_dead() == TIMEOUT


def test_nodes_are_told_apart():
    observer = Observer(TIMEOUT)
    dead = []
    for second in range(12):
        dead = observer.look(second, {b"a": b"1", b"b": b"%d" % second, b"c": b"-3"}, {b"b"}, 3.0)
    assert dead == [(b"a", b"1"), (b"c", b"3")]


# The task, on a real server and a clock of its own.


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(monitor_module, "time", made)
    return made


@pytest.fixture
def queue(server):
    made = Queue(server, "", "")
    made.membership.join(A)
    yield made
    made.close()


def make_monitor(queue: Queue, **data: object) -> Monitor:
    monitor = Monitor.__new__(Monitor)
    monitor._context = SimpleNamespace(helpers=SimpleNamespace(store=queue.store, queues=("",)))
    monitor.__init__(**data)
    return monitor


def watch(clock: Clock, monitor: Monitor, seconds: float) -> None:
    for _ in range(int(seconds / LOOK)):
        monitor._watch("")
        clock.now += LOOK


def test_the_claims_of_a_node_that_is_silent_go_back_after_the_timeout(queue, clock):
    queue.take_one()
    monitor = make_monitor(queue)
    watch(clock, monitor, TIMEOUT)
    assert queue.waiting() == []
    watch(clock, monitor, 1)
    assert queue.waiting() == [b"T"]
    assert queue.mark() == b"-lost push"
    assert queue.membership.get_sequences() == {}


def test_the_claims_of_a_node_whose_subscription_is_gone_go_back_after_2_seconds(queue, clock):
    queue.take_one()
    monitor = make_monitor(queue)
    with queue.redis.pubsub() as listener:
        listener.subscribe(queue.keys.alive(A))
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        watch(clock, monitor, 1)
    _until_nobody_listens(queue)
    watch(clock, monitor, 2)
    assert queue.waiting() == []
    watch(clock, monitor, 1)
    assert queue.waiting() == [b"T"]


def _until_nobody_listens(queue: Queue) -> None:
    deadline = time.monotonic() + 10
    while queue.membership.get_listening([A]):
        assert time.monotonic() < deadline


def test_an_outage_makes_nobody_dead(queue, clock, monkeypatch):
    queue.take_one()
    monitor = make_monitor(queue)
    watch(clock, monitor, TIMEOUT - 1)
    with monkeypatch.context() as patch:
        patch.setattr(queue.store.client, "execute", _unavailable)
        watch(clock, monitor, 60)
    watch(clock, monitor, TIMEOUT)
    assert queue.waiting() == []
    watch(clock, monitor, 1)
    assert queue.waiting() == [b"T"]


def _unavailable(*_: object, **__: object) -> None:
    raise StoreUnavailable("Redis: gone")


def test_a_monitor_that_was_frozen_makes_nobody_dead(queue, clock):
    queue.take_one()
    monitor = make_monitor(queue)
    watch(clock, monitor, 2)
    clock.now += LOOK + GAP + 60
    watch(clock, monitor, TIMEOUT)
    assert queue.waiting() == []


def test_however_many_monitors_watch_one_wins(queue, clock):
    queue.take_one()
    monitors = [make_monitor(queue, node_timeout=3) for _ in range(3)]
    for _ in range(10):
        for monitor in monitors:
            monitor._watch("")
        clock.now += LOOK
    assert queue.waiting() == [b"T"]


def test_a_node_that_beats_just_in_time_keeps_its_claims(queue, clock):
    queue.take_one()
    monitor = make_monitor(queue, node_timeout=3)
    for beat in range(1, 30):
        watch(clock, monitor, 2.5)
        assert queue.membership.beat(A, beat) == (1, [])
    assert queue.owned() == [b"T"]


def test_what_a_frozen_nodes_blocking_move_took_after_its_end_goes_back(queue, clock):
    monitor = make_monitor(queue, node_timeout=4)
    watch(clock, monitor, 5)
    assert queue.membership.get_sequences() == {}
    queue.redis.lpush(queue.keys.inbox(A), "T")
    monitor._empty_orphans()
    assert queue.waiting() == [], "a move that is under way may still come"
    clock.now += 4
    monitor._empty_orphans()
    assert queue.waiting() == [b"T"]
    assert not monitor.orphans


def test_a_monitor_watches_the_queues_of_its_app_unless_told_otherwise(queue):
    assert make_monitor(queue).queues == ("",)
    assert make_monitor(queue, queues=["a", "b"]).queues == ("a", "b")


def test_whoever_reaped_a_node_every_monitor_looks_at_its_inbox_later(queue, clock):
    """A parent process that reaps its child knows nothing of a blocking move that the server has not given up."""
    monitor = make_monitor(queue, node_timeout=4)
    watch(clock, monitor, 1)
    queue.membership.leave(A)
    queue.redis.lpush(queue.keys.inbox(A), "T")
    watch(clock, monitor, 8)
    monitor._empty_orphans()
    assert queue.waiting() == [b"T"]


# The scripts: beat, reap, orphan.


def test_a_beat_tells_the_claims_and_which_were_told_to_stop(queue):
    queue.push("1", "2", "3")
    claim = queue.take()[b"2"]
    assert queue.claims.note_stop(b"2", claim.fence)
    assert not queue.claims.note_stop(b"other", claim.fence)
    for _ in range(2):
        assert queue.membership.beat(A, 5) == (3, [b"2"])
        assert queue.membership.get_sequences() == {A: b"5"}


def test_a_stop_is_noted_for_one_claim_alone(queue):
    claim = queue.take_one()
    assert not queue.claims.note_stop(b"T", b"%d" % (int(claim.fence) - 1))
    assert queue.claims.note_stop(b"T", claim.fence)
    assert queue.membership.beat(A, 1) == (1, [b"T"])
    queue.release(claim)
    assert not queue.claims.note_stop(b"T", claim.fence)
    assert not queue.redis.exists(queue.keys.control)
    queue.redis.hset(queue.keys.control, "T", claim.fence)  # as if it had come late
    queue.take_one()
    assert queue.membership.beat(A, 2) == (1, [])


@pytest.mark.parametrize("status", [None, "-4"])
def test_a_beat_of_a_node_that_is_gone_does_not_bring_it_back(queue, status):
    queue.redis.delete(queue.keys.nodes)
    if status:
        queue.redis.hset(queue.keys.nodes, A, status)
    before = queue.state()
    assert queue.membership.beat(A, 9) == (-1, [])
    assert queue.state() == before


def test_a_dead_node_is_reaped_and_its_ids_go_to_the_head_marked_lost(queue):
    queue.push("1", "2", "waits")
    queue.redis.hset(queue.keys.claims, "2", "-back")
    queue.take(most=2)
    queue.redis.lpush(queue.keys.inbox(A), "inbox")
    queue.membership.beat(A, 4)
    assert not queue.membership.reap(A, b"3"), "it has beaten since"
    assert queue.owned() == [b"1", b"2"]
    assert queue.membership.reap(A, b"4")
    assert set(queue.waiting()[:3]) == {b"1", b"2", b"inbox"}
    assert queue.waiting()[3] == b"waits"
    assert queue.mark(b"1") == b"-lost push"
    assert queue.mark(b"2") == b"-lost back"
    assert queue.mark(b"inbox") is None
    assert not queue.redis.exists(queue.keys.nodes, queue.keys.claims_of(A), queue.keys.inbox(A))
    assert queue.redis.zscore(queue.keys.gone, A) == pytest.approx(time.time(), abs=60)
    before = queue.state()
    assert not queue.membership.reap(A, b"4")
    assert queue.state() == before


def test_a_reap_leaves_alone_what_was_claimed_anew(queue):
    queue.take_one()
    queue.redis.hset(queue.keys.claims, "T", B + b" 99")
    assert queue.membership.reap(A, b"0")
    assert queue.mark() == B + b" 99"
    assert queue.waiting() == []


def test_two_monitors_that_reap_in_turn_put_each_id_back_once(queue):
    ids = {b"%d-" % number + b"x" * 70 for number in range(60)}  # long, so that a chunk is no whole hash
    queue.push(*ids)
    assert len(queue.take(most=60)) == 60
    inbox = {b"inbox%d" % number for number in range(9)}
    queue.redis.lpush(queue.keys.inbox(A), *inbox)
    k = queue.keys
    keys = (k.key, k.claims, k.claims_of(A), k.nodes, k.inbox(A), k.gone)
    answers = []
    while not answers or answers[-1] == 1:  # each call may be another Monitor's
        answers.append(queue.store.client.call("reap", keys, (A, b"0", 4)))
        with pytest.raises(NodeGone):
            queue.take(A)
        assert queue.membership.beat(A, 7) == (-1, [])
        assert (queue.membership.get_sequences() == {A: b"-0"}) == (answers[-1] == 1)
        assert (
            set(queue.waiting()) | set(queue.owned()) | set(queue.redis.lrange(k.inbox(A), 0, -1)) == ids | inbox
        )
    assert answers[-1] == 0
    assert len(answers) > 5
    assert queue.store.client.call("reap", keys, (A, b"0", 4)) == -1
    assert sorted(queue.waiting()) == sorted(ids | inbox)


def test_a_node_that_leaves_gives_back_what_it_owns(queue):
    queue.take_one()
    queue.membership.leave(A)
    assert queue.waiting() == [b"T"]
    assert queue.membership.get_sequences() == {}
    queue.membership.leave(A)
    assert queue.waiting() == [b"T"]


def test_the_inbox_of_a_node_that_is_gone_is_emptied_and_of_one_that_lives_is_not(queue):
    queue.redis.lpush(queue.keys.inbox(A), "1", "2")
    assert queue.membership.empty_inbox(A) == 0
    queue.redis.hdel(queue.keys.nodes, A)
    assert queue.membership.empty_inbox(A) == 2
    assert sorted(queue.waiting()) == [b"1", b"2"]
    assert queue.membership.empty_inbox(A) == 0
