"""`pytask orchestrate`: several nodes that run one Python file, found in it or run as a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nursery
import pytest
import redis
from conftest import ON_ONE_SERVER, NodeProcess, Server, wait_until

from pytask import PyTask
from pytask.__main__ import runs_a_node
from pytask.cli.files import find_app
from pytask.cli.orchestrate import url_of
from pytask.embedded import EmbeddedServer
from pytask.errors import ConfigurationError

APP = """
import os, sys
from time import sleep
from pytask import PyTask

task_app = PyTask()
patched = "gevent" in sleep.__module__

@task_app.task
def where(seconds=0):
    sleep(seconds)
    told = {name: os.environ.get(name) for name in ("WORKER_ID", "REDIS_HOST", "REDIS_PORT", "REDIS_URL")}
    return {**told, "patched": patched, "argv": sys.argv}
"""

PROGRAM = """
import os, sys
from pytask import PyTask

def run():
    task_app = PyTask()

    @task_app.task(name="hello")
    def hello():
        return [__name__, os.environ["WORKER_ID"], sys.argv[1:]]

    task_app.run()

if __name__ == "__main__":
    run()
"""


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[EmbeddedServer]:
    """A server on a port, with a password."""
    with EmbeddedServer(tcp=True) as running:
        yield running


@pytest.fixture
def guarded(guarded_server: EmbeddedServer) -> Iterator[Server]:
    with redis.Redis.from_url(guarded_server.url) as client:
        client.flushall()
        yield Server(guarded_server.url, client, guarded_server)


@pytest.fixture
def orchestrate(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts the command: `orchestrate("-n", "2", "-q", url, file)`. It ends with the test."""
    started: list[NodeProcess] = []

    def start(*words: str, **environ: str) -> NodeProcess:
        log = tmp_path / f"parent-{len(started)}.log"
        with log.open("wb") as out:
            process = nursery.start(
                ["orchestrate", *words], stdout=out, stderr=out, environ={**os.environ, **environ}
            )
        started.append(NodeProcess(process, log))
        return started[-1]

    yield start
    for parent in started:
        parent.signal(signal.SIGTERM)
        parent.wait()


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return nursery.run(["orchestrate", *words], environ={**os.environ, **environ})


