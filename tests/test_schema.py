"""`pytask schema`: what data a task takes."""

from __future__ import annotations

import json
import subprocess

import nursery
import pytest
from conftest import HERE


def schema(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = nursery.run(["schema", *arguments, "--path", str(HERE)])
    assert done.returncode == status, done.stderr
    return done


def test_the_fields_are_shown_for_people():
    lines = [line.split("  ") for line in schema("typedapp:app", "typed").stdout.splitlines()]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert table == [
        ["customer", "string", "required"],
        ["count", "integer", "default 1", "how many"],
        ["when", "string (date) or null", "default null"],
        ["password", "string (password)", 'default ""'],
    ]


def test_the_json_schema_is_one_line():
    found = json.loads(schema("typedapp:app", "typedapp.total", "--json").stdout)
    assert found["properties"]["factor"] == {"default": 1, "title": "Factor", "type": "integer"}
    assert found["title"] == "typedapp.total"


@pytest.mark.parametrize("name", ["untyped", "typedapp.add", "pytask/call"])
def test_tasks_without_types_show_their_names(name):
    assert "required" in schema("typedapp:app", name).stdout


def test_what_is_wrong_is_one_line():
    assert schema("typedapp:app", "type", status=1).stderr == (
        "pytask: typedapp:app has no task 'type': did you mean typed?\n"
    )
    assert "have no model_json_schema" in schema("typedapp:app", "ducky", status=2).stderr
    assert "there is no module" in schema("nothing:app", "typed", status=2).stderr
