"""The reply of every script, and of every command that moves an id, is lost once: the end state is the same."""

from __future__ import annotations

import os
import time

import pytest
from chaos.proxy import CLOSE, SILENCE, Proxy
from chaos.rig import Rig, wait_for

from pytask import step
from pytask.schedule import read_fire_time
from pytask.store.scripts import script_names

ROUNDS = int(os.environ.get("PYTASK_TEST_ROUNDS", "1"))
COMMANDS = ["BLMOVE new-task", "LPUSH new-task", "LPUSH end-task", "HSET {new-task}:nodes"]


class Tour(Rig):
    """Work that needs every script; all of it goes through a proxy."""

    def __init__(self, proxy_how: str, kind: str = "valkey") -> None:
        super().__init__(kind, node_timeout=4, unknown_wait=2, sweep_interval=1, test_control="early")
        self.proxy = Proxy(self.server.server.port, proxy_how)
        self.url = self.proxy.url

    def __enter__(self):
        self.proxy.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.proxy.__exit__(*error)

    def plain_work(self) -> None:
        self.create(30, seconds=0.2, events=3)
        self.create(5, due=0.5)

    def late_records(self) -> None:
        """Pushes whose hash comes late: `miss`."""
        for number in range(3):
            self.app.helpers.store.queues.push("", [f"late{number}".encode()])
        wait_for(lambda: self.redis.zcard("{new-task}:missing") == 3, "a node has looked for them")
        for number in range(3):
            self.redis.hset(f"task-late{number}", mapping={"task": "work", "data": "{}"})
            self.ids.append(f"late{number}")

    def unknown_task(self) -> None:
        self.redis.hset("task-nobody", "task", "nobody")
        self.redis.lpush("new-task", "nobody")
        self.ids.append("nobody")
        self.expected["nobody"] = "EXCEPTION"

    def lost_claims(self) -> None:
        """Claims that the server forgets while their tasks run, as a failover would: `hold`."""
        ids = self.create(3, seconds=16)  # long enough for `hold` to lose a reply first
        self.wait_for_state(ids, "RUNNING")
        for task_id in ids:
            node = self.redis.hget(f"task-{task_id}", "node").decode()
            self.redis.hdel("{new-task}:claims", task_id)
            self.redis.hdel("{new-task}:of:" + node, task_id)

    def high_fences(self) -> None:
        """Records that have seen a higher fence, as after a failover: `renew`."""
        for number in range(3):
            fields = {"task": "work", "data": "{}", "fence": f"{(time.time() + 30) * 1e6:.0f}"}
            self.redis.hset(f"task-high{number}", mapping=fields)
            self.redis.lpush("new-task", f"high{number}")
            self.ids.append(f"high{number}")

    def stops(self) -> None:
        """A task that runs is stopped, and one that waits for its time; the latter runs again at once."""
        helpers = self.app.helpers
        endless = ["forever0", "forever1"]
        for task_id in endless:
            helpers.start_task("forever", task_id=task_id)
            self.ids.append(task_id)
            self.expected[task_id] = "STOPPED"
        (parked,) = self.create(1, due=3600)
        self.wait_for_state(endless, "RUNNING")
        self.wait_for_state([parked], "SCHEDULED")
        for task_id in (*endless, parked):
            assert helpers.stop_task(task_id), "also where its reply was lost and it was obeyed meanwhile"
        self.wait_for_state([*endless, parked], "STOPPED")
        # not whatever its state is: said again, that would be the wish to run once more what has run meanwhile
        helpers.restart_if_state(parked, "STOPPED")

    def lost_push(self) -> None:
        """A record that waits in no queue, and claims of a node that nobody knows: `look`, `rescue`, `disown`."""
        fields = {"task": "work", "data": "{}", "state": "WAIT"}
        self.redis.hset("task-astray", mapping=fields)
        self.redis.hset("task-owned", mapping=fields)
        self.redis.hset("{new-task}:of:ghost:1:0a0a0a0a", "owned", f"{time.time() * 1e6:.0f} 0 push 0")
        self.ids += ["astray", "owned"]

    def limited_work(self) -> None:
        """Tasks in line, and one whose key has an owner: `places`, `recall`, `lock`, `glance`, `unlock`."""
        helpers = self.app.helpers
        work = {"seconds": 16}  # it still runs when a reply has been waited for in vain, twice
        first = helpers.start_task("work", work, task_id="owner", unique="k")
        assert helpers.start_task("work", work, unique="k") == first
        limited = [f"limited{number}" for number in range(6)]
        for task_id in limited:
            helpers.start_task("work", {"seconds": 0.3}, task_id=task_id, max_running=2)
        self.ids += [first, *limited]

    def queues_seen_to(self) -> None:
        """Of a queue that nobody serves: `requeue_dead`, and `set_aside`, `purge`, `drop_purged`."""
        helpers = self.app.helpers
        helpers.start_tasks([("work", {}), ("work", {})], queue="idle")
        self.redis.lpush("{new-task:idle}:dead", "nobody-knows")
        helpers.requeue_dead("idle")
        helpers.purge_queue("idle")

    def service(self) -> None:
        """A service is made, spread, given new data, and removed: `visit`, `equip`, `hand` and all others."""
        helpers = self.app.helpers
        helpers.start_service("s", "forever", replicas=6)
        wait_for(lambda: (helpers.get_service("s") or {}).get("running") == 6, "all run", 60)
        self.start_node()  # however they were spread, it is handed some
        wait_for(lambda: sorted(helpers.get_service("s")["nodes"].values()) == [2, 2, 2], "they are spread", 60)
        helpers.update_service("s", data={"pause": 6.0}, replicas=5)
        wait_for(lambda: helpers.get_service("s")["state"] == "running", "five have begun anew", 90)
        helpers.remove_service("s")
        wait_for(lambda: helpers.get_service("s") is None, "it is gone", 60)

    def workflow(self) -> None:
        """Two stages, of which the second is skipped in part: `create`, `lay_out`, `step`, `unhold`, `skip` ..."""
        spare = step("work", when="on_failure")
        handle = self.app.start_workflow([["work", "work"], ["work", spare]], workflow_id="W")
        assert handle.wait(90) == "SUCCESS"
        self.ids += ["W:0", "W:1", "W:2"]

    def stopped_workflow(self) -> None:
        """It is stopped between two steps by a message, restarted and stopped again: `want_stop`, `reopen`."""
        handle = self.app.start_workflow([["forever"]], workflow_id="V")
        for turn in range(2):
            if turn:
                handle.restart()
            wait_for(
                lambda: handle.tasks()[0]["state"] == "RUNNING" and self.state("V") == "HELD", "it goes on", 60
            )
            if turn:
                handle.stop()
            else:
                self.redis.publish("task-V-control", "stop")
            wait_for(lambda: self.state("V") == self.state("V:0") == "STOPPED", "it is stopped", 60)

    def begin_schedule(self) -> None:
        """One fires each second: `define_schedule`, `take_schedules`, `draft`, `advance_schedule`, `unhold` ..."""
        self.app.helpers.add_schedule("tick", "work", {"seconds": 0.05}, every=1, missed="all")

    def end_schedule(self) -> None:
        """It has fired each second, once, and is paused and removed: `pause_schedule`."""
        wait_for(lambda: len(self.redis.keys("task-tick@*")) > 10, "it fires")
        self.app.helpers.pause_schedule("tick")
        fields = ("next", "firing")
        wait_for(lambda: self.redis.hmget("schedule-tick", fields) == [None, None], "it is paused")
        fires = sorted(key.decode().removeprefix("task-") for key in self.redis.keys("task-tick@*"))
        times = [read_fire_time(task_id.partition("@")[2]) for task_id in fires]
        assert times == [times[0] + second for second in range(len(times))]
        self.ids += fires
        self.app.helpers.remove_schedule("tick")

    def death(self) -> None:
        """A node dies: `reap`, `orphan`, `return_ended`; what ran is suspected, and cleared: `survive`."""
        self.wait_until_seen()
        victim = self.fleet.nodes[0]
        ids = self.create(20, seconds=2, again=9)
        mine = f":{victim.pid}:".encode()
        wait_for(lambda: any(mine in (self.redis.hget(f"task-{i}", "node") or b"") for i in ids), "it runs one")
        self.kill(victim)


