"""The app of the tests of limits: tasks that tell when they began, and how many ran beside them.

`began` is a list of ids; `crowd:<group>` of how many of a group ran at once when one of it began, itself included.
"""

from __future__ import annotations

import gevent

from pytask import PyTask, Task

app = PyTask()


class Tells(Task):
    """Runs for some seconds, or until the key `go` is there."""

    def __init__(self, seconds=0.05, group="", **_):
        self.seconds, self.group = seconds, group

    def start(self):
        inside = f"inside:{self.group}"
        self.redis.sadd(inside, self.id)
        self.redis.rpush(f"crowd:{self.group}", self.redis.scard(inside))
        self.redis.rpush("began", self.id)
        if self.seconds:
            gevent.sleep(self.seconds)
        else:
            while not self.redis.exists("go"):
                gevent.sleep(0.02)
        self.redis.srem(inside, self.id)


@app.add_task
class Free(Tells):
    """Under no limit, unless its record says so."""

    NAME = "free"


@app.add_task
class One(Tells):
    NAME = "one"
    max_running = 1


@app.add_task
class Two(Tells):
    NAME = "two"
    max_running = 2


@app.add_task
class PerCustomer(Tells):
    NAME = "per-customer"
    concurrency_key = "customer"


@app.add_task
class Rated(Tells):
    NAME = "rated"
    rate = "10/s"


@app.add_task
class RatedPerHost(Tells):
    NAME = "rated-per-host"
    rate = "2/h"
    rate_key = "host"


@app.add_task
class All(Tells):
    """Under every limit at once."""

    NAME = "all"
    concurrency_key = "customer"
    rate = "1/200ms"
    max_running = 2
    unique = True


@app.add_task
class Flaky(Tells):
    """Its first attempt fails."""

    NAME = "flaky"
    max_running = 1
    retries = 1
    retry_delay = 0.3

    def start(self):
        super().start()
        if self.attempt == 1:
            raise ValueError("the first attempt")


@app.add_task
class Unique(Tells):
    NAME = "unique"
    unique = True
