"""Users with the rights that docs/security.md lists: enough, and not one too many.

The lines of that page are sent to the server as they stand there. Whatever it refuses then is in its ACL LOG.
"""

from __future__ import annotations

import ast
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nursery
import pytest
import redis
from chaos.servers import ServerProcess, find_ports
from conftest import Server, wait_until

from pytask import PyTask, PyTaskHelpers
from pytask.embedded import find_binary
from pytask.errors import StoreRefused, TaskFailed, TaskGone, TaskNotFoundError, TaskTimeout
from pytask.key_table import KEY_TABLE
from pytask.store.scripts import script, script_names

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "security.md"
STORE = ROOT / "pytask" / "store"
# What is asked for and done without, as the page says.
DONE_WITHOUT = {"config|get", "client|setinfo"}
# No node sends these by itself.
OF_HELPERS = {"rename", "lindex", "zscan", "zrevrange", "zcount", "xrange"}
OF_DELETED_NAMESPACES = {"type", "unlink"}  # of no user of the page, as it says

Rights = dict[str, list[str]]  # user -> what stands behind the name, in order


def rights_of(text: str) -> Rights:
    """The users of some `ACL SETUSER` lines."""
    found: Rights = {}
    for line in text.splitlines():
        _, _, user, *words = line.split()
        found.setdefault(user, []).extend(words)
    return found


def of_page(language: str = "acl") -> Rights:
    return rights_of("".join(re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)))


def in_namespace(words: list[str], namespace: str) -> list[str]:
    """The same rights in a namespace, made as the page says: by a replacement in the patterns."""
    if not namespace:
        return words
    begins = "task-|new-task|end-task|node-|alive-|unique-|limit-|workflow|service|schedule"
    names = re.compile(rf"^((?:%[RW]+)?[~&]\{{?)(?=(?:{begins}))")
    return [names.sub(rf"\g<1>{namespace}:", word) for word in words]


def patterns_of(user: str, sign: str) -> list[str]:
    found = (re.fullmatch(rf"(?:%[RW]+)?{sign}(.*)", word) for word in of_page()[user])
    return [match[1] for match in found if match]


def commands_of(user: str) -> set[str]:
    return {word[1:] for word in of_page()[user] if word[0] == "+"}


