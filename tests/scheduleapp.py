"""An app whose schedules stand in the environment: what the nodes of the tests of schedules run.

PYTASK_TEST_SCHEDULES is a JSON object of names and arguments of `add_schedule`; PYTASK_TEST_POINT says where a
node dies, or is held up (see chaos/points.py).
"""

from __future__ import annotations

import json
import os

from chaos import points

from pytask import PyTask, Task

app = PyTask()
points.install(os.environ.get(points.VARIABLE, ""))


@app.add_task
class Note(Task):
    """Notes each of its runs in the list `fired:<name>`, outside its record; one that the death of its node cut
    short, and that follows for that reason, is the same one.
    """

    NAME = "note"

    def __init__(self, word=""):
        self.word = word

    def start(self):
        name, _, when = self.id.rpartition("@")
        if not self.deliveries or self.redis.lpos(f"fired:{name}", when) is None:
            self.redis.rpush(f"fired:{name}", when)
        return self.word


@app.add_task
class Slow(Task):
    NAME = "slow"
    queue = "slow"

    def start(self):
        pass


app.add_schedules(json.loads(os.environ.get("PYTASK_TEST_SCHEDULES", "{}")))
