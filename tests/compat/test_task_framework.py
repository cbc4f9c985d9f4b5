"""pytask.compat.task_framework: the examples of its document, literally, and the life of its messages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import NodeProcess, Server, wait_until

from pytask import TaskTimeout, states
from pytask.compat.task_framework import (
    InMemoryQueue,
    MessageNotExist,
    RedisTaskQueue,
    ResultMessage,
    Task,
    TaskFramework,
    TaskMessage,
    TaskParams,
    TaskRegistry,
    TaskStatus,
    TaskWorker,
)
from pytask.compat.task_framework.custom import Queue
from pytask.compat.task_framework.messages import ENDED, STATUSES
from pytask.compat.task_framework.worker import find_registry, worker
from pytask.embedded import EmbeddedServer
from pytask.errors import ConfigurationError, InvalidInputError, TaskDefinitionError, UnknownTaskError
from pytask.params import get_schema

PAGE = Path(__file__).parents[2] / "docs" / "coming-from" / "task-framework.md"

# The document's examples, as they stand there.

MY_TASK = """\
# project1/tasks/my_task.py
from task_framework import Task, TaskParams

class MyTaskParams(TaskParams):
    source: str
    output_dir: str
    batch_size: int

class MyTask(Task):
    params_model = MyTaskParams
    
    def run(self):
        source = self.get_param('source')
        output_path = self.get_param('output_path')
        batch_size = self.get_param('batch_size')
        
        print(f"Extraction: {source} -> {output_path} (batch: {batch_size})")
        pass
"""  # noqa: W293 - as it stands there

MY_WORKER = """\
# project1/myworker.py
import logging
from task_framework import TaskRegistry

LOGGER: logging.Logger = logging.getLogger(__name__)

def run():
    worker_id = os.environ.get('WORKER_ID')
    redis_host = os.environ.get('REDIS_HOST')
    
    LOGGER.info(f"Starting worker with ID: {worker_id}")

    registry = TaskRegistry()
    registry.register("task1", Task1)
    registry.register("task2", Task2)
    registry.register("task3", Task3)

    worker = TaskWorker(queue, registry, max_retries=5)
    worker.run()

if __name__ == "__main__":
    run()
"""  # noqa: W293 - as it stands there

ORCHESTRATOR = "task-orchestrator -n 4 -q localhost:6379 myworker.py"

SIMPLE_WORKER = r"""python -m task_framework.workers.worker_process \
  --worker-id worker_1 \
  --redis-url redis://localhost:6379 \
  --queue-name tasks \
  --log-level INFO
"""

PRODUCTION_WORKER = r"""python -m task_framework.workers.worker_process \
  --worker-id prod_worker_1 \
  --redis-url redis://prod-redis:6379 \
  --queue-name production_jobs \
  --log-level WARNING \
  --max-retries 5
"""

# The only edits: what they find, what stands there instead, and why.

IMPORTS = [
    ("from task_framework import", "from pytask.compat.task_framework import", "the import line"),
    (
        "python -m task_framework.workers.worker_process",
        "python -m pytask.compat.task_framework.worker",
        "its name",
    ),
    ("task-orchestrator ", "python -m pytask orchestrate ", "its name"),
]

SLIPS = [
    ("import logging\n", "import logging\nimport os\n", "`os` is used and never imported"),
    (
        "import TaskRegistry\n",
        "import RedisTaskQueue, TaskRegistry, TaskWorker\n",
        "`TaskWorker` is used and never imported",
    ),
    (
        "def run():\n    worker_id",
        "queue = RedisTaskQueue()\n\ndef run():\n    worker_id",
        "`queue` is never defined",
    ),
    (
        "LOGGER: logging",
        "from tasks.kinds import Task1, Task2, Task3\n\nLOGGER: logging",
        "`Task1`, `Task2`, `Task3` are never defined",
    ),
]
"""And one that is left in: `get_param('output_path')`, where the model says `output_dir`, is None."""

KINDS = """
import time
from pytask.compat.task_framework import Task
from tasks.my_task import MyTask

class Task1(MyTask):
    pass

class Task2(Task):
    def run(self):
        if self.pytask.attempt < self.get_param("good_from", 1):
            raise OSError("not yet")
        return {"attempt": self.pytask.attempt}

class Task3(Task):
    def run(self):
        self.pytask.progress(1, 2)
        time.sleep(self.get_param("seconds", 600))

