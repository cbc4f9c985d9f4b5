"""`pytask worker`: flags, signals, statuses, and a parent with several nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nursery
import pytest
import redis
from conftest import HERE, ON_ONE_SERVER, Events, wait_until


def run_worker(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return nursery.run(["worker", *options], environ={**os.environ, **environ})


def node_ids(server) -> set[bytes]:
    return set(server.redis.hkeys("{new-task}:nodes"))


def pid_of(node_id: bytes) -> int:
    return int(node_id.split(b":")[1])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


# What goes wrong at the start.


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("nodeapp:nothing", "nodeapp:nothing is no PyTask app; there is nodeapp:app"),
        (":app", "names no module"),
        ("conftest", "holds 0 apps"),
    ],
)
def test_an_app_that_cannot_be_found_is_one_line_and_status_2(where, says):
    ended = run_worker(where, "--path", str(HERE))
    assert ended.returncode == 2
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_module_that_fails_at_its_import_is_one_line_with_its_place(tmp_path):
    (tmp_path / "broken.py").write_text("x = 1\ny = 1 / 0\n")
    ended = run_worker("broken:app", "--path", str(tmp_path))
    assert ended.returncode == 2
    assert "ZeroDivisionError" in ended.stderr
    assert "broken.py:2" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("options", "environ", "says"),
    [
        (["--concurrency", "0"], {}, "concurrency"),
        (["--grace", "soon"], {}, "grace"),
        (["-q", "a b"], {}, "queue"),
        (["--namespace", "task-x"], {}, "namespace"),
        (["-u", "http://x"], {}, "redis://"),
        (["-u", "rediss://localhost:1/0?ssl_cert_reqs=bogus"], {}, "bogus"),
        (["-u", "redis://localhost:1/0", "--embedded"], {}, "not both"),
        ([], {"PYTASK_NODE_TIMEOUT": "never"}, "PYTASK_NODE_TIMEOUT"),
        (["-C", "/does/not/exist.toml"], {}, "exist.toml"),
        (["--pid-file", "/does/not/exist/pid"], {}, "pid-file"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(options, environ, says):
    ended = run_worker("nodeapp:app", "--path", str(HERE), *options, **environ)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_host_that_does_not_resolve_is_status_3_without_a_traceback():
    ended = run_worker(
        "nodeapp:app", "--path", str(HERE), "-u", "redis://nowhere.invalid", PYTASK_CONNECT_TIMEOUT="0.5"
    )
    assert ended.returncode == 3
    assert "no Redis at nowhere.invalid:6379/0" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_redis_at_the_start_is_status_3_within_connect_timeout():
    ended = run_worker(
        "nodeapp:app", "--path", str(HERE), "-u", "redis://:secret@127.0.0.1:1/0", PYTASK_CONNECT_TIMEOUT="0.5"
    )
    assert ended.returncode == 3
    assert "no Redis at 127.0.0.1:1/0" in ended.stderr
    assert "secret" not in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


# What it tells, and signals.


def test_the_start_tells_what_a_person_wants_to_know(start_node, server):
    node = start_node("-q", "default", "-q", "mail", "-c", "7", "-n", "blue")
    node.wait_for_log("keeps nothing on disk")
    text = node.text()
    for part in ("pytask 0.", "node blue:", "queues  default, mail; 7 tasks at once", "echo", "pytask/monitor"):
        assert part in text
    assert server.embedded.url.partition("://")[2].rpartition("/")[2] in text


def test_a_server_that_evicts_is_warned_of(start_node, server):
    server.redis.config_set("maxmemory", "1gb")
    server.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        start_node().wait_for_log("maxmemory-policy allkeys-lru may evict tasks")
    finally:
        server.redis.config_set("maxmemory-policy", "noeviction")
        server.redis.config_set("maxmemory", "0")


def test_log_lines_may_be_json(start_node, server):
    node = start_node("--log-format", "json", "--log-level", "info", ready=False)
    wait_until(lambda: "pytask/monitor" in node.text())
    server.create("F", "boom", '{"message": "one\\ntwo"}')
    server.wait_for_state("F", "EXCEPTION")
    wait_until(lambda: "ended as EXCEPTION" in node.text())
    rows = [json.loads(line) for line in node.text().splitlines()]
    assert {"time", "level", "logger", "pid", "message"} <= rows[0].keys()
    assert any(row["level"] == "warning" and "one\\ntwo" in row["message"] for row in rows)


def test_sigtstp_takes_no_new_tasks_until_sigcont(start_node, server):
    node = start_node()
    node.signal(signal.SIGTSTP)
    node.wait_for_log("no new tasks until SIGCONT")
    server.create("A", "noop")
    server.create("B", "noop")
    node.signal(signal.SIGUSR1)
    node.wait_for_log("stacks of all greenlets")
    assert server.state("A") in (None, "WAIT")
    node.signal(signal.SIGCONT)
    server.wait_for_state("A", "SUCCESS")
    server.wait_for_state("B", "SUCCESS")


def test_a_node_that_ends_takes_no_tasks_again_at_sigcont(start_node, server):
    """`timeout` sends both, SIGTERM and SIGCONT."""
    node = start_node()
    server.create("S", "sleep", '{"seconds": 2}')
    server.wait_for_state("S", "RUNNING")
    node.signal(signal.SIGTERM)
    node.wait_for_log("takes no more tasks")
    node.signal(signal.SIGCONT)
    server.create("A", "noop")
    assert node.process.wait(20) == 0
    assert server.state("S") == "SUCCESS"
    assert server.state("A") in (None, "WAIT")


def test_a_node_that_ends_does_not_start_anew_at_sighup(start_node, server):
    """A terminal that is closed sends it, and so may systemd, behind the signal to end."""
    node = start_node()
    server.create("S", "sleep", '{"seconds": 2}')
    server.wait_for_state("S", "RUNNING")
    node.signal(signal.SIGTERM)
    node.wait_for_log("takes no more tasks")
    node.signal(signal.SIGHUP)
    assert node.process.wait(20) == 0
    assert server.state("S") == "SUCCESS"


def test_sigusr1_writes_the_stacks_of_tasks_to_the_log(start_node, server):
    node = start_node()
    server.create("S", "sleep", '{"seconds": 600}')
    wait_until(lambda: server.redis.exists("runs:S"), "it has reached its start()")
    node.signal(signal.SIGUSR1)
    node.wait_for_log("stacks of all greenlets")
    node.wait_for_log("nodeapp.py")


def test_sighup_starts_the_program_anew(start_node, server, tmp_path):
    pid_file = tmp_path / "pid"
    node = start_node("--pid-file", str(pid_file))
    before = node_ids(server)
    assert pid_file.read_text().strip() == str(node.pid)
    node.signal(signal.SIGHUP)
    wait_until(lambda: len(node_ids(server)) == 1 and node_ids(server) != before, "a new node id")
    server.create("A", "noop")
    server.wait_for_state("A", "SUCCESS")
    assert node.terminate() == 0
    assert not pid_file.exists()


@ON_ONE_SERVER
def test_a_task_that_blocks_the_hub_is_named_and_its_node_is_not_declared_dead(start_node, server):
    node, other = start_node(), start_node()
    seen = Events(redis.Redis.from_url(server.url), "node-*")
    server.create("B", "block", '{"seconds": 13}')
    node_events = wait_until(lambda: (seen.read(), seen.seen)[1])
    event = json.loads(node_events[0][1])
    assert event["event"] == "blocked"
    assert "nodeapp.py" in event["data"]["stack"]
    server.wait_for_state("B", "SUCCESS", deadline=40)
    assert server.deliveries("B") == 0
    assert "is dead" not in node.text() + other.text()
    assert event["data"]["id"] == "B"
    assert "by code that does not yield, in task 'block' (id 'B'): start (" in node.text() + other.text()
    seen.close()


@ON_ONE_SERVER
def test_a_node_that_is_blocked_for_too_long_ends_itself_and_others_take_over(start_node, server):
    first = start_node(block_warning="0.5", block_timeout="2")
    server.create("B", "block-once", '{"seconds": 60}')
    assert first.wait(30) == 70
    assert "this node ends itself" in first.text()
    start_node()
    server.wait_for_state("B", "SUCCESS", deadline=40)
    assert server.field("B", "deliveries") == "1"


# A parent with several nodes.


@ON_ONE_SERVER
def test_a_parent_replaces_a_node_that_dies_and_puts_its_tasks_back_at_once(start_node, server):
    parent = start_node("-p", "2", "--grace", "0", node_timeout="60")
    wait_until(lambda: len(node_ids(server)) == 2)
    before = node_ids(server)
    parent.children = [pid_of(node_id) for node_id in before]
    server.create("S", "sleep", '{"seconds": 600}')
    server.wait_for_state("S", "RUNNING")
    victim = server.redis.hget("task-S", "node")
    os.kill(pid_of(victim), signal.SIGKILL)
    # node_timeout is 60 s, and the other's Monitor needs 2 s: only the parent can be this quick
    wait_until(lambda: server.redis.hget("task-S", "node") not in (None, victim), "it runs again", 10)
    wait_until(lambda: len(node_ids(server)) == 2 and victim not in node_ids(server), "a new node")
    parent.children += [pid_of(node_id) for node_id in node_ids(server)]
    assert "died (signal SIGKILL)" in parent.text()
    assert parent.terminate() == 1  # the task did not end within its grace
    wait_until(lambda: not any(map(alive, parent.children)))


@ON_ONE_SERVER
def test_a_parent_replaces_its_nodes_one_by_one_at_sighup(start_node, server):
    parent = start_node("-p", "2")
    wait_until(lambda: len(node_ids(server)) == 2)
    before = node_ids(server)
    parent.children = [pid_of(node_id) for node_id in before]
    server.create("F", "forever")
    server.wait_for_state("F", "RUNNING")
    parent.signal(signal.SIGHUP)
    wait_until(lambda: len(node_ids(server)) == 2 and not node_ids(server) & before, "two new nodes", 40)
    parent.children += [pid_of(node_id) for node_id in node_ids(server)]
    server.wait_for_state("F", "RUNNING")
    assert server.deliveries("F") == 0
    assert parent.terminate() == 0
    assert not node_ids(server)
    assert server.state("F") == "WAIT"


def test_a_parent_ends_at_a_signal_while_it_replaces_its_nodes(start_node, server):
    parent = start_node("-p", "2", "--grace", "600")
    wait_until(lambda: len(node_ids(server)) == 2)
    parent.children = [pid_of(node_id) for node_id in node_ids(server)]
    for name in "ABCD":
        server.create(name, "sleep", '{"seconds": 600}')
        server.wait_for_state(name, "RUNNING")
    parent.signal(signal.SIGHUP)
    parent.wait_for_log("takes no more tasks", 40)
    parent.children += [pid_of(node_id) for node_id in node_ids(server)]
    parent.signal(signal.SIGTERM)
    wait_until(lambda: parent.text().count("takes no more tasks") == 3, "all end")
    assert "a second signal" not in parent.text()
    assert parent.terminate() == 1  # the second signal; tasks had to be killed
    assert not node_ids(server)


@ON_ONE_SERVER
def test_the_nodes_of_a_killed_parent_end(start_node, server):
    parent = start_node("-p", "2")
    wait_until(lambda: len(node_ids(server)) == 2)
    parent.children = [pid_of(node_id) for node_id in node_ids(server)]
    parent.kill()
    wait_until(lambda: not any(map(alive, parent.children)), "they end too")


@ON_ONE_SERVER
def test_a_crash_loop_ends_the_parent_with_an_error(server, tmp_path):
    (tmp_path / "dies.py").write_text(
        "import os\nfrom pytask import PyTask\napp = PyTask()\n"
        "if 'PYTASK_INTERNAL_FD' in os.environ:\n    os._exit(9)\n"
    )
    ended = run_worker("dies:app", "--path", str(tmp_path), "-u", server.url, "-p", "2")
    assert ended.returncode == 1
    assert "giving up" in ended.stderr


def test_a_parent_ends_with_status_2_where_no_child_can_start(tmp_path):
    ended = run_worker(
        "nodeapp:app", "--path", str(HERE), "-p", "2", "-u", "redis://127.0.0.1:1", PYTASK_CONNECT_TIMEOUT="0"
    )
    assert ended.returncode == 3


def test_several_nodes_on_an_embedded_server_of_the_parent(tmp_path):
    log = (tmp_path / "log").open("wb")
    command = [
        sys.executable,
        "-m",
        "pytask",
        "worker",
        "nodeapp:app",
        "--path",
        str(HERE),
        "--embedded",
        "-p",
        "2",
    ]
    process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        text = tmp_path / "log"
        wait_until(lambda: text.read_text().count("local   ") == 2, "two nodes")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        log.close()


def test_a_node_that_is_paused_or_full_keeps_no_id_to_itself(start_node, server):
    """A blocking move that is under way when the node stops taking tasks must not swallow an id."""
    full = start_node("-c", "1", "-q", "default", "-q", "mail")
    server.redis.hset("task-M", mapping={"task": "sleep", "data": '{"seconds": 600}'})
    server.redis.lpush("new-task:mail", "M")
    server.wait_for_state("M", "RUNNING")
    server.create("A", "noop")
    wait_until(lambda: server.redis.llen("new-task") == 1, "the full node hands it back")
    paused = start_node()
    server.wait_for_state("A", "SUCCESS")
    paused.signal(signal.SIGTSTP)
    paused.wait_for_log("no new tasks")
    server.create("B", "noop")
    wait_until(lambda: not server.redis.keys("*:inbox:*"))
    assert server.redis.lrange("new-task", 0, -1) == [b"B"]
    start_node()
    server.wait_for_state("B", "SUCCESS")
    full.kill()


@ON_ONE_SERVER
def test_a_parent_outlives_nodes_that_a_task_kills(server, start_node):
    """More deaths than failed starts would be forgiven: the task is LOST in the end, and the nodes work."""
    parent = start_node("-p", "2")
    wait_until(lambda: node_ids(server))
    server.create("P", "poison", '{"seconds": 0}')
    for number in range(8):
        server.create(f"N{number}", "noop")
    server.wait_for_state("P", "LOST", deadline=60)
    server.create("after", "noop")
    server.wait_for_state("after", "SUCCESS")
    assert parent.terminate() == 0
