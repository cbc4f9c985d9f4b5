"""Drain: no-op tasks that are already queued, through one node, beside the bare floor, in the same run.

Each task has its whole life: claim, begin, a greenlet, finish with hash, event and output, `end-task`, release,
and Cleanup lets its record expire; Monitor and Cleanup run. A round is one drain by the floor program and one by
a node, each a fresh process on the same empty server; the ratio is node over floor of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TASKS, ROUNDS = 20_000, 5

NODE = """
from gevent import monkey; monkey.patch_all()
import sys, time
import gevent, redis
gevent.config.track_greenlet_tree = False
sys.path.insert(0, sys.argv[3])
from pytask import PyTask, Task

url, count = sys.argv[1], int(sys.argv[2])

class Noop(Task):
    NAME = "noop"
    def start(self):
        pass

client = redis.Redis.from_url(url)
client.flushall()
app = PyTask(url)
app.add_task(Noop)
pipe = client.pipeline(transaction=False)
for start in range(0, count, 500):
    ids = [f"{n:032x}" for n in range(start, min(start + 500, count))]
    for task_id in ids:
        pipe.execute_command("HSET", "task-" + task_id, "task", "noop", "data", "{}")
    pipe.execute_command("LPUSH", "new-task", *ids)
    pipe.execute()
node = app.make_node()
node.start()
began, cpu = time.perf_counter(), time.process_time()
while int(client.hget("{new-task}:counts", "SUCCESS") or 0) < count:
    gevent.sleep(0.005)
while client.exists("end-task", *client.keys("{end-task}:of:*")):
    gevent.sleep(0.005)
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
record = client.hgetall(f"task-{0:032x}")
assert record[b"state"] == b"SUCCESS" and record[b"output"] == b"null", record
assert client.ttl(f"task-{0:032x}") > 3000
assert not client.exists("new-task", "{new-task}:claims")
print(count / seconds, 1e6 * cpu / count)
node.stop()
"""

FLOOR = """
import sys
sys.path.insert(0, sys.argv[3])
import floor, redis
client = redis.Redis.from_url(sys.argv[1])
client.flushall()
floor.fill(client, int(sys.argv[2]))
print(floor.drain_floor(sys.argv[1], int(sys.argv[2]), floor.BATCH), 0)
"""


def measure(program: str, url: str, count: int) -> tuple[float, float]:
    """Tasks a second, and the processor's microseconds a task, of a program in a process of its own."""
    command = [sys.executable, "-c", program, url, str(count), HERE]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rate, cpu = map(float, output.split()[-2:])
    return rate, cpu


def compare(url: str, count: int, rounds: int) -> dict[str, float]:
    """Medians of the rounds: floor and node in tasks a second, and the ratio of each round's pair."""
    rows = []
    for number in range(rounds):
        floor_rate, _ = measure(FLOOR, url, count)
        node_rate, cpu = measure(NODE, url, count)
        rows.append((floor_rate, node_rate, node_rate / floor_rate, cpu))
        print(
            f"round {number + 1}: floor {floor_rate:8,.0f}/s   node {node_rate:8,.0f}/s   "
            f"ratio {node_rate / floor_rate:.2f}   {cpu:.0f} us of processor a task",
            file=sys.stderr,
        )
    names = ("floor", "node", "ratio", "cpu_us")
    return {name: statistics.median(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--url", help="an empty server to use instead: everything on it is removed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.url:
        medians = compare(options.url, options.tasks, options.rounds)
    else:
        sys.path.insert(0, HERE)
        import floor

        with floor.private_server(options.server) as url:
            medians = compare(url, options.tasks, options.rounds)
    if options.json:
        print(json.dumps(medians))
    else:
        print("median: floor {floor:,.0f}/s, node {node:,.0f}/s, ratio {ratio:.2f}".format(**medians))


if __name__ == "__main__":
    main()