class Choosy(Task):
    def run(self):
        raise self.Discard("nothing new")

class Final(Task):
    def run(self):
        raise self.Error("no such account")
"""

REGISTRY = """
from pytask.compat.task_framework import TaskRegistry
from tasks import kinds

ours = TaskRegistry()
ours.register("MyTask", kinds.MyTask)
ours.register("flaky", kinds.Task2, retry_delay=0.05)
ours.register("slow task".replace(" ", "-"), kinds.Task3)
ours.register("choosy", kinds.Choosy)
ours.register("final", kinds.Final)
"""


def edited(text: str, edits: list[tuple[str, str, str]]) -> str:
    for old, new, _ in edits:
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document's project1, and a registry file beside it."""
    folder = tmp_path_factory.mktemp("project1")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "my_task.py").write_text(edited(MY_TASK, IMPORTS))
    (folder / "tasks" / "kinds.py").write_text(KINDS)
    (folder / "myworker.py").write_text(edited(edited(MY_WORKER, SLIPS), IMPORTS))
    (folder / "kept.py").write_text(REGISTRY)
    return folder


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedServer]:
    """A server on a port, as the commands of the document want it."""
    with EmbeddedServer(tcp=True) as server:
        yield server


@pytest.fixture
def server(running: EmbeddedServer) -> Iterator[Server]:
    with redis.Redis.from_url(running.url) as client:
        yield Server(running.url, client, running)


Start = Callable[..., NodeProcess]


@pytest.fixture(scope="module")
def start(project: Path, running: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a command of the page, in the project's folder, as a user would; each is ended at the end."""
    started: list[NodeProcess] = []
    logs = tmp_path_factory.mktemp("logs")

    def start(command: str, **environ: str) -> NodeProcess:
        _, *words = command.replace("\\\n", " ").split()
        log = logs / f"{len(started)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=project,
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            )
        started.append(NodeProcess(process, log))
        return started[-1]

    yield start
    for node in started:
        if node.process.poll() is None:
            node.process.terminate()
    for node in started:
        node.process.wait(30)


@pytest.fixture(scope="module")
def node(start: Start, running: EmbeddedServer) -> NodeProcess:
    """The worker of the document, with the registry of the file kept.py."""
    command = edited(SIMPLE_WORKER, IMPORTS).replace("redis://localhost:6379", running.url)
    found = start(f"{command} --registry kept.py:ours --max-retries 2")
    found.wait_for_log("local   ")
    return found


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tasks are enqueued is one place in a process."""
    monkeypatch.setattr(Task, "_task_queue", None)


@pytest.fixture
def kinds(project: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The classes of the project, in this process, which enqueues on the server."""
    monkeypatch.syspath_prepend(project)
    queue = RedisTaskQueue(server.url)
    TaskFramework.setup(task_queue=queue)
    yield import_module("kept").kinds
    queue.app.close()
    for name in [name for name in sys.modules if name in ("kept", "tasks") or name.startswith("tasks.")]:
        del sys.modules[name]


# The document's examples.


def test_each_edit_of_the_examples_is_needed_and_stands_on_the_page():
    text = MY_TASK + MY_WORKER + ORCHESTRATOR + SIMPLE_WORKER
    page = PAGE.read_text()
    for old, _, reason in [*IMPORTS, *SLIPS]:
        assert old in text
        assert reason in page or reason in ("its name", "the import line")
    assert "output_path" in page


def test_the_orchestrator_runs_the_worker_of_the_document(start, kinds, server):
    host = re.search(r"@(.*)/0", server.url)[1]
    words = edited(ORCHESTRATOR, IMPORTS).replace("localhost:6379", host)
    password = server.url.split(":")[2].split("@")[0]
    file = kinds.__file__.replace("kinds.py", "password")
    Path(file).write_text(password)
    of_nodes = "{new-task:tasks}:nodes"
    before = set(server.redis.hkeys(of_nodes))
    parent = start(words, PYTASK_REDIS_PASSWORD_FILE=file)
    wait_until(lambda: len(set(server.redis.hkeys(of_nodes)) - before) == 4, parent.text, 60)  # five interpreters
    ids = [kinds.Task1(source=f"s{n}", output_dir="o", batch_size=n).enqueue() for n in range(8)]
    results = [RedisTaskQueue(server.url).wait(task_id, 20) for task_id in ids]
    assert {message.status for message in results} == {TaskStatus.COMPLETED}
    assert {message.worker_id for message in results} <= {f"worker_{n}" for n in (1, 2, 3, 4)}
    wait_until(lambda: "Extraction: s3 -> None (batch: 3)" in parent.text())
    assert "tasks   Task1, Task2, Task3, task1, task2, task3" in parent.text()
    parent.signal(signal.SIGINT)
    assert parent.wait() == 0


