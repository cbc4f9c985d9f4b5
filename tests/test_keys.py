"""Keys and channels: their names, their slots on a cluster, and that the table of keys covers them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import wait_until
from redis.crc import key_slot

from pytask import keys as keys_module
from pytask.key_table import KEY_TABLE, KeyRow
from pytask.keys import MAX_ID, Keys, QueueKeys, flaw_of_id

NAMESPACES = ["", "shop", "a.b_c-D9", "x" * 64]
QUEUES = ["", "mail", "a.b_c-D9", "new-task", "x" * 64]
NODE = b"host:123:0a1b2c3d"
ID = b"7f3"


def companions(queue: QueueKeys) -> dict[str, bytes]:
    """Every companion of a queue, by what stands behind the colon."""
    plain = {name: getattr(queue, name) for name in QueueKeys.__slots__ if name not in ("key", "name", "tag")}
    return {
        **plain,
        "of": queue.claims_of(NODE),
        "inbox": queue.inbox(NODE),
    }


# Names.


def test_the_keys_of_a_raw_producer_are_those_of_the_protocol():
    keys = Keys()
    assert keys.task(ID) == b"task-7f3"
    assert keys.control(ID) == b"task-7f3-control"
    assert keys.control_pattern == b"task-*-control"
    assert keys.queue().key == b"new-task"
    assert keys.queue("mail").key == b"new-task:mail"
    assert keys.end == b"end-task"
    assert keys.node(NODE) == b"node-" + NODE
    assert keys.alive(NODE) == b"alive-" + NODE
    assert keys.watches(NODE) == b"alive-" + NODE + b":monitor"
    assert keys.end_of(NODE) == b"{end-task}:of:" + NODE
    assert keys.end_takers == b"{end-task}:takers"
    assert keys.end_failed == b"{end-task}:failed"
    assert keys.end_dead == b"{end-task}:dead"


@pytest.mark.parametrize("name", [row.pattern[6:] for row in KEY_TABLE if row.pattern.startswith("{<q>}:")])
def test_a_companion_of_a_queue_is_called_as_the_table_says(name):
    expected = b"{new-task:mail}:" + name.replace("<node>", NODE.decode()).encode()
    assert companions(Keys().queue("mail"))[name.partition(":")[0]] == expected


def test_a_namespace_stands_before_every_key_and_channel():
    keys = Keys("shop")
    assert keys.task(ID) == b"shop:task-7f3"
    assert keys.control(ID) == b"shop:task-7f3-control"
    assert keys.control_pattern == b"shop:task-*-control"
    assert keys.queue().key == b"shop:new-task"
    assert keys.queue("mail").claims == b"{shop:new-task:mail}:claims"
    assert keys.end == b"shop:end-task"
    assert keys.end_takers == b"{shop:end-task}:takers"
    assert keys.node(NODE) == b"shop:node-" + NODE


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_keys_of_two_namespaces_never_meet(namespace):
    mine, other = Keys(namespace), Keys("other")
    ours, theirs = (
        {k.task(ID), k.control(ID), k.end, k.node(NODE), k.queue().key, *companions(k.queue()).values()}
        for k in (mine, other)
    )
    assert not ours & theirs


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_keys_of_two_queues_never_meet(namespace):
    keys = Keys(namespace)
    seen = [key for name in QUEUES for q in [keys.queue(name)] for key in (q.key, *companions(q).values())]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_found_again_by_its_key(namespace, name):
    keys = Keys(namespace)
    assert keys.queue_of_key(keys.queue(name).key) == name


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("task_id", [b"a", b"\xff\n", b"a-control-b", b"{x}", b"*", b" ", b"task-", b"x" * MAX_ID])
def test_the_id_is_sliced_out_of_its_control_channel(namespace, task_id):
    keys = Keys(namespace)
    assert keys.id_of_control(keys.control(task_id)) == task_id


def test_the_control_pattern_holds_no_character_that_a_namespace_could_make_special():
    for namespace in NAMESPACES:
        assert not re.search(rb"[\[\]?\\]", Keys(namespace).control_pattern)
        assert Keys(namespace).control_pattern.count(b"*") == 1


# Slots.


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("name", QUEUES)
def test_every_companion_of_a_queue_lies_in_the_slot_of_the_queue(namespace, name):
    queue = Keys(namespace).queue(name)
    slots = {key_slot(key) for key in companions(queue).values()}
    assert slots == {key_slot(queue.key)}


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_companion_of_end_task_lies_in_its_slot(namespace):
    keys = Keys(namespace)
    slots = {key_slot(key) for key in (keys.end_of(NODE), keys.end_takers, keys.end_failed, keys.end_dead)}
    assert slots == {key_slot(keys.end)}


def test_the_slot_of_the_default_queue_is_the_measured_one():
    queue = Keys().queue()
    assert key_slot(queue.key) == key_slot(queue.claims) == 6431
    assert key_slot(Keys().end) == 4347


# The table.


def pattern(key: bytes, keys: Keys, queue: QueueKeys) -> str:
    """The key as the table writes it."""
    text = key.decode().replace(NODE.decode(), "<node>")
    text = text.replace("{" + queue.key.decode() + "}", "{<q>}")
    if text == queue.key.decode():
        return "<q>"
    text = text.replace(keys.prefix.decode(), "<ns>", 1) if keys.prefix else text
    text = text.replace("limit-LABEL", "limit-<label>").replace("unique-TASK-DIGEST", "unique-<task>-<digest>")
    text = text.replace("schedule-NAME", "schedule-<name>")
    text = text.replace("service-NAME", "service-<name>")
    return re.sub("(task|workflow)-" + ID.decode(), r"\1-<id>", text)


def test_the_table_holds_every_key_that_the_module_makes_and_no_other():
    keys = Keys("shop")
    queue = keys.queue("mail")
    made = set(companions(queue).values())
    made |= {queue.key, keys.task(ID), keys.events(ID), keys.end, keys.node(NODE)}
    made |= {keys.end_of(NODE), keys.end_takers, keys.end_failed, keys.end_dead}
    limit = keys.limit("LABEL")
    made |= {limit.held, limit.line, limit.meter, keys.lock("unique-TASK-DIGEST")}
    made |= {keys.schedule(b"NAME"), keys.schedules}
    made |= {keys.service(b"NAME"), keys.service_applied(b"NAME")}
    made |= {keys.services, keys.service_counts, keys.services_changed}
    made |= {*keys.workflow(ID).all, keys.workflows}
    made |= {keys.workflows_ended, keys.workflows_until}
    assert {pattern(key, keys, queue) for key in made} == {row.pattern for row in KEY_TABLE}


SLOTS = {"task", "queue", "end-task", "limit", "own", "schedule", "schedules", "service", "services",
         "workflow", "workflows"}  # fmt: skip


def test_the_rows_of_the_table_are_complete_and_differ():
    assert len({row.pattern for row in KEY_TABLE}) == len(KEY_TABLE)
    for row in KEY_TABLE:
        assert isinstance(row, KeyRow)
        assert row.type in {"hash", "list", "set", "zset", "string", "stream"}
        assert row.slot in SLOTS
        assert row.writers
        assert row.lifetime
        assert row.holds


def test_the_keys_of_a_limit_share_a_slot():
    limit = Keys("shop").limit("max-mail")
    assert len({key_slot(key) for key in (limit.held, limit.line, limit.meter)}) == 1


def test_the_keys_of_a_workflow_share_a_slot():
    assert len({key_slot(key) for key in Keys("shop").workflow(b"w").all}) == 1
    keys = Keys("shop")
    assert len({key_slot(key) for key in (keys.workflows, keys.workflows_ended, keys.workflows_until)}) == 1


def test_the_keys_of_a_service_share_a_slot_and_those_of_all_services_another():
    keys = Keys("shop")
    assert key_slot(keys.service(b"x")) == key_slot(keys.service_applied(b"x"))
    assert len({key_slot(key) for key in (keys.services, keys.service_counts, keys.services_changed)}) == 1


def test_the_slot_of_a_row_is_that_of_its_keys():
    for row in KEY_TABLE:
        if row.slot == "queue":
            assert row.pattern == "<q>" or row.pattern.startswith("{<q>}:")
        if row.slot == "end-task":
            assert row.pattern == "<ns>end-task" or row.pattern.startswith("{<ns>end-task}:")


def test_no_other_module_writes_a_key_by_hand():
    package = Path(keys_module.__file__).parent
    literal = re.compile(r"""b?["'](?:new-task|end-task|task-|node-)[^"' ]*["']|\{new-task|\{end-task""")
    allowed = {"keys.py", "key_table.py", "names.py"}  # names.py: what a namespace must not begin with
    for path in package.rglob("*.py"):
        if path.name not in allowed:
            code = re.sub(r'""".*?"""|#.*', "", path.read_text(), flags=re.S)
            assert not literal.findall(code), path


@pytest.mark.parametrize("path", sorted((Path(keys_module.__file__).parent / "store/lua").glob("*.lua")), ids=str)
def test_every_key_of_a_script_arrives_in_keys(path):
    """A script that makes up a key of its own would fail on a cluster."""
    for call in re.findall(r"redis\.p?call\(\s*'(\w+)'\s*,\s*([^,)]+)", path.read_text()):
        command, first = call
        given = re.match(r"KEYS\[(?:\d|i|i \+ \d)\]|key$|list$|stream$", first.strip())
        assert command in {"TIME", "PUBLISH"} or given, call


# Ids.


@pytest.mark.parametrize("task_id", [b"a", b"\x00", b"\xff", b" ", b"a\nb", b"*", b"control", b"x" * MAX_ID])
def test_a_good_id_has_no_flaw(task_id):
    assert flaw_of_id(task_id) is None


@pytest.mark.parametrize(
    ("task_id", "word"), [(b"", "empty"), (b"x" * 513, "512"), (b"a-control", "control"), (b"-control", "control")]
)
def test_a_bad_id_has_a_flaw_in_words(task_id, word):
    assert word in flaw_of_id(task_id)


# A server that has seen everything.


def test_every_key_on_a_server_after_work_is_in_the_table_with_its_type(server, start_node):
    node = start_node("--namespace", "shop", "-q", "default", "-q", "mail", hash_wait="0")
    for queue in ("shop:new-task", "shop:new-task:mail"):
        name = queue[-4:]
        for task_id, task in (("ok", "noop"), ("bad", "fail"), ("loop", "loop"), ("later", "noop")):
            fields = {"due": "9999999999"} if task_id == "later" else {}
            server.redis.hset(f"shop:task-{task_id}-{name}", mapping={"task": task, **fields})
            server.redis.lpush(queue, f"{task_id}-{name}")
        server.redis.lpush(queue, f"nothing-{name}")

    def found() -> dict[str, str]:
        types = {key: server.redis.type(key).decode() for key in server.redis.keys("*")}
        return {_as_row(key.decode(), node.node_id): kind for key, kind in types.items() if kind != "none"}

    def seen_all() -> bool:
        wanted = {"dead", "due", "ended", "claims", "of:<node>"}
        return {"{<q>}:" + name for name in wanted} | {"{<ns>end-task}:takers"} <= set(found())

    wait_until(seen_all, "every kind of key was made")
    rows = {row.pattern: row.type for row in KEY_TABLE}
    for key, kind in found().items():
        assert rows.get(key) == kind, (key, kind)


def _as_row(key: str, node: str) -> str:
    key = key.replace(node, "<node>").replace("pytask/cleanup@", "").replace("pytask/monitor@", "")
    key = re.sub(r"\{shop:new-task(:mail)?\}", "{<q>}", key)
    key = "<q>" if key in ("shop:new-task", "shop:new-task:mail") else key.replace("shop:", "<ns>")
    key = re.sub(r"^\{<ns>task-.*\}", "{<ns>task-<id>}", key)
    return re.sub(r"^<ns>task-.*", "<ns>task-<id>", key)
