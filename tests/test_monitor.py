"""Monitor: when a node counts as dead, on a clock of the test's own, and what becomes of its claims."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from moves import A, B, Queue

from pytask.errors import NodeGone, StoreUnavailable
from pytask.store.membership import GONE, REFUSED, Pulse, beat_all
from pytask.tasks import monitor as monitor_module
from pytask.tasks.monitor import (
    ALONE_LOOK,
    GAP,
    GONE_LATE,
    GONE_SECONDS,
    KEEN_LOOK,
    LONGEST_LOOK,
    LOOK,
    SILENT_LOOK,
    Monitor,
    Observer,
    Subscriptions,
)

TIMEOUT = 10.0
NODE = b"n"


class Eyes:
    """An Observer and its clock: what was read, second by second."""

    def __init__(self, node_timeout: float = TIMEOUT) -> None:
        self.observer = Observer(node_timeout)
        self.now = 1000.0

    def look(self, sequence: bytes | None = b"5", *, gone: bool = False, after: float = 1.0, gap: float = 3.0):
        """Look once, `after` seconds later; `gone`: the node's subscription is."""
        self.now += after
        sequences = {} if sequence is None else {NODE: sequence}
        return self.observer.look(self.now, sequences, {NODE} if gone else set(), gap)

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
        assert eyes.look(b"%d" % beat, gone=beat % 2 == 0) == []


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


def test_a_node_whose_subscription_is_gone_is_dead_a_moment_after_that_was_first_seen(eyes):
    eyes.look()
    for _ in range(5):
        assert eyes.look() == [], "it has not beaten for long, and is not due yet"
    assert eyes.look(gone=True) == []
    assert eyes.seconds_until_dead(gone=True) == GONE_SECONDS


def test_a_subscription_that_is_gone_at_the_first_look_counts_from_then(eyes):
    eyes.look(gone=True)
    assert eyes.seconds_until_dead(gone=True) == GONE_SECONDS


def test_a_beat_without_a_subscription_starts_the_moment_over(eyes):
    eyes.look(b"1", gone=True)
    for beat in range(2, 9):
        assert eyes.look(b"%d" % beat, gone=True) == [], "it beats, so it lives"
    assert eyes.seconds_until_dead(sequence=b"8", gone=True) == GONE_SECONDS


def test_a_subscription_that_stands_again_starts_the_moment_over(eyes):
    eyes.look(gone=True)
    assert eyes.look() == []
    assert eyes.look(gone=True) == []
    assert eyes.seconds_until_dead(gone=True) == GONE_SECONDS


def test_a_gap_of_the_observers_own_starts_everything_over(eyes):
    eyes.look()
    for _ in range(8):
        eyes.look()
    eyes.look(gone=True)
    assert eyes.look(gone=True, after=3.5, gap=3.0) == [], (
        "it did not look for too long, and knows nothing any more"
    )
    assert eyes.seconds_until_dead() == TIMEOUT


def test_a_gap_as_long_as_is_allowed_starts_nothing_over(eyes):
    eyes.look()
    for _ in range(3):
        assert eyes.look(after=3.0, gap=3.0) == []
    assert eyes.look(after=3.0, gap=3.0) == [(NODE, b"5")]


def test_a_look_that_comes_late_may_hide_an_outage_and_starts_the_moment_over(eyes):
    eyes.look(gone=True, gap=1 + GAP)
    assert eyes.look(gone=True, after=1 + GONE_LATE + 0.1, gap=1 + GAP) == [], (
        "nobody could subscribe in an outage"
    )
    assert eyes.seconds_until_dead(gone=True) == GONE_SECONDS


def test_an_error_starts_everything_over(eyes):
    eyes.look(gone=True)
    eyes.look(gone=True)
    eyes.observer.forget()
    assert eyes.look(gone=True) == []
    assert eyes.seconds_until_dead() == TIMEOUT


def test_a_node_that_is_being_reaped_is_carried_on_at_once(eyes):
    assert eyes.look(b"-5") == [(NODE, b"5")]
    assert eyes.look(b"-5", gone=True) == [(NODE, b"5")]


def test_a_node_that_left_and_came_back_is_seen_anew(eyes):
    for _ in range(9):
        eyes.look()
    assert eyes.look(None) == []
    assert eyes.look() == []
    assert eyes.seconds_until_dead() == TIMEOUT


def test_nodes_are_told_apart():
    observer = Observer(TIMEOUT)
    dead = []
    for second in range(12):
        dead = observer.look(second, {b"a": b"1", b"b": b"%d" % second, b"c": b"-3"}, {b"b"}, 3.0)
    assert dead == [(b"a", b"1"), (b"c", b"3")]


