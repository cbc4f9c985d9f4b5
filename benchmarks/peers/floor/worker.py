"""The floor's worker: drains what is queued and checks what became of it, or waits for tasks one at a time."""

import floor

import gc
import json
import os

import gevent
from marks import marks

URL, SCENARIO = os.environ["BENCH_URL"], os.environ["BENCH_SCENARIO"]


def noop():
    """What a task does."""
    marks.begin()
    marks.end()


class Waiting(floor.Floor):
    """On an idle server: blocks for an id, claims and begins it, spawns a greenlet that tells when it began."""

    def take_in(self):
        inbox = floor.QUEUE.inbox(self.node)
        while True:
            self.intake.command("BLMOVE", floor.QUEUE.key, inbox, "RIGHT", "LEFT", 0)
            claims = self._claim()
            self.running += len(claims)
            for claim in claims:
                self.begin_one(claim)

    def begin_one(self, claim):
        answer = self._begin([claim])[0]
        floor.expect(answer[0] == b"run", answer)
        data = next(part for part in answer if part.startswith(b"{"))
        gevent.spawn(self.run_one, json.loads(data)["number"], (claim[0], claim[1]))

    def run_one(self, number, outcome):
        marks.stamp(number)
        self._run(outcome)


def wait():
    """Serve for ever."""
    client = floor.connect(URL)
    for move in floor.MOVES:
        client.script_load(floor.script(move).source)
    Waiting([floor.Link(client) for _ in range(2)], floor.BATCH).drain()


def drain():
    """Drain what is queued, check it, and stay until somebody ends this process."""
    floor.noop = noop
    client = floor.connect(URL)
    floor.measure(URL, client.llen("new-task"), floor.BATCH, links=3)  # as many as a node has
    gevent.sleep(3600)


if __name__ == "__main__":
    gc.freeze()
    wait() if SCENARIO == "latency" else drain()
