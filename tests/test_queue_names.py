"""Queues as people write them: names, how many of their tasks at once, weights."""

from __future__ import annotations

import pytest

from pytask import PyTask
from pytask.errors import SettingError
from pytask.names import check_queue_name, queue_name_of
from pytask.queue_names import QueueNames, Share, check_queues
from pytask.settings import Settings, load


@pytest.mark.parametrize(
    ("given", "names", "shares"),
    [
        ("mail", ("mail",), {}),
        ("mail=3,crawl", ("mail", "crawl"), {"mail": Share(None, 3)}),
        ("mail:50", ("mail",), {"mail": Share(50)}),
        (["mail:50=3", "default=2"], ("mail", ""), {"mail": Share(50, 3), "": Share(None, 2)}),
        ({"email": 50, "crawl": 500}, ("email", "crawl"), {"email": Share(50), "crawl": Share(500)}),
        ({"": {"concurrency": 50, "weight": 3}, "b": None}, ("", "b"), {"": Share(50, 3)}),
        ({"a": {"weight": "3"}, "b": {}}, ("a", "b"), {"a": Share(None, 3)}),
        ({"a": 50.0}, ("a",), {"a": Share(50)}),
        ("a=2,b,a=2", ("a", "b"), {"a": Share(None, 2)}),
        ("", ("",), {}),
    ],
)
def test_limits_and_weights_stand_beside_the_names(given, names, shares):
    found = Settings(queues=given).queues
    assert found == names
    assert tuple(found) == names
    assert dict(found.shares) == shares
    assert check_queues(found) is found
    assert check_queues(found.text) == found


@pytest.mark.parametrize(
    "given",
    [
        "mail:0", "mail=0", "mail:-1", "mail=-3", "mail:", "mail=", "mail:=", "mail:x", "mail=x", "mail=1.5",
        ":5", "=3", "mail:nan", "mail:50:3", "mail=3:50", "mail=1001", "mail:1000001", "ma il=3", "mail:50=3=3",
        {"mail": 0}, {"mail": -1}, {"mail": True}, {"mail": 1.5}, {"mail": float("nan")}, {"mail": "many"},
        {"mail": [3]}, {"mail": {"concurrency": 0}}, {"mail": {"weight": 0}}, {"mail": {"weight": "heavy"}},
        {"mail": {"wait": 3}}, {"mail": {3: 3}}, {"ma il": 3}, {7: 3}, {}, {"": 3, "default": 4}, "a=2,a=3",
        "a,a:5", ["a:5", "a"], [7], [None],
    ],
)  # fmt: skip
def test_what_is_neither_is_refused_with_a_reason(given):
    with pytest.raises(SettingError, match=r"^setting queues: .*(allowed|must be|named twice|neither)"):
        Settings(queues=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mail:0", "queue 'mail': concurrency '0' is not allowed: it must be an integer, 1 to 1000000 tasks"),
        ({"mail": {"weight": -1}}, "queue 'mail': weight -1 is not allowed: it must be an integer, 1 to 1000"),
        ("a=2,a=3", "queue 'a' is named twice, as 'a=2' and as 'a=3': name it once"),
        ({"a": {"waits": 1}}, "queue 'a': 'waits' is neither concurrency nor weight"),
        ("a:", "'a:' is not allowed: it must be a queue's name, with at most so many of its tasks"),
    ],
)
def test_the_reason_names_the_queue_and_what_is_allowed(given, message):
    with pytest.raises(SettingError) as found:
        check_queues(given)
    assert str(found.value).startswith(message)


def test_a_file_and_the_environment_say_the_same(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('[queues]\nmail = {concurrency = 50, weight = 3}\ncrawl = 500\n"default" = {}\n')
    from_file = load(file=file, environ={}).queues
    from_environment = load(environ={"PYTASK_QUEUES": "mail:50=3,crawl:500,default"}, cwd=tmp_path).queues
    assert from_file == from_environment == QueueNames(("mail", "crawl", ""), from_file.shares)
    assert from_file.text == "mail:50=3,crawl:500,default"


def test_queues_with_other_limits_are_not_equal_and_a_copy_of_settings_keeps_them():
    first, second = Settings(queues="mail=3"), Settings(queues="mail=4")
    assert first.queues != second.queues
    assert first != second
    assert first.replace(grace=1).queues.shares == first.queues.shares
    assert hash(first.queues) == hash(("mail",))


def test_the_helpers_of_an_app_cover_the_names(server):
    app = PyTask(server.url, queues={"mail": 50, "crawl": {"weight": 3}})
    assert app.helpers.queues == ("mail", "crawl")
    assert list(app.helpers.get_queues(find=False)) == ["crawl", "mail"]
    app.close()


@pytest.mark.parametrize("text", ["mail", "a.b_c-D9", "x" * 64, "Any-group"])
def test_a_word_that_is_a_queue_name_names_its_own_queue(text):
    assert queue_name_of(text) == text


@pytest.mark.parametrize("text", ["", "default"])
def test_no_word_and_the_word_default_name_the_default_queue(text):
    assert queue_name_of(text) == ""


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("Any task group name", "Any-task-group-name-"),
        ("Größe XL / Öl", "Grosse-XL-Ol-"),
        ("mail:fast", "mail-fast-"),
        ("  spaces  ", "spaces-"),
        ("{braces}", "braces-"),
        ("メール", "queue-"),
        ("\ud800", "queue-"),
        ("\x00", "queue-"),
        ("x" * 65, "x" * 55 + "-"),
        ("x y" * 400_000, "x-yx-y"),
        ("\ufdfa" * 60, "queue-"),
    ],
)
def test_any_other_word_gets_a_readable_queue_name(text, begins):
    name = queue_name_of(text)
    assert name.startswith(begins)
    assert check_queue_name(name) == name
    assert queue_name_of(name) == name
    assert name == queue_name_of(text)


def test_words_that_read_alike_get_queues_of_their_own():
    words = [
        "mail fast",
        "mail  fast",
        "mail:fast",
        "mail fast ",
        "mäil fast",
        "ma\u0308il fast",
        "mail-fast",
        "x" * 65,
        "x" * 66,
    ]
    assert len({queue_name_of(word) for word in words}) == len(words)


def test_the_queue_of_a_word_stays_the_same_in_every_version():
    assert queue_name_of("Any task group name") == "Any-task-group-name-a62e38ca"


@pytest.mark.parametrize("word", [None, 7, b"mail", ["mail"], float("nan")])
def test_what_is_no_text_names_no_queue(word):
    with pytest.raises(SettingError, match="a queue is named by text"):
        queue_name_of(word)
