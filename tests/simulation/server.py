"""The servers: the fake one in Lua, a real one behind the same face, and both at once to compare them.

A slot is what a Redis server of its own holds: a queue with its companions, the records, `end-task`. Each has its
own clock. The scripts are the product's, read from `pytask/store/lua`, unless a test patches their text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import redis
from lupa import lua51

from pytask.store import scripts as product

HERE = Path(__file__).parent
SLOTS = ("new-task", "new-task:mail", "task", "end-task", "node", "workflows", "services", "schedules")
QUEUE_SLOTS = (0, 1)
YOUNG = 4.0  # seconds: the death of a node counts against runs that are younger, as 60 do in the product
TASK_SLOT = 2
Words = Sequence[bytes]


class ServerError(Exception):
    """The server's error reply."""


@cache
def slot_of(key: bytes) -> int:
    """The number of the slot in which a key lies; the tests have two queues."""
    text = key.decode()
    tagged = re.match(r"\{([^}]*)\}", text)
    text = tagged[1] if tagged else text
    for number, name in enumerate(SLOTS):
        if text == name or (name in ("task", "node") and text.startswith(name + "-")):
            return number
    raise ServerError(f"a key that is in no table: {text}")


def load_scripts(patches: Mapping[str, Callable[[str], str]]) -> dict[str, str]:
    """The source of every script of the product."""
    sources = {name: product.script(name).source for name in product.script_names()}
    assert sources["reap"].count("60 * 1e6") == 1
    sources["reap"] = sources["reap"].replace("60 * 1e6", f"{YOUNG} * 1e6")
    return {name: patches[name](source) if name in patches else source for name, source in sources.items()}