def test_the_simple_workers_of_the_document_find_the_tasks_of_the_folder(start, kinds, server):
    command = edited(PRODUCTION_WORKER, IMPORTS).replace("redis://prod-redis:6379", server.url)
    worker = start(command)
    TaskFramework.setup(task_queue=RedisTaskQueue(server.url, "production_jobs"))
    task = kinds.MyTask(source="in", output_dir="out", batch_size=1, label="let through")
    assert json.loads(server.field(task.enqueue(), "data"))["label"] == "let through"
    message = task.get_result(20)
    assert (message.status, message.worker_id) == (TaskStatus.COMPLETED, "prod_worker_1")
    wait_until(lambda: "Extraction: in -> None (batch: 1)" in worker.text())
    assert "INFO" not in worker.text()
    queue = Task._task_queue
    late = queue.enqueue(TaskMessage(task_id="", task_name="Task2", params={"good_from": 9}))
    wait_until(lambda: queue.get_message(late).status is TaskStatus.RETRY)
    assert queue.cancel(late)
    assert worker.terminate() == 0
    queue.app.close()


# The page.


def test_the_program_of_the_page_does_what_it_says(start, server, project, httpd):
    for name, text in re.findall(r"^# checker/(\S+\.py)\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        (project / "checker" / "tasks").mkdir(parents=True, exist_ok=True)
        (project / "checker" / name).write_text(text)
    parent = start(f"python -m pytask orchestrate -n 1 -q {server.url} checker/myworker.py", QUEUE_NAME="pages")
    checked = subprocess.run(
        [sys.executable, "check.py", f"{httpd}/whole", f"{httpd}/cut", f"{httpd}/none"],
        cwd=project / "checker",
        env={**os.environ, "REDIS_URL": server.url, "QUEUE_NAME": "pages"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.stdout.splitlines() == [
        f"COMPLETED {{'url': '{httpd}/whole', 'characters': 13}}",
        f"FAILED ValueError: {httpd}/cut lacks </html>",
        "FAILED urllib.error.HTTPError: HTTP Error 404: Not Found",
    ], checked.stderr + parent.text()
    assert f"INFO    CheckPage: {httpd}/whole is as it should be" in parent.text()
    assert parent.terminate() == 0


@pytest.fixture
def httpd() -> Iterator[str]:
    """A web server with the pages `/whole` and `/cut`; where it is."""
    pages = {"/whole": b"<html></html>", "/cut": b"<html>"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            """Into no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def test_the_page_says_which_state_is_which_status():
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z, ]+)", PAGE.read_text(), re.M))
    for state, status in STATUSES.items():
        assert state in re.split(", |:", told[status.name].rstrip(": ")), (state, status)
    assert told.keys() | {"NOT_CREATED"} == set(TaskStatus.__members__)


def test_the_page_lists_every_flag_of_the_worker():
    rows = re.search(r"^\| flag of the worker .*?\n\n", PAGE.read_text(), re.M | re.S)[0]
    told = {
        flag for row in re.findall(r"^\| (`-.*?) \|", rows, re.M) for flag in re.findall(r"(?<!\w)--?[\w-]+", row)
    }
    assert told == {flag for option in worker.params for flag in option.opts} | {"-h", "--help"}


# The life of a message, with Redis.


def test_every_state_of_ours_is_one_status_of_theirs():
    assert STATUSES.keys() == states.MOVES.keys()
    assert set(STATUSES.values()) | {TaskStatus.NOT_CREATED} == set(TaskStatus)
    assert {state for state, status in STATUSES.items() if status in ENDED} == states.CLOSED


def test_a_task_completes_and_its_message_tells_when_and_where(node, kinds):
    task = kinds.Task2()
    assert task.status is TaskStatus.NOT_CREATED
    task_id = task.enqueue()
    message = task.get_result(timeout=20)
    assert (message.task_id, message.task_name, message.status) == (task_id, "flaky", TaskStatus.COMPLETED)
    assert (message.result, message.error, message.retry_count) == ({"attempt": 1}, None, 0)
    assert message.worker_id == "worker_1"
    assert message.created_at <= message.started_at <= message.completed_at
    assert task.status == "completed"


def test_a_failed_attempt_is_retried_and_then_completes(node, kinds, server):
    later = kinds.Task2(good_from=3)
    later.enqueue()
    message = later.get_result(20)
    assert (message.status, message.result, message.retry_count) == (TaskStatus.COMPLETED, {"attempt": 3}, 2)


def test_a_task_fails_when_its_retries_are_used_up(node, kinds):
    never = kinds.Task2(good_from=9)
    never.enqueue()
    message = never.get_result(20)
    assert (message.status, message.retry_count, message.result) == (TaskStatus.FAILED, 2, None)
    assert message.error == "OSError: not yet"
    assert 'raise OSError("not yet")' in message.traceback


def test_a_retry_that_waits_says_so_and_why(node, kinds):
    waiting = kinds.Task2(good_from=2)
    waiting.enqueue(retry_delay=600)
    wait_until(lambda: waiting.status is TaskStatus.RETRY)
    message = RedisTaskQueue.get_message(Task._task_queue, waiting.task_id)
    assert (message.retry_count, message.error) == (1, "OSError: not yet")
    with pytest.raises(TaskTimeout):
        waiting.get_result(timeout=0.05)
    assert waiting.cancel()
    assert waiting.get_result(20).status is TaskStatus.CANCELLED
    assert not waiting.cancel()


def test_a_task_that_runs_says_so_and_is_cancelled(node, kinds, server):
    slow = kinds.Task3()
    slow.enqueue()
    wait_until(lambda: slow.status is TaskStatus.RUNNING)
    wait_until(lambda: server.field(slow.task_id, "progress"))
    slow.cancel()
    assert slow.get_result(20).status is TaskStatus.CANCELLED


def test_a_task_is_skipped_or_fails_at_once_where_it_says_so(node, kinds):
    for kind, status, error in (
        (kinds.Choosy, TaskStatus.SKIPPED, "nothing new"),
        (kinds.Final, TaskStatus.FAILED, "no such account"),
    ):
        task = kind()
        task.enqueue()
        message = task.get_result(20)
        assert (message.status, message.error, message.retry_count) == (status, error, 0)


def test_what_is_not_begun_in_time_is_skipped_and_what_waits_is_pending(node, kinds):
    late = kinds.Task2()
    late.enqueue(expires=1)
    assert late.get_result(20).status is TaskStatus.SKIPPED
    waiting = kinds.Task2()
    waiting.enqueue(delay=600)
    assert waiting.status is TaskStatus.PENDING
    waiting.cancel()


def test_a_message_does_not_exist_before_the_task_is_enqueued_nor_when_it_is_gone(kinds, server):
    task = kinds.Task2()
    with pytest.raises(MessageNotExist, match="Task2 was not enqueued"):
        task.get_result()
    task.enqueue(delay=600)
    server.redis.delete(f"task-{task.task_id}")
    with pytest.raises(MessageNotExist, match="no message of task"):
        task.get_result()
    assert task.status is TaskStatus.NOT_CREATED
    assert not task.cancel()


def test_any_client_of_redis_makes_and_reads_such_a_task(node, server):
    data = {"source": "raw", "output_dir": "o", "batch_size": 1, "label": "more is let through"}
    server.redis.hset("task-raw-1", mapping={"task": "MyTask", "data": json.dumps(data)})
    server.redis.lpush("new-task:tasks", "raw-1")
    server.wait_for_state("raw-1", "SUCCESS")
    wait_until(lambda: "Extraction: raw -> None (batch: 1)" in node.text())
    server.redis.hset("task-raw-2", mapping={"task": "MyTask", "data": '{"source": 1, "batch_size": "x"}'})
    server.redis.lpush("new-task:tasks", "raw-2")
    server.wait_for_state("raw-2", "ERROR")
    assert server.field("raw-2", "output") == (
        "the field 'data' does not fit MyTask: invalid params for MyTask: source: Input should be a valid string;"
        " output_dir: Field required; batch_size: Input should be a valid integer, unable to parse string as an"
        " integer"
    )


def test_a_message_may_be_made_by_hand(node, server):
    queue = RedisTaskQueue(server.url)
    task_id = queue.enqueue(TaskMessage(task_id="by-hand", task_name="flaky", params={}, max_retries=0))
    assert task_id == "by-hand"
    assert server.field("by-hand", "retries") == "0"
    assert queue.wait("by-hand", 20).status is TaskStatus.COMPLETED
    queue.app.close()


def test_a_queue_may_have_any_name(server):
    queue = RedisTaskQueue(server.url, "prod jobs")
    task_id = queue.enqueue(TaskMessage(task_id="", task_name="flaky"))
    assert server.redis.lrange(f"new-task:{queue.queue}", 0, -1) == [task_id.encode()]
    assert queue.queue.startswith("prod-jobs-")
    queue.app.close()


# A queue of one's own.


class Adds(Task):
    class params_model(TaskParams):
        left: int
        right: int = 1

    def run(self) -> int:
        if self.get_param("left") < 0:
            raise ValueError("negative")
        return self.get_param("left") + self.get_param("right")


class Waits(Task):
    go = threading.Event()

    def run(self) -> None:
        assert self.go.wait(20)


class Skips(Task):
    def run(self) -> None:
        raise self.Discard("nothing new")


class Chains(Task):
    def run(self) -> str:
        return Adds.delay(left=20)


def registry() -> TaskRegistry:
    made = TaskRegistry()
    for kind in (Adds, Waits, Skips, Chains):
        made.register(kind.__name__.lower(), kind)
    return made


class Told(InMemoryQueue):
    """Remembers what was told of each task, and fails when asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, list[str]] = {}
        self.failures = 0

    def update_message(self, message_id: str, message: ResultMessage) -> None:
        self.told.setdefault(message_id, []).append(str(message.status))
        super().update_message(message_id, message)

    def dequeue(self, timeout: float = 1) -> TaskMessage | None:
        if self.failures:
            self.failures -= 1
            raise OSError("the broker is away")
        return super().dequeue(min(timeout, 0.02))


@contextlib.contextmanager
def working(queue: Queue, **options: Any) -> Iterator[TaskWorker]:
    """A worker of the queue, in a thread of this process."""
    worker = TaskWorker(queue, registry(), worker_id="here", **options)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        wait_until(lambda: worker.stop() or not thread.is_alive(), "the worker ends")


def test_a_worker_works_through_a_queue_without_redis():
    queue = Told()
    with working(queue):
        task = Adds(left=2, right=3)
        task_id = task.enqueue()
        message = task.get_result(20)
        assert (message.status, message.result, message.worker_id) == (TaskStatus.COMPLETED, 5, "here")
        assert message.task_name == "adds"
        assert message.created_at <= message.started_at <= message.completed_at
        assert queue.told[task_id] == ["pending", "running", "completed"]


def test_a_task_of_such_a_queue_is_retried_and_fails_in_the_end():
    queue = Told()
    with working(queue, max_retries=2):
        task = Adds(left=-1)
        task_id = task.enqueue()
        message = task.get_result(20)
        assert queue.told[task_id] == ["pending", *["running", "retry"] * 2, "running", "failed"]
        assert (message.retry_count, message.error) == (2, "ValueError: negative")
        assert 'raise ValueError("negative")' in message.traceback


def test_it_may_be_skipped_or_cancelled():
    queue = Told()
    Waits.go.clear()
    with working(queue):
        blocker, cancelled, skipped = Waits(), Adds(left=1), Skips()
        blocker.enqueue()
        wait_until(lambda: blocker.status is TaskStatus.RUNNING)
        assert not blocker.cancel()
        cancelled.enqueue()
        skipped.enqueue()
        assert cancelled.status is TaskStatus.PENDING
        assert cancelled.cancel()
        with pytest.raises(TaskTimeout, match=r"has not ended within 0\.02 s"):
            blocker.get_result(timeout=0.02)
        Waits.go.set()
        message = skipped.get_result(20)
        assert (message.status, message.error) == (TaskStatus.SKIPPED, "nothing new")
        assert cancelled.get_result(20).status is TaskStatus.CANCELLED
        assert "running" not in queue.told[cancelled.task_id]
        assert not cancelled.cancel()


def test_a_task_may_enqueue_another_one():
    with working(Told()):
        task = Chains()
        task.enqueue()
        other = Task._task_queue
        assert wait_until(lambda: other.get_message(task.get_result(20).result)).task_name == "adds"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (TaskMessage(task_id="1", task_name="nobody"), "task 'nobody' is not registered"),
        (
            TaskMessage(task_id="1", task_name="adds", params={"left": "x"}),
            "left: Input should be a valid integer",
        ),
        (TaskMessage(task_id="1", task_name="adds", params={}, max_retries=7), "left: Field required"),
    ],
)
def test_a_message_that_cannot_be_run_fails_without_a_retry(message, error):
    queue = Told()
    with working(queue):
        queue.enqueue(message)
        wait_until(lambda: (found := queue.get_message("1")) and found.status is TaskStatus.FAILED)
        assert error in queue.get_message("1").error
        assert queue.told["1"] == ["running", "failed"]


def test_a_queue_that_fails_is_tried_again(caplog):
    queue = Told()
    queue.failures = 1
    with working(queue):
        task = Adds(left=1)
        task.enqueue()
        assert task.get_result(20).result == 2
    assert "the queue failed" in caplog.text


def test_such_a_queue_takes_no_options_of_ours_and_knows_no_message_of_others():
    TaskFramework.setup(task_queue=InMemoryQueue(), result_queue=None)
    with pytest.raises(InvalidInputError, match="delay: a queue of your own knows no options"):
        Adds(left=1).enqueue(delay=5)
    stranger = Adds(left=1)
    stranger.task_id = "elsewhere"
    with pytest.raises(MessageNotExist):
        stranger.get_result()
    assert stranger.status is TaskStatus.NOT_CREATED


def test_a_worker_of_such_a_queue_has_no_app_and_ends_at_a_signal(project, tmp_path):
    """`pytask orchestrate` runs its file as a program, in as many processes."""
    assert TaskWorker(InMemoryQueue(), registry()).pytask_app() is None
    (tmp_path / "own.py").write_text(
        "from pytask.compat.task_framework import *\n"
        "class Hello(Task):\n    def run(self):\n        print('hello from', self.task_id, flush=True)\n"
        "registry = TaskRegistry()\nregistry.register('hello', Hello)\n"
        "worker = TaskWorker(InMemoryQueue(), registry)\n"
        "if __name__ == '__main__':\n    Hello().enqueue()\n    worker.run()\n    print('done', flush=True)\n"
    )
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "pytask", "orchestrate", "-n", "2", str(tmp_path / "own.py")]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_until(lambda: log.read_text().count("hello from") == 2, log.read_text)
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert log.read_text().count("done") == 2


