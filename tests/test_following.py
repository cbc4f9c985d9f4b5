"""Events of one task: what is kept, then what comes, each once; and messages into a task that runs."""

from __future__ import annotations

import json
import threading
import time

import pytest
from conftest import Server, wait_until
from test_results import LONG, Waiter, end, listeners, own_app, own_server, success, wait_for_listener

from pytask.errors import InvalidInputError, TaskGone, TaskTimeout
from pytask.node import outcome
from pytask.story import Story, TaskEvent

__all__ = ["own_app", "own_server"]


@pytest.fixture
def helpers(app):
    return app.helpers


def tell(server: Server, task_id: str, name: str, data=None, *, keep: bool = True, deaf: bool = False) -> None:
    """Tell an event as the script emit does. `deaf`: nobody hears it, it is only kept."""
    event = json.dumps({"event": name, "data": data}).encode()
    if keep:
        place = server.redis.xadd(f"{{task-{task_id}}}:events", {"event": event})
        event = event[:-1] + b', "id": "' + place + b'"}'
    if not deaf:
        server.redis.publish(f"task-{task_id}", event)


def short(events) -> list[tuple]:
    return [(event.event, event.data) for event in events]


class Reader(Waiter):
    """Follows a task in a thread; `events` are those so far."""

    def __init__(self, follow) -> None:
        self.events: list[TaskEvent] = []
        super().__init__(lambda: self.events.extend([]) or [self.events.append(event) for event in follow])

    def wait_for(self, name: str) -> None:
        wait_until(lambda: name in [event.event for event in self.events], f"{name} in {self.events}")


# What is kept, and what comes.


def test_what_is_kept_is_read_without_waiting(server, helpers):
    handle = helpers.start_task("echo")
    assert helpers.get_events(handle) == helpers.get_events("nobody") == []
    for number in range(1203):
        tell(server, handle, "step", number, deaf=True)
    server.redis.xadd(f"{{task-{handle}}}:events", {"event": "no JSON"})
    told = helpers.get_events(handle)
    assert [event.data for event in told] == list(range(1203))
    assert told[0].time > 1e9


def test_a_late_watcher_gets_what_is_kept_and_then_follows(server, helpers):
    handle = helpers.start_task("echo")
    tell(server, handle, "first", 1)
    tell(server, handle, "unheard", keep=False)
    tell(server, handle, "second", [2])
    reader = Reader(handle.events(timeout=LONG))
    reader.wait_for("second")
    wait_for_listener(server, handle)
    tell(server, handle, "third")
    tell(server, handle, "passing", keep=False)
    end(server, handle, success("bye"))
    reader.outcome()
    assert short(reader.events) == [
        ("first", 1), ("second", [2]), ("third", None), ("passing", None), ("success", "bye"),
    ]  # fmt: skip
    assert [event.id is None for event in reader.events] == [False, False, False, True, True]
    assert all(abs(event.time - time.time()) < 60 for event in reader.events)


def test_without_replay_only_what_comes_is_told(server, helpers):
    handle = helpers.start_task("echo")
    tell(server, handle, "before")
    reader = Reader(handle.events(replay=False, timeout=LONG))
    wait_for_listener(server, handle)
    tell(server, handle, "after")
    end(server, handle)
    reader.outcome()
    assert short(reader.events) == [("after", None), ("success", "done")]


def test_an_event_between_the_subscription_and_the_look_at_what_is_kept_comes_once(server, helpers, monkeypatch):
    handle = helpers.start_task("echo")
    get_kept, told = helpers.store.records.get_kept, []

    def late(*arguments):
        if not told:
            assert listeners(server, handle)
            told.append(tell(server, handle, "between"))
        rows = get_kept(*arguments)
        if len(told) == 1:
            told.append(tell(server, handle, "behind"))
        return rows

    monkeypatch.setattr(helpers.store.records, "get_kept", late)
    reader = Reader(handle.events(timeout=LONG))
    reader.wait_for("behind")
    end(server, handle)
    reader.outcome()
    assert short(reader.events) == [("between", None), ("behind", None), ("success", "done")]


