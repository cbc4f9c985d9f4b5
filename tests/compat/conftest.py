"""The server of the tests of a module: their programs run on it from one test to the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from compat.literal import OpenServer, open_server


@pytest.fixture(scope="module")
def own_server() -> Iterator[OpenServer]:
    """One without a password, at a port of its own."""
    with open_server() as running:
        yield running


@pytest.fixture(scope="module")
def client(own_server: OpenServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_server.url) as made:
        yield made
