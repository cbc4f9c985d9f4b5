"""What a user imports: the public names, their documentation, run_loop, and a package that is whole."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import pytask
from pytask import helpers as helpers_module
from pytask import run_loop
from pytask.errors import InvalidInputError, PyTaskError
from pytask.store.scripts import script_names

ROOT = Path(__file__).parent.parent

# Names.


def test_every_public_name_is_there():
    for name in pytask.__all__:
        assert getattr(pytask, name) is not None
    assert sorted(pytask.__all__) == list(pytask.__all__) == dir(pytask)


def test_what_is_lazy_is_what_is_public():
    assert set(pytask._HOMES) | {"__version__"} == set(pytask.__all__)
    for name, home in pytask._HOMES.items():
        value = getattr(importlib.import_module(home), name)
        assert value is getattr(pytask, name)
        assert value.__module__ == home


def test_type_checkers_see_the_same_names():
    source = inspect.getsource(pytask)
    block = source[source.index("if TYPE_CHECKING:") : source.index("__all__")]
    imported = {
        name.strip() for line in block.splitlines()[1:] for name in line.partition("import ")[2].split(",")
    }
    assert imported - {""} == set(pytask._HOMES)


def test_a_star_import_brings_the_public_names():
    scope: dict[str, object] = {}
    exec("from pytask import *", scope)
    assert set(pytask.__all__) <= set(scope)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pytask' has no attribute 'PyTsk'"):
        _ = pytask.PyTsk
    with pytest.raises(ImportError):
        exec("from pytask import nothing")


def public_things() -> dict[str, object]:
    """The public names, and the public methods and properties of the classes among them."""
    things: dict[str, object] = {}
    for name in set(pytask.__all__) - {"__version__"}:
        value = things[name] = getattr(pytask, name)
        if inspect.isclass(value):
            own = {key: part for key, part in vars(value).items() if not key.startswith("_")}
            parts = {key: getattr(part, "__func__", part) for key, part in own.items()}
            things |= {f"{name}.{key}": part for key, part in parts.items() if _needs_words(part)}
    return things


def _needs_words(part: object) -> bool:
    return callable(part) or isinstance(part, property)


def test_every_public_name_has_a_docstring():
    things = public_things()
    assert len(things) > 50
    assert [name for name, thing in sorted(things.items()) if not (thing.__doc__ or "").strip()] == []


def test_every_module_has_a_docstring():
    for path in sorted((ROOT / "pytask").rglob("*.py")):
        assert path.read_text().lstrip().startswith('"""'), path


def test_every_error_has_a_docstring_and_one_root():
    module = importlib.import_module("pytask.errors")
    errors = [value for value in vars(module).values() if inspect.isclass(value)]
    assert len(errors) > 10
    for error in errors:
        assert issubclass(error, PyTaskError)
        assert error.__doc__
        assert error.__name__ in module.__doc__


def test_public_functions_say_their_types():
    for name, thing in public_things().items():
        function = thing.fget if isinstance(thing, property) else thing
        if inspect.isfunction(function):
            assert "return" in function.__annotations__, name


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert pytask.__version__ == version("pytask-daemon")


# The package.


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The Python of a fresh environment with the package installed, not editable; other packages are lent."""
    place = tmp_path_factory.mktemp("install")
    source, environment = place / "source", place / "environment"
    source.mkdir()
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "pytask", source / "pytask", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", source]
    done = subprocess.run(install, capture_output=True, text=True, cwd=place, check=False)
    assert done.returncode == 0, done.stderr
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"))
    return python


def run(*command: str | Path, cwd: Path) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environ, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_installed_package_is_whole(installed, tmp_path):
    code = "import pytask, pytask.store.scripts as s; print(pytask.__file__); print(*s.script_names())"
    where, names = run(installed, "-c", code, cwd=tmp_path).splitlines()
    home = Path(where).parent
    assert installed.parent.parent in home.parents
    assert names.split() == script_names()

    def files(root: Path) -> set[str]:
        kinds = {".py", ".lua", ".typed"}
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.suffix in kinds}

    assert files(home) == files(ROOT / "pytask")
    assert "py.typed" in files(home)
    assert len(list(home.glob("store/lua/*.lua"))) == len(script_names()) > 15


def test_an_installed_package_imports_and_works(installed, tmp_path, server):
    code = f"""