def test_thousands_of_kept_events_come_in_pages_while_others_are_told(server, helpers):
    handle = helpers.start_task("echo")
    for number in range(1200):
        tell(server, handle, "kept", number, deaf=True)
    telling = threading.Thread(target=lambda: [tell(server, handle, "kept", n) for n in range(1200, 3000)])
    reader = Reader(handle.events(timeout=60))
    telling.start()
    telling.join()
    end(server, handle)
    reader.outcome()
    assert [event.data for event in reader.events[:-1]] == list(range(3000))


@pytest.mark.parametrize(
    ("made", "last"),
    [
        (success({"a": 1}), ("success", {"a": 1})),
        (outcome.failure("ERROR", "no luck"), ("error", "no luck")),
        (outcome.STOPPED, ("stopped", None)),
    ],
)
def test_the_end_that_was_missed_is_told_from_the_record(server, helpers, made, last):
    handle = helpers.start_task("echo")
    tell(server, handle, "first")
    end(server, handle, made)
    assert short(handle.events(timeout=LONG)) == [("first", None), last]
    assert short(handle.events(replay=False, timeout=LONG)) == [last]


def test_an_end_that_is_kept_is_told_once(server, helpers):
    handle = helpers.start_task("echo")
    tell(server, handle, "error", "no luck")
    end(server, handle, outcome.failure("ERROR", "no luck"))
    (event,) = handle.events(timeout=LONG)
    assert (event.event, event.data) == ("error", "no luck")
    assert event.id


def test_retries_and_a_restart_are_no_end(server, helpers):
    handle = helpers.start_task("echo")
    tell(server, handle, "exception", "first run")
    tell(server, handle, "retry", {"in": 1})
    reader = Reader(handle.events(timeout=LONG))
    reader.wait_for("retry")
    for name in ("running", "reloaded", "success"):
        tell(server, handle, name)
    reader.wait_for("success")
    end(server, handle, success(7))
    reader.outcome()
    assert short(reader.events)[-2:] == [("success", None), ("success", 7)]


def test_what_is_no_event_is_passed_over(server, helpers):
    handle = helpers.start_task("echo")
    stream = f"{{task-{handle}}}:events"
    server.redis.xadd(stream, {"other": "x"})
    server.redis.xadd(stream, {"event": "no json"})
    tell(server, handle, "kept")
    reader = Reader(handle.events(timeout=LONG))
    reader.wait_for("kept")
    for message in (
        b"x",
        b"[]",
        b'{"event": 7}',
        b'{"event": "odd", "id": "seven"}',
        b'{"event": "odd", "id": [1]}',
    ):
        server.redis.publish(f"task-{handle}", message)
    end(server, handle)
    reader.outcome()
    assert short(reader.events) == [("kept", None), ("odd", None), ("odd", None), ("success", "done")]


def test_events_of_a_task_with_a_brace_in_its_id_are_followed_though_none_is_kept(server, helpers):
    handle = helpers.start_task("echo", task_id="a{b}c")
    reader = Reader(handle.events(timeout=LONG))
    wait_for_listener(server, handle)
    tell(server, handle, "told", keep=False)
    end(server, handle)
    reader.outcome()
    assert short(reader.events) == [("told", None), ("success", "done")]


def test_there_is_nothing_to_follow_where_there_is_no_record(server, helpers):
    with pytest.raises(TaskGone):
        list(helpers.follow_task("nothing"))
    handle = helpers.start_task("echo")
    with pytest.raises(TaskTimeout, match="has not ended within"):
        list(handle.events(timeout=0.1))


def test_a_record_that_goes_at_once_ends_with_the_event_of_its_end(server, helpers):
    handle = helpers.start_task("echo")
    reader = Reader(handle.events(timeout=LONG))
    wait_for_listener(server, handle)
    end(server, handle, success(5), keep=False)
    reader.outcome()
    assert short(reader.events) == [("success", 5)]


