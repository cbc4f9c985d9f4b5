"""Stopping and restarting many tasks, and stops on every path: what waits, is due, will be retried, is cut off."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
from conftest import HERE, ON_ONE_SERVER, wait_until

from pytask import PyTask
from pytask.errors import InvalidInputError, PyTaskError, TaskStateError


@pytest.fixture
def helpers(app):
    return app.helpers


def runs(server, task_id):
    return server.redis.llen(f"runs:{task_id}")


# Stops of one task, by every way.


def park(server, helpers, how, task_id="T"):
    """A task that waits for a time: before its first start, or for another attempt."""
    if how == "due":
        helpers.start_task("sleep", task_id=task_id, delay=3600)
        server.wait_for_state(task_id, "SCHEDULED")
    else:
        helpers.start_task("boom", task_id=task_id, retries=5, retry_delay=3600)
        server.wait_for_state(task_id, "RETRY")
    wait_until(lambda: server.redis.zscore("{new-task}:due", task_id), "it is parked")


@pytest.mark.parametrize("how", ["due", "retry"])
def test_a_parked_task_is_stopped_at_once_by_the_helper(how, server, helpers, start_node):
    start_node()
    park(server, helpers, how)
    assert helpers.stop_task("T")
    server.wait_for_state("T", "STOPPED")
    server.wait_until_idle()
    assert not server.redis.exists("{new-task}:due")
    assert runs(server, "T") == 0


@ON_ONE_SERVER
@pytest.mark.parametrize("how", ["due", "retry"])
def test_a_parked_task_is_stopped_with_raw_commands(how, server, helpers, start_node):
    start_node()
    park(server, helpers, how)
    server.redis.hset("task-T", "control", "stop")
    server.redis.publish("task-T-control", "stop")
    server.redis.zadd("{new-task}:due", {"T": 0}, xx=True)
    server.wait_for_state("T", "STOPPED")


def test_a_raw_stop_of_what_waits_lets_its_id_start_nothing(server, start_node):
    for number in range(3):
        server.create(f"w{number}", "sleep")
    server.redis.hset("task-w1", "control", "stop")
    server.redis.publish("task-w1-control", "stop")
    start_node()
    assert [server.wait_for_state(f"w{number}", "SUCCESS", "STOPPED") for number in range(3)] == [
        "SUCCESS", "STOPPED", "SUCCESS",
    ]  # fmt: skip
    assert runs(server, "w1") == 0
    server.redis.lpush("new-task", "w1")
    server.create("after", "noop")
    server.wait_for_state("after", "SUCCESS")
    assert server.state("w1") == "STOPPED"


class Wire:
    """A connection of a node that can be cut: nothing comes through, and nobody is told."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.cut = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def _spawn(self, function, *args) -> None:
        self.threads.append(threading.Thread(target=function, args=args, daemon=True))
        self.threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.path)
            self.sockets += (client, server)
            for source, target in ((client, server), (server, client)):
                self._spawn(self._copy, source, target)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self.cut.is_set():
                    target.sendall(data)
        except OSError:
            pass
        finally:
            self._end(target)

    def _end(self, each: socket.socket) -> None:
        """Closing alone would leave it open for the thread that reads from it."""
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """New connections go through; the old ones are gone."""
        self.cut.clear()
        for each in self.sockets:
            self._end(each)

    def close(self) -> None:
        self._end(self.listener)
        self.threads[0].join()
        self.mend()
        for thread in self.threads:
            thread.join()
        for each in (self.listener, *self.sockets):
            each.close()


@pytest.mark.parametrize("raw", [False, True], ids=["helper", "raw"])
def test_a_stop_reaches_a_node_that_was_cut_off_when_it_was_sent(raw, server, helpers, start_node, events):
    wire = Wire(server.embedded.socket_path)
    try:
        # no Monitor elsewhere, so that nobody declares it dead
        node = start_node("-u", f"redis://127.0.0.1:{wire.port}/0", node_timeout="30", local_tasks="false")
        helpers.start_task("loop", task_id="T")
        events.wait_for("T", "turn")
        wire.cut.set()
        if raw:
            server.redis.hset("task-T", "control", "stop")
            server.redis.publish("task-T-control", "stop")
        else:
            assert helpers.stop_task("T")
        wire.mend()
        server.wait_for_state("T", "STOPPED", deadline=40)
        assert node.process.poll() is None
    finally:
        wire.close()


# Stops of many.


