"""The face of Taskue: the examples of its documentation, literally, and what they promise."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import wait_until

from compat import taskue_work
from compat.literal import PAGES, rows_on_page, write_page_files
from pytask.compat.taskue import (
    Conditions,
    Task,
    TaskNotFound,
    TaskStatus,
    Taskue,
    TimeoutException,
    WorkflowNotFound,
)
from pytask.compat.taskue.runner import TaskueRunner, queues_of
from pytask.embedded import EmbeddedServer
from pytask.errors import ConfigurationError, InvalidInputError, TaskStateError
from pytask.names import queue_name_of

TESTS = Path(__file__).parent.parent
WORK = "compat.taskue_work"

# The examples of the document, in its order, as they stand there.

IMPORTS = """\
from redis import Redis
from taskue import Taskue, Task

taskue = Taskue(Redis())
"""
SINGLE = """\
task = Task()
task.enqueue(time.sleep, 1)

# execute task
task_id = taskue.enqueue(task)

# wait for the task to finish
result = taskue.task_wait(task_id)
"""
STAGES = """\
# define 3 tasks
task_1 = Task()
task_1.execute(time.sleep, 1)

task_2 = Task()
task_2.execute(time.sleep, 1)

task_3 = Task()
task_3.execute(time.sleep, 1)

# execute task_1 and task_2 in parallel then execute task_3
workflow_id = taskue.enqueue([[task_1, task_2], [task_3]])

# wait for the workflow to finish
result = taskue.workflow_wait(workflow_id)
"""
START = "taskue runner start "
NAMESPACE = """\
taskue = Taskue(redis_conn=Redis(), namespace="testing")
"""
START_IN_NAMESPACE = "taskue runner start --name myrunner --namespace testing "
TITLED = """\
task = Task(title="mytask")
task.execute(time.time, 1)

task_uid = taskue.enqueue(task)
result = taskue.task_wait(task_uid)
"""
TASKS = """\
# get task by its id
task = taskue.task_get(task_id)
# list tasks, get first page and limit result by 25 result
tasks = taskue.tasks_list(page=1, limit=25)
# get number of tasks
number_of_tasks = taskue.tasks_count()
"""
DELETE_TASK = """\
taskue.task_delete(task_id)
"""
WORKFLOW = """\
workflow_id = taskue.enqueue([[task_1, task_2], [task_3]], title="myworkflow")
result = taskue.workflow_wait(workflow_id)
"""
WORKFLOWS = """\
# get workflow by its id
workflow = taskue.workflow_get(workflow_id)
# list workflows, get first page and limit result by 25 result
workflows = taskue.workflow_list(page=1, limit=25)
# get number of workflows
number_of_workflows = taskue.workflow_count()
"""
DELETE_WORKFLOW = """\
taskue.workflow_delete(workflow_id)
"""
START_NAMED = "taskue runner start -n myrunner -q myqueue"
RUNNER = """\
from taskue.runner import TaskueRunner

