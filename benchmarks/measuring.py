"""One measurement: one contender, one scenario, on a server of its own. All go through the same code.

The figures, each a dict that is stored as it is:

- drain: `rate`, tasks a second, from 5 % ended to the end, so that neither the start of the worker nor the
  opening of its connections counts; the end is the last task's, or, where the peer keeps something of a task and
  can tell, the moment when all is kept
- io: `rate`, from the first task's begin to the last one's end, and `ideal`, what sleeping alone would allow
- latency: `samples`, milliseconds from the call of enqueue to the first line of the task, on an idle worker
- memory: `kib`, resident memory a task in flight: with them all asleep less without; `idle_mib`, before
- enqueue: `one` and `many`, tasks a second
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
from contenders import PEERS, Contender
from harness import BenchmarkError

sys.path.insert(0, str(PEERS))

from marks import STAMPS, Total, open_doubles

FILL_SECONDS = 60.0
START_SECONDS = 30.0  # for a worker, until its first task begins
DRAIN_SECONDS = 60.0
KEEPER_SECONDS = 1.0  # for the one who watches what is kept, to import everything before the worker starts
WARM_UP = 0.05  # part of the drain that is not timed
NAP_SECONDS = 0.1  # that a task of the scenario `io` sleeps
SAMPLES, SAMPLE_SECONDS = 60, 12.0  # of latency, a round
ENQUEUE_SECONDS = 1.5
WARM_TASKS, FEW = 200, 10  # tasks before memory is read, and how many at once
ASLEEP_SECONDS = 300  # tasks in flight while memory is read

Figures = dict[str, Any]


class Bench:
    """A contender, a server, a directory for marks and logs; gone when the block ends."""

    def __init__(self, contender: Contender, scenario: str, server: harness.Server, directory: Path) -> None:
        self.contender, self.server, self.directory = contender, server, directory
        self.setup = contender.scenarios[scenario]
        self.marks = directory / "marks"
        self.marks.mkdir()
        self.total = Total(self.marks)
        self.environ = {
            **server.environ,
            **contender.environ,
            "BENCH_MARKS": str(self.marks),
            "BENCH_SCENARIO": scenario,
            "BENCH_CONCURRENCY": "1",
            "PYTHONPATH": os.pathsep.join(self._paths()),
            "PYTHONWARNINGS": "ignore",
        }

    def _paths(self) -> list[str]:
        own = [str(self.contender.directory), str(PEERS)]
        return [*own, str(harness.HERE), str(harness.ROOT)] if self.contender.home else own

    def worker(self, concurrency: int | None = None) -> harness.Worker:
        """The worker, started, with the scenario's concurrency or another."""
        concurrency = concurrency or self.setup.get("concurrency", 1)
        command = self.contender.worker_command(self.server, concurrency)
        environ = {**self.environ, "BENCH_ROLE": "worker", "BENCH_CONCURRENCY": str(concurrency)}
        return harness.Worker(command, self.directory / "worker.log", environ, self.directory)

    def ask(self, seconds: float, *arguments: object) -> Figures:
        """What the producer answers to a command."""
        output = harness.run_program(self.contender.agent_command(*arguments), seconds, self.environ)
        return _last_json(output)

    @contextlib.contextmanager
    def asking(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """A producer that is asked and works on; killed at the end of the block."""
        with (self.directory / "agent.log").open("w") as log:
            agent = subprocess.Popen(
                self.contender.agent_command(*arguments),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environ},
            )
        with agent:
            try:
                yield agent
            finally:
                agent.kill()


def _last_json(output: str) -> Figures:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchmarkError("the producer said nothing")
    return dict(json.loads(lines[-1]))


