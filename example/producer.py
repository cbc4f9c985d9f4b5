"""Makes tasks and waits for what comes of them. It needs a node that runs `tasks.py`, anywhere."""

import json
import time

from tasks import task_app

PORTS = [22, 80, 443, 5432, 6379, 8080]
OPEN = (None, "WAIT", "RUNNING")

helpers = task_app.helpers


def wait_for(task_id):
    while helpers.get_task(task_id, "state") in OPEN:
        time.sleep(0.05)
    return helpers.get_task(task_id, ["state", "output"])


# One task, with its data as keywords.
sweep = helpers.start_task("sweep", host="localhost", ports=PORTS)
print("sweep", sweep)

# Many tasks in one round trip.
checks = helpers.start_tasks(("check", {"host": "localhost", "port": port}) for port in PORTS)

for port, task_id in zip(PORTS, checks, strict=True):
    print(f"port {port:>5}:", wait_for(task_id)["output"])

# What start() raised as Task.Error.
print("a bad host:", wait_for(helpers.start_task("check", host="no-such-host.invalid", port=80)))

print("open:", json.loads(wait_for(sweep)["output"])["open"])
