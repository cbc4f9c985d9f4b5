"""The bare floor: what one Python process can do of the whole wire protocol, with no framework around it.

One gevent-patched process drains no-op tasks that are already queued: claim, begin, a greenlet each, finish (with
its event published), `end-task`, release, then Cleanup's part (take_ended, cleanup with 3600 s to live, LTRIM).
The scripts are the project's own, in batches, over raw redis-py connections: `links` 2 claims and begins on
one and does the rest on the other, 3 gives Cleanup one of its own, as a node has it, 1 shares one. Nothing of
the node or of the store's clients runs here, so the figure is what a node is measured against. A round
that leaves a record other than a success with a time to live, or anything in queue, claims, `of` or `end-task`,
is an error.

Seen on two shared cores (Xeon 2.7 GHz, KVM; Python 3.11, redis-py 8.1, gevent 26.9), others using less than 0.15
cores: 27,000 a second on Valkey 9.1 and 27,000 to 29,000 on Redis 7.0 with two links, single rounds up to 34,000;
with three 26,000 to 30,000 and 30,000 to 33,000. That agrees within 20 % with the 26,000 to 32,000 of the
project's earlier prototype. While the host itself is busy the same work costs 1.5 times the CPU
(20 us here, 37 us there), and 19,000 to 22,000 is all. The server is the bottleneck: 21 to 25 us of its core a
task, against 12 us here, about 7 of which are the birth, start and end of a greenlet. The parts: README.md.

    .venv/bin/python benchmarks/floor.py [--server redis] [--links 3] [--scripts] [--json]

Another program imports `fill` and `drain_floor`; importing this module patches (gevent).
"""

# ruff: noqa: E402 - gevent patches before anything else is imported
from gevent import monkey

monkey.patch_all()

import argparse
import contextlib
import gc
import json
import os
import platform
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import gevent
import harness
import hiredis
import redis
from gevent.event import Event
from gevent.lock import RLock
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytask import states
from pytask.keys import Keys
from pytask.store.scripts import script

TASKS, BATCH, ROUNDS, LINKS = 20_000, 500, 3, 2
RUNNING = 1000  # tasks between claim and release at which no more are claimed: a node's default concurrency
gevent.config.track_greenlet_tree = False  # as a node does: 1.5 us a task
MOVES = ("claim", "begin", "finish", "release", "take_ended", "cleanup")
KEYS = Keys()
QUEUE = KEYS.queue()
FILLING = 500  # tasks a pipeline of the producer
TTL = 3600  # seconds
TTLS = ["", 0, "", *(part for pair in states.ttl_by_state(TTL, TTL).items() for part in pair)]
MOST_DELIVERIES, MOST_DATA = 3, 1 << 20
KEEP_ENDED, KEEP_DEAD = 10_000, 100_000
SUCCESS = states.SUCCESS.encode()
EVENT = b'{"event":"success","data":null}'

Outcome = tuple[bytes, bytes]  # id, fence


class Round(NamedTuple):
    """One drain: tasks a second; CPU microseconds a task, here and in the server; cores that others kept busy."""

    rate: float
    python: float
    server: float
    others: float


def expect(holds: bool, what: object) -> None:
    """Raises RuntimeError where the protocol was not kept: the figure would mean nothing."""
    if not holds:
        raise RuntimeError(f"the drain is wrong: {what}")


def connect(url: str) -> redis.Redis:
    """A client that waits for a minute and repeats nothing.

    redis-py's own 5 s are too short where the machine is busy; and a pipeline of `fill` that it sent again would
    queue its tasks twice, which ends the round in an error.
    """
    return redis.Redis.from_url(url, socket_timeout=60, socket_connect_timeout=60, retry=Retry(NoBackoff(), 0))


def fill(client: redis.Redis, n: int) -> None:
    """Queue `n` no-op tasks as a raw producer does: HSET a record each, LPUSH the ids."""
    for start in range(0, n, FILLING):
        ids = [secrets.token_hex(16).encode() for _ in range(min(FILLING, n - start))]
        pipe = client.pipeline(transaction=False)
        for task_id in ids:
            pipe.execute_command("HSET", KEYS.task(task_id), "task", "noop", "data", "{}")
        pipe.execute_command("LPUSH", QUEUE.key, *ids)
        pipe.execute()