LENDING_WORKER = """\
import os, time
from pathlib import Path
from queue_in_file import FileQueue
from pytask.compat.task_framework import Task, TaskRegistry, TaskWorker

FileQueue.lease = 0.6

class Slow(Task):
    def run(self):
        with open("begun", "a") as file:
            file.write(f"{os.getpid()}\\n")
        while not Path("go").exists():
            time.sleep(0.01)
        return "done"

registry = TaskRegistry()
registry.register("slow", Slow)

if __name__ == "__main__":
    TaskWorker(FileQueue("queue.db"), registry, max_retries=1, worker_id=str(os.getpid())).run()
"""


@pytest.fixture
def lending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts workers of the page's queue in a file; this process enqueues there."""
    (text,) = re.findall(r"^# lending/queue_in_file\.py\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    (tmp_path / "queue_in_file.py").write_text(text)
    (tmp_path / "worker.py").write_text(LENDING_WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    TaskFramework.setup(task_queue=import_module("queue_in_file").FileQueue(tmp_path / "queue.db"))
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "worker.py"], cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    del sys.modules["queue_in_file"]


def pids_of(tmp_path: Path) -> list[int]:
    file = tmp_path / "begun"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_a_message_that_is_lent_survives_the_death_of_its_worker(lending, tmp_path):
    queue = Task._task_queue
    first, task_id = lending(), "lent"
    queue.update_message(task_id, ResultMessage(task_id=task_id, task_name="slow"))
    queue.enqueue(TaskMessage(task_id=task_id, task_name="slow"))
    wait_until(lambda: pids_of(tmp_path) == [first.pid])
    second = lending()
    lent_until = queue.sql("SELECT not_before FROM waiting")[0][0]
    wait_until(lambda: queue.sql("SELECT not_before FROM waiting")[0][0] > lent_until + 3 * 0.6)
    assert pids_of(tmp_path) == [first.pid]  # its lease is extended as long as its worker lives
    first.kill()
    wait_until(lambda: pids_of(tmp_path) == [first.pid, second.pid])
    (tmp_path / "go").touch()
    wait_until(lambda: queue.get_message(task_id).status is TaskStatus.COMPLETED)
    message = queue.get_message(task_id)
    assert (message.result, message.retry_count, message.worker_id) == ("done", 1, str(second.pid))
    wait_until(lambda: queue.sql("SELECT count(*) FROM waiting") == [(0,)])


def test_a_message_that_kills_its_workers_fails_in_the_end(lending, tmp_path):
    queue = Task._task_queue
    queue.enqueue(TaskMessage(task_id="deadly", task_name="slow"))
    for deaths in (1, 2):
        process = lending()
        wait_until(lambda count=deaths: len(pids_of(tmp_path)) == count)
        process.kill()
        process.wait()
    lending()
    wait_until(lambda: queue.get_message("deadly").status is TaskStatus.FAILED)
    assert "died while it ran, and its retries are used up" in queue.get_message("deadly").error
    wait_until(lambda: queue.sql("SELECT count(*) FROM waiting") == [(0,)])
    assert len(pids_of(tmp_path)) == 2


class Lent(Told):
    """Lends its messages, and fails to extend them at first."""

    lease = 0.03

    def __init__(self) -> None:
        super().__init__()
        self.extended = 0
        self.acknowledged: list[str] = []

    def extend(self, _message: TaskMessage) -> None:
        self.extended += 1
        if self.extended == 1:
            raise OSError("the broker is away")

    def acknowledge(self, message: TaskMessage) -> None:
        self.acknowledged.append(message.task_id)


def test_what_has_ended_is_acknowledged_and_not_run_again_where_its_worker_died_in_between():
    queue = Lent()
    message = TaskMessage(task_id="1", task_name="adds", params={"left": 1})
    end = ResultMessage(task_id="1", task_name="adds", status=TaskStatus.COMPLETED, result=2)
    queue.update_message("1", end)
    queue.enqueue(message)
    with working(queue):
        wait_until(lambda: queue.acknowledged == ["1"])
    assert queue.told["1"] == ["completed"]


def test_a_lease_is_extended_again_where_that_failed_once(caplog):
    queue = Lent()
    Waits.go.clear()
    with working(queue):
        task = Waits()
        task_id = task.enqueue()
        wait_until(lambda: queue.extended > 2)
        assert queue.acknowledged == []
        Waits.go.set()
        assert task.get_result(20).status is TaskStatus.COMPLETED
        wait_until(lambda: queue.acknowledged == [task_id])
    assert f"the lease of task {task_id} was not extended" in caplog.text


# Definitions, and what is wrong with them.


def test_params_are_checked_when_the_task_is_made():
    assert Adds(left="3").get_param("left") == 3
    assert Adds(left=1).params == {"left": 1, "right": 1}
    assert Adds(left=1, extra=[1]).get_param("extra") == [1]
    assert Adds(left=1).get_param("nothing", "else") == "else"
    assert Waits(self=1, anything=2).params == {"self": 1, "anything": 2}
    with pytest.raises(ValueError, match="invalid params for Adds: left: Input should be a valid integer"):
        Adds(left="three")


def test_params_that_json_cannot_hold_are_refused_before_they_are_sent():
    TaskFramework.setup(task_queue=RedisTaskQueue("redis://127.0.0.1:1"))
    with pytest.raises(InvalidInputError):
        Waits(it=object()).enqueue()


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("two words", Adds, "task name 'two words' must be"),
        ("", Adds, "task name '' must be"),
        (7, Adds, "task name 7 must be"),
        ("x", Task, "is no subclass of Task with a run"),
        ("x", "Adds", "is no subclass of Task with a run"),
        ("x", object, "is no subclass of Task with a run"),
    ],
)
def test_what_cannot_be_registered_is_refused(name, kind, says):
    with pytest.raises(TaskDefinitionError, match=re.escape(says)):
        TaskRegistry().register(name, kind)