class Users:
    """The users of the page on one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.redis = server.redis
        self.namespace = ""
        self.set(of_page())

    def set(self, rights: Rights) -> None:
        for user, words in rights.items():
            self.redis.execute_command("ACL", "SETUSER", user, *in_namespace(words, self.namespace))
        self.redis.acl_log_reset()

    def set_without(self, user: str, right: str) -> None:
        self.set({user: [word for word in of_page()[user] if word != right]})

    def url(self, user: str, password: str | None = None) -> str:
        if password is None:
            password = user.removeprefix("pytask-") + "-password"
        return self.server.url.replace("://", f"://{user}:{password}@")

    def client(self, user: str) -> redis.Redis:
        # as a program in another language connects: without a word about itself
        return redis.Redis.from_url(self.url(user), driver_info=None, protocol=2)

    def refused(self) -> set[str]:
        """What the server refused, but for what the page says is done without."""
        return refused_by(self.redis)


def refused_by(client: redis.Redis) -> set[str]:
    rows = [{str(k): _text(v) for k, v in row.items()} for row in client.acl_log()]
    client.close()
    seen = {f"{row['username']}: {row['reason']} {row['object']} ({row['context']})" for row in rows}
    return {row for row in seen if not any(f" {name} " in row for name in DONE_WITHOUT)}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture
def users(server: Server) -> Iterator[Users]:
    made = Users(server)
    yield made
    for user in of_page():
        made.redis.acl_deluser(user)
    made.redis.acl_log_reset()


# A producer, and who watches.


def produce(client: redis.Redis) -> None:
    client.hset("task-P", mapping={"task": "echo", "data": "{}"})
    client.lpush("new-task", "P")
    client.lpush("new-task:mail", "P")
    client.publish("task-P-control", "stop")


def watch(client: redis.Redis) -> None:
    client.hget("task-P", "state")
    client.hmget("task-P", "state", "output")
    client.hgetall("task-P")
    client.exists("task-P")
    client.xrange("{task-P}:events")
    with client.pubsub() as pubsub:
        for subscribe, name in (
            (pubsub.psubscribe, "task-*"),
            (pubsub.subscribe, "task-P"),
            (pubsub.psubscribe, "task-*-control"),
        ):
            subscribe(name)
            assert pubsub.get_message(timeout=5)["type"] == subscribe.__name__
        pubsub.unsubscribe("task-P")
        assert pubsub.get_message(timeout=5)["type"] == "unsubscribe"


WORK: dict[str, Callable[[redis.Redis], None]] = {"pytask-producer": produce, "pytask-watcher": watch}
EACH = [(user, word) for user in WORK for word in of_page()[user] if word[0] in "~%&+"]


@pytest.mark.parametrize("user", WORK)
def test_a_user_of_the_page_may_do_its_work(users, user):
    WORK[user](users.client(user))
    assert not users.refused()


@pytest.mark.parametrize(("user", "right"), EACH)
def test_without_any_one_of_its_rights_its_work_is_refused(users, user, right):
    users.set_without(user, right)
    with pytest.raises(redis.exceptions.NoPermissionError):
        WORK[user](users.client(user))


def test_a_producer_cannot_read_and_touches_nothing_else(users):
    client = users.client("pytask-producer")
    for refused in (
        lambda: client.hgetall("task-P"),
        lambda: client.hset("node-x", "a", "b"),
        lambda: client.lpush("{new-task}:dead", "P"),
        lambda: client.lpush("end-task", "P"),
        lambda: client.publish("task-P", "{}"),
        lambda: client.eval("return 1", 0),
        client.keys,
        client.config_get,
        client.acl_list,
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            refused()


# The helpers.


def wait_and_follow(helpers: PyTaskHelpers) -> None:
    """Wait for a result that does not come, and for one that is there; follow a task; send it something."""
    for wait in (lambda: helpers.get_result("W", 0.1), lambda: list(helpers.follow_task("W", timeout=0.1))):
        with pytest.raises(TaskTimeout):
            wait()
    with pytest.raises(TaskFailed):
        helpers.get_result("ended", 5)
    with pytest.raises(TaskGone):
        helpers.get_result("absent", 5)
    helpers.send_to_task("W", {})


def every_helper(app: PyTask) -> None:
    """Call every helper, in every state that takes another way through its script."""
    helpers = app.helpers
    helpers.store.ping()
    helpers.start_task("echo", task_id="W")
    helpers.start_tasks([("echo", {}, "X"), ("echo", {}, "Y")], queue="mail")
    assert helpers.start_task("echo", unique=True) == helpers.start_task("echo", unique=True)
    wait_and_follow(helpers)
    helpers.reload_task("W")
    helpers.stop_task("W")
    helpers.stop_task("parked")
    helpers.stop_task("parking")
    helpers.stop_task("running")
    helpers.restart_task("ended")
    helpers.restart_if_state("ended", "ERROR")
    helpers.get_task("ended")
    helpers.get_task("ended", ["state"])
    helpers.set_task("W", title="a")
    helpers.remove_task("X")
    assert helpers.get_new_task_ids()
    assert sorted(helpers.get_active_task_ids()) == ["parking", "running"]
    helpers.get_active_task_ids("mail")
    helpers.get_dead_task_ids()
    helpers.get_end_task_ids()
    assert "N" in helpers.get_nodes()
    with pytest.raises(TaskNotFoundError, match="absent"):
        helpers.stop_task("absent")
    see_to_lists(helpers)
    see_to_workflows(helpers)
    see_to_queues(helpers)
    see_to_services(helpers)
    see_to_schedules(helpers)


def see_to_lists(helpers: PyTaskHelpers) -> None:
    """List and count all tasks, and delete one that has ended."""
    helpers.start_workflow([["echo"], ["echo"]], workflow_id="F")
    helpers.set_task("F", state="HELD")
    assert {"W", "F"} <= {row["id"] for row in helpers.list_tasks()}
    assert helpers.list_tasks(queue="mail", name="echo")
    assert helpers.count_tasks(state=["HELD"]) == helpers.count_tasks_by_place()["held"] == 1
    assert helpers.get_nodes(find=True)
    helpers.set_task("F", state="STOPPED")
    assert helpers.delete_task("F")
    helpers.start_task("echo", task_id="gone")
    helpers.set_task("gone", state="ERROR")
    assert helpers.delete_task("gone")


def see_to_schedules(helpers: PyTaskHelpers) -> None:
    """What the helpers do for schedules."""
    helpers.add_schedule("nightly", "echo", cron="0 3 * * *", retries=1)
    helpers.add_schedule("nightly", "echo", every=5)
    helpers.pause_schedule("nightly")
    helpers.resume_schedule("nightly")
    assert helpers.run_schedule("nightly").startswith("nightly@")
    assert list(helpers.get_schedules()) == ["nightly"]
    assert helpers.get_schedule("none") is None
    helpers.remove_schedule("nightly")


def see_to_services(helpers: PyTaskHelpers) -> None:
    """What the helpers do for services; that of the fixture has a replica."""
    helpers.start_service("s", "echo", replicas=2, title="a")
    helpers.scale_service("s", 3)
    helpers.update_service("s", title=None)
    helpers.reload_service("s")
    assert helpers.get_service("s")["running"] == 1
    assert [row["id"] for row in helpers.get_replicas("s")] == ["s:0"]
    assert [row["name"] for row in helpers.list_services()] == ["s"]
    helpers.remove_service("s")


def see_to_workflows(helpers: PyTaskHelpers) -> None:
    """Start a small workflow and a large one, look at them, and delete them."""
    large = [("echo", {"text": "x" * 1000})] * 600
    for stages in ([["echo"], ["echo"]], [large]):
        handle = helpers.start_workflow(stages)
        assert handle in [row["id"] for row in helpers.list_workflows(limit=10_000)]
        assert helpers.count_workflows()
        assert handle.info()
        assert handle.tasks()
        handle.stop()
        helpers.set_task(handle, state="STOPPED")
        handle.delete()


def see_to_queues(helpers: PyTaskHelpers) -> None:
    """What the helpers do for whole queues; twice where it is another way the second time."""
    helpers.pause_queue("mail")
    assert helpers.get_queues()["mail"]["paused"]
    helpers.resume_queue("mail")
    helpers.stop_tasks(queue="mail")
    helpers.stop_tasks(name="nobody")
    helpers.restart_all(queue="mail")
    helpers.restart_all(states=["ERROR"])
    for queue in ("mail", ""):
        helpers.purge_queue(queue, scheduled=True)
        helpers.get_ended(queue)
    helpers.start_task("echo", task_id="dead")
    helpers.requeue_dead(ids=["Z"])
    helpers.requeue_dead()
    helpers.drop_dead(ids=["Z"])
    helpers.drop_dead()


@pytest.fixture
def tasks_in_every_state(server) -> None:
    server.redis.hset("{service-s}:applied", mapping={"made": "1", "revision": "7"})
    server.redis.hset("task-s:0", mapping={"task": "echo", "service": "s", "state": "RUNNING", "fence": "7"})
    server.redis.hset("task-parked", mapping={"task": "echo", "state": "RETRY", "at": "new-task"})
    server.redis.zadd("{new-task}:due", {"parked": 9e9})
    server.redis.hset("task-running", mapping={"task": "echo", "state": "RUNNING", "fence": "7", "at": "new-task"})
    server.redis.hset("{new-task}:claims", "running", "N 7")
    server.redis.hset("task-parking", mapping={"task": "echo", "state": "RETRY", "at": "new-task"})
    server.redis.hset("{new-task}:claims", "parking", "N 8")
    server.redis.hset("task-ended", mapping={"task": "echo", "state": "ERROR", "at": "new-task"})
    server.redis.hset("{new-task}:nodes", "N", "1")


@pytest.mark.usefixtures("tasks_in_every_state")
def test_a_helper_may_call_every_helper(users):
    app = PyTask(users.url("pytask-helper"))
    every_helper(app)
    app.close()
    assert not users.refused()


def test_who_deletes_a_namespace_needs_two_commands_more_and_its_keys(users):
    users.redis.hset("shop:task-a", "task", "echo")
    app = PyTask(users.url("pytask-helper"))
    assert app.helpers.find_namespaces()["shop"]["tasks"] == 1
    for rights in (("+type", "+unlink"), ("~shop:*", "~{shop:*")):
        with pytest.raises(StoreRefused):
            app.helpers.delete_namespace("shop")
        users.redis.execute_command("ACL", "SETUSER", "pytask-helper", *rights)
    assert app.helpers.delete_namespace("shop") == 1
    app.close()


@pytest.mark.usefixtures("tasks_in_every_state")
@pytest.mark.parametrize("right", [word for word in of_page()["pytask-helper"] if word[0] in "~%&+"])
def test_without_any_one_of_its_rights_some_helper_or_command_is_refused(users, right):
    users.set_without("pytask-helper", right)
    users.redis.script_flush()
    app = PyTask(users.url("pytask-helper"))

    def do_everything() -> None:
        every_helper(app)
        watch(users.client("pytask-helper"))

    # the scripts take what they must not read for a record that is none
    with pytest.raises((StoreRefused, TaskNotFoundError, redis.exceptions.NoPermissionError)):
        do_everything()
    app.close()


def test_the_client_commands_work_as_a_helper(users, start_node):
    start_node()
    environ = {**os.environ, "PYTASK_REDIS_URL": users.url("pytask-helper")}
    run_command(environ, "start", "loop", "text=hi", "--id", "L")
    wait_until(lambda: users.redis.hget("task-L", "state") == b"RUNNING")
    for words in (("show", "L"), ("reload", "L"), ("stop", "L")):
        run_command(environ, *words)
    wait_until(lambda: users.redis.hget("task-L", "state") == b"STOPPED")
    run_command(environ, "restart", "L")
    assert not users.refused()


def run_command(environ: dict[str, str], *words: str) -> None:
    ended = nursery.run(words, environ=environ)
    assert ended.returncode == 0, ended.stderr


# A node.


class Life:
    """Tasks of every kind on nodes that run as the page's user, in a namespace or in none."""

    def __init__(self, users: Users, start_node: Callable[..., Any], namespace: str) -> None:
        self.users = users
        self.redis = users.redis
        users.namespace = namespace
        users.set(of_page())
        self.prefix = f"{namespace}:" if namespace else ""
        self._start_node = start_node

    def start_node(self) -> Any:
        options = ["-u", self.users.url("pytask-node"), "-q", "default", "-q", "mail", "--grace", "0"]
        if self.prefix:
            options += ["--namespace", self.prefix[:-1]]
        return self._start_node(*options, hash_wait="0.5", unknown_wait="0.5", result_ttl="0")

    def create(self, task_id: str, task: str, data: str = "{}", queue: str = "", **fields: str) -> None:
        self.redis.hset(f"{self.prefix}task-{task_id}", mapping={"task": task, "data": data, **fields})
        self.redis.lpush(f"{self.prefix}new-task" + (f":{queue}" if queue else ""), task_id)

    def define(self, name: str, **fields: str) -> None:
        """Define a service, change it, or remove it."""
        key = f"{self.prefix}service-{name}"
        if fields:
            self.redis.hset(key, mapping=fields)
        else:
            self.redis.delete(key)
        self.redis.zadd(f"{self.prefix}services", {name: 0})

    def field(self, task_id: str, name: str = "state") -> str:
        return (self.redis.hget(f"{self.prefix}task-{task_id}", name) or b"").decode()

    def until(self, task_id: str, state: str) -> None:
        wait_until(lambda: self.field(task_id) == state, f"{task_id} is {state}, not {self.field(task_id)}")

    def tell(self, task_id: str, message: str) -> None:
        self.redis.publish(f"{self.prefix}task-{task_id}-control", message)

    def until_gone(self, *ids: str) -> None:
        """Cleanup has removed them."""
        wait_until(lambda: not self.redis.exists(*[f"{self.prefix}task-{task_id}" for task_id in ids]))


