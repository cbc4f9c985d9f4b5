"""The client commands' way to Redis: options that they share, and what goes wrong put into words and statuses.

Nothing here, or in the commands that use it, imports gevent or shows a password.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import click

from pytask import settings as settings_module
from pytask.errors import ConfigurationError, InvalidInputError, PyTaskError, StoreRefused, StoreUnavailable
from pytask.helpers import PyTaskHelpers
from pytask.store.addresses import resolve_target
from pytask.store.store import Store
from pytask.store.target import Target

PATIENCE = 1.0  # seconds until a command says that there is no Redis
INTERRUPTED = 130  # exit status after Ctrl-C

Command = Callable[..., Any]


class Where(NamedTuple):
    """What the shared options said."""

    url: str | None = None
    config: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A server that has answered, and what speaks to it."""

    target: Target
    store: Store
    helpers: PyTaskHelpers


def takes_url(function: Command) -> Command:
    """Give a command `-u` and `-C`, as its argument `where`."""

    @click.option("-u", "--url", metavar="URL", help="Where Redis is; by default what the settings say.")
    @click.option("-C", "--config", metavar="FILE", help="A TOML file with settings.")
    @functools.wraps(function)
    def wrapper(url: str | None, config: str | None, namespace: str | None = None, **options: Any) -> Any:
        return function(where=Where(url, config, namespace), **options)

    return wrapper


def takes_connection(function: Command) -> Command:
    """Give a command `-u`, `-C` and `--namespace`, as its argument `where`."""
    namespace = click.option("--namespace", metavar="NAME", help="Stands before every key.")
    return namespace(takes_url(function))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")


@contextlib.contextmanager
def connected(where: Where) -> Iterator[Connection]:
    """Reach the server, hand it out, and close. Blocks for a second at most before it says that there is none.

    Inside, bad input of the caller becomes a usage error (status 2), and a key of another type status 1.
    """
    found = settings_module.load(flags={"redis": where.url, "namespace": where.namespace}, file=where.config)
    target = resolve_target(_one_server(found.redis), found.redis_password)
    store = Store(target, found.namespace)
    helpers = PyTaskHelpers(store, found.queues, max_data=found.max_data)
    try:
        _reach(store, target)
        yield Connection(target, store, helpers)
    except InvalidInputError as error:
        raise click.UsageError(str(error)) from error
    except StoreRefused as error:
        if "WRONGTYPE" not in str(error):
            raise
        raise PyTaskError(f"a key of the task is of another type: {error}") from error
    finally:
        helpers.close()


def _one_server(address: object) -> object:
    if isinstance(address, str) and address.partition(":")[0] in ("embedded", "embedded+tcp"):
        raise ConfigurationError("an embedded server belongs to its node: give its address with --url")
    return address


def _reach(store: Store, target: Target) -> None:
    try:
        store.client.execute("PING", patience=PATIENCE)
    except StoreUnavailable as error:
        raise StoreUnavailable(f"no Redis at {target.address}: {error}") from error
    except StoreRefused as error:
        raise StoreRefused(f"Redis at {target.address} refuses: {error}") from error