runner = TaskueRunner(name="myrunner", queues=["myqueue"])
runner.start()
"""

# Every change that is made to them, and why; the page lists the same.
EDITS = (
    ("from taskue import Taskue, Task", "from pytask.compat.taskue import Taskue, Task", "an import line"),
    ("from taskue.runner import", "from pytask.compat.taskue.runner import", "an import line"),
    ("taskue runner", "python -m pytask.compat.taskue runner", "the name of the command"),
    ("from redis import Redis", "import time\nfrom redis import Redis", "a slip: time is never imported"),
)


def edited(text: str, path: str = "") -> str:
    """A block as it is run: with the edits, and with the server of the tests in place of localhost:6379."""
    for before, after, _ in EDITS:
        text = text.replace(before, after)
    return text.replace("Redis()", f"Redis(unix_socket_path={path!r})")


class Deployment:
    """A server, and runners that were started as a user starts them."""

    def __init__(self, running: Any, folder: Path) -> None:
        self.path = running.socket_path
        self.url = running.url
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.redis = redis.Redis.from_url(self.url)

    def environ(self, **more: str) -> dict[str, str]:
        settings = {"PYTASK_REDIS_URL": self.url, "PYTASK_CALLABLE_PREFIXES": "time.sleep,time.time"}
        return {**os.environ, **settings, "PYTHONUNBUFFERED": "1", **more}

    def start(self, command: str, *more: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a command as the document has it, and wait until its runner takes tasks."""
        log = self.folder / f"runner-{len(self.started)}.log"
        words = [sys.executable, *edited(command).split()[1:], *more]
        with log.open("wb") as out:
            process = subprocess.Popen(words, stdout=out, stderr=out, env=self.environ(**environ), cwd=TESTS)
        self.started.append(process)
        wait_until(lambda: "local   " in log.read_text() or process.poll() is not None, f"{command} is ready")
        assert process.poll() is None, log.read_text()
        return process

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytask.compat.taskue", *words]
        return subprocess.run(command, env=self.environ(), capture_output=True, text=True, timeout=30)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait(10)
        self.redis.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    with EmbeddedServer() as running:
        made = Deployment(running, tmp_path_factory.mktemp("taskue"))
        yield made
        made.close()


@pytest.fixture(scope="module")
def runner(deployment):
    """One runner, which serves every test: as the document starts it, and with a module that tasks may call."""
    return deployment.start(START, "-n", "first", "-q", "images", "-q", "Größe XL", "-m", WORK)


@pytest.fixture
def taskue(deployment):
    made = Taskue(deployment.redis)
    yield made
    made.pytask_app().close()


def task_of(function, *args, **options):
    keywords = options.pop("kwargs", {})
    task = Task(**options)
    task.execute(function, *args, **keywords)
    return task


# The document.


def execute(deployment: Deployment, names: dict[str, Any], *blocks: str) -> dict[str, Any]:
    for block in blocks:
        exec(edited(block, deployment.path), names)
    return names


@pytest.mark.usefixtures("runner")
def test_every_python_block_of_the_document_does_what_it_says(deployment):
    names = execute(deployment, {}, IMPORTS, SINGLE)
    assert names["result"].status == TaskStatus.PASSED
    assert names["result"].executed_at - names["result"].started_at > 0.9
    execute(deployment, names, STAGES)
    assert names["result"].status == "Passed"
    assert [task["status"] for task in names["result"].tasks] == ["Passed"] * 3
    execute(deployment, names, TITLED)
    assert names["result"].title == "mytask"
    assert names["result"].status == "Failed"  # time.time takes no argument
    assert "takes no arguments" in names["result"].error
    execute(deployment, names, TASKS)
    assert names["task"].uid == names["task_id"]
    assert {names["task_id"], names["task_uid"]} <= {task.uid for task in names["tasks"]}
    wait_until(
        lambda: execute(deployment, names, TASKS)["number_of_tasks"] == 6, "three alone, three in a workflow"
    )
    execute(deployment, names, DELETE_TASK)
    assert execute(deployment, names, TASKS.partition("# list")[2].partition("\n")[2])["number_of_tasks"] == 5
    execute(deployment, names, WORKFLOW, WORKFLOWS)
    assert (names["workflow"].title, names["workflow"].status) == ("myworkflow", "Passed")
    assert names["workflow_id"] in [workflow.uid for workflow in names["workflows"]]
    assert names["number_of_workflows"] == 2
    execute(deployment, names, DELETE_WORKFLOW)
    with pytest.raises(WorkflowNotFound):
        execute(deployment, names, WORKFLOWS)


def test_a_namespace_has_runners_of_its_own(deployment, taskue):
    names = execute(deployment, {}, IMPORTS, NAMESPACE)
    deployment.start(START_IN_NAMESPACE)
    execute(deployment, names, SINGLE)
    assert names["result"].status == "Passed"
    assert names["result"].runner.startswith("myrunner:")
    with pytest.raises(TaskNotFound):
        taskue.task_get(names["task_id"])


