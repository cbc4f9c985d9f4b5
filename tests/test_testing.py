"""pytask.testing: what projects use in their own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest
import redis
from conftest import HERE, ON_ONE_SERVER, wait_until
from test_docs import DOCS, blocks, file_of

from pytask import EmbeddedServer, PyTask, Task, chain, step, testing
from pytask.errors import ConfigurationError, InvalidInputError, PyTaskError
from pytask.testing import Clock, InlineNode, Worker, eager, on_server, wait_until_idle

PLUGIN = ["-p", "no:pytask", "-p", "pytask.testing.plugin"]  # as its entry point does it, installed or not

app = PyTask("redis://localhost:1")
helpers = app.helpers  # held by a module, as projects do


@app.task
def add(a, b=1):
    return a + b


@app.task(retries=2, retry_delay=3600)
def flaky(fails):
    fails = int(app.redis.decr("fails"))
    if fails >= 0:
        raise ValueError(f"{fails} more")
    return "done"


@app.task(bind=True)
def parent(self, numbers):
    ids = [add.start(number) for number in numbers]
    return [self.helpers.get_task(task_id, "output") for task_id in ids]


@app.task
def fails():
    raise Task.Error("no luck")


@app.task
def calls_fails():
    fails.start()


@app.task(forever=True)
def forever():
    while True:
        gevent.sleep(0.01)


@app.task(timeout=0.1)
def slow():
    gevent.sleep(60)


@app.task(bind=True)
def again(self):
    raise self.Retry("once more", after=100)


@pytest.fixture
def here(server):
    """This module's app, on the test's server."""
    with on_server(app, server.url):
        yield app


@pytest.fixture
def node(here):
    with InlineNode(here) as made:
        yield made


# The inline node.


def test_what_waits_is_run_in_order_in_this_process(server, events, node):
    ids = [add.start(number) for number in range(5)]
    server.create("raw", "test_testing.add", '{"a": 41}')
    assert node.run_until_idle() == 6
    assert [server.field(task_id, "output") for task_id in ids] == ["1", "2", "3", "4", "5"]
    assert server.field("raw", "output") == "42"
    assert events.names("raw") == ["running", "success"]
    assert server.redis.lrange("end-task", 0, -1)[-1] == ids[0].encode()
    assert not server.redis.exists("{new-task}:claims", "{new-task}:nodes")
    assert node.run_until_idle() == 0


def test_one_at_a_time(server, node):
    ids = [add.start(number) for number in range(2)]
    assert node.run_one()
    assert [server.state(task_id) for task_id in ids] == ["SUCCESS", "WAIT"]
    assert node.run_one()
    assert not node.run_one()


def test_failures_are_in_the_record_and_in_errors(server, node):
    failed = fails.start()
    server.create("unfit", "test_testing.add")
    server.create("hash", "nothing")
    server.redis.set("task-string", "x")
    server.redis.lpush("new-task", "string")
    node.run_until_idle()
    assert (server.state(failed), server.field(failed, "output")) == ("ERROR", "no luck")
    assert str(node.errors[failed]) == "no luck"
    assert "missing a required argument" in server.field("unfit", "output")
    assert server.dead() == [b"string"]


def test_retries_wait_for_the_clock(server, node, here):
    clock = Clock(here)
    server.redis.set("fails", 2)
    task_id = flaky.start(2)
    for attempt in (1, 2):
        assert node.run_until_idle() == 1
        assert (server.state(task_id), server.field(task_id, "attempt")) == ("RETRY", str(attempt))
        assert node.run_until_idle() == 0
        clock.move(minutes=59, seconds=30)
        assert node.run_until_idle() == 0
        clock.move(60)
    assert node.run_until_idle() == 1
    assert (server.state(task_id), server.field(task_id, "output")) == ("SUCCESS", '"done"')
    assert clock.moved == 2 * (59.5 * 60 + 60)


def test_a_timeout_strikes_where_the_task_yields(server, node):
    task_id = slow.start()
    node.run_until_idle()
    assert server.state(task_id) == "TIMEOUT"


def test_what_does_not_end_is_told_of_and_put_back(server, node):
    server.create("long", "test_testing.forever")
    with pytest.raises(TimeoutError, match=r"task test_testing.forever \(id long\) did not end in time"):
        node.run_until_idle(timeout=0.2)
    assert server.state("long") == "WAIT"
    assert server.redis.lrange("new-task", 0, -1) == [b"long"]


def test_tasks_and_hooks_that_are_added_later_are_known(server):
    made = PyTask(server.url)
    told = []
    made.on_node_start(lambda node: told.append("start"))
    made.on_node_stop(lambda node: told.append("stop"))
    with InlineNode(made) as node:
        node.run_until_idle()
        made.task(name="late")(lambda: told.append("late"))
        made.on_end(lambda task, state: told.append(state))
        made.around(lambda task, run: (told.append("around"), run()))
        made.helpers.start_task("late")
        node.run_until_idle()
    made.close()
    assert told == ["start", "around", "late", "SUCCESS", "stop"]


def test_nothing_is_patched():
    code = (
        "import socket, time; before = socket.socket, time.sleep\n"
        "from pytask import EmbeddedServer, PyTask\nfrom pytask.testing import InlineNode\n"
        "with EmbeddedServer() as server:\n"
        "    app = PyTask(server.url); app.task(name='f')(lambda: 1); app.helpers.start_task('f')\n"
        "    with InlineNode(app) as node: assert node.run_until_idle() == 1\n"
        "assert before == (socket.socket, time.sleep)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@app.task(rate="1/h")
def rated():
    return 1


@app.task(max_running=1)
def alone():
    return 1


@app.task
def waits_for_others(numbers):
    return [handle.get(10) for handle in [add.start(number) for number in numbers]]


def test_limits_are_real(server, node, here):
    ids = [rated.start() for _ in range(3)]
    node.run_until_idle()
    assert sorted(server.state(task_id) for task_id in ids) == ["SCHEDULED", "SCHEDULED", "SUCCESS"]
    Clock(here).move(minutes=61)
    node.run_until_idle()
    assert sorted(server.state(task_id) for task_id in ids) == ["SCHEDULED", "SUCCESS", "SUCCESS"]
    assert [alone.start() and node.run_one() for _ in range(3)] == [True] * 3
    first = add.options(unique=True, delay=60).start(1)
    assert add.options(unique=True).start(1) == first


def test_a_task_that_waits_for_others_gets_what_they_return(node):
    task_id = waits_for_others.start([1, 2])
    assert node.run_until_idle() == 3
    assert task_id.get(1) == [2, 3]


# Eager mode.


def test_what_is_started_has_run(server, here):
    with eager(here):
        assert add.start(1).get(1) == 2
        assert server.field(parent.start([1, 2]), "output") == '["2","3"]'
        ids = here.helpers.start_tasks([(add.task, {"a": 5}), (add.task, {"a": 6})])
        assert [server.field(task_id, "output") for task_id in ids] == ["6", "7"]
        before = server.field(ids[0], "fence")
        helpers.restart_task(ids[0])
        assert int(server.field(ids[0], "fence")) > int(before)
        assert server.state(ids[0]) == "SUCCESS"
    assert server.state(add.start(1)) == "WAIT"


def test_waits_and_retries_are_skipped(server, here):
    server.redis.set("fails", 2)
    began = time.time()
    with eager(here):
        assert server.field(flaky.options(delay="1d").start(2), "attempt") == "3"
        late = add.options(due=began + 86_400, queue="default").start(1)
        assert server.state(late) == "SUCCESS"


def test_a_rate_is_no_reason_to_wait(server, here):
    with eager(here):
        assert [server.state(rated.start()) for _ in range(3)] == ["SUCCESS"] * 3
        both = [rated.options(max_running=1, concurrency_key="n").start() for _ in range(2)]
        assert [server.state(task_id) for task_id in both] == ["SUCCESS"] * 2


def test_a_workflow_has_run_with_all_its_tasks(server, here):
    server.redis.set("fails", 2)
    inner = chain([(add, {"a": 3}), (add, {"a": 4})])
    stages = [[(add, {"a": 1}), step(flaky, {"fails": 2}, delay="1d", queue="default")], [inner]]
    with eager(here):
        handle = here.start_workflow(stages)
        assert handle.state() == "SUCCESS"
        assert handle.get(0) == [5]
        assert server.field(f"{handle}:1", "attempt") == "3"


def test_a_workflow_that_fails_raises_what_it_ended_with_and_its_cause(server, here):
    with eager(here), pytest.raises(Task.Error, match=r"1 of 2 tasks failed: 0 \(ERROR\)") as caught:
        here.start_workflow([[fails], [(add, {"a": 1})]])
    assert str(caught.value.__cause__) == "no luck"
    with eager(here, propagate=False):
        assert here.start_chain([fails, (add, {"a": 1})]).state() == "ERROR"
    with eager(here), pytest.raises(PyTaskError, match="none of its tasks waits in a queue of the app"):
        here.start_workflow([[step(add, {"a": 1}, queue="nobody-serves")]])


def test_what_a_task_raises_is_raised_where_it_was_started(server, here):
    with eager(here), pytest.raises(Task.Error, match="no luck"):
        calls_fails.start()
    with eager(here, propagate=False) as node:
        task_id = fails.start()
        assert (server.state(task_id), str(node.errors[task_id])) == ("ERROR", "no luck")
    with eager(here), pytest.raises(PyTaskError, match="goes on"):
        again.start()
    with eager(here), pytest.raises(PyTaskError, match="ended as EXPIRED"):
        add.options(expires=1).start(1)


# The clock.


def test_the_clock_moves_what_is_stored(server, here):
    raw = server.redis
    raw.hset("task-one", mapping={"created": "1700000000.5", "due": "1e15", "expires": "soon", "ended": "2"})
    raw.zadd("{new-task}:ended", {"a": 1700000000, "b": 5})
    raw.zadd("own", {"a": 1700000000})
    raw.set("short", "x", ex=60)
    raw.set("long", "x", ex=7200)
    Clock(here).move(hours=1)
    assert raw.hgetall("task-one") == {
        b"created": b"1699996400.500000", b"due": b"1e15", b"expires": b"soon", b"ended": b"2",
    }  # fmt: skip
    assert raw.zrange("{new-task}:ended", 0, -1, withscores=True) == [(b"b", 5.0), (b"a", 1699996400.0)]
    assert raw.zscore("own", "a") == 1700000000
    assert not raw.exists("short")
    assert 3500 < raw.ttl("long") <= 3600


def test_due_tasks_of_another_namespace_stay_where_they_are(server):
    one, two = (PyTask(server.url, namespace=name) for name in ("one", "two"))
    for each in (one, two):
        each.task(name="noop")(lambda: None)
        each.helpers.start_task("noop", task_id="x", delay=1000)
        with InlineNode(each) as node:
            node.run_until_idle()
    Clock(one).move(hours=1)
    assert one.helpers.get_new_task_ids() == ["x"]
    with InlineNode(two) as node:
        assert node.run_until_idle() == 0
    one.close()
    two.close()


@pytest.mark.parametrize("wrong", [{}, {"seconds": -1}, {"hours": float("nan")}, {"days": float("inf")}])
def test_the_clock_moves_forward_only(wrong, here):
    with pytest.raises(InvalidInputError, match="moves forward"):
        Clock(here).move(**wrong)


def test_the_clock_of_a_shared_server_is_not_moved():
    with pytest.raises(ConfigurationError, match="no server of this machine alone"):
        Clock(PyTask("redis://redis.example:6379")).move(1)


# Where an app is.


def test_an_app_comes_back_to_where_it_was(server):
    held = app.helpers
    with on_server(app, server.url):
        assert app.helpers is held is helpers
        add.start(1)
        assert len(helpers.get_new_task_ids()) == 1
        app.redis.set("a", 1)
    assert server.redis.get("a") == b"1"
    assert app.settings.redis == "redis://localhost:1"
    assert app.helpers is held
    assert str(held.store.target.address) == "localhost:1/0"


def test_an_app_that_wants_replicas_works_on_a_private_server():
    made = PyTask("redis://localhost:1", durable=True)
    made.task(name="f")(lambda: 3)
    with EmbeddedServer() as private, on_server(made, private), eager(made):
        assert made.helpers.get_task(made.helpers.start_task("f"), "output") == "3"
    assert made.settings.durable


# Real nodes.


@ON_ONE_SERVER
def test_a_worker_is_a_real_node(server, here):
    with Worker("nodeapp:app", "--concurrency", "3", on=here, path=str(HERE)) as worker:
        assert worker.node_id in here.helpers.get_nodes()
        task_id = here.helpers.start_task("sleep", seconds=0.2)
        wait_until_idle(here)
        assert json.loads(server.field(task_id, "output"))["pid"] == worker.pid
        late = here.helpers.start_task("sleep", seconds=0, delay=3600)
        server.wait_for_state(late, "SCHEDULED")
        wait_until_idle(here)
        Clock(here).move(hours=2)
        server.wait_for_state(late, "SUCCESS")
        here.helpers.start_task("forever")
        with pytest.raises(TimeoutError, match="queue default: 1 run "):
            wait_until_idle(here, timeout=0.5)
        assert "concurrency 3" in worker.log or "3" in worker.log
    assert worker.stop() == 0


@ON_ONE_SERVER
def test_a_worker_that_does_not_start_says_why(here):
    with pytest.raises(PyTaskError, match="there is no module 'nothing'"), Worker("nothing:app", on=here):
        pass


@ON_ONE_SERVER
def test_a_module_that_starts_a_worker_of_itself_does_not_go_on_for_ever(here, tmp_path):
    (tmp_path / "selfish.py").write_text(
        "from pytask import PyTask\nfrom pytask.testing import Worker\n"
        "app = PyTask()\nWorker('selfish:app', on=app).start()\n"
    )
    with pytest.raises(PyTaskError, match="a worker starts no other one"):
        Worker("selfish:app", on=here, path=str(tmp_path)).start()


@ON_ONE_SERVER
def test_a_worker_that_is_killed_leaves_its_tasks_to_others(server, here):
    with Worker("nodeapp:app", on=here, path=str(HERE)) as worker:
        here.helpers.start_task("sleep", seconds=600, task_id="x")
        server.wait_for_state("x", "RUNNING")
        worker.kill()
    assert server.state("x") == "RUNNING"
    wait_until(lambda: here.helpers.get_active_task_ids() == ["x"], "its claim stands")


# The plugin, as projects use it.


def run_pytest(folder: Path, *options: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGIN, *options, "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_the_examples_of_the_page_pass(tmp_path):
    page = DOCS / "testing.md"
    for block in blocks(page, "python"):
        (tmp_path / file_of(block)).write_text(block.text)
    for block in blocks(page, "toml"):
        (tmp_path / block.text.partition("\n")[0].removeprefix("# ")).write_text(block.text)
    count = len(list(tmp_path.glob("test_*.py")))
    assert count == 4
    assert "8 passed" in run_pytest(tmp_path)


def test_without_the_option_the_app_is_a_new_one(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_one(pytask_app, pytask_node):\n"
        "    @pytask_app.task(name='one')\n"
        "    def one(): return 1\n"
        "    one.start(); assert pytask_node.run_until_idle() == 1\n"
        "def test_two(pytask_app): assert pytask_app.tasks == {} and not pytask_app.redis.dbsize()\n"
    )
    assert "2 passed" in run_pytest(tmp_path)


def test_the_plugin_alone_imports_neither_gevent_nor_redis(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(): assert not {'gevent', 'redis', 'pytask.app'} & set(sys.modules)\n"
    )
    assert "1 passed" in run_pytest(tmp_path)


def test_a_wrong_option_is_told_in_words(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\npytask_app = nothing:app\n")
    (tmp_path / "test_it.py").write_text("def test_it(pytask_app): pass\n")
    assert "there is no module 'nothing'" in run_pytest(tmp_path, status=1)


def test_every_public_name_is_there():
    assert sorted(testing.__all__) == dir(testing)
    for name in testing.__all__:
        assert getattr(testing, name).__doc__
    with pytest.raises(AttributeError):
        _ = testing.nothing


def test_a_private_server_is_not_that_of_the_settings(server):
    raw = redis.Redis.from_url(server.url)
    raw.set("mine", 1)
    with EmbeddedServer() as private, on_server(app, private):
        app.redis.flushall()
    assert raw.get("mine") == b"1"
    raw.close()