def write(folder: Path, text: str, name: str = "farm.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def nodes(server: Server, queue: str = "new-task") -> dict[str, int]:
    """The process ids of the nodes, by the names that begin their ids."""
    labels = [label.decode().split(":") for label in server.redis.hkeys(f"{{{queue}}}:nodes")]
    return {name: int(pid) for name, pid, _ in labels}


# What it does.


def test_the_nodes_of_a_file_have_names_of_their_own_and_a_killed_one_is_replaced(orchestrate, guarded, tmp_path):
    """`node_timeout` is 60 s: only the parent knows so soon that a node is dead."""
    file = write(tmp_path, APP)
    parent = orchestrate("-n", "2", "-q", guarded.url, file, PYTASK_NODE_TIMEOUT="60")
    wait_until(lambda: len(nodes(guarded)) == 2, parent.text)
    first = nodes(guarded)
    assert sorted(first) == ["worker_1", "worker_2"]
    with_password = guarded.url.split("@")[0].rpartition(":")[2]
    for pid in first.values():
        assert with_password not in Path(f"/proc/{pid}/cmdline").read_text()

    guarded.create("L", "farm.where", '{"seconds": 600}')
    guarded.wait_for_state("L", "RUNNING")
    victim = guarded.field("L", "node")
    os.kill(int(victim.split(":")[1]), signal.SIGKILL)
    wait_until(lambda: guarded.field("L", "node") != victim, "it runs again", 10)
    assert guarded.deliveries("L") == 1
    wait_until(lambda: len(nodes(guarded)) == 2 and nodes(guarded) != first, "another in its place")
    assert sorted(nodes(guarded)) == ["worker_1", "worker_2"]

    guarded.create("W", "farm.where")
    guarded.wait_for_state("W", "SUCCESS")
    told = PyTask(guarded.url).helpers.get_result("W")
    assert told["WORKER_ID"] in ("worker_1", "worker_2")
    assert (told["REDIS_HOST"], told["REDIS_URL"]) == ("127.0.0.1", guarded.url)
    assert told["REDIS_PORT"] in guarded.url
    assert told["patched"]
    assert told["argv"] == [file]  # as `python farm.py` has it
    guarded.redis.publish("task-L-control", "stop")
    guarded.wait_for_state("L", "STOPPED")
    assert parent.terminate() == 0
    assert not nodes(guarded)
    assert with_password not in parent.text()


@ON_ONE_SERVER
def test_a_file_without_an_app_is_run_as_a_program(orchestrate, server, tmp_path):
    file = write(tmp_path, PROGRAM)
    parent = orchestrate("-n", "1", "-q", server.url, "--namespace", "farm", "-l", "WARNING", file)
    server.redis.hset("farm:task-H", "task", "hello")
    server.redis.lpush("farm:new-task", "H")
    wait_until(lambda: server.redis.hget("farm:task-H", "output") == b'["__main__","worker_1",[]]', parent.text)
    parent.signal(signal.SIGINT)
    assert parent.wait() == 0
    assert "keeps nothing on disk" in parent.text()
    assert "INFO" not in parent.text()


@ON_ONE_SERVER
def test_a_program_that_is_a_node_while_it_is_imported_is_one_node(orchestrate, server, tmp_path):
    text = PROGRAM.replace('if __name__ == "__main__":\n    run()', "run()")
    parent = orchestrate("-n", "1", "-q", server.url, write(tmp_path, text))
    server.create("H", "hello")
    server.wait_for_state("H", "SUCCESS")
    assert len(nodes(server)) == 1
    assert parent.terminate() == 0
    assert parent.text().count("pytask.node: pytask ") == 1


@ON_ONE_SERVER
def test_a_queue_name_goes_before_that_of_the_file(orchestrate, server, tmp_path):
    parent = orchestrate("-n", "1", "-q", server.url, "--queue-name", "mail", write(tmp_path, APP))
    server.redis.hset("task-M", "task", "farm.where")
    server.redis.lpush("new-task:mail", "M")
    server.wait_for_state("M", "SUCCESS")
    assert nodes(server, "new-task:mail")
    assert parent.terminate() == 0


# What is found in a file.


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PyTask | None]:
    """`find(text, name)`: the app in a file with this text."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)

    def find(text: str, name: str = "", file: str = "found_app.py") -> PyTask | None:
        for module in set(sys.modules) - before:
            del sys.modules[module]
        return find_app(write(tmp_path, text, file) + (f":{name}" if name else ""), None)

    yield find
    for module in set(sys.modules) - before:
        del sys.modules[module]


HOLDER = """
from pytask import PyTask
class Kit:
    def __init__(self, name): self.app = PyTask(namespace=name)
    def pytask_app(self): return self.app