class Link:
    """One raw redis-py connection. Its users take turns: one command at a time, with its reply."""

    def __init__(self, client: redis.Redis) -> None:
        self.pool = client.connection_pool
        self.raw = self.pool.get_connection()
        self.lock = RLock()

    def command(self, *parts: Any) -> Any:
        """The reply to one command. redis-py's own packing would cost 1.3 us a task, `execute_command` 3 us."""
        with self.lock:
            self.raw.send_packed_command([hiredis.pack_command(parts)])
            return self.raw.read_response()

    def call(self, move: str, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        """The reply of one script, which the server knows already."""
        return self.command("EVALSHA", script(move).sha, len(keys), *keys, *args)

    def close(self) -> None:
        """Give the connection back."""
        self.pool.release(self.raw)


class TimedLink(Link):
    """A link that asks the server after each script how long it took: `costs` has microseconds by move."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.client = client
        self.costs: Counter[str] = Counter()

    def call(self, move: str, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        """As a link does."""
        with self.lock:
            before = self._spent()
            reply = super().call(move, keys, args)
            self.costs[move] += self._spent() - before
        return reply

    def _spent(self) -> int:
        return int(self.client.info("commandstats").get("cmdstat_evalsha", {}).get("usec", 0))


def noop() -> None:
    """What a task does."""


class Floor:
    """One drain, by the greenlets `take_in`, `report` and, with three links, `clean`."""

    def __init__(self, links: Sequence[Link], batch: int) -> None:
        self.node = f"floor:{os.getpid()}:{secrets.token_hex(4)}".encode()
        self.intake, self.reporter, self.cleaner = links[0], links[min(1, len(links) - 1)], links[-1]
        self.cleans_beside = self.cleaner is not self.reporter
        self.batch = batch
        self.outcomes: list[Outcome] = []
        self.running = self.uncleaned = 0
        self.all_claimed = self.all_released = False
        self.has_room, self.has_outcome, self.has_ended = Event(), Event(), Event()
        k, of = QUEUE, QUEUE.claims_of(self.node)
        self.claim_keys = (k.key, k.claims, of, k.nodes, k.fence, k.again, k.due, k.inbox(self.node), k.paused)
        self.release_keys = (k.key, k.claims, of, k.again, k.due, k.ended, k.counts, k.dead, k.control)
        self.taken = KEYS.end_of(self.node)

    def drain(self) -> None:
        """Work off the queue, to the last cleanup. Blocks."""
        self.intake.command("HSET", QUEUE.nodes, self.node, 1)
        services = [self.take_in, self.report] + [self.clean] * self.cleans_beside
        gevent.joinall([gevent.spawn(service) for service in services], raise_error=True)
        self.intake.command("HDEL", QUEUE.nodes, self.node)

    # Intake.

    def take_in(self) -> None:
        """Claim, begin and spawn, until the queue is empty."""
        while claims := self._claim():
            self.running += len(claims)
            for claim, answer in zip(claims, self._begin(claims), strict=True):
                expect(answer[0] == b"run", answer)
                gevent.spawn(self._run, (claim[0], claim[1]))
            if self.running >= RUNNING:
                self.has_room.clear()
                self.has_room.wait()
        self.all_claimed = True
        self.has_outcome.set()

    def _claim(self) -> list[list[bytes]]:
        reply = self.intake.call("claim", self.claim_keys, (self.node, self.batch))
        return [reply[i : i + 5] for i in range(1, len(reply), 5)]

    def _begin(self, claims: list[list[bytes]]) -> list[list[Any]]:
        args: list[Any] = [self.node, QUEUE.key, QUEUE.key, MOST_DELIVERIES, MOST_DATA, "", ""]
        for _, fence, lost, _, early in claims:
            args += (fence, lost, early)
        return list(self.intake.call("begin", [KEYS.task(claim[0]) for claim in claims], args))

    def _run(self, outcome: Outcome) -> None:
        """The greenlet of one task."""
        noop()
        self.outcomes.append(outcome)
        self.has_outcome.set()

    # Report.

    def report(self) -> None:
        """Finish, `end-task`, release, until all that was claimed is released."""
        while self.running or not self.all_claimed:
            self.has_outcome.wait()
            self.has_outcome.clear()
            while rows := self.outcomes[: self.batch]:
                del self.outcomes[: self.batch]
                self._report(rows)
        self.all_released = True
        self.has_ended.set()

    def _report(self, rows: list[Outcome]) -> None:
        self._finish(rows)
        self.reporter.command("LPUSH", KEYS.end, *[task_id for task_id, _ in rows])
        self.uncleaned += len(rows)
        self.has_ended.set()
        self._release(rows)
        self.running -= len(rows)
        if self.running < RUNNING:
            self.has_room.set()
        if not self.cleans_beside:
            self._clean()

    def _finish(self, rows: list[Outcome]) -> None:
        args: list[Any] = [self.node, QUEUE.key, 0, 0]
        for _, fence in rows:
            args += (fence, SUCCESS, b"null", b"", EVENT)
        answers = self.reporter.call("finish", [KEYS.task(task_id) for task_id, _ in rows], args)
        expect(all(answer == b"ok" for answer in answers), answers)

    def _release(self, rows: list[Outcome]) -> None:
        args: list[Any] = [self.node, KEEP_ENDED, KEEP_DEAD]
        for task_id, fence in rows:
            args += (task_id, fence, b"end", SUCCESS)
        released = self.reporter.call("release", self.release_keys, args)
        expect(released == len(rows), f"{released} of {len(rows)} claims released")

    # Cleanup.

    def clean(self) -> None:
        """Let ended records expire, until all are released and cleaned."""
        while self.uncleaned or not self.all_released:
            self.has_ended.wait()
            self.has_ended.clear()
            while self.uncleaned:
                self._clean()

    def _clean(self) -> None:
        ids = self.cleaner.call("take_ended", (KEYS.end, self.taken), (self.batch,))
        left = self.cleaner.call("cleanup", [KEYS.task(task_id) for task_id in ids], TTLS)
        expect(left == [TTL] * len(ids), left)
        self.cleaner.command("LTRIM", self.taken, 0, -len(ids) - 1)
        self.uncleaned -= len(ids)


def drain_floor(url: str, n: int, batch: int = BATCH) -> float:
    """Tasks a second that this process drains, of the `n` that wait on the server at `url` (see `fill`)."""
    return measure(url, n, batch).rate


def measure(url: str, n: int, batch: int = BATCH, links: int = LINKS) -> Round:
    """Drain the `n` tasks that wait at `url`, which no node may serve meanwhile, and check what became of them."""
    with connect(url) as client:
        ids = prepare(client, n)
        floor = Floor(made := [Link(client) for _ in range(links)], batch)
        gc.collect()
        gc.freeze()  # the collector would go through `ids` time and again: 1.5 us a task
        before = _clocks(client)
        floor.drain()
        after = _clocks(client)
        gc.unfreeze()
        for link in made:
            link.close()
        check(client, floor, ids)
    wall, python, server, machine = (b - a for a, b in zip(before, after, strict=True))
    others = max(machine - python - server, 0.0) / wall
    return Round(n / wall, python / n * 1e6, server / n * 1e6, others)


def measure_scripts(url: str, n: int, batch: int = BATCH) -> dict[str, float]:
    """Microseconds a task of each script, in the order of a task's life, while nothing else asks the server."""
    with connect(url) as client:
        ids = prepare(client, n)
        floor = Floor([link := TimedLink(client)], batch)
        floor.drain()
        link.close()
        check(client, floor, ids)
    return {move: link.costs[move] / n for move in MOVES}


def prepare(client: redis.Redis, n: int) -> list[bytes]:
    """The `n` ids that wait; the server now knows the scripts. Raises RuntimeError where others interfere."""
    ids = client.lrange(QUEUE.key, 0, -1)
    expect(len(ids) == n, f"{len(ids)} tasks wait, not {n}")
    expect(not client.exists(QUEUE.nodes, KEYS.end), "nodes serve this queue, or ended ids wait")
    for move in MOVES:
        client.script_load(script(move).source)
    return list(ids)


def check(client: redis.Redis, floor: Floor, ids: Sequence[bytes]) -> None:
    """Every record is a success that expires, and nothing is left. Raises RuntimeError."""
    pipe = client.pipeline(transaction=False)
    for task_id in ids:
        pipe.execute_command("HGET", KEYS.task(task_id), "state")
        pipe.execute_command("PTTL", KEYS.task(task_id))
    replies = pipe.execute()
    expect(replies[::2] == [SUCCESS] * len(ids), "a record is no success")
    expect(all(0 < ttl <= TTL * 1000 for ttl in replies[1::2]), "a record does not expire")
    k = QUEUE
    for key in (k.key, k.claims, k.claims_of(floor.node), k.inbox(floor.node), k.again, KEYS.end, floor.taken):
        expect(not client.exists(key), f"{key!r} is left")


def _clocks(client: redis.Redis) -> tuple[float, float, float, float]:
    """Seconds: now; CPU of this process, of the server, of the machine (0 where there is no /proc/stat)."""
    cpu = client.info("cpu")
    machine = 0.0
    with contextlib.suppress(OSError), open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, *rest = map(int, file.readline().split()[1:9])
        machine = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), time.process_time(), cpu["used_cpu_user"] + cpu["used_cpu_sys"], machine