def test_all_tasks_of_a_queue_are_stopped_wherever_they_are(server, helpers, start_node, events):
    node = start_node("-q", "mail", "-q", "default", "-c", "4")
    for number in range(3):
        helpers.start_task("loop", task_id=f"runs{number}", queue="mail")
        events.wait_for(f"runs{number}", "turn")
    helpers.start_task("sleep", task_id="due", queue="mail", delay=3600)
    helpers.start_task("boom", task_id="retry", queue="mail", retries=3, retry_delay=3600)
    server.wait_for_state("due", "SCHEDULED")
    server.wait_for_state("retry", "RETRY")
    wait_until(lambda: server.redis.zcard("{new-task:mail}:due") == 2)
    helpers.start_task("loop", task_id="other")
    events.wait_for("other", "turn")
    for number in range(300):
        helpers.start_task("sleep", task_id=f"waits{number}", queue="mail")
    told = []
    assert helpers.stop_tasks(queue="mail", progress=lambda done, total: told.append((done, total))) == 305
    assert told[-1][0] >= 305
    for task_id in ("runs0", "runs1", "runs2", "due", "retry", *(f"waits{number}" for number in range(300))):
        server.wait_for_state(task_id, "STOPPED")
    assert not server.redis.keys("runs:*")
    assert server.state("other") == "RUNNING"
    assert helpers.stop_tasks(queue="mail") == 0
    assert node.process.poll() is None


def test_stops_are_narrowed_by_name_and_state(server, helpers):
    for number in range(4):
        helpers.start_task(
            "noop" if number % 2 else "sleep", task_id=f"t{number}", queue="a" if number > 1 else ""
        )
    server.redis.hset("task-t3", "state", "RETRY")
    assert helpers.stop_tasks(name="nobody") == 0
    assert helpers.stop_tasks(name="noop", state=["RUNNING", "RETRY"]) == 1
    assert helpers.stop_tasks(name="sleep", state="WAIT", queue="default") == 1
    assert {i for i in range(4) if server.field(f"t{i}", "control") == "stop"} == {0, 3}
    assert helpers.stop_tasks() == 2
    assert helpers.stop_tasks() == 0


def test_states_and_names_that_are_none_are_refused(helpers):
    for bad in ("SUCCESS", "STOPPED", "RUNING", "", 7, ["RUNNING", "x"], []):
        with pytest.raises((TaskStateError, TypeError)):
            helpers.stop_tasks(state=bad)
    for bad in ("RUNNING", "WAIT", "failed", []):
        with pytest.raises(TaskStateError):
            helpers.restart_all(states=bad)
    for bad in ("", 7, b"noop"):
        with pytest.raises(InvalidInputError, match="name of a task"):
            helpers.stop_tasks(name=bad)
        with pytest.raises(InvalidInputError, match="name of a task"):
            helpers.restart_all(name=bad)
    with pytest.raises(PyTaskError, match="queue name"):
        helpers.restart_all(queue="a b")


# Restarts.


def test_all_failed_tasks_of_a_queue_run_again(server, helpers, start_node):
    start_node("-q", "mail", "-q", "default")
    ids = helpers.start_tasks([("fail", {}, f"f{number}") for number in range(600)], queue="mail")
    helpers.start_task("boom", task_id="boom", queue="mail")
    helpers.start_task("noop", task_id="fine", queue="mail")
    helpers.start_task("fail", task_id="other")
    for task_id in (*ids, "boom", "fine", "other"):
        server.wait_for_state(task_id, "ERROR", "EXCEPTION", "SUCCESS")
    wait_until(lambda: server.redis.zcard("{new-task:mail}:ended") == 602)
    started = {task_id: server.field(task_id, "started") for task_id in (*ids, "boom", "fine", "other")}
    told = []
    assert helpers.restart_all(queue="mail", progress=lambda done, total: told.append((done, total))) == 601
    assert told[-1] == (602, 602)
    for task_id in (*ids, "boom"):
        wait_until(lambda task_id=task_id: server.field(task_id, "started") != started[task_id], task_id)
        server.wait_for_state(task_id, "ERROR", "EXCEPTION")
        assert server.field(task_id, "attempt") == "1"
    assert server.field("fine", "started") == started["fine"]
    assert server.field("other", "started") == started["other"]