def test_an_option_that_there_is_not_is_refused():
    with pytest.raises(TaskDefinitionError, match="no option 'retrys': did you mean retries"):
        TaskRegistry().register("adds", Adds, retrys=3)


def test_a_name_stands_for_one_class():
    known = registry()
    known.register("adds", Adds)
    with pytest.raises(TaskDefinitionError, match="task adds is registered already, with Adds"):
        known.register("adds", Skips)
    assert known.get_task("adds") is Adds
    with pytest.raises(UnknownTaskError):
        known.get_task("none")
    assert list(known.list_tasks()) == ["adds", "waits", "skips", "chains"]


@pytest.mark.parametrize("retries", [-1, "many", float("nan"), True, 10**12])
def test_a_number_of_retries_that_is_none_is_refused(retries):
    with pytest.raises(InvalidInputError, match="retries"):
        TaskWorker(InMemoryQueue(), registry(), max_retries=retries)


def test_the_schema_of_a_task_is_that_of_its_params():
    app = TaskWorker(RedisTaskQueue("redis://x"), registry()).pytask_app()
    assert list(get_schema(app.tasks["adds"])["properties"]) == ["left", "right"]
    with pytest.raises(ConfigurationError, match="model_json_schema"):
        get_schema(app.tasks["waits"])