# The subscriptions, on one server and on several.


def test_a_subscription_that_was_seen_standing_can_be_gone():
    subscriptions = Subscriptions()
    assert subscriptions.look({"s": {A}}, {A}, b"") == set()
    for _ in range(3):
        assert subscriptions.look({"s": set()}, {A}, b"") == {A}
    assert subscriptions.look({"s": {A}}, {A}, b"") == set()


def test_a_subscription_that_was_never_seen_is_not_gone():
    subscriptions = Subscriptions()
    for _ in range(3):
        assert subscriptions.look({"s": set()}, {A}, b"") == set()


def test_a_subscription_may_move_to_another_server():
    subscriptions = Subscriptions()
    subscriptions.look({"s": {A}, "t": set()}, {A}, b"")
    assert subscriptions.look({"s": set(), "t": {A}}, {A}, b"") == set()
    assert subscriptions.look({"s": set(), "t": set()}, {A}, b"") == {A}


def test_a_server_that_does_not_answer_proves_nothing_and_neither_does_its_return():
    subscriptions = Subscriptions()
    subscriptions.look({"s": {A}, "t": set()}, {A}, b"")
    assert subscriptions.look({"t": set()}, {A}, b"") == set()
    assert subscriptions.look({"s": set(), "t": set()}, {A}, b"") == set(), "it may be another one by now"


def test_no_answer_at_all_proves_nothing():
    subscriptions = Subscriptions()
    subscriptions.look({"s": {A}}, {A}, b"")
    assert subscriptions.look({}, {A}, b"") == set()


def test_a_monitor_whose_own_nodes_subscription_is_gone_trusts_no_other_absence():
    subscriptions = Subscriptions()
    subscriptions.look({"s": {A, B}}, {A, B}, B)
    assert subscriptions.look({"s": set()}, {A, B}, B) == set(), "the server has begun anew"
    assert subscriptions.look({"s": {B}}, {A, B}, B) == set(), "and A may not have come back yet"


def test_a_node_that_has_left_is_forgotten():
    subscriptions = Subscriptions()
    subscriptions.look({"s": {A}}, {A}, b"")
    assert subscriptions.look({"s": set()}, set(), b"") == set()
    assert subscriptions.look({"s": set()}, {A}, b"") == set()


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


def make_monitor(queue: Queue, own: bytes = B, **data: object) -> Monitor:
    """A Monitor as it would run on the node `own`."""
    monitor = Monitor.__new__(Monitor)
    helpers = SimpleNamespace(store=queue.store, queues=("",))
    monitor._context = SimpleNamespace(helpers=helpers, id="pytask/monitor@" + own.decode())
    monitor.__init__(**data)
    return monitor


def watch(clock: Clock, monitor: Monitor, seconds: float) -> None:
    """Look twice a second, whatever the pace."""
    for _ in range(int(seconds * 2)):
        monitor._watch()
        clock.now += 0.5


def test_the_claims_of_a_node_that_is_silent_go_back_after_the_timeout(queue, clock):
    queue.take_one()
    monitor = make_monitor(queue)
    watch(clock, monitor, TIMEOUT)
    assert queue.waiting() == []
    watch(clock, monitor, 1)
    assert queue.waiting() == [b"T"]
    assert queue.mark() == b"-lost push young"
    assert queue.membership.get_sequences() == {}


@contextmanager
def listening(queue: Queue, *channels: bytes):
    """Subscribed to these channels, and surely not any more afterwards."""
    before = queue.redis.pubsub_numsub(*channels)
    with queue.redis.pubsub() as listener:
        listener.subscribe(*channels)
        for _ in channels:
            assert listener.get_message(timeout=5)["type"] == "subscribe"
        yield
    deadline = time.monotonic() + 10
    while queue.redis.pubsub_numsub(*channels) != before:
        assert time.monotonic() < deadline


def test_the_claims_of_a_node_whose_subscription_is_gone_go_back_after_a_moment(queue, clock):
    queue.take_one()
    monitor = make_monitor(queue)
    with listening(queue, queue.store.keys.alive(A)):
        watch(clock, monitor, 5)
    watch(clock, monitor, GONE_SECONDS)
    assert queue.waiting() == []
    watch(clock, monitor, 0.5)
    assert queue.waiting() == [b"T"]