def test_restarts_are_narrowed_by_name_and_state_and_pass_over_what_is_gone(server, helpers, start_node):
    start_node()
    for task_id, task in {"f1": "fail", "f2": "fail", "b1": "boom", "n1": "noop"}.items():
        helpers.start_task(task, task_id=task_id)
        server.wait_for_state(task_id, "ERROR", "EXCEPTION", "SUCCESS")
    wait_until(lambda: server.redis.zcard("{new-task}:ended") == 4)
    server.redis.delete("task-f2")
    helpers.pause_queue()
    assert helpers.restart_all(name="fail") == 1
    assert server.state("f1") == "WAIT"
    assert [task_id for task_id, _ in helpers.get_ended()] == ["n1", "b1", "f2"]
    assert helpers.restart_all(queue="default", states="SUCCESS") == 1
    assert helpers.restart_all(states=["EXCEPTION", "LOST"]) == 1
    assert helpers.restart_all() == 0
    assert server.redis.lrange("new-task", 0, -1) == [b"b1", b"n1", b"f1"]
    helpers.resume_queue()
    server.wait_for_state("n1", "SUCCESS")


def test_stopped_tasks_run_again_where_that_is_asked_for(server, helpers, start_node):
    node = start_node()
    helpers.start_task("sleep", {"seconds": 0}, task_id="T", delay=3600)
    server.wait_for_state("T", "SCHEDULED")
    helpers.stop_task("T")
    server.wait_for_state("T", "STOPPED")
    wait_until(lambda: server.redis.zcard("{new-task}:ended") == 1)
    assert helpers.restart_all(states="STOPPED") == 1
    server.wait_for_state("T", "SUCCESS")
    assert runs(server, "T") == 1
    assert node.process.poll() is None


@pytest.mark.parametrize("raw", [False, True], ids=["helper", "raw"])
def test_a_restart_of_a_task_that_runs_happens_after_its_end(raw, server, helpers, start_node):
    start_node()
    helpers.start_task("sleep", {"seconds": 0.5}, task_id="T")
    wait_until(lambda: runs(server, "T") == 1)
    if raw:
        server.redis.hset("task-T", "state", "WAIT")
        server.redis.lpush("new-task", "T")
    else:
        helpers.restart_task("T")
    assert runs(server, "T") == 1
    wait_until(lambda: runs(server, "T") == 2)
    server.wait_for_state("T", "SUCCESS")
    server.wait_until_idle()
    assert runs(server, "T") == 2


CROSSING = """
from gevent.event import Event
from pytask.node.control import Control

heard, act = Event(), Control._act

def hear(*words):
    act(*words)
    heard.set()

def reach(name):
    if name == {point!r} and not heard.is_set():
        {before}
        heard.wait()
        {after}

Control._act, points.reach = hear, reach
"""


@pytest.fixture
def start_crossing(start_node):
    """A node that does something at a point, once, waits until it has heard a message, and does something else."""

    def start(point: str, before: str, after: str = "pass") -> None:
        start_node(changes=CROSSING.format(point=point, before=before, after=after))

    return start


@pytest.mark.parametrize(("point", "limits"), [("before-begin", {}), ("after-ask", {"max_running": 1})])
def test_a_restart_takes_a_stop_back_that_a_node_has_heard_of_and_not_obeyed(
    point, limits, server, helpers, start_crossing
):
    start_crossing(point, "app.helpers.stop_task('T')", "app.helpers.restart_task('T')")
    helpers.start_task("sleep", {"seconds": 0}, task_id="T", **limits)
    server.wait_for_state("T", "SUCCESS")
    server.wait_until_idle()


def test_a_reload_reaches_a_task_whose_node_has_read_its_record_and_not_begun_it(server, events, start_crossing):
    start_crossing("after-begin", "app.helpers.set_task('T', data={'text': 'new'}); app.helpers.reload_task('T')")
    server.create("T", "loop", '{"text": "old"}')
    wait_until(
        lambda: any(event["event"] == "turn" and event["data"]["text"] == "new" for event in events.of("T"))
    )


def test_a_run_whose_stop_was_lost_ends_all_the_same_where_a_restart_followed(server, helpers, start_node):
    start_node()
    helpers.start_task("sleep", {"seconds": 600}, task_id="T")
    wait_until(lambda: runs(server, "T") == 1)
    server.redis.hset("task-T", "control", "stop")  # and no message
    helpers.restart_task("T")
    wait_until(lambda: runs(server, "T") == 2)
    server.wait_for_state("T", "RUNNING")


# How long records stay.


