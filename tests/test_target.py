"""Which server to talk to: what a user may give; and what happens where it cannot be reached, or refuses."""

from __future__ import annotations

import socket
import time

import pytest
import redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from pytask import PyTask
from pytask.embedded import EmbeddedServer
from pytask.errors import ConfigurationError, StoreRefused, StoreUnavailable
from pytask.store.addresses import resolve_target
from pytask.store.client import Client, passes
from pytask.store.cluster import ClusterTarget, slots_of
from pytask.store.sentinel import SentinelTarget
from pytask.store.servers import key_of


@pytest.fixture(scope="module")
def port_server():
    """A server at a port, with a password."""
    with EmbeddedServer(tcp=True) as running:
        yield running


# What a user may give.


@pytest.mark.parametrize(
    ("given", "kind", "arguments", "address"),
    [
        (None, Connection, {}, "localhost:6379/0"),
        ({}, Connection, {}, "localhost:6379/0"),
        ({"host": "h", "port": 7}, Connection, {"host": "h", "port": 7}, "h:7/0"),
        ({"host": "h", "db": 3, "password": "p"}, Connection, {"host": "h", "db": 3, "password": "p"}, "h:6379/3"),
        ({"unix_socket_path": "/s"}, UnixDomainSocketConnection, {"path": "/s"}, "unix:/s"),
        ({"host": "h", "ssl": True}, SSLConnection, {"host": "h"}, "h:6379/0"),
        ("redis://h", Connection, {"host": "h"}, "h:6379/0"),
        (
            "redis://u:p%40@h:7/3",
            Connection,
            {"host": "h", "port": 7, "db": 3, "username": "u", "password": "p@"},
            "h:7/3",
        ),
        ("rediss://h", SSLConnection, {"host": "h"}, "h:6379/0"),
        ("unix:///a/b.sock?db=2", UnixDomainSocketConnection, {"path": "/a/b.sock", "db": 2}, "unix:/a/b.sock"),
        (
            "redis://h?socket_connect_timeout=3",
            Connection,
            {"host": "h", "socket_connect_timeout": 3.0},
            "h:6379/0",
        ),
    ],
)
def test_a_server_is_named_by_a_dict_or_a_url(given, kind, arguments, address):
    target = resolve_target(given)
    assert target.connection_class is kind
    assert dict(target.arguments) == arguments
    assert target.address == address


@pytest.mark.parametrize(
    "name", ["retry", "decode_responses", "protocol", "max_connections", "socket_timeout", "client_name"]
)
def test_what_is_ours_to_decide_is_not_taken_over(name):
    assert dict(resolve_target({"host": "h", name: 5}).arguments) == {"host": "h"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"hots": "h"}, "unknown connection argument for Redis: 'hots'"),
        ({"path": "/s", "host": "h"}, "'host'"),
        ("http://h", "begins with redis://, .*, not 'http'"),
        ("localhost:6379", "begins with"),
        ("", "begins with"),
        ("redis://h:port", "the Redis URL is wrong"),
        ("redis://h?nonsense=1", "'nonsense'"),
        (5, "not int"),
        (b"redis://h", "not bytes"),
        ([("h", 1, 2)], "a server is 'host:port'"),
        ([], "names no server of the cluster"),
        (["h:port"], "written host:port"),
        ([("h", 70000)], "a port is a number"),
        ("redis+cluster://h/3", "one database"),
        ({"nodes": ["h"], "db": 2}, "one database"),
        ("redis+cluster://h/?nonsense=1", "'nonsense'"),
        ("redis+sentinel://h:1", "names its master"),
        ("redis+sentinel://h:1/m/x", "a number"),
        ({"sentinels": ["h"]}, "needs 'service'"),
        ("redis+cluster://", "written host:port"),
        ("rediss://h/?ssl_cert_reqs=bogus", "TLS .*bogus"),
        ("rediss+cluster://h/?ssl_cert_reqs=bogus", "TLS .*bogus"),
        ("redis+sentinel://h/m?sentinel_ssl=true&sentinel_ssl_cert_reqs=bogus", "TLS .*bogus"),
        ({"host": "h", "ssl": True, "ssl_cert_reqs": "bogus"}, "TLS .*bogus"),
    ],
)
def test_what_names_no_server_is_refused_in_words(given, why):
    with pytest.raises(ConfigurationError, match=why):
        resolve_target(given)


@pytest.mark.parametrize(
    "given",
    [
        "redis://:s3cret@h:port",
        "http://:s3cret@h",
        "redis://:s3cret@h?nonsense=1",
        {"password": "s3cret", "nonsense": 1},
        "redis://:s3cret@h:99999999",
    ],
)
def test_no_error_and_no_repr_holds_a_password(given):
    with pytest.raises(ConfigurationError) as caught:
        print(resolve_target(given).client().ping())
    assert "s3cret" not in str(caught.value) + repr(caught.value)