@pytest.mark.parametrize("namespace", ["", "shop"])
def test_a_node_lives_its_whole_life_with_these_rights(users, start_node, namespace):
    life = Life(users, start_node, namespace)
    first = life.start_node()
    for task_id, task, fields in (
        ("ok", "noop", {}),
        ("mail", "progress", {"queue": "mail"}),
        ("ttl", "noop", {"result_ttl": "600"}),
        ("kept", "noop", {"cleanup": "false"}),
        ("due", "noop", {"due": "9999999999"}),
        ("unknown", "no-such-task", {}),
        ("fail", "fail", {}),
        ("boom", "boom", {}),
    ):
        life.create(task_id, task, **fields)
    life.redis.lpush(f"{life.prefix}new-task", "no-hash")
    life.until_gone("ok", "mail")
    life.until("kept", "SUCCESS")
    life.until("due", "SCHEDULED")
    life.until("unknown", "EXCEPTION")
    life.until("fail", "ERROR")
    life.until("boom", "EXCEPTION")
    wait_until(lambda: life.redis.lrange(f"{{{life.prefix}new-task}}:dead", 0, -1) == [b"no-hash"])
    life.create("loop", "loop")
    life.until("loop", "RUNNING")
    life.tell("loop", "reload")
    life.tell("loop", "stop")
    life.until("loop", "STOPPED")
    life.create("long", "forever")
    life.until("long", "RUNNING")
    life.define("s", task="forever", replicas="4")
    for number in range(4):
        life.until(f"s:{number}", "RUNNING")
    life.redis.hset(f"{life.prefix}schedule-s", mapping={"task": "noop", "every": "0.5", "cleanup": "false"})
    life.redis.zadd(f"{life.prefix}schedules", {"s": 0})
    wait_until(lambda: life.redis.keys(f"{life.prefix}task-s@*"), "it fires")
    second = life.start_node()
    wait_until(lambda: len({life.field(f"s:{number}", "node") for number in range(4)}) == 2, "one is handed over")
    life.define("s", data='{"again": true}', replicas="3")
    life.until_gone("s:3")
    life.define("s")
    life.until_gone("s:0", "s:1", "s:2")
    wait_until(lambda: life.redis.hlen(f"{{{life.prefix}new-task}}:nodes") == 2)
    first.kill()
    wait_until(lambda: life.field("long", "deliveries") == "1", "the other one has it", 30)
    life.redis.hset(f"{life.prefix}schedule-s", "paused", "1")  # with its grace of 0 it would cut a fire short
    life.redis.zadd(f"{life.prefix}schedules", {"s": 0})
    claims = f"{{{life.prefix}new-task}}:claims"
    wait_until(lambda: float(life.redis.zscore(f"{life.prefix}schedules", "s")) > 2e9)
    wait_until(lambda: life.redis.hkeys(claims) == [b"long"])
    assert second.terminate() == 0
    assert life.field("long") == "WAIT"
    assert not users.refused()