def test_records_go_as_their_tasks_say_not_only_as_the_settings_do(server, helpers, start_node, tmp_path):
    module = tmp_path / "ttlapp.py"
    module.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "import nodeapp\n"
        "from pytask import Task\n"
        "app = nodeapp.app\n"
        "@app.add_task\n"
        "class Short(Task):\n"
        "    NAME = 'short'\n"
        "    result_ttl, failure_ttl = 100, '5m'\n"
        "    def __init__(self, fails=False):\n"
        "        self.fails = fails\n"
        "    def start(self):\n"
        "        if self.fails:\n"
        "            raise self.Error('no luck')\n"
    )
    start_node("--path", str(tmp_path), app="ttlapp:app", result_ttl="1000", failure_ttl="2000")
    rows = {
        "setting": ("noop", {}, {}, 1000),
        "setting-fails": ("fail", {}, {}, 2000),
        "keyword": ("noop", {}, {"result_ttl": 10}, 10),
        "keyword-fails": ("fail", {}, {"failure_ttl": "20s", "result_ttl": 10}, 20),
        "class": ("short", {}, {}, 100),
        "class-fails": ("short", {"fails": True}, {}, 300),
        "over-class": ("short", {"fails": True}, {"failure_ttl": 50}, 50),
    }
    for task_id, (task, data, options, _) in rows.items():
        helpers.start_task(task, data, task_id=task_id, **options)
    server.create("raw", "fail", failure_ttl="30")
    server.create("raw-bad", "fail", failure_ttl="-1")
    for task_id, seconds in {**{i: row[3] for i, row in rows.items()}, "raw": 30, "raw-bad": 2000}.items():
        left = wait_until(lambda task_id=task_id: (n := server.redis.ttl(f"task-{task_id}")) > 0 and n, task_id)
        assert 0.5 * seconds < left <= seconds, task_id


def test_kept_events_go_with_the_record_of_their_task(server, helpers, start_node):
    start_node(result_ttl="100")
    helpers.start_task("boom", task_id="T", retries=1, retry_delay=0, failure_ttl=50)
    server.wait_for_state("T", "EXCEPTION")
    assert server.redis.exists("{task-T}:events")
    wait_until(lambda: 0 < server.redis.ttl("task-T") <= 50)
    wait_until(lambda: 0 < server.redis.ttl("{task-T}:events") <= 50)


def test_a_queue_remembers_as_many_ended_ids_as_the_setting_says(server, helpers, start_node):
    node = start_node(keep_ended="10")
    helpers.start_tasks([("noop",)] * 100)
    wait_until(lambda: server.redis.hget("{new-task}:counts", "SUCCESS") == b"100")
    assert server.redis.zcard("{new-task}:ended") == 10
    node.terminate()
    start_node("--keep-ended", "0")
    helpers.start_task("noop", task_id="T")
    wait_until(lambda: server.redis.hget("{new-task}:counts", "SUCCESS") == b"101")
    assert helpers.get_ended() == []


def test_an_urgent_push_is_next(server, start_node):
    for number in range(3):
        server.create(f"t{number}", "sleep", json.dumps({"seconds": 0}))
    server.redis.hset("task-urgent", "task", "sleep")
    server.redis.rpush("new-task", "urgent")
    start_node("-c", "1")
    ids = [f"t{number}" for number in range(3)]
    for task_id in (*ids, "urgent"):
        server.wait_for_state(task_id, "SUCCESS")
    began = {task_id: float(server.field(task_id, "started")) for task_id in (*ids, "urgent")}
    assert sorted(began, key=began.get) == ["urgent", *ids]


def test_the_list_that_an_id_was_pushed_to_decides_and_the_field_only_tells(server, start_node):
    start_node("-q", "a", "-q", "b")
    server.redis.hset("task-T", mapping={"task": "noop", "queue": "b"})
    server.redis.lpush("new-task:a", "T")
    server.wait_for_state("T", "SUCCESS")
    assert server.field("T", "at") == "new-task:a"
    assert server.field("T", "queue") == "b"
    assert time.time() - float(server.field("T", "ended")) < 60


def test_an_app_with_a_class_pushes_to_the_queue_of_the_class(server):
    from pytask import Task

    class Crawl(Task):
        NAME = "crawl"
        queue = "crawl"

        def start(self):
            pass

    app = PyTask(server.url)
    app.add_task(Crawl)
    app.helpers.start_task("crawl", task_id="T")
    app.helpers.start_task(Crawl, task_id="U", queue="other")
    assert server.redis.lrange("new-task:crawl", 0, -1) == [b"T"]
    assert server.redis.lrange("new-task:other", 0, -1) == [b"U"]
    app.close()
