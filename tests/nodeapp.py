"""The app that the tests' nodes run: one small task for each thing that can happen."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time

import gevent
from gevent.event import Event

from pytask import PyTask, Task
from pytask.node.intake import Intake

app = PyTask()


@app.add_task
class Noop(Task):
    NAME = "noop"

    def start(self):
        pass


@app.add_task
class Echo(Task):
    """Returns what it was given."""

    NAME = "echo"

    def __init__(self, **data):
        self.data = data

    def start(self):
        return self.data


@app.add_task
class Sleep(Task):
    """Sleeps; counts its runs, outside its own record, in `runs:<id>`, with the fence of each."""

    NAME = "sleep"

    def __init__(self, seconds=0.1):
        self.seconds = seconds

    def start(self):
        self.redis.rpush(f"runs:{self.id}", f"{self.fence} {os.getpid()}")
        gevent.sleep(self.seconds)
        return {"fence": self.fence, "pid": os.getpid()}


@app.add_task
class InAMoment(Task):
    NAME = "in-a-moment"
    delay = 0.5
    expires_in = "1h"

    def start(self):
        pass


@app.add_task
class AskAgain(Task):
    NAME = "ask-again"

    def __init__(self, times):
        self.times = times

    def start(self):
        if self.attempt <= self.times:
            raise self.Retry("not yet", after=0.05)


@app.add_task
class Interval(Task):
    NAME = "interval"

    def __init__(self, intervals):
        self.intervals = intervals

    def start(self):
        raise ValueError("fails always")

    def get_retry_interval(self, exception):
        assert isinstance(exception, ValueError)
        interval = self.intervals[self.attempt - 1]
        if interval == "raise":
            raise KeyError("no interval")
        if interval == "exit":
            sys.exit(1)
        if interval == "discard":
            raise self.Discard("no more intervals")
        return interval


@app.add_task
class Busy(Task):
    NAME = "busy"

    def __init__(self, count, seconds):
        self.count, self.seconds = count, seconds

    def start(self):
        for done in range(self.count + 1):
            self.progress(done, self.count)
            time.sleep(self.seconds / self.count)


@app.add_task
class Log(Task):
    NAME = "log"

    def __init__(self, name):
        self.name = name

    def start(self):
        self.log("start")
        gevent.spawn(self.log, "greenlet").join()
        thread = threading.Thread(target=self.log, args=("thread",))
        thread.start()
        thread.join()
        self.log("end")

    def log(self, where):
        logging.getLogger("nodeapp.log").info("%s %s", self.name, where)


@app.add_task
class LogHostile(Task):
    NAME = "log-hostile"

    def start(self):
        log = logging.getLogger("nodeapp.log")
        log.warning("lone \udcff")
        log.warning("x" * 1_000_000)
        log.warning("\x1b[31m\nforged")
        log.warning("%d", "no number")
        try:
            raise ValueError("in the log")
        except ValueError:
            log.exception("with a traceback")
        log.warning("still here")


@app.add_task
class Print(Task):
    NAME = "print"

    def start(self):
        print("one line")
        print("two", "lines", sep="\n")
        print("no end", end="")


@app.add_task
class ManyEvents(Task):
    NAME = "many-events"

    def __init__(self, count):
        self.count = count

    def start(self):
        for number in range(self.count):
            self.emit("turn", number)


@app.add_task
class Discard(Task):
    NAME = "discard"

    def start(self):
        raise self.Discard("not needed")


@app.add_task
class Listen(Task):
    """Tells its progress, logs a line, and tells every message that it gets, until it gets an `end`."""

    NAME = "listen"

    def __init__(self):
        self.ended = Event()

    def start(self):
        self.progress(1, 2, "half")
        logging.getLogger("nodeapp").warning("a line with a %s", "word")
        self.ended.wait()
        return "heard enough"

    def on_message(self, message):
        if "fail" in message:
            raise ValueError("no such message")
        while "forever" in message:
            self.emit("turn")
            time.sleep(0.05)
        self.emit("heard", message)
        if "end" in message:
            self.ended.set()


@app.add_task
class Loop(Task):
    """Runs until it is stopped; tells each turn, and the text it was given."""

    NAME = "loop"

    def __init__(self, text="hello"):
        self.text = text
        self.stopped = False

    def start(self):
        while not self.stopped:
            self.emit("turn", {"text": self.text, "attempt": self.attempt})
            gevent.sleep(0.05)

    def stop(self):
        self.stopped = True
        self.emit("stopping", self.text)


@app.add_task
class Forever(Task):
    """Never ends by itself, and has no stop()."""

    NAME = "forever"
    forever = True

    def start(self):
        while True:
            self.emit("turn")
            gevent.sleep(0.05)


@app.add_task
class Fail(Task):
    NAME = "fail"

    def __init__(self, message="no luck"):
        self.message = message

    def start(self):
        raise self.Error(self.message)


@app.add_task
class Boom(Task):
    NAME = "boom"

    def __init__(self, kind="ValueError", message="boom"):
        self.kind, self.message = kind, message

    def start(self):
        kinds = {
            "ValueError": ValueError,
            "SystemExit": SystemExit,
            "KeyboardInterrupt": KeyboardInterrupt,
            "GreenletExit": gevent.GreenletExit,
        }
        raise kinds[self.kind](self.message)


@app.add_task
class Exits(Task):
    NAME = "exits"

    def start(self):
        sys.exit(3)


@app.add_task
class BadInit(Task):
    """Its __init__ raises, hangs or exits."""

    NAME = "bad-init"

    def __init__(self, how="raise"):
        if how == "raise":
            raise ValueError("in init")
        if how == "hang":
            gevent.sleep(3600)
        sys.exit(4)

    def start(self):
        pass


@app.add_task
class Returns(Task):
    """Returns what JSON cannot hold, or too much of it."""

    NAME = "returns"

    def __init__(self, what):
        self.what = what

    def start(self):
        return {
            "object": object(),
            "set": {1, 2},
            "bytes": b"x",
            "nan": float("nan"),
            "inf": [float("inf")],
            "surrogate": "\ud800",
            "large": "x" * 20_000_000,
            "list": [1, 2.5, "ü", None, True, {"a": {}}],
        }[self.what]


@app.add_task
class Stubborn(Task):
    """Swallows every end."""

    NAME = "stubborn"

    def start(self):
        while True:
            with contextlib.suppress(BaseException):
                self.emit("turn")
                gevent.sleep(0.1)


@app.add_task
class BadStop(Task):
    """Its stop() raises or hangs."""

    NAME = "bad-stop"

    def __init__(self, how="raise"):
        self.how = how

    def start(self):
        gevent.sleep(3600)

    def stop(self):
        if self.how == "raise":
            raise ValueError("in stop")
        gevent.sleep(3600)


@app.add_task
class Block(Task):
    """Blocks the hub, for seconds."""

    NAME = "block"

    def __init__(self, seconds=1.0):
        self.seconds = seconds

    def start(self):
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass


@app.add_task
class Progress(Task):
    NAME = "progress"

    def __init__(self, total=5):
        self.total = total

    def start(self):
        for done in range(1, self.total + 1):
            self.emit("progress", {"done": done, "total": self.total})
            gevent.sleep(0.01)


@app.add_task
class BlockOnce(Block):
    """Blocks the hub at its first start only."""

    NAME = "block-once"

    def start(self):
        if self.deliveries == 0:
            super().start()


@app.add_task
class ReturnsDeep(Task):
    """Returns a list in a list in a list, for ever or nearly."""

    NAME = "returns-deep"

    def __init__(self, depth=None):
        self.depth = depth

    def start(self):
        value = []
        if self.depth is None:
            value.append(value)
        for _ in range(self.depth or 0):
            value = [value]
        return value


@app.add_task
class Recurses(Task):
    NAME = "recurses"

    def start(self):
        return self.start()


class SpeechlessError(Exception):
    """Cannot say its own message."""

    def __init__(self, how):
        super().__init__(how)
        self.how = how

    def __str__(self):
        if self.how == "raise":
            raise ValueError("in __str__")
        if self.how == "exit":
            sys.exit(5)
        return 1  # noqa: PLE0307 - that is what is wrong with it


@app.add_task
class Speechless(Task):
    """Raises an error whose `__str__` raises, exits, or returns no text."""

    NAME = "speechless"

    def __init__(self, how):
        self.how = how

    def start(self):
        raise SpeechlessError(self.how)


@app.add_task
class Spawns(Boom):
    """Raises in a greenlet of its own making."""

    NAME = "spawns"

    def start(self):
        gevent.spawn(super().start).join()


@app.add_task
class Emits(Task):
    """Emits what cannot be sent."""

    NAME = "emits"

    def __init__(self, event="event", what="nan"):
        self.event, self.what = event, what

    def start(self):
        bad = {"nan": float("nan"), "object": object(), "large": "x" * 20_000_000}
        self.emit(self.event, bad.get(self.what))


@app.add_task
class Suppressed(Boom):
    """Its context swallows what start() raises."""

    NAME = "suppressed"

    @staticmethod
    def provide_context():
        return contextlib.suppress(Exception)


@app.add_task
class BadContext(Noop):
    """Its context cannot be entered."""

    NAME = "bad-context"

    @staticmethod
    def provide_context():
        raise ValueError("in provide_context")


@app.add_task
class ExitsInStop(Task):
    NAME = "exits-in-stop"

    def start(self):
        gevent.sleep(3600)

    def stop(self):
        sys.exit(6)


@app.add_task
class Poison(Task):
    """Kills its node, after a moment in which others can begin; tells of each start in `runs:<id>`."""

    NAME = "poison"

    def __init__(self, seconds=0.5):
        self.seconds = seconds

    def start(self):
        self.redis.rpush(f"runs:{self.id}", f"{self.fence} {os.getpid()}")
        gevent.sleep(self.seconds)
        os.kill(os.getpid(), signal.SIGKILL)


@app.add_task
class Once(Sleep):
    """May start only once."""

    NAME = "once"
    rescheduling = False


@app.add_task
class OnceForever(Once):
    """May start only once, and never ends."""

    NAME = "once-forever"
    forever = True


@app.add_task
class Pause(Task):
    """Sleeps, and talks to nobody."""

    NAME = "pause"

    def __init__(self, seconds=0.1):
        self.seconds = seconds

    def start(self):
        gevent.sleep(self.seconds)


@app.add_task
class BlockWhenTold(Task):
    """Waits for the key `block-now`; then blocks the hub. Its later runs sleep."""

    NAME = "block-when-told"

    def start(self):
        while not self.redis.get("block-now"):
            gevent.sleep(0.02)
        if self.redis.set("blocked-once", 1, nx=True):
            while True:
                pass
        gevent.sleep(600)


@app.add_task
class Clog(Task):
    """Lets the next blocking move of its node's intake hang for ever, without an error; sets `clogged` then."""

    NAME = "clog"

    def start(self):
        gc.unfreeze()  # a node freezes what stands at its start, which is not among the objects then
        intake = next(thing for thing in gc.get_objects() if isinstance(thing, Intake))
        redis, claims = self.redis, intake.waiting

        def hang(*_):
            del claims.wait_for_id
            redis.set("clogged", 1)
            gevent.sleep(1e6)

        claims.wait_for_id = hang


@app.add_task
class Crowd(Task):
    """Returns how many of its kind ran at once in this process when it began, itself included."""

    NAME = "crowd"
    inside = 0

    def start(self):
        Crowd.inside += 1
        found = Crowd.inside
        gevent.sleep(0.005)
        Crowd.inside -= 1
        return found


@app.add_task
class Gather(Task):
    """Returns what the tasks before it returned, and how they ended."""

    NAME = "gather"

    def start(self):
        return {"inputs": dict(self.inputs), "states": dict(self.inputs.states)}


@app.add_task
class Blame(Task):
    """Returns why the tasks before it did not return."""

    NAME = "blame"

    def start(self):
        return dict(self.inputs.errors)
