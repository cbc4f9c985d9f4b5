"""A random tester of the protocol: the product's own code and scripts, in worlds where everything goes wrong.

A world has two queues, up to a handful of nodes with their Monitors and Cleanups, in some worlds the sweep, and
producers. What runs in it is the product: the node's services, the store, the helpers, the tasks, and every Lua
script. Four things are not real:

- `hub`: gevent, threads and the clock. Time jumps to what happens next, so that a minute takes milliseconds.
- `network`, `connections`: the way to Redis. Commands are refused, replies are lost or late, machines are cut off.
- `server.lua`, `server`: Redis itself, in Lua beside the scripts. `compare` tells a real server the same.
- `work`: the tasks, and the policy of retries.

A seed draws a history (`scenario`): acts of producers, and kills, freezes, cuts, outages, failovers (`acts`).
It is played until everything was mended and the world has come to rest. `checker` watches every script as it is
executed, and every run of a task, and says which promise broke first. Everything else follows from the seed.

    cd tests
    python -m simulation seeds 0 2000               plays histories; what fails is shrunk and shown
    python -m simulation seeds 0 300 --failover     with failovers that take writes back
    python -m simulation show 17 [--shrunk]         one history, with everything that was sent
    python -m simulation control 0 600 --without adoption     a safeguard switched off: is it missed? (`controls`)
    python -m simulation compare 0 40 --url redis://localhost:6390     the fake server beside a real one, emptied

The test suite does this too; PYTASK_TEST_SEED is its first seed, PYTASK_TEST_SEEDS how many it plays.

How to read a shrunk failure. At the top: which promise broke, for which id and node, then the smallest history
that was found to do it: the servers, the acts (time, method of `acts.Acts`, arguments) and the commands that
failed ("command 36 of n1 is lost": it was executed, and its caller got an error). Then the trace: seconds, who,
what, and the reply as it left the server; of the keys that say nothing only the inbox is shown.

    8.479 --- 8.48 cut(4, 7.0, True)                            an act; `---` also says when one ends
    8.894 n2 claim new-task:mail ... n2.1 1 -> [ok t2 ...]      machine n2, whose node has the id n2.1, claims t2
    9.031 n2 BLMOVE new-task {new-task}:inbox:n2.1 -> t0        a blocking move is told when it is served
    9.112 n1 LOG node n1.1 is back as n1.2                      what the product logged
    9.130 BROKEN two healthy nodes run one id: ...              the last line that matters: read upwards from here

`p` is the producer, and the parent of the nodes. A command appears when it is executed, a second
time when its reply was lost; "connection refused" was never executed. Beats are left out of what is shown.

When a script changes, the tester follows by itself; a control whose pattern no longer matches says so. When a
service takes something new from gevent, redis or the clock, it gets a stand-in in `stand_ins` or `connections`.
"""
