"""The app of a test of parents: the first node that takes tasks dies at its first claim, its banner being late."""

from __future__ import annotations

import os
import signal

import gevent
from nodeapp import app

from pytask import points
from pytask.node import banner

__all__ = ["app"]


def reach(point):
    if point == "after-claim" and app.redis.set("died", os.getpid(), nx=True):
        os.kill(os.getpid(), signal.SIGKILL)


points.reach = reach
banner.log_banner = lambda _node: gevent.sleep(0.2)  # it asks the server, whose reply takes its time