@pytest.mark.parametrize("how", ["command", "program"])
def test_runners_of_the_document_serve_a_program_as_a_user_starts_them(deployment, tmp_path, how):
    """Its runner in a process, its producer in another, and Ctrl-C."""
    producer, runner = tmp_path / "producer.py", tmp_path / "runner.py"
    tagged = SINGLE.replace("Task()", 'Task(tag="myqueue")')
    producer.write_text(edited(IMPORTS + tagged, deployment.path) + "print(result.status, result.runner)\n")
    runner.write_text(edited(RUNNER))
    process = deployment.start(START_NAMED if how == "command" else f"python {runner}")
    command = [sys.executable, str(producer)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=deployment.environ())
    assert re.match(r"Passed myrunner:\d+:", ran.stdout), ran
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_the_page_lists_every_edit():
    assert rows_on_page("taskue") == [
        (before, after.replace("\n", "`, `"), reason) for before, after, reason in EDITS
    ]


def test_the_program_of_the_page_does_what_it_says(deployment, tmp_path):
    page = (PAGES / "taskue.md").read_text()
    write_page_files("taskue", tmp_path)
    (command,) = re.findall(r"^```sh\npython -m (.*)$", page, re.M)
    (told,) = re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S)
    program = tmp_path / "check.py"
    program.write_text(edited(program.read_text(), deployment.path))
    for name, text in {"a": "<h1>one</h1> some words here", "b": "two"}.items():
        (tmp_path / f"{name}.html").write_text(text)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        deployment.start(f"taskue {command.split(' ', 1)[1]}", "--path", str(tmp_path), "--namespace", "page")
        addresses = [f"http://127.0.0.1:{web.server_port}/{name}.html" for name in ("a", "b", "none")]
        words = [sys.executable, "check.py", *addresses]
        environ = deployment.environ(PYTASK_NAMESPACE="page", PYTHONPATH=str(TESTS.parent))
        ran = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
        web.shutdown()
    assert ran.stdout == told, ran


# Tasks.


def test_a_task_is_a_plain_record_which_anybody_can_read(deployment, taskue):
    uid = taskue.enqueue(
        task_of(taskue_work.tell, "a", title="T", retries=2, tag="Größe XL", timeout=30, kwargs={"sign": "?"})
    )
    record = {key.decode(): value.decode() for key, value in deployment.redis.hgetall(f"task-{uid}").items()}
    assert json.loads(record["data"]) == {"function": f"{WORK}.tell", "args": ["a"], "kwargs": {"sign": "?"}}
    assert (record["task"], record["title"], record["retries"], record["timeout"]) == (
        "pytask/call",
        "T",
        "2",
        "30",
    )
    assert re.fullmatch(r"Grosse-XL-[0-9a-f]{8}", record["queue"])
    plain = taskue.enqueue(task_of(taskue_work.tell, tag="nobody"))
    assert deployment.redis.hget(f"task-{plain}", "title").decode() == f"{WORK}.tell"
    assert taskue.task_get(plain).status == "Queued"
    with pytest.raises(TimeoutException):
        taskue.task_wait(plain, timeout=0.1)
    with pytest.raises(TaskStateError, match="is WAIT: stop it first"):
        taskue.task_delete(plain)


@pytest.mark.usefixtures("runner")
def test_results_errors_and_logs_come_back(taskue):
    told = taskue.task_wait(taskue.enqueue(task_of(taskue_work.tell, "a", "b", tag="Größe XL")), timeout=30)
    assert (told.status, told.result, told.error, told.is_done, told.is_passed) == (
        "Passed",
        "a b!",
        None,
        True,
        True,
    )
    assert [(line["level"], line["msg"]) for line in told.logs] == [("INFO", "telling 2 words")]
    assert told.runner.startswith("first:")
    assert told.created_at <= told.started_at <= told.executed_at <= time.time()
    failed = taskue.task_wait(taskue.enqueue(task_of(taskue_work.fail, retries=2)), timeout=30)
    assert (failed.status, failed.result, failed.is_failed, failed.attempts) == ("Failed", None, True, 3)
    assert failed.error.endswith("ValueError: no luck")
    late = taskue.task_wait(taskue.enqueue(task_of(taskue_work.stay, timeout=0.2)), timeout=30)
    assert (late.status, late.is_failed) == ("Timeout", True)
    refused = taskue.task_wait(taskue.enqueue(task_of(os.getpid)), timeout=30)
    assert refused.status == "Failed"
    assert "callable_prefixes" in refused.error