def test_leaving_off_leaves_no_subscription(server, helpers):
    handle = helpers.start_task("echo")
    tell(server, handle, "first")
    events = handle.events()
    assert next(events).event == "first"
    events.close()
    wait_until(lambda: not listeners(server, handle))


def test_what_was_kept_while_the_server_was_away_follows_without_a_gap_or_a_repeat(own_server, own_app):
    handle = own_app.helpers.start_task("echo")
    tell(own_server, handle, "before")
    reader = Reader(handle.events(timeout=LONG))
    reader.wait_for("before")
    tell(own_server, handle, "heard")
    reader.wait_for("heard")
    own_server.embedded.stop()
    own_server.embedded.start()
    tell(own_server, handle, "unheard", deaf=not listeners(own_server, handle))
    wait_for_listener(own_server, handle)
    tell(own_server, handle, "after")
    end(own_server, handle)
    reader.outcome()
    names = [event.event for event in reader.events]
    assert names == ["before", "heard", "unheard", "after", "success"]


# With a node.


def test_the_events_of_a_real_task_come_in_order_and_once(server, app, start_node):
    start_node()
    handle = app.helpers.start_task("progress", total=5)
    first = short(handle.events(timeout=LONG))
    assert first[-1] == ("success", None)
    told = [data["done"] for name, data in first if name == "progress"]
    assert told == sorted(set(told))
    assert told[-1] == 5
    late = short(handle.events(timeout=LONG))
    assert late[-1] == ("success", None)


def test_a_reload_is_followed_to_the_stop(server, app, start_node):
    start_node()
    handle = app.helpers.start_task("loop")
    reader = Reader(handle.events(timeout=LONG))
    reader.wait_for("turn")
    handle.reload()
    reader.wait_for("reloaded")
    handle.stop()
    reader.outcome()
    assert reader.events[-1].event == "stopped"


# Messages.


def test_a_message_is_an_object_on_the_control_channel(server, helpers, start_node):
    start_node()
    with server.redis.pubsub() as pubsub:
        pubsub.subscribe("task-x-control")
        wait_until(lambda: pubsub.get_message(timeout=1))
        assert helpers.handle("x").send({"volume": 11, "ü": [None]}) == 2
        message = wait_until(lambda: pubsub.get_message(timeout=1))
    assert json.loads(message["data"]) == {"volume": 11, "ü": [None]}


def test_nobody_hears_a_message_where_no_node_lives(helpers):
    assert helpers.send_to_task("x", {}) == 0


@pytest.mark.parametrize(
    "message", ["stop", None, [1], 5, {"a": float("nan")}, {"a": object()}, {"a": "x" * 2_000_000}]
)
def test_what_is_no_message_is_refused(helpers, message):
    with pytest.raises(InvalidInputError, match="message"):
        helpers.send_to_task("x", message)


def test_the_most_that_a_message_may_have_is_a_setting(server):
    from pytask import PyTask

    app = PyTask(server.url, max_data=1024)
    with pytest.raises(InvalidInputError, match="the limit"):
        app.helpers.send_to_task("x", {"a": "x" * 1024})
    app.close()


# The order of a story, without a server.


def kept(place: str, name: str = "kept") -> tuple[bytes, bytes]:
    return place.encode(), json.dumps({"event": name}).encode()


def published(place: str, name: str = "kept") -> bytes:
    return json.dumps({"event": name, "id": place}).encode()


def test_ids_are_ordered_as_numbers():
    story = Story("x")
    assert [event.id for event in story.iter_kept([kept("9-2"), kept("10-1"), kept("10-1"), kept("9-9")])] == [
        "9-2",
        "10-1",
    ]
    assert [event.id for event in story.iter_heard([published("10-1"), published("10-2"), published("9-9")])] == [
        "10-2"
    ]
    assert story.last == b"10-2"
