"""Names that no node knows must not hold up the tasks that some node does."""

from __future__ import annotations

import time

import pytest
from conftest import ON_ONE_SERVER, wait_until

MANY = 10_000


@ON_ONE_SERVER
@pytest.mark.alone
def test_ten_thousand_unknown_names_do_not_hold_an_innocent_task_up(server, start_node):
    start_node(unknown_wait="600")
    pipe = server.redis.pipeline(transaction=False)
    for number in range(MANY):
        pipe.hset(f"task-u{number}", "task", f"no-such-task-{number}")
    pipe.lpush("new-task", *[f"u{number}" for number in range(MANY)])
    pipe.execute()
    wait_until(lambda: server.redis.zcard("{new-task}:due") > MANY // 2, "they go round")
    waits = []
    for number in range(20):
        began = time.monotonic()
        server.create(f"i{number}", "noop")
        server.wait_for_state(f"i{number}", "SUCCESS")
        waits.append(time.monotonic() - began)
        time.sleep(0.1)  # at different moments of their round
    print(f"an innocent task took {max(waits):.3f} s at most, {sorted(waits)[10]:.3f} s in the middle")
    assert max(waits) < 3