def test_a_registry_has_the_app_of_its_worker():
    known = registry()
    worker = TaskWorker(RedisTaskQueue("redis://x"), known, max_retries=5, worker_id="w 1")
    app = worker.pytask_app()
    assert known.pytask_app() is app
    assert app.tasks["adds"].retries == 5
    assert app.settings.node_name.startswith("w-1-")
    assert registry().pytask_app().settings.queues == ("tasks",)


def test_tasks_are_found_in_a_module_a_package_a_registry_or_a_file(project, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    assert set(find_registry("tasks", str(project)).list_tasks()) == {
        "MyTask", "Task1", "Task2", "Task3", "Choosy", "Final"
    }  # fmt: skip
    assert set(find_registry("tasks.my_task", str(project)).list_tasks()) == {"MyTask"}
    kept = find_registry("kept", str(project)).list_tasks()
    assert set(kept) == {"MyTask", "flaky", "slow-task", "choosy", "final"}
    (tmp_path / "two.py").write_text(
        "from pytask.compat.task_framework import TaskRegistry\na, b = TaskRegistry(), TaskRegistry()\n"
    )
    for where, says in (
        ("two", "is no registry, or holds several"),
        ("two:c", "is no registry, or holds several"),
        ("nothing", "there is no module 'nothing'"),
        ("test_task_framework_empty", "there is no module"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            find_registry(where, str(tmp_path))
    assert find_registry("two:a", str(tmp_path)).list_tasks() == {}
    (tmp_path / "empty.py").write_text("from pytask.compat.task_framework import Task\n")
    with pytest.raises(ConfigurationError, match="empty holds no registry and defines no task"):
        find_registry("empty", str(tmp_path))
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--registry nowhere", "there is no module 'nowhere'"),
        ("--registry tasks.kinds --redis-url ftp://:secret@x", "a Redis URL begins with"),
        ("--max-retries -1", "-1 is not in the range"),
        ("--log-level loud", "'loud' is not one of"),
    ],
)
def test_what_is_wrong_with_a_worker_is_told_with_status_2(start, words, says):
    worker = start(f"python -m pytask.compat.task_framework.worker {words}")
    assert worker.wait() == 2
    assert says in worker.text()
    assert "secret" not in worker.text()
    assert "Traceback" not in worker.text()


def run_python(text: str) -> str:
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    return ended.stdout + ended.stderr


def test_its_import_patches_nothing_and_without_pydantic_only_task_params_is_missing():
    text = run_python("import sys; sys.modules['pydantic'] = None\nfrom pytask.compat.task_framework import *\n")
    assert "ImportError: TaskParams: pydantic is missing: pip install 'pytask-daemon[typed]'" in text
    told = run_python(
        "import sys; sys.modules['pydantic'] = None\n"
        "from pytask.compat.task_framework import Task, TaskRegistry, TaskWorker, InMemoryQueue\n"
        "class Hello(Task):\n    def run(self): return self.get_param('to')\n"
        "print(Hello(to='me').run(), 'gevent' in sys.modules)\n"
    )
    assert told == "me False\n"


def test_a_name_that_is_not_there_is_an_attribute_error():
    import pytask.compat.task_framework as face

    assert all(getattr(face, name) is not None for name in face.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Tsk'"):
        _ = face.Tsk
