"""`python -m pytask.compat.task_framework.worker`: one worker, with the flags of task-framework's."""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import click

from pytask.cli import status_of
from pytask.cli.files import load_file, split_name
from pytask.cli.loading import load_module
from pytask.compat.task_framework import RedisTaskQueue, Task, TaskRegistry, TaskWorker
from pytask.errors import ConfigurationError, PyTaskError
from pytask.logs import LEVELS, choose, setup_logging, share_logging


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--worker-id", metavar="ID", help="First part of the node's id; WORKER_ID of the environment.")
@click.option("--redis-url", metavar="URL", help="Where Redis is; by default what the settings say.")
@click.option("--queue-name", metavar="NAME", help="The queue; QUEUE_NAME of the environment, else tasks.")
@click.option("-l", "--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="INFO by default.")
@click.option("--max-retries", type=click.IntRange(0, 1_000_000_000), default=3, show_default=True)
@click.option(
    "--registry",
    metavar="MODULE[:NAME]",
    envvar="TASK_REGISTRY",
    default="tasks",
    show_default=True,
    help="Where the tasks are: a registry in a module or a file, or a module or package that defines tasks.",
)
@click.option("--path", default=".", show_default=True, help="Import the module from this directory.")
def worker(
    worker_id: str | None,
    redis_url: str | None,
    queue_name: str | None,
    log_level: str | None,
    max_retries: int,
    registry: str,
    path: str,
) -> None:
    """Run the tasks that come through a queue, until SIGTERM or Ctrl-C."""
    setup_logging(*choose(log_level))
    try:
        found = find_registry(registry, path)
        share_logging()
        TaskWorker(RedisTaskQueue(redis_url, queue_name), found, max_retries, worker_id).run()
    except PyTaskError as error:
        click.echo(f"pytask: {error}", err=True)
        sys.exit(status_of(error))


def find_registry(where: str, path: str) -> TaskRegistry:
    """The registry that a module holds, else one of every task that it defines, or the modules of the package.

    `where`: `module`, `module:name`, `file.py` or `file.py:name`. Raises ConfigurationError.
    """
    sys.path.insert(0, str(Path(path).resolve()))
    file, name = split_name(where)
    if file.suffix == ".py":
        modules = [load_file(Path(path) / file)]
    else:
        module_name, _, name = where.partition(":")
        modules = _with_parts(load_module(module_name, path), path, deep=not name)
    held = {k: v for k, v in vars(modules[0]).items() if isinstance(v, TaskRegistry) and name in ("", k)}
    if len({id(value) for value in held.values()}) == 1:
        return next(iter(held.values()))
    if held or name:
        raise ConfigurationError(f"{where} is no registry, or holds several: write MODULE:NAME; see --registry")
    return _registry_of(modules, where)


def _with_parts(module: ModuleType, path: str, *, deep: bool) -> list[ModuleType]:
    """The module, and where it is a package those in it."""
    parts = pkgutil.iter_modules(getattr(module, "__path__", []), module.__name__ + ".") if deep else []
    return [module, *(load_module(part.name, path) for part in parts)]


def _is_task(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Task) and value.run is not Task.run


def _registry_of(modules: list[ModuleType], where: str) -> TaskRegistry:
    registry = TaskRegistry()
    for module in modules:
        for value in vars(module).values():
            if _is_task(value) and value.__module__ == module.__name__:
                registry.register(value.get_name(), value)
    if not registry.list_tasks():
        raise ConfigurationError(f"{where} holds no registry and defines no task: see --registry")
    return registry


if __name__ == "__main__":
    worker()