def refill(url: str, options: argparse.Namespace) -> None:
    """Queue a round's tasks; a server of our own is emptied first."""
    with connect(url) as client:
        if not options.url:
            client.flushall()
        fill(client, options.tasks)


def run(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, each printed as it ends (unless JSON is asked for); the figures as a dict."""
    rounds = []
    for number in range(options.rounds):
        refill(url, options)
        rounds.append(measure(url, options.tasks, options.batch, options.links))
        say(options, f"round {number + 1}: {describe(rounds[-1])}")
    middle = Round(*(statistics.median(column) for column in zip(*rounds, strict=True)))
    say(options, f"median:  {describe(middle)}")
    figures = {f"median_{name}": round(value, 2) for name, value in middle._asdict().items()}
    return figures | {"rates": [round(one.rate) for one in rounds]}


def run_scripts(url: str, options: argparse.Namespace) -> dict[str, float]:
    """The least of all rounds for each script: what comes on top is the machine's noise."""
    least: dict[str, float] = {}
    for _ in range(options.rounds):
        refill(url, options)
        for move, cost in measure_scripts(url, options.tasks, options.batch).items():
            least[move] = round(min(cost, least.get(move, cost)), 2)
    for move, cost in least.items():
        say(options, f"{move:>12}: {cost:5.2f} us a task")
    say(options, f"{'all':>12}: {sum(least.values()):5.2f} us a task")
    return least


def describe(one: Round) -> str:
    """One line for people."""
    return (
        f"{one.rate:8,.0f} tasks/s  (us a task: {1e6 / one.rate:.1f}, CPU here {one.python:.1f}, "
        f"in the server {one.server:.1f}; others used {one.others:.2f} cores)"
    )


def say(options: argparse.Namespace, text: str) -> None:
    """Print, unless JSON is asked for."""
    if not options.json:
        print(text, flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The bare floor of one Python process for the whole protocol.")
    parser.add_argument("-n", "--tasks", type=int, default=TASKS, help="tasks a round (%(default)s)")
    parser.add_argument("--batch", type=int, default=BATCH, help="tasks a script, at most 500 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--links", type=int, default=LINKS, choices=(1, 2, 3), help="connections (%(default)s)")
    parser.add_argument("--server", default="valkey", choices=("valkey", "redis"), help="to start (%(default)s)")
    parser.add_argument("--url", help="a running server instead; its records expire after an hour")
    parser.add_argument("--scripts", action="store_true", help="what each script costs the server, instead")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args()


def main() -> None:
    """The command line's work."""
    options = parse()
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(harness.private_server(options.server)).url
        figures = (run_scripts if options.scripts else run)(url, options)
        with connect(url) as client:
            about = client.info("server")
    if options.json:
        setup = {key: getattr(options, key) for key in ("tasks", "batch", "links")}
        server = about.get("valkey_version") or about["redis_version"]
        machine = {"python": platform.python_version(), "server": server, "cpus": os.cpu_count()}
        kind = "floor-scripts" if options.scripts else "floor"
        print(json.dumps({"benchmark": kind, **setup, **machine, **figures}))


if __name__ == "__main__":
    main()
