"""Interest: who waits for which channels, driven at random against a server that answers late."""

from __future__ import annotations

import random
import threading

import pytest

from pytask.errors import StoreUnavailable
from pytask.interest import MOST_CHANNELS, MOST_HEARD, Interest, Watch


def watch(*channels: bytes, accepts=lambda message: True) -> Watch:
    return Watch(channels, accepts, threading.Event())


def subscribe(channel: bytes) -> list:
    return [b"subscribe", channel, 1]


class Server:
    """Obeys late and answers late; knows what the connection is subscribed to."""

    def __init__(self) -> None:
        self.channels: set[bytes] = set()
        self.commands: list[list[bytes]] = []
        self.replies: list[list] = []

    def send(self, command: list[bytes]) -> None:
        self.commands.append(command)

    def obey(self) -> None:
        command = self.commands.pop(0)
        for channel in command[1:]:
            if command[0] == b"SUBSCRIBE":
                self.channels.add(channel)
            else:
                self.channels.discard(channel)
            self.replies.append([command[0].lower(), channel, len(self.channels)])

    def publish(self, channel: bytes, message: bytes) -> None:
        if channel in self.channels:
            self.replies.append([b"message", channel, message])


@pytest.mark.parametrize("seed", range(200))
def test_whoever_is_told_that_its_subscription_stands_misses_nothing_from_then_on(seed):
    rng = random.Random(seed)
    names = [b"a", b"b", b"c"]
    interest, server, watches = Interest(), Server(), []
    stands: dict[Watch, list] = {}
    for step in range(300):
        match rng.randrange(7):
            case 0:
                watches.append(watch(*rng.sample(names, rng.randint(1, 3))))
                interest.add(watches[-1])
            case 1 if watches:
                leaving = watches.pop(rng.randrange(len(watches)))
                interest.remove(leaving)
                stands.pop(leaving, None)
            case 2 if interest.has_commands:
                server.send(interest.take_command())
            case 3 if server.replies:
                interest.feed(server.replies.pop(0))
            case 4:
                channel, message = rng.choice(names), str(step).encode()
                server.publish(channel, message)
                for listener, expected in stands.items():
                    if channel in listener.channels:
                        expected.append(message)
            case 5 if server.commands:
                server.obey()
            case 6 if rng.random() < 0.05:
                interest.lose()
                server = Server()
                stands.clear()
        for listener in watches:
            if listener._renewed and listener not in stands:
                listener.take()
                stands[listener] = []
    for reply in server.replies:
        interest.feed(reply)
    for listener, expected in stands.items():
        heard = [message for _, message in listener.take().messages]
        assert heard[len(heard) - len(expected) :] == expected


def test_all_that_is_wanted_is_subscribed_to_in_the_end_and_nothing_else():
    rng = random.Random(1)
    interest, server, watches = Interest(), Server(), []
    for _ in range(500):
        if watches and rng.random() < 0.5:
            interest.remove(watches.pop(rng.randrange(len(watches))))
        else:
            watches.append(watch(b"%d" % rng.randrange(20)))
            interest.add(watches[-1])
        if rng.random() < 0.3 and interest.has_commands:
            server.send(interest.take_command())
        if rng.random() < 0.02:
            interest.lose()
            server = Server()
    while interest.has_commands:
        server.send(interest.take_command())
    while server.commands:
        server.obey()
    for reply in server.replies:
        interest.feed(reply)
    assert server.channels == {channel for listener in watches for channel in listener.channels}
    assert all(not listener.missing for listener in watches)
    for listener in watches:
        interest.remove(listener)
        interest.remove(listener)
    assert not interest
    assert not interest.watches


def test_many_channels_are_subscribed_to_in_several_commands():
    interest = Interest()
    interest.add(watch(*[b"%d" % number for number in range(MOST_CHANNELS + 1)]))
    assert [len(interest.take_command()), len(interest.take_command())] == [MOST_CHANNELS + 1, 2]
    assert interest.take_command() == []


def test_the_confirmation_of_a_subscription_that_was_given_up_does_not_count():
    interest, first, second = Interest(), watch(b"a"), watch(b"a")
    interest.add(first)
    interest.take_command()
    interest.remove(first)
    assert interest.take_command() == [b"UNSUBSCRIBE", b"a"]
    interest.add(second)
    interest.feed(subscribe(b"a"))
    assert second.missing
    interest.take_command()
    interest.feed([b"unsubscribe", b"a", 0])
    assert second.missing
    interest.feed(subscribe(b"a"))
    assert second.take().renewed


def test_a_watch_that_does_not_keep_up_is_told_to_look_instead():
    interest, slow = Interest(), watch(b"a")
    interest.add(slow)
    interest.take_command()
    interest.feed(subscribe(b"a"))
    assert slow.take() == (True, [])
    for number in range(MOST_HEARD + 1):
        interest.feed([b"message", b"a", b"%d" % number])
    assert slow.take() == (True, [(b"a", b"%d" % MOST_HEARD)])


def test_those_without_a_subscription_are_refused_and_the_others_go_on():
    interest, standing, waiting = Interest(), watch(b"a"), watch(b"a", b"b")
    interest.add(standing)
    interest.take_command()
    interest.feed(subscribe(b"a"))
    interest.add(waiting)
    interest.refuse(StoreUnavailable("no"))
    with pytest.raises(StoreUnavailable):
        waiting.take()
    assert standing.take().renewed
    assert interest.watches == {standing}


@pytest.mark.parametrize(
    "reply", [[b"pong", b""], b"PONG", 1, [b"message", b"unknown", b"x"], [b"other", b"a", b"b"]]
)
def test_what_nobody_asked_for_does_no_harm(reply):
    interest = Interest()
    interest.add(watch(b"a"))
    interest.feed(reply)
    assert interest


class Crossed(Watch):
    """Its subscription begins to stand in the very moment in which somebody asks for the news."""

    asked = False
    renewed = False

    @property
    def _renewed(self):
        before = self.renewed
        if self.asked:
            self.asked = False
            self.note_standing(b"a")
        return before

    @_renewed.setter
    def _renewed(self, value):
        self.renewed = value


def test_a_subscription_that_stands_while_the_news_are_taken_is_told_the_next_time():
    crossed = Crossed([b"a"], lambda message: True, threading.Event())
    crossed.asked = True
    assert crossed.take().renewed is False
    assert crossed.alarm.is_set()
    assert crossed.take().renewed is True
