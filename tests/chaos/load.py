"""The load: producers that make tasks while everything fails, and repeat what was not acknowledged."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

from pytask import PyTask, wire
from pytask.errors import StoreError
from pytask.store.queues import NewRecord

TICK = 0.05  # seconds between batches


@dataclass(frozen=True)
class Shape:
    """How many tasks, over how many seconds, and what they are like."""

    tasks: int
    seconds: float
    shortest: float = 0.01
    longest: float = 2.0
    long_from: float = 1.0  # a third of the tasks takes this long or longer
    duplicates: float = 0.01  # share of ids that are pushed again, some time later
    due: float = 0.03  # share of tasks that wait for a time
    events: float = 0.1  # share of tasks that tell of their progress
    queues: tuple[str, ...] = ("",)


class Load:
    """A producer in a thread. `acknowledged`: ids whose push Redis has confirmed."""

    def __init__(self, url: str, shape: Shape, rng: random.Random) -> None:
        self.shape = shape
        self.rng = rng
        self.app = PyTask(url)
        self.acknowledged: list[str] = []
        self.duplicates = 0
        self.retries = 0
        self.last_push = 0.0  # monotonic second
        self.error: BaseException | None = None
        self._again: list[tuple[float, str, str]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def done(self) -> bool:
        """Everything is pushed. Raises what stopped the thread."""
        if self.error is not None:
            raise self.error
        return not self._thread.is_alive()

    def close(self) -> None:
        self._thread.join(30)
        self.app.close()

    def _run(self) -> None:
        try:
            self._produce()
        except BaseException as error:  # told where the main thread asks
            self.error = error

    def _produce(self) -> None:
        began, made = time.monotonic(), 0
        while made < self.shape.tasks or self._again:
            share = min((time.monotonic() - began) / self.shape.seconds, 1.0)
            wanted = int(self.shape.tasks * share)
            for queue in self.shape.queues:
                rows = [self._row(n) for n in range(made, wanted) if self._queue(n) == queue]
                if rows:
                    self._create(queue, rows)
            made = wanted
            self._push_again()
            self.last_push = time.monotonic()
            time.sleep(TICK)

    def _queue(self, number: int) -> str:
        return self.shape.queues[number % len(self.shape.queues)]

    def _row(self, number: int) -> NewRecord:
        rng, shape = self.rng, self.shape
        if rng.random() < 1 / 3:
            seconds = rng.uniform(shape.long_from, shape.longest)
        else:
            seconds = rng.uniform(shape.shortest, shape.long_from)
        data = {"seconds": round(seconds, 3), "events": 3 if rng.random() < shape.events else 0}
        words: list[object] = ["task", "work", "data", wire.encode_json(data)]
        if rng.random() < shape.due:
            words += ["due", f"{time.time() + rng.uniform(0.2, 2):.3f}"]
        return NewRecord(f"t{number}".encode(), words, new=False)

    def _create(self, queue: str, rows: list[NewRecord]) -> None:
        self._insist(lambda: self.app.helpers.store.queues.create(rows, queue))
        for row in rows:
            self.acknowledged.append(row.id.decode())
            if self.rng.random() < self.shape.duplicates:
                self._again.append((time.monotonic() + self.rng.uniform(0, 3), queue, row.id.decode()))

    def _push_again(self) -> None:
        now = time.monotonic()
        for row in [row for row in self._again if row[0] <= now]:
            self._again.remove(row)
            self._insist(lambda row=row: self.app.helpers.store.queues.push(row[1], [row[2].encode()]))
            self.duplicates += 1

    def _insist(self, send) -> None:
        while True:
            try:
                send()
                return
            except StoreError:
                self.retries += 1
                time.sleep(TICK)
