"""Services as Python code defines them, and the delays between the starts of a replica: without a server."""

from __future__ import annotations

import pytest
from serviceapp import Quiet, Serve

from pytask import PyTask
from pytask.errors import InvalidInputError
from pytask.node.replica import Replica
from pytask.services import read_definition


@pytest.mark.parametrize(("before", "ran", "delay"), [(32, 0, 60), (60, 0, 60), (32, 61, 1), (0, 0, 1)])
def test_the_delay_grows_to_a_minute_and_begins_anew_after_a_minute_of_work(before, ran, delay):
    replica = Replica({"service": b"x", "replica": b"0", "backoff": str(before).encode()}, 0)
    replica.began -= ran
    assert replica.next_delay() == delay


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "a b"}, "service name"),
        ({"name": ""}, "service name"),
        ({"name": "x" * 65}, "service name"),
        ({"name": 3}, "service name"),
        ({"replicas": -1}, "replicas"),
        ({"replicas": 1e9}, "replicas"),
        ({"replicas": "many"}, "replicas"),
        ({"replicas": float("nan")}, "replicas"),
        ({"replicas": True}, "replicas"),
        ({"task": "pytask/monitor"}, "runs on nodes by itself"),
        ({"task": ""}, "task"),
        ({"task": "pytask/workflow"}, "a workflow cannot"),
        ({"data": [1]}, "data"),
        ({"data": {"nobody": 1}}, "nobody"),
        ({"data": {"word": float("nan")}}, "JSON"),
        ({"restart": "never"}, "always"),
        ({"queue": "a b"}, "queue"),
        ({"timeout": -1}, "timeout"),
        ({"unique": True}, "no option unique"),
        ({"due": 0}, "no option due"),
        ({"retry": 1}, "no option 'retry'"),
    ],
)
def test_what_python_gives_is_checked_at_once(arguments, words):
    given = {"name": "x", "task": Serve, **arguments}
    made = PyTask()
    if given["task"] == "pytask/monitor":
        made.add_task(made.known_tasks["pytask/monitor"])
    with pytest.raises(InvalidInputError, match=words):
        made.add_service(given.pop("name"), given.pop("task"), **given)


def test_a_hash_that_asks_for_a_workflow_is_refused():
    with pytest.raises(InvalidInputError, match="let a schedule start it"):
        read_definition(b"x", {b"task": b"pytask/workflow"}, 1000)


def test_two_services_of_one_app_have_two_names():
    made = PyTask()
    made.add_service("x", Quiet)
    with pytest.raises(InvalidInputError, match="two services have the name 'x'"):
        made.add_service("x", Quiet, replicas=2)


def test_a_task_that_is_no_replica_is_the_only_one():
    class Tells(Serve):
        NAME = "tells"

        def start(self):
            return [self.replica, self.replicas]

    assert PyTask().run_now(Tells) == [0, 1]