def test_the_sweep_has_the_rights_that_it_needs(users, start_node, server):
    """A record that waits and stands nowhere, and ids of a node that nobody knows: both run."""
    start_node("-u", users.url("pytask-node"), node_timeout="2", sweep_interval="1")
    server.redis.hset("task-nowhere", mapping={"task": "noop", "state": "WAIT"})
    for task_id in ("claimed", "handed"):
        server.redis.hset(f"task-{task_id}", mapping={"task": "noop", "state": "WAIT"})
    server.redis.hset("{new-task}:claims", "claimed", "gone:1:ab 7")
    server.redis.hset("{new-task}:of:gone:1:ab", "claimed", "7 0 push 0")
    server.redis.lpush("{new-task}:inbox:gone:1:ab", "handed")
    for task_id in ("nowhere", "claimed", "handed"):
        server.wait_for_state(task_id, "SUCCESS", deadline=40)
    assert not users.refused()
    run_command({**os.environ, "PYTASK_REDIS_URL": users.url("pytask-node")}, "sweep", "--json")
    assert not users.refused()


@pytest.fixture
def cluster(tmp_path) -> Iterator[list[ServerProcess]]:
    """Three masters, with the users of the page."""
    options = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", "save": "", "protected-mode": "no"}
    ports = find_ports(3)
    servers = [ServerProcess(find_binary(), tmp_path / str(port), port, options) for port in ports]
    try:
        for number, server in enumerate(servers):
            server.start()
            with server.client() as client:
                first, last = 5462 * number, min(5462 * (number + 1), 16384) - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
                for language in ("acl", "acl-cluster"):
                    for user, words in of_page(language).items():
                        client.execute_command("ACL", "SETUSER", user, *words)
        for server in servers:
            with server.client() as client:
                wait_until(lambda client=client: client.cluster("info")["cluster_state"] == "ok")
        yield servers
    finally:
        for server in servers:
            server.kill()