class FakeServer:
    """`server.lua`. It is empty after `reset`."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._lua = lua51.LuaRuntime(encoding=None)
        self._lua.execute((HERE / "server.lua").read_bytes())
        names = self._lua.globals()
        for name, source in sources.items():
            names[b"define"](name.encode(), source.encode())
        self._evaluate, self._execute = names[b"evaluate"], names[b"execute"]
        self._keys, self._kind = names[b"keys"], names[b"kind"]
        self.reset, self.remember, self.restore = names[b"reset"], names[b"remember"], names[b"restore"]

    def evaluate(self, slot: int, name: str, keys: Words, args: Words, time: float) -> Any:
        return decode(self._evaluate(slot, name.encode(), _joined(keys), _joined(args), *_time(time)))

    def execute(self, slot: int, name: str, args: Words) -> Any:
        return decode(self._execute(slot, name.encode(), _joined(args)))

    def kind(self, slot: int, key: bytes) -> bytes:
        return bytes(self._kind(slot, key))

    def keys(self, slot: int) -> list[bytes]:
        return list(decode(self._keys(slot)))


def _time(time: float) -> tuple[bytes, bytes]:
    seconds = int(time)
    return b"%d" % seconds, b"%d" % int((time - seconds) * 1e6)


def _joined(words: Words) -> bytes:
    return b"\1" + b"\1".join(words) if words else b""


def decode(reply: bytes) -> Any:
    """A reply of `server.lua` as redis-py gives it. Raises ServerError."""
    if reply[:1] == b"A":
        items = reply.split(b"\1")
        return [_item(item) for item in items[1:]]
    return _item(reply)


def _item(item: bytes) -> Any:
    kind = item[:1]
    if kind == b"S":
        return item[1:]
    if kind == b"I":
        return int(item[1:])
    if kind == b"N":
        return None
    if kind == b"A":
        return [_item(inner) for inner in item.split(b"\2")[1:]]
    raise ServerError(item[1:].decode())


# What a real server cannot be told in another way: its time, and which fields HSCAN finds first.
PRELUDE = """
local real, seconds, micros = redis, table.remove(ARGV, 1), table.remove(ARGV, 1)
local function stood_in(send)
  return function(name, ...)
    if name == 'TIME' then return {seconds, micros} end
    if name ~= 'HSCAN' then return send(name, ...) end
    local words, fields, names, out = {...}, {}, {}, {}
    local all = send('HGETALL', words[1])
    for i = 1, #all, 2 do names[#names + 1] = all[i] fields[all[i]] = all[i + 1] end
    table.sort(names)
    for i = 1, math.min(#names, tonumber(words[4])) do
      out[#out + 1] = names[i]
      out[#out + 1] = fields[names[i]]
    end
    return {'0', out}
  end
end
local redis = {call = stood_in(real.call), pcall = stood_in(real.pcall)}
"""


class RealServer:
    """A real server, one for all slots."""

    def __init__(self, sources: Mapping[str, str], url: str) -> None:
        self.client = redis.Redis.from_url(url, protocol=2)
        self.client.response_callbacks.clear()  # replies as they come over the wire
        self._sources = {name: PRELUDE + source for name, source in sources.items()}
        self._digests = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in self._sources.items()}

    def reset(self) -> None:
        self.client.flushall()
        for source in self._sources.values():
            self.client.script_load(source)

    def evaluate(self, _slot: int, name: str, keys: Words, args: Words, time: float) -> Any:
        return self._send("EVALSHA", self._digests[name], len(keys), *keys, *_time(time), *args)

    def execute(self, slot: int, name: str, args: Words) -> Any:
        if name == "SCAN":
            pattern = args[2].decode()
            return [b"0", [key for key in self.keys(slot) if fnmatchcase(key.decode(), pattern)]]
        return self._send(name, *args)

    def kind(self, _slot: int, key: bytes) -> bytes:
        return bytes(self._send("TYPE", key))

    def keys(self, slot: int) -> list[bytes]:
        return sorted(key for key in self._send("KEYS", "*") if slot_of(key) == slot)

    def _send(self, *words: Any) -> Any:
        try:
            reply = self.client.execute_command(*words)
        except redis.ResponseError as error:
            raise ServerError(str(error)) from None
        if words[0] == "HGETALL":
            return _rows_in_order(reply)
        return sorted(reply) if words[0] in ("SMEMBERS", "HKEYS") else reply


READ = {
    b"hash": ("HGETALL",),
    b"list": ("LRANGE", b"0", b"-1"),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", b"0", b"-1", b"WITHSCORES"),
    b"string": ("GET",),
}


def contents(server: Any) -> dict[bytes, tuple[bytes, Any]]:
    """Everything that a server holds: type and content of each key."""
    found = {}
    for slot in range(len(SLOTS)):
        for key in server.keys(slot):
            kind = server.kind(slot, key)
            name, *rest = READ[kind]
            content = _in_order(name, server.execute(slot, name, [key, *rest]))
            found[key] = kind, _with_numbers(content) if kind == b"zset" else content
    return found


def _with_numbers(content: list[bytes]) -> list[tuple[bytes, float]]:
    """Members with their scores: servers spell one and the same number in several ways."""
    return [(member, float(score)) for member, score in zip(content[::2], content[1::2], strict=True)]


class ComparedServers:
    """The fake server, with a real one that is told the same. Raises AssertionError where they differ."""

    def __init__(self, fake: FakeServer, real: RealServer) -> None:
        self.fake, self.real = fake, real
        self.compared = 0
        self.kind, self.keys = fake.kind, fake.keys

    def reset(self) -> None:
        self.fake.reset()
        self.real.reset()

    def evaluate(self, slot: int, name: str, keys: Words, args: Words, time: float) -> Any:
        return self._compare(lambda server: server.evaluate(slot, name, keys, args, time), (name, keys, args))

    def execute(self, slot: int, name: str, args: Words) -> Any:
        return self._compare(lambda server: server.execute(slot, name, args), (name, args))

    def _compare(self, send: Callable[[Any], Any], what: Any) -> Any:
        self.compared += 1
        fake, real = (_reply(send, server, what[0]) for server in (self.fake, self.real))
        assert fake == real, f"{what}: the fake server answers {fake}, the real one {real}"
        if isinstance(fake, str):
            raise ServerError(fake)
        return fake

    def compare_contents(self) -> None:
        fake, real = contents(self.fake), contents(self.real)
        assert fake == real, {k: (fake.get(k), real.get(k)) for k in fake | real if fake.get(k) != real.get(k)}


def _reply(send: Callable[[Any], Any], server: Any, name: str) -> Any:
    """The reply; the first word of an error."""
    try:
        return _in_order(name, send(server))
    except ServerError as error:
        return str(error).split()[0]


def _rows_in_order(words: Words) -> list[bytes]:
    return [word for row in sorted(zip(words[::2], words[1::2], strict=True)) for word in row]


def _in_order(name: str, reply: Any) -> Any:
    """What has no order put in order, and scores with as many digits on every server."""
    if name == "beat":
        return [[*row[:2], *sorted(row[2:])] for row in reply]
    if name == "HSCAN":
        return [reply[0], _rows_in_order(reply[1])]
    if name in ("ZRANGE", "ZMSCORE"):
        return [b"%.6f" % float(word) if word and re.fullmatch(rb"[\d.]+", word) else word for word in reply]
    return reply
