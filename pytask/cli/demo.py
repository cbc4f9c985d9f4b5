"""`pytask demo`: an embedded server, a node, and five tasks that are made, reloaded and stopped the raw way.

The demo starts everything that it needs, and ends it again: the server is bound to this process by its lifeline,
and the node looks every second whether this process is still its parent. The node reads no settings, neither from
the environment nor from the current directory.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import click

from pytask import states, supervision
from pytask.cli.connect import Connection
from pytask.cli.escape import cut, escaped
from pytask.cli.inspect import POLL, complain
from pytask.cli.screen import Screen, make_screen
from pytask.cli.watching import Ends, Event, Feed
from pytask.embedded import EmbeddedServer
from pytask.helpers import PyTaskHelpers
from pytask.store.addresses import resolve_target
from pytask.store.store import Store
from pytask.version import __version__

LIMIT = 60.0  # seconds that the whole show may take
PAUSE = 0.7  # seconds between two tasks where a person looks on
GRACE = 1.0  # seconds that tasks of the node may go on at its end
STOP_SECONDS = 5.0  # until the node is killed
TURNS = 3  # of the loop, before it is reloaded, and again before it is stopped
FIRST_TEXT, NEW_TEXT = "first", "second"


class Made(NamedTuple):
    """A task of the show; its id is its name. `data` is JSON as it is typed, `state` what it has to become."""

    name: str
    data: str | None
    state: str


TASKS = (
    Made("hello", '{"text": "Not hello world"}', states.SUCCESS),
    Made("count", '{"total": 20}', states.SUCCESS),
    Made("fail", None, states.ERROR),
    Made("boom", None, states.EXCEPTION),
    Made("loop", f'{{"text": "{FIRST_TEXT}"}}', states.STOPPED),
)


@click.command(short_help="Watch real tasks run: server, node and tasks in one command.")
@click.option("--once", is_flag=True, help="End after the tasks, also in a terminal.")
@click.option("--no-color", is_flag=True, help="No colours. NO_COLOR in the environment says the same.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
def demo(once: bool, no_color: bool, as_json: bool) -> None:
    """Start a server and a node, make five tasks with raw Redis commands, and show their events.

    In a terminal it stays until Ctrl-C, so that you can join in from a second one. Server, node and tasks end with
    it. Exit status: 0 where every task ended as it should, 1 where one did not, 2 without the embedded server.
    """
    stay = sys.stdout.isatty() and not once
    screen = make_screen(as_json=as_json, color=not no_color)
    with noted_signals() as signals:
        status = Demo(screen, signals, pause=PAUSE if stay else 0.0, stay=stay).run()
        if signals:
            screen.say("\nServer and node have ended.")
    sys.exit(status)


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Signals that ask for the end are noted in a list and interrupt nothing, so that the end is orderly."""
    noted: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _frame: noted.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Leave(Exception):
    """The demo ends now, with this status; the text says why, `''` where that is plain."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


class NodeProcess:
    """The node of the demo: `pytask worker` in a process of its own, out of the terminal's Ctrl-C."""

    def __init__(self, url: str, home: Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._ids, write = os.pipe()
        command = [sys.executable, "-P", "-m", "pytask", "worker", "pytask.cli.demo_tasks:app"]
        command += ["--url", url, "--grace", str(GRACE)]
        self.process = subprocess.Popen(  # noqa: S603 - our own command line
            command,
            cwd=home,
            env=_environment(write),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[write],
            process_group=0,
        )
        os.close(write)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._ids)
        self._log.close()

    def read_id(self, timeout: float) -> str:
        """The node's id once it takes tasks; `''` where it did not get so far in `timeout` seconds."""
        if not select.select([self._ids], [], [], timeout)[0]:
            return ""
        return os.read(self._ids, 1000).decode().strip()

    def check(self) -> None:
        """Raises Leave where the node is gone, with the last line of its log."""
        status = self.process.poll()
        if status is None:
            return
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().split("\n")
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        raise Leave(1, f"the node has ended {how}: {escaped(lines[-1]) or 'it said nothing'}")


