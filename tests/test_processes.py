"""Nodes in processes of a program's own: `run(processes=...)` and `start_processes`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import HERE, Server, wait_until

from pytask import PyTask
from pytask.errors import ConfigurationError

ON_ONE_SERVER = pytest.mark.parametrize("running_server", ["valkey"], indirect=True)
HEAD = """
import os, sys
from time import sleep
from pytask import PyTask

print("the program runs")
app = PyTask(os.environ["URL"])

@app.task(name="where")
def where():
    return os.getpid()

@app.task(name="nap")
def nap(seconds=0.5):
    sleep(seconds)
    return os.getpid()
"""
Program = subprocess.Popen[str]
StartProgram = Callable[..., Program]


@pytest.fixture
def start_program(server: Server, tmp_path: Path) -> Iterator[StartProgram]:
    """Runs a script that begins with HEAD; it is killed at the end, and its nodes must end by themselves then."""
    started: list[Program] = []

    def start(text: str, head: str = HEAD) -> Program:
        file = tmp_path / f"program{len(started)}.py"
        file.write_text(head + text)
        environ = {**os.environ, "URL": server.url, "PYTHONPATH": str(HERE.parent)}
        with (tmp_path / f"program{len(started)}.log").open("w") as log:
            made = subprocess.Popen(
                [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=log, text=True, env=environ
            )
        started.append(made)
        return made

    yield start
    for program in started:
        program.kill()
        program.wait()
        program.stdout.close()
    wait_until(lambda: not pids(server), "the nodes of the programs have ended")


def pids(server: Server) -> set[int]:
    """The processes of all nodes that take tasks and live."""
    found = {int(node.split(b":")[1]) for node in server.redis.hkeys("{new-task}:nodes")}
    return {pid for pid in found if is_alive(pid)}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_nodes(server: Server, count: int) -> set[int]:
    return wait_until(lambda: len(found := pids(server)) == count and found, f"{count} nodes")


def test_a_program_without_a_guard_has_several_nodes_and_runs_once(server, app, start_program):
    program = start_program("app.run(processes=2)\nprint('the end')\n")
    nodes = wait_for_nodes(server, 2)
    handles = app.helpers.start_tasks([("nap", {"seconds": 1})] * 20)
    assert set(app.helpers.wait_all(handles, timeout=20)) <= nodes
    program.send_signal(signal.SIGTERM)
    assert program.wait(20) == 0
    assert program.stdout.read() == "the program runs\nthe end\n"
    assert not pids(server)


@ON_ONE_SERVER
def test_a_function_that_was_imported_by_its_name_does_not_block_a_node(server, app, start_program):
    start_program("app.run(processes=1)\n")
    wait_for_nodes(server, 1)
    handles = app.helpers.start_tasks([("nap", {"seconds": 30})] * 10)
    wait_until(lambda: [handle.state() for handle in handles] == ["RUNNING"] * 10, "all run at a time")
    for handle in handles:
        handle.stop()
    wait_until(lambda: [handle.state() for handle in handles] == ["STOPPED"] * 10, "all are stopped")


@ON_ONE_SERVER
def test_a_node_that_is_killed_is_replaced_and_its_task_runs_again(server, app, start_program):
    program = start_program("app.run(processes=2)\n")
    nodes = wait_for_nodes(server, 2)
    handle = app.helpers.start_task("nap", seconds=3)
    wait_until(lambda: handle.state() == "RUNNING", "it runs")
    victim = int(handle.record()["node"].split(":")[1])
    os.kill(victim, signal.SIGKILL)
    assert handle.get(timeout=20) != victim
    assert handle.record()["deliveries"] == "1"
    wait_until(lambda: len(pids(server) - {victim}) == 2, "it is replaced")
    assert victim in nodes
    program.send_signal(signal.SIGINT)
    assert program.wait(20) == 0


@ON_ONE_SERVER
@pytest.mark.parametrize(
    "how", ["app.run(burst=True)", "app.run(2, burst=True)", "app.start_processes(2, burst=True).wait()"]
)
def test_a_program_goes_on_when_its_nodes_have_nothing_left_to_do(how, server, app, start_program):
    handles = app.helpers.start_tasks([("nap", {"seconds": 0.1})] * 20)
    program = start_program(f"{how}\nprint('the end')\n")
    assert program.wait(40) == 0
    assert program.stdout.read() == "the program runs\nthe end\n"
    assert {handle.state() for handle in handles} == {"SUCCESS"}


@ON_ONE_SERVER
def test_nodes_beside_a_program_end_with_it(server, start_program):
    program = start_program(
        "nodes = app.start_processes(2)\n"
        "print(len({app.helpers.start_task('where').get(20) for _ in range(10)}) in (1, 2))\n"
        "print(nodes.is_alive(), nodes.wait(0.01))\n"
    )
    assert program.wait(40) == 0
    assert program.stdout.read() == "the program runs\nTrue\nTrue None\n"
    assert not pids(server)


@ON_ONE_SERVER
def test_nodes_beside_a_program_that_is_killed_end_too(server, start_program):
    program = start_program("nodes = app.start_processes(2)\nsleep(1000)\n")
    nodes = wait_for_nodes(server, 2)
    program.kill()
    wait_until(lambda: not any(map(is_alive, nodes)), "they have ended")


@ON_ONE_SERVER
def test_a_program_waits_for_nodes_that_are_no_daemons(server, start_program):
    program = start_program("nodes = app.start_processes(1, daemon=False)\nprint(nodes.pid, flush=True)\n")
    wait_for_nodes(server, 1)
    assert program.stdout.readline() == "the program runs\n"
    supervisor = int(program.stdout.readline())
    assert program.poll() is None
    os.kill(supervisor, signal.SIGTERM)
    assert program.wait(20) == 0


@ON_ONE_SERVER
def test_nodes_are_stopped_and_started_again(server, start_program):
    program = start_program(
        "for _ in range(2):\n"
        "    nodes = app.start_processes(1)\n"
        "    print(app.helpers.start_task('where').get(20) != os.getpid())\n"
        "    print(nodes.stop(20), nodes.is_alive())\n"
    )
    assert program.wait(60) == 0
    assert program.stdout.read() == "the program runs\n" + "True\n0 False\n" * 2


@ON_ONE_SERVER
def test_nodes_that_are_stopped_while_they_start_have_ended_clean(server, start_program):
    program = start_program(
        "for seconds in (0, 0.02, 0.05, 0.1, 0.2):\n"
        "    nodes = app.start_processes(2)\n"
        "    sleep(seconds)\n"
        "    print(nodes.stop(20))\n"
    )
    assert program.wait(60) == 0
    assert program.stdout.read() == "the program runs\n" + "0\n" * 5


@ON_ONE_SERVER
def test_a_program_that_asks_twice_for_the_end_of_its_nodes_does_not_skip_their_grace(server, start_program):
    program = start_program(
        "nodes = app.start_processes(1)\n"
        "handle = app.helpers.start_task('nap', seconds=3)\n"
        "while handle.state() != 'RUNNING':\n"
        "    sleep(0.01)\n"
        "print(nodes.stop(0.5), nodes.stop(20), handle.state())\n"
    )
    assert program.wait(60) == 0
    assert program.stdout.read() == "the program runs\nNone 0 SUCCESS\n"


@ON_ONE_SERVER
@pytest.mark.parametrize("call", ["app.start_processes(1)", "app.run(processes=1)", "engine.start_listening()"])
def test_the_warning_about_late_patches_names_the_line_of_the_program(call, server, start_program, tmp_path):
    engine = "from pytask.compat.taskit import TaskEngine\nengine = TaskEngine(['a'], redis=app.settings.redis)\n"
    program = start_program(f"{engine}{call}  # here\n")
    wait_until(lambda: "RuntimeWarning" in (log := (tmp_path / "program0.log").read_text()) and "# here" in log)
    assert re.match(r".*/program0.py:\d+: RuntimeWarning", (tmp_path / "program0.log").read_text())
    program.send_signal(signal.SIGTERM)


@ON_ONE_SERVER
@pytest.mark.parametrize("how", ["daemon=True)\nsleep(1000)", "daemon=False)"])
def test_ctrl_c_ends_the_nodes_that_a_program_waits_for_and_the_second_one_skips_the_grace(
    how, server, app, start_program, tmp_path
):
    program = start_program(f"app.start_processes(1, {how}\n")
    nodes = wait_for_nodes(server, 1)
    handle = app.helpers.start_task("nap", seconds=600)
    wait_until(lambda: handle.state() == "RUNNING", "it runs")
    program.send_signal(signal.SIGINT)
    wait_until(lambda: "takes no more tasks" in (tmp_path / "program0.log").read_text(), "they end")
    assert all(map(is_alive, nodes))
    program.send_signal(signal.SIGINT)
    program.wait(20)
    assert not any(map(is_alive, nodes))
    assert handle.state() == "WAIT"


@ON_ONE_SERVER
def test_a_thread_may_have_nodes_too(server, start_program):
    program = start_program(
        "import threading\n"
        "threading.Thread(target=app.run, args=(1,), daemon=True).start()\n"
        "print(app.helpers.start_task('where').get(20) != os.getpid())\n"
    )
    assert program.wait(40) == 0
    assert program.stdout.read() == "the program runs\nTrue\n"
    assert not pids(server)


@ON_ONE_SERVER
def test_nodes_are_not_copies_of_a_program_in_the_middle_of_an_import(server, tmp_path, start_program):
    """A copy has that module as it is at the moment, for ever."""
    (tmp_path / "slow.py").write_text(
        "import __main__, time\n__main__.importing.set()\ntime.sleep(1)\nvalue = 5\n"
    )
    program = start_program(
        "import threading\n"
        "importing = threading.Event()\n"
        "@app.task(name='late')\n"
        "def late():\n"
        "    from slow import value\n"
        "    return value\n"
        "def run():\n"
        "    importing.wait()\n"
        "    app.run(1)\n"
        "threading.Thread(target=run, daemon=True).start()\n"
        "import slow\n"
        "print(app.helpers.start_task('late').get(20))\n"
    )
    assert program.wait(40) == 0
    assert program.stdout.read() == "the program runs\n5\n"


@ON_ONE_SERVER
@pytest.mark.parametrize("call", ["app.run(processes=2)", "app.start_processes(2).wait()"])
def test_a_program_that_has_patched_has_nodes_as_well(call, server, app, start_program):
    program = start_program(call + "\n", "from gevent import monkey\nmonkey.patch_all()\n" + HEAD)
    nodes = wait_for_nodes(server, 2)
    assert app.helpers.start_task("where").get(20) in nodes
    program.send_signal(signal.SIGINT)
    program.wait(20)
    wait_until(lambda: not any(map(is_alive, nodes)), "they have ended")


TICKING = """
from gevent import monkey
monkey.patch_all()
import gevent, os, sys