@pytest.mark.usefixtures("runner")
def test_a_task_may_be_enqueued_again_and_is_another_one_then(taskue):
    task = task_of(taskue_work.give, {"a": [1, None]})
    first, second = taskue.enqueue(task), taskue.enqueue(task)
    assert first != second == task.uid
    assert taskue.task_wait(first).result == taskue.task_wait(second).result == {"a": [1, None]}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: 1, "is a lambda"),
        (functools.partial(print, 1), "is a partial"),
        ([].append, "is a method of an object"),
        (Task().execute, "is a method of an object"),
        (Task.execute, "is defined inside a class"),
        (5, "is no function"),
        (None, "is no function"),
        ("nothing", "a function is named by its path"),
    ],
)
def test_a_function_that_cannot_travel_by_its_path_is_refused_with_the_reason(function, words):
    def inner():
        pass

    for given, reason in ((function, words), (inner, "is defined inside a function")):
        with pytest.raises(InvalidInputError, match=reason):
            Task().execute(given)


def test_what_is_no_good_is_refused_before_anything_is_sent(deployment, taskue):
    before = deployment.redis.dbsize()
    good = task_of(time.sleep, 1)
    for wrong, words in (
        (Task(), "has nothing to do"),
        ([good], "list of stages"),
        ([[good], "x"], "list of stages"),
        ([[good, 5]], "list of stages"),
        ("text", "list of stages"),
        ([[]], "stage"),
        ([], "stages is empty"),
        (task_of(time.sleep, 1, retries=-1), "retries"),
        (task_of(time.sleep, 1, timeout=-1), "timeout"),
        (task_of(time.sleep, 1, tag=5), "tag"),
        (task_of(time.sleep, 1, tag=0), "tag"),
        (task_of(time.sleep, object()), "JSON"),
        ([[good, task_of(time.sleep, 1, when="sometimes")]], "when"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            taskue.enqueue(wrong)
    assert deployment.redis.dbsize() == before


def test_what_is_not_there_is_told(taskue):
    for ask in (taskue.task_get, taskue.task_delete, lambda uid: taskue.task_wait(uid, 1)):
        with pytest.raises(TaskNotFound):
            ask("nobody")
    for ask in (taskue.workflow_get, taskue.workflow_delete, lambda uid: taskue.workflow_wait(uid, 1)):
        with pytest.raises(WorkflowNotFound):
            ask("nobody")


def test_records_of_any_content_are_told_as_far_as_they_can_be(deployment, taskue):
    wrong = {
        "task": "x",
        "state": "SUCCESS",
        "output": "no JSON",
        "data": "[",
        "retries": "1e999",
        "created": "soon",
    }
    deployment.redis.hset("task-wrong", mapping={**wrong, "attempt": "nan", "queue": "a b", "timeout": "x"})
    found = taskue.task_get("wrong")
    assert (found.status, found.result, found.retries, found.attempts) == ("Passed", "no JSON", 0, 0)
    assert (found.created_at, found.timeout, found.logs) == (None, None, [])
    for number, data in enumerate(("[]", '{"stages": 5}', '{"stages": [5]}', "no JSON")):
        deployment.redis.hset(f"task-w{number}", mapping={"task": "pytask/workflow", "data": data})
        found = taskue.workflow_get(f"w{number}")
        assert (found.status, found.tasks, found.stages) == ("Queued", [], [])


# Workflows.


@pytest.mark.usefixtures("runner")
def test_a_workflow_obeys_allow_failure_and_conditions(taskue):
    fails = task_of(taskue_work.fail)
    then = task_of(taskue_work.give, 1)
    else_ = task_of(taskue_work.give, 2, when=Conditions.ON_FAILURE)
    always = task_of(taskue_work.give, 3, when=Conditions.ALWAYS)
    found = taskue.workflow_wait(taskue.enqueue([[fails], [then, else_, always]]), timeout=30)
    assert found.status == "Failed"
    assert [task["status"] for task in found.tasks] == ["Failed", "Skipped", "Passed", "Passed"]
    assert [task["uid"] for task in found.tasks] == [fails.uid, then.uid, else_.uid, always.uid]
    assert found.stages == [found.tasks[:1], found.tasks[1:]]
    assert taskue.task_get(always.uid).workflow_uid == found.uid == fails.workflow_uid
    tolerated = task_of(taskue_work.fail, allow_failure=True)
    found = taskue.workflow_wait(taskue.enqueue([[tolerated], [then]], title="T"), timeout=30)
    assert (found.title, found.status) == ("T", "Passed")


@pytest.mark.usefixtures("runner")
def test_only_a_workflow_that_has_ended_is_deleted(taskue):
    uid = taskue.enqueue([[task_of(taskue_work.give, 1)], [task_of(taskue_work.give, 1, tag="nobody")]])
    wait_until(lambda: taskue.workflow_get(uid).status == "Running")
    with pytest.raises(TaskStateError, match="is RUNNING"):
        taskue.workflow_delete(uid)
    assert [task["status"] for task in taskue.workflow_get(uid).tasks][1] in ("Created", "Queued")
    taskue.pytask_app().helpers.stop_task(uid)
    taskue.pytask_app().helpers.stop_tasks(queue="nobody")


# Runners.


def test_a_tag_is_a_queue_and_the_default_queue_stands_beside_them():
    assert queues_of(["a", "default"]) == ["a", "", "taskue.workflows"]
    assert queues_of([]) == queues_of([], untagged=False) == ["", "taskue.workflows"]
    only, other = queues_of(["ubuntu:18", "a"], untagged=False)[:2]
    assert re.fullmatch(r"ubuntu-18-[0-9a-f]{8}", only)
    assert other == "a"


def test_a_runner_is_an_app_with_one_task_at_a_time(monkeypatch):
    monkeypatch.setenv("PYTASK_CALLABLE_PREFIXES", "time.sleep")
    settings = TaskueRunner("my runner", "shop", ["a"], auto_load_modules=["json"]).pytask_app().settings
    assert (settings.concurrency, settings.namespace) == (1, "shop")
    assert settings.callable_prefixes == ("time.sleep", "json")
    assert settings.node_name.startswith("my-runner-")
    runner = TaskueRunner(queues="images", auto_load_modules="json")
    assert runner.pytask_app().settings.queues.text == "images,default,taskue.workflows"
    assert runner.modules == ["json"]
    assert TaskueRunner(timeout=5).pytask_app().known_tasks["pytask/call"].timeout == 5


@pytest.mark.parametrize("name", ["nosuch", "nosuch.part", "compat.nosuch.part"])
def test_a_module_that_is_not_there_is_told_at_the_start(name):
    with pytest.raises(ConfigurationError, match=f"auto_load_modules: '{name}' cannot be imported"):
        TaskueRunner(auto_load_modules=[name]).load_modules()


def test_a_runner_of_the_command_is_patched_before_anything_else_is_imported():
    """What was imported before gevent patches is warned of: the answer is one line."""
    command = [sys.executable, "-m", "pytask.compat.taskue", "runner", "start", "-m", "no_such_module"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        "taskue: auto_load_modules: 'no_such_module' cannot be imported: No module named 'no_such_module'"
    ]


def test_modules_and_whole_paths_are_loaded():
    TaskueRunner(auto_load_modules=["time.sleep", "json", f"{WORK}.tell"]).load_modules()


def test_the_tasks_of_a_dead_runner_are_rescheduled_where_that_is_allowed(deployment, taskue):
    command = "taskue runner start --no-run-untagged-tasks -q frail"
    runners = [deployment.start(command, "-m", WORK) for _ in range(2)]
    again = taskue.enqueue(task_of(taskue_work.stay, tag="frail"))
    wait_until(lambda: taskue.task_get(again).status == "Running")
    once = taskue.enqueue(task_of(taskue_work.stay, tag="frail", allow_rescheduling=False))
    wait_until(lambda: taskue.task_get(once).status == "Running")
    for process in runners:
        process.kill()
    deployment.start(command, "-n", "second", "-m", WORK)
    wait_until(lambda: (taskue.task_get(again).runner or "").startswith("second:"), deadline=60)
    assert (taskue.task_get(again).status, taskue.task_get(again).rescheduled) == ("Running", 1)
    taskue.pytask_app().helpers.stop_task(again)  # it has one place
    lost = taskue.task_wait(once, timeout=60)
    assert (lost.status, "may start only once" in lost.error) == ("Failed", True)


# Commands.


@pytest.mark.usefixtures("runner")
def test_the_commands_list_show_and_delete(deployment, taskue):
    uid = taskue.task_wait(taskue.enqueue(task_of(taskue_work.tell, title="Named")), timeout=30).uid
    workflow = taskue.workflow_wait(taskue.enqueue([[task_of(taskue_work.give, 1)]], title="Flow"), timeout=30).uid
    wait_until(lambda: uid in [task.uid for task in taskue.tasks_list(limit=1000)])
    rows = [
        json.loads(line)
        for line in deployment.run("task", "list", "--json", "--limit", "1000").stdout.splitlines()
    ]
    assert {"id", "state", "title"} <= set(rows[0])
    assert uid in [row["id"] for row in rows]
    assert "Named" in deployment.run("task", "get", uid).stdout
    assert re.search(r"INFO +\S+: telling 0 words\n", deployment.run("task", "logs", uid).stdout)
    assert json.loads(deployment.run("task", "logs", uid, "--json").stdout)["message"] == "telling 0 words"
    assert deployment.run("task", "delete", uid).stdout == f"{uid} removed\n"
    assert deployment.run("task", "logs", uid).returncode == deployment.run("task", "get", uid).returncode == 1
    assert workflow in deployment.run("workflow", "list", "--json").stdout
    assert "Flow" in deployment.run("workflow", "get", workflow).stdout
    assert deployment.run("workflow", "delete", workflow).returncode == 0
    assert "first:" in deployment.run("runner", "list").stdout
    shown = deployment.run("runner", "get", "first")
    assert re.search(r"^queues +images,Grosse-XL-\w+,default,taskue.workflows$", shown.stdout, re.M)
    assert deployment.run("runner", "get", "nobody").returncode == 1
    node = f"{queue_name_of('my runner')}:1:abc"
    deployment.redis.hset("{new-task:old}:nodes", node, 1)
    assert deployment.run("runner", "get", "my runner").stdout.split() == ["uid", node]
    deployment.redis.delete("{new-task:old}:nodes")
    assert json.loads(deployment.run("namespace", "list", "--json").stdout.splitlines()[0])["namespace"] == ""
    assert deployment.run("namespace", "delete", "nosuch", "--yes").stdout == "0 keys are gone\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--redis-host", "127.0.0.1", "--redis-port", "1", "task", "list"), 3),
        (("--redis-host", "::1", "--redis-port", "1", "task", "list"), 3),
        (("--redis-port", "0", "task", "list"), 2),
        (("task", "list", "--limit", "0"), 2),
        (("task", "start"), 2),
        (("runner", "start", "--timeout", "-1"), 2),
        (("runner", "start", "-m", "no-such"), 2),
        (("task", "get", ""), 2),
        (("--help",), 0),
    ],
)
def test_a_command_that_is_used_wrongly_says_so_in_a_line(deployment, words, status):
    ran = deployment.run(*words)
    assert ran.returncode == status, ran
    assert "Traceback" not in ran.stderr