def test_on_a_cluster_the_users_have_what_they_need_too(cluster, start_node):
    ports = [server.port for server in cluster]
    node = start_node(
        "-u", f"redis+cluster://pytask-node:node-password@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}",
        "-q", "default", "-q", "mail", "--grace", "0", result_ttl="0",
    )  # fmt: skip
    with redis.RedisCluster(
        host="127.0.0.1", port=ports[2], username="pytask-producer", password="producer-password", driver_info=None
    ) as producer:
        for n in range(20):
            producer.hset(f"task-{n}", "task", "echo")
            producer.lpush("new-task:mail" if n % 2 else "new-task", n)
        producer.hset("task-L", "task", "loop")
        producer.lpush("new-task", "L")
        administrator = redis.RedisCluster(host="127.0.0.1", port=ports[0])
        wait_until(lambda: not administrator.exists(*[f"task-{n}" for n in range(20)]), "Cleanup has removed them")
        wait_until(lambda: administrator.hget("task-L", "state") == b"RUNNING")
        producer.publish("task-L-control", "stop")
        wait_until(lambda: administrator.hget("task-L", "state") == b"STOPPED")
        administrator.close()
    app = PyTask(f"redis+cluster://pytask-helper:helper-password@127.0.0.1:{ports[1]}")
    app.helpers.restart_task("L")
    assert app.helpers.get_nodes()
    app.close()
    assert node.terminate() == 0
    assert not set().union(*(refused_by(server.client()) for server in cluster))