one = Kit("one")
"""


def test_an_app_is_found_and_so_is_what_has_one(find):
    assert find("import pytask\nmine = pytask.PyTask(namespace='mine')\n").settings.namespace == "mine"
    assert find(HOLDER).settings.namespace == "one"
    assert find(HOLDER + "same = one.app\nalso = one\n").settings.namespace == "one"


def test_what_has_no_app_is_not_taken_for_one(find):
    assert find("from pytask import PyTask\n" + HOLDER.replace('one = Kit("one")', "kind = Kit")) is None
    assert find(HOLDER.replace("return self.app", "return None")) is None


def test_several_apps_are_named_and_one_is_chosen_by_its_name(find):
    two = HOLDER + 'two = Kit("two")\n'
    with pytest.raises(ConfigurationError, match=r"holds 2 apps: write FILE:NAME; there is .*py:one, .*py:two"):
        find(two)
    assert find(two, "two").settings.namespace == "two"
    with pytest.raises(ConfigurationError, match=r"found_app.py:three is no app .* there is .*py:one, "):
        find(two, "three")


def test_modules_beside_the_file_can_be_imported(find, tmp_path):
    write(tmp_path, "from pytask import PyTask\napp = PyTask(namespace='beside')\n", "beside_it.py")
    assert find("from beside_it import app\n").settings.namespace == "beside"


def test_only_a_child_is_a_node():
    assert not runs_a_node(["orchestrate", "-n", "1", "farm.py"])


# What goes wrong.


@pytest.mark.parametrize(
    ("options", "text", "says"),
    [
        ([], None, "there is no file"),
        ([], "def f(:\n", "is no Python: invalid syntax, line 1"),
        ([], "x = '\0'", "is no Python"),
        (["-n", "0"], APP, "0 is not in the range"),
        (["-n", "many"], APP, "'many' is not a valid integer"),
        (["-q", "local host:1"], APP, "-q is host:port"),
        (["-q", "localhost:port"], APP, "-q is host:port"),
        (["-q", "localhost:99999"], APP, "-q is host:port"),
        (["-q", ":secret@localhost"], APP, "-q is host:port"),
        (["-q", "http://:secret@x"], APP, "a Redis URL begins with"),
        (["-q", "embedded"], APP, "the nodes share one Redis"),
        (["--namespace", "task-x"], APP, "namespace"),
        (["--grace", "soon"], APP, "grace"),
        (["--workers", "1", "--what"], APP, "No such option"),
    ],
)
def test_what_is_wrong_before_a_node_starts_is_told_once_with_status_2(options, text, says, tmp_path):
    file = str(tmp_path / "none.py") if text is None else write(tmp_path, text)
    ended = run(*options, file)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("x = 1\ny = 1 / 0\n", "farm.py", "cannot be imported: ZeroDivisionError: division by zero (", ),
        ("x = 1\n", "farm.py", "ended as a program without being a node"),
        ("if __name__ == '__main__':\n    raise OSError('no disk')\n", "farm.py", "has failed: OSError: no disk"),
        ("if __name__ == '__main__':\n    raise SystemExit\n", "farm.py", "without being a node"),
        ("raise SystemExit('no key')\n", "farm.py", "ends itself (no key) while it is imported"),
        ("x = 1\n", "logging.py", "has the name of another module, logging: rename it"),
        (HOLDER + 'two = Kit("two")\n', "farm.py", "holds 2 apps"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_ends_the_parent_with_status_2(text, name, says, tmp_path):
    ended = run("-n", "1", "-q", "localhost:1", write(tmp_path, text, name))
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_app_with_a_server_of_its_own_is_asked_where_redis_is(tmp_path):
    ended = run("-n", "1", write(tmp_path, "from pytask import PyTask\napp = PyTask('embedded')\n"))
    assert ended.returncode == 2, ended.stderr
    assert "starts a server of its own in each node: say -q where Redis is" in ended.stderr


def test_no_redis_at_the_start_is_status_3(tmp_path):
    file = write(tmp_path, APP)
    ended = run("-n", "2", "-q", "redis://:secret@127.0.0.1:1", file, PYTASK_CONNECT_TIMEOUT="0")
    assert ended.returncode == 3, ended.stderr
    assert "no Redis at 127.0.0.1:1/0" in ended.stderr
    assert "secret" not in ended.stderr


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:6379", "redis://localhost:6379"),
        ("redis.example", "redis://redis.example"),
        ("[::1]:7000", "redis://[::1]:7000"),
        ("rediss://x:1/2", "rediss://x:1/2"),
        ("redis+cluster://a:1,b:2", "redis+cluster://a:1,b:2"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_host_and_port_or_a_url(given, url):
    assert url_of(given) == url