def test_a_target_does_not_show_its_password():
    target = resolve_target("redis://user:s3cret@h")
    assert "s3cret" not in repr(target) + str(target) + target.address


def test_the_password_of_a_file_is_used_where_there_is_no_other():
    assert resolve_target("redis://h", "file").arguments["password"] == "file"
    assert resolve_target({"host": "h"}, "file").arguments["password"] == "file"
    assert resolve_target("redis://:url@h", "file").arguments["password"] == "url"
    assert "password" not in resolve_target("redis://h").arguments


def test_of_a_client_the_settings_of_its_connections_are_taken():
    client = redis.Redis(
        host="h", port=7, db=3, username="u", password="p", decode_responses=True, socket_timeout=1, ssl=True
    )
    target = resolve_target(client)
    assert target.connection_class is SSLConnection
    wanted = {"host": "h", "port": 7, "db": 3, "username": "u", "password": "p"}
    assert wanted.items() <= target.arguments.items()
    assert not {"retry", "decode_responses", "socket_timeout", "protocol"} & set(target.arguments)
    assert resolve_target(redis.Redis(unix_socket_path="/s")).address == "unix:/s"


def test_a_pool_repeats_nothing_by_itself_and_speaks_bytes():
    pool = resolve_target({"host": "h"}).pool(timeout=7, size=3, name="me")
    connection = pool.make_connection()
    assert connection.socket_timeout == 7
    assert connection.retry._retries == 0
    assert connection.client_name == "me"
    assert not connection.encoder.decode_responses
    assert pool.max_connections == 3


# Errors, by what a caller can do about them.


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (redis.ConnectionError("x"), True),
        (redis.TimeoutError("x"), True),
        (redis.BusyLoadingError("x"), True),
        (redis.ResponseError("LOADING Redis is loading"), True),
        (redis.ResponseError("READONLY You can't write"), True),
        (redis.ResponseError("UNBLOCKED"), True),
        (redis.ResponseError("OOM command not allowed"), True),
        (redis.ResponseError("CLUSTERDOWN x"), True),
        (redis.ResponseError("WRONGTYPE x"), False),
        (redis.ResponseError("ERR unknown command"), False),
        (redis.AuthenticationError("x"), False),
        (redis.exceptions.NoPermissionError("x"), False),
        (redis.DataError("x"), False),
    ],
    ids=str,
)
def test_an_error_passes_by_itself_or_does_not(error, passing):
    assert passes(error) is passing
    servers = Failing(error)
    with pytest.raises(StoreUnavailable if passing else StoreRefused):
        Client(servers, patience=0.2).execute("GET", "k")
    assert (servers.calls > 1) is passing
    servers.calls = 0
    with pytest.raises((StoreUnavailable, StoreRefused)):
        Client(servers, patience=0.2).execute("GET", "k", patience=0)
    assert servers.calls == 1


class Failing:
    """Servers that answer every command with one error."""

    one = True

    def __init__(self, error):
        self.error = error
        self.calls = 0

    def send(self, commands, *, durable=False):
        self.calls += 1
        return [self.error for _ in commands]


def test_a_script_that_the_server_forgot_is_sent_again(server):
    client = Client(resolve_target(server.url).servers())
    keys, args = (b"new-task", b"{new-task}:claims", b"{new-task}:due", b"{new-task}:again"), (b"T",)
    for _ in range(2):
        assert client.call("nudge", keys, args) == 0
        server.redis.script_flush()


# A server that refuses, or is not there.


def wrong(url: str) -> str:
    return "redis://:wr0ng-s3cret@" + url.rpartition("@")[2]


def test_a_wrong_password_is_refused_and_never_shown(port_server):
    app = PyTask(wrong(port_server.url))
    with pytest.raises(StoreRefused) as caught:
        app.helpers.get_task("T")
    assert "s3cret" not in str(caught.value) + repr(app.settings) + repr(app.target)
    app.close()


def test_a_node_with_a_wrong_password_ends_with_3_and_never_shows_it(port_server, start_node):
    began = time.monotonic()
    node = start_node("-u", wrong(port_server.url), ready=False)
    assert node.wait() == 3
    assert time.monotonic() - began < 8, "another try does not help"
    assert "check user and password" in node.text()
    assert "s3cret" not in node.text()
    assert "Traceback" not in node.text()