@pytest.mark.waits
def test_a_node_that_was_frozen_comes_back_with_these_rights(users, start_node):
    life = Life(users, start_node, "")
    frozen, other = life.start_node(), life.start_node()
    wait_until(lambda: life.redis.hlen("{new-task}:nodes") == 2)
    frozen.signal(signal.SIGSTOP)
    other.wait_for_log("is dead", 20)
    frozen.signal(signal.SIGCONT)
    frozen.wait_for_log("is back as", 20)
    assert not users.refused()


def words_of(call: ast.expr) -> list[str]:
    """The command that an expression names, `PUBSUB NUMSUB` as one; both of `"RPUSH" if first else "LPUSH"`."""
    if isinstance(call, ast.IfExp):
        return words_of(call.body) + words_of(call.orelse)
    found = isinstance(call, ast.Constant) and isinstance(call.value, str) and call.value.isupper()
    return [call.value] if found else []


CONTAINERS = {"CLIENT", "CLUSTER", "CONFIG", "PUBSUB", "SCRIPT", "SENTINEL"}
METHODS = {"info", "subscribe", "psubscribe"}  # of redis-py


def sent_by_the_store() -> set[str]:
    """The commands that the store sends itself: those at the head of a call or a tuple."""
    found: set[str] = set()
    for path in STORE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
            if isinstance(node, ast.Attribute):
                found |= METHODS & {node.attr}
            for word in words_of(parts[0]) if parts else []:
                more = words_of(parts[1]) if word in CONTAINERS and len(parts) > 1 else []
                found.add("|".join([word, *more]).lower())
    return found


def sent_by_scripts() -> set[str]:
    sources = (script(name).source for name in script_names())
    return {name.lower() for source in sources for name in re.findall(r"redis\.p?call\('(\w+)'", source)}


