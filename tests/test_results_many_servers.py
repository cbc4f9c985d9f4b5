"""Results on a cluster and under Sentinel: from threads and from asyncio, while servers die."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos.cluster import Cluster
from chaos.sentinels import Sentinels
from conftest import ON_ONE_SERVER, wait_until
from test_aio import Loop, listed
from test_following import short
from test_results import LONG, Waiter

from pytask import PyTask

pytestmark = [pytest.mark.waits, ON_ONE_SERVER]
AGES = 90  # seconds that a deployment may take to come back


@pytest.fixture(params=[Cluster, Sentinels], ids=["cluster", "sentinel"])
def deployment(request):
    with request.param() as made:
        yield made


@pytest.fixture
def many(deployment, start_node, monkeypatch):
    """An app on many servers, with a node that works for it."""
    for name, value in deployment.environ().items():
        monkeypatch.setenv(name, value)
    start_node("-u", deployment.url, app="waitapp:app", concurrency="5")
    app = PyTask(deployment.url)
    yield app
    app.close()


@pytest.fixture
def loop(many):
    made = Loop()
    yield made
    made.run(many.aio.close())
    made.close()


def test_results_come_while_servers_die(deployment, many, loop):
    helpers, aio = many.helpers, many.aio
    assert helpers.wait_all(helpers.start_tasks([("child", {"value": n}) for n in range(300)]), AGES) == [
        *range(300)
    ]
    assert (
        sum(handle.get() for handle in helpers.as_completed(helpers.start_tasks([("child",)] * 100), AGES)) == 100
    )
    assert helpers.start_task("parent", depth=3).get(AGES) == 4

    async def from_asyncio() -> list:
        handles = await aio.start_tasks([("child", {"value": n}) for n in range(100)])
        made = await aio.start_task("child", value=7)
        return [
            sum(await aio.wait_all(handles, LONG)),
            await made.get(LONG),
            short(await listed(made.events()))[-1],
        ]

    assert loop.run(from_asyncio()) == [4950, 7, ("success", 7)]

    slow = helpers.start_tasks([("child", {"seconds": 6, "value": n}) for n in range(4)])
    with ThreadPoolExecutor(4) as pool:
        gets = [pool.submit(handle.get, AGES) for handle in slow]
        awaited = [loop.begin(aio.get(handle, AGES)) for handle in slow]
        follower = Waiter(lambda: list(slow[0].events(timeout=AGES)))
        wait_until(lambda: helpers.waiting._line and helpers.waiting._line._interest, "they wait")
        deployment.masters()[0].kill()
        assert [get.result(AGES) for get in gets] == [0, 1, 2, 3]
        assert [future.result(AGES) for future in awaited] == [0, 1, 2, 3]
    follower.join(AGES)
    assert follower.result[-1].event == "success"
    assert helpers.start_task("child", value=5).get(AGES) == 5
    assert loop.begin(aio.wait_all(list(slow), AGES)).result(AGES) == [0, 1, 2, 3]
    assert loop.begin(_start_again(aio)).result(AGES) == 9


async def _start_again(aio) -> int:
    handle = await aio.start_task("child", value=9)
    return await handle.get(AGES)