@contextlib.contextmanager
def prepared(contender: Contender, scenario: str, kind: str) -> Iterator[Bench]:
    """A bench with an empty server of its own, and nothing left of it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with harness.private_server(kind, tcp=True) as server:
            yield Bench(contender, scenario, server, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(contender: Contender, scenario: str, kind: str, scale: float = 1.0) -> Figures:
    """The figures of one scenario; `scale` times as many tasks, or seconds. Raises BenchmarkError."""
    with prepared(contender, scenario, kind) as bench:
        return MEASURES[scenario](bench, scale)


def drain(bench: Bench, scale: float) -> Figures:
    """No-op tasks that are already queued."""
    count = max(20, int(bench.setup["tasks"] * scale))
    bench.ask(FILL_SECONDS, "fill", "noop", count)
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(bench.asking("settle", count, DRAIN_SECONDS))
        time.sleep(KEEPER_SECONDS)
        worker = stack.enter_context(bench.worker())
        samples, meter = _watch(bench, worker, count)
        used = meter.stop()
        ended = _settled_at(bench, keeper) or bench.total.last
    at, done = samples
    rate = (count - done) / (ended - at)
    costs = {
        f"{name}_us": used[name] * (bench.total.last - at) / (count - done) * 1e6 for name in ("worker", "server")
    }
    return {"rate": rate, "tasks": count, "seconds": ended - at, "others": used["others"], **costs}


def _watch(bench: Bench, worker: harness.Worker, count: int) -> tuple[tuple[float, int], harness.CpuMeter]:
    """Wait until all tasks ended. When the warm-up was over, and how many had ended then; a meter since then."""
    total = bench.total
    harness.wait_for(lambda: total.begun, "the first task begins", START_SECONDS, worker)
    least = count * WARM_UP
    harness.wait_for(lambda: total.ended >= least, "the warm-up ends", DRAIN_SECONDS, worker, 0.002)
    done, at = total.ended, time.monotonic()
    meter = harness.CpuMeter(bench.server, worker.pid)
    what = f"{count} tasks end"
    try:
        harness.wait_for(lambda: total.ended >= count, what, DRAIN_SECONDS, worker)
    except BenchmarkError as error:
        raise BenchmarkError(f"{total.ended} of {error}") from None
    return (at, done), meter


def _settled_at(bench: Bench, keeper: subprocess.Popen[str]) -> float | None:
    """When all was kept, by the keeper's word; None where the peer keeps nothing."""
    try:
        output, _ = keeper.communicate(timeout=DRAIN_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchmarkError("not all is kept of the tasks") from None
    if keeper.returncode:
        raise BenchmarkError((bench.directory / "agent.log").read_text()[-300:])
    return _last_json(output)["at"]


def io(bench: Bench, scale: float) -> Figures:
    """Tasks of 100 ms, so many at once, that are already queued."""
    count = max(10, int(bench.setup["tasks"] * scale))
    bench.ask(FILL_SECONDS, "fill", "pause", count, NAP_SECONDS)
    total = bench.total
    with bench.worker() as worker:
        harness.wait_for(lambda: total.begun, "the first task begins", START_SECONDS, worker)
        meter = harness.CpuMeter(bench.server, worker.pid)
        harness.wait_for(lambda: total.ended >= count, f"{count} tasks end", DRAIN_SECONDS, worker)
        used = meter.stop()
    at_once = bench.setup["concurrency"]
    return {
        "rate": count / (total.last - total.first),
        "ideal": count / (-(-count // at_once) * NAP_SECONDS),
        "tasks": count,
        "at_once": at_once,
        "others": used["others"],
    }


def latency(bench: Bench, scale: float) -> Figures:
    """One task at a time, on an idle worker."""
    samples, seconds = max(3, int(SAMPLES * scale)), SAMPLE_SECONDS * scale
    open_doubles(bench.marks / STAMPS, samples + 100)
    with bench.worker() as worker:
        try:
            return bench.ask(seconds + START_SECONDS + 60, "latency", samples, seconds)
        except BenchmarkError:
            worker.check()
            raise


def memory(bench: Bench, scale: float) -> Figures:
    """Tasks that sleep, all at once, against a worker that is idle and has room for a few only.

    Some make greenlets and connections for all that may run when they start: those count as well.
    """
    count, warm, total = max(10, int(bench.setup["tasks"] * scale)), WARM_TASKS, bench.total
    before = _idle_bytes(bench)
    bench.ask(FILL_SECONDS, "fill", "pause", count, ASLEEP_SECONDS)
    with bench.worker(count) as worker:
        try:
            harness.wait_for(lambda: total.begun >= warm + count, "all are in flight", DRAIN_SECONDS, worker)
        except BenchmarkError as error:
            raise BenchmarkError(f"{total.begun - warm} of {count} in flight; {error}") from None
        time.sleep(0.5)
        after = harness.rss_bytes(worker.pid)
    return {"kib": (after - before) / count / 1024, "idle_mib": before / 2**20, "tasks": count}


def _idle_bytes(bench: Bench) -> int:
    """Resident memory of a worker for ten tasks at once that has run some and is idle."""
    bench.ask(FILL_SECONDS, "fill", "noop", WARM_TASKS)
    with bench.worker(FEW) as worker:
        harness.wait_for(lambda: bench.total.ended >= WARM_TASKS, "the warm-up ends", START_SECONDS, worker)
        time.sleep(0.5)
        return harness.rss_bytes(worker.pid)


def enqueue(bench: Bench, scale: float) -> Figures:
    """Making no-op tasks, one at a time and in bulk; nobody runs them."""
    seconds = ENQUEUE_SECONDS * scale
    rates = {how: bench.ask(FILL_SECONDS, "enqueue", how, seconds)["rate"] for how in ("one", "many")}
    return dict(rates)


MEASURES: dict[str, Callable[[Bench, float], Figures]] = {
    "drain": drain,
    "io": io,
    "latency": latency,
    "memory": memory,
    "enqueue": enqueue,
}