def test_the_fewer_monitors_the_oftener_each_looks(queue, clock):
    monitor = make_monitor(queue)
    nodes = [b"n:1:%02d" % number for number in range(30)]
    for node in nodes:
        queue.membership.join(node)
    watch(clock, monitor, 1)
    assert monitor.pace == LOOK, "no Monitor but this one is known"
    for number, pace in ((1, LOOK), (5, LOOK), (10, 2 * LOOK), (30, LONGEST_LOOK)):
        with listening(queue, *map(queue.store.keys.watches, nodes[:number])):
            watch(clock, monitor, 0.5)
            assert monitor.pace == pace
    with listening(queue, *map(queue.store.keys.watches, nodes)):
        watch(clock, monitor, TIMEOUT / 2)
        assert monitor.pace == SILENT_LOOK, "a node has been silent for long"


def test_a_monitor_that_suspects_a_death_looks_often_until_that_is_settled(queue, clock):
    monitor = make_monitor(queue)
    with listening(queue, queue.store.keys.alive(A)):
        watch(clock, monitor, 0.5)
    watch(clock, monitor, 0.5)
    assert monitor.pace == KEEN_LOOK
    queue.membership.beat(A, 1)
    with listening(queue, queue.store.keys.alive(A)):
        watch(clock, monitor, 0.5)
        assert monitor.pace == LOOK


def test_a_monitor_whose_node_is_alone_looks_seldom(queue, clock):
    monitor = make_monitor(queue, own=A)
    watch(clock, monitor, 0.5)
    assert monitor.pace == ALONE_LOOK


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
    clock.now += monitor.pace + GAP + 60
    watch(clock, monitor, TIMEOUT)
    assert queue.waiting() == []


def test_however_many_monitors_watch_one_wins(queue, clock):
    queue.take_one()
    monitors = [make_monitor(queue, node_timeout=3) for _ in range(3)]
    for _ in range(10):
        for monitor in monitors:
            monitor._watch()
        clock.now += 0.5
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


@pytest.mark.parametrize("reaped", [None, "4", "4 T"])
def test_a_beat_of_a_node_that_is_gone_does_not_bring_it_back(queue, reaped):
    queue.redis.delete(queue.keys.nodes)
    if reaped:
        queue.redis.hset(queue.keys.nodes, b"-" + A, reaped)
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
    assert queue.mark(b"1") == b"-lost push young"
    assert queue.mark(b"2") == b"-lost back young"
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
        answers.append(queue.store.client.call("reap", keys, (A, b"0", 4, 0, b"")))
        with pytest.raises(NodeGone):
            queue.take(A)
        assert queue.membership.beat(A, 7) == (-1, [])
        assert (queue.membership.get_sequences() == {A: b"-0"}) == (answers[-1] == 1)
        assert (
            set(queue.waiting()) | set(queue.owned()) | set(queue.redis.lrange(k.inbox(A), 0, -1)) == ids | inbox
        )
    assert answers[-1] == 0
    assert len(answers) > 5
    assert queue.store.client.call("reap", keys, (A, b"0", 4, 0, b"")) == -1
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


# What a death counts against.

MINUTE = 60_000_000  # microseconds


def claim_of_age(queue: Queue, task_id: bytes, microseconds: int, node: bytes = A) -> None:
    """A claim as it would stand so long after its begin."""
    seconds, rest = queue.redis.time()
    fence = seconds * 1_000_000 + rest - microseconds
    queue.redis.hset(queue.keys.claims, task_id, node + b" %d" % fence)
    queue.redis.hset(queue.keys.claims_of(node), task_id, f"{fence} 0 back 0")


def test_a_death_counts_against_the_runs_of_the_last_minute(queue):
    claim_of_age(queue, b"young", MINUTE - 5_000_000)
    claim_of_age(queue, b"old", MINUTE)
    claim_of_age(queue, b"ahead", -MINUTE)  # a fence may be ahead of the clock
    assert queue.membership.reap(A, b"0")
    marks = {task_id: queue.mark(task_id) for task_id in (b"young", b"old", b"ahead")}
    assert marks == {b"young": b"-lost back young", b"old": b"-lost back", b"ahead": b"-lost back young"}
    queue.membership.join(B)
    lost = {task_id: (claim.lost, claim.how) for task_id, claim in queue.take(B).items()}
    assert lost == {b"young": (b"2", b"back"), b"old": (b"1", b"back"), b"ahead": (b"2", b"back")}


@pytest.mark.parametrize(("blame", "counted"), [(b"old", {b"old"}), (b"", set()), (b"strange", set())])
def test_a_death_with_a_culprit_counts_against_it_alone(queue, blame, counted):
    claim_of_age(queue, b"young", 0)
    claim_of_age(queue, b"old", 2 * MINUTE)
    assert queue.membership.reap(A, b"0", blame)
    assert {task_id for task_id in (b"young", b"old") if queue.mark(task_id) == b"-lost back young"} == counted


