"""The store's connections: kept, made anew where the server closed them, never shared, bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from conftest import wait_until
from redis import exceptions

from pytask import PyTask
from pytask.store.addresses import resolve_target
from pytask.store.links import Links


def made(server, *, size: int = 2, timeout: float = 0.2) -> Links:
    target = resolve_target(server.url)
    return Links(target.pool(timeout=5, size=size, name="links"), size=size, timeout=timeout)


def ask(link, *words: str) -> object:
    link.connection.send_command(*words)
    return link.connection.read_response()


def named(server, name: str) -> list[str]:
    return [client["id"] for client in server.redis.client_list() if client["name"] == name]


def test_a_connection_is_used_again(server):
    links = made(server)
    for _ in range(3):
        link = links.take()
        assert ask(link, "PING") == b"PONG"
        links.give_back(link)
    assert len(named(server, "links")) == 1
    links.close()
    wait_until(lambda: not named(server, "links"), "closed")


def test_a_connection_that_the_server_has_closed_is_made_anew_before_it_is_used(server):
    links = made(server)
    link = links.take()
    links.give_back(link)
    (number,) = named(server, "links")
    server.redis.client_kill_filter(_id=number)
    wait_until(lambda: not named(server, "links"), "killed")
    again = links.take()
    assert again is link
    assert ask(again, "PING") == b"PONG"
    links.close()


def test_a_connection_that_holds_a_reply_is_not_handed_to_the_next_user(server):
    links = made(server)
    link = links.take()
    link.connection.send_command("ECHO", "another's")
    wait_until(lambda: link._poll.poll(0), "the reply is there")
    links.give_back(link)
    assert ask(links.take(), "ECHO", "mine") == b"mine"
    links.close()


def test_a_dropped_connection_is_closed_and_made_anew(server):
    links = made(server)
    link = links.take()
    link.connection.send_command("ECHO", "another's")
    links.drop(link)
    assert ask(links.take(), "ECHO", "mine") == b"mine"
    assert len(named(server, "links")) == 1
    links.close()


def test_no_more_connections_are_made_than_allowed(server):
    links = made(server)
    taken = [links.take(), links.take()]
    began = time.monotonic()
    with pytest.raises(exceptions.ConnectionError, match="no connection became free"):
        links.take()
    assert time.monotonic() - began >= 0.2
    links.give_back(taken.pop())
    links.give_back(links.take())
    links.close()


def test_whoever_waits_for_a_connection_gets_the_one_that_is_given_back(server):
    links = made(server, size=1, timeout=10)
    link = links.take()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(links.take()))
    thread.start()
    wait_until(lambda: links._waiting, "it waits")
    links.give_back(link)
    thread.join(5)
    assert got == [link]
    links.close()


KILLED_WHILE_IT_WAITS = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from pytask.store.addresses import resolve_target
from pytask.store.links import Links

links = Links(resolve_target(sys.argv[1]).pool(timeout=5, size=1), size=1, timeout=30)
link = links.take()
first, second = gevent.spawn(links.take), gevent.spawn(links.take)
while links._waiting < 2:
    gevent.sleep(0.01)
began = time.monotonic()
first.kill(block=False)
links.give_back(link)  # the first one is told of it, and dies before it hears that
assert second.get(timeout=20) is link
assert first.dead and not links._waiting
assert time.monotonic() - began < 10, "the connection lay there, and nobody knew"
"""


def test_a_connection_goes_to_the_next_who_waits_where_the_first_is_killed(server):
    command = [sys.executable, "-c", KILLED_WHILE_IT_WAITS, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_forked_process_closes_the_connections_that_it_made(server):
    links = made(server)
    links.give_back(links.take())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            links.give_back(links.take())
            links.close()
            wait_until(lambda: len(named(server, "links")) == 1, "its parent's alone is open")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    links.close()


def test_a_connection_that_cannot_be_made_takes_no_place():
    links = Links(resolve_target("redis://127.0.0.1:1").pool(timeout=1, size=1), size=1, timeout=0.2)
    for _ in range(3):
        with pytest.raises(exceptions.ConnectionError, match="refused"):
            links.take()


def test_threads_share_connections_without_crossing_replies(server, app):
    app.helpers.start_task("noop")  # so that the helpers exist
    problems: list[object] = []

    def make(number: int) -> None:
        for turn in range(50):
            task_id = app.helpers.start_task("noop", {"n": number, "turn": turn})
            if app.helpers.get_task(task_id, "data") != f'{{"n":{number},"turn":{turn}}}':
                problems.append(task_id)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not problems
    assert server.redis.llen("new-task") == 24 * 50 + 1


def test_a_forked_process_uses_connections_of_its_own(server):
    app = PyTask(server.url)
    first = app.helpers.start_task("noop")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(100):
                app.helpers.start_task("noop")
            status = 0
        finally:
            os._exit(status)
    for _ in range(100):
        assert app.helpers.get_task(first, "task") == "noop"
    assert os.waitpid(child, 0)[1] == 0
    assert app.helpers.get_task(first, "task") == "noop"
    assert server.redis.llen("new-task") == 101
    app.close()