def test_a_server_that_wants_no_password_refuses_one(start_node, server, tmp_path):
    node = start_node("-u", f"unix://:wr0ng-s3cret@{server.embedded.socket_path}", ready=False)
    assert node.wait() == 3
    assert "s3cret" not in node.text()


@pytest.fixture
def silent_port():
    """Somebody listens there, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_node_without_redis_ends_with_3_within_connect_timeout(start_node, silent_port, kind):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = silent_port if kind == "silent" else probe.getsockname()[1]
        began = time.monotonic()
        node = start_node("-u", f"redis://127.0.0.1:{port}", ready=False, connect_timeout="1")
        assert node.wait() == 3
        assert time.monotonic() - began < 8, "1 s, and what the start of a process takes; not the default of 10"
    assert f"no Redis at 127.0.0.1:{port}/0" in node.text()
    assert "Traceback" not in node.text()


def test_a_node_waits_for_a_redis_that_comes_within_connect_timeout(start_node):
    with EmbeddedServer(tcp=True) as running:
        port, url = int(running.url.rpartition(":")[2].partition("/")[0]), running.url
        running.stop()
        with socket.create_server(("127.0.0.1", port)) as listener:
            node = start_node("-u", url, ready=False, connect_timeout="30")
            listener.settimeout(20)
            listener.accept()[0].close()  # it has tried
        running.start()
        node.wait_for_log("local   ")
        assert node.terminate() == 0


def test_helpers_without_redis_give_up_after_some_seconds():
    app = PyTask({"host": "127.0.0.1", "port": 1})
    app.helpers.store.client.patience = 0.2
    with pytest.raises(StoreUnavailable):
        app.helpers.start_task("echo")
    app.close()


# Several servers.


def test_a_url_names_a_cluster():
    target = resolve_target(
        "rediss+cluster://u%40x:p%2Fw@h1:7000,[::1]:7001,h3/?ssl_ca_certs=ca.pem&socket_keepalive=true"
    )
    assert isinstance(target, ClusterTarget)
    assert target.seeds == (("h1", 7000), ("::1", 7001), ("h3", 6379))
    assert target.connection_class is SSLConnection
    assert target.arguments == {
        "username": "u@x", "password": "p/w", "ssl_ca_certs": "ca.pem", "socket_keepalive": True,
    }  # fmt: skip
    assert target.address == "cluster h1:7000,::1:7001,h3:6379"
    assert "p/w" not in repr(target)


def test_a_url_names_a_master_and_its_sentinels():
    url = "redis+sentinel://:pw@h1,h2:5000/main/3?sentinel_username=watch&sentinel_password=spw"
    target = resolve_target(url)
    assert isinstance(target, SentinelTarget)
    assert (target.seeds, target.service) == ((("h1", 26379), ("h2", 5000)), "main")
    assert target.arguments == {"password": "pw", "db": 3}
    assert target.guard == {"username": "watch", "password": "spw"}
    assert target.address == "main of sentinel h1:26379,h2:5000"
    assert "pw" not in repr(target)


def test_sentinels_speak_tls_where_the_servers_do_unless_they_are_told_not_to():
    url = "rediss+sentinel://h1/main?ssl_ca_certs=ca.pem"
    assert resolve_target(url).guard == {"ssl": True, "ssl_ca_certs": "ca.pem"}
    assert resolve_target(url + "&sentinel_ssl=false").guard == {}


def test_the_password_of_a_file_is_for_the_servers_of_a_cluster_too():
    target = resolve_target(["h1:7000"], "file")
    assert isinstance(target, ClusterTarget)
    assert target.arguments["password"] == "file"


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("HSET", b"task-a", "x", 1), b"task-a"),
        (("EVALSHA", "0" * 40, 2, b"new-task", b"x"), b"new-task"),
        ((b"hget", b"task-a", b"x"), b"task-a"),
        (("PING",), None),
        (("SCAN", 0), None),
        (("OBJECT", "ENCODING", "k"), "k"),
        (("PUBLISH", b"task-a", b"x"), b"task-a"),
    ],
    ids=str,
)
def test_a_command_goes_to_the_server_of_its_first_key(command, key):
    assert key_of(command) == key


def test_the_slots_of_a_cluster_are_read_with_the_host_that_was_asked_where_none_is_told():
    rows = [[0, 100, [b"", 7000, b"id"], [b"10.0.0.2", 7001, b"id"]], [102, 16383, [b"?", 7002, b"id"]]]
    slots = slots_of(rows, "asked")
    assert slots.masters[100] == ("asked", 7000)
    assert slots.masters[101] is None
    assert slots.masters[16383] == ("asked", 7002)
    assert slots.known == {("asked", 7000), ("10.0.0.2", 7001), ("asked", 7002)}