def test_a_node_may_send_what_the_code_sends_and_nothing_else(server):
    known = {name.lower() for name in server.redis.execute_command("COMMAND")}
    sent = {name for name in sent_by_the_store() | sent_by_scripts() if name.partition("|")[0] in known}
    on_a_cluster = {word[1:] for word in of_page("acl-cluster")["pytask-node"]}
    allowed = commands_of("pytask-node") - {"unsubscribe"} | on_a_cluster | {"wait"}  # tasks wait for others
    assert allowed == sent - DONE_WITHOUT - OF_HELPERS - OF_DELETED_NAMESPACES | {"client|setname"}


def glob(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*"))


def keys_of_a_queue(queue: str) -> set[str]:
    """A key of each row of the table."""
    filled = (row.pattern.replace("<q>", queue).replace("<ns>", "") for row in KEY_TABLE)
    return {re.sub(r"<\w+>", "X", key) for key in filled}


def test_a_node_may_use_the_keys_of_the_table_and_every_pattern_is_needed():
    needed = keys_of_a_queue("new-task") | keys_of_a_queue("new-task:mail")
    patterns = patterns_of("pytask-node", "~")
    matches = {name: {key for key in needed if glob(name).fullmatch(key)} for name in patterns}
    assert set().union(*matches.values()) == needed
    for name, own in matches.items():
        others = set().union(*(found for other, found in matches.items() if other != name))
        assert own - others, f"~{name} is not needed"


# Refused at the start, and later.


def refused_at_the_start(start_node: Callable[..., Any], *options: str, **environ: str) -> str:
    node = start_node(*options, ready=False, **environ)
    assert node.wait(15) == 3, node.text()
    (line,) = node.text().splitlines()
    assert "no Redis at" in line
    assert "check user and password" in line
    assert "s3cret" not in line
    return line


def test_a_wrong_password_is_one_line_and_status_3(users, start_node):
    refused_at_the_start(start_node, "-u", users.url("pytask-node", "wr0ng-s3cret"))


def test_an_unknown_user_is_one_line_and_status_3(users, start_node):
    refused_at_the_start(start_node, "-u", users.url("nobody", "s3cret"))


def test_a_wrong_password_of_a_file_is_one_line_and_status_3(users, start_node, tmp_path):
    file = tmp_path / "password"
    file.write_text("wr0ng-s3cret\n")
    url = users.server.url.replace("://", "://pytask-node@")
    refused_at_the_start(start_node, "-u", url, redis_password_file=str(file))


def test_a_node_takes_its_password_from_a_file(users, start_node, tmp_path):
    file = tmp_path / "password"
    file.write_text("node-password\n")
    url = users.server.url.replace("://", "://pytask-node@")
    node = start_node("-u", url, redis_password_file=str(file))
    assert "node-password" not in node.text()
    assert node.terminate() == 0
    assert not users.refused()


@pytest.mark.parametrize(
    "right", ["+hset", "~{new-task}:*", "+psubscribe", "&task-*-control", "+evalsha", "+script|load"]
)
def test_a_node_without_a_right_that_it_needs_at_its_start_is_one_line_and_status_3(users, start_node, right):
    users.set_without("pytask-node", right)
    users.redis.script_flush()
    line = refused_at_the_start(start_node, "-u", users.url("pytask-node"))
    assert "node-password" not in line


def test_a_node_whose_rights_are_taken_away_for_a_while_goes_on_when_they_are_back(users, server, start_node):
    node = start_node("-u", users.url("pytask-node"))
    server.create("S", "block", '{"seconds": 0.5}')
    server.wait_for_state("S", "RUNNING")
    users.redis.execute_command("ACL", "SETUSER", "pytask-node", "-evalsha")
    server.create("later", "noop")
    wait_until(lambda: "NOPERM" in node.text() or "no permissions" in node.text())
    users.set(of_page())
    for task_id in ("S", "later"):
        server.wait_for_state(task_id, "SUCCESS")
    assert server.deliveries("S") == 0
    assert "node-password" not in node.text()