def _environment(descriptor: int) -> dict[str, str]:
    """This process's environment without settings, and with its import path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTASK_")}
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return {**kept, "PYTHONPATH": path, **supervision.environment(descriptor)}


class Demo:
    """The show. `signals` grows when somebody asks for the end; `pause` is in seconds, between two tasks.

    `stay`: go on after the show until a signal comes. `limit`: seconds for the show.
    """

    def __init__(
        self, screen: Screen, signals: list[int], *, pause: float = 0.0, stay: bool = False, limit: float = LIMIT
    ) -> None:
        self.screen = screen
        self.signals = signals
        self.pause = pause
        self.stay = stay
        self.deadline = time.monotonic() + limit
        self.limit = limit
        self.turns: Counter[str] = Counter()
        self.staying = False
        self.server: EmbeddedServer
        self.connection: Connection
        self.node: NodeProcess
        self.feed: Feed
        self.ends: Ends

    def run(self) -> int:
        """The exit status. Raises EmbeddedError where there is no embedded server."""
        with EmbeddedServer() as server, contextlib.ExitStack() as stack:
            self.server = server
            self.connection = _connect(server.url)
            stack.callback(self.connection.store.close)
            self.node = stack.enter_context(NodeProcess(server.url, Path(server.socket_path or "").parent))
            stack.enter_context(self.screen)
            try:
                self._begin()
                self.feed = stack.enter_context(contextlib.closing(Feed(self.connection, [], complain)))
                return self._show()
            except Leave as leave:
                if str(leave):
                    complain(f"demo: {leave}")
                return leave.status

    def _begin(self) -> None:
        """Wait for the node, and tell what there is."""
        info = self.connection.store.get_server_info()
        self.screen.say(f"pytask {__version__}: server, node and tasks in one command", "bold")
        self.screen.say(f"server  {info.name} {info.version}, as long as this runs")
        while not (node := self.node.read_id(POLL)):
            self._check()
        self.screen.say(f"node    {escaped(node)}, with Monitor and Cleanup")
        self.screen.paste(f"join    {command_lines(self.server)[0]}")
        self.screen.fact({"server": self.server.url, "node": node})

    def _show(self) -> int:
        self.ends = Ends(self.connection, [])
        self.screen.say("\nFive tasks, made as any Redis client can:")
        for made in TASKS:
            self._make(made)
            until = time.monotonic() + self.pause
            self._follow(lambda until=until: time.monotonic() >= until)  # type: ignore[misc]
        self._follow(lambda: not self.ends.open)
        flaws = self._tell()
        if flaws:
            raise Leave(1, "; ".join(flaws))
        if self.stay:
            self._stay()
        return 0

    def _make(self, made: Made) -> None:
        key = f"task-{made.name}"
        self._send("HSET", key, "task", made.name)
        if made.data is not None:
            self._send("HSET", key, "data", made.data)
        self._send("LPUSH", "new-task", made.name)
        self.ends.add(made.name)

    def _send(self, *words: str) -> None:
        """Show a command, and send it as it is shown."""
        self.screen.command(words)
        self.connection.store.client.execute(*words)

    def _follow(self, done: Callable[[], bool]) -> None:
        """Show events, and do what the show does on them, until it is done."""
        while not done():
            self._check()
            event = self.feed.get(POLL)
            if event is not None:
                self.screen.event(event)
                self.ends.note(event)
                self._act(event)
            for late in self.ends.check(self.feed.connects):
                self.screen.event(late)
            self.screen.tick()

    def _act(self, event: Event) -> None:
        """Reload the loop with new data after some turns, and stop it after some more."""
        if (event.id, event.name) != ("loop", "turn"):
            return
        text = str(event.data.get("text"))
        self.turns[text] += 1
        if self.turns[text] != TURNS:
            return
        if text == FIRST_TEXT:
            self._send("HSET", "task-loop", "data", f'{{"text": "{NEW_TEXT}"}}')
            self._send("PUBLISH", "task-loop-control", "reload")
        elif text == NEW_TEXT:
            self._send("PUBLISH", "task-loop-control", "stop")

    def _check(self) -> None:
        """Raises Leave where somebody asked for the end, the node is gone, or it all takes too long."""
        if self.signals:
            raise Leave(0 if self.staying else 128 + self.signals[0])
        self.node.check()
        if not _lives(self.server.pid):
            raise Leave(1, "the embedded server has ended")
        if time.monotonic() > self.deadline:
            flaws = self._flaws() or ["the node did not start"]
            raise Leave(1, f"not within {self.limit:g} s: {'; '.join(flaws)}")

    def _flaws(self) -> list[str]:
        """What is not as it should be, a sentence a task; empty where no task was made yet, too."""
        found = []
        for made in TASKS:
            state = self.connection.helpers.get_task(made.name, "state")
            if state != made.state:
                found.append(f"task {made.name} should be {made.state}, it is {escaped(state or 'not begun')}")
        return found

    def _tell(self) -> list[str]:
        """How every task ended; returns what is wrong with that."""
        self.screen.say("")
        rows: dict[str, Any] = {}
        for made in TASKS:
            record = self.connection.helpers.get_task(made.name) or {}
            rows[made.name] = record.get("state")
            last = escaped(record.get("output", "").strip().rpartition("\n")[2])
            self.screen.paste(f"{made.name:<6} {escaped(record.get('state', '')):<10} {cut(last, 100)}".rstrip())
        flaws = self._flaws()
        if not flaws:
            self.screen.say("All five ended as they should.", "bold green")
        self.screen.fact({"states": rows, "ok": not flaws})
        return flaws

    def _stay(self) -> None:
        self.screen.say("\nNow you, in a second terminal. Its events show here; Ctrl-C ends everything.", "bold")
        for line in command_lines(self.server)[1:]:
            self.screen.paste("  " + line)
        self.staying, self.deadline = True, float("inf")
        self._follow(lambda: False)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _connect(url: str) -> Connection:
    target = resolve_target(url)
    store = Store(target)
    return Connection(target, store, PyTaskHelpers(store))


def command_lines(server: EmbeddedServer) -> list[str]:
    """How to join in: first a line that reaches the server from anywhere, then lines to try."""
    work = [
        "HSET task-mine task loop",
        "LPUSH new-task mine",
        "PUBLISH task-mine-control stop",
    ]
    client = next((name for name in ("redis-cli", "valkey-cli") if shutil.which(name)), None)
    if client is not None:
        begin = f"{client} -s {shlex.quote(server.socket_path or '')}"
        return [begin, begin, *work]
    export = f"export PYTASK_REDIS_URL={shlex.quote(server.url)}"
    own = own_command()
    return [f"{own} watch -u {shlex.quote(server.url)}", export, *[f"{own} redis {words}" for words in work]]


def own_command() -> str:
    """How this program is called from a shell in any directory."""
    program = os.path.abspath(sys.argv[0])
    if os.path.basename(program) == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m pytask"
    found = shutil.which("pytask")
    if found and os.path.exists(program) and os.path.samefile(found, program):
        return "pytask"
    return shlex.quote(program)