@pytest.mark.waits
@pytest.mark.long
@pytest.mark.parametrize("how", [SILENCE, CLOSE])
@pytest.mark.parametrize("round", range(ROUNDS))
def test_the_reply_of_every_script_is_lost_once(how, round):
    with Tour(how) as tour:
        names = [*script_names(), *COMMANDS]
        tour.proxy.lose(names)
        tour.start_node()
        tour.start_node()
        tour.begin_schedule()
        tour.plain_work()
        tour.high_fences()
        tour.unknown_task()
        tour.lost_claims()
        tour.late_records()
        tour.lost_push()
        tour.stops()
        tour.limited_work()
        tour.queues_seen_to()
        tour.service()
        tour.workflow()
        tour.stopped_workflow()
        tour.end_schedule()
        tour.death()
        # a restart, six replicas, a workflow and its spare task, two stops of one and its task
        verdict = tour.check(60, more_ends=1 + 6 + 2 + 4)
        told = f"{verdict.text()}\nlost in this order: {tour.proxy.lost}\n{tour.story()}"
        assert not verdict.problems, told
        wait_for(lambda: not tour.proxy.left, f"replies of {tour.proxy.left} were never sent:\n{told}", 20)
        assert sorted(tour.proxy.lost) == sorted(names)
        assert tour.fleet.stop() == [0, 0]


def test_a_task_runs_once_whose_making_is_repeated_while_it_runs(monkeypatch):
    """Its record said WAIT when it was made, for the sweep: said again, that would be the wish to run it again."""
    monkeypatch.setattr("pytask.producing.secrets.token_hex", lambda _: "T")
    monkeypatch.setattr("pytask.store.client.FIRST_DELAY", 0.6)  # seconds: it runs by then
    with Tour(CLOSE) as tour:
        tour.start_node()
        tour.proxy.lose(["HSET task-T"])  # and with it that of the push in the same pipeline
        tour.ids.append(tour.app.helpers.start_task("work", {"seconds": 1}))
        verdict = tour.check()
        assert not tour.proxy.left
        assert not verdict.problems, f"{verdict.text()}\n{tour.story()}"
        assert verdict.figures["runs"] == 1
