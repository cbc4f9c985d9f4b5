"""A process that owns an embedded server, for tests that kill, interrupt or fork it.

`embedded_owner.py HOW [DIRECTORY]`: HOW is words joined by `+`: `patched`, `late` (patched after the start),
`thread` (a thread starts the server and ends), `pool` (a thread of gevent's own pool does), `child` (a
forked child stays behind), `gchild` (one forked by gevent), `cchild` (one that C code forked, unseen by
Python), `leave` (ends by itself at once).
Prints one JSON line, then waits for its end; SIGINT makes it report whether the server still answers.
"""

import ctypes
import json
import os
import signal
import sys
import time

how = sys.argv[1].split("+")
if "patched" in how:
    from gevent import monkey

    monkey.patch_all()

import threading  # noqa: E402

import redis  # noqa: E402

from pytask.embedded import EmbeddedServer  # noqa: E402

server = EmbeddedServer(sys.argv[2] if len(sys.argv) > 2 else None)


def start() -> None:
    if "pool" in how:
        import gevent

        gevent.get_hub().threadpool.apply(server.start)
    elif "thread" in how:
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
    else:
        server.start()


def fork() -> int:
    if "gchild" in how:
        import gevent

        child = gevent.fork()
    elif "cchild" in how:
        child = ctypes.PyDLL(None).fork()
    elif "child" in how:
        child = os.fork()
    else:
        return 0
    if child == 0:
        if "cchild" not in how:
            server.stop()  # not its own: stops nothing
        signal.pause()
    return child


def report(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


start()
if "late" in how:
    from gevent import monkey

    monkey.patch_all()
child = fork()
client = redis.Redis.from_url(server.url)
facts = {"pid": server.pid, "supervisor": server._supervisor, "url": server.url, "ping": client.ping()}
try:
    report(child=child, **facts)
    while "leave" not in how:
        time.sleep(1)
except KeyboardInterrupt:
    report(ping=client.ping())
client.close()