from pytask import *
import pytask, importlib, pkgutil
for module in pkgutil.walk_packages(pytask.__path__, "pytask."):
    if module.name != "pytask.__main__":
        importlib.import_module(module.name)
app = PyTask({server.url!r})
print(app.helpers.get_task(app.helpers.start_task("echo", text="x"), "data"))
app.close()
"""
    assert run(installed, "-c", code, cwd=tmp_path) == '{"text":"x"}'


def test_an_installed_package_has_its_command(installed, tmp_path):
    command = installed.parent / "pytask"
    assert run(command, "--version", cwd=tmp_path).endswith(pytask.__version__)
    assert "worker" in run(command, "--help", cwd=tmp_path)
    assert run(installed, "-m", "pytask", "--version", cwd=tmp_path).endswith(pytask.__version__)


def test_an_installed_package_brings_its_fixtures_to_pytest(installed, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_it(pytask_eager):\n"
        "    pytask_eager.task(name='one')(lambda: 1)\n"
        "    task_id = pytask_eager.helpers.start_task('one')\n"
        "    assert pytask_eager.helpers.get_task(task_id, 'output') == '1'\n"
    )
    assert "1 passed" in run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)


# run_loop


class Clock:
    """Stands in for the module `time`. Sleeps end `late` seconds late; a call may take time itself."""

    def __init__(self, late: float = 0.0) -> None:
        self.now = 5000.25
        self.late = late

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += max(seconds + self.late, 1e-9)


def calls_of(clock: Clock, monkeypatch, interval: float, count: int, takes=lambda number: 0.0) -> list[float]:
    """When `count` calls were made, in seconds after the first."""
    monkeypatch.setattr(helpers_module, "time", clock)
    began, seen = clock.now, []

    def function() -> None:
        seen.append(clock.now - began)
        if len(seen) == count:
            raise StopIteration
        clock.now += takes(len(seen))

    with pytest.raises(StopIteration):
        run_loop(function, interval)
    return seen


def test_a_loop_calls_at_once_and_then_every_interval(monkeypatch):
    assert calls_of(Clock(), monkeypatch, 2, 4) == [0, 2, 4, 6]


@pytest.mark.parametrize("interval", [0.1, 0.3, 1.0, 60.0])
def test_a_loop_does_not_drift(monkeypatch, interval):
    clock = Clock(late=interval / 100)
    seen = calls_of(clock, monkeypatch, interval, 1000, takes=lambda _: interval / 7)
    assert seen[1:] == pytest.approx([number * interval + clock.late for number in range(1, 1000)])


def test_a_loop_skips_what_it_missed(monkeypatch):
    seen = calls_of(Clock(), monkeypatch, 10, 5, takes=lambda number: 35 if number == 2 else 1)
    assert seen == [0, 10, 50, 60, 70]


def test_a_loop_whose_sleep_ends_a_hair_early_calls_once_an_interval(monkeypatch):
    seen = calls_of(Clock(late=-1e-6), monkeypatch, 1.0, 5)
    assert seen == pytest.approx([0, 1, 2, 3, 4], abs=1e-3)


@pytest.mark.parametrize("interval", [0, -1, math.inf, math.nan])
def test_a_loop_needs_an_interval(interval):
    with pytest.raises(InvalidInputError, match="positive number of seconds"):
        run_loop(lambda: None, interval)


def test_what_the_function_raises_ends_the_loop():
    def function():
        raise KeyError("out")

    with pytest.raises(KeyError):
        run_loop(function, 60)