@pytest.mark.parametrize("blame", [b"30", b"", b"a \x00\n id", b"1 2"])
def test_whoever_carries_a_reap_on_blames_whom_the_first_one_blamed(queue, blame):
    ids = [b"%d" % number for number in range(30)] + [b"a \x00\n id", b"1 2"]
    queue.push(*ids)
    assert len(queue.take(most=50)) == len(ids)
    k = queue.keys
    keys = (k.key, k.claims, k.claims_of(A), k.nodes, k.inbox(A), k.gone)
    queue.redis.hset(k.claims_of(A), b"x" * 70, "1 0 push 0")  # so that a chunk is no whole hash
    assert queue.store.client.call("reap", keys, (A, b"0", 1, 1, blame)) == 1
    assert queue.membership.get_sequences() == {A: b"-0"}
    queue.membership.leave(A)
    assert {task_id for task_id in ids if queue.mark(task_id).endswith(b" young")} == {blame} & set(ids)


def test_a_claim_that_is_lost_again_before_it_began_counts_once(queue):
    """Each death of a young claim leaves one mark: the begin that follows counts one death, not two."""
    queue.membership.join(B)
    queue.take_one()
    queue.membership.reap(A, b"0")
    claim = queue.take(B)[b"T"]
    assert claim.lost == b"2"
    queue.membership.reap(B, b"0")
    assert queue.mark() == b"-lost push young"


def test_one_beat_serves_several_queues_and_tells_them_apart(queue, server):
    mail = Queue(server, "", "mail")
    gone = Queue(server, "", "gone")
    try:
        mail.membership.join(A)
        server.redis.set("{new-task:broken}:nodes", "no hash")
        broken = queue.store.keys.queue("broken")
        queue.push("1", "2", "3")
        queue.take(most=2)
        all_keys = [queue.keys, broken, gone.keys, mail.keys]
        full = beat_all(queue.store.client, all_keys, A, 7, full=True)
        assert full == [("", Pulse(2, 1, [])), ("broken", REFUSED), ("gone", GONE), ("mail", Pulse(0, 0, []))]
        short = beat_all(queue.store.client, all_keys, A, 8, full=False)
        assert short == [("", None), ("broken", REFUSED), ("gone", GONE), ("mail", None)]
        assert queue.membership.get_sequences() == mail.membership.get_sequences() == {A: b"8"}
        assert gone.membership.get_sequences() == {}
    finally:
        mail.close()
        gone.close()


# Many Monitors, many dead nodes.


def test_8_monitors_race_over_200_dead_nodes_and_each_id_comes_back_once(server, monkeypatch):
    """Each node has one winner; the others find nothing left to do."""
    queues = [Queue(server, "", "") for _ in range(8)]
    nodes = [b"n%d:1:%08x" % (number, number) for number in range(200)]
    ids = [task_id for node in nodes for task_id in _fill_node(queues[0], node)]
    clock, wins = Clock(), []
    monkeypatch.setattr(monitor_module, "time", clock)
    monkeypatch.setattr(monitor_module.log, "warning", lambda _text, node, *_: wins.append(node.encode()))
    monitors = [make_monitor(queue, own=b"m%d" % number) for number, queue in enumerate(queues)]
    for _ in range(int(TIMEOUT)):
        for monitor in monitors:
            monitor._watch()
        clock.now += 1
    assert not wins
    _at_once([monitor._watch for monitor in monitors])
    assert sorted(wins) == sorted(nodes)
    assert sorted(queues[0].waiting()) == sorted(ids)
    assert queues[0].membership.get_sequences() == {}
    assert not server.redis.keys("{new-task}:of:*") + server.redis.keys("{new-task}:inbox:*")
    for queue in queues:
        queue.close()


def _fill_node(queue: Queue, node: bytes) -> list[bytes]:
    """Let a node own five ids and be handed one more."""
    owned = [node + b"/%d" % number for number in range(5)]
    queue.push(*owned)
    queue.membership.join(node)
    while queue.waiting():
        queue.take(node)
    queue.redis.lpush(queue.keys.inbox(node), node + b"/inbox")
    assert queue.owned(node) == owned
    return [*owned, node + b"/inbox"]


def _at_once(functions: list[Callable[[], None]]) -> None:
    start = threading.Barrier(len(functions))
    threads = [threading.Thread(target=lambda f=f: (start.wait(), f())) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