def tick():
    try:
        while True:
            gevent.sleep(0.01)
            with open(sys.argv[0] + ".ticks", "a") as file:
                file.write(f"{os.getpid()}\\n")
    finally:
        with open(sys.argv[0] + ".ends", "a") as file:
            file.write(f"{os.getpid()}\\n")

ticker = gevent.spawn(tick)
gevent.sleep(0.1)
"""


@ON_ONE_SERVER
@pytest.mark.parametrize("how", ["{}", "gevent.spawn(lambda: {}).join()"])
def test_the_greenlets_of_a_program_run_there_alone(how, server, app, start_program, tmp_path):
    """Of a loop that polls there is to be one, not one in each node."""
    program = start_program(how.format("app.start_processes(2).wait()") + "\n", TICKING + HEAD)
    nodes = wait_for_nodes(server, 2)
    assert app.helpers.start_task("nap").get(20) in nodes
    os.kill(min(nodes), signal.SIGTERM)
    wait_until(lambda: len(pids(server) - {min(nodes)}) == 2, "it is replaced")
    assert program.poll() is None
    assert set((tmp_path / "program0.py.ticks").read_text().split()) == {str(program.pid)}
    assert not (tmp_path / "program0.py.ends").exists()


@ON_ONE_SERVER
def test_signals_to_nodes_do_not_reach_the_asyncio_loop_that_started_them(server, start_program):
    program = start_program(
        "import asyncio, signal\n"
        "async def main():\n"
        "    got = []\n"
        "    for number in (signal.SIGTERM, signal.SIGHUP):\n"
        "        asyncio.get_running_loop().add_signal_handler(number, got.append, number)\n"
        "    nodes = app.start_processes(1)\n"
        "    handle = app.helpers.start_task('where')\n"
        "    print(await asyncio.to_thread(handle.get, 20) != os.getpid())\n"
        "    print(await asyncio.to_thread(nodes.stop, 20), got)\n"
        "asyncio.run(main())\n"
    )
    assert program.wait(60) == 0
    assert program.stdout.read() == "the program runs\nTrue\n0 []\n"


@ON_ONE_SERVER
def test_the_embedded_server_is_that_of_the_program(server, start_program):
    program = start_program(
        "app = PyTask('embedded')\n"
        "app.add_task(where.task)\n"
        "app.start_processes(2)\n"
        "print(app.helpers.start_task('where').get(20) != os.getpid())\n"
    )
    assert program.wait(60) == 0
    assert program.stdout.read() == "the program runs\nTrue\n"


@ON_ONE_SERVER
def test_nodes_end_with_the_program_whose_server_they_use_daemons_or_not(server, start_program, tmp_path):
    program = start_program(
        "app = PyTask('embedded')\n"
        "app.add_task(where.task)\n"
        "app.start_processes(1, daemon=False)\n"
        "print(app.helpers.start_task('where').get(20) != os.getpid(), flush=True)\n"
    )
    assert program.stdout.readline() == "the program runs\n"
    assert program.stdout.readline() == "True\n"
    program.kill()
    log = tmp_path / "program0.log"
    wait_until(lambda: "the process that started the nodes is gone" in log.read_text(), log.read_text)


@ON_ONE_SERVER
def test_nodes_that_cannot_start_end_the_program_with_a_status(server, start_program, tmp_path):
    program = start_program("app = PyTask('redis://127.0.0.1:1', connect_timeout=0.1)\napp.run(processes=2)\n")
    assert program.wait(40) == 3
    assert "no Redis at 127.0.0.1:1" in (tmp_path / "program0.log").read_text()


MISSES_THE_FIRST = "signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))"


@pytest.mark.parametrize("first", ["pass", MISSES_THE_FIRST])
def test_a_signal_that_comes_while_the_nodes_start_ends_the_program_clean(start_program, first):
    program = start_program(
        "import signal\n"
        "from pytask.processes import Parent, by_fork\n"
        f"def start():\n    {first}\n    print('it starts', flush=True)\n    sleep(600)\n"
        "sys.exit(Parent(1, by_fork(start), print).run())\n"
    )
    assert [program.stdout.readline() for _ in range(2)] == ["the program runs\n", "it starts\n"]
    program.send_signal(signal.SIGINT)
    assert program.wait(20) == 0


def test_a_signal_is_heard_while_the_tasks_of_a_dead_node_cannot_be_put_back(start_program):
    program = start_program(
        "import signal\n"
        "from pytask import processes, supervision\n"
        "processes.REAP_SECONDS = 0.2\n"
        "def told(*_):\n    print('told to end', flush=True)\n    sys.exit(0)\n"
        "def start():\n"
        "    signal.signal(signal.SIGTERM, told)\n"
        "    supervision.tell(f'node:{os.getpid()}:aa')\n"
        "    os.write(1, f'{os.getpid()}\\n'.encode())\n"
        "    sleep(1000)\n"
        "def reap(label):\n    print('put back', label, flush=True)\n    sleep(1000)\n"
        "sys.exit(processes.Parent(2, processes.by_fork(start), reap).run())\n"
    )
    program.stdout.readline()
    first, second = (int(program.stdout.readline()) for _ in range(2))
    os.kill(first, signal.SIGKILL)
    assert program.stdout.readline() == f"put back node:{first}:aa\n"
    program.send_signal(signal.SIGTERM)
    assert program.wait(20) == 0
    assert program.stdout.read() == "told to end\n"  # and no other child was started meanwhile
    assert not is_alive(second)


@pytest.mark.parametrize("count", [0, -1, 257, 1.5, True, "2"])
def test_a_number_of_processes_that_is_none_is_refused(count):
    app = PyTask()
    with pytest.raises(ConfigurationError, match="processes is a number from 1 to 256"):
        app.start_processes(count)
    with pytest.raises(ConfigurationError, match="processes is a number from 1 to 256"):
        app.run(processes=count)
