"""Where the time of one task goes: microseconds by step, in the node and in the server.

A node drains no-op tasks that are already queued, with Monitor and Cleanup, on a server of this program's own. In
the node a timer of the processor interrupts it a thousand times a second and notes which step is under way; the
server notes how long each script took. The shares are exact to a few per cent; the sum of the node is measured
without the timer.

    .venv/bin/python benchmarks/steps.py [--server redis] [--tasks 60000] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import harness
from scale.feeder import push

from pytask.store.scripts import script, script_names

TASKS = 60_000
LONG = 40  # microseconds: what takes less is not noted, most commands inside of scripts among them
OUTSIDE = ("LPUSH", "LTRIM", "LMOVE", "BLMOVE")  # commands that a node sends by themselves for its tasks

NODE = """
from gevent import monkey; monkey.patch_all()
import json, signal, sys, time
from collections import Counter
import gevent, redis
gevent.config.track_greenlet_tree = False
from pytask import PyTask, Task
from pytask.node.daemon import spare_the_collector

url, count, places = sys.argv[1], int(sys.argv[2]), Counter()

class Noop(Task):
    NAME = "noop"
    def start(self):
        pass

def note(_number, frame):
    path = []
    while frame is not None and len(path) < 12:
        path.append(frame.f_code.co_filename.rpartition("site-packages/")[2] + ":" + frame.f_code.co_name)
        frame = frame.f_back
    places[" < ".join(path)] += 1

client = redis.Redis.from_url(url, socket_timeout=60)
app = PyTask(url)
app.add_task(Noop)
node = app.make_node()
node.start()
spare_the_collector()
signal.signal(signal.SIGPROF, note)
if sys.argv[3] == "sample":
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
began, cpu = time.perf_counter(), time.process_time()
while int(client.hget("{new-task}:counts", "SUCCESS") or 0) < count:
    gevent.sleep(0.02)
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
signal.setitimer(signal.ITIMER_PROF, 0)
print(json.dumps({"seconds": seconds, "cpu": cpu, "places": places}))
node.stop()
"""

# Of a stack the innermost frame that a row knows decides, the earlier row first.
STEPS = (
    ("pack commands", ("servers.py:pack", "servers.py:<listcomp>")),
    ("read and parse replies", ("connection.py:read_response", "hiredis.py:", "servers.py:_read_all")),
    ("write to sockets", ("connection.py:send_packed_command", "servers.py:__init__", "links.py:")),
    ("a greenlet, and the run in it", ("runner.py:", "outcome.py:", "task.py:", "<string>:start")),
    ("claim", ("claims.py:claim", "intake.py:")),
    ("register claims", ("starter.py:register", "starter.py:_register", "run.py:add", "run.py:_occupy")),
    ("begin", ("starter.py:", "records.py:begin")),
    ("finish", ("report.py:", "records.py:finish")),
    ("end-task and release", ("closing.py:", "claims.py:release", "endings.py:push")),
    ("Cleanup", ("cleanup.py:", "endings.py:", "expiry.py:", "records.py:cleanup")),
    ("outboxes", ("outbox.py:",)),
    ("the store's client", ("client.py:", "servers.py:", "keys.py:")),
    ("greenlets: switch, start, end", ("hub.py:run",)),
)
REST = "anything else"


def step_of(path: str) -> str:
    """The step to which a stack belongs: its frames, innermost first, with ` < ` between."""
    for frame in path.split(" < "):
        place = frame.rpartition("/")[2]
        for name, rules in STEPS:
            if any(place == rule or (rule.endswith(":") and place.startswith(rule)) for rule in rules):
                return name
    return REST


def drain(server: harness.Server, count: int, how: str) -> dict[str, Any]:
    """One drain, in a process of its own: `seconds`, `cpu`, `places`. `how`: `plain` or `sample`."""
    with server.client() as client:
        client.flushall()
        push(client, "new-task", count)
        client.config_resetstat()
        client.slowlog_reset()
    output = harness.run_program([sys.executable, "-c", NODE, server.url, count, how], 300)
    found: dict[str, Any] = json.loads(output)
    return found


def node_steps(server: harness.Server, count: int) -> dict[str, float]:
    """Microseconds of the node's processor a task, by step."""
    plain = drain(server, count, "plain")["cpu"]
    shares: Counter[str] = Counter()
    for path, number in drain(server, count, "sample")["places"].items():
        shares[step_of(path)] += number
    total = sum(shares.values())
    return {name: 1e6 * plain / count * number / total for name, number in shares.most_common()}


def server_steps(server: harness.Server, count: int) -> dict[str, float]:
    """Microseconds of the server a task, by script and command; what is below 0.05 is left out."""
    names = {script(name).sha: name for name in script_names()}
    with server.client() as client:
        client.config_set("slowlog-max-len", 1_000_000)
        client.config_set("slowlog-log-slower-than", LONG)
        drain(server, count, "plain")
        client.config_set("slowlog-log-slower-than", -1)
        costs: Counter[str] = Counter()
        for entry in client.slowlog_get(1_000_000):
            words = entry["command"].split(b" ", 2)
            command = words[0].decode("ascii", "replace").upper()
            name = names.get(words[1].decode("ascii", "replace")) if command == "EVALSHA" else None
            if name or command in OUTSIDE:
                costs[name or command] += entry["duration"]
    rows = {name: total / count for name, total in costs.most_common()}
    return {name: cost for name, cost in rows.items() if cost >= 0.05}


def traffic(server: harness.Server, count: int) -> dict[str, float]:
    """What a drain sends a task: commands, those inside of scripts included, and bytes both ways."""
    with server.client() as client:
        seconds = drain(server, count, "plain")["seconds"]
        stats = client.info("stats")
    return {
        "tasks a second": count / seconds,
        "commands, those in scripts included": stats["total_commands_processed"] / count,
        "bytes to the server": stats["total_net_input_bytes"] / count,
        "bytes from the server": stats["total_net_output_bytes"] / count,
    }


def rows_of(title: str, rows: dict[str, float], sums: bool = True) -> Iterator[str]:
    """A table for people."""
    yield title
    for name, value in rows.items():
        yield f"  {name:36} {value:10,.2f}"
    if sums:
        yield f"  {'all':36} {sum(rows.values()):10,.2f}"


def main() -> None:
    """Print where the time goes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=TASKS, help="(%(default)s)")
    parser.add_argument("--server", choices=("best", "redis", "valkey"), default="valkey", help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    with harness.private_server(options.server) as server:
        found = {
            "node": node_steps(server, options.tasks),
            "server": server_steps(server, options.tasks),
            "traffic": traffic(server, options.tasks),
        }
    if options.json:
        print(json.dumps({"benchmark": "steps", **harness.machine(), **found}))
        return
    for line in rows_of("In the node, microseconds of processor a task:", found["node"]):
        print(line)
    for line in rows_of("In the server, microseconds a task:", found["server"]):
        print(line)
    for line in rows_of("A task:", found["traffic"], sums=False):
        print(line)


if __name__ == "__main__":
    main()
