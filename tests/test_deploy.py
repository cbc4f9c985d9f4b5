"""The files of example/deploy: their own tools take them, and what they say to pytask is what it reads.

The tools are used where they are installed: docker compose, or docker-compose alone, and kubectl.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import redis
from conftest import wait_until
from test_access import of_page

from pytask import settings
from pytask.embedded import find_binary
from pytask.store.addresses import resolve_target

DEPLOY = Path(__file__).parent.parent / "example" / "deploy"
COMPOSE = sorted(DEPLOY.glob("compose.*.yaml"))
KUBERNETES = DEPLOY / "kubernetes"
YAML = [*COMPOSE, *sorted(KUBERNETES.glob("*.yaml"))]


def run(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    command = ["docker", "compose"]
    if shutil.which("docker") and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
        return command
    pytest.skip("docker compose is not installed")


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_takes_the_file(file):
    made = run(*compose_command(), "-f", str(file), "config")
    assert "PYTASK_REDIS_PASSWORD_FILE: /run/secrets/node-password" in made
    assert "target: /etc/valkey/users.acl" in made


def test_kustomize_makes_all_objects():
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    made = run("kubectl", "kustomize", str(KUBERNETES))
    kinds = re.findall(r"^kind: (\w+)$", made, re.M)
    assert sorted(kinds) == [
        "Deployment", "Job", "Namespace", "PodDisruptionBudget", "PodDisruptionBudget",
        "Secret", "Secret", "Secret", "Service", "StatefulSet",
    ]  # fmt: skip
    assert all(name in made for name in re.findall(r"secretName: (\S+)", made))


@pytest.mark.parametrize("file", YAML, ids=lambda file: file.name)
def test_a_file_has_no_tabs_and_only_variables_that_are_read(file):
    text = file.read_text()
    assert "\t" not in text
    known = {variable for row in settings.SETTINGS.values() for variable in row.variables}
    known |= set(settings._OTHER_VARIABLES)
    assert set(re.findall(r"\bPYTASK_[A-Z_]*[A-Z]\b", text)) <= known
    for name, value in re.findall(r"PYTASK_([A-Z_]+)(?:: |\n\s+value: )(\d\S*)$", text, re.M):
        settings.load({name.lower(): value})


@pytest.mark.parametrize("file", [*COMPOSE, KUBERNETES / "nodes.yaml"], ids=lambda file: file.name)
def test_the_address_is_one_that_pytask_takes(file):
    (url,) = re.findall(r"(?:PYTASK_REDIS_URL: |value: )(redis\S+)", file.read_text())
    target = resolve_target(url, "a password")
    assert len(target.seeds) == 3
    assert target.arguments == {"username": "pytask-node", "password": "a password"}


@pytest.mark.parametrize("file", [DEPLOY / "users.acl", KUBERNETES / "users.acl"], ids=["compose", "kubernetes"])
def test_the_users_are_those_of_the_page_and_an_administrator(file):
    users = {words[1]: words[2:] for words in map(str.split, file.read_text().splitlines())}
    administrator = users.pop("default")
    assert "on" in administrator
    assert "nopass" not in administrator
    cluster = of_page("acl-cluster")
    assert users == {user: words + cluster.get(user, []) for user, words in of_page().items()}


def test_a_server_takes_the_file_of_users(tmp_path):
    socket = tmp_path / "s"
    command = [find_binary(), "--port", "0", "--unixsocket", str(socket), "--aclfile", str(DEPLOY / "users.acl")]
    with subprocess.Popen([*command, "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: socket.exists() or process.poll() is not None)
            with redis.Redis(unix_socket_path=str(socket)) as nobody, pytest.raises(redis.AuthenticationError):
                nobody.ping()
            url = f"unix://pytask-producer:producer-password@{socket}"
            with redis.Redis.from_url(url, driver_info=None, protocol=2) as producer:
                assert producer.lpush("new-task", "T") == 1
        finally:
            process.terminate()
