"""A proxy between clients and one server, which loses replies: of a script by its name, or of a plain command.

It follows the protocol in both directions, so that it knows which reply belongs to which command. What it loses
the server has done. A connection that subscribes is passed on as it is.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Self

from pytask.store.scripts import script, script_names

CLOSE, SILENCE = "close", "silence"
"""How a reply is lost: the connection is cut, or nothing comes on it any more."""

CHUNK = 65536


def end_of_value(data: bytes | bytearray, start: int) -> int | None:
    """Where the value of the Redis protocol (2) that begins at `start` ends; None where it is incomplete."""
    line = data.find(b"\r\n", start)
    if line < 0:
        return None
    kind, after = data[start : start + 1], line + 2
    if kind in b"+-:":
        return after
    size = int(data[start + 1 : line])
    if kind == b"$":
        end = after if size < 0 else after + size + 2
        return end if end <= len(data) else None
    for _ in range(max(size, 0)):
        found = end_of_value(data, after)
        if found is None:
            return None
        after = found
    return after


def words_of(command: bytes) -> list[bytes]:
    """The words of a command as clients send it, an array of strings."""
    words: list[bytes] = []
    place = command.find(b"\r\n") + 2
    while place < len(command):
        line = command.find(b"\r\n", place)
        size = int(command[place + 1 : line])
        words.append(command[line + 2 : line + 2 + size])
        place = line + 2 + size + 2
    return words


class Names:
    """What a command is called here: the name of its script, or its own name, in capitals, with its first key."""

    def __init__(self) -> None:
        scripts = [script(name) for name in script_names()]
        self._of_script = {code.sha.encode(): code.name for code in scripts}
        self._of_source = {code.source.encode(): code.name for code in scripts}

    def of(self, words: list[bytes]) -> str:
        """`claim`, or `BLMOVE new-task`."""
        verb = words[0].upper()
        if verb == b"EVALSHA":
            return self._of_script.get(words[1], "EVALSHA")
        if verb == b"EVAL":
            return self._of_source.get(words[1], "EVAL")
        return " ".join(word.decode("utf-8", "replace") for word in (verb, *words[1:2]))


class Proxy:
    """Listens on loopback, for one server. `lose` says of which commands the next reply is lost."""

    def __init__(self, port: int, how: str = CLOSE) -> None:
        self.upstream = port
        self.how = how
        self.seen: Counter[str] = Counter()  # replies by the name of their command, lost ones too
        self.lost: list[str] = []
        self._to_lose: Counter[str] = Counter()
        self._names = Names()
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for link in list(self._links):
            link.close()

    def lose(self, names: Iterable[str], count: int = 1) -> None:
        """Lose the next `count` replies of each of these commands."""
        with self._lock:
            for name in names:
                self._to_lose[name] += count

    @property
    def left(self) -> set[str]:
        """Commands whose reply is to be lost and has not come yet."""
        return {name for name, count in self._to_lose.items() if count > 0}

    def name_of(self, command: bytes) -> str:
        return self._names.of(words_of(command))

    def is_lost(self, name: str, reply: bytes) -> bool:
        """Is this reply lost? Refusals of an unknown digest are not: the command was not done."""
        with self._lock:
            if reply.startswith(b"-NOSCRIPT"):
                return False
            self.seen[name] += 1
            if self._to_lose[name] <= 0 or _is_empty(name, reply):
                return False
            self._to_lose[name] -= 1
            self.lost.append(name)
            return True

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.upstream))
                except OSError:
                    client.close()
                    continue
                link = _Link(self, client, server)
                self._links.add(link)
                link.start()

    def forget(self, link: _Link) -> None:
        self._links.discard(link)


def _is_empty(name: str, reply: bytes) -> bool:
    """Is this the reply of a move that took nothing? To lose it would show nothing."""
    if name == "claim":
        return not reply.startswith(b"*") or reply.startswith(b"*1\r\n")
    if name in ("take_ended",):
        return reply.startswith(b"*0\r\n")
    if name == "promote":
        return b":0\r\n" in reply
    return reply in (b"$-1\r\n", b"*-1\r\n")


class _Link:
    """One connection: two threads, one for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.names: deque[str] = deque()
        self.plain = False  # pub/sub: replies belong to no command
        self.silent = False

    def start(self) -> None:
        for work in (self._commands, self._replies):
            threading.Thread(target=self._guard, args=(work,), daemon=True).start()

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.proxy.forget(self)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError:
            pass
        finally:
            self.close()

    def _commands(self) -> None:
        """Name each command before the server can answer it."""
        data = bytearray()
        while part := self.client.recv(CHUNK):
            data += part
            begin = 0
            while begin < len(data) and (end := end_of_value(data, begin)) is not None:
                name = self.proxy.name_of(bytes(data[begin:end]))
                self.plain = self.plain or "SUBSCRIBE" in name
                self.names.append(name)
                begin = end
            self.server.sendall(data[:begin])
            del data[:begin]

    def _replies(self) -> None:
        data = bytearray()
        while part := self.server.recv(CHUNK):
            if self.plain:
                self.client.sendall(data + part)
                data.clear()
                continue
            data += part
            begin = 0
            while begin < len(data) and (end := end_of_value(data, begin)) is not None:
                if not self._pass_on(bytes(data[begin:end])):
                    return
                begin = end
            del data[:begin]

    def _pass_on(self, reply: bytes) -> bool:
        """Hand a reply to the client; False where it is lost, and the connection with it."""
        if self.proxy.is_lost(self.names.popleft(), reply):
            if self.proxy.how == CLOSE:
                return False
            self.silent = True
        if not self.silent:
            self.client.sendall(reply)
        return True
