"""The pytest plugin: fixtures, and the ini option `pytask_app`. Nothing else is imported before one is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytask.app import PyTask
    from pytask.embedded import EmbeddedServer
    from pytask.testing import Clock, InlineNode


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini("pytask_app", "The app of the fixture pytask_app, as module:app.", default="")


@pytest.fixture(scope="session")
def pytask_server() -> Iterator[EmbeddedServer]:
    """A private server for the whole session; it keeps nothing on disk."""
    from pytask.embedded import EmbeddedServer

    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def pytask_app(pytestconfig: pytest.Config, pytask_server: EmbeddedServer) -> Iterator[PyTask]:
    """The project's app (ini option `pytask_app`), or a new one, on the private server, which is empty."""
    from pytask.app import PyTask
    from pytask.cli.loading import load_app
    from pytask.testing import on_server

    where = pytestconfig.getini("pytask_app")
    app = load_app(where, str(pytestconfig.rootpath)) if where else PyTask(pytask_server.url)
    with on_server(app, pytask_server):
        app.helpers.store.client.execute("FLUSHALL")
        yield app


@pytest.fixture
def pytask_node(pytask_app: PyTask) -> Iterator[InlineNode]:
    """Runs what waits, in the test's own process: `pytask_node.run_until_idle()`."""
    from pytask.testing import InlineNode

    with InlineNode(pytask_app) as node:
        yield node


@pytest.fixture
def pytask_clock(pytask_app: PyTask) -> Clock:
    """The clock of the private server: `pytask_clock.move(hours=2)`."""
    from pytask.testing import Clock

    return Clock(pytask_app)


@pytest.fixture
def pytask_eager(pytask_app: PyTask) -> Iterator[PyTask]:
    """The app in eager mode: what is started has run when `start_task` returns, and what it raised is raised."""
    from pytask.testing import eager

    with eager(pytask_app):
        yield pytask_app
